"""Settings files: their order, their scopes, and their mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awetools.core.camera import load_cameras
from awetools.core.errors import BadSettings, BadValue, UnknownName
from awetools.core.kinds import KINDS
from awetools.core.kinds.bias import BIAS
from awetools.core.settings import (
    NESTINGS,
    Settings,
    check_in_force,
    check_settings,
    gather,
    read_settings,
    resolve_limits,
    resolve_params,
    scoped,
)

META = {"camera": "nickel", "filter": "R", "detector": "loral"}


def test_the_order_of_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, store, project = tmp_path / "home", tmp_path / "store", tmp_path / "store" / "work"
    for path in (home / "awetools", store / ".awe", project):
        path.mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    found = []

    def value() -> float:
        resolved = resolve_params(BIAS, META, camera, gather([store], project), command_line)
        found.append(resolved.origins["clip_sigma"])
        return float(resolved.values.clip_sigma)

    camera: dict[str, object] = {}
    command_line: dict[str, object] = {}
    assert value() == 3
    camera["bias"] = {"clip_sigma": 3.1}
    assert value() == 3.1
    camera["filter"] = {"R": {"bias": {"clip_sigma": 3.2}}, "V": {"bias": {"clip_sigma": 9}}}
    assert value() == 3.2
    camera["detector"] = {"loral": {"bias": {"clip_sigma": 3.3}}}
    assert value() == 3.3
    (home / "awetools" / "awe.toml").write_text("[bias]\nclip_sigma = 3.4\n")
    assert value() == 3.4
    (store / ".awe" / "awe.toml").write_text(
        "[camera.nickel.bias]\nclip_sigma = 3.5\n[bias]\nclip_sigma = 9\n"
    )
    assert value() == 3.5
    (project / "awe.toml").write_text("[bias]\nclip_sigma = 3.6\n")
    assert value() == 3.6
    monkeypatch.setenv("AWE_BIAS_CLIP_SIGMA", "3.7")
    assert value() == 3.7
    command_line["clip_sigma"] = 3.8
    assert value() == 3.8
    assert len(set(found)) == len(found), "every layer has an origin of its own"


def test_limits_of_a_settings_file_replace_those_of_the_declaration() -> None:
    settings = Settings(
        "awe.toml", {"bias": {"limits": {"level_adu": [900, 1100], "good_fraction": [0.9, ""]}}}
    )
    limits = {one.measure: (one.low, one.high) for one in resolve_limits(BIAS, META, {}, [settings])}
    assert limits == {"good_fraction": (0.9, None), "level_adu": (900.0, 1100.0)}


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("[bais]\nclip_sigma = 3", UnknownName, "bias"),
        ("[bias]\nclip_sigmas = 3", UnknownName, "clip_sigma"),
        ("clip_sigma = 3", BadSettings, "outside a table"),
        ("[bias", BadSettings, "awe.toml"),
        ("[camera.nickel.bais]\nclip_sigma = 3", UnknownName, "bias"),
        ("[filter.R.bias]\nclip_sigma = 0", BadValue, "[filter.R]"),
        ("[bias]\nclip_sigma = '4 sigma'", BadValue, "give the number alone, in sigma"),
        ("[bias]\nclip_sigma = true", BadValue, "not a number"),
        ("[bias]\nclip_sigma = nan", BadValue, "not a number"),
        ("[bias]\nclip_sigma = 1e999", BadValue, "finite"),
        ("[reduced]\nsky_mesh = 64.5", BadValue, "whole number"),
        ("[filter.R.detector.loral.bias]\nclip_sigma = 4", BadSettings, "not read"),
        ("[detector.loral.camera.nickel.bias]\nclip_sigma = 4", BadSettings, "not read"),
        ("[filter.R]\nclip_sigma = 4", BadSettings, "outside a table"),
        ("[filter]\nR = 4", BadSettings, "[filter.R.bias]"),
        ("bias = 4", BadSettings, "outside a table"),
        ("x = " + "[" * 5000, BadSettings, "nested"),
    ],
)
def test_mistakes_are_named_with_the_file(
    tmp_path: Path, text: str, error: type[Exception], said: str
) -> None:
    path = tmp_path / "awe.toml"
    path.write_text(text)
    with pytest.raises(error) as caught:
        settings = read_settings(path)
        assert settings is not None
        check_settings(settings, KINDS)
    assert said in str(caught.value) and str(path) in str(caught.value)


def test_an_unknown_measure_in_limits_is_named() -> None:
    settings = Settings("awe.toml", {"bias": {"limits": {"level": [0, 1]}}})
    with pytest.raises(UnknownName, match="level_adu"):
        resolve_limits(BIAS, META, {}, [settings])


def test_a_camera_that_does_not_exist_is_named() -> None:
    settings = Settings("awe.toml", {"camera": {"nikel": {"bias": {"clip_sigma": 4}}}})
    with pytest.raises(UnknownName, match="nickel"):
        check_settings(settings, KINDS, ["nickel", "generic"])
    check_settings(settings, KINDS)


# Every place at which a value can stand, weakest first: a layer, and the scopes within it.
LAYERS = ("camera", "home", "second store", "first store", "project")
PLACES = [
    (layer, nesting)
    for layer in LAYERS
    for nesting in NESTINGS
    if layer != "camera" or "camera" not in nesting
]


def tree_of(nestings: dict[tuple[str, ...], float]) -> dict[str, Any]:
    """A settings tree that gives clip_sigma a value in each of some scopes of META, and others elsewhere."""
    tree: dict[str, Any] = {"filter": {"other": {"bias": {"clip_sigma": 99}}}}
    for nesting, value in nestings.items():
        table = tree
        for scope in nesting:
            table = table.setdefault(scope, {}).setdefault(META[scope], {})
        table["bias"] = {"clip_sigma": value}
    return tree


@given(st.sets(st.integers(0, len(PLACES) - 1)), st.booleans(), st.booleans())
def test_the_strongest_place_that_says_something_counts(
    places: set[int], variable: bool, typed: bool
) -> None:
    """Over every choice of places: the last of them in the order of the contract gives the value and the origin."""
    trees: dict[str, dict[tuple[str, ...], float]] = {layer: {} for layer in LAYERS}
    for number in places:
        layer, nesting = PLACES[number]
        trees[layer][nesting] = 2.0 + number
    settings = [Settings(layer, tree_of(trees[layer])) for layer in LAYERS[1:]]
    for one in settings:
        check_settings(one, KINDS, ["nickel"])
    with pytest.MonkeyPatch.context() as patch:
        if variable:
            patch.setenv("AWE_BIAS_CLIP_SIGMA", "500")
        line: dict[str, object] = {"clip_sigma": 600.0} if typed else {}
        resolved = resolve_params(BIAS, META, tree_of(trees["camera"]), settings, line)
    value, origin = resolved.values.clip_sigma, resolved.origins["clip_sigma"]
    if typed:
        assert (value, origin) == (600.0, "command line")
    elif variable:
        assert (value, origin) == (500.0, "environment AWE_BIAS_CLIP_SIGMA")
    elif places:
        layer, nesting = PLACES[max(places)]
        assert value == 2.0 + max(places)
        assert origin.startswith("camera nickel" if layer == "camera" else layer)
        assert all(f"{scope}.{META[scope]}" in origin for scope in nesting)
    else:
        assert (value, origin) == (3.0, "built-in")


def test_what_is_not_known_of_a_frame_has_no_scope() -> None:
    """A frame without a filter is not of a filter that is called None."""
    settings = Settings("awe.toml", {"filter": {"None": {"bias": {"clip_sigma": 9}}}})
    assert scoped(settings, "bias", {"camera": "nickel", "filter": None}) == []


def test_names_that_need_quotes_are_quoted_in_origins() -> None:
    settings = Settings("awe.toml", {"filter": {"r.MP9601": {"bias": {"clip_sigma": 9}}}})
    ((origin, _),) = scoped(settings, "bias", {"filter": "r.MP9601"})
    assert origin == 'awe.toml [filter."r.MP9601"]'


@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_variable_counts_as_not_set(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWE_BIAS_CLIP_SIGMA", value)
    assert resolve_params(BIAS, META, {}, [], {}).origins["clip_sigma"] == "built-in"


@pytest.mark.parametrize(
    ("name", "value", "error", "said"),
    [
        ("AWE_BIAS_CLIP_SIGMA", "many", BadValue, "not a number"),
        ("AWE_BIAS_CLIP_SIGMA", "inf", BadValue, "finite"),
        ("AWE_BIAS_CLIP_SIGMA", "4sigma", BadValue, "give the number alone, in sigma"),
        ("AWE_BIAS_CLIP_SIGM", "4", UnknownName, "nearest: clip_sigma"),
        ("AWE_BIAS_LIMITS", "4", UnknownName, "limits"),
    ],
)
def test_a_variable_that_makes_no_sense_is_named(
    name: str, value: str, error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(error) as caught:
        resolve_params(BIAS, META, {}, [], {})
    assert name in str(caught.value) and said in str(caught.value)


@pytest.mark.parametrize(
    "text", ["[settings.bais]", "[settings.bias]\nclip_sigma = 0", "[settings]\nbias = 3"]
)
def test_what_a_camera_table_sets_is_checked_too(tmp_path: Path, text: str) -> None:
    (tmp_path / "nickel.toml").write_text(f'extends = "nickel"\n{text}\n')
    cameras = load_cameras([tmp_path])
    with pytest.raises((UnknownName, BadValue, BadSettings)) as caught:
        check_in_force([], cameras, KINDS)
    assert str(tmp_path / "nickel.toml") in str(caught.value)
    check_in_force([], load_cameras(), KINDS)
