"""Where a global solution begins: one mosaic and the pointings, from the frames' own coordinate systems."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .match import Places, Points, as_points
from .mosaic import Mosaic, lifted, powers, rotation
from .polynomial import Doubles
from .sphere import angles, local_axes, unit_vectors
from .starmatch import ARCSEC_PER_RAD
from .wcs import Wcs

GRID = 6
ROUNDS = 6
# Differences below this count alike: half of them is noise of local solutions.
LEAST_ARCSEC = 0.05


class Placed(Protocol):
    """What is needed of a frame here."""

    @property
    def detector(self) -> str: ...
    @property
    def exposure(self) -> str: ...
    @property
    def wcs(self) -> Wcs: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def zenith_deg(self) -> tuple[float, float] | None: ...
    @property
    def refraction_arcsec(self) -> float: ...


@dataclass(frozen=True, eq=False)
class Start:
    """A mosaic to begin with, and how far off it the frames' own coordinate systems are; lost: which have no sky."""

    model: Mosaic
    apart_arcsec: Doubles
    lost: Places


def started(frames: Sequence[Placed], degree: int) -> Start:
    """The mosaic of frames that have coordinate systems.

    Detectors and exposures are numbered by their first place. Each detector is the median
    of its frames, each exposure the turn of the sphere that fits its frames best, by
    absolute differences, so that a wrong frame among several has no say.
    """
    detector, exposure = (
        numbered([one.detector for one in frames]),
        numbered([one.exposure for one in frames]),
    )
    sky = np.stack([_sky(one) for one in frames])
    lost = np.flatnonzero(~np.isfinite(sky).all(axis=(1, 2)))
    if len(lost):
        nothing = Mosaic(degree, np.empty((0, 0), np.complex128), np.empty((0, 3, 3)), np.empty(0))
        return Start(nothing, np.empty(0), lost)
    planes, axes = _first(detector, exposure, sky)
    of_detector, of_exposure = _members(detector), _members(exposure)
    away = np.zeros(len(frames))
    for _ in range(ROUNDS):
        seen = [_seen(axes[e], vectors) for e, vectors in zip(exposure, sky, strict=True)]
        for d, members in enumerate(of_detector):
            some = np.stack([seen[k] for k in members])
            planes[d] = as_points(np.median(some.real, axis=0), np.median(some.imag, axis=0))
        away = np.array([np.median(np.abs(one - planes[d])) for one, d in zip(seen, detector, strict=True)])
        weight = 1 / np.maximum(away * ARCSEC_PER_RAD, LEAST_ARCSEC)
        for e, members in enumerate(of_exposure):
            points, vectors = np.concatenate([planes[detector[k]] for k in members]), sky[members]
            axes[e] = rotation(points, vectors.reshape(-1, 3), np.repeat(weight[members], sky.shape[1]))
    away = np.array(
        [
            np.median(np.abs(_seen(axes[e], vectors) - planes[d]))
            for e, d, vectors in zip(exposure, detector, sky, strict=True)
        ]
    )
    model = Mosaic(degree, _terms(frames, detector, planes, degree), axes, np.ones(len(axes)))
    return Start(model, away * ARCSEC_PER_RAD, lost)


def seen_at_start(frames: Sequence[Placed]) -> tuple[Doubles, Doubles, Doubles]:
    """A grid of each frame where its own coordinate system puts it: unit vectors (f, g, 3), pixels x, y (f, g)."""
    pixels = [_pixels(one.shape) for one in frames]
    return (
        np.stack([_sky(one) for one in frames]),
        np.stack([x for x, _ in pixels]),
        np.stack([y for _, y in pixels]),
    )


def numbered(names: Sequence[str]) -> Places:
    """The number of each name, by its first place."""
    found: dict[str, int] = {}
    return np.array([found.setdefault(one, len(found)) for one in names], np.int64)


def _members(numbers: Places) -> list[Places]:
    order = np.argsort(numbers, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)


def _pixels(shape: tuple[int, int]) -> tuple[Doubles, Doubles]:
    ny, nx = shape
    x, y = np.meshgrid(np.linspace(1, nx, GRID), np.linspace(1, ny, GRID))
    return x.ravel(), y.ravel()


def _sky(frame: Placed) -> Doubles:
    """Unit vectors of a grid of a frame, as refraction shows them."""
    vectors = frame.wcs.vectors(*_pixels(frame.shape))
    if frame.zenith_deg is None:
        return vectors
    return lifted(vectors, unit_vectors(*frame.zenith_deg)[None, :], frame.refraction_arcsec)


def _seen(axes: Doubles, vectors: Doubles) -> Points:
    """Points of a tangent plane of unit vectors."""
    parts = vectors @ axes.T
    return as_points(parts[:, 0], parts[:, 1]) / parts[:, 2]


def _first(detector: Places, exposure: Places, sky: Doubles) -> tuple[list[Points], Doubles]:
    """The mosaic as the first exposure has it, and others that share a detector, one after the other."""
    planes: list[Points] = [np.empty(0, np.complex128)] * (int(detector.max()) + 1)
    axes = np.zeros((int(exposure.max()) + 1, 3, 3))
    with_detector, with_exposure = _members(detector), _members(exposure)
    placed = np.zeros(len(axes), np.bool_)
    for first in range(len(axes)):
        waiting = deque([first])
        while waiting:
            e = waiting.popleft()
            if placed[e]:
                continue
            placed[e] = True
            members = with_exposure[e]
            known = [k for k in members if len(planes[detector[k]])]
            if known:
                points = np.concatenate([planes[detector[k]] for k in known])
                axes[e] = rotation(points, sky[known].reshape(-1, 3))
            else:
                x, y, z = sky[members].reshape(-1, 3).mean(axis=0)
                axes[e] = np.stack(local_axes(*angles(np.asarray(x), np.asarray(y), np.asarray(z))))
            for k in members:
                if not len(planes[detector[k]]):
                    planes[detector[k]] = _seen(axes[e], sky[k])
                    waiting.extend(int(exposure[other]) for other in with_detector[detector[k]])
    return planes, axes


def _terms(frames: Sequence[Placed], detector: Places, planes: list[Points], degree: int) -> Points:
    """The polynomials of the detectors."""
    shapes = {int(d): one.shape for d, one in zip(detector, frames, strict=True)}
    made = []
    for d, points in enumerate(planes):
        design = powers(degree, *_pixels(shapes[d]), shapes[d])
        made.append(np.linalg.lstsq(design.astype(np.complex128), points, rcond=None)[0])
    return np.stack(made)
