"""Processes of nodes: started in groups of their own, ended with all that they started, and never left behind."""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import signal
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import Unavailable

# What a process of a node has in its environment, so that none can hide from the guard.
MARK = "AWETOOLS_RUN"
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_GUARD_ROUNDS, _GUARD_PAUSE_S = 10, 0.02
# What Python ignores or handles, and a program expects as it is by default.
_DEFAULT_SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGCHLD,
)


class Spawner:
    """Starts programs in the working directory and environment of a plan.

    posix_spawn costs the same however large this process is; a fork does not.
    """

    def __init__(self, root: Path, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._found: dict[str, str | None] = {}
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            self._root = os.open(root, flags)
        except OSError as error:
            raise Unavailable(f"{root}: {error.strerror}", hint="the plan's nodes run there") from None
        self._here = os.open(".", flags)
        self._null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def start(self, argv: Sequence[str], output: int, messages: int) -> int:
        """Start a program with its standard output and error going to these descriptors; returns its number.

        Raises OSError where it cannot be run.
        """
        program = self._program(argv[0])
        if program is None:
            raise FileNotFoundError(f"{argv[0]}: no such program")
        actions = [
            (os.POSIX_SPAWN_DUP2, self._null, 0),
            (os.POSIX_SPAWN_DUP2, output, 1),
            (os.POSIX_SPAWN_DUP2, messages, 2),
        ]
        os.fchdir(self._root)
        try:
            return os.posix_spawn(
                program,
                list(argv),
                self._environment,
                file_actions=actions,
                setpgroup=0,
                setsigmask=(),
                setsigdef=_DEFAULT_SIGNALS,
            )
        finally:
            os.fchdir(self._here)

    def _program(self, name: str) -> str | None:
        if "/" in name:
            return name
        if name not in self._found:
            self._found[name] = shutil.which(name, path=self._environment.get("PATH", os.defpath))
        return self._found[name]

    def close(self) -> None:
        """Close its descriptors."""
        for descriptor in (self._root, self._here, self._null):
            os.close(descriptor)


def kill_group(group: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a process group, if it is still there."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def die_with_parent(parent: int) -> None:
    """Let this process be killed when the one that forked it ends; elsewhere than on Linux do nothing.

    Its own children's children become its children when they lose their parent, so that it can tell.
    """
    if sys.platform != "linux":
        return
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != parent:
        os._exit(1)


def has_children() -> bool:
    """Whether this process has children, dead ones aside."""
    while True:
        try:
            number, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if not number:
            return True


class Guard:
    """A small process that ends the nodes' processes when this one is killed (-9) and cannot.

    It waits for the end of a pipe that only this process holds open. The process
    groups to end stand in memory that both share, so that nothing has to be sent.
    """

    def __init__(self, mark: str, places: int) -> None:
        self._table = mmap.mmap(-1, 8 * places)
        self._free = list(range(places))
        self._taken: dict[int, int] = {}
        reader, self._writer = os.pipe()
        self._number = os.fork()
        if not self._number:
            _in_child(lambda: self._wait(reader, mark))
        os.close(reader)

    def watch(self, group: int) -> None:
        """Add a process group."""
        place = self._taken[group] = self._free.pop()
        struct.pack_into("q", self._table, 8 * place, group)

    def forget(self, group: int) -> None:
        """Take out a process group that has ended."""
        place = self._taken.pop(group)
        struct.pack_into("q", self._table, 8 * place, 0)
        self._free.append(place)

    def close_in_child(self) -> None:
        """In a child that does not become another program: let go of the pipe."""
        os.close(self._writer)

    def close(self) -> None:
        """End the guard."""
        os.kill(self._number, signal.SIGKILL)
        os.waitpid(self._number, 0)
        os.close(self._writer)
        self._table.close()

    def _wait(self, reader: int, mark: str) -> None:
        os.setsid()
        for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(one, signal.SIG_IGN)
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        kept = os.dup2(reader, 3) if reader != 3 else 3
        os.closerange(4, os.sysconf("SC_OPEN_MAX"))
        while os.read(kept, 1):
            pass
        for _ in range(_GUARD_ROUNDS):
            for (group,) in struct.iter_unpack("q", self._table[:]):
                if group:
                    kill_group(group)
            kill_marked(mark)
            time.sleep(_GUARD_PAUSE_S)


def _in_child(work: Callable[[], object]) -> None:
    """Do some work in a forked child, and end there: never return into the parent's code."""
    try:
        signal.set_wakeup_fd(-1)
        work()
    finally:
        os._exit(0)


def kill_marked(mark: str) -> None:
    """Kill every process that has this mark in its environment, where the system shows it."""
    text = f"{MARK}={mark}".encode()
    for name in _numbers():
        with suppress(OSError):
            with open(f"/proc/{name}/environ", "rb") as stream:
                marked = text in stream.read().split(b"\0")
            if marked and int(name) != os.getpid():
                os.kill(int(name), signal.SIGKILL)


def _numbers() -> list[str]:
    try:
        return [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
