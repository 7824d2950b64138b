"""Master flat: what a science frame is divided by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import BadPixels
from ..kind import DETECTOR_MATCH, Kind, Limit, Measure, Need, Result, nights, valid_at
from ..params import param

if TYPE_CHECKING:
    from ..frame import Frame

GRADIENT_SCALE_PX = 64


@dataclass(frozen=True)
class FlatParams:
    """Parameters of `make_flat`."""

    min_response: float = param(
        0.1, "Pixels whose response is below this fraction of the mean are not calibrated.", low=0, high=1
    )


def make_flat(domeflat: Frame, params: FlatParams) -> Result:
    """Normalise a dome flat to mean 1 over the good pixels of the detector.

    domeflat: SCI, weight and mask. Returns SCI (mean 1 per detector, so that it
    holds the ratios of the amplifiers' gains), WEIGHT (inverse variance) and MASK;
    pixels below min_response get the value 1, weight 0 and bit 512.
    Raises BadPixels where nothing is left.
    """
    import numpy as np

    from ..pixels.mask import Bit
    from ..pixels.smooth import lowpass
    from .common import gradient_of

    mask = np.zeros(domeflat.data.shape, np.int16) if domeflat.mask is None else domeflat.mask.copy()
    weight = np.ones_like(domeflat.data) if domeflat.weight is None else domeflat.weight
    usable = weight > 0
    if not usable.any():
        raise BadPixels("the dome flat has no good pixel")
    first = float(np.mean(domeflat.data[usable], dtype=np.float64))
    usable &= domeflat.data > params.min_response * first
    if first <= 0 or not usable.any():
        raise BadPixels(f"the dome flat has no signal: its mean is {first:g}")
    mean = float(np.mean(domeflat.data[usable], dtype=np.float64))
    data = np.where(usable, domeflat.data / np.float32(mean), np.float32(1)).astype(np.float32)
    mask[~usable] |= Bit.UNCALIBRATED
    smooth = lowpass(data, usable, GRADIENT_SCALE_PX)
    return Result(
        planes={
            "SCI": data,
            "WEIGHT": np.where(usable, weight * np.float32(mean**2), 0).astype(np.float32),
            "MASK": mask,
        },
        measures={
            "mean": float(np.mean(data[usable], dtype=np.float64)),
            "min_response": float(data[usable].min()),
            "max_response": float(data[usable].max()),
            "gradient_fraction": gradient_of(smooth),
            "uncalibrated_fraction": 1 - np.count_nonzero(usable) / data.size,
        },
    )


FLAT = Kind(
    name="flat",
    command="awe-flat",
    class_name="Flat",
    summary="Make the master flat that science frames are divided by.",
    description="""The dome flat is normalised to mean 1 over the good pixels of the detector. It keeps the
ratios of the amplifiers' gains, so that after the division the whole detector has one effective gain.
Pixels with hardly any response are marked as not calibrated.""",
    needs=[Need("domeflat", "domeflat", valid_at(), help="Dome flat.")],
    match=(*DETECTOR_MATCH, "filter"),
    group=["night"],
    reads=[],
    validity=nights(before=0, after=0),
    params=FlatParams,
    measures=[
        Measure("mean", "Mean over the good pixels."),
        Measure("min_response", "Lowest response of a good pixel."),
        Measure("max_response", "Highest response of a good pixel."),
        Measure("gradient_fraction", "Range of the smoothed flat, 1st to 99th percentile."),
        Measure("uncalibrated_fraction", "Fraction of the pixels without a usable response."),
    ],
    limits=[Limit("good_fraction", low=0.5)],
    recipe=make_flat,
    revision=1,
    unit="",
    example="awe-flat -o flat_R.fits domeflat_R.fits",
)
