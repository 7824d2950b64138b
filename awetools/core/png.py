"""Pictures without a plotting library: the smallest writer of PNG files that does."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from .errors import BadValue

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, COLOUR = 0, 2
COMPRESSION = 6
# Of large pictures: three per cent longer, and up to four times as fast (measured on noise in three colours).
FAST = 3


def write_png(path_or_file: str | Path | BinaryIO, image: npt.NDArray[Any]) -> None:
    """Write an 8-bit picture: (ny, nx) grey, or (ny, nx, 3) red, green and blue; uint8.

    The first row is the *top* of the picture: images of the sky, whose first row is
    the bottom, are flipped by the caller. The bytes depend on the pixels (and the zlib
    library) alone: no date, no text. Format: ISO/IEC 15948, no interlace, no filter.
    ``BadValue`` for another type or shape, or a picture without a pixel.
    """
    content = encode_png(image)
    if isinstance(path_or_file, str | Path):
        Path(path_or_file).write_bytes(content)
    else:
        path_or_file.write(content)


def encode_png(image: npt.NDArray[Any], compression: int = COMPRESSION) -> bytes:
    """The bytes of the PNG file of a picture; see :func:`write_png`. compression: 1 to 9, for zlib."""
    colour = image.ndim == 3 and image.shape[2] == 3
    if image.dtype != np.uint8 or not (image.ndim == 2 or colour) or not image.size:
        raise BadValue(
            f"a picture of shape {image.shape} and type {image.dtype}: uint8 (ny, nx) or (ny, nx, 3) is needed"
        )
    ny, nx = image.shape[:2]
    lines = np.zeros((ny, 1 + image.size // ny), np.uint8)
    lines[:, 1:] = image.reshape(ny, -1)
    header = struct.pack(">IIBBBBB", nx, ny, 8, COLOUR if colour else GREY, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), compression)), (b"IEND", b""))
    return SIGNATURE + b"".join(_chunk(name, content) for name, content in parts)


def png_pieces(shape: tuple[int, ...], strips: Iterable[npt.NDArray[Any]]) -> Iterator[bytes]:
    """The bytes of the PNG file of a picture that is never whole in memory: of strips of rows, from its top down.

    ``shape``: (ny, nx) or (ny, nx, 3), to which the strips, uint8, add up; see :func:`write_png`.
    ``BadValue`` for a strip of another type or shape, and if they do not add up.
    """
    ny, nx, rest = shape[0], shape[1], shape[1:]
    yield SIGNATURE + _chunk(
        b"IHDR", struct.pack(">IIBBBBB", nx, ny, 8, COLOUR if rest[1:] else GREY, 0, 0, 0)
    )
    packer, rows = zlib.compressobj(FAST), 0
    for strip in strips:
        if strip.dtype != np.uint8 or strip.shape[1:] != rest:
            raise BadValue(
                f"a strip of shape {strip.shape} and type {strip.dtype} in a picture of shape {shape}"
            )
        lines = np.zeros((len(strip), 1 + strip[0].size), np.uint8)
        lines[:, 1:] = strip.reshape(len(strip), -1)
        rows += len(strip)
        if packed := packer.compress(lines.tobytes()):
            yield _chunk(b"IDAT", packed)
    if rows != ny or rest[1:] not in ((), (3,)):
        raise BadValue(f"{rows} rows for a picture of shape {shape}")
    yield _chunk(b"IDAT", packer.flush()) + _chunk(b"IEND", b"")


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
