"""Weights: each term against its formula, the kernel against its twin, and the whole against simulated frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from awetools.core.errors import Mixture
from awetools.core.pixels.kernels import SWITCH, kernel
from awetools.core.pixels.weight import background_weight

LEVEL = st.floats(0, 60000)


def plane(value: float) -> Any:
    return np.full((1, 1), value, np.float32)


@given(
    sky=LEVEL,
    flat=st.floats(0.1, 2),
    gain=st.floats(0.2, 10),
    noise=st.floats(0.5, 20),
    dark=st.floats(0, 10),
    exptime=st.floats(0, 300),
    bias=st.floats(0.1, 10),
    dark_variance=st.floats(1e-6, 1e-3),
    flat_variance=st.floats(1e-8, 1e-3),
)
def test_the_formula(
    sky: float,
    flat: float,
    gain: float,
    noise: float,
    dark: float,
    exptime: float,
    bias: float,
    dark_variance: float,
    flat_variance: float,
) -> None:
    variance = noise**2 + 1 / 12 + (dark * exptime + sky * flat) / gain
    variance += bias + dark_variance * exptime**2 + sky**2 * flat_variance
    found = background_weight(
        plane(sky),
        flat=plane(flat),
        gain_e_adu=gain,
        read_noise_adu=noise,
        dark_adu_s=plane(dark),
        exptime_s=exptime,
        bias_weight=plane(1 / bias),
        dark_weight=plane(1 / dark_variance),
        flat_weight=plane(1 / flat_variance),
    )
    assert found.dtype == np.float32
    assert float(found[0, 0]) == pytest.approx(flat**2 / variance, rel=1e-5)


ODD = st.floats(width=32, allow_nan=True, allow_infinity=True)
ARRAYS = hnp.arrays(np.float32, (3, 7), elements=ODD)


@given(planes=st.lists(ARRAYS, min_size=8, max_size=8), exptime=st.floats(0, 1e4), without=st.integers(0, 31))
def test_kernel_and_twin_give_the_same_bits(planes: list[Any], exptime: float, without: int) -> None:
    if kernel("weight") is None:
        pytest.skip("the kernel is not built")
    names = ("flat", "dark_adu_s", "bias_weight", "dark_weight", "flat_weight")
    given_planes = {
        name: plane
        for bit, (name, plane) in enumerate(zip(names, planes, strict=False))
        if without >> bit & 1
    }
    bad = planes[7] > 0

    def found() -> Any:
        return background_weight(
            planes[5],
            gain_e_adu=planes[6][:1],
            read_noise_adu=planes[7],
            exptime_s=exptime,
            bad=bad,
            **given_planes,
        )

    with pytest.MonkeyPatch.context() as patch:
        compiled = found()
        patch.setenv(SWITCH, "numpy")
        assert compiled.tobytes() == found().tobytes()
    assert np.isfinite(compiled).all()


def test_the_weight_is_the_inverse_variance_of_simulated_frames() -> None:
    rng = np.random.default_rng(1)
    level, flat, gain, noise = 800.0, 0.7, 1.8, 5.0
    electrons = rng.poisson(level * gain, (600, 600))
    raw = np.rint(electrons / gain + rng.normal(1000, noise, electrons.shape))
    reduced = (raw - 1000) / flat
    found = background_weight(plane(level / flat), flat=plane(flat), gain_e_adu=gain, read_noise_adu=noise)
    assert 1 / float(found[0, 0]) == pytest.approx(reduced.var(), rel=0.01)


def test_amplifiers_broadcast_and_bad_pixels_weigh_nothing() -> None:
    sky = np.full((4, 6), 100, np.float32)
    gain = np.where(np.arange(6) < 3, 1.0, 4.0)
    bad = np.zeros((4, 6), np.bool_)
    bad[2, 2] = True
    found = background_weight(sky, gain_e_adu=gain, read_noise_adu=0.0, bad=bad)
    assert found.shape == (4, 6)
    assert found[0, 0] == pytest.approx(1 / (100 + 1 / 12), rel=1e-6)
    assert found[0, 5] == pytest.approx(1 / (25 + 1 / 12), rel=1e-6)
    assert np.argwhere(found == 0).tolist() == [[2, 2]]


@pytest.mark.parametrize("flat", [0.0, -1.0, np.nan, np.inf])
def test_a_flat_that_is_no_response_weighs_nothing(flat: float) -> None:
    assert background_weight(plane(10), flat=plane(flat), gain_e_adu=1.0, read_noise_adu=1.0).tolist() == [
        [0]
    ]


def test_other_odd_values_are_finite() -> None:
    sky = np.array([[-500.0, np.nan, np.inf, 0.0]], np.float32)
    found = background_weight(sky, gain_e_adu=2.0, read_noise_adu=1.0)[0]
    # A sky below zero has no shot noise; one that is not known has no weight.
    assert found.tolist() == [found[3], 0, 0, found[3]]
    assert found[3] == pytest.approx(12 / 13)


def test_a_calibration_without_weight_adds_no_noise() -> None:
    nothing = np.zeros((1, 1), np.float32)
    found = background_weight(
        plane(100), gain_e_adu=1.0, read_noise_adu=0.0, bias_weight=nothing, flat_weight=nothing
    )
    assert found[0, 0] == pytest.approx(1 / (100 + 1 / 12), rel=1e-6)


def test_planes_of_another_shape_are_refused() -> None:
    sky = np.ones((4, 6), np.float32)
    with pytest.raises(Mixture, match=r"\(4, 5\)"):
        background_weight(sky, gain_e_adu=1.0, read_noise_adu=1.0, flat=np.ones((4, 5), np.float32))
    with pytest.raises(Mixture, match=r"\(2, 6\)"):
        background_weight(sky, gain_e_adu=1.0, read_noise_adu=1.0, bad=np.ones((2, 6), bool))
