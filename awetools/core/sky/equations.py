"""One step of a global solution: the normal equations of detectors and pointings, and their solution."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .leastsquares import design_matrix
from .match import Places, Points
from .mosaic import Mosaic
from .polynomial import Doubles
from .starmatch import ARCSEC_PER_RAD

# How far a step may go against the data: between a detector's place and the pointings nothing decides.
DAMPING_ARCSEC = 100.0
DAMPING_TURN = 0.01
# Less of the diagonal is lost in rounding.
LEAST_PART = 1e-10
# Stars times unknowns that are kept as a full array, and unknowns: beyond, what is 0 is left out.
MOST_FULL, MOST_FULL_UNKNOWNS = 8_000_000, 400
# Beyond so many unknowns, or where few of them meet, the normal matrix is solved as a sparse one.
MOST_DENSE = 6000
LEAST_DENSE_PART = 0.05
# So many sources have their stars eliminated at once.
CHUNK = 200_000


@dataclass(frozen=True, eq=False)
class Rows:
    """Sources as observations, (n,) each, frame by frame: their powers, detector, exposure, and plane.

    turn: by what a step in the plane is multiplied to be one on the star's own axes;
    away: how far the source is off the place of its star there, rad.
    """

    design: Doubles
    detector: Places
    exposure: Places
    plane: Points
    turn: Points
    away: Points


@dataclass(frozen=True, eq=False)
class Equations:
    """Sources, and what is known of their stars.

    star (n,); weight (n,): inverse variance, arcsec^-2; anchor (stars,): weight of a
    reference position; above: where it is, seen from the star's place.
    """

    rows: Rows
    star: Places
    weight: Doubles
    anchor: Doubles
    above: Points


@dataclass(frozen=True, eq=False)
class Starts:
    """Where frames lay at the start: rows of `points` for each frame, off their places then.

    shape_weight: of how a frame lies in itself; place_weight: of where it is as a whole; arcsec^-2.
    """

    rows: Rows
    points: int
    shape_weight: float
    place_weight: float


@dataclass(frozen=True, eq=False)
class _Block:
    """A frame's part: its sources (a slice), the unknowns of its columns, and what each column does to each source."""

    which: slice
    columns: Places
    value: Points


def solved(
    model: Mosaic,
    given: Equations,
    starts: Starts,
    terms: npt.NDArray[np.bool_],
    pointings: npt.NDArray[np.bool_],
    full: bool | None = None,
) -> Points:
    """The step of all unknowns: of each detector its terms, of each exposure shift and turn, by least squares.

    terms (d, terms): which of them may change; pointings (e, 2): the same. The stars are
    eliminated (Schur complement): what is left of a star is its sources less their mean.
    full: whether arrays are (None: if they are small enough); the step is the same.
    """
    free = np.concatenate([terms.ravel(), pointings.ravel()])
    own, stars = model.detectors.size, len(given.anchor)
    if full is None:
        full = len(free) <= MOST_FULL_UNKNOWNS and len(free) * stars <= MOST_FULL
    total = np.bincount(given.star, given.weight, stars) + given.anchor
    total[total == 0] = 1.0
    mean = _sums(given.star, given.weight * given.rows.away, stars) + given.anchor * given.above
    missed = (mean / total)[given.star] - given.rows.away
    design, plane = _at_stars(model, given.rows, missed)
    blocks = list(_blocks(model, given.rows, design, plane, free))
    made, right = _of_frames(blocks, given.weight, missed, len(free), full)
    more, pull = _of_starts(model, starts, free, full)
    made, right = made + more, right + pull
    made = made - _of_stars(blocks, given, total, free, full)
    damping = np.full(len(free), DAMPING_ARCSEC / ARCSEC_PER_RAD)
    damping[own + 1 :: 2] = DAMPING_TURN
    # Weights are of arcsec, all else of rad.
    diagonal = made.diagonal().real
    lifted = np.maximum(1 / (damping * ARCSEC_PER_RAD) ** 2, LEAST_PART * np.abs(diagonal))
    return _without_common(model, pointings, _step(made, lifted, right, full))


def _sums(star: Places, value: Points, stars: int) -> Points:
    made = np.empty(stars, np.complex128)
    made.real, made.imag = np.bincount(star, value.real, stars), np.bincount(star, value.imag, stars)
    return made


def _at_stars(model: Mosaic, rows: Rows, missed: Points) -> tuple[Doubles, Points]:
    """Powers of the pixels, and points of the planes, where the stars are now, not where they were measured.

    The errors are those of pixels: else frames tied to nothing but each other would shrink, for the
    smaller they are, the less they differ on the sky.
    """
    away = missed / rows.turn
    terms = model.detectors[rows.detector, 1:3] * model.scale[rows.exposure][:, None]
    to_u, to_v = terms[:, 0], terms[:, 1]
    area = to_u.real * to_v.imag - to_u.imag * to_v.real
    u = rows.design[:, 1] + (away.real * to_v.imag - away.imag * to_v.real) / area
    v = rows.design[:, 2] + (to_u.real * away.imag - to_u.imag * away.real) / area
    return design_matrix(model.degree, u, v), rows.plane + away


def _blocks(
    model: Mosaic, rows: Rows, design: Doubles, plane: Points, free: npt.NDArray[np.bool_]
) -> Iterator[_Block]:
    """The frames' parts of the equations."""
    width, own = model.detectors.shape[1], model.detectors.size
    value = np.empty((len(plane), width + 2), np.complex128)
    np.multiply(design, (rows.turn * model.scale[rows.exposure])[:, None], out=value[:, :width])
    value[:, width] = rows.turn
    value[:, width + 1] = rows.turn * plane
    ends = np.flatnonzero((np.diff(rows.detector) != 0) | (np.diff(rows.exposure) != 0)) + 1
    for low, high in zip([0, *ends.tolist()], [*ends.tolist(), len(plane)], strict=True):
        if low == high:
            continue
        pointing = own + 2 * int(rows.exposure[low])
        columns = np.r_[int(rows.detector[low]) * width + np.arange(width), pointing, pointing + 1]
        part = value[low:high]
        if not free[columns].all():
            part = part * free[columns]
        yield _Block(slice(low, high), columns, part)


def _of_frames(
    blocks: list[_Block], weight: Doubles, missed: Points, size: int, full: bool
) -> tuple[Any, Points]:
    """The normal matrix as if every star were known, and the right side."""
    right = np.zeros(size, np.complex128)
    parts = []
    for one in blocks:
        weighted = one.value * weight[one.which, None]
        parts.append((one.columns, weighted.conj().T @ one.value))
        right[one.columns] += weighted.conj().T @ missed[one.which]
    return _assembled(parts, size, full), right


def _assembled(parts: list[tuple[Places, Points]], size: int, full: bool) -> Any:
    """The matrix of small ones that lie at rows and columns of it."""
    if full:
        made = np.zeros((size, size), np.complex128)
        for columns, part in parts:
            made[np.ix_(columns, columns)] += part
        return made
    from scipy.sparse import coo_array

    if not parts:
        return coo_array((size, size), dtype=np.complex128).tocsr()
    columns = np.stack([one for one, _ in parts])
    down = np.repeat(columns, columns.shape[1], axis=1).ravel()
    across = np.tile(columns, (1, columns.shape[1])).ravel()
    return coo_array((np.stack([part for _, part in parts]).ravel(), (down, across)), (size, size)).tocsr()


def _of_starts(model: Mosaic, starts: Starts, free: npt.NDArray[np.bool_], full: bool) -> tuple[Any, Points]:
    """What the frames' places at the start add: little, but it decides what the sources leave open."""
    rows = starts.rows
    right = np.zeros(len(free), np.complex128)
    parts = []
    for one in _blocks(model, rows, rows.design, rows.plane, free):
        value, missed = one.value, -rows.away[one.which]
        mean, middle = value.mean(axis=0, keepdims=True), missed.mean(keepdims=True)
        both = np.concatenate([value - mean, mean])
        weight = np.r_[np.full(len(value), starts.shape_weight), len(value) * starts.place_weight]
        weighted = (both * weight[:, None]).conj().T
        parts.append((one.columns, weighted @ both))
        right[one.columns] += weighted @ np.concatenate([missed - middle, middle])
    return _assembled(parts, len(free), full), right


def _of_stars(
    blocks: list[_Block], given: Equations, total: Doubles, free: npt.NDArray[np.bool_], full: bool
) -> Any:
    """What the stars, being unknown, take away from the normal matrix."""
    if full:
        by_star = np.zeros((len(total), len(free)), np.complex128)
        for one in blocks:
            # An exposure has a star but once.
            by_star[given.star[one.which, None], one.columns] += one.value * given.weight[one.which, None]
        return (by_star / total[:, None]).conj().T @ by_star
    return _of_stars_sparse(blocks, given, total, len(free))


def _of_stars_sparse(blocks: list[_Block], given: Equations, total: Doubles, size: int) -> Any:
    from scipy.sparse import csr_array

    value = np.concatenate([one.value for one in blocks])
    frame = np.repeat(np.arange(len(blocks)), [one.which.stop - one.which.start for one in blocks])
    columns = np.stack([one.columns for one in blocks])
    order = np.argsort(given.star, kind="stable")
    root = given.weight / np.sqrt(total)[given.star]
    made: Any = csr_array((size, size), dtype=np.complex128)
    low = 0
    while low < len(order):
        high = min(low + CHUNK, len(order))
        while high < len(order) and given.star[order[high]] == given.star[order[high - 1]]:
            high += 1
        some = order[low:high]
        star = given.star[some] - given.star[some[0]]
        start = np.searchsorted(star, np.arange(int(star[-1]) + 2)) * value.shape[1]
        part = value[some] * root[some, None]
        by_star = csr_array((part.ravel(), columns[frame[some]].ravel(), start), (len(start) - 1, size))
        by_star.sum_duplicates()
        made = made + by_star.conj().T.tocsr() @ by_star
        low = high
    return made


def _step(made: Any, lifted: Doubles, right: Points, full: bool) -> Points:
    """The solution of normal equations, scaled so that the diagonal is 1."""
    root = 1 / np.sqrt(made.diagonal().real + lifted)
    size = len(right)
    if full:
        made = root[:, None] * made * root
        made[np.diag_indices(size)] = 1.0
        return np.asarray(root * np.linalg.solve(made, root * right), np.complex128)
    from scipy.linalg import cho_factor, cho_solve
    from scipy.sparse import diags_array
    from scipy.sparse.linalg import splu

    normal = diags_array(root) @ (made + diags_array(lifted)) @ diags_array(root)
    if size <= MOST_DENSE and (size < 200 or normal.nnz > LEAST_DENSE_PART * size * size):
        found = cho_solve(cho_factor(normal.toarray(), lower=True), root * right)
    else:
        factors = splu(normal.tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
        found = factors.solve(root * right)
    return np.asarray(root * found, np.complex128)


def _without_common(model: Mosaic, pointings: npt.NDArray[np.bool_], step: Points) -> Points:
    """The step with what all exposures turn by in common put into the detectors: those only shifted have it too."""
    own = model.detectors.size
    turned = own + 1 + 2 * np.flatnonzero(pointings[:, 1])
    if len(turned):
        common = step[turned].mean()
        step[turned] -= common
        step[:own] += common * model.detectors.ravel()
    return step
