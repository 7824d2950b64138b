"""Tiles: the picture at every size, nothing of others replaced, and a page that computes what the core does."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from awetools.core.errors import WouldOverwrite
from awetools.core.pictures.pyramid import MARK, TILE_PX, halved, levels_of, page, write_pyramid
from awetools.core.pictures.skymap import sky_map
from awetools.core.sky.readwcs import read_wcs
from awetools.core.sky.wcs import Wcs
from tests.foreign_frames import WCS, star_field, write_foreign
from tests.support import InProcess

TPV = {
    **WCS,
    "CTYPE1": "RA---TPV",
    "CTYPE2": "DEC--TPV",
    **{f"PV{axis}_{number}": value for axis in (1, 2) for number, value in ((1, 1.0), (4, 0.02), (7, 0.3))},
}
ABOUT = {"title": "field", "x0": 0, "y0": 0, "sky": None}


def as_bytes(values: np.ndarray) -> np.ndarray:
    return np.nan_to_num(values, nan=0).astype(np.uint8)


def joined(folder: Path, level: int) -> np.ndarray:
    """The picture of a level, from its tiles."""
    matplotlib = pytest.importorskip("matplotlib.image")
    tiles = {
        tuple(int(one) for one in path.stem.split("_")): path for path in (folder / str(level)).iterdir()
    }
    across, down = (max(one[axis] for one in tiles) + 1 for axis in (0, 1))
    assert len(tiles) == across * down
    read = [[np.rint(255 * matplotlib.imread(tiles[x, y])) for x in range(across)] for y in range(down)]
    return np.concatenate([np.concatenate(row, axis=1) for row in read])


def test_each_level_is_the_picture_at_its_size(tmp_path: Path) -> None:
    picture = np.random.default_rng(1).integers(0, 250, (700, 530)).astype(np.float32)
    strips = [picture[at : at + 100] for at in range(0, 700, 100)]
    count = write_pyramid(tmp_path / "tiles", picture.shape, strips, as_bytes, ABOUT)
    assert count == 9 + 4 + 1 and levels_of(picture.shape) == 2
    level = picture
    for number in (2, 1, 0):
        assert (joined(tmp_path / "tiles", number) == as_bytes(level)).all()
        level = halved(level)


def test_coloured_tiles(tmp_path: Path) -> None:
    picture = np.random.default_rng(1).integers(0, 250, (300, 40, 3)).astype(np.float32)
    assert write_pyramid(tmp_path / "tiles", (300, 40), [picture], as_bytes, ABOUT) == 3
    assert (joined(tmp_path / "tiles", 1) == picture).all()


@given(st.integers(1, 2000), st.integers(1, 2000))
def test_level_0_is_one_tile(ny: int, nx: int) -> None:
    size = max(ny, nx)
    for _ in range(levels_of((ny, nx))):
        assert size > TILE_PX
        size = (size + 1) // 2
    assert size <= TILE_PX


def test_means_are_of_what_there_is() -> None:
    nan = np.nan
    given = np.array([[1, 3, nan, nan, 7], [5, 7, nan, 2, 9], [nan, 4, 1, 1, nan]], np.float32)
    expected = np.array([[4, 2, 8], [4, 1, nan]], np.float32)
    assert np.array_equal(halved(given), expected, equal_nan=True)
    assert np.array_equal(halved(np.stack([given] * 3, -1))[..., 1], expected, equal_nan=True)


def test_tiles_of_ours_are_replaced_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    folder.mkdir()
    small = np.ones((20, 30), np.float32)
    write_pyramid(folder, (700, 30), [np.ones((700, 30), np.float32)], as_bytes, ABOUT)
    write_pyramid(folder, (20, 30), [small], as_bytes, ABOUT)
    assert sorted(one.name for one in folder.iterdir()) == ["0", "index.html"]
    assert [one.name for one in tmp_path.iterdir()] == ["tiles"]
    for strange in ("notes.txt", "0/notes.txt", "0/0_0.png/x"):
        path = folder / strange
        if not path.parent.is_dir():
            path.parent.unlink()
            path.parent.mkdir()
        path.write_text("mine")
        with pytest.raises(WouldOverwrite, match=strange.removesuffix("/x")):
            write_pyramid(folder, (20, 30), [small], as_bytes, ABOUT)
        assert path.read_text() == "mine"
        path.unlink()
    (folder / "0/0_0.png").rmdir()
    write_pyramid(folder, (20, 30), [small], as_bytes, ABOUT)
    (folder / "index.html").write_text("<html>mine</html>")
    with pytest.raises(WouldOverwrite):
        write_pyramid(folder, (20, 30), [small], as_bytes, ABOUT)
    other = tmp_path / "other"
    other.mkdir()
    (other / "7").mkdir()
    with pytest.raises(WouldOverwrite):
        write_pyramid(other, (20, 30), [small], as_bytes, ABOUT)


def test_nothing_is_left_of_tiles_that_failed(tmp_path: Path) -> None:
    def fail(_: np.ndarray) -> np.ndarray:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_pyramid(tmp_path / "tiles", (20, 30), [np.ones((20, 30), np.float32)], fail, ABOUT)
    assert not list(tmp_path.iterdir())


# The page


def test_the_page_needs_no_other_file_and_a_name_cannot_end_its_script() -> None:
    made = page((20, 30), {**ABOUT, "title": "</script><script>alert(1)"})
    assert MARK in made[:400] and "@" not in re.sub(r"\s@media", "", made)
    assert not re.findall(r"(?:src|href)\s*=\s*[\"']|https?:|@import|fetch\(", made)
    assert made.count("</script>") == 2 and "alert(1)" in made


@pytest.mark.parametrize(
    "cards", [WCS, TPV, {**WCS, "CRVAL1": 0.001, "CRVAL2": 89.995}], ids=["tan", "tpv", "pole"]
)
def test_the_map_of_the_sky_is_as_good_as_it_says(cards: dict[str, Any]) -> None:
    wcs = read_wcs(cards)
    made = sky_map(wcs, (0, 0, 2000, 1500))
    assert made is not None and made["error_arcsec"] < (0.02 if cards is TPV else 1e-3)


def test_no_map_of_what_is_no_piece_of_sky() -> None:
    assert sky_map(Wcs((10.0, 0.0), (1.0, 1.0), (1.0, 0.0, 0.0, 1.0)), (0, 0, 300, 300)) is None


def in_node(about: dict[str, Any], script: str, window: str = "") -> Any:
    """What a script gives that sees the functions of the page, or in a window all of its scripts."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node here, which runs the page's functions")
    made = page((1500, 2000), about)
    logic, rest = re.findall(r"<script[^>]*>(.*?)</script>", made, re.S)
    if not window:
        rest = re.findall(r"const ABOUT = .*?;\n", rest)[0]
    code = f"{window}\n{logic}\n{rest}\nconsole.log(JSON.stringify({script}));"
    done = subprocess.run([node, "-e", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "cards", [WCS, TPV, {**WCS, "CRVAL1": 0.001, "CRVAL2": 89.995}], ids=["tan", "tpv", "pole"]
)
def test_the_page_knows_where_things_are(cards: dict[str, Any]) -> None:
    wcs = read_wcs(cards)
    about = {"title": "", "x0": 0, "y0": 0, "sky": sky_map(wcs, (0, 0, 2000, 1500))}
    places = [[1, 1], [2000, 1500], [700.25, 31.5], [88, 80]]
    found = in_node(about, f"{places}.map(p => skyOf(ABOUT.sky, p[0], p[1]))")
    ra, dec = wcs.to_sky(*np.array(places, float).T)
    turned = (np.array(found)[:, 0] - ra + 180) % 360 - 180
    assert np.abs(turned * np.cos(np.radians(dec))).max() * 3600 < about["sky"]["error_arcsec"] + 1e-6
    assert np.abs(np.array(found)[:, 1] - dec).max() * 3600 < about["sky"]["error_arcsec"] + 1e-6
    back = in_node(about, f"{np.stack([ra, dec], axis=1).tolist()}.map(p => pixelOf(ABOUT.sky, p[0], p[1]))")
    assert np.allclose(back, places, atol=0.05)
    assert in_node(about, "[pixelOf(ABOUT.sky, 330, -2), pixelOf(ABOUT.sky, 150, 12)]") == [None, None]


def test_the_page_understands_places() -> None:
    about = {"title": "", "x0": 100, "y0": 50, "sky": sky_map(read_wcs(WCS), (100, 50, 2100, 1550))}
    ra, dec = (float(one) for one in read_wcs(WCS).to_sky(300.0, 400.0))
    texts = [f"{ra} {dec}", f"{ra},{dec}", "px 300 400", "10:00:00 -02", "px 1", "", "x y", "1:2:3:4 5"]
    found = in_node(about, f"{json.dumps(texts)}.map(t => wanted(ABOUT, t))")
    # The pixel (300, 400) is 199.5 from the left, and 1500 - 349.5 from the top.
    assert np.allclose(found[:3], [[199.5, 1150.5]] * 3, atol=0.01)
    assert found[3:] == [None] * 5
    assert in_node(about, "fitsOf(ABOUT, 199.5, 1150.5)") == [300, 400]
    assert in_node(about, "skyText(202.4696, -0.5)") == "13:29:52.70 -00:30:00.0"
    assert in_node(about, "skyText(359.99999999, 47.19999999)") == "00:00:00.00 +47:12:00.0"


def test_the_tiles_of_a_view_cover_the_window() -> None:
    view = "{x: 900, y: 800, zoom: 0.4}"
    tiles = in_node(ABOUT, f"tilesIn(ABOUT, {view}, 640, 480)")
    # At 0.4 level 2 of 3 is shown, one of its pixels on 0.8 of the screen's.
    assert {one["name"].split("/")[0] for one in tiles} == {"2"} and all(one["pixel"] == 0.8 for one in tiles)
    side = 256 * 0.8
    left, top = min(one["left"] for one in tiles), min(one["top"] for one in tiles)
    assert -side < left <= 0 and -side < top <= 0
    assert max(one["left"] for one in tiles) + side >= 640 or "2/3_" in str(tiles)
    x, y = 320 + (512 - 900) * 0.4, 240 + (512 - 800) * 0.4
    assert any(
        abs(one["left"] - x) < 1e-6 and abs(one["top"] - y) < 1e-6 and one["name"] == "2/1_1.png"
        for one in tiles
    )
    assert in_node(ABOUT, "tilesIn(ABOUT, {x: 10, y: 10, zoom: 0.01}, 640, 480).map(t => t.name)") == [
        "0/0_0.png"
    ]
    assert in_node(ABOUT, "levelOf(ABOUT, 8)") == 3


def test_zoom_leaves_what_is_under_the_pointer() -> None:
    made = in_node(ABOUT, "zoomed({x: 500, y: 400, zoom: 0.5}, 2, 100, -60, 0.1, 32)")
    assert made["zoom"] == 1 and made["x"] + 100 / 1 == 500 + 100 / 0.5 and made["y"] - 60 == 400 - 60 / 0.5
    assert in_node(ABOUT, "zoomed({x: 5, y: 4, zoom: 20}, 9, 0, 0, 0.1, 32)") == {"x": 5, "y": 4, "zoom": 32}


# A window, of which the page sees no more than this.
STUB = """
const listeners = {}, elements = {}, drawn = [];
function element(id) {
  return elements[id] ||= {
    id, width: 0, height: 0, clientWidth: 640, clientHeight: 480, value: "", textContent: "",
    classList: { toggle(name, on) { elements[id][name] = on; } },
    addEventListener(name, act) { listeners[`${id} ${name}`] = act; }, setPointerCapture() {},
    getContext: () => ({ fillRect() {}, drawImage(image, ...place) { drawn.push([image.src, ...place]); } }),
  };
}
const document = { getElementById: element };
const addEventListener = (name, act) => { listeners[name] = act; };
const requestAnimationFrame = act => act();
class Image { complete = true; naturalWidth = 256; naturalHeight = 256; }
"""


def test_the_whole_page_runs_in_a_window() -> None:
    """Wheel, keys, drag and the box move the view; tiles are drawn and texts said."""
    about = {"title": "a field", "x0": 0, "y0": 0, "sky": sky_map(read_wcs(WCS), (0, 0, 2000, 1500))}
    ra, dec = (float(one) for one in read_wcs(WCS).to_sky(300.0, 400.0))
    act = f"""(() => {{
      const said = [];
      const say = () => said.push([elements.zoom.textContent, elements.pixel.textContent, elements.go.bad]);
      const event = more => ({{ preventDefault() {{}}, target: null, offsetX: 320, offsetY: 240, ...more }});
      say();
      listeners["picture wheel"](event({{ deltaY: -300 }})); say();
      listeners["keydown"](event({{ key: "1" }})); say();
      listeners["picture pointermove"](event({{ buttons: 1, movementX: -10, movementY: 5 }})); say();
      listeners["keydown"](event({{ key: "0" }})); say();
      elements.go.value = "{ra} {dec}"; listeners["go keydown"]({{ key: "Enter" }}); say();
      elements.go.value = "nowhere"; listeners["go keydown"]({{ key: "Enter" }}); say();
      listeners["resize"]();
      return {{ said, drawn, sky: elements.sky.textContent, title: document.title }};
    }})()"""
    found = in_node(about, act, window=STUB)
    said = [(one[0], one[1]) for one in found["said"]]
    assert said[0] == ("32.0%", "x 1000.5  y 750.5") and said[1][0] == "64.0%" and said[2][0] == "100%"
    assert (
        said[3][1] == "x 1010.5  y 755.5" and said[4] == said[0] and said[5] == ("100%", "x 300.0  y 400.0")
    )
    assert [one[2] for one in found["said"][5:]] == [False, True]
    assert found["title"] == "a field" and f"{ra:.5f} {dec:.5f}" in found["sky"]
    assert {one[0].split("/")[0] for one in found["drawn"]} == {"0", "2", "3"}


# The programs


def test_preview_writes_tiles(tmp_path: Path, run: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = np.tile(star_field(), (2, 2))
    frame = write_foreign(tmp_path / "frame.fits", data, cards={"BUNIT": "adu/s"})
    options = ("--as", "coadd", "--zero-point", "30", "-o", "coadd.fits")
    assert run("import_", "-q", *options, frame).code == 0
    ran = run("preview", "--tiles", "tiles", "coadd.fits")
    assert ran.code == 0 and ran.lines == ["tiles/index.html"]
    made = joined(tmp_path / "tiles", 1)
    assert made.shape == data.shape
    bright = data[::-1] > 1500
    assert made[bright].min() > np.median(made) + 60
    told = json.loads(re.findall(r"const ABOUT = (.*?);\n", Path("tiles/index.html").read_text())[0])
    assert (told["width"], told["height"]) == (352, 320) and abs(told["sky"]["ra"] - 150) < 0.1
    part = run("preview", "--tiles", "part", "--region", "[11:60,21:50]", "coadd.fits")
    assert part.code == 0 and joined(tmp_path / "part", 0).shape == (30, 50)
    assert run("colour", "--tiles", "colour", *["coadd.fits"] * 3).lines == ["colour/index.html"]
    assert joined(tmp_path / "colour", 1).shape == (*data.shape, 3)


def test_tiles_of_a_raw_frame(night: Path, tmp_path: Path, run: InProcess) -> None:
    frame = sorted((night / "raw").glob("*.fits*"))[0]
    assert run("preview", "--tiles", tmp_path / "tiles", frame).code == 0
    assert joined(tmp_path / "tiles", 0).size == 160 * 192


def test_usage(tmp_path: Path, run: InProcess) -> None:
    frame = write_foreign(tmp_path / "frame.fits")
    for options in (("-o", "a.png"), ("--out-dir", "x"), ("--mask",), (frame,)):
        assert run("preview", "--tiles", tmp_path / "tiles", *options, frame).code == 2
