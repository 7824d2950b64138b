"""The fit of a global solution: stars are matched, the model is improved, scatter is learnt, in turn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .adjustframe import Frame
from .adjuststart import seen_at_start
from .adjusttable import Catalogue, Mask, Table, placed
from .equations import Equations, Rows, Starts, solved
from .match import Places, Points, as_points
from .mosaic import Mosaic, powers
from .polynomial import Doubles
from .sphere import angles, local_axes
from .starmatch import ARCSEC_PER_RAD, held_out, stars_of

# With fewer stars in common an exposure is shifted only.
LEAST_COMMON = 6
# A detector has so many sources for each term of its polynomial, or higher terms stay as they were.
SOURCES_A_TERM = 3
ROUNDS, STEPS = 6, 2
CLIPPINGS = 4
# A step that moves sources by less than this part of their errors is the last.
SETTLED = 0.01
LEAST_RADIUS_ARCSEC = 0.3
RADIUS_SIGMA = 8.0
FIRST_SCATTER_ARCSEC = 0.05
LEAST_SCATTER_ARCSEC = 1e-3
MEDIAN_SQUARE = 2 * math.log(2)
# What is left of a star's residual if it has nearly all the weight says nothing.
LEAST_FREE = 0.1
# How well the frames' own coordinate systems are believed: where each lies, and, without a
# reference, how it lies: the more, the better they agree.
PLACE_ARCSEC, SHAPE_ARCSEC, SHAPE_TIMES = 10.0, 0.1, 2.0


@dataclass(frozen=True, eq=False)
class Stars:
    """Which sources are of stars in common: source (n,) places in the table, star (n,); the rest by star.

    place: a unit vector near the star; east, north: its axes; known: the place of its reference star or -1.
    """

    source: Places
    star: Places
    place: Doubles
    east: Doubles
    north: Doubles
    known: Places
    held: Mask


@dataclass(frozen=True, eq=False)
class State:
    """The model, and scatter beyond the errors: variance by exposure, and of the reference, arcsec^2."""

    model: Mosaic
    extra: Doubles
    reference_extra: float


@dataclass(frozen=True, eq=False)
class Fit:
    """What a fit has come to: the equations are those of the last state."""

    state: State
    stars: Stars
    given: Equations
    used: Mask
    radius_arcsec: float


@dataclass(frozen=True, eq=False)
class Problem:
    """What a fit is of; starts: where the frames lay, points of a grid (frames * g, ...)."""

    table: Table
    catalogue: Catalogue
    grid: Doubles
    grid_vectors: Doubles
    grid_detector: Places
    grid_exposure: Places
    points: int
    shape_weight: float
    clip_sigma: float
    hold_out: int


def problem_of(
    frames: Sequence[Frame],
    table: Table,
    catalogue: Catalogue,
    degree: int,
    apart_arcsec: Doubles,
    detectors: Places,
    exposures: Places,
    clip_sigma: float,
    hold_out: int,
) -> Problem:
    """A problem of frames whose coordinate systems differ from the common mosaic by so much."""
    vectors, x, y = seen_at_start(frames)
    points = vectors.shape[1]
    shape = PLACE_ARCSEC
    if not len(catalogue.place):
        shape = max(SHAPE_ARCSEC, SHAPE_TIMES * float(np.median(apart_arcsec)))
    return Problem(
        table=table,
        catalogue=catalogue,
        grid=np.concatenate([powers(degree, x[k], y[k], one.shape) for k, one in enumerate(frames)]),
        grid_vectors=vectors.reshape(-1, 3),
        grid_detector=np.repeat(detectors, points),
        grid_exposure=np.repeat(exposures, points),
        points=points,
        shape_weight=shape**-2,
        clip_sigma=clip_sigma,
        hold_out=hold_out,
    )


def first_state(problem: Problem, model: Mosaic) -> State:
    """The state before anything was fitted."""
    scatter = np.full(len(model.frames), FIRST_SCATTER_ARCSEC**2)
    return State(model, scatter, FIRST_SCATTER_ARCSEC**2 if len(problem.catalogue.place) else 0.0)


def fitted(problem: Problem, state: State, stars: Stars, radius_arcsec: float) -> Fit:
    """The fit without the stars that are held out, from those first matched; they are matched again as it gets on."""
    radius = radius_arcsec
    # Else what the frames are off by at first would be clipped.
    state = _learnt(
        problem, state, stars, equations_of(problem, state, stars), np.ones(len(stars.source), np.bool_)
    )
    for _ in range(ROUNDS):
        state, used, given, settled = improved(problem, state, stars, stars.held)
        fit = Fit(state, stars, given, used, radius)
        sigma = 1 / np.sqrt(given.weight) if len(given.weight) else np.array([math.inf])
        radius = min(radius, max(LEAST_RADIUS_ARCSEC, RADIUS_SIGMA * float(np.median(sigma))))
        stars = matched(problem, state.model, radius)
        if settled and _same(stars, fit.stars):
            break
    return fit


def refitted(problem: Problem, fit: Fit) -> Fit:
    """The fit with all stars."""
    state, used, given, _ = improved(problem, fit.state, fit.stars, np.zeros_like(fit.stars.held))
    return replace(fit, state=state, used=used, given=given)


def matched(problem: Problem, model: Mosaic, radius_arcsec: float) -> Stars:
    """The stars that two exposures, or one and the reference, have within a radius."""
    table, catalogue = problem.table, problem.catalogue
    _, vectors = placed(table, model, slice(None))
    count = len(vectors)
    everything = np.concatenate([vectors, catalogue.place])
    exposure = np.concatenate([table.exposure, np.full(len(catalogue.place), len(model.frames))])
    star = stars_of(everything, exposure, radius_arcsec)
    members = np.bincount(star[star >= 0], minlength=int(star.max(initial=-1)) + 1)
    common = np.r_[members >= 2, False]
    number = np.cumsum(common) - 1
    star = np.where((star >= 0) & common[star], number[star], -1)
    stars = int(common.sum())
    source = np.flatnonzero(star[:count] >= 0)
    known = np.full(stars, -1)
    listed = np.flatnonzero(star[count:] >= 0)
    known[star[count:][listed]] = listed
    summed = [np.bincount(star[source], vectors[source, k], stars) for k in range(3)]
    place = np.stack(summed, axis=1).astype(np.float64)
    place /= np.linalg.norm(place, axis=1, keepdims=True)
    east, north, _ = local_axes(*angles(*(place[:, k] for k in range(3))))
    return Stars(source, star[source], place, east, north, known, held_out(place, problem.hold_out))


def _same(one: Stars, other: Stars) -> bool:
    """Whether the same sources are the same stars, however these are numbered."""
    if not np.array_equal(one.source, other.source):
        return False
    first, second = (np.unique(s.star, return_index=True)[1][s.star] for s in (one, other))
    return np.array_equal(first, second) and np.array_equal(one.known[one.star], other.known[other.star])


def equations_of(problem: Problem, state: State, stars: Stars) -> Equations:
    """The residuals of the sources of stars, and their weights."""
    table, catalogue = problem.table, problem.catalogue
    plane, vectors = placed(table, state.model, stars.source)
    exposure = table.exposure[stars.source]
    rows = _rows(
        state.model,
        (table.design[stars.source], table.detector[stars.source], exposure, plane),
        vectors - stars.place[stars.star],
        (stars.east[stars.star], stars.north[stars.star]),
    )
    known = stars.known >= 0
    anchor, above = np.zeros(len(known)), np.zeros(len(known), np.complex128)
    if known.any():
        which = stars.known[known]
        years = np.nan_to_num(table.epoch[exposure] - catalogue.epoch)
        motion = np.zeros(len(known), np.complex128)
        motion[known] = catalogue.motion[which]
        rows = replace(rows, away=rows.away - motion[stars.star] * years)
        apart = catalogue.place[which] - stars.place[known]
        above[known] = as_points(_dot(apart, stars.east[known]), _dot(apart, stars.north[known]))
    return _weighted(problem, state, stars, Equations(rows, stars.star, np.empty(0), anchor, above))


def _rows(
    model: Mosaic,
    what: tuple[Doubles, Places, Places, Points],
    away: Doubles,
    axes: tuple[Doubles, Doubles],
) -> Rows:
    design, detector, exposure, plane = what
    to_east, to_north = axes
    frames = model.frames[exposure]
    first, second = frames[:, 0], frames[:, 1]
    turn = as_points(
        _dot(first, to_east) + _dot(second, to_north), _dot(first, to_north) - _dot(second, to_east)
    )
    turn *= 0.5 / (1 + np.abs(plane) ** 2) ** 0.75
    return Rows(design, detector, exposure, plane, turn, as_points(_dot(away, to_east), _dot(away, to_north)))


def _weighted(problem: Problem, state: State, stars: Stars, given: Equations) -> Equations:
    """The equations with the weights that a state gives them."""
    table, catalogue = problem.table, problem.catalogue
    weight = 1 / (table.sigma[stars.source] ** 2 + state.extra[given.rows.exposure])
    anchor = np.zeros(len(stars.known))
    known = stars.known >= 0
    anchor[known] = 1 / (catalogue.sigma[stars.known[known]] ** 2 + state.reference_extra)
    return replace(given, weight=weight, anchor=anchor)


def starts_in(problem: Problem, model: Mosaic) -> Starts:
    """How far a model has the frames off where their own coordinate systems have them."""
    detector, exposure, target = problem.grid_detector, problem.grid_exposure, problem.grid_vectors
    plane = model.plane(detector, exposure, problem.grid)
    east, north, _ = local_axes(*angles(*(target[:, k] for k in range(3))))
    away = model.vectors(plane, exposure) - target
    rows = _rows(model, (problem.grid, detector, exposure, plane), away, (east, north))
    return Starts(rows, problem.points, problem.shape_weight, PLACE_ARCSEC**-2)


def _dot(one: Doubles, other: Doubles) -> Doubles:
    return np.asarray(np.einsum("ij,ij->i", one, other), np.float64)


def means(given: Equations, used: Mask, anchored: bool) -> tuple[Points, Doubles]:
    """Where each star is, seen from its place, and the weight of that; of its sources alone, or with the reference."""
    size = len(given.anchor)
    weight, away = given.weight * used, given.rows.away
    total = np.bincount(given.star, weight, size) + anchored * given.anchor
    value = as_points(
        np.bincount(given.star, weight * away.real, size),
        np.bincount(given.star, weight * away.imag, size),
    )
    value += anchored * given.anchor * given.above
    return value / np.where(total > 0, total, 1.0), total


def scatter(given: Equations, used: Mask) -> tuple[Doubles, Doubles]:
    """Squares of the residuals, arcsec^2, and the part of a source's variance that is left in each."""
    mean, total = means(given, used, True)
    away = (given.rows.away - mean[given.star]) * ARCSEC_PER_RAD
    share = given.weight * used / np.where(total > 0, total, 1.0)[given.star]
    # What is not used adds to the residual the error of the mean.
    left = np.where(used, 1 - share, 1 + given.weight / np.where(total > 0, total, np.inf)[given.star])
    return away.real**2 + away.imag**2, left


def improved(problem: Problem, state: State, stars: Stars, held: Mask) -> tuple[State, Mask, Equations, bool]:
    """A state that fits better without stars held out, sources not clipped, the equations; whether it is settled."""
    given, used = _clipped(problem, equations_of(problem, state, stars))
    settled = False
    for _ in range(STEPS):
        fit = used & ~held[stars.star]
        free = _free(state.model, given, fit)
        weighed = replace(given, weight=given.weight * fit, anchor=np.where(held, 0.0, given.anchor))
        step = solved(state.model, weighed, starts_in(problem, state.model), *free)
        state = replace(state, model=state.model.moved(step))
        before, given = given, equations_of(problem, state, stars)
        moved = np.abs(given.rows.away - before.rows.away) ** 2 * before.weight
        state = _learnt(problem, state, stars, given, used)
        given, used = _clipped(problem, _weighted(problem, state, stars, given))
        settled = bool(moved.size == 0 or moved.mean() * ARCSEC_PER_RAD**2 < SETTLED**2)
        if settled:
            break
    return state, used, given, settled


def _clipped(problem: Problem, given: Equations) -> tuple[Equations, Mask]:
    """The equations without reference stars that lie far off what the sources say, and the sources not clipped."""
    used = _unclipped(problem, given)
    mean, total = means(given, used, False)
    pinned = np.flatnonzero((given.anchor > 0) & (total > 0))
    off = np.abs(given.above[pinned] - mean[pinned]) * ARCSEC_PER_RAD
    far = pinned[off**2 > problem.clip_sigma**2 * (1 / given.anchor[pinned] + 1 / total[pinned])]
    if not len(far):
        return given, used
    anchor = given.anchor.copy()
    anchor[far] = 0.0
    given = replace(given, anchor=anchor)
    return given, _unclipped(problem, given)


def _unclipped(problem: Problem, given: Equations) -> Mask:
    """Which sources are near enough to the others of their stars: the same for the same state."""
    used = np.ones(len(given.star), np.bool_)
    for _ in range(CLIPPINGS):
        square, left = scatter(given, used)
        before, used = used, square <= problem.clip_sigma**2 * np.maximum(left, LEAST_FREE) / given.weight
        if np.array_equal(before, used):
            break
    return used


def _free(model: Mosaic, given: Equations, fit: Mask) -> tuple[Mask, Mask]:
    """Which terms of each detector the sources determine, and which exposures can be turned and scaled."""
    rows = given.rows
    mates = np.bincount(given.star[fit], minlength=len(given.anchor)) + (given.anchor > 0)
    shared = fit & (mates[given.star] >= 2)
    many = np.bincount(rows.exposure[shared], minlength=len(model.frames)) >= LEAST_COMMON
    pointings = np.stack([np.ones_like(many), many], axis=1)
    good = shared & many[rows.exposure]
    number = np.bincount(rows.detector[good], minlength=len(model.detectors))
    width = model.detectors.shape[1]
    order = np.concatenate([np.full(k + 1, (k + 1) * (k + 2) // 2) for k in range(model.degree + 1)])
    terms = number[:, None] >= SOURCES_A_TERM * order[None, :width]
    return terms, pointings


def _learnt(problem: Problem, state: State, stars: Stars, given: Equations, used: Mask) -> State:
    """The scatter beyond the errors that makes the residuals what they are."""
    square, left = scatter(given, used)
    tell = np.flatnonzero(used & (left > LEAST_FREE))
    sigma = problem.table.sigma[stars.source[tell]]
    value = square[tell] / left[tell] / MEDIAN_SQUARE - sigma**2
    exposure = given.rows.exposure[tell]
    order = np.argsort(exposure, kind="stable")
    extra = state.extra.copy()
    for part in np.split(order, np.flatnonzero(np.diff(exposure[order])) + 1):
        # In bright stars it is seen: in others it is small beside the errors.
        bright = part[sigma[part] <= np.median(sigma[part])] if len(part) else part
        if len(bright) >= LEAST_COMMON:
            extra[exposure[part[0]]] = max(float(np.median(value[bright])), LEAST_SCATTER_ARCSEC**2)
    mean, total = means(given, used, False)
    pinned = np.flatnonzero((given.anchor > 0) & (total > 0))
    if len(pinned) < LEAST_COMMON:
        return replace(state, extra=extra)
    away = np.abs(given.above[pinned] - mean[pinned]) * ARCSEC_PER_RAD
    listed = problem.catalogue.sigma[stars.known[pinned]]
    more = away**2 / MEDIAN_SQUARE - 1 / total[pinned] - listed**2
    return replace(state, extra=extra, reference_extra=max(float(np.median(more)), LEAST_SCATTER_ARCSEC**2))
