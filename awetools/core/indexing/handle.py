"""An open index of a store: what it is asked, and the rows, words and kept records it takes over."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from ..errors import NoRecord, Unavailable
from ..journal import Interval, Quality, Words, words
from ..store import Store
from .generations import TIMEOUT_S, Generation, present, sweep
from .indexfile import (
    copy_kept,
    create_kept,
    create_words,
    errors_named,
    put_kept,
    put_rows,
    put_words,
    remove_rows,
    sql_value,
)
from .indexrows import COLUMNS, KEPT, Row, kept_row, meta_text
from .querynames import IN_FORCE, SETUP, VERDICT, column_sql

BATCH = 500
# Two changes of a directory within so long may leave it the same time.
SAME_TIME_NS = 2_000_000_000
# What is an input under one of the identities of a JSON list, each looked for as product and as raw frame.
USED = """used(identity, number, content) AS (
    SELECT inputs.recipe_key, inputs.number, inputs.content FROM json_each(?1) AS wanted
    CROSS JOIN inputs ON inputs.recipe_key = wanted.value
    UNION ALL SELECT inputs.content, inputs.number, inputs.content FROM json_each(?1) AS wanted
    CROSS JOIN inputs ON inputs.recipe_key IS NULL AND inputs.content = wanted.value)"""


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
            sweep(self.generation[0])

    def is_current(self) -> bool:
        """Whether this is still the index of the store, and not one that was deleted or replaced."""
        return self.generation is None or present(self.store) == self.generation

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction, committed at its end, or undone; raises Unavailable, IndexBusy."""
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
        with self.writing() as connection:
            put_rows(connection, rows)

    def remove(self, addresses: Iterable[str]) -> None:
        """Forget objects and their links."""
        with self.writing() as connection:
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
        with self.writing() as connection:
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
            with self.writing() as connection:
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
        with self.writing() as connection:
            create_kept(connection, "main")
            put_kept(connection, "main", (), gone)
        for first in range(0, len(new), BATCH):
            rows = list(self._kept_rows(new[first : first + BATCH]))
            with self.writing() as connection:
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
        return column_sql(self.store, name, measures, table)
