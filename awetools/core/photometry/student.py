"""Student's distribution, without the 0.2 s that it takes to import what has all of them."""

from __future__ import annotations

import math
from functools import lru_cache

# Above so many degrees of freedom an expansion is as good as the sum, and cheaper.
MANY = 400
# A normal distribution has nothing beyond so many sigma that a double precision number could tell from 1.
FARTHEST_SIGMA = 8.0
STEPS, CLOSE = 200, 1e-14


@lru_cache(maxsize=1024)
def reach(freedom: int, sigma: float) -> float:
    """How far Student's distribution of so many degrees of freedom (1 at least) reaches where a normal one

    reaches `sigma` (above 0): as much is beyond; inf where next to nothing is, above 8. Abramowitz and Stegun
    1964, 26.7.3 to 26.7.5: finite sums for whole degrees of freedom, an expansion where these are many.
    """
    if sigma > FARTHEST_SIGMA:
        return math.inf
    if freedom > MANY:
        return _expanded(freedom, sigma)
    wanted = math.erf(sigma / math.sqrt(2))
    scale = math.exp(math.lgamma(0.5 * (freedom + 1)) - math.lgamma(0.5 * freedom))
    scale *= 2 / math.sqrt(freedom * math.pi)
    # From below: what is within is a concave function, so no step goes too far.
    t = sigma
    for _ in range(STEPS):
        step = (wanted - within(freedom, t)) / (scale * (1 + t * t / freedom) ** (-0.5 * (freedom + 1)))
        t += step
        if abs(step) <= CLOSE * t:
            break
    return t


def within(freedom: int, t: float) -> float:
    """The part of Student's distribution of so many degrees of freedom that is between -t and t."""
    angle = math.atan2(t, math.sqrt(freedom))
    square, odd = math.cos(angle) ** 2, freedom % 2
    term = total = 0.0 if freedom == 1 else math.cos(angle) if odd else 1.0
    for k in range(2 + odd, freedom, 2):
        term *= square * (k - 1) / k
        total += term
    if odd:
        return 2 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total


def _expanded(freedom: int, x: float) -> float:
    terms = (
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return x + sum(term / float(freedom) ** power for power, term in enumerate(terms, 1))
