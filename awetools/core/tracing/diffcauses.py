"""What makes two products differ: the first causes that lie in a recipe, its inputs, its software or its file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import AweError, NoRecord
from ..files import parse_address
from ..ingest import FITS_ENDINGS
from ..journal import Words, nearest_words, stores_heard
from ..kind import REFCAT, SAME_PRODUCT, is_outside
from ..record import Record
from .lineage import Node, Reference
from .states import overrides_of, unreadable_record

if TYPE_CHECKING:
    from ..store import Store
    from .lookup import Lookup

CauseName = Literal[
    "kind",
    "revision",
    "parameter",
    "frames",
    "input",
    "pixels",
    "meta",
    "choice",
    "without",
    "software",
    "host",
    "edited",
    "unknown",
]
# Names that a message lists.
SHOWN = 3
# What a frame is chosen by: where two differ in it, other calibrations follow.
TOLD = ("filter", "exptime_s", "detector", "night")


@dataclass(frozen=True)
class Step:
    """An input in which two products differ: its role and kind, and where the two are or were."""

    role: str
    kind: str
    one: str
    other: str


@dataclass(frozen=True)
class Cause:
    """A first cause: nothing that the records know of explains it further.

    text: in words. chain: the inputs from the products asked about down to those two
    in which the cause lies; empty where it lies in the products themselves. one, other:
    what is compared, such as the two values of a parameter; None for what is not there.
    """

    name: CauseName
    text: str
    chain: tuple[Step, ...] = ()
    one: object = None
    other: object = None


@dataclass(frozen=True)
class Side:
    """A node with its record, None if none is kept; reference: what the record above says of it."""

    node: Node
    record: Record | None
    reference: Reference | None = None

    @property
    def name(self) -> str:
        return os.path.basename(self.node.path)

    @property
    def called(self) -> str:
        """Kind and name, as sentences have it."""
        return f"{self.node.kind} {self.name}"

    @property
    def recipe(self) -> Mapping[str, Any]:
        assert self.record is not None
        recipe: Mapping[str, Any] = self.record["recipe"]
        return recipe

    def of_role(self, role: str) -> list[Reference]:
        return [one for one in self.node.inputs if one.role == role]


@dataclass(frozen=True)
class Pair:
    one: Side
    other: Side
    chain: tuple[Step, ...] = ()

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.one, self.other


def is_raw(node: Node | Reference) -> bool:
    """Whether it is a raw frame, or a file of another pipeline: known by its content alone."""
    return node.id == node.content


def read_meta(one: Reference) -> dict[str, Any]:
    """What was read of an input's meta; how its overscan was subtracted is a parameter of the recipe."""
    return {name: value for name, value in one.meta.items() if name != "overscan_mode"}


def frame_name(one: Reference) -> str:
    """The file's name without what says how it is packed, with the detector."""
    address = parse_address(one.path)
    name = address.path.name
    ending = max((end for end in FITS_ENDINGS if name.lower().endswith(end)), key=len, default="")
    return f"{name[: len(name) - len(ending)]}[{address.detector}]"


def apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return [name for name in SAME_PRODUCT if one.get(name) != other.get(name)]


def of_recipe(pair: Pair) -> Iterator[Cause]:
    ours, theirs = (side.recipe for side in pair.sides)
    revisions = ours["revision"], theirs["revision"]
    if revisions[0] != revisions[1]:
        text = f"the recipe of the {pair.one.node.kind} is {both(*(f'revision {one}' for one in revisions))}"
        yield Cause("revision", text, pair.chain, *revisions)
    for name in sorted({*ours["parameters"], *theirs["parameters"]}):
        one, other = (recipe["parameters"].get(name) for recipe in (ours, theirs))
        if one is None or other is None or one["value"] != other["value"]:
            text = f"{name} of the {pair.one.node.kind} is {both(_value(one), _value(other))}"
            yield Cause("parameter", text, pair.chain, one, other)


def _value(parameter: Mapping[str, Any] | None) -> str:
    """A value of a parameter with where it came from."""
    if parameter is None:
        return "not there"
    return f"{parameter['value']} ({parameter.get('origin', 'origin not recorded')})"


def without_role(pair: Pair, role: str, there: Sequence[Reference], lacks_one: bool) -> Cause:
    with_, lacks = (pair.other, pair.one) if lacks_one else (pair.one, pair.other)
    text = f"{lacks.called} was made without {role}; {with_.called} with {_few(there)}"
    names = [one.path for one in there]
    return Cause("without", text, pair.chain, *((None, names) if lacks_one else (names, None)))


def of_raw_frames(pair: Pair, one: Reference, other: Reference, lookup: Lookup) -> Iterator[Cause]:
    """How two raw frames in one place differ: other pixels, another frame, or meta that was read otherwise."""
    name = os.path.basename(one.path)
    if one.kind == REFCAT == other.kind:
        yield _other_catalogue(pair, one, other)
        return
    if one.content != other.content and frame_name(one) == frame_name(other):
        text = f"the raw frame {name} holds other pixels ({one.content[:8]}, {other.content[:8]})"
        yield Cause("pixels", text, pair.chain, one.content, other.content)
        return
    if one.content != other.content:
        text = f"the {one.role} frame is {both(*_frames_told(one, other, lookup))}"
        yield Cause("input", text, pair.chain, one.path, other.path)
        return
    yield from _read_otherwise(pair, one, other, {**_overrides(one, lookup), **_overrides(other, lookup)})


def _other_catalogue(pair: Pair, one: Reference, other: Reference) -> Cause:
    names = [os.path.basename(each.path) for each in (one, other)]
    contents = one.content[:8], other.content[:8]
    if names[0] == names[1]:
        text = f"the reference catalogue {names[0]} holds other stars ({', '.join(contents)})"
        return Cause("pixels", text, pair.chain, one.content, other.content)
    told = (f"{name} ({content})" for name, content in zip(names, contents, strict=True))
    return Cause("input", f"the reference catalogue is {both(*told)}", pair.chain, one.path, other.path)


def _frames_told(one: Reference, other: Reference, lookup: Lookup) -> Iterator[str]:
    """The names of two raw frames, each with that of its meta from which more follows."""
    metas = [{**lookup.resolve(frame).meta, **frame.meta} for frame in (one, other)]
    apart = [name for name in TOLD if metas[0].get(name) != metas[1].get(name)]
    for frame, meta in zip((one, other), metas, strict=True):
        told = ", ".join(f"{name} {'not known' if meta.get(name) is None else meta[name]}" for name in apart)
        yield os.path.basename(frame.path) + (f" ({told})" if told else "")


def _read_otherwise(
    pair: Pair, one: Reference, other: Reference, by_hand: Mapping[str, str]
) -> Iterator[Cause]:
    """The fields of one raw frame that were read otherwise; what follows from those set by hand is named with them."""
    ours, theirs = read_meta(one), read_meta(other)
    differ = [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]
    corrected = [name for name in differ if name in by_hand]
    for name in corrected or differ:
        values = ours.get(name), theirs.get(name)
        text = f"{name} of the raw frame {os.path.basename(one.path)} is {both(*map(repr, values))}"
        if corrected:
            text += f", set by hand to {by_hand[name]}"
        if corrected and (others := [field for field in differ if field not in corrected]):
            text += f" (and with it {', '.join(others)})"
        yield Cause("meta", text, pair.chain, *values)


def _overrides(raw: Reference, lookup: Lookup) -> Mapping[str, str]:
    """What was set by hand of a raw frame, as its record says now."""
    return _overrides_of(lookup.resolve(raw))


def _overrides_of(node: Node) -> Mapping[str, str]:
    with suppress(NoRecord):
        return overrides_of(node)
    return {}


def left_out(
    pair: Pair, side: int, gone: Sequence[Reference], lookup: Lookup, stores: Sequence[Store]
) -> Cause:
    """Inputs that only one of two products has; side: that of the other one, which is without them."""
    lacks = pair.sides[side]
    what = "raw frame" if is_raw(gone[0]) and not is_outside(gone[0].kind) else gone[0].kind
    verb = "was" if len(gone) == 1 else "were"
    text = f"the {what}{'' if len(gone) == 1 else 's'} {_few(gone)} {verb} left out of {lacks.called}"
    why = _why_left_out(lacks, gone[0], lookup, stores)
    names: list[object] = [[one.path for one in gone], None]
    return Cause("frames", text + (f": {why}" if why else ""), pair.chain, *(names if side else names[::-1]))


def _why_left_out(lacks: Side, gone: Reference, lookup: Lookup, stores: Sequence[Store]) -> str:
    node = lookup.resolve(gone)
    assert lacks.record is not None
    if _heard(node.path, stores, lacks.record).verdicts.get(node.id) == "bad":
        return "it was judged bad"
    for name in lacks.of_role(gone.role)[0].meta if lacks.of_role(gone.role) else ():
        now, group = node.meta.get(name), lacks.node.meta.get(name)
        if name in SAME_PRODUCT and group is not None and now != group:
            said = ", set by hand" if name in _overrides_of(node) else ""
            return f"its {name} is {now!r}{said}, not {group!r}"
    return ""


def other_choice(pair: Pair, inner: Pair, stores: Sequence[Store]) -> Cause:
    """Another calibration was chosen or named: which, how, with its interval, and why not the other."""
    role = inner.chain[-1].role
    said = [_taken(pair.sides[n], inner.sides[n], inner.sides[1 - n], stores) for n in (0, 1)]
    text = f"{pair.one.called} took as {role} {said[0]}; {pair.other.called} took {said[1]}"
    return Cause("choice", text, pair.chain, *(side.node.path for side in inner.sides))


def _taken(user: Side, taken: Side, passed: Side, stores: Sequence[Store]) -> str:
    assert user.record is not None
    block: Mapping[str, Any] = next(
        (
            one
            for one in user.recipe["inputs"]
            if taken.reference
            and one["role"] == taken.reference.role
            and one["content"] == taken.node.content
        ),
        {},
    )
    parts = ["chosen by the rule" if block.get("question") else "named"]
    night = taken.node.meta.get("night")
    heard = _heard(taken.node.path, stores, user.record)
    by_hand = heard.validities.get(taken.node.id)
    if by_hand:
        parts.append(
            f"valid {by_hand.start or 'ever'} to {by_hand.end or 'ever'}, set by hand: {by_hand.reason}"
        )
    elif taken.record and (validity := taken.record["validity"]):
        parts.append(f"valid {validity.get('start') or 'ever'} to {validity.get('end') or 'ever'}")
    if block.get("nights_away"):
        parts.append(f"{block['nights_away']} nights away")
    passed_over = _passed_over(user, passed, stores)
    if passed_over:
        parts.append(f"{passed.name} {passed_over}")
    return f"{taken.name}{f' of {night}' if night else ''} ({'; '.join(parts)})"


def _passed_over(user: Side, passed: Side, stores: Sequence[Store]) -> str:
    """Why a product could not take the calibration that the other took, as far as records and journals tell."""
    assert user.record is not None
    made = str(user.record["run"].get("end") or "")
    if passed.record and made and str(passed.record["run"].get("end") or "") > made:
        return "was made later"
    heard = _heard(passed.node.path, stores, user.record)
    verdict = heard.verdicts.get(passed.node.id)
    if verdict == "bad":
        return "was judged bad"
    if passed.record and passed.record["quality"]["flags"] and verdict not in ("good", "ready"):
        return f"was flagged ({', '.join(passed.record['quality'].get('flag_names', ()))})"
    interval = heard.validities.get(passed.node.id)
    if interval is not None:
        return (
            f"served {interval.start or 'ever'} to {interval.end or 'ever'}, set by hand: {interval.reason}"
        )
    return ""


def _heard(path: str, stores: Sequence[Store], user: Record) -> Words:
    """What people had said of an object when a product was made."""
    as_of = user["run"].get("end")
    with suppress(AweError):
        return nearest_words(stores_heard(parse_address(path).path, stores), as_of)
    return Words({}, {})


def made_elsewhere(pair: Pair) -> Cause:
    """One recipe and other bits: by other software, else by another machine."""
    one, other = (side.record for side in pair.sides)
    assert one is not None and other is not None
    packages = software_differences(one, other) or software_differences(one, other, loaded=True)
    if packages:
        text = f"one recipe was carried out by other software: {packages_in_words(packages)}"
        return Cause("software", text, pair.chain, one["software"], other["software"])
    hosts = [str(record["run"].get("host", "an unknown host")) for record in (one, other)]
    where = f"on {hosts[0]} and on {hosts[1]}" if hosts[0] != hosts[1] else f"twice on {hosts[0]}"
    text = (
        f"one recipe was carried out {where} by the same software, with other bits: "
        "the libraries or processors differ (awe-lineage --rerun shows which is which)"
    )
    return Cause("host", text, pair.chain, *hosts)


def software_differences(one: Record, other: Record, loaded: bool = False) -> list[tuple[str, str, str]]:
    """The packages whose versions differ, with both; loaded: those that only one of two programs had loaded.

    What was not loaded did not matter, and programs load packages as they need them.
    """
    ours, theirs = one["software"], other["software"]
    names = sorted({*ours} ^ {*theirs} if loaded else {*ours} & {*theirs})
    return [
        (name, ours.get(name, "not loaded"), theirs.get(name, "not loaded"))
        for name in names
        if ours.get(name) != theirs.get(name)
    ]


def not_known(pair: Pair) -> Cause:
    missing = [side for side in pair.sides if side.record is None]
    broken = [error.message for side in missing if (error := unreadable_record(side.node))]
    if broken:
        return Cause("unknown", "; ".join(broken), pair.chain)
    what = f"no record of {' and of '.join(side.called for side in missing)} is kept"
    return Cause("unknown", what if missing else "the records do not tell why", pair.chain)


def edited(pair: Pair) -> Iterator[Cause]:
    """Products whose file is not the one that was made."""
    for number, side in enumerate(pair.sides):
        if side.node.state != "changed" or side.record is None:
            continue
        now = _content_now(Path(side.node.path))
        if now == side.node.content:
            continue
        text = f"{side.called} was edited after it was made: its pixels are not those of its record"
        values: list[str | None] = [None, None]
        values[number] = now
        yield Cause("edited", text, (), *values)


def _content_now(path: Path) -> str | None:
    """The content hash of a file as it is; None if it cannot be read."""
    from ..fits import open_fits

    try:
        with open_fits(path) as fits:
            return fits.content()
    except AweError:
        return None


# In words


def both(one: object, other: object) -> str:
    return f"{one} in the first, {other} in the second"


def _few(found: Sequence[Reference]) -> str:
    names = sorted(os.path.basename(one.path) for one in found)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def packages_in_words(found: Sequence[tuple[str, str, str]]) -> str:
    return "; ".join(f"{name} {both(*versions)}" for name, *versions in found)
