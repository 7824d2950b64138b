"""From stored FITS numbers to values: byte order, scaling, unsigned integers, table columns."""

from __future__ import annotations

import re
import sys
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .errors import BadHeader
from .fitsbytes import Hdu
from .fitsheader import Header, bitpix_of, count_of, number_of
from .pixels.kernels import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_COLUMN_BITS = {"B": 8, "I": 16, "J": 32, "K": 64}
_COLUMN = {"L": "u1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8", "A": "S"}
# The standard's convention for the integer types that FITS does not have: the zero point flips the sign bit.
FLIPPED = {(8, -(2**7)): "i1", (16, 2**15): "u2", (32, 2**31): "u4", (64, 2**63): "u8"}
STORED = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}


def swapped(source: Array, target: Array, flip: str = "") -> bool:
    """Turn the bytes of each number round; False where there is no kernel for it.

    Both arrays are contiguous, of one size and item size; they may be one memory. flip: whose sign bit is
    turned over besides, `target` (a stored number becomes a native one) or `source`.
    """
    compiled = kernel("bytes") if source.itemsize in (2, 4, 8) and sys.byteorder == "little" else None
    if compiled is None or not source.size:
        return False
    sign = {"": 0, "source": 1 << 7, "target": 1 << (8 * source.itemsize - 1)}[flip]
    compiled.swap(source.reshape(-1).view("u1"), target.reshape(-1).view("u1"), source.itemsize, sign)
    return True


def words_sum(values: Array, flip: bool) -> int | None:
    """The sum of the big-endian 32-bit words that native numbers of 2 or 4 bytes become in a file.

    So the numbers need not be stored to be summed. flip: their sign bits are turned over on the way. None where
    there is no kernel for it.
    """
    summed = values.itemsize in (2, 4) and values.dtype.isnative and values.flags.c_contiguous
    compiled = kernel("bytes") if summed and sys.byteorder == "little" else None
    if compiled is None:
        return None
    sign = 1 << (8 * values.itemsize - 1) if flip else 0
    return int(compiled.sum_numbers(values.reshape(-1).view("u1"), values.itemsize, sign))


def _native(stored: Array) -> Array:
    """The same numbers in this machine's byte order, in place."""
    if stored.itemsize > 1 and sys.byteorder == "little" and not swapped(stored, stored):
        stored.byteswap(inplace=True)
    return stored.view(stored.dtype.newbyteorder("="))


def physical_values(stored: Array, hdu: Hdu) -> Array:
    """The values of stored (big-endian) pixels, in the smallest type that holds them; the array may be reused."""
    scale, zero, blank = hdu.bscale, hdu.bzero, hdu.blank
    if blank is None and scale == 1 and (hdu.bitpix, zero) in FLIPPED:
        native = stored.view(FLIPPED[hdu.bitpix, int(zero)])
        if swapped(stored, native, flip="target"):
            return native
    numbers = _native(stored)
    if blank is None and scale == 1:
        if zero == 0:
            return numbers
        if (hdu.bitpix, zero) in FLIPPED:
            return with_sign_flipped(numbers, FLIPPED[hdu.bitpix, int(zero)])
    values: Array = numbers.astype(np.float32 if hdu.bitpix in (8, 16) else np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        values *= values.dtype.type(scale)
        values += values.dtype.type(zero)
    if blank is not None:
        values[numbers == blank] = np.nan
    return values


def with_sign_flipped(numbers: Array, dtype: str) -> Array:
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


def columns_of(header: Header, shape: tuple[int, ...], where: str) -> dict[str, _Column]:
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


def column_values(raw: Array, column: _Column, where: str) -> Array:
    """The values of a table column from the rows' bytes. Raises BadHeader."""
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
    if column.scale == 1 and (bits, column.zero) in FLIPPED:
        return with_sign_flipped(numbers, FLIPPED[bits, int(column.zero)])
    with np.errstate(over="ignore", invalid="ignore"):
        return numbers * column.scale + column.zero


def _texts(cells: Array, column: _Column) -> Array:
    width = column.shape[-1] if column.shape else column.repeat
    shape = (len(cells), *column.shape[:-1])
    if width == 0 or not cells.size:
        return np.full(shape, "")
    texts = cells.reshape(-1).view(f"S{width}").reshape(shape)
    return np.char.strip(np.char.decode(texts, "latin-1"))
