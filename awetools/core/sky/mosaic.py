"""The model of a global solution: a polynomial for each detector, which exposures share, and their pointings.

Points of tangent planes are complex numbers, in rad; an exposure is a rotation of the
sphere and a scale, so that there are no poles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .leastsquares import design_matrix
from .match import Places, Points
from .polynomial import Doubles
from .starmatch import ARCSEC_PER_RAD

# How far a step may go against the data: what these leave open stays as it was.
DAMPING_ARCSEC = 100.0
DAMPING_TURN = 0.01
LIFTINGS = 4
# Less of the diagonal is lost in rounding; without a reference the scale of all is open, and must stay.
LEAST_PART, LEAST_PART_TIED = 1e-10, 1e-4
# Beyond so many unknowns, or where few of them meet, the normal matrix is kept sparse.
MOST_DENSE = 6000
LEAST_DENSE_PART = 0.05


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
        return np.asarray(made / np.sqrt((made * made).sum(axis=1, keepdims=True)), np.float64)

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
    height = (vectors * zenith).sum(axis=1, keepdims=True)
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


@dataclass(frozen=True, eq=False)
class Equations:
    """Sources as observations, (n,) each: their powers, detector, exposure and star, plane and turn.

    turn: by what a step in the plane is multiplied to be one on the star's own axes; away: how
    far the source is off its star there, rad; weight: inverse variance, arcsec^-2.
    anchor (stars,): weight of a reference position; above: where it is, seen from the star.
    """

    design: Doubles
    detector: Places
    exposure: Places
    star: Places
    plane: Points
    turn: Points
    away: Points
    weight: Doubles
    anchor: Doubles
    above: Points


def solved(
    model: Mosaic,
    given: Equations,
    terms: npt.NDArray[np.bool_],
    pointings: npt.NDArray[np.bool_],
) -> Points:
    """The step of all unknowns: of each detector its terms, of each exposure shift and turn, by least squares.

    terms (d, terms): which of them may change; pointings (e, 2): the same. The stars are
    eliminated (Schur complement): what is left of a star is its sources less their mean.
    """
    from scipy.sparse import csr_array, diags_array

    number, own = len(given.star), model.detectors.size
    stars = len(given.anchor)
    total = np.bincount(given.star, given.weight, stars) + given.anchor
    total[total == 0] = 1.0
    sums = csr_array((given.weight, (given.star, np.arange(number))), shape=(stars, number))
    mean = (sums @ given.away + given.anchor * given.above) / total
    missed = mean[given.star] - given.away
    design, plane = _at_stars(model, given, missed)
    width = given.design.shape[1]
    unknowns = own + 2 * len(model.frames)
    column = np.empty((number, width + 2), np.int64)
    column[:, :width] = given.detector[:, None] * width + np.arange(width)
    column[:, width] = own + 2 * given.exposure
    column[:, width + 1] = column[:, width] + 1
    free = np.concatenate([terms.ravel(), pointings.ravel()])
    value = np.empty((number, width + 2), np.complex128)
    value[:, :width] = design * (given.turn * model.scale[given.exposure])[:, None]
    value[:, width] = given.turn
    value[:, width + 1] = given.turn * plane
    value *= free[column]
    start = np.arange(number + 1) * (width + 2)
    rows = csr_array((value.ravel(), column.ravel(), start), shape=(number, unknowns))
    by_star = sums @ rows
    adjoint = rows.conj().T.tocsr()
    normal = adjoint @ diags_array(given.weight) @ rows
    normal = normal - by_star.conj().T.tocsr() @ diags_array(1 / total) @ by_star
    right = adjoint @ (given.weight * missed)
    damping = np.full(unknowns, DAMPING_ARCSEC / ARCSEC_PER_RAD)
    damping[own + 1 :: 2] = DAMPING_TURN
    # Weights are of arcsec, all else of rad.
    least = (LEAST_PART if given.anchor.any() else LEAST_PART_TIED) * np.abs(normal.diagonal())
    normal = normal + diags_array(np.maximum(1 / (damping * ARCSEC_PER_RAD) ** 2, least))
    step = _step(normal, right)
    turned = own + 1 + 2 * np.flatnonzero(pointings[:, 1])
    if len(turned):
        # What all exposures have in common is the detectors': those that are only shifted have it too.
        common = step[turned].mean()
        step[turned] -= common
        step[:own] += common * model.detectors.ravel()
    return step


def _at_stars(model: Mosaic, given: Equations, missed: Points) -> tuple[Doubles, Points]:
    """Powers of the pixels, and points of the planes, where the stars are now, not where they were measured.

    The errors are those of pixels: else frames tied to nothing but each other would shrink, for the
    smaller they are, the less they differ on the sky.
    """
    away = missed / given.turn
    terms = model.detectors[given.detector] * model.scale[given.exposure][:, None]
    to_u, to_v = terms[:, 1], terms[:, 2]
    area = to_u.real * to_v.imag - to_u.imag * to_v.real
    u = given.design[:, 1] + (away.real * to_v.imag - away.imag * to_v.real) / area
    v = given.design[:, 2] + (to_u.real * away.imag - to_u.imag * away.real) / area
    return design_matrix(model.degree, u, v), given.plane + away


def _step(normal: Any, right: Points) -> Points:
    """The solution of normal equations, scaled so that the diagonal is 1."""
    from scipy.linalg import cho_factor, cho_solve
    from scipy.sparse import diags_array
    from scipy.sparse.linalg import splu

    root = 1 / np.sqrt(normal.diagonal().real)
    normal = diags_array(root) @ normal @ diags_array(root)
    size = len(right)
    if size <= MOST_DENSE and (size < 200 or normal.nnz > LEAST_DENSE_PART * size * size):
        found = cho_solve(cho_factor(normal.toarray(), lower=True), root * right)
    else:
        factors = splu(normal.tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
        found = factors.solve(root * right)
    made: Points = root * found
    return made
