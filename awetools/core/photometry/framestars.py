"""What is given of the stars of many frames, as one table of those that tie the frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..errors import Mixture, NoSolution
from ..sky.match import Places
from ..sky.polynomial import Doubles
from .robustfit import LEAST_VARIANCE, Mask


@dataclass(frozen=True, eq=False)
class FrameStars:
    """A frame: the numbers of its stars, their instrumental magnitudes (`zeropoint.instrumental`) and errors, (n,).

    setup: frames of one and the same would see equally, but for clouds and airmass: a detector.
    """

    name: str
    star: npt.ArrayLike
    mag: npt.ArrayLike
    error_mag: npt.ArrayLike
    setup: str = ""


@dataclass(frozen=True, eq=False)
class Anchors:
    """Stars whose magnitudes are known: numbers, magnitudes, errors, colours, (n,) each; the last two may be nan."""

    star: npt.ArrayLike
    mag: npt.ArrayLike
    error_mag: npt.ArrayLike
    colour: npt.ArrayLike | None = None


@dataclass(frozen=True, eq=False)
class Table:
    """All measures: frame, star, magnitude, variance (n,); of stars: anchor and its variance, held out."""

    frame: Places
    star: Places
    mag: Doubles
    variance: Doubles
    anchor: Doubles
    anchor_variance: Doubles
    known: Mask
    held: Mask
    frames: int


def untied(frames: int, remedy: str) -> NoSolution:
    """That no star ties frames, to be raised."""
    return NoSolution(
        f"the {frames} frames share no star with each other, nor with known stars",
        hint=f"{remedy}, or a reference catalogue with magnitudes",
    )


def table_of(frames: Sequence[FrameStars], anchors: Anchors | None, hold_out: int) -> Table:
    """The measures of stars that two frames have, or that are known; nothing of stars twice in a frame."""
    columns = [_columns(one.name, one.star, one.mag, one.error_mag) for one in frames]
    number = np.array([len(one[0]) for one in columns])
    frame = np.repeat(np.arange(len(frames)), number)
    star = np.concatenate([one[0] for one in columns])
    mag, error = (np.concatenate([one[k] for one in columns]) for k in (1, 2))
    with np.errstate(invalid="ignore"):
        use = np.isfinite(mag) & (error > 0)
    frame, star, mag, error = _once(frame[use], star[use], mag[use], error[use])
    names, place = np.unique(star, return_inverse=True)
    star = place.astype(np.int64)
    anchor, anchor_error = _known(names, anchors)
    known = np.isfinite(anchor)
    common = (np.bincount(star, minlength=len(names)) >= 2) | known
    tell = common[star]
    kept, place = np.unique(star[tell], return_inverse=True)
    return Table(
        frame[tell],
        place.astype(np.int64),
        mag[tell],
        np.maximum(error[tell] ** 2, LEAST_VARIANCE),
        np.nan_to_num(anchor[kept]),
        np.nan_to_num(anchor_error[kept]) ** 2,
        known[kept],
        held_part(names[kept], hold_out) == 0,
        len(frames),
    )


def part_of(table: Table, kept: Mask) -> Table:
    """The same table with some measures alone, (n,), and without the anchors of stars that are held out."""
    return replace(
        table,
        frame=table.frame[kept],
        star=table.star[kept],
        mag=table.mag[kept],
        variance=table.variance[kept],
        known=table.known & ~table.held,
    )


def _columns(
    name: str, star: npt.ArrayLike, mag: npt.ArrayLike, error: npt.ArrayLike
) -> tuple[Places, Doubles, Doubles]:
    stars = np.asarray(star).astype(np.int64).ravel()
    mags, errors = (np.asarray(one, np.float64).ravel() for one in (mag, error))
    if not len(stars) == len(mags) == len(errors):
        raise Mixture(f"{name}: columns of stars of {len(stars)}, {len(mags)} and {len(errors)} rows")
    return stars, mags, errors


def _once(
    frame: Places, star: Places, mag: Doubles, error: Doubles
) -> tuple[Places, Places, Doubles, Doubles]:
    """Without stars that a frame has twice: blended, or split."""
    order = np.lexsort((star, frame))
    frame, star = frame[order], star[order]
    mag, error = mag[order], error[order]
    twice = (np.diff(frame) == 0) & (np.diff(star) == 0)
    good = np.ones(len(star), np.bool_)
    good[1:][twice] = False
    good[:-1][twice] = False
    return frame[good], star[good], mag[good], error[good]


def _known(names: Places, anchors: Anchors | None) -> tuple[Doubles, Doubles]:
    """The anchors' magnitudes and errors by the frames' stars; nan for none."""
    mag, error = np.full(len(names), np.nan), np.full(len(names), np.nan)
    if anchors is None or not len(names):
        return mag, error
    star, mags, errors = _columns("anchors", anchors.star, anchors.mag, anchors.error_mag)
    place = np.minimum(np.searchsorted(names, star), len(names) - 1)
    seen = (names[place] == star) & np.isfinite(mags)
    mag[place[seen]], error[place[seen]] = mags[seen], errors[seen]
    return mag, error


def held_part(names: Places, parts: int) -> Places:
    """In which of so many parts a star is, by a hash of its number alone; one part is held out at a time."""
    mixed = names.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray((mixed ^ (mixed >> np.uint64(31))) % np.uint64(parts), np.int64)
