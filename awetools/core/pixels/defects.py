"""Detector defects: hot pixels of a dark or bias, cold pixels of a flat, and columns that are off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BadPixels, BadValue
from .mask import Bit
from .smooth import (
    block_edges,
    block_statistics,
    fill_gaps,
    good_pixels,
    interpolate_blocks,
    median_filter,
)
from .stack import median
from .stats import clipped, row_medians

Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.int16]

# The level of a column is followed over so many blocks of rows when single pixels are sought.
COLUMN_BLOCKS = 8
SEGMENT_ROWS = 64
FINE_ROWS = 8
SIDE_COLUMNS, LEAST_SIDE = 8, 3
GOES_ON = 0.3
# The response is followed by medians over 9 pixels: a shadow of dust is wider, most clusters of dead
# pixels are not.
WINDOW_PX = 9
# What answers to less than this part of the light of the 32 pixels about it is dead, however large it is.
DEAD_RATIO = 0.5
CANDIDATES_AT_ONCE = 1 << 15
# Relative to what is usual, so that ratios to what has no light stay finite.
LEAST_LEVEL = np.float32(1e-3)


@dataclass(frozen=True, eq=False)
class Defects:
    """A mask (int16, bits of :class:`Bit`), the pixels set in it, and their part of the pixels that count."""

    mask: Mask
    count: int
    fraction: float


@dataclass(frozen=True)
class ColumnRun:
    """Part of a column that is off: 0-based column, first and last row, deviation in the unit of the image."""

    column: int
    first_row: int
    last_row: int
    deviation: float


@dataclass(frozen=True, eq=False)
class BadColumns:
    """A mask (HOT above, COLD below their neighbours), its count and fraction, and the runs it holds."""

    mask: Mask
    count: int
    fraction: float
    runs: tuple[ColumnRun, ...]


def hot_pixels(
    image: npt.NDArray[Any],
    use: Bools | None,
    noise: float | npt.NDArray[Any] | None = None,
    threshold_sigma: float = 5.0,
    size: int = 32,
    low_too: bool = False,
) -> Defects:
    """Pixels above their surroundings by ``threshold_sigma`` times the local noise, as Bit.HOT.

    ``image`` (ny, nx) of one amplifier (the level and noise of another would spoil
    those at the border), any unit; ``use`` is True where a pixel counts, the others and
    what is not finite are never marked. With ``low_too`` pixels as far below are marked
    as Bit.COLD. The surroundings are a smooth surface through
    the clipped medians of blocks of ``size`` pixels (an amplifier's glow falls off in
    some tens of pixels), plus the median of each column over 8 blocks of rows less that
    surface, so that a column that is off as a whole is not a column of hot pixels
    (:func:`bad_columns` finds it). The noise is the
    clipped scatter of the blocks about that, smooth as well: hot pixels do not raise it
    unless a quarter of the pixels is hot. ``noise`` (number or array that
    broadcasts, unit of the image), where given, is its lower limit: the noise model of the frame.

    Pixels equal to a constant image are not hot. ``BadPixels`` if too few pixels count,
    ``BadValue`` if the threshold is not positive.
    """
    if not threshold_sigma > 0:
        raise BadValue(f"hot pixels above {threshold_sigma} sigma: it must be more than 0")
    good = good_pixels(image, use)
    rest = np.where(good, image, 0).astype(np.float32)
    largest = float(np.abs(rest).max(initial=0))
    blocks = block_statistics(rest, good, size)
    rest -= interpolate_blocks(fill_gaps(blocks.median), blocks, image.shape)
    edges = block_edges(image.shape[0], COLUMN_BLOCKS * size)
    for first, last, medians in zip(edges[:-1], edges[1:], _column_medians(rest, good, edges), strict=True):
        rest[first:last] -= np.nan_to_num(medians).astype(np.float32)
    limit = _local_noise(rest, good, size)
    if noise is not None:
        limit = np.maximum(limit, np.asarray(noise, np.float32))
    # Where nothing scatters the rounding of the surface must not make defects.
    limit = np.maximum(limit, np.float32(1e-6 * largest))
    limit *= np.float32(threshold_sigma)
    mask = np.where(good & (rest > limit), np.int16(Bit.HOT), np.int16(0))
    if low_too:
        mask[good & (rest < -limit)] = Bit.COLD
    return _defects(mask, int(good.sum()))


def cold_pixels(
    flat: npt.NDArray[Any],
    use: Bools | None,
    low_ratio: float,
    high_ratio: float,
    noise: float | npt.NDArray[Any] | None = None,
    threshold_sigma: float = 5.0,
    size: int = 32,
) -> Defects:
    """Pixels that answer to light otherwise than those about them, darker or brighter, as Bit.COLD.

    ``flat`` (ny, nx) of one amplifier, relative response of any scale; ``use`` as for
    :func:`hot_pixels`. A pixel is cold if its ratio to the median of the 9 x 9 pixels
    about it lies outside ``low_ratio`` to ``high_ratio`` and its distance from 1 is more
    than ``threshold_sigma`` times the noise: the clipped scatter of the ratios in
    blocks of ``size`` pixels, or ``noise`` (number or array that broadcasts, unit of the flat:
    that of the master) where that is more. The median follows vignetting and the shadows of
    dust, whose edges are some pixels wide and which flatten out; so it does a blemish
    that fills more than half of the window. Below half of the level of the block about
    it a pixel is cold whatever its neighbours are.

    Only pixels that differ from the running median of 9 in their row, or from the
    level of their block, by half of the limits are looked at: the others cannot be cold.
    A flat without light is all cold. ``BadPixels`` if too few pixels count, ``BadValue``
    if the limits do not enclose 1 or the threshold is not positive.
    """
    if not (low_ratio < 1 < high_ratio and threshold_sigma > 0):
        raise BadValue(
            f"cold pixels outside ratios {low_ratio} to {high_ratio} by {threshold_sigma} sigma: "
            "the ratios must enclose 1 and the threshold be more than 0"
        )
    good = good_pixels(flat, use)
    values = np.where(good, flat, 0).astype(np.float32)
    level = block_level(values, good, size)
    if not level.max() > 0:
        return _defects(np.where(good, np.int16(Bit.COLD), np.int16(0)), int(good.sum()))
    level = np.maximum(level, LEAST_LEVEL * level.max())
    # Relative to the level, slopes do not make defects of the pixels at the edges.
    ratio = values / level
    np.copyto(ratio, np.float32(1), where=~good)
    along = np.maximum(_row_running_median(ratio), LEAST_LEVEL)
    relative = ratio / along - 1
    limit = _local_noise(relative, good, size)
    if noise is not None:
        limit = np.maximum(limit, np.asarray(noise, np.float32) / level)
    limit *= np.float32(threshold_sigma)
    below = np.maximum(limit, np.float32(1 - low_ratio))
    above = np.maximum(limit, np.float32(high_ratio - 1))
    half = np.float32(0.5)
    look = (relative < -half * below) | (relative > half * above) | (ratio - 1 < -below) | (ratio - 1 > above)
    rows, columns = np.nonzero(look & good)
    here = ratio[rows, columns]
    away = here / np.maximum(_window_medians(ratio, good, rows, columns), LEAST_LEVEL) - 1
    cold = (away < -below[rows, columns]) | (away > above[rows, columns])
    cold |= here < np.minimum(DEAD_RATIO, 1 - limit[rows, columns])
    mask = np.zeros(flat.shape, np.int16)
    mask[rows[cold], columns[cold]] = Bit.COLD
    return _defects(mask, int(good.sum()))


def block_level(image: npt.NDArray[Any], good: Bools, size: int) -> Floats:
    """A smooth surface through the clipped medians of blocks of ``size`` pixels, in the unit of the image.

    ``image`` and ``good`` (ny, nx); the result float32. ``BadPixels`` if no block has enough pixels.
    """
    blocks = block_statistics(image, good, size)
    return interpolate_blocks(fill_gaps(blocks.median), blocks, image.shape)


def bad_columns(
    image: npt.NDArray[Any],
    use: Bools | None,
    threshold_sigma: float = 5.0,
    low: float = 0.0,
    high: float = 0.0,
) -> BadColumns:
    """Columns, or parts of columns, whose median stands off from the columns on both sides.

    ``image`` (ny, nx) of one amplifier, any unit; ``use`` as for :func:`hot_pixels`. The
    median of a column over a segment of 64 rows is compared with the medians of the 8
    columns to its left and of the 8 to its right, and the smaller of the two distances
    counts, if they have one sign: a column on a ramp lies between its sides and is not
    off. (The outermost 3 columns have one side only.) A segment is off by more than
    ``threshold_sigma`` times the scatter from column to column, which holds the noise
    and the detector's harmless structure, and lies below ``low`` (0 or less) or above
    ``high``, in the unit of the image. Two segments in a row (one, where the image
    has only one) make a run; it bridges one that is not off, goes on over segments that
    still show 0.3 of its deviation, and ends to 8 rows; an end within 8 rows of the edge
    is the edge. Of a group of columns wider than 4 the middle is found, not its slopes.
    Bit.HOT above, Bit.COLD below.

    ``BadPixels`` if no pixel counts, ``BadValue`` if the threshold is not positive.
    """
    if not threshold_sigma > 0:
        raise BadValue(f"columns off by {threshold_sigma} sigma: it must be more than 0")
    good = good_pixels(image, use)
    if not good.any():
        raise BadPixels("columns of an image without a pixel that is finite and not masked")
    values = np.where(good, image, 0).astype(np.float32)
    edges = block_edges(image.shape[0], SEGMENT_ROWS)
    medians = _column_medians(values, good, edges)
    left, right = _side_medians(medians)
    off = _distance(medians, left, right)
    around = medians - off
    scatter = _scatter(medians, left, right)
    limit = threshold_sigma * scatter[:, None]
    side = np.where(off > np.maximum(limit, high), 1.0, np.where(off < np.minimum(-limit, low), -1.0, 0.0))
    mask = np.zeros(image.shape, np.int16)
    runs = []
    for column in np.flatnonzero((side != 0).any(axis=0)):
        for begin, end, deviation in _runs(side[:, column], off[:, column], scatter):
            line = np.where(good[:, column], values[:, column], np.nan) - np.repeat(
                around[:, column], np.diff(edges)
            )
            first, last = _ends(line, int(edges[begin]), int(edges[end]), deviation)
            runs.append(ColumnRun(int(column), first, last - 1, deviation))
            mask[first:last, column] |= np.int16(Bit.HOT if deviation > 0 else Bit.COLD)
    mask[~good] = 0
    found = _defects(mask, int(good.sum()))
    return BadColumns(found.mask, found.count, found.fraction, tuple(runs))


def _defects(mask: Mask, pixels: int) -> Defects:
    count = int(np.count_nonzero(mask))
    return Defects(mask, count, count / max(pixels, 1))


def _local_noise(rest: Floats, good: Bools, size: int) -> Floats:
    """Clipped scatter of what is good in blocks of ``size`` pixels, smooth, (ny, nx)."""
    blocks = block_statistics(rest, good, size)
    scatter = interpolate_blocks(median_filter(fill_gaps(blocks.stdev)), blocks, rest.shape)
    return np.maximum(scatter, np.float32(0))


def _row_running_median(values: Floats) -> Floats:
    """Median of each pixel and its neighbours in the row, 9 in all, mirrored at the ends."""
    nx = values.shape[1]
    reach = WINDOW_PX // 2
    padded = np.pad(values, ((0, 0), (reach, reach)), mode="symmetric")
    running: Floats = median([padded[:, k : k + nx] for k in range(WINDOW_PX)])
    return running


def _window_medians(
    values: Floats, good: Bools, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]
) -> Floats:
    """Medians of what is good in the 9 x 9 pixels about some pixels, fewer at the edges."""
    ny, nx = values.shape
    reach = np.arange(WINDOW_PX) - WINDOW_PX // 2
    down, across = (part.ravel() for part in np.meshgrid(reach, reach, indexing="ij"))
    medians = np.empty(len(rows), np.float32)
    for first in range(0, len(rows), CANDIDATES_AT_ONCE):
        part = slice(first, first + CANDIDATES_AT_ONCE)
        y, x = rows[part, None] + down, columns[part, None] + across
        inside = (y >= 0) & (y < ny) & (x >= 0) & (x < nx)
        y, x = np.clip(y, 0, ny - 1), np.clip(x, 0, nx - 1)
        medians[part] = row_medians(values[y, x], inside & good[y, x])
    return medians


def _column_medians(values: Floats, good: Bools, edges: npt.NDArray[np.int64]) -> Doubles:
    """Medians of the columns between the edges; nan where fewer than a quarter of the rows count."""
    result = np.empty((len(edges) - 1, values.shape[1]))
    for row, first, last in zip(result, edges[:-1], edges[1:], strict=True):
        keep = good[first:last].T
        row[:] = row_medians(values[first:last].T, keep)
        row[4 * keep.sum(axis=1) < last - first] = np.nan
    return result


def _side_medians(rows: Doubles) -> tuple[Doubles, Doubles]:
    """Medians of the 8 columns to the left and to the right of each; nan where fewer than 3 are known."""
    gap = np.full((rows.shape[0], SIDE_COLUMNS), np.nan)
    padded = np.concatenate([gap, rows, gap], axis=1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, SIDE_COLUMNS, axis=1)
    known = ~np.isnan(windows)
    medians = row_medians(
        np.where(known, windows, 0).reshape(-1, SIDE_COLUMNS), known.reshape(-1, SIDE_COLUMNS)
    ).reshape(known.shape[:2])
    medians[known.sum(axis=2) < LEAST_SIDE] = np.nan
    nx = rows.shape[1]
    return medians[:, :nx].astype(np.float64), medians[:, SIDE_COLUMNS + 1 :].astype(np.float64)


def _distance(medians: Doubles, left: Doubles, right: Doubles) -> Doubles:
    """Signed distance from the nearer side, 0 between the two; what has one side is compared with that."""
    a, b = medians - left, medians - right
    a, b = np.where(np.isnan(a), b, a), np.where(np.isnan(b), a, b)
    nearer = np.where(np.abs(a) < np.abs(b), a, b)
    distance: Doubles = np.nan_to_num(np.where(a * b > 0, nearer, 0.0))
    return distance


def _scatter(medians: Doubles, left: Doubles, right: Doubles) -> Doubles:
    """Clipped scatter of each segment's medians about the mean of their two sides."""
    about = medians - 0.5 * (left + right)
    scatter = np.nan_to_num(np.array([clipped(row).stdev for row in about]))
    # Where nothing scatters rounding must not make defects.
    level = np.nan_to_num(np.array([clipped(row).median for row in medians]))
    least: Doubles = np.maximum(scatter, 1e-6 * np.abs(level))
    return least


def _runs(side: Doubles, off: Doubles, scatter: Doubles) -> list[tuple[int, int, float]]:
    """Runs of segments on one side of their neighbours: first, the one after the last, mean deviation."""
    runs = []
    for sign in (1.0, -1.0):
        flagged = side == sign
        bridged = flagged.copy()
        bridged[1:-1] |= flagged[:-2] & flagged[2:]
        wide = np.zeros_like(flagged)
        for begin, end in _stretches(bridged):
            if end - begin >= min(2, len(side)):
                begin, end = _reach(off * sign, scatter, begin, end)
                wide[begin:end] = True
        runs += [(begin, end, float(off[begin:end].mean())) for begin, end in _stretches(wide)]
    return runs


def _stretches(flags: Bools) -> list[tuple[int, int]]:
    """Where stretches of True begin and end."""
    steps = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8))).tolist()
    return list(zip(steps[0::2], steps[1::2], strict=True))


def _reach(off: Doubles, scatter: Doubles, begin: int, end: int) -> tuple[int, int]:
    """The run with the segments beside it that show the same, weaker."""
    shows = off > np.maximum(GOES_ON * float(off[begin:end].mean()), 2 * scatter)
    while begin > 0 and shows[begin - 1]:
        begin -= 1
    while end < len(off) and shows[end]:
        end += 1
    return begin, end


def _ends(line: Doubles, first: int, last: int, deviation: float) -> tuple[int, int]:
    """First row of a run and the row after its last, to 8 rows; ``line`` is the column less its surroundings."""
    ny = len(line)
    pieces = np.full((-(-ny // FINE_ROWS), FINE_ROWS), np.nan)
    pieces.ravel()[:ny] = line
    levels = row_medians(pieces, ~np.isnan(pieces))
    # A piece without a pixel neither ends a run nor makes it longer.
    off = (levels * np.sign(deviation) > 0.5 * abs(deviation)) | np.isnan(levels)
    begin = _begin(off, first // FINE_ROWS)
    end = len(off) - _begin(off[::-1], len(off) - -(-last // FINE_ROWS))
    first, last = begin * FINE_ROWS, min(end * FINE_ROWS, ny)
    return (0 if first <= FINE_ROWS else first), (ny if last >= ny - FINE_ROWS else last)


def _begin(off: Bools, start: int) -> int:
    """The first piece of a run that begins about ``start``, one segment up or down at most."""
    reach = SEGMENT_ROWS // FINE_ROWS
    highest, lowest = min(start + reach, len(off) - 1), max(start - reach, 0)
    while start < highest and not off[start]:
        start += 1
    while start > lowest and off[start - 1]:
        start -= 1
    return start
