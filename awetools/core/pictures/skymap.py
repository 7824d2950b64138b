"""A coordinate system as a page in a browser can compute it: a tangent plane and polynomials of two variables."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import TooFew
from ..sky.leastsquares import design_matrix, least_squares
from ..sky.sphere import separation_arcsec, to_tangent
from ..sky.wcs import Wcs
from .sheet import Box

DEGREE, POINTS = 3, 24
# A map that is worse says nothing.
WORST_PX = 3.0


def sky_map(wcs: Wcs, box: Box) -> dict[str, Any] | None:
    """Numbers that lead from FITS pixels of a part to the sky and back; None where no such numbers do.

    `ra`, `dec`: the middle of the part, in degrees. With u = (x - x0) / half, v = (y - y0) / half the
    tangent-plane coordinates there, in degrees, are `xi` and `eta`: coefficients of 1, u, v, u2, uv, v2, ...
    With s = xi / half_deg, t = eta / half_deg, u and v are `u` and `v` likewise. `error_arcsec`: the
    largest error of both ways, found at other points than those that were fitted.
    """
    x0, y0 = (box[0] + box[2] + 1) / 2, (box[1] + box[3] + 1) / 2
    half = max(box[2] - box[0], box[3] - box[1]) / 2
    ra, dec = (float(one) for one in wcs.to_sky(x0, y0))
    if not np.isfinite(ra + dec):
        return None
    u, v = _points(box, half, POINTS)
    xi, eta = to_tangent(*wcs.to_sky(x0 + half * u, y0 + half * v), ra, dec)
    if not (np.isfinite(xi).all() and np.isfinite(eta).all()):
        return None
    half_deg = float(max(np.abs(xi).max(), np.abs(eta).max()))
    try:
        there, _ = least_squares(design_matrix(DEGREE, u, v), np.stack([xi, eta], axis=1))
        back, _ = least_squares(
            design_matrix(DEGREE, xi / half_deg, eta / half_deg), np.stack([u, v], axis=1)
        )
    except TooFew:
        return None
    u, v = _points(box, half, 2 * POINTS - 1)
    exact_ra, exact_dec = wcs.to_sky(x0 + half * u, y0 + half * v)
    xi, eta = to_tangent(exact_ra, exact_dec, ra, dec)
    found = design_matrix(DEGREE, u, v) @ there.T
    returned = design_matrix(DEGREE, xi / half_deg, eta / half_deg) @ back.T
    error = np.hypot(found[:, 0] - xi, found[:, 1] - eta).max() * 3600
    back_px = np.hypot(returned[:, 0] - u, returned[:, 1] - v).max() * half
    scale_arcsec = float(separation_arcsec(ra, dec, *wcs.to_sky(x0 + 1, y0)))
    error_arcsec = float(max(error, back_px * scale_arcsec))
    if not error_arcsec <= WORST_PX * scale_arcsec:
        return None
    return {
        "ra": ra,
        "dec": dec,
        "x0": x0,
        "y0": y0,
        "half": half,
        "half_deg": half_deg,
        "xi": there[0].tolist(),
        "eta": there[1].tolist(),
        "u": back[0].tolist(),
        "v": back[1].tolist(),
        "error_arcsec": error_arcsec,
    }


def _points(box: Box, half: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Places evenly over a part, in units of half its longer side, from its middle."""
    across, along = (box[2] - box[0]) / 2 / half, (box[3] - box[1]) / 2 / half
    u, v = np.meshgrid(np.linspace(-across, across, steps), np.linspace(-along, along, steps))
    return u.ravel(), v.ravel()
