"""The kind `regrid`: stars stay where they are on the sky and as bright as they are, wherever that is."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from awetools.core.errors import BadHeader, BadPixels, NoMatch
from awetools.core.frame import Frame, Table
from awetools.core.kind import Result
from awetools.core.kinds.regrid import REGRID, RegridParams, make_regrid
from awetools.core.kinds.sources import SourcesParams, make_sources
from awetools.core.pixels.mask import Bit
from awetools.core.products import open_product
from awetools.core.sky.gridtext import fitted, parse_grid
from awetools.core.sky.readwcs import read_wcs
from awetools.core.sky.wcs import Wcs
from awetools.core.sky.writewcs import wcs_as_cards
from awetools.core.store import Store
from tests.sky_frames import true_wcs
from tests.support import InProcess, awe_here

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]

SHAPE, FWHM, CELL, SKY, NOISE = (288, 336), 3.9, 48, 400.0, 5.0
EXPTIME, GAIN, ZERO = 50.0, 2.0, 25.3
STEP = 0.3 / 3600
META: dict[str, Any] = {
    "detector": "d1",
    "exposure": "e1",
    "exptime_s": EXPTIME,
    "gain_e_adu": [GAIN],
    "saturation_adu": [60000.0],
    "read_noise_adu": [3.0],
    "pixel_scale_arcsec": 0.3,
}
PLACES = {"field": (150.0, 2.0), "zero": (0.0005, -30.0), "pole": (40.0, 89.999), "south": (359.9999, -89.99)}


def system(ra: float = 150.0, dec: float = 2.0, turn: float = 1.3) -> Wcs:
    """With a distortion, and its middle at a place."""
    bend = np.array([[2e-3, -1e-3, 5e-4], [1e-3, 2e-3, -7e-4]])
    return true_wcs((ra, dec), (SHAPE[1] / 2, SHAPE[0] / 2), turn, bend)


def star_field(background: float = SKY) -> tuple[Array, Doubles, Doubles]:
    """Moffat stars integrated over pixels on a flat sky, and their FITS pixels."""
    rng = np.random.default_rng(3)
    width, parts, half = 0.5 * FWHM / math.sqrt(2 ** (1 / 3.5) - 1), 7, CELL // 2 - 1
    fine = (np.arange((2 * half + 1) * parts) - (2 * half + 1) * parts // 2) / parts
    image = np.full(SHAPE, background)
    places = []
    for j in range(SHAPE[0] // CELL):
        for i in range(SHAPE[1] // CELL):
            off = rng.random(2) - 0.5
            x, y = i * CELL + CELL // 2, j * CELL + CELL // 2
            profile = (1 + ((fine - off[0]) ** 2 + (fine[:, None] - off[1]) ** 2) / width**2) ** -3.5
            stamp = profile.reshape(2 * half + 1, parts, 2 * half + 1, parts).mean((1, 3))
            image[y - half : y + half + 1, x - half : x + half + 1] += 5000 * stamp
            places.append((x + off[0] + 1, y + off[1] + 1))
    x, y = np.transpose(places)
    return image.astype(np.float32), x, y


def frame(image: Array, mask: Array | None = None, **meta: Any) -> Frame:
    mask = np.zeros(image.shape, np.int16) if mask is None else mask
    weight = np.where(mask == 0, NOISE**-2, 0).astype(np.float32)
    return Frame(image, weight, mask, {**META, **meta})


def solution(wcs: Wcs) -> Table:
    return Table({}, {**META, "wcs": wcs_as_cards(wcs, shape=SHAPE)})


def zeropoint(mag: float = ZERO, band: str | None = "R") -> Table:
    return Table({}, {**META, "zeropoint_mag": mag, "zeropoint_band": band})


def made(reduced: Frame, wcs: Wcs, zero: Table | None = None, **params: Any) -> Result:
    return make_regrid(reduced, solution(wcs), zero, params=RegridParams(**params))


def grid_wcs(result: Result) -> Wcs:
    return read_wcs(result.meta["wcs"])  # type: ignore[arg-type]


def measured(image: Array, x: Doubles, y: Doubles, radius: float) -> tuple[Doubles, Doubles, Doubles]:
    """Windowed centres (FITS pixels) and fluxes of a circle, less the ring around."""
    import sep

    plane = np.ascontiguousarray(image, np.float64)
    flux, _, _ = sep.sum_circle(plane, x - 1, y - 1, radius, subpix=0, bkgann=(1.4 * radius, 1.8 * radius))
    wx, wy, _ = sep.winpos(plane, x - 1, y - 1, np.full(len(x), radius / 5))
    return wx + 1, wy + 1, flux


def check(result: Result, wcs: Wcs, image: Array, x: Doubles, y: Doubles, ratio: float = 1.0) -> None:
    """Stars are where they were on the sky, to 0.002 px, and as bright, to 0.0003 in the median."""
    scale = result.measures["flux_scale"]
    assert scale is not None
    radius = 11.0
    before = measured(image, x, y, radius)
    there = grid_wcs(result)
    gx, gy = there.to_pixel(*wcs.to_sky(before[0], before[1]))
    after = measured(result.planes["SCI"], gx, gy, radius / ratio)  # type: ignore[arg-type]
    inner = (gx > 20) & (gy > 20)
    inner &= (gx < result.planes["SCI"].shape[1] - 20) & (gy < result.planes["SCI"].shape[0] - 20)
    assert inner.sum() >= 25
    away = np.hypot(after[0] - gx, after[1] - gy)[inner] * ratio
    assert np.sqrt(np.mean(away**2)) < 0.002
    fluxes = after[2][inner] / before[2][inner] / scale
    assert np.median(fluxes) == pytest.approx(1, abs=3e-4) and np.std(fluxes) < 1e-3


# Stars


@pytest.mark.parametrize("place", PLACES)
def test_stars_stay_where_and_as_bright_as_they_are(place: str) -> None:
    image, x, y = star_field()
    wcs = system(*PLACES[place])
    result = made(frame(image), wcs, zeropoint(), grid="auto", kernel="lagrange6", background="leave")
    check(result, wcs, image, x, y)
    assert result.measures["map_error_px"] <= 0.0011  # type: ignore[operator]
    assert result.measures["on_grid_fraction"] == 1


@pytest.mark.parametrize("ratio", [0.8, 1.3])
def test_another_scale_keeps_the_flux(ratio: float) -> None:
    image, x, y = star_field()
    wcs = system()
    text = str(fitted([(wcs, SHAPE)], 0.3 * ratio))
    result = made(frame(image), wcs, grid=text, kernel="lagrange8", background="leave")
    check(result, wcs, image, x, y, ratio)
    assert result.measures["area_ratio"] == pytest.approx(ratio**2, rel=0.01)


def test_the_zero_point_is_30_mag_a_count_a_second() -> None:
    image, *_ = star_field()
    result = made(frame(image), system(), zeropoint())
    scale = 10 ** (0.4 * (30 - ZERO)) / EXPTIME
    assert result.measures["flux_scale"] == pytest.approx(scale)
    meta = result.meta
    assert (meta["zeropoint_mag"], meta["zeropoint_band"], meta["exptime_s"]) == (30.0, "R", 1.0)
    assert meta["gain_e_adu"] == [pytest.approx(GAIN / scale)]
    assert meta["read_noise_adu"] == [pytest.approx(3 * scale)]
    area = result.measures["area_ratio"]
    assert area is not None and meta["saturation_adu"] == [pytest.approx(60000 * scale * area)]
    without = made(frame(image), system())
    assert without.meta["zeropoint_mag"] is None and "ADU/s" in without.used["zeropoint"]
    assert without.measures["flux_scale"] == pytest.approx(1 / EXPTIME)
    assert "relative" in made(frame(image), system(), zeropoint(band=None)).used["band"]


def test_errors_of_sources_are_right_on_the_grid() -> None:
    """Correlated noise: the scatter of aperture fluxes is what the errors say."""
    rng = np.random.default_rng(7)
    image = rng.normal(SKY, NOISE, (600, 600)).astype(np.float32)
    wcs = replace(system(), crpix=(300.0, 300.0))
    table = solution(wcs)
    result = make_regrid(frame(image), table, zeropoint(), params=RegridParams(kernel="lagrange6"))
    planes = {name: np.asarray(one) for name, one in result.planes.items()}
    assert 0.6 < (result.measures["noise_ratio"] or 0) < 0.9
    known = planes["WEIGHT"] > 0
    ratio = np.std(planes["SCI"][known] * np.sqrt(planes["WEIGHT"][known]))
    assert result.measures["noise_ratio"] == pytest.approx(ratio, rel=0.05)
    x, y = (one.ravel() for one in np.meshgrid(np.arange(40.0, 560, 15), np.arange(40.0, 560, 15)))
    there = Table({"X_PX": x, "Y_PX": y}, {})
    given = Frame(planes["SCI"], planes["WEIGHT"], planes["MASK"], {**META, **result.meta})
    params = SourcesParams(apertures_px="6", seeing_px=4.0)
    columns = make_sources(given, positions=there, params=params).table
    assert columns is not None
    flux, error = (np.asarray(columns[f"FLUX_APERTURE_{one}"])[:, 0] for one in ("ADU", "ERROR_ADU"))
    assert np.std(flux) / np.median(error) == pytest.approx(1, abs=0.08)


# Parts, masks, kernels


def test_a_part_of_a_grid_has_the_pixels_of_the_grid() -> None:
    image, *_ = star_field()
    wcs = system()
    whole = fitted([(wcs, SHAPE)], 0.3)
    part = replace(whole, columns=150, rows=120, crpix=(whole.crpix[0] - 100, whole.crpix[1] - 90))
    how = {"kernel": "lanczos3", "background": "leave"}
    here, there = (made(frame(image), wcs, grid=str(one), **how) for one in (whole, part))
    assert there.planes["SCI"].shape == (120, 150)
    shift = [int(a - b) for a, b in zip(grid_wcs(here).crpix, grid_wcs(there).crpix, strict=True)]
    cut = np.s_[shift[1] : shift[1] + 120, shift[0] : shift[0] + 150]
    for name in ("SCI", "WEIGHT", "MASK"):
        both = (np.asarray(one.planes[name], np.float64) for one in (here, there))
        one, other = both
        # The maps are interpolated on nodes of their own.
        np.testing.assert_allclose(one[cut], other, atol=0.02 if name == "SCI" else 1e-6, rtol=1e-3)
    assert 0.1 < (there.measures["on_grid_fraction"] or 0) < 0.3
    larger = replace(whole, columns=9000, rows=9000, crpix=(4500.0, 4500.0))
    far = made(frame(image), wcs, grid=str(larger), **how)
    assert far.planes["SCI"].shape[0] < 330 and far.planes["SCI"].shape[1] < 380
    crpix = grid_wcs(far).crpix
    assert all(one == int(one) for one in crpix)


def test_small_defects_are_filled_large_ones_are_not_and_masks_go_along() -> None:
    image, *_ = star_field()
    mask = np.zeros(SHAPE, np.int16)
    mask[:, 100] = Bit.HOT
    mask[40:60, 200:220] = Bit.SATURATED
    image = np.where(mask > 0, np.float32(60000), image).astype(np.float32)
    wcs = system(turn=0.0)
    result = made(frame(image, mask), wcs, kernel="lagrange6")
    assert result.measures["filled_pixels"] == SHAPE[0]
    planes = {name: np.asarray(one) for name, one in result.planes.items()}
    gx, gy = grid_wcs(result).to_pixel(*wcs.to_sky(101.0, 150.0))
    column = planes["MASK"][round(float(gy)) - 1, round(float(gx)) - 1]
    assert column & Bit.INTERPOLATED and not column & Bit.HOT
    gx, gy = grid_wcs(result).to_pixel(*wcs.to_sky(211.0, 51.0))
    at = round(float(gy)) - 1, round(float(gx)) - 1
    assert planes["MASK"][at] & Bit.SATURATED and planes["WEIGHT"][at] == 0
    assert np.isfinite(planes["SCI"]).all()
    plain = made(frame(image, mask), wcs, kernel="lagrange6", interpolate=False)
    assert plain.measures["filled_pixels"] == 0
    assert np.count_nonzero(plain.planes["WEIGHT"]) < np.count_nonzero(planes["WEIGHT"])


def test_the_background_is_subtracted_or_left() -> None:
    image, *_ = star_field()
    slope = np.linspace(0, 60, SHAPE[1], dtype=np.float32)
    for background, low, high in (("subtract", -0.06, 0.06), ("leave", 8.0, 9.5)):
        result = made(frame(image + slope), system(), background=background, sky_mesh=64)
        plane, weight = (np.asarray(result.planes[one]) for one in ("SCI", "WEIGHT"))
        assert low < np.median(plane[weight > 0]) < high
        assert result.measures["sky_adu"] == pytest.approx(SKY + 30, abs=4)


def test_the_kernel_is_the_best_for_the_seeing() -> None:
    image, *_ = star_field()
    result = made(frame(image), system())
    assert result.measures["seeing_px"] == pytest.approx(FWHM, rel=0.05)
    assert [one[:2] for one in result.cards] == [("KERNEL", "lagrange6")]
    coarse = made(frame(image), system(), grid=str(fitted([(system(), SHAPE)], 0.9)))
    assert coarse.cards[0][1] == "area"
    blank = made(frame(np.full(SHAPE, SKY, np.float32)), system())
    assert blank.measures["seeing_px"] is None and blank.cards[0][1] == "lanczos4"
    assert made(frame(image), system(), kernel="nearest").measures["seeing_px"] is None


# What cannot be


def test_a_frame_off_the_grid_is_told_where_it_is() -> None:
    image, *_ = star_field()
    with pytest.raises(NoMatch, match=r"RA 149\.9999\d Dec 2\.000\d+, 60\.0 arcmin from"):
        made(frame(image), system(), grid="TAN 151 2 0.3 500x500")
    with pytest.raises(NoMatch, match="not on the grid"):
        made(frame(image), system(), grid="TAN 330 -2 0.3 500x500")


def test_frames_without_good_pixels_say_what_to_do() -> None:
    image, *_ = star_field()
    mask = np.full(SHAPE, Bit.HOT, np.int16)
    mask[100:104] = 0
    with pytest.raises(BadPixels, match="d1 in e1: the background cannot be measured") as caught:
        made(frame(image, mask), system())
    assert "--background leave" in caught.value.hint
    stripe = made(frame(image, mask), system(), background="leave")
    assert 0 < np.count_nonzero(stripe.planes["WEIGHT"]) < 5 * SHAPE[1]


def test_without_a_solution_the_header_is_taken_and_said() -> None:
    image, *_ = star_field()
    cards = wcs_as_cards(system(), shape=SHAPE)
    result = make_regrid(frame(image, wcs=cards), params=RegridParams())
    assert "header's WCS" in result.used["astrom"]
    with pytest.raises(NoMatch, match="no WCS"):
        make_regrid(frame(image), params=RegridParams())
    with pytest.raises(BadHeader, match="FK4"):
        make_regrid(frame(image, wcs={**cards, "RADESYS": "FK4", "EQUINOX": 1950.0}), params=RegridParams())
    with pytest.raises(BadHeader, match="exposure time"):
        made(frame(image, exptime_s=None), system())


# Programs


@pytest.fixture
def gridded(sky_store: Store, run: InProcess) -> Store:
    """A store with a grid `deep` around all frames, and the frames on it."""
    frames = awe_here("query", "reduced", cwd=sky_store.root)
    assert run("grid", "make", "-q", "deep", "--fit", "--scale", "0.25", *frames).code == 0
    assert run("regrid", "-q", "--grid", "deep", *frames).code == 0
    return sky_store


def on_deep(run: InProcess) -> list[str]:
    """The images on the grid `deep`; the store has some on grids of their own besides."""
    text = json.loads(run("grid", "show", "deep", "--json").out)["grid"]
    return [
        one for one in run("query", "regrid").lines if text in str(open_product(Path(one)).meta["window"])
    ]


def test_the_name_of_a_grid_becomes_its_text_on_record(gridded: Store, run: InProcess) -> None:
    text = json.loads(run("grid", "show", "deep", "--json").out)["grid"]
    paths = on_deep(run)
    assert len(paths) == 4
    product = open_product(Path(paths[0]))
    one = product.record["recipe"]["parameters"]["grid"]
    assert (one["value"], one["origin"]) == (text, "grid deep")
    assert product.meta["window"] == f"grid {text}"
    roles = {one["role"] for one in product.record["recipe"]["inputs"]}
    assert roles == {"reduced", "astrom", "zeropoint"}
    with fits.open(product.path) as hdus:
        header = hdus[0].header
        assert (header["BUNIT"], header["PHOT_C"], header["KERNEL"]) == ("adu/s", 30.0, "lagrange6")
        assert hdus["WEIGHT"].header["BUNIT"] == "s2/adu2"
        there = WCS(header)
        ra, dec = there.wcs_pix2world(10, 20, 1)
    x, y = parse_grid(text).grid().wcs.to_pixel(float(ra), float(dec))
    # The grid has the same pixels, a whole number away.
    assert abs(x - round(float(x))) < 1e-6 and abs(y - round(float(y))) < 1e-6
    # The text says the same as the name, and the name may go.
    reduced = run("query", "reduced").lines
    assert run("regrid", "--check", "--grid", text, *reduced).code == 0
    assert run("grid", "remove", "deep").code == 0
    assert run("regrid", "--check", "--grid", text, *reduced).code == 0
    assert run("regrid", "--grid", "deep", reduced[0]).code == 4


def test_target_processing_makes_it_and_leaves_what_was_measured_on_it_alone(
    gridded: Store, run: InProcess
) -> None:
    made_here = on_deep(run)
    assert run("sources", "-q", *made_here).code == 0
    found = run("make", "regrid", "--set", "regrid.grid=deep")
    assert set(made_here) <= set(found.lines) and "up to date" in found.err
    for target in ("sources", "astrom", "sourcelist"):
        assert "4 up to date" in run("make", "-n", target).err
    shutil.rmtree(gridded.root / "regrid")
    assert "4 regrid" in run("make", "regrid", "--set", "regrid.grid=deep").err


def test_magnitudes_on_the_grid_are_those_of_the_frame(gridded: Store, run: InProcess) -> None:
    path = on_deep(run)[0]
    (sources,) = run("sources", "-q", path).lines
    (listed,) = run("sourcelist", "-q", sources).lines
    product = open_product(Path(listed))
    assert {one["role"] for one in product.record["recipe"]["inputs"]} == {"sources"}
    exposure, detector = product.meta["exposure"], product.meta["detector"]
    lists = [open_product(Path(one)) for one in run("query", "sourcelist").lines]
    (own,) = (
        one
        for one in lists
        if one.key != product.key and (one.meta["exposure"], one.meta["detector"]) == (exposure, detector)
    )
    one, other = (fits.getdata(each.path, 1) for each in (product, own))
    from astropy.coordinates import SkyCoord

    places = [SkyCoord(each["RA_DEG"], each["DEC_DEG"], unit="deg") for each in (one, other)]
    number, away, _ = places[0].match_to_catalog_sky(places[1])
    bright = (one["MAG_AUTO_ERROR"] < 0.05) & (away.arcsec < 0.5) & (one["FLAGS"] & ~3 == 0)
    bright &= other["FLAGS"][number] & ~3 == 0
    assert bright.sum() > 20
    differences = one["MAG_AUTO"][bright] - other["MAG_AUTO"][number][bright]
    assert abs(np.median(differences)) < 0.004
    assert np.median(away.arcsec[bright]) < 0.01
    # Their errors are about the same too.
    ratio = one["MAG_AUTO_ERROR"][bright] / other["MAG_AUTO_ERROR"][number][bright]
    assert np.median(ratio) == pytest.approx(1, abs=0.1)


def test_sources_are_found_on_one_image_of_a_grid_and_measured_on_another(
    gridded: Store, run: InProcess
) -> None:
    path = on_deep(run)[0]
    product = open_product(Path(path))
    (other,) = run("regrid", "-q", "--kernel", "lanczos3", "--grid", "deep", reduced_of(product.record)).lines
    (found,) = run("sources", "-q", "--detection", other, path).lines
    roles = {one["role"]: one["kind"] for one in open_product(Path(found)).record["recipe"]["inputs"]}
    assert roles == {"reduced": "regrid", "detection": "regrid"}
    # Only the sky is common to a frame and a grid.
    ran = run("sources", "--detection", other, reduced_of(product.record))
    assert ran.code == 4 and "mixture" in ran.err
    (listed,) = run("sourcelist", "-q", found).lines
    ran = run("sources", "-q", "--positions", listed, reduced_of(product.record))
    assert ran.code == 0


def reduced_of(record: Any) -> str:
    """The frame that an image on a grid was made of."""
    names = {one["role"]: one["content"] for one in record["recipe"]["inputs"]}
    return next(
        line
        for line in awe_here("query", "reduced", cwd=Path.cwd())
        if open_product(Path(line)).content == names["reduced"]
    )


def test_frames_without_a_solution_need_consent(source_store: Store, run: InProcess) -> None:
    reduced = run("query", "reduced").lines[0]
    ran = run("regrid", reduced)
    assert ran.code == 5 and "--no-astrom" in ran.err
    ran = run("regrid", "--no-astrom", reduced)
    assert ran.code == 0 and "header's WCS" in ran.err
    record = open_product(Path(ran.lines[0])).record["recipe"]
    assert [one["role"] for one in record["inputs"]] == ["reduced"]
    ran = run("regrid", "--no-astrom", "--grid", "TAN 10 10 0.3 100x100", reduced)
    assert ran.code == 5 and "not on the grid" in ran.err
    assert run("regrid", "--no-astrom", "--grid", "TAN x 10 0.3 100x100", reduced).code == 2
    assert REGRID.revision == 2
