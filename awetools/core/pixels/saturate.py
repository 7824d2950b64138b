"""Saturated pixels and the neighbours that they spoil."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BadValue

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
# The image less its smooth sky at these rows and columns, in units of the noise of the sky.
Residual = Callable[[Integers, Integers], Floats]

DIRECTIONS = ("columns", "rows")
# A neighbour of saturated pixels is spoiled with them from this part of the saturation level on.
BLOOM_FRACTION = 0.8
# The tail of a bleed stands above both its sides by so many times the noise, and is so many times as high:
# the light of a star stands above its sides too, but not by that much.
TAIL_SIGMA, TAIL_CONTRAST = 3.0, 4.0
TAIL_SIDE_PX = 3
# A shorter run of saturated pixels is the core of a star; the tail of a longer one is at most so many times
# as long as the run.
LEAST_RUN_PX, TAIL_PER_RUN = 8, 2
AT_ONCE = 1 << 16


def saturated(
    raw: Array,
    level_adu: float | Array,
    residual_sigma: Residual | None = None,
    grow: int = 1,
    direction: str = "columns",
) -> Bools:
    """True where a raw pixel is saturated, bled into, or spoiled by saturated neighbours.

    ``raw`` (ny, nx), ADU, before overscan subtraction; ``level_adu`` a number or an array
    that broadcasts (amplifiers differ). Charge spills along ``direction``, "columns" or
    "rows" of the detector, whatever amplifier reads it. Masked are pixels at or above the
    level; the ``grow`` pixels before and after each run of them along the direction, where
    the last charge went; and of the ``grow`` rings around them what is above 0.8 of the
    level. Where ``residual_sigma`` is given (at these rows and columns, the image less its smooth
    sky, in units of the sky noise of a pixel), the tails of bleeds are masked too: pixels beyond
    the end of a run of 8 pixels at least, one by one, as long as they stand above both
    sides by 3 sigma and by a factor of 4, and no more than twice the length of the run.

    What is not finite and not infinite upwards is not saturated, and ends a tail; an
    infinite level saturates nothing finite. A star that fills its pixels without
    bleeding is masked with its neighbours along the direction. ``BadValue`` for a
    negative ``grow`` or another direction.
    """
    if direction not in DIRECTIONS:
        raise BadValue(f"charge that bleeds along {direction!r}: it is one of {', '.join(DIRECTIONS)}")
    if grow < 0:
        raise BadValue(f"saturated pixels grown by {grow}: it must not be negative")
    full = _at_level(raw, level_adu)
    if not full.any():
        return full
    mask = full | _blooming(raw, level_adu, full, grow)
    along_columns = direction == "columns"
    turned, target = (full, mask) if along_columns else (full.T, mask.T)
    columns = np.flatnonzero(turned.any(axis=0))
    residual = residual_sigma
    if residual_sigma is not None and not along_columns:
        residual = _turned(residual_sigma)
    _bleeding(turned, target, columns, grow, residual)
    return mask


def _turned(residual: Residual) -> Residual:
    return lambda rows, columns: residual(columns, rows)


def _at_level(raw: Array, level_adu: float | Array) -> Bools:
    """True where a pixel is at or above the level; integers are compared as such, which is faster."""
    level = np.asarray(level_adu)
    if raw.dtype.kind not in "iu" or raw.dtype.itemsize > 2 or (level.ndim == 2 and len(level) > 1):
        with np.errstate(invalid="ignore"):
            return np.asarray(raw >= level)
    ends = np.iinfo(raw.dtype)
    reachable = level <= ends.max
    least = np.maximum(np.ceil(np.where(reachable, level, ends.max)), ends.min).astype(raw.dtype)
    return np.asarray((raw >= least) & reachable)


def _blooming(raw: Array, level_adu: float | Array, full: Bools, grow: int) -> Bools:
    """Neighbours of saturated pixels that are nearly saturated themselves."""
    blooming = np.zeros(raw.shape, np.bool_)
    levels = np.broadcast_to(np.asarray(level_adu), raw.shape)
    offset_y, offset_x = (one.ravel() for one in np.mgrid[-grow : grow + 1, -grow : grow + 1])
    at = np.flatnonzero(full)
    # A frame has few such pixels, so they are looked at one by one; in parts, as it may have many.
    for begin in range(0, at.size, AT_ONCE):
        y, x = np.divmod(at[begin : begin + AT_ONCE], raw.shape[1])
        rows = np.clip(y[:, None] + offset_y, 0, raw.shape[0] - 1)
        columns = np.clip(x[:, None] + offset_x, 0, raw.shape[1] - 1)
        with np.errstate(invalid="ignore"):
            high = raw[rows, columns] >= BLOOM_FRACTION * levels[rows, columns]
        blooming[rows[high], columns[high]] = True
    return blooming


def _bleeding(full: Bools, mask: Bools, columns: Integers, grow: int, residual: Residual | None) -> None:
    """Mark what lies before and after the runs of these columns, in place."""
    ny = len(full)
    runs = np.diff(full[:, columns].T.astype(np.int8), axis=1, prepend=0, append=0)
    which, begin = np.nonzero(runs == 1)
    end = np.nonzero(runs == -1)[1]
    column, length = columns[which], end - begin
    longest = np.where(length >= LEAST_RUN_PX, TAIL_PER_RUN * length, 0)
    for first, outward in ((end, 1), (begin - 1, -1)):
        for step in range(grow):
            row = first + outward * step
            inside = (row >= 0) & (row < ny)
            mask[row[inside], column[inside]] = True
        if residual is not None:
            _follow_tails(mask, residual, first + outward * grow, outward, column, longest)


def _follow_tails(
    mask: Bools, residual: Residual, row: Integers, outward: int, column: Integers, most: Integers
) -> None:
    """Mark tails, one pixel of each at a time, in place."""
    steps = 0
    while len(row):
        go = (row >= 0) & (row < len(mask)) & (most > steps)
        row, column, most = row[go], column[go], most[go]
        go = _ridge(residual, row, column, mask.shape[1])
        row, column, most = row[go], column[go], most[go]
        mask[row, column] = True
        row = row + outward
        steps += 1


def _ridge(residual: Residual, row: Integers, column: Integers, width: int) -> Bools:
    """True where a pixel stands out from what is beside it, on the left and on the right."""
    value = residual(row, column)
    side = np.full(len(row), -np.inf)
    for direction in (-1, 1):
        lowest = np.full(len(row), np.inf)
        for step in range(1, TAIL_SIDE_PX + 1):
            there = column + direction * step
            inside = (there >= 0) & (there < width)
            beside = residual(row, np.clip(there, 0, width - 1))
            lowest = np.fmin(lowest, np.where(inside, beside, np.inf))
        side = np.maximum(side, np.where(np.isfinite(lowest), lowest, -np.inf))
    with np.errstate(invalid="ignore"):
        stands_out: Bools = (value - side > TAIL_SIGMA) & (value > TAIL_CONTRAST * side) & np.isfinite(side)
    return stands_out
