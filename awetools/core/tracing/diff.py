"""Why two products differ: from their records down to the first causes, along the inputs that differ."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import NoRecord
from ..record import read_record
from .diffcauses import (
    Cause,
    Pair,
    Side,
    Step,
    apart,
    both,
    edited,
    frame_name,
    is_raw,
    left_out,
    made_elsewhere,
    not_known,
    of_raw_frames,
    of_recipe,
    other_choice,
    packages_in_words,
    read_meta,
    software_differences,
    without_role,
)
from .lineage import Node, Reference

if TYPE_CHECKING:
    from ..store import Store
    from .lookup import Lookup


@dataclass(frozen=True)
class Explanation:
    """Two products, whether recipe and bits are the same, why not, and what differs without being the cause."""

    one: Node
    other: Node
    same_recipe: bool
    same_bits: bool
    causes: tuple[Cause, ...]
    besides: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether nothing tells the two apart but where, when and by whom they were made."""
        return self.same_recipe and self.same_bits and not self.causes


def explain(one: Node, other: Node, lookup: Lookup, stores: Sequence[Store]) -> Explanation:
    """Why two products differ, down to the first causes, those nearest to the products first.

    All is read from the records, so that it does not matter what was deleted since.
    stores: whose journals tell why a calibration or frame was not used.
    """
    top = Pair(_side(one), _side(other))
    found: dict[tuple[str, str], Cause] = {}
    for cause in (*edited(top), *_walk(top, lookup, stores)):
        found.setdefault((cause.name, cause.text), cause)
    causes = tuple(found.values())
    touched = any(cause.name == "edited" for cause in causes)
    return Explanation(
        one,
        other,
        same_recipe=one.id == other.id,
        same_bits=one.content == other.content and not touched,
        causes=causes,
        besides=tuple(_besides(top, causes)),
    )


def _side(node: Node, reference: Reference | None = None) -> Side:
    record = None
    if node.record_path is not None and not is_raw(node):
        with suppress(NoRecord):
            record = read_record(node.record_path)
    return Side(node, record, reference)


# Down the inputs


def _walk(top: Pair, lookup: Lookup, stores: Sequence[Store]) -> Iterator[Cause]:
    """The first causes, by the shortest way; each pair of inputs is looked at once."""
    waiting, seen = deque([top]), set()
    while waiting:
        pair = waiting.popleft()
        name = (pair.one.node.identity, pair.other.node.identity)
        if name in seen or name[0] == name[1]:
            continue
        seen.add(name)
        if pair.one.record is None or pair.other.record is None:
            yield not_known(pair)
        elif pair.one.node.kind != pair.other.node.kind:
            kinds = [side.node.kind for side in pair.sides]
            yield Cause(
                "kind",
                f"{pair.one.called} is a {kinds[0]}, {pair.other.called} a {kinds[1]}",
                pair.chain,
                *kinds,
            )
        elif pair.one.node.id == pair.other.node.id:
            yield made_elsewhere(pair)
        else:
            own, below = _look_into(pair, lookup, stores)
            yield from own
            waiting += below
            if not own and not below:
                yield not_known(pair)


def _look_into(pair: Pair, lookup: Lookup, stores: Sequence[Store]) -> tuple[list[Cause], list[Pair]]:
    """The causes that lie in the recipe and the direct inputs of a pair, and the inputs to look into."""
    causes = list(of_recipe(pair))
    below: list[Pair] = []
    apart: list[Pair] = []
    roles = dict.fromkeys(one.role for side in pair.sides for one in side.node.inputs)
    for role in roles:
        ours, theirs = (side.of_role(role) for side in pair.sides)
        if not ours or not theirs:
            causes.append(without_role(pair, role, ours or theirs, lacks_one=not ours))
            continue
        matched, only_ours, only_theirs = _matched(ours, theirs)
        for one, other in matched:
            if is_raw(one) or is_raw(other):
                causes += of_raw_frames(pair, one, other, lookup)
                continue
            step = Step(role, one.kind, one.path, other.path)
            inner = Pair(
                _side(lookup.resolve(one), one), _side(lookup.resolve(other), other), (*pair.chain, step)
            )
            (below if _same_product(inner) else apart).append(inner)
        for side, gone in ((1, only_ours), (0, only_theirs)):
            if gone:
                causes.append(left_out(pair, side, gone, lookup, stores))
    # Another calibration may be due to what the frames are; then it is no cause of its own.
    for inner in apart:
        if not _follows(pair, inner, causes):
            causes.append(other_choice(pair, inner, stores))
    return causes, below


def _matched(
    ours: Sequence[Reference], theirs: Sequence[Reference]
) -> tuple[list[tuple[Reference, Reference]], list[Reference], list[Reference]]:
    """The inputs of a role that belong together and differ, and those that only one side has.

    Equal pixels belong together, then equal names, then what is left where it is one each.
    """
    pairs: list[tuple[Reference, Reference]] = []
    left, right = list(ours), list(theirs)
    for same in (lambda one: one.content, frame_name):
        known = {same(one): one for one in right}
        for one in list(left):
            other = known.pop(same(one), None)
            if other is not None:
                pairs.append((one, other))
                left.remove(one)
                right.remove(other)
    if len(ours) == len(theirs) == 1 and left:
        pairs.append((left.pop(), right.pop()))
    return [two for two in pairs if _differ(*two)], left, right


def _differ(one: Reference, other: Reference) -> bool:
    return one.content != other.content or read_meta(one) != read_meta(other)


def _same_product(pair: Pair) -> bool:
    """Whether two products are versions of one, so that what differs below them is why they differ."""
    if pair.one.record is None or pair.other.record is None:
        return True
    return not apart(pair.one.node.meta, pair.other.node.meta)


def _follows(pair: Pair, inner: Pair, causes: Iterable[Cause]) -> bool:
    """Whether two calibrations are others because the frames are: other in the same fields."""
    if not any(cause.name in ("meta", "input", "frames") for cause in causes):
        return False
    frames = [side.node.meta for side in pair.sides]
    return bool(set(apart(inner.one.node.meta, inner.other.node.meta)) & set(apart(*frames)))


def _besides(top: Pair, causes: Sequence[Cause]) -> Iterator[str]:
    """What differs too and need not matter: software, host, and files that were touched without their pixels."""
    one, other = (side.record for side in top.sides)
    if one is not None and other is not None:
        if not any(cause.name == "software" for cause in causes) and (
            packages := software_differences(one, other)
        ):
            yield f"made by other software: {packages_in_words(packages)}"
        hosts = [record["run"].get("host") for record in (one, other)]
        if hosts[0] != hosts[1]:
            yield f"made on other hosts: {both(*hosts)}"
    for side in top.sides:
        if side.node.state == "changed" and not any(cause.name == "edited" for cause in causes):
            yield f"{side.called} was edited after it was made, but not its pixels"


# In words


def sentence(cause: Cause) -> str:
    """A cause with the way to it, as a person would say it: `because the flat differs, because ...`."""
    steps = [f"because the {_input(step)} differs ({_two_names(step)})" for step in cause.chain]
    return ", ".join([*steps, f"because {cause.text}"])


def _input(step: Step) -> str:
    return step.kind if step.role == step.kind else f"{step.kind} (as {step.role})"


def _two_names(step: Step) -> str:
    names = os.path.basename(step.one), os.path.basename(step.other)
    if names[0] == names[1]:
        names = step.one, step.other
    return names[0] if names[0] == names[1] else ", ".join(names)
