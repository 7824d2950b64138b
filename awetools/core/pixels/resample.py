"""An image on another grid of pixels: values, weights and masks interpolated, or averaged over areas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import BadValue, Mixture
from .kernels import kernel
from .mask import ZERO_WEIGHT, Bit
from .resamplenumpy import GAIN_STEPS, finish, footprints, interpolated, overlapped

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Masks = npt.NDArray[np.int16]
Span = tuple[int, int]
Conserved = Literal["brightness", "flux"]

# Points each way of the kernels; `area` has none.
TAPS: Mapping[str, int] = MappingProxyType(
    {
        "lagrange6": 6,
        "lagrange8": 8,
        "lanczos2": 4,
        "lanczos3": 6,
        "lanczos4": 8,
        "bilinear": 2,
        "nearest": 2,
        "area": 0,
    }
)
# Values of a row that are read at once, whatever the kernel.
LANES = 8
# Positions within a pixel for which kernels are tabled: a place is off by 1/8192 pixel at most.
STEPS = 4096
# The least part of a kernel's weight (or of an area) that good pixels must have.
MIN_GOOD = 0.7
# The share, among the four pixels nearest to a place, from which a pixel's mask matters.
MIN_SHARE = 0.25
# Where each kernel measures best: see `kernel_for`.
SIX_POINTS_FWHM_PX, POLYNOMIAL_FWHM_PX = 3.5, 2.75
SAME_SCALE, COARSE = 0.02, 2.0
# The largest area of an output pixel for which what a kernel gains is known; of larger ones, as of this.
LARGEST_AREA = 9
# Pixels each way of the sums that weights are right for, and steps of a pixel in which they are found.
SUM_PX, FINE = 7, 64
# Output rows worked on at once: their places stay in the processor's cache.
STRIP_ROWS = 64


class Places(Protocol):
    """Where the pixels of a grid are in an image: 0-based pixels, the middle of the first one at (0, 0).

    Outside of the window no pixel is on the image; no other places are asked for.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the grid."""

    @property
    def window(self) -> tuple[Span, Span]:
        """Rows and columns that may be on the image."""

    def at(self, rows: Span, columns: Span) -> tuple[Doubles, Doubles]:
        """x and y of the middles of pixels; nan where there is no place."""

    def corners(self, rows: Span, columns: Span) -> tuple[Doubles, Doubles]:
        """x and y of the lower left corners, one row and one column more."""

    def areas(self, rows: Span, columns: Span) -> Doubles:
        """The area of pixels of the grid in pixels of the image."""


class Resampled(NamedTuple):
    """Planes of one shape: values, inverse variance of the background, mask bits; and what was asked for.

    ``variance`` is that of a pixel by itself, 0 where the weight is 0; ``area`` that of an
    output pixel in input pixels, 0 where there is none.
    """

    data: Floats
    weight: Floats
    mask: Masks
    variance: Floats | None = None
    area: Floats | None = None


def resample(
    image: Floats,
    places: Places,
    *,
    weight: Floats | None = None,
    mask: Masks | None = None,
    kernel_name: str = "lagrange6",
    scale: float = 1.0,
    conserve: Conserved = "brightness",
    rows: Span | None = None,
    columns: Span | None = None,
    first_row: int = 0,
    min_good: float = MIN_GOOD,
    variance: bool = False,
    area: bool = False,
) -> Resampled:
    """An image, its weight and its mask on another grid; rows and columns of it, or all.

    ``image`` (ny, nx) are the rows of the input from ``first_row`` on: those that
    :func:`input_rows` names are enough for the same bits as with all of them. Values are
    multiplied by ``scale``; what is conserved is the surface brightness, or the flux
    (values times the area of the output pixel in input pixels: sums over a star stay).

    Value: the kernel's sum over the good pixels (``weight`` above 0 and finite, value
    finite, no bit of ``mask`` that says zero weight), divided by the good ones' part of the
    kernel. Where they hold less than ``min_good`` of its absolute weight, or where one of
    the four nearest pixels is bad and has a bilinear share of 0.25 or more, the weight is
    0, the value that of the nearest pixel, and the mask says why. Outside of the image the
    value and the weight are 0, the mask is OUTSIDE.

    Weight: the inverse variance that counts in sums and means over many pixels, where the
    correlation of neighbours makes up for what interpolation takes from each: the bilinear
    mean of the input's weights (bad ones 0), as smooth as they are, times the area: finer
    pixels share what is known, coarser ones see more of it, although of a kernel they do not
    gain as much, see :func:`gains`. The noise of one pixel by itself, sum(k^2) / weight, depends
    on the place between the pixels; weighting by it would favour frames by chance. It is
    ``variance``, if asked for. Kernels that lost pixels have less weight, as their noise grows.

    Mask: the bits of those of the four nearest pixels with a share of 0.25 or more.

    `area` as kernel: means over the exact overlap of the output pixel (a quadrilateral)
    with the input pixels, for strong changes of scale. The other kernels are separable:
    Lagrange's polynomial through six or eight points (it keeps the first five or seven
    moments), the windowed sinc of Lanczos (Duchon 1979, J. Appl. Meteor. 18, 1016).
    BadValue for unknown kernels and numbers that make no sense, Mixture for shapes that differ.
    """
    taps = _taps(kernel_name)
    _check(image, weight, mask, scale, conserve, min_good)
    span = (rows or (0, places.shape[0])), (columns or (0, places.shape[1]))
    _check_spans(span, places.shape)
    made = _empty((span[0][1] - span[0][0], span[1][1] - span[1][0]), variance, area)
    across = _common(span[1], places.window[1])
    down = _common(span[0], places.window[0])
    if down[1] <= down[0] or across[1] <= across[0]:
        return made
    source = _source(image, weight, mask, taps)
    for strip in _strips(down):
        part = _shifted(strip, span[0][0]), _shifted(across, span[1][0])
        planes: list[Any] = [None if one is None else one[part] for one in made]
        work: list[Any] = [None if one is None else np.ascontiguousarray(one) for one in planes]
        _strip(source, places, strip, across, work, kernel_name, first_row, min_good)
        _finish(places.areas(strip, across), work, gains(kernel_name), scale, conserve == "flux")
        for plane, own in zip(planes, work, strict=True):
            if plane is not None and own is not plane:
                plane[...] = own
    return made


def _empty(shape: tuple[int, int], variance: bool, area: bool) -> Resampled:
    """Planes of what is outside of the image."""
    wanted = True, True, variance, area
    data, weight, spread, areas = (np.zeros(shape, np.float32) if one else None for one in wanted)
    assert data is not None and weight is not None
    return Resampled(data, weight, np.full(shape, int(Bit.OUTSIDE), np.int16), spread, areas)


def input_rows(
    places: Places,
    shape: tuple[int, int],
    kernel_name: str = "lagrange6",
    rows: Span | None = None,
    columns: Span | None = None,
) -> Span:
    """First row, and the one after the last, of an input of this shape that these rows of the grid need.

    (0, 0) where they need none.
    """
    reach = max(_taps(kernel_name) // 2, 1)
    across = _common(columns or (0, places.shape[1]), places.window[1])
    least, most = shape[0], 0
    for strip in _strips(_common(rows or (0, places.shape[0]), places.window[0])):
        if across[1] <= across[0]:
            break
        if kernel_name == "area":
            (left, right), (low, high) = (_box(one) for one in _cornered(places, strip, across, 0))
            inside = (right > 0) & (left < shape[1]) & (high > 0) & (low < shape[0])
        else:
            x, low = places.at(strip, across)
            high = low
            inside = (x >= -0.5) & (x < shape[1] - 0.5) & (low >= -0.5) & (low < shape[0] - 0.5)
        if inside.any():
            lowest, highest = low.min(where=inside, initial=np.inf), high.max(where=inside, initial=-np.inf)
            least = min(least, int(np.floor(max(lowest, 0.0))) - reach)
            most = max(most, int(np.floor(min(highest, shape[0]))) + reach + 1)
    return (max(least, 0), min(most, shape[0])) if most > least else (0, 0)


def _box(plane: Doubles) -> tuple[Doubles, Doubles]:
    """Least and greatest of the four corners of pixels."""
    corners = plane[:-1, :-1], plane[:-1, 1:], plane[1:, :-1], plane[1:, 1:]
    return np.minimum.reduce(corners), np.maximum.reduce(corners)


# Input and strips


class Source(NamedTuple):
    """The input, what is bad in it, and which footprints of the kernel are clean."""

    image: Floats
    weight: Floats | None
    mask: Masks | None
    state: npt.NDArray[np.uint8]
    near_by: npt.NDArray[np.uint8] | None
    taps: int


def _source(image: Floats, weight: Floats | None, mask: Masks | None, taps: int) -> Source:
    image = np.ascontiguousarray(image, np.float32)
    weight = None if weight is None else np.ascontiguousarray(weight, np.float32)
    mask = None if mask is None else np.ascontiguousarray(mask, np.int16)
    width = taps or 2
    padded = np.empty((image.shape[0] + width - 1, image.shape[1]), np.uint8)
    near_by = np.empty(image.shape, np.uint8)
    compiled = kernel("resample")
    if compiled is not None:
        column = np.empty(image.shape[1], np.uint8)
        compiled.footprints(image, weight, mask, ZERO_WEIGHT, width, padded, column, near_by)
    else:
        footprints(image, weight, mask, ZERO_WEIGHT, width, padded, near_by)
    before = width // 2 - 1
    state = padded[before : before + image.shape[0]]
    return Source(image, weight, mask, state, near_by if taps else None, taps)


def _strip(
    source: Source,
    places: Places,
    rows: Span,
    columns: Span,
    work: list[Any],
    kernel_name: str,
    first_row: int,
    min_good: float,
) -> None:
    """Fill planes of these rows and columns, before units; the variance's is sum(k^2) as yet."""
    table, near = tables(kernel_name) if source.taps else (None, None)
    if source.taps:
        x, y = places.at(rows, columns)
        y = y - first_row if first_row else y
    else:
        x, y = _cornered(places, rows, columns, first_row)
    value, weight, bits, spread, _ = work
    given = (*source[:5], table, near, x, y, value, weight, bits, spread)
    compiled = kernel("resample")
    if compiled is not None:
        compiled.resample(given, source.taps, min_good, MIN_SHARE, int(Bit.OUTSIDE))
    elif table is None:
        overlapped(given, min_good, MIN_SHARE, int(Bit.OUTSIDE))
    else:
        interpolated(given, source.taps, min_good, MIN_SHARE, int(Bit.OUTSIDE))


def _finish(area: Doubles, work: list[Any], own: Floats | None, scale: float, flux: bool) -> None:
    """Apply the scale, and the areas; in place."""
    value, weight, _, spread, areas = work
    compiled = kernel("resample")
    do = finish if compiled is None else compiled.finish
    do(area, value, weight, spread, areas, own, scale, flux)


def _cornered(places: Places, rows: Span, columns: Span, first_row: int) -> tuple[Doubles, Doubles]:
    """Corners, in coordinates in which pixel i reaches from i to i + 1."""
    x, y = places.corners(rows, columns)
    return x + 0.5, y + (0.5 - first_row)


def _strips(rows: Span) -> Iterator[Span]:
    for begin in range(rows[0], rows[1], STRIP_ROWS):
        yield begin, min(begin + STRIP_ROWS, rows[1])


def _common(one: Span, other: Span) -> Span:
    return max(one[0], other[0]), min(one[1], other[1])


def _shifted(span: Span, origin: int) -> slice:
    return slice(span[0] - origin, span[1] - origin)


def _taps(name: str) -> int:
    if name not in TAPS:
        raise BadValue(f"no kernel is called '{name}'", hint=f"kernels: {', '.join(TAPS)}")
    return TAPS[name]


def _check(
    image: npt.NDArray[Any], weight: Any, mask: Any, scale: float, conserve: str, min_good: float
) -> None:
    if image.ndim != 2:
        raise Mixture(f"an image of {image.ndim} axes cannot be resampled")
    for name, plane in (("weight", weight), ("mask", mask)):
        if plane is not None and plane.shape != image.shape:
            raise Mixture(f"a {name} of shape {plane.shape} for an image of {image.shape}")
    if not (np.isfinite(scale) and scale != 0):
        raise BadValue(f"values cannot be scaled by {scale}")
    if conserve not in ("brightness", "flux"):
        raise BadValue(f"brightness or flux can be conserved, not '{conserve}'")
    if not 0 < min_good <= 1:
        raise BadValue(f"the least good part of a kernel is above 0 and at most 1, not {min_good}")


def _check_spans(spans: tuple[Span, Span], shape: tuple[int, int]) -> None:
    for (begin, end), length in zip(spans, shape, strict=True):
        if not 0 <= begin <= end <= length:
            raise BadValue(f"rows or columns {begin} to {end} of a grid of {shape[0]} x {shape[1]}")


# Kernels


def kernel_for(fwhm_px: float, pixel_ratio: float = 1.0) -> str:
    """The kernel that measures best for stars of this FWHM in input pixels.

    ``pixel_ratio`` is the side of an output pixel in input pixels. Above 2: `area`. Noise-free
    Moffat stars, shift of the windowed centroid (rms, px) at ratio 1 and, rotated, at 1.08:

        FWHM   lagrange6          lagrange8          lanczos3           lanczos4
        2.0    0.0079   0.0138    0.0062   0.0117    0.0054   0.0110    0.0041   0.0091
        2.5    0.0027   0.0054    0.0015   0.0035    0.0017   0.0022    0.0002   0.0007
        3.0    0.0011   0.0028    0.0005   0.0015    0.0026   0.0009    0.0007   0.0002
        3.9    0.0003   0.0010    0.0001   0.0004    0.0054   0.0008    0.0021   0.0002

    Fluxes scatter by 0.0003 and less with the polynomials (from 2.5 px on), by 0.0015 to 0.005
    with Lanczos where the ratio is not 1: so the polynomial of eight points there, and from
    2.75 px on; of six, which takes a tenth less time, from 3.5 px on. A FWHM that is not
    known (nan) is taken as small.
    """
    if pixel_ratio > COARSE:
        return "area"
    if fwhm_px >= SIX_POINTS_FWHM_PX:
        return "lagrange6"
    if fwhm_px >= POLYNOMIAL_FWHM_PX or abs(pixel_ratio - 1) > SAME_SCALE:
        return "lagrange8"
    return "lanczos4"


@cache
def tables(name: str) -> tuple[Floats, Floats]:
    """Weights of a kernel (STEPS + 1, 8), 0 behind its taps, and shares of the two nearest pixels (STEPS + 1, 2).

    Row i is for a place i / STEPS pixel after the middle of the pixel before it; the
    kernel's first tap is taps / 2 - 1 pixels before that one.
    """
    taps = _taps(name)
    phase = np.arange(STEPS + 1) / STEPS
    shares = np.stack([1 - phase, phase], axis=1)
    if name == "nearest":
        shares = np.stack([phase < 0.5, phase >= 0.5], axis=1).astype(np.float64)
    table = np.zeros((STEPS + 1, LANES))
    if taps == 2:
        table[:, :2] = shares
    elif name.startswith("lanczos"):
        table[:, :taps] = _lanczos(phase, taps // 2)
    else:
        table[:, :taps] = _lagrange(phase, taps)
    made = table.astype(np.float32), shares.astype(np.float32)
    for one in made:
        one.flags.writeable = False
    return made


@cache
def gains(name: str) -> Floats | None:
    """What the inverse variance of sums gains by the area of a pixel, for areas of 1, 1 + 1/GAIN_STEPS and so on.

    None of a kernel that averages over the area: that itself. A kernel looks at some places of the image only, so
    coarser pixels gain less than their area, and at last nothing. Sums are over SUM_PX pixels each way, as in the
    apertures of stars; with the correlation R of interpolated values that are so far apart, in the mean over
    places between the pixels, the variance of one in a line is V(d) = sum over m of (1 - |m| / SUM_PX) R(m d)
    where pixels are d apart, and the gain (V(1) / V(d))^2. Over more pixels of 1.5 it is up to a tenth larger.
    """
    taps = _taps(name)
    if not taps:
        return None
    each = STEPS // FINE
    # The kernel itself, from its first tap's end to that of the last.
    values = tables(name)[0][each // 2 : STEPS : each, :taps].T[::-1].reshape(-1).astype(np.float64) / FINE
    lags = np.arange(len(values)) / FINE
    related = np.correlate(values, values, "full")[len(values) - 1 :] * FINE
    side = np.sqrt(1 + np.arange(GAIN_STEPS * (LARGEST_AREA - 1) + 1) / GAIN_STEPS)
    variance = np.full(len(side), related[0])
    for m in range(1, SUM_PX):
        variance += 2 * (1 - m / SUM_PX) * np.interp(m * side, lags, related, right=0.0)
    made: Floats = np.square(variance[0] / variance).astype(np.float32)
    made.flags.writeable = False
    return made


def _lanczos(phase: Doubles, half: int) -> Doubles:
    away = phase[:, None] - np.arange(1 - half, half + 1)
    weights = np.sinc(away) * np.sinc(away / half)
    made: Doubles = weights / weights.sum(axis=1, keepdims=True)
    return made


def _lagrange(phase: Doubles, taps: int) -> Doubles:
    points = np.arange(1 - taps // 2, taps // 2 + 1)
    made = np.ones((len(phase), taps))
    for i in range(taps):
        for j in range(taps):
            if i != j:
                made[:, i] *= (phase - points[j]) / (points[i] - points[j])
    return made
