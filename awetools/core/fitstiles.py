"""Tile-compressed FITS images, unpacked by astropy tile by tile."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from functools import reduce
from math import prod

import numpy as np

from .errors import AweError, BadHeader, Unreadable
from .fitsbytes import Hdu, Source, filled_bytes, read_bytes
from .fitsheader import BLOCK_BYTES, PACKING_KEY, axes_of, count_of, header_bytes, shape_text
from .fitsvalues import STORED, columns_of
from .fitswrite import bytes_of

LARGEST_TILE_RATIO = 1 << 15


def unpacked_tiles(source: Source, hdu: Hdu, piece_bytes: int) -> Iterator[memoryview]:
    """The data unit that a tile-compressed table stands for, in pieces of whole tiles (by astropy)."""
    import io
    import warnings

    from astropy.io import fits

    tile = _tile_axes(hdu)
    stored = read_bytes(source, hdu.extent.data_start, hdu.extent.data_bytes)
    table = _clean_table(hdu) + stored
    primary = header_bytes([("SIMPLE", True, ""), ("BITPIX", 8, ""), ("NAXIS", 0, ""), ("EXTEND", True, "")])
    stream = io.BytesIO(primary + table.ljust(filled_bytes(len(table)), b"\0"))
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
                    yield bytes_of(rows.astype(STORED[hdu.bitpix], copy=False))
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
    column = columns_of(header, shape, where).get("COMPRESSED_DATA")
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
