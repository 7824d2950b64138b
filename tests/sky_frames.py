"""Simulated mosaics for tests of the global solution: frames with their sources, the reference, the truth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from awetools.core.sky.adjust import Adjustment, Frame
from awetools.core.sky.fitwcs import fit_polynomial, wcs_of_fit
from awetools.core.sky.mosaic import lifted, lowered
from awetools.core.sky.readwcs import read_wcs
from awetools.core.sky.solve import Reference, Sources
from awetools.core.sky.sphere import angles, from_tangent, separation_arcsec, to_tangent, unit_vectors
from awetools.core.sky.wcs import Wcs

SHAPE, SCALE = (1000, 800), 0.3
STEP = SCALE / 3600
NOISE_ARCSEC, REFERENCE_ARCSEC = 0.01, 0.02


@dataclass
class Run:
    """Frames with local solutions, the reference, and the true coordinate systems by name."""

    frames: list[Frame]
    reference: Reference
    truth: dict[str, Wcs]

    def error_arcsec(self, systems: dict[str, Wcs]) -> float:
        """The rms of coordinate systems against the truth, over all frames."""
        x, y = np.meshgrid(np.linspace(20, SHAPE[1] - 20, 7), np.linspace(20, SHAPE[0] - 20, 7))
        squares = [
            separation_arcsec(*self.truth[name].to_sky(x, y), *wcs.to_sky(x, y)) ** 2
            for name, wcs in systems.items()
        ]
        return math.sqrt(float(np.mean(squares)))

    def local(self) -> float:
        return self.error_arcsec({one.name: one.wcs for one in self.frames})

    def final(self, made: Adjustment) -> float:
        return self.error_arcsec({one.name: one.wcs for one in made.frames})


def run(
    *,
    seed: int = 1,
    ra: float = 150.0,
    dec: float = 2.0,
    exposures: int = 5,
    detectors: int = 2,
    stars: int = 150,
    listed: int = 60,
    dither_arcsec: float = 40.0,
    local: bool = True,
    years: float = 0.0,
    zenith: tuple[float, float] | None = None,
) -> Run:
    """stars and listed (of the reference) a detector; local: solutions from its stars, else a pointing that is off."""
    rng = np.random.default_rng(seed)
    width = SHAPE[1] * 1.05
    half_x = (0.5 * detectors * width * SCALE + 2 * dither_arcsec) / 3600
    half_y = (0.5 * SHAPE[0] * SCALE + 2 * dither_arcsec) / 3600
    number = int(stars * 4 * half_x * half_y / (SHAPE[0] * SHAPE[1] * STEP**2))
    xi, eta = rng.uniform(-half_x, half_x, number), rng.uniform(-half_y, half_y, number)
    star_ra, star_dec = from_tangent(xi, eta, ra, dec)
    pm = rng.normal(0, 50.0 if years else 0.0, (2, number))
    known = rng.random(number) < listed / stars
    spread = rng.normal(0, REFERENCE_ARCSEC / 3600, (2, number))
    seen_ra, seen_dec = moved(star_ra, star_dec, *spread)
    reference = Reference(
        seen_ra[known],
        seen_dec[known],
        error_arcsec=REFERENCE_ARCSEC,
        epoch_yr=2000.0,
        pm_ra_mas_yr=pm[0, known],
        pm_dec_mas_yr=pm[1, known],
    )
    bends = rng.normal(0, 2e-3, (detectors, 2, 3))
    turns, offsets = rng.normal(0, 0.05, detectors), rng.normal(0, 3.0, (detectors, 2))
    frames, truth = [], {}
    for e in range(exposures):
        shift = rng.uniform(-dither_arcsec, dither_arcsec, 2) / 3600
        crval = tuple(float(one[0]) for one in from_tangent(shift[:1], shift[1:], ra, dec))
        turn = rng.normal(0, 0.02)
        epoch = 2000.0 + years * (1 + e / exposures)
        now_ra, now_dec = moved(star_ra, star_dec, *(pm * (epoch - 2000.0) / 3.6e6))
        if zenith is not None:
            up = np.broadcast_to(unit_vectors(*zenith), (number, 3))
            vectors = lifted(unit_vectors(now_ra, now_dec), up, 58.2)
            now_ra, now_dec = angles(*(vectors[:, k] for k in range(3)))
        for d in range(detectors):
            crpix = (
                0.5 * SHAPE[1] - (d - 0.5 * (detectors - 1)) * width + offsets[d, 0],
                0.5 * SHAPE[0] + offsets[d, 1],
            )
            wcs = true_wcs((crval[0], crval[1]), crpix, turn + turns[d], bends[d])
            x, y = wcs.to_pixel(now_ra, now_dec)
            inside = np.flatnonzero((x > 1) & (x < SHAPE[1]) & (y > 1) & (y < SHAPE[0]))
            x, y = (one[inside] + rng.normal(0, NOISE_ARCSEC / SCALE, len(inside)) for one in (x, y))
            name = f"e{e}d{d}"
            start = wcs
            if zenith is not None:
                start = refitted(wcs, zenith)
            truth[name] = start
            if local:
                use = known[inside]
                places = to_tangent(now_ra[inside[use]], now_dec[inside[use]], *crval)
                there = rng.normal(0, REFERENCE_ARCSEC / 3600, (2, use.sum()))
                if zenith is None:
                    places = (
                        to_tangent(seen_ra[inside[use]], seen_dec[inside[use]], *crval)
                        if not years
                        else places
                    )
                    fit = fit_polynomial(
                        3 if use.sum() > 25 else 1, x[use], y[use], *(places + there * (years > 0))
                    )
                    start = wcs_of_fit(fit, (crval[0], crval[1]))
            else:
                start = Wcs((crval[0] + 1e-4, crval[1]), crpix, (-STEP, 0.0, 0.0, STEP))
            frames.append(
                Frame(
                    name,
                    f"d{d}",
                    f"e{e}",
                    Sources(x, y, error_px=NOISE_ARCSEC / SCALE),
                    start,
                    SHAPE,
                    epoch_yr=epoch,
                    zenith_deg=zenith,
                    signal_to_noise=100.0,
                )
            )
    return Run(frames, reference, truth)


def moved(
    ra: np.ndarray, dec: np.ndarray, east: np.ndarray, north: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positions after small steps in degrees."""
    return ra + east / np.cos(np.radians(dec)), dec + north


def true_wcs(crval: tuple[float, float], crpix: tuple[float, float], turn: float, bend: np.ndarray) -> Wcs:
    cosine, sine = STEP * math.cos(math.radians(turn)), STEP * math.sin(math.radians(turn))
    cards: dict[str, object] = {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "CUNIT1": "deg", "CUNIT2": "deg"}
    cards |= {"CRVAL1": crval[0], "CRVAL2": crval[1], "CRPIX1": crpix[0], "CRPIX2": crpix[1]}
    cards |= {"CD1_1": -cosine, "CD1_2": sine, "CD2_1": sine, "CD2_2": cosine}
    for axis in (1, 2):
        cards |= {f"PV{axis}_1": 1.0, f"PV{axis}_7": 0.12, f"PV{axis}_9": 0.12}
        cards |= {f"PV{axis}_{4 + k}": float(bend[axis - 1, k]) for k in range(3)}
    return read_wcs(cards)  # type: ignore[arg-type]


def refitted(wcs: Wcs, zenith: tuple[float, float]) -> Wcs:
    """The coordinate system of what lies behind the refraction."""
    x, y = (one.ravel() for one in np.meshgrid(np.linspace(1, SHAPE[1], 9), np.linspace(1, SHAPE[0], 9)))
    up = np.broadcast_to(unit_vectors(*zenith), (len(x), 3))
    ra, dec = angles(*lowered(wcs.vectors(x, y), up, 58.2).T)
    middle = float(ra[40]), float(dec[40])
    return wcs_of_fit(fit_polynomial(3, x, y, *to_tangent(ra, dec, *middle)), middle)
