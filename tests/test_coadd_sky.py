"""The level and the tilt of a mosaic whose backgrounds were matched: those of the sky, whatever fills the field."""

from __future__ import annotations

import numpy as np
import pytest

from awetools.core.coadd.coadd import Coadded, How, Matching, coadd
from awetools.core.coadd.inputs import CoaddFrame, frame_of_arrays
from awetools.core.coadd.skytie import background, find_sky
from awetools.core.sky.grid import Grid
from awetools.core.sky.wcs import Wcs

SIDE, STEP, SCALE, NOISE = 480, 272, 0.4 / 3600, 3.0
WIDE, HIGH = 2 * STEP + SIDE, STEP + SIDE


def system(left: float, bottom: float) -> Wcs:
    """Coordinates of an image whose first pixel is that many pixels from the first of the mosaic."""
    return Wcs((150.0, 2.0), (WIDE / 2 - left, HIGH / 2 - bottom), (-SCALE, 0.0, 0.0, SCALE))


def disc(x: np.ndarray, y: np.ndarray, centre: tuple[float, float], radius: float) -> np.ndarray:
    """A galaxy that ends at a radius."""
    away = np.hypot(x - centre[0], y - centre[1]) / radius
    return np.asarray(60 * np.exp(-2.5 * away) * np.clip((1 - away) * 4, 0, 1))


def frames_of(
    centre: tuple[float, float], radius: float, tilt: float = 0.0, bend: float = 0.0
) -> list[CoaddFrame]:
    """Six frames of a galaxy, each with a level and a tilt of its own, and a bend that is in all of them."""
    rng = np.random.default_rng(5)
    made = []
    for number in range(6):
        left, bottom = number % 3 * STEP + rng.uniform(-2, 2), number // 3 * STEP + rng.uniform(-2, 2)
        y, x = np.mgrid[:SIDE, :SIDE]
        u, v = (2 * x - SIDE) / SIDE, (2 * y - SIDE) / SIDE
        data = disc(x + left, y + bottom, centre, radius) + rng.normal(0, NOISE, (SIDE, SIDE))
        data += rng.uniform(-200, 200) + tilt * (rng.uniform(-1, 1) * u + rng.uniform(-1, 1) * v)
        data -= bend * (u**2 + v**2)
        wcs = system(left, bottom)
        made.append(frame_of_arrays(f"{number}", wcs, data.astype(np.float32), NOISE**-2))
    return made


def away(made: Coadded, centre: tuple[float, float], radius: float) -> np.ndarray:
    """What a coadd has that the galaxy has not, in blocks of 20 x 20; nan where there is no frame."""
    y, x = np.mgrid[:HIGH, :WIDE]
    rest = made.planes["SCI"][:] - disc(x, y, centre, radius)
    rest[made.planes["COUNT"][:] == 0] = np.nan
    blocks = rest[: HIGH // 20 * 20, : WIDE // 20 * 20].reshape(HIGH // 20, 20, WIDE // 20, 20)
    return np.asarray(np.nanmean(blocks, axis=(1, 3)))


# A galaxy in the middle that fills 60% of the mosaic, and one that goes over its edge.
GALAXIES = [((WIDE / 2, HIGH / 2), 384.0), ((240.0, 256.0), 416.0)]


@pytest.mark.parametrize(("centre", "radius"), GALAXIES)
@pytest.mark.parametrize("matching", ["constant", "plane"])
def test_a_galaxy_keeps_its_light_and_the_sky_is_level(
    matching: Matching, centre: tuple[float, float], radius: float
) -> None:
    grid = Grid(system(0, 0), (HIGH, WIDE))
    frames = frames_of(centre, radius, tilt=6.0 if matching == "plane" else 0.0)
    rest = away(coadd(frames, grid, How(matching=matching, gauge="sky")), centre, radius)
    y, x = np.mgrid[:HIGH, :WIDE]
    light = float(disc(x, y, centre, radius).sum())
    assert abs(np.nanmean(rest)) * HIGH * WIDE < 0.01 * light
    ends = slice(4), slice(-4, None)
    corners = [np.nanmean(rest[rows, columns]) for rows in ends for columns in ends]
    assert np.abs(corners).max() < 0.06 * NOISE


def test_what_all_frames_have_wrong_does_not_bend_the_mosaic() -> None:
    centre, radius = GALAXIES[0]
    grid = Grid(system(0, 0), (HIGH, WIDE))
    frames = frames_of(centre, radius, bend=0.3 * NOISE)
    bent, level = (
        np.ptp(np.nanpercentile(away(coadd(frames, grid, how), centre, radius), (5, 95)))
        for how in (How(matching="plane"), How(matching="plane", gauge="sky"))
    )
    # Each frame has a bend of 0.6 of the noise.
    assert level < 0.7 * NOISE < 0.5 * bent


def test_a_field_without_sky_has_no_seams() -> None:
    grid = Grid(system(0, 0), (HIGH, WIDE))
    centre, radius = (WIDE / 2, HIGH / 2), 3000.0
    made = coadd(frames_of(centre, radius, tilt=3.0), grid, How(matching="plane", gauge="sky"))
    rest = away(made, centre, radius)
    y, x = np.nonzero(np.isfinite(rest))
    design = np.stack([np.ones(len(x)), x, y, x * x, x * y, y * y], axis=1).astype(float)
    fitted, *_ = np.linalg.lstsq(design, rest[y, x], rcond=None)
    smooth = design @ fitted
    assert np.std(rest[y, x] - smooth) < 0.1 * NOISE
    assert np.ptp(smooth) < 10 * NOISE


def test_a_background_is_that_of_most_pixels() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(10, 2, 4000).astype(np.float32)
    values[:400] += rng.exponential(20, 400)
    found, error = background(values)
    assert found == pytest.approx(10, abs=0.25)
    assert 0.05 < error < 0.1


def test_sky_is_the_faintest_plane_that_many_agree_on() -> None:
    rng = np.random.default_rng(3)
    x, y = (one.ravel() for one in np.meshgrid(np.linspace(0, 600, 30), np.linspace(0, 400, 20)))
    plane = 5 + 0.01 * x - 0.004 * y
    value = plane + rng.normal(0, 0.1, x.size)
    error = np.full(x.size, 0.1)
    light = 40 * np.exp(-np.hypot(x - 200, y - 150) / 50)
    sky = find_sky(x, y, value + light, error)
    assert sky is not None
    assert sky.tells_tilt
    assert light[sky.cells].max() < 3
    assert 0.05 < sky.scatter < 0.5
    # A shadow is not sky: next to nothing may lie below.
    value[:30] -= 3
    again = find_sky(x, y, value + light, error)
    assert again is not None
    assert not again.cells[:30].any()
    assert find_sky(x[:4], y[:4], value[:4], error[:4]) is None
