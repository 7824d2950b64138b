"""awe-make on sky grids, and without calibrations: what is elsewhere is no failure, what was allowed once stays so."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from awetools.core.gridstore import NamedGrid, write_grid
from awetools.core.products import open_product
from awetools.core.sky.readwcs import read_wcs
from awetools.core.store import Store, init_store
from tests.support import InProcess
from tests.test_make_coadd import given, line_of, make, recipe


def tile_of(run: InProcess, detector: str, side: int = 40) -> str:
    """A small grid in the middle of the frames of a detector, at their scale."""
    product = open_product(Path(run("query", "astrom", f"detector={detector}").lines[0]))
    wcs = read_wcs(dict(product.meta["wcs"]))
    ra, dec = (float(one) for one in wcs.to_sky(128.5, 128.5))
    middle = (side + 1) / 2
    return f"TAN {ra:.6f} {dec:.6f} {wcs.pixel_scale_arcsec:.3f} {side}x{side} {middle},{middle} 0"


ELSEWHERE = "TAN 10 60 0.3 40x40 20.5,20.5 0"


# Grids


def test_frames_that_are_not_on_the_grid_are_left_out_of_the_plan(sky_store: Store, run: InProcess) -> None:
    tile = tile_of(run, "sim1")
    ran = make(run, "regrid", "--grid", tile)
    assert len(ran.lines) == 2 and all("sim1" in one for one in ran.lines)
    assert "2 of 4 frames are left out, as not on the grid: " in ran.err and "failed" not in ran.err
    again = make(run, "regrid", "--grid", tile)
    assert again.lines == ran.lines and "2 up to date, 2 not on the grid" in again.err
    assert make(run, "regrid", "--grid", tile, "--check").out == ""
    none = make(run, "regrid", "--grid", ELSEWHERE, code=5)
    assert none.lines == [] and "off-grid" in none.err and "nor is any of 3 more" in none.err


def test_where_frames_are_is_seen_when_they_are_solved(
    source_store: Store, tmp_path: Path, sky_night: Path, run: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("refcat", "import", "-q", "truth", sky_night / "reference.fits").code == 0
    other = Path(shutil.copytree(source_store.root, tmp_path / "other"))
    make(run, "astrom", "-q", "detector=sim1")
    tile = tile_of(run, "sim1")
    monkeypatch.chdir(other)
    assert run("index", "-q", "--rebuild").code == 0
    ran = make(run, "regrid", "--grid", tile)
    assert len(ran.lines) == 2 and "2 not on the grid" in ran.err and "failed" not in ran.err
    assert ran.err.count("left out: ") == 2
    assert "2 of 4 frames are left out, as not on the grid" in make(run, "regrid", "--grid", tile).err


def test_a_coadd_of_a_tile_takes_the_frames_that_touch_it(sky_store: Store, run: InProcess) -> None:
    tile = tile_of(run, "sim1")
    assert run("grid", "make", "-q", "here", "--text", tile).code in (0, 2)
    ran = make(run, "coadd", "--grid", tile)
    (path,) = ran.lines
    assert given(path) == given(path, "astrom") == 2
    assert "2 of 4 frames, 2 left out: " in line_of(ran) and "not on the grid" in line_of(ran)
    assert make(run, "coadd", "--grid", tile).lines == [path]
    reduced = run("query", "reduced").lines
    own = run("coadd", "-u", "--json", "--grid", tile, *reduced)
    assert own.code == 0 and path in own.out and "up-to-date" in own.out, "one key, whoever asks"
    assert run("coadd", "--grid", ELSEWHERE, *reduced).code == 5
    assert make(run, "coadd", "--grid", ELSEWHERE, code=5).lines == []


def test_each_grid_has_its_coadd(sky_store: Store, run: InProcess) -> None:
    one, other = (make(run, "coadd", "--grid", tile_of(run, name)).lines[0] for name in ("sim1", "sim2"))
    assert one != other
    assert "missing" in make(run, "coadd", "--grid", tile_of(run, "sim1", 30), "--why").out
    assert make(run, "coadd", "--grid", tile_of(run, "sim1")).lines == [one]


def test_the_tiles_of_a_survey_that_frames_touch_have_a_coadd_each(sky_store: Store, run: InProcess) -> None:
    tiles = {"one": tile_of(run, "sim1"), "two": tile_of(run, "sim2"), "far": ELSEWHERE}
    ra, dec = (float(one) for one in tiles["one"].split()[1:3])
    tiles["near"] = f"TAN {ra + 0.1:.6f} {dec:.6f} 0.3 40x40 20.5,20.5 0"
    write_grid(sky_store, NamedGrid("survey", tiles=tiles))
    ran = make(run, "coadd", "--grid", "survey")
    grids = [recipe(path)["parameters"]["grid"]["origin"] for path in ran.lines]
    assert sorted(grids) == ["grid survey/one", "grid survey/two"] and all(
        given(path) == 2 for path in ran.lines
    )
    again = make(run, "coadd", "--grid", "survey")
    assert again.lines == ran.lines and "2 up to date" in again.err
    assert make(run, "coadd", "--grid", "survey/one").lines[0] in ran.lines
    write_grid(sky_store, NamedGrid("far", tiles={"far": ELSEWHERE, "near": tiles["near"]}))
    assert make(run, "coadd", "--grid", "far", code=5).lines == []
    assert run("make", "regrid", "--grid", "survey").code == 2


def test_a_coadd_of_what_a_person_gave_is_taken_as_it_is(sky_store: Store, run: InProcess) -> None:
    tile = tile_of(run, "sim1")
    regrids = make(run, "regrid", "-q", "--grid", tile).lines
    made = run("coadd", "--grid", tile, *regrids)
    assert made.code == 0, made.err
    assert make(run, made.lines[0]).lines == made.lines
    assert made.lines[0] not in make(run, "coadd", "--outdated", "-n").out


def test_a_grid_is_for_what_has_one(sky_store: Store, run: InProcess) -> None:
    ran = run("make", "reduced", "--grid", ELSEWHERE)
    assert ran.code == 2 and "regrid and coadd" in ran.err


# Without calibrations


@pytest.fixture
def bare(
    source_store: Store, tmp_path: Path, sky_night: Path, monkeypatch: pytest.MonkeyPatch, run: InProcess
) -> Store:
    """A store with science frames and the catalogue of their field, and no calibrations; the working directory."""
    science = run("query", "raw_science").lines
    store = init_store(tmp_path / "bare")
    monkeypatch.chdir(store.root)
    assert run("ingest", "-q", *science).code == 0
    assert run("refcat", "import", "-q", "truth", sky_night / "reference.fits").code == 0
    return store


def test_from_raw_frames_without_calibrations_to_the_coadd(bare: Store, run: InProcess) -> None:
    refused = make(run, "coadd", code=5)
    assert "--no-bias" in refused.err and "--no-flat" in refused.err, "the reason says what to do"
    ran = make(run, "coadd", "--no-bias", "--no-flat")
    (path,) = ran.lines
    assert given(path) == 4
    reduced = recipe(run("query", "reduced").lines[0])
    assert {"bias", "flat"} <= set(reduced["without"])
    assert make(run, "coadd", "--without", "bias", "--without", "reduced.flat").lines == [path]
    # What was made so stays allowed, where there is nothing better.
    for kind in ("reduced", "sourcelist", "coadd"):
        later = make(run, kind, "-q")
        assert "would make" not in later.err and later.lines
    assert make(run, "coadd").lines == [path]


def test_a_calibration_that_is_there_is_taken_where_it_was_not_refused(
    bare: Store, sky_night: Path, run: InProcess
) -> None:
    first = make(run, "reduced", "-q", "--no-bias", "--no-flat").lines
    assert make(run, "reduced").lines == first
    assert run("ingest", "-q", *sorted((sky_night / "raw").glob("*.fits"))).code == 0
    lesser = make(run, "reduced", "--no-bias", "--no-flat", "-q").lines
    assert all({"bias", "flat"} <= set(recipe(one)["without"]) for one in lesser)
    assert make(run, "reduced", "--no-bias", "--no-flat").lines == lesser
    better = make(run, "reduced", "-q").lines
    assert not any({"bias", "flat"} & set(recipe(one)["without"]) for one in better)


def test_a_role_that_there_is_not(bare: Store, run: InProcess) -> None:
    ran = run("make", "reduced", "--without", "bais")
    assert ran.code == 2 and "nearest: bias" in ran.err
    assert run("make", "reduced", "--no-bais").code == 2


# Several in one call


def test_two_filters_and_two_instruments(bare: Store, run: InProcess) -> None:
    raws = run("query", "raw_science").lines
    assert run("ingest", "-q", "--set", "filter=V", *raws[:2]).code == 0
    ran = make(run, "coadd", "--no-bias", "--no-flat", "--no-zeropoint")
    assert len(ran.lines) == 2 and {given(path) for path in ran.lines} == {2}
    assert {open_product(Path(path)).meta["filter"] for path in ran.lines} == {"R", "V"}
    assert run("ingest", "-q", "--set", "filter=R", "--set", "instrument=other", *raws[:2]).code == 0
    (both,) = make(run, "coadd", "--no-bias", "--no-flat", "--no-zeropoint").lines
    assert given(both) == 4 and "instrument" not in open_product(Path(both)).meta
