"""Read noise of every amplifier, from pairs of bias exposures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..kind import DETECTOR_MATCH, Kind, Limit, Measure, Need, Result, group, nights
from .declare import overscan_mode_param

if TYPE_CHECKING:
    from ..frame import FrameSet


@dataclass(frozen=True)
class ReadnoiseParams:
    """Parameters of `make_readnoise`."""

    overscan_mode: str = overscan_mode_param()


def make_readnoise(raw: FrameSet, params: ReadnoiseParams) -> Result:
    """Measure the read noise of each amplifier from the differences of pairs of biases.

    raw: at least two biases of one detector. Returns a table of one row an
    amplifier: AMP, READ_NOISE_ADU (ADU, the median over pairs), SPREAD_ADU
    (standard deviation over pairs), PAIRS. A pair's noise is the clipped standard
    deviation of its difference / sqrt(2), corrected for the clipping and for
    digitisation (pixels.stats.pair_noise). Raises BadPixels for identical frames.
    """
    import numpy as np

    from .common import in_time_order, noise_of_pairs, trim

    trimmed = [trim(frame, params.overscan_mode) for frame in in_time_order(raw)]
    noise = noise_of_pairs(trimmed, raw.amplifiers, rows=0)
    value, spread = np.median(noise, axis=0), np.std(noise, axis=0)
    return Result(
        table={
            "AMP": np.array([amp.name for amp in raw.amplifiers]),
            "READ_NOISE_ADU": value,
            "SPREAD_ADU": spread,
            "PAIRS": np.full(len(value), len(noise), dtype=np.int32),
        },
        units={"READ_NOISE_ADU": "adu", "SPREAD_ADU": "adu"},
        measures={
            "read_noise_adu": float(np.mean(value)),
            "spread_adu": float(np.max(spread)),
            "pairs": len(noise),
        },
        meta={"read_noise_adu": [round(float(one), 5) for one in value]},
    )


READNOISE = Kind(
    name="readnoise",
    command="awe-readnoise",
    class_name="Readnoise",
    summary="Measure the read noise of each amplifier from pairs of raw biases.",
    description="""The noise of one frame is the clipped standard deviation of the difference of two
biases, divided by the square root of two, corrected for the clipping and for digitisation. Neighbours in
time make the pairs; the value of an amplifier is the median over its pairs. The product is a table with
one row an amplifier.""",
    needs=[
        Need("raw", "raw_bias", group(), many=True, at_least=2, help="Raw bias exposures of one detector.")
    ],
    match=DETECTOR_MATCH,
    group=["night"],
    reads=["sections"],
    validity=nights(before=0, after=0),
    params=ReadnoiseParams,
    measures=[
        Measure("read_noise_adu", "Read noise, mean over the amplifiers."),
        Measure("spread_adu", "Standard deviation over the pairs, the largest of the amplifiers."),
        Measure("pairs", "Number of pairs."),
    ],
    limits=[Limit("read_noise_adu", low=0.0)],
    recipe=make_readnoise,
    revision=2,
    unit="",
    example="awe-readnoise -o readnoise.fits raw/bias_*.fits",
)
