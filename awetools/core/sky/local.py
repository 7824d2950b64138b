"""The local solution of a frame: its source table, what its header says and a reference catalogue, made into one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import NoSolution
from ..fitsheader import HeaderValue
from .localstart import Cone, Start, check_settings, circle_over_image, cone_of
from .localstart import LocalSettings as LocalSettings
from .localstart import starts_of as starts_of
from .match import Places, as_points, matched
from .polynomial import Doubles
from .refcat import Catalogue
from .search import LEAST_STARS
from .solve import Reference, Solution, Sources, solve
from .sphere import ARCSEC_PER_DEG, separation_arcsec, to_tangent
from .wcs import Wcs
from .writewcs import wcs_as_cards

Columns = Mapping[str, npt.NDArray[Any]]

# Bits of FLAGS (pixels.sources): of a centre that is off, and of what may be no star at all.
SATURATED, EDGE, INCOMPLETE, NO_CENTROID, SHARP = 4, 8, 16, 32, 2048
OFF = SATURATED | EDGE | INCOMPLETE | NO_CENTROID
# STAR below this is a galaxy, or rubbish; in the order of brightness it stands behind stars so many times fainter.
LEAST_STAR, BEHIND = 0.05, 10.0
# What a centre that is off is off by, in units of the width of a star.
OFF_BY, USUAL_FWHM_PX = 0.2, 4.0
# No image is so wide; what lies farther out is no place in one.
WIDEST_PX = 1e5
# With fewer reference stars in an image than this there is hardly a solution.
SPARSE = 6.0
# Of matched stars, those up to so many radii off count as clipped.
CLIPPED = 3.0
J2000 = datetime(2000, 1, 1, 12, tzinfo=UTC)
DAYS_PER_YEAR = 365.25


@dataclass(frozen=True, eq=False)
class LocalSolution:
    """The coordinate system of a frame; a row a matched star, the fit's own and those it clipped.

    row: of the source table; used: in the fit; x_px, y_px: 1-based; ra_ref_deg,
    dec_ref_deg: at the epoch of the frame; dra_arcsec (times cos dec), ddec_arcsec: measured less
    catalogue; sigma_arcsec: error of an axis as it was used (of what is clipped: nan); mag_ref.
    cards: of the coordinate system; measures: of `Solution`, and n_clipped,
    n_sources, n_catalogue; used_words: what was taken, by name (band, start, epoch).
    """

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


def local_solution(
    columns: Columns,
    meta: Mapping[str, Any],
    catalogue: Catalogue,
    how: LocalSettings | None = None,
) -> LocalSolution:
    """The coordinate system of a frame from its sources, its meta and a reference catalogue.

    columns: of a source table (kind `sources`), by name; meta: wcs, ra_deg, dec_deg,
    pixel_scale_arcsec, nx, ny, obs_start, exptime_s, what there is of them. Tried in turn: each start
    that the header has, within position_arcsec and then believed less (`solve`); the
    same within widest_deg. Raises NoSolution with the reason, what was tried and what would
    help; UnknownName for a band; BadValue for settings that make no sense.
    """
    how = how or LocalSettings()
    check_settings(how)
    shape = shape_of(meta, columns)
    sources = chosen_sources(columns, how.signal_to_noise)
    _usable(columns, sources)
    epoch = epoch_of(meta)
    starts = starts_of(meta, shape, how)
    failures: list[NoSolution] = []
    searched, expected = False, math.inf
    for start in starts:
        if start.centre_deg is None and searched:
            break
        try:
            stars = cone_of(catalogue, start, shape, sources, epoch, how)
            if start is starts[0]:
                expected = stars.number / circle_over_image(start, shape)
            # Without loosening, the whole catalogue was looked through as it would be blindly.
            searched = searched or (not start.guess.loosen and stars.number == catalogue.rows)
            solution = solve(
                sources,
                stars.reference,
                start.guess,
                shape=shape,
                degree=how.degree,
                clip_sigma=how.clip_sigma,
            )
        except NoSolution as problem:
            failures.append(problem)
            continue
        return _made(solution, columns, sources, stars, shape, epoch, how, start, starts[0].centre_deg)
    raise _refused(failures, starts, catalogue, expected)


# Sources


def chosen_sources(columns: Columns, signal_to_noise: float = 10.0) -> Sources:
    """All sources of a table; good are those with a centre to rely on, above a signal-to-noise ratio.

    Not good are saturated, cut off, uncentred sources, and, by flags or shape, what is no
    star. What seems no star comes behind fainter ones in the order of brightness. A row that
    cannot be used has no position here, so rows keep their numbers.
    """
    x, y = (np.asarray(columns[f"{axis}_WIN_PX"], np.float64) for axis in "XY")
    flux = np.asarray(columns["FLUX_AUTO_ADU"], np.float64)
    flags = np.asarray(columns["FLAGS"], np.int64)
    with np.errstate(all="ignore"):
        ratio = flux / np.asarray(columns["FLUX_AUTO_ERROR_ADU"], np.float64)
    squares = [np.asarray(columns[f"{axis}_WIN_ERROR_PX"], np.float64) ** 2 for axis in "XY"]
    error = np.sqrt((squares[0] + squares[1]) / 2)
    off = (flags & OFF) != 0
    error = np.where(off, np.hypot(np.nan_to_num(error), OFF_BY * _width(columns["FWHM_PX"], flags)), error)
    no_star = ((flags & SHARP) != 0) | ((np.asarray(columns["STAR"], np.float64) < LEAST_STAR) & ~off)
    usable = np.isfinite(x) & np.isfinite(y) & (flux > 0) & (flux < np.inf)
    good = usable & ~off & ~no_star & (ratio >= signal_to_noise)
    order = np.where(no_star, flux / BEHIND, flux)
    return Sources(np.where(usable, x, np.nan), y, order, error, good)


def _width(fwhm_px: npt.NDArray[Any], flags: npt.NDArray[np.int64]) -> float:
    """The median width of what has no flag."""
    known = fwhm_px[(flags == 0) & (fwhm_px > 0)]
    return float(np.median(known)) if len(known) else USUAL_FWHM_PX


def shape_of(meta: Mapping[str, Any], columns: Columns) -> tuple[int, int]:
    """(ny, nx) of the image, or as far as its sources reach."""
    nx, ny = meta.get("nx"), meta.get("ny")
    if nx and ny:
        return int(ny), int(nx)
    places = (np.asarray(columns[f"{axis}_WIN_PX"], np.float64) for axis in "YX")
    reach = [float(one[one <= WIDEST_PX].max(initial=1.0)) for one in places]
    return math.ceil(reach[0]), math.ceil(reach[1])


def epoch_of(meta: Mapping[str, Any]) -> float | None:
    """The Julian year of the middle of the exposure, or None."""
    text = meta.get("obs_start")
    if not text:
        return None
    try:
        begun = datetime.fromisoformat(str(text)).replace(tzinfo=UTC)
    except ValueError:
        return None
    days = (begun - J2000).total_seconds() + 0.5 * float(meta.get("exptime_s") or 0)
    return 2000.0 + days / 86400 / DAYS_PER_YEAR


# What is made of it


def _made(
    solution: Solution,
    columns: Columns,
    sources: Sources,
    stars: Cone,
    shape: tuple[int, int],
    epoch_yr: float | None,
    how: LocalSettings,
    start: Start,
    header_deg: tuple[float, float] | None,
) -> LocalSolution:
    reference = stars.reference
    row, star, used, sigma = _matches(solution, sources, reference)
    x, y = np.asarray(sources.x)[row], np.asarray(sources.y)[row]
    ra, dec = np.asarray(reference.ra_deg)[star], np.asarray(reference.dec_deg)[star]
    dra, ddec = _residuals(solution, x, y, ra, dec)
    clipped = len(row) - int(used.sum())
    measures = dict(solution.measures) | {
        "n_clipped": float(clipped),
        "n_sources": float(np.isfinite(np.asarray(sources.x)).sum()),
        "n_catalogue": float(stars.number),
    }
    if header_deg is not None:
        now = solution.wcs.to_sky(0.5 * (1 + shape[1]), 0.5 * (1 + shape[0]))
        measures["shift_arcsec"] = float(separation_arcsec(*header_deg, *now))
    words = {"start": start.words}
    if stars.band:
        words["band"] = stars.band
    if epoch_yr is None:
        words["epoch"] = "not known: reference stars stay where the catalogue has them"
    elif stars.still:
        some = "all" if stars.still == np.asarray(reference.ra_deg).size else "some"
        words["epoch"] = (
            f"{some} reference stars stay where the catalogue has them: no motion, or no epoch, is known"
        )
    return LocalSolution(
        wcs=solution.wcs,
        cards=wcs_as_cards(solution.wcs, how.wcs_form, shape),
        row=row,
        used=used,
        x_px=x,
        y_px=y,
        ra_ref_deg=ra,
        dec_ref_deg=dec,
        dra_arcsec=dra,
        ddec_arcsec=ddec,
        sigma_arcsec=sigma,
        mag_ref=np.asarray(reference.mag)[star],
        measures=measures,
        used_words=words,
    )


def _matches(
    solution: Solution, sources: Sources, reference: Reference
) -> tuple[Places, Places, npt.NDArray[np.bool_], Doubles]:
    """Rows of sources and stars that match, whether the fit used them, and with which error."""
    x, y = np.asarray(sources.x), np.asarray(sources.y)
    ra, dec = solution.wcs.to_sky(x, y)
    here = as_points(*to_tangent(ra, dec, *solution.tangent_deg)) * ARCSEC_PER_DEG
    there = (
        as_points(*to_tangent(reference.ra_deg, reference.dec_deg, *solution.tangent_deg)) * ARCSEC_PER_DEG
    )
    rest = np.array(here)
    rest[solution.sources] = np.nan
    if sources.good is not None and sources.good[solution.sources].all():
        rest[~sources.good] = np.nan
    free = np.array(there)
    free[solution.reference] = np.nan
    i, j = matched(rest, free, CLIPPED * solution.measures["match_radius_arcsec"])
    row, star = np.concatenate([solution.sources, i]), np.concatenate([solution.reference, j])
    used = np.arange(len(row)) < len(solution.sources)
    sigma = np.concatenate([solution.sigma_arcsec, np.full(len(i), np.nan)])
    order = np.argsort(row, kind="stable")
    return row[order], star[order], used[order], sigma[order]


def _residuals(
    solution: Solution, x: Doubles, y: Doubles, ra: Doubles, dec: Doubles
) -> tuple[Doubles, Doubles]:
    """Measured less catalogue, arcsec to the east and the north, as the fit has them."""
    measured = to_tangent(*solution.wcs.to_sky(x, y), *solution.tangent_deg)
    listed = to_tangent(ra, dec, *solution.tangent_deg)
    dra, ddec = ((one - other) * ARCSEC_PER_DEG for one, other in zip(measured, listed, strict=True))
    return np.asarray(dra, np.float64), np.asarray(ddec, np.float64)


def _refused(
    failures: list[NoSolution], starts: list[Start], catalogue: Catalogue, expected: float
) -> NoSolution:
    """One failure that says what each start came to, the first in full.

    expected: reference stars in the image, as many as elsewhere in the first circle. The hint is that
    of the first, but for a catalogue without stars enough.
    """
    first = failures[0]
    text = f"from {starts[0].words}, in catalogue {catalogue.name}: {first}"
    for start, problem in zip(starts[1:], failures[1:], strict=False):
        reason = str(problem).split("; tried: ")[0]
        text += f"; from {start.words}: {reason}"
    if expected >= SPARSE:
        return NoSolution(text, hint=first.hint)
    text += f"; about {expected:.1f} stars of the catalogue are in an image of this size there"
    return NoSolution(
        text, hint="a deeper reference catalogue, or one that covers the field: awe-refcat import"
    )


def _usable(columns: Columns, sources: Sources) -> None:
    """Raises NoSolution, with what is wrong with the sources, where there are too few of them."""
    number = int(np.isfinite(np.asarray(sources.x)).sum())
    if number >= LEAST_STARS:
        return
    every = len(columns["FLAGS"])
    raise NoSolution(
        f"{number} sources with a position and a flux, of {every}: no solution can be told from chance"
        f" with fewer than {LEAST_STARS}",
        hint="awe-sources with a lower threshold_sigma, or a longer exposure"
        if every < LEAST_STARS
        else "awe-sources of the image, or a list with fluxes (FLUX_AUTO, FLUX) that are above 0",
    )
