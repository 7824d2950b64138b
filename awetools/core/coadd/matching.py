"""Backgrounds matched where frames overlap, so that a mosaic of what fills the field has no seams."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ..pixels.coadd import Layer
from .layers import Level, Placed, unit_places
from .skytie import Cells, Sky, find_sky

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Form = Literal["constant", "plane"]
Gauge = Literal["mean", "faintest", "sky"]

# Columns that one difference is taken of, and the least good pixels of it.
CELL, LEAST_PIXELS = 128, 64
# Each frame is compared with so many that follow it where it overlaps more.
NEIGHBOURS = 8
ROUNDS, CLIP_SIGMA = 6, 4.0
# Slopes weigh so much by themselves, of what a typical frame's overlaps weigh: without any they are 0.
RIDGE = 1e-4
# How often cells of sky are looked for anew, among so many; how much more the overlaps may then disagree.
LOOKS, MOST_CELLS, MOST_SEAM = 3, 20_000, 4.0


def overlapping(layers: Sequence[Layer]) -> Iterator[tuple[Layer, Layer]]:
    """Each layer with those after it that share columns, so many at most."""
    for i, one in enumerate(layers):
        others = (other for other in layers[i + 1 :] if common(one.columns, other.columns))
        for _, other in zip(range(NEIGHBOURS), others, strict=False):
            yield one, other


@dataclass
class Differences:
    """Robust differences of frames (first less second) in parts of their overlaps.

    Rows: first, second; u and v of the part in the first and in the second frame; difference, its error.
    """

    rows: list[tuple[float, ...]] = field(default_factory=list)

    def add(self, layers: Sequence[Layer], placed: Sequence[Placed]) -> None:
        """Take those of some rows of the grid; layers have these rows or a part of them."""
        for one, other in overlapping(layers):
            self._pair(one, other, placed)

    def _pair(self, one: Layer, other: Layer, placed: Sequence[Placed]) -> None:
        rows, columns = common(one.rows, other.rows), common(one.columns, other.columns)
        if not rows or not columns:
            return
        windows = placed[one.number].window, placed[other.number].window
        for left in range(columns[0], columns[1], CELL):
            part = left, min(left + CELL, columns[1])
            planes = [part_of(layer, rows, part) for layer in (one, other)]
            good = (planes[0][1] > 0) & (planes[1][1] > 0)
            count = int(np.count_nonzero(good))
            if count < LEAST_PIXELS:
                continue
            away = np.sort((planes[0][0][good] - planes[1][0][good]).astype(np.float64))
            middle = 0.5 * (away[(count - 1) // 2] + away[count // 2])
            spread = (away[(3 * count) // 4] - away[count // 4]) / 1.349
            # The error of a median; neighbouring pixels are not independent.
            error = 1.2533 * 2 * max(float(spread), 1e-30) / math.sqrt(count)
            places = [place_of(window, rows, part) for window in windows]
            self.rows.append((one.number, other.number, *places[0], *places[1], float(middle), error))


@dataclass(frozen=True)
class Matched:
    """Levels by the number of the frame; groups of frames that overlap; the scatter about the fit."""

    levels: dict[int, Level]
    groups: tuple[tuple[int, ...], ...]
    rms: float


def match(
    differences: Differences,
    numbers: Iterable[int],
    form: Form = "constant",
    gauge: Gauge = "mean",
    cells: Cells | None = None,
) -> Matched:
    """The levels that make frames equal where they overlap, by robust least squares.

    One constant a frame, or a plane. ``gauge``: in each group of frames that overlap, directly
    or through others, the mean of the constants is 0, or that of the frame with the faintest
    background is (then no light is added anywhere), or what is left of the sky is: its cells then
    count as overlaps do. That keeps planes from bending a mosaic, as they do where all frames are wrong
    alike (a flat that is too bright in the middle): overlaps do not tell such a bend from a sky. Where no sky is
    found the mean is taken. A frame without an overlap has 0, unless there is sky in it.
    """
    numbers = sorted(numbers)
    index = {number: place for place, number in enumerate(numbers)}
    kept = [row for row in differences.rows if int(row[0]) in index and int(row[1]) in index]
    table = np.array(kept, np.float64).reshape(-1, 8)
    ends = np.array([[index[int(row[0])], index[int(row[1])]] for row in kept], np.int64).reshape(-1, 2)
    groups = groups_of(ends, len(numbers))
    overlaps = Rows(ends, *_designs(table), table[:, 6], table[:, 7])
    terms = 1 if form == "constant" else 3
    found, rms = _fitted(overlaps, len(numbers), terms)
    for group in groups:
        constants = found[list(group), 0]
        found[list(group), 0] -= constants.min() if gauge == "faintest" else constants.mean()
    if gauge == "sky" and cells is not None:
        found = _on_sky(found, overlaps, _cell_table(cells, index), groups, terms)
    levels = {number: Level(*(float(value) for value in found[place])) for number, place in index.items()}
    return Matched(levels, tuple(tuple(numbers[one] for one in group) for group in groups), rms)


class Rows(NamedTuple):
    """What is known of levels: of the first frame in a row less those of the second; values and their errors.

    Designs (n, 3): 1, u, v of each; that of the second is 0 where the first is by itself.
    """

    ends: Ints
    first: Doubles
    second: Doubles
    values: Doubles
    errors: Doubles

    def of(self, group: Sequence[int]) -> Rows:
        """Those of a group of frames."""
        mine = np.isin(self.ends[:, 0], group)
        return Rows(self.ends[mine], *(one[mine] for one in self[1:]))

    def and_sky(self, cells: Doubles) -> Rows:
        """With cells that are sky: there the level of a frame is what it shows."""
        frames = cells[:, 0].astype(np.int64)
        first = np.stack([np.ones(len(cells)), cells[:, 1], cells[:, 2]], axis=1)
        sky = first, np.zeros_like(first), cells[:, 5], cells[:, 6]
        ends = np.concatenate([self.ends, np.stack([frames, frames], axis=1)])
        return Rows(ends, *(np.concatenate(both) for both in zip(self[1:], sky, strict=True)))

    def scatter(self, levels: Doubles) -> float:
        """What levels leave of the differences."""
        ends = levels[self.ends]
        away = self.values - (self.first * ends[:, 0]).sum(axis=1) + (self.second * ends[:, 1]).sum(axis=1)
        return float(np.median(np.abs(away))) / 0.6745


def _designs(table: Doubles) -> tuple[Doubles, Doubles]:
    ones = np.ones(len(table))
    return tuple(np.stack([ones, *table[:, at : at + 2].T], axis=1) for at in (2, 4))  # type: ignore[return-value]


def _fitted(rows: Rows, frames: int, terms: int, inflated: bool = False) -> tuple[Doubles, float]:
    """Levels, and the scatter about them; inflated: errors are at least such that they are those of the scatter."""
    found = np.zeros((frames, 3))
    if not len(rows.values):
        return found, 0.0
    design = np.concatenate([rows.first[:, :terms], -rows.second[:, :terms]], axis=1)
    columns = (rows.ends[:, :, None] * terms + np.arange(terms)).reshape(-1, 2 * terms)
    errors = rows.errors
    part = np.ones(len(rows.values))
    away = rows.values
    for _ in range(ROUNDS):
        found[:, :terms] = _solved(design, columns, rows.values, part / errors**2, frames, terms)
        away = rows.values - (design * found[:, :terms].reshape(-1)[columns]).sum(axis=1)
        if inflated:
            usual = float(np.median(np.abs(away))) / 0.6745
            errors = np.hypot(rows.errors, usual)
        scaled = np.abs(away) / errors
        scale = max(float(np.median(scaled)) / 0.6745, 1.0)
        part = (scaled <= CLIP_SIGMA * scale).astype(np.float64)
        # What ties a frame at all is not given up.
        part = np.maximum(part, 1e-6)
    good = part > 0.5
    return found, float(np.sqrt(np.mean(away[good] ** 2))) if good.any() else 0.0


# What is left of the sky


def _cell_table(cells: Cells, index: Mapping[int, int]) -> Doubles:
    """Rows of cells, of frames that take part, by the place of their frame; of many a part."""
    kept = [(index[int(row[0])], *row[1:]) for row in cells.rows if int(row[0]) in index]
    kept = kept[:: 1 + len(kept) // MOST_CELLS]
    return np.array(kept, np.float64).reshape(-1, 7)


def _on_sky(
    found: Doubles, overlaps: Rows, cells: Doubles, groups: Sequence[tuple[int, ...]], terms: int
) -> Doubles:
    """Levels with which the sky is 0."""
    flat = _fitted(overlaps, len(found), 1)[0] if terms == 3 else found
    made = found.copy()
    for group in groups:
        mine = cells[np.isin(cells[:, 0], group)]
        levels = _tied(found, flat, overlaps.of(group), mine) if terms == 3 else found
        sky = _sky_of(mine, levels)
        if sky is not None:
            here = list(group)
            made[here] = levels[here]
            made[here, 0] += float(np.median(_away(mine, levels)[sky.cells]))
    return made


def _tied(found: Doubles, flat: Doubles, overlaps: Rows, cells: Doubles) -> Doubles:
    """Planes that overlaps and the sky agree on; those of the overlaps alone where the sky is not enough, or none.

    Cells are looked for with the planes or the constants, about whichever the sky is more of a plane.
    """
    tried = [one for one in (_sky_of(cells, found), _sky_of(cells, flat)) if one is not None]
    if not tried or not len(overlaps.values):
        return found
    sky: Sky | None = min(tried, key=lambda one: one.scatter)
    levels = found
    for _ in range(LOOKS):
        if sky is None or not sky.tells_tilt:
            return found
        levels, _ = _fitted(overlaps.and_sky(cells[sky.cells]), len(found), 3, inflated=True)
        sky = _sky_of(cells, levels)
    usual = max(overlaps.scatter(found), float(np.median(overlaps.errors)))
    # Light that is taken for sky contradicts the overlaps.
    return levels if overlaps.scatter(levels) <= MOST_SEAM * usual else found


def _away(cells: Doubles, levels: Doubles) -> Doubles:
    """Cells less the levels of their frames."""
    of = levels[cells[:, 0].astype(int)]
    return np.asarray(cells[:, 5] - of[:, 0] - of[:, 1] * cells[:, 1] - of[:, 2] * cells[:, 2], np.float64)


def _sky_of(cells: Doubles, levels: Doubles) -> Sky | None:
    return find_sky(cells[:, 3], cells[:, 4], _away(cells, levels), cells[:, 6])


def _solved(
    design: Doubles, columns: Ints, values: Doubles, weight: Doubles, frames: int, terms: int
) -> Doubles:
    """The solution of least size."""
    size = frames * terms
    normal, right = np.zeros((size, size)), np.zeros(size)
    for i in range(design.shape[1]):
        np.add.at(right, columns[:, i], weight * design[:, i] * values)
        for j in range(design.shape[1]):
            np.add.at(normal, (columns[:, i], columns[:, j]), weight * design[:, i] * design[:, j])
    slopes = np.arange(size) % terms > 0
    normal[slopes, slopes] += RIDGE * float(np.median(np.diag(normal)[::terms]))
    diagonal = np.diag(normal)
    scale = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    answer, *_ = np.linalg.lstsq(normal * scale[:, None] * scale[None, :], right * scale, rcond=1e-9)
    return np.asarray((answer * scale).reshape(frames, terms), np.float64)


def groups_of(ends: Ints, frames: int) -> list[tuple[int, ...]]:
    """Frames that hang together."""
    of = np.arange(frames)
    while len(ends):
        least = np.minimum(of[ends[:, 0]], of[ends[:, 1]])
        before = of.copy()
        np.minimum.at(of, ends[:, 0], least)
        np.minimum.at(of, ends[:, 1], least)
        of = of[of]
        if np.array_equal(of, before):
            break
    return [tuple(int(one) for one in np.flatnonzero(of == first)) for first in np.unique(of)]


def common(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int] | None:
    """What two spans share."""
    begin, end = max(one[0], other[0]), min(one[1], other[1])
    return (begin, end) if begin < end else None


def part_of(
    layer: Layer, rows: tuple[int, int], columns: tuple[int, int]
) -> tuple[npt.NDArray[np.float32], ...]:
    """Values and weights of a layer in rows and columns of the grid."""
    down = slice(rows[0] - layer.rows[0], rows[1] - layer.rows[0])
    across = slice(columns[0] - layer.columns[0], columns[1] - layer.columns[0])
    return layer.data[down, across], layer.weight[down, across]


def place_of(
    window: tuple[tuple[int, int], tuple[int, int]], rows: tuple[int, int], columns: tuple[int, int]
) -> Doubles:
    """u and v of the middle of a part of a frame."""
    u, v = unit_places(window, rows)
    return np.array([u[columns[0] - window[1][0] : columns[1] - window[1][0]].mean(), v.mean()])
