"""Questions to the index: conditions in the one expression language, answered from SQL."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ..catalogues.refinput import content_at, named_catalogue
from ..errors import UnknownName, UsageError
from ..expressions.expression import (
    And,
    Compare,
    IsNull,
    Literal,
    Name,
    Node,
    Not,
    Or,
    condition,
    names,
    parse_words,
    walk,
)
from ..expressions.sqlexpression import to_sql
from ..files import parse_address
from ..indexing.indexrows import META_COLUMNS
from ..indexing.querynames import QUERY_COLUMNS
from ..kind import REFCAT, SAME_PRODUCT, Kind
from ..meta import FIELDS, FRAME_TYPES
from ..quality import COMMON_MEASURES, measure_names
from ..store import Store
from .joined import Joined, joined_indexes
from .linkpaths import MOST_COLUMNS, Declared, PathsSql

if TYPE_CHECKING:
    from .querytables import Column

# What a table shows when nobody says which columns.
DEFAULT_COLUMNS = ("path", "detector", "filter", "night", "obs_start", "exptime_s", "object")

# What an integer of SQLite can hold, which is more than any index has rows.
LARGEST_LIMIT = (1 << 63) - 1

# Up to so many objects are followed along their links one by one; of more, those at the end of the links
# that meet a condition are found first.
FEW_OBJECTS = 20_000
# The SQL of conditions that begin at the end of links grows with every store.
MOST_BRANCHES = 30


@dataclass(frozen=True)
class Question:
    """Which objects, which of their attributes, in what order, and how many at most."""

    kind: str
    condition: Node | None
    columns: tuple[str, ...]
    order: tuple[str, ...] = ()
    limit: int | None = None
    newest: bool = False


def ask(
    question: Question, stores: Sequence[Store], kinds: Sequence[Kind], gone: list[str] | None = None
) -> Iterator[dict[str, Any]]:
    """The rows that answer a question, from all stores together, by one statement; paths are absolute.

    A name can lead along links (`flat.imstat.stdev`); where it can have many values, they
    are a list, in the order in which their objects were observed. A product that lies in
    several stores is that of the nearest. Objects whose file is gone are left out; their
    paths are appended to `gone`. Raises UnknownName for a kind or name that does not exist,
    with the nearest.
    """
    left = question.limit
    with joined_indexes(stores) as joined:
        statement = _statement(question, joined, Declared(tuple(kinds)))
        columns = list(zip(question.columns, statement.readers, strict=True))
        roots = [str(store.root) for store in joined.stores]
        for rank, address, *row in joined.index.select(statement.sql, statement.values):
            where = os.path.join(roots[rank], str(address))
            if not _is_there(where):
                if gone is not None:
                    gone.append(where)
                continue
            yield {name: read(value) for (name, read), value in zip(columns, row, strict=False)}
            left = None if left is None else left - 1
            if left == 0:
                return


def _is_there(where: str) -> bool:
    # A look at the disk for each of a million rows.
    return os.path.exists(where) or (where.endswith("]") and parse_address(where).path.exists())


def fields_of(kind: str, kinds: Sequence[Kind]) -> Iterator[tuple[str, str, str]]:
    """What can be asked of a kind: name, unit or type, and a sentence."""
    declared = Declared(tuple(kinds))
    measures = declared.measures(declared.start(kind))
    helps = {one.name: one.help for each in kinds if each.name == kind for one in each.measures}
    for name, column in QUERY_COLUMNS.items():
        yield name, column.unit or column.type, column.help
    yield "flag_names", "text", "The measures that are outside their limits (only with --get)."
    for field in FIELDS:
        if field.name not in measures:
            yield field.name, field.unit or field.type, field.help
    for name in measures:
        yield name, "measure", helps.get(name) or COMMON_MEASURES.get(name, "")


def links_of(kind: str, kinds: Sequence[Kind]) -> Iterator[tuple[str, str, str]]:
    """Where names can lead from a kind: the link, `link` or `links` (there can be many), and a sentence."""
    declared = Declared(tuple(kinds))
    start = declared.start(kind)
    helps = {need.role: need.help for each in kinds if each.name in start for need in each.needs}
    for link in declared.links(start).values():
        ends = " or ".join(link.kinds)
        told = f"Every {ends} that was made from it." if link.forward else helps.get(link.name, "")
        yield link.name, "links" if link.many else "link", told or f"What of its inputs is a {ends}."


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


# Statements


class _Statement(NamedTuple):
    """The SELECT of the place of a store, an address and the columns asked for, and how each is read."""

    sql: str
    values: list[object]
    readers: list[Callable[[Any], Any]]


class _Where(NamedTuple):
    sql: str
    values: list[object]


def _statement(question: Question, joined: Joined, declared: Declared) -> _Statement:
    if len(question.columns) + len(question.order) > MOST_COLUMNS:
        raise UsageError(f"{len(question.columns)} columns are asked for; at most {MOST_COLUMNS}")
    seen = [
        PathsSql(declared, question.kind, joined.index, joined.stores, joined.schemas, rank)
        for rank in range(len(joined.schemas))
    ]
    wheres = _wheres(question, seen)
    order = [_order(name) for name in question.order] or [("obs_start", "ASC"), ("path", "ASC")]
    values = [value for where in wheres for value in where.values]
    readers = [_reader(name, seen[0]) for name in question.columns]
    found = [_found(paths, where, question.newest) for paths, where in zip(seen, wheres, strict=True)]
    if len(seen) == 1:
        return _Statement(_of_one_store(question.columns, seen[0], found[0], order), values, readers)
    parts = [
        f"SELECT {paths.rank}, {', '.join([*_shown(question.columns, paths), *_keys(order, paths)])} {where}"
        for paths, where in zip(seen, found, strict=True)
    ]
    first = 3 + len(question.columns)
    return _Statement(f"{' UNION ALL '.join(parts)} ORDER BY {_places(order, first)}", values, readers)


def _of_one_store(
    columns: Sequence[str], paths: PathsSql, found: str, order: Sequence[tuple[str, str]]
) -> str:
    """Objects are found and sorted first; what is shown is looked up for those only that are read."""
    # Without a limit SQLite forgets the order of what is joined.
    keys, places = ", ".join(_keys(order, paths)), _places(order, 2)
    sorted_first = f"SELECT objects.number, {keys} {found} ORDER BY {places} LIMIT -1"
    return (
        f"SELECT {paths.rank}, {', '.join(_shown(columns, paths))} FROM ({sorted_first}) AS found "
        f"CROSS JOIN {paths.schemas[paths.rank]}.objects AS objects ON objects.number = found.number"
    )


def _found(paths: PathsSql, where: _Where, newest: bool) -> str:
    tail = _newest(paths) if newest else ""
    return f"FROM {paths.schemas[paths.rank]}.objects AS objects WHERE {where.sql}{_not_nearer(paths)}{tail}"


def _shown(columns: Sequence[str], paths: PathsSql) -> list[str]:
    return ["objects.address", *(paths.shown(name) for name in columns)]


def _keys(order: Sequence[tuple[str, str]], paths: PathsSql) -> list[str]:
    return [paths.ordering(name, direction == "DESC") for name, direction in order]


def _places(order: Sequence[tuple[str, str]], first: int) -> str:
    return ", ".join(f"{first + place} {direction}" for place, (_, direction) in enumerate(order))


def _order(text: str) -> tuple[str, str]:
    name, _, direction = text.partition(":")
    if direction not in ("", "asc", "desc"):
        raise UsageError(f"--order {text}: ends in :asc or :desc, not :{direction}")
    return name, direction.upper() or "ASC"


def _wheres(question: Question, seen: Sequence[PathsSql]) -> list[_Where]:
    """What the objects of each store must meet."""
    asked = [] if question.condition is None else _conjuncts(condition(question.condition))
    asked = [_of_catalogue(one, seen[0]) for one in asked]
    linked = [one for one in asked if any(map(seen[0].leads, names(one)))]
    plain = [one for one in asked if one not in linked]
    wheres = []
    for paths in seen:
        where = _all_of([_kind(question.kind), *(_where(one, paths) for one in plain)])
        from_end = [one for one in linked if _can_begin_at_end(one, paths)]
        if from_end and _are_many(where, paths):
            begun = [_from_end(one, paths) for one in from_end]
            rest = [_where(one, paths) for one in linked if one not in from_end]
            where = _all_of([*begun, where, *rest])
        else:
            where = _all_of([where, *(_where(one, paths) for one in linked)])
        wheres.append(where)
    return wheres


def _of_catalogue(node: Node, paths: PathsSql) -> Node:
    """A comparison of a reference catalogue with its name or directory, as one of its content; else as it is."""
    if not (isinstance(node, Compare) and isinstance(node.left, Name) and isinstance(node.right, Literal)):
        return node
    path, text = paths.path(node.left.name), node.right.value
    if path.field is not None or path.end != (REFCAT,) or not isinstance(text, str):
        return node
    place = named_catalogue(text, paths.stores)
    content = content_at(place) if place else None
    if content is None:
        raise UnknownName(
            f"{node.left.name} = {text}: there is no such reference catalogue", hint="awe-refcat list"
        )
    return Compare(node.operator, Name(f"{node.left.name}.content"), Literal(content))


def _kind(kind: str) -> _Where:
    if kind == "raw":
        return _Where(f"objects.kind IN ({', '.join('?' * len(FRAME_TYPES))})", list(FRAME_TYPES))
    return _Where("objects.kind = ?", [kind])


def _conjuncts(node: Node) -> list[Node]:
    return list(node.conditions) if isinstance(node, And) and not node.chain else [node]


def _where(node: Node, paths: PathsSql) -> _Where:
    return _Where(*to_sql(node, paths.column, paths))


def _all_of(parts: Sequence[_Where]) -> _Where:
    return _Where(
        " AND ".join(f"{one.sql}" for one in parts), [value for one in parts for value in one.values]
    )


def _are_many(where: _Where, paths: PathsSql) -> bool:
    """Whether more objects than a few meet what is asked of them alone."""
    inner = f"SELECT 1 FROM {paths.schemas[paths.rank]}.objects AS objects WHERE {where.sql} LIMIT {FEW_OBJECTS + 1}"
    count = next(paths.index.select(f"SELECT count(*) FROM ({inner})", where.values))[0]
    return bool(count > FEW_OBJECTS)


def _can_begin_at_end(node: Node, paths: PathsSql) -> bool:
    """Whether a condition is one comparison of what a single chain of links leads to."""
    if isinstance(node, Not | Or | IsNull) or any(isinstance(one, Not | Or | IsNull) for one in walk(node)):
        return False
    found = [paths.path(name) for name in names(node)]
    if (
        any(one.field is None or one.field == "path" for one in found)
        or len({one.links for one in found}) != 1
    ):
        return False
    return paths.times(found[0].links) <= MOST_BRANCHES


def _from_end(node: Node, paths: PathsSql) -> _Where:
    links = paths.path(next(iter(names(node)))).links
    parts = []
    sql, values = to_sql(node, lambda name: paths.end_column(name))
    parts.append(paths.driven(links, sql))
    return _Where(parts[0], values * paths.times(links))


def _not_nearer(paths: PathsSql) -> str:
    """What leaves out the objects that a nearer store has too."""
    return "".join(
        f" AND NOT EXISTS (SELECT 1 FROM {schema}.objects AS y WHERE y.recipe_key = objects.recipe_key"
        " OR (objects.recipe_key IS NULL AND y.recipe_key IS NULL AND y.content = objects.content"
        " AND y.detector IS objects.detector AND y.obs_start IS objects.obs_start))"
        for schema in paths.schemas[: paths.rank]
    )


def _newest(paths: PathsSql) -> str:
    """Of the versions of one product the one made last; by the clock between stores, each of which counts its own."""
    same = " AND ".join(f"later.{name} IS objects.{name}" for name in ("kind", *SAME_PRODUCT))
    # Images of two objects are no versions of each other, where no exposure tells it.
    same += " AND (objects.exposure IS NOT NULL OR later.object IS objects.object)"
    found = ""
    for rank, schema in enumerate(paths.schemas):
        after = "later.sequence > objects.sequence" if rank == paths.rank else "later.made > objects.made"
        found += f" AND NOT EXISTS (SELECT 1 FROM {schema}.objects AS later WHERE {after} AND {same})"
    return found


# Values


def _reader(name: str, paths: PathsSql) -> Callable[[Any], Any]:
    """What turns a value of a statement into the one that is given to a person or program."""
    path = paths.path(name)
    if path.field is None:
        return bool
    one = _reader_of_one(path.field, path.end, paths.declared)
    if not path.many:
        return one
    return lambda text: [one(_unquoted(each)) for each in json.loads(text)]


def _reader_of_one(field: str, kinds: Sequence[str], declared: Declared) -> Callable[[Any], Any]:
    if field == "flag_names":
        return lambda value: None if value is None else _flag_names(str(value), declared.kinds)
    json_fields = {one.name for one in FIELDS if one.name not in META_COLUMNS}
    if field in json_fields and field not in declared.measures(kinds):
        return _parsed
    return lambda value: value


def _flag_names(value: str, kinds: Sequence[Kind]) -> str:
    """The names of flags; each declaration numbers its own, and what was measured tells which it was."""
    kind, flags, measured = value.split(":", 2)
    if flags == "0":
        return ""
    made = set(measured.split(","))
    declarations = [measure_names(one) for one in kinds if one.name == kind]
    names = min(declarations, key=lambda one: len(made ^ set(one)), default=[])
    return ",".join(name for bit, name in enumerate(names) if int(flags) >> bit & 1)


def _parsed(value: object) -> object:
    if isinstance(value, str):
        with suppress(ValueError):
            return json.loads(value)
    return value


def _unquoted(text: str) -> object:
    """A value from SQLite's literal of it."""
    if text == "NULL":
        return None
    if text.startswith("'"):
        return text[1:-1].replace("''", "'")
    try:
        return int(text)
    except ValueError:
        return float(text)


# Columns


def described(kind: str, name: str, kinds: Sequence[Kind]) -> Column:
    """What a column of an answer is: its type, unit and a sentence, from the declarations. Raises UnknownName."""
    from .querytables import Column

    declared = Declared(tuple(kinds))
    path = declared.path(kind, name)
    led = f" (of {'.'.join(link.name for link in path.links)})" if path.links else ""
    if path.field is None:
        return Column(name, "integer", "", f"1 if there is one{led}.")
    kind_of, unit, told = _described_field(path.field, path.end, declared)
    return Column(name, "text" if path.many else kind_of, unit, f"{told.removesuffix('.')}{led}.")


def _described_field(name: str, kinds: Sequence[str], declared: Declared) -> tuple[str, str, str]:
    if name in declared.measures(kinds):
        own = {one.name: one.help for each in declared.kinds if each.name in kinds for one in each.measures}
        return "real", unit_of(name), own.get(name) or COMMON_MEASURES.get(name, "")
    if name == "flag_names":
        return "text", "", "The measures that are outside their limits."
    field = QUERY_COLUMNS.get(name) or next(one for one in FIELDS if one.name == name)
    return ("text" if field.type == "json" else field.type), field.unit, field.help


# The ends of names, and the units that they say.
UNIT_ENDS = {
    "_adu_s": "ADU/s",
    "_e_s": "electron/s",
    "_e_adu": "e/ADU",
    "_adu": "ADU",
    "_e": "electron",
    "_s": "s",
    "_px": "pix",
    "_arcsec": "arcsec",
    "_mag": "mag",
    "_deg": "deg",
    "_c": "C",
}


def unit_of(measure: str) -> str:
    """The unit of a measure, which is the end of its name; empty if it has none."""
    return next((unit for end, unit in UNIT_ENDS.items() if measure.endswith(end)), "")
