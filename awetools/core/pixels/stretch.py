"""From an image to a small picture of it: limits, grey levels, shrinking."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BadValue, nearest
from .stats import usable

STRETCHES = ("linear", "asinh", "sqrt", "log")
SAMPLE_PIXELS = 10_000
FIT_SIGMA = 2.5
FIT_ITERATIONS = 5
# A fit that keeps less than half of the sample describes nothing.
LEAST_KEPT = 0.5
ASINH_SOFTENING = 10.0
LOG_SOFTENING = 1000.0


def zscale(
    image: npt.NDArray[Any], contrast: float = 0.25, use: npt.NDArray[np.bool_] | None = None
) -> tuple[float, float]:
    """Limits (low, high) that show the sky and faint things well, in the unit of the image.

    ``image`` of any shape; ``use`` is True where a pixel counts; what is not finite never
    does. A straight line is fitted to the sorted values of every k-th pixel, clipped at
    2.5 sigma; the limits are where that line, steeper by 1 / ``contrast``, leaves the
    middle of the sample, inside its extremes; they are the extremes where the clip leaves
    less than half. Method: the zscale algorithm of IRAF's display task (Valdes), without
    its growing of what is clipped. Constant image: (value, value); no pixel: (0, 0).
    ``BadValue`` if contrast is not positive.
    """
    if not contrast > 0:
        raise BadValue(f"contrast of {contrast}: it must be more than 0")
    values = usable(image, use)
    if not values.size:
        return 0.0, 0.0
    stride = 1 if values.size <= SAMPLE_PIXELS else (values.size // SAMPLE_PIXELS) | 1
    ordered = np.sort(values[::stride]).astype(np.float64)
    low, high = float(ordered[0]), float(ordered[-1])
    slope = _slope(ordered)
    if slope is None:
        return low, high
    n = ordered.size
    middle = 0.5 * float(ordered[(n - 1) // 2] + ordered[n // 2])
    reach = slope / min(contrast, 1.0) * 0.5 * (n - 1)
    return max(low, middle - reach), min(high, middle + reach)


def to_bytes(
    image: npt.NDArray[Any], low: float, high: float, stretch: str = "asinh", softening: float | None = None
) -> npt.NDArray[np.uint8]:
    """Grey levels 0 to 255 of an image between two limits.

    ``image`` of any shape; ``low`` and below (and what is not a number) is 0, ``high``
    and above 255. Between them t = (value - low) / (high - low) becomes t (``linear``),
    sqrt(t), asinh(s t) / asinh(s) (Lupton and others 2004, PASP 116, 133) or
    log(1 + s t) / log(1 + s), with the ``softening`` s, by default 10 and 1000: t below
    1 / s is shown linearly. With limits that are equal all above is 255.
    ``BadValue`` for an unknown stretch, or limits the wrong way round.
    """
    if stretch not in STRETCHES:
        known = ", ".join(STRETCHES)
        raise BadValue(f"stretch {stretch!r}{nearest(stretch, list(STRETCHES))}", hint=f"stretches: {known}")
    if not high >= low:
        raise BadValue(f"limits from {low} to {high}: they must rise")
    values = np.asarray(image, np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        if high == low:
            return np.where(values > low, np.uint8(255), np.uint8(0))
        t = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    t = np.nan_to_num(t, nan=0.0)
    if stretch == "sqrt":
        t = np.sqrt(t)
    elif stretch == "asinh":
        s = softening or ASINH_SOFTENING
        t = np.arcsinh(np.float32(s) * t) / np.float32(math.asinh(s))
    elif stretch == "log":
        s = softening or LOG_SOFTENING
        t = np.log1p(np.float32(s) * t) / np.float32(math.log1p(s))
    grey: npt.NDArray[np.uint8] = np.clip(np.rint(255 * t), 0, 255).astype(np.uint8)
    return grey


def shrink(
    image: npt.NDArray[Any], factor: int, use: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.float32]:
    """Means of blocks of ``factor`` x ``factor`` pixels, of what is finite and where ``use`` is True.

    ``image`` (ny, nx); the result (ceil(ny / factor), ceil(nx / factor)), float32, same
    unit, nan where a block has nothing; blocks at the upper edges may be smaller.
    float64 sums. ``BadValue`` for a factor below 1.
    """
    if factor < 1:
        raise BadValue(f"shrinking by {factor}: it must be 1 at least")
    good = np.isfinite(image) if use is None else np.isfinite(image) & use
    ny, nx = image.shape
    shape = (-(-ny // factor), -(-nx // factor))
    sums, counts = np.zeros(shape), np.zeros(shape, np.int64)
    columns = np.arange(0, nx, factor)
    for row in range(shape[0]):
        rows = slice(row * factor, min((row + 1) * factor, ny))
        keep = good[rows]
        part = np.where(keep, image[rows], 0).sum(axis=0, dtype=np.float64)
        sums[row] = np.add.reduceat(part, columns)
        counts[row] = np.add.reduceat(keep.sum(axis=0), columns)
    means = np.divide(sums, counts, out=np.full(shape, np.nan), where=counts > 0)
    return means.astype(np.float32)


def _slope(ordered: npt.NDArray[np.float64]) -> float | None:
    """Slope a pixel of the clipped line through sorted values; None where too few are left."""
    n = ordered.size
    at = np.arange(n) - 0.5 * (n - 1)
    keep = np.ones(n, np.bool_)
    slope = None
    for _ in range(FIT_ITERATIONS):
        if keep.sum() < max(3, LEAST_KEPT * n):
            return None
        x, y = at[keep], ordered[keep]
        middle, level = x.mean(), y.mean()
        slope = float(((x - middle) * (y - level)).sum() / ((x - middle) ** 2).sum())
        away = ordered - level - slope * (at - middle)
        limit = FIT_SIGMA * math.sqrt(float(np.square(away[keep]).mean()))
        kept = keep & (np.abs(away) <= limit) if limit > 0 else keep
        if (kept == keep).all():
            break
        keep = kept
    return slope
