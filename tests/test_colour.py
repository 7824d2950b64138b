"""awe-colour: hues are ratios of fluxes, one grid or none, large pictures in strips."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from awetools.core.errors import BadPixels, BadValue, NoMatch
from awetools.core.pictures.colours import Wish, check_one_grid, mix_of
from awetools.core.pictures.sheet import Sheet, box_of, level_and_noise, open_sheet, strips
from awetools.core.pixels.colour import Mix, lupton
from awetools.core.png import encode_png, png_pieces
from awetools.core.sky.readwcs import read_wcs
from awetools.core.store import init_store
from tests.foreign_frames import SHAPE, STARS, WCS, star_field, write_foreign
from tests.support import InProcess

PLAIN = Mix((0, 0, 0), (1, 1, 1), 10.0, 8.0)


def band(path: Path, factor: float, **cards: object) -> Path:
    """A field whose stars are so many times as bright, at the zero point 30."""
    data = (star_field() - 500) * np.float32(factor)
    return write_foreign(path, data, cards={"MAGZERO": 30.0, **cards})


@pytest.fixture
def bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three images on one grid: the stars are 2, 1 and 0.5 times as bright."""
    monkeypatch.chdir(tmp_path)
    return [band(tmp_path / f"{name}.fits", by) for name, by in (("r", 2.0), ("g", 1.0), ("b", 0.5))]


def picture_of(path: str | Path) -> np.ndarray:
    matplotlib = pytest.importorskip("matplotlib.image")
    return np.asarray(np.rint(matplotlib.imread(path) * 255), np.uint8)


# The mapping


def test_hue_is_kept_at_every_brightness() -> None:
    flux = np.geomspace(0.3, 1e7, 200, dtype=np.float32)[:, None, None] * np.array(
        [1.0, 0.5, 0.25], np.float32
    )
    made = lupton(flux, PLAIN).astype(float)[:, 0]
    seen = made[:, 0] > 60
    assert seen.sum() > 100
    assert np.allclose(made[seen, 1] / made[seen, 0], 0.5, atol=0.02)
    assert np.allclose(made[seen, 2] / made[seen, 0], 0.25, atol=0.02)
    assert (np.diff(made[:, 0]) >= 0).all() and made[-1, 0] == 255


def test_a_grey_pixel_has_the_brightness_of_the_formula() -> None:
    for flux in (0.5, 3.0, 40.0, 1000.0):
        made = lupton(np.full((1, 1, 3), flux, np.float32), PLAIN)
        assert abs(int(made[0, 0, 0]) - 255 * np.arcsinh(0.8 * flux) / 8) <= 0.51
    assert (lupton(np.full((1, 1, 3), 10 * np.sinh(8) / 8, np.float32), PLAIN) == 255).all()


def test_nothing_and_what_is_below_the_background_are_black() -> None:
    given = np.array([[[np.nan, 5, 5], [-3, -3, -3], [-np.inf, 1, 1], [0, 0, 0], [9, -2, 1]]], np.float32)
    with np.errstate(all="raise", under="ignore"):
        made = lupton(given, PLAIN)
    assert not made[0, [0, 1, 3]].any() and made[0, 4].tolist()[1] == 0 and made[0, 4, 0] > made[0, 4, 2] > 0


def test_what_is_saturated_is_white_where_all_is_known() -> None:
    given = np.array(
        [[[np.inf, 5, 5], [1, np.inf, np.inf], [np.inf, np.nan, 1], [3e38, 3e38, 3e38]]], np.float32
    )
    made = lupton(given, PLAIN)
    assert (made[0, :2] == 255).all() and not made[0, 2:].any()


def test_a_mix_that_is_none_is_refused() -> None:
    for scale, stretch, q in (
        ((1, 0, 1), 1, 8),
        ((1, 1, 1), 0, 8),
        ((1, 1, 1), 1, -1),
        ((1, 1, np.nan), 1, 8),
    ):
        with pytest.raises(BadValue):
            Mix((0, 0, 0), scale, stretch, q)  # type: ignore[arg-type]


# Levels and scales


def test_zero_points_bring_fluxes_to_one_scale() -> None:
    rng = np.random.default_rng(4)
    sheets = [
        Sheet(f"{number}", (60, 70), None, zero, values=rng.normal(level, 1, (60, 70)).astype(np.float32))
        for number, (zero, level) in enumerate(((30.0, 5.0), (27.5, 100.0), (32.5, -3.0)))
    ]
    mix, said = mix_of(sheets, sheets[0].whole, 1, Wish())
    assert np.allclose(mix.scale, [0.1, 1, 0.01]) and said == "by zero points"
    assert np.allclose(mix.background, [5, 100, -3], atol=0.1)
    sheets[1].zero_point_mag = None
    mix, said = mix_of(sheets, sheets[0].whole, 1, Wish())
    assert np.allclose(mix.scale, 1, atol=0.05) and said == "by equal noise, as 1 has no zero point"
    with pytest.raises(BadPixels, match="too few"):
        mix_of(sheets, sheets[0].whole, 1, Wish("sources"))
    for sheet, by in zip(sheets, (3, 1, 0.5), strict=True):
        sheet.values[10:20, 5:40] += np.float32(30 * by)
    for asked, why in (("sources", ""), ("zeropoints", ", as 1 has no zero point")):
        mix, said = mix_of(sheets, sheets[0].whole, 1, Wish(asked))
        assert np.allclose(mix.scale, (1 / 3, 1, 2), rtol=0.03) and said == f"by the typical source{why}"
    mix, said = mix_of(sheets, sheets[0].whole, 1, Wish("noise"))
    assert np.allclose(mix.scale, 1, atol=0.05) and said == "by equal noise"
    mix, _ = mix_of(sheets, sheets[0].whole, 1, Wish((1, 2, 3), (0, 0, 0), 7.0, 3.0))
    assert (mix.scale, mix.background, mix.stretch, mix.q) == ((1, 2, 3), (0, 0, 0), 7.0, 3.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"CRPIX1": 88.04}, ""),
        ({"CRPIX1": 90.0}, "2 pixels away"),
        ({"CD1_1": -2e-4, "CD2_2": 2e-4}, "arcsec"),
        ({"CD1_1": 1e-4}, "mirrored"),
        ({"CD1_1": 0.0, "CD1_2": 1e-4, "CD2_1": 1e-4, "CD2_2": 0.0}, "turned by"),
        ({"CRVAL1": 330.0, "CRVAL2": -2.0}, "another part of the sky"),
    ],
)
def test_what_differs_of_grids_is_named(change: dict[str, float], said: str) -> None:
    one, other = (
        Sheet(name, SHAPE, read_wcs(cards)) for name, cards in (("a", WCS), ("b", {**WCS, **change}))
    )
    if not said:
        check_one_grid([one, other])
        return
    with pytest.raises(NoMatch, match=said) as found:
        check_one_grid([one, one, other])
    assert "awe-regrid" in found.value.hint


# Strips


def test_strips_are_the_picture_from_its_top() -> None:
    values = np.arange(35 * 21, dtype=np.float32).reshape(35, 21)
    sheet = Sheet("a", values.shape, values=values)
    box = (2, 3, 19, 33)
    whole = values[3:33, 2:19]
    for factor in (1, 4):
        for rows in (1, 3, 100):
            made = np.concatenate(list(strips([sheet], box, factor, rows)))
            if factor == 1:
                assert (made == whole[::-1]).all()
            else:
                assert made.shape == (8, 5) and made[-1, 0] == whole[:4, :4].mean()
                # The last block of rows is what is left.
                assert made[0, 0] == whole[28:, :4].mean()
    three = np.concatenate(list(strips([sheet] * 3, box, 1, 7)))
    assert (three == whole[::-1, :, None]).all()


def test_masked_pixels_with_a_value_are_shown_but_do_not_count() -> None:
    good = np.array([[True, False, False]])
    sheet = Sheet("a", (1, 3), values=np.array([[1.0, 2.0, 0.0]], np.float32), good=good)
    assert np.array_equal(sheet.rows(0, 1, 0, 3), [[1, 2, np.nan]], equal_nan=True)
    assert np.array_equal(sheet.rows(0, 1, 0, 3, only_good=True), [[1, np.nan, np.nan]], equal_nan=True)


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 3), (1, 1)])
def test_a_png_in_pieces_is_the_same_picture(shape: tuple[int, ...]) -> None:
    matplotlib = pytest.importorskip("matplotlib.image")
    image = np.random.default_rng(2).integers(0, 255, shape).astype(np.uint8)
    pieces = b"".join(png_pieces(shape, (image[at : at + 2] for at in range(0, shape[0], 2))))
    both = [matplotlib.imread(io.BytesIO(one)) for one in (pieces, encode_png(image))]
    assert (both[0] == both[1]).all()
    with pytest.raises(BadValue):
        b"".join(png_pieces(shape, [image, image]))
    with pytest.raises(BadValue):
        b"".join(png_pieces(shape, [image.astype(float)]))


# The program


def test_red_stars_are_red(bands: list[Path], run: InProcess) -> None:
    ran = run("colour", *bands, "--scale", "1,1,1", "-o", "rgb.png", "--json")
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    assert told["path"] == "rgb.png" and told["scaled"] == "as given"
    picture = picture_of("rgb.png")
    assert picture.shape == (*SHAPE, 3)
    for x, y in STARS:
        red, green, blue = picture[SHAPE[0] - y, x - 1].astype(float)
        assert abs(green / red - 0.5) < 0.06 and abs(blue / red - 0.25) < 0.06
    sky = np.median(picture.reshape(-1, 3), axis=0)
    assert (sky > 5).all() and np.ptp(sky) < 6


def test_a_part_of_it_and_smaller(bands: list[Path], run: InProcess) -> None:
    star = read_wcs(WCS).to_sky(*(float(one) for one in STARS[7]))
    at = ",".join(str(float(one)) for one in star)
    assert run("colour", *bands, "--at-sky", at, "--box", "21", "-o", "part.png").code == 0
    picture = picture_of("part.png").astype(int).sum(axis=2)
    assert picture.shape == (21, 21) and picture[10, 10] >= np.sort(picture.ravel())[-5]
    assert run("colour", *bands, "--size", "60", "-o", "small.png").code == 0
    assert picture_of("small.png").shape == (54, 59, 3)


def test_other_grids_are_refused(bands: list[Path], tmp_path: Path, run: InProcess) -> None:
    moved = band(tmp_path / "moved.fits", 1.0, CRPIX1=99.0)
    ran = run("colour", bands[0], moved, bands[2], "-o", "rgb.png")
    assert ran.code == 5 and "moved.fits" in ran.err and "11 pixels" in ran.err and "awe-regrid" in ran.err
    assert not Path("rgb.png").exists()


def test_products_and_their_cut_outs(bands: list[Path], tmp_path: Path, run: InProcess) -> None:
    init_store(tmp_path / "store")
    made = []
    for path, zero in zip(bands, ("30", "29", "28"), strict=True):
        made.append(tmp_path / "store" / path.name)
        options = ("--as", "coadd", "--unit", "adu/s", "--zero-point", zero, "-o", made[-1])
        assert run("import_", "-q", *options, path).code == 0
    sheet = open_sheet(made[1])
    assert sheet.zero_point_mag == 30 and sheet.wcs is not None and sheet.weight is not None
    sheet.close()
    assert run("colour", *made, "-o", "rgb.png", "-v").code == 0
    at = ("--at-sky", "150,2", "--size", "50px", "--out-dir", "cuts")
    cut = run("cutout", *made, *at)
    assert cut.code == 0 and run("colour", *cut.lines, "-o", "cut.png").code == 0
    assert picture_of("cut.png").shape == (50, 50, 3)


def test_usage(bands: list[Path], run: InProcess) -> None:
    assert run("colour", *bands[:2], "-o", "a.png").code == 2
    assert run("colour", *bands).code == 2
    assert run("colour", *bands, "-o", "a.jpg").code == 2
    for scale in ("1,1", "1,0,1", "x,1,1", "nan,1,1", "zeropoint"):
        assert run("colour", *bands, "--scale", scale, "-o", "a.png").code == 2, scale
    assert run("colour", *bands, "--at-sky", "10,10", "-o", "a.png").code == 2
    assert run("colour", *bands, "--region", "[0:5,1:5]", "-o", "a.png").code == 4
    Path("a.png").write_text("mine")
    assert run("colour", *bands, "-o", "a.png").code == 2 and Path("a.png").read_text() == "mine"


def test_box_of_a_region() -> None:
    assert box_of(Sheet("a", (50, 60)), "[11:20,1:50]") == (10, 0, 20, 50)
    assert box_of(Sheet("a", (50, 60)), None) == (0, 0, 60, 50)


def test_the_noise_is_right_where_an_object_fills_the_picture() -> None:
    y, x = np.mgrid[-200:200, -200:200]
    rng = np.random.default_rng(8)
    galaxy = 3000 * np.exp(-np.hypot(x, y) / 60) + rng.normal(20, 2.0, x.shape)
    sheet = Sheet("m51", galaxy.shape, values=galaxy.astype(np.float32))
    level, noise = level_and_noise(sheet, sheet.whole, 1)
    assert abs(noise - 2) < 0.8 and 20 < level < 100
    empty = Sheet("sky", galaxy.shape, values=rng.normal(20, 2.0, x.shape).astype(np.float32))
    level, noise = level_and_noise(empty, empty.whole, 1)
    assert abs(noise - 2) < 0.05 and abs(level - 20) < 0.1
    flat = Sheet("flat", (50, 4), values=np.full((50, 4), 7, np.float32))
    assert level_and_noise(flat, flat.whole, 1) == (7, 0)


def test_a_part_of_a_few_columns_has_a_level(bands: list[Path], run: InProcess) -> None:
    made = run("colour", *bands, "--region", "[1:8,1:9]", "-o", "small.png")
    assert made.code == 0, made.err
    assert picture_of("small.png").shape[:2] == (9, 8)


def test_values_beyond_single_precision_are_no_noise_on_the_terminal() -> None:
    made = lupton(np.full((2, 2, 3), 3e38), Mix((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1e-3, 8.0))
    assert made.shape == (2, 2, 3)
