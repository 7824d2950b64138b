"""Settings files: their order, their scopes, and their mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from awetools.core.errors import BadSettings, UnknownName
from awetools.core.kinds import KINDS
from awetools.core.kinds.bias import BIAS
from awetools.core.settings import (
    Settings,
    check_settings,
    gather,
    read_settings,
    resolve_limits,
    resolve_params,
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
    ],
)
def test_mistakes_are_named_with_the_file(
    tmp_path: Path, text: str, error: type[Exception], said: str
) -> None:
    path = tmp_path / "awe.toml"
    path.write_text(text)
    with pytest.raises(error, match=said) as caught:
        settings = read_settings(path)
        assert settings is not None
        check_settings(settings, KINDS)
    assert str(path) in str(caught.value)


def test_an_unknown_measure_in_limits_is_named() -> None:
    settings = Settings("awe.toml", {"bias": {"limits": {"level": [0, 1]}}})
    with pytest.raises(UnknownName, match="level_adu"):
        resolve_limits(BIAS, META, {}, [settings])


def test_a_camera_that_does_not_exist_is_named() -> None:
    settings = Settings("awe.toml", {"camera": {"nikel": {"bias": {"clip_sigma": 4}}}})
    with pytest.raises(UnknownName, match="nickel"):
        check_settings(settings, KINDS, ["nickel", "generic"])
    check_settings(settings, KINDS)
