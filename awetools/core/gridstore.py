"""The named sky grids of stores, a small file each, and which grid the parameter of a kind means."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import (
    AweError,
    BadValue,
    NoStore,
    NoSuchFile,
    Protected,
    Unavailable,
    Unreadable,
    UsageError,
    WouldOverwrite,
    nearest,
)
from .files import make_directory, write_whole
from .meta import ON_GRID
from .params import Resolved
from .sky.gridtext import GridText, parse_grid
from .store import Store

if TYPE_CHECKING:
    from .kind import Kind

PARAMETER, AUTO = "grid", "auto"
# Projections whose pixels are nowhere much larger on the sky than in the middle.
PLANES = ("TAN", "SIN", "STG", "ARC", "ZEA", "CAR")
FOLDER, ENDING, VERSION = "grids", ".json", 1
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.+-]{0,99}")


@dataclass(frozen=True)
class NamedGrid:
    """A grid, or the tiles of a survey by their names, and what they were made from, in words."""

    name: str
    grid: str = ""
    tiles: Mapping[str, str] | None = None
    made_from: str = ""

    def items(self) -> Iterator[tuple[str, str]]:
        """What a parameter calls each grid of it, and its text."""
        if self.tiles is None:
            yield self.name, self.grid
        else:
            yield from ((f"{self.name}/{tile}", text) for tile, text in self.tiles.items())

    def text(self, tile: str = "") -> str:
        """The text of the grid, or of a tile. Raises UsageError, NoSuchFile."""
        if self.tiles is None:
            if tile:
                raise UsageError(f"grid {self.name} has no tiles: {self.name}/{tile:.50}", hint=self.name)
            return self.grid
        if not tile:
            raise UsageError(
                f"{self.name} has {len(self.tiles)} tiles: which one?",
                hint=f"awe-grid which FILE..., and then {self.name}/TILE; awe-make coadd --grid {self.name} makes each",
            )
        if tile not in self.tiles:
            raise NoSuchFile(
                f"{self.name} has no tile {tile!r:.50}{nearest(tile, list(self.tiles))}",
                hint=f"awe-grid tiles {self.name}",
            )
        return self.tiles[tile]


# Files


def place_of(store: Store, name: str) -> Path:
    """Where a store has the grid of a name, if it has one."""
    return store.awe / FOLDER / f"{name}{ENDING}"


def check_name(name: str) -> str:
    """The name as it is; raises BadValue for one that no grid can have."""
    if not _NAME.fullmatch(name) or name == AUTO:
        raise BadValue(
            f"{name!r:.120} is no name of a grid: it begins with a letter, has letters, digits and . _ + -, "
            f"at most 100, and is not {AUTO}",
            hint="awe-grid make m51 --fit FILE...",
        )
    return name


def write_grid(store: Store, made: NamedGrid, force: bool = False) -> Path:
    """Write a grid, whole or not at all. Raises WouldOverwrite unless it is to be replaced, Unavailable."""
    path = place_of(store, check_name(made.name))
    if os.path.lexists(path) and not force:
        raise WouldOverwrite(f"{path}: exists already", hint="--force replaces it, or another name")
    about: dict[str, Any] = {"version": VERSION, "name": made.name, "made_from": made.made_from}
    about |= {"grid": made.grid} if made.tiles is None else {"tiles": dict(made.tiles)}
    make_directory(path.parent)
    if path.is_dir():
        raise WouldOverwrite(f"{path}: is a directory")
    write_whole(path, (json.dumps(about, indent=1) + "\n").encode())
    return path


def read_grid(path: Path) -> NamedGrid:
    """The grid of a file. Raises NoSuchFile, Unreadable (also for what is no grid)."""
    try:
        about = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise NoSuchFile(f"{path}: there is no such grid", hint="awe-grid list") from None
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{path}: is not a grid: {error}", hint=_again(path)) from None
    fault = _fault(about)
    if fault:
        raise Unreadable(f"{path}: is not a grid: {fault}", hint=_again(path))
    return NamedGrid(
        path.name.removesuffix(ENDING), about.get("grid", ""), about.get("tiles"), about["made_from"]
    )


def _again(path: Path) -> str:
    return f"awe-grid make {path.name.removesuffix(ENDING)} --force ..."


def _fault(about: object) -> str:
    """What is wrong with the object of a file, in words; its texts are looked at when they are used."""
    if not isinstance(about, dict):
        return "no JSON object"
    if about.get("version") != VERSION:
        return f"its version is {about.get('version')!r}, and {VERSION} is known"
    if not isinstance(about.get("made_from"), str):
        return "it does not say what it was made from"
    tiles = about.get("tiles")
    if isinstance(tiles, dict) and tiles:
        return "" if all(isinstance(one, str) for one in tiles.values()) else "a tile is no text"
    return "" if isinstance(about.get("grid"), str) else "it has neither a grid nor tiles"


def grids(stores: Sequence[Store]) -> Iterator[tuple[Path, bool]]:
    """Every grid of the stores, with whether its name stands for it, or for one that comes first."""
    seen: set[str] = set()
    for store in stores:
        folder = store.awe / FOLDER
        try:
            names = sorted(one.name for one in os.scandir(folder))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise Unavailable(f"{folder}: {error.strerror}") from None
        for name in names:
            if name.endswith(ENDING) and not name.startswith("."):
                yield folder / name, name not in seen
                seen.add(name)


def find_grid(name: str, stores: Sequence[Store]) -> NamedGrid:
    """The grid of a name, of the nearest store. Raises NoStore, BadValue, NoSuchFile, Unreadable."""
    if not stores:
        raise NoStore(f"grid {name!r:.100}: there is no store here, and AWE_PATH names none", hint="awe-init")
    check_name(name)
    for store in stores:
        path = place_of(store, name)
        if os.path.lexists(path):
            return read_grid(path)
    names = sorted({path.name.removesuffix(ENDING) for path, _ in grids(stores)})
    there = f"there are: {', '.join(names[:20])}" if names else "there is none at all"
    raise NoSuchFile(
        f"no grid {name!r}{nearest(name, names)} in {', '.join(str(one.root) for one in stores)}; {there}",
        hint=f"awe-grid make {name} --fit FILE..., or the text of a grid: see awe-grid --help",
    )


def remove_grid(name: str, stores: Sequence[Store], dry_run: bool = False) -> Path:
    """Remove a grid of the first store. Raises as `find_grid`, Protected where another store has it, Unavailable."""
    if not stores:
        find_grid(name, stores)
    path = place_of(stores[0], check_name(name))
    if not os.path.lexists(path):
        find_grid(name, stores)
        raise Protected(
            f"grid {name}: is of a store that is only read; written is {stores[0].root}",
            hint=f"AWE_PATH=STORE awe-grid remove {name}",
        )
    if not dry_run:
        try:
            path.unlink()
        except OSError as error:
            raise Unavailable(f"{path}: cannot be removed: {error.strerror}") from None
    return path


# What a parameter means


def grid_meant(value: str, stores: Sequence[Store]) -> tuple[str, str]:
    """The text of the grid that a value means, and where it was found ('' for a text).

    value: a text, NAME or NAME/TILE. Raises BadValue, NoSuchFile, UsageError, NoStore, Unreadable.
    """
    if len(value.split()) > 1:
        return str(parse_grid(value)), ""
    name, _, tile = value.strip().partition("/")
    text = find_grid(name, stores).text(tile)
    return str(parse_grid(text)), f"grid {value.strip()}"


def with_grid(
    kind: Kind, params: Resolved, stores: Sequence[Store]
) -> tuple[Resolved, dict[str, str | None]]:
    """The parameters with the text of the grid that they name, and what that does to the meta of the product.

    A kind without the parameter `grid` has neither. `auto` stays: the recipe fits the frames.
    """
    if PARAMETER not in params.origins:
        return params, {}
    value = getattr(params.values, PARAMETER).strip()
    text, origin = (AUTO, "") if value == AUTO else grid_meant(value, stores)
    values = replace(params.values, **{PARAMETER: text})
    origins = {**params.origins, PARAMETER: origin or params.origins[PARAMETER]}
    own: dict[str, str | None] = {"window": f"{ON_GRID}{text}"}
    if text != AUTO:
        # With `auto` the names of what is on a grid already stay with it.
        name, _, tile = value.partition("/") if origin else ("", "", "")
        own |= {"grid": name or None, "tile": tile or None}
    return Resolved(values, origins), own


def file_meant(params: Resolved, stores: Sequence[Store]) -> Path | None:
    """The file of the grid that the parameters got their text from; None where no name was given."""
    found, _, name = params.origins.get(PARAMETER, "").partition(" ")
    if found != "grid":
        return None
    paths = (place_of(store, name.partition("/")[0]) for store in stores)
    return next((path for path in paths if path.exists()), None)


# Which grids hold a place


def holding_place(items: Sequence[tuple[str, str]], ra_deg: float, dec_deg: float) -> list[str]:
    """The names of the grids that have a pixel at a place."""
    found = []
    for name, text in near_place(items, ra_deg, dec_deg, 0.0):
        x, y = (float(one) for one in text.grid().wcs.to_pixel(ra_deg, dec_deg))
        if 0.5 <= x < text.columns + 0.5 and 0.5 <= y < text.rows + 0.5:
            found.append(name)
    return found


def holding_frame(items: Sequence[tuple[str, str]], wcs: Any, shape: tuple[int, int]) -> list[str]:
    """The names of the grids on which an image has a pixel."""
    import numpy as np

    from .sky.grid import NOWHERE, window_of
    from .sky.sphere import separation_arcsec

    ny, nx = shape
    x, y = np.meshgrid(np.linspace(0.5, nx + 0.5, 9), np.linspace(0.5, ny + 0.5, 9))
    ra, dec = wcs.to_sky(x, y)
    middle = float(ra[4, 4]), float(dec[4, 4])
    reach = float(np.nanmax(separation_arcsec(ra, dec, *middle))) / 3600
    return [
        name
        for name, text in near_place(items, *middle, reach)
        if window_of(text.grid(), wcs, shape) != NOWHERE
    ]


def near_place(
    items: Sequence[tuple[str, str]], ra_deg: float, dec_deg: float, reach_deg: float
) -> Iterator[tuple[str, GridText]]:
    """The grids whose middle is not too far from a place to hold a part of what reaches so far around it."""
    from .sky.sphere import separation_arcsec

    for name, text in items:
        with suppress(AweError):
            one = parse_grid(text)
            grid = one.grid()
            if grid.wcs.projection.code not in PLANES:
                # Of maps, a middle and a size do not tell what they show.
                yield name, one
                continue
            ra, dec = grid.centre_deg
            half = 0.5 * one.scale_arcsec * (one.columns**2 + one.rows**2) ** 0.5 / 3600
            away = float(separation_arcsec(ra, dec, ra_deg, dec_deg)) / 3600
            # A tangent plane shows less of the sky than its pixels would have at the middle, others may show more.
            if not away > 2 * half + reach_deg + 0.1:
                yield name, one
