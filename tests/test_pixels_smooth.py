"""Smooth surfaces: constants and gradients come back, objects and masks do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awetools.core.errors import BadPixels, BadValue, Mixture
from awetools.core.pixels.smooth import (
    background,
    block_edges,
    block_median,
    block_statistics,
    fill_gaps,
    lowpass,
    median_filter,
)
from tests.support import data_path

Array = npt.NDArray[Any]
SHAPE = (300, 257)
Y, X = np.mgrid[: SHAPE[0], : SHAPE[1]]
SMOOTHERS = [(background, 32), (lowpass, 31)]

pytestmark = pytest.mark.usefixtures("each_kernel")


def holes(seed: int = 1) -> npt.NDArray[np.bool_]:
    use = np.random.default_rng(seed).random(SHAPE) < 0.7
    use[100:160, 50:110] = False
    return use


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("smoother", "size"), SMOOTHERS)
def test_constants_come_back(smoother: Any, size: int, masked: bool) -> None:
    image = np.full(SHAPE, 1234.5678, np.float32)
    found = smoother(image, holes() if masked else None, size)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, image, rtol=3e-7)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("smoother", "size"), SMOOTHERS)
def test_gradients_come_back_to_the_edges(smoother: Any, size: int, masked: bool) -> None:
    image = (100 + 0.03 * Y - 0.05 * X).astype(np.float32)
    found = smoother(image, holes() if masked else None, size)
    # A block that is partly masked has its median off its centre, by less than a third of its size.
    least = (0.03 + 0.05) * size / 3 if masked and smoother is background else 1e-3
    assert np.abs(found - image).max() < least


@pytest.mark.parametrize(("smoother", "size"), SMOOTHERS)
def test_what_is_masked_or_not_finite_does_not_count(smoother: Any, size: int) -> None:
    image = np.random.default_rng(2).normal(500, 3, SHAPE).astype(np.float32)
    use = holes()
    spoiled = image.copy()
    spoiled[~use] = 1e6
    assert (smoother(spoiled, use, size) == smoother(image, use, size)).all()
    spoiled[~use] = np.nan
    assert (smoother(spoiled, None, size) == smoother(image, use, size)).all()


@pytest.mark.parametrize(("smoother", "size"), SMOOTHERS)
def test_nothing_to_use_is_refused(smoother: Any, size: int) -> None:
    image = np.zeros(SHAPE, np.float32)
    with pytest.raises(BadPixels):
        smoother(image, np.zeros(SHAPE, np.bool_), size)
    with pytest.raises(BadPixels):
        smoother(np.full(SHAPE, np.nan), None, size)
    with pytest.raises(Mixture):
        smoother(image, np.ones((3, 3), np.bool_), size)
    with pytest.raises(BadValue):
        smoother(image, None, 0)


def test_block_statistics_of_noise_with_objects() -> None:
    rng = np.random.default_rng(3)
    image = rng.normal(1000.3, 4, (512, 512)).astype(np.float32)
    image[rng.random(image.shape) < 0.02] += 3000
    blocks = block_statistics(image, None, 64)
    assert blocks.median.shape == (8, 8)
    assert blocks.median == pytest.approx(np.full((8, 8), 1000.3), abs=0.6)
    assert blocks.mode == pytest.approx(np.full((8, 8), 1000.3), abs=1.0)
    assert blocks.stdev.mean() == pytest.approx(4, rel=0.01)
    assert blocks.y.tolist() == blocks.x.tolist() == [31.5 + 64 * k for k in range(8)]


@pytest.mark.parametrize("noise", [0.8, 3.0])
def test_blocks_of_integers_are_finer_than_integers(noise: float) -> None:
    values = np.rint(np.random.default_rng(4).normal(1000.3, noise, (640, 640))).astype(np.uint16)
    found = block_median(values, None, 64)
    assert found.mean() == pytest.approx(1000.3, abs=0.05)
    assert found.std() < 2 * noise / 64 + 0.02


@settings(max_examples=100)
@given(st.integers(1, 5000), st.integers(2, 400))
def test_block_edges_cover_the_axis_evenly(length: int, size: int) -> None:
    edges = block_edges(length, size)
    assert (edges[0], edges[-1]) == (0, length)
    assert np.ptp(np.diff(edges)) <= 1
    assert np.diff(edges).min() >= min(length, 2 * size / 3 - 1)


def test_empty_blocks_continue_the_plane_of_the_others() -> None:
    coarse = 5 + 0.5 * np.arange(6)[:, None] - 2.0 * np.arange(5)
    gaps = coarse.copy()
    gaps[0, 0] = gaps[2:4, 1:4] = gaps[5] = np.nan
    np.testing.assert_allclose(fill_gaps(gaps), coarse, atol=1e-9)


def test_the_median_filter_removes_one_block_and_keeps_a_plane() -> None:
    coarse = 5 + 0.5 * np.arange(6)[:, None] - 2.0 * np.arange(5)
    np.testing.assert_allclose(median_filter(coarse), coarse)
    spoiled = coarse.copy()
    spoiled[3, 2] += 1000
    assert np.abs(median_filter(spoiled) - coarse).max() < 2.6


def test_background_ignores_objects_and_follows_the_sky() -> None:
    rng = np.random.default_rng(5)
    ny, nx = 768, 640
    y, x = np.mgrid[:ny, :nx]
    sky = 1000 + 20 * np.sin(x / 200) + 0.02 * y
    image = rng.normal(sky, 10)
    for _ in range(250):
        cy, cx, peak = rng.integers(ny), rng.integers(nx), rng.exponential(2000)
        part = np.s_[max(cy - 12, 0) : cy + 13, max(cx - 12, 0) : cx + 13]
        image[part] += peak * np.exp(-((y[part] - cy) ** 2 + (x[part] - cx) ** 2) / 8)
    error = background(image.astype(np.float32), None, 64) - sky
    assert abs(error.mean()) < 0.5
    assert error.std() < 1.0
    assert np.abs(error).max() < 5


def test_background_does_not_ring_beside_a_step() -> None:
    image = np.where(X < 128, 100, 200).astype(np.float32)
    found = background(image, None, 32)
    assert found.min() > 90
    assert found.max() < 210


def test_small_images_have_a_background() -> None:
    image = np.random.default_rng(6).normal(50, 1, (7, 9)).astype(np.float32)
    found = background(image, None, 64)
    assert found == pytest.approx(np.full((7, 9), 50), abs=1.5)
    assert (found == found[0, 0]).all()


def test_lowpass_is_a_triangular_window() -> None:
    image = np.zeros((101, 121), np.float32)
    image[50, 60] = 1
    found = lowpass(image, None, 9)
    triangle = np.clip(9 - np.abs(np.arange(-60, 61)), 0, None) / 81
    expected = np.outer(triangle[10:111], triangle)
    # The plane through the image is taken out and put back: all but nothing of it is left here.
    assert np.abs(found - expected).max() < 2e-5
    assert found.sum(dtype=np.float64) == pytest.approx(1, abs=0.01)


def test_lowpass_with_a_mask_is_the_mean_over_what_is_left() -> None:
    rng = np.random.default_rng(9)
    image, use = rng.normal(0, 1, (41, 53)), rng.random((41, 53)) < 0.5
    y, x = np.mgrid[:41, :53]
    design = np.stack([np.ones(image.shape), y, x], axis=-1)
    plane = design @ np.linalg.lstsq(design[use], image[use], rcond=None)[0]
    rest, weight = (np.pad(part, 6, mode="symmetric") for part in ((image - plane) * use, use * 1.0))
    triangle = 7 - np.abs(np.arange(-6, 7))
    window = np.outer(triangle, triangle)
    expected = np.empty_like(image)
    for j, i in np.ndindex(image.shape):
        part = np.s_[j : j + 13, i : i + 13]
        expected[j, i] = (rest[part] * window).sum() / (weight[part] * window).sum()
    np.testing.assert_allclose(lowpass(image, use, 7), expected + plane, atol=1e-5)


def test_lowpass_mirrors_the_edges() -> None:
    rng = np.random.default_rng(7)
    tile = rng.normal(0, 1, (40, 50))
    # A tile and its mirror images: symmetric, so neither has a slope, and both smooth alike.
    tile = tile + tile[::-1]
    tile = tile + tile[:, ::-1]
    wide = np.pad(tile, 40, mode="symmetric")
    found, expected = lowpass(tile, None, 7), lowpass(wide, None, 7)[40:-40, 40:-40]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_lowpass_fills_regions_larger_than_its_window() -> None:
    use = np.ones(SHAPE, np.bool_)
    use[50:250, 30:230] = False
    image = np.where(use, 7.0, np.nan) + 0.01 * X
    found = lowpass(image, use, 11)
    np.testing.assert_allclose(found, 7 + 0.01 * X, atol=1e-4)


def test_lowpass_averages_noise_down() -> None:
    image = np.random.default_rng(8).normal(0, 1, SHAPE)
    found = lowpass(image, None, 21)
    # Two means of 21 along each axis: sum of the squared triangle is (2 m^2 + 1) / (3 m^3).
    expected = (2 * 21**2 + 1) / (3 * 21**3)
    assert found[30:-30, 30:-30].std() == pytest.approx(expected, rel=0.25)


def test_real_sky_background() -> None:
    from astropy.io import fits

    path = next(iter(data_path("nickel-20170302/science").glob("d1123.fits*")))
    with fits.open(path) as hdus:
        plane = next(hdu.data for hdu in hdus if hdu.data is not None)
        image = np.array(plane[:1024, 40:980], dtype=np.float32)
    sky = background(image, None, 64)
    rest = image - sky
    assert sky.std() < 60
    assert abs(np.median(rest)) < 3
