"""Which sources are stars: how wide they are beside the stars of the same frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]

# Sources whose ratio is known so well tell what a star's is.
_LEAST_SNR = 30.0
_FEWEST, _FEWEST_PLANE = 4, 25
_LEAST_SCATTER = 0.003
_NARROWEST_FWHM = 0.65


class Stars(NamedTuple):
    """Of each source: by what part it is more spread than a star, the error of that, how much like a star it is;

    and which ones told what a star is.
    """

    spread: Doubles
    error: Doubles
    star: Doubles
    chosen: Bools


def densest(values: Array) -> float:
    """The value about which a sample lies densest: halves of it, each the narrowest of the last; nan for none.

    Half-sample mode: Robertson and Cryer 1974, J. Am. Stat. Assoc. 69, 1012.
    """
    ordered = np.sort(values.astype(np.float64))
    if not ordered.size:
        return float("nan")
    while ordered.size > 6:
        half = (ordered.size + 1) // 2
        first = int(np.argmin(ordered[half - 1 :] - ordered[: ordered.size - half + 1]))
        ordered = ordered[first : first + half]
    return float(np.median(ordered))


def typical_width(widths: Doubles) -> float:
    """The width about which bright sources lie densest, then the median of those within a fifth; 0 for fewer than 4."""
    if len(widths) < _FEWEST:
        return 0.0
    centre = densest(widths)
    near = widths[np.abs(widths - centre) < 0.2 * centre]
    return float(np.median(near)) if near.size else centre


def point_like(
    raw: Mapping[str, Doubles], x: Doubles, y: Doubles, fwhm: Doubles, clean: Bools, sigma_px: float
) -> Stars:
    """Compare the flux in a Gaussian window of a star's width with that in one 1.7 times as wide.

    The ratio wide / narrow of a star does not depend on its flux; a galaxy's is larger, that of a
    cosmic ray smaller. Stars are where the ratios of bright clean sources lie densest;
    a plane over the image takes up a changing PSF. ``spread`` is ratio / that of stars - 1,
    ``error`` from the noise of the pixels and the scatter of the stars themselves, and
    ``star`` exp(-t^2 / 2) of t = spread / error: 1 for what cannot be told from a star, 0 for what is
    not one. In the spirit of Desai et al. 2012 (ApJ 757, 83). With fewer than 4 stars
    the ratio is that of a Gaussian of the assumed width.
    """
    with np.errstate(all="ignore"):
        good = (raw["narrow"] > 0) & (raw["narrow_variance"] > 0)
        narrow = np.where(good, raw["narrow"], np.nan)
        ratio = raw["wide"] / narrow
        variance = raw["wide_variance"] - 2 * ratio * raw["both_variance"]
        variance = (variance + ratio * ratio * raw["narrow_variance"]) / narrow**2
        noise = np.sqrt(np.maximum(variance, 0))
        bright = clean & good & (narrow > _LEAST_SNR * np.sqrt(raw["narrow_variance"]))
        # Cosmic rays are many in long exposures, and alike.
        bright &= np.isfinite(ratio) & (fwhm > _NARROWEST_FWHM * sigma_px * 2.3548)
    reference, floor, chosen = _reference(ratio, noise, bright, x, y)
    with np.errstate(all="ignore"):
        spread = ratio / reference - 1
        error = np.hypot(noise / reference, floor)
        t = spread / error
        star = np.exp(-0.5 * np.minimum(t * t, 1400.0))
    unknown = ~np.isfinite(star)
    for values, instead in ((spread, np.nan), (error, np.nan), (star, 0.0)):
        values[unknown] = instead
    return Stars(spread, error, star, chosen)


def _reference(
    ratio: Doubles, noise: Doubles, bright: Bools, x: Doubles, y: Doubles
) -> tuple[Doubles, float, Bools]:
    """The ratio of a star at every place, the scatter of stars about it, and which sources told."""
    nothing = np.zeros(len(ratio), np.bool_)
    if np.count_nonzero(bright) < _FEWEST:
        # A Gaussian of variance v in a window of variance w: v w / (v + w) each, squared widths of area.
        wide = 1.7**2
        return np.full(len(ratio), 2 * wide / (1 + wide)), 0.1, nothing
    level = np.full(len(ratio), densest(ratio[bright]))
    reach = 0.08
    for _ in range(4):
        away = ratio / level - 1
        chosen = bright & (np.abs(away) < np.maximum(reach, 3 * noise / level))
        chosen &= np.abs(away) < 0.2
        if np.count_nonzero(chosen) < _FEWEST:
            break
        if np.count_nonzero(chosen) >= _FEWEST_PLANE:
            terms = np.column_stack([np.ones(len(x)), x / 1000, y / 1000])
            found, *_ = np.linalg.lstsq(terms[chosen], ratio[chosen], rcond=None)
            level = terms @ found
        else:
            level = np.full(len(ratio), float(np.median(ratio[chosen])))
        rest = np.abs(ratio[chosen] / level[chosen] - 1)
        reach = max(3 * 1.4826 * float(np.median(rest)), 3 * _LEAST_SCATTER)
    if np.count_nonzero(chosen) < _FEWEST or not (level > 0).all():
        return np.full(len(ratio), densest(ratio[bright])), 0.05, nothing
    return level, max(reach / 3, _LEAST_SCATTER), chosen
