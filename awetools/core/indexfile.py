"""The SQLite file of an index: opened, filled and written, whoever may write it and wherever it lies."""

from __future__ import annotations

import functools
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple
from itertools import groupby
from pathlib import Path
from typing import Any

from .errors import IndexBusy, Unavailable
from .indexrows import COLUMNS, LINK_COLUMNS, SETUP_COLUMNS, SURVEYED, Row, setup_number
from .journal import Words

SCHEMA_VERSION = 6

WORD_COLUMNS = "since TEXT, until TEXT, who TEXT, at TEXT, reason TEXT"

INDEXES = (
    ("objects", tuple(dict.fromkeys(("kind", "instrument", "detector", "night", "sequence", *SURVEYED)))),
    ("objects", ("recipe_key",)),
    ("objects", ("content",)),
    ("objects", ("record_path",)),
    ("links", ("child",)),
    ("links", ("content",)),
)

NETWORK_FILE_SYSTEMS = (
    "nfs",
    "cifs",
    "smb",
    "afs",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "glusterfs",
    "fuse.sshfs",
    "9p",
)

# What making the index anew does not cure.
OUTSIDE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM)

# Opening


def connect(path: Path, timeout_s: float) -> tuple[sqlite3.Connection, bool]:
    """A connection to an existing index file, and whether this user can write through it."""
    if may_write(path) and may_write(path.parent):
        connection = _open_uri(path, "mode=rw", timeout_s)
        if on_network(path):
            # The shared memory of a write-ahead log does not reach other hosts.
            connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection, True
    # On a read-only file system nobody else can write, so no lock is needed; where others
    # may write, an immutable connection would read torn pages.
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return _open_uri(path, "immutable=1", timeout_s), False
    connection = _open_uri(path, "mode=ro", timeout_s)
    try:
        connection.execute("PRAGMA user_version").fetchone()
        return connection, False
    except sqlite3.OperationalError as error:
        connection.close()
        # Nobody has it open, and SQLite cannot make the log's shared memory in a directory of others.
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
            raise
    return _open_copy(path, timeout_s), False


def open_memory() -> sqlite3.Connection:
    """A connection to an empty index in memory."""
    connection = _configured(sqlite3.connect(":memory:", isolation_level=None))
    create_tables(connection)
    return connection


def _open_uri(path: Path, how: str, timeout_s: float) -> sqlite3.Connection:
    uri = f"{path.as_uri()}?{how}"
    return _configured(sqlite3.connect(uri, uri=True, timeout=timeout_s, isolation_level=None))


def _configured(connection: sqlite3.Connection) -> sqlite3.Connection:
    # File names are bytes; those that are not UTF-8 come back as they were.
    connection.text_factory = functools.partial(str, encoding="utf-8", errors="surrogateescape")
    return connection


def _open_copy(path: Path, timeout_s: float) -> sqlite3.Connection:
    """A connection to a private copy of an index that nobody has open."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        connection = _copied(path, timeout_s)
        if connection is None:
            # Somebody opened it meanwhile, so its log is there to be read.
            connection = _open_uri(path, "mode=ro", timeout_s)
        with suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA user_version").fetchone()
            return connection
        connection.close()
        time.sleep(0.05)
    raise IndexBusy(f"{path}: is written again and again")


def _copied(path: Path, timeout_s: float) -> sqlite3.Connection | None:
    """The copy, whose file has no name any more; None if the index was written meanwhile."""
    # Late: only a store that nobody may write needs them.
    import shutil
    import tempfile

    before = path.stat()
    with tempfile.NamedTemporaryFile(prefix="awetools-", suffix=".sqlite") as copy:
        with path.open("rb") as stream:
            shutil.copyfileobj(stream, copy, 1 << 20)
        copy.flush()
        after = path.stat()
        changed = (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size)
        if changed or Path(f"{path}-wal").exists():
            return None
        connection = _open_uri(Path(copy.name), "immutable=1", timeout_s)
        connection.execute("PRAGMA user_version").fetchone()
        return connection


def may_write(path: Path) -> bool:
    """Whether this user may write a file, or in a directory."""
    return os.access(path, os.W_OK, effective_ids=True)


@functools.lru_cache
def on_network(path: Path) -> bool:
    """Whether a file lies on a file system that other hosts may write."""
    best, kind = "", ""
    with suppress(OSError), open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            point, found = line.split(" ")[1:3]
            point = point.replace("\\040", " ")
            if len(point) >= len(best) and path.is_relative_to(point):
                best, kind = point, found
    return kind.startswith(NETWORK_FILE_SYSTEMS)


@contextmanager
def errors_named(path: Path, timeout_s: float) -> Iterator[None]:
    """Raise IndexBusy or Unavailable, naming the index, for what SQLite raises and for a file that goes away."""
    try:
        yield
    except FileNotFoundError as error:
        raise Unavailable(f"{path}: {error.strerror}") from None
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise IndexBusy(f"{path}: {error} for {timeout_s:g} s") from None
        hint = "" if code in OUTSIDE else "awe-index --rebuild"
        raise Unavailable(f"{path}: {error}", hint=hint) from None


# Making and writing


def unlink_database(path: Path) -> None:
    """Remove an index file with its log files; programs that have it open keep what they have."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def fill_database(path: Path, rows: Iterable[tuple[Row, Sequence[Row]]]) -> None:
    """Make an index file that holds these rows."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("BEGIN IMMEDIATE")
        create_tables(connection)
        put_rows(connection, rows)
        connection.execute("COMMIT")
        if not on_network(path):
            connection.execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()


def create_tables(connection: sqlite3.Connection) -> None:
    """Make the tables of an index in an empty database."""
    for table, columns, first in (
        # The number grows with every row that is put, so that one can ask what is new.
        ("objects", {**COLUMNS, "address": "TEXT UNIQUE"}, "number INTEGER PRIMARY KEY AUTOINCREMENT"),
        ("links", LINK_COLUMNS, ""),
        ("setups", SETUP_COLUMNS, ""),
        ("state", {"value": "INTEGER"}, "name TEXT PRIMARY KEY"),
    ):
        parts = [first] * bool(first) + [f"{name} {kind}" for name, kind in columns.items()]
        connection.execute(f"CREATE TABLE {table} ({', '.join(parts)})")
    create_words(connection, "main")
    for table, names in INDEXES:
        connection.execute(f"CREATE INDEX {table}_{names[0]} ON {table} ({', '.join(names)})")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def create_words(connection: sqlite3.Connection, database: str) -> None:
    """Make the tables of what people said, where they are not there yet."""
    for table, columns in (("verdicts", "verdict TEXT"), ("validities", WORD_COLUMNS)):
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {database}.{table} (identity TEXT PRIMARY KEY, {columns})"
        )


def put_words(connection: sqlite3.Connection, database: str, said: Words) -> None:
    """Replace what people said."""
    for table in ("verdicts", "validities"):
        connection.execute(f"DELETE FROM {database}.{table}")
    connection.executemany(f"INSERT INTO {database}.verdicts VALUES (?, ?)", said.verdicts.items())
    intervals = ((identity, *map(sql_value, astuple(one))) for identity, one in said.validities.items())
    connection.executemany(
        f"INSERT INTO {database}.validities VALUES (?, ?, ?, CAST(? AS TEXT), ?, CAST(? AS TEXT))", intervals
    )


def put_rows(connection: sqlite3.Connection, rows: Iterable[tuple[Row, Sequence[Row]]]) -> None:
    """Replace the objects of records, and their links, within a transaction of the caller.

    The rows of one record must stand together: what the index had of it goes.
    """
    insert = f"INSERT OR REPLACE INTO objects ({', '.join(COLUMNS)}) VALUES ({_places(COLUMNS)})"
    link = f"INSERT INTO links VALUES ({_places(LINK_COLUMNS)})"
    setup = "INSERT OR IGNORE INTO setups VALUES (?, ?)"
    for record_path, group in groupby(rows, key=record_path_of):
        remove_rows(connection, "record_path", [record_path])
        for row, links in group:
            number = setup_number(row["setup"])
            connection.execute(setup, (number, row["setup"]))
            values = {**row, "setup": number}
            connection.execute(insert, [sql_value(values[name]) for name in COLUMNS])
            connection.executemany(link, [[sql_value(one[name]) for name in LINK_COLUMNS] for one in links])


def record_path_of(one: tuple[Row, Sequence[Row]]) -> str:
    """The record that a row is of."""
    return str(one[0]["record_path"])


def _places(columns: Mapping[str, str]) -> str:
    return ", ".join("CAST(? AS TEXT)" if kind == "TEXT" else "?" for kind in columns.values())


def sql_value(value: object) -> Any:
    """A value as SQLite takes it: a file name that is not UTF-8 goes as its bytes, and is cast to text there."""
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return _bytes_of(value)
    return value


def _bytes_of(text: str) -> bytes:
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:
        # Half a letter, which JSON can hold and no file name has.
        return text.encode(errors="replace")


def remove_rows(connection: sqlite3.Connection, column: str, values: Iterable[str]) -> None:
    """Remove objects whose column has one of these values, and their links."""
    for value in values:
        chosen = f"FROM objects WHERE {column} = CAST(? AS TEXT)"
        connection.execute(f"DELETE FROM links WHERE child IN (SELECT address {chosen})", (sql_value(value),))
        connection.execute(f"DELETE {chosen}", (sql_value(value),))
