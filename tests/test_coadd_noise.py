"""The noise of coadds is what their weight says: for sums over pixels, for sources, and by itself as measured."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from awetools.core.coadd.coadd import Coadded, How, coadd
from awetools.core.coadd.inputs import CoaddFrame, frame_of_arrays
from awetools.core.coadd.layers import Regridding
from awetools.core.frame import Frame
from awetools.core.kinds.sources import SourcesParams, make_sources
from awetools.core.pixels.coadd import Stacking
from awetools.core.pixels.resample import TAPS, gains
from awetools.core.sky.grid import Grid, fit_grid
from awetools.core.sky.wcs import Wcs

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]

STEP_ARCSEC = 0.3
STEP = STEP_ARCSEC / 3600
SHAPE = (640, 640)
PLANE = Wcs((150.0, 2.0), (0.0, 0.0), (STEP, 0.0, 0.0, STEP))


def frames_of(rng: np.random.Generator, sky: tuple[Doubles, Doubles] | None, flux: float) -> list[CoaddFrame]:
    """Dithered and turned frames of different noise, with stars at some places."""
    frames = []
    for number in range(5):
        angle = math.radians(2 * number + rng.uniform(-0.5, 0.5))
        cosine, sine = STEP * math.cos(angle), STEP * math.sin(angle)
        ra, dec = (float(one) for one in PLANE.to_sky(*rng.uniform(-3, 3, 2)))
        wcs = Wcs((ra, dec), (SHAPE[1] / 2 + 0.5, SHAPE[0] / 2 + 0.5), (-cosine, sine, sine, cosine))
        sigma = rng.uniform(15, 25)
        data = rng.normal(0, sigma, SHAPE)
        if sky is not None:
            data += stars(*wcs.to_pixel(*sky), flux)
        weight = np.full(SHAPE, sigma**-2, np.float32)
        frames.append(frame_of_arrays(f"f{number}", wcs, data.astype(np.float32), weight))
    return frames


def stars(x: Doubles, y: Doubles, flux: float, fwhm: float = 3.6, reach: int = 14) -> Doubles:
    made = np.zeros(SHAPE)
    width = fwhm / (2 * math.sqrt(2 ** (1 / 3.5) - 1))
    for cx, cy in zip(x, y, strict=True):
        (y0, y1), (x0, x1) = (
            (max(0, int(c) - reach), min(n, int(c) + reach)) for c, n in ((cy, SHAPE[0]), (cx, SHAPE[1]))
        )
        py, px = np.mgrid[y0:y1, x0:x1] + 1.0
        shape = (1 + ((px - cx) ** 2 + (py - cy) ** 2) / width**2) ** -3.5
        made[y0:y1, x0:x1] += flux * 2.5 / (math.pi * width**2) * shape
    return made


def stacked(frames: list[CoaddFrame], kernel: str, ratio: float) -> tuple[Coadded, Grid]:
    grid = fit_grid([(one.wcs, one.shape) for one in frames], STEP_ARCSEC * ratio)
    return coadd(frames, grid, How(Stacking(), Regridding(kernel), most_disagreeing=0)), grid


def blocks(plane: Array, size: int) -> Array:
    ny, nx = (length // size for length in plane.shape)
    cut = plane[: ny * size, : nx * size].reshape(ny, size, nx, size)
    return cut.swapaxes(1, 2).reshape(-1, size * size)


@pytest.mark.parametrize(
    ("kernel", "ratio", "least"),
    [
        ("lagrange6", 1.0, 0.97),
        ("lanczos3", 1.0, 0.97),
        # A sum over 5 x 5 fine pixels is one over 3.5 x 3.5 of the frame: interpolation makes its edges soft.
        ("lagrange8", 0.7, 0.94),
        ("lagrange8", 1.5, 0.97),
        ("lagrange6", 1.25, 0.97),
        ("area", 1.5, 0.94),
    ],
)
def test_weights_say_the_noise_of_sums(kernel: str, ratio: float, least: float) -> None:
    found: dict[int, list[float]] = {1: [], 5: [], 9: []}
    for seed in (1, 2):
        made, _ = stacked(frames_of(np.random.default_rng(seed), None, 0), kernel, ratio)
        sci, weight, count = (made.planes[name][:] for name in ("SCI", "WEIGHT", "COUNT"))
        for size, ratios in found.items():
            whole = blocks(count == 5, size).all(axis=1)
            sums = blocks(sci.astype(np.float64), size)[whole].sum(axis=1)
            told = blocks(1 / np.maximum(weight, 1e-9).astype(np.float64), size)[whole].sum(axis=1)
            ratios.append(float(np.mean(sums**2 / told)))
        alone = math.sqrt(found[1][-1])
        assert made.noise_ratio == pytest.approx(alone, rel=0.03)
    for size in (5, 9):
        assert least < math.sqrt(np.mean(found[size])) < 1.03, size


@pytest.mark.parametrize(("kernel", "ratio"), [("lagrange6", 1.0), ("lagrange8", 0.7), ("lagrange8", 1.5)])
def test_errors_of_sources_on_coadds_are_right(kernel: str, ratio: float) -> None:
    pulls: dict[str, list[Array]] = {"flux": [], "aperture": [], "x": [], "y": []}
    for seed in (0, 1, 2):
        rng = np.random.default_rng(seed)
        x, y = (one.ravel() for one in np.meshgrid(*[np.arange(-280.0, 281, 40)] * 2))
        sky = PLANE.to_sky(x + rng.uniform(-0.5, 0.5, x.size), y + rng.uniform(-0.5, 0.5, x.size))
        made, grid = stacked(frames_of(rng, sky, 20_000.0), kernel, ratio)
        planes = [made.planes[name][:] for name in ("SCI", "WEIGHT", "MASK")]
        meta = {"detector": "d", "exposure": "e", "exptime_s": 1.0, "gain_e_adu": [1e9]}
        image = Frame(*planes, {**meta, "pixel_scale_arcsec": STEP_ARCSEC * ratio})
        table = make_sources(image, params=SourcesParams(apertures_px="7")).table
        assert table is not None
        columns = {name: np.asarray(one) for name, one in table.items()}
        for name, one in pulls_of(columns, grid.wcs.to_pixel(*sky), grid).items():
            pulls[name].append(one)
    widths = {name: float(np.std(np.concatenate(one))) for name, one in pulls.items()}
    assert sum(len(one) for one in pulls["x"]) > 550
    # 3% is what so many stars tell of a width.
    assert all(abs(width - 1) < 0.08 for width in widths.values()), widths
    assert np.mean(list(widths.values())) == pytest.approx(1, abs=0.05), widths


def pulls_of(columns: dict[str, Array], places: tuple[Doubles, Doubles], grid: Grid) -> dict[str, Array]:
    """What was measured of each star less the truth (of fluxes: less the median), over the error."""
    x, y = places
    inner = np.flatnonzero((x > 30) & (y > 30) & (x < grid.shape[1] - 30) & (y < grid.shape[0] - 30))
    away = np.hypot(columns["X_WIN_PX"][:, None] - x[inner], columns["Y_WIN_PX"][:, None] - y[inner])
    at, own = away.argmin(axis=0), away.min(axis=0) < 1
    at, inner = at[own], inner[own]
    found = {}
    for name, key in (("flux", "AUTO"), ("aperture", "APERTURE")):
        flux, error = (columns[f"FLUX_{key}_{one}"][at] for one in ("ADU", "ERROR_ADU"))
        flux, error = (one if one.ndim == 1 else one[:, 0] for one in (flux, error))
        found[name] = (flux - np.median(flux)) / error
    for name, key, truth in (("x", "X", x), ("y", "Y", y)):
        found[name] = (columns[f"{key}_WIN_PX"][at] - truth[inner]) / columns[f"{key}_WIN_ERROR_PX"][at]
    return found


def test_coarser_pixels_gain_no_more_than_their_area() -> None:
    area = 1 + np.arange(16 * 8 + 1) / 16
    for name in TAPS:
        table = gains(name)
        if name == "area":
            assert table is None
            continue
        assert table is not None and table[0] == 1 and len(table) == len(area)
        assert (table <= area + 1e-6).all() and (table > 0.5).all()
    # The nearest pixel by itself gains nothing; others do as long as they are wider than the step.
    assert gains("nearest") == pytest.approx(1.0)
    table = gains("lagrange6")
    assert table is not None and table[16] > 1.7
