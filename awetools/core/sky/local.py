"""The local solution of a frame: its source table, what its header says and a reference catalogue, made into one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import AweError, BadHeader, BadValue, NoSolution, UnknownName
from ..fitsheader import HeaderValue
from ..units import to_j2000
from .match import Places, as_points, matched
from .polynomial import Doubles
from .readwcs import read_wcs
from .refcat import Catalogue
from .solve import Guess, Reference, Solution, Sources, solve
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
OFF_BY = 0.2
# By this much the scale of a header may be wrong; that of a camera table; without a word beyond them.
SCALE_FRACTION = 0.05
# By this much a header's scale is wrong at most, when its own range leads nowhere (solve.LOOSE_SCALE).
WIDER = 1.2
# Of the reference stars of a cone the brightest stay: so many to a source of equal area.
PER_SOURCE, LEAST_REFERENCE = 4.0, 1000
# Of matched stars, those up to so many radii off count as clipped.
CLIPPED = 3.0
J2000 = datetime(2000, 1, 1, 12, tzinfo=UTC)
DAYS_PER_YEAR = 365.25


@dataclass(frozen=True)
class LocalSettings:
    """How a local solution is sought; 0 and "" mean that header and catalogue say it.

    degree: the highest of the polynomial; wcs_form: 'SIP' or 'TPV', as its distortion is
    written; clip_sigma; position_arcsec: how far off the header's position may be, and
    widest_deg: how far it is sought when nothing is found there; turn_deg,
    scale_fraction: how far off a header's WCS may be; scale_low_arcsec,
    scale_high_arcsec: pixel scales, in place of the header's; parity: -1 as the sky is
    seen, 1 mirrored, 0 either (a WCS has its own); ra_deg, dec_deg: a pointing in place
    of the header's; header: 'wcs', 'pointing' (its WCS does not count) or 'none'
    (neither does its pointing: blind); band: whose magnitudes order the reference
    stars; signal_to_noise: the least of a source the fit rests on.
    """

    degree: int = 3
    wcs_form: str = "SIP"
    clip_sigma: float = 3.5
    position_arcsec: float = 300.0
    widest_deg: float = 1.5
    turn_deg: float = 10.0
    scale_fraction: float = SCALE_FRACTION
    scale_low_arcsec: float = 0.0
    scale_high_arcsec: float = 0.0
    parity: int = 0
    ra_deg: float | None = None
    dec_deg: float | None = None
    header: str = "wcs"
    band: str = ""
    signal_to_noise: float = 10.0


@dataclass(frozen=True, eq=False)
class LocalSolution:
    """The solution of a frame; a row a matched star, the fit's own and those it clipped.

    row: of the source table; used: in the fit; x_px, y_px: 1-based; ra_ref_deg,
    dec_ref_deg: at the epoch of the frame; dra_arcsec (times cos dec), ddec_arcsec: measured less
    catalogue; sigma_arcsec: error of an axis as it was used (of what is clipped: nan); mag_ref.
    cards: of the coordinate system; measures: of `Solution`, and n_clipped,
    n_sources, n_catalogue; used_words: what was taken, by name (band, start, epoch).
    """

    solution: Solution
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

    @property
    def wcs(self) -> Wcs:
        """The coordinate system."""
        return self.solution.wcs


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
    _check(how)
    shape = shape_of(meta, columns)
    sources = chosen_sources(columns, how.signal_to_noise)
    epoch = epoch_of(meta)
    starts = starts_of(meta, shape, how)
    failures: list[NoSolution] = []
    for start in starts:
        try:
            stars = cone_of(catalogue, start, shape, sources, epoch, how)
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
        return _made(solution, columns, sources, stars, shape, epoch, how, start)
    raise _refused(failures, starts, catalogue)


def _check(how: LocalSettings) -> None:
    low, high = how.scale_low_arcsec, how.scale_high_arcsec
    if (low or high) and not 0 < low <= high:
        raise BadValue(
            f"pixel scales from {low:g} to {high:g} arcsec: the least comes first, and both are given"
        )
    if (how.ra_deg is None) != (how.dec_deg is None):
        raise BadValue("a pointing is RA and Dec: one is missing")
    if how.header not in ("wcs", "pointing", "none"):
        raise BadValue(f"header = {how.header!r}: it is wcs, pointing or none")


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
        wide = float(np.nanmedian(np.where(flags == 0, columns["FWHM_PX"], np.nan))) if len(x) else math.nan
    squares = [np.asarray(columns[f"{axis}_WIN_ERROR_PX"], np.float64) ** 2 for axis in "XY"]
    error = np.sqrt((squares[0] + squares[1]) / 2)
    off = (flags & OFF) != 0
    error = np.where(off, np.hypot(np.nan_to_num(error), OFF_BY * (wide if wide > 0 else 4.0)), error)
    no_star = ((flags & SHARP) != 0) | ((np.asarray(columns["STAR"], np.float64) < LEAST_STAR) & ~off)
    usable = np.isfinite(x) & np.isfinite(y) & (flux > 0)
    good = usable & ~off & ~no_star & (ratio >= signal_to_noise)
    order = np.where(no_star, flux / BEHIND, flux)
    return Sources(np.where(usable, x, np.nan), y, order, error, good)


def shape_of(meta: Mapping[str, Any], columns: Columns) -> tuple[int, int]:
    """(ny, nx) of the image, or as far as its sources reach."""
    nx, ny = meta.get("nx"), meta.get("ny")
    if nx and ny:
        return int(ny), int(nx)
    reach = [float(np.nanmax(columns[f"{axis}_WIN_PX"], initial=1.0)) for axis in "YX"]
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


# Where to begin


@dataclass(frozen=True)
class Start:
    """A guess, the circle of catalogue that it needs (the whole without a centre), and words for it."""

    guess: Guess
    centre_deg: tuple[float, float] | None
    radius_deg: float
    words: str


def starts_of(meta: Mapping[str, Any], shape: tuple[int, int], how: LocalSettings) -> list[Start]:
    """Where a solution may begin, the likeliest first. Raises NoSolution where nothing is known at all."""
    wcs, why = _header_wcs(meta, how)
    pointing = _pointing(meta, how)
    scale = _scales(meta, wcs, how)
    half_px = 0.5 * math.hypot(*shape)
    parity = how.parity or None
    made: list[Start] = []
    middle = None
    if wcs is not None:
        middle = _middle(wcs, shape)
    if wcs is not None and middle is not None:
        guess = Guess(
            wcs=wcs,
            position_arcsec=how.position_arcsec,
            turn_deg=how.turn_deg,
            scale_fraction=how.scale_fraction,
        )
        size = half_px * wcs.pixel_scale_arcsec * WIDER
        made.append(Start(guess, middle, (size + how.position_arcsec) / ARCSEC_PER_DEG, "the header's WCS"))
    if scale is None:
        raise NoSolution(
            "the pixel scale is not known: the header has none, and the camera table neither",
            hint="--scale-low-arcsec 0.2 --scale-high-arcsec 0.3",
        )
    size = half_px * scale[1] * WIDER
    far = (
        middle is None
        or pointing is None
        or (float(separation_arcsec(*middle, *pointing)) > 0.5 * how.position_arcsec)
    )
    if pointing is not None and far:
        guess = Guess(
            pointing_deg=pointing, scale_arcsec=scale, parity=parity, position_arcsec=how.position_arcsec
        )
        made.append(Start(guess, pointing, (size + how.position_arcsec) / ARCSEC_PER_DEG, "the pointing"))
    widest = how.widest_deg * ARCSEC_PER_DEG
    for centre in [one for one in (middle, pointing if far else None) if one is not None]:
        if widest > how.position_arcsec:
            guess = Guess(
                pointing_deg=centre, scale_arcsec=scale, parity=parity, position_arcsec=widest, loosen=False
            )
            made.append(Start(guess, centre, (size + widest) / ARCSEC_PER_DEG, "farther about it"))
    if not made:
        guess = Guess(scale_arcsec=scale, parity=parity)
        words = f"blind ({why})" if why else "blind"
        made.append(Start(guess, None, 180.0, words))
    return made


def _header_wcs(meta: Mapping[str, Any], how: LocalSettings) -> tuple[Wcs | None, str]:
    """The coordinate system of the header, and why it does not count."""
    cards = meta.get("wcs")
    if how.header != "wcs" or how.ra_deg is not None or not cards:
        return None, ""
    try:
        wcs = read_wcs(cards)
    except BadHeader as problem:
        return None, str(problem)
    if wcs.equinox and wcs.radesys in ("FK4", "FK5") and wcs.equinox != 2000:
        wcs = replace(wcs, crval_deg=to_j2000(*wcs.crval_deg, wcs.equinox), radesys="FK5", equinox=2000.0)
    return wcs, ""


def _middle(wcs: Wcs, shape: tuple[int, int]) -> tuple[float, float] | None:
    ra, dec = wcs.to_sky(0.5 * (1 + shape[1]), 0.5 * (1 + shape[0]))
    return (float(ra), float(dec)) if math.isfinite(float(ra)) and math.isfinite(float(dec)) else None


def _pointing(meta: Mapping[str, Any], how: LocalSettings) -> tuple[float, float] | None:
    if how.ra_deg is not None and how.dec_deg is not None:
        return how.ra_deg, how.dec_deg
    ra, dec = meta.get("ra_deg"), meta.get("dec_deg")
    if how.header == "none" or ra is None or dec is None:
        return None
    return float(ra), float(dec)


def _scales(meta: Mapping[str, Any], wcs: Wcs | None, how: LocalSettings) -> tuple[float, float] | None:
    if how.scale_low_arcsec:
        return how.scale_low_arcsec, how.scale_high_arcsec
    scale = wcs.pixel_scale_arcsec if wcs is not None else meta.get("pixel_scale_arcsec")
    if not scale:
        return None
    return float(scale) * (1 - how.scale_fraction), float(scale) * (1 + how.scale_fraction)


# The catalogue


@dataclass(frozen=True, eq=False)
class Cone:
    """Reference stars of a circle, the brightest if there are very many; band of the magnitudes; how many in all."""

    reference: Reference
    band: str
    number: int


def cone_of(
    catalogue: Catalogue,
    start: Start,
    shape: tuple[int, int],
    sources: Sources,
    epoch_yr: float | None,
    how: LocalSettings,
) -> Cone:
    """The reference stars that a start needs, at an epoch, as many as sources can match. Raises UnknownName."""
    if how.band and how.band not in catalogue.bands:
        known = ", ".join(catalogue.bands) or "none"
        raise UnknownName(f"{catalogue.path}: no band {how.band!r}; it has {known}")
    bands = [how.band] if how.band else list(catalogue.bands)
    names = ["ra_deg", "dec_deg", "ra_error_mas", "dec_error_mas", *(f"mag_{band}" for band in bands)]
    # The centre of a whole catalogue is of no matter.
    centre = start.centre_deg or (0.0, 0.0)
    stars = catalogue.cone(*centre, start.radius_deg, epoch_yr=epoch_yr, columns=names)
    number = len(stars["ra_deg"])
    counts = {one: int(np.isfinite(stars[f"mag_{one}"]).sum()) for one in bands}
    band = max(bands, key=lambda one: counts[one], default="")
    mag = stars[f"mag_{band}"].astype(np.float64) if band else np.full(number, np.nan)
    chosen = _brightest(mag, _wanted(start, shape, sources))
    squares = [stars[f"{axis}_error_mas"][chosen].astype(np.float64) ** 2 for axis in ("ra", "dec")]
    error = np.sqrt((squares[0] + squares[1]) / 2) / 1000
    reference = Reference(stars["ra_deg"][chosen], stars["dec_deg"][chosen], mag[chosen], error)
    return Cone(reference, band, number)


def _wanted(start: Start, shape: tuple[int, int], sources: Sources) -> int:
    """How many reference stars are of use: several to a source in the area of the image, as many about it."""
    scale = (
        start.guess.scale_arcsec[0]
        if start.guess.scale_arcsec
        else (start.guess.wcs.pixel_scale_arcsec if start.guess.wcs else 1.0)
    )
    image = shape[0] * shape[1] * (scale / ARCSEC_PER_DEG) ** 2
    circle = 2 * math.pi * (1 - math.cos(math.radians(start.radius_deg))) * math.degrees(1) ** 2
    number = max(LEAST_REFERENCE, PER_SOURCE * int(np.isfinite(np.asarray(sources.x)).sum()))
    return math.ceil(number * max(1.0, circle / image))


def _brightest(mag: Doubles, number: int) -> Places:
    """Places of the brightest; of unknown brightness all stay only where there are not too many."""
    if len(mag) <= number:
        return np.arange(len(mag))
    key = np.where(np.isnan(mag), np.inf, mag)
    return np.sort(np.argpartition(key, number)[:number])


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
    words = {"start": start.words}
    if stars.band:
        words["band"] = stars.band
    if epoch_yr is None:
        words["epoch"] = "not known: reference stars stay where the catalogue has them"
    return LocalSolution(
        solution=solution,
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


def _refused(failures: list[NoSolution], starts: list[Start], catalogue: Catalogue) -> AweError:
    """One failure that says what each start came to; the hint is the first one's."""
    said: list[str] = []
    for start, problem in zip(starts, failures, strict=True):
        text = str(problem)
        if text not in said:
            said.append(text if len(starts) == 1 else f"from {start.words}: {text}")
    first = failures[0]
    return NoSolution(f"{'; '.join(said)} (catalogue {catalogue.name})", hint=first.hint)
