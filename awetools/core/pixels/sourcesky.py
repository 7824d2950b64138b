"""A frame made ready for the search of sources: less its sky, its noise known, its pixels sorted into good and bad."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import BadPixels, BadValue, Mixture
from .mask import ZERO_WEIGHT, Bit
from .smooth import Blocks, block_statistics, fill_gaps, interpolate_blocks, median_filter
from .sourcestamp import BAD, SATURATED
from .stats import clipped

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

_OTHER_BITS = ZERO_WEIGHT & ~int(Bit.SATURATED)
# So many pixels along each axis tell the scatter of an image.
_SAMPLE = 360
# Error of the smooth sky, in noise of a pixel / sqrt(pixels of a block): the mode, 2.5 median - 1.5 mean, has the
# variance 6.25 pi / 2 + 2.25 - 7.5 = 4.57 of a mean's, and the median of nine of them 0.166 of that.
_LEVEL_ERROR = 0.87
# Where mean and median are closer, in sigma, they give the mode; so far below it are pixels of the sky.
_MODE_REACH, _BELOW = 0.3, 4.0
# Pixels so far apart share no filtered noise; so many differences tell a scatter.
_APART, _FEWEST = 16, 1000
# What is larger cannot be squared in single precision.
_MOST_NOISE = 1e15
# Rows that stay in the processor's cache.
_BLOCK_ROWS = 64


class Ready(NamedTuple):
    """A frame less its sky, (ny, nx) each: values, weight of the background, and flags of pixels.

    ``image`` in ADU, ``weight`` in ADU^-2 (0 where a pixel has none), ``flags``
    of bits BAD and SATURATED; ``level_adu`` and ``noise_adu`` are the medians of sky and noise,
    ``level_error_adu`` is how well the sky is known at a place.
    """

    image: Floats
    weight: Floats
    flags: Bytes
    level_adu: float
    noise_adu: float
    level_error_adu: float


def make_ready(
    data: Array, weight: Array | None, mask: Array | None, mesh_px: int, sky: bool = True
) -> Ready:
    """Subtract the sky and sort the pixels of one frame.

    ``data`` (ny, nx) in ADU; ``weight`` the inverse variance of its background (ADU^-2), 0 where
    masked; without it the noise is measured in the blocks of the sky. ``mask`` is of the bits
    of :class:`Bit`; a saturated pixel keeps its value and counts as light, other masked
    ones are left out, as is what is not finite. ``sky`` False: there is none to subtract.
    ``Mixture`` if the shapes differ, ``BadPixels`` where no pixel can be used or all are alike.
    """
    if data.ndim != 2 or not data.size:
        raise BadValue(f"an image has two axes and pixels in it, not the shape {data.shape}")
    for name, plane in (("weight", weight), ("mask", mask)):
        if plane is not None and plane.shape != data.shape:
            raise Mixture(f"a {name} of shape {plane.shape} for an image of {data.shape}")
    flags = _flags(data, weight, mask)
    usable = flags == 0
    if not usable.any():
        raise BadPixels(f"none of {data.size} pixels can be used: {_what(flags)}")
    # Small frames have smaller blocks, so that there are some.
    blocks = block_statistics(data, usable, max(2, min(mesh_px, min(data.shape))))
    level = interpolate_blocks(median_filter(fill_gaps(blocks.mode)), blocks, (data.shape[0], data.shape[1]))
    typical = float(np.median(level[:: _step(data.shape[0]), :: _step(data.shape[1])]))
    if not sky:
        level[:] = 0
    image = np.subtract(data, level, out=level, dtype=np.float32, casting="unsafe")
    if not usable.all():
        image[~np.isfinite(image)] = 0
    if weight is None:
        noise = _noise(blocks, (data.shape[0], data.shape[1]))
        plane = np.divide(np.float32(1), np.square(noise, out=noise), out=noise)
    else:
        plane = np.ascontiguousarray(weight, np.float32)
    some = plane[:: _step(data.shape[0]), :: _step(data.shape[1])]
    known = some[(some > 0) & (some < np.inf)]
    usual = float(np.median(known)) if known.size else 1.0
    noise_adu, count = usual**-0.5, float(np.median(blocks.count[blocks.count > 0]))
    error = _LEVEL_ERROR * noise_adu / count**0.5 if sky else 0.0
    return Ready(image, plane, flags, typical, noise_adu, error)


def scatter(values: Floats, flags: Bytes) -> float:
    """Scatter of the sky of an image, from a sample of its pixels; nan where none can be used.

    The lesser of two, which what is no sky makes larger: that of the pixels below the mode,
    about it (sources lie above), and that of differences of pixels some way apart (a galaxy that
    fills the field is smooth).
    """
    step_y, step_x = _step(values.shape[0]), _step(values.shape[1])
    sample = values[::step_y, ::step_x][flags[::step_y, ::step_x] == 0].astype(np.float64)
    if not sample.size:
        return float("nan")
    below = _scatter_below(sample)
    if values.shape[1] < 4 * _APART:
        return below
    left, middle, right = (
        (values[::step_y, first:last:step_x], flags[::step_y, first:last:step_x])
        for first, last in ((0, -2 * _APART), (_APART, -_APART), (2 * _APART, None))
    )
    good = (left[1] | middle[1] | right[1]) == 0
    if np.count_nonzero(good) < _FEWEST:
        return below
    away = middle[0][good] - 0.5 * (left[0][good] + right[0][good])
    return float(min(below, float(clipped(away.astype(np.float64)).stdev) / 1.5**0.5))


def _scatter_below(sample: Doubles) -> float:
    whole = clipped(sample)
    mode = whole.median
    if abs(whole.mean - whole.median) < _MODE_REACH * whole.stdev:
        mode = 2.5 * whole.median - 1.5 * whole.mean
    below = mode - sample[(sample < mode) & (sample > mode - _BELOW * whole.stdev)]
    return float(np.sqrt(np.mean(below * below))) if below.size else 0.0


def _step(length: int) -> int:
    return max(1, length // _SAMPLE)


def _flags(data: Array, weight: Array | None, mask: Array | None) -> Bytes:
    flags = np.zeros(data.shape, np.uint8)
    for y0 in range(0, data.shape[0], _BLOCK_ROWS):
        rows = slice(y0, y0 + _BLOCK_ROWS)
        refused = ~np.isfinite(data[rows])
        burnt = np.zeros_like(refused)
        if mask is not None:
            burnt = (mask[rows] & int(Bit.SATURATED)) != 0
            refused |= (mask[rows] & _OTHER_BITS) != 0
        if weight is not None:
            refused |= ~((weight[rows] > 0) & (weight[rows] < np.inf)) & ~burnt
        flags[rows][burnt] = SATURATED
        flags[rows][refused] = BAD
    return flags


def _what(flags: Bytes) -> str:
    burnt = int(np.count_nonzero(flags == SATURATED))
    return f"{burnt} are saturated, {flags.size - burnt} masked, without weight or not finite"


def _noise(blocks: Blocks, shape: tuple[int, int]) -> Floats:
    coarse = median_filter(fill_gaps(blocks.stdev))
    if not coarse.max() > 0:
        raise BadPixels("the image is constant: without noise or weight nothing can be significant")
    if not coarse.max() < _MOST_NOISE:
        raise BadPixels(f"the noise is {coarse.max():.3g} ADU: these are no counts of photons")
    # A block of constant values says nothing of the noise.
    coarse = np.maximum(coarse, 0.1 * float(np.median(coarse[coarse > 0])))
    smooth = interpolate_blocks(coarse, blocks, shape)
    result: Floats = np.maximum(smooth, np.float32(0.5 * coarse.min()))
    return result
