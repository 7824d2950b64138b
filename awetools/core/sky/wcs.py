"""World coordinates of an image: from pixels to the sky and back, one value for every convention."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..distortion import Matrix
from ..errors import BadHeader
from .polynomial import Distortion, Doubles, Numbers, Pair, in_blocks
from .projection import Projection, Sheets
from .sphere import ARCSEC_PER_DEG, along, angles, combined, components, local_axes

# How well the inverse of a distortion is found.
TOLERANCE_PX = 1e-9
# Pixels thinner than this have no width: what is left of the determinant is rounding.
LEAST_ASPECT = 1e-10
TAN = Projection()
_IDENTITY: Matrix = (1.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Wcs:
    """The coordinate system of an image, pixels 1-based as in FITS, sky in degrees.

    crval_deg: RA and Dec of the reference point; crpix: its pixel; matrix: degrees of the
    plane a pixel (first axis by x, by y; second by x, by y); distortion: before or behind
    the matrix; lonpole_deg and latpole_deg: paper II, section 2.4 (180 and 90 are usual).
    radesys and equinox say in which system RA and Dec are: they are carried, nothing is
    converted. Raises BadHeader for a matrix without an inverse, or poles that cannot be.
    """

    crval_deg: tuple[float, float]
    crpix: tuple[float, float]
    matrix: Matrix
    projection: Projection = TAN
    distortion: Distortion | None = None
    lonpole_deg: float = 180.0
    latpole_deg: float = 90.0
    radesys: str = "ICRS"
    equinox: float | None = None

    def __post_init__(self) -> None:
        numbers = (*self.crval_deg, *self.crpix, *self.matrix, self.lonpole_deg, self.latpole_deg)
        if not all(math.isfinite(one) for one in numbers):
            raise BadHeader("a coordinate system (WCS) with numbers that are not finite")
        if abs(self.crval_deg[1]) > 90:
            raise BadHeader(f"a coordinate system (WCS) at declination {self.crval_deg[1]:g}")
        if not abs(_determinant(self.matrix)) > LEAST_ASPECT * sum(one * one for one in self.matrix):
            raise BadHeader(f"the matrix of the coordinate system (WCS) has no inverse: {self.matrix}")
        _ = self._frame

    # Between pixels and the sky

    def to_sky(self, x: Numbers, y: Numbers) -> Pair:
        """RA (0 to 360) and Dec in degrees of pixels, arrays of any shape; nan outside the projection."""

        def outwards(px: Doubles, py: Doubles) -> Pair:
            return angles(*combined(*self._directions(px, py), self._frame))

        return in_blocks(outwards, x, y)

    def to_pixel(self, ra_deg: Numbers, dec_deg: Numbers) -> Pair:
        """Pixels, 1-based, of positions in degrees, to 1e-9 pixel; nan for what the system cannot show."""

        def inwards(ra: Doubles, dec: Doubles) -> Pair:
            directions = along(*components(ra, dec), self._frame)
            return self._from_plane(*self.projection.to_plane(*directions))

        return in_blocks(inwards, ra_deg, dec_deg)

    def sheets(self, ra_deg: Doubles, dec_deg: Doubles) -> Sheets:
        """The parts of a map of all of the sky that positions are in: see `Projection.sheets`."""
        return self.projection.sheets(*along(*components(ra_deg, dec_deg), self._frame))

    def to_plane(self, x: Numbers, y: Numbers) -> Pair:
        """Intermediate world coordinates of pixels in degrees: of the tangent plane, where it is one."""
        return in_blocks(self._to_plane_deg, x, y)

    def from_plane(self, xi_deg: Numbers, eta_deg: Numbers) -> Pair:
        """Pixels of intermediate world coordinates in degrees; the inverse of `to_plane`."""
        return in_blocks(lambda xi, eta: self._from_plane(np.radians(xi), np.radians(eta)), xi_deg, eta_deg)

    def vectors(self, x: Numbers, y: Numbers) -> Doubles:
        """Unit vectors (..., 3) of pixels."""
        px, py = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
        made = np.stack(combined(*self._directions(px, py), self._frame), axis=-1)
        return np.asarray(made / np.sqrt((made * made).sum(axis=-1, keepdims=True)), np.float64)

    def _to_plane_deg(self, x: Doubles, y: Doubles) -> Pair:
        u, v = x - self.crpix[0], y - self.crpix[1]
        if self.distortion is not None and self.distortion.before:
            u, v = self.distortion.apply(u, v)
        a, b, c, d = self.matrix
        u, v = a * u + b * v, c * u + d * v
        if self.distortion is not None and not self.distortion.before:
            u, v = self.distortion.apply(u, v)
        return u, v

    def _directions(self, x: Doubles, y: Doubles) -> tuple[Doubles, Doubles, Doubles]:
        xi, eta = self._to_plane_deg(x, y)
        return self.projection.from_plane(np.radians(xi), np.radians(eta))

    def _from_plane(self, xi: Doubles, eta: Doubles) -> Pair:
        """Pixels of plane coordinates in rad."""
        u, v = np.degrees(xi), np.degrees(eta)
        if self.distortion is not None and not self.distortion.before:
            u, v = self.distortion.undo(u, v, TOLERANCE_PX * math.sqrt(abs(_determinant(self.matrix))))
        a, b, c, d = self.matrix
        determinant = _determinant(self.matrix)
        u, v = (d * u - b * v) / determinant, (a * v - c * u) / determinant
        if self.distortion is not None and self.distortion.before:
            u, v = self.distortion.undo(u, v, TOLERANCE_PX)
        return u + self.crpix[0], v + self.crpix[1]

    @cached_property
    def _frame(self) -> Doubles:
        """The plane's axes and the direction outwards, at the reference point, as vectors (3, 3)."""
        east, north, centre = local_axes(*self.crval_deg)
        pole = math.radians(self.lonpole_deg)
        if self.projection.zenithal:
            sine, cosine = math.sin(pole), math.cos(pole)
            return np.stack([north * sine - east * cosine, -north * cosine - east * sine, centre])
        first, second = self._towards_pole()
        return np.stack([north * first + east * second, north * second - east * first, centre])

    def _towards_pole(self) -> tuple[float, float]:
        """The direction to the celestial pole at the reference point, along the plane's axes.

        Paper II, section 2.4, where the reference point is at longitude 0 of the native sphere, at some latitude.
        """
        sin_dec, cos_dec = _sine_cosine(self.crval_deg[1])
        sin_pole, cos_pole = _sine_cosine(self.lonpole_deg)
        sin_native, cos_native = _sine_cosine(self.projection.native_dec_deg)
        along = cos_native * cos_pole
        if cos_native == 0:
            return sin_pole, -cos_pole * sin_native
        if cos_dec == 0:
            # The pole itself: there is no direction to it, but one in which the meridian of its RA goes.
            if sin_dec * cos_pole <= 0 or sin_pole:
                raise self._no_pole()
            return 0.0, -sin_dec
        rest = (cos_dec - cos_native * sin_pole) * (cos_dec + cos_native * sin_pole)
        if rest < -1e-9:
            raise self._no_pole()
        if abs(along) < 1e-15 and sin_native == 0:
            # The standard leaves it to LATPOLE; what is taken is the pole next to it, as WCSLIB does.
            found = [math.pi / 2, -math.pi / 2]
        else:
            middle, away = math.atan2(sin_native, along), math.atan2(math.sqrt(max(0.0, rest)), sin_dec)
            turns = (_half_turn(middle + away), _half_turn(middle - away))
            found = [one for one in turns if abs(one) <= math.pi / 2 + 1e-9]
        if not found:
            raise self._no_pole()
        # Of two the one nearer to LATPOLE, the northern one if they are equally near.
        latpole = math.radians(self.latpole_deg)
        latitude = min(found, key=lambda one: (round(abs(one - latpole), 12), -one))
        first = math.cos(latitude) * sin_pole
        second = cos_native * math.sin(latitude) - sin_native * math.cos(latitude) * cos_pole
        size = math.hypot(first, second)
        return first / size, second / size

    def _no_pole(self) -> BadHeader:
        return BadHeader(
            f"no coordinate system has LONPOLE {self.lonpole_deg:g} at declination {self.crval_deg[1]:g}"
            f" in projection {self.projection.code}"
        )

    # What it is like

    @cached_property
    def linear(self) -> Matrix:
        """The matrix at the reference pixel, with the linear part of the distortion and the projection's scale."""
        distortion = _IDENTITY if self.distortion is None else self.distortion.linear
        before = self.distortion is not None and self.distortion.before
        a, b, c, d = product(self.matrix, distortion) if before else product(distortion, self.matrix)
        scale = self.projection.scale
        return a * scale, b * scale, c * scale, d * scale

    @property
    def pixel_scale_arcsec(self) -> float:
        """The root of a pixel's area at the reference pixel."""
        return math.sqrt(abs(_determinant(self.linear))) * ARCSEC_PER_DEG

    @property
    def parity(self) -> int:
        """-1 for the sky as it is seen (east is left where north is up), 1 for its mirror image."""
        return 1 if _determinant(self.linear) > 0 else -1

    @property
    def position_angle_deg(self) -> float:
        """The direction of +y at the reference pixel, from north through east, 0 to 360."""
        east, north, _ = local_axes(*self.crval_deg)
        direction = self.linear[1] * self._frame[0] + self.linear[3] * self._frame[1]
        return math.degrees(math.atan2(float(direction @ east), float(direction @ north))) % 360

    def jacobian(self, x: Numbers, y: Numbers) -> Doubles:
        """Degrees to the east and to the north a pixel, at pixels: (..., 2, 2), rows are east and north.

        Measured across each pixel, between the middles of its edges.
        """
        px, py = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
        ra, dec = self.to_sky(px, py)
        east, north, _ = local_axes(ra, dec)
        by = [self.vectors(px + 0.5, py) - self.vectors(px - 0.5, py)]
        by.append(self.vectors(px, py + 0.5) - self.vectors(px, py - 0.5))
        rows = [np.stack([(axis * one).sum(axis=-1) for one in by], axis=-1) for axis in (east, north)]
        return np.asarray(np.degrees(np.stack(rows, axis=-2)), np.float64)

    def pixel_area_arcsec2(self, x: Numbers, y: Numbers) -> Doubles:
        """The area of pixels on the sky."""
        made = self.jacobian(x, y)
        area = made[..., 0, 0] * made[..., 1, 1] - made[..., 0, 1] * made[..., 1, 0]
        return np.asarray(np.abs(area) * ARCSEC_PER_DEG**2, np.float64)


def _sine_cosine(angle_deg: float) -> tuple[float, float]:
    """Exact at multiples of a quarter of a turn."""
    quarters, rest = divmod(angle_deg, 90)
    if rest:
        return math.sin(math.radians(angle_deg)), math.cos(math.radians(angle_deg))
    return ((0.0, 1.0), (1.0, 0.0), (0.0, -1.0), (-1.0, 0.0))[int(quarters) % 4]


def _half_turn(angle: float) -> float:
    """The same angle between -pi and pi."""
    return math.remainder(angle, 2 * math.pi)


def _determinant(matrix: Matrix) -> float:
    return matrix[0] * matrix[3] - matrix[1] * matrix[2]


def product(one: Matrix, other: Matrix) -> Matrix:
    """Two matrices multiplied."""
    (a, b, c, d), (e, f, g, h) = one, other
    return a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h
