"""A plane through an image: the level and the gradient that one frame's light has and another's has not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BadPixels
from .stats import clipped

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]

ROUNDS = 4


@dataclass(frozen=True)
class Plane:
    """level (1 + slope_y Y + slope_x X), Y and X from -1 to 1 over the height and the width of an image."""

    level: float
    slope_y: float
    slope_x: float

    def rows(self, shape: tuple[int, int], y0: int = 0, y1: int | None = None) -> npt.NDArray[np.float32]:
        """Rows y0 to y1 of the plane over an image of a shape (ny, nx), float32."""
        y, x = span(shape[0])[y0:y1, None], span(shape[1])[None, :]
        plane: npt.NDArray[np.float32] = (self.level * (1 + self.slope_y * y + self.slope_x * x)).astype(
            np.float32
        )
        return plane


def span(length: int) -> npt.NDArray[np.float64]:
    """Places of the pixels of an axis, the ends of which are -1 and 1; float64."""
    return (2 * np.arange(length) + 1) / length - 1.0


def fit_plane(
    image: Array, use: Bools, clip_sigma: float = 3.0, weight: Array | None = None, tilted: bool = True
) -> Plane:
    """Plane through the pixels that count, those far from it left out by turns.

    ``image`` and ``use`` (ny, nx), any unit; ``weight`` (ny, nx) where the pixels are not
    equally good; without ``tilted`` only the level is fitted. Least squares on what
    is within ``clip_sigma`` of the plane, four rounds, from a start by the median: right
    where outliers are fewer than the rest. Slopes that the pixels do not determine are 0.
    ``BadPixels`` if nothing counts or the level is not above 0.
    """
    good = use & np.isfinite(image)
    if not good.any():
        raise BadPixels("a plane through an image without a pixel that is finite and not masked")
    ny, nx = image.shape
    rows, columns = np.nonzero(good)
    values = image[good].astype(np.float64)
    terms = np.stack([np.ones(values.size), span(ny)[rows], span(nx)[columns]])[: 3 if tilted else 1]
    weights = np.ones(values.size) if weight is None else weight[good].astype(np.float64)
    start = float(np.median(values))
    solution = np.array([start, *[0.0] * (len(terms) - 1)])
    for _ in range(ROUNDS):
        rest = values - solution @ terms
        inner = clipped(rest, clip_sigma)
        keep = (
            np.abs(rest - inner.median) <= clip_sigma * inner.stdev if inner.stdev else rest == inner.median
        )
        solution = _least_squares(terms[:, keep], values[keep], weights[keep])
    if not solution[0] > 0:
        raise BadPixels(f"the light of a frame is not above 0: its level is {solution[0]:g}")
    slopes = [*(solution[1:] / solution[0]), 0.0, 0.0][:2]
    return Plane(float(solution[0]), float(slopes[0]), float(slopes[1]))


def _least_squares(terms: Array, values: Array, weights: Array) -> npt.NDArray[np.float64]:
    """Coefficients of the terms, of which the first is 1; a slope that the values do not determine is 0.

    About the mean place, and summed in a fixed order, so that threads do not change the bits.
    """
    total = float(weights.sum())
    centre = [float((one * weights).sum()) / total for one in terms[1:]]
    mean = float((values * weights).sum()) / total
    away = terms[1:] - np.array(centre)[:, None]
    matrix = np.array([[float((one * other * weights).sum()) for other in away] for one in away])
    right = np.array([float((one * (values - mean) * weights).sum()) for one in away])
    if not len(away):
        return np.array([mean])
    slopes = np.linalg.lstsq(matrix, right, rcond=1e-10)[0] if matrix.any() else np.zeros(len(away))
    return np.array([mean - float(slopes @ np.array(centre)), *slopes])
