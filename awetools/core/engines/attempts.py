"""One attempt at a node: where its output goes, when its time is over, and the state that it ends in."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from ..errors import Unavailable
from .planfile import Node, RunPlan
from .states import CANNOT_RUN, NOT_FOUND, NodeState, Status, argv_hash, last_lines, product_of

# How much of the end of a node's output is searched for its last line, and kept in its log.
OUTPUT_BYTES = 1 << 20


@dataclass
class Attempt:
    """A node that runs: its process, its descriptors, and its limits of time (of the monotonic clock)."""

    node: Node
    argv: Sequence[str]
    number: int
    output: int
    log: int
    log_start: int
    since: float
    start: str
    process: int = 0
    timed_out: bool = False
    kill_at: float = float("inf")

    @property
    def deadline(self) -> float:
        """When something has to be done about it."""
        if self.timed_out:
            return self.kill_at
        return self.since + self.node.timeout_s if self.node.timeout_s is not None else float("inf")

    def close(self) -> None:
        """Close its descriptors."""
        os.close(self.output)
        os.close(self.log)


def open_attempt(plan: RunPlan, node: Node, argv: Sequence[str], number: int) -> Attempt:
    """Open the log of a node and a nameless file for its output. Raises Unavailable."""
    log_path = plan.log_path(node.id)
    output_path = f"{plan.directory}/log/.{node.id}.{os.getpid()}.out"
    try:
        log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            output = os.open(output_path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            os.unlink(output_path)
            again = f" # attempt {number}" if number > 1 else ""
            os.write(log, f"$ {shlex.join(argv)}{again}\n".encode(errors="surrogateescape"))
            log_start = os.fstat(log).st_size
        except BaseException:
            os.close(log)
            raise
    except OSError as error:
        raise Unavailable(f"{log_path}: {error.strerror}") from None
    return Attempt(node, argv, number, output, log, log_start, time.monotonic(), now())


def now() -> str:
    """The time, UTC."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


@dataclass(frozen=True)
class Ending:
    """How the process of an attempt ended, and what it used."""

    code: int | None
    signal: int | None = None
    cpu_s: float = 0.0
    peak_memory_mb: float = 0.0


def ending_of(status: int, cpu_s: float, peak_memory_mb: float) -> Ending:
    """The ending that a wait status stands for."""
    code = os.waitstatus_to_exitcode(status)
    return Ending(code if code >= 0 else None, -code if code < 0 else None, cpu_s, peak_memory_mb)


def not_started(attempt: Attempt, error: OSError) -> Ending:
    """The ending of a node whose program cannot be run; says so in its log."""
    text = str(error) if error.errno is None else f"{attempt.argv[0]}: {error.strerror}"
    with suppress(OSError):
        os.write(attempt.log, f"{text}\n".encode(errors="surrogateescape"))
    return Ending(NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_RUN)


def state_of(plan: RunPlan, attempt: Attempt, ending: Ending, after: Mapping[str, str]) -> NodeState:
    """The state of a node whose process has ended; its output is put into its log."""
    node = attempt.node
    messages_end = os.fstat(attempt.log).st_size
    output = _take_output(attempt)
    status: Status = "done"
    error = ""
    if attempt.timed_out:
        status = "timeout"
    elif ending.signal is not None:
        status = "killed"
    elif ending.code:
        status = "failed"
    else:
        absent = [one for one in node.outputs if not os.path.lexists(plan.root / one)]
        if absent:
            status, error = "failed", f"it did not write {', '.join(absent[:3])}"
    made = product_of(output) if status == "done" else {}
    if status != "done" and not error:
        error = last_lines(plan.log_path(node.id), attempt.log_start, messages_end)
    return NodeState(
        id=node.id,
        status=status,
        code=ending.code,
        signal=ending.signal,
        error=error,
        argv_sha256=argv_hash(attempt.argv),
        attempts=attempt.number,
        start=attempt.start,
        end=now(),
        wall_s=round(time.monotonic() - attempt.since, 4),
        cpu_s=round(ending.cpu_s, 4),
        peak_memory_mb=round(ending.peak_memory_mb, 1),
        host=platform.node(),
        after=after,
        **made,
    )


def _take_output(attempt: Attempt) -> bytes:
    """The end of what a node printed, which goes into its log too."""
    size = os.fstat(attempt.output).st_size
    start = max(0, size - OUTPUT_BYTES)
    output = os.pread(attempt.output, OUTPUT_BYTES, start) if size else b""
    if output:
        left_out = f"[the first {start} bytes of its output are not kept]\n".encode() if start else b""
        # A full disk is told of by the state that cannot be written.
        with suppress(OSError):
            os.write(attempt.log, left_out + output + (b"" if output.endswith(b"\n") else b"\n"))
    return output.partition(b"\n")[2] if start else output


def blocked(node: Node, reason: str, passing: bool = False) -> NodeState:
    """The state of a node that cannot run; passing: until something that a retry may mend is done."""
    moment, code = now(), Unavailable.exit_code if passing else None
    return NodeState(node.id, "blocked", code, error=reason, start=moment, end=moment, host=platform.node())


class NodeLocks:
    """A lock a node, as bytes of one file: held by the process that runs the node, gone when it dies.

    Two copies of a node, as after a requeue by a batch system, so do not run at a time.
    """

    def __init__(self, plan: RunPlan) -> None:
        self._path = plan.lock_path
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise Unavailable(f"{self._path}: {error.strerror}") from None

    def take(self, node: str) -> bool:
        """Take the lock of a node; False if another process holds it. Raises Unavailable."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(node))
        except (BlockingIOError, PermissionError):
            return False
        except OSError as error:
            raise Unavailable(f"{self._path}: cannot be locked: {error.strerror}") from None
        return True

    def free(self, node: str) -> None:
        """Let go of the lock of a node."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _place(node))

    def close(self) -> None:
        """Let go of all."""
        os.close(self._file)


def running_nodes(plan: RunPlan) -> set[str]:
    """The nodes of a plan that some process runs at this moment."""
    try:
        file = os.open(plan.lock_path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return set()
    try:
        return {node.id for node in plan.nodes if _is_locked(file, _place(node.id))}
    finally:
        os.close(file)


def _is_locked(file: int, place: int) -> bool:
    # A shared lock is refused by who runs the node, and refuses no other that only looks.
    try:
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, place)
    except OSError:
        return True
    fcntl.lockf(file, fcntl.LOCK_UN, 1, place)
    return False


def _place(node: str) -> int:
    # By name, so that it is the same however much of the plan was read.
    return int.from_bytes(hashlib.sha256(node.encode()).digest()[:6], "big")
