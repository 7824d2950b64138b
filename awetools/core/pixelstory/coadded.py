"""A pixel of a coadd made again: which frames entered, what was clipped or masked, and the value they give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..coadd.coadd import How, Member, members
from ..coadd.inputs import CoaddFrame, MeshSky, frame_of_fits, mesh_sky
from ..coadd.layers import Level, Placed, Regridding, place
from ..fits import open_fits
from ..kinds.coaddgridded import sky_of
from ..kinds.coaddscale import edges_of
from ..meta import on_grid
from ..pixels.coadd import Stacking
from ..pixels.mask import LIGHT
from ..record import Record
from ..sky.grid import Grid
from ..sky.wcs import Wcs
from .arithmetic import ROUNDING, Check
from .gridframes import NEAR_PX, FrameThere, Gridded, Part, Resolve, frames_at, parts_of, whole
from .gridproduct import ProductTables, grid_of_product, tables_of
from .gridvalues import RECOMPUTED, TAKEN, TOO_FEW, beside, factor_of, not_done, only_placed, sky_at
from .values import THERE, OnGrid, Pixel, name_of

if TYPE_CHECKING:
    from ..fits import FitsFile

LISTED = "as the coadd's table CLIPPED says"


@dataclass
class _Found:
    """What the frames on a pixel have there, and what became of them, by number."""

    placed: dict[int, OnGrid] = field(default_factory=dict)
    members: dict[int, Member] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def coadded(pixel: Pixel, record: Record, resolve: Resolve) -> Gridded:
    node, (x, y) = pixel.node, whole(pixel)
    grid, product = grid_of_product(node), tables_of(node, x, y)
    rows = product.rows if product else ()
    frames = frames_at(node.inputs, rows, resolve, grid, x, y)
    on = [one for one in frames if one.within(0)]
    made = _Found()
    if product is not None and product.kernel and rows:
        _make_again(frames, grid, product, record, (x, y), made)
    parts: list[Part] = []
    for one in on:
        word, by = _word(one, made, product)
        placed = made.placed.get(one.number) or only_placed(one)
        parts += parts_of(one, word, by, placed)
    check = _coadd_check(pixel, made, product, record)
    return Gridded(tuple(parts), check, tuple(_coadd_notes(pixel, frames, on, made, product)))


def _make_again(
    frames: Sequence[FrameThere],
    grid: Grid,
    product: ProductTables,
    record: Record,
    at: tuple[int, int],
    made: _Found,
) -> None:
    """Put the frames around the pixel on the grid again, as the recipe did, and stack them there."""
    values = {name: one["value"] for name, one in record["recipe"]["parameters"].items()}
    how = How(
        stacking=Stacking(values["method"], values["clip_sigma"], values["clip_fraction"]),
        regridding=Regridding(kernel_name=product.kernel, fill=values["interpolate"]),
    )
    y, x = at[1] - 1, at[0] - 1
    with ExitStack() as stack:
        opened: dict[int, tuple[FrameThere, FitsFile, Placed]] = {}
        for one in frames:
            if one.wcs is None or one.reason or not one.within(_margin(one.wcs, grid)):
                continue
            if one.node.state not in THERE or not one.row:
                made.missing.append(f"{name_of(one.node)} ({one.node.state})")
                continue
            fits = stack.enter_context(open_fits(one.node.path))
            frame = _coadd_frame(one, fits, values)
            placed = place(one.number, frame, grid, how.regridding)
            if placed is not None:
                opened[one.number] = one, fits, replace(placed, level=_level(one))
        found = members([placed for _, _, placed in opened.values()], grid, y, x, how)
        made.members.update({one.number: one for one in found})
        for number, (one, fits, placed) in opened.items():
            if one.within(0):
                made.placed[number] = _at_pixel(
                    one, fits, placed, (y, x), made.members.get(number), product.kernel
                )


def _margin(wcs: Wcs, grid: Grid) -> float:
    """How far beside a frame a pixel of the grid may still see it, px of the frame."""
    return NEAR_PX * max(1.0, grid.wcs.pixel_scale_arcsec / wcs.pixel_scale_arcsec)


def _coadd_frame(one: FrameThere, fits: FitsFile, values: Mapping[str, Any]) -> CoaddFrame:
    assert one.wcs is not None
    gridded, background = on_grid(one.node.meta), values["background"]
    frame = frame_of_fits(
        name_of(one.node),
        fits,
        one.wcs,
        scale=one.row["SCALE"],
        illumination=one.correction,
        # Coadds of old have whole frames.
        edges_px=(0, 0, 0, 0) if gridded else edges_of(str(values.get("edges_px", "0"))),
        gridded=gridded,
    )
    if gridded:
        background = sky_of(one.node.meta, background)
    if background == "leave":
        return frame
    if background in ("match", "match-plane"):
        return replace(frame, sky=one.row["SKY_ADU"])
    return replace(frame, sky=mesh_sky(frame, values["sky_mesh"]))


def _level(one: FrameThere) -> Level:
    # Coadds of old have a constant only.
    return Level(*(float(one.row.get(name) or 0.0) for name in ("LEVEL", "LEVEL_X", "LEVEL_Y")))


def _at_pixel(
    one: FrameThere,
    fits: FitsFile,
    placed: Placed,
    at: tuple[int, int],
    member: Member | None,
    kernel: str,
) -> OnGrid:
    """What a frame has at a pixel (row, column from 0) of the grid."""
    row, column = at[0] - placed.origin[0], at[1] - placed.origin[1]
    if placed.map is None:
        return _as_it_is(one, placed, at, member)
    spans = (row, row + 1), (column, column + 1)
    (top, bottom), (left, right) = placed.map.window
    if not (top <= row < bottom and left <= column < right):
        return only_placed(one)
    x, y = (float(values[0, 0]) + 1 for values in placed.map.at(*spans))
    nearest = one.nearest()
    sky = placed.frame.sky
    known = OnGrid(
        x,
        y,
        kernel=kernel,
        sky=sky_at(sky, nearest) if isinstance(sky, MeshSky) else float(sky),
        scale=placed.frame.scale,
        area=float(placed.map.areas(*spans)[0, 0]),
        factor=factor_of(one, x, y),
        level=float(placed.level.values(placed.window, (at[0], at[0] + 1))[0, at[1] - placed.window[1][0]]),
    )
    if member is None:
        return known
    assert known.area is not None
    around = beside(fits, (x, y), nearest, member.mask, kernel, known.area)
    return replace(known, value=member.value, weight=member.weight, mask=member.mask, beside=around)


def _as_it_is(one: FrameThere, placed: Placed, at: tuple[int, int], member: Member | None) -> OnGrid:
    """What a regridded frame has at its own pixel there."""
    (top, bottom), (left, right) = placed.window
    if not (top <= at[0] < bottom and left <= at[1] < right):
        return only_placed(one)
    x, y = at[1] - placed.origin[1] + 1, at[0] - placed.origin[0] + 1
    sky = placed.frame.sky
    known = OnGrid(
        float(x),
        float(y),
        sky=sky_at(sky, (x, y)) if isinstance(sky, MeshSky) else float(sky),
        scale=placed.frame.scale,
        area=1.0,
        level=float(placed.level.values(placed.window, (at[0], at[0] + 1), (at[1], at[1] + 1))[0, 0]),
    )
    if member is None:
        return known
    return replace(known, value=member.value, weight=member.weight, mask=member.mask)


def _word(one: FrameThere, made: _Found, product: ProductTables | None) -> tuple[str, str]:
    """What became of a frame at the pixel, and how that is known."""
    if one.reason:
        return "left out", one.reason
    if product is None:
        return "not known", "the file is gone, and its tables"
    member = made.members.get(one.number)
    recomputed = TAKEN if on_grid(one.node.meta) else RECOMPUTED
    if one.number in product.clipped:
        return "clipped", recomputed if member is not None and member.state == "clipped" else LISTED
    if member is not None:
        return ("entered" if member.state == "clipped" else member.state), recomputed
    if one.number in made.placed:
        return "no value", TOO_FEW
    return "not known", f"{name_of(one.node)} is {one.node.state}"


def _coadd_check(pixel: Pixel, made: _Found, product: ProductTables | None, record: Record) -> Check:
    if product is None:
        return not_done("the file is gone")
    if not product.kernel or not product.rows:
        return not_done("the file does not say how its frames were put on the grid")
    if made.missing:
        return not_done(f"of the frames there, {', '.join(made.missing)}")
    method = record["recipe"]["parameters"]["method"]["value"]
    found = list(made.members.values())
    entered = [one for one in found if one.state == "entered"]
    masked = [one for one in found if one.state == "masked"]
    text, value = _stacked(entered, masked, method, len(found))
    largest = max([abs(one.value) for one in entered or masked] or [0.0])
    clipped = {one.number for one in found if one.state == "clipped"}
    problem = "" if clipped == product.clipped else "the table CLIPPED names other frames"
    return Check(text, value, pixel.value, ROUNDING * largest, problem)


def _stacked(
    entered: Sequence[Member], masked: Sequence[Member], method: str, count: int
) -> tuple[str, float]:
    """What frames give together, in the order and the precision of `pixels.coadd`, and what was done."""
    if not entered:
        if not masked:
            return "no frame has a value there", 0.0
        light = [one.value for one in masked if one.mask & LIGHT]
        if not light:
            return f"no good value there, of {count}", 0.0
        return f"mean of what is saturated, {len(light)} of {count}", float(
            np.float32(sum(light) / len(light))
        )
    if method == "median":
        values = np.array([one.value for one in entered], np.float32)
        return f"median, {len(entered)} of {count}", float(np.median(values))
    sums = total = 0.0
    for one in entered:
        total += one.weight
        sums += one.weight * one.value
    return f"weighted mean, {len(entered)} of {count}", float(np.float32(sums / total))


def _coadd_notes(
    pixel: Pixel,
    frames: Sequence[FrameThere],
    on: Sequence[FrameThere],
    made: _Found,
    product: ProductTables | None,
) -> Iterator[str]:
    away = sum(one.at is not None for one in frames) - len(on)
    if away:
        yield f"{away} of its {len(frames)} frames are elsewhere"
    lost = [name_of(one.node) for one in frames if one.at is None]
    if lost:
        yield f"where {', '.join(lost[:3])} lies is not known: the solution that was used is gone" + (
            f", and so for {len(lost) - 3} more" if len(lost) > 3 else ""
        )
    if product is None or made.missing or not made.members or pixel.window is None:
        return
    entered = [one for one in made.members.values() if one.state == "entered"]
    count = pixel.window.value("COUNT")
    if count is not None and int(count) != len(entered):
        yield f"its COUNT is {int(count)}, and {len(entered)} frames enter"
