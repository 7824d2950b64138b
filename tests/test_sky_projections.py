"""All projections of the FITS standard against astropy: systems, grids in words, maps that jump at edges."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from awetools.core.errors import AweError, BadHeader, BadValue, NoSolution
from awetools.core.pixels.mask import Bit
from awetools.core.pixels.resample import resample
from awetools.core.sky.grid import NOWHERE, Grid, fit_grid, whole_pixels, window_of
from awetools.core.sky.gridtext import fitted, parse_grid, text_of_grid
from awetools.core.sky.pixelmap import pixel_map
from awetools.core.sky.projection import Projection
from awetools.core.sky.projections import CODES, PROJECTIONS, read_word, word_of
from awetools.core.sky.readwcs import read_wcs
from awetools.core.sky.sphere import separation_arcsec
from awetools.core.sky.wcs import Wcs
from awetools.core.sky.writewcs import wcs_as_cards

Array = npt.NDArray[Any]
# Some parameters of those that have any.
WORDS = {
    "ZPN": ("ZPN:PV2_1=1", "ZPN:PV2_1=0.9,PV2_3=0.1"),
    "SIN": ("SIN", "SIN:PV2_1=0.1,PV2_2=-0.2"),
    "AZP": ("AZP", "AZP:PV2_1=2,PV2_2=20"),
    "SZP": ("SZP", "SZP:PV2_1=2,PV2_2=180,PV2_3=60"),
    "AIR": ("AIR", "AIR:PV2_1=45"),
    "CYP": ("CYP", "CYP:PV2_2=0.7"),
    "CEA": ("CEA", "CEA:PV2_1=0.5"),
    **{code: (f"{code}:PV2_1=45", f"{code}:PV2_1=-40,PV2_2=15") for code in ("COP", "COE", "COD", "COO")},
    "BON": ("BON:PV2_1=45", "BON:PV2_1=-30"),
    "HPX": ("HPX", "HPX:PV2_1=6"),
}
ALL = [word for code in CODES for word in WORDS.get(code, (code,))]
# COBE's cube is defined by two polynomials that undo each other to some arcsec only.
BACK_ARCSEC = {"CSC": 60.0}


def by_astropy(cards: dict[str, Any]) -> Any:
    from astropy.io.fits import Header
    from astropy.wcs import WCS

    header = Header()
    for key, value in cards.items():
        header[key] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return WCS(header)


def test_there_are_all_projections_of_astropy() -> None:
    from astropy.wcs import PRJ_CODES

    assert set(CODES) == set(PRJ_CODES)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(ALL),
    st.floats(0, 360),
    st.one_of(st.sampled_from([0.0, 45.0, -45.0, 89.9, 90.0, -90.0]), st.floats(-90, 90)),
    st.one_of(st.none(), st.sampled_from([0.0, 180.0, 90.0]), st.floats(-180, 360)),
    st.one_of(st.none(), st.sampled_from([90.0, -90.0, 1.0]), st.floats(-90, 90)),
    st.integers(0, 1000),
)
@example("SZP:PV2_1=2,PV2_2=180,PV2_3=60", 0.0, 0.0, None, None, 0)
def test_systems_are_those_of_astropy(word, ra, dec, lonpole, latpole, seed) -> None:
    code, parameters = read_word(word)
    cards: dict[str, Any] = {
        "CTYPE1": f"RA---{code}",
        "CTYPE2": f"DEC--{code}",
        "CUNIT1": "deg",
        "CUNIT2": "deg",
    }
    cards |= {"CRVAL1": ra, "CRVAL2": dec, "CRPIX1": 180.0, "CRPIX2": 90.5}
    cards |= {"CD1_1": -1.0, "CD1_2": 0.1, "CD2_1": 0.05, "CD2_2": 1.0}
    cards |= {f"PV2_{number}": value for number, value in enumerate(parameters) if value}
    cards |= {} if lonpole is None else {"LONPOLE": lonpole}
    # At 0 both poles are equally near, and WCSLIB takes either.
    assume(latpole is None or abs(latpole) > 1e-6)
    cards |= {} if latpole is None else {"LATPOLE": latpole}
    x, y = np.random.default_rng(seed).uniform(-60, 420, (2, 500))
    try:
        theirs = by_astropy(cards).all_pix2world(x, y, 1)
    except Exception:
        # A system that cannot be: either says so; at the limit of rounding one may not.
        assume(False)
    try:
        wcs = read_wcs(cards)
    except BadHeader:
        assume(False)
    # Of a cube the faces on the left of the first are those on the far right again.
    xi, _ = wcs.to_plane(x, y)
    once = (xi >= -45) | (code not in ("TSC", "CSC", "QSC"))
    ours = wcs.to_sky(x, y)
    known = np.isfinite(theirs[0])
    assert (np.isfinite(ours[0]) == (known & once)).all()
    known &= once
    if known.any():
        away = separation_arcsec(*(one[known] for one in ours), *(one[known] for one in theirs))
        assert away.max() <= 1e-9 * 3600
        sky = tuple(one[known] for one in ours)
        away = separation_arcsec(*wcs.to_sky(*wcs.to_pixel(*sky)), *sky)
        # At the limb of a perspective rounding decides whether WCSLIB knows the way back.
        lost = np.isnan(away)
        assert np.isnan(by_astropy(cards).wcs_world2pix(*(one[lost] for one in sky), 1)).all()
        assert away[~lost].max(initial=0) <= BACK_ARCSEC.get(code, 1e-8 * 3600)
    assert read_wcs(wcs_as_cards(wcs)) == wcs


@pytest.mark.parametrize("word", ALL)
def test_words_and_texts_of_grids_say_all(word: str) -> None:
    assert word_of(*read_word(word.lower())) == word
    text = str(parse_grid(f"{word} 150.1 2.2 30 400x300 200,150 20"))
    one = parse_grid(text)
    assert text.startswith(f"{word} ") and str(one) == text
    grid = one.grid()
    # North is up where the reference point is.
    assert abs((grid.wcs.position_angle_deg - 20 + 180) % 360 - 180) < 1e-6
    assert text_of_grid(grid) == one
    # Other programs read the same from the header.
    x, y = np.random.default_rng(2).uniform(0, 400, (2, 50))
    theirs = by_astropy(dict(grid.cards())).all_pix2world(x, y, 1)
    known = np.isfinite(theirs[0])
    assert known.any()
    assert separation_arcsec(*grid.wcs.to_sky(x, y), *theirs)[known].max() < 1e-9 * 3600


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("XYZ", "there are: TAN SIN"),
        ("COE", "needs PV2_1"),
        ("AIT:PV2_1=1", "has no parameter PV2_1"),
        ("COE:PV2_1=45,PV2_1=46", "no parameter"),
        ("COE:", "needs PV2_1"),
        ("COE:PV2_1", "no parameter"),
        ("COE:PV2_1=nan", "no parameter"),
    ],
)
def test_words_that_are_no_projection(word: str, why: str) -> None:
    with pytest.raises(BadValue, match=why):
        read_word(word)


def test_parameters_that_make_no_projection() -> None:
    with pytest.raises(BadHeader, match="COE:PV2_1=0 cannot be"):
        Projection("COE", (0.0, 0.0))
    assert word_of("CEA", (0.0, 1.0)) == "CEA" and read_word("CEA:PV2_1=1") == ("CEA", ())
    assert read_word("AIR:1=45") == ("AIR", (0.0, 45.0))


# Frames on maps of all of the sky

MAPS = (
    "AIT 0 0 1800 730x365",
    "MOL 0 0 1800 660x330",
    "CAR 0 0 1800 724x362",
    "CEA 0 0 1800 724x232",
    "HPX 0 0 1800 724x362",
    "XPH 0 90 1800 800x800",
    "TSC 0 0 1800 724x544 90,272",
    "QSC 0 0 1800 724x544 634,272",
    "COE:PV2_1=45 0 45 1800 800x660",
    "BON:PV2_1=45 0 0 1800 730x660",
    "AIT 30 50 1800 730x365 365.5,183 40",
)
# On both sides of the edge, the poles, corners of cubes and gores.
PLACES = ((180, 0), (179.3, 33), (180.2, -70), (0, 89.5), (0, -90), (45, 41.8), (45, 35.3), (90, 42), (0, 0))


def frame(ra: float, dec: float, scale: float, shape: tuple[int, int], turn: float = 20.0) -> Wcs:
    angle = np.radians(turn)
    c, s = scale / 3600 * np.cos(angle), scale / 3600 * np.sin(angle)
    return Wcs((ra, dec), ((shape[1] + 1) / 2, (shape[0] + 1) / 2), (-c, s, s, c))


def on_grid(grid: Grid, wcs: Wcs, shape: tuple[int, int]) -> tuple[Array, Array, Array]:
    """x, y and areas by the pixel map in the window of the frame, nan elsewhere; 0-based."""
    made = [np.full(grid.shape, np.nan) for _ in range(3)]
    window = window_of(grid, wcs, shape)
    if window == NOWHERE:
        return made[0], made[1], made[2]
    part = grid.part(window)
    found = pixel_map(part.wcs, wcs, part.shape, shape)
    (y0, y1), (x0, x1) = found.window
    (top, _), (left, _) = window
    inside = slice(top + y0, top + y1), slice(left + x0, left + x1)
    planes = *found.at(*found.window), found.areas(*found.window)
    for plane, own in zip(made, planes, strict=True):
        plane[inside] = own
    return made[0], made[1], made[2]


@pytest.mark.parametrize("text", MAPS)
def test_frames_are_whole_wherever_the_map_is_cut(text: str) -> None:
    grid = parse_grid(text).grid()
    y, x = np.mgrid[1 : grid.shape[0] + 1, 1 : grid.shape[1] + 1]
    sky = grid.wcs.to_sky(x, y)
    for ra, dec in PLACES:
        for shape, scale in (((100, 70), 400.0), ((30, 40), 1800.0), ((15, 10), 900.0)):
            wcs = frame(ra, dec, scale, shape)
            true = [one - 1 for one in wcs.to_pixel(*sky)]
            known, edge = np.ones(grid.shape, bool), np.zeros(grid.shape, bool)
            for one, length in zip(true, shape[::-1], strict=True):
                known &= (one >= -0.5) & (one < length - 0.5)
                edge |= (np.abs(one + 0.5) < 0.02) | (np.abs(one - length + 0.5) < 0.02)
            px, py, area = on_grid(grid, wcs, shape)
            found = (px >= -0.5) & (px < shape[1] - 0.5) & (py >= -0.5) & (py < shape[0] - 0.5)
            assert ((found == known) | edge).all(), (ra, dec, shape)
            assert np.hypot(px - true[0], py - true[1])[found & known].max(initial=0.0) < 2e-3
            assert np.isfinite(area[found & known]).all()


def test_a_window_is_no_larger_than_the_parts_of_the_frame() -> None:
    grid = parse_grid("AIT 0 0 180 7300x3650").grid()
    wcs, shape = frame(180, 20, 180, (200, 150)), (200, 150)
    rows, columns = window_of(grid, wcs, shape)
    assert rows[1] - rows[0] < 400 and columns[1] - columns[0] > 5000
    part = grid.part((rows, columns))
    spans = pixel_map(part.wcs, wcs, part.shape, shape).spans((0, rows[1] - rows[0]))
    assert len(spans) == 2 and sum(last - first for first, last in spans) < 1000
    # A part of the map with one of the sides, and with none.
    left, middle = grid.part((rows, (columns[0], 3650))), grid.part((rows, (3000, 4000)))
    assert window_of(left, wcs, shape)[1][1] < 1000
    assert window_of(middle, wcs, shape) == NOWHERE


@pytest.mark.parametrize(
    "text",
    ["AIT 0 0 600 2200x1100", "MOL 0 0 600 2000x1000", "HPX 0 0 600 2200x1100", "CEA 0 0 600 2200x700"],
)
@pytest.mark.parametrize(("ra", "dec"), [(180.0, 30.0), (0.0, 90.0), (70.0, -45.0)])
def test_pixels_have_the_values_of_reproject(text: str, ra: float, dec: float) -> None:
    reproject = pytest.importorskip("reproject")
    grid, shape = parse_grid(text).grid(), (60, 50)
    wcs = frame(ra, dec, 900, shape)
    image = np.random.default_rng(3).normal(100, 10, shape).astype(np.float32)
    window = window_of(grid, wcs, shape)
    part = grid.part(window)
    found = pixel_map(part.wcs, wcs, part.shape, shape)
    made = resample(image, found, kernel_name="bilinear")
    cards = {key: value for key, value in part.cards().items() if not key.startswith("NAXIS")}
    theirs, footprint = reproject.reproject_interp(
        (image, by_astropy(dict(wcs_as_cards(wcs)))), by_astropy(cards), part.shape, order="bilinear"
    )
    inner = (footprint > 0) & (made.weight > 0)
    assert inner.sum() > 1500 and inner.sum() > 0.9 * footprint.sum()
    # A table of the kernel, and 0.001 pixel, in noise of 10.
    assert np.abs(made.data - theirs)[inner].max() < 0.05
    outside = footprint == 0
    assert (made.mask[outside & (made.weight == 0)] & int(Bit.OUTSIDE)).mean() > 0.9


# Grids around frames


@pytest.mark.parametrize("word", [*CODES, "COE:PV2_1=30,PV2_2=10"])
@pytest.mark.parametrize(("ra", "dec"), [(0.1, 35.0), (200.0, -62.0)])
def test_a_grid_around_frames_in_any_projection(word: str, ra: float, dec: float) -> None:
    word = "ZPN:PV2_1=1,PV2_3=0.2" if word == "ZPN" else word
    shape = (300, 200)
    frames = [(frame(ra + off, dec + off, 20.0, shape, 50 * off), shape) for off in (-0.4, 0.3)]
    try:
        made = fitted(frames, None, word, 2)
    except AweError:
        assert word.startswith("COO") or dec < 0
        return
    assert parse_grid(str(made)) == made
    grid = made.grid()
    for wcs, _ in frames:
        x, y = np.meshgrid(np.arange(1, 201, 20), np.arange(1, 301, 20))
        gx, gy = grid.wcs.to_pixel(*wcs.to_sky(x, y))
        assert (gx > 0.5).all() and (gx < grid.shape[1] + 0.5).all()
        assert (gy > 0.5).all() and (gy < grid.shape[0] + 0.5).all()
    assert grid.wcs.parity == -1


def test_frames_all_over_the_sky_fit_a_map_of_it_and_no_plane() -> None:
    shape = (100, 100)
    frames = [
        (frame(ra, dec, 300.0, shape), shape)
        for ra, dec in ((0, 0), (90, 0), (180, 0), (270, 0), (0, 90), (0, -90))
    ]
    with pytest.raises(NoSolution, match="do not fit"):
        fit_grid(frames, 3600.0)
    made = fit_grid(frames, 3600.0, "AIT")
    assert made.shape[1] > 315 and made.shape[0] > 155
    # One image of all of the sky, whose corners are nowhere.
    whole = parse_grid("MOL 0 0 3600 330x165").grid()
    with pytest.raises(NoSolution, match="not all on the sky"):
        fit_grid([(whole.wcs, whole.shape)])
    assert fit_grid([(whole.wcs, whole.shape)], 3600.0, "AIT").shape[1] > 322


def test_a_cone_takes_its_parallel_from_the_frames() -> None:
    shape = (100, 100)
    made = fitted([(frame(30, -33.3, 10.0, shape), shape)], None, "COD")
    assert made.projection == "COD:PV2_1=-33.3" and made.dec_deg == -33.3
    with pytest.raises(BadValue, match="needs PV2_1"):
        fitted([(frame(30, 0, 10.0, shape), shape)], None, "COD")


def test_the_same_pixels_are_known_in_any_projection() -> None:
    grid = parse_grid("CSC 0 0 60 4000x3000 1000,1500").grid()
    part = grid.part(((100, 300), (200, 450)))
    assert whole_pixels(grid, part.wcs, part.shape) == (100, 200)


def test_every_projection_has_a_name() -> None:
    assert all(one.name and one.native for one in PROJECTIONS.values())
