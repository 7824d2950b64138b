"""Frames on a grid of the sky, of which one pixel is looked at: where it is in each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import BadHeader, NoMatch
from ..fits import open_fits
from ..meta import on_grid
from ..sky.grid import Grid
from ..sky.readwcs import read_wcs
from ..sky.wcs import Wcs
from ..tracing.lineage import Node, Reference
from .arithmetic import Check
from .values import THERE, OnGrid, Pixel

if TYPE_CHECKING:
    from ..frame import Table
    from ..pixels.illumination import Illumination

# The role of what was put on the grid, and of what said where it belongs: how that was found is no
# matter of a pixel.
FRAMES, SOLUTIONS = "reduced", ("astrom", "zeropoint", "illumination")
IDENTITY = ("instrument", "detector", "exposure")
# Frames whose edge is so near take part in the clip of a pixel beside them.
NEAR_PX = 16

Resolve = Callable[[Reference], Node]


class Part(NamedTuple):
    """An input, its pixel (None: as a whole), what became of it, how that is known, and what it has on the grid."""

    reference: Reference
    node: Node
    x: float | None = None
    y: float | None = None
    word: str = ""
    by: str = ""
    placed: OnGrid | None = None

    @property
    def beside(self) -> tuple[tuple[int, int, int], ...]:
        """See `OnGrid`."""
        return () if self.placed is None else self.placed.beside


@dataclass(frozen=True, eq=False)
class Gridded:
    """The parts of a pixel on a grid, frames each before their solutions; the value made again; what is to be said."""

    parts: tuple[Part, ...]
    check: Check
    notes: tuple[str, ...] = ()


# Frames and where the pixel is in them


@dataclass(frozen=True, eq=False)
class FrameThere:
    """A frame of the product: its row in FRAMES (its number; empty if not known), and where the pixel is in it.

    correction: what it was multiplied by, where its flat was corrected.
    """

    number: int
    reference: Reference
    node: Node
    row: Mapping[str, Any]
    solutions: Sequence[tuple[Reference, Node]]
    wcs: Wcs | None
    at: tuple[float, float] | None
    correction: Illumination | None = None

    @property
    def reason(self) -> str:
        """Why it was left out."""
        return str(self.row.get("REASON") or "").strip()

    @property
    def shape(self) -> tuple[int, int] | None:
        meta = self.node.meta
        # Of a regridded frame these are in a place of their own.
        own = meta.get("gridded") or {} if on_grid(meta) else meta
        ny, nx = own.get("ny"), own.get("nx")
        return (int(ny), int(nx)) if ny and nx else None

    def within(self, margin_px: float) -> bool:
        """Whether the pixel is in the frame, or so near to it."""
        if self.at is None:
            return False
        if self.shape is None:
            return True
        (x, y), (ny, nx) = self.at, self.shape
        return -margin_px <= x - 0.5 < nx + margin_px and -margin_px <= y - 0.5 < ny + margin_px

    def nearest(self) -> tuple[int, int]:
        """The pixel of the frame that is nearest to the place."""
        assert self.at is not None
        x, y = (math.floor(one + 0.5) for one in self.at)
        if self.shape is None:
            return x, y
        return min(max(x, 1), self.shape[1]), min(max(y, 1), self.shape[0])


def _name(meta: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(meta.get(one)).strip() for one in IDENTITY)


def _name_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    return _name({key: row[key.upper()] for key in IDENTITY})


def frames_at(
    inputs: Sequence[Reference],
    rows: Sequence[Mapping[str, Any]],
    resolve: Resolve,
    grid: Grid,
    x: int,
    y: int,
) -> list[FrameThere]:
    """The frames in the order of the rows (of the inputs, where there are none), with their solutions."""
    by_name: dict[tuple[str, ...], list[tuple[Reference, Node]]] = {}
    for one in inputs:
        if one.role in SOLUTIONS:
            by_name.setdefault(_name(one.meta), []).append((one, resolve(one)))
    corrections = _corrections(inputs, resolve)
    numbers = {_name_of(row): n for n, row in enumerate(rows)}
    place = grid.wcs.to_sky(float(x), float(y))
    found: list[FrameThere] = []
    for one in inputs:
        if one.role != FRAMES:
            continue
        name, order = _name(one.meta), len(found)
        # Of one frame there may be several, and rows are in the order of the inputs.
        same = order < len(rows) and _name_of(rows[order]) == name
        number = order if same or not rows else numbers.get(name, -1)
        solutions = by_name.get(name, [])
        node = resolve(one)
        correction, more = _correction_of(corrections, {**node.meta, **one.meta})
        wcs = _system(node, solutions)
        at = None
        if wcs is not None:
            there = [float(value) for value in wcs.to_pixel(*place)]
            # Not finite on the other side of the sky.
            seen = all(math.isfinite(value) for value in there)
            at = (there[0], there[1]) if seen else (math.inf, math.inf)
        row = rows[number] if rows and number >= 0 else {}
        found.append(FrameThere(number, one, node, row, [*solutions, *more], wcs, at, correction))
    return sorted(found, key=lambda one: one.number)


def _corrections(inputs: Sequence[Reference], resolve: Resolve) -> list[tuple[Reference, Node, Table]]:
    """The illumination corrections among the inputs; raises NoMatch where one is gone."""
    from ..frame import Table

    found = []
    for one in inputs:
        if one.role != "illumination":
            continue
        node = resolve(one)
        if node.state not in THERE:
            raise NoMatch(f"the illumination correction {node.path} is {node.state}")
        with open_fits(node.path) as fits:
            table = next(hdu.index for hdu in fits.hdus if hdu.is_table)
            found.append((one, node, Table(dict(fits.table(table)), node.meta)))
    return found


def _correction_of(
    corrections: Sequence[tuple[Reference, Node, Table]], meta: Mapping[str, Any]
) -> tuple[Illumination | None, list[tuple[Reference, Node]]]:
    """The correction of a frame, and the product that has it."""
    from ..kinds.illumination import choice_for

    found = choice_for([table for _, _, table in corrections], meta) if corrections else None
    if found is None:
        return None, []
    product, correction = found
    return correction, [(reference, node) for reference, node, table in corrections if table is product]


def _system(node: Node, solutions: Sequence[tuple[Reference, Node]]) -> Wcs | None:
    """The coordinate system that a frame was put on the grid with; None if it is not known."""
    solved = [one for reference, one in solutions if reference.role == "astrom"]
    cards = solved[0].meta.get("wcs") if solved else node.meta.get("wcs")
    if not cards:
        return None
    try:
        return read_wcs(dict(cards))
    except BadHeader:
        return None


def parts_of(frame: FrameThere, word: str, by: str, placed: OnGrid | None) -> Iterator[Part]:
    """A frame at its nearest pixel, and the solutions that put it there."""
    x, y = frame.nearest()
    yield Part(frame.reference, frame.node, x, y, word, by, placed)
    for reference, node in frame.solutions:
        yield Part(reference, node)


def whole(pixel: Pixel) -> tuple[int, int]:
    """The whole pixel, x and y from 1."""
    assert pixel.x is not None and pixel.y is not None
    return round(pixel.x), round(pixel.y)
