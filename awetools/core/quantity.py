"""One number of a product beside the same number of others: before, now, and the series before it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# A scatter of fewer values says little.
LEAST_SERIES = 5
MAD_PER_SIGMA = 1.482602218505602
# What makes the median absolute deviation of so few Gaussian values unbiased (Croux and Rousseeuw 1992).
SMALL_SAMPLE = {2: 1.196, 3: 1.495, 4: 1.363, 5: 1.206, 6: 1.200, 7: 1.140, 8: 1.129, 9: 1.107}


@dataclass(frozen=True)
class Quantity:
    """One number of a product, that of its predecessor, and the same number of the series before it.

    ``difference``: now less before; of two images, what was measured of the
    difference itself. ``scatter``: standard deviation of the series, None where it
    has fewer than 5 values. All in the unit that the name ends in.
    """

    name: str
    before: float | None = None
    now: float | None = None
    difference: float | None = None
    median: float | None = None
    scatter: float | None = None
    values: int = 0

    @property
    def deviation_sigma(self) -> float | None:
        """How far it is from the running median, in units of the scatter of the series; None if unknown."""
        if self.now is None or self.median is None or not self.scatter:
            return None
        return (self.now - self.median) / self.scatter


def quantity(
    name: str, before: float | None, now: float | None, series: Sequence[float | None] = ()
) -> Quantity:
    """A number, that of the predecessor and those of the series; what is None or not finite is no part of it."""
    values = [float(one) for one in series if one is not None and math.isfinite(one)]
    difference = None if before is None or now is None else now - before
    median, scatter = running(values)
    return Quantity(name, before, now, difference, median, scatter, len(values))


def running(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Median and standard deviation of a short series; None for no value, the deviation for fewer than 5.

    The deviation is 1.4826 times the median absolute one, made unbiased for few
    values (Croux and Rousseeuw 1992, Computational Statistics 1, 411).
    """
    if not values:
        return None, None
    middle = float(np.median(values))
    if len(values) < LEAST_SERIES:
        return middle, None
    n = len(values)
    factor = SMALL_SAMPLE.get(n, n / (n - 0.8))
    return middle, factor * MAD_PER_SIGMA * float(np.median(np.abs(np.array(values) - middle)))
