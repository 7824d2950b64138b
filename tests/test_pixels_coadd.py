"""Layers become one image: means, outliers, masks; the kernel's bits are its twin's; strips are the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awetools.core.errors import BadValue
from awetools.core.pixels.coadd import Layer, Stacking, Strip, sorting_network, stack_layers
from awetools.core.pixels.kernels import SWITCH, kernel

CLIPPED, INTERPOLATED, OUTSIDE, SATURATED = 1024, 64, 32, 4


def whole(values, weight=1.0, mask=0) -> list[Layer]:
    """Layers of (n, ny, nx) values that cover their grid."""
    values = np.asarray(values, np.float32)
    _, ny, nx = values.shape
    weight = np.broadcast_to(np.asarray(weight, np.float32), values.shape).copy()
    mask = np.broadcast_to(np.asarray(mask, np.int16), values.shape).copy()
    return [Layer(i, (0, ny), (0, nx), values[i], weight[i], mask[i]) for i in range(len(values))]


def stacked(layers: list[Layer], **options) -> Strip:
    ny, nx = (max(one[axis][1] for one in layers) for axis in (1, 2))
    return stack_layers(layers, (0, ny), nx, max(one.number for one in layers) + 1, Stacking(**options))


def same(one: Strip, other: Strip) -> None:
    for name, a, b in zip(one._fields, one, other, strict=True):
        assert a.dtype == b.dtype, name
        assert a.tobytes() == b.tobytes(), name


def ragged(rng: np.random.Generator, ny: int, nx: int, n: int) -> list[Layer]:
    """Layers that cover parts of a grid, with bad pixels, masks, outliers, stars."""
    made = []
    y, x = np.mgrid[:ny, :nx]
    sky = 300 * np.exp(-((y - ny / 2) ** 2 + (x - nx / 3) ** 2) / 8)
    for number in range(n):
        y0, y1 = np.sort(rng.integers(0, ny + 1, 2))
        x0, x1 = np.sort(rng.integers(0, nx + 1, 2))
        shape = y1 - y0, x1 - x0
        data = sky[y0:y1, x0:x1] * rng.uniform(0.6, 1.5) + rng.normal(0, 3, shape)
        data[rng.random(shape) < 0.03] += 500
        data[rng.random(shape) < 0.02] = 0.0
        data[rng.random(shape) < 0.02] = -0.0
        weight = np.where(rng.random(shape) < 0.15, 0, rng.uniform(0.05, 0.2, shape))
        mask = np.where(weight == 0, rng.choice([0, 1, 4, 32, 36], shape), rng.choice([0, 0, 64], shape))
        planes = data.astype(np.float32), weight.astype(np.float32), mask.astype(np.int16)
        made.append(Layer(number, (int(y0), int(y1)), (int(x0), int(x1)), *planes))
    return [one for one in made if one.data.size]


@settings(max_examples=120, deadline=None)
@given(
    st.integers(0, 1 << 32),
    st.integers(1, 40),
    st.integers(1, 45),
    st.integers(0, 9),
    st.sampled_from(["mean", "clip", "median"]),
    st.integers(0, 5),
    st.integers(1, 12),
)
def test_the_kernel_has_the_bits_of_its_twin_and_strips_those_of_the_whole(
    seed, ny, nx, n, method, reach, step
) -> None:
    layers = ragged(np.random.default_rng(seed), ny, nx, n)
    how = Stacking(method, 3.0, 0.4, reach)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SWITCH, "numpy")
        twin = stack_layers(layers, (0, ny), nx, 10, how)
    if kernel("coadd") is not None:
        same(stack_layers(layers, (0, ny), nx, 10, how), twin)
    parts = []
    for first in range(0, ny, step):
        rows = first, min(ny, first + step)
        cut = [_cut(one, rows[0] - how.halo_px, rows[1] + how.halo_px) for one in layers]
        parts.append(stack_layers([one for one in cut if one is not None], rows, nx, 10, how))
    joined = [np.concatenate(planes) for planes in zip(*(one[:5] for one in parts), strict=True)]
    same(Strip(*joined, sum(one.tally for one in parts)), twin)


def _cut(layer: Layer, first: int, last: int) -> Layer | None:
    y0, y1 = max(first, layer.rows[0]), min(last, layer.rows[1])
    if y0 >= y1:
        return None
    part = slice(y0 - layer.rows[0], y1 - layer.rows[0])
    return layer._replace(
        rows=(y0, y1), data=layer.data[part], weight=layer.weight[part], mask=layer.mask[part]
    )


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 13, 60, 200])
def test_the_network_sorts(n: int) -> None:
    values = np.random.default_rng(n).normal(size=(n, 50))
    for low, high in sorting_network(n):
        values[low], values[high] = (
            np.minimum(values[low], values[high]),
            np.maximum(values[low], values[high]),
        )
    assert (np.diff(values, axis=0) >= 0).all()


def test_mean_and_median_are_what_they_say() -> None:
    rng = np.random.default_rng(1)
    values, weight = rng.normal(10, 2, (7, 9, 33)), rng.uniform(0.1, 2, (7, 9, 33))
    layers = whole(values, weight)
    mean = stacked(layers, method="mean")
    exact = np.average(
        np.stack([one.data for one in layers]), axis=0, weights=np.stack([one.weight for one in layers])
    )
    assert np.allclose(mean.sci, exact, rtol=1e-6)
    assert np.allclose(mean.weight, weight.sum(axis=0), rtol=1e-6)
    assert (mean.entered == 7).all()
    assert not mean.mask.any()
    middle = stacked(layers, method="median")
    assert np.array_equal(middle.sci, np.median(np.stack([one.data for one in layers]), axis=0))
    assert (middle.weight < mean.weight).all()


@pytest.mark.parametrize(
    ("n", "high", "low"), [(2, True, False), (3, True, True), (4, True, True), (5, True, True)]
)
def test_outliers_are_left_out_and_named(n: int, high: bool, low: bool) -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(0, 1, (n, 30, 40))
    values[1, 5, 7] += 60
    values[0, 20, 11] -= 60
    found = stacked(whole(values))
    listed = {tuple(one) for one in found.clipped.tolist()}
    assert ((5, 7, 1) in listed) == high
    assert ((20, 11, 0) in listed) == low or n == 2
    assert found.mask[5, 7] == CLIPPED
    assert found.entered[5, 7] == n - 1
    assert abs(found.sci[5, 7]) < 4
    assert found.tally[1, 1] >= 1
    assert found.tally.sum() == n * 1200


def test_a_constant_sky_and_a_galaxy_do_not_hide_outliers_but_seeing_does_not_make_them() -> None:
    y, x = np.mgrid[:60, :60]
    rng = np.random.default_rng(3)

    def star(fwhm: float) -> np.ndarray:
        r2 = (x - 30.3) ** 2 + (y - 29.6) ** 2
        core = (1 + 4 * (2 ** (1 / 3.5) - 1) * r2 / fwhm**2) ** -3.5
        return 1e5 * core / core.sum()

    smooth = 5000 + 3 * x
    for widths in ((3.9, 3.9, 5.46), (4.5, 5.46, 5.46), (3.9, 5.46)):
        values = [smooth + star(one) + rng.normal(0, 10, x.shape) for one in widths]
        values[0][10, 40] += 150
        found = stacked(whole(values, 0.01), clip_sigma=4.0)
        assert (10, 40, 0) in {tuple(one) for one in found.clipped.tolist()}
        core = np.hypot(x - 30.3, y - 29.6) < 8
        assert (found.entered[core] == len(widths)).mean() > 0.99


@pytest.mark.parametrize("kernels", ["", "numpy"])
@pytest.mark.parametrize("method", ["mean", "clip", "median"])
def test_where_nothing_good_is_left_the_mask_says_why_and_only_light_has_a_value(
    method: str, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWETOOLS_KERNELS", kernels)
    values = np.full((2, 1, 8), 7.0)
    values[1] = 9
    weight = np.array([[[0, 0, 0, 1, 0, 0, 0, 0]], [[0, 1, 0, 0, 0, 0, 0, 0]]])
    mask = np.array([[[4, 4, 32, 0, 36, 8, 256, 4]], [[32, 64, 32, 4, 1, 3, 16, 4]]])
    found = stacked(whole(values, weight, mask), method=method)
    assert found.mask.tolist() == [
        [SATURATED, INTERPOLATED, OUTSIDE, 0, SATURATED | 1, 8 | 3, 256 | 16, SATURATED]
    ]
    assert found.sci.tolist() == [[7, 9, 0, 7, 7, 0, 7, 8]]
    assert found.weight.tolist() == [[0, 1, 0, 1, 0, 0, 0, 0]]
    assert found.entered.tolist() == [[0, 1, 0, 1, 0, 0, 0, 0]]


def test_values_that_all_disagree_are_all_kept() -> None:
    found = stacked(whole([[[0.0]], [[0.0]], [[1000.0]], [[1000.0]]]))
    assert found.entered.tolist() == [[4]]
    assert found.sci.tolist() == [[500]]
    assert not len(found.clipped)


@pytest.mark.parametrize(
    "options", [{"method": "sum"}, {"clip_sigma": 0}, {"clip_fraction": -1}, {"reach_px": -1}]
)
def test_what_makes_no_sense(options) -> None:
    with pytest.raises(BadValue):
        Stacking(**options)
