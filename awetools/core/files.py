"""Small things about files that several modules need: whole writes, stamps, addresses."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shlex
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .errors import Unavailable, WouldOverwrite

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
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            hint = (
                f"df -h {shlex.quote(folder or '.')}; make room, then the same command again" if full else ""
            )
            raise Unavailable(f"{path}: {error.strerror}", hint=hint) from None
        raise


def refuse_others(
    path: Path, begins: tuple[bytes, ...], what: str, hint: str = "another name for -o"
) -> None:
    """Raise WouldOverwrite if something is at a path that is neither empty nor a file that begins so.

    what: what such a file is. Raises Unavailable where it cannot be read.
    """
    if not os.path.lexists(path):
        return
    begin = b"?"
    try:
        if path.is_file():
            with path.open("rb") as stream:
                begin = stream.read(max(map(len, begins)))
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from None
    if begin and not begin.startswith(begins):
        raise WouldOverwrite(f"{path}: exists, and is not {what}; it is left as it is", hint=hint)


def make_directory(path: Path) -> None:
    """Make a directory and those above it; whom the one above lets write may write in it. Raises Unavailable."""
    try:
        above = [one for one in (path, *path.parents) if not one.exists()]
        for one in reversed(above):
            one.mkdir(exist_ok=True)
            _share(one, one.parent)
        # What is there and is no directory is an error.
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise Unavailable(f"{path}: cannot be made: {error.strerror}") from None


def open_shared(path: Path, flags: int) -> int:
    """A descriptor of a file that all who may write in its directory write in turn, made if it is absent."""
    with suppress(FileNotFoundError):
        return os.open(path, flags)
    with suppress(FileExistsError):
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
        _share(descriptor, path.parent)
        return descriptor
    return os.open(path, flags | os.O_CREAT, 0o666)


def _share(made: Path | int, folder: Path) -> None:
    """Let those into what was made who may write in its folder, whatever the umask of its maker."""
    about, above = os.stat(made), os.stat(folder)
    others = stat.S_IRWXO | stat.S_IRWXG * (about.st_gid == above.st_gid)
    wanted = above.st_mode & others & (0o777 if stat.S_ISDIR(about.st_mode) else 0o666)
    # In a directory as /tmp everyone has things of their own.
    if wanted & (stat.S_IWGRP | stat.S_IWOTH) and not above.st_mode & stat.S_ISVTX:
        with suppress(OSError):
            os.chmod(made, stat.S_IMODE(about.st_mode) | wanted)


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Hold a directory that is being made or removed, so that others see that somebody is at it; raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether a program that lives holds a directory, or the lock that a file is."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Make the renames in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
