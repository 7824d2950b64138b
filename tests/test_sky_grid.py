"""Grids of the sky: text and back, around frames at any place, tiles without gaps."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awetools.core.errors import BadHeader, BadValue, EmptyInput, NoSolution
from awetools.core.sky.grid import (
    NOWHERE,
    Tiling,
    fit_grid,
    grid_of_text,
    touching,
    window_of,
)
from awetools.core.sky.wcs import Wcs

DEG = 1 / 3600


def frame(ra: float, dec: float, scale: float = 0.3, turn_deg: float = 0.0, shape=(400, 300)):
    """A frame around a position, turned."""
    cosine, sine = (scale * DEG * f(math.radians(turn_deg)) for f in (math.cos, math.sin))
    return Wcs((ra, dec), (shape[1] / 2 + 0.5, shape[0] / 2 + 0.5), (-cosine, sine, sine, cosine)), shape


@pytest.mark.parametrize("projection", ["TAN", "ZEA", "CAR", "SIN"])
def test_text_and_back(projection: str) -> None:
    grid = fit_grid([frame(359.9, 33.0), frame(0.2, 33.1)], projection=projection)
    again = grid_of_text(grid.text())
    assert again == grid
    assert json.loads(grid.text())["NAXIS1"] == grid.shape[1]


@pytest.mark.parametrize(
    "text", ["", "[1]", "{}", '{"NAXIS1": 3, "NAXIS2": 0}', '{"NAXIS1": 3, "NAXIS2": 4}']
)
def test_text_that_is_no_grid(text: str) -> None:
    with pytest.raises(BadHeader):
        grid_of_text(text)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0, 360),
    st.floats(-90, 90),
    st.lists(
        st.tuples(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3), st.floats(0, 360)), min_size=1, max_size=5
    ),
    st.integers(0, 20),
)
def test_all_frames_are_on_their_grid_and_none_of_it_is_spare(ra, dec, offsets, margin) -> None:
    frames = []
    for along, up, turn in offsets:
        to = max(-90.0, min(90.0, dec + up))
        frames.append(frame((ra + along / max(0.01, math.cos(math.radians(to)))) % 360, to, 1.1, turn))
    grid = fit_grid(frames, margin_px=margin)
    assert grid.wcs.parity == -1
    assert grid.wcs.pixel_scale_arcsec == pytest.approx(1.1, rel=1e-3)
    sides = [np.inf, np.inf, -np.inf, -np.inf]
    for wcs, (ny, nx) in frames:
        edge = np.linspace(0.5, nx + 0.5, 50), np.linspace(0.5, ny + 0.5, 50)
        x = np.concatenate([edge[0], edge[0], np.full(50, 0.5), np.full(50, nx + 0.5)])
        y = np.concatenate([np.full(50, 0.5), np.full(50, ny + 0.5), edge[1], edge[1]])
        gx, gy = grid.wcs.to_pixel(*wcs.to_sky(x, y))
        sides = [
            min(sides[0], gx.min()),
            min(sides[1], gy.min()),
            max(sides[2], gx.max()),
            max(sides[3], gy.max()),
        ]
        (y0, y1), (x0, x1) = window_of(grid, wcs, (ny, nx))
        assert x0 + 0.5 <= gx.min() + 1e-6
        assert gx.max() <= x1 + 0.5 + 1e-6
        assert y0 + 0.5 <= gy.min() + 1e-6
        assert gy.max() <= y1 + 0.5 + 1e-6
    assert min(sides[:2]) >= 0.499 + margin
    assert sides[2] <= grid.shape[1] + 0.501 - margin
    assert sides[3] <= grid.shape[0] + 0.501 - margin
    assert max(sides[:2]) < margin + 1.6
    assert sides[2] > grid.shape[1] - margin - 0.6
    assert sides[3] > grid.shape[0] - margin - 0.6


def test_frames_that_fit_no_grid() -> None:
    with pytest.raises(EmptyInput):
        fit_grid([])
    with pytest.raises(NoSolution):
        fit_grid([frame(0, 0), frame(180, 0)])
    with pytest.raises(NoSolution, match="TAN"):
        fit_grid([*[frame(0, one) for one in range(5)], frame(110, 0)])
    with pytest.raises(BadValue):
        fit_grid([frame(0, 0)], scale_arcsec=0)


def test_what_is_elsewhere_is_nowhere_and_strips_are_touched() -> None:
    grid = fit_grid([frame(150, 2, shape=(1000, 1000))])
    near = [frame(150, 2), frame(150, 2.03), frame(150, 30), frame(330, -2)]
    windows = [window_of(grid, *one) for one in near]
    assert windows[2:] == [NOWHERE, NOWHERE]
    assert touching(windows, (480, 520)) == [0]
    assert touching(windows, (0, grid.shape[0])) == [0, 1]
    part = grid.part(windows[0])
    (y0, _), (x0, _) = windows[0]
    assert np.allclose(part.wcs.to_sky(1, 1), grid.wcs.to_sky(1 + x0, 1 + y0), atol=1e-12)


@pytest.mark.parametrize(("size", "overlap"), [(3600, 100), (7200, 0), (20000, 400)])
def test_tiles_leave_no_gap(size: int, overlap: int) -> None:
    tiling = Tiling("t", 5.0, size, overlap)
    rng = np.random.default_rng(3)
    names = {}
    for number in range(150):
        ra, dec = rng.uniform(0, 360), math.degrees(math.asin(rng.uniform(-1, 1)))
        dec = (90.0, -90.0, 89.0, -85.0, 60.0)[number] if number < 5 else dec
        inside = []
        for name, grid in tiling.around(ra, dec, 0.0):
            assert names.setdefault(name, grid.text()) == grid.text()
            assert tiling.named(name) == grid
            x, y = grid.wcs.to_pixel(ra, dec)
            edge = min(x, y, size + 1 - x, size + 1 - y) - 0.5
            inside.append(float(edge))
        assert max(inside) >= overlap / 2 - 1e-3, (ra, dec)


def test_tiles_of_frames_hold_them() -> None:
    tiling = Tiling("survey", 0.3, 1000, 50)
    frames = [frame(0.01, 89.98, shape=(500, 500)), frame(359.99, -10.0, turn_deg=33)]
    found = tiling.of_frames(frames)
    assert list(found) == sorted(found)
    for wcs, (ny, nx) in frames:
        x, y = np.meshgrid(np.arange(1, nx, 37), np.arange(1, ny, 37))
        ra, dec = wcs.to_sky(x, y)
        held = np.zeros(x.shape, bool)
        for grid in found.values():
            gx, gy = grid.wcs.to_pixel(ra, dec)
            held |= (gx >= 1) & (gx <= 1000) & (gy >= 1) & (gy <= 1000)
        assert held.all()


@pytest.mark.parametrize(
    "values",
    [
        ("", 1.0, 100, 10),
        ("a b", 1.0, 100, 10),
        ("a", 0.0, 100, 10),
        ("a", 1.0, 100, 100),
        ("a", 3600.0, 100, 0),
    ],
)
def test_tiles_that_make_no_sense(values) -> None:
    with pytest.raises(BadValue):
        Tiling(*values)
    with pytest.raises(BadValue):
        Tiling("a", 1.0, 1000, 10).named("b-1-1")
