"""The form of values read from JSON, checked in one place, so that what reads them can rely on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from .meta import FIELDS

Shape = Any


@dataclass(frozen=True)
class Each:
    """An object of any names whose values all have one shape."""

    shape: Shape


@dataclass(frozen=True)
class Maybe:
    """A shape, or null."""

    shape: Shape


@dataclass(frozen=True)
class Written:
    """A text that is the same again when it was read and written."""

    again: Callable[[str], str]
    words: str


NUMBER = (int, float)
SCALAR = (str, int, float, bool)
ANYTHING = (str, int, float, bool, list, dict, type(None))
_WORDS = {str: "a text", int: "an integer", float: "a number", bool: "true or false", dict: "an object"}
_SECTION = {"amp": str, "data": str, "target": str, "overscan?": Maybe(str), "hdu": Maybe(int)}
_FIELD_SHAPES = {
    "night": Written(lambda text: date.fromisoformat(text).isoformat(), "a date as 2024-03-02"),
    "obs_start": Written(
        lambda text: datetime.fromisoformat(text).isoformat(timespec="milliseconds"),
        "a time as 2024-03-02T23:10:00.000",
    ),
    "sections": [_SECTION],
    "wcs": Each(SCALAR),
}


def faults(value: object, shape: Shape, where: str) -> Iterator[str]:
    """What of a value is not of a shape, each in words with its place; nothing if it fits.

    shape: a type or tuple of types; `{name: shape}`, an object whose names that
    end in `?` may be absent and which may have others; `[shape]`, a list; Each; Maybe; Written.
    """
    if isinstance(shape, Maybe):
        if value is not None:
            yield from faults(value, shape.shape, where)
    elif isinstance(shape, Written):
        if not _is_written(value, shape):
            yield f"{where} is {value!r:.60}, not {shape.words}"
    elif isinstance(shape, Each):
        yield from _object_faults(
            value, dict.fromkeys(value, shape.shape) if isinstance(value, dict) else {}, where
        )
    elif isinstance(shape, Mapping):
        yield from _object_faults(value, shape, where)
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield f"{where} is not a list"
            return
        for number, one in enumerate(value):
            yield from faults(one, shape[0], f"{where}[{number}]")
    else:
        types = shape if isinstance(shape, tuple) else (shape,)
        # True and False are integers to Python, but not to JSON.
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            yield f"{where} is {value!r:.60}, not {_WORDS.get(types[-1], 'of its type')}"


def _is_written(value: object, shape: Written) -> bool:
    try:
        return isinstance(value, str) and shape.again(value) == value
    except ValueError:
        return False


def _object_faults(value: Any, shape: Mapping[str, Shape], where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where} is not an object"
        return
    for name, inner in shape.items():
        key = name.removesuffix("?") if name not in value else name
        place = f"{where}.{key}" if where else key
        if key in value:
            yield from faults(value[key], inner, place)
        elif key == name:
            yield f"{place} is missing"


def _meta_shape() -> dict[str, Shape]:
    types: dict[str, Shape] = {"text": str, "real": NUMBER, "integer": int, "json": [Maybe(NUMBER)]}
    return {f"{field.name}?": Maybe(_FIELD_SHAPES.get(field.name, types[field.type])) for field in FIELDS}


META = _meta_shape()
