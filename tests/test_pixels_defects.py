"""Hot and cold pixels and bad columns: those put in are found, and little else; and those of real frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awetools.core.errors import BadPixels, BadValue, Mixture
from awetools.core.pixels.defects import bad_columns, cold_pixels, hot_pixels
from awetools.core.pixels.mask import Bit
from awetools.core.pixels.overscan import overscan_rows
from awetools.core.pixels.stack import clipped_mean
from tests.support import data_path

Array = npt.NDArray[Any]
SHAPE = (512, 384)


def master(seed: int = 1, noise: float = 3.0) -> npt.NDArray[np.float32]:
    """A master with a slope, a glowing corner and structure from column to column."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    glow = 60 * np.exp(-(y + x) / 60)
    structure = rng.normal(0, 0.3, SHAPE[1])
    return (rng.normal(1000, noise, SHAPE) + 0.01 * y + glow + structure).astype(np.float32)


def response(seed: int = 11, grain: float = 0.01) -> npt.NDArray[np.float32]:
    """A flat of mean 1: vignetting, a slope, grain from pixel to pixel, and shadows of dust."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(np.float32)
    flat = rng.normal(1, grain, SHAPE) - 4e-7 * ((x - 100) ** 2 + (y - 250) ** 2) + 1e-4 * x
    for _ in range(25):
        distance = np.hypot(x - rng.uniform(0, SHAPE[1]), y - rng.uniform(0, SHAPE[0]))
        outer, depth = rng.uniform(9, 30), rng.uniform(0.03, 0.10)
        ring = np.tanh((outer - distance) / 1.5) - 0.7 * np.tanh((0.4 * outer - distance) / 1.5)
        flat *= 1 - 0.5 * depth * (ring + 0.3)
    return np.asarray(flat, np.float32)


def plane(path: Any) -> Array:
    from astropy.io import fits

    with fits.open(path) as hdus:
        return np.array(next(hdu.data for hdu in hdus if hdu.data is not None))


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.05])
def test_hot_pixels_are_found_and_little_else(fraction: float) -> None:
    image = master()
    hot = np.random.default_rng(2).random(SHAPE) < fraction
    image[hot] += 24 + np.random.default_rng(3).exponential(200, hot.sum()).astype(np.float32)
    found = hot_pixels(image, None)
    flagged = found.mask == Bit.HOT
    assert (flagged | (found.mask == 0)).all()
    assert flagged[hot].mean() > 0.99 if fraction else True
    assert (flagged & ~hot).sum() <= 4
    assert found.count == flagged.sum()
    assert found.fraction == pytest.approx(found.count / image.size)
    assert found.mask.dtype == np.int16


def test_noise_that_is_given_is_a_lower_limit() -> None:
    image = master()
    image[100, 100] += 30
    assert hot_pixels(image, None).mask[100, 100] == Bit.HOT
    assert hot_pixels(image, None, noise=1.0).mask[100, 100] == Bit.HOT
    assert hot_pixels(image, None, noise=10.0).count == 0
    by_column = np.where(np.arange(SHAPE[1]) < 200, 10.0, 0.0)
    image[100, 300] += 30
    assert np.argwhere(hot_pixels(image, None, by_column).mask).tolist() == [[100, 300]]


def test_low_pixels_are_cold_where_asked_for() -> None:
    image = master()
    image[40, 50] += 30
    image[60, 70] -= 30
    assert np.argwhere(hot_pixels(image, None).mask).tolist() == [[40, 50]]
    mask = hot_pixels(image, None, low_too=True).mask
    assert (mask[40, 50], mask[60, 70], np.count_nonzero(mask)) == (Bit.HOT, Bit.COLD, 2)


def test_masked_pixels_are_not_marked_and_do_not_count() -> None:
    image = master()
    image[200:260, 100:200] = 1e6
    image[10, 10] = np.nan
    use = np.ones(SHAPE, np.bool_)
    use[200:260, 100:200] = False
    found = hot_pixels(image, use)
    assert found.count <= 2
    assert found.mask[10, 10] == 0


def test_a_whole_column_is_no_column_of_hot_pixels_but_a_bad_column() -> None:
    image = master()
    image[:, 77] += 40
    assert hot_pixels(image, None).count <= 2
    found = bad_columns(image, None)
    assert [(run.column, run.first_row, run.last_row) for run in found.runs] == [(77, 0, 511)]
    assert (found.mask[:, 77] == Bit.HOT).all()
    assert found.count == 512


def test_parts_of_columns_are_found_with_their_ends_and_signs() -> None:
    image = master()
    image[150:, 50] += 8
    image[:300, 120] -= 8
    image[100:330, 200] += 10
    found = bad_columns(image, None)
    runs = {run.column: run for run in found.runs}
    assert set(runs) == {50, 120, 200}
    assert (runs[50].first_row, runs[50].last_row) == (pytest.approx(150, abs=10), 511)
    assert (runs[120].first_row, runs[120].last_row) == (0, pytest.approx(299, abs=10))
    assert (runs[200].first_row, runs[200].last_row) == (
        pytest.approx(100, abs=10),
        pytest.approx(329, abs=10),
    )
    assert runs[50].deviation == pytest.approx(8, abs=1)
    assert found.mask[400, 50] == Bit.HOT
    assert found.mask[100, 120] == Bit.COLD


def test_columns_within_the_bounds_are_no_defects() -> None:
    image = master()
    image[:, 40] += 8
    image[:, 80] -= 8
    image[:, 120] -= 20
    found = bad_columns(image, None, low=-15, high=4)
    assert {(run.column, np.sign(run.deviation)) for run in found.runs} == {(40, 1), (120, -1)}


def test_a_run_goes_on_where_it_fades() -> None:
    image = master(6)
    image[:256, 90] += 6
    image[256:, 90] += 2.4
    (run,) = bad_columns(image, None).runs
    assert run.column == 90
    assert run.first_row == 0
    assert run.last_row > 300


@pytest.mark.parametrize("columns", [slice(0, 1), slice(381, 384), slice(200, 204)])
def test_groups_of_columns_and_those_at_the_edges_are_found(columns: slice) -> None:
    image = master()
    image[:, columns] += 50
    found = bad_columns(image, None)
    assert found.mask[:, columns].all()
    assert found.count == 512 * (columns.stop - columns.start)


def test_ramps_and_noise_are_no_bad_columns() -> None:
    image = master(4)
    image += (30 * np.exp((np.arange(SHAPE[1]) - SHAPE[1]) / 8)).astype(np.float32)
    assert {run.column for run in bad_columns(image, None).runs} <= {381, 382, 383}
    assert bad_columns(master(5), None).runs == ()


def test_constant_and_tiny_images_have_no_defects() -> None:
    for shape in ((5, 5), (64, 64), (300, 20)):
        image = np.full(shape, 1234.567, np.float32)
        assert hot_pixels(image, None).count == 0
        assert bad_columns(image, None).count == 0
    image = np.full((64, 64), 100, np.float32)
    image[5, 6] = 101
    assert np.argwhere(hot_pixels(image, None).mask).tolist() == [[5, 6]]


def test_nothing_to_use_is_refused() -> None:
    image = master()
    for function in (hot_pixels, bad_columns):
        with pytest.raises(BadPixels):
            function(image, np.zeros(SHAPE, np.bool_))
        with pytest.raises(BadValue):
            function(image, None, threshold_sigma=0)
        with pytest.raises(Mixture):
            function(image, np.ones((2, 2), np.bool_))


@pytest.mark.parametrize("sign", [-1, 1])
def test_cold_pixels_are_found_and_dust_is_not(sign: int) -> None:
    flat, rng = response(), np.random.default_rng(5)
    assert cold_pixels(flat, None, 0.94, 1.06).count <= 2
    cold = rng.random(SHAPE) < 0.004
    flat[cold] *= (1 + sign * np.exp(rng.uniform(np.log(0.08), np.log(0.9), cold.sum()))).astype(np.float32)
    found = cold_pixels(flat, None, 0.94, 1.06)
    flagged = found.mask == Bit.COLD
    assert (flagged | (found.mask == 0)).all()
    assert flagged[cold].mean() >= 0.98
    assert cold[flagged].mean() >= 0.98
    assert found.count == flagged.sum()
    assert found.mask.dtype == np.int16


def test_clusters_and_dead_regions_are_cold() -> None:
    flat = response()
    flat[100:105, 200:206] *= 0.8
    flat[300:318, 90:112] *= 0.1
    mask = cold_pixels(flat, None, 0.94, 1.06).mask
    assert (mask[100:105, 200:206] == Bit.COLD).all()
    assert (mask[302:316, 92:110] == Bit.COLD).all()
    assert np.count_nonzero(mask) <= 30 + 18 * 22 + 4


def test_noise_that_is_measured_or_given_is_no_defect() -> None:
    flat = response(grain=0.03)
    flat[50, 60] *= 0.5
    found = cold_pixels(flat, None, 0.94, 1.06)
    assert found.mask[50, 60] == Bit.COLD and found.count <= 4
    flat = response()
    flat[50, 60] *= 0.5
    flat[70, 80] *= 0.85
    mask = cold_pixels(flat, None, 0.94, 1.06).mask
    assert mask[50, 60] == mask[70, 80] == Bit.COLD
    assert np.argwhere(cold_pixels(flat, None, 0.94, 1.06, noise=0.05).mask).tolist() == [[50, 60]]
    assert cold_pixels(flat, None, 0.94, 1.06, noise=np.full(SHAPE, 0.2)).count == 0


def test_what_does_not_count_is_not_cold() -> None:
    flat = response()
    flat[200, 200], flat[201, 210] = 0.2, np.nan
    flat[100:130, 100:140] = 0
    use = np.ones(SHAPE, np.bool_)
    use[100:130, 100:140] = False
    mask = cold_pixels(flat, use, 0.94, 1.06).mask
    assert mask[200, 200] == Bit.COLD
    assert not mask[~use].any() and mask[201, 210] == 0
    assert np.count_nonzero(mask) <= 4


def test_edges_and_steep_shadows_at_edges_are_not_cold() -> None:
    flat = response(12)
    flat *= (1 - 0.2 * np.exp(-np.arange(SHAPE[1]) / 20)).astype(np.float32)
    mask = cold_pixels(flat, None, 0.94, 1.06).mask
    assert np.count_nonzero(mask) <= 4


@settings(max_examples=10, deadline=None)
@given(power=st.integers(-12, 12), seed=st.integers(0, 99))
def test_the_scale_of_a_flat_does_not_matter(power: int, seed: int) -> None:
    flat = response(grain=0.02)[:128, :96].copy()
    rng = np.random.default_rng(seed)
    flat[rng.random(flat.shape) < 0.01] *= np.float32(0.85)
    first = cold_pixels(flat, None, 0.94, 1.06, 0.002).mask
    scaled = cold_pixels(flat * np.float32(2.0**power), None, 0.94, 1.06, 0.002 * 2.0**power).mask
    np.testing.assert_array_equal(first, scaled)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (5, 7), (64, 33)])
def test_small_flats_have_no_cold_pixels_and_dark_ones_no_others(shape: tuple[int, int]) -> None:
    if shape[0] * shape[1] >= 4:
        assert cold_pixels(np.ones(shape, np.float32), None, 0.94, 1.06).count == 0
        assert cold_pixels(np.zeros(shape, np.float32), None, 0.94, 1.06).fraction == 1
    else:
        with pytest.raises(BadPixels):
            cold_pixels(np.ones(shape, np.float32), None, 0.94, 1.06)


def test_ratios_that_do_not_enclose_1_are_refused() -> None:
    for low, high, sigma in ((1.0, 1.06, 5), (0.94, 0.99, 5), (0.94, 1.06, 0)):
        with pytest.raises(BadValue):
            cold_pixels(response(), None, low, high, threshold_sigma=sigma)
    with pytest.raises(BadPixels):
        cold_pixels(response(), np.zeros(SHAPE, np.bool_), 0.94, 1.06)


def test_known_bad_columns_of_a_real_bias() -> None:
    frames = [plane(path) for path in sorted(data_path("nickel-20170302/bias").glob("d10*"))]
    stack = np.stack(
        [raw[:, :1024] - overscan_rows(raw[:, 1024:], "rows-smooth").rows[:, None] for raw in frames]
    )
    found = bad_columns(clipped_mean(stack, 5.6, 3.0).mean, None)
    columns = {run.column + 1 for run in found.runs}
    # The data README: about x = 256 and 783-784, and the last four image columns are off.
    assert {255, 256, 257} <= columns
    assert columns & {783, 784, 785}
    assert columns & {1021, 1022, 1023, 1024}
    assert found.fraction < 0.03


def test_hot_pixels_of_a_real_dark_repeat() -> None:
    folder = data_path("stl1001-calib-20170908/dark")
    masks = [hot_pixels(plane(path), None).mask != 0 for path in sorted(folder.glob("darks-expos1-*"))[:2]]
    assert 0.005 < masks[0].mean() < 0.03
    # Two exposures of 60 s, found apart: what is hot in one is hot in the other.
    assert (masks[0] & masks[1]).sum() > 0.8 * masks[0].sum()
