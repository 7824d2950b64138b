"""Where the pixels of one image are in another: through two coordinate systems, on a coarse grid, interpolated."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import BadValue
from ..pixels.kernels import kernel
from .maptears import Bools, apart, jumps, seeds, shortest, torn
from .polynomial import Doubles, Pair
from .wcs import Wcs

Span = tuple[int, int]
Shape = tuple[int, int]

TOLERANCE_PX = 0.001
# Pixels between the nodes of the first, the coarsest grid, and of the finest.
STEPS_PX = (128, 4)
# Nodes beyond the pixels: two for cubics and, there, two for their derivatives.
MARGIN = 3
# The part of the tolerance that an error in the middle of a cell may have: it was up to 1.4 times as
# large elsewhere in the cell, where a map bends most.
MIDDLE = 0.5
# What a finer grid costs, in points to compute for each cell that there is: nodes and test points.
FINER = 8
# How far a cubic through four nodes each way may leave their range, in halves of it.
OVERSHOOT = 1.5625
# Computed rows of cells that are kept for the next strip.
KEPT_BANDS = 4
# Columns without a place on the image that are a gap between others.
GAP_PX = 256
# Places within a cell where the error is measured if a system has edges.
WITHIN = np.array([0.25, 0.5, 0.75])
# Spans of pixels that are kept: those of the columns are the same for each strip.
KEPT_STRETCHES = 16


class Grid(NamedTuple):
    """Nodes every ``step`` pixels; the first one is MARGIN steps before pixel ``origin`` (row, column).

    x, y, area: at the nodes. Cells: live, those that may be on the image; exact, those of
    them that are not interpolated; void, others where interpolation might lead onto the image.
    jump_px: more than places of neighbouring pixels differ by, where the map does not jump.
    """

    step: int
    origin: tuple[int, int]
    x: Doubles
    y: Doubles
    area: Doubles
    live: Bools
    exact: Bools
    void: Bools
    jump_px: float = np.inf


@dataclass(frozen=True, eq=False)
class PixelMap:
    """Places of a grid's pixels in an image, 0-based; see `pixel_map`.

    ``shape`` (rows, columns) of the grid; ``window``: the rows and columns outside of which
    nothing is on the image; ``error_px``: the largest distance between an interpolated and
    a computed place, at the middles of all cells on the image; ``computed``: the part of
    the window that is not interpolated.
    """

    shape: Shape
    window: tuple[Span, Span]
    error_px: float
    computed: float
    output: Wcs
    input: Wcs
    grid: Grid

    @property
    def step_px(self) -> int:
        """Pixels between the nodes."""
        return self.grid.step

    def at(self, rows: Span, columns: Span) -> Pair:
        """x and y of the middles of pixels; nan where there is no place. Columns are within the window."""
        x, y = self._planes(rows, columns, 0.0, (0, 1))
        return x, y

    def corners(self, rows: Span, columns: Span) -> Pair:
        """x and y of the lower left corners, one row and one column more."""
        down, along = (rows[0], rows[1] + 1), (columns[0], columns[1] + 1)
        if not np.isfinite(self.grid.jump_px):
            x, y = self._planes(down, along, -0.5, (0, 1))
            return x, y
        # With the neighbours, so that what jumps is the same whichever pixels are asked for.
        wide = [
            (max(first - 1, begin), min(last + 1, end + 1))
            for (first, last), (begin, end) in zip((down, along), self.window, strict=True)
        ]
        x, y = self._planes(wide[0], wide[1], -0.5, (0, 1))
        jumped = jumps(x, y, self.grid.jump_px)
        x, y = np.where(jumped, np.nan, x), np.where(jumped, np.nan, y)
        inner = tuple(
            slice(first - begin, last - begin)
            for (first, last), (begin, _) in zip((down, along), wide, strict=True)
        )
        return x[inner], y[inner]

    def areas(self, rows: Span, columns: Span) -> Doubles:
        """The area of pixels of the grid in pixels of the image."""
        return self._planes(rows, columns, 0.0, (2,))[0]

    @property
    def smooth(self) -> bool:
        """Whether neither system has edges beyond which the sky goes on elsewhere."""
        return self.output.projection.smooth and self.input.projection.smooth

    def spans(self, rows: Span) -> list[Span]:
        """Columns that may be on the image in some rows, without wide gaps."""
        cells = np.flatnonzero(self._bands(self.grid.live, rows).any(axis=0))
        if not cells.size:
            return []
        step = self.grid.step
        ends = np.flatnonzero(np.diff(cells) > max(1, GAP_PX // step))
        firsts, lasts = cells[np.append(0, ends + 1)], cells[np.append(ends, -1)]
        begins, most = self.grid.origin[1] + firsts * step, self.shape[1]
        return [
            (int(begin), min(most, int(begin + (last + 1 - first) * step)))
            for begin, first, last in zip(begins, firsts, lasts, strict=True)
        ]

    def input_reach(self, rows: Span) -> tuple[float, float]:
        """The least and greatest y, about, of places on the image in some rows; (inf, -inf) for none."""
        y = self.grid.y[1:-1, 1:-1]
        corners = [self._bands(one, rows) for one in (y[:-1, :-1], y[:-1, 1:], y[1:, :-1], y[1:, 1:])]
        live = self._bands(self.grid.live, rows)
        found = np.stack(corners)[:, live]
        found = found[np.isfinite(found)]
        if not found.size:
            return (np.inf, -np.inf) if not live.any() else (-np.inf, np.inf)
        beyond = float(np.abs(np.diff(y, axis=0)).max(initial=0.0, where=np.isfinite(np.diff(y, axis=0))))
        beyond = min(beyond, self.grid.jump_px * self.grid.step)
        return float(found.min()) - beyond, float(found.max()) + beyond

    def _bands(self, cells: npt.NDArray[Any], rows: Span) -> npt.NDArray[Any]:
        first, last = ((one - self.grid.origin[0]) // self.grid.step for one in (rows[0], rows[1] - 1))
        return cells[max(0, first) : max(0, last + 1)]

    def _planes(self, rows: Span, columns: Span, shift: float, which: tuple[int, ...]) -> tuple[Doubles, ...]:
        grid = self.grid
        if not grid.exact.size:
            shape = rows[1] - rows[0], columns[1] - columns[0]
            return tuple(np.full(shape, np.nan) for _ in which)
        nodes = grid.x, grid.y, grid.area
        cells = grid.exact.shape
        down = _stretch(grid.step, grid.origin[0], cells[0], rows, shift)
        along = _stretch(grid.step, grid.origin[1], cells[1], columns, shift)
        made = tuple(interpolate(nodes[one], down, along) for one in which)
        if not down.cells.size or not along.cells.size:
            return made
        for band in range(int(down.cells[0]), int(down.cells[-1]) + 1):
            if not (grid.void[band].any() or grid.exact[band].any()):
                continue
            ys = np.flatnonzero(down.cells == band)[:, None]
            void = np.flatnonzero(grid.void[band][along.cells])[None, :]
            xs = np.flatnonzero(grid.exact[band][along.cells])
            for plane in made if void.size else ():
                plane[ys, void] = np.nan
            if not xs.size:
                continue
            number = np.searchsorted(np.flatnonzero(grid.exact[band]), along.cells[xs])
            for plane, own in zip(made, _band(self, band, shift, which), strict=True):
                plane[ys, xs[None, :]] = own[number[None, :], down.pixels[ys], along.pixels[xs][None, :]]
        return made


class Stretch(NamedTuple):
    """Positions along one axis: their cells, their pixels within these, and their places there (0 to 1).

    starts: where each cell begins among the positions, from the first one's on, and the end;
    weights: of the four nodes around each position.
    """

    cells: npt.NDArray[np.int64]
    pixels: npt.NDArray[np.int64]
    t: Doubles
    starts: npt.NDArray[np.int64]
    weights: Doubles


@lru_cache(maxsize=KEPT_STRETCHES)
def _stretch(step: int, origin: int, count: int, span: Span, shift: float) -> Stretch:
    """Positions of a span of pixels; a corner beyond the last cell belongs to that one."""
    pixels = np.arange(span[0], span[1]) - origin
    cells = np.clip(pixels // step, 0, count - 1)
    inner = pixels - cells * step
    t = (inner + shift) / step
    reach = (int(cells[0]), int(cells[-1]) + 2) if cells.size else (0, 1)
    return Stretch(cells, inner, t, np.searchsorted(cells, np.arange(*reach)), _cubic(t))


def pixel_map(
    output: Wcs, input_: Wcs, output_shape: Shape, input_shape: Shape, tolerance_px: float = TOLERANCE_PX
) -> PixelMap:
    """The places of a grid's pixels (output) in an image (input); shapes are (rows, columns).

    Places are computed on a coarse grid and interpolated by cubics both ways. In the middle
    of each cell that may be on the image the error is measured; the grid is made finer, and
    confined to the image, until few cells have an error above half of ``tolerance_px``. Those few,
    and cells that are partly without places (the edge of a projection), are computed pixel
    by pixel. So poles and RA 0 are no special places, and the cost is that of the pixels. On maps of
    all of the sky cells in which the map may jump are among those computed.
    BadValue for a tolerance that is not above 0 and for shapes without pixels.
    """
    if not tolerance_px > 0:
        raise BadValue(f"the tolerance of a pixel map is above 0, not {tolerance_px}")
    if min(*output_shape, *input_shape) < 1:
        raise BadValue(f"a pixel map from {output_shape} to {input_shape} pixels")
    step = _first_step(output_shape)
    window: tuple[Span, Span] = (0, output_shape[0]), (0, output_shape[1])
    while True:
        grid, error = _grid(output, input_, window, step, input_shape, tolerance_px)
        window = _window(grid, output_shape)
        alone = int(grid.exact.sum()) * step**2
        few = alone <= FINER * grid.live.sum()
        if not (output.projection.smooth and input_.projection.smooth):
            # Over a window from edge to edge of a map a finer grid may cost more than those pixels.
            few |= alone <= 4 * (len(WITHIN) ** 2 + 1) * grid.live.size
        if few or step // 2 < STEPS_PX[1]:
            break
        step //= 2
    size = (window[0][1] - window[0][0]) * (window[1][1] - window[1][0])
    computed = min(1.0, float(grid.exact.sum()) * step**2 / size) if size else 0.0
    return PixelMap(output_shape, window, error, computed, output, input_, grid)


def _first_step(shape: Shape) -> int:
    step = STEPS_PX[0]
    while step > STEPS_PX[1] and 2 * step > min(shape):
        step //= 2
    return step


def _places(output: Wcs, input_: Wcs, x: Doubles, y: Doubles) -> Pair:
    """0-based places of 0-based pixels."""
    found_x, found_y = input_.to_pixel(*output.to_sky(x + 1, y + 1))
    return found_x - 1, found_y - 1


def _grid(
    output: Wcs, input_: Wcs, window: tuple[Span, Span], step: int, input_shape: Shape, tolerance_px: float
) -> tuple[Grid, float]:
    """The grid of one step over a window, and the largest error of its interpolated cells."""
    origin = window[0][0], window[1][0]
    counts = [-(-(end - begin) // step) for begin, end in window]
    # A cell needs the two nodes around it, and two beyond on each side for areas.
    ys, xs = (
        o + step * np.arange(-MARGIN, n + 1 + MARGIN, dtype=np.float64)
        for o, n in zip(origin, counts, strict=True)
    )
    x, y = _places(output, input_, *np.meshgrid(xs, ys))
    rough = not (output.projection.smooth and input_.projection.smooth)
    inner_x, inner_y = (one[MARGIN : -MARGIN - 1] for one in (xs, ys))
    within = [0.5 * step] if not rough else (WITHIN * step).tolist()
    test = _places(
        output, input_, *np.meshgrid(*((one[:, None] + within).ravel() for one in (inner_x, inner_y)))
    )
    with np.errstate(invalid="ignore", over="ignore"):
        area = _areas(x, y, step)
        if rough:
            at_test = [_tested(one) for one in (x, y)]
        else:
            at_test = [_middles(one) for one in (x, y)]
        error = _worst(np.hypot(at_test[0] - test[0], at_test[1] - test[1]), len(within))
        good = (error <= MIDDLE * tolerance_px) & np.isfinite(_middles(area))
        missing, near, hit = np.zeros_like(good), None, None
        if rough:
            missing, near = torn(output, input_, input_shape, xs, ys)
            hit = seeds(output, input_, input_shape, origin, step, good.shape)
            good &= ~missing
        live = _live(x, y, test, input_shape, missing, near, hit)
        exact = live & ~good
        void = ~live & _reached(x, y, input_shape)
        jump_px = apart(x, y, good & live, MARGIN, step) if rough else np.inf
    used = error[live & ~exact]
    # The outermost nodes were there for the areas of the next ones.
    inner = slice(2, -2)
    x, y, area = (np.ascontiguousarray(one[inner, inner]) for one in (x, y, area))
    made = Grid(step, origin, x, y, area, live, exact, void, jump_px)
    return made, float(used.max()) if used.size else 0.0


def _tested(nodes: Doubles) -> Doubles:
    """What the cubics give at several places of each cell."""
    weights = _cubic(WITHIN)
    windows = np.lib.stride_tricks.sliding_window_view(nodes[2:-2, 2:-2], (4, 4))
    made = np.einsum("yxij,ai,bj->yaxb", windows, weights, weights)
    return np.asarray(made.reshape(len(WITHIN) * len(windows), -1), np.float64)


def _worst(error: Doubles, within: int) -> Doubles:
    """The largest error of each cell; nan where one is."""
    shape = error.shape[0] // within, within, error.shape[1] // within, within
    return np.asarray(error.reshape(shape).max(axis=(1, 3)), np.float64)


def _areas(x: Doubles, y: Doubles, step: int) -> Doubles:
    """Areas at the nodes, by differences of the fourth order; nan at the outer two."""

    def slope(plane: Doubles, axis: int) -> Doubles:
        v = np.moveaxis(plane, axis, 0)
        made = np.full(v.shape, np.nan)
        made[2:-2] = (8 * (v[3:-1] - v[1:-3]) - (v[4:] - v[:-4])) / (12 * step)
        return np.moveaxis(made, 0, axis)

    return np.asarray(np.abs(slope(x, 1) * slope(y, 0) - slope(x, 0) * slope(y, 1)), np.float64)


def _middles(nodes: Doubles) -> Doubles:
    """What the cubics give in the middle of each cell."""
    inner = nodes[MARGIN - 1 : len(nodes) - MARGIN + 1, MARGIN - 1 : nodes.shape[1] - MARGIN + 1]
    for _ in range(2):
        inner = ((inner[1:-2] + inner[2:-1]) * 9 - (inner[:-3] + inner[3:])).T / 16
    return np.asarray(inner, np.float64)


def _live(
    x: Doubles,
    y: Doubles,
    test: Pair,
    input_shape: Shape,
    missing: Bools,
    near: Bools | None,
    hit: Bools | None,
) -> Bools:
    """Cells that may have pixels on the image: their corners and places within, and as far again around them.

    Where some of these have no place, or the map may jump (``missing``), the cell counts if another may be on
    the image, or a neighbour counts: the edge of a projection is then within it. ``near``: cells that may
    count at all, by their place on the sky; ``hit``: those that count anyway.
    """
    live = np.ones(missing.shape, np.bool_)
    missing = missing.copy()
    within = len(test[0]) // len(live)
    for plane, inside, length in ((x, test[0], input_shape[1]), (y, test[1], input_shape[0])):
        inner = plane[MARGIN:-MARGIN, MARGIN:-MARGIN]
        points = [inner[:-1, :-1], inner[:-1, 1:], inner[1:, :-1], inner[1:, 1:]]
        points += [inside[i::within, j::within] for i in range(within) for j in range(within)]
        least, most = np.fmin.reduce(points), np.fmax.reduce(points)
        reach = 0.5 * (most - least) + 1
        live &= (most + reach >= -0.5) & (least - reach < length - 0.5)
        missing |= ~np.isfinite(points).all(axis=0)
    if near is not None and hit is not None:
        live = (live & near) | hit
    wide = np.pad(live, 1)
    beside = wide[:-2] | wide[1:-1] | wide[2:]
    beside = beside[:, :-2] | beside[:, 1:-1] | beside[:, 2:]
    return np.asarray(live | (missing & beside), np.bool_)


def _reached(x: Doubles, y: Doubles, input_shape: Shape) -> Bools:
    """Cells whose cubics might have values on the image."""
    reached = np.ones((len(x) - 2 * MARGIN - 1, x.shape[1] - 2 * MARGIN - 1), np.bool_)
    for plane, length in ((x, input_shape[1]), (y, input_shape[0])):
        nodes = np.lib.stride_tricks.sliding_window_view(plane[2:-2, 2:-2], (4, 4))
        least, most = nodes.min(axis=(2, 3)), nodes.max(axis=(2, 3))
        middle, half = 0.5 * (least + most), 0.5 * OVERSHOOT * (most - least)
        reached &= (middle + half >= -1) & (middle - half < length)
    return reached


def _window(grid: Grid, shape: Shape) -> tuple[Span, Span]:
    spans: list[Span] = []
    for axis in (0, 1):
        found = np.flatnonzero(grid.live.any(axis=1 - axis))
        if not len(found):
            return (0, 0), (0, 0)
        begin = grid.origin[axis] + int(found[0]) * grid.step
        end = grid.origin[axis] + (int(found[-1]) + 1) * grid.step
        spans.append((begin, min(end, shape[axis])))
    return spans[0], spans[1]


# Pixels


def interpolate(nodes: Doubles, down: Stretch, along: Stretch) -> Doubles:
    """Values at positions, by cubics through the four nodes around them, along y and then along x.

    Node i + 1 is at the beginning of cell i. The kernel and its numpy twin give the same
    bits, whatever other positions are asked for with them.
    """
    compiled = kernel("resample")
    if compiled is not None and len(along.cells):
        first = int(along.cells[0])
        out = np.empty((len(down.cells), len(along.cells)))
        line = np.empty(nodes.shape[1])
        compiled.places(nodes, down.cells, down.weights, along.starts, along.t, first, line, out)
        return out
    with np.errstate(invalid="ignore", over="ignore"):
        rows = [nodes[down.cells + k] * down.weights[:, k][:, None] for k in range(4)]
        lines = rows[0] + rows[1] + rows[2] + rows[3]
        a, b, c, d = (lines[:, k : lines.shape[1] - 3 + k] for k in range(4))
        third = (d - a + 3.0 * (b - c)) / 6.0
        second = (a + c) * 0.5 - b
        first_order = (c - a) * 0.5 - third
        terms = [one[:, along.cells] for one in (third, second, first_order, b)]
        return ((terms[0] * along.t + terms[1]) * along.t + terms[2]) * along.t + terms[3]


def _cubic(t: Doubles) -> Doubles:
    """Weights of nodes at -1, 0, 1 and 2 for places t."""
    before, after, far = t + 1, t - 1, t - 2
    columns = [-t * after * far / 6, before * after * far / 2, -before * t * far / 2, before * t * after / 6]
    return np.ascontiguousarray(np.stack(columns, axis=1))


@lru_cache(maxsize=KEPT_BANDS)
def _band(of: PixelMap, band: int, shift: float, which: tuple[int, ...]) -> tuple[Doubles, ...]:
    """Planes (cells, step + 1, step + 1) of the exact cells of a row of cells, computed.

    Always whole, so that a strip of the grid has the bits that all of it would have; one
    pixel more than a cell has, for corners.
    """
    grid = of.grid
    cells = np.flatnonzero(grid.exact[band])
    inner = np.arange(grid.step + 1, dtype=np.float64) + shift
    x = (grid.origin[1] + cells * grid.step)[:, None, None] + inner[None, None, :]
    y = np.broadcast_to(
        (grid.origin[0] + band * grid.step) + inner[None, :, None], (len(cells), len(inner), 1)
    )
    x, y = np.broadcast_arrays(x, y)
    if which == (2,):
        return (_exact_areas(of, x, y),)
    return _places(of.output, of.input, x, y)


def _exact_areas(of: PixelMap, x: Doubles, y: Doubles) -> Doubles:
    right, left = (_places(of.output, of.input, x + shift, y) for shift in (0.5, -0.5))
    above, below = (_places(of.output, of.input, x, y + shift) for shift in (0.5, -0.5))
    if of.smooth:
        dx, dy = (one - other for one, other in zip(right, left, strict=True))
        ex, ey = (one - other for one, other in zip(above, below, strict=True))
    else:
        middle = _places(of.output, of.input, x, y)
        (dx, dy), (ex, ey) = shortest(right, middle, left), shortest(above, middle, below)
    return np.asarray(np.abs(dx * ey - ex * dy), np.float64)
