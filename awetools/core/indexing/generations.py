"""Which file the index of a store is in: each has a name that is used only once, and a link points at one.

An index that is deleted or rebuilt while programs have it open so never meets the
log files of the one before.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import IndexBusy, Unavailable
from ..files import open_shared
from ..store import Store
from .indexfile import unlink_database

TIMEOUT_S = 60.0
# The file behind the link, and its inode.
Generation = tuple[Path, int]


class Attempts:
    """Once, and again until the timeout."""

    def __init__(self) -> None:
        self._deadline = time.monotonic() + TIMEOUT_S
        self._begun = False

    def left(self) -> bool:
        """Whether to try (again)."""
        first, self._begun = not self._begun, True
        return first or time.monotonic() < self._deadline


def present(store: Store) -> Generation | None:
    """The file that the index is in at present; None if there is none."""
    try:
        path = os.path.realpath(store.index_path, strict=True)
        return Path(path), os.stat(path).st_ino
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Unavailable(f"{store.index_path}: {error.strerror}") from None


@contextmanager
def rebuild_lock(store: Store, wait: bool = True) -> Iterator[None]:
    """One program at a time makes the index anew; raises IndexBusy where this one is not to wait."""
    path = store.awe / "index.lock"
    try:
        try:
            lock = open_shared(path, os.O_RDWR)
        except PermissionError:
            # Another user's lock file serves as well, except on a network file system.
            lock = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise Unavailable(f"{store.awe}: cannot make an index: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise IndexBusy(f"{path}: another program makes the index anew") from None
    finally:
        os.close(lock)


def index_leftovers(store: Store) -> list[Path]:
    """Index files that a rebuild left when it was killed; none while one is under way."""
    with suppress(IndexBusy, Unavailable), rebuild_lock(store, wait=False):
        current = present(store)
        return files_of_others(store, current[0] if current else None)
    return []


def drop_index_leftover(store: Store, path: Path) -> bool:
    """Remove a file that is not of the store's index; whether it was removed."""
    if path not in index_leftovers(store):
        return False
    path.unlink(missing_ok=True)
    return True


def point_at(store: Store, part: Path, new: Path) -> None:
    """Make a filled file the index of the store, under its own name; raises Unavailable."""
    link = store.awe / f".{new.name}.link"
    try:
        part.chmod(store.awe.stat().st_mode & 0o666)
        part.rename(new)
        link.symlink_to(new.name)
        link.replace(store.index_path)
    except OSError as error:
        link.unlink(missing_ok=True)
        unlink_database(new)
        raise Unavailable(f"{store.index_path}: {error.strerror}") from None
    # Log files under this name are of an index that was copied here as a plain file.
    for suffix in ("-wal", "-shm"):
        Path(f"{store.index_path}{suffix}").unlink(missing_ok=True)


def files_of_others(store: Store, current: Path | None) -> list[Path]:
    """The files of all indexes but one, with their logs and links; their names are never used again."""
    found = sorted([*store.awe.glob("index-*.sqlite*"), *store.awe.glob(".index-*.sqlite.*")])
    return [path for path in found if current is None or not path.name.startswith(current.name)]


def sweep(path: Path) -> None:
    """Remove the log files that SQLite made for an index which was deleted a moment before, and so leaves."""
    if path.name.startswith("index-") and not path.exists():
        with suppress(OSError):
            unlink_database(path)
