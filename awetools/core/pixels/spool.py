"""Planes too large for memory: on scratch disk, written and read in strips of rows."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import Unavailable

Array = npt.NDArray[Any]


class Spool:
    """An array on scratch disk, in memory never more of it than the rows that are asked for.

    ``shape`` (rows, ...), ``dtype``; what was not written is 0. The file has no name, so that
    nothing is left of it when the program ends, however it ends. Rows may be written and read
    by several threads, and by forked processes. ``folder``: where (None: as TMPDIR says).
    The room for it is taken at once: Unavailable, with the size and the place, where there is none.
    """

    def __init__(self, shape: Sequence[int], dtype: npt.DTypeLike, folder: str | Path | None = None) -> None:
        # Late: the writer of FITS files knows spools, and few programs have one.
        import tempfile

        self.shape: tuple[int, ...] = tuple(int(one) for one in shape)
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.folder = str(tempfile.gettempdir() if folder is None else folder)
        self._file = -1
        if not self.shape or min(self.shape) < 0:
            raise ValueError(f"a spool of the shape {self.shape}")
        try:
            self._file, name = tempfile.mkstemp(prefix="awetools-", dir=self.folder)
            Path(name).unlink()
            if self.nbytes:
                os.posix_fallocate(self._file, 0, self.nbytes)
        except OSError as error:
            self.close()
            raise self._unavailable(self.nbytes, error) from error

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of values."""
        return prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes a value."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return self.size * self.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, *_: object, **__: object) -> Array:
        raise TypeError("a spool is read in strips: spool[first:last]")

    def __getitem__(self, rows: slice) -> Array:
        """Rows first:last, as an array of their own."""
        first, last, step = rows.indices(self.shape[0])
        if step != 1:
            raise ValueError(f"rows of a spool are read one after the other, not {rows}")
        values = np.empty((max(0, last - first), *self.shape[1:]), self.dtype)
        self._move(values, first, reading=True)
        return values

    def write(self, first: int, rows: Array) -> None:
        """Put rows from number ``first`` on; ValueError where they do not belong into the array."""
        if rows.shape[1:] != self.shape[1:] or first < 0 or first + len(rows) > self.shape[0]:
            raise ValueError(f"rows {first} and on, {rows.shape}, for a spool of the shape {self.shape}")
        self._move(np.ascontiguousarray(rows, self.dtype), first, reading=False)

    def append(self, rows: Array) -> None:
        """Make the array longer by these rows."""
        first = self.shape[0]
        self.shape = (first + len(rows), *self.shape[1:])
        self.write(first, rows)

    def close(self) -> None:
        """Give the room back; a second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_file", -1) >= 0:
            self.close()

    def _move(self, values: Array, first: int, reading: bool) -> None:
        view = values.reshape(-1).view(np.uint8).data if values.size else memoryview(b"")
        place, done = first * prod(self.shape[1:]) * self.itemsize, 0
        try:
            while done < len(view):
                move = os.preadv if reading else os.pwritev
                count = move(self._file, [view[done:]], place + done)
                if not count:
                    raise OSError(0, "the scratch file is shorter than it was made")
                done += count
        except OSError as error:
            raise self._unavailable(len(view), error) from error

    def _unavailable(self, wanted: int, error: OSError) -> Unavailable:
        return Unavailable(
            f"{self.folder}: scratch room for {wanted / 1e6:.0f} MB of a plane of {self.shape} {self.dtype}:"
            f" {error.strerror}",
            hint=f"TMPDIR=... with more room; df -h {shlex.quote(self.folder)}",
        )
