"""Smooth surfaces under images: block statistics, sky background, low-pass of flats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BadPixels, BadValue, Mixture
from .kernels import kernel
from .stats import truncation

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

CLIP_SIGMA = 3.0
# A block has enough pixels in so many of its rows.
SKY_ROWS = 16
CLIP_ITERATIONS = 8
# Mean and median closer than this, in sigma, give the mode.
MODE_REACH = 0.3
QUARTILES_PER_SIGMA = 1.348979500392163
# A block with less than this part of its pixels says too little, and is filled from its neighbours.
LEAST_FRACTION = 0.05
CHUNK_PIXELS = 1 << 19


@dataclass(frozen=True, eq=False)
class Blocks:
    """Clipped statistics of the blocks of an image, each (blocks in y, blocks in x), float64.

    ``median``, ``mode`` and ``stdev`` in the unit of the image, nan where a block has
    too few pixels; ``count`` pixels kept; ``y`` and ``x`` the centres of the blocks,
    0-based pixels.
    """

    median: Doubles
    mode: Doubles
    stdev: Doubles
    count: npt.NDArray[np.int64]
    y: Doubles
    x: Doubles


def block_statistics(image: Array, use: Bools | None, size: int, step: int = 1) -> Blocks:
    """Clipped median, mode and scatter of the image in blocks of about ``size`` pixels a side.

    ``image`` (ny, nx), any unit; ``use`` (ny, nx) is True where a pixel counts (None:
    everywhere), what is not finite never counts. The axes are cut into whole numbers of
    blocks whose sizes differ by one pixel at most. Each block is clipped at 3 sigma
    about its median until nothing changes, from a start by its quartiles; ``stdev`` is
    corrected for that cut. The median is interpolated within tied values, so that the
    blocks of an integer image differ by less than 1. ``mode`` is 2.5 median - 1.5 mean
    where the two are closer than 0.3 sigma, else the median (Bertin and Arnouts 1996,
    A&AS 117, 393, after Kendall and Stuart). Of the rows every ``step``-th counts, and the
    centres are those of the rows that count. ``BadValue`` for a size below 2.
    """
    if size < 2:
        raise BadValue(f"blocks of {size} pixels: they need 2 at least")
    _check(image, use)
    ny, nx = image.shape
    # The rows that count, and where the blocks begin among them.
    y_edges, x_edges = -(-block_edges(ny, size) // step), block_edges(nx, size)
    y_centres: Doubles = np.asarray(0.5 * step * (y_edges[:-1] + y_edges[1:] - 1), np.float64)
    shape = (len(y_edges) - 1, len(x_edges) - 1)
    median, mode, stdev = (np.full(shape, np.nan) for _ in range(3))
    count = np.zeros(shape, np.int64)
    compiled = kernel("smooth")
    if compiled is not None:
        keep = None if use is None else np.ascontiguousarray(use)
        values = np.ascontiguousarray(image, np.float32)
        arrays = (values, keep, y_edges, x_edges, median, mode, stdev, count)
        cut = truncation(-CLIP_SIGMA, CLIP_SIGMA)
        compiled.blocks(arrays, CLIP_SIGMA, QUARTILES_PER_SIGMA, cut, MODE_REACH, LEAST_FRACTION, step)
        return Blocks(median, mode, stdev, count, y_centres, _centres(x_edges))
    for j in range(shape[0]):
        rows = slice(step * int(y_edges[j]), step * int(y_edges[j + 1]), step)
        strip = np.array(image[rows], dtype=np.float32)
        strip[~np.isfinite(strip) if use is None else ~(use[rows] & np.isfinite(strip))] = np.inf
        median[j], mode[j], stdev[j], count[j] = _clip_rows(_gather(strip, x_edges))
    return Blocks(median, mode, stdev, count, y_centres, _centres(x_edges))


def block_median(image: Array, use: Bools | None, size: int) -> Floats:
    """Coarse map of clipped medians, one value a block of about ``size`` pixels a side.

    Arguments and method as :func:`block_statistics`; blocks without enough pixels take
    the mean of their filled neighbours. Float32, unit of the image. ``BadPixels`` if no
    block has enough.
    """
    return fill_gaps(block_statistics(image, use, size).median).astype(np.float32)


def background(image: Array, use: Bools | None, size: int = 64) -> Floats:
    """Smooth sky under an image of stars and galaxies.

    ``image`` and ``use`` as for :func:`block_statistics`; the result is float32, of the
    shape and unit of the image, defined under masked pixels too. The modes of the
    blocks, gaps filled, go through a 3 x 3 median filter (its edges continue the slope,
    so a linear gradient passes unchanged) and are interpolated by a cubic with the
    slopes of the neighbours, in a straight line beyond the outermost centres: no ringing
    at edges, exact for a linear gradient (but for blocks of which a part is masked: their
    mode is that of the rest). Objects much smaller than a block leave
    nothing in it; larger ones must be masked. Of blocks of more than 16 rows every second,
    third, ... counts, so that 16 do: at 64 pixels the sky is then good to some 0.03 of the noise of a
    pixel. ``BadPixels`` if no block has enough pixels.
    """
    blocks = block_statistics(image, use, size, step=max(1, size // SKY_ROWS))
    return interpolate_blocks(median_filter(fill_gaps(blocks.mode)), blocks, image.shape)


def interpolate_blocks(coarse: Doubles, blocks: Blocks, shape: tuple[int, ...]) -> Floats:
    """A map of one value a block (no nan), interpolated to an image of ``shape``, float32.

    Cubic Hermite with finite-difference slopes on the centres of ``blocks`` (Catmull and
    Rom 1974), straight beyond the outermost ones: linear maps come back exactly.
    """
    ny, nx = shape
    at_x, weight_x = _cubic(blocks.x, nx)
    wide = np.zeros((coarse.shape[0], nx))
    for k in range(4):
        wide += coarse[:, at_x[:, k]] * weight_x[:, k]
    at_y, weight_y = _cubic(blocks.y, ny)
    result = np.empty((ny, nx), np.float32)
    compiled = kernel("smooth")
    if compiled is not None:
        compiled.mix(wide, np.ascontiguousarray(at_y, np.int64), np.ascontiguousarray(weight_y), result)
        return result
    for rows in _chunks(ny, nx):
        part = wide[at_y[rows, 0]] * weight_y[rows, 0, None]
        for k in range(1, 4):
            part += wide[at_y[rows, k]] * weight_y[rows, k, None]
        result[rows] = part
    return result


def fill_gaps(coarse: Doubles) -> Doubles:
    """The map with each nan replaced by the mean of its filled neighbours, from the rim of a gap inwards.

    The least-squares plane is taken off before and put back after, so that a linear
    gradient continues through a gap. ``BadPixels`` if there is nothing but nan.
    """
    known = ~np.isnan(coarse)
    if known.all():
        return coarse
    if not known.any():
        raise BadPixels("no block of the image has enough pixels that are finite and not masked")
    ny, nx = coarse.shape
    offset, slope_y, slope_x = _plane(coarse, known)
    plane = offset + slope_y * np.arange(ny)[:, None] + slope_x * np.arange(nx)
    result = coarse - plane
    while np.isnan(result).any():
        padded = np.pad(result, 1, constant_values=np.nan)
        around = [padded[1 + j : 1 + j + result.shape[0], 1 + i : 1 + i + result.shape[1]] for j, i in _RING]
        number = np.sum([~np.isnan(one) for one in around], axis=0)
        total = np.sum([np.nan_to_num(one) for one in around], axis=0)
        gap = np.isnan(result) & (number > 0)
        result[gap] = total[gap] / number[gap]
    filled: Doubles = np.where(known, coarse, result + plane)
    return filled


def median_filter(coarse: Doubles) -> Doubles:
    """3 x 3 median of a small map (no nan); beyond the edges the map continues with its slope."""
    padded = coarse
    for axis in (0, 1):
        width = [(1, 1) if axis == each else (0, 0) for each in (0, 1)]
        if coarse.shape[axis] > 1:
            padded = np.pad(padded, width, mode="reflect", reflect_type="odd")
        else:
            padded = np.pad(padded, width, mode="edge")
    ny, nx = coarse.shape
    around = [padded[1 + j : 1 + j + ny, 1 + i : 1 + i + nx] for j, i in (*_RING, (0, 0))]
    filtered: Doubles = np.sort(np.stack(around), axis=0)[4]
    return filtered


def lowpass(image: Array, use: Bools | None, size: int) -> Floats:
    """Smooth version of an image: a triangular window ``size`` pixels wide at half height.

    ``image`` and ``use`` as for :func:`block_statistics`; the result is float32, of the
    shape and unit of the image. What does not count is left out of the mean (normalised
    convolution), and the edges are mirrored; the least-squares plane is taken off before
    and put back after, so that a constant and a linear gradient come back unchanged, at
    the edges and beside masked regions too. The window is a running mean applied twice
    along each axis (its response is a squared sinc: never negative, so edges do not
    ring), float64 sums. Where a window holds no pixel at all the next larger one, of
    twice the size, is taken. An even ``size`` counts as the next odd one.

    ``BadPixels`` if no pixel counts, ``BadValue`` for a size below 1.
    """
    if size < 1:
        raise BadValue(f"a low-pass of {size} pixels: it needs 1 at least")
    good = good_pixels(image, use)
    if not good.any():
        raise BadPixels("low-pass of an image without a pixel that is finite and not masked")
    result = np.empty(image.shape, np.float32)
    offset, slope_y, slope_x = _plane(image, good)
    ny, nx = image.shape
    along_y, along_x = offset + slope_y * np.arange(ny)[:, None], slope_x * np.arange(nx)
    rest = np.where(good, image, 0).astype(np.float64)
    for rows in _chunks(ny, nx):
        rest[rows] -= along_y[rows] + along_x
        rest[rows] *= good[rows]
    _fill_lowpass(result, rest, good, size | 1)
    for rows in _chunks(ny, nx):
        result[rows] = result[rows] + along_y[rows] + along_x
    return result


_RING = tuple((j, i) for j in (-1, 0, 1) for i in (-1, 0, 1) if j or i)


def _check(image: Array, use: Bools | None) -> None:
    if image.ndim != 2:
        raise Mixture(f"an image of {image.ndim} dimensions: it must have 2")
    if use is not None and use.shape != image.shape:
        raise Mixture(f"the mask is {use.shape}, its image {image.shape}")


def good_pixels(image: Array, use: Bools | None) -> Bools:
    """True where the image is finite and ``use`` is True; both (ny, nx). ``Mixture`` if they do not fit."""
    _check(image, use)
    finite: Bools = np.isfinite(image)
    return finite if use is None else finite & use


def _chunks(ny: int, nx: int) -> Iterator[slice]:
    height = max(1, CHUNK_PIXELS // max(nx, 1))
    for first in range(0, ny, height):
        yield slice(first, min(first + height, ny))


# Blocks


def block_edges(length: int, size: int) -> npt.NDArray[np.int64]:
    """First pixels of blocks of about ``size`` along an axis, and its length: blocks differ by 1 at most."""
    number = max(1, round(length / size))
    return (np.arange(number + 1) * length) // number


def _centres(edges: npt.NDArray[np.int64]) -> Doubles:
    centres: Doubles = 0.5 * (edges[:-1] + edges[1:] - 1).astype(np.float64)
    return centres


def _gather(strip: Floats, edges: npt.NDArray[np.int64]) -> Floats:
    """The blocks of a strip as rows, filled up with infinity."""
    height = strip.shape[0]
    rows = np.full((len(edges) - 1, height * int(np.diff(edges).max())), np.inf, np.float32)
    for row, first, last in zip(rows, edges[:-1], edges[1:], strict=True):
        block = strip[:, first:last]
        row[: block.size].reshape(block.shape)[...] = block
    return rows


def _clip_rows(rows: Floats) -> tuple[Doubles, Doubles, Doubles, npt.NDArray[np.int64]]:
    """Clipped median, mode, stdev and number of each row; infinity stands for a pixel that is not there."""
    # Zeros lose their sign, which has no place in the order.
    rows += np.float32(0)
    rows.sort(axis=1)
    line = np.arange(len(rows))
    known = np.isfinite(rows).sum(axis=1)
    enough = known >= max(4, LEAST_FRACTION * rows.shape[1])
    rows[~enough] = 0
    known[~enough] = rows.shape[1]
    reference = rows[line, known // 2].astype(np.float64)
    sums = _RunningSums(rows, reference)
    first, last = np.zeros_like(known), known
    scale = (rows[line, (3 * known) // 4] - rows[line, known // 4]).astype(np.float64) / QUARTILES_PER_SIGMA
    scale = np.where(scale > 0, scale, sums.mean_and_stdev(first, last)[1])
    for iteration in range(CLIP_ITERATIONS):
        centre = _middle(rows, first, last)
        low = (centre - CLIP_SIGMA * scale).astype(np.float32)[:, None]
        high = (centre + CLIP_SIGMA * scale).astype(np.float32)[:, None]
        begin, end = (rows < low).sum(axis=1), (rows <= high).sum(axis=1)
        begin, end = np.where(end > begin, begin, first), np.where(end > begin, end, last)
        # The first time the limits are those of the quartiles; after that a row that stays so stays for good.
        if iteration and (begin == first).all() and (end == last).all():
            break
        first, last = begin, end
        scale = sums.mean_and_stdev(first, last)[1] / truncation(-CLIP_SIGMA, CLIP_SIGMA)
    mean, stdev = sums.mean_and_stdev(first, last)
    stdev /= truncation(-CLIP_SIGMA, CLIP_SIGMA)
    median = _tied_middle(rows, first, last)
    mode = np.where(np.abs(mean - median) < MODE_REACH * stdev, 2.5 * median - 1.5 * mean, median)
    for plane in (median, mode, stdev):
        plane[~enough] = np.nan
    return median, mode, stdev, np.where(enough, last - first, 0)


class _RunningSums:
    """Sums of sorted rows up to every place, so that the moments of any range are two differences."""

    def __init__(self, rows: Floats, reference: Doubles) -> None:
        away = np.zeros((rows.shape[0], rows.shape[1] + 1))
        np.subtract(rows, reference[:, None], out=away[:, 1:], where=np.isfinite(rows))
        self.reference = reference
        self.first = np.cumsum(away, axis=1)
        self.second = np.cumsum(np.square(away, out=away), axis=1)

    def mean_and_stdev(
        self, begin: npt.NDArray[np.int64], end: npt.NDArray[np.int64]
    ) -> tuple[Doubles, Doubles]:
        line, n = np.arange(len(begin)), end - begin
        shift = (self.first[line, end] - self.first[line, begin]) / n
        square = self.second[line, end] - self.second[line, begin]
        variance = (square - n * shift * shift) / np.maximum(n - 1, 1)
        return self.reference + shift, np.sqrt(np.maximum(variance, 0))


def _middle(rows: Floats, first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]) -> Doubles:
    line, n = np.arange(len(rows)), last - first
    return 0.5 * (rows[line, first + (n - 1) // 2].astype(np.float64) + rows[line, first + n // 2])


def _tied_middle(rows: Floats, first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]) -> Doubles:
    """Medians of sorted rows between two places, interpolated within runs of equal values."""
    line = np.arange(len(rows))
    middle = _middle(rows, first, last)
    value = middle.astype(np.float32)[:, None]
    begin, end = (rows < value).sum(axis=1), (rows <= value).sum(axis=1)
    tied = (begin > first) & (end < last) & (end > begin + 1)
    before = rows[line, np.maximum(begin - 1, 0)].astype(np.float64)
    after = rows[line, np.minimum(end, rows.shape[1] - 1)].astype(np.float64)
    low = np.where(tied, 0.5 * (before + middle), middle)
    high = np.where(tied, 0.5 * (middle + after), middle)
    part: Doubles = (0.5 * (first + last) - begin) / np.maximum(end - begin, 1)
    return low + (high - low) * part


# Interpolation


def _cubic(centres: Doubles, length: int) -> tuple[npt.NDArray[np.int64], Doubles]:
    """For each pixel the four centres it depends on, and their weights."""
    n = len(centres)
    at = np.arange(length, dtype=np.float64)
    if n == 1:
        return np.zeros((length, 4), np.int64), np.broadcast_to([0.0, 1.0, 0.0, 0.0], (length, 4)).copy()
    left = np.clip(np.searchsorted(centres, at, side="right") - 1, 0, n - 2)
    index = np.clip(left[:, None] + np.arange(-1, 3), 0, n - 1)
    step = centres[left + 1] - centres[left]
    t = (at - centres[left]) / step
    weight = np.zeros((length, 4))
    inside = (t >= 0) & (t <= 1)
    weight[:, 1], weight[:, 2] = 1 - t, t
    h00, h01 = (1 + 2 * t) * (1 - t) ** 2, t * t * (3 - 2 * t)
    h10, h11 = t * (1 - t) ** 2 * step, -t * t * (1 - t) * step
    weight[:, 1], weight[:, 2] = np.where(inside, h00, 1 - t), np.where(inside, h01, t)
    # Slope at a centre: over its two neighbours, at the outermost ones to the only neighbour.
    for slope, column in ((h10, 1), (h11, 2)):
        before, after = np.maximum(left + column - 2, 0), np.minimum(left + column, n - 1)
        factor = np.where(inside, slope / (centres[after] - centres[before]), 0)
        rows = np.arange(length)
        weight[rows, after - left + 1] += factor
        weight[rows, before - left + 1] -= factor
    return index, weight


# Low-pass


def _plane(image: Array, good: Bools) -> tuple[float, float, float]:
    """Least-squares plane through what is good: value at (0, 0) and slopes a pixel."""
    ny, nx = image.shape
    y, x = np.arange(ny) - 0.5 * (ny - 1), np.arange(nx) - 0.5 * (nx - 1)
    by_row, by_column = np.zeros((2, ny)), np.zeros((2, nx))
    cross = 0.0
    reference = float(image[np.unravel_index(int(good.argmax()), good.shape)])
    for rows in _chunks(ny, nx):
        keep = good[rows]
        value = np.where(keep, image[rows], reference).astype(np.float64) - reference
        by_row[0, rows], by_row[1, rows] = keep.sum(axis=1), value.sum(axis=1)
        by_column[0] += keep.sum(axis=0)
        by_column[1] += value.sum(axis=0)
        cross += float((y[rows] * np.where(keep, x, 0).sum(axis=1)).sum())
    n = by_row[0].sum()
    sy, sx = (y * by_row[0]).sum(), (x * by_column[0]).sum()
    syy, sxx = (y * y * by_row[0]).sum(), (x * x * by_column[0]).sum()
    matrix = np.array([[n, sy, sx], [sy, syy, cross], [sx, cross, sxx]])
    right = np.array([by_row[1].sum(), (y * by_row[1]).sum(), (x * by_column[1]).sum()])
    # Scaled to equal diagonals, so that a slope that the pixels do not determine is seen and set to 0.
    norm = np.sqrt(np.maximum(np.diag(matrix), 1e-300))
    solution = np.linalg.lstsq(matrix / np.outer(norm, norm), right / norm, rcond=1e-10)[0]
    level, slope_y, slope_x = solution / norm
    offset = reference + level - slope_y * 0.5 * (ny - 1) - slope_x * 0.5 * (nx - 1)
    return float(offset), float(slope_y), float(slope_x)


def _fill_lowpass(result: Floats, rest: Doubles, good: Bools, width: int) -> None:
    """Normalised running means of ``rest`` (0 where not good), in wider windows where there is nothing."""
    if good.all():
        total = _running_sums(rest, width)
        total /= float(width) ** 4
        result[...] = total
        return
    todo = np.ones(result.shape, np.bool_)
    while True:
        weight = _running_sums(good.astype(np.float64), width)
        # Sums of ones are whole numbers, exact in float64: no pixel at all is exactly 0.
        ready = todo & (weight > 0.5)
        total = _running_sums(rest, width)
        result[ready] = total[ready] / weight[ready]
        todo &= ~ready
        if not todo.any():
            return
        width = 2 * width + 1


def _running_sums(values: Doubles, width: int) -> Doubles:
    """Sums over ``width`` pixels, twice along each axis, the array mirrored at its edges."""
    result = values.copy()
    ny, nx = result.shape
    for rows in _chunks(ny, nx):
        for _ in range(2):
            result[rows] = _sums_along_rows(result[rows], width)
    for columns in _chunks(nx, ny):
        part = np.ascontiguousarray(result[:, columns].T)
        for _ in range(2):
            part = _sums_along_rows(part, width)
        result[:, columns] = part.T
    return result


def _sums_along_rows(values: Doubles, width: int) -> Doubles:
    half = width // 2
    running = np.cumsum(np.pad(values, ((0, 0), (half + 1, half)), mode="symmetric"), axis=1)
    sums: Doubles = running[:, width:] - running[:, :-width]
    return sums
