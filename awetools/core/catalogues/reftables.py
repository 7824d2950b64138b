"""Reads any table of stars, piece by piece: FITS, LDAC, VOTable, CSV, TSV, ECSV, columns of text."""

from __future__ import annotations

import gzip
import io
import re
import shlex
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import NoImage, NoSuchExtension, NoSuchFile, Truncated, Unreadable
from ..fits import open_fits
from ..fitsbytes import OnDisk
from ..fitsvalues import column_values, columns_of
from ..fitswrite import bytes_of

if TYPE_CHECKING:
    from ..fits import FitsFile
    from ..fitsbytes import Hdu

Array = npt.NDArray[Any]
Piece = dict[str, Array]
_T = TypeVar("_T")

PIECE_ROWS = 1 << 17
# A piece of text: lists of Python strings take more room than numbers.
TEXT_ROWS = 1 << 15
# Packed FITS tables up to this size are unpacked in memory.
MOST_PACKED_BYTES = 1 << 28
# Words for "no value".
BLANKS = frozenset(
    ("", "nan", "null", "none", "n/a", "na", "-", "--", "---", "...", "\\n", "masked", "indef")
)
_SEXAGESIMAL = re.compile(r"[+-]?\d{1,3}[: ]\d{1,2}[: ]\d{1,2}(?:\.\d*)?")
_SEXTRACTOR = re.compile(r"#\s+(\d+)\s+(\S+)\s*(.*?)\s*(?:\[([^\]]*)\])?\s*$")


@dataclass(frozen=True)
class RawTable:
    """A table of stars as it was found: names and units of its columns, and how to read them.

    form: 'FITS', 'LDAC', 'VOTable', 'ECSV', 'CSV' or 'text'. `read` gives columns by name, a
    piece of rows at a time: numbers as they are (not-a-number where a number is missing),
    texts stripped, or truth values. nameless: the columns are called '1', '2', ... for want of names.
    """

    where: str
    form: str
    names: tuple[str, ...]
    units: Mapping[str, str]
    read: Callable[[Sequence[str]], Iterator[Piece]]
    nameless: bool = False


def open_table(path: str | Path, extension: str | int | None = None) -> RawTable:
    """The table of a file, whatever its form; its form is known by its first bytes, gzip or not.

    extension: the HDU of a FITS file or the number of a table in a VOTable, needed where there
    are several that could be meant. Raises NoSuchFile, Unreadable, NotFits, Truncated,
    NoImage (no table), NoSuchExtension.
    """
    path = Path(path)
    begin = _first_bytes(path)
    if begin.startswith(b"SIMPLE"):
        return _fits_table(path, extension)
    if re.match(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!DOCTYPE[^>]*>\s*)?<VOTABLE", begin, re.S):
        return _votable(path, extension)
    if b"\0" in begin:
        raise Unreadable(
            f"{path}: neither FITS nor VOTable nor text: it begins with {begin[:16]!r}",
            hint=f"file {shlex.quote(str(path))}",
        )
    if not begin.strip():
        raise Unreadable(f"{path}: the table is empty", hint=f"ls -l {shlex.quote(str(path))}")
    if extension is not None:
        raise NoSuchExtension(f"{path}: a table of text has no extension, such as {extension!r}")
    return _text_table(path)


def _first_bytes(path: Path) -> bytes:
    if not path.is_file():
        what = "a directory, device or pipe, not a file" if path.exists() else "no such file"
        raise NoSuchFile(f"{path}: {what}", hint=f"ls -l {shlex.quote(str(path.parent))}")
    with _opened(path) as file:
        return _guarded(path, lambda: file.read(1 << 14))


def _opened(path: Path) -> io.BufferedReader:
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        return io.BufferedReader(gzip.open(path)) if packed else path.open("rb")
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from error


def _guarded(path: Path, read: Callable[[], _T]) -> _T:
    """What reading gives; errors of disk and gzip as ours."""
    try:
        return read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        hint = f"gzip -t {shlex.quote(str(path))}"
        raise Truncated(f"{path}: the gzip stream breaks: {error}", hint=hint) from error
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror or error}") from error


# FITS


def _fits_table(path: Path, extension: str | int | None) -> RawTable:
    with open_fits(path) as fits:
        hdu = _table_hdu(fits, extension)
        layout = columns_of(hdu.header, hdu.shape, hdu.where)
        readable = tuple(name for name, column in layout.items() if _is_plain(column.code, column.shape))
        units, nulls = {}, {}
        for number, name in enumerate(_all_names(hdu), 1):
            units[name] = str(hdu.header.get(f"TUNIT{number}") or "").strip()
            null = hdu.header.get(f"TNULL{number}")
            if null is not None:
                nulls[name] = float(str(null))
        packed = fits.hdus[0].extent.header_start == 0 and _is_packed(path)
        if packed and hdu.data_bytes > MOST_PACKED_BYTES:
            raise Unreadable(
                f"{hdu.where}: a packed table of {hdu.data_bytes} bytes is not read piece by piece",
                hint=f"gunzip -k {shlex.quote(str(path))}",
            )
    form = "LDAC" if hdu.name.upper() in ("LDAC_OBJECTS", "OBJECTS", "PSSC") else "FITS"

    def read(names: Sequence[str]) -> Iterator[Piece]:
        with open_fits(path) as fits:
            if packed:
                yield from _pieces_of(fits.table(hdu.index, list(names)), nulls)
                return
            for raw in _raw_rows(path, hdu):
                values = {name: column_values(raw, layout[name], hdu.where) for name in names}
                yield {name: _with_nulls(one, nulls.get(name)) for name, one in values.items()}

    return RawTable(hdu.where, form, readable, units, read)


def _is_plain(code: str, shape: tuple[int, ...]) -> bool:
    """Whether a column holds one text, or one number that is read, a row."""
    return code in "LBIJKEDA" and (len(shape) < 2 if code == "A" else not shape)


def _is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _all_names(hdu: Hdu) -> list[str]:
    count = int(str(hdu.header.get("TFIELDS") or 0))
    return [str(hdu.header.get(f"TTYPE{number}") or f"col{number}").strip() for number in range(1, count + 1)]


def _table_hdu(fits: FitsFile, extension: str | int | None) -> Hdu:
    """The table that is meant: the one asked for, or the only one with positions in it."""
    if extension is not None:
        hdu = fits.hdu(extension)
        if not hdu.is_table:
            raise NoImage(f"{hdu.where}: not a binary table")
        return hdu
    tables = [hdu for hdu in fits.hdus if hdu.is_table and hdu.name.upper() not in ("LDAC_IMHEAD", "FIELDS")]
    if not tables:
        raise NoImage(f"{fits.path}: no binary table")
    # Fits with a k-d tree beside its table, or with tables of fields.
    likely = [hdu for hdu in tables if len(_all_names(hdu)) > 1]
    if len(likely) > 1:
        names = ", ".join(f"[{hdu.name or hdu.index}]" for hdu in likely)
        raise NoImage(
            f"{fits.path}: {len(likely)} tables: {names}", hint=f"name one: {fits.path}[{likely[0].index}]"
        )
    return (likely or tables)[0]


def _raw_rows(path: Path, hdu: Hdu) -> Iterator[Array]:
    """The bytes of a table's rows, a piece at a time."""
    length, width = hdu.shape
    step = max(1, min(PIECE_ROWS, (1 << 26) // max(1, width)))
    with path.open("rb") as file:
        source = OnDisk(file.fileno(), path.stat().st_size, str(path))
        for start in range(0, length, step):
            raw = np.empty((min(step, length - start), width), "u1")
            source.read_into(bytes_of(raw), hdu.extent.data_start + start * width)
            yield raw


def _pieces_of(columns: Mapping[str, Array], nulls: Mapping[str, float]) -> Iterator[Piece]:
    length = min((len(values) for values in columns.values()), default=0)
    for start in range(0, length, PIECE_ROWS):
        part = {name: values[start : start + PIECE_ROWS] for name, values in columns.items()}
        yield {name: _with_nulls(values, nulls.get(name)) for name, values in part.items()}


def _with_nulls(values: Array, null: float | None) -> Array:
    if null is None or values.dtype.kind not in "iu":
        return values
    return np.where(values == null, np.nan, values)


# VOTable


def _votable(path: Path, extension: str | int | None) -> RawTable:
    import warnings

    # Late: it takes a third of a second.
    from astropy.io.votable import parse

    with warnings.catch_warnings():
        # The tables of half the services break some rule of the standard.
        warnings.simplefilter("ignore")
        try:
            with _opened(path) as file:
                tables = list(parse(file, verify="ignore").iter_tables())
        except Exception as error:
            raise Unreadable(f"{path}: cannot be read as a VOTable: {error}") from error
        tables = [table for table in tables if table.fields]
        if not tables:
            raise Unreadable(
                f"{path}: the VOTable holds no table; its service may have answered with an error"
            )
        if extension is not None and not str(extension).isdecimal():
            raise NoSuchExtension(
                f"{path}: a table of a VOTable has a number, 0 to {len(tables) - 1}, not {extension!r}"
            )
        number = int(extension) if extension is not None else 0
        if (extension is None and len(tables) > 1) or not 0 <= number < len(tables):
            raise Unreadable(f"{path}: {len(tables)} tables, 0 to {len(tables) - 1}; which is not told")
        found = tables[number].to_table(use_names_over_ids=True)
    columns = {name: _plain(found[name]) for name in found.colnames}
    units = {name: str(found[name].unit or "") for name in found.colnames}
    names = tuple(name for name, values in columns.items() if found[name].ndim == 1)

    def read(wanted: Sequence[str]) -> Iterator[Piece]:
        return _pieces_of({name: columns[name] for name in wanted}, {})

    return RawTable(str(path), "VOTable", names, units, read)


def _plain(column: Any) -> Array:
    """The values of an astropy column: not-a-number or "" where one is masked."""
    values: Any = np.ma.asarray(column)
    kind, gone = values.dtype.kind, np.ma.getmaskarray(values)
    plain: Array = np.array(values.data)
    if kind == "O" and values.ndim > 0:
        texts = ["" if hidden else str(value) for value, hidden in zip(plain, gone, strict=True)]
        return np.array(texts, str)
    if kind in "US":
        return np.char.strip(np.where(gone, "", plain.astype(str)))
    if kind in "iuf":
        return np.where(gone, np.nan, plain) if gone.any() else plain
    return np.where(gone, False, plain)


# Text


@dataclass(frozen=True)
class _Text:
    """How a text table is laid out: the separator (None: white space), names, units, lines before the rows."""

    separator: str | None
    names: tuple[str, ...]
    units: Mapping[str, str]
    skip: int
    form: str
    nameless: bool


def _text_table(path: Path) -> RawTable:
    with _lines(path) as lines:
        head = _guarded(path, lambda: list(islice(lines, 1000)))
    text = _text_layout(path, head)

    def read(wanted: Sequence[str]) -> Iterator[Piece]:
        return _text_pieces(path, text, wanted)

    return RawTable(str(path), text.form, text.names, text.units, read, text.nameless)


def _lines(path: Path) -> io.TextIOWrapper:
    return io.TextIOWrapper(_opened(path), encoding="utf-8-sig", errors="replace", newline=None)


def _text_layout(path: Path, head: Sequence[str]) -> _Text:
    """Separator, names and units from the first lines of a file."""
    comments = [line for line in head if line.startswith("#")]
    if comments and comments[0].startswith("# %ECSV"):
        return _ecsv_layout(path, head)
    numbered = [found for line in comments if (found := _SEXTRACTOR.match(line))]
    rest = [(number, line) for number, line in enumerate(head) if line.strip() and not line.startswith("#")]
    if not rest:
        raise Unreadable(f"{path}: no row in its first {len(head)} lines, only comments")
    if numbered and [int(one[1]) for one in numbered] == sorted(int(one[1]) for one in numbered):
        return _numbered_layout(numbered, rest[0])
    separator = _separator(rest[0][1], rest[1][1] if len(rest) > 1 else rest[0][1])
    first = _split(rest[0][1], separator)
    if not _is_values(first):
        return _named_layout(first, rest, separator)
    # TOPCAT and others write the names as a comment.
    last = _split(comments[-1].lstrip("#").strip(), separator) if comments else []
    if len(last) == len(first) and not _is_values(last):
        return _Text(separator, tuple(last), {}, rest[0][0], "CSV" if separator else "text", False)
    names = tuple(str(number) for number in range(1, len(first) + 1))
    return _Text(separator, names, {}, rest[0][0], "CSV" if separator else "text", True)


def _named_layout(first: Sequence[str], rest: Sequence[tuple[int, str]], separator: str | None) -> _Text:
    """A line of names, and, as VizieR writes them, perhaps one of units and one of dashes."""
    units: dict[str, str] = {}
    skip = rest[0][0] + 1
    for place in (1, 2):
        if place < len(rest) and re.fullmatch(r"[-\s,;|+=]*-[-\s,;|+=]*", rest[place][1]):
            skip = rest[place][0] + 1
            if place == 2:
                units = dict(zip(first, _split(rest[1][1], separator), strict=False))
            break
    return _Text(separator, tuple(first), units, skip, "CSV" if separator else "text", False)


def _numbered_layout(found: Sequence[re.Match[str]], first: tuple[int, str]) -> _Text:
    """The head that SExtractor writes: "#   3 ALPHA_J2000   Right ascension   [deg]"; vectors fill the gaps."""
    count = len(first[1].split())
    names = [str(number) for number in range(1, count + 1)]
    for one in found:
        if int(one[1]) <= count:
            names[int(one[1]) - 1] = one[2]
    units = {one[2]: (one[4] or "").strip() for one in found}
    return _Text(None, tuple(names), units, first[0], "text", False)


def _ecsv_layout(path: Path, head: Sequence[str]) -> _Text:
    """Names, units and separator from the head of an Enhanced CSV file (Astropy Proposal for Enhancement 6)."""
    from astropy.table.meta import get_header_from_yaml

    comments = [line[2:].rstrip("\n") for line in head if line.startswith("#")]
    number = next(n for n, line in enumerate(head) if line.strip() and not line.startswith("#"))
    try:
        header = get_header_from_yaml(comments[1:])
        columns = {str(one["name"]): str(one.get("unit") or "") for one in header["datatype"]}
        separator = str(header.get("delimiter", " "))
    except Exception as error:
        raise Unreadable(f"{path}: its ECSV header cannot be read: {error}") from error
    names = tuple(_split(head[number], separator))
    if list(names) != list(columns):
        raise Unreadable(f"{path}: line {number + 1} and the ECSV header differ in the names of the columns")
    return _Text(separator, names, columns, number + 1, "ECSV", False)


def _separator(first: str, second: str) -> str | None:
    """The separator that splits both lines alike; None for white space."""
    for separator in ("\t", ",", ";", "|"):
        count = first.count(separator)
        if count and abs(second.count(separator) - count) <= max(1, count // 2):
            return separator
    return None


def _split(line: str, separator: str | None) -> list[str]:
    if separator is None:
        return line.split()
    import csv

    return [one.strip() for one in next(csv.reader([line.rstrip("\r\n")], delimiter=separator), [])]


def _is_values(fields: Sequence[str]) -> bool:
    """Whether a line is a row rather than names: a third of its fields are numbers or angles."""
    values = sum(_is_number(one) or bool(_SEXAGESIMAL.fullmatch(one)) for one in fields)
    return 3 * values >= len(fields) > 0


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.lower() != "nan"


def _text_pieces(path: Path, text: _Text, wanted: Sequence[str]) -> Iterator[Piece]:
    import csv

    places = [text.names.index(name) for name in wanted]
    with _lines(path) as lines:
        for _ in range(text.skip):
            next(lines)
        kept = (line for line in lines if not line.startswith("#") and not line.isspace())
        rows: Iterator[list[str]]
        if text.separator is None:
            rows = (line.split() for line in kept)
        else:
            rows = csv.reader(kept, delimiter=text.separator, skipinitialspace=text.separator == " ")
        done = 0
        while True:
            try:
                piece = _guarded(path, lambda rows=rows: list(islice(rows, TEXT_ROWS)))  # type: ignore[misc]
            except csv.Error as error:
                raise Unreadable(f"{path}: row {done + 1} or one soon after it: {error}") from error
            if not piece:
                return
            _check_lengths(path, piece, text, done)
            yield {
                name: _numbers_or_texts([*map(itemgetter(place), piece)])
                for name, place in zip(wanted, places, strict=True)
            }
            done += len(piece)


def _check_lengths(path: Path, piece: Sequence[Sequence[str]], text: _Text, done: int) -> None:
    """Raises Unreadable for a row of fewer fields than names, or, separated by signs, of more."""
    count = len(text.names)
    lengths = set(map(len, piece))
    wrong = {
        length for length in lengths if length < count or (length > count and text.separator is not None)
    }
    if wrong:
        number, row = next((n, row) for n, row in enumerate(piece, done + 1) if len(row) in wrong)
        raise Unreadable(f"{path}: row {number} has {len(row)} fields, not {count}: {' '.join(row):.80}")


def _numbers_or_texts(texts: list[str]) -> Array:
    """Numbers, not-a-number where there is none; or the texts where one is something else."""
    try:
        return np.array(texts, np.float64)
    except ValueError:
        pass
    stripped = [one.strip() for one in texts]
    try:
        return np.array([one if one.lower() not in BLANKS else "nan" for one in stripped], np.float64)
    except ValueError:
        return np.array(stripped, str)
