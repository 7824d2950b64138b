"""Where work on a product waits that was interrupted: to find it, to tell how far it came, to clear it away.

The directory `.NAME.partial` lies beside the product. It has one file an array, and `progress`: whoever works
there holds its lock; it says what is safely on disk, in two places that are written in turn, so that
whatever the moment of a kill or a power cut, one of them is whole.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from pathlib import Path
from struct import unpack
from zlib import crc32

from .files import is_held

PARTIAL = re.compile(r"\.(?P<name>.+\.(?:fits|fit|fts))\.partial\Z", re.IGNORECASE)
PROGRESS = "progress"
HEAD_BYTES, PAGE_BYTES = 128, 4096
# Of a note, beside the numbers of its writer: which it is, what is done of how much.
TURN, DONE, OF, REST = 0, 1, 2, 3

Note = tuple[int, ...]


def partial_path(target: Path) -> Path:
    """Where what is half done of a product lies."""
    return target.with_name(f".{target.name}.partial")


def is_partial(path: Path) -> bool:
    """Whether a path is such a directory."""
    return bool(PARTIAL.match(path.name)) and path.is_dir() and not path.is_symlink()


def is_at_work(directory: Path) -> bool:
    """Whether a program that lives works in such a directory."""
    return is_held(directory / PROGRESS)


def part_done(directory: Path) -> float:
    """The part of the work that is kept in such a directory."""
    try:
        data = (directory / PROGRESS).read_bytes()
        found = newest_note(data, int(data[:HEAD_BYTES].split()[1]))
    except (OSError, ValueError, IndexError):
        return 0.0
    return found[DONE] / max(1, found[OF]) if found else 0.0


def head_of(directory: Path) -> str:
    """What the work is of: the name that its maker gave it, and how many numbers a note has; '' if none can be read."""
    try:
        with (directory / PROGRESS).open("rb") as stream:
            return stream.read(HEAD_BYTES).decode("ascii", "replace")
    except OSError:
        return ""


def remove_partial(directory: Path) -> bool:
    """Remove such a directory unless somebody works there; whether it was removed. Raises OSError."""
    descriptor = lock_progress(directory, create=False)
    if descriptor is None and (directory / PROGRESS).exists():
        return False
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:
        return False
    finally:
        if descriptor is not None:
            os.close(descriptor)
    return True


def held_bytes(directory: Path) -> int:
    """The room that is taken there."""
    try:
        return sum(one.stat().st_blocks * 512 for one in directory.iterdir())
    except OSError:
        return 0


def note_place(turn: int, numbers: int) -> int:
    """Where a note with so many numbers of its writer begins; for turn 2, the length of the file."""
    room = -(-(8 * (numbers + REST + 1)) // PAGE_BYTES) * PAGE_BYTES
    return PAGE_BYTES + turn * room


def newest_note(data: bytes, numbers: int) -> Note | None:
    """The newest note that is whole, in the bytes of `progress`."""
    found: list[Note] = []
    for turn in (0, 1):
        at = note_place(turn, numbers)
        end = at + 8 * (numbers + REST)
        body, total = data[at:end], data[end : end + 8]
        if len(total) == 8 and crc32(body).to_bytes(8, "little") == total:
            found.append(unpack(f"<{numbers + REST}q", body))
    return max(found, default=None)


def lock_progress(directory: Path, create: bool) -> int | None:
    """A descriptor of `progress` with its lock, made if it is absent; None if somebody has it. Raises OSError."""
    path = directory / PROGRESS
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o666)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        there, here = os.stat(path), os.fstat(descriptor)
        if (there.st_ino, there.st_dev) == (here.st_ino, here.st_dev):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
