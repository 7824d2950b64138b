"""Smooth surfaces under images: block statistics, sky background, low-pass of flats."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from awetools.core.errors import BadPixels, BadValue, Mixture
from awetools.core.pixels.stats import truncation

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

CLIP_SIGMA = 3.0
CLIP_ITERATIONS = 8
QUARTILES_PER_SIGMA = 1.348979500392163
# A block with less than this part of its pixels says too little, and is filled from its neighbours.
LEAST_FRACTION = 0.05
CHUNK_PIXELS = 1 << 19


class Blocks(NamedTuple):
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


def block_statistics(image: Array, use: Bools | None, size: int) -> Blocks:
    """Clipped median, mode and scatter of the image in blocks of about ``size`` pixels a side.

    ``image`` (ny, nx), any unit; ``use`` (ny, nx) is True where a pixel counts (None:
    everywhere), what is not finite never counts. The axes are cut into whole numbers of
    blocks whose sizes differ by one pixel at most. Each block is clipped at 3 sigma
    about its median until nothing changes, from a start by its quartiles; ``stdev`` is
    corrected for that cut. The median is interpolated within tied values, so that the
    blocks of an integer image differ by less than 1. ``mode`` is 2.5 median - 1.5 mean
    where the two are closer than 0.3 sigma, else the median (Bertin and Arnouts 1996,
    A&AS 117, 393, after Kendall and Stuart). ``BadValue`` for a size below 2.
    """
    if size < 2:
        raise BadValue(f"blocks of {size} pixels: they need 2 at least")
    _check(image, use)
    ny, nx = image.shape
    y_edges, x_edges = _edges(ny, size), _edges(nx, size)
    shape = (len(y_edges) - 1, len(x_edges) - 1)
    planes = [np.full(shape, np.nan) for _ in range(3)]
    count = np.zeros(shape, np.int64)
    for j in range(shape[0]):
        rows = slice(int(y_edges[j]), int(y_edges[j + 1]))
        strip = np.array(image[rows], dtype=np.float32)
        strip[~np.isfinite(strip) if use is None else ~(use[rows] & np.isfinite(strip))] = np.inf
        *values, count[j] = _clip_rows(_gather(strip, x_edges))
        for plane, value in zip(planes, values, strict=True):
            plane[j] = value
    centres = [0.5 * (edges[:-1] + edges[1:] - 1) for edges in (y_edges, x_edges)]
    return Blocks(*planes, count, *centres)


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
    at edges, exact for a linear gradient. Objects much smaller than a block leave
    nothing in it; larger ones must be masked. ``BadPixels`` if no block has enough pixels.
    """
    blocks = block_statistics(image, use, size)
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
    for rows in _chunks(ny, nx):
        part = wide[at_y[rows, 0]] * weight_y[rows, 0, None]
        for k in range(1, 4):
            part += wide[at_y[rows, k]] * weight_y[rows, k, None]
        result[rows] = part
    return result


def fill_gaps(coarse: Doubles) -> Doubles:
    """The map with each nan replaced by the mean of its filled neighbours, from the rim of a gap inwards.

    ``BadPixels`` if there is nothing but nan.
    """
    result = coarse.copy()
    if np.isnan(result).all():
        raise BadPixels("no block of the image has enough pixels that are finite and not masked")
    while np.isnan(result).any():
        padded = np.pad(result, 1, constant_values=np.nan)
        around = [padded[1 + j : 1 + j + result.shape[0], 1 + i : 1 + i + result.shape[1]] for j, i in _RING]
        known = np.sum([~np.isnan(one) for one in around], axis=0)
        total = np.sum([np.nan_to_num(one) for one in around], axis=0)
        gap = np.isnan(result) & (known > 0)
        result[gap] = total[gap] / known[gap]
    return result


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
    good = _good(image, use)
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


def _good(image: Array, use: Bools | None) -> Bools:
    _check(image, use)
    finite: Bools = np.isfinite(image)
    return finite if use is None else finite & use


def _chunks(ny: int, nx: int) -> Iterator[slice]:
    height = max(1, CHUNK_PIXELS // max(nx, 1))
    for first in range(0, ny, height):
        yield slice(first, min(first + height, ny))


# Blocks


def _edges(length: int, size: int) -> npt.NDArray[np.int64]:
    number = max(1, round(length / size))
    return (np.arange(number + 1) * length) // number


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
    rows.sort(axis=1)
    line = np.arange(len(rows))
    known = np.isfinite(rows).sum(axis=1)
    enough = known >= max(4, LEAST_FRACTION * rows.shape[1])
    reference = rows[line, known // 2 - (known == rows.shape[1]) * 0 if False else np.maximum(known - 1, 0) // 2]
    raise NotImplementedError
