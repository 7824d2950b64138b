"""Hot pixels and bad columns, from a master bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..kind import DETECTOR_MATCH, Kind, Limit, Measure, Need, Result, nights, valid_at
from ..params import param

if TYPE_CHECKING:
    from ..frame import Frame


@dataclass(frozen=True)
class HotpixParams:
    """Parameters of `make_hotpix`."""

    threshold_sigma: float = param(
        5.0, "A pixel this far above its surroundings is hot, in sigma of the master.", unit="sigma", low=3
    )
    column_sigma: float = param(
        5.0, "A column this far from its neighbours is bad, in sigma of column medians.", unit="sigma", low=3
    )


def make_hotpix(bias: Frame, params: HotpixParams) -> Result:
    """Find the pixels of a master bias that stand above their surroundings, and bad columns.

    bias: SCI (ADU) and weight. Each amplifier is searched by itself, so that its
    edge is no defect. Returns MASK, int16: bit 1 (hot) where a pixel or a column
    stands above its surroundings or differs from frame to frame (a value, but no
    weight), 2 (cold) where a column lies below them, and 32 where the bias has no data.
    """
    import numpy as np

    from ..pixels.defects import bad_columns, hot_pixels
    from ..pixels.mask import Bit
    from .common import amplifiers_of

    mask = np.zeros(bias.data.shape, dtype=np.int16)
    columns = 0
    for amp in amplifiers_of(bias):
        box = (slice(amp.target.y0, amp.target.y1), slice(amp.target.x0, amp.target.x1))
        data = bias.data[box]
        use = np.ones(data.shape, dtype=bool) if bias.weight is None else bias.weight[box] > 0
        lines = bad_columns(data, use, params.column_sigma)
        columns += len(lines.runs)
        mask[box] |= lines.mask
        mask[box] |= hot_pixels(data, use & (lines.mask == 0), None, params.threshold_sigma).mask
        # Where all frames disagreed the bias has a value but no weight: such a pixel cannot be corrected.
        mask[box] |= np.where(use, 0, np.where(data != 0, Bit.HOT, Bit.OUTSIDE)).astype(np.int16)
    hot = int(np.count_nonzero(mask & (Bit.HOT | Bit.COLD)))
    return Result(
        planes={"MASK": mask},
        measures={"hot_pixels": hot, "hot_fraction": hot / mask.size, "bad_columns": columns},
    )


HOTPIX = Kind(
    name="hotpix",
    command="awe-hotpix",
    class_name="HotPix",
    summary="Find hot pixels and bad columns in a master bias.",
    description="""A pixel is hot if it stands above its surroundings by threshold_sigma, in the noise
of the master itself. Columns, or parts of columns that reach an edge, whose median deviates are masked as
columns. A bias shows only the worst of the hot pixels.""",
    needs=[Need("bias", "bias", valid_at(), help="Master bias.")],
    match=DETECTOR_MATCH,
    group=["night"],
    reads=["sections"],
    validity=nights(before=0, after=0),
    params=HotpixParams,
    measures=[
        Measure("hot_pixels", "Number of pixels masked."),
        Measure("hot_fraction", "Fraction of the detector that is masked."),
        Measure("bad_columns", "Number of columns, or parts of columns, masked as such."),
    ],
    limits=[Limit("hot_fraction", high=0.5)],
    recipe=make_hotpix,
    revision=1,
    unit="",
    example="awe-hotpix -o hotpix.fits bias.fits",
)
