"""Stacks: medians to the bit, clipped means against a slow and plain calculation."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from awetools.core.errors import BadValue, Mixture, TooFew
from awetools.core.pixels import sortnetwork, stackblocks
from awetools.core.pixels.stack import clipped_mean, median
from awetools.core.pixels.stackscatter import sigma_clipped_by_scatter

pytestmark = pytest.mark.usefixtures("each_kernel")

Array = npt.NDArray[Any]


def frames(
    n: int, shape: tuple[int, int] = (9, 13), sigma: float = 5, mean: float = 1000, seed: int = 0
) -> Array:
    return np.random.default_rng(seed).normal(mean, sigma, (n, *shape)).astype(np.float32)


def plain_clipped_mean(
    stack: Array, noise: float, sigma: float, use: Array, gain: float | None = None
) -> tuple[Array, Array]:
    """The definition, pixel by pixel."""
    n, ny, nx = stack.shape
    mean, count = np.zeros((ny, nx)), np.zeros((ny, nx), int)
    for y in range(ny):
        for x in range(nx):
            values = stack[use[:, y, x], y, x].astype(np.float64)
            if not values.size:
                continue
            middle = np.median(values)
            signal = max(middle, 0) / gain if gain else 0
            limit = sigma * math.sqrt((noise**2 + 1 / 12 + signal) * (1 + math.pi / (2 * n)))
            kept = values[np.abs(values - middle) <= limit]
            count[y, x] = kept.size
            mean[y, x] = kept.mean() if kept.size else middle
    return mean, count


@pytest.mark.parametrize("n", [*range(1, 35), 50, 64, 65, 100, 101])
@pytest.mark.parametrize("kind", ["f4", "u2", ">f4", ">i2", "f8"])
def test_median_is_exact(n: int, kind: str) -> None:
    stack = frames(n, (3, 7), seed=n).astype(kind)
    expected = np.median(stack.astype("f8" if kind == "f8" else "f4"), axis=0)
    assert (median(stack) == expected).all()


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 12), st.integers(1, 3), st.integers(1, 4)),
        elements=st.floats(-1e6, 1e6, width=32),
    )
)
def test_median_agrees_with_numpy(stack: Array) -> None:
    assert (median(stack) == np.median(stack, axis=0)).all()


@pytest.mark.parametrize("n", range(1, 13))
def test_networks_put_every_rank_in_its_place(n: int) -> None:
    # By the 0-1 principle a network that sorts every row of zeros and ones sorts everything.
    rows = np.array([[bits >> k & 1 for bits in range(2**n)] for k in range(n)], np.uint8)
    work = np.concatenate([rows, rows[:1]])
    planes = sortnetwork.sorted_planes(work, tuple(range(n)))
    assert (np.array(planes) == np.sort(rows, axis=0)).all()


def test_median_of_a_list_of_frames_into_a_given_array() -> None:
    stack = frames(5)
    out = np.zeros((9, 13), np.float32)
    assert median(list(stack), out) is out
    assert (out == np.median(stack, axis=0)).all()


def test_median_of_a_pixel_with_nan_is_nan_and_only_of_that() -> None:
    stack = frames(4)
    stack[2, 3, 4] = np.nan
    assert np.argwhere(np.isnan(median(stack))).tolist() == [[3, 4]]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 9, 10, 30, 257])
@pytest.mark.parametrize("kind", ["f4", "u2", ">f4", "f8"])
def test_clipped_mean_agrees_with_the_definition(n: int, kind: str) -> None:
    rng = np.random.default_rng(n)
    stack = frames(n, (5, 6), seed=n)
    stack[rng.random(stack.shape) < 0.05] += 500
    stack = stack.astype(kind)
    use = rng.random(stack.shape) < 0.8
    for mask in (None, use):
        found = clipped_mean(stack, 4.0, 3.0, mask, gain=50.0)
        chosen = use if mask is not None else np.ones_like(use)
        mean, count = plain_clipped_mean(stack, 4.0, 3.0, chosen, 50.0)
        assert (found.count == count).all()
        np.testing.assert_allclose(found.mean, mean, rtol=3e-7)
        assert found.rejected == chosen.sum() - count.sum()
        assert found.mean.dtype == np.float32
        assert found.count.dtype == np.int16


@settings(max_examples=80, deadline=None)
@given(st.data(), st.integers(1, 9))
def test_masked_medians_agree_with_numpy(data: st.DataObject, n: int) -> None:
    shape = (n, 2, 5)
    kind = data.draw(st.sampled_from([np.float32, np.uint16]))
    # Eighths: the mean of two is exact, and no two are closer than the clip.
    stack = data.draw(hnp.arrays(np.uint16, shape)).astype(kind) / kind(8 if kind is np.float32 else 1)
    stack = stack.astype(kind)
    use = data.draw(hnp.arrays(np.bool_, shape))
    # So narrow a clip keeps the median alone, or nothing: the mean returned is then the median.
    found = clipped_mean(stack, 0.0, 1e-6, use)
    for y, x in np.ndindex(2, 5):
        values = stack[use[:, y, x], y, x].astype(np.float32)
        assert found.mean[y, x] == (np.median(values) if values.size else 0)


@pytest.mark.parametrize("n", [5, 10, 25])
def test_rejection_does_not_move_the_mean_of_gaussian_noise(n: int) -> None:
    stack = frames(n, (300, 300), sigma=4, mean=200, seed=3)
    found = clipped_mean(stack, 4.0, 3.0)
    assert abs(found.mean.mean(dtype=np.float64) - 200) < 0.02 * 4
    # What 3 sigma about the median costs: little rejected, and a scatter near that of the plain mean.
    assert found.mean.std() == pytest.approx(stack.mean(axis=0).std(), rel=0.02)
    assert 0.0005 < found.rejected / stack.size < 0.0027


def test_cosmic_rays_are_rejected_and_counted() -> None:
    stack = frames(10, (50, 50), sigma=3, seed=4)
    clean = stack.mean(axis=0)
    stack[3, 20, 30] += 4000
    stack[7, 20, 30] += 100
    found = clipped_mean(stack, 3.0, 5.0)
    assert found.rejected == 2
    assert found.count[20, 30] == 8
    assert abs(found.mean[20, 30] - clean[20, 30]) < 4


def test_signal_widens_the_limits() -> None:
    stack = np.full((9, 1, 2), 10000, np.float32)
    stack[0] += 90
    assert clipped_mean(stack, 5.0, 3.0).rejected == 2
    assert clipped_mean(stack, 5.0, 3.0, gain=2.0).rejected == 0
    # Amplifiers differ: one gain a column.
    assert clipped_mean(stack, 5.0, 3.0, gain=np.array([[2.0, 2000.0]])).count.tolist() == [[9, 8]]


def test_noise_may_differ_from_column_to_column() -> None:
    stack = np.zeros((5, 2, 2), np.float32)
    stack[0] = 10
    found = clipped_mean(stack, np.array([1.0, 5.0]), 3.0)
    assert found.count.tolist() == [[4, 5], [4, 5]]


def test_scales_give_each_frame_its_own_noise() -> None:
    # Two flats of 400 and 40000 ADU, normalised; an excess of 3% is 1 sigma in the first, 15 in the second.
    flats = np.ones((7, 1, 2), np.float32)
    levels = [400.0, 40000.0, *[40000.0] * 5]
    flats[0, 0, 0] = flats[1, 0, 1] = 1.03
    found = clipped_mean(flats, 5.0, 4.0, gain=1.0, scales=levels)
    assert found.count.tolist() == [[7, 6]]


def test_weights_weigh_and_are_scale_free() -> None:
    stack = np.array([[[1.0]], [[2.0]], [[4.0]]], np.float32)
    found = clipped_mean(stack, 100.0, 3.0, weights=[1, 2, 5])
    assert found.mean[0, 0] == pytest.approx((1 + 4 + 20) / 8, rel=1e-6)
    assert clipped_mean(stack, 100.0, 3.0, weights=[2, 4, 10]).mean[0, 0] == found.mean[0, 0]
    use = np.array([[[True]], [[False]], [[True]]])
    assert clipped_mean(stack, 100.0, 3.0, use, weights=[1, 2, 5]).mean[0, 0] == pytest.approx(
        21 / 6, rel=1e-6
    )


def test_pixels_without_a_value_and_values_that_disagree() -> None:
    stack = np.array([[[5.0, 10.0, np.nan]], [[7.0, 5000.0, np.inf]]], np.float32)
    use = np.array([[[False, True, True]], [[False, True, True]]])
    found = clipped_mean(stack, 1.0, 3.0, use)
    assert found.count.tolist() == [[0, 0, 0]]
    assert found.mean.tolist() == [[0, 2505, 0]]
    assert found.rejected == 2


def test_values_that_are_not_finite_do_not_count() -> None:
    stack = frames(6)
    stack[1, 0, 0], stack[2, 0, 0], stack[3, 4, 4] = np.nan, np.inf, -np.inf
    found = clipped_mean(stack, 5.0, 10.0)
    assert found.count[0, 0] == 4
    assert found.count[4, 4] == 5
    assert found.rejected == 0
    assert found.mean[0, 0] == pytest.approx(stack[[0, 3, 4, 5], 0, 0].mean(), rel=1e-6)


def test_one_frame_is_itself_and_constants_stay() -> None:
    one = frames(1)
    assert (clipped_mean(one, 1.0, 3.0).mean == one[0]).all()
    same = np.full((12, 4, 4), 65535, np.uint16)
    found = clipped_mean(same, 0.0, 3.0)
    assert (found.mean == 65535).all()
    assert found.rejected == 0


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("function", ["median", "clipped_mean", "scatter"])
def test_bits_do_not_depend_on_strips_blocks_or_threads(
    function: str, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = frames(16, (61, 37), seed=8)
    stack[:, ::7, ::5] += 300
    use = np.random.default_rng(9).random(stack.shape) < 0.9 if masked else None

    def run(rows: slice) -> Array:
        part, mask = stack[:, rows], None if use is None else use[:, rows]
        if function == "median":
            return median(part)
        if function == "scatter":
            return sigma_clipped_by_scatter(part, 3.0, mask).mean
        return clipped_mean(part, 5.0, 3.0, mask, gain=3.0, weights=np.arange(1, 17)).mean

    whole = run(slice(None)).tobytes()
    for height in (1, 3, 60):
        strips = [slice(y, min(y + height, 61)) for y in range(0, 61, height)]
        with ThreadPoolExecutor(4) as pool:
            assert np.concatenate(list(pool.map(run, strips))).tobytes() == whole
    monkeypatch.setattr(stackblocks, "BLOCK_PIXELS", 64)
    assert run(slice(None)).tobytes() == whole


def test_a_mask_that_is_full_changes_no_bit() -> None:
    stack = frames(11, (40, 20), seed=10)
    full = np.ones(stack.shape, np.bool_)
    assert clipped_mean(stack, 5.0, 3.0, full).mean.tobytes() == clipped_mean(stack, 5.0, 3.0).mean.tobytes()
    # One masked value elsewhere must not change the bits of this pixel.
    full[0, 39, 19] = False
    one = clipped_mean(stack, 5.0, 3.0, full).mean
    assert one[:39].tobytes() == clipped_mean(stack, 5.0, 3.0).mean[:39].tobytes()


def test_inputs_are_left_alone() -> None:
    stack = frames(7)
    before = stack.copy()
    median(stack)
    clipped_mean(stack, 5.0, 3.0)
    assert (stack == before).all()


@pytest.mark.parametrize("n", [15, 30])
@pytest.mark.parametrize("kind", [np.float32, np.uint16])
def test_scatter_clip_finds_outliers_without_knowing_the_noise(n: int, kind: type) -> None:
    stack = frames(n, (120, 120), sigma=6, mean=500, seed=11).astype(kind)
    stack[2, ::10, ::10] += 200
    found = sigma_clipped_by_scatter(stack, 4.0)
    assert (found.count[::10, ::10] < n).all()
    assert found.rejected / stack.size < 0.02
    bias = found.mean.mean(dtype=np.float64) - (499.5 if kind is np.uint16 else 500)
    assert abs(bias) < 0.02 * 6


def test_scatter_clip_leaves_pixels_with_few_values_alone() -> None:
    stack = frames(16, (4, 4), sigma=1, seed=12)
    stack[0] = 1e4
    use = np.ones(stack.shape, np.bool_)
    use[5:7, 0, 0] = False
    found = sigma_clipped_by_scatter(stack, 3.0, use)
    assert found.count[0, 0] == 14
    assert (found.count.ravel()[1:] < 16).all()
    constant = sigma_clipped_by_scatter(np.full((15, 2, 2), 3.0, np.float32), 3.0)
    assert (constant.mean == 3).all()
    assert constant.rejected == 0


def test_masked_scatter_clip_agrees_with_the_unmasked_one() -> None:
    stack = frames(20, (30, 30), seed=13)
    stack[4, 7, 7] += 400
    padded = np.concatenate([stack, np.full((3, 30, 30), 1e9, np.float32)])
    use = np.ones(padded.shape, np.bool_)
    use[20:] = False
    plain, masked = sigma_clipped_by_scatter(stack, 3.0), sigma_clipped_by_scatter(padded, 3.0, use)
    assert masked.mean.tobytes() == plain.mean.tobytes()
    assert masked.rejected == plain.rejected


def test_wrong_stacks_are_refused_by_name() -> None:
    stack = frames(3)
    with pytest.raises(TooFew):
        median(stack[:0])
    with pytest.raises(TooFew, match="14 frames"):
        sigma_clipped_by_scatter(frames(14), 3.0)
    with pytest.raises(Mixture, match="frame 1"):
        median([stack[0], stack[1][:5]])
    with pytest.raises(Mixture, match="frame 2"):
        median([stack[0], stack[1], stack[2].astype(np.float64)])
    with pytest.raises(Mixture, match="masks"):
        clipped_mean(stack, 1.0, 3.0, np.ones((2, 9, 13), np.bool_))
    with pytest.raises(Mixture, match="2 weights for 3 frames"):
        clipped_mean(stack, 1.0, 3.0, weights=[1, 2])
    with pytest.raises(BadValue, match="scales"):
        clipped_mean(stack, 1.0, 3.0, scales=[1, 0, 2])
    with pytest.raises(BadValue):
        clipped_mean(stack, 1.0, 0.0)
