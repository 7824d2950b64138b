"""Photon transfer and linearity: the numbers that made a flat come back, whatever else is in it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awetools.core.errors import BadPixels, Mixture, NoSolution
from awetools.core.pixels.transfer import (
    Transfer,
    TransferFit,
    fit_linearity,
    fit_transfer,
    lamp_scatter,
    pair_transfer,
)

SHAPE = (256, 320)
READ_NOISE_ADU = 3.0
SCALE_ADU = 60000.0


def response(seed: int = 1, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Vignetting, dust and the pixels' own responses."""
    y, x = np.mgrid[: shape[0], : shape[1]] / max(shape)
    image = 1 - 0.3 * (x - 0.4) ** 2 - 0.1 * y
    image[(x - 0.5) ** 2 + (y - 0.3) ** 2 < 0.002] *= 0.9
    return np.asarray(image * (1 + 0.02 * np.random.default_rng(seed).standard_normal(shape)))


def flat(level_adu: float, gain: float, seed: int, light: np.ndarray | None = None) -> np.ndarray:
    """One exposure: photons, read noise, digits."""
    rng = np.random.default_rng(seed)
    light = response() if light is None else light
    noise = rng.normal(0, READ_NOISE_ADU, light.shape)
    return np.rint(rng.poisson(level_adu * gain * light) / gain + noise)


def pair(level_adu: float = 20000, gain: float = 1.8, ratio: float = 1.0, seed: int = 2) -> list[np.ndarray]:
    return [flat(level_adu, gain, seed), flat(level_adu * ratio, gain, seed + 1)]


def found(images: Sequence[np.ndarray], use: np.ndarray | None = None) -> Transfer:
    one = pair_transfer(images[0], images[1], READ_NOISE_ADU, use)
    assert one is not None
    return one


def points(levels: Sequence[float], gain: float, error: float = 1e-3, bend: float = 0.0) -> list[Transfer]:
    """Noiseless points: variance / level falls exponentially by `bend` at the scale."""
    slopes = [math.exp(-bend * level / SCALE_ADU) / gain for level in levels]
    return [
        Transfer(level, slope, error * slope, 100000) for level, slope in zip(levels, slopes, strict=True)
    ]


# A pair


@pytest.mark.parametrize("gain", [0.5, 1.8, 5.0])
@pytest.mark.parametrize("ratio", [1.0, 0.965])
def test_a_pair_gives_the_gain_whatever_the_light_looks_like(gain: float, ratio: float) -> None:
    one = found(pair(20000, gain, ratio))
    assert one.adu_per_e * gain == pytest.approx(1, abs=4 * one.error * gain)
    assert one.error * gain < 0.01
    assert one.level_adu == pytest.approx(20000 * response().mean(), rel=0.03)
    assert one.variance_adu2 == pytest.approx(one.level_adu * one.adu_per_e)
    assert one.pixels > 0.9 * SHAPE[0] * SHAPE[1]


@settings(max_examples=15, deadline=None)
@given(level=st.floats(300, 50000), gain=st.floats(0.4, 6), seed=st.integers(0, 10**6))
def test_the_error_of_a_pair_is_its_error(level: float, gain: float, seed: int) -> None:
    one = found(pair(level, gain, seed=seed))
    assert abs(one.adu_per_e * gain - 1) < 5 * one.error * gain


def test_what_is_not_light_does_not_count() -> None:
    clean = found(pair())
    images = pair()
    images[0][::37, ::41] += 3000.0
    images[1][100, :] = 20.0
    images[0][:, 77] = np.nan
    images[1][5, 5] = np.inf
    one = found(images)
    assert one.adu_per_e == pytest.approx(clean.adu_per_e, rel=0.01)
    masked = pair()
    use = np.ones(SHAPE, dtype=bool)
    masked[0][64:128, :] += np.random.default_rng(3).normal(0, 1000, (64, SHAPE[1]))
    use[64:128] = False
    assert found(masked, use).adu_per_e == pytest.approx(clean.adu_per_e, rel=0.02)


def test_squares_with_another_noise_are_left_out() -> None:
    images = pair()
    images[0][32:96, 64:160] += np.random.default_rng(3).normal(0, 150, (64, 96))
    assert found(images).adu_per_e == pytest.approx(found(pair()).adu_per_e, rel=0.01)


def test_types_and_small_images() -> None:
    images = pair()
    whole = [image.astype(np.uint16) for image in images]
    assert found(whole) == found([image.astype(np.float32) for image in images])
    small = [image[:20, :45] for image in images]
    assert found(small).adu_per_e == pytest.approx(1 / 1.8, rel=0.25)


def test_pairs_that_say_nothing() -> None:
    images = pair()
    with pytest.raises(Mixture, match=r"\(256, 320\)"):
        pair_transfer(images[0], images[1][:-1], READ_NOISE_ADU)
    with pytest.raises(BadPixels, match="read noise"):
        pair_transfer(images[0], images[0], READ_NOISE_ADU)
    assert pair_transfer(images[0], images[1], READ_NOISE_ADU, np.zeros(SHAPE, dtype=bool)) is None
    assert pair_transfer(-images[0], -images[1], READ_NOISE_ADU) is None
    nothing = np.full(SHAPE, np.nan)
    assert pair_transfer(nothing, nothing, READ_NOISE_ADU) is None
    assert pair_transfer(images[0][:1, :1], images[1][:1, :1], READ_NOISE_ADU) is None


# The curve


def fitted(pairs: Sequence[Transfer]) -> TransferFit:
    return fit_transfer(pairs, SCALE_ADU, READ_NOISE_ADU)


def test_a_bent_curve_gives_the_gain_at_zero() -> None:
    fit = fitted(points([5000, 12000, 20000, 30000], 1.8, bend=0.2))
    assert fit.gain_e_adu == pytest.approx(1.8, rel=0.003)
    assert abs(fit.gain_e_adu - 1.8) < fit.error_e_adu < 0.01
    assert fit.change == pytest.approx(-0.2, abs=0.02)
    assert float(fit.change_at(SCALE_ADU)) == pytest.approx(math.expm1(-0.2), abs=0.03)
    one = points([20000], 1.8, bend=0.2)[0]
    assert float(fit.variance_adu2(20000)) == pytest.approx(one.variance_adu2, rel=0.002)


def test_one_level_is_taken_as_it_is_with_a_larger_error() -> None:
    fit = fitted(points([20000, 20100, 19900], 1.8))
    assert fit.gain_e_adu == pytest.approx(1.8, rel=1e-6)
    assert fit.error_e_adu / 1.8 == pytest.approx(0.05, rel=0.1)
    low = fitted(points([2000], 1.8))
    assert low.error_e_adu < fit.error_e_adu / 5


def test_noise_between_pairs_of_one_level_makes_no_slope() -> None:
    noisy = [
        Transfer(level, slope / 1.8, 1e-3 / 1.8, 1000)
        for level, slope in ((20000, 1.003), (20100, 0.997), (19900, 1.0))
    ]
    assert fitted(noisy).gain_e_adu == pytest.approx(1.8, rel=0.002)


def test_one_pair_off_the_curve_is_left_out() -> None:
    pairs = points([5000, 12000, 20000, 25000, 30000], 1.8)
    pairs[2] = Transfer(20000, 1.3 / 1.8, 1e-3 / 1.8, 1000)
    fit = fitted(pairs)
    assert fit.kept.tolist() == [True, True, False, True, True]
    assert fit.gain_e_adu == pytest.approx(1.8, rel=1e-3)
    assert fitted(points([5000, 12000, 20000, 25000, 30000], 1.8)).kept.all()


def test_noise_that_does_not_grow_with_light_is_told_from_gain() -> None:
    excess = 6.0
    levels = [1000, 2000, 6000, 15000, 30000]
    pairs = [Transfer(level, 1 / 1.8 + excess / level, 5e-4, 1000) for level in levels]
    fit = fitted(pairs)
    assert fit.gain_e_adu == pytest.approx(1.8, rel=2e-3)
    assert fit.excess_adu2 == pytest.approx(excess, rel=0.1)


@settings(max_examples=30, deadline=None)
@given(
    factor=st.floats(0.01, 100),
    levels=st.lists(st.floats(1000, 50000), min_size=1, max_size=6),
    bend=st.floats(0, 0.2),
)
def test_the_unit_does_not_matter(factor: float, levels: list[float], bend: float) -> None:
    pairs = points(levels, 2.0, bend=bend)
    scaled = [
        Transfer(one.level_adu * factor, one.adu_per_e * factor, one.error * factor, 1) for one in pairs
    ]
    fit = fitted(pairs)
    other = fit_transfer(scaled, SCALE_ADU * factor, READ_NOISE_ADU * factor)
    assert other.gain_e_adu * factor == pytest.approx(fit.gain_e_adu, rel=1e-6)
    assert other.error_e_adu * factor == pytest.approx(fit.error_e_adu, rel=1e-6)


def test_no_pair() -> None:
    with pytest.raises(NoSolution):
        fitted([])


# The lamp and linearity


def test_lamp_scatter_is_that_of_equal_exposures() -> None:
    assert lamp_scatter([100, 200, 400], ["a", "b", "c"]) is None
    assert lamp_scatter([99, 101, 400], ["a", "a", "b"]) == pytest.approx(math.sqrt(2) / 100)
    assert lamp_scatter([99, 101, 400, 400], ["a", "a", "b", "b"]) == pytest.approx(1 / 100)


def ramp(order: Sequence[int], loss: float, drift: float, jitter: float = 2e-4) -> tuple[np.ndarray, ...]:
    """Pairs of exposures in this order of levels; loss at the scale, drift of the lamp over the sequence."""
    exptime = np.repeat([2.0 * (1 + one) for one in order], 2)
    start = np.arange(len(exptime)) * 60.0
    lamp = 2000 * (1 + drift * start / start[-1])
    lamp *= 1 + np.random.default_rng(5).normal(0, jitter, len(lamp))
    light = lamp * exptime
    return light * (1 - loss * light / SCALE_ADU), exptime, start


MIXED = (4, 1, 8, 0, 6, 3, 9, 2, 7, 5)


@pytest.mark.parametrize("drift", [0.0, 0.02])
def test_linearity_is_told_from_a_drift_by_the_order(drift: float) -> None:
    levels, exptime, start = ramp(MIXED, 0.04, drift)
    fit = fit_linearity(levels, exptime, start, ["R"] * len(levels), SCALE_ADU, 2e-4)
    top = float(levels.max())
    true = -0.04 * 40000 / SCALE_ADU
    assert fit.error_fraction < 0.002
    assert fit.largest_fraction == pytest.approx(true, abs=4 * fit.error_fraction)
    # 1% is lost of 15,000 ADU, so 14,850 are read.
    assert fit.nonlinear_adu == pytest.approx(14850, rel=0.15)
    assert fit.deviation[np.argmax(levels)] == pytest.approx(true, abs=0.002)
    assert top < SCALE_ADU


def test_a_ramp_cannot_tell_a_drift_from_nonlinearity_and_says_so() -> None:
    levels, exptime, start = ramp(range(10), 0.0, 0.03, jitter=1e-3)
    fit = fit_linearity(levels, exptime, start, ["R"] * len(levels), SCALE_ADU, 1e-3)
    assert fit.error_fraction > 0.005
    assert abs(fit.largest_fraction) < 4 * fit.error_fraction


def test_a_linear_detector_has_no_level_of_nonlinearity() -> None:
    levels, exptime, start = ramp(MIXED, 0.0, 0.0)
    fit = fit_linearity(levels, exptime, start, ["R"] * len(levels), SCALE_ADU, 2e-4)
    assert math.isnan(fit.nonlinear_adu)
    assert abs(fit.largest_fraction) < 4 * fit.error_fraction


def test_filters_may_have_lamps_of_their_own() -> None:
    levels, exptime, start = ramp(MIXED, 0.04, 0.0)
    lamps = ["R", "V"] * (len(levels) // 2)
    levels[1::2] *= 0.4
    exptime[1::2] *= 0.7
    fit = fit_linearity(levels, exptime, start, lamps, SCALE_ADU, 2e-4)
    assert fit.error_fraction < 0.01
