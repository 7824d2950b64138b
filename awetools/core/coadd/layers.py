"""Frames on a grid: where each is, what a strip needs of it, and its layer of the strip."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import Mixture
from ..pixels.coadd import Layer
from ..pixels.fillsmall import fill_small
from ..pixels.mask import bad
from ..pixels.resample import TAPS, Conserved, Resampled, input_rows, resample
from ..sky.footprint import footprint
from ..sky.grid import Grid, Span, Window, whole_pixels
from ..sky.outlines import points
from ..sky.pixelmap import TOLERANCE_PX, PixelMap
from ..sky.wcs import Wcs
from .inputs import CoaddFrame

Doubles = npt.NDArray[np.float64]

# Rows beyond those needed, so that small defects at their edge are filled as elsewhere.
FILL_HALO = 4
# Distortions may go wrong in so much of a frame: in its corners.
MOST_TURNED = 0.02
# Every so many rows tell which input rows a strip needs.
EVERY = 64
# Bytes of a pixel: of a layer; of an input row on its way, without and with filling; of places.
LAYER_BYTES, INPUT_BYTES, FILLED_BYTES, PLACE_BYTES = 10, 16, 44, 16 * 80


@dataclass(frozen=True)
class Regridding:
    """How frames are put on the grid: kernel, what is conserved, whether small defects are filled before."""

    kernel_name: str = "lagrange6"
    conserve: Conserved = "flux"
    fill: bool = True
    tolerance_px: float = TOLERANCE_PX


@dataclass(frozen=True, eq=False)
class Level:
    """What is subtracted on the grid: constant + along_x u + along_y v, u and v from -1 to 1 over the window."""

    constant: float = 0.0
    along_x: float = 0.0
    along_y: float = 0.0

    def values(self, window: Window, rows: Span, columns: Span | None = None) -> Doubles:
        """The level of a window in rows, and in its own columns or in these."""
        u, v = unit_places(window, rows, columns)
        made: Doubles = self.constant + self.along_x * u[None, :] + self.along_y * v[:, None]
        return made


NO_LEVEL = Level()


@dataclass(frozen=True, eq=False)
class Placed:
    """A frame whose place on the grid is known: its number, its window, a map that begins at ``origin``.

    Of one whose pixels are those of the grid there is no map, and ``origin`` is where its first pixel is.
    """

    number: int
    frame: CoaddFrame
    window: Window
    origin: tuple[int, int]
    map: PixelMap | None
    tilt: tuple[float, float]
    level: Level = NO_LEVEL

    @property
    def width(self) -> int:
        """Columns of the window."""
        return self.window[1][1] - self.window[1][0]

    def strip_bytes(self, rows: Span, fill: bool) -> tuple[int, int]:
        """Memory that rows of its layer take, and what it takes to make them besides, about."""
        height = min(rows[1], self.window[0][1]) - max(rows[0], self.window[0][0])
        if height <= 0:
            return 0, 0
        if self.map is None:
            return height * self.width * LAYER_BYTES, height * self.frame.shape[1] * INPUT_BYTES
        width = self.width
        if self.map.smooth:
            reach = height * self.tilt[0] + width * self.tilt[1]
        else:
            width = sum(last - first for first, last in self.spans(rows))
            least, most = self.map.input_reach(self._of_map(rows))
            reach = max(0.0, min(most, self.frame.shape[0]) - max(least, 0.0))
        # The reach is infinite where coordinates have singular places.
        needed = math.ceil(min(self.frame.shape[0], reach + 4 * FILL_HALO))
        own = self.frame.shape[1] * (FILLED_BYTES if fill else INPUT_BYTES)
        return height * width * LAYER_BYTES, needed * own + width * PLACE_BYTES

    def spans(self, rows: Span) -> list[Span]:
        """Columns of the window in which the frame may have pixels in these rows: where it lies on both sides
        of a map of all of the sky, not those between."""
        if self.map is None or self.map.smooth:
            return [self.window[1]]
        left = self.origin[1]
        return [(left + first, left + last) for first, last in self.map.spans(self._of_map(rows))]

    def _of_map(self, rows: Span) -> Span:
        (top, bottom), first = self.window[0], self.origin[0]
        return max(rows[0], top) - first, min(rows[1], bottom) - first


def unit_places(window: Window, rows: Span, columns: Span | None = None) -> tuple[Doubles, Doubles]:
    """u of columns, those of the window or these, and v of the rows, from -1 to 1 over the window."""
    (y0, y1), (x0, x1) = window
    u = (2 * np.arange(*(columns or window[1])) + 1 - x0 - x1) / (x1 - x0)
    v = (2 * np.arange(rows[0], rows[1]) + 1 - y0 - y1) / (y1 - y0)
    return u, v


def place(number: int, frame: CoaddFrame, grid: Grid, how: Regridding) -> Placed | None:
    """Where a frame is on the grid; None where it does not touch it. Mixture for one of another grid."""
    if frame.gridded:
        return _placed_as_it_is(number, frame, grid)
    if folded(frame.wcs, frame.shape):
        raise Mixture("its coordinates fold: places of the sky are in it more than once")
    found = footprint(grid, frame.wcs, frame.shape, how.tolerance_px)
    return None if found is None else Placed(number, frame, *found, _tilt(found.map))


def folded(wcs: Wcs, shape: tuple[int, int]) -> bool:
    """Whether parts of an image are mirrored against the rest: a distortion that is none."""
    made = wcs.jacobian(*points(shape))
    area = made[..., 0, 0] * made[..., 1, 1] - made[..., 0, 1] * made[..., 1, 0]
    known = np.count_nonzero(np.isfinite(area))
    turned = min(np.count_nonzero(area > 0), np.count_nonzero(area < 0))
    return bool(turned > MOST_TURNED * known)


def _placed_as_it_is(number: int, frame: CoaddFrame, grid: Grid) -> Placed | None:
    offset = whole_pixels(grid, frame.wcs, frame.shape)
    spans = [
        (max(0, begin), min(length, begin + own))
        for begin, own, length in zip(offset, frame.shape, grid.shape, strict=True)
    ]
    if any(begin >= end for begin, end in spans):
        return None
    return Placed(number, frame, (spans[0], spans[1]), offset, None, (1.0, 0.0))


def _tilt(of: PixelMap) -> tuple[float, float]:
    """Input rows for a row of the grid, and for a column."""
    y, x = of.shape[0] // 2, of.shape[1] // 2
    rows, columns = (max(0, y - 1), min(of.shape[0], y + 2)), (max(0, x - 1), min(of.shape[1], x + 2))
    _, found = of.at(rows, columns)
    if found.shape != (3, 3) or not np.isfinite(found).all():
        return math.inf, math.inf
    return abs(found[2, 1] - found[0, 1]) / 2, abs(found[1, 2] - found[1, 0]) / 2


def layers_of(placed: Placed, rows: Span, how: Regridding, columns: Span | None = None) -> Iterator[Layer]:
    """The layers of a frame in rows of the grid (and columns of it): one, as `layer_of`, or one for each part."""
    for first, last in placed.spans(rows):
        across = (first, last) if columns is None else (max(first, columns[0]), min(last, columns[1]))
        made = layer_of(placed, rows, how, across)
        if made is not None:
            yield made


def layer_of(placed: Placed, rows: Span, how: Regridding, columns: Span | None = None) -> Layer | None:
    """The layer of a frame in rows of the grid (and columns of it); None where it has nothing there.

    The bits of a pixel do not depend on which others are asked for.
    """
    (top, bottom), (left, right) = placed.window
    rows = max(rows[0], top), min(rows[1], bottom)
    across = (left, right) if columns is None else (max(left, columns[0]), min(right, columns[1]))
    if rows[0] >= rows[1] or across[0] >= across[1]:
        return None
    if placed.map is None:
        made: Resampled | None = _as_it_is(placed, rows, across)
    else:
        made = _interpolated(placed, rows, across, how, False)
    if made is None:
        return None
    values = made.data
    if placed.level.along_x or placed.level.along_y:
        level = placed.level.values(placed.window, rows)[:, across[0] - left : across[1] - left]
        values -= level.astype(np.float32)
    elif placed.level.constant:
        values -= np.float32(placed.level.constant)
    return Layer(placed.number, rows, across, values, made.weight, made.mask)


def variance_of(placed: Placed, rows: Span, columns: Span, how: Regridding) -> Resampled | None:
    """The planes of a frame in rows and columns of its window, with the variance of the pixels by themselves."""
    if placed.map is not None:
        return _interpolated(placed, rows, columns, how, True)
    made = _as_it_is(placed, rows, columns)
    with np.errstate(divide="ignore"):
        variance = np.where(made.weight > 0, np.float32(placed.frame.noise_ratio**2) / made.weight, 0)
    return made._replace(variance=variance.astype(np.float32))


def _as_it_is(placed: Placed, rows: Span, columns: Span) -> Resampled:
    """Pixels that are those of the grid, times the scale."""
    frame, (top, left) = placed.frame, placed.origin
    data, weight, mask = frame.rows(rows[0] - top, rows[1] - top)
    side = slice(columns[0] - left, columns[1] - left)
    scale = np.float32(frame.scale)
    bits = np.zeros(data.shape, np.int16) if mask is None else mask
    weight = np.where(bad(bits), np.float32(0), weight)
    planes = data[:, side] * scale, weight[:, side] / (scale * scale), bits[:, side].astype(np.int16)
    return Resampled(*(np.ascontiguousarray(one) for one in planes))


def _interpolated(
    placed: Placed, rows: Span, across: Span, how: Regridding, variance: bool
) -> Resampled | None:
    assert placed.map is not None
    own, side = _shifted(rows, placed.origin[0]), _shifted(across, placed.origin[1])
    first, last = _needed(placed, own, side, how.kernel_name)
    if first >= last:
        return None
    data, weight, mask, first = _input(placed.frame, first, last, how.fill)
    return resample(
        data,
        placed.map,
        weight=weight,
        mask=mask,
        kernel_name=how.kernel_name,
        scale=placed.frame.scale,
        conserve=how.conserve,
        rows=own,
        columns=side,
        first_row=first,
        variance=variance,
    )


def _shifted(span: Span, origin: int) -> Span:
    return span[0] - origin, span[1] - origin


def _input(
    frame: CoaddFrame, first: int, last: int, fill: bool
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int16] | None, int]:
    """Rows of a frame, small defects filled, and the number of the first one."""
    if not fill:
        return *frame.rows(first, last), first
    begin, end = max(0, first - FILL_HALO), min(frame.shape[0], last + FILL_HALO)
    data, weight, mask = frame.rows(begin, end)
    wrong = ~(weight > 0)
    if mask is not None:
        wrong |= bad(mask)
    if wrong.any():
        data, filled, mask, _ = fill_small(data, wrong, weight=weight, mask=mask)
        assert filled is not None
        weight = filled
    rows = slice(first - begin, last - begin)
    return data[rows], weight[rows], None if mask is None else mask[rows], first


def _needed(placed: Placed, rows: Span, columns: Span, kernel_name: str) -> Span:
    """Input rows that are enough, from places along some rows of the map; (0, 0) for none."""
    of, shape = placed.map, placed.frame.shape
    assert of is not None
    if of.computed or kernel_name == "area":
        return input_rows(of, shape, kernel_name, rows, columns)
    middle = (rows[0] + rows[1]) // 2
    size = of.areas((middle, middle + 1), columns)
    slack = 4 + 2 * EVERY * max(1.0, math.sqrt(float(size.max(initial=1.0, where=np.isfinite(size)))))
    least, most = math.inf, -math.inf
    for row in sorted({*range(rows[0], rows[1], EVERY), rows[1] - 1}):
        x, y = of.at((row, row + 1), columns)
        near = (x > -slack) & (x < shape[1] + slack) & (y > -slack) & (y < shape[0] + slack)
        least = min(least, float(y.min(where=near, initial=math.inf)))
        most = max(most, float(y.max(where=near, initial=-math.inf)))
    if least > most:
        return 0, 0
    reach = TAPS[kernel_name] // 2 + 2
    # The last sampled row may be some rows from the next: what is between them is between their places.
    return max(0, math.floor(least) - reach), min(shape[0], math.ceil(most) + reach + 1)
