"""What stars tell of the flats of a mosaic, as one table of values: magnitudes of frames and known ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..pixels.illumination import legendre, terms_of
from ..sky.match import Places
from ..sky.polynomial import Doubles
from .framestars import Anchors, held_part
from .robustfit import LEAST_VARIANCE, Mask

# Colours are fitted where so many known stars have one, over so many magnitudes (rms).
LEAST_COLOURS, LEAST_COLOUR_RMS_MAG = 20, 0.1


@dataclass(frozen=True, eq=False)
class PlacedStars:
    """A frame of a detector: numbers of stars, their places from -1 to 1, instrumental magnitudes, errors, (n,)."""

    detector: str
    exposure: str
    star: npt.ArrayLike
    u: npt.ArrayLike
    v: npt.ArrayLike
    mag: npt.ArrayLike
    error_mag: npt.ArrayLike


@dataclass(frozen=True, eq=False)
class Values:
    """Instrumental and known magnitudes, one below the other, (n,): frame (-1 of known ones), star, value, variance,
    and what P and the colour have in them, (n, terms) at columns ``at`` (n, terms). coloured: the last term is
    that of the colour."""

    frame: Places
    star: Places
    mag: Doubles
    variance: Doubles
    basis: Doubles
    at: Places
    fold: Places
    frames: int
    terms: int
    coloured: bool

    @property
    def known(self) -> Mask:
        """Which are magnitudes of the catalogue."""
        return np.asarray(self.frame < 0)

    def some(self, kept: Mask) -> Values:
        """A part of them."""
        names = ("frame", "star", "mag", "variance", "basis", "at", "fold")
        return replace(self, **{name: getattr(self, name)[kept] for name in names})


def values_of(
    frames: Sequence[PlacedStars],
    anchors: Anchors | None,
    detectors: Sequence[str],
    degree: int,
    folds: int,
    fit_colour: bool,
) -> tuple[Values, float]:
    """All values of stars that two frames have, or that are known; and the rms of their colours, if they are fitted."""
    terms = terms_of(degree)
    number = [len(np.asarray(one.star)) for one in frames]
    frame = np.repeat(np.arange(len(frames)), number)
    star, u, v, mag, error = (
        np.concatenate([np.asarray(getattr(one, name)) for one in frames])
        for name in ("star", "u", "v", "mag", "error_mag")
    )
    basis = _basis(u, v, terms)
    detector = np.array([detectors.index(one.detector) for one in frames])[frame]
    at = detector[:, None] * len(terms) + np.arange(len(terms))
    known, known_mag, known_variance, colour, rms = _anchored(anchors, fit_colour)
    size = len(known)
    wide = np.zeros((size, len(terms)))
    wide[:, 0] = colour
    count = len(detectors) * len(terms) + int(rms > 0)
    values = Values(
        np.concatenate([frame, np.full(size, -1)]),
        np.concatenate([star, known]).astype(np.int64),
        np.concatenate([mag, known_mag]).astype(np.float64),
        np.concatenate([np.square(error), known_variance]),
        # m + Z - P = M, and m - c colour = M of a known one.
        np.concatenate([-basis, -wide]),
        np.concatenate([at, np.full((size, len(terms)), count - 1)]),
        np.zeros(len(star) + size, np.int64),
        len(frames),
        count,
        rms > 0,
    )
    with np.errstate(invalid="ignore"):
        good = np.isfinite(values.mag) & (values.known | (values.variance > 0))
    values = values.some(good)
    values = values.some(_tell(values))
    names, place = np.unique(values.star, return_inverse=True)
    fold = held_part(names, folds)
    variance = np.maximum(values.variance, LEAST_VARIANCE)
    return replace(values, star=place.astype(np.int64), fold=fold[place], variance=variance), rms


def _basis(u: Doubles, v: Doubles, terms: Sequence[tuple[int, int]]) -> Doubles:
    degree = max(sum(one) for one in terms)
    along_x, along_y = legendre(u, degree), legendre(v, degree)
    return np.stack([along_x[i] * along_y[j] for i, j in terms], axis=1)


def _anchored(
    anchors: Anchors | None, fit_colour: bool
) -> tuple[npt.NDArray[np.int64], Doubles, Doubles, Doubles, float]:
    """Numbers, magnitudes, variances of known stars, their colours about the mean in units of their rms, that rms."""
    if anchors is None:
        nothing = np.zeros(0)
        return np.zeros(0, np.int64), nothing, nothing, nothing, 0.0
    star = np.asarray(anchors.star).astype(np.int64)
    mag = np.asarray(anchors.mag, np.float64)
    variance = np.square(np.nan_to_num(np.asarray(anchors.error_mag, np.float64)))
    colour = np.full(len(star), np.nan) if anchors.colour is None else np.asarray(anchors.colour, np.float64)
    told = np.isfinite(colour) & np.isfinite(mag)
    rms = 0.0
    if fit_colour and told.sum() >= LEAST_COLOURS:
        low, middle, high = np.percentile(colour[told], [16, 50, 84])
        rms = float(high - low) / 2
    if rms < LEAST_COLOUR_RMS_MAG:
        return star, mag, variance, np.zeros(len(star)), 0.0
    # One without a colour would be off by it.
    return star[told], mag[told], variance[told], np.clip((colour[told] - middle) / rms, -5, 5), rms


def _tell(values: Values) -> Mask:
    """Which values are of stars that have others; none of a star that a frame has twice."""
    key = values.star * (values.frames + 1) + values.frame + 1
    _, place, count = np.unique(key, return_inverse=True, return_counts=True)
    once = count[place] == 1
    names, star = np.unique(values.star, return_inverse=True)
    common = np.bincount(star, once, len(names)) >= 2
    seen = np.bincount(star, once & ~values.known, len(names)) >= 1
    return np.asarray(once & common[star] & seen[star])
