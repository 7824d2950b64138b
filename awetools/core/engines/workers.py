"""Warm workers: forked children of this process, which has imported what they need, that run nodes in process.

A worker runs one node at a time and is kept for the next, so that what it has
read stays in its memory; each is a process group of its own, and one that is
killed takes only its node with it.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import socket
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .processes import die_with_parent, has_children

# A worker is replaced after so many nodes: nothing that leaks can grow for ever.
MOST_NODES = 500
_HEAD_BYTES = 8


@dataclass(frozen=True)
class Warm:
    """Command lines that can be run in process: which, and how (returns the exit code).

    `begin` is called once in each worker, before its first node.
    """

    takes: Callable[[Sequence[str]], bool]
    run: Callable[[Sequence[str]], int]
    begin: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Answer:
    """What a worker says of a node that has ended, and of itself."""

    code: int
    cpu_s: float
    peak_memory_mb: float
    memory_mb: float
    children: bool


class Worker:
    """A worker, seen from the process that forked it."""

    def __init__(
        self, warm: Warm, root: Path, environment: Mapping[str, str], close_in_child: Callable[[], None]
    ) -> None:
        self._socket, theirs = socket.socketpair()
        self.nodes = 0
        self.cpu_s = 0.0
        parent = os.getpid()
        self.number = os.fork()
        if not self.number:
            self._socket.close()
            _live(warm, root, environment, theirs, parent, close_in_child)
        theirs.close()
        # Both do it, so that it is done whoever comes first.
        with suppress(OSError):
            os.setpgid(self.number, self.number)

    def fileno(self) -> int:
        """The descriptor that can be read when the worker has answered, or ended."""
        return self._socket.fileno()

    def give(self, argv: Sequence[str], output: int, messages: int) -> None:
        """Have a node run with these descriptors as standard output and error; raises OSError if the worker died."""
        text = json.dumps(list(argv)).encode()
        socket.send_fds(self._socket, [len(text).to_bytes(_HEAD_BYTES, "big")], [output, messages])
        self._socket.sendall(text)
        self.nodes += 1

    def answer(self) -> Answer | None:
        """What the worker says of its node; None if it died."""
        try:
            text = self._socket.recv(1 << 16)
        except OSError:
            text = b""
        if not text:
            return None
        answer = Answer(**json.loads(text))
        self.cpu_s += answer.cpu_s
        return answer

    def close(self) -> None:
        """Let go of the worker, which then ends."""
        self._socket.close()


def _live(
    warm: Warm,
    root: Path,
    environment: Mapping[str, str],
    pipe: socket.socket,
    parent: int,
    close_in_child: Callable[[], None],
) -> None:
    """The life of a worker, in the child; never returns."""
    try:
        signal.set_wakeup_fd(-1)
        # What the other process left to be collected is not this one's to close.
        gc.freeze()
        _default_signals()
        os.setpgid(0, 0)
        die_with_parent(parent)
        close_in_child()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        _quiet()
        os.environ.update(environment)
        warm.begin()
        while _serve_one(warm, root, pipe):
            pass
    except BaseException:
        os._exit(1)
    os._exit(0)


def _serve_one(warm: Warm, root: Path, pipe: socket.socket) -> bool:
    head, descriptors, _, _ = socket.recv_fds(pipe, _HEAD_BYTES, 2)
    if len(head) < _HEAD_BYTES:
        return False
    text = _receive(pipe, int.from_bytes(head, "big"))
    for target, descriptor in zip((1, 2), descriptors, strict=True):
        os.dup2(descriptor, target)
        os.close(descriptor)
    _forget_peak()
    before = _cpu_seconds()
    os.chdir(root)
    code = _run(warm, json.loads(text))
    _quiet()
    _default_signals()
    answer: dict[str, Any] = {
        "code": code,
        "cpu_s": _cpu_seconds() - before,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "memory_mb": _memory_mb(),
        "children": has_children(),
    }
    pipe.sendall(json.dumps(answer).encode())
    return True


def _receive(pipe: socket.socket, count: int) -> bytes:
    parts = []
    while count:
        part = pipe.recv(min(count, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _run(warm: Warm, argv: Sequence[str]) -> int:
    try:
        return warm.run(argv)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except Exception:
        os.write(2, traceback.format_exc().encode(errors="replace"))
        return 1


def _quiet() -> None:
    """Let go of a node's descriptors; what is printed between nodes goes nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)


def _default_signals() -> None:
    for one in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(one, signal.SIG_DFL)
    # As in a program that a shell started.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _forget_peak() -> None:
    # The system then counts the peak of this node alone.
    with suppress(OSError), open("/proc/self/clear_refs", "w") as stream:
        stream.write("5")


def _memory_mb() -> float:
    try:
        with open("/proc/self/statm") as stream:
            return int(stream.read().split()[1]) * resource.getpagesize() / (1 << 20)
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
