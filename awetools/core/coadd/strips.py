"""Strips of a grid: as many rows as the memory allows, worked on by threads in their order."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NoReturn, TypeVar

from ..errors import Unavailable
from ..memory import resident_bytes
from ..sky.grid import Grid, Span
from .layers import Placed

if TYPE_CHECKING:
    from .coadd import How

T = TypeVar("T")

# Rows of a strip, where the memory allows it; and every how many rows it is looked at before the work.
STRIP_ROWS, LOOK_ROWS = 512, 64
# Bytes of a pixel of a strip: planes of the result; medians, of how many values, and contrasts.
RESULT_BYTES, MEDIAN_BYTES = 14, 14
# Of what is left of the cap, the part that strips are counted on: the rest is for what is not counted.
USABLE = 0.9
# What a hint adds a thread: each keeps some of what it frees.
SPARE_BYTES = 16 << 20


def strips_of(placed: Sequence[Placed], grid: Grid, how: How, first: int = 0) -> Iterator[Span]:
    """Rows of strips, from the first one on, as high as the memory allows; Unavailable if not even one row is."""
    held = resident_bytes()
    room = (how.memory_bytes - held) * USABLE / how.threads
    while first < grid.shape[0]:
        height = min(STRIP_ROWS, grid.shape[0] - first)
        while height > 1 and strip_bytes(placed, grid, (first, first + height), how) > room:
            height = -(-height // 2)
        needed = strip_bytes(placed, grid, (first, first + height), how)
        if needed > room:
            _refuse(max(needed, _row_bytes(placed, grid, how)), held, how)
        yield first, first + height
        first += height


def check_memory(placed: Sequence[Placed], grid: Grid, how: How) -> None:
    """Raise Unavailable if the memory cannot hold a row in each thread, before much is done."""
    held, needed = resident_bytes(), _row_bytes(placed, grid, how)
    if needed * how.threads > (how.memory_bytes - held) * USABLE:
        _refuse(needed, held, how)


def threads_for(placed: Sequence[Placed], grid: Grid, pieces: Sequence[Span], how: How) -> int:
    """Of the threads, as many as the memory allows for pieces of these rows."""
    needed = max((strip_bytes(placed, grid, rows, how) for rows in pieces), default=1)
    return max(1, min(how.threads, int((how.memory_bytes - resident_bytes()) * USABLE // needed)))


def _row_bytes(placed: Sequence[Placed], grid: Grid, how: How) -> int:
    """Memory for one row, where it takes most."""
    rows = range(0, grid.shape[0], LOOK_ROWS)
    return max((strip_bytes(placed, grid, (row, row + 1), how) for row in rows), default=0)


def _refuse(needed: int, held: int, how: How) -> NoReturn:
    room = max(0, how.memory_bytes - held)
    enough = f"--memory {math.ceil(((needed / USABLE + SPARE_BYTES) * how.threads + held) / (1 << 20))}M"
    fewer = int(room // (needed / USABLE + SPARE_BYTES))
    raise Unavailable(
        f"a strip of one row of this coadd takes {needed / 1e6:.1f} MB in each of {how.threads} threads;"
        f" {how.memory_bytes / 1e6:.0f} MB, the cap, leave {room / 1e6:.1f} beside the program itself",
        hint=f"{enough}, or -j {fewer}" if fewer else enough,
    )


def strip_bytes(placed: Sequence[Placed], grid: Grid, rows: Span, how: How) -> int:
    """Memory that a strip takes while it is made, about."""
    halo = how.stacking.halo_px
    wide = rows[0] - halo, rows[1] + halo
    parts = [one.strip_bytes(wide, how.regridding.fill) for one in placed]
    medians = MEDIAN_BYTES if how.stacking.method != "mean" else 0
    planes = (wide[1] - wide[0]) * grid.shape[1] * (RESULT_BYTES + medians)
    return planes + sum(held for held, _ in parts) + max((making for _, making in parts), default=0)


def in_order(work: Callable[[Span], T], items: Sequence[Span], threads: int) -> Generator[T]:
    """Results in the order of the items, of no more of them at once than there are threads.

    Closed before its end, it waits for those at work and begins no other.
    """
    if threads == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(work, items)
