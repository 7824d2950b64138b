"""Questions to the index: conditions in the one expression language, answered from SQL."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import UnknownName, UsageError, nearest
from .expression import Node, parse_words
from .files import parse_address
from .index import QUERY_COLUMNS, Index, absolute
from .inforce import indexes_in_force
from .kind import SAME_PRODUCT, Kind
from .meta import FIELDS, FRAME_TYPES
from .quality import COMMON_MEASURES, measure_names
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
    newest: bool = False


# Of the versions of one product, the one made last.
NEWEST = "NOT EXISTS (SELECT 1 FROM objects AS later WHERE later.sequence > objects.sequence AND {})".format(
    " AND ".join(f"later.{name} IS objects.{name}" for name in ("kind", *SAME_PRODUCT))
)


def ask(
    question: Question, stores: Sequence[Store], kinds: Sequence[Kind], gone: list[str] | None = None
) -> Iterator[dict[str, Any]]:
    """The rows that answer a question, from every store in turn; paths are absolute.

    Objects whose file is gone are left out; their paths are appended to `gone`.
    Raises UnknownName for a kind or field that does not exist, with the nearest.
    """
    measures = _measures(question.kind, kinds)
    left = question.limit
    with indexes_in_force(stores) as indexes:
        for index in indexes:
            store = index.store
            for path, row in _select(index, question, measures):
                where = absolute(store, path)
                if not parse_address(where).path.exists():
                    if gone is not None:
                        gone.append(where)
                    continue
                yield {name: _shown(store, name, value, measures) for name, value in row.items()}
                left = None if left is None else left - 1
                if left == 0:
                    return


def fields_of(kind: str, kinds: Sequence[Kind]) -> Iterator[tuple[str, str, str]]:
    """What can be asked of a kind: name, unit or type, and a sentence."""
    measures = _measures(kind, kinds)
    declared = {one.name: one.help for each in kinds if each.name == kind for one in each.measures}
    for name, column in QUERY_COLUMNS.items():
        yield name, column.unit or column.type, column.help
    yield "flag_names", "text", "The measures that are outside their limits (only with --get)."
    for field in FIELDS:
        if field.name not in measures:
            yield field.name, field.unit or field.type, field.help
    for name in measures:
        yield name, "measure", declared.get(name) or COMMON_MEASURES.get(name, "")


def question_from_words(
    kind: str,
    words: Sequence[str],
    columns: Sequence[str],
    order: Sequence[str],
    limit: int | None,
    newest: bool = False,
) -> Question:
    """A question from a command line: conditions are ANDed; a column order may end in :desc."""
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}: must be at least 1")
    limit = None if limit is None else min(limit, LARGEST_LIMIT)
    return Question(kind, parse_words(words), tuple(columns), tuple(order), limit, newest)


def _measures(kind: str, kinds: Sequence[Kind]) -> list[str]:
    if kind in FRAME_TYPES or kind == "raw":
        return []
    # What is imported shares its kind with what is made here, but measures more.
    found = dict.fromkeys(name for one in kinds if one.name == kind for name in measure_names(one))
    if found:
        return list(found)
    names = list(dict.fromkeys([*(one.name for one in kinds), *FRAME_TYPES, "raw"]))
    raise UnknownName(f"no kind {kind!r}{nearest(kind, names)}; there are: {', '.join(names)}")


def _select(
    index: Index, question: Question, measures: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The address of each object that answers, and the columns asked for, as the index holds them."""

    def column(name: str) -> tuple[str, str]:
        try:
            return index.column(name, measures)
        except UnknownName as error:
            raise UnknownName(error.message, hint=f"awe-query {question.kind} --fields") from None

    wanted = ["flags" if name == "flag_names" else column(name)[0] for name in question.columns]
    where: str = "kind LIKE 'raw%'" if question.kind == "raw" else "kind = ?"
    values: list[object] = [] if question.kind == "raw" else [question.kind]
    if question.condition is not None:
        sql, more = to_sql(question.condition, column)
        where, values = f"{where} AND ({sql})", [*values, *more]
    if question.newest:
        where = f"{where} AND {NEWEST}"
    order = [_order(name, column) for name in question.order] or ["obs_start", "address"]
    sql = f"SELECT address, {', '.join(wanted)} FROM objects WHERE {where} ORDER BY {', '.join(order)}"
    for address, *row in index.select(sql, values):
        yield str(address), dict(zip(question.columns, row, strict=True))


def _order(name: str, column: Any) -> str:
    field, _, direction = name.partition(":")
    if direction not in ("", "asc", "desc"):
        raise UsageError(f"--order {name}: ends in :asc or :desc, not :{direction}")
    return f"{column(field)[0]} {direction.upper() or 'ASC'}"


def _shown(store: Store, name: str, value: object, measures: Sequence[str]) -> object:
    """A value of the index as it is given to a person or program."""
    if name == "flag_names":
        return ",".join(one for bit, one in enumerate(measures) if int(str(value or 0)) >> bit & 1)
    if name == "path" and value is not None:
        return absolute(store, str(value))
    if isinstance(value, str) and value[:1] in "[{" and name != "object":
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
