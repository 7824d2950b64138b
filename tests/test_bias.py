"""Master biases from arrays: both ways to combine, what is not finite, memory and order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from awetools.core.errors import TooFew
from awetools.core.frame import FrameSet
from awetools.core.kind import Result
from awetools.core.kinds.bias import BiasParams, make_bias
from awetools.core.pixels.stack import median_equivalent

pytestmark = pytest.mark.usefixtures("each_kernel")

SHAPE = (96, 80)
NOISE_ADU = 4.0


def exposures(n: int, seed: int = 1) -> list[np.ndarray]:
    """Biases with noise about a pattern, in single precision."""
    rng = np.random.default_rng(seed)
    pattern = 100 + rng.normal(0, 3, SHAPE)
    return [(pattern + rng.normal(0, NOISE_ADU, SHAPE)).astype(np.float32) for _ in range(n)]


def made(frames: FrameSet, combine: str) -> Result:
    """The recipe without an overscan."""
    return make_bias(frames, params=BiasParams(combine=combine, overscan_mode="none"))


@pytest.mark.parametrize("n", [3, 4, 9])
def test_the_median_is_numpys_and_its_weight_that_of_a_median(n: int) -> None:
    frames = exposures(n)
    result = made(FrameSet.of_arrays(frames), "median")
    assert (result.planes["SCI"] == np.median(frames, axis=0)).all()
    noise = result.measures["read_noise_adu"]
    variance = (noise**2 + 1 / 12) / float(median_equivalent(np.array(n)))
    np.testing.assert_allclose(result.planes["WEIGHT"], 1 / variance, rtol=1e-6)
    assert result.measures["rejected_fraction"] == 0


def test_what_is_not_finite_is_left_out_of_either() -> None:
    frames = exposures(5)
    for frame in frames:
        frame[3, 4] = np.nan
    frames[1][5, 6] = np.nan
    others = [frame[5, 6] for number, frame in enumerate(frames) if number != 1]
    for combine, expected in (("median", np.median(others)), ("clipped", np.mean(others))):
        planes = made(FrameSet.of_arrays(frames), combine).planes
        assert planes["SCI"][3, 4] == 0 and planes["WEIGHT"][3, 4] == 0
        assert planes["SCI"][5, 6] == pytest.approx(expected, abs=1e-4)
        assert 0 < planes["WEIGHT"][5, 6] < planes["WEIGHT"][0, 0]


@pytest.mark.parametrize("combine", ["clipped", "median"])
def test_memory_does_not_change_a_bit(combine: str) -> None:
    frames = FrameSet.of_arrays(exposures(6))
    one, other = made(frames, combine), made(replace(frames, memory_bytes=1), combine)
    assert all(one.planes[name].tobytes() == other.planes[name].tobytes() for name in one.planes)
    assert one.measures == other.measures


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 10, 25])
def test_the_median_scatters_like_the_mean_of_so_many(n: int) -> None:
    values = np.random.default_rng(n).normal(0, 1, (n, 200_000))
    found = 1 / np.median(values, axis=0).var()
    assert float(median_equivalent(np.array(n))) == pytest.approx(found, rel=0.02)


def test_a_constant_exposure_is_left_out_by_name() -> None:
    rng = np.random.default_rng(8)
    frames = [rng.normal(1000, 4, (60, 50)).astype(np.float32) for _ in range(4)]
    frames.insert(2, np.full((60, 50), 1000, np.float32))
    result = make_bias(FrameSet.of_arrays(frames), params=BiasParams(overscan_mode="none"))
    assert [one.number for one in result.left_out] == [2] and "1000 ADU" in result.left_out[0].reason
    assert result.measures["frames"] == 4 and result.measures["left_out"] == 1
    with pytest.raises(TooFew, match="2 biases are left of 3"):
        make_bias(FrameSet.of_arrays(frames[1:4]), params=BiasParams(overscan_mode="none"))
