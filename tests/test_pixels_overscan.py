"""Overscan levels: against levels that were put in, and on real frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awetools.core.errors import BadPixels, BadValue
from awetools.core.pixels.overscan import MODES, overscan_rows
from tests.support import data_path

Array = npt.NDArray[Any]
MEASURING = [mode for mode in MODES if mode != "none"]

pytestmark = pytest.mark.usefixtures("each_kernel")


def strip(
    level: Array | float, shape: tuple[int, int], noise: float, seed: int = 1
) -> npt.NDArray[np.uint16]:
    rows = np.broadcast_to(np.asarray(level, float), (shape[0],))
    values = np.random.default_rng(seed).normal(rows[:, None], noise, shape)
    return np.rint(values).astype(np.uint16)


def nickel(name: str) -> Array:
    """The 32 overscan columns of a frame."""
    from astropy.io import fits

    path = next(iter(data_path("nickel-20170302").glob(f"*/{name}.fits*")))
    with fits.open(path) as hdus:
        plane = next(hdu.data for hdu in hdus if hdu.data is not None)
        return np.array(plane[:, 1024:])


@pytest.mark.parametrize("level", [1000.0, 1000.25, 1000.5, 1000.77])
@pytest.mark.parametrize("noise", [0.8, 2.5, 6.0])
def test_level_is_better_than_the_integers(level: float, noise: float) -> None:
    found = overscan_rows(strip(level, (4096, 50), noise), "level")
    assert found.level_adu == pytest.approx(level, abs=max(0.02, 4 * noise / np.sqrt(4096 * 50)))
    assert (found.rows == np.float32(found.level_adu)).all()
    assert found.noise_adu == pytest.approx(noise, rel=0.01)
    assert found.slope_adu_per_row == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(("shape", "noise"), [((4096, 50), 2.5), ((1024, 31), 5.0), ((512, 21), 1.2)])
def test_smooth_rows_follow_drifts_and_add_little_noise(shape: tuple[int, int], noise: float) -> None:
    y = np.arange(shape[0])
    true = 1000.4 + 3 * y / 1000 + np.sin(y / 400)
    found = overscan_rows(strip(true, shape, noise), "rows-smooth")
    error = found.rows - true
    assert error.std() < 0.11
    assert abs(error.mean()) < 0.05
    # Straight windows do not ring or bend at the ends.
    assert np.abs(error[[0, -1]]).max() < 0.45
    assert found.slope_adu_per_row == pytest.approx(np.polyfit(y, true, 1)[0], abs=5e-4)


def test_rows_follow_every_row() -> None:
    true = 1000 + np.random.default_rng(2).normal(0, 8, 600)
    found = overscan_rows(strip(true, (600, 40), 2.0), "rows")
    assert (found.rows - true).std() == pytest.approx(2 / np.sqrt(40), rel=0.15)


def test_smooth_rows_do_not_follow_the_noise_of_rows() -> None:
    found = overscan_rows(strip(1000, (1024, 31), 5.0), "rows-smooth")
    rough = overscan_rows(strip(1000, (1024, 31), 5.0), "rows")
    assert found.rows.std() < 0.11
    assert rough.rows.std() > 0.8


@pytest.mark.parametrize("mode", MEASURING)
def test_cosmic_rays_do_not_matter(mode: str) -> None:
    values = strip(1000.3, (1000, 30), 3.0)
    clean = overscan_rows(values, mode)
    rng = np.random.default_rng(3)
    values[rng.integers(0, 1000, 60), rng.integers(0, 30, 60)] = 40000
    found = overscan_rows(values, mode)
    assert np.abs(found.rows - clean.rows).max() < (3 if mode == "rows" else 0.05)
    assert found.rejected >= clean.rejected + 55


@pytest.mark.parametrize("mode", ["level", "rows-smooth"])
def test_rows_that_a_star_bleeds_into_are_bridged(mode: str) -> None:
    values = strip(1000, (1000, 30), 3.0)
    values[400:406] += 300
    values[0:2] = 65535
    found = overscan_rows(values, mode)
    assert np.abs(found.rows - 1000).max() < 0.6
    assert found.rejected >= 8 * 30


@pytest.mark.parametrize("flip", [False, True])
def test_columns_that_trail_at_either_end_are_left_out(flip: bool) -> None:
    values = strip(1000, (1000, 32), 4.0).astype(np.float32)
    values += 30 * np.exp(-np.arange(32) / 2)
    values[:, 0] -= 90
    found = overscan_rows(values[:, ::-1] if flip else values, "level")
    assert found.level_adu == pytest.approx(1000, abs=0.15)
    assert 4 <= found.columns_rejected <= 16


def test_what_is_not_finite_is_left_out_and_a_lost_row_is_bridged() -> None:
    true = 1000 + np.arange(300) / 10
    values = strip(true, (300, 20), 1.0).astype(np.float64)
    values[100], values[:, 3], values[5, 5] = np.nan, np.inf, -np.inf
    for mode in ("rows", "rows-smooth"):
        found = overscan_rows(values, mode)
        assert np.isfinite(found.rows).all()
        assert found.rows[100] == pytest.approx(true[100], abs=1.2)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 2), (200, 1)])
def test_small_and_constant_strips_are_defined(mode: str, shape: tuple[int, int]) -> None:
    found = overscan_rows(np.full(shape, 1234, np.uint16), mode)
    assert found.rows.shape == (shape[0],)
    assert found.rows.dtype == np.float32
    assert (found.rows == (0 if mode == "none" else 1234)).all()
    assert found.noise_adu == 0
    assert found.slope_adu_per_row == 0


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(MEASURING), st.integers(0, 20000), st.integers(0, 10**6))
def test_the_level_shifts_with_the_pixels(mode: str, shift: int, seed: int) -> None:
    values = strip(5000, (70, 12), 3.0, seed)
    here, there = overscan_rows(values, mode), overscan_rows(values + np.uint16(shift), mode)
    np.testing.assert_allclose(there.rows, here.rows + shift, atol=0.005)
    assert there.noise_adu == pytest.approx(here.noise_adu, rel=1e-6)
    assert there.rejected == here.rejected


def test_wrong_modes_and_empty_strips_are_refused() -> None:
    with pytest.raises(BadValue, match="rows-smooth"):
        overscan_rows(strip(1, (5, 5), 1), "row-smooth")
    with pytest.raises(BadPixels):
        overscan_rows(np.full((10, 4), np.nan), "level")
    with pytest.raises(BadPixels):
        overscan_rows(np.zeros((10, 0), np.uint16), "rows")


def test_real_bias_overscan() -> None:
    found = overscan_rows(nickel("d1000"), "rows-smooth")
    assert found.level_adu == pytest.approx(1009.3, abs=0.3)
    assert found.noise_adu == pytest.approx(4.93, abs=0.1)
    # The first overscan column is off (data README); the next few trail.
    assert 1 <= found.columns_rejected <= 8
    assert np.ptp(found.rows) < 1
    plain = overscan_rows(nickel("d1000")[:, 6:], "rows-smooth")
    assert np.abs(plain.rows - found.rows).max() < 0.2


def test_real_flat_overscan_leaves_the_trail_out() -> None:
    columns = nickel("d1015")
    found = overscan_rows(columns, "level")
    assert found.columns_rejected >= 5
    assert found.level_adu == pytest.approx(columns[:, 16:].mean(), abs=0.6)


def test_real_amplifiers() -> None:
    from astropy.io import fits

    path = data_path("single-frames/lco-sinistro-raw-mef-20211007.fits.gz")
    levels = []
    with fits.open(path) as hdus:
        for hdu in hdus[1:5]:
            found = overscan_rows(np.array(hdu.data[:512, 519:540]), "rows-smooth")
            assert np.ptp(found.rows) < 1
            assert found.noise_adu == pytest.approx(1.2, abs=0.15)
            levels.append(found.level_adu)
    assert levels == pytest.approx([2522.5, 2560.4, 2553.0, 2581.7], abs=0.2)
