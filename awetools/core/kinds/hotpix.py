"""Hot pixels and bad columns, from a master dark or bias."""

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
        5.0, "A pixel this far off its surroundings is a defect, in sigma of the master.", unit="sigma", low=3
    )
    column_sigma: float = param(
        5.0, "A column this far from its neighbours is bad, in sigma of column medians.", unit="sigma", low=3
    )


def make_hotpix(master: Frame, params: HotpixParams) -> Result:
    """Find the pixels of a master dark or bias that are off their surroundings, and bad columns.

    master: SCI and weight (inverse variance, any unit). Each amplifier is searched by
    itself, so that its edge is no defect; the noise is the local scatter, or that which
    the weights say of most pixels where it is more. Returns MASK, int16: bit 1 (hot) where a pixel or a
    column stands above its surroundings or differs from frame to frame (a value, but no
    weight), 2 (cold) where it lies as far below, and 32 where the master has no data.
    Of a dark a pixel is low where the bias has too much, or a trap holds the charge back:
    neither is corrected by subtracting it.
    """
    import numpy as np

    from ..pixels.defects import bad_columns, hot_pixels
    from ..pixels.mask import Bit
    from .common import amplifiers_of

    mask = np.zeros(master.data.shape, dtype=np.int16)
    columns = 0
    for amp in amplifiers_of(master):
        box = (slice(amp.target.y0, amp.target.y1), slice(amp.target.x0, amp.target.x1))
        data = master.data[box]
        use, noise = np.ones(data.shape, dtype=bool), None
        if master.weight is not None:
            weight = master.weight[box]
            use = weight > 0
            # That of the usual pixel: the shot noise of a hot one must not hide it.
            noise = float(1 / np.sqrt(np.median(weight[use]))) if use.any() else None
        if use.any():
            lines = bad_columns(data, use, params.column_sigma)
            columns += len(lines.runs)
            mask[box] |= lines.mask
            rest = use & (lines.mask == 0)
            mask[box] |= hot_pixels(data, rest, noise, params.threshold_sigma, low_too=True).mask
        # Where all frames disagreed the master has a value but no weight: such a pixel cannot be corrected.
        mask[box] |= np.where(use, 0, np.where(data != 0, Bit.HOT, Bit.OUTSIDE)).astype(np.int16)
    return Result(
        planes={"MASK": mask},
        measures={
            "hot_pixels": int(np.count_nonzero(mask & Bit.HOT)),
            "cold_pixels": int(np.count_nonzero(mask & Bit.COLD)),
            "hot_fraction": np.count_nonzero(mask & (Bit.HOT | Bit.COLD)) / mask.size,
            "bad_columns": columns,
        },
    )


HOTPIX = Kind(
    name="hotpix",
    command="awe-hotpix",
    class_name="HotPix",
    summary="Find hot pixels and bad columns in a master dark or bias.",
    description="""A pixel is hot if it stands above its surroundings by threshold_sigma, in the noise
of the master itself, or if the exposures of the master disagree; cold if it lies as far below. Columns,
or parts of columns, whose median deviates are masked as columns. A dark shows them all; a bias shows only
the worst, and serves where there is no dark.""",
    needs=[Need("master", "dark", valid_at(), or_kinds=("bias",), help="Master dark, or master bias.")],
    match=DETECTOR_MATCH,
    group=["night"],
    reads=["sections"],
    validity=nights(before=0, after=0),
    params=HotpixParams,
    measures=[
        Measure("hot_pixels", "Number of pixels masked as hot, those of columns among them."),
        Measure("cold_pixels", "Number of pixels masked as cold, those of columns among them."),
        Measure("hot_fraction", "Fraction of the detector that is masked as hot or cold."),
        Measure("bad_columns", "Number of columns, or parts of columns, masked as such."),
    ],
    limits=[Limit("hot_fraction", high=0.5)],
    recipe=make_hotpix,
    revision=2,
    unit="",
    example="awe-hotpix -o hotpix.fits dark.fits",
)
