"""The linear part of a coordinate system, from whichever cards a header gives it in."""

from __future__ import annotations

import math
from collections.abc import Mapping

from .fitsheader import HeaderValue


def matrix(cards: Mapping[str, HeaderValue]) -> tuple[float, float, float, float] | None:
    """CD1_1, CD1_2, CD2_1, CD2_2 in degrees a pixel, from CD, PC and CDELT, or CDELT and CROTA2; or None."""

    def value(key: str, default: float) -> float:
        found = cards.get(key)
        return found if isinstance(found, float) else default

    if any(f"CD{i}_{j}" in cards for i in (1, 2) for j in (1, 2)):
        made = (value("CD1_1", 0), value("CD1_2", 0), value("CD2_1", 0), value("CD2_2", 0))
    else:
        rotated = any(f"PC{i}_{j}" in cards for i in (1, 2) for j in (1, 2))
        if not rotated and ("CDELT1" not in cards or "CDELT2" not in cards):
            return None
        across, along = value("CDELT1", 1), value("CDELT2", 1)
        if rotated:
            made = (
                value("PC1_1", 1) * across,
                value("PC1_2", 0) * across,
                value("PC2_1", 0) * along,
                value("PC2_2", 1) * along,
            )
        else:
            angle = math.radians(value("CROTA2", 0))
            sine, cosine = math.sin(angle), math.cos(angle)
            made = (across * cosine, -along * sine, across * sine, along * cosine)
    return made if abs(made[0] * made[3] - made[1] * made[2]) > 0 else None


def wcs_pixel_scale_arcsec(cards: Mapping[str, HeaderValue]) -> float | None:
    """The size of a pixel on the sky: the root of the matrix's determinant."""
    found = matrix(cards)
    return None if found is None else math.sqrt(abs(found[0] * found[3] - found[1] * found[2])) * 3600
