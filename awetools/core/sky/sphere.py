"""Directions on the celestial sphere: vectors, separations, the tangent plane, proper motion."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .polynomial import Doubles, Numbers, Pair, in_blocks

ARCSEC_PER_DEG = 3600.0
MAS_TO_RAD = np.radians(1 / 3.6e6)
# An astronomical unit a Julian year, in km/s.
AU_YR_KM_S = 149597870.7 / (365.25 * 86400)
LEAST_PARALLAX_MAS = 1e-6


def unit_vectors(ra_deg: Numbers, dec_deg: Numbers) -> Doubles:
    """Unit vectors (..., 3) of positions in degrees: towards (0, 0), (90, 0) and the pole."""
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    across = np.cos(dec)
    return np.stack(np.broadcast_arrays(across * np.cos(ra), across * np.sin(ra), np.sin(dec)), axis=-1)


def angles(x: Doubles, y: Doubles, z: Doubles) -> Pair:
    """RA from 0 to 360 and Dec in degrees of vectors of any length, exact at the poles."""
    ra = np.degrees(np.arctan2(y, x))
    ra = np.where(ra < 0, ra + 360, ra)
    # What lies less below 0 than numbers can tell from 360.
    ra = np.where(ra >= 360, 0.0, ra)
    return ra, np.degrees(np.arctan2(z, np.sqrt(x * x + y * y)))


def local_axes(ra_deg: Numbers, dec_deg: Numbers) -> tuple[Doubles, Doubles, Doubles]:
    """Unit vectors (..., 3) to the east, to the north and outwards at positions in degrees."""
    ra, dec = np.broadcast_arrays(np.radians(ra_deg), np.radians(dec_deg))
    sin_ra, cos_ra, sin_dec, cos_dec = np.sin(ra), np.cos(ra), np.sin(dec), np.cos(dec)
    east = np.stack([-sin_ra, cos_ra, np.zeros_like(ra)], axis=-1)
    north = np.stack([-sin_dec * cos_ra, -sin_dec * sin_ra, cos_dec], axis=-1)
    return east, north, np.stack([cos_dec * cos_ra, cos_dec * sin_ra, sin_dec], axis=-1)


def separation_arcsec(ra1_deg: Numbers, dec1_deg: Numbers, ra2_deg: Numbers, dec2_deg: Numbers) -> Doubles:
    """The angle between positions in degrees, right for the smallest and the largest."""
    ra1, dec1, ra2, dec2 = (np.radians(one) for one in (ra1_deg, dec1_deg, ra2_deg, dec2_deg))
    across, by = np.cos(dec1) * np.cos(dec2), 0.5 * (ra2 - ra1)
    # Haversines of the angle and of that to the opposite point: sums of squares, exact where either is small.
    near = np.sin(0.5 * (dec2 - dec1)) ** 2 + across * np.sin(by) ** 2
    far = np.sin(0.5 * (dec2 + dec1)) ** 2 + across * np.cos(by) ** 2
    angle = 2 * np.arctan2(np.sqrt(near), np.sqrt(far))
    return np.asarray(np.degrees(angle) * ARCSEC_PER_DEG, np.float64)


def position_angle(ra1_deg: Numbers, dec1_deg: Numbers, ra2_deg: Numbers, dec2_deg: Numbers) -> Doubles:
    """The direction from the first to the second position, degrees from north through east, 0 to 360."""
    dec1, dec2 = np.radians(dec1_deg), np.radians(dec2_deg)
    by = np.radians(np.subtract(ra2_deg, ra1_deg))
    # sin(dec2 - dec1) and a half angle instead of a difference of products: exact for what is close.
    north = np.sin(dec2 - dec1) + 2 * np.sin(dec1) * np.cos(dec2) * np.sin(0.5 * by) ** 2
    return np.asarray(np.degrees(np.arctan2(np.cos(dec2) * np.sin(by), north)) % 360, np.float64)


def to_tangent(ra_deg: Numbers, dec_deg: Numbers, ra0_deg: float, dec0_deg: float) -> Pair:
    """Tangent-plane (gnomonic) coordinates, degrees to the east and to the north of a tangent point.

    nan for what is 90 degrees or more away. Exact at the poles and across RA 0.
    """
    east, north, centre = local_axes(ra0_deg, dec0_deg)

    def project(ra: Doubles, dec: Doubles) -> Pair:
        x, y, z = components(ra, dec)
        depth = centre[0] * x + centre[1] * y + centre[2] * z
        factor = np.degrees(1 / np.where(depth > 0, depth, np.nan))
        return (east[0] * x + east[1] * y) * factor, (north[0] * x + north[1] * y + north[2] * z) * factor

    return in_blocks(project, ra_deg, dec_deg)


def from_tangent(xi_deg: Numbers, eta_deg: Numbers, ra0_deg: float, dec0_deg: float) -> Pair:
    """RA and Dec in degrees of tangent-plane coordinates in degrees; the inverse of `to_tangent`."""
    frame = np.stack(local_axes(ra0_deg, dec0_deg))

    def deproject(xi: Doubles, eta: Doubles) -> Pair:
        return angles(*combined(np.radians(xi), np.radians(eta), np.ones_like(xi), frame))

    return in_blocks(deproject, xi_deg, eta_deg)


def components(ra_deg: Doubles, dec_deg: Doubles) -> tuple[Doubles, Doubles, Doubles]:
    """The three components of unit vectors, each an array of its own."""
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    across = np.cos(dec)
    return across * np.cos(ra), across * np.sin(ra), np.sin(dec)


def combined(a: Doubles, b: Doubles, c: Doubles, frame: Doubles) -> tuple[Doubles, Doubles, Doubles]:
    """a, b and c times the three rows of a frame (3, 3), as components."""
    made = [a * frame[0, i] + b * frame[1, i] + c * frame[2, i] for i in range(3)]
    return made[0], made[1], made[2]


def along(x: Doubles, y: Doubles, z: Doubles, frame: Doubles) -> tuple[Doubles, Doubles, Doubles]:
    """The components of vectors along the three rows of a frame (3, 3)."""
    made = [x * frame[i, 0] + y * frame[i, 1] + z * frame[i, 2] for i in range(3)]
    return made[0], made[1], made[2]


def at_epoch(
    ra_deg: Numbers,
    dec_deg: Numbers,
    pm_ra_mas_yr: Numbers,
    pm_dec_mas_yr: Numbers,
    years: Numbers,
    parallax_mas: Numbers | None = None,
    radial_velocity_km_s: Numbers | None = None,
) -> Pair:
    """Positions after some Julian years of straight motion through space, RA and Dec in degrees.

    pm_ra_mas_yr holds the factor cos(dec), as catalogues give it. An unknown (nan) motion
    counts as none; the radial velocity only counts where the parallax is known and
    positive. The parallax does not shift the positions. Source: the standard model of
    stellar motion (The Hipparcos and Tycho Catalogues, ESA SP-1200, vol. 1, 1.5.5).
    """
    pm_ra, pm_dec, years = (
        np.nan_to_num(np.asarray(one, np.float64)) for one in (pm_ra_mas_yr, pm_dec_mas_yr, years)
    )
    radial = _radial_rate(parallax_mas, radial_velocity_km_s)
    east, north, outwards = local_axes(ra_deg, dec_deg)
    moved = (
        outwards * (1 + np.asarray(radial * years))[..., None]
        + east * np.asarray(pm_ra * years * MAS_TO_RAD)[..., None]
        + north * np.asarray(pm_dec * years * MAS_TO_RAD)[..., None]
    )
    return angles(moved[..., 0], moved[..., 1], moved[..., 2])


def _radial_rate(
    parallax_mas: Numbers | None, radial_velocity_km_s: Numbers | None
) -> npt.NDArray[np.float64]:
    """How fast the distance grows, in parts of it a year."""
    if parallax_mas is None or radial_velocity_km_s is None:
        return np.zeros(())
    parallax = np.nan_to_num(np.asarray(parallax_mas, np.float64))
    velocity = np.nan_to_num(np.asarray(radial_velocity_km_s, np.float64))
    rate = velocity / AU_YR_KM_S * parallax * MAS_TO_RAD
    return np.asarray(np.where(parallax > LEAST_PARALLAX_MAS, rate, 0.0), np.float64)


def sidereal_deg(epoch_yr: float) -> float:
    """Mean sidereal time at Greenwich, degrees, at a Julian year (UTC taken for UT1); Meeus 1998, chapter 12."""
    days = (epoch_yr - 2000.0) * 365.25
    return (280.46061837 + 360.98564736629 * days) % 360.0
