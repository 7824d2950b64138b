"""Straight trails of satellites and aeroplanes, found however faint as long as they are long."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BadValue, Mixture
from .stats import row_medians
from .trailcourse import (
    BLOCK_SIGMA,
    FAINT_ELONGATION,
    FAINT_SIGMA,
    LEAST_ELONGATION,
    OFF_FRACTION,
    Course,
    follow,
    reach_of,
)
from .traillines import Line, candidates, forget, votes_of

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

# Larger frames are binned by 8, others by 4.
SMALL_FRAME_PIXELS = 1 << 21
MOST_TRAILS = 24
# Faint trails, which nowhere reach the limit, are masked where they exceed this part of their height.
FAINT_FRACTION = 0.7
# No light of the sky is narrower than this part of the seeing; columns and rows of a detector are.
LEAST_WIDTH_SEEING = 0.75
# Within this angle of rows and columns a detector's own lines are likely, and more is asked.
AXIS_DEG = 0.5
AXIS_FACTOR = 2.0
# More length over width is asked of what lies along the detector, and of what ends inside the frame at both ends.
FREE_ELONGATION, AXIS_ELONGATION = 30.0, 50.0
# Faint trails must be slender, more significant than others, seen in this part of their blocks, and of one height:
# nine tenths of their blocks below so many times the middle height, and above that part of it.
FAINT_FACTOR, FAINT_ON, FAINT_UNEVEN = 2.0, 0.75, 2.0
# A trail of one height along its length may be stout: no galaxy is.
EVEN = 1.5
# A trail shows in this part of its blocks, and nine tenths of them are below so many times its middle height.
LEAST_ON = 0.3
MOST_UNEVEN = 4.0


@dataclass(frozen=True)
class Trail:
    """One trail: its two ends (0-based pixels), direction, width and height.

    ``angle_deg`` from the rows (+x) towards the columns (+y), 0 to 180; ``width_px`` the
    full width at half maximum across; ``peak_sigma`` the median height of its ridge in
    units of the sky noise of a pixel.
    """

    x0_px: float
    y0_px: float
    x1_px: float
    y1_px: float
    angle_deg: float
    width_px: float
    peak_sigma: float


@dataclass(frozen=True, eq=False)
class Trails:
    """All trails of a frame: ``mask`` (ny, nx) is True on them, ``lines`` has them one by one."""

    mask: Bools
    lines: tuple[Trail, ...]


def find_trails(
    residual_sigma: Floats,
    use: Bools | None = None,
    *,
    seeing_px: float = 2.0,
    threshold_sigma: float = 8.0,
    edge_sigma: float = 2.0,
    least_length_px: float = 200.0,
) -> Trails:
    """Find straight trails at any angle, one after another, and mask them down to the noise.

    ``residual_sigma`` (ny, nx) float32 is the image less its smooth sky, in units of the
    sky noise of a pixel; ``use`` (ny, nx) is True where a pixel counts (saturated and
    bleeding, hot, cold and dead ones must not; None: all that is finite). ``seeing_px``
    is the least full width of anything seen through the sky, ``threshold_sigma`` the
    significance of a line over the scatter of all lines of the frame (0.7 of it serves
    for trails above 3 sigma a pixel), ``least_length_px`` the length of the shortest
    trail. The mask reaches to where the
    profile across falls to ``edge_sigma``; a trail that is nowhere that bright is masked
    where it exceeds 0.7 of its height.

    Method: pixels and then bins of 4 or 8 pixels are capped, so that stars do not outvote
    lines; the sums along all digital lines of all dyadic lengths (Brady 1998, SIAM J.
    Comput. 27, 107; Goetz and Druckmueller 1996, Pattern Recognition 29, 711; for streaks
    Nir, Zackay and Ofek 2018, AJ 156, 229) give candidates; each is followed through
    the full-resolution image, by medians along it, over gaps of up to 320 pixels, to its
    ends; it must be as wide as the seeing, slender and of even height: more so along
    rows and columns, where detectors have lines of their own, and where it is faint, as
    pieces of spiral arms are in a row by chance. What was found is taken
    out, and the next is looked for, up to 24. ``BadValue`` for senseless numbers,
    ``Mixture`` for shapes that differ.
    """
    image = _checked(residual_sigma, use, seeing_px, threshold_sigma, edge_sigma, least_length_px)
    usable: Bools = np.isfinite(image)
    if use is not None:
        usable &= use
    mask = np.zeros(image.shape, np.bool_)
    size = 8 if image.size > SMALL_FRAME_PIXELS else 4
    found: list[Trail] = []
    votes = votes_of(image, usable, size)
    if votes is None or max(image.shape) < least_length_px:
        return Trails(mask, ())
    tested: list[Line] = []
    while len(found) < MOST_TRAILS:
        lines = candidates(votes, size, threshold_sigma, least_length_px, tested)
        course = _first_trail(image, usable, lines, tested, seeing_px, threshold_sigma, least_length_px)
        if course is None:
            break
        mask |= _paint(course, image.shape, edge_sigma)
        found.append(_described(course))
        corridor = _corridor(course, image.shape)
        usable = usable & ~corridor
        forget(votes, corridor, size)
    return Trails(mask, tuple(found))


def _first_trail(
    image: Floats,
    use: Bools,
    lines: Iterator[Line],
    tested: list[Line],
    seeing_px: float,
    threshold: float,
    least_length_px: float,
) -> Course | None:
    """The first candidate that is a trail; all that were looked at are added to ``tested``."""
    for line in lines:
        course = follow(image, use, line, seeing_px)
        tested += [line] if course is None else [line, course.line]
        if course is not None and _is_trail(course, seeing_px, threshold, least_length_px):
            return course
    return None


def _checked(image: Floats, use: Bools | None, *numbers: float) -> Floats:
    if image.ndim != 2 or (use is not None and use.shape != image.shape):
        shapes = f"{image.shape}" + ("" if use is None else f" and {use.shape}")
        raise Mixture(f"trails in arrays of shape {shapes}: image and use must be (ny, nx) alike")
    if not all(number > 0 for number in numbers):
        raise BadValue(f"trails with seeing, threshold, edge and length {numbers}: each must be positive")
    return np.ascontiguousarray(image, np.float32)


# What is a trail, and what it covers


def _is_trail(course: Course, seeing_px: float, threshold: float, least_length_px: float) -> bool:
    """True for what is long, as wide as the seeing, seen in most blocks and of even height."""
    line = course.line
    stretch = line.stretch
    significance = course.heights / course.errors
    known = ~np.isnan(significance)
    significance = significance[known]
    on = significance > 3
    if (line.last - line.first) * stretch < least_length_px or on.sum() < max(3, LEAST_ON * len(on)):
        return False
    width = course.across.fwhm_px / stretch
    wanted, least_width = threshold, LEAST_WIDTH_SEEING * seeing_px
    heights = course.heights[known][on]
    low, middle, high = np.quantile(heights, (0.1, 0.5, 0.9))
    even = high < EVEN * middle and middle < EVEN * low
    elongation = FREE_ELONGATION if course.free and not even else LEAST_ELONGATION
    if middle < FAINT_SIGMA:
        is_steady = high <= FAINT_UNEVEN * middle and middle <= FAINT_UNEVEN * low
        if line.significance < 1 or on.mean() < FAINT_ON or not is_steady:
            return False
        wanted, elongation = FAINT_FACTOR * threshold, FAINT_ELONGATION
    if _along_detector(line):
        if middle < FAINT_SIGMA:
            return False
        wanted, least_width = AXIS_FACTOR * wanted, AXIS_FACTOR * least_width
        elongation = max(elongation, AXIS_ELONGATION)
    if not least_width <= width <= (line.last - line.first) * stretch / elongation:
        return False
    if np.median(significance) * math.sqrt(len(significance)) < wanted:
        return False
    return bool(high < MOST_UNEVEN * middle)


def _along_detector(line: Line) -> bool:
    ends = line.at(np.array([line.first, line.last]))
    return abs(float(ends[1] - ends[0])) < math.tan(math.radians(AXIS_DEG)) * (line.last - line.first)


def _paint(course: Course, shape: tuple[int, ...], edge_sigma: float) -> Bools:
    """True where the light of a trail exceeds the limit."""
    rows = _all_rows(course, shape)
    height = _smooth_heights(course, rows)
    limit = min(edge_sigma, FAINT_FRACTION * float(np.median(height[height > 0])))
    left, right = reach_of(course.across.profile, limit / np.maximum(height, 1e-6))
    on = height > limit
    return _between(course, shape, rows, np.where(on, left, -1), np.where(on, right, -1))


def _corridor(course: Course, shape: tuple[int, ...]) -> Bools:
    """True where a trail's light can be seen, its gaps included."""
    rows = _all_rows(course, shape)
    least = 0.3 / max(float(np.nanmax(course.heights)), 1.0)
    reach = max(1.5 * course.across.fwhm_px, *(float(one) for one in reach_of(course.across.profile, least)))
    side = np.full(len(rows), reach)
    return _between(course, shape, rows, side, side)


def _all_rows(course: Course, shape: tuple[int, ...]) -> Integers:
    # A wide trail that leaves the frame through its side covers a corner after its ridge has left.
    line, margin = course.line, course.across.half_window_px
    ny = shape[1] if line.turned else shape[0]
    first = line.first - (margin if line.first <= course.within[0] else 0)
    last = line.last + (margin if line.last >= course.within[1] else 0)
    return np.arange(max(0, first), min(ny, last))


def _between(course: Course, shape: tuple[int, ...], rows: Integers, left: Doubles, right: Doubles) -> Bools:
    """True in these rows from so far to the left of the ridge to so far to the right of it."""
    mask = np.zeros(shape, np.bool_)
    canvas = mask.T if course.line.turned else mask
    x = course.line.at(rows)
    margin = course.across.half_window_px
    away = np.rint(x)[:, None] + np.arange(-margin, margin + 1.0) - x[:, None]
    columns = np.rint(x).astype(np.int64)[:, None] + np.arange(-margin, margin + 1)
    covered = (away >= -left[:, None]) & (away <= right[:, None])
    covered &= (columns >= 0) & (columns < canvas.shape[1])
    row, place = np.nonzero(covered)
    canvas[rows[row], columns[row, place]] = True
    return mask


def _smooth_heights(course: Course, rows: Integers) -> Doubles:
    """Height of the ridge in every row: what its block and those beside it say, 0 where the light is off."""
    heights = course.heights
    typical = float(np.nanmedian(heights[course.heights > 3 * course.errors]))
    off = (heights < OFF_FRACTION * typical) & (BLOCK_SIGMA * course.errors < typical)
    known = ~np.isnan(heights) & ~off
    padded = np.pad(np.where(known, heights, np.nan), 2, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 5)
    smooth = row_medians(windows, ~np.isnan(windows)).astype(np.float64)
    # Where stars or a galaxy hide the trail it is as high as elsewhere.
    smooth = np.maximum(np.nan_to_num(smooth), 0.5 * typical)
    smooth[off] = 0
    block = np.searchsorted(course.rows, rows, side="right") - 1
    filled: Doubles = smooth[np.clip(block, 0, len(smooth) - 1)]
    return filled


def _described(course: Course) -> Trail:
    line = course.line
    rows = np.array([line.first, line.last - 1], float)
    x = line.at(rows)
    (x0, x1), (y0, y1) = (rows, x) if line.turned else (x, rows)
    on = course.heights > 3 * course.errors
    return Trail(
        x0_px=float(x0),
        y0_px=float(y0),
        x1_px=float(x1),
        y1_px=float(y1),
        angle_deg=math.degrees(math.atan2(y1 - y0, x1 - x0)) % 180.0,
        width_px=course.across.fwhm_px / line.stretch,
        peak_sigma=float(np.median(course.heights[on])),
    )
