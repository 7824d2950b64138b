"""Pairs, patterns and the maps they suggest, against brute force; chance against the exact sum."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awetools.core.sky.match import (
    Bounds,
    Maps,
    Raster,
    apart,
    as_points,
    counts_of,
    matched,
    pairs_within,
    spread_order,
    suggested,
    triangles,
)
from awetools.core.sky.odds import chance_matches, log10_tail

numbers = st.floats(-50, 50, allow_nan=False, width=32)
lists = st.lists(st.tuples(numbers, numbers), max_size=40)


def points(number: int, seed: int = 1, side: float = 1000.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return as_points(rng.uniform(0, side, number), rng.uniform(0, side, number))


@given(lists, lists, st.floats(0.01, 60))
@settings(max_examples=200, deadline=None)
def test_pairs_are_those_of_brute_force(one: list, other: list, radius: float) -> None:
    first = np.array([complex(*p) for p in one], np.complex128)
    second = np.array([complex(*p) for p in other], np.complex128)
    i, j = pairs_within(first, second, radius)
    away = first[:, None] - second
    expected = set(zip(*np.nonzero(away.real**2 + away.imag**2 <= radius * radius), strict=True))
    found = list(zip(i, j, strict=True))
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_points_that_are_not_finite_have_no_pairs() -> None:
    some = np.array([1, complex(np.nan, 0), complex(np.inf, 2), 3])
    i, j = pairs_within(some, some, 0.5)
    assert sorted(zip(i.tolist(), j.tolist(), strict=True)) == [(0, 0), (3, 3)]


def test_points_far_apart_do_not_overflow() -> None:
    i, j = pairs_within(np.array([0, 1e300]), np.array([0.5, 1e9]), 1.0)
    assert i.tolist() == [0] and j.tolist() == [0]


@given(lists, lists, st.floats(0.1, 60))
@settings(max_examples=100, deadline=None)
def test_a_match_is_the_nearest_of_both(one: list, other: list, radius: float) -> None:
    first = np.array([complex(*p) for p in one], np.complex128)
    second = np.array([complex(*p) for p in other], np.complex128)
    i, j = matched(first, second, radius)
    assert len(set(i)) == len(i) and len(set(j)) == len(j)
    for a, b in zip(i, j, strict=True):
        away = abs(first[a] - second[b])
        assert away <= radius * (1 + 1e-12)
        assert away <= np.abs(first - second[b]).min() + 1e-12
        assert away <= np.abs(first[a] - second).min() + 1e-12


@given(lists, st.floats(0.1, 60))
@settings(max_examples=100, deadline=None)
def test_of_close_points_the_first_stays(one: list, radius: float) -> None:
    some = np.array([complex(*p) for p in one], np.complex128)
    kept = apart(some, radius)
    left = some[kept]
    away = np.abs(left[:, None] - left)[np.triu_indices(len(left), 1)]
    assert (away > radius * (1 - 1e-12)).all()
    gone = set(range(len(some))) - set(kept.tolist())
    assert all(any(k < one and abs(some[k] - some[one]) <= radius * (1 + 1e-9) for k in kept) for one in gone)


@pytest.mark.parametrize("mirror", [False, True])
def test_the_shape_of_a_triangle_stays_under_any_similarity(mirror: bool) -> None:
    some = points(30)
    moved = (some.conj() if mirror else some) * 2.3 * np.exp(1.1j) + 400 - 70j
    one, two = triangles(some, 5), triangles(moved, 5)
    assert len(one) > 60
    shapes = {
        tuple(sorted(c)): s.conjugate() if mirror else s
        for c, s in zip(one.corners.tolist(), one.shape, strict=True)
    }
    again = {tuple(sorted(c)): s for c, s in zip(two.corners.tolist(), two.shape, strict=True)}
    assert shapes.keys() == again.keys()
    assert max(abs(shapes[key] - again[key]) for key in shapes) < 1e-9


def test_each_triangle_is_there_once() -> None:
    made = triangles(points(40), 6)
    keys = [tuple(sorted(one)) for one in made.corners.tolist()]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("number", [0, 1, 2])
def test_no_triangle_of_less_than_three(number: int) -> None:
    assert len(triangles(points(number), 5)) == 0


def test_points_in_one_place_or_on_a_line_have_no_triangles() -> None:
    assert len(triangles(np.full(9, 5 + 5j), 4)) == 0
    assert len(triangles(np.arange(9) + 0j, 4)) == 0


def test_the_true_map_is_suggested_and_brings_all_together() -> None:
    rng = np.random.default_rng(3)
    stars = points(50)
    factor, offset = 0.9 * np.exp(0.7j), 120 - 30j
    image = (stars - offset) / factor + rng.normal(0, 0.1, 50) + 1j * rng.normal(0, 0.1, 50)
    bounds = Bounds((0.8, 1.0), 60.0, math.inf)
    maps = suggested(image, triangles(image, 5), stars, triangles(stars, 5, both_ends=True), 0.01, bounds)
    counts = Raster.of(stars, 4.0).counts(maps, image)
    best = int(np.argmax(counts))
    assert counts[best] == 50
    assert abs(maps.factor[best] - factor) < 0.01
    assert abs(maps.offset[best] - offset) < 5


def test_an_image_is_found_in_a_wide_field_of_many_stars() -> None:
    rng = np.random.default_rng(5)
    stars = points(8000, side=90_000.0)
    factor, middle = 0.9 * np.exp(0.7j), 30_000 + 50_000j
    near = np.abs(stars - middle) < 4000
    image = (stars[near] - middle) / factor
    image = image + rng.normal(0, 0.1, len(image)) + 1j * rng.normal(0, 0.1, len(image))
    assert not Raster.fits(stars, 4.0) and Raster.fits(image, 40.0)
    both = triangles(stars, 5, both_ends=True)
    maps = suggested(image, triangles(image, 5), stars, both, 0.01, Bounds((0.5, 1.5)))
    counts = counts_of(maps, image, stars, 4.0, 4000.0)
    best = int(np.argmax(counts))
    assert len(maps) > 2000, "so that not all are looked at"
    assert counts[best] == len(image)
    assert abs(maps.offset[best] - middle) < 5


def test_neighbours_of_many_are_those_of_few() -> None:
    many = points(3200, side=4000.0)
    some = np.abs(many - (2000 + 2000j)) < 600
    inner = np.flatnonzero(np.abs(many[some] - (2000 + 2000j)) < 300)
    few, all_of_them = triangles(many[some], 4), triangles(many, 4)
    places = np.flatnonzero(some)
    known = {tuple(sorted(one)) for one in all_of_them.corners.tolist()}
    within = [one for one in few.corners if set(one.tolist()) <= set(inner.tolist())]
    assert len(within) > 50
    assert all(tuple(sorted(places[one].tolist())) in known for one in within)
    doubled = np.r_[many, many[:50]]
    assert len(triangles(doubled, 4)) > 0


def test_bounds_leave_out_what_they_do_not_allow() -> None:
    maps = Maps(np.array([1.0, 1.3, 1j, 1.0]), np.array([0, 0, 0, 99 + 0j]))
    assert Bounds((0.9, 1.1), 10.0, 50.0).allow(maps).tolist() == [True, False, False, False]
    assert Bounds((0.9, 1.4)).allow(maps).all()


def test_a_raster_marks_what_is_near_and_not_what_is_far() -> None:
    stars = points(60, side=400.0)
    raster = Raster.of(stars, 4.0)
    places = points(4000, seed=2, side=600.0) - 100 - 100j
    one = Maps(np.ones(1, np.complex128), np.zeros(1, np.complex128))
    nearest = np.abs(places[:, None] - stars).min(axis=1)
    found = np.array([raster.counts(one, places[k : k + 1])[0] for k in range(0, 4000, 4)])
    assert found[nearest[::4] < 2].all()
    assert not found[nearest[::4] > 8].any()


def test_a_cluster_does_not_take_all() -> None:
    cluster, rest = points(60, side=20.0), points(60, seed=4)
    order = spread_order(np.r_[cluster, rest], 200.0)
    assert (order[:30] >= 60).sum() >= 20
    assert sorted(order.tolist()) == list(range(120))


@pytest.mark.parametrize(("number", "expected"), [(3, 0.5), (8, 0.1), (20, 6.0), (5, 4.0), (60, 2.0)])
def test_the_tail_of_chance_is_that_of_the_exact_sum(number: int, expected: float) -> None:
    from scipy.stats import poisson

    exact = poisson.logsf(number - 1, expected) / math.log(10)
    bound = log10_tail(number, expected)
    assert exact - 1e-9 <= bound <= exact + 0.2


def test_what_is_expected_anyway_is_no_evidence() -> None:
    assert log10_tail(3, 3.0) == 0.0
    assert log10_tail(0, 0.0) == 0.0
    assert log10_tail(-2, 0.5) == 0.0
    assert log10_tail(2, 0.0) == -math.inf


def test_chance_matches_are_at_least_as_many_as_they_are() -> None:
    stars, other = points(3000), points(800, seed=9)
    i, _ = pairs_within(stars, other, 6.0)
    assert 0.95 < chance_matches(stars, other, 6.0, 800 / 1e6) / len(np.unique(i)) < 1.3


def test_a_cluster_matches_by_chance_more_often() -> None:
    cluster = points(100, side=60.0)
    spread = points(100, seed=6)
    density = 200 / 1e6
    everything = np.r_[cluster, spread]
    assert chance_matches(cluster, everything, 3.0, density) > 5 * chance_matches(
        spread, everything, 3.0, density
    )
