"""Where reference catalogues lie: a directory each, by name, in the stores or in a directory of one's own."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadValue, NoStore, NoSuchFile, Protected, Unavailable, nearest
from ..files import held, sync_directory
from ..sky.refcat import Catalogue, is_catalogue, open_catalogue
from ..store import Store
from .refshards import unfinished

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
HINT_LIST = "awe-refcat list"


@dataclass(frozen=True)
class Shelf:
    """A directory of catalogues; of a store, where all that is in it is a catalogue, or a person's own."""

    directory: Path
    store: Store | None = None

    def place(self, name: str) -> Path:
        """Where the catalogue of a name lies, if there is one."""
        return self.directory / name

    def places(self) -> list[Path]:
        """The catalogues that are on it, by name, damaged ones too. Raises Unavailable."""
        try:
            found = sorted(Path(one.path) for one in os.scandir(self.directory) if one.is_dir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise Unavailable(f"{self.directory}: {error.strerror}") from None
        return [
            path for path in found if path.name[0] != "." and (self.store is not None or is_catalogue(path))
        ]


def shelves_of(stores: Sequence[Store], directory: Path | None = None) -> list[Shelf]:
    """A directory of one's own, else those of the stores, of which the first is written. Raises NoStore."""
    if directory is not None:
        return [Shelf(directory)]
    if not stores:
        raise NoStore("there is no store here, and AWE_PATH names none", hint="awe-init, or --dir DIR")
    return [Shelf(store.refcats_path, store) for store in stores]


def is_name(text: str) -> bool:
    """Whether a catalogue can have this name."""
    return _NAME.fullmatch(text) is not None


def check_name(name: str) -> str:
    """The name of a catalogue as it is; raises BadValue for one that no catalogue can have."""
    if not is_name(name):
        raise BadValue(
            f"{name!r:.120} is no name of a catalogue: it has letters, digits and . _ + -, at most 100, "
            "and begins with a letter or digit",
            hint="awe-refcat import gaia-m51 FILE...; --dir says where",
        )
    return name


def find(name: str, shelves: Sequence[Shelf]) -> Path:
    """Where the nearest catalogue of a name lies. Raises BadValue, NoSuchFile."""
    check_name(name)
    for shelf in shelves:
        place = shelf.place(name)
        if place.is_dir() and (shelf.store is not None or is_catalogue(place)):
            return place
    names = sorted({place.name for shelf in shelves for place in shelf.places()})
    where = ", ".join(str(shelf.store.root if shelf.store else shelf.directory) for shelf in shelves)
    there = f"; there are: {', '.join(names[:20])}" if names else "; there is none at all"
    hint = HINT_LIST if names else f"awe-refcat import {name} FILE..."
    raise NoSuchFile(f"no reference catalogue {name!r}{nearest(name, names)} in {where}{there}", hint=hint)


def catalogues(shelves: Sequence[Shelf]) -> Iterator[tuple[Path, bool]]:
    """Every catalogue with whether its name stands for it, or for one that comes first."""
    seen: set[str] = set()
    for shelf in shelves:
        for place in shelf.places():
            yield place, place.name not in seen
            seen.add(place.name)


def opened(name: str, shelves: Sequence[Shelf]) -> Catalogue:
    """The nearest catalogue of a name. Raises as `find`, `open_catalogue`."""
    return open_catalogue(find(name, shelves))


def to_remove(name: str, shelves: Sequence[Shelf]) -> Path:
    """The catalogue of a name on the first shelf. Raises NoSuchFile; Protected where it is another's."""
    place = find(name, shelves)
    if place.parent != shelves[0].directory:
        root = place.parent.parent.parent
        raise Protected(
            f"{place}: is of a store that is only read; written is {shelves[0].store and shelves[0].store.root}",
            hint=f"AWE_PATH={root} awe-refcat remove {name}",
        )
    return place


def remove(place: Path) -> int:
    """Remove a catalogue, all at once for those who look for it; returns its bytes. Raises Unavailable."""
    gone = unfinished(place)
    try:
        with held(place):
            place.rename(gone)
            sync_directory(place.parent)
            size = sum(one.stat().st_size for one in gone.rglob("*") if one.is_file())
            shutil.rmtree(gone)
    except OSError as error:
        raise Unavailable(f"{place}: cannot be removed: {error.strerror}") from None
    return size
