"""The embedded engine: runs a plan on this machine, with nothing but Python's own library.

One event loop without threads. Nodes start as what they wait for ends, as many
as fit; each is a process group of its own. A failure stops what hangs on it and
nothing else, and however this process ends, it leaves no process behind.
"""

from __future__ import annotations

import heapq
import os
import selectors
import signal
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

from ..errors import BadValue
from .attempts import (
    Attempt,
    Ending,
    NodeLocks,
    blocked,
    ending_of,
    not_started,
    open_attempt,
    state_of,
)
from .planfile import Node, RunPlan, followers
from .processes import MARK, Guard, Spawner, kill_group, kill_marked
from .ready import Ready, Slots
from .states import (
    Blocked,
    NodeState,
    arguments_of,
    drop_state,
    is_settled,
    may_retry,
    read_state,
    write_state,
)
from .workers import MOST_NODES, Warm, Worker

__all__ = [
    "Event",
    "Finished",
    "Retrying",
    "Slots",
    "Started",
    "Warm",
    "run",
    "slots_of_machine",
]

# After TERM, before KILL.
GRACE_S = 3.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
LOCK_PAUSE_S = 0.1
LONGEST_WAIT_S = 3600.0
# Without signals (in a thread that is not the main one) processes are looked at so often.
POLL_S = 0.02


@dataclass(frozen=True)
class Started:
    """A node has started, for the `attempt`-th time."""

    node: Node
    attempt: int


@dataclass(frozen=True)
class Finished:
    """A node has ended; `skipped` if it was done before and did not run again."""

    node: Node
    state: NodeState
    skipped: bool = False


@dataclass(frozen=True)
class Retrying:
    """A node that failed so starts again in `pause_s` seconds."""

    node: Node
    state: NodeState
    pause_s: float


Event = Started | Finished | Retrying


def slots_of_machine(cpus: int | None = None) -> Slots:
    """The CPUs that this process may use, or so many of them, and nine tenths of the memory that is free."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:
        allowed = os.cpu_count() or 1
    try:
        with open("/proc/meminfo") as stream:
            free_kb = next(int(line.split()[1]) for line in stream if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        free_kb = 0
    return Slots(cpus or allowed, free_kb * 9 // 10 // 1024)


def run(
    plan: RunPlan,
    slots: Slots | None = None,
    warm: Warm | None = None,
    on_event: Callable[[Event], object] = lambda event: None,
    *,
    fail_fast: bool = False,
    again: bool = False,
) -> dict[str, NodeState]:
    """Run the nodes of a plan, and return the state of each.

    slots: what may be used at a time, by default all of the machine. warm: which
    command lines run in process, in workers forked from this one; without it
    every node is a program started anew. on_event is called as nodes start and
    end. fail_fast: start nothing more after a failure. again: also run nodes that
    are done.

    What a node waits for and is not among the plan's nodes (as after `read_plan`
    of some) is looked up in its state file. A node that another process runs is
    waited for. On an interrupt or SIGTERM every node is ended, then what the
    signal does without this is done. Raises Unavailable where the plan's
    directory cannot be written.
    """
    engine = _Engine(plan, slots or slots_of_machine(), warm, on_event, fail_fast, again)
    with _Signals() as signals:
        engine.run(signals)
    if signals.received:
        signal.raise_signal(signals.received[0])
        raise KeyboardInterrupt
    return {node.id: engine.states[node.id] for node in plan.nodes}


class _Signals:
    """While this is in force, signals are noted and wake the loop up: none comes between a process and its note."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.reader, self._writer = os.pipe()
        for descriptor in (self.reader, self._writer):
            os.set_blocking(descriptor, False)
        self.wakes = threading.current_thread() is threading.main_thread()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        if not self.wakes:
            return self
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._handle(signal.SIGCHLD, lambda number, frame: None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._handle(number, self._note)
        return self

    def _handle(self, number: int, handler: Callable[[int, FrameType | None], object]) -> None:
        self._before[number] = signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received.append(number)

    def drain(self) -> None:
        """Empty the pipe that the signals wrote to."""
        with suppress(BlockingIOError):
            while os.read(self.reader, 4096):
                pass

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if self.wakes:
            signal.set_wakeup_fd(self._wakeup)
        os.close(self.reader)
        os.close(self._writer)


class _Engine:
    """The state of one run."""

    def __init__(
        self,
        plan: RunPlan,
        slots: Slots,
        warm: Warm | None,
        on_event: Callable[[Event], object],
        fail_fast: bool,
        again: bool,
    ) -> None:
        self._plan, self._slots, self._warm = plan, slots, warm
        self._on_event, self._fail_fast, self._again = on_event, fail_fast, again
        self._mark = uuid.uuid4().hex
        self._environment = {**os.environ, **plan.environment, MARK: self._mark}
        self.states: dict[str, NodeState] = {}
        self._nodes = {node.id: node for node in plan.nodes}
        self._after = followers(plan.nodes)
        self._left = {
            node.id: sum(1 for name in set(node.before) if name in self._nodes) for node in plan.nodes
        }
        self._ready = Ready(slots, plan.nodes)
        self._tries: dict[str, int] = {}
        self._later: list[tuple[float, str]] = []
        self._spawned: dict[int, Attempt] = {}
        self._working: dict[Worker, Attempt] = {}
        self._idle: list[Worker] = []
        self._guard: Guard | None = None
        self._halted = ""
        self._stopping = False

    def run(self, signals: _Signals) -> None:
        """Run everything, or until a signal."""
        self._signals = signals
        with ExitStack() as stack:
            self._locks = NodeLocks(self._plan)
            stack.callback(self._locks.close)
            self._spawner = Spawner(self._plan.root, self._environment)
            stack.callback(self._spawner.close)
            self._selector = stack.enter_context(selectors.DefaultSelector())
            self._selector.register(signals.reader, selectors.EVENT_READ)
            stack.callback(self._end)
            self._look_up_outside()
            self._ripen([name for name, count in self._left.items() if not count])
            while self._goes_on():
                self._start_what_fits()
                if self._spawned or self._working or self._later:
                    self._wait(float("inf"))
                elif self._goes_on():
                    raise BadValue(f"{self._plan.directory}: its nodes wait for each other in a cycle")

    def _goes_on(self) -> bool:
        return len(self.states) < len(self._nodes) + self._outside and not self._signals.received

    def _look_up_outside(self) -> None:
        """The states of nodes that are waited for and not among those that run."""
        names = {name for node in self._plan.nodes for name in node.before if name not in self._nodes}
        found = {name: read_state(self._plan, name) for name in names}
        self.states.update({name: state for name, state in found.items() if state is not None})
        self._outside = len(self.states)

    # Starting

    def _ripen(self, names: Sequence[str]) -> None:
        """Nodes that wait for no other any more: they can start, or never will; and so on, down the graph."""
        waiting = deque(names)
        while waiting:
            node = self._nodes[waiting.popleft()]
            if node.id in self.states:
                continue
            try:
                arguments_of(node, self.states)
            except Blocked as error:
                waiting += self._record(node, blocked(node, str(error), error.passing))
                continue
            self._ready.push(node)

    def _start_what_fits(self) -> None:
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            self._ready.push(self._nodes[heapq.heappop(self._later)[1]])
        while not self._halted and (node := self._ready.take()) is not None:
            if self._signals.received:
                return
            self._start(node)

    def _start(self, node: Node) -> None:
        if not self._locks.take(node.id):
            self._ready.give_back(node)
            heapq.heappush(self._later, (time.monotonic() + LOCK_PAUSE_S, node.id))
            return
        argv = arguments_of(node, self.states)
        before = read_state(self._plan, node.id)
        if not self._again and is_settled(self._plan, node, argv, before, self._ends_before(node)):
            assert before is not None
            self._ready.give_back(node)
            self._locks.free(node.id)
            self._ripen(self._record(node, before, skipped=True))
            return
        if before is not None:
            drop_state(self._plan, node.id)
        number = self._tries[node.id] = self._tries.get(node.id, 0) + 1
        if self._guard is None:
            self._guard = Guard(self._mark, 2 * self._slots.cpus + 2)
        warm = self._warm if self._warm is not None and self._warm.takes(argv) else None
        # Forked before the node's files are open, so that it has no copies of them.
        worker = None if warm is None else self._idle.pop() if self._idle else self._new_worker(warm)
        attempt = open_attempt(self._plan, node, argv, number)
        if worker is None or warm is None:
            self._spawn(attempt)
        else:
            self._give(worker, attempt, warm)

    def _spawn(self, attempt: Attempt) -> None:
        assert self._guard is not None
        try:
            attempt.process = self._spawner.start(attempt.argv, attempt.output, attempt.log)
        except OSError as error:
            self._ended(attempt, not_started(attempt, error))
            return
        self._guard.watch(attempt.process)
        self._spawned[attempt.process] = attempt
        self._on_event(Started(attempt.node, attempt.number))

    def _give(self, worker: Worker, attempt: Attempt, warm: Warm) -> None:
        while True:
            try:
                worker.give(attempt.argv, attempt.output, attempt.log)
                break
            except OSError:
                # Killed while it was idle.
                self._retire(worker)
                worker = self._new_worker(warm)
        attempt.process = worker.number
        self._working[worker] = attempt
        self._on_event(Started(attempt.node, attempt.number))

    def _new_worker(self, warm: Warm) -> Worker:
        assert self._guard is not None
        worker = Worker(warm, self._plan.root, self._environment, self._close_in_worker)
        self._guard.watch(worker.number)
        self._selector.register(worker, selectors.EVENT_READ)
        return worker

    def _close_in_worker(self) -> None:
        """Let go, in a worker, of what this process alone must hold open."""
        assert self._guard is not None
        self._guard.close_in_child()
        self._selector.close()
        for other in (*self._idle, *self._working):
            other.close()
        for attempt in (*self._spawned.values(), *self._working.values()):
            attempt.close()

    # Waiting

    def _wait(self, until: float) -> None:
        """Wait until something ends or is due, and see to it."""
        due = min(
            until,
            self._later[0][0] if self._later else float("inf"),
            *(attempt.deadline for attempt in self._attempts()),
        )
        # The system cannot wait for as long as a person may say.
        pause = None if due == float("inf") else min(max(0.0, due - time.monotonic()), LONGEST_WAIT_S)
        if not self._signals.wakes and self._spawned:
            pause = POLL_S if pause is None else min(pause, POLL_S)
        for key, _ in self._selector.select(pause):
            if key.fileobj == self._signals.reader:
                self._signals.drain()
            else:
                self._answered(key.fileobj)  # type: ignore[arg-type]
        for process in [one for one in self._spawned if _has_ended(one)]:
            self._reap(process)
        self._end_overdue()

    def _attempts(self) -> list[Attempt]:
        return [*self._spawned.values(), *self._working.values()]

    def _end_overdue(self) -> None:
        now = time.monotonic()
        for attempt in self._attempts():
            if attempt.deadline > now:
                continue
            kill_group(attempt.process, signal.SIGKILL if attempt.timed_out else signal.SIGTERM)
            attempt.kill_at = float("inf") if attempt.timed_out else now + GRACE_S
            attempt.timed_out = True

    def _reap(self, process: int) -> None:
        """A program has ended: end what it left running, while its number still stands for its group."""
        assert self._guard is not None
        kill_group(process)
        _, status, used = os.wait4(process, 0)
        self._guard.forget(process)
        attempt = self._spawned.pop(process)
        self._ended(attempt, ending_of(status, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024))

    def _answered(self, worker: Worker) -> None:
        answer = worker.answer()
        attempt = self._working.pop(worker, None)
        if answer is None:
            ending = self._retire(worker)
            if attempt is not None:
                self._ended(attempt, ending)
            return
        assert attempt is not None
        share = self._slots.memory_mb / self._slots.cpus or float("inf")
        worn = worker.nodes >= MOST_NODES or answer.memory_mb > share
        if attempt.timed_out or answer.children or worn or self._stopping:
            self._retire(worker)
        else:
            self._idle.append(worker)
        self._ended(attempt, Ending(answer.code, None, answer.cpu_s, answer.peak_memory_mb))

    def _retire(self, worker: Worker) -> Ending:
        """End a worker and all that it left running; returns how it ended."""
        assert self._guard is not None
        if worker in self._idle:
            self._idle.remove(worker)
        self._selector.unregister(worker)
        worker.close()
        kill_group(worker.number)
        _, status, used = os.wait4(worker.number, 0)
        self._guard.forget(worker.number)
        cpu_s = used.ru_utime + used.ru_stime - worker.cpu_s
        return ending_of(status, max(0.0, cpu_s), used.ru_maxrss / 1024)

    # Ending

    def _ended(self, attempt: Attempt, ending: Ending) -> None:
        """An attempt is over: record it, or try again."""
        node = attempt.node
        try:
            self._ready.give_back(node)
            if self._stopping:
                return
            state = state_of(self._plan, attempt, ending, self._ends_before(node))
        finally:
            attempt.close()
        if may_retry(state) and attempt.number <= node.retries and not self._halted:
            self._locks.free(node.id)
            pause = min(FIRST_PAUSE_S * 2 ** (attempt.number - 1), LONGEST_PAUSE_S)
            heapq.heappush(self._later, (time.monotonic() + pause, node.id))
            self._on_event(Retrying(node, state, pause))
            return
        self._ripen(self._record(node, state))
        self._locks.free(node.id)

    def _ends_before(self, node: Node) -> dict[str, str]:
        return {name: self.states[name].end for name in node.before if name in self.states}

    def _record(self, node: Node, state: NodeState, skipped: bool = False) -> list[str]:
        """Write down how a node ended; returns the nodes that now wait for none."""
        self.states[node.id] = state
        if not skipped:
            write_state(self._plan, state)
        self._on_event(Finished(node, state, skipped))
        if self._fail_fast and state.status != "done" and not self._halted:
            self._halt(node.id)
        freed = []
        for name in self._after.get(node.id, ()):
            self._left[name] -= 1
            if not self._left[name]:
                freed.append(name)
        return freed

    def _halt(self, culprit: str) -> None:
        """Start nothing more: what has not started is blocked."""
        self._halted = culprit
        self._later.clear()
        running = {attempt.node.id for attempt in self._attempts()}
        for node in self._plan.nodes:
            if node.id not in self.states and node.id not in running:
                self._record(node, blocked(node, f"not started, because {culprit} failed"))

    def _end(self) -> None:
        """End every process that is left; nothing that is cut off so is recorded."""
        self._stopping = True
        running = self._attempts()
        for attempt in running:
            kill_group(attempt.process, signal.SIGTERM)
        end = time.monotonic() + GRACE_S
        # A second signal means: at once.
        while self._attempts() and time.monotonic() < end and len(self._signals.received) < 2:
            self._later.clear()
            self._wait(min(end, time.monotonic() + 0.1))
        for process in list(self._spawned):
            kill_group(process)
            self._reap(process)
        for worker in [*self._working, *self._idle]:
            self._retire(worker)
        for attempt in self._working.values():
            attempt.close()
        if running:
            kill_marked(self._mark)
        if self._guard is not None:
            self._guard.close()


def _has_ended(process: int) -> bool:
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
