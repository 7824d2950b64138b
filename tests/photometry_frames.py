"""Frames with known stars for tests of zero points and of lists on the sky: tables as `awe-sources` makes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from awetools.core.catalogues.refshards import write_catalogue
from awetools.core.frame import Table
from awetools.core.sky.refcat import Catalogue
from awetools.core.sky.sphere import from_tangent
from awetools.core.sky.wcs import Wcs
from awetools.core.sky.writewcs import wcs_as_cards

SIZE, SCALE, EXPTIME_S = 1000, 0.5, 100.0
READ_NOISE_ADU, GAIN_E_ADU = 20.0, 1.5
SATURATED = 4
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Stars:
    """Where stars are on the sky, and their magnitudes in R."""

    ra: Doubles
    dec: Doubles
    mag: Doubles

    def catalogue(self, folder: Path, bands: Sequence[str] = ("R",), **columns: Doubles) -> Catalogue:
        rows: dict[str, Any] = {
            "ra_deg": self.ra,
            "dec_deg": self.dec,
            "epoch_yr": np.full(len(self.ra), 2017.2),
        }
        for band in bands:
            rows |= {f"mag_{band}": self.mag, f"mag_error_{band}": np.full(len(self.ra), 0.01)}
        path = folder / f"stars{len(list(folder.iterdir()))}"
        return write_catalogue(path, [{**rows, **columns}], list(bands), [], duplicate_arcsec=0)


def stars(number: int = 300, seed: int = 3, ra: float = 150.0, dec: float = 2.0) -> Stars:
    """Over a square of 0.3 degrees, which is twice as wide as a frame."""
    random = np.random.default_rng(seed)
    places = from_tangent(*random.uniform(-0.15, 0.15, (2, number)), ra, dec)
    return Stars(*places, random.uniform(14, 19, number))


def system(turn_deg: float = 0.0, ra: float = 150.0, dec: float = 2.0, mirrored: bool = False) -> Wcs:
    """North is up where nothing is turned; east is left, or right in a mirror."""
    angle, step, side = math.radians(turn_deg), SCALE / 3600, 1.0 if mirrored else -1.0
    middle = 0.5 * (SIZE + 1)
    matrix = (
        side * step * math.cos(angle),
        -step * math.sin(angle),
        side * step * math.sin(angle),
        step * math.cos(angle),
    )
    return Wcs((ra, dec), (middle, middle), matrix)


def solution(wcs: Wcs, **meta: Any) -> Table:
    """What of a product of kind astrom is taken: its meta."""
    return Table({}, {**META, "wcs": wcs_as_cards(wcs), **meta})


META: dict[str, Any] = {
    "instrument": "cam",
    "detector": "d1",
    "exposure": "e1",
    "filter": "R",
    "exptime_s": EXPTIME_S,
    "airmass": 1.2,
    "obs_start": "2017-03-02T03:00:00.000",
    "nx": SIZE,
    "ny": SIZE,
}


def listed(x: Doubles, y: Doubles, flux: Doubles, error: Doubles, **meta: Any) -> Table:
    """The table of round sources at places, of fluxes and errors."""
    number = len(x)
    same = {
        "X_WIN_ERROR_PX": 0.04,
        "Y_WIN_ERROR_PX": 0.03,
        "XY_WIN_COVARIANCE_PX2": 0.0004,
        "A_WIN_PX": 2.0,
        "B_WIN_PX": 1.0,
        "THETA_WIN_DEG": 0.0,
        "FWHM_PX": 3.0,
        "HALF_LIGHT_RADIUS_PX": 1.8,
        "ELLIPTICITY": 0.5,
        "SPREAD": 0.0,
        "SPREAD_ERROR": 0.01,
        "STAR": 1.0,
        "KRON_RADIUS": 3.5,
    }
    columns: dict[str, Any] = {
        "NUMBER": np.arange(1, number + 1, dtype=np.int32),
        "X_WIN_PX": x,
        "Y_WIN_PX": y,
        **{name: np.full(number, value, np.float32) for name, value in same.items()},
        "FLAGS": np.zeros(number, np.int32),
    }
    for name in ("AUTO", "PETROSIAN", "ISOPHOTAL"):
        columns |= {f"FLUX_{name}_ADU": flux, f"FLUX_{name}_ERROR_ADU": error}
    columns |= {"FLUX_APERTURE_ADU": 0.9 * flux[:, None], "FLUX_APERTURE_ERROR_ADU": 0.9 * error[:, None]}
    return Table(columns, {**META, **meta})


def seen(
    sky: Stars, wcs: Wcs, zeropoint_mag: float = 25.0, seed: int = 1, flat_error: float = 0.0, **meta: Any
) -> Table:
    """The sources of a frame with a zero point; flat_error: scatter of its fluxes beyond their noise."""
    random = np.random.default_rng(seed)
    x, y = wcs.to_pixel(sky.ra, sky.dec)
    with np.errstate(invalid="ignore"):
        inside = (x > 1) & (x < SIZE) & (y > 1) & (y < SIZE)
    x, y = (one[inside] + random.normal(0, 0.03, int(inside.sum())) for one in (x, y))
    exptime_s = float(meta.get("exptime_s") or EXPTIME_S)
    true = exptime_s * 10 ** (-0.4 * (sky.mag[inside] - zeropoint_mag))
    error = np.sqrt(true / GAIN_E_ADU + READ_NOISE_ADU**2)
    flux = true * (1 + random.normal(0, flat_error, len(true))) + random.normal(0, error)
    return listed(x, y, flux, error, **meta)


def changed(table: Table, **columns: Any) -> Table:
    """The same list with other columns."""
    return Table({**table.columns, **columns}, table.meta)


SKY = stars()
