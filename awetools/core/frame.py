"""What recipes get: raw frames read in strips, calibration frames, tables of numbers.

A recipe never sees a file. A RawFrame knows its amplifiers and hands out rows of
the assembled, trimmed detector; a FrameSet is many of them under one memory cap.
All can be made from plain arrays, so every recipe runs in a notebook.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .sections import Amplifier, Section, amplifiers_from_meta

DEFAULT_MEMORY_BYTES = 1 << 30

ReadRows = Callable[[int, int, int], np.ndarray]


@dataclass(frozen=True)
class Table:
    """A product that is numbers only: columns of one length, usually a row an amplifier."""

    columns: Mapping[str, np.ndarray]
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Frame:
    """A trimmed detector image: pixels (ny, nx) float32, weight (unit^-2), mask (int16 bits), meta."""

    data: np.ndarray
    weight: np.ndarray | None = None
    mask: np.ndarray | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


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

    def rows(self, y0: int, y1: int) -> np.ndarray:
        """Rows y0 to y1 of the assembled, trimmed detector, in the raw file's own number type."""
        blocks = [self._block(amp, y0, y1) for amp in self.amplifiers]
        placed = [block for block in blocks if block is not None]
        if len(placed) == 1:
            return placed[0][1]
        out = np.empty((y1 - y0, self.shape[1]), dtype=np.result_type(*(block for _, block in placed)))
        for (ys, xs), block in placed:
            out[ys, xs] = block
        return out

    def overscan(self, amp: Amplifier) -> np.ndarray | None:
        """The overscan columns of an amplifier (rows of its data section, in target order), or None."""
        if amp.overscan is None:
            return None
        y0, y1 = amp.data.y0, amp.data.y1
        block = self.read_rows(amp.hdu, y0, y1)[:, amp.overscan.x0 : amp.overscan.x1]
        return block[::-1] if amp.target.flip_y else block

    def _block(self, amp: Amplifier, y0: int, y1: int) -> tuple[tuple[slice, slice], np.ndarray] | None:
        low, high = max(y0, amp.target.y0), min(y1, amp.target.y1)
        if low >= high:
            return None
        if amp.target.flip_y:
            first = amp.data.y0 + amp.target.y1 - high
        else:
            first = amp.data.y0 + low - amp.target.y0
        block = self.read_rows(amp.hdu, first, first + high - low)[:, amp.data.x0 : amp.data.x1]
        block = block[:: -1 if amp.target.flip_y else 1, :: -1 if amp.target.flip_x else 1]
        return (slice(low - y0, high - y0), slice(amp.target.x0, amp.target.x1)), block


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
        # Blocks beyond a few MB leave the processor's cache and gain nothing.
        rows = min(rows, max(16, (1 << 22) // (nx * max(1, len(self)))))
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
