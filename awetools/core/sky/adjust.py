"""The global solution: all frames of many exposures at once, tied to each other and to a reference catalogue.

Not solved yet: without a reference all frames may drift together, by tenths of an arcsec in place and
5e-4 in area; of two detectors that disagree in one exposure the wrong one may be named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..errors import BadValue, EmptyInput, Mixture, NoSolution
from .adjuststart import numbered, started
from .fitwcs import fit_polynomial, wcs_of_fit
from .match import Places, Points, as_points
from .mosaic import Equations, Mosaic, lowered, powers, solved
from .polynomial import Doubles
from .solve import Reference, Sources
from .sphere import MAS_TO_RAD, angles, at_epoch, local_axes, to_tangent, unit_vectors
from .starmatch import ARCSEC_PER_RAD, held_out, stars_of
from .wcs import Wcs

Mask = npt.NDArray[np.bool_]

# With fewer stars in common an exposure is shifted only.
LEAST_COMMON = 6
# A detector has so many sources for each term of its polynomial, or higher terms stay as they were.
SOURCES_A_TERM = 3
ROUNDS, STEPS = 4, 2
LEAST_RADIUS_ARCSEC = 0.3
RADIUS_SIGMA = 8.0
# A frame is bad if it scatters so many times as the others do, and by so much, or most of it is clipped.
BAD_RATIO, BAD_ARCSEC, BAD_CLIPPED = 5.0, 0.03, 0.5
FIRST_SCATTER_ARCSEC = 0.05
LEAST_SCATTER_ARCSEC = 1e-3
MEDIAN_SQUARE = 2 * math.log(2)
# What is left of a star's residual if it has nearly all the weight says nothing.
LEAST_FREE = 0.1
GRID = 7


@dataclass(frozen=True, eq=False)
class Frame:
    """A detector's image in an exposure: its sources and its local solution.

    detector and exposure: names, of which the frame is the only one of both; shape (ny, nx);
    epoch_yr: for proper motions; zenith_deg: RA and Dec of the zenith, for differential
    refraction of refraction_arcsec times the tangent of the zenith distance;
    signal_to_noise (n,) of the sources tells the bright ones for the measures.
    """

    name: str
    detector: str
    exposure: str
    sources: Sources
    wcs: Wcs
    shape: tuple[int, int]
    epoch_yr: float | None = None
    zenith_deg: tuple[float, float] | None = None
    refraction_arcsec: float = 58.2
    signal_to_noise: npt.ArrayLike | None = None


@dataclass(frozen=True, eq=False)
class Adjusted:
    """The coordinate system of a frame, which is written as TPV or SIP, and its measures by name."""

    name: str
    wcs: Wcs
    measures: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Adjustment:
    """What a global solution gives: the frames in their order, those left out with the reason, measures of all."""

    frames: tuple[Adjusted, ...]
    left_out: Mapping[str, str]
    measures: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class _Table:
    """All sources of all frames: (n,) each; epoch and zenith by exposure."""

    x: Doubles
    y: Doubles
    design: Doubles
    sigma: Doubles
    bright: Mask
    frame: Places
    detector: Places
    exposure: Places
    epoch: Doubles
    zenith: Doubles
    refraction: Doubles


@dataclass(frozen=True, eq=False)
class _Stars:
    """Which sources are of stars in common: source (n,) places in the table, star (n,); the rest by star.

    place: a unit vector near the star; known: the place of its reference star or -1.
    """

    source: Places
    star: Places
    place: Doubles
    known: Places
    held: Mask


@dataclass(frozen=True, eq=False)
class _Catalogue:
    """The reference at the mean epoch: unit vectors, error in arcsec, motion on the axes east and north, rad/yr."""

    place: Doubles
    sigma: Doubles
    motion: Points


@dataclass(frozen=True, eq=False)
class _State:
    """The model, and scatter beyond the errors: variance by exposure, and of the reference, arcsec^2."""

    model: Mosaic
    extra: Doubles
    reference_extra: float


def adjust(
    frames: Sequence[Frame],
    reference: Reference | None = None,
    *,
    degree: int = 3,
    match_arcsec: float = 1.5,
    clip_sigma: float = 4.0,
    hold_out: int = 10,
) -> Adjustment:
    """The coordinate systems of all frames by one weighted least-squares fit.

    Each detector has one polynomial of a degree for all exposures, each exposure a pointing
    (two angles, rotation, scale), each star that two exposures or the reference share a
    position. Without a reference the frames are tied to each other and stay, all together,
    where their own coordinate systems say. match_arcsec: within which sources are one star
    at first. One in `hold_out` stars takes no part in the fit that the held-out residuals
    are of; the last fit has all. rms are of one axis. Raises EmptyInput without frames,
    Mixture for two frames of one detector and exposure or shapes that differ, BadValue
    for a degree out of 1 to 7 or a stride below 2, NoSolution where no two frames share stars.
    """
    _check(frames, degree, hold_out)
    left_out: dict[str, str] = {}
    while True:
        left = [one for one in frames if one.name not in left_out]
        if not left:
            raise _nothing(left_out)
        model, far = started(left, degree, match_arcsec)
        found = {left[k].name: why for k, why in far.items()}
        if not found:
            made, found = _fitted(left, model, reference, match_arcsec, clip_sigma, hold_out)
        if not found:
            return Adjustment(made[0], left_out, made[1])
        left_out |= found


def _nothing(left_out: Mapping[str, str]) -> NoSolution:
    name, reason = next(iter(left_out.items()))
    return NoSolution(
        f"no global solution: all {len(left_out)} frames are left out; {name}: {reason}",
        hint="frames that overlap, better coordinate systems to begin with, or a larger match radius",
    )


def _check(frames: Sequence[Frame], degree: int, hold_out: int) -> None:
    if not frames:
        raise EmptyInput("a global solution of no frames")
    if not 1 <= degree <= 7:
        raise BadValue(f"a polynomial of degree {degree}: from 1 to 7 is possible")
    if hold_out < 2:
        raise BadValue(f"one in {hold_out} stars held out: at least 2")
    names: set[str] = set()
    places: dict[tuple[str, str], str] = {}
    shapes: dict[str, Frame] = {}
    for one in frames:
        if one.name in names:
            raise Mixture(f"two frames have the name {one.name}")
        names.add(one.name)
        other = places.setdefault((one.detector, one.exposure), one.name)
        if other != one.name:
            raise Mixture(f"{other} and {one.name} are both detector {one.detector} of {one.exposure}")
        first = shapes.setdefault(one.detector, one)
        if first.shape != one.shape:
            raise Mixture(
                f"{first.name} and {one.name} of detector {one.detector} have shapes"
                f" {first.shape} and {one.shape}"
            )


# The fit


def _fitted(
    frames: Sequence[Frame],
    model: Mosaic,
    reference: Reference | None,
    match_arcsec: float,
    clip_sigma: float,
    hold_out: int,
) -> tuple[tuple[tuple[Adjusted, ...], dict[str, float]], dict[str, str]]:
    """Frames and measures, and the frames that are bad; the former are of use only if there are none."""
    table = _table(frames, model)
    middle, catalogue = _catalogue(reference, table.epoch)
    scatter = np.full(len(model.frames), FIRST_SCATTER_ARCSEC**2)
    state = _State(model, scatter, FIRST_SCATTER_ARCSEC**2 if len(catalogue.place) else 0.0)
    radius = match_arcsec
    for _ in range(ROUNDS):
        stars = _matched(table, state, catalogue, radius, hold_out)
        lonely = _lonely(frames, table, stars)
        if lonely:
            return ((), {}), lonely
        state, used = _improved(table, state, catalogue, stars, middle, clip_sigma, stars.held)
        sigma = np.sqrt(table.sigma[stars.source] ** 2 + state.extra[table.exposure[stars.source]])
        radius = min(radius, max(LEAST_RADIUS_ARCSEC, RADIUS_SIGMA * float(np.median(sigma))))
    bad = _bad(frames, table, _residuals(table, state, catalogue, stars, middle), stars, used)
    if bad:
        return ((), {}), bad
    measures = {
        f"{name}_held": value
        for name, value in _rms(table, state, catalogue, stars, middle, used, stars.held).items()
    }
    state, used = _improved(table, state, catalogue, stars, middle, clip_sigma, np.zeros_like(stars.held))
    measures |= _rms(table, state, catalogue, stars, middle, used, np.ones_like(stars.held))
    measures |= {
        "frames": float(len(frames)),
        "detectors": float(len(state.model.detectors)),
        "exposures": float(len(state.model.frames)),
        "stars": float(len(stars.known)),
        "reference_stars": float((stars.known >= 0).sum()),
        "held_stars": float(stars.held.sum()),
        "sources": float(used.sum()),
        "clipped_fraction": 1 - float(used.mean()),
        "extra_scatter_arcsec": math.sqrt(float(np.median(state.extra))),
        "reference_scatter_arcsec": math.sqrt(state.reference_extra),
        "match_radius_arcsec": radius,
    }
    return (_results(frames, table, state, catalogue, stars, middle, used), measures), {}


def _table(frames: Sequence[Frame], model: Mosaic) -> _Table:
    detectors, exposures = (
        numbered([one.detector for one in frames]),
        numbered([one.exposure for one in frames]),
    )
    columns: list[list[npt.NDArray[np.float64]]] = [[] for _ in range(5)]
    number = np.zeros(len(frames), np.int64)
    epoch = np.full(len(model.frames), np.nan)
    zenith, refraction = np.zeros((len(epoch), 3)), np.zeros(len(epoch))
    for k, one in enumerate(frames):
        x, y = (np.asarray(column, np.float64).ravel() for column in (one.sources.x, one.sources.y))
        error = _filled(one.sources.error_px, len(x), 0.0) * one.wcs.pixel_scale_arcsec
        ratio = _filled(one.signal_to_noise, len(x), np.nan)
        if len(y) != len(x):
            raise Mixture(f"{one.name}: columns of sources of {len(x)} and {len(y)} rows")
        use = np.isfinite(x) & np.isfinite(y)
        number[k] = use.sum()
        design = powers(model.degree, x[use], y[use], one.shape)
        sigma = np.where(np.isfinite(error) & (error > 0), error, 0.0)
        for held, column in zip(columns, (x, y, sigma, ratio), strict=False):
            held.append(column[use])
        columns[4].append(design)
        place = exposures[k]
        if one.epoch_yr is not None:
            epoch[place] = one.epoch_yr
        if one.zenith_deg is not None:
            zenith[place], refraction[place] = unit_vectors(*one.zenith_deg), one.refraction_arcsec
    x, y, sigma, ratio, design = (np.concatenate(one) for one in columns)
    frame = np.repeat(np.arange(len(frames)), number)
    bright = ratio > 50
    return _Table(
        x, y, design, sigma, bright, frame, detectors[frame], exposures[frame], epoch, zenith, refraction
    )


def _filled(given: npt.ArrayLike | None, size: int, nothing: float) -> Doubles:
    column = np.full(size, nothing) if given is None else np.asarray(given, np.float64)
    if column.ndim and column.size != size:
        raise Mixture(f"columns of sources of {size} and {column.size} rows")
    return np.broadcast_to(column.ravel(), (size,)).copy()


def _catalogue(reference: Reference | None, epochs: Doubles) -> tuple[float, _Catalogue]:
    """The mean epoch, and the reference stars at it."""
    known = epochs[np.isfinite(epochs)]
    middle = float(known.mean()) if len(known) else math.nan
    if reference is None:
        return middle, _Catalogue(np.empty((0, 3)), np.empty(0), np.empty(0, np.complex128))
    ra = np.asarray(reference.ra_deg, np.float64).ravel()
    dec = np.asarray(reference.dec_deg, np.float64).ravel()
    size = len(ra)
    pm_ra, pm_dec, epoch, sigma = (
        _filled(one, size, np.nan)
        for one in (
            reference.pm_ra_mas_yr,
            reference.pm_dec_mas_yr,
            reference.epoch_yr,
            reference.error_arcsec,
        )
    )
    years = np.nan_to_num(middle - epoch)
    ra, dec = at_epoch(ra, dec, pm_ra, pm_dec, years)
    use = np.isfinite(ra) & np.isfinite(dec)
    motion = as_points(np.nan_to_num(pm_ra), np.nan_to_num(pm_dec)) * MAS_TO_RAD
    sigma = np.where(sigma > 0, sigma, 0.0)
    return middle, _Catalogue(unit_vectors(ra[use], dec[use]), sigma[use], motion[use])


def _sky(table: _Table, model: Mosaic, source: Places | slice) -> tuple[Points, Doubles]:
    """Points of the planes, and unit vectors on the sky without refraction, of sources."""
    exposure = table.exposure[source]
    plane = model.plane(table.detector[source], exposure, table.design[source])
    made = model.vectors(plane, exposure)
    if table.refraction.any():
        made = lowered(made, table.zenith[exposure], table.refraction[exposure])
    return plane, made


def _matched(table: _Table, state: _State, catalogue: _Catalogue, radius: float, hold_out: int) -> _Stars:
    _, vectors = _sky(table, state.model, slice(None))
    count = len(vectors)
    everything = np.concatenate([vectors, catalogue.place])
    exposure = np.concatenate([table.exposure, np.full(len(catalogue.place), len(state.extra))])
    star = stars_of(everything, exposure, radius)
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
    return _Stars(source, star[source], place, known, held_out(place, hold_out))


def _residuals(
    table: _Table, state: _State, catalogue: _Catalogue, stars: _Stars, middle: float
) -> Equations:
    plane, vectors = _sky(table, state.model, stars.source)
    exposure = table.exposure[stars.source]
    east, north, _ = local_axes(*angles(*(stars.place[:, k] for k in range(3))))
    away = vectors - stars.place[stars.star]
    to_east, to_north = east[stars.star], north[stars.star]
    first, second = state.model.frames[exposure, 0], state.model.frames[exposure, 1]
    turn = as_points(
        _dot(first, to_east) + _dot(second, to_north), _dot(first, to_north) - _dot(second, to_east)
    )
    turn *= 0.5 / (1 + np.abs(plane) ** 2) ** 0.75
    offset = as_points(_dot(away, to_east), _dot(away, to_north))
    known = stars.known >= 0
    anchor, above = np.zeros(len(known)), np.zeros(len(known), np.complex128)
    if known.any():
        which = stars.known[known]
        years = np.nan_to_num(table.epoch[exposure] - middle)
        motion = np.zeros(len(known), np.complex128)
        motion[known] = catalogue.motion[which]
        offset -= motion[stars.star] * years
        apart = catalogue.place[which] - stars.place[known]
        above[known] = as_points(_dot(apart, east[known]), _dot(apart, north[known]))
        anchor[known] = 1 / (catalogue.sigma[which] ** 2 + state.reference_extra)
    weight = 1 / (table.sigma[stars.source] ** 2 + state.extra[exposure])
    design, detector = table.design[stars.source], table.detector[stars.source]
    return Equations(design, detector, exposure, stars.star, plane, turn, offset, weight, anchor, above)


def _dot(one: Doubles, other: Doubles) -> Doubles:
    return np.asarray((one * other).sum(axis=1), np.float64)


def _means(given: Equations, used: Mask, anchored: bool) -> tuple[Points, Doubles]:
    """Where each star is, seen from its place, and the weight of that; of its sources alone, or with the reference."""
    size = len(given.anchor)
    weight = given.weight * used
    total = np.bincount(given.star, weight, size) + anchored * given.anchor
    value = as_points(
        np.bincount(given.star, weight * given.away.real, size),
        np.bincount(given.star, weight * given.away.imag, size),
    )
    value += anchored * given.anchor * given.above
    return value / np.where(total > 0, total, 1.0), total


def _scatter(given: Equations, used: Mask) -> tuple[Doubles, Doubles]:
    """Squares of the residuals, arcsec^2, and the part of a source's variance that is left in each."""
    mean, total = _means(given, used, True)
    away = (given.away - mean[given.star]) * ARCSEC_PER_RAD
    share = given.weight * used / np.where(total > 0, total, 1.0)[given.star]
    # What is not used adds to the residual the error of the mean.
    left = np.where(used, 1 - share, 1 + given.weight / np.where(total > 0, total, np.inf)[given.star])
    return away.real**2 + away.imag**2, left


def _improved(
    table: _Table,
    state: _State,
    catalogue: _Catalogue,
    stars: _Stars,
    middle: float,
    clip_sigma: float,
    held: Mask,
) -> tuple[_State, Mask]:
    """A model that fits better, without the stars that are held out, and the sources that were not clipped."""
    used = np.ones(len(stars.source), np.bool_)
    for _ in range(STEPS):
        given = _residuals(table, state, catalogue, stars, middle)
        for _ in range(2):
            square, left = _scatter(given, used)
            used = square <= clip_sigma**2 * np.maximum(left, LEAST_FREE) / given.weight
        fit = used & ~held[stars.star]
        anchor = np.where(held, 0.0, given.anchor)
        terms, pointings = _free(state.model, given, fit)
        step = solved(state.model, replace(given, weight=given.weight * fit, anchor=anchor), terms, pointings)
        state = replace(state, model=state.model.moved(step))
        state = _weighed(table, state, catalogue, stars, middle, used)
    return state, used


def _free(model: Mosaic, given: Equations, fit: Mask) -> tuple[Mask, Mask]:
    """Which terms of each detector the sources determine, and which exposures can be turned and scaled."""
    mates = np.bincount(given.star[fit], minlength=len(given.anchor)) + (given.anchor > 0)
    shared = fit & (mates[given.star] >= 2)
    many = np.bincount(given.exposure[shared], minlength=len(model.frames)) >= LEAST_COMMON
    pointings = np.stack([np.ones_like(many), many], axis=1)
    good = shared & many[given.exposure]
    number = np.bincount(given.detector[good], minlength=len(model.detectors))
    width = model.detectors.shape[1]
    order = np.concatenate([np.full(k + 1, (k + 1) * (k + 2) // 2) for k in range(model.degree + 1)])
    terms = number[:, None] >= SOURCES_A_TERM * order[None, :width]
    return terms, pointings


def _weighed(
    table: _Table, state: _State, catalogue: _Catalogue, stars: _Stars, middle: float, used: Mask
) -> _State:
    """The scatter beyond the errors that makes the residuals what they are."""
    given = _residuals(table, state, catalogue, stars, middle)
    square, left = _scatter(given, used)
    tell = np.flatnonzero(used & (left > LEAST_FREE))
    sigma = table.sigma[stars.source[tell]]
    value = square[tell] / left[tell] / MEDIAN_SQUARE - sigma**2
    exposure = given.exposure[tell]
    order = np.argsort(exposure, kind="stable")
    extra = state.extra.copy()
    for part in np.split(order, np.flatnonzero(np.diff(exposure[order])) + 1):
        # In bright stars it is seen: in others it is small beside the errors.
        bright = part[sigma[part] <= np.median(sigma[part])] if len(part) else part
        if len(bright) >= LEAST_COMMON:
            extra[exposure[part[0]]] = max(float(np.median(value[bright])), LEAST_SCATTER_ARCSEC**2)
    mean, total = _means(given, used, False)
    pinned = np.flatnonzero((given.anchor > 0) & (total > 0))
    if len(pinned) < LEAST_COMMON:
        return replace(state, extra=extra)
    away = np.abs(given.above[pinned] - mean[pinned]) * ARCSEC_PER_RAD
    more = away**2 / MEDIAN_SQUARE - 1 / total[pinned] - catalogue.sigma[stars.known[pinned]] ** 2
    return replace(state, extra=extra, reference_extra=max(float(np.median(more)), LEAST_SCATTER_ARCSEC**2))


# What is bad


def _lonely(frames: Sequence[Frame], table: _Table, stars: _Stars) -> dict[str, str]:
    """Frames without a star that another exposure or the reference has."""
    common = np.bincount(table.frame[stars.source], minlength=len(frames))
    return {
        one.name: f"none of its {int((table.frame == k).sum())} sources is in another exposure or the reference"
        for k, one in enumerate(frames)
        if common[k] == 0
    }


def _bad(
    frames: Sequence[Frame], table: _Table, given: Equations, stars: _Stars, used: Mask
) -> dict[str, str]:
    """The one frame that fits worst, if it is bad: with it gone others may be good."""
    square, _ = _scatter(given, used)
    frame = table.frame[stars.source]
    size = len(frames)
    number = np.maximum(np.bincount(frame, minlength=size), 1)
    kept = np.maximum(np.bincount(frame, used, size), 1)
    rms = np.sqrt(np.bincount(frame, used * square, size) / kept / 2)
    clipped = 1 - np.bincount(frame, used, size) / number
    typical = float(np.median(rms))
    worst = int(np.argmax(rms))
    if size > 2 and rms[worst] > max(BAD_RATIO * typical, BAD_ARCSEC):
        return {frames[worst].name: f"residuals of {rms[worst]:.3g} arcsec rms, of all frames {typical:.3g}"}
    worst = int(np.argmax(clipped))
    if size > 2 and clipped[worst] > BAD_CLIPPED:
        return {frames[worst].name: f"{clipped[worst]:.0%} of {number[worst]} stars in common do not fit"}
    return {}


# What is said of it


def _rms(
    table: _Table,
    state: _State,
    catalogue: _Catalogue,
    stars: _Stars,
    middle: float,
    used: Mask,
    which: Mask,
) -> dict[str, float]:
    """Residuals of some stars, of one axis: internal (of sources about their mean) and external (to the reference)."""
    given = _residuals(table, state, catalogue, stars, middle)
    mean, total = _means(given, used, False)
    size = len(given.anchor)
    number = np.bincount(given.star, used, size)
    away = np.abs(given.away - mean[given.star]) * ARCSEC_PER_RAD
    overlap = used & (number[given.star] >= 2) & which[given.star]
    left = 1 - given.weight / np.where(total > 0, total, 1.0)[given.star]
    bright = overlap & table.bright[stars.source]
    pinned = (given.anchor > 0) & (total > 0) & which
    apart = np.abs(given.above - mean)[pinned] * ARCSEC_PER_RAD
    return {
        "internal_rms_arcsec": _root(away[overlap], left[overlap]),
        "internal_bright_rms_arcsec": _root(away[bright], left[bright]),
        "external_rms_arcsec": _root(apart, np.ones(len(apart))),
    }


def _root(away: Doubles, left: Doubles) -> float:
    """The rms of one axis of differences of two, of which a part of the variance is left; nan of none."""
    return math.sqrt(float((away * away).sum()) / (2 * float(left.sum()))) if len(away) else math.nan


def _results(
    frames: Sequence[Frame],
    table: _Table,
    state: _State,
    catalogue: _Catalogue,
    stars: _Stars,
    middle: float,
    used: Mask,
) -> tuple[Adjusted, ...]:
    given = _residuals(table, state, catalogue, stars, middle)
    square, left = _scatter(given, used)
    frame, size = table.frame[stars.source], len(frames)
    number = np.bincount(frame, used, size)
    free = np.bincount(frame, used * left, size)
    rms = np.sqrt(np.bincount(frame, used * square, size) / 2 / np.where(free > 0, free, np.nan))
    pinned = np.bincount(frame, used & (stars.known[stars.star] >= 0), size)
    clipped = np.bincount(frame, ~used, size)
    detectors, exposures = (
        numbered([one.detector for one in frames]),
        numbered([one.exposure for one in frames]),
    )
    made = []
    for k, one in enumerate(frames):
        wcs = _wcs(one, table, state.model, int(detectors[k]), int(exposures[k]))
        y, x = 0.5 * (1 + one.shape[0]), 0.5 * (1 + one.shape[1])
        now, before = wcs.vectors(x, y), one.wcs.vectors(x, y)
        measures = {
            "stars": float(number[k]),
            "reference_stars": float(pinned[k]),
            "clipped": float(clipped[k]),
            "rms_arcsec": float(rms[k]),
            "shift_arcsec": float(np.linalg.norm(now - before)) * ARCSEC_PER_RAD,
            "extra_scatter_arcsec": math.sqrt(float(state.extra[exposures[k]])),
            "pixel_scale_arcsec": wcs.pixel_scale_arcsec,
            "position_angle_deg": wcs.position_angle_deg,
        }
        made.append(Adjusted(one.name, wcs, measures))
    return tuple(made)


def _wcs(frame: Frame, table: _Table, model: Mosaic, detector: int, exposure: int) -> Wcs:
    """The coordinate system about the middle of the frame: a polynomial there to 1e-9 arcsec and better."""
    ny, nx = frame.shape
    x, y = (
        one.ravel() for one in np.meshgrid(np.linspace(0.5, nx + 0.5, GRID), np.linspace(0.5, ny + 0.5, GRID))
    )
    x, y = np.r_[x, 0.5 * (nx + 1)], np.r_[y, 0.5 * (ny + 1)]
    which = np.full(len(x), exposure)
    plane = model.plane(np.full(len(x), detector), which, powers(model.degree, x, y, frame.shape))
    vectors = model.vectors(plane, which)
    if table.refraction[exposure]:
        vectors = lowered(vectors, table.zenith[which], table.refraction[which])
    ra, dec = angles(*(vectors[:, k] for k in range(3)))
    middle = float(ra[-1]), float(dec[-1])
    return wcs_of_fit(fit_polynomial(model.degree, x, y, *to_tangent(ra, dec, *middle)), middle)
