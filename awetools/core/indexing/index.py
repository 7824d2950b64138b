"""The SQLite index of a store: a cache of its records, rebuilt from them at any time.

Every write is one short BEGIN IMMEDIATE transaction in WAL mode, so that many
programs can write at once. `.awe/index.sqlite` is a link to a file whose name is
used only once: an index that is deleted or rebuilt while programs have it open
never meets the log files of the one before. A writer whose index was replaced
under it writes again; who rebuilds takes over what was written meanwhile.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any, TypeVar

from ..errors import IndexBusy, NoRecord, Unavailable, UnknownName, nearest
from ..files import open_shared
from ..journal import Interval, Quality, Words, words
from ..meta import ALIASES, FIELDS, Field
from ..store import Store
from .indexfile import (
    SCHEMA_VERSION,
    connect,
    copy_kept,
    create_kept,
    create_words,
    errors_named,
    fill_database,
    may_write,
    open_memory,
    put_kept,
    put_rows,
    put_words,
    record_path_of,
    remove_rows,
    sql_value,
    unlink_database,
)
from .indexrows import (
    COLUMNS,
    KEPT,
    META_COLUMNS,
    SETUP_FIELDS,
    Row,
    absolute,
    all_rows,
    kept_row,
    meta_text,
    product_row,
    raw_rows,
    record_files,
    relative,
    rows_of,
)

__all__ = [
    "COLUMNS",
    "META_COLUMNS",
    "QUERY_COLUMNS",
    "Changes",
    "Index",
    "Row",
    "absolute",
    "all_rows",
    "catch_up",
    "changes_of",
    "drop_index_leftover",
    "forget",
    "highest_sequence",
    "in_current",
    "index_leftovers",
    "open_index",
    "path_sql",
    "product_row",
    "put_records",
    "raw_rows",
    "rebuild",
    "relative",
    "text_sql",
    "update",
]

TIMEOUT_S = 60.0
BATCH = 500
# Two changes of a directory within so long may leave it the same time.
SAME_TIME_NS = 2_000_000_000

# What can be asked of every object besides its meta and measures.
QUERY_COLUMNS = {
    field.name: field
    for field in (
        Field("path", "text", "", "Where the file is."),
        Field("filename", "text", "", "Name of the file, without its folder."),
        Field("kind", "text", "", "Kind of product, or type of raw frame."),
        Field("made", "text", "UTC", "When the product was made, or the raw frame registered."),
        Field("sequence", "integer", "", "Place in the order in which the store's products were made."),
        Field("flags", "integer", "bits", "One bit for each measure that is outside its limits; 0 is clean."),
        Field("verdict", "text", "", "What a person judged: good, bad or ready."),
        Field("recipe_key", "text", "", "What the product is known by."),
        Field("content", "text", "SHA-256", "Hash of the pixels."),
        Field("bytes", "integer", "", "Size of the file."),
        Field("valid_from", "text", "UTC", "Start of the validity of a calibration."),
        Field("valid_to", "text", "UTC", "End of the validity of a calibration."),
        Field(
            "valid_by", "text", "", "hand if the interval was set by hand; else default, or a settings file."
        ),
    )
}
# What is left of the address less all up to its last slash.
FILENAME = "substr(objects.address, 1 + length(rtrim(objects.address, replace(objects.address, '/', ''))))"
IDENTITY = "coalesce(objects.recipe_key, objects.content)"
# What people said of an object comes before what its record says.
VERDICT = f"(SELECT verdict FROM verdicts WHERE identity = {IDENTITY})"
_BY_HAND = f"FROM validities WHERE identity = {IDENTITY}"
IN_FORCE = {
    "valid_from": f"CASE WHEN EXISTS(SELECT 1 {_BY_HAND}) THEN (SELECT since {_BY_HAND}) ELSE objects.valid_from END",
    "valid_to": f"CASE WHEN EXISTS(SELECT 1 {_BY_HAND}) THEN (SELECT until {_BY_HAND}) ELSE objects.valid_to END",
    "valid_by": f"CASE WHEN EXISTS(SELECT 1 {_BY_HAND}) THEN 'hand' ELSE objects.valid_by END",
    # A product that was made again later was judged by the newer limits.
    "flags": f"coalesce((SELECT qualities.flags FROM qualities WHERE identity = {IDENTITY} "
    "AND qualities.made >= coalesce(objects.made, '')), objects.flags)",
}
# What is an input under one of the identities of a JSON list, each looked for as product and as raw frame.
USED = """used(identity, number, content) AS (
    SELECT inputs.recipe_key, inputs.number, inputs.content FROM json_each(?1) AS wanted
    CROSS JOIN inputs ON inputs.recipe_key = wanted.value
    UNION ALL SELECT inputs.content, inputs.number, inputs.content FROM json_each(?1) AS wanted
    CROSS JOIN inputs ON inputs.recipe_key IS NULL AND inputs.content = wanted.value)"""
# The set-up of an object.
SETUP = "(SELECT setups.meta FROM setups WHERE setups.number = objects.setup)"
T = TypeVar("T")
# The file behind the link, and its inode.
Generation = tuple[Path, int]


class Index:
    """An open index of one store; `generation` is None for one that is only in memory."""

    def __init__(
        self, store: Store, connection: sqlite3.Connection, generation: Generation | None, writable: bool
    ) -> None:
        self.store = store
        self.connection = connection
        self.generation = generation
        self.writable = writable

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()
        if self.writable and self.generation is not None:
            _sweep(self.generation[0])

    def is_current(self) -> bool:
        """Whether this is still the index of the store, and not one that was deleted or replaced."""
        return self.generation is None or _current(self.store) == self.generation

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        if not self.writable:
            raise Unavailable(f"{self.store.index_path}: this user cannot write it")
        with self._errors_named():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise

    def _errors_named(self) -> AbstractContextManager[None]:
        return errors_named(self.store.index_path, TIMEOUT_S)

    def put(self, rows: Sequence[tuple[Row, Sequence[Row]]]) -> None:
        """Replace the objects of records, with their links, all or none; those of one record together."""
        with self._writing() as connection:
            put_rows(connection, rows)

    def remove(self, addresses: Iterable[str]) -> None:
        """Forget objects and their links."""
        with self._writing() as connection:
            remove_rows(connection, "address", addresses)

    def select(self, sql: str, values: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        """The rows of any SELECT; raises Unavailable, IndexBusy where SQLite cannot answer."""
        given = [sql_value(value) for value in values]
        if any(isinstance(value, bytes) for value in given):
            sql = sql.replace("?", "CAST(? AS TEXT)")
        with self._errors_named():
            yield from self.connection.execute(sql, given)

    def bulk(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows of a SELECT of many: twice as fast, where all text is UTF-8."""
        careful = self.connection.text_factory
        self.connection.text_factory = str
        try:
            return self.connection.execute(sql, values).fetchall()
        except (sqlite3.Error, UnicodeEncodeError):
            # Text that is not UTF-8, or a true problem, which then is named.
            pass
        finally:
            self.connection.text_factory = careful
        return list(self.select(sql, values))

    def rows(
        self, where: str = "1", values: Sequence[object] = (), tail: str = "", in_force: bool = True
    ) -> Iterator[Row]:
        """Objects that a fragment of SQL selects, as dictionaries, with verdict, interval and flags in force.

        Their meta is JSON, as in the record; a field that the record has not is null.
        in_force: by the words of this store; without it the verdict is None, interval and
        flags those of the record.
        """
        names = [*COLUMNS, "verdict", "meta"]
        columns = [IN_FORCE.get(name, name) if in_force else name for name in COLUMNS]
        verdict = VERDICT if in_force else "NULL"
        sql = f"SELECT {', '.join(columns)}, {verdict}, {SETUP} FROM objects WHERE {where} {tail}"
        for values_of_one in self.select(sql, values):
            row = dict(zip(names, values_of_one, strict=True))
            row["meta"] = self._meta(row)
            del row["rest"]
            yield row

    def _meta(self, row: Row) -> str:
        try:
            return meta_text(row, row["meta"])
        except (TypeError, ValueError, RecursionError):
            raise Unavailable(f"{self.store.index_path}: is damaged", hint="awe-index --rebuild") from None

    def inputs_of(self, addresses: Sequence[str]) -> list[Row]:
        """The inputs of products: address of the product (`child`), role, and the input's recipe key and content.

        The recipe key of a raw frame is None.
        """
        found: list[Row] = []
        for first in range(0, len(addresses), BATCH):
            part = addresses[first : first + BATCH]
            sql = (
                "SELECT objects.address, links.role, inputs.recipe_key, inputs.content FROM objects "
                "CROSS JOIN links ON links.child = objects.number JOIN inputs ON inputs.number = links.input "
                f"WHERE objects.address IN ({', '.join('?' * len(part))}) ORDER BY objects.number, inputs.number"
            )
            names = ("child", "role", "recipe_key", "content")
            found += [dict(zip(names, row, strict=True)) for row in self.select(sql, part)]
        return found

    def users_of(self, identities: Sequence[str]) -> list[Row]:
        """What has one of these as input: its `identity` and `content`, the role, and the product's address.

        identities: recipe keys of products, contents of raw frames. Of one key there
        can be several contents: a recipe made again by other software.
        """
        names = ("identity", "content", "role", "address")
        sql = (
            f"WITH {USED} SELECT used.identity, used.content, links.role, objects.address FROM used "
            "CROSS JOIN links ON links.input = used.number CROSS JOIN objects ON objects.number = links.child"
        )
        return [dict(zip(names, row, strict=True)) for row in self.bulk(sql, [json.dumps(list(identities))])]

    def stamps(self) -> dict[str, tuple[int, int, int, str]]:
        """Of every raw frame, by its address: size, mtime and inode of its file, and its record's path."""
        sql = "SELECT address, bytes, mtime_ns, inode, record_path FROM objects WHERE kind LIKE 'raw\\_%' ESCAPE '\\'"
        return {row[0]: (row[1], row[2], row[3], row[4]) for row in self.select(sql)}

    def refresh_words(self) -> None:
        """Take over the verdicts and intervals of the journal, if it changed since."""
        try:
            stat = self.store.journal_path.stat()
            stamp = {"journal_bytes": stat.st_size, "journal_mtime_ns": stat.st_mtime_ns}
        except FileNotFoundError:
            stamp = {"journal_bytes": 0, "journal_mtime_ns": 0}
        known = dict(self.select("SELECT name, value FROM state"))
        if stamp.items() <= known.items():
            return
        found = words(self.store)
        if not self.writable:
            self.hear(found)
            return
        with self._writing() as connection:
            put_words(connection, "main", found)
            connection.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", stamp.items())

    def refresh_kept(self) -> bool:
        """Take over the records that the store keeps, if there are others than before; whether there are any.

        Each is read once: a kept record is never changed.
        """
        looked_at_ns = time.time_ns()
        try:
            changed_ns = self.store.records_path.stat().st_mtime_ns
        except OSError:
            changed_ns = 0
        known = dict(self.select("SELECT name, value FROM state"))
        there = any(self.select("SELECT 1 FROM sqlite_master WHERE name = 'kept'"))
        if there and known.get("records_mtime_ns") == changed_ns:
            return True
        paths = set(map(KEPT.__add__, self._kept_names()))
        if not there and not paths:
            return False
        before = {row[0] for row in self.select("SELECT record_path FROM kept")} if there else set()
        self._put_kept(sorted(paths - before), sorted(before - paths))
        if self.writable and changed_ns < looked_at_ns - SAME_TIME_NS:
            with self._writing() as connection:
                stamp = ("records_mtime_ns", changed_ns)
                connection.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", stamp)
        return True

    def _kept_names(self) -> list[str]:
        try:
            with os.scandir(self.store.records_path) as found:
                return [one.name for one in found if one.name.endswith(".json") and one.name[0] != "."]
        except OSError:
            return []

    def _put_kept(self, new: Sequence[str], gone: Sequence[str]) -> None:
        if not new and not gone:
            return
        if not self.writable:
            with self._errors_named():
                copy_kept(self.connection)
                put_kept(self.connection, "temp", self._kept_rows(new), gone)
            return
        with self._writing() as connection:
            create_kept(connection, "main")
            put_kept(connection, "main", (), gone)
        for first in range(0, len(new), BATCH):
            rows = list(self._kept_rows(new[first : first + BATCH]))
            with self._writing() as connection:
                put_kept(connection, "main", rows)

    def _kept_rows(self, record_paths: Iterable[str]) -> Iterator[Row]:
        for record_path in record_paths:
            # What cannot be read is left to awe-verify.
            with suppress(NoRecord):
                yield kept_row(self.store, os.path.basename(record_path))

    def words(self) -> Words:
        """What is in force by the journal, as the index knows it."""
        intervals = {row[0]: Interval(*row[1:]) for row in self.select("SELECT * FROM validities")}
        qualities = {row[0]: Quality(*row[1:]) for row in self.select("SELECT * FROM qualities")}
        return Words(dict(self.select("SELECT identity, verdict FROM verdicts")), intervals, qualities)

    def words_on(self, identities: Sequence[str]) -> Words:
        """What is in force of some identities."""
        where = f"WHERE identity IN ({', '.join('?' * len(identities))})"
        intervals = self.select(f"SELECT * FROM validities {where}", identities)
        qualities = self.select(f"SELECT * FROM qualities {where}", identities)
        return Words(
            dict(self.select(f"SELECT identity, verdict FROM verdicts {where}", identities)),
            {row[0]: Interval(*row[1:]) for row in intervals},
            {row[0]: Quality(*row[1:]) for row in qualities},
        )

    def hear(self, said: Words) -> None:
        """Take other words for those in force, for this connection alone."""
        # A temporary table hides the one of the same name in the file.
        create_words(self.connection, "temp")
        put_words(self.connection, "temp", said)

    def column(self, name: str, measures: Sequence[str], table: str = "objects") -> tuple[str, str]:
        """A name of the query language as SQL and its type; raises UnknownName with the nearest name.

        table: what the statement calls the objects.
        """
        sql, kind = self._column(name, measures)
        return sql.replace("objects.", f"{table}."), kind

    def _column(self, name: str, measures: Sequence[str]) -> tuple[str, str]:
        name = ALIASES.get(name, name)
        if name == "path":
            return path_sql(self.store, "objects.address"), "text"
        if name == "filename":
            return FILENAME, "text"
        if name == "verdict":
            return VERDICT, "text"
        if name in IN_FORCE:
            return IN_FORCE[name], QUERY_COLUMNS[name].type
        if name in QUERY_COLUMNS:
            return f"objects.{name}", QUERY_COLUMNS[name].type
        if name in META_COLUMNS:
            return f"objects.{name}", META_COLUMNS[name].lower()
        # A measure before a meta field of the same name: the one number that was measured, not the
        # list of one an amplifier.
        if name in measures:
            return f"json_extract(objects.measures, '$.\"{name}\"')", "real"
        if name in {field.name for field in FIELDS}:
            whole = SETUP if name in SETUP_FIELDS else "objects.rest"
            return f"json_extract({whole}, '$.{name}')", "text"
        known = [*QUERY_COLUMNS, *(field.name for field in FIELDS), *ALIASES, *measures]
        raise UnknownName(f"no field {name!r}{nearest(name, known)}")


def path_sql(store: Store, address: str) -> str:
    """An address as the path that `absolute` makes of it."""
    inside = os.path.join(store.root, "")
    return f"CASE WHEN substr({address}, 1, 1) = '/' THEN {address} ELSE {text_sql(inside)} || {address} END"


def text_sql(value: str) -> str:
    """A text as SQL, whatever bytes it has."""
    given = sql_value(value)
    raw = given if isinstance(given, bytes) else value.encode()
    return f"CAST(x'{raw.hex()}' AS TEXT)"


# Opening


def open_index(store: Store) -> Index:
    """Open the index of a store, rebuilding it if it is gone or of an older version.

    In a store that this user cannot write, an index that is gone is made in
    memory. Raises Unavailable, IndexBusy.
    """
    attempts = _Attempts()
    while attempts.left():
        generation = _current(store)
        if generation is None:
            if not store.awe.is_dir():
                raise Unavailable(f"{store.root}: the store is gone", hint=f"ls -ld {store.awe}")
            if not may_write(store.awe):
                return _in_memory(store)
            _renew(store, None)
            # Making the index of a large store takes longer than any patience.
            attempts = _Attempts()
            continue
        try:
            index = _opened(store, generation)
        except Unavailable:
            if _current(store) == generation:
                raise
            continue
        if index is not None and index.is_current():
            return index
        if index is None:
            attempts = _Attempts()
        else:
            index.close()
    raise Unavailable(f"{store.index_path}: disappears as fast as it is made")


class _Attempts:
    """Once, and again until the timeout."""

    def __init__(self) -> None:
        self._deadline = time.monotonic() + TIMEOUT_S
        self._begun = False

    def left(self) -> bool:
        """Whether to try (again)."""
        first, self._begun = not self._begun, True
        return first or time.monotonic() < self._deadline


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
    _renew(store, generation)
    return None


def _current(store: Store) -> Generation | None:
    """The file that the index is in at present; None if there is none."""
    try:
        path = os.path.realpath(store.index_path, strict=True)
        return Path(path), os.stat(path).st_ino
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Unavailable(f"{store.index_path}: {error.strerror}") from None


def _in_memory(store: Store) -> Index:
    """The index of a store that this user cannot write, made for this program alone."""
    with errors_named(store.index_path, TIMEOUT_S):
        connection = open_memory(all_rows(store))
        index = Index(store, connection, None, False)
        index.refresh_words()
        return index


# Making


def rebuild(store: Store) -> int:
    """Make the index anew from the records of a store; returns the number of objects."""
    with _rebuild_lock(store):
        return _replace(store)


def _renew(store: Store, seen: Generation | None) -> None:
    """Rebuild, unless another program did it since the present index was seen to be gone or old."""
    with _rebuild_lock(store):
        if _current(store) == seen:
            _replace(store)


@contextmanager
def _rebuild_lock(store: Store, wait: bool = True) -> Iterator[None]:
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
    with suppress(IndexBusy, Unavailable), _rebuild_lock(store, wait=False):
        current = _current(store)
        return _files_of_others(store, current[0] if current else None)
    return []


def drop_index_leftover(store: Store, path: Path) -> bool:
    """Remove a file that is not of the store's index; whether it was removed."""
    if path not in index_leftovers(store):
        return False
    path.unlink(missing_ok=True)
    return True


def _replace(store: Store) -> int:
    attempts = _Attempts()
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
        _point_at(store, part, new)
        with Index(store, connect(new, TIMEOUT_S)[0], _current(store), True) as index:
            # What was published while the new index was being filled went into the old one.
            catch_up(index)
            count = int(next(index.select("SELECT count(*) FROM objects"))[0])
    for path in _files_of_others(store, new):
        path.unlink(missing_ok=True)
    return count


def _files_of_others(store: Store, current: Path | None) -> list[Path]:
    """The files of all indexes but one, with their logs and links; their names are never used again."""
    found = sorted([*store.awe.glob("index-*.sqlite*"), *store.awe.glob(".index-*.sqlite.*")])
    return [path for path in found if current is None or not path.name.startswith(current.name)]


def _sweep(path: Path) -> None:
    """Remove the log files that SQLite made for an index which was deleted a moment before, and so leaves."""
    if path.name.startswith("index-") and not path.exists():
        with suppress(OSError):
            unlink_database(path)


def _point_at(store: Store, part: Path, new: Path) -> None:
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
    attempts = _Attempts()
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


@dataclass(frozen=True)
class Changes:
    """What an index took over: addresses put and removed, and the records that could not be read."""

    put: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unreadable: tuple[NoRecord, ...] = ()


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


def catch_up(index: Index) -> Changes:
    """Take over what was added, changed or removed in the files of an open index's store.

    A record whose time is the one in the index is not read. Memory does not
    grow with the number of records, only with that of the changes.
    """
    put: list[str] = []
    unreadable: list[NoRecord] = []
    for chunk in new_or_changed(index):
        rows = []
        for record_path, mtime_ns in chunk:
            try:
                rows.append((record_path, mtime_ns, rows_of(index.store, record_path, mtime_ns)))
            except NoRecord as error:
                if _time_of(index.store, record_path) is not None:
                    unreadable.append(error)
                rows.append((record_path, mtime_ns, []))
        put += _take_over(index, rows)
    index.refresh_kept()
    return Changes(tuple(put), tuple(_remove_gone(index)), tuple(unreadable))


def new_or_changed(index: Index) -> Iterator[list[tuple[str, int]]]:
    """Records whose time is not the one in the index, in pieces; notes all records in temp.seen."""
    connection = index.connection
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS seen (record_path TEXT PRIMARY KEY) WITHOUT ROWID")
    connection.execute("DELETE FROM temp.seen")
    files = record_files(index.store)
    while chunk := list(islice(files, BATCH)):
        names = [(sql_value(record_path),) for record_path, _ in chunk]
        connection.execute("BEGIN")
        connection.executemany("INSERT OR IGNORE INTO temp.seen VALUES (CAST(? AS TEXT))", names)
        connection.execute("COMMIT")
        sql = f"SELECT record_path, record_mtime_ns FROM objects WHERE record_path IN ({', '.join('?' * len(chunk))})"
        known = dict(index.select(sql, [record_path for record_path, _ in chunk]))
        changed = [one for one in chunk if known.get(one[0]) != one[1]]
        if changed:
            yield changed


def _take_over(index: Index, found: Sequence[tuple[str, int, list[tuple[Row, list[Row]]]]]) -> list[str]:
    """Replace the rows of these records; returns the addresses put."""
    put = []
    with index._writing() as connection:
        for record_path, mtime_ns, rows in found:
            # Who replaced the record meanwhile has put its row, or is about to.
            if _time_of(index.store, record_path) != mtime_ns:
                continue
            remove_rows(connection, "record_path", [record_path])
            put_rows(connection, rows)
            put += [row["address"] for row, _ in rows]
    return put


def _remove_gone(index: Index) -> list[str]:
    gone = [path for path in not_seen(index) if is_gone(index.store, path)]
    removed = []
    for first in range(0, len(gone), BATCH):
        with index._writing() as connection:
            for record_path in gone[first : first + BATCH]:
                if not is_gone(index.store, record_path):
                    continue
                sql = "SELECT address FROM objects WHERE record_path = ?"
                removed += [row[0] for row in index.select(sql, [record_path])]
                remove_rows(connection, "record_path", [record_path])
    return removed


def not_seen(index: Index) -> list[str]:
    """The records of the index's rows that new_or_changed did not come across."""
    sql = "SELECT DISTINCT record_path FROM objects WHERE record_path NOT IN (SELECT record_path FROM temp.seen)"
    return [row[0] for row in index.select(sql)]


def _time_of(store: Store, record_path: str) -> int | None:
    try:
        return (store.root / record_path).stat().st_mtime_ns
    except OSError:
        return None


def is_gone(store: Store, record_path: str) -> bool:
    """Whether a record surely does not exist; one that cannot be looked at may."""
    try:
        (store.root / record_path).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
