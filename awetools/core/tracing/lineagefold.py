"""Long rows of branches that are alike, as one line: the tree of a coadd of hundreds of frames stays readable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from .lineage import Line, Node

# Rows that are longer are folded, so many of their branches stay.
MOST, SHOWN = 20, 3


@dataclass(frozen=True)
class Fold:
    """The rest of a row of branches that are alike: role, kinds, states and what is met again are the same.

    nodes: at the head of each; lasts: as of the last of them in `Line`; lines: how many all of it has.
    """

    nodes: tuple[Node, ...]
    role: str
    lasts: tuple[bool, ...]
    lines: int


def folded(lines: Iterable[Line]) -> Iterator[Line | Fold]:
    """The lines of a walk with long rows folded; what was asked for is not."""
    for branch in _branches(list(lines)):
        yield branch[0]
        yield from _inner(branch[1:])


def _inner(lines: Sequence[Line]) -> Iterator[Line | Fold]:
    for _, same in groupby(_branches(lines), _shape):
        row = list(same)
        rest = row[SHOWN:] if len(row) > MOST else []
        for branch in row[: len(row) - len(rest)]:
            yield branch[0]
            yield from _inner(branch[1:])
        if rest:
            first, last = rest[0][0], rest[-1][0]
            nodes = tuple(branch[0].node for branch in rest)
            yield Fold(nodes, first.role, last.lasts, sum(len(branch) for branch in rest))


def _branches(lines: Sequence[Line]) -> Iterator[Sequence[Line]]:
    """The branches that begin at the level of the first line."""
    starts = [number for number, line in enumerate(lines) if len(line.lasts) == len(lines[0].lasts)]
    for start, end in pairwise([*starts, len(lines)]):
        yield lines[start:end]


def _shape(branch: Sequence[Line]) -> tuple[object, ...]:
    return tuple(
        (
            len(one.lasts),
            one.role,
            one.node.kind,
            one.node.state,
            one.node.lacks_record,
            one.repeated,
            one.more,
        )
        for one in branch
    )
