"""The SQLite index of a store: a cache of its records, rebuilt from them at any time.

Every write is one short BEGIN IMMEDIATE transaction in WAL mode, so that many
programs can write at once. An index that is deleted while programs run is rebuilt
by the next one; a writer whose index was replaced under it writes again.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from . import store as stores
from .errors import IndexBusy, NoRecord, Unavailable, UnknownName, nearest
from .journal import verdicts
from .meta import ALIASES, FIELDS
from .record import Record, read_record, sidecar
from .store import Store

SCHEMA_VERSION = 1
TIMEOUT_S = 60.0
BATCH = 500

SQL_TYPES = {"text": "TEXT", "real": "REAL", "integer": "INTEGER"}
META_COLUMNS = {field.name: SQL_TYPES[field.type] for field in FIELDS if field.type in SQL_TYPES}
COLUMNS = {
    "address": "TEXT",
    "record_path": "TEXT",
    "record_mtime_ns": "INTEGER",
    "kind": "TEXT",
    "sequence": "INTEGER",
    "made": "TEXT",
    "content": "TEXT",
    "recipe_key": "TEXT",
    "bytes": "INTEGER",
    "mtime_ns": "INTEGER",
    "inode": "INTEGER",
    "valid_from": "TEXT",
    "valid_to": "TEXT",
    "valid_by": "TEXT",
    "flags": "INTEGER",
    **META_COLUMNS,
    "meta": "TEXT",
    "measures": "TEXT",
}
LINK_COLUMNS = {
    "child": "TEXT",
    "role": "TEXT",
    "address": "TEXT",
    "content": "TEXT",
    "recipe_key": "TEXT",
}
INDEXES = (
    ("objects", ("kind", "instrument", "detector", "night")),
    ("objects", ("recipe_key",)),
    ("objects", ("content",)),
    ("links", ("child",)),
    ("links", ("content",)),
)

# Names a person may ask for that are not meta fields, with their types.
QUERY_COLUMNS = {
    "path": "text",
    "kind": "text",
    "made": "text",
    "content": "text",
    "recipe_key": "text",
    "bytes": "integer",
    "valid_from": "text",
    "valid_to": "text",
    "valid_by": "text",
    "flags": "integer",
    "verdict": "text",
    "sequence": "integer",
}

Row = dict[str, Any]


class Index:
    """An open index of one store."""

    def __init__(self, store: Store, connection: sqlite3.Connection, inode: int, writable: bool) -> None:
        self.store = store
        self.connection = connection
        self.inode = inode
        self.writable = writable

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with _errors_named(self.store):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
            except BaseException:
                self.connection.execute("ROLLBACK")
                raise
            self.connection.execute("COMMIT")

    def put(self, rows: Sequence[tuple[Row, Sequence[Row]]]) -> None:
        """Add or replace objects with their links, all or none."""
        with self._writing() as connection:
            _put(connection, rows)

    def remove(self, addresses: Iterable[str]) -> None:
        """Forget objects and their links."""
        with self._writing() as connection:
            for address in addresses:
                connection.execute("DELETE FROM objects WHERE address = ?", (address,))
                connection.execute("DELETE FROM links WHERE child = ?", (address,))

    def rows(self, where: str = "1", values: Sequence[object] = (), tail: str = "") -> Iterator[Row]:
        """Objects that a fragment of SQL selects, as dictionaries, with their verdict."""
        sql = f"SELECT *, (SELECT verdict FROM verdicts WHERE identity = {IDENTITY}) AS verdict FROM objects"
        with _errors_named(self.store):
            cursor = self.connection.execute(f"{sql} WHERE {where} {tail}", values)
        names = [column[0] for column in cursor.description]
        for row in cursor:
            yield dict(zip(names, row, strict=True))

    def links(self, where: str, values: Sequence[object]) -> list[Row]:
        """Links that a fragment of SQL selects."""
        cursor = self.connection.execute(f"SELECT * FROM links WHERE {where} ORDER BY rowid", values)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def stamps(self) -> dict[str, tuple[int, int, int, str]]:
        """Of every raw frame: its file's size, mtime and inode, and the detector address."""
        sql = "SELECT address, bytes, mtime_ns, inode, record_path FROM objects WHERE kind LIKE 'raw\\_%' ESCAPE '\\'"
        return {row[0]: (row[1], row[2], row[3], row[4]) for row in self.connection.execute(sql)}

    def refresh_verdicts(self) -> None:
        """Take over the verdicts of the journal, if it grew since."""
        try:
            size = self.store.journal_path.stat().st_size
        except FileNotFoundError:
            size = 0
        known = self.connection.execute("SELECT value FROM state WHERE name = 'journal_bytes'").fetchone()
        if known and known[0] == size:
            return
        found = verdicts(self.store)
        if not self.writable:
            self._verdicts_in_memory(found)
            return
        with self._writing() as connection:
            connection.execute("DELETE FROM verdicts")
            connection.executemany("INSERT INTO verdicts VALUES (?, ?)", found.items())
            connection.execute("INSERT OR REPLACE INTO state VALUES ('journal_bytes', ?)", (size,))

    def _verdicts_in_memory(self, found: Mapping[str, str]) -> None:
        self.connection.execute("CREATE TEMP TABLE verdicts (identity TEXT PRIMARY KEY, verdict TEXT)")
        self.connection.executemany("INSERT INTO temp.verdicts VALUES (?, ?)", found.items())

    def column(self, name: str, measures: Sequence[str]) -> tuple[str, str]:
        """A name of the query language as SQL and its type; raises UnknownName with the nearest name."""
        name = ALIASES.get(name, name)
        if name == "path":
            return "address", "text"
        if name == "verdict":
            return f"(SELECT verdict FROM verdicts WHERE identity = {IDENTITY})", "text"
        if name in QUERY_COLUMNS:
            return name, QUERY_COLUMNS[name]
        if name in META_COLUMNS:
            return name, META_COLUMNS[name].lower()
        if name in {field.name for field in FIELDS}:
            return f"json_extract(meta, '$.{name}')", "text"
        if name in measures:
            return f"json_extract(measures, '$.\"{name}\"')", "real"
        known = [*QUERY_COLUMNS, *(field.name for field in FIELDS), *ALIASES, *measures]
        raise UnknownName(f"no field {name!r}{nearest(name, known)}")


IDENTITY = "coalesce(objects.recipe_key, objects.content)"


def open_index(store: Store) -> Index:
    """Open the index of a store, rebuilding it if it is gone. Raises Unavailable, IndexBusy."""
    for _ in range(5):
        try:
            inode = store.index_path.stat().st_ino
        except FileNotFoundError:
            rebuild(store)
            continue
        except OSError as error:
            raise Unavailable(f"{store.index_path}: {error.strerror}") from None
        with _errors_named(store):
            connection, writable = _connect(store.index_path)
            index = Index(store, connection, inode, writable)
            _check_version(index)
            index.refresh_verdicts()
            return index
    raise Unavailable(f"{store.index_path}: disappears as fast as it is made")


def put_records(store: Store, rows: Sequence[tuple[Row, Sequence[Row]]]) -> None:
    """Write rows into the index of a store, again if it was deleted or replaced meanwhile."""
    for _ in range(5):
        index = open_index(store)
        try:
            for first in range(0, len(rows), BATCH):
                index.put(rows[first : first + BATCH])
        finally:
            index.close()
        with suppress(FileNotFoundError):
            if store.index_path.stat().st_ino == index.inode:
                return
    raise Unavailable(f"{store.index_path}: is replaced again and again", hint="awe-index --rebuild")


def rebuild(store: Store) -> int:
    """Make the index anew from the records of a store; returns the number of objects."""
    new = store.awe / f".index.{os.getpid()}.new"
    try:
        lock = os.open(store.awe / "index.lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise Unavailable(f"{store.awe}: cannot make an index: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        new.unlink(missing_ok=True)
        with _errors_named(store):
            count = _fill(new, store)
        # The write-ahead log of an index that is gone must not be replayed into this one.
        for suffix in ("-wal", "-shm"):
            Path(f"{store.index_path}{suffix}").unlink(missing_ok=True)
        new.replace(store.index_path)
        return count
    finally:
        new.unlink(missing_ok=True)
        os.close(lock)


def all_rows(store: Store) -> Iterator[tuple[Row, Sequence[Row]]]:
    """The rows of every record of a store, read from the files; what cannot be read is left to awe-verify."""
    for path, raw in stores.raw_records(store):
        yield from raw_rows(store, raw, path)
    for product in stores.product_paths(store):
        with suppress(NoRecord):
            yield product_row(store, product, read_record(sidecar(product)))


def product_row(store: Store, product: Path, record: Record) -> tuple[Row, list[Row]]:
    """The row of a product and its links, from its record."""
    address = relative(store, product)
    meta, about, validity = record["meta"], record["product"], record["validity"] or {}
    row = _meta_row(meta) | {
        "address": address,
        "record_path": f"{address}.json",
        "record_mtime_ns": _mtime_ns(sidecar(product)),
        "kind": record["recipe"]["kind"],
        "sequence": record["run"].get("sequence"),
        "made": record["run"].get("end"),
        "content": about["content"],
        "recipe_key": record["recipe_key"],
        "bytes": about["bytes"],
        "mtime_ns": about.get("mtime_ns"),
        "inode": None,
        "valid_from": validity.get("start"),
        "valid_to": validity.get("end"),
        "valid_by": validity.get("by"),
        "flags": record["quality"]["flags"],
        "measures": json.dumps(record["quality"]["measures"]),
    }
    links = [
        {
            "child": address,
            "role": one["role"],
            "address": one.get("path"),
            "content": one["content"],
            "recipe_key": one.get("recipe_key"),
        }
        for one in record["recipe"]["inputs"]
    ]
    return row, links


def raw_rows(store: Store, raw: Mapping[str, Any], path: Path) -> list[tuple[Row, list[Row]]]:
    """The rows of a raw record, one a detector."""
    found = []
    many = len(raw["detectors"]) > 1
    for one in raw["detectors"]:
        file, meta = raw["file"], one["meta"]
        row = _meta_row(meta) | {
            "address": f"{file['path']}[{one['detector']}]" if many else file["path"],
            "record_path": relative(store, path),
            "record_mtime_ns": _mtime_ns(path),
            "kind": meta["frame_type"],
            "sequence": None,
            "made": raw["registered"],
            "content": one["content"],
            "recipe_key": None,
            "bytes": file["bytes"],
            "mtime_ns": file["mtime_ns"],
            "inode": file["inode"],
            "valid_from": None,
            "valid_to": None,
            "valid_by": None,
            "flags": 0,
            "measures": "{}",
        }
        found.append((row, []))
    return found


def relative(store: Store, path: Path) -> str:
    """A path as the index holds it: relative to the store where it lies in it."""
    full = Path(os.path.abspath(path))
    return str(full.relative_to(store.root)) if store.holds(full) else str(full)


def absolute(store: Store, address: str) -> str:
    """The address of an index row as a path that programs can open."""
    return os.path.join(store.root, address)


def highest_sequence(store: Store) -> int:
    """The highest sequence number that any record of the store has; 0 if none."""
    if not store.index_path.exists():
        return max((row["sequence"] or 0 for row, _ in all_rows(store)), default=0)
    index = open_index(store)
    try:
        found = index.connection.execute("SELECT max(sequence) FROM objects").fetchone()[0]
        return int(found or 0)
    finally:
        index.close()


def check(store: Store) -> list[str]:
    """Where the index differs from the records; an empty list if nowhere."""
    index = open_index(store)
    try:
        indexed = {row["address"]: row for row in index.rows()}
    finally:
        index.close()
    problems = []
    for row, _ in all_rows(store):
        known = indexed.pop(row["address"], None)
        if known is None:
            problems.append(f"{row['address']}: has a record but is not in the index")
        elif any(known[name] != row[name] for name in ("content", "recipe_key", "kind", "meta", "flags")):
            problems.append(f"{row['address']}: the index differs from the record")
    problems += [f"{address}: in the index, but its record is gone" for address in indexed]
    return problems


def update(store: Store) -> tuple[list[str], list[str]]:
    """Take over what was added, changed or removed in the store's files; returns (put, removed) addresses."""
    index = open_index(store)
    try:
        known = {row["address"]: row["record_mtime_ns"] for row in index.rows()}
        found = list(all_rows(store))
        fresh = [one for one in found if known.get(one[0]["address"]) != one[0]["record_mtime_ns"]]
        gone = sorted(set(known) - {row["address"] for row, _ in found})
        if fresh:
            index.put(fresh)
        if gone:
            index.remove(gone)
    finally:
        index.close()
    return [row["address"] for row, _ in fresh], gone


def _meta_row(meta: Mapping[str, Any]) -> Row:
    row: Row = {name: meta.get(name) for name in META_COLUMNS}
    row["meta"] = json.dumps(meta, sort_keys=True)
    return row


def _mtime_ns(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _connect(path: Path) -> tuple[sqlite3.Connection, bool]:
    readable_only = not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK)
    if not readable_only:
        connection = sqlite3.connect(path, timeout=TIMEOUT_S, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection, True
    # On a read-only file system nobody else can write, so no lock is needed; where others
    # may write, an immutable connection would read torn pages.
    frozen = os.statvfs(path).f_flag & os.ST_RDONLY
    uri = f"{path.as_uri()}?{'immutable=1' if frozen else 'mode=ro'}"
    return sqlite3.connect(uri, uri=True, timeout=TIMEOUT_S, isolation_level=None), False


def _check_version(index: Index) -> None:
    found = index.connection.execute("PRAGMA user_version").fetchone()[0]
    if found > SCHEMA_VERSION:
        raise Unavailable(
            f"{index.store.index_path}: version {found}, made by a newer awetools "
            f"(this one knows {SCHEMA_VERSION})",
            hint="upgrade awetools, or awe-index --rebuild with this one",
        )


@contextmanager
def _errors_named(store: Store) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if "locked" in text or "busy" in text:
            raise IndexBusy(f"{store.index_path}: {text} for {TIMEOUT_S:.0f} s") from None
        raise Unavailable(f"{store.index_path}: {text}", hint="awe-index --rebuild") from None
    except sqlite3.DatabaseError as error:
        raise Unavailable(f"{store.index_path}: {error}", hint="awe-index --rebuild") from None


def _fill(path: Path, store: Store) -> int:
    create(path)
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN IMMEDIATE")
        count = _put(connection, all_rows(store))
        connection.execute("COMMIT")
        return count
    finally:
        connection.close()


def create(path: Path) -> None:
    """Make an empty index file with its tables."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        for table, columns, key in (
            ("objects", COLUMNS, "address"),
            ("links", LINK_COLUMNS, None),
            ("verdicts", {"identity": "TEXT", "verdict": "TEXT"}, "identity"),
            ("state", {"name": "TEXT", "value": "INTEGER"}, "name"),
        ):
            parts = [f"{name} {kind}{' PRIMARY KEY' * (name == key)}" for name, kind in columns.items()]
            connection.execute(f"CREATE TABLE {table} ({', '.join(parts)})")
        for table, names in INDEXES:
            connection.execute(f"CREATE INDEX {table}_{names[0]} ON {table} ({', '.join(names)})")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    finally:
        connection.close()


def _put(connection: sqlite3.Connection, rows: Iterable[tuple[Row, Sequence[Row]]]) -> int:
    names = list(COLUMNS)
    insert = f"INSERT OR REPLACE INTO objects ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    link = f"INSERT INTO links VALUES ({', '.join('?' * len(LINK_COLUMNS))})"
    count = 0
    for row, links in rows:
        connection.execute("DELETE FROM links WHERE child = ?", (row["address"],))
        connection.execute(insert, [row[name] for name in names])
        connection.executemany(link, [[one[name] for name in LINK_COLUMNS] for one in links])
        count += 1
    return count


def merge(store: Store, other: Store) -> tuple[int, int]:
    """Take over another store's raw records and verdicts, and index the products that lie in this one.

    Returns the numbers of raw records and of verdict events taken over. A frame
    that both know keeps this store's record.
    """
    taken = 0
    for _, raw in stores.raw_records(other):
        if not store.raw_record_path(raw["file"]["path"]).exists():
            stores.write_raw_record(store, raw)
            taken += 1
    events = _merge_journal(store, other)
    update(store)
    return taken, events


def _merge_journal(store: Store, other: Store) -> int:
    from .journal import append_events, read_events

    known = {json.dumps(event, sort_keys=True) for event in read_events(store)}
    new = [event for event in read_events(other) if json.dumps(event, sort_keys=True) not in known]
    append_events(store, new)
    return len(new)
