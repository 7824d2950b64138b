"""Dome flat: how the detector and the optics answer to the light of a lamp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import BadHeader, TooFew
from ..kind import DETECTOR_MATCH, Kind, LeftOut, Limit, Measure, Need, Result, group, nights, valid_at
from ..params import param
from .declare import overscan_mode_param

if TYPE_CHECKING:
    import numpy as np

    from ..frame import Frame, FrameSet, Table
    from .common import Trimmed

GRADIENT_SCALE_PX = 64


@dataclass(frozen=True)
class DomeflatParams:
    """Parameters of `make_domeflat`."""

    clip_sigma: float = param(
        4.0, "Reject pixels this far from the median, by the noise model.", unit="sigma", low=1
    )
    min_level_adu: float = param(5000.0, "Leave out exposures below this level.", unit="ADU", low=0)
    max_level_fraction: float = param(
        0.8, "Leave out exposures above this fraction of saturation.", low=0, high=1
    )
    overscan_mode: str = overscan_mode_param()


def make_domeflat(
    raw: FrameSet, bias: Frame | None, hotpix: Frame | None, readnoise: Table | None, params: DomeflatParams
) -> Result:
    """Stack normalised exposures of a lamp into one flat.

    raw: exposures of one filter and detector. bias: SCI (ADU). hotpix: MASK, left
    out of the levels. readnoise: a row an amplifier, else the bias or the camera
    table gives it. Each exposure, less overscan and bias, is divided by its
    clipped median over the whole detector, so that the ratios of the amplifiers'
    gains stay in the flat; pixels off the median by the noise model (read noise
    and signal / gain) are rejected and the rest averaged, weighted by level.
    Returns SCI (median 1), WEIGHT (inverse variance) and MASK (1 and 2
    from hotpix, 512 no value). Raises TooFew if no exposure is within levels.
    """
    import numpy as np

    from ..pixels.mask import Bit
    from ..pixels.smooth import lowpass
    from ..pixels.stats import clipped
    from .common import READ_NOISE_HINT, gain_of, gradient_of, in_time_order, read_noise_of, trim

    frames = in_time_order(raw)
    read_noise = read_noise_of(readnoise, [bias.meta if bias else {}, frames[0].meta], raw.amplifiers)
    if read_noise is None:
        raise BadHeader("the read noise is not known", hint=READ_NOISE_HINT)
    gain = gain_of(frames[0].meta, raw.amplifiers)
    trimmed = [trim(frame, params.overscan_mode) for frame in frames]
    good = _good_pixels(raw.shape, bias, hotpix)
    levels = [_level(one, bias, good) for one in trimmed]
    left_out = _left_out(raw, levels, params)
    kept = [number for number in range(len(frames)) if number not in {one for one, _ in left_out}]
    if not kept:
        reasons = "; ".join(f"{frames[number].meta.get('exposure')}: {reason}" for number, reason in left_out)
        raise TooFew(
            f"no flat is within levels: {reasons}", hint="--min-level-adu, or awe-imstat on the raw frames"
        )
    data, weight, rejected = _stack(
        raw, [trimmed[n] for n in kept], [levels[n] for n in kept], bias, read_noise, gain, params.clip_sigma
    )
    mask = np.where(weight > 0, 0, Bit.UNCALIBRATED).astype(np.int16)
    if hotpix is not None:
        mask |= hotpix.data.astype(np.int16) & np.int16(Bit.HOT | Bit.COLD)
    statistics = clipped(data[good & (weight > 0)])
    smooth = lowpass(data, good & (weight > 0), GRADIENT_SCALE_PX)
    order = [raw.frames.index(frames[number]) for number in range(len(frames))]
    return Result(
        planes={"SCI": data, "WEIGHT": weight, "MASK": mask},
        measures={
            "level_min_adu": min(levels[n] for n in kept),
            "level_max_adu": max(levels[n] for n in kept),
            "stdev_fraction": statistics.stdev,
            "gradient_fraction": gradient_of(smooth),
            "rejected_fraction": rejected / (data.size * len(kept)),
            "frames": len(kept),
            "left_out": len(left_out),
        },
        left_out=[LeftOut(order[number], reason) for number, reason in left_out],
    )


def _good_pixels(shape: tuple[int, int], bias: Frame | None, hotpix: Frame | None) -> np.ndarray:
    import numpy as np

    good = np.ones(shape, dtype=bool)
    if bias is not None and bias.weight is not None:
        good &= bias.weight > 0
    if hotpix is not None:
        good &= hotpix.data == 0
    return good


def _level(one: Trimmed, bias: Frame | None, good: np.ndarray) -> float:
    """Clipped median of an exposure less its bias, ADU."""
    import numpy as np

    from ..pixels.stats import clipped

    image = one.image()
    if bias is not None:
        image -= bias.data
    return clipped(image[good & np.isfinite(image)]).median


def _left_out(raw: FrameSet, levels: Sequence[float], params: DomeflatParams) -> list[tuple[int, str]]:
    from .common import saturation_of

    saturation = min(saturation_of(raw.frames[0].meta, raw.amplifiers))
    high = params.max_level_fraction * saturation
    found = []
    for number, level in enumerate(levels):
        if not level >= params.min_level_adu:
            found.append(
                (number, f"level {level:.0f} ADU is below min_level_adu = {params.min_level_adu:.0f}")
            )
        elif level > high:
            found.append(
                (
                    number,
                    f"level {level:.0f} ADU is above {params.max_level_fraction:g} of saturation, {high:.0f}",
                )
            )
    return found


def _stack(
    raw: FrameSet,
    trimmed: list[Trimmed],
    levels: list[float],
    bias: Frame | None,
    read_noise: list[float],
    gain: list[float],
    clip_sigma: float,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Weighted clipped mean of the normalised exposures, its inverse variance, and the count rejected."""
    import numpy as np

    from ..pixels.stack import clipped_mean
    from .common import amplifier_map, saturation_of

    data = np.zeros(raw.shape, dtype=np.float32)
    weight = np.zeros(raw.shape, dtype=np.float32)
    saturation = saturation_of(raw.frames[0].meta, raw.amplifiers)
    scale = np.asarray(levels, dtype=np.float32)[:, None, None]
    total = float(sum(levels))
    rejected = 0
    for y0, y1 in raw.strips(bytes_a_pixel=20, fixed_bytes=data.nbytes * 4):
        stack = np.empty((len(trimmed), y1 - y0, raw.shape[1]), dtype=np.float32)
        use = np.empty(stack.shape, dtype=bool)
        limit = amplifier_map(raw.amplifiers, saturation, raw.shape, y0, y1)
        for number, one in enumerate(trimmed):
            use[number] = one.frame.rows(y0, y1) < limit
            stack[number] = one.rows(y0, y1)
        if bias is not None:
            stack -= bias.data[y0:y1]
        stack /= scale
        use &= np.isfinite(stack)
        noise = amplifier_map(raw.amplifiers, read_noise, raw.shape, y0, y1)
        e_adu = amplifier_map(raw.amplifiers, gain, raw.shape, y0, y1)
        combined = clipped_mean(
            stack,
            noise,
            clip_sigma,
            None if use.all() else use,
            gain=e_adu,
            weights=levels,
            scales=levels,
        )
        data[y0:y1] = combined.mean
        kept = combined.count / np.float32(len(trimmed))
        signal = np.maximum(combined.mean, 0)
        variance = (len(trimmed) * noise**2 + signal * total / e_adu) / total**2
        weight[y0:y1] = np.where(combined.count > 0, kept / variance, 0)
        rejected += combined.rejected
    return data, weight, rejected


DOMEFLAT = Kind(
    name="domeflat",
    command="awe-domeflat",
    class_name="DomeFlat",
    summary="Make a dome flat from raw exposures of a lamp, one filter and detector.",
    description="""Each exposure has its overscan and the bias subtracted, and is divided by its clipped
median over the detector. Exposures outside the level bounds are named and left out. Pixels off the median by the noise
model are rejected; the rest are averaged, weighted by level.""",
    needs=[
        Need("raw", "raw_domeflat", group(), many=True, at_least=1, help="Raw dome flats of one filter."),
        Need("bias", "bias", valid_at(), help="Master bias."),
        Need("hotpix", "hotpix", valid_at(), optional=True, help="Hot pixels, left out of the levels."),
        Need("readnoise", "readnoise", valid_at(), optional=True, help="Read noise of the amplifiers."),
    ],
    match=(*DETECTOR_MATCH, "filter"),
    group=["night"],
    reads=["sections", "gain_e_adu", "read_noise_adu", "saturation_adu"],
    validity=nights(before=0, after=0),
    params=DomeflatParams,
    measures=[
        Measure("level_min_adu", "Lowest level of the exposures that were used."),
        Measure("level_max_adu", "Highest level of the exposures that were used."),
        Measure("stdev_fraction", "Clipped standard deviation of the flat."),
        Measure("gradient_fraction", "Range of the smoothed flat, 1st to 99th percentile."),
        Measure("rejected_fraction", "Fraction of the input pixels that were rejected."),
        Measure("frames", "Number of exposures used."),
        Measure("left_out", "Number of exposures left out for their level."),
    ],
    limits=[Limit("good_fraction", low=0.5)],
    recipe=make_domeflat,
    revision=1,
    unit="",
    example="awe-query raw_domeflat night=2017-03-02 filter=R | awe-domeflat -o domeflat_R.fits",
)
