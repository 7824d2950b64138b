"""The SQLite index of a store: a cache of its records, rebuilt from them at any time.

Every write is one short BEGIN IMMEDIATE transaction in WAL mode, so that many
programs can write at once. `.awe/index.sqlite` is a link to a file whose name is
used only once. A writer whose index was replaced under it writes again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import TypeVar

from ..errors import Unavailable
from ..store import Store
from .catchup import Changes, catch_up
from .generations import TIMEOUT_S, Attempts, Generation, present
from .handle import BATCH, Index
from .indexfile import SCHEMA_VERSION, connect, errors_named, may_write, open_memory, record_path_of
from .indexrows import Row, absolute, all_rows, product_row, raw_rows, relative
from .remake import rebuild, renew

__all__ = [
    "Changes",
    "Index",
    "absolute",
    "changes_of",
    "forget",
    "highest_sequence",
    "in_current",
    "open_index",
    "product_row",
    "put_records",
    "raw_rows",
    "rebuild",
    "relative",
    "update",
]

T = TypeVar("T")


# Opening


def open_index(store: Store) -> Index:
    """Open the index of a store, rebuilding it if it is gone or of an older version.

    In a store that this user cannot write, an index that is gone is made in
    memory. Raises Unavailable, IndexBusy.
    """
    attempts = Attempts()
    while attempts.left():
        generation = present(store)
        if generation is None:
            if not store.awe.is_dir():
                raise Unavailable(f"{store.root}: the store is gone", hint=f"ls -ld {store.awe}")
            if not may_write(store.awe):
                return _in_memory(store)
            renew(store, None)
            # Making the index of a large store takes longer than any patience.
            attempts = Attempts()
            continue
        try:
            index = _opened(store, generation)
        except Unavailable:
            if present(store) == generation:
                raise
            continue
        if index is not None and index.is_current():
            return index
        if index is None:
            attempts = Attempts()
        else:
            index.close()
    raise Unavailable(f"{store.index_path}: disappears as fast as it is made")


def _opened(store: Store, generation: Generation) -> Index | None:
    """The index in a file; None if it was of an older version and was made anew."""
    with errors_named(store.index_path, TIMEOUT_S):
        connection, writable = connect(generation[0], TIMEOUT_S)
        index = Index(store, connection, generation, writable)
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version == SCHEMA_VERSION:
                index.refresh_words()
                return index
        except BaseException:
            index.close()
            raise
        index.close()
    if version > SCHEMA_VERSION:
        raise Unavailable(
            f"{store.index_path}: version {version}, made by a newer awetools (this one knows {SCHEMA_VERSION})",
            hint="upgrade awetools, or awe-index --rebuild with this one",
        )
    if not writable:
        return _in_memory(store)
    renew(store, generation)
    return None


def _in_memory(store: Store) -> Index:
    """The index of a store that this user cannot write, made for this program alone."""
    with errors_named(store.index_path, TIMEOUT_S):
        connection = open_memory(all_rows(store))
        index = Index(store, connection, None, False)
        index.refresh_words()
        return index


# Writing


def put_records(store: Store, rows: Sequence[tuple[Row, Sequence[Row]]]) -> None:
    """Write rows into the index of a store, again if it was deleted or replaced meanwhile."""

    def put(index: Index) -> None:
        for batch in _batches(rows):
            index.put(batch)

    in_current(store, put)


def _batches(rows: Sequence[tuple[Row, Sequence[Row]]]) -> Iterator[list[tuple[Row, Sequence[Row]]]]:
    """The rows in pieces, those of one record always together."""
    batch: list[tuple[Row, Sequence[Row]]] = []
    for _, group in groupby(rows, key=record_path_of):
        batch += group
        if len(batch) >= BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def forget(store: Store, addresses: Sequence[str]) -> None:
    """Take objects out of the index of a store, again if it was deleted or replaced meanwhile."""
    in_current(store, lambda index: index.remove(addresses))


def in_current(store: Store, work: Callable[[Index], T]) -> T:
    """Do something to the index of a store, again if it was deleted or replaced meanwhile."""
    attempts = Attempts()
    while attempts.left():
        with open_index(store) as index:
            try:
                result = work(index)
            except Unavailable:
                if index.is_current():
                    raise
                continue
            # While it is open its inode cannot be given to another file.
            if index.is_current():
                return result
    raise Unavailable(f"{store.index_path}: is replaced again and again", hint="awe-index --rebuild")


# Index and files


def highest_sequence(store: Store) -> int:
    """The highest sequence number that any record of the store has; 0 if none."""
    with open_index(store) as index:
        found = next(index.select("SELECT max(sequence) FROM objects"))[0]
        return int(found or 0)


def changes_of(store: Store) -> Changes:
    """Take over what was added, changed or removed in the files of a store."""
    return in_current(store, catch_up)


def update(store: Store) -> tuple[list[str], list[str]]:
    """Take over what was added, changed or removed in the store's files; returns (put, removed) addresses."""
    changes = changes_of(store)
    return list(changes.put), list(changes.removed)
