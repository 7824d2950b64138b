"""Questions to the index: conditions in the one expression language, answered from SQL."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import UnknownName, UsageError, nearest
from .expression import Node, parse_words
from .index import Index, absolute, open_index
from .kind import Kind
from .meta import FRAME_TYPES
from .quality import measure_names
from .sqlexpression import to_sql
from .store import Store

# What a table shows when nobody says which columns.
DEFAULT_COLUMNS = ("path", "detector", "filter", "night", "obs_start", "exptime_s", "object")

# What an integer of SQLite can hold, which is more than any index has rows.
LARGEST_LIMIT = (1 << 63) - 1


@dataclass(frozen=True)
class Question:
    """Which objects, which of their attributes, in what order, and how many at most."""

    kind: str
    condition: Node | None
    columns: tuple[str, ...]
    order: tuple[str, ...] = ()
    limit: int | None = None


def ask(question: Question, stores: Sequence[Store], kinds: Sequence[Kind]) -> Iterator[dict[str, Any]]:
    """The rows that answer a question, from every store in turn; paths are absolute.

    Raises UnknownName for a kind or field that does not exist, with the nearest.
    """
    measures = _measures(question.kind, kinds)
    left = question.limit
    for store in stores:
        index = open_index(store)
        try:
            for row in _select(index, question, measures, left):
                row = {name: _absolute(store, name, value) for name, value in row.items()}
                yield row
                left = None if left is None else left - 1
                if left == 0:
                    return
        finally:
            index.close()


def question_from_words(
    kind: str, words: Sequence[str], columns: Sequence[str], order: Sequence[str], limit: int | None
) -> Question:
    """A question from a command line: conditions are ANDed; a column order may end in :desc."""
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}: must be at least 1")
    limit = None if limit is None else min(limit, LARGEST_LIMIT)
    return Question(kind, parse_words(words), tuple(columns), tuple(order), limit)


def _measures(kind: str, kinds: Sequence[Kind]) -> list[str]:
    if kind in FRAME_TYPES or kind == "raw":
        return []
    for one in kinds:
        if one.name == kind:
            return measure_names(one)
    names = [*(one.name for one in kinds), *FRAME_TYPES, "raw"]
    raise UnknownName(f"no kind {kind!r}{nearest(kind, names)}; there are: {', '.join(names)}")


def _select(
    index: Index, question: Question, measures: Sequence[str], limit: int | None
) -> Iterator[dict[str, Any]]:
    def column(name: str) -> tuple[str, str]:
        return index.column(name, measures)

    wanted = [column(name)[0] for name in question.columns]
    where: str = "kind LIKE 'raw%'" if question.kind == "raw" else "kind = ?"
    values: list[object] = [] if question.kind == "raw" else [question.kind]
    if question.condition is not None:
        sql, more = to_sql(question.condition, column)
        where, values = f"{where} AND ({sql})", [*values, *more]
    order = [_order(name, column) for name in question.order] or ["obs_start", "address"]
    sql = f"SELECT {', '.join(wanted)} FROM objects WHERE {where} ORDER BY {', '.join(order)}"
    if limit is not None:
        sql += f" LIMIT {int(limit)}"
    for row in index.select(sql, values):
        yield dict(zip(question.columns, row, strict=True))


def _order(name: str, column: Any) -> str:
    field, _, direction = name.partition(":")
    if direction not in ("", "asc", "desc"):
        raise UsageError(f"--order {name}: ends in :asc or :desc, not :{direction}")
    return f"{column(field)[0]} {direction.upper() or 'ASC'}"


def _absolute(store: Store, name: str, value: object) -> object:
    if name == "path" and value is not None:
        return absolute(store, str(value))
    if isinstance(value, str) and value[:1] in "[{" and name != "object":
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
