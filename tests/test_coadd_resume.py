"""An interrupted coadd goes on where it was: the same bits after kills, interrupts and full disks; nothing stays."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from awetools.core import unfinished as module
from awetools.core.coadd import scratch, strips
from awetools.core.coadd.coadd import Coadded, How, coadd
from awetools.core.coadd.inputs import CoaddFrame
from awetools.core.errors import NoMatch, Unavailable
from awetools.core.partial import PAGE_BYTES, PROGRESS, is_at_work, is_partial, part_done, partial_path
from awetools.core.sky.grid import Grid
from awetools.core.unfinished import Unfinished
from tests.test_coadd import exposures, grid_of, planes


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coadds of a second are kept, each strip is noted."""
    monkeypatch.setattr(scratch, "KEPT_FROM", 0)
    monkeypatch.setattr(strips, "STRIP_ROWS", 18)
    monkeypatch.setattr(module, "NOTE_S", 0.0)


@pytest.fixture(scope="module")
def given() -> tuple[list[CoaddFrame], Grid, dict[str, np.ndarray], Coadded]:
    """Frames, their grid, and the coadd of them made at once."""
    frames, _ = exposures(3)
    grid = grid_of(frames)
    made = coadd(frames, grid, HOW)
    return frames, grid, planes(made), made


HOW = How(matching="constant")
# Of the reads of 3 frames, 48 in samples and 27 in strips: one in the middle of the strips.
HALF = 62
Given = tuple[list[CoaddFrame], Grid, dict[str, np.ndarray], Coadded]


def slow(frames: list[CoaddFrame], after: int, then: Callable[[], None]) -> list[CoaddFrame]:
    """Frames of which a read, so many after those of the preparation, does something besides."""
    reads = [0]

    def wrapped(one: CoaddFrame) -> CoaddFrame:
        def read(first: int, last: int):  # type: ignore[no-untyped-def]
            reads[0] += 1
            if reads[0] == after:
                then()
            return one.read(first, last)

        return replace(one, read=read)

    return [wrapped(one) for one in frames]


def interrupted(
    frames: list[CoaddFrame], grid: Grid, target: Path, after: int, error: BaseException
) -> BaseException:
    def stop() -> None:
        raise error

    with pytest.raises(type(error)) as caught, Unfinished(target, "key") as kept:
        coadd(slow(frames, after, stop), grid, replace(HOW, unfinished=kept))
    return caught.value


def same(found: Coadded, expected: dict[str, np.ndarray]) -> bool:
    return all(plane.tobytes() == expected[name].tobytes() for name, plane in planes(found).items())


@pytest.mark.parametrize("threads", [1, 3])
def test_killed_again_and_again_it_comes_to_an_end_with_the_same_bits(
    given: Given, tmp_path: Path, threads: int
) -> None:
    frames, grid, _, _ = given
    how = How(threads=threads, most_disagreeing=0)
    expected = planes(coadd(frames, grid, how))
    target, chance = tmp_path / "coadd.fits", random.Random(threads)
    parts, kills = [0.0], 0
    for attempt in range(60):
        child = os.fork()
        if not child:
            with Unfinished(target, "key") as kept:
                # Slow enough for a kill to hit any moment of it.
                paced = [
                    replace(one, read=lambda a, b, one=one: time.sleep(0.01) or one.read(a, b))
                    for one in frames
                ]
                made = coadd(paced, grid, replace(how, unfinished=kept))
                os._exit(0 if same(made, expected) else 1)
        time.sleep(chance.uniform(0.05, 0.2 + 0.08 * attempt))
        os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code != -signal.SIGKILL:
            assert code == 0
            break
        kills += 1
        parts.append(part_done(partial_path(target)))
        assert parts[-1] >= parts[-2]
    else:
        raise AssertionError("it never came to an end")
    assert kills > 1
    assert max(parts) > 0


def test_an_interrupt_says_what_is_kept_and_nothing_is_left_in_the_end(given: Given, tmp_path: Path) -> None:
    frames, grid, expected, whole = given
    target = tmp_path / "coadd.fits"
    error = interrupted(frames, grid, target, HALF, KeyboardInterrupt())
    folder = partial_path(target)
    assert is_partial(folder)
    assert not is_at_work(folder)
    part = part_done(folder)
    assert 0 < part < 1
    (text,) = error.__notes__
    assert f"{100 * part:.0f}% of the work is kept in {folder}" in text
    assert "same command" in text
    again = interrupted(frames, grid, target, 1, KeyboardInterrupt())
    assert again.__notes__ == [text]
    with Unfinished(target, "key") as kept:
        made = coadd(frames, grid, replace(HOW, unfinished=kept, threads=2))
        assert same(made, expected)
        assert is_at_work(folder)
    assert repr(made.frames) == repr(whole.frames)
    assert any("where it was interrupted" in one for one in kept.notes)
    assert not list(tmp_path.iterdir())


def test_the_work_survives_what_happens_after_it(given: Given, tmp_path: Path) -> None:
    frames, grid, expected, _ = given
    target = tmp_path / "coadd.fits"
    with (
        pytest.raises(Unavailable, match=r"the disk is full; 100% of the work is kept"),
        Unfinished(target, "key") as kept,
    ):
        coadd(frames, grid, replace(HOW, unfinished=kept))
        raise Unavailable("the disk is full")
    with Unfinished(target, "key") as kept:
        again = coadd(slow(frames, 10_000, lambda: None), grid, replace(HOW, unfinished=kept))
        assert again.strips == 0
        assert same(again, expected)


def test_what_is_interrupted_at_once_leaves_nothing(given: Given, tmp_path: Path) -> None:
    frames, grid, _, _ = given
    error = interrupted(frames, grid, tmp_path / "coadd.fits", 1, KeyboardInterrupt())
    assert not hasattr(error, "__notes__")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change", ["stamp", "frames", "way", "damage", "short", "note", "byte SCI", "byte MASK", "byte FRAME"]
)
def test_what_was_kept_of_something_else_is_not_taken(given: Given, tmp_path: Path, change: str) -> None:
    frames, grid, expected, _ = given
    target, stamp, how, used = tmp_path / "coadd.fits", "key", HOW, frames
    interrupted(frames, grid, target, HALF, NoMatch("no more"))
    folder = partial_path(target)
    assert part_done(folder) > 0.3
    if change == "stamp":
        stamp = "another"
    if change == "frames":
        # The frames say the same of themselves, and have other pixels.
        used = [
            replace(one, read=lambda a, b, one=one: (one.read(a, b)[0] * 2, *one.read(a, b)[1:]))
            for one in frames
        ]
        how = replace(HOW, matching="none", most_disagreeing=0)
        used = [replace(one, read=other.read) for one, other in zip(frames, used, strict=True)]
    if change == "way":
        how = replace(HOW, gauge="faintest")
    if change == "damage":
        with (folder / "SCI").open("r+b") as stream:
            stream.write(os.urandom((folder / "SCI").stat().st_size))
    if change.startswith("byte "):
        path = folder / change.split()[1]
        with path.open("r+b") as stream:
            # Not in a row that is made again; of the list, the first.
            place = 0 if change == "byte FRAME" else int(0.2 * part_done(folder) * path.stat().st_size)
            stream.seek(place)
            byte = stream.read(1)
            stream.seek(place)
            stream.write(bytes([byte[0] ^ 1]))
    if change == "short":
        os.truncate(folder / "WEIGHT", 100)
    if change == "note":
        with (folder / PROGRESS).open("r+b") as stream:
            for place in (1, 2):
                stream.seek(place * PAGE_BYTES + 16)
                stream.write(b"\x55" * 40)
        assert part_done(folder) == 0
    if change in ("frames", "way"):
        expected = planes(coadd(used, grid, how))
    with Unfinished(target, stamp) as kept:
        made = coadd(used, grid, replace(how, unfinished=kept))
        assert same(made, expected)
    assert any("begun anew" in one for one in kept.notes), kept.notes
    assert not list(tmp_path.iterdir())


def test_two_programs_do_not_work_in_one_place(given: Given, tmp_path: Path) -> None:
    frames, grid, expected, _ = given
    target = tmp_path / "coadd.fits"
    with Unfinished(target, "key") as first:
        one = coadd(frames, grid, replace(HOW, unfinished=first))
        with Unfinished(target, "key") as second:
            other = coadd(frames, grid, replace(HOW, unfinished=second, folder=tmp_path))
        assert any("another program" in text for text in second.notes)
        assert is_partial(partial_path(target))
        assert same(one, expected)
        assert same(other, expected)
    assert not list(tmp_path.iterdir())


def test_a_small_coadd_keeps_nothing(given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, grid, _, _ = given
    monkeypatch.setattr(scratch, "KEPT_FROM", 10**9)
    interrupted(frames, grid, tmp_path / "coadd.fits", HALF, KeyboardInterrupt())
    assert not list(tmp_path.iterdir())


def test_a_disk_without_room_is_said_before_the_work(
    given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, grid, expected, _ = given
    target = tmp_path / "coadd.fits"
    bytes_needed = 2 * 12 * grid.shape[0] * grid.shape[1]
    monkeypatch.setattr(scratch, "free_bytes", lambda _: bytes_needed - 1)
    read = slow(frames, 1, lambda: pytest.fail("a frame was read"))
    with (
        pytest.raises(Unavailable, match=r"takes .* MB there.* MB are free") as caught,
        Unfinished(target, "k") as kept,
    ):
        coadd(read, grid, replace(HOW, unfinished=kept, folder=tmp_path))
    assert str(target) in caught.value.message
    assert "same command" in caught.value.hint
    monkeypatch.setattr(scratch, "free_bytes", lambda _: bytes_needed)
    with Unfinished(target, "k") as kept:
        assert same(coadd(frames, grid, replace(HOW, unfinished=kept, folder=tmp_path)), expected)
    assert not list(tmp_path.iterdir())
