"""The hints of kinds as `awe-make` says them: its options are others than those of a kind's own program."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import lru_cache

from ..core.kind import Kind, kind_named
from ..core.params import params_of

# A program, whose options follow it; the end of what is said of it; an option with what may be its value.
_PARTS = re.compile(
    r"(?P<program>\bawe-[a-z]+)|(?P<end>[;:,()]\s|\bor\b)"
    r"|(?P<option>(?<![\w-])--(?P<name>[a-z][a-z0-9-]*))(?P<value>[ =](?:[A-Z][A-Z0-9_]*\b|[-+.\d]+|[\w./-]+))?"
)
_PLACEHOLDER = re.compile(r"[A-Z][A-Z0-9_]*|[-+]?[.\d]+")


def hint_for_make(kind: Kind, hint: str) -> str:
    """A hint of a kind with options that awe-make has: `--band BAND` becomes `--set zeropoint.band=BAND`.

    The parameter may be that of a kind which this one needs. What awe-make has no option for is
    said of the kind's own program.
    """
    own = _options_of_make() if "--" in hint else ()
    program = ""

    def said(match: re.Match[str]) -> str:
        nonlocal program
        text = match[0]
        if match["program"]:
            program = text
        elif match["end"]:
            program = ""
        if match["option"] is None or program or match["name"] in own:
            return text
        found = (_as_set(one, match["name"], match["value"] or "") for one in _with_needed(kind))
        return next(filter(None, found), f"{kind.command} {text}")

    return _PARTS.sub(said, hint)


def _with_needed(kind: Kind) -> Iterator[Kind]:
    """A kind and those that it needs, the nearest first."""
    from ..core.kinds import KINDS
    from ..core.planning.nodes import distances

    for name in distances(KINDS, [kind]):
        yield kind_named(KINDS, name)


def _as_set(kind: Kind, name: str, value: str) -> str:
    """An option of a kind's program as --set of awe-make; empty where it is no parameter."""
    params = {one.option.removeprefix("--"): one for one in params_of(kind.params)}
    switched_off = params.get(name.removeprefix("no-"))
    if name.startswith("no-") and switched_off is not None and switched_off.type is bool:
        return f"--set {kind.name}.{switched_off.name}=false{value}"
    one = params.get(name)
    if one is None:
        return ""
    if one.type is bool:
        return f"--set {kind.name}.{one.name}=true{value}"
    given, rest = value[1:], ""
    if not (_PLACEHOLDER.fullmatch(given) or given in (one.choices or ()) or given in ("auto", "none")):
        # The next word of the sentence is no value.
        given, rest = one.name.upper(), value
    return f"--set {kind.name}.{one.name}={given}{rest}"


@lru_cache(maxsize=1)
def _options_of_make() -> Collection[str]:
    """The names of the options of awe-make, with --no-ROLE for each role that a product can be made without."""
    from ..core.kinds import KINDS
    from ..core.planning.demands import roles_without
    from .make import command

    known = {name.removeprefix("--") for one in command.params for name in one.opts if name.startswith("--")}
    return frozenset(known | {f"no-{role.replace('_', '-')}" for role in roles_without(KINDS)})
