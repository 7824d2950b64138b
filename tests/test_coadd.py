"""Coadds: the same bits for any memory and threads, each pixel's inputs found again, what does not belong left out."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from awetools.core.coadd import strips
from awetools.core.coadd.coadd import Coadded, How, coadd, members, prepare
from awetools.core.coadd.inputs import CoaddFrame, flux_scale, frame_of_arrays, frame_of_fits, mesh_sky
from awetools.core.coadd.layers import Regridding, layer_of, place
from awetools.core.errors import BadValue, EmptyInput, Mixture, Unavailable
from awetools.core.fits import open_fits
from awetools.core.fitswrite import Plane, write_fits
from awetools.core.pixels.coadd import Stacking
from awetools.core.sky.grid import Grid, fit_grid
from awetools.core.sky.wcs import Wcs

SCALE = 0.3 / 3600
SHAPE = (130, 110)
FWHM = 3.6


def system(ra: float, dec: float, turn_deg: float = 0.0, shape=SHAPE) -> Wcs:
    cosine, sine = (SCALE * f(math.radians(turn_deg)) for f in (math.cos, math.sin))
    return Wcs((ra, dec), (shape[1] / 2 + 0.5, shape[0] / 2 + 0.5), (-cosine, sine, sine, cosine))


def sky(wcs: Wcs, shape, stars, fwhm: float = FWHM) -> np.ndarray:
    """Light of stars (RA, Dec, flux) on an image, by the Moffat profile."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 1.0
    made = np.zeros(shape)
    alpha = fwhm / (2 * math.sqrt(2 ** (1 / 3.5) - 1))
    for ra, dec, flux in stars:
        cx, cy = wcs.to_pixel(ra, dec)
        made += flux * 2.5 / (math.pi * alpha**2) * (1 + ((x - cx) ** 2 + (y - cy) ** 2) / alpha**2) ** -3.5
    return made


def exposures(
    count: int = 5,
    ra: float = 150.0,
    dec: float = 2.0,
    noise: float = 2.0,
    turn: float = 3.0,
    cosmic: float = 0.003,
) -> tuple[list[CoaddFrame], list[tuple[float, float, float]]]:
    """Dithered frames of one sky, with bad pixels, a bad column and cosmic rays, and the stars."""
    rng, shape = np.random.default_rng(1), SHAPE
    # Places are given on the tangent plane, so that they make sense at the pole.
    plane = Wcs((ra, dec), (0.0, 0.0), (SCALE, 0.0, 0.0, SCALE))
    stars = [
        (*map(float, plane.to_sky(x, y)), 10 ** rng.uniform(3, 5)) for x, y in rng.uniform(-45, 45, (12, 2))
    ]
    frames = []
    for number in range(count):
        centre = plane.to_sky(*rng.uniform(-8, 8, 2))
        wcs = system(float(centre[0]), float(centre[1]), turn * number, shape)
        data = sky(wcs, shape, stars) + rng.normal(0, noise, shape)
        data[rng.random(shape) < cosmic] += 400
        weight = np.full(shape, noise**-2, np.float32)
        mask = np.zeros(shape, np.int16)
        hot = rng.random(shape) < 0.004
        hot[:, 40 + number] = True
        hot[60:70, 20:30] = True
        data[hot], mask[hot], weight[hot] = 5000, 1, 0
        frames.append(frame_of_arrays(f"frame{number}", wcs, data.astype(np.float32), weight, mask))
    return frames, stars


def planes(made: Coadded) -> dict[str, np.ndarray]:
    return {name: one[:] for name, one in {**made.planes, **made.clipped}.items()}


def grid_of(frames: list[CoaddFrame], margin: int = 3) -> Grid:
    return fit_grid([(one.wcs, one.shape) for one in frames], margin_px=margin)


@pytest.mark.parametrize("method", ["mean", "clip", "median"])
@pytest.mark.parametrize("turn", [0.0, 31.0])
def test_the_bits_are_the_same_for_any_strips_and_threads(
    method, turn, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, _ = exposures(turn=turn)
    grid = grid_of(frames)
    how = How(Stacking(method), most_disagreeing=0)
    whole = planes(coadd(frames, grid, how))
    for rows, threads in ((11, 3), (64, 2)):
        monkeypatch.setattr(strips, "STRIP_ROWS", rows)
        other = planes(coadd(frames, grid, replace(how, threads=threads)))
        for name, plane in whole.items():
            assert plane.tobytes() == other[name].tobytes(), (name, rows, threads)


def test_less_memory_makes_lower_strips_and_too_little_is_said() -> None:
    frames, _ = exposures(3)
    grid = grid_of(frames)
    how = How(most_disagreeing=0)
    prepared = prepare(frames, grid, how)
    row, all_of_it = (strips.strip_bytes(prepared.placed, grid, (0, one), how) for one in (1, grid.shape[0]))
    assert 0 < row < all_of_it
    enough = coadd(frames, grid, how)
    held = strips.resident_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strips, "resident_bytes", lambda: held)
        less = coadd(frames, grid, replace(how, memory_bytes=held + all_of_it // 3))
        assert less.strips > enough.strips == 1
        assert np.array_equal(less.planes["SCI"][:], enough.planes["SCI"][:])
        with pytest.raises(Unavailable, match=r"one row .* the cap") as caught:
            coadd(frames, grid, replace(how, memory_bytes=held + 1000))
        assert "--memory" in caught.value.hint


def test_every_pixel_knows_its_frames() -> None:
    frames, _ = exposures(5)
    grid = grid_of(frames)
    how = How(matching="constant")
    prepared = prepare(frames, grid, how)
    made = coadd(frames, grid, how)
    count, weight, sci, mask = (made.planes[name][:] for name in ("COUNT", "WEIGHT", "SCI", "MASK"))
    listed = list(zip(*(made.clipped[name][:].tolist() for name in ("X", "Y", "FRAME")), strict=True))
    assert listed == sorted(listed, key=lambda one: (one[1], one[0], one[2]))
    assert len(listed) > 50
    rng = np.random.default_rng(5)
    places = [(y - 1, x - 1) for x, y, _ in listed[::15]]
    places += [(int(y), int(x)) for y, x in zip(*(rng.integers(0, n, 30) for n in grid.shape), strict=True)]
    for y, x in [*places, (0, 0), (grid.shape[0] - 1, grid.shape[1] - 1)]:
        found = members(prepared.placed, grid, y, x, how)
        entered = [one for one in found if one.state == "entered"]
        assert len(entered) == count[y, x]
        clipped = {one.number for one in found if one.state == "clipped"}
        assert clipped == {number for px, py, number in listed if (py - 1, px - 1) == (y, x)}
        assert bool(mask[y, x] & 1024) == bool(clipped)
        if entered:
            total = sum(one.weight for one in entered)
            assert total == pytest.approx(float(weight[y, x]), rel=1e-6)
            mean = sum(one.weight * one.value for one in entered) / total
            assert mean == pytest.approx(float(sci[y, x]), rel=1e-5, abs=1e-5)
        else:
            assert weight[y, x] == 0
            assert mask[y, x]
    with pytest.raises(BadValue, match="not on a grid"):
        members(prepared.placed, grid, -1, 0, how)


@pytest.mark.parametrize(("ra", "dec"), [(150.0, 2.0), (0.0, -30.0), (40.0, 90.0), (200.0, -89.999)])
def test_stars_keep_flux_and_place_anywhere_on_the_sky(ra: float, dec: float) -> None:
    frames, stars = exposures(5, ra, dec, noise=0.5, cosmic=0)
    grid = grid_of(frames)
    made = coadd(frames, grid)
    assert not [one.reason for one in made.frames if one.reason]
    sci = made.planes["SCI"][:].astype(float)
    y, x = np.mgrid[: grid.shape[0], : grid.shape[1]] + 1.0
    model, count = sky(grid.wcs, grid.shape, stars), made.planes["COUNT"][:]
    checked = 0
    for star_ra, star_dec, flux in stars:
        cx, cy = grid.wcs.to_pixel(star_ra, star_dec)
        near = np.hypot(x - cx, y - cy) < 9
        alone = sky(grid.wcs, grid.shape, [(star_ra, star_dec, flux)])
        if (
            flux < 5e3
            or near.sum() < 240
            or count[near].min() < 2
            or alone[near].sum() < 0.98 * model[near].sum()
        ):
            continue
        checked += 1
        assert sci[near].sum() == pytest.approx(model[near].sum(), rel=3e-3)
        # The shift that a fit of the profile's slope finds.
        for axis in (0, 1):
            slope = np.gradient(alone, axis=axis)[near]
            shift = ((sci - model)[near] * slope).sum() / (slope**2).sum()
            assert abs(shift) < 0.02
    assert checked >= 2


def test_outliers_do_not_survive_and_stars_do() -> None:
    frames, stars = exposures(5)
    grid = grid_of(frames)
    clip, mean = (coadd(frames, grid, How(Stacking(one))).planes["SCI"][:] for one in ("clip", "mean"))
    model = sky(grid.wcs, grid.shape, stars)
    deep = coadd(frames, grid).planes["COUNT"][:] >= 4
    assert ((mean - model)[deep] > 25).mean() > 0.01
    assert ((clip - model)[deep] > 25).mean() < 2e-3


def test_frames_that_do_not_belong_are_left_out_by_name() -> None:
    frames, _ = exposures(6, cosmic=0.001)
    grid = grid_of(frames)
    far = replace(frames[0], name="far", wcs=system(150, 30))
    units = replace(frames[1], name="units", unit="e/s")
    cloudy = replace(frames[2], name="cloudy", zeropoint_mag=22.0)
    scaled = replace(frames[2], name="scaled", scale=math.nan)
    dark = frame_of_arrays("dark", frames[3].wcs, np.zeros(SHAPE, np.float32), 0.0)
    moved = replace(frames[4], name="moved", wcs=replace(frames[4].wcs, crval_deg=(150.002, 2.002)))
    bright = replace(frames[5], name="bright", sky=-500.0)
    known = [replace(one, zeropoint_mag=25.0) for one in frames]
    made = coadd([*known, far, units, cloudy, scaled, dark, moved, bright], grid)
    reasons = {one.name: one.reason for one in made.frames if one.reason}
    said = {
        "far": "overlap",
        "units": "e/s",
        "cloudy": "3.00 mag below",
        "scaled": "scale is nan",
        "dark": "weight",
    }
    said |= {"moved": "disagree", "bright": "disagree"}
    assert reasons.keys() == said.keys()
    for name, words in said.items():
        assert words in reasons[name], reasons[name]
    alone = coadd(known, grid)
    assert np.array_equal(made.planes["SCI"][:], alone.planes["SCI"][:])
    with pytest.raises(EmptyInput, match="does not overlap"):
        coadd([far], grid)
    with pytest.raises(EmptyInput):
        coadd([], grid)


@pytest.mark.parametrize("matching", ["constant", "plane"])
def test_a_mosaic_of_what_fills_the_field_has_no_seams(matching) -> None:
    rng = np.random.default_rng(4)
    galaxy = [(150.0, 2.0, 4e6)]
    shape = (300, 300)
    frames, levels = [], []
    for number in range(6):
        wcs = system(150 + (number % 3 - 1) * 150 * SCALE, 2 + (number // 3 - 0.5) * 150 * SCALE, shape=shape)
        level = rng.uniform(-200, 200)
        data = sky(wcs, shape, galaxy, 150.0) + rng.normal(0, 3, shape) + level
        if matching == "plane":
            data += np.linspace(-20, 20, shape[1]) * rng.uniform(-1, 1)
        levels.append(level)
        frames.append(frame_of_arrays(f"{number}", wcs, data.astype(np.float32), 1 / 9))
    grid = fit_grid([(one.wcs, shape) for one in frames])
    made = coadd(frames, grid, How(matching=matching))
    assert not [one for one in made.frames if one.reason]
    assert made.groups == (tuple(range(6)),)
    found = np.array([one.level.constant for one in made.frames])
    assert found.mean() == pytest.approx(0, abs=1e-6)
    away = (made.planes["SCI"][:] - sky(grid.wcs, grid.shape, galaxy, 150.0))[5:-5, 5:-5]
    if matching == "constant":
        expected = np.array(levels) - np.mean(levels)
        assert found == pytest.approx(expected, abs=1.0)
        assert np.std(away) < 3.5
    # Smooth from frame to frame: means of blocks differ by a common plane at most.
    blocks = away[: away.shape[0] // 20 * 20, : away.shape[1] // 20 * 20]
    blocks = blocks.reshape(blocks.shape[0] // 20, 20, -1, 20).mean(axis=(1, 3))
    y, x = np.mgrid[: blocks.shape[0], : blocks.shape[1]]
    design = np.stack([np.ones(blocks.size), x.ravel(), y.ravel()], axis=1)
    rest = blocks.ravel() - design @ np.linalg.lstsq(design, blocks.ravel(), rcond=None)[0]
    assert np.abs(rest).max() < (1.5 if matching == "constant" else 2.5)
    plain = coadd(frames, grid, How(most_disagreeing=0)).planes["SCI"][:] - sky(
        grid.wcs, grid.shape, galaxy, 150.0
    )
    assert np.std(plain[5:-5, 5:-5]) > 40
    faintest = coadd(frames, grid, How(matching=matching, gauge="faintest"))
    assert min(one.level.constant for one in faintest.frames) == pytest.approx(0, abs=1e-9)


def test_frames_of_files_give_the_bits_of_arrays(tmp_path: Path) -> None:
    frames, _ = exposures(3)
    grid = grid_of(frames)
    opened, read = [], []
    for one in frames:
        data, weight, mask = one.read(0, SHAPE[0])
        write_fits(
            tmp_path / one.name, [Plane("SCI", data), Plane("WEIGHT", weight), Plane("MASK", mask)], []
        )
        opened.append(open_fits(tmp_path / one.name))
        read.append(frame_of_fits(one.name, opened[-1], one.wcs))
    for name, plane in planes(coadd(frames, grid)).items():
        assert plane.tobytes() == planes(coadd(read, grid))[name].tobytes(), name
    write_fits(tmp_path / "bare", [Plane("SCI", data)], [])
    with open_fits(tmp_path / "bare") as bare, pytest.raises(Mixture, match="WEIGHT"):
        frame_of_fits("bare", bare, frames[0].wcs)
    for one in opened:
        one.close()


def test_a_smooth_sky_is_subtracted_by_rows() -> None:
    frames, _ = exposures(1)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    slope = (300 + 0.5 * x - 0.3 * y).astype(np.float32)
    data, weight, mask = frames[0].read(0, SHAPE[0])
    lifted = frame_of_arrays("lifted", frames[0].wcs, data + slope, weight, mask)
    mesh = mesh_sky(lifted, 32)
    whole = mesh.rows(0, SHAPE[0])
    assert np.array_equal(whole[37:51], mesh.rows(37, 51))
    level = np.median((whole - slope)[20:-20, 20:-20])
    assert abs(level) < 1.5
    less = replace(lifted, sky=mesh)
    assert np.median(np.abs(less.rows(0, SHAPE[0])[0] - data)) < 2


def test_scales_and_options_that_make_no_sense() -> None:
    assert flux_scale(25.0, 100.0) == pytest.approx(1.0)
    assert flux_scale(30.0, 10.0) == pytest.approx(0.1)
    with pytest.raises(BadValue):
        flux_scale(math.nan, 1)
    with pytest.raises(BadValue):
        flux_scale(25, 0)
    for wrong in ({"threads": 0}, {"matching": "sky"}, {"gauge": "most"}, {"most_disagreeing": 1.0}):
        with pytest.raises(BadValue):
            How(**wrong)


@pytest.mark.parametrize("turn", [0.0, 90.0, 200.0])
def test_a_part_of_a_layer_is_that_of_the_whole(turn: float) -> None:
    frame = exposures(1)[0][0]
    frame = replace(frame, wcs=system(150, 2, turn))
    grid = grid_of([frame], 0)
    how = Regridding()
    placed = place(0, frame, grid, how)
    assert placed is not None
    whole = layer_of(placed, (0, grid.shape[0]), how)
    part = layer_of(placed, (31, 33), how, (50, 58))
    assert whole is not None and part is not None
    rows, columns = ((part[k][0] - whole[k][0], part[k][1] - whole[k][0]) for k in (1, 2))
    for a, b in zip(part[3:], whole[3:], strict=True):
        assert np.array_equal(a, b[rows[0] : rows[1], columns[0] : columns[1]])
