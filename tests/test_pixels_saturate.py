"""Saturated pixels: the level, the growth, and the edges of the frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from awetools.core.errors import BadValue
from awetools.core.pixels.saturate import saturated


@given(hnp.arrays(np.uint16, st.tuples(st.integers(1, 12), st.integers(1, 12))), st.integers(0, 3))
def test_growth_is_all_pixels_within_so_many_rings(raw: npt.NDArray[np.uint16], grow: int) -> None:
    found = saturated(raw, 60000, grow)
    for y, x in np.ndindex(raw.shape):
        near = raw[max(y - grow, 0) : y + grow + 1, max(x - grow, 0) : x + grow + 1]
        assert found[y, x] == (near >= 60000).any()


def test_the_level_itself_is_saturated_and_may_differ_by_amplifier() -> None:
    raw = np.array([[59999, 60000, 65535, 59999]], np.uint16)
    assert saturated(raw, 60000, grow=0).tolist() == [[False, True, True, False]]
    level = np.array([50000.0, 65535.0, np.inf, 60000.0])
    assert saturated(raw, level, grow=0).tolist() == [[True, False, False, False]]


def test_values_that_are_not_finite() -> None:
    raw = np.array([[np.nan, np.inf, -np.inf]])
    assert saturated(raw, 1.0, grow=0).tolist() == [[False, True, False]]


def test_strips_with_a_margin_agree_with_the_whole() -> None:
    raw = np.random.default_rng(1).integers(0, 65536, (40, 30)).astype(np.uint16)
    whole = saturated(raw, 65000, 2)
    parts: list[Any] = []
    for y in range(0, 40, 8):
        low = max(y - 2, 0)
        parts.append(saturated(raw[low : y + 10], 65000, 2)[y - low : y - low + 8])
    assert (np.concatenate(parts) == whole).all()


def test_growing_backwards_is_refused() -> None:
    with pytest.raises(BadValue):
        saturated(np.zeros((2, 2)), 1.0, grow=-1)
