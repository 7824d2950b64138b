"""Pixels on a grid of the sky: which frames are there, where in each, what entered, and the value made again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..coadd.coadd import How, Member, members
from ..coadd.inputs import CoaddFrame, MeshSky, frame_of_fits, mesh_sky
from ..coadd.layers import Level, Placed, Regridding, place
from ..errors import AweError, BadHeader, NoMatch
from ..fits import open_fits
from ..frame import Frame, Table
from ..kinds.regrid import RegridParams, grid_of, places_of, prepared, scale_of, system_of
from ..kinds.zeropoint import exptime_of
from ..params import params_of
from ..pixels.coadd import Stacking
from ..pixels.mask import Bit
from ..pixels.resample import resample
from ..record import Record
from ..sky.grid import Grid, grid_of_cards
from ..sky.readwcs import read_wcs
from ..sky.wcs import Wcs
from ..sky.writewcs import wcs_as_cards
from ..tracing.lineage import Node, Reference
from .arithmetic import ROUNDING, Check
from .values import THERE, OnGrid, Pixel, name_of

if TYPE_CHECKING:
    from ..fits import FitsFile

GRIDDED = ("coadd", "regrid")
# The role of what was put on the grid, and of what said where it belongs: how that was found is no
# matter of a pixel.
FRAMES, SOLUTIONS = "reduced", ("astrom", "zeropoint")
IDENTITY = ("instrument", "detector", "exposure")
# Frames whose edge is so near take part in the clip of a pixel beside them.
NEAR_PX = 16
RECOMPUTED = "made again from the reduced frames"
LISTED = "as the coadd's table CLIPPED says"

Resolve = Callable[[Reference], Node]


class Part(NamedTuple):
    """An input, its pixel (None: as a whole), what became of it, how that is known, and what it has on the grid."""

    reference: Reference
    node: Node
    x: float | None = None
    y: float | None = None
    word: str = ""
    by: str = ""
    placed: OnGrid | None = None


@dataclass(frozen=True, eq=False)
class Gridded:
    """The parts of a pixel on a grid, frames each before their solutions; the value made again; what is to be said."""

    parts: tuple[Part, ...]
    check: Check
    notes: tuple[str, ...] = ()


def gridded(pixel: Pixel, record: Record, resolve: Resolve) -> Gridded:
    """What a pixel of a coadd or a regridded frame was made of."""
    work = _regridded if pixel.node.kind == "regrid" else _coadded
    try:
        return work(pixel, record, resolve)
    except AweError as error:
        whole = tuple(Part(one, resolve(one)) for one in pixel.node.inputs)
        return Gridded(whole, _not_done(error.message))


def _not_done(why: str) -> Check:
    return Check("", problem=f"not done again: {why}")


# Frames and where the pixel is in them


@dataclass(frozen=True, eq=False)
class _Frame:
    """A frame of the product: its row in FRAMES (its number; empty if not known), and where the pixel is in it."""

    number: int
    reference: Reference
    node: Node
    row: Mapping[str, Any]
    solutions: Sequence[tuple[Reference, Node]]
    wcs: Wcs | None
    at: tuple[float, float] | None

    @property
    def reason(self) -> str:
        """Why it was left out."""
        return str(self.row.get("REASON") or "").strip()

    @property
    def shape(self) -> tuple[int, int] | None:
        ny, nx = self.node.meta.get("ny"), self.node.meta.get("nx")
        return (int(ny), int(nx)) if ny and nx else None

    def within(self, margin_px: float) -> bool:
        """Whether the pixel is in the frame, or so near to it."""
        if self.at is None:
            return False
        if self.shape is None:
            return True
        (x, y), (ny, nx) = self.at, self.shape
        return -margin_px <= x - 0.5 < nx + margin_px and -margin_px <= y - 0.5 < ny + margin_px

    def nearest(self) -> tuple[int, int]:
        """The pixel of the frame that is nearest to the place."""
        assert self.at is not None
        x, y = (math.floor(one + 0.5) for one in self.at)
        if self.shape is None:
            return x, y
        return min(max(x, 1), self.shape[1]), min(max(y, 1), self.shape[0])


def _name(meta: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(meta.get(one)).strip() for one in IDENTITY)


def _frames(
    inputs: Sequence[Reference], rows: Sequence[Mapping[str, Any]], resolve: Resolve, grid: Grid, x: int, y: int
) -> list[_Frame]:
    """The frames in the order of the rows (of the inputs, where there are none), with their solutions."""
    by_name: dict[tuple[str, ...], list[tuple[Reference, Node]]] = {}
    for one in inputs:
        if one.role in SOLUTIONS:
            by_name.setdefault(_name(one.meta), []).append((one, resolve(one)))
    numbers = {_name({key: row[key.upper()] for key in IDENTITY}): n for n, row in enumerate(rows)}
    place = grid.wcs.to_sky(float(x), float(y))
    found = []
    for one in inputs:
        if one.role != FRAMES:
            continue
        name = _name(one.meta)
        number = numbers.get(name, len(found) if not rows else -1)
        solutions = by_name.get(name, [])
        node = resolve(one)
        wcs = _system(node, solutions)
        at = None
        if wcs is not None:
            there = tuple(float(value) for value in wcs.to_pixel(*place))
            at = there if all(math.isfinite(value) for value in there) else (math.inf, math.inf)
        row = rows[number] if rows and number >= 0 else {}
        found.append(_Frame(number, one, node, row, solutions, wcs, at))
    return sorted(found, key=lambda one: one.number)


def _system(node: Node, solutions: Sequence[tuple[Reference, Node]]) -> Wcs | None:
    """The coordinate system that a frame was put on the grid with; None if it is not known."""
    solved = [one for reference, one in solutions if reference.role == "astrom"]
    cards = solved[0].meta.get("wcs") if solved else node.meta.get("wcs")
    if not cards:
        return None
    try:
        return read_wcs(dict(cards))
    except BadHeader:
        return None


def _parts_of(frame: _Frame, word: str, by: str, placed: OnGrid | None) -> Iterator[Part]:
    """A frame at its nearest pixel, and the solutions that put it there."""
    x, y = frame.nearest()
    yield Part(frame.reference, frame.node, x, y, word, by, placed)
    for reference, node in frame.solutions:
        yield Part(reference, node)


def _grid_of_product(node: Node) -> Grid:
    """The grid of a product's pixels, as its record says it."""
    cards = node.meta.get("wcs")
    if not cards:
        raise BadHeader(f"{node.path}: its record has no coordinate system")
    return grid_of_cards({"NAXIS1": node.meta.get("nx"), "NAXIS2": node.meta.get("ny"), **cards})


# Coadds


@dataclass(frozen=True, eq=False)
class _Product:
    """What the file of a product says of itself: kernel, rows of FRAMES, and frames clipped at the pixel."""

    kernel: str = ""
    rows: Sequence[Mapping[str, Any]] = ()
    clipped: frozenset[int] = frozenset()


def _product(node: Node, x: int, y: int) -> _Product | None:
    """The tables of a product; None where its file is gone."""
    if node.state not in THERE:
        return None
    with open_fits(node.path) as fits:
        kernel = str(fits.hdus[0].header.get("KERNEL") or "")
        tables = {hdu.name: hdu.index for hdu in fits.hdus if hdu.is_table}
        if "FRAMES" not in tables:
            return _Product(kernel)
        columns = {name: column.tolist() for name, column in fits.table(tables["FRAMES"]).items()}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        clipped = fits.table(tables["CLIPPED"]) if "CLIPPED" in tables else {}
    if not clipped:
        return _Product(kernel, rows)
    here = (clipped["Y"] == y) & (clipped["X"] == x)
    return _Product(kernel, rows, frozenset(clipped["FRAME"][here].tolist()))


@dataclass
class _Found:
    """What the frames on a pixel have there, and what became of them, by number."""

    placed: dict[int, OnGrid] = field(default_factory=dict)
    members: dict[int, Member] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def _coadded(pixel: Pixel, record: Record, resolve: Resolve) -> Gridded:
    node, (x, y) = pixel.node, _whole(pixel)
    grid, product = _grid_of_product(node), _product(node, x, y)
    rows = product.rows if product else ()
    frames = _frames(node.inputs, rows, resolve, grid, x, y)
    on = [one for one in frames if one.within(0)]
    made = _Found()
    if product is not None and product.kernel and rows:
        _make_again(frames, grid, product, record, (x, y), made)
    parts: list[Part] = []
    for one in on:
        word, by = _word(one, made, product)
        placed = made.placed.get(one.number) or _only_placed(one)
        parts += _parts_of(one, word, by, placed)
    check = _coadd_check(pixel, made, product, record)
    return Gridded(tuple(parts), check, tuple(_coadd_notes(pixel, frames, on, made, product)))


def _whole(pixel: Pixel) -> tuple[int, int]:
    assert pixel.x is not None and pixel.y is not None
    return round(pixel.x), round(pixel.y)


def _only_placed(one: _Frame) -> OnGrid:
    assert one.at is not None
    known = {name: one.row.get(name.upper()) for name in ("scale", "level")}
    return OnGrid(*one.at, scale=known["scale"], level=known["level"])


def _make_again(
    frames: Sequence[_Frame],
    grid: Grid,
    product: _Product,
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
        opened: dict[int, tuple[_Frame, FitsFile, Placed]] = {}
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
                opened[one.number] = one, fits, replace(placed, level=Level(one.row["LEVEL"]))
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


def _coadd_frame(one: _Frame, fits: FitsFile, values: Mapping[str, Any]) -> CoaddFrame:
    assert one.wcs is not None
    frame = frame_of_fits(name_of(one.node), fits, one.wcs, scale=one.row["SCALE"])
    if values["background"] == "leave":
        return frame
    if values["background"] == "match":
        return replace(frame, sky=one.row["SKY_ADU"])
    return replace(frame, sky=mesh_sky(frame, values["sky_mesh"]))


def _at_pixel(
    one: _Frame,
    fits: FitsFile,
    placed: Placed,
    at: tuple[int, int],
    member: Member | None,
    kernel: str,
) -> OnGrid:
    """What a frame has at a pixel (row, column from 0) of the grid."""
    row, column = at[0] - placed.origin[0], at[1] - placed.origin[1]
    spans = (row, row + 1), (column, column + 1)
    (top, bottom), (left, right) = placed.map.window
    if not (top <= row < bottom and left <= column < right):
        return _only_placed(one)
    x, y = (float(values[0, 0]) + 1 for values in placed.map.at(*spans))
    nearest = one.nearest()
    sky = placed.frame.sky
    known = OnGrid(
        x,
        y,
        kernel=kernel,
        sky=_sky_at(sky, nearest) if isinstance(sky, MeshSky) else float(sky),
        scale=placed.frame.scale,
        area=float(placed.map.areas(*spans)[0, 0]),
        level=placed.level.constant,
    )
    if member is None:
        return known
    beside = _beside(_mask_of(fits), (x, y), nearest, member.mask)
    return replace(known, value=member.value, weight=member.weight, mask=member.mask, beside=beside)


def _sky_at(sky: MeshSky, nearest: tuple[int, int]) -> float:
    return float(sky.rows(nearest[1] - 1, nearest[1])[0, nearest[0] - 1])


ReadBits = Callable[[int, int], int]


def _mask_of(fits: FitsFile) -> ReadBits:
    """What gives the bits of a pixel of a frame, 0 beside it."""
    plane = next((hdu for hdu in fits.hdus if hdu.is_image and hdu.name == "MASK"), None)

    def bits(x: int, y: int) -> int:
        if plane is None or not (1 <= x <= plane.shape[1] and 1 <= y <= plane.shape[0]):
            return 0
        return int(fits.rows(plane.index, y - 1, y, x - 1, x)[0, 0])

    return bits


def _beside(
    bits: ReadBits, at: tuple[float, float], nearest: tuple[int, int], mask: int
) -> tuple[tuple[int, int, int], ...]:
    """Of the four pixels around a place those that brought bits which the nearest one has not."""
    wanted = mask & ~bits(*nearest)
    x0, y0 = (math.floor(one) for one in at)
    around = [(x, y) for y in (y0, y0 + 1) for x in (x0, x0 + 1) if (x, y) != nearest]
    return tuple((x, y, bits(x, y) & wanted) for x, y in around if bits(x, y) & wanted) if wanted else ()


def _word(one: _Frame, made: _Found, product: _Product | None) -> tuple[str, str]:
    """What became of a frame at the pixel, and how that is known."""
    if one.reason:
        return "left out", one.reason
    if product is None:
        return "not known", "the file is gone, and its tables"
    member = made.members.get(one.number)
    if one.number in product.clipped:
        return "clipped", RECOMPUTED if member is not None and member.state == "clipped" else LISTED
    if member is not None:
        return ("entered" if member.state == "clipped" else member.state), RECOMPUTED
    if one.number in made.placed:
        return "no value", "too few of its good pixels are around the place"
    return "not known", f"{name_of(one.node)} is {one.node.state}"


def _coadd_check(pixel: Pixel, made: _Found, product: _Product | None, record: Record) -> Check:
    if product is None:
        return _not_done("the file is gone")
    if not product.kernel or not product.rows:
        return _not_done("the file does not say how its frames were put on the grid")
    if made.missing:
        return _not_done(f"of the frames there, {', '.join(made.missing)}")
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
        mean = sum(one.value for one in masked) / len(masked)
        return f"mean of what is masked, {len(masked)} of {count}", float(np.float32(mean))
    if method == "median":
        values = np.array([one.value for one in entered], np.float32)
        return f"median, {len(entered)} of {count}", float(np.median(values))
    sums = total = 0.0
    for one in entered:
        total += one.weight
        sums += one.weight * one.value
    return f"weighted mean, {len(entered)} of {count}", float(np.float32(sums / total))


def _coadd_notes(
    pixel: Pixel, frames: Sequence[_Frame], on: Sequence[_Frame], made: _Found, product: _Product | None
) -> Iterator[str]:
    away = sum(one.at is not None for one in frames) - len(on)
    if away:
        yield f"{away} of its {len(frames)} frames are not there"
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


# Regridded frames


def _regridded(pixel: Pixel, record: Record, resolve: Resolve) -> Gridded:
    node, at = pixel.node, _whole(pixel)
    frames = _frames(node.inputs, (), resolve, _grid_of_product(node), *at)
    if len(frames) != 1:
        raise NoMatch(f"{len(frames)} frames were put on the grid")
    (one,) = frames
    if one.at is None:
        raise NoMatch(f"where {name_of(one.node)} lies is not known: the solution that was used is gone")
    if not one.within(NEAR_PX):
        return Gridded((), _not_done("the frame is not there"), ("the frame is not there",))
    product = _product(node, *at)
    missing = one.node.state not in THERE
    if missing or product is None or not product.kernel:
        why = f"{name_of(one.node)} is {one.node.state}" if missing else "the file is gone"
        parts = tuple(_parts_of(one, "not known", why, _only_placed(one)))
        return Gridded(parts, _not_done(why))
    placed = _regrid_again(pixel, one, record, product.kernel)
    word, by = _regrid_word(placed)
    text = "no value" if word == "no value" else "the frame at that place"
    check = Check(text, placed.value, pixel.value, ROUNDING * abs(placed.value or 0.0))
    return Gridded(tuple(_parts_of(one, word, by, placed)), check)


def _regrid_word(placed: OnGrid) -> tuple[str, str]:
    if placed.weight:
        return "entered", RECOMPUTED
    if (placed.mask or 0) & ~int(Bit.OUTSIDE):
        return "masked", RECOMPUTED
    return "no value", "too few of its good pixels are around the place"


def _regrid_again(pixel: Pixel, one: _Frame, record: Record, kernel: str) -> OnGrid:
    """Interpolate the one pixel again, from the whole frame, as the recipe did."""
    at, params = _whole(pixel), _params(record)
    with open_fits(one.node.path) as fits:
        named = {hdu.name or "SCI": hdu.index for hdu in fits.hdus if hdu.is_image}
        planes = [fits.image(named[name]) if name in named else None for name in ("WEIGHT", "MASK")]
        meta = {**one.node.meta, **one.reference.meta}
        frame = Frame(fits.image(fits.hdus[0].index), *planes, meta)
        bits = _mask_of(fits)
        solved = {reference.role: (reference, other) for reference, other in one.solutions}
        astrom = Table({}, solved["astrom"][1].meta) if "astrom" in solved else None
        wcs, _ = system_of(frame, astrom)
        grid, name = grid_of(params.grid, wcs, frame)
        places = places_of(grid, name, wcs, frame)
        if wcs_as_cards(places.part.wcs, shape=places.part.shape) != pixel.node.meta["wcs"]:
            raise NoMatch(f"{name} gives other pixels now")
        zero = {**solved["zeropoint"][1].meta, **solved["zeropoint"][0].meta} if "zeropoint" in solved else {}
        scale = scale_of(zero.get("zeropoint_mag"), zero.get("zeropoint_band"), exptime_of(meta))
        (top, _), (left, _) = places.map.window
        rows, columns = ((start + n - 1, start + n) for start, n in ((top, at[1]), (left, at[0])))
        ready = prepared(frame, params)
        made = resample(
            ready.data,
            places.map,
            weight=ready.weight,
            mask=ready.mask,
            kernel_name=kernel,
            scale=scale,
            conserve="flux",
            rows=rows,
            columns=columns,
        )
        x, y = (float(values[0, 0]) + 1 for values in places.map.at(rows, columns))
        mask, nearest = int(made.mask[0, 0]), one.nearest()
        return OnGrid(
            x,
            y,
            float(made.data[0, 0]),
            float(made.weight[0, 0]),
            mask,
            kernel,
            _regrid_sky(one, fits, params, nearest),
            scale,
            float(places.map.areas(rows, columns)[0, 0]),
            0.0,
            _beside(bits, (x, y), nearest, mask),
        )


def _regrid_sky(one: _Frame, fits: FitsFile, params: RegridParams, nearest: tuple[int, int]) -> float | None:
    """The background that was subtracted at the nearest pixel; None where it is not known."""
    if params.background != "subtract":
        return 0.0
    assert one.wcs is not None
    names = {hdu.name for hdu in fits.hdus}
    if "WEIGHT" not in names:
        return None
    return _sky_at(mesh_sky(frame_of_fits(name_of(one.node), fits, one.wcs), params.sky_mesh), nearest)


def _params(record: Record) -> RegridParams:
    """The parameters that the record says."""
    said = record["recipe"]["parameters"]
    return RegridParams(
        **{one.name: said[one.name]["value"] for one in params_of(RegridParams) if one.name in said}
    )
