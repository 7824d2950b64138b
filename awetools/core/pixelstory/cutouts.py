"""Small pictures of the pixels around one pixel, enlarged, with the pixel in a frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..pixels.stretch import to_bytes, zscale
from .reading import Window

Picture = npt.NDArray[np.uint8]

SIZE_PX = 31
ZOOM = 8
# Beside the image; the frame of the pixel; what is not a number.
BESIDE, FRAME, BLANK = (24, 32, 72), (255, 48, 48), (96, 0, 96)


def cutout(window: Window, size: int = SIZE_PX, zoom: int = ZOOM) -> Picture:
    """The pixels around one, (size zoom, size zoom, 3), the first row at the top of the sky's upper end.

    Limits are those of zscale; a mask shows what has any bit in white. What lies beside the image
    is blue, what is not a number is violet, and the pixel stands in a red frame.
    """
    values = window.planes[window.first]
    picture = np.full((size, size, 3), BESIDE, np.uint8)
    half = size // 2
    left, bottom = window.at[0] - half, window.at[1] - half
    ys = slice(max(bottom, 0), max(min(bottom + size, values.shape[0]), 0))
    xs = slice(max(left, 0), max(min(left + size, values.shape[1]), 0))
    part = values[ys, xs]
    grey = np.repeat(_grey(part, window.first == "MASK")[..., None], 3, axis=2)
    if part.dtype.kind == "f":
        grey[~np.isfinite(part)] = BLANK
    picture[ys.start - bottom : ys.stop - bottom, xs.start - left : xs.stop - left] = grey
    large = picture.repeat(zoom, axis=0).repeat(zoom, axis=1)
    _frame(large, half, zoom)
    return np.ascontiguousarray(large[::-1])


def _grey(part: npt.NDArray[Any], is_mask: bool) -> Picture:
    if is_mask:
        return np.where(part != 0, np.uint8(255), np.uint8(0))
    low, high = zscale(part)
    # One value everywhere has no range of its own: a middle grey.
    if low == high:
        return np.full(part.shape, 128, np.uint8)
    return to_bytes(part, low, high, "linear")


def _frame(large: Picture, half: int, zoom: int) -> None:
    """A line around the pixel in the middle, just outside of it, two wide."""
    first, last = half * zoom - 2, (half + 1) * zoom + 2
    inside = large[half * zoom : (half + 1) * zoom, half * zoom : (half + 1) * zoom].copy()
    large[first:last, first:last] = FRAME
    large[half * zoom : (half + 1) * zoom, half * zoom : (half + 1) * zoom] = inside
