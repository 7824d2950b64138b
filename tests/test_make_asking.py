"""How awe-make can be asked: names from a pipe, raw frames, what is made instead, and what is said of it."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from awetools.core.indexing.stock import Stock
from awetools.core.journal import append_verdict
from awetools.core.planning.campaign import KEPT_DAYS, KEPT_RUNS
from awetools.core.record import read_record, sidecar
from awetools.core.simulate import NightSpec
from awetools.core.store import Store, init_store
from tests.support import awe, program


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The raw frames of a very small night."""
    from awetools.core.simulate.night import simulate_night

    base = tmp_path_factory.mktemp("asking") / "n"
    simulate_night(
        base,
        NightSpec(detectors=1, exposures=2, biases=4, flats=4, twilights=0, darks=3, shape=(96, 128), seed=3),
    )
    return base / "raw"


@pytest.fixture
def store(sky: Path, tmp_path: Path) -> Store:
    """A store with raw frames of its own, of which nothing was made."""
    shutil.copytree(sky, tmp_path / "raw")
    store = init_store(tmp_path / "store")
    awe("ingest", "-q", tmp_path / "raw", cwd=store.root)
    return store


def test_frames_come_from_a_pipe(store: Store) -> None:
    one = awe("query", "raw_science", "--limit", 1, cwd=store.root)
    ran = program("make", "reduced", "-", "-n", cwd=store.root, stdin=one)
    assert ran.code == 0 and sum("/reduced/" in line for line in ran.lines) == 1, ran.err
    assert program("make", "reduced", "-", cwd=store.root, stdin="").code == 4


def test_a_cause_that_many_frames_share_is_said_once(sky: Path, tmp_path: Path) -> None:
    from astropy.io import fits

    frames = [one for one in sorted(sky.glob("*.fits")) if fits.getheader(one)["OBSTYPE"] == "OBJECT"]
    store = init_store(tmp_path / "bare")
    awe("ingest", "-q", *frames, cwd=store.root)
    for kind in ("reduced", "sources"):
        ran = program("make", kind, "-n", cwd=store.root)
        assert ran.code == 5 and ran.err.count("no raw_domeflat of its detector is registered") == 1
        assert f"and {len(frames) - 1} more: blocked" in ran.err


def test_a_raw_frame_needs_a_kind_and_a_name_that_is_no_file_is_said_to_be_none(store: Store) -> None:
    one = awe("query", "raw_science", "--limit", 1, cwd=store.root).strip()
    ran = program("make", one, cwd=store.root)
    assert ran.code != 0 and "raw" in ran.err and "KIND" in ran.err, ran.err
    ran = program("make", "reduced", "nosuch.fits", cwd=store.root)
    assert ran.code == 4 and "no-such-file" in ran.err, ran.err


def test_hot_pixels_are_made_of_the_bias_where_the_dark_cannot_be_made(store: Store) -> None:
    dark = Stock([store]).find(["raw_dark"], None)[0]
    append_verdict(store, dark.content, "bad", "a light leak", "a test")
    ran = program("make", "hotpix", cwd=store.root)
    assert ran.code == 0 and len(ran.lines) == 1, ran.err
    (master,) = read_record(sidecar(Path(ran.lines[0])))["recipe"]["inputs"]
    assert master["kind"] == "bias"
    assert program("make", "hotpix", "--check", cwd=store.root).code == 0


def test_an_experiment_is_said_to_be_the_newest(store: Store) -> None:
    ran = program("make", "bias", "--set", "bias.clip_sigma=4", cwd=store.root)
    assert ran.code == 0 and "newest" in ran.err, ran.err
    ran = program("make", "bias", cwd=store.root)
    assert ran.code == 0 and "newest" not in ran.err, ran.err


def test_logs_of_old_runs_go_but_the_last_ones(store: Store) -> None:
    runs = store.awe / "runs"
    old = time.time() - (KEPT_DAYS + 1) * 86400
    for number in range(KEPT_RUNS + 3):
        folder = runs / f"20200101T0000{number:02d}-1"
        folder.mkdir(parents=True)
        os.utime(folder, (old, old))
    fresh = runs / "20200101T000000-0"
    fresh.mkdir()
    assert program("make", "bias", cwd=store.root).code == 0
    left = sorted(path.name for path in runs.iterdir())
    assert len(left) == KEPT_RUNS + 1 and left[0] == fresh.name


def test_the_next_best_takes_the_place_of_what_failed_in_the_same_run(store: Store, tmp_path: Path) -> None:
    from awetools.core.simulate.night import simulate_night

    # What there is of flats makes no pair of one level: a gain of this night is tried, and that of the other serves.
    other = NightSpec(
        detectors=1,
        exposures=1,
        biases=4,
        flats=1,
        twilights=2,
        darks=0,
        shape=(96, 128),
        seed=4,
        night="2024-03-05",
    )
    simulate_night(tmp_path / "other", other)
    awe("ingest", "-q", tmp_path / "other" / "raw", cwd=store.root)
    assert program("make", "gain", "night=2024-03-02", cwd=store.root).code == 0
    ran = program("make", "reduced", "night=2024-03-05", cwd=store.root)
    assert ran.code == 0 and len(ran.lines) == 1 and "goes without" in ran.err, ran.err
    again = program("make", "reduced", "night=2024-03-05", "-n", cwd=store.root)
    assert again.code == 0 and again.out == "", again.err
    inputs = read_record(sidecar(Path(ran.lines[0])))["recipe"]["inputs"]
    assert any(one["role"] == "gain" and "/2024-03-02/" in one["path"] for one in inputs), ran.err
