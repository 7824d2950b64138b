"""Mask bits: their values are a promise to every reader of a product, so they are written out here."""

from __future__ import annotations

import numpy as np
import pytest

from awetools.core.pixels.mask import BIT_NAMES, ZERO_WEIGHT, Bit, bad

PROMISED = {
    "HOT": 1,
    "COLD": 2,
    "SATURATED": 4,
    "COSMIC": 8,
    "TRAIL": 16,
    "OUTSIDE": 32,
    "INTERPOLATED": 64,
    "USER": 128,
    "NONLINEAR": 256,
    "UNCALIBRATED": 512,
    "CLIPPED": 1024,
}


def test_bits_have_the_promised_values() -> None:
    assert {bit.name: int(bit) for bit in Bit} == PROMISED


def test_every_bit_has_a_name_of_its_own_for_the_header() -> None:
    assert set(BIT_NAMES) == set(Bit)
    assert len(set(BIT_NAMES.values())) == len(Bit)
    assert BIT_NAMES[Bit.UNCALIBRATED] == "no calibration"


@pytest.mark.parametrize("bit", list(Bit))
def test_all_bits_but_interpolated_and_clipped_take_the_weight_away(bit: Bit) -> None:
    mask = np.array([[0, int(bit)]], np.int16)
    expected = bit not in (Bit.INTERPOLATED, Bit.CLIPPED)
    assert bad(mask).tolist() == [[False, expected]]
    assert bool(ZERO_WEIGHT & bit) is expected


def test_a_mask_keeps_its_type() -> None:
    mask = np.zeros(4, np.int16)
    assert (mask & ZERO_WEIGHT).dtype == np.int16
    assert bad(mask).dtype == np.bool_


def test_a_good_bit_does_not_hide_a_bad_one() -> None:
    assert bad(np.array([Bit.INTERPOLATED | Bit.HOT, Bit.INTERPOLATED | Bit.CLIPPED], np.int16)).tolist() == [
        True,
        False,
    ]
