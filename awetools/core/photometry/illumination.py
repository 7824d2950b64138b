"""What flats have wrong for stars, over the detectors of a mosaic, from stars seen at many places.

m = M - Z + P(x, y): a star of magnitude M in a frame of zero point Z at a place of its detector. Stars, zero
points of frames and the P of all detectors are fitted together; the stars are eliminated first. P has mean 0 over
its detector: what detectors differ by is in their zero points. Frames that are only shifted do not tell a common
gradient, which is a gradient of the stars' magnitudes and shifts of the zero points as well; turned frames, or
stars of known magnitude, do. What is not known to within a limit is left at 0 (Schur complement, its eigenvectors),
the rest is shrunk by its errors.
Similar: Manfroid (1995, A&AS 113, 587); Regnault et al. (2009, A&A 506, 999), section 8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..errors import BadValue, EmptyInput, NoSolution
from ..pixels.illumination import legendre, terms_of
from ..sky.match import Places
from ..sky.polynomial import Doubles
from .framestars import Anchors, held_part
from .robustfit import LEAST_VARIANCE, MEDIAN_DEVIATION, Mask, kept_variance

SOFT_ROUNDS, HARD_ROUNDS, HELD_ROUNDS = 8, 6, 2
# Where a value's weight is half of what its error says.
SOFT_SIGMA = 2.0
# What is left of the variance of one that has nearly all the weight of its star says nothing.
LEAST_FREE = 0.05
FIRST_ANCHOR_MAG = 0.02
BISECTIONS = 30
Pair = tuple[float, float]
# What keeps zero points finite that have no reference; far below what a star says of one.
SLACK = 1e-9
# Colours are fitted where so many known stars have one, over so many magnitudes (rms).
LEAST_COLOURS, LEAST_COLOUR_RMS_MAG = 20, 0.1


@dataclass(frozen=True, eq=False)
class PlacedStars:
    """A frame of a detector: numbers of stars, their places from -1 to 1, instrumental magnitudes, errors, (n,)."""

    detector: str
    exposure: str
    star: npt.ArrayLike
    u: npt.ArrayLike
    v: npt.ArrayLike
    mag: npt.ArrayLike
    error_mag: npt.ArrayLike


@dataclass(frozen=True, eq=False)
class DetectorFit:
    """The P of a detector: coefficients and errors (degree + 1, degree + 1) of `legendre`; how many values and
    stars tell it; its mean error over the detector; the mean zero point against the other detectors, not part of P."""

    detector: str
    coefficients_mag: Doubles
    errors_mag: Doubles
    error_mag: float
    values: int
    stars: int
    offset_mag: float


@dataclass(frozen=True, eq=False)
class Fitted:
    """The P of all detectors.

    undetermined: how many independent terms are not known to within the limit and are 0; gradient_known: whether
    a gradient that all detectors have would show. rms_mag: of values about the means of their stars, and
    reference_rms_mag of means about the catalogue, without and with P; held_rms_mag and held_reference_rms_mag: the
    same of stars that took no part in the fit. improvement_sigma: by how much the squares of these get smaller, in
    units of its error.
    """

    detectors: tuple[DetectorFit, ...]
    frames: int
    stars: int
    anchors: int
    undetermined: int
    gradient_known: bool
    rms_mag: Pair
    reference_rms_mag: Pair
    held_rms_mag: Pair
    held_reference_rms_mag: Pair
    improvement_sigma: float
    clipped_fraction: float
    colour_coefficient: float | None


@dataclass(frozen=True, eq=False)
class _Values:
    """Instrumental and known magnitudes, one below the other, (n,): frame (-1 of known ones), star, value, variance,
    and what P and the colour have in them, (n, terms) at columns ``at`` (n, terms). coloured: the last term is
    that of the colour."""

    frame: Places
    star: Places
    mag: Doubles
    variance: Doubles
    basis: Doubles
    at: Places
    fold: Places
    frames: int
    terms: int
    coloured: bool

    @property
    def known(self) -> Mask:
        """Which are magnitudes of the catalogue."""
        return np.asarray(self.frame < 0)

    def some(self, kept: Mask) -> _Values:
        """A part of them."""
        names = ("frame", "star", "mag", "variance", "basis", "at", "fold")
        return replace(self, **{name: getattr(self, name)[kept] for name in names})


@dataclass(frozen=True, eq=False)
class _State:
    """Zero points, terms, their covariance, the directions that were kept, variance beyond the errors, parts."""

    zero: Doubles
    term: Doubles
    covariance: Doubles
    kept: Doubles
    extra: Doubles
    part: Doubles


def fit_illumination(
    frames: Sequence[PlacedStars],
    anchors: Anchors | None = None,
    *,
    degree: int = 3,
    clip_sigma: float = 4.0,
    folds: int = 5,
    most_error_mag: float = 0.005,
    fit_colour: bool = True,
) -> Fitted:
    """The P of each detector, polynomials of a total degree.

    anchors: stars of known magnitudes, with colours if there are some; then a term of the colour is fitted too.
    folds: the stars are parted so, and each part is judged by a fit without it. Raises BadValue, EmptyInput,
    NoSolution where no two frames share a star and no anchor is seen.
    """
    if not frames:
        raise EmptyInput("an illumination correction of no frames")
    if not (clip_sigma >= 2 and folds >= 2 and degree >= 1 and most_error_mag > 0):
        raise BadValue(f"clipping at {clip_sigma} sigma, {folds} folds, degree {degree}: not a way to fit")
    detectors = sorted({one.detector for one in frames})
    values, colour_rms = _values(frames, anchors, detectors, degree, folds, fit_colour)
    if not len(values.star):
        raise NoSolution(
            f"the {len(frames)} frames share no star with each other, nor with known stars",
            hint="dithered frames, or a reference catalogue with magnitudes",
        )
    plain = _fitted(values, _begun(values), clip_sigma, most_error_mag, with_terms=False)
    full = _fitted(values, _begun(values), clip_sigma, most_error_mag)
    held, held_reference, improvement = _held(values, plain, full, folds, clip_sigma, most_error_mag)
    rms = [_squares(values, one, full.part) for one in (plain, full)]
    tell = (full.part > 0) & np.isfinite(rms[0])
    made = _detectors(frames, detectors, degree, values, full)
    used = (full.part > 0) & ~values.known
    return Fitted(
        made,
        len(frames),
        len(np.unique(values.star[used])),
        int((values.known & (full.part > 0)).sum()),
        values.terms - values.coloured - full.kept.shape[1],
        _knows_gradient(full, len(detectors), degree),
        _pair(rms, tell & ~values.known),
        _pair(rms, tell & values.known),
        held,
        held_reference,
        improvement,
        1 - float(used.sum() / max(1, (~values.known).sum())),
        float(full.term[-1] / colour_rms) if colour_rms else None,
    )


# What is given, as one table


def _values(
    frames: Sequence[PlacedStars],
    anchors: Anchors | None,
    detectors: Sequence[str],
    degree: int,
    folds: int,
    fit_colour: bool,
) -> tuple[_Values, float]:
    """All values of stars that two frames have, or that are known; and the rms of their colours, if they are fitted."""
    terms = terms_of(degree)
    number = [len(np.asarray(one.star)) for one in frames]
    frame = np.repeat(np.arange(len(frames)), number)
    star, u, v, mag, error = (
        np.concatenate([np.asarray(getattr(one, name)) for one in frames])
        for name in ("star", "u", "v", "mag", "error_mag")
    )
    basis = _basis(u, v, terms)
    detector = np.array([detectors.index(one.detector) for one in frames])[frame]
    at = detector[:, None] * len(terms) + np.arange(len(terms))
    known, known_mag, known_variance, colour, rms = _anchored(anchors, fit_colour)
    size = len(known)
    wide = np.zeros((size, len(terms)))
    wide[:, 0] = colour
    count = len(detectors) * len(terms) + int(rms > 0)
    values = _Values(
        np.concatenate([frame, np.full(size, -1)]),
        np.concatenate([star, known]).astype(np.int64),
        np.concatenate([mag, known_mag]).astype(np.float64),
        np.concatenate([np.square(error), known_variance]),
        # m + Z - P = M, and m - c colour = M of a known one.
        np.concatenate([-basis, -wide]),
        np.concatenate([at, np.full((size, len(terms)), count - 1)]),
        np.zeros(len(star) + size, np.int64),
        len(frames),
        count,
        rms > 0,
    )
    with np.errstate(invalid="ignore"):
        good = np.isfinite(values.mag) & (values.known | (values.variance > 0))
    values = values.some(good)
    values = values.some(_tell(values))
    names, place = np.unique(values.star, return_inverse=True)
    fold = held_part(names, folds)
    variance = np.maximum(values.variance, LEAST_VARIANCE)
    return replace(values, star=place.astype(np.int64), fold=fold[place], variance=variance), rms


def _basis(u: Doubles, v: Doubles, terms: Sequence[tuple[int, int]]) -> Doubles:
    degree = max(sum(one) for one in terms)
    along_x, along_y = legendre(u, degree), legendre(v, degree)
    return np.stack([along_x[i] * along_y[j] for i, j in terms], axis=1)


def _anchored(
    anchors: Anchors | None, fit_colour: bool
) -> tuple[npt.NDArray[np.int64], Doubles, Doubles, Doubles, float]:
    """Numbers, magnitudes, variances of known stars, their colours about the mean in units of their rms, that rms."""
    if anchors is None:
        nothing = np.zeros(0)
        return np.zeros(0, np.int64), nothing, nothing, nothing, 0.0
    star = np.asarray(anchors.star).astype(np.int64)
    mag = np.asarray(anchors.mag, np.float64)
    variance = np.square(np.nan_to_num(np.asarray(anchors.error_mag, np.float64)))
    colour = np.full(len(star), np.nan) if anchors.colour is None else np.asarray(anchors.colour, np.float64)
    told = np.isfinite(colour) & np.isfinite(mag)
    rms = 0.0
    if fit_colour and told.sum() >= LEAST_COLOURS:
        low, middle, high = np.percentile(colour[told], [16, 50, 84])
        rms = float(high - low) / 2
    if rms < LEAST_COLOUR_RMS_MAG:
        return star, mag, variance, np.zeros(len(star)), 0.0
    # One without a colour would be off by it.
    return star[told], mag[told], variance[told], np.clip((colour[told] - middle) / rms, -5, 5), rms


def _tell(values: _Values) -> Mask:
    """Which values are of stars that have others; none of a star that a frame has twice."""
    key = values.star * (values.frames + 1) + values.frame + 1
    _, place, count = np.unique(key, return_inverse=True, return_counts=True)
    once = count[place] == 1
    names, star = np.unique(values.star, return_inverse=True)
    common = np.bincount(star, once, len(names)) >= 2
    seen = np.bincount(star, once & ~values.known, len(names)) >= 1
    return np.asarray(once & common[star] & seen[star])


# The fit


def _begun(values: _Values) -> _State:
    extra = np.array([0.0, FIRST_ANCHOR_MAG**2])
    nothing = np.zeros((values.terms, values.terms))
    return _State(
        np.zeros(values.frames),
        np.zeros(values.terms),
        nothing,
        nothing[:, :0],
        extra,
        np.ones(len(values.star)),
    )


def _variance(values: _Values, state: _State) -> Doubles:
    return np.asarray(values.variance + state.extra[values.known.astype(np.int64)])


def _fitted(
    values: _Values,
    state: _State,
    clip_sigma: float,
    most_error_mag: float,
    with_terms: bool = True,
    soft_rounds: int = SOFT_ROUNDS,
    hard_rounds: int = HARD_ROUNDS,
) -> _State:
    """The fit: rounds with weights that fall with the residual, then with clipping."""
    for turn in range(soft_rounds + hard_rounds):
        state = _solved(values, state, most_error_mag, with_terms)
        away, left = _residuals(values, state)
        if turn < soft_rounds:
            state = _softened(values, state, away, left)
            if turn < soft_rounds - 1:
                continue
        state = _weighed(values, state, away, left, clip_sigma, first=turn < soft_rounds)
        part = away**2 <= clip_sigma**2 * np.maximum(left, LEAST_FREE) * _variance(values, state)
        state = replace(state, part=part.astype(np.float64))
    return _solved(values, state, most_error_mag, with_terms)


def _solved(values: _Values, state: _State, most_error_mag: float, with_terms: bool) -> _State:
    """Zero points and terms by the normal equations, the stars' magnitudes eliminated."""
    from scipy.sparse import csr_matrix, diags
    from scipy.sparse.linalg import splu

    weight = state.part / _variance(values, state)
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


def _residuals(values: _Values, state: _State) -> tuple[Doubles, Doubles]:
    """Of each value about its star: residual, and what part of its variance is left."""
    weight = state.part / _variance(values, state)
    total = np.bincount(values.star, weight)
    total = np.where(total > 0, total, np.inf)
    made = _modelled(values, state)
    mean = np.bincount(values.star, weight * made) / total
    return made - mean[values.star], 1 - weight / total[values.star]


def _modelled(values: _Values, state: _State) -> Doubles:
    """The magnitude of its star that each value gives."""
    zero = np.where(values.known, 0.0, state.zero[np.maximum(values.frame, 0)])
    return np.asarray(values.mag + zero + (values.basis * state.term[values.at]).sum(axis=1))


def _softened(values: _Values, state: _State, away: Doubles, left: Doubles) -> _State:
    square = away**2 / (np.maximum(left, LEAST_FREE) * _variance(values, state))
    part = np.ones(len(away))
    for which in (values.known, ~values.known):
        tell = which & (left > LEAST_FREE)
        scale = max(float(np.median(square[tell])) / MEDIAN_DEVIATION**2, 1.0) if tell.any() else 1.0
        part[which] = 1 / (1 + square[which] / (scale * SOFT_SIGMA**2))
    return replace(state, part=part)


def _weighed(
    values: _Values, state: _State, away: Doubles, left: Doubles, clip_sigma: float, first: bool
) -> _State:
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


# What is said of it


def _squares(values: _Values, state: _State, part: Doubles) -> Doubles:
    """Of the residuals, freed of the part of the value in the mean of its star; nan where that has nearly all of it."""
    away, left = _residuals(values, replace(state, part=part))
    return np.where(left > LEAST_FREE, away**2 / np.maximum(left, LEAST_FREE), np.nan)


def _pair(squares: Sequence[Doubles], which: Mask) -> Pair:
    """Their roots of the mean, without and with P; nan of nothing."""
    if not which.any():
        return math.nan, math.nan
    before, after = (math.sqrt(float(one[which].mean())) for one in squares)
    return before, after


def _held(
    values: _Values, plain: _State, full: _State, folds: int, clip_sigma: float, most_error_mag: float
) -> tuple[Pair, Pair, float]:
    """The rms of stars that are held out, of frames and of the catalogue, and the significance of the difference."""
    # What is wrong is so by the fit without P: the other would choose what suits it.
    part = plain.part
    squares = [np.full(len(part), np.nan) for _ in range(2)]
    for fold in range(folds):
        out = values.fold == fold
        if not out.any() or out.all():
            continue
        rest, some = values.some(~out), values.some(out)
        for number, (state, with_terms) in enumerate(((plain, False), (full, True))):
            begun = replace(state, part=state.part[~out])
            made = _fitted(rest, begun, clip_sigma, most_error_mag, with_terms, 0, HELD_ROUNDS)
            squares[number][out] = _squares(some, replace(made, extra=plain.extra), part[out])
    tell = (part > 0) & np.isfinite(squares[0])
    if not tell.any():
        return (math.nan, math.nan), (math.nan, math.nan), math.nan
    star = np.unique(values.star[tell], return_inverse=True)[1]
    gained = np.bincount(star, ((squares[0] - squares[1]) / _variance(values, plain))[tell])
    spread = math.sqrt(len(gained)) * float(np.std(gained))
    significance = float(gained.sum()) / spread if spread > 0 else 0.0
    return _pair(squares, tell & ~values.known), _pair(squares, tell & values.known), significance


def _detectors(
    frames: Sequence[PlacedStars], detectors: Sequence[str], degree: int, values: _Values, state: _State
) -> tuple[DetectorFit, ...]:
    terms, made = terms_of(degree), []
    of_frame = np.array([detectors.index(one.detector) for one in frames])
    offsets = _offsets(frames, of_frame, state.zero)
    used = (state.part > 0) & ~values.known
    error = np.sqrt(np.maximum(np.diag(state.covariance), 0))
    for k, name in enumerate(detectors):
        found, errors = (np.zeros((degree + 1, degree + 1)) for _ in range(2))
        for number, (i, j) in enumerate(terms):
            found[i, j] = state.term[k * len(terms) + number]
            errors[i, j] = error[k * len(terms) + number]
        own = used & (of_frame[np.maximum(values.frame, 0)] == k)
        mean_error = math.sqrt(float(np.sum(errors**2)))
        number_of = int(own.sum()), len(np.unique(values.star[own]))
        made.append(DetectorFit(name, found, errors, mean_error, *number_of, float(offsets[k])))
    return tuple(made)


def _offsets(frames: Sequence[PlacedStars], detector: Places, zero: Doubles) -> Doubles:
    """The mean zero point of each detector against those of the same exposures; of mean 0, nan of one alone."""
    exposure = np.unique([one.exposure for one in frames], return_inverse=True)[1]
    size = int(detector.max()) + 1
    shared = np.bincount(exposure)[exposure] > 1
    found = np.full(size, np.nan)
    mean = np.bincount(exposure, zero) / np.bincount(exposure)
    for k in range(size):
        own = shared & (detector == k)
        if own.any():
            found[k] = float(np.median((zero - mean[exposure])[own]))
    return np.asarray(found - np.nanmean(found) if np.isfinite(found).any() else found)


def _knows_gradient(state: _State, detectors: int, degree: int) -> bool:
    """Whether gradients that all detectors have in common are among the directions that are kept."""
    terms = terms_of(degree)
    for order in ((1, 0), (0, 1)):
        common = np.zeros(len(state.term))
        common[[k * len(terms) + terms.index(order) for k in range(detectors)]] = 1 / math.sqrt(detectors)
        if np.square(state.kept.T @ common).sum() < 0.5:
            return False
    return True
