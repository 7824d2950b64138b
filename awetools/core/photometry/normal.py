"""The normal equations of frames that share stars: the stars are eliminated, the frames are left, sparse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..sky.match import Places
from ..sky.polynomial import Doubles
from .robustfit import Mask

# The covariance of a group of no more frames is computed whole; of a larger one its diagonal is drawn.
MOST_EXACT = 1200
DRAWS = 200
# With more pairs of frames than this that share a star, the matrix is not built.
MOST_PAIRS = 30_000_000
FEW_DRAWS = 8
TOLERANCE = 1e-10
SEED = 20120511


@dataclass(frozen=True, eq=False)
class Ties:
    """Measures of stars in frames: frame and star (n,) by number, weight (n,), and the weight of a star's anchor.

    The model: magnitude + zero point of the frame = magnitude of the star. Groups are frames
    joined by stars; one without an anchor has zero points whose mean is 0.
    """

    frame: Places
    star: Places
    weight: Doubles
    anchor: Doubles
    frames: int

    def _by_frame(self, values: Doubles) -> Doubles:
        return np.asarray(np.bincount(self.frame, values, self.frames), np.float64)

    @cached_property
    def total(self) -> Doubles:
        """The weight of each star."""
        return np.bincount(self.star, self.weight, len(self.anchor)) + self.anchor

    @cached_property
    def group(self) -> Places:
        """The group of each frame, (frames,), numbered by its first frame."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        good = np.flatnonzero(self.weight > 0)
        size = self.frames + len(self.anchor)
        entries = np.ones(len(good), np.int8), (self.frame[good], self.frames + self.star[good])
        label = connected_components(coo_array(entries, shape=(size, size)), directed=False)[1]
        return np.unique(label[: self.frames], return_inverse=True)[1].astype(np.int64)

    @cached_property
    def anchored(self) -> Mask:
        """Whether each group has an anchor."""
        found = np.zeros(int(self.group.max()) + 1, np.bool_)
        found[self.group[self.frame[(self.anchor[self.star] > 0) & (self.weight > 0)]]] = True
        return found

    @cached_property
    def free(self) -> Places:
        """The frames whose zero points are unknowns: all but the first of each group without an anchor."""
        first = np.unique(self.group, return_index=True)[1]
        out = np.zeros(self.frames, np.bool_)
        out[first[~self.anchored]] = True
        return np.flatnonzero(~out)

    def means(self, values: Doubles, anchors: Doubles) -> Doubles:
        """The weighted mean of each star, 0 where it has no weight."""
        total = np.where(self.total > 0, self.total, 1.0)
        return (
            np.bincount(self.star, self.weight * values, len(self.anchor)) + self.anchor * anchors
        ) / total

    def right(self, magnitudes: Doubles, anchors: Doubles) -> Doubles:
        """The right-hand side for magnitudes (n,) and anchors by star."""
        away = magnitudes - self.means(magnitudes, anchors)[self.star]
        return -self._by_frame(self.weight * away)

    def zero_points(self, magnitudes: Doubles, anchors: Doubles) -> Doubles:
        """The zero points by frame that fit best."""
        return self._centred(self._solved(self.right(magnitudes, anchors)))

    @cached_property
    def diagonal(self) -> Doubles:
        """The diagonal of the matrix, by frame."""
        total = np.where(self.total > 0, self.total, 1.0)[self.star]
        return self._by_frame(self.weight * (1 - self.weight / total))

    @cached_property
    def variances(self) -> Doubles:
        """The variance of each zero point; of a lone frame without an anchor not-a-number."""
        found = np.empty(self.frames)
        sizes = np.bincount(self.group)
        if self._pairs > MOST_PAIRS:
            drawn = self._drawn(FEW_DRAWS) * self.diagonal
            found[:] = drawn[self.diagonal > 0].mean() / np.maximum(self.diagonal, 1e-300)
        else:
            large = sizes[self.group] > MOST_EXACT
            if large.any():
                found[large] = self._drawn(DRAWS)[large]
            self._exact(found, ~large)
        found[(sizes == 1)[self.group] & ~self.anchored[self.group]] = np.nan
        return found

    @cached_property
    def _pairs(self) -> float:
        number = np.bincount(self.star[self.weight > 0], minlength=len(self.anchor)).astype(np.float64)
        return float((number * number).sum())

    @cached_property
    def _matrix(self) -> Any:
        from scipy.sparse import coo_array, diags_array

        total = np.where(self.total > 0, self.total, 1.0)
        shape = self.frames, len(self.anchor)
        weights = coo_array((self.weight, (self.frame, self.star)), shape=shape).tocsr()
        shared = weights @ diags_array(1 / total) @ weights.T
        own = self._by_frame(self.weight)
        return (diags_array(own) - shared).tocsr()

    @cached_property
    def _solve(self) -> Callable[[Doubles], Doubles]:
        """What solves the equations of the free frames."""
        if self._pairs > MOST_PAIRS:
            return self._iterated
        from scipy.sparse.linalg import splu

        matrix = self._matrix[self.free][:, self.free].tocsc()
        return splu(  # type: ignore[no-any-return]
            matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        ).solve

    def _iterated(self, right: Doubles) -> Doubles:
        """By conjugate gradients, without the matrix: many frames of one field, which are well tied."""
        from scipy.sparse.linalg import LinearOperator, cg

        size = len(self.free)

        def times(free: Doubles) -> Doubles:
            whole = np.zeros(self.frames)
            whole[self.free] = np.ravel(free)
            values = whole[self.frame]
            away = values - self.means(values, np.zeros(len(self.anchor)))[self.star]
            return self._by_frame(self.weight * away)[self.free]

        scale = 1 / self.diagonal[self.free]
        operator = LinearOperator((size, size), matvec=times, dtype=np.float64)
        nearly = LinearOperator((size, size), matvec=lambda free: scale * np.ravel(free), dtype=np.float64)
        return np.asarray(cg(operator, right, rtol=TOLERANCE, M=nearly, maxiter=20 * size)[0], np.float64)

    def _solved(self, right: Doubles) -> Doubles:
        whole = np.zeros(self.frames)
        if len(self.free):
            whole[self.free] = self._solve(right[self.free])
        return whole

    def _centred(self, values: Doubles) -> Doubles:
        """Groups without an anchor get the mean 0."""
        mean = np.bincount(self.group, values) / np.bincount(self.group)
        return values - np.where(self.anchored, 0.0, mean)[self.group]

    def _drawn(self, draws: int) -> Doubles:
        """The variance by frame from zero points of random errors: right to a part 1 / sqrt(2 draws) of its root."""
        random = np.random.default_rng(SEED)
        some = self.weight > 0
        sigma = np.where(some, 1 / np.sqrt(np.where(some, self.weight, 1.0)), 0.0)
        held = self.anchor > 0
        anchor_sigma = np.where(held, 1 / np.sqrt(np.where(held, self.anchor, 1.0)), 0.0)
        square = np.zeros(self.frames)
        for _ in range(draws):
            made = random.standard_normal(len(sigma)) * sigma
            anchors = random.standard_normal(len(anchor_sigma)) * anchor_sigma
            square += self.zero_points(made, anchors) ** 2
        return square / draws

    def _exact(self, found: Doubles, which: Mask) -> None:
        """The variances of the frames of small groups, from the inverse of each."""
        matrix = self._matrix
        order = np.argsort(self.group, kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(self.group[order])) + 1)
        for number, members in enumerate(parts):
            if not which[members[0]]:
                continue
            block = matrix[members][:, members].toarray()
            if self.anchored[number]:
                found[members] = np.diag(np.linalg.inv(block))
            else:
                # The mean is 0: its direction has no variance.
                level = np.trace(block) / len(members) ** 2 or 1.0
                found[members] = np.diag(np.linalg.inv(block + level)) - 1 / (level * len(members) ** 2)
