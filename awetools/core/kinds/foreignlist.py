"""Source lists of other pipelines: their columns under our names, so that the same steps follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import BadHeader, BadPixels
from ..kind import Kind, Limit, Measure, Need, Result, raw

if TYPE_CHECKING:
    import numpy as np

    from ..frame import Table

Columns = Mapping[str, Any]


@dataclass(frozen=True)
class SourcesParams:
    """Parameters of `import_sources`: there are none."""


def import_sources(foreign: Table, params: SourcesParams) -> Result:
    """A source list of another pipeline: positions and what else is known under our names, then its own columns.

    foreign: the table. Returns it with X_PX and Y_PX (FITS pixels, from 1; what photutils counts from
    0 is moved) or RA_DEG and DEC_DEG in front. Where it has pixels, the columns of the kind `sources` that
    awe-astrom and what follows take are there too: windowed positions with errors, FLUX_AUTO_ADU, FWHM_PX, FLAGS in our
    bits, STAR; what the other program did not measure is nan. Its own columns follow as they
    are, but for those of the same name in whatever case. Raises BadHeader where no column is a position,
    BadPixels where no row has one.
    """
    import numpy as np

    columns = dict(foreign.columns)
    first: dict[str, np.ndarray] = {}
    used: dict[str, str] = {}
    for ours, theirs in POSITION_COLUMNS:
        found = _first_pair(columns, theirs)
        if found is not None:
            pair = tuple(one.lower() for one in found)
            for name, column in zip(ours, found, strict=True):
                first[name] = np.asarray(columns[column], dtype=np.float64) + (pair in FROM_ZERO)
            if pair == UNSAID:
                used["positions"] = f"{' and '.join(found)} are taken to count pixels from 1"
    if not first:
        raise BadHeader(
            f"no columns of positions among {', '.join(list(columns)[:12])}",
            hint="X_IMAGE and Y_IMAGE, x and y, ALPHA_J2000 and DELTA_J2000, or ra and dec are known",
        )
    usable = np.logical_and.reduce([np.abs(values) <= FARTHEST[name] for name, values in first.items()])
    if not usable.any():
        raise BadPixels("no source has a position that is a number")
    measured = _measured(columns, first) if "X_PX" in first else {}
    kept = {name: values[usable] for name, values in {**columns, **measured, **first}.items()}
    ahead = [*first, *measured]
    return Result(
        table={name: kept[name] for name in (*ahead, *(one for one in kept if one.upper() not in ahead))},
        units={"X_PX": "pix", "Y_PX": "pix", "RA_DEG": "deg", "DEC_DEG": "deg"},
        measures={"sources": int(np.count_nonzero(usable)), "left_out": int(np.count_nonzero(~usable))},
        used=used,
    )


# Beyond these a number is no position; declinations have an end, and right ascensions may go round.
FARTHEST = {"X_PX": 1e9, "Y_PX": 1e9, "RA_DEG": 720.0, "DEC_DEG": 90.0}
# Our names, and the pairs of columns that other programs use, the more accurate first; case does not matter.
POSITION_COLUMNS = (
    (
        ("X_PX", "Y_PX"),
        (
            ("x_px", "y_px"),
            ("xwin_image", "ywin_image"),
            ("xpsf_image", "ypsf_image"),
            ("x_image", "y_image"),
            ("xwin", "ywin"),
            ("x", "y"),
            ("xcentroid", "ycentroid"),
            ("x_fit", "y_fit"),
        ),
    ),
    (
        ("RA_DEG", "DEC_DEG"),
        (
            ("ra_deg", "dec_deg"),
            ("alphawin_j2000", "deltawin_j2000"),
            ("alpha_j2000", "delta_j2000"),
            ("alphawin_sky", "deltawin_sky"),
            ("alpha_sky", "delta_sky"),
            ("raj2000", "dej2000"),
            ("ra_icrs", "de_icrs"),
            ("ra", "dec"),
        ),
    ),
)
# Pairs whose program counts pixels from 0 (photutils), and one that several programs use, each in its way.
FROM_ZERO = (("xcentroid", "ycentroid"), ("x_fit", "y_fit"))
UNSAID = ("x", "y")


def _first_pair(columns: Columns, pairs: Any) -> tuple[str, str] | None:
    named = _by_name(columns)
    for one, other in pairs:
        if one in named and other in named and _is_plain(columns, named[one], named[other]):
            return named[one], named[other]
    return None


def _by_name(columns: Columns) -> dict[str, str]:
    return {name.lower(): name for name in reversed(list(columns))}


def _is_plain(columns: Columns, *names: str) -> bool:
    return all(_is_number(columns[name]) and columns[name].ndim == 1 for name in names)


def _is_number(column: np.ndarray) -> bool:
    return column.dtype.kind in "fiu"


def _serves(ours: str, column: np.ndarray) -> bool:
    """Whether a column holds what ours does: a number a source, or one an aperture."""
    return _is_number(column) and (
        column.ndim == 1 or (column.ndim == 2 and ours.startswith("FLUX_APERTURE"))
    )


def _as_it_is(values: np.ndarray) -> np.ndarray:
    return values


def _root(values: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.sqrt(np.where(values > 0, values, np.nan))


def _bits(values: np.ndarray) -> np.ndarray:
    """The flags of SExtractor, of which the first five mean what ours do."""
    import numpy as np

    flags: np.ndarray = np.nan_to_num(values, posinf=0, neginf=0).astype(np.int64) & 31
    return flags.astype(np.int32)


Convert = Callable[["np.ndarray"], "np.ndarray"]
# Ours, theirs (the better first), and how the values become ours.
MEASURED: tuple[tuple[str, tuple[str, ...], Convert], ...] = (
    ("X_WIN_ERROR_PX", ("x_win_error_px", "x_err", "xerr", "x_fit_err"), _as_it_is),
    ("X_WIN_ERROR_PX", ("errx2win_image", "errx2psf_image", "errx2_image"), _root),
    ("X_WIN_ERROR_PX", ("errawin_image", "erra_image"), _as_it_is),
    ("Y_WIN_ERROR_PX", ("y_win_error_px", "y_err", "yerr", "y_fit_err"), _as_it_is),
    ("Y_WIN_ERROR_PX", ("erry2win_image", "erry2psf_image", "erry2_image"), _root),
    ("Y_WIN_ERROR_PX", ("errawin_image", "erra_image"), _as_it_is),
    ("XY_WIN_COVARIANCE_PX2", ("xy_win_covariance_px2", "errxywin_image", "errxy_image"), _as_it_is),
    ("FLUX_AUTO_ADU", ("flux_auto_adu", "flux_auto", "flux", "flux_iso", "flux_psf", "flux_fit"), _as_it_is),
    (
        "FLUX_AUTO_ERROR_ADU",
        (
            "flux_auto_error_adu",
            "fluxerr_auto",
            "fluxerr",
            "flux_err",
            "fluxerr_iso",
            "fluxerr_psf",
            "flux_unc",
        ),
        _as_it_is,
    ),
    ("FWHM_PX", ("fwhm_px", "fwhm_image", "fwhm"), _as_it_is),
    ("HALF_LIGHT_RADIUS_PX", ("half_light_radius_px", "flux_radius"), _as_it_is),
    ("KRON_RADIUS", ("kron_radius",), _as_it_is),
    ("A_WIN_PX", ("a_win_px", "awin_image", "a_image", "a"), _as_it_is),
    ("B_WIN_PX", ("b_win_px", "bwin_image", "b_image", "b"), _as_it_is),
    ("THETA_WIN_DEG", ("theta_win_deg", "thetawin_image", "theta_image"), _as_it_is),
    ("ELLIPTICITY", ("ellipticity",), _as_it_is),
    ("SPREAD", ("spread", "spread_model"), _as_it_is),
    ("SPREAD_ERROR", ("spread_error", "spreaderr_model"), _as_it_is),
    ("STAR", ("star", "class_star"), _as_it_is),
    ("FLAGS", ("flags", "flag"), _bits),
    *(
        (f"FLUX_{name}_{ours}", (f"flux_{name.lower()}_{ours.lower()}", f"{theirs}_{short}"), _as_it_is)
        for name, short in (("PETROSIAN", "petro"), ("ISOPHOTAL", "iso"), ("APERTURE", "aper"))
        for ours, theirs in (("ADU", "flux"), ("ERROR_ADU", "fluxerr"))
    ),
)


def _measured(columns: Columns, first: Columns) -> dict[str, np.ndarray]:
    """The columns of the kind `sources` that later steps take; nan, or 0 for flags, where they are not known."""
    import numpy as np

    named, rows = _by_name(columns), len(first["X_PX"])
    found: dict[str, np.ndarray] = {
        "NUMBER": np.arange(1, rows + 1, dtype=np.int32),
        "X_WIN_PX": first["X_PX"],
        "Y_WIN_PX": first["Y_PX"],
    }
    for ours, names, convert in MEASURED:
        theirs = next(
            (named[one] for one in names if one in named and _serves(ours, columns[named[one]])), None
        )
        if theirs is not None and ours not in found:
            found[ours] = convert(np.asarray(columns[theirs]))
    if "number" in named and _names(columns[named["number"]]):
        found["NUMBER"] = columns[named["number"]].astype(np.int32)
    nothing = np.full(rows, np.nan, np.float32)
    absent = {ours: nothing for ours, _, _ in MEASURED if ours not in found}
    if "FLAGS" in absent:
        absent["FLAGS"] = np.zeros(rows, np.int32)
    return found | absent


def _names(number: np.ndarray) -> bool:
    """Whether a column names sources as NUMBER does: whole numbers from 0, each once."""
    import numpy as np

    if number.ndim != 1 or number.dtype.kind not in "iu" or not len(number):
        return False
    return bool(number.min() >= 0 and number.max() < 2**31 and len(np.unique(number)) == len(number))


SOURCES = Kind(
    name="sources",
    command="awe-import",
    class_name="Sources",
    summary="A source list of another pipeline.",
    description="Positions, fluxes and flags under our names, then its own columns.",
    needs=(Need("foreign", "foreign", raw(), help="Binary table of another pipeline."),),
    match=("instrument", "detector", "filter"),
    group=["exposure"],
    reads=[],
    validity=None,
    params=SourcesParams,
    measures=(
        Measure("sources", "Number of sources."),
        Measure("left_out", "Number of rows without a position."),
    ),
    limits=[Limit("sources", low=1)],
    recipe=import_sources,
    revision=3,
    unit="",
)
