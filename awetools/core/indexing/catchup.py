"""What was added, changed or removed in the files of a store, taken over into its index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from ..errors import NoRecord
from ..store import Store
from .handle import BATCH, Index
from .indexfile import put_rows, remove_rows, sql_value
from .indexrows import Row, record_files, rows_of


@dataclass(frozen=True)
class Changes:
    """What an index took over: addresses put and removed, and the records that could not be read."""

    put: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unreadable: tuple[NoRecord, ...] = ()


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
    with index.writing() as connection:
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
        with index.writing() as connection:
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
