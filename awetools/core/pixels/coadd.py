"""Layers of resampled frames become one image: weighted mean, clipped mean or median, and what entered it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import BadValue
from .coaddnumpy import centres, combine, contrast
from .kernels import kernel
from .mask import Bit
from .outliersnumpy import MARGIN
from .stack import median_equivalent

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Masks = npt.NDArray[np.int16]
Span = tuple[int, int]
Method = Literal["mean", "clip", "median"]

METHODS: tuple[Method, ...] = ("mean", "clip", "median")


class Layer(NamedTuple):
    """A frame on the grid, as far as it reaches: its number, rows and columns of the grid, and its planes.

    ``weight``: the inverse variance, 0 where there is no good value.
    """

    number: int
    rows: Span
    columns: Span
    data: Floats
    weight: Floats
    mask: Masks


@dataclass(frozen=True)
class Stacking:
    """How layers are combined.

    ``method``: 'mean', weighted by the inverse variances; 'clip', the same without outliers; 'median'.
    ``clip_sigma``, ``clip_fraction``, ``reach_px`` (about half of a star's FWHM): see
    :func:`stack_layers`. BadValue for what makes no sense.
    """

    method: Method = "clip"
    clip_sigma: float = 3.5
    clip_fraction: float = 1.0
    reach_px: int = 2

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise BadValue(f"frames are combined by {', '.join(METHODS)}, not by '{self.method}'")
        if not self.clip_sigma > 0 or not math.isfinite(self.clip_sigma):
            raise BadValue(f"clipping at {self.clip_sigma} sigma: it must be more than 0")
        if not 0 <= self.clip_fraction < math.inf or not 0 <= self.reach_px <= 64:
            raise BadValue(f"clipping by {self.clip_fraction} of the contrast within {self.reach_px} pixels")

    @property
    def halo_px(self) -> int:
        """Rows above and below its own ones that a strip needs."""
        return max(self.reach_px + 1, MARGIN) if self.method == "clip" else 0


class Strip(NamedTuple):
    """Rows of the result: planes (rows, nx), and what was clipped.

    ``clipped`` (n, 3) int32: row and column of the grid, and number of the frame, in this order.
    ``tally`` (frames, 2): values of each frame that entered, and that were clipped.
    """

    sci: Floats
    weight: Floats
    entered: Masks
    mask: Masks
    clipped: npt.NDArray[np.int32]
    tally: npt.NDArray[np.int64]


def stack_layers(layers: Sequence[Layer], rows: Span, width: int, frames: int, how: Stacking) -> Strip:
    """Rows of a grid of ``width`` columns, from the layers of ``frames`` frames.

    Layers need the rows that they have of rows[0] - halo_px to rows[1] + halo_px, no others. Values with
    weight 0 do not enter. ``sci``: the weighted mean, or the median; ``weight``: the sum of weights,
    for a median of as many values as its efficiency is worth; ``entered``: how many values did. The
    bits do not depend on how a grid is cut into strips.

    'clip': a value is an outlier if it is farther from the median of its pixel than

        clip_sigma * sigma * sqrt(1 + pi / 2n) + clip_fraction * contrast

    with sigma = sqrt(1 / weight), somewhat more than the scatter of an interpolated value. The
    contrast is the range of medians within ``reach_px`` pixels, less the 2 sigma that noise alone
    makes of it: near a star it is the star's light, on a smooth galaxy or a sky that was left it is
    next to nothing. So where the seeing changes, cores and wings of stars are kept, and outliers
    beside them are not. (Gruen, Seitz and Bernstein 2014, PASP 126, 158, allow a fraction of
    the median itself.)

    Above the median, the frame's other values there tell more. Those of a sharper star differ from
    the medians as these are curved (a median less the mean of the 3 x 3 about it), those of a cosmic
    ray do not. So the differences within 2 pixels each way are fitted by a slope times the curvature,
    the slope being the median of their ratios, weighted by the curvatures. With r the residual that
    three of five are below, clip_fraction * contrast becomes

        clip_fraction * min(contrast, 3 r + curvature / 2 + 0.25 contrast) + slope * curvature

    the last at most 2 clip_fraction * contrast. With fewer than 9 values there is no fit.

    An outlier is left out, and so is a value beside one of the same frame (diagonally too) that is
    farther away than 0.6 of its limit: what hits a detector leaves a track, and interpolation blurs it.

    Of two values the median says nothing: the fainter one is taken to be right, since what hits
    detectors adds light; the square root is then that of 2, and the fraction of the contrast twice
    as large, lest the sharper of two stars be lost. One value is kept. Where all values would be
    left out, all are kept: they do not tell which is right.

    ``mask``: CLIPPED where a value was left out, INTERPOLATED where all that entered were. Where
    no value enters: the bits of all layers (OUTSIDE if there are none), weight 0, and the value 0; but
    saturated and nonlinear pixels are light, and have the mean of theirs: stars keep their cores.
    """
    made = _empty(rows, width, frames)
    about = _about(layers, rows, width, how)
    parts = [
        _combine(some, place, rows[0], how, about, made) for place, some in _rectangles(layers, rows, width)
    ]
    found = np.concatenate(parts) if parts else made.clipped
    found[:, 0] += rows[0]
    order = np.lexsort((found[:, 2], found[:, 1], found[:, 0]))
    return made._replace(clipped=found[order])


def _empty(rows: Span, width: int, frames: int) -> Strip:
    shape = rows[1] - rows[0], width
    sci, weight = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    mask = np.full(shape, int(Bit.OUTSIDE), np.int16)
    found, tally = np.empty((0, 3), np.int32), np.zeros((frames, 2), np.int64)
    return Strip(sci, weight, np.zeros(shape, np.int16), mask, found, tally)


class _About(NamedTuple):
    """What values are judged by.

    ``centre``, ``number``: medians and how many values are good, for the rows of a strip and of its halo.
    ``contrast``: ranges of medians, for one row more each way. ``reach``, ``factor``: by the number of
    good values, the limit of one in sigma, and what part of the sum of weights a median's weight is.
    """

    centre: Floats | None
    contrast: Floats | None
    number: Masks | None
    reach: Floats
    factor: Floats


def _about(layers: Sequence[Layer], rows: Span, width: int, how: Stacking) -> _About:
    limits = _limits(len(layers), how.clip_sigma)
    if how.method == "mean":
        return _About(None, None, None, *limits)
    halo, clip = how.halo_px, how.method == "clip"
    wide = rows[0] - halo, rows[1] + halo
    centre = np.full((wide[1] - wide[0], width), np.nan, np.float32)
    number = np.zeros(centre.shape, np.int16)
    for place, some in _rectangles(layers, wide, width):
        _centres(some, place, wide[0], clip, centre, number)
    if not clip:
        return _About(centre, None, None, *limits)
    bright = np.empty((rows[1] - rows[0] + 2, width), np.float32)
    compiled = kernel("coadd")
    do = contrast if compiled is None else compiled.contrast
    do(centre, halo - 1, how.reach_px, bright)
    return _About(centre, bright, number, *limits)


class Place(NamedTuple):
    """Rows and columns of a grid, all of which have the same layers."""

    rows: Span
    columns: Span


def _rectangles(layers: Sequence[Layer], rows: Span, width: int) -> Iterator[tuple[Place, list[Layer]]]:
    """What is covered, in rectangles, with the layers of each in their order."""
    for below, above in _between([edge for one in layers for edge in one.rows], rows):
        here = [one for one in layers if one.rows[0] <= below and above <= one.rows[1]]
        for left, right in _between([edge for one in here for edge in one.columns], (0, width)):
            some = [one for one in here if one.columns[0] <= left and right <= one.columns[1]]
            if some:
                yield Place((below, above), (left, right)), some


def _between(edges: Sequence[int], span: Span) -> Iterator[Span]:
    inner = sorted({*span, *(edge for edge in edges if span[0] < edge < span[1])})
    return pairwise(inner)


def _layout(layers: Sequence[Layer], place: Place) -> npt.NDArray[np.int64]:
    """Offset of the first pixel in the planes of each layer, and pixels from row to row."""
    made = np.empty((len(layers), 2), np.int64)
    for at, one in zip(made, layers, strict=True):
        stride = one.columns[1] - one.columns[0]
        at[:] = (place.rows[0] - one.rows[0]) * stride + place.columns[0] - one.columns[0], stride
    return made


def _size(place: Place) -> tuple[int, int]:
    return place.rows[1] - place.rows[0], place.columns[1] - place.columns[0]


def _centres(
    layers: Sequence[Layer], place: Place, first: int, fainter: bool, out: Floats, number: Masks
) -> None:
    compiled = kernel("coadd")
    do = centres if compiled is None else compiled.centres
    values, weights = (tuple(getattr(one, name) for one in layers) for name in ("data", "weight"))
    at = place.rows[0] - first, place.columns[0]
    do(
        values,
        weights,
        _layout(layers, place),
        sorting_network(len(layers)),
        fainter,
        out,
        number,
        *at,
        *_size(place),
    )


def _combine(
    layers: Sequence[Layer], place: Place, first: int, how: Stacking, about: _About, made: Strip
) -> npt.NDArray[np.int32]:
    """Fill a rectangle; what was clipped, its rows counted from ``first``."""
    compiled = kernel("coadd")
    do = combine if compiled is None else compiled.combine
    values, weights, bits = (
        tuple(getattr(one, name) for one in layers) for name in ("data", "weight", "mask")
    )
    numbers = np.array([one.number for one in layers], np.int32)
    layout = _layout(layers, place)
    room = 1024
    while True:
        tally, found = np.zeros((len(layers), 2), np.int64), np.empty((room, 3), np.int32)
        planes = about.centre, about.contrast, about.number, made.sci, made.weight, made.entered, made.mask
        arrays = layout, numbers, about.reach, about.factor, *planes, tally, found
        at = place.rows[0] - first, place.columns[0]
        needed = do(
            values, weights, bits, arrays, METHODS.index(how.method), how.clip_fraction, *at, *_size(place)
        )
        if needed <= room:
            break
        room = needed
    np.add.at(made.tally, numbers, tally)
    return found[:needed]


@cache
def _limits(layers: int, clip_sigma: float) -> tuple[Floats, Floats]:
    """By the number of good values: the limit of one in sigma; what part of the sum the median's weight is."""
    count = np.arange(layers + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = clip_sigma * np.sqrt(1 + np.pi / (2 * count))
        factor = median_equivalent(count) / count
    reach[:2] = np.inf
    reach[2:3] = clip_sigma * math.sqrt(2)
    factor[:1] = 0
    return reach.astype(np.float32), factor.astype(np.float32)


@cache
def sorting_network(n: int) -> npt.NDArray[np.int16]:
    """Compare-exchanges (steps, 2) that sort n values: Batcher's merge exchange (Knuth, vol. 3, 5.2.2 M)."""
    steps: list[tuple[int, int]] = []
    top = 1 << max(0, (n - 1).bit_length() - 1)
    p = top if n > 1 else 0
    while p:
        q, r, d = top, 0, p
        while True:
            steps += [(i, i + d) for i in range(n - d) if i & p == r]
            if q == p:
                break
            d, q, r = q - p, q >> 1, p
        p >>= 1
    return np.array(steps, np.int16).reshape(-1, 2)
