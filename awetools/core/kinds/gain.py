"""Gain of every amplifier, and how linear it is, from pairs of flats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import BadHeader, NoMatch, TooFew
from ..kind import DETECTOR_MATCH, Kind, LeftOut, Limit, Measure, Need, Result, group, nights, valid_at
from ..params import param
from .declare import overscan_mode_param

if TYPE_CHECKING:
    from ..frame import Frame, FrameSet, RawFrame, Table

UNITS = {
    "GAIN_E_ADU": "electron/adu",
    "GAIN_ERROR_E_ADU": "electron/adu",
    "READ_NOISE_ADU": "adu",
    "READ_NOISE_E": "electron",
    "EXCESS_ADU2": "adu2",
    "NONLINEAR_ADU": "adu",
    "PAIR_LEVEL_ADU": "adu",
    "PAIR_VARIANCE_ADU2": "adu2",
    "PAIR_ERROR_ADU2": "adu2",
    "PAIR_FIT_ADU2": "adu2",
    "FLAT_LEVEL_ADU": "adu",
    "FLAT_EXPTIME_S": "s",
}


@dataclass(frozen=True)
class GainParams:
    """Parameters of `make_gain`."""

    clip_sigma: float = param(
        4.0, "Reject pixels whose difference in a pair is beyond this.", unit="sigma", low=2, high=10
    )
    pair_fraction: float = param(
        0.04, "Refuse pairs whose levels differ by more than this fraction.", low=0, high=0.5
    )
    min_level_adu: float = param(500.0, "Leave out exposures below this level.", unit="ADU", low=0)
    max_level_fraction: float = param(
        0.8, "Leave out exposures above this fraction of saturation.", low=0, high=1
    )
    lamp_fraction: float = param(
        0.005,
        "Measure linearity only if exposures of one exposure time agree to this fraction.",
        low=0,
        high=0.1,
    )
    linearity_fraction: float = param(
        0.005, "Report linearity only if its error is below this fraction.", low=0, high=0.1
    )
    overscan_mode: str = overscan_mode_param()


def make_gain(
    raw: FrameSet,
    *,
    bias: Frame | None = None,
    readnoise: Table | None = None,
    params: GainParams,
) -> Result:
    """Measure the gain of each amplifier by photon transfer, and its linearity if the lamp was stable.

    raw: flats of one detector, of any filters and levels, of a lamp or of
    twilight. bias: SCI (ADU). readnoise: a row an amplifier, else the bias or the
    camera table gives it. Two exposures of one filter and level, neighbours in
    time, are a pair; pixels.transfer has the methods. Hot pixels need no mask:
    they cancel in a pair, or are clipped.

    Returns a table of one row an amplifier. AMP. GAIN_E_ADU and GAIN_ERROR_E_ADU,
    e/ADU at zero level. READ_NOISE_ADU, READ_NOISE_E. EXCESS_ADU2: variance of
    exposed frames beyond read noise and photons. CHANGE_FRACTION: change of
    variance by photons / level from zero to the highest pair. PAIRS: how many were
    fitted; 0 if the amplifier has no light: its gain is then the documented one,
    else the mean of the others, with an error as large. LINEARITY_EXPOSURES: how
    many, 0 if linearity was not measured; NONLINEARITY_FRACTION: the largest
    deviation up to the highest level, NONLINEARITY_ERROR_FRACTION its error,
    NONLINEAR_ADU the level above zero at which it passes 1%, 0 if it does not
    within the levels measured. The points of the curves are vectors in the row:
    PAIR_LEVEL_ADU, PAIR_VARIANCE_ADU2 (of one exposure, less read noise),
    PAIR_ERROR_ADU2, PAIR_FIT_ADU2, PAIR_USED; FLAT_LEVEL_ADU, FLAT_EXPTIME_S and
    FLAT_DEVIATION_FRACTION, 0 if not measured. Raises TooFew (no pair), BadPixels (pairs without noise of photons),
    BadHeader (read noise not known), NoMatch (neither bias nor overscan).
    """
    from . import gainpairs as steps
    from .common import READ_NOISE_HINT, in_time_order, read_noise_of, trim

    frames = in_time_order(raw)
    read_noise = read_noise_of(readnoise, [bias.meta if bias else {}, frames[0].meta], raw.amplifiers)
    if read_noise is None:
        raise BadHeader("the read noise is not known", hint=READ_NOISE_HINT)
    if bias is None and not any(amp.overscan for amp in raw.amplifiers):
        raise NoMatch("neither a bias nor an overscan: the level above zero is not known", hint="--bias FILE")
    background = steps.background_of(raw.shape, bias, read_noise)
    exposures = [
        steps.exposure_of(_place(raw, frame), trim(frame, params.overscan_mode), background, params)
        for frame in frames
    ]
    exposures = steps.judged(exposures, params.min_level_adu)
    pairs, alone = steps.paired(exposures, params.pair_fraction)
    if not pairs:
        reasons = "; ".join(f"{one.name}: {one.reason}" for one in alone)
        raise TooFew(f"no two flats make a pair: {reasons}", hint="awe-query raw_domeflat")
    pairs, points, refused = steps.points_of(pairs, background, params.clip_sigma)
    left_out = [*alone, *refused]
    # One without a partner is left out of the pairs, but its level counts for the linearity.
    bad = {one.place for one in refused}
    levelled = [one for one in exposures if not one.reason and one.place not in bad]
    curves = steps.curves_of(points, levelled, background, params)
    table = steps.table_of(curves, levelled, read_noise, frames[0])
    return Result(
        table=table,
        units=UNITS,
        measures={
            **steps.measures_of(table, curves),
            "frames": len({one.place for pair in pairs for one in pair}),
            "left_out": len(left_out),
        },
        left_out=[LeftOut(one.place, one.reason) for one in left_out],
        meta={
            "gain_e_adu": [round(float(one), 5) for one in table["GAIN_E_ADU"]],
            "read_noise_adu": [round(one, 5) for one in read_noise],
        },
        used=_used(curves.unknown, readnoise is not None, bias, table),
    )


def _place(raw: FrameSet, frame: RawFrame) -> int:
    return next(number for number, one in enumerate(raw.frames) if one is frame)


def _used(unknown: str, has_readnoise: bool, bias: Frame | None, table: Mapping[str, Any]) -> dict[str, str]:
    """What was taken from elsewhere, or could not be measured."""
    used = {"linearity": unknown} if unknown else {}
    if not has_readnoise:
        from_bias = bias is not None and bias.meta.get("read_noise_adu")
        used["readnoise"] = "taken from the bias" if from_bias else "taken from the camera table"
    for name, pairs in zip(table["AMP"], table["PAIRS"], strict=True):
        if not pairs:
            used[f"amplifier {name}"] = (
                "has no light or is constant: its gain is the documented one, or that of the others"
            )
    return used


GAIN = Kind(
    name="gain",
    command="awe-gain",
    class_name="Gain",
    summary="Measure the gain and linearity of each amplifier from pairs of flats.",
    description="""Two exposures of one filter and level make a pair; those without a partner are named.
Each is divided by its own mean in squares of 32 pixels; the clipped variance of the difference, less read
noise and digitisation, against level is the photon transfer curve. A parabola whose higher terms have a
limited size is fitted to variance / level, so that the brighter-fatter effect and nonlinearity do not bias
the gain, which is that at zero level; with one level only, what they may be is in the error. If flats of one
filter have different exposure times, one is repeated and the lamp was stable, the deviation from linear is
measured too, with the drift of the lamp and the error of the shutter as unknowns; if not, the reason is
said. Take two flats at each of several levels, the levels not in order of time. The product is a table
with one row an amplifier, the points of both curves in it.""",
    needs=[
        Need(
            "raw",
            "raw_domeflat",
            group(),
            many=True,
            at_least=2,
            or_kinds=("raw_twiflat",),
            help="Raw flats of one detector.",
        ),
        # No hotpix, which may be made of a dark, whose noise model takes this gain: the clips do without.
        Need("bias", "bias", valid_at(), help="Master bias."),
        Need("readnoise", "readnoise", valid_at(), optional=True, help="Read noise of the amplifiers."),
    ],
    match=DETECTOR_MATCH,
    group=["night"],
    reads=[
        "frame_type",
        "sections",
        "gain_e_adu",
        "read_noise_adu",
        "saturation_adu",
        "filter",
        "exptime_s",
        "obs_start",
    ],
    validity=nights(before=30, after=30),
    params=GainParams,
    measures=[
        Measure("gain_e_adu", "Gain at zero level, mean over the amplifiers with light."),
        Measure("gain_error_e_adu", "Standard error of the gain, the largest of the amplifiers."),
        Measure("read_noise_e", "Read noise, mean over the amplifiers."),
        Measure(
            "change_fraction", "Change of variance by photons / level up to the highest pair; the largest."
        ),
        Measure("nonlinearity_fraction", "Largest deviation from linear within the levels measured."),
        Measure("nonlinearity_error_fraction", "Standard error of the deviation at the highest level."),
        Measure("nonlinear_adu", "Lowest level above zero at which the deviation passes 1%, if it does."),
        Measure("lamp_scatter_fraction", "Scatter of exposures of one filter and exposure time."),
        Measure("level_min_adu", "Lowest level of a pair."),
        Measure("level_max_adu", "Highest level of a pair."),
        Measure("pairs", "Number of pairs, the least of the amplifiers with light."),
        Measure("dead_amplifiers", "Number of amplifiers without light."),
        Measure("frames", "Number of exposures in pairs."),
        Measure("left_out", "Number of exposures without a pair."),
    ],
    limits=[Limit("gain_e_adu", low=0.0)],
    recipe=make_gain,
    revision=1,
    unit="",
    example="awe-query raw_domeflat night=2017-03-02 | awe-gain -o gain.fits",
)
