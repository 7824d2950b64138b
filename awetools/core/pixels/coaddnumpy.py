"""The numpy twins of the kernel that combines layers: the same bits, where it was not built."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .mask import LIGHT, Bit
from .outliersnumpy import Field, left_out

Array = npt.NDArray[Any]
CLIP, MEDIAN = 1, 2


def _taken(planes: tuple[Array, ...], layout: Array, rows: int, columns: int) -> Array:
    """The rectangle of each layer (n, rows, columns)."""
    made = np.empty((len(planes), rows, columns), planes[0].dtype)
    for to, plane, (offset, stride) in zip(made, planes, layout, strict=True):
        y, x = divmod(int(offset), int(stride))
        to[...] = plane[y : y + rows, x : x + columns]
    return made


def centres(
    values: tuple[Array, ...],
    weights: tuple[Array, ...],
    layout: Array,
    steps: Array,
    fainter: bool,
    out: Array,
    number: Array,
    y: int,
    x: int,
    rows: int,
    columns: int,
) -> None:
    """Fill a rectangle with the medians of values whose weight is above 0, nan without one; and their number."""
    good = _taken(weights, layout, rows, columns) > 0
    ordered = np.sort(np.where(good, _taken(values, layout, rows, columns), np.float32(np.inf)), axis=0)
    count = good.sum(axis=0)
    half, none = np.float32(0.5), np.float32(0)
    low, high = (
        np.take_along_axis(ordered, np.maximum(at, 0)[None], axis=0)[0]
        for at in ((count - 1) // 2, count // 2 - (count == 0))
    )
    with np.errstate(invalid="ignore"):
        middle = half * low + half * high + none
    if fainter:
        middle = np.where(count == 2, low + none, middle)
    number[y : y + rows, x : x + columns] = count
    out[y : y + rows, x : x + columns] = np.where(count > 0, middle, np.float32(np.nan))


def contrast(plane: Array, first: int, reach: int, out: Array) -> None:
    """Fill rows with the range of values within ``reach`` pixels each way; nan do not count."""
    low = np.where(np.isnan(plane), np.float32(np.inf), plane)
    high = np.where(np.isnan(plane), np.float32(-np.inf), plane)
    for axis in (0, 1):
        low, high = _filtered(low, reach, axis, np.minimum), _filtered(high, reach, axis, np.maximum)
    rows = slice(first, first + len(out))
    with np.errstate(over="ignore", invalid="ignore"):
        out[...] = np.where(high >= low, high - low + np.float32(0), np.float32(0))[rows]


def _filtered(plane: Array, reach: int, axis: int, which: Any) -> Array:
    source = np.moveaxis(plane, axis, 0)
    made = source.copy()
    for shift in range(1, min(reach, len(source) - 1) + 1):
        which(made[shift:], source[:-shift], out=made[shift:])
        which(made[:-shift], source[shift:], out=made[:-shift])
    return np.moveaxis(made, 0, axis)


def combine(
    values: tuple[Array, ...],
    weights: tuple[Array, ...],
    bits: tuple[Array, ...],
    arrays: tuple[Any, ...],
    mode: int,
    fraction: float,
    y: int,
    x: int,
    rows: int,
    columns: int,
) -> int:
    """Fill a rectangle of the planes; how many values were clipped."""
    layout, numbers, reach, factor, centre, bright, there, sci, weight, count, mask, tally, found = arrays
    at = np.s_[y : y + rows, x : x + columns]
    value, own, bit = (_taken(one, layout, rows, columns) for one in (values, weights, bits))
    good = own > 0
    keep = good
    if mode == CLIP:
        field = Field(centre, bright, there, reach, np.float32(fraction))
        keep = good & ~left_out(field, values, weights, layout, (y, x, rows, columns), len(sci))
        keep = keep | (good & ~keep.any(axis=0))
    sums, total = np.zeros((rows, columns)), np.zeros((rows, columns))
    with np.errstate(invalid="ignore"):
        for k in range(len(values)):
            w = np.where(keep[k], own[k].astype(np.float64), 0.0)
            total += w
            sums += w * np.where(keep[k], value[k].astype(np.float64), 0.0)
    number = keep.sum(axis=0)
    clipped = good & ~keep
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (sums / total).astype(np.float32)
    if mode == MEDIAN:
        first = y + (len(centre) - len(sci)) // 2
        mean = centre[first : first + rows, x : x + columns]
    every = np.bitwise_and.reduce(np.where(keep, bit, np.int16(Bit.INTERPOLATED)), axis=0) & np.int16(
        Bit.INTERPOLATED
    )
    marked = every | np.where(clipped.any(axis=0), np.int16(Bit.CLIPPED), np.int16(0))
    rest, why = _masked(value, bit)
    some = number > 0
    sci[at], mask[at] = np.where(some, mean, rest), np.where(some, marked, why)
    summed = total * factor[number].astype(np.float64) if mode == MEDIAN else total
    weight[at] = np.where(some, summed.astype(np.float32), np.float32(0))
    count[at] = number
    tally[:, 0] += keep.sum(axis=(1, 2))
    tally[:, 1] += clipped.sum(axis=(1, 2))
    rows_, columns_, layers = np.nonzero(np.moveaxis(clipped, 0, -1))
    room = min(len(rows_), len(found))
    found[:room] = np.stack([y + rows_, x + columns_, numbers[layers]], axis=1)[:room]
    return len(rows_)


def _masked(value: Array, bit: Array) -> tuple[Array, Array]:
    """Where nothing is good: the mean of what is light all the same, and why it is masked."""
    own = bit & ~np.int16(Bit.OUTSIDE)
    sums, n = np.zeros(value.shape[1:]), np.zeros(value.shape[1:], np.int64)
    for one, marked in zip(value, own & LIGHT != 0, strict=True):
        sums += np.where(marked, one.astype(np.float64), 0.0)
        n += marked
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(n > 0, (sums / n).astype(np.float32), np.float32(0))
    why = np.bitwise_or.reduce(own, axis=0)
    return mean, np.where(why != 0, why, np.int16(Bit.OUTSIDE))
