"""Grids of the sky to put images on: as values and as text, around frames, in tiles of a survey."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from ..errors import BadHeader, BadValue, EmptyInput, Mixture, NoSolution
from .outlines import POINTS, bulge, parts_of, points
from .polynomial import Doubles, Pair
from .projection import Projection
from .projections import EQUATOR, PARALLEL, PROJECTIONS, STANDARD, read_word
from .readwcs import read_wcs
from .sphere import ARCSEC_PER_DEG, angles, separation_arcsec, to_tangent
from .wcs import Wcs
from .writewcs import wcs_as_cards

Span = tuple[int, int]
Window = tuple[Span, Span]
Shape = tuple[int, int]

NOWHERE: Window = ((0, 0), (0, 0))
ROUNDING_PX = 1e-6
# Points each way over an image of which only a part is on the sky.
FINE = 600
# Points each way that tell whether pixels are the same; they are if they are so near.
WITHIN, SAME_PX = 5, 1e-3
# Pixels an axis beyond which a grid is taken for a mistake.
LARGEST = 1 << 20


@dataclass(frozen=True)
class Grid:
    """Pixels of the sky: a coordinate system and (rows, columns)."""

    wcs: Wcs
    shape: Shape

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or max(self.shape) > LARGEST:
            raise BadValue(f"a grid of {self.shape[1]} x {self.shape[0]} pixels")

    def cards(self) -> dict[str, Any]:
        """Header cards, NAXIS1 and NAXIS2 among them; `grid_of_cards` is the inverse."""
        ny, nx = self.shape
        return {"NAXIS1": nx, "NAXIS2": ny, **wcs_as_cards(self.wcs, shape=self.shape)}

    def text(self) -> str:
        """One line: the cards as JSON, the same for the same grid; `grid_of_text` is the inverse."""
        return json.dumps(self.cards(), separators=(",", ":"))

    def part(self, window: Window) -> Grid:
        """These rows and columns of it, as a grid."""
        (y0, y1), (x0, x1) = window
        crpix = self.wcs.crpix[0] - x0, self.wcs.crpix[1] - y0
        return Grid(replace(self.wcs, crpix=crpix), (y1 - y0, x1 - x0))

    @cached_property
    def centre_deg(self) -> tuple[float, float]:
        """RA and Dec of its middle."""
        ra, dec = self.wcs.to_sky((self.shape[1] + 1) / 2, (self.shape[0] + 1) / 2)
        return float(ra), float(dec)


def grid_of_cards(cards: Mapping[str, Any]) -> Grid:
    """The grid that header cards describe. Raises BadHeader for what is missing or makes no sense."""
    shape = []
    for key in ("NAXIS2", "NAXIS1"):
        length = cards.get(key)
        if isinstance(length, bool) or not isinstance(length, int) or length < 1:
            raise BadHeader(f"{key} = {length!r}: a grid has so many pixels")
        shape.append(length)
    return Grid(read_wcs(cards), (shape[0], shape[1]))


def grid_of_text(text: str) -> Grid:
    """The grid that `Grid.text` wrote. Raises BadHeader."""
    try:
        cards = json.loads(text)
    except ValueError as error:
        raise BadHeader(f"a grid is one JSON object of header cards: {error}") from error
    if not isinstance(cards, dict):
        raise BadHeader(f"a grid is one JSON object of header cards, not {text[:40]!r}")
    return grid_of_cards(cards)


# Where frames are on a grid


def window_of(grid: Grid, wcs: Wcs, shape: Shape) -> Window:
    """Rows and columns of a grid outside of which no pixel of an image is; NOWHERE if there are none.

    From points along its borders and within it, with what it may bulge between them. Where
    a part of the image is not on the projection of the grid: all of the grid. On a map of all of the sky
    what is on both sides of its edge is in the window with all between.
    """
    if not grid.wcs.projection.smooth:
        return _window_of_parts(grid, wcs, shape)
    x, y = points(shape)
    ra, dec = wcs.to_sky(x, y)
    gx, gy = grid.wcs.to_pixel(ra, dec)
    known = np.isfinite(gx) & np.isfinite(gy)
    if not known.any():
        return NOWHERE
    whole: Window = (0, grid.shape[0]), (0, grid.shape[1])
    if not known.all():
        return whole
    spans: list[Span] = []
    for found, length in ((gy, grid.shape[0]), (gx, grid.shape[1])):
        beyond = bulge(found) + 2
        begin, end = math.floor(found.min() - beyond), math.ceil(found.max() + beyond)
        spans.append((max(0, begin - 1), min(length, end)))
    if any(begin >= end for begin, end in spans):
        return NOWHERE
    return spans[0], spans[1]


def _window_of_parts(grid: Grid, wcs: Wcs, shape: Shape) -> Window:
    """As `window_of`, where the plane has edges that the image may cross."""
    parts = parts_of(grid.wcs, wcs, shape)
    if parts is None:
        return (0, grid.shape[0]), (0, grid.shape[1])
    windows = []
    for part in parts:
        spans = [
            (max(0, math.floor(least - 2) - 1), min(length, math.ceil(most + 2)))
            for (least, most), length in zip(part, grid.shape, strict=True)
        ]
        if all(begin < end for begin, end in spans):
            windows.append(spans)
    if not windows:
        return NOWHERE
    begins, ends = np.min(windows, axis=0)[:, 0], np.max(windows, axis=0)[:, 1]
    return (int(begins[0]), int(ends[0])), (int(begins[1]), int(ends[1]))


def whole_pixels(grid: Grid, wcs: Wcs, shape: Shape) -> tuple[int, int]:
    """Row and column of a grid (0-based, it may be beside it) at which the first pixel of an image is.

    All pixels of the image are pixels of the grid: whatever its header says, they are at the same places of
    the sky. Raises Mixture where they are not.
    """
    ny, nx = shape
    x, y = np.meshgrid(np.linspace(1, nx, WITHIN), np.linspace(1, ny, WITHIN))
    if replace(wcs, crpix=grid.wcs.crpix) == grid.wcs:
        # The same plane, also where the sky leads back to another part of it, or not exactly back.
        gx, gy = (one + at - own for one, at, own in zip((x, y), grid.wcs.crpix, wcs.crpix, strict=True))
    else:
        gx, gy = grid.wcs.to_pixel(*wcs.to_sky(x, y))
    away = np.stack([gy - y, gx - x])
    # On a map of all of the sky a corner may be no place.
    known = np.isfinite(away).all(axis=0)
    if not known.any():
        raise Mixture("it is not on the grid")
    away = away[:, known]
    mean = away.mean(axis=1)
    spread = np.abs(away - mean[:, None]).max()
    if not spread <= SAME_PX:
        raise Mixture(
            f"it is on another grid: its pixels are up to {spread:.2g} pixels from where those of the grid are"
        )
    offset = np.round(mean)
    off = np.abs(mean - offset).max()
    if off > SAME_PX:
        raise Mixture(f"it is not on whole pixels of the grid, but {off:.2g} of a pixel beside them")
    return int(offset[0]), int(offset[1])


def touching(windows: Sequence[Window], rows: Span) -> list[int]:
    """Numbers of the windows that have some of these rows."""
    return [
        number
        for number, ((begin, end), (left, right)) in enumerate(windows)
        if begin < rows[1] and end > rows[0] and left < right
    ]


# A grid around frames


def fit_grid(
    frames: Sequence[tuple[Wcs, Shape]],
    scale_arcsec: float | None = None,
    projection: str = "TAN",
    margin_px: int = 0,
) -> Grid:
    """The smallest grid, north up and east to the left, that holds all of the frames.

    ``frames``: coordinate systems and (rows, columns). ``scale_arcsec``: None for the median of
    the frames. ``projection``: a word as `projections.read_word` takes it. The reference point is near the
    middle; of cylinders and maps of all of the sky it is on the equator, of cones on the standard parallel,
    which is that of the middle where PV2_1 does not say it. RA 0 and the poles are no special places.
    EmptyInput without a frame, BadValue for numbers that make no sense, NoSolution where a projection cannot
    show the frames.
    """
    if not frames:
        raise EmptyInput("a grid around no frames")
    scale = (
        float(np.median([wcs.pixel_scale_arcsec for wcs, _ in frames]))
        if scale_arcsec is None
        else scale_arcsec
    )
    if not (math.isfinite(scale) and scale > 0 and margin_px >= 0):
        raise BadValue(f"a grid with a scale of {scale} arcsec and a margin of {margin_px} pixels")
    code, _ = read_word(projection, dict.fromkeys(PARALLEL, 45.0))
    partly = code not in ("TAN", "SIN", "STG", "ARC", "ZEA", "ZPN")
    places = [_sky_of(wcs, shape, partly) for wcs, shape in frames]
    ra, dec = (np.concatenate([one[axis] for one in places]) for axis in (0, 1))
    system = frames[0][0]
    centre = _middle(ra, dec, system if partly else None)
    # A parallel near the equator makes no cone; those who want one say which.
    fill = dict.fromkeys(PARALLEL, round(centre[1], 2)) if abs(centre[1]) >= 1 else {}
    how = Projection(*read_word(projection, fill))
    wcs = _north_up(centre, scale, how, system)
    for _ in range(2):
        x, y = wcs.to_pixel(ra, dec)
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise NoSolution(
                f"the {projection} projection around RA {wcs.crval_deg[0]:.4f} Dec {wcs.crval_deg[1]:.4f}"
                f" cannot show all of the {len(frames)} frames",
                hint=f"a grid for fewer frames, or another projection: {' '.join(PROJECTIONS)}",
            )
        if not how.smooth:
            break
        # Once more around the middle of what is shown.
        ra0, dec0 = wcs.to_sky(0.5 * (x.min() + x.max()), 0.5 * (y.min() + y.max()))
        wcs = _north_up((float(ra0), float(dec0)), scale, how, system)
    x, y = wcs.to_pixel(ra, dec)
    if not how.smooth:
        x, y = _with_edges(wcs, frames, x, y)
    # The first pixel begins half a pixel before its middle; what is within rounding needs no further one.
    reach = [math.floor(one.min() - 0.5 + ROUNDING_PX) - margin_px for one in (x, y)]
    lasts = [math.ceil(one.max() - 0.5 - ROUNDING_PX) + margin_px for one in (x, y)]
    nx, ny = (last - low for last, low in zip(lasts, reach, strict=True))
    return Grid(replace(wcs, crpix=(1.0 - reach[0], 1.0 - reach[1])), (ny, nx))


def _with_edges(wcs: Wcs, frames: Sequence[tuple[Wcs, Shape]], x: Doubles, y: Doubles) -> Pair:
    """With what frames have beyond the points that are known, up to the edges of the plane."""
    for one, shape in frames:
        cut = parts_of(wcs, one, shape) or []
        for down, along in cut if len(cut) > 1 else ():
            x, y = np.append(x, along), np.append(y, down)
    return x, y


def _sky_of(wcs: Wcs, shape: Shape, partly: bool = False) -> Pair:
    """Places of an image on the sky; of an image that is only partly there, those that are."""
    ra, dec = (one.reshape(-1) for one in wcs.to_sky(*points(shape)))
    known = np.isfinite(ra) & np.isfinite(dec)
    if partly and not known.all():
        # The outline of what is on the sky is within the image.
        ra, dec = (one.reshape(-1) for one in wcs.to_sky(*points(shape, FINE)))
        known = np.isfinite(ra) & np.isfinite(dec)
    if partly and known.any():
        return ra[known], dec[known]
    if not known.all():
        raise NoSolution(
            f"a frame of {shape[1]} x {shape[0]} pixels around RA {wcs.crval_deg[0]:.4f} Dec {wcs.crval_deg[1]:.4f}"
            " is not all on the sky: its coordinates have no place for a part of it",
            hint="a grid of all of the sky: --projection AIT",
        )
    return ra, dec


def _middle(ra: Doubles, dec: Doubles, otherwise: Wcs | None = None) -> tuple[float, float]:
    """The direction of the mean of positions; that of a system's reference point where they have none."""
    ra, dec = np.radians(ra), np.radians(dec)
    vector = [np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)]
    x, y, z = (np.asarray(one.mean()) for one in vector)
    if math.sqrt(float(x * x + y * y + z * z)) < 1e-3:
        if otherwise is not None:
            return otherwise.crval_deg
        raise NoSolution(
            "frames all over the sky do not fit one grid", hint="tiles of a survey, or --projection AIT"
        )
    found_ra, found_dec = angles(x, y, z)
    return float(found_ra), float(found_dec)


def _north_up(centre: tuple[float, float], scale_arcsec: float, projection: Projection, system: Wcs) -> Wcs:
    """Around a position rounded to 1e-6 degree, the reference pixel being (1, 1)."""
    ra, dec = round(centre[0], 6) % 360, round(centre[1], 6)
    native = PROJECTIONS[projection.code].native
    if native in (EQUATOR, STANDARD):
        dec = projection.native_dec_deg
    elif not projection.smooth:
        dec = 90.0 if dec >= 0 else -90.0
    step = scale_arcsec / ARCSEC_PER_DEG
    return Wcs(
        (ra, dec),
        (1.0, 1.0),
        (-step, 0.0, 0.0, step),
        projection=projection,
        lonpole_deg=180.0 if projection.zenithal else 0.0,
        radesys=system.radesys,
        equinox=system.equinox,
    )


# Tiles of a survey


@dataclass(frozen=True)
class Tiling:
    """Tiles of one size over the sky, in rings of declination from the south to the north pole.

    Each is a TAN grid, north up, of ``size_px`` pixels each way. Every place on the sky is in
    some tile at least ``overlap_px`` / 2 from its edges. Names are ``NAME-RING-TILE``, numbers
    from 0; they depend on these four values alone. BadValue for what makes no sense.
    """

    name: str
    scale_arcsec: float
    size_px: int
    overlap_px: int

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", self.name):
            raise BadValue(f"'{self.name}' cannot name tiles: letters, digits and _")
        if not (math.isfinite(self.scale_arcsec) and self.scale_arcsec > 0):
            raise BadValue(f"tiles with a scale of {self.scale_arcsec} arcsec")
        if not 0 <= self.overlap_px < self.size_px <= LARGEST:
            raise BadValue(f"tiles of {self.size_px} pixels that overlap by {self.overlap_px}")
        if self._reach > math.tan(math.radians(30)):
            raise BadValue(f"tiles of {self.size_px * self.scale_arcsec / 3600:.0f} degrees: 60 at most")

    @property
    def _reach(self) -> float:
        """Half of what a tile has for itself, on the tangent plane, in rad."""
        return 0.5 * (self.size_px - self.overlap_px) * math.radians(self.scale_arcsec / ARCSEC_PER_DEG)

    @cached_property
    def rings(self) -> int:
        """Steps of declination from pole to pole: some to spare, as circles of declination bend."""
        return math.ceil(90 * (1 + self._reach) / math.degrees(math.atan(self._reach)))

    def dec_deg(self, ring: int) -> float:
        """The declination of a ring, 0 to ``rings``."""
        return -90 + 180 * ring / self.rings

    def length(self, ring: int) -> int:
        """Tiles in a ring: so many that what each has for itself covers it."""
        return _length(self, ring)

    def count(self, ring: int) -> int:
        """As `length`, computed."""
        if ring in (0, self.rings):
            return 1
        dec, half = self.dec_deg(ring), 90 / self.rings
        reach = math.degrees(self._reach) * (1 + 1e-9)
        widest = math.cos(math.radians(max(0.0, abs(dec) - half)))
        count = max(1, math.ceil(180 * widest / math.degrees(math.atan(self._reach)) - 1e-9))
        while not self._fits(dec, half, 180 / count, reach):
            count += max(1, count // 200)
        return count

    @staticmethod
    def _fits(dec: float, half: float, half_ra: float, reach: float) -> bool:
        if half_ra > 60:
            return False
        ra, decs = np.meshgrid(np.linspace(0, half_ra, POINTS), dec + half * np.linspace(-1, 1, POINTS))
        xi, eta = to_tangent(ra, decs, 0.0, dec)
        return bool((np.abs(xi) <= reach).all() and (np.abs(eta) <= reach).all())

    def tile(self, ring: int, number: int) -> Grid:
        """The grid of a tile."""
        if not 0 <= ring <= self.rings or not 0 <= number < self.length(ring):
            raise BadValue(f"{self.name} has no tile {ring}-{number}")
        centre = 360 * number / self.length(ring), self.dec_deg(ring)
        step, middle = self.scale_arcsec / ARCSEC_PER_DEG, 0.5 * (self.size_px + 1)
        wcs = Wcs(centre, (middle, middle), (-step, 0.0, 0.0, step))
        return Grid(wcs, (self.size_px, self.size_px))

    def name_of(self, ring: int, number: int) -> str:
        """What a tile is called."""
        return f"{self.name}-{ring:0{len(str(self.rings))}d}-{number:0{len(str(4 * self.rings))}d}"

    def named(self, name: str) -> Grid:
        """The tile of a name. BadValue where there is none."""
        found = re.fullmatch(rf"{self.name}-(\d+)-(\d+)", name)
        if not found:
            raise BadValue(f"'{name}' is not a tile of {self.name}: {self.name_of(0, 0)} is one")
        return self.tile(int(found[1]), int(found[2]))

    def around(self, ra_deg: float, dec_deg: float, radius_deg: float) -> Iterator[tuple[str, Grid]]:
        """Names and grids of the tiles that have, for themselves, a part of a circle (or nearly)."""
        if not (abs(dec_deg) <= 90 and radius_deg >= 0 and math.isfinite(ra_deg)):
            raise BadValue(f"a circle of {radius_deg} degrees around RA {ra_deg} Dec {dec_deg}")
        half = 90 / self.rings
        # What a tile has for itself is within this distance from its middle.
        diagonal = math.degrees(math.atan(math.sqrt(2) * self._reach))
        for ring in range(self.rings + 1):
            dec = self.dec_deg(ring)
            if abs(dec - dec_deg) > radius_deg + half + 1e-9:
                continue
            count = self.length(ring)
            away = _separations(360 * np.arange(count) / count, dec, ra_deg, dec_deg)
            for number in np.flatnonzero(away <= radius_deg + diagonal):
                yield self.name_of(ring, int(number)), self.tile(ring, int(number))

    def of_frames(self, frames: Sequence[tuple[Wcs, Shape]]) -> dict[str, Grid]:
        """The tiles that hold a part of some frame, by name, in the order of the rings."""
        found: dict[str, Grid] = {}
        for wcs, shape in frames:
            ra, dec = _sky_of(wcs, shape)
            centre = _middle(ra, dec)
            radius = float(_separations(ra, dec, *centre).max()) + 1e-6
            margin = math.degrees(
                math.atan(self.size_px / max(1, self.size_px - self.overlap_px) * self._reach)
            )
            for name, grid in self.around(*centre, radius + margin):
                if name not in found and window_of(grid, wcs, shape) != NOWHERE:
                    found[name] = grid
        return dict(sorted(found.items()))


@lru_cache(maxsize=1 << 16)
def _length(tiling: Tiling, ring: int) -> int:
    return tiling.count(ring)


def _separations(ra_deg: Any, dec_deg: Any, ra0_deg: float, dec0_deg: float) -> Doubles:
    return separation_arcsec(ra_deg, dec_deg, ra0_deg, dec0_deg) / ARCSEC_PER_DEG
