"""What can follow a dot: the fields, measures and links of a kind, from the declarations."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..core import kinds as made_here
from ..core.errors import nearest
from ..core.kind import Kind, is_outside
from ..core.meta import FRAME_TYPES

if TYPE_CHECKING:
    from ..core.questions.linkpaths import Link


class Step(NamedTuple):
    """Where a path stands.

    path: how the index is asked so far. prefix: the part of a dotted name that was said.
    kinds: those whose names can follow, none after a value. many: it leads to several objects.
    """

    path: str
    prefix: str = ""
    kinds: tuple[str, ...] = ()
    many: bool = False

    @property
    def is_link(self) -> bool:
        """Whether other objects stand here."""
        return bool(self.kinds) and not self.prefix


def all_kinds() -> tuple[Kind, ...]:
    """Every declaration, those of what is imported last."""
    from ..core.kinds.foreign import IMPORTS

    return (*made_here.KINDS, *IMPORTS)


def step(at: Step, name: str, of: str = "") -> Step:
    """One step along a name; raises AttributeError with the nearest name.

    of: what a message names, by default the class of the objects that stand there.
    """
    _keep_up()
    known = _steps.get((at, name))
    if known is None:
        known = _steps[at, name] = _step(at, name, of)
    return known


def _step(at: Step, name: str, of: str) -> Step:
    if not at.kinds:
        raise AttributeError(f"{of} is a value and has no attribute {name!r}")
    full = f"{at.prefix}.{name}" if at.prefix else name
    path = f"{at.path.removesuffix(at.prefix)}{full}"
    fields, links = _known(at.kinds)
    if full in fields:
        return Step(path)
    if full in links:
        link = links[full]
        return Step(f"{path.removesuffix(full)}{link.name}.", "", link.kinds, link.many)
    if any(one.startswith(f"{full}.") for one in fields):
        return Step(path, full, at.kinds)
    of = of or class_name_of(at.kinds[0])
    raise AttributeError(f"{of} has no attribute {name!r}{nearest(name, followers(at))}")


def followers(at: Step) -> list[str]:
    """The names that can follow."""
    if not at.kinds:
        return []
    begin = f"{at.prefix}." if at.prefix else ""
    fields, links = _known(at.kinds)
    every = (one.removeprefix(begin) for one in (*fields, *links) if one.startswith(begin))
    return sorted({one.partition(".")[0] for one in every})


class _Known(NamedTuple):
    """The fields of some kinds, and their links: inputs, and (by the name of the kind) what is made from them."""

    fields: frozenset[str]
    links: dict[str, Link]


# What was worked out of the declarations, as long as they are the same: thousands of objects ask.
_declared: list[tuple[Kind, ...]] = []
_worked_out: dict[tuple[str, ...], _Known] = {}
_steps: dict[tuple[Step, str], Step] = {}


def _keep_up() -> None:
    if not _declared or _declared[0] is not made_here.KINDS:
        _declared[:] = [made_here.KINDS]
        _worked_out.clear()
        _steps.clear()


def _known(kinds: tuple[str, ...]) -> _Known:
    from ..core.questions.linkpaths import BACKWARD, Declared

    _keep_up()
    if kinds not in _worked_out:
        there = Declared(all_kinds())
        names = tuple(one for kind in kinds for one in there.start(kind))
        found = [one for one in there.links(names).values() if not any(map(is_outside, one.kinds))]
        links = {one.name.removeprefix(BACKWARD): one for one in found if one.forward}
        links |= {one.name: one for one in found if not one.forward}
        _worked_out[kinds] = _Known(frozenset(there.fields(names)), links)
    return _worked_out[kinds]


def class_name_of(kind: str) -> str:
    """The name of a class: the declared one; of raw frames RawBias for raw_bias, and so on."""
    if kind == "raw" or kind in FRAME_TYPES:
        return "".join(part.capitalize() for part in kind.split("_"))
    return next(one.class_name for one in all_kinds() if one.name == kind)
