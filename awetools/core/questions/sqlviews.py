"""Read-only SQL on documented views of the index: plain names and units, one fact a column."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ..errors import Unavailable, UsageError, nearest
from ..indexing.indexrows import META_COLUMNS
from ..indexing.querynames import FILENAME, IN_FORCE, QUERY_COLUMNS, VERDICT, path_sql, text_sql
from ..meta import FIELDS
from ..store import Store
from .joined import Joined, joined_indexes

# No text or blob of an answer is larger.
MAX_BYTES = 100_000_000
# Instructions of SQLite's machine between two looks at the clock.
_LOOK_AFTER = 10_000

_STORE = ("store", "text", "", "Root of the store that holds it.")
_PATH = ("path", "text", "", "Where the file is.")
_FILENAME = ("filename", "text", "", "Name of the file, without its folder.")
_MADE = (
    "made",
    "sequence",
    "flags",
    "verdict",
    "recipe_key",
    "content",
    "bytes",
    "valid_from",
    "valid_to",
    "valid_by",
)


@dataclass(frozen=True)
class View:
    """A view: its name, a sentence, and of each column name, type, unit and a sentence."""

    name: str
    help: str
    columns: tuple[tuple[str, str, str, str], ...]


def views() -> tuple[View, ...]:
    """The views that SQL can be asked on."""
    meta = [(one.name, one.type, one.unit, one.help) for one in FIELDS if one.name in META_COLUMNS]
    asked = {one.name: (one.name, one.type, one.unit, one.help) for one in QUERY_COLUMNS.values()}
    made = [asked[name] for name in _MADE]
    kind = asked["kind"]
    taken = [asked[name] for name in ("content", "bytes", "verdict")]
    key = ("recipe_key", "text", "", "What the product is known by.")
    return (
        View("products", "Every product.", (_STORE, _PATH, _FILENAME, kind, *made, *meta)),
        View(
            "raws",
            "Every raw frame.",
            (_STORE, _PATH, _FILENAME, kind, ("registered", "text", "UTC", "When."), *taken, *meta),
        ),
        View(
            "measures",
            "Every measure of every product, one a row.",
            (
                _STORE,
                _PATH,
                _FILENAME,
                kind,
                key,
                ("name", "text", "", "Name of the measure; its end is the unit."),
                ("value", "real", "", "What was measured."),
            ),
        ),
        View(
            "inputs",
            "Every input of every product, one a row.",
            (
                _STORE,
                _PATH,
                _FILENAME,
                key,
                ("role", "text", "", "What the input was used as."),
                ("input_recipe_key", "text", "", "Recipe key of the input; null for a raw frame."),
                ("input_content", "text", "SHA-256", "Hash of the input's pixels."),
            ),
        ),
        View(
            "verdicts",
            "What people judged: the verdicts in force.",
            (
                ("identity", "text", "", "Recipe key of a product, content of a raw frame."),
                ("verdict", "text", "", "good, bad or ready."),
            ),
        ),
    )


def run_sql(
    sql: str, stores: Sequence[Store], timeout_s: float
) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
    """The columns of a SELECT on the views, and its rows as they come.

    Nothing can be changed or opened by it. Raises UsageError for SQL that cannot be run or
    is not allowed, Unavailable when it takes longer than timeout_s.
    """
    rows = _rows(sql, stores, timeout_s)
    return next(rows), rows


def _rows(sql: str, stores: Sequence[Store], timeout_s: float) -> Iterator[Any]:
    with ExitStack() as stack:
        joined = stack.enter_context(joined_indexes(stores, read_only=True))
        connection = joined.index.connection
        for name in ("products", "raws", "measures", "inputs"):
            every = " UNION ALL ".join(_select(name, joined, rank) for rank in range(len(joined.stores)))
            connection.execute(f"CREATE TEMP VIEW {name} AS {every}")
        refused: list[str] = []
        _lock(connection, refused, timeout_s)
        try:
            cursor = connection.execute(_checked(sql))
            if cursor.description is None:
                raise UsageError("this is no SELECT: nothing is answered, and nothing was changed")
            yield [str(column[0]) for column in cursor.description]
            yield from cursor
        except (sqlite3.Error, sqlite3.Warning, OverflowError, UnicodeEncodeError) as error:
            raise _named(error, refused, timeout_s) from None
        finally:
            connection.set_progress_handler(None, 0)
            connection.set_authorizer(None)


def _checked(sql: str) -> str:
    if not sql.strip():
        raise UsageError("no SQL: give a SELECT", hint="awe-sql --views")
    if "\0" in sql:
        raise UsageError("the SQL holds a NUL character")
    return sql


def _named(error: Exception, refused: Sequence[str], timeout_s: float) -> UsageError | Unavailable:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if refused:
        return UsageError(f"not allowed: {refused[0]}; the views can be read only", hint="awe-sql --views")
    if code == sqlite3.SQLITE_INTERRUPT:
        return Unavailable(f"no answer within {timeout_s:g} s", hint="--timeout SECONDS, or a narrower WHERE")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL):
        return Unavailable(f"the index: {error}")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return Unavailable(f"the index: {error}", hint="awe-index --rebuild")
    return UsageError(
        f"{error}{_nearest_of(str(error))}", hint="awe-sql --views lists the views and their columns"
    )


def _nearest_of(message: str) -> str:
    """The view or column that is nearest to the one which there is not."""
    what, _, name = message.partition(": ")
    if what == "no such table":
        return nearest(name, [view.name for view in views()])
    if what == "no such column":
        columns = [column for view in views() for column, *_ in view.columns]
        return nearest(name.rpartition(".")[2], list(dict.fromkeys(columns)))
    return ""


# What a statement may do.
_ALLOWED = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
_ACTIONS = {
    getattr(sqlite3, f"SQLITE_{name}"): name.replace("_", " ")
    for name in (
        *("ATTACH", "DETACH", "PRAGMA", "INSERT", "UPDATE", "DELETE", "TRANSACTION", "SAVEPOINT", "ANALYZE"),
        *("REINDEX", "ALTER_TABLE", "CREATE_TABLE", "CREATE_TEMP_TABLE", "CREATE_INDEX", "CREATE_TEMP_INDEX"),
        *("CREATE_VIEW", "CREATE_TEMP_VIEW", "CREATE_TRIGGER", "CREATE_TEMP_TRIGGER", "CREATE_VTABLE"),
        *("DROP_TABLE", "DROP_TEMP_TABLE", "DROP_INDEX", "DROP_VIEW", "DROP_TEMP_VIEW", "DROP_VTABLE"),
        *("DROP_TRIGGER", "DROP_TEMP_TRIGGER"),
    )
}
_CLOSED_FUNCTIONS = ("load_extension", "fts3_tokenizer", "readfile", "writefile", "edit")


def _lock(connection: sqlite3.Connection, refused: list[str], timeout_s: float) -> None:
    """Let a connection read, for so many seconds, and nothing else."""
    connection.execute("PRAGMA query_only = ON")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_BYTES)
    deadline = time.monotonic() + timeout_s

    def allow(action: int, one: str | None, two: str | None, _schema: str | None, _by: str | None) -> int:
        if action in _ALLOWED and not (action == sqlite3.SQLITE_FUNCTION and two in _CLOSED_FUNCTIONS):
            return sqlite3.SQLITE_OK
        refused.append(_ACTIONS.get(action, str(two or one or action)))
        return sqlite3.SQLITE_DENY

    connection.set_progress_handler(lambda: time.monotonic() > deadline, _LOOK_AFTER)
    connection.set_authorizer(allow)


# The views; that of verdicts is the table of what is in force for all stores


def _select(name: str, joined: Joined, rank: int) -> str:
    schema = joined.schemas[rank]
    objects = f"{schema}.objects AS objects"
    store = f"{text_sql(str(joined.stores[rank].root))} AS store"
    path = f"{path_sql(joined.stores[rank], 'objects.address')} AS path, {FILENAME} AS filename"
    product = "objects.recipe_key IS NOT NULL"
    meta = ", ".join(f"objects.{one}" for one in META_COLUMNS)
    if name == "products":
        made = ", ".join(f"{_made(one)} AS {one}" for one in _MADE)
        return f"SELECT {store}, {path}, objects.kind AS kind, {made}, {meta} FROM {objects} WHERE {product}"
    if name == "raws":
        return (
            f"SELECT {store}, {path}, objects.kind AS kind, objects.made AS registered, objects.content, "
            f"objects.bytes, {VERDICT} AS verdict, {meta} FROM {objects} WHERE NOT {product}"
        )
    if name == "measures":
        return (
            f"SELECT {store}, {path}, objects.kind AS kind, objects.recipe_key AS recipe_key, one.key AS name, "
            f"one.value AS value FROM {objects}, json_each(objects.measures) AS one WHERE {product}"
        )
    return (
        f"SELECT {store}, {path}, objects.recipe_key AS recipe_key, links.role AS role, "
        f"inputs.recipe_key AS input_recipe_key, inputs.content AS input_content FROM {objects} "
        f"JOIN {schema}.links AS links ON links.child = objects.number "
        f"JOIN {schema}.inputs AS inputs ON inputs.number = links.input"
    )


def _made(name: str) -> str:
    return VERDICT if name == "verdict" else IN_FORCE.get(name, f"objects.{name}")
