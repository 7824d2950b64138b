"""An expression as SQL for SQLite, with the same answer as `evaluation` gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from ..errors import UsageError
from .evaluation import side
from .expression import (
    And,
    Arithmetic,
    Call,
    Compare,
    In,
    InRegion,
    IsNull,
    Like,
    Literal,
    Name,
    Node,
    Not,
    Or,
    Value,
    condition,
    names,
    shown,
)
from .skyregion import as_text

Column = Callable[[str], tuple[str, str]]


class Bound(NamedTuple):
    """What names of one comparison lead to: tables to join for one of the values at a time, and the columns."""

    tables: str
    column: Column


class Paths(Protocol):
    """The names that lead along links."""

    def leads(self, name: str) -> bool:
        """Whether a name does."""

    def bind(self, leading: Sequence[str]) -> Bound:
        """What these names lead to, as seen from the object that is asked about."""


class _Scope(NamedTuple):
    """What names mean; `negated` below a `not`, where a condition that cannot be told must not count as false."""

    column: Column
    paths: Paths | None
    negated: bool = False


# The type of a path that ends at a link: whether there is such an object.
EXISTS = "exists"

# SQLite's parser keeps at most 100 things waiting; depth counts them, generously. The rest is the statement's.
_SQL_DEPTH = 80
_COLUMN_DEPTH = 20


class _Sql(NamedTuple):
    text: str
    values: tuple[object, ...]
    type: str
    depth: int


_NUMERIC = ("real", "integer", "boolean", "float", EXISTS)
_SORTS = {"real": "number", "float": "number", "boolean": "truth value", EXISTS: "link"}
# A comparison is about one of the values that a name leads to.
_ABOUT_ONE = (Compare, In, Like, IsNull, InRegion)
_SUBQUERY_DEPTH = 8
_TRUTH_SQL = (
    "CASE lower(rtrim({0})) WHEN 'true' THEN 1 WHEN 't' THEN 1 "
    "WHEN 'false' THEN 0 WHEN 'f' THEN 0 ELSE {0} END"
)
_NULL = _Sql("NULL", (), "null", 1)
_ABOVE_NUMBERS = "CAST(9e999 AS REAL)"


def to_sql(node: Node, column: Column, paths: Paths | None = None) -> tuple[str, list[object]]:
    """A condition as a fragment of SQLite's SQL, and the values of its parameters.

    `column` maps a name to its SQL and its type, 'text', 'real', 'integer' or
    'boolean', or raises UnknownName. Columns of text are taken to hold no trailing
    blanks, so that indexes serve. paths: what names that lead along links mean. Raises
    UsageError where a number is compared with text that is none, and where the nesting
    is too deep for SQLite. Conditions on places need `skyregion.holds_text` as the
    function sky_region.
    """
    made = _sql(condition(node), _Scope(column, paths))
    if made.depth > _SQL_DEPTH:
        raise UsageError("the condition is nested too deeply for a query; use fewer parentheses")
    return made.text, list(made.values)


def _sql(node: Node, scope: _Scope) -> _Sql:
    if scope.paths is not None and (isinstance(node, _ABOUT_ONE) or (isinstance(node, And) and node.chain)):
        leading = sorted(filter(scope.paths.leads, names(node)))
        if leading:
            return _about_one_sql(node, scope.paths.bind(leading), scope)
    match node:
        case Literal():
            return _literal_sql(node.value)
        case Name():
            return _column_sql(*scope.column(node.name))
        case Arithmetic():
            left, right = _float_sql(_sql(node.left, scope)), _float_sql(_sql(node.right, scope))
            return _binary_sql(node.operator, left, right, "float")
        case Call():
            return _call_sql(node, scope)
        case Compare():
            return _compare_sql(node, _sql(node.left, scope), _sql(node.right, scope))
        case In():
            return _in_sql(node, _sql(node.left, scope))
        case Like():
            return _like_sql(node, _sql(node.left, scope))
        case IsNull():
            inner = _sql(node.left, scope)
            if inner.type == EXISTS:
                return _Sql(f"(NOT {inner.text})", inner.values, "boolean", inner.depth + 2)
            return _Sql(f"({inner.text} IS NULL)", inner.values, "boolean", inner.depth + 1)
        case InRegion():
            return _region_sql(node, _sql(node.ra_deg, scope), _sql(node.dec_deg, scope))
        case Not():
            inner = _sql(node.condition, scope._replace(negated=not scope.negated))
            return _Sql(f"(NOT {inner.text})", inner.values, "boolean", inner.depth + 2)
        case And():
            return _series_sql("AND", [_sql(one, scope) for one in node.conditions])
        case Or():
            return _series_sql("OR", [_sql(one, scope) for one in node.conditions])


def _about_one_sql(node: Node, bound: Bound, scope: _Scope) -> _Sql:
    """Whether a comparison holds for one of the values that its names lead to; null if there is none."""

    def column(name: str) -> tuple[str, str]:
        paths = scope.paths
        return bound.column(name) if paths is not None and paths.leads(name) else scope.column(name)

    made = _sql(node, _Scope(column, None))
    if not bound.tables:
        return made
    depth = max(made.depth, _depth_of(bound.tables)) + 2 * _SUBQUERY_DEPTH
    found = f"EXISTS (SELECT 1 FROM {bound.tables} WHERE {made.text})"
    if isinstance(node, IsNull):
        # Of what is not there, nothing is known.
        text = f"({found} OR NOT EXISTS (SELECT 1 FROM {bound.tables}))"
        return _Sql(text, made.values, "boolean", depth)
    if scope.negated:
        return _Sql(f"(SELECT max({made.text}) FROM {bound.tables})", made.values, "boolean", depth)
    return _Sql(found, made.values, "boolean", depth)


def _region_sql(node: InRegion, ra: _Sql, dec: _Sql) -> _Sql:
    """A box that an index can serve, then the region itself."""
    ra, dec = (one if one.type in _NUMERIC else _float_sql(one) for one in (ra, dec))
    low, high, ranges = node.region.box()
    text, values = f"{dec.text} BETWEEN ? AND ?", [*dec.values, low, high]
    if ranges != [(0.0, 360.0)]:
        # The index holds right ascensions from 0 to 360.
        text += f" AND ({' OR '.join(f'{ra.text} BETWEEN ? AND ?' for _ in ranges)})"
        values += [value for one in ranges for value in (*ra.values, *one)]
    text += f" AND sky_region(?, {ra.text}, {dec.text})"
    values += [as_text(node.region), *ra.values, *dec.values]
    return _Sql(f"({text})", tuple(values), "boolean", max(ra.depth, dec.depth) + 10)


def _column_sql(text: str, kind: str) -> _Sql:
    return _Sql(text, (), kind, max(_COLUMN_DEPTH, _depth_of(text)) if "(" in text else 2)


def _depth_of(text: str) -> int:
    """What a text of nested SELECTs keeps waiting at most."""
    depth = deepest = 0
    for char in text:
        depth += (char == "(") - (char == ")")
        deepest = max(deepest, depth)
    return deepest * _SUBQUERY_DEPTH


def _literal_sql(value: Value) -> _Sql:
    if value is None:
        return _NULL
    if isinstance(value, str):
        return _Sql("?", (value.rstrip(" "),), "text", 1)
    kind = "boolean" if isinstance(value, bool) else "integer" if isinstance(value, int) else "real"
    return _Sql("?", (int(value) if isinstance(value, bool) else value,), kind, 1)


def _binary_sql(operator: str, left: _Sql, right: _Sql, kind: str) -> _Sql:
    depth = 1 + max(left.depth, right.depth + 2)
    return _Sql(f"({left.text} {operator} {right.text})", left.values + right.values, kind, depth)


def _series_sql(word: str, parts: Sequence[_Sql]) -> _Sql:
    """Join parts by AND or OR as a balanced tree, so that thousands stay shallow."""
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return _binary_sql(word, _series_sql(word, parts[:middle]), _series_sql(word, parts[middle:]), "boolean")


def _float_sql(made: _Sql) -> _Sql:
    """The number that a value is or looks like, else NULL: text that is no number sorts above all numbers."""
    if made.type == "float":
        return made
    if made.type == "null" or made.type in _NUMERIC:
        return _Sql(f"CAST({made.text} AS REAL)", made.values, "float", made.depth + 2)
    text = f"(CASE WHEN {made.text} <= {_ABOVE_NUMBERS} THEN CAST({made.text} AS REAL) END)"
    return _Sql(text, made.values * 2, "float", made.depth + 8)


def _call_sql(node: Call, scope: _Scope) -> _Sql:
    inner = _sql(node.argument, scope)
    if node.function == "abs":
        inner = _float_sql(inner)
        return _Sql(f"abs({inner.text})", inner.values, "float", inner.depth + 2)
    _refuse_numbers(f"{node.function}()", inner, node.argument)
    return _Sql(f"{node.function}({_as_text(inner)})", inner.values, "text", inner.depth + 4)


def _refuse_numbers(what: str, made: _Sql, node: Node) -> None:
    if made.type in _SORTS:
        about = node.name if isinstance(node, Name) else "this"
        raise UsageError(f"{what} needs text; {about} is a {_SORTS[made.type]}")


def _as_text(made: _Sql) -> str:
    return made.text if made.type == "text" else f"CAST({made.text} AS TEXT)"


_MIRRORED = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


def _compare_sql(node: Compare, one: _Sql, two: _Sql) -> _Sql:
    if "null" in (one.type, two.type):
        return _NULL._replace(type="boolean")
    if (one.type == "text") == (two.type == "text"):
        return _binary_sql(node.operator, one, two, "boolean")
    if isinstance(node.right, Literal) and two.type == "text":
        literal = _number_for(node.right, one, node.left)
        return _binary_sql(node.operator, one, _literal_sql(literal), "boolean")
    if isinstance(node.left, Literal) and one.type == "text":
        literal = _number_for(node.left, two, node.right)
        return _binary_sql(_MIRRORED[node.operator], two, _literal_sql(literal), "boolean")
    return _mixed_sql(node.operator, one, two)


def _number_for(literal: Literal, numeric: _Sql, named: Node) -> Value:
    """A literal as the number to compare a numeric value with."""
    if literal.value is None:
        return None
    value = side(literal.value, numeric.type == "boolean")
    if value is None and numeric.type == EXISTS and isinstance(named, Name):
        raise UsageError(f"{named.name} is a link: compare one of its attributes, such as {named.name}.path")
    if value is None:
        about = f"{named.name} is a number" if isinstance(named, Name) else "a number is compared"
        raise UsageError(f"{about}, but {shown(str(literal.value))[:60]!r} is not")
    return value


def _mixed_sql(operator: str, one: _Sql, two: _Sql) -> _Sql:
    """A number beside text: numeric affinity turns the text to a number, if it looks like one."""
    boolean = "boolean" in (one.type, two.type)
    left, right = _mixed_side(one, boolean), _mixed_side(two, boolean)
    test = _binary_sql(operator, left, right, "boolean")
    if operator in ("=", "<>"):
        return test
    words = left if one.type == "text" else right
    guarded = f"(CASE WHEN {words.text} <= {_ABOVE_NUMBERS} THEN {test.text} END)"
    return _Sql(guarded, words.values + test.values, "boolean", test.depth + 6)


def _mixed_side(made: _Sql, boolean: bool) -> _Sql:
    if made.type != "text":
        return _Sql(f"CAST({made.text} AS NUMERIC)", made.values, made.type, made.depth + 2)
    if not boolean:
        return made
    return _Sql(f"({_TRUTH_SQL.format(made.text)})", made.values * 2, "text", made.depth + 7)


def _in_sql(node: In, left: _Sql) -> _Sql:
    if left.type == "null":
        return _NULL._replace(type="boolean")
    if left.type != "text":
        return _listed(left, [_number_for(one, left, node.left) for one in node.values])
    values = [one.value for one in node.values]
    words = [value.rstrip(" ") for value in values if isinstance(value, str)]
    truths = [value for value in values if isinstance(value, bool)]
    figures = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    parts = [_mixed_sql("=", left, _literal_sql(value)) for value in truths]
    if figures:
        parts.append(_listed_figures(left, figures))
    if words or None in values:
        parts.append(_listed(left, [*words, *(value for value in values if value is None)]))
    return _series_sql("OR", parts)


def _listed(left: _Sql, values: Sequence[Value]) -> _Sql:
    marks = ", ".join("?" for _ in values)
    return _Sql(f"({left.text} IN ({marks}))", left.values + tuple(values), "boolean", left.depth + 5)


def _listed_figures(left: _Sql, figures: Sequence[Value]) -> _Sql:
    listed = _listed(left._replace(text=f"CAST({left.text} AS NUMERIC)"), figures)
    text = f"(CASE WHEN {left.text} > {_ABOVE_NUMBERS} THEN 0 ELSE {listed.text} END)"
    return _Sql(text, left.values + listed.values, "boolean", listed.depth + 9)


def _like_sql(node: Like, left: _Sql) -> _Sql:
    _refuse_numbers("like", left, node.left)
    pattern = node.pattern.replace("[", "[[]")
    return _Sql(f"({_as_text(left)} GLOB ?)", (*left.values, pattern), "boolean", left.depth + 4)
