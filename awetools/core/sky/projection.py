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

from .polynomial import Doubles, Pair

Triple = tuple[Doubles, Doubles, Doubles]
ZENITHAL = ("TAN", "SIN", "STG", "ARC", "ZEA", "ZPN")
CODES = (*ZENITHAL, "CAR")
# Steps of the table from which Newton's method starts to undo ZPN.
ZPN_STEPS = 4096
ZPN_ITERATIONS = 5


@dataclass(frozen=True)
class Projection:
    """A projection by its code; the parameters are PV2_0, PV2_1, ... for ZPN and SIN, else there are none."""

    code: str = "TAN"
    parameters: tuple[float, ...] = ()

    @property
    def zenithal(self) -> bool:
        """Whether the reference point is the pole of the projection, with one radius a distance."""
        return self.code in ZENITHAL

    @property
    def scale(self) -> float:
        """Angle on the sky for a unit of the plane, at the reference point."""
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
        return _TO_PLANE[self.code](a, b, c)

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
    north = np.where(np.abs(y) <= np.pi / 2 + 1e-12, y, np.nan)
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
