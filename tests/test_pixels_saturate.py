"""Saturated pixels: the level, the growth, the edges of the frame, and what they bled into."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from awetools.core.errors import BadValue
from awetools.core.pixels.saturate import Residual, saturated
from awetools.core.simulate.readout import bleed

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]


def at(residual: Floats) -> Residual:
    """The residuals of an image as `saturated` asks for them."""
    return lambda rows, columns: residual[rows, columns]


def test_the_level_itself_is_saturated_and_may_differ_by_amplifier() -> None:
    raw = np.array([[59999, 60000, 65535, 59999]], np.uint16)
    assert saturated(raw, 60000, grow=0).tolist() == [[False, True, True, False]]
    level = np.array([50000.0, 65535.0, np.inf, 60000.0])
    assert saturated(raw, level, grow=0).tolist() == [[True, False, False, False]]


LEVELS = st.floats(-70000, 70000) | st.sampled_from(
    [np.inf, -np.inf, np.nan, 65535.0, 32767.0, -32768.0, 0.0]
)


@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.uint8])
@given(data=st.data())
def test_integers_reach_a_level_as_real_numbers_do(kind: type, data: st.DataObject) -> None:
    raw = data.draw(hnp.arrays(kind, (3, 5)))
    level = data.draw(hnp.arrays(np.float32, (1, 5), elements=LEVELS.map(np.float32)))
    assert (saturated(raw, level, grow=0) == (raw.astype(np.float64) >= level)).all()


def test_values_that_are_not_finite() -> None:
    raw = np.array([[np.nan, np.inf, -np.inf]])
    assert saturated(raw, 1.0, grow=0).tolist() == [[False, True, False]]


def test_growing_backwards_is_refused() -> None:
    with pytest.raises(BadValue):
        saturated(np.zeros((2, 2)), 1.0, grow=-1)


# Bleeding


def star(shape: tuple[int, int], row: float, column: float, peak: float, fwhm_px: float = 4.0) -> Floats:
    """A Moffat profile on a sky of 1000 ADU."""
    alpha2 = fwhm_px**2 / (4 * (2 ** (1 / 3.5) - 1))
    y, x = np.mgrid[: shape[0], : shape[1]]
    profile: Floats = (1000 + peak * (1 + ((y - row) ** 2 + (x - column) ** 2) / alpha2) ** -3.5).astype("f4")
    return profile


def bled(light: Floats, full_well: float) -> tuple[Floats, Bools]:
    """The frame after bleeding along the columns, with its noise, and what was touched."""
    touched = bleed(light, full_well)
    rng = np.random.default_rng(3)
    light += rng.normal(0, 5, light.shape).astype("f4")
    return light, touched


@pytest.mark.parametrize("fwhm_px", [2.0, 4.0, 8.0])
def test_bleeding_stars_are_masked_and_little_else(fwhm_px: float) -> None:
    light = np.float32(1000) + sum(
        star((400, 300), row, column, peak, fwhm_px) - 1000
        for row, column, peak in [
            (100.3, 50.0, 1e6),
            (200.0, 150.4, 3e6),
            (250.2, 222.7, 6e5),
            (380.0, 80.0, 2e6),
        ]
    )
    raw, touched = bled(light.astype("f4"), 60000)
    residual = ((raw - 1000) / 5).astype("f4")
    for mask in (saturated(raw, 59000), saturated(raw, 59000, at(residual))):
        assert (mask & touched).sum() >= 0.99 * touched.sum()
        assert (mask & touched).sum() >= 0.9 * mask.sum()


def test_the_pixel_that_took_the_last_charge_is_masked() -> None:
    raw = np.full((9, 3), 100.0)
    raw[2:6, 1] = 60000
    raw[6, 1] = 7000
    mask = saturated(raw, 60000)
    assert mask[:, 1].tolist() == [False, True, True, True, True, True, True, False, False]
    assert not mask[:, [0, 2]].any()
    assert saturated(raw, 60000, grow=0).sum() == 4


def test_neighbours_that_are_nearly_full_are_masked() -> None:
    raw = np.full((5, 5), 100.0)
    raw[2, 2] = 60000
    raw[2, 1], raw[2, 3] = 50000, 40000
    mask = saturated(raw, 60000)
    assert mask[2].tolist() == [False, True, True, False, False]


def test_a_tail_that_fades_is_followed_and_ends() -> None:
    raw, residual = np.full((60, 9), 100.0), np.zeros((60, 9), np.float32)
    raw[10:30, 4] = 60000
    residual[10:30, 4] = 5000
    residual[30:45, 4] = np.linspace(300, 6, 15)
    without = saturated(raw, 60000)
    mask = saturated(raw, 60000, at(residual))
    assert np.flatnonzero(without[:, 4]).tolist() == list(range(9, 31))
    assert np.flatnonzero(mask[:, 4]).tolist() == list(range(9, 45))
    assert not mask[:, :4].any()
    residual[33, 4] = np.nan
    assert np.flatnonzero(saturated(raw, 60000, at(residual))[:, 4]).max() == 32


def test_the_light_of_a_round_star_is_no_tail() -> None:
    raw = star((80, 80), 40.0, 40.0, 2e5, 6.0)
    residual = ((raw - 1000) / 5).astype("f4")
    assert (saturated(raw, 60000) == saturated(raw, 60000, at(residual))).all()


@given(
    hnp.arrays(np.uint16, st.tuples(st.integers(1, 12), st.integers(1, 12))),
    st.integers(0, 3),
    st.integers(0, 99),
)
def test_between_the_saturated_pixels_and_their_rings(
    raw: npt.NDArray[np.uint16], grow: int, seed: int
) -> None:
    residual = np.random.default_rng(seed).normal(0, 30, raw.shape).astype("f4")
    mask, full = saturated(raw, 60000, grow=grow), raw >= 60000
    assert not (full & ~mask).any()
    for y, x in np.argwhere(mask):
        assert full[max(y - grow, 0) : y + grow + 1, max(x - grow, 0) : x + grow + 1].any()
    assert not (mask & ~saturated(raw, 60000, at(residual), grow)).any()
    turned = saturated(raw.T.copy(), 60000, at(residual.T.copy()), grow, "rows")
    assert (saturated(raw, 60000, at(residual), grow) == turned.T).all()


def test_frames_that_are_wholly_or_never_saturated() -> None:
    residual = np.zeros((20, 30), np.float32)
    assert saturated(np.full((20, 30), 65535, np.uint16), 60000, at(residual)).all()
    assert not saturated(np.full((20, 30), 65535, np.uint16), np.inf, at(residual)).any()
    assert not saturated(np.full((20, 30), np.nan), 60000.0, at(residual)).any()


def test_a_saturated_hot_column_stays_one_column() -> None:
    raw = np.full((40, 11), 500, np.uint16)
    raw[:, 5] = 65535
    residual = np.random.default_rng(2).normal(0, 1, raw.shape).astype("f4")
    mask = saturated(raw, 65535, at(residual))
    assert mask[:, 5].all() and mask.sum() == 40


def test_saturated_at_the_edge_with_a_level_of_each_amplifier() -> None:
    raw = np.full((12, 6), 100.0)
    raw[0, 0] = raw[-1, -1] = 50000
    level = np.array([[50000.0] * 3 + [60000.0] * 3])
    mask = saturated(raw, level, at(np.zeros(raw.shape, np.float32)))
    assert np.argwhere(mask).tolist() == [[0, 0], [1, 0]]


def test_another_direction_is_refused() -> None:
    with pytest.raises(BadValue):
        saturated(np.zeros((2, 2)), 1.0, direction="diagonals")
    with pytest.raises(BadValue):
        saturated(np.zeros((2, 2)), 1.0, grow=-1)
