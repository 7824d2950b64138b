"""A pixel of a regridded frame made again, from the whole frame as the recipe does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..coadd.inputs import frame_of_fits, mesh_sky
from ..errors import NoMatch
from ..fits import open_fits
from ..frame import Frame, Table
from ..kinds.regrid import (
    RegridParams,
    grid_of,
    places_of,
    prepared,
    put_on_grid,
    scale_of,
    subtract_level,
    system_of,
)
from ..kinds.regridmatch import InCoadd, in_coadd
from ..kinds.zeropoint import exptime_of
from ..params import params_of
from ..pixels.mask import Bit
from ..record import Record
from ..sky.writewcs import wcs_as_cards
from .arithmetic import ROUNDING, Check
from .gridframes import NEAR_PX, FrameThere, Gridded, Part, Resolve, frames_at, parts_of, whole
from .gridproduct import grid_of_product, tables_of
from .gridvalues import RECOMPUTED, TOO_FEW, beside, factor_of, not_done, only_placed, sky_at
from .values import THERE, OnGrid, Pixel, name_of

if TYPE_CHECKING:
    from ..fits import FitsFile


def regridded(pixel: Pixel, record: Record, resolve: Resolve) -> Gridded:
    node, at = pixel.node, whole(pixel)
    frames = frames_at(node.inputs, (), resolve, grid_of_product(node), *at)
    if len(frames) != 1:
        raise NoMatch(f"{len(frames)} frames were put on the grid")
    (one,) = frames
    if one.at is None:
        raise NoMatch(f"where {name_of(one.node)} lies is not known: the solution that was used is gone")
    if not one.within(NEAR_PX):
        return Gridded((), not_done("the frame is not there"), ("the frame is not there",))
    product = tables_of(node, *at)
    missing = one.node.state not in THERE
    if missing or product is None or not product.kernel:
        why = f"{name_of(one.node)} is {one.node.state}" if missing else "the file is gone"
        parts = tuple(parts_of(one, "not known", why, only_placed(one)))
        return Gridded(parts, not_done(why))
    placed = _regrid_again(pixel, one, record, product.kernel, resolve)
    word, by = _regrid_word(placed)
    text = "no value" if word == "no value" else "the frame at that place"
    check = Check(text, placed.value, pixel.value, ROUNDING * abs(placed.value or 0.0))
    matched = [Part(one, resolve(one)) for one in node.inputs if one.role == "coadd"]
    return Gridded((*parts_of(one, word, by, placed), *matched), check)


def _regrid_word(placed: OnGrid) -> tuple[str, str]:
    if placed.weight:
        return "entered", RECOMPUTED
    if (placed.mask or 0) & ~int(Bit.OUTSIDE):
        return "masked", RECOMPUTED
    return "no value", TOO_FEW


def _regrid_again(pixel: Pixel, one: FrameThere, record: Record, kernel: str, resolve: Resolve) -> OnGrid:
    """Interpolate the one pixel again, from the whole frame, as the recipe did."""
    at, params = whole(pixel), _params(record)
    with open_fits(one.node.path) as fits:
        named = {hdu.name or "SCI": hdu.index for hdu in fits.hdus if hdu.is_image}
        weight, bits = (fits.image(named[name]) if name in named else None for name in ("WEIGHT", "MASK"))
        meta = {**one.node.meta, **one.reference.meta}
        frame = Frame(fits.image(fits.hdus[0].index), weight, bits, meta)
        solved = {reference.role: (reference, other) for reference, other in one.solutions}
        astrom = Table({}, solved["astrom"][1].meta) if "astrom" in solved else None
        wcs, _ = system_of(frame, astrom)
        inside = _in_coadd(pixel, frame, resolve) if params.background == "match" else None
        grid, name = grid_of(params.grid, wcs, frame, inside)
        places = places_of(grid, name, wcs, frame)
        if wcs_as_cards(places.part.wcs, shape=places.part.shape) != pixel.node.meta["wcs"]:
            raise NoMatch(f"{name} gives other pixels now")
        zero = (
            {**solved["zeropoint"][1].meta, **solved["zeropoint"][0].meta} if "zeropoint" in solved else meta
        )
        if inside is None:
            scale = scale_of(zero.get("zeropoint_mag"), zero.get("zeropoint_band"), exptime_of(meta))
        else:
            scale = inside.scale
        (top, _), (left, _) = places.map.window
        rows, columns = ((start + n - 1, start + n) for start, n in ((top, at[1]), (left, at[0])))
        ready = prepared(frame, params, one.correction, inside)
        made = put_on_grid(ready, places.map, kernel, scale, (rows, columns))
        level = 0.0
        if inside is not None:
            here = (at[1] - 1, at[1]), (at[0] - 1, at[0])
            level = subtract_level(made, inside, places.part.part(here), wcs, frame)
        x, y = (float(values[0, 0]) + 1 for values in places.map.at(rows, columns))
        mask, nearest = int(made.mask[0, 0]), one.nearest()
        area = float(places.map.areas(rows, columns)[0, 0])
        return OnGrid(
            x,
            y,
            float(made.data[0, 0]),
            float(made.weight[0, 0]),
            mask,
            kernel,
            _regrid_sky(one, fits, params, nearest) if inside is None else inside.sky_adu,
            scale,
            area,
            level,
            beside(fits, (x, y), nearest, mask, kernel, area),
            factor_of(one, x, y),
        )


def _in_coadd(pixel: Pixel, frame: Frame, resolve: Resolve) -> InCoadd:
    """The frame as it is in the coadd from which its background was taken; raises NoMatch where that is gone."""
    nodes = [resolve(one) for one in pixel.node.inputs if one.role == "coadd"]
    if not nodes or nodes[0].state not in THERE:
        raise NoMatch("the coadd in which the background was matched is gone")
    with open_fits(nodes[0].path) as fits:
        table = next(hdu.index for hdu in fits.hdus if hdu.is_table and hdu.name == "FRAMES")
        return in_coadd(Table(dict(fits.table(table)), nodes[0].meta), frame.meta)


def _regrid_sky(
    one: FrameThere, fits: FitsFile, params: RegridParams, nearest: tuple[int, int]
) -> float | None:
    """The background that was subtracted at the nearest pixel; None where it is not known."""
    if params.background != "subtract":
        return 0.0
    assert one.wcs is not None
    names = {hdu.name for hdu in fits.hdus}
    if "WEIGHT" not in names:
        return None
    return sky_at(mesh_sky(frame_of_fits(name_of(one.node), fits, one.wcs), params.sky_mesh), nearest)


def _params(record: Record) -> RegridParams:
    """The parameters that the record says."""
    said = record["recipe"]["parameters"]
    return RegridParams(
        **{one.name: said[one.name]["value"] for one in params_of(RegridParams) if one.name in said}
    )
