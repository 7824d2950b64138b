"""The electronic level of each row, from the overscan columns beside the image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BadPixels, BadValue, Mixture, nearest
from .kernels import kernel
from .stats import DIGITISATION_VARIANCE_ADU2, clipped, middle, row_medians, truncation

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
    sums = _reject_pixels(values, good, whole)
    steady = _steady_columns(sums)
    if not steady.all():
        good = finite & steady
        sums = _reject_pixels(values, good, whole)
    counts = sums.rows[:, 0].astype(np.int64)
    means, noise = _row_means(sums), _noise(sums, whole)
    accepted = _accepted_rows(means, counts, noise)
    level = clipped(_kept(strip, good & accepted[:, None])).mean
    slope = _line(means, np.where(accepted, counts, 0))[1]
    if mode == "level":
        rows = np.full(ny, level)
    elif mode == "rows":
        rows = np.interp(np.arange(ny), np.flatnonzero(counts), means[counts > 0])
    else:
        rows = _smooth_rows(means, np.where(accepted, counts, 0), noise)
    used = int(counts.sum()) if mode == "rows" else int(counts[accepted].sum())
    return Overscan(
        rows.astype(np.float32), level, slope, noise, int(strip.size) - used, int((~steady).sum())
    )


def less_levels(
    raw: npt.NDArray[Any],
    columns: tuple[int, int],
    turned: tuple[bool, bool],
    levels: Floats,
    out: Floats,
    place: tuple[int, int],
) -> None:
    """Put raw rows, less the level of each row, into the image of a detector.

    ``raw`` (rows, columns of the raw frame), ADU, of which the half-open range
    ``columns`` is taken; ``turned``: whether it is read backwards along x and along y;
    ``levels`` (rows,) float32, ADU, in the order of ``out`` (ny, nx) float32, whose
    part that begins at ``place`` (y, x) is written. What single precision cannot hold
    becomes infinite.
    """
    flip_x, flip_y = turned
    x0, x1 = columns
    y, x = place
    compiled = kernel("overscan") if raw.dtype in (np.uint16, np.int16) and raw.flags.c_contiguous else None
    if compiled is not None and out.flags.c_contiguous:
        levels = np.ascontiguousarray(levels)
        compiled.less_levels(raw, levels, out, x0, x1, y, x, flip_x, flip_y, raw.dtype == np.int16)
        return
    part = out[y : y + len(raw), x : x + x1 - x0]
    # What is beyond single precision becomes infinite, and is treated like all that is not finite.
    with np.errstate(over="ignore"):
        part[...] = raw[:: -1 if flip_y else 1, x0:x1][:, :: -1 if flip_x else 1]
    part -= levels[:, None]


def _kept(strip: npt.NDArray[Any], good: Bools) -> npt.NDArray[Any]:
    # In the strip's own type: the clip then knows about integers.
    kept: npt.NDArray[Any] = strip[good]
    return kept


@dataclass(frozen=True, eq=False)
class _Sums:
    """Of the good pixels of each row number, sum and sum of squares (ny, 3); of each column number and sum (2, nx).

    Sums are of distances from the row's median, ``medians`` (ny,).
    """

    medians: Floats
    rows: Doubles
    columns: Doubles


def _steady_columns(sums: _Sums) -> Bools:
    """Which columns agree with the calmer half of the strip; all, where there are fewer than 6."""
    rows, columns = len(sums.rows), sums.columns.shape[1]
    everything = np.ones(columns, np.bool_)
    if columns < 6:
        return everything
    counts, total = sums.columns
    scatter = math.sqrt(float(sums.rows[:, 2].sum()) / max(float(counts.sum()), 1))
    means = total / np.where(2 * counts > rows, counts, np.nan)
    if np.isnan(means).all():
        return everything
    half = columns // 2
    calm = means[-half:] if _width(means[-half:]) <= _width(means[:half]) else means[:half]
    level = float(middle(calm[~np.isnan(calm)]))
    off = ~(np.abs(means - level) <= COLUMN_SIGMA * scatter / math.sqrt(rows))
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


def _reject_pixels(values: Floats, good: Bools, whole: bool) -> _Sums:
    """Take out of ``good`` what lies far from the median of its row; sums over the rest."""
    medians = row_medians(values, good)
    # A few thousand distances give the noise to 1%, enough for a limit.
    some = np.arange(0, values.size, (values.size // NOISE_SAMPLE) | 1)
    some = some[good.ravel()[some]]
    spread = clipped(values.ravel()[some] - medians[some // values.shape[1]]).stdev
    return _row_sums(values, good, medians, max(PIXEL_SIGMA * spread, 1.5 if whole else 0.0))


def _row_sums(values: Floats, good: Bools, medians: Floats, limit: float) -> _Sums:
    """Sums of what is good and within the limit; the rest is not good any more."""
    ny, nx = values.shape
    compiled = kernel("overscan")
    if compiled is not None:
        rows, columns = np.empty((ny, 3)), np.zeros((2, nx))
        compiled.row_sums(values, good, medians, rows, columns, limit)
        return _Sums(medians, rows, columns)
    with np.errstate(invalid="ignore"):
        away = values.astype(np.float64) - medians.astype(np.float64)[:, None]
        good &= np.abs(away) <= limit
    away[~good] = 0
    # Pixel after pixel, and row after row, as the kernel adds.
    turned = np.ascontiguousarray(away.T)
    along = [good.sum(axis=1), np.add.reduce(turned, axis=0), np.add.reduce(np.square(turned), axis=0)]
    return _Sums(medians, np.stack(along, axis=1), np.stack([good.sum(axis=0), np.add.reduce(away, axis=0)]))


def _row_means(sums: _Sums) -> Doubles:
    """Mean of what is good in each row; nan where nothing is."""
    counts = sums.rows[:, 0]
    means: Doubles = sums.medians + sums.rows[:, 1] / np.where(counts > 0, counts, np.nan)
    return means


def _noise(sums: _Sums, whole: bool) -> float:
    """Noise of one pixel about the mean of its row."""
    counts, total, squares = sums.rows.T
    freedom = int(counts.sum()) - int((counts > 0).sum())
    if freedom <= 0:
        return 0.0
    variance = float((squares - np.square(total) / np.maximum(counts, 1)).sum()) / freedom
    variance /= truncation(-PIXEL_SIGMA, PIXEL_SIGMA) ** 2
    return math.sqrt(max(variance - (DIGITISATION_VARIANCE_ADU2 if whole else 0), 0))


def _accepted_rows(means: Doubles, counts: npt.NDArray[np.int64], noise: float) -> Bools:
    """Rows that do not stand off from the others around them."""
    known = counts > 0
    at = np.flatnonzero(known)
    if at.size < 8:
        return known
    # Straight on beyond the outermost medians, so that a drift does not throw out the first rows.
    away = means[at] - _interpolate(at, *_baseline(at, means[at]))
    error = math.sqrt(noise**2 + DIGITISATION_VARIANCE_ADU2) / math.sqrt(float(middle(counts[at])))
    accepted = known.copy()
    accepted[at] = np.abs(away) <= ROW_SIGMA * max(clipped(away).stdev, error)
    return accepted


def _baseline(at: npt.NDArray[np.int64], means: Doubles) -> tuple[Doubles, Doubles]:
    """Mean row and median level of stretches of about ``BASELINE_ROWS`` rows, which differ by 1 at most."""
    parts = max(1, at.size // BASELINE_ROWS)
    shorter, longer = divmod(at.size, parts)
    cut = longer * (shorter + 1)
    middles, levels = [], []
    for first, last, rows in ((0, cut, shorter + 1), (cut, at.size, shorter)):
        if last > first:
            middles.append(at[first:last].reshape(-1, rows).mean(axis=1))
            ordered = np.sort(means[first:last].reshape(-1, rows), axis=1)
            levels.append(0.5 * (ordered[:, (rows - 1) // 2] + ordered[:, rows // 2]))
    return np.concatenate(middles), np.concatenate(levels)


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
    error = pixel / math.sqrt(float(middle(used))) if used.size else pixel
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
    # What leaving out all higher terms costs in fit, against what keeping them costs in noise.
    basis, terms = _orthogonal_terms(np.where(known, means, 0.0), weights / float(weights.max()), degree)
    left = np.concatenate([np.cumsum(np.square(terms)[::-1])[::-1][1:], [0.0]])
    kept = 1 + int(np.argmin(left + 2 * error**2 * np.arange(1, degree + 2)))
    result: Doubles = terms[:kept] @ basis[:kept]
    return result


def _orthogonal_terms(means: Doubles, weights: Doubles, degree: int) -> tuple[Doubles, Doubles]:
    """Polynomials (degree + 1, ny) that are orthonormal under these weights, and the terms of the rows in them.

    Source: the recurrence of Forsythe (1957, Journal of SIAM 5, 74).
    """
    ny = len(means)
    at = np.linspace(-1, 1, ny)
    basis = np.empty((degree + 1, ny))
    basis[0] = 1 / math.sqrt(float(weights.sum()))
    before, norm = np.zeros(ny), 0.0
    weighted = np.empty(ny)
    compiled = kernel("overscan")
    for one in range(degree):
        if compiled is not None:
            compiled.next_degree(basis[one], at, weights, basis[one + 1], weighted)
            centre = float(weighted @ basis[one + 1])
            compiled.less_terms(basis[one + 1], basis[one], before, weights, weighted, centre, norm)
            norm = math.sqrt(float(weighted @ basis[one + 1]))
            basis[one + 1] /= norm
            before = basis[one]
            continue
        np.multiply(at, basis[one], out=basis[one + 1])
        centre = float(np.multiply(basis[one], weights, out=weighted) @ basis[one + 1])
        basis[one + 1] -= centre * basis[one]
        basis[one + 1] -= norm * before
        np.multiply(basis[one + 1], weights, out=weighted)
        norm = math.sqrt(float(weighted @ basis[one + 1]))
        basis[one + 1] /= norm
        before = basis[one]
    terms: Doubles = basis @ (weights * means)
    return basis, terms


def _running_lines(means: Doubles, weights: npt.NDArray[np.int64], error: float) -> Doubles:
    """At each row the straight line through the longest window around it that agrees with all shorter ones."""
    ny = len(means)
    windows = [*(one for one in WINDOWS if one < ny), ny]
    fits, limits = np.empty((len(windows), ny)), np.empty((len(windows), ny))
    result, growing = np.zeros(ny), np.ones(ny, np.bool_)
    lines = _Lines(means, weights)
    for number, window in enumerate(windows):
        fits[number] = lines.running(window)
        _lengthen(fits[: number + 1], limits[:number], growing, result)
        if not growing.any():
            break
        np.multiply(error * _line_error(ny, window), WINDOW_SIGMA, out=limits[number])
    # Where neighbours took different windows the level must not jump.
    return _Lines(result, np.ones(ny, np.int64)).running(min(WINDOWS[0], ny))


def _lengthen(fits: Doubles, limits: Doubles, growing: Bools, result: Doubles) -> None:
    """Take the last fit where it agrees with all before it within their limits; elsewhere nothing grows any more."""
    compiled = kernel("overscan")
    if compiled is not None:
        compiled.lengthen(fits, limits, growing, result)
        return
    for shorter, limit in zip(fits[:-1], limits, strict=True):
        growing &= np.abs(fits[-1] - shorter) <= limit
    result[growing] = fits[-1][growing]


@lru_cache(maxsize=32)
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


class _Lines:
    """Straight lines through windows of rows, from sums that all windows share."""

    def __init__(self, means: Doubles, weights: npt.NDArray[np.int64]) -> None:
        ny = len(means)
        at = np.arange(ny, dtype=np.float64)
        offset, slope = _line(means, weights)
        self.at, self.whole = at, offset + slope * at
        rest = np.where(weights > 0, means - self.whole, 0.0)
        w = weights.astype(np.float64)
        self.most = max(float(w.max()), 1.0)
        self.sums = np.zeros((5, ny + 1))
        moved, weighted = w * at, w * rest
        np.cumsum([w, moved, moved * at, weighted, weighted * at], axis=1, out=self.sums[:, 1:])

    def running(self, window: int) -> Doubles:
        """At each row the weighted line through the ``window`` rows around it (at the ends: the last such)."""
        ny = len(self.at)
        compiled = kernel("overscan")
        if compiled is not None:
            found = np.empty(ny)
            compiled.running(self.sums, self.whole, found, window, 0.25 * window * self.most)
            return found
        # Every window once: the rows near an end share theirs.
        s0, s1, s2, t0, t1 = self.sums[:, window:] - self.sums[:, : ny + 1 - window]
        middle = self.at[: ny + 1 - window] + 0.5 * (window - 1)
        # Moments about the window's middle: about row 0 the determinant would be a small difference.
        s2, t1 = s2 - 2 * middle * s1 + middle**2 * s0, t1 - middle * t0
        s1 = s1 - middle * s0
        determinant = s0 * s2 - s1 * s1
        # Fewer than a quarter of the rows do not carry a line of their own: the line through all does.
        enough = (s0 > 0.25 * window * self.most) & (determinant > 1e-6 * s0 * s0 * window**2)
        safe = np.where(enough, determinant, 1.0)
        level = np.where(enough, (t0 * s2 - t1 * s1) / safe, 0.0)
        tilt = np.where(enough, (s0 * t1 - s1 * t0) / safe, 0.0)
        ends = window // 2, window - 1 - window // 2
        return self.whole + _spread(level, *ends) + _spread(tilt, *ends) * (self.at - _spread(middle, *ends))


def _spread(windows: Doubles, before: int, after: int) -> Doubles:
    """A value a window as a value a row: so many rows at each end share the outermost windows."""
    return np.concatenate([np.full(before, windows[0]), windows, np.full(after, windows[-1])])
