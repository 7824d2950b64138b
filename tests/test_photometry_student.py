"""Student's distribution: as scipy has it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awetools.core.photometry.student import MANY, reach, within


@given(st.one_of(st.integers(1, 60), st.sampled_from([MANY, MANY + 1, 5000])), st.floats(0.01, 5))
def test_the_reach_is_that_of_scipy(freedom: int, sigma: float) -> None:
    special = pytest.importorskip("scipy.special")
    wanted = special.stdtrit(freedom, special.ndtr(sigma))
    assert reach(freedom, sigma) == pytest.approx(wanted, rel=1e-8)


def test_the_reach_grows_with_sigma_and_ends() -> None:
    assert reach(1, 1.0) == pytest.approx(math.tan(math.pi / 2 * math.erf(1 / math.sqrt(2))), rel=1e-12)
    assert within(4, reach(4, 2.0)) == pytest.approx(math.erf(math.sqrt(2)), abs=1e-13)
    assert math.isinf(reach(3, 9.0))
