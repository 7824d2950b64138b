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


def good(mask: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """True where a pixel may have a weight: what is not :func:`bad`."""
    usable: npt.NDArray[np.bool_] = (mask & ZERO_WEIGHT) == 0
    return usable


def bad(mask: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """True where a pixel must have weight 0.

    ``mask`` is an integer array of any shape; the result has the same shape. Every
    bit counts but INTERPOLATED and CLIPPED, whose pixels hold usable values.
    """
    zero_weight: npt.NDArray[np.bool_] = (mask & ZERO_WEIGHT) != 0
    return zero_weight
