"""Illumination correction: what the flats of an instrument have wrong for stars, from stars at many places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from ..errors import NoMatch, WrongKind
from ..kind import REFCAT, Kind, Limit, Measure, Need, Result, catalogue, group, nights, of_frame
from ..meta import on_grid
from ..params import param
from .declare import refcat_param

if TYPE_CHECKING:
    import numpy as np

    from ..frame import Table
    from ..photometry.illumination import Fitted, PlacedStars
    from ..pixels.illumination import Illumination
    from ..sky.refcat import Catalogue

# In what a correction and a frame must agree, besides the detector.
MATCH = ("instrument", "filter", "binning", "window")
COUNTS = ("frames", "stars", "anchors", "undetermined")


@dataclass(frozen=True)
class IlluminationParams:
    """Parameters of `make_illumination`."""

    refcat: str = refcat_param()
    band: str = param("auto", "Band of the reference magnitudes; auto: as the filter's name says.")
    colour: str = param("fit", "Colour term of the reference magnitudes.", choices=("fit", "none"))
    degree: int = param(3, "Degree of the polynomial over each detector.", low=1, high=6)
    match_arcsec: float = param(1.0, "Within which sources are one star.", unit="arcsec", low=0.01, high=60)
    clip_sigma: float = param(4.0, "Residual beyond which a star is clipped.", unit="sigma", low=2, high=100)
    hold_out: int = param(
        5, "Parts of the stars, of which each is judged by a fit without it.", low=2, high=100
    )
    signal_to_noise: float = param(30.0, "Least signal-to-noise ratio of a star.", low=1, high=1e6)
    most_error_mag: float = param(
        0.005, "Terms that are not known to within this are 0.", unit="mag", low=1e-5, high=1
    )


def make_illumination(
    sources: Sequence[Table],
    astrom: Sequence[Table] = (),
    refcat: Catalogue | None = None,
    *,
    params: IlluminationParams,
) -> Result:
    """Find by how much stars are too faint, over each detector of an instrument, from frames of one filter.

    sources: tables of kind `sources`, of dithered or turned frames; astrom: the solution of each, whose meta has the
    WCS. refcat: reference magnitudes; without, or where no star has one, what all detectors have in common
    of a gradient is not known unless frames are turned, and is 0. Returns a row a term: DETECTOR, NX, NY, X_ORDER,
    Y_ORDER, VALUE_MAG and ERROR_MAG, of products of Legendre polynomials of mean square 1 (pixels.illumination): what
    is added to the magnitude of a star there by the flat, of mean 0 over the detector. The rows of orders 0, 0
    say how much detectors differ in their zero points, and are not part of it. Method:
    photometry.illumination. Raises NoSolution, NoMatch, WrongKind, BadHeader, UnknownName.
    """
    from ..photometry.illumination import fit_illumination
    from .gphot import GphotParams, anchors_of, frames_of

    _refuse_grids(sources)
    how = GphotParams(
        band=params.band, match_arcsec=params.match_arcsec, signal_to_noise=params.signal_to_noise
    )
    frames, rows, wcs = frames_of(sources, astrom, how)
    anchors, band = (None, "") if refcat is None else anchors_of(refcat, sources, wcs, frames, rows, how)
    placed = [_placed(source, one, row) for source, one, row in zip(sources, frames, rows, strict=True)]
    found = fit_illumination(
        placed,
        anchors,
        degree=params.degree,
        clip_sigma=params.clip_sigma,
        folds=params.hold_out,
        most_error_mag=params.most_error_mag,
        fit_colour=params.colour == "fit",
    )
    return Result(
        table=_table(found, _shapes(sources), params.degree),
        units={"VALUE_MAG": "mag", "ERROR_MAG": "mag"},
        measures=_measures(found),
        used=_used(found, band),
    )


def _refuse_grids(sources: Sequence[Table]) -> None:
    """Raise WrongKind for sources of an image on a sky grid, which is of many places of detectors."""
    for one in sources:
        if on_grid(one.meta):
            raise WrongKind(
                f"sources of {one.meta.get('instrument')} {one.meta.get('filter')} {one.meta.get('night')} are of an "
                "image on a sky grid: where the stars were on the detectors is not known",
                hint="awe-query sources 'exposure is not null'",
            )


def _placed(source: Table, frame: Any, rows: np.ndarray) -> PlacedStars:
    from ..photometry.illumination import PlacedStars
    from ..pixels.illumination import unit_places

    ny, nx = shape_of_frame(source)
    meta, columns = source.meta, source.columns
    return PlacedStars(
        str(meta.get("detector")),
        str(meta.get("exposure")),
        frame.star,
        unit_places(columns["X_WIN_PX"][rows], nx),
        unit_places(columns["Y_WIN_PX"][rows], ny),
        frame.mag,
        frame.error_mag,
    )


def shape_of_frame(one: Table) -> tuple[int, int]:
    """Rows and columns of the frame of a source list."""
    from ..sky.local import shape_of

    ny, nx = shape_of(one.meta, one.columns)
    return int(ny), int(nx)


def _shapes(sources: Sequence[Table]) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for one in sources:
        name, shape = str(one.meta.get("detector")), shape_of_frame(one)
        if found.setdefault(name, shape) != shape:
            raise NoMatch(
                f"frames of {name} are of {found[name][1]} x {found[name][0]} and of {shape[1]} x {shape[0]} pixels",
                hint="leave those of one size out",
            )
    return found


def _table(found: Fitted, shapes: Mapping[str, tuple[int, int]], degree: int) -> dict[str, np.ndarray]:
    import numpy as np

    from ..pixels.illumination import terms_of

    rows = []
    for one in found.detectors:
        ny, nx = shapes[one.detector]
        rows.append((one.detector, nx, ny, 0, 0, one.offset_mag, np.nan))
        for i, j in terms_of(degree):
            rows.append((one.detector, nx, ny, i, j, one.coefficients_mag[i, j], one.errors_mag[i, j]))
    names, *columns = zip(*rows, strict=True)
    table: dict[str, np.ndarray] = {"DETECTOR": np.array(names)}
    for name, column in zip(("NX", "NY", "X_ORDER", "Y_ORDER"), columns, strict=False):
        table[name] = np.array(column, np.int32)
    return table | {"VALUE_MAG": np.array(columns[-2]), "ERROR_MAG": np.array(columns[-1])}


def _measures(found: Fitted) -> dict[str, float | int | None]:
    import numpy as np

    from ..pixels.illumination import Illumination

    coefficients = [one.coefficients_mag for one in found.detectors]
    factors = [Illumination((64, 64), one).factors(0, 64) for one in coefficients]
    ends = [float(end(one)) for one in factors for end in (np.min, np.max)]
    return {
        "frames": found.frames,
        "stars": found.stars,
        "anchors": found.anchors,
        "correction_rms_mag": float(np.sqrt(np.mean([np.sum(one**2) for one in coefficients]))),
        "correction_range_mag": float(2.5 * np.log10(max(ends) / min(ends))),
        "error_mag": float(np.sqrt(np.mean([one.error_mag**2 for one in found.detectors]))),
        "undetermined": found.undetermined,
        **_pair("rms", found.rms_mag),
        **_pair("reference_rms", found.reference_rms_mag),
        **_pair("held_rms", found.held_rms_mag),
        **_pair("held_reference_rms", found.held_reference_rms_mag),
        "improvement_sigma": found.improvement_sigma,
        "clipped_fraction": found.clipped_fraction,
        "colour_coefficient": found.colour_coefficient,
    }


def _pair(name: str, values: tuple[float, float]) -> dict[str, float]:
    return {f"{name}_before_mag": values[0], f"{name}_after_mag": values[1]}


def _used(found: Fitted, band: str) -> dict[str, str]:
    used = {"band": band} if band and found.anchors else {}
    if not found.gradient_known:
        why = "frames are only shifted" if not found.anchors else "too few stars have a reference magnitude"
        used["gradient"] = f"what all detectors have of it in common is not known, and taken as none: {why}"
    return used


# What takes it


def correction_of(products: Sequence[Table], meta: Mapping[str, Any]) -> Illumination | None:
    """The correction of a frame with this meta: of those that match it the nearest in nights; None without one."""
    found = choice_for(products, meta)
    return None if found is None else found[1]


def choice_for(products: Sequence[Table], meta: Mapping[str, Any]) -> tuple[Table, Illumination] | None:
    """The same with the product that has it."""
    if on_grid(meta):
        # What was put on a grid was corrected before, or never will be.
        return None
    fitting = [one for one in products if all(one.meta.get(name) == meta.get(name) for name in MATCH)]
    fitting.sort(key=lambda one: _nights_apart(one.meta.get("night"), meta.get("night")))
    for one in fitting:
        found = _of_detector(one, str(meta.get("detector")), (meta.get("ny"), meta.get("nx")))
        if found is not None:
            return one, found
    return None


def _nights_apart(one: object, other: object) -> int:
    try:
        return abs((date.fromisoformat(str(one)) - date.fromisoformat(str(other))).days)
    except ValueError:
        return 0


def _of_detector(one: Table, detector: str, shape: tuple[Any, Any]) -> Illumination | None:
    import numpy as np

    from ..pixels.illumination import Illumination

    columns = one.columns
    names = [_text(name) for name in columns["DETECTOR"].tolist()]
    own = np.array([name == detector for name in names], np.bool_)
    if not own.any():
        return None
    nx, ny = (int(columns[name][own][0]) for name in ("NX", "NY"))
    if None not in shape and shape != (ny, nx):
        raise NoMatch(
            f"the illumination correction of {detector} is for {nx} x {ny} pixels, "
            f"the frame has {shape[1]} x {shape[0]}",
            hint="--no-illumination, or awe-illumination of such frames",
        )
    i, j = (columns[f"{axis}_ORDER"][own].astype(np.int64) for axis in "XY")
    coefficients = np.zeros((int(max(i.max(), j.max())) + 1,) * 2)
    coefficients[i, j] = columns["VALUE_MAG"][own]
    coefficients[0, 0] = 0.0
    return Illumination((ny, nx), coefficients)


def _text(value: Any) -> str:
    return value.decode().strip() if isinstance(value, bytes) else str(value).strip()


def corrected(sources: Table, illumination: Table | Sequence[Table] | None) -> Table:
    """A source list whose fluxes are those without the flat's error; the same list where there is no correction.

    It has a column ILLUMINATION_MAG then: what is subtracted from its magnitudes.
    """
    products = illumination if isinstance(illumination, Sequence) else [illumination] if illumination else []
    found = correction_of(products, sources.meta)
    # Of many lists each is read when it is looked at.
    return sources if found is None else Corrected(sources, found)  # type: ignore[return-value]


@dataclass(frozen=True)
class Corrected:
    """A Table of sources with its fluxes corrected when they are looked at."""

    sources: Table
    illumination: Illumination

    @property
    def meta(self) -> Mapping[str, Any]:
        """That of the list."""
        return self.sources.meta

    @property
    def columns(self) -> Mapping[str, np.ndarray]:
        """Those of the list, corrected, and the correction."""
        import numpy as np

        columns = dict(self.sources.columns)
        places = columns["X_WIN_PX"], columns["Y_WIN_PX"]
        factor = self.illumination.factor_at(*places)
        for name in (one for one in columns if one.startswith("FLUX_")):
            old = np.asarray(columns[name])
            columns[name] = (old * factor.reshape(-1, *(1,) * (old.ndim - 1))).astype(old.dtype)
        columns["ILLUMINATION_MAG"] = self.illumination.mag_at(*places).astype(np.float32)
        return columns


MEASURES = (
    Measure("frames", "Number of frames."),
    Measure("stars", "Number of stars that frames share with each other or with the catalogue."),
    Measure("anchors", "Number of these with a reference magnitude."),
    Measure("correction_rms_mag", "Rms of the correction over the detectors."),
    Measure("correction_range_mag", "From its lowest to its highest value."),
    Measure("error_mag", "Mean error of the correction over the detectors, of the terms that are known."),
    Measure("undetermined", "Number of independent terms that are not known, and 0."),
    Measure("rms_before_mag", "Rms of magnitudes about the mean of their star, without the correction."),
    Measure("rms_after_mag", "The same with it."),
    Measure("reference_rms_before_mag", "Rms of such means about the catalogue, without the correction."),
    Measure("reference_rms_after_mag", "The same with it."),
    Measure("held_rms_before_mag", "As rms_before_mag, of stars that took no part in the fit."),
    Measure("held_rms_after_mag", "The same with the correction."),
    Measure(
        "held_reference_rms_before_mag", "As reference_rms_before_mag, of stars that took no part in the fit."
    ),
    Measure("held_reference_rms_after_mag", "The same with the correction."),
    Measure("improvement_sigma", "By how much the squares of these get smaller, over the error of that."),
    Measure("clipped_fraction", "Fraction of the magnitudes that were clipped."),
    Measure(
        "colour_coefficient", "Coefficient of the colour of reference stars, mag a mag, where it was fitted."
    ),
)

ILLUMINATION = Kind(
    name="illumination",
    command="awe-illumination",
    class_name="Illumination",
    summary="Find what flats have wrong for stars, over the detectors of an instrument.",
    description="""Scattered light makes a flat brighter where stars are not, and stars fainter there, by some per
cent. All source lists of one instrument and filter that are given, of dithered frames, make one correction: a smooth
function over each detector, of mean 0, such that a star has one magnitude wherever it is seen. Where a catalogue has
reference magnitudes they take part. Without them, frames that are only shifted do not tell a gradient that all
detectors have in common; turned frames do. What is not known stays 0. Stars that are held out judge it: unless
they scatter less with it, it is flagged, and not used.

It is used once it is there: by awe-zeropoint, awe-gphot and awe-sourcelist for fluxes, by awe-regrid and awe-coadd for
pixels less their background. Reduced frames stay as they are. awe-make makes none unasked.""",
    needs=[
        Need("sources", "sources", group(), many=True, at_least=2, help="Source lists of dithered frames."),
        Need("astrom", "astrom", of_frame(), many=True, help="Astrometric solution of each frame."),
        Need("refcat", REFCAT, catalogue(), optional=True, help="Catalogue of reference magnitudes."),
    ],
    match=MATCH,
    group=[],
    reads=["detector", "exposure", "exptime_s", "obs_start", "ra_deg", "dec_deg", "nx", "ny", "night"],
    validity=nights(before=30, after=30),
    params=IlluminationParams,
    measures=list(MEASURES),
    limits=[Limit("improvement_sigma", low=2)],
    recipe=make_illumination,
    revision=1,
    unit="",
    example='awe-query sources filter=R "<-astrom" | awe-illumination',
)
