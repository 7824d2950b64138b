"""How wide stars are, from a quick look: what the whole measurement says, and what is no star says nothing."""

from __future__ import annotations

import numpy as np
import pytest

from awetools.core.coadd.inputs import SKY_ROWS, frame_of_arrays, mesh_sky
from awetools.core.pixels.mask import Bit
from awetools.core.pixels.smooth import block_statistics
from awetools.core.pixels.sources import find_sources
from awetools.core.pixels.sourceseeing import star_width


def field(fwhm_px: float, shape: tuple[int, int] = (600, 700)) -> np.ndarray:
    """Sky of 500, noise of 10, a Gaussian star in each cell of 50 pixels; what pixels add to a width is in it."""
    rng = np.random.default_rng(3)
    image = rng.normal(500, 10, shape)
    sigma = np.sqrt((fwhm_px / 2.3548) ** 2 + 1 / 12)
    y, x = np.mgrid[-12:13, -12:13]
    for j in range(25, shape[0] - 20, 50):
        for i in range(25, shape[1] - 20, 50):
            dy, dx = rng.uniform(-0.5, 0.5, 2)
            image[j - 12 : j + 13, i - 12 : i + 13] += 5000 * np.exp(
                -((y - dy) ** 2 + (x - dx) ** 2) / (2 * sigma**2)
            )
    return image.astype(np.float32)


@pytest.mark.parametrize("fwhm_px", [2.5, 3.5, 5.0])
def test_a_quick_look_finds_the_width(fwhm_px: float) -> None:
    image = field(fwhm_px)
    weight = np.full(image.shape, 0.01, np.float32)
    found = star_width(image, weight)
    assert found == pytest.approx(fwhm_px, rel=0.03)
    assert found == pytest.approx(find_sources(image, weight).measures["seeing_px"], rel=0.02)


def test_weights_of_any_unit_and_a_masked_middle_do_not_matter() -> None:
    image = field(3.5)
    mask = np.zeros(image.shape, np.int16)
    mask[200:400] = int(Bit.HOT)
    usual = star_width(image, np.full(image.shape, 0.01, np.float32))
    assert star_width(image, np.full(image.shape, 100.0, np.float32), mask) == pytest.approx(usual, rel=0.03)


def test_no_star_no_width() -> None:
    noise = np.random.default_rng(1).normal(0, 1, (300, 300)).astype(np.float32)
    assert star_width(noise) == 0
    assert star_width(np.full((40, 40), np.nan, np.float32)) == 0


def test_every_other_row_of_large_blocks_tells_the_sky() -> None:
    rng = np.random.default_rng(2)
    size = 2 * SKY_ROWS
    sky = np.linspace(100, 120, 3 * size)[:, None] + np.zeros(3 * size)
    image = (sky + rng.normal(0, 5, sky.shape)).astype(np.float32)
    weight = np.full(image.shape, 0.04, np.float32)
    # The rows between do not count.
    spoilt = image.copy()
    spoilt[1::2] = 1e6
    found = mesh_sky(frame_of_arrays("", None, spoilt, weight), size)  # type: ignore[arg-type]
    assert np.abs(found.rows(0, 3 * size) - sky).max() < 0.3
    assert block_statistics(image, None, size, step=2).count.max() <= size * SKY_ROWS
