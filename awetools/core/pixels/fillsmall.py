"""Small defects filled from their neighbours, so that one bad column does not spoil six."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import Mixture
from .mask import ZERO_WEIGHT, Bit

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Masks = npt.NDArray[np.int16]
Index = npt.NDArray[np.int64]

# Of the weight of its neighbours; what is filled should count little where another frame knows.
FILLED_WEIGHT = 0.1
# Bits of pixels that stay as they are: what is around them is no better, or a person said so.
KEPT = int(Bit.SATURATED | Bit.OUTSIDE | Bit.USER)
# Where the good neighbours of a run are, and their weights: cubics through four, lines through two.
# A run is a pixel alone, the first, or the second of two.
_CUBIC = (
    ((-2, -1, 1, 2), (-1 / 6, 2 / 3, 2 / 3, -1 / 6)),
    ((-2, -1, 2, 3), (-0.3, 1.0, 0.5, -0.2)),
    ((-3, -2, 1, 2), (-0.2, 0.5, 1.0, -0.3)),
)
_LINE = (((-1, 1), (0.5, 0.5)), ((-1, 2), (2 / 3, 1 / 3)), ((-2, 1), (1 / 3, 2 / 3)))
ALONE, FIRST, SECOND = 0, 1, 2


class Filled(NamedTuple):
    """The planes with small defects filled, and how many pixels were."""

    data: Floats
    weight: Floats | None
    mask: Masks | None
    filled: int


def fill_small(
    data: Floats,
    bad: Bools,
    *,
    weight: Floats | None = None,
    mask: Masks | None = None,
    copy: bool = True,
) -> Filled:
    """Fill bad pixels of runs up to two pixels long, along rows or columns, from the good ones around.

    ``data`` (ny, nx) and ``bad`` have one shape. A pixel between good ones in both directions
    gets h + v - d: cubics along its row, its column, and both (through 16 pixels off them),
    of which the leading errors cancel: 0.9% of the peak for a pixel in the core of a star of
    3 px FWHM, where a mean of cubics is off by 5%, a line by 13%; the noise is 1.7 times that
    of a pixel. Else the mean of the cubics that there are; lines where only the next
    pixels are good. Larger defects stay.

    With a mask, pixels that are saturated, outside or marked by a user stay, and what is
    filled is marked INTERPOLATED in place of its bits of zero weight. Its weight is a tenth
    of its neighbours' mean. Without ``copy`` the planes given are changed (data is float32).
    Mixture if shapes differ. Source of h + v - d: the boolean sum of Gordon 1971, SIAM J.
    Numer. Anal. 8, 158.
    """
    for plane in (bad, weight, mask):
        if plane is not None and plane.shape != data.shape:
            raise Mixture(f"a plane of shape {plane.shape} for an image of {data.shape}")
    if copy:
        data = np.array(data, np.float32)
        weight = None if weight is None else weight.copy()
        mask = None if mask is None else mask.copy()
    y, x = np.divmod(np.flatnonzero(bad), max(data.shape[1], 1))
    if mask is not None:
        fillable = mask[y, x] & KEPT == 0
        y, x = y[fillable], x[fillable]
    if not len(y):
        return Filled(data, weight, mask, 0)
    values, weights = _values(_Image(data.ravel(), data.ravel(), bad.ravel(), data.shape), weight, y, x)
    known = np.isfinite(values)
    at = y[known], x[known]
    data[at] = values[known]
    if weight is not None:
        weight[at] = FILLED_WEIGHT * weights[known]
    if mask is not None:
        mask[at] = (mask[at] & ~np.int16(ZERO_WEIGHT)) | np.int16(Bit.INTERPOLATED)
    return Filled(data, weight, mask, int(known.sum()))


class _Image(NamedTuple):
    """A plane, the image that it belongs to, and what is bad in that; all as one row, and the shape."""

    plane: Floats
    data: Floats
    bad: Bools
    shape: tuple[int, ...]

    def at(self, y: Index, x: Index) -> tuple[Doubles, Bools]:
        """Values, and whether they are good; beyond the image they are not."""
        ny, nx = self.shape
        place = y * nx + x
        good = (y >= 0) & (y < ny) & (x >= 0) & (x < nx) & ~self.bad.take(place, mode="clip")
        good &= np.isfinite(self.data.take(place, mode="clip"))
        return np.where(good, self.plane.take(place, mode="clip"), np.nan).astype(np.float64), good


def _values(image: _Image, weight: Floats | None, y: Index, x: Index) -> tuple[Doubles, Doubles]:
    """What is to stand in the pixels, nan where nothing is known; and their neighbours' mean weight."""
    runs = [_runs(image, y, x, *axis) for axis in ((0, 1), (1, 0))]
    cubics = [
        _along(image, y, x, run, axis, _CUBIC) for run, axis in zip(runs, ((0, 1), (1, 0)), strict=True)
    ]
    lines = [_along(image, y, x, run, axis, _LINE) for run, axis in zip(runs, ((0, 1), (1, 0)), strict=True)]
    value = _mean(lines)
    value = np.where(np.isfinite(cubics).any(axis=0), _mean(cubics), value)
    both = cubics[0] + cubics[1] - _across(image, y, x, runs)
    value = np.where(np.isfinite(both), both, value)
    if weight is None:
        return value, np.ones(len(y))
    known = image._replace(plane=weight.ravel())
    neighbours = [
        _along(known, y, x, run, axis, _LINE) for run, axis in zip(runs, ((0, 1), (1, 0)), strict=True)
    ]
    return value, _mean(neighbours)


def _mean(two: list[Doubles]) -> Doubles:
    """The mean of those that are known."""
    known = np.isfinite(two)
    total = np.where(known, two, 0.0).sum(axis=0)
    mean: Doubles = np.divide(
        total, known.sum(axis=0), out=np.full(len(total), np.nan), where=known.any(axis=0)
    )
    return mean


def _runs(image: _Image, y: Index, x: Index, down: int, along: int) -> Index:
    """ALONE, FIRST or SECOND of a run of bad pixels; -1 where it is longer."""
    before2, before, after, after2 = (image.at(y + k * down, x + k * along)[1] for k in (-2, -1, 1, 2))
    run = np.full(len(y), -1)
    run[before & after] = ALONE
    run[before & ~after & after2] = FIRST
    run[~before & before2 & after] = SECOND
    return run


def _along(image: _Image, y: Index, x: Index, run: Index, axis: tuple[int, int], rules: Any) -> Doubles:
    value = np.full(len(y), np.nan)
    for which, (places, shares) in enumerate(rules):
        here = np.flatnonzero(run == which)
        total = np.zeros(len(here))
        for place, share in zip(places, shares, strict=True):
            total += share * image.at(y[here] + place * axis[0], x[here] + place * axis[1])[0]
        value[here] = total
    return value


def _across(image: _Image, y: Index, x: Index, runs: list[Index]) -> Doubles:
    """Cubics along rows of cubics along columns, off the pixel's own row and column."""
    value = np.full(len(y), np.nan)
    for one, (places, shares) in enumerate(_CUBIC):
        for other, (rows, parts) in enumerate(_CUBIC):
            here = np.flatnonzero((runs[0] == one) & (runs[1] == other))
            total = np.zeros(len(here))
            for place, share in zip(places, shares, strict=True):
                for row, part in zip(rows, parts, strict=True):
                    total += share * part * image.at(y[here] + row, x[here] + place)[0]
            value[here] = total
    return value
