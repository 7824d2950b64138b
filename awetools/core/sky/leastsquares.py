"""Least squares of polynomials of two variables: the design, its solution and covariance."""

from __future__ import annotations

import numpy as np

from ..errors import TooFew
from .polynomial import Doubles

# A term whose part in the design is less than this, beside all others, is not determined.
LEAST_PART = 1e-9
REFINEMENTS = 2


def powers_of(degree: int) -> list[tuple[int, int]]:
    """The powers (p, q) of a full polynomial, by degree: 1, x, y, x^2, xy, y^2, ..."""
    return [(total - q, q) for total in range(degree + 1) for q in range(total + 1)]


def design_matrix(degree: int, u: Doubles, v: Doubles) -> Doubles:
    """The powers of two variables, (points, terms), in the order of `powers_of`."""
    made = np.empty((len(u), (degree + 1) * (degree + 2) // 2))
    made[:, 0] = 1
    place = 1
    for total in range(1, degree + 1):
        before = place - total
        made[:, place : place + total] = made[:, before:place] * u[:, None]
        made[:, place + total] = made[:, place - 1] * v
        place += total + 1
    return made


def least_squares(design: Doubles, values: Doubles) -> tuple[Doubles, Doubles]:
    """Coefficients (columns of values, terms) and their covariance (terms, terms) for values of variance 1.

    design (points, terms), values (points, columns). Raises TooFew where the points do not
    determine every term. Source: the corrected seminormal equations (Bjorck 1987, Linear
    Algebra Appl. 88, 31): the triangle of the orthogonal decomposition alone, whose other
    part costs most, and corrections by the residuals, as exact as the whole.
    """
    norm = np.sqrt((design * design).sum(axis=0))
    norm[norm == 0] = 1.0
    scaled = design / norm
    triangle = np.linalg.qr(scaled, mode="r")
    if len(design) < design.shape[1] or np.abs(np.diag(triangle)).min() < LEAST_PART:
        raise TooFew(f"{len(design)} points lie so that they do not determine {design.shape[1]} terms")
    inverse = np.linalg.inv(triangle)
    covariance = inverse @ inverse.T
    found = covariance @ (scaled.T @ values)
    for _ in range(REFINEMENTS):
        found += covariance @ (scaled.T @ (values - scaled @ found))
    return (found / norm[:, None]).T, np.asarray(covariance / np.outer(norm, norm), np.float64)
