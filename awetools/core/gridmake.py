"""Sky grids from what people say: around frames, about a place, in tiles over a region."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .errors import BadHeader, BadValue, NoMatch
from .files import Address
from .gridstore import NamedGrid, check_name
from .meta import on_grid
from .sky.gridtext import GridText, fitted, parse_grid
from .sky.projections import CONES, read_word, word_of
from .workspace import Workspace

if TYPE_CHECKING:
    from .planning.filling import Source
    from .sky.wcs import Wcs

# A file of more is taken for a mistake.
MOST_TILES = 200_000
# A box is on a tangent plane.
WIDEST_BOX_DEG = 120.0
TILE_NAMES = "t"


@dataclass(frozen=True)
class SkyFrame:
    """An image whose place on the sky is known: its name, coordinates, (rows, columns), and what they are from."""

    name: str
    wcs: Wcs
    shape: tuple[int, int]
    by: str

    @property
    def placed(self) -> tuple[Wcs, tuple[int, int]]:
        """As grids are fitted to it."""
        return self.wcs, self.shape


def frames_at(address: Address, workspace: Workspace) -> list[SkyFrame]:
    """The images at an address, by the newest solution of each, else by the header. NoMatch without coordinates."""
    from .batch import open_sources

    return [_frame(one, workspace) for one in open_sources(address, workspace)]


def _frame(source: Source, workspace: Workspace) -> SkyFrame:
    from .show import newest_of, wcs_of
    from .store import store_of

    own = store_of(source.address.path)
    stores = list(dict.fromkeys([*workspace.stores, *([own] if own else [])]))
    name = str(source.address)
    known = source.kind == "astrom" or on_grid(source.meta)
    solution = None if known or not stores else newest_of(source, "astrom", stores)
    wcs = None if solution is None else wcs_of(solution.meta, str(solution.path))
    by = str(solution.path) if solution is not None and wcs is not None else name
    wcs = wcs or wcs_of(source.meta, name)
    if wcs is None:
        raise NoMatch(f"{name}: nothing says where it is on the sky", hint="awe-astrom")
    return SkyFrame(name, wcs, _shape(source), by)


def _shape(source: Source) -> tuple[int, int]:
    from .fits import open_fits

    nx, ny = source.meta.get("nx"), source.meta.get("ny")
    if nx and ny and not on_grid(source.meta):
        return int(ny), int(nx)
    with open_fits(source.address.path) as fits:
        image = next((one for one in fits.hdus if one.is_image), None)
        if image is None:
            raise BadHeader(f"{source.address}: its size in pixels is not known")
        return int(image.shape[0]), int(image.shape[1])


# Grids


def grid_about(
    name: str,
    ra_deg: float,
    dec_deg: float,
    scale_arcsec: float,
    size: tuple[int, int],
    projection: str = "TAN",
    rotation_deg: float = 0.0,
) -> NamedGrid:
    """A grid with its middle at a place; size: columns and rows. Raises BadValue."""
    check_name(name)
    columns, rows = size
    if abs(dec_deg) >= 1:
        # The standard parallel of a cone, if it is not said.
        projection = word_of(*read_word(projection, dict.fromkeys(CONES, round(dec_deg, 2))))
    made = GridText(projection, ra_deg, dec_deg, scale_arcsec, columns, rows, (0.5, 0.5), rotation_deg)
    text = _checked(replace(made, crpix=(0.5 * (columns + 1), 0.5 * (rows + 1))))
    return NamedGrid(name, str(text), None, f"a place: {ra_deg!r},{dec_deg!r}")


def grid_around(
    name: str,
    frames: Sequence[SkyFrame],
    scale_arcsec: float | None = None,
    projection: str = "TAN",
    margin_px: int = 0,
) -> NamedGrid:
    """The grid, north up, that just holds all of some frames. Raises as `gridtext.fitted`."""
    check_name(name)
    made = fitted([one.placed for one in frames], scale_arcsec, projection, margin_px)
    return NamedGrid(name, str(_checked(made)), None, _of(frames))


def _of(frames: Sequence[SkyFrame]) -> str:
    return f"{len(frames)} frames: {', '.join(one.name for one in frames[:100])}"


def _checked(text: GridText) -> GridText:
    """The grid as it will be read again."""
    return parse_grid(str(text))


# Tiles


@dataclass(frozen=True)
class Tiles:
    """How tiles are cut: scale, pixels each way, and by how many neighbours overlap."""

    scale_arcsec: float
    size_px: int
    overlap_px: int


def region_of_box(
    ra_deg: float, dec_deg: float, width_deg: float, height_deg: float, scale: float
) -> GridText:
    """A box on the sky as a grid on its tangent plane. Raises BadValue."""
    if not (0 < width_deg <= WIDEST_BOX_DEG and 0 < height_deg <= WIDEST_BOX_DEG):
        raise BadValue(
            f"a box of {width_deg:g} x {height_deg:g} degrees: up to {WIDEST_BOX_DEG:g} each way",
            hint="without a box the tiles are all over the sky",
        )
    sides = [2 * math.degrees(math.tan(math.radians(one / 2))) for one in (width_deg, height_deg)]
    columns, rows = (max(1, math.ceil(one * 3600 / scale)) for one in sides)
    middle = 0.5 * (columns + 1), 0.5 * (rows + 1)
    return GridText("TAN", ra_deg % 360, dec_deg, scale, columns, rows, middle)


def tiles_each_tangent(
    name: str, how: Tiles, regions: Sequence[tuple[Wcs, tuple[int, int]]], of: str
) -> NamedGrid:
    """Tiles with a tangent point each, in rings of declination; those with a part of a region, or all.

    Their names depend on scale, size and overlap alone. Raises BadValue.
    """
    from .sky.grid import Tiling
    from .sky.gridtext import text_of_grid

    check_name(name)
    tiling = Tiling(TILE_NAMES, how.scale_arcsec, how.size_px, how.overlap_px)
    if regions:
        step = how.scale_arcsec * (how.size_px - how.overlap_px)
        # On a tangent plane a region is larger than on the sky: three times, for the widest box.
        areas = [wcs.pixel_scale_arcsec**2 * shape[0] * shape[1] / 4 for wcs, shape in regions]
        _refuse_many(math.floor(max(areas) / step**2))
        found = tiling.of_frames(regions)
    else:
        count = (
            sum(tiling.length(ring) for ring in range(tiling.rings + 1)) if tiling.rings < 2000 else math.inf
        )
        _refuse_many(count)
        found = dict(tiling.around(0.0, 90.0, 180.0))
    _refuse_many(len(found))
    start = f"{TILE_NAMES}-"
    tiles = {tile.removeprefix(start): str(_rounded(text_of_grid(grid))) for tile, grid in found.items()}
    return NamedGrid(name, "", tiles, of or "all of the sky")


def _rounded(tile: GridText) -> GridText:
    """A tile whose tangent point is at some digits that one can type; it moves by 2 mas at most."""
    return _checked(replace(tile, ra_deg=round(tile.ra_deg, 6) % 360, dec_deg=round(tile.dec_deg, 6)))


def tiles_one_tangent(name: str, how: Tiles, region: GridText, of: str) -> NamedGrid:
    """Tiles COLUMN-ROW that are cut out of one plane over a region: what is in two of them has the same pixels.

    Raises BadValue.
    """
    check_name(name)
    step = how.size_px - how.overlap_px
    if not (0 <= how.overlap_px < how.size_px):
        raise BadValue(f"tiles of {how.size_px} pixels that overlap by {how.overlap_px}")
    counts = [max(1, math.ceil((length - how.overlap_px) / step)) for length in (region.columns, region.rows)]
    _refuse_many(counts[0] * counts[1])
    digits = [len(str(count)) for count in counts]
    # What the tiles have beyond the region is the same on all sides.
    begins = [
        (length - how.overlap_px - count * step) // 2
        for length, count in zip((region.columns, region.rows), counts, strict=True)
    ]
    tiles = {}
    for row in range(counts[1]):
        for column in range(counts[0]):
            x0, y0 = begins[0] + column * step, begins[1] + row * step
            crpix = region.crpix[0] - x0, region.crpix[1] - y0
            tile = replace(region, columns=how.size_px, rows=how.size_px, crpix=crpix)
            tiles[f"{column + 1:0{digits[0]}d}-{row + 1:0{digits[1]}d}"] = str(_checked(tile))
    return NamedGrid(name, "", tiles, of)


def _refuse_many(count: float) -> None:
    if count > MOST_TILES:
        raise BadValue(
            f"{count} tiles: {MOST_TILES} at most", hint="--box RA,DEC,WIDTH,HEIGHT, or larger tiles"
        )


def about_grid(text: str) -> dict[str, Any]:
    """What people want to know of a grid: its middle, corners and size on the sky."""
    one = parse_grid(text)
    grid = one.grid()
    ra, dec = grid.centre_deg
    x, y = [0.5, one.columns + 0.5, one.columns + 0.5, 0.5], [0.5, 0.5, one.rows + 0.5, one.rows + 0.5]
    corners = zip(*(values.tolist() for values in grid.wcs.to_sky(x, y)), strict=True)
    return {
        "grid": str(one),
        "projection": one.projection,
        "columns": one.columns,
        "rows": one.rows,
        "scale_arcsec": one.scale_arcsec,
        "rotation_deg": one.rotation_deg,
        "ra_deg": round(ra, 7) if math.isfinite(ra) else None,
        "dec_deg": round(dec, 7) if math.isfinite(dec) else None,
        "width_arcmin": round(one.columns * one.scale_arcsec / 60, 4),
        "height_arcmin": round(one.rows * one.scale_arcsec / 60, 4),
        "corners_deg": [
            [round(a, 7), round(b, 7)] if math.isfinite(a) and math.isfinite(b) else None for a, b in corners
        ],
    }
