"""Where the bytes of a FITS file lie: sources, units of header and data, and their sums."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import NamedTuple

import numpy as np

from .errors import BadHeader, Truncated, Unreadable
from .fitsheader import (
    BLOCK_BYTES,
    Header,
    axes_of,
    bitpix_of,
    is_packed_image,
    number_of,
    shape_text,
    unpacked_header,
)
from .pixels.kernels import kernel

ONES = 0xFFFFFFFF
# What is hashed, summed and copied at a time: it stays in the processor's cache from one to the next.
STRIP_BYTES = 1 << 18


@dataclass(frozen=True)
class OnDisk:
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
class InMemory:
    """Unpacked bytes."""

    held: bytearray

    @property
    def size(self) -> int:
        return len(self.held)

    def read_into(self, view: memoryview, start: int) -> None:
        view[:] = memoryview(self.held)[start : start + len(view)]


Source = OnDisk | InMemory


def read_bytes(source: Source, start: int, length: int) -> bytes:
    """So many bytes of a source from a place on; fewer where it ends."""
    buffer = bytearray(max(0, min(length, source.size - start)))
    source.read_into(memoryview(buffer), start)
    return bytes(buffer)


def strips_of(source: Source, start: int, length: int) -> Iterator[memoryview]:
    """The bytes in strips; each is valid until the next is asked for."""
    buffer = memoryview(bytearray(min(length, STRIP_BYTES)))
    for offset in range(0, length, STRIP_BYTES):
        strip = buffer[: min(STRIP_BYTES, length - offset)]
        source.read_into(strip, start + offset)
        yield strip


class Extent(NamedTuple):
    """Where a unit lies in the (gunzipped) file; `data_bytes` without the filling of the last block."""

    header_start: int
    data_start: int
    data_bytes: int

    @property
    def end(self) -> int:
        return self.data_start + self.data_bytes

    @property
    def filled_end(self) -> int:
        return self.data_start + filled_bytes(self.data_bytes)


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
    extent: Extent
    where: str

    @cached_property
    def bscale(self) -> float:
        """The factor of the stored numbers. Raises BadHeader where it is 0 or not a number."""
        scale = float(number_of(self.header, "BSCALE", 1, self.where))
        if scale == 0:
            raise BadHeader(f"{self.where}: BSCALE is 0, so the pixels have no values")
        return scale

    @cached_property
    def bzero(self) -> float:
        """The value of a stored 0. Raises BadHeader where it is not a number."""
        return float(number_of(self.header, "BZERO", 0, self.where))

    @cached_property
    def blank(self) -> int | None:
        """The stored integer that stands for "no value", or None."""
        if self.bitpix < 0 or self.header.get("BLANK") is None:
            return None
        return int(number_of(self.header, "BLANK", 0, self.where))


def filled_bytes(length: int) -> int:
    """A length in whole FITS blocks of 2880 bytes."""
    return -(-length // BLOCK_BYTES) * BLOCK_BYTES


def unit_of(index: int, header: Header, extent: Extent, where: str) -> Hdu:
    """What a unit is, from its header and where it lies. Raises BadHeader."""
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


def ones_sum(strips: Iterator[memoryview] | Sequence[bytes | memoryview], total: int = 0) -> int:
    """The ones-complement sum of big-endian 32-bit words; all strips but the last hold whole words.

    Source: FITS standard 4.0, appendix J.1.
    """
    compiled = kernel("bytes")
    for strip in strips:
        whole = len(strip) & ~3
        if compiled is not None:
            total += compiled.sum_words(strip)
        else:
            total += int(np.frombuffer(strip, dtype=">u4", count=whole // 4).sum(dtype=np.uint64))
        total += int.from_bytes(bytes(strip[whole:]).ljust(4, b"\0"), "big")
    return folded(total)


def folded(total: int) -> int:
    """A sum of 32-bit words with its carries added in."""
    while total > ONES:
        total = (total & ONES) + (total >> 32)
    return total
