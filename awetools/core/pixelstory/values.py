"""One pixel of one file and what it holds, and a pixel of a product with what it was made of."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..record import Record
from ..tracing.lineage import Node, Reference
from .places import RawPlace

if TYPE_CHECKING:
    from ..sections import Section
    from .arithmetic import Check
    from .reading import Window

THERE = ("present", "moved")


@dataclass(frozen=True, eq=False)
class Pixel:
    """A pixel of one file and what it holds.

    x, y: FITS pixels of the file's own image, of a raw frame those of its trimmed detector;
    None where a whole amplifier entered. value, weight, mask: None where they are not known or
    there is no such plane. place, overscan_adu: of a raw frame, whose value is the counts.
    row: of a table, the row of the pixel's amplifier. notes: what is not known, and why.
    """

    node: Node
    x: float | None
    y: float | None
    value: float | None = None
    unit: str = ""
    weight: float | None = None
    mask: int | None = None
    place: RawPlace | None = None
    overscan_adu: float | None = None
    net_adu: float | None = None
    row: Mapping[str, Any] | None = None
    window: Window | None = None
    box: Section | None = None
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells it from other pixels."""
        return (*self.node.identity, self.x, self.y)


@dataclass(frozen=True, eq=False)
class Made:
    """A pixel of a product with its record, what entered it, by role, and the arithmetic done again.

    words: of the raw frames, in their order, what became of them, and how that is known.
    """

    pixel: Pixel
    record: Record
    parts: tuple[tuple[Reference, Pixel], ...]
    check: Check | None = None
    words: tuple[tuple[str, str], ...] = ()

    def part(self, role: str) -> Pixel | None:
        """The first pixel with a role."""
        return next((pixel for one, pixel in self.parts if one.role == role), None)

    def used(self, role: str) -> Mapping[str, Any]:
        """What the record says of the meta of the first input with a role."""
        return next((one.meta for one, _ in self.parts if one.role == role), {})

    def parameter(self, name: str) -> Any:
        """A parameter of the recipe; None if it has none of this name."""
        found = self.record["recipe"].get("parameters", {}).get(name)
        return found.get("value") if isinstance(found, dict) else None


def name_of(node: Node) -> str:
    """What a file is called in sentences."""
    return os.path.basename(node.path)
