"""Parameters: the one order of layers, types, ranges and names."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awetools.core.errors import BadValue, UnknownName
from awetools.core.params import Layer, convert, param, params_of, resolve


@dataclass(frozen=True)
class Sample:
    clip_sigma: float = param(3.0, "How far.", unit="sigma", low=1)
    frames: int = param(5, "How many.", low=1, high=100)
    mode: str = param("rows", "How.", choices=("rows", "none"))
    smooth: bool = param(True, "Whether.")


PARAMS = {one.name: one for one in params_of(Sample)}


def test_later_layers_win_and_the_origin_is_kept() -> None:
    resolved = resolve(
        Sample,
        [Layer("camera", {"clip_sigma": 4, "frames": 7}), Layer("command line", {"clip_sigma": "4.5"})],
    )
    assert resolved.values == Sample(clip_sigma=4.5, frames=7)
    assert dict(resolved.origins) == {
        "clip_sigma": "command line",
        "frames": "camera",
        "mode": "built-in",
        "smooth": "built-in",
    }


def test_an_unknown_name_is_an_error_with_the_nearest_one() -> None:
    with pytest.raises(UnknownName, match="clip_sigma"):
        resolve(Sample, [Layer("awe.toml", {"clip_sigm": 4})])


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("clip_sigma", "0.5"),
        ("clip_sigma", "many"),
        ("clip_sigma", "inf"),
        ("clip_sigma", True),
        ("frames", "2.5"),
        ("frames", 101),
        ("frames", ""),
        ("frames", "1e300"),
        ("frames", 10**400),
        ("frames", float("inf")),
        ("frames", "0x10"),
        ("clip_sigma", "4 sigma"),
        ("clip_sigma", "nan"),
        ("clip_sigma", "-inf"),
        ("clip_sigma", [4]),
        ("mode", "columns"),
        ("mode", 3),
        ("smooth", "maybe"),
        ("smooth", ""),
        ("smooth", 2),
        ("smooth", 0.0),
    ],
)
def test_a_bad_value_names_parameter_value_and_origin(name: str, raw: object) -> None:
    with pytest.raises(BadValue) as caught:
        convert(PARAMS[name], raw, "awe.toml")
    assert name in caught.value.message and "awe.toml" in caught.value.message
    assert repr(raw)[:80] in caught.value.message


@pytest.mark.parametrize(
    ("name", "raw", "value"),
    [
        ("frames", "4.0", 4),
        ("frames", 4.0, 4),
        ("frames", " 4 ", 4),
        ("frames", "4e1", 40),
        ("clip_sigma", 4, 4.0),
        ("clip_sigma", "+4", 4.0),
        ("smooth", "Yes", True),
        ("smooth", " off", False),
        ("smooth", 1, True),
        ("smooth", "0", False),
    ],
)
def test_what_people_write_is_understood(name: str, raw: object, value: object) -> None:
    found = convert(PARAMS[name], raw, "awe.toml")
    assert found == value and type(found) is type(value)


def test_a_unit_behind_a_number_is_named() -> None:
    with pytest.raises(BadValue, match="give the number alone, in sigma"):
        convert(PARAMS["clip_sigma"], "4 sigma", "awe.toml")


@given(st.floats(1, 1e6))
def test_numbers_survive_as_text(value: float) -> None:
    assert convert(PARAMS["clip_sigma"], repr(value), "x") == value


@given(st.text())
def test_any_text_converts_or_is_a_bad_value(text: str) -> None:
    for one in PARAMS.values():
        try:
            value = convert(one, text, "x")
        except BadValue:
            continue
        assert isinstance(value, one.type)
