"""Robust numbers of pixels: clipped mean and scatter, image statistics, noise from a pair of frames."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BadValue, Mixture

# Larger arrays find their clipping limits from every k-th value; the limits are then good to 0.2%.
SAMPLE_SIZE = 1 << 18
SUM_BLOCK = 1 << 16
QUARTILES_PER_SIGMA = 1.348979500392163
DIGITISATION_VARIANCE_ADU2 = 1.0 / 12.0


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
    kept = 0.5 * (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2)))
    if kept <= 0:
        return 1.0
    at_low, at_high = (math.exp(-0.5 * x * x) / math.sqrt(2 * math.pi) for x in (low, high))
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


def clipped(values: npt.NDArray[Any], sigma: float = 3.0, iterations: int = 10) -> Clipped:
    """Median, mean, standard deviation and number of the values within ``sigma`` of their median.

    ``values`` has any shape; what is not finite is left out. The clip starts from the
    median and the quartiles and is repeated, at most ``iterations`` times, until it
    keeps the same values. Its centre is the median, on tied (integer) values
    interpolated within the tie, so that the limits do not jump by whole units; the
    ``median`` returned is the plain one. ``stdev`` (n - 1) is *always* divided by the
    standard deviation of a Gaussian cut at the same limits (0.98658 at 3 sigma), and
    the limits use the corrected value, so a Gaussian's own sigma is what it converges
    to. Integer types count as values rounded to 1: a value kept stands for all that
    rounds to it, and the limits are never closer than 1.

    Up to 262144 values this is exact. Above, the limits come from every k-th value, and
    one pass over *all* values between them makes the result: it differs from the exact
    one by some 1e-4 sigma.

    Constant values give stdev 0, one value itself and stdev 0, no value
    ``(nan, nan, nan, 0)``. ``BadValue`` if sigma is not positive.
    """
    if not sigma > 0:
        raise BadValue(f"clipping at {sigma} sigma: it must be more than 0")
    row = usable(np.asarray(values))
    return _clip(row, sigma, iterations, step=1.0 if row.dtype.kind in "iu" else 0.0)


def imstat(image: npt.NDArray[Any], use: npt.NDArray[np.bool_] | None = None) -> dict[str, float]:
    """Image statistics: of all usable pixels, and of those within 3 sigma of the median.

    ``image`` has any shape, ``use`` is True where a pixel counts (None: everywhere);
    what is not finite never counts. In the unit of the image: ``mean``, ``median``,
    ``stdev`` (n - 1), ``min``, ``max`` are exact, sums in float64; ``clipped_mean``,
    ``clipped_median``, ``clipped_stdev`` are those of :func:`clipped`; ``pixels`` is
    the number used. Without any pixel every value is nan and ``pixels`` 0.
    """
    values = usable(image, use)
    if not values.size:
        names = ("mean", "median", "stdev", "min", "max", "clipped_mean", "clipped_median", "clipped_stdev")
        return dict.fromkeys(names, math.nan) | {"pixels": 0}
    mean, stdev = _moments(values)
    inner = clipped(values)
    return {
        "mean": mean,
        "median": _median(values),
        "stdev": stdev,
        "min": float(values.min()),
        "max": float(values.max()),
        "clipped_mean": inner.mean,
        "clipped_median": inner.median,
        "clipped_stdev": inner.stdev,
        "pixels": values.size,
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
    found = _clip(usable(difference, use), clip_sigma, 10, step=1.0 if whole else 0.0)
    variance = 0.5 * found.stdev**2 - (DIGITISATION_VARIANCE_ADU2 if digitised else 0.0)
    return math.nan if math.isnan(variance) else math.sqrt(max(variance, 0.0))


def row_medians(values: npt.NDArray[Any], good: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Median of what is good in each row, nan where nothing is.

    ``values`` and ``good`` (rows, columns); the result (rows,), float32, unit of the values.
    """
    ordered = np.sort(np.where(good, values, np.float32(np.inf)), axis=1)
    number = good.sum(axis=1)
    line = np.arange(len(values))
    lower = ordered[line, np.maximum(number - 1, 0) // 2]
    upper = ordered[line, np.minimum(number // 2, values.shape[1] - 1)]
    medians: npt.NDArray[np.float32] = np.full(len(values), np.nan, np.float32)
    medians[number > 0] = 0.5 * (lower + upper)[number > 0]
    return medians


def _clip(values: npt.NDArray[Any], sigma: float, iterations: int, step: float) -> Clipped:
    if not values.size:
        return NOTHING
    # An odd stride walks through all columns of an image whose width is a power of two.
    stride = 1 if values.size <= SAMPLE_SIZE else (values.size // SAMPLE_SIZE) | 1
    kept, low, high = _converge(np.sort(values[::stride]), sigma, iterations, step)
    centre = _tied_median(kept)
    if stride > 1:
        first, last = _within(values.dtype, low, high)
        kept = values[(values >= first) & (values <= last)]
    mean, stdev = _moments(kept)
    sigma_kept = _corrected(stdev, low - centre, high - centre, centre, step)
    return Clipped(_median(kept), mean, sigma_kept, kept.size)


def _converge(
    ordered: npt.NDArray[Any], sigma: float, iterations: int, step: float
) -> tuple[npt.NDArray[Any], float, float]:
    """What a repeated clip keeps of sorted values, and the limits that kept it."""
    n = ordered.size
    quartiles = float(ordered[n // 4]), float(ordered[(3 * n) // 4])
    scale = (quartiles[1] - quartiles[0]) / QUARTILES_PER_SIGMA or _moments(ordered)[1]
    kept, low, high = ordered, -math.inf, math.inf
    ends = (-1, -1)
    for _ in range(iterations):
        centre = _tied_median(kept)
        half = max(sigma * scale, step)
        first, last = _within(ordered.dtype, centre - half, centre + half)
        begin, end = int(np.searchsorted(ordered, first)), int(np.searchsorted(ordered, last, side="right"))
        if scale == 0 or begin >= end or (begin, end) == ends:
            break
        ends, low, high = (begin, end), centre - half, centre + half
        kept = ordered[begin:end]
        centre = _tied_median(kept)
        scale = _corrected(_moments(kept)[1], low - centre, high - centre, centre, step)
    return kept, low, high


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
    first = int(np.searchsorted(ordered, below, side="left"))
    last = int(np.searchsorted(ordered, below, side="right"))
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
    sums, squares = [], []
    work = np.empty(min(n, SUM_BLOCK), np.float64)
    for start in range(0, n, SUM_BLOCK):
        part = values[start : start + SUM_BLOCK]
        away = work[: part.size]
        np.subtract(part, reference, out=away, dtype=np.float64)
        sums.append(float(away.sum()))
        squares.append(float(np.square(away, out=away).sum()))
    shift = math.fsum(sums) / n
    if n == 1:
        return reference, 0.0
    variance = (math.fsum(squares) - n * shift * shift) / (n - 1)
    return reference + shift, math.sqrt(max(variance, 0.0))
