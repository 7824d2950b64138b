"""A stack of frames cut into blocks of rows that stay in the cache, and what of them counts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BadValue, Mixture, TooFew

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Stack = Array | Sequence[Array]

# Pixels of one frame that are worked on at once, half as many where there are many frames. Fewer and the
# calls cost more than the work, more and the frames leave the cache (measured for 10 to 100 frames).
BLOCK_PIXELS = 1 << 16
MANY_FRAMES = 32


def layout(stack: Stack) -> tuple[int, int, int, np.dtype[Any]]:
    """Number of frames, rows, columns, and the type in native byte order."""
    if not len(stack):
        raise TooFew("a stack without a frame")
    shape, kind = stack[0].shape, stack[0].dtype
    for number, frame in enumerate(stack):
        if frame.shape != shape or frame.dtype != kind:
            raise Mixture(
                f"frame {number} of the stack is {frame.shape} {frame.dtype}, the first {shape} {kind}"
            )
    if len(shape) != 2:
        raise Mixture(f"frames of {len(shape)} dimensions in a stack: they must have 2")
    return len(stack), shape[0], shape[1], kind.newbyteorder("=")


def same_layout(use: Stack | None, n: int, ny: int, nx: int) -> None:
    """Raise Mixture where masks are not of the stack's shape."""
    if use is None:
        return
    if len(use) != n or any(frame.shape != (ny, nx) for frame in use):
        raise Mixture(f"the masks of a stack do not have its shape, ({n}, {ny}, {nx})")


def per_frame(values: Array | Sequence[float] | None, n: int, name: str) -> list[float] | None:
    """A number a frame; raises Mixture, BadValue."""
    if values is None:
        return None
    numbers = [float(value) for value in values]
    if len(numbers) != n:
        raise Mixture(f"{len(numbers)} {name} for {n} frames")
    if not all(math.isfinite(number) and number > 0 for number in numbers):
        raise BadValue(f"{name} of a stack must be finite and more than 0: {numbers}")
    return numbers


def float_type(kind: np.dtype[Any]) -> np.dtype[Any]:
    """The type that holds the values, and halves of them, exactly."""
    small = kind.kind in "iub" and kind.itemsize <= 2
    return np.dtype(np.float32) if small or kind == np.float32 else np.dtype(np.float64)


def _block_height(n: int, nx: int) -> int:
    pixels = BLOCK_PIXELS if n <= MANY_FRAMES else BLOCK_PIXELS // 2
    return max(1, pixels // max(nx, 1))


def blocks(n: int, ny: int, nx: int) -> Iterator[slice]:
    """The ranges of rows that are worked on one after the other."""
    height = _block_height(n, nx)
    for first in range(0, ny, height):
        yield slice(first, min(first + height, ny))


def buffer_of(n: int, ny: int, nx: int, kind: np.dtype[Any]) -> Array:
    """Room for the rows of all frames, and a plane to spare."""
    return np.empty((n + 1, min(ny, _block_height(n, nx)) * nx), kind)


def load(stack: Stack, rows: slice, buffer: Array) -> Array:
    """The rows of all frames as planes of the buffer, the last of which stays spare."""
    size = (rows.stop - rows.start) * stack[0].shape[1]
    planes = buffer[:, :size]
    for plane, frame in zip(planes, stack, strict=False):
        np.copyto(plane.reshape(frame[rows].shape), frame[rows])
    return planes


def float_blocks(stack: Stack, n: int, ny: int, nx: int) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
    """Row ranges of a stack of numbers that single precision holds, and their values (n, rows, nx)."""
    if isinstance(stack, np.ndarray) and stack.dtype == np.float32 and stack.flags.c_contiguous:
        yield slice(0, ny), stack
        return
    height = min(ny, _block_height(n, nx))
    buffer = np.empty((n, height, nx), np.float32)
    for rows in blocks(n, ny, nx):
        size = rows.stop - rows.start
        values = buffer if size == height else np.empty((n, size, nx), np.float32)
        for plane, frame in zip(values, stack, strict=True):
            plane[...] = frame[rows]
        yield rows, values


def use_of(use: Stack | None, rows: slice) -> Bools | None:
    """What counts in these rows (n, rows, nx), in one piece; None where everything does."""
    if use is None:
        return None
    if isinstance(use, np.ndarray):
        return np.ascontiguousarray(use[:, rows], np.bool_)
    return np.stack([np.asarray(frame[rows], np.bool_) for frame in use])


def plane_of(whole: Array, rows: slice) -> npt.NDArray[np.float32]:
    """Rows of an expanded array in single precision; one row where all are the same."""
    part = whole[:1] if whole.strides[0] == 0 else whole[rows]
    return np.ascontiguousarray(part, np.float32)


def usable_of(stack: Stack, use: Stack | None, rows: slice) -> Bools | None:
    """(n, rows, nx): what counts; None where everything does, which is quick to see and quick to do."""
    finite = [_finite(frame[rows]) for frame in stack]
    wanted = [None if use is None or use[k][rows].all() else use[k][rows] for k in range(len(stack))]
    if all(one is None for one in finite) and all(one is None for one in wanted):
        return None
    result = np.ones((len(stack), *stack[0][rows].shape), np.bool_)
    for k, plane in enumerate(result):
        for part in (finite[k], wanted[k]):
            if part is not None:
                plane &= part
    return result


def _finite(part: Array) -> Bools | None:
    if part.dtype.kind != "f" or not part.size:
        return None
    # The extremes pass nan on, and are cheaper than a mask that is almost always full.
    if math.isfinite(part.min()) and math.isfinite(part.max()):
        return None
    finite: Bools = np.isfinite(part)
    return finite
