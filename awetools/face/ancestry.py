"""What an object was made from, or what was made from it, as a tree to print and to go through."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..core.tracing.lineage import Line, Node

BRANCH, LAST, BELOW, EMPTY = "\u251c\u2500\u2500 ", "\u2514\u2500\u2500 ", "\u2502   ", "    "


class Lineage:
    """The lines of a walk: iterates over the objects, each once, with kind, path, state, id and meta."""

    def __init__(self, lines: list[Line]) -> None:
        self.lines = lines

    def __iter__(self) -> Iterator[Node]:
        return (line.node for line in self.lines if not line.repeated)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __str__(self) -> str:
        return "\n".join(_line(line) for line in self.lines)

    __repr__ = __str__


def lineage_of(path: str, depth: int | None, forward: bool) -> Lineage:
    """The lineage of what is at a path."""
    from ..core.tracing.lineage import ancestors, descendants
    from ..core.tracing.lookup import Lookup
    from .expressions import stores_here

    with Lookup(stores_here()) as lookup:
        starts = lookup.named(path)
        return Lineage(list((descendants if forward else ancestors)(starts, lookup, depth)))


def _line(line: Line) -> str:
    from ..core.tracing.lineagegraph import Box, role_says_more, texts_of

    begin = "".join(EMPTY if one else BELOW for one in line.lasts[:-1])
    begin += (LAST if line.lasts[-1] else BRANCH) if line.lasts else ""
    texts = texts_of(Box((line.node,)))
    if role_says_more(line.role, line.node):
        texts.append(f"as {line.role}")
    if line.repeated or line.more:
        texts.append("(see above)" if line.repeated else f"({line.more} not followed)")
    return begin + "  ".join(texts)
