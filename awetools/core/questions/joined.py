"""The indexes of several stores as one database, so that one statement sees all of them."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from ..indexing.generations import TIMEOUT_S
from ..indexing.index import Index, open_index
from ..indexing.indexfile import configured, errors_named
from ..indexing.inforce import indexes_in_force
from ..journal import nearest
from ..store import Store

# What SQLite takes together.
MAX_STORES = 10


@dataclass(frozen=True)
class Joined:
    """An index to ask, in which each store has a schema; the nearest store's words are those in force."""

    index: Index
    stores: tuple[Store, ...]
    schemas: tuple[str, ...]


@contextmanager
def joined_indexes(stores: Sequence[Store], read_only: bool = False) -> Iterator[Joined]:
    """The indexes of stores, each store once, on a connection of their own if there are several.

    read_only: on a connection that cannot write them, also of one store. Raises
    UsageError for too many stores, Unavailable, IndexBusy.
    """
    own = tuple(dict.fromkeys(stores))
    if len(own) > MAX_STORES:
        raise UsageError(f"AWE_PATH names {len(own)} stores; at most {MAX_STORES} can be asked together")
    if len(own) == 1 and not read_only:
        with indexes_in_force(own) as indexes:
            yield Joined(indexes[0], own, ("main",))
        return
    with ExitStack() as stack:
        # They stay open: their files, and the shared memory of their logs, are there as long as they are read.
        indexes = [stack.enter_context(open_index(store)) for store in own]
        connection = configured(
            sqlite3.connect("file::memory:", uri=True, timeout=TIMEOUT_S, isolation_level=None)
        )
        whole = stack.enter_context(Index(own[0], connection, None, False))
        schemas = tuple(f"s{rank}" for rank in range(len(own)))
        for index, schema in zip(indexes, schemas, strict=True):
            with errors_named(index.store.index_path, TIMEOUT_S):
                _attach(stack, connection, index, schema)
        whole.hear(nearest([index.words() for index in indexes]))
        yield Joined(whole, own, schemas)


def _attach(stack: ExitStack, connection: sqlite3.Connection, index: Index, schema: str) -> None:
    if index.generation is not None:
        path = index.generation[0]
        how = "immutable=1" if os.statvfs(path).f_flag & os.ST_RDONLY else "mode=ro"
        with suppress(sqlite3.OperationalError):
            connection.execute(f"ATTACH ? AS {schema}", (f"{path.as_uri()}?{how}",))
            connection.execute(f"SELECT 1 FROM {schema}.objects LIMIT 1").fetchone()
            return
        with suppress(sqlite3.OperationalError):
            connection.execute(f"DETACH {schema}")
    # One that is only in memory, or that only its own connection can read.
    connection.execute(f"ATTACH ? AS {schema}", (f"{_copy(stack, index).as_uri()}?immutable=1",))


def _copy(stack: ExitStack, index: Index) -> Path:
    import tempfile

    file = stack.enter_context(
        tempfile.NamedTemporaryFile(prefix="awetools-", suffix=".sqlite")  # noqa: SIM115
    )
    with sqlite3.connect(file.name) as copy:
        index.connection.backup(copy)
    copy.close()
    return Path(file.name)
