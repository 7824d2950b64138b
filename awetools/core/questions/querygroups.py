"""Rows of a query put together in groups: count, min, max, mean and median, sorted and limited as groups."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import UsageError

FUNCTIONS = ("min", "max", "mean", "median")
_TERM = re.compile(r"(?:(\w+)\((.*)\))", re.DOTALL)


@dataclass(frozen=True)
class Term:
    """What is shown of a group: one of its fields, the count, or a function of a name."""

    text: str
    function: str = ""
    name: str = ""


@dataclass
class _Group:
    key: tuple[Any, ...]
    count: int = 0
    values: dict[str, list[Any]] = field(default_factory=dict)


def terms_of(columns: Sequence[str], group: Sequence[str]) -> list[Term]:
    """The columns of a grouped answer; raises UsageError for what is neither count, function nor field of the group."""
    terms = []
    for text in columns:
        found = _TERM.fullmatch(text)
        if text == "count":
            terms.append(Term(text, "count"))
        elif found and found[1] in FUNCTIONS and found[2].strip():
            terms.append(Term(text, found[1], found[2].strip()))
        elif text in group:
            terms.append(Term(text, "", text))
        else:
            known = ", ".join((*group, "count", *(f"{one}(NAME)" for one in FUNCTIONS)))
            raise UsageError(f"{text}: of a group are shown: {known}")
    return terms


def names_of(terms: Iterable[Term], group: Sequence[str]) -> list[str]:
    """The columns to ask for."""
    return list(dict.fromkeys([*group, *(one.name for one in terms if one.name)]))


def grouped(
    rows: Iterable[dict[str, Any]], group: Sequence[str], terms: Sequence[Term]
) -> list[dict[str, Any]]:
    """One row a group, sorted by the group's fields; raises UsageError for a mean of what is no number.

    Values that are null do not count, except in `count`; of a name with many values all do.
    """
    groups: dict[tuple[Any, ...], _Group] = {}
    wanted = {one.name for one in terms if one.function not in ("", "count")}
    for row in rows:
        key = tuple(row[name] for name in group)
        one = groups.setdefault(tuple(map(_hashable, key)), _Group(key))
        one.count += 1
        for name in wanted:
            one.values.setdefault(name, []).extend(_listed(row[name]))
    found = [
        {term.text: _value(term, one, group) for term in terms} | _keys(one, group) for one in groups.values()
    ]
    return ordered(found, [(name, False) for name in group])


def ordered(rows: Sequence[dict[str, Any]], order: Sequence[tuple[str, bool]]) -> list[dict[str, Any]]:
    """Rows sorted by columns, each with whether it descends; null comes first, then numbers, then text."""
    found = list(rows)
    for name, descending in reversed(order):
        found.sort(key=lambda row: _place(row[name]), reverse=descending)
    return found


def _keys(group: _Group, names: Sequence[str]) -> dict[str, Any]:
    return dict(zip(names, group.key, strict=True))


def _value(term: Term, group: _Group, names: Sequence[str]) -> Any:
    if term.function == "count":
        return group.count
    if not term.function:
        return group.key[list(names).index(term.name)]
    values = group.values.get(term.name, [])
    if not values:
        return None
    if term.function in ("min", "max"):
        return (min if term.function == "min" else max)(values, key=_place)
    for one in values:
        if isinstance(one, str):
            raise UsageError(f"{term.text}: {one[:40]!r} is no number; min and max take text too")
    return statistics.median(values) if term.function == "median" else math.fsum(values) / len(values)


def _listed(value: Any) -> Iterator[Any]:
    for one in value if isinstance(value, list) else [value]:
        if one is not None:
            yield one


def _hashable(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple((name, _hashable(one)) for name, one in value.items())
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _place(value: Any) -> tuple[int, Any]:
    if value is None:
        return 0, 0
    if isinstance(value, int | float):
        return 1, value
    return 2, value if isinstance(value, str) else str(value)
