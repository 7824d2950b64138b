"""Where a mosaic shows nothing but sky, although an object may fill most of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..pixels.coadd import Layer
from .layers import Placed, unit_places

Doubles = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

# Columns of a cell, and the part of its pixels that must be good.
CELL, LEAST_GOOD = 64, 0.5
# Bins each way in which cells are looked at together, and the part of them that is sky at least.
BINS, SKY_PART, LEAST_SKY = 14, 0.2, 6
# Planes that are tried; the part of the bins that may be this far below the sky, in its scatter.
TRIALS, MOST_BELOW, FAR_BELOW = 1500, 0.05, 4.0
# Cells are sky from so far below to so far above it, in its scatter.
BELOW, ABOVE, ROUNDS = 3.5, 2.0, 8
# Sky that reaches over less than this part of a mosaic, each way, does not tell its tilt.
LEAST_SPREAD = 0.6
CLIP_BELOW, CLIP_ABOVE = 3.0, 2.5


@dataclass
class Cells:
    """Backgrounds of small parts of frames on the grid.

    Rows: frame; u and v in it; x and y on the grid; the value that most of its pixels have; its error.
    """

    rows: list[tuple[float, ...]] = field(default_factory=list)

    def add(self, layers: Sequence[Layer], placed: Sequence[Placed]) -> None:
        """Take those of some rows of the grid."""
        for one in layers:
            u, v = unit_places(placed[one.number].window, one.rows)
            first = placed[one.number].window[1][0]
            for left in range(one.columns[0], one.columns[1] - CELL // 2, CELL):
                right = min(left + CELL, one.columns[1])
                across = slice(left - one.columns[0], right - one.columns[0])
                good = one.weight[:, across] > 0
                if np.count_nonzero(good) < LEAST_GOOD * good.size:
                    continue
                value, error = background(one.data[:, across][good])
                at = float(u[left - first : right - first].mean()), float(v.mean())
                place = (left + right - 1) / 2, (one.rows[0] + one.rows[1] - 1) / 2
                self.rows.append((one.number, *at, *place, value, error))


def background(values: npt.NDArray[np.float32]) -> tuple[float, float]:
    """The value that most pixels of a part have, stars or not, and its error (neighbours are not independent).

    The median of what is left after clipping more above than below.
    """
    ordered = np.sort(values).astype(np.float64)
    low, high = 0, len(ordered)
    for _ in range(ROUNDS):
        middle, spread = _middle(ordered[low:high])
        begin = int(np.searchsorted(ordered, middle - CLIP_BELOW * spread))
        end = int(np.searchsorted(ordered, middle + CLIP_ABOVE * spread, side="right"))
        if (begin, end) == (low, high) or end - begin < 2:
            break
        low, high = begin, end
    middle, spread = _middle(ordered[low:high])
    return middle, 1.2533 * 2 * max(spread, 1e-30) / math.sqrt(high - low)


def _middle(ordered: Doubles) -> tuple[float, float]:
    """Median and scatter of sorted values, the latter from the lower half, which sources do not widen."""
    count = len(ordered)
    middle = 0.5 * (ordered[(count - 1) // 2] + ordered[count // 2])
    return float(middle), float(middle - ordered[count // 4]) / 0.6745


@dataclass(frozen=True, eq=False)
class Sky:
    """Which cells are sky, and their scatter about a plane; whether they tell a tilt of the mosaic."""

    cells: Flags
    scatter: float
    tells_tilt: bool


def find_sky(x: Doubles, y: Doubles, value: Doubles, error: Doubles) -> Sky | None:
    """The cells about the plane of the faintest sky; None where too few agree on one.

    Light only adds: the plane is that about which a part of all lies closest, with next to nothing below. The
    size of that part is fixed, so that an object may fill the rest (least quantile of squares: Rousseeuw 1984,
    J. Am. Stat. Assoc. 79, 871).
    """
    if len(value) < LEAST_SKY:
        return None
    centre = np.array([(x.min() + x.max()) / 2, (y.min() + y.max()) / 2])
    half = max(np.ptp(x), np.ptp(y), 1.0) / 2
    places = np.stack([np.ones(len(x)), (x - centre[0]) / half, (y - centre[1]) / half], axis=1)
    bins = _binned(places, value)
    if len(bins) < LEAST_SKY:
        return None
    plane = _faintest_plane(bins[:, :3], bins[:, 3], float(np.median(error)))
    if plane is None:
        return None
    found = np.zeros(len(value), np.bool_)
    scatter = 0.0
    for _ in range(ROUNDS):
        away = value - places @ plane[0]
        scatter = plane[1] if not found.any() else _scatter(away, found, error)
        kept = (away > -BELOW * scatter) & (away < ABOVE * scatter)
        if kept.sum() < LEAST_SKY or (kept == found).all():
            break
        found = kept
        fitted, *_ = np.linalg.lstsq(places[found], value[found], rcond=1e-9)
        plane = fitted, scatter
    if not found.any():
        return None
    return Sky(found, scatter, _spread(places[found]) >= LEAST_SPREAD * _spread(places))


def _scatter(away: Doubles, found: Flags, error: Doubles) -> float:
    """That of the lower side, which light does not widen; no less than the errors."""
    low = away[found & (away < 0)]
    own = 1.4826 * float(np.median(-low)) if low.size else 0.0
    return max(own, float(np.median(error[found])))


def _binned(places: Doubles, value: Doubles) -> Doubles:
    """Middles of cells that are neighbours: places (1, x, y) and the lower of their values."""
    index = np.minimum(((places[:, 1:] + 1) / 2 * BINS).astype(int), BINS - 1)
    number = index[:, 1] * BINS + index[:, 0]
    made = []
    for one in np.unique(number):
        here = number == one
        made.append([*places[here].mean(axis=0), np.median(value[here])])
    return np.array(made)


def _faintest_plane(places: Doubles, value: Doubles, error: float) -> tuple[Doubles, float] | None:
    """A plane, and the scatter of the sky about it."""
    count = len(value)
    part = max(LEAST_SKY, math.ceil(SKY_PART * count))
    if count < part:
        return None
    rng = np.random.default_rng(1984)
    # Bins of the fainter half alone can be sky throughout.
    faint = np.argsort(value)[: max(LEAST_SKY, (2 * count) // 3)]
    chosen = faint[np.argsort(rng.random((TRIALS, len(faint))), axis=1)[:, :3]]
    three = places[chosen]
    usable = np.abs(np.linalg.det(three)) > 0.05
    planes = np.linalg.solve(three[usable], value[chosen[usable]][..., None])[..., 0]
    level = np.zeros((len(faint), 3))
    level[:, 0] = value[faint]
    planes = np.concatenate([level, planes])
    away = value[None, :] - planes @ places.T
    # Planes need not be exactly in the middle of the sky: three bins have noise.
    band = np.maximum(np.partition(np.abs(away), part - 1, axis=1)[:, part - 1], error)
    below = (away < -FAR_BELOW * band[:, None]).mean(axis=1)
    band[below > MOST_BELOW] = np.inf
    best = int(np.argmin(band))
    return (planes[best], float(band[best])) if np.isfinite(band[best]) else None


def _spread(places: Doubles) -> float:
    """The scatter of places in the direction in which it is least."""
    away = places[:, 1:] - places[:, 1:].mean(axis=0)
    return math.sqrt(max(float(np.linalg.eigvalsh(away.T @ away / len(away))[0]), 0.0))
