"""awe-make attacked: bad frames, bad records, odd places, bad luck; each named, none spreads."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from awetools.core.engines.export import to_makefile
from awetools.core.engines.local import Slots, run
from awetools.core.engines.planfile import Node, RunPlan, write_plan
from awetools.core.engines.states import exit_code_of, is_passing
from awetools.core.journal import append_verdict
from awetools.core.store import Store, init_store
from tests.support import InProcess, Ran, awe

REDUCED = 2


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the raw frames of a very small night, and a store with all that is made of them."""
    from awetools.core.simulate import NightSpec
    from awetools.core.simulate.night import simulate_night

    base = tmp_path_factory.mktemp("attack")
    spec = NightSpec(
        detectors=1, exposures=REDUCED, biases=4, flats=4, twilights=0, darks=3, shape=(96, 128), seed=3
    )
    simulate_night(base / "night", spec)
    shutil.move(base / "night" / "raw", base / "raw")
    init_store(base / "store")
    awe("ingest", "-q", base / "raw", cwd=base / "store")
    awe("make", "-q", "reduced", cwd=base / "store")
    return base


@pytest.fixture
def base(made: Path, tmp_path: Path) -> Path:
    """The same, to be spoilt."""
    for name in ("raw", "store"):
        shutil.copytree(made / name, tmp_path / name, symlinks=True)
    # What was registered lies elsewhere now.
    shutil.rmtree(tmp_path / "store" / ".awe" / "raw")
    awe("ingest", "-q", tmp_path / "raw", cwd=tmp_path / "store")
    awe("index", "-q", "--rebuild", cwd=tmp_path / "store")
    return tmp_path


@pytest.fixture
def make(
    base: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Ran]]:
    """awe-make in the store, in this process."""
    import gc

    monkeypatch.chdir(base / "store")
    monkeypatch.delenv("AWE_PATH", raising=False)
    inside = InProcess(capfd)
    yield lambda *arguments: inside("make", *arguments)
    gc.enable()
    gc.unfreeze()


def raw(base: Path, number: int) -> Path:
    return base / "raw" / f"sim_{number:04d}_sim1.fits"


def product(base: Path, kind: str) -> Path:
    return sorted((base / "store" / kind).glob("*/*.fits"))[0]


def change_record(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    record = json.loads(Path(f"{path}.json").read_text())
    change(record)
    Path(f"{path}.json").write_text(json.dumps(record))


# Raw frames


def cut_off(path: Path) -> None:
    os.truncate(path, 3000)


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def no_fits(path: Path) -> None:
    path.write_text("nothing of the kind")


@pytest.mark.parametrize("spoil", [cut_off, a_directory, a_pipe, no_fits])
def test_a_frame_that_cannot_be_read_stops_only_what_is_made_of_it(
    base: Path, make: Callable[..., Ran], spoil: Callable[[Path], None]
) -> None:
    spoil(raw(base, 9))
    ran = make("reduced", "--remake", "reduced")
    assert ran.code == 5, ran.err
    assert len(ran.lines) == REDUCED - 1
    assert f"{raw(base, 9)}" in ran.err and "it went into reduced" in ran.err
    ran = make("reduced", "-n")
    # What is there was made of the frame as it was.
    assert (ran.code, ran.out) == (0, ""), ran.err
    assert f"{raw(base, 9)}" in ran.err


def test_a_frame_that_cannot_be_read_makes_no_lesser_products(base: Path, make: Callable[..., Ran]) -> None:
    cut_off(raw(base, 2))
    ran = make("reduced", "--set", "bias.clip_sigma=4")
    assert (ran.code, ran.out) == (5, ""), ran.err
    assert "should have" in ran.err
    # The cause of all is told once, not once for each way to it.
    assert len(ran.err) < 1500
    assert len(list((base / "store" / "dark").glob("*/*.fits"))) == 1


def test_what_is_asked_to_be_made_again_of_a_frame_that_is_gone_is_blocked(
    base: Path, make: Callable[..., Ran]
) -> None:
    raw(base, 2).unlink()
    assert make("bias").code == 0
    ran = make("bias", "--remake", "bias")
    assert ran.code == 5 and "the file is gone" in ran.err
    assert not (base / "store" / ".awe" / "runs").exists()


def test_a_copy_of_a_frame_that_is_gone_serves(base: Path, make: Callable[..., Ran]) -> None:
    shutil.copy(raw(base, 2), base / "raw" / "copy.fits")
    awe("ingest", "-q", base / "raw" / "copy.fits", cwd=base / "store")
    raw(base, 2).unlink()
    ran = make("bias", "--remake", "bias")
    assert ran.code == 0 and "gone" not in ran.err, ran.err
    assert make("bias", "--check").code == 0


def test_a_failure_to_read_a_frame_is_not_remembered(base: Path, make: Callable[..., Ran]) -> None:
    path = raw(base, 2)
    before, stat = path.read_bytes(), path.stat()

    def write(text: bytes) -> None:
        with path.open("r+b") as stream:
            stream.write(text)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    shutil.rmtree(base / "store" / "bias")
    write(b"X" * 2880)
    ran = make("bias")
    assert ran.code == 4 and "not FITS" in ran.err
    write(before)
    ran = make("bias")
    assert ran.code == 0 and "failed before" not in ran.err, ran.err


# Products and records


@pytest.mark.parametrize(
    "spent",
    [
        {"wall_s": -5, "peak_memory_bytes": -1},
        {"wall_s": 1e308, "peak_memory_bytes": 10**400},
        {"wall_s": "long", "peak_memory_bytes": []},
        {},
    ],
)
def test_what_a_record_says_of_its_run_cannot_spoil_a_plan(
    base: Path, make: Callable[..., Ran], spent: dict[str, Any]
) -> None:
    def change(record: dict[str, Any]) -> None:
        record["run"] = {**record["run"], **spent} if spent else {}

    change_record(product(base, "bias"), change)
    ran = make("bias", "--remake", "bias")
    assert ran.code == 0, ran.err


def test_flags_set_by_hand_are_an_edit(base: Path, make: Callable[..., Ran]) -> None:
    change_record(product(base, "bias"), lambda record: record["quality"].update(flags=1))
    ran = make("bias")
    assert ran.code == 5 and "was edited" in ran.err
    assert make("bias", "--force").code == 0


def test_a_file_without_its_record_is_in_the_way_in_a_dry_run_too(
    base: Path, make: Callable[..., Ran]
) -> None:
    path = product(base, "bias")
    Path(f"{path}.json").unlink()
    awe("index", "-q", "--update", cwd=base / "store")
    for arguments in (["-n"], []):
        ran = make("bias", *arguments)
        assert ran.code == 5 and str(path) in ran.err and "--force" in ran.err, ran.err
    assert make("bias", "--force").code == 0
    assert make("bias", "--check").code == 0


@pytest.mark.parametrize("ending", ["", ".json"])
def test_a_directory_with_the_name_of_a_product_is_left_alone(
    base: Path, make: Callable[..., Ran], ending: str
) -> None:
    path = Path(f"{product(base, 'bias')}{ending}")
    path.unlink()
    path.mkdir()
    ran = make("bias", "--force")
    assert ran.code == 2 and f"{path}: is a directory" in ran.err, ran.err
    assert path.is_dir() and not list(path.parent.glob(".*"))
    path.rmdir()
    assert make("bias", "--force").code == 0


# The store


def test_a_store_whose_path_no_search_path_can_hold(
    base: Path, make: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    (base / "store").rename(base / "a:b")
    monkeypatch.chdir(base / "a:b")
    awe("index", "-q", "--rebuild", cwd=base / "a:b")
    assert make("bias", "--remake", "bias").code == 0
    monkeypatch.chdir(base)
    (base / "link").symlink_to("a:b")
    monkeypatch.setenv("AWE_PATH", "link")
    ran = make("bias", "--remake", "bias")
    assert ran.code == 2 and "a:b" in ran.err


def test_notes_of_failures_that_are_none(base: Path, make: Callable[..., Ran]) -> None:
    folder = base / "store" / ".awe" / "failed"
    folder.mkdir()
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "folder.json").mkdir()
    os.mkfifo(folder / "pipe.json")
    assert make("bias").code == 0


def test_an_index_with_a_damaged_row_is_said_to_be(base: Path, make: Callable[..., Ran]) -> None:
    import sqlite3

    with sqlite3.connect((base / "store" / ".awe" / "index.sqlite").resolve()) as connection:
        connection.execute("UPDATE setups SET meta = '{\"night'")
    connection.close()
    ran = make("bias")
    assert ran.code == 7 and "awe-index --rebuild" in ran.err, ran.err


@pytest.mark.parametrize("seconds", ["1e308", "1e9"])
def test_a_time_limit_may_be_as_long_as_one_likes(base: Path, make: Callable[..., Ran], seconds: str) -> None:
    assert make("bias", "--remake", "bias", "--timeout", seconds).code == 0


def test_a_bad_amount_of_memory_is_said_before_anything_is_done(make: Callable[..., Ran]) -> None:
    assert make("bias", "-n", "--memory", "much").code == 2


# Bad luck


@pytest.mark.parametrize(
    ("script", "blocked"),
    [
        ("exit 7", True),
        ("kill -9 $$", True),
        ("exit 2", True),
        ("exit 8", True),
        ("exit 6", False),
        ("exit 4", False),
    ],
)
def test_no_lesser_product_is_made_for_bad_luck(tmp_path: Path, script: str, blocked: bool) -> None:
    """What wants a node goes without it if it has no solution, and waits if it was killed."""
    plan = RunPlan(
        tmp_path / "plan",
        tmp_path,
        nodes=(
            Node("deep", ("sh", "-c", script)),
            Node("gain", ("echo", "@{deep}"), needs=("deep",)),
            Node("flat", ("sh", "-c", 'echo "$0"', "--gain=@{gain}"), wants=("gain",)),
        ),
    )
    write_plan(plan)
    states = run(plan, Slots(2))
    assert states["gain"].status == "blocked" and is_passing(states["gain"]) == blocked
    assert states["flat"].status == ("blocked" if blocked else "done")
    assert exit_code_of(states["flat"]) == (7 if blocked else 0)
    assert states["flat"].product == ("" if blocked else "--no-gain")


def test_a_product_outside_its_limits_blocks_by_name_until_somebody_judges_it_good(
    base: Path, make: Callable[..., Ran]
) -> None:
    store = base / "store"
    for kind in ("bias", "reduced"):
        shutil.rmtree(store / kind)
    (store / ".awe" / "awe.toml").write_text("[bias.limits]\nlevel_adu = [5000, 6000]\n")
    for _ in range(2):
        ran = make("reduced")
        assert (ran.code, ran.out) == (5, ""), ran.err
        assert str(product(base, "bias")) in ran.err and "flagged" in ran.err
    key = json.loads(Path(f"{product(base, 'bias')}.json").read_text())["recipe_key"]
    append_verdict(Store(store), key, "good", "as it should be", "somebody")
    ran = make("reduced")
    assert ran.code == 0 and len(ran.lines) == REDUCED, ran.err


def test_a_product_of_thousands_of_frames_is_made_by_an_exported_makefile(tmp_path: Path) -> None:
    """A shell takes no more than 128 KiB of one command from make; our programs read names."""
    maker = tmp_path / "bin" / "awe-bias"
    maker.parent.mkdir()
    maker.write_text('#!/bin/sh\necho "$1 $2 $(sort -u | wc -l)" > told\necho made.fits\n')
    maker.chmod(0o755)
    names = tuple(f"{tmp_path}/{number:05d} {'it' * 20}'s $(x).fits" for number in range(3000))
    plan = RunPlan(
        tmp_path / "plan", tmp_path, nodes=(Node("bias", ("awe-bias", "--json", "--update", *names)),)
    )
    (tmp_path / "Makefile").write_text(to_makefile(plan))
    done = subprocess.run(
        ["make", "-s"],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{maker.parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "told").read_text().split() == ["--update", "-", "3000"]
    written = (tmp_path / "plan" / "make" / "bias.names").read_text().splitlines()
    assert written == list(names)
