"""The illumination correction of a detector: what its flat has wrong for stars, as a smooth function of place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import BadValue

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Shape = tuple[int, int]

# Rows that are corrected at a time, so that little memory is used besides.
BLOCK_ROWS = 64
# A factor of the flux for a magnitude.
PER_MAG = 0.4 * np.log(10)


def terms_of(degree: int) -> list[tuple[int, int]]:
    """The orders along x and y of the terms up to a total degree, but for the constant."""
    return [(n - m, m) for n in range(1, degree + 1) for m in range(n + 1)]


def legendre(places: npt.ArrayLike, degree: int) -> Doubles:
    """Legendre polynomials (degree + 1, ...) at places from -1 to 1, each of mean square 1 over them.

    So terms of a sum of products are orthogonal over the detector, the mean of each is 0, and its
    coefficient is its rms. Computed value by value: the bits do not depend on what else is asked for.
    """
    u = np.asarray(places, np.float64)
    found = np.empty((degree + 1, *u.shape))
    found[0] = 1.0
    if degree:
        found[1] = u
    for n in range(1, degree):
        found[n + 1] = ((2 * n + 1) * u * found[n] - n * found[n - 1]) / (n + 1)
    return found * np.sqrt(2 * np.arange(degree + 1) + 1).reshape(-1, *(1,) * u.ndim)


def unit_places(places: npt.ArrayLike, length: int) -> Doubles:
    """FITS pixels along an axis, the first is 1, as -1 to 1 from edge to edge."""
    return np.asarray((2 * np.asarray(places, np.float64) - length - 1) / length, np.float64)


@dataclass(frozen=True, eq=False)
class Illumination:
    """What stars of a detector of shape (ny, nx) are too faint by, mag: of mean 0 over it.

    coefficients_mag: (degree + 1, degree + 1), of the products of `legendre` of orders (along x, along y).
    """

    shape: Shape
    coefficients_mag: Doubles

    def __post_init__(self) -> None:
        given = self.coefficients_mag
        if given.ndim != 2 or given.shape[0] != given.shape[1] or not np.isfinite(given).all():
            raise BadValue(f"an illumination correction of coefficients {given.tolist()}")

    @property
    def degree(self) -> int:
        """The highest order."""
        return len(self.coefficients_mag) - 1

    def mag_at(self, x: npt.ArrayLike, y: npt.ArrayLike) -> Doubles:
        """What is too faint at FITS pixels, (n,), mag; that at the edge for what is beyond it."""
        ny, nx = self.shape
        u, v = (np.clip(unit_places(*one), -1, 1) for one in ((x, nx), (y, ny)))
        along_x, along_y = legendre(u, self.degree), legendre(v, self.degree)
        found = np.zeros(np.broadcast(u, v).shape)
        for i, j in zip(*np.nonzero(self.coefficients_mag), strict=True):
            found = found + self.coefficients_mag[i, j] * along_x[i] * along_y[j]
        return np.asarray(found)

    def factor_at(self, x: npt.ArrayLike, y: npt.ArrayLike) -> Doubles:
        """What fluxes of stars at FITS pixels are to be multiplied by."""
        return np.asarray(np.exp(PER_MAG * self.mag_at(x, y)))

    def factors(self, first: int, last: int) -> Floats:
        """The same of rows first to last (from 0) of the pixels."""
        ny, nx = self.shape
        along_x = legendre(unit_places(np.arange(1, nx + 1), nx), self.degree)
        along_y = legendre(unit_places(np.arange(first + 1, last + 1), ny), self.degree)
        made = np.empty((last - first, nx), np.float32)
        for begin in range(0, last - first, BLOCK_ROWS):
            rows = slice(begin, begin + BLOCK_ROWS)
            mag = np.zeros(made[rows].shape)
            for i, own in enumerate(self.coefficients_mag):
                if own.any():
                    column = sum(value * along_y[j, rows] for j, value in enumerate(own))
                    mag += np.asarray(column)[:, None] * along_x[i]
            mag *= PER_MAG
            made[rows] = np.exp(mag, out=mag)
        return made

    def correct(self, data: Floats, weight: Floats, first: int) -> Floats:
        """Multiply rows of pixels, in place, the first of them being row ``first``; returns their weights, too."""
        made = np.empty_like(weight)
        for begin in range(0, len(data), BLOCK_ROWS):
            rows = slice(begin, begin + BLOCK_ROWS)
            factor = self.factors(first + begin, first + min(begin + BLOCK_ROWS, len(data)))
            data[rows] *= factor
            made[rows] = weight[rows] / (factor * factor)
        return made
