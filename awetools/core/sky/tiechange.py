"""By what a coordinate system is off, as stars say it, and the coordinate system after that change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .adjustsay import wcs_through
from .match import Points, as_points
from .polynomial import Doubles
from .sphere import angles, local_axes
from .starmatch import ARCSEC_PER_RAD
from .wcs import Wcs

CLIPPINGS, CLIP = 3, 4.0
LEAST_CLIP_ARCSEC = 0.1
LEAST_STARS = 3
GRID, DEGREE = 7, 4


@dataclass(frozen=True)
class Change:
    """What was wrong with a start: a turn of the sphere (3, 3), and a turn and scale of the frame about its middle."""

    sphere: Doubles
    spin: complex
    stars: int


def change_of(
    start: Wcs, shape: tuple[int, int], x: Doubles, y: Doubles, there: Doubles, turned: bool
) -> Change | None:
    """The shift, and the turn and scale, that bring pixels of a start to unit vectors, robustly; None without any."""
    middle = start.vectors(0.5 * (1 + shape[1]), 0.5 * (1 + shape[0])).reshape(3)
    frame = np.stack(local_axes(*angles(*(np.asarray(one) for one in middle))))
    here, target = (plane_of(frame, one) for one in (start.vectors(x, y), there))
    use = np.isfinite(here) & np.isfinite(target)
    spin, shift = 1 + 0j, 0j
    for _ in range(CLIPPINGS):
        if use.sum() < LEAST_STARS:
            return None
        a, b = here[use], target[use]
        if turned:
            away = a - a.mean()
            spin = complex((away.conj() * (b - b.mean())).sum() / (away.conj() * away).sum().real)
        shift = complex((b - spin * a).mean())
        off = np.abs(target - spin * here - shift)
        limit = max(CLIP * 1.5 * float(np.median(off[use])), LEAST_CLIP_ARCSEC / ARCSEC_PER_RAD)
        use = np.isfinite(off) & (off <= limit)
    to = frame[2] + shift.real * frame[0] + shift.imag * frame[1]
    return Change(turn_of(middle, to / np.linalg.norm(to)), spin, int(use.sum()))


def plane_of(frame: Doubles, vectors: Doubles) -> Points:
    """Points, rad, of unit vectors in the tangent plane of a frame (3, 3): two axes and outwards."""
    parts = vectors @ frame.T
    with np.errstate(all="ignore"):
        return as_points(parts[:, 0], parts[:, 1]) / np.where(parts[:, 2] > 0, parts[:, 2], np.nan)


def turn_of(one: Doubles, other: Doubles) -> Doubles:
    """The least turn of the sphere that brings a unit vector to another."""
    axis = np.cross(one, other)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.asarray(np.eye(3) + cross + cross @ cross / (1 + float(one @ other)), np.float64)


def changed(wcs: Wcs, shape: tuple[int, int], change: Change) -> Wcs:
    """A coordinate system after a change: turned and scaled about its middle, then with the sphere."""
    ny, nx = shape
    x, y = (
        one.ravel() for one in np.meshgrid(np.linspace(0.5, nx + 0.5, GRID), np.linspace(0.5, ny + 0.5, GRID))
    )
    x, y = np.r_[x, 0.5 * (nx + 1)], np.r_[y, 0.5 * (ny + 1)]
    vectors = wcs.vectors(x, y)
    frame = np.stack(local_axes(*angles(*(np.asarray(one) for one in vectors[-1]))))
    plane = plane_of(frame, vectors) * change.spin
    made = frame[2] + plane.real[:, None] * frame[0] + plane.imag[:, None] * frame[1]
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return wcs_through(DEGREE if wcs.distortion is not None else 3, x, y, made @ change.sphere.T)
