"""Answers of queries as tables of other programs: CSV, VOTable and FITS, with units and descriptions.

No value is changed: numbers keep all their digits, text is text.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadValue, UsageError

if TYPE_CHECKING:
    from astropy.table import MaskedColumn, Table

# What the end of a file's name says.
FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "paths",
    ".json": "json",
    ".jsonl": "json",
    ".vot": "votable",
    ".votable": "votable",
    ".xml": "votable",
    ".fits": "fits",
    ".fit": "fits",
}
BINARY = ("votable", "fits")
_NULL_INTEGER = -(1 << 63)


@dataclass(frozen=True)
class Column:
    """What a column is: its name, type ('text', 'integer', 'real' or '' if the values tell), unit and a sentence."""

    name: str
    type: str = ""
    unit: str = ""
    help: str = ""


def format_of(path: Path) -> str:
    """The format that the name of a file says; raises UsageError."""
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        raise UsageError(f"-o {path}: the end of the name says the format: {' '.join(FORMATS)}")
    return found


def text_of(value: object) -> str:
    """A value as text for programs: all digits of a number, the values of a list joined by commas."""
    if value is None:
        return ""
    if isinstance(value, list):
        return ",".join(
            text_of(one) if not isinstance(one, dict | list) else json.dumps(one) for one in value
        )
    if isinstance(value, str):
        return value
    return repr(value) if isinstance(value, float) else json.dumps(value)


def table_bytes(columns: Sequence[Column], rows: Iterable[Mapping[str, Any]], form: str) -> bytes:
    """A table as a VOTable or FITS file. Raises BadValue for what FITS cannot hold."""
    listed = list(rows)
    return _votable(columns, listed) if form == "votable" else _fits(columns, listed)


def csv_line(values: Iterable[object]) -> str:
    """One line of CSV."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow([text_of(one) for one in values])
    return stream.getvalue()


def json_line(row: Mapping[str, Any]) -> str:
    """A row as a JSON object; infinity, which JSON does not have, as a number that is read as it."""
    try:
        return json.dumps(row, allow_nan=False)
    except ValueError:
        parts = (f"{json.dumps(name)}: {_json(value)}" for name, value in row.items())
        return f"{{{', '.join(parts)}}}"


def _json(value: object) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "1e999" if value > 0 else "-1e999"
    return json.dumps(value)


def _table(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> Table:
    from astropy.table import Table

    table = Table(masked=True)
    for column in columns:
        table[column.name] = _column(column, [row[column.name] for row in rows])
    return table


def _column(column: Column, values: Sequence[Any]) -> MaskedColumn:
    import numpy as np
    from astropy.table import MaskedColumn

    kind = _type(column, values)
    mask = [value is None for value in values]
    if kind == "text":
        data = np.array(["" if value is None else text_of(value) for value in values], dtype=str)
        if data.dtype.itemsize == 0:
            data = data.astype("U1")
    else:
        fill = 0 if kind == "integer" else np.nan
        data = np.array([fill if value is None else value for value in values], dtype=_TYPES[kind])
    unit = _UNITS.get(column.unit, column.unit) if kind in ("integer", "real") else ""
    told = column.help if unit or not column.unit else f"{column.help} [{column.unit}]"
    return MaskedColumn(data, name=column.name, mask=mask, unit=unit or None, description=told or None)


_TYPES = {"integer": "int64", "real": "float64", "boolean": "int64"}


def _type(column: Column, values: Sequence[Any]) -> str:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, bool}:
        if kinds:
            return "integer"
        return column.type if column.type in _TYPES else "text"
    whole = [value for value in values if isinstance(value, int)]
    # An integer that no float holds stays what it is.
    exact = all(int(float(value)) == value for value in whole)
    return "real" if kinds <= {int, float, bool} and exact else "text"


# Units as the standards write them; what they have not is said in the description.
_UNITS = {
    "UTC": "",
    "bits": "",
    "SHA-256": "",
    "ADU": "adu",
    "ADU/s": "adu/s",
    "px": "pix",
    "C": "",
    "e/ADU": "",
}


def _votable(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> bytes:
    from astropy.io.votable import from_table

    for column in columns:
        for row in rows:
            _refuse_controls(column.name, row[column.name])
    stream = io.BytesIO()
    from_table(_table(columns, rows)).to_xml(stream)
    return stream.getvalue()


_NOT_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def _refuse_controls(name: str, value: object) -> None:
    if isinstance(value, str) and _NOT_XML.search(value):
        raise BadValue(f"{name}: XML cannot hold {value[:60]!r}", hint="--format json")


def _fits(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> bytes:
    from astropy.io import fits

    table = _table(columns, rows)
    made = []
    for column in columns:
        data = table[column.name]
        if data.dtype.kind == "U":
            _refuse_other_than_ascii(column.name, data)
            made.append(
                fits.Column(column.name, f"{data.dtype.itemsize // 4}A", array=data.filled("").astype(str))
            )
        elif data.dtype.kind == "i":
            null = _NULL_INTEGER if data.mask.any() else None
            filled = data.filled(_NULL_INTEGER if null is not None else 0)
            made.append(fits.Column(column.name, "K", unit=_fits_unit(data), null=null, array=filled))
        else:
            made.append(fits.Column(column.name, "D", unit=_fits_unit(data), array=data.filled(float("nan"))))
    hdu = fits.BinTableHDU.from_columns(made)
    for number, column in enumerate(columns, start=1):
        told = table[column.name].description
        if told:
            hdu.header.set(f"TCOMM{number}", _ascii(told), after=f"TFORM{number}")
    stream = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(stream)
    return stream.getvalue()


def _fits_unit(column: MaskedColumn) -> str | None:
    return None if column.unit is None else str(column.unit)


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()


def _refuse_other_than_ascii(name: str, data: Any) -> None:
    for value in data.filled(""):
        if not str(value).isascii() or not str(value).isprintable():
            raise BadValue(f"{name}: FITS cannot hold {str(value)[:60]!r}", hint="--format votable, or csv")
