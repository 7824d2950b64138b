"""A line followed through an image: straightened, widened and extended to where its light ends."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .stats import row_medians
from .traillines import Line

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

BLOCK_ROWS = 32
# Blocks are made longer until one shows the trail at this significance.
BLOCK_SIGMA = 6.0
LONGEST_BLOCK_ROWS = 256
SHOWN_QUANTILE = 0.65
WINDOW_PX = 32
WIDEST_WINDOW_PX = 128
FWHM_PER_SIGMA = 2.3548200450309493
MEDIAN_ERROR = 1.2533141373155001
# Blocks below this part of the trail's height are where an aeroplane's lamp was off, or beyond its end.
OFF_FRACTION = 0.25
# Length over width: spiral arms and halos are stout.
LEAST_ELONGATION = 15.0
# Galaxies hold many faint stripes; below this height a trail must be slender.
FAINT_SIGMA, FAINT_ELONGATION = 3.0, 60.0
SEARCH_PX = 12
# Aeroplanes blink: a trail goes on behind a gap of so many rows.
GAP_ROWS = 320
FINE_ROWS = 8
EXTENSIONS = 16


@dataclass(frozen=True, eq=False)
class _Ribbon:
    """The surroundings of a line by blocks of rows.

    ``levels`` (blocks, columns) are medians along the line, less the level beside it, in
    sky noise; ``at_px`` (blocks, columns) the columns' distances in x from the line, ``noise``
    (blocks,) the error of one level, ``rows`` (blocks + 1,) where blocks begin.
    """

    levels: Doubles
    at_px: Doubles
    noise: Doubles
    rows: Integers

    @property
    def middles(self) -> Doubles:
        """The middle row of each block."""
        return np.asarray(0.5 * (self.rows[1:] + self.rows[:-1] - 1))


@dataclass(frozen=True, eq=False)
class _Profile:
    """Median profile across a line: 1 on the ridge, in steps of a pixel of x from -half_window_px.

    ``top`` is the height of the ridge over that of the Gaussian that was fitted.
    """

    profile: Doubles
    fwhm_px: float
    top: float

    @property
    def half_window_px(self) -> int:
        """How far the profile reaches to each side."""
        return len(self.profile) // 2


@dataclass(frozen=True, eq=False)
class Course:
    """A line followed to its ends: the ridge's height in each block (begins at ``rows``) and its error.

    ``within`` are the rows in which the line is inside the frame.
    """

    line: Line
    rows: Integers
    heights: Doubles
    errors: Doubles
    across: _Profile
    within: tuple[int, int]

    @property
    def free(self) -> bool:
        """True if both ends are inside the frame."""
        return self.line.first > self.within[0] and self.line.last < self.within[1]


def _ribbon(image: Floats, use: Bools, line: Line, window: int, block: int) -> _Ribbon:
    ny, nx = image.shape[::-1] if line.turned else image.shape
    blocks = -(-(line.last - line.first) // block)
    rows = line.first + np.arange(blocks * block)
    x = line.at(rows)
    near = np.rint(x).astype(np.int64)
    columns = near[:, None] + np.arange(-window, window + 1)
    inside = (columns >= 0) & (columns < nx) & ((rows < min(ny, line.last)) & (rows >= 0))[:, None]
    columns = np.clip(columns, 0, nx - 1)
    safe = np.clip(rows, 0, ny - 1)[:, None]
    flat = columns * image.shape[1] + safe if line.turned else safe * nx + columns
    good = inside & use.ravel().take(flat)
    values = image.ravel().take(flat)
    width = 2 * window + 1
    order = (0, 2, 1)
    by_column = values.reshape(blocks, block, width).transpose(order).reshape(-1, block)
    good_by_column = good.reshape(blocks, block, width).transpose(order).reshape(-1, block)
    levels = row_medians(by_column, good_by_column).reshape(blocks, width).astype(np.float64)
    few = good_by_column.sum(axis=1).reshape(blocks, width) < max(1, block // 4)
    levels[few] = np.nan
    offset = (near - x).reshape(blocks, block).mean(axis=1)
    edges = np.minimum(np.append(rows[::block], rows[-1] + 1), line.last)
    at_px = np.arange(-window, window + 1) + offset[:, None]
    return _Ribbon(*_less_sides(levels, at_px, block), edges)


def _less_sides(levels: Doubles, at_px: Doubles, block: int) -> tuple[Doubles, Doubles, Doubles]:
    """Levels less a straight line through the medians of both sides, and the scatter of the sides."""
    width = levels.shape[1]
    part = width // 4
    sides = [slice(0, part), slice(width - part, width)]
    known = ~np.isnan(levels)
    left, right = (row_medians(levels[:, side], known[:, side]).astype(np.float64) for side in sides)
    left, right = np.where(np.isnan(left), right, left), np.where(np.isnan(right), left, right)
    lever = (np.arange(width) - 0.5 * (part - 1)) / (width - part)
    flat = levels - (left[:, None] + (right - left)[:, None] * lever)
    both = np.concatenate([flat[:, side] for side in sides], axis=1)
    noise = 1.4826 * row_medians(np.abs(both), ~np.isnan(both)).astype(np.float64)
    least = MEDIAN_ERROR / math.sqrt(block)
    noise = np.maximum(np.where(np.isnan(noise), least, noise), least)
    flat[np.isnan(left)] = np.nan
    return flat, at_px, noise


def _heights(ribbon: _Ribbon, sigma_px: float, shift_px: Doubles | float = 0.0) -> tuple[Doubles, Doubles]:
    """Least-squares height of a Gaussian ridge in each block, and its error; nan where it is not seen."""
    template = np.exp(-0.5 * ((ribbon.at_px - np.asarray(shift_px)[..., None]) / sigma_px) ** 2)
    template[np.isnan(ribbon.levels)] = 0
    norm = (template**2).sum(axis=1)
    seen = norm > 0.5 * sigma_px * math.sqrt(math.pi)
    norm = np.where(seen, norm, np.nan)
    heights = (np.nan_to_num(ribbon.levels) * template).sum(axis=1) / norm
    return np.asarray(heights), np.asarray(ribbon.noise / np.sqrt(norm))


def follow(image: Floats, use: Bools, line: Line, seeing_px: float) -> Course | None:
    """The line made straight through its light, and followed to where that ends; None if there is none."""
    window, sigma = WINDOW_PX, max(seeing_px / FWHM_PER_SIGMA, 1.5)
    start = _searched(image, use, line, sigma)
    if start is None:
        return None
    line, block = start
    for _ in range(EXTENSIONS):
        ribbon = _ribbon(image, use, line, window, block)
        before = line.at(ribbon.middles)
        line, sigma = _refined(line, ribbon, sigma)
        if FWHM_PER_SIGMA * sigma > window / 3 and window < WIDEST_WINDOW_PX:
            window *= 2
            continue
        heights, errors = _heights(ribbon, sigma, line.at(ribbon.middles) - before)
        first, last = _extent(heights, errors)
        if last <= first or _too_stout(heights[first:last], sigma, line, image.shape):
            return None
        begin, end = int(ribbon.rows[first]), int(ribbon.rows[last])
        longer = _longer(line, begin, end, block, image.shape)
        if (longer.first, longer.last) == (line.first, line.last):
            return _course(image, use, replace(line, first=begin, last=end), window, block, sigma)
        if longer.last - longer.first < block:
            return None
        line = longer
    return None


def _too_stout(heights: Doubles, sigma: float, line: Line, shape: tuple[int, ...]) -> bool:
    """True if not even a line across the whole frame would be slender enough for its width."""
    faint = float(np.nanmedian(heights)) < FAINT_SIGMA if not np.isnan(heights).all() else True
    elongation = FAINT_ELONGATION if faint else LEAST_ELONGATION
    return elongation * FWHM_PER_SIGMA * sigma / line.stretch > math.hypot(*shape)


def _searched(image: Floats, use: Bools, line: Line, sigma: float) -> tuple[Line, int] | None:
    """The line shifted and tilted to where most light is, and how many rows a block needs to show it."""
    ribbon = _ribbon(image, use, line, WINDOW_PX, BLOCK_ROWS)
    blocks, width = ribbon.levels.shape
    # What a block says is capped, so that a star's halo does not outvote the rest.
    seen = np.clip(np.nan_to_num(ribbon.levels / ribbon.noise[:, None]), -BLOCK_SIGMA, BLOCK_SIGMA)
    k = np.arange(width)
    smooth = seen @ np.exp(-0.5 * ((k[:, None] - k) / sigma) ** 2)
    shifts, tilts = np.arange(-SEARCH_PX, SEARCH_PX + 1), np.arange(-SEARCH_PX, SEARCH_PX + 1)
    lever = (np.arange(blocks) + 0.5) / blocks - 0.5
    at = WINDOW_PX + shifts[:, None, None] + np.rint(tilts[:, None] * lever).astype(np.int64)
    score = smooth[np.arange(blocks), np.clip(at, 0, width - 1)].sum(axis=2)
    shift, tilt = np.unravel_index(int(np.argmax(score)), score.shape)
    length = line.last - line.first
    slope = float(tilts[tilt]) / length
    begin = float(shifts[shift]) - slope * 0.5 * (line.first + line.last)
    line = replace(line, terms=line.terms + np.array([begin, 1000.0 * slope]))
    heights, errors = _heights(_ribbon(image, use, line, WINDOW_PX, BLOCK_ROWS), sigma)
    significance = (heights / errors)[~np.isnan(heights)]
    if len(significance) < 2:
        return None
    if line.significance < 1 and np.nanquantile(heights, SHOWN_QUANTILE) < 0.5 * FAINT_SIGMA:
        return None
    # A trail shows in most of its blocks, a blinking one in half of them, a chance line of stars in some.
    shown = float(np.quantile(significance, SHOWN_QUANTILE))
    if shown < BLOCK_SIGMA / math.sqrt(len(significance)):
        return None
    block = BLOCK_ROWS
    while block < LONGEST_BLOCK_ROWS and length >= 12 * block and shown < BLOCK_SIGMA:
        block, shown = 2 * block, shown * math.sqrt(2.0)
    return line, block


def _refined(line: Line, ribbon: _Ribbon, sigma: float) -> tuple[Line, float]:
    """The line through the centres of its light, and the width of that as that of a Gaussian."""
    centres, significance = _centres(ribbon, sigma)
    on = significance > 3
    number = int(on.sum())
    if number < 3:
        return line, sigma
    degree = 2 if number >= 20 else 1
    t = ribbon.middles[on] / 1000.0
    away, weight = centres[on], np.minimum(significance[on], 30.0)
    keep = np.ones(number, np.bool_)
    terms: Doubles = np.zeros(degree + 1)
    for _ in range(4):
        powers = t[keep, None] ** np.arange(degree + 1) * weight[keep, None]
        terms = np.asarray(np.linalg.lstsq(powers, away[keep] * weight[keep], rcond=None)[0])
        off = away - (t[:, None] ** np.arange(degree + 1)) @ terms
        limit = max(0.5, 4 * 1.4826 * float(np.median(np.abs(off[keep]))))
        keep = np.abs(off) < limit
        if keep.sum() < degree + 2:
            return line, sigma
    total = np.zeros(max(len(line.terms), degree + 1))
    total[: len(line.terms)] += line.terms
    total[: degree + 1] += terms
    fwhm = _profile(ribbon, sigma, centres, on).fwhm_px
    return replace(line, terms=total), min(max(fwhm / FWHM_PER_SIGMA, 0.4), WIDEST_WINDOW_PX / 4)


def _centres(ribbon: _Ribbon, sigma: float) -> tuple[Doubles, Doubles]:
    """Distance in x of each block's light from the line, by a Gaussian window, and its significance."""
    levels = np.nan_to_num(ribbon.levels)
    wide = max(1.5 * sigma, 2.0)
    centres = np.zeros(len(levels))
    for _ in range(4):
        away = ribbon.at_px - centres[:, None]
        window = np.exp(-0.5 * (away / wide) ** 2) * levels
        total = window.sum(axis=1)
        step = np.divide((window * away).sum(axis=1), total, out=np.zeros_like(total), where=total > 0)
        centres = np.clip(centres + np.clip(2 * step, -2, 2), -SEARCH_PX, SEARCH_PX)
    heights, errors = _heights(ribbon, sigma, centres)
    return centres, np.nan_to_num(heights / errors)


def _profile(ribbon: _Ribbon, sigma: float, centres: Doubles, on: Bools) -> _Profile:
    """The profile across the line from the blocks where it is on, each about its centre."""
    heights, _ = _heights(ribbon, sigma, centres)
    on = on & (np.nan_to_num(heights) > 0)
    half = ribbon.levels.shape[1] // 2
    at = np.arange(-half, half + 1.0)
    gaussian = _Profile(np.exp(-0.5 * (at / sigma) ** 2), FWHM_PER_SIGMA * sigma, 1.0)
    if not on.any():
        return gaussian
    away = (ribbon.at_px - centres[:, None])[on]
    rows = [
        np.interp(at, *one, left=np.nan, right=np.nan) for one in zip(away, ribbon.levels[on], strict=True)
    ]
    stack = np.array(rows).T / heights[on]
    profile = np.nan_to_num(row_medians(stack, ~np.isnan(stack)).astype(np.float64))
    top = float(profile[half - 1 : half + 2].max())
    if top <= 0:
        return gaussian
    profile /= top
    left, right = reach_of(profile, 0.5)
    return _Profile(profile, float(left + right), top)


def reach_of(profile: Doubles, level: float | Doubles) -> tuple[Any, Any]:
    """How far to the left and to the right the profile, from the ridge outwards, stays above a level."""
    half = len(profile) // 2
    left, right = (np.minimum.accumulate(side) for side in (profile[half::-1], profile[half:]))
    steps = np.arange(half + 1.0)
    return np.interp(-np.asarray(level), -left, steps), np.interp(-np.asarray(level), -right, steps)


def _extent(heights: Doubles, errors: Doubles) -> tuple[int, int]:
    """The run of blocks with the most light that is of one height: its first, and the one after its last."""
    on = np.nan_to_num(heights / errors) > 3
    if not on.any():
        return 0, 0
    typical = float(np.median(heights[on]))
    score = np.clip(np.nan_to_num(heights / typical, nan=OFF_FRACTION), -0.5, 1) - OFF_FRACTION
    score[~(errors < typical)] = 0
    total = np.concatenate([[0.0], np.cumsum(score)])
    lowest = np.minimum.accumulate(total)
    last = int(np.argmax(total - lowest))
    first = int(np.flatnonzero(total[: last + 1] == lowest[last])[-1])
    return first, last


def _longer(line: Line, begin: int, end: int, block: int, shape: tuple[int, ...]) -> Line:
    """The line with half its length more at each end that is not known yet, within the frame."""
    low, high = _within(line, shape)
    more = max((end - begin) // 2, 4 * block)
    gap = max(GAP_ROWS, 2 * block)
    first = line.first if begin > line.first + gap else line.first - more
    last = line.last if end < line.last - gap else line.last + more
    return replace(line, first=max(first, low), last=min(last, high))


def _within(line: Line, shape: tuple[int, ...]) -> tuple[int, int]:
    """The rows, half open, in which a line is inside the frame; those it has if there are none."""
    ny, nx = shape[::-1] if line.turned else shape
    x = line.at(np.arange(ny))
    rows = np.flatnonzero((x > -1) & (x < nx))
    return (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (line.first, line.last)


def _course(image: Floats, use: Bools, line: Line, window: int, block: int, sigma: float) -> Course | None:
    """What the blocks of a line say, and where exactly it ends."""
    ribbon = _ribbon(image, use, line, window, block)
    heights, errors = _heights(ribbon, sigma)
    on = np.nan_to_num(heights / errors) > 3
    if not on.any():
        return None
    across = _profile(ribbon, sigma, np.zeros(len(heights)), on)
    typical = float(np.median(heights[on]))
    low, high = _within(line, image.shape)
    first, last = line.first, line.last
    if first > low + block // 2:
        first = _end(image, use, line, first, -1, window, block, sigma, typical)
    if last < high - block // 2:
        last = _end(image, use, line, last, 1, window, block, sigma, typical)
    line = replace(line, first=max(first, low), last=min(last, high))
    if line.last - line.first < block:
        return None
    if np.nanmin(heights) < 0.5 * typical:
        block = _fine_rows(typical, errors, block)
        ribbon = _ribbon(image, use, line, window, block)
        heights, errors = _heights(ribbon, sigma)
    # A Gaussian's fit to a profile that is none is off by a constant factor.
    return Course(line, ribbon.rows, across.top * heights, across.top * errors, across, (low, high))


def _fine_rows(typical: float, errors: Doubles, block: int) -> int:
    """The shortest blocks that still show the trail, to tell where it blinks."""
    significance = typical / float(np.nanmedian(errors))
    while block > FINE_ROWS and significance > 1.5 * BLOCK_SIGMA:
        block, significance = block // 2, significance / math.sqrt(2.0)
    return block


def _end(
    image: Floats,
    use: Bools,
    line: Line,
    end: int,
    outward: int,
    window: int,
    block: int,
    sigma: float,
    typical: float,
) -> int:
    """The row at which the light ends, about ``end``: where the sum of the rows' heights over half is largest."""
    around = replace(line, first=end - 2 * block, last=end + 2 * block)
    heights, _ = _heights(_ribbon(image, use, around, window, 1), sigma)
    score = np.clip(np.nan_to_num(heights / typical), -0.5, 1.5) - 0.5
    total = np.cumsum(score[::outward])
    steps = int(np.argmax(total)) + 1 if total.max() > 0 else 0
    return around.first + steps if outward > 0 else around.last - steps
