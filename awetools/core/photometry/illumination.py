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

from ..errors import BadValue, EmptyInput
from ..pixels.illumination import terms_of
from ..sky.match import Places
from ..sky.polynomial import Doubles
from .framestars import Anchors, untied
from .illuminationfit import State, begun, fitted, residuals, variance_of
from .illuminationvalues import PlacedStars, Values, values_of
from .robustfit import Mask
from .softclip import LEAST_FREE

__all__ = ["DetectorFit", "Fitted", "PlacedStars", "fit_illumination"]

HELD_ROUNDS = 2
Pair = tuple[float, float]


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
    values, colour_rms = values_of(frames, anchors, detectors, degree, folds, fit_colour)
    if not len(values.star):
        raise untied(len(frames), "dithered frames")
    plain = fitted(values, begun(values), clip_sigma, most_error_mag, with_terms=False)
    full = fitted(values, begun(values), clip_sigma, most_error_mag)
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


# What is said of it


def _squares(values: Values, state: State, part: Doubles) -> Doubles:
    """Of the residuals, freed of the part of the value in the mean of its star; nan where that has nearly all of it."""
    away, left = residuals(values, replace(state, part=part))
    return np.where(left > LEAST_FREE, away**2 / np.maximum(left, LEAST_FREE), np.nan)


def _pair(squares: Sequence[Doubles], which: Mask) -> Pair:
    """Their roots of the mean, without and with P; nan of nothing."""
    if not which.any():
        return math.nan, math.nan
    before, after = (math.sqrt(float(one[which].mean())) for one in squares)
    return before, after


def _held(
    values: Values, plain: State, full: State, folds: int, clip_sigma: float, most_error_mag: float
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
            first = replace(state, part=state.part[~out])
            made = fitted(rest, first, clip_sigma, most_error_mag, with_terms, 0, HELD_ROUNDS)
            squares[number][out] = _squares(some, replace(made, extra=plain.extra), part[out])
    tell = (part > 0) & np.isfinite(squares[0])
    if not tell.any():
        return (math.nan, math.nan), (math.nan, math.nan), math.nan
    star = np.unique(values.star[tell], return_inverse=True)[1]
    gained = np.bincount(star, ((squares[0] - squares[1]) / variance_of(values, plain))[tell])
    spread = math.sqrt(len(gained)) * float(np.std(gained))
    significance = float(gained.sum()) / spread if spread > 0 else 0.0
    return _pair(squares, tell & ~values.known), _pair(squares, tell & values.known), significance


def _detectors(
    frames: Sequence[PlacedStars], detectors: Sequence[str], degree: int, values: Values, state: State
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


def _knows_gradient(state: State, detectors: int, degree: int) -> bool:
    """Whether gradients that all detectors have in common are among the directions that are kept."""
    terms = terms_of(degree)
    for order in ((1, 0), (0, 1)):
        common = np.zeros(len(state.term))
        common[[k * len(terms) + terms.index(order) for k in range(detectors)]] = 1 / math.sqrt(detectors)
        if np.square(state.kept.T @ common).sum() < 0.5:
            return False
    return True
