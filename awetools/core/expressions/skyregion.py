"""Regions of the sky: cones and polygons whose edges are great circles, exact on the sphere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from ..errors import UsageError

SHAPES = ("cone", "polygon")
# A polygon is seen from its middle, in a projection that ends 90 deg from there.
_LEAST_COSINE = 0.01
# What lies on an edge is inside, as far as numbers can tell.
_ON_EDGE = 1e-12
MAX_CORNERS = 1000

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Region:
    """A cone (ra, dec, radius) or a polygon (ra and dec of each corner), all in degrees."""

    shape: str
    numbers: tuple[float, ...]

    @staticmethod
    def of(shape: str, numbers: Sequence[float]) -> Region:
        """The region of a shape; raises UsageError, saying what is wrong with the numbers."""
        if not all(math.isfinite(one) for one in numbers):
            raise UsageError(f"{shape}(): its numbers must be finite")
        if shape == "cone":
            _check_cone(numbers)
        else:
            _check_corners(numbers)
        region = Region(shape, tuple(float(one) for one in numbers))
        if shape == "polygon":
            region._check_polygon()
        return region

    def holds(self, ra_deg: float, dec_deg: float) -> bool:
        """Whether a position is in the region, its edge included."""
        if self.shape == "cone":
            ra, dec, radius = self.numbers
            return _separation(vector(ra, dec), vector(ra_deg, dec_deg)) <= math.radians(radius) + _ON_EDGE
        return self._in_polygon(vector(ra_deg, dec_deg))

    @cached_property
    def cap(self) -> tuple[float, float, float]:
        """A cone that holds the region: ra, dec and radius, deg.

        A cap of less than 90 deg holds the great circles between its points.
        """
        if self.shape == "cone":
            ra, dec, radius = self.numbers
            return ra % 360, dec, radius
        radius = max(_separation(self._middle, one) for one in self._corners)
        x, y, z = self._middle
        dec = math.degrees(math.atan2(z, math.hypot(x, y)))
        return math.degrees(math.atan2(y, x)) % 360, dec, math.degrees(radius)

    def box(self) -> tuple[float, float, list[tuple[float, float]]]:
        """The least and greatest dec, and the ranges of ra (within 0 to 360) that hold the region, deg."""
        ra, dec, radius = self.cap
        # Wider than rounding.
        radius += 1e-7
        low, high = max(dec - radius, -90.0), min(dec + radius, 90.0)
        if dec - radius <= -90 or dec + radius >= 90:
            return low, high, [(0.0, 360.0)]
        half = math.degrees(math.asin(min(1.0, math.sin(math.radians(radius)) / math.cos(math.radians(dec)))))
        half += 1e-7
        if ra - half < 0:
            return low, high, [(0.0, ra + half), (ra - half + 360, 360.0)]
        if ra + half >= 360:
            return low, high, [(ra - half, 360.0), (0.0, ra + half - 360)]
        return low, high, [(ra - half, ra + half)]

    @cached_property
    def _corners(self) -> list[Vector]:
        return [vector(ra, dec) for ra, dec in zip(self.numbers[::2], self.numbers[1::2], strict=True)]

    @cached_property
    def _middle(self) -> Vector:
        x, y, z = (sum(values) for values in zip(*self._corners, strict=True))
        size = math.sqrt(x * x + y * y + z * z)
        return (x / size, y / size, z / size) if size > 1e-9 else (0.0, 0.0, 0.0)

    @cached_property
    def _axes(self) -> tuple[Vector, Vector]:
        """Two directions across the middle."""
        x, y, z = self._middle
        across = (-y, x, 0.0) if math.hypot(x, y) > 0.1 else (0.0, -z, y)
        size = math.sqrt(_dot(across, across))
        one = (across[0] / size, across[1] / size, across[2] / size)
        return one, _cross(self._middle, one)

    @cached_property
    def _plane(self) -> list[tuple[float, float]]:
        """The corners in the gnomonic projection, in which great circles are straight."""
        return [self._projected(one) for one in self._corners]

    def _projected(self, point: Vector) -> tuple[float, float]:
        away = _dot(point, self._middle)
        return _dot(point, self._axes[0]) / away, _dot(point, self._axes[1]) / away

    def _check_polygon(self) -> None:
        if any(_dot(one, self._middle) < _LEAST_COSINE for one in self._corners):
            raise UsageError("polygon(): its corners must lie within half of the sky")
        plane = self._plane
        area = sum(x * v - u * y for (x, y), (u, v) in zip(plane, plane[1:] + plane[:1], strict=True))
        if abs(area) < 1e-18:
            raise UsageError("polygon(): its corners lie on one line")

    def _in_polygon(self, point: Vector) -> bool:
        if _dot(point, self._middle) < _LEAST_COSINE / 10:
            return False
        x, y = self._projected(point)
        inside = False
        plane = self._plane
        for (x1, y1), (x2, y2) in zip(plane, plane[1:] + plane[:1], strict=True):
            if _on_edge(x, y, x1, y1, x2, y2):
                return True
            if (y1 > y) != (y2 > y) and x < x1 + (y - y1) / (y2 - y1) * (x2 - x1):
                inside = not inside
        return inside


def holds_text(text: str, ra_deg: object, dec_deg: object) -> int | None:
    """Whether a position is in the region that `as_text` wrote: 1, 0, or None without a position; for SQL."""
    if not isinstance(ra_deg, int | float) or not isinstance(dec_deg, int | float):
        return None
    return int(_from_text(text).holds(ra_deg, dec_deg))


def as_text(region: Region) -> str:
    """A region as one text."""
    return " ".join([region.shape, *map(repr, region.numbers)])


@lru_cache(maxsize=16)
def _from_text(text: str) -> Region:
    shape, *numbers = text.split()
    return Region(shape, tuple(map(float, numbers)))


def vector(ra_deg: float, dec_deg: float) -> Vector:
    """The unit vector of a position."""
    ra, dec = math.radians(ra_deg), math.radians(dec_deg)
    return math.cos(dec) * math.cos(ra), math.cos(dec) * math.sin(ra), math.sin(dec)


def _check_cone(numbers: Sequence[float]) -> None:
    if len(numbers) != 3:
        raise UsageError(f"cone() has 3 numbers, ra, dec and radius in degrees, not {len(numbers)}")
    _check_position("cone", *numbers[:2])
    if not 0 <= numbers[2] <= 180:
        raise UsageError(f"cone(): the radius must be from 0 to 180 degrees, not {numbers[2]:g}")


def _check_corners(numbers: Sequence[float]) -> None:
    if len(numbers) < 6 or len(numbers) % 2:
        raise UsageError(f"polygon() has ra and dec of three or more corners, not {len(numbers)} numbers")
    if len(numbers) > 2 * MAX_CORNERS:
        raise UsageError(f"polygon() has at most {MAX_CORNERS} corners, not {len(numbers) // 2}")
    for ra, dec in zip(numbers[::2], numbers[1::2], strict=True):
        _check_position("polygon", ra, dec)


def _check_position(shape: str, ra: float, dec: float) -> None:
    if not -360 <= ra <= 360:
        raise UsageError(f"{shape}(): ra must be from -360 to 360 degrees, not {ra:g}")
    if not -90 <= dec <= 90:
        raise UsageError(f"{shape}(): dec must be from -90 to 90 degrees, not {dec:g}")


def _dot(one: Vector, two: Vector) -> float:
    return one[0] * two[0] + one[1] * two[1] + one[2] * two[2]


def _cross(one: Vector, two: Vector) -> Vector:
    return (
        one[1] * two[2] - one[2] * two[1],
        one[2] * two[0] - one[0] * two[2],
        one[0] * two[1] - one[1] * two[0],
    )


def _separation(one: Vector, two: Vector) -> float:
    """The angle between two directions in rad, right for small and for large ones."""
    across = _cross(one, two)
    return math.atan2(math.sqrt(_dot(across, across)), _dot(one, two))


def _on_edge(x: float, y: float, x1: float, y1: float, x2: float, y2: float) -> bool:
    along_x, along_y = x2 - x1, y2 - y1
    length = math.hypot(along_x, along_y)
    if length == 0:
        return False
    off = abs((x - x1) * along_y - (y - y1) * along_x) / length
    along = ((x - x1) * along_x + (y - y1) * along_y) / length
    return off <= _ON_EDGE and -_ON_EDGE <= along <= length + _ON_EDGE
