"""An expression as SQL for SQLite, with the same answer as `evaluation` gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from .errors import UsageError
from .evaluation import side
from .expression import (
    And,
    Arithmetic,
    Call,
    Compare,
    In,
    IsNull,
    Like,
    Literal,
    Name,
    Node,
    Not,
    Or,
    Value,
    condition,
    shown,
)

Column = Callable[[str], tuple[str, str]]

# SQLite's parser keeps at most 100 things waiting; depth counts them, generously.
_SQL_DEPTH = 95
_COLUMN_DEPTH = 20


class _Sql(NamedTuple):
    text: str
    values: tuple[object, ...]
    type: str
    depth: int


_NUMERIC = ("real", "integer", "boolean", "float")
_SORTS = {"real": "number", "float": "number", "boolean": "truth value"}
_TRUTH_SQL = (
    "CASE lower(rtrim({0})) WHEN 'true' THEN 1 WHEN 't' THEN 1 "
    "WHEN 'false' THEN 0 WHEN 'f' THEN 0 ELSE {0} END"
)
_NULL = _Sql("NULL", (), "null", 1)
_ABOVE_NUMBERS = "CAST(9e999 AS REAL)"


def to_sql(node: Node, column: Column) -> tuple[str, list[object]]:
    """A condition as a fragment of SQLite's SQL, and the values of its parameters.

    `column` maps a name to its SQL and its type, 'text', 'real', 'integer' or
    'boolean', or raises UnknownName. Columns of text are taken to hold no trailing
    blanks, so that indexes serve. Raises UsageError where a number is compared with
    text that is none, and where the nesting is too deep for SQLite.
    """
    made = _sql(condition(node), column)
    if made.depth > _SQL_DEPTH:
        raise UsageError("the condition is nested too deeply for a query; use fewer parentheses")
    return made.text, list(made.values)


def _sql(node: Node, column: Column) -> _Sql:
    match node:
        case Literal():
            return _literal_sql(node.value)
        case Name():
            return _column_sql(*column(node.name))
        case Arithmetic():
            left, right = _float_sql(_sql(node.left, column)), _float_sql(_sql(node.right, column))
            return _binary_sql(node.operator, left, right, "float")
        case Call():
            return _call_sql(node, column)
        case Compare():
            return _compare_sql(node, _sql(node.left, column), _sql(node.right, column))
        case In():
            return _in_sql(node, _sql(node.left, column))
        case Like():
            return _like_sql(node, _sql(node.left, column))
        case IsNull():
            inner = _sql(node.left, column)
            return _Sql(f"({inner.text} IS NULL)", inner.values, "boolean", inner.depth + 1)
        case Not():
            inner = _sql(node.condition, column)
            return _Sql(f"(NOT {inner.text})", inner.values, "boolean", inner.depth + 2)
        case And():
            return _series_sql("AND", [_sql(one, column) for one in node.conditions])
        case Or():
            return _series_sql("OR", [_sql(one, column) for one in node.conditions])


def _column_sql(text: str, kind: str) -> _Sql:
    return _Sql(text, (), kind, _COLUMN_DEPTH if "(" in text else 2)


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


def _call_sql(node: Call, column: Column) -> _Sql:
    inner = _sql(node.argument, column)
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
