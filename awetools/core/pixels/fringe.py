"""Fringes of the night sky: their pattern without its noise, and how much of it a frame has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BadPixels, BadValue, Mixture
from .objects import Cells, cells_of, over_pixels
from .smooth import lowpass
from .stats import clipped

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]

# Fringes are wider than this; the pattern is made in such cells and interpolated.
PATTERN_CELL_PX, FIT_CELL_PX = 2, 4
# Windows of so many cells, each a quarter of them from the last.
WINDOW_CELLS, OVERLAP = 48, 4
FILTER_SIGMA, OUTLYING_SIGMA, GAP_ROUNDS = 4.0, 5.0, 3
FIT_SIGMA, FIT_ROUNDS = 4.0, 3


@dataclass(frozen=True)
class FringeFit:
    """How much of a pattern is in an image, and its error, in the unit of the image over that of the pattern."""

    scale: float
    error: float


def fringe_pattern(
    image: Array, variance: Array, use: Bools, smooth_px: int = 1024, fill: bool = True
) -> Floats:
    """The fringes in a stack of night skies, without their noise and without what is smooth.

    ``image`` (ny, nx) is the flat-fielded sky over its level, ``variance`` (ny, nx) of its
    pixels, ``use`` True where a pixel counts. The result is float32, defined everywhere, of
    mean 0: ADU per ADU of sky. What a low-pass of ``smooth_px`` (at most half the shorter side) sees is
    taken off: gradients, errors of the flat. What is left is filtered in
    overlapping windows of 96 pixels: of the Fourier components of each, those above 4 sigma of
    the noise are kept, as fringes are a few waves in each place and noise is all
    (windowed Fourier filtering: Kemao 2004, Applied Optics 43, 2695). Gaps and single cells that
    stand out take the filtered value, in three more rounds (not without ``fill``: they are then
    too weak). Fringes closer than some 8 pixels are damped.

    ``Mixture`` if shapes differ, ``BadPixels`` if no pixel counts, ``BadValue`` for a
    low-pass below 8 pixels.
    """
    if smooth_px < 8:
        raise BadValue(f"fringes smoother than {smooth_px} pixels: it must be 8 at least")
    _same_shape(image, variance, "variance")
    cells = cells_of(image, use, PATTERN_CELL_PX)
    good = cells.known
    if not good.any():
        raise BadPixels("no pixel of the night sky is left for a fringe pattern")
    spread = cells_of(variance, use, PATTERN_CELL_PX).mean / np.maximum(cells.count, 1)
    noise = np.where(good, spread, np.float32(np.median(spread[good])))
    rest = _highpass(cells, good, smooth_px)
    # A pixel that the flat does not know rings through its window: it is a gap.
    good = good & _near(rest, good)
    rest = _highpass(cells, good, smooth_px)
    filtered = windowed_fourier_filter(rest, noise, FILTER_SIGMA)
    for _ in range(GAP_ROUNDS if fill else 0):
        near = good & _near(rest - filtered, good)
        if near.all():
            break
        filtered = windowed_fourier_filter(np.where(near, rest, filtered), noise, FILTER_SIGMA)
    filtered -= np.float32(filtered.mean(dtype=np.float64))
    if filtered.shape == cells.shape:
        return filtered
    return over_pixels(cells, filtered)


def fit_fringe(image: Array, pattern: Array, use: Bools, smooth_px: int = 256) -> FringeFit:
    """Least-squares scale of a fringe pattern in a frame; subtract ``scale * pattern``.

    ``image`` (ny, nx) is flat-fielded, its sky in it, any unit; ``pattern`` (ny, nx) as from
    :func:`fringe_pattern`; ``use`` is True on the sky, objects and bad pixels masked.
    Both, in cells of 4 pixels, less their own low-pass of ``smooth_px`` under the same mask, so
    that a gradient or halo is seen in neither; cells further than 4 sigma from the fit
    are left out by turns. A pattern that is 0 has scale 0 and an infinite error.

    ``Mixture`` if shapes differ, ``BadPixels`` if no cell counts.
    """
    _same_shape(image, pattern, "pattern")
    cells, waves = cells_of(image, use, FIT_CELL_PX), cells_of(pattern, use, FIT_CELL_PX)
    good = cells.known
    if not good.any():
        raise BadPixels("no pixel of the frame is sky: its fringes cannot be fitted")
    value = _highpass(cells, good, smooth_px)[good].astype(np.float64)
    model = _highpass(waves, good, smooth_px)[good].astype(np.float64)
    weight = cells.count[good].astype(np.float64)
    scale, keep = 0.0, np.ones(value.size, np.bool_)
    for _ in range(FIT_ROUNDS):
        square = float((weight * model**2)[keep].sum())
        if not square > 0:
            return FringeFit(0.0, math.inf)
        scale = float((weight * model * value)[keep].sum()) / square
        # The noise of a cell with few pixels is larger: compared at equal weight.
        rest = (value - scale * model) * np.sqrt(weight)
        scatter = clipped(rest).stdev
        keep = np.abs(rest) <= FIT_SIGMA * scatter if scatter > 0 else np.ones(value.size, np.bool_)
    return FringeFit(scale, scatter / math.sqrt(square))


def windowed_fourier_filter(image: Array, variance: Array, threshold_sigma: float) -> Floats:
    """What of an image (ny, nx) stands out of white noise in the Fourier components of windows.

    ``variance`` (ny, nx) is that of the noise. Windows of 48 pixels under the root of
    a Hann window, a quarter of that apart, so that they add up to 1; edges are mirrored.
    """
    ny, nx = image.shape
    size, step = WINDOW_CELLS, WINDOW_CELLS // OVERLAP
    root = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)
    window = root[:, None] * root[None, :]
    heights, widths = (-(-length // step) * step + size for length in (ny, nx))
    edges = ((size, heights - ny), (size, widths - nx))
    values = _mirrored(np.asarray(image, np.float32), edges)
    noise = _mirrored(np.asarray(variance, np.float32), edges)
    total = np.zeros(values.shape, np.float32)
    last = values.shape[1] - size
    squares = np.square(window)
    for y in range(0, values.shape[0] - size + 1, step):
        rows = slice(y, y + size)
        blocks = np.lib.stride_tricks.sliding_window_view(values[rows], size, axis=1)[:, : last + 1 : step]
        power = _under(noise[rows], squares, step)
        waves = np.fft.rfft2(blocks.transpose(1, 0, 2) * window)
        limit = np.float32(threshold_sigma**2) * power[:, None, None]
        waves[waves.real**2 + waves.imag**2 <= limit] = 0
        back = np.fft.irfft2(waves, s=(size, size)).astype(np.float32) * window
        for first in range(OVERLAP):
            # Every fourth window touches the last of its kind.
            some = back[first::OVERLAP].transpose(1, 0, 2).reshape(size, -1)
            total[rows, first * step : first * step + some.shape[1]] += some
    # The squares of the windows add up to half the overlap along each axis.
    total *= np.float32((2.0 / OVERLAP) ** 2)
    return np.ascontiguousarray(total[size : size + ny, size : size + nx])


def _under(band: Floats, squares: Floats, step: int) -> Floats:
    """Sums of a band of rows under the squared window at each of its places."""
    size = len(squares)
    places = np.lib.stride_tricks.sliding_window_view(band, size, axis=1)[:, ::step]
    sums: Floats = np.einsum("ijk,ik->j", places, squares)
    return sums


def _mirrored(image: Floats, edges: tuple[tuple[int, int], tuple[int, int]]) -> Floats:
    return np.pad(image, edges, mode="symmetric")


def _near(rest: Floats, good: Bools) -> Bools:
    """What is not far from zero, by the scatter of what is good."""
    near: Bools = np.abs(rest) <= np.float32(OUTLYING_SIGMA * clipped(rest[good]).stdev)
    return near


def _highpass(cells: Cells, good: Bools, smooth_px: int) -> Floats:
    """The cells less what is smooth, 0 where they are not good; twice, for the edges of what is curved."""
    size = max(1, min(smooth_px // cells.size, min(cells.mean.shape) // 2))
    rest = cells.mean
    for _ in range(2):
        rest = np.where(good, rest - lowpass(rest, good, size), np.float32(0))
    return rest


def _same_shape(image: Array, other: Array, name: str) -> None:
    if image.shape != other.shape:
        raise Mixture(f"the {name} is {other.shape}, its image {image.shape}")
