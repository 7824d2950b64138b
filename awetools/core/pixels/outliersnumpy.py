"""The numpy twin of the test for outliers: the same bits, where the kernel was not built."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# What these are: outliers.h.
NOISE_RANGE, OF_TWO, GROWN = np.float32(2), np.float32(2), np.float32(0.6)
FIT_REACH, FIT_LEAST = 2, 9
OF_RESIDUAL, OF_CURVATURE, OF_CONTRAST, OF_FIT = (np.float32(one) for one in (3, 0.5, 0.25, 2))
NINTH = np.float32(1) / np.float32(9)
# Pixels about a value that the test may look at.
MARGIN = 2 + FIT_REACH


class Field(NamedTuple):
    """Medians, contrasts and numbers of good values of a grid's rows, and the limit of each number in sigma.

    The planes have as many rows above those of the result as below.
    """

    centre: Array
    contrast: Array
    number: Array
    reach: Array
    fraction: np.float32


class _Near(NamedTuple):
    """A rectangle and MARGIN pixels about it: planes of the field and of a layer; nan, 0 where there is nothing."""

    curvature: Array
    contrast: Array
    reach: Array
    two: Array
    away: Array
    weight: Array
    fraction: np.float32


def left_out(
    field: Field,
    values: tuple[Array, ...],
    weights: tuple[Array, ...],
    layout: Array,
    place: tuple[int, int, int, int],
    rows_of_result: int,
) -> Array:
    """Which values of a rectangle (y, x, rows, columns) are left out: (layers, rows, columns)."""
    y, x, rows, columns = place
    centre, contrast, number = (
        _about(plane, y + (len(plane) - rows_of_result) // 2, x, rows, columns, fill)
        for plane, fill in zip(field[:3], (np.nan, 0, 0), strict=True)
    )
    made = np.zeros((len(values), rows, columns), bool)
    with np.errstate(all="ignore"):
        curved, reach = _curvature(centre), field.reach[number]
        for out, value, weight, (first, stride) in zip(made, values, weights, layout, strict=True):
            at = *divmod(int(first), int(stride)), rows, columns
            own = _about(weight, *at, 0)
            away = np.where(own > 0, _about(value, *at, 0) - centre, np.float32(np.nan))
            _judge(_Near(curved, contrast, reach, number == 2, away, own, field.fraction), out)
    return made


def _about(plane: Array, y: int, x: int, rows: int, columns: int, fill: float) -> Array:
    """A rectangle of a plane and MARGIN pixels about it."""
    made = np.full((rows + 2 * MARGIN, columns + 2 * MARGIN), fill, plane.dtype)
    (top, bottom), (left, right) = (
        (max(0, at - MARGIN), min(length, at + size + MARGIN))
        for at, size, length in ((y, rows, plane.shape[0]), (x, columns, plane.shape[1]))
    )
    part = plane[top:bottom, left:right]
    top, left = top - y + MARGIN, left - x + MARGIN
    made[top : top + part.shape[0], left : left + part.shape[1]] = part
    return made


def _curvature(centre: Array) -> Array:
    """What a pixel has over the mean of the 3 x 3 about it; nan where one has none."""
    made, inner = np.full_like(centre, np.nan), np.s_[1:-1, 1:-1]
    total = np.zeros_like(centre[inner])
    for dy, dx in _shifts(1):
        total += np.roll(centre, (-dy, -dx), (0, 1))[inner]
    made[inner] = centre[inner] - total * NINTH
    return made


def _shifts(reach: int) -> Iterator[tuple[int, int]]:
    return ((dy, dx) for dy in range(-reach, reach + 1) for dx in range(-reach, reach + 1))


def _judge(near: _Near, out: Array) -> None:
    inner = np.s_[MARGIN:-MARGIN, MARGIN:-MARGIN]
    away, least = near.away[inner], GROWN * near.reach[inner]
    y, x = np.nonzero(away * away * near.weight[inner] > least * least)
    at = y + MARGIN, x + MARGIN
    found = _outliers(near, at, np.float32(1))
    beside = np.zeros(len(y), bool)
    for dy, dx in _shifts(1):
        if dy or dx:
            beside |= _outliers(near, (at[0] + dy, at[1] + dx), np.float32(1))
    out[y, x] = found | (beside & _outliers(near, at, GROWN))


def _outliers(near: _Near, at: tuple[Array, Array], part: np.float32) -> Array:
    """Whether values are farther from the median than a part of their limit."""
    away, noise = near.away[at], np.float32(1) / np.sqrt(near.weight[at])
    least = near.reach[at] * noise
    light = near.contrast[at] - NOISE_RANGE * noise
    light = np.where(light > 0, light, np.float32(0))
    share = np.where(near.two[at], OF_TWO * near.fraction, near.fraction)
    usual = least + share * light
    sure = away > part * (usual + OF_FIT * near.fraction * light)
    far = np.abs(away) > part * least
    made = far & np.where(away < 0, -away > part * usual, sure)
    asked = np.flatnonzero(far & (away > 0) & ~sure)
    where = at[0][asked], at[1][asked]
    allowed, told, samples = _fitted(near, where, light[asked])
    limit = least[asked] + share[asked] * allowed + told
    made[asked] = away[asked] > part * np.where(samples < FIT_LEAST, usual[asked], limit)
    return made


def _fitted(near: _Near, at: tuple[Array, Array], light: Array) -> tuple[Array, Array, Array]:
    """What is allowed where light is so strong; what the frame tells about a pixel; how many pixels say it."""
    places = [(at[0] + dy, at[1] + dx) for dy, dx in _shifts(FIT_REACH)]
    curved, away = (np.stack([plane[one] for one in places]) for plane in (near.curvature, near.away))
    ratio = away / curved
    use = np.isfinite(curved) & np.isfinite(ratio)
    order = np.argsort(np.where(use, ratio, np.float32(np.inf)), axis=0, kind="stable")
    summed = np.cumsum(np.take_along_axis(np.where(use, np.abs(curved).astype(float), 0.0), order, 0), axis=0)
    half = np.argmax(summed >= 0.5 * summed[-1], axis=0)[None]
    slope = np.take_along_axis(np.take_along_axis(ratio, order, 0), half, 0)[0]
    residuals = np.sort(np.where(use, np.abs(away - slope * curved), np.float32(np.inf)), axis=0)
    count = use.sum(axis=0)
    residual = np.take_along_axis(residuals, np.minimum(3 * count // 5, len(places) - 1)[None], 0)[0]
    own = near.curvature[at]
    own = np.where(np.isfinite(own), own, np.float32(0))
    told, most = slope * own, OF_FIT * near.fraction * light
    allowed = OF_RESIDUAL * residual + OF_CURVATURE * np.abs(own) + OF_CONTRAST * light
    told = np.where(told > 0, told, np.float32(0))
    return np.where(allowed < light, allowed, light), np.where(told < most, told, most), count
