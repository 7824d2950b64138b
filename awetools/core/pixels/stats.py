"""Robust numbers of pixels: clipped mean and scatter, image statistics, noise from a pair of frames."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BadValue, Mixture
from .kernels import kernel

# Larger arrays find their clipping limits from every k-th value; the limits are then good to 0.2%.
SAMPLE_SIZE = 1 << 18
SUM_BLOCK = 1 << 16
# Fewer values are sorted by comparing.
SORT_AT_LEAST = 1 << 14
# Sums of large arrays are taken in so many lanes: value i goes to lane i % LANES, in order.
LANES = 16
# Columns up to which the network of a stack's median is faster than to sort rows.
WIDEST = 256
# How far, in its own error, the median of the sample may be from that of all values.
BRACKET_SIGMA = 6.0
QUARTILES_PER_SIGMA = 1.348979500392163
DIGITISATION_VARIANCE_ADU2 = 1.0 / 12.0
ROOT_2, ROOT_2_PI = math.sqrt(2), math.sqrt(2 * math.pi)


@dataclass(frozen=True)
class Clipped:
    """Statistics of the values that a clip keeps, in the unit of the values."""

    median: float
    mean: float
    stdev: float
    count: int


NOTHING = Clipped(math.nan, math.nan, math.nan, 0)


def truncation(low: float, high: float) -> float:
    """Standard deviation of a unit Gaussian of which only ``low`` to ``high`` is left.

    Bounds in sigma; 0.98658 for -3 to 3. A measured clipped standard deviation is
    divided by it. Source: moments of the truncated normal distribution (Johnson,
    Kotz and Balakrishnan 1994, chapter 13).
    """
    kept = 0.5 * (math.erf(high / ROOT_2) - math.erf(low / ROOT_2))
    if kept <= 0:
        return 1.0
    at_low, at_high = math.exp(-0.5 * low * low) / ROOT_2_PI, math.exp(-0.5 * high * high) / ROOT_2_PI
    mean = (at_low - at_high) / kept
    return math.sqrt(max(1 + (low * at_low - high * at_high) / kept - mean * mean, 0.0))


def usable(image: npt.NDArray[Any], use: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[Any]:
    """The finite values where ``use`` is True, as one contiguous row in native byte order.

    ``image`` and ``use`` have one shape. The result may be a view of ``image``.
    """
    keep = use
    if image.dtype.kind == "f":
        finite = np.isfinite(image)
        if not finite.all():
            keep = finite if use is None else finite & use
    values = image if keep is None else image[keep]
    return np.ascontiguousarray(values, dtype=image.dtype.newbyteorder("=")).ravel()


def all_finite(values: npt.NDArray[Any]) -> bool:
    """Whether no value of an array of any shape and type is infinite or not a number."""
    if values.dtype.kind != "f":
        return True
    row = values.reshape(-1)
    # Parts that stay in the processor's cache.
    return all(bool(np.isfinite(row[at : at + SUM_BLOCK]).all()) for at in range(0, row.size, SUM_BLOCK))


def clipped(
    values: npt.NDArray[Any],
    sigma: float = 3.0,
    iterations: int = 10,
    use: npt.NDArray[np.bool_] | None = None,
) -> Clipped:
    """Median, mean, standard deviation and number of the values within ``sigma`` of their median.

    ``values`` has any shape; what is not finite is left out, and where ``use``, of the same shape, is
    False. The clip starts from the median and the quartiles and is repeated, at most
    ``iterations`` times, until it keeps the same values. Its centre is the median, on tied
    (integer) values interpolated within the tie, so that the limits do not jump by whole
    units; the ``median`` returned is the plain one. ``stdev`` (n - 1) is *always* divided by
    the standard deviation of a Gaussian cut at the same limits (0.98658 at 3 sigma), and
    the limits use the corrected value, so a Gaussian's own sigma is what it converges
    to. Integer types count as values rounded to 1: a value kept stands for all that
    rounds to it, and the limits are never closer than 1.

    Up to 262144 values this is exact. Above, the limits come from every k-th value, and
    one pass over *all* values between them makes the result: it differs from the exact
    one by some 1e-4 sigma.

    Constant values give stdev 0, one value itself and stdev 0, no value
    ``(nan, nan, nan, 0)``. ``BadValue`` if sigma is not positive, ``Mixture`` if the shapes differ.
    """
    if not sigma > 0:
        raise BadValue(f"clipping at {sigma} sigma: it must be more than 0")
    return _clip(np.asarray(values), use, sigma, iterations, step=1.0 if values.dtype.kind in "iu" else 0.0)


def imstat(image: npt.NDArray[Any], use: npt.NDArray[np.bool_] | None = None) -> dict[str, float]:
    """Image statistics: of all usable pixels, and of those within 3 sigma of the median.

    ``image`` has any shape, ``use`` is True where a pixel counts (None: everywhere);
    what is not finite never counts. In the unit of the image: ``mean``, ``median``,
    ``stdev`` (n - 1), ``min``, ``max`` are exact, sums in float64; ``clipped_mean``,
    ``clipped_median``, ``clipped_stdev`` are those of :func:`clipped`; ``pixels`` is
    the number used. Without any pixel every value is nan and ``pixels`` 0.
    """
    step = 1.0 if image.dtype.kind in "iu" else 0.0
    if image.size > SAMPLE_SIZE:
        found = _look(image, use, 3.0, 10, step, whole=True)
        if found is not None:
            mean, stdev = found.moments
            return _named(mean, found.median, stdev, found.least, found.most, found.inner, found.count)
    values = usable(image, use)
    if not values.size:
        return _named(math.nan, math.nan, math.nan, math.nan, math.nan, NOTHING, 0)
    mean, stdev = _moments(values)
    extremes = float(values.min()), float(values.max())
    return _named(mean, _median(values), stdev, *extremes, _clip_few(values, 3.0, 10, step), values.size)


def _named(
    mean: float, median: float, stdev: float, least: float, most: float, inner: Clipped, pixels: int
) -> dict[str, float]:
    return {
        "mean": mean,
        "median": median,
        "stdev": stdev,
        "min": least,
        "max": most,
        "clipped_mean": inner.mean,
        "clipped_median": inner.median,
        "clipped_stdev": inner.stdev,
        "pixels": pixels,
    }


def pair_noise(
    a: npt.NDArray[Any],
    b: npt.NDArray[Any],
    use: npt.NDArray[np.bool_] | None = None,
    clip_sigma: float = 3.0,
    digitised: bool = True,
) -> float:
    """Noise of a single frame, ADU, from the difference of two equal exposures.

    ``a`` and ``b`` have one shape (ADU), ``use`` is True where both count. It is the
    clipped standard deviation of a - b (see :func:`clipped`) over the square root of 2;
    with ``digitised`` less 1/12 ADU^2, the variance that rounding to whole ADU adds to
    each frame (Sheppard's correction). Good to 1% from 0.7 ADU on, for rounded noise
    with 1% of outliers too, which 1.4826 MAD is not (a true 2.5 ADU reads 2.10); to 3%
    at 0.5 ADU; below, rounding hides the noise and the result tends to 0. A pair
    without usable pixels gives nan. ``Mixture`` if the shapes differ.
    """
    if a.shape != b.shape:
        raise Mixture(f"a pair of frames of different shapes: {a.shape} and {b.shape}")
    whole = a.dtype.kind in "iu" and b.dtype.kind in "iu"
    # float32 holds differences of 16-bit numbers exactly; wider types need float64.
    kind = np.float32 if max(a.dtype.itemsize, b.dtype.itemsize) <= (2 if whole else 4) else np.float64
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.subtract(a, b, dtype=kind)
    found = _clip(difference, use, clip_sigma, 10, step=1.0 if whole else 0.0)
    variance = 0.5 * found.stdev**2 - (DIGITISATION_VARIANCE_ADU2 if digitised else 0.0)
    return math.nan if math.isnan(variance) else math.sqrt(max(variance, 0.0))


def row_medians(values: npt.NDArray[Any], good: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Median of what is good in each row, nan where nothing is.

    ``values`` and ``good`` (rows, columns); the result (rows,), float32, unit of the values.
    """
    # Most often all are good, which is quick to see.
    whole = np.ones(len(good), np.bool_) if good.all() else good.all(axis=1)
    if values.shape[1] > WIDEST or not whole.any():
        return _sorted_row_medians(values, good)
    from .stack import median

    # Columns are the frames of a stack.
    medians: npt.NDArray[np.float32] = (
        median(np.ascontiguousarray(values.T)[:, None]).astype(np.float32).ravel()
    )
    if not whole.all():
        medians[~whole] = _sorted_row_medians(values[~whole], good[~whole])
    return medians


def _sorted_row_medians(values: npt.NDArray[Any], good: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    ordered = np.sort(np.where(good, values, np.float32(np.inf)), axis=1)
    number = good.sum(axis=1)
    line = np.arange(len(values))
    lower = ordered[line, np.maximum(number - 1, 0) // 2]
    upper = ordered[line, np.minimum(number // 2, values.shape[1] - 1)]
    medians: npt.NDArray[np.float32] = np.full(len(values), np.nan, np.float32)
    medians[number > 0] = 0.5 * (lower + upper)[number > 0]
    return medians


def line_means(
    image: npt.NDArray[np.float32], low: float, high: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Means of the rows (ny,) and of the columns (nx,) of an image whose values are cut off at two bounds.

    ``image`` (ny, nx) float32, finite, any unit; float64 sums.
    """
    ny, nx = image.shape
    rows, columns = np.zeros(ny), np.zeros(nx)
    compiled = kernel("stats")
    if compiled is not None:
        compiled.line_sums(np.ascontiguousarray(image), rows, columns, np.float32(low), np.float32(high))
        return rows / nx, columns / ny
    cut = np.clip(image, np.float32(low), np.float32(high)).astype(np.float64) + 0.0
    # A row after the other, as the lanes of the kernel are added.
    lanes = np.zeros((ny, -(-nx // LANES) * LANES))
    lanes[:, :nx] = cut
    sums = np.add.reduce(lanes.reshape(ny, -1, LANES), axis=1)
    return np.add.accumulate(sums, axis=1)[:, -1] / nx, np.add.accumulate(cut, axis=0)[-1] / ny


def middle(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Median along the first axis of a few numbers, (n, ...) to (...), float64; of n = 0, nan.

    For some thousand numbers a sort is faster than ``numpy.median``, and needs no masked arrays.
    """
    n = len(values)
    if not n:
        return np.full(values.shape[1:], np.nan)
    ordered = np.sort(values, axis=0)
    median: npt.NDArray[np.float64] = 0.5 * np.add(ordered[(n - 1) // 2], ordered[n // 2], dtype=np.float64)
    return median


def _clip(
    values: npt.NDArray[Any],
    use: npt.NDArray[np.bool_] | None,
    sigma: float,
    iterations: int,
    step: float,
) -> Clipped:
    if values.size > SAMPLE_SIZE:
        found = _look(values, use, sigma, iterations, step, whole=False)
        if found is not None:
            return found.inner
    return _clip_few(usable(values, use), sigma, iterations, step)


def _clip_few(values: npt.NDArray[Any], sigma: float, iterations: int, step: float) -> Clipped:
    """The clip of finite values, all of them sorted."""
    if not values.size:
        return NOTHING
    kept, low, high, centre, moments = _converge(_ordered(values), sigma, iterations, step, values.dtype)
    mean, stdev = moments or _moments(kept)
    return Clipped(
        0.5 * (float(kept[(kept.size - 1) // 2]) + float(kept[kept.size // 2])),
        mean,
        _corrected(stdev, low - centre, high - centre, centre, step),
        kept.size,
    )


def _ordered(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The values sorted; small integers, by counting, as floats that hold them exactly."""
    if values.dtype == np.float32:
        return _sorted_floats(values)
    if values.dtype.kind not in "iu" or values.dtype.itemsize > 2:
        return np.sort(values)
    least = int(values.min())
    counts = np.bincount((values - values.dtype.type(least)).view(f"u{values.itemsize}"))
    return np.repeat(np.arange(least, least + counts.size, dtype=np.float32), counts)


def _sorted_floats(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Finite values sorted; zeros lose their sign, which has no place in the order."""
    compiled = kernel("stats") if values.size >= SORT_AT_LEAST else None
    if compiled is None:
        return np.sort(values + np.float32(0))
    ordered = np.empty(values.size, np.float32)
    compiled.sorted(np.ascontiguousarray(values), ordered)
    return ordered


# Large arrays


@dataclass(frozen=True)
class _Look:
    """What one pass over a large array found; of all values only where that was asked for."""

    inner: Clipped
    count: int
    moments: tuple[float, float]
    median: float
    least: float
    most: float


def _look(
    values: npt.NDArray[Any],
    use: npt.NDArray[np.bool_] | None,
    sigma: float,
    iterations: int,
    step: float,
    whole: bool,
) -> _Look | None:
    """Statistics by one pass, with limits from a sample; None where too little of it can be used."""
    if use is not None and use.shape != values.shape:
        raise Mixture(f"the mask is {use.shape}, its values {values.shape}")
    row = values.reshape(-1)
    small = row.dtype.kind in "iu" and row.dtype.itemsize <= 2
    row = row.astype(np.float32 if small else row.dtype.newbyteorder("="), copy=False)
    keep = None if use is None else use.reshape(-1)
    # An odd stride walks through all columns of an image whose width is a power of two.
    stride = (row.size // SAMPLE_SIZE) | 1
    few = None if keep is None else np.ascontiguousarray(keep[::stride])
    sample = usable(np.ascontiguousarray(row[::stride]), few)
    if sample.size < SAMPLE_SIZE // 16:
        return None
    ordered = _ordered(sample)
    kept, low, high, centre, _ = _converge(ordered, sigma, iterations, step, values.dtype)
    limits = _within(values.dtype, low, high)
    bracket = _around(_bracket(ordered), _bracket(kept)) if whole else _bracket(kept)
    seen = _pass(row, keep, float(ordered[ordered.size // 2]), limits, bracket, whole)
    if seen is None or not seen.kept:
        return None
    mean, stdev = _from_sums(seen.sums[:, 2:], seen.reference, seen.kept)
    stdev = _corrected(stdev, low - centre, high - centre, centre, step)
    inner = Clipped(seen.inner_median, mean, stdev, seen.kept)
    moments = _from_sums(seen.sums[:, :2], seen.reference, seen.count) if whole else (math.nan, math.nan)
    return _Look(inner, seen.count, moments, seen.median, seen.least, seen.most)


@dataclass(frozen=True)
class _Pass:
    """Sums (blocks, 4, lanes) of distances from ``reference`` and their squares: of all, and of what is kept."""

    sums: npt.NDArray[np.float64]
    reference: float
    count: int
    kept: int
    least: float
    most: float
    median: float
    inner_median: float


Bounds = tuple[Any, Any]


def _bracket(ordered: npt.NDArray[Any]) -> Bounds:
    """Two values of a sorted sample between which the median of what it was drawn from should be."""
    reach = math.ceil(0.5 * BRACKET_SIGMA * math.sqrt(ordered.size))
    middle = ordered.size // 2
    return ordered[max(middle - reach, 0)], ordered[min(middle + reach, ordered.size - 1)]


def _around(one: Bounds, other: Bounds) -> Bounds:
    return min(one[0], other[0]), max(one[1], other[1])


def _pass(
    row: npt.NDArray[Any],
    use: npt.NDArray[np.bool_] | None,
    reference: float,
    limits: Bounds,
    bracket: Bounds,
    whole: bool,
) -> _Pass | None:
    """Sums, extremes and medians of all values (if ``whole``) and of those within ``limits``.

    The medians are exact: the values in the ``bracket`` are copied out, and those below are counted. If a
    median is not in it, all values are looked at again.
    """
    compiled = kernel("stats") if row.dtype == np.float32 else None
    if compiled is None:
        return _pass_by_blocks(row, use, reference, limits, whole)
    sums = np.zeros((-(-row.size // SUM_BLOCK), 4, LANES))
    found = np.empty(row.size // 4, np.float32)
    keep = None if use is None else np.ascontiguousarray(use)
    bounds = [float(bound) for bound in (*limits, *bracket)]
    count, kept, least, most, under, below, inside = compiled.survey(
        np.ascontiguousarray(row), keep, sums, found, reference, *bounds, whole
    )
    order = _Order(found, below, inside, bracket)
    median = order.median(count, 0) if whole else math.nan
    inner_median = order.median(kept, under)
    if median is None or inner_median is None:
        return _pass_by_blocks(row, use, reference, limits, whole)
    return _Pass(sums, reference, count, kept, least, most, median, inner_median)


@dataclass(frozen=True)
class _Order:
    """The values between two bounds, and how many are below them."""

    found: npt.NDArray[np.float32]
    below: int
    inside: int
    bounds: Bounds

    def median(self, count: int, under: int) -> float | None:
        """The median of ``count`` values after the lowest ``under``; None if it is not between the bounds."""
        first, last = under + (count - 1) // 2 - self.below, under + count // 2 - self.below
        if not count or first < 0 or last >= self.inside:
            return None
        if self.bounds[0] == self.bounds[1]:
            return float(self.bounds[0]) + 0.0
        if self.inside > self.found.size - 64:
            return None
        parted = np.partition(self.found[: self.inside], sorted({first, last}))
        return 0.5 * (float(parted[first]) + float(parted[last])) + 0.0


def _pass_by_blocks(
    row: npt.NDArray[Any],
    use: npt.NDArray[np.bool_] | None,
    reference: float,
    limits: Bounds,
    whole: bool,
) -> _Pass | None:
    values = usable(row, use)
    inner = values[(values >= limits[0]) & (values <= limits[1])]
    if not inner.size:
        return None
    sums = np.zeros((-(-row.size // SUM_BLOCK), 4, LANES))
    for number, start in enumerate(range(0, row.size, SUM_BLOCK)):
        part = row[start : start + SUM_BLOCK]
        good = np.isfinite(part) if use is None else np.isfinite(part) & use[start : start + SUM_BLOCK]
        away = np.zeros(-(-part.size // LANES) * LANES)
        with np.errstate(invalid="ignore"):
            np.subtract(part, reference, out=away[: part.size], where=good, dtype=np.float64)
            within = good & (part >= limits[0]) & (part <= limits[1])
        if whole:
            sums[number, :2] = _lane_sums(away)
        away[: part.size][~within] = 0
        sums[number, 2:] = _lane_sums(away)
    least, most = float(values.min()), float(values.max())
    median = _median(values) + 0.0 if whole else math.nan
    return _Pass(sums, reference, values.size, inner.size, least, most, median, _median(inner) + 0.0)


def _lane_sums(away: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Sums (2, lanes) of distances and of their squares."""
    lanes = away.reshape(-1, LANES)
    return np.stack([np.add.reduce(lanes, axis=0), np.add.reduce(np.square(lanes), axis=0)])


def _from_sums(sums: npt.NDArray[np.float64], reference: float, n: int) -> tuple[float, float]:
    """Mean and standard deviation (n - 1) from the sums of blocks and lanes."""
    shift = math.fsum(sums[:, 0].ravel().tolist()) / n
    if n == 1:
        return reference + shift, 0.0
    variance = (math.fsum(sums[:, 1].ravel().tolist()) - n * shift * shift) / (n - 1)
    return reference + shift, math.sqrt(max(variance, 0.0))


# Sorted values


def _converge(
    ordered: npt.NDArray[Any], sigma: float, iterations: int, step: float, dtype: np.dtype[Any]
) -> tuple[npt.NDArray[Any], float, float, float, tuple[float, float] | None]:
    """What a repeated clip keeps of sorted values, the limits that kept it, its centre, and its moments if known.

    ``dtype``: what the values were.
    """
    n = ordered.size
    quartiles = float(ordered[n // 4]), float(ordered[(3 * n) // 4])
    scale = (quartiles[1] - quartiles[0]) / QUARTILES_PER_SIGMA or _moments(ordered)[1]
    kept, low, high = ordered, -math.inf, math.inf
    moments = None
    ends = (-1, -1)
    centre = _tied_median(kept)
    for _ in range(iterations):
        half = max(sigma * scale, step)
        first, last = (ordered.dtype.type(bound) for bound in _within(dtype, centre - half, centre + half))
        begin, end = int(ordered.searchsorted(first)), int(ordered.searchsorted(last, side="right"))
        if scale == 0 or begin >= end or (begin, end) == ends:
            break
        ends, low, high = (begin, end), centre - half, centre + half
        kept = ordered[begin:end]
        centre = _tied_median(kept)
        moments = _moments(kept)
        scale = _corrected(moments[1], low - centre, high - centre, centre, step)
    return kept, low, high, centre, moments


def _within(dtype: np.dtype[Any], low: float, high: float) -> tuple[Any, Any]:
    """Limits in the array's own type (a float64 limit would convert the whole array)."""
    if dtype.kind not in "iu":
        return dtype.type(low), dtype.type(high)
    info = np.iinfo(dtype)
    lowest, highest = float(info.min), float(info.max)
    return (
        dtype.type(int(max(math.ceil(low), lowest)) if low > lowest else info.min),
        dtype.type(int(min(math.floor(high), highest)) if high < highest else info.max),
    )


def _corrected(stdev: float, low: float, high: float, centre: float, step: float) -> float:
    """Sigma of the Gaussian that scatters by ``stdev`` where it is cut at ``low`` and ``high`` (from its centre)."""
    if stdev == 0 or not math.isfinite(high - low):
        return stdev
    if step:
        low = (math.ceil((centre + low) / step) - 0.5) * step - centre
        high = (math.floor((centre + high) / step) + 0.5) * step - centre
    scale = stdev
    # The cut in units of sigma needs the sigma that is sought: a few rounds settle it.
    for _ in range(6):
        scale = stdev / max(truncation(low / scale, high / scale), 0.5)
    return scale


def _tied_median(ordered: npt.NDArray[Any]) -> float:
    """Median of sorted values, interpolated within a run of equal ones (the grouped median)."""
    n = ordered.size
    below, above = ordered[(n - 1) // 2], ordered[n // 2]
    if below != above:
        return 0.5 * (float(below) + float(above))
    first = int(ordered.searchsorted(below, side="left"))
    last = int(ordered.searchsorted(below, side="right"))
    if first == 0 or last == n:
        return float(below)
    low = 0.5 * (float(ordered[first - 1]) + float(below))
    high = 0.5 * (float(below) + float(ordered[last]))
    return low + (high - low) * (0.5 * n - first) / (last - first)


def _median(values: npt.NDArray[Any]) -> float:
    """Exact median: one partition, then the largest of the lower part."""
    half = values.size // 2
    parted = np.partition(values, half)
    upper = float(parted[half])
    return upper if values.size % 2 else 0.5 * (float(parted[:half].max()) + upper)


def _moments(values: npt.NDArray[Any]) -> tuple[float, float]:
    """Mean and standard deviation (n - 1), float64, by blocks of fixed size."""
    n = values.size
    # Sums about a typical value: about an outlier they would lose the small scatter of the rest.
    few = np.sort(values[:: 1 + n // 512])
    reference = float(few[few.size // 2])
    sums = np.zeros((-(-n // SUM_BLOCK), 2, LANES))
    compiled = kernel("stats") if values.dtype == np.float32 and values.flags.c_contiguous else None
    if compiled is not None:
        compiled.moments(values, sums, reference)
        return _from_sums(sums, reference, n)
    for number, start in enumerate(range(0, n, SUM_BLOCK)):
        part = values[start : start + SUM_BLOCK]
        away = np.zeros(-(-part.size // LANES) * LANES)
        np.subtract(part, reference, out=away[: part.size], dtype=np.float64)
        sums[number] = _lane_sums(away)
    return _from_sums(sums, reference, n)
