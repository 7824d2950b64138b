"""awe-show: marks lie where the things are, and what was drawn is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from awetools.core.canvas import (
    coloured,
    draw_crosses,
    draw_ellipses,
    draw_lines,
    draw_text,
    paint,
    text_width,
)
from awetools.core.errors import UsageError
from awetools.core.show import BY_FLAG, GREEN, REFERENCE, View, cut_at, draw_pairs, flag_colours, round_length
from awetools.core.store import Store
from tests.foreign_frames import SHAPE, STARS, WCS, write_foreign
from tests.support import InProcess, awe, awe_here

BLACK = np.zeros((60, 80), np.uint8)


def picture_of(path: str | Path) -> np.ndarray:
    """The pixels (ny, nx, 3) of a PNG."""
    matplotlib = pytest.importorskip("matplotlib.image")
    pixels = np.asarray(matplotlib.imread(path))[..., :3]
    return np.asarray(np.rint(pixels * 255), np.uint8)


def places(picture: np.ndarray, colour: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows (from 0, down) of a picture that have a colour."""
    rows, columns = np.nonzero((picture == np.array(colour, np.uint8)).all(axis=2))
    return columns, rows


# The canvas


def test_an_ellipse_is_where_its_equation_says() -> None:
    picture = coloured(BLACK)
    one = np.array([1.0])
    draw_ellipses(picture, 40 * one, 30 * one, 20 * one, 8 * one, 30 * one, np.array([GREEN], np.uint8))
    x, y = places(picture, GREEN)
    right, up = x + 0.5 - 40, 30 - (y + 0.5)
    turn = np.radians(30)
    along, across = right * np.cos(turn) + up * np.sin(turn), -right * np.sin(turn) + up * np.cos(turn)
    assert len(x) > 60 and (np.abs(np.hypot(along / 20, across / 8) - 1) < 0.12).all()


def test_marks_outside_or_nowhere_are_not_drawn() -> None:
    picture = coloured(BLACK)
    x = np.array([-5.0, 1e30, np.nan, np.inf, 200])
    paint(picture, x, x, GREEN, 3)
    draw_crosses(picture, x, x, 3, GREEN)
    draw_lines(picture, x, x, x + 1, x, GREEN)
    draw_ellipses(picture, x, x, np.ones(5), np.ones(5), x, np.tile(np.array(GREEN, np.uint8), (5, 1)))
    draw_text(picture, -100, 1e6, "12 N?", GREEN)
    assert not picture.any()
    paint(picture, np.array([79.9]), np.array([59.9]), GREEN, 3)
    assert picture[59, 79].tolist() == list(GREEN)


def test_text_has_the_width_that_is_told() -> None:
    picture = coloured(BLACK)
    draw_text(picture, 4, 4, '10"N', GREEN, 2)
    x, y = places(picture, GREEN)
    assert (
        x.min() == 4 and x.max() < 4 + text_width('10"N', 2) <= x.max() + 2 and (y.min(), y.max()) == (4, 13)
    )


def test_the_colour_is_that_of_the_first_flag() -> None:
    found = flag_colours(np.array([0, 4 | 1, 8, 1, 2048])).tolist()
    assert found == [list(GREEN), *(list(colour) for _, colour in BY_FLAG)]


@pytest.mark.parametrize(
    ("most", "value", "text"),
    [
        (7.3, 5, '5"'),
        (59, 50, '50"'),
        (61, 60, "1'"),
        (0.42, 0.3, '0.3"'),
        (4000, 3600, "1deg"),
        (2000, 1800, "30'"),
    ],
)
def test_the_bar_has_a_round_length(most: float, value: float, text: str) -> None:
    length, said = round_length(most)
    assert length == pytest.approx(value) and said == text


def test_a_box_stays_inside_the_image() -> None:
    assert cut_at(50, 20, 10, (80, 60)) == "[45:54,15:24]"
    assert cut_at(1, 60, 10, (80, 60)) == "[1:10,55:60]"
    with pytest.raises(UsageError, match="outside"):
        cut_at(80.6, 3, 10, (80, 60))


def test_pairs_are_squares_with_a_line_to_the_catalogue() -> None:
    from awetools.core.sky.readwcs import read_wcs

    wcs = read_wcs(WCS)
    ra, dec = wcs.to_sky(np.array([40.0]), np.array([50.0]))
    columns = {"X_PX": np.array([40.0, 10]), "Y_PX": np.array([20.0, 10]), "USED": np.array([1, 0]),
               "RA_REF_DEG": np.append(ra, ra), "DEC_REF_DEG": np.append(dec, np.nan)}  # fmt: skip
    picture = coloured(BLACK)
    assert draw_pairs(picture, View(0, 0, 60, 1.0), columns, wcs) == 2
    x, y = places(picture, (255, 255, 255))
    # The catalogue has the star 30 pixels above it: row 60 - 50 from the top.
    assert (x.min(), x.max(), y.min()) == (35, 43, 10) and {39} == set(x[y < 30])


# The program


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shown") / "store"
    awe_here("init", "-q", root, cwd=root.parent)
    write_foreign(root / "frame.fits", cards={"EGAIN": 1.5})
    awe_here("import_", "-q", "--as", "reduced", "frame.fits", "-o", "reduced.fits", cwd=root)
    awe_here("sources", "-q", "reduced.fits", "-o", "sources.fits", cwd=root)
    ra, dec = sky_of_stars()
    rows = "\n".join(f"{a:.8f},{d:.8f},{10 + n}" for n, (a, d) in enumerate(zip(ra, dec, strict=True)))
    (root / "stars.csv").write_text(f"ra,dec,mag\n{rows}\n")
    awe_here("refcat", "import", "-q", "stars", "stars.csv", cwd=root)
    return root


@pytest.fixture
def run(
    _made: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> InProcess:
    """In a store with a star field, its sources, and a catalogue of its stars."""
    shutil.copytree(_made, tmp_path / "store", copy_function=shutil.copy2)
    monkeypatch.chdir(tmp_path / "store")
    return InProcess(capfd)


def sky_of_stars() -> Any:
    from awetools.core.sky.readwcs import read_wcs

    return read_wcs(WCS).to_sky(*np.array(STARS, float).T)


def test_the_sources_of_an_image_are_found_and_circled(run: InProcess) -> None:
    ran = run("show", "reduced.fits", "-o", "x.png", "--json", "--size", SHAPE[1])
    about = json.loads(ran.out)
    assert ran.code == 0 and about["counts"] == {"sources": len(STARS)}
    assert Path(about["files"]["sources"]).name == "sources.fits" and "sources.fits" in ran.err
    picture = picture_of("x.png")
    assert picture.shape == (*SHAPE, 3)
    x, y = places(picture, GREEN)
    sky, star = (x + 1.0, SHAPE[0] - y), np.array(STARS, float)
    away = np.hypot(sky[0][:, None] - star[:, 0], sky[1][:, None] - star[:, 1]).min(axis=1)
    assert len(x) > 500 and away.min() > 2 and away.max() < 12


def test_reference_stars_are_crosses_around_the_stars(run: InProcess) -> None:
    ran = run("show", "reduced.fits", "--sources", "none", "--refcat", "stars", "-o", "x.png", "--size", 704)
    assert ran.code == 0 and "25 of refcat" in ran.err
    x, y = places(picture_of("x.png"), REFERENCE)
    # Four pixels of the picture are one of the image.
    star = (np.array(STARS, float) - 0.5) * 4
    for cx, cy in star:
        near = np.hypot(x + 0.5 - cx, 640 - (y + 0.5) - cy) < 10
        assert np.mean(x[near] + 0.5) == pytest.approx(cx, abs=1.1)
        assert np.mean(640 - (y[near] + 0.5)) == pytest.approx(cy, abs=1.1)


def irregular(path: Path) -> np.ndarray:
    """A field whose stars lie in no pattern, with a header that is 20 pixels off; their places (n, 2), FITS pixels."""
    rng = np.random.default_rng(4)
    star: np.ndarray = np.column_stack(
        [rng.uniform(12, SHAPE[1] - 12, 30), rng.uniform(12, SHAPE[0] - 12, 30)]
    )
    away = np.hypot(*(star[:, None] - star).transpose(2, 0, 1)) + 99 * np.eye(30)
    star = star[(away > 10).all(axis=0)]
    y, x = np.mgrid[1 : SHAPE[0] + 1, 1 : SHAPE[1] + 1]
    image = rng.normal(500, 5, SHAPE)
    for place, (cx, cy) in enumerate(star):
        image += 3000 * 0.9**place * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 8)
    write_foreign(path, image.astype(np.float32), cards={"EGAIN": 1.5, "CRPIX1": 88.0 + 20})
    return star


def test_the_coordinates_of_the_solution_count(run: InProcess) -> None:
    from awetools.core.sky.readwcs import read_wcs

    stars = irregular(Path("other.fits"))
    ra, dec = read_wcs(WCS).to_sky(*stars.T)
    rows = "\n".join(f"{a:.8f},{d:.8f},{10 + n / 9}" for n, (a, d) in enumerate(zip(ra, dec, strict=True)))
    Path("field.csv").write_text(f"ra,dec,mag\n{rows}\n")
    assert run("refcat", "import", "field", "field.csv").code == 0
    assert run("import_", "--as", "reduced", "other.fits", "-o", "other_reduced.fits").code == 0
    assert run("sources", "other_reduced.fits", "-o", "other_sources.fits").code == 0
    ran = run("astrom", "other_sources.fits", "--refcat", "field", "-o", "astrom.fits")
    assert ran.code == 0, ran.err
    for given in ((), ("--astrom", "astrom.fits")):
        shown = ("show", "other_reduced.fits", "--refcat", "field", "-o", "x.png", "--size", 704, "--json")
        about = json.loads(run(*shown, *given).out)
        assert Path(about["files"]["astrom"]).name == "astrom.fits"
        assert Path(about["files"]["sources"]).name == "other_sources.fits", "what was made of it comes first"
        assert about["counts"]["matched"] >= 15 and about["counts"]["reference"] == len(stars)
    x, y = places(picture_of("x.png"), REFERENCE)
    star = (stars - 0.5) * 4
    away = np.hypot((x + 0.5)[:, None] - star[:, 0], (640 - y - 0.5)[:, None] - star[:, 1]).min(axis=1)
    assert away.max() < 10, "crosses lie where the solution has the stars"
    alone = json.loads(run("show", "other_reduced.fits", "--astrom", "none", "-o", "x.png", "--json").out)
    assert "astrom" not in alone["files"] and "matched" not in alone["counts"]
    assert run("plot", "astrom.fits", "--numbers").lines[1].startswith(f"{about['counts']['matched']} stars")


def test_a_part_is_shown_larger_at_a_pixel_or_a_place_of_the_sky(run: InProcess) -> None:
    (cx, cy), ra, dec = STARS[7], *(one[7] for one in sky_of_stars())
    assert run("show", "reduced.fits", "--at", f"{cx},{cy}", "--box", 20, "--label", "-o", "x.png").code == 0
    assert (
        run(
            "show", "reduced.fits", "--at-sky", f"{ra:.8f},{dec:.8f}", "--box", 20, "--label", "-o", "y.png"
        ).code
        == 0
    )
    assert Path("x.png").read_bytes() == Path("y.png").read_bytes()
    assert picture_of("x.png").shape == (320, 320, 3)


def test_an_image_without_anything_is_shown_alone(run: InProcess, tmp_path: Path) -> None:
    for name in ("reduced.fits", "reduced.fits.json"):
        shutil.copy2(name, tmp_path / name)
    ran = run("show", tmp_path / "reduced.fits", "-o", "x.png", "--sources", "none")
    assert ran.code == 0 and "the image alone" in ran.err
    awe("show", tmp_path / "reduced.fits", "-o", tmp_path / "y.png", cwd=tmp_path)
    assert (tmp_path / "y.png").stat().st_size > 1000


def test_raw_frames_have_the_sources_of_their_exposure(
    shared_store: Store, tmp_path: Path, capfd: Any
) -> None:
    run = InProcess(capfd)
    (raw, *_) = awe("query", "raw_science", "detector=sim1", "filter=R").splitlines()
    ran = run("show", raw, "--out-dir", tmp_path, "--json")
    assert ran.code == 0, ran.err
    about = json.loads(ran.out)
    assert about["counts"]["sources"] > 0 and "/sources/" in about["files"]["sources"]
    (reduced,) = awe("query", "reduced", f"exposure={exposure_of(about)}", "detector=sim1").splitlines()
    other = json.loads(run("show", reduced, "--out-dir", tmp_path, "--json").out)
    assert other["files"] == about["files"] and other["counts"] == about["counts"]


def exposure_of(about: dict[str, Any]) -> str:
    return str(json.loads(Path(f"{about['files']['sources']}.json").read_text())["meta"]["exposure"])


def test_what_is_refused(run: InProcess) -> None:
    Path("mine.png").write_text("mine")
    for arguments, code, said in (
        (("reduced.fits",), 2, "-o FILE.png"),
        (("reduced.fits", "-o", "x.jpg"), 2, "must end in .png"),
        (("reduced.fits", "-o", "mine.png"), 2, "would-overwrite"),
        (("reduced.fits", "reduced.fits", "-o", "x.png"), 2, "--out-dir"),
        (("reduced.fits", "-o", "x.png", "--at", "3"), 2, "X,Y"),
        (("reduced.fits", "-o", "x.png", "--at", "900,3"), 2, "outside"),
        (("reduced.fits", "-o", "x.png", "--sources", "reduced.fits"), 4, "wrong-kind"),
        (("reduced.fits", "-o", "x.png", "--refcat", "strs"), 4, "stars"),
        (("sources.fits", "-o", "x.png"), 4, "no-image"),
        (("missing.fits", "-o", "x.png"), 4, "no-such-file"),
    ):
        ran = run("show", *arguments)
        assert ran.code == code and said in ran.err, (arguments, ran.err)
    assert not Path("x.png").exists() and Path("mine.png").read_text() == "mine"
