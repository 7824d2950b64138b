"""What to say where nothing meets a condition: the value that is not there, and those that are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

from ..errors import nearest
from ..meta import ALIASES
from .expression import Compare, In, Like, Literal, Name, Node, walk

# So many values of a field are named where none is near.
MOST_VALUES = 12
# How dates are written; a text that begins so is compared with them as meant.
FORMS = {"night": "YYYY-MM-DD", "obs_start": "YYYY-MM-DDThh:mm:ss.sss"}
_DATE = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d(:\d\d(:\d\d(\.\d*)?)?)?)?)?)?", re.ASCII)


def absent(condition: Node | None, values_of: Callable[[str], Iterable[object]]) -> str:
    """What is asked for and is not there, with the nearest that is; empty if nothing is found out.

    values_of: the values that a field has; none for what is no field.
    """
    for name, value, is_met in _asked(condition) if condition is not None else ():
        form = FORMS.get(ALIASES.get(name, name))
        values = sorted(str(one) for one in values_of(name))
        if not values or any(is_met(one) for one in values):
            continue
        if form is None:
            return f": no {name} {value!r}{nearest(value, values) or _all_or_ends(values)}"
        return f": no {name} {value!r}: it is written {form}{_all_or_ends(values)}"
    return ""


def _all_or_ends(values: Sequence[str]) -> str:
    if len(values) <= MOST_VALUES:
        return f" (there {'is' if len(values) == 1 else 'are'}: {', '.join(values)})"
    return f" (there are {len(values)}, from {values[0]} to {values[-1]})"


def _is_equal(one: str, other: str) -> bool:
    try:
        return float(one) == float(other)
    except ValueError:
        return one == other


def _asked(condition: Node) -> Iterator[tuple[str, str, Callable[[str], bool]]]:
    """The fields that are compared with a text, the text, and whether a value meets that; dates also by < and >."""
    for node in walk(condition):
        if isinstance(node, Compare) and isinstance(node.left, Name) and isinstance(node.right, Literal):
            name, value = node.left.name, str(node.right.value)
            if node.operator == "=":
                yield name, value, lambda one, value=value: _is_equal(value, one)  # type: ignore[misc]
            elif ALIASES.get(name, name) in FORMS and not _DATE.fullmatch(value):
                yield name, value, lambda _one: False
        elif isinstance(node, In) and isinstance(node.left, Name):
            for value in (str(one.value) for one in node.values):
                yield node.left.name, value, lambda one, value=value: _is_equal(value, one)  # type: ignore[misc]
        elif isinstance(node, Like) and isinstance(node.left, Name):
            pattern = node.pattern.replace("[", "[[]")
            yield (
                node.left.name,
                node.pattern.strip("*"),
                lambda one, pattern=pattern: fnmatchcase(one, pattern),  # type: ignore[misc]
            )
