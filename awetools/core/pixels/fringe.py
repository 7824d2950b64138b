"""Fringes of the night sky: their pattern without its noise, and how much of it a frame has."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from ..errors import BadPixels, BadValue, Mixture
from .objects import Cells, cells_of, over_pixels
from .smooth import lowpass
from .stats import clipped

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Waves = npt.NDArray[np.complex64]

# Fringes are wider than this; the pattern is made in such cells and interpolated.
PATTERN_CELL_PX, FIT_CELL_PX = 2, 4
# Windows of so many cells, each a quarter of them from the last: small ones for waves that bend, large ones for
# straight waves in noise.
WINDOWS_CELLS, OVERLAP = (32, 64, 128), 4
# Gaps are filled, and the noise is measured, with windows of this size.
MIDDLE_CELLS = 64
FILTER_SIGMA, OUTLYING_SIGMA, GAP_ROUNDS = 4.0, 5.0, 3
# Windows are weighed by what they make of so many cells, with the temperature 4 sigma^2 of the theory.
WEIGHED_CELLS = 144.0
# The median of the power of a Fourier component of noise over its mean.
MEDIAN_POWER = math.log(2.0)
FIT_SIGMA, FIT_ROUNDS = 4.0, 3


@dataclass(frozen=True)
class FringeFit:
    """How much of a pattern is in an image, and its error, in the unit of the image over that of the pattern."""

    scale: float
    error: float


def fringe_pattern(
    image: Array,
    variance: Array,
    use: Bools,
    smooth_px: int = 1024,
    fill: bool = True,
    noise: Floats | None = None,
) -> Floats:
    """The fringes in a stack of night skies, without their noise and without what is smooth.

    ``image`` (ny, nx) is the flat-fielded sky over its level, ``variance`` (ny, nx) of its
    pixels, ``use`` True where a pixel counts. The result is float32, defined everywhere, of
    mean 0: ADU per ADU of sky. What a low-pass of ``smooth_px`` (at most half the shorter side) sees is
    taken off: gradients, errors of the flat. What is left is filtered in
    overlapping windows (:func:`windowed_fourier_filter`): of the Fourier components of each,
    those above 4 sigma of the noise are kept, as fringes are a few waves in each place and
    noise is all. ``noise`` (:func:`noise_spectrum`) says how much more of it there is in long
    waves than in single pixels, because of faint objects; None: it is white. Gaps and single
    cells that stand out take the filtered value, in three rounds (not without ``fill``: they
    are then too weak). Fringes closer than some 8 pixels are damped.

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
    white = _cell_variance(cells, variance, use)
    rest = _highpass(cells, good, smooth_px)
    # A pixel that the flat does not know rings through its window: it is a gap.
    good = good & _near(rest, good)
    rest = _highpass(cells, good, smooth_px)
    values = rest
    for _ in range(GAP_ROUNDS if fill else 0):
        filtered = windowed_fourier_filter(values, white, FILTER_SIGMA, noise, (MIDDLE_CELLS,))
        near = good & _near(rest - filtered, good)
        if near.all():
            break
        values = np.where(near, rest, filtered)
    filtered = windowed_fourier_filter(values, white, FILTER_SIGMA, noise)
    filtered -= np.float32(filtered.mean(dtype=np.float64))
    if filtered.shape == cells.shape:
        return filtered
    return over_pixels(cells, filtered)


def noise_spectrum(
    one: Array, other: Array, variance_one: Array, variance_other: Array, use: Bools, smooth_px: int = 1024
) -> Floats:
    """The noise of a stack by its frequency, in units of white noise, from two halves of the frames.

    ``one`` and ``other`` (ny, nx) are the two halves as :func:`fringe_pattern` takes them, with the
    variances of their pixels; ``use`` is True where both count. The result is the power of half
    their difference in windows of 64 cells, in rings of 1/64 wave a cell from 0 on, 1 at least:
    the median of the windows, which a galaxy or a star's halo in some of them does not
    raise. What the halves have in common in different strength is taken off before. Where no
    pixel counts in both the noise is called white.

    ``Mixture`` if shapes differ.
    """
    for array, name in ((other, "other half"), (variance_one, "variance"), (variance_other, "variance")):
        _same_shape(one, array, name)
    cells = [cells_of(half, use, PATTERN_CELL_PX) for half in (one, other)]
    good = cells[0].known
    if not good.any():
        return np.ones(1, np.float32)
    first, second = (_highpass(half, good, smooth_px) for half in cells)
    white = np.float32(0.25) * _cell_variance(cells[0], variance_one + variance_other, use)
    total, rest = first + second, np.float32(0.5) * (first - second)
    power = float(np.square(total, dtype=np.float64).sum())
    if power > 0:
        rest -= np.float32(float(np.multiply(total, rest, dtype=np.float64).sum()) / power) * total
    rest[~_near(rest, good)] = 0
    parts = []
    for waves, expected, _ in _waves(rest, white, MIDDLE_CELLS, MIDDLE_CELLS // 2):
        known = expected > 0
        parts.append(_power(waves[known]) / expected[known, None, None])
    ratio = np.median(np.concatenate(parts), axis=0) / np.float32(MEDIAN_POWER)
    ring = np.rint(_frequency(MIDDLE_CELLS) * MIDDLE_CELLS).astype(np.int64).ravel()
    mean = np.bincount(ring, ratio.ravel()) / np.bincount(ring)
    # The level of a window is real: its median is another.
    mean[0] = mean[1]
    spectrum: Floats = np.maximum(mean, 1).astype(np.float32)
    return spectrum


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


def windowed_fourier_filter(
    image: Array,
    variance: Array,
    threshold_sigma: float,
    noise: Floats | None = None,
    sizes: Sequence[int] = WINDOWS_CELLS,
) -> Floats:
    """What of an image (ny, nx) stands out of its noise in the Fourier components of windows.

    ``variance`` (ny, nx) is that of white noise, ``noise`` the power of the true one in units
    of it, by frequency, as from :func:`noise_spectrum` (None: 1). In windows of each of
    ``sizes`` the components above ``threshold_sigma`` are kept (windowed Fourier filtering:
    Kemao 2004, Applied Optics 43, 2695). In each place the windows that describe the image in
    the fewest components count most: their weights fall exponentially with the power below
    the threshold and the threshold's own for each component above it (such a sum chooses
    among bases: Donoho and Johnstone 1994, C. R. Acad. Sci. 319, 1317; exponential weights:
    Leung and Barron 2006, IEEE Trans. Inf. Theory 52, 3396). So a faint object, which only
    small windows would keep, is rather left to large ones.
    """
    parts = [_filtered(image, variance, threshold_sigma, noise, size) for size in sizes]
    least = np.minimum.reduce([cost for _, cost in parts])
    result, total = np.zeros(image.shape, np.float32), np.zeros(image.shape, np.float32)
    for filtered, cost in parts:
        weight = np.exp(np.float32(-WEIGHED_CELLS) * (cost - least))
        total += weight
        result += weight * filtered
    result /= total
    return result


def _filtered(
    image: Array, variance: Array, threshold_sigma: float, noise: Floats | None, size: int
) -> tuple[Floats, Floats]:
    """The image filtered in windows of one size, and what its description costs a cell.

    The windows are a quarter of their size apart, under the root of a Hann window before and
    after, so that they add up to 1; edges are mirrored.
    """
    ny, nx = image.shape
    step = size // OVERLAP
    window = _window(size)
    squares = np.square(window)
    limit = np.float32(threshold_sigma**2)
    colour = _colour(noise, size)
    # A transform of real values has half of its components; all but those of the edges count twice.
    twice = np.full(size // 2 + 1, 2 / size**2, np.float32)
    twice[[0, -1]] = 1 / size**2
    total, cost = (np.zeros(_padded((ny, nx), size, step), np.float32) for _ in range(2))
    for waves, white, rows in _waves(image, variance, size, step):
        expected = white[:, None, None] * colour
        power = _power(waves)
        waves[power <= limit * expected] = 0
        back = np.fft.irfft2(waves, s=(size, size)).astype(np.float32) * window
        share = np.divide(power, expected, out=np.zeros_like(power), where=expected > 0)
        spent = (np.minimum(share, limit) @ twice).sum(axis=1)[:, None, None] * squares
        for first in range(OVERLAP):
            # Every fourth window touches the last of its kind.
            for into, blocks in ((total, back), (cost, spent)):
                some = blocks[first::OVERLAP].transpose(1, 0, 2).reshape(size, -1)
                into[rows, first * step : first * step + some.shape[1]] += some
    inside = slice(size, size + ny), slice(size, size + nx)
    # The squares of the windows add up to half the overlap along each axis.
    scale = np.float32((2.0 / OVERLAP) ** 2)
    return total[inside] * scale, cost[inside] * scale


def _waves(image: Array, variance: Array, size: int, step: int) -> Iterator[tuple[Waves, Floats, slice]]:
    """The transforms of the windows of each band of rows, the power of white noise in them, and the rows."""
    shape = _padded(image.shape, size, step)
    edges = [(size, wide - narrow - size) for narrow, wide in zip(image.shape, shape, strict=True)]
    values = np.pad(np.asarray(image, np.float32), edges, mode="symmetric")
    noise = np.pad(np.asarray(variance, np.float32), edges, mode="symmetric")
    window = _window(size)
    squares = np.square(window)
    for y in range(0, shape[0] - size + 1, step):
        rows = slice(y, y + size)
        blocks, spread = (sliding_window_view(one[rows], size, axis=1)[:, ::step] for one in (values, noise))
        white: Floats = np.einsum("ijk,ik->j", spread, squares)
        waves = np.fft.rfft2(blocks.transpose(1, 0, 2) * window)
        yield waves.astype(np.complex64, copy=False), white, rows


def _padded(shape: tuple[int, ...], size: int, step: int) -> tuple[int, int]:
    """The shape with a window more on every side, in whole steps."""
    ny, nx = (-(-length // step) * step + 2 * size for length in shape)
    return ny, nx


def _window(size: int) -> Floats:
    root = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)
    window: Floats = root[:, None] * root[None, :]
    return window


def _power(waves: Waves) -> Floats:
    power: Floats = waves.real**2 + waves.imag**2
    return power


def _frequency(size: int) -> Array:
    """Waves a cell of the components of a real window."""
    frequency: Array = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    return frequency


def _colour(noise: Floats | None, size: int) -> Floats:
    """The noise spectrum at the components of a window."""
    if noise is None:
        return np.ones((size, size // 2 + 1), np.float32)
    known = np.arange(len(noise)) / MIDDLE_CELLS
    colour: Floats = np.interp(_frequency(size), known, noise).astype(np.float32)
    return colour


def _cell_variance(cells: Cells, variance: Array, use: Bools) -> Floats:
    """Variance of the mean of each cell; the median of the others where a cell says nothing."""
    spread = cells_of(variance, use, cells.size).mean / np.maximum(cells.count, 1)
    white: Floats = np.where(cells.known, spread, np.median(spread[cells.known])).astype(np.float32)
    return white


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
