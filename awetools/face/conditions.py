"""Values of Python as values of the expression language."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ..core.errors import UsageError
from ..core.expressions.expression import MAX_PATTERN, Compare, In, IsNull, Like, Literal, Name, Node, Value


def literal(value: Any) -> Literal:
    """A Python value as one of the language: text, numbers, dates and times, None; raises TypeError for others."""
    return Literal(_plain(value))


def _plain(value: Any) -> Value:
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        # As in the text of an expression: what no integer of SQLite holds.
        return float(value) if abs(value) < 1 << 1023 else math.inf if value > 0 else -math.inf
    if value is None or isinstance(value, bool | int | float | str):
        # A numpy.float64 is a float, but its own repr would not be read again.
        return float(value) if isinstance(value, float) else str(value) if isinstance(value, str) else value
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    if hasattr(value, "isot"):
        return str(value.isot)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return _plain(value.item())
    if hasattr(value, "__fspath__"):
        return str(value)
    raise TypeError(
        f"cannot compare with {value!r}, a {type(value).__name__}: give text, a number, or a date"
    )


def pattern(text: str) -> str:
    """A pattern with * and ?; raises UsageError for one that is too long."""
    if len(text) > MAX_PATTERN:
        raise UsageError(f"a pattern of {len(text):,} characters is too long (at most {MAX_PATTERN:,})")
    return text


def equal(name: str, value: Any) -> Node:
    """The condition that a field has a value; a list means any of several, text with * or ? a pattern."""
    if isinstance(value, str) and ("*" in value or "?" in value):
        return Like(Name(name), pattern(value))
    if isinstance(value, list | tuple | set | frozenset | range):
        return among(name, value)
    if value is None:
        return IsNull(Name(name))
    return Compare("=", Name(name), literal(value))


def among(name: str, values: Iterable[Any]) -> Node:
    """The condition that a field has one of several values; of no values, one that never holds."""
    given = tuple(literal(one) for one in values)
    return In(Name(name), given) if given else Literal(False)


def text_of(name: str, value: Any) -> str:
    """The same condition as `equal` gives, as a word of a command line."""
    match equal(name, value):
        case Like(pattern=text):
            return f"{name} like {_quoted(text)}"
        case In(values=values):
            return f"{name} in ({', '.join(_quoted(one.value) for one in values)})"
        case Compare(right=Literal(value=plain)):
            return f"{name} = {_quoted(plain)}"
        case IsNull():
            return f"{name} is null"
    raise ValueError(f"{name}: an empty list of values: nothing can be one of them")


def _quoted(value: Value) -> str:
    if isinstance(value, str):
        return "'{}'".format(value.replace("'", "''"))
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return repr(value)
