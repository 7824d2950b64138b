"""Frames whose stars are not those of the others are left out by name; changes of the seeing are no reason."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from awetools.core.coadd.coadd import Coadded, How, coadd
from awetools.core.coadd.inputs import CoaddFrame, frame_of_arrays
from awetools.core.coadd.layers import folded, place
from awetools.core.coadd.shifts import shifted
from awetools.core.kinds.coadd import _coarse
from awetools.core.sky.grid import Grid, fit_grid
from awetools.core.sky.readwcs import read_wcs
from awetools.core.sky.wcs import Wcs

SCALE = 0.3 / 3600
SHAPE = (200, 200)
NOISE = 2.0


def system(shift_px: float = 0.0) -> Wcs:
    """The coordinates of all frames, and those that are wrong by some pixels."""
    middle = 0.5 * (SHAPE[1] + 1)
    return Wcs((150.0, 2.0), (middle + shift_px, middle), (-SCALE, 0.0, 0.0, SCALE))


def image(number: int, fwhm_px: float = 3.0, light: np.ndarray | float = 1.0) -> np.ndarray:
    places = np.random.default_rng(3)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    made = np.zeros(SHAPE)
    sigma = fwhm_px / 2.3548
    for _ in range(120):
        cx, cy = places.uniform(5, 195, 2)
        flux = 10 ** places.uniform(3, 4)
        made += flux / (2 * math.pi * sigma**2) * np.exp(-0.5 * ((x - cx) ** 2 + (y - cy) ** 2) / sigma**2)
    return made * light + np.random.default_rng(100 + number).normal(0, NOISE, SHAPE)


def frame(number: int, data: np.ndarray, wcs: Wcs | None = None, scale: float = 1.0) -> CoaddFrame:
    weight = np.full(SHAPE, NOISE**-2, np.float32)
    return frame_of_arrays(f"frame{number}", wcs or system(), data.astype(np.float32), weight, scale=scale)


def grid() -> Grid:
    return fit_grid([(system(), SHAPE)], margin_px=2)


def turned(angle_deg: float) -> Wcs:
    """Coordinates that are right in the middle alone."""
    cosine, sine = (SCALE * of(math.radians(angle_deg)) for of in (math.cos, math.sin))
    return replace(system(), matrix=(-cosine, sine, sine, cosine))


def coadded(odd: CoaddFrame, how: How | None = None) -> Coadded:
    return coadd([*(frame(number, image(number)) for number in range(5)), odd], grid(), how)


HALF = np.where(np.arange(SHAPE[1]) < 100, 0.2, 1.0)[None, :]


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        (frame(5, image(5, light=0.2)), r"1\.[789]\d mag fainter than in the others: a cloud"),
        (frame(5, image(5, light=HALF)), r"1\.[6-9]\d mag fainter than in the others in its left half"),
        (frame(5, image(5), scale=100.0), r"[45]\.\d\d mag brighter|disagree"),
        (frame(5, image(5), scale=0.01), r"[45]\.\d\d mag fainter|disagree"),
        (frame(5, image(5), system(4.0)), "not where those of the others are|disagree"),
        (frame(5, image(5), system(0.7)), r"are 0\.[678]\d pixels from where the others have them, 0\.2"),
        (
            frame(5, image(5), turned(1.0)),
            r"pixels from where the others have them in its \w+ half, 0\.[2-4]\d of",
        ),
        (frame(5, image(5, light=HALF**0.3)), r"0\.[45]\d mag brighter in its right half than in the other"),
    ],
)
def test_a_frame_that_contradicts_is_left_out_and_changes_nothing(odd: CoaddFrame, why: str) -> None:
    made = coadded(odd)
    assert [bool(one.reason) for one in made.frames] == [False] * 5 + [True]
    assert re.search(why, made.frames[5].reason), made.frames[5].reason
    without = coadd([frame(number, image(number)) for number in range(5)], grid())
    assert made.planes["SCI"][:].tobytes() == without.planes["SCI"][:].tobytes()


@pytest.mark.parametrize("fwhm_px", [2.4, 4.2, 6.0])
def test_other_seeing_is_no_contradiction(fwhm_px: float) -> None:
    made = coadded(frame(5, image(5, fwhm_px)), How(most_disagreeing=0.5))
    assert [one.reason for one in made.frames] == [""] * 6


def test_less_transparent_than_the_limit_is_kept() -> None:
    assert not coadded(frame(5, image(5, light=0.5))).frames[5].reason
    strict = coadded(frame(5, image(5, light=0.5)), How(most_extinction_mag=0.5))
    assert re.search(r"0\.[78]\d mag fainter", strict.frames[5].reason)
    free = coadded(frame(5, image(5, light=0.2)), How(most_extinction_mag=None))
    assert not free.frames[5].reason


def test_small_shifts_and_differences_are_no_reason() -> None:
    small = frame(5, image(5, light=HALF**0.1), system(0.2))
    assert not coadded(small).frames[5].reason
    strict = How(most_shift_fraction=0.03, most_disagreeing=0.5)
    assert "of the seeing: its coordinates" in coadded(small, strict).frames[5].reason
    free = How(most_shift_fraction=None, most_uneven_mag=None, most_disagreeing=0.5)
    assert not coadded(frame(5, image(5, light=HALF**0.3), system(0.7)), free).frames[5].reason


@pytest.mark.parametrize("fwhm_px", [1.6, 2.4, 4.2, 6.0])
def test_the_shift_of_stars_is_measured_whatever_the_seeing(fwhm_px: float) -> None:
    rng, y, x = np.random.default_rng(2), *np.mgrid[:16, :16]
    blocks = []
    for width, by in ((3.0, 0.0), (fwhm_px, 0.3)):
        places = np.random.default_rng(1).uniform(5, 10, (60, 2))
        light = [
            np.exp(-4 * math.log(2) * ((x - u - by) ** 2 + (y - v + by / 2) ** 2) / width**2)
            for u, v in places
        ]
        blocks.append(
            np.array(light) * (3 / width) ** 2 * (0.8 if by else 1) * 500 + rng.normal(0, 2, (60, 16, 16))
        )
    found = shifted(blocks[1], blocks[0], np.ones(blocks[0].shape, bool))
    assert np.median(found.columns) == pytest.approx(0.3, abs=0.06)
    assert np.median(found.rows) == pytest.approx(-0.15, abs=0.04)
    assert np.median(found.fwhm) == pytest.approx(3.0, rel=0.25)


@pytest.mark.parametrize("shift_px", [0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0])
def test_no_shift_is_too_large_to_be_seen(shift_px: float) -> None:
    made = coadded(frame(5, image(5), system(shift_px)), How(most_disagreeing=0.9))
    assert [bool(one.reason) for one in made.frames] == [False] * 5 + [True]


def test_what_does_not_tell_a_shift_is_said_to() -> None:
    flat = np.full((2, 16, 16), 3.0)
    found = shifted(flat, flat, np.ones(flat.shape, bool))
    assert not np.isfinite(np.array(found)).any()


def distorted(bend: float) -> Wcs:
    cards = {
        "CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "CRVAL1": 150.0, "CRVAL2": 2.0, "CRPIX1": 100.5,
        "CRPIX2": 100.5, "CD1_1": -SCALE, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": SCALE,
        "PV1_1": 1.0, "PV1_4": bend, "PV2_1": 1.0,
    }  # fmt: skip
    found = read_wcs(cards)
    assert found is not None
    return found


def test_coordinates_that_fold_are_a_reason() -> None:
    assert not folded(distorted(1e-3), SHAPE) and folded(distorted(1e6), SHAPE)
    made = coadded(frame(5, image(5), distorted(1e6)))
    assert "fold" in made.frames[5].reason


def test_an_infinite_reach_is_that_of_the_whole_frame() -> None:
    found = place(0, frame(0, image(0)), grid(), How().regridding)
    assert found is not None
    tilted = replace(found, tilt=(math.inf, math.inf))
    assert tilted.strip_bytes((50, 51), True)[1] >= found.strip_bytes((50, 51), True)[1]


def test_on_a_coarse_grid_pixels_are_averaged() -> None:
    frames = [frame(0, image(0))]
    fine, coarse = (
        Grid(Wcs((150.0, 2.0), (5.5, 5.5), (-step, 0.0, 0.0, step)), (10, 10)) for step in (SCALE, 20 * SCALE)
    )
    assert _coarse(How(), fine, frames).regridding.kernel_name == "lagrange6"
    how = _coarse(How(), coarse, frames)
    assert how.regridding.kernel_name == "area"
    made = coadd(frames, coarse, how)
    assert made.planes["SCI"][:].sum() == pytest.approx(image(0).sum(), rel=0.02)
