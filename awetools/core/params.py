"""Parameters of a kind: a frozen dataclass whose fields carry help, unit and range.

A value is resolved through layers, each later one winning; the origin of every
value is kept, because it goes on record.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from string import ascii_letters
from typing import Any, cast

from .errors import BadValue, UnknownName, nearest

Scalar = str | int | float | bool

# Beyond this, whole numbers are not exact in JSON.
LARGEST_INT = (1 << 53) - 1
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_TYPE_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


@dataclasses.dataclass(frozen=True)
class Param:
    """One parameter: its name, type, default, help, unit and what it may be."""

    name: str
    type: type
    default: Scalar
    help: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def option(self) -> str:
        """The name as a command-line option."""
        return "--" + self.name.replace("_", "-")

    @property
    def default_text(self) -> str:
        """The default as a command line has it."""
        if self.type is bool:
            return "yes" if self.default else "no"
        return str(self.default)

    @property
    def range_text(self) -> str:
        """What the value may be, in words; empty if anything."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.low is not None and self.high is not None:
            return f"{self.low:g} to {self.high:g}"
        if self.low is not None:
            return f"at least {self.low:g}"
        if self.high is not None:
            return f"at most {self.high:g}"
        return ""


@dataclasses.dataclass(frozen=True)
class Layer:
    """One source of values, for example a settings file: where it is and what it says."""

    origin: str
    values: Mapping[str, object]


@dataclasses.dataclass(frozen=True)
class Resolved:
    """The values of all parameters of a kind, and where each came from."""

    values: Any
    origins: Mapping[str, str]

    def as_dict(self) -> dict[str, Scalar]:
        """Name to value, for the record and the key."""
        return dataclasses.asdict(self.values)


def param(
    default: Scalar,
    help: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
) -> Any:
    """Declare a field of a parameter class, with its help, unit and range."""
    about = {"help": help, "unit": unit, "low": low, "high": high, "choices": tuple(choices)}
    return dataclasses.field(default=default, metadata=about)


@cache
def params_of(params_class: type) -> tuple[Param, ...]:
    """The parameters that a parameter class declares, in its order."""
    types = typing.get_type_hints(params_class)
    return tuple(
        Param(field.name, types[field.name], cast(Scalar, field.default), **field.metadata)
        for field in dataclasses.fields(params_class)
    )


def convert(param: Param, raw: object, origin: str) -> Scalar:
    """Turn a text or TOML value into the parameter's type, within its range.

    Raises BadValue, naming the parameter, the value and the origin.
    """
    value = _typed(param, raw, origin)
    if isinstance(value, float) and not math.isfinite(value):
        raise BadValue(f"{param.name} = {raw!r} ({origin}): must be finite")
    if param.choices and value not in param.choices:
        raise BadValue(f"{param.name} = {raw!r} ({origin}): must be {param.range_text}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        too_low = param.low is not None and value < param.low
        too_high = param.high is not None and value > param.high
        if too_low or too_high:
            raise BadValue(f"{param.name} = {raw!r} ({origin}): must be {param.range_text}")
    return value


def _typed(param: Param, raw: object, origin: str) -> Scalar:
    if param.type is bool:
        if isinstance(raw, bool):
            return raw
        word = str(raw).strip().lower()
        if word in (*_TRUE, *_FALSE):
            return word in _TRUE
    elif param.type is str and isinstance(raw, str):
        return raw
    elif param.type in (int, float) and isinstance(raw, str | int | float) and not isinstance(raw, bool):
        number = _number(raw)
        if param.type is float and not math.isnan(number):
            return number
        if param.type is int and number.is_integer() and abs(number) <= LARGEST_INT:
            return int(number)
    raise BadValue(
        f"{param.name} = {raw!r:.80} ({origin}): not {_TYPE_WORDS[param.type]}{_unit_hint(param, raw)}"
    )


def _number(raw: str | int | float) -> float:
    try:
        return float(raw)
    except (ValueError, OverflowError):
        return math.nan


def _unit_hint(param: Param, raw: object) -> str:
    """What to say to a number with a unit behind it."""
    with_unit = isinstance(raw, str) and not math.isnan(_number(raw.rstrip().rstrip(ascii_letters)))
    return f"; give the number alone, in {param.unit}" if param.unit and with_unit else ""


def value_text(value: object) -> str:
    """A value as a settings file has it, texts without quotes: 3.0, true, rows."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def check_name(name: str, params: Sequence[Param], where: str) -> Param:
    """The parameter of that name; raises UnknownName with the nearest one."""
    for one in params:
        if one.name == name:
            return one
    names = [one.name for one in params]
    raise UnknownName(f"{where}: no parameter {name!r}{nearest(name, names)}; there are: {', '.join(names)}")


def resolve(params_class: type, layers: Sequence[Layer]) -> Resolved:
    """Resolve every parameter: the default, then each layer in turn."""
    params = params_of(params_class)
    values: dict[str, Scalar] = {one.name: one.default for one in params}
    origins = dict.fromkeys(values, "built-in")
    for layer in layers:
        for name, raw in layer.values.items():
            one = check_name(name, params, layer.origin)
            values[name] = convert(one, raw, layer.origin)
            origins[name] = layer.origin
    return Resolved(params_class(**values), origins)
