"""Pictures of what has gaps: black where nothing is known, closed where that is narrow, bright where saturated."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from awetools.commands.preview import grey
from awetools.core.fitswrite import Plane, write_fits
from awetools.core.images import Image
from awetools.core.pictures.sheet import Sheet, open_sheet, strips
from awetools.core.pixels.gaps import HALO_PX, WIDEST_PX, close_gaps, unknown
from awetools.core.pixels.mask import Bit
from tests.foreign_frames import NOISE, SKY, star_field, write_foreign
from tests.support import InProcess

SHAPE = (300, 90)
GIVEN = {"low": None, "high": None, "stretch": "asinh"}


def field() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A sky about 0 with a column and a square that no frame knows, a saturated core, and an edge outside."""
    data = np.random.default_rng(1).normal(0, 1, SHAPE).astype(np.float32)
    mask = np.zeros(SHAPE, np.int16)
    mask[:, 40:44] = Bit.HOT
    mask[100:130, 60:80] = Bit.COSMIC
    mask[200:206, 10:16] = Bit.SATURATED
    mask[:, :5] = Bit.OUTSIDE
    data[mask > 0] = 900
    data[:, :5] = 0
    return data, (mask == 0).astype(np.float32), mask


def write_field(path: Path) -> Path:
    data, weight, mask = field()
    write_fits(path, [Plane("SCI", data), Plane("WEIGHT", weight), Plane("MASK", mask)], [])
    return path


def test_narrow_gaps_are_closed_and_wide_ones_stay() -> None:
    y, x = np.mgrid[:60, :80].astype(np.float32)
    whole = 3 + 0.1 * x - 0.2 * y
    for width in (1, WIDEST_PX, WIDEST_PX + 1):
        values = whole.copy()
        values[:, 30 : 30 + width] = np.nan
        close_gaps(values)
        assert np.isfinite(values).all() == (width <= WIDEST_PX)
        assert np.nanmax(np.abs(values - whole)) < 0.5
    edge = whole.copy()
    edge[:, :3] = np.nan
    close_gaps(edge)
    assert np.isnan(edge[:, :3]).all()
    kept = whole.copy()
    kept[20:22] = np.nan
    close_gaps(kept, np.zeros(kept.shape, bool))
    assert np.isnan(kept[20:22]).all()


def test_what_is_closed_does_not_depend_on_the_strip(tmp_path: Path) -> None:
    with_halo = open_sheet(write_field(tmp_path / "a.fits"))
    whole = with_halo.rows(0, SHAPE[0], 0, SHAPE[1])
    parts = np.concatenate([with_halo.rows(at, at + 50, 0, SHAPE[1]) for at in range(0, SHAPE[0], 50)])
    assert np.array_equal(whole, parts, equal_nan=True)
    assert HALO_PX > WIDEST_PX
    with_halo.close()


def test_a_sheet_has_nothing_where_nothing_is_known(tmp_path: Path) -> None:
    sheet = open_sheet(write_field(tmp_path / "a.fits"))
    for factor in (1, 2, 3):
        (made,) = strips([sheet], sheet.whole, factor, 1000)
        made = made[::-1]
        at = [(y // factor, x // factor) for y, x in ((115, 70), (150, 1), (203, 13), (150, 42))]
        hole, outside, core, column = (made[one] for one in at)
        assert np.isnan(hole) and np.isnan(outside) and np.isposinf(core) and abs(column) < 5
        assert not (made[np.isfinite(made)] > 10).any()
    good = sheet.rows(0, *SHAPE[:1], 0, SHAPE[1], only_good=True)
    assert np.isfinite(good).sum() == (field()[1] > 0).sum()
    sheet.close()


def test_what_is_shown_as_it_was_made_keeps_its_defects() -> None:
    data, weight, mask = field()
    lost = unknown(data, weight > 0, mask, as_made=True)
    assert (lost == (mask == Bit.OUTSIDE)).all()
    assert (unknown(data, weight > 0, None) == (mask == Bit.OUTSIDE)).all()
    assert (unknown(data, weight > 0, mask) == ((mask > 0) & (mask != Bit.SATURATED))).all()


def test_a_preview_is_black_where_there_is_nothing() -> None:
    data, weight, mask = field()
    for kind, spots in (("coadd", True), ("reduced", False)):
        image = Image("a", "SCI", data, weight > 0, mask, SimpleNamespace(kind=kind))  # type: ignore[arg-type]
        shown = grey(image, GIVEN, 1)
        assert not shown[:, :5].any() and (shown[201:205, 11:15] == 255).all()
        # A single frame shows its defects.
        assert (shown[105:125, 65:75] == (0 if spots else 255)).all()
        assert (np.median(shown[:, 40:44]) < 200) == spots


def test_planes_that_count_begin_with_nothing() -> None:
    count = np.full(SHAPE, 5, np.int16)
    count[:, :9] = 0
    for stretch in ("asinh", "linear"):
        shown = grey(Image("a", "COUNT", count, None), {**GIVEN, "stretch": stretch}, 1)
        assert (shown[:, 9:] == 255).all() and not shown[:, :9].any()


def test_the_first_plane_by_its_name_is_the_default(
    tmp_path: Path, run: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = star_field() - np.float32(SKY)
    weight = np.full_like(data, NOISE**-2)
    data[:, :20] = weight[:, :20] = 0
    write_foreign(tmp_path / "in.fits", data, {"WEIGHT": weight}, {"BUNIT": "adu/s"})
    options = ("--as", "coadd", "--zero-point", "30", "--weight", "WEIGHT", "-o", "c.fits")
    assert run("import_", "-q", *options, "in.fits").code == 0
    for more in ((), ("--plane", "SCI")):
        assert run("preview", "-o", f"{len(more)}.png", *more, "c.fits").code == 0
    assert Path("0.png").read_bytes() == Path("2.png").read_bytes()
    matplotlib = pytest.importorskip("matplotlib.image")
    shown = matplotlib.imread("0.png")
    assert not shown[:, :20].any() and np.median(shown[:, 20:]) > 0.1


def test_an_array_without_a_mask_is_shown_whole() -> None:
    values = np.ones((20, 30), np.float32)
    values[3, 4] = np.inf
    good = np.ones(values.shape, bool)
    made = Sheet("a", (20, 30), values=values, good=good).rows(0, 20, 0, 30)
    assert made[3, 4] == 1
