"""Weighted straight fits that a third of wrong values does not move, with a scatter beyond the errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..sky.polynomial import Doubles
from .student import reach

Mask = npt.NDArray[np.bool_]

ROUNDS, BISECTIONS = 40, 32
# With fewer values than this nothing is clipped: two that agree by chance would outvote a third.
LEAST_CLIPPED = 5
# So many values show where they crowd.
LEAST_CROWD = 8
# A value weighs no more than if its variance were this, mag^2.
LEAST_VARIANCE = 1e-8
# The median of the absolute value of a normal deviate.
MEDIAN_DEVIATION = 0.6744897501960817
# A single value has this scatter: nothing tells it.
ASSUMED_SCATTER_MAG = 0.1


@dataclass(frozen=True, eq=False)
class Fit:
    """Coefficients (terms,), their covariance, the residuals (n,), which values were used, the extra scatter.

    covariance is of errors and extra scatter; chi2: reduced, by the errors alone.
    """

    coefficients: Doubles
    covariance: Doubles
    residual: Doubles
    used: Mask
    scatter: float
    chi2: float

    def error(self, term: int = 0) -> float:
        """The standard error of a coefficient: at few degrees of freedom, the half-width of Student's 68%."""
        freedom = int(self.used.sum()) - len(self.coefficients)
        return float(np.sqrt(self.covariance[term, term])) * student(freedom)


def student(freedom: int) -> float:
    """By how much an error grows because its scatter was measured on few values (Student 1908, Biometrika 6, 1)."""
    return reach(freedom, 1.0) if freedom >= 1 else 1.0


def _begun(design: Doubles, values: Doubles) -> Doubles:
    """Residuals to begin with: of least absolute deviations, or of a constant, whichever most of the values fit."""
    residual = values - design @ _least_absolute(design, values)
    flat = values - np.median(values)
    if len(values) >= LEAST_CROWD:
        residual, flat = residual - _crowd(residual), flat - _crowd(flat)
    return residual if np.median(np.abs(residual)) <= np.median(np.abs(flat)) else flat


def _widened(sigma: float, freedom: int) -> float:
    """How much further the same part of Student's distribution reaches than of the normal one."""
    return reach(max(freedom, 1), sigma) / sigma


def _crowd(values: Doubles) -> float:
    """The middle of the shortest half of values, which wrong ones on one side hardly move (Rousseeuw 1984)."""
    ordered = np.sort(values)
    half = len(ordered) // 2
    place = int(np.argmin(ordered[half:] - ordered[: len(ordered) - half]))
    return 0.5 * float(ordered[place] + ordered[place + half])


def kept_variance(clip_sigma: float) -> float:
    """The part of its variance that is left of a normal distribution within so many sigma."""
    density = math.exp(-0.5 * clip_sigma**2) / math.sqrt(2 * math.pi)
    return 1 - 2 * clip_sigma * density / math.erf(clip_sigma / math.sqrt(2))


def fit(design: Doubles, values: Doubles, variance: Doubles, clip_sigma: float) -> Fit:
    """Least squares of a design (n, terms), clipped, with the scatter beyond the errors that makes chi2 one.

    Begins at the least absolute deviations, for one term the median, and where their residuals
    crowd. n must be at least the number of terms. What is clipped is never more than half.
    """
    size, terms = design.shape
    variance = np.maximum(variance, LEAST_VARIANCE)
    residual = _begun(design, values)
    extra = _median_extra(residual, variance)
    used = np.ones(size, np.bool_)
    left = 1.0
    for turn in range(ROUNDS):
        total = variance + extra
        before = used
        if size >= LEAST_CLIPPED:
            sigma = clip_sigma * _widened(clip_sigma, int(used.sum()) - terms)
            used = _kept(residual * residual / total, sigma, terms)
            left = 1.0 if used.all() else kept_variance(clip_sigma)
        coefficients, covariance = _weighted(design[used], values[used], total[used])
        residual = values - design @ coefficients
        extra = _extra(residual[used], variance[used], left * (used.sum() - terms))
        if turn and np.array_equal(used, before):
            break
    if size == terms:
        extra = ASSUMED_SCATTER_MAG**2
    coefficients, covariance = _weighted(design[used], values[used], (variance + extra)[used])
    residual = values - design @ coefficients
    freedom = int(used.sum()) - terms
    chi2 = float((residual[used] ** 2 / variance[used]).sum()) / (left * freedom) if freedom else math.nan
    return Fit(coefficients, covariance, residual, used, math.sqrt(extra), chi2)


def _kept(square: Doubles, clip_sigma: float, terms: int) -> Mask:
    """Which squares of deviations are within; at least half of all, and more than the terms."""
    least = max(len(square) // 2 + 1, terms + 1)
    limit = max(clip_sigma**2, float(np.sort(square)[min(least, len(square)) - 1]))
    return np.asarray(square <= limit)


def _least_absolute(design: Doubles, values: Doubles) -> Doubles:
    """Coefficients of least absolute deviations, by reweighting; of a constant, the median."""
    if design.shape[1] == 1 and (design == 1).all():
        return np.array([np.median(values)])
    weight: Doubles = np.ones(len(values))
    found = np.zeros(design.shape[1])
    for _ in range(ROUNDS):
        root = np.sqrt(weight)
        found = np.asarray(np.linalg.lstsq(design * root[:, None], values * root, rcond=None)[0], np.float64)
        away = np.abs(values - design @ found)
        weight = np.asarray(1 / np.maximum(away, max(1e-3 * float(np.median(away)), 1e-9)), np.float64)
    return found


def _median_extra(residual: Doubles, variance: Doubles) -> float:
    """The extra variance at which the median deviation is that of a normal distribution."""
    away = residual * residual / MEDIAN_DEVIATION**2
    return _root_of(lambda extra: float(np.median(away / (variance + extra))) - 1, float(away.max()))


def _extra(residual: Doubles, variance: Doubles, freedom: float) -> float:
    """The extra variance at which chi2 is the degrees of freedom; 0 where the errors are enough."""
    if freedom <= 0:
        return 0.0
    square = residual * residual
    return _root_of(lambda extra: float((square / (variance + extra)).sum()) - freedom, float(square.sum()))


def _root_of(excess: Callable[[float], float], high: float) -> float:
    """Where a falling function is 0, from 0 on; 0 where it begins below."""
    if excess(0.0) <= 0:
        return 0.0
    low = 0.0
    while excess(high) > 0:
        high *= 2
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return high


def _weighted(design: Doubles, values: Doubles, variance: Doubles) -> tuple[Doubles, Doubles]:
    weighted = design / variance[:, None]
    covariance = np.linalg.inv(weighted.T @ design)
    return covariance @ (weighted.T @ values), np.asarray(covariance)
