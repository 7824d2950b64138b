"""The SQLite file of an index: opened, filled and written, whoever may write it and wherever it lies."""

from __future__ import annotations

import functools
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import IndexBusy, Unavailable
from ..expressions.skyregion import holds_text
from ..journal import Words
from .indexrows import (
    COLUMNS,
    INPUT_COLUMNS,
    KEPT_COLUMNS,
    LINK_COLUMNS,
    SETUP_COLUMNS,
    SURVEYED,
    Row,
    setup_number,
)

SCHEMA_VERSION = 10

# The tables of what people said, and what each holds of an identity.
WORDS = {
    "verdicts": "verdict TEXT",
    "validities": "since TEXT, until TEXT, who TEXT, at TEXT, reason TEXT",
    "qualities": "flags INTEGER, made TEXT",
}


class Lookup(NamedTuple):
    """An index of a table by some columns; rows: how many agree in the first of them, in the first two, ..."""

    table: str
    columns: tuple[str, ...]
    rows: tuple[int, ...]

    @property
    def name(self) -> str:
        """What it is called."""
        return f"{self.table}_{self.columns[0]}"


# The numbers of rows, of a large store, are what SQLite chooses the index of a query by. They are given,
# not counted, so that every store is asked in the same way.
LARGE = 1_000_000
LOOKUPS = (
    Lookup(
        "objects",
        tuple(dict.fromkeys(("kind", "instrument", "detector", "night", "sequence", *SURVEYED))),
        (100_000, 50_000, 2000, 20, 1),
    ),
    Lookup("objects", ("recipe_key",), (1,)),
    Lookup("objects", ("content",), (1,)),
    Lookup("objects", ("record_path",), (1,)),
    Lookup("links", ("input", "child"), (8, 1)),
    # What queries ask for most; a place on the sky is found by its declination.
    Lookup("objects", ("detector", "kind", "filter", "obs_start"), (20_000, 5000, 1000, 2)),
    Lookup("objects", ("night", "kind", "detector", "filter"), (2000, 500, 30, 10)),
    Lookup("objects", ("dec_deg", "ra_deg", "kind"), (200, 100, 30)),
)
# By this an input is found when a row is put.
INPUTS = (Lookup("inputs", ("recipe_key", "content"), (1, 1)),)
# Those that SQLite makes itself.
_OWN_LOOKUPS = {"objects": ("sqlite_autoindex_objects_1", (1,)), "links": ("links", (8, 2, 1))}

# Calibrations are inputs of thousands of products, most of them one after the other.
INPUTS_KEPT = 4096
FILL_CACHE_KB = 65536

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


def open_memory(rows: Iterable[tuple[Row, Sequence[Row]]]) -> sqlite3.Connection:
    """A connection to an index in memory that holds these rows."""
    connection = configured(sqlite3.connect(":memory:", isolation_level=None))
    _fill(connection, rows)
    return connection


def _open_uri(path: Path, how: str, timeout_s: float) -> sqlite3.Connection:
    uri = f"{path.as_uri()}?{how}"
    return configured(sqlite3.connect(uri, uri=True, timeout=timeout_s, isolation_level=None))


def configured(connection: sqlite3.Connection) -> sqlite3.Connection:
    """A connection that gives text as our programs take it, and knows regions of the sky."""
    # File names are bytes; those that are not UTF-8 come back as they were.
    connection.text_factory = functools.partial(str, encoding="utf-8", errors="surrogateescape")
    connection.create_function("sky_region", 3, holds_text, deterministic=True)
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
        connection.execute(f"PRAGMA cache_size = -{FILL_CACHE_KB}")
        connection.execute("BEGIN IMMEDIATE")
        _fill(connection, rows)
        connection.execute("COMMIT")
        if not on_network(path):
            connection.execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()


def _fill(connection: sqlite3.Connection, rows: Iterable[tuple[Row, Sequence[Row]]]) -> None:
    """Make the tables of an index in an empty database, with these rows."""
    _create_tables(connection)
    put_one = _putter(connection)
    for row, links in rows:
        put_one(row, links)
    # Sorted once, they are made faster and smaller than row by row.
    _create_indexes(connection, LOOKUPS)


def _create_tables(connection: sqlite3.Connection) -> None:
    for table, columns, first in (
        # The number grows with every row that is put, so that one can ask what is new.
        ("objects", {**COLUMNS, "address": "TEXT UNIQUE"}, "number INTEGER PRIMARY KEY AUTOINCREMENT"),
        ("inputs", INPUT_COLUMNS, ""),
        ("setups", SETUP_COLUMNS, ""),
        ("state", {"value": "INTEGER"}, "name TEXT PRIMARY KEY"),
    ):
        parts = [first] * bool(first) + [f"{name} {kind}" for name, kind in columns.items()]
        connection.execute(f"CREATE TABLE {table} ({', '.join(parts)})")
    links = ", ".join(f"{name} {kind}" for name, kind in LINK_COLUMNS.items())
    connection.execute(f"CREATE TABLE links ({links}, PRIMARY KEY (child, role, input)) WITHOUT ROWID")
    create_words(connection, "main")
    _create_indexes(connection, INPUTS)
    _put_statistics(connection)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _create_indexes(connection: sqlite3.Connection, indexes: Iterable[Lookup]) -> None:
    for one in indexes:
        connection.execute(f"CREATE INDEX {one.name} ON {one.table} ({', '.join(one.columns)})")


def _put_statistics(connection: sqlite3.Connection) -> None:
    """Tell SQLite how many rows to expect; connections that are opened later know it."""
    # This makes their table, and counts nothing.
    connection.execute("ANALYZE sqlite_schema")
    known = [(one.table, one.name, one.rows) for one in (*LOOKUPS, *INPUTS)]
    known += [(table, name, rows) for table, (name, rows) in _OWN_LOOKUPS.items()]
    connection.executemany(
        "INSERT INTO sqlite_stat1 VALUES (?, ?, ?)",
        [(table, name, " ".join(map(str, (LARGE, *rows)))) for table, name, rows in known],
    )


def create_words(connection: sqlite3.Connection, database: str) -> None:
    """Make the tables of what people said, where they are not there yet."""
    for table, columns in WORDS.items():
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {database}.{table} (identity TEXT PRIMARY KEY, {columns})"
        )


def create_kept(connection: sqlite3.Connection, database: str) -> None:
    """Make the table of the records that are kept, where it is not there yet; most stores need none."""
    columns = ", ".join(
        f"{name} {kind}" for name, kind in {**KEPT_COLUMNS, "record_path": "TEXT UNIQUE"}.items()
    )
    connection.execute(f"CREATE TABLE IF NOT EXISTS {database}.kept ({columns})")
    for names in (("kind", "instrument", "detector", "night"), ("recipe_key",)):
        connection.execute(
            f"CREATE INDEX IF NOT EXISTS {database}.kept_{names[0]} ON kept ({', '.join(names)})"
        )


def copy_kept(connection: sqlite3.Connection) -> None:
    """Take the kept records that an index knows for this connection alone, which then can put others."""
    if connection.execute("SELECT 1 FROM temp.sqlite_master WHERE name = 'kept'").fetchone():
        return
    known = connection.execute("SELECT 1 FROM main.sqlite_master WHERE name = 'kept'").fetchone()
    setups = ", ".join(f"{name} {kind}" for name, kind in SETUP_COLUMNS.items())
    connection.execute(f"CREATE TEMP TABLE setups ({setups})")
    connection.execute("INSERT INTO temp.setups SELECT * FROM main.setups")
    create_kept(connection, "temp")
    if known:
        connection.execute("INSERT INTO temp.kept SELECT * FROM main.kept")


def put_kept(
    connection: sqlite3.Connection, database: str, rows: Iterable[Row], gone: Iterable[str] = ()
) -> None:
    """Put rows of kept records, and take out those of records that are gone, by their paths."""
    statement = _statement(
        f"INSERT OR REPLACE INTO {database}.kept ({', '.join(KEPT_COLUMNS)}) VALUES ({_places(KEPT_COLUMNS)})"
    )
    setup = f"INSERT OR IGNORE INTO {database}.setups VALUES (?, ?)"
    for row in rows:
        number = setup_number(row["setup"])
        connection.execute(setup, (number, row["setup"]))
        values = {**row, "setup": number}
        _execute(connection, statement, [values[name] for name in KEPT_COLUMNS])
    for record_path in gone:
        connection.execute(
            f"DELETE FROM {database}.kept WHERE record_path = CAST(? AS TEXT)", (sql_value(record_path),)
        )


def put_words(connection: sqlite3.Connection, database: str, said: Words) -> None:
    """Replace what people said."""
    for table in WORDS:
        connection.execute(f"DELETE FROM {database}.{table}")
    connection.executemany(f"INSERT INTO {database}.verdicts VALUES (?, ?)", said.verdicts.items())
    intervals = ((identity, *map(sql_value, astuple(one))) for identity, one in said.validities.items())
    connection.executemany(
        f"INSERT INTO {database}.validities VALUES (?, ?, ?, CAST(? AS TEXT), ?, CAST(? AS TEXT))", intervals
    )
    flags = ((identity, one.flags, one.made) for identity, one in said.qualities.items())
    connection.executemany(f"INSERT INTO {database}.qualities VALUES (?, ?, ?)", flags)


def put_rows(connection: sqlite3.Connection, rows: Iterable[tuple[Row, Sequence[Row]]]) -> None:
    """Replace the objects of records, and their links, within a transaction of the caller.

    The rows of one record must stand together: what the index had of it goes.
    """
    put_one = _putter(connection)
    for record_path, group in groupby(rows, key=record_path_of):
        remove_rows(connection, "record_path", [record_path])
        for row, links in group:
            put_one(row, links)


def _putter(connection: sqlite3.Connection) -> Callable[[Row, Sequence[Row]], None]:
    """A function that puts an object with its links, which remembers the inputs of those before."""

    @functools.lru_cache(INPUTS_KEPT)
    def input_number(key: str | None, content: str) -> int:
        """The number under which the index holds an input, from now on if it did not yet."""
        known = _execute(connection, _FIND_INPUT, (key, content)).fetchone()
        return int(known[0] if known else _execute(connection, _PUT_INPUT, (key, content)).lastrowid or 0)

    @functools.lru_cache(INPUTS_KEPT)
    def put_setup(text: str) -> int:
        number = setup_number(text)
        connection.execute("INSERT OR IGNORE INTO setups VALUES (?, ?)", (number, text))
        return number

    def put_one(row: Row, links: Sequence[Row]) -> None:
        child = _execute(
            connection, _PUT_OBJECT, _in_order({**row, "setup": put_setup(row["setup"])})
        ).lastrowid
        used = [(child, one["role"], input_number(one["recipe_key"], one["content"])) for one in links]
        try:
            connection.executemany(_PUT_LINK.quick, used)
        except UnicodeEncodeError:
            connection.executemany(
                _PUT_LINK.careful, [(*one, sql_value(role), number) for *one, role, number in used]
            )

    return put_one


class _Statement(NamedTuple):
    """SQL with values as they are, and with texts given as bytes."""

    quick: str
    careful: str


def _statement(careful: str) -> _Statement:
    return _Statement(careful.replace("CAST(? AS TEXT)", "?"), careful)


def _execute(connection: sqlite3.Connection, statement: _Statement, values: Sequence[Any]) -> sqlite3.Cursor:
    try:
        return connection.execute(statement.quick, values)
    except UnicodeEncodeError:
        return connection.execute(statement.careful, [sql_value(value) for value in values])


def record_path_of(one: tuple[Row, Sequence[Row]]) -> str:
    """The record that a row is of."""
    return str(one[0]["record_path"])


def _places(columns: Mapping[str, str]) -> str:
    return ", ".join("CAST(? AS TEXT)" if kind == "TEXT" else "?" for kind in columns.values())


_PUT_OBJECT = _statement(f"INSERT OR REPLACE INTO objects ({', '.join(COLUMNS)}) VALUES ({_places(COLUMNS)})")
_in_order = itemgetter(*COLUMNS)
_PUT_LINK = _statement(f"INSERT OR IGNORE INTO links VALUES ({_places(LINK_COLUMNS)})")
_FIND_INPUT = _statement(
    "SELECT number FROM inputs WHERE recipe_key IS CAST(? AS TEXT) AND content = CAST(? AS TEXT)"
)
_PUT_INPUT = _statement("INSERT INTO inputs (recipe_key, content) VALUES (CAST(? AS TEXT), CAST(? AS TEXT))")


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
        connection.execute(f"DELETE FROM links WHERE child IN (SELECT number {chosen})", (sql_value(value),))
        connection.execute(f"DELETE {chosen}", (sql_value(value),))
