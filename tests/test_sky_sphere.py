"""Directions on the sphere against astropy: separations, angles, the tangent plane, proper motion."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awetools.core.sky.sphere import (
    angles,
    at_epoch,
    from_tangent,
    position_angle,
    separation_arcsec,
    to_tangent,
    unit_vectors,
)

RA, DEC = st.floats(0, 360, exclude_max=True), st.floats(-90, 90)


@settings(deadline=None)
@given(RA, DEC, RA, DEC)
def test_separations_and_directions_are_those_of_astropy(
    ra1: float, dec1: float, ra2: float, dec2: float
) -> None:
    from astropy.coordinates import angular_separation
    from astropy.coordinates import position_angle as expected_angle

    one, other = np.radians([ra1, dec1]), np.radians([ra2, dec2])
    expected = np.degrees(angular_separation(*one, *other)) * 3600
    found = separation_arcsec(ra1, dec1, ra2, dec2)
    assert found == pytest.approx(expected, abs=1e-8)
    if 1e-3 < expected < 180 * 3600 - 1e-3 and max(abs(dec1), abs(dec2)) < 89.99:
        angle = float(expected_angle(*one, *other).deg)
        assert abs((position_angle(ra1, dec1, ra2, dec2) - angle + 180) % 360 - 180) < 1e-5


def test_the_smallest_and_the_largest_separations() -> None:
    assert separation_arcsec(10.0, 80.0, 10.0, 80.0) == 0
    assert separation_arcsec(10.0, 0.0, 10.0, 1e-12) == pytest.approx(3.6e-9, rel=1e-3)
    assert separation_arcsec(10.0, 20.0, 190.0, -20.0 + 1e-9) == pytest.approx(180 * 3600 - 3.6e-6, abs=1e-9)
    assert separation_arcsec(0.0, 90.0, 123.0, 90.0) < 1e-9
    assert separation_arcsec([359.999, 1.0], 0.0, 0.001, 0.0) == pytest.approx([7.2, 3596.4])


@given(RA, DEC)
def test_vectors_go_both_ways(ra: float, dec: float) -> None:
    vector = unit_vectors(ra, dec)
    assert (vector**2).sum() == pytest.approx(1)
    back = angles(vector[0], vector[1], vector[2])
    assert 0 <= back[0] < 360
    assert separation_arcsec(ra, dec, *back) < 1e-8


def test_ra_is_never_360() -> None:
    ra, dec = angles(np.array([1.0, 1.0]), np.array([-1e-20, -1e-10]), np.zeros(2))
    assert ra[0] == 0 and 359 < ra[1] < 360 and (dec == 0).all()


def test_vectors_of_columns() -> None:
    assert unit_vectors([0.0, 90.0, 0.0], [0.0, 0.0, 90.0]) == pytest.approx(np.eye(3), abs=1e-15)
    assert unit_vectors(np.zeros((2, 5)), 3.0).shape == (2, 5, 3)


@settings(deadline=None)
@given(RA, DEC, st.floats(-30, 30), st.floats(-30, 30))
def test_the_tangent_plane_goes_both_ways(ra: float, dec: float, xi: float, eta: float) -> None:
    sky = from_tangent(xi, eta, ra, dec)
    back = to_tangent(*sky, ra, dec)
    assert back[0] == pytest.approx(xi, abs=1e-11) and back[1] == pytest.approx(eta, abs=1e-11)
    # The plane shows tangents of the distance.
    distance = np.radians(separation_arcsec(ra, dec, *sky) / 3600)
    assert np.degrees(np.tan(distance)) == pytest.approx(np.hypot(xi, eta), abs=1e-9)


def test_the_tangent_plane_has_east_and_north() -> None:
    xi, eta = to_tangent([10.001, 10.0], [20.0, 20.001], 10.0, 20.0)
    assert xi == pytest.approx([0.001 * np.cos(np.radians(20)), 0], abs=1e-9)
    assert eta == pytest.approx([0, 0.001], abs=1e-8)
    assert to_tangent(0.001, 0.0, 359.999, 0.0)[0] == pytest.approx(0.002)
    over = from_tangent([0.0], [1.0], 30.0, 89.5)
    assert over[0] == pytest.approx([210.0]) and over[1] == pytest.approx([89.5], abs=1e-3)
    assert np.isnan(to_tangent(190.0, 0.0, 10.0, 0.0)).all()
    assert np.isnan(to_tangent(np.nan, 0.0, 10.0, 0.0)).all()


@pytest.mark.parametrize("velocity", [0.0, -110.5])
@pytest.mark.parametrize(("ra", "dec"), [(269.452, 4.6934), (0.0001, -0.0001), (217.4, 89.9)])
def test_proper_motion_is_that_of_astropy(ra: float, dec: float, velocity: float) -> None:
    from astropy import units as u
    from astropy.coordinates import Distance, SkyCoord
    from astropy.time import Time

    pm_ra, pm_dec, parallax = -801.551, 10362.394, 546.976
    years = np.array([-50.0, 0.0, 7.3, 100.0])
    start = SkyCoord(
        ra=ra * u.deg,
        dec=dec * u.deg,
        pm_ra_cosdec=pm_ra * u.mas / u.yr,
        pm_dec=pm_dec * u.mas / u.yr,
        distance=Distance(parallax=parallax * u.mas),
        radial_velocity=velocity * u.km / u.s,
        obstime=Time(2016.0, format="jyear", scale="tdb"),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = [start.apply_space_motion(dt=one * u.yr) for one in years]
    found = at_epoch(ra, dec, pm_ra, pm_dec, years, parallax, velocity)
    away = [
        separation_arcsec(one_ra, one_dec, one.ra.deg, one.dec.deg)
        for one_ra, one_dec, one in zip(*found, expected, strict=True)
    ]
    # Astropy lets the light travel: 1.2 mas a century for the fastest star.
    assert max(away) < (2e-3 if velocity else 1e-7)


def test_proper_motion_of_a_catalogue_with_gaps() -> None:
    ra, dec = at_epoch([10.0, 20.0], [60.0, -5.0], [1000.0, np.nan], [-500.0, np.nan], 10.0)
    assert ra[0] == pytest.approx(10 + 10 / 3600 / np.cos(np.radians(60)), abs=1e-6)
    assert dec[0] == pytest.approx(60 - 5 / 3600, abs=1e-6)
    assert (ra[1], dec[1]) == (pytest.approx(20), pytest.approx(-5))
    # A parallax of 0 or less says nothing of the distance.
    plain = at_epoch([10.0] * 2, 60.0, 1000.0, 0.0, 1000.0)
    assert np.allclose(
        at_epoch([10.0] * 2, 60.0, 1000.0, 0.0, 1000.0, [-1.0, np.nan], 100.0), plain, atol=1e-12
    )
