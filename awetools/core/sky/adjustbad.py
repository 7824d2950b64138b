"""Which frames do not belong into a global solution, and which of two that disagree is the wrong one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .adjustfit import LEAST_FREE, Fit, Stars, scatter
from .adjustframe import Frame
from .adjusttable import Catalogue, Table
from .match import Places
from .polynomial import Doubles
from .starmatch import ARCSEC_PER_RAD, cells_of, stars_of

# A frame is bad if it scatters so many times as the others do, and by so much, or most of it is clipped.
BAD_RATIO, BAD_ARCSEC, BAD_CLIPPED = 5.0, 0.03, 0.5
# Nor is it bad if its sources, in their own errors, are off by less than so many times as those of the others are.
BAD_PULL, LEAST_ERROR_ARCSEC = 2.0, 0.001
# Others that are nearly as bad, in other exposures, are left out with it.
AS_BAD = 0.5
# Of the sources that others should have too so many are found, as a part of what is usual.
STRANGE = 0.3
LEAST_EXPECTED = 10.0
MORE_THAN_CHANCE = 3.0
# What lies together in a field is in one of these cells.
FIELD_ARCSEC = 60.0
REWEIGHTINGS = 4
LEAST_DOUBT_ARCSEC = 0.05
# Of two frames that disagree the one is wrong that fits its own coordinate system so much worse.
CLEARLY = 1.5


@dataclass(frozen=True, eq=False)
class Evidence:
    """How frames fit those around them where their own coordinate systems put them; the last is the reference.

    matched: sources that another exposure has; expected: that it could have, if it has as
    many as it has; chance: that it would have in a wrong field; doubt: arcsec that
    sources are off the same star in others, the median. fields: numbers of cells of the
    sky, and of the frame (each once) that lies in it.
    """

    matched: Doubles
    expected: Doubles
    chance: Doubles
    doubt: Doubles
    fields: tuple[Places, Places]


def evidence_of(table: Table, catalogue: Catalogue, frames: int, radius_arcsec: float) -> Evidence:
    """What the frames' own coordinate systems say, before any fit."""
    own = np.isfinite(table.own).all(axis=1)
    vectors = np.concatenate([table.own[own], catalogue.place])
    extra = np.full(len(catalogue.place), frames)
    frame = np.concatenate([table.frame[own], extra])
    last = int(table.exposure.max(initial=-1)) + 1
    exposure = np.concatenate([table.exposure[own], np.full(len(extra), last)])
    star = stars_of(vectors, exposure, radius_arcsec)
    size = int(star.max(initial=-1)) + 1
    members = np.bincount(star[star >= 0], minlength=size)
    pairs = np.flatnonzero((star >= 0) & (members[star] >= 2))
    matched = np.bincount(frame[pairs], minlength=frames + 1).astype(np.float64)
    doubt = _doubts(vectors[pairs], star[pairs], frame[pairs], frames + 1)
    expected, pairs_of, fields = _expected(vectors, frame, exposure, frames + 1)
    # Cells that touch reach three times as far as one.
    chance = pairs_of * (3 * radius_arcsec / FIELD_ARCSEC) ** 2
    return Evidence(matched, expected, chance, doubt, fields)


def _doubts(vectors: Doubles, star: Places, frame: Places, frames: int) -> Doubles:
    """By how much each frame's sources are off the others of their stars, the others weighed by the same."""
    made = np.full(frames, LEAST_DOUBT_ARCSEC)
    if not len(star):
        return np.full(frames, np.inf)
    order = np.argsort(frame, kind="stable")
    ends = np.flatnonzero(np.diff(frame[order])) + 1
    size = int(star.max()) + 1
    for _ in range(REWEIGHTINGS):
        weight = 1 / np.maximum(made[frame], LEAST_DOUBT_ARCSEC) ** 2
        total = np.bincount(star, weight, size)[star]
        rest = total - weight
        summed = np.stack([np.bincount(star, weight * vectors[:, k], size)[star] for k in range(3)], axis=1)
        others = (summed - weight[:, None] * vectors) / rest[:, None]
        away = np.linalg.norm(vectors - others, axis=1) * ARCSEC_PER_RAD
        made = np.full(frames, np.inf)
        for part in np.split(order, ends):
            made[frame[part[0]]] = np.median(away[part])
    return made


def _expected(
    vectors: Doubles, frame: Places, exposure: Places, frames: int
) -> tuple[Doubles, Doubles, tuple[Places, Places]]:
    """How many sources of each frame another exposure could have, cell by cell no more than it has; pairs of both."""
    cell = np.unique(cells_of(vectors, FIELD_ARCSEC), return_inverse=True)[1]
    last = int(exposure.max(initial=0)) + 1
    of_exposure, number = np.unique(cell * last + exposure, return_counts=True)
    there = of_exposure // last
    order = np.lexsort((-number, there))
    first = np.flatnonzero(np.r_[True, np.diff(there[order]) != 0])
    size = int(cell.max(initial=-1)) + 1
    most, whose, second = np.zeros(size), np.full(size, -1), np.zeros(size)
    most[there[order[first]]] = number[order[first]]
    whose[there[order[first]]] = of_exposure[order[first]] % last
    behind = first + 1
    behind = behind[behind < len(order)]
    behind = behind[there[order[behind]] == there[order[behind - 1]]]
    second[there[order[behind]]] = number[order[behind]]
    of_frame, own = np.unique(cell * frames + frame, return_counts=True)
    where, which = of_frame // frames, of_frame % frames
    its_exposure = np.zeros(frames, np.int64)
    its_exposure[frame] = exposure
    others = np.where(whose[where] == its_exposure[which], second[where], most[where])
    made = [
        np.bincount(which, one, frames).astype(np.float64) for one in (np.minimum(own, others), own * others)
    ]
    return made[0], made[1], (where.astype(np.int64), which.astype(np.int64))


def strangers(seen: Evidence) -> dict[int, str]:
    """Frames that have next to none of the stars that others have there; of those in one field the worst.

    The number behind the last frame stands for the reference.
    """
    judged = seen.expected >= LEAST_EXPECTED
    part = np.where(judged, seen.matched / np.maximum(seen.expected, 1), np.inf)
    if judged.sum() < 2:
        return {}
    usual = float(np.median(part[judged]))
    found: dict[int, str] = {}
    few = seen.matched <= 2 * seen.chance + MORE_THAN_CHANCE * np.sqrt(seen.chance + 1)
    order = np.argsort(part, kind="stable")
    for k in _apart(seen, order[few[order] & (part[order] < STRANGE * usual)].tolist()):
        found[k] = (
            f"{seen.matched[k]:.0f} of its sources are where others have theirs,"
            f" of {seen.expected[k]:.0f} that could be"
        )
    return found


def _apart(seen: Evidence, frames: Iterable[int]) -> Iterator[int]:
    """Of frames those that lie in no field of one before them."""
    where, which = seen.fields
    order = np.argsort(which, kind="stable")
    bounds = np.searchsorted(which[order], np.arange(len(seen.matched) + 1))
    taken: set[int] = set()
    for k in frames:
        cells = set(where[order[bounds[k] : bounds[k + 1]]].tolist())
        if not cells & taken:
            taken |= cells
            yield k


def wrong_one(worst: int, amount: Doubles, exposure: Places, doubt: Doubles) -> int:
    """Which frame is to blame if one is far off: of its exposure, nearly as far off, one with clearly more doubt."""
    mates = np.flatnonzero((exposure == exposure[worst]) & (amount >= AS_BAD * amount[worst]))
    other = int(mates[np.argmax(doubt[mates])])
    return other if doubt[other] > CLEARLY * doubt[worst] else worst


def lonely(frames: Sequence[Frame], table: Table, stars: Stars) -> dict[int, str]:
    """Frames without a star that another exposure or the reference has."""
    common = np.bincount(table.frame[stars.source], minlength=len(frames))
    has = np.bincount(table.frame, minlength=len(frames))
    return {
        int(k): f"none of its {has[k]} sources is in another exposure or the reference"
        for k in np.flatnonzero(common == 0)
    }


def _pulls(table: Table, fit: Fit, square: Doubles, frames: int) -> Doubles:
    """By how many of their own errors the sources of each frame are off, the median; 0 without any that tell."""
    frame, used = table.frame[fit.stars.source], fit.used
    pull = np.sqrt(square) / np.maximum(table.sigma[fit.stars.source], LEAST_ERROR_ARCSEC)
    own = (pull[used & (frame == k)] for k in range(frames))
    return np.array([float(np.median(one)) if len(one) else 0.0 for one in own])


def misfits(
    frames: Sequence[Frame], table: Table, exposure: Places, fit: Fit, seen: Evidence
) -> dict[int, str]:
    """The frame that fits worst, if it is bad, and like ones in other fields: with it gone others may be good."""
    square, left = scatter(fit.given, fit.used)
    frame, used = table.frame[fit.stars.source], fit.used
    size = len(frames)
    if size <= 2:
        return {}
    number = np.maximum(np.bincount(frame, minlength=size), 1)
    kept = np.maximum(np.bincount(frame, used, size), 1)
    rms = np.sqrt(np.bincount(frame, used * square, size) / kept / 2)
    # Of several instruments the one with coarse pixels scatters more, and is as good.
    scales = np.array([one.wcs.pixel_scale_arcsec for one in frames])
    coarse = scales / np.median(scales)
    clipped = 1 - np.bincount(frame, used, size) / number
    typical = float(np.median(rms / coarse))
    amount, least = rms / coarse, max(BAD_RATIO * typical, BAD_ARCSEC)
    # One that shares nothing but faint sources with others scatters as they do.
    pulls = _pulls(table, fit, square / np.maximum(left, LEAST_FREE), size)
    amount = np.where(pulls > BAD_PULL * max(1.0, float(np.median(pulls))), amount, 0.0)
    said = "residuals of {1:.3g} arcsec rms, of all frames {2:.3g}"
    if amount.max() <= least:
        amount, least, said = clipped, BAD_CLIPPED, "{0:.0%} of its stars in common do not fit"
    order = np.argsort(-amount, kind="stable")
    bad = order[amount[order] > max(least, AS_BAD * float(amount.max()))].tolist()
    blamed = [wrong_one(one, amount, exposure, seen.doubt) for one in _apart(seen, bad)]
    return {one: said.format(amount[one], rms[one], typical * coarse[one]) for one in blamed}
