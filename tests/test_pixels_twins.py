"""The kernels of stacks, statistics, overscan and byte order give the bits of their numpy twins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from awetools.core.fitsbytes import folded, ones_sum
from awetools.core.fitsvalues import FLIPPED, swapped, words_sum
from awetools.core.pixels import stats
from awetools.core.pixels.kernels import SWITCH, kernel
from awetools.core.pixels.overscan import less_levels, overscan_rows
from awetools.core.pixels.smooth import background, block_statistics, interpolate_blocks
from awetools.core.pixels.stack import clipped_mean, median
from awetools.core.pixels.stats import clipped, imstat, line_means, row_medians

Array = npt.NDArray[Any]
T = TypeVar("T")

pytestmark = pytest.mark.skipif(
    any(kernel(name) is None for name in ("stack", "stats", "overscan", "smooth", "bytes")),
    reason="kernels not built",
)

FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)
CALM = st.floats(-2000, 2000, width=32)


def both(make: Callable[[], T]) -> tuple[T, T]:
    """What the kernel gives, and what the twin gives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(SWITCH, raising=False)
        compiled = make()
        patch.setenv(SWITCH, "numpy")
        return compiled, make()


def same_bits(one: Array, other: Array) -> bool:
    """Equal to the bit; one not-a-number is as good as another."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    unknown = np.isnan(one) if one.dtype.kind == "f" else np.zeros(one.shape, np.bool_)
    if (unknown != (np.isnan(other) if one.dtype.kind == "f" else unknown)).any():
        return False
    return one[~unknown].tobytes() == other[~unknown].tobytes()


def stacks(values: st.SearchStrategy[float]) -> st.SearchStrategy[Array]:
    shape = st.tuples(st.integers(1, 11), st.integers(1, 3), st.integers(1, 5))
    return shape.flatmap(lambda one: hnp.arrays(np.float32, one, elements=values))


@settings(max_examples=100, deadline=None)
@given(stacks(FLOATS))
def test_medians(stack: Array) -> None:
    assert same_bits(*both(lambda: median(stack)))


@settings(max_examples=150, deadline=None)
@given(st.data(), stacks(FLOATS | CALM))
@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
def test_clipped_means(data: st.DataObject, stack: Array) -> None:
    n, ny, nx = stack.shape
    use = data.draw(st.none() | hnp.arrays(np.bool_, stack.shape))
    gain = data.draw(st.none() | st.just(1.7) | st.just(np.linspace(1, 2, nx)[None]))
    noise = data.draw(
        st.sampled_from([3.0, np.linspace(1, 9, nx)[None], np.linspace(1, 9, ny * nx).reshape(ny, nx)])
    )
    many = st.none() | st.just(np.linspace(0.5, 2, n).tolist())
    weights, scales = data.draw(many), data.draw(many)
    one, other = both(lambda: clipped_mean(stack, noise, 2.5, use, gain, weights, scales))
    assert same_bits(one.mean, other.mean)
    assert same_bits(one.count, other.count)
    assert one.rejected == other.rejected


@pytest.mark.parametrize("n", [1, 2, 3, 8, 31, 100, 257])
@pytest.mark.parametrize("kind", ["f4", "u2", ">i2", "u1"])
def test_wide_stacks_of_all_types_and_numbers(n: int, kind: str) -> None:
    rng = np.random.default_rng(n)
    stack = rng.normal(100, 5, (n, 3, 300))
    stack[rng.random(stack.shape) < 0.02] = 200
    stack = np.rint(stack).astype(kind)
    use = rng.random(stack.shape) < 0.9
    for mask in (None, use):
        one, other = both(lambda mask=mask: clipped_mean(list(stack), 5.0, 3.0, mask))  # type: ignore[misc]
        assert same_bits(one.mean, other.mean) and same_bits(one.count, other.count)
        assert one.rejected == other.rejected
    assert same_bits(*both(lambda: median(stack)))


@pytest.mark.parametrize("n", [1, 2, 9, 40])
def test_wide_stacks_with_some_values_that_are_not_finite(n: int) -> None:
    rng = np.random.default_rng(n)
    stack = rng.normal(100, 5, (n, 2, 400)).astype(np.float32)
    stack[:, :, 130:140] = np.nan
    stack[0, 0, 5], stack[-1, 1, 300] = np.inf, -np.inf
    one, other = both(lambda: clipped_mean(stack, 5.0, 3.0))
    assert same_bits(one.mean, other.mean) and same_bits(one.count, other.count)
    assert one.rejected == other.rejected
    assert (one.count[:, 130:140] == 0).all() and one.count[1, 300] <= n - 1


def large(rng: np.random.Generator, kind: str) -> Array:
    values = rng.normal(1000, 30, stats.SAMPLE_SIZE + 12345)
    values[rng.random(values.size) < 0.01] += 4000
    return np.rint(values).astype(kind) if kind == "u2" else values.astype(kind)


@pytest.mark.parametrize("kind", ["f4", "u2", "f8", ">f4"])
@pytest.mark.parametrize("masked", [False, True])
def test_statistics_of_large_images(kind: str, masked: bool) -> None:
    rng = np.random.default_rng(7)
    image = large(rng, kind)
    if image.dtype.kind == "f":
        image[::1001], image[5::2003] = np.nan, np.inf
    use = rng.random(image.size) < 0.9 if masked else None
    one, other = both(lambda: (imstat(image, use), clipped(image, use=use)))
    assert repr(one) == repr(other)
    # And the slow, plain way.
    kept = image[np.isfinite(image) & (True if use is None else use)].astype(np.float64)
    found = one[0]
    assert found["pixels"] == kept.size
    assert (found["min"], found["max"], found["median"]) == (kept.min(), kept.max(), np.median(kept))
    assert found["mean"] == pytest.approx(kept.mean(), rel=1e-12)
    assert found["stdev"] == pytest.approx(kept.std(ddof=1), rel=1e-12)


@pytest.mark.parametrize("fill", [0.0, -3.5, 1e30])
def test_statistics_of_large_constant_images(fill: float) -> None:
    image = np.full(stats.SAMPLE_SIZE * 2, fill, np.float32)
    one, other = both(lambda: imstat(image))
    assert repr(one) == repr(other)
    assert one["median"] == np.float32(fill) and one["stdev"] == 0 and one["clipped_stdev"] == 0


def test_a_median_far_from_that_of_the_sample_is_found_all_the_same() -> None:
    # Every value that the sample takes is large, so no bracket made of them holds the median.
    image = np.random.default_rng(3).normal(0, 1, stats.SAMPLE_SIZE * 4).astype(np.float32)
    image[:: (image.size // stats.SAMPLE_SIZE) | 1] += 1000
    one, other = both(lambda: imstat(image))
    assert repr(one) == repr(other)
    assert one["median"] == np.median(image.astype(np.float64))


def test_statistics_of_nothing() -> None:
    image = np.zeros((600, 600), np.float32)
    one, other = both(lambda: imstat(image, np.zeros(image.shape, np.bool_)))
    assert repr(one) == repr(other) and one["pixels"] == 0


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.float32, st.integers(1, 300), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
    )
)
def test_moments_and_order(values: Array) -> None:
    one, other = both(lambda: stats._moments(values))
    assert repr(one) == repr(other)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stats, "SORT_AT_LEAST", 1)
        assert same_bits(*both(lambda: stats._sorted_floats(values)))


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 40)), elements=CALM))
def test_means_of_lines(image: Array) -> None:
    one, other = both(lambda: line_means(image, -500.0, 700.0))
    assert same_bits(one[0], other[0]) and same_bits(one[1], other[1])
    cut = np.clip(image.astype(np.float64), -500, 700)
    np.testing.assert_allclose(one[0], cut.mean(axis=1), atol=1e-9)
    np.testing.assert_allclose(one[1], cut.mean(axis=0), atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_row_medians(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 9)))
    values = data.draw(hnp.arrays(np.float32, shape, elements=CALM))
    good = data.draw(hnp.arrays(np.bool_, shape))
    one, other = both(lambda: row_medians(values, good))
    assert same_bits(one, other)
    for found, row, keep in zip(one, values, good, strict=True):
        assert np.isnan(found) if not keep.any() else found == np.float32(np.median(row[keep]))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_overscan(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 80), st.integers(1, 12)))
    strip = data.draw(hnp.arrays(np.uint16, shape, elements=st.integers(990, 1010)))
    if data.draw(st.booleans()):
        strip = strip.astype(np.float32)
        strip[data.draw(hnp.arrays(np.bool_, shape))] = np.nan
        assume(np.isfinite(strip).any())
    mode = data.draw(st.sampled_from(["level", "rows", "rows-smooth"]))
    one, other = both(lambda: overscan_rows(strip, mode))
    assert same_bits(one.rows, other.rows)
    assert repr((one.level_adu, one.noise_adu, one.slope_adu_per_row)) == repr(
        (other.level_adu, other.noise_adu, other.slope_adu_per_row)
    )
    assert (one.rejected, one.columns_rejected) == (other.rejected, other.columns_rejected)


@pytest.mark.parametrize("rows", [3, 51, 52, 130, 801, 2003])
@pytest.mark.parametrize("gaps", [0.0, 0.02, 0.7])
def test_overscan_of_many_rows_with_a_step(rows: int, gaps: float) -> None:
    rng = np.random.default_rng(rows)
    strip = rng.normal(1000, 3, (rows, 20)).astype(np.float32)
    strip += (8 * np.sin(np.arange(rows) / 90))[:, None]
    strip[rows // 3 :] += 12
    strip[rng.random(rows) < gaps] = np.nan
    strip[0, 0] = 1000
    one, other = both(lambda: overscan_rows(strip, "rows-smooth"))
    assert same_bits(one.rows, other.rows)
    assert (one.level_adu, one.slope_adu_per_row, one.noise_adu, one.rejected, one.columns_rejected) == (
        other.level_adu,
        other.slope_adu_per_row,
        other.noise_adu,
        other.rejected,
        other.columns_rejected,
    )


@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True), (True, True)])
def test_rows_less_their_levels(kind: type, turned: tuple[bool, bool]) -> None:
    rng = np.random.default_rng(1)
    raw = rng.integers(0, 30000, (7, 40)).astype(kind)
    levels = rng.normal(1000, 1, 7).astype(np.float32)

    def image() -> Array:
        out = np.zeros((9, 30), np.float32)
        less_levels(raw, (5, 26), turned, levels, out, (1, 4))
        return out

    one, other = both(image)
    assert same_bits(one, other)
    expected = raw[:: -1 if turned[1] else 1, 5:26][:, :: -1 if turned[0] else 1].astype(np.float32)
    assert (one[1:8, 4:25] == expected - levels[:, None]).all()
    one[1:8, 4:25] = 0
    assert not one.any()


@pytest.mark.parametrize("kind", ["i2", "i4", "i8", "f4", "f8"])
@pytest.mark.parametrize("size", [0, 1, 7, 1000])
def test_bytes_are_turned_round(kind: str, size: int) -> None:
    numbers = np.random.default_rng(size).integers(-100, 100, size).astype(kind)
    target = np.empty_like(numbers)
    if swapped(numbers, target):
        assert target.tobytes() == numbers.byteswap().tobytes()
    else:
        assert not size


@given(st.binary(max_size=200))
def test_sums_of_words(data: bytes) -> None:
    one, other = both(lambda: ones_sum([data]))
    assert one == other


@given(hnp.arrays(np.float32, st.integers(0, 30)), hnp.arrays(np.uint16, st.integers(0, 31)))
def test_sums_of_words_that_are_not_yet_turned_round(floats: Array, unsigned: Array) -> None:
    found = words_sum(floats, flip=False)
    assert found is not None and folded(found) == ones_sum([floats.byteswap().tobytes()])
    assert (16, 1 << 15) in FLIPPED
    found = words_sum(unsigned, flip=True)
    assert found is not None and folded(found) == ones_sum([(unsigned ^ 0x8000).byteswap().tobytes()])


def test_sky_of_some_rows_of_a_block() -> None:
    rng = np.random.default_rng(3)
    image = rng.normal(800, 30, (301, 423)).astype(np.float32)
    image[::17, ::19] += 3000
    use = rng.random(image.shape) > 0.02
    use[:128, :128] = False
    for size in (16, 50, 64, 200):
        assert same_bits(*both(lambda size=size: background(image, use, size)))  # type: ignore[misc]


@settings(max_examples=80, deadline=None)
@given(st.data())
@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
def test_blocks(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    few = st.sampled_from([-0.0, 0.0, 1.0, 2.0, 3.0, 900.0])
    elements = data.draw(st.sampled_from([CALM, few, CALM | st.just(float("nan")) | st.just(float("inf"))]))
    image = data.draw(hnp.arrays(np.float32, shape, elements=elements))
    use = data.draw(st.none() | hnp.arrays(np.bool_, shape))
    size = data.draw(st.integers(2, 21))
    one, other = both(lambda: block_statistics(image, use, size))
    for name in ("median", "mode", "stdev", "count"):
        assert same_bits(getattr(one, name), getattr(other, name)), name
    assert same_bits(*both(lambda: interpolate_blocks(np.nan_to_num(one.mode), one, shape)))


def test_blocks_of_a_sky_with_stars() -> None:
    rng = np.random.default_rng(2)
    image = rng.normal(800, 30, (300, 421)).astype(np.float32)
    image[::17, ::19] += 3000
    image[5:9] = np.nan
    use = rng.random(image.shape) > 0.02
    use[:128, :128] = False
    one, other = both(lambda: block_statistics(image, use, 64))
    for name in ("median", "mode", "stdev", "count"):
        assert same_bits(getattr(one, name), getattr(other, name)), name


def test_kernels_refuse_what_does_not_fit() -> None:
    module = kernel("stack")
    assert module is not None
    values, out = np.zeros((3, 4), np.float32), np.zeros(4, np.float32)
    with pytest.raises(ValueError):
        module.median(values, np.array([[0, 3, 0]], np.int16), out)
    with pytest.raises(ValueError):
        module.median(values, np.zeros((0, 3), np.int16), out[:3])
    with pytest.raises(TypeError):
        module.median(values.astype(np.float64), np.zeros((0, 3), np.int16), out)
