"""Which node starts next: the longest way to the end first, where its CPUs and memory are free."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from .planfile import Node, followers

# A node that others pass is given way to after so many, else a large one would never start.
PATIENCE = 32
# How far down the queue a node is looked for that fits.
LOOK_AHEAD = 64
# A node without an estimate still makes a way longer.
LEAST_SECONDS = 0.001


@dataclass(frozen=True)
class Slots:
    """What nodes may take at a time: CPUs, and memory in MB (0: as much as they say they need)."""

    cpus: int = 1
    memory_mb: int = 0

    def share(self, node: Node) -> tuple[int, int]:
        """CPUs and memory that a node takes; one too large for the machine takes all, and so runs alone."""
        if node.cpus > self.cpus or node.memory_mb > self.memory_mb > 0:
            return self.cpus, self.memory_mb
        return node.cpus, node.memory_mb


class Ready:
    """The nodes that wait for nothing but a free place."""

    def __init__(self, slots: Slots, nodes: Sequence[Node]) -> None:
        self._slots = slots
        self._place = {node.id: number for number, node in enumerate(nodes)}
        self._length = way_lengths(nodes)
        self._heap: list[tuple[float, int, Node]] = []
        self._passed = (-1, 0)
        self.cpus, self.memory_mb = slots.cpus, slots.memory_mb

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, node: Node) -> None:
        """Add a node that can start."""
        heapq.heappush(self._heap, (-self._length[node.id], self._place[node.id], node))

    def take(self) -> Node | None:
        """The next node that fits into what is free, which it then holds; None if none does."""
        if not self._heap or self.cpus <= 0:
            return None
        aside: list[tuple[float, int, Node]] = []
        found = None
        patient = self._passed[0] != self._heap[0][1] or self._passed[1] < PATIENCE
        while self._heap and len(aside) < (LOOK_AHEAD if patient else 1):
            entry = heapq.heappop(self._heap)
            if self._fits(entry[2]):
                found = entry[2]
                break
            aside.append(entry)
        for entry in aside:
            heapq.heappush(self._heap, entry)
        if found is None:
            return None
        if aside:
            first = aside[0][1]
            self._passed = (first, self._passed[1] + 1 if self._passed[0] == first else 1)
        cpus, memory_mb = self._slots.share(found)
        self.cpus -= cpus
        self.memory_mb -= memory_mb
        return found

    def give_back(self, node: Node) -> None:
        """Free what a node that ended held."""
        cpus, memory_mb = self._slots.share(node)
        self.cpus += cpus
        self.memory_mb += memory_mb

    def _fits(self, node: Node) -> bool:
        cpus, memory_mb = self._slots.share(node)
        return cpus <= self.cpus and (memory_mb <= self.memory_mb or not self._slots.memory_mb)


def way_lengths(nodes: Sequence[Node]) -> dict[str, float]:
    """The expected seconds from the start of each node to the end of the last that hangs on it."""
    after = followers(nodes)
    known = {node.id: node for node in nodes}
    left = {node.id: len(after.get(node.id, ())) for node in nodes}
    ends = [name for name, count in left.items() if not count]
    length: dict[str, float] = {}
    for name in ends:
        node = known[name]
        length[name] = max(node.seconds, LEAST_SECONDS) + max(
            (length[one] for one in after.get(name, ())), default=0.0
        )
        for before in dict.fromkeys(node.before):
            if before in left:
                left[before] -= 1
                if not left[before]:
                    ends.append(before)
    return length
