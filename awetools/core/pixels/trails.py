"""Straight trails of satellites and aeroplanes, found however faint as long as they are long."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import BadValue, Mixture
from .smooth import block_statistics, fill_gaps, interpolate_blocks
from .stats import row_medians

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

# A pixel votes with this at most, a cell with so many times its own noise: no star outvotes a line.
PIXEL_CAP_SIGMA = 4.0
CELL_CAP_SIGMA = 3.0
# Larger frames are binned by 8, others by 4.
SMALL_FRAME_PIXELS = 1 << 21
LEAST_CELL_FRACTION = 0.25
# The votes are flattened on this scale, in cells, so that galaxies do not vote.
FLAT_CELLS = 10
# How far beside a line, in cells, its surroundings are looked at.
SIDE_CELLS = (4, 8)
CANDIDATES_PER_STAGE = 500
TESTS_PER_PASS = 12
# Weaker candidates, down to this part of the threshold, are trails only where they are bright: the caps
# keep bright trails in crowded fields from being more significant.
WEAK_FRACTION = 0.7
WEAK_TESTS_PER_PASS = 5
MOST_TRAILS = 24

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
# Faint trails, which nowhere reach the limit, are masked where they exceed this part of their height.
FAINT_FRACTION = 0.7
# No light of the sky is narrower than this part of the seeing; columns and rows of a detector are.
LEAST_WIDTH_SEEING = 0.75
# Within this angle of rows and columns a detector's own lines are likely, and more is asked.
AXIS_DEG = 0.5
AXIS_FACTOR = 2.0
# Length over width: spiral arms and halos are stout. More is asked of what lies along the detector, and of
# what ends inside the frame at both ends.
LEAST_ELONGATION, FREE_ELONGATION, AXIS_ELONGATION = 15.0, 30.0, 50.0
# Galaxies hold many faint stripes; below this height a trail must be slender.
FAINT_SIGMA, FAINT_ELONGATION, FAINT_FACTOR = 3.0, 60.0, 2.0
# A trail of one height along its length may be stout: no galaxy is.
EVEN = 1.5
# A trail shows in this part of its blocks, and nine tenths of them are below so many times its middle height.
LEAST_ON = 0.3
MOST_UNEVEN = 4.0
SEARCH_PX = 12
# Aeroplanes blink: a trail goes on behind a gap of so many rows.
GAP_ROWS = 320
FINE_ROWS = 8
EXTENSIONS = 16


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
    ends; it must be as wide as the seeing, slender and of even height, and more so along
    rows and columns, where detectors have lines of their own. What was found is taken
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
    votes = _votes(image, usable, size)
    if votes is None or max(image.shape) < least_length_px:
        return Trails(mask, ())
    tested: list[_Line] = []
    while len(found) < MOST_TRAILS:
        lines = _candidates(votes, size, threshold_sigma, least_length_px, tested)
        course = _first_trail(image, usable, lines, tested, seeing_px, threshold_sigma, least_length_px)
        if course is None:
            break
        mask |= _paint(course, image.shape, edge_sigma)
        found.append(_described(course))
        corridor = _corridor(course, image.shape)
        usable = usable & ~corridor
        _forget(votes, corridor, size)
    return Trails(mask, tuple(found))


def _first_trail(
    image: Floats,
    use: Bools,
    lines: Iterator[_Line],
    tested: list[_Line],
    seeing_px: float,
    threshold: float,
    least_length_px: float,
) -> _Course | None:
    """The first candidate that is a trail; all that were looked at are added to ``tested``."""
    for line in lines:
        course = _follow(image, use, line, seeing_px)
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


# Candidates: sums along digital lines through a binned image


@dataclass(frozen=True, eq=False)
class _Votes:
    """The binned image: capped sums of the pixels of each cell over its size, and the part that counts.

    Where all pixels count, noise alone gives ``value`` the variance 1.
    """

    value: Floats
    number: Floats


@dataclass(frozen=True, eq=False)
class _Line:
    """x of a ridge as a polynomial of y, for the rows ``first`` to ``last`` (half open).

    ``turned``: x and y are exchanged, so that no line is less steep than 45 degrees;
    ``significance``: of its votes, over the threshold.
    """

    terms: Doubles
    first: int
    last: int
    turned: bool
    significance: float

    def at(self, rows: Array) -> Doubles:
        """The x of the ridge at these rows, px."""
        t = rows / 1000.0
        x = np.zeros(np.shape(rows))
        for term in self.terms[::-1]:
            x = x * t + term
        return x

    @property
    def stretch(self) -> float:
        """Length of the line per row."""
        begin, end = self.at(np.array([self.first, self.last]))
        return math.hypot(1.0, float(end - begin) / max(self.last - self.first, 1))


class _Peak(NamedTuple):
    """A line through cells: x where it begins, slope dx/dy, rows (half open), significance over the threshold."""

    significance: float
    begin: float
    slope: float
    first: int
    last: int


def _votes(image: Floats, use: Bools, size: int) -> _Votes | None:
    ny, nx = (length // size for length in image.shape)
    if min(ny, nx) < 2:
        return None
    value, number = np.empty((ny, nx), np.float32), np.empty((ny, nx), np.float32)
    step = max(1, (1 << 18) // (nx * size * size))
    for j in range(0, ny, step):
        k = min(ny, j + step)
        good = use[j * size : k * size, : nx * size]
        part = np.clip(image[j * size : k * size, : nx * size], -PIXEL_CAP_SIGMA, PIXEL_CAP_SIGMA)
        part = np.where(good, part, np.float32(0))
        value[j:k] = _binned(part, size, np.dtype(np.float32))
        number[j:k] = _binned(good.view(np.uint8), size, np.dtype(np.uint8))
    value /= size
    number /= size * size
    few = number < LEAST_CELL_FRACTION
    value[few] = 0
    number[few] = 0
    if few.all():
        return None
    value -= _smooth_level(value, number) * number
    cap = CELL_CAP_SIGMA * np.sqrt(number)
    np.clip(value, -cap, cap, out=value)
    return _Votes(value, number)


def _binned(part: Array, size: int, kind: np.dtype[Any]) -> Array:
    ny, nx = part.shape
    rows = np.add.reduce(part.reshape(ny // size, size, nx), axis=1, dtype=kind)
    sums: Array = np.add.reduce(rows.reshape(ny // size, nx // size, size), axis=2, dtype=kind)
    return sums


def _smooth_level(value: Floats, number: Floats) -> Floats:
    known = number > 0
    level = np.divide(value, number, out=np.zeros_like(value), where=known)
    blocks = block_statistics(level, known, FLAT_CELLS)
    if np.isnan(blocks.median).all():
        return np.zeros_like(value)
    return interpolate_blocks(fill_gaps(blocks.median), blocks, value.shape)


def _forget(votes: _Votes, corridor: Bools, size: int) -> None:
    """Take the cells that a trail touches out of the votes, in place."""
    ny, nx = votes.value.shape
    touched = _binned(corridor[: ny * size, : nx * size].view(np.uint8), size, np.dtype(np.uint8)) > 0
    votes.value[touched] = 0
    votes.number[touched] = 0


def _candidates(
    votes: _Votes, size: int, threshold: float, least_length_px: float, tested: list[_Line]
) -> Iterator[_Line]:
    """The most significant lines, best first, without those that follow one that was tested."""
    found: list[tuple[_Peak, bool, bool]] = []
    for turned in (False, True):
        for flipped in (False, True):
            value, number = (one.T if turned else one for one in (votes.value, votes.number))
            if flipped:
                value, number = value[:, ::-1], number[:, ::-1]
            # A small frame may have no stage of the whole least length.
            least = min(least_length_px / size, 1 << (len(value).bit_length() - 1))
            for stage in _line_sums(value, number):
                if stage.shape[2] >= least:
                    found += [(peak, turned, flipped) for peak in _peaks(stage, threshold, least)]
    found.sort(key=lambda one: -one[0].significance)
    tests = 0
    for peak, turned, flipped in found:
        if tests >= (TESTS_PER_PASS if peak.significance >= 1 else WEAK_TESTS_PER_PASS):
            return
        line = _line_of_cells(peak, size, votes.value.shape[0 if turned else 1], turned, flipped)
        if not any(_follows(line, other, 3.0 * size) for other in tested):
            tests += 1
            yield line


def _line_sums(value: Floats, number: Floats) -> Iterator[Floats]:
    """Sums of both arrays (ny, nx) along the lines of every dyadic number of rows.

    A stage of ``size`` rows is (2, strips, size, nx + size): of each strip of so many rows,
    and each shift 0 to size - 1 of x between its first row and its last, the line that
    begins at x = column - size. Two lines of one stage, end to end, make one of the next.
    """
    ny, nx = value.shape
    stage = np.zeros((2, ny, 1, nx + 1), np.float32)
    stage[0, :, 0, 1:], stage[1, :, 0, 1:] = value, number
    size = 1
    while stage.shape[1] >= 2:
        strips = stage.shape[1] // 2
        longer = np.zeros((2, strips, 2 * size, nx + 2 * size), np.float32)
        for shift in range(2 * size):
            near, begins = shift // 2, size - (shift + 1) // 2
            longer[:, :, shift, size:] = stage[:, 0 : 2 * strips : 2, near]
            longer[:, :, shift, begins : begins + nx + size] += stage[:, 1 : 2 * strips : 2, near]
        stage, size = longer, 2 * size
        yield stage


def _peaks(stage: Floats, threshold: float, least: float) -> Iterator[_Peak]:
    """The most significant lines of a stage: two neighbouring cells wide, above both their sides."""
    value, number = stage[:, :, :, 1:] + stage[:, :, :, :-1]
    rows = stage.shape[2]
    sample = (slice(None), slice(None, None, max(1, rows // 16)), slice(None, None, 4))
    long = number[sample] > least
    if not long.any():
        return
    scatter = np.quantile(value[sample][long] / np.sqrt(number[sample][long]), (0.25, 0.75))
    # Stars and galaxies scatter lines by more than the noise does.
    cut = threshold * max(1.0, float(scatter[1] - scatter[0]) / 1.349)
    low = WEAK_FRACTION * cut
    high = np.flatnonzero(value * value > np.float32(low * low) * number)
    high = high[(value.ravel()[high] > 0) & (number.ravel()[high] > least)]
    strip, shift, column = np.unravel_index(high, value.shape)
    excess = np.zeros(len(high))
    for side in SIDE_CELLS:
        beside = np.maximum(*(_level(value, number, strip, shift, column + step) for step in (-side, side)))
        n = number[strip, shift, column]
        excess = np.maximum(excess, (value[strip, shift, column] - n * beside) / np.sqrt(n))
    best = np.argsort(-excess, kind="stable")[:CANDIDATES_PER_STAGE]
    best = best[excess[best] > low]
    columns = (excess / cut, column - rows + 0.5, shift / max(rows - 1, 1), strip * rows)
    for significance, begin, slope, first in zip(*(one[best].tolist() for one in columns), strict=True):
        yield _Peak(significance, begin, slope, first, first + rows)


def _level(value: Floats, number: Floats, strip: Integers, shift: Integers, column: Integers) -> Doubles:
    """Mean level of other lines; 0 where there is none."""
    inside = (column >= 0) & (column < value.shape[2])
    column = np.clip(column, 0, value.shape[2] - 1)
    n = number[strip, shift, column]
    level: Doubles = np.where(inside & (n > 0), value[strip, shift, column] / np.maximum(n, 1e-3), 0.0)
    return level


def _line_of_cells(peak: _Peak, size: int, nx: int, turned: bool, flipped: bool) -> _Line:
    begin, slope = peak.begin, peak.slope
    if flipped:
        begin, slope = nx - 1 - begin, -slope
    # Cell c has its centre at pixel size c + (size - 1) / 2.
    half = 0.5 * (size - 1)
    x = size * (begin - slope * peak.first) + half - slope * half
    terms = np.array([x, 1000.0 * slope])
    return _Line(terms, peak.first * size, peak.last * size, turned, peak.significance)


def _follows(line: _Line, other: _Line, within_px: float) -> bool:
    """True if both ends of a line lie beside the other, or its continuation."""
    rows = np.array([line.first, line.last - 1], float)
    x = line.at(rows)
    if line.turned != other.turned:
        rows, x = x, rows
    return bool(np.all(np.abs(x - other.at(rows)) < within_px * other.stretch))


# Following a line through the image


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
class _Course:
    """A line followed to its ends: the ridge's height in each block (begins at ``rows``) and its error.

    ``within`` are the rows in which the line is inside the frame.
    """

    line: _Line
    rows: Integers
    heights: Doubles
    errors: Doubles
    across: _Profile
    within: tuple[int, int]

    @property
    def free(self) -> bool:
        """True if both ends are inside the frame."""
        return self.line.first > self.within[0] and self.line.last < self.within[1]


def _ribbon(image: Floats, use: Bools, line: _Line, window: int, block: int) -> _Ribbon:
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


def _follow(image: Floats, use: Bools, line: _Line, seeing_px: float) -> _Course | None:
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


def _too_stout(heights: Doubles, sigma: float, line: _Line, shape: tuple[int, ...]) -> bool:
    """True if not even a line across the whole frame would be slender enough for its width."""
    faint = float(np.nanmedian(heights)) < FAINT_SIGMA if not np.isnan(heights).all() else True
    elongation = FAINT_ELONGATION if faint else LEAST_ELONGATION
    return elongation * FWHM_PER_SIGMA * sigma / line.stretch > math.hypot(*shape)


def _searched(image: Floats, use: Bools, line: _Line, sigma: float) -> tuple[_Line, int] | None:
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


def _refined(line: _Line, ribbon: _Ribbon, sigma: float) -> tuple[_Line, float]:
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
    left, right = _reach(profile, 0.5)
    return _Profile(profile, float(left + right), top)


def _reach(profile: Doubles, level: float | Doubles) -> tuple[Any, Any]:
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


def _longer(line: _Line, begin: int, end: int, block: int, shape: tuple[int, ...]) -> _Line:
    """The line with half its length more at each end that is not known yet, within the frame."""
    low, high = _within(line, shape)
    more = max((end - begin) // 2, 4 * block)
    gap = max(GAP_ROWS, 2 * block)
    first = line.first if begin > line.first + gap else line.first - more
    last = line.last if end < line.last - gap else line.last + more
    return replace(line, first=max(first, low), last=min(last, high))


def _within(line: _Line, shape: tuple[int, ...]) -> tuple[int, int]:
    """The rows, half open, in which a line is inside the frame; those it has if there are none."""
    ny, nx = shape[::-1] if line.turned else shape
    x = line.at(np.arange(ny))
    rows = np.flatnonzero((x > -1) & (x < nx))
    return (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (line.first, line.last)


def _course(image: Floats, use: Bools, line: _Line, window: int, block: int, sigma: float) -> _Course | None:
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
    return _Course(line, ribbon.rows, across.top * heights, across.top * errors, across, (low, high))


def _fine_rows(typical: float, errors: Doubles, block: int) -> int:
    """The shortest blocks that still show the trail, to tell where it blinks."""
    significance = typical / float(np.nanmedian(errors))
    while block > FINE_ROWS and significance > 1.5 * BLOCK_SIGMA:
        block, significance = block // 2, significance / math.sqrt(2.0)
    return block


def _end(
    image: Floats,
    use: Bools,
    line: _Line,
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


# What is a trail, and what it covers


def _is_trail(course: _Course, seeing_px: float, threshold: float, least_length_px: float) -> bool:
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
        if line.significance < 1:
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


def _along_detector(line: _Line) -> bool:
    ends = line.at(np.array([line.first, line.last]))
    return abs(float(ends[1] - ends[0])) < math.tan(math.radians(AXIS_DEG)) * (line.last - line.first)


def _paint(course: _Course, shape: tuple[int, ...], edge_sigma: float) -> Bools:
    """True where the light of a trail exceeds the limit."""
    rows = _all_rows(course, shape)
    height = _smooth_heights(course, rows)
    limit = min(edge_sigma, FAINT_FRACTION * float(np.median(height[height > 0])))
    left, right = _reach(course.across.profile, limit / np.maximum(height, 1e-6))
    on = height > limit
    return _between(course, shape, rows, np.where(on, left, -1), np.where(on, right, -1))


def _corridor(course: _Course, shape: tuple[int, ...]) -> Bools:
    """True where a trail's light can be seen, its gaps included."""
    rows = _all_rows(course, shape)
    least = 0.3 / max(float(np.nanmax(course.heights)), 1.0)
    reach = max(1.5 * course.across.fwhm_px, *(float(one) for one in _reach(course.across.profile, least)))
    side = np.full(len(rows), reach)
    return _between(course, shape, rows, side, side)


def _all_rows(course: _Course, shape: tuple[int, ...]) -> Integers:
    # A wide trail that leaves the frame through its side covers a corner after its ridge has left.
    line, margin = course.line, course.across.half_window_px
    ny = shape[1] if line.turned else shape[0]
    first = line.first - (margin if line.first <= course.within[0] else 0)
    last = line.last + (margin if line.last >= course.within[1] else 0)
    return np.arange(max(0, first), min(ny, last))


def _between(course: _Course, shape: tuple[int, ...], rows: Integers, left: Doubles, right: Doubles) -> Bools:
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


def _smooth_heights(course: _Course, rows: Integers) -> Doubles:
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


def _described(course: _Course) -> Trail:
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
