"""Zero points of many frames from the stars they share: relative, and absolute where some stars are known.

Not solved: an error of a flat field is taken as scatter; extinction and colour terms of the frames
are not told apart from their zero points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import BadValue, EmptyInput, Mixture
from ..sky.match import Places
from ..sky.polynomial import Doubles
from .framestars import Anchors, FrameStars, Table, part_of, table_of, untied
from .normal import Ties
from .robustfit import ASSUMED_SCATTER_MAG, LEAST_VARIANCE, MEDIAN_DEVIATION, Mask, kept_variance, student
from .softclip import FIRST_ANCHOR_MAG, LEAST_FREE, fits, soft_parts

__all__ = ["Anchors", "FrameStars", "Tied", "TiedFrame", "tie"]

# Rounds in which values weigh the less the farther they are off, and then those in which they are clipped.
SOFT_ROUNDS, AGAIN_ROUNDS, HARD_ROUNDS = 12, 4, 8
# A frame's own scatter is told by so many stars, and is taken where it is so much larger than that of all.
LEAST_OWN, OWN_RATIO, CLEARLY = 10, 1.5, 5.0
# A value of less weight than this part of what its error says takes no part in the scatter.
HALF = 0.5
LEAST_SCATTER_MAG = 1e-4
BISECTIONS = 28
# With so many degrees of freedom Student's distribution is the normal one.
MANY = 500
# What makes a frame doubtful.
FAINT_SIGMA, LEAST_FAINT_MAG = 6.0, 0.1
FEW_STARS, MOST_CLIPPED = 3, 0.3


@dataclass(frozen=True)
class TiedFrame:
    """The zero point of a frame, and its error.

    group: a number; absolute: whether its zero points are magnitudes, else they have the mean 0 in
    the group. stars: used, of those that tie it; rms_mag: of their residuals; scatter_mag:
    beyond their errors; below_median_mag: how much fainter it sees than the median of its group
    in its set-up.
    """

    name: str
    zeropoint_mag: float
    error_mag: float
    group: int
    absolute: bool
    stars: int
    clipped: int
    rms_mag: float
    scatter_mag: float
    below_median_mag: float


@dataclass(frozen=True, eq=False)
class Tied:
    """Frames in their order; the names of each group; what is doubtful of which frames; measures of all."""

    frames: tuple[TiedFrame, ...]
    groups: tuple[tuple[str, ...], ...]
    doubtful: Mapping[str, str]
    measures: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class _State:
    """Zero points; variance beyond the errors by frame, and of the anchors; parts of the weights that count."""

    zero: Doubles
    extra: Doubles
    anchor_extra: float
    part: Doubles
    anchor_part: Doubles


def tie(
    frames: Sequence[FrameStars],
    anchors: Anchors | None = None,
    *,
    clip_sigma: float = 4.0,
    hold_out: int = 10,
) -> Tied:
    """The zero points of frames by one weighted least-squares fit of all stars that two frames share.

    magnitude of a star = instrumental magnitude + zero point of the frame. Robust: begins with
    weights that fall with the residual, then clips. Errors are those of the fit, with the
    scatter beyond the errors of the magnitudes, and larger where few stars tell that; of a group of
    more than 1200 frames they are drawn, each right to 5%. One in
    hold_out stars takes no part in the fit that the held-out residuals are of; the last
    fit has all. Stars twice in a frame are not used there. Raises EmptyInput, BadValue, Mixture
    (names or columns), NoSolution where no two frames share a star and no anchor is seen.
    """
    _check(frames, clip_sigma, hold_out)
    table = table_of(frames, anchors, hold_out)
    if not len(table.star):
        raise untied(len(frames), "frames that overlap")
    kept = ~table.held[table.star]
    tried = _fitted(part_of(table, kept), _begun(part_of(table, kept)), clip_sigma, SOFT_ROUNDS)
    held = _held(table, tried, _ties(part_of(table, kept), tried).group, clip_sigma)
    part = np.ones(len(kept))
    part[kept] = tried.part
    known = np.where(table.held, table.known, tried.anchor_part)
    state = _fitted(table, replace(tried, part=part, anchor_part=known), clip_sigma, AGAIN_ROUNDS)
    return _result(frames, table, state, held)


def _check(frames: Sequence[FrameStars], clip_sigma: float, hold_out: int) -> None:
    if not frames:
        raise EmptyInput("zero points of no frames")
    if not clip_sigma >= 2:
        raise BadValue(f"clipping at {clip_sigma} sigma would take good stars: at least 2")
    if hold_out < 2:
        raise BadValue(f"one in {hold_out} stars held out: at least 2")
    names: set[str] = set()
    for one in frames:
        if one.name in names:
            raise Mixture(f"two frames have the name {one.name}")
        names.add(one.name)


# The fit


def _begun(table: Table) -> _State:
    ones = np.ones(len(table.star))
    extra = max(_assumed(table), FIRST_ANCHOR_MAG**2)
    return _State(np.zeros(table.frames), np.zeros(table.frames), extra, ones, table.known.astype(np.float64))


def _assumed(table: Table) -> float:
    """The variance of anchors that too few show: none beyond their errors, a guess where some have no errors."""
    return ASSUMED_SCATTER_MAG**2 if (table.known & (table.anchor_variance <= 0)).any() else 0.0


def _ties(table: Table, state: _State) -> Ties:
    weight = state.part / (table.variance + state.extra[table.frame])
    total = np.maximum(table.anchor_variance + state.anchor_extra, LEAST_VARIANCE)
    return Ties(table.frame, table.star, weight, state.anchor_part / total, table.frames)


def _fitted(table: Table, state: _State, clip_sigma: float, soft_rounds: int) -> _State:
    """The fit: rounds with weights that fall with the residual, then with clipping."""
    for turn in range(soft_rounds + HARD_ROUNDS):
        zero = _ties(table, state).zero_points(table.mag, table.anchor)
        state = replace(state, zero=zero)
        if turn < soft_rounds:
            state = _softened(table, state)
            continue
        before = state
        state = _clipped(table, _weighed(table, state, clip_sigma, turn == soft_rounds > 0), clip_sigma)
        if np.array_equal(before.part, state.part) and np.allclose(
            before.extra, state.extra, rtol=1e-3, atol=0
        ):
            break
    zero = _ties(table, state).zero_points(table.mag, table.anchor)
    return replace(state, zero=zero)


def _residuals(table: Table, state: _State) -> tuple[Doubles, Doubles, Doubles, Doubles]:
    """Of each measure about its star: residual, and what part of its variance is left; the same of the anchors.

    The star's mean is that of its measures and its anchor.
    """
    ties = _ties(table, state)
    values = table.mag + state.zero[table.frame]
    mean = ties.means(values, table.anchor)
    total = np.where(ties.total > 0, ties.total, np.inf)
    away, left = values - mean[table.star], 1 - ties.weight / total[table.star]
    return away, left, table.anchor - mean, 1 - ties.anchor / total


def _softened(table: Table, state: _State) -> _State:
    """Weights that fall with the residual, by the scale that the median residual tells."""
    away, left, anchor_away, anchor_left = _residuals(table, state)
    part = soft_parts(away, left, table.variance + state.extra[table.frame], np.ones(len(left), np.bool_))
    total = np.maximum(table.anchor_variance + state.anchor_extra, LEAST_VARIANCE)
    anchor_part = table.known * soft_parts(anchor_away, anchor_left, total, table.known)
    return replace(state, part=part, anchor_part=anchor_part)


def _weighed(table: Table, state: _State, clip_sigma: float, first: bool) -> _State:
    """Scatter beyond the errors, of all frames together, of frames that have more, and of the anchors.

    first: nothing is clipped yet, so that medians tell it.
    """
    away, left, anchor_away, anchor_left = _residuals(table, state)
    tell = np.flatnonzero((left > LEAST_FREE) & (state.part > (0 if first else HALF)))
    frame, variance = table.frame[tell], table.variance[tell]
    # The zero points take their part of the degrees of freedom too.
    taken = len(np.unique(frame)) / max(float(left[tell].sum()), 1.0)
    square = away[tell] ** 2 / (left[tell] * max(1 - taken, LEAST_FREE))
    size = table.frames
    number = np.bincount(frame, minlength=size)
    many = number >= LEAST_OWN

    def level(which: Places, groups: int, some: Mask | slice = slice(None)) -> Doubles:
        if first:
            return np.maximum(_medians(square[some] / MEDIAN_DEVIATION**2 - variance[some], which, groups), 0)
        return _level(square[some], variance[some], which, groups, clip_sigma)

    own = level(frame, size)
    typical = float(np.median(own[many])) if many.any() else float(level(np.zeros_like(frame), 1)[0])
    relative = square / (variance + typical)
    if first:
        chi2 = _medians(relative, frame, size) / MEDIAN_DEVIATION**2
    else:
        chi2 = np.bincount(frame, relative, size) / np.maximum(number, 1)
    # Some frames have more by chance: of many that is allowed for.
    clear = many & (chi2 > 1 + CLEARLY * np.sqrt(2 / np.maximum(number, 1)))
    clear &= own > OWN_RATIO**2 * max(typical, LEAST_SCATTER_MAG**2)
    others = ~clear[frame]
    middle = float(level(np.zeros(int(others.sum()), np.int64), 1, others)[0])
    extra = np.where(clear, own, middle)
    seen = table.known & (state.anchor_part > HALF)
    pinned = np.flatnonzero(seen & (anchor_left > LEAST_FREE))
    anchor_extra = state.anchor_extra if seen.sum() >= LEAST_OWN else _assumed(table)
    if len(pinned) >= LEAST_OWN:
        anchor_square = anchor_away[pinned] ** 2 / anchor_left[pinned]
        nothing = np.zeros(len(pinned), np.int64)
        variance = np.maximum(table.anchor_variance[pinned], LEAST_VARIANCE)
        anchor_extra = float(_level(anchor_square, variance, nothing, 1, clip_sigma)[0])
    return replace(state, extra=extra, anchor_extra=anchor_extra)


def _medians(values: Doubles, which: Places, size: int) -> Doubles:
    """The median of each group of values; 0 of none."""
    order = np.lexsort((values, which))
    number = np.bincount(which, minlength=size)
    middle = np.cumsum(number) - number + number // 2
    found = np.zeros(size)
    found[number > 0] = values[order[middle[number > 0]]]
    return found


def _level(square: Doubles, variance: Doubles, which: Places, size: int, clip_sigma: float) -> Doubles:
    """The extra variance, by group, at which the mean of squares over variances is what clipping leaves."""
    number = np.maximum(np.bincount(which, minlength=size), 1) * kept_variance(clip_sigma)
    high = np.bincount(which, square, size) / number + LEAST_SCATTER_MAG**2
    low = np.zeros(size)
    enough = np.bincount(which, square / variance, size) <= number
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        over = np.bincount(which, square / (variance + middle[which]), size) > number
        low, high = np.where(over, middle, low), np.where(over, high, middle)
    return np.where(enough, 0.0, high)


def _clipped(table: Table, state: _State, clip_sigma: float) -> _State:
    """Which measures and anchors fit; a first fit of those decides again on all."""
    away, left, anchor_away, anchor_left = _residuals(table, state)
    part = fits(away, left, table.variance + state.extra[table.frame], clip_sigma).astype(np.float64)
    total = np.maximum(table.anchor_variance + state.anchor_extra, LEAST_VARIANCE)
    near = fits(anchor_away, anchor_left, total, clip_sigma)
    return replace(state, part=part, anchor_part=(near & table.known).astype(np.float64))


# What is said of it


def _held(table: Table, state: _State, groups: Places, clip_sigma: float) -> dict[str, float]:
    """Residuals of held-out stars about their means, where the fit without them joins the frames."""
    group = groups[table.frame]
    some = np.flatnonzero(table.held[table.star])
    if not len(some):
        return {
            "held_stars": 0.0,
            "held_rms_mag": math.nan,
            "held_pull": math.nan,
            "held_clipped_fraction": math.nan,
        }
    key = np.unique(table.star[some] * (int(group.max()) + 1) + group[some], return_inverse=True)[1]
    values = (table.mag + state.zero[table.frame])[some]
    variance = (table.variance + state.extra[table.frame])[some]
    good = np.ones(len(some), np.bool_)
    away, left = values, variance
    for _ in range(3):
        weight = good / variance
        total = np.bincount(key, weight)
        mean = np.bincount(key, weight * values) / np.where(total > 0, total, 1.0)
        away, left = values - mean[key], 1 - weight / np.where(total > 0, total, np.inf)[key]
        good = fits(away, left, variance, clip_sigma)
    tell = good & (left > LEAST_FREE) & (np.bincount(key, good)[key] >= 2)
    square = away[tell] ** 2 / left[tell]
    some_told = bool(tell.any())
    return {
        "held_stars": float(len(np.unique(key[tell]))),
        "held_rms_mag": math.sqrt(float(square.mean())) if some_told else math.nan,
        "held_pull": math.sqrt(float((square / variance[tell]).mean())) if some_told else math.nan,
        "held_clipped_fraction": 1 - float(good.mean()),
    }


def _result(frames: Sequence[FrameStars], table: Table, state: _State, held: Mapping[str, float]) -> Tied:
    ties = _ties(table, state)
    away, left, _, _ = _residuals(table, state)
    used = state.part > 0
    error = _errors(ties, left * used)
    number = np.bincount(table.frame, used, table.frames)
    clipped = np.bincount(table.frame, ~used, table.frames)
    free = np.bincount(table.frame, used * left, table.frames)
    square = np.bincount(table.frame, used * away**2, table.frames)
    rms = np.sqrt(square / np.where(free > 0, free, np.nan))
    setup = np.unique([one.setup for one in frames], return_inverse=True)[1]
    group, below = ties.group, _below(state.zero, ties.group * len(frames) + setup)
    made = tuple(
        TiedFrame(
            one.name,
            float(state.zero[k]),
            float(error[k]),
            int(group[k]),
            bool(ties.anchored[group[k]]),
            int(number[k]),
            int(clipped[k]),
            float(rms[k]),
            math.sqrt(float(state.extra[k])),
            float(below[k]),
        )
        for k, one in enumerate(frames)
    )
    tell = used & (left > LEAST_FREE)
    scatter = away[tell] ** 2 / left[tell]
    measures = {
        "frames": float(len(frames)),
        "groups": float(len(ties.anchored)),
        "stars": float(len(np.unique(table.star[used]))),
        "anchors": float((state.anchor_part > 0).sum()),
        "measurements": float(used.sum()),
        "clipped_fraction": 1 - float(used.mean()),
        "rms_mag": math.sqrt(float(scatter.mean())) if len(scatter) else math.nan,
        "scatter_mag": math.sqrt(float(np.median(state.extra))),
        "anchor_scatter_mag": math.sqrt(state.anchor_extra) if table.known.any() else math.nan,
        **held,
    }
    groups = _grouped(made, len(ties.anchored))
    return Tied(made, groups, _doubtful(made, measures["scatter_mag"]), measures)


def _errors(ties: Ties, free: Doubles) -> Doubles:
    """The errors by frame; from few stars larger, by Student's factor, and where no star is left over, by a guess."""
    found = np.sqrt(ties.variances)
    number = np.bincount(ties.group[ties.frame], free, len(ties.anchored))
    freedom = np.floor(number - np.bincount(ties.group) + ~ties.anchored + 1e-6).astype(np.int64)
    few = np.unique(np.clip(freedom, 0, MANY))
    factor = np.array([student(int(one)) for one in few])[np.searchsorted(few, np.clip(freedom, 0, MANY))]
    alone = np.where(freedom < 1, ASSUMED_SCATTER_MAG, 0.0)
    return np.asarray(np.hypot(found * factor[ties.group], alone[ties.group]), np.float64)


def _grouped(frames: Sequence[TiedFrame], size: int) -> tuple[tuple[str, ...], ...]:
    found: list[list[str]] = [[] for _ in range(size)]
    for one in frames:
        found[one.group].append(one.name)
    return tuple(tuple(names) for names in found)


def _below(zero: Doubles, group: Places) -> Doubles:
    """How much fainter than the median of its group each frame sees; the groups are those of one set-up."""
    found = np.empty(len(zero))
    order = np.argsort(group, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        found[members] = np.median(zero[members]) - zero[members]
    return found


def _doubtful(frames: Sequence[TiedFrame], scatter_mag: float) -> dict[str, str]:
    """What is to be looked at: clouds, frames that scatter, and frames that hardly anything ties."""
    spread: dict[int, list[float]] = {}
    for one in frames:
        spread.setdefault(one.group, []).append(abs(one.below_median_mag))
    found: dict[str, str] = {}
    for one in frames:
        typical = float(np.median(spread[one.group])) / MEDIAN_DEVIATION
        reasons = []
        if not one.stars and one.clipped:
            reasons.append("none of its stars fits")
        elif len(spread[one.group]) == 1 and not one.absolute:
            reasons.append("shares no star with any other frame")
        elif one.stars < FEW_STARS:
            reasons.append(f"{one.stars} stars alone tie it")
        if one.below_median_mag > max(FAINT_SIGMA * typical, LEAST_FAINT_MAG):
            reasons.append(f"sees {one.below_median_mag:.2f} mag fainter than the median: clouds?")
        if one.scatter_mag > OWN_RATIO * max(scatter_mag, LEAST_SCATTER_MAG):
            reasons.append(
                f"its stars scatter by {one.scatter_mag:.3f} mag, in all frames by {scatter_mag:.3f}"
            )
        if one.stars and one.clipped > MOST_CLIPPED * (one.stars + one.clipped):
            reasons.append(f"{one.clipped} of {one.stars + one.clipped} stars do not fit")
        if reasons:
            found[one.name] = "; ".join(reasons)
    return found
