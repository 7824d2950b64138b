"""Forked work: order, errors, deaths, and nothing left behind."""

from __future__ import annotations

import os
import signal
import time

import pytest

from awetools.core.errors import AweError, NotFits, Unavailable
from awetools.core.parallel import run_forked


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_results_come_in_order(processes: int) -> None:
    def work(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number * number

    assert list(run_forked(work, 20, processes)) == [number * number for number in range(20)]


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_stays_with_its_number(processes: int) -> None:
    def work(number: int) -> int:
        if number == 2:
            raise NotFits("two.fits: not FITS", hint="file two.fits")
        return number

    results = list(run_forked(work, 4, processes))
    assert [one for one in results if not isinstance(one, Exception)] == [0, 1, 3]
    error = results[2]
    assert isinstance(error, NotFits)
    assert (error.message, error.hint, error.exit_code) == ("two.fits: not FITS", "file two.fits", 4)


def test_a_bug_carries_its_traceback() -> None:
    def work(number: int) -> float:
        return 1 / number

    results = list(run_forked(work, 2, 2))
    assert "ZeroDivisionError" in str(results[0]) and not isinstance(results[0], AweError)
    assert results[1] == 1.0


def test_a_killed_worker_is_one_failure_and_the_rest_is_done() -> None:
    def work(number: int) -> int:
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    results = list(run_forked(work, 6, 2))
    assert isinstance(results[1], Unavailable) and "SIGKILL" in str(results[1])
    assert [one for one in results if not isinstance(one, Exception)] == [0, 2, 3, 4, 5]


def test_no_child_is_left_when_the_consumer_stops() -> None:
    def work(number: int) -> int:
        if number:
            time.sleep(60)
        return os.getpid()

    results = run_forked(work, 3, 2)
    first = next(results)
    results.close()  # type: ignore[attr-defined]
    with pytest.raises(ProcessLookupError):
        os.kill(int(first), 0)  # type: ignore[call-overload]


def test_what_workers_say_when_they_are_stopped_reaches_the_parent() -> None:
    def work(number: int) -> int:
        try:
            time.sleep(60)
        except SystemExit as error:
            error.add_note(f"half of {number} is kept")
            raise
        return number

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            list(run_forked(work, 3, 2))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert sorted(caught.value.__notes__) == ["half of 0 is kept", "half of 1 is kept"]
