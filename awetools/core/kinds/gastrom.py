"""Global astrometric solution: many detectors, exposures, nights and instruments in one fit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import NoMatch, NoSolution
from ..kind import REFCAT, Kind, LeftOut, Measure, Need, Result, catalogue, group
from ..params import param
from .declare import refcat_param

if TYPE_CHECKING:
    import numpy as np

    from ..frame import Table
    from ..sky.adjust import Adjusted, Adjustment, Frame
    from ..sky.local import LocalSettings
    from ..sky.refcat import Catalogue
    from ..sky.solve import Reference

# Frames that agree in these share a distortion.
SAME_OPTICS = ("instrument", "detector", "binning", "window", "nx", "ny")
NAMES = ("instrument", "detector", "exposure", "filter", "night")
BY_FRAME = {
    "N_STARS": "stars",
    "N_REF": "reference_stars",
    "N_CLIPPED": "clipped",
    "RMS_ARCSEC": "rms_arcsec",
    "SHIFT_ARCSEC": "shift_arcsec",
    "EXTRA_SCATTER_ARCSEC": "extra_scatter_arcsec",
    "PIXEL_SCALE_ARCSEC": "pixel_scale_arcsec",
    "POSITION_ANGLE_DEG": "position_angle_deg",
}
COUNTS = ("N_STARS", "N_REF", "N_CLIPPED")
STARS = ("stars", "reference_stars", "held_stars")
UNITS = {
    "RA_DEG": "deg",
    "DEC_DEG": "deg",
    "RMS_ARCSEC": "arcsec",
    "SHIFT_ARCSEC": "arcsec",
    "EXTRA_SCATTER_ARCSEC": "arcsec",
    "PIXEL_SCALE_ARCSEC": "arcsec",
    "POSITION_ANGLE_DEG": "deg",
}


@dataclass(frozen=True)
class GastromParams:
    """Parameters of `make_gastrom`."""

    refcat: str = refcat_param()
    degree: int = param(3, "Degree of the distortion of each detector.", low=1, high=7)
    wcs_form: str = param("SIP", "How the distortion is written in headers.", choices=("SIP", "TPV"))
    match_arcsec: float = param(
        1.5, "Within which sources are one star at first.", unit="arcsec", low=0.01, high=60
    )
    clip_sigma: float = param(
        4.0, "Residual beyond which a star is clipped.", unit="sigma", low=1.5, high=100
    )
    hold_out: int = param(10, "One in so many stars takes no part in the fit that is judged by them.", low=2)
    position_arcsec: float = param(
        300.0, "How far off the headers' positions may be.", unit="arcsec", low=1, high=36_000
    )
    signal_to_noise: float = param(
        10.0, "Least signal-to-noise ratio of a source in the fit.", low=1, high=1e6
    )


@dataclass(frozen=True)
class FrameSolution:
    """One frame of a global solution: the cards of its WCS and its measures, by column."""

    cards: dict[str, Any]
    measures: dict[str, float]


def frame_of(gastrom: Table, meta: Mapping[str, Any]) -> FrameSolution:
    """What a global solution says of the frame with this meta; raises NoMatch."""
    import numpy as np

    columns = gastrom.columns
    rows = np.ones(len(columns["EXPOSURE"]), bool)
    for name in ("instrument", "detector", "exposure"):
        rows &= columns[name.upper()].astype(str) == str(meta.get(name))
    found = np.flatnonzero(rows)
    if not len(found):
        raise NoMatch(
            f"the global solution has no frame of {meta.get('detector')} in {meta.get('exposure')}",
            hint="awe-gastrom with this source list too, or --no-gastrom",
        )
    row = int(found[0])
    cards = json.loads(columns["WCS"].astype(str)[row])
    return FrameSolution(cards, {name: float(columns[name][row]) for name in BY_FRAME})


def make_gastrom(
    sources: Sequence[Table], refcat: Catalogue | None = None, *, params: GastromParams
) -> Result:
    """Fit all frames at once, to each other and to a reference catalogue.

    sources: tables of kind `sources`. refcat: the reference catalogue; without one the
    frames are tied to each other and stay, all together, where their headers have them. Each
    detector has one distortion for all exposures, each exposure a pointing; proper motions are
    those of the catalogue, at the epoch of each frame. Returns a row a frame: INSTRUMENT, DETECTOR,
    EXPOSURE, FILTER, NIGHT, RA_DEG and DEC_DEG of its middle, WCS (its cards as JSON), N_STARS, N_REF
    and N_CLIPPED, RMS_ARCSEC (of an axis), SHIFT_ARCSEC, EXTRA_SCATTER_ARCSEC, PIXEL_SCALE_ARCSEC,
    POSITION_ANGLE_DEG. Frames that cannot be placed, or contradict all others, are left out
    and named. Method: sky.adjust, begun with sky.solve or sky.tie. Raises NoSolution.
    """
    from ..sky.adjust import adjust

    how = _settings(params)
    sources = _sized(sources)
    frames, left_out = _placed(sources, refcat, how)
    reference = _reference(refcat, frames) if refcat is not None and frames else None
    if not frames:
        first = left_out[0]
        raise NoSolution(
            f"none of {len(sources)} frames can be placed; {_name(sources[first.number].meta)}: {first.reason}",
            hint="awe-astrom on one of them says more",
        )
    found = adjust(
        list(frames.values()),
        reference,
        degree=params.degree,
        match_arcsec=params.match_arcsec,
        clip_sigma=params.clip_sigma,
        hold_out=params.hold_out,
    )
    numbers = {frame.name: number for number, frame in frames.items()}
    left_out += [LeftOut(numbers[name], reason) for name, reason in found.left_out.items()]
    return Result(
        table=_table(found, sources, numbers, params.wcs_form),
        units=UNITS,
        measures=_measures(found),
        left_out=sorted(left_out, key=lambda one: one.number),
    )


def _settings(params: GastromParams) -> LocalSettings:
    from ..sky.local import LocalSettings

    return LocalSettings(
        degree=params.degree,
        position_arcsec=params.position_arcsec,
        signal_to_noise=params.signal_to_noise,
    )


def _sized(sources: Sequence[Table]) -> list[Table]:
    """Source lists with the size of their image; where none is known, as far as those of the same optics reach."""
    optics = [tuple(one.meta.get(name) for name in SAME_OPTICS) for one in sources]
    shapes = [_shape(one) for one in sources]
    reach: dict[tuple[Any, ...], tuple[int, int]] = {}
    for key, (ny, nx) in zip(optics, shapes, strict=True):
        most = reach.get(key, (1, 1))
        reach[key] = max(ny, most[0]), max(nx, most[1])
    sizes = [dict(zip(("ny", "nx"), reach[key], strict=True)) for key in optics]
    return [replace(one, meta={**one.meta, **size}) for one, size in zip(sources, sizes, strict=True)]


def _shape(one: Table) -> tuple[int, int]:
    """(ny, nx) of the image of a list; its columns are looked at only where the meta does not say."""
    from ..sky.local import shape_of

    known = one.meta.get("nx") and one.meta.get("ny")
    return shape_of(one.meta, {} if known else one.columns)


def _name(meta: Mapping[str, Any]) -> str:
    return " ".join(str(meta.get(name)) for name in ("instrument", "exposure", "detector"))


class _Lists(Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]):
    """Columns and meta of source lists, each read when it is its turn."""

    def __init__(self, sources: Sequence[Table]) -> None:
        self._sources = sources

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, number: Any) -> Any:
        one = self._sources[number]
        return one.columns, one.meta


def _placed(
    sources: Sequence[Table], refcat: Catalogue | None, how: LocalSettings
) -> tuple[dict[int, Frame], list[LeftOut]]:
    """The frames with a coordinate system to begin with, by their number, and those without one."""
    from ..sky.starts import placed

    wcs, reasons = placed(_Lists(sources), refcat, how)
    frames = {number: _frame(sources[number], one, how) for number, one in wcs.items()}
    return frames, [LeftOut(number, reason) for number, reason in reasons.items()]


def _frame(one: Table, wcs: Any, how: LocalSettings) -> Frame:
    import numpy as np

    from ..sky.adjust import Frame
    from ..sky.adjustsources import rests_on
    from ..sky.local import epoch_of

    meta, columns = one.meta, one.columns
    rows, stars = rests_on(columns, how.signal_to_noise)
    with np.errstate(all="ignore"):
        ratio = columns["FLUX_AUTO_ADU"] / columns["FLUX_AUTO_ERROR_ADU"]
    return Frame(
        name=_name(meta),
        detector=" ".join(str(meta.get(name)) for name in SAME_OPTICS),
        exposure=f"{meta.get('instrument')} {meta.get('exposure')}",
        sources=stars,
        wcs=wcs,
        shape=_shape(one),
        epoch_yr=epoch_of(meta),
        zenith_deg=_zenith(meta),
        signal_to_noise=ratio[rows],
    )


def _zenith(meta: Mapping[str, Any]) -> tuple[float, float] | None:
    """RA and Dec of the zenith in the middle of the exposure, where the site is known."""
    from ..sky.local import epoch_of
    from ..sky.sphere import sidereal_deg

    longitude, latitude = meta.get("site_longitude_deg"), meta.get("site_latitude_deg")
    epoch_yr = epoch_of(meta)
    if longitude is None or latitude is None or epoch_yr is None:
        return None
    return (sidereal_deg(epoch_yr) + float(longitude)) % 360, float(latitude)


def _reference(refcat: Catalogue, frames: Mapping[int, Frame]) -> Reference:
    """The reference stars in the frames' fields, each once, as the catalogue has them."""
    from ..sky.starts import reference_of

    return reference_of(refcat, [(one.wcs, one.shape) for one in frames.values()])


def _table(
    found: Adjustment, sources: Sequence[Table], numbers: Mapping[str, int], form: str
) -> dict[str, np.ndarray]:
    import numpy as np

    from ..sky.writewcs import wcs_as_cards

    metas = [sources[numbers[one.name]].meta for one in found.frames]
    table = {name.upper(): np.array([str(meta.get(name)) for meta in metas]) for name in NAMES}
    middles = list(_middles(found.frames, metas))
    table["RA_DEG"], table["DEC_DEG"] = (np.array([one[axis] for one in middles]) for axis in (0, 1))
    for column, name in BY_FRAME.items():
        values = np.array([one.measures[name] for one in found.frames])
        table[column] = values.astype(np.int32) if column in COUNTS else values
    texts = [
        json.dumps(wcs_as_cards(one.wcs, form, (meta["ny"], meta["nx"])), separators=(",", ":"))
        for one, meta in zip(found.frames, metas, strict=True)
    ]
    return {**table, "WCS": np.array(texts)}


def _middles(frames: Sequence[Adjusted], metas: Sequence[Mapping[str, Any]]) -> Iterator[tuple[float, float]]:
    for one, meta in zip(frames, metas, strict=True):
        ra, dec = one.wcs.to_sky(0.5 * (1 + meta["nx"]), 0.5 * (1 + meta["ny"]))
        yield float(ra), float(dec)


def _measures(found: Adjustment) -> dict[str, float | int | None]:
    # Held-out residuals have the unit last here, as all measures do.
    given = {
        f"{name.removesuffix('_arcsec_held')}_held_arcsec" if name.endswith("_arcsec_held") else name: value
        for name, value in found.measures.items()
    }
    made: dict[str, float | int | None] = {one.name: given.get(one.name) for one in MEASURES}
    return made | {name: int(given[name]) for name in ("frames", "exposures", "detectors", *STARS)}


MEASURES = (
    Measure("frames", "Number of frames in the solution."),
    Measure("exposures", "Number of exposures."),
    Measure("detectors", "Number of detectors, each with one distortion."),
    Measure("stars", "Number of stars that frames share with each other or with the catalogue."),
    Measure("reference_stars", "Number of these in the catalogue."),
    Measure("held_stars", "Number of stars that were held out, to judge the fit."),
    Measure(
        "internal_rms_arcsec",
        "Residuals of an axis of positions about the star's mean, freed of the fit's part.",
    ),
    Measure("internal_rms_held_arcsec", "The same of the stars held out."),
    Measure("internal_bright_rms_arcsec", "The same of sources above a signal-to-noise ratio of 50."),
    Measure("internal_bright_rms_held_arcsec", "The same of the stars held out."),
    Measure("external_rms_arcsec", "Residuals of an axis to the catalogue."),
    Measure("external_rms_held_arcsec", "The same of the stars held out."),
    Measure("clipped_fraction", "Fraction of the positions that were clipped."),
    Measure("extra_scatter_arcsec", "Median scatter of an exposure beyond the errors of its sources."),
    Measure("reference_scatter_arcsec", "Scatter of the catalogue beyond its errors."),
)

GASTROM = Kind(
    name="gastrom",
    command="awe-gastrom",
    class_name="Gastrom",
    summary="Solve many frames at once: detectors, exposures, nights, instruments together.",
    description="""All source lists that are given make one solution: a distortion of each detector, a pointing
of each exposure, and the positions of all stars that they share, fitted together to a reference catalogue,
or, without one, to each other. Part of the stars is held out, and the residuals of those are measured too.
A frame that cannot be placed, or contradicts all others, is left out and named. Then each frame gets its
astrometric solution (kind astrom) out of it; --alone makes none.""",
    needs=[
        Need("sources", "sources", group(), many=True, help="Source lists."),
        Need("refcat", REFCAT, catalogue(), optional=True, help="Reference catalogue."),
    ],
    match=(),
    group=[],
    reads=[
        "instrument",
        "detector",
        "exposure",
        "ra_deg",
        "dec_deg",
        "pixel_scale_arcsec",
        "obs_start",
        "exptime_s",
        "nx",
        "ny",
        "site_longitude_deg",
        "site_latitude_deg",
    ],
    validity=None,
    params=GastromParams,
    measures=list(MEASURES),
    limits=[],
    recipe=make_gastrom,
    revision=2,
    unit="",
    example="awe-query sources object=M51 | awe-gastrom --refcat gaia -j2",
    shared_by="astrom",
)
