"""Pictures of images: limits, grey levels, shrinking."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from awetools.core.errors import BadValue
from awetools.core.pixels.stretch import STRETCHES, shrink, to_bytes, zscale

FLOATS = st.floats(-1e5, 1e5, width=32)


def test_zscale_shows_the_sky_and_not_the_stars() -> None:
    rng = np.random.default_rng(1)
    image = rng.normal(1000, 10, (800, 700)).astype(np.float32)
    image[rng.random(image.shape) < 0.01] = 60000
    low, high = zscale(image)
    assert 950 < low < 990
    assert 1010 < high < 1200
    steep = zscale(image, contrast=1.0)
    assert steep[0] > low
    assert steep[1] < high


@pytest.mark.parametrize("contrast", [0.5, 1.0])
def test_zscale_is_that_of_astropy_but_for_the_sample(contrast: float) -> None:
    from astropy.visualization import ZScaleInterval

    rng = np.random.default_rng(2)
    image = rng.normal(500, 20, (400, 500)) + np.linspace(0, 50, 500)
    # Tails on both sides, so that the limits are those of the fit and not the extremes of the sample.
    image[rng.random(image.shape) < 0.05] += 300
    image[rng.random(image.shape) < 0.05] -= 300
    expected = ZScaleInterval(n_samples=10_000, contrast=contrast).get_limits(image)
    # Without the growing of what is clipped the limits are some 3% of the range wider.
    assert zscale(image, contrast) == pytest.approx(expected, abs=0.05 * np.ptp(expected))


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], (0, 0)), ([np.nan], (0, 0)), ([5.0] * 9, (5, 5)), ([1.0], (1, 1)), ([1.0, 3.0], (1, 3))],
)
def test_zscale_of_odd_images_is_defined(values: list[float], expected: tuple[float, float]) -> None:
    assert zscale(np.array(values)) == expected


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float32, st.integers(1, 300), elements=FLOATS))
def test_zscale_stays_inside_the_image(image: npt.NDArray[np.float32]) -> None:
    low, high = zscale(image)
    assert image.min() <= low <= high <= image.max()


def test_zscale_leaves_out_what_is_not_used() -> None:
    image = np.random.default_rng(3).normal(0, 1, (50, 50))
    use = np.ones(image.shape, np.bool_)
    use[:, 25:] = False
    spoiled = np.where(use, image, 1e6)
    assert zscale(spoiled, use=use) == zscale(image, use=use)


@pytest.mark.parametrize("stretch", STRETCHES)
def test_every_stretch_runs_from_black_to_white(stretch: str) -> None:
    values = np.linspace(-20, 120, 1000, dtype=np.float32)
    grey = to_bytes(values, 0, 100, stretch)
    assert grey.dtype == np.uint8
    assert (np.diff(grey.astype(int)) >= 0).all()
    assert (grey[values <= 0] == 0).all()
    assert (grey[values >= 100] == 255).all()
    assert len(np.unique(grey)) > 100


def test_stretches_have_their_formulae() -> None:
    value = np.array([25.0])
    assert to_bytes(value, 0, 100, "linear")[0] == 64
    assert to_bytes(value, 0, 100, "sqrt")[0] == 128
    assert to_bytes(value, 0, 100, "asinh")[0] == round(255 * np.arcsinh(2.5) / np.arcsinh(10))
    assert to_bytes(value, 0, 100, "log")[0] == round(255 * np.log1p(250) / np.log1p(1000))


@pytest.mark.parametrize("stretch", STRETCHES)
def test_odd_values_and_equal_limits_are_defined(stretch: str) -> None:
    assert to_bytes(np.array([np.nan, -np.inf, np.inf]), 0, 1, stretch).tolist() == [0, 0, 255]
    assert to_bytes(np.array([4.0, 5.0, 6.0, np.nan]), 5, 5, stretch).tolist() == [0, 0, 255, 0]


def test_wrong_stretches_and_limits_are_refused() -> None:
    with pytest.raises(BadValue, match="asinh"):
        to_bytes(np.zeros(2), 0, 1, "asihn")
    with pytest.raises(BadValue):
        to_bytes(np.zeros(2), 1, 0)
    with pytest.raises(BadValue):
        zscale(np.zeros(2), contrast=0)
    with pytest.raises(BadValue):
        shrink(np.zeros((2, 2)), 0)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 6))
def test_shrink_is_the_mean_of_what_is_good(data: st.DataObject, factor: int) -> None:
    shape = data.draw(st.tuples(st.integers(1, 14), st.integers(1, 14)))
    image = data.draw(hnp.arrays(np.float32, shape, elements=FLOATS))
    use = data.draw(hnp.arrays(np.bool_, shape))
    found = shrink(image, factor, use)
    assert found.shape == (-(-shape[0] // factor), -(-shape[1] // factor))
    for y, x in np.ndindex(found.shape):
        part: Any = np.s_[y * factor : (y + 1) * factor, x * factor : (x + 1) * factor]
        values = image[part][use[part]]
        if not values.size:
            assert np.isnan(found[y, x])
            continue
        assert found[y, x] == pytest.approx(values.mean(dtype=np.float64), rel=1e-5, abs=1e-5)


def test_shrink_by_one_is_the_image_and_nan_is_not_good() -> None:
    image = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert (shrink(image, 1) == image).all()
    image[0, 0] = np.nan
    assert shrink(image, 2).tolist() == [[pytest.approx(8 / 3), 3.5]]
