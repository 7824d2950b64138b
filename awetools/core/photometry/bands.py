"""Which magnitudes of a reference catalogue serve a filter of an instrument, as they are or transformed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BadValue, NoSolution, UnknownName, nearest
from ..sky.polynomial import Doubles
from ..sky.refcat import CLOSE, SUSPECT
from .transformations import (
    AB_SYSTEMS,
    ANY_COLOUR,
    COLOURS,
    FAMILIES,
    JOHNSON,
    PS1,
    SDSS,
    TRANSFORMATIONS,
    TWO_MASS,
    TYCHO,
    Transformation,
)

# Positions of Gaia hold at these epochs.
_GAIA_EPOCHS = {2015.5: "Gaia DR2", 2016.0: "Gaia DR3"}
# What telescopes call their filters, in the order in which they are tried, and of which band and system they are;
# "" is any system. The letter is the group.
_JOHNSON_NAMES = r"(?i:bessell?|johnson|cousins|harris|kron|mould|landolt|jc|w-[jc])"
_SEPARATOR = r"[ _.\-]*"
_FILTERS: tuple[tuple[re.Pattern[str], str, str], ...] = tuple(
    (re.compile(pattern), band, system)
    for pattern, band, system in (
        (rf"(?i:sdss|sloan){_SEPARATOR}([ugriz])['p]?\d*", "", SDSS),
        (rf"([ugriz])['p]?{_SEPARATOR}(?i:sdss|sloan)\b.*", "", SDSS),
        (r"([ugriz])(?:'|p|prime)", "", SDSS),
        (r"([ugriz])\.MP\d+", "", SDSS),
        (r"([ugriz]) DECam.*", "", SDSS),
        (r"zs", "z", PS1),
        (rf"(?i:ps-?1?|pan-?starrs-?1?){_SEPARATOR}([grizy])", "", PS1),
        (rf"([grizy]){_SEPARATOR}(?i:p1|ps1|pan-?starrs-?1?)", "", PS1),
        (rf"{_JOHNSON_NAMES}{_SEPARATOR}([UBVRI])[cCjJ]?", "", JOHNSON),
        (rf"([UBVRI])[cCjJ]?{_SEPARATOR}{_JOHNSON_NAMES}.*", "", JOHNSON),
        (r"([UBVRI])(?:_?[cCjJ])?(?:#\d+)?", "", JOHNSON),
        (rf"(?i:2mass){_SEPARATOR}([JHK])s?", "", TWO_MASS),
        (r"([JHK])(?:_?s)?", "", TWO_MASS),
        (r"([ugrizy])", "", ""),
    )
)


@dataclass(frozen=True)
class Band:
    """A band of a photometric system; system "" where a name does not tell it."""

    band: str
    system: str = ""

    def __str__(self) -> str:
        return f"{self.system} {self.band}".strip()


@dataclass(frozen=True)
class Choice:
    """The magnitudes that serve a filter.

    band, system: what they are in; scale: "AB" or "Vega", "" where nothing tells it;
    column: the band of the catalogue, where no transformation is needed; colour: the two
    bands of the catalogue for a colour term; note: what is not as asked for.
    """

    band: str
    system: str
    scale: str
    family: str
    column: str
    transformation: Transformation | None = None
    colour: tuple[str, str] | None = None
    note: str = ""

    @property
    def text(self) -> str:
        """What it is, in a line."""
        name = f"{self.system or self.family} {self.band}".strip() + (
            f" ({self.scale})" if self.scale else ""
        )
        one = self.transformation
        if one is None:
            return name
        colour = "-".join(one.colour)
        return (
            f"{name} from {one.family} {one.base}, {colour} within {one.low:g} to {one.high:g}: {one.source}"
        )


@dataclass(frozen=True, eq=False)
class Magnitudes:
    """Of the stars of a catalogue, (n,) each: magnitude, its error, colour; nan where it is not known.

    error holds the scatter of a transformation; it is nan where the catalogue gives none.
    outside: how many have a colour for which the transformation does not hold; flagged: how
    many the catalogue warns of; these have no magnitude here.
    """

    mag: Doubles
    error_mag: Doubles
    colour: Doubles
    outside: int
    flagged: int


def band_of_filter(name: str) -> Band | None:
    """The band that a filter's name means, by how telescopes call them; None where that is not known."""
    text = " ".join(name.split())
    for pattern, band, system in _FILTERS:
        found = pattern.fullmatch(text)
        if found:
            return Band(band or str(found[1]), system)
    return None


def family_of(bands: Sequence[str], layouts: Sequence[str] = (), epoch_yr: float | None = None) -> str:
    """Which catalogue it is, by its bands, by the layouts in which it was read, by the epoch of its positions.

    A name of FAMILIES, or "" for none of them: its bands are then taken as they are called. What
    was read in two layouts of several catalogues is none.
    """
    have = set(bands)
    told = {name for one in layouts if (name := _family_of_layout(one))}
    if {"G", "BP", "RP"} <= have and told <= {"Gaia"}:
        return _GAIA_EPOCHS.get(round(epoch_yr, 2), "") if epoch_yr is not None else ""
    if len(told) > 1:
        return ""
    names: list[str] = sorted(told) or ["UCAC4", "PPMXL", TYCHO]
    for name in names:
        marks = {"UCAC4": {"UCa"}, "PPMXL": {"R1", "R2"}, TYCHO: {"VT"}}.get(name, set())
        if name in FAMILIES and marks <= have:
            return name
    return ""


def _family_of_layout(layout: str) -> str:
    first: str = layout.split(" ")[0].removesuffix("-2")
    return first if first in FAMILIES or first == "Gaia" else ""


def choose_band(
    filter_name: str,
    bands: Sequence[str],
    *,
    band: str = "",
    family: str = "",
) -> Choice:
    """The magnitudes of a catalogue for a filter.

    bands: those of the catalogue; family: as `family_of` tells. band: what a person says it is
    (a band of the catalogue, or a standard one such as V or "SDSS r"). In order: a band of
    the catalogue in the system that is meant, the transformation to it of least scatter, the
    band of another system (noted). Raises UnknownName for a band that is not known,
    NoSolution for such a filter, and where the catalogue does not lead to the band.
    """
    systems = FAMILIES.get(family, {})
    if band and band in bands:
        wanted = Band(band, systems.get(band, ""))
    else:
        wanted = _wanted(filter_name, band, bands, family)
    direct = systems.get(wanted.band, _usual(wanted.band)) if wanted.band in bands else None
    colour = _colour(wanted.band, bands)
    if direct is not None and (not wanted.system or direct in ("", wanted.system)):
        return Choice(wanted.band, direct, _scale(direct), family, wanted.band, colour=colour)
    found = _transformations(wanted, bands, family)
    if found:
        one = min(found, key=lambda one: one.scatter_mag)
        return Choice(one.band, one.system, _scale(one.system), family, "", one, colour or one.colour)
    if direct is not None:
        note = f"{band or filter_name} is of {wanted.system}, the catalogue's {wanted.band} of {direct}"
        return Choice(wanted.band, direct, _scale(direct), family, wanted.band, colour=colour, note=note)
    release = ""
    if not family and {"G", "BP", "RP"} <= set(bands):
        release = "; which release of Gaia it is, is not known: its epoch is neither 2015.5 nor 2016.0"
    raise NoSolution(
        f"{band or filter_name}: the catalogue has no magnitudes for {wanted}; it has "
        f"{_reach(bands, family)}{release}",
        hint="another catalogue, or --band BAND",
    )


def _wanted(filter_name: str, band: str, bands: Sequence[str], family: str) -> Band:
    found = band_of_filter(band or filter_name)
    if found is not None:
        return found
    reach = _reach(bands, family)
    if band:
        raise UnknownName(f"no band {band!r}{nearest(band, list(bands))}; the catalogue has {reach}")
    raise NoSolution(
        f"filter {filter_name!r}: which band it is, is not known; the catalogue has {reach}",
        hint=f'--band BAND, or in the settings [filter."{filter_name}".zeropoint] band = "BAND"',
    )


def _reach(bands: Sequence[str], family: str) -> str:
    """The bands of a catalogue, and what can be made of them."""
    made = sorted(
        {
            f"{one.system} {one.band}"
            for one in TRANSFORMATIONS
            if one.family == family and _possible(one, bands)
        }
    )
    text = ", ".join(bands) or "no magnitudes at all"
    return text + (f"; transformed: {', '.join(made)}" if made else "")


def _possible(one: Transformation, bands: Sequence[str]) -> bool:
    return one.base in bands and one.colour[0] in bands and one.colour[1] in bands


def _transformations(wanted: Band, bands: Sequence[str], family: str) -> list[Transformation]:
    return [
        one
        for one in TRANSFORMATIONS
        if one.family == family
        and one.band == wanted.band
        and wanted.system in ("", one.system)
        and _possible(one, bands)
    ]


def _usual(band: str) -> str:
    """The system of a band in a catalogue that is not known; "" where several have it."""
    if band in ("U", "B", "V", "R", "I", "Rc", "Ic"):
        return JOHNSON
    return {"J": TWO_MASS, "H": TWO_MASS, "K": TWO_MASS, "Ks": TWO_MASS, "BT": TYCHO, "VT": TYCHO}.get(
        band, ""
    )


def _scale(system: str) -> str:
    if not system:
        return ""
    return "AB" if system in AB_SYSTEMS else "Vega"


def _colour(band: str, bands: Sequence[str]) -> tuple[str, str] | None:
    pairs = (*COLOURS.get(band, ()), *ANY_COLOUR)
    return next((pair for pair in pairs if pair[0] in bands and pair[1] in bands), None)


def reference_magnitudes(choice: Choice, stars: Mapping[str, npt.NDArray[Any]]) -> Magnitudes:
    """What a choice gives for stars: columns mag_BAND, mag_error_BAND and flags, as of `Catalogue.cone`.

    Errors are those of the catalogue, through the transformation, and its scatter. Stars that
    the catalogue flags as suspect or as one of two at a place have no magnitude, nor those
    whose colour a transformation does not hold for. Raises BadValue where a column is missing.
    """
    one = choice.transformation
    colour = _colours(stars, choice.colour)
    if one is None:
        mag, error, bad = _column(stars, f"mag_{choice.column}"), _errors(stars, choice.column), None
    else:
        index = _column(stars, f"mag_{one.colour[0]}") - _column(stars, f"mag_{one.colour[1]}")
        mag = _column(stars, f"mag_{one.base}") + one.value(index)
        error = np.hypot(_propagated(one, stars, index), one.scatter_mag)
        bad = np.isfinite(index) & ((index < one.low) | (index > one.high))
    flags = np.asarray(stars["flags"]).astype(np.int64) if "flags" in stars else np.zeros(len(mag), np.int64)
    flagged = (flags & (CLOSE | SUSPECT)) != 0
    out = np.zeros(len(mag), np.bool_) if bad is None else bad
    mag = np.where(flagged | out, np.nan, mag)
    return Magnitudes(mag, error, colour, int(out.sum()), int(flagged.sum()))


def _column(stars: Mapping[str, npt.NDArray[Any]], name: str) -> Doubles:
    if name not in stars:
        raise BadValue(f"stars without a column {name}; they have {', '.join(sorted(stars))}")
    return np.asarray(stars[name], np.float64)


def _errors(stars: Mapping[str, npt.NDArray[Any]], band: str) -> Doubles:
    name = f"mag_error_{band}"
    if name in stars:
        error = np.asarray(stars[name], np.float64)
        return np.where(np.isfinite(error) & (error >= 0), error, np.nan)
    return np.full(len(_column(stars, f"mag_{band}")), np.nan)


def _colours(stars: Mapping[str, npt.NDArray[Any]], pair: tuple[str, str] | None) -> Doubles:
    if pair is None:
        return np.full(len(next(iter(stars.values()), ())), np.nan)
    return _column(stars, f"mag_{pair[0]}") - _column(stars, f"mag_{pair[1]}")


def _propagated(one: Transformation, stars: Mapping[str, npt.NDArray[Any]], index: Doubles) -> Doubles:
    """The errors of the magnitudes, through their part in the sum; what is not known counts as none."""
    slope = one.slope(index)
    parts = {one.base: np.ones_like(index)}
    for name, sign in zip(one.colour, (1.0, -1.0), strict=True):
        parts[name] = parts.get(name, np.zeros_like(index)) + sign * slope
    square = [(part * np.nan_to_num(_errors(stars, name))) ** 2 for name, part in parts.items()]
    return np.asarray(np.sqrt(np.sum(square, axis=0)), np.float64)
