"""The planes of a coadd while it is made: on scratch disk, or kept so that an interruption loses little."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from ..errors import Unavailable
from ..pixels.coadd import Strip
from ..pixels.spool import Spool, free_bytes, megabytes
from ..sky.grid import Grid, Span
from ..unfinished import Kept, Unfinished

PLANES = {"SCI": np.float32, "WEIGHT": np.float32, "COUNT": np.int16, "MASK": np.int16}
CLIPPED_COLUMNS = ("X", "Y", "FRAME")
PIXEL_BYTES = sum(np.dtype(one).itemsize for one in PLANES.values())
# Pixels of frames on the grid from which on work is kept: some ten seconds of one processor.
KEPT_FROM = 400_000_000
# Rows that are read at once, and the least number that sums of words begin again at.
READ_ROWS, FULL = 256, 1 << 63

MakeStrip = Callable[[Span], Strip]


class Scratch:
    """Planes, clipped values and the tally of a coadd whose strips come in their order.

    ``rows``: how many are done.
    """

    def __init__(self, grid: Grid, frames: int, folder: str | Path | None) -> None:
        self.shape = grid.shape
        self.rows = 0
        self.tally = np.zeros((frames, 2), np.int64)
        # Sums of what was written, by the first row of its strip, and of all that is done.
        self._sums: dict[int, int] = {}
        self._sum = 0
        self._kept: Kept | None = None
        self.planes: dict[str, Spool] = {}
        self.clipped: dict[str, Spool] = {}
        self._folder = folder

    def on_disk(self) -> None:
        """Take room that is given back with the end of the program."""
        self.planes = {name: Spool(self.shape, kind, self._folder) for name, kind in PLANES.items()}
        self.clipped = {name: Spool((0,), np.int32, self._folder) for name in CLIPPED_COLUMNS}

    def kept(self, unfinished: Unfinished, digest: str, make: MakeStrip) -> bool:
        """Take what is kept of this coadd, or begin to keep it; False if that cannot be.

        ``make`` makes some rows again, which must have the bits that were kept.
        """
        layout = {name: (self.shape, kind) for name, kind in PLANES.items()}
        columns = dict.fromkeys(CLIPPED_COLUMNS, ((0,), np.int32))
        kept = unfinished.open(digest, {**layout, **columns}, 2 + self.tally.size)
        if kept is None:
            return False
        self._use(kept)
        if kept.numbers is None:
            return True
        if self._agrees(kept.numbers, make):
            unfinished.notes.append(
                f"went on from row {self.rows} of {self.shape[0]}, where it was interrupted"
            )
            return True
        unfinished.notes.append(
            f"{unfinished.directory}: what was kept differs from what is made now: begun anew"
        )
        kept.begin()
        self._use(kept)
        self.rows, self.tally[:], self._sum = 0, 0, 0
        return True

    def _use(self, kept: Kept) -> None:
        self._kept = kept
        self.planes = {name: kept.spools[name] for name in PLANES}
        self.clipped = {name: kept.spools[name] for name in CLIPPED_COLUMNS}

    def _agrees(self, numbers: np.ndarray, make: MakeStrip) -> bool:
        """Take a note, and see whether all that is done is as it was written, and some rows made again the same."""
        assert self._kept is not None
        self.rows, clipped, self._sum = self._kept.done, int(numbers[0]), int(numbers[1])
        self.tally = numbers[2:].reshape(self.tally.shape).copy()
        try:
            for column in self.clipped.values():
                column.cut(clipped)
        except ValueError:
            return False
        if self._sum_of_all(clipped) != self._sum:
            return False
        for row in dict.fromkeys((self.rows // 2, self.rows - 1)):
            made = make((row, row + 1))
            for plane, values in zip(self.planes.values(), _planes(made), strict=True):
                if plane[row : row + 1].tobytes() != np.asarray(values, plane.dtype).tobytes():
                    return False
        # Of the last row, what was clipped is at the end.
        own = slice(max(0, clipped - len(made.clipped)), clipped)
        listed = (self.clipped[name][own] for name in CLIPPED_COLUMNS)
        return all(np.array_equal(*both) for both in zip(listed, _columns(made), strict=True))

    def _sum_of_all(self, clipped: int) -> int:
        """The sum of the rows that are done, and of what was clipped there, as they are on the disk."""
        total = 0
        for spools, end in ((self.planes, self.rows), (self.clipped, clipped)):
            step = READ_ROWS if spools is self.planes else READ_ROWS * 4096
            for first in range(0, end, step):
                parts = [one[first : min(end, first + step)] for one in spools.values()]
                total += _sum_of(parts, spools.values())
        return total % FULL

    def write(self, rows: Span, made: Strip) -> None:
        """Put rows of the planes on the disk; by any thread, in any order."""
        for plane, values in zip(self.planes.values(), _planes(made), strict=True):
            plane.write(rows[0], np.asarray(values))
        if self._kept is not None:
            self._sums[rows[0]] = _sum_of(_planes(made), self.planes.values())

    def done(self, rows: Span, made: Strip) -> None:
        """A strip whose planes were written, each after the one above it."""
        for column, values in zip(self.clipped.values(), _columns(made), strict=True):
            column.append(values)
        self.tally += made.tally
        self.rows = rows[1]
        if self._kept is not None:
            listed = _sum_of(_columns(made), self.clipped.values())
            self._sum = (self._sum + self._sums.pop(rows[0]) + listed) % FULL
            numbers = np.concatenate([[len(self.clipped["X"]), self._sum], self.tally.ravel()])
            self._kept.note(self.rows, self.shape[0], numbers)


def _sum_of(arrays: Sequence[np.ndarray], spools: Iterable[Spool]) -> int:
    """A sum of the words of arrays as spools hold them: a byte that changes changes it, cuts into strips do not."""
    total = 0
    for number, (one, spool) in enumerate(zip(arrays, spools, strict=True)):
        words = np.ascontiguousarray(one, spool.dtype).view(f"u{spool.itemsize}")
        total += (2 * number + 1) * int(words.sum(dtype=np.uint64))
    return total % FULL


def _planes(made: Strip) -> tuple[np.ndarray, ...]:
    return made.sci, made.weight, made.entered, made.mask


def _columns(made: Strip) -> tuple[np.ndarray, ...]:
    y, x, frame = made.clipped.T
    return x + 1, y + 1, frame


def is_large(areas: Sequence[int]) -> bool:
    """Whether the frames, of so many pixels of the grid, take so long that work is kept."""
    return sum(areas) >= KEPT_FROM


def digest_of(*parts: object) -> str:
    """The hash of values, by their representation."""
    return hashlib.sha256("\n".join(map(repr, parts)).encode()).hexdigest()


def check_room(grid: Grid, folder: str | Path | None, unfinished: Unfinished | None) -> None:
    """Raise Unavailable if neither the planes nor the product of them can have room, before any work."""
    if unfinished is None or folder is None:
        return
    free = free_bytes(folder)
    if free is None:
        return
    pixels = grid.shape[0] * grid.shape[1]
    needed = 2 * PIXEL_BYTES * pixels - unfinished.held_bytes()
    if needed > free:
        raise Unavailable(
            f"{unfinished.target}: a coadd of {grid.shape[1]} x {grid.shape[0]} pixels takes {megabytes(needed)}"
            f" there, half of it while it is made; {megabytes(free)} are free",
            hint="make room, or --out-dir on another disk, then the same command again",
        )
