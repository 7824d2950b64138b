"""A store: a directory of products with `.awe/` in it, and the search path of stores.

`.awe/` holds the index (a cache), the journal of verdicts, the records of raw
frames, replaced records, settings and camera tables. Files are the truth.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shlex
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import BeingWritten, NoRecord, NoStore, Unavailable
from .files import is_held, make_directory, open_shared, write_whole
from .meta import on_grid
from .record import check_raw_record, cure_of, from_bytes

AWE = ".awe"
RECORDS = "records"
PRODUCT_ENDINGS = (".fits", ".fit", ".fts")
# The stores that are read, nearest first.
PATH_VARIABLE = "AWE_PATH"
# Of a name of an object, of a grid or of a tile so many letters are in the name of a file.
LONGEST_PART = 40
SIDECAR_ENDINGS = tuple(f"{ending}.json" for ending in PRODUCT_ENDINGS)


@dataclass(frozen=True)
class Store:
    """A directory of products; `root` is its resolved path."""

    root: Path

    @property
    def awe(self) -> Path:
        """The directory of everything that is not a product."""
        return self.root / AWE

    @property
    def index_path(self) -> Path:
        """The SQLite index, which can be deleted at any time."""
        return self.awe / "index.sqlite"

    @property
    def journal_path(self) -> Path:
        """The append-only journal of verdicts."""
        return self.awe / "journal.jsonl"

    @property
    def records_path(self) -> Path:
        """Where the records of replaced products are kept."""
        return self.awe / RECORDS

    @property
    def cameras_path(self) -> Path:
        """Camera tables of this store."""
        return self.awe / "cameras"

    @property
    def refcats_path(self) -> Path:
        """Reference catalogues of this store, a directory each."""
        return self.awe / "refcats"

    def holds(self, path: Path) -> bool:
        """Whether a path lies in this store."""
        return path.is_relative_to(self.root)

    def raw_record_path(self, real_path: str) -> Path:
        """Where the record of a raw frame lies, from the frame's real path alone."""
        digest = hashlib.sha256(real_path.encode(errors="surrogateescape")).hexdigest()
        return self.awe / "raw" / digest[:2] / f"{digest[2:40]}.json"

    def next_sequence(self) -> int:
        """The next number of the store's own clock, which orders what was made in it."""
        path = self.awe / "sequence"
        try:
            descriptor = open_shared(path, os.O_RDWR)
        except OSError as error:
            raise Unavailable(f"{path}: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            text = os.pread(descriptor, 32, 0).strip()
            # A clock that was lost, or written over by others, is set again from the records.
            number = (int(text) if text.isdigit() else self._highest_sequence()) + 1
            os.pwrite(descriptor, f"{number:<20d}\n".encode(), 0)
            return number
        finally:
            os.close(descriptor)

    def _highest_sequence(self) -> int:
        from .indexing.index import highest_sequence

        return highest_sequence(self)


def init_store(directory: Path) -> Store:
    """Make a directory into a store; what is there stays. Raises Unavailable."""
    store = Store(Path(os.path.realpath(directory)))
    try:
        for path in (store.awe / "raw", store.records_path, store.cameras_path):
            path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"{error.filename}: {error.strerror}") from None
    return store


def store_of(path: Path) -> Store | None:
    """The store that contains a path (or would, if it existed), found upward; None if there is none."""
    here = Path(os.path.abspath(path))
    for directory in (here, *here.parents):
        if os.path.isdir(directory / AWE):
            return Store(directory.resolve())
    return None


def search_path(start: Path) -> list[Store]:
    """The stores that are read: those of AWE_PATH, else the one found upward. The first is written.

    Raises NoStore, Unavailable for what AWE_PATH names and is no store, or cannot be looked at.
    """
    listed = [part for part in os.environ.get(PATH_VARIABLE, "").split(os.pathsep) if part]
    stores = list(dict.fromkeys(store_at(part, PATH_VARIABLE) for part in listed))
    found = None if stores else store_of(start)
    return stores if found is None else [found]


def store_at(name: str, origin: str) -> Store:
    """The store that a directory is, as something names it; raises NoStore, Unavailable."""
    path = Path(os.path.expanduser(name))
    try:
        if stat.S_ISDIR(os.stat(path / AWE).st_mode):
            return Store(path.resolve())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        pass
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            raise Unavailable(f"{origin} names {path}, which cannot be read: {error.strerror}") from None
    there = os.path.lexists(path)
    hint = f"awe-init {shlex.quote(str(path))}" if os.path.isdir(path) or not there else ""
    text = "is not a store" if there else "is not a store (it does not exist)"
    raise NoStore(f"{origin} names {path}, which {text}", hint=hint)


def read_raw_record(stores: Sequence[Store], real_path: str) -> dict[str, Any] | None:
    """The record of a raw frame in the first store that has one; None if it is not registered."""
    for store in stores:
        record = raw_record_at(store.raw_record_path(real_path))
        if record is not None:
            return record
    return None


def raw_record_at(path: Path) -> dict[str, Any] | None:
    """The record of a raw frame in a file; None if there is no such file. Raises NoRecord if it cannot be read."""
    try:
        record = from_bytes(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NoRecord(f"{path}: {error.strerror}", hint="awe-ingest registers the frame again") from None
    except (ValueError, RecursionError) as error:
        raise NoRecord(f"{path}: {error}", hint="awe-ingest registers the frame again") from None
    problems = check_raw_record(record)
    if problems:
        hint = cure_of(problems[0], "awe-ingest registers the frame again")
        raise NoRecord(f"{path}: {problems[0]}", hint=hint)
    return dict(record)


def write_raw_record(store: Store, record: Mapping[str, Any]) -> None:
    """Write the record of a raw frame, whole or not at all."""
    path = store.raw_record_path(record["file"]["path"])
    try:
        make_directory(path.parent)
    except Unavailable as error:
        raise Unavailable(
            f"{store.root}: cannot be written: {error.message}",
            hint="a store of your own that comes first: awe-init DIR; AWE_PATH=DIR:...",
        ) from None
    text = json.dumps(record, ensure_ascii=True, allow_nan=False, separators=(",", ":")) + "\n"
    write_whole(path, text.encode(), durable=bool(record["overrides"]))


def raw_record_files(store: Store) -> Iterator[tuple[str, int]]:
    """Every raw record of a store and its time in ns, in the order of their names; none is read."""
    for folder in _entries(store.awe / "raw", needed=True):
        if folder.is_dir(follow_symlinks=False):
            yield from _records_in(_entries(folder.path, needed=True), (".json",))


def sidecars(store: Store) -> Iterator[tuple[str, int]]:
    """Every sidecar below a store and its time in ns, in the order of their names; none is read.

    Directories that are stores of their own are left out, and links to
    directories are not followed.
    """
    waiting = [store.root]
    while waiting:
        entries = _entries(waiting.pop())
        folders = [Path(one.path) for one in entries if one.is_dir(follow_symlinks=False) and one.name != AWE]
        yield from _records_in(entries, SIDECAR_ENDINGS)
        waiting += [one for one in reversed(folders) if not (one / AWE).is_dir()]


def _entries(folder: Path | str, needed: bool = False) -> list[os.DirEntry[str]]:
    """What is in a folder, by name; nothing where it is absent or, unless it is needed, closed to us."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda one: one.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        if isinstance(error, PermissionError) and not needed:
            return []
        raise Unavailable(f"{folder}: {error.strerror}") from None


def _records_in(entries: Sequence[os.DirEntry[str]], endings: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    for one in entries:
        if one.name.lower().endswith(endings) and not one.name.startswith("."):
            # One that goes away between the listing and the look at it is not there.
            with suppress(FileNotFoundError):
                yield one.path, one.stat().st_mtime_ns


def default_path(store: Store, kind: str, meta: Mapping[str, Any], key: str, one_frame: bool) -> Path:
    """The store's name for a product: KIND/NIGHT/DETECTOR[_FILTER][_EXPOSURE]-KEY8.fits.

    What many frames made on a sky grid has OBJECT, GRID and TILE, where there are such, in the place of DETECTOR.
    """
    parts = names_on_sky(meta) or [meta.get("detector") or "detector"]
    if meta.get("filter"):
        parts.append(meta["filter"])
    if one_frame and meta.get("exposure"):
        parts.append(meta["exposure"])
    name = "_".join(_safe(str(part)) for part in parts)
    night = _safe(str(meta.get("night") or "undated"))
    return store.root / kind / night / f"{name}-{key[:8]}.fits"


def names_on_sky(meta: Mapping[str, Any]) -> list[str]:
    """The object, grid and tile of a product of no single exposure on a sky grid, safe in file names."""
    if meta.get("exposure") or not on_grid(meta):
        return []
    names = [str(meta[one]) for one in ("object", "grid", "tile") if meta.get(one)]
    return [re.sub("-{2,}", "-", _safe(one))[:LONGEST_PART].rstrip("-.") for one in names]


def _safe(text: str) -> str:
    kept = "".join(char if (char.isalnum() and char.isascii()) or char in "+-." else "-" for char in text)
    return kept.strip("-.") or "x"


@contextmanager
def target_lock(target: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock of one product while it is replaced; nothing is left behind.

    Others wait, or with wait=False raise BeingWritten.
    """
    path = lock_path(target)
    while True:
        try:
            descriptor = open_shared(path, os.O_RDWR)
        except OSError as error:
            raise Unavailable(f"{target}: cannot write in {target.parent}: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise BeingWritten(f"{target}: is being written by another program") from None
        if _same_file(descriptor, path):
            break
        os.close(descriptor)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def lock_path(target: Path) -> Path:
    """The lock of a product; it exists only while the product is written, or after a crash."""
    return target.with_name(f".{target.name}.lock")


def is_locked(target: Path) -> bool:
    """Whether a program that lives holds the lock of a product."""
    return is_held(lock_path(target))


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_ino, here.st_dev) == (there.st_ino, there.st_dev)
