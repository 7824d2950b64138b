"""The index of a store made anew from its records, while others read and write the one before.

Who makes it takes over what was written meanwhile.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import Unavailable
from ..store import Store
from .catchup import catch_up
from .generations import TIMEOUT_S, Attempts, Generation, files_of_others, point_at, present, rebuild_lock
from .handle import Index
from .indexfile import connect, errors_named, fill_database, unlink_database
from .indexrows import all_rows


def rebuild(store: Store) -> int:
    """Make the index anew from the records of a store; returns the number of objects."""
    with rebuild_lock(store):
        return _replace(store)


def renew(store: Store, seen: Generation | None) -> None:
    """Rebuild, unless another program did it since the present index was seen to be gone or old."""
    with rebuild_lock(store):
        if present(store) == seen:
            _replace(store)


def _replace(store: Store) -> int:
    attempts = Attempts()
    while attempts.left():
        name = f"index-{os.urandom(6).hex()}.sqlite"
        # Under a name of its own, so that who deletes the index does not delete the one that is being made.
        part, new = store.awe / f".{name}.new", store.awe / name
        try:
            return _replace_by(store, part, new)
        except Unavailable:
            if part.exists() or new.exists():
                raise
        finally:
            unlink_database(part)
    raise Unavailable(f"{store.index_path}: disappears as fast as it is made")


def _replace_by(store: Store, part: Path, new: Path) -> int:
    with errors_named(store.index_path, TIMEOUT_S):
        fill_database(part, all_rows(store))
        point_at(store, part, new)
        with Index(store, connect(new, TIMEOUT_S)[0], present(store), True) as index:
            # What was published while the new index was being filled went into the old one.
            catch_up(index)
            count = int(next(index.select("SELECT count(*) FROM objects"))[0])
    for path in files_of_others(store, new):
        path.unlink(missing_ok=True)
    return count
