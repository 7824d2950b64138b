"""Sources: the kernel gives the bits of its twin; what is measured is the truth within its errors."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awetools.core.errors import BadPixels, BadValue, Mixture
from awetools.core.pixels import sourcefind, sourceseeing, sourcestamp
from awetools.core.pixels.kernels import SWITCH, kernel
from awetools.core.pixels.mask import Bit
from awetools.core.pixels.sources import (
    FLAG_NAMES,
    Flag,
    Plane,
    Sources,
    SourceSettings,
    find_sources,
    measure_at,
    sextractor_flags,
)
from awetools.core.pixels.sourcestars import densest

Array = npt.NDArray[Any]

SKY, GAIN, READ_NOISE, FWHM = 500.0, 2.0, 2.5, 3.5
NOISE = float(np.sqrt(SKY / GAIN + READ_NOISE**2))
BETA = 3.5


def moffat(image: Array, x: float, y: float, flux: float, half: int = 22) -> None:
    """Add a star to an image, its pixels integrated."""
    core, over = FWHM / 2 / np.sqrt(2 ** (1 / BETA) - 1), 7
    x0, y0 = round(x), round(y)
    parts = (np.arange(over) - (over - 1) / 2) / over
    places = (np.arange(-half, half + 1)[:, None] + parts).ravel()
    r2 = (places + x0 - x)[None, :] ** 2 + (places + y0 - y)[:, None] ** 2
    light = (1 + r2 / core**2) ** -BETA * (BETA - 1) / (np.pi * core**2)
    size = 2 * half + 1
    pixels = flux * light.reshape(size, over, size, over).mean((1, 3))
    image[y0 - half : y0 + half + 1, x0 - half : x0 + half + 1] += pixels


@cache
def field(seed: int = 1, least_snr: float = 20, most_snr: float = 300) -> tuple[Array, ...]:
    """Frame, weight, light without noise and sky, and x, y, flux of 400 isolated stars."""
    random, n, step = np.random.default_rng(seed), 20, 50
    light = np.zeros((n * step, n * step))
    places = np.mgrid[:n, :n].reshape(2, -1) * step + step / 2 + random.uniform(-1, 1, (2, n * n))
    flux = np.exp(random.uniform(np.log(least_snr), np.log(most_snr), n * n)) * NOISE * 9
    for y, x, one in zip(*places, flux, strict=True):
        moffat(light, x, y, one)
    electrons = random.poisson((light + SKY) * GAIN) / GAIN
    frame = (electrons + random.normal(0, READ_NOISE, light.shape)).astype(np.float32)
    return frame, np.full(light.shape, NOISE**-2, np.float32), light, places[1], places[0], flux


@cache
def found() -> Sources:
    frame, weight, *_ = field()
    return find_sources(frame, weight, None, GAIN, SourceSettings(apertures_px=(3.0, 6.0)))


def matched(result: Sources, x: Array, y: Array) -> tuple[Array, Array]:
    """Rows of the result, and the true places that they are within a pixel of."""
    away = np.hypot(result.columns["x_px"][:, None] - x, result.columns["y_px"][:, None] - y)
    row, place = np.nonzero(away < 1)
    return row, place


def same(one: dict[str, Array], other: dict[str, Array]) -> bool:
    return all(one[name].tobytes() == other[name].tobytes() for name in one)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1 << 20),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    sigma=st.floats(0.6, 4),
    gain=st.sampled_from([0.0, 0.7, 3.0]),
)
def test_the_kernel_gives_the_bits_of_its_twin(
    seed: int, shape: tuple[int, int], sigma: float, gain: float
) -> None:
    if kernel("sources") is None:
        pytest.skip("kernels not built")
    random = np.random.default_rng(seed)
    image = random.normal(0, 5, shape).astype(np.float32)
    y, x = np.mgrid[: shape[0], : shape[1]]
    names = np.arange(-1, 4).clip(0).astype(np.int32)
    place = np.empty((len(names), 7))
    place[:, 0] = random.uniform(-15, shape[1] + 15, len(names))
    place[:, 1] = random.uniform(-15, shape[0] + 15, len(names))
    place[:, 2] = random.integers(2, 25, len(names))
    place[:, 3:5] = random.uniform(0.05, 0.5, (len(names), 2))
    place[:, 5] = random.uniform(-0.04, 0.04, len(names))
    place[:, 6] = random.choice([-1.0, 0.0, 30.0], len(names))
    for one in place:
        image += (900 * np.exp(-((x - one[0]) ** 2 + (y - one[1]) ** 2) / (2 * sigma**2))).astype(np.float32)
    ours = sourcestamp.Field(
        image,
        np.where(random.random(shape) < 0.1, 0, random.uniform(0.01, 1, shape)).astype(np.float32),
        random.choice(4, shape, p=[0.9, 0.04, 0.04, 0.02]).astype(np.uint8),
        (random.integers(0, 5, shape) * (image > 20)).astype(np.int32),
    )
    radii, how = np.array([0.3, 2.5, 7.0]), sourcestamp.Measuring(sigma, gain, 1.2, 25.0)
    weights = np.array([0.4, 0.2, 0.07, 0.03], np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(SWITCH, raising=False)
        compiled = sourcestamp.measure_places(ours, place, names, radii, how)
        smooth = sourcestamp.blurred(image, ours.weight, ours.flags, weights, 0.3)
        patch.setenv(SWITCH, "numpy")
        twin = sourcestamp.measure_places(ours, place, names, radii, how)
        assert smooth.tobytes() == sourcestamp.blurred(image, ours.weight, ours.flags, weights, 0.3).tobytes()
    assert same(compiled, twin)


def test_decay_is_an_exponential() -> None:
    t = np.linspace(0, 39, 1000)
    assert np.allclose(sourcestamp.decay(t), np.exp(-t), rtol=1e-10, atol=0)
    assert sourcestamp.decay(np.array([41.0, np.inf])).tolist() == [0, 0]


def test_circles_are_exact() -> None:
    """On a flat image an aperture holds its area, wherever its centre lies; so it does for sep."""
    import sep

    flat = np.ones((60, 60), np.float32)
    ours = sourcestamp.Field(flat, flat, np.zeros((60, 60), np.uint8), np.zeros((60, 60), np.int32))
    place = np.array([[30.23, 29.41, 20, 0.25, 0.25, 0, -1]])
    radii = np.array([0.2, 0.5, 1.0, 3.3, 11.7])
    how = sourcestamp.Measuring(1.5, walk_sigma=0)
    raw = sourcestamp.measure_places(ours, place, np.zeros(1, np.int32), radii, how)
    assert np.allclose(raw["aperture_flux"][0], np.pi * radii**2, rtol=1e-9)
    rough = np.random.default_rng(1).normal(0, 1, (60, 60)).astype(np.float32)
    raw = sourcestamp.measure_places(ours._replace(image=rough), place, np.zeros(1, np.int32), radii, how)
    theirs = [float(sep.sum_circle(rough, [30.23], [29.41], r, subpix=0)[0][0]) for r in radii]
    assert np.allclose(raw["aperture_flux"][0], theirs, rtol=1e-5, atol=1e-4)


def test_places_fluxes_and_their_errors() -> None:
    _, weight, light, x, y, _ = field()
    columns = found().columns
    row, star = matched(found(), x, y)
    assert len(row) == len(np.unique(star)) == 400
    pulls = {
        "x": (columns["x_win_px"][row] - x[star]) / columns["x_win_error_px"][row],
        "y": (columns["y_win_px"][row] - y[star]) / columns["y_win_error_px"][row],
    }
    # Wings of stars raise the sky a little; that is an error of the sky, not of the pixels' noise.
    excess = columns["background_adu"] - SKY
    assert abs(np.mean(excess)) < 0.02 * NOISE
    still = SourceSettings(apertures_px=(3.0, 6.0), seeing_px=FWHM)
    truth = measure_at(light + SKY, columns["x_win_px"], columns["y_win_px"], weight, None, GAIN, still)
    for number, radius in enumerate((3.0, 6.0)):
        away = (
            np.pi * radius**2 * excess
            + columns["flux_aperture_adu"][:, number]
            - truth.columns["flux_aperture_adu"][:, number]
        )
        pulls[f"aperture {number}"] = (away / columns["flux_aperture_error_adu"][:, number])[row]
    for name, values in pulls.items():
        # 400 values tell a scatter to 0.035.
        assert 0.9 < np.std(values) < 1.1, name
        assert abs(np.mean(values)) < 0.25, name


def test_auto_errors_are_those_of_their_ellipse() -> None:
    """The same ellipses on the image without noise: the difference is noise alone."""
    _, weight, light, *_ = field()
    result = found()
    objects = result.columns
    radius = np.maximum(2.5 * np.nan_to_num(objects["kron_radius"]), 3.5)
    a, b, angle = (objects[name] for name in ("a_px", "b_px", "theta_deg"))
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    shape = np.column_stack(
        [(c / a) ** 2 + (s / b) ** 2, (s / a) ** 2 + (c / b) ** 2, 2 * c * s * (a**-2.0 - b**-2.0)]
    )
    place = np.column_stack(
        [
            objects["x_px"],
            objects["y_px"],
            np.full(len(a), 24),
            shape * (3.5 / radius[:, None]) ** 2,
            np.full(len(a), -1),
        ]
    )
    how = sourcestamp.Measuring(FWHM / 2.3548, GAIN, kron_factor=1e-9, kron_least=3.5)
    nothing = np.zeros(light.shape, np.uint8)
    assert result.segmentation is not None
    ours = sourcestamp.Field(light.astype(np.float32), weight, nothing, result.segmentation)
    names = np.arange(1, len(a) + 1, dtype=np.int32)
    truth = sourcestamp.measure_places(ours, place, names, np.empty(0), how)["auto_flux"]
    clean = (objects["flags"] & ~int(Flag.NO_PETROSIAN)) == 0
    excess = np.pi * radius**2 * a * b * (objects["background_adu"] - SKY)
    pull = ((objects["flux_auto_adu"] + excess - truth) / objects["flux_auto_error_adu"])[clean]
    assert clean.sum() > 350
    assert 0.9 < np.std(pull) < 1.1
    assert abs(np.mean(pull)) < 0.25


def test_the_seeing_and_the_stars() -> None:
    result = found()
    assert result.measures["seeing_px"] == pytest.approx(FWHM, rel=0.06)
    assert result.measures["noise_ratio"] == pytest.approx(1, abs=0.05)
    assert result.measures["sky_adu"] == pytest.approx(SKY, abs=0.2 * NOISE)
    assert np.mean(result.columns["star"] > 0.1) > 0.9
    assert np.nanmedian(result.columns["ellipticity"]) < 0.05


def test_wide_ones_are_galaxies_and_narrow_ones_sharp() -> None:
    frame, weight, *_ = field()
    image = frame.copy()
    j, i = np.mgrid[:1000, :1000]
    image += (300 * np.exp(-((i - 150) ** 2 + ((j - 150) * 1.6) ** 2) / (2 * 4.0**2))).astype(np.float32)
    image[400:402, 400:402] += 2000
    columns = find_sources(image, weight, None, GAIN).columns
    galaxy = np.argmin(np.hypot(columns["x_px"] - 150, columns["y_px"] - 150))
    ray = np.argmin(np.hypot(columns["x_px"] - 400.5, columns["y_px"] - 400.5))
    assert columns["star"][galaxy] < 1e-6 and columns["spread"][galaxy] > 0
    assert columns["ellipticity"][galaxy] == pytest.approx(1 - 1 / 1.6, abs=0.05)
    assert columns["flags"][ray] & Flag.SHARP
    assert not columns["flags"][galaxy] & Flag.SHARP


def test_a_neighbour_does_not_draw_the_centre_away() -> None:
    light = np.full((120, 120), SKY)
    moffat(light, 55.3, 60.2, 30_000)
    moffat(light, 64.8, 60.9, 120_000)
    frame = (light + np.random.default_rng(3).normal(0, NOISE, light.shape)).astype(np.float32)
    result = find_sources(frame, np.full(frame.shape, NOISE**-2, np.float32), None, GAIN)
    columns = result.columns
    faint = np.argmin(np.hypot(columns["x_px"] - 55.3, columns["y_px"] - 60.2))
    assert np.hypot(columns["x_win_px"][faint] - 55.3, columns["y_win_px"][faint] - 60.2) < 0.3
    assert columns["flags"][faint] & Flag.CROWDED
    assert sextractor_flags(columns["flags"])[faint] & 1


@pytest.mark.parametrize(
    ("change", "flag"),
    [("saturated", Flag.SATURATED), ("hot", Flag.MASKED), ("edge", Flag.EDGE), ("none", None)],
)
def test_flags_say_why(change: str, flag: Flag | None) -> None:
    light = np.full((160, 160), SKY)
    moffat(light, 80.2, 80.4, 50_000)
    frame = (light + np.random.default_rng(4).normal(0, NOISE, light.shape)).astype(np.float32)
    mask, weight = np.zeros(frame.shape, np.int16), np.full(frame.shape, NOISE**-2, np.float32)
    if change == "saturated":
        mask[79:82, 79:82] = int(Bit.SATURATED)
    if change == "hot":
        mask[80, 83] = int(Bit.HOT)
        frame[80, 83] = 60_000
    weight[mask > 0] = 0
    if change == "edge":
        frame, mask, weight = frame[:, 78:], mask[:, 78:], weight[:, 78:]
    columns = find_sources(frame, weight, mask, GAIN, SourceSettings(seeing_px=FWHM)).columns
    assert len(columns["flags"]) >= 1
    brightest = np.argmax(columns["flux_auto_adu"])
    if flag is None:
        assert not columns["flags"][brightest] & ~int(Flag.NO_PETROSIAN)
    else:
        assert columns["flags"][brightest] & flag
    assert columns["flux_auto_adu"][brightest] == pytest.approx(
        50_000, rel=0.35 if change == "edge" else 0.06
    )
    assert FLAG_NAMES.keys() == set(Flag)


def test_forced_photometry_and_dual_images() -> None:
    frame, weight, _, x, y, _ = field()
    at = measure_at(frame, x, y, weight, None, GAIN, SourceSettings(apertures_px=(6.0,)))
    row, star = matched(found(), x, y)
    ratio = at.columns["flux_aperture_adu"][star, 0] / found().columns["flux_aperture_adu"][row, 1]
    assert np.median(ratio) == pytest.approx(1, abs=0.005)
    assert np.array_equal(at.columns["x_win_px"], x)
    outside = measure_at(frame, [-20.0, np.nan, 500.0], [5.0, 5.0, 500.0], weight)
    assert np.isnan(outside.columns["flux_auto_adu"]).tolist() == [True, True, False]
    assert outside.columns["flags"][0] == Flag.INCOMPLETE
    blank = np.random.default_rng(5).normal(SKY, NOISE, frame.shape).astype(np.float32)
    dual = find_sources(blank, weight, None, GAIN, SourceSettings(seeing_px=FWHM), Plane(frame, weight))
    assert len(dual.columns["flags"]) == len(found().columns["flags"])
    pull = dual.columns["flux_aperture_adu"] / dual.columns["flux_aperture_error_adu"]
    assert 0.88 < np.std(pull) < 1.12


def test_noise_factors_multiply_errors() -> None:
    frame, weight, _, x, y, _ = field()
    one, two = (
        measure_at(
            frame, x, y, weight, None, 0.0, SourceSettings(noise_factor=factor, seeing_px=FWHM)
        ).columns
        for factor in (1.0, 2.0)
    )
    assert np.allclose(two["flux_auto_error_adu"], 2 * one["flux_auto_error_adu"])


def test_images_without_sources_and_without_sense() -> None:
    quiet = np.random.default_rng(6).normal(100, 5, (300, 300)).astype(np.float32)
    empty = find_sources(quiet)
    assert len(empty.columns["flags"]) == 0 and np.isnan(empty.measures["seeing_px"])
    assert empty.columns["flux_aperture_adu"].shape == (0, 1)
    torn = quiet.copy()
    torn[40:50], torn[::9, ::7], torn[3, 3] = np.nan, np.nan, np.inf
    assert len(find_sources(torn).columns["flags"]) == 0
    assert len(find_sources(np.full((50, 50), 7.0), np.ones((50, 50))).columns["flags"]) == 0
    for bad in (np.full((50, 50), np.nan), np.full((50, 50), 7.0), np.ones((1, 1))):
        with pytest.raises(BadPixels):
            find_sources(bad)
    with pytest.raises(BadPixels, match="90000 are saturated"):
        find_sources(quiet, None, np.full(quiet.shape, int(Bit.SATURATED), np.int16))
    with pytest.raises(Mixture):
        find_sources(quiet, np.ones((3, 3)))
    with pytest.raises(BadValue):
        find_sources(np.ones(5))
    with pytest.raises(BadValue):
        SourceSettings(apertures_px=(0.0,))
    with pytest.raises(BadValue):
        find_sources(quiet, gain_e_adu=-1)


def test_one_giant_galaxy_and_crowds() -> None:
    random = np.random.default_rng(7)
    y, x = np.mgrid[:700, :700]
    giant = 100 + 3000 * np.exp(-np.hypot(x - 350, 1.5 * (y - 340)) / 60)
    frame = (giant + random.normal(0, 5, giant.shape)).astype(np.float32)
    columns = find_sources(frame, None, None, 0.0, SourceSettings(mesh_px=700)).columns
    assert columns["area_px"].max() > 50_000
    assert np.hypot(columns["x_win_px"] - 350, columns["y_win_px"] - 340)[columns["area_px"].argmax()] < 1
    crowd = random.normal(100, 5, (600, 600))
    places = random.integers(3, 597, (2, 9000))
    for j in range(-2, 3):
        for i in range(-2, 3):
            np.add.at(crowd, (places[0] + j, places[1] + i), 300 * np.exp(-(i * i + j * j) / 2.4))
    assert len(find_sources(crowd.astype(np.float32)).columns["flags"]) > 3000


def test_densest() -> None:
    random = np.random.default_rng(8)
    assert densest(np.concatenate([random.normal(3, 0.05, 200), random.uniform(2, 9, 300)])) == pytest.approx(
        3, abs=0.1
    )
    assert np.isnan(densest(np.empty(0)))
    assert sourceseeing.USUAL_FWHM_PX > 0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1 << 20), number=st.integers(1, 60))
def test_pairs_of_neighbours_are_all_there_are(seed: int, number: int) -> None:
    random = np.random.default_rng(seed)
    x, y = random.uniform(0, 80, (2, number))
    reach = np.exp(random.uniform(-1, 4, number))
    centres = np.flatnonzero(random.random(number) < 0.8)
    one, other = sourcefind._pairs(x, y, reach, centres)
    near = (np.abs(x[:, None] - x) <= reach[:, None]) & (np.abs(y[:, None] - y) <= reach[:, None])
    np.fill_diagonal(near, False)
    near[np.setdiff1d(np.arange(number), centres)] = False
    assert sorted(zip(one.tolist(), other.tolist(), strict=True)) == [
        tuple(each) for each in np.argwhere(near)
    ]


def test_bumps_in_the_wing_of_a_star_join_it_and_its_neighbours_do_not() -> None:
    """On the slope of a bright star noise makes maxima; a star that stands above the slope stays."""
    light = np.full((200, 200), SKY)
    moffat(light, 100.2, 99.7, 4e6, half=60)
    moffat(light, 128.1, 100.3, 9_000)
    random = np.random.default_rng(9)
    electrons = random.poisson(light * GAIN) / GAIN
    frame = (electrons + random.normal(0, READ_NOISE, light.shape)).astype(np.float32)
    how = SourceSettings(seeing_px=FWHM, deblend_contrast=1e-7, threshold_sigma=2)
    with pytest.MonkeyPatch.context() as patch:
        weight = np.full(frame.shape, NOISE**-2, np.float32)
        joined = find_sources(frame, weight, None, GAIN, how)
        patch.setattr(sourcefind, "_cleaned", lambda objects, _: (objects, np.arange(len(objects) + 1)))
        raw = find_sources(frame, weight, None, GAIN, how)
    assert len(joined.columns["x_px"]) < len(raw.columns["x_px"])
    assert np.min(np.hypot(joined.columns["x_px"] - 128.1, joined.columns["y_px"] - 100.3)) < 1
    assert joined.segmentation is not None
    names, pixels = np.unique(joined.segmentation, return_counts=True)
    assert names.tolist() == list(range(len(joined.columns["x_px"]) + 1))
    assert pixels[1:].tolist() == joined.columns["area_px"].tolist()


def test_auto_errors_hold_the_noise_of_the_aperture_itself() -> None:
    """One star in many noises: AUTO scatters more than in a fixed ellipse, and its error says so."""
    random, n, step = np.random.default_rng(10), 24, 64
    light = np.zeros((n * step, n * step))
    for j in range(n):
        for i in range(n):
            moffat(light, i * step + 32.0 + 0.3 * (i % 3), j * step + 32.0 - 0.2 * (j % 4), 100 * NOISE * 9)
    electrons = random.poisson((light + SKY) * GAIN) / GAIN
    frame = (electrons + random.normal(0, READ_NOISE, light.shape)).astype(np.float32)
    columns = find_sources(frame, np.full(light.shape, NOISE**-2, np.float32), None, GAIN).columns
    clean = (columns["flags"] & ~int(Flag.NO_PETROSIAN) == 0) & (columns["flux_auto_adu"] > 50 * NOISE * 9)
    flux, error = columns["flux_auto_adu"][clean], columns["flux_auto_error_adu"][clean]
    assert clean.sum() > 500
    # 550 values tell a scatter to 0.03.
    assert 0.93 < np.std((flux - np.median(flux)) / error) < 1.07


def test_the_noise_ratio_is_that_of_the_sky_in_a_crowd_and_on_a_galaxy() -> None:
    random = np.random.default_rng(11)
    light = np.full((320, 320), SKY)
    for x, y in random.uniform(20, 300, (500, 2)):
        moffat(light, x, y, 3_000 * random.exponential(), half=12)
    y, x = np.mgrid[:320, :320]
    galaxy = SKY + 2000 * np.exp(-((x - 150) ** 2 + (y - 170) ** 2) / (2 * 180**2))
    for name, image in (("crowd", light), ("galaxy", galaxy)):
        frame = (image + random.normal(0, NOISE, image.shape)).astype(np.float32)
        result = find_sources(
            frame, np.full(frame.shape, NOISE**-2, np.float32), None, 0, SourceSettings(seeing_px=FWHM)
        )
        assert 0.9 < result.measures["noise_ratio"] < 1.5, name


def test_errors_hold_that_of_the_sky() -> None:
    """A large aperture knows its flux no better than the sky under it."""
    random = np.random.default_rng(12)
    places = np.mgrid[60:1000:60, 60:1000:60].reshape(2, -1).astype(float)
    frame = random.normal(SKY, NOISE, (1050, 1050)).astype(np.float32)
    how = SourceSettings(apertures_px=(20.0,), seeing_px=FWHM)
    columns = measure_at(frame, *places, np.full(frame.shape, NOISE**-2, np.float32), None, 0, how).columns
    pulls = columns["flux_aperture_adu"] / columns["flux_aperture_error_adu"]
    assert 0.85 < np.std(pulls) < 1.15
    assert np.median(columns["flux_aperture_error_adu"]) > 1.08 * NOISE * np.sqrt(np.pi) * 20


@pytest.mark.parametrize(
    ("what", "flag"), [("trailed", None), ("saturated", Flag.SATURATED), ("half dead", None), ("huge", None)]
)
def test_bad_frames_have_defined_results(what: str, flag: Flag | None) -> None:
    random = np.random.default_rng(13)
    y, x = np.mgrid[:300, :300]
    light = np.full((300, 300), SKY)
    for cx, cy in random.uniform(30, 270, (20, 2)):
        long = 10 if what == "trailed" else 1.6
        light += 4000 * np.exp(-((x - cx) ** 2) / (2 * long**2) - (y - cy) ** 2 / (2 * 1.6**2))
    frame = (light + random.normal(0, NOISE, light.shape)).astype(np.float32)
    mask, weight = np.zeros(frame.shape, np.int16), np.full(frame.shape, NOISE**-2, np.float32)
    if what == "huge":
        with pytest.raises(BadPixels, match="no counts"):
            find_sources(frame * np.float32(1e30))
        return
    if what == "saturated":
        mask[frame > 1500] = int(Bit.SATURATED)
        weight[mask > 0] = 0
    if what == "half dead":
        frame[:, :150] = 0
    result = find_sources(frame, None if what == "half dead" else weight, mask, GAIN)
    columns = result.columns
    assert len(columns["flags"]) >= 5
    assert np.isfinite(columns["flux_auto_adu"]).all() and (columns["flux_auto_error_adu"] > 0).all()
    if what == "trailed":
        assert result.measures["ellipticity"] > 0.7
    if flag is not None:
        assert np.mean(columns["flags"] & flag > 0) > 0.9
