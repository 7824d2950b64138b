"""Ancestors and descendants of products, from the records alone: what a walk meets, in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .lookup import Lookup

State = Literal["present", "moved", "changed", "deleted"]


@dataclass(frozen=True)
class Reference:
    """What a record says of one input; `path` is absolute, and where it was at the time."""

    role: str
    kind: str
    path: str
    content: str
    key: str | None
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The recipe key; of a raw frame the content."""
        return self.key or self.content


@dataclass(frozen=True)
class Node:
    """A product or a detector of a raw frame.

    path: where it is, or was last. state: `present`; `moved` (found elsewhere);
    `changed` (something else lies there now); `deleted`. record_path: the record
    that was read, None if there is none. checked: False for a raw frame that is
    not registered, of which only the name is known to exist.
    """

    id: str
    content: str
    kind: str
    path: str
    state: State
    record_path: Path | None
    meta: Mapping[str, Any]
    inputs: tuple[Reference, ...] = ()
    checked: bool = True

    @property
    def identity(self) -> tuple[str, str]:
        """What tells it from other nodes: a recipe made again by other software may have other pixels."""
        return self.id, self.content

    @property
    def lacks_record(self) -> bool:
        """Whether it is a product of which no record can be read."""
        return self.record_path is None and self.id != self.content


@dataclass(frozen=True)
class Line:
    """A node where a walk met it.

    role: the role that it plays in the node above it or, among descendants, that
    which the node above plays in it; empty for what was asked for. steps: how far
    it is from there. lasts: of each level above it and its own, whether the branch
    is the last one. repeated: met before, and not followed again. more: inputs (or
    products) that were not followed because of the depth.
    """

    node: Node
    role: str
    steps: int
    lasts: tuple[bool, ...]
    repeated: bool
    more: int = 0


Branches = list[tuple[str, Node]]


def ancestors(starts: Sequence[Node], lookup: Lookup, depth: int | None = None) -> Iterator[Line]:
    """What the starts were made from, up to so many steps by the shortest way, each node followed once."""
    return _walk(starts, lookup.inputs, depth)


def descendants(starts: Sequence[Node], lookup: Lookup, depth: int | None = None) -> Iterator[Line]:
    """What was made from the starts, by the indexes; steps as for ancestors."""
    return _walk(starts, lookup.users, depth, lookup.find_users)


def _walk(
    starts: Sequence[Node],
    branches: Callable[[Node], Branches],
    depth: int | None,
    find: Callable[[Sequence[Node]], None] | None = None,
) -> Iterator[Line]:
    steps = _steps(starts, branches, depth, find)
    seen: set[tuple[str, str]] = set()
    waiting: list[tuple[str, Node, tuple[bool, ...]]] = [("", node, ()) for node in reversed(starts)]
    while waiting:
        role, node, lasts = waiting.pop()
        far = steps[node.identity]
        if node.identity in seen:
            yield Line(node, role, far, lasts, repeated=True)
            continue
        seen.add(node.identity)
        below = branches(node)
        if depth is not None and far >= depth:
            yield Line(node, role, far, lasts, repeated=False, more=len(below))
            continue
        yield Line(node, role, far, lasts, repeated=False)
        last = len(below) - 1
        waiting += [(*below[n], (*lasts, n == last)) for n in range(last, -1, -1)]


def _steps(
    starts: Sequence[Node],
    branches: Callable[[Node], Branches],
    depth: int | None,
    find: Callable[[Sequence[Node]], None] | None,
) -> dict[tuple[str, str], int]:
    """How many steps each node is away, by the shortest way.

    So the depth cuts off the same nodes, whichever way the walk comes to them first.
    find: looks up the branches of many at once.
    """
    steps = {node.identity: 0 for node in starts}
    level, far = list(starts), 0
    while level:
        # Also of the last level: the walk counts what it does not follow.
        if find is not None:
            find(level)
        if depth is not None and far >= depth:
            break
        far += 1
        below = {node.identity: node for one in level for _, node in branches(one)}
        level = [node for identity, node in below.items() if identity not in steps]
        steps.update((node.identity, far) for node in level)
    return steps
