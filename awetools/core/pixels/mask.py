"""The one meaning of every mask bit, so that each step reads what another step wrote."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntFlag
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt


class Bit(IntFlag):
    """What is known of a pixel; a mask is an int16 array of sums of these."""

    HOT = 1
    COLD = 2
    SATURATED = 4
    COSMIC = 8
    TRAIL = 16
    OUTSIDE = 32
    INTERPOLATED = 64
    USER = 128
    NONLINEAR = 256
    UNCALIBRATED = 512
    CLIPPED = 1024


BIT_NAMES: Mapping[Bit, str] = MappingProxyType(
    {
        Bit.HOT: "hot",
        Bit.COLD: "cold",
        Bit.SATURATED: "saturated",
        Bit.COSMIC: "cosmic ray",
        Bit.TRAIL: "satellite trail",
        Bit.OUTSIDE: "outside",
        Bit.INTERPOLATED: "interpolated",
        Bit.USER: "user",
        Bit.NONLINEAR: "nonlinear",
        Bit.UNCALIBRATED: "no calibration",
        Bit.CLIPPED: "clipped",
    }
)

# A plain int: numpy then keeps the mask's own type in `mask & ZERO_WEIGHT`.
ZERO_WEIGHT: int = sum(int(bit) for bit in Bit if bit not in (Bit.INTERPOLATED, Bit.CLIPPED))

# What has these bits is light, if not all of it.
LIGHT: int = int(Bit.SATURATED | Bit.NONLINEAR)

# Pixels that stay in the processor's cache from one step to the next.
BLOCK_PIXELS = 1 << 16


def good(mask: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """True where a pixel may have a weight: what is not :func:`bad`."""
    usable = bad(mask)
    return np.logical_not(usable, out=usable)


def bad(mask: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """True where a pixel must have weight 0.

    ``mask`` is an integer array of any shape; the result has the same shape. Every
    bit counts but INTERPOLATED and CLIPPED, whose pixels hold usable values.
    """
    zero_weight: npt.NDArray[np.bool_] = np.empty(mask.shape, np.bool_)
    row, found = mask.reshape(-1), zero_weight.reshape(-1)
    for at in range(0, row.size, BLOCK_PIXELS):
        part = slice(at, at + BLOCK_PIXELS)
        np.not_equal(row[part] & ZERO_WEIGHT, 0, out=found[part])
    return zero_weight


def mark(mask: npt.NDArray[Any], where: npt.NDArray[np.bool_], bit: Bit) -> None:
    """Set a bit of the few pixels where a plane of the same shape is True; ``mask`` is contiguous."""
    # For few pixels their places are faster than the plane.
    mask.reshape(-1)[np.flatnonzero(where)] |= bit
