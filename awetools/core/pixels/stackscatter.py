"""Frames of unknown noise become one: a mean clipped by the scatter that the frames have themselves."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ..errors import BadValue, TooFew
from .sortnetwork import middle, sorted_planes
from .stack import Combined, mean_within
from .stackblocks import Array, Bools, Stack, blocks, buffer_of, layout, load, same_layout, usable_of
from .stats import truncation

SCATTER_AT_LEAST = 15


def sigma_clipped_by_scatter(stack: Stack, clip_sigma: float, use: Stack | None = None) -> Combined:
    """Mean over 15 or more frames of the values within ``clip_sigma`` of their own scatter.

    ``stack`` and ``use`` as for :func:`clipped_mean`, any unit. The scatter of a pixel
    is first the distance of two order statistics (at 16% and 84%, over its expectation
    for a Gaussian sample of that size: Blom 1958); then the standard deviation of what
    lies within ``clip_sigma`` of that, corrected for the cut, which does not suffer from
    integers; then values further than ``clip_sigma`` of it from the median are
    rejected. Integers are never clipped closer than 1. For a stack whose noise is not
    known; where it is known :func:`clipped_mean` is better.

    A pixel with fewer than 15 values to use is not clipped. ``mean``, ``count`` and
    ``rejected``, pixels without a value and bits: as for :func:`clipped_mean`.
    ``TooFew`` below 15 frames: among 10 values none can lie 3 sigma from their mean.
    """
    n, ny, nx, kind = layout(stack)
    if n < SCATTER_AT_LEAST:
        raise TooFew(f"{n} frames: clipping by their own scatter needs {SCATTER_AT_LEAST}")
    if not clip_sigma > 0:
        raise BadValue(f"clipping at {clip_sigma} sigma: it must be more than 0")
    same_layout(use, n, ny, nx)
    least = 1.0 if kind.kind in "iu" else 0.0
    mean, count = np.empty((ny, nx), np.float32), np.empty((ny, nx), np.int16)
    rejected = 0
    buffer = buffer_of(n, ny, nx, kind)
    for rows in blocks(n, ny, nx):
        usable = usable_of(stack, use, rows)
        centre, spread = _centre_and_spread(stack, usable, rows, buffer)
        first = np.maximum(spread * spread.dtype.type(clip_sigma), least)
        limit = np.maximum(_scatter_within(stack, rows, centre, first, usable, clip_sigma), least)
        if usable is not None:
            limit[usable.sum(axis=0, dtype=np.int16) < SCATTER_AT_LEAST] = np.inf
        rejected += mean_within(stack, rows, centre, [limit] * n, usable, None, mean[rows], count[rows])
    return Combined(mean, count, rejected)


def _centre_and_spread(stack: Stack, usable: Bools | None, rows: slice, buffer: Array) -> tuple[Array, Array]:
    """Median, and sigma from the order statistics near 16% and 84%."""
    n = len(stack)
    shape = stack[0][rows].shape
    planes = load(stack, rows, buffer)
    if usable is None:
        low, width = _tails(n)
        high = n - 1 - low
        ranks = tuple(sorted({low, (n - 1) // 2, n // 2, high}))
        by_rank = dict(zip(ranks, sorted_planes(planes, ranks), strict=True))
        centre = middle([by_rank[rank] for rank in sorted({(n - 1) // 2, n // 2})])
        spread = np.subtract(by_rank[high], by_rank[low], dtype=centre.dtype)
        spread /= centre.dtype.type(width)
        return centre.reshape(shape), spread.reshape(shape)
    flat = usable.reshape(n, -1)
    counts = flat.sum(axis=0, dtype=np.int64)
    ordered = _ordered_with_gaps(planes, flat)
    centre = middle([_pick(ordered, (counts - 1) // 2), _pick(ordered, counts // 2)])
    table = [_tails(c) for c in range(n + 1)]
    edges = np.array([edge for edge, _ in table])[counts]
    widths = np.array([width for _, width in table], centre.dtype)[counts]
    upper, lower = _pick(ordered, counts - 1 - edges), _pick(ordered, edges)
    with np.errstate(invalid="ignore"):
        spread = np.subtract(upper, lower, dtype=centre.dtype) / widths
    centre[counts == 0] = 0
    spread[counts == 0] = 0
    return centre.reshape(shape), spread.reshape(shape)


@lru_cache(maxsize=512)
def _tails(n: int) -> tuple[int, float]:
    """How many values lie beyond the 16% rank, and the expected distance of the two ranks in sigma."""
    from statistics import NormalDist

    edge = max(0, min(round(0.16 * n - 0.5), (n - 1) // 2))
    if n < 2 or edge == n - 1 - edge:
        return 0, 1.0
    return edge, 2 * NormalDist().inv_cdf((n - edge - 0.375) / (n + 0.25))


def _scatter_within(
    stack: Stack, rows: slice, centre: Array, limit: Array, usable: Bools | None, clip_sigma: float
) -> Array:
    """``clip_sigma`` times the standard deviation of what lies within ``limit``, corrected for the cut."""
    kind = centre.dtype.type
    away, square = np.empty_like(centre), np.empty_like(centre)
    total, squares, kept = np.zeros_like(centre), np.zeros_like(centre), np.zeros_like(centre)
    keep = np.empty(centre.shape, np.bool_)
    with np.errstate(invalid="ignore", over="ignore"):
        for k in range(len(stack)):
            np.subtract(stack[k][rows], centre, out=away)
            np.less_equal(np.abs(away), limit, out=keep)
            if usable is not None:
                keep &= usable[k]
            np.add(total, away, out=total, where=keep)
            np.square(away, out=square)
            np.add(squares, square, out=squares, where=keep)
            np.add(kept, kind(1), out=kept, where=keep)
        squares -= total * total / np.maximum(kept, kind(1))
        squares /= np.maximum(kept - kind(1), kind(1))
        result: Array = np.sqrt(np.maximum(squares, kind(0)))
    result *= kind(clip_sigma / max(truncation(-clip_sigma, clip_sigma), 0.5))
    return result


def _ordered_with_gaps(planes: Array, usable: Bools) -> Array:
    """All planes in order, (n, m), with what does not count after the rest; uses up ``planes`` (n + 1, m)."""
    kind = planes.dtype
    last = np.inf if kind.kind == "f" else np.iinfo(kind).max
    np.copyto(planes[:-1], kind.type(last), where=~usable)
    return np.stack(sorted_planes(planes, tuple(range(len(usable)))))


def _pick(ordered: Array, rank: npt.NDArray[np.int64]) -> Array:
    """One plane out of sorted ones, with a rank for each pixel; a rank below 0 counts as 0."""
    picked: Array = ordered[np.maximum(rank, 0), np.arange(ordered.shape[1])]
    return picked
