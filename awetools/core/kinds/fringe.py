"""Fringe frame: the interference pattern that the night sky's own lines make in a thin detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..kind import DETECTOR_MATCH, Kind, Limit, Measure, Need, Result, nights, valid_at
from ..params import param
from .flatfield import FLATFIELD_READS, Calibrations, NightSkyParams, nightsky_needs

if TYPE_CHECKING:
    import numpy as np

    from ..frame import Frame, FrameSet, Table
    from .exposures import Exposures, Light


@dataclass(frozen=True)
class FringeParams(NightSkyParams):
    """Parameters of `make_fringe`."""

    min_contrast_fraction: float = param(
        0.05, "A large object is brighter than the sky by this fraction, fringes are not.", low=0, high=1
    )
    smooth_px: int = param(
        1024, "What is smoother than this is no fringe; at most half the detector.", unit="px", low=16
    )


@dataclass(frozen=True, eq=False)
class _Stack:
    """Frames over their sky (ny, nx), the variance of the pixels, and where there is a value."""

    sky: np.ndarray
    variance: np.ndarray
    use: np.ndarray


def make_fringe(
    raw: FrameSet,
    *,
    bias: Frame | None = None,
    flat: Frame | None = None,
    dark: Frame | None = None,
    hotpix: Frame | None = None,
    readnoise: Table | None = None,
    gain: Table | None = None,
    params: FringeParams,
) -> Result:
    """Find the pattern of fringes that the skies of many science frames have in common.

    raw: science frames of one filter and detector, dithered or of several fields. bias: SCI
    (ADU). flat: SCI of the master flat. dark: SCI (ADU/s). hotpix: MASK. readnoise: a row an
    amplifier, else the bias or the camera table gives it. gain: a row an amplifier, else the
    camera table gives it. Objects are masked, frames left out, and the frames normalised and
    stacked as for a night flat; then divided by the flat. What is smooth is taken off and the
    noise filtered out in windows (pixels.fringe). Returns SCI, the pattern relative to the sky (ADU
    per ADU of sky, mean 0; a frame's own scale is fitted when it is subtracted) and WEIGHT: the
    inverse variance of the pattern, from the difference of two halves of the frames, 0
    where no frame shows the sky (SCI is filled in there). Raises TooFew with fewer
    than three frames that show the sky.
    """
    import numpy as np

    from ..pixels.fringe import fringe_pattern, noise_spectrum
    from ..pixels.stats import clipped
    from .nightsky import sky_of

    calibrations = Calibrations(bias, dark, hotpix, readnoise, gain)
    exposures, response, sky = sky_of(raw, calibrations, flat, params)
    whole, one, other = (
        _stack(exposures, lights, response, params)
        for lights in (sky.lights, sky.lights[::2], sky.lights[1::2])
    )
    both = one.use & other.use
    noise = noise_spectrum(one.sky, other.sky, one.variance, other.variance, both, params.smooth_px)
    pattern = fringe_pattern(whole.sky, whole.variance, whole.use, params.smooth_px, noise=noise)
    halves = [
        fringe_pattern(half.sky, half.variance, half.use, params.smooth_px, fill=False, noise=noise)
        for half in (one, other)
    ]
    use = whole.use
    left = 0.5 * clipped((halves[0] - halves[1])[use & both]).stdev
    levels = [light.plane.level for light in sky.lights]
    weight = np.float32(1 / left**2 if left > 0 else 1.0)
    return Result(
        planes={"SCI": pattern, "WEIGHT": np.where(use, weight, np.float32(0))},
        measures={
            "fringe_fraction": _rms(pattern[use]),
            "left_fraction": left,
            "level_min_adu": min(levels),
            "level_max_adu": max(levels),
            "roughness_fraction": float(np.median(sky.roughness)),
            "masked_fraction": sky.masked_fraction,
            "frames": len(sky.lights),
            "left_out": len(sky.left_out),
        },
        left_out=exposures.left_out(sky.left_out),
        used=sky.used,
    )


def _stack(
    exposures: Exposures, lights: Sequence[Light], response: np.ndarray, params: FringeParams
) -> _Stack:
    """The flat-fielded mean of frames over their sky."""
    import numpy as np

    from .exposures import combine

    stacked = combine(exposures, lights, params.clip_sigma)
    use = exposures.good & (stacked.weight > 0)
    sky = stacked.data / response
    variance = np.divide(1, stacked.weight * np.square(response), out=np.zeros_like(sky), where=use)
    return _Stack(sky, variance, use)


def _rms(values: np.ndarray) -> float:
    import numpy as np

    return float(np.sqrt(np.mean(np.square(values), dtype=np.float64)))


FRINGE = Kind(
    name="fringe",
    command="awe-fringe",
    class_name="Fringe",
    summary="Find the fringes of the night sky from raw science exposures, objects masked.",
    description="""The lines of the night sky interfere in a thin detector; the pattern is fixed, its
strength changes from frame to frame. Flat-fielded science frames of one filter, dithered or of several
fields, are normalised by their sky and averaged with all objects masked; what is smooth is taken off, and
the noise is filtered out. The pattern is relative to the sky; awe-reduce fits its scale to each frame.
Frames that objects cover, or whose sky is not like that of the others, are named and left out.""",
    needs=nightsky_needs(Need("flat", "flat", valid_at(), help="Master flat.")),
    match=(*DETECTOR_MATCH, "filter"),
    group=["night"],
    reads=FLATFIELD_READS,
    validity=nights(before=30, after=30),
    params=FringeParams,
    measures=[
        Measure("fringe_fraction", "Rms of the fringes, relative to the sky: before they are subtracted."),
        Measure(
            "left_fraction",
            "Rms of what the pattern's own noise leaves after it was subtracted, from two halves of the frames.",
        ),
        Measure("level_min_adu", "Lowest sky of the frames that were used."),
        Measure("level_max_adu", "Highest sky of the frames that were used."),
        Measure("roughness_fraction", "Median departure of a frame's sky from the common shape, in blocks."),
        Measure("masked_fraction", "Fraction of a frame that objects cover, mean."),
        Measure("frames", "Number of frames used."),
        Measure("left_out", "Number of frames left out, for their objects or their sky."),
    ],
    limits=[Limit("good_fraction", low=0.5)],
    recipe=make_fringe,
    revision=2,
    unit="",
    example="awe-query raw_science filter=I | awe-fringe -o fringe_I.fits",
)
