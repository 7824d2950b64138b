"""Dome flat: how the detector and the optics answer to the light of a lamp."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..kind import DETECTOR_MATCH, Kind, Limit, Result, nights
from .flatfield import (
    FLATFIELD_MEASURES,
    FLATFIELD_READS,
    Calibrations,
    FlatfieldParams,
    flatfield_needs,
    make_flatfield,
)

if TYPE_CHECKING:
    from ..frame import Frame, FrameSet, Table


@dataclass(frozen=True)
class DomeflatParams(FlatfieldParams):
    """Parameters of `make_domeflat`."""


def make_domeflat(
    raw: FrameSet,
    *,
    bias: Frame | None = None,
    dark: Frame | None = None,
    hotpix: Frame | None = None,
    readnoise: Table | None = None,
    gain: Table | None = None,
    params: DomeflatParams,
) -> Result:
    """Stack normalised exposures of a lamp into one flat.

    raw: exposures of one filter and detector. bias: SCI (ADU). dark: SCI (ADU/s).
    hotpix: MASK, left out of the levels. readnoise: a row an amplifier, else the bias or
    the camera table gives it. gain: a row an amplifier, else the camera table gives it.
    Each exposure, less overscan, bias and dark current, is divided by its
    clipped median over the whole detector, so that the ratios of the amplifiers'
    gains stay in the flat and a lamp that drifts does no harm; pixels off the median by the
    noise model (read noise and signal / gain) are rejected and the rest averaged, weighted by
    inverse variance. Returns SCI (median 1), WEIGHT (inverse variance) and MASK (1 and 2
    from hotpix, 512 no value: saturated in every exposure, or an amplifier without signal).
    Raises TooFew if no exposure is within levels.
    """
    return make_flatfield(raw, Calibrations(bias, dark, hotpix, readnoise, gain), params)[0]


DOMEFLAT = Kind(
    name="domeflat",
    command="awe-domeflat",
    class_name="DomeFlat",
    summary="Make a dome flat from raw exposures of a lamp, one filter and detector.",
    description="""Each exposure has its overscan, the bias and, where there is one, the dark current
subtracted, and is divided by its clipped median over the detector. Exposures outside the level bounds are
named and left out. Pixels off the median by the noise model are rejected; the rest are averaged, weighted
by their inverse variance. An amplifier without signal is masked, named and counted.""",
    needs=flatfield_needs("raw_domeflat", "Raw dome flats of one filter."),
    match=(*DETECTOR_MATCH, "filter"),
    group=["night"],
    reads=FLATFIELD_READS,
    validity=nights(before=0, after=0),
    params=DomeflatParams,
    measures=FLATFIELD_MEASURES,
    limits=[Limit("good_fraction", low=0.5)],
    recipe=make_domeflat,
    revision=2,
    unit="",
    example="awe-query raw_domeflat night=2017-03-02 filter=R | awe-domeflat -o domeflat_R.fits",
)
