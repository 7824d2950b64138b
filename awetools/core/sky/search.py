"""The search for the map of an image to the sky: patterns suggest, the stars brought together decide."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..errors import NoSolution
from .match import (
    Bounds,
    Maps,
    Places,
    Points,
    Triangles,
    apart,
    as_points,
    counts_of,
    matched,
    spread_order,
    suggested,
    triangles,
)
from .odds import chance_matches, log10_tail
from .polynomial import Doubles
from .sphere import ARCSEC_PER_DEG, angles, combined, unit_vectors

ARCSEC_TO_RAD = math.radians(1 / ARCSEC_PER_DEG)
# So many wrong solutions in all are expected of a number of images: a millionth of one an image.
LOG10_CHANCE = -6.0
# How stars are matched counts as so many tries more (radii, depths).
LOG10_CHOICES = 1.0
# A pattern, and the map it makes, takes up three stars.
TAKEN = 3
LEAST_STARS, LEAST_LIST = 4, 500
MOST_REFERENCE = 40_000
# Reference stars are fewer than that where they would make more triangles, or more pairs of triangles of like shape.
MOST_TRIANGLES, MOST_PAIRS = 600_000, 1_000_000
SCORED_STARS = 80
MOST_CANDIDATES = 12
# A map that shears more than this is no image of the sky.
MOST_SHEAR = 0.03
# Another place that explains so large a part of the stars makes a solution ambiguous.
RIVAL = 0.6


@dataclass(frozen=True)
class Level:
    """How patterns are sought: so many stars, their neighbours, reference stars to a star, accuracy."""

    stars: int
    neighbours: int
    ratio: float = 1.0
    tolerance: float = 0.01
    spread: bool = False


LEVELS = (
    Level(40, 5),
    Level(80, 6, 0.4),
    Level(80, 6, 2.5, spread=True),
    Level(160, 7, 1.0),
    Level(160, 7, 0.2),
    Level(60, 8, 6.0),
    Level(300, 8, 1.0, 0.02, True),
    # Few stars in common: most of the triangles of short lists.
    Level(50, 16, 1.5, 0.006),
)


@dataclass(frozen=True, eq=False)
class Field:
    """An image and a catalogue in one conformal plane of arcsec about a direction (frame: its axes).

    source and star: places in what was given, the brightest first; z and w: where they are.
    """

    frame: Doubles
    source: Places
    z: Points
    star: Places
    w: Points
    scale: float
    mirrored: bool = False

    @property
    def area(self) -> float:
        return _box(self.z)


@dataclass(frozen=True, eq=False)
class Found:
    """A map w = a z + b conj(z) + c with its matches: field, number of stars, chance of it."""

    field: Field
    map: tuple[complex, complex, complex]
    radius: float
    count: int
    tested: int
    log10_chance: float

    def apply(self, z: Points) -> Points:
        a, b, c = self.map
        made: Points = a * z + b * z.conj() + c
        return made


@dataclass
class Search:
    """What was tried so far."""

    maps: int = 0
    best: Found | None = None
    words: list[str] = field(default_factory=list)
    patterns: dict[tuple[int, int, bytes], Triangles] = field(default_factory=dict)

    def triangles(self, w: Points, neighbours: int) -> Triangles:
        """The triangles of reference stars; both parities want the same ones."""
        key = len(w), neighbours, w[:: max(1, len(w) // 100)].tobytes()
        if key not in self.patterns:
            self.patterns = {key: triangles(w, neighbours, both_ends=True)}
        return self.patterns[key]


def to_plane(ra: Doubles, dec: Doubles, frame: Doubles) -> Points:
    """Stereographic places in arcsec: conformal, so that small patterns keep their shape however far they are."""
    along = unit_vectors(ra, dec) @ frame.T
    depth = 1 + along[:, 2]
    factor = 2 / np.where(depth > 1e-6, depth, np.nan) / ARCSEC_TO_RAD
    return as_points(along[:, 0], along[:, 1]) * factor


def to_sky(points: Points, frame: Doubles) -> tuple[Doubles, Doubles]:
    """RA and Dec of stereographic places."""
    x, y = points.real * ARCSEC_TO_RAD, points.imag * ARCSEC_TO_RAD
    return angles(*combined(x, y, 1 - (x * x + y * y) / 4, frame))


def _box(points: Points) -> float:
    return max(float(np.ptp(points.real)) * float(np.ptp(points.imag)), 1e-12)


def sought(views: list[Field], bounds: Bounds, search: Search) -> Found | None:
    done = set()
    for level in LEVELS:
        for view in views:
            lists = _lists(view, level)
            key = (view.mirrored, *(len(one) for one in lists), level.neighbours, level.tolerance)
            if key in done or min(len(one) for one in lists) < LEAST_STARS:
                continue
            done.add(key)
            found = _at_level(view, lists, level, bounds, search)
            if found is not None:
                return found
    return None


def _lists(view: Field, level: Level) -> tuple[Points, Points]:
    """The brightest sources and about as many reference stars an area, or the ratio of it."""
    z, w = view.z, view.w
    if level.spread:
        cell = math.sqrt(4 * view.area / level.stars)
        z, w = z[spread_order(z, cell)], w[spread_order(w, cell)]
    z = z[: level.stars]
    number = level.ratio * len(z) * max(1.0, _box(w) / view.area)
    w = w[: min(max(math.ceil(number), 8), _most_reference(level, len(z)))]
    tiny = 1.5 * view.scale
    return z[apart(z, tiny)], w[apart(w, tiny)]


def _most_reference(level: Level, stars: int) -> int:
    """So many reference stars at most, for the time that it takes."""
    # Some are two stars' triangles and some are too thin: two of three are left; shapes fill an area of 0.35.
    each = level.neighbours * (level.neighbours - 1) / 3
    alike = math.pi * level.tolerance**2 / 0.35
    by_pairs = MOST_PAIRS / (alike * each * each * max(1, stars))
    return max(LEAST_LIST, int(min(MOST_REFERENCE, MOST_TRIANGLES / each, by_pairs)))


def _at_level(
    view: Field, lists: tuple[Points, Points], level: Level, bounds: Bounds, search: Search
) -> Found | None:
    z, w = lists
    neighbours = level.neighbours if len(z) > 25 else max(level.neighbours, 9)
    maps = suggested(
        z,
        triangles(z, neighbours),
        w,
        search.triangles(w, neighbours),
        level.tolerance,
        bounds,
    )
    search.maps += len(maps)
    if not len(maps):
        return None
    half = 0.5 * math.hypot(float(np.ptp(view.z.real)), float(np.ptp(view.z.imag)))
    radius = max(2.5 * view.scale, 0.5 * level.tolerance * half)
    counts = counts_of(maps, z[:SCORED_STARS], w, radius, half)
    found: list[Found] = []
    for place in _distinct(maps, counts, half, 2 * radius):
        if found and counts[place] < RIVAL * found[0].count:
            break
        one = _settled(
            view, z, w, complex(maps.factor[place]), complex(maps.offset[place]), radius, bounds, search
        )
        if one is None:
            continue
        if search.best is None or one.log10_chance < search.best.log10_chance:
            search.best = one
        if one.log10_chance <= LOG10_CHANCE:
            found.append(one)
    if not found:
        return None
    best = min(found, key=lambda one: one.log10_chance)
    for other in found:
        away = np.abs(other.apply(z) - best.apply(z))
        if float(np.median(away)) > 3 * radius and other.count >= RIVAL * best.count:
            raise NoSolution(
                f"two places explain the sources: {best.count} and {other.count} of them",
                hint="a position that is known better, or a catalogue without repeated rows",
            )
    return best


def _distinct(maps: Maps, counts: npt.NDArray[np.int64], half: float, radius: float) -> list[int]:
    """Places of the maps with most stars, of maps that are almost one only one."""
    chosen: list[int] = []
    for place in np.argsort(-counts, kind="stable")[: 40 * MOST_CANDIDATES].tolist():
        if counts[place] < LEAST_STARS or len(chosen) == MOST_CANDIDATES:
            break
        far = (
            abs(maps.factor[place] - maps.factor[one]) * half + abs(maps.offset[place] - maps.offset[one])
            for one in chosen
        )
        if all(one > radius for one in far):
            chosen.append(place)
    return chosen


def _settled(
    view: Field,
    z: Points,
    w: Points,
    factor: complex,
    offset: complex,
    radius: float,
    bounds: Bounds,
    search: Search,
) -> Found | None:
    """A suggested map refined by what it brings together, and how likely chance does as well."""
    current = (factor, 0j, offset)
    least = 1.2 * view.scale
    everywhere, w = w, w[np.abs(w - offset) <= 1.5 * abs(factor) * float(np.abs(z).max()) + 20 * radius]
    for _ in range(8):
        a, b, c = current
        i, j = matched(a * z + b * z.conj() + c, w, radius)
        if len(i) < LEAST_STARS:
            return None
        made = _linear(z[i], w[j], shear=len(i) >= 8)
        if made is None:
            return None
        a, b, c = made
        away = np.abs(a * z[i] + b * z[i].conj() + c - w[j])
        # 3.5 sigma of an axis, from the median of distances.
        tight = 3.5 * float(np.median(away)) / 1.177
        smaller = min(radius, max(tight, least))
        settled = current != (factor, 0j, offset) and smaller > 0.97 * radius
        current, radius = made, smaller
        if settled:
            break
    a, b, c = current
    if not bounds.allow(Maps(np.array([a]), np.array([c])))[0] or abs(b) > MOST_SHEAR * abs(a):
        return None
    return _judged(view, z, w, everywhere, current, radius, search)


def _judged(
    view: Field,
    z: Points,
    w: Points,
    everywhere: Points,
    current: tuple[complex, complex, complex],
    radius: float,
    search: Search,
) -> Found | None:
    """w: stars near the image, of all that there are everywhere."""
    a, b, c = current
    placed = a * z + b * z.conj() + c
    # What lies outside the catalogue says nothing.
    x, y = everywhere.real, everywhere.imag
    inside = (placed.real >= x.min() - radius) & (placed.real <= x.max() + radius)
    inside &= (placed.imag >= y.min() - radius) & (placed.imag <= y.max() + radius)
    placed = placed[inside]
    i, _ = matched(placed, w, radius)
    expected = chance_matches(placed, w, radius, len(everywhere) / _box(everywhere))
    tries = math.log10(max(search.maps, 1)) + LOG10_CHOICES
    chance = log10_tail(len(i) - TAKEN, expected) + tries
    return Found(view, current, radius, len(i), len(placed), chance)


def _linear(z: Points, w: Points, shear: bool) -> tuple[complex, complex, complex] | None:
    """The least-squares w = a z + b conj(z) + c; b is 0 without shear."""
    middle, target = z.mean(), w.mean()
    p, q = z - middle, w - target
    square, cross = float((np.abs(p) ** 2).sum()), complex((p * p).sum())
    one, two = complex((p.conj() * q).sum()), complex((p * q).sum())
    if square <= 0:
        return None
    a, b = one / square, 0j
    if shear:
        determinant = square * square - abs(cross) ** 2
        if determinant < 1e-4 * square * square:
            return None
        a = (one * square - two * cross.conjugate()) / determinant
        b = (two * square - one * cross) / determinant
    return a, b, complex(target - a * middle - b * middle.conjugate())
