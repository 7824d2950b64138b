"""Sorting networks for whole planes of values: only the steps that the ranks asked for depend on."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from .stackblocks import Array, float_type

BOTH, LOW_ONLY, HIGH_ONLY = 0, 1, 2


def middle_ranks(n: int) -> tuple[int, ...]:
    """The one rank, or the two, of which the median of n values is made."""
    return tuple(sorted({(n - 1) // 2, n // 2}))


def balanced_ranks(n: int) -> tuple[int, ...]:
    """The two ranks among which the middle lies when what does not count is at the ends."""
    return tuple(sorted({max(n // 2 - 1, 0), n // 2}))


@lru_cache(maxsize=64)
def network_steps(n: int, ranks: tuple[int, ...]) -> npt.NDArray[np.int16]:
    """The network as the kernel takes it, (steps, 3)."""
    return np.array(_network(n, ranks), np.int16).reshape(-1, 3)


@lru_cache(maxsize=64)
def _network(n: int, ranks: tuple[int, ...]) -> tuple[tuple[int, int, int], ...]:
    """Compare-exchange steps (low, high, which result is needed) that put ``ranks`` in their place."""
    size = 1 << max(0, (n - 1).bit_length())
    whole = _pairwise_network(size)
    # The power of two above n has room for values of minus and plus infinity that never move.
    # One below and the rest above, or all above: either may leave fewer steps.
    choices = [_prune(_window(whole, first, n), ranks) for first in range(min(2, size - n + 1))]
    return min(choices, key=_operations)


def _window(pairs: list[tuple[int, int]], first: int, n: int) -> list[tuple[int, int]]:
    return [(low - first, high - first) for low, high in pairs if low >= first and high < first + n]


def _prune(pairs: list[tuple[int, int]], ranks: tuple[int, ...]) -> tuple[tuple[int, int, int], ...]:
    """The steps, and the halves of steps, that these ranks depend on."""
    needed, steps = set(ranks), []
    for low, high in reversed(pairs):
        if low in needed or high in needed:
            which = BOTH if low in needed and high in needed else LOW_ONLY if low in needed else HIGH_ONLY
            steps.append((low, high, which))
            needed |= {low, high}
    return tuple(reversed(steps))


def _operations(steps: tuple[tuple[int, int, int], ...]) -> int:
    return sum(2 if which == BOTH else 1 for _, _, which in steps)


def _pairwise_network(size: int) -> list[tuple[int, int]]:
    """Pairs that sort a power of two of values; part by part, so that a part stays in the cache."""
    pairs: list[tuple[int, int]] = []

    def order(lines: range) -> None:
        n = len(lines)
        if n < 2:
            return
        pairs.extend((lines[i], lines[i + 1]) for i in range(0, n, 2))
        order(lines[0::2])
        order(lines[1::2])
        reach = n // 2
        while reach > 1:
            reach //= 2
            distance = 2 * reach - 1
            pairs.extend((lines[i], lines[i + distance]) for i in range(1, n - distance, 2))

    order(range(size))
    return pairs


def sorted_planes(planes: Array, ranks: tuple[int, ...]) -> list[Array]:
    """The planes of these ranks; ``planes`` (n + 1, m) are used up, the last as work space."""
    *order, spare = planes
    for low, high, which in _network(len(order), ranks):
        a, b = order[low], order[high]
        if which == LOW_ONLY:
            np.minimum(a, b, out=a)
        elif which == HIGH_ONLY:
            np.maximum(a, b, out=b)
        else:
            np.minimum(a, b, out=spare)
            np.maximum(a, b, out=b)
            order[low], spare = spare, a
    return [order[rank] for rank in ranks]


def middle(planes: list[Array]) -> Array:
    """The one plane, or the mean of two, as floats."""
    kind = float_type(planes[0].dtype)
    if len(planes) == 1:
        return planes[0].astype(kind)
    with np.errstate(invalid="ignore"):
        total = np.add(planes[0], planes[1], dtype=kind)
    total *= kind.type(0.5)
    return total
