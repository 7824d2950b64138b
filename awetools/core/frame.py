"""What recipes get: raw frames read in strips, calibration frames, tables of numbers.

A recipe never sees a file. A RawFrame knows its amplifiers and hands out rows of
the assembled, trimmed detector; a FrameSet is many of them under one memory cap.
All can be made from plain arrays, so every recipe runs in a notebook.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .sections import Amplifier, Section, amplifiers_from_meta

if TYPE_CHECKING:
    from .unfinished import Unfinished

DEFAULT_MEMORY_BYTES = 1 << 30
# Rows that are read at a time where only some of their columns are kept: they stay in the processor's cache.
READ_PIXELS = 1 << 18

ReadRows = Callable[[int, int, int], np.ndarray]


@dataclass(frozen=True)
class Table:
    """A product that is numbers only: columns of one length, usually a row an amplifier."""

    columns: Mapping[str, np.ndarray]
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Frame:
    """A trimmed detector image: pixels (ny, nx) float32, weight (unit^-2), mask (int16 bits), meta, unit."""

    data: np.ndarray
    weight: np.ndarray | None = None
    mask: np.ndarray | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    unit: str = "adu"


ReadPlanes = Callable[[int, int], tuple[np.ndarray, np.ndarray, np.ndarray | None]]


@dataclass(frozen=True)
class FrameRows:
    """A product's image whose rows are read when they are needed.

    read(y0, y1) gives those rows of pixels (float32), weight and mask (or None); it may be called
    by several threads. unit: of the pixels.
    """

    meta: Mapping[str, Any]
    shape: tuple[int, int]
    read: ReadPlanes
    unit: str = "adu"


@dataclass(frozen=True)
class ImageSet:
    """Images that need not fit into memory together, and what may be used to work on them.

    memory_bytes: the cap of the process; threads; scratch: where planes that are too large lie meanwhile;
    unfinished: where work of minutes may be kept, so that an interruption does not lose it.
    """

    frames: tuple[FrameRows, ...]
    memory_bytes: int = DEFAULT_MEMORY_BYTES
    threads: int = 1
    scratch: str | None = None
    unfinished: Unfinished | None = None


@dataclass(frozen=True)
class RawFrame:
    """One detector of one raw exposure, as it was read out.

    read_rows(hdu, y0, y1) gives rows of the untrimmed image of an HDU, 0-based,
    half open. The amplifiers say where data and overscan lie and where the data
    belong in the trimmed detector.
    """

    meta: Mapping[str, Any]
    amplifiers: tuple[Amplifier, ...]
    shape: tuple[int, int]
    read_rows: ReadRows

    @staticmethod
    def of_array(array: np.ndarray, meta: Mapping[str, Any] | None = None) -> RawFrame:
        """A raw frame from an array (ny, nx); meta['sections'] says where the data are, else all of it."""
        meta = dict(meta or {})
        ny, nx = array.shape
        sections = meta.get("sections")
        whole = Section(0, nx, 0, ny, False, False)
        amplifiers = amplifiers_from_meta(sections) if sections else (Amplifier("A", 0, whole, None, whole),)
        meta.setdefault("overscan_mode", "rows-smooth" if amplifiers[0].overscan else "none")
        return raw_frame(meta, amplifiers, lambda _hdu, y0, y1: array[y0:y1])

    def in_memory(self) -> RawFrame:
        """The same frame with its raw pixels read, for those who look at them more than once."""
        ends: dict[int, int] = {}
        for amp in self.amplifiers:
            ends[amp.hdu] = max(ends.get(amp.hdu, 0), amp.data.y1)
        images = {hdu: self.read_rows(hdu, 0, end) for hdu, end in ends.items()}
        return replace(self, read_rows=lambda hdu, y0, y1: images[hdu][y0:y1])

    def rows(self, y0: int, y1: int) -> np.ndarray:
        """Rows y0 to y1 of the assembled, trimmed detector, in the raw file's own number type."""
        placed = []
        for number, ys, xs, raw in self.raw_rows(y0, y1):
            amp = self.amplifiers[number]
            block = raw[:, amp.data.x0 : amp.data.x1]
            placed.append(
                (ys, xs, block[:: -1 if amp.target.flip_y else 1, :: -1 if amp.target.flip_x else 1])
            )
        if len(placed) == 1:
            return placed[0][2]
        out = np.empty((y1 - y0, self.shape[1]), dtype=np.result_type(*(block for _, _, block in placed)))
        for ys, xs, block in placed:
            out[ys, xs] = block
        return out

    def raw_rows(self, y0: int, y1: int) -> Iterator[tuple[int, slice, slice, np.ndarray]]:
        """For each amplifier that has a part of rows y0 to y1: its number, that part's place, the raw rows it is in.

        The place are rows (counted from y0) and columns of the assembled detector. The
        raw rows have all their columns, in the order of the file; those that amplifiers
        share are read once.
        """
        read: dict[tuple[int, int, int], np.ndarray] = {}
        for number, amp in enumerate(self.amplifiers):
            target = amp.target
            low, high = max(y0, target.y0), min(y1, target.y1)
            if low >= high:
                continue
            first = amp.data.y0 + (target.y1 - high if target.flip_y else low - target.y0)
            where = (amp.hdu, first, first + high - low)
            if where not in read:
                read[where] = self.read_rows(*where)
            yield number, slice(low - y0, high - y0), slice(target.x0, target.x1), read[where]

    def overscan(self, amp: Amplifier) -> np.ndarray | None:
        """The overscan columns of an amplifier (rows of its data section, in target order), or None."""
        return self.overscans([amp])[0]

    def overscans(self, amplifiers: Sequence[Amplifier]) -> list[np.ndarray | None]:
        """The overscan of each of these amplifiers, as `overscan` has it; rows that they share are read once."""
        strips: dict[int, np.ndarray] = {}
        sharing: dict[tuple[int, int, int], list[int]] = {}
        for number, amp in enumerate(amplifiers):
            if amp.overscan is not None:
                sharing.setdefault((amp.hdu, amp.data.y0, amp.data.y1), []).append(number)
        for (hdu, y0, y1), numbers in sharing.items():
            first = self.read_rows(hdu, y0, min(y1, y0 + 1))
            step = max(1, READ_PIXELS // max(1, first.shape[1]))
            for y in range(y0, y1, step):
                rows = self.read_rows(hdu, y, min(y1, y + step))
                for number in numbers:
                    columns = amplifiers[number].overscan
                    assert columns is not None
                    if number not in strips:
                        strips[number] = np.empty((y1 - y0, columns.x1 - columns.x0), rows.dtype)
                    strips[number][y - y0 : y - y0 + len(rows)] = rows[:, columns.x0 : columns.x1]
        flips = [amp.target.flip_y for amp in amplifiers]
        return [
            None if number not in strips else strips[number][:: -1 if flip else 1]
            for number, flip in enumerate(flips)
        ]


def raw_frame(meta: Mapping[str, Any], amplifiers: tuple[Amplifier, ...], read_rows: ReadRows) -> RawFrame:
    """A raw frame whose shape is what its amplifiers' targets cover."""
    ny = max(amp.target.y1 for amp in amplifiers)
    nx = max(amp.target.x1 for amp in amplifiers)
    return RawFrame(meta, amplifiers, (ny, nx), read_rows)


@dataclass(frozen=True)
class FrameSet:
    """Raw frames of one detector, read together in strips whose memory stays under a cap."""

    frames: tuple[RawFrame, ...]
    memory_bytes: int = DEFAULT_MEMORY_BYTES

    @staticmethod
    def of_arrays(arrays: Sequence[np.ndarray], meta: Mapping[str, Any] | None = None) -> FrameSet:
        """A frame set from arrays (ny, nx) that share one meta."""
        return FrameSet(tuple(RawFrame.of_array(array, meta) for array in arrays))

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[RawFrame]:
        return iter(self.frames)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the trimmed detector."""
        return self.frames[0].shape

    @property
    def amplifiers(self) -> tuple[Amplifier, ...]:
        """The amplifiers, the same for all frames."""
        return self.frames[0].amplifiers

    def without(self, numbers: Sequence[int]) -> FrameSet:
        """The set less the frames of these numbers."""
        kept = tuple(frame for n, frame in enumerate(self.frames) if n not in set(numbers))
        return replace(self, frames=kept)

    def strips(self, bytes_a_pixel: int = 12, fixed_bytes: int = 0) -> Iterator[tuple[int, int]]:
        """Row ranges such that all frames' rows, at so many bytes a pixel, stay under the cap.

        fixed_bytes is what the recipe holds besides (its outputs). At least 16
        rows are read at a time, whatever the cap.
        """
        ny, nx = self.shape
        room = max(self.memory_bytes - fixed_bytes, self.memory_bytes // 8)
        rows = max(16, min(ny, room // (bytes_a_pixel * nx * max(1, len(self)))))
        # Blocks beyond some MB leave the processor's cache and gain nothing.
        rows = min(rows, max(16, (1 << 23) // (nx * max(1, len(self)))))
        for y0 in range(0, ny, rows):
            yield y0, min(ny, y0 + rows)


def over_amplifiers(
    amplifiers: Sequence[Amplifier], values: Sequence[float], shape: tuple[int, int]
) -> np.ndarray:
    """A value an amplifier as a float32 array that broadcasts over the detector: (1, nx) or (ny, nx)."""
    rows = 1 if all(amp.target.y0 == 0 and amp.target.y1 == shape[0] for amp in amplifiers) else shape[0]
    out = np.zeros((rows, shape[1]), dtype=np.float32)
    for amp, value in zip(amplifiers, values, strict=True):
        ys = slice(None) if rows == 1 else slice(amp.target.y0, amp.target.y1)
        out[ys, amp.target.x0 : amp.target.x1] = value
    return out
