"""Frames tied to each other without a reference: one after the other is solved against the stars of those before it."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import AweError, NoSolution
from .adjustframe import Frame
from .adjustsources import rests_on
from .local import Columns, shape_of
from .localstart import LocalSettings, starts_of
from .match import Places, pairs_within
from .odds import log10_tail
from .polynomial import Doubles
from .solve import Guess, Reference, Solution, solve
from .sphere import angles, local_axes
from .starmatch import ARCSEC_PER_RAD, groups_of
from .tiechange import LEAST_STARS, Change, change_of, changed, plane_of, turn_of
from .wcs import Wcs

# With fewer stars in common a frame is shifted only.
LEAST_COMMON = 6
# Frames that lie this many at most about one are what it is tied to.
NEIGHBOURS = 12
# Sources of several frames within so much are one star.
ONE_STAR_ARCSEC = 1.5
# Brightest stars that take part in the vote for a shift, its radii, how few votes will do, and how sure it must be.
VOTERS, VOTED = 100, 300
VOTES_ARCSEC = (0.5, 1.5)
LEAST_VOTES = LEAST_STARS
LOG10_CHANCE = -6.0
# A scale is changed about the middle of what is no wider.
WIDEST_RAD = 0.2
# What the others of an exposure or detector taught leaves so much to be wrong.
TAUGHT_ARCSEC = 60.0
TAUGHT_BY = 50


@dataclass(frozen=True, eq=False)
class Tied:
    """Frames with coordinate systems that agree, in their order, and those that could not be tied, with the reason.

    groups: of each frame the number of those that hang together; stars: by how many it is tied.
    """

    frames: tuple[Frame, ...]
    groups: tuple[int, ...]
    stars: Mapping[str, int]
    left_out: Mapping[str, str]


@dataclass(eq=False)
class _Piece:
    """A frame on its way: its coordinate system now, its middle at the start and now, its sources on the sky."""

    frame: Frame
    wcs: Wcs
    order: Places
    start: Doubles
    middle: Doubles
    radius: float
    group: int = -1
    change: Change | None = None
    vectors: Doubles | None = None
    failed_with: int = -1
    reason: str = ""


def tied(
    frames: Sequence[Frame],
    *,
    position_arcsec: float = 300.0,
    turn_deg: float = 10.0,
    scale_fraction: float = 0.05,
    good: Collection[str] = (),
) -> Tied:
    """Bring frames together whose coordinate systems are off by more than stars can be matched within.

    Begun with the frame of most stars, or those named as good, which stay; the frame next to
    them is solved against their stars, and its own stars are added. Its coordinate system
    keeps its distortion: it is turned and scaled, or, with fewer than 6 stars in common,
    only shifted, with the turn and scale that other frames of its detector had. Frames that do
    not hang together with others make groups of their own; each group lies, as a whole, where
    its frames' own coordinate systems had it in the mean, unless some are good. A frame alone
    in its group is left out. position_arcsec, turn_deg, scale_fraction: how far off a
    frame may be. As sure as `solve`: by less than one chance in 10^6 a frame.
    """
    pieces = [_piece(one) for one in frames]
    known = frozenset(good)
    bounds = _Bounds(position_arcsec, turn_deg, scale_fraction)
    spins: dict[str, deque[complex]] = defaultdict(lambda: deque(maxlen=TAUGHT_BY))
    first = [one for one in pieces if one.frame.name in known]
    group = 0
    while True:
        if not first:
            waiting = [one for one in pieces if one.group < 0 and len(one.order)]
            if not waiting:
                return _made(pieces, known)
            first = [max(waiting, key=lambda one: len(one.order))]
        for one in first:
            _keep(one, one.wcs, group, Change(np.eye(3), 1 + 0j, 0))
        _grown(pieces, group, bounds, spins)
        first, group = [], group + 1


@dataclass(frozen=True)
class _Bounds:
    position_arcsec: float
    turn_deg: float
    scale_fraction: float


@dataclass(frozen=True)
class _Taught:
    """What those tied before say: of a group the frames of each exposure; turns and scales by detector."""

    of_exposure: dict[str, list[_Piece]]
    spins: dict[str, deque[complex]]

    def add(self, one: _Piece) -> None:
        """Learn from a frame that is tied."""
        self.of_exposure[one.frame.exposure].append(one)
        if one.change is not None and one.change.stars >= LEAST_COMMON:
            self.spins[one.frame.detector].append(one.change.spin)


def _piece(frame: Frame) -> _Piece:
    x, y = (np.asarray(one, np.float64).ravel() for one in (frame.sources.x, frame.sources.y))
    flux = frame.sources.flux
    key = np.zeros(len(x)) if flux is None else -np.broadcast_to(np.asarray(flux, np.float64), x.shape)
    usable = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    order = usable[np.argsort(key[usable], kind="stable")]
    ny, nx = frame.shape
    middle = frame.wcs.vectors(0.5 * (1 + nx), 0.5 * (1 + ny)).reshape(3)
    radius = 0.5 * math.hypot(nx, ny) * frame.wcs.pixel_scale_arcsec / ARCSEC_PER_RAD
    if not np.isfinite(middle).all():
        order = order[:0]
    return _Piece(frame, frame.wcs, order, middle, middle, radius)


def _keep(one: _Piece, wcs: Wcs, group: int, change: Change) -> None:
    """Make a frame part of a group."""
    one.wcs, one.group, one.change = wcs, group, change
    sources = one.frame.sources
    one.vectors = wcs.vectors(
        np.asarray(sources.x, np.float64)[one.order], np.asarray(sources.y, np.float64)[one.order]
    )
    ny, nx = one.frame.shape
    one.middle = wcs.vectors(0.5 * (1 + nx), 0.5 * (1 + ny)).reshape(3)


def _grown(pieces: Sequence[_Piece], group: int, bounds: _Bounds, spins: dict[str, deque[complex]]) -> None:
    """Tie to a group all that can be, the nearest first; what could not be again when the group has grown."""
    middle = np.stack([one.middle for one in pieces])
    radius = np.array([one.radius for one in pieces])
    margin = bounds.position_arcsec / ARCSEC_PER_RAD
    inside = np.array([one.group == group for one in pieces])
    open_ = np.array([one.group < 0 and len(one.order) > 0 for one in pieces])
    taught = _Taught(defaultdict(list), spins)
    # How near, in units of where two frames touch, the nearest of the group is.
    near = np.full(len(pieces), np.inf)
    for k in np.flatnonzero(inside).tolist():
        near = np.minimum(near, _apart(middle, radius, k, margin))
        taught.add(pieces[k])
    tried = np.zeros(len(pieces))
    while True:
        size = int(inside.sum())
        able = open_ & (near < 1) & (size >= np.minimum(1.25 * tried, tried + NEIGHBOURS))
        if not able.any():
            return
        k = int(np.argmin(np.where(able, near, np.inf)))
        among = np.flatnonzero(inside)
        apart = np.linalg.norm(middle[among] - middle[k], axis=1) / (radius[among] + radius[k] + margin)
        chosen = among[np.argsort(apart, kind="stable")[:NEIGHBOURS]]
        tried[k] = max(size, 1)
        if not _tie(pieces[k], [pieces[i] for i in chosen], taught, group, bounds):
            continue
        inside[k], open_[k] = True, False
        middle[k] = pieces[k].middle
        near = np.minimum(near, _apart(middle, radius, k, margin))
        taught.add(pieces[k])


def _apart(middle: Doubles, radius: Doubles, k: int, margin: float) -> Doubles:
    return np.asarray(np.linalg.norm(middle - middle[k], axis=1) / (radius + radius[k] + margin), np.float64)


# One frame


def _tie(one: _Piece, around: Sequence[_Piece], taught: _Taught, group: int, bounds: _Bounds) -> bool:
    """Tie a frame to others, if that is possible."""
    reference, magnitude = _stars(around)
    said = ""
    for start, position, spin in _starts(one, taught, bounds):
        change = None
        try:
            change = _by_pattern(one, start, reference, magnitude, position, bounds)
        except AweError as problem:
            said = problem.message
        if change is None and spin:
            change = _by_shift(one, start, reference, magnitude, position)
        if change is None:
            continue
        wcs = changed(start, one.frame.shape, change)
        _keep(one, wcs, group, _whole(one, wcs, change.stars))
        return True
    one.reason = f"not tied to any of {len(around)} frames about it: {said or 'no stars in common'}"
    return False


def _stars(around: Sequence[_Piece]) -> tuple[Doubles, Doubles]:
    """The stars of frames: unit vectors (n, 3) of each once, and magnitudes, of which only the order says something."""
    vectors = np.concatenate([one.vectors for one in around if one.vectors is not None])
    magnitude = np.concatenate([_magnitudes(one) for one in around])
    star = groups_of(vectors, ONE_STAR_ARCSEC)
    size = int(star.max(initial=-1)) + 1
    number = np.bincount(star, minlength=size)
    mean = np.stack([np.bincount(star, vectors[:, k], size) for k in range(3)], axis=1).astype(np.float64)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    return mean, np.bincount(star, magnitude, size) / np.maximum(number, 1)


def _magnitudes(one: _Piece) -> Doubles:
    """Magnitudes of the sources of a frame, the median 0: of other exposures and filters they differ by a constant."""
    flux = one.frame.sources.flux
    if flux is None:
        return np.zeros(len(one.order))
    some = np.broadcast_to(np.asarray(flux, np.float64), np.shape(one.frame.sources.x))[one.order]
    made = -2.5 * np.log10(np.where(some > 0, some, np.nan))
    return np.asarray(np.nan_to_num(made - np.nanmedian(made), nan=99.0), np.float64)


def _starts(one: _Piece, taught: _Taught, bounds: _Bounds) -> Iterator[tuple[Wcs, float, bool]]:
    """Where a frame may be, how far off that is, and whether its turn and scale are known: the surest first."""
    mates = taught.of_exposure.get(one.frame.exposure)
    if mates:
        best = max(mates, key=lambda other: other.change.stars if other.change else 0)
        assert best.change is not None
        yield (
            changed(one.frame.wcs, one.frame.shape, best.change),
            min(TAUGHT_ARCSEC, bounds.position_arcsec),
            best.change.stars >= LEAST_COMMON,
        )
    alike = taught.spins.get(one.frame.detector)
    if alike:
        spin = complex(np.median(np.real(alike)), np.median(np.imag(alike)))
        start = changed(one.frame.wcs, one.frame.shape, Change(np.eye(3), spin, 0))
        yield start, bounds.position_arcsec, True
        if abs(spin - 1) < math.radians(0.1):
            return
    yield one.frame.wcs, bounds.position_arcsec, not alike


def _by_pattern(
    one: _Piece, start: Wcs, reference: Doubles, magnitude: Doubles, position: float, bounds: _Bounds
) -> Change | None:
    """The change of a start that its stars demand, found by their pattern. Raises NoSolution."""
    sources = one.frame.sources
    stars = Reference(*angles(*(reference[:, k] for k in range(3))), mag=magnitude)
    guess = Guess(
        wcs=start,
        position_arcsec=position,
        turn_deg=bounds.turn_deg,
        scale_fraction=bounds.scale_fraction,
        loosen=False,
    )
    found = solve(sources, stars, guess, shape=one.frame.shape)
    x, y = (np.asarray(c, np.float64).ravel()[found.sources] for c in (sources.x, sources.y))
    return change_of(start, one.frame.shape, x, y, reference[found.reference], _spread(found))


def _spread(found: Solution) -> bool:
    return len(found.sources) >= LEAST_COMMON


def _by_shift(
    one: _Piece, start: Wcs, reference: Doubles, magnitude: Doubles, position: float
) -> Change | None:
    """The change of a start by a shift alone, the one that most pairs of stars vote for, if chance does not."""
    sources = one.frame.sources
    some = one.order[:VOTERS]
    x, y = (np.asarray(c, np.float64).ravel()[some] for c in (sources.x, sources.y))
    frame = np.stack(local_axes(*angles(*(np.asarray(c) for c in one.middle))))
    here = plane_of(frame, start.vectors(x, y)) * ARCSEC_PER_RAD
    there = plane_of(frame, reference) * ARCSEC_PER_RAD
    reach = position + one.radius * ARCSEC_PER_RAD
    near = np.flatnonzero(np.abs(there) <= reach)
    near = near[np.argsort(magnitude[near], kind="stable")[:VOTED]]
    shifts = (there[near][None, :] - here[:, None]).ravel()
    shifts = shifts[np.isfinite(shifts) & (np.abs(shifts) <= position)]
    if len(shifts) < LEAST_VOTES:
        return None
    for radius in VOTES_ARCSEC:
        i, j = pairs_within(shifts, shifts, radius)
        votes = np.bincount(i, minlength=len(shifts))
        best = int(np.argmax(votes))
        # The vote that is counted from is no chance; any of them may be.
        chance = log10_tail(int(votes[best]) - 1, len(shifts) * (radius / position) ** 2)
        if votes[best] < LEAST_VOTES or chance + math.log10(len(shifts) * len(VOTES_ARCSEC)) > LOG10_CHANCE:
            continue
        shift = complex(shifts[j[i == best]].mean())
        pairs = pairs_within(here + shift, there, 2 * radius)
        return change_of(start, one.frame.shape, x[pairs[0]], y[pairs[0]], reference[pairs[1]], False)
    return None


def _whole(one: _Piece, wcs: Wcs, stars: int) -> Change:
    """The change from a frame's own coordinate system to one that it has now."""
    ny, nx = one.frame.shape
    x, y = np.array([0.5 * (1 + nx), nx, 1.0, 1.0, nx]), np.array([0.5 * (1 + ny), ny, ny, 1.0, 1.0])
    before, now = one.frame.wcs.vectors(x, y), wcs.vectors(x, y)
    frame = np.stack(local_axes(*angles(*(np.asarray(c) for c in before[0]))))
    sphere = turn_of(before[0], now[0])
    here, there = plane_of(frame, before)[1:], plane_of(frame, now @ sphere)[1:]
    return Change(sphere, complex((there / here).mean()), stars)


# What is made of it


def _made(pieces: Sequence[_Piece], known: Collection[str]) -> Tied:
    groups = np.array([one.group for one in pieces])
    left_out: dict[str, str] = {}
    frames, numbers, stars = [], [], {}
    wcs: dict[int, Wcs] = {}
    for number in np.unique(groups).tolist():
        members = np.flatnonzero(groups == number).tolist()
        of_group = [pieces[k] for k in members]
        anchored = any(one.frame.name in known for one in of_group)
        if number < 0 or (len({one.frame.exposure for one in of_group}) < 2 and not anchored):
            for one in of_group:
                left_out[one.frame.name] = one.reason or _alone(one, len(pieces))
            continue
        moved = [one.wcs for one in of_group] if anchored else _in_the_mean(of_group)
        wcs |= dict(zip(members, moved, strict=True))
    for k, one in enumerate(pieces):
        if k in wcs:
            frames.append(replace(one.frame, wcs=wcs[k]))
            numbers.append(one.group)
            stars[one.frame.name] = one.change.stars if one.change else 0
    return Tied(tuple(frames), tuple(numbers), stars, left_out)


def _alone(one: _Piece, frames: int) -> str:
    if not len(one.order):
        return "it has no sources that a fit can rest on, or its coordinate system has no sky"
    return f"none of the other {frames - 1} frames has stars in common with it"


def _in_the_mean(pieces: Sequence[_Piece]) -> list[Wcs]:
    """The coordinate systems of a group, moved, turned and scaled as a whole to what their starts were in the mean."""
    before = np.stack([one.start for one in pieces])
    now = np.stack([one.middle for one in pieces])
    middle = _unit(now.mean(axis=0))
    spins = np.array([one.change.spin for one in pieces if one.change])
    spin = complex(np.exp(-np.log(spins).mean()))
    if np.linalg.norm(now - middle, axis=1).max() > WIDEST_RAD:
        spin /= abs(spin)
    frame = np.stack(local_axes(*angles(*(np.asarray(one) for one in middle))))
    plane = plane_of(frame, now) * spin
    there = frame[2] + plane.real[:, None] * frame[0] + plane.imag[:, None] * frame[1]
    there /= np.linalg.norm(there, axis=1, keepdims=True)
    back = turn_of(_unit(there.mean(axis=0)), _unit(before.mean(axis=0)))
    return [
        changed(one.wcs, one.frame.shape, Change(back @ turn_of(one.middle, to), spin, 0))
        for one, to in zip(pieces, there, strict=True)
    ]


def _unit(vector: Doubles) -> Doubles:
    return np.asarray(vector / np.linalg.norm(vector), np.float64)


# Of source tables


def tied_lists(
    lists: Sequence[tuple[Columns, Mapping[str, Any]]],
    how: LocalSettings,
    known: Mapping[int, Wcs] | None = None,
) -> tuple[dict[int, Wcs], dict[int, str]]:
    """The coordinate systems of source tables tied to each other, by their number, and why others have none.

    lists: columns and meta of source tables (kind `sources`); how: the bounds, as of a local
    solution; known: the coordinate systems of those that are solved, which stay.
    """
    known = known or {}
    frames: list[Frame] = []
    reasons: dict[int, str] = {}
    for number, (columns, meta) in enumerate(lists):
        shape = shape_of(meta, columns)
        try:
            wcs = known[number] if number in known else _header_start(meta, shape, how)
        except AweError as problem:
            reasons[number] = problem.message
            continue
        _, sources = rests_on(columns, how.signal_to_noise)
        names = [str(meta.get(one)) for one in ("instrument", "detector", "exposure")]
        frames.append(Frame(str(number), " ".join(names[:2]), f"{names[0]} {names[2]}", sources, wcs, shape))
    made = tied(
        frames,
        position_arcsec=how.position_arcsec,
        turn_deg=how.turn_deg,
        scale_fraction=how.scale_fraction,
        good=[str(number) for number in known],
    )
    reasons |= {int(name): why for name, why in made.left_out.items()}
    return {int(one.name): one.wcs for one in made.frames}, reasons


def _header_start(meta: Mapping[str, Any], shape: tuple[int, int], how: LocalSettings) -> Wcs:
    """The coordinate system that a header gives, or north up about its pointing. Raises NoSolution."""
    guess = starts_of(meta, shape, how)[0].guess
    if guess.wcs is not None:
        return guess.wcs
    if guess.pointing_deg is None or guess.scale_arcsec is None:
        raise NoSolution(
            "neither a WCS nor a pointing to begin with",
            hint="a reference catalogue, or --ra-deg and --dec-deg",
        )
    step = math.sqrt(guess.scale_arcsec[0] * guess.scale_arcsec[1]) / 3600
    side = -step if guess.parity != 1 else step
    middle = 0.5 * (1 + shape[1]), 0.5 * (1 + shape[0])
    return Wcs(guess.pointing_deg, middle, (side, 0.0, 0.0, step))
