"""Noise-free light on a detector: stars, galaxies, night sky, lamps and satellite trails, in electrons.

Sources are made in Fourier space, where the point spread function, the profiles
and the pixel's own window have closed forms: fluxes and positions are exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from .camera import Detector
from .detector import mosaic_grid, scattered_map
from .plan import Conditions, Exposure, Trail, stream
from .sky import Tpv
from .spec import FILTERS, NightSpec

MOFFAT_BETA = 3.5
STAMP_SIDES = (24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
FAINTEST_E = 0.02
BATCH_PIXELS = 1 << 18
FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))

# Spergel (2010) profiles have the transform (1 + (k r0)^2)^-(1 + nu): nu = 0.5 is an
# exponential disc, nu = -0.6 close to a de Vaucouleurs bulge. Half-light radius / r0:
DISC_NU, DISC_HALF, BULGE_NU, BULGE_HALF = 0.5, 1.67834699, -0.6, 0.54771397


@dataclass(frozen=True)
class Psf:
    """A Moffat profile (beta = 3.5): full width at half maximum in pixels, and its two ellipticities."""

    fwhm_px: float
    ellipticity: tuple[float, float] = (0.0, 0.0)

    @property
    def alpha_px(self) -> float:
        """The scale of the profile."""
        return self.fwhm_px / (2 * math.sqrt(2 ** (1 / MOFFAT_BETA) - 1))


@dataclass(frozen=True)
class Sources:
    """What to draw: pixel positions (0-based), electrons, and the shapes of galaxies (half-light 0: a star).

    (major_x, major_y) is the unit vector of the major axis, in pixels.
    """

    x: np.ndarray
    y: np.ndarray
    flux_e: np.ndarray
    disc_px: np.ndarray
    bulge_px: np.ndarray
    bulge: np.ndarray
    axis_ratio: np.ndarray
    major_x: np.ndarray
    major_y: np.ndarray

    def take(self, index: np.ndarray) -> Sources:
        """Some of them."""
        return Sources(*(getattr(self, field.name)[index] for field in fields(self)))


def point_sources(x: np.ndarray, y: np.ndarray, flux_e: np.ndarray) -> Sources:
    """Stars only."""
    none, one = np.zeros(len(x)), np.ones(len(x))
    return Sources(x, y, flux_e, none, none, none, one, one, none)


def catalogue_sources(
    spec: NightSpec,
    detector: Detector,
    shot: Exposure,
    conditions: Conditions,
    wcs: Tpv,
    catalogue: np.ndarray,
) -> Sources:
    """The catalogue as one detector sees it in one exposure; all sources, on the detector or not."""
    x, y = wcs.to_pixels(catalogue["RA"], catalogue["DEC"])
    band = FILTERS[shot.filter]
    magnitude = catalogue["MAG_" + shot.filter].astype(np.float64) + band.extinction_mag * conditions.airmass
    flux = 10 ** (-0.4 * (magnitude - band.zero_point_mag)) * shot.exptime_s
    flux *= conditions.transparency * detector.efficiency
    angle = np.radians(catalogue["PA_DEG"].astype(np.float64))
    (a, b), (c, d) = wcs.cd_deg
    major_x = (d * np.sin(angle) - b * np.cos(angle)) / (a * d - b * c)
    major_y = (a * np.cos(angle) - c * np.sin(angle)) / (a * d - b * c)
    length = np.hypot(major_x, major_y)
    scale = spec.pixel_scale_arcsec
    return Sources(
        x=x - 1,
        y=y - 1,
        flux_e=flux,
        disc_px=catalogue["R_HALF"] / scale,
        bulge_px=catalogue["R_BULGE"] / scale,
        bulge=catalogue["BULGE"].astype(np.float64),
        axis_ratio=catalogue["AXIS_RATIO"].astype(np.float64),
        major_x=major_x / length,
        major_y=major_y / length,
    )


def science_light(
    spec: NightSpec,
    detector: Detector,
    shot: Exposure,
    conditions: Conditions,
    sources: Sources,
    fringes: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Electrons of sky, sources and trail where the response is 1, and of the trail alone; float32."""
    light = night_sky(spec, detector, shot, conditions)
    if fringes is not None:
        light *= 1 + np.float32(conditions.fringe_amplitude) * fringes
    draw(light, sources, Psf(conditions.seeing_arcsec / spec.pixel_scale_arcsec, conditions.ellipticity))
    trail = None
    if conditions.trail:
        trail = draw_trail(spec, detector, conditions.trail, conditions.seeing_arcsec)
        light += trail
    return light, trail


def sky_level_e(spec: NightSpec, detector: Detector, shot: Exposure, conditions: Conditions) -> float:
    """Electrons of night sky in a pixel on the optical axis."""
    band = FILTERS[shot.filter]
    rate = 10 ** (-0.4 * (conditions.sky_mag_arcsec2 - band.zero_point_mag)) * spec.pixel_scale_arcsec**2
    return rate * shot.exptime_s * detector.efficiency


def night_sky(spec: NightSpec, detector: Detector, shot: Exposure, conditions: Conditions) -> np.ndarray:
    """Sky with a gradient over the mosaic, electrons."""
    x, y = mosaic_grid(spec, detector)
    gx, gy = (np.float32(slope) for slope in conditions.sky_gradient)
    light = np.float32(sky_level_e(spec, detector, shot, conditions)) * (1 + gx * x + gy * y)
    return np.asarray(light * scattered_map(spec, detector) if spec.scattered_light else light)


def lamp_light(spec: NightSpec, detector: Detector, shot: Exposure) -> np.ndarray:
    """Light of a flat field, with stars in twilight, in electrons where the response is 1."""
    lamp = shot.lamp
    if lamp is None:
        raise ValueError(f"exposure {shot.number} is not a flat")
    x, y = mosaic_grid(spec, detector)
    gx, gy, bowl = (np.float32(value) for value in (*lamp.gradient, lamp.bowl))
    level = np.float32(lamp.level_adu * spec.gain_e_adu * detector.efficiency)
    light: np.ndarray = level * (1 + gx * x + gy * y + bowl * (x * x + y * y))
    if spec.scattered_light:
        light *= scattered_map(spec, detector)
    if lamp.stars:
        rng = stream(spec.seed, "twilight stars", shot.filter, shot.index, detector.index)
        where = rng.uniform(0, 1, (2, lamp.stars)) * np.array([[detector.nx], [detector.ny]])
        flux = 10 ** rng.uniform(4.0, 5.7, lamp.stars)
        draw(
            light, point_sources(where[0], where[1], flux), Psf(spec.seeing_arcsec / spec.pixel_scale_arcsec)
        )
    return light


def draw(image: np.ndarray, sources: Sources, psf: Psf) -> None:
    """Add sources to an image (ny, nx), in place, on stamps that end where a source falls below 0.02 e-."""
    ny, nx = image.shape
    half = _half_size_px(sources, psf)
    near = (sources.x > -half) & (sources.x < nx + half) & (sources.y > -half) & (sources.y < ny + half)
    place = np.minimum(np.searchsorted(STAMP_SIDES, 2 * half), len(STAMP_SIDES) - 1)
    # An undersampled profile is made on a finer grid: its transform does not end before Nyquist's frequency.
    fine = max(1, math.ceil(4.0 / psf.fwhm_px))
    for number, side in enumerate(STAMP_SIDES):
        chosen = np.flatnonzero(near & (place == number))
        step = max(1, BATCH_PIXELS // (side * fine) ** 2)
        for first in range(0, len(chosen), step):
            batch = sources.take(chosen[first : first + step])
            left = np.floor(batch.x).astype(int) - side // 2
            bottom = np.floor(batch.y).astype(int) - side // 2
            stamps = _stamps(batch, batch.x - left, batch.y - bottom, psf, side, fine)
            for stamp, x0, y0 in zip(stamps, left.tolist(), bottom.tolist(), strict=True):
                _add(image, stamp, x0, y0)


def draw_trail(spec: NightSpec, detector: Detector, trail: Trail, seeing_arcsec: float) -> np.ndarray:
    """Electrons of a straight trail with a Gaussian profile, (ny, nx) float32."""
    (x0, y0), (x1, y1) = (
        (x * spec.half_size_px[0], y * spec.half_size_px[1]) for x, y in (trail.start, trail.end)
    )
    length = math.hypot(x1 - x0, y1 - y0)
    x, y = mosaic_grid(spec, detector)
    x, y = x * np.float32(spec.half_size_px[0]), y * np.float32(spec.half_size_px[1])
    distance = (
        (x - np.float32(x0)) * np.float32(y1 - y0) - (y - np.float32(y0)) * np.float32(x1 - x0)
    ) / np.float32(length)
    sigma = math.hypot(trail.fwhm_arcsec, seeing_arcsec) / spec.pixel_scale_arcsec / FWHM_PER_SIGMA
    light = np.zeros(distance.shape, np.float32)
    near = np.abs(distance) < 6 * sigma
    light[near] = trail.peak_e * np.exp(-0.5 * (distance[near] / sigma) ** 2)
    return light


def _half_size_px(sources: Sources, psf: Psf) -> np.ndarray:
    """Half the side of the stamp that each source needs."""
    alpha = psf.alpha_px
    peak = sources.flux_e * (MOFFAT_BETA - 1) / (math.pi * alpha**2)
    wing = alpha * np.maximum(peak / FAINTEST_E, 1.0) ** (0.5 / MOFFAT_BETA)
    scale = np.maximum(sources.disc_px / DISC_HALF, sources.bulge_px / BULGE_HALF)
    surface = sources.flux_e / (2 * math.pi * np.maximum(scale, 0.1) ** 2)
    extent = scale * np.log(np.maximum(surface / FAINTEST_E, 1.0))
    return np.asarray(np.maximum(wing, extent + 2 * alpha) + 2)


def _stamps(batch: Sources, x: np.ndarray, y: np.ndarray, psf: Psf, side: int, fine: int) -> np.ndarray:
    """Stamps (number, side, side) of sources at x, y in their stamps."""
    ky = np.fft.fftfreq(side * fine, 1 / fine)[:, None]
    kx = np.fft.rfftfreq(side * fine, 1 / fine)[None, :]
    transform = _psf_transform(psf, kx, ky) * _profiles(batch, kx, ky)
    transform = transform * (batch.flux_e[:, None, None] * np.exp(-2j * np.pi * y[:, None, None] * ky))
    transform *= np.exp(-2j * np.pi * x[:, None, None] * kx)
    stamps = np.fft.irfft2(transform, s=(side * fine, side * fine))
    return np.asarray(stamps[:, ::fine, ::fine] * fine**2)


def _psf_transform(psf: Psf, kx: np.ndarray, ky: np.ndarray) -> np.ndarray:
    """Transform of the Moffat profile times that of a square pixel; k in cycles a pixel.

    A Moffat profile's transform is z^(beta-1) K_(beta-1)(z), elementary for a half-integer order.
    """
    e1, e2 = psf.ellipticity
    area = math.sqrt(1 - e1 * e1 - e2 * e2)
    z = 2 * np.pi * psf.alpha_px / area * np.hypot((1 + e1) * kx + e2 * ky, e2 * kx + (1 - e1) * ky)
    return np.asarray(np.exp(-z) * (1 + z + z * z / 3) * np.sinc(kx) * np.sinc(ky))


def _profiles(batch: Sources, kx: np.ndarray, ky: np.ndarray) -> np.ndarray:
    """Transforms (number, ...) of unit flux of the sources' own profiles; 1 for a star."""
    if not batch.disc_px.any():
        return np.ones((len(batch.x), 1, 1))
    ux, uy, ratio = (column[:, None, None] for column in (batch.major_x, batch.major_y, batch.axis_ratio))
    k2 = (2 * np.pi) ** 2 * ((kx * ux + ky * uy) ** 2 + (ratio * (ky * ux - kx * uy)) ** 2)
    disc = (1 + k2 * (batch.disc_px[:, None, None] / DISC_HALF) ** 2) ** -(1 + DISC_NU)
    bulge = (1 + k2 * (batch.bulge_px[:, None, None] / BULGE_HALF) ** 2) ** -(1 + BULGE_NU)
    weight = batch.bulge[:, None, None]
    return np.asarray((1 - weight) * disc + weight * bulge)


def _add(image: np.ndarray, stamp: np.ndarray, x0: int, y0: int) -> None:
    ny, nx = image.shape
    side = len(stamp)
    left, right, bottom, top = max(0, x0), min(nx, x0 + side), max(0, y0), min(ny, y0 + side)
    if left < right and bottom < top:
        image[bottom:top, left:right] += stamp[bottom - y0 : top - y0, left - x0 : right - x0]
