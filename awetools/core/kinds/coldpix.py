"""Cold pixels: those that answer to light otherwise than their neighbours, from a flat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..kind import DETECTOR_MATCH, Kind, Limit, Measure, Need, Result, nights, valid_at
from ..params import param

if TYPE_CHECKING:
    from ..frame import Frame


# The scale of the level that columns and dead regions are compared with.
LEVEL_SCALE_PX = 32


@dataclass(frozen=True)
class ColdpixParams:
    """Parameters of `make_coldpix`."""

    low_ratio: float = param(
        0.94, "A pixel is cold below this ratio of the flat to its smooth version.", low=0, high=1
    )
    high_ratio: float = param(1.06, "A pixel is cold, too, above this ratio.", low=1)
    threshold_sigma: float = param(
        5.0, "A cold pixel is off by this many times the noise of the flat, at least.", unit="sigma", low=3
    )
    column_sigma: float = param(
        5.0, "A cold column is off by this many sigma of column medians, at least.", unit="sigma", low=3
    )


def make_coldpix(flat: Frame, params: ColdpixParams) -> Result:
    """Find the pixels of a flat that are darker or brighter than those about them, and such columns.

    flat: SCI (relative response), weight and MASK (bits 1 and 2 of hotpix, 512: not
    searched). Each amplifier is searched by itself, so that its edge is no defect. A
    pixel is compared with the median of the 9 x 9 pixels about it, which follows the
    shadows of dust and vignetting; a column, over at least two segments of 64 rows,
    with the 8 columns on each side of it. Returns MASK, int16: bit 2 (cold) for dark and bright deviants both; all
    of an amplifier that has no light.
    """
    import numpy as np

    from ..pixels.defects import bad_columns, block_level, cold_pixels
    from ..pixels.mask import Bit
    from .common import amplifiers_of

    mask = np.zeros(flat.data.shape, dtype=np.int16)
    columns = 0
    for amp in amplifiers_of(flat):
        box = (slice(amp.target.y0, amp.target.y1), slice(amp.target.x0, amp.target.x1))
        data = flat.data[box]
        use, noise = np.isfinite(data), None
        if flat.mask is not None:
            use &= (flat.mask[box] & (Bit.HOT | Bit.COLD | Bit.UNCALIBRATED)) == 0
        if flat.weight is not None:
            weight = flat.weight[box]
            use &= weight > 0
            noise = 1 / np.sqrt(weight, out=np.ones_like(weight), where=use)
        if not use.any():
            continue
        limits = params.low_ratio, params.high_ratio
        found = cold_pixels(data, use, *limits, noise, params.threshold_sigma, LEVEL_SCALE_PX)
        mask[box] |= found.mask
        if found.fraction == 1:
            continue
        level = block_level(data, use, LEVEL_SCALE_PX)
        ratio = np.divide(data, level, out=np.zeros_like(data), where=level > 0) - 1
        below, above = params.low_ratio - 1, params.high_ratio - 1
        lines = bad_columns(ratio, use & (level > 0), params.column_sigma, below, above)
        columns += len(lines.runs)
        mask[box] |= np.where(lines.mask != 0, Bit.COLD, 0).astype(np.int16)
    cold = int(np.count_nonzero(mask))
    return Result(
        planes={"MASK": mask},
        measures={"cold_pixels": cold, "cold_fraction": cold / mask.size, "cold_columns": columns},
    )


COLDPIX = Kind(
    name="coldpix",
    command="awe-coldpix",
    class_name="ColdPix",
    summary="Find cold pixels and columns in a dome or twilight flat.",
    description="""A pixel is cold if the ratio of the flat to the median of the 9 x 9 pixels about it lies
outside low_ratio to high_ratio, darker or brighter, and by threshold_sigma times the noise; so is a column
whose median differs so from the columns on both sides. The shadows of dust are wider, divide out, and
are no defects; neither are pixels that hotpix has. Deviations smaller than the noise of the flat, times
threshold_sigma, cannot be found, nor blemishes of more than some 40 pixels in one place unless they have
less than half of the light.""",
    needs=[Need("flat", "domeflat", valid_at(), or_kinds=("twiflat",), help="Dome flat, or twilight flat.")],
    match=DETECTOR_MATCH,
    group=["night", "filter"],
    reads=["sections"],
    validity=nights(before=0, after=0),
    params=ColdpixParams,
    measures=[
        Measure("cold_pixels", "Number of pixels masked, those of columns among them."),
        Measure("cold_fraction", "Fraction of the detector that is masked."),
        Measure("cold_columns", "Number of columns, or parts of columns, masked as such."),
    ],
    limits=[Limit("cold_fraction", high=0.5)],
    recipe=make_coldpix,
    revision=1,
    unit="",
    example="awe-coldpix -o coldpix.fits domeflat_R.fits",
)
