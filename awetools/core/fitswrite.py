"""Writing FITS files: planes and tables, sums and hashes, the same bytes for the same content."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .errors import BeingWritten, Unavailable
from .fitsbytes import ONES, STRIP_BYTES, filled_bytes, folded, ones_sum
from .fitsdigest import digests
from .fitsheader import Header, HeaderValue, content_of, format_card, header_bytes, parse_header
from .fitsvalues import FLIPPED, STORED, swapped, with_sign_flipped, words_sum
from .pixels.spool import Spool, free_bytes, megabytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

CardTuple = tuple[str, HeaderValue, str]


@dataclass(frozen=True)
class Plane:
    """One unit to write: an image (2-D) or a table (columns of one length, by name), and its own cards.

    Images are float32, float64, int16, int32, int64, uint8 or, by zero points, int8, uint16, uint32, uint64;
    table columns also logical and text, with vectors along their further axes. Floats must be finite.
    The first plane may have neither: then the primary unit is empty and the images are extensions.
    Images and columns may be spools: they are then read in strips.
    """

    name: str
    data: Array | Spool | None = None
    table: Mapping[str, Array | Spool] | None = None
    units: Mapping[str, str] = field(default_factory=dict)
    cards: Sequence[CardTuple] = ()


@dataclass(frozen=True)
class Written:
    """What was written: the file's length, SHA-256 and time, and its content hash (`FitsFile.content()`)."""

    bytes: int
    file_sha256: str
    content: str
    mtime_ns: int


class _Unit(NamedTuple):
    """Cards, the sum of the data unit's 32-bit words, and its bytes."""

    cards: list[CardTuple]
    datasum: Callable[[], int]
    strips: Callable[[], Iterator[memoryview]]


_BITPIX_AND_ZERO = {
    **{dtype.lstrip(">"): (bitpix, 0) for bitpix, dtype in STORED.items()},
    **{dtype: key for key, dtype in FLIPPED.items()},
}
_LETTERS = {8: "B", 16: "I", 32: "J", 64: "K", -32: "E", -64: "D"}
# What describes the data unit is the writer's to say; such cards of a raw frame's header are not copied.
_WRITERS_OWN = re.compile(
    r"(?:SIMPLE|XTENSION|EXTNAME|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|GROUPS|BSCALE|BZERO|BLANK"
    r"|DATASUM|CHECKSUM|END|TFIELDS|THEAP|T(?:TYPE|FORM|UNIT|NULL|SCAL|ZERO|DISP|DIM)\d+)\Z"
)


# A file of more bytes than this is not begun where there is no room for it.
LARGE_BYTES = 1 << 26


def write_fits(
    path: str | Path,
    hdus: Sequence[Plane],
    primary_cards: Sequence[CardTuple],
    called: str | Path | None = None,
) -> Written:
    """Writes a new file: the first image in the primary unit, the other planes as extensions in their order.

    The bytes are a function of the arguments alone. Every unit carries DATASUM and CHECKSUM. Cards that
    describe the data unit (BITPIX, EXTNAME, ...) are left out of the given cards. The file is flushed to
    disk. Raises BeingWritten where the file exists, and Unavailable where it cannot be written; no part of
    it is then left. ``called``: the name that errors give it.
    """
    path = Path(path)
    units = _units_to_write(hdus, primary_cards)
    try:
        _refuse_small_disk(path.parent, hdus)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError as error:
        raise BeingWritten(f"{path}: exists already; another program may be writing it") from error
    except OSError as error:
        raise _not_written(path, called, hdus, error) from error
    try:
        try:
            return _write_units(file, units)
        finally:
            os.close(file)
    except BaseException as error:
        with contextlib.suppress(OSError):
            path.unlink()
        if isinstance(error, OSError):
            raise _not_written(path, called, hdus, error) from error
        raise


def _refuse_small_disk(folder: Path, planes: Sequence[Plane]) -> None:
    size = _size_about(planes)
    free = free_bytes(folder) if size > LARGE_BYTES else None
    if free is not None and free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _not_written(
    path: Path, called: str | Path | None, planes: Sequence[Plane], error: OSError
) -> Unavailable:
    folder = shlex.quote(str(path.parent))
    text, hint = f"{called or path}: cannot be written: {error.strerror}", f"df -h {folder}"
    free = free_bytes(path.parent)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        size = _size_about(planes)
        text += f"; it takes {megabytes(size)}" + ("" if free is None else f", {megabytes(free)} are free")
        hint += "; make room, then the same command again"
    return Unavailable(text, hint=hint)


def _size_about(planes: Sequence[Plane]) -> int:
    """Bytes of all arrays and columns."""
    arrays = [one.data for one in planes if one.data is not None]
    arrays += [column for one in planes for column in (one.table or {}).values()]
    return sum(one.nbytes for one in arrays)


def _write_units(file: int, units: Sequence[_Unit]) -> Written:
    digest, size = digests(), 0
    parts: list[tuple[Header, str]] = []
    for unit in units:
        header = _summed_header(unit)
        digest.header(header)
        size += write_all(file, header)
        length = 0
        for strip in unit.strips():
            digest.data(strip)
            length += write_all(file, strip)
        filling = bytes(filled_bytes(length) - length)
        data_sha256 = digest.unit(filling)
        size += length + write_all(file, filling)
        parts.append((parse_header(header), data_sha256 if length else ""))
    os.fsync(file)
    return Written(size, digest.file(), content_of(parts), os.fstat(file).st_mtime_ns)


def write_all(file: int, data: bytes | memoryview) -> int:
    """Write all of it to a descriptor, however many calls that takes; how many bytes."""
    done = 0
    while done < len(data):
        done += os.write(file, memoryview(data)[done:])
    return done


def _summed_header(unit: _Unit) -> bytes:
    """The header with DATASUM, and with the CHECKSUM that makes the whole unit sum to -0."""
    datasum = unit.datasum()
    cards = [*unit.cards, ("DATASUM", str(datasum), "sum of the data unit's 32-bit words")]
    place = len(b"".join(format_card(*card) for card in cards)) + 11
    header = header_bytes([*cards, ("CHECKSUM", "0" * 16, "makes the sum of all words -0")])
    encoded = _encoded_sum(ONES - ones_sum([header], datasum))
    return header[:place] + encoded + header[place + 16 :]


def _encoded_sum(value: int) -> bytes:
    """Sixteen letters and digits that add this number to the sum. Source: FITS standard 4.0, appendix J.2."""
    letters = bytearray(16)
    for byte in range(4):
        quotient, rest = divmod(value >> (24 - 8 * byte) & 0xFF, 4)
        four = [quotient + rest + 48, quotient + 48, quotient + 48, quotient + 48]
        while any(58 <= letter <= 64 or 91 <= letter <= 96 for letter in four):
            for pair in (0, 2):
                if any(58 <= letter <= 64 or 91 <= letter <= 96 for letter in four[pair : pair + 2]):
                    four[pair] += 1
                    four[pair + 1] -= 1
        letters[byte::4] = bytes(four)
    return bytes(letters[-1:] + letters[:-1])


def _units_to_write(planes: Sequence[Plane], primary_cards: Sequence[CardTuple]) -> list[_Unit]:
    first = next((plane for plane in planes if plane.data is not None), None)
    if planes and planes[0].data is None and planes[0].table is None:
        first, planes = None, planes[1:]
    others = [plane for plane in planes if plane is not first]
    begin: list[CardTuple] = [("SIMPLE", True, "FITS standard 4.0")]
    extend: list[CardTuple] = [("EXTEND", True, "extensions follow")] if others else []
    if first is None:
        empty: list[CardTuple] = [("BITPIX", 8, "no data here"), ("NAXIS", 0, "")]
        units = [_Unit(begin + empty + extend + _given(primary_cards), lambda: 0, lambda: iter(()))]
    else:
        units = [_image_unit(first, begin, extend, _given(primary_cards))]
    for plane in others:
        if plane.data is not None:
            counts: list[CardTuple] = [("PCOUNT", 0, ""), ("GCOUNT", 1, "")]
            units.append(_image_unit(plane, [("XTENSION", "IMAGE", "image extension")], counts, []))
        else:
            units.append(_table_unit(plane))
    return units


def _given(cards: Sequence[CardTuple]) -> list[CardTuple]:
    return [card for card in cards if not _WRITERS_OWN.match(card[0].strip().upper())]


def _image_unit(
    plane: Plane, begin: list[CardTuple], after_axes: list[CardTuple], given: list[CardTuple]
) -> _Unit:
    data = _held(plane.data)
    if data.ndim != 2:
        raise ValueError(f"the plane {plane.name!r} has {data.ndim} axes, not 2")
    bitpix, zero = _bitpix_and_zero(data, plane.name)
    height, width = data.shape
    cards: list[CardTuple] = [
        *begin,
        ("BITPIX", bitpix, "stored type"),
        ("NAXIS", 2, ""),
        ("NAXIS1", width, "columns"),
        ("NAXIS2", height, "rows"),
        *after_axes,
        *([("BSCALE", 1, ""), ("BZERO", zero, "stored numbers have no sign")] if zero else []),
        *_name_card(plane),
        *given,
        *_given(plane.cards),
    ]
    step = _step(width * data.itemsize)

    def strips() -> Iterator[memoryview]:
        return (bytes_of(_stored_numbers(data[at : at + step])) for at in range(0, height, step))

    def datasum() -> int:
        strip_rows = height if isinstance(data, np.ndarray) else step
        parts = (data[at : at + strip_rows] for at in range(0, height, strip_rows or 1))
        totals = [words_sum(part, bool(zero)) for part in parts]
        return ones_sum(strips()) if None in totals else folded(sum(total or 0 for total in totals))

    return _Unit(cards, datasum, strips)


def _held(values: object) -> Array | Spool:
    return values if isinstance(values, Spool) else np.asarray(values)


def _name_card(plane: Plane) -> list[CardTuple]:
    return [("EXTNAME", plane.name, "")] if plane.name else []


def _bitpix_and_zero(values: Array | Spool, name: str) -> tuple[int, int]:
    key = values.dtype.str[1:]
    if key not in _BITPIX_AND_ZERO:
        raise TypeError(f"FITS has no type for {name!r} of {values.dtype}")
    return _BITPIX_AND_ZERO[key]


def _step(row_bytes: int) -> int:
    """Rows a strip: what stays in the cache, and a multiple of four, so that strips are whole 32-bit words."""
    return max(4, STRIP_BYTES // max(1, row_bytes) // 4 * 4)


def _stored_numbers(values: Array) -> Array:
    """The numbers as FITS stores them: big-endian, less their zero point."""
    bitpix, zero = _BITPIX_AND_ZERO[values.dtype.str[1:]]
    dtype = np.dtype(STORED[bitpix])
    if values.dtype.isnative and values.flags.c_contiguous:
        stored = np.empty(values.shape, dtype)
        if swapped(values, stored, flip="source" if zero else ""):
            return stored
    if zero:
        values = with_sign_flipped(values.astype(values.dtype.newbyteorder("=")), dtype.str[1:])
    return values.astype(dtype, order="C")


def bytes_of(contiguous: Array) -> memoryview:
    """The bytes of a contiguous array, without a copy."""
    return contiguous.reshape(-1).view("u1").data


class _Field(NamedTuple):
    """A table column on its way to the file."""

    form: str
    dim: str
    zero: int
    dtype: str
    cell: tuple[int, ...]
    stored: Callable[[Array], Array]


def _table_unit(plane: Plane) -> _Unit:
    columns = {name: _held(values) for name, values in (plane.table or {}).items()}
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        raise ValueError(f"the columns of the table {plane.name!r} have lengths {sorted(lengths)}")
    rows = lengths.pop() if lengths else 0
    fields = {name: _field(name, values) for name, values in columns.items()}
    dtype = np.dtype([(f"f{place}", one.dtype, one.cell) for place, one in enumerate(fields.values())])
    cards: list[CardTuple] = [
        ("XTENSION", "BINTABLE", "binary table"),
        ("BITPIX", 8, ""),
        ("NAXIS", 2, ""),
        ("NAXIS1", dtype.itemsize, "bytes a row"),
        ("NAXIS2", rows, "rows"),
        ("PCOUNT", 0, ""),
        ("GCOUNT", 1, ""),
        ("TFIELDS", len(fields), "columns"),
        *_name_card(plane),
    ]
    for place, (name, one) in enumerate(fields.items(), 1):
        cards += _field_cards(place, name, one, plane.units.get(name, ""))
    cards += _given(plane.cards)

    def strips() -> Iterator[memoryview]:
        step = _step(dtype.itemsize)
        for at in range(0, rows if dtype.itemsize else 0, step):
            strip = np.zeros(min(step, rows - at), dtype)
            for place, (name, one) in enumerate(fields.items()):
                strip[f"f{place}"] = one.stored(columns[name][at : at + step])
            yield bytes_of(strip)

    return _Unit(cards, lambda: ones_sum(strips()), strips)


def _field_cards(place: int, name: str, column: _Field, unit: str) -> list[CardTuple]:
    cards: list[CardTuple] = [(f"TTYPE{place}", name, ""), (f"TFORM{place}", column.form, "")]
    if unit:
        cards.append((f"TUNIT{place}", unit, ""))
    if column.zero:
        cards += [(f"TSCAL{place}", 1, ""), (f"TZERO{place}", column.zero, "stored numbers are shifted")]
    if column.dim:
        cards.append((f"TDIM{place}", column.dim, ""))
    return cards


def _field(name: str, values: Array | Spool) -> _Field:
    cell = values.shape[1:]
    if values.dtype.kind in "US" and isinstance(values, np.ndarray):
        width = max(1, int(np.char.str_len(values).max())) if values.size else 1
        dim = _dim((*cell, width)) if cell else ""
        return _Field(f"{width * prod(cell)}A", dim, 0, f"S{width}", cell, _ascii_texts)
    dim = _dim(cell) if len(cell) > 1 else ""
    if values.dtype.kind == "b":
        return _Field(f"{prod(cell)}L", dim, 0, "u1", cell, lambda some: np.where(some, ord("T"), ord("F")))
    bitpix, zero = _bitpix_and_zero(values, name)
    return _Field(f"{prod(cell)}{_LETTERS[bitpix]}", dim, zero, STORED[bitpix], cell, _stored_numbers)


def _dim(shape: tuple[int, ...]) -> str:
    return "(" + ",".join(str(length) for length in reversed(shape)) + ")"


def _ascii_texts(values: Array) -> Array:
    return np.char.encode(values, "ascii", "replace") if values.dtype.kind == "U" else values
