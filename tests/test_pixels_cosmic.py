"""Cosmic rays: tracks found, stars and galaxies left alone, bad pixels and edges, the kernel against its twin."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from awetools.core.errors import BadValue, Mixture
from awetools.core.pixels.cosmic import CosmicRays, find_cosmic_rays
from awetools.core.pixels.kernels import SWITCH, kernel
from tests.support import data_path

SKY_ADU, GAIN, NOISE_ADU = 300.0, 1.8, 2.8
Image = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


def search(image: npt.NDArray[Any], bad: Bools | None = None, **changed: Any) -> Bools:
    """The mask, with the sky, gain and read noise of these tests unless others are given."""
    given_values = {"background_adu": SKY_ADU, "gain_e_adu": GAIN, "read_noise_adu": NOISE_ADU, **changed}
    return find_cosmic_rays(image, bad=bad, **given_values).mask


def observed(light_adu: Image, seed: int = 1, rays_adu: Image | float = 0.0) -> Image:
    """A frame of this light above the sky, with its noise."""
    rng = np.random.default_rng(seed)
    electrons = rng.poisson((SKY_ADU + light_adu) * GAIN) / GAIN + rays_adu
    return (electrons + rng.normal(0, NOISE_ADU, light_adu.shape)).astype(np.float32)


def starlight(
    shape: tuple[int, int], stars: npt.NDArray[Any], fwhm_px: float, oversampling: int = 5
) -> Image:
    """Moffat stars (rows of y, x, peak in ADU), integrated over the pixels."""
    light = np.zeros(shape, np.float32)
    alpha = fwhm_px / 2 / np.sqrt(2 ** (1 / 3.5) - 1)
    fine = (np.arange(oversampling) + 0.5) / oversampling - 0.5
    reach = 30
    for y, x, peak in stars:
        rows = np.arange(max(0, int(y) - reach), min(shape[0], int(y) + reach))
        columns = np.arange(max(0, int(x) - reach), min(shape[1], int(x) + reach))
        r2 = (rows[:, None] + fine - y)[:, None, :, None] ** 2 + (columns[:, None] + fine - x)[
            None, :, None, :
        ] ** 2
        light[np.ix_(rows, columns)] += peak * ((1 + r2 / alpha**2) ** -3.5).mean(axis=(2, 3))
    return light


def tracks(shape: tuple[int, int], number: int, seed: int = 2) -> Image:
    """Straight tracks of about 500 ADU a pixel, spread over the pixels they pass."""
    rng = np.random.default_rng(seed)
    rays = np.zeros(shape, np.float32)
    for _ in range(number):
        y, x, angle = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(0, 2 * np.pi)
        steps = np.arange(0, 1 + rng.exponential(7), 0.05)
        rows, columns = (y + np.sin(angle) * steps).astype(int), (x + np.cos(angle) * steps).astype(int)
        inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
        np.add.at(rays, (rows[inside], columns[inside]), 0.05 * rng.uniform(200, 1000))
    return rays


def field_of_stars(
    shape: tuple[int, int], number: int, brightest_adu: float, seed: int = 3
) -> npt.NDArray[Any]:
    rng = np.random.default_rng(seed)
    peaks = np.exp(rng.uniform(np.log(30), np.log(brightest_adu), number))
    return np.transpose([rng.uniform(0, shape[0], number), rng.uniform(0, shape[1], number), peaks])


def test_tracks_among_stars_are_found_and_little_else() -> None:
    shape = (400, 400)
    rays = tracks(shape, 60)
    light = starlight(shape, field_of_stars(shape, 60, 20000), 3.3)
    found = search(observed(light, rays_adu=rays))
    # Three sigma of the sky, which is about 100 e-.
    true = rays > 40
    assert found[true].mean() > 0.93
    assert (rays > 5)[found].mean() > 0.97


@pytest.mark.parametrize("fwhm_px", [2.5, 3.3, 6.0])
def test_stars_are_left_alone_up_to_saturation(fwhm_px: float) -> None:
    shape = (400, 400)
    stars = field_of_stars(shape, 100, 60000)
    found = search(observed(starlight(shape, stars, fwhm_px)))
    assert found.sum() <= 3


@given(st.floats(0, 1), st.floats(0, 1), st.floats(2.5, 5), st.floats(1e3, 6e4), st.integers(0, 1000))
def test_a_bright_star_at_any_place_in_its_pixel_keeps_its_core(
    y: float, x: float, fwhm_px: float, peak_adu: float, seed: int
) -> None:
    star = np.array([[15 + y, 15 + x, peak_adu]])
    found = search(observed(starlight((32, 32), star, fwhm_px), seed))
    assert not found[12:20, 12:20].any()


def test_stars_sharper_than_the_optics_should_make_raise_the_contrast() -> None:
    shape = (400, 400)
    stars, rays = field_of_stars(shape, 200, 20000), tracks(shape, 40)
    image = observed(starlight(shape, stars, 1.5), rays_adu=rays)
    model = {"background_adu": SKY_ADU, "gain_e_adu": GAIN, "read_noise_adu": NOISE_ADU}
    found = find_cosmic_rays(image, **model)
    assert 4 < found.contrast < 6
    rows, columns = np.rint(stars[:, :2]).astype(int).clip(0, shape[0] - 1).T
    alone = ~(rays[rows, columns] > 0)
    assert found.mask[rows, columns][alone].sum() <= 4
    assert found.mask[rays > 100].mean() > 0.8
    assert find_cosmic_rays(image, **model, objlim=9.0).contrast == 9


@pytest.mark.parametrize("fwhm_px", [2.2, 3.3])
def test_rays_and_stars_that_are_wide_enough_leave_the_contrast_alone(fwhm_px: float) -> None:
    shape = (400, 400)
    for number, showered, factor in ((200, 20, 1), (15, 20, 5), (0, 300, 1), (0, 300, 20), (10, 600, 5)):
        light = starlight(shape, field_of_stars(shape, number, 20000), fwhm_px)
        image = observed(light, rays_adu=factor * tracks(shape, showered))
        found = find_cosmic_rays(image, background_adu=SKY_ADU, gain_e_adu=GAIN, read_noise_adu=NOISE_ADU)
        assert found.contrast == 2, (number, showered, factor)


# Electrons above the sky: a star of 110 at its peak, 3.3 pixels wide; noise made one pixel of its flank 202.
FAINT_STAR_E = [
    [-16, 3, -11, 48, 2, 19, 10, 41, -16],
    [-21, 34, 78, 23, 11, 6, 19, 17, 1],
    [2, 12, -7, 52, 43, 42, 11, -5, -18],
    [25, -11, 18, 32, 130, 127, 61, 50, 21],
    [-32, 13, 34, 202, 112, 113, 55, -11, -4],
    [12, 11, 35, 61, 97, 105, 57, 0, 19],
    [41, -40, 2, 37, 29, 43, 28, -41, -23],
    [-15, 70, 54, 54, 39, 31, 19, 5, -18],
    [20, 45, 22, 30, 2, 28, -5, 3, -23],
]


@pytest.mark.parametrize(("added_e", "is_ray"), [(0, False), (150, True)])
def test_noise_on_the_flank_of_a_faint_star_is_no_ray(added_e: float, is_ray: bool) -> None:
    image = np.full((30, 30), SKY_ADU, np.float32)
    image[10:19, 10:19] += np.array(FAINT_STAR_E, np.float32) / GAIN
    image[14, 13] += added_e / GAIN
    assert search(image)[14, 13] == is_ray


def test_a_faint_track_stays_where_one_pixel_of_it_is_sure() -> None:
    shape = (200, 200)
    rays = tracks(shape, 25)
    found = search(observed(np.zeros(shape, np.float32), rays_adu=rays))
    assert found[rays > 40].mean() > 0.95


def test_a_saturated_star_and_its_bleeding_leave_their_surroundings_alone() -> None:
    shape = (120, 120)
    star = starlight(shape, np.array([[60.3, 60.1, 400000.0]]), 3.0)
    star[30:90, 60:62] = 60000
    image = np.minimum(observed(star), np.float32(50000))
    full = image > 49000
    bad = full.copy()
    for dy, dx in np.ndindex(3, 3):
        bad |= np.roll(full, (dy - 1, dx - 1), axis=(0, 1))
    assert not search(image, bad).any()


def test_a_galaxy_and_a_spike_are_left_alone() -> None:
    y, x = np.mgrid[0:200, 0:200]
    r = np.hypot(y - 100.2, (x - 99.7) / 0.6)
    galaxy = 9000 * np.exp(-r / 4) + 1500 * np.exp(-r / 25)
    spike = 3000 * np.exp(-0.5 * ((y - x) / 1.6 / np.sqrt(2)) ** 2) * np.exp(-np.abs(x - 100) / 40)
    assert search(observed((galaxy + spike).astype(np.float32))).sum() <= 1


def test_noise_alone_makes_next_to_nothing() -> None:
    image = observed(np.zeros((1000, 1000), np.float32))
    assert search(image).sum() <= 6
    assert search(image, sigclip=3.5).sum() > 20


def test_a_ray_in_a_corner_and_along_the_edge_is_found() -> None:
    rays = np.zeros((40, 50), np.float32)
    rays[0, 0] = rays[-1, -1] = rays[20, 0] = rays[0, 30:36] = rays[10:14, -1] = 800
    found = search(observed(np.zeros((40, 50), np.float32), rays_adu=rays))
    assert found[rays > 0].all()
    assert found[rays == 0].sum() <= 2


@pytest.mark.parametrize("outside_px", [0.0, 0.5, 1.5, 3.0])
def test_a_star_with_its_centre_outside_is_no_ray(outside_px: float) -> None:
    stars = np.array([[20, -outside_px, 20000], [-outside_px, 40, 20000], [59 + outside_px, 20, 20000]])
    assert not search(observed(starlight((60, 60), stars, 3.0))).any()


def test_a_bad_pixel_is_never_a_ray_and_makes_none_of_its_neighbours() -> None:
    image = observed(np.zeros((60, 60), np.float32))
    bad = np.zeros(image.shape, np.bool_)
    bad[20, 20] = bad[30:, 40] = bad[0, 0:5] = bad[44:52, 5:13] = True
    assert not search(image).any()
    for value in (60000, -60000, np.nan, np.inf, -np.inf):
        image[bad] = value
        assert not search(image, bad).any()
    image[:] = observed(np.zeros((60, 60), np.float32))
    image[bad], image[20, 21] = 60000, 3000
    assert np.argwhere(search(image, bad)).tolist() == [[20, 21]]


def test_what_is_not_finite_counts_as_bad() -> None:
    image = observed(np.zeros((40, 40), np.float32))
    image[10, 10], image[20, 20], image[30, 30], image[5, 5] = np.nan, np.inf, -np.inf, 1e30
    assert not search(image).any()


def test_a_hole_makes_no_ring_of_rays() -> None:
    image = observed(np.zeros((60, 60), np.float32))
    image[20, 20], image[40, 40:42] = -4000, -500
    assert not search(image).any()


def test_amplifiers_may_differ_in_gain_and_noise() -> None:
    rng = np.random.default_rng(4)
    noise = np.where(np.arange(400) < 200, 3.0, 30.0)
    image = (rng.normal(0, 1, (400, 400)) * noise).astype(np.float32)
    image[50, 100] = image[50, 300] = 150
    row = {"background_adu": 0.0, "read_noise_adu": noise[None, :], "gain_e_adu": np.full((1, 400), 2.0)}
    found = search(image, **row)
    assert found[50, 100]
    assert not found[50, 300]
    assert found.sum() <= 3
    whole = {name: np.broadcast_to(value, image.shape) for name, value in row.items()}
    assert (search(image, **whole) == found).all()
    assert search(image, **{**row, "read_noise_adu": 3.0})[:, 200:].sum() > 500


def test_the_background_may_be_a_map() -> None:
    y, x = np.mgrid[0:100, 0:100]
    sky = (200 + 40 * x + 10 * y).astype(np.float32)
    image = sky + np.random.default_rng(5).normal(0, np.sqrt(sky / GAIN + 8)).astype(np.float32)
    image[50, 20] += 900
    found = search(image, background_adu=sky)
    assert found[50, 20]
    assert found.sum() <= 3
    # The noise grows with the sky: what is a ray in the dark corner is noise in the bright one.
    image[10, 5] += 120
    image[90, 95] += 120
    found = search(image, background_adu=sky)
    assert found[10, 5]
    assert not found[90, 95]


def test_a_wide_track_is_eaten_from_its_ends_by_iterations() -> None:
    rays = np.zeros((60, 60), np.float32)
    rays[20:22, 20:40] = 2000
    image = observed(np.zeros((60, 60), np.float32), rays_adu=rays)
    found = [int(search(image, iterations=number)[rays > 0].sum()) for number in (1, 4, 8)]
    assert 0 < found[0] < found[1] < found[2] == 40
    whole = find_cosmic_rays(image, background_adu=SKY_ADU, gain_e_adu=GAIN, read_noise_adu=NOISE_ADU)
    assert 4 < whole.iterations <= 8
    assert not search(observed(np.zeros((60, 60), np.float32))).any()


def test_two_that_touch_support_each_other() -> None:
    image = np.zeros((50, 50), np.float32)
    image[20, 20:22] = 5.4
    image[40, 40] = 4.8
    found = search(image, background_adu=0.0, read_noise_adu=1.0)
    assert np.argwhere(found).tolist() == [[20, 20], [20, 21]]


def test_the_light_of_a_galaxy_adds_its_noise() -> None:
    y, x = np.mgrid[0:300, 0:300]
    galaxy = 30000 * np.exp(-((y - 150) ** 2 + (x - 150) ** 2) / (2 * 60**2))
    assert search(observed(galaxy.astype(np.float32))).sum() <= 1


def test_one_shower_ends_and_is_mostly_found() -> None:
    rng = np.random.default_rng(6)
    shape = (256, 256)
    rays = np.where(rng.random(shape) < 0.05, rng.exponential(1000, shape), 0).astype(np.float32)
    image = observed(np.zeros(shape, np.float32), rays_adu=rays)
    assert search(image)[rays > 100].mean() > 0.8
    everywhere = rng.exponential(3000, shape).astype(np.float32)
    found = find_cosmic_rays(everywhere, background_adu=SKY_ADU, gain_e_adu=GAIN, read_noise_adu=NOISE_ADU)
    assert 0 < found.mask.mean() < 1


def test_half_a_detector_that_is_bad_changes_nothing_in_the_other_half() -> None:
    rays = tracks((100, 200), 20)
    image = observed(np.zeros((100, 200), np.float32), rays_adu=rays)
    bad = np.zeros(image.shape, np.bool_)
    bad[:, 100:] = True
    whole = search(image)
    image[:, 100:] = np.nan
    half = search(image, bad)
    assert not half[:, 100:].any()
    assert (half[:, :90] == whole[:, :90]).all()


@pytest.mark.parametrize("shape", [(0, 0), (0, 7), (7, 0)])
def test_an_empty_frame_has_no_rays(shape: tuple[int, int]) -> None:
    found = find_cosmic_rays(np.zeros(shape), background_adu=0.0, gain_e_adu=1.0, read_noise_adu=1.0)
    assert isinstance(found, CosmicRays)
    assert (found.mask.shape, found.iterations) == (shape, 0)


@pytest.mark.parametrize("noise_adu", [0.0, 3.0])
def test_constant_and_all_bad_frames_have_no_rays(noise_adu: float) -> None:
    values = {"background_adu": 0.0, "read_noise_adu": noise_adu}
    assert not search(np.full((30, 20), 500, np.float32), **values).any()
    assert not search(np.full((30, 20), np.nan), **values).any()
    assert not search(np.arange(600.0).reshape(30, 20), np.ones((30, 20), np.bool_), **values).any()


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float64, ">f4"])
def test_any_type_of_number_will_do(kind: Any) -> None:
    rays = tracks((60, 60), 5)
    image = np.rint(observed(np.zeros((60, 60), np.float32), rays_adu=rays))
    assert (search(image.astype(kind)) == search(image)).all()


def test_what_makes_no_sense_is_refused() -> None:
    image = np.zeros((5, 6), np.float32)
    for name in ("sigclip", "sigfrac", "objlim", "iterations"):
        for value in (0, -1, np.nan):
            with pytest.raises(BadValue, match=name):
                search(image, **{name: value})
    with pytest.raises(BadValue, match="gain"):
        search(image, gain_e_adu=0.0)
    with pytest.raises(BadValue, match="read noise"):
        search(image, read_noise_adu=-1.0)
    with pytest.raises(Mixture):
        search(image, np.zeros((6, 5), np.bool_))
    with pytest.raises(Mixture):
        search(np.zeros(5))
    with pytest.raises(Mixture, match="background"):
        search(image, background_adu=np.zeros((4, 6)))


# The kernel and its twin

values = st.one_of(
    st.floats(-1e4, 1e5, width=32), st.sampled_from([0.0, 300.0, 65535.0, 3e38, np.nan, np.inf, -np.inf])
)


def by_both(image: npt.NDArray[Any], bad: Bools | None, **changed: Any) -> tuple[CosmicRays, CosmicRays]:
    if kernel("cosmic") is None:
        pytest.skip("the kernel of cosmic rays is not built")
    given_values = {"background_adu": SKY_ADU, "gain_e_adu": GAIN, "read_noise_adu": NOISE_ADU, **changed}
    compiled = find_cosmic_rays(image, bad=bad, **given_values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SWITCH, "numpy")
        plain = find_cosmic_rays(image, bad=bad, **given_values)
    return compiled, plain


@given(st.data())
def test_the_kernel_gives_the_bits_of_its_twin(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 14), st.integers(1, 14)))
    image = data.draw(hnp.arrays(np.float32, shape, elements=values))
    bad = data.draw(st.none() | hnp.arrays(np.bool_, shape))
    sky = data.draw(st.sampled_from([SKY_ADU, 0.0, np.full((1, shape[1]), 200.0), np.full(shape, -5.0)]))
    limits = {"sigclip": data.draw(st.floats(0.1, 10)), "objlim": data.draw(st.floats(0.1, 5))}
    compiled, plain = by_both(image, bad, background_adu=sky, **limits)
    assert (compiled.mask == plain.mask).all()
    assert compiled.iterations == plain.iterations


def test_they_agree_on_a_field_of_stars_and_tracks() -> None:
    shape = (300, 333)
    light = starlight(shape, field_of_stars(shape, 150, 60000), 2.2)
    image = observed(light, rays_adu=tracks(shape, 200))
    compiled, plain = by_both(image, image > 50000, sigclip=3.0, objlim=1.0)
    assert compiled.mask.sum() > 1000
    assert (compiled.mask == plain.mask).all()


@given(hnp.arrays(np.float32, (9, 11), elements=st.floats(-1e4, 1e5, width=32)), st.floats(0.1, 3))
def test_they_agree_on_every_significance(work: Image, contrast: float) -> None:
    from awetools.core.pixels.cosmic import _candidates, _judge

    compiled = kernel("cosmic")
    if compiled is None:
        pytest.skip("the kernel of cosmic rays is not built")
    state = np.zeros(work.shape, np.uint8)
    noise = [np.full((rows, 5), value, np.float32) for rows, value in ((1, 20.0), (3, 0.5), (1, 9.0))]
    flags = [np.zeros((3, 5), np.uint8) for _ in range(2)]
    at = np.ravel_multi_index(np.mgrid[3:6, 3:8].reshape(2, -1), work.shape)
    variance = np.linspace(0.1, 100, at.size, dtype=np.float32)
    sigma = [np.zeros(at.size, np.float32) for _ in range(2)]
    firm = [np.zeros(at.size, np.uint8) for _ in range(2)]
    for k, (find, judge) in enumerate(((compiled.candidates, compiled.judge), (_candidates, _judge))):
        find(work, state, *noise, 3.0, flags[k])
        judge(work, at, variance, np.full_like(variance, 0.5), 3.0, contrast, sigma[k], firm[k])
    assert (flags[0] == flags[1]).all()
    assert sigma[0].tobytes() == sigma[1].tobytes()
    assert firm[0].tobytes() == firm[1].tobytes()


def test_the_kernel_refuses_what_it_would_read_beyond() -> None:
    compiled = kernel("cosmic")
    if compiled is None:
        pytest.skip("the kernel of cosmic rays is not built")
    work, one = np.zeros((9, 9), np.float32), np.zeros(1, np.float32)
    for place in (-1, 0, 2 * 9 + 4, 6 * 9 + 4, 4 * 9 + 2, 4 * 9 + 6, 81):
        with pytest.raises(ValueError, match="margin"):
            compiled.judge(work, np.array([place]), one, one, 1.0, 1.0, one.copy(), np.zeros(1, np.uint8))
    with pytest.raises(ValueError, match="lengths"):
        compiled.judge(work, np.array([40]), one, one, 1.0, 1.0, one.copy(), np.zeros(2, np.uint8))
    row, state = np.zeros((1, 3), np.float32), np.zeros((9, 9), np.uint8)
    with pytest.raises(ValueError, match="shapes"):
        compiled.candidates(work, state, row, row, row[:, :2].copy(), 1.0, np.zeros((3, 3), np.uint8))
    with pytest.raises(TypeError):
        compiled.candidates(work.astype(np.float64), state, row, row, row, 1.0, np.zeros((3, 3), np.uint8))


# Real frames


def nickel(number: int) -> tuple[Image, Bools]:
    """A frame less its overscan, and its saturated pixels and bad columns."""
    from awetools.core.fits import open_fits

    path = data_path(f"nickel-20170302/science/d{number}.fits.fz")
    with open_fits(path) as fits:
        raw = fits.image(next(one.index for one in fits.hdus if one.is_image)).astype(np.float32)
    data = raw[:, :1020] - np.median(raw[:, 1028:], axis=1)[:, None]
    bad = raw[:, :1020] > 60000
    for column in (250, 780, 990):
        bad[:, column : column + 14] = True
    bad[:, 1004:] = True
    return data, bad


def rays_of(number: int) -> Bools:
    from awetools.core.pixels.smooth import background

    image, bad = nickel(number)
    return search(image, bad, background_adu=background(image, ~bad), gain_e_adu=1.77, read_noise_adu=5.5)


def test_real_frames_of_one_field_have_no_ray_in_common() -> None:
    """Stars stay where they are, rays do not: this field was exposed again and again without moving."""
    one, other = rays_of(1030), rays_of(1032)
    assert 20 < one.sum() < 400
    assert 20 < other.sum() < 400
    assert (one & other).sum() <= 1


def test_the_core_of_a_real_galaxy_is_left_alone() -> None:
    found = rays_of(1121)
    assert 50 < found.sum() < 500
    image, _ = nickel(1121)
    # The nucleus is the brightest place that is wide.
    blocks = np.median(image[:1020].reshape(204, 5, 204, 5), axis=(1, 3))
    y, x = (5 * int(one) + 2 for one in np.unravel_index(int(blocks.argmax()), blocks.shape))
    assert found[y - 25 : y + 26, x - 25 : x + 26].sum() <= 2
