"""Fringes: the pattern comes out of noise and gaps, and its scale out of any gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awetools.core.errors import BadPixels, BadValue, Mixture
from awetools.core.pixels.fringe import fit_fringe, fringe_pattern, noise_spectrum, windowed_fourier_filter

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


def test_small_windows_serve_waves_that_bend_and_large_ones_straight_waves() -> None:
    straight = np.sin(2 * math.pi * (X / 9 + Y / 40)).astype(np.float32)
    bent = np.sin(0.5 * np.hypot(X - 250, Y - 200)).astype(np.float32)
    chirped = np.sin(np.hypot(X - 250, Y - 200) ** 2 / 200).astype(np.float32)
    for waves in (straight, bent, chirped):
        image = (waves + np.random.default_rng(3).normal(0, 1.5, SHAPE)).astype(np.float32)
        variance = np.full(SHAPE, 2.25, np.float32)
        alone = [rms(windowed_fourier_filter(image, variance, 4, sizes=(n,)) - waves) for n in (32, 64, 128)]
        mixed = rms(windowed_fourier_filter(image, variance, 4) - waves)
        assert mixed < 1.15 * min(alone)
        assert mixed < 0.8 * max(alone)


def clumpy(seed: int) -> np.ndarray:
    """Noise with more power in long waves, as faint objects make it: four times in the longest."""
    rng = np.random.default_rng(seed)
    wave = np.hypot(np.fft.fftfreq(SHAPE[0])[:, None], np.fft.rfftfreq(SHAPE[1]))
    shape = np.sqrt(1 + 3 * np.exp(-((wave / 0.05) ** 2)))
    noise: np.ndarray = np.fft.irfft2(np.fft.rfft2(rng.normal(0, 0.01, SHAPE)) * shape, s=SHAPE)
    return noise


def test_the_spectrum_is_that_of_the_noise_and_not_of_the_fringes() -> None:
    halves = [(1 + a * fringes() + clumpy(seed)).astype(np.float32) for seed, a in ((1, 0.02), (2, 0.026))]
    variance, everywhere = np.full(SHAPE, 1e-4, np.float32), np.ones(SHAPE, bool)
    found = noise_spectrum(*halves, variance, variance, everywhere, 200)
    wave = np.arange(len(found)) / 64 / 2
    expected = 1 + 3 * np.exp(-((wave / 0.05) ** 2))
    assert found[3:] == pytest.approx(expected[3:], rel=0.25)
    # Less noise is not believed in, and a spectrum needs pixels that are in both halves.
    assert (noise_spectrum(*halves, 9 * variance, 9 * variance, everywhere, 200) == 1).all()
    assert (noise_spectrum(*halves, variance, variance, ~everywhere) == 1).all()


def test_noise_of_known_colour_leaves_less_of_itself() -> None:
    variance, everywhere = np.full(SHAPE, 1e-4, np.float32), np.ones(SHAPE, bool)
    one, other = (1 + clumpy(seed) for seed in (5, 6))
    noise = noise_spectrum(one, other, variance, variance, everywhere, 200)
    image = (0.5 * (one + other)).astype(np.float32)
    white, known = (
        rms(fringe_pattern(image, 0.5 * variance, everywhere, 200, noise=some)) for some in (None, noise)
    )
    assert known < 0.3 * white
    image += (0.04 * fringes()).astype(np.float32)
    found = fringe_pattern(image, 0.5 * variance, everywhere, 200, noise=noise)
    assert rms(found - 0.04 * fringes()) < 0.1 * rms(0.04 * fringes())


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
    with pytest.raises(Mixture):
        noise_spectrum(image, image[:-1], variance, variance, ~nothing)
    with pytest.raises(BadValue):
        fringe_pattern(image, variance, ~nothing, 4)
