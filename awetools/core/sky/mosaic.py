"""The model of a global solution: a polynomial for each detector, which exposures share, and their pointings.

Points of tangent planes are complex numbers, in rad; an exposure is a rotation of the
sphere and a scale, so that there are no poles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .leastsquares import design_matrix
from .match import Places, Points
from .polynomial import Doubles
from .starmatch import ARCSEC_PER_RAD

LIFTINGS = 4


@dataclass(eq=False)
class Mosaic:
    """Detectors (d, terms) complex, frames of exposures (e, 3, 3): rows are the two axes and outwards; scale (e,)."""

    degree: int
    detectors: Points
    frames: Doubles
    scale: Doubles

    def plane(self, detector: Places, exposure: Places, design: Doubles) -> Points:
        """Points of the exposures' tangent planes, rad, of sources with these powers of their pixels."""
        made: Points = np.einsum("ij,ij->i", design, self.detectors[detector]) * self.scale[exposure]
        return made

    def vectors(self, plane: Points, exposure: Places) -> Doubles:
        """Unit vectors (n, 3) of points of the planes."""
        frames = self.frames[exposure]
        made = plane.real[:, None] * frames[:, 0] + plane.imag[:, None] * frames[:, 1] + frames[:, 2]
        return np.asarray(made / np.sqrt(np.einsum("ij,ij->i", made, made)[:, None]), np.float64)

    def moved(self, step: Points) -> Mosaic:
        """The model after a step of all its unknowns, as `solved` gives it."""
        own = self.detectors.size
        each = step[own:].reshape(-1, 2)
        turn = np.exp(1j * each[:, 1].imag)
        x, y, z = (self.frames[:, k] for k in range(3))
        first = x * turn.real[:, None] + y * turn.imag[:, None]
        shift = each[:, 0]
        out = z + shift.real[:, None] * x + shift.imag[:, None] * y
        out /= np.linalg.norm(out, axis=1, keepdims=True)
        first -= (first * out).sum(axis=1, keepdims=True) * out
        first /= np.linalg.norm(first, axis=1, keepdims=True)
        frames = np.stack([first, np.cross(out, first), out], axis=1)
        detectors = self.detectors + step[:own].reshape(self.detectors.shape)
        return Mosaic(self.degree, detectors, frames, self.scale * (1 + each[:, 1].real))


def powers(degree: int, x: Doubles, y: Doubles, shape: tuple[int, int]) -> Doubles:
    """The powers (n, terms) of pixels of an image (ny, nx), each from -1 to 1 along its longer side."""
    centre, half = (0.5 * (shape[1] + 1), 0.5 * (shape[0] + 1)), 0.5 * max(shape)
    return design_matrix(degree, (x - centre[0]) / half, (y - centre[1]) / half)


def lowered(vectors: Doubles, zenith: Doubles, constant_arcsec: Doubles | float) -> Doubles:
    """Unit vectors (n, 3) without refraction: lower by a constant times the tangent of the zenith distance.

    Differences across a field are good to a percent down to 70 degrees from the zenith. zenith (n, 3).
    """
    height = np.einsum("ij,ij->i", vectors, np.broadcast_to(zenith, vectors.shape))[:, None]
    drop = np.reshape(constant_arcsec, (-1, 1)) / ARCSEC_PER_RAD / np.maximum(height, 0.05)
    made = vectors - drop * (zenith - height * vectors)
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), np.float64)


def lifted(vectors: Doubles, zenith: Doubles, constant_arcsec: Doubles | float) -> Doubles:
    """Unit vectors as refraction shows them: the inverse of `lowered`."""
    made = vectors
    for _ in range(LIFTINGS):
        made = made + vectors - lowered(made, zenith, constant_arcsec)
        made = made / np.linalg.norm(made, axis=1, keepdims=True)
    return made


def rotation(plane: Points, vectors: Doubles, weight: Doubles | None = None) -> Doubles:
    """The frame (3, 3) of a tangent plane in which vectors lie at points, by weighted least squares.

    Source: Kabsch 1976, Acta Cryst. A32, 922.
    """
    seen = np.stack([plane.real, plane.imag, np.ones(len(plane))], axis=1)
    seen /= np.linalg.norm(seen, axis=1, keepdims=True)
    if weight is not None:
        seen *= weight[:, None]
    left, _, right = np.linalg.svd(seen.T @ vectors)
    sign = np.diag([1.0, 1.0, float(np.sign(np.linalg.det(left @ right)))])
    return np.asarray(left @ sign @ right, np.float64)
