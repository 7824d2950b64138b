"""Work that an interruption does not lose: arrays and numbers in a directory beside the product that is made.

All room is taken at the beginning, so that a disk that fills up takes nothing of what is done.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from .errors import AweError, Unavailable
from .files import make_directory, sync_directory
from .partial import (
    DONE,
    HEAD_BYTES,
    REST,
    TURN,
    Note,
    head_of,
    held_bytes,
    is_partial,
    lock_progress,
    newest_note,
    note_place,
    part_done,
    partial_path,
)
from .pixels.spool import Spool, megabytes, unavailable

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

# What is done is noted so often, and when an error ends the work: a note costs the writing of all that is new.
NOTE_S = 10.0
Layout = Mapping[str, tuple[Sequence[int], Any]]


@dataclass
class Unfinished:
    """Where what is half done of a product may be kept: `with` it a product is made and put in place.

    ``stamp``: all that decides the bits besides what its maker knows (the key, versions). ``notes``: what the
    person should know. When the product is in place nothing is left; when it is not, the error
    says what is kept, and the same work begun again goes on from there.
    """

    target: Path
    stamp: str
    notes: list[str] = field(default_factory=list)
    _work: Kept | None = None
    _before: int | None = None

    @property
    def directory(self) -> Path:
        """Where it is kept."""
        return partial_path(self.target)

    def held_bytes(self) -> int:
        """The room that is taken there already."""
        return held_bytes(self.directory)

    def open(self, digest: str, layout: Layout, numbers: int) -> Kept | None:
        """The arrays, as they were kept or new; None where they cannot be kept: somebody else works there.

        ``digest``: of all that the maker knows to decide the bits; ``numbers``: how many a note has.
        Unavailable where there is no room.
        """
        name = f"{self._of_stamp()}{hashlib.sha256(digest.encode()).hexdigest()[:32]}"
        try:
            make_directory(self.directory)
            descriptor = lock_progress(self.directory, create=True)
        except (OSError, Unavailable) as error:
            # Of another person, or where there are no locks: it is made without.
            self.notes.append(f"{self.directory}: nothing can be kept if this is interrupted: {error}")
            return None
        if descriptor is None:
            self.notes.append(f"{self.directory}: another program is at it; nothing is kept of this one")
            return None
        self._work = Kept(self.directory, descriptor, name, layout, numbers)
        if self._work.replaces:
            self.notes.append(f"{self.directory}: what was kept is of other inputs, or damaged: begun anew")
        return self._work

    def __enter__(self) -> Unfinished:
        self._before = self._file()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        work, self._work = self._work, None
        if error is None or self._file() not in (None, self._before):
            # Also what fails when the product is in place, as an index without room does.
            if work is not None:
                work.remove()
            return
        text = self._left_before() if work is None else work.leave()
        if isinstance(error, AweError) and text:
            error.message += f"; {text}"
            error.args = (error.message,)
        elif text:
            error.add_note(text)

    def _file(self) -> int | None:
        """What tells the file of the product from another one of its name."""
        try:
            return self.target.stat().st_ino
        except OSError:
            return None

    def _of_stamp(self) -> str:
        return hashlib.sha256(self.stamp.encode()).hexdigest()[:32]

    def _left_before(self) -> str:
        """What is kept of an earlier attempt at the same."""
        if is_partial(self.directory) and head_of(self.directory).startswith(self._of_stamp()):
            return _words(part_done(self.directory), self.directory)
        return ""


def _words(part: float, directory: Path) -> str:
    held = megabytes(held_bytes(directory))
    return (
        f"{100 * part:.0f}% of the work is kept in {directory} ({held}): the same command goes on from there"
    )


class Kept:
    """Arrays on disk, and notes of how much of them is done; made by `Unfinished.open`.

    ``done`` and ``numbers``: of the newest note, or None if all begins; ``replaces``: something of no use
    was there.
    """

    def __init__(self, directory: Path, lock: int, name: str, layout: Layout, numbers: int) -> None:
        self.directory, self._lock, self._name, self._layout = directory, lock, name, layout
        self._size = numbers
        self._noter: ThreadPoolExecutor | None = None
        self._noting: Future[None] | None = None
        self._noted_at, self._dropped = time.monotonic(), False
        self.spools: dict[str, Spool] = {}
        self._turn, self._done, self._safe = 0, np.zeros(0, np.int64), np.zeros(0, np.int64)
        self.numbers: np.ndarray | None = None
        self.done = 0
        try:
            before = os.pread(lock, os.fstat(lock).st_size, 0)
            usable = before[:HEAD_BYTES] == self._head() and self._whole()
            found = newest_note(before, numbers) if usable else None
            self.replaces = bool(before) and found is None
            if found is None:
                self.begin()
            else:
                self._go_on(found)
        except BaseException:
            self._close()
            raise

    def _go_on(self, found: Note) -> None:
        self._turn, self.done, self.numbers = found[TURN], found[DONE], np.array(found[REST:], np.int64)
        self._done = self._safe = np.array(found[DONE:], np.int64)
        self._open(new=False)

    def begin(self) -> None:
        """Begin all over; raises Unavailable, with nothing left, where there is no room."""
        try:
            self._begin()
        except BaseException:
            self.remove()
            raise

    def _begin(self) -> None:
        self.numbers, self.done = None, 0
        self._turn, self._done, self._safe = 0, np.zeros(0, np.int64), np.zeros(0, np.int64)
        try:
            os.ftruncate(self._lock, 0)
            os.fsync(self._lock)
            os.posix_fallocate(self._lock, 0, note_place(2, self._size))
            os.pwrite(self._lock, self._head(), 0)
            os.fsync(self._lock)
        except OSError as error:
            raise unavailable(self.directory, note_place(2, self._size), error) from error
        self._open(new=True)
        sync_directory(self.directory)
        sync_directory(self.directory.parent)

    def _whole(self) -> bool:
        """Whether the files are there, in full length."""
        for name, (shape, dtype) in self._layout.items():
            try:
                if (self.directory / name).stat().st_size < prod(shape) * np.dtype(dtype).itemsize:
                    return False
            except OSError:
                return False
        return True

    def _open(self, new: bool) -> None:
        for spool in self.spools.values():
            spool.close()
        self.spools = {
            name: Spool(shape, dtype, path=self.directory / name, keep=not new)
            for name, (shape, dtype) in self._layout.items()
        }

    def note(self, done: int, of: int, numbers: np.ndarray) -> None:
        """What is done, of how much, and numbers of one's own; made safe when it is time, while the work goes on.

        What is written to the arrays later may, but need not, be there.
        """
        self._done = np.concatenate([[done, of], numbers]).astype(np.int64)
        if time.monotonic() - self._noted_at < NOTE_S:
            return
        if self._noting is None or self._noting.done():
            from concurrent.futures import ThreadPoolExecutor

            self._noted_at = time.monotonic()
            self._noter = self._noter or ThreadPoolExecutor(1)
            self._noting = self._noter.submit(self._make_safe, self._done)

    def _make_safe(self, numbers: np.ndarray) -> None:
        for spool in self.spools.values():
            if self._dropped:
                return
            spool.sync()
        self._turn += 1
        body = np.concatenate([[self._turn], numbers]).astype("<i8").tobytes()
        os.pwrite(
            self._lock, body + crc32(body).to_bytes(8, "little"), note_place(self._turn % 2, self._size)
        )
        os.fdatasync(self._lock)
        self._safe = numbers

    def leave(self) -> str:
        """Note what is done, and go; what is kept, in words, or '' if it is nothing, and nothing is left."""
        with suppress(OSError):
            self._stop()
            if self._done is not self._safe:
                self._make_safe(self._done)
        if not self._safe.size or not self._safe[0]:
            self.remove()
            return ""
        self._close()
        return _words(self._safe[0] / max(1, self._safe[1]), self.directory)

    def remove(self) -> None:
        """Leave nothing."""
        self._dropped = True
        with suppress(OSError):
            self._stop()
        shutil.rmtree(self.directory, ignore_errors=True)
        self._close()

    def _stop(self) -> None:
        """Wait for a note that is being made; raises OSError if it could not be."""
        noter, self._noter = self._noter, None
        if noter is not None:
            noter.shutdown()
        noting, self._noting = self._noting, None
        if noting is not None:
            noting.result()

    def _close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _head(self) -> bytes:
        return f"{self._name} {self._size}".encode().ljust(HEAD_BYTES)
