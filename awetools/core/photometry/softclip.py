"""Which values fit about the mean of their star: first by weights that fall with the residual, then by clipping."""

from __future__ import annotations

import numpy as np

from ..sky.polynomial import Doubles
from .robustfit import MEDIAN_DEVIATION, Mask

# Where a value's weight is half of what its error says.
SOFT_SIGMA = 2.0
# What is left of the variance of one that has nearly all the weight of its star says nothing.
LEAST_FREE = 0.05
# Known stars are believed no better than this at first: else stars would follow wrong ones, which then do not show.
FIRST_ANCHOR_MAG = 0.02


def soft_parts(away: Doubles, left: Doubles, variance: Doubles, some: Mask) -> Doubles:
    """The part of its weight that each value keeps, by the scale that the median residual of some tells, (n,).

    away: residuals about the means of stars; left: what part of their variance is left in these.
    """
    square = away**2 / (np.maximum(left, LEAST_FREE) * variance)
    tell = some & (left > LEAST_FREE)
    scale = max(float(np.median(square[tell])) / MEDIAN_DEVIATION**2, 1.0) if tell.any() else 1.0
    return np.asarray(1 / (1 + square / (scale * SOFT_SIGMA**2)))


def fits(away: Doubles, left: Doubles, variance: Doubles, clip_sigma: float) -> Mask:
    """Which values are within so many sigma of the means of their stars."""
    return np.asarray(away**2 <= clip_sigma**2 * np.maximum(left, LEAST_FREE) * variance)
