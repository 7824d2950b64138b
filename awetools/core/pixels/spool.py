"""Planes too large for memory: on scratch disk, written and read in strips of rows."""

from __future__ import annotations

import errno
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


def free_bytes(folder: str | Path) -> int | None:
    """The room that this user has on the disk of a folder; None where the system does not tell."""
    try:
        about = os.statvfs(folder)
    except OSError:
        return None
    blocks = about.f_bavail if os.geteuid() else about.f_bfree
    return blocks * about.f_frsize if about.f_blocks else None


def unavailable(folder: str | Path, wanted: int, error: OSError, what: str = "scratch room") -> Unavailable:
    """The error for a disk that does not take what is to be written: what is needed, and what there is."""
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        hint = "-o or --out-dir, where it can be written"
        return Unavailable(f"{folder}: cannot be written: {error.strerror}", hint=hint)
    free = free_bytes(folder)
    there = "" if free is None else f"; {megabytes(free)} are free there"
    return Unavailable(
        f"{folder}: {what} for {megabytes(wanted)}: {error.strerror}{there}",
        hint=f"df -h {shlex.quote(str(folder))}; make room, then the same command again",
    )


def megabytes(count: int) -> str:
    """A number of bytes, for a message."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.0f} kB"


class Spool:
    """An array on scratch disk, in memory never more of it than the rows that are asked for.

    ``shape`` (rows, ...), ``dtype``; what was not written is 0. The file has no name, so that
    nothing is left of it when the program ends, however it ends. Rows may be written and read
    by several threads, and by forked processes. ``folder``: where (None: as TMPDIR says).
    ``path``: a file that stays instead, with ``keep`` as it was left before. The room for it is taken
    at once: Unavailable, with the size and the place, where there is none.
    """

    def __init__(
        self,
        shape: Sequence[int],
        dtype: npt.DTypeLike,
        folder: str | Path | None = None,
        *,
        path: Path | None = None,
        keep: bool = False,
    ) -> None:
        # Late: the writer of FITS files knows spools, and few programs have one.
        import tempfile

        self.shape: tuple[int, ...] = tuple(int(one) for one in shape)
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        if path is not None:
            folder = path.parent
        self.folder = str(tempfile.gettempdir() if folder is None else folder)
        self._file = -1
        if not self.shape or min(self.shape) < 0:
            raise ValueError(f"a spool of the shape {self.shape}")
        try:
            if path is None:
                self._file, name = tempfile.mkstemp(prefix="awetools-", dir=self.folder)
                Path(name).unlink()
            else:
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (0 if keep else os.O_TRUNC)
                self._file = os.open(path, flags, 0o666)
            if self.nbytes:
                os.posix_fallocate(self._file, 0, self.nbytes)
        except OSError as error:
            self.close()
            raise unavailable(self.folder, self.nbytes, error) from error

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

    def cut(self, rows: int) -> None:
        """Make the array so long; ValueError where the file is shorter."""
        kept = (rows, *self.shape[1:])
        if os.fstat(self._file).st_size < prod(kept) * self.itemsize:
            raise ValueError(f"a spool of less than {rows} rows")
        self.shape = kept
        os.ftruncate(self._file, self.nbytes)

    def sync(self) -> None:
        """Have what was written on the disk itself; raises OSError."""
        os.fdatasync(self._file)

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
            raise unavailable(self.folder, len(view), error) from error
