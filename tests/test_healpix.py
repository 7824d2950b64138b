"""HEALPix pixels and cones, with astropy-healpix as the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awetools.core.errors import BadValue
from awetools.core.sky.healpix import (
    FINEST,
    centres_of,
    cone_pixels,
    cone_ranges,
    joined,
    largest_radius_deg,
    near_border,
    pixels_of,
)
from awetools.core.sky.sphere import angles, from_tangent, local_axes, separation_arcsec

RA = st.floats(-360, 720)
DEC = st.one_of(st.floats(-90, 90), st.sampled_from([-90.0, 90.0, 0.0, 41.8103, -41.8103, 89.999999999]))
ORDERS = (0, 1, 5, 13, 29)


def positions(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    ra, dec = rng.uniform(-360, 720, count), np.degrees(np.arcsin(rng.uniform(-1, 1, count)))
    dec[:200] = 90 - 10 ** rng.uniform(-10, 0, 200)
    dec[200:400] = -90 + 10 ** rng.uniform(-10, 0, 200)
    dec[400:402] = 90, -90
    ra[300:500] = rng.integers(0, 4, 200) * 90.0
    return ra, dec


@pytest.mark.parametrize("order", ORDERS)
def test_pixels_are_those_of_the_standard(order: int) -> None:
    import astropy.units as u
    from astropy_healpix import lonlat_to_healpix

    ra, dec = positions(20_000)
    theirs = lonlat_to_healpix(ra * u.deg, dec * u.deg, 2**order, order="nested")
    np.testing.assert_array_equal(pixels_of(order, ra, dec), theirs)


@pytest.mark.parametrize("order", ORDERS)
def test_centres_are_those_of_the_standard_and_lie_in_their_pixels(order: int) -> None:
    import astropy.units as u
    from astropy_healpix import healpix_to_lonlat

    pixels = np.unique(pixels_of(order, *positions(3000)))
    ra, dec = centres_of(order, pixels)
    theirs = healpix_to_lonlat(pixels, 2**order, order="nested")
    assert separation_arcsec(ra, dec, theirs[0].to_value(u.deg), theirs[1].to_value(u.deg)).max() < 1e-9
    np.testing.assert_array_equal(pixels_of(order, ra, dec), pixels)


@pytest.mark.parametrize("order", (0, 1, 2, 4, 6))
def test_no_pixel_is_wider_than_the_largest_radius(order: int) -> None:
    import astropy.units as u
    from astropy_healpix import boundaries_lonlat

    pixels = np.arange(12 * 4**order)
    ra, dec = (one.to_value(u.deg) for one in boundaries_lonlat(pixels, 8, 2**order, order="nested"))
    centre_ra, centre_dec = centres_of(order, pixels)
    away = separation_arcsec(ra, dec, centre_ra[:, None], centre_dec[:, None]) / 3600
    assert away.max() == pytest.approx(largest_radius_deg(order), rel=1e-9)


@given(RA, DEC, st.floats(0, 180), st.integers(0, 12), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=150)
def test_a_cone_s_pixels_hold_all_of_it(ra: float, dec: float, radius: float, order: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    away, angle = radius * np.sqrt(rng.uniform(0, 1, 300)), rng.uniform(0, 2 * np.pi, 300)
    away[:100] = radius
    east, north, outwards = local_axes(ra, dec)
    aside = np.sin(angle)[:, None] * east + np.cos(angle)[:, None] * north
    inside = np.cos(np.radians(away))[:, None] * outwards + np.sin(np.radians(away))[:, None] * aside
    firsts, ends = cone_ranges(order, ra, dec, min(180.0, radius + 1e-9))
    assert (firsts < ends).all() and (firsts[1:] > ends[:-1]).all()
    pixels = pixels_of(order, *angles(*inside.T))
    place = np.searchsorted(firsts, pixels, side="right") - 1
    assert (place >= 0).all() and (pixels < ends[place]).all()


@pytest.mark.parametrize(("ra", "dec"), [(0, 0), (359.999, 20), (0, 90), (123, -90), (45, 41.8), (90, 30)])
def test_a_cone_takes_few_pixels_that_it_does_not_touch(ra: float, dec: float) -> None:
    import astropy.units as u
    from astropy_healpix import HEALPix

    order, radius = 9, 2.0
    theirs = HEALPix(2**order, "nested").cone_search_lonlat(ra * u.deg, dec * u.deg, radius * u.deg)
    ours = cone_pixels(order, ra, dec, radius)
    assert np.isin(theirs, ours).all()
    assert len(ours) < 1.15 * len(theirs)
    away = separation_arcsec(*centres_of(order, ours), ra, dec) / 3600
    assert away.max() <= radius + largest_radius_deg(order) + 1e-9


def test_the_whole_sky_is_one_range() -> None:
    firsts, ends = cone_ranges(11, 10, 20, 180)
    assert firsts.tolist() == [0] and ends.tolist() == [12 * 4**11]


def test_a_wide_cone_of_fine_pixels_has_few_ranges() -> None:
    firsts, _ = cone_ranges(FINEST, 200, -40, 70)
    assert len(firsts) < 5000


@given(RA, DEC, st.integers(0, 20), st.floats(0, 2), st.floats(0, 2 * np.pi))
@settings(deadline=None, max_examples=200)
def test_who_is_near_a_border_is_told(ra: float, dec: float, order: int, arcsec: float, angle: float) -> None:
    dec = min(89.9999, max(-89.9999, dec))
    part = 0.999 * arcsec / 3600
    ra2, dec2 = from_tangent(part * np.sin(angle), part * np.cos(angle), ra, dec)
    if pixels_of(order, ra, dec) != pixels_of(order, ra2, dec2):
        assert near_border(order, ra, dec, arcsec)


def test_far_from_a_border_is_told_too() -> None:
    ra, dec = positions(5000)
    assert near_border(10, ra[500:], dec[500:], 0.1).mean() < 0.02


def test_ranges_with_small_gaps_become_one() -> None:
    firsts, ends = joined(np.array([10, 0, 30, 12]), np.array([2, 3, 5, 3]), gap=7)
    assert firsts.tolist() == [0, 30] and ends.tolist() == [15, 35]
    assert [one.tolist() for one in joined(np.empty(0, int), np.empty(0, int))] == [[], []]


@pytest.mark.parametrize(
    ("ra", "dec", "radius"),
    [(0, 91, 1), (0, -90.1, 1), (np.nan, 0, 1), (0, 0, -1), (0, 0, 181), (0, 0, np.nan)],
)
def test_cones_that_cannot_be_are_refused(ra: float, dec: float, radius: float) -> None:
    with pytest.raises(BadValue):
        cone_ranges(5, ra, dec, radius)


@pytest.mark.parametrize("order", (-1, 30))
def test_orders_that_cannot_be_are_refused(order: int) -> None:
    with pytest.raises(BadValue, match="0 to 29"):
        pixels_of(order, 0, 0)
