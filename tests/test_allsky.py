"""Stars on maps of all of the sky: as bright and in place, away from the middle, over edges and poles."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from awetools.core.coadd import strips
from awetools.core.coadd.coadd import How, coadd, members, prepare
from awetools.core.coadd.inputs import CoaddFrame, frame_of_arrays
from awetools.core.coadd.layers import place
from awetools.core.fits import open_fits
from awetools.core.fitsheader import wcs_cards
from awetools.core.frame import Frame
from awetools.core.kinds.regrid import RegridParams, make_regrid
from awetools.core.pixels.coadd import Stacking
from awetools.core.sky.grid import Grid, fit_grid
from awetools.core.sky.gridtext import parse_grid
from awetools.core.sky.readwcs import read_wcs
from awetools.core.sky.wcs import Wcs
from awetools.core.sky.writewcs import wcs_as_cards
from awetools.core.store import init_store
from tests.foreign_frames import SHAPE as FOREIGN_SHAPE
from tests.foreign_frames import STARS, write_foreign
from tests.support import InProcess
from tests.test_coadd import exposures, planes
from tests.test_regrid import CELL, EXPTIME, SHAPE, frame, solution, star_field, system

Array = npt.NDArray[Any]


def text_at(word: str, reference: tuple[float, float], centre: tuple[float, float], size: int) -> str:
    """A grid of 0.3 arcsec around a place that is far from the reference point."""
    plain = parse_grid(f"{word} {reference[0]} {reference[1]} 0.3 10x10 0,0").grid()
    x, y = (float(one) for one in plain.wcs.to_pixel(*centre))
    middle = size // 2
    return f"{word} {reference[0]} {reference[1]} 0.3 {size}x{size} {middle - round(x)},{middle - round(y)}"


@pytest.mark.parametrize(
    ("word", "reference"),
    [
        ("TAN", (110.0, 20.0)),
        ("ZEA", (60.0, -20.0)),
        ("STG", (110.0, 20.0)),
        ("AIR", (90.0, 0.0)),
        ("AZP:PV2_1=2,PV2_2=10", (110.0, 20.0)),
        ("AIT", (40.0, 0.0)),
        ("MOL", (40.0, 0.0)),
        ("SFL", (60.0, 0.0)),
        ("CEA", (40.0, 0.0)),
        ("MER", (40.0, 0.0)),
        ("COE:PV2_1=45,PV2_2=20", (80.0, 45.0)),
        ("BON:PV2_1=45", (80.0, 0.0)),
        ("QSC", (30.0, 0.0)),
        ("TSC", (30.0, 0.0)),
        ("HPX", (40.0, 0.0)),
        ("XPH", (0.0, 90.0)),
    ],
)
def test_stars_keep_flux_and_place_far_from_the_reference_point(
    word: str, reference: tuple[float, float]
) -> None:
    centre = 150.0, 42.5
    wcs = system(*centre)
    image, sx, _ = star_field(0.0)
    grid = text_at(word, reference, centre, 700)
    result = make_regrid(
        frame(image),
        solution(wcs),
        None,
        params=RegridParams(grid=grid, background="leave", kernel="lagrange8"),
    )
    there = read_wcs(result.meta["wcs"])  # type: ignore[arg-type]
    data = np.asarray(result.planes["SCI"], np.float64) * EXPTIME
    y, x = np.mgrid[1 : data.shape[0] + 1, 1 : data.shape[1] + 1]
    fx, fy = wcs.to_pixel(*there.to_sky(x, y))
    # Each pixel counts for the star in whose cell of the frame it is.
    column, row = ((np.floor((one - 0.5) / CELL)).astype(int) for one in (fx, fy))
    inside = (column >= 0) & (column < SHAPE[1] // CELL) & (row >= 0) & (row < SHAPE[0] // CELL)
    cell = np.where(inside, row * (SHAPE[1] // CELL) + column, -1)
    good = (np.asarray(result.planes["WEIGHT"]) > 0)[inside]
    whole = np.bincount(cell[inside], good, len(sx)) / np.maximum(
        1, np.bincount(cell[inside], minlength=len(sx))
    )
    full = image.reshape(SHAPE[0] // CELL, CELL, -1, CELL).sum((1, 3)).ravel()
    sums = [np.bincount(cell[inside], (data * one)[inside], minlength=len(sx)) for one in (1.0, fx, fy)]
    inner = whole > 0.9
    assert inner.sum() >= 12
    assert np.abs(sums[0] / full - 1)[inner].max() < 1e-3
    iy, ix = np.mgrid[1 : SHAPE[0] + 1, 1 : SHAPE[1] + 1]
    for sum_, own in ((sums[1], ix), (sums[2], iy)):
        true = (image * own).reshape(SHAPE[0] // CELL, CELL, -1, CELL).sum((1, 3)).ravel() / full
        assert np.abs(sum_ / sums[0] - true)[inner].max() < 0.01


# Coadds


def centroids(image: Array, x: Array, y: Array) -> tuple[Array, Array]:
    import sep

    found = sep.winpos(np.ascontiguousarray(image, np.float64), x - 1, y - 1, np.full(len(x), 2.0))
    return found[0] + 1, found[1] + 1


AROUND_0, POLES = ((0.0, 40.0), (359.9999, -30.0)), ((77.0, 89.997), (0.0, -89.997))


@pytest.mark.parametrize(
    ("word", "ra", "dec"),
    [
        *((word, *at) for word in ("TAN", "ZEA", "AIT", "HPX", "COE:PV2_1=60") for at in AROUND_0),
        *((word, *at) for word in ("TAN", "ZEA", "XPH") for at in POLES),
        ("AIT", *POLES[0]),
    ],
)
def test_coadds_across_ra_0_and_the_poles(word: str, ra: float, dec: float) -> None:
    frames, stars = exposures(3, ra, dec, noise=0.01, cosmic=0.0)
    grid = fit_grid([(one.wcs, one.shape) for one in frames], projection=word, margin_px=3)
    made = coadd(frames, grid, How(Stacking("mean"), most_disagreeing=0))
    data, count = made.planes["SCI"][:], made.planes["COUNT"][:]
    assert all(not one.reason for one in made.frames)
    away, used = [], 0
    for star_ra, star_dec, _ in stars:
        x, y = (float(one) for one in grid.wcs.to_pixel(star_ra, star_dec))
        around = slice(max(0, round(y) - 9), round(y) + 8), slice(max(0, round(x) - 9), round(x) + 8)
        # At a pole of the map its pixels are no squares.
        bent = not grid.wcs.projection.smooth and abs(star_dec) > 89.9
        if bent or count[around].shape != (17, 17) or count[around].min() < 3:
            continue
        others = [
            abs(x - one) + abs(y - two)
            for one, two in (map(float, grid.wcs.to_pixel(a, d)) for a, d, _ in stars)
        ]
        if sorted(others)[1] < 25:
            continue
        cx, cy = centroids(data, np.array([x]), np.array([y]))
        away.append(math.hypot(float(cx[0]) - x, float(cy[0]) - y))
        used += 1
    if grid.wcs.projection.smooth or abs(dec) < 80:
        assert used >= 2 and max(away) < 0.01
    else:
        assert count.max() == 3


def wide(ra: float, dec: float, shape: tuple[int, int] = (60, 50), scale: float = 240.0) -> Wcs:
    step = scale / 3600
    return Wcs((ra, dec), ((shape[1] + 1) / 2, (shape[0] + 1) / 2), (-step, 0.0, 0.0, step))


def over_the_edge() -> tuple[list[CoaddFrame], Grid]:
    """Frames on the meridian that is the edge of the map, and the map."""
    rng, shape, frames = np.random.default_rng(5), (60, 50), []
    for number in range(4):
        wcs = wide(180 + 0.1 * number, 10 + 0.1 * number)
        y, x = np.mgrid[1 : shape[0] + 1, 1 : shape[1] + 1]
        ra, dec = wcs.to_sky(x, y)
        data = (
            100 + 5 * np.sin(np.radians(ra * 40)) * np.cos(np.radians(dec * 60)) + rng.normal(0, 0.1, shape)
        )
        data[rng.random(shape) < 0.005] += 400
        frames.append(frame_of_arrays(f"frame{number}", wcs, data.astype(np.float32), 100.0))
    return frames, parse_grid("AIT 0 0 240 4900x400 2450.5,50.5").grid()


def test_a_coadd_over_the_edge_of_a_map_is_whole_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, grid = over_the_edge()
    how = How(Stacking("clip"), most_disagreeing=0)
    made = coadd(frames, grid, how)
    whole = planes(made)
    covered = np.flatnonzero(whole["COUNT"].any(axis=0))
    assert covered.min() < 100 and covered.max() > 4800 and not ((covered > 200) & (covered < 4700)).any()
    y, x = np.nonzero(whole["COUNT"] >= 3)
    ra, dec = grid.wcs.to_sky(x + 1, y + 1)
    assert (ra < 180).any() and (ra > 180).any()
    true = 100 + 5 * np.sin(np.radians(ra * 40)) * np.cos(np.radians(dec * 60))
    # In the flux of a frame's pixel: the area of those of the map is the same but for its rounding.
    ratio = whole["SCI"][y, x] / true
    assert abs(float(np.median(ratio)) - 1) < 3e-3 and np.std(ratio) < 0.02
    # Nothing of what lies between the sides is made, nor kept in memory.
    prepared = prepare(frames, grid, how)
    rows = prepared.placed[0].window[0]
    spans = prepared.placed[0].spans(rows)
    assert len(spans) == 2 and sum(last - first for first, last in spans) < 400
    held, making = prepared.placed[0].strip_bytes(rows, True)
    assert held < (rows[1] - rows[0]) * 400 * 10 and making < 60 * 50 * 44 + 400 * 16 * 80
    for height, threads in ((7, 2), (33, 1)):
        monkeypatch.setattr(strips, "STRIP_ROWS", height)
        other = planes(coadd(frames, grid, replace(how, threads=threads)))
        for name, plane in whole.items():
            assert plane.tobytes() == other[name].tobytes(), (name, height)
    # A pixel knows its frames on either side.
    for side in (x < 2450, x > 2450):
        at = int(y[side][50]), int(x[side][50])
        found = members(prepared.placed, grid, *at, how)
        entered = [one for one in found if one.state == "entered"]
        assert len(entered) == whole["COUNT"][at]
        mean = sum(one.value * one.weight for one in entered) / sum(one.weight for one in entered)
        assert mean == pytest.approx(float(whole["SCI"][at]), rel=1e-5)


def test_a_map_of_all_of_the_sky_goes_onto_a_plane() -> None:
    whole = parse_grid("MOL 0 0 1800 660x330").grid()
    y, x = np.mgrid[1 : whole.shape[0] + 1, 1 : whole.shape[1] + 1]
    ra, dec = whole.wcs.to_sky(x, y)
    known = np.isfinite(ra)
    data = np.where(known, 100 + 10 * np.sin(np.radians(2 * ra)) * np.cos(np.radians(2 * dec)), 0.0)
    one = frame_of_arrays("sky", whole.wcs, data.astype(np.float32), known.astype(np.float32))
    for text in ("TAN 100 40 1800 60x60", "TAN 180 10 1800 60x60", "ZEA 30 -50 1800 60x60"):
        grid = parse_grid(text).grid()
        assert place(0, one, grid, How().regridding) is not None
        made = coadd([one], grid, How(Stacking("mean"), most_disagreeing=0))
        sci, count = made.planes["SCI"][:], made.planes["COUNT"][:]
        gy, gx = np.mgrid[1:61, 1:61]
        true = [np.radians(2 * value) for value in grid.wcs.to_sky(gx, gy)]
        ratio = sci / (100 + 10 * np.sin(true[0]) * np.cos(true[1]))
        area = grid.wcs.pixel_area_arcsec2(gx, gy) / 1800**2
        good = count > 0
        # Beside the edge of the map its pixels have no neighbours on the other side.
        assert good.mean() > (0.85 if text.startswith("TAN 180") else 0.93)
        assert np.abs(ratio / area - 1)[good].max() < 0.005


@pytest.mark.parametrize("word", ["TAN", "ZEA", "AIT"])
@pytest.mark.parametrize(("ra", "dec"), [((359.999, 0.002), 12.0), ((30.0, 200.0), 89.9955)])
def test_the_programs_at_ra_0_and_the_pole(
    word: str,
    ra: tuple[float, float],
    dec: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: InProcess,
) -> None:
    init_store(tmp_path / "store")
    monkeypatch.chdir(tmp_path / "store")
    names, systems = [], []
    for number, one in enumerate(ra):
        wcs = Wcs((one, dec), (88.0, 80.0), (-1e-4, 0.0, 0.0, 1e-4))
        cards = {**wcs_as_cards(wcs), "DATE-OBS": f"2024-03-02T23:1{number}:00.000", "LONPOLE": 180.0}
        planes = {"WHT": np.full(FOREIGN_SHAPE, 0.01, np.float32)}
        path = write_foreign(tmp_path / f"frame{number}.fits", planes=planes, cards=cards)
        names.append(f"f{number}.fits")
        systems.append(wcs)
        assert run("import_", "-q", "--as", "reduced", "--weight", "WHT", "-o", names[-1], path).code == 0
    assert run("grid", "make", "-q", "g", "--fit", "--projection", word, *names).code == 0
    plain = ("--no-astrom", "--no-zeropoint", "--grid", "g")
    assert run("regrid", "-q", *plain, names[0], "-o", "r.fits").code == 0
    assert run("coadd", "-q", *plain, *names, "-o", "c.fits").code == 0
    middle = "0.0005,12.0" if dec < 80 else "100,89.9995"
    assert run("cutout", "-q", "c.fits", "--at-sky", middle, "--size", "20px", "-o", "cut.fits").code == 0
    told = run("lineage", "--at-sky", middle, "c.fits")
    assert told.code == 0 and "f0.fits" in told.out and "the same" in told.out
    with open_fits("r.fits") as fits:
        there, data = read_wcs(wcs_cards(fits.hdus[0].header)), fits.image(0)
    x, y = np.transpose(STARS)
    sky = systems[0].to_sky(x, y)
    gx, gy = there.to_pixel(*sky)
    cx, cy = centroids(data, gx, gy)
    near = (sky[1] < 89.99) | (there.projection.code != "AIT")
    assert near.sum() >= 4
    # By the noise of stars that have a signal of some 500 times it.
    assert np.median(np.hypot(cx - gx, cy - gy)[near]) < 0.02


def test_a_frame_without_a_place_on_the_map_is_not_on_it() -> None:
    grid = parse_grid("HPX 0 0 600 600x600 300,300").grid()
    one = frame_of_arrays("far", wide(120, 10), np.ones((60, 50), np.float32), 1.0)
    assert place(0, one, grid, How().regridding) is None
    assert isinstance(frame(np.zeros(SHAPE, np.float32)), Frame)
