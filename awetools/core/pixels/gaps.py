"""What a picture shows where an image knows nothing: nothing; narrow gaps are closed, as a person would paint."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .mask import Bit

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

# Gaps that are not wider are closed; a picture of some rows needs so many more each way.
WIDEST_PX, HALO_PX = 6, 10


def unknown(
    values: npt.NDArray[Any], good: Flags, mask: npt.NDArray[Any] | None, as_made: bool = False
) -> Flags:
    """Where an image (ny, nx) has nothing to show: no weight, and not saturated (which is bright, not lost).

    Without a mask, and where an image is shown as it was made, with its defects, that is what has no
    weight and no value, or is outside.
    """
    if mask is None:
        return np.asarray(~good & (values == 0))
    if as_made:
        return np.asarray(~good & ((values == 0) | (mask & Bit.OUTSIDE != 0)))
    return np.asarray(~good & (mask & Bit.SATURATED == 0))


def close_gaps(values: Floats, fillable: Flags | None = None) -> None:
    """Give pixels of an image (ny, nx) that are not a number means of those around, where gaps are narrow.

    In place. Those in which a square wider than WIDEST_PX fits stay, and what is not ``fillable``, and
    what a gap shares with the edge.
    """
    gaps = ~np.isfinite(values)
    if not gaps.any():
        return
    narrow = gaps & ~_dilated(_eroded(gaps))
    if fillable is not None:
        narrow &= fillable
    y, x = np.nonzero(narrow)
    if not len(y):
        return
    padded = np.pad(values, 1, constant_values=np.nan)
    padded[~np.isfinite(padded)] = np.nan
    for _ in range(WIDEST_PX):
        around = np.stack(
            [padded[y + dy, x + dx] for dy in range(3) for dx in range(3) if dy != 1 or dx != 1]
        )
        known = np.isfinite(around)
        count = known.sum(axis=0)
        some = count > 0
        found = np.where(known, around, 0).sum(axis=0)[some] / count[some]
        padded[y[some] + 1, x[some] + 1] = found
        y, x = y[~some], x[~some]
        if not len(y):
            break
    values[:] = padded[1:-1, 1:-1]


def _eroded(gaps: Flags) -> Flags:
    """Where a square that is wider than a narrow gap begins. Beyond the edge all is gap."""
    size = WIDEST_PX + 1
    made = np.pad(gaps, size - 1, constant_values=True)
    made = np.logical_and.reduce([made[at : made.shape[0] - size + 1 + at] for at in range(size)])
    width = made.shape[1] - size + 1
    return np.asarray(np.logical_and.reduce([made[:, at : at + width] for at in range(size)]))


def _dilated(starts: Flags) -> Flags:
    """The pixels of the squares that begin there, within the image."""
    size = WIDEST_PX + 1
    height, width = (length - size + 1 for length in starts.shape)
    made = np.logical_or.reduce([starts[at : at + height] for at in range(size)])
    return np.asarray(np.logical_or.reduce([made[:, at : at + width] for at in range(size)]))
