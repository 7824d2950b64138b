"""Small frames as other pipelines write them: stars of known flux on a flat sky."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

SHAPE = (160, 176)
SKY, NOISE, FLUX, SIGMA_PX = 500.0, 10.0, 60000.0, 2.0
# Centres of the stars, FITS pixels.
STARS = [(x, y) for y in range(25, 150, 30) for x in range(22, 165, 33)]
WCS: dict[str, object] = {
    "CTYPE1": "RA---TAN",
    "CTYPE2": "DEC--TAN",
    "CRVAL1": 150.0,
    "CRVAL2": 2.0,
    "CRPIX1": 88.0,
    "CRPIX2": 80.0,
    "CD1_1": -1e-4,
    "CD1_2": 0.0,
    "CD2_1": 0.0,
    "CD2_2": 1e-4,
}
CARDS: dict[str, object] = {
    "INSTRUME": "othercam",
    "DETECTOR": "chip7",
    "OBJECT": "field",
    "OBSTYPE": "object",
    "FILTER": "r",
    "DATE-OBS": "2024-03-02T23:10:00.000",
    "EXPTIME": 100.0,
    "BUNIT": "adu",
    **WCS,
}


def star_field(seed: int = 3) -> np.ndarray:
    """Stars of FLUX counts each on SKY, with NOISE; float32."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[1 : SHAPE[0] + 1, 1 : SHAPE[1] + 1]
    image = rng.normal(SKY, NOISE, SHAPE)
    for cx, cy in STARS:
        square = ((x - cx) ** 2 + (y - cy) ** 2) / (2 * SIGMA_PX**2)
        image += FLUX / (2 * np.pi * SIGMA_PX**2) * np.exp(-square)
    return image.astype(np.float32)


def write_foreign(
    path: Path,
    data: np.ndarray | None = None,
    planes: Mapping[str, np.ndarray] | None = None,
    cards: Mapping[str, object] | None = None,
) -> Path:
    """A file with the image in its primary unit and planes as extensions; a card of None is left out."""
    from astropy.io import fits

    header = fits.Header()
    for key, value in {**CARDS, **(cards or {})}.items():
        if value is not None:
            header[key] = value
    units = [fits.PrimaryHDU(star_field() if data is None else data, header)]
    units += [fits.ImageHDU(plane, name=name) for name, plane in (planes or {}).items()]
    fits.HDUList(units).writeto(path, overwrite=True)
    return path


def write_plane(path: Path, data: np.ndarray) -> Path:
    """A plane in a file of its own."""
    from astropy.io import fits

    fits.PrimaryHDU(data).writeto(path, overwrite=True)
    return path
