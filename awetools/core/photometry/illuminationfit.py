"""The fit of zero points and polynomials of detectors to a table of values, robust, within what they tell."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..sky.polynomial import Doubles
from .illuminationvalues import Values
from .robustfit import MEDIAN_DEVIATION, kept_variance
from .softclip import FIRST_ANCHOR_MAG, LEAST_FREE, fits, soft_parts

SOFT_ROUNDS, HARD_ROUNDS = 8, 6
BISECTIONS = 30
# What keeps zero points finite that have no reference; far below what a star says of one.
SLACK = 1e-9


@dataclass(frozen=True, eq=False)
class State:
    """Zero points, terms, their covariance, the directions that were kept, variance beyond the errors, parts."""

    zero: Doubles
    term: Doubles
    covariance: Doubles
    kept: Doubles
    extra: Doubles
    part: Doubles


def begun(values: Values) -> State:
    """What a fit begins with: nothing is known, everything counts."""
    extra = np.array([0.0, FIRST_ANCHOR_MAG**2])
    nothing = np.zeros((values.terms, values.terms))
    return State(
        np.zeros(values.frames),
        np.zeros(values.terms),
        nothing,
        nothing[:, :0],
        extra,
        np.ones(len(values.star)),
    )


def variance_of(values: Values, state: State) -> Doubles:
    """Of each value, with what it has beyond its error."""
    return np.asarray(values.variance + state.extra[values.known.astype(np.int64)])


def fitted(
    values: Values,
    state: State,
    clip_sigma: float,
    most_error_mag: float,
    with_terms: bool = True,
    soft_rounds: int = SOFT_ROUNDS,
    hard_rounds: int = HARD_ROUNDS,
) -> State:
    """The fit: rounds with weights that fall with the residual, then with clipping."""
    for turn in range(soft_rounds + hard_rounds):
        state = _solved(values, state, most_error_mag, with_terms)
        away, left = residuals(values, state)
        if turn < soft_rounds:
            state = _softened(values, state, away, left)
            if turn < soft_rounds - 1:
                continue
        state = _weighed(values, state, away, left, clip_sigma, first=turn < soft_rounds)
        part = fits(away, left, variance_of(values, state), clip_sigma)
        state = replace(state, part=part.astype(np.float64))
    return _solved(values, state, most_error_mag, with_terms)


def _solved(values: Values, state: State, most_error_mag: float, with_terms: bool) -> State:
    """Zero points and terms by the normal equations, the stars' magnitudes eliminated."""
    from scipy.sparse import csr_matrix, diags
    from scipy.sparse.linalg import splu

    weight = state.part / variance_of(values, state)
    size, stars = len(weight), int(values.star.max()) + 1
    total = np.bincount(values.star, weight, stars)
    inverse = np.divide(1, total, out=np.zeros(stars), where=total > 0)
    rows = np.arange(size)
    seen = np.flatnonzero(~values.known)
    zero = csr_matrix((np.ones(len(seen)), (seen, values.frame[seen])), (size, values.frames))
    sums = csr_matrix((weight, (values.star, rows)), (stars, size))
    means = diags(inverse) @ sums
    own = (zero.T @ diags(weight) @ zero - (sums @ zero).T @ (means @ zero)).tocsc()
    slack = SLACK * max(float(own.diagonal().max()), 1.0)
    solver = splu((own + diags(np.full(values.frames, slack))).tocsc())
    away = values.mag - (means @ values.mag)[values.star]
    right = -(zero.T @ (weight * away))
    if not with_terms or not values.terms:
        return replace(state, zero=solver.solve(right), term=np.zeros(values.terms))
    places = np.repeat(rows, values.at.shape[1]), values.at.ravel()
    design = csr_matrix((values.basis.ravel(), places), (size, values.terms))
    weighted = diags(weight) @ design
    both = (zero.T @ weighted - (sums @ zero).T @ (means @ design)).toarray()
    block = (design.T @ weighted - (sums @ design).T @ (means @ design)).toarray()
    solved = solver.solve(both)
    schur = block - both.T @ solved
    term_right = -np.asarray(design.T @ (weight * away)) - solved.T @ right
    known = _with_colour if values.coloured else _known_directions
    term, covariance, kept = known(schur, term_right, most_error_mag)
    return replace(state, zero=solver.solve(right - both @ term), term=term, covariance=covariance, kept=kept)


def _with_colour(schur: Doubles, right: Doubles, most_error_mag: float) -> tuple[Doubles, Doubles, Doubles]:
    """The same where the last term is that of the colour, which is always fitted."""
    own, cross = max(float(schur[-1, -1]), 1e-30), schur[:-1, -1]
    block = schur[:-1, :-1] - np.outer(cross, cross) / own
    term, covariance, kept = _known_directions(block, right[:-1] - cross * right[-1] / own, most_error_mag)
    colour = (right[-1] - cross @ term) / own
    last = np.pad(covariance, (0, 1))
    last[-1, -1] = 1 / own
    return np.append(term, colour), last, np.pad(kept, ((0, 1), (0, 0)))


def _known_directions(
    schur: Doubles, right: Doubles, most_error_mag: float
) -> tuple[Doubles, Doubles, Doubles]:
    """The solution in the directions whose error is within the limit, its covariance, and these directions.

    In each it is shrunk by what its own error makes of its square: noise is no correction. Source: the positive part
    of James and Stein (1961), a direction at a time.
    """
    value, vector = np.linalg.eigh(0.5 * (schur + schur.T))
    kept = vector[:, value >= most_error_mag**-2]
    value = value[value >= most_error_mag**-2]
    found = (kept.T @ right) / value
    shrunk = found * np.maximum(0, 1 - 1 / np.maximum(value * found**2, 1))
    return kept @ shrunk, (kept / value) @ kept.T, kept


def residuals(values: Values, state: State) -> tuple[Doubles, Doubles]:
    """Of each value about its star: residual, and what part of its variance is left."""
    weight = state.part / variance_of(values, state)
    total = np.bincount(values.star, weight)
    total = np.where(total > 0, total, np.inf)
    made = _modelled(values, state)
    mean = np.bincount(values.star, weight * made) / total
    return made - mean[values.star], 1 - weight / total[values.star]


def _modelled(values: Values, state: State) -> Doubles:
    """The magnitude of its star that each value gives."""
    zero = np.where(values.known, 0.0, state.zero[np.maximum(values.frame, 0)])
    return np.asarray(values.mag + zero + (values.basis * state.term[values.at]).sum(axis=1))


def _softened(values: Values, state: State, away: Doubles, left: Doubles) -> State:
    variance = variance_of(values, state)
    known, seen = (soft_parts(away, left, variance, one) for one in (values.known, ~values.known))
    return replace(state, part=np.where(values.known, known, seen))


def _weighed(
    values: Values, state: State, away: Doubles, left: Doubles, clip_sigma: float, first: bool
) -> State:
    """The variance beyond the errors, of the frames' values and of the known ones."""
    extra = state.extra.copy()
    for number, which in enumerate((~values.known, values.known)):
        tell = which & (left > LEAST_FREE) & (state.part > (0 if first else 0.5))
        if tell.sum() < 10:
            continue
        free = (
            1 - (values.frames + values.terms) / max(float(left[~values.known].sum()), 1) if not number else 1
        )
        square = away[tell] ** 2 / (left[tell] * max(free, LEAST_FREE))
        extra[number] = _extra(square, values.variance[tell], clip_sigma, first)
    return replace(state, extra=extra)


def _extra(square: Doubles, variance: Doubles, clip_sigma: float, first: bool) -> float:
    """The extra variance at which squares are what they should be: their median at first, then what clipping leaves."""

    def over(extra: float) -> bool:
        ratio = square / (variance + extra)
        if first:
            return bool(np.median(ratio) > MEDIAN_DEVIATION**2)
        return bool(ratio.mean() > kept_variance(clip_sigma))

    low, high = 0.0, float(square.mean()) * 4 + 1e-8
    if not over(0.0):
        return 0.0
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if over(middle) else (low, middle)
    return high
