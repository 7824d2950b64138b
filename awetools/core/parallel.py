"""Work in several processes, forked, so that nothing is imported or opened twice.

Results come back in the order of the work. A worker that dies (killed, out of
memory) is one failed result, not a hang; on an interrupt no child is left.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from .errors import AweError, Unavailable

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

T = TypeVar("T")


class _Ended(NamedTuple):
    """What a worker says of work that it was told to stop."""

    notes: list[str]


class _Worker(Generic[T]):
    """A forked child that answers numbers with the results of `work`."""

    def __init__(self, work: Callable[[int], T]) -> None:
        # Late, like all of it: most programs run in one process.
        import multiprocessing

        context = multiprocessing.get_context("fork")
        self.pipe, child = context.Pipe()
        self.process = context.Process(target=_serve, args=(work, child, self.pipe), daemon=True)
        self.process.start()
        child.close()
        self.number: int | None = None

    def give(self, number: int) -> None:
        self.number = number
        self.pipe.send(number)


def run_forked(work: Callable[[int], T], count: int, processes: int) -> Iterator[T | Exception]:
    """Yield work(0), work(1), ... work(count - 1), or the exception each raised, in this order.

    With one process (or one piece of work) nothing is forked.
    """
    if min(processes, count) <= 1:
        for number in range(count):
            yield _answer(work, number)
        return
    yield from _run_many(work, count, min(processes, count))


def _run_many(work: Callable[[int], T], count: int, processes: int) -> Iterator[T | Exception]:
    from multiprocessing.connection import wait

    waiting = iter(range(count))
    done: dict[int, T | Exception] = {}
    workers: list[_Worker[T]] = [_Worker(work) for _ in range(processes)]
    expected = 0
    try:
        for worker in workers:
            _feed(worker, waiting)
        while expected < count:
            busy = {worker.pipe: worker for worker in workers if worker.number is not None}
            for pipe in wait(list(busy)):
                worker = busy[pipe]  # type: ignore[index]
                number = worker.number
                assert number is not None
                try:
                    done[number] = worker.pipe.recv()
                except EOFError:
                    done[number] = _death(worker)
                    workers[workers.index(worker)] = worker = _Worker(work)
                _feed(worker, waiting)
            while expected in done:
                yield done.pop(expected)
                expected += 1
    except BaseException as error:
        for text in _end_all(workers):
            error.add_note(text)
        raise
    _end_all(workers)


def _end_all(workers: list[_Worker[Any]]) -> list[str]:
    """End all, and what those that were at work say of it."""
    for worker in workers:
        if worker.number is not None:
            worker.process.terminate()
    return [text for worker in workers for text in _end(worker)]


def _feed(worker: _Worker[Any], waiting: Iterator[int]) -> None:
    number = next(waiting, None)
    worker.number = None
    if number is not None:
        worker.give(number)


def _death(worker: _Worker[Any]) -> Unavailable:
    worker.process.join()
    code = worker.process.exitcode or 0
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
    return Unavailable(f"a worker process {how}", hint="-j 1, or a smaller --memory, if it ran out of memory")


def _end(worker: _Worker[Any]) -> list[str]:
    # Also to one that was told to stop: where the signal met a destructor, its exception is lost.
    with suppress(OSError):
        worker.pipe.send(None)
    worker.process.join()
    found: list[str] = []
    with suppress(OSError, EOFError):
        while worker.pipe.poll():
            last = worker.pipe.recv()
            if isinstance(last, _Ended):
                found += last.notes
    worker.pipe.close()
    return found


def _serve(work: Callable[[int], T], pipe: Connection, parents: Connection) -> None:
    # An interrupt reaches the whole process group; the parent decides and ends its children.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    parents.close()
    while True:
        try:
            number = pipe.recv()
        except (EOFError, OSError):
            return
        if number is None:
            return
        try:
            answer = _answer(work, number)
        except SystemExit as error:
            with suppress(OSError):
                pipe.send(_Ended(getattr(error, "__notes__", [])))
            raise
        try:
            pipe.send(answer)
        except OSError:
            # The parent was killed: nobody waits for the answer.
            return


def _stop(_signal: int, _frame: object) -> None:
    raise SystemExit(143)


def _answer(work: Callable[[int], T], number: int) -> T | Exception:
    try:
        return work(number)
    except AweError as error:
        return error
    except MemoryError:
        return Unavailable("out of memory", hint="a smaller --memory, or -j 1")
    except OSError as error:
        return Unavailable(str(error))
    except Exception as error:
        import traceback

        # A traceback cannot be sent between processes, its text can.
        return RuntimeError("".join(traceback.format_exception(error)))
