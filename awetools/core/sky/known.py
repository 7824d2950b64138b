"""A coordinate system that is known already: how the sources of a frame lie to a reference catalogue under it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..fitsheader import HeaderValue
from .local import Columns, LocalSettings, chosen_sources, epoch_of
from .match import Places, as_points, matched
from .polynomial import Doubles
from .readwcs import read_wcs
from .refcat import Catalogue
from .sphere import ARCSEC_PER_DEG, to_tangent
from .wcs import Wcs

# Sources and reference stars are the same within this at first; then within so many times their scatter.
FIRST_RADIUS_ARCSEC, RADIUS_SIGMA = 3.0, 5.0
LEAST_RADIUS_ARCSEC = 0.3
MEDIAN_TO_SIGMA = 1 / math.sqrt(2 * math.log(2))


@dataclass(frozen=True, eq=False)
class Known:
    """What `LocalSolution` has, of a coordinate system that was not sought here; used: nearer than the scatter."""

    wcs: Wcs
    cards: dict[str, HeaderValue]
    row: Places
    used: npt.NDArray[np.bool_]
    x_px: Doubles
    y_px: Doubles
    ra_ref_deg: Doubles
    dec_ref_deg: Doubles
    dra_arcsec: Doubles
    ddec_arcsec: Doubles
    sigma_arcsec: Doubles
    mag_ref: Doubles
    measures: dict[str, float]
    used_words: dict[str, str]


def known_solution(
    columns: Columns,
    meta: Mapping[str, Any],
    cards: Mapping[str, HeaderValue],
    catalogue: Catalogue | None,
    how: LocalSettings,
) -> Known:
    """The sources of a frame beside the stars of a catalogue, under the coordinate system of some cards.

    columns, meta: of a source table. Without a catalogue: all sources that are good for
    astrometry, by themselves. Raises BadHeader for cards that are none.
    """
    wcs = read_wcs(dict(cards))
    sources = chosen_sources(columns, how.signal_to_noise)
    x, y = np.asarray(sources.x, np.float64), np.asarray(sources.y, np.float64)
    good = np.isfinite(x) if sources.good is None else np.asarray(sources.good, bool)
    ny, nx = int(meta.get("ny") or np.nanmax(y, initial=1)), int(meta.get("nx") or np.nanmax(x, initial=1))
    middle = tuple(float(one) for one in wcs.to_sky(0.5 * (1 + nx), 0.5 * (1 + ny)))
    rows = np.flatnonzero(good)
    stars, star = _stars(wcs, x[rows], y[rows], catalogue, middle, math.hypot(nx, ny), epoch_of(meta))
    if catalogue is not None:
        rows, star = rows[star >= 0], star[star >= 0]
    nothing = np.full(len(rows), np.nan)
    ra_ref, dec_ref, mag = (stars[name][star] if catalogue else nothing for name in ("ra", "dec", "mag"))
    here = to_tangent(*wcs.to_sky(x[rows], y[rows]), *middle)
    there = to_tangent(ra_ref, dec_ref, *middle) if catalogue else (nothing, nothing)
    dra, ddec = ((one - other) * ARCSEC_PER_DEG for one, other in zip(here, there, strict=True))
    measures = _measures(dra, ddec, int(good.sum()), len(stars["ra"])) if catalogue else {}
    measures |= {
        "n_sources": float(good.sum()),
        "pixel_scale_arcsec": wcs.pixel_scale_arcsec,
        "position_angle_deg": wcs.position_angle_deg,
        "parity": float(wcs.parity),
    }
    return Known(
        wcs=wcs,
        cards=dict(cards),
        row=rows,
        used=np.ones(len(rows), bool),
        x_px=x[rows],
        y_px=y[rows],
        ra_ref_deg=ra_ref,
        dec_ref_deg=dec_ref,
        dra_arcsec=np.asarray(dra),
        ddec_arcsec=np.asarray(ddec),
        sigma_arcsec=nothing,
        mag_ref=mag,
        measures=measures,
        used_words={},
    )


def _stars(
    wcs: Wcs,
    x: Doubles,
    y: Doubles,
    catalogue: Catalogue | None,
    middle: tuple[float, ...],
    diagonal_px: float,
    epoch_yr: float | None,
) -> tuple[dict[str, Doubles], Places]:
    """The stars of a frame's field, and of each source the place of its star, or -1."""
    if catalogue is None:
        return {"ra": np.empty(0)}, np.full(len(x), -1)
    radius_deg = (0.55 * diagonal_px * wcs.pixel_scale_arcsec + FIRST_RADIUS_ARCSEC) / ARCSEC_PER_DEG
    found = catalogue.cone(middle[0], middle[1], radius_deg, epoch_yr=epoch_yr)
    counts = {band: int(np.isfinite(found[f"mag_{band}"]).sum()) for band in catalogue.bands}
    band = max(counts, key=lambda one: counts[one], default="")
    mag = found[f"mag_{band}"] if band else np.full(len(found["ra_deg"]), np.nan)
    stars = {"ra": found["ra_deg"], "dec": found["dec_deg"], "mag": np.asarray(mag, np.float64)}
    here = as_points(*to_tangent(*wcs.to_sky(x, y), middle[0], middle[1])) * ARCSEC_PER_DEG
    there = as_points(*to_tangent(stars["ra"], stars["dec"], middle[0], middle[1])) * ARCSEC_PER_DEG
    i, j = matched(here, there, FIRST_RADIUS_ARCSEC)
    if len(i):
        sigma = float(np.median(np.abs(here[i] - there[j]))) * MEDIAN_TO_SIGMA
        near = np.abs(here[i] - there[j]) <= max(LEAST_RADIUS_ARCSEC, RADIUS_SIGMA * sigma)
        i, j = i[near], j[near]
    star = np.full(len(x), -1)
    star[i] = j
    return stars, star


def _measures(dra: Doubles, ddec: Doubles, n_sources: int, n_catalogue: int) -> dict[str, float]:
    number = len(dra)
    if not number:
        return {"n_ref": 0.0, "n_catalogue": float(n_catalogue)}
    return {
        "n_ref": float(number),
        "n_catalogue": float(n_catalogue),
        "rms_arcsec": math.sqrt(float((dra * dra + ddec * ddec).mean())),
        "sig_dra_arcsec": float(dra.std()),
        "sig_ddec_arcsec": float(ddec.std()),
        "mean_dra_arcsec": float(dra.mean()),
        "mean_ddec_arcsec": float(ddec.mean()),
        "matched_fraction": number / max(1, min(n_sources, n_catalogue)),
    }
