"""Pictures without a plotting library: the smallest writer of PNG files that does."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from .errors import BadValue

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, COLOUR = 0, 2
COMPRESSION = 6


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


def encode_png(image: npt.NDArray[Any]) -> bytes:
    """The bytes of the PNG file of a picture; see :func:`write_png`."""
    colour = image.ndim == 3 and image.shape[2] == 3
    if image.dtype != np.uint8 or not (image.ndim == 2 or colour) or not image.size:
        raise BadValue(
            f"a picture of shape {image.shape} and type {image.dtype}: uint8 (ny, nx) or (ny, nx, 3) is needed"
        )
    ny, nx = image.shape[:2]
    lines = np.zeros((ny, 1 + image.size // ny), np.uint8)
    lines[:, 1:] = image.reshape(ny, -1)
    header = struct.pack(">IIBBBBB", nx, ny, 8, COLOUR if colour else GREY, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), COMPRESSION)), (b"IEND", b""))
    return SIGNATURE + b"".join(_chunk(name, content) for name, content in parts)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
