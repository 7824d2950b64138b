"""Saturated pixels and the neighbours that they spoil."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BadValue

Bools = npt.NDArray[np.bool_]


def saturated(raw: npt.NDArray[Any], level_adu: float | npt.NDArray[Any], grow: int = 1) -> Bools:
    """True where a raw pixel is at or above its saturation level, and ``grow`` pixels around.

    ``raw`` (ny, nx), ADU, before overscan subtraction; ``level_adu`` a number or an array
    that broadcasts (amplifiers differ). Growth is by whole rings (8 neighbours). Bleeding
    columns are saturated themselves and so are in it. What is not finite and not
    infinite upwards is not saturated. A caller that works in strips must give ``grow``
    rows more on both sides. ``BadValue`` if ``grow`` is negative.
    """
    if grow < 0:
        raise BadValue(f"saturated pixels grown by {grow}: it must not be negative")
    with np.errstate(invalid="ignore"):
        mask: Bools = np.asarray(raw >= level_adu)
    # Most frames have few saturated pixels, or none: then there is nothing to grow.
    for _ in range(grow if mask.any() else 0):
        mask = _ring(mask)
    return mask


def _ring(mask: Bools) -> Bools:
    wide = mask.copy()
    wide[:, 1:] |= mask[:, :-1]
    wide[:, :-1] |= mask[:, 1:]
    grown = wide.copy()
    grown[1:] |= wide[:-1]
    grown[:-1] |= wide[1:]
    return grown
