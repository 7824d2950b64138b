"""Weights: each term against its formula, and the whole against the scatter of simulated frames."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from awetools.core.pixels.weight import background_weight

LEVEL = st.floats(0, 60000)


@given(
    sky=LEVEL,
    flat=st.floats(0.1, 2),
    gain=st.floats(0.2, 10),
    noise=st.floats(0.5, 20),
    dark=st.floats(0, 1000),
    bias=st.floats(0, 10),
    dark_variance=st.floats(0, 10),
    flat_variance=st.floats(0, 1e-3),
)
def test_the_formula(
    sky: float,
    flat: float,
    gain: float,
    noise: float,
    dark: float,
    bias: float,
    dark_variance: float,
    flat_variance: float,
) -> None:
    variance = (
        noise**2 + 1 / 12 + (dark + sky) / gain + bias + dark_variance + (sky / flat) ** 2 * flat_variance
    )
    found = background_weight(
        sky,
        flat,
        gain_e_adu=gain,
        read_noise_adu=noise,
        dark_adu=dark,
        bias_variance_adu2=bias,
        dark_variance_adu2=dark_variance,
        flat_variance=flat_variance,
    )
    assert found.dtype == np.float32
    assert float(found) == pytest.approx(flat**2 / variance, rel=1e-5)


def test_the_weight_is_the_inverse_variance_of_simulated_frames() -> None:
    rng = np.random.default_rng(1)
    sky, flat, gain, noise = 800.0, 0.7, 1.8, 5.0
    electrons = rng.poisson(sky * gain, (600, 600))
    raw = np.rint(electrons / gain + rng.normal(1000, noise, electrons.shape))
    reduced = (raw - 1000) / flat
    found = background_weight(sky, flat, gain_e_adu=gain, read_noise_adu=noise)
    assert 1 / float(found) == pytest.approx(reduced.var(), rel=0.01)


def test_amplifiers_broadcast_and_bad_pixels_weigh_nothing() -> None:
    sky = np.full((4, 6), 100, np.float32)
    gain = np.where(np.arange(6) < 3, 1.0, 4.0)
    bad = np.zeros((4, 6), np.bool_)
    bad[2, 2] = True
    found = background_weight(sky, np.ones((4, 6)), gain_e_adu=gain, read_noise_adu=0.0, bad=bad)
    assert found.shape == (4, 6)
    assert found[0, 0] == pytest.approx(1 / (100 + 1 / 12), rel=1e-6)
    assert found[0, 5] == pytest.approx(1 / (25 + 1 / 12), rel=1e-6)
    assert np.argwhere(found == 0).tolist() == [[2, 2]]


@pytest.mark.parametrize("flat", [0.0, -1.0, np.nan, np.inf])
def test_a_flat_that_is_no_response_weighs_nothing(flat: float) -> None:
    assert background_weight(10.0, np.array([flat]), gain_e_adu=1.0, read_noise_adu=1.0).tolist() == [0]


def test_other_odd_values_are_finite() -> None:
    sky = np.array([-500.0, np.nan, np.inf, 0.0])
    found = background_weight(sky, 1.0, gain_e_adu=2.0, read_noise_adu=1.0)
    # A sky below zero has no shot noise; one that is not known has no weight.
    assert found.tolist() == [found[3], 0, 0, found[3]]
    assert found[3] == pytest.approx(12 / 13)
