"""Where stars, galaxies and trails lie, so that what is left of a frame is sky."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BadValue
from .planes import fit_plane
from .smooth import Blocks, background, good_pixels, interpolate_blocks
from .stats import clipped

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]

CELL_PX = 4
# A cell with less than this part of its pixels says too little.
LEAST_FRACTION = 0.25
# The largest cells of all: so many along the shorter side.
LEAST_CELLS = 32
# With less sky than this part of the frame nothing more is sought.
LEAST_SKY = 0.06
LAST_ROUNDS, SKY_ROUNDS = 2, 3
GROW, MOST_GROWN = 0.35, 12
# Boxes this wide see the errors of a flat.
WIDE_PX = 48
LOCAL_PX = 128
# What the smooth sky under smaller boxes leaves of such errors.
NARROW = 0.1
SAMPLE = 1 << 16


@dataclass(frozen=True, eq=False)
class Cells:
    """An image in square cells: the mean of each and how many of its pixels count, (rows, columns).

    ``size`` pixels a side, the last row and column may be cut; ``shape`` that of the image.
    """

    mean: Floats
    count: Floats
    size: int
    shape: tuple[int, int]

    @property
    def known(self) -> Bools:
        """True where enough of a cell's pixels count."""
        known: Bools = self.count >= max(1.0, LEAST_FRACTION * self.size**2)
        return known

    def over(self, divisor: Array) -> Cells:
        """The cells divided by a map of one value a cell; what is not above 0 there has no pixel."""
        good = divisor > 0
        mean = np.divide(self.mean, divisor, out=np.zeros_like(self.mean), where=good, dtype=np.float32)
        return Cells(mean, np.where(good, self.count, np.float32(0)), self.size, self.shape)


def cells_of(image: Array, use: Bools | None, size: int = CELL_PX) -> Cells:
    """An image (ny, nx), any unit, as means over cells of ``size`` pixels a side.

    ``use`` is True where a pixel counts (None: everywhere); what is not finite never does.
    """
    if size < 1:
        raise BadValue(f"cells of {size} pixels: they need 1 at least")
    good = good_pixels(image, use)
    every = bool(good.all())
    values = np.asarray(image, np.float32) if every else np.where(good, image, 0).astype(np.float32)
    total, count = _gathered(values, size), _gathered(good.astype(np.float32), size)
    np.divide(total, count, out=total, where=count > 0)
    return Cells(total, count, size, (image.shape[0], image.shape[1]))


def over_pixels(cells: Cells, values: Array) -> Floats:
    """A smooth map of one value a cell, interpolated to the pixels of the image, float32."""
    places = []
    for length, number in zip(cells.shape, values.shape, strict=True):
        starts = np.arange(number) * cells.size
        places.append(0.5 * (starts + np.minimum(starts + cells.size, length) - 1).astype(np.float64))
    nothing = np.empty((0, 0))
    blocks = Blocks(nothing, nothing, nothing, np.empty((0, 0), np.int64), places[0], places[1])
    return interpolate_blocks(values.astype(np.float64), blocks, cells.shape)


def find_objects(
    cells: Cells, threshold_sigma: float = 3.0, flatness: float = 0.0, known: Bools | None = None
) -> Bools:
    """Cells that hold more light than the sky around: stars, galaxies, trails, and what surrounds them.

    ``cells`` of a frame with its sky in it, any unit; ``known`` marks cells whose objects were
    found before. The result has one value a cell. Means over boxes of 3 x 3 cells, less
    the sky, are compared with their scatter (of the values below zero, which objects do not
    raise); the same for cells of twice the size, again and again, so that stars and the faint
    parts of galaxies are found by the same number of sigma. The sky under boxes below 48
    pixels is a smooth surface through blocks of 128; under larger ones it is a plane,
    and an object must stand out from it by ``flatness`` times the sky as well (a tenth of that
    under smaller ones), because what the flat leaves would be an object otherwise. What is
    found is left out of the sky, the scatter and the means of the next round, in which larger
    boxes are looked at too; in the end it grows by a third of its radius.

    The first sky is the densest level, not the median: a galaxy may cover most of the
    frame. One that leaves no sky at all cannot be found.
    """
    if not threshold_sigma > 0:
        raise BadValue(f"objects above {threshold_sigma} sigma: it must be more than 0")
    good = cells.known
    marked = np.zeros(good.shape, np.bool_) if known is None else known & good
    # The small before the large, so that a star alone does not mark a large box.
    first = _scales(good.shape) if known is None else []
    for largest in (*first, *[max(good.shape)] * LAST_ROUNDS):
        sky = good & ~marked
        if np.count_nonzero(sky) < LEAST_SKY * sky.size:
            break
        marked |= _brighter(cells, sky, threshold_sigma, flatness, largest) & sky
    # What is known was grown when it was found.
    return (grown(marked) if known is None else known | grown(marked & ~known)) & good


def spread(marked: Bools, size: int, shape: tuple[int, int], y0: int = 0, y1: int | None = None) -> Bools:
    """Rows y0 to y1 of the image of a shape (ny, nx) whose cells of ``size`` pixels are marked."""
    y1 = shape[0] if y1 is None else y1
    rows = marked[np.arange(y0, y1) // size]
    return np.repeat(rows, size, axis=1)[:, : shape[1]]


def object_mask(
    image: Array, use: Bools | None, threshold_sigma: float = 3.0, flatness: float = 0.0
) -> Bools:
    """True where a pixel of a flat-fielded frame (ny, nx) with its sky belongs to an object: :func:`find_objects`."""
    cells = cells_of(image, use)
    return spread(find_objects(cells, threshold_sigma, flatness), cells.size, cells.shape)


def grown(marked: Bools) -> Bools:
    """What is marked, grown by one cell and by a third of the radius of each connected part."""
    if not marked.any() or marked.all():
        return marked.copy()
    from scipy import ndimage

    labels, number = ndimage.label(marked, structure=np.ones((3, 3)))
    radius = np.sqrt(np.bincount(labels.ravel(), minlength=number + 1) / np.pi)
    reach = np.minimum(np.ceil(1 + GROW * radius), MOST_GROWN)
    reach[0] = 0
    wide = marked.copy()
    # Parts of a similar size grow together; a part that grows a little too far does no harm.
    for step in sorted({1 << int(value - 1).bit_length() for value in reach[1:]}):
        some = (reach <= step) & (reach > step // 2)
        distance = ndimage.distance_transform_edt(~some[labels])
        wide |= distance <= min(step, float(reach[some].max(initial=0)))
    return wide


def _gathered(values: Floats, size: int) -> Floats:
    """Sums over cells, the last ones cut; whole rows are added, then columns, in order."""
    ny, nx = values.shape
    if ny % size or nx % size:
        values = np.pad(values, ((0, -ny % size), (0, -nx % size)))
    rows = values[::size].copy()
    for first in range(1, size):
        rows += values[first::size]
    sums = rows[:, ::size].copy()
    for first in range(1, size):
        sums += rows[:, first::size]
    return sums


def _sky(cells: Cells, sky: Bools, tilted: bool) -> tuple[float, Floats]:
    """Level of the sky, and the plane through it at every cell."""
    total, count = cells.mean * np.where(sky, cells.count, 0), np.where(sky, cells.count, np.float32(0))
    step = max(1, min(total.shape) // 64)
    total, count = _gathered(total, step), _gathered(count, step)
    use = count > 0
    values = np.divide(total, count, out=np.zeros_like(total), where=use)
    level = _densest(values[use])
    if not tilted:
        return level, np.full(cells.mean.shape, level, np.float32)
    # The plane is written as a level and slopes relative to it: a shift keeps the level above 0.
    shift = np.float32(max(0.0, 1.0 - 2 * float(values[use].min())))
    rest = values - np.float32(level)
    for _ in range(SKY_ROUNDS):
        # An object is brighter than the sky, so the scatter below the sky is the sky's own.
        keep = use & (np.abs(rest) <= 3 * _lower_scatter(rest[use]))
        plane = fit_plane(values + shift, keep if keep.any() else use, weight=count)
        rest = values + shift - plane.rows((values.shape[0], values.shape[1]))
    return plane.level - float(shift), plane.rows((cells.mean.shape[0], cells.mean.shape[1])) - shift


def _densest(values: Array) -> float:
    """The level about which values are densest: halves of the sample, each the narrowest of the last.

    Half-sample mode: Robertson and Cryer 1974, J. Am. Stat. Assoc. 69, 1012. It stops at
    an eighth of the sample, whose median is less noisy than a mode of three values.
    """
    ordered = np.sort(values.astype(np.float64))
    for _ in range(3):
        half = (ordered.size + 1) // 2
        if half < 3:
            break
        first = int(np.argmin(ordered[half - 1 :] - ordered[: ordered.size - half + 1]))
        ordered = ordered[first : first + half]
    return float(np.median(ordered))


def _brighter(cells: Cells, sky: Bools, threshold_sigma: float, flatness: float, largest: int) -> Bools:
    """Cells above the scatter of the sky, at this size or a larger one."""
    level, plane = _sky(cells, sky, tilted=largest > 1)
    least = flatness * abs(level)
    count = np.where(sky, cells.count, np.float32(0))
    near = (cells.mean - background(cells.mean, sky, max(2, LOCAL_PX // cells.size))) * count
    far = (cells.mean - plane) * count
    found = np.zeros(sky.shape, np.bool_)
    for (scale, narrow, number), (_, broad, _) in zip(
        _pyramid(near, count), _pyramid(far, count), strict=True
    ):
        if scale > largest:
            break
        is_wide = 3 * scale * cells.size >= WIDE_PX
        excess, full = _boxes(broad if is_wide else narrow), _boxes(number)
        enough = full >= LEAST_FRACTION * 9.0 * (scale * cells.size) ** 2
        if not enough.any():
            continue
        # A box of which a part is missing scatters more.
        value = np.where(enough, excess / np.sqrt(np.maximum(full, 1)), 0)
        above = enough & (value > threshold_sigma * _lower_scatter(value[enough]))
        above &= excess > (least if is_wide else NARROW * least) * full
        found |= np.repeat(np.repeat(above, scale, axis=0), scale, axis=1)[: sky.shape[0], : sky.shape[1]]
    return found


def _lower_scatter(values: Array) -> float:
    """Scatter about zero of what is not an object: of the values below zero, mirrored."""
    step = max(1, values.size // SAMPLE) | 1
    low = values[::step]
    low = low[low < 0]
    if not low.size:
        return 0.0
    return clipped(np.concatenate([low, -low])).stdev


def _scales(shape: tuple[int, ...]) -> list[int]:
    """1, 2, 4 ... cells, so that three of the largest are a fraction of the shorter side."""
    return [1 << power for power in range(max(1, (min(shape) // LEAST_CELLS).bit_length()))]


def _pyramid(total: Floats, count: Floats) -> Iterator[tuple[int, Floats, Floats]]:
    """Sums and numbers of pixels in cells of once, twice, four times ... the size."""
    for scale in _scales(total.shape):
        if scale > 1:
            total, count = _gathered(total, 2), _gathered(count, 2)
        yield scale, total, count


def _boxes(values: Floats) -> Floats:
    """Sums over 3 x 3 cells; beyond the edges there is nothing."""
    padded = np.pad(values, 1)
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    sums: Floats = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    return sums
