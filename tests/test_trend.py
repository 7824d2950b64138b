"""Trends: running medians that do not reach over gaps, robust deviations, outliers by name and exit code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from awetools.core.plots.columns import axis
from awetools.core.store import Store, init_store
from awetools.core.trend import deviations_sigma, distances, running_median
from tests.support import InProcess, write_raw

LEVELS = (1000, 1004, 1001, 1003, 1400, 1002, 1005, 1003)
numbers = st.floats(-1e6, 1e6, allow_nan=False)


@pytest.fixture(scope="module")
def _nights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a bias of each of eight nights; that of the fifth is 400 ADU too high."""
    from tests.support import awe

    root = tmp_path_factory.mktemp("trend")
    rng = np.random.default_rng(3)
    frames = []
    for night, level in enumerate(LEVELS, 1):
        for number in range(3):
            data = rng.normal(level, 2, (32, 48)).round().astype(np.uint16)
            cards = {"DATE-OBS": f"2024-03-{night:02d}T23:1{number}:00.000"}
            frames.append(write_raw(root / f"b{night}{number}.fits", data, cards))
    init_store(root / "store")
    awe("bias", "-q", *frames, cwd=root / "store")
    return root / "store"


@pytest.fixture
def nights(_nights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import shutil

    from awetools.core.indexing.index import rebuild

    shutil.copytree(_nights, tmp_path / "store", symlinks=True)
    rebuild(Store(tmp_path / "store"))
    monkeypatch.chdir(tmp_path / "store")
    return tmp_path / "store"


# Numbers


def by_hand(x: np.ndarray, y: np.ndarray, window: int) -> list[float]:
    """The same from its definition: grow a stretch around each point by its nearer end."""
    medians = []
    for place in range(len(x)):
        low = high = place
        while high - low < min(window, len(x) - 1):
            left = x[place] - x[low - 1] if low else np.inf
            right = x[high + 1] - x[place] if high + 1 < len(x) else np.inf
            low, high = (low - 1, high) if left < right else (low, high + 1)
        medians.append(float(np.median(np.delete(y[low : high + 1], place - low))))
    return medians


@given(
    st.lists(
        st.tuples(st.integers(-(10**6), 10**6), numbers), min_size=2, max_size=40, unique_by=lambda p: p[0]
    ),
    st.integers(2, 12),
)
def test_the_running_median_is_that_of_the_nearest_neighbours(
    points: list[tuple[int, float]], window: int
) -> None:
    # Of irrational distances no two are equal.
    x = np.sort(np.array([place * 2**0.5 + place**2 * 1e-9 for place, _ in points]))
    y = np.array([value for _, value in points])
    assert running_median(x, y, window).tolist() == by_hand(x, y, window)


def test_a_gap_is_not_reached_over() -> None:
    x = np.array([0, 1, 2, 3, 4, 100, 101, 102, 103, 104.0])
    y = np.array([5.0] * 5 + [9.0] * 5)
    assert running_median(x, y, 4).tolist() == y.tolist()
    assert running_median(np.arange(10.0), y, 4).tolist() != y.tolist()


def test_equal_places_and_two_points() -> None:
    assert running_median(np.zeros(6), np.arange(6.0), 100).tolist() == [3, 3, 3, 2, 2, 2]
    assert running_median(np.array([0.0, 1]), np.array([7.0, 8]), 10).tolist() == [8, 7]


@given(st.lists(numbers, min_size=5, max_size=60), st.floats(0.5, 1000), st.floats(-1e5, 1e5))
def test_one_far_away_is_found_whatever_the_unit_and_the_level(
    noise: list[float], unit: float, level: float
) -> None:
    y = level + unit * (np.array(noise) % 1)
    y[len(y) // 2] = level + 1000 * unit
    x = np.arange(len(y), dtype=float)
    deviations = deviations_sigma(y, running_median(x, y, 10))
    assert abs(deviations[len(y) // 2]) == np.abs(deviations).max()
    assert abs(deviations[len(y) // 2]) > 5


def test_equal_values_and_rounding_are_no_outliers() -> None:
    for level in (0.0, 1000.0, 0.1):
        y = np.full(20, level)
        assert not deviations_sigma(y, running_median(np.arange(20.0), y, 10)).any()
    y = np.full(20, 1000.1)
    y[7] *= 1 + 1e-7
    assert np.abs(deviations_sigma(y, np.full(20, 1000.1))).max() < 1
    # Counts of pixels that are nearly all the same.
    counts = np.array([3.0] * 19 + [4.0])
    assert np.abs(deviations_sigma(counts, np.full(20, 3.0))).max() <= 2
    counts[-1] = 40
    assert np.abs(deviations_sigma(counts, np.full(20, 3.0))).max() > 5


def test_dates_and_texts_have_distances() -> None:
    days = axis(["2024-03-01", "2024-03-02", "2024-04-02"])
    assert np.diff(distances(days)).tolist() == [86400e3, 31 * 86400e3]
    assert distances(np.array(["B", "B", "R", "V"], object)).tolist() == [0, 0, 1, 2]


# The program


def test_an_outlier_is_named_and_told_by_the_exit_code(nights: Path, run: InProcess) -> None:
    ran = run("trend", "bias", "obs_start", "level_adu", "--by", "detector")
    assert ran.code == 0, ran.err
    assert ran.lines[0].split("\t") == [
        "path",
        "obs_start",
        "level_adu",
        "detector",
        "deviation_sigma",
        "outlier",
    ]
    rows = [line.split("\t") for line in ran.lines[1:]]
    assert [row[1][:10] for row in rows] == [f"2024-03-{night:02d}" for night in range(1, 9)]
    (bad,) = [row for row in rows if row[5]]
    assert bad[1].startswith("2024-03-05") and float(bad[4]) > 20
    assert bad[0] in ran.err and "awe-judge" in ran.err
    assert run("trend", "bias", "obs_start", "level_adu", "--check").code == 3
    assert run("trend", "bias", "obs_start", "level_adu", "--check", "level_adu<1300").code == 0
    assert run("trend", "bias", "obs_start", "level_adu", "--check", "--sigma", "9999").code == 0
    about = [json.loads(line) for line in run("trend", "bias", "night", "level_adu", "--json").lines]
    assert [one["outlier"] for one in about] == [night == 5 for night in range(1, 9)]
    # Who is judged bad is out of it.
    assert run("judge", bad[0], "bad", "--reason", "light leak").code == 0
    ran = run("trend", "bias", "obs_start", "level_adu", "--check")
    assert ran.code == 0 and len(ran.lines) == 8 and "judged bad" in ran.err


def test_too_few_are_not_judged(nights: Path, run: InProcess) -> None:
    ran = run("trend", "bias", "obs_start", "level_adu", "night>=2024-03-05", "--json", "--check")
    assert ran.code == 0 and "takes 5 points to tell which are outliers, and there are 4" in ran.err
    assert {json.loads(line)["deviation_sigma"] for line in ran.lines} == {None}


def test_groups_of_numbers_are_in_order_and_too_small_ones_are_one_note(nights: Path, run: InProcess) -> None:
    ran = run("trend", "bias", "obs_start", "level_adu", "--by", "level_adu", "--json")
    assert ran.code == 0 and ran.err.count("takes 5 points") == 1 and "and 4 more" in ran.err
    groups = [json.loads(line)["level_adu"] for line in ran.lines]
    assert groups == sorted(groups) and len(groups) == 8 and isinstance(groups[0], float)


def test_a_picture_is_drawn_and_the_same_again(nights: Path, run: InProcess) -> None:
    pytest.importorskip("matplotlib")
    for name, begin in (("t.png", b"\x89PNG"), ("t.svg", b"<?xml")):
        asked = ("trend", "bias", "night", "level_adu", "--by", "detector", "-o", name)
        ran = run(*asked)
        assert ran.code == 0 and ran.lines == [name] and "sigma from" in ran.err
        first = Path(name).read_bytes()
        assert first.startswith(begin)
        run(*asked)
        assert Path(name).read_bytes() == first
    assert "outlier" in Path("t.svg").read_text()


def test_columns_are_followed_along_links(reduced_store: Store, run: InProcess) -> None:
    rows = run("query", "reduced", "--get", "path,bias.level_adu", "--json").lines
    wanted = {one["path"]: one["bias.level_adu"] for one in map(json.loads, rows)}
    ran = run("trend", "reduced", "obs_start", "bias.level_adu", "--by", "detector", "--json")
    assert ran.code == 0, ran.err
    assert {one["path"]: one["bias.level_adu"] for one in map(json.loads, ran.lines)} == wanted
    assert None not in wanted.values()


def test_what_cannot_be_asked(nights: Path, run: InProcess) -> None:
    for words, code, said in (
        (("bias", "obs_start", "levl_adu"), 2, "nearest: level_adu"),
        (("bias", "obs_start", "detector"), 4, "not a number"),
        (("bias", "obs_start", "level_adu", "--by", "chips"), 2, "nearest: "),
        (("bias", "obs_start", "level_adu", "night=1999-01-01"), 5, "no bias with"),
        (("bias", "airmass", "level_adu"), 5, "left out 8 without airmass"),
        (("bias", "obs_start", "level_adu", "-o", "x.jpg"), 2, "must end in"),
        (("bias", "obs_start", "level_adu", "-o", "x.png", "--json"), 2, "exclude"),
        (("bias", "obs_start"), 2, "Y"),
        (("bais", "obs_start", "level_adu"), 2, "nearest: bias"),
    ):
        ran = run("trend", *words)
        assert ran.code == code and said in ran.err, (words, ran.code, ran.err)
