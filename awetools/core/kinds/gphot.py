"""Common photometric solution: the zero points of many frames, tied by the stars that they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import NoMatch
from ..kind import REFCAT, Kind, LeftOut, Measure, Need, Result, catalogue, group, of_frame
from ..params import param
from .declare import illumination_need, refcat_param
from .zeropoint import foresee_band

if TYPE_CHECKING:
    import numpy as np

    from ..frame import Table
    from ..photometry.overlaps import Anchors, FrameStars, Tied
    from ..sky.refcat import Catalogue

COUNTS = ("frames", "groups", "stars", "anchors")
IDENTITY = ("instrument", "detector", "exposure")
BY_FRAME = {
    "ZEROPOINT_MAG": "zeropoint_mag",
    "ERROR_MAG": "error_mag",
    "GROUP": "group",
    "ABSOLUTE": "absolute",
    "STARS": "stars",
    "CLIPPED": "clipped",
    "RMS_MAG": "rms_mag",
    "SCATTER_MAG": "scatter_mag",
    "BELOW_MEDIAN_MAG": "below_median_mag",
}


@dataclass(frozen=True)
class GphotParams:
    """Parameters of `make_gphot`."""

    refcat: str = refcat_param()
    band: str = param("auto", "Band of the reference magnitudes; auto: as the filter's name says.")
    match_arcsec: float = param(1.0, "Within which sources are one star.", unit="arcsec", low=0.01, high=60)
    clip_sigma: float = param(4.0, "Residual beyond which a star is clipped.", unit="sigma", low=2, high=100)
    hold_out: int = param(10, "One in so many stars takes no part in the fit that is judged by them.", low=2)
    signal_to_noise: float = param(20.0, "Least signal-to-noise ratio of a star.", low=1, high=1e6)


@dataclass(frozen=True)
class FrameZero:
    """The zero point of one frame of a common solution; band: of the reference, empty where it is relative."""

    zeropoint_mag: float
    error_mag: float
    stars: int
    band: str


def frame_of(gphot: Table, meta: Mapping[str, Any]) -> FrameZero:
    """What a common solution says of the frame with this meta; raises NoMatch."""
    columns = gphot.columns
    for row in range(len(columns["EXPOSURE"])):
        if all(_text(columns[name.upper()][row]) == str(meta.get(name)) for name in IDENTITY):
            return FrameZero(
                float(columns["ZEROPOINT_MAG"][row]),
                float(columns["ERROR_MAG"][row]),
                int(columns["STARS"][row]),
                _text(columns["BAND"][row]),
            )
    raise NoMatch(
        f"the common solution has no frame of {meta.get('detector')} in {meta.get('exposure')}",
        hint="awe-gphot with this source list too, or --no-gphot",
    )


def _text(value: object) -> str:
    return value.decode().strip() if isinstance(value, bytes) else str(value).strip()


def make_gphot(
    sources: Sequence[Table],
    astrom: Sequence[Table] = (),
    refcat: Catalogue | None = None,
    illumination: Sequence[Table] = (),
    *,
    params: GphotParams,
) -> Result:
    """Find the zero points of frames of one filter from the stars that they share.

    sources: tables of kind `sources`; astrom: the solution of each, whose meta has the WCS.
    refcat: reference magnitudes for those stars that have some; without, or where a group of
    frames has none, zero points are relative: of mean 0 in the group. illumination: what flats have wrong
    for stars, taken out of their fluxes. Returns a row a frame: INSTRUMENT,
    DETECTOR, EXPOSURE, ZEROPOINT_MAG (of 1 ADU/s) with ERROR_MAG, GROUP (frames that are connected), ABSOLUTE (1 if
    by reference stars), STARS, CLIPPED, RMS_MAG, SCATTER_MAG (beyond the errors), BELOW_MEDIAN_MAG (how
    much fainter it sees than the median of its detector in its group: clouds), BAND. Method:
    photometry.overlaps. Raises NoSolution, NoMatch, BadHeader, UnknownName.
    """
    from ..photometry.overlaps import tie
    from .illumination import corrected

    sources = [corrected(one, illumination) for one in sources] if illumination else sources
    frames, rows, wcs = frames_of(sources, astrom, params)
    anchors, band = (None, "") if refcat is None else anchors_of(refcat, sources, wcs, frames, rows, params)
    found = tie(frames, anchors, clip_sigma=params.clip_sigma, hold_out=params.hold_out)
    numbers = {frame.name: number for number, frame in enumerate(frames)}
    lost = [one.name for one in found.frames if not one.stars]
    return Result(
        table=_table(found, sources, numbers, band),
        units={name: "mag" for name in BY_FRAME if name.endswith("_MAG")},
        measures=_measures(found),
        left_out=[
            LeftOut(numbers[name], found.doubtful.get(name, "it shares no star with any other frame"))
            for name in lost
        ],
        used={f"doubtful {name}": why for name, why in found.doubtful.items()}
        | ({"band": band} if band else {})
        | _relative(found, refcat is not None),
    )


def _relative(found: Tied, with_refcat: bool) -> dict[str, str]:
    """What is said where zero points are relative, or relative to several means."""
    frames = [one for one in found.frames if not one.absolute]
    groups = len({one.group for one in frames})
    if not frames or not (with_refcat or groups > 1):
        return {}
    why = "no star with a reference magnitude: " if with_refcat else ""
    means = f"{groups} groups that share no star, so that they do not compare" if groups > 1 else "one group"
    return {"relative": f"{why}{len(frames)} of {len(found.frames)} frames, in {means}"}


def _measures(found: Tied) -> dict[str, float | int | None]:
    given: dict[str, float | int | None] = {one.name: found.measures[one.name] for one in MEASURES}
    return given | {name: int(found.measures[name]) for name in COUNTS}


def _name(meta: Mapping[str, Any]) -> str:
    return " ".join(str(meta.get(name)) for name in IDENTITY)


def frames_of(
    sources: Sequence[Table], astrom: Sequence[Table], params: GphotParams
) -> tuple[list[FrameStars], list[np.ndarray], list[Any]]:
    """The usable stars of each frame, one number for one star in all, their rows, and the WCS of each frame."""
    import numpy as np

    from ..photometry.overlaps import FrameStars
    from ..photometry.zeropoint import instrumental
    from ..sky.readwcs import read_wcs
    from ..sky.starmatch import stars_of
    from .zeropoint import cards_of, exptime_of

    solutions = {_name(one.meta): one for one in astrom}
    wcs = [read_wcs(dict(cards_of(solutions.get(_name(one.meta)), one.meta))) for one in sources]
    rows = [_good(one.columns, params.signal_to_noise) for one in sources]
    vectors = [
        one.vectors(source.columns["X_WIN_PX"][row], source.columns["Y_WIN_PX"][row])
        for one, source, row in zip(wcs, sources, rows, strict=True)
    ]
    exposures = _numbers([f"{one.meta.get('instrument')} {one.meta.get('exposure')}" for one in sources])
    exposure = np.repeat(exposures, [len(row) for row in rows])
    star = stars_of(np.concatenate(vectors), exposure, params.match_arcsec)
    ends = np.cumsum([len(row) for row in rows])
    frames = []
    for k, (source, one) in enumerate(zip(sources, np.split(star, ends[:-1]), strict=True)):
        rows[k], one = rows[k][one >= 0], one[one >= 0]
        flux, flux_error = (source.columns[f"FLUX_AUTO_{end}"][rows[k]] for end in ("ADU", "ERROR_ADU"))
        mag, error = instrumental(flux, flux_error, exptime_of(source.meta))
        setup = f"{source.meta.get('instrument')} {source.meta.get('detector')}"
        frames.append(FrameStars(_name(source.meta), one, mag, error, setup))
    return frames, rows, wcs


def _numbers(names: Sequence[str]) -> np.ndarray:
    import numpy as np

    return np.unique(names, return_inverse=True)[1]


def _good(columns: Mapping[str, np.ndarray], signal_to_noise: float) -> np.ndarray:
    """The rows of single, whole, unsaturated stars above a signal-to-noise ratio."""
    import numpy as np

    from .zeropoint import unsaturated

    bright = columns["FLUX_AUTO_ADU"] > signal_to_noise * columns["FLUX_AUTO_ERROR_ADU"]
    return np.flatnonzero(unsaturated(columns) & bright)


def anchors_of(
    refcat: Catalogue,
    sources: Sequence[Table],
    wcs: Sequence[Any],
    frames: Sequence[FrameStars],
    rows: Sequence[np.ndarray],
    params: GphotParams,
) -> tuple[Anchors | None, str]:
    """The reference magnitudes of the stars that have some, and in which band they are."""
    import numpy as np

    from ..photometry.bands import reference_magnitudes
    from ..photometry.overlaps import Anchors
    from ..sky.known import stars_beside
    from ..sky.local import epoch_of, shape_of
    from .zeropoint import choice_of

    choice = choice_of(refcat, sources[0].meta, params.band)
    known: dict[int, tuple[float, float, float]] = {}
    for source, one, frame, row in zip(sources, wcs, frames, rows, strict=True):
        x, y = (source.columns[f"{axis}_WIN_PX"][row] for axis in "XY")
        shape = shape_of(source.meta, source.columns)
        stars, place = stars_beside(one, x, y, shape, refcat, epoch_of(source.meta))
        magnitudes = reference_magnitudes(choice, stars)
        for number, star in zip(np.asarray(frame.star), place, strict=True):
            if star >= 0 and np.isfinite(magnitudes.mag[star]):
                values = magnitudes.mag[star], magnitudes.error_mag[star], magnitudes.colour[star]
                known.setdefault(int(number), values)
    if not known:
        return None, ""
    mag, error, colour = np.array(list(known.values())).T
    return Anchors(np.array(list(known)), mag, error, colour), choice.text


def _table(
    found: Tied, sources: Sequence[Table], numbers: Mapping[str, int], band: str
) -> dict[str, np.ndarray]:
    import numpy as np

    kept = [one for one in found.frames if one.stars]
    metas = [sources[numbers[one.name]].meta for one in kept]
    table = {name.upper(): np.array([str(meta.get(name)) for meta in metas]) for name in IDENTITY}
    for column, name in BY_FRAME.items():
        values = np.array([getattr(one, name) for one in kept])
        table[column] = values.astype(np.int32) if values.dtype.kind in "ib" else values
    bands = [band if one.absolute else "" for one in kept]
    return {**table, "BAND": np.array(bands, dtype=f"U{max(1, len(band))}")}


MEASURES = (
    Measure("frames", "Number of frames."),
    Measure("groups", "Number of groups of frames without a star in common."),
    Measure("stars", "Number of stars that frames share with each other or with the catalogue."),
    Measure("anchors", "Number of these with a reference magnitude."),
    Measure("anchor_scatter_mag", "Scatter of the reference magnitudes beyond their errors."),
    Measure("rms_mag", "Root mean square residual of a star's magnitudes."),
    Measure("held_rms_mag", "The same of the stars held out."),
    Measure("scatter_mag", "Scatter beyond the errors."),
    Measure("clipped_fraction", "Fraction of the magnitudes that were clipped."),
)

GPHOT = Kind(
    name="gphot",
    command="awe-gphot",
    class_name="Gphot",
    summary="Tie the zero points of frames to each other by the stars that they share.",
    description="""All source lists of one filter that are given make one solution: the zero points of the frames,
such that the stars which frames share come out with one magnitude. Where a catalogue knows some of them the
zero points are absolute; else they are relative, of mean 0 in each group of frames that are connected. Part
of the stars is held out, and their residuals are measured too. Then each frame gets its zero point (kind
zeropoint) out of it; --alone makes none.""",
    needs=[
        Need("sources", "sources", group(), many=True, help="Source lists."),
        Need("astrom", "astrom", of_frame(), many=True, help="Astrometric solution of each frame."),
        Need("refcat", REFCAT, catalogue(), optional=True, help="Catalogue of reference magnitudes."),
        illumination_need("sources", many=True),
    ],
    match=("filter",),
    group=[],
    reads=["instrument", "detector", "exposure", "exptime_s", "obs_start", "ra_deg", "dec_deg", "nx", "ny"],
    validity=None,
    params=GphotParams,
    measures=list(MEASURES),
    limits=[],
    recipe=make_gphot,
    revision=1,
    foresee=foresee_band,
    unit="",
    example="awe-query sources object=M51 filter=R | awe-gphot -j2",
    shared_by="zeropoint",
)
