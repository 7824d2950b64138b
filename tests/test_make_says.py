"""awe-make says what is true, once: causes, hints that it has options for, what can be foreseen, what is no news."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from awetools.commands.hints import hint_for_make
from awetools.core.gridstore import NamedGrid, write_grid
from awetools.core.kind import kind_named
from awetools.core.kinds import KINDS
from awetools.core.store import Store
from tests.support import InProcess
from tests.test_make_coadd import given, make, starless
from tests.test_make_sky import ELSEWHERE, tile_of

HARD = ("--without", "zeropoint.gphot", "--set", "zeropoint.signal_to_noise=1e6")


def other_band(sky_night: Path, path: Path, band: str) -> Path:
    """The reference with its magnitudes under the name of another band."""
    from astropy.table import Table

    table = Table.read(sky_night / "reference.fits")
    for name in [one for one in table.colnames if one.startswith("MAG_R")]:
        table.rename_column(name, name.replace("MAG_R", f"MAG_{band}"))
    table.write(path)
    return path


# Hints


@pytest.mark.parametrize(
    ("kind", "hint", "said"),
    [
        (
            "zeropoint",
            'another catalogue, or --band BAND, or in the settings band = "B"',
            'another catalogue, or --set zeropoint.band=BAND, or in the settings band = "B"',
        ),
        (
            "zeropoint",
            "--refcat NAME takes one all the same",
            "--set zeropoint.refcat=NAME takes one all the same",
        ),
        ("zeropoint", "awe-gastrom --refcat none, or --refcat NAME", None),
        ("coadd", "--flux-scale match takes theirs", "--set coadd.flux_scale=match takes theirs"),
        (
            "coadd",
            "a higher --clip-sigma leaves more",
            "a higher --set coadd.clip_sigma=CLIP_SIGMA leaves more",
        ),
        ("coadd", "awe-gphot with all of them, or --no-zeropoint", None),
        ("coadd", "--retry tries again; --force replaces it", None),
        ("astrom", "awe-astrom, or --accept-flags", "awe-astrom, or awe-astrom --accept-flags"),
        ("zeropoint", "--colour given", "--set zeropoint.colour=given"),
        (
            "coadd",
            "awe-refcat import NAME FILES, or --refcat DIRECTORY/NAME",
            "awe-refcat import NAME FILES, or --set astrom.refcat=DIRECTORY/NAME",
        ),
        ("reduced", "", None),
    ],
)
def test_the_hint_of_a_kind_has_options_of_awe_make(kind: str, hint: str, said: str | None) -> None:
    if hint.startswith("awe-gastrom"):
        said = "awe-gastrom --refcat none, or --set zeropoint.refcat=NAME"
    assert hint_for_make(kind_named(KINDS, kind), hint) == (hint if said is None else said)


# Causes


def test_a_cause_that_frames_share_is_said_once(sky_store: Store, run: InProcess) -> None:
    ran = make(run, "coadd", *HARD)
    assert ran.err.count("no-solution: zeropoint") == 2
    assert "and 3 more alike (-v names each)" in ran.err
    # The path of its one input is not said besides its name.
    first = next(line for line in ran.err.splitlines() if "no-solution: zeropoint" in line)
    assert "/sources/" not in first
    again = make(run, "coadd", *HARD, "--retry", "--remake", "coadd", "-v")
    assert again.err.count("no-solution: zeropoint") == 4 and "alike" not in again.err


def test_what_failed_is_said_with_the_reason_and_the_way_on(sky_store: Store, run: InProcess) -> None:
    make(run, "coadd", *HARD)
    ran = make(run, "coadd", *HARD, "--remake", "coadd", "-n")
    (line,) = [one for one in ran.err.splitlines() if "without zeropoint: " in one]
    assert " failed before: no zero point: " in line and "is failed" not in line
    assert "try: --retry tries again" in ran.err


def test_a_band_that_the_catalogue_has_not_is_foreseen(
    source_store: Store, sky_night: Path, tmp_path: Path, run: InProcess
) -> None:
    path = other_band(sky_night, tmp_path / "z.fits", "Z")
    assert run("refcat", "import", "-q", "truth", path).code == 0
    for words in (("-n",), ()):
        ran = make(run, "coadd", *words)
        assert ran.err.count("without zeropoint: ") == 1 and " will fail: " in ran.err, ran.err
        assert "try: another catalogue, or --set zeropoint.band=BAND" in ran.err
        assert "no-solution" not in ran.err and "failed" not in ran.err and "/zeropoint/" not in ran.out
    assert given(ran.lines[0]) == 4 and given(ran.lines[0], "zeropoint") == 0
    several = make(run, "coadd", "--each", "exposure", "--no-astrom", "-n")
    assert several.err.count("without zeropoint: ") == 1 and "(2 products)" in several.err, several.err
    # Asked for itself it is the answer, at once and for all frames.
    asked = make(run, "zeropoint", "-n", code=6)
    assert asked.out == "" and "4 cannot be made" in asked.err and "and 3 more: " in asked.err
    assert not list(source_store.awe.glob("failed/*"))
    # The band that it says can be set, and then they are made.
    planned = make(run, "coadd", "--set", "zeropoint.band=Z", "-n")
    assert sum("/zeropoint/" in line for line in planned.lines) == 4 and "without" not in planned.err


# Surveys


def test_that_a_frame_is_on_another_tile_is_no_news(sky_store: Store, run: InProcess) -> None:
    write_grid(sky_store, NamedGrid("survey", tiles={name: tile_of(run, name) for name in ("sim1", "sim2")}))
    for _ in range(2):
        ran = make(run, "coadd", "--grid", "survey")
        assert [given(one) for one in ran.lines] == [2, 2]
        assert "left out" not in ran.err and "not on" not in ran.err, ran.err
    told = make(run, "coadd", "--grid", "survey", "-v")
    assert told.err.count("2 frames are not on it: ") == 2


def test_a_frame_that_is_on_no_tile_is_named_once(
    source_store: Store, sky_night: Path, run: InProcess
) -> None:
    assert run("refcat", "import", "-q", "truth", sky_night / "reference.fits").code == 0
    make(run, "astrom", "-q", "detector=sim1")
    one = tile_of(run, "sim1")
    ra, dec = (float(text) for text in one.split()[1:3])
    # Two tiles of the one detector; nothing is known yet of where the other is, and of the tile beside both.
    tiles = {
        "a": one,
        "b": tile_of(run, "sim1", 60),
        "c": f"TAN {ra + 0.1:.6f} {dec:.6f} 0.3 40x40 20.5,20.5 0",
    }
    write_grid(source_store, NamedGrid("survey", tiles={**tiles, "far": ELSEWHERE}))
    for _ in range(2):
        ran = make(run, "coadd", "--grid", "survey")
        assert [given(one) for one in ran.lines] == [2, 2], ran.err
        (line,) = [text for text in ran.err.splitlines() if "not on" in text]
        assert "2 of 4 frames are not on any of these grids: " in line and line.count("sim2") == 2
        assert "left out" not in ran.err


def test_what_a_tile_lacks_is_told_of_its_own_frames(
    sky_store: Store, tmp_path: Path, run: InProcess
) -> None:
    write_grid(sky_store, NamedGrid("survey", tiles={name: tile_of(run, name) for name in ("sim1", "sim2")}))
    starless(run, tmp_path / "more")
    ran = run("make", "coadd", "--grid", "survey")
    assert ran.code == 6 and len(ran.lines) == 2
    assert ran.err.count("2 of 3 frames, 1 left out: empty.fits: ") == 2, ran.err


# What is the newest


def test_that_something_is_the_newest_is_said_where_others_choose_it(
    sky_store: Store, run: InProcess
) -> None:
    newest = "is what other programs choose"
    assert newest not in make(run, "coadd", "--grid", tile_of(run, "sim1")).err
    assert newest not in make(run, "coadd", "--set", "coadd.method=mean").err
    ran = make(run, "zeropoint", "--without", "gphot", "--set", "zeropoint.clip_sigma=3.5")
    assert "the zeropoint made now" in ran.err and newest in ran.err
    # As the settings have it, it is no experiment.
    assert (
        newest not in make(run, "zeropoint", "--remake", "zeropoint", "--set", "zeropoint.clip_sigma=3.0").err
    )


# What a product is without


def test_no_common_solution_is_missed_by_nobody(source_store: Store, sky_night: Path, run: InProcess) -> None:
    assert run("refcat", "import", "-q", "truth", sky_night / "reference.fits").code == 0
    ran = make(run, "zeropoint")
    assert len(ran.lines) == 4 and "without" not in ran.err, ran.err


def test_the_sources_of_a_coadd_need_no_solution(sky_store: Store, run: InProcess) -> None:
    (coadd,) = make(run, "coadd", "-q").lines
    assert run("sources", "-q", "-o", "s.fits", coadd).code == 0
    ran = run("sourcelist", "-o", "l.fits", "s.fits")
    assert ran.code == 0 and "without" not in ran.err, ran.err
    (frame, *_) = run("query", "reduced").lines
    assert run("sources", "-q", "-o", "own.fits", frame).code == 0
    assert run("regrid", "-o", "g.fits", frame).code == 0
    # What a frame should have and has not is told.
    assert run("judge", "bad", "--reason", "clouds", *run("query", "zeropoint").lines).code == 0
    for words in (
        ("sourcelist", "-o", "own_list.fits", run("query", "sources").lines[0]),
        ("regrid", "-o", "h.fits", frame),
    ):
        ran = run(*words)
        assert ran.code == 0 and ran.err.count("without ") == 1 and "without zeropoint: " in ran.err, ran.err


def test_a_frame_with_a_zero_point_of_its_own_is_not_without(
    sky_store: Store, tmp_path: Path, run: InProcess
) -> None:
    from astropy.io import fits

    (frame, *_) = run("query", "reduced").lines
    with fits.open(frame) as file:
        header = file[0].header
        noise = np.random.default_rng(2).normal(100, 3, file[0].data.shape).astype(np.float32)
        for name in [one for one in header if one.startswith("AWE")]:
            del header[name]
    fits.writeto(tmp_path / "foreign.fits", noise, header)
    frames = {}
    for mag in ("", "25.5"):
        words = ("--zero-point", mag) if mag else ()
        out = tmp_path / f"in{mag}"
        ran = run("import_", "--as", "reduced", "--out-dir", out, *words, tmp_path / "foreign.fits")
        assert ran.code == 0, ran.err
        frames[mag] = ran.lines[0]
    for mag, count in (("", 1), ("25.5", 0)):
        for command in ("regrid", "coadd"):
            ran = run(
                command, "--no-astrom", "--background", "leave", "-o", f"{command}{mag}.fits", frames[mag]
            )
            assert ran.code == 0 and ran.err.count("without zeropoint") == count, ran.err
