"""Patterns of stars: pairs and triangles of points, the maps they suggest, and what each map brings together.

Points of a plane are complex numbers here: a turn and a scale are then one factor, a
mirror image is the conjugate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.complex128]
Places = npt.NDArray[np.int64]

# A triangle is of use if its third corner is well off the longest side, and off its ends.
LEAST_HEIGHT, LEAST_SIDE = 0.15, 0.25
# With the foot of the height this near the middle of the longest side, either end may be the first.
MIDDLE = 0.03
# Neighbours of so many points are sought at once.
BLOCK = 512
# With more points than this a tree finds them sooner.
MANY = 3000
MOST_CELLS = 4_000_000
# Of the maps to a wide field, those that most others say too are looked at: within such a turn and shift.
VOTED, VOTE_TURN_RAD, VOTE_SHIFT = 2000, 0.05, 0.2
SCORED_AT_ONCE = 1 << 19


def as_points(x: npt.ArrayLike, y: npt.ArrayLike) -> Points:
    """Points of two coordinates, which may be of any shape."""
    real, imaginary = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
    made = np.empty(real.shape, np.complex128)
    made.real, made.imag = real, imaginary
    return made


def pairs_within(one: Points, other: Points, radius: float) -> tuple[Places, Places]:
    """All pairs of a point of one list and one of another that are no farther apart than a radius: their places.

    Points are sorted into square cells of the size of the radius; each looks at nine cells. Points that are not
    finite have no pairs.
    """
    empty = np.empty(0, np.int64)
    there, here = np.flatnonzero(np.isfinite(other)), np.flatnonzero(np.isfinite(one))
    if not len(there) or not len(here) or not radius > 0:
        return empty, empty
    corner = complex(other[there].real.min(), other[there].imag.min())
    column, row = _cells(other[there], corner, radius)
    width = int(column.max()) + 4
    key = (row + 1) * width + column + 1
    order = np.argsort(key, kind="stable")
    key = key[order]
    first, line = _cells(one[here], corner, radius)
    inside = (first >= -1) & (first <= width - 3) & (line >= -1) & (line <= int(row.max()) + 1)
    here, first, line = here[inside], first[inside], line[inside]
    found_one, found_other = [], []
    for step in (0, 1, 2):
        start = (line + step) * width + first
        low, high = np.searchsorted(key, start, "left"), np.searchsorted(key, start + 2, "right")
        number = high - low
        i = np.repeat(np.arange(len(here)), number)
        j = np.arange(len(i)) - np.repeat(np.cumsum(number) - number, number) + low[i]
        i, j = here[i], there[order[j]]
        away = one[i] - other[j]
        near = away.real**2 + away.imag**2 <= radius * radius
        found_one.append(i[near])
        found_other.append(j[near])
    return np.concatenate(found_one), np.concatenate(found_other)


def _cells(points: Points, corner: complex, size: float) -> tuple[Places, Places]:
    # What is far outside is as good as just outside; whole numbers have an end.
    column = np.clip(np.floor((points.real - corner.real) / size), -2, 2**30)
    row = np.clip(np.floor((points.imag - corner.imag) / size), -2, 2**30)
    return column.astype(np.int64), row.astype(np.int64)


def matched(one: Points, other: Points, radius: float) -> tuple[Places, Places]:
    """Pairs within a radius of which each is the nearest to the other: no point is in two."""
    i, j = pairs_within(one, other, radius)
    if not len(i):
        return i, j
    order = np.argsort(np.abs(one[i] - other[j]), kind="stable")
    i, j = i[order], j[order]
    nearest_i = np.zeros(len(i), np.bool_)
    nearest_i[np.unique(i, return_index=True)[1]] = True
    nearest_j = np.zeros(len(j), np.bool_)
    nearest_j[np.unique(j, return_index=True)[1]] = True
    both = nearest_i & nearest_j
    return i[both], j[both]


def apart(points: Points, radius: float) -> Places:
    """Places of points, of which no two are within a radius: of those that are, the first stays."""
    i, j = pairs_within(points, points, radius)
    later = i > j
    i, j = i[later], j[later]
    keep = np.isfinite(points)
    # In order, because what is gone takes nothing with it.
    for late, early in sorted(zip(i.tolist(), j.tolist(), strict=True)):
        if keep[early]:
            keep[late] = False
    return np.flatnonzero(keep)


@dataclass(frozen=True, eq=False)
class Triangles:
    """Triangles of points: corners (n, 3), the ends of the longest side and the third; shape (n,) of each.

    shape: the third corner where the ends of the longest side are 0 and 1: the same whatever
    the place, the turn and the scale; the nearer end is the first.
    """

    corners: npt.NDArray[np.int64]
    shape: Points

    def __len__(self) -> int:
        return len(self.shape)


def triangles(points: Points, neighbours: int, both_ends: bool = False) -> Triangles:
    """The triangles that each point makes with its nearest neighbours, each once, thin ones left out.

    both_ends: those in which either end of the longest side may be the first are there twice.
    """
    number = len(points)
    neighbours = min(neighbours, number - 1)
    if neighbours < 2:
        return Triangles(np.empty((0, 3), np.int64), np.empty(0, np.complex128))
    near = _neighbours(points, neighbours)
    two = np.array(list(combinations(range(neighbours), 2)), np.int64)
    corners = np.empty((number, len(two), 3), np.int64)
    corners[:, :, 0] = np.arange(number)[:, None]
    corners[:, :, 1:] = near[:, two]
    flat = np.sort(corners.reshape(-1, 3), axis=1)
    keys = np.sort((flat[:, 0] * number + flat[:, 1]) * number + flat[:, 2])
    keys = keys[np.r_[True, np.diff(keys) > 0]]
    flat = np.stack([keys // (number * number), keys // number % number, keys % number], axis=1)
    return _standing(points, flat, both_ends)


def _standing(points: Points, corners: npt.NDArray[np.int64], both_ends: bool) -> Triangles:
    """Corners in the order of the shape, with the shapes."""
    p = points[corners]
    sides = np.abs(p[:, [1, 2, 0]] - p[:, [2, 0, 1]])
    third = np.argmax(sides, axis=1)
    lines = np.arange(len(corners))
    a, b, c = corners[lines, (third + 1) % 3], corners[lines, (third + 2) % 3], corners[lines, third]
    length = points[b] - points[a]
    known = np.abs(length) > 0
    a, b, c, length = a[known], b[known], c[known], length[known]
    shape = (points[c] - points[a]) / length
    turned = shape.real > 0.5
    a, b = np.where(turned, b, a), np.where(turned, a, b)
    shape = np.where(turned, 1 - shape, shape)
    use = (np.abs(shape.imag) > LEAST_HEIGHT) & (np.abs(shape) > LEAST_SIDE)
    a, b, c, shape = a[use], b[use], c[use], shape[use]
    if both_ends:
        again = shape.real > 0.5 - MIDDLE
        a, b = np.concatenate([a, b[again]]), np.concatenate([b, a[again]])
        c, shape = np.concatenate([c, c[again]]), np.concatenate([shape, 1 - shape[again]])
    return Triangles(np.stack([a, b, c], axis=1), shape)


def _neighbours(points: Points, number: int) -> npt.NDArray[np.int64]:
    """The nearest other points of each point, in no order."""
    if len(points) > MANY:
        return _neighbours_by_tree(points, number)
    found = np.empty((len(points), number), np.int64)
    for start in range(0, len(points), BLOCK):
        some = points[start : start + BLOCK]
        away = (some.real[:, None] - points.real) ** 2 + (some.imag[:, None] - points.imag) ** 2
        away[np.arange(len(some)), start + np.arange(len(some))] = np.inf
        found[start : start + BLOCK] = np.argpartition(away, number - 1, axis=1)[:, :number]
    return found


def _neighbours_by_tree(points: Points, number: int) -> npt.NDArray[np.int64]:
    from scipy.spatial import cKDTree

    there = np.stack([points.real, points.imag], axis=1)
    near = np.asarray(cKDTree(there).query(there, number + 1)[1], np.int64)
    # Points in one place come in any order: the point itself may not be the first.
    own = near == np.arange(len(points))[:, None]
    own[~own.any(axis=1), number] = True
    others: npt.NDArray[np.int64] = near[~own].reshape(len(points), number)
    return others


@dataclass(frozen=True, eq=False)
class Maps:
    """Maps z -> factor z + offset, many of them; complex (n,) each."""

    factor: Points
    offset: Points

    def __len__(self) -> int:
        return len(self.factor)

    def chosen(self, which: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Maps:
        """Some of them."""
        return Maps(self.factor[which], self.offset[which])


@dataclass(frozen=True)
class Bounds:
    """What a map of one plane to another may be: its scale, its turn either way, how far it moves the middle (0)."""

    scale: tuple[float, float]
    turn_deg: float = 180.0
    shift: float = math.inf

    def allow(self, maps: Maps) -> npt.NDArray[np.bool_]:
        """True for maps within the bounds."""
        size = np.abs(maps.factor)
        within: npt.NDArray[np.bool_] = (size >= self.scale[0]) & (size <= self.scale[1])
        if self.turn_deg < 180:
            within &= np.abs(np.degrees(np.angle(maps.factor))) <= self.turn_deg
        if math.isfinite(self.shift):
            within &= np.abs(maps.offset) <= self.shift
        return within


def suggested(
    one: Points,
    triangles_one: Triangles,
    other: Points,
    triangles_other: Triangles,
    tolerance: float,
    bounds: Bounds,
) -> Maps:
    """The maps that lead triangles of one list to triangles of equal shape of the other, if the bounds allow them.

    Each is the least-squares similarity of three corners. Source: triangle matching, Groth
    1986, AJ 91, 1244, with shapes as complex numbers.
    """
    i, j = pairs_within(triangles_one.shape, triangles_other.shape, tolerance)
    from_, to = one[triangles_one.corners[i]], other[triangles_other.corners[j]]
    middle, target = from_.mean(axis=1), to.mean(axis=1)
    away = from_ - middle[:, None]
    square = (away.real**2 + away.imag**2).sum(axis=1)
    factor = (away.conj() * (to - target[:, None])).sum(axis=1) / np.where(square > 0, square, np.inf)
    maps = Maps(factor, target - factor * middle)
    return maps.chosen(bounds.allow(maps))


@dataclass(frozen=True, eq=False)
class Raster:
    """Where there is a point within a radius, on a fine grid: many places are looked up at once."""

    corner: complex
    size: float
    marked: npt.NDArray[np.bool_]

    @staticmethod
    def fits(points: Points, radius: float) -> bool:
        """Whether the raster of some points has no more cells than it may."""
        wide, high = float(np.ptp(points.real)), float(np.ptp(points.imag))
        return (wide + 8 * radius) * (high + 8 * radius) <= MOST_CELLS * (radius / 2) ** 2

    @staticmethod
    def of(points: Points, radius: float) -> Raster:
        """The raster of some points; where they are spread over very many cells, the radius grows."""
        corner = complex(points.real.min(), points.imag.min())
        wide, high = float(np.ptp(points.real)), float(np.ptp(points.imag))
        size = max(radius / 2, math.sqrt((wide + 8 * radius) * (high + 8 * radius) / MOST_CELLS))
        margin = 4
        corner -= complex(margin * size, margin * size)
        shape = int(high / size) + 2 * margin + 1, int(wide / size) + 2 * margin + 1
        marked = np.zeros(shape, np.bool_)
        column, row = _cells(points, corner, size)
        reach = range(-2, 3)
        for by, along in ((by, along) for by in reach for along in reach if by * by + along * along <= 5):
            marked[row + by, column + along] = True
        return Raster(corner, size, marked)

    def counts(self, maps: Maps, points: Points) -> npt.NDArray[np.int64]:
        """How many of some points each map brings near a point of the raster."""
        flat, (rows, columns) = self.marked.ravel(), self.marked.shape
        found = np.empty(len(maps), np.int64)
        step = max(1, SCORED_AT_ONCE // max(1, len(points)))
        for start in range(0, len(maps), step):
            part = slice(start, start + step)
            where = (maps.factor[part, None] * points + (maps.offset[part, None] - self.corner)) / self.size
            # Cells of the margin are empty: what is outside falls there.
            column = np.clip(where.real, 0, columns - 1).astype(np.int64)
            row = np.clip(where.imag, 0, rows - 1).astype(np.int64)
            found[part] = flat[row * columns + column].sum(axis=1)
        return found


def counts_of(maps: Maps, points: Points, stars: Points, radius: float, half: float) -> npt.NDArray[np.int64]:
    """How many of some points each map brings within a radius of a star; of a wide field, only for likely maps.

    half: the size of the image, from its middle. Maps of triangles of the image that is sought
    agree in place and turn; those of chance lie all over.
    """
    if Raster.fits(stars, radius):
        return Raster.of(stars, radius).counts(maps, points)
    from scipy.spatial import cKDTree

    some = _voted(maps, half)
    chosen = maps.chosen(some)
    placed = chosen.factor[:, None] * points + chosen.offset[:, None]
    tree = cKDTree(np.stack([stars.real, stars.imag], axis=1))
    away = tree.query(np.stack([placed.real, placed.imag], axis=-1), distance_upper_bound=radius)[0]
    found = np.zeros(len(maps), np.int64)
    found[some] = np.isfinite(away).sum(axis=1)
    return found


def _voted(maps: Maps, half: float) -> Places:
    """Places of the maps that most others are much like."""
    if len(maps) <= VOTED:
        return np.arange(len(maps))
    turn = np.floor(np.angle(maps.factor) / VOTE_TURN_RAD).astype(np.int64)
    corner = complex(maps.offset.real.min(), maps.offset.imag.min())
    column, row = _cells(maps.offset, corner, VOTE_SHIFT * half)
    order = np.lexsort((turn, column, row))
    step = np.diff(np.stack([turn, column, row])[:, order], axis=1).any(axis=0)
    number = np.cumsum(np.r_[0, step])
    votes = np.empty(len(maps), np.int64)
    votes[order] = np.bincount(number)[number]
    return np.argsort(-votes, kind="stable")[:VOTED]


def spread_order(points: Points, cell: float) -> Places:
    """Places of points that are in the order of their brightness: the first of every cell before the second of any.

    So a cluster does not take all.
    """
    column, row = _cells(points, complex(points.real.min(), points.imag.min()), cell)
    key = row * (int(column.max()) + 1) + column
    by_cell = np.argsort(key, kind="stable")
    first = np.r_[True, np.diff(key[by_cell]) != 0]
    start = np.maximum.accumulate(np.where(first, np.arange(len(key)), 0))
    rank = np.empty(len(key), np.int64)
    rank[by_cell] = np.arange(len(key)) - start
    return np.argsort(rank, kind="stable")
