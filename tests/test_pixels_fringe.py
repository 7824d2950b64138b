"""Fringes: the pattern comes out of noise and gaps, and its scale out of any gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awetools.core.errors import BadPixels, BadValue, Mixture
from awetools.core.pixels.fringe import fit_fringe, fringe_pattern, windowed_fourier_filter

SHAPE = (420, 507)
Y, X = np.mgrid[: SHAPE[0], : SHAPE[1]]


def fringes() -> np.ndarray:
    """Bent waves of 18 to 40 pixels, rms 0.7."""
    phase = 2 * math.pi * (X / 28 + 6 * np.sin(Y / 190.0) + Y / 90)
    waves: np.ndarray = np.sin(phase).astype(np.float32)
    return waves - waves.mean()


def noisy(amplitude: float, noise: float, seed: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = 1 + amplitude * fringes() + rng.normal(0, noise, SHAPE)
    return image.astype(np.float32), np.full(SHAPE, noise**2, np.float32)


def rms(image: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(image))))


def test_the_pattern_comes_out_of_noise_as_strong_as_itself() -> None:
    image, variance = noisy(0.02, 0.014)
    found = fringe_pattern(image, variance, np.ones(SHAPE, bool), 200)
    assert found.dtype == np.float32 and abs(found.mean()) < 1e-4
    assert rms(found - 0.02 * fringes()) < 0.1 * rms(0.02 * fringes())


def test_gradients_and_halos_are_no_fringes() -> None:
    image, variance = noisy(0.0, 0.01)
    image += (0.05 * (X / SHAPE[1]) + 0.03 * (Y / SHAPE[0]) ** 2).astype(np.float32)
    found = fringe_pattern(image, variance, np.ones(SHAPE, bool), 200)
    assert rms(found) < 1e-3


def test_gaps_are_filled_with_what_is_around() -> None:
    image, variance = noisy(0.02, 0.004)
    use = np.ones(SHAPE, bool)
    use[:, 200:203] = use[150:175, 300:330] = False
    image[~use] = 1e6
    found = fringe_pattern(image, variance, use, 200)
    assert np.isfinite(found).all()
    assert rms((found - 0.02 * fringes())[~use]) < 0.5 * rms(0.02 * fringes())
    assert rms((found - 0.02 * fringes())[use]) < 0.08 * rms(0.02 * fringes())


def test_noise_alone_has_no_pattern() -> None:
    image, variance = noisy(0.0, 0.01)
    assert rms(fringe_pattern(image, variance, np.ones(SHAPE, bool))) < 3e-4


def test_windows_add_up_to_what_they_were_cut_from() -> None:
    rng = np.random.default_rng(1)
    for shape in ((1, 1), (5, 130), (97, 48), (200, 3)):
        image = rng.normal(3, 1, shape).astype(np.float32)
        same = windowed_fourier_filter(image, np.zeros(shape, np.float32), 4.0)
        np.testing.assert_allclose(same, image, atol=2e-5)


@settings(max_examples=15, deadline=None)
@given(scale=st.floats(-500, 2000), gx=st.floats(-0.3, 0.3), curve=st.floats(-0.1, 0.1))
def test_the_scale_is_that_of_the_frame_whatever_its_sky(scale: float, gx: float, curve: float) -> None:
    rng = np.random.default_rng(8)
    x, y = X / SHAPE[1] - 0.5, Y / SHAPE[0] - 0.5
    image = 1000 * (1 + gx * x + curve * (x * x + y * y)) + scale * 0.02 * fringes() + rng.normal(0, 5, SHAPE)
    use = rng.random(SHAPE) > 0.1
    image[~use] = 1e5
    image[100:110, 100:110] += 4000
    fit = fit_fringe(image.astype(np.float32), 0.02 * fringes(), use, 128)
    assert fit.scale == pytest.approx(scale, abs=max(6 * fit.error, 0.01 * abs(scale)))
    assert 0.1 < fit.error < 5


def test_the_error_is_the_scatter_of_the_scale() -> None:
    fits = []
    for seed in range(30):
        image, _ = noisy(0.02, 0.05, seed)
        fits.append(fit_fringe(image, 0.02 * fringes(), np.ones(SHAPE, bool), 128))
    assert np.std([fit.scale for fit in fits]) == pytest.approx(np.mean([fit.error for fit in fits]), rel=0.4)


def test_a_pattern_that_is_nothing_has_scale_zero() -> None:
    image, _ = noisy(0.02, 0.01)
    fit = fit_fringe(image, np.zeros(SHAPE, np.float32), np.ones(SHAPE, bool))
    assert fit.scale == 0 and math.isinf(fit.error)


def test_bad_input_is_named() -> None:
    image, variance = noisy(0.02, 0.01)
    nothing = np.zeros(SHAPE, bool)
    with pytest.raises(BadPixels):
        fringe_pattern(image, variance, nothing)
    with pytest.raises(BadPixels):
        fit_fringe(image, image, nothing)
    with pytest.raises(Mixture):
        fringe_pattern(image, variance[:-1], ~nothing)
    with pytest.raises(Mixture):
        fit_fringe(image, image[:-1], ~nothing)
    with pytest.raises(BadValue):
        fringe_pattern(image, variance, ~nothing, 4)
