"""Sky grids: their text, their names in stores, their tiles, and the program `awe-grid`."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awetools.core.errors import BadHeader, BadValue, NoSuchFile, Protected, Unreadable, UsageError
from awetools.core.gridmake import Tiles, region_of_box, tiles_each_tangent, tiles_one_tangent
from awetools.core.gridstore import (
    NamedGrid,
    find_grid,
    grid_meant,
    grids,
    holding_frame,
    holding_place,
    read_grid,
    remove_grid,
    with_grid,
    write_grid,
)
from awetools.core.kinds.bias import BIAS
from awetools.core.kinds.declare import KERNELS
from awetools.core.kinds.regrid import REGRID
from awetools.core.params import resolve
from awetools.core.pixels.resample import TAPS
from awetools.core.sky.gridtext import GridText, fitted, parse_grid, text_of_grid
from awetools.core.sky.wcs import Wcs
from awetools.core.store import Store, init_store
from tests.support import InProcess, awe_here, program

TEXT = "TAN 202.469600 47.195200 0.25 4096x4096 2048.5,2048.5 0"
STEP = 0.3 / 3600


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    made = init_store(tmp_path / "store")
    monkeypatch.chdir(made.root)
    return made


def frame(ra: float, dec: float, size: int = 1000) -> tuple[Wcs, tuple[int, int]]:
    middle = 0.5 * (size + 1)
    return Wcs((ra, dec), (middle, middle), (-STEP, 0.0, 0.0, STEP)), (size, size)


# The text


def test_a_text_says_all_and_is_its_own_canonical_form() -> None:
    made = parse_grid(TEXT)
    assert str(made) == TEXT
    grid = made.grid()
    assert grid.shape == (4096, 4096) and grid.centre_deg == pytest.approx((202.4696, 47.1952))
    assert grid.wcs.pixel_scale_arcsec == pytest.approx(0.25, rel=1e-12)
    assert str(parse_grid("  tan 13:29:52.704 +47:11:42.72 0.25 4096 ")) == TEXT


@settings(max_examples=60)
@given(
    code=st.sampled_from(["TAN", "SIN", "STG", "ARC", "ZEA", "CAR"]),
    ra=st.floats(0, 359.9999).map(lambda one: round(one, 9)),
    dec=st.floats(-89, 89).map(lambda one: round(one, 9)),
    scale=st.floats(0.01, 60),
    size=st.tuples(st.integers(1, 50_000), st.integers(1, 50_000)),
    crpix=st.tuples(st.floats(-1e5, 1e5), st.floats(-1e5, 1e5)),
    turn=st.floats(0, 360, exclude_max=True),
)
def test_every_grid_is_the_same_after_its_text(
    code: str,
    ra: float,
    dec: float,
    scale: float,
    size: tuple[int, int],
    crpix: tuple[float, float],
    turn: float,
) -> None:
    made = GridText(code, ra, dec, scale, *size, crpix, turn)
    again = parse_grid(str(made))
    assert again == made and str(again) == str(made) and again.grid() == made.grid()
    wcs = made.grid().wcs
    away = (wcs.position_angle_deg - turn + 180) % 360 - 180
    assert abs(away) < 1e-6 and wcs.parity == -1
    ours = text_of_grid(made.grid())
    assert ours.scale_arcsec == pytest.approx(scale, rel=1e-10) and ours.crpix == crpix
    assert abs((ours.rotation_deg - turn + 180) % 360 - 180) < 1e-7


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "0 words"),
        ("TAN 1 2 0.3", "4 words"),
        ("TAN 1 2 0.3 10x10 1,1 0 0", "8 words"),
        ("XYZ 1 2 0.3 10x10", "there are: TAN"),
        ("COE 1 2 0.3 10x10", "needs PV2_1"),
        ("COE:PV2_1=0 1 2 0.3 10x10", "COE:PV2_1=0 cannot be"),
        ("COE:PV2_1=x 1 2 0.3 10x10", "no parameter of projection COE"),
        ("AIT:PV2_1=3 1 2 0.3 10x10", "AIT has no parameter PV2_1"),
        ("TAN x 2 0.3 10x10", "no place"),
        ("TAN 1 91 0.3 10x10", "no place"),
        ("TAN 1 2 nan 10x10", "no scale"),
        ("TAN 1 2 -1 10x10", "no scale"),
        ("TAN 1 2 0.3 0x10", "no size"),
        ("TAN 1 2 0.3 10by10", "no size"),
        ("TAN 1 2 0.3 99999999x10", "pixels"),
        ("TAN 1 2 0.3 10x10 5", "no pixel"),
        ("TAN 1 2 0.3 10x10 5,inf", "no pixel"),
        ("TAN 1 2 0.3 10x10 5,5 north", "no rotation"),
    ],
)
def test_texts_that_are_no_grid_are_refused(text: str, why: str) -> None:
    with pytest.raises(BadValue, match=why):
        parse_grid(text)


def test_grids_that_no_text_says_and_other_skies_are_refused() -> None:
    wcs, shape = frame(10, 10)
    mirrored = Wcs(wcs.crval_deg, wcs.crpix, (STEP, 0.0, 0.0, STEP))
    from awetools.core.sky.grid import Grid

    with pytest.raises(BadValue, match="no text"):
        text_of_grid(Grid(mirrored, shape))
    old = Wcs(wcs.crval_deg, wcs.crpix, wcs.matrix, radesys="FK4", equinox=1950.0)
    with pytest.raises(BadHeader, match="FK4 of equinox 1950"):
        fitted([(old, shape)])


@pytest.mark.parametrize(("ra", "dec"), [(150, 2), (0, 0), (359.9999, -30), (77, 90), (200, -89.99)])
def test_a_fitted_grid_holds_its_frames(ra: float, dec: float) -> None:
    frames = [frame(ra, dec), frame((ra + 0.02) % 360, max(-90, dec - 0.03))]
    made = fitted(frames)
    assert made.scale_arcsec == 0.3 and made == parse_grid(str(made))
    for wcs, (ny, nx) in frames:
        x, y = made.grid().wcs.to_pixel(*wcs.to_sky([1, nx, 1, nx], [1, 1, ny, ny]))
        assert x.min() >= 0.5 and x.max() <= made.columns + 0.5
        assert y.min() >= 0.5 and y.max() <= made.rows + 0.5


def test_the_kernels_are_those_of_the_pixels() -> None:
    assert set(KERNELS) == set(TAPS)


# Stores


def test_grids_are_kept_found_replaced_and_removed(store: Store, tmp_path: Path) -> None:
    path = write_grid(store, NamedGrid("m51", TEXT, None, "by hand"))
    assert path == store.root / ".awe/grids/m51.json" and read_grid(path).grid == TEXT
    other = init_store(tmp_path / "other")
    write_grid(other, NamedGrid("m51", "TAN 1 2 3 4x5", None, ""))
    write_grid(other, NamedGrid("abc", "TAN 1 2 3 4x5", None, ""))
    both = [store, other]
    assert find_grid("m51", both).grid == TEXT
    assert [(one.stem, first) for one, first in grids(both)] == [("m51", True), ("abc", True), ("m51", False)]
    with pytest.raises(NoSuchFile, match=r"nearest: abc.*there are: abc, m51"):
        find_grid("abd", both)
    with pytest.raises(Protected):
        remove_grid("abc", both)
    assert remove_grid("m51", both, dry_run=True) == path and path.exists()
    remove_grid("m51", both)
    assert find_grid("m51", both).grid == "TAN 1 2 3 4x5"
    for name in ("", "auto", "a/b", "../x", "1a", "x" * 101):
        with pytest.raises(BadValue):
            write_grid(store, NamedGrid(name, TEXT))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"version": 2}',
        '{"version": 1, "made_from": ""}',
        '{"version":1,"made_from":"","tiles":{"a":1}}',
    ],
)
def test_a_damaged_grid_is_said_to_be(store: Store, text: str) -> None:
    path = write_grid(store, NamedGrid("m51", TEXT))
    path.write_text(text)
    with pytest.raises(Unreadable, match="is not a grid"):
        find_grid("m51", [store])
    path.write_text('{"version":1,"made_from":"","grid":"TAN 1"}')
    with pytest.raises(BadValue, match="2 words"):
        grid_meant("m51", [store])


def test_a_parameter_means_a_text_a_name_or_a_tile(store: Store) -> None:
    write_grid(store, NamedGrid("m51", TEXT))
    write_grid(store, NamedGrid("survey", "", {"1-2": TEXT}))
    assert grid_meant("m51", [store]) == (TEXT, "grid m51")
    assert grid_meant("survey/1-2", [store]) == (TEXT, "grid survey/1-2")
    assert grid_meant(" TAN 202.4696  47.1952 0.25 4096x4096", []) == (TEXT, "")
    with pytest.raises(UsageError, match="1 tiles: which"):
        grid_meant("survey", [store])
    with pytest.raises(NoSuchFile, match="no tile '1-3'"):
        grid_meant("survey/1-3", [store])
    with pytest.raises(UsageError, match="no tiles"):
        grid_meant("m51/1", [store])
    params, own = with_grid(REGRID, resolve(REGRID.params, []), [store])
    assert params.values.grid == "auto" and own == {"window": "grid auto"}
    assert with_grid(BIAS, resolve(BIAS.params, []), [store])[1] == {}


# Tiles


@settings(max_examples=15)
@given(
    ra=st.sampled_from([0.0, 123.0, 359.99]),
    dec=st.sampled_from([-89.9, -60.0, 0.0, 35.0, 89.99]),
    seed=st.integers(0, 1000),
)
def test_tiles_of_their_own_cover_a_box_with_half_the_overlap_to_spare(
    ra: float, dec: float, seed: int
) -> None:
    how = Tiles(1.0, 600, 60)
    box = region_of_box(ra, dec, 0.6, 0.4, 1.0).grid()
    items = list(tiles_each_tangent("s", how, [(box.wcs, box.shape)], "").items())
    random = np.random.default_rng(seed)
    x, y = random.uniform(1, box.shape[1], 6), random.uniform(1, box.shape[0], 6)
    for one in np.transpose(box.wcs.to_sky(x, y)):
        assert holding_place(items, *one)
        found = [parse_grid(text).grid().wcs.to_pixel(*one) for _, text in items]
        inside = [min(a, b, 601 - a, 601 - b) for a, b in found if math.isfinite(a)]
        assert max(inside) > 25
    assert holding_place(items, (ra + 180) % 360, -dec) == []


def test_tiles_of_one_plane_have_the_same_pixels() -> None:
    made = tiles_one_tangent("s", Tiles(0.5, 500, 100), region_of_box(10.0, 60.0, 0.3, 0.2, 0.5), "")
    assert made.tiles is not None and len(made.tiles) == 6 * 4 and "1-1" in made.tiles
    one, other = (parse_grid(made.tiles[name]).grid().wcs for name in ("2-2", "3-2"))
    assert one.crval_deg == other.crval_deg and one.crpix[0] - other.crpix[0] == 400
    items = list(made.items())
    box = region_of_box(10.0, 60.0, 0.3, 0.2, 0.5).grid()
    for place in np.transpose(box.wcs.to_sky([1, box.shape[1], 700], [1, box.shape[0], 700])):
        assert holding_place(items, *place)
    assert holding_frame(items, box.wcs, box.shape) == [name for name, _ in items]
    with pytest.raises(BadValue, match="tiles"):
        tiles_one_tangent("s", Tiles(0.5, 10, 9), region_of_box(10.0, 60.0, 10, 10, 0.5), "")
    with pytest.raises(BadValue, match="overlap"):
        tiles_one_tangent("s", Tiles(0.5, 10, 10), region_of_box(10.0, 60.0, 1, 1, 0.5), "")


def test_names_of_tiles_do_not_depend_on_the_region() -> None:
    how = Tiles(1.0, 600, 60)
    small, large = (region_of_box(50.0, -20.0, side, side, 1.0).grid() for side in (0.2, 1.0))
    few, many = (tiles_each_tangent("s", how, [(one.wcs, one.shape)], "").tiles for one in (small, large))
    assert few and many and set(few.items()) < set(many.items())


def test_the_whole_sky_in_tiles() -> None:
    items = list(tiles_each_tangent("s", Tiles(60.0, 1000, 100), [], "").items())
    random = np.random.default_rng(3)
    ras, decs = random.uniform(0, 360, 30), np.degrees(np.arcsin(random.uniform(-1, 1, 30)))
    for ra, dec in [*zip(ras, decs, strict=True), (0, 90), (0, -90), (360, 0)]:
        assert holding_place(items, ra, dec), (ra, dec)
    with pytest.raises(BadValue, match="200000 at most"):
        tiles_each_tangent("s", Tiles(0.2, 1000, 100), [], "")


# The program


def test_making_a_grid_about_a_place(store: Store, run: InProcess) -> None:
    made = ("grid", "make", "m51", "--centre", "13:29:52.704,+47:11:42.72", "--scale", 0.25, "--size", 4096)
    assert run(*made, "-n").lines == [f"m51\t{TEXT}"] and not (store.awe / "grids").exists()
    ran = run(*made)
    assert ran.lines == [str(store.awe / "grids/m51.json")] and TEXT in ran.err
    again = run(*made)
    assert again.code == 2 and "would-overwrite" in again.err and "--force" in again.err
    assert run(*made, "--force", "--rotation", 30).code == 0
    about = json.loads(run("grid", "show", "m51", "--json").out)
    assert about["rotation_deg"] == 30 and about["width_arcmin"] == pytest.approx(4096 * 0.25 / 60, abs=1e-3)
    assert len(about["corners_deg"]) == 4
    assert run("grid", "which", "202.47,47.2").lines == ["202.47,47.2\tm51"]
    none = run("grid", "which", "202.47,47.2", "20,47")
    assert none.code == 5 and none.lines == ["202.47,47.2\tm51"] and "no grid holds it" in none.err
    assert run("grid", "list").lines[1].startswith("m51\t\tTAN")
    assert run("grid", "remove", "m51").code == 0 and run("grid", "remove", "m51").code == 4
    assert "no grid" in run("grid", "list").err


def test_grids_in_any_projection(store: Store, run: InProcess) -> None:
    made = ("grid", "make", "sky", "--scale", 60)
    whole = (*made, "--centre", "0,0", "--size", "19460x9730")
    assert run(*whole, "--projection", "ait", "-n").lines == [
        "sky\tAIT 0.000000 0.000000 60 19460x9730 9730.5,4865.5 0"
    ]
    # A cone through the place; the parallel that is given; none on the equator.
    cone = (*made, "--size", "99", "-n", "--projection")
    at = ("--centre", "10,-44.5")
    assert run(*cone, "COE", *at).lines[0].startswith("sky\tCOE:PV2_1=-44.5 10.000000 -44.500000 60 99x99")
    assert "COE:PV2_1=-40,PV2_2=5 10" in run(*cone, "coe:pv2_1=-40,2=5", *at).lines[0]
    for word, why in (
        ("COE", "needs PV2_1"),
        ("XYZ", "there are: TAN SIN"),
        ("AIT:PV2_1=2", "has no parameter"),
        ("COD:PV2_1=0", "cannot be"),
    ):
        ran = run(*cone, word, "--centre", "10,0")
        assert ran.code == 2 and why in ran.err, word
    assert run(*whole, "--projection", "MOL").code == 0
    about = json.loads(run("grid", "show", "sky", "--json").out)
    assert about["projection"] == "MOL" and about["corners_deg"] == [None] * 4
    # The edge of the map is on both sides, and its corners are nowhere.
    held = run("grid", "which", "180,20", "179.99,-89.9", "0,90")
    assert held.code == 0 and len(held.lines) == 3


def test_a_grid_around_frames_and_which_holds_them(sky_store: Store, run: InProcess) -> None:
    frames = awe_here("query", "reduced", cwd=sky_store.root)
    ran = program("grid", "make", "deep", "--fit", "-v", stdin="\n".join(frames), cwd=sky_store.root)
    assert ran.code == 0 and "/astrom/" in ran.err
    assert run("grid", "make", "-q", "far", "--centre", "3,4", "--scale", 1, "--size", "10x20").code == 0
    tiles = ("--tile-size", 200, "--overlap", 20, "--scale", 0.25)
    for name, more in (("own", ()), ("plane", ("--common",))):
        assert run("grid", "make", "-q", name, *tiles, *more, "--fit", *frames).code == 0
    found = run("grid", "which", frames[0]).lines
    names = [line.split("\t")[1] for line in found]
    assert {"deep"} <= set(names) and "far" not in names
    assert any(one.startswith("own/") for one in names) and any(one.startswith("plane/") for one in names)
    one = json.loads(run("grid", "which", "--json", "--in", "plane", frames[0]).lines[0])
    assert one["what"] == frames[0]
    assert run("regrid", "-q", "--grid", one["grid"], frames[0]).code == 0
    listed = run("grid", "tiles", "plane").lines
    assert one["grid"] in [line.split("\t")[0] for line in listed]
    # What is on a grid is where it is by itself, and raw frames by their headers.
    regridded = awe_here("query", "regrid", cwd=sky_store.root)[0]
    assert run("grid", "which", "--in", "deep", regridded).code == 0
    raw = awe_here("query", "raw_science", cwd=sky_store.root)[0]
    assert run("grid", "which", "--in", "deep", raw).code == 0
    bias = awe_here("query", "bias", cwd=sky_store.root)[0]
    ran = run("grid", "make", "x", "--fit", bias)
    assert ran.code == 5 and "where it is on the sky" in ran.err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["make"], "make what"),
        (["make", "x"], "--centre, --scale, --size"),
        (["make", "x", "a.fits"], "what is 'a.fits' for"),
        (["make", "x", "--tile-size", "10"], "--scale"),
        (["make", "x", "--overlap", "10", "--fit"], "goes with --tile-size"),
        (["make", "x", "--tile-size", "10", "--scale", "1", "--common"], "which part"),
        (["make", "x", "--tile-size", "10", "--scale", "1", "--box", "1,2,3"], "not RA,DEC,WIDTH,HEIGHT"),
        (["make", "x", "--centre", "1", "--scale", "1", "--size", "10"], "not RA,DEC"),
        (["make", "x", "--centre", "1,2", "--scale", "1", "--size", "ten"], "no size"),
        (["make", "x", "--fit", "--size", "10", "a"], "does not go with --fit"),
        (["make", "auto", "--centre", "1,2", "--scale", "1", "--size", "10"], "no name of a grid"),
        (["list", "x"], "list takes no"),
        (["list", "--fit"], "--fit goes with make"),
        (["show"], "show one"),
        (["which", "--fit"], "goes with make"),
        (["remove"], "remove what"),
    ],
)
def test_what_makes_no_sense_is_exit_2(store: Store, run: InProcess, arguments: list[str], why: str) -> None:
    ran = run("grid", *arguments)
    assert ran.code == 2 and why in ran.err, ran.err


def test_without_a_store_there_are_no_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: InProcess
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run("grid", "make", "x", "--centre", "1,2", "--scale", "1", "--size", "10")
    assert ran.code == 4 and "no-store" in ran.err


def test_far_too_many_tiles_are_refused_at_once() -> None:
    how = Tiles(0.1, 100, 99)
    region = region_of_box(150.0, 20.0, 10.0, 10.0, how.scale_arcsec)
    with pytest.raises(BadValue, match="200000 at most"):
        tiles_each_tangent("s", how, [(region.grid().wcs, region.grid().shape)], "")
