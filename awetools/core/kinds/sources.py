"""Sources of a reduced frame: where they are, how bright and how wide, with errors, and flags that say why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import BadHeader, BadValue, Mixture
from ..kind import DETECTOR_MATCH, Kind, Limit, Measure, Need, Result, named, of_frame
from ..meta import on_grid
from ..params import param

if TYPE_CHECKING:
    import numpy as np

    from ..frame import Frame, Table
    from ..pixels.sources import Sources, SourceSettings

# The significance at which the depth is given.
DEPTH_SIGMA = 5.0
FWHM_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))
# Whole pixels have whole numbers, from 1 on, in files.
FIRST_PIXEL = 1
# The same pixels of two images are the same place on the sky to so many pixels.
OTHER_GRID_PX = 1.0
POSITIONS = ("x_px", "y_px", "x_win_px", "y_win_px")
# By the end of a column's name; the first that fits.
COLUMN_UNITS = {"_px2": "pix2", "_px": "pix", "_adu": "adu", "_deg": "deg"}


@dataclass(frozen=True)
class SourcesParams:
    """Parameters of `make_sources`."""

    threshold_sigma: float = param(
        4.0, "Significance of a source's pixels in the filtered image.", unit="sigma", low=0.5, high=1000
    )
    minimum_area_px: int = param(
        4, "Least number of connected pixels above the threshold.", unit="px", low=1, high=10_000
    )
    filter_fwhm: float = param(
        0.6, "Width of the Gaussian filter in units of the seeing; 0: not filtered.", low=0, high=3
    )
    deblend_levels: int = param(
        32, "Number of levels at which connected sources are told apart.", low=1, high=1024
    )
    deblend_contrast: float = param(
        0.0005, "Least fraction of the light that a part has to be a source of its own.", low=0, high=1
    )
    sky_mesh: int = param(64, "Size of the cells in which the smooth sky is measured.", unit="px", low=8)
    seeing_px: float = param(
        0.0, "Width (FWHM) of a star; 0: measured on bright sources first.", unit="px", low=0, high=50
    )
    apertures_px: str = param("5", "Radii of the circular apertures, separated by commas.", unit="px")
    kron_factor: float = param(
        2.5, "Radius of the Kron aperture in units of the Kron radius.", low=0.1, high=10
    )
    kron_least: float = param(
        3.5, "Least radius of Kron and Petrosian apertures in isophotal axes.", low=0.5, high=20
    )
    petrosian_factor: float = param(
        2.0, "Radius of the Petrosian aperture in units of the Petrosian radius.", low=0.1, high=10
    )
    petrosian_level: float = param(
        0.2, "Surface brightness at the Petrosian radius, of the mean within.", low=0.01, high=0.9
    )
    noise_factor: float = param(
        1.0,
        "Factor on the background's noise in errors (correlated noise); 0: as the filtered image shows.",
        low=0,
        high=100,
    )
    recentre_sigma: float = param(
        0.0,
        "How far a given position may move to the centre of the light, in sigma of its window; 0: it is fixed.",
        low=0,
        high=5,
    )


def make_sources(
    reduced: Frame, detection: Frame | None = None, positions: Table | None = None, *, params: SourcesParams
) -> Result:
    """Find the sources of one frame and measure them (pixels.sources).

    reduced: SCI (ADU), weight (inverse variance of the background, ADU^-2) and MASK; its meta
    gives gain (e/ADU; without it errors lack the photon noise of sources) and pixel scale.
    detection: an image of the same pixel grid to find them on; positions, shapes and apertures are its.
    positions: a list to be measured instead of found: RA_DEG and DEC_DEG where it has them (the frame's
    WCS makes pixels of them), else X_PX and Y_PX; NUMBER is that of the list.
    Returns a table of one row a source. Positions are FITS pixels: the centre of the
    first is 1. NUMBER, from 1. X_PX, Y_PX: isophotal centre; X_WIN_PX, Y_WIN_PX: windowed
    centre, with errors and covariance. Second moments of the Gaussian that has the
    windowed ones, A_WIN_PX, B_WIN_PX, THETA_WIN_DEG (from x towards y), ELLIPTICITY, FWHM_PX;
    A_PX, B_PX, THETA_DEG: isophotal. FLUX_AUTO_ADU (Kron), FLUX_PETROSIAN_ADU,
    FLUX_ISOPHOTAL_ADU, FLUX_APERTURE_ADU (an element a radius) with errors; Kron and
    Petrosian radii count in isophotal axes. SPREAD: how much wider than a star, with its error; STAR: 1
    for what cannot be told from a star, 0 for what is none, nan where no star tells the seeing.
    FLAGS: bits that the header names (FBITnn). What cannot be measured is nan. Raises BadValue
    (apertures, both a detection image and positions), BadPixels (no pixel can be used),
    Mixture (another pixel grid), BadHeader (no WCS).
    """
    radii_px = apertures_of(params.apertures_px)
    gain_e_adu = _gain(reduced.meta)
    if detection is not None and positions is not None:
        raise BadValue("a detection image and positions: sources are either found or given")
    if positions is None:
        found = _found(reduced, detection, gain_e_adu, _settings(params, radii_px))
    else:
        found = _at(reduced, positions, gain_e_adu, _settings(params, radii_px))
    measures = _measures(found.measures, reduced.meta)
    return Result(
        table=_table(found.columns),
        units=_units(found.columns, on_grid(reduced.meta)),
        measures=measures,
        used=_used(gain_e_adu, measures["seeing_px"], params),
        cards=_cards(radii_px),
    )


def _found(reduced: Frame, detection: Frame | None, gain_e_adu: float, settings: SourceSettings) -> Sources:
    from ..pixels.sources import Plane, find_sources

    detect = None
    if detection is not None:
        _refuse_other_grid(reduced, detection)
        detect = Plane(detection.data, detection.weight, detection.mask)
    return find_sources(reduced.data, reduced.weight, reduced.mask, gain_e_adu, settings, detect)


def _refuse_other_grid(reduced: Frame, detection: Frame) -> None:
    """Raise Mixture unless the pixels of two images are the same places, as far as their headers say."""
    import numpy as np

    from ..sky.readwcs import read_wcs
    from ..sky.sphere import separation_arcsec

    if reduced.data.shape != detection.data.shape:
        sizes = (" x ".join(str(one) for one in frame.data.shape[::-1]) for frame in (detection, reduced))
        raise Mixture("the detection image has {} pixels, the measured one {}".format(*sizes))
    cards = [frame.meta.get("wcs") for frame in (reduced, detection)]
    if not all(cards):
        return
    ny, nx = reduced.data.shape
    x, y = np.array([1.0, nx, 1.0, nx]), np.array([1.0, 1.0, ny, ny])
    here, there = (read_wcs(one) for one in cards if one)
    away_px = separation_arcsec(*here.to_sky(x, y), *there.to_sky(x, y)) / here.pixel_scale_arcsec
    if np.max(away_px) > OTHER_GRID_PX:
        raise Mixture(
            f"the corners of the detection image are up to {np.max(away_px):.1f} px away on the sky, "
            "by the WCS of the two headers: not the same pixel grid",
            hint="--positions SOURCES measures at given places",
        )


def _at(reduced: Frame, positions: Table, gain_e_adu: float, settings: SourceSettings) -> Sources:
    """What is measured at the positions of a list."""
    import numpy as np

    from ..pixels.sources import measure_at

    columns = positions.columns
    if "RA_DEG" in columns and "DEC_DEG" in columns:
        from ..sky.readwcs import read_wcs

        cards = reduced.meta.get("wcs")
        if not cards:
            raise BadHeader(
                "the positions are RA and Dec, and the frame's header has no WCS to make pixels of them"
            )
        x, y = read_wcs(cards).to_pixel(np.asarray(columns["RA_DEG"]), np.asarray(columns["DEC_DEG"]))
    elif "X_PX" in columns and "Y_PX" in columns:
        x, y = (np.asarray(columns[name], np.float64) for name in ("X_PX", "Y_PX"))
    else:
        raise BadValue("the list of positions has neither RA_DEG and DEC_DEG nor X_PX and Y_PX")
    found = measure_at(
        reduced.data,
        x - FIRST_PIXEL,
        y - FIRST_PIXEL,
        reduced.weight,
        reduced.mask,
        gain_e_adu,
        settings,
    )
    if "NUMBER" in columns:
        found.columns["number"] = np.asarray(columns["NUMBER"]).astype(np.int32)
    return found


def apertures_of(text: str) -> tuple[float, ...]:
    """The radii that a text names, such as 3,5,8.5; raises BadValue."""
    try:
        radii = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise BadValue(
            f"apertures_px = {text!r}: not numbers separated by commas", hint="--apertures-px 3,5,8.5"
        ) from None
    if len(set(radii)) < len(radii):
        raise BadValue(f"apertures_px = {text!r}: a radius is there twice", hint="--apertures-px 3,5,8.5")
    return radii


def _settings(params: SourcesParams, radii_px: tuple[float, ...]) -> SourceSettings:
    from dataclasses import asdict

    from ..pixels.sources import SourceSettings

    given = asdict(params) | {"mesh_px": params.sky_mesh, "apertures_px": radii_px}
    del given["sky_mesh"]
    return SourceSettings(**given)


def _gain(meta: Mapping[str, Any]) -> float:
    """The one gain of an assembled frame, e/ADU; 0 where it is not known."""
    values = meta.get("gain_e_adu") or []
    return float(values[0]) if len(values) == 1 and values[0] else 0.0


def _table(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns as the file has them: positions from 1, all other numbers in single precision."""
    import numpy as np

    table = {}
    for name, values in columns.items():
        if name in POSITIONS:
            values = values + FIRST_PIXEL
        elif values.dtype.kind == "f":
            # What single precision cannot hold is no measurement.
            with np.errstate(over="ignore"):
                values = values.astype(np.float32)
            values[np.isinf(values)] = np.nan
        table[name.upper()] = values
    return table


def _units(columns: Mapping[str, np.ndarray], per_second: bool) -> dict[str, str]:
    found = {}
    for name in columns:
        unit = next((unit for ending, unit in COLUMN_UNITS.items() if name.endswith(ending)), "")
        if unit:
            found[name.upper()] = "adu/s" if per_second and unit == "adu" else unit
    return found


def _measures(numbers: Mapping[str, float], meta: Mapping[str, Any]) -> dict[str, float | int | None]:
    seeing_px, scale_arcsec = numbers["seeing_px"], meta.get("pixel_scale_arcsec")
    counts = {name: int(numbers[name]) for name in ("sources", "stars", "saturated_sources")}
    noise_adu = numbers["sky_noise_adu"] * numbers["noise_ratio"]
    # The area over which a Gaussian, weighted by itself, collects noise: King 1983, PASP 95, 163.
    area_px = 4 * math.pi * (seeing_px / FWHM_SIGMA) ** 2
    return {
        **counts,
        "seeing_px": seeing_px,
        "seeing_arcsec": seeing_px * float(scale_arcsec) if scale_arcsec else None,
        "ellipticity": numbers["ellipticity"],
        "sky_adu": numbers["sky_adu"],
        "sky_noise_adu": numbers["sky_noise_adu"],
        "noise_ratio": numbers["noise_ratio"],
        "density_low": numbers["density_low"],
        "density_high": numbers["density_high"],
        "depth_adu": DEPTH_SIGMA * noise_adu * math.sqrt(area_px),
    }


def _used(gain_e_adu: float, seeing_px: float | int | None, params: SourcesParams) -> dict[str, str]:
    used = {}
    if not gain_e_adu:
        used["gain"] = "not known: errors are without the photon noise of sources"
    if not params.seeing_px and (seeing_px is None or math.isnan(seeing_px)):
        from ..pixels.sourceseeing import USUAL_FWHM_PX

        used["seeing"] = f"too few stars tell it: taken as {USUAL_FWHM_PX:g} px"
    return used


def _cards(radii_px: tuple[float, ...]) -> list[tuple[str, str | float, str]]:
    """What the bits of FLAGS are called, and the radii of the elements of FLUX_APERTURE_ADU."""
    from ..pixels.sources import Flag

    bits: list[tuple[str, str | float, str]] = [
        (f"FBIT{flag.bit_length() - 1:02d}", str(flag.name), f"bit {int(flag)} of FLAGS") for flag in Flag
    ]
    apertures: list[tuple[str, str | float, str]] = [
        (f"APER{number:02d}", radius, f"[pix] radius of aperture {number}")
        for number, radius in enumerate(radii_px, 1)
    ]
    return bits + apertures


SOURCES = Kind(
    name="sources",
    command="awe-sources",
    class_name="Sources",
    summary="Find and measure the sources of reduced frames.",
    description="""One reduced frame makes one table, a row a source. The seeing is measured on bright stars
first; the image, less its smooth sky, is filtered to match it, and what stands above the noise is a source.
Measured of each are windowed positions and second moments with errors, Kron (AUTO), Petrosian, isophotal
and aperture fluxes with errors, half-light radius, width, and how much like a star it is. Positions are
FITS pixels: the centre of the first pixel is 1. What cannot be measured is nan.

Errors hold what the noise of the pixels does to positions, to fluxes and to the radius of the AUTO aperture, and
how well the sky is known. They do not hold sources too faint to be found beside a measured one, which scatter
fluxes and positions by some tenth of an error more in usual fields.

With --detection FILE sources are found on that image and measured on this one, with its positions,
shapes and apertures. With --positions FILE the positions of a list are measured, found or not: a flux
that is not significant has its error too. Neighbours are then not taken out.

An image on a sky grid (awe-regrid) may be given too: what is called ADU is then its unit, ADU/s, and the
weight is such that errors are right although the noise of its pixels is correlated.

The bits of FLAGS, which the header names too: 1 CROWDED (more than a tenth of the aperture belongs to
neighbours), 2 BLENDED (was separated from a neighbour), 4 SATURATED (saturated pixels within), 8 EDGE
(touches the edge of the image), 16 INCOMPLETE (pixels of the aperture are missing), 32 NO_CENTROID (the
windowed centre is the isophotal one), 64 MASKED (masked pixels within), 128 NO_KRON and 256 NO_PETROSIAN
(no such radius: the least one stands), 512 NO_HALF_LIGHT (the flux is not above 0), 1024 LIMITED (larger
than what is measured), 2048 SHARP (narrower than a star), 4096 NOT_DEBLENDED (too many parts to separate).""",
    needs=[
        Need(
            "reduced",
            "reduced",
            of_frame(),
            only_given=("regrid", "coadd", "difference"),
            help="Reduced frames, or images on a sky grid.",
        ),
        Need(
            "detection",
            "reduced",
            named(),
            optional=True,
            or_kinds=("regrid", "coadd"),
            help="Image of the same pixel grid to find the sources on; this one is then measured there.",
        ),
        Need(
            "positions",
            "sources",
            named(),
            optional=True,
            or_kinds=("sourcelist",),
            help="List of positions to measure instead of finding sources.",
        ),
    ],
    match=(*DETECTOR_MATCH, "filter"),
    group=["exposure"],
    reads=["gain_e_adu", "pixel_scale_arcsec"],
    validity=None,
    params=SourcesParams,
    measures=[
        Measure("sources", "Number of sources."),
        Measure("stars", "Number of bright, undisturbed stars that tell the seeing."),
        Measure("saturated_sources", "Number of sources with saturated pixels."),
        Measure("seeing_px", "Median width (FWHM) of the stars."),
        Measure("seeing_arcsec", "The same on the sky, at the nominal pixel scale."),
        Measure("ellipticity", "Median ellipticity of the stars, 1 - b/a."),
        Measure("sky_adu", "Median of the smooth sky."),
        Measure("sky_noise_adu", "Median noise of a pixel of the sky, as the weight says."),
        Measure(
            "noise_ratio",
            "Noise of the filtered image's sky over that of white noise; above 1 if correlated.",
        ),
        Measure("density_low", "Least number of sources in a cell of the frame, over the mean."),
        Measure("density_high", "Largest number of sources in a cell of the frame, over the mean."),
        Measure(
            "depth_adu",
            "Flux of a star that is 5 times its own error, weighted by a Gaussian; to be found it needs more.",
        ),
    ],
    limits=[Limit("sources", low=1)],
    recipe=make_sources,
    revision=2,
    unit="",
    example="awe-query reduced night=2017-03-02 | awe-sources -j2",
)
