"""Polynomial fits of the tangent plane: they find what is there, with right errors, and become coordinate systems."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awetools.core.errors import BadHeader, BadValue, Mixture, TooFew
from awetools.core.sky.fitwcs import (
    PolynomialFit,
    fit_best,
    fit_linear,
    fit_polynomial,
    information,
    wcs_of_fit,
)
from awetools.core.sky.leastsquares import design_matrix, powers_of
from awetools.core.sky.readwcs import read_wcs
from awetools.core.sky.sphere import separation_arcsec, to_tangent
from awetools.core.sky.writewcs import wcs_as_cards

NX, NY = 2048, 4096
SCALE = 0.24 / 3600
CRVAL = (200.0, 50.0)
# As the distortion of an optic: 0.5% of the radius at the corner.
CUBIC = 0.005 / 2300.0**2


def truth(
    x: np.ndarray, y: np.ndarray, offset: tuple[float, float] = (1000.0, 2000.0)
) -> tuple[np.ndarray, np.ndarray]:
    u, v = x - offset[0], y - offset[1]
    factor = SCALE * (1 + CUBIC * (u * u + v * v))
    return -factor * (u + 0.01 * v), factor * (v - 0.02 * u)


def stars(count: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(1, NX, count), rng.uniform(1, NY, count)


def scattered(count: int, sigma_deg: float, seed: int = 1) -> tuple[np.ndarray, ...]:
    x, y = stars(count, seed)
    rng = np.random.default_rng(seed + 1000)
    xi, eta = truth(x, y)
    return x, y, xi + rng.normal(0, sigma_deg, count), eta + rng.normal(0, sigma_deg, count)


@pytest.mark.parametrize("degree", [3, 5, 7])
def test_a_fit_finds_the_polynomial_that_is_there(degree: int) -> None:
    x, y = stars(200)
    xi, eta = truth(x, y)
    fit = fit_polynomial(degree, x, y, xi, eta)
    # 1e-13 degrees are 4e-10 arcsec.
    assert max(fit.rms_deg) < 1e-13
    test_x, test_y = stars(50, 2)
    for found, expected in zip(fit.predict(test_x, test_y), truth(test_x, test_y), strict=True):
        assert np.abs(found - expected).max() < 1e-12


def test_a_linear_fit() -> None:
    fit = fit_linear([1.0, 2.0, 1.0, 2.0], [1.0, 1.0, 2.0, 2.0], [1, 3, 2, 4], [0, 0, 5, 5])
    assert fit.terms(0)[1, 0] == pytest.approx(2) and fit.terms(0)[0, 1] == pytest.approx(1)
    assert fit.terms(1)[0, 1] == pytest.approx(5)
    assert fit.predict(3.0, 3.0) == (pytest.approx(7), pytest.approx(10))
    assert fit.freedom == 1


@settings(deadline=None)
@given(st.integers(1, 7))
def test_the_design_is_made_of_the_powers(degree: int) -> None:
    u, v = np.random.default_rng(degree).uniform(-1, 1, (2, 20))
    expected = np.stack([u**p * v**q for p, q in powers_of(degree)], axis=1)
    assert np.allclose(design_matrix(degree, u, v), expected, rtol=1e-12)


def test_weights_are_inverse_variances_and_errors_are_right() -> None:
    x, y = stars(60)
    exact = truth(x, y)
    rng = np.random.default_rng(5)
    sigma = rng.uniform(1e-6, 1e-5, 60)
    places = np.array([10.0, 1000.0, 2040.0]), np.array([10.0, 2000.0, 4090.0])
    expected = truth(*places)
    pulls, chi2 = [], []
    for _ in range(400):
        fit = fit_polynomial(3, x, y, *(one + rng.normal(0, sigma) for one in exact), 1 / sigma**2)
        found, errors = fit.predict(*places), fit.errors(*places)
        pulls += [(one - other) / errors for one, other in zip(found, expected, strict=True)]
        chi2.append(fit.variance_factor)
    assert np.std(pulls) == pytest.approx(1, abs=0.05)
    assert np.mean(chi2) == pytest.approx(1, abs=0.03)


def test_points_of_weight_0_do_not_count() -> None:
    x, y, xi, eta = scattered(100, 1e-6)
    xi[:30] += 1.0
    weight = np.where(np.arange(100) < 30, 0.0, 2.0)
    fit, clean = (
        fit_polynomial(3, x, y, xi, eta, weight),
        fit_polynomial(3, x[30:], y[30:], xi[30:], eta[30:]),
    )
    assert fit.count == 70
    assert np.allclose(fit.coefficients, clean.coefficients, rtol=1e-9, atol=1e-15)


def test_points_that_do_not_determine_a_fit_are_refused() -> None:
    x, y, xi, eta = scattered(9, 1e-6)
    with pytest.raises(TooFew, match="9 points"):
        fit_polynomial(3, x, y, xi, eta)
    line = np.linspace(0, 1000, 50)
    for where in ((line, 2 * line), (line, np.full(50, 7.0)), (np.full(50, 7.0), np.full(50, 7.0))):
        with pytest.raises(TooFew, match="do not determine"):
            fit_linear(*where, line, line)
    # On one conic the second degree is not determined, the first is.
    angle = np.linspace(0, 6, 50)
    circle = 1000 + 500 * np.cos(angle), 1000 + 500 * np.sin(angle)
    fit_linear(*circle, line, line)
    with pytest.raises(TooFew):
        fit_polynomial(2, *circle, line, line)


def test_a_fit_that_is_hardly_determined_is_still_exact() -> None:
    # Almost on one circle, on which the powers of the second degree depend on each other.
    rng = np.random.default_rng(2)
    angle, radius = rng.uniform(0, 6.28, 200), 1000 + rng.normal(0, 1e-3, 200)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    fit = fit_polynomial(2, x, y, 0.1 + 1e-4 * x, 1e-4 * y + 1e-8 * x * y)
    assert fit.predict(0.0, 0.0)[0] == pytest.approx(0.1, abs=1e-11)


def test_columns_that_make_no_sense_are_refused() -> None:
    with pytest.raises(Mixture, match="4 4 3"):
        fit_linear([1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 3], [1, 2, 3, 4])
    with pytest.raises(BadValue, match="finite"):
        fit_linear([1, 2, np.nan], [1, 3, 3], [1, 2, 3], [1, 2, 3])
    with pytest.raises(BadValue, match="below 0"):
        fit_linear([1, 2, 3], [1, 3, 3], [1, 2, 3], [1, 2, 3], [1, -1, 1])
    for degree in (0, 8):
        with pytest.raises(BadValue, match="degree"):
            fit_polynomial(degree, *scattered(100, 1e-6))
    with pytest.raises(BadValue, match="degree 0"):
        fit_best(0, *scattered(100, 1e-6))


def held_out(fit: PolynomialFit) -> float:
    """The rms of a fit at other places, degrees."""
    x, y = stars(2000, 99)
    (xi, eta), exact = fit.predict(x, y), truth(x, y)
    return float(np.sqrt(np.mean((xi - exact[0]) ** 2 + (eta - exact[1]) ** 2)))


@pytest.mark.parametrize("count", [4, 8, 12, 20, 40, 300])
def test_the_degree_follows_the_stars(count: int) -> None:
    chosen, best, worst = [], [], []
    for seed in range(20):
        columns = scattered(count, 0.1 / 3600, seed)
        fit = fit_best(4, *columns)
        chosen.append(fit.degree)
        every = [fit_polynomial(n, *columns) for n in range(1, 5) if len(powers_of(n)) < count]
        best.append(held_out(fit) / min(held_out(one) for one in every))
        worst.append(max(held_out(one) for one in every) / min(held_out(one) for one in every))
    assert np.median(best) < 1.3
    if count < 10:
        assert max(chosen) == 1
    if count >= 40:
        assert chosen.count(3) >= 16
    assert np.median(worst) >= np.median(best)


def test_too_few_to_tell_is_no_reason_to_prefer() -> None:
    columns = scattered(3, 1e-6)
    assert fit_best(3, *columns).degree == 1
    assert information(fit_linear(*columns)) == float("inf")
    with pytest.raises(TooFew):
        fit_best(3, *scattered(2, 1e-6))


@pytest.mark.parametrize("degree", [1, 2, 3, 5])
@pytest.mark.parametrize("form", ["SIP", "TPV"])
def test_a_fit_becomes_a_system_exactly(degree: int, form: str) -> None:
    x, y, xi, eta = scattered(300, 1e-5)
    fit = fit_polynomial(degree, x, y, xi, eta)
    wcs = wcs_of_fit(fit, CRVAL)
    cards = wcs_as_cards(wcs, form, (NY, NX))
    again = read_wcs(cards)
    assert again == read_wcs(wcs_as_cards(again))
    test_x, test_y = stars(200, 7)
    expected = fit.predict(test_x, test_y)
    for one in (wcs, again):
        found = to_tangent(*one.to_sky(test_x, test_y), *CRVAL)
        assert max(np.abs(a - b).max() for a, b in zip(found, expected, strict=True)) < 1e-12
    if degree == 1:
        assert wcs.distortion is None and cards["CTYPE1"] == "RA---TAN"
    elif form == "SIP":
        assert "AP_ORDER" in cards


def test_a_tangent_point_off_the_image() -> None:
    # A detector at the edge of a mosaic, the tangent point in the mosaic's middle.
    x, y = stars(300)
    xi, eta = truth(x, y, (9000.0, -5000.0))
    wcs = wcs_of_fit(fit_polynomial(3, x, y, xi, eta), CRVAL)
    assert wcs.crpix == (pytest.approx(9000, abs=1e-3), pytest.approx(-5000, abs=1e-3))
    for form in ("SIP", "TPV"):
        cards = wcs_as_cards(wcs, form, (NY, NX))
        assert ("AP_ORDER" in cards) == (form == "SIP")
        found = to_tangent(*read_wcs(cards).to_sky(x, y), *CRVAL)
        assert np.abs(np.array(found) - np.array([xi, eta])).max() < 1e-11


def test_a_fit_that_leads_no_pixel_to_the_tangent_point() -> None:
    x, y = stars(300)
    u, v = (x - 1000) / 1000, (y - 2000) / 1000
    xi, eta = 0.1 * u, 0.1 * v + 0.02 * u * u + 0.01 * v * v + 0.5
    wcs = wcs_of_fit(fit_polynomial(2, x, y, xi, eta), CRVAL)
    with pytest.raises(BadHeader, match="TPV only"):
        wcs_as_cards(wcs, "SIP")
    again = read_wcs(wcs_as_cards(wcs))
    for one in (wcs, again):
        sky = one.to_sky(x, y)
        found = to_tangent(*sky, *CRVAL)
        assert np.abs(np.array(found) - np.array([xi, eta])).max() < 1e-12
        back = one.to_pixel(*sky)
        assert np.abs(back[0] - x).max() < 1e-6 and np.abs(back[1] - y).max() < 1e-6


def test_a_system_is_fitted_and_found_again() -> None:
    """From a system to stars and back, at the pole."""
    start = wcs_of_fit(fit_polynomial(3, *scattered(300, 0.0)), (123.0, 89.98))
    x, y = stars(500)
    ra, dec = start.to_sky(x, y)
    fit = fit_polynomial(3, x, y, *to_tangent(ra, dec, 300.0, 89.99))
    made = wcs_of_fit(fit, (300.0, 89.99))
    # TAN about another point is no polynomial; the rest of it is small over a fifth of a degree.
    assert separation_arcsec(ra, dec, *made.to_sky(x, y)).max() < 1e-4
    assert made.pixel_scale_arcsec == pytest.approx(0.24, rel=0.02)
