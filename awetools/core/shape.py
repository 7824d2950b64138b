"""The form of values read from JSON, checked in one place, so that what reads them can rely on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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
    "gridded": Each((str, int, float, type(None))),
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


Check = Callable[[Any], bool]


def checker(shape: Shape) -> Check:
    """A quick test whether what was read from JSON is of a shape; where it fails, `faults` has the last word."""
    types = _types_of(shape)
    if types is not None:
        return lambda value: type(value) in types
    if isinstance(shape, Written):
        return lambda value: _is_written(value, shape)
    if isinstance(shape, Maybe):
        test = checker(shape.shape)
        return lambda value: value is None or test(value)
    if isinstance(shape, Each):
        all_values = _checker_of_all(shape.shape)
        return lambda value: type(value) is dict and all_values(value.values())
    if isinstance(shape, list):
        all_items = _checker_of_all(shape[0])
        return lambda value: type(value) is list and all_items(value)
    return _checker_of_object(shape)


def _types_of(shape: Shape) -> frozenset[type] | None:
    """The types that alone make a shape; None if there is more to it."""
    if isinstance(shape, Maybe):
        types = _types_of(shape.shape)
        return None if types is None else types | {type(None)}
    if isinstance(shape, type):
        return frozenset([shape])
    return frozenset(shape) if isinstance(shape, tuple) else None


def _checker_of_all(shape: Shape) -> Callable[[Iterable[Any]], bool]:
    types = _types_of(shape)
    if types is not None:
        return lambda values: types.issuperset(map(type, values))
    test = checker(shape)
    return lambda values: all(map(test, values))


def _checker_of_object(shape: Mapping[str, Shape]) -> Check:
    plain = [(name, types) for name, inner in shape.items() if (types := _types_of(inner)) is not None]
    needed = [(name, types) for name, types in plain if not name.endswith("?")]
    others = [(name.removesuffix("?"), types) for name, types in plain if name.endswith("?")]
    inner_tests = [
        (name.removesuffix("?"), name.endswith("?"), checker(inner))
        for name, inner in shape.items()
        if _types_of(inner) is None
    ]

    def test(value: Any) -> bool:
        if type(value) is not dict:
            return False
        for name, types in needed:
            if name not in value or type(value[name]) not in types:
                return False
        for name, types in others:
            if name in value and type(value[name]) not in types:
                return False
        for name, may_lack, inner in inner_tests:
            if name in value:
                if not inner(value[name]):
                    return False
            elif not may_lack:
                return False
        return True

    return test


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
# What a maker read of an input, as far as it is calculated with; its sections do not say the HDU.
USED_META = {
    **{name: META[name] for name in ("exptime_s?", "saturation_adu?", "read_noise_adu?", "gain_e_adu?")},
    "sections?": Maybe([{name: shape for name, shape in _SECTION.items() if name != "hdu"}]),
}
