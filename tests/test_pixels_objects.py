"""Objects are found at every scale, the sky is not; a plane through it is what it was."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awetools.core.errors import BadPixels, BadValue
from awetools.core.pixels.objects import cells_of, find_objects, grown, object_mask, spread
from awetools.core.pixels.planes import Plane, fit_plane
from tests.support import data_path

SHAPE = (500, 613)
Y, X = np.mgrid[: SHAPE[0], : SHAPE[1]]


def sky(level: float = 200.0, noise: float = 8.0, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(level, noise, SHAPE).astype(np.float32)


def blob(y: float, x: float, sigma: float, peak: float) -> np.ndarray:
    light: np.ndarray = (peak * np.exp(-((Y - y) ** 2 + (X - x) ** 2) / (2 * sigma**2))).astype(np.float32)
    return light


def test_an_empty_sky_has_hardly_an_object() -> None:
    assert object_mask(sky(), None).mean() < 0.03


def test_a_gradient_is_no_object() -> None:
    image = sky() * (1 + 0.1 * (X / SHAPE[1] - 0.5) - 0.2 * (Y / SHAPE[0] - 0.5)).astype(np.float32)
    assert object_mask(image, None, flatness=0.01).mean() < 0.05


@pytest.mark.parametrize(
    ("sigma", "peak"), [(1.5, 60.0), (4.0, 15.0), (20.0, 6.0), (60.0, 8.0)], ids=lambda value: str(value)
)
def test_objects_are_found_at_every_size(sigma: float, peak: float) -> None:
    image = sky() + blob(260, 300, sigma, peak)
    bright = blob(260, 300, sigma, peak) > 3.0
    found = object_mask(image, None, flatness=0.01)
    assert found[bright].mean() > 0.98
    assert found.mean() < bright.mean() + 0.25


def test_a_galaxy_over_most_of_the_frame_does_not_become_the_sky() -> None:
    galaxy = blob(250, 300, 110, 150)
    found = object_mask(sky() + galaxy, None, flatness=0.01)
    assert (galaxy > 8).mean() > 0.6
    assert found[galaxy > 8].mean() > 0.99
    assert found[galaxy < 1].mean() < 0.2


def test_a_trail_is_an_object() -> None:
    across = np.abs(0.5 * X - Y + 80) / np.hypot(0.5, 1)
    image = sky() + np.where(across < 2, 25, 0).astype(np.float32)
    assert object_mask(image, None)[across < 2].mean() > 0.98


def test_the_shape_of_a_flat_that_is_wrong_is_no_object_within_its_flatness() -> None:
    bowl = 1 - 0.02 * ((X / SHAPE[1] - 0.5) ** 2 + (Y / SHAPE[0] - 0.5) ** 2) / 0.5
    image = sky(2000, 20) * bowl.astype(np.float32)
    assert object_mask(image, None, flatness=0.05).mean() < 0.08


def test_what_does_not_count_is_not_marked_and_marks_nothing() -> None:
    image, use = sky(), np.ones(SHAPE, bool)
    use[100:140, 200:280] = False
    image[100:140, 200:280] = 5e4
    image[300:308, 300:308] = np.nan
    found = object_mask(image, use)
    assert not found[104:136, 204:276].any()
    assert found.mean() < 0.03


def test_known_objects_stay_and_do_not_grow() -> None:
    cells = cells_of(sky() + blob(260, 300, 4, 80), None)
    first = find_objects(cells)
    again = find_objects(cells, known=first)
    assert again[first].all()
    assert again.mean() < first.mean() + 0.02


def test_nothing_but_objects_ends() -> None:
    image = sky()
    use = np.zeros(SHAPE, bool)
    assert not object_mask(image, use).any()
    constant = object_mask(np.full(SHAPE, 7, np.float32), None)
    assert not constant.any()


def test_a_threshold_below_zero_is_refused() -> None:
    with pytest.raises(BadValue):
        object_mask(sky(), None, threshold_sigma=-1)
    with pytest.raises(BadValue):
        cells_of(sky(), None, 0)


def test_growth_is_a_third_of_the_radius_at_least_a_cell() -> None:
    marked = np.zeros((60, 60), bool)
    marked[5, 5] = True
    marked[30:45, 30:45] = True
    wide = grown(marked)
    assert wide[4:7, 5].all() and wide[5, 4:7].all() and not wide[5, 8]
    assert wide[30 - 3, 37] and not wide[30 - 6, 37]
    assert not grown(np.zeros((4, 4), bool)).any() and grown(np.ones((4, 4), bool)).all()


@settings(max_examples=40, deadline=None)
@given(
    ny=st.integers(1, 40),
    nx=st.integers(1, 40),
    size=st.integers(1, 7),
    seed=st.integers(0, 1000),
    cut=st.floats(0, 1),
)
def test_cells_hold_the_means_and_spread_back(ny: int, nx: int, size: int, seed: int, cut: float) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(100, 5, (ny, nx)).astype(np.float32)
    use = rng.random((ny, nx)) >= cut
    cells = cells_of(image, use, size)
    for j in range(cells.mean.shape[0]):
        for i in range(cells.mean.shape[1]):
            box = (slice(j * size, (j + 1) * size), slice(i * size, (i + 1) * size))
            assert cells.count[j, i] == use[box].sum()
            if use[box].any():
                assert cells.mean[j, i] == pytest.approx(image[box][use[box]].mean(), rel=1e-5)
    marked = rng.random(cells.mean.shape) < 0.5
    whole = spread(marked, size, (ny, nx))
    assert whole.shape == (ny, nx)
    for y in range(ny):
        assert (whole[y] == marked[y // size, np.arange(nx) // size]).all()
    assert (spread(marked, size, (ny, nx), ny // 3, ny) == whole[ny // 3 :]).all()


@settings(max_examples=30, deadline=None)
@given(
    level=st.floats(10, 1e4),
    slope_y=st.floats(-0.5, 0.5),
    slope_x=st.floats(-0.5, 0.5),
    bad=st.floats(0, 0.3),
)
def test_a_plane_comes_back_under_outliers(level: float, slope_y: float, slope_x: float, bad: float) -> None:
    shape = (60, 83)
    rng = np.random.default_rng(3)
    image = Plane(level, slope_y, slope_x).rows(shape)
    use = rng.random(shape) > bad
    image[~use] = np.inf
    image[20:24, 30:34] *= 3
    found = fit_plane(image, use)
    assert found.level == pytest.approx(level, rel=2e-3)
    assert abs(found.slope_y - slope_y) < 5e-3 and abs(found.slope_x - slope_x) < 5e-3


def test_planes_that_cannot_be() -> None:
    image = np.full((10, 12), 5.0)
    with pytest.raises(BadPixels):
        fit_plane(image, np.zeros((10, 12), bool))
    with pytest.raises(BadPixels):
        fit_plane(-image, np.ones((10, 12), bool))
    line = np.zeros((10, 12), bool)
    line[4] = True
    found = fit_plane(image, line)
    assert (found.level, found.slope_y, found.slope_x) == pytest.approx((5.0, 0.0, 0.0))


def test_m51_is_masked_widely() -> None:
    """The galaxy fills most of the frame; its centre and both arms must be marked."""
    from awetools.core.fits import open_fits

    path = data_path("nickel-20170302/science/d1126.fits.fz")
    with open_fits(path) as fits:
        hdu = next(one.index for one in fits.hdus if one.is_image and fits.image(one.index).ndim == 2)
        image = fits.image(hdu)[:, :1020].astype(np.float32) - 1080
    found = object_mask(image, None, flatness=0.05)
    assert 0.4 < found.mean() < 0.9
    assert found[image > 400].mean() > 0.9
