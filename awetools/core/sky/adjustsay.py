"""What is said of a global solution: its residuals, and each frame's coordinate system and measures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .adjustfit import Fit, Problem, means, scatter
from .adjustframe import Adjusted, Frame
from .adjusttable import Mask, Table
from .fitwcs import fit_polynomial, wcs_of_fit
from .match import Places
from .mosaic import Mosaic, lowered, powers
from .polynomial import Doubles
from .sphere import angles, to_tangent
from .starmatch import ARCSEC_PER_RAD
from .wcs import Wcs

# Points of an axis at which a coordinate system is taken; a polynomial needs more than its degree.
GRID, MORE_THAN_DEGREE = 7, 2


def measures_of(problem: Problem, fit: Fit, which: Mask) -> dict[str, float]:
    """Residuals of some stars, of one axis: internal (of sources about their mean) and external (to the reference)."""
    given, used = fit.given, fit.used
    mean, total = means(given, used, False)
    number = np.bincount(given.star, used, len(given.anchor))
    away = np.abs(given.rows.away - mean[given.star]) * ARCSEC_PER_RAD
    overlap = used & (number[given.star] >= 2) & which[given.star]
    left = 1 - given.weight / np.where(total > 0, total, 1.0)[given.star]
    bright = overlap & problem.table.bright[fit.stars.source]
    pinned = (given.anchor > 0) & (total > 0) & which
    apart = np.abs(given.above - mean)[pinned] * ARCSEC_PER_RAD
    return {
        "internal_rms_arcsec": _root(away[overlap], left[overlap]),
        "internal_bright_rms_arcsec": _root(away[bright], left[bright]),
        "external_rms_arcsec": _root(apart, np.ones(len(apart))),
    }


def _root(away: Doubles, left: Doubles) -> float:
    """The rms of one axis of differences of two, of which a part of the variance is left; nan of none."""
    return math.sqrt(float((away * away).sum()) / (2 * float(left.sum()))) if len(away) else math.nan


def counts_of(problem: Problem, fit: Fit, frames: int) -> dict[str, float]:
    """Of how much a fit is, and what it learnt."""
    stars, state = fit.stars, fit.state
    return {
        "frames": float(frames),
        "detectors": float(len(state.model.detectors)),
        "exposures": float(len(state.model.frames)),
        "stars": float(len(stars.known)),
        "reference_stars": float((stars.known >= 0).sum()),
        "held_stars": float(stars.held.sum()),
        "sources": float(fit.used.sum()),
        "clipped_fraction": 1 - float(fit.used.mean()),
        "extra_scatter_arcsec": math.sqrt(float(np.median(state.extra))),
        "reference_scatter_arcsec": math.sqrt(state.reference_extra),
        "match_radius_arcsec": fit.radius_arcsec,
    }


def results(
    frames: Sequence[Frame], detectors: Places, exposures: Places, problem: Problem, fit: Fit
) -> tuple[Adjusted, ...]:
    """The coordinate system and the measures of each frame."""
    table, used, stars = problem.table, fit.used, fit.stars
    square, left = scatter(fit.given, used)
    frame, size = table.frame[stars.source], len(frames)
    number = np.bincount(frame, used, size)
    free = np.bincount(frame, used * left, size)
    rms = np.sqrt(np.bincount(frame, used * square, size) / 2 / np.where(free > 0, free, np.nan))
    pinned = np.bincount(frame, used & (stars.known[stars.star] >= 0), size)
    clipped = np.bincount(frame, ~used, size)
    made = []
    for k, one in enumerate(frames):
        wcs = _wcs(one, table, fit.state.model, int(detectors[k]), int(exposures[k]))
        y, x = 0.5 * (1 + one.shape[0]), 0.5 * (1 + one.shape[1])
        now, before = wcs.vectors(x, y), one.wcs.vectors(x, y)
        measures = {
            "stars": float(number[k]),
            "reference_stars": float(pinned[k]),
            "clipped": float(clipped[k]),
            "rms_arcsec": float(rms[k]),
            "shift_arcsec": float(np.linalg.norm(now - before)) * ARCSEC_PER_RAD,
            "extra_scatter_arcsec": math.sqrt(float(fit.state.extra[exposures[k]])),
            "pixel_scale_arcsec": wcs.pixel_scale_arcsec,
            "position_angle_deg": wcs.position_angle_deg,
        }
        made.append(Adjusted(one.name, wcs, measures))
    return tuple(made)


def _wcs(frame: Frame, table: Table, model: Mosaic, detector: int, exposure: int) -> Wcs:
    """The coordinate system about the middle of the frame: a polynomial there to 1e-9 arcsec and better."""
    ny, nx = frame.shape
    size = max(GRID, model.degree + MORE_THAN_DEGREE)
    x, y = (
        one.ravel() for one in np.meshgrid(np.linspace(0.5, nx + 0.5, size), np.linspace(0.5, ny + 0.5, size))
    )
    x, y = np.r_[x, 0.5 * (nx + 1)], np.r_[y, 0.5 * (ny + 1)]
    which = np.full(len(x), exposure)
    plane = model.plane(np.full(len(x), detector), which, powers(model.degree, x, y, frame.shape))
    vectors = model.vectors(plane, which)
    if table.refraction[exposure]:
        vectors = lowered(vectors, table.zenith[which], table.refraction[which])
    return wcs_through(model.degree, x, y, vectors)


def wcs_through(degree: int, x: Doubles, y: Doubles, vectors: Doubles) -> Wcs:
    """The coordinate system whose pixels x, y lie at unit vectors (n, 3); its tangent point is the last of them."""
    ra, dec = angles(*(vectors[:, k] for k in range(3)))
    middle = float(ra[-1]), float(dec[-1])
    return wcs_of_fit(fit_polynomial(degree, x, y, *to_tangent(ra, dec, *middle)), middle)
