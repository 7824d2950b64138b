"""The electronic level of each row, from the overscan columns beside the image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BadPixels, BadValue, Mixture, nearest
from .stats import DIGITISATION_VARIANCE_ADU2, clipped, row_medians, truncation

Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

MODES = ("none", "level", "rows", "rows-smooth")

PIXEL_SIGMA = 4.0
ROW_SIGMA = 5.0
COLUMN_SIGMA = 5.0
GAP_COLUMNS = 2
# Rows of the windows of rows-smooth; the last is always the whole strip.
WINDOWS = (51, 101, 201, 401, 801, 1601)
# How far, in its own error, a line over a window may be from that over a longer one.
WINDOW_SIGMA = 3.0
# Highest degree of the polynomial of rows-smooth; it needs as many rows as its square.
HIGHEST_DEGREE = 32
BASELINE_ROWS = 32
NOISE_SAMPLE = 1 << 13


@dataclass(frozen=True, eq=False)
class Overscan:
    """What the overscan says.

    ``rows`` (ny,) float32, ADU: to be subtracted from each row. ``level_adu`` the
    clipped mean of the whole, ``slope_adu_per_row`` the straight line through the rows,
    ``noise_adu`` the noise of one overscan pixel about its row (digitisation taken off
    where the strip is of integers), ``rejected`` pixels of the strip not used,
    ``columns_rejected`` columns of it that were left out whole.
    """

    rows: Floats
    level_adu: float
    slope_adu_per_row: float
    noise_adu: float
    rejected: int
    columns_rejected: int


def overscan_rows(strip: npt.NDArray[Any], mode: str) -> Overscan:
    """The level of each row of an amplifier from its overscan, ADU.

    ``strip`` (ny, columns of the overscan), ADU. Modes:

    - ``none``: zeros, and nothing is measured (all numbers 0).
    - ``level``: one number for all rows, the clipped mean (an integer median would be
      coarse by half a unit).
    - ``rows``: the clipped mean of each row; a row without a usable pixel is
      interpolated. It follows everything, and adds noise / sqrt(columns) to each row.
    - ``rows-smooth``: the means of the rows, fitted by a polynomial whose degree (to 32)
      follows from the rows themselves; what it leaves, such as steps, is followed by
      straight lines in running windows that are as long (51 rows to all) as the errors
      allow. Drifts cost little noise: 0.04 ADU for 32 columns of 2.7 ADU and 4096 rows.
      Rows that stand off by more than 5 times the scatter of rows (a bleeding star)
      are left out and bridged.

    Left out before: columns at one end that differ by more than 5 times their own error
    from the mean of the calmer half of the strip (the first columns after a bright
    image trail, some are off altogether), and pixels further than 4 times the noise
    from the median of their row (cosmic rays). What is not finite is left out.

    Source: the degree is that of least expected error (Mallows 1973, Technometrics 15,
    661); the windows are chosen by Lepski's rule (1990, Theory of Probability and its
    Applications 35, 454).
    """
    if mode not in MODES:
        known = ", ".join(MODES)
        raise BadValue(f"overscan mode {mode!r}{nearest(mode, list(MODES))}", hint=f"modes: {known}")
    if strip.ndim != 2:
        raise Mixture(f"an overscan strip of {strip.ndim} dimensions: it must have 2")
    ny = strip.shape[0]
    if mode == "none":
        return Overscan(np.zeros(ny, np.float32), 0.0, 0.0, 0.0, 0, 0)
    values = np.array(strip, dtype=np.float32)
    good = np.isfinite(values)
    if not good.any():
        raise BadPixels(f"no pixel of the overscan strip of {ny} rows x {strip.shape[1]} columns is finite")
    whole = strip.dtype.kind in "iu"
    finite = good.copy()
    away = _reject_pixels(values, good, whole)
    steady = _steady_columns(away, good)
    if not steady.all():
        good = finite & steady
        _reject_pixels(values, good, whole)
    means, counts = _row_means(values, good)
    noise = _noise(values, good, means, counts, whole)
    accepted = _accepted_rows(means, counts, noise)
    level = clipped(_kept(strip, good & accepted[:, None])).mean
    slope = _line(means, np.where(accepted, counts, 0))[1]
    if mode == "level":
        rows = np.full(ny, level)
    elif mode == "rows":
        rows = np.interp(np.arange(ny), np.flatnonzero(counts), means[counts > 0])
    else:
        rows = _smooth_rows(means, np.where(accepted, counts, 0), noise)
    used = int(good.sum()) if mode == "rows" else int(good[accepted].sum())
    return Overscan(
        rows.astype(np.float32), level, slope, noise, int(strip.size) - used, int((~steady).sum())
    )


def _kept(strip: npt.NDArray[Any], good: Bools) -> npt.NDArray[Any]:
    # In the strip's own type: the clip then knows about integers.
    kept: npt.NDArray[Any] = strip[good]
    return kept


def _steady_columns(away: Floats, good: Bools) -> Bools:
    """Which columns agree with the calmer half of the strip; all, where there are fewer than 6.

    ``away`` is the distance of each pixel from the median of its row.
    """
    rows, columns = away.shape
    everything = np.ones(columns, np.bool_)
    if columns < 6:
        return everything
    kept = np.where(good, away, 0).astype(np.float64)
    counts = good.sum(axis=0)
    scatter = math.sqrt(float(np.square(kept).sum()) / max(int(counts.sum()), 1))
    with np.errstate(invalid="ignore"):
        means = kept.sum(axis=0) / np.where(2 * counts > rows, counts, np.nan)
    if np.isnan(means).all():
        return everything
    half = columns // 2
    calm = means[-half:] if _width(means[-half:]) <= _width(means[:half]) else means[:half]
    off = ~(np.abs(means - np.nanmedian(calm)) <= COLUMN_SIGMA * scatter / math.sqrt(rows))
    steady = everything.copy()
    steady[: _trail(off)] = False
    steady[columns - _trail(off[::-1]) :] = False
    return steady if steady.any() else everything


def _trail(off: Bools) -> int:
    """Columns from the first on that are off, over gaps of two; one amid good ones is left to the pixels' clip."""
    length = 0
    for column in np.flatnonzero(off).tolist():
        if column > length + GAP_COLUMNS:
            break
        length = column + 1
    return length


def _width(means: Doubles) -> float:
    known = means[~np.isnan(means)]
    return float(np.ptp(known)) if 2 * known.size > means.size else math.inf


def _reject_pixels(values: Floats, good: Bools, whole: bool) -> Floats:
    """Take out of ``good`` what lies far from the median of its row; the distances."""
    with np.errstate(invalid="ignore"):
        away = values - row_medians(values, good)[:, None]
    known = away[good]
    # A few thousand distances give the noise to 1%, enough for a limit.
    spread = clipped(known[:: (known.size // NOISE_SAMPLE) | 1]).stdev
    with np.errstate(invalid="ignore"):
        good &= np.abs(away) <= max(PIXEL_SIGMA * spread, 1.5 if whole else 0.0)
    return away


def _row_means(values: Floats, good: Bools) -> tuple[Doubles, npt.NDArray[np.int64]]:
    """Mean of what is good in each row (nan where nothing is), and its number."""
    reference = float(values[good][0])
    counts = good.sum(axis=1)
    sums = np.where(good, values, reference).astype(np.float64) - reference
    with np.errstate(invalid="ignore"):
        means: Doubles = reference + sums.sum(axis=1) / np.where(counts > 0, counts, np.nan)
    return means, counts


def _noise(values: Floats, good: Bools, means: Doubles, counts: npt.NDArray[np.int64], whole: bool) -> float:
    """Noise of one pixel about the mean of its row."""
    freedom = int(counts.sum()) - int((counts > 0).sum())
    if freedom <= 0:
        return 0.0
    away = np.where(good, values - np.nan_to_num(means)[:, None], 0)
    variance = float(np.square(away, dtype=np.float64).sum()) / freedom
    variance /= truncation(-PIXEL_SIGMA, PIXEL_SIGMA) ** 2
    return math.sqrt(max(variance - (DIGITISATION_VARIANCE_ADU2 if whole else 0), 0))


def _accepted_rows(means: Doubles, counts: npt.NDArray[np.int64], noise: float) -> Bools:
    """Rows that do not stand off from the others around them."""
    known = counts > 0
    at = np.flatnonzero(known)
    if at.size < 8:
        return known
    middles, levels = [], []
    for part in np.array_split(at, max(1, at.size // BASELINE_ROWS)):
        middles.append(float(part.mean()))
        levels.append(float(np.median(means[part])))
    # Straight on beyond the outermost medians, so that a drift does not throw out the first rows.
    away = means[at] - _interpolate(at, np.array(middles), np.array(levels))
    error = math.sqrt(noise**2 + DIGITISATION_VARIANCE_ADU2) / math.sqrt(float(np.median(counts[at])))
    accepted = known.copy()
    accepted[at] = np.abs(away) <= ROW_SIGMA * max(clipped(away).stdev, error)
    return accepted


def _interpolate(at: npt.NDArray[np.int64], x: Doubles, y: Doubles) -> Doubles:
    """Straight lines between points, and on beyond the first and the last."""
    if len(x) == 1:
        return np.full(len(at), y[0])
    left = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(x) - 2)
    line: Doubles = y[left] + (y[left + 1] - y[left]) / (x[left + 1] - x[left]) * (at - x[left])
    return line


def _smooth_rows(means: Doubles, weights: npt.NDArray[np.int64], noise: float) -> Doubles:
    """A polynomial of the degree that the rows ask for, and running lines through what it leaves."""
    used = weights[weights > 0]
    pixel = math.sqrt(noise**2 + DIGITISATION_VARIANCE_ADU2)
    error = pixel / math.sqrt(float(np.median(used))) if used.size else pixel
    trend = _polynomial(means, weights, error)
    return trend + _running_lines(np.where(weights > 0, means, trend) - trend, weights, error)


def _polynomial(means: Doubles, weights: npt.NDArray[np.int64], error: float) -> Doubles:
    """Least-squares polynomial over the rows, whose degree has the least expected error (Mallows 1973)."""
    ny = len(means)
    known = weights > 0
    degree = min(HIGHEST_DEGREE, math.isqrt(int(known.sum())) - 1)
    if degree < 1:
        offset, slope = _line(means, weights)
        straight: Doubles = offset + slope * np.arange(ny, dtype=np.float64)
        return straight
    basis: Doubles = np.asarray(
        np.polynomial.chebyshev.chebvander(np.linspace(-1, 1, ny), degree), np.float64
    )
    root = np.sqrt(weights[known] / float(weights.max()))
    orthogonal, triangle = np.linalg.qr(basis[known] * root[:, None])
    terms = orthogonal.T @ (means[known] * root)
    # What leaving out all higher terms costs in fit, against what keeping them costs in noise.
    left = np.concatenate([np.cumsum(np.square(terms)[::-1])[::-1][1:], [0.0]])
    kept = 1 + int(np.argmin(left + 2 * error**2 * np.arange(1, degree + 2)))
    result: Doubles = basis[:, :kept] @ np.linalg.solve(triangle[:kept, :kept], terms[:kept])
    return result


def _running_lines(means: Doubles, weights: npt.NDArray[np.int64], error: float) -> Doubles:
    """At each row the straight line through the longest window around it that agrees with all shorter ones."""
    ny = len(means)
    fits: list[tuple[Doubles, Doubles]] = []
    result = np.zeros(ny)
    growing = np.ones(ny, np.bool_)
    for window in [*(one for one in WINDOWS if one < ny), ny]:
        fit = _running_line(means, weights, window)
        for shorter, its_error in fits:
            growing &= np.abs(fit - shorter) <= WINDOW_SIGMA * its_error
        result[growing] = fit[growing]
        fits.append((fit, error * _line_error(ny, window)))
    # Where neighbours took different windows the level must not jump.
    return _running_line(result, np.ones(ny, np.int64), min(WINDOWS[0], ny))


def _line_error(ny: int, window: int) -> Doubles:
    """Error of a running line at each row, for values of error 1: larger at the ends of the strip."""
    first = np.clip(np.arange(ny) - window // 2, 0, ny - window)
    away = np.arange(ny) - (first + 0.5 * (window - 1))
    spread = max(window**2 - 1, 1) / 12
    error: Doubles = np.sqrt((1 + away**2 / spread) / window)
    return error


def _line(means: Doubles, weights: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Weighted straight line: value at row 0 and slope a row; slope 0 where it is not determined."""
    total = float(weights.sum())
    if total == 0:
        return 0.0, 0.0
    at = np.arange(len(means), dtype=np.float64)
    value = np.where(weights > 0, means, 0.0)
    middle, level = float((weights * at).sum()) / total, float((weights * value).sum()) / total
    spread = float((weights * (at - middle) ** 2).sum())
    if spread == 0:
        return level, 0.0
    slope = float((weights * (at - middle) * (value - level)).sum()) / spread
    return level - slope * middle, slope


def _running_line(means: Doubles, weights: npt.NDArray[np.int64], window: int) -> Doubles:
    """At each row the weighted straight line through the ``window`` rows around it (at the ends: the last such)."""
    ny = len(means)
    at = np.arange(ny, dtype=np.float64)
    offset, slope = _line(means, weights)
    whole = offset + slope * at
    rest = np.where(weights > 0, means - whole, 0.0)
    first = np.clip(np.arange(ny) - window // 2, 0, ny - window)
    middle = first + 0.5 * (window - 1)

    def sums(terms: Doubles) -> Doubles:
        running = np.concatenate([[0.0], np.cumsum(terms)])
        total: Doubles = running[first + window] - running[first]
        return total

    w = weights.astype(np.float64)
    s0, s1, s2 = sums(w), sums(w * at), sums(w * at * at)
    t0, t1 = sums(w * rest), sums(w * at * rest)
    # Moments about the window's middle: about row 0 the determinant would be a small difference.
    s2, t1 = s2 - 2 * middle * s1 + middle**2 * s0, t1 - middle * t0
    s1 = s1 - middle * s0
    determinant = s0 * s2 - s1 * s1
    # Fewer than a quarter of the rows do not carry a line of their own: the line through all does.
    full = s0 > 0.25 * window * max(float(w.max()), 1.0)
    enough = full & (determinant > 1e-6 * s0 * s0 * window**2)
    safe = np.where(enough, determinant, 1.0)
    level, tilt = (t0 * s2 - t1 * s1) / safe, (s0 * t1 - s1 * t0) / safe
    return whole + np.where(enough, level + tilt * (at - middle), 0.0)
