"""What survey images say of themselves is understood: unit, zero point, filter, weight and mask, by header alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from awetools.core.camera_imports import compile_import
from awetools.core.camera_tables import PIPELINES, load_cameras
from awetools.core.errors import BadSettings
from awetools.core.fits import open_fits
from awetools.core.fitsheader import Header
from awetools.core.pixels.foreign import blank_edges, inverse_variance, of_asinh
from awetools.core.pixels.mask import Bit
from awetools.core.products import ProductInput, open_product
from awetools.core.sky.readwcs import read_wcs
from tests.foreign_frames import CARDS, NOISE, SHAPE, STARS, WCS, star_field, write_foreign, write_plane
from tests.support import InProcess

EXPOSURE_S = 100.0
OF_EXPOSURE = 2.5 * math.log10(EXPOSURE_S)
PIXEL_SR = 2.4e-14
HST = {"TELESCOP": "HST", "INSTRUME": "ACS", "PHOTFLAM": 7.07e-20, "PHOTPLAM": 5921.0}
HST_MAG = -2.5 * math.log10(7.07e-20) - 5 * math.log10(5921.0) - 2.408
CASU = {"INSTRUME": "VIRCAM", "MAGZPT": 23.1, "EXTINCT": 0.05, "AMSTART": 1.3, "AMEND": 1.5}
ESO = {"PRODCATG": "SCIENCE.IMAGE", "PHOTZP": 0.0, "INSTRUME": "OMEGACAM"}
DES = {"INSTRUME": "DECam", "MAGZERO": 31.2}
LSST = {"EXTTYPE": "IMAGE"}

# The cards of a pipeline that matter, of what magnitude a pixel of 1 is, and the filter.
PIPELINES_SAY: dict[str, tuple[Mapping[str, object], float, str]] = {
    "legacy viewer": (
        {"SURVEY": "LegacySurvey", "BANDS": "z", "BAND0": "z", "FILTER": None, "EXPTIME": None},
        22.5,
        "z",
    ),
    "legacy brick": ({"BRICK": "1501p022", "IMTYPE": "image", "MAGZERO": 22.5}, 22.5, "r"),
    "sdss": ({"BUNIT": "nanomaggy", "EXPTIME": "53.907456"}, 22.5, "r"),
    "ps1": ({"HIERARCH FPA.ZP": 25.0, "HIERARCH FPA.FILTERID": "i.00000"}, 25 + OF_EXPOSURE, "i"),
    "2mass": ({"ORIGIN": "2MASS", "MAGZP": 20.9, "EXPTIME": None}, 20.9, "r"),
    "unwise": ({"UNW_VER": "1", "MAGZP": 22.5, "BAND": 2, "FILTER": None, "EXPTIME": None}, 22.5, "W2"),
    "wise": ({"TELESCOP": "WISE", "MAGZP": 20.5, "BAND": 1, "FILTER": None, "BUNIT": "DN"}, 20.5, "W1"),
    "hst drizzled": ({**HST, "BUNIT": "ELECTRONS/S"}, HST_MAG, "r"),
    "hst exposure": ({**HST, "BUNIT": "ELECTRONS"}, HST_MAG + OF_EXPOSURE, "r"),
    "jwst": (
        {"TELESCOP": "JWST", "BUNIT": "MJy/sr", "PIXAR_SR": PIXEL_SR, "S_RESAMP": "COMPLETE"},
        -2.5 * math.log10(PIXEL_SR * 1e6 / 3631),
        "r",
    ),
    "ztf": ({"INSTRUME": "ZTF/MOSAIC", "BUNIT": "Data Value", "MAGZP": 26.3}, 26.3, "r"),
    "des exposure": ({**DES, "CCDNUM": 3, "DES_EXT": "IMAGE"}, 31.2, "r"),
    "des tile": ({**DES, "TILENAME": "DES1001+0211", "MAGZERO": 30.0}, 30.0, "r"),
    "megapipe": ({"INSTRUME": "MegaPrime", "PHOTZP": 30.0, "SOFTNAME": "SWarp"}, 30.0, "r"),
    "elixir": (
        {"INSTRUME": "MegaPrime", "PHOT_C": 26.2, "PHOT_K": -0.1, "AIRMASS": 1.5},
        26.15 + OF_EXPOSURE,
        "r",
    ),
    "suprime-cam": ({"INSTRUME": "SuprimeCam", "PHOTZP": 32.23}, 32.23, "r"),
    "eso phase 3": (ESO, 0.0, "r"),
    "casu": (CASU, 23.08 + OF_EXPOSURE, "r"),
    "skymapper": ({"INSTRUME": "SkyMapper", "ZPAPPROX": 28.7}, 28.7, "r"),
    "hsc": ({**LSST, "FLUXMAG0": 63095734448.0194, "EXPTIME": None}, 27.0, "r"),
    "rubin": ({**LSST, "BUNIT": "nJy", "EXPTIME": None}, 31.4, "r"),
    "galex": ({"TELESCOP": "GALEX", "BAND": 1, "FILTER": None}, 20.08, "NUV"),
    "euclid": ({"TELESCOP": "EUCLID", "MAGZERO": 23.9, "BUNIT": "uJy"}, 23.9, "r"),
    "jansky": ({"BUNIT": "Jy"}, 8.9, "r"),
    "millijansky": ({"BUNIT": "mJy"}, 16.4, "r"),
    "maggies": ({"BUNIT": "maggies", "EXPTIME": None}, 0.0, "r"),
}


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    monkeypatch.chdir(tmp_path)
    return InProcess(capfd)


def imported(run: InProcess, *arguments: object) -> ProductInput:
    ran = run("import_", *arguments)
    assert ran.code == 0, ran.err
    return open_product(Path(ran.out.splitlines()[-1]))


def planes_of(product: ProductInput) -> dict[str, np.ndarray]:
    with open_fits(product.path) as fits:
        return {hdu.name: fits.image(hdu.index) for hdu in fits.hdus if hdu.is_image}


def mag_of_one(product: ProductInput, image: np.ndarray) -> float:
    """The magnitude that a pixel of 1 of the foreign image has in the product."""
    ours = planes_of(product)["SCI"].astype(float).sum() / image.astype(float).sum()
    return float(product.meta["zeropoint_mag"] - 2.5 * math.log10(ours / product.meta["exptime_s"]))


@pytest.mark.parametrize(
    ("pipeline", "kind"),
    [(name, ("reduced", "coadd")[number % 2]) for number, name in enumerate(PIPELINES_SAY)],
)
def test_the_magnitude_of_a_pixel_is_what_its_pipeline_says(run: InProcess, kind: str, pipeline: str) -> None:
    cards, mag, band = PIPELINES_SAY[pipeline]
    frame = write_foreign(Path("f.fits"), cards={"BUNIT": None, "EXPTIME": EXPOSURE_S, **cards})
    made = imported(run, "--as", kind, frame, "-o", "p.fits")
    assert mag_of_one(made, star_field()) == pytest.approx(mag, abs=2e-4)
    assert made.meta["filter"] == band


def test_every_pipeline_of_the_table_makes_sense_and_has_a_name() -> None:
    load_cameras().get("generic").check()
    titles = [rule.title for rule in load_cameras().get("generic").imports]
    assert PIPELINES.is_file() and len(titles) > 25
    # The last one is for whatever else.
    assert all(titles[:-1]) and not titles[-1]


def test_the_documentation_names_every_pipeline() -> None:
    page = " ".join((Path(__file__).parents[1] / "docs" / "imports.rst").read_text().split())
    for rule in load_cameras().get("generic").imports:
        assert rule.title.removesuffix(", before 3.5") in page


def test_the_three_bands_of_a_cube_become_products(run: InProcess) -> None:
    bands = [star_field(seed) for seed in range(3)]
    cards: dict[str, object] = {
        "SURVEY": "LegacySurvey",
        "BANDS": "grz",
        "BAND0": "g",
        "BAND1": "r",
        "BAND2": "z",
    }
    plain: dict[str, object] = {"BUNIT": None, "FILTER": None, "EXPTIME": None}
    write_cube(Path("cut.fits"), bands, cards | plain)
    ran = run("import_", "--as", "coadd", "cut.fits", "--out-dir", "in")
    assert ran.code == 0, ran.err
    made = [open_product(Path(f"in/cut_{band}.fits")) for band in "grz"]
    assert [one.meta["filter"] for one in made] == ["g", "r", "z"]
    for image, product in zip(bands, made, strict=True):
        assert mag_of_one(product, image) == pytest.approx(22.5, abs=1e-4)
        assert planes_of(product)["WEIGHT"].mean() == pytest.approx(1 / (NOISE * 1000) ** 2, rel=0.1)
    assert run("import_", "-u", "--as", "coadd", "cut.fits", "--out-dir", "in").err.count("3 up to date") == 1
    told = run("lineage", "--at", "80,90", "in/cut_r.fits")
    assert f"{bands[1][89, 79]:.7g}" in told.out and "cut.fits[0,2]" in told.out


def test_of_a_cube_of_which_nothing_is_told_one_plane_can_be_named(run: InProcess) -> None:
    bands = [star_field(seed) for seed in range(2)]
    write_cube(Path("cube.fits"), bands, {})
    ran = run("import_", "--as", "reduced", "cube.fits", "-o", "p.fits")
    assert ran.code == 4 and "no card says what its planes are" in ran.err and "cube.fits[0,1]" in ran.err
    made = imported(run, "--as", "reduced", "--set", "filter=V", "cube.fits[0,2]", "-o", "p.fits")
    assert made.meta["filter"] == "V" and np.array_equal(planes_of(made)["SCI"], bands[1])
    assert run("import_", "--as", "reduced", "cube.fits[0,3]", "-o", "q.fits").code == 4


def write_cube(path: Path, bands: list[np.ndarray], cards: Mapping[str, object]) -> None:
    """A cube, and its inverse variance behind it, as the viewer of the Legacy Surveys writes them."""
    from astropy.io import fits

    header = fits.Header()
    for key, value in {**CARDS, "IMAGETYP": "IMAGE", **cards}.items():
        if value is not None:
            header[key] = value
    weight = np.full((len(bands), *SHAPE), 1 / NOISE**2, np.float32)
    units = [fits.PrimaryHDU(np.array(bands), header)]
    if "BANDS" in cards:
        units.append(fits.ImageHDU(weight, fits.Header({**dict(header), "IMAGETYP": "INVVAR"})))
    fits.HDUList(units).writeto(path)


def test_pixels_that_are_asinh_magnitudes_become_fluxes_and_so_do_their_variances(run: InProcess) -> None:
    image, soft, offset = star_field(), 40.0, 3.0
    packed = np.arcsinh((image - offset) / (2 * soft)) / (0.4 * math.log(10))
    packed[:10] = np.nan
    assert of_asinh(packed, soft, offset)[20:] == pytest.approx(image[20:], rel=1e-6)
    cards = {"BUNIT": None, "HIERARCH FPA.ZP": 25.0, "BSOFTEN": soft, "BOFFSET": offset}
    write_foreign(Path("s.unconv.fits"), packed.astype(np.float32), cards=cards)
    variance = np.arcsinh(np.full(SHAPE, NOISE**2) / (2 * 70.0)) / (0.4 * math.log(10))
    write_foreign(
        Path("s.unconv.wt.fits"), variance.astype(np.float32), cards={"BSOFTEN": 70.0, "BOFFSET": 0.0}
    )
    mask = np.zeros(SHAPE, np.int16)
    mask[50, 60], mask[51, 60], mask[52, 60] = 32, 256, 128
    write_plane(Path("s.unconv.mask.fits"), mask)
    made = imported(run, "--as", "reduced", "s.unconv.fits", "-o", "p.fits")
    planes = planes_of(made)
    assert planes["SCI"][10:] == pytest.approx(image[10:], rel=1e-4)
    assert planes["WEIGHT"][60:70] == pytest.approx(np.full((10, SHAPE[1]), 1 / NOISE**2), rel=1e-3)
    assert planes["MASK"][50:53, 60].tolist() == [Bit.SATURATED, Bit.COSMIC, 0]
    assert (planes["MASK"][:10] & Bit.OUTSIDE).all() and not planes["WEIGHT"][:10].any()
    before = made.record["recipe_key"]
    write_foreign(Path("s.unconv.fits"), packed.astype(np.float32), cards=cards | {"BSOFTEN": soft + 1})
    assert imported(run, "--as", "reduced", "s.unconv.fits", "-o", "p.fits").record["recipe_key"] != before


def test_a_softening_that_cannot_be_is_refused(run: InProcess) -> None:
    frame = write_foreign(Path("f.fits"), cards={"BSOFTEN": 0.0, "BOFFSET": 0.0})
    assert "BSOFTEN is 0" in run("import_", "--as", "reduced", frame, "-o", "p.fits").err


def test_bits_that_the_mask_names_itself_are_understood(run: InProcess) -> None:
    from astropy.io import fits

    mask = np.zeros(SHAPE, np.int32)
    mask[20, 20], mask[30, 30], mask[40, 40], mask[50, 50] = 1 << 3, 1 << 5, 1 << 9, (1 << 3) | 1
    write_foreign(Path("f.fits"), cards={**LSST, "FLUXMAG0": 6.3e10, "BUNIT": None})
    bits = {"MP_BAD": 0, "MP_SAT": 3, "HIERARCH MP_DETECTED": 5, "HIERARCH MP_NO_DATA": 9, "MP_NEW": 12}
    with fits.open("f.fits", mode="append") as units:
        units.append(fits.ImageHDU(mask, fits.Header(bits), name="MASK"))
        units.append(fits.ImageHDU(np.full(SHAPE, NOISE**2, np.float32), name="VARIANCE"))
    made = imported(run, "--as", "coadd", "f.fits", "-o", "p.fits")
    found = planes_of(made)["MASK"]
    assert [found[at, at] for at in (20, 30, 40, 50)] == [
        Bit.SATURATED,
        0,
        Bit.OUTSIDE,
        Bit.SATURATED | Bit.HOT,
    ]
    assert made.record["quality"]["measures"]["weight_pull_sigma"] == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize(
    ("extension", "plane"),
    [("ERR", NOISE), ("VAR", NOISE**2), ("INVVAR", 1 / NOISE**2), ("WHT", 55.0)],
)
def test_planes_that_are_called_as_everywhere_are_taken(run: InProcess, extension: str, plane: float) -> None:
    frame = write_foreign(Path("f.fits"), planes={extension: np.full(SHAPE, plane, np.float32)})
    made = imported(run, "--as", "reduced", frame, "-o", "p.fits")
    assert [one["role"] for one in made.record["recipe"]["inputs"]] == ["foreign", "weight"]
    assert planes_of(made)["WEIGHT"].mean() == pytest.approx(1 / NOISE**2, rel=0.1)
    named = imported(run, "--as", "reduced", "--weight", extension, frame, "-o", "q.fits")
    assert named.record["recipe_key"] == made.record["recipe_key"]


@pytest.mark.parametrize(
    ("image", "weight", "cards", "plane"),
    [
        ("b-image-r.fits", "b-invvar-r.fits", {"BRICK": "b", "IMTYPE": "image"}, 1 / NOISE**2),
        (
            "u-w1-img-m.fits",
            "u-w1-invvar-m.fits.gz",
            {"UNW_VER": "1", "MAGZP": 22.5, "BAND": 1},
            1 / NOISE**2,
        ),
        ("w-w1-int-3.fits", "w-w1-unc-3.fits", {"TELESCOP": "WISE", "MAGZP": 20.5, "BAND": 1}, NOISE),
        ("k_r_sci.fits", "k_r_wei.fits", ESO, 1 / NOISE**2),
        ("v_st.fit", "v_st_conf.fit", CASU, 100.0),
        ("o.fits", "o.wht.fits", {"BUNIT": "adu"}, 100.0),
        ("m.r.fits", "m.r.weight.fits", {"INSTRUME": "MegaPrime", "PHOTZP": 30.0}, 1 / NOISE**2),
    ],
)
def test_weights_in_files_beside_the_image_are_found(
    run: InProcess, image: str, weight: str, cards: Mapping[str, object], plane: float
) -> None:
    write_foreign(Path(image), cards={"BUNIT": None, **cards})
    write_plane(Path(weight), np.full(SHAPE, plane, np.float32))
    # The name of the weight says that it is none of the images.
    assert "the weight or the mask" in run("import_", "--as", "reduced", weight, "-o", "w.fits").err
    made = imported(run, "--as", "reduced", image, "-o", "p.fits")
    assert [one["role"] for one in made.record["recipe"]["inputs"]] == ["foreign", "weight"]
    unit = planes_of(made)["SCI"][5, 5] / star_field()[5, 5]
    assert planes_of(made)["WEIGHT"].mean() == pytest.approx(1 / (NOISE * unit) ** 2, rel=0.1)


def test_zeros_that_packing_has_blurred_are_still_no_weight() -> None:
    plane = np.full((40, 40), 2.0, np.float32)
    plane[:5] = -1e-7
    assert not inverse_variance(plane, "weight")[:5].any()
    plane[:5] = -1e-3
    with pytest.raises(Exception, match="200 negative values"):
        inverse_variance(plane, "weight")


def test_blank_edges_are_outside_where_no_weight_says_so(run: InProcess) -> None:
    image = star_field()
    image[:12], image[:, 170:], image[80, 90] = 0, 0, 0
    made = imported(run, "--as", "reduced", write_foreign(Path("f.fits"), image), "-o", "p.fits")
    planes = planes_of(made)
    outside = (planes["MASK"] & Bit.OUTSIDE) > 0
    assert outside[:12].all() and outside[:, 170:].all() and outside.sum() == 12 * 176 + 148 * 6
    assert not planes["WEIGHT"][outside].any() and planes["WEIGHT"][~outside].all()
    assert made.record["quality"]["measures"]["sky_rms_adu"] == pytest.approx(NOISE, rel=0.1)
    # No counts are no edge, and a weight knows better.
    for rate in (0.01, 0.05, 0.7):
        rare = np.random.default_rng(1).poisson(rate, SHAPE).astype(np.float32)
        assert not blank_edges(rare).any()
    plane = np.full(SHAPE, 1 / NOISE**2, np.float32)
    frame = write_foreign(Path("w.fits"), image, {"WEIGHT": plane})
    assert not planes_of(imported(run, "--as", "reduced", frame, "-o", "q.fits"))["MASK"].any()


def test_a_unit_that_is_left_to_guess_is_asked_for_with_what_the_header_has(run: InProcess) -> None:
    frame = write_foreign(Path("f.fits"), cards={"BUNIT": None, "MAGZERO": 27.5})
    ran = run("import_", "--as", "reduced", frame, "-o", "p.fits")
    assert ran.code == 4 and "MAGZERO = 27.5" in ran.err and "--unit flux --zero-point MAG" in ran.err
    ran = run("import_", "--as", "reduced", "--unit", "flux", frame, "-o", "p.fits")
    assert ran.code == 4 and "--zero-point MAG" in ran.err
    made = imported(run, "--as", "coadd", "--unit", "flux", "--zero-point", "27.5", frame, "-o", "p.fits")
    assert mag_of_one(made, star_field()) == pytest.approx(27.5, abs=1e-4)


def test_a_zero_point_of_which_nothing_tells_whose_it_is_is_named_and_not_taken(run: InProcess) -> None:
    frame = write_foreign(Path("f.fits"), cards={"MAGZERO": 27.5})
    ran = run("import_", "--as", "reduced", frame, "-o", "p.fits")
    assert ran.code == 0 and "no zero point: MAGZERO = 27.5" in ran.err
    assert open_product(Path("p.fits")).meta.get("zeropoint_mag") is None
    # Where it is known, nothing is to be said.
    known = write_foreign(Path("k.fits"), cards={"BUNIT": None, "BRICK": "b", "IMTYPE": "i", "MAGZERO": 22.5})
    assert "zero point" not in run("import_", "--as", "reduced", known, "-o", "q.fits").err


def test_a_matrix_in_the_keywords_of_the_draft_standard_is_read(run: InProcess) -> None:
    draft = {
        "PC001001": -1.0,
        "PC001002": 0.0,
        "PC002001": 0.0,
        "PC002002": 1.0,
        "CDELT1": 1e-4,
        "CDELT2": 1e-4,
    }
    none: dict[str, object] = {key: None for key in WCS if key.startswith("CD")}
    made = imported(run, "--as", "reduced", write_foreign(Path("f.fits"), cards=none | draft), "-o", "p.fits")
    usual = imported(run, "--as", "reduced", write_foreign(Path("u.fits")), "-o", "q.fits")
    places = [np.array(read_wcs(one.meta["wcs"]).to_sky(20.0, 130.0)) for one in (made, usual)]
    assert places[0] == pytest.approx(places[1], abs=1e-9)


def test_shifted_stamps_of_a_stack_coadd_to_their_own_magnitudes(run: InProcess) -> None:
    # All have the date of the stack: it is the file that tells them apart.
    stack = {"BRICK": "1501p022", "BUNIT": None, "IMTYPE": "image", "EXPTIME": None}
    for number, (dx, dy) in enumerate([(0, 0), (7, -5), (-6, 8)]):
        image = np.roll(star_field(seed=number), (dy, dx), axis=(0, 1)) - 500
        cards = {**stack, "CRPIX1": 88.0 + dx, "CRPIX2": 80.0 + dy}
        write_foreign(Path(f"s{number}-image-r.fits"), image, cards=cards)
        write_plane(Path(f"s{number}-invvar-r.fits"), np.full(SHAPE, 1 / NOISE**2, np.float32))
        imported(run, "--as", "reduced", f"s{number}-image-r.fits", "-o", f"s{number}.fits")
    grid = "TAN 150 2 0.36 176x160 88,80 0"
    made = run("coadd", "--no-astrom", "--grid", grid, "-o", "c.fits", *(f"s{one}.fits" for one in range(3)))
    assert made.code == 0, made.err
    assert open_product(Path("c.fits")).record["quality"]["measures"]["frames"] == 3
    sky = planes_of(open_product(Path("c.fits")))["SCI"]
    y, x = np.mgrid[1 : SHAPE[0] + 1, 1 : SHAPE[1] + 1]
    inner = [(cx, cy) for cx, cy in STARS if 40 < cx < 140 and 40 < cy < 130]
    fluxes = [sky[(x - cx) ** 2 + (y - cy) ** 2 < 64].sum() / 1000 for cx, cy in inner]
    assert len(fluxes) >= 4 and fluxes == pytest.approx([60000.0] * len(fluxes), rel=0.01)


def test_zero_points_tell_of_clouds_among_frames_of_one_camera_alone(run: InProcess) -> None:
    brick = {"BRICK": "b", "BUNIT": None, "IMTYPE": "image", "EXPTIME": None}
    for number in (0, 1, 2):
        flux = (star_field(number) * 1e-3).astype(np.float32)
        frame = write_foreign(Path(f"b{number}-image-r.fits"), flux, cards=brick)
        imported(run, "--as", "reduced", frame, "-o", f"p{number}.fits")
    # 2.5 mag brighter in its own counts, and the same stars.
    for number, (mag, factor) in enumerate([(25.0, 1.0), (25.0, 1.0), (23.5, 10**-0.6)], 3):
        counts = star_field(number) * 1e-3 * 10 ** (0.4 * (25 - 22.5)) * EXPOSURE_S * factor
        cards = {"DATE-OBS": f"2024-03-0{number}T23:10:00"}
        frame = write_foreign(Path(f"f{number}.fits"), counts.astype(np.float32), cards=cards)
        imported(run, "--as", "reduced", "--zero-point", f"{mag}", frame, "-o", f"p{number}.fits")
    names = [f"p{number}.fits" for number in range(6)]
    ran = run("coadd", "--no-astrom", "--grid", "TAN 150 2 0.36 176x160 88,80 0", "-o", "c.fits", *names)
    assert ran.code == 0, ran.err
    assert ran.err.count("left out") == 1 and "left out p5.fits" in ran.err
    assert "1.50 mag below the median of those of its camera" in ran.err
    assert open_product(Path("c.fits")).record["quality"]["measures"]["frames"] == 5


def test_a_coadd_is_refused_as_a_frame_with_the_way_to_make_it_one(run: InProcess) -> None:
    frame = write_foreign(Path("it's.fits"))
    imported(run, "--as", "coadd", frame, "-o", "p.fits")
    ran = run("coadd", "--no-astrom", "--grid", "auto", "-o", "c.fits", "p.fits")
    assert ran.code == 4 and """awe-import --as reduced 'it'"'"'s.fits'""" in ran.err


def test_frames_of_one_name_are_not_coadded_as_if_they_lay_in_one_place(run: InProcess) -> None:
    for number, shift in enumerate((0, 20)):
        frame = write_foreign(Path(f"f{number}.fits"), cards={"CRPIX1": 88.0 + shift})
        imported(run, "--as", "reduced", "--zero-point", "25", frame, "-o", f"p{number}.fits")
    arguments = ("--no-astrom", "--grid", "auto", "-o", "c.fits", "p0.fits", "p1.fits")
    ran = run("coadd", *arguments)
    assert ran.code == 4 and "same instrument, detector and exposure" in ran.err
    assert "--set exposure=NAME" in ran.err and not Path("c.fits").exists()
    imported(
        run, "--as", "reduced", "--set", "exposure=two", "--zero-point", "25", "f1.fits", "-o", "p1.fits"
    )
    assert run("coadd", *arguments).code == 0


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"weight": {"type": "rms"}}, "one of extension, when, match and take"),
        ({"weight": {"extension": "A", "type": "sigma"}}, "'sigma' is none of"),
        ({"weight": {"when": "A ="}}, "weight: when"),
        ({"mask_planes": {"SAT": "saturated"}}, "prefix is needed"),
        ({"mask_planes": {"prefix": "MP_", "SAT": "satured"}}, "saturated"),
        ({"unused": [1]}, "unused"),
        ({"plane_filter": 1}, "plane_filter"),
        ({"zero_point_mag": {"card": "F", "form": "flux"}}, "flux_of_mag_0"),
    ],
)
def test_a_mistake_in_a_rule_is_named(rule: dict[str, object], words: str) -> None:
    with pytest.raises(BadSettings, match=words):
        compile_import(rule, "table")


def test_bits_beyond_a_mask_and_other_cards_name_nothing() -> None:
    rule = compile_import({"mask_planes": {"prefix": "MP_", "SAT": "saturated"}}, "table")
    header = Header.from_pairs([("MP_SAT", 2), ("MP_FAR", 80), ("MP_TEXT", "x"), ("OTHER", 1)])
    assert rule.bits_of(header) == "4:saturated"
