"""A picture in tiles of every size, for zoom: plain PNG files, and one page that shows them in any browser."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import Unavailable, WouldOverwrite
from ..files import make_directory
from ..png import FAST, encode_png

Array = npt.NDArray[Any]
Paint = Callable[[Array], npt.NDArray[np.uint8]]

TILE_PX = 256
PAGE = "index.html"
# What says that a page is ours, in its first bytes.
MARK = '<meta name="generator" content="awetools tiles">'
MARK_WITHIN = 400
_LEVEL, _TILE = re.compile(r"\d{1,2}\Z"), re.compile(r"\d+_\d+\.png\Z")


def levels_of(shape: tuple[int, int]) -> int:
    """The number of the last level, which is the whole picture; level 0 is one tile, each level twice the last."""
    longest, level = max(shape), 0
    while longest > TILE_PX:
        longest, level = (longest + 1) // 2, level + 1
    return level


def write_pyramid(
    folder: Path, shape: tuple[int, int], strips: Iterable[Array], paint: Paint, about: Mapping[str, Any]
) -> int:
    """Write the tiles and the page of a picture (ny, nx), given from its top down in strips of any rows.

    ``strips`` hold values, not a number where there are none; smaller levels are means of 2 x 2 of these,
    and ``paint`` makes grey (ny, nx) or coloured (ny, nx, 3) tiles of them. Tiles are LEVEL/X_Y.png, X from the
    left, Y from the top. ``about``: what the page is told. The folder appears whole or not at all, and
    replaces tiles of ours. Returns how many tiles there are. Raises WouldOverwrite, Unavailable.
    """
    refuse_others(folder)
    make_directory(folder.parent)
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        count = _write_tiles(part, shape, strips, paint)
        (part / PAGE).write_text(page(shape, about), encoding="utf-8")
        _put_in_place(part, folder)
    except OSError as error:
        raise Unavailable(f"{folder}: {error.strerror}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return count


def refuse_others(folder: Path) -> None:
    """Raise WouldOverwrite if there is anything at a path but an empty directory, or tiles that we wrote."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir() or folder.is_symlink():
        raise WouldOverwrite(f"{folder}: is no directory, so no tiles are written there")
    strange = next(_strangers(folder), None)
    if strange is not None:
        raise WouldOverwrite(
            f"{folder}: holds {strange}, which is no tile of awetools", hint="--tiles ANOTHER_DIR"
        )


def _strangers(folder: Path) -> Iterator[str]:
    """What is in a directory besides a page of ours and its tiles."""
    entries = sorted(folder.iterdir())
    names = {one.name for one in entries}
    if names and (PAGE not in names or MARK not in _begin(folder / PAGE)):
        yield PAGE if PAGE in names else sorted(names)[0]
    for one in entries:
        if one.name == PAGE:
            continue
        if one.is_symlink() or not one.is_dir() or not _LEVEL.match(one.name):
            yield one.name
            continue
        for tile in one.iterdir():
            if not _TILE.match(tile.name) or not tile.is_file():
                yield f"{one.name}/{tile.name}"


def _begin(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(MARK_WITHIN)
    except OSError:
        return ""


def _put_in_place(part: Path, folder: Path) -> None:
    if not folder.exists():
        part.rename(folder)
        return
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old)


class _Level:
    """The rows of one level that wait until they are a row of tiles, and how many of these were written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.waiting: list[Array] = []
        self.rows = 0
        self.written = 0
        folder.mkdir(parents=True)

    def take(self, count: int) -> Array:
        """The first of the rows that wait."""
        joined = self.waiting[0] if len(self.waiting) == 1 else np.concatenate(self.waiting)
        rest = joined[count:]
        self.waiting, self.rows = ([rest] if len(rest) else []), len(rest)
        return joined[:count]


def _write_tiles(part: Path, shape: tuple[int, int], strips: Iterable[Array], paint: Paint) -> int:
    levels = [_Level(part / str(number)) for number in range(levels_of(shape) + 1)]
    count = 0

    def give(number: int, rows: Array) -> None:
        levels[number].waiting.append(rows)
        levels[number].rows += len(rows)
        while levels[number].rows >= TILE_PX:
            write(number, levels[number].take(TILE_PX))

    def write(number: int, rows: Array) -> None:
        nonlocal count
        level = levels[number]
        across = range(0, rows.shape[1], TILE_PX)
        for place, x in enumerate(across):
            tile = paint(np.ascontiguousarray(rows[:, x : x + TILE_PX]))
            (level.folder / f"{place}_{level.written}.png").write_bytes(encode_png(tile, FAST))
        level.written += 1
        count += len(across)
        if number:
            give(number - 1, halved(rows))

    for strip in strips:
        give(len(levels) - 1, strip)
    for number in range(len(levels) - 1, -1, -1):
        if levels[number].rows:
            write(number, levels[number].take(TILE_PX))
    return count


def halved(rows: Array) -> npt.NDArray[np.float32]:
    """Means of 2 x 2 values, of those that are numbers; at the right and lower edge of what there is."""
    ny, nx = rows.shape[:2]
    if ny % 2 or nx % 2:
        width = [(0, ny % 2), (0, nx % 2), *[(0, 0)] * (rows.ndim - 2)]
        rows = np.pad(rows, width, constant_values=np.nan)
    four = [rows[y::2, x::2] for y in (0, 1) for x in (0, 1)]
    total: Array = four[0] + four[1] + four[2] + four[3]
    made = total * np.float32(0.25)
    gaps = np.isnan(made)
    if gaps.any():
        some = [one[gaps] for one in four]
        there = np.sum([np.isfinite(one) for one in some], axis=0)
        added = np.nansum(some, axis=0)
        made[gaps] = np.divide(added, there, out=np.full(there.shape, np.nan), where=there > 0)
    return made.astype(np.float32, copy=False)


def page(shape: tuple[int, int], about: Mapping[str, Any]) -> str:
    """The page: one file without any other but the tiles; `about` holds title, x0, y0 and, where known, sky."""
    ny, nx = shape
    told = {"width": nx, "height": ny, "tile": TILE_PX, "last": levels_of(shape), **about}
    # A name must not end the script that it stands in.
    text = json.dumps(told, separators=(",", ":")).replace("<", "\\u003c")
    made = _source("viewer.html").replace("@MARK@", MARK).replace("@LOGIC@", _source("viewer.js"))
    return made.replace("@ABOUT@", text)


def _source(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
