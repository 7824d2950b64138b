"""Imports tables of stars as a reference catalogue: units, missing values, epochs and equinoxes made ours."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BadValue, EmptyInput, Unreadable
from ..files import parse_address
from ..sky.refcat import COLUMNS, SUSPECT, Catalogue
from ..units import angle_deg
from .reflayouts import Mapped, mapped
from .refshards import TABLE_ROWS, write_catalogue
from .reftables import BLANKS, RawTable, open_table

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]
Piece = dict[str, Array]

# Beyond these a number stands for "not known" (99, -999, ...).
BRIGHTEST_MAG, FAINTEST_MAG, LARGEST_MAG_ERROR = -50.0, 50.0, 9.0
FIRST_YEAR, LAST_YEAR = 1700.0, 2300.0
# These stand for "not known" in any column.
SENTINELS = (-999.0, -9999.0, -99999.0, 9999.0, 99999.0)
MAG_PER_SNR = 2.5 / math.log(10)
J2000_JD, MJD_ZERO_JD, YEAR_D = 2451545.0, 2400000.5, 365.25
NAMED_ROWS = 10
HOURS = 24.0
YES = ("true", "t", "yes", "y", "1")

_ANGLES = {
    "deg": 1.0,
    "hour": 15.0,
    "rad": math.degrees(1),
    "arcmin": 1 / 60,
    "arcsec": 1 / 3600,
    "mas": 1 / 3.6e6,
}
_TO_MAS = {name: factor * 3.6e6 for name, factor in _ANGLES.items() if name != "hour"} | {"uas": 1e-3}
_YEARS = {"yr": 1.0, "century": 100.0, "d": 1 / YEAR_D}
_MAGNITUDES = {"mag": 1.0, "mmag": 1e-3, "cmag": 1e-2}
_SYNONYMS = {
    "degree": "deg", "degrees": "deg", "d:m:s": "deg", "dms": "deg", "°": "deg",
    "h": "hour", "hr": "hour", "hours": "hour", "hourangle": "hour", "h:m:s": "hour", "hms": "hour",
    "radian": "rad", "arcminute": "arcmin", "arcsecond": "arcsec", "asec": "arcsec", '"': "arcsec",
    "milliarcsec": "mas", "milliarcsecond": "mas", "microarcsec": "uas", "µas": "uas",
    "year": "yr", "years": "yr", "a": "yr", "julian years": "yr", "jyear": "yr",
    "day": "d", "days": "d", "magnitude": "mag", "mags": "mag", "100yr": "century", "cy": "century",
}  # fmt: skip


@dataclass(frozen=True)
class Told:
    """What a person says of a table: columns and units by our names, and what the table leaves open.

    epoch_yr: of the positions, where the table does not say it. equinox: of RA and Dec; before
    1984 that of FK4, else of FK5. missing: more numbers that stand for "not known".
    skip_bad: rows with impossible positions are left out and counted, rather than refused.
    extension: the table in a file of several, unless the file's name says it: `file.fits[2]`.
    origin: where the tables were fetched from.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    epoch_yr: float | None = None
    equinox: float | None = None
    missing: tuple[float, ...] = ()
    skip_bad: bool = False
    extension: str | int | None = None
    origin: str = ""


@dataclass
class Tally:
    """What was left out of a table: counts, and the first few rows by number; the range of its RA in degrees."""

    rows: int = 0
    without_position: int = 0
    bad: int = 0
    named: list[str] = field(default_factory=list)
    first_ra: float = math.inf
    last_ra: float = -math.inf


def import_catalogue(
    path: str | Path,
    tables: Sequence[str | Path],
    told: Told | None = None,
    *,
    name: str = "",
    duplicate_arcsec: float = 0.1,
) -> Catalogue:
    """Import tables into a new catalogue; what was read, how, and what was left out stands in its header.

    header["sources"] has for each table: file (name), sha256, form, layout, columns (ours: theirs
    and unit), rows, without_position, bad, named (rows left out), notes. Raises as
    `open_table`, `mapped`, `write_catalogue`; Unreadable for a row whose position cannot be.
    """
    told = told or Told()
    understood = understand(tables, told)
    opened, maps = [table for table, _ in understood], [one for _, one in understood]
    paths = [parse_address(str(one)).path for one in tables]
    tallies = [Tally() for _ in opened]
    bands = _bands(maps)
    sources: list[dict[str, Any]] = []

    def pieces() -> Iterator[Piece]:
        for number, (table, one, tally) in enumerate(zip(opened, maps, tallies, strict=True)):
            yield from stars_of(table, one, told, tally, number * TABLE_ROWS)
        # Known only now; the header is written after the stars.
        for place, (table, one, tally) in zip(paths, zip(opened, maps, tallies, strict=True), strict=True):
            sources.append(_source(place, table, one, tally, told))

    return write_catalogue(path, pieces(), bands, sources, name=name, duplicate_arcsec=duplicate_arcsec)


def understand(tables: Sequence[str | Path], told: Told) -> list[tuple[RawTable, Mapped]]:
    """Each table and what its columns are taken for; no star is read. Raises as `import_catalogue`."""
    if not tables:
        raise EmptyInput("no table to import")
    if told.epoch_yr is not None and not FIRST_YEAR <= told.epoch_yr <= LAST_YEAR:
        raise BadValue(f"the epoch is a year from {FIRST_YEAR:g} to {LAST_YEAR:g}, not {told.epoch_yr}")
    found = []
    for name in tables:
        address = parse_address(str(name))
        extension = told.extension if address.detector is None else address.detector
        if isinstance(extension, str) and extension.isdecimal():
            extension = int(extension)
        table = open_table(address.path, extension)
        found.append((table, mapped(table, told.columns, told.units)))
    for table, one in found:
        _check(table, one, told)
    return found


def _bands(maps: Sequence[Mapped]) -> list[str]:
    names = [name[4:] for one in maps for name in one.fields if name.startswith("mag_")]
    return list(dict.fromkeys(name for name in names if not name.startswith("error_")))


def _check(table: RawTable, one: Mapped, told: Told) -> None:
    """Raises for what is known to go wrong before the first row is read."""
    if one.layout.ask_equinox and told.equinox is None:
        raise BadValue(
            f"{table.where}: nothing in it tells the equinox of its positions",
            hint="--equinox 2000 (Landolt 1992) or --equinox 1985 (Landolt 1983)",
        )
    if told.equinox is not None and not 1800 <= told.equinox <= 2100:
        raise BadValue(f"the equinox is a year from 1800 to 2100, not {told.equinox}")
    if told.equinox not in (None, 2000.0) and "pm_ra_mas_yr" in one.fields:
        raise BadValue(f"{table.where}: proper motions of another equinox than 2000 are not converted")
    for name, column in one.fields.items():
        _factor(name, column.unit, table.where)


def _source(path: Path, table: RawTable, one: Mapped, tally: Tally, told: Told) -> dict[str, Any]:
    notes = [f"left out: {text}" for text in one.left_out]
    if "epoch_yr" not in one.fields and one.layout.epoch_yr is None and told.epoch_yr is None:
        motion = "; proper motions cannot be applied" if "pm_ra_mas_yr" in one.fields else ""
        notes.append(f"no epoch: that of the positions is not known{motion}")
    if "ra_deg" in one.assumed and 0 <= tally.first_ra < tally.last_ra <= HOURS:
        notes.append(
            f"RA, from {tally.first_ra:g} to {tally.last_ra:g}, has no unit: taken as degrees, not hours"
        )
    if "ra_error_mas" not in one.fields:
        notes.append("no errors of the positions")
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        **({"origin": told.origin} if told.origin else {}),
        "file": path.name,
        "sha256": sha256,
        "form": table.form,
        "layout": one.layout.name,
        "columns": {name: [column.column, column.unit] for name, column in sorted(one.fields.items())},
        "epoch_yr": told.epoch_yr if told.epoch_yr is not None else one.layout.epoch_yr,
        "equinox": told.equinox,
        "rows": tally.rows,
        "without_position": tally.without_position,
        "bad": tally.bad,
        "named": tally.named,
        "notes": notes,
    }


# From a table's rows to stars


def stars_of(table: RawTable, one: Mapped, told: Told, tally: Tally, first_row: int = 0) -> Iterator[Piece]:
    """The stars of a table in our columns and units, a piece at a time, each with its `row` from 1 on.

    What is not known is not-a-number. Rows without a position are left out and counted in
    `tally`. Raises Unreadable for a position that cannot be, unless they are to be skipped.
    """
    epochs = [name for name in one.layout.error_epochs or () if name in table.names]
    wanted = list(dict.fromkeys([column.column for column in one.fields.values()] + epochs))
    for piece in table.read(wanted):
        length = len(next(iter(piece.values())))
        if length:
            yield _stars(piece, table, one, told, tally, first_row)
        tally.rows += length


def _stars(piece: Piece, table: RawTable, one: Mapped, told: Told, tally: Tally, first_row: int) -> Piece:
    position = {}
    for name in ("ra_deg", "dec_deg"):
        column = one.fields[name]
        position[name] = _angles(piece[column.column], name, column.unit, table.where, tally.rows, told)
    keep = _placed(position, table.where, tally, told)
    number = len(keep)
    stars: Piece = {"row": first_row + tally.rows + 1 + np.flatnonzero(keep)}
    ra, dec = position["ra_deg"][keep], position["dec_deg"][keep]
    tally.first_ra = min(tally.first_ra, float(ra.min(initial=math.inf)))
    tally.last_ra = max(tally.last_ra, float(ra.max(initial=-math.inf)))
    for name, column in one.fields.items():
        if name in position:
            continue
        stars[name] = _column(piece[column.column], name, column.unit, table.where, told)[keep]
    epoch = stars.get("epoch_yr", np.full(int(keep.sum()), np.nan))
    fallback = told.epoch_yr if told.epoch_yr is not None else one.layout.epoch_yr
    stars["epoch_yr"] = epoch if fallback is None else np.where(np.isnan(epoch), fallback, epoch)
    if told.equinox not in (None, 2000.0):
        ra, dec = _to_icrs(ra, dec, float(told.equinox or 0), stars["epoch_yr"])
    stars["ra_deg"], stars["dec_deg"] = np.where(ra < 0, ra + 360, ra) % 360, dec
    if one.layout.zero_missing:
        _drop_zeros(stars)
    if one.layout.colours:
        _from_colours(stars)
    for axis, place in zip(("ra", "dec"), one.layout.error_epochs or (), strict=False):
        if place in piece and len(piece[place]) == number:
            _grow(stars, axis, _numbers(piece[place], place, table.where)[keep])
    return stars


def _angles(values: Array, name: str, unit: str, where: str, done: int, told: Told) -> Doubles:
    """Positions in degrees, from numbers in any unit or from sexagesimal text."""
    if values.dtype.kind not in "US":
        numbers = values.astype(np.float64)
        for sentinel in (*SENTINELS, *told.missing):
            numbers[numbers == sentinel] = np.nan
        return numbers * _factor(name, unit, where)
    hours = name == "ra_deg" and (_plain_unit(unit) == "hour" or unit == "deg")
    degrees = np.full(len(values), np.nan)
    for place, text in enumerate(values.tolist()):
        if text.strip().lower() in BLANKS:
            continue
        angle = angle_deg(text, "ra" if hours else "degrees")
        if angle is None and not told.skip_bad:
            raise Unreadable(
                f"{where}: row {done + place + 1}: {text!r} is no {name.partition('_')[0].upper()}"
            )
        degrees[place] = np.inf if angle is None else angle
    return degrees


def _placed(position: Mapping[str, Doubles], where: str, tally: Tally, told: Told) -> npt.NDArray[np.bool_]:
    """Which rows have a position; counts and names the others. Raises Unreadable for one that cannot be."""
    ra, dec = position["ra_deg"], position["dec_deg"]
    nowhere = np.isnan(ra) | np.isnan(dec)
    bad = ~nowhere & ~((ra >= -180) & (ra <= 360) & (np.abs(dec) <= 90))
    if bad.any() and not told.skip_bad:
        place = int(np.flatnonzero(bad)[0])
        raise Unreadable(
            f"{where}: row {tally.rows + place + 1}: RA {ra[place]:g}, Dec {dec[place]:g} degrees "
            f"is no position on the sky ({int(bad.sum())} such rows up to row {tally.rows + len(ra)})",
            hint="--unit ra_deg=hour (or another), or --skip-bad, which leaves such rows out",
        )
    tally.bad += int(bad.sum())
    tally.without_position += int(nowhere.sum())
    for place in np.flatnonzero(bad | nowhere)[: NAMED_ROWS - len(tally.named)]:
        why = "no position" if nowhere[place] else f"RA {ra[place]:g}, Dec {dec[place]:g}"
        tally.named.append(f"row {tally.rows + int(place) + 1}: {why}")
    return ~(bad | nowhere)


def _numbers(values: Array, column: str, where: str) -> Doubles:
    if values.dtype.kind not in "US":
        return values.astype(np.float64)
    texts = [one.strip() for one in values.tolist()]
    try:
        return np.array([one if one.lower() not in BLANKS else "nan" for one in texts], np.float64)
    except ValueError as error:
        raise Unreadable(f"{where}: column {column}: {error}") from error


def _column(values: Array, name: str, unit: str, where: str, told: Told) -> Array:
    """A column in our unit, not-a-number where its number stands for "not known"."""
    if name == "flags":
        return _suspect(values)
    numbers = _numbers(values, name, where)
    for sentinel in (*SENTINELS, *told.missing):
        numbers = np.where(numbers == sentinel, np.nan, numbers)
    with np.errstate(all="ignore"):
        numbers = _in_our_unit(numbers, name, unit, where)
        if name.startswith("mag_error_"):
            known = (numbers > 0) & (numbers < LARGEST_MAG_ERROR)
        elif name.startswith("mag_"):
            known = (numbers > BRIGHTEST_MAG) & (numbers < FAINTEST_MAG)
        elif "error" in name:
            known = numbers > 0
        elif name == "epoch_yr":
            known = (numbers >= FIRST_YEAR) & (numbers <= LAST_YEAR)
        else:
            known = np.isfinite(numbers)
        numbers = np.where(known & np.isfinite(numbers), numbers, np.nan)
        return numbers if COLUMNS.get(name) == "f8" else numbers.astype(np.float32)


def _suspect(values: Array) -> Array:
    if values.dtype.kind in "US":
        true = np.isin(np.char.lower(values.astype(str)), YES)
    else:
        true = np.nan_to_num(values.astype(np.float64)) != 0
    return np.where(true, SUSPECT, 0).astype(np.int16)


def _in_our_unit(numbers: Doubles, name: str, unit: str, where: str) -> Doubles:
    plain = _plain_unit(unit)
    if name == "epoch_yr" and plain in ("mjd", "jd", "d"):
        jd = numbers + np.where((numbers < MJD_ZERO_JD) & (plain != "jd"), MJD_ZERO_JD, 0)
        return np.asarray(2000 + (jd - J2000_JD) / YEAR_D, np.float64)
    if plain == "snr":
        return np.asarray(MAG_PER_SNR / numbers, np.float64)
    if plain.endswith("2"):
        numbers = np.sqrt(numbers)
    return numbers * _factor(name, unit, where)


def _factor(name: str, unit: str, where: str) -> float:
    """Ours in one of theirs. Raises BadValue for a unit that is none of the column's."""
    plain = _plain_unit(unit)
    known: dict[str, float]
    if name in ("ra_deg", "dec_deg"):
        known = _ANGLES
    elif name.endswith("_mas_yr"):
        angle, _, time = plain.partition("/")
        if angle in _TO_MAS and time in _YEARS:
            return _TO_MAS[angle] / _YEARS[time]
        known = {"mas/yr": 1.0, "arcsec/yr": 1e3, "deg/yr": 3.6e6}
    elif name.endswith("_mas"):
        known = {**_TO_MAS, **{f"{one}2": factor for one, factor in _TO_MAS.items()}}
    elif name == "epoch_yr":
        known = {"yr": 1.0, "mjd": 1.0, "jd": 1.0, "d": 1.0}
    elif name == "flags":
        return 1.0
    else:
        known = {**_MAGNITUDES, "snr": 1.0} if name.startswith("mag_error_") else _MAGNITUDES
    if plain not in known:
        raise BadValue(
            f"{where}: the unit of {name} is {unit!r}, which is none of {', '.join(known)}",
            hint=f"--unit {name}={next(iter(known))} (or another)",
        )
    return known[plain]


def _plain_unit(unit: str) -> str:
    """A unit in one way of writing: 'mas/yr' for 'mas.yr**-1', 'mas yr-1' and others; 'deg2' for 'deg**2'."""
    text = unit.strip().casefold()
    text = text.strip('"') if text != '"' else text
    text = re.sub(r"\s*(?:\*\*|\^)\s*\(?\s*([+-]?\d)\s*\)?", r"\1", text)
    per = re.fullmatch(r"(.+?)\s*(?:[.*\s]\s*([a-z]+)-1|/\s*([a-z0-9]+))", text)
    if per:
        return "/".join(_SYNONYMS.get(one.strip(), one.strip()) for one in (per[1], per[2] or per[3]))
    if text.endswith("2") and len(text) > 1:
        return _SYNONYMS.get(text[:-1], text[:-1]) + "2"
    return _SYNONYMS.get(text, text)


def _to_icrs(ra: Doubles, dec: Doubles, equinox: float, epochs: Doubles) -> tuple[Doubles, Doubles]:
    """Positions of the mean equator and equinox of a year as ICRS: FK4 before 1984, else FK5."""
    # Late: it takes half a second.
    from astropy.coordinates import FK4, FK5, SkyCoord
    from astropy.time import Time

    if equinox < 1984:
        seen = float(np.nanmedian(epochs)) if np.isfinite(epochs).any() else equinox
        frame = FK4(equinox=Time(equinox, format="byear"), obstime=Time(seen, format="jyear"))
    else:
        frame = FK5(equinox=Time(equinox, format="jyear"))
    sky = SkyCoord(ra, dec, unit="deg", frame=frame).icrs
    return np.asarray(sky.ra.deg), np.asarray(sky.dec.deg)


def _drop_zeros(stars: Piece) -> None:
    """Zeros that stand for "not known" in magnitudes, and in motions that have no error."""
    for name in stars:
        if name.startswith("mag_"):
            stars[name] = np.where(stars[name] == 0, np.float32(np.nan), stars[name])
    for axis in ("ra", "dec"):
        motion, error = f"pm_{axis}_mas_yr", f"pm_{axis}_error_mas_yr"
        if motion in stars and error in stars:
            unknown = (stars[motion] == 0) & np.isnan(stars[error])
            stars[motion] = np.where(unknown, np.float32(np.nan), stars[motion])


def _from_colours(stars: Piece) -> None:
    """Magnitudes in B, U, R, I from B-V, U-B, V-R, V-I, which stand in their columns; errors added in squares."""
    steps: tuple[tuple[str, str, Callable[[Array, Array], Array]], ...] = (
        ("B", "V", np.add), ("U", "B", np.add), ("R", "V", lambda colour, v: v - colour),
        ("I", "V", lambda colour, v: v - colour),
    )  # fmt: skip
    for band, base, combine in steps:
        stars[f"mag_{band}"] = combine(stars[f"mag_{band}"], stars[f"mag_{base}"])
        if f"mag_error_{band}" in stars and f"mag_error_{base}" in stars:
            stars[f"mag_error_{band}"] = np.hypot(stars[f"mag_error_{band}"], stars[f"mag_error_{base}"])


def _grow(stars: Piece, axis: str, error_epochs: Doubles) -> None:
    """Errors of positions at their epoch, from those at the epoch at which they are smallest."""
    error, motion = stars.get(f"{axis}_error_mas"), stars.get(f"pm_{axis}_error_mas_yr")
    if error is None or motion is None:
        return
    years = np.nan_to_num(stars["epoch_yr"] - error_epochs)
    stars[f"{axis}_error_mas"] = np.hypot(error, np.nan_to_num(motion) * years).astype(np.float32)
