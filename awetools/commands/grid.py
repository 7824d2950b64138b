"""`awe-grid`: named grids of the sky: made, listed, and asked which of them hold a place or a frame."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import AweError, NoMatch, UsageError, worst
from . import options
from .gridwords import GridWord, ProjectionWord
from .listing import print_list
from .messages import Messenger
from .runner import launch
from .tables import print_table

if TYPE_CHECKING:
    from ..core.gridmake import SkyFrame, Tiles
    from ..core.gridstore import NamedGrid
    from ..core.store import Store
    from ..core.workspace import Workspace

ACTIONS = ("make", "list", "show", "tiles", "which", "remove")
# Which options go with which action, besides those of all.
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "make": (
        *("fit", "centre", "scale", "size", "projection", "rotation", "margin"),
        *("tile_size", "overlap", "box", "common", "force", "dry_run", "null", "as_json"),
    ),
    "list": ("as_json",),
    "show": ("as_json",),
    "tiles": ("as_json",),
    "which": ("inside", "null", "as_json"),
    "remove": ("dry_run", "as_json"),
}
SPELLED = {"null": "-0", "dry_run": "-n", "as_json": "--json", "inside": "--in"}
LIST_COLUMNS = ("name", "tiles", "grid", "made_from", "in_force", "path")
SHORT = 60


@click.command(
    "grid",
    short_help="Name grids of the sky, and ask which of them hold a place or a frame.",
    context_settings=options.SETTINGS,
)
@click.argument("action", type=click.Choice(ACTIONS), metavar="[make|list|show|tiles|which|remove]")
@click.argument("words", nargs=-1, type=GridWord(), metavar="[NAME] [FILE...|RA,DEC]")
@click.option("--fit", is_flag=True, help="make: what just holds the frames FILE..., north up.")
@click.option("--centre", metavar="RA,DEC", help="make: the middle; degrees, or 13:29:53,+47:11:43.")
@click.option(
    "--scale",
    type=options.Finite(1e-4, 36_000),
    metavar="ARCSEC",
    help="make: of a pixel. [default with --fit: that of the frames]",
)
@click.option("--size", metavar="COLUMNSxROWS", help="make: pixels; one number makes a square.")
@click.option(
    "--projection",
    type=ProjectionWord(),
    metavar="CODE[:PV2_1=NUMBER,...]",
    help="make: any of the FITS standard. [default: TAN]",
)
@click.option(
    "--rotation",
    type=options.Finite(),
    metavar="DEG",
    help="make: of +y from north through east. [default: 0]",
)
@click.option(
    "--margin", type=click.IntRange(0), metavar="PX", help="make: pixels around the frames. [default: 0]"
)
@click.option("--tile-size", type=click.IntRange(1), metavar="PX", help="make: a survey in square tiles.")
@click.option(
    "--overlap", type=click.IntRange(0), metavar="PX", help="make: of neighbouring tiles. [default: 0]"
)
@click.option(
    "--box",
    metavar="RA,DEC,WIDTH,HEIGHT",
    help="make: tiles over this box, all in degrees. [default: over the frames, or all of the sky]",
)
@click.option(
    "--common", is_flag=True, help="make: one tangent plane for all tiles, rather than one for each."
)
@click.option("--in", "inside", metavar="NAME", help="which: look in this grid or survey alone.")
@click.option("--force", is_flag=True, help="make: replace a grid of the same name.")
@click.option("-n", "--dry-run", is_flag=True, help="make, remove: say what would be, and do nothing.")
@click.option("-0", "--null", "null", is_flag=True, help="Names on standard input end in NUL.")
@options.json_output
@options.common
@click.pass_obj
def command(messenger: Messenger, /, action: str, words: tuple[str, ...], **given: Any) -> int:
    """Keep grids of the sky in a store, by NAME: images of many frames are put on one of them.

    A grid is one line that says all of it:

    \b
      PROJECTION RA DEC SCALE COLUMNSxROWS X,Y ROTATION
      TAN 202.469600 47.195200 0.25 4096x4096 2048.5,2048.5 0

    PROJECTION is any of the FITS standard: TAN SIN STG ARC ZEA CAR, for all of the sky AIT MOL
    CEA HPX and others, those with parameters as COE:PV2_1=45. RA and Dec (ICRS, degrees) are at
    pixel X,Y; SCALE is in arcsec (CDELT); ROTATION is the direction of +y from north through
    east. X,Y (the middle) and ROTATION (0) may be left out. Wherever a grid is asked for (--grid
    of awe-regrid) such a text will do, or a NAME, or NAME/TILE. The text, not the name, goes on
    record: to remove a name harms nothing.

    \b
      make NAME --fit FILE...    what just holds some frames, by their newest solutions,
                                 else by their headers; without FILE, or with `-`, names
                                 are read from standard input
      make NAME --centre RA,DEC --scale ARCSEC --size COLUMNSxROWS
      make NAME --tile-size PX --overlap PX --scale ARCSEC
                                 a survey: tiles with a tangent point each over the sky,
                                 a --box, or (--fit) frames; --common: on one plane
      list                       all that there are
      show NAME[/TILE]           where it is
      tiles NAME                 a line a tile: NAME/TILE, and its text
      which RA,DEC|FILE...       the grids and tiles that hold a place, or a part of
                                 each frame; none is exit code 5
      remove NAME...             forget it

    Grids lie in .awe/grids of the first store of AWE_PATH; those of all stores are read, and
    of one name the nearest counts.

    \b
    Examples:
      awe-query reduced object=M51 | awe-grid make m51 --fit --scale 0.25
      awe-grid make deep --centre 10:00:28.6,+02:12:21 --scale 0.2 --size 20000
      awe-grid make sky --projection AIT --centre 0,0 --scale 60 --size 19460x9730
      awe-grid make kids --tile-size 4096 --overlap 200 --scale 0.2 --box 180,0,20,4
      awe-query reduced night=2017-12-20 | awe-grid which --in kids
    """
    _check_options(action, given)
    return _ACTIONS[action](messenger, words, given)


def _check_options(action: str, given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if value in (None, False, ()) or name in OPTIONS[action]:
            continue
        spelled = SPELLED.get(name, f"--{name.replace('_', '-')}")
        others = " and ".join(one for one in ACTIONS if name in OPTIONS[one])
        raise UsageError(f"{spelled} goes with {others}, not with {action}", hint="awe-grid --help")


def _stores() -> Sequence[Store]:
    from ..core.store import search_path
    from ..core.workspace import working_directory

    return search_path(working_directory())


def _found(name: str) -> tuple[NamedGrid, str]:
    """A grid and the tile that a name names besides ('' for none)."""
    from ..core.gridstore import find_grid

    name, _, tile = name.partition("/")
    return find_grid(name, _stores()), tile


# make


def _make(messenger: Messenger, words: Sequence[str], given: Mapping[str, Any]) -> int:
    from ..core.errors import NoStore
    from ..core.gridstore import check_name, place_of, write_grid

    if not words:
        raise UsageError("make what? a name first", hint="awe-grid make NAME --fit FILE...")
    stores = _stores()
    if not stores:
        raise NoStore("there is no store here, and AWE_PATH names none", hint="awe-init")
    made = _grid_of(messenger, check_name(words[0]), words[1:], given)
    if given["dry_run"]:
        path = place_of(stores[0], made.name)
        for name, text in made.items():
            options.print_line(_json(name, text) if given["as_json"] else f"{name}\t{text}")
        messenger.note(f"{path} would be made; nothing was")
        return 0
    path = write_grid(stores[0], made, given["force"])
    messenger.note(f"{made.name}: {made.grid or f'{len(made.tiles or ())} tiles'}")
    options.print_line(json.dumps(_about(path, made, True)) if given["as_json"] else str(path))
    return 0


def _json(name: str, text: str) -> str:
    return json.dumps({"name": name, "grid": text})


def _grid_of(messenger: Messenger, name: str, files: Sequence[str], given: Mapping[str, Any]) -> NamedGrid:
    from ..core.gridmake import grid_about, grid_around
    from ..core.sky.gridtext import size_of

    if given["tile_size"] is not None:
        return _survey(messenger, name, files, given)
    _refuse(given, ("overlap", "box", "common"), "goes with --tile-size")
    if given["fit"]:
        _refuse(given, ("centre", "size", "rotation"), "does not go with --fit")
        frames = _frames(messenger, files, given)
        return grid_around(name, frames, given["scale"], given["projection"] or "TAN", given["margin"] or 0)
    if files:
        raise UsageError(
            f"what is {files[0]!r:.100} for?", hint=f"awe-grid make {name} --fit {files[0]:.100}"
        )
    _refuse(given, ("margin",), "goes with --fit")
    missing = [f"--{one}" for one in ("centre", "scale", "size") if not given[one]]
    if missing:
        raise UsageError(
            f"{', '.join(missing)}: not said",
            hint=f"awe-grid make {name} --fit FILE..., or --centre --scale --size",
        )
    ra, dec = _place(given["centre"])
    size = size_of(given["size"])
    return grid_about(
        name, ra, dec, given["scale"], size, given["projection"] or "TAN", given["rotation"] or 0.0
    )


def _refuse(given: Mapping[str, Any], names: Sequence[str], why: str) -> None:
    for name in names:
        if given[name] not in (None, False):
            raise UsageError(f"--{name.replace('_', '-')} {why}", hint="awe-grid --help")


def _survey(messenger: Messenger, name: str, files: Sequence[str], given: Mapping[str, Any]) -> NamedGrid:
    from ..core.gridmake import Tiles, region_of_box, tiles_each_tangent, tiles_one_tangent

    _refuse(given, ("centre", "size", "rotation"), "does not go with --tile-size")
    if given["scale"] is None:
        raise UsageError("tiles need a --scale", hint="--scale 0.25")
    if bool(given["box"]) and (given["fit"] or files):
        raise UsageError("--box and frames: tiles over which of them?")
    how = Tiles(given["scale"], given["tile_size"], given["overlap"] or 0)
    if given["box"]:
        box, of = region_of_box(*_box(given["box"]), how.scale_arcsec), f"a box: {given['box']}"
        if given["common"]:
            return tiles_one_tangent(name, how, box, of)
        _refuse_projection(given)
        grid = box.grid()
        return tiles_each_tangent(name, how, [(grid.wcs, grid.shape)], of)
    if given["fit"]:
        return _survey_of_frames(name, how, _frames(messenger, files, given), given)
    if files:
        raise UsageError(f"what is {files[0]!r:.100} for?", hint="--fit: tiles over these frames")
    if given["common"]:
        raise UsageError("--common: one plane over which part of the sky?", hint="--box, or --fit FILE...")
    _refuse_projection(given)
    return tiles_each_tangent(name, how, [], "")


def _survey_of_frames(
    name: str, how: Tiles, frames: Sequence[SkyFrame], given: Mapping[str, Any]
) -> NamedGrid:
    from ..core.gridmake import grid_around, tiles_each_tangent, tiles_one_tangent
    from ..core.sky.gridtext import parse_grid

    around = grid_around(name, frames, how.scale_arcsec, given["projection"] or "TAN", given["margin"] or 0)
    if given["common"]:
        return tiles_one_tangent(name, how, parse_grid(around.grid), around.made_from)
    _refuse_projection(given)
    return tiles_each_tangent(name, how, [one.placed for one in frames], around.made_from)


def _refuse_projection(given: Mapping[str, Any]) -> None:
    if given["projection"] not in (None, "TAN"):
        raise UsageError(
            f"--projection {given['projection']}: tiles with a tangent point each are TAN", hint="--common"
        )


def _box(text: str) -> tuple[float, float, float, float]:
    """RA, Dec, width and height in degrees."""
    parts = text.split(",")
    try:
        width, height = (float(one) for one in parts[2:])
        ra, dec = _place(",".join(parts[:2]))
    except (ValueError, UsageError):
        raise UsageError(f"{text!r:.100} is not RA,DEC,WIDTH,HEIGHT", hint="--box 180,0,20,4") from None
    return ra, dec, width, height


def _place(text: str) -> tuple[float, float]:
    found = _as_place(text)
    if found is None:
        raise UsageError(f"{text!r:.100} is not RA,DEC", hint="202.47,47.2 or 13:29:53,+47:11:43")
    return found


def _as_place(text: str) -> tuple[float, float] | None:
    """RA and Dec in degrees, if a text says such."""
    from ..core.units import angle_deg

    parts = text.split(",")
    if len(parts) != 2:
        return None
    ra, dec = angle_deg(parts[0].strip(), "ra"), angle_deg(parts[1].strip())
    return None if ra is None or dec is None or abs(dec) > 90 else (ra % 360, dec)


def _frames(messenger: Messenger, files: Sequence[str], given: Mapping[str, Any]) -> list[SkyFrame]:
    """All frames of some files; those without coordinates are errors."""
    from ..core.workspace import here

    workspace = here()
    found: list[SkyFrame] = []
    for name in options.read_names(files, given["null"]):
        found += _frames_at(messenger, name, workspace)
    return found


def _frames_at(messenger: Messenger, name: str, workspace: Workspace) -> list[SkyFrame]:
    from ..core.files import parse_address
    from ..core.gridmake import frames_at

    found = frames_at(parse_address(name), workspace)
    for one in found:
        messenger.detail(f"{one.name}: by {one.by}")
    return found


# list, show, tiles


def _about(path: Path, made: NamedGrid, in_force: bool) -> dict[str, Any]:
    return {
        "name": made.name,
        "tiles": len(made.tiles) if made.tiles is not None else None,
        "grid": made.grid or None,
        "made_from": made.made_from,
        "in_force": in_force,
        "path": str(path),
    }


def _list(messenger: Messenger, words: Sequence[str], given: Mapping[str, Any]) -> int:
    from ..core.gridstore import grids, read_grid

    if words:
        raise UsageError(f"list takes no {words[0]!r:.100}", hint=f"awe-grid show {words[0]:.100}")

    def about(path: Path, in_force: bool) -> dict[str, Any]:
        return _about(path, read_grid(path), in_force)

    things = (partial(about, *one) for one in grids(_stores()))
    nothing = "there is no grid: awe-grid make NAME --fit FILE..."
    return print_list(messenger, things, LIST_COLUMNS, _text, given["as_json"], nothing)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)
    return text if len(text) <= SHORT or "/" in text[:1] else f"{text[: SHORT - 3]}..."


def _show(messenger: Messenger, words: Sequence[str], given: Mapping[str, Any]) -> int:
    from ..core.gridmake import about_grid

    if len(words) != 1:
        raise UsageError("show one grid", hint="awe-grid list")
    made, tile = _found(words[0])
    about: dict[str, Any] = {"name": words[0], "made_from": made.made_from}
    if made.tiles is not None and not tile:
        about |= {"tiles": len(made.tiles), "first": next(iter(made.tiles.values()))}
    else:
        about |= about_grid(made.text(tile))
    if given["as_json"]:
        options.print_line(json.dumps(about))
    else:
        print_table(("what", "value"), [[name, _value(value)] for name, value in about.items()])
    return 0


def _value(value: object) -> str:
    if isinstance(value, list):
        return "; ".join("nowhere" if one is None else f"{one[0]},{one[1]}" for one in value)
    return "" if value is None else str(value)


def _tiles(messenger: Messenger, words: Sequence[str], given: Mapping[str, Any]) -> int:
    if len(words) != 1:
        raise UsageError("the tiles of one survey", hint="awe-grid list")
    made, tile = _found(words[0])
    if tile:
        raise UsageError(f"{words[0]} is a tile", hint=f"awe-grid show {words[0]}")
    for name, text in made.items():
        options.print_line(_json(name, text) if given["as_json"] else f"{name}\t{text}")
    return 0


# which


def _which(messenger: Messenger, words: Sequence[str], given: Mapping[str, Any]) -> int:
    from ..core.gridstore import holding_frame, holding_place
    from ..core.workspace import here

    names = options.read_names(words, given["null"])
    items, workspace, codes = _items(messenger, given["inside"]), here(), []
    for name in names:
        place = None if Path(name).exists() else _as_place(name)
        try:
            if place is not None:
                _say(name, holding_place(items, *place), given["as_json"])
            else:
                for frame in _frames_at(messenger, name, workspace):
                    _say(frame.name, holding_frame(items, frame.wcs, frame.shape), given["as_json"])
            codes.append(0)
        except AweError as error:
            messenger.error(error, name)
            codes.append(error.exit_code)
    return worst(codes)


def _items(messenger: Messenger, inside: str | None) -> list[tuple[str, str]]:
    """The grids that are looked at; damaged ones are told."""
    from ..core.gridstore import grids, read_grid

    if inside is not None:
        made, tile = _found(inside)
        return [(inside, made.text(tile))] if tile else list(made.items())
    items: list[tuple[str, str]] = []
    for path, in_force in grids(_stores()):
        try:
            items += read_grid(path).items() if in_force else ()
        except AweError as error:
            messenger.warning(error.message)
    return items


def _say(what: str, found: Sequence[str], as_json: bool) -> None:
    """A line a grid; raises NoMatch where there is none."""
    if not found:
        raise NoMatch(f"{what}: no grid holds it", hint="awe-grid list")
    for name in found:
        options.print_line(json.dumps({"what": what, "grid": name}) if as_json else f"{what}\t{name}")


# remove


def _remove(messenger: Messenger, words: Sequence[str], given: Mapping[str, Any]) -> int:
    from ..core.gridstore import remove_grid

    if not words:
        raise UsageError("remove what?", hint="awe-grid list")
    codes = []
    for name in dict.fromkeys(words):
        try:
            path = remove_grid(name, _stores(), given["dry_run"])
        except AweError as error:
            messenger.error(error)
            codes.append(error.exit_code)
            continue
        options.print_line(json.dumps({"name": name, "path": str(path)}) if given["as_json"] else str(path))
    return worst(codes)


_ACTIONS: Mapping[str, Callable[[Messenger, Sequence[str], Mapping[str, Any]], int]] = {
    "make": _make,
    "list": _list,
    "show": _show,
    "tiles": _tiles,
    "which": _which,
    "remove": _remove,
}


def main() -> None:
    """Run the program."""
    launch(command)
