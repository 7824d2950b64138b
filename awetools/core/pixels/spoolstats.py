"""What is measured of planes on scratch disk, strip by strip."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .spool import Spool
from .stats import all_finite, imstat

Plane = Spool | npt.NDArray[Any]

# Values of a strip. Sums are taken strip by strip, so that they do not depend on anything else.
STRIP_PIXELS = 1 << 20
# So many pixels, of whole rows, tell medians and clipped values.
SAMPLE_PIXELS = 1 << 22


def spool_imstat(image: Plane, weight: Plane | None = None) -> dict[str, float]:
    """Image statistics of a spool or array (ny, nx): those of `stats.imstat`, by their names.

    ``weight``: above 0 where a pixel counts (None: everywhere). ``mean``, ``stdev``, ``min``,
    ``max`` and ``pixels`` are of all pixels. ``median`` and those of the clipped pixels are of every
    k-th row, where there are more than 4 million pixels: good to 0.001 of the standard deviation.
    """
    count, mean, square, least, most = 0, 0.0, 0.0, math.inf, -math.inf
    rows = _rows(image)
    for first in range(0, image.shape[0], rows):
        values = _used(image, weight, first, first + rows)
        if not values.size:
            continue
        least, most = min(least, float(values.min())), max(most, float(values.max()))
        own = float(values.mean(dtype=np.float64))
        away = values - own
        # Chan, Golub and LeVeque 1983, The American Statistician 37, 242.
        total = count + values.size
        square += float((away * away).sum()) + (own - mean) ** 2 * count * values.size / total
        mean += (own - mean) * values.size / total
        count = total
    sample = imstat(_sample(image, weight))
    if not count:
        return sample
    stdev = math.sqrt(square / (count - 1)) if count > 1 else 0.0
    return sample | {"mean": mean, "stdev": stdev, "min": least, "max": most, "pixels": count}


def count_above_zero(plane: Plane) -> int:
    """How many values are above 0."""
    rows = _rows(plane)
    return sum(int(np.count_nonzero(plane[at : at + rows] > 0)) for at in range(0, plane.shape[0], rows))


def spool_finite(plane: Plane) -> bool:
    """Whether no value is infinite or not a number."""
    rows = _rows(plane)
    return all(all_finite(plane[at : at + rows]) for at in range(0, plane.shape[0], rows))


def _rows(plane: Plane) -> int:
    return max(1, STRIP_PIXELS // max(1, plane.size // max(1, plane.shape[0])))


def _used(image: Plane, weight: Plane | None, first: int, last: int) -> npt.NDArray[np.float64]:
    values = image[first:last]
    keep = np.isfinite(values)
    if weight is not None:
        keep &= weight[first:last] > 0
    return values[keep].astype(np.float64)


def _sample(image: Plane, weight: Plane | None) -> npt.NDArray[Any]:
    every = max(1, -(-image.size // SAMPLE_PIXELS))
    parts = [np.empty(0, image.dtype)]
    step = _rows(image) if every == 1 else every
    for first in range(0, image.shape[0], step):
        last = first + step if every == 1 else first + 1
        values = image[first:last]
        parts.append(values.reshape(-1) if weight is None else values[weight[first:last] > 0])
    return np.concatenate(parts)
