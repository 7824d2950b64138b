"""awe-import: what other pipelines made becomes products of the right numbers, or a clear error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from awetools.core.camera_imports import compile_import, mapping_of
from awetools.core.errors import BadPixels, BadSettings
from awetools.core.fits import open_fits
from awetools.core.frame import Frame, Table
from awetools.core.kinds.foreign import ImportParams, import_coadd, import_reduced
from awetools.core.kinds.foreignlist import SourcesParams, import_sources
from awetools.core.pixels.foreign import inverse_variance, mapped_mask
from awetools.core.pixels.mask import Bit
from awetools.core.products import open_product
from awetools.core.store import init_store
from tests.foreign_frames import CARDS, NOISE, SHAPE, SKY, STARS, star_field, write_foreign, write_plane
from tests.support import InProcess, Ran, awe, data_path, write_raw
from tests.test_schema import PRODUCT, problems

WEIGHTS = {
    "weight": lambda variance: 1 / variance,
    "variance": lambda variance: variance,
    "rms": np.sqrt,
}


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    monkeypatch.chdir(tmp_path)
    return InProcess(capfd)


def imported(run: InProcess, *arguments: object) -> Path:
    ran = run("import_", *arguments)
    assert ran.code == 0, ran.err
    return Path(ran.out.splitlines()[-1])


def refused(ran: Ran, slug: str, *words: str) -> None:
    assert f"awe-import: {slug}: " in ran.err, ran.err
    assert ran.code in (2, 4) and ran.out == ""
    for word in words:
        assert word in ran.err, ran.err


def planes_of(path: Path) -> dict[str, np.ndarray]:
    with open_fits(path) as fits:
        return {hdu.name: fits.image(hdu.index) for hdu in fits.hdus if hdu.is_image}


def record_of(path: Path) -> dict[str, Any]:
    return json.loads(path.with_name(path.name + ".json").read_text())


def variance() -> np.ndarray:
    """That of the frame, 2% more from left to right."""
    return np.broadcast_to(NOISE**2 * np.linspace(0.99, 1.01, SHAPE[1]), SHAPE).astype(np.float32)


# Weights


@pytest.mark.parametrize("convention", WEIGHTS)
def test_every_convention_gives_the_same_weights(run: InProcess, tmp_path: Path, convention: str) -> None:
    frame = write_foreign(tmp_path / "f.fits", planes={"W": WEIGHTS[convention](variance())})
    path = imported(
        run, "--as", "reduced", "--weight", "W", "--weight-type", convention, frame, "-o", "p.fits"
    )
    weight = planes_of(path)["WEIGHT"]
    assert np.allclose(weight, 1 / variance(), rtol=1e-5)
    assert record_of(path)["quality"]["measures"]["weight_pull_sigma"] == pytest.approx(1, abs=0.06)


def test_relative_weights_are_scaled_to_the_noise_and_that_is_said(run: InProcess, tmp_path: Path) -> None:
    frame = write_foreign(tmp_path / "f.fits", planes={"W": 4e3 / variance()})
    arguments = ("--as", "reduced", "--weight", "W", "--weight-type", "relative", frame, "-o", "p.fits")
    ran = run("import_", *arguments)
    assert "scaled by" in ran.err
    assert np.allclose(planes_of(Path("p.fits"))["WEIGHT"], 1 / variance(), rtol=0.1)
    assert "scaled by" in record_of(Path("p.fits"))["recipe"]["instead"]["weight"]


def test_without_weights_the_noise_gives_one(run: InProcess, tmp_path: Path) -> None:
    path = imported(run, "--as", "reduced", write_foreign(tmp_path / "f.fits"), "-o", "p.fits")
    weight = planes_of(path)["WEIGHT"]
    assert weight.min() == weight.max() == pytest.approx(1 / NOISE**2, rel=0.1)
    assert record_of(path)["recipe"]["without"] == ["weight", "mask"]


@pytest.mark.parametrize("true", WEIGHTS)
@pytest.mark.parametrize("said", WEIGHTS)
def test_a_wrong_convention_is_refused_and_the_right_one_named(
    run: InProcess, tmp_path: Path, true: str, said: str
) -> None:
    if true == said:
        return
    frame = write_foreign(tmp_path / "f.fits", planes={"W": WEIGHTS[true](variance())})
    ran = run("import_", "--as", "reduced", "--weight", "W", "--weight-type", said, frame, "-o", "p.fits")
    refused(ran, "bad-pixels", f"read as {said}", f"--weight-type {true}")
    assert not Path("p.fits").exists()


def test_a_wrong_convention_is_told_in_counts_a_second_too(run: InProcess, tmp_path: Path) -> None:
    frame = write_foreign(
        tmp_path / "f.fits", star_field() / 100, {"W": variance() / 1e4}, {"BUNIT": "counts/s"}
    )
    refused(
        run("import_", "--as", "reduced", frame, "--weight", "W", "-o", "p.fits"), "bad-pixels", "variance"
    )


def test_weights_that_are_not_numbers_are_no_weight(run: InProcess, tmp_path: Path) -> None:
    plane = 1 / variance()
    plane[10, 20], plane[30, 40] = np.nan, np.inf
    frame = write_foreign(tmp_path / "f.fits", planes={"WEIGHT": plane})
    path = imported(run, "--as", "reduced", frame, "-o", "p.fits")
    planes = planes_of(path)
    masked = np.argwhere(planes["MASK"] != 0)
    assert (
        masked.tolist() == [[10, 20], [30, 40]] and (planes["MASK"][masked[:, 0], masked[:, 1]] == 128).all()
    )
    assert ((planes["WEIGHT"] == 0) == (planes["MASK"] != 0)).all()


def test_negative_weights_are_refused(run: InProcess, tmp_path: Path) -> None:
    plane = 1 / variance()
    plane[:3] *= -1
    frame = write_foreign(tmp_path / "f.fits", planes={"WEIGHT": plane})
    refused(run("import_", "--as", "reduced", frame, "-o", "p.fits"), "bad-pixels", "528 negative")


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=30), st.sampled_from(sorted(WEIGHTS)))
def test_inverse_variance_inverts_each_convention(values: list[float], convention: str) -> None:
    truth = np.array([values])
    assert np.allclose(inverse_variance(WEIGHTS[convention](truth), convention), 1 / truth, rtol=1e-5)


def test_huge_variances_and_zeros_are_no_weight() -> None:
    plane = np.array([[100.0, 1e30, 0.0, np.nan, 90.0]])
    assert (inverse_variance(plane, "variance") > 0).tolist() == [[True, False, False, False, True]]
    with pytest.raises(BadPixels):
        inverse_variance(np.zeros((2, 2)), "weight")


# Masks


@given(st.lists(st.integers(0, 255), min_size=1, max_size=50))
def test_mask_bits_are_mapped_and_unknown_ones_are_user(values: list[int]) -> None:
    out = mapped_mask(
        np.array([values]), mapping_of("1:hot,2:saturated,8:cosmic+user,16:good", "", True), True
    )
    for value, got in zip(values, out[0], strict=True):
        assert bool(got & 1) == bool(value & 1)
        assert bool(got & 4) == bool(value & 2)
        assert bool(got & 8) == bool(value & 8)
        assert bool(got & 128) == bool(value & (8 | 4 | 32 | 64 | 128))
        assert not got & ~(1 | 4 | 8 | 128)


def test_mask_codes_are_mapped_one_by_one() -> None:
    out = mapped_mask(np.array([[0, 1, 2, 3, 9]]), mapping_of("1:hot,3:saturated,2:", "", False), False)
    assert out.tolist() == [[0, 1, 0, 4, 128]]


@pytest.mark.parametrize("text", ["1", "x:hot", "3:hot", "1:hott", "0:hot"])
def test_malformed_mask_bits_are_refused(text: str) -> None:
    with pytest.raises(BadSettings):
        mapping_of(text, "mask", bits=True)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"weigth": "W"}, "weigth"),
        ({"mask_bits": {"3": "hot"}}, "not one bit"),
        ({"mask_codes": {"3": "hto"}}, "nearest: hot"),
        ({"mask_bits": "1:hot"}, "a table such as"),
        ({"weight_type": "sigma"}, "sigma"),
        ({"weight": 3}, "EXTNAME"),
        ({"weight": {"match": "(", "take": ""}}, "regular expression"),
        ({"when": "a ="}, "when"),
    ],
)
def test_a_mistake_in_a_camera_table_names_its_place(rule: dict[str, object], words: str) -> None:
    with pytest.raises(BadSettings, match="here") as caught:
        compile_import(rule, "here")
    assert words in caught.value.message


def test_a_table_of_ones_own_comes_before_the_generic_one(run: InProcess, tmp_path: Path) -> None:
    init_store(tmp_path)
    (tmp_path / ".awe/cameras").mkdir(exist_ok=True)
    (tmp_path / ".awe/cameras/othercam.toml").write_text(
        'extends = "generic"\npriority = 70\nrecognise = "INSTRUME = \'othercam\'"\n'
        '[[import]]\ntitle = "theirs"\nwhen = "FILTER = \'r\'"\nunit = { value = "adu" }\n'
        'weight = { match = "^s_", take = "e_" }\nweight_type = "rms"\n'
        'mask = "QUALITY"\nmask_codes = { 7 = "trail" }\n'
    )
    quality = np.zeros(SHAPE, np.uint8)
    quality[3, 3:9] = 7
    frame = write_foreign(tmp_path / "s_1.fits", planes={"QUALITY": quality}, cards={"BUNIT": None})
    write_plane(tmp_path / "e_1.fits", np.full(SHAPE, NOISE, np.float32))
    path = imported(run, "--as", "reduced", frame)
    planes = planes_of(path)
    assert (planes["MASK"] == 16).sum() == 6
    assert planes["WEIGHT"].max() == pytest.approx(1 / NOISE**2)
    assert record_of(path)["recipe"]["parameters"]["weight_type"]["origin"] == "camera othercam: theirs"


def test_masks_reach_the_product_and_take_the_weight(run: InProcess, tmp_path: Path) -> None:
    mask = np.zeros(SHAPE, np.int32)
    mask[5, 6], mask[7, 8], mask[9, 10] = 1, 2, 4
    frame = write_foreign(tmp_path / "f.fits")
    beside = write_plane(tmp_path / "f.mask.fits", mask)
    bits = "1:hot,2:interpolated,4:cosmic"
    path = imported(run, "--as", "reduced", "--mask", beside, "--mask-bits", bits, frame, "-o", "p.fits")
    planes = planes_of(path)
    assert (planes["MASK"][5, 6], planes["MASK"][7, 8], planes["MASK"][9, 10]) == (1, 64, 8)
    assert planes["WEIGHT"][5, 6] == planes["WEIGHT"][9, 10] == 0 < planes["WEIGHT"][7, 8]
    assert record_of(path)["quality"]["measures"]["masked_pixels"] == 2


def test_a_mask_of_another_shape_is_refused(run: InProcess, tmp_path: Path) -> None:
    frame = write_foreign(tmp_path / "f.fits", planes={"DQ": np.zeros((10, 20), np.int16)})
    ran = run("import_", "--as", "reduced", "--mask", "DQ", frame, "-o", "p.fits")
    refused(ran, "mixture", "20 x 10", "176 x 160")
    ran = run("import_", "--as", "reduced", "--mask", "DX", frame, "-o", "p.fits")
    refused(ran, "no-such-extension", "DX", "DQ")


# Units


@pytest.mark.parametrize(
    ("unit", "card", "scale", "gain"),
    [
        ("adu/s", "counts/s", 100, [1.5]),
        ("e/s", None, 100, [1.0]),
        ("e", "electrons", 1, [1.0]),
        ("adu", "DN", 1, [1.5]),
    ],
)
def test_units_become_counts_of_the_exposure(
    run: InProcess, tmp_path: Path, unit: str, card: str | None, scale: float, gain: list[float]
) -> None:
    data, weight = star_field() / scale, scale**2 / variance()
    cards = {"BUNIT": card, "EGAIN": 1.5}
    frame = write_foreign(tmp_path / "f.fits", data, {"WEIGHT": weight}, cards)
    given_unit = [] if card else ["--unit", unit]
    path = imported(run, "--as", "reduced", *given_unit, frame, "-o", "p.fits")
    planes, record = planes_of(path), record_of(path)
    assert np.allclose(planes["SCI"], star_field(), rtol=1e-5)
    assert np.allclose(planes["WEIGHT"], 1 / variance(), rtol=1e-5)
    assert record["meta"]["gain_e_adu"] == gain
    assert record["quality"]["measures"]["sky_adu"] == pytest.approx(SKY, abs=2)
    assert record["recipe"]["parameters"]["unit"]["value"] == unit


def test_a_missing_unit_is_asked_for(run: InProcess, tmp_path: Path) -> None:
    frame = write_foreign(tmp_path / "f.fits", cards={"BUNIT": None})
    refused(run("import_", "--as", "reduced", frame, "-o", "p.fits"), "bad-header", "BUNIT", "--unit")
    frame = write_foreign(tmp_path / "g.fits", cards={"BUNIT": "MJy/sr"})
    refused(run("import_", "--as", "reduced", frame, "-o", "p.fits"), "bad-header", "MJy/sr")


def test_a_rate_without_an_exposure_time_is_refused(run: InProcess, tmp_path: Path) -> None:
    frame = write_foreign(tmp_path / "f.fits", cards={"BUNIT": "counts/s", "EXPTIME": None})
    refused(run("import_", "--as", "reduced", frame, "-o", "p.fits"), "bad-header", "--set exptime_s")
    path = imported(run, "--as", "reduced", "--set", "exptime_s=2", frame, "-o", "p.fits")
    assert record_of(path)["quality"]["measures"]["sky_adu"] == pytest.approx(2 * SKY, abs=4)


def test_a_coadd_is_scaled_to_a_zero_point_of_30() -> None:
    image = star_field()
    meta = {"exptime_s": 100.0, "gain_e_adu": [2.0], "saturation_adu": [40000.0]}
    frame = Frame(image, meta=meta)
    nanomaggies = import_coadd(frame, None, None, ImportParams(unit="nmgy"))
    assert np.allclose(nanomaggies.planes["SCI"], image * 1000, rtol=1e-5)
    assert nanomaggies.meta["zeropoint_mag"] == 30 and nanomaggies.meta["gain_e_adu"] is None
    known = import_coadd(frame, None, None, ImportParams(unit="adu/s", zero_point_mag="25"))
    assert np.allclose(known.planes["SCI"], image * 100, rtol=1e-5)
    # One ADU/s is 100 ADU of 2 e in the exposure.
    assert known.meta["gain_e_adu"] == [2.0] and known.meta["saturation_adu"] == [4e6]
    counts = import_coadd(frame, None, None, ImportParams(unit="adu"))
    assert np.allclose(counts.planes["SCI"], image / 100, rtol=1e-5)
    assert "zeropoint_mag" not in counts.meta


def test_pixels_without_a_value_are_outside() -> None:
    image = star_field()
    image[3, 4], image[5, 6] = np.nan, np.inf
    result = import_reduced(Frame(image), None, None, ImportParams())
    assert result.planes["SCI"][3, 4] == result.planes["WEIGHT"][5, 6] == 0
    assert (result.planes["MASK"] == 32).sum() == 2
    with pytest.raises(BadPixels):
        import_reduced(Frame(np.full(SHAPE, np.nan, np.float32)), None, None, ImportParams())
    with pytest.raises(BadPixels):
        import_reduced(Frame(np.zeros(SHAPE, np.float32)), None, None, ImportParams())


# What is not to be imported


def test_raw_frames_and_products_are_refused(run: InProcess, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    counts = rng.normal(1000, 5, (64, 64)).round().astype(np.uint16)
    bias = write_raw(tmp_path / "bias.fits", counts)
    refused(
        run("import_", "--as", "reduced", "--unit", "adu", bias, "-o", "p.fits"), "wrong-kind", "raw_bias"
    )
    science = write_raw(tmp_path / "s.fits", counts, {"IMAGETYP": "object", "EXPTIME": 10.0, "OBJECT": "x"})
    ran = run("import_", "--as", "reduced", "--unit", "adu", science, "-o", "p.fits")
    refused(ran, "wrong-kind", "--processed")
    path = imported(run, "--as", "reduced", "--unit", "adu", "--processed", science, "-o", "p.fits")
    refused(
        run("import_", "--as", "reduced", path, "-o", "q.fits"), "wrong-kind", "product of awetools already"
    )
    cards = {"IMAGETYP": "object", "EXPTIME": 10.0, "BIASSEC": "[57:64,1:64]", "TRIMSEC": "[1:56,1:64]"}
    overscan = write_raw(tmp_path / "o.fits", counts.astype(np.float32), cards)
    refused(
        run("import_", "--as", "reduced", "--unit", "adu", overscan, "-o", "q.fits"), "wrong-kind", "overscan"
    )


def test_one_bad_file_does_not_stop_the_others(run: InProcess, tmp_path: Path) -> None:
    good = write_foreign(tmp_path / "good.fits")
    ran = run("import_", "--as", "reduced", good, tmp_path / "none.fits", "--out-dir", "out", "-j2")
    assert ran.code == 4 and ran.lines == ["out/good.fits"] and "no-such-file" in ran.err
    other = write_foreign(tmp_path / "other.fits")
    refused(run("import_", "--as", "reduced", good, other, "-o", "p.fits"), "usage", "--out-dir")


# Source lists


def table(**columns: object) -> Table:
    return Table({name: np.asarray(values) for name, values in columns.items()})


def test_positions_of_source_lists_get_our_names() -> None:
    found = import_sources(
        table(NUMBER=[1, 2], X_IMAGE=[10.0, 11.0], Y_IMAGE=[5.0, np.nan], ra=[1.0, 2.0], dec=[3.0, 4.0]),
        SourcesParams(),
    )
    assert found.table is not None and found.measures == {"sources": 1, "left_out": 1}
    assert list(found.table)[:4] == ["X_PX", "Y_PX", "RA_DEG", "DEC_DEG"]
    assert found.table["X_PX"].tolist() == [10.0] and found.table["NUMBER"].tolist() == [1]


def test_what_sextractor_measured_is_under_our_names() -> None:
    given = table(
        NUMBER=[7, 9],
        X_IMAGE=[10.0, 11.0],
        Y_IMAGE=[5.0, 6.0],
        XWIN_IMAGE=[10.1, 11.1],
        YWIN_IMAGE=[5.1, 6.1],
        ERRX2WIN_IMAGE=[4e-4, 0.0],
        FLUX_AUTO=[100.0, 50.0],
        FLUXERR_AUTO=[2.0, 3.0],
        FLUX_APER=[[80.0, 90.0], [40.0, 45.0]],
        FLUXERR_APER=[[1.0, 2.0], [1.0, 2.0]],
        CLASS_STAR=[0.9, 0.1],
        FLAGS=np.array([4, 160], np.int16),
    )
    found = import_sources(given, SourcesParams())
    assert found.table is not None and not found.used
    columns = found.table
    assert columns["NUMBER"].tolist() == [7, 9] and columns["FLAGS"].tolist() == [4, 0]
    assert columns["X_WIN_PX"].tolist() == columns["X_PX"].tolist() == [10.1, 11.1]
    np.testing.assert_allclose(columns["X_WIN_ERROR_PX"], [0.02, np.nan])
    assert columns["FLUX_AUTO_ERROR_ADU"].tolist() == [2.0, 3.0]
    assert columns["FLUX_APERTURE_ADU"].tolist() == [[80.0, 90.0], [40.0, 45.0]]
    assert columns["STAR"].tolist() == [0.9, 0.1] and np.isnan(columns["SPREAD"]).all()


def test_positions_that_count_from_zero_are_moved_and_doubtful_ones_named() -> None:
    of_photutils = import_sources(table(xcentroid=[9.0], ycentroid=[4.0], flux=[1.0]), SourcesParams())
    assert of_photutils.table is not None and not of_photutils.used
    assert of_photutils.table["X_PX"].tolist() == [10.0] == of_photutils.table["X_WIN_PX"].tolist()
    doubtful = import_sources(table(x=[10.0], y=[5.0]), SourcesParams())
    assert doubtful.table is not None and doubtful.table["X_PX"].tolist() == [10.0]
    assert doubtful.used["positions"] == "x and y are taken to count pixels from 1"


def test_odd_columns_of_source_lists() -> None:
    given = table(
        number=["a", "b"], X_IMAGE=[1.0, 2.0], Y_IMAGE=[1.0, 2.0], flags=[np.nan, 3.0], star=[[1, 2], [3, 4]]
    )
    found = import_sources(given, SourcesParams())
    assert found.table is not None
    # Names that differ in case alone are one name in FITS.
    assert len({name.upper() for name in found.table}) == len(found.table)
    assert found.table["NUMBER"].tolist() == [1, 2] and found.table["FLAGS"].tolist() == [0, 3]
    assert np.isnan(found.table["STAR"]).all() and np.isnan(found.table["FLUX_AUTO_ADU"]).all()
    large = import_sources(table(NUMBER=[2**40, 2], X_IMAGE=[1.0, 2.0], Y_IMAGE=[1.0, 2.0]), SourcesParams())
    assert large.table is not None and large.table["NUMBER"].tolist() == [1, 2]


def test_a_source_list_without_positions_is_refused(run: InProcess, tmp_path: Path) -> None:
    from astropy.io import fits

    columns = [fits.Column("FLUX", "D", array=[1.0]), fits.Column("NAME", "4A", array=["a"])]
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)]).writeto(tmp_path / "t.fits")
    refused(
        run("import_", "--as", "sources", tmp_path / "t.fits", "-o", "p.fits"), "bad-header", "FLUX, NAME"
    )
    frame = write_foreign(tmp_path / "f.fits")
    refused(run("import_", "--as", "sources", frame, "-o", "p.fits"), "no-image", "no binary table")
    refused(run("import_", "--as", "sources", "--unit", "adu", frame, "-o", "p.fits"), "usage")


# Records, and the tools that read them


def test_an_import_is_a_product_like_others(tmp_path: Path) -> None:
    init_store(tmp_path / "store")
    root = tmp_path / "store"
    frame = write_foreign(tmp_path / "f.fits", planes={"WEIGHT": 1 / variance()})
    path = Path(awe("import", "--as", "reduced", frame, cwd=root).strip())
    assert path.parent == root / "reduced/2024-03-02"
    assert problems(PRODUCT, record_of(path)) == []
    assert awe("query", "reduced", "filter=r", "weight_pull_sigma<2", cwd=root).split() == [str(path)]
    assert awe("verify", cwd=root) == ""
    lineage = awe("lineage", path, cwd=root)
    assert lineage.count("foreign f.fits") == 2 and lineage.count("present") == 3
    before = path.stat().st_mtime_ns
    assert awe("import", "--as", "reduced", "-u", frame, cwd=root).strip() == str(path)
    assert path.stat().st_mtime_ns == before
    write_foreign(frame, star_field(4), {"WEIGHT": 1 / variance()})
    assert "changed" in awe("lineage", path, cwd=root)
    again = awe("import", "--as", "reduced", "-u", frame, cwd=root).strip()
    assert again != str(path)
    assert record_of(Path(again))["recipe_key"] != record_of(path)["recipe_key"]


def test_the_key_depends_on_what_decides_the_product(run: InProcess, tmp_path: Path) -> None:
    frame = write_foreign(tmp_path / "f.fits")
    first = open_product(imported(run, "--as", "reduced", frame, "-o", "a.fits"))
    same = open_product(imported(run, "--as", "reduced", frame, "-o", "b.fits"))
    other = open_product(imported(run, "--as", "reduced", "--unit", "e", frame, "-o", "c.fits"))
    zero_point = open_product(imported(run, "--as", "reduced", "--zero-point", "25", frame, "-o", "d.fits"))
    assert first.key == same.key and len({first.key, other.key, zero_point.key}) == 3
    assert first.content == same.content
    assert run("import_", "--as", "reduced", "--check", frame, "-o", "a.fits").code == 0
    assert run("import_", "--as", "reduced", "--check", "--unit", "e", frame, "-o", "a.fits").code == 3


def test_the_images_of_one_file_become_products_each(run: InProcess, tmp_path: Path) -> None:
    from astropy.io import fits

    header = fits.Header({key: value for key, value in CARDS.items() if key != "DETECTOR"})
    units = [fits.PrimaryHDU(header=header)]
    units += [fits.ImageHDU(star_field(n), name=f"CCD{n}") for n in (1, 2)]
    fits.HDUList(units).writeto(tmp_path / "m.fits")
    ran = run("import_", "--as", "reduced", tmp_path / "m.fits", "--out-dir", "out")
    assert ran.lines == ["out/m_CCD1.fits", "out/m_CCD2.fits"], ran.err
    assert np.allclose(planes_of(Path("out/m_CCD2.fits"))["SCI"], star_field(2))
    path = imported(run, "--as", "reduced", f"{tmp_path}/m.fits[CCD2]", "-o", "two.fits")
    assert record_of(path)["meta"]["detector"] == "CCD2"


def test_planes_of_a_mosaic_lie_in_files_beside_it(run: InProcess, tmp_path: Path) -> None:
    from astropy.io import fits

    cards = {
        **CARDS,
        "INSTRUME": "DECam",
        "PROCTYPE": "InstCal",
        "PLVER": "V5.0",
        "BUNIT": None,
        "DETECTOR": None,
    }
    primary = fits.Header({key: value for key, value in cards.items() if value is not None})
    names = ("N4", "S4")
    quality = [np.full(SHAPE, 0, np.int32) for _ in names]
    for number, plane in enumerate(quality):
        plane[10 + number, 20:25] = 5
    files = {
        "ooi": [star_field(number) for number in range(2)],
        "oow": [np.full(SHAPE, 1 / NOISE**2, np.float32)] * 2,
        "ood": quality,
    }
    for sort, planes in files.items():
        # The order of the extensions of one file need not be that of another.
        order = [1, 0] if sort == "ood" else [0, 1]
        units = [fits.ImageHDU(planes[number], name=names[number]) for number in order]
        fits.HDUList([fits.PrimaryHDU(header=primary), *units]).writeto(tmp_path / f"c4d_{sort}_r.fits")
    ran = run("import_", "--as", "reduced", tmp_path / "c4d_ooi_r.fits", "--out-dir", "out")
    assert ran.lines == ["out/c4d_ooi_r_N4.fits", "out/c4d_ooi_r_S4.fits"], ran.err
    for number, line in enumerate(ran.lines):
        struck = np.argwhere(planes_of(Path(line))["MASK"] == 8)
        assert struck.tolist() == [[10 + number, column] for column in range(20, 25)]
        inputs = record_of(Path(line))["recipe"]["inputs"]
        assert [one["path"].split("[")[-1] for one in inputs] == [f"{names[number]}]"] * 3
    ran = run("import_", "--as", "reduced", tmp_path / "c4d_ooi_r.fits", "-o", "one.fits")
    refused(ran, "mixture", "2 images")


@pytest.mark.parametrize(
    ("arguments", "slug", "word"),
    [
        (["-o", "q.txt"], "usage", ".fits"),
        (["-o", "q.fits", "--out-dir", "d"], "usage", "exclude"),
        (["-o", "q.fits", "--zero-point", "nan"], "bad-value", "zero_point_mag"),
        (
            ["-o", "q.fits", "--mask", "WEIGHT", "--mask-bits", "1:hot", "--mask-codes", "1:hot"],
            "usage",
            "codes",
        ),
        (["-o", "q.fits", "--mask", "WEIGHT", "--mask-bits", "3:hot"], "bad-value", "not one bit"),
        (["-o", "q.fits", "--set", "foo=1"], "unknown-name", "foo"),
        (["-o", "q.fits", "--set", "foo"], "usage", "FIELD=VALUE"),
        (["-o", "frame.fits"], "usage", "is an input"),
        (["-o", "mine.fits"], "would-overwrite", "mine.fits"),
        (["-o", "q.fits", "--weight", "none.fits"], "no-such-extension", "none.fits"),
        ([], "usage", "-o FILE"),
    ],
)
def test_senseless_requests_are_refused_in_words(
    run: InProcess, tmp_path: Path, arguments: list[str], slug: str, word: str
) -> None:
    frame = write_foreign(tmp_path / "frame.fits", planes={"WEIGHT": np.ones(SHAPE, np.float32)})
    (tmp_path / "mine.fits").write_text("mine")
    refused(run("import_", "--as", "reduced", frame, *arguments), slug, word)
    assert (tmp_path / "mine.fits").read_text() == "mine" and not (tmp_path / "q.fits").exists()


def test_a_plane_that_is_named_is_taken_as_an_image(run: InProcess, tmp_path: Path) -> None:
    frame = write_foreign(tmp_path / "f.fits", planes={"WEIGHT": star_field(9)})
    path = imported(run, "--as", "reduced", "--weight", "none", f"{frame}[WEIGHT]", "-o", "p.fits")
    assert np.array_equal(planes_of(path)["SCI"], star_field(9))


# Real frames


def test_community_pipeline_stamps_come_with_their_planes(run: InProcess) -> None:
    folder = data_path("legacysurvey-cutouts")
    frames = sorted(folder.glob("virgo*/*_ooi_*")) + sorted(folder.glob("field-177*/*_ooi_*"))
    assert len(frames) == 13
    ran = run("import_", "--as", "reduced", *frames, "--out-dir", "out")
    assert ran.code == 0 and len(ran.lines) == 13, ran.err
    for line in ran.lines:
        record = record_of(Path(line))
        measures = record["quality"]["measures"]
        assert 0.95 < measures["weight_pull_sigma"] < 1.1, line
        assert record["recipe"]["without"] == [] and "TPV" in record["meta"]["wcs"]["CTYPE1"]
        assert record["meta"]["wcs"]["PV1_7"] != 0
        is_said = any(Path(line).name in one and "no zero point" in one for one in ran.err.splitlines())
        assert is_said == (record["meta"].get("zeropoint_mag") is None), line
    record = record_of(Path("out/c4d_170316_062107_ooi_z_ls9.N2.fits"))
    assert record["quality"]["measures"]["masked_pixels"] == 177
    # What the survey measured: magnitudes of one ADU/s, within the errors of the header's value.
    assert record["meta"]["zeropoint_mag"] == pytest.approx(24.9, abs=0.2)


def test_a_reduced_frame_and_its_sources_of_las_cumbres(run: InProcess) -> None:
    frame = data_path("single-frames/lco-0m4-banzai-e91-20160625.fits.fz")
    path = imported(run, "--as", "reduced", frame, "-o", "lco.fits")
    record = record_of(path)
    assert record["meta"]["nx"] == 1523 and record["meta"]["gain_e_adu"] == [1.0]
    assert record["quality"]["measures"]["sky_adu"] == pytest.approx(533, abs=1)
    sources = record_of(imported(run, "--as", "sources", frame, "-o", "sources.fits"))
    assert sources["quality"]["measures"]["sources"] == 37 and sources["meta"]["filter"] == "w"


@pytest.mark.parametrize("name", ["dss-poss1-wcstest", "dss-ukst-test1"])
def test_photographic_plates_are_taken_as_they_are(run: InProcess, name: str) -> None:
    frame = data_path(f"single-frames/{name}.fits.gz")
    record = record_of(imported(run, "--as", "reduced", frame, "-o", "dss.fits"))
    assert record["meta"]["wcs"]["CTYPE1"] == "RA---TAN" and record["meta"]["night"].startswith("19")


def test_stars_are_where_and_as_bright_as_they_were(run: InProcess, tmp_path: Path) -> None:
    path = imported(run, "--as", "reduced", write_foreign(tmp_path / "f.fits"), "-o", "p.fits")
    image = planes_of(path)["SCI"] - SKY
    x, y = STARS[7]
    box = image[y - 9 : y + 8, x - 9 : x + 8]
    assert box.sum() == pytest.approx(60000, abs=5 * 17 * NOISE)


# Attacks


@pytest.mark.parametrize("plane", ["\N{SUPERSCRIPT TWO}", "", "frame.fits", "0"])
def test_a_plane_that_is_none_is_refused(run: InProcess, tmp_path: Path, plane: str) -> None:
    frame = write_foreign(tmp_path / "frame.fits")
    ran = run("import_", "--as", "reduced", "--weight", plane, frame, "-o", "p.fits")
    assert ran.code in (2, 4) and "--weight" in ran.err and not Path("p.fits").exists()


def test_a_cube_is_refused(run: InProcess, tmp_path: Path) -> None:
    cube = write_foreign(tmp_path / "cube.fits", np.stack([star_field(), star_field()]))
    refused(
        run("import_", "--as", "reduced", cube, "-o", "p.fits"), "no-image", "176 x 160 x 2", "cube.fits[0]"
    )


@pytest.mark.parametrize("factor", [1e30, 1e-30])
def test_noise_that_no_weight_can_hold_is_refused(run: InProcess, tmp_path: Path, factor: float) -> None:
    frame = write_foreign(tmp_path / "frame.fits", star_field() * np.float32(factor))
    refused(
        run("import_", "--as", "reduced", frame, "-o", "p.fits"), "bad-pixels", "weights of about", "--unit"
    )


@pytest.mark.parametrize(
    ("convention", "value"), [("weight", 1e39), ("weight", 1e-45), ("variance", 1e-300), ("rms", 1e200)]
)
def test_weights_beyond_a_float_are_no_weight(convention: str, value: float) -> None:
    with pytest.raises(BadPixels, match="no value above 0"):
        inverse_variance(np.full((6, 6), value), convention)


def test_weights_follow_the_unit_of_the_image_however_far() -> None:
    found = inverse_variance(np.full((6, 6), 1e-10), "weight", 1e-20)
    assert found == pytest.approx(np.full((6, 6), 1e30), rel=1e-6)


def test_masks_of_floats_keep_what_no_number_holds() -> None:
    plane = np.array([[0.0, 1.0, np.nan, np.inf, -np.inf, 1e300]])
    for bits in (True, False):
        found = mapped_mask(plane, {1: int(Bit.HOT)}, bits)
        assert found[0, :3].tolist() == [0, int(Bit.HOT), 0]
        assert all(value & int(Bit.USER) for value in found[0, 3:])


@pytest.mark.parametrize("text", ["\N{SUPERSCRIPT TWO}:hot", "9223372036854775808:hot", "1:hot,1:cold"])
def test_numbers_that_a_mask_has_not(text: str) -> None:
    for bits in (True, False):
        with pytest.raises(BadSettings, match="mask"):
            mapping_of(text, "mask", bits)


def test_a_mask_whose_numbers_mean_nothing_is_said(run: InProcess, tmp_path: Path) -> None:
    quality = np.zeros(SHAPE, np.int16)
    quality[3, 4] = 9
    frame = write_foreign(tmp_path / "frame.fits", planes={"DQ": quality})
    ran = run("import_", "--as", "reduced", "--mask", "DQ", frame, "-o", "p.fits")
    assert "--mask-codes" in ran.err and planes_of(Path("p.fits"))["MASK"][3, 4] == Bit.USER


def test_images_that_are_not_used_are_named(run: InProcess, tmp_path: Path) -> None:
    from astropy.io import fits

    header = fits.Header(CARDS)
    data = [fits.ImageHDU(star_field(), header, name=name) for name in ("SCI", "SAMP", "DQ")]
    fits.HDUList([fits.PrimaryHDU(header=header), *data]).writeto(tmp_path / "f.fits")
    ran = run("import_", "--as", "reduced", tmp_path / "f.fits", "-o", "p.fits")
    assert "not used: the images SAMP, DQ" in ran.err
    assert "not used" not in run("import_", "--as", "reduced", f"{tmp_path}/f.fits[SCI]", "-o", "p.fits").err


def test_images_of_one_name_do_not_replace_each_other(run: InProcess, tmp_path: Path) -> None:
    from astropy.io import fits

    header = fits.Header(CARDS)
    data = [fits.ImageHDU(star_field(seed), header, name="SCI") for seed in (1, 2)]
    fits.HDUList([fits.PrimaryHDU(header=header), *data]).writeto(tmp_path / "f.fits")
    ran = run("import_", "--as", "reduced", tmp_path / "f.fits", "--out-dir", "made")
    assert [Path(line).name for line in ran.lines] == ["f_1.fits", "f_2.fits"]
    for seed, line in zip((1, 2), ran.lines, strict=True):
        assert np.array_equal(planes_of(Path(line))["SCI"], star_field(seed))


def test_files_of_one_name_do_not_replace_each_other(run: InProcess, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    one, other = write_foreign(tmp_path / "f.fits"), write_foreign(tmp_path / "b" / "f.fits.gz")
    refused(
        run("import_", "--as", "reduced", one, other, "--out-dir", "made"),
        "usage",
        str(one),
        str(other),
        "f.fits",
    )
    assert len(run("import_", "--as", "reduced", one, one, "--out-dir", "made").lines) == 1


def test_a_zero_point_beyond_all_is_refused(run: InProcess, tmp_path: Path) -> None:
    frame = write_foreign(tmp_path / "frame.fits")
    ran = run("import_", "--as", "coadd", "--zero-point", "-1e30", frame, "-o", "p.fits")
    refused(ran, "bad-value", "zero_point_mag", "-1e+30")


def test_lists_in_other_forms_are_answered_with_a_conversion(run: InProcess, tmp_path: Path) -> None:
    (tmp_path / "it's.csv").write_text("x,y\n1,2\n3,4\n")
    ran = run("import_", "--as", "sources", "it's.csv", "-o", "p.fits")
    refused(ran, "not-fits", "it's.csv", "binary table")
    subprocess.run(["bash", "-c", ran.err.split("try: ")[1].replace("python3", sys.executable)], check=True)
    assert run("import_", "--as", "sources", "it's_table.fits", "-o", "p.fits").code == 0


def test_declinations_beyond_the_pole_are_no_position() -> None:
    table = Table({"RA": np.array([10.0, 20.0]), "DEC": np.array([-91.0, 5.0])})
    made = import_sources(table, SourcesParams())
    assert made.measures == {"sources": 1, "left_out": 1}


def test_what_masks_all_pixels_is_counted(run: InProcess, tmp_path: Path) -> None:
    frame = write_foreign(tmp_path / "frame.fits", planes={"DQ": np.ones(SHAPE, np.int16)})
    ran = run("import_", "--as", "reduced", "--mask", "DQ", "--mask-bits", "1:hot", frame, "-o", "p.fits")
    refused(ran, "bad-pixels", "28160 of 28160 are hot", "--mask none")


def test_an_export_that_is_imported_is_the_same(run: InProcess, tmp_path: Path) -> None:
    quality = np.zeros(SHAPE, np.int16)
    quality[3:9, 4], quality[50, 60:80] = 4, 8
    weight = np.where(quality > 0, 0, 1 / variance()).astype(np.float32)
    frame = write_foreign(tmp_path / "frame.fits", planes={"WHT": weight, "DQ": quality})
    bits = ("--weight-type", "weight", "--mask-bits", "4:saturated,8:cosmic")
    first = imported(run, "--as", "reduced", "--weight", "WHT", "--mask", "DQ", *bits, frame, "-o", "p.fits")
    assert run("export", "--for", "ds9", first, "-o", "copy.fits").code == 0
    again = imported(
        run, "--as", "reduced", "--weight", "WEIGHT", "--mask", "MASK", *bits, "copy.fits", "-o", "q.fits"
    )
    for name, plane in planes_of(first).items():
        assert np.array_equal(planes_of(again)[name], plane), name
    assert record_of(again)["meta"]["wcs"] == record_of(first)["meta"]["wcs"]


def test_an_empty_option_is_no_path(run: InProcess, tmp_path: Path) -> None:
    frame = write_foreign(tmp_path / "frame.fits")
    refused(run("import_", "--as", "reduced", frame, "--out-dir", ""), "usage", "--out-dir", "empty")


def test_a_weight_plane_is_no_image(run: InProcess, tmp_path: Path) -> None:
    plane = sorted(data_path("legacysurvey-cutouts").rglob("c4d_*_oow_*.fits"))[0]
    ran = run("import_", "--as", "reduced", plane, "-o", tmp_path / "x.fits")
    assert ran.code == 4 and "oow" in ran.err and "--weight" in ran.err
    assert not (tmp_path / "x.fits").exists()
