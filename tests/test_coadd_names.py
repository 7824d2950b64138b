"""Coadds are found, told apart and put together: names and fields, one grid for the filters of a request, ways out."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awetools.core.gridstore import NamedGrid, write_grid
from awetools.core.record import read_record, sidecar
from awetools.core.store import Store, default_path
from tests.support import InProcess, Ran

ON_GRID = {"window": "grid TAN 10 20 0.25 100x100 50.5,50.5 0", "night": "2024-03-02", "filter": "R"}
KEY = "0123456789abcdef"
BARE = ("--no-flat", "--no-zeropoint")


def made(run: InProcess, *words: object, code: int = 0) -> Ran:
    ran = run("make", "coadd", *words)
    assert ran.code == code, ran.err
    return ran


def record(path: str) -> dict[str, Any]:
    return dict(read_record(sidecar(Path(path))))


@pytest.fixture
def two_filters(sky_store: Store, run: InProcess) -> Store:
    """A store in which the second exposure of the field is of another filter, without a flat."""
    exposures = sorted(set(run("query", "raw_science", "--get", "exposure").lines[1:]))
    second = run("query", "raw_science", f"exposure={exposures[1]}").lines
    assert run("ingest", "-q", "--set", "filter=V", *second).code == 0
    return sky_store


# Names


@pytest.mark.parametrize(
    ("meta", "name"),
    [
        ({}, "ccd_R"),
        ({"object": "M51"}, "M51_R"),
        ({"grid": "deep"}, "deep_R"),
        ({"object": "M 51 / core", "grid": "sky", "tile": "2_3"}, "M-51-core_sky_2-3_R"),
        ({"object": "../../etc"}, "etc_R"),
        ({"object": "x" * 500}, "x" * 40 + "_R"),
        ({"object": "Ωμέγα"}, "x_R"),
        ({"object": "M51", "exposure": "d12"}, "ccd_R"),
        ({"object": "M51", "window": None}, "ccd_R"),
    ],
)
def test_the_name_of_a_coadd_says_object_grid_and_tile(meta: dict[str, Any], name: str) -> None:
    path = default_path(Store(Path("/s")), "coadd", {"detector": "ccd", **ON_GRID, **meta}, KEY, False)
    assert path == Path(f"/s/coadd/2024-03-02/{name}-01234567.fits")


@given(*[st.text(max_size=300)] * 3)
def test_any_object_and_tile_makes_a_name(name: str, grid: str, tile: str) -> None:
    meta = {**ON_GRID, "object": name, "grid": grid, "tile": tile}
    path = default_path(Store(Path("/s")), "coadd", meta, KEY, False)
    assert path == default_path(Store(Path("/s")), "coadd", dict(meta), KEY, False)
    assert path.parent == Path("/s/coadd/2024-03-02") and len(path.name) < 200
    assert path.name.isascii() and not set(path.name) & set(" /'\"\\\n\0$*?") and path.name[0] not in "-."


def test_a_coadd_is_found_by_its_object(sky_store: Store, run: InProcess) -> None:
    (path,) = run("query", "coadd", "object='SIMFIELD'").lines
    assert Path(path).name.startswith("SIMFIELD_R-") and record(path)["meta"]["grid"] is None
    assert run("query", "coadd", "object='M51'").code == 5
    assert run("query", "sourcelist", "object='SIMFIELD'").lines


def test_frames_of_two_objects_make_a_coadd_of_none(sky_store: Store, run: InProcess) -> None:
    raw = run("query", "raw_science").lines[0]
    assert run("ingest", "-q", "--set", "object=OTHER", raw).code == 0
    assert run("reduce", "-q", raw).code == 0
    (path,) = made(run, "--remake", "coadd").lines
    assert "object" not in record(path)["meta"] and Path(path).name.startswith("detector_R-")


def test_a_tile_is_in_name_and_fields_whoever_makes_it(sky_store: Store, run: InProcess) -> None:
    (coadd,) = run("query", "coadd").lines
    text = record(coadd)["meta"]["window"].removeprefix("grid ")
    if text == "auto":
        centre = record(coadd)["meta"]
        text = f"TAN {centre['ra_deg']} {centre['dec_deg']} 0.25 300x300"
    write_grid(sky_store, NamedGrid("deep", "", {"2_3": text}, "a test"))
    write_grid(sky_store, NamedGrid("one", text, None, "a test"))
    (tile,) = made(run, "--grid", "deep/2_3").lines
    assert Path(tile).name.startswith("SIMFIELD_deep_2-3_R-")
    assert run("query", "coadd", "tile='2_3'", "grid=deep").lines == [tile]
    assert made(run, "--grid", "deep").lines == [tile], "each tile that frames touch"
    reduced = run("query", "reduced").lines
    assert run("coadd", "-u", "--grid", "deep/2_3", *reduced).lines == [tile]
    # Asked for by its name it is the same again, and keeps its names when it is made again.
    assert run("make", tile, "--remake", "coadd").lines == [tile]
    assert (record(tile)["meta"]["grid"], record(tile)["meta"]["tile"]) == ("deep", "2_3")
    assert run("coadd", "--grid", "one", "--out-dir", "out", *reduced).lines == [
        "out/coadd_2024-03-02_SIMFIELD_one_R.fits"
    ]
    # A text has no name.
    (bare,) = made(run, "--grid", text.replace("0.25 300x300", "0.25 299x300")).lines
    assert Path(bare).name.startswith("SIMFIELD_R-") and record(bare)["meta"]["grid"] is None


def test_coadds_of_two_objects_are_no_versions_of_each_other(sky_store: Store, run: InProcess) -> None:
    raws = run("query", "raw_science", "detector=sim1").lines
    assert run("ingest", "-q", "--set", "object=OTHER", *raws).code == 0
    assert run("reduce", "-q", *raws).code == 0
    paths = made(run, "--each", "object").lines
    assert len(paths) == 2
    newest = run("query", "coadd", "--newest").lines
    assert set(paths) <= set(newest)
    assert not set(paths) & set(run("rm", "-n", "--superseded", "coadd").lines)


# One grid


def windows(paths: list[str]) -> set[str]:
    return {record(one)["meta"]["window"] for one in paths}


def test_the_filters_of_a_request_are_on_one_grid(two_filters: Store, run: InProcess) -> None:
    ran = made(run, "object=SIMFIELD", *BARE)
    assert len(ran.lines) == 2 and len(windows(ran.lines)) == 1, ran.err
    (said,) = [one for one in ran.err.splitlines() if "on one grid" in one]
    assert "coadd R, V: " in said or "coadd V, R: " in said
    (window,) = windows(ran.lines)
    assert window.removeprefix("grid ") in said
    third = [*ran.lines, ran.lines[0]]
    assert run("colour", *third, "-o", "picture.png").code == 0
    # Asked again nothing is made, and nothing is said.
    again = made(run, "object=SIMFIELD", *BARE)
    assert again.lines == ran.lines and " made" not in again.err and "one grid" not in again.err
    assert made(run, "object=SIMFIELD", *BARE, "--check").lines == []
    assert made(run, *BARE, "--only", "coadd").lines == ran.lines
    # As are those that are asked for by their names.
    assert run("make", *ran.lines, *BARE).lines == ran.lines
    assert "nothing is out of date" in made(run, "--outdated", *BARE).err


def test_the_grid_stays_when_a_frame_of_it_is_gone_or_lacks_something(
    two_filters: Store, run: InProcess
) -> None:
    paths = made(run, "object=SIMFIELD", "--no-flat").lines
    (before,) = windows(paths)
    zeros = run("query", "zeropoint", "filter=R", "detector=sim1").lines
    assert run("judge", "bad", "--reason", "a cloud", *zeros).code == 0
    less = made(run, "object=SIMFIELD", "--no-flat").lines
    assert windows(less) == {before}
    (same,) = set(paths) & set(less)
    assert record(same)["meta"]["filter"] == "V", "what the frame had no part in stays"


def test_a_person_may_have_a_grid_for_each(two_filters: Store, run: InProcess) -> None:
    ran = made(run, *BARE, "--grid", "auto")
    assert windows(ran.lines) == {"grid auto"} and "one grid" not in ran.err
    refused = run("colour", *ran.lines, ran.lines[0], "-o", "picture.png")
    assert refused.code == 5 and """awe-make coadd "object='SIMFIELD'":""" in refused.err


def test_what_does_not_overlap_has_grids_of_its_own(two_filters: Store, run: InProcess) -> None:
    ran = made(run, *BARE, "--each", "exposure")
    assert windows(ran.lines) == {"grid auto"}, "a product for each exposure shares nothing"


def test_frames_that_are_not_solved_yet_are_solved_first(
    source_store: Store, sky_night: Path, run: InProcess
) -> None:
    exposures = sorted(set(run("query", "raw_science", "--get", "exposure").lines[1:]))
    second = run("query", "raw_science", f"exposure={exposures[1]}").lines
    assert run("ingest", "-q", "--set", "filter=V", *second).code == 0
    assert run("refcat", "import", "-q", "truth", sky_night / "reference.fits").code == 0
    dry = made(run, *BARE, "-n")
    assert "on one grid where they overlap, as soon as their frames are solved" in dry.err
    ran = made(run, *BARE)
    assert len(ran.lines) == 2 and len(windows(ran.lines)) == 1 and windows(ran.lines) != {"grid auto"}
    again = made(run, *BARE)
    assert again.lines == ran.lines and " made" not in again.err


# What lacks a zero point


def test_frames_without_a_zero_point_are_counted_and_the_way_out_is_said(
    sky_store: Store, run: InProcess
) -> None:
    zeros = run("query", "zeropoint").lines
    assert run("judge", "bad", "--reason", "clouds", *zeros[:3]).code == 0
    ran = made(run)
    (line,) = [one for one in ran.err.splitlines() if "1 of 4 frames, 3 left out" in one]
    assert line.count("its zeropoint was judged bad") == 1 and len(line) < 300
    assert "try: --no-zeropoint takes all frames without one" in ran.err
    measures = record(ran.lines[0])["quality"]["measures"]
    assert (measures["frames"], measures["left_out"]) == (1, 3)
    (whole,) = made(run, "--no-zeropoint").lines
    assert record(whole)["quality"]["measures"]["left_out"] == 0


# Grids that are not there


def test_a_grid_that_is_not_there_is_said_once(sky_store: Store, run: InProcess) -> None:
    (coadd,) = run("query", "coadd").lines
    centre = record(coadd)["meta"]
    write_grid(
        sky_store,
        NamedGrid("deep", f"TAN {centre['ra_deg']} {centre['dec_deg']} 0.25 300x300", None, "a test"),
    )
    reduced = run("query", "reduced").lines
    for words in (("regrid", *reduced), ("coadd", *reduced), ("make", "coadd")):
        ran = run(*words[:1], *words[1:], "--grid", "deeep")
        assert ran.code == 4 and ran.err.count("no grid 'deeep' (nearest: deep)") == 1
        assert ".fits" not in ran.err and "failed" not in ran.err


def test_a_parameter_without_its_kind_is_that_of_what_is_asked_for(store: Store, run: InProcess) -> None:
    assert "try: --set coadd.grid=s" in run("make", "coadd", "--set", "grid=s").err
    assert "try: --set regrid.grid=s" in run("make", "regrid", "--set", "grid=s").err


# What other programs and solutions are given


def test_swarp_is_given_all_images_in_one_command(sky_store: Store, run: InProcess) -> None:
    reduced = run("query", "reduced").lines
    ran = run("export", "-v", "--for", "swarp", "--out-dir", "sw", *reduced)
    assert ran.code == 0
    (said,) = [one for one in ran.err.splitlines() if "SWarp " in one]
    words = shlex.split(said.partition(": ")[2])
    assert words[0] == "SWarp" and words[1:5] == ran.lines and len(reduced) == 4
    assert words[words.index("-WEIGHT_IMAGE") + 1].split(",") == [
        str(Path(one).with_suffix("")) + ".weight.fits" for one in ran.lines
    ]
    lists = run("query", "sources").lines
    ran = run("export", "-v", "--for", "scamp", "--out-dir", "sc", *lists)
    assert [one.partition(": ")[2] for one in ran.err.splitlines() if "scamp " in one] == [
        f"scamp {' '.join(ran.lines)}"
    ]


@pytest.mark.parametrize("kind", ["gphot", "gastrom"])
def test_lists_of_images_on_a_grid_are_not_taken_beside_those_of_the_frames(
    kind: str, sky_store: Store, run: InProcess
) -> None:
    lists = run("query", "sources").lines
    on_grids = [*run("query", "regrid").lines, *run("query", "coadd").lines]
    assert len(run("sources", "-q", *on_grids).lines) == len(on_grids)
    every = run("query", "sources").lines
    assert len(every) == len(lists) + len(on_grids)
    ran = run(kind, "--json", *every)
    assert ran.code == 0, ran.err
    paths = [json.loads(one)["path"] for one in ran.lines]
    inputs = [one for one in record(paths[0])["recipe"]["inputs"] if one["role"] == "sources"]
    assert len(inputs) == len(lists) and len(paths) == 1 + len(lists)
    assert ran.err.count("of images on a sky grid; those of the frames are taken") == 1
