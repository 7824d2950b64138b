"""What a frame has at a place where a pixel of a grid is: its background, its mask, its correction."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..coadd.inputs import MeshSky
from ..pixels.resample import TAPS
from .arithmetic import Check
from .gridframes import FrameThere
from .values import OnGrid

if TYPE_CHECKING:
    from ..fits import FitsFile

RECOMPUTED = "made again from the reduced frames"
TAKEN = "made again from the regridded frames"
TOO_FEW = "too few of its good pixels are around the place"

ReadBits = Callable[[int, int], int]


def not_done(why: str) -> Check:
    """That a value was not made again."""
    return Check("", problem=f"not done again: {why}")


def only_placed(one: FrameThere) -> OnGrid:
    """The place, and what the table of frames says."""
    assert one.at is not None
    known = {name: one.row.get(name.upper()) for name in ("scale", "level")}
    return OnGrid(*one.at, scale=known["scale"], level=known["level"])


def factor_of(one: FrameThere, x: float, y: float) -> float | None:
    """What the flat's correction multiplies a frame by at a place of it, if there is one."""
    return None if one.correction is None else float(one.correction.factor_at(x, y))


def sky_at(sky: MeshSky, nearest: tuple[int, int]) -> float:
    """The background of a pixel of a frame."""
    return float(sky.rows(nearest[1] - 1, nearest[1])[0, nearest[0] - 1])


def beside(
    fits: FitsFile,
    at: tuple[float, float],
    nearest: tuple[int, int],
    mask: int,
    kernel: str,
    area: float,
) -> tuple[tuple[int, int, int], ...]:
    """Of the pixels that the kernel takes, the next ones that have what the nearest one lacks of a mask."""
    bits, reach = _bits_of(fits), TAPS[kernel] // 2 or math.ceil(math.sqrt(area)) + 1
    wanted = mask & ~bits(*nearest)
    (x0, y0), found = (math.floor(one) for one in at), []
    span = range(1 - reach, reach + 1)
    around = [(x0 + dx, y0 + dy) for dy in span for dx in span] if wanted else []
    for x, y in sorted(around, key=lambda one: math.dist(one, at)):
        here = bits(x, y) & wanted
        if here:
            found.append((x, y, here))
            wanted &= ~here
    return tuple(found)


def _bits_of(fits: FitsFile) -> ReadBits:
    """What gives the bits of a pixel of a frame, 0 beside it."""
    plane = next((hdu for hdu in fits.hdus if hdu.is_image and hdu.name == "MASK"), None)

    def bits(x: int, y: int) -> int:
        if plane is None or not (1 <= x <= plane.shape[1] and 1 <= y <= plane.shape[0]):
            return 0
        return int(fits.rows(plane.index, y - 1, y, x - 1, x)[0, 0])

    return bits
