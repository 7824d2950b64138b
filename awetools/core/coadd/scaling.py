"""The relative photometric scale of frames, from the pixels of what they overlap on: for fields without stars."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..pixels.coadd import Layer
from .layers import Placed
from .matching import RIDGE, common, groups_of, overlapping, part_of, place_of

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Terms of a plane.
TERMS = 3
# Columns of a block, larger than the seeing; the least part of it that is good in both frames.
BLOCK_PX, LEAST_GOOD, LEAST_ROWS = 16, 0.5, 8
# The variance of a mean of the middle half of normal values, in that of the mean of all.
MIDDLE_HALF = 1.2
# What seeing and places that differ change in a block, as a part of its spread.
STRUCTURE = 0.1
ROUNDS, FIRST_ROUNDS, CLIP_SIGMA, CONVERGED = 30, 3, 4.0, 1e-6
# Parts of the blocks by their light, and how many are in one at least.
BINS, LEAST_IN_BIN = 8, 40
# How far scales are from their start, so that what nothing determines has an error; the least error of a given one.
WEAK_ERROR, LEAST_PRIOR = 1.0, 0.002


@dataclass
class BlockPairs:
    """What two frames have in the same blocks of the grid; ``most`` blocks of a pair in a sample.

    Columns: first, second; u and v of the block in the first and in the second; value in each; variance of
    each; number of the block.
    """

    tables: list[Doubles] = field(default_factory=list)
    most: int = 1000

    def add(self, layers: Sequence[Layer], placed: Sequence[Placed]) -> None:
        """Take those of some rows of the grid; layers have these rows or a part of them."""
        for one, other in overlapping(layers):
            self._pair(one, other, placed)

    def _pair(self, one: Layer, other: Layer, placed: Sequence[Placed]) -> None:
        rows, columns = common(one.rows, other.rows), common(one.columns, other.columns)
        if not rows or not columns or rows[1] - rows[0] < LEAST_ROWS:
            return
        left, right = -(-columns[0] // BLOCK_PX) * BLOCK_PX, columns[1] // BLOCK_PX * BLOCK_PX
        if left >= right:
            return
        planes = [_blocks(plane) for layer in (one, other) for plane in part_of(layer, rows, (left, right))]
        good = (planes[1] > 0) & (planes[3] > 0)
        enough = np.flatnonzero(np.count_nonzero(good, axis=1) >= LEAST_GOOD * good.shape[1])
        if not len(enough):
            return
        enough = enough[:: -(-len(enough) // self.most)]
        measured = [
            _measured(data[enough], weight[enough], good[enough]) for data, weight in (planes[:2], planes[2:])
        ]
        starts = np.arange(left, right, BLOCK_PX)[enough]
        made = np.empty((len(starts), 11))
        made[:, 0], made[:, 1] = one.number, other.number
        for k, layer in enumerate((one, other)):
            window = placed[layer.number].window
            made[:, 2 + 2 * k : 4 + 2 * k] = [
                place_of(window, rows, (int(start), int(start) + BLOCK_PX)) for start in starts
            ]
            made[:, 6 + k], made[:, 8 + k] = measured[k]
        made[:, 10] = rows[0] // LEAST_ROWS * 1e7 + starts
        self.tables.append(made)


def _blocks(plane: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Blocks of all rows, a row of values each."""
    rows, columns = plane.shape
    parts = plane.reshape(rows, columns // BLOCK_PX, BLOCK_PX)
    return np.ascontiguousarray(parts.transpose(1, 0, 2)).reshape(columns // BLOCK_PX, -1)


def _measured(
    data: npt.NDArray[np.float32], weight: npt.NDArray[np.float32], good: npt.NDArray[np.bool_]
) -> tuple[Doubles, Doubles]:
    """The mean of the middle half of the good values of each block, and its variance.

    Stars are in the upper quarter, where a change of the seeing is largest.
    """
    count, row = np.count_nonzero(good, axis=1), np.arange(len(data))
    ordered = np.sort(np.where(good, data, np.inf), axis=1).astype(np.float64)
    low, high = count // 4, count - count // 4
    ordered[~np.isfinite(ordered)] = 0.0
    sums = np.concatenate([np.zeros((len(data), 1)), np.cumsum(ordered, axis=1)], axis=1)
    value = (sums[row, high] - sums[row, low]) / (high - low)
    noise = np.where(good, 1 / np.where(good, weight, 1), 0).sum(axis=1, dtype=np.float64) / count
    spread = (ordered[row, high - 1] - ordered[row, low]) / 1.349
    structure = STRUCTURE**2 * np.maximum(spread**2 - noise, 0)
    return value, MIDDLE_HALF * noise / count + structure


class Scale(NamedTuple):
    """What a frame is to be multiplied by besides, and its relative error; tied: to a scale that was given or,
    where none was, to the largest group of frames that overlap."""

    factor: float
    error: float
    tied: bool


def match_scales(pairs: BlockPairs, numbers: Iterable[int], given: Mapping[int, float]) -> dict[int, Scale]:
    """The factors that make frames equal where they overlap, but for a plane of each: its sky.

    A constant would not do: a gradient of the sky across an object looks like another scale (15 ADU across an
    object of 1000 made 3% of it).

    ``given``: the relative errors of the scales that are known; these are kept within their errors, so that
    the weighted mean of all is right. Without any, the mean of the logarithms is 0 in the largest
    group of frames that overlap. Least squares for factors and planes together, with errors in both
    frames of a pair (York 1966, Can. J. Phys. 44, 1079): noise does not flatten the relation of one
    frame to the other. Blocks far from the fit are clipped.
    """
    numbers = sorted(numbers)
    index = {number: place for place, number in enumerate(numbers)}
    table = np.concatenate(pairs.tables) if pairs.tables else np.empty((0, 11))
    kept = np.isin(table[:, :2], numbers).all(axis=1)
    table = table[kept]
    ends = np.array([index[int(one)] for one in table[:, :2].ravel()], np.int64).reshape(-1, 2)
    groups = groups_of(ends, len(numbers))
    prior = np.array([max(given[one], LEAST_PRIOR) if one in given else np.inf for one in numbers])
    anchored = _anchored(groups, prior)
    fit = _Fit(table, ends, groups, prior)
    logs, errors = fit.solved()
    return {
        number: Scale(float(np.exp(logs[place])), float(errors[place]), place in anchored)
        for number, place in index.items()
    }


def _anchored(groups: Sequence[tuple[int, ...]], prior: Doubles) -> set[int]:
    known = [group for group in groups if np.isfinite(prior[list(group)]).any()]
    return {one for group in known or [max(groups, key=len)] for one in group}


class _Fit:
    """Newton's steps for the logarithms of the factors and for the levels.

    A residual is the difference of what two frames make of a block. How it changes with a factor is the
    brightness there, for which the weighted mean of both is taken: its error does not depend on
    the residual's.
    """

    def __init__(self, table: Doubles, ends: Ints, groups: Sequence[tuple[int, ...]], prior: Doubles) -> None:
        self.ends, self.groups, self.prior = ends, groups, prior
        self.values, self.variances = table[:, 6:8], table[:, 8:10]
        ones = np.ones(len(table))
        sides = [np.stack([ones, table[:, k], table[:, k + 1]], axis=1) for k in (2, 4)]
        # (pairs, side, term): what a level is there.
        self.basis = np.stack(sides, axis=1)
        self.share = _share(table)
        self.logs = np.zeros(len(prior))
        self.levels = np.zeros((len(prior), TERMS))

    def solved(self) -> tuple[Doubles, Doubles]:
        """The logarithms of the factors, and their errors."""
        unit = 1 + TERMS
        columns = (self.ends[:, :, None] * unit + np.arange(unit)).reshape(-1, 2 * unit)
        inverse = np.empty((0, 0))
        for round_ in range(ROUNDS):
            design, away, variance, light = self._linear()
            ratio = np.abs(away) / np.sqrt(variance)
            scale = _excess(ratio, light)
            part = ratio <= CLIP_SIGMA * scale if round_ >= FIRST_ROUNDS else np.ones(len(away))
            weight = self.share * part / (variance * scale**2)
            normal, right = self._equations(design, columns, away, weight)
            inverse = _inverse(normal)
            step = (inverse @ right).reshape(-1, unit)
            self.logs += np.clip(step[:, 0], -1, 1)
            self.levels += step[:, 1:]
            if round_ > FIRST_ROUNDS and float(np.abs(step[:, 0]).max(initial=0)) < CONVERGED:
                break
        return self.logs, np.sqrt(np.diag(inverse)[::unit])

    def _linear(self) -> tuple[Doubles, Doubles, Doubles, Doubles]:
        """Derivatives of the residuals, residuals to be removed, their variances; the light of the blocks."""
        factor = np.exp(self.logs)[self.ends]
        level = (self.basis * self.levels[self.ends]).sum(axis=2)
        seen = factor * self.values - level
        variance = factor**2 * self.variances
        weight = 1 / variance
        light = (weight * seen).sum(axis=1, keepdims=True) / weight.sum(axis=1, keepdims=True)
        bright = light + level
        sides = np.concatenate([bright[:, :, None], -self.basis], axis=2)
        sides[:, 1] *= -1
        away = seen[:, 1] - seen[:, 0]
        return sides.reshape(len(away), 2 * (1 + TERMS)), away, variance.sum(axis=1), light[:, 0]

    def _equations(
        self, design: Doubles, columns: Ints, away: Doubles, weight: Doubles
    ) -> tuple[Doubles, Doubles]:
        unit = 1 + TERMS
        size = len(self.prior) * unit
        flat, right = np.zeros(size * size), np.zeros(size)
        for i in range(design.shape[1]):
            weighted = weight * design[:, i]
            right += np.bincount(columns[:, i], weighted * away, size)
            for j in range(design.shape[1]):
                place = columns[:, i] * size + columns[:, j]
                flat += np.bincount(place, weighted * design[:, j], size * size)
        normal, logs = flat.reshape(size, size), np.arange(len(self.prior)) * unit
        known = 1 / self.prior**2 + 1 / WEAK_ERROR**2 * np.isinf(self.prior)
        normal[logs, logs] += known
        right[logs] -= known * self.logs
        self._gauge(normal, right)
        return normal, right

    def _gauge(self, normal: Doubles, right: Doubles) -> None:
        """What differences do not determine: the mean of the levels of a group, and of its logarithms, is 0."""
        unit = 1 + TERMS
        for group in self.groups:
            places = np.array(group) * unit
            free = np.isinf(self.prior[list(group)]).all()
            for term in range(unit):
                if term == 0 and not free:
                    continue
                at = places + term
                typical = max(float(np.median(normal[at, at])), 1e-30)
                normal[np.ix_(at, at)] += typical
                if term > 1:
                    normal[at, at] += RIDGE * typical
                    right[at] -= RIDGE * typical * self.levels[list(group), term - 1]
                now = self.logs if term == 0 else self.levels[:, term - 1]
                right[at] -= typical * now[list(group)].sum()


def _excess(ratio: Doubles, light: Doubles) -> Doubles:
    """How much more than their errors residuals are, by the light: of it is the photon noise that weights do not
    have, and what differs in the flat fields and the seeing."""
    bins = min(max(len(ratio) // LEAST_IN_BIN, 1), BINS)
    order = np.argsort(light, kind="stable")
    parts = [one for one in np.array_split(order, bins) if len(one)]
    if not parts:
        return np.ones(0)
    scales = [max(float(np.median(ratio[one])) / 0.6745, 1.0) for one in parts]
    return np.interp(light, [float(np.median(light[one])) for one in parts], scales)


def _share(table: Doubles) -> Doubles:
    """What a pair counts: n frames on a block have n - 1 differences, not as many as pairs."""
    _, block = np.unique(table[:, 10], return_inverse=True)
    pairs = np.bincount(block)
    both = np.concatenate([np.stack([block, table[:, k].astype(np.int64)], axis=1) for k in (0, 1)])
    frames = np.bincount(np.unique(both, axis=0)[:, 0], minlength=len(pairs)) if len(table) else pairs
    return np.asarray(((frames - 1) / np.maximum(pairs, 1))[block], np.float64)


def _inverse(normal: Doubles) -> Doubles:
    scale = 1 / np.sqrt(np.diag(normal))
    balanced = normal * scale[:, None] * scale[None, :]
    # The gauge and the weak priors make it positive; this is for what rounding leaves of that.
    balanced[np.diag_indices_from(balanced)] += 1e-13
    return np.asarray(np.linalg.inv(balanced) * scale[:, None] * scale[None, :])
