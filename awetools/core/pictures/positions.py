"""Positions on the sky that cut-outs are made of: typed, or rows of a table, with names and sizes."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..catalogues.reflayouts import mapped
from ..catalogues.reftables import RawTable, open_table
from ..errors import EmptyInput, Unreadable, UsageError
from ..files import parse_address
from ..units import angle_deg

Doubles = npt.NDArray[np.float64]

# Columns with names of objects and with sizes, the more telling first; case does not matter.
NAME_COLUMNS = ("name", "object", "designation", "main_id", "id", "source_id", "number")
SIZE_COLUMNS = {"size": "arcmin", "size_arcmin": "arcmin", "size_arcsec": "arcsec", "size_px": "px"}
ARCSEC = {"": 60.0, "arcmin": 60.0, "'": 60.0, "arcsec": 1.0, '"': 1.0, "deg": 3600.0}
PIXELS = ("px", "pix", "pixel")
LARGEST_PX, LARGEST_ARCSEC = 1 << 17, 180 * 3600.0
LONGEST_NAME = 100
_SIZE = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*([a-z'\"]*)\s*", re.IGNORECASE)
_HOURS = ("h", "hr", "hour", "hours", "hourangle")
_RADIANS = ("rad", "radian", "radians")


@dataclass(frozen=True)
class Size:
    """The side of a square: in arcsec on the sky, or in pixels; the other one is nan."""

    arcsec: float
    px: float


@dataclass(frozen=True)
class Positions:
    """Positions (n,) in degrees with a name each, fit for a file, and the sides of their squares; see `Size`.

    ``nowhere``: rows of the table, as it calls them, that have no position on the sky or no size.
    """

    names: tuple[str, ...]
    ra_deg: Doubles
    dec_deg: Doubles
    size_arcsec: Doubles
    size_px: Doubles
    nowhere: tuple[str, ...] = ()


def size_of(text: str) -> Size:
    """The side that a text means: arcmin, or with a unit: 30arcsec, 0.1deg, 200px. Raises UsageError."""
    found = _SIZE.fullmatch(text)
    unit = found[2].lower() if found else "?"
    number = float(found[1]) if found else 0.0
    if unit in PIXELS and 0.5 <= number <= LARGEST_PX:
        return Size(math.nan, number)
    if unit in ARCSEC and 0 < number * ARCSEC[unit] <= LARGEST_ARCSEC:
        return Size(number * ARCSEC[unit], math.nan)
    raise UsageError(f"--size {text}: not a size such as 2 (arcmin), 30arcsec, 0.1deg or 200px")


def typed(places: Sequence[tuple[float, float]], size: Size) -> Positions:
    """Positions in degrees, named after themselves."""
    ra, dec = (np.array([one[axis] for one in places], np.float64) for axis in (0, 1))
    return _positions([name_of(*one) for one in places], ra, dec, size)


def name_of(ra_deg: float, dec_deg: float) -> str:
    """A position as the IAU writes it in names: J132952.70+471143.0, cut and not rounded."""
    # So that what is written as a round number is one.
    seconds = math.floor(ra_deg % 360 * 24000 + 1e-6)
    arcsec = math.floor(abs(dec_deg) * 36000 + 1e-6)
    hours, rest = divmod(seconds, 360000)
    degrees, part = divmod(arcsec, 36000)
    ra = f"{hours % 24:02d}{rest // 6000:02d}{rest % 6000 / 100:05.2f}"
    return f"J{ra}{'-' if dec_deg < 0 else '+'}{degrees:02d}{part // 600:02d}{part % 600 / 10:04.1f}"


def read_positions(name: str, size: Size | None) -> Positions:
    """The positions of a table: FITS, VOTable, ECSV, CSV or text; `table.fits[EXT]` names an extension.

    RA and Dec are columns as they are usually called, in degrees, or as texts such as 13:29:52.7. A column
    `name` (or id, object, ...) names them; `size` (arcmin; or size_arcsec, size_px, or a unit) goes before
    `size`. Rows without a position or size are left out, and named in `nowhere`.
    Raises Unreadable, EmptyInput, UsageError without a size.
    """
    address = parse_address(name)
    extension = address.detector
    table = open_table(address.path, int(extension) if extension and extension.isdigit() else extension)
    try:
        fields = mapped(table).fields
    except Unreadable as error:
        raise Unreadable(error.message, hint="columns called ra and dec, in degrees, are known") from None
    ra_from, dec_from = fields["ra_deg"], fields["dec_deg"]
    named, sized = _column(table, NAME_COLUMNS), _column(table, tuple(SIZE_COLUMNS))
    if sized is None and size is None:
        raise UsageError(f"{table.where}: no column of sizes, so --size is needed", hint="--size 1")
    wanted = list(dict.fromkeys(one for one in (ra_from.column, dec_from.column, named, sized) if one))
    pieces = [piece for piece in table.read(wanted) if len(piece[ra_from.column])]
    if not pieces:
        raise EmptyInput(f"{table.where}: no row")
    columns = {one: np.concatenate([piece[one] for piece in pieces]) for one in wanted}
    ra = _degrees(columns[ra_from.column], ra_from.unit, True, table.where)
    dec = _degrees(columns[dec_from.column], dec_from.unit, False, table.where)
    if named is None:
        there = np.isfinite(ra) & np.isfinite(dec)
        places = zip(ra.tolist(), dec.tolist(), there.tolist(), strict=True)
        names = [name_of(a, d) if known else "" for a, d, known in places]
    else:
        names = _texts(columns[named])
    sides = size if sized is None else _sizes(columns[sized], sized, table, size)
    return _positions(names, ra, dec, sides or Size(math.nan, math.nan), table.where)


def _positions(
    names: Sequence[str], ra: Doubles, dec: Doubles, size: Size | tuple[Doubles, Doubles], where: str = ""
) -> Positions:
    arcsec, px = (size.arcsec, size.px) if isinstance(size, Size) else size
    arcsec, px = np.broadcast_to(arcsec, ra.shape), np.broadcast_to(px, ra.shape)
    with np.errstate(invalid="ignore"):
        there = (ra >= -180) & (ra <= 360) & (np.abs(dec) <= 90)
        there &= ((px >= 0.5) & (px <= LARGEST_PX)) | ((arcsec > 0) & (arcsec <= LARGEST_ARCSEC))
    if not there.any():
        raise Unreadable(f"{where}: no row has a position on the sky and a size")
    rows = np.flatnonzero(there)
    chosen = _distinct([_as_file_name(names[row]) for row in rows.tolist()])
    lost = tuple(
        f"row {row + 1}" + f" ({names[row].strip()})" * bool(names[row].strip())
        for row in np.flatnonzero(~there).tolist()
    )
    return Positions(tuple(chosen), ra[rows] % 360, dec[rows], arcsec[rows], px[rows], lost)


def _column(table: RawTable, names: Sequence[str]) -> str | None:
    have = {name.casefold(): name for name in reversed(table.names)}
    return next((have[name] for name in names if name in have), None)


def _degrees(values: npt.NDArray[Any], unit: str, is_ra: bool, where: str) -> Doubles:
    plain = unit.strip().casefold()
    if values.dtype.kind not in "US":
        factor = 15.0 if plain in _HOURS else math.degrees(1) if plain in _RADIANS else 1.0
        return np.asarray(values, np.float64) * factor
    form = "hours" if plain in _HOURS else "ra" if is_ra else "degrees"
    made = [angle_deg(text, form) if text.strip() else math.nan for text in values.tolist()]
    if None in made:
        row = made.index(None)
        raise Unreadable(f"{where}: row {row + 1}: {str(values[row])!r} is no {'RA' if is_ra else 'Dec'}")
    return np.array(made, np.float64)


def _texts(values: npt.NDArray[Any]) -> list[str]:
    whole = values.dtype.kind == "f" and bool((values == np.floor(values)).all())
    return [str(one) for one in (values.astype(np.int64) if whole else values).tolist()]


def _sizes(
    values: npt.NDArray[Any], column: str, table: RawTable, size: Size | None
) -> tuple[Doubles, Doubles]:
    """Sides in arcsec and in pixels, one of them nan; where a row says none, those of `size`."""
    unit = table.units.get(column, "").strip().casefold() or SIZE_COLUMNS[column.casefold()]
    if unit not in PIXELS and unit not in ARCSEC:
        raise Unreadable(
            f"{table.where}: column {column}: sizes in {unit!r}; arcmin, arcsec, deg, px are known"
        )
    if values.dtype.kind in "US":
        raise Unreadable(f"{table.where}: column {column} holds texts, not numbers")
    numbers = np.asarray(values, np.float64)
    none = np.full(len(numbers), np.nan)
    arcsec, px = (none, numbers) if unit in PIXELS else (numbers * ARCSEC[unit], none)
    if size is None:
        return arcsec, px
    missing = ~np.isfinite(numbers)
    return np.where(missing, size.arcsec, arcsec), np.where(missing, size.px, px)


def _as_file_name(name: str) -> str:
    """A name of which every character is at home in a file's name."""
    return re.sub(r"[^A-Za-z0-9.+_-]+", "_", name.strip()).strip("._")[:LONGEST_NAME] or "unnamed"


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, those that are there again with a number behind them."""
    taken = set(names)
    seen: Counter[str] = Counter()
    made = []
    for name in names:
        seen[name] += 1
        new = name
        while seen[name] > 1 and new in taken:
            new = f"{name}-{seen[name]}"
            if new in taken:
                seen[name] += 1
        taken.add(new)
        made.append(new)
    return made
