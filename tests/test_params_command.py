"""awe-params: what it shows, what it writes and what it leaves as it is; saved sets; the editor of settings files."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awetools.core.errors import AweError, BadValue, NoMatch, UnknownName, UsageError
from awetools.core.kinds import KINDS
from awetools.core.params import params_of
from awetools.core.paramsets import load_set, parse_assignment, parse_sets
from awetools.core.settings import check_settings, read_settings
from awetools.core.settingsfile import Change, change_settings, toml_value
from awetools.core.store import Store
from awetools.core.workspace import here
from tests.support import ROOT, InProcess, program


def settings_of(store: Store) -> Path:
    return store.awe / "awe.toml"


def rows(text: str) -> dict[str, list[str]]:
    """Each line of the output by its parameter."""
    return {line.split("\t")[0]: line.split("\t")[1:] for line in text.splitlines()[1:]}


COMMENTED = """# Ours
[bias]
# the lamp leaks
clip_sigma = 3.5  # measured

# Flats of the new lamp
[domeflat]
min_level_adu = 900
"""


# Showing


def test_every_parameter_and_limit_of_a_kind_is_shown(store: Store, run: InProcess) -> None:
    ran = run("params", "bias")
    assert ran.code == 0 and ran.lines[0].split("\t") == ["parameter", "value", "unit", "origin", "range"]
    found = rows(ran.out)
    assert found["clip_sigma"] == ["3.0", "sigma", "built-in", "at least 1"]
    assert found["limits.good_fraction"][:3] == ["0.5..", "-", "built-in"]


def test_the_same_as_params_of_every_maker(
    store: Store, run: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--params of every maker has value, unit and origin, and awe-params agrees with it."""
    nothing = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdin", nothing)
    settings_of(store).write_text("[bias]\nclip_sigma = 4\n[reduced]\ntrails = false\n")
    for kind in KINDS:
        shown = run(kind.command.removeprefix("awe-"), "--params")
        assert shown.code == 0, shown.err
        lines = [line.split("\t") for line in shown.lines]
        assert [line[0] for line in lines] == [one.name for one in params_of(kind.params)]
        assert all(len(line) == 4 and all(line) for line in lines)
        ours = rows(run("params", kind.name).out)
        assert {line[0]: line[1:] for line in lines} == {
            name: row[:3] for name, row in ours.items() if not name.startswith(("limits.", "validity_"))
        }
    assert "trails\tfalse\t-\t" + str(settings_of(store)) in run("reduce", "--params").out


def test_for_a_frame_its_camera_filter_and_detector_count(store: Store, run: InProcess) -> None:
    settings_of(store).write_text(
        "[filter.R.domeflat]\nmin_level_adu = 700\n[detector.sim1.domeflat]\nclip_sigma = 4.5\n"
    )
    frames = run("query", "raw_domeflat", "detector=sim1").lines
    assert len(frames) > 2
    ran = run("params", "domeflat", *frames)
    lines = [line.split("\t") for line in ran.lines[1:]]
    # Many frames of one set-up are one answer.
    labels = {line[0] for line in lines}
    assert labels == {f"camera=simulator filter={name} detector=sim1" for name in "RV"}
    values = {(line[0].split()[1], line[1]): line[2] for line in lines}
    assert values["filter=R", "min_level_adu"] == "700.0"
    assert values["filter=V", "min_level_adu"] == "5000.0"
    assert values["filter=V", "clip_sigma"] == "4.5"
    one = run("params", "domeflat", frames[0], "--json")
    about = [json.loads(line) for line in one.lines]
    assert {row["detector"] for row in about} == {"sim1"} and {row["kind"] for row in about} == {"domeflat"}


def test_one_bad_file_stops_no_other(store: Store, run: InProcess) -> None:
    frame = run("query", "raw_bias", "--limit", 1).out.strip()
    ran = run("params", "bias", "no-such.fits", frame)
    assert ran.code == 4 and "no-such.fits" in ran.err and "clip_sigma" in ran.out


def test_the_camera_of_a_filter_is_that_of_the_frames(store: Store, run: InProcess) -> None:
    (store.cameras_path / "simulator.toml").write_text(
        'extends = "simulator"\n[settings.filter.R.domeflat]\nmin_level_adu = 1200\n'
    )
    found = rows(run("params", "domeflat", "--filter", "R").out)
    assert found["min_level_adu"][0] == "1200.0" and "camera simulator" in found["min_level_adu"][2]
    ran = run("params", "domeflat", "--filter", "r")
    assert ran.code == 0 and "no frame in the store has filter 'r'" in ran.err and "R, V" in ran.err


def test_all_says_what_every_file_and_variable_says(
    store: Store, run: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_of(store).write_text('[bias]\nclip_sigma = 4\n[bias.limits]\nlevel_adu = [900, ""]\n')
    Path("awe.toml").write_text("[detector.sim1.filter.R.domeflat]\nclip_sigma = 5\n")
    monkeypatch.setenv("AWE_FLAT_MIN_RESPONSE", "0.2")
    monkeypatch.setenv("AWE_BAIS_CLIP_SIGMA", "9")
    ran = run("params", "--all")
    lines = {tuple(line.split("\t")[:2]): line.split("\t")[3] for line in ran.lines[1:]}
    assert lines["bias.clip_sigma", "4"] == str(settings_of(store))
    assert lines["bias.limits.level_adu", "900.."] == str(settings_of(store))
    assert lines["domeflat.clip_sigma", "5"].endswith("awe.toml [detector.sim1.filter.R]")
    assert lines["flat.min_response", "0.2"] == "environment AWE_FLAT_MIN_RESPONSE"
    assert "AWE_BAIS_CLIP_SIGMA" in ran.err and "AWE_BIAS_CLIP_SIGMA" in ran.err


def test_compare_shows_what_differs_and_only_that(store: Store, run: InProcess, tmp_path: Path) -> None:
    settings_of(store).write_text(
        "[detector.sim1.bias]\nclip_sigma = 4\n[filter.R.bias.limits]\nlevel_adu = [1, 2]\n"
    )
    ran = run("params", "--compare", "detector=sim1", "detector=sim2")
    assert [line.split("\t")[:4] for line in ran.lines[1:]] == [["bias.clip_sigma", "4.0", "3.0", "sigma"]]
    ran = run("params", "--compare", "filter=R", "filter=V", "--json")
    (about,) = [json.loads(line) for line in ran.lines]
    assert about["a"]["value"] == [1.0, 2.0] and about["b"] is None
    other = tmp_path / "other"
    run("init", other)
    (other / ".awe" / "awe.toml").write_text("[gain]\nclip_sigma = 5\n")
    ran = run("params", "--compare", store.root, other)
    assert rows(ran.out)["gain.clip_sigma"][:2] == ["4.0", "5.0"]
    same = run("params", "--compare", "camera=simulator", "camera=simulator")
    assert same.code == 0 and same.out == "" and "nothing differs" in same.err
    for bad in ("detectr=sim1", "nothing-here", "detector="):
        assert run("params", "--compare", bad, "filter=R").code == 2


def test_what_is_no_kind_is_a_file_or_misspelled(store: Store, run: InProcess) -> None:
    ran = run("params", "bais")
    assert ran.code == 2 and "nearest: bias" in ran.err
    assert run("params", "no-such.fits[2]").code == 4
    frame = run("query", "raw_bias", "--limit", 1).out.strip()
    assert run("params", "bias", f"{frame.partition('[')[0]}").code == 0


# Writing


def test_set_keeps_comments_and_order_and_says_which_file(store: Store, run: InProcess) -> None:
    settings_of(store).write_text(COMMENTED)
    ran = run("params", "bias", "--set", "clip_sigma=4", "--set", "combine=median")
    assert ran.code == 0 and ran.out == f"{settings_of(store)}\n"
    assert "clip_sigma = 4.0 (was 3.5)" in ran.err
    assert settings_of(store).read_text() == COMMENTED.replace("3.5 ", "4.0 ").replace(
        "# measured\n", '# measured\ncombine = "median"\n'
    )
    assert rows(run("params", "bias").out)["combine"][:3] == ["median", "-", str(settings_of(store))]
    run("params", "bias", "--set", "clip_sigma=3.5", "--unset", "combine")
    assert settings_of(store).read_text() == COMMENTED


def test_set_for_a_camera_filter_and_detector(store: Store, run: InProcess) -> None:
    scope = ("--filter", "R", "--detector", "sim1", "--camera", "simulator")
    assert run("params", "--set", "bias.limits.level_adu=900..1100", *scope).code == 0
    tree = tomllib.loads(settings_of(store).read_text())
    assert tree == {
        "camera": {
            "simulator": {
                "detector": {"sim1": {"filter": {"R": {"bias": {"limits": {"level_adu": [900, 1100]}}}}}}
            }
        }
    }
    assert rows(run("params", "bias", *scope).out)["limits.level_adu"][0] == "900..1100"
    assert "limits.level_adu" not in rows(run("params", "bias").out)
    assert run("params", "--unset", "bias.limits.level_adu", *scope).code == 0
    assert settings_of(store).read_text() == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("bias", "--set", "clip_sigm=4"), "nearest: clip_sigma"),
        (("bias", "--set", "clip_sigma=many"), "not a number"),
        (("bias", "--set", "clip_sigma=4 sigma"), "give the number alone, in sigma"),
        (("bias", "--set", "clip_sigma=0.5"), "at least 1"),
        (("bias", "--set", "clip_sigma=inf"), "finite"),
        (("bias", "--set", "clip_sigma="), "not a number"),
        (("bias", "--set", "combine=means"), "clipped, median"),
        (("bias", "--set", "clip_sigma"), "VALUE"),
        (("--set", "clip_sigma=4"), "of which kind?"),
        (("--set", "bais.clip_sigma=4"), "nearest: bias"),
        (("bias", "--set", "limits.levl_adu=1..2"), "level_adu"),
        (("bias", "--set", "limits.level_adu=2..1"), "above"),
        (("bias", "--set", "limits.level_adu=2"), "LOW..HIGH"),
        (("bias", "--set", "validity_nights=3"), "BEFORE..AFTER"),
        (("bias", "--set", "validity_nights=-1..3"), "BEFORE..AFTER"),
        (("bias", "--set", "validity_nights=0..99999"), "36525"),
        (("reduced", "--set", "validity_nights=0..1"), "no validity"),
        (("bias", "--set", "clip_sigma=4", "--set", "bias.clip_sigma=5"), "twice"),
        (("bias", "--set", "clip_sigma=4", "--camera", "simulatr"), "simulator"),
        (("bias", "--set", "clip_sigma=4", "--store", "--home"), "exclude"),
        (("bias", "--set", "clip_sigma=4", "--filter", ""), "empty"),
        (("bias", "--set", "combine=median", "--set", "clip_sigma=0"), "at least 1"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_written(
    store: Store, run: InProcess, arguments: tuple[str, ...], said: str
) -> None:
    settings_of(store).write_text(COMMENTED)
    ran = run("params", *arguments)
    assert ran.code == 2 and said in ran.err, ran.err
    assert ran.out == "" and settings_of(store).read_text() == COMMENTED


def test_a_file_that_does_not_parse_is_left_as_it_is(store: Store, run: InProcess) -> None:
    settings_of(store).write_text("[bias\nclip_sigma = 3")
    ran = run("params", "bias", "--set", "clip_sigma=4")
    assert ran.code == 2 and "bad-settings" in ran.err and str(settings_of(store)) in ran.err
    assert settings_of(store).read_text() == "[bias\nclip_sigma = 3"
    assert run("params", "bias").code == 2


def test_unset_of_what_is_not_there_is_no_match(store: Store, run: InProcess) -> None:
    assert run("params", "bias", "--unset", "clip_sigma").code == 5
    assert not settings_of(store).exists()
    settings_of(store).write_text("[bias]\nclip_sigms = 3\n")
    assert run("params", "bias").code == 2
    # A misspelled name is taken out as any other.
    assert run("params", "bias", "--unset", "clip_sigms").code == 0
    assert run("params", "bias").code == 0


def test_each_place_is_its_own_file(store: Store, run: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    home = store.root / "config"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    Path("work").mkdir()
    monkeypatch.chdir("work")
    assert run("params", "bias", "--set", "clip_sigma=3.1", "--home").code == 0
    assert run("params", "bias", "--set", "clip_sigma=3.2", "--store").code == 0
    assert (home / "awetools" / "awe.toml").read_text() == "[bias]\nclip_sigma = 3.1\n"
    outweighed = run("params", "bias", "--set", "clip_sigma=3.4", "--home")
    assert "is still 3.2" in outweighed.err and str(settings_of(store)) in outweighed.err
    assert run("params", "bias", "--set", "clip_sigma=3.3", "--project").code == 0
    assert Path("awe.toml").read_text() == "[bias]\nclip_sigma = 3.3\n"
    assert rows(run("params", "bias").out)["clip_sigma"][2] == str(Path("awe.toml").resolve())
    elsewhere = run("params", "bias", "--set", "clip_sigma=3.5", "--file", "other.toml")
    assert elsewhere.code == 0 and "not among" in elsewhere.err
    monkeypatch.setenv("AWE_BIAS_CLIP_SIGMA", "9")
    ran = run("params", "bias", "--set", "clip_sigma=3.6", "--project")
    assert "still 9.0: environment AWE_BIAS_CLIP_SIGMA" in ran.err


def test_without_a_store_it_asks_for_a_place(
    tmp_path: Path, run: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run("params", "bias", "--set", "clip_sigma=4")
    assert ran.code == 4 and "--home" in ran.err
    assert run("params", "bias").code == 0


def test_a_dry_run_and_an_equal_value_write_nothing(store: Store, run: InProcess) -> None:
    ran = run("params", "bias", "--set", "clip_sigma=4", "-n")
    assert ran.code == 0 and "would be 4.0" in ran.err and not settings_of(store).exists()
    run("params", "bias", "--set", "clip_sigma=4")
    before = settings_of(store).stat()
    ran = run("params", "bias", "--set", "clip_sigma=4.0")
    assert "already" in ran.err and settings_of(store).stat().st_ino == before.st_ino


def test_two_writers_lose_nothing(store: Store) -> None:
    names = [(kind.name, one) for kind in KINDS for one in params_of(kind.params)]
    script = (
        "import sys, pathlib\n"
        "from awetools.core.settingsfile import Change, change_settings\n"
        "for word in sys.argv[2:]:\n"
        "    kind, name, value = word.split(',')\n"
        "    change_settings(pathlib.Path(sys.argv[1]), [Change((kind,), name, value)])\n"
    )
    words = [f"{kind},{one.name},x" for kind, one in names]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(settings_of(store)), *words[part::3]],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for part in range(3)
    ]
    assert [one.wait(timeout=60) for one in started] == [0, 0, 0]
    tree = tomllib.loads(settings_of(store).read_text())
    assert {(kind, name) for kind, table in tree.items() for name in table} == {
        (kind, one.name) for kind, one in names
    }
    assert [path.name for path in store.awe.iterdir() if "awe.toml" in path.name] == ["awe.toml"]


def test_a_link_stays_a_link_and_the_mode_stays(store: Store) -> None:
    kept = store.root / "dotfiles.toml"
    kept.write_text("[bias]\n")
    kept.chmod(0o640)
    settings_of(store).symlink_to(kept)
    change_settings(settings_of(store), [Change(("bias",), "clip_sigma", 4.0)])
    assert settings_of(store).is_symlink() and kept.read_text() == "[bias]\nclip_sigma = 4.0\n"
    assert kept.stat().st_mode & 0o777 == 0o640


def test_what_cannot_be_written_is_unavailable(store: Store, run: InProcess) -> None:
    (store.root / "file").write_text("")
    ran = run("params", "bias", "--set", "clip_sigma=4", "--file", "file/awe.toml")
    assert ran.code == 7 and "file" in ran.err


@pytest.mark.parametrize(
    ("text", "shown", "value"),
    [
        ("0..30", "0..30", [0, 30]),
        ("forever", "forever", "forever"),
        ('[2, "forever"]', "2..forever", [2, "forever"]),
    ],
)
def test_the_validity_is_set_and_shown(
    store: Store, run: InProcess, text: str, shown: str, value: object
) -> None:
    assert rows(run("params", "bias").out)["validity_nights"][:3] == ["0..0", "nights", "built-in"]
    assert run("params", "bias", "--set", f"validity_nights={text}").code == 0
    assert tomllib.loads(settings_of(store).read_text()) == {"bias": {"validity_nights": value}}
    assert rows(run("params", "bias").out)["validity_nights"][0] == shown
    assert f"bias.validity_nights\t{shown}" in run("params", "--all").out
    assert run("params", "bias", "--save", "none").code == 2
    assert run("params", "bias", "--unset", "validity_nights").code == 0


# The editor


def test_lines_that_people_wrote_stay_where_they_are(tmp_path: Path) -> None:
    path = tmp_path / "awe.toml"
    cases: list[tuple[str, Change, str]] = [
        ("", Change(("bias",), "combine", "median"), '[bias]\ncombine = "median"\n'),
        ("[bias]", Change(("bias",), "n", 1), "[bias]\nn = 1\n"),
        ("[bias]\r\na = 1\r\n", Change(("bias",), "n", 2), "[bias]\r\na = 1\r\nn = 2\r\n"),
        ("bias.a = 1\n", Change(("bias",), "n", 2), "bias.a = 1\nbias.n = 2\n"),
        (
            "[bias]\na = 1\n[flat]\nb = 1\n[bias.limits]\nc = [1, 2]\n",
            Change(("bias",), "n", True),
            "[bias]\na = 1\nn = true\n[flat]\nb = 1\n[bias.limits]\nc = [1, 2]\n",
        ),
        (
            '[bias]\na = """\n[flat]\n"""\n# end\n',
            Change(("bias",), "n", 2.5),
            '[bias]\na = """\n[flat]\n"""\nn = 2.5\n# end\n',
        ),
        (
            "[a]\nx = 1\n",
            Change(("filter", "r.MP", "bias"), "n", 2),
            '[a]\nx = 1\n\n[filter."r.MP".bias]\nn = 2\n',
        ),
        ("# c\n[filter.R.bias]\nn = 2\n", Change(("filter", "R", "bias"), "n", None), "# c\n"),
        ("[bias]\n# why\nn = 2\n", Change(("bias",), "n", None), "[bias]\n# why\n"),
    ]
    for text, change, wanted in cases:
        path.write_bytes(text.encode())
        change_settings(path, [change])
        assert path.read_bytes().decode() == wanted


names = st.sampled_from(["bias", "flat", "R", "r.MP", "a b", 'q"\\', "é", "\U0001f52d", "\n\x7f", ""])
scalars = st.one_of(
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=9),
)
changes = st.builds(
    Change,
    st.lists(names, min_size=1, max_size=3).map(tuple),
    st.sampled_from(["x", "y", "a.b"]),
    st.one_of(st.none(), scalars, st.lists(scalars, max_size=2)),
)
texts = st.sampled_from(
    [
        "",
        COMMENTED,
        "bias.x = 1\nflat.y = 2  # both\n",
        "bias = {x = 1}\n",
        "[bias]\nx = 1\n[flat]\ny = 2\n[bias.R]\nx = 3\n[R.bias]\nx = 1\n[flat.R]\n[R.flat]\n",
        "[bias.R]\n[bias]\nx = [\n 1, # one\n]\r\n",
        "[[list]]\nx = 1\n[bias]\n",
    ]
)


@given(texts, st.lists(changes, min_size=1, max_size=4))
def test_the_editor_says_what_was_meant_and_nothing_else(text: str, wanted: list[Change]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "awe.toml"
        path.write_bytes(text.encode())
        for change in wanted:
            before, raw = tomllib.loads(path.read_bytes().decode()), path.read_bytes()
            try:
                change_settings(path, [change])
            except AweError:
                assert path.read_bytes() == raw
                continue
            key, after = (*change.table, change.name), leaves(tomllib.loads(path.read_bytes().decode()))
            others = {one: value for one, value in leaves(before).items() if one[: len(key)] != key}
            assert after == (others if change.value is None else {**others, key: change.value})
            assert [line for line in raw.split(b"\n") if line.startswith(b"#")] == [
                line for line in path.read_bytes().split(b"\n") if line.startswith(b"#")
            ]


def leaves(tree: dict[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    """Every value of a tree by its path."""
    found: dict[tuple[str, ...], object] = {}
    for name, value in tree.items():
        found |= leaves(value, (*path, name)) if isinstance(value, dict) else {(*path, name): value}
    return found


@given(scalars)
def test_a_value_survives_as_toml(value: object) -> None:
    assert tomllib.loads(f"x = {toml_value(value)}")["x"] == value


def test_a_text_that_is_not_unicode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadValue):
        change_settings(tmp_path / "awe.toml", [Change(("filter", "\udcff", "bias"), "n", 1)])
    assert not (tmp_path / "awe.toml").exists()


# Words and sets


def test_parse_sets_converts_and_the_later_word_counts() -> None:
    found = parse_sets(
        ["bias.clip_sigma=4", "reduced.trails=no", "bias.clip_sigma = 5", "reduced.sky_mesh=32.0"], KINDS
    )
    assert found == {"bias": {"clip_sigma": 5.0}, "reduced": {"trails": False, "sky_mesh": 32}}
    assert type(found["reduced"]["sky_mesh"]) is int


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("bias.clip_sigm=4", UnknownName, "nearest: clip_sigma"),
        ("bais.clip_sigma=4", UnknownName, "nearest: bias"),
        ("clip_sigma=4", UsageError, "of which kind"),
        ("bias.clip_sigma", UsageError, "VALUE"),
        ("bias.limits.level_adu=1..2", UsageError, "awe-params"),
        ("bias.validity_nights=1..2", UsageError, "awe-params"),
        ("bias.clip_sigma=4s", BadValue, "not a number"),
        ("bias.clip.sigma=4", UsageError, "VALUE"),
        ("=", UsageError, "of which kind"),
        ("", UsageError, "VALUE"),
        (".=", UnknownName, "no kind"),
    ],
)
def test_bad_words_are_named(text: str, error: type[AweError], said: str) -> None:
    with pytest.raises(error) as caught:
        parse_sets([text], KINDS)
    assert said in caught.value.message + caught.value.hint
    assert caught.value.message.startswith(f"--set {text}") or f"(--set {text})" in caught.value.message


@given(st.text(max_size=30))
def test_any_word_is_taken_or_refused(text: str) -> None:
    for option in ("--set", "--unset"):
        try:
            parse_assignment(text, KINDS, KINDS[0], option)
        except AweError as error:
            assert error.exit_code == 2


def test_a_set_is_saved_listed_shown_applied_and_removed(store: Store, run: InProcess) -> None:
    settings_of(store).write_text("[bias]\nclip_sigma = 4\n[filter.R.domeflat]\nmin_level_adu = 700\n")
    ran = run("params", "--save", "deep-R", "--filter", "R")
    path = store.awe / "sets" / "deep-R.toml"
    assert ran.code == 0 and ran.out == f"{path}\n"
    wanted = {"bias": {"clip_sigma": 4.0}, "domeflat": {"min_level_adu": 700.0}}
    assert load_set(here(), "deep-R", KINDS) == wanted
    assert run("params", "--sets").lines[1].split("\t")[:3] == ["deep-R", "2", "bias,domeflat"]
    assert rows(run("params", "--show", "deep-R").out)["domeflat.min_level_adu"][0] == "700.0"
    settings_of(store).write_text("# new\n")
    compared = rows(run("params", "--compare", "set=deep-R", "filter=R").out)
    assert compared["bias.clip_sigma"][:2] == ["4.0", "3.0"] and set(compared) == {
        "bias.clip_sigma",
        "domeflat.min_level_adu",
    }
    assert run("params", "bias", "--apply", "deep-R").code == 0
    assert settings_of(store).read_text() == "# new\n\n[bias]\nclip_sigma = 4.0\n"
    assert run("params", "--apply", "deep-R", "--detector", "sim1").code == 0
    tree = tomllib.loads(settings_of(store).read_text())
    assert tree["detector"]["sim1"] == wanted
    assert run("params", "--save", "deep-R").code == 2
    assert run("params", "--save", "deep-R", "--force").code == 0
    assert run("params", "--remove", "deep-R").code == 0 and not path.exists()
    ran = run("params", "--remove", "deep-R")
    assert ran.code == 2 and "none is saved" in ran.err


def test_resolved_saves_what_nobody_set_too(store: Store, run: InProcess) -> None:
    ran = run("params", "--save", "none")
    assert ran.code == 2 and "--resolved" in ran.err
    assert run("params", "--save", "all", "--resolved").code == 0
    found = load_set(here(), "all", KINDS)
    assert {kind: list(table) for kind, table in found.items()} == {
        kind.name: [one.name for one in params_of(kind.params)] for kind in KINDS if params_of(kind.params)
    }


def test_sets_of_several_stores_the_first_counts(
    store: Store, run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    run("init", other)
    for root, value in ((store.root, 4), (other, 5)):
        (root / ".awe" / "sets").mkdir()
        (root / ".awe" / "sets" / "both.toml").write_text(f"[bias]\nclip_sigma = {value}\n")
    (other / ".awe" / "sets" / "only.toml").write_text("[bias]\nclip_sigma = 6\n")
    monkeypatch.setenv("AWE_PATH", f"{store.root}:{other}")
    assert load_set(here(), "both", KINDS) == {"bias": {"clip_sigma": 4.0}}
    assert load_set(here(), "only", KINDS) == {"bias": {"clip_sigma": 6.0}}
    with pytest.raises(UnknownName, match="nearest: only"):
        load_set(here(), "onyl", KINDS)


@pytest.mark.parametrize(
    "text", ["[bais]\n", "[bias]\nclip_sigm = 3\n", "[bias]\nclip_sigma = 0\n", "[filter.R.bias]\nclip_sigma = 3\n",
             "[bias.limits]\nlevel_adu = [1, 2]\n", "[bias", "x = 1\n"]
)  # fmt: skip
def test_a_set_that_makes_no_sense_is_named(store: Store, run: InProcess, text: str) -> None:
    (store.awe / "sets").mkdir()
    (store.awe / "sets" / "odd.toml").write_text(text)
    (store.awe / "sets" / "well.toml").write_text("[bias]\nclip_sigma = 4\n")
    ran = run("params", "--apply", "odd")
    assert ran.code == 2 and "odd.toml" in ran.err and not settings_of(store).exists()
    listed = run("params", "--sets")
    assert listed.code == 2 and "well" in listed.out and "odd.toml" in listed.err


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".x", "-x", "x" * 65, "a\nb"])
def test_a_name_of_a_set_is_safe_as_a_file_name(store: Store, run: InProcess, name: str) -> None:
    ran = run("params", f"--save={name}", "--resolved")
    assert ran.code == 2 and "name of a set" in ran.err
    assert run("params", f"--show={name}").code == 2


def test_an_outside_change_between_is_not_lost(store: Store) -> None:
    """Changes are made in the file as it is under the lock."""
    path = settings_of(store)
    change_settings(path, [Change(("bias",), "clip_sigma", 4.0)])
    path.write_text(path.read_text() + "[gain]\nclip_sigma = 5\n")
    change_settings(path, [Change(("bias",), "combine", "median")])
    settings = read_settings(path)
    assert settings is not None and settings.tree["gain"] == {"clip_sigma": 5}
    check_settings(settings, KINDS)
    with pytest.raises(NoMatch):
        change_settings(path, [Change(("bias",), "combine", None), Change(("bias",), "none", None)])
    assert "median" in path.read_text()


def test_programs_use_what_was_set(store: Store) -> None:
    assert program("params", "bias", "--set", "clip_sigma=4", cwd=store.root).code == 0
    ran = program("bias", "--params", stdin="", cwd=store.root)
    assert f"clip_sigma\t4.0\tsigma\t{settings_of(store)}" in ran.lines
