"""awe-mask: how many pixels have each bit, where the bits of one pixel came from, and planes as images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from awetools.core.errors import UnknownName
from awetools.core.fits import open_fits
from awetools.core.masknames import MASK_NAMES, bit_of, names_of, union_of
from awetools.core.maskreport import counts, plane
from awetools.core.pixels.mask import Bit
from awetools.core.products import open_product
from awetools.core.store import Store
from tests.foreign_frames import SHAPE, write_foreign
from tests.support import InProcess, awe, write_raw


@pytest.fixture
def masked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An imported frame with some bits."""
    monkeypatch.chdir(tmp_path)
    quality = np.zeros(SHAPE, np.int16)
    quality[4, 9], quality[20:22, 30:33], quality[50, 60] = 1, 8, 8 | 1
    frame = write_foreign(tmp_path / "frame.fits", planes={"DQ": quality})
    bits = "1:hot,8:cosmic"
    awe("import", "--as", "reduced", "--mask", "DQ", "--mask-bits", bits, frame, "-o", tmp_path / "p.fits")
    return tmp_path / "p.fits"


def mask_plane(path: Path) -> np.ndarray:
    with open_fits(path) as fits:
        return fits.image("MASK")


# Names


def test_the_names_are_those_of_the_bits() -> None:
    assert dict(MASK_NAMES) == {bit.name.lower(): int(bit) for bit in Bit}  # type: ignore[union-attr]


@given(st.integers(0, 2047))
def test_names_and_bits_are_one(value: int) -> None:
    assert union_of(names_of(value)) == value
    assert sum(bit_of(name) for name in names_of(value)) == value


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="nearest: cosmic"):
        bit_of("cosmics")


@given(st.lists(st.integers(0, 2047), min_size=1, max_size=60))
def test_counts_and_planes_are_those_of_the_bits(values: list[int]) -> None:
    mask = np.array([values], dtype=np.int16)
    for one in counts(mask):
        assert one.pixels == sum(bool(value & one.bit) for value in values)
        assert one.fraction == one.pixels / len(values)
    struck = plane(mask, ["cosmic", "trail"])
    assert struck.dtype == np.uint8 and struck[0].tolist() == [int(bool(value & 24)) for value in values]


# Counts


def test_the_table_has_a_line_a_bit(run: InProcess, masked: Path) -> None:
    ran = run("mask", masked)
    rows = [line.split("\t") for line in ran.lines]
    assert rows[0] == ["path", "bit", "name", "pixels", "fraction"] and len(rows) == 12
    found = {row[2]: (int(row[1]), int(row[3])) for row in rows[1:]}
    assert found["hot"] == (1, 2) and found["cosmic"] == (8, 7) and found["trail"] == (16, 0)
    bits = json.loads(run("mask", "--json", masked).out)["bits"]
    assert bits["cosmic"] == {"bit": 8, "pixels": 7, "fraction": pytest.approx(7 / 28160)}


def test_what_has_no_mask_is_named(run: InProcess, tmp_path: Path, masked: Path) -> None:
    raw = write_raw(tmp_path / "raw.fits", np.zeros((8, 8), np.uint16))
    ran = run("mask", raw, masked, tmp_path / "gone.fits")
    assert ran.code == 4 and "wrong-kind" in ran.err and "no-such-file" in ran.err
    assert len(ran.lines) == 12


# Planes


def test_a_plane_is_an_image_of_0_and_1(run: InProcess, masked: Path) -> None:
    ran = run("mask", "--plane", "hot", "--plane", "cosmic,trail", masked, "-o", "struck.fits")
    assert ran.code == 0 and ran.lines == ["struck.fits"]
    with open_fits("struck.fits") as fits:
        image = fits.image(0)
        assert fits.hdus[0].bitpix == 8 and fits.hdus[0].header["AWEKEY"] == open_product(masked).key
        assert fits.hdus[0].header["CTYPE1"] == "RA---TAN" and not fits.verify_checksums()
    assert np.array_equal(image, (mask_plane(masked) & 25) != 0)
    assert run("mask", "--plane", "hot", masked, "--out-dir", "planes").lines == ["planes/p_hot.fits"]


def test_planes_replace_planes_and_nothing_else(run: InProcess, masked: Path) -> None:
    assert run("mask", "--plane", "hot", masked, "-o", "a.fits").code == 0
    assert run("mask", "--plane", "cosmic", masked, "-o", "a.fits").code == 0
    with open_fits("a.fits") as fits:
        assert fits.image(0).sum() == 7
    Path("b.fits").write_text("mine")
    assert "would-overwrite" in run("mask", "--plane", "hot", masked, "-o", "b.fits").err
    assert run("mask", "--plane", "hot", masked, "-o", "b.fits", "--force").code == 0
    before = masked.read_bytes()
    assert run("mask", "--plane", "hot", masked, "-o", masked, "--force").code == 2
    assert masked.read_bytes() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["--plane", "hott", "-o", "x.fits"],
        ["--plane", "hot"],
        ["--at", "5", "-o", "x.fits"],
        ["--at", "5"],
        ["--at", "5,6,7"],
        ["--at", "5,x"],
        ["--at", "\N{SUPERSCRIPT TWO},1"],
        ["--at", "0,1"],
        ["--at", "177,1"],
        ["--at", "1,1", "--plane", "hot", "-o", "x.fits"],
        ["-o", "x.fits"],
    ],
)
def test_senseless_questions_are_usage_errors(run: InProcess, masked: Path, arguments: list[str]) -> None:
    ran = run("mask", *arguments, masked)
    assert ran.code == 2 and "awe-mask: u" in ran.err and not Path("x.fits").exists()


def test_a_bit_named_twice_or_in_capitals(run: InProcess, masked: Path) -> None:
    assert run("mask", "--plane", "hot,hot", masked, "--out-dir", "made").lines == ["made/p_hot.fits"]
    assert "(nearest: hot)" in run("mask", "--plane", "HOT", masked, "--out-dir", "made").err


@pytest.mark.parametrize("name", ["x.fits.gz", "x", "x.png"])
def test_a_plane_is_plain_fits_by_its_name(run: InProcess, masked: Path, name: str) -> None:
    ran = run("mask", "--plane", "hot", masked, "-o", name)
    assert ran.code == 2 and "must end in .fits" in ran.err and not Path(name).exists()


# Origins


def rows_at(run: InProcess, path: Path, *places: str) -> list[dict[str, str]]:
    ran = run("mask", path, *(part for place in places for part in ("--at", place)))
    assert ran.code == 0, ran.err
    header, *rows = [line.split("\t") for line in ran.lines]
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_bits_of_an_import_come_from_its_mask(run: InProcess, masked: Path) -> None:
    rows = rows_at(run, masked, "10,5", "61,51", "1,1")
    assert [(row["x"], row["y"], row["name"]) for row in rows] == [
        ("10", "5", "hot"),
        ("61", "51", "hot"),
        ("61", "51", "cosmic"),
        ("1", "1", "good"),
    ]
    assert all(row["kind"] == "reduced" and "frame.fits[DQ]" in row["detail"] for row in rows[:3])
    assert rows[0]["weight"] == "0" and float(rows[3]["weight"]) > 0


def test_a_hot_pixel_leads_to_the_product_that_found_it(reduced_store: Store, run: InProcess) -> None:
    path = Path(awe("query", "reduced", cwd=reduced_store.root).split()[0])
    y, x = np.argwhere(mask_plane(path) == 1)[0]
    [row] = rows_at(run, path, f"{x + 1},{y + 1}")
    hotpix = Path(row["from"])
    assert row["kind"] == "hotpix" and mask_plane(hotpix)[y, x] & 1
    assert "threshold_sigma" in row["detail"]
    about = json.loads(run("mask", "--json", "--at", f"{x + 1},{y + 1}", path).out)
    assert about["bits"][0]["from"][0]["via"] == [str(path)]
    hotpix.unlink()
    hotpix.with_name(hotpix.name + ".json").unlink()
    # The flat may have taken the bit over from it.
    for row in rows_at(run, path, f"{x + 1},{y + 1}"):
        assert row["kind"] in ("reduced", "domeflat") and f"hotpix {hotpix} is deleted" in row["detail"]


def test_a_saturated_pixel_shows_its_raw_value(run: InProcess, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    data = rng.normal(1000, 6, (96, 96)).round().astype(np.uint16)
    data[40, 50] = 60000
    cards = {"IMAGETYP": "object", "EXPTIME": 10.0, "OBJECT": "x", "SATURATE": 50000, "RDNOISE": 6.0}
    raw = write_raw(tmp_path / "raw.fits", data, cards)
    out = tmp_path / "reduced.fits"
    awe("reduce", "-q", "--no-bias", "--no-flat", raw, "-o", out, cwd=tmp_path)
    first, beside = rows_at(run, out, "51,41", "51,42")
    assert first["name"] == beside["name"] == "saturated" and first["kind"] == "reduced"
    assert "raw value 60000 ADU, at or above the limit of 50000 ADU" in first["detail"]
    assert "below the limit" in beside["detail"] and "saturation_grow" in beside["detail"]
    raw.unlink()
    assert "is gone" in rows_at(run, out, "51,41")[0]["detail"]


def test_a_pixel_without_calibration_leads_to_the_flat(reduced_store: Store, run: InProcess) -> None:
    for line in awe("query", "reduced", cwd=reduced_store.root).split():
        found = np.argwhere(mask_plane(Path(line)) & 512)
        if len(found):
            y, x = found[0]
            rows = rows_at(run, Path(line), f"{x + 1},{y + 1}")
            [row] = [one for one in rows if one["name"] == "uncalibrated"]
            assert row["kind"] in ("flat", "domeflat") and mask_plane(Path(row["from"]))[y, x] & 512
            return
    pytest.fail("no frame of the simulated night has a pixel without calibration")
