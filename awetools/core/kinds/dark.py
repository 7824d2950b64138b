"""Master dark: the charge that gathers in the pixels without light."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import BadHeader, BadPixels, Mixture, TooFew
from ..kind import (
    DETECTOR_MATCH,
    Kind,
    LeftOut,
    Limit,
    Measure,
    MetaByRole,
    Need,
    Result,
    group,
    nights,
    valid_at,
)
from ..params import param
from .declare import overscan_mode_param

if TYPE_CHECKING:
    import numpy as np

    from ..frame import Frame, FrameSet, RawFrame, Table
    from ..sections import Amplifier
    from .common import Trimmed

# Shutters and clocks differ by less than this part of an exposure time.
SAME_EXPTIME_FRACTION = 1e-3
# A dark whose level is off by less than so many read noises is no sign of light.
LEVEL_READ_NOISES = 5.0
LEAST_FRAMES = 2
IMSTAT_HINT = "awe-imstat on the raw frames"
# Rows of each amplifier from which the noise is estimated where nothing gives it, as for a bias.
NOISE_ROWS = 128
# No exposure has more than this part of the weight in a median of exposures of different times.
LARGEST_SHARE = 0.4
# The blocks in which the smooth dark current is measured.
GLOW_SCALE_PX = 64


@dataclass(frozen=True)
class DarkParams:
    """Parameters of `make_dark`."""

    clip_sigma: float = param(
        3.0, "Reject pixels this far from the median, by the noise model.", unit="sigma", low=1
    )
    warm_sigma: float = param(
        5.0, "A pixel this far above the smooth dark current is counted as warm.", unit="sigma", low=1
    )
    max_level_fraction: float = param(
        0.5, "Leave out exposures whose level is off by this fraction of what the others give.", low=0.01
    )
    overscan_mode: str = overscan_mode_param()


def make_dark(
    raw: FrameSet,
    *,
    bias: Frame | None = None,
    readnoise: Table | None = None,
    gain: Table | None = None,
    params: DarkParams,
) -> Result:
    """Stack exposures without light into the dark current of every pixel.

    raw: at least three darks of one detector and temperature, ADU. bias: SCI (ADU).
    readnoise: a row an amplifier, else the bias or the camera table gives it, else (and
    always without a bias, whose level hides how much of it is dark current) the noise of
    pairs of these darks takes its place. gain: a row an amplifier, else the camera table
    gives it. With a bias: each exposure less overscan and bias is divided by its time,
    pixels off the median by the noise model (read noise and signal / gain) are rejected,
    which takes cosmic rays, and the rest are averaged, weighted by time. Without one,
    exposures of one time are averaged as they are, the bias in them. Returns SCI (ADU/s;
    ADU without a bias) and WEIGHT (its inverse variance; 0 where no exposure has a value
    below saturation, or all disagree: SCI is then a lower limit, or the median). Raises
    BadHeader (no exposure time), Mixture (times that differ, and no bias), TooFew (light
    in all but one exposure, or constant), BadPixels (nothing left).
    """
    import numpy as np

    from .common import gain_of, in_time_order, trim

    ordered = in_time_order(raw)
    for frame in ordered:
        _exptime(frame)
    frames, constant = _not_constant(ordered)
    times = [_exptime(frame) for frame in frames]
    if bias is None:
        _refuse_times(frames, times)
    trimmed = [trim(frame, params.overscan_mode) for frame in frames]
    e_adu = gain_of(gain, frames[0].meta, raw.amplifiers)
    noise, used = _read_noise(readnoise, bias, trimmed, times, raw.amplifiers)
    levels = [_level(one, bias) for one in trimmed]
    left_out = _left_out(levels, times, bias is None, max(noise), params.max_level_fraction)
    kept = [number for number in range(len(frames)) if number not in {one for one, _ in left_out}]
    unused = [*constant, *((frames[number], reason) for number, reason in left_out)]
    if len(kept) < LEAST_FRAMES:
        raise TooFew(f"the darks do not agree: {_reasons(unused)}", hint=IMSTAT_HINT)
    scales = [times[n] if bias is not None else 1.0 for n in kept]
    pedestals = [0.0 if bias else _pedestal([trimmed[n] for n in kept], amp) for amp in raw.amplifiers]
    stack = _Stack([trimmed[n] for n in kept], scales, bias, pedestals, noise, e_adu, params.clip_sigma)
    data, weight, rejected = _combine(raw, stack)
    if not (weight > 0).any():
        raise BadPixels("the darks have no pixel on which they agree: all saturated, not finite or changing")
    current = _current(data, weight, raw.amplifiers, params.warm_sigma)
    places = {id(frame): place for place, frame in enumerate(raw.frames)}
    rate = bias is not None
    return Result(
        planes={"SCI": data, "WEIGHT": weight},
        measures={
            "dark_current_e_s": float(np.nanmean(np.multiply(current.medians, e_adu))) if rate else None,
            "dark_current_adu_s": float(np.nanmean(current.medians)) if rate else None,
            "glow_adu_s": current.glow if rate else None,
            "level_adu": float(np.median([levels[n] for n in kept])),
            "offset_adu": _offset([times[n] for n in kept], [levels[n] for n in kept]) if rate else None,
            "warm_fraction": current.warm_fraction,
            "read_noise_adu": float(np.mean(noise)),
            "exptime_min_s": min(times[n] for n in kept),
            "exptime_max_s": max(times[n] for n in kept),
            "rejected_fraction": rejected / (data.size * len(kept)),
            "unstable_pixels": int(np.count_nonzero((weight == 0) & (data != 0))),
            "frames": len(kept),
            "left_out": len(unused),
        },
        left_out=[LeftOut(places[id(frame)], reason) for frame, reason in unused],
        meta={} if rate else {"holds_bias": 1, "exptime_s": times[kept[0]]},
        used=used,
        unit=None if rate else "adu",
    )


def serves_frame(dark: Mapping[str, Any], frame: Mapping[str, Any]) -> str:
    """Why a dark does not serve a frame: one that holds its bias serves its own exposure time only."""
    if not dark.get("holds_bias"):
        return ""
    one, other = dark.get("exptime_s"), frame.get("exptime_s")
    if one and other and _same_time(one, other):
        return ""
    wanted = "those of unknown or differing times" if other is None else f"{other:g} s"
    return f"it was made without a bias and serves exposures of {one or 0:g} s only, not {wanted}"


def _foretold(frames: Mapping[str, Any], roles: Collection[str]) -> Mapping[str, Any]:
    """What a dark adds to the meta of its frames: that it holds the bias, where there is none."""
    return {} if "bias" in roles else {"holds_bias": 1, "exptime_s": frames.get("exptime_s")}


def _without_bias(chosen: MetaByRole) -> str:
    """Why a dark takes no read noise: the level of the bias hides how much of it is dark current."""
    return "" if "bias" in chosen else "without a bias the noise of pairs of the darks is taken"


def _reasons(unused: Sequence[tuple[RawFrame, str]]) -> str:
    return "; ".join(f"{frame.meta.get('exposure')}: {reason}" for frame, reason in unused)


def _not_constant(frames: Sequence[RawFrame]) -> tuple[list[RawFrame], list[tuple[RawFrame, str]]]:
    """The frames that were read out, and those that are constant, and why they are not used.

    Raises BadPixels if all are constant, TooFew if all but one are.
    """
    from .exposures import constant_level

    kept, constant = [], []
    for frame in frames:
        level = constant_level(frame)
        if level is None:
            kept.append(frame)
        else:
            constant.append((frame, f"all its pixels read {level:.0f} ADU"))
    if not kept:
        raise BadPixels(f"the darks are constant: {_reasons(constant)}", hint=IMSTAT_HINT)
    if len(kept) < LEAST_FRAMES:
        raise TooFew(f"all darks but one are constant: {_reasons(constant)}", hint=IMSTAT_HINT)
    return kept, constant


def _same_time(one: float, other: float) -> bool:
    return abs(one - other) <= SAME_EXPTIME_FRACTION * max(one, other)


def _exptime(frame: RawFrame) -> float:
    """The exposure time, s; raises BadHeader where it is not known or not above 0."""
    seconds = frame.meta.get("exptime_s")
    if not seconds or seconds <= 0:
        raise BadHeader(
            f"{frame.meta.get('exposure')}: the exposure time of a dark is {seconds!r}",
            hint="awe-ingest --set exptime_s=SECONDS FILE",
        )
    return float(seconds)


def _refuse_times(frames: Sequence[RawFrame], times: Sequence[float]) -> None:
    """Raise Mixture unless all exposure times are equal: the bias in them cannot be scaled."""
    for frame, seconds in zip(frames, times, strict=True):
        if not _same_time(seconds, times[0]):
            raise Mixture(
                f"{frame.meta.get('exposure')}: exptime_s is {seconds:g}, but "
                f"{frames[0].meta.get('exposure')} has {times[0]:g}: without a bias they cannot be combined",
                hint="--bias FILE, or awe-query raw_dark exptime_s=SECONDS gives those of one time",
            )


def _read_noise(
    readnoise: Table | None,
    bias: Frame | None,
    trimmed: Sequence[Trimmed],
    times: Sequence[float],
    amplifiers: Sequence[Amplifier],
) -> tuple[list[float], dict[str, str]]:
    """Read noise of each amplifier, ADU, and where it came from if nothing gave it."""
    import numpy as np

    from .common import READ_NOISE_HINT, noise_of_pairs, read_noise_of

    values = read_noise_of(readnoise, [bias.meta, trimmed[0].frame.meta], amplifiers) if bias else None
    if values is not None:
        return values, {}
    groups = [
        [one for one, other in zip(trimmed, times, strict=True) if _same_time(seconds, other)]
        for seconds in times
    ]
    alike = max(groups, key=len)
    if len(alike) < 2:
        raise BadHeader("the read noise is not known, and no two darks have one time", hint=READ_NOISE_HINT)
    pairs = noise_of_pairs(alike, amplifiers, rows=NOISE_ROWS)
    noise = [float(value) for value in np.median(pairs, axis=0)]
    return noise, {"readnoise": "estimated from pairs of these darks, the noise of their dark current in it"}


def _level(one: Trimmed, bias: Frame | None) -> float:
    """Clipped median of an exposure less its bias, ADU."""
    import numpy as np

    from ..pixels.stats import clipped

    # A quarter of the rows gives it to some 1/1000 of the noise.
    image = one.image()[::4]
    if bias is not None:
        image = image - bias.data[::4]
    return clipped(image[np.isfinite(image)]).median


def _pedestal(trimmed: Sequence[Trimmed], amp: Amplifier) -> float:
    """Median over the exposures of an amplifier's level, bias and all, ADU."""
    import numpy as np

    from ..pixels.stats import clipped

    columns = slice(amp.target.x0, amp.target.x1)
    levels = [clipped(one.rows(amp.target.y0, amp.target.y1)[:, columns]).median for one in trimmed]
    return float(np.median(levels))


def _offset(times: Sequence[float], levels: Sequence[float]) -> float | None:
    """Intercept of the least-squares line through the levels, ADU: what the bias leaves; None for one time."""
    import numpy as np

    if all(_same_time(one, times[0]) for one in times):
        return None
    return float(np.polyfit(times, levels, 1)[1])


def _left_out(
    levels: Sequence[float],
    times: Sequence[float],
    holds_bias: bool,
    noise_adu: float,
    max_level_fraction: float,
) -> list[tuple[int, str]]:
    """The exposures whose level is not what the others give: light fell on them, or they are saturated."""
    import numpy as np

    scale = np.ones(len(times)) if holds_bias else np.asarray(times)
    expected = scale * float(np.median(np.asarray(levels) / scale))
    # The pedestal of a bias says nothing about the dark current.
    fraction = 0.0 if holds_bias else max_level_fraction
    allowed = np.maximum(fraction * np.abs(expected), LEVEL_READ_NOISES * noise_adu)
    return [
        (number, f"its level is {level:.1f} ADU, where the others give {there:.1f} +- {limit:.1f}")
        for number, (level, there, limit) in enumerate(zip(levels, expected, allowed, strict=True))
        if not abs(level - there) <= limit
    ]


@dataclass(frozen=True)
class _Stack:
    """The exposures that are combined, what is subtracted, and what their noise is made of."""

    trimmed: Sequence[Trimmed]
    scales: Sequence[float]
    bias: Frame | None
    pedestals_adu: Sequence[float]
    noise_adu: Sequence[float]
    gain_e_adu: Sequence[float]
    clip_sigma: float


def _combine(raw: FrameSet, stack: _Stack) -> tuple[np.ndarray, np.ndarray, int]:
    """Weighted clipped mean (ny, nx), its inverse variance, and the count rejected."""
    import numpy as np

    from .common import amplifier_map, saturation_of

    data = np.zeros(raw.shape, dtype=np.float32)
    weight = np.zeros(raw.shape, dtype=np.float32)
    saturation = saturation_of(raw.frames[0].meta, raw.amplifiers)
    rejected = 0
    for y0, y1 in raw.strips(bytes_a_pixel=20, fixed_bytes=data.nbytes * 4):
        limit, noise, gain, pedestal = (
            amplifier_map(raw.amplifiers, values, raw.shape, y0, y1)
            for values in (saturation, stack.noise_adu, stack.gain_e_adu, stack.pedestals_adu)
        )
        values = np.empty((len(stack.trimmed), y1 - y0, raw.shape[1]), dtype=np.float32)
        use = np.empty(values.shape, dtype=bool)
        for number, one in enumerate(stack.trimmed):
            use[number] = one.frame.rows(y0, y1) < limit
            values[number] = one.rows(y0, y1)
        values -= pedestal if stack.bias is None else stack.bias.data[y0:y1]
        values /= np.asarray(stack.scales, dtype=np.float32)[:, None, None]
        use &= np.isfinite(values)
        none = ~use.any(axis=0)
        mean, count, time, out = _mean(values, use, noise, gain, stack)
        if none.any():
            # Saturated in every exposure: what the shortest one shows is a lower limit.
            np.nan_to_num(values, copy=False, nan=0, posinf=0, neginf=0)
            mean[none] = values.max(axis=0)[none]
        data[y0:y1] = mean + pedestal
        weight[y0:y1] = _weight(mean, count, time, stack, noise, gain, slice(y0, y1))
        rejected += out
    return data, weight, rejected


def _mean(
    values: np.ndarray, use: np.ndarray, noise: np.ndarray, gain: np.ndarray, stack: _Stack
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Clipped mean of the values in use, frames and time that it holds, and the count rejected."""
    import numpy as np

    from ..pixels.stack import clipped_mean

    times = stack.scales
    if all(_same_time(one, times[0]) for one in times):
        found = clipped_mean(
            values,
            noise,
            stack.clip_sigma,
            None if use.all() else use,
            gain=gain,
            weights=times,
            scales=times,
        )
        return found.mean, found.count, found.count * np.float32(times[0]), found.rejected
    centre, keep = _about_weighted_median(values, use, noise, gain, stack)
    total = np.zeros(centre.shape, dtype=np.float32)
    held = np.zeros(centre.shape, dtype=np.float32)
    for value, kept, seconds in zip(values, keep, times, strict=True):
        total += np.where(kept, (value - centre) * np.float32(seconds), 0)
        held += np.where(kept, np.float32(seconds), 0)
    mean = centre + np.divide(total, held, out=np.zeros_like(total), where=held > 0)
    return mean, keep.sum(axis=0), held, int(np.count_nonzero(use)) - int(np.count_nonzero(keep))


def _about_weighted_median(
    values: np.ndarray, use: np.ndarray, noise: np.ndarray, gain: np.ndarray, stack: _Stack
) -> tuple[np.ndarray, np.ndarray]:
    """The median of exposures of different times (ny, nx), and which values the noise model allows about it.

    The plain median would be as noisy as the short exposures, and reject the long ones.
    None has more than 0.4 of the weight, or its cosmic rays would be the median. The
    variance of the median is that of a weighted mean, times pi / 2, or half of that of
    the exposure it came from if that is more.
    """
    import numpy as np

    from .common import DIGITISATION_VARIANCE_ADU2

    times = np.asarray(stack.scales, dtype=np.float64)
    weights = np.minimum(times, LARGEST_SHARE / (1 - LARGEST_SHARE) * (times.sum() - times))
    centre, number = _weighted_median(values, use, weights)
    fixed, signal = noise**2 + DIGITISATION_VARIANCE_ADU2, np.maximum(centre, 0) / gain
    variances = np.stack([(fixed / t**2 + signal / t).astype(np.float32) for t in times])
    share = (weights / weights.sum()).astype(np.float32)
    about = np.float32(np.pi / 2) * np.tensordot(share**2, variances, axes=1)
    own = np.take_along_axis(variances, number[None], axis=0)[0]
    limit = np.float32(stack.clip_sigma) * np.sqrt(variances + np.maximum(about, own / 2))
    return centre, use & (np.abs(values - centre) <= limit)


def _weighted_median(
    values: np.ndarray, use: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The value at which half of the weight is passed, over the first axis, and its number; 0 without any."""
    import numpy as np

    held = np.where(use, values, np.float32(np.inf))
    order = np.argsort(held, axis=0, kind="stable")
    carried = np.cumsum(np.take_along_axis(np.where(use, weights[:, None, None], 0), order, axis=0), axis=0)
    place = (carried < 0.5 * carried[-1]).sum(axis=0)[None]
    number = np.take_along_axis(order, place, axis=0)
    median = np.take_along_axis(held, number, axis=0)[0]
    return np.where(np.isfinite(median), median, np.float32(0)), number[0]


def _weight(
    mean: np.ndarray,
    count: np.ndarray,
    time: np.ndarray,
    stack: _Stack,
    noise: np.ndarray,
    gain: np.ndarray,
    rows: slice,
) -> np.ndarray:
    """Inverse variance of the mean: read noise, digitisation, shot noise, and the bias that all share."""
    import numpy as np

    from .common import DIGITISATION_VARIANCE_ADU2

    good = count > 0
    held = np.where(good, time, 1).astype(np.float32)
    count = count.astype(np.float32)
    variance = count * (noise**2 + DIGITISATION_VARIANCE_ADU2) + np.maximum(mean, 0) * held / gain
    variance = variance / held**2
    if stack.bias is not None and stack.bias.weight is not None:
        weight = stack.bias.weight[rows]
        good &= weight > 0
        variance += np.divide(1, weight, out=np.zeros_like(weight), where=weight > 0) * (count / held) ** 2
    inverse: np.ndarray = np.divide(
        1, variance, out=np.zeros(mean.shape, dtype=np.float32), where=good, casting="same_kind"
    )
    return inverse


@dataclass(frozen=True)
class _Current:
    """Dark current of each amplifier (nan where it has none), its smooth range, and the part well above it."""

    medians: list[float]
    glow: float
    warm_fraction: float


def _current(
    data: np.ndarray, weight: np.ndarray, amplifiers: Sequence[Amplifier], warm_sigma: float
) -> _Current:
    import numpy as np

    from ..pixels.smooth import block_statistics, fill_gaps, interpolate_blocks, median_filter

    medians, ranges, warm, good = [], [], 0, 0
    for amp in amplifiers:
        box = (slice(amp.target.y0, amp.target.y1), slice(amp.target.x0, amp.target.x1))
        use = weight[box] > 0
        if not use.any():
            medians.append(float("nan"))
            continue
        blocks = block_statistics(data[box], use, GLOW_SCALE_PX)
        smooth = median_filter(fill_gaps(blocks.median))
        medians.append(float(np.median(smooth)))
        ranges.append(float(smooth.max() - smooth.min()))
        above = data[box] - interpolate_blocks(smooth, blocks, data[box].shape)
        warm += int(np.count_nonzero(use & (above * np.sqrt(weight[box]) > warm_sigma)))
        good += int(np.count_nonzero(use))
    return _Current(medians, max(ranges), warm / good)


DARK = Kind(
    name="dark",
    command="awe-dark",
    class_name="Dark",
    summary="Make a master dark from raw dark exposures of one detector and temperature.",
    description="""With a bias, each exposure less overscan and bias is divided by its time; exposures of
different times go together. Pixels off the median by the noise model (read noise and the shot noise of the
dark current) are rejected, which takes cosmic rays, and the rest are averaged, weighted by time; the
product is in ADU/s. Without a bias, exposures of one time are averaged with the bias in them, and the
product serves frames of that time only, without a bias of their own. Darks match by the set point of the
temperature, or by the temperature to 1 C where there is none. Exposures that are constant, or whose level is
not what the others give, are named and left out.""",
    needs=[
        Need("raw", "raw_dark", group(), many=True, at_least=3, help="Raw dark exposures of one detector."),
        Need("bias", "bias", valid_at(), optional=True, help="Master bias."),
        Need(
            "readnoise",
            "readnoise",
            valid_at(),
            optional=True,
            help="Read noise of the amplifiers.",
            unless=_without_bias,
        ),
        Need("gain", "gain", valid_at(), optional=True, help="Gain of the amplifiers."),
    ],
    match=(*DETECTOR_MATCH, "temperature_match_c"),
    group=["night"],
    reads=["sections", "exptime_s", "gain_e_adu", "read_noise_adu", "saturation_adu"],
    validity=nights(before=30, after=30),
    params=DarkParams,
    measures=[
        Measure("dark_current_e_s", "Median dark current, mean over the amplifiers; null without a bias."),
        Measure("dark_current_adu_s", "Median dark current in ADU/s; null without a bias."),
        Measure("glow_adu_s", "Range of the smooth dark current over an amplifier; null without a bias."),
        Measure("level_adu", "Median level of the exposures, less overscan and bias."),
        Measure("offset_adu", "Level at no exposure time, by a line through the levels; null for one time."),
        Measure("warm_fraction", "Fraction of the pixels above the smooth dark current by warm_sigma."),
        Measure("read_noise_adu", "Read noise that the rejection used, mean over the amplifiers."),
        Measure("exptime_min_s", "Shortest exposure time used."),
        Measure("exptime_max_s", "Longest exposure time used."),
        Measure("rejected_fraction", "Fraction of the input pixels that were rejected."),
        Measure("unstable_pixels", "Number of pixels without a trustworthy value; their weight is 0."),
        Measure("frames", "Number of exposures used."),
        Measure("left_out", "Number of exposures left out, for their level or because they are constant."),
    ],
    limits=[Limit("good_fraction", low=0.5)],
    recipe=make_dark,
    revision=1,
    unit="adu/s",
    example="awe-query raw_dark night=2017-09-08 | awe-dark --out-dir darks",
    serves=serves_frame,
    foretell=_foretold,
)
