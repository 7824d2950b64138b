"""Whether files are still what the index says, by their sizes and times; of many, looked at in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from .index import open_index
from .store import Store

_SQL = """SELECT CASE substr(address, 1, 1) WHEN '/' THEN address ELSE ? || address END,
bytes, mtime_ns, inode, record_mtime_ns FROM objects WHERE kind IN ({})"""


def raw_path(address: str) -> str:
    """The file that a raw frame lies in."""
    if address[-1:] != "]" or os.path.lexists(address):
        return address
    return address[: address.rindex("[")]


def is_unchanged(
    address: str, size: int, mtime_ns: int, inode: int | None, record_mtime_ns: int
) -> bool | None:
    """Whether a raw frame (which has an inode) or a product with its record is as the index has it; None if gone."""
    try:
        if inode is not None:
            stat = os.stat(raw_path(address))
            return (stat.st_size, stat.st_mtime_ns, stat.st_ino) == (size, mtime_ns, inode)
        stat = os.stat(address)
        return (stat.st_size, stat.st_mtime_ns) == (size, mtime_ns) and (
            os.stat(f"{address}.json").st_mtime_ns == record_mtime_ns
        )
    except OSError:
        return None


@dataclass
class Lookout:
    """A process that looks at the files of all objects of some kinds, while this one goes on."""

    process: int
    pipe: int

    def suspects(self) -> frozenset[str] | None:
        """The addresses of what is not as the index has it; None if the process failed."""
        with os.fdopen(self.pipe, "rb") as stream:
            text = stream.read()
        _, status = os.waitpid(self.process, 0)
        if status:
            return None
        return frozenset(os.fsdecode(one) for one in text.split(b"\0") if one)


def look_at(stores: Sequence[Store], kinds: Iterable[str]) -> Lookout:
    """Start to look at every object of some kinds in some stores."""
    names = list(kinds)
    reader, writer = os.pipe()
    process = os.fork()
    if process:
        os.close(writer)
        return Lookout(process, reader)
    _end_with(lambda: _report(stores, names, writer))
    raise AssertionError


def _end_with(work: Callable[[], None]) -> None:
    """Do the work of a forked process and end it, whatever happens: nothing of its parent's is to be finished."""
    code = 1
    with suppress(BaseException):
        work()
        code = 0
    os._exit(code)


def _report(stores: Sequence[Store], kinds: Sequence[str], writer: int) -> None:
    with os.fdopen(writer, "wb") as stream:
        for store in stores:
            with open_index(store) as index:
                root = os.path.join(store.root, "")
                rows = index.bulk(_SQL.format(", ".join("?" * len(kinds))), [root, *kinds])
            for row in rows:
                if not is_unchanged(*row):
                    stream.write(os.fsencode(row[0]) + b"\0")
