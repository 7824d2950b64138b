"""The local solution: which star of a catalogue each source of an image is, and the coordinate system that follows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import BadHeader, BadValue, Mixture, NoSolution, TooFew
from .fitwcs import PolynomialFit, wcs_of_fit
from .match import Bounds, Places, Points, as_points, matched
from .polynomial import Doubles, Numbers
from .refine import Refined, Stars, refined
from .search import LEAST_STARS, Field, Found, Search, sought, to_plane, to_sky
from .sphere import ARCSEC_PER_DEG, angles, at_epoch, local_axes, separation_arcsec, to_tangent, unit_vectors
from .wcs import Wcs

# A solution whose pixels differ more in area, from the middle to a corner, lacks stars somewhere.
MOST_STRETCHED = 1.4
# A refined solution has no fewer of the stars that matched.
KEPT = 0.5
# With so many good stars the others do not count.
ENOUGH_GOOD = 10
# What no header should be wrong by, tried when its own word leads nowhere.
LOOSE_SCALE = 0.2


@dataclass(frozen=True, eq=False)
class Sources:
    """Sources of an image: pixels x, y (1-based), flux (any unit) and the error of x and of y in pixels, (n,) each.

    flux may be unknown (None, nan); so may the errors: such stars weigh as the scatter says.
    good: which ones the fit rests on, where enough of them match; the search uses all.
    """

    x: Numbers
    y: Numbers
    flux: Numbers | None = None
    error_px: Numbers | None = None
    good: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class Reference:
    """Reference stars: RA and Dec in degrees, magnitude, error of an axis, epoch (Julian year) and proper motion.

    (n,) each, or one number for all; what is None or nan is unknown. pm_ra_mas_yr holds cos(dec).
    """

    ra_deg: Numbers
    dec_deg: Numbers
    mag: Numbers | None = None
    error_arcsec: Numbers | None = None
    epoch_yr: Numbers | None = None
    pm_ra_mas_yr: Numbers | None = None
    pm_dec_mas_yr: Numbers | None = None


@dataclass(frozen=True)
class Guess:
    """What is known before: a coordinate system or a pointing, and how wrong each part of it may be.

    wcs: of the image as it was; else pointing_deg: RA and Dec of its middle, and
    scale_arcsec: the least and the largest pixel scale. parity: -1 for the sky as it is
    seen, 1 for its mirror image, None for either (a wcs has its own). position_arcsec:
    how far off the middle may be. turn_deg and scale_fraction: how far off a wcs may be.
    loosen: if nothing is found, believe the position alone, then nothing but the scale
    to a fifth (and the parity, where it is given).
    """

    wcs: Wcs | None = None
    pointing_deg: tuple[float, float] | None = None
    scale_arcsec: tuple[float, float] | None = None
    parity: int | None = None
    position_arcsec: float = 300.0
    turn_deg: float = 10.0
    scale_fraction: float = 0.05
    loosen: bool = True


@dataclass(frozen=True, eq=False)
class Solution:
    """The coordinate system of an image, and on what it rests.

    sources, reference: places of the matched stars in what was given; dra_arcsec (times
    cos dec), ddec_arcsec: catalogue less solution of each; sigma_arcsec: their error of
    an axis as it was used; fit: the polynomial with its covariance, about tangent_deg;
    measures by name; tried: what was tried, in words.
    """

    wcs: Wcs
    sources: Places
    reference: Places
    dra_arcsec: Doubles
    ddec_arcsec: Doubles
    sigma_arcsec: Doubles
    fit: PolynomialFit
    tangent_deg: tuple[float, float]
    measures: Mapping[str, float]
    tried: tuple[str, ...]


def solve(
    sources: Sources,
    reference: Reference,
    guess: Guess,
    *,
    shape: tuple[int, int] | None = None,
    epoch_yr: float | None = None,
    degree: int = 3,
    clip_sigma: float = 3.5,
) -> Solution:
    """The coordinate system of an image from its sources and a reference catalogue.

    shape: (ny, nx) of the image (None: what the sources span); epoch_yr: when it was taken, for
    proper motions; degree: the highest of the polynomial. Triangles of bright neighbours
    suggest maps; the map that brings most stars together is refined, and believed if
    chance does as well in less than one of 10^6 images, all tries counted, and no other
    place explains the stars nearly as well. Raises NoSolution with the reason, what was tried
    and what would help; Mixture for columns of different lengths; BadValue for a guess
    that is none. Source: verification in the spirit of Lang et al. 2010, AJ 139, 1782.
    """
    x, y, flux, error = _columns("sources", sources.x, sources.y, sources.flux, sources.error_px)
    good = np.ones(len(x), np.bool_) if sources.good is None else np.asarray(sources.good, np.bool_)
    ra, dec, mag, ref_error, epoch, pm_ra, pm_dec = _columns(
        "reference stars",
        reference.ra_deg,
        reference.dec_deg,
        reference.mag,
        reference.error_arcsec,
        reference.epoch_yr,
        reference.pm_ra_mas_yr,
        reference.pm_dec_mas_yr,
    )
    if epoch_yr is not None:
        years = np.where(np.isfinite(epoch), epoch_yr - epoch, 0.0)
        ra, dec = at_epoch(ra, dec, pm_ra, pm_dec, years)
    usable = np.isfinite(x) & np.isfinite(y)
    known = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90)
    _enough(int(usable.sum()), int(known.sum()))
    by_flux = _ordered(-flux, usable)
    by_mag = _ordered(mag, known)
    centre = _centre(x[usable], y[usable], shape)
    search = Search()
    for views, bounds, words in _attempts(guess, x, y, by_flux, ra, dec, by_mag, centre):
        search.words.append(words)
        found = sought(views, bounds, search)
        if found is not None:
            return _solution(
                found, x, y, error, good, ra, dec, ref_error, centre, degree, clip_sigma, search, guess
            )
    raise _none(search, len(by_flux), len(by_mag))


# The input


def _columns(what: str, *given: Numbers | None) -> list[Doubles]:
    size = np.asarray(given[0]).size
    made = []
    for one in given:
        column = np.full(size, np.nan) if one is None else np.asarray(one, np.float64)
        if column.ndim == 0:
            column = np.full(size, float(column))
        if column.size != size:
            raise Mixture(f"columns of {what} of {size} and {column.size} rows")
        made.append(column.ravel())
    return made


def _enough(sources: int, stars: int) -> None:
    if sources < LEAST_STARS:
        raise NoSolution(
            f"{sources} sources: no solution can be told from chance with fewer than {LEAST_STARS}",
            hint="a lower detection threshold, or a longer exposure",
        )
    if stars < LEAST_STARS:
        raise NoSolution(
            f"{stars} reference stars: no solution can be told from chance with fewer than {LEAST_STARS}",
            hint="a deeper reference catalogue, or a larger cone of it",
        )


def _ordered(key: Doubles, usable: npt.NDArray[np.bool_]) -> Places:
    """Places of what is usable in the order of a key; what has none comes last, in its own order."""
    places = np.flatnonzero(usable)
    order: Places = places[np.argsort(np.where(np.isnan(key[places]), np.inf, key[places]), kind="stable")]
    return order


def _centre(x: Doubles, y: Doubles, shape: tuple[int, int] | None) -> tuple[float, float]:
    if shape is not None:
        return 0.5 * (1 + shape[1]), 0.5 * (1 + shape[0])
    return 0.5 * float(x.min() + x.max()), 0.5 * float(y.min() + y.max())


# What is tried


def _attempts(
    guess: Guess,
    x: Doubles,
    y: Doubles,
    by_flux: Places,
    ra: Doubles,
    dec: Doubles,
    by_mag: Places,
    centre: tuple[float, float],
) -> Iterator[tuple[list[Field], Bounds, str]]:
    """Views of image and catalogue, what may be between them, and words for it; the likeliest first."""
    wcs = guess.wcs
    if wcs is not None:
        middle = tuple(float(one) for one in wcs.to_sky(*centre))
        if not all(math.isfinite(one) for one in middle):
            raise BadValue("the coordinate system of the guess has no sky at the middle of the image")
        scale = math.sqrt(float(wcs.pixel_area_arcsec2(*centre)))
        frame = np.stack(local_axes(*middle))
        source_ra, source_dec = wcs.to_sky(x[by_flux], y[by_flux])
        z = to_plane(source_ra, source_dec, frame)
        ratios, turn = (1 - guess.scale_fraction, 1 + guess.scale_fraction), guess.turn_deg
        mirrors = [False]
    else:
        if guess.scale_arcsec is None or not 0 < guess.scale_arcsec[0] <= guess.scale_arcsec[1]:
            raise BadValue(
                f"a guess without a coordinate system needs pixel scales, not {guess.scale_arcsec}"
            )
        middle = guess.pointing_deg or _middle(ra[by_mag], dec[by_mag])
        frame = np.stack(local_axes(*middle))
        low, high = guess.scale_arcsec
        scale = math.sqrt(low * high)
        z = as_points(x[by_flux] - centre[0], y[by_flux] - centre[1]) * scale
        ratios, turn = (low / scale, high / scale), 180.0
        # As it is, the plane is a mirror image of the sky: pixels run to the right, RA to the left.
        mirrors = {None: [True, False], -1: [True], 1: [False]}[guess.parity]
    seen = np.isfinite(z)
    source, z = by_flux[seen], z[seen]
    if len(z) < LEAST_STARS:
        raise NoSolution(
            f"the coordinate system of the guess has a place on the sky for {len(z)} sources only"
        )
    w = to_plane(ra[by_mag], dec[by_mag], frame)
    anywhere = wcs is None and guess.pointing_deg is None
    position = math.inf if anywhere else guess.position_arcsec
    half = 0.5 * math.hypot(float(np.ptp(z.real)), float(np.ptp(z.imag)))

    def view(mirror: bool, reach: float, most: float) -> Field | None:
        near = np.flatnonzero(np.abs(w) <= reach + 1.2 * half * most)
        if len(near) < LEAST_STARS:
            return None
        return Field(frame, source, z.conj() if mirror else z, by_mag[near], w[near], scale, mirror)

    plans = [(mirrors, position, ratios, turn)]
    if guess.loosen and not anywhere:
        wide = (min(ratios[0], 1 - LOOSE_SCALE), max(ratios[1], 1 + LOOSE_SCALE))
        either = [True, False] if wcs is not None else mirrors
        plans.append((either, position, wide, 180.0))
        plans.append((either, math.inf, wide, 180.0))
    for mirrors, reach, scales, turn in plans:
        bounds = Bounds(scales, turn, reach)
        views = [made for mirror in mirrors if (made := view(mirror, reach, scales[1])) is not None]
        if views:
            words = _words(bounds, mirrors, scale, middle, wcs is not None)
            yield views, bounds, f"{words} ({len(views[0].star)} reference stars)"


def _words(bounds: Bounds, mirrors: list[bool], scale: float, middle: tuple[float, ...], system: bool) -> str:
    place = (
        f"within {bounds.shift:.4g} arcsec of RA {middle[0]:.4f} Dec {middle[1]:+.4f}"
        if math.isfinite(bounds.shift)
        else "anywhere in the catalogue"
    )
    turn = f"turned up to {bounds.turn_deg:g} deg" if bounds.turn_deg < 180 else "turned by any angle"
    low, high = (scale * one for one in bounds.scale)
    if len(mirrors) > 1:
        parity = "either parity"
    elif system:
        parity = "parity as it was"
    else:
        parity = f"parity {-1 if mirrors[0] else 1}"
    return f"{place}, {turn}, {low:.4g} to {high:.4g} arcsec/pixel, {parity}"


def _middle(ra: Doubles, dec: Doubles) -> tuple[float, float]:
    x, y, z = unit_vectors(ra, dec).mean(axis=0)
    middle = angles(np.asarray(x), np.asarray(y), np.asarray(z))
    return float(middle[0]), float(middle[1])


def _none(search: Search, sources: int, stars: int) -> NoSolution:
    best = search.best
    if not search.words:
        reason = "the catalogue has fewer than 4 stars where the image is said to be"
        hint = "a catalogue that covers the field, or a position that is right"
    elif search.maps == 0:
        reason = "no pattern of sources has the shape of one of reference stars"
        hint = "another range of the pixel scale, a catalogue that covers the field, more stars"
    elif best is None:
        reason = "no map brings 4 stars together"
        hint = "another range of the pixel scale, a larger search radius, a catalogue of this field"
    else:
        reason = (
            f"the best map matches {best.count} of {best.tested} stars within {best.radius:.3g} arcsec,"
            f" which chance does as well in 10^{best.log10_chance:.1f} images"
        )
        hint = "a catalogue of this field and of like depth, fewer spurious sources, a position that is known better"
    tried = "; ".join(search.words) or "nothing"
    return NoSolution(
        f"no solution for {sources} sources and {stars} reference stars: {reason};"
        f" tried: {tried} ({search.maps} maps)",
        hint=hint,
    )


# What is made of it


def _solution(
    found: Found,
    x: Doubles,
    y: Doubles,
    error: Doubles,
    good: npt.NDArray[np.bool_],
    ra: Doubles,
    dec: Doubles,
    ref_error: Doubles,
    centre: tuple[float, float],
    degree: int,
    clip_sigma: float,
    search: Search,
    guess: Guess,
) -> Solution:
    view = found.field
    source_ra, source_dec = to_sky(found.apply(view.z), view.frame)
    # The middle of the image is 0 of its plane.
    tangent = tuple(float(one[0]) for one in to_sky(np.array([found.map[2]]), view.frame))
    scale = view.scale * abs(found.map[0])
    predicted = as_points(*to_tangent(source_ra, source_dec, *tangent)) * ARCSEC_PER_DEG
    places = as_points(*to_tangent(ra[view.star], dec[view.star], *tangent)) * ARCSEC_PER_DEG
    inside = np.flatnonzero(_within(places, predicted, found.radius))
    star, places = view.star[inside], places[inside]
    rests, least = _rests_on(good[view.source], predicted, places, found)
    source, predicted = view.source[rests], predicted[rests]
    pixels = Stars(as_points(x[source], y[source]), _errors(error[source]))
    sky = Stars(places, _errors(ref_error[star]))
    try:
        for highest in range(degree, 0, -1):
            best = refined(pixels, sky, predicted, 1.5 * found.radius, scale, highest, clip_sigma)
            if highest == 1 or _smooth(best.fit, pixels.at):
                break
        wcs = wcs_of_fit(best.fit, (tangent[0], tangent[1]))
    except (TooFew, BadHeader) as problem:
        raise NoSolution(
            f"{found.count} stars match, but no coordinate system can be fitted to them: {problem}",
            hint="more stars, spread over the image",
        ) from problem
    if best.fit.count < KEPT * least:
        raise NoSolution(
            f"{found.count} stars match roughly, but only {best.fit.count} closely",
            hint="sources that are stars, with better positions",
        )
    measures = _measures(best, wcs, found, predicted, places, centre, guess)
    return Solution(
        wcs=wcs,
        sources=source[best.sources],
        reference=star[best.reference],
        dra_arcsec=np.ascontiguousarray(best.residual.real),
        ddec_arcsec=np.ascontiguousarray(best.residual.imag),
        sigma_arcsec=np.sqrt(best.variance),
        fit=best.fit,
        tangent_deg=(tangent[0], tangent[1]),
        measures=measures,
        tried=tuple(search.words),
    )


def _rests_on(
    good: npt.NDArray[np.bool_], predicted: Points, places: Points, found: Found
) -> tuple[Places, int]:
    """The sources that the fit may rest on, and how many of those that match it keeps at least half of."""
    chosen = np.flatnonzero(good)
    if len(chosen) < len(good):
        matches = len(matched(predicted[chosen], places, found.radius)[0])
        if matches >= ENOUGH_GOOD:
            return chosen, min(matches, found.count)
    return np.arange(len(good)), found.count


def _smooth(fit: PolynomialFit, pixels: Points) -> bool:
    """Whether the pixel scale is much the same all over the image: else stars are lacking somewhere in it."""
    x, y = np.meshgrid(
        np.linspace(pixels.real.min(), pixels.real.max(), 5),
        np.linspace(pixels.imag.min(), pixels.imag.max(), 5),
    )
    step = max(1.0, 1e-3 * fit.scale)
    right, left = fit.predict(x + step, y), fit.predict(x - step, y)
    up, down = fit.predict(x, y + step), fit.predict(x, y - step)
    area = (right[0] - left[0]) * (up[1] - down[1]) - (right[1] - left[1]) * (up[0] - down[0])
    ratio = area / np.median(area)
    return bool(ratio.min() > 1 / MOST_STRETCHED and ratio.max() < MOST_STRETCHED)


def _errors(given: Doubles) -> Doubles:
    return np.where(np.isfinite(given) & (given > 0), given, 0.0)


def _within(places: Points, predicted: Points, margin: float) -> npt.NDArray[np.bool_]:
    margin *= 2
    made: npt.NDArray[np.bool_] = (
        (places.real >= np.nanmin(predicted.real) - margin)
        & (places.real <= np.nanmax(predicted.real) + margin)
        & (places.imag >= np.nanmin(predicted.imag) - margin)
        & (places.imag <= np.nanmax(predicted.imag) + margin)
    )
    return made


def _measures(
    best: Refined,
    wcs: Wcs,
    found: Found,
    predicted: Points,
    places: Points,
    centre: tuple[float, float],
    guess: Guess,
) -> dict[str, float]:
    dra, ddec = best.residual.real, best.residual.imag
    squares = (dra * dra + ddec * ddec) / best.variance
    count = len(dra)
    shift = math.nan
    start = guess.wcs.to_sky(*centre) if guess.wcs is not None else guess.pointing_deg
    if start is not None:
        now = wcs.to_sky(*centre)
        shift = float(separation_arcsec(start[0], start[1], now[0], now[1]))
    return {
        "n_ref": float(count),
        "rms_arcsec": math.sqrt(float((dra * dra + ddec * ddec).mean())),
        "sig_dra_arcsec": float(dra.std()),
        "sig_ddec_arcsec": float(ddec.std()),
        "mean_dra_arcsec": float(dra.mean()),
        "mean_ddec_arcsec": float(ddec.mean()),
        "extra_scatter_arcsec": best.extra_arcsec,
        "chi2_reduced": float(squares.sum()) / max(2 * best.fit.freedom, 1),
        "matched_fraction": count / max(1, min(len(predicted), len(places))),
        "chance_log10": found.log10_chance,
        "degree": float(best.fit.degree),
        "pixel_scale_arcsec": wcs.pixel_scale_arcsec,
        "position_angle_deg": wcs.position_angle_deg,
        "parity": float(wcs.parity),
        "shift_arcsec": shift,
        "match_radius_arcsec": best.radius_arcsec,
    }
