"""Robust statistics: against truth that was put in, against numpy, and on real biases."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from awetools.core.errors import BadValue, Mixture
from awetools.core.pixels.stats import (
    SAMPLE_SIZE,
    clipped,
    imstat,
    pair_noise,
    row_medians,
    truncation,
    usable,
)
from tests.support import data_path

pytestmark = pytest.mark.usefixtures("each_kernel")

SMALL = st.floats(-1e4, 1e4, width=32)


def gaussian(sigma: float, mean: float, shape: tuple[int, ...], seed: int) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).normal(mean, sigma, shape)


def with_outliers(values: npt.NDArray[np.float64], fraction: float, seed: int) -> npt.NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    hit = rng.random(values.shape) < fraction
    return values + np.where(hit, rng.exponential(3000, values.shape), 0)


def test_truncation_is_the_factor_of_the_literature() -> None:
    assert truncation(-3, 3) == pytest.approx(0.98658, abs=5e-6)
    assert truncation(-40, 40) == pytest.approx(1)


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (-2, 3), (-0.5, 4)])
def test_truncation_against_a_cut_sample(low: float, high: float) -> None:
    values = gaussian(1, 0, (400_000,), 1)
    assert truncation(low, high) == pytest.approx(values[(values > low) & (values < high)].std(), rel=0.01)


@pytest.mark.parametrize("size", [SAMPLE_SIZE // 2, 4 * SAMPLE_SIZE])
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.uint16])
def test_clipped_finds_the_gaussian_under_outliers(size: int, kind: type) -> None:
    values = with_outliers(gaussian(10, 1000.3, (size,), 2), 0.02, 3)
    found = clipped((np.rint(values) if kind is np.uint16 else values).astype(kind))
    rounding = 1 / 12 if kind is np.uint16 else 0
    assert found.mean == pytest.approx(1000.3, abs=0.15)
    assert found.median == pytest.approx(1000.3, abs=0.5 if rounding else 0.3)
    assert found.stdev == pytest.approx(math.sqrt(100 + rounding), rel=0.01)
    assert 0.96 * size < found.count < 0.99 * size


def test_the_large_array_path_agrees_with_the_exact_one() -> None:
    values = with_outliers(gaussian(10, 1000, (3 * SAMPLE_SIZE,), 4), 0.02, 5).astype(np.float32)
    quick = clipped(values)
    # One value more or less on either side of the limits is all that may differ.
    inner = values[np.abs(values - quick.median) <= 3 * quick.stdev]
    assert quick.count == pytest.approx(inner.size, rel=1e-4)
    assert quick.mean == pytest.approx(inner.mean(dtype=np.float64), abs=0.01)
    assert quick.stdev == pytest.approx(inner.std(dtype=np.float64) / 0.98658, rel=1e-3)


def test_the_sample_of_a_large_array_walks_through_all_columns() -> None:
    image = gaussian(5, 100, (1024, 2048), 9)
    image[:, ::8] += 1000
    assert clipped(image).median == pytest.approx(100, abs=0.1)


def test_clipped_without_outliers_is_median_mean_and_count_of_what_lies_inside() -> None:
    values = gaussian(2, 50, (5000,), 6)
    found = clipped(values)
    inside = np.sort(values)[np.searchsorted(np.sort(values), found.median - 6.2) :]
    inside = inside[inside < found.median + 6.2]
    assert found.count == pytest.approx(inside.size, abs=12)
    assert found.mean == pytest.approx(inside.mean(), abs=0.01)


@pytest.mark.parametrize("mean", [1000.0, 1000.3, 1000.5, 1000.8])
@pytest.mark.parametrize("sigma", [0.8, 1.5, 5.0])
def test_clipped_mean_of_integers_is_good_to_a_fiftieth(sigma: float, mean: float) -> None:
    values = np.rint(gaussian(sigma, mean, (512, 512), 7)).astype(np.uint16)
    assert clipped(values).mean == pytest.approx(mean, abs=max(0.02, 4 * sigma / 512))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], (math.nan, math.nan, math.nan, 0)),
        ([math.nan, math.inf, -math.inf], (math.nan, math.nan, math.nan, 0)),
        ([5.0], (5.0, 5.0, 0.0, 1)),
        ([7.0] * 50, (7.0, 7.0, 0.0, 50)),
        ([7.0] * 50 + [math.nan], (7.0, 7.0, 0.0, 50)),
        ([7.0] * 99 + [1000.0], (7.0, 7.0, 0.0, 99)),
    ],
)
def test_clipped_of_odd_inputs_is_defined(values: list[float], expected: tuple[float, ...]) -> None:
    found = clipped(np.array(values))
    np.testing.assert_equal((found.median, found.mean, found.stdev, found.count), expected)


def test_integers_are_never_clipped_closer_than_one() -> None:
    values = np.repeat([7, 8, 60], [95, 4, 1])
    assert clipped(values).count == 99
    # As floats they are 95 equal ones and five that stand off from them.
    assert clipped(values.astype(np.float32)).count == 95
    a, b = np.full(100, 7, np.uint16), values.astype(np.uint16)
    assert pair_noise(a, b, digitised=False) == pytest.approx(np.sqrt(0.04 * 0.96 / 2), rel=0.1)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float32, st.integers(1, 200), elements=SMALL))
def test_clipped_stays_inside_the_values(values: npt.NDArray[np.float32]) -> None:
    found = clipped(values)
    assert values.min() <= found.median <= values.max()
    assert values.min() - 1e-3 <= found.mean <= values.max() + 1e-3
    assert 1 <= found.count <= values.size
    assert found.stdev >= 0


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.int16, st.integers(2, 100), elements=st.integers(-500, 500)), st.integers(-1000, 1000))
def test_clipped_moves_with_the_level(values: npt.NDArray[np.int16], shift: int) -> None:
    here, there = clipped(values), clipped((values + np.int16(shift)).astype(np.int16))
    assert there.count == here.count
    assert there.median == here.median + shift
    assert there.stdev == pytest.approx(here.stdev, rel=1e-9, abs=1e-9)


def test_clipping_at_nothing_is_refused() -> None:
    with pytest.raises(BadValue):
        clipped(np.arange(5.0), sigma=0)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 20), st.integers(1, 20)), elements=SMALL), st.data())
def test_imstat_agrees_with_numpy(image: npt.NDArray[np.float32], data: st.DataObject) -> None:
    use = data.draw(hnp.arrays(np.bool_, image.shape))
    found = imstat(image, use)
    values = image[use].astype(np.float64)
    assert found["pixels"] == values.size
    if not values.size:
        assert all(math.isnan(value) for name, value in found.items() if name != "pixels")
        return
    assert found["median"] == np.median(values)
    assert (found["min"], found["max"]) == (values.min(), values.max())
    assert found["mean"] == pytest.approx(values.mean(), rel=1e-9, abs=1e-9)
    expected = values.std(ddof=1) if values.size > 1 else 0
    assert found["stdev"] == pytest.approx(expected, rel=1e-6, abs=1e-5)


def test_imstat_leaves_out_what_is_not_finite_and_reads_either_byte_order() -> None:
    image = np.arange(12.0).reshape(3, 4)
    image[0, 0], image[1, 1] = np.nan, np.inf
    plain = imstat(image)
    assert plain["pixels"] == 10
    assert plain["max"] == 11
    assert imstat(image.astype(">f4")) == imstat(image.astype("<f4"))


def test_imstat_keeps_a_small_scatter_beside_a_large_first_pixel() -> None:
    image = gaussian(0.01, 1000, (300, 300), 8)
    image[0, 0] = 1e9
    assert imstat(image)["clipped_stdev"] == pytest.approx(0.01, rel=0.02)
    use = np.ones(image.shape, np.bool_)
    use[0, 0] = False
    assert imstat(image, use)["stdev"] == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize("noise", [0.8, 2.5, 10.0])
@pytest.mark.parametrize("mean", [1000.0, 1000.35, 1000.5])
@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_pair_noise_is_good_to_a_per_cent(noise: float, mean: float, kind: type) -> None:
    frames = [
        np.rint(with_outliers(gaussian(noise, mean, (1024, 512), seed), 0.01, seed + 1)).astype(kind)
        for seed in (10, 20)
    ]
    assert pair_noise(*frames) == pytest.approx(noise, rel=0.01)


def test_pair_noise_without_digitisation() -> None:
    a, b = gaussian(0.3, 0, (512, 512), 30), gaussian(0.3, 0, (512, 512), 31)
    assert pair_noise(a, b, digitised=False) == pytest.approx(0.3, rel=0.01)


def test_pair_noise_is_of_a_single_frame_and_of_what_counts() -> None:
    a, b = gaussian(4, 0, (256, 256), 32), gaussian(4, 0, (256, 256), 33)
    use = np.ones(a.shape, np.bool_)
    use[:, 100:] = False
    a[:, 100:] *= 20
    assert pair_noise(a, b, use, digitised=False) == pytest.approx(4, rel=0.02)


def test_pair_noise_of_odd_pairs_is_defined() -> None:
    same = np.full((8, 8), 7, np.uint16)
    assert pair_noise(same, same) == 0
    assert math.isnan(pair_noise(same, same, np.zeros((8, 8), np.bool_)))
    with pytest.raises(Mixture, match=r"\(8, 8\)"):
        pair_noise(same, same[:4])


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 8), st.integers(1, 9)), elements=SMALL), st.data())
def test_row_medians_agree_with_numpy(values: npt.NDArray[np.float32], data: st.DataObject) -> None:
    good = data.draw(hnp.arrays(np.bool_, values.shape))
    for row, keep, found in zip(values, good, row_medians(values, good), strict=True):
        if not keep.any():
            assert np.isnan(found)
            continue
        assert found == np.median(row[keep])


def test_usable_may_be_a_view_but_never_changes_the_image() -> None:
    image = gaussian(1, 0, (10, 10), 40)
    before = image.copy()
    imstat(image)
    clipped(image)
    assert (image == before).all()
    assert usable(image).size == 100


def test_read_noise_of_real_biases() -> None:
    from astropy.io import fits

    folder = data_path("nickel-20170302/bias")
    frames = []
    for path in sorted(folder.glob("d10*"))[:4]:
        with fits.open(path) as hdus:
            plane = next(hdu.data for hdu in hdus if hdu.data is not None)
            # The last columns of the image area are off (data README).
            frames.append(np.array(plane[:, :1020]))
    noises = [pair_noise(frames[k], frames[k + 1]) for k in (0, 2)]
    assert noises == pytest.approx([5.55, 5.55], abs=0.10)
    assert noises[0] == pytest.approx(noises[1], rel=0.01)
