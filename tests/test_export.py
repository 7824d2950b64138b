"""awe-export: copies that other programs read, with the same stars, flags and coordinates."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awetools.core.distortion import sip_as_tpv
from awetools.core.errors import BadHeader
from awetools.core.products import open_product
from awetools.core.store import Store
from tests.foreign_frames import CARDS, FLUX, NOISE, SHAPE, STARS, star_field, write_foreign
from tests.support import InProcess, awe, data_path, write_raw

SIP: dict[str, object] = {
    "CTYPE1": "RA---TAN-SIP",
    "CTYPE2": "DEC--TAN-SIP",
    "CD1_2": 2e-5,
    "CD2_1": 1e-5,
    "A_ORDER": 3,
    "B_ORDER": 3,
    "A_2_0": 2e-5,
    "A_1_1": -1e-5,
    "A_0_2": 4e-6,
    "A_2_1": 3e-8,
    "A_0_3": -2e-8,
    "B_2_0": -6e-6,
    "B_1_1": 2e-5,
    "B_0_2": 1e-5,
    "B_3_0": 1e-8,
    "B_0_3": 5e-8,
}


def needs(name: str) -> str:
    """The path of a program; skips the test, naming it, where it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    monkeypatch.chdir(tmp_path)
    return InProcess(capfd)


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("product")
    mask = np.zeros(SHAPE, np.int16)
    (x, y), (u, v) = STARS[0], STARS[1]
    mask[y - 2 : y + 1, x - 2 : x + 1], mask[v - 2 : v + 1, u - 2 : u + 1] = 16, 2
    planes = {"WEIGHT": np.full(SHAPE, 1 / NOISE**2, np.float32), "DQ": mask}
    cards = {"EGAIN": 1.5, "SATURATE": 50000.0}
    frame = write_foreign(folder / "frame.fits", planes=planes, cards=cards)
    out = folder / "product.fits"
    bits = "2:saturated,16:cosmic"
    awe(
        "import", "--as", "reduced", "--mask", "DQ", "--mask-bits", bits, "--zero-point", 25, frame, "-o", out
    )
    return out


@pytest.fixture
def product(_made: Path, tmp_path: Path) -> Path:
    """A star field as a product, with a star under a cosmic ray and a saturated one."""
    shutil.copy2(_made.with_name("product.fits.json"), tmp_path)
    return Path(shutil.copy2(_made, tmp_path))


def headers(path: Path) -> list[Any]:
    from astropy.io import fits

    with fits.open(path, checksum=True) as hdus:
        return [hdu.header for hdu in hdus]


def data(path: Path, which: int | str = 0) -> np.ndarray:
    from astropy.io import fits

    with fits.open(path) as hdus:
        return np.array(hdus[which].data)


# What is written


def test_image_weight_and_flags_lie_side_by_side(run: InProcess, product: Path) -> None:
    ran = run("export", "-v", product, "-o", "x.fits", "--head")
    assert ran.code == 0 and ran.lines == ["x.fits"]
    assert "-WEIGHT_IMAGE x.weight.fits" in ran.err and "-FLAG_IMAGE x.flag.fits" in ran.err
    header = headers(Path("x.fits"))[0]
    key = open_product(product).key
    assert header["AWEKEY"] == key and "AWEKIND" not in header and key[:30] in str(header["HISTORY"])
    assert (header["GAIN"], header["SATURATE"], header["EXPTIME"]) == (1.5, 50000.0, 100.0)
    assert (header["PHOT_C"], header["MAGZERO"]) == (25.0, 30.0)
    assert header["FLXSCALE"] == pytest.approx(1)
    assert np.array_equal(data(Path("x.fits")), data(product))
    assert np.array_equal(data(Path("x.weight.fits")), data(product, "WEIGHT"))
    flags = data(Path("x.flag.fits"))
    assert flags.dtype == ">i2" and np.array_equal(flags, data(product, "MASK"))
    for path in ("x.weight.fits", "x.flag.fits"):
        assert headers(Path(path))[0]["CRVAL1"] == 150.0
    lines = Path("x.head").read_text().splitlines()
    assert lines[-1] == "END" and any(line.startswith("FLXSCALE=") for line in lines)
    assert not Path("x.fits.json").exists()


def test_flags_of_32_bits_and_json(run: InProcess, product: Path) -> None:
    ran = run("export", "--json", "--flag-bits", 32, product, "--out-dir", "out")
    about = json.loads(ran.out)
    assert about["files"] == ["out/product.fits", "out/product.weight.fits", "out/product.flag.fits"]
    assert about["of"] == [str(product)]
    assert data(Path("out/product.flag.fits")).dtype == ">i4"


def test_ds9_gets_one_file_with_every_plane(run: InProcess, product: Path) -> None:
    assert run("export", "--for", "ds9", product, "-o", "x.fits").code == 0
    found = headers(Path("x.fits"))
    assert [header.get("EXTNAME") for header in found] == ["SCI", "WEIGHT", "MASK"]
    assert all(header["CRPIX1"] == 88 for header in found)
    assert not list(Path().glob("x.*.fits"))


def test_detectors_of_an_exposure_become_extensions(reduced_store: Store, run: InProcess) -> None:
    names = awe("query", "reduced", "filter=R", cwd=reduced_store.root).split()
    ran = run("export", "--mef", *names, "--out-dir", "mef", "-j2")
    assert ran.code == 0 and len(ran.lines) == len(names) / 2, ran.err
    for line in ran.lines:
        primary, *others = headers(Path(line))
        assert primary["NAXIS"] == 0 and primary["FILTER"] == "R" and "DETECTOR" not in primary
        assert [one["EXTNAME"] for one in others] == ["sim1", "sim2"]
        assert others[0]["CRPIX1"] != others[1]["CRPIX1"] and others[0]["AWEKEY"] != others[1]["AWEKEY"]
        assert len(headers(Path(line).with_suffix(".weight.fits"))) == 3
    ran = run("export", "--mef", *names, "-o", "one.fits")
    assert ran.code == 2 and "--out-dir" in ran.err


def test_the_same_product_gives_the_same_bytes(run: InProcess, product: Path) -> None:
    run("export", product, "-o", "x.fits", "--head")
    before = {path.name: path.read_bytes() for path in Path().glob("x.*")}
    assert len(before) == 4
    assert run("export", product, "-o", "x.fits", "--head").code == 0
    assert {path.name: path.read_bytes() for path in Path().glob("x.*")} == before


def test_ds9_tells_the_planes_of_several_detectors_apart(reduced_store: Store, run: InProcess) -> None:
    names = awe("query", "reduced", "filter=R", cwd=reduced_store.root).split()
    [first, *_] = run("export", "--mef", "--for", "ds9", *names, "--out-dir", "ds9").lines
    found = [header["EXTNAME"] for header in headers(Path(first))[1:]]
    assert found == [f"sim{n}_{plane}" for n in (1, 2) for plane in ("SCI", "WEIGHT", "MASK")]


# What is refused


@pytest.mark.parametrize("name", ["x.fits.gz", "x.fits.fz", "x", "", ".", "/"])
def test_a_copy_is_plain_fits_by_its_name(run: InProcess, product: Path, name: str) -> None:
    before = set(Path().iterdir())
    ran = run("export", product, "-o", name)
    assert ran.code == 2 and ran.out == "" and set(Path().iterdir()) == before


def test_a_name_that_is_too_long_is_told_with_the_file(run: InProcess, product: Path) -> None:
    ran = run("export", product, "-o", "x" * 240 + ".fits")
    assert ran.code == 7 and f"{product}: " in ran.err and ".part" not in ran.err


def test_the_command_that_reads_a_copy_can_be_pasted(run: InProcess, product: Path) -> None:
    said = run("export", "-v", product, "-o", "it's mine.fits").err
    words = shlex.split(said.split("awe-export: ")[1])
    assert words[0] == "source-extractor" and all(
        Path(word).is_file() for word in words if word.endswith(".fits")
    )


def test_the_detector_that_is_there_twice_is_named(reduced_store: Store, run: InProcess) -> None:
    other, one = (
        awe("query", "reduced", "filter=R", f"detector={name}", cwd=reduced_store.root).split()[0]
        for name in ("sim1", "sim2")
    )
    shutil.copy2(one, "again.fits")
    shutil.copy2(f"{one}.json", "again.fits.json")
    ran = run("export", "--mef", other, one, "again.fits", "--out-dir", "mef")
    assert ran.code == 4 and f"detector sim2 is given more than once: {one}, again.fits" in ran.err


def test_files_of_others_are_left_alone(run: InProcess, product: Path) -> None:
    Path("x.weight.fits").write_text("mine")
    ran = run("export", product, "-o", "x.fits")
    assert ran.code == 2 and "would-overwrite" in ran.err and "x.weight.fits" in ran.err
    assert Path("x.weight.fits").read_text() == "mine" and not Path("x.fits").exists()
    assert run("export", product, "-o", "x.fits", "--force").code == 0


def test_a_copy_that_was_edited_is_left_alone(run: InProcess, product: Path) -> None:
    run("export", product, "-o", "x.fits", "--head")
    content = bytearray(Path("x.fits").read_bytes())
    content[-3000] ^= 1
    Path("x.fits").write_bytes(content)
    assert "was edited" in run("export", product, "-o", "x.fits").err
    run("export", product, "-o", "x.fits", "--force")
    with Path("x.head").open("a") as stream:
        stream.write("COMMENT mine\n")
    assert run("export", product, "-o", "x.fits", "--head").code == 2
    assert run("export", product, "-o", "x.fits").code == 0


def test_a_product_is_never_replaced(run: InProcess, product: Path) -> None:
    before = product.read_bytes()
    ran = run("export", "--force", product, "-o", product)
    assert ran.code == 2 and "is a product" in ran.err and product.read_bytes() == before


def test_what_is_no_image_of_the_sky_is_refused(reduced_store: Store, run: InProcess, tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw.fits", np.zeros((8, 8), np.uint16))
    assert "wrong-kind" in run("export", raw, "-o", "x.fits").err
    table = awe("query", "readnoise", cwd=reduced_store.root).split()[0]
    assert "no-image" in run("export", table, "-o", "x.fits").err
    mask = awe("query", "hotpix", cwd=reduced_store.root).split()[0]
    assert "no-image" in run("export", mask, "-o", "x.fits").err
    assert run("export", "--for", "ds9", mask, "-o", "x.fits").code == 0
    ran = run(
        "export", raw, mask, awe("query", "bias", cwd=reduced_store.root).split()[0], "--out-dir", "out"
    )
    assert ran.code == 4 and len(ran.lines) == 1


# Distortion


def only_wcs(cards: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in cards.items() if key[:2] in ("CT", "CR", "CD", "A_", "B_")}


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 400), st.integers(0, 400))
def test_sip_as_tpv_leads_to_the_same_place(x: int, y: int) -> None:
    from astropy.io.fits import Header
    from astropy.wcs import WCS

    cards = only_wcs({**CARDS, **SIP})
    made = sip_as_tpv(cards)  # type: ignore[arg-type]
    assert made["CTYPE1"] == "RA---TPV" and not any(key.startswith(("A_", "B_")) for key in made)
    here = WCS(Header(cards)).all_pix2world(x, y, 1)
    there = WCS(Header(made)).all_pix2world(x, y, 1)
    assert np.allclose(here, there, rtol=0, atol=1e-11)


def test_distortions_that_tpv_cannot_say_are_refused() -> None:
    plain = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CD1_1": 1.0, "CD2_2": 1.0}
    assert sip_as_tpv(plain) == plain
    with pytest.raises(BadHeader, match="degree 7"):
        sip_as_tpv({**plain, "A_8_0": 1e-9})
    with pytest.raises(BadHeader, match="ZPN"):
        sip_as_tpv({**plain, "CTYPE1": "RA---ZPN", "A_2_0": 1e-9})


# The programs


def extracted(image: str, *options: str, parameters: str) -> Any:
    """The catalogue that source-extractor makes of an exported image."""
    from astropy.io import fits

    Path("default.param").write_text(parameters.replace(" ", "\n") + "\n")
    command = [needs("source-extractor"), image, "-CATALOG_TYPE", "FITS_LDAC", "-CATALOG_NAME", "x.cat"]
    command += ["-PARAMETERS_NAME", "default.param", "-FILTER", "N", "-VERBOSE_TYPE", "QUIET", *options]
    subprocess.run(command, check=True, capture_output=True)
    with fits.open("x.cat") as hdus:
        return hdus["LDAC_OBJECTS"].data.copy()


def test_source_extractor_reads_weights_and_flags(run: InProcess, product: Path) -> None:
    needs("source-extractor")
    run("export", product, "-o", "x.fits")
    weighted = ("-WEIGHT_TYPE", "MAP_WEIGHT", "-WEIGHT_IMAGE", "x.weight.fits", "-FLAG_IMAGE", "x.flag.fits")
    apertures = ("-PHOT_APERTURES", "16", "-DETECT_THRESH", "5", "-MAG_ZEROPOINT", "30")
    columns = "X_IMAGE Y_IMAGE FLUX_APER(1) MAG_APER(1) IMAFLAGS_ISO(1) FLAGS"
    found = extracted("x.fits", *weighted, *apertures, parameters=columns)
    clean = 0
    for place, (x, y) in enumerate(STARS):
        near = found[np.hypot(found["X_IMAGE"] - x, found["Y_IMAGE"] - y) < 4]
        if place < 2:
            continue
        assert len(near) == 1 and near["IMAFLAGS_ISO"][0] == 0
        assert near["FLUX_APER"][0] == pytest.approx(FLUX, rel=0.02)
        clean += 1
    assert clean == len(STARS) - 2
    # Without the weights the two masked stars are found, with the bits of our mask.
    flagged = extracted("x.fits", "-FLAG_IMAGE", "x.flag.fits", *apertures, parameters=columns)
    for (x, y), bit in zip(STARS, (8, 4), strict=False):
        near = flagged[np.hypot(flagged["X_IMAGE"] - x, flagged["Y_IMAGE"] - y) < 2]
        assert near["IMAFLAGS_ISO"].tolist() == [bit]
        assert near["MAG_APER"][0] == pytest.approx(30 - 2.5 * np.log10(FLUX), abs=0.03)


def test_swarp_puts_distorted_frames_in_place(run: InProcess, tmp_path: Path) -> None:
    from astropy.io import fits
    from astropy.wcs import WCS

    swarp = needs("SWarp")
    frame = write_foreign(tmp_path / "sip.fits", cards=SIP)
    awe("import", "--as", "reduced", frame, "-o", tmp_path / "p.fits")
    run("export", "--for", "swarp", tmp_path / "p.fits", "-o", "x.fits")
    assert headers(Path("x.fits"))[0]["CTYPE1"] == "RA---TPV"
    command = [swarp, "x.fits", "-WEIGHT_TYPE", "MAP_WEIGHT", "-WEIGHT_IMAGE", "x.weight.fits"]
    command += ["-IMAGEOUT_NAME", "c.fits", "-WEIGHTOUT_NAME", "c.weight.fits", "-VERBOSE_TYPE", "QUIET"]
    subprocess.run([*command, "-SUBTRACT_BACK", "N", "-NTHREADS", "1"], check=True, capture_output=True)
    with fits.open(frame) as hdus, fits.open("c.fits") as coadd:
        sky = WCS(fits.Header(only_wcs(hdus[0].header))).all_pix2world(np.array(STARS, float), 1)
        image = coadd[0].data - np.median(coadd[0].data)
        expected = WCS(fits.Header(only_wcs(coadd[0].header))).all_world2pix(sky, 1)
    for x, y in expected:
        column, row = round(x) - 1, round(y) - 1
        box = image[row - 5 : row + 6, column - 5 : column + 6]
        ys, xs = np.mgrid[row - 5 : row + 6, column - 5 : column + 6]
        assert abs((box * xs).sum() / box.sum() + 1 - x) < 0.1
        assert abs((box * ys).sum() / box.sum() + 1 - y) < 0.1
    # What SWarp made comes back as a coadd.
    assert run("import_", "--as", "coadd", "c.fits", "-o", tmp_path / "coadd.fits").code == 4
    awe("import", "--as", "coadd", "--unit", "adu/s", "c.fits", "-o", tmp_path / "coadd.fits")
    record = json.loads((tmp_path / "coadd.fits.json").read_text())
    assert [one["role"] for one in record["recipe"]["inputs"]] == ["foreign", "weight"]
    assert record["meta"]["nx"] == image.shape[1]


QUIET = ("-VERBOSE_TYPE", "QUIET", "-WRITE_XML", "N", "-CHECKPLOT_TYPE", "NONE", "-NTHREADS", "1")


def test_psfex_reads_the_stars_of_an_exported_image(run: InProcess, product: Path) -> None:
    from astropy.io import fits

    psfex = needs("psfex")
    run("export", "--for", "psfex", product, "-o", "x.fits")
    columns = (
        "VIGNET(21,21) X_IMAGE Y_IMAGE FLUX_RADIUS FLUX_APER(1) FLUXERR_APER(1) ELONGATION FLAGS SNR_WIN"
    )
    weighted = ("-WEIGHT_TYPE", "MAP_WEIGHT", "-WEIGHT_IMAGE", "x.weight.fits", "-PHOT_APERTURES", "16")
    extracted("x.fits", *weighted, parameters=columns)
    command = [psfex, "x.cat", *QUIET, "-CHECKIMAGE_TYPE", "NONE"]
    subprocess.run(command, check=True, capture_output=True)
    with fits.open("x.psf") as hdus:
        assert hdus[1].header["PSF_FWHM"] == pytest.approx(2.3548 * 2.0, rel=0.05)


def test_scamp_solves_the_stars_of_an_exported_image(run: InProcess, product: Path) -> None:
    scamp = needs("scamp")
    run("export", "--for", "scamp", product, "-o", "x.fits")
    weighted = ("-WEIGHT_TYPE", "MAP_WEIGHT", "-WEIGHT_IMAGE", "x.weight.fits")
    reference = "X_WORLD Y_WORLD ERRA_WORLD ERRB_WORLD ERRTHETA_WORLD MAG_AUTO MAGERR_AUTO FLAGS"
    extracted("x.fits", *weighted, parameters=reference)
    Path("x.cat").rename("reference.cat")
    columns = "XWIN_IMAGE YWIN_IMAGE ERRAWIN_IMAGE ERRBWIN_IMAGE ERRTHETAWIN_IMAGE"
    columns += " FLUX_AUTO FLUXERR_AUTO FLUX_RADIUS ELONGATION FLAGS"
    extracted("x.fits", *weighted, parameters=columns)
    command = [scamp, "x.cat", "-ASTREF_CATALOG", "FILE", "-ASTREFCAT_NAME", "reference.cat"]
    command += ["-ASTREFMAG_KEY", "MAG_AUTO", "-ASTREFMAGERR_KEY", "MAGERR_AUTO", *QUIET]
    subprocess.run(command, check=True, capture_output=True)
    solved = dict(line.split("=")[:2] for line in Path("x.head").read_text().splitlines() if "=" in line)
    values = {key.strip(): text.split("/")[0] for key, text in solved.items()}
    assert float(values["CRVAL1"]) == pytest.approx(150, abs=1e-5)
    assert float(values["CRVAL2"]) == pytest.approx(2, abs=1e-5)
    # What SCAMP wrote is not ours to replace.
    assert run("export", "--head", product, "-o", "x.fits").code == 2


def test_a_community_stamp_goes_through_source_extractor(run: InProcess) -> None:
    needs("source-extractor")
    frame = next(iter(data_path("legacysurvey-cutouts").glob("virgo*/c4d_170316*_ooi_*")))
    assert run("import_", "--as", "reduced", frame, "-o", "p.fits").code == 0
    assert run("export", "p.fits", "-o", "x.fits").code == 0
    weighted = ("-WEIGHT_TYPE", "MAP_WEIGHT", "-WEIGHT_IMAGE", "x.weight.fits", "-FLAG_IMAGE", "x.flag.fits")
    found = extracted("x.fits", *weighted, parameters="ALPHA_J2000 DELTA_J2000 FLUX_AUTO IMAFLAGS_ISO(1)")
    assert len(found) > 10 and abs(np.median(found["ALPHA_J2000"]) - 186.744) < 0.02


def test_the_star_field_is_what_the_tests_take_it_for() -> None:
    assert star_field().shape == SHAPE and len(STARS) == 25
