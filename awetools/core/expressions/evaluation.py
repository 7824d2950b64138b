"""The value of an expression on one row: a frame's header, a record. `expression` has the rules."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

from .expression import (
    INTEGER,
    NUMBER,
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
)


def evaluate(node: Node, lookup: Callable[[str], object]) -> object:
    """The value of an expression: None, bool, int, float or str; `lookup` gives a name's value.

    A condition holds where the value `is True`; see `holds`. Lists and tables that
    `lookup` gives count as their JSON text. Raises only what `lookup` raises.
    """
    match node:
        case Literal():
            return node.value
        case Name():
            return _plain(lookup(node.name))
        case Arithmetic():
            return _arithmetic(node.operator, evaluate(node.left, lookup), evaluate(node.right, lookup))
        case Call():
            return _call(node.function, evaluate(node.argument, lookup))
        case Compare():
            return _compare(node.operator, evaluate(node.left, lookup), evaluate(node.right, lookup))
        case In():
            left = evaluate(node.left, lookup)
            return _any([_compare("=", left, evaluate(value, lookup)) for value in node.values])
        case Like():
            return _like(evaluate(node.left, lookup), node.pattern)
        case IsNull():
            return evaluate(node.left, lookup) is None
        case InRegion():
            ra, dec = (number(evaluate(one, lookup)) for one in (node.ra_deg, node.dec_deg))
            return None if ra is None or dec is None else node.region.holds(_float(ra), _float(dec))
        case Not():
            inner = evaluate(node.condition, lookup)
            return None if inner is None else not inner
        case And():
            opposite = _any([_negated(evaluate(one, lookup)) for one in node.conditions])
            return _negated(opposite)
        case Or():
            return _any([evaluate(one, lookup) for one in node.conditions])


def holds(node: Node, lookup: Callable[[str], object]) -> bool:
    """Whether a condition is true (not false and not null)."""
    return evaluate(condition(node), lookup) is True


def _plain(value: object) -> Value:
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if value is None or isinstance(value, bool | int | str):
        return value
    return json.dumps(value, separators=(",", ":"), default=str)


def _any(values: Sequence[object]) -> bool | None:
    if any(value is True for value in values):
        return True
    return None if any(value is None for value in values) else False


def _negated(value: object) -> bool | None:
    return None if value is None else not value


def number(value: object) -> int | float | None:
    """The number that a value is, or that a text looks like; None if it is neither."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else _float(value)
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if not isinstance(value, str) or not NUMBER.fullmatch(value):
        return None
    stripped = value.strip()
    if INTEGER.fullmatch(stripped) and len(stripped) < 19:
        return int(stripped)
    return float(stripped)


def _float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _arithmetic(operator: str, left: object, right: object) -> float | None:
    one, two = number(left), number(right)
    if one is None or two is None:
        return None
    a, b = _float(one), _float(two)
    if operator == "/":
        result = a / b if b else math.nan
    else:
        result = a + b if operator == "+" else a - b if operator == "-" else a * b
    return None if math.isnan(result) else result


# SQLite's lower and upper know the 26 letters only.
_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")
_UPPER = str.maketrans("abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def _call(function: str, value: object) -> Value:
    if function == "abs":
        size = number(value)
        return None if size is None else abs(_float(size))
    text = _text(value)
    if text is None:
        return None
    if function == "lower":
        return text.translate(_LOWER)
    return text.translate(_UPPER) if function == "upper" else text.strip(" ")


def _text(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "1" if value else "0"
    return value if isinstance(value, str) else repr(value)


def _compare(operator: str, left: object, right: object) -> bool | None:
    if left is None or right is None:
        return None
    if isinstance(left, str) and isinstance(right, str):
        return _ordered(operator, left.rstrip(" "), right.rstrip(" "))
    either_bool = isinstance(left, bool) or isinstance(right, bool)
    one, two = side(left, either_bool), side(right, either_bool)
    if one is None or two is None:
        return {"=": False, "<>": True}.get(operator)
    return _ordered(operator, one, two)


_TRUTHS = {"true": 1, "t": 1, "false": 0, "f": 0}


def side(value: object, boolean: bool) -> int | float | None:
    if boolean and isinstance(value, str):
        truth = _TRUTHS.get(value.rstrip(" ").translate(_LOWER))
        if truth is not None:
            return truth
    return number(value)


def _ordered(operator: str, left: str | float, right: str | float) -> bool:
    if operator in ("=", "<>"):
        return (left == right) == (operator == "=")
    below: bool = left < right  # type: ignore[operator]
    if operator in ("<", ">="):
        return below == (operator == "<")
    above: bool = left > right  # type: ignore[operator]
    return above == (operator == ">")


def _like(value: object, pattern: str) -> bool | None:
    text = _text(value)
    return None if text is None else fits(text.rstrip(" "), pattern)


def fits(text: str, pattern: str) -> bool:
    """Whether text fits a pattern with * and ?, in time proportional to the product of their lengths."""
    at = start = 0
    star = -1
    place = 0
    while at < len(text):
        if place < len(pattern) and pattern[place] == "*":
            star, start = place, at
            place += 1
        elif place < len(pattern) and pattern[place] in ("?", text[at]):
            at, place = at + 1, place + 1
        elif star >= 0:
            start += 1
            at, place = start, star + 1
        else:
            return False
    return all(char == "*" for char in pattern[place:])
