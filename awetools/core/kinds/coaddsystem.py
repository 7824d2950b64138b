"""Coordinates of frames on their way to a grid: those that say no one place for each pixel are told, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import BadHeader

if TYPE_CHECKING:
    from ..sky.wcs import Wcs

RESOLVED = "awe-astrom or awe-gastrom solves it anew; --degree 1 without a distortion"


def usable_system(cards: Mapping[str, Any], shape: tuple[int, int]) -> tuple[Wcs, str]:
    """The coordinates that cards give a frame, and why they cannot be used: then they are any."""
    from ..sky.readwcs import read_wcs
    from ..sky.wcs import Wcs

    try:
        found = read_wcs(dict(cards))
        refuse_unusable(found, shape)
    except BadHeader as error:
        return Wcs(
            (0.0, 0.0), (1.0, 1.0), (-1.0, 0.0, 0.0, 1.0)
        ), f"its coordinates cannot be used: {error.message}"
    return found, ""


def refuse_unusable(wcs: Wcs, shape: tuple[int, int]) -> None:
    """Raise BadHeader where no pixel has a place on the sky, or many a place have more than one."""
    import numpy as np

    from ..coadd.layers import folded
    from ..sky.outlines import points

    if not np.isfinite(wcs.to_sky(*points(shape))).all(axis=0).any():
        raise BadHeader("no pixel has a place on the sky")
    if folded(wcs, shape):
        raise BadHeader("they fold: places of the sky are in the frame more than once")
