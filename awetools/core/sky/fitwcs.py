"""Fits of the tangent plane to pixels: least squares with errors, and the coordinate system they make."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..distortion import conjugated, inverse
from ..errors import BadHeader, BadValue, Mixture, TooFew
from .leastsquares import design_matrix, least_squares, powers_of
from .polynomial import Distortion, Doubles, Pair, Polynomial
from .wcs import Wcs
from .writewcs import centred, without_linear

HIGHEST_DEGREE = 7


@dataclass(frozen=True, eq=False)
class PolynomialFit:
    """A polynomial of pixels fitted to tangent-plane coordinates in degrees.

    centre, scale: its variables are (x - centre) / scale, from -1 to 1; coefficients
    (2, terms) of xi and eta, by the powers of `powers_of(degree)`; covariance (terms, terms)
    of either, in deg^2 where the weights are inverse variances, of weight 1 else; count of
    points; chi2 and rms_deg of xi and eta (weighted).
    """

    degree: int
    centre: tuple[float, float]
    scale: float
    coefficients: Doubles
    covariance: Doubles
    count: int
    chi2: tuple[float, float]
    rms_deg: tuple[float, float]

    @property
    def freedom(self) -> int:
        """Degrees of freedom of one axis."""
        return self.count - len(powers_of(self.degree))

    @property
    def variance_factor(self) -> float:
        """By what the covariance is multiplied if the scatter about the fit says the errors, not the weights."""
        return sum(self.chi2) / max(2 * self.freedom, 1)

    def predict(self, x: npt.ArrayLike, y: npt.ArrayLike) -> Pair:
        """xi and eta in degrees at pixels."""
        u, v = self._variables(x, y)
        return self._map.apply(u, v)

    def errors(self, x: npt.ArrayLike, y: npt.ArrayLike) -> Doubles:
        """The standard error of the fit at pixels, of xi as of eta, in degrees if the weights say so."""
        u, v = self._variables(x, y)
        design = design_matrix(self.degree, u.ravel(), v.ravel())
        variance = ((design @ self.covariance) * design).sum(axis=1)
        return np.asarray(np.sqrt(variance).reshape(u.shape), np.float64)

    def terms(self, axis: int) -> dict[tuple[int, int], float]:
        """The coefficients of xi (0) or eta (1) by powers of pixels from the centre, degrees."""
        return {
            (p, q): float(value) / self.scale ** (p + q)
            for (p, q), value in zip(powers_of(self.degree), self.coefficients[axis], strict=True)
        }

    def _variables(self, x: npt.ArrayLike, y: npt.ArrayLike) -> Pair:
        u = (np.asarray(x, np.float64) - self.centre[0]) / self.scale
        v = (np.asarray(y, np.float64) - self.centre[1]) / self.scale
        first, second = np.broadcast_arrays(u, v)
        return first, second

    @cached_property
    def _map(self) -> Distortion:
        powers = powers_of(self.degree)
        x, y = (Polynomial.of(dict(zip(powers, row.tolist(), strict=True))) for row in self.coefficients)
        return Distortion(x, y, before=True)


def fit_linear(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    xi_deg: npt.ArrayLike,
    eta_deg: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
) -> PolynomialFit:
    """The affine map of pixels to the tangent plane: `fit_polynomial` of degree 1."""
    return fit_polynomial(1, x, y, xi_deg, eta_deg, weight)


def fit_polynomial(
    degree: int,
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    xi_deg: npt.ArrayLike,
    eta_deg: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
) -> PolynomialFit:
    """The polynomial of a degree that leads pixels to tangent-plane coordinates, by weighted least squares.

    weight: inverse variances of xi and of eta in deg^-2, or relative ones; a point of
    weight 0 is left out. By orthogonal decomposition in coordinates from -1 to 1, so that
    degree 7 is as safe as degree 1. Raises TooFew where the points do not determine
    every term (too few, on one line, in one place), Mixture for columns of different
    lengths, BadValue for a degree out of 1 to 7 or values that are not finite.
    """
    if not 1 <= degree <= HIGHEST_DEGREE:
        raise BadValue(f"a polynomial of degree {degree}: from 1 to {HIGHEST_DEGREE} is possible")
    columns = _columns(x, y, xi_deg, eta_deg, weight)
    px, py, xi, eta, weights = columns[:, columns[4] > 0]
    terms = len(powers_of(degree))
    if len(px) < terms:
        raise TooFew(f"{len(px)} points for a polynomial of degree {degree}: it has {terms} terms")
    centre, scale = _normalisation(px, py)
    design = design_matrix(degree, (px - centre[0]) / scale, (py - centre[1]) / scale)
    root = np.sqrt(weights)
    values = np.stack([xi, eta], axis=1) * root[:, None]
    coefficients, covariance = least_squares(design * root[:, None], values)
    away = np.stack([xi, eta]) - coefficients @ design.T
    chi2 = (weights * away * away).sum(axis=1)
    rms = np.sqrt(chi2 / weights.sum())
    return PolynomialFit(
        degree=degree,
        centre=centre,
        scale=scale,
        coefficients=coefficients,
        covariance=covariance,
        count=len(px),
        chi2=(float(chi2[0]), float(chi2[1])),
        rms_deg=(float(rms[0]), float(rms[1])),
    )


def fit_best(
    highest_degree: int,
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    xi_deg: npt.ArrayLike,
    eta_deg: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
) -> PolynomialFit:
    """The fit of the degree, up to the highest, that Akaike's corrected criterion prefers.

    The scale of the errors counts as unknown. Arguments and errors as `fit_polynomial`.
    Source: Hurvich and Tsai 1989, Biometrika 76, 297.
    """
    best, lowest = None, math.inf
    for degree in range(1, highest_degree + 1):
        try:
            fit = fit_polynomial(degree, x, y, xi_deg, eta_deg, weight)
        except TooFew:
            if best is None:
                raise
            break
        criterion = information(fit)
        if best is None or criterion < lowest:
            best, lowest = fit, criterion
    if best is None:
        raise BadValue(f"a polynomial of degree {highest_degree}: from 1 to {HIGHEST_DEGREE} is possible")
    return best


def information(fit: PolynomialFit) -> float:
    """Akaike's corrected information criterion of a fit; infinite where it has too few points to tell."""
    number, parameters = 2 * fit.count, 2 * len(powers_of(fit.degree)) + 1
    if number - parameters - 1 <= 0:
        return math.inf
    scatter = max(sum(fit.chi2) / number, 5e-324)
    correction = 2 * parameters * (parameters + 1) / (number - parameters - 1)
    return number * math.log(scatter) + 2 * parameters + correction


def wcs_of_fit(fit: PolynomialFit, crval_deg: tuple[float, float]) -> Wcs:
    """The coordinate system of a fit about a tangent point, exactly: the reference pixel is where xi and eta are 0.

    Where no pixel leads there (the tangent point is far off the image), the reference
    pixel is the middle of the points, and the distortion, behind the matrix, has a
    constant: such a system is written as TPV. Raises BadHeader for a fit that turns
    the image inside out at its reference pixel.
    """
    x, y = fit.terms(0), fit.terms(1)
    try:
        x, y, offset = centred(x, y)
    except BadHeader:
        return _off_the_image(fit, crval_deg, x, y)
    made = Wcs(
        crval_deg=crval_deg,
        crpix=(fit.centre[0] + offset[0], fit.centre[1] + offset[1]),
        matrix=(x[1, 0], x[0, 1], y[1, 0], y[0, 1]),
    )
    return made if fit.degree == 1 else replace(made, distortion=without_linear(x, y))


def _off_the_image(
    fit: PolynomialFit,
    crval_deg: tuple[float, float],
    x: dict[tuple[int, int], float],
    y: dict[tuple[int, int], float],
) -> Wcs:
    made = Wcs(crval_deg=crval_deg, crpix=fit.centre, matrix=(x[1, 0], x[0, 1], y[1, 0], y[0, 1]))
    a, b, c, d = inverse(made.matrix)
    offsets = [
        {one: e * x.get(one, 0.0) + f * y.get(one, 0.0) for one in {**x, **y}} for e, f in ((a, b), (c, d))
    ]
    behind = conjugated(offsets[0], offsets[1], made.matrix)
    made_of = Distortion(Polynomial.of(behind[0]), Polynomial.of(behind[1]), before=False)
    return replace(made, distortion=made_of)


def _columns(*given: npt.ArrayLike | None) -> Doubles:
    """x, y, xi, eta and weight as rows of one array."""
    size = np.asarray(given[0]).size
    columns = [np.ones(size) if one is None else np.asarray(one, np.float64).ravel() for one in given]
    if any(len(one) != size for one in columns):
        raise Mixture("columns of a fit of " + " ".join(str(len(one)) for one in columns) + " points")
    made = np.stack(columns)
    if not np.isfinite(made).all() or (made[4] < 0).any():
        raise BadValue("a fit to values that are not finite, or with weights below 0")
    return made


def _normalisation(x: Doubles, y: Doubles) -> tuple[tuple[float, float], float]:
    centre = 0.5 * float(x.min() + x.max()), 0.5 * float(y.min() + y.max())
    return centre, max(float(np.ptp(x)), float(np.ptp(y))) / 2 or 1.0
