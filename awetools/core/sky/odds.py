"""How likely chance alone brings as many stars together as a solution does."""

from __future__ import annotations

import math

import numpy as np

from .match import Points, pairs_within

# The density about a star is that of a circle so many times as wide as the radius of a match.
AROUND = 10.0


def log10_tail(number: int, expected: float) -> float:
    """The logarithm of the probability of a number or more of independent chance events, where so many are expected.

    Poisson, an upper bound (exact to 1% where it is small); 0 where the number is no more than expected.
    """
    if number <= expected or number < 1:
        return 0.0
    if expected <= 0:
        return -math.inf
    term = number * math.log(expected) - expected - math.lgamma(number + 1)
    return min(0.0, (term - math.log1p(-expected / (number + 1))) / math.log(10))


def chance_matches(stars: Points, reference: Points, radius: float, density: float) -> float:
    """How many stars would have a reference star within a radius by chance.

    density: reference stars a unit of area over the whole field. Where there are more about
    a star, other than the one it matches, the density is that: clusters and doubled
    catalogues match by chance more often.
    """
    if not len(stars):
        return 0.0
    i, j = pairs_within(stars, reference, AROUND * radius)
    away = np.abs(stars[i] - reference[j])
    # The ring about a match, so that the match itself does not count.
    around = np.bincount(i[away > radius], minlength=len(stars))
    area = math.pi * radius * radius
    local = np.maximum(around / (area * (AROUND * AROUND - 1)), density)
    return float((-np.expm1(-area * local)).sum())
