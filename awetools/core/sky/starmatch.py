"""Which sources of many exposures are one star: neighbouring cells of the sphere, in linear time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .match import Places
from .polynomial import Doubles

ARCSEC_PER_RAD = 180 * 3600 / np.pi
# Three numbers of a cell make one of 63 bits.
BITS = 21
LEAST_CELL_ARCSEC = 0.2
# Of what is held out, whole cells are: a star stays in or out, though its position changes a little.
HELD_CELL_ARCSEC = 10.0


def stars_of(vectors: Doubles, exposure: Places, radius_arcsec: float) -> Places:
    """The number of the star that each source belongs to, from 0; -1 for what is blended.

    vectors: unit vectors (n, 3) of sources and of reference stars; exposure (n,): of each,
    one number for the whole reference catalogue. Sources in cells of the size of the
    radius that touch are one star; where an exposure has two of them, none is used.
    """
    if not len(vectors):
        return np.empty(0, np.int64)
    star = groups_of(vectors, radius_arcsec)
    order = np.lexsort((exposure, star))
    twice = (np.diff(star[order]) == 0) & (np.diff(exposure[order]) == 0)
    blended = np.zeros(int(star.max()) + 1, np.bool_)
    blended[star[order[1:][twice]]] = True
    return np.where(blended[star], -1, star)


def groups_of(vectors: Doubles, radius_arcsec: float) -> Places:
    """The number, from 0, of the group of touching cells that each of some unit vectors (n, 3) lies in."""
    cells, member = np.unique(cells_of(vectors, radius_arcsec), return_inverse=True)
    one, other = [], []
    for step in _half_of_neighbours():
        place = np.searchsorted(cells, cells + step)
        place[place == len(cells)] = 0
        touching = np.flatnonzero(cells[place] == cells + step)
        one.append(touching)
        other.append(place[touching])
    return _connected(np.concatenate(one), np.concatenate(other), len(cells))[member]


def _connected(one: Places, other: Places, size: int) -> Places:
    """The group, from 0, of each of so many points of which pairs are joined.

    Each points to the least of those it is joined with, and takes over where that one points,
    until nothing changes. Source: Shiloach and Vishkin 1982, J. Algorithms 3, 57.
    """
    root = np.arange(size)
    while len(one):
        low, high = np.minimum(root[one], root[other]), np.maximum(root[one], root[other])
        apart = np.flatnonzero(low != high)
        one, other = one[apart], other[apart]
        np.minimum.at(root, high[apart], low[apart])
        while (root[root] != root).any():
            root = root[root]
    return np.unique(root, return_inverse=True)[1].astype(np.int64)


def held_out(vectors: Doubles, every: int) -> npt.NDArray[np.bool_]:
    """Whether stars at unit vectors are held out: one in so many, by a hash of the place alone."""
    mixed = cells_of(vectors, HELD_CELL_ARCSEC).astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray((mixed ^ (mixed >> np.uint64(31))) % np.uint64(every) == 0, np.bool_)


def cells_of(vectors: Doubles, size_arcsec: float) -> Places:
    """The number of the cube of a size that each of some unit vectors (n, 3) lies in."""
    size = max(size_arcsec, LEAST_CELL_ARCSEC) / ARCSEC_PER_RAD
    made = np.floor((vectors + 1) / size).astype(np.int64)
    cells: Places = (((made[:, 0] << BITS) + made[:, 1]) << BITS) + made[:, 2]
    return cells


def _half_of_neighbours() -> list[int]:
    """The steps of a cell's number to 13 of its 26 neighbours; the others look back."""
    around = (-1, 0, 1)
    steps = [(((x << BITS) + y) << BITS) + z for x in around for y in around for z in around]
    return [one for one in steps if one > 0]
