"""From a rough map to the best one: matches sought again within less and less, weighted, clipped, a polynomial."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import TooFew
from .fitwcs import PolynomialFit, fit_best, fit_polynomial
from .leastsquares import powers_of
from .match import Places, Points, as_points, matched
from .polynomial import Doubles
from .sphere import ARCSEC_PER_DEG

# Of the brighter stars so many are taken that no more than this part of them has a wrong star within the radius.
WRONG = 0.1
LEAST_DEPTH = 50
# Rounds in which the degree grows, by one each; then the best is chosen and the matches settle.
GROWING = 6
SETTLING = 3
CLIPPINGS = 3
LEAST_RADIUS_PX = 0.2
# Two normally distributed residuals: the median of the sum of their squares.
MEDIAN_SQUARE = 2 * math.log(2)
LEAST_STARS = 4
# Of residuals that are all 0, arcsec^2.
LEAST_VARIANCE = 1e-12


@dataclass(frozen=True, eq=False)
class Stars:
    """Places of stars with their errors, the brightest first: at (n,) complex, error (n,), both of one unit."""

    at: Points
    error: Doubles


@dataclass(frozen=True, eq=False)
class Refined:
    """A fit of reference places to pixels: which stars it rests on, and what remains.

    sources, reference: places in the lists; residual: catalogue less fit, complex arcsec;
    variance: of one axis as it was used, arcsec^2, extra_arcsec of it beyond the errors
    that were given; radius_arcsec: within which matches were sought at last.
    """

    fit: PolynomialFit
    sources: Places
    reference: Places
    residual: Points
    variance: Doubles
    extra_arcsec: float
    radius_arcsec: float


def refined(
    pixels: Stars,
    sky: Stars,
    predicted: Points,
    radius_arcsec: float,
    scale_arcsec: float,
    highest_degree: int,
    clip_sigma: float,
) -> Refined:
    """The polynomial that leads pixels to the places of reference stars in the tangent plane.

    pixels: sources in pixels; sky: reference stars in arcsec of the plane; predicted: where
    the sources lie in it, right to within the radius. Bright stars first, all of them
    once the radius is small against their distances; weights are inverse variances of
    both errors and of a common scatter that makes the residuals what they are; the
    degree is the one Akaike's corrected criterion prefers. Raises TooFew where fewer
    than 4 stars are left.
    """
    radius, area, degree, best = radius_arcsec, _area(predicted), 1, None
    for turn in range(GROWING + SETTLING):
        choose = turn == GROWING
        if choose:
            degree = highest_degree
        depth = max(LEAST_DEPTH, int(WRONG * area / (math.pi * radius * radius)))
        # Reference stars outside the image count for its density too, so there are more of these.
        i, j = matched(predicted[:depth], sky.at[: 4 * depth], radius)
        if len(i) < LEAST_STARS:
            raise TooFew(f"{len(i)} stars match within {radius:.3g} arcsec")
        given = (pixels.error[i] * scale_arcsec) ** 2 + sky.error[j] ** 2
        best = _clipped(pixels.at, sky.at, (i, j), given, predicted, degree, choose, clip_sigma, radius)
        predicted = _predict(best.fit, pixels.at)
        if turn < GROWING:
            degree = _next(degree, highest_degree, len(best.sources))
        else:
            degree = best.fit.degree
        reach = 1.2 * clip_sigma * math.sqrt(float(np.quantile(best.variance, 0.9)))
        radius = min(radius, max(reach, radius / 3, LEAST_RADIUS_PX * scale_arcsec))
    if best is None:
        raise TooFew("no stars")
    return best


def _clipped(
    pixels: Points,
    sky: Points,
    pairs: tuple[Places, Places],
    given: Doubles,
    predicted: Points,
    degree: int,
    choose: bool,
    clip_sigma: float,
    radius_arcsec: float,
) -> Refined:
    """A fit of pairs without those that are too far off it; it rests on those that it names."""
    i, j = pairs
    away = sky[j] - predicted[i]
    extra = _extra(away.real**2 + away.imag**2, given)
    keep = np.ones(len(i), np.bool_)
    for turn in range(CLIPPINGS + 1):
        fit = _fit(pixels[i[keep]], sky[j[keep]], 1 / (given[keep] + extra), degree, choose)
        away = sky[j] - _predict(fit, pixels[i])
        square = away.real**2 + away.imag**2
        extra = _extra(square[keep], given[keep])
        close = square <= clip_sigma**2 * (given + extra)
        if turn == CLIPPINGS or close.sum() < LEAST_STARS or (close == keep).all():
            break
        keep = close
    return Refined(fit, i[keep], j[keep], away[keep], given[keep] + extra, math.sqrt(extra), radius_arcsec)


def _area(points: Points) -> float:
    finite = points[np.isfinite(points)]
    return max(float(np.ptp(finite.real)) * float(np.ptp(finite.imag)), 1e-300)


def _next(degree: int, highest: int, count: int) -> int:
    """One more, where there are three stars for every term."""
    return degree + 1 if degree < highest and count >= 3 * len(powers_of(degree + 1)) else degree


def _predict(fit: PolynomialFit, pixels: Points) -> Points:
    xi, eta = fit.predict(pixels.real, pixels.imag)
    return as_points(xi, eta) * ARCSEC_PER_DEG


def _fit(pixels: Points, sky: Points, weight: Doubles, degree: int, choose: bool) -> PolynomialFit:
    """The fit of a degree, or of the best one up to it; the weights are of arcsec^-2."""
    columns = (
        pixels.real,
        pixels.imag,
        sky.real / ARCSEC_PER_DEG,
        sky.imag / ARCSEC_PER_DEG,
        weight * ARCSEC_PER_DEG**2,
    )
    while True:
        try:
            if choose:
                return fit_best(degree, *columns)
            return fit_polynomial(degree, *columns)
        except TooFew:
            if degree == 1:
                raise
            degree -= 1


def _extra(square: Doubles, given: Doubles) -> float:
    """The variance of an axis that, with those given, makes the median of the squares what it is."""
    # square / (given + extra) is above a value where square / value - given is above extra.
    return max(float(np.median(square / MEDIAN_SQUARE - given)), LEAST_VARIANCE)
