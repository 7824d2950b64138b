"""A coordinate system that is known already: how the sources of a frame lie to a reference catalogue under it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..fitsheader import HeaderValue
from .local import Columns, LocalSettings, LocalSolution, chosen_sources, epoch_of, shape_of
from .match import Places, as_points, matched
from .polynomial import Doubles
from .readwcs import read_wcs
from .refcat import Catalogue, Stars
from .sphere import ARCSEC_PER_DEG, to_tangent
from .wcs import Wcs

# Sources and reference stars are the same within this, or a pixel, at first; then within so many times their scatter.
FIRST_RADIUS_ARCSEC, RADIUS_SIGMA = 3.0, 5.0
LEAST_RADIUS_ARCSEC = 0.3
# Of the diagonal, with a margin for distortion.
HALF = 0.55
MEDIAN_TO_SIGMA = 1 / math.sqrt(2 * math.log(2))


def known_solution(
    columns: Columns,
    meta: Mapping[str, Any],
    cards: Mapping[str, HeaderValue],
    catalogue: Catalogue | None,
    how: LocalSettings,
) -> LocalSolution:
    """The sources of a frame beside the stars of a catalogue, under the coordinate system of some cards.

    columns, meta: of a source table. Without a catalogue: all sources that are good for
    astrometry, by themselves. Raises BadHeader for cards that are none.
    """
    wcs = read_wcs(dict(cards))
    sources = chosen_sources(columns, how.signal_to_noise)
    x, y = np.asarray(sources.x, np.float64), np.asarray(sources.y, np.float64)
    good = np.isfinite(x) if sources.good is None else np.asarray(sources.good, bool)
    rows = np.flatnonzero(good)
    shape = shape_of(meta, columns)
    nothing = np.full(len(rows), np.nan)
    ra_ref, dec_ref, mag, dra, ddec = (nothing,) * 5
    number = 0
    if catalogue is not None:
        stars, star = stars_beside(wcs, x[rows], y[rows], shape, catalogue, epoch_of(meta))
        number = len(stars["ra_deg"])
        rows, star = rows[star >= 0], star[star >= 0]
        ra_ref, dec_ref = stars["ra_deg"][star], stars["dec_deg"][star]
        mag = _magnitudes(stars, catalogue.bands)[star]
        nothing = np.full(len(rows), np.nan)
        middle = _middle(wcs, shape)
        here = to_tangent(*wcs.to_sky(x[rows], y[rows]), *middle)
        there = to_tangent(ra_ref, dec_ref, *middle)
        dra, ddec = ((one - other) * ARCSEC_PER_DEG for one, other in zip(here, there, strict=True))
    measures = _measures(dra, ddec, int(good.sum()), number) if catalogue is not None else {}
    measures |= {
        "n_sources": float(good.sum()),
        "pixel_scale_arcsec": wcs.pixel_scale_arcsec,
        "position_angle_deg": wcs.position_angle_deg,
        "parity": float(wcs.parity),
    }
    return LocalSolution(
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


def stars_beside(
    wcs: Wcs,
    x: Doubles,
    y: Doubles,
    shape: tuple[int, int],
    catalogue: Catalogue,
    epoch_yr: float | None,
) -> tuple[Stars, Places]:
    """The stars of a frame's field at an epoch, and for each position the place of its star, or -1.

    x, y: FITS pixels, (n,). A star is that of a position if they are nearest to each other,
    within FIRST_RADIUS_ARCSEC, or a pixel if that is larger, and RADIUS_SIGMA times their common scatter.
    """
    middle = _middle(wcs, shape)
    first = max(FIRST_RADIUS_ARCSEC, wcs.pixel_scale_arcsec)
    radius_deg = (HALF * math.hypot(*shape) * wcs.pixel_scale_arcsec + first) / ARCSEC_PER_DEG
    stars = catalogue.cone(*middle, radius_deg, epoch_yr=epoch_yr)
    here = as_points(*to_tangent(*wcs.to_sky(x, y), *middle)) * ARCSEC_PER_DEG
    there = as_points(*to_tangent(stars["ra_deg"], stars["dec_deg"], *middle)) * ARCSEC_PER_DEG
    i, j = matched(here, there, first)
    if len(i):
        away = np.abs(here[i] - there[j])
        near = away <= max(LEAST_RADIUS_ARCSEC, RADIUS_SIGMA * MEDIAN_TO_SIGMA * float(np.median(away)))
        i, j = i[near], j[near]
    star = np.full(len(x), -1)
    star[i] = j
    return stars, star


def _middle(wcs: Wcs, shape: tuple[int, int]) -> tuple[float, float]:
    ra, dec = wcs.to_sky(0.5 * (1 + shape[1]), 0.5 * (1 + shape[0]))
    return float(ra), float(dec)


def _magnitudes(stars: Stars, bands: Sequence[str]) -> Doubles:
    """The magnitudes of the band that most stars have; nan without any."""
    counts = {band: int(np.isfinite(stars[f"mag_{band}"]).sum()) for band in bands}
    band = max(counts, key=lambda one: counts[one], default="")
    mag = stars[f"mag_{band}"] if band else np.full(len(stars["ra_deg"]), np.nan)
    return np.asarray(mag, np.float64)


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
