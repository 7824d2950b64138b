"""Weights and masks of other pipelines in our conventions: inverse variance, our mask bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BadPixels
from .mask import Bit, bad
from .smooth import background
from .stats import clipped

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

# Variances of 1e30, and the like, are how a plane without zeros says "no weight".
NEGLIGIBLE = 1e-10
# So far below 0, as a part of the median, is still 0.
ROUNDING = 1e-6
# Weights beyond what a float32 holds say nothing.
FLOATS = np.finfo(np.float32)
# Below this many pixels nothing is known of the noise.
FEWEST_PIXELS = 25
# Part of the pixels that may have the value of blank edges and be real.
STRAY_FRACTION = 1e-3
# Into so many parts blank edges cut what they leave; single counts on a field of none are more.
MOST_PARTS = 8
# Signal in sigma of pixels that tell the noise of sources, and of those that tell the noise of the sky.
BRIGHT_SIGMA, FAINT_SIGMA = 5.0, 2.0
# Sources make a plane's variance at least so much larger, and so well in step with their light.
LEAST_EXCESS, LEAST_CORRELATION = 0.1, 0.5
# Part of the variance from which on the noise of a source is not subtracted, but replaced by the smooth one.
LARGE_EXCESS = 0.2


def inverse_variance(plane: npt.NDArray[Any], convention: str, factor: float = 1.0) -> Floats:
    """A weight plane of a convention as inverse variance, 0 where it gives none; float32 (ny, nx).

    convention: 'weight' or 'relative' (inverse variance, true or up to a factor),
    'variance', 'rms'; in the unit of the image, to its power. factor: by which the image is
    multiplied, so that weights are divided by its square. What is not finite, not above 0,
    or below 1e-10 of the median counts as no weight. Raises BadPixels for negative values,
    which no such plane has, and where nothing is left.
    """
    values = plane.astype(np.float64)
    finite = np.isfinite(values)
    # Lossy compression turns zeros into hairs on either side of them.
    hair = ROUNDING * float(np.median(np.abs(values[finite]))) if finite.any() else 0.0
    negative = int(np.count_nonzero(values[finite] < -hair))
    if negative:
        raise BadPixels(
            f"the {convention} plane has {negative} negative values, down to {values[finite].min():.4g}",
            hint="--weight-type says what the plane is: weight, variance, rms, relative",
        )
    usable = finite & (values > 0)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        if convention == "variance":
            values = 1 / values
        elif convention == "rms":
            values = 1 / np.square(values)
        values = values / (factor * factor)
    usable &= (values > FLOATS.tiny) & (values < FLOATS.max)
    if usable.any():
        usable &= values > NEGLIGIBLE * np.median(values[usable])
    if not usable.any():
        raise BadPixels(f"the {convention} plane has no value above 0", hint="--weight-type none")
    result: Floats = np.where(usable, values, 0).astype(np.float32)
    return result


def of_asinh(pixels: npt.NDArray[Any], softening: float, offset: float) -> npt.NDArray[np.float64]:
    """The fluxes that asinh magnitudes stand for, (ny, nx): offset + 2 softening sinh(pixel ln(10) / 2.5).

    Source: Waters et al. 2020, ApJS 251, 4 (how Pan-STARRS1 packs its stacks).
    """
    with np.errstate(over="ignore"):
        linear = offset + 2 * softening * np.sinh(pixels.astype(np.float64) * (0.4 * np.log(10)))
    result: npt.NDArray[np.float64] = linear
    return result


def blank_edges(pixels: npt.NDArray[Any]) -> Bools:
    """True where an image (ny, nx) is filled with one value from a corner on, as where a stamp leaves the survey.

    Not where that value is common inside of the image too, as no counts are in a short exposure.
    """
    from scipy import ndimage

    blank: Bools = np.zeros(pixels.shape, dtype=np.bool_)
    ends = (0, -1)
    for value in {pixels[y, x].item() for y in ends for x in ends if np.isfinite(pixels[y, x])}:
        same = pixels == value
        if np.count_nonzero(same) < FEWEST_PIXELS:
            continue
        parts, _ = ndimage.label(same)
        corners = [parts[y, x] for y in ends for x in ends if parts[y, x]]
        filled = np.isin(parts, corners)
        stray = np.count_nonzero(same & ~filled) > STRAY_FRACTION * same.size
        if not stray and filled.sum() >= FEWEST_PIXELS and ndimage.label(~filled)[1] <= MOST_PARTS:
            blank |= filled
    return blank


def mapped_mask(plane: npt.NDArray[Any], meanings: Mapping[int, int], bits: bool) -> npt.NDArray[np.int16]:
    """A foreign mask in our bits, int16 (ny, nx).

    meanings: foreign number to our bits; with `bits` the foreign numbers are bits that
    may be set together, else codes of which a pixel has one. Foreign bits and codes
    that are not among them are USER; 0 is good unless meanings say otherwise.
    """
    values = _whole_numbers(plane)
    out = np.zeros(values.shape, dtype=np.int16)
    if not bits:
        for code in np.unique(values):
            meaning = meanings.get(int(code), int(Bit.USER) if code else 0)
            out[values == code] = meaning
        return out
    known = 0
    for bit, meaning in meanings.items():
        known |= bit
        out[(values & bit) != 0] |= np.int16(meaning)
    out[(values & ~known) != 0] |= np.int16(Bit.USER)
    return out


def _whole_numbers(plane: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """A mask as int64; of floats, not-a-number is 0, and what no int64 holds is -1: every bit, and no code."""
    if plane.dtype.kind != "f":
        return plane.astype(np.int64)
    beyond = ~(np.abs(plane) < 2.0**62) & ~np.isnan(plane)
    whole: npt.NDArray[np.int64] = np.where(beyond | np.isnan(plane), 0, plane).astype(np.int64)
    whole[beyond] = -1
    return whole


def smooth_sky(data: Floats, use: Bools, mesh_px: int) -> Floats:
    """The smooth sky of an image (ny, nx), or its clipped median where it is too small for a mesh."""
    try:
        return background(data, use, mesh_px)
    except BadPixels:
        return np.full(data.shape, clipped(data[use]).median, dtype=np.float32)


def pull_sigma(data: Floats, sky: Floats, weight: Floats) -> float:
    """Clipped rms of (data - sky) sqrt(weight) over the pixels that have a weight; 1 where weights are true.

    Resampled images stay below 1, because their neighbours share noise; nan with fewer than 25 pixels.
    """
    use = weight > 0
    if np.count_nonzero(use) < FEWEST_PIXELS:
        return float("nan")
    pulls = (data[use] - sky[use]) * np.sqrt(weight[use])
    return float(clipped(pulls).stdev)


def background_weight(data: Floats, sky: Floats, weight: Floats, mesh_px: int) -> tuple[Floats, float | None]:
    """The weight without the noise of the sources' own light, and that light's variance per unit; None: as it was.

    data, sky, weight (inverse variance, 0 where there is none): (ny, nx). Means that are weighted by what depends on
    the light of a star are too faint in its core, and sums of errors count that noise twice. Where the
    variance of bright pixels follows their signal, they get the variance of the background around them, and
    from those of the sky what follows their own noise is subtracted.
    """
    use = weight > 0
    signal = np.where(use, data - sky, 0).astype(np.float64)
    variance = 1 / np.where(use, weight, 1).astype(np.float64)
    away = signal / np.sqrt(variance)
    bright, faint = use & (away > BRIGHT_SIGMA), use & (np.abs(away) < FAINT_SIGMA)
    if min(np.count_nonzero(bright), np.count_nonzero(faint)) < FEWEST_PIXELS:
        return weight, None
    smooth = smooth_sky(variance.astype(np.float32), faint, mesh_px)
    excess, light = (variance - smooth)[bright], signal[bright]
    if not (
        np.median(excess / smooth[bright]) > LEAST_EXCESS and _correlation(excess, light) > LEAST_CORRELATION
    ):
        return weight, None
    slope = float(np.median(excess / light))
    own = float(np.polyfit(signal[faint], variance[faint] - smooth[faint], 1)[0])
    large = ~faint & (slope * signal > LARGE_EXCESS * smooth)
    # Beyond the faint ones nothing is known of single pixels but that they follow the sources.
    lowered = np.where(large, smooth, variance - np.where(faint, own, slope) * signal)
    sane = use & (lowered > 0.5 * smooth)
    return np.where(sane, 1 / np.where(sane, lowered, 1), weight).astype(np.float32), slope


def _correlation(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    spread = float(np.std(one) * np.std(other))
    return float(np.mean((one - one.mean()) * (other - other.mean()))) / spread if spread > 0 else 0.0


def good_pixels(mask: npt.NDArray[np.int16]) -> Bools:
    """True where a pixel may be used."""
    good: Bools = ~bad(mask)
    return good
