"""What domeflat and twiflat share: exposures of an even light, normalised and stacked; light, like `declare`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import TooFew
from ..kind import Measure, Need, Result, group, valid_at
from ..params import param
from .declare import bias_is_in_the_dark, overscan_mode_param

if TYPE_CHECKING:
    import numpy as np

    from ..frame import Frame, FrameSet, Table
    from .exposures import Exposures, Level, Light, Stacked

GRADIENT_SCALE_PX = 64

# Given the exposures, the numbers of those that are used and the levels of all: how each enters the stack.
LightsOf = Callable[["Exposures", Sequence[int], Sequence[float]], "list[Light]"]


@dataclass(frozen=True)
class FlatfieldParams:
    """Parameters of the flats made of exposures of an even light."""

    clip_sigma: float = param(
        4.0, "Reject pixels this far from the median, by the noise model.", unit="sigma", low=1
    )
    min_level_adu: float = param(5000.0, "Leave out exposures below this level.", unit="ADU", low=0)
    max_level_fraction: float = param(
        0.8, "Leave out exposures above this fraction of saturation.", low=0, high=1
    )
    overscan_mode: str = overscan_mode_param()


@dataclass(frozen=True)
class Calibrations:
    """The calibrations of raw flats: bias and dark (SCI), hotpix (MASK), read noise and gain (tables)."""

    bias: Frame | None
    dark: Frame | None
    hotpix: Frame | None
    readnoise: Table | None
    gain: Table | None


def flatfield_needs(raw_kind: str, help: str) -> list[Need]:
    """The needs of a flat made of exposures of one type."""
    return [
        Need("raw", raw_kind, group(), many=True, at_least=1, help=help),
        Need("bias", "bias", valid_at(), help="Master bias.", unless=bias_is_in_the_dark),
        Need("dark", "dark", valid_at(), optional=True, help="Dark current."),
        Need("hotpix", "hotpix", valid_at(), optional=True, help="Hot pixels, left out of the levels."),
        Need("readnoise", "readnoise", valid_at(), optional=True, help="Read noise of the amplifiers."),
        Need("gain", "gain", valid_at(), optional=True, help="Gain of the amplifiers."),
    ]


@dataclass(frozen=True)
class NightSkyParams:
    """Parameters of what is made of the night sky in science frames."""

    clip_sigma: float = param(
        4.0, "Reject pixels this far from the median, by the noise model.", unit="sigma", low=1
    )
    object_sigma: float = param(
        3.0, "Light that stands out from the sky by this much, at any scale, is masked.", unit="sigma", low=1
    )
    min_contrast_fraction: float = param(
        0.02, "A large object is brighter than the sky by this fraction, fringes are not.", low=0, high=1
    )
    max_masked_fraction: float = param(
        0.6, "Leave out frames of which objects cover more than this fraction.", low=0, high=1
    )
    max_roughness_fraction: float = param(
        0.02,
        "Leave out frames whose sky departs by more than this from what all have in common and a gradient.",
        low=0,
    )
    overscan_mode: str = overscan_mode_param()


def nightsky_needs(flat: Need) -> list[Need]:
    """The needs of what is made of the night sky, with the flat that is divided out."""
    return [
        Need(
            "raw", "raw_science", group(), many=True, at_least=3, help="Raw science exposures of one filter."
        ),
        Need("bias", "bias", valid_at(), help="Master bias.", unless=bias_is_in_the_dark),
        flat,
        Need("dark", "dark", valid_at(), optional=True, help="Dark current."),
        Need("hotpix", "hotpix", valid_at(), optional=True, help="Hot pixels."),
        Need("readnoise", "readnoise", valid_at(), optional=True, help="Read noise of the amplifiers."),
        Need("gain", "gain", valid_at(), optional=True, help="Gain of the amplifiers."),
    ]


FLATFIELD_READS = ("sections", "gain_e_adu", "read_noise_adu", "saturation_adu", "exptime_s")
FLATFIELD_MEASURES = (
    Measure("level_min_adu", "Lowest level of the exposures that were used."),
    Measure("level_max_adu", "Highest level of the exposures that were used."),
    Measure("stdev_fraction", "Clipped standard deviation of the flat."),
    Measure("gradient_fraction", "Range of the smoothed flat, 1st to 99th percentile."),
    Measure("rejected_fraction", "Fraction of the input pixels that were rejected."),
    Measure("frames", "Number of exposures used."),
    Measure("left_out", "Number of exposures left out, for their level or for an amplifier without signal."),
    Measure("dead_amplifiers", "Number of amplifiers without signal."),
)


def make_flatfield(
    raw: FrameSet, calibrations: Calibrations, params: FlatfieldParams, lights_of: LightsOf | None = None
) -> tuple[Result, list[Light]]:
    """Stack normalised exposures of an even light: the result, and how each exposure entered.

    Each exposure less overscan, bias and dark current is divided by its clipped median
    over the detector (over the amplifiers that have a signal), so that the ratios of the
    amplifiers' gains stay in the flat, or by what lights_of says. Exposures out of the level
    bounds, or in which an amplifier is saturated or, while it works in the others, has no
    signal, are left out by name. An amplifier without signal in most exposures is masked (512). SCI has median 1.
    Raises TooFew if no exposure is left.
    """
    from ..pixels.stats import clipped
    from .exposures import combine, level_of, open_exposures, smooth_range

    exposures = open_exposures(
        raw,
        calibrations.bias,
        calibrations.dark,
        calibrations.hotpix,
        calibrations.readnoise,
        calibrations.gain,
        params.overscan_mode,
    )
    found = [level_of(exposures, number, params.max_level_fraction) for number in range(len(exposures))]
    levels = [one.adu for one in found]
    dead = dead_in_most([list(one.silent) for one in found])
    left_out = _left_out(exposures, found, dead, params)
    kept = [number for number in range(len(exposures)) if number not in {one for one, _ in left_out}]
    if not kept:
        reasons = "; ".join(f"{exposures.name(number)}: {reason}" for number, reason in left_out)
        raise TooFew(
            f"no flat is within levels: {reasons}", hint="--min-level-adu, or awe-imstat on the raw frames"
        )
    exposures = exposures.without(dead)
    lights = (lights_of or plain_lights)(exposures, kept, levels)
    stacked = combine(exposures, lights, params.clip_sigma)
    planes = flat_planes(exposures, stacked, dead, calibrations.hotpix)
    use = exposures.good & (planes["WEIGHT"] > 0)
    result = Result(
        planes=planes,
        measures={
            "level_min_adu": min(levels[n] for n in kept),
            "level_max_adu": max(levels[n] for n in kept),
            "stdev_fraction": clipped(stacked.data[use]).stdev,
            "gradient_fraction": smooth_range(stacked.data, use, GRADIENT_SCALE_PX),
            "rejected_fraction": stacked.rejected_fraction,
            "frames": len(kept),
            "left_out": len(left_out),
            "dead_amplifiers": len(dead),
        },
        left_out=exposures.left_out(left_out),
        used={
            f"amplifier {name}": "has no signal, or is constant, and is masked as not calibrated"
            for name in dead
        },
    )
    return result, lights


def plain_lights(exposures: Exposures, numbers: Sequence[int], levels: Sequence[float]) -> list[Light]:
    """Exposures that are divided by their levels alone."""
    from ..pixels.planes import Plane
    from .exposures import Light

    return [Light(number, Plane(levels[number], 0.0, 0.0)) for number in numbers]


def flat_planes(
    exposures: Exposures, stacked: Stacked, dead: Sequence[str], hotpix: Frame | None
) -> dict[str, np.ndarray]:
    """SCI, WEIGHT and MASK of a flat: bits 1 and 2 from hotpix, 512 where there is no value."""
    import numpy as np

    from ..pixels.mask import Bit
    from .exposures import amplifier_pixels

    weight = stacked.weight
    if dead:
        weight = np.where(amplifier_pixels(exposures.amplifiers, dead, exposures.shape), 0, weight)
    mask = np.where(weight > 0, 0, Bit.UNCALIBRATED).astype(np.int16)
    if hotpix is not None:
        mask |= hotpix.data.astype(np.int16) & np.int16(Bit.HOT | Bit.COLD)
    return {"SCI": stacked.data, "WEIGHT": weight.astype(np.float32), "MASK": mask}


def dead_in_most(dead: Sequence[Sequence[str]]) -> list[str]:
    """The amplifiers that have no signal in more than half of the exposures."""
    names = dict.fromkeys(name for one in dead for name in one)
    return [name for name in names if 2 * sum(name in one for one in dead) > len(dead)]


def _left_out(
    exposures: Exposures,
    found: Sequence[Level],
    dead: Sequence[str],
    params: FlatfieldParams,
) -> list[tuple[int, str]]:
    high = params.max_level_fraction * min(exposures.saturation_adu)
    reasons = []
    for number, one in enumerate(found):
        silent = [reason for name, reason in one.silent.items() if name not in dead]
        cut = [reason for name, reason in one.cut.items() if name not in dead]
        if one.adu > high:
            text = f"level {one.adu:.0f} ADU is above {params.max_level_fraction:g} of saturation, {high:.0f}"
            reasons.append((number, text))
        elif cut:
            reasons.append((number, cut[0]))
        elif math.isnan(one.adu):
            reasons.append((number, "no pixel of it counts: all masked, or not finite"))
        elif not one.adu >= params.min_level_adu:
            reasons.append(
                (number, f"level {one.adu:.0f} ADU is below min_level_adu = {params.min_level_adu:.0f}")
            )
        elif silent:
            reasons.append((number, silent[0]))
    return reasons
