"""awe-cutout: whole pixels, the sky where it was, many positions, names that fit files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from awetools.core.errors import Unreadable, UsageError
from awetools.core.fits import open_fits
from awetools.core.fitsheader import wcs_cards
from awetools.core.pictures.cutouts import boxes_on, cuts, open_cuttable
from awetools.core.pictures.positions import name_of, read_positions, size_of, typed
from awetools.core.pixels.mask import Bit
from awetools.core.products import open_product
from awetools.core.sky.readwcs import read_wcs
from awetools.core.store import Store, init_store
from tests.foreign_frames import SHAPE, STARS, WCS, write_foreign
from tests.support import InProcess

SKY = read_wcs(WCS)


@pytest.fixture
def coadd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: InProcess) -> Path:
    """An imported coadd of 176 x 160 pixels with weights and a mask."""
    init_store(tmp_path / "store")
    monkeypatch.chdir(tmp_path / "store")
    weight = np.full(SHAPE, 0.01, np.float32)
    weight[:, :20] = 0
    mask = np.zeros(SHAPE, np.int16)
    mask[:, :20] = 1
    frame = write_foreign(
        tmp_path / "frame.fits", planes={"WHT": weight, "DQ": mask}, cards={"BUNIT": "adu/s"}
    )
    options = ("--as", "coadd", "--weight", "WHT", "--mask", "DQ", "--zero-point", "30", "-o", "coadd.fits")
    assert run("import_", "-q", *options, frame).code == 0
    return Path("coadd.fits").resolve()


def place(x: float, y: float) -> str:
    """The sky at a FITS pixel, as --at-sky takes it."""
    ra, dec = (float(one) for one in SKY.to_sky(x, y))
    return f"{ra:.9f},{dec:.9f}"


def test_a_cut_has_the_pixels_of_the_image_and_the_sky_where_it_was(coadd: Path, run: InProcess) -> None:
    ran = run("cutout", coadd, "--at-sky", place(88.3, 70.2), "--size", "20px", "-o", "cut.fits", "--json")
    assert ran.code == 0 and json.loads(ran.out)["section"] == "[79:98,61:80]"
    with open_fits(coadd) as whole, open_fits("cut.fits") as cut:
        assert [hdu.name for hdu in cut.hdus] == ["SCI", "WEIGHT", "MASK"]
        for hdu in cut.hdus:
            assert (cut.image(hdu.index) == whole.image(hdu.index)[60:80, 78:98]).all()
            moved = read_wcs(wcs_cards(hdu.header))
            assert np.allclose(moved.to_pixel(*SKY.to_sky(88.3, 70.2)), (10.3, 10.2), atol=1e-6)
        header = cut.hdus[0].header
        assert header["AWEKEY"] == open_cuttable(coadd).product.key and header["AWECUT"] == "[79:98,61:80]"
        assert "AWEKIND" not in header and header["MAGZERO"] == 30 and not cut.verify_checksums()


@pytest.mark.parametrize("side", [1, 2, 7, 30])
def test_the_middle_of_a_cut_is_nearest_to_the_position(coadd: Path, side: int) -> None:
    image = open_cuttable(coadd)
    for x, y in ((80.0, 90.0), (80.49, 90.2), (80.51, 90.99)):
        ra, dec = (float(one) for one in SKY.to_sky(x, y))
        _, boxes = boxes_on(image, typed([(ra, dec)], size_of(f"{side}px")))
        x0, y0, x1, y1 = boxes[0].tolist()
        assert (x1 - x0, y1 - y0) == (side, side)
        assert abs((x0 + x1 + 1) / 2 - x) <= 0.5 + 1e-6 and abs((y0 + y1 + 1) / 2 - y) <= 0.5 + 1e-6


def test_a_cut_ends_at_the_edge_or_is_padded(coadd: Path, run: InProcess) -> None:
    at = place(170, 5)
    assert run("cutout", coadd, "--at-sky", at, "--size", "40px", "-o", "short.fits").code == 0
    assert run("cutout", coadd, "--at-sky", at, "--size", "40px", "--pad", "-o", "full.fits").code == 0
    with open_fits("short.fits") as short, open_fits("full.fits") as full:
        rows, columns = short.hdus[0].shape
        assert full.hdus[0].shape == (40, 40) and rows < 40 and columns < 40
        for hdu in (0, 1, 2):
            assert (full.image(hdu)[-rows:, :columns] == short.image(hdu)).all()
        outside = np.ones((40, 40), bool)
        outside[-rows:, :columns] = False
        assert (full.image("MASK")[outside] == int(Bit.OUTSIDE)).all()
        assert not full.image("SCI")[outside].any() and not full.image("WEIGHT")[outside].any()
        found = [
            read_wcs(wcs_cards(one.hdus[0].header)).to_sky(1, one.hdus[0].shape[0]) for one in (short, full)
        ]
        assert np.allclose(found[0], SKY.to_sky(150, rows), atol=1e-9)
        assert np.allclose(found[1], SKY.to_sky(150, rows), atol=1e-9)


def test_many_positions_of_a_table_are_each_about_their_star(coadd: Path, run: InProcess) -> None:
    ra, dec = SKY.to_sky(*(np.array(one, float) for one in zip(*STARS, strict=True)))
    rows = [f"star {number},{a},{d}" for number, (a, d) in enumerate(zip(ra, dec, strict=True))]
    Path("stars.csv").write_text("\n".join(["Name,RA,Dec", *rows, "star 3,10,-80"]))
    ran = run("cutout", coadd, "--positions", "stars.csv", "--size", "9px", "--out-dir", "stamps")
    assert ran.code == 0 and "star_3-2" in ran.err
    assert len(ran.lines) == len(STARS) and "stamps/coadd_star_3.fits" in ran.lines
    for name in ran.lines:
        with open_fits(name) as fits:
            image = fits.image(0)
            assert np.unravel_index(int(image.argmax()), image.shape) == (4, 4)


def test_only_images_that_have_a_position_are_cut_and_5_if_none_has(
    coadd: Path, run: InProcess, tmp_path: Path
) -> None:
    other = write_foreign(tmp_path / "other.fits", cards={"CRVAL1": 30.0, "DATE-OBS": "2024-03-02T23:20:00"})
    assert run("import_", "-q", "--as", "coadd", "-o", "other.fits", other).code == 0
    ran = run("cutout", coadd, "other.fits", "./other.fits", "--at-sky", place(80, 80), "--out-dir", "cuts")
    assert ran.code == 0 and len(ran.lines) == 1 and "coadd_J1000" in ran.lines[0]
    # Beside the image, opposite on the sky, and where no pixel has a weight.
    for where in ("150.5,2", "330,-2", place(8, 80)):
        ran = run("cutout", coadd, "--at-sky", where, "--size", "10px", "--out-dir", "cuts")
        assert ran.code == 5 and "no-match" in ran.err, where


def test_one_process_or_several_make_the_same(coadd: Path, run: InProcess) -> None:
    lines = ["id,ra,dec,size_px"]
    lines += [f"{n},{place(30 + n % 130, 10 + n // 130 * 40)},{5 + n % 3}" for n in range(400)]
    Path("many.csv").write_text("\n".join(lines))
    for jobs, folder in (("1", "one"), ("3", "three")):
        ran = run("cutout", "-q", coadd, "--positions", "many.csv", "-j", jobs, "--out-dir", folder)
        assert ran.code == 0 and len(ran.lines) == 400
    for path in Path("one").iterdir():
        assert path.read_bytes() == (Path("three") / path.name).read_bytes()


def test_rows_are_read_in_pieces(coadd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = open_cuttable(coadd)
    places = [tuple(float(v) for v in SKY.to_sky(x, y)) for x, y in STARS]
    which, boxes = boxes_on(image, typed([(a, d) for a, d in places], size_of("11px")))
    whole = [(cut.position, cut.section, cut.planes["SCI"].tobytes()) for cut in cuts(image, which, boxes)]
    monkeypatch.setattr("awetools.core.pictures.cutouts.READ_AT_ONCE_BYTES", 1)
    pieces = [(cut.position, cut.section, cut.planes["SCI"].tobytes()) for cut in cuts(image, which, boxes)]
    assert whole == pieces and len(whole) == len(STARS)


def test_a_picture_instead(coadd: Path, run: InProcess) -> None:
    matplotlib = pytest.importorskip("matplotlib.image")
    x, y = STARS[-1]
    ran = run("cutout", coadd, "--at-sky", place(x, y + 3), "--size", "21px", "--png", "-o", "star.png")
    assert ran.code == 0
    picture = matplotlib.imread("star.png")
    # The star is below the middle, as north is up.
    assert picture.shape == (21, 21) and picture[13, 10] == picture.max() > picture[7, 10]


def test_what_is_not_ours_stays(coadd: Path, run: InProcess) -> None:
    Path("mine.fits").write_text("mine")
    ran = run("cutout", coadd, "--at-sky", place(80, 80), "-o", "mine.fits")
    assert "outside" not in ran.err
    assert ran.code == 2 and "would-overwrite" in ran.err and Path("mine.fits").read_text() == "mine"
    assert run("cutout", coadd, "--at-sky", place(80, 80), "-o", coadd).code == 2
    assert run("cutout", coadd, "--at-sky", place(80, 80), "--force", "-o", "mine.fits").code == 0
    assert run("cutout", coadd, "--at-sky", place(90, 80), "-o", "mine.fits").code == 0


def test_usage(coadd: Path, run: InProcess, tmp_path: Path) -> None:
    at = place(80, 80)
    assert run("cutout", coadd, "-o", "a.fits").code == 2
    assert run("cutout", coadd, "--at-sky", at).code == 2
    assert run("cutout", coadd, "--at-sky", at, "--at-sky", place(90, 90), "-o", "a.fits").code == 2
    assert run("cutout", coadd, "--at-sky", at, "--png", "-o", "a.fits").code == 2
    ran = run("cutout", tmp_path / "frame.fits", "--at-sky", at, "-o", "a.fits")
    assert ran.code == 4 and "awe-import" in ran.err


def test_a_reduced_frame_has_the_coordinates_of_its_solution(sky_store: Store) -> None:
    solution = open_product(sorted(sky_store.root.glob("astrom/*/*.fits"))[0])
    frames = [open_product(path) for path in sky_store.root.glob("reduced/*/*.fits")]
    same = ("detector", "exposure")
    frame = next(one for one in frames if all(one.meta[key] == solution.meta[key] for key in same))
    assert dict(frame.meta["wcs"]) != dict(solution.meta["wcs"])
    assert dict(open_cuttable(frame.path).wcs_cards) == dict(solution.meta["wcs"])


# Positions


def test_sizes_have_units() -> None:
    assert (
        size_of("2").arcsec == 120 and size_of("30arcsec").arcsec == 30 and size_of("0.1 deg").arcsec == 360
    )
    assert size_of('5"').arcsec == 5 and size_of("200px").px == 200 and np.isnan(size_of("200px").arcsec)
    for bad in ("", "x", "-2", "0", "0px", "2parsec", "1e9px", "nan"):
        with pytest.raises(UsageError):
            size_of(bad)


def test_names_of_positions_are_cut_not_rounded() -> None:
    assert name_of(202.4696, 47.1952) == "J132952.70+471142.7"
    assert name_of(0.0, -0.5) == "J000000.00-003000.0"
    assert name_of(359.999999, 89.99999) == "J235959.99+895959.9"


@pytest.mark.parametrize("form", ["csv", "ecsv", "vot", "fits"])
def test_tables_of_each_form(form: str, tmp_path: Path) -> None:
    table = pytest.importorskip("astropy.table")
    path = tmp_path / f"table.{form}"
    rows = table.Table(
        {"main_id": ["NGC 5194", "a/b"], "ra": [202.47, 3.5], "dec": [47.2, -8.25], "size": [2.0, 0.5]}
    )
    rows.write(
        path, format={"csv": "ascii.csv", "ecsv": "ascii.ecsv", "vot": "votable", "fits": "fits"}[form]
    )
    found = read_positions(str(path), None)
    assert found.names == ("NGC_5194", "a_b") and found.size_arcsec.tolist() == [120, 30]
    assert np.allclose(found.ra_deg, [202.47, 3.5]) and np.allclose(found.dec_deg, [47.2, -8.25])


def test_texts_and_rows_without_a_position(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("id,ra,dec\n7,13:29:52.7,+47:11:43\n8,,\n9,00:00:04,-00:00:30\n")
    found = read_positions(str(path), size_of("1"))
    assert found.names == ("7", "9") and np.allclose(found.ra_deg, [202.469583, 0.016667], atol=1e-6)
    assert np.allclose(found.dec_deg, [47.195278, -0.008333], atol=1e-6)
    path.write_text("ra,dec\nnan,3\n10,20\n400,0\n")
    assert read_positions(str(path), size_of("1")).names == ("J004000.00+200000.0",)
    path.write_text("ra,dec\nnan,3\n")
    with pytest.raises(Unreadable, match="position"):
        read_positions(str(path), size_of("1"))
    with pytest.raises(UsageError, match="--size"):
        read_positions(str(path), None)


def test_rows_that_are_nowhere_are_named(coadd: Path, run: InProcess, tmp_path: Path) -> None:
    here = place(*STARS[0][:2])
    (tmp_path / "p.csv").write_text(f"name,ra,dec\na,{here}\nb,nan,{here.split(',')[1]}\nc,10,95\n")
    made = run("cutout", coadd, "--positions", tmp_path / "p.csv", "--size", "9px", "--out-dir", "cuts")
    assert made.code == 0 and len(made.lines) == 1
    assert "row 2 (b), row 3 (c)" in made.err
