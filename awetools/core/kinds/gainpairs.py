"""What the recipe of `gain` does with its flats: levels, pairs, the lamp, the points of the curves.

Imported by the recipe when it runs, because it needs numpy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np

from ..errors import BadPixels
from ..frame import Frame, RawFrame
from ..pixels.transfer import (
    Linearity,
    Transfer,
    TransferFit,
    fit_linearity,
    fit_transfer,
    lamp_scatter,
    pair_transfer,
)
from ..sections import Amplifier
from .common import Trimmed, amplifier_map, saturation_of
from .exposures import CONSTANT, cut_off, sampled_rows
from .gain import GainParams

# An amplifier with less than this fraction of the light of the brightest is dead.
DEAD_FRACTION = 0.1
# The scale of the curves where saturation is not known: what a 16-bit converter can say.
FULL_SCALE_ADU = 65535.0
# The least ratio of exposure times that says something of linearity.
EXPTIME_RATIO = 1.5


@dataclass(frozen=True, eq=False)
class Exposure:
    """A flat: its place among the inputs, each amplifier's level (ADU above zero), why it is left out if so.

    cut: how each amplifier is too bright or constant, in words, empty if it is not.
    """

    place: int
    trimmed: Trimmed
    levels: tuple[float, ...]
    cut: tuple[str, ...]
    reason: str = ""

    @property
    def meta(self) -> Mapping[str, Any]:
        """The meta of the raw frame."""
        return self.trimmed.frame.meta

    @property
    def name(self) -> str:
        """What people call it."""
        return str(self.meta.get("exposure"))

    @property
    def twilight(self) -> bool:
        """Whether its light was the sky's, which is never the same twice."""
        return self.meta.get("frame_type") == "raw_twiflat"

    @property
    def lamp(self) -> str:
        """What its light has in common with others': the filter, and whether it was a lamp."""
        return f"{self.meta.get('filter')} twilight" if self.twilight else str(self.meta.get("filter"))

    @property
    def level_adu(self) -> float:
        """The level of its brightest amplifier."""
        return max(self.levels)


Pair = tuple[Exposure, Exposure]


@dataclass(frozen=True)
class Background:
    """What all flats of the detector share: the bias, the pixels that count, the read noise of amplifiers."""

    bias: Frame | None
    good: np.ndarray
    read_noise_adu: Sequence[float]

    def less_bias(self, values: np.ndarray, y0: int, y1: int) -> np.ndarray:
        """Rows less the bias of these rows, in place."""
        if self.bias is not None:
            values -= self.bias.data[y0:y1]
        return values


@dataclass(frozen=True)
class Curves:
    """What was found: points of each pair and amplifier, fits and linearity of each amplifier (None: no light).

    lit: the exposures of a lamp, which the linearity is of. lamp_fraction: scatter
    of those that should be equal, None if none was repeated. unknown: why
    linearity was not measured, empty if it was.
    """

    points: Sequence[Sequence[Transfer | None]]
    fits: Sequence[TransferFit | None]
    linearities: Sequence[Linearity | None]
    lit: Sequence[Exposure]
    lamp_fraction: float | None
    unknown: str


def box_of(amp: Amplifier) -> tuple[slice, slice]:
    """Rows and columns of an amplifier in the trimmed detector."""
    return slice(amp.target.y0, amp.target.y1), slice(amp.target.x0, amp.target.x1)


def background_of(shape: tuple[int, int], bias: Frame | None, read_noise: Sequence[float]) -> Background:
    """The bias, and the pixels that it does not exclude."""
    good = np.ones(shape, dtype=bool)
    if bias is not None and bias.weight is not None:
        good &= bias.weight > 0
    return Background(bias, good, read_noise)


def exposure_of(place: int, trimmed: Trimmed, background: Background, params: GainParams) -> Exposure:
    """The levels of an exposure, from a part of its rows."""
    frame = trimmed.frame
    bands = sampled_rows(frame)
    lines = np.concatenate([np.arange(*band) for band in bands])
    counts = np.concatenate([frame.rows(*band) for band in bands])
    values = np.concatenate([background.less_bias(trimmed.rows(*band), *band) for band in bands])
    use = np.isfinite(values) & background.good[lines]
    levels, cut = [], []
    for amp, saturation in zip(frame.amplifiers, saturation_of(frame.meta, frame.amplifiers), strict=True):
        rows, columns = box_of(amp)
        box = ((lines >= rows.start) & (lines < rows.stop), columns)
        levels.append(_mean_level(values[box][use[box]]))
        cut.append(cut_off(amp.name, counts[box][use[box]], saturation, params.max_level_fraction))
    return Exposure(place, trimmed, tuple(levels), tuple(cut))


def judged(exposures: Sequence[Exposure], min_level_adu: float) -> list[Exposure]:
    """The exposures with the reason why one is left out.

    An amplifier that is constant in all of them, while another is not, has no light.
    """
    stuck = {
        number
        for number in range(len(exposures[0].cut))
        if all(CONSTANT in one.cut[number] for one in exposures)
    }
    if len(stuck) == len(exposures[0].cut):
        stuck = set()
    found = []
    for one in exposures:
        levels = tuple(0.0 if number in stuck else level for number, level in enumerate(one.levels))
        reasons = [text for number, text in enumerate(one.cut) if text and number not in stuck]
        if not reasons and not max(levels) >= min_level_adu:
            reasons = [f"level {max(levels):.0f} ADU is below min_level_adu = {min_level_adu:g}"]
        found.append(replace(one, levels=levels, reason=reasons[0] if reasons else ""))
    return found


def _mean_level(values: np.ndarray) -> float:
    """Mean of what is within half of the median: the same pixels in all exposures, whatever their noise."""
    if not values.size:
        return 0.0
    middle = float(np.median(values))
    near = values[np.abs(values - middle) <= 0.5 * abs(middle)]
    return float(near.mean(dtype=np.float64)) if near.size else middle


def paired(exposures: Sequence[Exposure], pair_fraction: float) -> tuple[list[Pair], list[Exposure]]:
    """Neighbours in time of one filter and level, two by two, and the exposures that are left out.

    An odd one makes a pair with the one nearest in time that has a partner already.
    """
    pairs: list[Pair] = []
    left_out = [one for one in exposures if one.reason]
    usable = [one for one in exposures if not one.reason]
    single = list(usable)
    while single:
        one = single.pop(0)
        others = [other for other in usable if other.lamp == one.lamp and other is not one]
        equal = [other for other in others if _difference(one, other) <= pair_fraction]
        equal.sort(key=lambda other: (other not in single, _apart(usable, one, other)))
        if equal:
            pairs.append((one, equal[0]))
            single = [other for other in single if other is not equal[0]]
        else:
            left_out.append(replace(one, reason=_alone(one, others, pair_fraction)))
    return pairs, left_out


def _difference(one: Exposure, other: Exposure) -> float:
    """How much two levels differ, as a fraction of the higher; 1 if neither has light."""
    high = max(one.level_adu, other.level_adu)
    return abs(one.level_adu - other.level_adu) / high if high > 0 else 1.0


def _apart(exposures: Sequence[Exposure], one: Exposure, other: Exposure) -> int:
    return abs(exposures.index(one) - exposures.index(other))


def _alone(one: Exposure, others: Sequence[Exposure], pair_fraction: float) -> str:
    nearest = min(others, key=lambda other: _difference(one, other), default=None)
    text = f"no other flat in {one.lamp} is within {pair_fraction:.1%} of its level, {one.level_adu:.0f} ADU"
    return f"{text} (nearest: {nearest.name}, {nearest.level_adu:.0f} ADU)" if nearest else text


def points_of(
    pairs: Sequence[Pair], background: Background, clip_sigma: float
) -> tuple[list[Pair], list[list[Transfer | None]], list[Exposure]]:
    """The pairs that say something, their points of each amplifier, and the exposures of the others.

    A point is None where an amplifier has no light. Raises BadPixels if no pair says anything.
    """
    kept, points, reasons = [], [], []
    refused: list[Exposure] = []
    for one, other in pairs:
        found, reason = _points(one, other, background, clip_sigma)
        if any(found):
            kept.append((one, other))
            points.append(found)
            continue
        reasons.append(f"{one.name} and {other.name}: {reason}")
        refused += [
            replace(part, reason=f"with {mate.name}: {reason}") for part, mate in ((one, other), (other, one))
        ]
    if not kept:
        raise BadPixels("; ".join(reasons), hint="awe-imstat shows their pixels")
    used = {one.place for pair in kept for one in pair}
    return kept, points, [one for one in refused if one.place not in used]


def _points(
    one: Exposure, other: Exposure, background: Background, clip_sigma: float
) -> tuple[list[Transfer | None], str]:
    frame = one.trimmed.frame
    height = frame.shape[0]
    limit = amplifier_map(frame.amplifiers, saturation_of(frame.meta, frame.amplifiers), frame.shape)
    use, images = background.good.copy(), []
    for part in (one, other):
        images.append(background.less_bias(part.trimmed.image(), 0, height))
        if np.isfinite(limit).any():
            use &= part.trimmed.frame.rows(0, height) < limit
    points: list[Transfer | None] = []
    reason = "no square of 32 x 32 pixels is usable"
    for number, amp in enumerate(frame.amplifiers):
        box, point = box_of(amp), None
        if min(one.levels[number], other.levels[number]) >= DEAD_FRACTION * one.level_adu:
            try:
                read_noise = background.read_noise_adu[number]
                point = pair_transfer(images[0][box], images[1][box], read_noise, use[box], clip_sigma)
            except BadPixels as error:
                reason = error.message
        points.append(point)
    return points, reason


def curves_of(
    points: Sequence[Sequence[Transfer | None]],
    exposures: Sequence[Exposure],
    background: Background,
    params: GainParams,
) -> Curves:
    """The photon transfer curve and the linearity of each amplifier."""
    amplifiers = exposures[0].trimmed.frame.amplifiers
    scales = [_scale(exposures, number, background.bias) for number in range(len(amplifiers))]
    fits = []
    for number, scale in enumerate(scales):
        found = [point for point in (row[number] for row in points) if point is not None]
        read_noise = background.read_noise_adu[number]
        fits.append(fit_transfer(found, scale, read_noise) if found else None)
    lit = [one for one in exposures if not one.twilight]
    lamp = lamp_scatter(
        [one.level_adu for one in lit], [(one.lamp, one.meta.get("exptime_s")) for one in lit]
    )
    unknown = _why_unknown(lit, lamp, params.lamp_fraction)
    nothing: list[Linearity | None] = [None] * len(scales)
    if unknown:
        return Curves(points, fits, nothing, lit, lamp, unknown)
    linearities = [
        None if fit is None else _linearity(lit, number, scales[number], lamp or 0.0)
        for number, fit in enumerate(fits)
    ]
    if not any(linearities):
        unknown = "not measured: no amplifier has light in every exposure"
        return Curves(points, fits, nothing, lit, lamp, unknown)
    error = max(one.error_fraction for one in linearities if one is not None)
    if error > params.linearity_fraction:
        unknown = (
            f"not measured: its error would be {error:.1%} (linearity_fraction = {params.linearity_fraction:.1%}): "
            "take more levels, and the first one again at the end, to tell a drift of the lamp from the detector"
        )
        return Curves(points, fits, nothing, lit, lamp, unknown)
    return Curves(points, fits, linearities, lit, lamp, "")


def _scale(exposures: Sequence[Exposure], number: int, bias: Frame | None) -> float:
    """Saturation of an amplifier above zero, ADU; 65,535 where it is not known."""
    trimmed = exposures[0].trimmed
    amp = trimmed.frame.amplifiers[number]
    saturation = saturation_of(trimmed.frame.meta, trimmed.frame.amplifiers)[number]
    if not math.isfinite(saturation):
        return FULL_SCALE_ADU
    zero = float(np.mean(trimmed.levels[number]))
    if bias is not None:
        zero += float(np.median(bias.data[box_of(amp)]))
    return max(saturation - zero, *(one.levels[number] for one in exposures), 1.0)


def _why_unknown(exposures: Sequence[Exposure], lamp: float | None, lamp_fraction: float) -> str:
    """Why the exposures say nothing of linearity, in words; empty if they may."""
    if not exposures:
        return "not measured: twilight has no constant light"
    times = [one.meta.get("exptime_s") for one in exposures]
    if not all(time and time > 0 for time in times):
        return "not measured: the exposure times are not all known"
    for name in {one.lamp for one in exposures}:
        own = [float(time) for one, time in zip(exposures, times, strict=True) if one.lamp == name and time]
        if max(own) >= EXPTIME_RATIO * min(own):
            break
    else:
        return "not measured: no filter has levels of different exposure times"
    if lamp is None:
        return "not measured: no exposure time was repeated, so whether the lamp was stable is not known"
    if lamp > lamp_fraction:
        return (
            f"not measured: the lamp was not stable: exposures of one time scatter by {lamp:.2%}, "
            f"more than lamp_fraction = {lamp_fraction:.2%}"
        )
    return ""


def _linearity(exposures: Sequence[Exposure], number: int, scale: float, lamp: float) -> Linearity | None:
    levels = [one.levels[number] for one in exposures]
    if min(levels) <= 0:
        return None
    return fit_linearity(
        levels,
        [one.meta["exptime_s"] for one in exposures],
        _start_s(exposures),
        [one.lamp for one in exposures],
        scale,
        lamp,
    )


def _start_s(exposures: Sequence[Exposure]) -> list[float]:
    """Starts, in s since the first; the order, where they are not known."""
    try:
        starts = [datetime.fromisoformat(str(one.meta.get("obs_start"))) for one in exposures]
    except ValueError:
        return [float(number) for number in range(len(exposures))]
    return [(start - starts[0]).total_seconds() for start in starts]


def table_of(
    curves: Curves, exposures: Sequence[Exposure], read_noise: Sequence[float], frame: RawFrame
) -> dict[str, np.ndarray]:
    """The table of the product: a row an amplifier, its points as vectors in the row."""
    fits, linearities = curves.fits, curves.linearities
    gains = _gains(fits, frame)
    errors = [fit.error_e_adu if fit else gain for fit, gain in zip(fits, gains, strict=True)]
    levels = np.array([one.levels for one in exposures]).T
    times = np.array([float(one.meta.get("exptime_s") or 0) for one in exposures])
    return {
        "AMP": np.array([amp.name for amp in frame.amplifiers]),
        "GAIN_E_ADU": np.array(gains),
        "GAIN_ERROR_E_ADU": np.array(errors),
        "READ_NOISE_ADU": np.array(read_noise, np.float64),
        "READ_NOISE_E": np.array(read_noise, np.float64) * gains,
        "EXCESS_ADU2": np.array([fit.excess_adu2 if fit else 0.0 for fit in fits]),
        "CHANGE_FRACTION": np.array([_change(curves, number) for number in range(len(fits))]),
        "PAIRS": np.array([int(fit.kept.sum()) if fit else 0 for fit in fits], np.int32),
        "LINEARITY_EXPOSURES": np.array([len(one.deviation) if one else 0 for one in linearities], np.int32),
        "NONLINEARITY_FRACTION": np.array([one.largest_fraction if one else 0.0 for one in linearities]),
        "NONLINEARITY_ERROR_FRACTION": np.array([one.error_fraction if one else 0.0 for one in linearities]),
        "NONLINEAR_ADU": np.nan_to_num([one.nonlinear_adu if one else 0.0 for one in linearities]),
        **_pair_columns(curves),
        "FLAT_LEVEL_ADU": levels,
        "FLAT_EXPTIME_S": np.tile(times, (len(fits), 1)),
        "FLAT_DEVIATION_FRACTION": _deviations(curves, exposures),
    }


def measures_of(table: Mapping[str, np.ndarray], curves: Curves) -> dict[str, float | int | None]:
    """What the table says in one number each, over the amplifiers that have light."""
    alive = table["PAIRS"] > 0
    straight = table["LINEARITY_EXPOSURES"] > 0
    level = table["PAIR_LEVEL_ADU"][alive]
    away = table["NONLINEARITY_FRACTION"][straight]
    nonlinear = table["NONLINEAR_ADU"][straight & (table["NONLINEAR_ADU"] > 0)]
    change = table["CHANGE_FRACTION"][alive]
    return {
        "gain_e_adu": float(table["GAIN_E_ADU"][alive].mean()),
        "gain_error_e_adu": float(table["GAIN_ERROR_E_ADU"][alive].max()),
        "read_noise_e": float(table["READ_NOISE_E"][alive].mean()),
        "change_fraction": float(change[np.argmax(np.abs(change))]),
        "nonlinearity_fraction": float(away[np.argmax(np.abs(away))]) if away.size else None,
        "nonlinearity_error_fraction": (
            float(table["NONLINEARITY_ERROR_FRACTION"][straight].max()) if away.size else None
        ),
        "nonlinear_adu": float(nonlinear.min()) if nonlinear.size else None,
        "lamp_scatter_fraction": curves.lamp_fraction,
        "level_min_adu": float(level[level > 0].min()),
        "level_max_adu": float(level.max()),
        "pairs": int(table["PAIRS"][alive].min()),
        "dead_amplifiers": int((~alive).sum()),
    }


def _gains(fits: Sequence[TransferFit | None], frame: RawFrame) -> list[float]:
    """Gain of each amplifier, e/ADU; of one without light the documented one, else the mean of the others."""
    known = [fit.gain_e_adu for fit in fits if fit]
    documented = frame.meta.get("gain_e_adu") or []
    if len(documented) != len(fits) or not all(documented):
        documented = [sum(known) / len(known)] * len(fits)
    return [fit.gain_e_adu if fit else float(one) for fit, one in zip(fits, documented, strict=True)]


def _change(curves: Curves, number: int) -> float:
    """Change of variance / level of an amplifier, from zero to its highest pair."""
    fit = curves.fits[number]
    if fit is None:
        return 0.0
    top = max(point.level_adu for row in curves.points if (point := row[number]) is not None)
    return float(fit.change_at(top))


def _deviations(curves: Curves, exposures: Sequence[Exposure]) -> np.ndarray:
    """Deviation from linear of each amplifier and exposure; 0 where it was not measured."""
    out = np.zeros((len(curves.linearities), len(exposures)))
    lit = np.isin([one.place for one in exposures], [one.place for one in curves.lit])
    for number, linearity in enumerate(curves.linearities):
        if linearity is not None:
            out[number, lit] = linearity.deviation
    return out


def _pair_columns(curves: Curves) -> dict[str, np.ndarray]:
    """Level, variance, its error and the fit at every pair, and whether it was used; 0 without light."""
    shape = (len(curves.fits), len(curves.points))
    level, variance, error, fitted = (np.zeros(shape) for _ in range(4))
    used = np.zeros(shape, np.bool_)
    for number, fit in enumerate(curves.fits):
        if fit is None:
            continue
        own = [place for place, row in enumerate(curves.points) if row[number] is not None]
        found = [point for row in curves.points if (point := row[number]) is not None]
        level[number, own] = [point.level_adu for point in found]
        variance[number, own] = [point.variance_adu2 for point in found]
        error[number, own] = [point.error * point.level_adu for point in found]
        fitted[number, own] = fit.variance_adu2(level[number, own])
        used[number, own] = fit.kept
    return {
        "PAIR_LEVEL_ADU": level,
        "PAIR_VARIANCE_ADU2": variance,
        "PAIR_ERROR_ADU2": error,
        "PAIR_FIT_ADU2": fitted,
        "PAIR_USED": used,
    }
