"""The only reader and writer of FITS: fast on plain files, exact on packed ones, clear on broken ones."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import stat
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import (
    BadHeader,
    NoImage,
    NoSuchExtension,
    NoSuchFile,
    NotFits,
    Truncated,
    Unavailable,
    Unreadable,
    nearest,
)
from .fitsbytes import (
    ONES,
    STRIP_BYTES,
    Extent,
    Hdu,
    InMemory,
    OnDisk,
    Source,
    filled_bytes,
    ones_sum,
    read_bytes,
    strips_of,
    unit_of,
)
from .fitsheader import (
    BLOCK_BYTES,
    CARD_BYTES,
    axes_of,
    carries_wcs,
    content_of,
    parse_header,
    shape_text,
    stored_bytes,
    wcs_cards,
)
from .fitstiles import unpacked_tiles
from .fitsvalues import STORED, column_values, columns_of, physical_values
from .fitswrite import CardTuple, Plane, Written, bytes_of, write_all, write_fits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

__all__ = ["CardTuple", "FitsFile", "Hdu", "Plane", "Written", "ones_sum", "open_fits", "write_fits"]

_PACKERS = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"PK\x03\x04": "zip", b"\x1f\x9d": "compress"}
LARGEST_HEADER_BYTES = 1 << 24
UNPACKED_AT_ONCE_BYTES = 1 << 25


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
        for strip in strips_of(source, 0, source.size):
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
        more = read_bytes(source, start + len(block), step)
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
        begin = read_bytes(source, start, 8)
        if index and begin != b"XTENSION":
            problems.append(f"{path}: {source.size - start} bytes after the last unit are not FITS")
            return
        block = _header_block(source, start, where)
        header = parse_header(block)
        extent = Extent(start, start + filled_bytes(len(block)), stored_bytes(header, where))
        if extent.data_bytes and extent.end > source.size:
            raise Truncated(
                f"{where}: {shape_text(axes_of(header, '', where))} are {extent.data_bytes} bytes of data; "
                f"the file should have {extent.end} bytes, but it has {source.size}",
                hint=f"ls -l {shlex.quote(str(path))}",
            )
        if extent.filled_end > source.size:
            problems.append(f"{where}: the last block is not filled to {BLOCK_BYTES} bytes")
        problems += [f"{where}: {problem}" for problem in header.problems]
        yield unit_of(index, header, extent, where)
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
        self._disk = OnDisk(number, status.st_size, str(path))
        self._source: Source = self._disk
        begin = read_bytes(self._disk, 0, CARD_BYTES + 1)
        try:
            if begin.startswith(b"\x1f\x8b"):
                self._source = self._kept(_checked(_gunzipped(self._disk, path), path))
                begin = read_bytes(self._source, 0, CARD_BYTES + 1)
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

    @property
    def closed(self) -> bool:
        """Whether the file was closed."""
        return self._file < 0

    def close(self) -> None:
        """Closes the file and forgets what was unpacked; a second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._close_spools()
        self._source = self._disk = OnDisk(-1, sys.maxsize, f"{self.path} (closed)")
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
        return self._window(self._image(hdu), y0, y1, x0, x1)

    def plane(self, hdu: int | str, number: int, y0: int = 0, y1: int | None = None) -> Array:
        """Rows of a plane (0-based) of a cube of three axes; see `rows`. Raises BadHeader where there is none."""
        cube = self.hdu(hdu)
        if len(cube.shape) != 3 or not 0 <= number < cube.shape[0]:
            raise BadHeader(f"{cube.where}: {shape_text(cube.shape)} pixels have no plane {number + 1}")
        depth, height, width = cube.shape
        y1 = height if y1 is None else y1
        flat = replace(cube, shape=(depth * height, width))
        return self._window(flat, number * height + y0, number * height + y1, 0, width)

    def _window(self, image: Hdu, y0: int, y1: int, x0: int, x1: int | None) -> Array:
        height, width = image.shape
        x1 = width if x1 is None else x1
        if not (0 <= y0 <= y1 <= height and 0 <= x0 <= x1 <= width):
            raise BadHeader(
                f"{image.where}: rows {y0}:{y1}, columns {x0}:{x1} are not in the image, {width} x {height}"
            )
        source, start = self._data_unit(image)
        stored = np.empty((y1 - y0, width), dtype=STORED[image.bitpix])
        if stored.size:
            source.read_into(bytes_of(stored), start + y0 * width * stored.itemsize)
        if (x0, x1) != (0, width):
            stored = stored[:, x0:x1].copy()
        return physical_values(stored, image)

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
        layout = columns_of(found.header, found.shape, found.where)
        names = list(layout) if columns is None else list(columns)
        for name in names:
            if name not in layout:
                raise BadHeader(f"{found.where}: no column {name!r}{nearest(name, list(layout))}")
        length, width = (found.shape + (0, 0))[:2]
        raw = np.empty((length, width), dtype="u1")
        if raw.size:
            source, start = self._data_unit(found)
            source.read_into(bytes_of(raw), start)
        return {name: column_values(raw, layout[name], found.where) for name in names}

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
                self._unpacked[hdu.index] = self._kept(unpacked_tiles(self._source, hdu, STRIP_BYTES))
            else:
                self._unpacked[hdu.index] = self._kept(unpacked_tiles(self._source, hdu, hdu.data_bytes))
        return self._unpacked[hdu.index], 0

    def _kept(self, pieces: Iterator[bytes] | Iterator[memoryview]) -> Source:
        """The pieces one after the other, in memory or spooled."""
        if not self._spool:
            held = bytearray()
            for piece in pieces:
                held += piece
            return InMemory(held)
        # Late: few files are unpacked to disk.
        import tempfile

        try:
            spool, name = tempfile.mkstemp(prefix="awetools-")
            self._spools.append(spool)
            Path(name).unlink()
            size = sum(write_all(spool, piece) for piece in pieces)
        except OSError as error:
            raise Unavailable(f"{tempfile.gettempdir()}: unpacking {self.path}: {error.strerror}") from error
        return OnDisk(spool, size, f"{self.path} (unpacked)")

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
        for strip in strips_of(source, start, hdu.data_bytes):
            digest.update(strip)
        return digest.hexdigest()

    def file_sha256(self) -> str:
        """SHA-256 (hex) of the bytes on disk, packed as they are."""
        digest = hashlib.sha256()
        for strip in strips_of(self._disk, 0, self._disk.size):
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
        total = ones_sum(strips_of(self._source, extent.data_start, max(0, end - extent.data_start)))
        declared = str(hdu.stored_header.get("DATASUM") or "").strip()
        if declared and not (declared.isdigit() and int(declared) % ONES == total % ONES):
            problems.append(f"{hdu.where}: DATASUM is {declared}, but the data sum to {total}")
        if str(hdu.stored_header.get("CHECKSUM") or "").strip("0 "):
            block = read_bytes(self._source, extent.header_start, extent.data_start - extent.header_start)
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
