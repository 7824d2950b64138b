"""Trails of satellites: found at any angle, masked down to the noise, and nothing found where there is none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awetools.core.errors import BadValue, Mixture
from awetools.core.pixels.saturate import saturated
from awetools.core.pixels.smooth import background
from awetools.core.pixels.stats import clipped
from awetools.core.pixels.trails import Trails, find_trails

from .support import data_path

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

SHAPE = (700, 900)
FWHM_PER_SIGMA = 2.3548


def noise(seed: int = 1, shape: tuple[int, int] = SHAPE) -> Floats:
    """Sky of noise 1."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def star_field(seed: int = 1, stars: int = 250, shape: tuple[int, int] = SHAPE) -> Floats:
    """Noise with stars of all heights, the brightest with spikes along both diagonals."""
    image = noise(seed, shape)
    rng = np.random.default_rng(seed + 100)
    y, x = np.mgrid[-30:31, -30:31]
    radius2 = x * x + y * y
    spikes = np.exp(-0.5 * ((x - y) / 1.2) ** 2) + np.exp(-0.5 * ((x + y) / 1.2) ** 2)
    for _ in range(stars):
        peak = 3.0 * rng.pareto(0.8)
        stamp = min(peak, 5000.0) * (1 + radius2 / 9.0) ** -3.0
        if peak > 500:
            stamp = stamp + 0.02 * peak * spikes * np.exp(-np.sqrt(radius2) / 10)
        row, column = rng.integers(30, shape[0] - 31), rng.integers(30, shape[1] - 31)
        image[row - 30 : row + 31, column - 30 : column + 31] += stamp.astype(np.float32)
    return image


def along_and_across(
    angle_deg: float, through: tuple[float, float], shape: tuple[int, int] = SHAPE
) -> tuple[Floats, Floats]:
    """Distance of each pixel along a line through (x, y), and from it."""
    cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    x -= through[0]
    y -= through[1]
    return x * np.float32(cos) + y * np.float32(sin), y * np.float32(cos) - x * np.float32(sin)


def drawn(
    angle_deg: float,
    peak: float,
    fwhm_px: float = 5.0,
    through: tuple[float, float] = (430.0, 340.0),
    shape: tuple[int, int] = SHAPE,
) -> Floats:
    """A trail of a Gaussian profile."""
    _, across = along_and_across(angle_deg, through, shape)
    light: Floats = np.float32(peak) * np.exp(-0.5 * (across / np.float32(fwhm_px / FWHM_PER_SIGMA)) ** 2)
    return light


def score(found: Trails, light: Floats) -> tuple[float, float]:
    """Recall and precision of the pixels whose light is above 2 sigma."""
    truth = light > 2
    both = int((truth & found.mask).sum())
    return both / int(truth.sum()), both / max(int(found.mask.sum()), 1)


@settings(max_examples=12, deadline=None)
@given(
    st.floats(0, 180),
    st.floats(math.log(4), math.log(300)),
    st.floats(3, 15),
    st.tuples(st.floats(350, 550), st.floats(250, 450)),
)
def test_any_angle_height_and_width(
    angle_deg: float, log_peak: float, fwhm_px: float, through: tuple[float, float]
) -> None:
    light = drawn(angle_deg, math.exp(log_peak), fwhm_px, through)
    found = find_trails(star_field() + light, None)
    recall, precision = score(found, light)
    assert len(found.lines) == 1
    assert precision >= 0.85
    # Below 6 sigma one row of the edge is a tenth of the trail, and along the rows it is in or out as a whole.
    faint = math.exp(log_peak) < 6
    assert recall >= (0.85 if faint else 0.95)
    assert found.mask[light > 2.2].mean() >= 0.95


@pytest.mark.parametrize("angle_deg", [0.0, 0.2, 45.0, 90.0, 90.3, 135.0])
def test_along_the_detector_and_its_diagonals(angle_deg: float) -> None:
    light = drawn(angle_deg, 20.0)
    found = find_trails(star_field() + light, None)
    recall, precision = score(found, light)
    assert recall >= 0.95 and precision >= 0.85
    assert abs((found.lines[0].angle_deg - angle_deg + 90) % 180 - 90) < 0.1


def test_what_is_said_of_a_trail() -> None:
    found = find_trails(noise() + drawn(30.0, 25.0, 6.0), None).lines[0]
    assert found.angle_deg == pytest.approx(30.0, abs=0.1)
    assert found.width_px == pytest.approx(6.0, rel=0.06)
    assert found.peak_sigma == pytest.approx(25.0, rel=0.06)
    ends = np.array([(found.x0_px, found.y0_px), (found.x1_px, found.y1_px)]) - (430.0, 340.0)
    across = ends @ (-math.sin(math.radians(30)), math.cos(math.radians(30)))
    assert np.abs(across).max() < 0.5


@pytest.mark.parametrize(
    "image", [noise(), star_field(), star_field(7, 900)], ids=["noise", "stars", "crowd"]
)
def test_nothing_where_there_is_none(image: Floats) -> None:
    found = find_trails(image, None)
    assert found.lines == () and not found.mask.any()


def test_columns_of_the_detector_and_bleeding_ones_are_no_trails() -> None:
    image = star_field()
    image[:, 200] += 8.0
    image[300:, 411:413] += 50.0
    image[320] += 5.0
    y, x = np.mgrid[-200:201, -2:3]
    image[150:551, 598:603] += (3000 * np.exp(-np.abs(y) / 60.0) / (1 + x * x)).astype(np.float32)
    use = np.ones(SHAPE, np.bool_)
    use[150:551, 597:604] = False
    assert find_trails(image, use).lines == ()


def test_a_faint_trail_is_found_by_its_length() -> None:
    light = drawn(61.0, 0.7, 5.0)
    found = find_trails(star_field() + light, None)
    assert len(found.lines) == 1
    assert found.lines[0].peak_sigma == pytest.approx(0.7, rel=0.2)
    along = light > 0.85 * 0.7
    assert (found.mask & along).sum() > 0.8 * along.sum()
    assert (found.mask & (light > 0.1 * 0.7)).sum() > 0.95 * found.mask.sum()


@pytest.mark.parametrize("period_px", [160, 400])
def test_faint_clumps_in_a_row_are_no_trail(period_px: int) -> None:
    along, _ = along_and_across(61.0, (430.0, 340.0))
    clumps = drawn(61.0, 1.0, 6.0) * (1 + np.sin(np.float32(2 * math.pi / period_px) * along))
    assert find_trails(star_field() + clumps, None).lines == ()


def test_several_at_once() -> None:
    parts = [
        drawn(20.0, 12.0),
        drawn(100.0, 60.0, 4.0, (300.0, 300.0)),
        drawn(160.0, 5.0, 8.0, (500.0, 400.0)),
    ]
    light = np.sum(parts, axis=0, dtype=np.float32)
    found = find_trails(star_field() + light, None)
    recall, precision = score(found, light)
    assert len(found.lines) == 3
    assert recall >= 0.95 and precision >= 0.9


def test_a_trail_ends_where_its_light_does() -> None:
    along, _ = along_and_across(35.0, (430.0, 340.0))
    light = np.where(along < 60, drawn(35.0, 30.0), np.float32(0))
    found = find_trails(star_field() + light, None)
    recall, precision = score(found, light)
    end = np.array((found.lines[0].x1_px, found.lines[0].y1_px)) - (430.0, 340.0)
    assert np.hypot(*end) == pytest.approx(60.0, abs=6.0)
    assert recall >= 0.97 and precision >= 0.93


def test_the_gaps_of_a_blinking_lamp_stay() -> None:
    along, _ = along_and_across(120.0, (430.0, 340.0))
    light = np.where(along % 150 < 80, drawn(120.0, 40.0), np.float32(0))
    found = find_trails(star_field() + light, None)
    recall, precision = score(found, light)
    assert len(found.lines) == 1
    assert recall >= 0.9 and precision >= 0.85


def test_a_bent_wide_trail_out_of_focus() -> None:
    along, across = along_and_across(75.0, (430.0, 340.0))
    off = np.abs(across - 4.0 * (along / 400) ** 2)
    light = (15.0 / (1 + np.exp(np.minimum(off - 9.0, 20.0) / 0.7))).astype(np.float32)
    found = find_trails(star_field() + light, None)
    recall, precision = score(found, light)
    assert len(found.lines) == 1
    assert recall >= 0.95 and precision >= 0.9


def test_a_small_frame() -> None:
    shape = (210, 230)
    light = drawn(50.0, 30.0, 4.0, (110.0, 100.0), shape)
    recall, precision = score(find_trails(noise(3, shape) + light, None), light)
    assert recall >= 0.95 and precision >= 0.9


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 400), (40, 40), (0, 300)])
def test_frames_too_small_for_a_trail(shape: tuple[int, int]) -> None:
    found = find_trails(np.full(shape, 3.0, np.float32), None)
    assert found.mask.shape == shape and not found.mask.any() and found.lines == ()


@pytest.mark.parametrize("fill", [0.0, 5.0, np.nan, np.inf, -np.inf])
def test_constant_frames(fill: float) -> None:
    assert find_trails(np.full((300, 300), fill, np.float32), None).lines == ()


def test_pixels_that_are_not_finite_or_not_used_do_not_vote() -> None:
    light = drawn(25.0, 20.0)
    image = star_field() + light
    rng = np.random.default_rng(5)
    image[rng.random(SHAPE) < 0.1] = np.nan
    image[rng.random(SHAPE) < 0.05] = np.inf
    use = rng.random(SHAPE) > 0.2
    image[~use] = 1e6
    recall, _ = score(find_trails(image, use), light)
    assert recall >= 0.95
    assert find_trails(image, np.zeros(SHAPE, np.bool_)).lines == ()


def test_the_same_again_and_the_input_is_left_alone() -> None:
    image = star_field() + drawn(25.0, 20.0)
    before, use = image.copy(), np.ones(SHAPE, np.bool_)
    one, other = find_trails(image, use), find_trails(image, None)
    assert (one.mask == other.mask).all() and one.lines == other.lines
    assert (image == before).all() and use.all()


def test_senseless_arguments_are_refused() -> None:
    image = noise(1, (50, 50))
    wrong: list[dict[str, Any]] = [
        {"seeing_px": 0.0},
        {"threshold_sigma": -1.0},
        {"edge_sigma": float("nan")},
    ]
    for arguments in wrong:
        with pytest.raises(BadValue):
            find_trails(image, None, **arguments)
    with pytest.raises(Mixture):
        find_trails(image, np.ones((50, 51), np.bool_))
    with pytest.raises(Mixture):
        find_trails(image[0], None)


def real_residual(name: str) -> tuple[Floats, Bools]:
    """A real frame less its smooth sky, over its noise, and which pixels are not saturated.

    The last columns hold a ramp that only a flat removes.
    """
    from astropy.io import fits

    with fits.open(data_path(name)) as hdus:
        raw = hdus[0 if hdus[0].data is not None else 1].data[:, :990].astype(np.float32)
    use = ~saturated(raw, 60000, grow=2)
    rest = raw - background(raw, use)
    return (rest / np.float32(clipped(rest[use]).stdev)).astype(np.float32), use


@pytest.mark.parametrize("name", ["science/d1123.fits", "science/d1120.fits.gz"])
def test_a_real_galaxy_is_no_trail_but_one_across_it_is(name: str) -> None:
    image, use = real_residual(f"nickel-20170302/{name}")
    assert find_trails(image, use).lines == ()
    light = drawn(40.0, 15.0, 5.0, (520.0, 480.0), (image.shape[0], image.shape[1]))
    recall, precision = score(find_trails(image + light, use), light)
    assert recall >= 0.95 and precision >= 0.9
