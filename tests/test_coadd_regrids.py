"""Coadds of regridded frames: the bits of the direct way, what does not belong left out, backgrounds as matched."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from awetools.core.coadd import strips
from awetools.core.coadd.coadd import How, coadd, members, prepare
from awetools.core.coadd.inputs import CoaddFrame, frame_of_arrays
from awetools.core.coadd.layers import Regridding, layer_of, place
from awetools.core.errors import EmptyInput, Mixture
from awetools.core.fits import open_fits
from awetools.core.pixels.coadd import Stacking
from awetools.core.products import open_product
from awetools.core.sky.grid import Grid, whole_pixels
from awetools.core.sky.wcs import Wcs
from awetools.core.store import Store
from tests.support import InProcess
from tests.test_coadd import exposures, grid_of, planes

Array = npt.NDArray[Any]


def on_grid(frames: list[CoaddFrame], grid: Grid) -> list[CoaddFrame]:
    """Each frame as it is on the grid, in its own window."""
    made = []
    for frame in frames:
        placed = place(0, frame, grid, Regridding())
        assert placed is not None
        layer = layer_of(placed, placed.window[0], Regridding())
        assert layer is not None
        wcs = grid.part(placed.window).wcs
        one = frame_of_arrays(frame.name, wcs, layer.data, layer.weight, layer.mask, gridded=True)
        made.append(one)
    return made


def test_the_bits_are_those_of_the_frames_themselves_for_any_strips_and_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frames, _ = exposures(5)
    grid = grid_of(frames)
    gridded = on_grid(frames, grid)
    for how in (How(), How(Stacking("median")), How(matching="constant")):
        direct = coadd(frames, grid, how)
        for rows, threads in ((512, 1), (11, 3)):
            monkeypatch.setattr(strips, "STRIP_ROWS", rows)
            made = coadd(gridded, grid, replace(how, threads=threads))
            monkeypatch.undo()
            if how.matching == "none":
                for name, plane in planes(direct).items():
                    assert plane.tobytes() == planes(made)[name].tobytes(), name
                continue
            # What levels are taken of is with small defects filled here, and without there.
            away = np.abs(planes(made)["SCI"] - planes(direct)["SCI"])
            assert 0 < np.median(away[away > 0]) < 0.01 and (away > 0.01).mean() < 1e-3
    y, x, how = 60, 60, How()
    found = members(prepare(gridded, grid, how).placed, grid, y, x, how)
    assert found == members(prepare(frames, grid, how).placed, grid, y, x, how)


def test_what_is_on_another_grid_is_left_out_and_says_why() -> None:
    frames, _ = exposures(4)
    grid = grid_of(frames)
    gridded = on_grid(frames, grid)
    half = replace(gridded[0].wcs, crpix=(gridded[0].wcs.crpix[0] + 0.5, gridded[0].wcs.crpix[1]))
    step = gridded[1].wcs.matrix[3]
    finer = replace(gridded[1].wcs, matrix=(-0.999 * step, 0.0, 0.0, 0.999 * step))
    far = replace(gridded[2].wcs, crpix=(gridded[2].wcs.crpix[0] + 5000, gridded[2].wcs.crpix[1]))
    odd = [
        replace(one, name=name, wcs=wcs)
        for one, name, wcs in zip(gridded, ("half", "finer", "far"), (half, finer, far), strict=False)
    ]
    unfit = replace(gridded[3], name="unfit", unfit="for a reason")
    made = coadd([*gridded, *odd, unfit], grid)
    reasons = {one.name: one.reason for one in made.frames if one.reason}
    assert reasons.keys() == {"half", "finer", "far", "unfit"}
    assert "0.5 of a pixel" in reasons["half"] and "another grid" in reasons["finer"]
    assert reasons["far"] == "does not overlap the grid" and reasons["unfit"] == "for a reason"
    assert np.array_equal(made.planes["SCI"][:], coadd(gridded, grid).planes["SCI"][:])
    with pytest.raises(EmptyInput, match="whole pixels"):
        coadd(odd[:1], grid)


def test_whole_pixels_are_known_whatever_the_header_says() -> None:
    step = 0.3 / 3600
    wcs = Wcs((150.0, 2.0), (50.5, 40.5), (-step, 0.0, 0.0, step))
    grid = Grid(wcs, (80, 100))
    part = grid.part(((10, 30), (-5, 20)))
    assert whole_pixels(grid, part.wcs, part.shape) == (10, -5)
    # The same plane with its reference pixel elsewhere is no less the same.
    with pytest.raises(Mixture, match="another grid"):
        whole_pixels(grid, replace(wcs, matrix=(-step * 1.001, 0.0, 0.0, step)), (80, 100))


# Programs

GRID = "deep"


@pytest.fixture
def on_deep(sky_store: Store, run: InProcess) -> list[str]:
    """Reduced frames of a store that has a grid."""
    frames = run("query", "--newest", "reduced").lines
    run("grid", "make", GRID, "--fit", *frames)
    return frames


def images_of(path: str | Path) -> dict[str, Array]:
    with open_fits(Path(path)) as fits:
        return {one.name: fits.image(one.index) for one in fits.hdus if one.is_image}


def table_of(path: str | Path, name: str) -> dict[str, Array]:
    with open_fits(Path(path)) as fits:
        return dict(fits.table(name))


def made(run: InProcess, command: str, *words: str | Path) -> list[str]:
    ran = run(command, "-q", *words)
    assert ran.code == 0, ran.err
    return ran.lines


@pytest.mark.parametrize(("background", "edges"), [("subtract", "0"), ("leave", "30,0,4,0")])
def test_a_coadd_of_regridded_frames_is_that_of_the_frames(
    background: str, edges: str, run: InProcess, on_deep: list[str]
) -> None:
    how = ("--kernel", "lagrange6", "--background", background, "--edges-px", edges)
    (direct,) = made(run, "coadd", "--grid", GRID, "-o", "direct.fits", *how, *on_deep)
    regrids = made(run, "regrid", "--grid", GRID, *how, *on_deep)
    (via,) = made(run, "coadd", "-o", "via.fits", "--background", background, *regrids)
    one, other = images_of(direct), images_of(via)
    for name, plane in one.items():
        assert np.array_equal(plane, other[name]), name
    records = [open_product(Path(path)).record for path in (direct, via)]
    fields = ("wcs", "nx", "ny", "window", "zeropoint_mag", "zeropoint_band", "exptime_s", "gridded")
    for name in fields:
        assert records[0]["meta"][name] == records[1]["meta"][name], name
    measures = [one["quality"]["measures"] for one in records]
    for name in ("frames", "exposure_s", "exposures_mean", "clipped_fraction"):
        assert measures[0][name] == measures[1][name], name
    assert measures[1]["exposure_s"] > len(on_deep)
    assert measures[1]["noise_ratio"] == pytest.approx(measures[0]["noise_ratio"], rel=0.05)
    assert records[1]["meta"]["gain_e_adu"] == pytest.approx(records[0]["meta"]["gain_e_adu"], rel=1e-6)
    inputs = records[1]["recipe"]["inputs"]
    assert {(one["role"], one["kind"]) for one in inputs} == {("reduced", "regrid")}
    # It is a product like any other: up to date as long as its inputs are.
    ran = run("coadd", "-u", "-o", via, "--background", background, *regrids)
    assert ran.code == 0 and "up to date" in ran.err
    ran = run("coadd", "--why", "-o", via, "--clip-sigma", "5", "--background", background, *regrids)
    assert "clip_sigma" in ran.err + ran.out


def test_backgrounds_are_matched_among_those_that_have_one(run: InProcess, on_deep: list[str]) -> None:
    regrids = made(run, "regrid", "--grid", GRID, "--background", "leave", "--kernel", "lagrange6", *on_deep)
    (via,) = made(run, "coadd", "-o", "via.fits", "--background", "match", *regrids)
    (direct,) = made(
        run,
        "coadd",
        "-o",
        "d.fits",
        "--grid",
        GRID,
        "--kernel",
        "lagrange6",
        "--background",
        "match",
        *on_deep,
    )
    one, other = images_of(direct), images_of(via)
    good = (one["WEIGHT"] > 0) & (one["COUNT"] == other["COUNT"])
    # What a pixel of the grid has of the sky changes with its area, and the median of the sky is another.
    noise = 1 / np.sqrt(np.median(one["WEIGHT"][good]))
    differ = (one["SCI"] - other["SCI"])[good]
    away = np.abs(differ - np.median(differ))
    rows = table_of(via, "FRAMES")
    assert away.max() < 0.02 * np.median(rows["SKY_ADU"]) and np.median(away) < 0.3 * noise
    assert abs(np.median(differ)) < 0.3 * noise
    assert np.any(rows["LEVEL"] != 0) and np.all(rows["SKY_ADU"] > 10)


def test_what_does_not_go_with_the_others_is_named(run: InProcess, on_deep: list[str]) -> None:
    regrids = made(run, "regrid", "--grid", GRID, *on_deep)
    (counts,) = made(run, "regrid", "--grid", GRID, "--no-zeropoint", "-o", "counts.fits", on_deep[0])
    (left,) = made(run, "regrid", "--grid", GRID, "--background", "leave", "-o", "left.fits", on_deep[1])
    (own,) = made(run, "regrid", "--grid", "auto", "-o", "own.fits", on_deep[0])
    ran = run("coadd", "-o", "deep.fits", "--background", "match", *regrids, counts, left, own)
    assert ran.code == 0
    out = {Path(one["path"]).name: one["reason"] for one in left_out("deep.fits")}
    assert out.keys() == {"counts.fits", "left.fits", "own.fits"}
    assert "no zero point" in out["counts.fits"] and "background is matched" in out["left.fits"]
    assert "grid" in out["own.fits"]
    for name, reason in out.items():
        assert any(name in line and reason in line for line in ran.err.splitlines())
    assert open_product(Path("deep.fits")).meta["zeropoint_mag"] == 30
    ran = run("coadd", "-o", "none.fits", "--grid", "TAN 10 10 0.3 100x100", *regrids)
    assert ran.code == 5 and "--grid auto" in ran.err and not Path("none.fits").exists()
    ran = run("coadd", "-o", "both.fits", *regrids, on_deep[0])
    assert ran.code == 4 and "is reduced" in ran.err and "is regrid" in ran.err
    ran = run("coadd", "-o", "both.fits", on_deep[0], *regrids)
    assert ran.code == 4


def left_out(path: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = open_product(Path(path)).record["recipe"]["left_out"]
    return found


def test_without_a_named_grid_theirs_is_what_holds_them(run: InProcess, on_deep: list[str]) -> None:
    (first,) = made(run, "regrid", "--grid", "auto", "-o", "first.fits", on_deep[0])
    (via,) = made(run, "coadd", "-o", "via.fits", first)
    good = images_of(first)["WEIGHT"] > 0
    assert good.mean() > 0.5
    assert np.array_equal(images_of(via)["SCI"][good], images_of(first)["SCI"][good])
    assert open_product(Path(via)).meta["wcs"]["CRVAL1"] == open_product(Path(first)).meta["wcs"]["CRVAL1"]


def test_a_pixel_is_followed_through_the_regridded_frames(run: InProcess, on_deep: list[str]) -> None:
    # Finer, so that images on it are larger than the frames.
    run("grid", "make", "fine", "--fit", "--scale", "0.15", *on_deep)
    regrids = made(run, "regrid", "--grid", "fine", *on_deep)
    (via,) = made(run, "coadd", "-o", "via.fits", "--clip-sigma", "2", "--clip-fraction", "0", *regrids)
    count, clipped = images_of(via)["COUNT"], table_of(via, "CLIPPED")
    where = np.argwhere(count > 1)
    last = [(int(px) + 1, int(py) + 1) for py, px in (where[0], where[-1], where[len(where) // 2])]
    places = [*last, *zip(clipped["X"][::200].tolist(), clipped["Y"][::200].tolist(), strict=True)][:6]
    assert len(places) > 3
    words = [word for px, py in places for word in ("--at", f"{px},{py}")]
    ran = run("lineage", "--json", *words, via)
    assert ran.code == 0, ran.err
    stories = list(map(json.loads, ran.lines))
    tops = [one for one in stories if not one["steps"]]
    assert len(tops) == len(places) and max(max(one) for one in places) > 300
    assert all(one["check"]["agrees"] and one["check"]["problem"] is None for one in tops)
    kinds = {one["kind"] for one in stories}
    assert {"coadd", "regrid", "reduced", "raw_science"} <= kinds
    # Each step is made again to the last bit.
    assert all(one["check"]["agrees"] for one in stories if one["kind"] == "regrid" and one["check"])
    text = run("lineage", "--at", f"{places[0][0]},{places[0][1]}", via).out
    assert "regrid " in text and ":  of" not in text


def test_awe_make_makes_coadds_of_frames_whatever_others_there_are(
    run: InProcess, on_deep: list[str]
) -> None:
    regrids = made(run, "regrid", "--grid", GRID, *on_deep)
    (via,) = made(run, "coadd", *regrids)
    # What was made of regridded frames is left as it is, also where it is the newest.
    again = run("make", "--outdated", "-n", "--why")
    assert again.code == 0 and Path(via).name not in again.out and "gone: sim" not in again.out
    assert not [line for line in again.lines if "/coadd/" in line and "regrid" in line], again.out
    ask = ("make", "coadd", "--set", f"coadd.grid={GRID}", "-q")
    first = run(*ask)
    assert first.code == 0, first.err
    again = run(*ask, "-n")
    assert again.code == 0 and not again.lines, again.err


# Backgrounds of single frames


def test_a_regridded_frame_is_as_it_was_matched(run: InProcess, on_deep: list[str]) -> None:
    ran = run("regrid", "--background", "match", "--grid", GRID, on_deep[0])
    assert ran.code == 5 and "awe-coadd --background match" in ran.err
    kernel = ("--kernel", "lagrange6")
    for background in ("match", "match-plane"):
        made(
            run,
            "coadd",
            "-o",
            "d.fits",
            "--force",
            "--grid",
            GRID,
            "--background",
            background,
            *kernel,
            *on_deep,
        )
        shutil.rmtree("each", ignore_errors=True)
        each = made(run, "regrid", "--background", "match", *kernel, "--out-dir", "each", *on_deep)
        (via,) = made(run, "coadd", "-o", "v.fits", "--force", "--background", "leave", *each)
        one, other = images_of("d.fits"), images_of(via)
        for name in one:
            assert np.array_equal(one[name], other[name]), (background, name)
    record = open_product(Path(each[0])).record
    assert "coadd" in {one["role"] for one in record["recipe"]["inputs"]}
    assert "zeropoint" in record["recipe"]["without"]
    assert np.any(table_of("d.fits", "FRAMES")["LEVEL"] != 0)
    single = images_of(each[0])
    outside = (single["MASK"] == 32) & (single["SCI"] == 0)
    assert np.median(single["SCI"][single["MASK"] == 32]) == 0 and outside.any()
    y, x = (one // 2 for one in single["SCI"].shape)
    ran = run("lineage", "--json", "--at", f"{x},{y}", each[0])
    story = list(map(json.loads, ran.lines))
    assert story[0]["check"]["agrees"] and story[0]["check"]["problem"] is None
    assert {"coadd", "reduced"} <= {one["kind"] for one in story}
    ran = run("why", each[0])
    assert "d.fits" in ran.out
    ask = ("make", "regrid", "-q", "--set", "regrid.background=match", "--set", f"regrid.grid={GRID}")
    found = run(*ask)
    assert found.code == 0 and len(found.lines) == len(on_deep), found.err
    assert not run(*ask, "-n").lines
    # On request only: another background does not hang on the coadd.
    (plain,) = made(run, "regrid", "--grid", GRID, on_deep[0])
    assert "coadd" not in {one["role"] for one in open_product(Path(plain)).record["recipe"]["inputs"]}
    assert "background is subtract" in run("why", plain).out
    ran = run("regrid", "--background", "match", "--grid", "TAN 150 2 0.3 100x100", on_deep[0])
    assert ran.code == 5
    ran = run(
        "regrid", "--background", "match", "--coadd", "d.fits", "--grid", "TAN 150 2 0.3 9x9", on_deep[0]
    )
    assert ran.code == 5 and "grid" in ran.err
