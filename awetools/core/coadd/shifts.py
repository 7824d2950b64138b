"""By how much the stars of one image are beside those of another, and how much of their light it has."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

# FWHM of a Gaussian by its sigma.
FWHM = 2.3548
# Blocks with fewer pixels, or whose terms are hardly different, tell nothing.
LEAST_PIXELS, LEAST_DETERMINANT = 50, 1e-4
# Parts of the seeing that are a large shift.
FAR = 0.4


class Shifted(NamedTuple):
    """Of each block: ratio of light; shift in columns and rows; FWHM of what is there, all in pixels."""

    ratio: Doubles
    columns: Doubles
    rows: Doubles
    fwhm: Doubles


def shifted(values: Doubles, seen: Doubles, use: npt.NDArray[np.bool_]) -> Shifted:
    """Fit blocks (n, rows, columns) by those of a better image: a ratio, a shift, a change of the seeing, a level.

    values = ratio * seen + change * curvature of seen - shift * gradient of values + level, over the pixels that
    are used and have neighbours that are. The gradient is that of the values, so that other seeing does not change
    the shift; as it has their noise, the equations are those of the better image's gradient (instrumental variables:
    Reiersol 1945). A shift by a large part of the seeing leaves little in common of both gradients; it is that
    by the better image's alone, less than the true one, but never lost. A shift is odd about a star, a change of
    the seeing even. ``fwhm``: of a Gaussian, the square of the light over that of its gradient. nan where a block
    does not tell.
    """
    known, own = (np.where(use, one, np.nan) for one in (seen, values))
    (across, along, curved), (own_across, own_along, _) = _slopes(known), _slopes(own)
    level = np.ones_like(known)
    told_by = np.stack([known, across, along, curved, level], axis=1)
    terms = np.stack([known, own_across, own_along, curved, level], axis=1)
    good = np.isfinite(told_by).all(axis=1) & np.isfinite(terms).all(axis=1)
    pixels = len(known), 5, -1
    told_by, terms = (np.where(good[:, None], one, 0).reshape(pixels) for one in (told_by, terms))
    # The level has a term of its own: without it the others are told better apart.
    count = np.maximum(good.reshape(len(known), -1).sum(axis=1), 1)
    middle = terms[:, 0].sum(axis=1) / count
    for one in (told_by, terms):
        one[:, 0] -= middle[:, None] * one[:, 4]
    size = np.sqrt((told_by * told_by).sum(axis=2))
    size = np.where(size > 0, size, 1.0)
    told_by /= size[:, :, None]
    right = np.einsum("nip,np->ni", told_by, np.where(good, own, 0).reshape(len(known), -1))
    plain, tells = _solved(np.einsum("nip,njp->nij", told_by, told_by), right)
    found, told = _solved(np.einsum("nip,njp->nij", told_by, terms / size[:, :, None]), right)
    plain, found, tells = plain / size, found / size, tells & (count >= LEAST_PIXELS)
    with np.errstate(divide="ignore", invalid="ignore"):
        fwhm = FWHM * size[:, 0] / np.hypot(size[:, 1], size[:, 2])
        far = ~told | ~(np.hypot(found[:, 1], found[:, 2]) < FAR * fwhm)
    found = np.where(far[:, None], plain, found)
    return Shifted(*(np.where(tells, one, np.nan) for one in (found[:, 0], -found[:, 1], -found[:, 2], fwhm)))


def _solved(normal: Doubles, right: Doubles) -> tuple[Doubles, npt.NDArray[np.bool_]]:
    """Solutions of the equations of each block, and which have one."""
    tells = np.abs(np.linalg.det(normal)) > LEAST_DETERMINANT
    found = np.linalg.solve(np.where(tells[:, None, None], normal, np.eye(5)), right[:, :, None])
    return np.asarray(found[:, :, 0], np.float64), tells


def _slopes(planes: Doubles) -> tuple[Doubles, Doubles, Doubles]:
    """Gradients along columns and rows, to the fourth order, and curvature; nan beside what is not known."""
    wide = np.pad(planes, ((0, 0), (2, 2), (2, 2)), constant_values=np.nan)
    rows, columns = planes.shape[1:]
    left2, left, right, right2 = (wide[:, 2:-2, at : at + columns] for at in (0, 1, 3, 4))
    down2, down, up, up2 = (wide[:, at : at + rows, 2:-2] for at in (0, 1, 3, 4))
    across = (8 * (right - left) - (right2 - left2)) / 12
    along = (8 * (up - down) - (up2 - down2)) / 12
    return across, along, up + down + right + left - 4 * planes
