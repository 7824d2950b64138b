"""awe-lineage --at of coadds and regridded frames: made again to the last bit, each frame at its place, and why not."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io.fits import Header
from astropy.wcs import WCS

from awetools.core.fits import open_fits
from awetools.core.masknames import names_of
from awetools.core.store import Store
from tests.support import InProcess

FLAT = 1 + 2 + 4 + 8 + 16


def told(run: InProcess, product: str | Path, *places: tuple[int, int]) -> list[list[dict[str, Any]]]:
    """The objects of --json of each pixel."""
    at = [word for x, y in places for word in ("--at", f"{x},{y}")]
    ran = run("lineage", "--json", *at, product)
    assert ran.code == 0, ran.err
    stories: list[list[dict[str, Any]]] = []
    for line in map(json.loads, ran.lines):
        if not line["steps"]:
            stories.append([])
        stories[-1].append(line)
    assert len(stories) == len(places)
    return stories


def planes_of(path: str | Path) -> dict[str, np.ndarray]:
    with open_fits(Path(path)) as fits:
        return {hdu.name: fits.image(hdu.index) for hdu in fits.hdus if hdu.is_image}


def table_of(path: str | Path, name: str) -> dict[str, list[Any]]:
    with open_fits(Path(path)) as fits:
        return {key: column.tolist() for key, column in fits.table(name).items()}


def some(wanted: np.ndarray, count: int = 4) -> list[tuple[int, int]]:
    """FITS pixels, a few of those that are wanted."""
    places = np.argwhere(wanted)
    assert len(places)
    return [(int(x) + 1, int(y) + 1) for y, x in places[:: max(1, len(places) // count)][:count]]


def frames_of(line: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in line["parents"] if one["role"] == "reduced"]


def coadd(run: InProcess, name: str, *options: str) -> str:
    frames = run("query", "reduced").lines
    ran = run("coadd", "-q", "-o", name, *options, *frames)
    assert ran.code == 0, ran.err
    return name


def kinds_of_pixels(path: str) -> list[tuple[int, int]]:
    """Pixels with as many frames as there are, one, none with a reason, none at all, filled, clipped."""
    planes = planes_of(path)
    count, mask = planes["COUNT"], planes["MASK"]
    places = some(count == count.max()) + some(count == 1) + some(mask & 64 != 0, 2)
    places += some((count == 0) & (mask & FLAT != 0)) + some(mask == 32, 2)
    clipped = table_of(path, "CLIPPED")
    return places + list(zip(clipped["X"], clipped["Y"], strict=True))[::40][:6]


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--clip-sigma", "1", "--clip-fraction", "0"),
        ("--background", "match", "--method", "median", "--kernel", "area"),
        ("--background", "leave", "--method", "mean", "--no-interpolate", "--no-zeropoint"),
        ("--background", "match-plane", "--flux-scale", "match", "--edges-px", "3,0,12,2"),
    ],
    ids=["default", "clipped", "median", "mean", "matched"],
)
def test_a_coadd_is_made_again_to_the_last_bit(
    options: tuple[str, ...], run: InProcess, sky_store: Store
) -> None:
    path = coadd(run, "deep.fits", *options)
    planes, listed = planes_of(path), table_of(path, "CLIPPED")
    rows, columns = planes["SCI"].shape
    if "--no-interpolate" in options:
        places = some(planes["COUNT"] > 1) + some(planes["COUNT"] == 0)
    else:
        places = kinds_of_pixels(path) if "--method" not in options else some(planes["COUNT"] > 0, 8)
    places += [(1, 1), (columns, rows)]
    at_clipped = list(zip(listed["X"], listed["Y"], strict=True))
    for (x, y), (line, *_) in zip(places, told(run, path, *places), strict=True):
        value, weight, count, mask = (
            planes[name][y - 1, x - 1] for name in ("SCI", "WEIGHT", "COUNT", "MASK")
        )
        assert (line["value"], line["weight"], line["count"]) == (value, weight, count)
        assert line["check"]["agrees"] and line["check"]["problem"] is None, line["check"]
        assert line["check"]["value"] == value
        assert line["mask"] == names_of(int(mask))
        states = [one["entered"] for one in frames_of(line)]
        assert states.count("entered") == count
        assert states.count("clipped") == at_clipped.count((x, y)) == ("clipped" in line["mask"])
        entered = [one["placed"] for one in frames_of(line) if one["entered"] == "entered"]
        if count and "median" not in options:
            assert sum(one["weight"] for one in entered) == pytest.approx(weight, rel=1e-6)
        assert all(one["placed"]["weight"] == 0 for one in frames_of(line) if one["entered"] == "masked")
        if not count and not set(states) & {"masked"}:
            assert line["mask"] == ["outside"]


def test_each_frame_is_met_where_its_solution_puts_it(run: InProcess, sky_store: Store) -> None:
    path = coadd(run, "deep.fits")
    places = some(planes_of(path)["COUNT"] == planes_of(path)["COUNT"].max(), 3)
    for (x, y), (first, *rest) in zip(places, told(run, path, *places), strict=True):
        ra, dec = system(path).all_pix2world(x, y, 1)
        by_id = {line["id"]: line for line in rest}
        for frame in frames_of(first):
            reduced = by_id[frame["id"]]
            number = first["parents"].index(frame)
            astrom = next(one for one in first["parents"][number:] if one["role"] == "astrom")
            solution = system(by_id[astrom["id"]]["path"])
            assert (frame["placed"]["x"], frame["placed"]["y"]) == pytest.approx(
                [float(one) for one in solution.all_world2pix(ra, dec, 1)], abs=0.02
            )
            assert abs(frame["placed"]["x"] - frame["x"]) <= 0.5
            assert abs(frame["placed"]["y"] - frame["y"]) <= 0.5
            assert reduced["value"] == planes_of(reduced["path"])["SCI"][frame["y"] - 1, frame["x"] - 1]
            # The story goes on to the counts of the raw frame.
            assert reduced["check"]["agrees"]
            placed = frame["placed"]
            alone = (reduced["value"] - placed["sky"]) * placed["scale"] * placed["area"] - placed["level"]
            assert placed["nearest"] == pytest.approx(alone)
        raws = [line for line in rest if line["kind"] == "raw_science"]
        assert len(raws) == len(frames_of(first)) and all(line["raw"] for line in raws)
        # What says where a frame lies is named; how that was found is no matter of the pixel.
        assert {line["steps"] for line in rest if line["kind"] in ("astrom", "zeropoint")} == {1}
        assert not [line for line in rest if line["kind"] in ("sources", "gastrom", "gphot")]


def system(path: str | Path) -> WCS:
    record = json.loads(Path(f"{path}.json").read_text())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return WCS(Header(record["meta"]["wcs"]))


@pytest.mark.parametrize("options", [(), ("--background", "leave", "--no-interpolate", "--no-zeropoint")])
def test_a_regridded_frame_is_made_again_to_the_last_bit(
    options: tuple[str, ...], run: InProcess, sky_store: Store
) -> None:
    frame = run("query", "reduced").lines[0]
    assert run("regrid", "-q", "-o", "regrid.fits", *options, frame).code == 0
    planes = planes_of("regrid.fits")
    masked = (planes["WEIGHT"] == 0) & (planes["MASK"] & FLAT != 0)
    rows, columns = planes["SCI"].shape
    places = some(planes["WEIGHT"] > 0) + (some(masked) if options else []) + [(1, 1), (columns, rows)]
    for (x, y), (line, *rest) in zip(places, told(run, "regrid.fits", *places), strict=True):
        assert line["check"]["agrees"] and line["check"]["value"] == planes["SCI"][y - 1, x - 1]
        (part,) = frames_of(line)
        assert part["placed"]["weight"] == planes["WEIGHT"][y - 1, x - 1]
        assert part["placed"]["mask"] == names_of(int(planes["MASK"][y - 1, x - 1]))
        good = planes["WEIGHT"][y - 1, x - 1] > 0
        assert (part["entered"] == "entered") == good
        assert Path(rest[0]["path"]).name == Path(frame).name
    sky = told(run, "regrid.fits", places[0])[0][0]["parents"][0]["placed"]["sky"]
    assert (sky == 0) == bool(options)


def test_a_masked_pixel_names_the_mask_that_did_it(run: InProcess, sky_store: Store) -> None:
    path = coadd(run, "deep.fits")
    planes = planes_of(path)
    places = some((planes["COUNT"] == 0) & (planes["MASK"] & 3 != 0), 8)
    for line, *_ in told(run, path, *places):
        causes = [one for one in line["masked"] if one["name"] in ("hot", "cold")]
        assert causes
        for cause in causes:
            assert cause["kind"] in ("hotpix", "coldpix") and Path(cause["path"]).exists()
        frame = next(one for one in frames_of(line) if one["entered"] == "masked")
        assert {one["kind"] for one in frame["masked"]} & {"hotpix", "coldpix"}
    x, y = places[0]
    text = run("lineage", "--at", f"{x},{y}", path).out
    assert "MASK: " in text and "pix " in text
    assert "mean of what is saturated" in text or "no good value there" in text


def test_a_frame_that_is_masked_where_others_are_not_is_explained(run: InProcess, sky_store: Store) -> None:
    path = coadd(run, "deep.fits", "--no-interpolate")
    planes = planes_of(path)
    top = planes["COUNT"].max()
    # Beside pixels of all frames: where one of them is missing within, its mask says why.
    less = (planes["COUNT"] == top - 1) & (planes["MASK"] == 0)
    inner = less & np.roll(planes["COUNT"] == top, 12, 0) & np.roll(planes["COUNT"] == top, -12, 0)
    places = some(inner, 6)
    seen = [
        (frame, (x, y))
        for (x, y), (line, *_) in zip(places, told(run, path, *places), strict=True)
        for frame in frames_of(line)
        if frame["entered"] == "masked"
    ]
    assert seen
    for frame, _ in seen:
        assert frame["masked"] and set(frame["placed"]["mask"]) == {one["name"] for one in frame["masked"]}
    x, y = seen[0][1]
    assert "NOT USED: " in run("lineage", "--at", f"{x},{y}", path).out


def test_what_was_clipped_and_what_was_filled_is_said(run: InProcess, sky_store: Store) -> None:
    path = coadd(run, "deep.fits", "--clip-sigma", "1", "--clip-fraction", "0")
    clipped = table_of(path, "CLIPPED")
    x, y, number = clipped["X"][0], clipped["Y"][0], clipped["FRAME"][0]
    text = run("lineage", "--at", f"{x},{y}", path).out
    exposure = table_of(path, "FRAMES")["EXPOSURE"][number]
    assert "MASK: clipped (set here: " in text and "of its sigma from what was kept" in text
    line = next(one for one in text.splitlines() if "  clipped  with " in one)
    assert exposure.strip() in line
    x, y = some(planes_of(path)["MASK"] & 64 != 0, 1)[0]
    assert "a defect was filled from the pixels around it" in run("lineage", "--at", f"{x},{y}", path).out


def test_frames_left_out_are_named_with_the_reason(run: InProcess, sky_store: Store) -> None:
    path = coadd(run, "deep.fits", "--most-extinction-mag", "0.01")
    reasons = [one.strip() for one in table_of(path, "FRAMES")["REASON"]]
    assert any(reasons)
    places = some(planes_of(path)["COUNT"] > 0, 9)
    found = [one for line, *_ in told(run, path, *places) for one in frames_of(line)]
    left_out = [one for one in found if one["entered"] == "left out"]
    assert left_out and all(one["by"] in reasons for one in left_out)
    assert all(line["check"]["value"] == line["value"] for line, *_ in told(run, path, *places))


def test_the_sky_cut_outs_and_a_table(run: InProcess, sky_store: Store, tmp_path: Path) -> None:
    path = coadd(run, "deep.fits")
    x, y = some(planes_of(path)["COUNT"] == planes_of(path)["COUNT"].max(), 1)[0]
    ra, dec = (float(one) for one in system(path).all_pix2world(x, y, 1))
    by_pixel = run("lineage", "--json", "--at", f"{x},{y}", path).out
    ran = run("lineage", "--json", "--at-sky", f"{ra:.7f},{dec:.7f}", "--cutouts", tmp_path / "cuts", path)
    assert ran.code == 0 and ran.out == by_pixel
    pictures = [one.name for one in (tmp_path / "cuts").iterdir()]
    assert sum("_coadd_" in name for name in pictures) == 1
    assert sum("_reduced_" in name for name in pictures) == len(
        frames_of(json.loads(by_pixel.splitlines()[0]))
    )
    header, *rows = (
        line.split("\t") for line in run("lineage", "--at", f"{x},{y}", "--format", "tsv", path).lines
    )
    cells = [dict(zip(header, row, strict=True)) for row in rows]
    frames = [one for one in cells if one["kind"] == "reduced"]
    assert frames and all(one["frame_x"] and one["grid_value"] and one["scale"] for one in frames)
    text = run("lineage", "--at", f"{x},{y}", path).out
    assert ": the same" in text.splitlines()[1] and " frames" in text.splitlines()[0]


def test_what_is_gone_is_said_and_the_rest_is_told(run: InProcess, sky_store: Store) -> None:
    path = coadd(run, "deep.fits")
    planes = planes_of(path)
    x, y = some(planes["COUNT"] == planes["COUNT"].max(), 1)[0]
    whole = told(run, path, (x, y))[0]
    frames = [line for line in whole if line["kind"] == "reduced"]
    os.remove(frames[0]["path"])
    line = told(run, path, (x, y))[0][0]
    assert line["check"]["value"] is None and Path(frames[0]["path"]).name in line["check"]["problem"]
    states = {one["id"]: one["entered"] for one in frames_of(line)}
    assert states.pop(frames[0]["id"]) == "not known"
    assert states and set(states.values()) == {"entered"}
    placed = {one["id"]: one["placed"] for one in frames_of(line)}
    before = {one["id"]: one["placed"] for one in frames_of(whole[0])}
    assert all(placed[one] == before[one] for one in states)
    assert placed[frames[0]["id"]]["x"] == pytest.approx(before[frames[0]["id"]]["x"], abs=0.02)
    os.remove(path)
    ran = run("lineage", "--json", "--at", f"{x},{y}", path)
    assert ran.code == 0, ran.err
    line = json.loads(ran.lines[0])
    assert line["value"] is None and line["check"]["problem"] == "not done again: the file is gone"
    assert {one["entered"] for one in frames_of(line)} == {"not known"}
    assert {one["id"] for one in frames_of(line)} == set(placed)
