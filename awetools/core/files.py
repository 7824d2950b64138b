"""Small things about files that several modules need: whole writes, stamps, addresses."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .errors import Unavailable

DETECTOR_PART = re.compile(r"^(?P<path>.+)\[(?P<detector>[^\[\]/]+)\]$", re.DOTALL)


@dataclass(frozen=True)
class Address:
    """A file, or one detector of a multi-extension file: `night.fits[CCD5]`."""

    path: Path
    detector: str | None = None

    def __str__(self) -> str:
        return str(self.path) if self.detector is None else f"{self.path}[{self.detector}]"


@dataclass(frozen=True)
class Stamp:
    """What tells, without reading it, that a file is still the one that was hashed."""

    bytes: int
    mtime_ns: int
    inode: int


def parse_address(text: str) -> Address:
    """A file name as typed; a name that exists as it stands is never split at its bracket."""
    match = DETECTOR_PART.match(text)
    if match and not os.path.lexists(text):
        return Address(Path(match["path"]), match["detector"])
    return Address(Path(text))


def stamp_of(stat: os.stat_result) -> Stamp:
    """The stamp of a file from its stat."""
    return Stamp(stat.st_size, stat.st_mtime_ns, stat.st_ino)


# Packing makes an image smaller by no more than this, other than an empty one.
PACKING_RATIO = 8


def unpack_to_disk(paths: Iterable[Path], memory_bytes: int) -> bool:
    """Whether these files, if they are packed, could fill the memory for input frames when unpacked together."""
    total = 0
    for path in paths:
        with suppress(OSError):
            total += path.stat().st_size
    return total * PACKING_RATIO > memory_bytes


def allow_open_files(count: int) -> None:
    """Raise this process's limit on open files for a stack of so many, as far as the system lets it."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 64
    if soft != resource.RLIM_INFINITY and soft < wanted:
        high = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, high), hard))


def write_whole(path: Path | str, data: bytes, durable: bool = True) -> None:
    """Write a small file whole or not at all, replacing what is there. Raises Unavailable."""
    folder, name = os.path.split(path)
    new = os.path.join(folder, f".{name}.{os.getpid()}.new")
    try:
        with open(new, "wb") as stream:
            stream.write(data)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(new, path)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(new)
        if isinstance(error, OSError):
            raise Unavailable(f"{path}: {error.strerror}") from None
        raise


def sync_directory(path: Path) -> None:
    """Make the renames in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
