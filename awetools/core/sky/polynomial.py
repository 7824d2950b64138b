"""Polynomial maps of the plane, as the distortions of world coordinates are, and their inverse."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Numbers = npt.ArrayLike
Pair = tuple[Doubles, Doubles]
Terms = Mapping[tuple[int, int], float]

# Points worked on at once: what is made of them stays in the processor's cache.
BLOCK = 1 << 13
MAX_ITERATIONS = 25
# Where a point moves by more than this part of its distance from the middle, or its area by half,
# it is looked whether the map folds on the way there. Beyond its whole distance it always has.
STEEP = 0.1
# Parts of the way from the middle at which that is looked at.
ON_THE_WAY = tuple(step / 8 for step in range(1, 8))


@dataclass(frozen=True)
class Polynomial:
    """A polynomial of two variables: (p, q, c) for c u^p v^q, and (n, c) for c r^n with r^2 = u^2 + v^2, n odd.

    Made by `Polynomial.of`, so that equal polynomials are equal values.
    """

    terms: tuple[tuple[int, int, float], ...]
    radial: tuple[tuple[int, float], ...] = ()

    @staticmethod
    def of(terms: Terms, radial: Mapping[int, float] | None = None) -> Polynomial:
        """The polynomial of powers (p, q) and their coefficients; those of 0 are left out."""
        kept = sorted((p, q, float(value)) for (p, q), value in terms.items() if value)
        around = sorted((n, float(value)) for n, value in (radial or {}).items() if value)
        return Polynomial(tuple(kept), tuple(around))

    @property
    def coefficients(self) -> dict[tuple[int, int], float]:
        """Powers (p, q) to coefficients, those of the radius left out."""
        return {(p, q): value for p, q, value in self.terms}

    @property
    def degree(self) -> int:
        return max([p + q for p, q, _ in self.terms] + [n for n, _ in self.radial], default=0)

    def value(self, u: Doubles, v: Doubles) -> Doubles:
        """Its values, by Horner's scheme along both variables."""
        value = _horner(self._rows, u, v)
        if self.radial:
            square = u * u + v * v
            value = value + np.sqrt(square) * _around(self.radial, square, lambda n: 1.0)
        return np.broadcast_to(np.asarray(value, np.float64), u.shape)

    def slopes(self, u: Doubles, v: Doubles) -> tuple[Any, Any]:
        """Its derivatives to u and to v; those of r are 0 where r is, by convention."""
        to_u: Any = _horner(self._slope_rows[0], u, v)
        to_v: Any = _horner(self._slope_rows[1], u, v)
        if self.radial:
            square = u * u + v * v
            radius = np.where(square > 0, np.sqrt(square), 1.0)
            factor = _around(self.radial, square, float) / radius
            to_u, to_v = to_u + factor * u, to_v + factor * v
        return to_u, to_v

    @cached_property
    def _rows(self) -> tuple[tuple[float, ...], ...]:
        return _as_rows(self.coefficients)

    @cached_property
    def _slope_rows(self) -> tuple[tuple[tuple[float, ...], ...], ...]:
        to_u = {(p - 1, q): p * value for p, q, value in self.terms if p}
        to_v = {(p, q - 1): q * value for p, q, value in self.terms if q}
        return _as_rows(to_u), _as_rows(to_v)


def _as_rows(terms: Terms) -> tuple[tuple[float, ...], ...]:
    """For each power of u, the coefficients of the powers of v."""
    rows = []
    for p in range(max((p for p, _ in terms), default=-1) + 1):
        highest = max((q for one, q in terms if one == p), default=-1)
        rows.append(tuple(terms.get((p, q), 0.0) for q in range(highest + 1)))
    return tuple(rows)


def _horner(rows: tuple[tuple[float, ...], ...], u: Doubles, v: Doubles) -> Any:
    """The value, as an array or, where nothing depends on u and v, a number."""
    total: Any = 0.0
    for place, row in enumerate(reversed(rows)):
        total = total * u + _along(row, v) if place else _along(row, v)
    return total


def _along(row: tuple[float, ...], v: Doubles) -> Any:
    if not row:
        return 0.0
    value: Any = row[-1]
    for coefficient in row[-2::-1]:
        value = value * v + coefficient
    return value


def _around(
    radial: tuple[tuple[int, float], ...], square: Doubles, factor: Callable[[int], float]
) -> Doubles:
    """The sum of factor(n) c r^(n - 1) over the terms of the radius; n - 1 is even."""
    total = np.zeros_like(square)
    for n, value in radial:
        total += factor(n) * value * square ** ((n - 1) // 2)
    return total


@dataclass(frozen=True)
class Distortion:
    """A map of the plane, x(u, v) and y(u, v) with their linear terms.

    before: whether it acts on pixel offsets before the matrix (SIP), or on degrees of the
    tangent plane behind it (TPV, photographic plates).
    """

    x: Polynomial
    y: Polynomial
    before: bool

    @property
    def degree(self) -> int:
        return max(self.x.degree, self.y.degree)

    @cached_property
    def linear(self) -> tuple[float, float, float, float]:
        """Derivatives at (0, 0): x to u, x to v, y to u, y to v."""
        x, y = self.x.coefficients, self.y.coefficients
        return x.get((1, 0), 0.0), x.get((0, 1), 0.0), y.get((1, 0), 0.0), y.get((0, 1), 0.0)

    def apply(self, u: Doubles, v: Doubles) -> Pair:
        """Where points go."""
        return self.x.value(u, v), self.y.value(u, v)

    def undo(self, x: Doubles, y: Doubles, tolerance: float) -> Pair:
        """Where points come from, by Newton's method, to the tolerance in u and v; nan where it cannot be told.

        Of several places the one that the middle leads to without a fold between: a
        point far outside the image must not come back into it by way of a high power.
        """
        a, b, c, d = self.linear
        determinant = a * d - b * c
        if determinant == 0:
            return np.full(x.shape, np.nan), np.full(x.shape, np.nan)
        from_x, from_y = self.x.coefficients.get((0, 0), 0.0), self.y.coefficients.get((0, 0), 0.0)
        u0 = (d * (x - from_x) - b * (y - from_y)) / determinant
        v0 = (a * (y - from_y) - c * (x - from_x)) / determinant
        u, v = u0.copy(), v0.copy()
        with np.errstate(all="ignore"):
            converged, area = self._newton(x, y, u, v, tolerance)
            ratio, distance = area / determinant, np.hypot(u, v) + 1e3 * tolerance
            moved = np.hypot(u - u0, v - v0)
            converged &= moved <= distance
            steep = converged & ~((moved < STEEP * distance) & (np.abs(ratio - 1) < 0.5))
            if steep.any():
                converged[steep] = self._unfolded(u[steep], v[steep], ratio[steep], determinant)
        u[~converged] = v[~converged] = np.nan
        return u, v

    def _newton(
        self, x: Doubles, y: Doubles, u: Doubles, v: Doubles, tolerance: float
    ) -> tuple[npt.NDArray[np.bool_], Doubles]:
        """Improves u and v in place; which ones converged, and the last determinants."""
        for _ in range(MAX_ITERATIONS):
            away_x, away_y = x - self.x.value(u, v), y - self.y.value(u, v)
            a, b = self.x.slopes(u, v)
            c, d = self.y.slopes(u, v)
            area = np.broadcast_to(a * d - b * c, u.shape)
            step_u, step_v = (d * away_x - b * away_y) / area, (a * away_y - c * away_x) / area
            u += step_u
            v += step_v
            # The error after a step is of the order of the square of the step.
            reach = tolerance + 4e-16 * (np.abs(u) + np.abs(v))
            converged = (np.abs(step_u) <= reach) & (np.abs(step_v) <= reach)
            lost = ~np.isfinite(u + v)
            if (converged | lost).all():
                break
        return converged & ~lost, area

    def _unfolded(self, u: Doubles, v: Doubles, ratio: Doubles, determinant: float) -> npt.NDArray[np.bool_]:
        kept = ratio > 0
        for part in ON_THE_WAY:
            a, b = self.x.slopes(part * u, part * v)
            c, d = self.y.slopes(part * u, part * v)
            kept &= (a * d - b * c) * determinant > 0
        return kept


def in_blocks(work: Callable[[Doubles, Doubles], Pair], one: Numbers, other: Numbers) -> Pair:
    """A function of pairs over whole arrays, block by block; the results have the common shape."""
    first, second = np.broadcast_arrays(np.asarray(one, np.float64), np.asarray(other, np.float64))
    shape = first.shape
    first, second = first.ravel(), second.ravel()
    made = np.empty(first.size), np.empty(first.size)
    # What cannot be told is nan, which is all that is said of it.
    with np.errstate(all="ignore"):
        for part in _parts(first.size):
            made[0][part], made[1][part] = work(first[part], second[part])
    return made[0].reshape(shape), made[1].reshape(shape)


def _parts(size: int) -> Iterator[slice]:
    for start in range(0, size, BLOCK):
        yield slice(start, start + BLOCK)
