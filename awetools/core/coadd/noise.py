"""The noise of single pixels of a coadd beside what its weight says: neighbours are correlated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .layers import Placed, Regridding, variance_of

# Boxes in which the noise is looked at, and pixels each way of one.
BOXES, BOX_PX = 8, 48


def noise_ratio(placed: Sequence[Placed], how: Regridding) -> float:
    """The noise of a pixel by itself over that of its weight, the median over some boxes; nan where none is good.

    Of a weighted mean of layers with weights w and variances v of their pixels, the root of sum(w^2 v) / sum(w):
    what is clipped changes both alike. Boxes are in the middles of frames, so that it takes some rows of each.
    """
    # What is sampled can do without the small defects.
    how = replace(how, fill=False)
    step = max(1, -(-len(placed) // BOXES))
    found = [_in_box(one, placed, how) for one in placed[::step]]
    ratios = np.concatenate(found) if found else np.empty(0)
    return math.sqrt(float(np.median(ratios))) if ratios.size else math.nan


def _in_box(one: Placed, placed: Sequence[Placed], how: Regridding) -> np.ndarray:
    """Variance times weight of the good pixels around the middle of a frame."""
    rows, columns = (
        (max(begin, (begin + end - BOX_PX) // 2), min(end, (begin + end + BOX_PX) // 2))
        for begin, end in one.window
    )
    shape = rows[1] - rows[0], columns[1] - columns[0]
    weights, variances = np.zeros(shape), np.zeros(shape)
    for other in placed:
        down, across = (
            (max(own[0], span[0]), min(own[1], span[1]))
            for own, span in zip(other.window, (rows, columns), strict=True)
        )
        if down[0] >= down[1] or across[0] >= across[1]:
            continue
        made = variance_of(other, down, across, how)
        if made is None or made.variance is None:
            continue
        at = np.s_[down[0] - rows[0] : down[1] - rows[0], across[0] - columns[0] : across[1] - columns[0]]
        weight = made.weight.astype(np.float64)
        weights[at] += weight
        variances[at] += weight * weight * made.variance
    good = weights > 0
    found: np.ndarray = variances[good] / weights[good]
    return found
