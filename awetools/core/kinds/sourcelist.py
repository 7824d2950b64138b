"""Source list on the sky: the sources of one frame with positions, magnitudes and permanent names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..kind import DETECTOR_MATCH, Kind, Limit, Measure, MetaByRole, Need, Result, of_frame
from ..meta import on_grid
from .declare import illumination_need

if TYPE_CHECKING:
    import numpy as np

    from ..frame import Table
    from ..sky.wcs import Wcs

# Whole numbers of more bits are not exact in JSON, nor in what reads tables as floating point.
SLID_BITS = 53
FLUXES = ("AUTO", "PETROSIAN", "ISOPHOTAL", "APERTURE")
LENGTHS = {"A": "A_WIN_PX", "B": "B_WIN_PX", "FWHM": "FWHM_PX", "HALF_LIGHT_RADIUS": "HALF_LIGHT_RADIUS_PX"}
CORRECTED = ("ILLUMINATION_MAG",)
AS_THEY_ARE = ("ELLIPTICITY", "SPREAD", "SPREAD_ERROR", "STAR", "FLAGS", "KRON_RADIUS")


@dataclass(frozen=True)
class SourcelistParams:
    """Parameters of `make_sourcelist`: there are none."""


def make_sourcelist(
    sources: Table,
    astrom: Table | None = None,
    zeropoint: Table | None = None,
    illumination: Table | None = None,
    *,
    params: SourcelistParams,
) -> Result:
    """Put the sources of a frame on the sky and into magnitudes.

    sources: the table of kind `sources`; astrom: its meta has the WCS; zeropoint: its meta has the
    magnitude of 1 ADU/s; without one magnitudes are nan. Sources of an image on a sky grid have both
    themselves. illumination: what the flat has wrong for stars, taken out of all fluxes; ILLUMINATION_MAG is then
    what was subtracted from the magnitudes. Returns a row a source: SLID, the
    number of the list, and SID, that of the source in it, which together name it for good (the
    same inputs give the same numbers); RA_DEG, DEC_DEG with RA_ERROR_ARCSEC (times cos dec),
    DEC_ERROR_ARCSEC and RA_DEC_COVARIANCE_ARCSEC2; MAG_AUTO and so on with errors; A_ARCSEC, B_ARCSEC,
    THETA_SKY_DEG (from north through east), FWHM_ARCSEC, HALF_LIGHT_RADIUS_ARCSEC; X_PX, Y_PX and what else
    `sources` has. Errors are those of the measurement; those of the solution and of the zero
    point are in their measures. Raises BadHeader (no exposure time, no WCS), NoMatch (no solution).
    """
    import numpy as np

    from ..sky.readwcs import read_wcs
    from .illumination import corrected
    from .zeropoint import RELATIVE, depth_mag, exptime_of, solution_of, zero_point_of

    sources = corrected(sources, illumination)
    columns, meta = sources.columns, sources.meta
    cards, used = solution_of(astrom, meta)
    if on_grid(meta):
        # What was put on a grid has no other coordinates.
        used = {}
    wcs = read_wcs(dict(cards))
    zeropoint_mag, band = zero_point_of(zeropoint, meta)
    if zeropoint_mag is None:
        used["zeropoint"] = "there is none: magnitudes are nan"
    elif not band:
        used["band"] = RELATIVE
    x, y = columns["X_WIN_PX"], columns["Y_WIN_PX"]
    slid = _slid(columns, meta, cards, zeropoint_mag)
    table: dict[str, np.ndarray] = {
        "SLID": np.full(len(x), slid, np.int64),
        "SID": columns["NUMBER"].astype(np.int32),
        **_on_the_sky(wcs, columns),
        **_magnitudes(columns, zeropoint_mag, exptime_of(meta)),
        **{name: columns[name] for name in (*AS_THEY_ARE, *(one for one in CORRECTED if one in columns))},
        "X_PX": x,
        "Y_PX": y,
    }
    stars = (columns["STAR"] >= LEAST_STAR) & (columns["FLAGS"] == 0)
    seeing = float(np.median(table["FWHM_ARCSEC"][stars])) if stars.any() else None
    depth = None if zeropoint_mag is None else depth_mag(columns, zeropoint_mag, exptime_of(meta))
    return Result(
        table=table,
        units=_units(table),
        measures={
            "sources": len(x),
            "stars": int(stars.sum()),
            "fwhm_arcsec": seeing,
            "depth_mag": depth,
        },
        meta={"wcs": cards, "zeropoint_mag": zeropoint_mag, "zeropoint_band": band, "slid": slid},
        used=used,
    )


LEAST_STAR = 0.5


def _slid(
    columns: Mapping[str, np.ndarray],
    meta: Mapping[str, Any],
    cards: Mapping[str, Any],
    zeropoint_mag: float | None,
) -> int:
    """A number for a list, out of all that is in it: no two lists have the same, on any machine."""
    from ..record import canonical

    names = ("instrument", "detector", "exposure", "filter")
    about = [[meta.get(name) for name in names], dict(cards), zeropoint_mag]
    digest = hashlib.sha256(canonical(about).encode())
    for name, column in columns.items():
        digest.update(name.encode())
        digest.update(column.astype(column.dtype.newbyteorder("<")).tobytes())
    return int.from_bytes(digest.digest()[:8]) >> (64 - SLID_BITS)


def _on_the_sky(wcs: Wcs, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Positions, their errors, and lengths and angles, by the derivatives of the WCS at each source."""
    import numpy as np

    x, y = columns["X_WIN_PX"], columns["Y_WIN_PX"]
    ra, dec = wcs.to_sky(x, y)
    (ea, eb), (na, nb) = _derivatives(wcs, x, y, ra, dec)
    vx, vy = (columns[f"{axis}_WIN_ERROR_PX"].astype(np.float64) ** 2 for axis in "XY")
    vxy = columns["XY_WIN_COVARIANCE_PX2"].astype(np.float64)
    scale = np.sqrt(np.abs(ea * nb - eb * na))
    with np.errstate(invalid="ignore"):
        found = {
            "RA_ERROR_ARCSEC": np.sqrt(np.maximum(ea * ea * vx + 2 * ea * eb * vxy + eb * eb * vy, 0)),
            "DEC_ERROR_ARCSEC": np.sqrt(np.maximum(na * na * vx + 2 * na * nb * vxy + nb * nb * vy, 0)),
            "RA_DEC_COVARIANCE_ARCSEC2": ea * na * vx + (ea * nb + eb * na) * vxy + eb * nb * vy,
        }
        angle = np.radians(columns["THETA_WIN_DEG"].astype(np.float64))
        along = (ea * np.cos(angle) + eb * np.sin(angle), na * np.cos(angle) + nb * np.sin(angle))
        found |= {f"{name}_ARCSEC": columns[source] * scale for name, source in LENGTHS.items()}
        found["THETA_SKY_DEG"] = np.degrees(np.arctan2(*along)) % 180
    return {"RA_DEG": ra, "DEC_DEG": dec, **{name: one.astype(np.float32) for name, one in found.items()}}


def _derivatives(
    wcs: Wcs, x: np.ndarray, y: np.ndarray, ra: np.ndarray, dec: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Arcsec to the east and to the north for a pixel along x and along y."""
    import numpy as np

    from ..sky.sphere import ARCSEC_PER_DEG

    def step(dx: float, dy: float) -> tuple[np.ndarray, np.ndarray]:
        (ra0, dec0), (ra1, dec1) = (wcs.to_sky(x + sign * dx, y + sign * dy) for sign in (-0.5, 0.5))
        east = ((ra1 - ra0 + 180) % 360 - 180) * np.cos(np.radians(dec))
        return east * ARCSEC_PER_DEG, (dec1 - dec0) * ARCSEC_PER_DEG

    (ea, na), (eb, nb) = step(1, 0), step(0, 1)
    return (ea, eb), (na, nb)


def _magnitudes(
    columns: Mapping[str, np.ndarray], zeropoint_mag: float | None, exptime_s: float
) -> dict[str, np.ndarray]:
    import numpy as np

    from ..photometry.zeropoint import instrumental

    found = {}
    for name in FLUXES:
        flux, error = (columns[f"FLUX_{name}_{one}"] for one in ("ADU", "ERROR_ADU"))
        mag, mag_error = instrumental(flux, error, exptime_s)
        found[f"MAG_{name}"] = (mag + (np.nan if zeropoint_mag is None else zeropoint_mag)).astype(np.float32)
        found[f"MAG_{name}_ERROR"] = mag_error.astype(np.float32)
    return found


def _units(table: Mapping[str, np.ndarray]) -> dict[str, str]:
    ends = {"_ARCSEC2": "arcsec2", "_ARCSEC": "arcsec", "_DEG": "deg", "_PX": "pix"}
    units = {name: unit for name in table for end, unit in ends.items() if name.endswith(end)}
    return units | {name: "mag" for name in table if name.startswith("MAG_") or name in CORRECTED}


def _on_grid(inputs: MetaByRole) -> str:
    """Why sources need no solution besides (`Need.unless`)."""
    return "the sources are of an image on a sky grid" if on_grid(inputs.get("sources", {})) else ""


SOURCELIST = Kind(
    name="sourcelist",
    command="awe-sourcelist",
    class_name="SourceList",
    summary="Put the sources of frames on the sky and into magnitudes, with permanent names.",
    description="""One source list with its astrometric solution and its zero point makes one list on the sky:
right ascension and declination, magnitudes, sizes in arcsec and angles from north, all with errors. A source is known
by SLID, the number of its list, and SID, its number in the list. They come from the content alone: the
same inputs give the same numbers on any machine, and no other list has them.""",
    needs=[
        Need("sources", "sources", of_frame(), help="Source lists in pixels."),
        Need(
            "astrom",
            "astrom",
            of_frame(),
            unless=_on_grid,
            help="Astrometric solution of the same frame.",
        ),
        Need(
            "zeropoint",
            "zeropoint",
            of_frame(),
            optional=True,
            unless=_on_grid,
            own="zeropoint_mag",
            help="Zero point of the same frame.",
        ),
        illumination_need("sources"),
    ],
    match=(*DETECTOR_MATCH, "filter"),
    group=["exposure"],
    reads=["exposure", "exptime_s"],
    validity=None,
    params=SourcelistParams,
    measures=[
        Measure("sources", "Number of sources."),
        Measure("stars", "Number of sources that look like single stars."),
        Measure("fwhm_arcsec", "Median width (FWHM) of these on the sky."),
        Measure("depth_mag", "Magnitude of a faint source that is 5 times its own error."),
    ],
    limits=[Limit("sources", low=1)],
    recipe=make_sourcelist,
    revision=1,
    unit="",
    example="awe-query sources night=2017-12-20 | awe-sourcelist -j2",
)
