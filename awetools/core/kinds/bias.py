"""Master bias: what the detector reads when nothing fell on it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import BadPixels, TooFew
from ..kind import DETECTOR_MATCH, Kind, LeftOut, Limit, Measure, Need, Result, group, nights, valid_at
from ..params import param
from .declare import overscan_mode_param

if TYPE_CHECKING:
    import numpy as np

    from ..frame import FrameSet, Table
    from ..pixels.stats import Clipped
    from .common import Trimmed

LEAST_FRAMES = 3
# Rows of each amplifier from which the noise is estimated where no readnoise product is given:
# 128 rows of 1000 pixels in five pairs give it to 0.1%.
NOISE_ROWS = 128
# What the program itself holds besides its frames.
PROGRAM_BYTES = 1 << 25


@dataclass(frozen=True)
class BiasParams:
    """Parameters of `make_bias`."""

    combine: str = param(
        "clipped",
        "Mean of what the clip leaves, or the median of all exposures.",
        choices=("clipped", "median"),
    )
    clip_sigma: float = param(
        3.0, "Reject pixels this far from the median, by the noise model.", unit="sigma", low=1
    )
    overscan_mode: str = overscan_mode_param()


def make_bias(raw: FrameSet, *, readnoise: Table | None = None, params: BiasParams) -> Result:
    """Stack overscan-corrected zero-second exposures into one frame.

    raw: at least three biases of one detector, ADU. readnoise: a table with a
    row an amplifier, else the noise is estimated from pairs of these biases.
    Returns SCI (ADU), the mean of the pixels within clip_sigma of the median or the
    median itself, and WEIGHT (ADU^-2), its inverse variance by the noise model, 0
    where no frame had a finite value or (clipped) all frames disagree (SCI is then
    their median). Constant exposures are left out. Raises TooFew if less than three are
    left, BadPixels for identical or saturated frames.
    """
    import numpy as np

    from ..pixels.stats import clipped, middle
    from .common import in_time_order, noise_of_pairs, read_noise_of, saturation_of, trim

    left_out = _constant(raw)
    raw = raw.without([one.number for one in left_out])
    if len(raw) < LEAST_FRAMES:
        raise TooFew(
            f"{len(raw)} biases are left of {len(raw) + len(left_out)}: {left_out[0].reason}",
            hint="awe-imstat shows their pixels",
        )
    trimmed = [trim(frame, params.overscan_mode) for frame in in_time_order(raw)]
    used = {}
    noise = read_noise_of(readnoise, [], raw.amplifiers)
    if noise is None:
        pairs = noise_of_pairs(trimmed, raw.amplifiers, rows=NOISE_ROWS)
        noise = [float(value) for value in middle(pairs)]
        used["readnoise"] = "estimated from pairs of these biases"
    data, weight, rejected = _stack(raw, trimmed, noise, params)
    level = clipped(data, use=weight > 0)
    row_structure, column_structure = _structure(data, level)
    overscan_level = float(np.mean([one.level_adu for one in trimmed]))
    if level.median + overscan_level >= min(saturation_of(raw.frames[0].meta, raw.amplifiers)):
        raise BadPixels(f"the biases are saturated: their level is {level.median + overscan_level:.0f} ADU")
    return Result(
        planes={"SCI": data, "WEIGHT": weight},
        measures={
            "level_adu": level.median,
            "stdev_adu": level.stdev,
            "read_noise_adu": float(np.mean(noise)),
            "row_structure_adu": row_structure,
            "column_structure_adu": column_structure,
            "overscan_level_adu": overscan_level,
            "overscan_slope_adu": float(np.mean([one.slope_adu for one in trimmed])),
            "overscan_noise_adu": float(np.mean([one.noise_adu for one in trimmed])),
            "rejected_fraction": rejected / (data.size * len(raw)),
            "unstable_pixels": int(np.count_nonzero((weight == 0) & (data != 0))),
            "frames": len(raw),
            "left_out": len(left_out),
        },
        left_out=left_out,
        meta={"read_noise_adu": [round(value, 5) for value in noise]},
        used=used,
    )


def _constant(raw: FrameSet) -> list[LeftOut]:
    """The exposures whose pixels are all the same: they were not read out."""
    from .exposures import constant_level

    levels = [constant_level(frame) for frame in raw]
    return [
        LeftOut(number, f"{frame.meta.get('exposure')}: all its pixels read {level:.0f} ADU")
        for number, (frame, level) in enumerate(zip(raw, levels, strict=True))
        if level is not None
    ]


def _stack(
    raw: FrameSet, trimmed: list[Trimmed], noise: list[float], params: BiasParams
) -> tuple[np.ndarray, np.ndarray, int]:
    """Clipped mean or median and its inverse variance (ny, nx), and how many pixels were rejected."""
    import numpy as np

    from ..pixels.stack import clipped_mean
    from .common import amplifier_map

    data = np.zeros(raw.shape, dtype=np.float32)
    counts: list[tuple[slice, np.ndarray]] = []
    rejected = 0
    noise_adu = amplifier_map(raw.amplifiers, noise, raw.shape)
    strips = list(raw.strips(bytes_a_pixel=16, fixed_bytes=data.nbytes * 2 + PROGRAM_BYTES))
    # Memory that nobody had before is dear: every stack is made in the same, and the weight after them.
    stack_size = max(y1 - y0 for y0, y1 in strips) * raw.shape[1] * len(trimmed)
    room = np.empty(max(stack_size, data.size), dtype=np.float32)
    for y0, y1 in strips:
        shape = (len(trimmed), y1 - y0, raw.shape[1])
        stack = room[: math.prod(shape)].reshape(shape)
        for number, one in enumerate(trimmed):
            one.rows(y0, y1, stack[number])
        rows = slice(y0, y1)
        if params.combine == "median":
            count = _median(stack, data[rows])
        else:
            combined = clipped_mean(stack, _rows_of(noise_adu, rows), params.clip_sigma, out=data[rows])
            count, rejected = combined.count, rejected + combined.rejected
        counts.append((rows, count.astype(np.min_scalar_type(len(trimmed)))))
    weight = room[: data.size].reshape(raw.shape)
    _weigh(counts, noise_adu, params.combine == "median", weight)
    return data, weight, rejected


def _rows_of(whole: np.ndarray, rows: slice) -> np.ndarray:
    """Rows of an array that may be one row for all."""
    return whole if len(whole) == 1 else whole[rows]


def _weigh(
    counts: list[tuple[slice, np.ndarray]], noise_adu: np.ndarray, is_median: bool, out: np.ndarray
) -> None:
    """Fill `out` (ny, nx) with the inverse variance by the noise model; the counts are those of all its rows."""
    import numpy as np

    from ..pixels.stack import median_equivalent
    from .common import DIGITISATION_VARIANCE_ADU2

    for rows, count in counts:
        held = median_equivalent(count) if is_median else count
        np.divide(held, _rows_of(noise_adu, rows) ** 2 + DIGITISATION_VARIANCE_ADU2, out=out[rows])


def _median(stack: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Fill `out` with the median of the finite values, 0 where there is none; their number, as it broadcasts."""
    import numpy as np

    from ..pixels.stack import median
    from ..pixels.stats import row_medians

    median(stack, out)
    bad = ~np.isfinite(out)
    if not bad.any():
        return np.array(len(stack))
    values = np.ascontiguousarray(stack[:, bad].T)
    finite = np.isfinite(values)
    out[bad] = np.nan_to_num(row_medians(values, finite), nan=0.0)
    count = np.full(out.shape, len(stack))
    count[bad] = finite.sum(axis=1)
    return count


def _structure(data: np.ndarray, level: Clipped) -> tuple[float, float]:
    """Clipped standard deviation of the means of rows and of columns, outliers cut off, ADU."""
    from ..pixels.stats import clipped, line_means

    rows, columns = line_means(data, level.median - 5 * level.stdev, level.median + 5 * level.stdev)
    return clipped(rows).stdev, clipped(columns).stdev


BIAS = Kind(
    name="bias",
    command="awe-bias",
    class_name="Bias",
    summary="Make a master bias from raw bias exposures of one detector.",
    description="""Each exposure has its overscan subtracted, is trimmed, and stacked: pixels further than
clip_sigma from the median are rejected by the noise model (the read noise and digitisation), and the rest
are averaged (--combine clipped), or the median of all is taken (--combine median). The read noise comes
from a readnoise product, else from pairs of the same exposures.""",
    needs=[
        Need(
            "raw",
            "raw_bias",
            group(),
            many=True,
            at_least=LEAST_FRAMES,
            help="Raw bias exposures of one detector.",
        ),
        Need("readnoise", "readnoise", valid_at(), optional=True, help="Read noise of the amplifiers."),
    ],
    match=DETECTOR_MATCH,
    group=["night"],
    reads=["sections", "saturation_adu"],
    validity=nights(before=0, after=0),
    params=BiasParams,
    measures=[
        Measure("level_adu", "Clipped median of the master bias."),
        Measure("stdev_adu", "Clipped standard deviation of the master bias."),
        Measure("read_noise_adu", "Read noise that the rejection used, mean over the amplifiers."),
        Measure("row_structure_adu", "Standard deviation of the row means."),
        Measure("column_structure_adu", "Standard deviation of the column means."),
        Measure("overscan_level_adu", "Mean level of the overscan."),
        Measure("overscan_slope_adu", "Mean change of the overscan from the first row to the last."),
        Measure("overscan_noise_adu", "Mean noise of an overscan pixel."),
        Measure("rejected_fraction", "Fraction of the input pixels that were rejected."),
        Measure("unstable_pixels", "Number of pixels in which all exposures disagree; their weight is 0."),
        Measure("frames", "Number of exposures used."),
        Measure("left_out", "Number of exposures left out because they are constant."),
    ],
    limits=[Limit("good_fraction", low=0.5)],
    recipe=make_bias,
    revision=2,
    example="awe-query raw_bias night=2017-03-02 | awe-bias -o bias.fits",
)
