"""SHA-256 of a file and of the data units in it, taken as it is written: for both the data are hashed once."""

from __future__ import annotations

import hashlib
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .pixels.kernels import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[np.uint32]

# What SHA-256 takes at a time; a FITS block is 45 of them.
HASHED_BYTES = 64
# The words of an empty digest. Source: FIPS 180-4, section 5.3.3.
FIRST_WORDS = (
    0x6A09E667,
    0xBB67AE85,
    0x3C6EF372,
    0xA54FF53A,
    0x510E527F,
    0x9B05688C,
    0x1F83D9AB,
    0x5BE0CD19,
)


class Digests(Protocol):
    """The digests of a file: whole FITS blocks of header, then strips of data and what fills the last block, ..."""

    def header(self, blocks: bytes) -> None:
        """Blocks that belong to no data unit; a unit begins after them."""

    def data(self, strip: memoryview) -> None:
        """The next bytes of the unit."""

    def unit(self, filling: bytes) -> str:
        """The digest (hex) of the unit that ends here; the filling belongs to the file alone."""

    def file(self) -> str:
        """The digest (hex) of all that came."""


def digests() -> Digests:
    """Digests of an empty file, by the processor's own instructions where it has them for two at once."""
    compiled = kernel("sha256")
    return _Together(compiled) if compiled is not None and compiled.usable() else _Apart()


class _Apart:
    """The two digests one after the other."""

    def __init__(self) -> None:
        self._file, self._unit = hashlib.sha256(), hashlib.sha256()

    def header(self, blocks: bytes) -> None:
        self._file.update(blocks)
        self._unit = hashlib.sha256()

    def data(self, strip: memoryview) -> None:
        self._file.update(strip)
        self._unit.update(strip)

    def unit(self, filling: bytes) -> str:
        self._file.update(filling)
        return self._unit.hexdigest()

    def file(self) -> str:
        return self._file.hexdigest()


class _Together:
    """The two digests at once: data begin at a FITS block, so both are of the same pieces of 64 bytes."""

    def __init__(self, compiled: ModuleType) -> None:
        self._compiled = compiled
        self._file, self._unit = _empty(), _empty()
        self._file_bytes = self._unit_bytes = 0
        # Of the unit, less than 64 bytes that are not hashed yet.
        self._rest = b""

    def header(self, blocks: bytes) -> None:
        self._update(self._file, _empty(), blocks)
        self._file_bytes += len(blocks)
        self._unit, self._unit_bytes = _empty(), 0

    def data(self, strip: memoryview) -> None:
        pieces = memoryview(self._rest + bytes(strip)) if self._rest else strip
        whole = len(pieces) // HASHED_BYTES * HASHED_BYTES
        self._update(self._file, self._unit, pieces[:whole])
        self._rest = bytes(pieces[whole:])
        self._unit_bytes += len(strip)
        self._file_bytes += len(strip)

    def unit(self, filling: bytes) -> str:
        found = self._ended(self._unit, self._rest, self._unit_bytes)
        self._update(self._file, _empty(), self._rest + filling)
        self._file_bytes += len(filling)
        self._rest = b""
        return found

    def file(self) -> str:
        return self._ended(self._file, b"", self._file_bytes)

    def _update(self, one: Words, other: Words, pieces: bytes | memoryview) -> None:
        if len(pieces):
            self._compiled.update(one, other, pieces)

    def _ended(self, words: Words, rest: bytes, length: int) -> str:
        """The hexadecimal digest after the last bytes and the length of all. Source: FIPS 180-4, section 5.1.1."""
        zeros = bytes(-(len(rest) + 9) % HASHED_BYTES)
        last = rest + b"\x80" + zeros + (8 * length).to_bytes(8, "big")
        ended = words.copy()
        self._update(ended, _empty(), last)
        return ended.astype(">u4").tobytes().hex()


def _empty() -> Words:
    words: NDArray[Any] = np.array(FIRST_WORDS, np.uint32)
    return words
