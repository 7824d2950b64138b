"""GNU Make with coadds: a touched input is looked at once by those it went into, and nothing else is made."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from awetools.core.gridstore import NamedGrid, write_grid
from awetools.core.products import open_product
from awetools.core.sky.readwcs import read_wcs
from awetools.core.store import Store
from tests.support import InProcess
from tests.test_make_coadd import given, make
from tests.test_make_sky import tile_of

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="there is no GNU make")

SETTLED = ["make: Nothing to be done for 'all'."]
MAKEFILE = """
all: $(TILES:%=%.fits)
%.fits:
\tawe-coadd -q -u --grid survey/$* $(FRAMES) -o $@ --depfile $*.d
-include $(wildcard *.d)
"""


def programs() -> dict[str, str]:
    """An environment in which `awe-...` are those of the Python that runs the tests."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def run_make(folder: Path, *words: str) -> list[str]:
    """The lines of commands that make ran, if any, with what they said."""
    # A make by itself, also where the tests are run by one.
    env = {
        name: value for name, value in programs().items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    ran = subprocess.run(
        ["make", "-r", *words], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return (ran.stdout + ran.stderr).splitlines()


@pytest.fixture
def survey(sky_store: Store, run: InProcess) -> dict[str, str]:
    """A tile for each detector, under the name of a survey."""
    tiles = {name: tile_of(run, name) for name in ("sim1", "sim2")}
    write_grid(sky_store, NamedGrid("survey", tiles=tiles))
    return tiles


@needs_make
def test_the_rule_of_a_coadd_has_what_is_in_it(
    sky_store: Store, survey: dict[str, str], run: InProcess
) -> None:
    folder = sky_store.root / "own"
    folder.mkdir()
    frames = run("query", "reduced").lines
    (folder / "Makefile").write_text(f"TILES := {' '.join(survey)}\nFRAMES := {' '.join(frames)}\n{MAKEFILE}")
    told = run_make(folder)
    assert sum("awe-coadd" in line for line in told) == 2
    assert run_make(folder) == SETTLED
    kept = {name: (folder / f"{name}.fits").read_bytes() for name in survey}
    # What went into the one is none of the other's business.
    os.utime(next(one for one in frames if "sim2" in Path(one).name))
    (command, *_) = [line for line in run_make(folder) if "awe-coadd" in line]
    assert "survey/sim2" in command
    assert run_make(folder) == SETTLED, "it settles"
    assert {name: (folder / f"{name}.fits").read_bytes() for name in survey} == kept, "nothing was made"
    # Another grid by that name makes it again, and the others stay.
    write_grid(sky_store, NamedGrid("survey", tiles={**survey, "sim1": tile_of(run, "sim1", 30)}), force=True)
    os.utime(sky_store.awe / "grids" / "survey.json")
    assert sum("awe-coadd" in line for line in run_make(folder)) == 2
    assert run_make(folder) == SETTLED
    assert (folder / "sim2.fits").read_bytes() == kept["sim2"]
    assert (folder / "sim1.fits").read_bytes() != kept["sim1"]
    # A frame that is gone stops nobody.
    (folder / "sim1.fits").unlink()
    assert any("survey/sim1" in line for line in run_make(folder))


@needs_make
@pytest.mark.parametrize("jobs", ["-j1", "-j2"])
def test_the_exported_tiles_are_made_by_make(
    sky_store: Store, survey: dict[str, str], tmp_path: Path, run: InProcess, jobs: str
) -> None:
    file = tmp_path / "Makefile"
    file.write_text(make(run, "coadd", "--grid", "survey", "--export", "make").out)
    assert file.read_text().count("/grids/survey.json") == 2, "the grid of each coadd is watched"
    run_make(tmp_path, jobs)
    made = make(run, "coadd", "--grid", "survey").lines
    assert len(made) == 2 and make(run, "coadd", "--grid", "survey", "--check").lines == []
    assert run_make(tmp_path) == SETTLED
    times = [Path(one).stat().st_mtime_ns for one in made]
    frame = next(one for one in run("query", "reduced").lines if "sim2" in Path(one).name)
    os.utime(frame)
    (told,) = run_make(tmp_path, jobs)
    assert told == "awe-coadd: 1 up to date"
    assert [Path(one).stat().st_mtime_ns == time for one, time in zip(made, times, strict=True)].count(
        True
    ) == 1
    assert run_make(tmp_path) == SETTLED


def test_a_complete_coadd_has_all_frames_that_touch_its_tile(
    sky_store: Store, survey: dict[str, str], run: InProcess
) -> None:
    assert make(run, "coadd", "--grid", "survey/sim1", "--complete", "--why").out.count("missing") == 1
    (path,) = make(run, "coadd", "--grid", "survey/sim1", "--complete").lines
    assert given(path) == 2
    assert make(run, "coadd", "--grid", "survey/sim1", "--complete").lines == [path]
    assert make(run, "coadd", "--grid", "survey/sim1").lines == [path], "it is the same product"
    # What nothing touches is not planned, and is no failure beside others.
    ra, dec = (float(one) for one in survey["sim1"].split()[1:3])
    beside = f"TAN {ra + 0.1:.6f} {dec:.6f} 0.3 40x40 20.5,20.5 0"
    write_grid(sky_store, NamedGrid("survey", tiles={**survey, "beside": beside}), force=True)
    told = make(run, "coadd", "--grid", "survey", "--complete", "--why")
    assert len(told.lines) == 1 and "survey_sim2" in told.out
    make(run, "coadd", "--grid", "survey/beside", "--complete", code=5)
    # A frame that may touch the tile and cannot be had holds it up.
    judged = next(one for one in run("query", "astrom").lines if "sim2" in Path(one).name)
    assert run("judge", "bad", "--reason", "trails", judged).code == 0
    assert make(run, "coadd", "--grid", "survey/sim2", "--complete", code=5).lines == []


def test_a_tile_without_a_good_pixel_is_as_one_that_no_frame_touches(
    sky_store: Store, survey: dict[str, str], run: InProcess
) -> None:
    astrom = next(one for one in run("query", "astrom").lines if "sim1" in Path(one).name)
    wcs = read_wcs(dict(open_product(Path(astrom)).meta["wcs"]))
    bare = {}
    for number, y in enumerate((100.5, 128.5)):
        # At the border what a kernel needs is not there.
        ra, dec = (float(one) for one in wcs.to_sky(-2.0, y))
        bare[f"bare{number}"] = f"TAN {ra:.6f} {dec:.6f} {wcs.pixel_scale_arcsec:.3f} 6x6 3.5,3.5 0"
    write_grid(sky_store, NamedGrid("survey", tiles={**survey, **bare}), force=True)
    write_grid(sky_store, NamedGrid("bare", tiles=bare))
    first = make(run, "coadd", "--grid", "survey")
    assert len(first.lines) == 2 and "no good pixel" not in first.err
    assert "2 made in" in first.err and "failed" not in first.err
    again = make(run, "coadd", "--grid", "survey")
    assert again.lines == first.lines and "2 up to date" in again.err and "failed" not in again.err
    assert make(run, "coadd", "--grid", "survey", "--check").lines == []
    told = make(run, "coadd", "--grid", "survey", "--retry", "-v")
    assert told.err.count("left out: ") == told.err.count("no good pixel is left") == 2
    # Asked for by itself it is an error, and so it is where there is no other.
    assert "no good pixel is left" in make(run, "coadd", "--grid", "survey/bare0", "--retry", code=4).err
    assert "no good pixel is left" in make(run, "coadd", "--grid", "survey/bare0", code=5).err
    none = make(run, "coadd", "--grid", "bare", "--retry", code=5)
    assert "no frame has a good pixel on any of 2 tiles" in none.err
    assert "no good pixel is left" in make(run, "coadd", "--grid", "bare", code=5).err
