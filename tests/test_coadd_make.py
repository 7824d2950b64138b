"""GNU Make with coadds: a touched input is looked at once by those it went into, and nothing else is made."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from awetools.core.gridstore import NamedGrid, write_grid
from awetools.core.store import Store
from tests.support import InProcess
from tests.test_make_coadd import make
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
    ran = subprocess.run(
        ["make", "-r", *words], cwd=folder, env=programs(), capture_output=True, text=True, check=False
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
