"""The kind `sources`: from raw frames to a table that has the truth's positions and fluxes, and says what it means."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from awetools.core.errors import BadHeader, BadPixels, BadValue, Mixture
from awetools.core.frame import Frame
from awetools.core.frame import Table as ProductTable
from awetools.core.kind import Result
from awetools.core.kinds.sources import SOURCES, SourcesParams, apertures_of, make_sources
from awetools.core.pixels.mask import Bit
from awetools.core.pixels.sources import Flag, SourceSettings
from awetools.core.products import open_product
from awetools.core.simulate import NightSpec
from tests.support import InProcess, awe_here, data_path

Array = npt.NDArray[Any]

SKY, NOISE, FWHM, GAIN = 300.0, 5.0, 4.0, 2.0
META: dict[str, Any] = {"exposure": "e1", "gain_e_adu": [GAIN], "pixel_scale_arcsec": 0.25}
NIGHT = NightSpec(
    detectors=1,
    exposures=1,
    biases=3,
    flats=2,
    twilights=0,
    darks=0,
    shape=(512, 512),
    stars_per_arcmin2=40,
    galaxies_per_arcmin2=5,
    seed=3,
)


def star_field(places: Sequence[tuple[float, float]], flux: float = 8000.0, seed: int = 1) -> Array:
    """Gaussian stars, places in FITS pixels, on a sky with noise."""
    y, x = np.mgrid[1:201, 1:241]
    sigma = FWHM / 2.3548
    light = np.zeros(x.shape)
    for cx, cy in places:
        light += flux * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
    noise = np.sqrt(NOISE**2 + light / GAIN) * np.random.default_rng(seed).normal(size=x.shape)
    return (SKY + light + noise).astype(np.float32)


PLACES = [(30.0 + 40 * i + 0.3 * j, 25.0 + 37 * j - 0.2 * i) for i in range(5) for j in range(5)]


def made(image: Array, params: SourcesParams | None = None, **meta: Any) -> Result:
    weight = np.full(image.shape, NOISE**-2, np.float32)
    frame = Frame(image, weight, np.zeros(image.shape, np.int16), {**META, **meta})
    return make_sources(frame, params=params or SourcesParams())


def table_of(result: Result) -> dict[str, Array]:
    assert result.table is not None
    return dict(result.table)


def nearest(table: Any, x: Array, y: Array) -> tuple[Array, Array]:
    """Of each place the row of the nearest source, and how far it is, px."""
    away = np.hypot(table["X_WIN_PX"][:, None] - x, table["Y_WIN_PX"][:, None] - y)
    return np.argmin(away, axis=0), np.min(away, axis=0)


# The recipe


def test_the_centre_of_the_first_pixel_is_one() -> None:
    table = table_of(made(star_field(PLACES)))
    x, y = np.array(PLACES).T
    row, away = nearest(table, x, y)
    assert len(table["NUMBER"]) == len(PLACES) and np.all(away < 0.1)
    for name, error, place in (("X_WIN_PX", "X_WIN_ERROR_PX", x), ("Y_WIN_PX", "Y_WIN_ERROR_PX", y)):
        pulls = (table[name][row] - place) / table[error][row]
        assert abs(np.mean(pulls)) < 0.7 and 0.6 < np.std(pulls) < 1.5
    assert np.median(np.abs(table["X_PX"][row] - x)) < 0.05


def test_what_is_said_of_the_frame_is_true() -> None:
    result = made(star_field(PLACES))
    measures = result.measures
    assert measures["sources"] == measures["stars"] == len(PLACES)
    assert measures["saturated_sources"] == 0
    assert measures["sky_adu"] == pytest.approx(SKY, abs=1)
    assert measures["sky_noise_adu"] == pytest.approx(NOISE, rel=0.01)
    assert measures["noise_ratio"] == pytest.approx(1, abs=0.1)
    assert measures["seeing_px"] == pytest.approx(FWHM, rel=0.03)
    seeing_px = measures["seeing_px"]
    assert seeing_px is not None and measures["seeing_arcsec"] == pytest.approx(0.25 * seeing_px)
    assert result.used == {}


def test_the_depth_is_five_times_the_scatter_of_a_weighted_star() -> None:
    depth = made(star_field(PLACES)).measures["depth_adu"]
    noise = np.random.default_rng(5).normal(0, NOISE, (1500, 25, 25))
    y, x = np.mgrid[-12:13, -12:13]
    sigma = FWHM / 2.3548
    profile = np.exp(-(x**2 + y**2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
    fluxes = (noise * profile).sum((1, 2)) / (profile**2).sum()
    assert depth == pytest.approx(5 * np.std(fluxes), rel=0.1)


def test_nearly_all_stars_half_again_as_bright_as_the_depth_are_found() -> None:
    depth = made(star_field(PLACES)).measures["depth_adu"]
    assert depth is not None
    found = sum(
        int(np.count_nonzero(nearest(table_of(made(image, params)), *np.array(PLACES).T)[1] < 2))
        for image, params in (
            (star_field(PLACES, 1.5 * depth, seed), SourcesParams(seeing_px=FWHM)) for seed in range(4)
        )
    )
    assert found >= 0.95 * 4 * len(PLACES)


def test_every_parameter_reaches_the_measurement() -> None:
    image, plain = star_field(PLACES), table_of(made(star_field(PLACES)))
    few = table_of(made(image, SourcesParams(threshold_sigma=900)))
    assert len(few["NUMBER"]) == 0 and few["FLUX_APERTURE_ADU"].shape == (0, 1)
    three = table_of(made(image, SourcesParams(apertures_px="2,4.5, 9")))["FLUX_APERTURE_ADU"]
    assert three.shape == (len(PLACES), 3) and np.all(np.median(np.diff(three, axis=1), axis=0) > 0)
    noisy = table_of(made(image, SourcesParams(noise_factor=2.0)))
    assert np.all(noisy["FLUX_AUTO_ERROR_ADU"] > 1.2 * plain["FLUX_AUTO_ERROR_ADU"])
    large = table_of(made(image, SourcesParams(kron_least=8.0)))
    assert np.median(large["FLUX_AUTO_ERROR_ADU"]) > np.median(plain["FLUX_AUTO_ERROR_ADU"])


def test_the_defaults_are_those_of_the_measurement() -> None:
    ours, theirs = SourcesParams(), SourceSettings()
    names = set(vars(ours)) - {"sky_mesh", "apertures_px"}
    assert {name: getattr(ours, name) for name in names} == {name: getattr(theirs, name) for name in names}
    assert (ours.sky_mesh, apertures_of(ours.apertures_px)) == (theirs.mesh_px, theirs.apertures_px)


@pytest.mark.parametrize("text", ["x", "", "3,", "3,3", "0", "-1", "nan", "inf", "5000"])
def test_apertures_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(BadValue, match="aperture"):
        made(star_field(PLACES), SourcesParams(apertures_px=text))


def test_columns_have_the_units_of_their_names() -> None:
    result = made(star_field(PLACES))
    endings = {"_PX2": "pix2", "_PX": "pix", "_ADU": "adu", "_DEG": "deg"}
    for name in table_of(result):
        unit = next((unit for ending, unit in endings.items() if name.endswith(ending)), None)
        assert result.units.get(name) == unit, name


def test_an_unknown_gain_or_seeing_or_scale_is_said() -> None:
    known = table_of(made(star_field(PLACES)))
    without = made(star_field(PLACES), gain_e_adu=None)
    assert "photon noise" in without.used["gain"]
    assert np.all(table_of(without)["FLUX_AUTO_ERROR_ADU"] < known["FLUX_AUTO_ERROR_ADU"])
    lonely = made(star_field(PLACES[:2]), pixel_scale_arcsec=None)
    assert "too few stars" in lonely.used["seeing"] and lonely.measures["seeing_arcsec"] is None
    given = made(star_field(PLACES[:2]), SourcesParams(seeing_px=FWHM))
    assert given.used == {} and given.measures["seeing_px"] == pytest.approx(FWHM, rel=0.1)


def test_saturated_and_masked_sources_say_so_and_an_empty_frame_has_none() -> None:
    image = star_field(PLACES)
    mask = np.zeros(image.shape, np.int16)
    for (x, y), bit in zip(PLACES[:2], (Bit.SATURATED, Bit.COSMIC), strict=True):
        mask[round(y) - 1, round(x) - 1] = bit
    frame = Frame(image, np.where(mask == 0, np.float32(NOISE**-2), np.float32(0)), mask, META)
    result = make_sources(frame, params=SourcesParams())
    table = table_of(result)
    row, away = nearest(table, *np.array(PLACES[:3]).T)
    assert np.all(away < 1)
    assert [int(one) & (Flag.SATURATED | Flag.MASKED) for one in table["FLAGS"][row]] == [
        Flag.SATURATED,
        Flag.MASKED,
        0,
    ]
    assert result.measures["saturated_sources"] == 1
    assert made(star_field([])).measures["sources"] == 0


def test_a_frame_without_a_usable_pixel_is_refused() -> None:
    image = star_field(PLACES)
    frame = Frame(image, np.zeros(image.shape, np.float32), None, META)
    with pytest.raises(BadPixels, match="none of"):
        make_sources(frame, params=SourcesParams())


def test_the_manual_names_every_flag() -> None:
    for flag in Flag:
        assert f" {int(flag)} {flag.name} " in SOURCES.description.replace("\n", " ")


# The program


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store beside the truth of its one exposure, with everything made from the raw frames."""
    from awetools.core.simulate.night import simulate_night

    base = tmp_path_factory.mktemp("sources")
    simulate_night(base / "night", NIGHT)
    store = base / "store"
    store.mkdir()
    awe_here("init", cwd=store)
    awe_here("ingest", "-q", base / "night" / "raw", cwd=store)
    awe_here("make", "-q", "sources", cwd=store)
    return store


def truth_of(store: Path) -> tuple[Array, Array, Array, Array]:
    """Places (FITS pixels) and fluxes (ADU) of the true sources of the exposure, and which are stars."""
    night = store.parent / "night"
    with (night / "frames.csv").open() as stream:
        frame = next(row for row in csv.DictReader(stream) if row["obstype"] == "OBJECT")
    catalogue = Table.read(night / "truth" / "catalog.fits")
    (head,) = (night / "truth" / "wcs").glob("*.head")
    header = fits.Header.fromtextfile(head)
    x, y = WCS(header).all_world2pix(catalogue["RA"], catalogue["DEC"], 1, quiet=True)
    brightness = 10 ** (-0.4 * (np.asarray(catalogue["MAG_R"]) - float(frame["zero_point_mag"])))
    inside = (x > 15) & (y > 15) & (x < 498) & (y < 498)
    star = np.asarray(catalogue["TYPE"]).astype(str) == "STAR"
    return x[inside], y[inside], brightness[inside] * float(frame["exptime_s"]), star[inside]


def test_positions_and_fluxes_are_those_of_the_truth(simulated: Path) -> None:
    (path,) = awe_here("query", "sources", cwd=simulated)
    product = open_product(Path(path))
    table = Table.read(path, "SOURCES")
    depth = product.record["quality"]["measures"]["depth_adu"]
    x, y, flux, star = truth_of(simulated)
    apart = np.hypot(x[:, None] - x, y[:, None] - y) + np.where(np.eye(len(x)) > 0, 1e9, 0)
    # What a brighter neighbour may hide, or add to, tells nothing.
    alone = np.min(np.where(flux > 0.02 * flux[:, None], apart, 1e9), axis=1) > 15
    row, away = nearest(table, x, y)
    sure = star & alone & (flux > 2 * depth)
    assert np.count_nonzero(sure) > 30
    assert np.mean(away[sure] < 1) > 0.97
    bright = star & alone & (flux > 20 * depth) & (away < 1)
    bright &= (
        table["FLAGS"][row] & int(Flag.SATURATED | Flag.MASKED | Flag.EDGE | Flag.BLENDED | Flag.CROWDED) == 0
    )
    some = row[bright]
    assert len(some) > 15
    assert (
        np.median(np.hypot(table["X_WIN_PX"][some] - x[bright], table["Y_WIN_PX"][some] - y[bright])) < 0.05
    )
    assert np.median(table["X_WIN_PX"][some] - x[bright]) == pytest.approx(0, abs=0.02)
    ratio = table["FLUX_AUTO_ADU"][some] / flux[bright]
    assert np.median(ratio) == pytest.approx(0.97, abs=0.03)
    assert 1.4826 * np.median(np.abs(ratio - np.median(ratio))) < 0.035
    # And nothing is found that is not there.
    real = np.min(np.hypot(table["X_PX"][:, None] - x, table["Y_PX"][:, None] - y), axis=1) < 4
    middle = (np.abs(table["X_PX"] - 256) < 230) & (np.abs(table["Y_PX"] - 256) < 230)
    assert np.mean(real[middle]) > 0.95


def test_the_file_says_what_its_columns_and_flags_are(simulated: Path) -> None:
    (path,) = awe_here("query", "sources", cwd=simulated)
    with fits.open(path, checksum=True) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "SOURCES"]
        header = hdus[1].header
        names = {1 << int(key[4:]): header[key] for key in header if key.startswith("FBIT")}
        assert names == {int(flag): flag.name for flag in Flag}
        assert header["APER01"] == 5.0
        units = {one.name: one.unit for one in hdus[1].columns}
    assert (units["X_PX"], units["FLUX_AUTO_ADU"], units["THETA_DEG"]) == ("pix", "adu", "deg")


def test_it_is_up_to_date_until_a_parameter_changes(simulated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support import program

    monkeypatch.chdir(simulated)
    assert program("make", "sources", "--check").code == 0
    (frame,) = awe_here("query", "reduced", cwd=simulated)
    assert program("sources", "--check", frame).code == 0
    changed = program("sources", "--check", "--threshold-sigma", 5, frame)
    assert changed.code == 3 and "threshold_sigma" in changed.err
    raw = awe_here("query", "raw_science", cwd=simulated)[0]
    refused = program("sources", raw)
    assert refused.code != 0 and "needs reduced" in refused.err


def test_a_frame_without_sources_is_flagged_and_an_imported_one_is_measured(
    run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cards = {"INSTRUME": "cam", "DETECTOR": "c1", "FILTER": "V", "EXPTIME": 10.0, "GAIN": GAIN}
    cards["DATE-OBS"] = "2024-03-02T23:10:00"
    for name, places in (("stars", PLACES), ("none", [])):
        fits.PrimaryHDU(star_field(places), fits.Header(cards)).writeto(f"{name}.fits")
        ran = run("import_", "--as", "reduced", "--unit", "adu", f"{name}.fits", "-o", f"{name}-reduced.fits")
        assert ran.code == 0, ran.err
    ran = run("sources", "stars-reduced.fits", "-o", "stars-sources.fits")
    assert ran.code == 0, ran.err
    assert len(Table.read("stars-sources.fits", "SOURCES")) == len(PLACES)
    ran = run("sources", "none-reduced.fits", "-o", "none-sources.fits")
    assert ran.code == 0 and "sources = 0" in ran.err
    assert len(Table.read("none-sources.fits", "SOURCES")) == 0
    assert run("sources", "--strict", "none-reduced.fits", "-o", "strict.fits").code == 3


def test_a_real_field_of_nickel(tmp_path: Path, run: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stars of two exposures of one field, one after the other, are each other's to a tenth of a pixel."""
    store = tmp_path / "store"
    store.mkdir()
    monkeypatch.chdir(store)
    awe_here("init", cwd=store)
    awe_here("ingest", "-q", data_path("nickel-20170302"), cwd=store)
    awe_here("make", "-q", "sources", "exposure=d1030,d1031", cwd=store)
    paths = awe_here("query", "sources", "exposure=d1030,d1031", cwd=store)
    assert len(paths) == 2
    tables = []
    for path in paths:
        measures = open_product(Path(path)).record["quality"]["measures"]
        assert measures["sources"] > 60 and measures["stars"] > 20
        assert 1 < measures["seeing_arcsec"] < 2.5 and 0.9 < measures["noise_ratio"] < 1.15
        table = Table.read(path, "SOURCES")
        good = (table["STAR"] > 0.01) & (table["FLAGS"] == 0)
        good &= table["FLUX_AUTO_ADU"] > 100 * table["FLUX_AUTO_ERROR_ADU"]
        tables.append(table[good])
    one, other = tables[0], tables[1]
    row, away = nearest(other, np.asarray(one["X_WIN_PX"]), np.asarray(one["Y_WIN_PX"]))
    near = away < 5
    dx = np.asarray(one["X_WIN_PX"] - other["X_WIN_PX"][row])[near]
    dy = np.asarray(one["Y_WIN_PX"] - other["Y_WIN_PX"][row])[near]
    assert len(dx) >= 10
    for shift in (dx, dy):
        assert 1.4826 * np.median(np.abs(shift - np.median(shift))) < 0.1
    ratio = np.asarray(one["FLUX_AUTO_ADU"] / other["FLUX_AUTO_ADU"][row])[near]
    assert 1.4826 * np.median(np.abs(ratio / np.median(ratio) - 1)) < 0.03


# Another image, and given places

WCS_CARDS: dict[str, Any] = {
    "CTYPE1": "RA---TAN",
    "CTYPE2": "DEC--TAN",
    "CRVAL1": 150.0,
    "CRVAL2": 2.0,
    "CRPIX1": 120.0,
    "CRPIX2": 100.0,
    "CD1_1": -0.25 / 3600,
    "CD1_2": 0.0,
    "CD2_1": 0.0,
    "CD2_2": 0.25 / 3600,
}


def framed(image: Array, **meta: Any) -> Frame:
    weight = np.full(image.shape, NOISE**-2, np.float32)
    return Frame(image, weight, np.zeros(image.shape, np.int16), {**META, **meta})


def test_found_on_one_image_and_measured_on_another() -> None:
    deep, faint = framed(star_field(PLACES)), framed(star_field(PLACES, 60.0, seed=2))
    alone = table_of(make_sources(faint, params=SourcesParams(seeing_px=FWHM)))
    table = table_of(make_sources(faint, deep, params=SourcesParams()))
    there = table_of(make_sources(deep, params=SourcesParams()))
    assert len(alone["NUMBER"]) < len(table["NUMBER"]) == len(PLACES)
    for name in ("X_PX", "Y_PX", "A_PX", "THETA_DEG", "AREA_PX"):
        assert np.array_equal(table[name], there[name]), name
    pulls = (table["FLUX_APERTURE_ADU"][:, 0] - 54.0) / table["FLUX_APERTURE_ERROR_ADU"][:, 0]
    assert abs(np.mean(pulls)) < 0.7 and 0.6 < np.std(pulls) < 1.5


@pytest.mark.parametrize(
    ("image", "wcs", "message"),
    [
        (star_field(PLACES)[:150], None, r"240 x 150 pixels, the measured one 240 x 200"),
        (star_field(PLACES), {"CRPIX1": 123.0}, r"3\.0 px away"),
    ],
)
def test_another_pixel_grid_is_refused(image: Array, wcs: dict[str, Any] | None, message: str) -> None:
    measured = framed(star_field(PLACES), wcs=WCS_CARDS)
    other = framed(image, wcs=wcs and {**WCS_CARDS, **wcs})
    with pytest.raises(Mixture, match=message):
        make_sources(measured, other, params=SourcesParams())
    make_sources(measured, framed(star_field(PLACES), wcs=WCS_CARDS), params=SourcesParams())


@pytest.mark.parametrize("form", ["pixels", "sky"])
def test_fluxes_at_given_positions(form: str) -> None:
    from awetools.core.sky.readwcs import read_wcs

    x, y = np.array([*PLACES, (47.0, 43.0), (-50.0, 10.0)]).T
    names = ("X_PX", "Y_PX") if form == "pixels" else ("RA_DEG", "DEC_DEG")
    places = (x, y) if form == "pixels" else read_wcs(WCS_CARDS).to_sky(x, y)
    columns = {"NUMBER": np.arange(100, 100 + len(x)), **dict(zip(names, places, strict=True))}
    result = make_sources(
        framed(star_field(PLACES), wcs=WCS_CARDS), positions=ProductTable(columns), params=SourcesParams()
    )
    table = table_of(result)
    assert np.array_equal(table["NUMBER"], columns["NUMBER"])
    assert np.allclose(table["X_WIN_PX"][:-1], x[:-1], atol=1e-6) and np.allclose(table["Y_PX"], y, atol=1e-6)
    flux, error = table["FLUX_APERTURE_ADU"][:, 0], table["FLUX_APERTURE_ERROR_ADU"][:, 0]
    assert np.median(flux[:-2]) == pytest.approx(7920, rel=0.02)
    assert abs(flux[-2]) < 4 * error[-2] and error[-2] == pytest.approx(NOISE * np.sqrt(25 * np.pi), rel=0.1)
    assert np.isnan(flux[-1]) and table["FLAGS"][-1] == Flag.INCOMPLETE


def test_given_positions_may_move_to_the_light() -> None:
    x, y = np.array(PLACES).T
    off = ProductTable({"X_PX": x + 0.4, "Y_PX": y - 0.3})
    frame = framed(star_field(PLACES))
    fixed, moved = (
        table_of(make_sources(frame, positions=off, params=SourcesParams(recentre_sigma=one)))
        for one in (0, 1.0)
    )
    assert np.array_equal(fixed["X_WIN_PX"], x + 0.4)
    assert np.median(np.hypot(moved["X_WIN_PX"] - x, moved["Y_WIN_PX"] - y)) < 0.05


def test_positions_that_cannot_be_used_are_refused() -> None:
    frame = framed(star_field(PLACES))
    sky = ProductTable({"RA_DEG": np.array([150.0]), "DEC_DEG": np.array([2.0])})
    with pytest.raises(BadHeader, match="no WCS"):
        make_sources(frame, positions=sky, params=SourcesParams())
    with pytest.raises(BadValue, match="neither RA_DEG"):
        make_sources(frame, positions=ProductTable({"A": np.ones(1)}), params=SourcesParams())
    with pytest.raises(BadValue, match="found or given"):
        make_sources(frame, frame, sky, params=SourcesParams())


def test_half_a_dead_frame_and_a_cluster_show_in_the_density() -> None:
    random = np.random.default_rng(8)
    even = random.uniform(20, 580, (2, 500))
    measures = {}
    for name, places in (
        ("even", even),
        ("half", even[:, even[0] < 300]),
        ("cluster", np.concatenate([even, random.normal(300, 35, (2, 120))], axis=1)),
    ):
        light = np.zeros((600, 600))
        for x, y in places.T:
            light[round(y) - 1 : round(y) + 2, round(x) - 1 : round(x) + 2] += 300
        frame = framed((SKY + light + random.normal(0, NOISE, light.shape)).astype(np.float32))
        measures[name] = make_sources(frame, params=SourcesParams(seeing_px=2.5)).measures
    assert measures["even"]["density_low"] > 0.5 and measures["even"]["density_high"] < 1.6
    assert measures["half"]["density_low"] == 0
    assert measures["cluster"]["density_high"] > 1.8
    assert np.isnan(made(star_field(PLACES)).measures["density_low"])


def test_named_images_and_positions_go_on_record(
    run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cards = {"INSTRUME": "cam", "DETECTOR": "c1", "EXPTIME": 10.0, "GAIN": GAIN}
    for name, band, flux, at in (("deep", "V", 8000.0, "10"), ("faint", "B", 60.0, "20")):
        header = fits.Header({**cards, "FILTER": band, "DATE-OBS": f"2024-03-02T23:{at}:00"})
        fits.PrimaryHDU(star_field(PLACES, flux), header).writeto(f"{name}.fits")
        ran = run("import_", "--as", "reduced", "--unit", "adu", f"{name}.fits", "-o", f"{name}-reduced.fits")
        assert ran.code == 0, ran.err
    assert run("sources", "deep-reduced.fits", "-o", "deep.list.fits").code == 0
    for option, of in (("--detection", "deep-reduced.fits"), ("--positions", "deep.list.fits")):
        ran = run("sources", option, of, "faint-reduced.fits", "-o", "faint.list.fits")
        assert ran.code == 0, ran.err
        assert len(Table.read("faint.list.fits", "SOURCES")) == len(PLACES)
        (one,) = (
            one
            for one in open_product(Path("faint.list.fits")).record["recipe"]["inputs"]
            if one["role"] == option[2:]
        )
        assert Path(one["path"]).name == of
        assert run("sources", "--check", option, of, "faint-reduced.fits", "-o", "faint.list.fits").code == 0
        assert run("sources", "--check", "faint-reduced.fits", "-o", "faint.list.fits").code == 3
