"""Projections of the sphere onto a plane: directions to plane coordinates and back.

Directions are components along three axes: the plane's first and second axis at the
reference point, and outwards there. Source of all formulae: Calabretta and Greisen 2002,
A&A 395, 1077 (world coordinates, paper II), here without angles, so that poles are no
special places.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from .polynomial import Doubles, Pair
from .projections import OWN, POLE, PROJECTIONS, native_dec_deg, with_usual

Triple = tuple[Doubles, Doubles, Doubles]
Sheets = npt.NDArray[np.int8]
# Steps of the table from which Newton's method starts to undo ZPN.
ZPN_STEPS = 4096
ZPN_ITERATIONS = 5
CUBES = ("TSC", "CSC", "QSC")
# The half width of a plate carree, with what rounding adds.
HALF_TURN = np.pi * (1 + 1e-12)
SCALE_STEP = 1e-3
# Where the faces of a cube begin: the first one is around 0.
CUBE_LEFT = np.pi / 4 * (1 + 1e-9)


@dataclass(frozen=True)
class Projection:
    """A projection by its code, and its parameters PV2_0, PV2_1, ..., as `projections.parameters_of` gives them.

    Raises BadHeader for parameters that make no projection.
    """

    code: str = "TAN"
    parameters: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.code not in OWN:
            from .wcslib import checked

            checked(self.code, self.parameters)

    @property
    def zenithal(self) -> bool:
        """Whether the reference point is the pole of the projection."""
        return PROJECTIONS[self.code].native == POLE

    @property
    def native_dec_deg(self) -> float:
        """The native latitude of the reference point."""
        return native_dec_deg(self.code, self.parameters)

    @property
    def smooth(self) -> bool:
        """Whether what it shows of the sky is in one piece, without edges beyond which it goes on elsewhere."""
        return self.zenithal and self.code != "XPH"

    @cached_property
    def scale(self) -> float:
        """Angle on the sky for a unit of the plane, at the reference point: the root of the areas."""
        if self.code not in OWN:
            return _scale(self)
        if self.code != "ZPN" or len(self.parameters) < 2 or self.parameters[1] == 0:
            return 1.0
        return 1 / self.parameters[1]

    def from_plane(self, x: Doubles, y: Doubles) -> Triple:
        """Directions (of any length) of plane coordinates in rad; nan outside the projection."""
        if self.code == "SIN" and any(self.parameters):
            return _slant_from_plane(x, y, *self.slant)
        if self.code == "ZPN":
            zeta = self._zeta(np.sqrt(x * x + y * y))
            return _from_zeta(x, y, zeta)
        if self.code not in OWN:
            return self._from_native(x, y)
        return _FROM_PLANE[self.code](x, y)

    def to_plane(self, a: Doubles, b: Doubles, c: Doubles) -> Pair:
        """Plane coordinates in rad of unit directions; nan for what the projection does not show."""
        if self.code == "SIN" and any(self.parameters):
            along, across = self.slant
            seen = np.where(c + along * a + across * b >= 0, 1.0, np.nan)
            return (a + along * (1 - c)) * seen, (b + across * (1 - c)) * seen
        if self.code == "ZPN":
            sine = np.sqrt(a * a + b * b)
            zeta = np.arctan2(sine, c)
            radius = np.where(zeta <= self._reach, np.polyval(self.parameters[::-1], zeta), np.nan)
            factor = radius / np.where(sine > 0, sine, np.nan)
            factor = np.where(sine > 0, factor, np.nan if self._offset else 1 / self.scale)
            return a * factor, b * factor
        if self.code not in OWN:
            from .wcslib import plane_of_native

            return plane_of_native(self.code, self.parameters, *self._native(a, b, c))
        return _TO_PLANE[self.code](a, b, c)

    def _from_native(self, x: Doubles, y: Doubles) -> Triple:
        from .wcslib import native_of_plane

        longitude, latitude = native_of_plane(self.code, self.parameters, x, y)
        if self.code in CUBES:
            # Three faces may be drawn on either side of the first; to be in one place, all are on its right.
            longitude = np.where(x >= -CUBE_LEFT, longitude, np.nan)
        across, up = np.cos(latitude), np.sin(latitude)
        first, second = across * np.cos(longitude), across * np.sin(longitude)
        sine, cosine = _turn(self.native_dec_deg)
        return second, cosine * up - sine * first, cosine * first + sine * up

    def _native(self, a: Doubles, b: Doubles, c: Doubles) -> Pair:
        """Native longitude and latitude of directions, rad."""
        sine, cosine = _turn(self.native_dec_deg)
        first, up = cosine * c - sine * b, cosine * b + sine * c
        return np.arctan2(a, first), np.arctan2(up, np.sqrt(a * a + first * first))

    def sheets(self, a: Doubles, b: Doubles, c: Doubles) -> Sheets:
        """Numbers of the parts of the sky that directions are in: where two numbers that differ by more than 1
        are close together, the plane has an edge between them, or may have one."""
        if self.smooth:
            return np.zeros(np.shape(a), np.int8)
        longitude, latitude = self._native(a, b, c)
        # What is beside the meridian opposite to the middle.
        seam = np.where(np.abs(longitude) > np.pi / 2, np.sign(longitude), 0.0)
        if self.code in CUBES:
            made = _faces(longitude, latitude, self.code == "QSC")
        elif self.code in ("HPX", "XPH"):
            made = _gores(self, longitude, latitude, seam)
        else:
            made = seam
        return np.where(np.isfinite(made), made, 0.0).astype(np.int8)

    @property
    def slant(self) -> tuple[float, float]:
        """The two parameters of an oblique SIN (of interferometers)."""
        given = (*self.parameters, 0.0, 0.0, 0.0)
        return given[1], given[2]

    @property
    def _offset(self) -> bool:
        return bool(self.parameters and self.parameters[0])

    @cached_property
    def _reach(self) -> float:
        """The distance from the pole up to which the radius of ZPN grows, rad."""
        zeta, slope = self._table
        falling = np.flatnonzero(slope <= 0)
        falling = falling[falling > 0]
        if not len(falling):
            return float(np.pi)
        last = int(falling[0])
        # The zero of the slope, on a straight line between two steps.
        rise, fall = slope[last - 1], slope[last]
        return float(zeta[last - 1] + (zeta[last] - zeta[last - 1]) * rise / (rise - fall))

    @cached_property
    def _table(self) -> Pair:
        zeta = np.linspace(0, np.pi, ZPN_STEPS)
        slope = np.polyval(np.polyder(np.poly1d(self.parameters[::-1])), zeta)
        return zeta, np.asarray(slope, np.float64)

    def _zeta(self, radius: Doubles) -> Doubles:
        """Distances from the pole of the radii of ZPN, rad; nan beyond its reach."""
        table = np.linspace(0, self._reach, ZPN_STEPS)
        terms = np.poly1d(self.parameters[::-1])
        values, slope = np.polyval(terms, table), np.polyder(terms)
        zeta = np.interp(radius, values, table, left=np.nan, right=np.nan)
        for _ in range(ZPN_ITERATIONS):
            steepness = np.polyval(slope, zeta)
            step = (np.polyval(terms, zeta) - radius) / np.where(steepness > 0, steepness, np.inf)
            zeta = np.clip(zeta - step, 0, self._reach)
        return zeta


def _turn(native_dec: float) -> tuple[float, float]:
    """Sine and cosine of a native latitude, exact at the pole and on the equator."""
    if native_dec in (0.0, 90.0):
        return native_dec / 90, 1 - native_dec / 90
    return float(np.sin(np.radians(native_dec))), float(np.cos(np.radians(native_dec)))


def _scale(of: Projection) -> float:
    """By differences of the fourth order around the reference point."""
    steps = SCALE_STEP * np.array([1.0, -1.0, 2.0, -2.0])
    slopes = []
    for x, y in ((steps, 0 * steps), (0 * steps, steps)):
        near = [
            (8 * (one[0] - one[1]) - (one[2] - one[3])) / (12 * SCALE_STEP) for one in of.from_plane(x, y)
        ]
        slopes.append(near)
    (ax, bx, _), (ay, by, _) = slopes
    found = float(np.sqrt(abs(ax * by - ay * bx)))
    return 1.0 if abs(found - 1) < 1e-9 or not np.isfinite(found) else found


def _faces(longitude: Doubles, latitude: Doubles, quarters: bool) -> Doubles:
    """Numbers of the faces of a cube, by the largest component; of their quarters, which have kinks between them."""
    across = np.cos(latitude)
    vectors = np.stack([across * np.cos(longitude), across * np.sin(longitude), np.sin(latitude)])
    vectors = np.where(np.isfinite(vectors), vectors, 0.0)
    order = np.argsort(np.abs(vectors), axis=0)
    numbers = np.where(np.take_along_axis(vectors, order, 0) < 0, order + 3, order)
    return np.asarray(2.0 * (6 * numbers[2] + numbers[1] if quarters else numbers[2]), np.float64)


def _gores(of: Projection, longitude: Doubles, latitude: Doubles, seam: Doubles) -> Doubles:
    """Numbers of the gores of HEALPix around either pole, and of the belt between them."""
    # XPH has what HPX has by default.
    count, rows = with_usual("HPX", of.parameters if of.code == "HPX" else ()).values()
    gore = np.clip(np.floor((longitude + np.pi) / (2 * np.pi) * count), 0, 20)
    polar = np.abs(np.sin(latitude)) > (rows - 1) / rows
    if of.code == "XPH":
        return np.asarray(2 * (gore + 5 * polar + 10 * (latitude < 0)), np.float64)
    return np.where(polar, 4 + 2 * gore + 44 * (latitude < 0), seam)


def _from_zeta(x: Doubles, y: Doubles, zeta: Doubles) -> Triple:
    radius = np.sqrt(x * x + y * y)
    factor = np.sin(zeta) / np.where(radius > 0, radius, 1.0)
    return x * factor, y * factor, np.cos(zeta)


def _tan_from_plane(x: Doubles, y: Doubles) -> Triple:
    return x, y, np.ones_like(x)


def _tan_to_plane(a: Doubles, b: Doubles, c: Doubles) -> Pair:
    factor = 1 / np.where(c > 0, c, np.nan)
    return a * factor, b * factor


def _sin_from_plane(x: Doubles, y: Doubles) -> Triple:
    rest = 1 - x * x - y * y
    return x, y, np.sqrt(np.where(rest >= 0, rest, np.nan))


def _sin_to_plane(a: Doubles, b: Doubles, c: Doubles) -> Pair:
    seen = np.where(c >= 0, 1.0, np.nan)
    return a * seen, b * seen


def _slant_from_plane(x: Doubles, y: Doubles, along: float, across: float) -> Triple:
    """The quadratic equation of paper II, section 5.1.5, for the sine of the native latitude."""
    square = 1 + along * along + across * across
    left, lower = x - along, y - across
    half = along * left + across * lower
    rest = half * half - square * (left * left + lower * lower - 1)
    sine = (np.sqrt(np.where(rest >= 0, rest, np.nan)) - half) / square
    return x - along * (1 - sine), y - across * (1 - sine), sine


def _stg_from_plane(x: Doubles, y: Doubles) -> Triple:
    return x, y, 1 - (x * x + y * y) / 4


def _stg_to_plane(a: Doubles, b: Doubles, c: Doubles) -> Pair:
    factor = 2 / np.where(c > -1, 1 + c, np.nan)
    return a * factor, b * factor


def _arc_from_plane(x: Doubles, y: Doubles) -> Triple:
    radius = np.sqrt(x * x + y * y)
    return _from_zeta(x, y, np.where(radius <= np.pi, radius, np.nan))


def _arc_to_plane(a: Doubles, b: Doubles, c: Doubles) -> Pair:
    sine = np.sqrt(a * a + b * b)
    factor = np.where(sine > 0, np.arctan2(sine, c) / np.where(sine > 0, sine, 1.0), 1.0)
    factor = np.where((sine == 0) & (c < 0), np.nan, factor)
    return a * factor, b * factor


def _zea_from_plane(x: Doubles, y: Doubles) -> Triple:
    square = x * x + y * y
    rest = 1 - square / 4
    factor = np.sqrt(np.where(rest >= 0, rest, np.nan))
    return x * factor, y * factor, 1 - square / 2


def _zea_to_plane(a: Doubles, b: Doubles, c: Doubles) -> Pair:
    factor = np.sqrt(2 / np.where(c > -1, 1 + c, np.nan))
    return a * factor, b * factor


def _car_from_plane(x: Doubles, y: Doubles) -> Triple:
    shown = (np.abs(y) <= np.pi / 2 + 1e-12) & (np.abs(x) <= HALF_TURN)
    north = np.where(shown, y, np.nan)
    return np.cos(north) * np.sin(x), np.sin(north), np.cos(north) * np.cos(x)


def _car_to_plane(a: Doubles, b: Doubles, c: Doubles) -> Pair:
    return np.arctan2(a, c), np.arctan2(b, np.sqrt(a * a + c * c))


_FROM_PLANE: dict[str, Callable[[Doubles, Doubles], Triple]] = {
    "TAN": _tan_from_plane,
    "SIN": _sin_from_plane,
    "STG": _stg_from_plane,
    "ARC": _arc_from_plane,
    "ZEA": _zea_from_plane,
    "CAR": _car_from_plane,
}
_TO_PLANE: dict[str, Callable[[Doubles, Doubles, Doubles], Pair]] = {
    "TAN": _tan_to_plane,
    "SIN": _sin_to_plane,
    "STG": _stg_to_plane,
    "ARC": _arc_to_plane,
    "ZEA": _zea_to_plane,
    "CAR": _car_to_plane,
}
