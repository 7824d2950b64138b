"""Solutions in planning: which catalogue and which global solution serve, what outdates them, who else asks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from awetools.core.products import open_product
from awetools.core.store import Store
from tests.support import InProcess, write_raw

TRUTH = ".awe/refcats/truth"


def words(run: InProcess, *arguments: object) -> list[str]:
    ran = run(*arguments)
    assert ran.code == 0, ran.err
    return ran.lines


def import_truth(run: InProcess, sky_night: Path, name: str = "truth", *more: object) -> None:
    words(run, "refcat", "import", "-q", name, sky_night / "reference.fits", *more)


def elsewhere(run: InProcess, tmp_path: Path, name: str, dec_deg: float = 60.0) -> None:
    """A catalogue of stars about RA 10, or of other stars of the field."""
    table = tmp_path / f"{name}.csv"
    lines = [f"{10 + 0.01 * number},{dec_deg + 0.01 * number}" for number in range(9)]
    table.write_text("\n".join(["ra,dec", *lines, ""]))
    words(run, "refcat", "import", "-q", name, table, "--epoch", "2016")


def solved_with(path: str) -> dict[str, str]:
    """The names of the inputs of a solution, by role."""
    inputs = open_product(Path(path)).record["recipe"]["inputs"]
    return {one["role"]: Path(one["path"]).name for one in inputs}


# Which catalogue


def test_without_a_catalogue_nothing_is_solved_and_the_hint_says_what_to_do(
    source_store: Store, run: InProcess
) -> None:
    source = words(run, "query", "sources")[0]
    ran = run("astrom", source)
    assert ran.code == 5
    assert "there is no reference catalogue" in ran.err and "try: awe-refcat import NAME FILES" in ran.err
    made = run("make", "astrom", "--dry-run")
    assert made.code == 5
    assert "there is no reference catalogue" in made.err


def test_the_only_catalogue_serves_and_two_are_told_apart_by_the_field(
    source_store: Store, sky_night: Path, tmp_path: Path, run: InProcess
) -> None:
    source = words(run, "query", "sources")[0]
    elsewhere(run, tmp_path, "far")
    alone = run("astrom", "-n", "--json", source)
    assert alone.code == 0, "the only one is taken, also where it is of no use"
    import_truth(run, sky_night)
    (made,) = words(run, "astrom", source)
    assert solved_with(made)["refcat"] == "truth"
    recorded = open_product(Path(made)).record["recipe"]["parameters"]["refcat"]
    assert recorded == {"value": "truth", "origin": "the only catalogue with stars in this field"}


def test_two_catalogues_of_the_field_are_a_usage_error_that_names_them(
    source_store: Store, sky_night: Path, run: InProcess
) -> None:
    import_truth(run, sky_night)
    import_truth(run, sky_night, "same")
    source = words(run, "query", "sources")[0]
    assert run("astrom", "-n", source).code == 0, "the same stars under two names are one catalogue"
    words(run, "refcat", "remove", "same")
    bright = ("--faintest", "R=20", "-o", "bright.csv")
    words(run, "refcat", "cone", "truth", "154.8,-15,1", *bright)
    words(run, "refcat", "import", "-q", "again", "bright.csv")
    ran = run("astrom", source)
    assert ran.code == 2
    assert "again, truth" in ran.err and "--refcat NAME" in ran.err
    planned = run("make", "astrom", "-n")
    assert planned.code == 2 and "again, truth" in planned.err
    assert run("make", "astrom", "-n", "--set", "astrom.refcat=again").code == 0


@pytest.mark.parametrize("named", ["truth", TRUTH])
def test_a_catalogue_is_named_by_name_or_directory(
    source_store: Store, sky_night: Path, tmp_path: Path, run: InProcess, named: str
) -> None:
    import_truth(run, sky_night)
    elsewhere(run, tmp_path, "near", -15.0)
    source = words(run, "query", "sources")[0]
    (made,) = words(run, "astrom", "--refcat", named, source)
    assert solved_with(made) == {"sources": Path(source).name, "refcat": "truth"}
    assert run("astrom", "--refcat", "trut", source).code == 4
    ran = run("astrom", "--refcat", "none", source)
    assert ran.code == 5 and "by request" in ran.err


def test_the_key_changes_with_the_stars_and_not_with_their_place(
    source_store: Store, sky_night: Path, tmp_path: Path, run: InProcess
) -> None:
    import_truth(run, sky_night)
    source = words(run, "query", "sources")[0]
    (made,) = words(run, "astrom", source)
    shutil.copytree(TRUTH, tmp_path / "truth")
    there = run("astrom", "-u", "--refcat", tmp_path / "truth", source)
    assert "1 up to date" in there.err
    words(run, "refcat", "remove", "-q", "--force", "truth")
    table = tmp_path / "few.csv"
    table.write_text("ra,dec\n154.79,-15.0\n154.78,-15.001\n")
    words(run, "refcat", "import", "-q", "truth", table, "--epoch", "2016")
    ran = run("astrom", "-u", "-n", "--why", "-o", made, source)
    assert ran.code == 0
    assert "truth" in ran.out and "1 up to date" not in ran.err


# awe-make


def test_solutions_are_made_from_raw_frames_and_stay_up_to_date(
    source_store: Store, sky_night: Path, run: InProcess
) -> None:
    import_truth(run, sky_night)
    for path in words(run, "query", "sources"):
        Path(path).unlink()
        Path(f"{path}.json").unlink()
    made = words(run, "make", "-q", "astrom")
    assert len(made) == 4
    assert run("make", "--check", "astrom").code == 0
    sources = words(run, "query", "sources")
    ran = run("astrom", "-u", *sources)
    assert "4 up to date" in ran.err
    assert sorted(ran.lines) == sorted(made), "the planner and the maker mean the same recipe"


def test_an_up_to_date_solution_outlives_sources_made_again_as_they_were(
    sky_store: Store, run: InProcess
) -> None:
    assert run("make", "--check", "astrom").code == 0
    source = words(run, "query", "sources")[0]
    words(run, "sources", "-q", "--threshold-sigma", "6", "--force", *words(run, "query", "reduced"))
    ran = run("make", "-n", "--why", "astrom", "--set", "sources.threshold_sigma=6")
    assert ran.code == 0
    assert len([line for line in ran.lines if "/astrom/" in line]) == 4, source
    assert "sources" in ran.out


def test_a_global_solution_outdates_local_ones_and_is_let_go_of_again(
    source_store: Store, sky_night: Path, run: InProcess
) -> None:
    import_truth(run, sky_night)
    local = words(run, "make", "-q", "astrom")
    sources = words(run, "query", "sources")
    (solution,) = words(run, "gastrom", "-q", "--alone", *sources)
    ran = run("make", "-n", "--why", "astrom")
    assert ran.code == 0
    assert len(ran.lines) == 4
    assert all("gastrom: was none" in line and Path(solution).name in line for line in ran.lines)
    common = words(run, "make", "-q", "astrom")
    assert not set(common) & set(local)
    assert {solved_with(one)["gastrom"] for one in common} == {Path(solution).name}
    assert "4 up to date" in run("astrom", "-u", *sources).err
    words(run, "judge", solution, "bad", "--reason", "a test")
    assert words(run, "make", "-q", "astrom") == local, "as before, and made already"
    assert sorted(words(run, "astrom", "-u", *sources)) == sorted(local)
    words(run, "judge", "--undo", solution, "--reason", "a test")
    words(run, "rm", "-q", "--reason", "a test", solution)
    assert run("make", "--check", "astrom").code == 0
    assert sorted(words(run, "astrom", "-u", *sources)) == sorted(local)


def test_one_frame_can_do_without_the_global_solution(sky_store: Store, run: InProcess) -> None:
    source = words(run, "query", "sources")[0]
    assert "gastrom: taken out of" in run("astrom", "--degree", "2", source).err
    (made,) = words(run, "astrom", "-q", "--no-gastrom", source)
    assert solved_with(made) == {"sources": Path(source).name, "refcat": "truth"}


def test_a_plan_says_itself_in_all_its_ways(
    source_store: Store, sky_night: Path, tmp_path: Path, run: InProcess
) -> None:
    import_truth(run, sky_night)
    source = words(run, "query", "sources")[0]
    dry = run("astrom", "-n", "--why", source)
    assert dry.code == 0 and "missing" in dry.out
    assert run("astrom", "--check", source).code == 3
    made = run("astrom", "-q", "--json", source)
    assert made.code == 0
    about = json.loads(made.lines[0])
    assert Path(about["path"]).is_file()
    assert run("astrom", "--check", source).code == 0
    (own,) = words(run, "astrom", "-q", "-o", "own.fits", "--depfile", tmp_path / "x.d", source)
    assert Path(own).name == "own.fits"
    rule = (tmp_path / "x.d").read_text()
    assert "refcats/truth/catalogue.json" in rule, "a directory's time says nothing to make"


# awe-gastrom


def test_a_global_solution_makes_one_of_each_frame(
    source_store: Store, sky_night: Path, tmp_path: Path, run: InProcess
) -> None:
    import_truth(run, sky_night)
    sources = words(run, "query", "sources")
    dry = run("gastrom", "-n", *sources)
    assert dry.code == 0 and len(dry.lines) == 1
    assert "and then astrom of each frame" in dry.err
    assert not run("query", "gastrom").lines
    alone = words(run, "gastrom", "-q", "--alone", *sources)
    assert len(alone) == 1
    assert not run("query", "astrom").lines
    both = words(run, "gastrom", *sources)
    assert both[:1] == alone and len(both) == 5
    assert {solved_with(one)["gastrom"] for one in both[1:]} == {Path(alone[0]).name}
    assert "4 up to date" in run("gastrom", *sources, "-u").err
    out = tmp_path / "beside" / "all.fits"
    out.parent.mkdir()
    outside = words(run, "gastrom", "-q", "-o", out, *sources)
    assert {Path(one).parent for one in outside} == {out.parent}
    assert len(outside) == 5


def test_a_frame_that_is_left_out_is_named_and_solved_by_itself(
    sky_store: Store, sky_night: Path, tmp_path: Path, run: InProcess
) -> None:
    # A frame of nothing: its few sources are in no other frame.
    import numpy as np

    for name in words(run, "query", "gastrom"):
        words(run, "rm", "-q", "--reason", "a test", name)
    raw = write_raw(
        tmp_path / "blank.fits",
        np.random.default_rng(3).normal(500, 5, (256, 256)).astype("f4"),
        {"IMAGETYP": "object", "EXPTIME": 60.0, "RA": 100.0, "DEC": 20.0, "RDNOISE": 5.0},
    )
    words(run, "ingest", "-q", raw)
    flags = ("--no-bias", "--no-flat", "--no-dark", "--no-hotpix", "--no-coldpix")
    reduced = words(run, "reduce", "-q", *flags, raw)
    blank = words(run, "sources", "-q", *reduced)
    sources = words(run, "query", "sources")
    ran = run("gastrom", *sources)
    assert ran.code == 0, ran.err
    assert blank[0] in ran.err
    assert len(ran.lines) == 5
    assert {solved_with(one)["sources"] for one in ran.lines[1:]} == {
        Path(one).name for one in sources if one not in blank
    }
    alone = run("astrom", blank[0])
    assert alone.code in (5, 6), "it is not said to be in the solution"
    assert "has no frame" not in alone.err
