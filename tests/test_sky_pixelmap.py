"""Pixel maps against the coordinate systems themselves: distortions, poles, RA 0, edges of projections."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awetools.core.errors import BadValue
from awetools.core.pixels.kernels import SWITCH, kernel
from awetools.core.pixels.resample import input_rows, resample
from awetools.core.sky.pixelmap import PixelMap, pixel_map
from awetools.core.sky.polynomial import Distortion, Polynomial
from awetools.core.sky.projection import Projection
from awetools.core.sky.wcs import Wcs

Array = npt.NDArray[Any]
SCALE = 0.24 / 3600
SHAPE = (300, 400)

pytestmark = pytest.mark.usefixtures("each_kernel")


def tan(
    ra: float = 150.0,
    dec: float = 2.2,
    scale: float = SCALE,
    shape: tuple[int, int] = SHAPE,
    turn: float = 0.0,
    code: str = "TAN",
) -> Wcs:
    angle = np.radians(turn)
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    middle = (shape[1] + 1) / 2, (shape[0] + 1) / 2
    return Wcs((ra, dec), middle, (-c, s, s, c), Projection(code))


def tpv(of: Wcs, size: float = 1e-3, reach_px: float = 250) -> Wcs:
    """With cubic terms that move a pixel at a distance by this part of it."""
    unit = size / (reach_px * SCALE) ** 2
    u = Polynomial.of({(1, 0): 1.0, (3, 0): unit, (1, 2): unit, (2, 0): 3 * unit * SCALE * 20})
    v = Polynomial.of({(0, 1): 1.0, (0, 3): unit, (2, 1): unit, (1, 1): 2 * unit * SCALE * 30})
    return replace(of, distortion=Distortion(u, v, before=False))


def truth(
    made: PixelMap, rows: tuple[int, int], columns: tuple[int, int], shift: float = 0.0
) -> tuple[Array, Array]:
    y, x = np.mgrid[rows[0] : rows[1], columns[0] : columns[1]] + (1.0 + shift)
    found = made.input.to_pixel(*made.output.to_sky(x, y))
    return found[0] - 1, found[1] - 1


def on_image(x: Array, y: Array, shape: tuple[int, int]) -> Array:
    return (x >= -0.5) & (x < shape[1] - 0.5) & (y >= -0.5) & (y < shape[0] - 0.5)


def check(made: PixelMap, shape: tuple[int, int], least_px: float = 0.001) -> int:
    """All that is on the image is in the window and in place, nothing else is; how many pixels are."""
    whole = (0, made.shape[0]), (0, made.shape[1])
    true = on_image(*truth(made, *whole), shape)
    rows, columns = made.window
    outside = true.copy()
    outside[slice(*rows), slice(*columns)] = False
    assert not outside.any()
    x, y = made.at(rows, columns)
    tx, ty = truth(made, rows, columns)
    found, known = on_image(x, y, shape), on_image(tx, ty, shape)
    # On the very edge of the image a place may be on either side of it.
    edge = np.zeros_like(found)
    for a, length in ((tx, shape[1]), (ty, shape[0])):
        edge |= (np.abs(a + 0.5) < 0.01) | (np.abs(a - length + 0.5) < 0.01)
    assert (found == known)[~edge].all()
    if known.any():
        assert np.hypot(x - tx, y - ty)[known].max() < least_px
    return int(known.sum())


def test_a_distorted_image() -> None:
    shape = (350, 300)
    made = pixel_map(tan(), tpv(tan(150.01, 2.195, shape=shape, turn=3)), SHAPE, shape)
    assert check(made, shape) > 49000
    assert 0 < made.error_px < 1e-3 and made.step_px >= 32 and made.computed == 0
    cx, cy = made.corners((10, 20), (30, 50))
    tx, ty = truth(made, (10, 21), (30, 51), -0.5)
    assert cx.shape == (11, 21) and np.hypot(cx - tx, cy - ty).max() < 1e-3


def test_a_lower_tolerance_makes_a_finer_grid() -> None:
    shape, source = (350, 300), tpv(tan(150.01, 2.195, shape=(350, 300)), 0.05)
    loose, tight = (pixel_map(tan(), source, SHAPE, shape, one) for one in (0.1, 1e-7))
    assert tight.step_px < loose.step_px
    assert tight.error_px <= 1e-7
    check(loose, shape, 0.2)
    check(tight, shape, 1e-6)


@pytest.mark.parametrize(
    ("ra", "dec", "turn"),
    [(0.0, 0.0, 0), (359.999, 40.0, 200), (12.0, 90.0, 30), (0.0, -90.0, 0), (100.0, 89.995, 77)],
)
def test_poles_and_ra_zero_are_no_special_places(ra: float, dec: float, turn: float) -> None:
    output = tan(ra, dec)
    source = tpv(tan(ra + 0.004, dec - 0.003 if dec > 0 else dec + 0.003, turn=turn))
    made = pixel_map(output, source, SHAPE, SHAPE)
    assert check(made, SHAPE) > 60000
    assert made.computed == 0


def test_areas() -> None:
    made = pixel_map(tan(scale=2 * SCALE), tpv(tan()), SHAPE, SHAPE)
    rows, columns = (120, 180), (150, 250)
    right, left = (truth(made, rows, columns) for _ in range(2))
    y, x = np.mgrid[rows[0] : rows[1], columns[0] : columns[1]] + 1.0
    places = [
        made.input.to_pixel(*made.output.to_sky(x + a, y + b))
        for a, b in ((0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5))
    ]
    right, left, above, below = places
    area = np.abs((right[0] - left[0]) * (above[1] - below[1]) - (above[0] - below[0]) * (right[1] - left[1]))
    np.testing.assert_allclose(made.areas(rows, columns), area, rtol=1e-5)


def test_all_of_the_sky_on_a_sphere_seen_from_outside() -> None:
    """Beyond its edge nothing is; the other image ends in the middle of it."""
    shape = (180, 360)
    sphere = replace(tan(30, 20, 1.0, (140, 140), code="SIN"), lonpole_deg=180.0)
    car = Wcs((0.0, 0.0), (180.5, 90.5), (-1.0, 0.0, 0.0, 1.0), Projection("CAR"))
    made = pixel_map(sphere, car, (140, 140), shape)
    assert check(made, shape) > 8000
    back = pixel_map(car, sphere, shape, (140, 140))
    assert check(back, (140, 140)) > 20000
    assert 0 < back.computed < 1


def test_an_image_much_smaller_than_a_cell() -> None:
    made = pixel_map(tan(shape=(2000, 2000)), tan(150.02, 2.19, shape=(9, 7), turn=30), (2000, 2000), (9, 7))
    assert check(made, (9, 7)) in range(55, 72)
    assert made.window[0][1] - made.window[0][0] <= 3 * made.step_px


def test_no_overlap() -> None:
    made = pixel_map(tan(), tan(160.0), SHAPE, SHAPE)
    assert made.window == ((0, 0), (0, 0)) or check(made, SHAPE) == 0
    out = resample(np.ones(SHAPE, np.float32), made)
    assert (out.mask == 32).all() and not out.weight.any()
    assert pixel_map(tan(), tan(330.0, -2.2), SHAPE, SHAPE).window == ((0, 0), (0, 0))


def test_a_strip_is_part_of_the_whole() -> None:
    sphere, car = tan(30, 20, 1.0, (140, 140), code="SIN"), tan(0, 0, 1.0, (180, 360), code="CAR")
    for output, source, shape in ((car, sphere, (180, 360)), (tan(), tpv(tan(150.01)), SHAPE)):
        made = pixel_map(output, source, shape, SHAPE)
        (top, bottom), columns = made.window
        whole = *made.at(*made.window), made.areas(*made.window), *made.corners(*made.window)
        for begin, end in ((top, top + 1), (top + 17, top + 40), (bottom - 3, bottom)):
            cut = (begin, end), (columns[0] + 5, columns[1])
            parts = *made.at(*cut), made.areas(*cut), *made.corners(*cut)
            for one, all_ in zip(parts, whole, strict=True):
                same = all_[begin - top :][: len(one), 5:]
                assert np.array_equal(one, same, equal_nan=True)


@settings(max_examples=25, deadline=None)
@given(
    st.floats(0, 360),
    st.floats(-90, 90),
    st.floats(-0.02, 0.02),
    st.floats(0, 360),
    st.floats(0.3, 3),
    st.sampled_from(["TAN", "SIN", "ZEA"]),
)
def test_any_two_systems(ra: float, dec: float, off: float, turn: float, scale: float, code: str) -> None:
    near = max(-90.0, min(90.0, dec + off))
    source = tpv(tan(ra, near, turn=turn), 3e-3)
    check(pixel_map(tan(ra, dec, SCALE * scale, code=code), source, SHAPE, SHAPE), SHAPE)


def test_twins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    if kernel("resample") is None:
        pytest.skip("kernel not built")
    sphere, car = tan(30, 20, 1.0, (140, 140), code="SIN"), tan(0, 0, 1.0, (180, 360), code="CAR")
    for output, source, shape in ((car, sphere, (180, 360)), (tan(), tpv(tan(150.01)), SHAPE)):
        made = pixel_map(output, source, shape, (140, 140))
        one = *made.at(*made.window), made.areas(*made.window), *made.corners(*made.window)
        monkeypatch.setenv(SWITCH, "numpy")
        other = *made.at(*made.window), made.areas(*made.window), *made.corners(*made.window)
        monkeypatch.delenv(SWITCH)
        for a, b in zip(one, other, strict=True):
            assert np.array_equal(a, b, equal_nan=True)


def test_a_frame_on_a_grid_by_strips() -> None:
    image = np.random.default_rng(1).normal(100, 5, (350, 300)).astype(np.float32)
    made = pixel_map(tan(), tpv(tan(150.005, 2.203, shape=image.shape, turn=2)), SHAPE, image.shape)
    whole = resample(image, made, conserve="flux")
    for rows in ((100, 140), (290, 300)):
        begin, end = input_rows(made, image.shape, rows=rows)
        assert end - begin < rows[1] - rows[0] + 40
        part = resample(image[begin:end], made, conserve="flux", rows=rows, first_row=begin)
        assert part.data.tobytes() == whole.data[slice(*rows)].tobytes()
        assert part.weight.tobytes() == whole.weight[slice(*rows)].tobytes()


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(BadValue):
        pixel_map(tan(), tan(), SHAPE, SHAPE, 0)
    with pytest.raises(BadValue):
        pixel_map(tan(), tan(), SHAPE, (0, 5))
