"""Night flat: how the detector and the optics answer to the night sky, from the science frames themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..kind import DETECTOR_MATCH, Kind, Limit, Measure, Need, Result, nights, valid_at
from .flatfield import (
    FLATFIELD_READS,
    GRADIENT_SCALE_PX,
    Calibrations,
    NightSkyParams,
    flat_planes,
    nightsky_needs,
)

if TYPE_CHECKING:
    from ..frame import Frame, FrameSet, Table


@dataclass(frozen=True)
class NightflatParams(NightSkyParams):
    """Parameters of `make_nightflat`."""


def make_nightflat(
    raw: FrameSet,
    *,
    bias: Frame | None = None,
    flat: Frame | None = None,
    dark: Frame | None = None,
    hotpix: Frame | None = None,
    readnoise: Table | None = None,
    gain: Table | None = None,
    params: NightflatParams,
) -> Result:
    """Stack the night sky of science frames, their objects masked, into one flat.

    raw: science frames of one filter and detector, of several fields or dithered. bias:
    SCI (ADU). flat: SCI of a dome or twilight flat, divided out while objects and sky are
    measured. dark: SCI (ADU/s). hotpix: MASK. readnoise: a row an amplifier, else the bias
    or the camera table gives it. gain: a row an amplifier, else the camera table gives it.
    Objects are masked in each frame, by scatter at all scales, then again after what the
    frames have in common was divided out. Frames that objects cover, or whose sky departs
    from that common shape by more than a gradient (a galaxy that fills the field, dawn), or in
    which an amplifier shows no sky, though it does in others, are left out by name. Each frame
    less overscan, bias and dark current is divided by its sky and by what its gradient has more
    than the others'; pixels off the median by the noise model are rejected and the rest
    averaged, weighted by inverse variance. Returns SCI (the response, as a dome flat; 0 where
    every frame has an object), WEIGHT and MASK (1 and 2 from hotpix, 512 no value, or an
    amplifier without sky). Raises TooFew with fewer than three frames that show the sky.
    """
    import numpy as np

    from ..pixels.stats import clipped
    from .exposures import combine, smooth_range
    from .nightsky import sky_of

    exposures, response, sky = sky_of(raw, Calibrations(bias, dark, hotpix, readnoise, gain), flat, params)
    stacked = combine(exposures, sky.lights, params.clip_sigma)
    use = exposures.good & (stacked.weight > 0)
    ratio = np.divide(stacked.data, response, out=np.ones_like(stacked.data), where=use)
    levels = [light.plane.level for light in sky.lights]
    return Result(
        planes=flat_planes(exposures, stacked, sky.dead, hotpix),
        measures={
            "level_min_adu": min(levels),
            "level_max_adu": max(levels),
            "stdev_fraction": clipped(stacked.data[use]).stdev,
            "gradient_fraction": smooth_range(ratio, use, GRADIENT_SCALE_PX),
            "roughness_fraction": float(np.median(sky.roughness)),
            "masked_fraction": sky.masked_fraction,
            "uncovered_fraction": float(np.mean(exposures.good & (stacked.weight <= 0))),
            "rejected_fraction": stacked.rejected_fraction,
            "frames": len(sky.lights),
            "left_out": len(sky.left_out),
        },
        left_out=exposures.left_out(sky.left_out),
        used=sky.used,
    )


NIGHTFLAT = Kind(
    name="nightflat",
    command="awe-nightflat",
    class_name="NightFlat",
    summary="Make a flat of the night sky from raw science exposures, objects masked.",
    description="""Science frames of one filter, of several fields or dithered, show the same sky under
different objects. Stars, galaxies and trails are masked at all scales; frames that objects cover, or whose
sky is not like that of the others, are named and left out; the rest are divided by their sky and averaged.
The sky is faint, so this flat is noisy in each pixel: give it to awe-flat with a dome flat, which takes
only its low frequencies. What no frame shows free of objects is masked.""",
    needs=nightsky_needs(
        Need("flat", "domeflat", valid_at(), or_kinds=("twiflat",), help="Dome or twilight flat.")
    ),
    match=(*DETECTOR_MATCH, "filter"),
    group=["night"],
    reads=FLATFIELD_READS,
    validity=nights(before=0, after=0),
    params=NightflatParams,
    measures=[
        Measure("level_min_adu", "Lowest sky of the frames that were used."),
        Measure("level_max_adu", "Highest sky of the frames that were used."),
        Measure("stdev_fraction", "Clipped standard deviation of the flat."),
        Measure("gradient_fraction", "Range of the smooth ratio to the flat used, 1st to 99th percentile."),
        Measure("roughness_fraction", "Median departure of a frame's sky from the common shape, in blocks."),
        Measure("masked_fraction", "Fraction of a frame that objects cover, mean."),
        Measure("uncovered_fraction", "Fraction of the detector that no frame shows free of objects."),
        Measure("rejected_fraction", "Fraction of the input pixels that were rejected."),
        Measure("frames", "Number of frames used."),
        Measure("left_out", "Number of frames left out, for their objects or their sky."),
    ],
    limits=[Limit("good_fraction", low=0.5)],
    recipe=make_nightflat,
    revision=1,
    unit="",
    example="awe-query raw_science filter=R object=Egeria | awe-nightflat -o nightflat_R.fits",
)
