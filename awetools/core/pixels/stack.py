"""Many frames become one: exact medians and clipped means, by whole rows instead of pixel by pixel."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BadValue, Mixture, TooFew
from .kernels import kernel
from .stats import DIGITISATION_VARIANCE_ADU2, truncation

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Stack = Array | Sequence[Array]

# Pixels of one frame that are worked on at once, half as many where there are many frames. Fewer and the
# calls cost more than the work, more and the frames leave the cache (measured for 10 to 100 frames).
BLOCK_PIXELS = 1 << 16
MANY_FRAMES = 32
BOTH, LOW_ONLY, HIGH_ONLY = 0, 1, 2
SCATTER_AT_LEAST = 15


@dataclass(frozen=True, eq=False)
class Combined:
    """One frame made of many: values, how many frames each pixel holds, values rejected in all."""

    mean: npt.NDArray[np.float32]
    count: npt.NDArray[np.int16]
    rejected: int


def median(stack: Stack, out: Array | None = None) -> Array:
    """Exact median over frames; the mean of the middle two where their number is even.

    ``stack`` is (n, ny, nx), or a sequence of n arrays (ny, nx), of one type. The result
    (ny, nx), in the unit of the stack, is float32 for 8- and 16-bit integers and
    float32, else float64; it is written to ``out`` where given. A pixel that is nan in
    any frame is nan. The result does not depend on how the rows are cut into strips.

    Method: a pairwise sorting network (Parberry 1992, Parallel Processing Letters 2, 205)
    of elementwise ``minimum`` and ``maximum``, without the steps that the middle does not
    depend on: 10 to 15% fewer of them than Batcher's network leaves. ``TooFew`` without a frame,
    ``Mixture`` if shapes or types differ.
    """
    n, ny, nx, kind = _layout(stack)
    result: Array = np.empty((ny, nx), _float_type(kind)) if out is None else out
    compiled = kernel("stack") if _float_type(kind) == np.float32 else None
    if compiled is not None:
        steps = _steps(n, _middle_ranks(n))
        direct = result.dtype == np.float32 and result.flags.c_contiguous
        for rows, values in _float_blocks(stack, n, ny, nx):
            found = result[rows].reshape(-1) if direct else np.empty(values[0].size, np.float32)
            compiled.median(values.reshape(n, -1), steps, found)
            if not direct:
                result[rows] = found.reshape(-1, nx)
        return result
    buffer = _buffer(n, ny, nx, kind)
    for rows in _blocks(n, ny, nx):
        planes = _load(stack, rows, buffer)
        result[rows] = _middle(_sorted_planes(planes, _middle_ranks(n))).reshape(-1, nx)
    # No zero has a sign: which of two equal ones a network leaves in the middle means nothing.
    result += result.dtype.type(0)
    return result


def median_equivalent(count: Array) -> npt.NDArray[np.float32]:
    """How many values' mean has the variance of the median of ``count`` Gaussian values; any shape, 0 for 0.

    2/pi of them for many (0.64), all for one or two; within 1% of the moments of order
    statistics between (Teichroew 1956, Annals of Mathematical Statistics 27, 410).
    """
    n = np.asarray(count, np.float32)
    many = (n + np.where(n % 2 == 0, np.float32(1.3), np.float32(0.47))) * np.float32(2 / math.pi)
    result: npt.NDArray[np.float32] = np.where(n > 2, many, n)
    return result


def clipped_mean(
    stack: Stack,
    noise_adu: float | Array,
    clip_sigma: float,
    use: Stack | None = None,
    gain: float | Array | None = None,
    weights: Array | Sequence[float] | None = None,
    scales: Array | Sequence[float] | None = None,
    out: npt.NDArray[np.float32] | None = None,
) -> Combined:
    """Mean over frames of the values that the noise model allows around the median.

    ``stack`` is (n, ny, nx), or a sequence of n arrays (ny, nx), of one type; ``use``
    has the same shape and is False where a value must not count. A value is rejected if
    it is further than ``clip_sigma`` times the noise from the median of the pixel, with

        noise^2 = (noise_adu^2 + 1/12 + max(median, 0) / gain) (1 + pi / (2n))      [ADU^2]

    ``noise_adu`` (read noise, digitisation removed) and ``gain`` (e/ADU; None: no signal
    term) are numbers or arrays that broadcast to (ny, nx), since amplifiers differ. With
    ``scales`` (n,), frame k was divided by ``scales[k]`` (a flat by its level), and its
    bracket is (noise_adu^2 + 1/12) / scale^2 + max(median, 0) / (gain scale).
    ``weights`` (n,) make the mean of what is kept a weighted one; the median is not.

    The last factor, n frames in the stack, is the noise of the median itself. Measured
    for Gaussian noise at 3 sigma, without and with it: 0.46% and 0.13% of the values of 5
    frames are rejected (0.35% and 0.18% of 10; the tail beyond 3 sigma is 0.27%), and
    the mean scatters by 2.6% and 0.8% (2.0% and 1.2%) more than the plain mean. The
    rejection does not bias the mean of symmetric noise.

    Result: ``mean`` float32, ``count`` int16 (frames kept), ``rejected`` (values that
    the clip took; excluded ones are not counted). What is not finite is excluded. A
    pixel with no value to use: count 0, mean 0. A pixel whose values all disagree (two
    that differ by more than twice the limit): count 0, mean = their median. One frame:
    itself. Sums are of deviations from the median, frame by frame in the order given,
    so the bits do not depend on strips or threads. ``mean`` is written to ``out`` where given.

    ``TooFew`` without a frame, ``Mixture`` if shapes, types or lengths differ,
    ``BadValue`` for a clip that is not positive.
    """
    n, ny, nx, kind = _layout(stack)
    if not clip_sigma > 0:
        raise BadValue(f"clipping at {clip_sigma} sigma: it must be more than 0")
    _same_layout(use, n, ny, nx)
    weight = _per_frame(weights, n, "weights")
    scale = _per_frame(scales, n, "scales")
    work = _float_type(kind)
    # The squares in float64 and rounded once, so that a number and an array give the same bits.
    base = _expand(np.square(np.asarray(noise_adu, np.float64)) + DIGITISATION_VARIANCE_ADU2, ny, nx)
    inverse_gain = None if gain is None else _expand(1.0 / np.asarray(gain, np.float64), ny, nx)
    mean = np.empty((ny, nx), np.float32) if out is None else out
    count = np.empty((ny, nx), np.int16)
    rejected = 0
    compiled = kernel("stack") if work == np.float32 else None
    if compiled is not None:
        for rows, values in _float_blocks(stack, n, ny, nx):
            arrays = (
                values,
                _use_of(use, rows),
                _plane_of(base, rows),
                None if inverse_gain is None else _plane_of(inverse_gain, rows),
                np.array([1.0] * n if scale is None else [1.0 / one**2 for one in scale], np.float32),
                np.array([1.0] * n if scale is None else [1.0 / one for one in scale], np.float32),
                None if weight is None else np.array(weight, np.float32),
                _steps(n, _middle_ranks(n)),
                _steps(n, _balanced_ranks(n)),
                mean[rows],
                count[rows],
            )
            rejected += compiled.clip(arrays, scale is not None, _reach(n, clip_sigma))
        return Combined(mean, count, rejected)
    buffer = _buffer(n, ny, nx, kind)
    for rows in _blocks(n, ny, nx):
        usable = _usable(stack, use, rows)
        centre = _centre(stack, usable, rows, buffer)
        fixed = base[rows].astype(work)
        signal = None
        if inverse_gain is not None:
            signal = np.maximum(centre, 0) * inverse_gain[rows].astype(work)
        limits = _limits(n, fixed, signal, clip_sigma, scale)
        rejected += _mean_within(stack, rows, centre, limits, usable, weight, mean[rows], count[rows])
    return Combined(mean, count, rejected)


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
    n, ny, nx, kind = _layout(stack)
    if n < SCATTER_AT_LEAST:
        raise TooFew(f"{n} frames: clipping by their own scatter needs {SCATTER_AT_LEAST}")
    if not clip_sigma > 0:
        raise BadValue(f"clipping at {clip_sigma} sigma: it must be more than 0")
    _same_layout(use, n, ny, nx)
    least = 1.0 if kind.kind in "iu" else 0.0
    mean, count = np.empty((ny, nx), np.float32), np.empty((ny, nx), np.int16)
    rejected = 0
    buffer = _buffer(n, ny, nx, kind)
    for rows in _blocks(n, ny, nx):
        usable = _usable(stack, use, rows)
        centre, spread = _centre_and_spread(stack, usable, rows, buffer)
        first = np.maximum(spread * spread.dtype.type(clip_sigma), least)
        limit = np.maximum(_scatter_within(stack, rows, centre, first, usable, clip_sigma), least)
        if usable is not None:
            limit[usable.sum(axis=0, dtype=np.int16) < SCATTER_AT_LEAST] = np.inf
        rejected += _mean_within(stack, rows, centre, [limit] * n, usable, None, mean[rows], count[rows])
    return Combined(mean, count, rejected)


# Shapes and blocks


def _layout(stack: Stack) -> tuple[int, int, int, np.dtype[Any]]:
    """Number of frames, rows, columns, and the type in native byte order."""
    if not len(stack):
        raise TooFew("a stack without a frame")
    shape, kind = stack[0].shape, stack[0].dtype
    for number, frame in enumerate(stack):
        if frame.shape != shape or frame.dtype != kind:
            raise Mixture(
                f"frame {number} of the stack is {frame.shape} {frame.dtype}, the first {shape} {kind}"
            )
    if len(shape) != 2:
        raise Mixture(f"frames of {len(shape)} dimensions in a stack: they must have 2")
    return len(stack), shape[0], shape[1], kind.newbyteorder("=")


def _same_layout(use: Stack | None, n: int, ny: int, nx: int) -> None:
    if use is None:
        return
    if len(use) != n or any(frame.shape != (ny, nx) for frame in use):
        raise Mixture(f"the masks of a stack do not have its shape, ({n}, {ny}, {nx})")


def _per_frame(values: Array | Sequence[float] | None, n: int, name: str) -> list[float] | None:
    if values is None:
        return None
    numbers = [float(value) for value in values]
    if len(numbers) != n:
        raise Mixture(f"{len(numbers)} {name} for {n} frames")
    if not all(math.isfinite(number) and number > 0 for number in numbers):
        raise BadValue(f"{name} of a stack must be finite and more than 0: {numbers}")
    return numbers


def _float_type(kind: np.dtype[Any]) -> np.dtype[Any]:
    """The type that holds the values, and halves of them, exactly."""
    small = kind.kind in "iub" and kind.itemsize <= 2
    return np.dtype(np.float32) if small or kind == np.float32 else np.dtype(np.float64)


def _expand(value: Array, ny: int, nx: int) -> Array:
    return np.broadcast_to(value, (ny, nx))


def _block_height(n: int, nx: int) -> int:
    pixels = BLOCK_PIXELS if n <= MANY_FRAMES else BLOCK_PIXELS // 2
    return max(1, pixels // max(nx, 1))


def _blocks(n: int, ny: int, nx: int) -> Iterator[slice]:
    height = _block_height(n, nx)
    for first in range(0, ny, height):
        yield slice(first, min(first + height, ny))


def _buffer(n: int, ny: int, nx: int, kind: np.dtype[Any]) -> Array:
    return np.empty((n + 1, min(ny, _block_height(n, nx)) * nx), kind)


def _load(stack: Stack, rows: slice, buffer: Array) -> Array:
    """The rows of all frames as planes of the buffer, the last of which stays spare."""
    size = (rows.stop - rows.start) * stack[0].shape[1]
    planes = buffer[:, :size]
    for plane, frame in zip(planes, stack, strict=False):
        np.copyto(plane.reshape(frame[rows].shape), frame[rows])
    return planes


def _float_blocks(stack: Stack, n: int, ny: int, nx: int) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
    """Row ranges of a stack of numbers that single precision holds, and their values (n, rows, nx)."""
    if isinstance(stack, np.ndarray) and stack.dtype == np.float32 and stack.flags.c_contiguous:
        yield slice(0, ny), stack
        return
    height = min(ny, _block_height(n, nx))
    buffer = np.empty((n, height, nx), np.float32)
    for rows in _blocks(n, ny, nx):
        size = rows.stop - rows.start
        values = buffer if size == height else np.empty((n, size, nx), np.float32)
        for plane, frame in zip(values, stack, strict=True):
            plane[...] = frame[rows]
        yield rows, values


def _use_of(use: Stack | None, rows: slice) -> Bools | None:
    """What counts in these rows (n, rows, nx), in one piece; None where everything does."""
    if use is None:
        return None
    if isinstance(use, np.ndarray):
        return np.ascontiguousarray(use[:, rows], np.bool_)
    return np.stack([np.asarray(frame[rows], np.bool_) for frame in use])


def _plane_of(whole: Array, rows: slice) -> npt.NDArray[np.float32]:
    """Rows of an expanded array in single precision; one row where all are the same."""
    part = whole[:1] if whole.strides[0] == 0 else whole[rows]
    return np.ascontiguousarray(part, np.float32)


# Sorting networks


def _middle_ranks(n: int) -> tuple[int, ...]:
    return tuple(sorted({(n - 1) // 2, n // 2}))


def _balanced_ranks(n: int) -> tuple[int, ...]:
    """The two ranks among which the middle lies when what does not count is at the ends."""
    return tuple(sorted({max(n // 2 - 1, 0), n // 2}))


@lru_cache(maxsize=64)
def _steps(n: int, ranks: tuple[int, ...]) -> npt.NDArray[np.int16]:
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


def _sorted_planes(planes: Array, ranks: tuple[int, ...]) -> list[Array]:
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


def _middle(planes: list[Array]) -> Array:
    """The one plane, or the mean of two, as floats."""
    kind = _float_type(planes[0].dtype)
    if len(planes) == 1:
        return planes[0].astype(kind)
    with np.errstate(invalid="ignore"):
        total = np.add(planes[0], planes[1], dtype=kind)
    total *= kind.type(0.5)
    return total


# Values that do not count


def _usable(stack: Stack, use: Stack | None, rows: slice) -> Bools | None:
    """(n, rows, nx): what counts; None where everything does, which is quick to see and quick to do."""
    finite = [_finite(frame[rows]) for frame in stack]
    wanted = [None if use is None or use[k][rows].all() else use[k][rows] for k in range(len(stack))]
    if all(one is None for one in finite) and all(one is None for one in wanted):
        return None
    result = np.ones((len(stack), *stack[0][rows].shape), np.bool_)
    for k, plane in enumerate(result):
        for part in (finite[k], wanted[k]):
            if part is not None:
                plane &= part
    return result


def _finite(part: Array) -> Bools | None:
    if part.dtype.kind != "f" or not part.size:
        return None
    # The extremes pass nan on, and are cheaper than a mask that is almost always full.
    if math.isfinite(part.min()) and math.isfinite(part.max()):
        return None
    finite: Bools = np.isfinite(part)
    return finite


def _centre(stack: Stack, usable: Bools | None, rows: slice, buffer: Array) -> Array:
    """Median of what counts, as floats; 0 where nothing does."""
    n = len(stack)
    shape = stack[0][rows].shape
    planes = _load(stack, rows, buffer)
    if usable is None:
        return _middle(_sorted_planes(planes, _middle_ranks(n))).reshape(shape)
    counts = _balance(planes, usable.reshape(n, -1))
    upper = n // 2
    lower, higher = _sorted_planes(planes, (max(upper - 1, 0), upper)) if upper else [planes[0], planes[0]]
    # What does not count lies half below and half above: the middle of the rest is where it was,
    # or the plane beside it that parity leaves.
    single = higher if n % 2 else lower
    centre = np.where(counts % 2 == 1, _middle([single]), _middle([lower, higher]))
    centre[counts == 0] = 0
    return centre.reshape(shape)


def _balance(planes: Array, usable: Bools) -> npt.NDArray[np.int16]:
    """Put what does not count at the two ends of its type, by turns; how many count, for each pixel."""
    kind = planes.dtype
    low, high = (-np.inf, np.inf) if kind.kind == "f" else (np.iinfo(kind).min, np.iinfo(kind).max)
    odd = np.zeros(usable.shape[1], np.bool_)
    missing = np.zeros(usable.shape[1], np.int16)
    for plane, keep in zip(planes, usable, strict=False):
        if keep.all():
            continue
        out = ~keep
        np.copyto(plane, kind.type(high), where=out & ~odd)
        np.copyto(plane, kind.type(low), where=out & odd)
        odd ^= out
        missing += out
    return np.int16(len(usable)) - missing


def _ordered_with_gaps(planes: Array, usable: Bools) -> Array:
    """All planes in order, (n, m), with what does not count after the rest; uses up ``planes`` (n + 1, m)."""
    kind = planes.dtype
    last = np.inf if kind.kind == "f" else np.iinfo(kind).max
    np.copyto(planes[:-1], kind.type(last), where=~usable)
    return np.stack(_sorted_planes(planes, tuple(range(len(usable)))))


def _pick(ordered: Array, rank: npt.NDArray[np.int64]) -> Array:
    """One plane out of sorted ones, with a rank for each pixel; a rank below 0 counts as 0."""
    picked: Array = ordered[np.maximum(rank, 0), np.arange(ordered.shape[1])]
    return picked


# Clipping


def _reach(n: int, clip_sigma: float) -> float:
    """The clip in sigmas of a single value, the noise of the median of n included."""
    return clip_sigma * math.sqrt(1 + math.pi / (2 * n))


def _limits(
    n: int, fixed: Array, signal: Array | None, clip_sigma: float, scales: list[float] | None
) -> Iterator[Array]:
    """Largest distance from the median, for each frame in turn; the array is used again for the next."""
    kind = fixed.dtype.type
    limit, part = np.empty_like(fixed), np.empty_like(fixed)
    for k in range(n):
        if k == 0 or scales is not None:
            scale = 1.0 if scales is None else scales[k]
            np.multiply(fixed, kind(1.0 / scale**2), out=limit)
            if signal is not None:
                limit += np.multiply(signal, kind(1.0 / scale), out=part)
            np.sqrt(limit, out=limit)
            limit *= kind(_reach(n, clip_sigma))
        yield limit


def _mean_within(
    stack: Stack,
    rows: slice,
    centre: Array,
    limits: Iterable[Array],
    usable: Bools | None,
    weights: list[float] | None,
    mean: npt.NDArray[np.float32],
    count: npt.NDArray[np.int16],
) -> int:
    """Fill ``mean`` and ``count`` with what lies within the limits; the number rejected."""
    n, kind = len(stack), centre.dtype
    away, size, total = np.empty_like(centre), np.empty_like(centre), np.zeros_like(centre)
    keep = np.empty(centre.shape, np.bool_)
    kept = np.zeros(centre.shape, np.uint8 if n < 256 else np.int16)
    weight_sum = None if weights is None else np.zeros_like(centre)
    with np.errstate(invalid="ignore", over="ignore"):
        for k, limit in enumerate(limits):
            np.subtract(stack[k][rows], centre, out=away)
            np.less_equal(np.abs(away, out=size), limit, out=keep)
            if usable is not None:
                keep &= usable[k]
            np.add(kept, keep.view(np.uint8), out=kept)
            if weights is not None and weight_sum is not None:
                away *= kind.type(weights[k])
                np.add(weight_sum, kind.type(weights[k]), out=weight_sum, where=keep)
            np.add(total, away, out=total, where=keep)
        divisor = kept.astype(kind) if weight_sum is None else weight_sum
        np.divide(total, divisor, out=total, where=kept > 0)
        total += centre
        mean[...] = total
    count[...] = kept
    return int(centre.size * n if usable is None else usable.sum()) - int(kept.sum(dtype=np.int64))


# The stack's own scatter


def _centre_and_spread(stack: Stack, usable: Bools | None, rows: slice, buffer: Array) -> tuple[Array, Array]:
    """Median, and sigma from the order statistics near 16% and 84%."""
    n = len(stack)
    shape = stack[0][rows].shape
    planes = _load(stack, rows, buffer)
    if usable is None:
        low, width = _tails(n)
        high = n - 1 - low
        ranks = tuple(sorted({low, (n - 1) // 2, n // 2, high}))
        by_rank = dict(zip(ranks, _sorted_planes(planes, ranks), strict=True))
        centre = _middle([by_rank[rank] for rank in sorted({(n - 1) // 2, n // 2})])
        spread = np.subtract(by_rank[high], by_rank[low], dtype=centre.dtype)
        spread /= centre.dtype.type(width)
        return centre.reshape(shape), spread.reshape(shape)
    flat = usable.reshape(n, -1)
    counts = flat.sum(axis=0, dtype=np.int64)
    ordered = _ordered_with_gaps(planes, flat)
    centre = _middle([_pick(ordered, (counts - 1) // 2), _pick(ordered, counts // 2)])
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
