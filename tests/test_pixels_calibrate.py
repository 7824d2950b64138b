"""Calibrating rows: the formula, what is masked, and the kernel against its twin."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from awetools.core.errors import Mixture
from awetools.core.pixels.calibrate import calibrate, mark_reaching
from awetools.core.pixels.kernels import SWITCH, kernel
from awetools.core.pixels.mask import Bit, bad, good, mark

Array = npt.NDArray[Any]

PLANES = ("bias", "dark", "nonlinear_adu", "flat")
needs_kernel = pytest.mark.skipif(kernel("calibrate") is None, reason="kernel not built")


def test_the_formula_and_every_bit() -> None:
    data = np.array([[1150, 1000, 1000, 1000, 60000, 1000, 1000]], np.float32)
    mask = np.zeros(data.shape, np.int16)
    flat = np.array([[0.5, 0, 1, 1, 1, np.nan, 1]], np.float32)
    one = np.ones(data.shape, np.float32)
    bias_weight, hot = one.copy(), mask.copy()
    bias_weight[0, 2], hot[0, 3] = 0, Bit.HOT
    calibrate(
        data,
        mask,
        bias=100 * one,
        dark=5 * one,
        dark_factor=10,
        nonlinear_adu=50000 * one,
        flat=flat,
        weights=[bias_weight, one],
        masks=[None, hot],
    )
    assert data.tolist() == [[2000, 0, 850, 850, 59850, 0, 850]]
    assert mask.tolist() == [[0, Bit.OUTSIDE, Bit.UNCALIBRATED, Bit.HOT, Bit.NONLINEAR, Bit.OUTSIDE, 0]]


def test_planes_of_another_shape_are_refused() -> None:
    data, mask = np.zeros((3, 4), np.float32), np.zeros((3, 4), np.int16)
    with pytest.raises(Mixture):
        calibrate(data, mask, bias=np.zeros((4, 3), np.float32))
    with pytest.raises(Mixture):
        calibrate(data, mask, masks=[np.zeros((2, 4), np.int16)])


@needs_kernel
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_kernel_and_twin_give_the_same_bits(data: st.DataObject) -> None:
    ny, nx = data.draw(st.tuples(st.integers(0, 4), st.integers(0, 40)))
    floats = st.floats(width=32) | st.sampled_from([0.0, -0.0, 1.0, 3e38])

    def plane(kind: type, rows: int) -> Array | None:
        elements = floats if kind is np.float32 else st.sampled_from([0, 1, 32, 513])
        return data.draw(st.none() | hnp.arrays(kind, (rows, nx), elements=elements))

    given_planes = {name: plane(np.float32, data.draw(st.sampled_from([1, ny]))) for name in PLANES}
    weights, masks = [plane(np.float32, ny) for _ in range(2)], [plane(np.int16, ny) for _ in range(3)]
    image = data.draw(hnp.arrays(np.float32, (ny, nx), elements=floats))
    level = data.draw(hnp.arrays(np.float32, max(ny - 1, 0), elements=floats))
    found = []
    for switch in ("", "numpy"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(SWITCH, switch)
            out, bits = image.copy(), np.zeros((ny, nx), np.int16)
            any_found = mark_reaching(out, bits, level, min(1, ny), (nx // 3, nx), Bit.SATURATED)
            calibrate(out, bits, **given_planes, dark_factor=7.3, weights=weights, masks=masks)  # type: ignore[arg-type]
            found.append((out.tobytes(), bits.tobytes(), any_found))
    assert found[0] == found[1]


@needs_kernel
def test_the_kernel_refuses_what_does_not_fit() -> None:
    module = kernel("calibrate")
    assert module is not None
    data, mask = np.zeros((3, 4), np.float32), np.zeros((3, 4), np.int16)
    plane, zeros = np.zeros((3, 4), np.float32), np.zeros((3, 4), np.int16)
    rest = [*[plane] * 6, *[zeros] * 3]
    with pytest.raises(ValueError):
        module.calibrate((data, mask[:2], *rest), 1.0, 1, 2, 4)
    with pytest.raises(ValueError):
        module.calibrate((data, mask, data[:2], *rest[1:]), 1.0, 1, 2, 4)
    with pytest.raises(TypeError):
        module.calibrate((data, mask.astype(np.int32), *rest), 1.0, 1, 2, 4)
    for place in ((1, 0, 4), (0, 0, 5), (0, 3, 2), (-1, 0, 4)):
        with pytest.raises(ValueError):
            module.mark(data, mask, np.zeros(3, np.float32), *place, 4)


@given(hnp.arrays(np.int16, st.tuples(st.integers(0, 4), st.integers(0, 9))))
def test_good_and_bad_pixels(mask: Array) -> None:
    usable = (mask & ~np.int16(Bit.INTERPOLATED | Bit.CLIPPED) & 0x7FF) == 0
    assert (good(mask) == usable).all() and (bad(mask) == ~usable).all()
    before, where = mask.copy(), mask % 3 == 0
    mark(mask, where, Bit.TRAIL)
    assert (mask == np.where(where, before | Bit.TRAIL, before)).all()
