"""Hot pixels and bad columns: those put in are found, and little else; and those known in real frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from awetools.core.errors import BadPixels, BadValue, Mixture
from awetools.core.pixels.defects import bad_columns, hot_pixels
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
    assert hot_pixels(image, None, noise_adu=1.0).mask[100, 100] == Bit.HOT
    assert hot_pixels(image, None, noise_adu=10.0).count == 0
    by_column = np.where(np.arange(SHAPE[1]) < 200, 10.0, 0.0)
    image[100, 300] += 30
    assert np.argwhere(hot_pixels(image, None, by_column).mask).tolist() == [[100, 300]]


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
