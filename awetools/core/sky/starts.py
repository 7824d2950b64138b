"""Where the frames of a global solution begin, and the reference stars of all their fields."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import BadHeader, NoSolution
from .local import Columns, LocalSettings, local_solution
from .refcat import Catalogue, Stars
from .solve import Reference
from .sphere import ARCSEC_PER_DEG
from .tie import tied_lists
from .wcs import Wcs

COLUMNS = (
    "ra_deg",
    "dec_deg",
    "ra_error_mas",
    "dec_error_mas",
    "epoch_yr",
    "pm_ra_mas_yr",
    "pm_dec_mas_yr",
)
# What a field is read wider by, for stars at its edge and what is still to be moved.
MARGIN = 1.05


def placed(
    lists: Sequence[tuple[Columns, Mapping[str, Any]]], catalogue: Catalogue | None, how: LocalSettings
) -> tuple[dict[int, Wcs], dict[int, str]]:
    """The coordinate systems in which frames begin, by the number of their source list, and why others have none.

    lists: columns and meta of source tables. With a catalogue each is solved by itself, and
    those that fail are tied to the others; without one all are tied to each other (sky.tie).
    """
    if catalogue is None:
        return tied_lists(lists, how)
    found: dict[int, Wcs] = {}
    reasons: dict[int, str] = {}
    for number, (columns, meta) in enumerate(lists):
        try:
            found[number] = local_solution(columns, meta, catalogue, how).wcs
        except (NoSolution, BadHeader) as problem:
            # What is wrong with the catalogue, or with the settings, is no frame's fault.
            reasons[number] = problem.message
    if not found or not reasons:
        return found, reasons
    together, alone = tied_lists(lists, how, found)
    return together, {number: f"{reasons[number]}; and {why}" for number, why in alone.items()}


def reference_of(catalogue: Catalogue, fields: Iterable[tuple[Wcs, tuple[int, int]]]) -> Reference:
    """The stars of a catalogue in some fields, each star once, where the catalogue has them.

    fields: a coordinate system and the shape (ny, nx) that it is of.
    """
    read: dict[tuple[float, float], Stars] = {}
    for wcs, (ny, nx) in fields:
        ra, dec = (float(one) for one in wcs.to_sky(0.5 * (1 + nx), 0.5 * (1 + ny)))
        radius_deg = MARGIN * 0.5 * math.hypot(nx, ny) * wcs.pixel_scale_arcsec / ARCSEC_PER_DEG
        # Fields that lie almost upon each other are read once.
        step = 0.1 * radius_deg
        cell = (round(ra * math.cos(math.radians(dec)) / step), round(dec / step))
        if cell not in read:
            read[cell] = catalogue.cone(ra, dec, radius_deg + step, columns=COLUMNS)
    together = {name: np.concatenate([one[name] for one in read.values()]) for name in COLUMNS}
    both = np.stack([together["ra_deg"], together["dec_deg"]])
    _, first = np.unique(both, axis=1, return_index=True)
    stars = {name: column[np.sort(first)] for name, column in together.items()}
    error = np.sqrt(
        (stars["ra_error_mas"].astype(float) ** 2 + stars["dec_error_mas"].astype(float) ** 2) / 2
    )
    return Reference(
        stars["ra_deg"],
        stars["dec_deg"],
        error_arcsec=error / 1000,
        epoch_yr=stars["epoch_yr"],
        pm_ra_mas_yr=stars["pm_ra_mas_yr"],
        pm_dec_mas_yr=stars["pm_dec_mas_yr"],
    )
