"""awe-export of tables: LDAC that SCAMP and PSFEx read, VOTable, CSV, ECSV, regions, and .head files for SWarp."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from awetools.core.ellipses import error_ellipses, kron_ellipses
from awetools.core.exportldac import ldac_columns
from awetools.core.exporttables import FORMS
from awetools.core.exporttexts import csv_lines, ecsv_lines, region_lines, votable_lines
from awetools.core.store import Store
from tests.foreign_frames import STARS, write_foreign
from tests.support import InProcess, awe, awe_here

QUIET = ("-VERBOSE_TYPE", "QUIET", "-WRITE_XML", "N", "-CHECKPLOT_TYPE", "NONE", "-NTHREADS", "1")
CARDS: dict[str, object] = {"EGAIN": 1.5, "SATURATE": 50000.0}


def needs(name: str) -> str:
    """The path of a program; skips the test, naming it, where it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    write_foreign(folder / "frame.fits", cards=CARDS)
    awe_here("import_", "-q", "--as", "reduced", "frame.fits", "-o", "reduced.fits", cwd=folder)
    awe_here("sources", "-q", "reduced.fits", "-o", "sources.fits", cwd=folder)
    return folder


@pytest.fixture
def run(
    _made: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> InProcess:
    """In a directory with a star field, reduced.fits, and its sources.fits."""
    for path in _made.glob("*.fits*"):
        shutil.copy2(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    return InProcess(capfd)


def table(path: str | Path, unit: str | int = "LDAC_OBJECTS") -> Any:
    from astropy.io import fits

    with fits.open(path) as hdus:
        return hdus[unit].data.copy()


# LDAC


def test_ldac_has_our_numbers_under_the_names_of_sextractor(run: InProcess) -> None:
    assert run("export", "--to", "ldac", "sources.fits", "-o", "x.ldac").lines == ["x.ldac"]
    found, own = table("x.ldac"), table("sources.fits", 1)
    assert len(found) == len(STARS)
    for name, ours in (("XWIN_IMAGE", "X_WIN_PX"), ("Y_IMAGE", "Y_PX"), ("FLUX_AUTO", "FLUX_AUTO_ADU")):
        assert np.array_equal(found[name], own[ours])
    assert np.array_equal(found["FLAGS"], own["FLAGS"] & 31) and found["FLAGS"].dtype == ">i2"
    assert np.allclose(found["ELONGATION"], own["A_PX"] / own["B_PX"])
    assert np.allclose(found["ERRAWIN_IMAGE"] ** 2 + found["ERRBWIN_IMAGE"] ** 2,
                       own["X_WIN_ERROR_PX"] ** 2 + own["Y_WIN_ERROR_PX"] ** 2, rtol=1e-5)  # fmt: skip
    assert "VIGNET" not in found.names


def test_the_header_in_ldac_is_that_of_the_image(run: InProcess) -> None:
    from astropy.io.fits import Header

    run("export", "--to", "ldac", "sources.fits", "-o", "x.cat")
    lines = table("x.cat", "LDAC_IMHEAD")["Field Header Card"][0]
    raw = Path("x.cat").read_bytes()
    assert b"SIMPLE  =                    T".ljust(80) in raw and b"END".ljust(80) in raw, "blanks, not NUL"
    header = Header.fromstring("".join(str(line).ljust(80) for line in lines))
    assert (header["NAXIS1"], header["NAXIS2"], header["CRVAL1"]) == (176, 160, 150.0)
    assert (header["SEXGAIN"], header["SEXSATLV"], header["EXPTIME"]) == (1.5, 50000.0, 100.0)
    assert header["SEXBKDEV"] == pytest.approx(10, rel=0.06) and "AWEKIND" not in header


def test_stamps_are_the_pixels_about_each_source_less_its_sky(run: InProcess) -> None:
    run("export", "--to", "ldac", "--vignet", 11, "sources.fits", "-o", "x.ldac")
    image, found = table("reduced.fits", 0), table("x.ldac")
    assert found["VIGNET"].shape == (len(STARS), 11, 11)
    sky = found["BACKGROUND"]
    for row, (x, y) in enumerate(zip(found["X_IMAGE"], found["Y_IMAGE"], strict=True)):
        column, line = int(x + 0.5) - 1, int(y + 0.5) - 1
        part = image[line - 5 : line + 6, column - 5 : column + 6]
        assert np.allclose(found["VIGNET"][row], part - sky[row], atol=1e-2)
    run("export", "--to", "ldac", "--vignet", 101, "sources.fits", "-o", "x.ldac")
    assert (table("x.ldac")["VIGNET"][0][:, 0] == np.float32(-1e30)).all(), "outside of the image"


def test_stamps_need_the_image(run: InProcess) -> None:
    Path("reduced.fits").unlink()
    Path("reduced.fits.json").unlink()
    ran = run("export", "--for", "psfex", "sources.fits", "-o", "x.ldac")
    assert ran.code == 4 and "no-such-file" in ran.err and "--vignet 0" in ran.err
    assert not Path("x.ldac").exists()
    assert run("export", "--for", "scamp", "sources.fits", "-o", "x.ldac").code == 0


def test_psfex_reads_our_sources(run: InProcess) -> None:
    psfex = needs("psfex")
    ran = run("export", "-v", "--for", "psfex", "sources.fits", "-o", "x.ldac")
    assert "psfex x.ldac" in ran.err
    subprocess.run([psfex, "x.ldac", *QUIET, "-CHECKIMAGE_TYPE", "NONE"], check=True, capture_output=True)
    header = headers("x.psf")[1]
    assert header["ACCEPTED"] > 15 and header["PSF_FWHM"] == pytest.approx(2.3548 * 2.0, rel=0.05)


def test_scamp_solves_our_sources(run: InProcess) -> None:
    scamp = needs("scamp")
    # The reference catalogue lies 0.3 arcsec to the north of where the header has the stars.
    reference_at(Path("reference.cat"), dec_offset=0.3 / 3600)
    run("export", "--for", "scamp", "sources.fits", "-o", "x.ldac")
    command = [scamp, "x.ldac", "-ASTREF_CATALOG", "FILE", "-ASTREFCAT_NAME", "reference.cat", *QUIET]
    subprocess.run([*command, "-ASTREFMAG_KEY", "MAG", "-ASTREFMAGERR_KEY", "MAGERR", "-DISTORT_DEGREES", "1"],
                   check=True, capture_output=True)  # fmt: skip
    text = Path("x.head").read_text(errors="replace")
    values = dict(re.findall(r"^(\w+) *= *([-+.\dE]+)", text, re.MULTILINE))
    assert float(values["CRVAL2"]) - 2 == pytest.approx(0.3 / 3600, abs=0.02 / 3600)
    # What SCAMP wrote is not ours to replace.
    assert run("export", "--to", "head", "reduced.fits", "-o", "x.head").code == 2


def test_detectors_of_an_exposure_share_one_ldac(reduced_store: Store, run: InProcess) -> None:
    names = awe("query", "sources", "filter=R", cwd=reduced_store.root).split()
    ran = run("export", "--for", "scamp", "--mef", *names, "--out-dir", "out")
    assert ran.code == 0 and len(ran.lines) == len(names) / 2
    found = [header.get("EXTNAME") for header in headers(ran.lines[0])]
    assert found == [None, *("LDAC_IMHEAD", "LDAC_OBJECTS") * 2]
    ran = run("export", "--to", "csv", "--mef", *names[:2], "-o", "x.csv")
    assert ran.code == 4 and "holds one table" in ran.err


# Texts


def test_texts_give_the_same_numbers_again(run: InProcess) -> None:
    from astropy.table import Table

    own = table("sources.fits", 1)
    for form in ("votable", "ecsv", "csv"):
        (line,) = run("export", "--to", form, "sources.fits", "--out-dir", "out").lines
        assert line == f"out/sources{FORMS[form].endings[0]}"
        found = Table.read(line)
        assert len(found) == len(own)
        for name in own.names:
            values: np.ndarray = np.ma.filled(np.ma.asarray(found[name], float), np.nan)
            assert np.array_equal(
                values.astype(own[name].dtype), own[name], equal_nan=own[name].dtype.kind == "f"
            )
        if form != "csv":
            assert str(found["X_PX"].unit) == "pix" and found["STAR"].dtype == np.float32
    assert Table.read("out/sources.ecsv").meta["detector"] == "chip7"


ODD = {
    "NAME": np.array(["a,b", 'say "x" <&>']),
    "V": np.array([[1.5, np.nan], [-2.0, 3.0]]),
    "N": np.array([1, -2], np.int64),
    "F": np.array([0.1, np.inf], np.float32),
}


def test_vectors_texts_and_what_is_no_number() -> None:
    from astropy.table import Table

    text = "\n".join(csv_lines(ODD))
    assert text.splitlines()[0] == "NAME,V_1,V_2,N,F"
    assert text.splitlines()[1:] == ['"a,b",1.5,,1,0.1', '"say ""x"" <&>",-2.0,3.0,-2,']
    found = Table.read(list(ecsv_lines(ODD, {"V": "deg"}, {"night": "2024-03-02"})), format="ascii.ecsv")
    assert found["NAME"].tolist() == ODD["NAME"].tolist() and str(found["V_2"].unit) == "deg"
    content = "\n".join(votable_lines(ODD, {}, {"x": "<"})).encode()
    vo = Table.read(io.BytesIO(content), format="votable")
    assert [str(one) for one in vo["NAME"]] == ODD["NAME"].tolist()
    assert np.array_equal(vo["V"][1], [-2, 3]) and np.isnan(np.ma.getdata(vo["V"])[0, 1])


def test_a_table_without_rows_has_its_columns() -> None:
    from astropy.table import Table

    none = {name: values[:0] for name, values in ODD.items()}
    assert list(csv_lines(none)) == ["NAME,V_1,V_2,N,F"]
    assert len(Table.read(list(ecsv_lines(none, {}, {})), format="ascii.ecsv")) == 0
    content = "\n".join(votable_lines(none, {}, {})).encode()
    assert Table.read(io.BytesIO(content), format="votable").colnames == list(ODD)
    nowhere = {"X_PX": np.zeros(0), "Y_PX": np.zeros(0)}
    assert list(region_lines(nowhere, {}, None, False, "x"))[-1] == "image"
    assert all(len(one) == 0 for one in ldac_columns(nowhere)[0].values())


def test_regions_are_the_kron_ellipses(run: InProcess) -> None:
    assert run("export", "--for", "ds9", "sources.fits", "-o", "x.reg").code == 0
    lines = Path("x.reg").read_text().splitlines()
    assert "image" in lines
    own = table("sources.fits", 1)
    found = [[float(one) for one in re.findall(r"[-\d.]+", line)[:5]] for line in lines if "ellipse" in line]
    assert np.allclose(np.array(found)[:, 0], own["X_PX"], atol=1e-3) and len(found) == len(own)
    assert np.allclose(
        np.array(found)[:, 2], np.maximum(2.5 * own["KRON_RADIUS"], 3.5) * own["A_PX"], atol=0.01
    )
    assert lines[-1].endswith("text={25}")


def test_regions_of_the_sky_lie_where_those_of_the_image_do() -> None:
    from awetools.core.sky.readwcs import read_wcs
    from awetools.core.sky.sphere import from_tangent

    # Turned by 30 degrees, mirrored, in seconds of arc: the end of the longer axis is told from the region.
    turn = np.radians(30)
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 40.0, "CRPIX1": 50.0,
             "CRPIX2": 50.0, "CD1_1": np.cos(turn) / 3600, "CD1_2": -np.sin(turn) / 3600,
             "CD2_1": np.sin(turn) / 3600, "CD2_2": np.cos(turn) / 3600}  # fmt: skip
    columns = {"X_PX": np.array([70.0]), "Y_PX": np.array([20.0]), "A_PX": np.array([3.0]),
               "B_PX": np.array([1.0]), "THETA_DEG": np.array([20.0]), "FLAGS": np.array([4])}  # fmt: skip
    *_, frame, line = region_lines(columns, {}, cards, True, "x")
    ra, dec, a, b, angle = (float(one) for one in re.findall(r"[-\d.]+", line)[:5])
    assert frame == "icrs" and line.endswith("color=red") and (a, b) == pytest.approx((10.5, 3.5), abs=1e-3)
    position_angle = np.radians(angle - 90)
    end = from_tangent(a * np.sin(position_angle) / 3600, a * np.cos(position_angle) / 3600, ra, dec)
    ends = np.array(read_wcs(cards).to_pixel(*end)).ravel() - (70, 20)
    expected = 10.5 * np.array([np.cos(np.radians(20)), np.sin(np.radians(20))])
    assert min(np.hypot(*(ends - expected)), np.hypot(*(ends + expected))) < 0.05


def test_lists_on_the_sky_have_their_ellipses_and_are_references_for_scamp() -> None:
    columns = {"RA_DEG": np.array([10.0]), "DEC_DEG": np.array([-5.0]), "A_ARCSEC": np.array([1.0]),
               "B_ARCSEC": np.array([0.5]), "THETA_SKY_DEG": np.array([30.0]), "SID": np.array([7]),
               "RA_ERROR_ARCSEC": np.array([0.036]), "DEC_ERROR_ARCSEC": np.array([0.018]),
               "RA_DEC_COVARIANCE_ARCSEC2": np.zeros(1), "MAG_AUTO": np.array([np.nan])}  # fmt: skip
    *_, frame, line = region_lines(columns, {}, {"RADESYS": "FK5"}, False, "x")
    assert frame == "fk5" and line == 'ellipse(10.0000000,-5.0000000,3.000",1.500",120.0) # text={7}'
    del columns["A_ARCSEC"]
    assert list(region_lines(columns, {}, None, False, "x"))[-1].startswith("point(10.0000000,-5.0000000)")
    found, units = ldac_columns(columns)
    assert (found["X_WORLD"][0], found["Y_WORLD"][0]) == (10, -5) and units["X_WORLD"] == "deg"
    assert (found["ERRA_WORLD"][0], found["ERRB_WORLD"][0]) == pytest.approx((1e-5, 5e-6))
    assert found["ERRTHETA_WORLD"][0] == 0 and found["MAG_AUTO"][0] == 0


@given(st.floats(0.01, 10), st.floats(0.01, 10), st.floats(-0.99, 0.99))
def test_error_ellipses_are_those_of_the_covariance(x: float, y: float, part: float) -> None:
    covariance = np.array([[x * x, part * x * y], [part * x * y, y * y]])
    a, b, theta = (
        float(one[0]) for one in error_ellipses(np.array([x]), np.array([y]), np.array([part * x * y]))
    )
    values, _ = np.linalg.eigh(covariance)
    assert (b * b, a * a) == pytest.approx(tuple(values), rel=1e-9, abs=1e-9)
    along = np.array([np.cos(np.radians(theta)), np.sin(np.radians(theta))])
    assert np.allclose(covariance @ along, a * a * along, atol=1e-7 * a * a)


def test_sources_without_a_shape_are_circles() -> None:
    found = kron_ellipses(
        {"X_PX": np.arange(2.0), "A_PX": np.array([np.nan, 2]), "B_PX": np.array([1.0, 1])}, {}
    )
    assert found.a_px.tolist() == [5, 7] and found.b_px.tolist() == [5, 3.5]


# Heads


def test_swarp_puts_the_frame_where_the_head_says(run: InProcess) -> None:
    swarp = needs("SWarp")
    frame = write_foreign(Path("moved.fits"), cards={"CRVAL1": 150.01, "CD1_2": 2e-5, "CD2_1": 1e-5})
    assert run("import_", "--as", "reduced", frame, "-o", "solved.fits").code == 0
    assert run("export", "--for", "swarp", "reduced.fits", "-o", "x.fits").code == 0
    assert run("export", "--to", "head", "solved.fits", "-o", "x.head").code == 0
    command = [swarp, "x.fits", "-IMAGEOUT_NAME", "c.fits", "-WEIGHTOUT_NAME", "c.w.fits", "-WRITE_XML", "N"]
    subprocess.run([*command, "-SUBTRACT_BACK", "N", "-NTHREADS", "1"], check=True, capture_output=True)
    image = table("c.fits", 0) - 500.0
    sky = wcs_of("moved.fits").all_pix2world(np.array(STARS, float), 1)
    for x, y in wcs_of("c.fits").all_world2pix(sky, 1):
        column, row = round(x) - 1, round(y) - 1
        ys, xs = np.mgrid[row - 5 : row + 6, column - 5 : column + 6]
        box = image[row - 5 : row + 6, column - 5 : column + 6]
        assert abs((box * xs).sum() / box.sum() + 1 - x) < 0.1
        assert abs((box * ys).sum() / box.sum() + 1 - y) < 0.1


def test_the_head_of_a_zero_point_has_the_flux_scale(sky_store: Store, run: InProcess) -> None:
    names = awe("query", "zeropoint", cwd=sky_store.root).split()
    (line, *_) = run("export", "--to", "head", *names, "--out-dir", "out").lines
    record = json.loads(Path(f"{names[0]}.json").read_text())
    cards = dict(re.findall(r"^(\w+) *= *([-+.\dE]+)", Path(line).read_text(), re.MULTILINE))
    zero_point = record["meta"]["zeropoint_mag"] + 2.5 * np.log10(record["meta"]["exptime_s"])
    assert float(cards["FLXSCALE"]) == pytest.approx(10 ** (-0.4 * (zero_point - 30)), rel=1e-6)
    roles = {one["role"]: one["path"] for one in record["recipe"]["inputs"]}
    told, solved = (
        json.loads((Path(names[0]).parent / f"{roles[role]}.json").read_text())["meta"]["wcs"]
        for role in ("sources", "astrom")
    )
    assert float(cards["CRVAL1"]) == solved["CRVAL1"] != told["CRVAL1"]


def test_a_reduced_frame_is_copied_with_its_solution_and_zero_point(sky_store: Store, run: InProcess) -> None:
    (frame,) = awe("query", "reduced", "--limit", "1", cwd=sky_store.root).split()
    own = json.loads(Path(f"{frame}.json").read_text())["meta"]
    same = (f"exposure={own['exposure']}", f"detector={own['detector']}", "--newest")
    (solution,) = awe("query", "astrom", *same, cwd=sky_store.root).split()
    (magnitudes,) = awe("query", "zeropoint", *same, cwd=sky_store.root).split()
    found = {one: json.loads(Path(f"{one}.json").read_text())["meta"] for one in (solution, magnitudes)}
    ran = run("export", "--for", "swarp", frame, "-o", "x.fits")
    assert ran.code == 0 and solution in ran.err and magnitudes in ran.err
    header = headers("x.fits")[0]
    assert header["CRVAL1"] == found[solution]["wcs"]["CRVAL1"] != own["wcs"]["CRVAL1"]
    assert header["PHOT_C"] == pytest.approx(found[magnitudes]["zeropoint_mag"], abs=1e-5)
    assert run("export", "--for", "swarp", "--as-reduced", frame, "-o", "y.fits").err == ""
    header = headers("y.fits")[0]
    assert header["CRVAL1"] == own["wcs"]["CRVAL1"] and "PHOT_C" not in header


def test_the_end_of_the_name_says_the_form(run: InProcess) -> None:
    for name, begin in (("x.csv", "NUMBER,"), ("x.vot", "<?xml"), ("x.reg", "# Region file")):
        assert run("export", "sources.fits", "-o", name).code == 0
        assert Path(name).read_text().startswith(begin)


# What is refused


def test_texts_are_replaced_as_long_as_they_are_ours(run: InProcess) -> None:
    for form in ("ldac", "votable", "ecsv", "regions", "head"):
        name = f"x{FORMS[form].endings[0]}"
        assert run("export", "--to", form, "sources.fits", "-o", name).code == 0
        before = Path(name).read_bytes()
        assert run("export", "--to", form, "sources.fits", "-o", name).code == 0
        assert Path(name).read_bytes() == before
        Path(name).write_bytes(
            before.replace(b"150.0", b"151.0") if form == "head" else before[:-3] + b"#\n\n"
        )
        ran = run("export", "--to", form, "sources.fits", "-o", name)
        assert ran.code == 2 and "--force" in ran.err, form
    assert run("export", "--to", "csv", "sources.fits", "-o", "x.csv").code == 0
    assert run("export", "--to", "csv", "sources.fits", "-o", "x.csv").code == 2, "no place for a mark"
    assert run("export", "--to", "csv", "--force", "sources.fits", "-o", "x.csv").code == 0


def test_what_has_no_such_form_is_refused(run: InProcess, tmp_path: Path) -> None:
    blind = dict.fromkeys(("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD2_2"))
    write_foreign(tmp_path / "blind.fits", cards=blind)
    assert run("import_", "--as", "reduced", "blind.fits", "-o", "b.fits").code == 0
    for arguments, code, said in (
        (("--to", "csv", "reduced.fits", "-o", "x.csv"), 4, "wrong-kind"),
        (("--to", "ldac", "sources.fits", "-o", "x.csv"), 2, "ends in .ldac"),
        (("sources.fits", "-o", "x.fits"), 4, "--to csv"),
        (("--to", "head", "b.fits", "-o", "x.head"), 4, "bad-header"),
    ):
        ran = run("export", *arguments)
        assert ran.code == code and said in ran.err, ran.err
    assert not list(Path().glob("x.*"))


def test_a_table_without_positions_is_no_list_of_sources(reduced_store: Store, run: InProcess) -> None:
    (name, *_) = awe("query", "readnoise", cwd=reduced_store.root).split()
    for form in ("ldac", "regions"):
        ran = run("export", "--to", form, name, "--out-dir", "out")
        assert ran.code == 4 and "wrong-kind" in ran.err
    assert run("export", "--to", "ecsv", name, "--out-dir", "out").code == 0


def wcs_of(path: str) -> Any:
    from astropy.io.fits import Header
    from astropy.wcs import WCS

    cards = headers(path)[0]
    return WCS(Header({key: cards[key] for key in cards if key[:2] in ("CT", "CR", "CD")}))


def headers(path: str | Path) -> list[Any]:
    from astropy.io import fits

    with fits.open(path) as hdus:
        return [hdu.header for hdu in hdus]


def reference_at(path: Path, dec_offset: float) -> None:
    """The true places of the stars as a reference catalogue that SCAMP reads."""
    from astropy.io import fits

    ra, dec = wcs_of("frame.fits").all_pix2world(np.array(STARS, float), 1).T
    n, lines = (
        len(ra),
        [one.ljust(80) for one in ("SIMPLE  =                    T", "BITPIX  =   8", "NAXIS   = 0", "END")],
    )
    columns: Mapping[str, np.ndarray] = {
        "X_WORLD": ra, "Y_WORLD": dec + dec_offset, "ERRA_WORLD": np.full(n, 3e-6), "ERRB_WORLD": np.full(n, 3e-6),
        "ERRTHETA_WORLD": np.zeros(n), "MAG": np.full(n, 18.0), "MAGERR": np.full(n, 0.01), "FLAGS": np.zeros(n),
    }  # fmt: skip
    made = [fits.Column(name, "1I" if name == "FLAGS" else "1D", array=one) for name, one in columns.items()]
    text = fits.Column(
        "Field Header Card", f"{80 * len(lines)}A", array=np.array([lines]), dim=f"(80,{len(lines)})"
    )
    units = [fits.BinTableHDU.from_columns([text], name="LDAC_IMHEAD"),
             fits.BinTableHDU.from_columns(made, name="LDAC_OBJECTS")]  # fmt: skip
    fits.HDUList([fits.PrimaryHDU(), *units]).writeto(path)
