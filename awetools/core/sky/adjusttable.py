"""The sources and reference stars of a global solution as columns, and where a model puts them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import Mixture
from .adjustframe import Frame
from .adjuststart import numbered
from .match import Places, Points, as_points
from .mosaic import Mosaic, lowered, powers
from .polynomial import Doubles
from .solve import Reference
from .sphere import MAS_TO_RAD, at_epoch, unit_vectors
from .starmatch import stars_of

Mask = npt.NDArray[np.bool_]

# Reference stars this near to each other are one that is listed twice.
TWICE_ARCSEC = 0.2
BRIGHT = 50


@dataclass(frozen=True, eq=False)
class Table:
    """All sources of all frames, (n,) each, frame by frame; epoch and zenith by exposure.

    own: unit vectors (n, 3) by the frames' own coordinate systems; sigma: arcsec.
    """

    design: Doubles
    own: Doubles
    sigma: Doubles
    bright: Mask
    frame: Places
    detector: Places
    exposure: Places
    epoch: Doubles
    zenith: Doubles
    refraction: Doubles


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The reference at the mean epoch: unit vectors, error in arcsec, motion on the axes east and north, rad/yr."""

    place: Doubles
    sigma: Doubles
    motion: Points
    epoch: float


def table_of(frames: Sequence[Frame], degree: int) -> Table:
    """The sources of frames; those whose place on the sky is unknown have nan in `own`."""
    detectors, exposures = (
        numbered([one.detector for one in frames]),
        numbered([one.exposure for one in frames]),
    )
    columns: list[list[npt.NDArray[np.float64]]] = [[] for _ in range(4)]
    number = np.zeros(len(frames), np.int64)
    epoch = np.full(int(exposures.max()) + 1, np.nan)
    zenith, refraction = np.zeros((len(epoch), 3)), np.zeros(len(epoch))
    for k, one in enumerate(frames):
        x, y = (np.asarray(column, np.float64).ravel() for column in (one.sources.x, one.sources.y))
        if len(y) != len(x):
            raise Mixture(f"{one.name}: columns of sources of {len(x)} and {len(y)} rows")
        error = filled(one.sources.error_px, len(x), 0.0) * one.wcs.pixel_scale_arcsec
        ratio = filled(one.signal_to_noise, len(x), np.nan)
        use = np.isfinite(x) & np.isfinite(y)
        number[k] = use.sum()
        x, y = x[use], y[use]
        sigma = np.where(np.isfinite(error) & (error > 0), error, 0.0)
        made = (powers(degree, x, y, one.shape), one.wcs.vectors(x, y), sigma[use], ratio[use])
        for held, column in zip(columns, made, strict=True):
            held.append(column)
        place = exposures[k]
        if one.epoch_yr is not None:
            epoch[place] = one.epoch_yr
        if one.zenith_deg is not None:
            zenith[place], refraction[place] = unit_vectors(*one.zenith_deg), one.refraction_arcsec
    design, own, sigma, ratio = (np.concatenate(one) for one in columns)
    frame = np.repeat(np.arange(len(frames)), number)
    return Table(
        design,
        own,
        sigma,
        ratio > BRIGHT,
        frame,
        detectors[frame],
        exposures[frame],
        np.where(np.isfinite(epoch), epoch, np.nan),
        zenith,
        refraction,
    )


def filled(given: npt.ArrayLike | None, size: int, nothing: float) -> Doubles:
    """A column of a size, from one, one value for all, or None. Raises Mixture for another size."""
    column = np.full(size, nothing) if given is None else np.asarray(given, np.float64)
    if column.ndim and column.size != size:
        raise Mixture(f"columns of sources of {size} and {column.size} rows")
    return np.broadcast_to(column.ravel(), (size,)).copy()


def catalogue_of(reference: Reference | None, epochs: Doubles) -> Catalogue:
    """The reference stars at the mean epoch; one that is listed twice once."""
    known = epochs[np.isfinite(epochs)]
    middle = float(known.mean()) if len(known) else math.nan
    if reference is None:
        return Catalogue(np.empty((0, 3)), np.empty(0), np.empty(0, np.complex128), middle)
    ra = np.asarray(reference.ra_deg, np.float64).ravel()
    dec = np.asarray(reference.dec_deg, np.float64).ravel()
    size = len(ra)
    pm_ra, pm_dec, epoch, sigma = (
        filled(one, size, np.nan)
        for one in (
            reference.pm_ra_mas_yr,
            reference.pm_dec_mas_yr,
            reference.epoch_yr,
            reference.error_arcsec,
        )
    )
    years = np.nan_to_num(middle - epoch)
    ra, dec = at_epoch(ra, dec, pm_ra, pm_dec, years)
    use = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    vectors = unit_vectors(ra[use], dec[use])
    _, first = np.unique(stars_of(vectors, np.arange(len(use)), TWICE_ARCSEC), return_index=True)
    first.sort()
    use, vectors = use[first], vectors[first]
    motion = as_points(np.nan_to_num(pm_ra), np.nan_to_num(pm_dec)) * MAS_TO_RAD
    return Catalogue(vectors, np.where(sigma > 0, sigma, 0.0)[use], motion[use], middle)


def placed(table: Table, model: Mosaic, source: Places | slice) -> tuple[Points, Doubles]:
    """Points of the planes, and unit vectors on the sky without refraction, of sources."""
    exposure = table.exposure[source]
    plane = model.plane(table.detector[source], exposure, table.design[source])
    made = model.vectors(plane, exposure)
    if table.refraction.any():
        made = lowered(made, table.zenith[exposure], table.refraction[exposure])
    return plane, made
