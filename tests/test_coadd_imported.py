"""Frames of other pipelines, with their coordinates and zero points, become coadds whose fluxes are theirs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from awetools.core.coadd.inputs import frame_of_arrays, mesh_sky
from awetools.core.fits import open_fits
from awetools.core.frame import Table
from awetools.core.kinds.zeropoint import zero_point_of
from awetools.core.pixels.foreign import background_weight
from awetools.core.pixels.sources import find_sources
from awetools.core.products import ProductInput, open_product
from awetools.core.sky.readwcs import read_wcs
from awetools.core.store import init_store
from tests.foreign_frames import SKY, write_foreign
from tests.support import InProcess, data_path

VIRGO = "legacysurvey-cutouts/virgo-186.74+25.46"
GRID = "TAN 186.743924 25.461787 0.2644 251x253 126,127 0"
RADIUS_PX, STARS, BRIGHT = 12, 2, 5000
NEAR_EDGE = (0.0, 0.0)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    monkeypatch.chdir(tmp_path)
    init_store(tmp_path)
    return InProcess(capfd)


def zero_points() -> Iterator[tuple[Path, float]]:
    """Exposures of the survey, and the magnitude of 1 ADU/s that it measured in each."""
    from astropy.io import fits

    folder = data_path(VIRGO)
    rows = fits.getdata(folder / "survey-ccds-1.fits.gz", 1)
    measured = {(int(one["expnum"]), one["ccdname"].strip()): float(one["ccdzpt"]) for one in rows}
    for path in sorted(folder.glob("*_ooi_*_ls9*")):
        with fits.open(path) as image:
            name = int(image[0].header["EXPNUM"]), image[1].header["EXTNAME"].strip()
        yield path, measured[name]


def planes(path: Path) -> dict[str, np.ndarray]:
    with open_fits(path) as fits:
        return {hdu.name: fits.image(hdu.index) for hdu in fits.hdus if hdu.is_image}


def in_aperture(image: np.ndarray, x: float, y: float) -> float:
    """The sum within a circle around a place (1-based)."""
    fine = (np.arange(5) + 0.5) / 5 - 0.5
    rows, columns = (np.arange(length)[:, None] + fine + 1 for length in image.shape)
    inside = (columns.reshape(1, -1) - x) ** 2 + (rows.reshape(-1, 1) - y) ** 2 < RADIUS_PX**2
    part = inside.reshape(image.shape[0], 5, image.shape[1], 5).mean(axis=(1, 3))
    return float((part * image).sum())


def test_the_flux_of_a_coadd_is_the_weighted_mean_of_the_scaled_fluxes_of_its_frames(run: InProcess) -> None:
    for path, mag in zero_points():
        assert run("import_", "--as", "reduced", "--zero-point", f"{mag}", path, "--out-dir", "red").code == 0
    frames = {one.meta["exposure"]: one for one in map(open_product, sorted(Path("red").glob("*.fits")))}
    assert len(frames) == 9
    for band in "grz":
        some = [one.path for one in frames.values() if one.meta["filter"] == band]
        made = run("coadd", "--no-astrom", "--grid", GRID, "-o", f"{band}.fits", *some)
        assert made.code == 0, made.err
        coadd = open_product(Path(f"{band}.fits"))
        assert coadd.meta["zeropoint_mag"] == 30 and coadd.meta["zeropoint_band"] == band
        assert coadd.record["quality"]["measures"]["frames"] == len(some)
        ratios = list(ratios_of(coadd, frames))
        assert len(ratios) >= STARS
        assert ratios == pytest.approx(np.ones(len(ratios)), abs=0.003)


def ratios_of(coadd: ProductInput, frames: Mapping[str, ProductInput]) -> Iterator[float]:
    """Fluxes in a coadd by those that its frames have themselves, of sources that are whole in all of them."""
    image, wcs = planes(coadd.path), read_wcs(coadd.meta["wcs"])
    found = find_sources(image["SCI"], image["WEIGHT"], image["MASK"]).columns
    with open_fits(coadd.path) as fits:
        rows = fits.table("FRAMES")
    single = [
        Single(frames[str(name).strip()], float(scale))
        for name, scale in zip(rows["EXPOSURE"], rows["SCALE"], strict=True)
    ]
    for x, y, flux in zip(found["x_px"] + 1, found["y_px"] + 1, found["flux_auto_adu"], strict=True):
        ra, dec = wcs.to_sky(x, y)
        parts = [one.at(float(ra), float(dec)) for one in single]
        known = [part for part in parts if part is not None]
        if flux < BRIGHT or not whole(image["WEIGHT"], x, y) or len(known) < 2 or NEAR_EDGE in known:
            continue
        mean = sum(flux * weight for flux, weight in known) / sum(weight for _, weight in known)
        yield in_aperture(image["SCI"], x, y) / mean


class Single:
    """A frame with its sky and what its values are multiplied by."""

    def __init__(self, product: ProductInput, scale: float) -> None:
        self.image, self.wcs = planes(product.path), read_wcs(product.meta["wcs"])
        expected = 10 ** (0.4 * (30 - product.meta["zeropoint_mag"])) / product.meta["exptime_s"]
        assert scale == pytest.approx(expected, rel=1e-5)
        self.scale = scale
        data = self.image["SCI"].astype(np.float32)
        frame = frame_of_arrays("", self.wcs, data, self.image["WEIGHT"], self.image["MASK"])
        self.less_sky = data - mesh_sky(frame).rows(0, len(data))

    def at(self, ra: float, dec: float) -> tuple[float, float] | None:
        """Flux and weight at a place; None if it is not in the frame."""
        x, y = (float(one) for one in self.wcs.to_pixel(ra, dec))
        ny, nx = self.less_sky.shape
        beyond = RADIUS_PX + 3
        if not (-beyond < x < nx + beyond and -beyond < y < ny + beyond):
            return None
        if not whole(self.image["WEIGHT"], x, y):
            return NEAR_EDGE
        near = self.image["WEIGHT"][round(y) - 12 : round(y) + 12, round(x) - 12 : round(x) + 12]
        weight = float(np.median(near)) / self.scale**2
        return in_aperture(self.less_sky, x, y) * self.scale, weight


def whole(weight: np.ndarray, x: float, y: float) -> bool:
    """Whether all pixels around a place have a weight."""
    ny, nx = weight.shape
    reach = RADIUS_PX + 2
    if not (reach < x < nx - reach and reach < y < ny - reach):
        return False
    row, column = round(y) - 1, round(x) - 1
    return bool((weight[row - reach : row + reach, column - reach : column + reach] > 0).all())


def test_the_noise_of_sources_is_taken_out_of_weights() -> None:
    rng, gain = np.random.default_rng(5), 2.0
    y, x = np.mgrid[:200, :220]
    light = sum(
        4000 * np.exp(-0.5 * ((x - cx) ** 2 + (y - cy) ** 2) / 4) for cx, cy in [(40, 60), (150, 120)]
    )
    data = (SKY + light + rng.normal(0, 4, light.shape)).astype(np.float32)
    sky = np.full(light.shape, SKY, np.float32)
    # As pipelines do: from what was seen, noise included.
    noisy = (1 / (16 + (data - SKY) / gain)).astype(np.float32)
    found, slope = background_weight(data, sky, noisy, 64)
    assert slope == pytest.approx(1 / gain, rel=0.1)
    assert found == pytest.approx(np.full(light.shape, 1 / 16), rel=0.2)
    assert noisy[60, 40] < 0.01 * found[60, 40]
    # What followed the noise of each pixel does so no more.
    empty = light < 0.01
    assert abs(np.corrcoef(noisy[empty], data[empty])[0, 1]) > 0.9
    assert abs(np.corrcoef(found[empty], data[empty])[0, 1]) < 0.2
    flat = np.full(light.shape, 1 / 16, np.float32)
    same, none = background_weight(data, sky, flat, 64)
    assert none is None and np.array_equal(same, flat)


def test_an_imported_coadd_of_rates_keeps_its_magnitudes(run: InProcess) -> None:
    frame = write_foreign(Path("f.fits"), cards={"BUNIT": "counts/s", "EXPTIME": 120.0})
    arguments = ("--as", "coadd", "--zero-point", "25", "--set", "filter=R", frame, "-o", "c.fits")
    assert run("import_", *arguments).code == 0
    made = open_product(Path("c.fits"))
    assert (
        made.meta["exptime_s"] == 1
        and made.meta["zeropoint_mag"] == 30
        and made.meta["zeropoint_band"] == "R"
    )
    assert made.record["quality"]["measures"]["exposure_s"] == 120
    assert run("sources", "c.fits", "-o", "s.fits").code == 0
    ran = run("sourcelist", "--no-astrom", "s.fits", "-o", "l.fits")
    assert ran.code == 0, ran.err
    with open_fits(Path("s.fits")) as sources, open_fits(Path("l.fits")) as listed:
        flux, mag = sources.table(1)["FLUX_AUTO_ADU"], listed.table(1)["MAG_AUTO"]
    good = flux > 0
    assert good.any() and mag[good] == pytest.approx(30 - 2.5 * np.log10(flux[good]), abs=1e-3)


def test_a_frame_goes_by_its_own_zero_point_unless_it_is_solved() -> None:
    own = {"zeropoint_mag": 25.0, "zeropoint_band": "R"}
    assert zero_point_of(None, own) == (25.0, "R")
    assert zero_point_of(Table({}, {"zeropoint_mag": 0.1, "zeropoint_band": None}), own) == (0.1, None)
