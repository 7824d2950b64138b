"""A reduced frame on a grid of the sky: north up, one scale and zero point, so that frames can be compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import BadHeader, BadPixels, OffGrid
from ..kind import DETECTOR_MATCH, Kind, Limit, Measure, Need, Result, holding, of_frame
from ..params import param
from .declare import edges_param, grid_param, illumination_need, kernel_param, sky_mesh_param
from .regridmatch import InCoadd, of_coadd

if TYPE_CHECKING:
    import numpy as np

    from ..frame import Frame, Table
    from ..pixels.illumination import Illumination
    from ..pixels.resample import Resampled
    from ..sky.grid import Grid, Window
    from ..sky.pixelmap import PixelMap
    from ..sky.wcs import Wcs

# Rows that tell the noise of pixels by themselves.
NOISE_ROWS = 32
# Points each way that tell how much of a frame is on the grid.
POINTS = 50
# Levels that are scaled with the pixels.
LEVELS = ("saturation_adu", "nonlinear_adu", "read_noise_adu")


@dataclass(frozen=True)
class RegridParams:
    """Parameters of `make_regrid`."""

    grid: str = grid_param()
    kernel: str = kernel_param()
    background: str = param(
        "subtract",
        "Background: smooth and subtracted; as it was matched in a coadd with the frame; or left.",
        choices=("subtract", "match", "leave"),
    )
    edges_px: str = edges_param()
    sky_mesh: int = sky_mesh_param()
    interpolate: bool = param(True, "Fill defects of up to two pixels from their neighbours before.")


def make_regrid(
    reduced: Frame,
    astrom: Table | None = None,
    zeropoint: Table | None = None,
    illumination: Table | None = None,
    coadd: Table | None = None,
    *,
    params: RegridParams,
) -> Result:
    """Put a reduced frame on a grid of the sky.

    reduced: SCI (ADU), weight and mask. astrom: its meta has the WCS; without one that of the frame's header
    is taken. zeropoint: its meta has the magnitude of 1 ADU/s; pixels are then ADU/s of zero point 30 mag, else
    ADU/s of the frame. illumination: what the flat has wrong for stars; the frame less its background is multiplied
    by it. coadd: of a coadd with the frame, in which backgrounds were matched, the table FRAMES; the frame is then
    put on its grid with the scale and the background that it has there. Flux is conserved: sums over a star stay,
    whatever the scale. Returns SCI, WEIGHT (inverse
    variance of the background, for sums over many pixels; a pixel by itself has less noise, by noise_ratio) and MASK
    over the part of the grid that the frame touches; meta.wcs is that of the part, whole pixels from the grid's.
    Gain, saturation and read noise are those of the new unit, and the exposure time is 1 s. Method: pixels.resample,
    pixels.fillsmall, sky.pixelmap. Raises NoMatch (no solution, not on the grid, no coadd), BadHeader (no exposure
    time, coordinates that are not ICRS), BadPixels (no background).
    """
    from ..coadd.inputs import ZERO_POINT_MAG
    from .illumination import correction_of
    from .zeropoint import RELATIVE, exptime_of

    exptime_s = exptime_of(reduced.meta)
    wcs, used = system_of(reduced, astrom)
    inside = in_coadd_of(params, coadd, reduced)
    grid, name = grid_of(params.grid, wcs, reduced, inside)
    places = places_of(grid, name, wcs, reduced)
    scale, zero_mag, band = scaled_by(inside, zeropoint, reduced)
    if zero_mag is None:
        used["zeropoint"] = "there is none: pixels are in ADU/s of the frame"
    elif not band:
        used["band"] = RELATIVE
    area = _mean_area(places.map)
    seeing_px = seeing_px_of(reduced) if params.kernel == "auto" else None
    kernel = _kernel(params.kernel, seeing_px, area)
    correction = correction_of([illumination] if illumination else [], reduced.meta)
    ready = prepared(reduced, params, correction, inside)
    made = put_on_grid(ready, places.map, kernel, scale, places.map.window)
    if inside is not None:
        subtract_level(made, inside, places.part, wcs, reduced)
    noise_ratio = _noise_ratio(ready, places.map, kernel)
    return Result(
        planes={"SCI": made.data, "WEIGHT": made.weight, "MASK": made.mask},
        measures={
            "map_error_px": places.map.error_px,
            "area_ratio": area,
            "flux_scale": scale,
            "sky_adu": ready.sky_adu,
            "filled_pixels": ready.filled,
            "seeing_px": seeing_px,
            "noise_ratio": noise_ratio,
            "on_grid_fraction": _on_grid(grid, wcs, reduced.data.shape),
            "exposure_s": exptime_s,
        },
        meta=_meta(reduced.meta, places.part, scale, area)
        | {"zeropoint_mag": ZERO_POINT_MAG if band else None, "zeropoint_band": band}
        | {"gridded": _before(params, places.part, exptime_s, scale, noise_ratio)},
        used=used,
        cards=[("KERNEL", kernel, "how pixels were interpolated")],
    )


# Where the frame is


class _Places(NamedTuple):
    """The map of a part of the grid, and the grid of the map's window."""

    map: PixelMap
    part: Grid


def system_of(reduced: Frame, astrom: Table | None) -> tuple[Wcs, dict[str, str]]:
    """The coordinates of a frame, and what is to be said of them."""
    from ..sky.gridtext import refuse_other_sky
    from .coaddsystem import RESOLVED, usable_system
    from .zeropoint import solution_of

    cards, used = solution_of(astrom, reduced.meta)
    ny, nx = reduced.data.shape
    wcs, unfit = usable_system(cards, (ny, nx))
    if unfit:
        raise BadHeader(f"{_name(reduced.meta)}: {unfit}", hint=RESOLVED)
    try:
        refuse_other_sky(wcs)
    except BadHeader as error:
        raise BadHeader(f"{_name(reduced.meta)}: {error.message}", hint=error.hint) from None
    return wcs, used


def _name(meta: Mapping[str, Any]) -> str:
    return f"{meta.get('detector')} in {meta.get('exposure')}"


def in_coadd_of(params: RegridParams, coadd: Table | None, reduced: Frame) -> InCoadd | None:
    """The frame as it is in the coadd, where its background is to be as it was matched there."""
    from .regridmatch import in_coadd

    return in_coadd(coadd, reduced.meta) if params.background == "match" else None


def grid_of(text: str, wcs: Wcs, reduced: Frame, inside: InCoadd | None = None) -> tuple[Grid, str]:
    """The grid that a text says, or that of the coadd, or the one around the frame; and the text."""
    from ..sky.gridtext import fitted, parse_grid

    if text == "auto" and inside is not None:
        return inside.grid, inside.grid_text
    ny, nx = reduced.data.shape
    found = fitted([(wcs, (ny, nx))]) if text == "auto" else parse_grid(text)
    return found.grid(), str(found)


def places_of(grid: Grid, name: str, wcs: Wcs, reduced: Frame) -> _Places:
    """Where the pixels of the grid are in the frame; raises NoMatch where none are."""
    from ..sky.footprint import footprint
    from ..sky.sphere import separation_arcsec

    ny, nx = reduced.data.shape
    found = footprint(grid, wcs, (ny, nx))
    if found is not None:
        return _Places(found.map, grid.part(found.window))
    ra, dec = (float(one) for one in wcs.to_sky((nx + 1) / 2, (ny + 1) / 2))
    away = float(separation_arcsec(ra, dec, *grid.centre_deg)) / 60
    raise OffGrid(
        f"{_name(reduced.meta)}: the frame is not on the grid {name}: its middle is at RA {ra:.5f} Dec {dec:.5f}, "
        f"{away:.1f} arcmin from that of the grid",
        hint="awe-grid which FILE says which named grids hold it; --grid auto fits the frame",
    )


def _on_grid(grid: Grid, wcs: Wcs, shape: tuple[int, ...]) -> float:
    """The part of the frame that is on the grid."""
    import numpy as np

    x, y = np.meshgrid(*((np.arange(POINTS) + 0.5) * length / POINTS + 0.5 for length in shape[::-1]))
    gx, gy = grid.wcs.to_pixel(*wcs.to_sky(x, y))
    inside = (gx >= 0.5) & (gx < grid.shape[1] + 0.5) & (gy >= 0.5) & (gy < grid.shape[0] + 0.5)
    return float(np.mean(inside))


def _mean_area(places: PixelMap) -> float:
    """The mean area of a pixel of the grid in pixels of the frame, from rows across the map."""
    import numpy as np

    (top, bottom), columns = places.window
    areas = [
        places.areas((row, row + 1), columns) for row in range(top, bottom, max(1, (bottom - top) // POINTS))
    ]
    return float(np.nanmean(np.concatenate(areas)))


# Pixels


class _Ready(NamedTuple):
    """The planes to be interpolated, the level of the background, and how many pixels were filled."""

    data: np.ndarray
    weight: np.ndarray
    mask: np.ndarray
    sky_adu: float
    filled: int


def put_on_grid(ready: _Ready, where: PixelMap, kernel: str, scale: float, window: Window) -> Resampled:
    """A frame that is ready, in a window of the grid that its map has."""
    from ..pixels.resample import resample

    return resample(
        ready.data,
        where,
        weight=ready.weight,
        mask=ready.mask,
        kernel_name=kernel,
        scale=scale,
        conserve="flux",
        rows=window[0],
        columns=window[1],
    )


def subtract_level(made: Resampled, inside: InCoadd, part: Grid, wcs: Wcs, reduced: Frame) -> float:
    """Subtract the level of the overlaps, in place, and tell it; what is outside of the frame stays 0."""
    import numpy as np

    from ..pixels.mask import Bit

    ny, nx = reduced.data.shape
    level = inside.level_of(part, wcs, (ny, nx))
    np.subtract(made.data, level, out=made.data, where=made.mask != Bit.OUTSIDE)
    return float(np.median(level))


def prepared(
    reduced: Frame,
    params: RegridParams,
    illumination: Illumination | None = None,
    inside: InCoadd | None = None,
) -> _Ready:
    """The frame less its background, corrected, small defects filled."""
    import numpy as np

    from ..coadd.inputs import frame_of_arrays, mesh_sky
    from ..pixels.fillsmall import fill_small
    from ..pixels.mask import bad
    from .coaddscale import edges_of

    data = np.asarray(reduced.data, np.float32)
    mask = np.zeros(data.shape, np.int16) if reduced.mask is None else reduced.mask
    weight = (~bad(mask)).astype(np.float32) if reduced.weight is None else reduced.weight
    wrong = bad(mask)
    wrong |= ~(weight > 0)
    wrong |= ~np.isfinite(data)
    if inside is not None:
        sky_adu = inside.sky_adu
        data = np.subtract(data, np.float32(sky_adu), dtype=np.float32)
    elif params.background == "subtract":
        # The coordinates do not matter to the background.
        try:
            sky = mesh_sky(frame_of_arrays("", None, data, weight, mask), params.sky_mesh)  # type: ignore[arg-type]
        except BadPixels as error:
            text = f"{_name(reduced.meta)}: the background cannot be measured: {error.message}"
            raise BadPixels(text, hint="--background leave") from None
        level = sky.rows(0, len(data))
        data = np.subtract(data, level, out=level)
        sky_adu = float(np.median(sky.coarse))
    else:
        good = data[::8, ::8][~wrong[::8, ::8]]
        sky_adu = float(np.median(good)) if good.size else math.nan
    if illumination is not None:
        data = data.copy() if data is reduced.data else data
        weight = illumination.correct(data, np.asarray(weight, np.float32), 0)
    if any(edges := edges_of(params.edges_px)):
        whole = frame_of_arrays("", None, data, weight, mask, edges_px=edges)  # type: ignore[arg-type]
        data, weight, within = whole.rows(0, len(data))
        assert within is not None
        mask, wrong = within, wrong | ~(weight > 0)
    if not params.interpolate:
        return _Ready(data, weight, mask, sky_adu, 0)
    # The planes of the frame stay as they are; those made here need not be copied.
    own = data.copy() if data is reduced.data else data
    filled = fill_small(own, wrong, weight=weight.astype(np.float32), mask=mask.astype(np.int16), copy=False)
    assert filled.weight is not None and filled.mask is not None
    return _Ready(filled.data, filled.weight, filled.mask, sky_adu, filled.filled)


def seeing_px_of(reduced: Frame) -> float | None:
    """The width (FWHM) of bright stars in the middle of a frame; None where too few tell it."""
    from ..pixels.sourceseeing import star_width

    return star_width(reduced.data, reduced.weight, reduced.mask) or None


def _kernel(name: str, seeing_px: float | None, area: float) -> str:
    from ..pixels.resample import kernel_for

    return kernel_for(seeing_px or math.nan, math.sqrt(area)) if name == "auto" else name


def _noise_ratio(ready: _Ready, places: PixelMap, kernel: str) -> float:
    """The noise of pixels by themselves over what the weight says, from rows in the middle."""
    import numpy as np

    from ..pixels.resample import input_rows, resample

    (top, bottom), columns = places.window
    middle = (top + bottom) // 2
    rows = max(top, middle - NOISE_ROWS // 2), min(bottom, middle + NOISE_ROWS // 2 + 1)
    first, last = input_rows(places, ready.data.shape, kernel, rows, columns)
    made = resample(
        ready.data[first:last],
        places,
        weight=ready.weight[first:last],
        mask=ready.mask[first:last],
        kernel_name=kernel,
        conserve="flux",
        first_row=first,
        rows=rows,
        columns=columns,
        variance=True,
    )
    assert made.variance is not None
    known = (made.weight > 0) & (made.mask == 0)
    if not known.any():
        return math.nan
    return float(np.sqrt(np.median(made.variance[known].astype(np.float64) * made.weight[known])))


# What is said of it


def scaled_by(
    inside: InCoadd | None, zeropoint: Table | None, reduced: Frame
) -> tuple[float, float | None, str | None]:
    """What counts are multiplied by, and the zero point and the band by which they are."""
    from .zeropoint import exptime_of, zero_point_of

    if inside is not None:
        return inside.scale, inside.zeropoint_mag, inside.zeropoint_band
    zero_mag, band = zero_point_of(zeropoint, reduced.meta)
    return scale_of(zero_mag, band, exptime_of(reduced.meta)), zero_mag, band


def _before(
    params: RegridParams, part: Grid, exptime_s: float, scale: float, noise_ratio: float
) -> dict[str, Any]:
    """What the pixels no longer tell: what became of the background, the exposure, the zero point of the frame.

    nx and ny of the meta are those of the frame, by which solutions are chosen: the image's own are here.
    """
    from ..coadd.inputs import ZERO_POINT_MAG

    return {
        "background": params.background,
        "exptime_s": exptime_s,
        "zeropoint_mag": round(ZERO_POINT_MAG - 2.5 * math.log10(scale * exptime_s), 6),
        "nx": part.shape[1],
        "ny": part.shape[0],
        "noise_ratio": round(noise_ratio, 6) if math.isfinite(noise_ratio) else None,
    }


def scale_of(zero_mag: float | None, band: str | None, exptime_s: float) -> float:
    """What counts are multiplied by: to zero point 30 mag, or by a relative zero point, or to ADU/s alone."""
    from ..coadd.inputs import ZERO_POINT_MAG, flux_scale

    if zero_mag is None:
        return 1 / exptime_s
    # Relative zero points are about 0: the unit stays that of the mean frame.
    return flux_scale(zero_mag if band else zero_mag + ZERO_POINT_MAG, exptime_s)


def _meta(meta: Mapping[str, Any], part: Grid, scale: float, area: float) -> dict[str, Any]:
    """The fields that are not the frame's any more: coordinates, unit, amplifiers."""
    from ..sky.writewcs import wcs_as_cards

    levels = {
        name: _scaled(meta.get(name), scale * (1 if name == "read_noise_adu" else area)) for name in LEVELS
    }
    return {
        "wcs": wcs_as_cards(part.wcs, shape=part.shape),
        "pixel_scale_arcsec": round(part.wcs.pixel_scale_arcsec, 9),
        "exptime_s": 1.0,
        "gain_e_adu": _scaled(meta.get("gain_e_adu"), 1 / scale),
        **levels,
        "sections": None,
        "overscan_mode": meta.get("overscan_mode"),
    }


def _scaled(values: Any, factor: float) -> list[float | None] | None:
    """A value of each amplifier, at the digits that mean something."""
    if not isinstance(values, list):
        return None
    return [None if one is None else float(f"{one * factor:.9g}") for one in values]


REGRID = Kind(
    name="regrid",
    command="awe-regrid",
    class_name="Regrid",
    summary="Put reduced frames on a grid of the sky, at one scale and zero point.",
    description="""One reduced frame makes one image on a grid of the sky, by its astrometric solution: of the grid
only the part that the frame touches. Grids have names (awe-grid) or say themselves what they are:

  TAN 202.4696 47.1952 0.25 4096x4096 2048.5,2048.5 0

is projection (any of the FITS standard), RA, Dec, arcsec a pixel, columns x rows, the pixel of RA and Dec, and
the direction of +y from north through east in degrees. auto is the grid around the frame, north up, at its own scale.

Fluxes are kept, and scaled to 30 mag per ADU/s where there is a zero point. The weight is the inverse variance
of the background, as it counts in sums over many pixels: errors of awe-sources are right as they are. The
kernel is by default the one that measures best for the seeing of the frame. Masks are carried.

With --background match a frame is what it is in a coadd whose backgrounds were matched: the scale, the sky and the
level are those of its table FRAMES, the grid too, unless one is named that has whole pixels of it.""",
    needs=[
        Need("reduced", "reduced", of_frame(), help="Reduced frames."),
        Need("astrom", "astrom", of_frame(), help="Astrometric solution of the same frame."),
        Need(
            "zeropoint",
            "zeropoint",
            of_frame(),
            optional=True,
            unless=of_coadd,
            own="zeropoint_mag",
            help="Zero point of the same frame.",
        ),
        illumination_need("reduced"),
        Need(
            "coadd",
            "coadd",
            holding(),
            optional=True,
            asked_by=("background", "match"),
            table="FRAMES",
            help="With --background match: coadd on the same grid with the frame in it, made so too.",
        ),
    ],
    match=(*DETECTOR_MATCH, "filter"),
    group=["exposure"],
    reads=["exptime_s", "gain_e_adu", *LEVELS, "zeropoint_mag", "zeropoint_band"],
    validity=None,
    params=RegridParams,
    measures=[
        Measure("map_error_px", "Largest error of the interpolated map from the grid to the frame."),
        Measure("area_ratio", "Mean area of a pixel of the grid in pixels of the frame."),
        Measure("flux_scale", "What counts were multiplied by."),
        Measure("sky_adu", "Median of the background, whether it was subtracted or left."),
        Measure("filled_pixels", "Number of pixels of small defects that were filled."),
        Measure("seeing_px", "Width (FWHM) of stars on the frame, by which the kernel was chosen."),
        Measure(
            "noise_ratio", "Noise of a pixel by itself over what its weight says; below 1 if correlated."
        ),
        Measure("on_grid_fraction", "Part of the frame that is on the grid."),
        Measure("exposure_s", "Exposure time of the frame."),
    ],
    limits=[Limit("map_error_px", high=0.01)],
    recipe=make_regrid,
    revision=2,
    unit="adu/s",
    example="awe-query reduced night=2017-12-20 | awe-regrid --grid m51 -j2",
)
