"""What a hostile or clumsy user does: each attack that once went wrong, and what must come of it now."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from awetools.core.errors import NoRecord
from awetools.core.record import check_record, read_record, sidecar
from awetools.core.store import init_store
from tests.support import ROOT, InProcess, Ran, bias_frames, program, write_raw


@pytest.fixture
def frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Four good biases; the working directory holds no store."""
    monkeypatch.chdir(tmp_path)
    return bias_frames(tmp_path / "raw")


def refused(ran: Ran, code: int, slug: str, *said: str) -> None:
    assert ran.code == code, ran.err
    assert f": {slug}: " in ran.err
    for text in said:
        assert text in ran.err
    assert "Traceback" not in ran.err
    assert "bug" not in ran.err


# Outputs that are not outputs


def test_a_picture_never_replaces_a_frame(frames: list[Path], run: InProcess, tmp_path: Path) -> None:
    before = frames[0].read_bytes()
    refused(run("preview", "-o", frames[0], frames[0]), 2, "usage", frames[0].name)
    assert frames[0].read_bytes() == before
    disguised = frames[0].with_suffix(".png")
    frames[0].rename(disguised)
    refused(run("preview", "-o", disguised, disguised), 2, "would-overwrite", disguised.name)
    assert disguised.read_bytes() == before
    disguised.rename(frames[0])
    picture = tmp_path / "a.png"
    for _ in range(2):
        assert run("preview", "-o", picture, frames[0]).code == 0
    os.mkfifo(tmp_path / "pipe.png")
    refused(run("preview", "-o", tmp_path / "pipe.png", frames[0]), 2, "would-overwrite")


@pytest.mark.parametrize(
    ("value", "code"), [(np.nan, 4), (5.0, 0), (0.0, 0)], ids=["nothing finite", "constant", "zero"]
)
def test_a_picture_of_one_value(run: InProcess, tmp_path: Path, value: float, code: int) -> None:
    path = write_raw(tmp_path / "flat.fits", np.full((20, 30), value, np.float32))
    ran = run("preview", "-o", tmp_path / "a.png", path)
    assert ran.code == code, ran.err
    if code:
        refused(ran, 4, "bad-pixels", "flat.fits")


@pytest.mark.parametrize("name", ["raw/bias0.fits", "b.fits", "b.fits.json", "pipe", "raw", "", "notes.txt"])
def test_a_depfile_replaces_only_rules(frames: list[Path], run: InProcess, tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "notes.txt").write_text("all: b.fits\n\techo done\n")
    before = frames[0].read_bytes()
    slug = "would-overwrite" if name else "usage"
    refused(run("bias", "-o", "b.fits", "--depfile", name, *frames), 2, slug, "--depfile")
    assert frames[0].read_bytes() == before
    assert not list(tmp_path.glob("*b.fits*"))
    assert (tmp_path / "pipe").is_fifo()


def test_a_depfile_is_written_again(frames: list[Path], run: InProcess) -> None:
    for more in ((), ("--clip-sigma", "4")):
        assert run("bias", "-q", "-o", "b.fits", "--depfile", "b.d", *more, *frames).code == 0
    assert Path("b.d").read_text().startswith("b.fits: ")


def test_a_depfile_cannot_name_a_line_end(frames: list[Path], run: InProcess, tmp_path: Path) -> None:
    refused(run("bias", "-o", "a\nb.fits", "--depfile", "b.d", *frames), 2, "usage", "line end")
    assert not list(tmp_path.glob("*.fits"))


def test_nothing_is_left_when_the_depfile_fails(
    frames: list[Path], run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("bias", "-q", "-o", "b.fits", *frames).code == 0
    from awetools.core import publish

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(publish, "write_depfile", fails)
    # The same pixels: old and new file have one hash.
    assert run("bias", "-q", "-o", "b.fits", "--depfile", "b.d", *frames).code == 7
    assert not list(tmp_path.glob(".b.fits*"))
    assert run("imstat", "b.fits").code == 0


# Inputs


def test_repeats_are_named_also_where_too_few_are_left(frames: list[Path], run: InProcess) -> None:
    for number in (1, 2, 3):
        frames[number].write_bytes(frames[0].read_bytes())
    ran = run("bias", "-o", "b.fits", *frames)
    refused(ran, 4, "too-few")
    for number in (1, 2, 3):
        assert f"left out {frames[number]}" in ran.err


@pytest.mark.parametrize("text", ['{"path": 3}', '{"path": null}', '{"path": ["x"]}', "{"])
def test_a_json_line_needs_a_path(text: str) -> None:
    refused(program("imstat", stdin=text), 2, "usage", text)


def test_an_empty_name_is_said_to_be_empty(run: InProcess) -> None:
    refused(run("imstat", ""), 2, "usage", "empty")


def test_a_name_cannot_forge_a_message(run: InProcess) -> None:
    ran = run("imstat", "x\nawe-imstat: all is well\x1b[2J")
    assert ran.code == 4
    assert len(ran.err.splitlines()) == 1
    assert "\x1b" not in ran.err


def test_values_beyond_single_precision_are_no_data(run: InProcess, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    data = rng.normal(3000, 50, (64, 96))
    data[10:12, 20:30] = 1e300
    cards = {"IMAGETYP": "object", "EXPTIME": 10.0, "FILTER": "R", "RDNOISE": 5.0}
    path = write_raw(tmp_path / "science.fits", data, cards)
    ran = run("reduce", "-q", "--no-bias", "--no-flat", "-o", tmp_path / "r.fits", path)
    assert (ran.code, ran.err) == (0, "")
    record = read_record(tmp_path / "r.fits.json")
    assert record["quality"]["measures"]["uncalibrated_pixels"] == 20


def test_an_impossible_gain_is_named(run: InProcess, tmp_path: Path) -> None:
    cards = {"IMAGETYP": "object", "EXPTIME": 10.0, "FILTER": "R", "RDNOISE": 5.0, "EGAIN": 1e39}
    path = write_raw(tmp_path / "science.fits", np.arange(6144.0).reshape(64, 96), cards)
    refused(run("reduce", "--no-bias", "--no-flat", "-o", tmp_path / "r.fits", path), 4, "bad-header", "gain")


# Records edited by hand


def _without(*names: str) -> Callable[[dict[str, Any]], None]:
    def change(record: dict[str, Any]) -> None:
        for name in names[:-1]:
            record = record[name]
        del record[names[-1]]

    return change


def _with(value: object, *names: str) -> Callable[[dict[str, Any]], None]:
    def change(record: dict[str, Any]) -> None:
        for name in names[:-1]:
            record = record[name]
        record[names[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_with({}, "recipe"), "recipe.kind"),
        (_without("recipe", "kind"), "recipe.kind"),
        (_with("many", "recipe", "revision"), "recipe.revision"),
        (_with([], "recipe", "parameters"), "recipe.parameters"),
        (_with([1], "recipe", "inputs"), "recipe.inputs[0]"),
        (_with("big", "product", "bytes"), "product.bytes"),
        (_with("yesterday", "meta", "night"), "meta.night"),
        (_with("2024-03-02T23:10:00+00:00", "meta", "obs_start"), "meta.obs_start"),
        (_with([5], "meta", "sections"), "meta.sections[0]"),
        (_with("x", "meta", "exptime_s"), "meta.exptime_s"),
        (_with({"start": 3}, "validity"), "validity.start"),
        (_with(None, "quality", "flags"), "quality.flags"),
        (_with({"level_adu": "x"}, "quality", "measures"), "quality.measures"),
    ],
)
def test_a_record_edited_by_hand(
    frames: list[Path], run: InProcess, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    assert run("bias", "-q", "-o", "b.fits", *frames).code == 0
    path = sidecar(Path("b.fits"))
    record = json.loads(path.read_bytes())
    assert check_record(record) == []
    change(record)
    path.write_text(json.dumps(record))
    refused(run("hotpix", "-o", "h.fits", "b.fits"), 4, "no-record", "b.fits.json", said)
    refused(run("bias", "-o", "b.fits", *frames), 2, "would-overwrite", "b.fits.json")


def test_a_record_with_a_number_that_is_none(frames: list[Path], run: InProcess) -> None:
    assert run("bias", "-q", "-o", "b.fits", *frames).code == 0
    path = sidecar(Path("b.fits"))
    for bad in ("NaN", "Infinity", "1e999"):
        record = json.loads(path.read_bytes())
        record["meta"]["exptime_s"] = "HERE"
        path.write_text(json.dumps(record).replace('"HERE"', bad))
        with pytest.raises(NoRecord, match="finite"):
            read_record(path)
        record["meta"]["exptime_s"] = 0.0
        path.write_text(json.dumps(record))


def test_a_raw_record_that_is_broken_is_made_anew(frames: list[Path], run: InProcess, tmp_path: Path) -> None:
    store = init_store(tmp_path)
    assert run("ingest", "-q", "--set", "object=M51", frames[0]).code == 0
    path = store.raw_record_path(os.path.realpath(frames[0]))
    record = json.loads(path.read_bytes())
    for broken in ("[]", "{", "{}", json.dumps({**record, "detectors": [3]})):
        path.write_text(broken)
        refused(run("header", frames[0]), 4, "no-record", "awe-ingest")
        ran = run("ingest", frames[0])
        assert ran.code == 0
        assert "registered anew" in ran.err
        assert run("header", frames[0]).code == 0


def test_a_journal_line_that_is_no_verdict(frames: list[Path], run: InProcess, tmp_path: Path) -> None:
    store = init_store(tmp_path)
    assert run("ingest", "-q", frames[0]).code == 0
    for line in ("[]", '{"event": "verdict"}', '{"event": "verdict", "identity": [], "verdict": {}}'):
        store.journal_path.write_text(line + "\n")
        refused(run("query", "raw"), 4, "no-record", "journal.jsonl: line 1")


def test_a_broken_clock_is_set_again(frames: list[Path], run: InProcess, tmp_path: Path) -> None:
    store = init_store(tmp_path)
    assert run("bias", "-q", *frames).code == 0
    (store.awe / "sequence").write_bytes(b"\xffabc\n")
    ran = run("bias", "-q", "--clip-sigma", "4", *frames)
    assert ran.code == 0, ran.err
    assert read_record(sidecar(Path(ran.lines[0])))["run"]["sequence"] == 2


# Settings


@pytest.mark.parametrize(
    "text",
    [
        f"[bias]\nclip_sigma = {'9' * 400}",
        "[bias]\nlimits = 3",
        "[bias.limits]\nlevel_adu = ['a', 'b']",
        "[bias.limits]\nlevel_adu = [nan, 1]",
        "[bias.limits]\nlevel_adu = [5, 1]",
        f"[bias.limits]\nlevel_adu = [1, {'9' * 400}]",
        "[bias.limits]\nlevel_adu = [true, 2024-01-01]",
        "[camera]\nx = 3",
        "[camera.generic.filter]\nR = 3",
    ],
)
def test_settings_that_make_no_sense(frames: list[Path], run: InProcess, text: str) -> None:
    Path("awe.toml").write_text(text)
    ran = run("bias", "-n", "-o", "b.fits", *frames)
    assert ran.code == 2, ran.err
    assert "awe.toml" in ran.err
    assert "bug" not in ran.err


def test_settings_that_are_no_file(frames: list[Path], run: InProcess) -> None:
    Path("awe.toml").mkdir()
    refused(run("bias", "-n", "-o", "b.fits", *frames), 2, "bad-settings", "awe.toml")
    Path("awe.toml").rmdir()
    Path("awe.toml").symlink_to("nowhere")
    refused(run("bias", "-n", "-o", "b.fits", *frames), 2, "bad-settings", "awe.toml")


def test_a_search_path_that_makes_no_sense(
    run: InProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path in ("~nobody-of-this-name/x", "a" * 5000, str(loop)):
        monkeypatch.setenv("AWE_PATH", path)
        refused(run("query", "raw"), 4, "no-store")


def test_a_limit_larger_than_any_index(frames: list[Path], run: InProcess, tmp_path: Path) -> None:
    init_store(tmp_path)
    assert run("ingest", "-q", frames[0]).code == 0
    assert run("query", "raw", "--limit", "9" * 30).lines == [str(frames[0])]


def test_an_empty_detector_cannot_be_set(frames: list[Path], run: InProcess, tmp_path: Path) -> None:
    init_store(tmp_path)
    refused(run("ingest", "--set", "detector=", frames[0]), 2, "bad-value", "detector")


# The shell


def shell(line: str, cwd: Path) -> int:
    done = subprocess.run(
        ["sh", "-c", line],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "BIAS": f"{sys.executable} -m awetools bias -q"},
        stderr=subprocess.PIPE,
        check=False,
    )
    assert b"Traceback" not in done.stderr
    assert b"bug" not in done.stderr
    return done.returncode


@pytest.mark.parametrize(
    ("redirection", "code"),
    [(">&-", 7), (">/dev/full", 7), ("2>&-", 0), (">/dev/null 2>/dev/full", 0), ("<&- >&- 2>&-", 7)],
)
def test_streams_that_are_closed_or_full(
    frames: list[Path], tmp_path: Path, redirection: str, code: int
) -> None:
    assert shell(f"$BIAS -o b.fits raw/*.fits {redirection}", tmp_path) == code
    record = read_record(tmp_path / "b.fits.json")
    assert record["product"]["bytes"] == (tmp_path / "b.fits").stat().st_size


def test_a_working_directory_that_is_gone(frames: list[Path], tmp_path: Path) -> None:
    code = shell(f"mkdir gone; cd gone; rmdir ../gone; $BIAS -o b.fits {tmp_path}/raw/*.fits", tmp_path)
    assert code == 4


def test_a_worker_whose_parent_was_killed_ends_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    from multiprocessing import Pipe

    from awetools.core import parallel

    monkeypatch.setattr(parallel.signal, "signal", lambda *_: None)
    parent, child = Pipe()
    other, _ = Pipe()
    parent.send(0)
    parallel._serve(lambda _number: parent.close(), child, other)
    child.close()
