"""Frames whose coordinates say no one place for each pixel are left out of coadds by name; awe-regrid refuses them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from awetools.core.coadd.coadd import How, prepare
from awetools.core.coadd.inputs import frame_of_arrays
from awetools.core.errors import BadHeader, EmptyInput
from awetools.core.kinds.coaddsystem import usable_system
from awetools.core.products import open_product
from awetools.core.sky.grid import fit_grid
from awetools.core.sky.readwcs import read_wcs
from awetools.core.store import init_store
from tests.foreign_frames import SHAPE, WCS, star_field, write_foreign
from tests.support import InProcess

FOLDING = {
    "CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV",
    "PV1_1": 1.0, "PV1_4": 1e5, "PV2_1": 1.0,
}  # fmt: skip
SINGULAR = dict.fromkeys(("CD1_1", "CD1_2", "CD2_1", "CD2_2"), 0.0001)
NEARLY_SINGULAR = {**SINGULAR, "CD1_2": 1e-4 * (1 + 1e-13)}
NOT_A_NUMBER = {"CRVAL1": float("nan")}
NOWHERE = {"CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN", "CRPIX1": 1e7}
LOST_TERMS = {
    "CTYPE1": "RA---TAN-SIP",
    "CTYPE2": "DEC--TAN-SIP",
    "A_ORDER": 2.0,
    "B_ORDER": 2.0,
    "A_2_0": float("nan"),
}

BAD = {
    "fold": FOLDING,
    "CD matrix": SINGULAR,
    "no inverse": NEARLY_SINGULAR,
    "not finite": NOT_A_NUMBER,
    "no pixel has a place": NOWHERE,
    "no pixel  has a place": LOST_TERMS,
}


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    monkeypatch.chdir(tmp_path)
    init_store(tmp_path)
    return InProcess(capfd)


def imported(run: InProcess, number: int) -> Path:
    path = Path(f"in{number}.fits")
    cards = {"DATE-OBS": f"2024-03-02T23:1{number}:00.000"}
    write_foreign(path, star_field(number), cards=cards)
    made = run("import_", "--as", "reduced", "--zero-point", "25", path, "--out-dir", "red")
    assert made.code == 0, made.err
    return Path(made.out.strip())


def spoilt(product: Path, cards: dict[str, Any]) -> Path:
    """As a header that is wrong has it: the record's coordinates are those of the file."""
    record = Path(f"{product}.json")
    said = json.loads(record.read_text())
    said["meta"]["wcs"] = {**WCS, **cards}
    record.write_text(json.dumps(said))
    return product


@pytest.mark.parametrize(("why", "cards"), BAD.items())
def test_what_cannot_be_used_is_told(why: str, cards: dict[str, Any]) -> None:
    _, reason = usable_system({**WCS, **cards}, SHAPE)
    assert reason.startswith("its coordinates cannot be used: ")
    assert " ".join(why.split()) in reason


def test_good_coordinates_are_taken_as_they_are() -> None:
    wcs, reason = usable_system(WCS, SHAPE)
    assert not reason and wcs.crval_deg == (150.0, 2.0)


@pytest.mark.parametrize("cards", [SINGULAR, FOLDING], ids=["singular", "fold"])
def test_a_coadd_leaves_the_frame_out_by_name_and_is_that_of_the_others(
    run: InProcess, cards: dict[str, Any]
) -> None:
    frames = [imported(run, number) for number in range(4)]
    made = run("coadd", "--no-astrom", "-o", "three.fits", *frames[:3])
    assert made.code == 0, made.err
    spoilt(frames[3], cards)
    made = run("coadd", "--no-astrom", "-o", "four.fits", *frames)
    assert made.code == 0, made.err
    record = open_product(Path("four.fits")).record
    assert record["quality"]["measures"]["left_out"] == 1
    assert "its coordinates cannot be used" in made.err and "in3.fits" in made.err
    three, four = (read(Path(name)) for name in ("three.fits", "four.fits"))
    assert three.shape == four.shape and np.array_equal(three, four)


def read(path: Path) -> np.ndarray:
    from astropy.io import fits

    return np.asarray(fits.getdata(path, "SCI"))


@pytest.mark.parametrize(("why", "cards"), [("fold", FOLDING), ("CD matrix", SINGULAR)])
def test_the_only_frame_and_a_regrid_are_refused(run: InProcess, why: str, cards: dict[str, Any]) -> None:
    frame = spoilt(imported(run, 0), cards)
    for command in ("coadd", "regrid"):
        made = run(command, "--no-astrom", frame)
        assert made.code == BadHeader.exit_code, made.err
        assert "in0.fits" in made.err and why in made.err and "awe-astrom" in made.err


@pytest.mark.parametrize(
    ("more", "away_deg", "hint"),
    [
        ({}, 5.0, "awe-grid, a grid that fits them"),
        ({"unfit": "its sky cannot be measured", "remedy": "--background leave"}, 0.0, "--background leave"),
        ({"zeropoint_mag": float("nan")}, 0.0, ""),
    ],
)
def test_the_hint_is_that_of_the_reason(more: dict[str, Any], away_deg: float, hint: str) -> None:
    data = np.zeros(SHAPE, np.float32)
    frame = frame_of_arrays("one", read_wcs({**WCS, "CRVAL2": 2 + away_deg}), data, 1.0, **more)
    with pytest.raises(EmptyInput) as caught:
        prepare([frame], fit_grid([(read_wcs(WCS), SHAPE)]), How())
    assert caught.value.hint == hint
