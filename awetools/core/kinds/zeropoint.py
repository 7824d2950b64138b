"""Photometric zero point of one detector frame, from stars of known magnitudes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import BadHeader, BadValue, NoMatch, NoSolution
from ..kind import (
    DETECTOR_MATCH,
    REFCAT,
    Kind,
    Limit,
    Measure,
    Need,
    Result,
    catalogue,
    holding,
    of_frame,
)
from ..params import param
from .declare import illumination_need, refcat_param

if TYPE_CHECKING:
    import numpy as np

    from ..catalogues.refinput import RefcatInput
    from ..frame import Table
    from ..photometry.bands import Choice, Magnitudes
    from ..photometry.zeropoint import ZeroPoint
    from ..sky.refcat import Catalogue

UNITS = {
    "MAG": "mag",
    "MAG_ERROR": "mag",
    "MAG_REF": "mag",
    "MAG_REF_ERROR": "mag",
    "COLOUR": "mag",
    "RESIDUAL_MAG": "mag",
    "X_PX": "pix",
    "Y_PX": "pix",
}


@dataclass(frozen=True)
class ZeropointParams:
    """Parameters of `make_zeropoint`."""

    refcat: str = refcat_param()
    band: str = param("auto", "Band of the reference magnitudes; auto: as the filter's name says.")
    colour: str = param(
        "none", "Colour term: none, fitted, or given as colour_term.", choices=("none", "fit", "given")
    )
    colour_term: float = param(0.0, "Coefficient of the colour, if it is given.", low=-5, high=5)
    extinction_mag: float = param(
        -1.0, "Extinction at airmass 1; below 0: not known.", unit="mag", low=-1, high=5
    )
    clip_sigma: float = param(
        3.0, "Residual beyond which a star is clipped.", unit="sigma", low=1.5, high=100
    )
    signal_to_noise: float = param(10.0, "Least signal-to-noise ratio of a star.", low=1, high=1e6)


def make_zeropoint(
    sources: Table,
    astrom: Table | None = None,
    gphot: Table | None = None,
    refcat: Catalogue | None = None,
    illumination: Table | None = None,
    *,
    params: ZeropointParams,
) -> Result:
    """Find the zero point of a frame: the magnitude of a source of 1 ADU/s.

    sources: the table of kind `sources`. astrom: its meta has the WCS by which sources and
    reference stars are matched. gphot: the table of a common solution with this frame in
    it; then that gives the zero point, and the catalogue is not looked at. refcat: the catalogue of
    the magnitudes. illumination: what the flat has wrong for stars, taken out of their fluxes. Fluxes are
    FLUX_AUTO_ADU, so the zero point makes up for the light that the Kron
    aperture of a typical star does not hold. Returns a row a star: NUMBER of the source, X_PX, Y_PX, MAG
    with the zero point and MAG_ERROR, MAG_REF and MAG_REF_ERROR in the frame's band, COLOUR, RESIDUAL_MAG (MAG_REF less
    MAG, the colour taken into account), USED. Of a common solution: the stars that it could use.
    Method: photometry.zeropoint. Raises NoSolution, NoMatch, BadHeader, BadValue, UnknownName.
    """
    from .illumination import corrected

    sources = corrected(sources, illumination)
    exptime_s = exptime_of(sources.meta)
    if params.colour_term and params.colour != "given":
        raise BadValue(
            f"a colour term of {params.colour_term:g} is given, but colour = {params.colour}",
            hint="--colour given",
        )
    if gphot is not None:
        return _of_common(sources, astrom, gphot, exptime_s, params)
    if refcat is None:
        raise NoMatch(
            "there are no reference magnitudes: no catalogue, and no common solution",
            hint="awe-refcat import, or awe-gphot, which ties frames to each other",
        )
    from ..photometry.bands import reference_magnitudes
    from ..photometry.zeropoint import zero_point

    choice, cards = choice_of(refcat, sources.meta, params.band), cards_of(astrom, sources.meta)
    stars, star = _beside(sources, cards, refcat)
    magnitudes = reference_magnitudes(choice, stars)
    rows = star >= 0
    columns = {name: column[rows] for name, column in sources.columns.items()}
    star = star[rows]
    if params.colour != "none" and choice.colour is None:
        raise BadValue(f"a colour term, but the catalogue {refcat.name} has no colours", hint="--colour none")
    found = zero_point(
        columns["FLUX_AUTO_ADU"],
        columns["FLUX_AUTO_ERROR_ADU"],
        exptime_s,
        magnitudes.mag[star],
        magnitudes.error_mag[star],
        colour=None if choice.colour is None else magnitudes.colour[star],
        colour_term=params.colour_term if params.colour == "given" else None,
        fit_colour=params.colour == "fit",
        airmass=sources.meta.get("airmass"),
        extinction_mag=params.extinction_mag if params.extinction_mag >= 0 else None,
        saturated=(columns["FLAGS"] & SATURATED) != 0,
        usable=usable(columns),
        clip_sigma=params.clip_sigma,
        least_signal_to_noise=params.signal_to_noise,
    )
    return Result(
        table=_table(columns, magnitudes, star, found, exptime_s),
        units=UNITS,
        measures=_measures(found, magnitudes, sources, exptime_s),
        meta=_meta(found.zeropoint_mag, choice.text, cards),
        used={"band": choice.text} | ({"system": choice.note} if choice.note else {}),
    )


# Bits of FLAGS (pixels.sources): the flux is not that of one whole star.
SATURATED = 4
SPOILED = 1 | 2 | SATURATED | 8 | 16 | 64 | 2048
LEAST_STAR = 0.05


def usable(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Which sources are single, whole stars, saturated or not, as a boolean column."""
    # Lists of other programs may not say what is a star.
    good: np.ndarray = ((columns["FLAGS"] & (SPOILED & ~SATURATED)) == 0) & ~(columns["STAR"] < LEAST_STAR)
    return good


def unsaturated(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Which of these are not saturated, as a boolean column."""
    good: np.ndarray = usable(columns) & ((columns["FLAGS"] & SATURATED) == 0)
    return good


def exptime_of(meta: Mapping[str, Any]) -> float:
    """The exposure time by which fluxes are divided, s; raises BadHeader."""
    seconds = meta.get("exptime_s")
    if not seconds or seconds <= 0:
        raise BadHeader(
            f"{meta.get('exposure')}: the exposure time is {seconds!r}",
            hint="awe-ingest --set exptime_s=SECONDS FILE",
        )
    return float(seconds)


def cards_of(astrom: Table | None, meta: Mapping[str, Any]) -> Mapping[str, Any]:
    """The WCS cards of the astrometric solution of a frame; raises NoMatch, BadHeader, naming the frame."""
    name = f"{meta.get('detector')} in {meta.get('exposure')}"
    if astrom is None:
        raise NoMatch(f"{name}: there is no astrometric solution", hint="awe-astrom, or --astrom FILE")
    cards: Mapping[str, Any] | None = astrom.meta.get("wcs")
    if not cards:
        raise BadHeader(f"{name}: the astrometric solution has no WCS", hint="awe-verify")
    return cards


def solution_of(astrom: Table | None, meta: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, str]]:
    """The WCS cards of a frame, those of its header where it goes without a solution, and what is to be said of that.

    Raises NoMatch, BadHeader, naming the frame.
    """
    if astrom is None and meta.get("wcs"):
        return meta["wcs"], {"astrom": "there is none: the header's WCS is taken as it is"}
    if astrom is None:
        name = f"{meta.get('detector')} in {meta.get('exposure')}"
        text = f"{name}: there is no astrometric solution, and no WCS in the header"
        raise NoMatch(text, hint="awe-astrom, or --astrom FILE")
    return cards_of(astrom, meta), {}


def zero_point_of(zeropoint: Table | None, meta: Mapping[str, Any]) -> tuple[float | None, str | None]:
    """The magnitude of 1 ADU/s and its band (None: relative), as solved, else as a frame of another pipeline says."""
    solved = meta if zeropoint is None else zeropoint.meta
    return solved.get("zeropoint_mag"), solved.get("zeropoint_band")


def choice_of(refcat: Catalogue, meta: Mapping[str, Any], band: str) -> Choice:
    """The magnitudes of a catalogue that serve a frame's filter; raises UnknownName, NoSolution."""
    from ..photometry.bands import choose_band, family_of

    header = refcat.header
    layouts = [str(one.get("layout") or "") for one in header.get("sources") or ()]
    epochs = header.get("epochs_yr") or [None]
    family = family_of(refcat.bands, layouts, epochs[0])
    asked = "" if band == "auto" else band
    return choose_band(str(meta.get("filter") or ""), refcat.bands, band=asked, family=family)


def foresee_band(
    meta: Mapping[str, Any], params: Any, catalogues: Mapping[str, RefcatInput], roles: Collection[str]
) -> None:
    """Raise NoSolution where the catalogue has no magnitudes for the filter, and is looked at (`Kind.foresee`)."""
    if "refcat" in catalogues and "gphot" not in roles:
        choice_of(catalogues["refcat"].look(), meta, params.band)


def _beside(
    sources: Table, cards: Mapping[str, Any], refcat: Catalogue
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    from ..sky.known import stars_beside
    from ..sky.local import epoch_of, shape_of
    from ..sky.readwcs import read_wcs

    columns, meta = sources.columns, sources.meta
    return stars_beside(
        read_wcs(cards),
        columns["X_WIN_PX"],
        columns["Y_WIN_PX"],
        shape_of(meta, columns),
        refcat,
        epoch_of(meta),
    )


def _table(
    columns: Mapping[str, np.ndarray],
    magnitudes: Magnitudes,
    star: np.ndarray,
    found: ZeroPoint,
    exptime_s: float,
) -> dict[str, np.ndarray]:
    import numpy as np

    from ..photometry.zeropoint import instrumental

    mag, error = instrumental(columns["FLUX_AUTO_ADU"], columns["FLUX_AUTO_ERROR_ADU"], exptime_s)
    return {
        "NUMBER": columns["NUMBER"],
        "X_PX": columns["X_WIN_PX"],
        "Y_PX": columns["Y_WIN_PX"],
        "MAG": mag + found.zeropoint_mag,
        "MAG_ERROR": error.astype(np.float32),
        "MAG_REF": magnitudes.mag[star],
        "MAG_REF_ERROR": magnitudes.error_mag[star].astype(np.float32),
        "COLOUR": magnitudes.colour[star].astype(np.float32),
        "RESIDUAL_MAG": found.residual_mag.astype(np.float32),
        "USED": found.used.astype(np.uint8),
    }


def _measures(
    found: ZeroPoint, magnitudes: Magnitudes, sources: Table, exptime_s: float
) -> dict[str, float | int | None]:
    return {
        "zeropoint_error_mag": found.error_mag,
        "stars": found.stars,
        "clipped": found.clipped,
        "unusable": sum(found.left_out.values()),
        "scatter_mag": found.scatter_mag,
        "rms_mag": found.rms_mag,
        "chi2_reduced": found.chi2,
        "colour_coefficient": found.colour_coefficient,
        "colour_coefficient_error": found.colour_coefficient_error,
        "colour_reference_mag": found.colour_reference_mag,
        "above_atmosphere_mag": found.above_atmosphere_mag,
        "aperture_correction_mag": _aperture_correction_mag(sources.columns),
        "depth_mag": depth_mag(sources.columns, found.zeropoint_mag, exptime_s),
    }


def _aperture_correction_mag(columns: Mapping[str, np.ndarray]) -> float | None:
    """Kron less aperture magnitude of the stars, for the first aperture; None where no star tells it."""
    from ..photometry.zeropoint import aperture_correction

    flux, error = (
        columns[f"FLUX_APERTURE_{end}"].reshape(len(columns["FLAGS"]), -1) for end in ("ADU", "ERROR_ADU")
    )
    try:
        found = aperture_correction(
            flux[:, :1],
            error[:, :1],
            columns["FLUX_AUTO_ADU"],
            columns["FLUX_AUTO_ERROR_ADU"],
            usable=unsaturated(columns),
        )
    except NoSolution:
        return None
    return float(found.correction_mag[0])


def depth_mag(columns: Mapping[str, np.ndarray], zeropoint_mag: float, exptime_s: float) -> float | None:
    """The magnitude of a faint star that is 5 times its own error; None where no faint source tells it."""
    import numpy as np

    flux, error = (np.asarray(columns[name], np.float64) for name in ("FLUX_AUTO_ADU", "FLUX_AUTO_ERROR_ADU"))
    faint = (flux > 0) & (error > 0) & (flux < FAINT_SIGMA * error)
    if not faint.any():
        return None
    return zeropoint_mag - 2.5 * math.log10(DEPTH_SIGMA * float(np.median(error[faint])) / exptime_s)


# The significance at which the depth is given, and up to which a source's own light adds little to its error.
DEPTH_SIGMA, FAINT_SIGMA = 5.0, 20.0


def _of_common(
    sources: Table, astrom: Table | None, gphot: Table, exptime_s: float, params: ZeropointParams
) -> Result:
    import numpy as np

    from ..photometry.zeropoint import POGSON, instrumental
    from .gphot import frame_of

    _refuse_what_it_has_not(params)
    one = frame_of(gphot, sources.meta)
    columns = sources.columns
    mag, error = instrumental(columns["FLUX_AUTO_ADU"], columns["FLUX_AUTO_ERROR_ADU"], exptime_s)
    stars = np.flatnonzero(unsaturated(columns) & (error * params.signal_to_noise <= POGSON))
    nothing = np.full(len(stars), np.nan, np.float32)
    table = {name: columns[source][stars] for name, source in PLACES.items()} | {
        "MAG": mag[stars] + one.zeropoint_mag,
        "MAG_ERROR": error[stars].astype(np.float32),
        **dict.fromkeys(("MAG_REF", "MAG_REF_ERROR", "COLOUR", "RESIDUAL_MAG"), nothing),
        "USED": np.ones(len(nothing), np.uint8),
    }
    measures: dict[str, float | int | None] = dict.fromkeys(measure.name for measure in MEASURES)
    measures |= {
        "zeropoint_error_mag": one.error_mag,
        "stars": one.stars,
        "above_atmosphere_mag": _above_atmosphere_mag(one.zeropoint_mag, sources.meta, params),
        "aperture_correction_mag": _aperture_correction_mag(sources.columns),
        "depth_mag": depth_mag(sources.columns, one.zeropoint_mag, exptime_s),
    }
    return Result(
        table=table,
        units=UNITS,
        measures=measures,
        meta=_meta(one.zeropoint_mag, one.band, None if astrom is None else astrom.meta.get("wcs")),
        used={"band": one.band or RELATIVE},
    )


RELATIVE = "none: magnitudes are relative, to the mean zero point of the frames that share stars"


def _meta(zeropoint_mag: float, band: str, cards: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the product says; the band as it is called, without how it is made of others."""
    name = band.split(" from ")[0] or None
    return {"zeropoint_mag": round(zeropoint_mag, 6), "zeropoint_band": name, "wcs": cards}


def _refuse_what_it_has_not(params: ZeropointParams) -> None:
    """A common solution has its own band and no colours; raises BadValue for what asks for others."""
    for name, usual in (("band", "auto"), ("colour", "none")):
        value = getattr(params, name)
        if value != usual:
            raise BadValue(
                f"{name} = {value}, but the zero point is that of the common solution",
                hint="--no-gphot: from the frame's own stars",
            )


def _above_atmosphere_mag(
    zeropoint_mag: float, meta: Mapping[str, Any], params: ZeropointParams
) -> float | None:
    if params.extinction_mag < 0:
        return None
    airmass = meta.get("airmass")
    if airmass is None:
        raise BadValue(f"an extinction of {params.extinction_mag} mag, but the airmass is not known")
    return zeropoint_mag + params.extinction_mag * float(airmass)


PLACES = {"NUMBER": "NUMBER", "X_PX": "X_WIN_PX", "Y_PX": "Y_WIN_PX"}
MEASURES = (
    Measure("zeropoint_error_mag", "Standard error of the zero point."),
    Measure("stars", "Number of stars that it rests on."),
    Measure("clipped", "Number of stars that were clipped."),
    Measure("unusable", "Number of matched sources that are no whole, single star, saturated, or too faint."),
    Measure("scatter_mag", "Scatter of the stars beyond their errors."),
    Measure("rms_mag", "Root mean square residual of the stars used."),
    Measure("chi2_reduced", "Squares of the residuals over those expected, to a degree of freedom."),
    Measure("colour_coefficient", "Coefficient of the colour, mag a mag."),
    Measure("colour_coefficient_error", "Its standard error, where it was fitted."),
    Measure("colour_reference_mag", "Colour of the stars for which the zero point holds."),
    Measure("above_atmosphere_mag", "Zero point at airmass 0, where the extinction is given."),
    Measure("aperture_correction_mag", "Kron less aperture magnitude of stars, for the first aperture."),
    Measure("depth_mag", "Magnitude of a faint source that is 5 times its own error."),
)

ZEROPOINT = Kind(
    name="zeropoint",
    command="awe-zeropoint",
    class_name="Zeropoint",
    summary="Find the photometric zero points of frames.",
    description="""One source list with its astrometric solution makes one zero point: the magnitude of a
source of 1 ADU/s, as the frame sees it, through its airmass and clouds. Reference magnitudes are those of
the catalogue in the frame's filter, transformed by published relations where the catalogue has other bands; stars
are weighted by their errors and clipped, with a colour term where one is asked for. If a common solution of
frames (awe-gphot) holds the source list, the zero point is that of the solution, which may be
relative. Magnitudes are of Kron fluxes: the zero point makes up for the light outside, some 2% for a star.""",
    needs=[
        Need("sources", "sources", of_frame(), help="Source lists."),
        Need("astrom", "astrom", of_frame(), help="Astrometric solution of the same frame."),
        Need(
            "gphot",
            "gphot",
            holding(),
            optional=True,
            on_request=True,
            help="Common photometric solution with the frame in it.",
        ),
        Need("refcat", REFCAT, catalogue(), optional_with="gphot", help="Catalogue of the magnitudes."),
        illumination_need("sources"),
    ],
    match=(*DETECTOR_MATCH, "filter"),
    group=["exposure"],
    reads=["exptime_s", "airmass", "obs_start", "ra_deg", "dec_deg", "nx", "ny"],
    validity=None,
    params=ZeropointParams,
    measures=list(MEASURES),
    limits=[Limit("zeropoint_error_mag", high=0.1)],
    recipe=make_zeropoint,
    revision=1,
    foresee=foresee_band,
    unit="",
    example="awe-query sources filter=R | awe-zeropoint --refcat gaia -j2",
)
