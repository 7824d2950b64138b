"""Photon transfer and linearity: the gain from how the noise of flat fields grows with their level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BadPixels, Mixture, NoSolution
from .stats import DIGITISATION_VARIANCE_ADU2, truncation

Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

# Side of the squares within which a pair of flats is compared: gradients and dust are flat over it.
BLOCK_PX = 32
# A pixel this far from the mean of its square (a fraction of it) is dead, blocked or lit by a star.
ODD_FRACTION = 0.5
# Squares whose noise is this far from that of the others, in their own error, are left out.
BLOCK_SIGMA = 3.5
# What no pair is better than, and how well a read noise is known.
FLOOR_FRACTION = 2e-4
READ_NOISE_FRACTION = 0.01
# How much the logarithm of variance / level may change up to saturation (brighter-fatter, nonlinearity), and
# how much it may bend besides: one sigma. Where the levels tell nothing of it, this is the error that stays.
CHANGE_FRACTION, BEND_FRACTION = 0.15, 0.02
# A pair further off than this, in its error and as a fraction, is left out, if there are so many.
PAIR_SIGMA, PAIR_FRACTION, PAIRS_TO_REJECT = 5.0, 0.01, 4
# Pairs are of one level up to this ratio.
SAME_LEVEL = 1.05
NONLINEAR_FRACTION = 0.01
# One sigma of what may hide or mimic nonlinearity: the response's own terms (at saturation), the shutter,
# and the change of the lamp over the whole sequence.
SLOPE_FRACTION, SECOND_FRACTION, SHUTTER_S, DRIFT_FRACTION = 0.1, 0.03, 0.01, 0.05
STEADIEST_LAMP_FRACTION = 1e-4


@dataclass(frozen=True)
class Transfer:
    """A pair of flats on the photon transfer curve.

    level_adu: the mean level above zero. adu_per_e: variance by photons / level,
    whose limit at zero is 1 / gain; error its standard error. pixels: how many
    counted.
    """

    level_adu: float
    adu_per_e: float
    error: float
    pixels: int

    @property
    def variance_adu2(self) -> float:
        """Variance by photons of one exposure, ADU^2."""
        return self.adu_per_e * self.level_adu


@dataclass(frozen=True, eq=False)
class TransferFit:
    """The photon transfer curve of one amplifier, fitted.

    gain_e_adu and its standard error are those at zero level. At x = level /
    scale_adu the variance by photons is level / gain * exp(change x + bend x^2);
    excess_adu2 is what there is besides it and the read noise. kept: which pairs
    were used.
    """

    gain_e_adu: float
    error_e_adu: float
    excess_adu2: float
    change: float
    bend: float
    scale_adu: float
    kept: Bools

    def variance_adu2(self, level_adu: npt.ArrayLike) -> Doubles:
        """Variance at a level, less that of the read noise, ADU^2."""
        level = np.asarray(level_adu, dtype=np.float64)
        variance: Doubles = self.excess_adu2 + level / self.gain_e_adu * (1 + self.change_at(level))
        return variance

    def change_at(self, level_adu: npt.ArrayLike) -> Doubles:
        """Relative change of the variance by photons / level from zero to a level."""
        x = np.asarray(level_adu, dtype=np.float64) / self.scale_adu
        change: Doubles = np.expm1(self.change * x + self.bend * x * x)
        return change


@dataclass(frozen=True, eq=False)
class Linearity:
    """How far an amplifier's levels are from a straight line through zero.

    deviation: of each exposure, as a fraction, lamp and shutter taken out.
    largest_fraction: of the curve, with its sign, from zero to the highest level
    measured; error_fraction its standard error. nonlinear_adu: the level at which
    the curve leaves 1%, nan if it does not up to the highest level measured.
    """

    deviation: Doubles
    largest_fraction: float
    error_fraction: float
    nonlinear_adu: float


def pair_transfer(
    one: npt.NDArray[Any],
    other: npt.NDArray[Any],
    read_noise_adu: float,
    use: Bools | None = None,
    clip_sigma: float = 4.0,
) -> Transfer | None:
    """Compare two flats of one amplifier: level, and variance by photons over level.

    one, other: (ny, nx), ADU above zero, of about equal level; use: True where
    both count. In squares of 32 x 32 pixels each is divided by its own mean, so
    that gradients, dust, the pixels' responses and a lamp that changed all cancel
    in the difference; its variance, clipped at clip_sigma and corrected for that,
    less read noise and digitisation (1/12 ADU^2 a frame) is what photons make.
    Squares that stand out are left out (3.5 sigma). Returns None where less than
    half of every square is usable. Raises Mixture (shapes differ), BadPixels (no
    difference at all, or not more than the read noise). Source: photon transfer
    (Janesick 2001, Scientific Charge-Coupled Devices, chapter 2).
    """
    if one.shape != other.shape:
        raise Mixture(f"a pair of flats of different shapes: {one.shape} and {other.shape}")
    difference, kept, levels = _differences(one, other, use)
    known = np.isfinite(levels).all(axis=0)
    if not known.any():
        return None
    first, second = np.where(known, levels, 1.0)
    photon = 1 / first + 1 / second
    electronic = (read_noise_adu**2 + DIGITISATION_VARIANCE_ADU2) * (1 / first**2 + 1 / second**2)

    def slopes(limit: Doubles | None) -> tuple[Doubles, npt.NDArray[np.int64], Bools]:
        variance, count = _block_variance(difference, kept, limit, clip_sigma)
        found = known & (count >= BLOCK_PX)
        return (variance - electronic) / photon, count, found

    slope, count, found = slopes(None)
    for _ in range(2):
        if not found.any():
            return None
        centre = float(np.median(slope[found]))
        if centre <= 0:
            raise BadPixels("the difference of the two flats has no more noise than the read noise")
        slope, count, found = slopes(clip_sigma * np.sqrt(centre * photon + electronic))
    # The noise of a square's own variance, with the read noise that was taken off.
    error = (centre + electronic / photon) * np.sqrt(2 / np.maximum(count - 1, 1))
    found &= np.abs(slope - centre) <= BLOCK_SIGMA * error
    if not found.any():
        return None
    pixels = int(count[found].sum())
    weight = count[found] / pixels
    value = float((weight * slope[found]).sum())
    statistical = math.sqrt(float((np.square(weight) * np.square(error[found])).sum()))
    digital = 2 * READ_NOISE_FRACTION * read_noise_adu**2
    level = float((weight * (2 / photon[found])).sum())
    return Transfer(level, value, math.hypot(statistical, FLOOR_FRACTION * value, digital / level), pixels)


def _differences(
    one: npt.NDArray[Any], other: npt.NDArray[Any], use: Bools | None
) -> tuple[Floats, Bools, Doubles]:
    """Relative difference, what of it counts, and both levels (2, squares); cut to whole squares."""
    rows, columns = (_sides(length) for length in one.shape)
    shape = (rows[0] * rows[1], columns[0] * columns[1])
    difference, kept = np.zeros(shape, np.float32), np.zeros(shape, np.bool_)
    levels = np.full((2, rows[0], columns[0]), np.nan)
    for number in range(rows[0]):
        place = (slice(number * rows[1], (number + 1) * rows[1]), slice(0, shape[1]))
        pair = [np.asarray(part[place], np.float32) for part in (one, other)]
        good = np.isfinite(pair[0]) & np.isfinite(pair[1])
        if use is not None:
            good &= use[place]
        for part in pair:
            typical = _over(_means(part, good, columns[1]), columns[1])
            good &= np.abs(part - typical) < np.float32(ODD_FRACTION) * typical
        means = [_means(part, good, columns[1]) for part in pair]
        full = good.sum(axis=0).reshape(columns).sum(axis=1) * 2 >= rows[1] * columns[1]
        full &= (means[0] > 0) & (means[1] > 0)
        good &= np.repeat(full, columns[1])
        kept[place] = good
        levels[:, number] = np.where(full, means, np.nan)
        first, second = (
            part / _over(np.where(full, mean, 1), columns[1]) for part, mean in zip(pair, means, strict=True)
        )
        np.subtract(first, second, out=difference[place], where=good)
    return difference, kept, levels


def _sides(length: int) -> tuple[int, int]:
    """How many squares, and their side; the pixels beyond the last whole one are left."""
    side = min(BLOCK_PX, length)
    return length // side, side


def _over(numbers: Doubles, side: int) -> Floats:
    """A number of each square in a row of them, for its columns."""
    return np.repeat(numbers, side).astype(np.float32)


def _means(values: Floats, good: Bools, side: int) -> Doubles:
    """Means of squares in a row of them, nan where nothing is good."""
    total = np.where(good, values, np.float32(0)).sum(axis=0, dtype=np.float64).reshape(-1, side).sum(axis=1)
    count = good.sum(axis=0).reshape(-1, side).sum(axis=1)
    means: Doubles = total / np.where(count > 0, count, np.nan)
    return means


def _block_variance(
    difference: Floats, kept: Bools, limit: Doubles | None, clip_sigma: float
) -> tuple[Doubles, npt.NDArray[np.int64]]:
    """Variance in every square of what is within its limit, corrected for the clip, and the pixels it is of."""
    rows, columns = (_sides(length) for length in difference.shape)
    variance = np.zeros((rows[0], columns[0]))
    count = np.zeros((rows[0], columns[0]), np.int64)
    for number in range(rows[0]):
        place = slice(number * rows[1], (number + 1) * rows[1])
        values, good = difference[place], kept[place]
        if limit is not None:
            good = good & (np.abs(values) <= np.repeat(limit[number], columns[1]).astype(np.float32))
        values = np.where(good, values, np.float32(0))
        n = good.sum(axis=0).reshape(columns).sum(axis=1)
        total = values.sum(axis=0, dtype=np.float64).reshape(columns).sum(axis=1)
        squares = np.square(values, out=values).sum(axis=0, dtype=np.float64).reshape(columns).sum(axis=1)
        variance[number] = (squares - total**2 / np.maximum(n, 1)) / np.maximum(n - 1, 1)
        count[number] = n
    if limit is not None:
        variance /= truncation(-clip_sigma, clip_sigma) ** 2
    return variance, count


def fit_transfer(pairs: Sequence[Transfer], scale_adu: float, read_noise_adu: float) -> TransferFit:
    """Gain at zero level from pairs at one or more levels.

    scale_adu: the level of saturation, or another at which the curve may have
    bent by some 15%. Charge that pushes charge away (brighter-fatter) and
    nonlinearity lower variance / level, nearly exponentially, so a straight photon
    transfer curve would bias the gain. Its logarithm is a parabola of the level,
    whose terms have the prior 0 +- 0.15 and 0 +- 0.02 at scale_adu; and exposed
    frames may have an excess of noise over the read noise of biases, of variance
    0 +- its own. So the fit takes from the levels what they say, and puts what
    they do not say into the error: one level at a third of saturation gives the
    gain to 5%. A pair that is off by more than 5 sigma and 1% is left out, if
    there are at least four. Raises NoSolution. Source: Astier et al. (2019, A&A
    629, A36) for the exponential; the priors are a ridge regression (Hoerl and
    Kennard 1970, Technometrics 12, 55).
    """
    if not pairs:
        raise NoSolution("no pair of flats: nothing to fit")
    level = np.array([one.level_adu for one in pairs])
    y = np.log([one.adu_per_e for one in pairs])
    error = np.array([one.error / one.adu_per_e for one in pairs])
    # An excess adds excess / (level x slope) to the logarithm, where it is small.
    slope = math.exp(float(np.median(y)))
    prior = np.array([np.inf, CHANGE_FRACTION, BEND_FRACTION, read_noise_adu**2 / slope])

    def fitted(kept: Bools) -> tuple[Doubles, Doubles]:
        levels, values, errors = _merged(level[kept], y[kept], error[kept])
        return _ridge(_terms(levels, scale_adu), values, errors, prior)

    design = _terms(level, scale_adu)
    kept = np.ones(len(pairs), np.bool_)
    terms, covariance = fitted(kept)
    while kept.sum() >= PAIRS_TO_REJECT:
        worst = int(np.argmax(np.where(kept, np.abs(y - design @ terms) / error, 0)))
        without = kept.copy()
        without[worst] = False
        trial, its_covariance = fitted(without)
        # Off the curve through the others: its own pull on the curve must not hide it.
        off = abs(float(y[worst] - design[worst] @ trial))
        if off <= max(PAIR_SIGMA * float(error[worst]), PAIR_FRACTION):
            break
        kept, terms, covariance = without, trial, its_covariance
    rest = (y - design @ terms)[kept] / error[kept]
    freedom = int(kept.sum()) - 1
    scatter = max(1.0, math.sqrt(float(np.square(rest).sum()) / freedom)) if freedom else 1.0
    gain = math.exp(-float(terms[0]))
    return TransferFit(
        gain_e_adu=gain,
        error_e_adu=scatter * math.sqrt(float(covariance[0, 0])) * gain,
        excess_adu2=float(terms[3]) * slope,
        change=float(terms[1]),
        bend=float(terms[2]),
        scale_adu=scale_adu,
        kept=kept,
    )


def _terms(level_adu: Doubles, scale_adu: float) -> Doubles:
    """A parabola of the level, and what an excess does that does not grow with it."""
    return np.column_stack([np.vander(level_adu / scale_adu, 3, increasing=True), 1 / level_adu])


def _merged(level: Doubles, y: Doubles, error: Doubles) -> tuple[Doubles, Doubles, Doubles]:
    """Weighted means of the pairs of one level: their differences say nothing of a slope but would be taken to."""
    group = np.zeros(len(level), np.int64)
    first = -np.inf
    for place in np.argsort(level):
        if level[place] > SAME_LEVEL * first:
            first, group = level[place], group + (level >= level[place])
    weight = 1 / np.square(error)
    total = np.bincount(group, weight)[1:]
    means = [np.bincount(group, weight * one)[1:] / total for one in (level, y)]
    return means[0], means[1], 1 / np.sqrt(total)


def _ridge(design: Doubles, y: Doubles, error: Doubles | float, prior: Doubles) -> tuple[Doubles, Doubles]:
    """Least squares with each term 0 +- its prior: terms and covariance."""
    weighted = design / np.broadcast_to(error, y.shape)[:, None]
    # In units of the priors (of the data, where there is none): terms of all sizes are then solved alike.
    unit = np.where(np.isfinite(prior), prior, 1 / np.sqrt(np.square(weighted).sum(axis=0)))
    scaled = weighted * unit
    normal = scaled.T @ scaled + np.diag(np.isfinite(prior).astype(np.float64))
    covariance: Doubles = np.linalg.inv(normal) * unit * unit[:, None]
    terms: Doubles = covariance @ (weighted.T @ (y / error))
    return terms, covariance


def lamp_scatter(levels_adu: npt.ArrayLike, groups: Sequence[object]) -> float | None:
    """Relative scatter of exposures that should be equal: those of one group; None if none is repeated.

    levels_adu: one an exposure; groups: filter and exposure time, or whatever
    must agree. Pooled standard deviation (n - 1) of level / mean level.
    """
    levels = np.asarray(levels_adu, dtype=np.float64)
    squares, freedom = 0.0, 0
    for group in dict.fromkeys(groups):
        member = levels[[one == group for one in groups]]
        squares += float(np.square(member / member.mean() - 1).sum())
        freedom += member.size - 1
    return math.sqrt(squares / freedom) if freedom else None


def fit_linearity(
    levels_adu: npt.ArrayLike,
    exptime_s: npt.ArrayLike,
    start_s: npt.ArrayLike,
    lamps: Sequence[object],
    scale_adu: float,
    lamp_fraction: float,
) -> Linearity:
    """The deviation of an amplifier from linear, from flats of different exposure times.

    levels_adu (above zero), exptime_s, start_s: one an exposure; lamps: which
    exposures had the same light (the filter). scale_adu: saturation. The
    logarithm of level / exposure time is a constant a lamp, a parabola of the
    level, and two nuisances of limited size: an error of the shutter (0 +- 0.01 s)
    and a steady change of the lamp (0 +- 5% over the sequence). lamp_fraction is
    the scatter of exposures that should be equal; the residuals' own is taken
    where it is larger. What the order of the exposures cannot tell from a lamp
    that changes is therefore in error_fraction. The curve is 0 at zero level.
    """
    levels, exptime = np.asarray(levels_adu, np.float64), np.asarray(exptime_s, np.float64)
    start = np.asarray(start_s, np.float64)
    x = levels / scale_adu
    names = list(dict.fromkeys(lamps))
    constant = np.array([[one == name for name in names] for one in lamps], np.float64)
    span = float(np.ptp(start)) or 1.0
    nuisances = np.stack([1 / exptime, (start - start.mean()) / span], axis=1)
    design = np.hstack([np.stack([x, x * x], axis=1), nuisances, constant])
    prior = np.array([SLOPE_FRACTION, SECOND_FRACTION, SHUTTER_S, DRIFT_FRACTION] + [np.inf] * len(names))
    y = np.log(levels / exptime)
    # About their means a lamp: the constants would dwarf the prior terms in the solution.
    middle = constant @ (constant.T @ y / constant.sum(axis=0))
    error = max(lamp_fraction, STEADIEST_LAMP_FRACTION)
    terms, covariance = _ridge(design, y - middle, error, prior)
    freedom = max(len(y) - len(names) - 1, 1)
    scatter = math.sqrt(float(np.square(y - middle - design @ terms).sum()) / freedom)
    if scatter > error:
        terms, covariance = _ridge(design, y - middle, scatter, prior)
    curve = np.linspace(0, float(x.max()), 257)
    deviation = np.expm1(terms[0] * curve + terms[1] * curve**2)
    largest = int(np.argmax(np.abs(deviation)))
    top = np.array([curve[-1], curve[-1] ** 2])
    others = design[:, 2:] @ terms[2:]
    return Linearity(
        deviation=np.expm1(y - middle - others),
        largest_fraction=float(deviation[largest]),
        error_fraction=math.sqrt(float(top @ covariance[:2, :2] @ top)),
        nonlinear_adu=_crossing(curve * scale_adu, np.abs(deviation)),
    )


def _crossing(level_adu: Doubles, away: Doubles) -> float:
    """The lowest level at which a curve passes 1%; nan if it does not."""
    beyond = np.flatnonzero(away > NONLINEAR_FRACTION)
    if not beyond.size:
        return math.nan
    after = int(beyond[0])
    low, high = away[after - 1], away[after]
    part = (NONLINEAR_FRACTION - low) / (high - low)
    return float(level_adu[after - 1] + part * (level_adu[after] - level_adu[after - 1]))
