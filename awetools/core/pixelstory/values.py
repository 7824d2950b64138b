"""One pixel of one file and what it holds, and a pixel of a product with what it was made of."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

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


@dataclass(frozen=True)
class OnGrid:
    """What a frame has at a pixel of a grid that it was put on.

    x, y: the place of that pixel in the frame, in FITS pixels and fractions of them. value, weight,
    mask: on the grid, scaled and less all that was subtracted; kernel: how they were interpolated.
    sky: what was subtracted from the frame there, in its unit; scale: what the rest was multiplied by,
    area: the size of the grid's pixel in pixels of the frame, too; level: what was subtracted at last.
    factor: what the flat's correction multiplied the frame less its sky by at the place, None without one.
    beside: of its mask on the grid the bits that its nearest pixel lacks, and the pixel that has them.
    None is what is not known.
    """

    x: float
    y: float
    value: float | None = None
    weight: float | None = None
    mask: int | None = None
    kernel: str = ""
    sky: float | None = None
    scale: float | None = None
    area: float | None = None
    level: float | None = None
    beside: tuple[tuple[int, int, int], ...] = ()
    factor: float | None = None

    def nearest(self, value: float | None) -> float | None:
        """What a value of the frame's nearest pixel is on the grid, by itself."""
        if value is None or self.sky is None or self.scale is None or self.area is None:
            return None
        factor = 1.0 if self.factor is None else self.factor
        return (value - self.sky) * factor * self.scale * self.area - (self.level or 0.0)


@dataclass(frozen=True, eq=False)
class Made:
    """A pixel of a product with its record, what entered it, by role, and the arithmetic done again.

    words: of the frames with the role `frames`, in their order, what became of them, and how that
    is known. placed: of each part, how it came onto the grid, if it was put on one; besides: of each
    part, the pixels of `OnGrid.beside`. ends: roles whose ancestors are no matter of the pixel.
    notes: what is to be said besides.
    """

    pixel: Pixel
    record: Record
    parts: tuple[tuple[Reference, Pixel], ...]
    check: Check | None = None
    words: tuple[tuple[str, str], ...] = ()
    frames: str = "raw"
    placed: tuple[OnGrid | None, ...] = ()
    besides: tuple[tuple[Pixel, ...], ...] = ()
    ends: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def branches(self) -> Iterator[Branch]:
        """The parts, each with what became of it and how it came onto a grid."""
        words = iter(self.words)
        for number, (reference, part) in enumerate(self.parts):
            word, by = next(words, ("", "")) if reference.role == self.frames else ("", "")
            placed = self.placed[number] if self.placed else None
            beside = self.besides[number] if self.besides else ()
            yield Branch(reference, part, word, by, placed, beside)

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


class Branch(NamedTuple):
    """A part of a pixel with what became of it there."""

    reference: Reference
    pixel: Pixel
    word: str
    by: str
    placed: OnGrid | None
    beside: tuple[Pixel, ...]


def name_of(node: Node) -> str:
    """What a file is called in sentences."""
    return os.path.basename(node.path)
