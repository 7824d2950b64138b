"""The only reader and writer of FITS: fast on plain files, exact on packed ones, clear on broken ones."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shlex
import stat
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .errors import (
    AweError,
    BadHeader,
    BeingWritten,
    NoImage,
    NoSuchExtension,
    NoSuchFile,
    NotFits,
    Truncated,
    Unavailable,
    Unreadable,
    nearest,
)
from .fitsheader import (
    BLOCK_BYTES,
    CARD_BYTES,
    PACKING_KEY,
    Header,
    HeaderValue,
    axes_of,
    bitpix_of,
    carries_wcs,
    content_of,
    count_of,
    format_card,
    header_bytes,
    is_packed_image,
    number_of,
    parse_header,
    shape_text,
    stored_bytes,
    unpacked_header,
    wcs_cards,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

CardTuple = tuple[str, HeaderValue, str]

STRIP_BYTES = 1 << 22
UNPACKED_AT_ONCE_BYTES = 1 << 25
LARGEST_HEADER_BYTES = 1 << 24
LARGEST_TILE_RATIO = 1 << 15
ONES = 0xFFFFFFFF

_STORED = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
# The standard's convention for the integer types that FITS does not have: the zero point flips the sign bit.
_FLIPPED = {(8, -(2**7)): "i1", (16, 2**15): "u2", (32, 2**31): "u4", (64, 2**63): "u8"}
_COLUMN = {"L": "u1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8", "A": "S"}
_COLUMN_BITS = {"B": 8, "I": 16, "J": 32, "K": 64}
_PACKERS = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"PK\x03\x04": "zip", b"\x1f\x9d": "compress"}


# Where bytes lie


@dataclass(frozen=True)
class _Descriptor:
    """An open file, the one that was asked for or a spool."""

    number: int
    size: int
    where: str

    def read_into(self, view: memoryview, start: int) -> None:
        done = 0
        while done < len(view):
            try:
                count = os.preadv(self.number, [view[done:]], start + done)
            except OSError as error:
                raise Unreadable(f"{self.where}: reading at byte {start + done}: {error.strerror}") from error
            if not count:
                raise Truncated(f"{self.where}: ends at {start + done}, {len(view) - done} bytes too early")
            done += count


@dataclass(frozen=True)
class _Memory:
    """Unpacked bytes."""

    held: bytearray

    @property
    def size(self) -> int:
        return len(self.held)

    def read_into(self, view: memoryview, start: int) -> None:
        view[:] = memoryview(self.held)[start : start + len(view)]


Source = _Descriptor | _Memory


def _read(source: Source, start: int, length: int) -> bytes:
    buffer = bytearray(max(0, min(length, source.size - start)))
    source.read_into(memoryview(buffer), start)
    return bytes(buffer)


def _strips(source: Source, start: int, length: int) -> Iterator[memoryview]:
    """The bytes in strips; each is valid until the next is asked for."""
    buffer = memoryview(bytearray(min(length, STRIP_BYTES)))
    for offset in range(0, length, STRIP_BYTES):
        strip = buffer[: min(STRIP_BYTES, length - offset)]
        source.read_into(strip, start + offset)
        yield strip


# One header-data unit


class _Extent(NamedTuple):
    """Where a unit lies in the (gunzipped) file; `data_bytes` without the filling of the last block."""

    header_start: int
    data_start: int
    data_bytes: int

    @property
    def end(self) -> int:
        return self.data_start + self.data_bytes

    @property
    def filled_end(self) -> int:
        return self.data_start + _filled(self.data_bytes)


@dataclass(frozen=True)
class Hdu:
    """One header-data unit. Of a tile-compressed image, header and shape are those of the image.

    `shape` is in numpy order without slow axes of length 1; `bitpix` is the stored type; `data_bytes` counts
    the unpacked data unit without its filling. `where` names the unit in messages.
    """

    index: int
    name: str
    version: int
    header: Header
    stored_header: Header
    compressed: bool
    is_image: bool
    is_table: bool
    shape: tuple[int, ...]
    bitpix: int
    data_bytes: int
    extent: _Extent
    where: str

    @property
    def bscale(self) -> float:
        """The factor of the stored numbers. Raises BadHeader where it is 0 or not a number."""
        scale = float(number_of(self.header, "BSCALE", 1, self.where))
        if scale == 0:
            raise BadHeader(f"{self.where}: BSCALE is 0, so the pixels have no values")
        return scale

    @property
    def bzero(self) -> float:
        """The value of a stored 0. Raises BadHeader where it is not a number."""
        return float(number_of(self.header, "BZERO", 0, self.where))

    @property
    def blank(self) -> int | None:
        """The stored integer that stands for "no value", or None."""
        if self.bitpix < 0 or self.header.get("BLANK") is None:
            return None
        return int(number_of(self.header, "BLANK", 0, self.where))


def _filled(length: int) -> int:
    return -(-length // BLOCK_BYTES) * BLOCK_BYTES


def _hdu(index: int, header: Header, extent: _Extent, where: str) -> Hdu:
    packed = is_packed_image(header)
    shown = unpacked_header(header) if packed else header
    axes = axes_of(header, "Z" if packed else "", where)
    bitpix = bitpix_of(header, "Z" if packed else "", where)
    while len(axes) > 2 and axes[0] == 1:
        axes = axes[1:]
    pixels = packed or header.get("XTENSION", "IMAGE") == "IMAGE"
    if not packed and prod(axes) * abs(bitpix) // 8 > extent.data_bytes and axes:
        raise BadHeader(f"{where}: GCOUNT is {header.get('GCOUNT')}, so {shape_text(axes)} have no data")
    version = header.get("EXTVER")
    return Hdu(
        index=index,
        name=str(shown.get("EXTNAME") or "").strip(),
        version=version if isinstance(version, int) else 1,
        header=shown,
        stored_header=header,
        compressed=packed,
        is_image=pixels and len(axes) >= 2 and prod(axes) > 0,
        is_table=header.get("XTENSION") == "BINTABLE" and not packed,
        shape=axes,
        bitpix=bitpix,
        data_bytes=prod(axes) * abs(bitpix) // 8 if packed else extent.data_bytes,
        extent=extent,
        where=where,
    )


# Opening


def open_fits(path: str | Path, spool: bool = False) -> FitsFile:
    """The FITS file, opened once, with the headers of all its units read and no pixels.

    Gzip is known by its first bytes. With `spool`, unpacked data (gzip, tile compression) lie in an unlinked
    temporary file instead of in memory. Use it as a context manager, or close it. Raises NoSuchFile,
    Unreadable, NotFits, Truncated, BadHeader, and Unavailable where the spool has no room.
    """
    path = Path(path)
    number, status = _open_regular(path)
    try:
        return FitsFile(path, number, status, spool)
    except BaseException:
        os.close(number)
        raise


def _open_regular(path: Path) -> tuple[int, os.stat_result]:
    hint = f"ls -l {shlex.quote(str(path.parent))}"
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NoSuchFile(f"{path}: no such file", hint=hint) from error
    except ValueError as error:
        raise NoSuchFile(f"{path!s:.200}: no file can have this name: {error}") from error
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}", hint=hint) from error
    status = os.fstat(number)
    if stat.S_ISREG(status.st_mode):
        return number, status
    os.close(number)
    kind = "a directory" if stat.S_ISDIR(status.st_mode) else "a device, pipe or socket"
    raise NoSuchFile(f"{path}: {kind}, not a file", hint=hint)


def _gunzipped(source: Source, path: Path) -> Iterator[bytes]:
    """What a gzip file of one or more members holds, in pieces; junk after the last member is left."""
    magic = b"\x1f\x8b"
    unpacker = zlib.decompressobj(wbits=31)
    unpacked = 0
    try:
        for strip in _strips(source, 0, source.size):
            rest = bytes(strip)
            while rest:
                if unpacker.eof and not magic.startswith(rest[:2]):
                    return
                if unpacker.eof:
                    unpacker = zlib.decompressobj(wbits=31)
                piece = unpacker.decompress(rest, STRIP_BYTES)
                unpacked += len(piece)
                yield piece
                rest = unpacker.unconsumed_tail or unpacker.unused_data
        while not unpacker.eof and (piece := unpacker.decompress(b"", STRIP_BYTES)):
            unpacked += len(piece)
            yield piece
    except zlib.error as error:
        raise Truncated(f"{path}: the gzip stream breaks after {unpacked} unpacked bytes: {error}") from error
    if not unpacker.eof:
        raise Truncated(
            f"{path}: the gzip stream breaks off: {source.size} bytes give {unpacked} without its end",
            hint=f"gzip -t {shlex.quote(str(path))}",
        )


def _check_beginning(begin: bytes, path: Path) -> None:
    """Raises NotFits unless these first bytes begin a FITS file."""
    if begin.startswith(b"SIMPLE") and b"\n" not in begin[: CARD_BYTES + 1]:
        return
    if not begin:
        raise NotFits(f"{path}: the file is empty", hint=f"ls -l {shlex.quote(str(path))}")
    packer = next((f" ({name})" for magic, name in _PACKERS.items() if begin.startswith(magic)), "")
    listing = " (the text of a header, with line ends)" if begin.startswith(b"SIMPLE") else ""
    shown = begin[:16].decode("latin-1")
    hint = f"file {shlex.quote(str(path))}"
    raise NotFits(f"{path}: not FITS: it begins with {shown!a}{packer}{listing}", hint=hint)


_END = re.compile(rb"END(?: {5}|[ \0]{0,4}\Z)")


def _header_end(block: bytes, searched: int) -> int | None:
    """The place after the END card, or None if it is not in the block."""
    for found in _END.finditer(block, searched):
        if found.start() % CARD_BYTES == 0:
            return found.start() + CARD_BYTES
    return None


def _header_block(source: Source, start: int, where: str) -> bytes:
    """The bytes of the header that begins here, to the end of its END card."""
    block, step = b"", 10 * BLOCK_BYTES
    while len(block) < LARGEST_HEADER_BYTES:
        more = _read(source, start + len(block), step)
        searched = max(0, len(block) - CARD_BYTES)
        block += more
        end = _header_end(block, searched)
        if end is not None:
            return block[:end]
        if len(more) < step:
            break
        step = min(2 * step, LARGEST_HEADER_BYTES)
    raise Truncated(f"{where}: the header has no END card in the {len(block)} bytes from byte {start} on")


def _units(source: Source, path: Path, problems: list[str]) -> Iterator[Hdu]:
    """The units of the file one after the other; what does not belong to any goes to `problems`."""
    start, index = 0, 0
    while start < source.size:
        where = f"{path}[{index}]"
        begin = _read(source, start, 8)
        if index and begin != b"XTENSION":
            problems.append(f"{path}: {source.size - start} bytes after the last unit are not FITS")
            return
        block = _header_block(source, start, where)
        header = parse_header(block)
        extent = _Extent(start, start + _filled(len(block)), stored_bytes(header, where))
        if extent.data_bytes and extent.end > source.size:
            raise Truncated(
                f"{where}: {shape_text(axes_of(header, '', where))} are {extent.data_bytes} bytes of data; "
                f"the file should have {extent.end} bytes, but it has {source.size}",
                hint=f"ls -l {shlex.quote(str(path))}",
            )
        if extent.filled_end > source.size:
            problems.append(f"{where}: the last block is not filled to {BLOCK_BYTES} bytes")
        problems += [f"{where}: {problem}" for problem in header.problems]
        yield _hdu(index, header, extent, where)
        start, index = extent.filled_end, index + 1


class FitsFile:
    """An open FITS file: `path`, `stat` (at opening), `hdus`, `problems` (what is odd, but was read)."""

    def __init__(self, path: Path, number: int, status: os.stat_result, spool: bool) -> None:
        self.path = path
        self.stat = status
        self._file = number
        self._spool = spool
        self._spools: list[int] = []
        self._unpacked: dict[int, Source] = {}
        self._disk = _Descriptor(number, status.st_size, str(path))
        self._source: Source = self._disk
        begin = _read(self._disk, 0, CARD_BYTES + 1)
        try:
            if begin.startswith(b"\x1f\x8b"):
                self._source = self._kept(_checked(_gunzipped(self._disk, path), path))
                begin = _read(self._source, 0, CARD_BYTES + 1)
            _check_beginning(begin, path)
            problems: list[str] = []
            self.hdus: tuple[Hdu, ...] = tuple(_units(self._source, path, problems))
        except BaseException:
            self._close_spools()
            raise
        self.problems: tuple[str, ...] = tuple(problems)

    def __enter__(self) -> FitsFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file and forgets what was unpacked; a second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._close_spools()
        self._source = self._disk = _Descriptor(-1, sys.maxsize, f"{self.path} (closed)")
        self._unpacked.clear()

    def _close_spools(self) -> None:
        while self._spools:
            os.close(self._spools.pop())

    def hdu(self, which: int | str) -> Hdu:
        """The unit of this number (the primary is 0) or EXTNAME. Raises NoSuchExtension."""
        if isinstance(which, int):
            if 0 <= which < len(self.hdus):
                return self.hdus[which]
            raise NoSuchExtension(f"{self.path}: no HDU {which}; its HDUs are 0 to {len(self.hdus) - 1}")
        for hdu in self.hdus:
            if hdu.name.upper() == which.upper():
                return hdu
        names = [hdu.name for hdu in self.hdus if hdu.name]
        raise NoSuchExtension(f"{self.path}: no extension is named {which!r}{nearest(which, names)}")

    # Pixels and tables

    def rows(self, hdu: int | str, y0: int, y1: int, x0: int = 0, x1: int | None = None) -> Array:
        """Rows y0 to y1 (0-based, half open) of an image in physical values, of columns x0 to x1.

        The type depends on the header alone: the stored one where there is no scaling, uint16 (int8, uint32,
        uint64) by the standard's zero points, else float32 for 8 and 16 bits and float64 for the others.
        Where an integer image has a BLANK, values are floats, and blank ones are not-a-number. Raises
        NoSuchExtension, NoImage, BadHeader (a window outside the image), Unreadable, Truncated.
        """
        image = self._image(hdu)
        height, width = image.shape
        x1 = width if x1 is None else x1
        if not (0 <= y0 <= y1 <= height and 0 <= x0 <= x1 <= width):
            raise BadHeader(
                f"{image.where}: rows {y0}:{y1}, columns {x0}:{x1} are not in the image, {width} x {height}"
            )
        source, start = self._data_unit(image)
        stored = np.empty((y1 - y0, width), dtype=_STORED[image.bitpix])
        if stored.size:
            source.read_into(_bytes_of(stored), start + y0 * width * stored.itemsize)
        if (x0, x1) != (0, width):
            stored = stored[:, x0:x1].copy()
        return _physical(stored, image)

    def image(self, hdu: int | str) -> Array:
        """All rows of an image; see `rows`."""
        return self.rows(hdu, 0, self._image(hdu).shape[0])

    def table(self, hdu: int | str, columns: Sequence[str] | None = None) -> dict[str, Array]:
        """Columns of a binary table by name, all or those named; vectors have more axes, texts are stripped.

        Zero points of unsigned integers give unsigned integers, other scalings float64. Raises
        NoSuchExtension, NoImage where there is no table, and BadHeader for columns of variable length,
        complex numbers or bits.
        """
        found = self.hdu(hdu)
        if not found.is_table:
            raise NoImage(f"{found.where}: not a binary table but {_kind_text(found)}")
        layout = _columns(found.header, found.shape, found.where)
        names = list(layout) if columns is None else list(columns)
        for name in names:
            if name not in layout:
                raise BadHeader(f"{found.where}: no column {name!r}{nearest(name, list(layout))}")
        length, width = (found.shape + (0, 0))[:2]
        raw = np.empty((length, width), dtype="u1")
        if raw.size:
            source, start = self._data_unit(found)
            source.read_into(_bytes_of(raw), start)
        return {name: _column_values(raw, layout[name], found.where) for name in names}

    def _image(self, hdu: int | str) -> Hdu:
        found = self.hdu(hdu)
        if not found.is_image:
            others = [str(other.index) for other in self.hdus if other.is_image]
            instead = f"; images are HDU {', '.join(others[:8])}" if others else "; the file has no image"
            raise NoImage(f"{found.where}: not an image but {_kind_text(found)}{instead}")
        if len(found.shape) > 2:
            raise NoImage(f"{found.where}: not an image of 2 axes but of {shape_text(found.shape)} pixels")
        return found

    # Where the unpacked data unit lies

    def _data_unit(self, hdu: Hdu) -> tuple[Source, int]:
        if not hdu.compressed:
            return self._source, hdu.extent.data_start
        if hdu.index not in self._unpacked:
            if self._spool and hdu.data_bytes > UNPACKED_AT_ONCE_BYTES:
                self._unpacked[hdu.index] = self._kept(_unpacked_tiles(self._source, hdu, STRIP_BYTES))
            else:
                self._unpacked[hdu.index] = self._kept(_unpacked_tiles(self._source, hdu, hdu.data_bytes))
        return self._unpacked[hdu.index], 0

    def _kept(self, pieces: Iterator[bytes] | Iterator[memoryview]) -> Source:
        """The pieces one after the other, in memory or spooled."""
        if not self._spool:
            held = bytearray()
            for piece in pieces:
                held += piece
            return _Memory(held)
        try:
            spool, name = tempfile.mkstemp(prefix="awetools-")
            self._spools.append(spool)
            Path(name).unlink()
            size = sum(_write_all(spool, piece) for piece in pieces)
        except OSError as error:
            raise Unavailable(f"{tempfile.gettempdir()}: unpacking {self.path}: {error.strerror}") from error
        return _Descriptor(spool, size, f"{self.path} (unpacked)")

    # Hashes

    def content(self, hdus: Sequence[int] | None = None) -> str:
        """The content hash of these units, or of all: what it covers is told by `fitsheader.content_of`.

        Where a unit carries no coordinate system of its own, that of the primary enters too.
        """
        chosen = [self.hdu(index) for index in (range(len(self.hdus)) if hdus is None else hdus)]
        parts = [(hdu.header, self._data_sha256(hdu)) for hdu in chosen]
        primary = self.hdus[0]
        apart = all(hdu.index for hdu in chosen) and not all(carries_wcs(hdu.header) for hdu in chosen)
        if apart and wcs_cards(primary.header):
            parts.insert(0, (primary.header, ""))
        return content_of(parts)

    def _data_sha256(self, hdu: Hdu) -> str:
        if not hdu.data_bytes:
            return ""
        source, start = self._data_unit(hdu)
        digest = hashlib.sha256()
        for strip in _strips(source, start, hdu.data_bytes):
            digest.update(strip)
        return digest.hexdigest()

    def file_sha256(self) -> str:
        """SHA-256 (hex) of the bytes on disk, packed as they are."""
        digest = hashlib.sha256()
        for strip in _strips(self._disk, 0, self._disk.size):
            digest.update(strip)
        return digest.hexdigest()

    def verify_checksums(self) -> list[str]:
        """What is wrong with DATASUM and CHECKSUM of the units as stored; empty if nothing, or without them.

        Source: FITS standard 4.0, section 4.4.2.7 and appendix J.
        """
        problems: list[str] = []
        for hdu in self.hdus:
            if "DATASUM" in hdu.stored_header or "CHECKSUM" in hdu.stored_header:
                problems += self._checksum_problems(hdu)
        return problems

    def _checksum_problems(self, hdu: Hdu) -> list[str]:
        problems: list[str] = []
        extent = hdu.extent
        end = min(extent.filled_end, self._source.size)
        total = ones_sum(_strips(self._source, extent.data_start, max(0, end - extent.data_start)))
        declared = str(hdu.stored_header.get("DATASUM") or "").strip()
        if declared and not (declared.isdigit() and int(declared) % ONES == total % ONES):
            problems.append(f"{hdu.where}: DATASUM is {declared}, but the data sum to {total}")
        if str(hdu.stored_header.get("CHECKSUM") or "").strip("0 "):
            block = _read(self._source, extent.header_start, extent.data_start - extent.header_start)
            whole = ones_sum([block], total)
            if whole % ONES:
                problems.append(f"{hdu.where}: CHECKSUM fails: header and data sum to {whole}, not to {ONES}")
        return problems


def _checked(pieces: Iterator[bytes], path: Path) -> Iterator[bytes]:
    """The pieces, refused at the first one if it does not begin a FITS file."""
    first = True
    for piece in pieces:
        if first and piece:
            _check_beginning(piece[: CARD_BYTES + 1], path)
            first = False
        yield piece


def _kind_text(hdu: Hdu) -> str:
    kind = hdu.header.get("XTENSION")
    if hdu.is_table or kind == "TABLE":
        return "a table" if hdu.is_table else "an ASCII table"
    if prod(hdu.shape) == 0 or not hdu.shape:
        return "a header without data"
    return f"a {kind or 'primary'} unit of {len(hdu.shape)} axes"


def ones_sum(strips: Iterator[memoryview] | Sequence[bytes | memoryview], total: int = 0) -> int:
    """The ones-complement sum of big-endian 32-bit words; all strips but the last hold whole words.

    Source: FITS standard 4.0, appendix J.1.
    """
    for strip in strips:
        whole = len(strip) & ~3
        total += int(np.frombuffer(strip, dtype=">u4", count=whole // 4).sum(dtype=np.uint64))
        total += int.from_bytes(bytes(strip[whole:]).ljust(4, b"\0"), "big")
    while total > ONES:
        total = (total & ONES) + (total >> 32)
    return total


# Stored numbers to values


def _native(stored: Array) -> Array:
    """The same numbers in this machine's byte order, in place."""
    if stored.itemsize > 1 and sys.byteorder == "little":
        stored.byteswap(inplace=True)
    return stored.view(stored.dtype.newbyteorder("="))


def _physical(stored: Array, hdu: Hdu) -> Array:
    scale, zero, blank = hdu.bscale, hdu.bzero, hdu.blank
    numbers = _native(stored)
    if blank is None and scale == 1:
        if zero == 0:
            return numbers
        if (hdu.bitpix, zero) in _FLIPPED:
            return _flipped(numbers, _FLIPPED[hdu.bitpix, int(zero)])
    values: Array = numbers.astype(np.float32 if hdu.bitpix in (8, 16) else np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        values *= values.dtype.type(scale)
        values += values.dtype.type(zero)
    if blank is not None:
        values[numbers == blank] = np.nan
    return values


def _flipped(numbers: Array, dtype: str) -> Array:
    """Integers of the same width whose sign bit is turned over, in place."""
    unsigned = numbers.view(f"u{numbers.itemsize}")
    unsigned ^= unsigned.dtype.type(1 << (8 * numbers.itemsize - 1))
    return unsigned.view(dtype)


class _Column(NamedTuple):
    """Where a column lies in a row and what its numbers mean."""

    start: int
    code: str
    repeat: int
    shape: tuple[int, ...]
    scale: float
    zero: float


def _columns(header: Header, shape: tuple[int, ...], where: str) -> dict[str, _Column]:
    """The layout of a binary table's row by column name. Source: FITS standard 4.0, section 7.3."""
    if bitpix_of(header, "", where) != 8 or len(shape) != 2:
        raise BadHeader(f"{where}: a table with BITPIX {header['BITPIX']} and {len(shape)} axes")
    layout: dict[str, _Column] = {}
    start = 0
    for number in range(1, count_of(header, "TFIELDS", None, where) + 1):
        form = str(header.get(f"TFORM{number}", "")).strip()
        match = re.match(r"(\d*)([A-Z])", form)
        if not match:
            raise BadHeader(f"{where}: TFORM{number} is {form!r}")
        repeat, code = int(match[1] or 1), match[2]
        cell = _vector_shape(str(header.get(f"TDIM{number}") or ""), repeat)
        scale = float(number_of(header, f"TSCAL{number}", 1, where))
        zero = float(number_of(header, f"TZERO{number}", 0, where))
        name = str(header.get(f"TTYPE{number}") or f"col{number}").strip()
        layout.setdefault(name, _Column(start, code, repeat, cell, scale, zero))
        start += _column_bytes(code, repeat, form, where)
    if start != shape[1]:
        raise BadHeader(f"{where}: the columns take {start} bytes a row, NAXIS1 is {shape[1]}")
    return layout


def _column_bytes(code: str, repeat: int, form: str, where: str) -> int:
    widths = {"X": 0, "C": 8, "M": 16, "P": 8, "Q": 16, "A": 1}
    if code in widths:
        return -(-repeat // 8) if code == "X" else widths[code] * repeat
    if code not in _COLUMN:
        raise BadHeader(f"{where}: a column of the unknown type {form!r}")
    return np.dtype(_COLUMN[code]).itemsize * repeat


def _vector_shape(dim: str, repeat: int) -> tuple[int, ...]:
    """The shape of one row's cell, in numpy order; () for a single number."""
    axes = tuple(int(axis) for axis in re.findall(r"\d+", dim))[::-1]
    if axes and prod(axes) == repeat:
        return axes
    return () if repeat == 1 else (repeat,)


def _column_values(raw: Array, column: _Column, where: str) -> Array:
    if column.code not in _COLUMN:
        raise BadHeader(f"{where}: columns of type {column.code} (variable, complex, bits) are not read")
    stored = np.dtype(_COLUMN[column.code]) if column.code != "A" else np.dtype("u1")
    end = column.start + stored.itemsize * column.repeat
    cells = raw[:, column.start : end].copy()
    if column.code == "A":
        return _texts(cells, column)
    numbers = cells.reshape(-1).view(stored).reshape(len(raw), *column.shape)
    if column.code == "L":
        truths: Array = numbers == np.uint8(ord("T"))
        return truths
    numbers = _native(numbers)
    if (column.scale, column.zero) == (1, 0):
        return numbers
    bits = _COLUMN_BITS.get(column.code, 0)
    if column.scale == 1 and (bits, column.zero) in _FLIPPED:
        return _flipped(numbers, _FLIPPED[bits, int(column.zero)])
    with np.errstate(over="ignore", invalid="ignore"):
        return numbers * column.scale + column.zero


def _texts(cells: Array, column: _Column) -> Array:
    width = column.shape[-1] if column.shape else column.repeat
    shape = (len(cells), *column.shape[:-1])
    if width == 0 or not cells.size:
        return np.full(shape, "")
    texts = cells.reshape(-1).view(f"S{width}").reshape(shape)
    return np.char.strip(np.char.decode(texts, "latin-1"))


# Tile-compressed images


def _unpacked_tiles(source: Source, hdu: Hdu, piece_bytes: int) -> Iterator[memoryview]:
    """The data unit that a tile-compressed table stands for, in pieces of whole tiles (by astropy)."""
    import io
    import warnings

    from astropy.io import fits

    tile = _tile_axes(hdu)
    stored = _read(source, hdu.extent.data_start, hdu.extent.data_bytes)
    table = _clean_table(hdu) + stored
    primary = header_bytes([("SIMPLE", True, ""), ("BITPIX", 8, ""), ("NAXIS", 0, ""), ("EXTEND", True, "")])
    stream = io.BytesIO(primary + table.ljust(_filled(len(table)), b"\0"))
    try:
        if hdu.stored_header.get("ZCMPTYPE") == "HCOMPRESS_1":
            _check_hcompressed(hdu, stored, tile)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(stream, memmap=False, do_not_scale_image_data=True) as file:
                image = file[1]
                slow = image.shape[0]
                step = max(1, piece_bytes * slow // hdu.data_bytes // tile[0]) * tile[0]
                for first in range(0, slow, step):
                    # Asked for the whole image, astropy reads the heap once, else once a tile.
                    rows = image.section[... if step >= slow else slice(first, min(first + step, slow))]
                    yield _bytes_of(rows.astype(_STORED[hdu.bitpix], copy=False))
    except AweError:
        raise
    except Exception as error:  # a damaged stream makes astropy raise whatever it stumbles over
        text = str(error) or type(error).__name__
        raise Unreadable(f"{hdu.where}: the compressed image cannot be unpacked: {text}") from error


def _tile_axes(hdu: Hdu) -> list[int]:
    """The lengths of a tile in numpy order.

    Raises BadHeader where the tiles cannot be those of the image, before memory is taken for it.
    """
    header, where = hdu.stored_header, hdu.where
    axes = axes_of(header, "Z", where)
    fastest = len(axes) - 1
    tile = [
        count_of(header, f"ZTILE{len(axes) - place}", length if place == fastest else 1, where)
        for place, length in enumerate(axes)
    ]
    if not all(tile) or not prod(axes):
        raise BadHeader(f"{where}: the compressed image is {shape_text(axes)} in tiles of {shape_text(tile)}")
    tiles = prod(-(-length // size) for length, size in zip(axes, tile, strict=True))
    rows = count_of(header, "NAXIS2", None, where)
    if tiles != rows:
        raise BadHeader(f"{where}: {shape_text(axes)} pixels have {tiles} tiles, the table has {rows}")
    if hdu.data_bytes > LARGEST_TILE_RATIO * max(hdu.extent.data_bytes, BLOCK_BYTES):
        raise BadHeader(
            f"{where}: {hdu.extent.data_bytes} bytes cannot hold {hdu.data_bytes} bytes of pixels"
        )
    return tile


def _check_hcompressed(hdu: Hdu, table: bytes, tile: Sequence[int]) -> None:
    """Raises Unreadable where a stream's own size is not its tile's.

    The decoder trusts the stream and would write beyond its memory.
    """
    header, where = hdu.stored_header, hdu.where
    axes = axes_of(header, "Z", where)
    lengths = [np.minimum(size, np.arange(axis, 0, -size)) for axis, size in zip(axes, tile, strict=True)]
    pixels = reduce(np.multiply.outer, lengths).ravel()
    shape = axes_of(header, "", where)
    column = _columns(header, shape, where).get("COMPRESSED_DATA")
    if column is None or column.code not in "PQ":
        raise BadHeader(f"{where}: no column COMPRESSED_DATA of variable length")
    rows, width = shape
    integer = ">i4" if column.code == "P" else ">i8"
    cells = np.frombuffer(table, "u1", rows * width).reshape(rows, width)[:, column.start :]
    descriptors = cells[:, : 2 * np.dtype(integer).itemsize].copy().view(integer)
    heap = count_of(header, "THEAP", rows * width, where)
    for place, (length, offset) in enumerate(descriptors.tolist()):
        begin = table[heap + offset : heap + offset + 10].ljust(10, b"\0")
        magic, height, across = struct.unpack(">Hii", begin)
        if length and (magic != 0xDD99 or height <= 0 or height * across != pixels[place]):
            raise Unreadable(f"{where}: tile {place + 1} of the compressed image is damaged")


def _clean_table(hdu: Hdu) -> bytes:
    """The header of the compressed table with what decoding needs and nothing that is malformed."""
    header = hdu.stored_header
    first = ["XTENSION", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "PCOUNT", "GCOUNT", "TFIELDS"]
    wanted = re.compile(rf"(?:T(?:TYPE|FORM)\d+|THEAP|BLANK|{PACKING_KEY.pattern})\Z")
    keys = first + [key for key in header if wanted.match(key) and header[key] is not None]
    return header_bytes([(key, header.get(key, 0 if key == "PCOUNT" else 1), "") for key in keys])


# Writing


@dataclass(frozen=True)
class Plane:
    """One unit to write: an image (2-D) or a table (columns of one length, by name), and its own cards.

    Images are float32, float64, int16, int32, int64, uint8 or, by zero points, int8, uint16, uint32, uint64;
    table columns also logical and text, with vectors along their further axes. Floats must be finite.
    """

    name: str
    data: Array | None = None
    table: Mapping[str, Array] | None = None
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
    """Cards and a data unit that can be made twice: once to sum it, once to write it."""

    cards: list[CardTuple]
    strips: Callable[[], Iterator[memoryview]]


_BITPIX_AND_ZERO = {
    **{dtype.lstrip(">"): (bitpix, 0) for bitpix, dtype in _STORED.items()},
    **{dtype: key for key, dtype in _FLIPPED.items()},
}
_LETTERS = {8: "B", 16: "I", 32: "J", 64: "K", -32: "E", -64: "D"}
# What describes the data unit is the writer's to say; such cards of a raw frame's header are not copied.
_WRITERS_OWN = re.compile(
    r"(?:SIMPLE|XTENSION|EXTNAME|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|GROUPS|BSCALE|BZERO|BLANK"
    r"|DATASUM|CHECKSUM|END|TFIELDS|THEAP|T(?:TYPE|FORM|UNIT|NULL|SCAL|ZERO|DISP|DIM)\d+)\Z"
)


def write_fits(path: str | Path, hdus: Sequence[Plane], primary_cards: Sequence[CardTuple]) -> Written:
    """Writes a new file: the first image in the primary unit, the other planes as extensions in their order.

    The bytes are a function of the arguments alone. Every unit carries DATASUM and CHECKSUM. Cards that
    describe the data unit (BITPIX, EXTNAME, ...) are left out of the given cards. The file is flushed to
    disk. Raises BeingWritten where the file exists, and Unavailable where it cannot be written; no part of
    it is then left.
    """
    path = Path(path)
    units = _units_to_write(hdus, primary_cards)
    hint = f"df -h {shlex.quote(str(path.parent))}"
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError as error:
        raise BeingWritten(f"{path}: exists already; another program may be writing it") from error
    except OSError as error:
        raise Unavailable(f"{path}: cannot be written: {error.strerror}", hint=hint) from error
    try:
        try:
            return _write_units(file, units)
        finally:
            os.close(file)
    except BaseException as error:
        with contextlib.suppress(OSError):
            path.unlink()
        if isinstance(error, OSError):
            raise Unavailable(f"{path}: cannot be written: {error.strerror}", hint=hint) from error
        raise


def _write_units(file: int, units: Sequence[_Unit]) -> Written:
    whole, size = hashlib.sha256(), 0
    parts: list[tuple[Header, str]] = []
    for unit in units:
        header = _summed_header(unit)
        whole.update(header)
        size += _write_all(file, header)
        data, length = hashlib.sha256(), 0
        for strip in unit.strips():
            whole.update(strip)
            data.update(strip)
            length += _write_all(file, strip)
        filling = bytes(_filled(length) - length)
        whole.update(filling)
        size += length + _write_all(file, filling)
        parts.append((parse_header(header), data.hexdigest() if length else ""))
    os.fsync(file)
    return Written(size, whole.hexdigest(), content_of(parts), os.fstat(file).st_mtime_ns)


def _write_all(file: int, data: bytes | memoryview) -> int:
    done = 0
    while done < len(data):
        done += os.write(file, memoryview(data)[done:])
    return done


def _summed_header(unit: _Unit) -> bytes:
    """The header with DATASUM, and with the CHECKSUM that makes the whole unit sum to -0."""
    datasum = ones_sum(unit.strips())
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
    others = [plane for plane in planes if plane is not first]
    begin: list[CardTuple] = [("SIMPLE", True, "FITS standard 4.0")]
    extend: list[CardTuple] = [("EXTEND", True, "extensions follow")] if others else []
    if first is None:
        empty: list[CardTuple] = [("BITPIX", 8, "no data here"), ("NAXIS", 0, "")]
        units = [_Unit(begin + empty + extend + _given(primary_cards), lambda: iter(()))]
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
    data = np.asarray(plane.data)
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
    return _Unit(
        cards, lambda: (_bytes_of(_stored_numbers(data[at : at + step])) for at in range(0, height, step))
    )


def _name_card(plane: Plane) -> list[CardTuple]:
    return [("EXTNAME", plane.name, "")] if plane.name else []


def _bitpix_and_zero(values: Array, name: str) -> tuple[int, int]:
    key = values.dtype.str[1:]
    if key not in _BITPIX_AND_ZERO:
        raise TypeError(f"FITS has no type for {name!r} of {values.dtype}")
    return _BITPIX_AND_ZERO[key]


def _step(row_bytes: int) -> int:
    """Rows a strip: about 4 MiB, and a multiple of four, so that strips are whole 32-bit words."""
    return max(4, STRIP_BYTES // max(1, row_bytes) // 4 * 4)


def _stored_numbers(values: Array) -> Array:
    """The numbers as FITS stores them: big-endian, less their zero point."""
    bitpix, zero = _BITPIX_AND_ZERO[values.dtype.str[1:]]
    dtype = np.dtype(_STORED[bitpix])
    if zero:
        values = _flipped(values.astype(values.dtype.newbyteorder("=")), dtype.str[1:])
    return values.astype(dtype, order="C")


def _bytes_of(contiguous: Array) -> memoryview:
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
    columns = {name: np.asarray(values) for name, values in (plane.table or {}).items()}
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
            yield _bytes_of(strip)

    return _Unit(cards, strips)


def _field_cards(place: int, name: str, column: _Field, unit: str) -> list[CardTuple]:
    cards: list[CardTuple] = [(f"TTYPE{place}", name, ""), (f"TFORM{place}", column.form, "")]
    if unit:
        cards.append((f"TUNIT{place}", unit, ""))
    if column.zero:
        cards += [(f"TSCAL{place}", 1, ""), (f"TZERO{place}", column.zero, "stored numbers are shifted")]
    if column.dim:
        cards.append((f"TDIM{place}", column.dim, ""))
    return cards


def _field(name: str, values: Array) -> _Field:
    cell = values.shape[1:]
    if values.dtype.kind in "US":
        width = max(1, int(np.char.str_len(values).max())) if values.size else 1
        dim = _dim((*cell, width)) if cell else ""
        return _Field(f"{width * prod(cell)}A", dim, 0, f"S{width}", cell, _ascii_texts)
    dim = _dim(cell) if len(cell) > 1 else ""
    if values.dtype.kind == "b":
        return _Field(f"{prod(cell)}L", dim, 0, "u1", cell, lambda some: np.where(some, ord("T"), ord("F")))
    bitpix, zero = _bitpix_and_zero(values, name)
    return _Field(f"{prod(cell)}{_LETTERS[bitpix]}", dim, zero, _STORED[bitpix], cell, _stored_numbers)


def _dim(shape: tuple[int, ...]) -> str:
    return "(" + ",".join(str(length) for length in reversed(shape)) + ")"


def _ascii_texts(values: Array) -> Array:
    return np.char.encode(values, "ascii", "replace") if values.dtype.kind == "U" else values
