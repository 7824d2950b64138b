"""awe-make for what is made of many frames: what cannot be had is left out by name, and nothing is made for ever."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from awetools.core.kind import kind_named
from awetools.core.kinds import KINDS
from awetools.core.planning.campaign import Demand, survey
from awetools.core.planning.graph import View
from awetools.core.planning.orders import remember_failure
from awetools.core.products import open_product
from awetools.core.record import read_record, sidecar
from awetools.core.store import Store
from awetools.core.workspace import here
from tests.support import InProcess, Ran


def make(run: InProcess, *words: object, code: int = 0) -> Ran:
    ran = run("make", *words)
    assert ran.code == code, ran.err
    return ran


def recipe(path: str) -> dict[str, Any]:
    return dict(read_record(sidecar(Path(path)))["recipe"])


def given(path: str, role: str = "reduced") -> int:
    return sum(1 for one in recipe(path)["inputs"] if one["role"] == role)


def line_of(ran: Ran, kind: str = "coadd") -> str:
    """The one line that says how many frames a product is made of."""
    (found,) = [one for one in ran.err.splitlines() if " frames, " in one and f"{kind} " in one]
    return found


def starless(run: InProcess, folder: Path) -> Path:
    """A raw frame of noise, like the first one of the store, registered."""
    from astropy.io import fits

    raw = run("query", "raw_science").lines[0]
    folder.mkdir(exist_ok=True)
    path = folder / "empty.fits"
    with fits.open(raw) as file:
        level, header = float(np.median(file[0].data)), file[0].header
        header["DATE-OBS"] = "2024-03-03T03:33:00"
        noise = np.random.default_rng(1).normal(level, 2 + level**0.5 / 2, file[0].data.shape)
        fits.writeto(path, noise.astype(np.uint16), header)
    assert run("ingest", "-q", path).code == 0
    return path


@pytest.fixture
def coadd(sky_store: Store, run: InProcess) -> str:
    """The coadd of the four frames of the store."""
    (path,) = make(run, "coadd", "-q").lines
    assert given(path) == 4
    return path


# What cannot be had


def test_a_frame_without_a_solution_is_left_out_with_the_reason(
    coadd: str, tmp_path: Path, run: InProcess
) -> None:
    empty = starless(run, tmp_path / "more")
    first = make(run, "coadd", "--remake", "coadd", code=6)
    assert first.lines == [coadd]
    assert "4 of 5 frames, 1 left out: empty.fits: astrom: " in line_of(first)
    (left_out,) = recipe(coadd)["left_out"]
    assert left_out["path"] == str(empty) and "no solution" in left_out["reason"]
    made = Path(coadd).stat().st_mtime_ns
    for words in ((), ("-n",), ("--why",)):
        again = make(run, "coadd", *words, code=5)
        assert "would make" not in again.err and " made" not in again.err, "nothing is made for ever"
        assert "4 of 5 frames, 1 left out: empty.fits: astrom: " in line_of(again)
    assert Path(coadd).stat().st_mtime_ns == made
    assert make(run, "coadd", "--check").lines == []
    assert "|- left out empty.fits: astrom: " in make(run, "coadd", "--tree").out
    about = json.loads(make(run, "coadd", "--tree", "--json").lines[0])
    assert [one["path"] for one in about["left_out"]] == [str(empty)]
    whole = make(run, "coadd", "--complete", code=5)
    assert whole.lines == [] and "blocked" in whole.err and "no astrom" in whole.err
    # A person says that it is no loss.
    assert run("judge", "bad", "--reason", "clouds", empty).code == 0
    judged = make(run, "coadd")
    assert judged.lines == [coadd] and "empty.fits: it was judged bad" in line_of(judged)


def test_a_frame_that_can_be_solved_later_outdates_the_coadd(
    source_store: Store, sky_night: Path, run: InProcess
) -> None:
    assert run("refcat", "import", "-q", "truth", sky_night / "reference.fits").code == 0
    asked = survey(Demand(kind_named(KINDS, "astrom"), ()), View(), here(), KINDS)
    remember_failure(source_store, asked.targets[0].key, "no solution for 3 stars")
    less = make(run, "coadd", code=5)
    assert "3 of 4 frames, 1 left out" in line_of(less) and "astrom: no solution for 3 stars" in line_of(less)
    assert given(less.lines[0]) == 3 and "no solution for 3" in recipe(less.lines[0])["left_out"][0]["reason"]
    why = make(run, "coadd", "--retry", "--why").out
    (told,) = [one for one in why.splitlines() if "/coadd/" in one]
    assert "upstream: astrom, zeropoint" in told and "members: reduced: new: " in told
    more = make(run, "coadd", "--retry")
    assert given(more.lines[0]) == 4 and " frames, " not in more.err
    assert make(run, "coadd").lines == more.lines


def test_what_was_judged_bad_on_the_way_is_left_out(coadd: str, run: InProcess) -> None:
    reduced = run("query", "reduced").lines[0]
    assert run("judge", "bad", "--reason", "a trail", reduced).code == 0
    ran = make(run, "coadd")
    assert ran.lines != [coadd] and given(ran.lines[0]) == 3
    assert "3 of 4 frames, 1 left out" in line_of(ran) and "was judged bad" in line_of(ran)
    assert run("judge", "good", "--reason", "no trail", reduced).code == 0
    back = make(run, "coadd")
    assert back.lines == [coadd] and " frames, " not in back.err


def test_where_no_frame_can_be_had_the_coadd_is_blocked(coadd: str, tmp_path: Path, run: InProcess) -> None:
    empty = starless(run, tmp_path / "more")
    for code in (6, 5):
        ran = make(run, "coadd", empty, code=code)
        assert ran.lines == [] and "no solution" in ran.err


@pytest.mark.parametrize("kind", ["gastrom", "gphot"])
def test_solutions_of_many_frames_go_on_too(kind: str, coadd: str, tmp_path: Path, run: InProcess) -> None:
    one = run("query", "sources").lines[0]
    assert run("judge", "bad", "--reason", "blurred", one).code == 0
    ran = make(run, kind)
    assert given(ran.lines[0], "sources") == 3 and "3 of 4 frames, 1 left out" in line_of(ran, kind)


# Which frames go together


def test_a_product_for_each_value_of_a_field(coadd: str, run: InProcess) -> None:
    raws = run("query", "raw_science", "detector=sim1").lines
    assert run("ingest", "-q", "--set", "object=OTHER", *raws).code == 0
    both = make(run, "coadd", "--each", "object", "-n", "--json")
    targets = [json.loads(one) for one in both.lines if json.loads(one)["kind"] == "coadd"]
    assert sorted(len([one for one in each["needs"] if one["role"] == "reduced"]) for each in targets) == [
        2,
        2,
    ]
    assert run("make", "coadd", "--each", "objekt").code == 2
    assert "nearest: object" in run("make", "coadd", "--each", "objekt").err
    assert run("make", "reduced", "--each", "object").code == 2


def test_the_files_named_make_one_product(coadd: str, run: InProcess) -> None:
    raws = run("query", "raw_science").lines
    assert make(run, "coadd", *raws).lines == [coadd]
    (two,) = make(run, "coadd", *raws, "detector=sim1").lines
    assert given(two) == 2


def test_a_new_frame_outdates_it_and_remake_makes_it_again(coadd: str, run: InProcess) -> None:
    raws = run("query", "raw_science").lines
    (three,) = make(run, "coadd", *raws[:3]).lines
    assert given(three) == 3
    assert "members: reduced: gone: " in make(run, "coadd", *raws[1:], "--why").out
    before = Path(coadd).stat().st_mtime_ns
    assert make(run, "coadd").lines == [coadd] and Path(coadd).stat().st_mtime_ns == before
    assert make(run, "coadd", "--remake", "coadd").lines == [coadd]
    assert Path(coadd).stat().st_mtime_ns > before


def test_one_that_was_removed_is_made_again_as_it_was(coadd: str, run: InProcess) -> None:
    assert run("rm", "-q", "--reason", "room", coadd).code == 0 and not Path(coadd).exists()
    assert make(run, coadd).lines == [coadd] and Path(coadd).exists()


def test_only_the_coadd_is_looked_at(coadd: str, run: InProcess) -> None:
    raws = run("query", "raw_science").lines
    assert make(run, "coadd", "--only", "coadd").lines == [coadd]
    (three,) = make(run, "coadd", *raws[:3], "--only", "coadd").lines
    assert given(three) == 3
    assert given(make(run, "coadd", *raws[1:], "--depth", "0").lines[0]) == 3


def test_one_that_exists_is_asked_for_by_its_name_or_as_outdated(
    coadd: str, tmp_path: Path, run: InProcess
) -> None:
    assert make(run, coadd).lines == [coadd]
    assert "nothing is out of date" in make(run, "coadd", "--outdated").err
    raws = run("query", "raw_science").lines
    (mean,) = make(run, "coadd", *raws, "--set", "coadd.method=mean").lines
    assert make(run, mean).lines == [mean], "it is asked for as it was"
    reduced = run("query", "reduced").lines[0]
    assert run("judge", "bad", "--reason", "a trail", reduced).code == 0
    for number, words in ((1, (coadd,)), (2, ("coadd", "--outdated"))):
        ran = make(run, *words, "--why")
        assert ran.out.count("/coadd/") == ran.out.count("members: reduced: gone: ") == number
    less = make(run, "coadd", "--outdated", "-q").lines
    assert [given(one) for one in less] == [3, 3]
    assert {recipe(one)["parameters"]["method"]["value"] for one in less} == {"clip", "mean"}
    assert "nothing is out of date" in make(run, "coadd", "--outdated").err, "what another followed is let be"
    # What was left out is tried again with the others.
    assert run("judge", "good", "--reason", "no trail", reduced).code == 0
    assert {make(run, one).lines[0] for one in less} == {coadd, mean}


def test_what_no_frame_has_all_do_without(coadd: str, run: InProcess) -> None:
    hard = ("--without", "zeropoint.gphot", "--set", "zeropoint.signal_to_noise=1e6")
    first = make(run, "coadd", *hard)
    assert first.err.count("no zero point: ") == 2, "for the first frame, and why the coadd has none"
    assert "and 3 more alike (-v names each)" in first.err and "without zeropoint: " in first.err
    assert "1 made, 4 failed" in first.err
    (path,) = first.lines
    assert given(path) == 4 and given(path, "zeropoint") == 0
    again = make(run, "coadd", *hard)
    assert again.lines == [path] and " made" not in again.err


def test_what_the_recipe_leaves_out_is_said_and_no_failure(coadd: str, run: InProcess) -> None:
    faint = ("--set", "coadd.most_extinction_mag=0.01")
    for _ in range(2):
        ran = make(run, "coadd", *faint)
        left_out = recipe(ran.lines[0])["left_out"]
        assert 0 < len(left_out) < 4 and given(ran.lines[0]) == 4
        assert f"{4 - len(left_out)} of 4 frames, {len(left_out)} left out: " in line_of(ran)
        assert "mag below the median of all" in line_of(ran)


# Zero points of some


def without_magnitudes(sky_night: Path, run: InProcess, path: Path) -> None:
    """The reference with positions of all stars, but no magnitudes of those on the frames of a detector, sim2."""
    from astropy.table import Table

    from awetools.core.sky.readwcs import read_wcs

    table = Table.read(sky_night / "reference.fits")
    for name in run("query", "reduced", "detector=sim2").lines:
        meta = open_product(Path(name)).meta
        x, y = read_wcs(meta["wcs"]).to_pixel(np.asarray(table["RA"]), np.asarray(table["DEC"]))
        within = (x > -60) & (x < meta["nx"] + 60) & (y > -60) & (y < meta["ny"] + 60)
        table["MAG_R"][within] = np.nan
    table.write(path)


def test_with_scales_from_overlaps_a_frame_needs_no_zero_point(
    source_store: Store, sky_night: Path, tmp_path: Path, run: InProcess
) -> None:
    without_magnitudes(sky_night, run, tmp_path / "some.fits")
    assert run("refcat", "import", "-q", "truth", tmp_path / "some.fits").code == 0
    # What fails in this run is said; the coadd is given what there is, and all frames.
    first = run("make", "coadd", "--set", "coadd.flux_scale=match")
    assert first.code == 0 and "no zero point" in first.err
    (path,) = first.lines
    assert (given(path), given(path, "zeropoint"), given(path, "astrom")) == (4, 2, 4), first.err
    again = run("make", "coadd", "--set", "coadd.flux_scale=match")
    assert again.lines == [path] and " made" not in again.err, "nothing is made for ever"
    assert not any("zeropoint" in line for line in again.err.splitlines() if " frames, " in line)
    by_hand = run("coadd", "--check", "--flux-scale", "match", "-o", path, *run("query", "reduced").lines)
    assert by_hand.code == 0, by_hand.err
    # Without it the frames that have none are left out, and named.
    less = make(run, "coadd", code=5)
    assert given(less.lines[0]) == 2 and "2 of 4 frames, 2 left out" in line_of(less)


def test_a_frame_whose_zero_point_failed_is_scaled_by_the_others(
    source_store: Store, sky_night: Path, run: InProcess
) -> None:
    assert run("refcat", "import", "-q", "truth", sky_night / "reference.fits").code == 0
    make(run, "astrom", "-q")
    asked = survey(Demand(kind_named(KINDS, "zeropoint"), ()), View(), here(), KINDS)
    remember_failure(source_store, asked.targets[0].key, "no star of it has a magnitude")
    matched = make(run, "coadd", "--set", "coadd.flux_scale=match")
    (path,) = matched.lines
    assert (given(path), given(path, "zeropoint")) == (4, 3), (
        "so few stars may not tell its scale: that is said"
    )
    assert all("from the overlaps" in one["reason"] for one in recipe(path)["left_out"])
    assert make(run, "coadd", "--set", "coadd.flux_scale=match").lines == [path]
    less = make(run, "coadd", code=5)
    assert given(less.lines[0]) == 3 and "no star of it has a magnitude" in line_of(less)
    # Named ones are of some frames, too.
    zeros = [f"--zeropoint={one}" for one in run("query", "zeropoint").lines[:2]]
    frames = run("query", "reduced").lines
    assert run("coadd", "-q", "--flux-scale", "match", *zeros, "-o", "some.fits", *frames).code == 0
    assert (given("some.fits"), given("some.fits", "zeropoint")) == (4, 2)
