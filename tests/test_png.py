"""PNG files: a reader of our own checks the format, so no picture library is needed."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from awetools.core.errors import BadValue
from awetools.core.png import encode_png, write_png

SHAPES = st.one_of(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)),
)


def decode(content: bytes) -> npt.NDArray[np.uint8]:
    """The picture of a PNG file without filters, after checking every chunk's sum."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = [], 8
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        body = content[at + 4 : at + 8 + length]
        assert struct.unpack(">I", content[at + 8 + length : at + 12 + length])[0] == zlib.crc32(body)
        chunks.append((body[:4], body[4:]))
        at += 12 + length
    assert [name for name, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    nx, ny, depth, colour, *rest = struct.unpack(">IIBBBBB", chunks[0][1])
    assert (depth, rest) == (8, [0, 0, 0])
    lines = np.frombuffer(zlib.decompress(chunks[1][1]), np.uint8).reshape(ny, -1)
    assert (lines[:, 0] == 0).all()
    return lines[:, 1:].reshape((ny, nx, 3) if colour == 2 else (ny, nx))


@given(hnp.arrays(np.uint8, SHAPES))
def test_pictures_come_back(image: npt.NDArray[np.uint8]) -> None:
    assert (decode(encode_png(image)) == image).all()
    assert encode_png(image) == encode_png(image.copy())


def test_rows_and_columns_keep_their_order_in_any_memory_layout() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(4, 6)
    assert (decode(encode_png(image[::-1])) == image[::-1]).all()
    assert (decode(encode_png(image.T)) == image.T).all()


def test_files_and_paths(tmp_path: Path) -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    stream = io.BytesIO()
    write_png(stream, image)
    write_png(tmp_path / "a.png", image)
    write_png(str(tmp_path / "b.png"), image)
    assert stream.getvalue() == (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    "image",
    [np.zeros((2, 2)), np.zeros((2, 2, 4), np.uint8), np.zeros(4, np.uint8), np.zeros((0, 3), np.uint8)],
)
def test_other_arrays_are_refused(image: Any) -> None:
    with pytest.raises(BadValue, match="uint8"):
        encode_png(image)
