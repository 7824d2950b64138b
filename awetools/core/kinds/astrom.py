"""Astrometric solution of one detector frame: where its pixels are on the sky, from a reference catalogue."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import BadValue, NoMatch
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
from .declare import refcat_param

if TYPE_CHECKING:
    import numpy as np

    from ..frame import Table
    from ..sky.local import LocalSettings, LocalSolution
    from ..sky.refcat import Catalogue

UNITS = {
    "X_PX": "pix",
    "Y_PX": "pix",
    "RA_DEG": "deg",
    "DEC_DEG": "deg",
    "RA_REF_DEG": "deg",
    "DEC_REF_DEG": "deg",
    "DRA_ARCSEC": "arcsec",
    "DDEC_ARCSEC": "arcsec",
    "SIGMA_ARCSEC": "arcsec",
    "MAG_REF": "mag",
    "FLUX_AUTO_ADU": "adu",
}
# Which of the words of a solution are cards of its table; the band goes without saying, the usual start too.
CARDS = {"start": ("START", "where the search began"), "band": ("BAND", "of MAG_REF")}
NEAR = ("the header's WCS", "the pointing")
FAR_ARCSEC = 1800.0
# A solution lies on a catalogue if it has so many of the stars that it could have.
UNTIED = 0.1
COUNTS = ("n_ref", "n_clipped", "n_sources", "n_catalogue", "degree", "parity")
PARITIES = {"either": 0, "sky": -1, "mirror": 1}


@dataclass(frozen=True)
class AstromParams:
    """Parameters of `make_astrom`."""

    refcat: str = refcat_param()
    degree: int = param(3, "Highest degree of the distortion; less where stars are few.", low=1, high=7)
    wcs_form: str = param("SIP", "How the distortion is written in headers.", choices=("SIP", "TPV"))
    centre: str = param(
        "header", "Where the field is, in place of what the header says: 202.47,47.2 or 13:29:53,+47:11:43."
    )
    header: str = param(
        "wcs",
        "What of the header counts: its WCS, its pointing alone, or none (the field is sought all over the catalogue).",
        choices=("wcs", "pointing", "none"),
    )
    position_arcsec: float = param(
        300.0, "How far off the header's position may be.", unit="arcsec", low=1, high=36_000
    )
    widest_deg: float = param(
        1.5, "How far the field is sought if it is not found there.", unit="deg", low=0, high=20
    )
    scale_low_arcsec: float = param(
        0.0, "Least pixel scale; 0: the header's or the camera's.", unit="arcsec", low=0, high=1000
    )
    scale_high_arcsec: float = param(
        0.0, "Largest pixel scale; 0: the header's or the camera's.", unit="arcsec", low=0, high=1000
    )
    scale_fraction: float = param(0.05, "How far off the header's pixel scale may be.", low=0, high=0.5)
    parity: str = param(
        "either", "Sky as it is seen or its mirror image, where no WCS says it.", choices=tuple(PARITIES)
    )
    band: str = param("auto", "Band whose magnitudes order the reference stars; auto: that of most stars.")
    signal_to_noise: float = param(
        10.0, "Least signal-to-noise ratio of a source in the fit.", low=1, high=1e6
    )
    clip_sigma: float = param(
        3.5, "Residual beyond which a star is clipped.", unit="sigma", low=1.5, high=100
    )


def make_astrom(
    sources: Table, gastrom: Table | None = None, refcat: Catalogue | None = None, *, params: AstromParams
) -> Result:
    """Find where a frame is on the sky, or take it out of a global solution.

    sources: the table of kind `sources`; its meta gives what the header says of the
    field. gastrom: the table of a global solution with this frame in it; then that is
    the solution, and the catalogue shows the residuals. refcat: the reference catalogue.
    Returns a row a star that matches the catalogue: NUMBER of the source, X_PX, Y_PX (FITS pixels),
    RA_DEG, DEC_DEG by the solution, RA_REF_DEG, DEC_REF_DEG of the catalogue at the epoch of the frame,
    DRA_ARCSEC (times cos dec) and DDEC_ARCSEC, measured less catalogue, SIGMA_ARCSEC,
    MAG_REF, FLUX_AUTO_ADU, USED (1 if the fit rests on it). Without a catalogue, a row a source
    that is good for astrometry. meta.wcs has the cards of the solution. Method: sky.local,
    sky.solve. Raises NoSolution, saying what was tried; NoMatch without a reference.
    """
    from ..sky.local import local_solution

    how = _settings(params)
    if gastrom is not None:
        return _of_global(sources, gastrom, refcat, how)
    if refcat is None:
        raise NoMatch("there is no reference catalogue and no global solution", hint="awe-refcat import")
    found = local_solution(sources.columns, sources.meta, refcat, how)
    words = found.used_words
    return Result(
        table=_table(found, sources.columns),
        units=UNITS,
        measures=_measures(found.measures),
        meta={"wcs": found.cards},
        used={name: text for name, text in words.items() if name != "band" and text not in NEAR}
        | _far(found.measures.get("shift_arcsec"), params.position_arcsec),
        cards=[(card, words[name], comment) for name, (card, comment) in CARDS.items() if name in words],
    )


def _far(shift_arcsec: float | None, position_arcsec: float) -> dict[str, str]:
    """What is to be said where the field is not where the header has it."""
    if not shift_arcsec or not shift_arcsec > max(FAR_ARCSEC, position_arcsec):
        return {}
    return {"shift": f"the field is {shift_arcsec / 60:.1f} arcmin from where the header has it"}


def _settings(params: AstromParams) -> LocalSettings:
    from ..sky.local import LocalSettings

    ra_deg, dec_deg = _centre(params.centre)
    return LocalSettings(
        degree=params.degree,
        wcs_form=params.wcs_form,
        clip_sigma=params.clip_sigma,
        position_arcsec=params.position_arcsec,
        widest_deg=params.widest_deg,
        scale_fraction=params.scale_fraction,
        scale_low_arcsec=params.scale_low_arcsec,
        scale_high_arcsec=params.scale_high_arcsec,
        parity=PARITIES[params.parity],
        ra_deg=ra_deg,
        dec_deg=dec_deg,
        header=params.header,
        band="" if params.band == "auto" else params.band,
        signal_to_noise=params.signal_to_noise,
    )


def _centre(text: str) -> tuple[float | None, float | None]:
    """RA and Dec in degrees from a text with a comma; nothing from "header". Raises BadValue."""
    from ..units import angle_deg

    if text == "header":
        return None, None
    ra, _, dec = (part.strip() for part in text.partition(","))
    ra_deg = angle_deg(ra, "hours" if ":" in ra or "h" in ra.lower() else "degrees")
    dec_deg = angle_deg(dec)
    if ra_deg is None or dec_deg is None or abs(dec_deg) > 90:
        raise BadValue(f"centre = {text!r}: not RA,Dec", hint="--centre 202.47,47.2")
    return ra_deg % 360, dec_deg


def _table(found: LocalSolution, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    import numpy as np

    ra_deg, dec_deg = found.wcs.to_sky(found.x_px, found.y_px)
    return {
        "NUMBER": columns["NUMBER"][found.row],
        "X_PX": found.x_px,
        "Y_PX": found.y_px,
        "RA_DEG": ra_deg,
        "DEC_DEG": dec_deg,
        "RA_REF_DEG": found.ra_ref_deg,
        "DEC_REF_DEG": found.dec_ref_deg,
        "DRA_ARCSEC": found.dra_arcsec.astype(np.float32),
        "DDEC_ARCSEC": found.ddec_arcsec.astype(np.float32),
        "SIGMA_ARCSEC": found.sigma_arcsec.astype(np.float32),
        "MAG_REF": found.mag_ref.astype(np.float32),
        "FLUX_AUTO_ADU": columns["FLUX_AUTO_ADU"][found.row],
        "USED": found.used.astype(np.uint8),
    }


def _of_global(sources: Table, gastrom: Table, refcat: Catalogue | None, how: LocalSettings) -> Result:
    from ..sky.known import known_solution
    from .gastrom import frame_of

    frame = frame_of(gastrom, sources.meta)
    found = known_solution(sources.columns, sources.meta, frame.cards, refcat, how)
    words = found.used_words | _untied(found, refcat)
    measures = found.measures | {"n_ref": frame.measures["N_STARS"], "n_clipped": frame.measures["N_CLIPPED"]}
    if refcat is None:
        scatter = frame.measures["RMS_ARCSEC"]
        measures |= {"rms_arcsec": math.sqrt(2) * scatter}
        measures |= dict.fromkeys(("sig_dra_arcsec", "sig_ddec_arcsec"), scatter)
    return Result(
        table=_table(found, sources.columns),
        units=UNITS,
        measures=_measures(measures),
        meta={"wcs": found.cards},
        used=words,
    )


def _untied(found: LocalSolution, refcat: Catalogue | None) -> dict[str, str]:
    """What is to be said where a global solution does not lie on the catalogue that its residuals are to."""
    number, most = len(found.row), min(found.measures["n_sources"], found.measures.get("n_catalogue", 0))
    if refcat is None or not most or number >= UNTIED * most:
        return {}
    text = f"{number} of {most:.0f} stars of {refcat.name} are where the global solution has a source"
    return {"refcat": f"{text}: it is not tied to this catalogue, positions are relative"}


def _measures(given: Mapping[str, float]) -> dict[str, float | int | None]:
    """The measures that are declared; what was not measured is None, and what counts is whole."""
    found: dict[str, float | int | None] = {one.name: given.get(one.name) for one in MEASURES}
    found["fitted_scale_arcsec"] = given["pixel_scale_arcsec"]
    for name in COUNTS:
        value = given.get(name)
        found[name] = None if value is None else int(value)
    return found


MEASURES = (
    Measure("n_ref", "Number of stars that the fit rests on."),
    Measure("n_clipped", "Number of stars near to a reference star that the fit left out."),
    Measure("n_sources", "Number of sources that could match."),
    Measure("n_catalogue", "Number of reference stars that were read."),
    Measure(
        "rms_arcsec",
        "Root mean square distance from the reference stars, or from the common positions of stars, of both axes.",
    ),
    Measure("sig_dra_arcsec", "Standard deviation in right ascension, times cos(dec)."),
    Measure("sig_ddec_arcsec", "Standard deviation in declination."),
    Measure("mean_dra_arcsec", "Mean difference in right ascension, times cos(dec)."),
    Measure("mean_ddec_arcsec", "Mean difference in declination."),
    Measure("extra_scatter_arcsec", "Scatter of an axis beyond the errors of sources and catalogue."),
    Measure("chi2_reduced", "Squares of the residuals over those expected, to a degree of freedom."),
    Measure("matched_fraction", "Matched fraction of the sources or reference stars, whichever are fewer."),
    Measure("chance_log10", "Logarithm of the odds that chance does as well."),
    Measure("degree", "Degree of the polynomial."),
    Measure("fitted_scale_arcsec", "Size of a pixel in the middle of the frame."),
    Measure("position_angle_deg", "Angle from north to the rows' direction, through east."),
    Measure("parity", "-1 for the sky as it is seen, 1 for its mirror image."),
    Measure("shift_arcsec", "How far the middle of the frame is from where the header has it."),
    Measure("match_radius_arcsec", "How near a source and a reference star are the same."),
)

ASTROM = Kind(
    name="astrom",
    command="awe-astrom",
    class_name="Astrom",
    summary="Find where frames are on the sky, from their sources and a reference catalogue.",
    description="""One source list makes one astrometric solution: a WCS with its distortion in the header,
and a table of the stars with their residuals. It begins at the header's WCS, or at its pointing and the
pixel scale, and survives positions that are off by arcminutes, any rotation and either parity; proper
motions are carried to the epoch of the frame. A solution is believed only if chance does as well in less
than one of a million images; else the program ends with code 6 and says what was tried. If a global
solution (awe-gastrom) holds the source list, that is the solution.""",
    needs=[
        Need("sources", "sources", of_frame(), help="Source lists."),
        Need(
            "gastrom",
            "gastrom",
            holding(),
            optional=True,
            on_request=True,
            help="Global solution with the frame in it.",
        ),
        Need(
            "refcat",
            REFCAT,
            catalogue(),
            optional_with="gastrom",
            help="Reference catalogue.",
        ),
    ],
    match=(*DETECTOR_MATCH, "filter"),
    group=["exposure"],
    reads=["ra_deg", "dec_deg", "pixel_scale_arcsec", "obs_start", "exptime_s", "nx", "ny"],
    validity=None,
    params=AstromParams,
    measures=list(MEASURES),
    limits=[Limit("n_ref", low=5)],
    recipe=make_astrom,
    revision=1,
    unit="",
    example="awe-query sources night=2017-12-20 | awe-astrom --refcat gaia -j2",
)
