"""Where a local solution begins: what the header says and what the user set, and the stars of a catalogue there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import BadHeader, BadValue, NoSolution, UnknownName
from ..units import to_j2000
from .match import Places
from .polynomial import Doubles
from .readwcs import read_wcs
from .refcat import Catalogue
from .solve import Guess, Reference, Sources
from .sphere import ARCSEC_PER_DEG, separation_arcsec, unit_vectors
from .wcs import Wcs

# By this much the scale of a header may be wrong, or of a camera table.
SCALE_FRACTION = 0.05
# By this much a header's scale is wrong at most, when its own range leads nowhere (solve.LOOSE_SCALE).
WIDER = 1.2
# Of the reference stars of a cone the brightest stay: so many to a source of equal area.
PER_SOURCE, LEAST_REFERENCE = 4.0, 1000
# A catalogue is searched as a whole if it has no more stars, and lies within so many degrees of its middle.
BLIND_STARS, BLIND_DEG = 200_000, 20.0


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


def check_settings(how: LocalSettings) -> None:
    """Raises BadValue for settings that make no sense."""
    low, high = how.scale_low_arcsec, how.scale_high_arcsec
    if (low or high) and not 0 < low <= high:
        raise BadValue(
            f"pixel scales from {low:g} to {high:g} arcsec: the least comes first, and both are given"
        )
    if (how.ra_deg is None) != (how.dec_deg is None):
        raise BadValue("a pointing is RA and Dec: one is missing")
    if how.header not in ("wcs", "pointing", "none"):
        raise BadValue(f"header = {how.header!r}: it is wcs, pointing or none")


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
    if scale is None:
        raise NoSolution(
            "the pixel scale is not known: the header has none, and the camera table neither",
            hint="scale_low_arcsec=0.2 scale_high_arcsec=0.3, or pixel_scale_arcsec in the camera table",
        )
    half_px = 0.5 * math.hypot(*shape)
    parity = how.parity or None
    made: list[Start] = []
    middle = None
    if wcs is not None:
        middle = _middle(wcs, shape)
    if wcs is not None and middle is not None and _of_scale(wcs, how):
        guess = Guess(
            wcs=wcs,
            position_arcsec=how.position_arcsec,
            turn_deg=how.turn_deg,
            scale_fraction=how.scale_fraction,
        )
        size = half_px * wcs.pixel_scale_arcsec * WIDER
        made.append(Start(guess, middle, (size + how.position_arcsec) / ARCSEC_PER_DEG, "the header's WCS"))
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
            made.append(Start(guess, centre, (size + widest) / ARCSEC_PER_DEG, "farther about that"))
    if not made or how.widest_deg > 0:
        words = "anywhere in the catalogue" if made else f"blind ({why})" if why else "blind"
        made.append(Start(Guess(scale_arcsec=scale, parity=parity), None, 180.0, words))
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


def _of_scale(wcs: Wcs, how: LocalSettings) -> bool:
    """Whether the scale of a header is one that is said to be possible."""
    if not how.scale_low_arcsec:
        return True
    low, high = (
        how.scale_low_arcsec * (1 - how.scale_fraction),
        how.scale_high_arcsec * (1 + how.scale_fraction),
    )
    return low <= wcs.pixel_scale_arcsec <= high


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
    """Reference stars of a circle, the brightest if there are very many.

    band: of the magnitudes; number: how many in all; still: those that no motion brought to the epoch.
    """

    reference: Reference
    band: str
    number: int
    still: int


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
    names = ["ra_deg", "dec_deg", "ra_error_mas", "dec_error_mas", "epoch_yr"]
    names += [f"mag_{band}" for band in bands]
    if start.centre_deg is None and catalogue.rows > BLIND_STARS:
        raise NoSolution(
            f"a catalogue of {catalogue.rows} stars is not searched as a whole: {BLIND_STARS} at most",
            hint="centre=RA,Dec, or a catalogue of a few degrees about the field",
        )
    # The centre of a whole catalogue is of no matter.
    centre = start.centre_deg or (0.0, 0.0)
    stars = catalogue.cone(*centre, start.radius_deg, epoch_yr=epoch_yr, columns=names)
    number = len(stars["ra_deg"])
    if start.centre_deg is None:
        _small(stars["ra_deg"], stars["dec_deg"])
    counts = {one: int(np.isfinite(stars[f"mag_{one}"]).sum()) for one in bands}
    band = max(bands, key=lambda one: counts[one], default="")
    mag = stars[f"mag_{band}"].astype(np.float64) if band else np.full(number, np.nan)
    chosen = _brightest(mag, _wanted(start, shape, sources))
    squares = [stars[f"{axis}_error_mas"][chosen].astype(np.float64) ** 2 for axis in ("ra", "dec")]
    error = np.sqrt((squares[0] + squares[1]) / 2) / 1000
    reference = Reference(stars["ra_deg"][chosen], stars["dec_deg"][chosen], mag[chosen], error)
    still = 0 if epoch_yr is None else int((stars["epoch_yr"][chosen] != epoch_yr).sum())
    return Cone(reference, band, number, still)


def _small(ra_deg: Doubles, dec_deg: Doubles) -> None:
    """Raises NoSolution for a catalogue that is spread too widely to be searched as a whole."""
    if not len(ra_deg):
        return
    vectors = unit_vectors(ra_deg, dec_deg)
    middle = vectors.mean(axis=0)
    cosine = float((vectors @ middle).min()) / max(float(np.linalg.norm(middle)), 1e-9)
    if cosine < math.cos(math.radians(BLIND_DEG)):
        raise NoSolution(
            f"a catalogue wider than {BLIND_DEG:g} deg about its middle is not searched as a whole",
            hint="centre=RA,Dec, or a catalogue of a few degrees about the field",
        )


def circle_over_image(start: Start, shape: tuple[int, int]) -> float:
    """How many times the area of the image the circle of a start has."""
    guess = start.guess
    scale = (
        guess.wcs.pixel_scale_arcsec if guess.wcs else guess.scale_arcsec[0] if guess.scale_arcsec else 1.0
    )
    image = shape[0] * shape[1] * (scale / ARCSEC_PER_DEG) ** 2
    circle = 2 * math.pi * (1 - math.cos(math.radians(start.radius_deg))) * math.degrees(1) ** 2
    return max(1.0, circle / image)


def _wanted(start: Start, shape: tuple[int, int], sources: Sources) -> int:
    """How many reference stars are of use: several to a source in the area of the image, as many about it."""
    number = max(LEAST_REFERENCE, PER_SOURCE * int(np.isfinite(np.asarray(sources.x)).sum()))
    return math.ceil(number * circle_over_image(start, shape))


def _brightest(mag: Doubles, number: int) -> Places:
    """Places of the brightest; of unknown brightness all stay only where there are not too many."""
    if len(mag) <= number:
        return np.arange(len(mag))
    key = np.where(np.isnan(mag), np.inf, mag)
    return np.sort(np.argpartition(key, number)[:number])
