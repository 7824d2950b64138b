"""The kind `difference`: what two images of the same pixels have in common is gone, and what moved stays."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from astropy.io import fits
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st

from awetools.core.errors import BadHeader, Mixture, NoMatch
from awetools.core.frame import Frame
from awetools.core.kind import Result
from awetools.core.kinds.difference import DIFFERENCE, DifferenceParams, make_difference
from awetools.core.kinds.sources import SourcesParams, make_sources
from awetools.core.pixels.mask import Bit
from awetools.core.products import open_product
from awetools.core.sky.gridtext import parse_grid
from awetools.core.sky.writewcs import wcs_as_cards
from awetools.core.store import Store
from tests.support import ROOT, InProcess, data_path
from tests.test_documents import literal_blocks
from tests.test_pipes import shell

Array = npt.NDArray[Any]

GRID = parse_grid("TAN 150.0 2.0 0.3 60x50").grid()
SIZE = 14, 16
NOISE = 0.5
META: dict[str, Any] = {
    "exposure": "e1",
    "filter": "R",
    "exptime_s": 1.0,
    "zeropoint_mag": 30.0,
    "zeropoint_band": "R",
    "window": "grid TAN 150.0 2.0 0.3 60x50",
}


def frame(top: int = 0, left: int = 0, shape: tuple[int, int] = SIZE, seed: int = 1, **meta: Any) -> Frame:
    """A part of the grid, from a row and a column on, full of noise."""
    part = GRID.part(((top, top + shape[0]), (left, left + shape[1])))
    data = np.random.default_rng(seed).normal(0, NOISE, shape).astype(np.float32)
    own = {**META, "wcs": wcs_as_cards(part.wcs, shape=part.shape), **meta}
    weight = np.full(shape, NOISE**-2, np.float32)
    return Frame(data, weight, np.zeros(shape, np.int16), own, "adu/s")


def less(image: Frame, reference: Frame | None, scale: float = 1.0) -> Result:
    made = make_difference(image, reference, params=DifferenceParams(scale=scale))
    assert set(made.measures) == {one.name for one in DIFFERENCE.measures}
    return made


def planes(made: Result) -> tuple[Array, Array, Array]:
    data, weight, mask = (made.planes[name] for name in ("SCI", "WEIGHT", "MASK"))
    assert isinstance(data, np.ndarray) and isinstance(weight, np.ndarray) and isinstance(mask, np.ndarray)
    return data, weight, mask


@given(top=st.integers(-15, 15), left=st.integers(-17, 17), scale=st.sampled_from([1.0, 0.7]))
def test_pixels_of_the_same_place_are_subtracted_wherever_the_parts_lie(
    top: int, left: int, scale: float
) -> None:
    image, reference = frame(20, 20), frame(20 + top, 20 + left, seed=2, exposure="e2")
    if abs(top) >= SIZE[0] or abs(left) >= SIZE[1]:
        with pytest.raises(Mixture, match="no pixel in common"):
            less(image, reference, scale)
        return
    made = less(image, reference, scale)
    data, weight, mask = planes(made)
    whole = [np.full((50, 60), np.nan, np.float32) for _ in range(2)]
    whole[0][20:34, 20:36] = image.data
    whole[1][20 + top : 34 + top, 20 + left : 36 + left] = reference.data
    expected = (whole[0] - np.float32(scale) * whole[1])[20:34, 20:36]
    seen = np.isfinite(expected)
    assert np.array_equal(data[seen], expected[seen]) and not data[~seen].any()
    np.testing.assert_allclose(weight[seen], 1 / (NOISE**2 * (1 + scale**2)), rtol=1e-5)
    assert not weight[~seen].any() and (mask[~seen] == Bit.OUTSIDE).all() and not mask[seen].any()
    assert made.measures["overlap_fraction"] == pytest.approx(seen.mean())
    assert (made.measures["shift_x_px"], made.measures["shift_y_px"]) == (left, top)
    assert made.meta["exposure"] == "e1-e2"


def test_masks_are_united_and_weigh_nothing_and_values_are_kept() -> None:
    image, reference = frame(), frame(seed=2)
    assert image.mask is not None and reference.mask is not None and reference.weight is not None
    image.mask[2, 3], reference.mask[2, 3], reference.mask[5, 5] = Bit.HOT, Bit.COSMIC, Bit.INTERPOLATED
    reference.weight[7, 7] = 0
    data, weight, mask = planes(less(image, reference))
    assert mask[2, 3] == Bit.HOT | Bit.COSMIC and weight[2, 3] == 0
    assert data[2, 3] == image.data[2, 3] - reference.data[2, 3]
    assert mask[5, 5] == Bit.INTERPOLATED and weight[5, 5] > 0
    assert weight[7, 7] == 0 and np.isfinite(weight).all()
    bare = replace(image, weight=None, mask=None)
    assert np.isfinite(planes(less(bare, replace(reference, weight=None, mask=None)))[1]).all()


def test_the_weight_is_that_of_the_scatter() -> None:
    made = less(frame(shape=(48, 58)), frame(shape=(48, 58), seed=2))
    assert made.measures["noise_ratio"] == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"filter": "V"}, "filter"),
        ({"zeropoint_mag": 29.0}, "zeropoint_mag"),
        ({"zeropoint_mag": None}, "zeropoint_mag"),
        ({"zeropoint_band": "V"}, "zeropoint_band"),
        ({"exptime_s": 2.0}, "exptime_s"),
    ],
)
def test_other_units_of_light_are_refused_unless_a_scale_is_given(change: dict[str, Any], word: str) -> None:
    with pytest.raises(Mixture, match=word) as refused:
        less(frame(), frame(seed=2, **change))
    assert "--scale" in refused.value.hint
    assert planes(less(frame(), frame(seed=2, **change), scale=0.5))[1].all()


def shifted(**change: float) -> Frame:
    """A part of a grid whose reference pixel, or value, is elsewhere."""
    one = frame()
    return replace(one, meta={**one.meta, "wcs": {**one.meta["wcs"], **change}})


@pytest.mark.parametrize(
    ("reference", "error", "word"),
    [
        (lambda: shifted(CRPIX1=30.5 + 0.01), Mixture, "beside them"),
        (lambda: shifted(CD1_1=-0.3 / 3600 * 1.001), Mixture, "another grid"),
        (lambda: replace(frame(), unit="adu"), Mixture, "adu/s"),
        (lambda: frame(wcs=None), BadHeader, "no WCS"),
        (lambda: None, NoMatch, "no reference"),
    ],
)
def test_other_pixels_are_refused(
    reference: Callable[[], Frame | None], error: type[Exception], word: str
) -> None:
    with pytest.raises(error, match=word):
        less(frame(), reference())


def test_frames_of_a_detector_are_compared_pixel_by_pixel() -> None:
    own: dict[str, Any] = {"instrument": "cam", "detector": "d1", "nx": SIZE[1], "ny": SIZE[0], "wcs": None}
    image, reference = (replace(frame(seed=n, **own), unit="adu") for n in (1, 2))
    made = less(image, reference)
    assert np.array_equal(planes(made)[0], image.data - reference.data) and made.unit == "adu"
    for name, value in (("detector", "d2"), ("binning", "2x2")):
        with pytest.raises(Mixture, match=name):
            less(image, replace(reference, meta={**reference.meta, name: value}))


def test_what_moved_less_than_the_seeing_is_found() -> None:
    shape = (48, 58)
    y, x = np.mgrid[: shape[0], : shape[1]]
    frames = []
    for number, place in enumerate((26.0, 28.0)):
        one = frame(shape=shape, seed=number + 1)
        for at, flux in (((15.0, 12.0), 3000.0), ((45.0, 40.0), 2000.0), ((place, 24.0), 1500.0)):
            width = 1.9
            light = np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * width**2))
            one.data[:] += (flux * light / (2 * np.pi * width**2)).astype(np.float32)
        frames.append(one)
    first, last = frames
    made = less(last, first)
    data, weight, mask = planes(made)
    found = make_sources(
        Frame(data, weight, mask, {**last.meta, **made.meta}, "adu/s"), params=SourcesParams(seeing_px=4.5)
    )
    assert found.table is not None
    (at_x,), (at_y,) = (found.table[name] for name in ("X_PX", "Y_PX"))
    assert at_x == pytest.approx(30.2, abs=1) and at_y == pytest.approx(25, abs=0.3)
    # The first moment of the difference over the flux is the motion.
    box = np.s_[16:33, 16:40]
    assert (data * (x - 27))[box].sum() / 1500 == pytest.approx(2.0, abs=0.2)


# The program


def regridded(run: InProcess) -> list[str]:
    """The two frames of one detector on the grid of the coadd."""
    names = run("query", "reduced", "detector=sim1").lines
    coadd = open_product(Path(run("query", "coadd").lines[0]))
    cards = coadd.meta["wcs"]
    grid = f"TAN {cards['CRVAL1']} {cards['CRVAL2']} {abs(cards['CD1_1']) * 3600:.9g} 700x700 350,350 0"
    assert run("regrid", "-q", "--grid", grid, "--out-dir", "on", *names).code == 0
    return sorted(str(one) for one in Path("on").glob("*.fits"))


def test_the_program_keeps_its_promises(sky_store: Store, run: InProcess) -> None:
    first, last = regridded(run)
    assert run("diff", "-q", "--reference", first, "-o", "d.fits", last).code == 0
    record = json.loads(Path("d.fits.json").read_text())
    assert {one["role"]: one["kind"] for one in record["recipe"]["inputs"]} == {
        "image": "regrid",
        "reference": "regrid",
    }
    with fits.open("d.fits") as hdus, fits.open(last) as image:
        assert hdus[0].header["BUNIT"] == "adu/s" and hdus["WEIGHT"].header["BUNIT"] == "s2/adu2"
        assert hdus[0].header["CRPIX1"] == image[0].header["CRPIX1"]
        data, weight = hdus[0].data, hdus["WEIGHT"].data
        assert 0.6 < record["quality"]["measures"]["noise_ratio"] < 1.1
        y, x = (int(one) for one in np.argwhere(weight > 0)[len(data) * 20])
        # Sky and stars are gone: what is left is noise about 0.
        assert abs(np.median(data[weight > 0] * np.sqrt(weight[weight > 0]))) < 0.3
    told = run("lineage", "--at", f"{x + 1},{y + 1}", "d.fits").out
    assert "- 1 x" in told and told.splitlines()[1].endswith("the same")
    assert run("diff", "-u", "--reference", first, "-o", "d.fits", last).err.count("up to date") == 1
    assert run("diff", "--check", "--scale", "0.9", "--reference", first, "-o", "d.fits", last).code == 3
    assert run("sources", "-q", "-o", "s.fits", "d.fits").code in (0, 3)


def test_what_only_a_person_can_name_is_asked_for(sky_store: Store, run: InProcess) -> None:
    names = regridded(run)
    ran = run("diff", "-o", "d.fits", names[0])
    assert ran.code == 5 and "no reference is named" in ran.err and "--reference FILE" in ran.err
    ran = run("make", "difference", "-n")
    assert ran.code != 0 and "no reference is named" in ran.err
    frames = run("query", "reduced", "detector=sim1").lines
    mixed = run("diff", "--reference", names[0], "-o", "d.fits", frames[0])
    assert mixed.code and "awe-regrid" in mixed.err and not Path("d.fits").exists()


def test_an_asteroid_of_a_real_night_as_the_page_says(tmp_path: Path) -> None:
    data = data_path("nickel-20170302")
    page = (ROOT / "docs" / "mosaics.rst").read_text()
    (block,) = (one for one in literal_blocks(page) if "awe-diff" in one)
    numbers = [*range(1000, 1015), *range(1030, 1035)]
    files = " ".join(str(one) for n in numbers for one in data.rglob(f"d{n}.fits*"))
    ran = shell(f"set -e -o pipefail\nawe-init\nawe-ingest {files}\n{block}", tmp_path, timeout=300)
    assert ran.code == 0, ran.err
    with fits.open(tmp_path / "moved.fits") as hdus:
        difference, cards = hdus[0].data, hdus[0].header
    # The positions of the mover in lists of the single frames, and the dark and the bright spot.
    bright = np.array(np.unravel_index(np.argmax(difference[550:650, 380:500]), (100, 120))) + [551, 381]
    dark = np.array(np.unravel_index(np.argmin(difference[550:650, 380:500]), (100, 120))) + [551, 381]
    assert cards["NAXIS1"] > 1000
    places = []
    for number in (1030, 1034):
        (name,) = (tmp_path / "frames").glob(f"*_d{number}.fits")
        ran = shell(f"awe-sources -q -o {number}.fits {name}", tmp_path)
        assert ran.code == 0, ran.err
        table = Table.read(tmp_path / f"{number}.fits")
        near = np.hypot(table["X_WIN_PX"] - 438, table["Y_WIN_PX"] - 607) < 6
        (row,) = table[near]
        places.append(np.array([row["Y_WIN_PX"], row["X_WIN_PX"]]))
    moved = places[1] - places[0]
    assert np.hypot(*moved) == pytest.approx(3.47, abs=0.1)
    assert np.abs(bright - places[1]).max() < 1 and np.abs(dark - places[0]).max() < 1
    movers = Table.read(tmp_path / "movers.fits")
    assert np.hypot(movers["X_PX"] - bright[1], movers["Y_PX"] - bright[0]).min() < 1.5
