"""Candidates for trails: sums of a binned image along all of its straight lines."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .smooth import block_statistics, fill_gaps, interpolate_blocks

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

# A pixel votes with this at most, a cell with so many times its own noise: no star outvotes a line.
PIXEL_CAP_SIGMA = 4.0
CELL_CAP_SIGMA = 3.0
LEAST_CELL_FRACTION = 0.25
# The votes are flattened on this scale, in cells, so that galaxies do not vote.
FLAT_CELLS = 10
# How far beside a line, in cells, its surroundings are looked at.
SIDE_CELLS = (4, 8)
CANDIDATES_PER_STAGE = 500
TESTS_PER_PASS = 12
# Weaker candidates, down to this part of the threshold, are trails only where they are bright: the caps
# keep bright trails in crowded fields from being more significant.
WEAK_FRACTION = 0.7
WEAK_TESTS_PER_PASS = 5


@dataclass(frozen=True, eq=False)
class Votes:
    """The binned image: capped sums of the pixels of each cell over its size, and the part that counts.

    Where all pixels count, noise alone gives ``value`` the variance 1.
    """

    value: Floats
    number: Floats


@dataclass(frozen=True, eq=False)
class Line:
    """x of a ridge as a polynomial of y, for the rows ``first`` to ``last`` (half open).

    ``turned``: x and y are exchanged, so that no line is less steep than 45 degrees;
    ``significance``: of its votes, over the threshold.
    """

    terms: Doubles
    first: int
    last: int
    turned: bool
    significance: float

    def at(self, rows: Array) -> Doubles:
        """The x of the ridge at these rows, px."""
        t = rows / 1000.0
        x = np.zeros(np.shape(rows))
        for term in self.terms[::-1]:
            x = x * t + term
        return x

    @property
    def stretch(self) -> float:
        """Length of the line per row."""
        begin, end = self.at(np.array([self.first, self.last]))
        return math.hypot(1.0, float(end - begin) / max(self.last - self.first, 1))


class _Peak(NamedTuple):
    """A line through cells: x where it begins, slope dx/dy, rows (half open), significance over the threshold."""

    significance: float
    begin: float
    slope: float
    first: int
    last: int


def votes_of(image: Floats, use: Bools, size: int) -> Votes | None:
    ny, nx = (length // size for length in image.shape)
    if min(ny, nx) < 2:
        return None
    value, number = np.empty((ny, nx), np.float32), np.empty((ny, nx), np.float32)
    step = max(1, (1 << 18) // (nx * size * size))
    for j in range(0, ny, step):
        k = min(ny, j + step)
        good = use[j * size : k * size, : nx * size]
        part = np.clip(image[j * size : k * size, : nx * size], -PIXEL_CAP_SIGMA, PIXEL_CAP_SIGMA)
        part = np.where(good, part, np.float32(0))
        value[j:k] = _binned(part, size, np.dtype(np.float32))
        number[j:k] = _binned(good.view(np.uint8), size, np.dtype(np.uint8))
    value /= size
    number /= size * size
    few = number < LEAST_CELL_FRACTION
    value[few] = 0
    number[few] = 0
    if few.all():
        return None
    value -= _smooth_level(value, number) * number
    cap = CELL_CAP_SIGMA * np.sqrt(number)
    np.clip(value, -cap, cap, out=value)
    return Votes(value, number)


def _binned(part: Array, size: int, kind: np.dtype[Any]) -> Array:
    ny, nx = part.shape
    rows = np.add.reduce(part.reshape(ny // size, size, nx), axis=1, dtype=kind)
    sums: Array = np.add.reduce(rows.reshape(ny // size, nx // size, size), axis=2, dtype=kind)
    return sums


def _smooth_level(value: Floats, number: Floats) -> Floats:
    known = number > 0
    level = np.divide(value, number, out=np.zeros_like(value), where=known)
    blocks = block_statistics(level, known, FLAT_CELLS)
    if np.isnan(blocks.median).all():
        return np.zeros_like(value)
    return interpolate_blocks(fill_gaps(blocks.median), blocks, value.shape)


def forget(votes: Votes, corridor: Bools, size: int) -> None:
    """Take the cells that a trail touches out of the votes, in place."""
    ny, nx = votes.value.shape
    touched = _binned(corridor[: ny * size, : nx * size].view(np.uint8), size, np.dtype(np.uint8)) > 0
    votes.value[touched] = 0
    votes.number[touched] = 0


def candidates(
    votes: Votes, size: int, threshold: float, least_length_px: float, tested: list[Line]
) -> Iterator[Line]:
    """The most significant lines, best first, without those that follow one that was tested."""
    found: list[tuple[_Peak, bool, bool]] = []
    for turned in (False, True):
        for flipped in (False, True):
            value, number = (one.T if turned else one for one in (votes.value, votes.number))
            if flipped:
                value, number = value[:, ::-1], number[:, ::-1]
            # A small frame may have no stage of the whole least length.
            least = min(least_length_px / size, 1 << (len(value).bit_length() - 1))
            for stage in _line_sums(value, number):
                if stage.shape[2] >= least:
                    found += [(peak, turned, flipped) for peak in _peaks(stage, threshold, least)]
    found.sort(key=lambda one: -one[0].significance)
    tests = 0
    for peak, turned, flipped in found:
        if tests >= (TESTS_PER_PASS if peak.significance >= 1 else WEAK_TESTS_PER_PASS):
            return
        line = _line_of_cells(peak, size, votes.value.shape[0 if turned else 1], turned, flipped)
        if not any(_follows(line, other, 3.0 * size) for other in tested):
            tests += 1
            yield line


def _line_sums(value: Floats, number: Floats) -> Iterator[Floats]:
    """Sums of both arrays (ny, nx) along the lines of every dyadic number of rows.

    A stage of ``size`` rows is (2, strips, size, nx + size): of each strip of so many rows,
    and each shift 0 to size - 1 of x between its first row and its last, the line that
    begins at x = column - size. Two lines of one stage, end to end, make one of the next.
    """
    ny, nx = value.shape
    stage = np.zeros((2, ny, 1, nx + 1), np.float32)
    stage[0, :, 0, 1:], stage[1, :, 0, 1:] = value, number
    size = 1
    while stage.shape[1] >= 2:
        strips = stage.shape[1] // 2
        longer = np.zeros((2, strips, 2 * size, nx + 2 * size), np.float32)
        for shift in range(2 * size):
            near, begins = shift // 2, size - (shift + 1) // 2
            longer[:, :, shift, size:] = stage[:, 0 : 2 * strips : 2, near]
            longer[:, :, shift, begins : begins + nx + size] += stage[:, 1 : 2 * strips : 2, near]
        stage, size = longer, 2 * size
        yield stage


def _peaks(stage: Floats, threshold: float, least: float) -> Iterator[_Peak]:
    """The most significant lines of a stage: two neighbouring cells wide, above both their sides."""
    value, number = stage[:, :, :, 1:] + stage[:, :, :, :-1]
    rows = stage.shape[2]
    sample = (slice(None), slice(None, None, max(1, rows // 16)), slice(None, None, 4))
    long = number[sample] > least
    if not long.any():
        return
    scatter = np.quantile(value[sample][long] / np.sqrt(number[sample][long]), (0.25, 0.75))
    # Stars and galaxies scatter lines by more than the noise does.
    cut = threshold * max(1.0, float(scatter[1] - scatter[0]) / 1.349)
    low = WEAK_FRACTION * cut
    high = np.flatnonzero(value * value > np.float32(low * low) * number)
    high = high[(value.ravel()[high] > 0) & (number.ravel()[high] > least)]
    strip, shift, column = np.unravel_index(high, value.shape)
    excess = np.zeros(len(high))
    for side in SIDE_CELLS:
        beside = np.maximum(*(_level(value, number, strip, shift, column + step) for step in (-side, side)))
        n = number[strip, shift, column]
        excess = np.maximum(excess, (value[strip, shift, column] - n * beside) / np.sqrt(n))
    best = np.argsort(-excess, kind="stable")[:CANDIDATES_PER_STAGE]
    best = best[excess[best] > low]
    columns = (excess / cut, column - rows + 0.5, shift / max(rows - 1, 1), strip * rows)
    for significance, begin, slope, first in zip(*(one[best].tolist() for one in columns), strict=True):
        yield _Peak(significance, begin, slope, first, first + rows)


def _level(value: Floats, number: Floats, strip: Integers, shift: Integers, column: Integers) -> Doubles:
    """Mean level of other lines; 0 where there is none."""
    inside = (column >= 0) & (column < value.shape[2])
    column = np.clip(column, 0, value.shape[2] - 1)
    n = number[strip, shift, column]
    level: Doubles = np.where(inside & (n > 0), value[strip, shift, column] / np.maximum(n, 1e-3), 0.0)
    return level


def _line_of_cells(peak: _Peak, size: int, nx: int, turned: bool, flipped: bool) -> Line:
    begin, slope = peak.begin, peak.slope
    if flipped:
        begin, slope = nx - 1 - begin, -slope
    # Cell c has its centre at pixel size c + (size - 1) / 2.
    half = 0.5 * (size - 1)
    x = size * (begin - slope * peak.first) + half - slope * half
    terms = np.array([x, 1000.0 * slope])
    return Line(terms, peak.first * size, peak.last * size, turned, peak.significance)


def _follows(line: Line, other: Line, within_px: float) -> bool:
    """True if both ends of a line lie beside the other, or its continuation."""
    rows = np.array([line.first, line.last - 1], float)
    x = line.at(rows)
    if line.turned != other.turned:
        rows, x = x, rows
    return bool(np.all(np.abs(x - other.at(rows)) < within_px * other.stretch))
