"""The kind `illumination`: what flats have wrong is found, and taken out of lists and of pixels, where it is real."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from awetools.core.coadd.inputs import frame_of_arrays
from awetools.core.errors import BadValue, NoMatch, NoSolution, WrongKind
from awetools.core.fits import open_fits
from awetools.core.frame import Frame, Table
from awetools.core.kind import Result
from awetools.core.kinds.gphot import GphotParams, make_gphot
from awetools.core.kinds.illumination import (
    ILLUMINATION,
    IlluminationParams,
    corrected,
    correction_of,
    make_illumination,
)
from awetools.core.kinds.regrid import RegridParams, make_regrid
from awetools.core.kinds.sourcelist import SourcelistParams, make_sourcelist
from awetools.core.kinds.zeropoint import ZeropointParams, make_zeropoint
from awetools.core.pixels.illumination import Illumination
from awetools.core.quality import judge
from awetools.core.sky.refcat import Catalogue
from awetools.core.store import Store
from tests.photometry_frames import SIZE, changed, seen, solution, stars, system
from tests.support import InProcess

SKY = stars(900, seed=8)
AMPLITUDE_MAG = 0.03
WHERE = {"binning": "1x1", "window": None, "night": "2017-03-01"}


def too_faint(x: np.ndarray, y: np.ndarray, amplitude: float = AMPLITUDE_MAG) -> np.ndarray:
    """What a flat with light scattered into the middle makes stars there too faint by, mag."""
    u, v = ((2 * one - SIZE - 1) / SIZE for one in (x, y))
    return np.asarray(amplitude * (2 / 3 - u**2 - v**2))


def spoilt(table: Table, amplitude: float = AMPLITUDE_MAG) -> Table:
    """The list as it is of a frame divided by such a flat."""
    columns = table.columns
    factor = 10 ** (-0.4 * too_faint(columns["X_WIN_PX"], columns["Y_WIN_PX"], amplitude))
    more = {
        name: columns[name] * factor.reshape(-1, *(1,) * (columns[name].ndim - 1))
        for name in columns
        if name.startswith("FLUX_")
    }
    return changed(table, **more)


def frames(
    amplitude: float = AMPLITUDE_MAG, count: int = 6, turned: bool = False
) -> tuple[list[Table], list[Table]]:
    """The lists and solutions of dithered exposures, with a flat that is wrong."""
    lists, solutions = [], []
    for k in range(count):
        about = {"exposure": f"e{k}", **WHERE}
        wcs = system(90.0 * k * turned, ra=150 + 0.012 * (k % 3), dec=2 + 0.02 * (k // 3))
        one = seen(SKY, wcs, 25 + 0.03 * k, 10 + k, 0.004, **about)
        lists.append(spoilt(one, amplitude))
        solutions.append(solution(wcs, **about))
    return lists, solutions


def made(given: tuple[list[Table], list[Table]], catalogue: Catalogue | None = None, **params: Any) -> Result:
    return make_illumination(*given, catalogue, params=IlluminationParams(**params))


def product(result: Result, **meta: Any) -> Table:
    """What was made, as others are given it."""
    return Table(dict(result.table or {}), {"instrument": "cam", "filter": "R", **WHERE, **meta})


def known(result: Result) -> Illumination:
    found = correction_of([product(result)], frames(count=1)[0][0].meta)
    assert found is not None
    return found


PLACES = np.arange(10, SIZE, 20.0)


def away(result: Result, amplitude: float = AMPLITUDE_MAG) -> float:
    """The rms over the detector of what was found less the truth."""
    x, y = np.meshgrid(PLACES, PLACES)
    return float(np.std(known(result).mag_at(x, y) - too_faint(x, y, amplitude)))


def flags(result: Result) -> list[str]:
    return list(judge(ILLUMINATION, result.measures, ILLUMINATION.limits)["flag_names"])


# The recipe


def test_it_is_found_to_three_parts_in_a_thousand(tmp_path: Path) -> None:
    result = made(frames(), SKY.catalogue(tmp_path))
    assert away(result) < 0.003 and not flags(result)
    assert set(result.measures) == {one.name for one in ILLUMINATION.measures}
    assert result.measures["correction_rms_mag"] == pytest.approx(0.0126, rel=0.1)
    assert result.measures["undetermined"] == 0 and result.used == {"band": "Johnson-Cousins R (Vega)"}
    before, after = (result.measures[f"held_reference_rms_{one}_mag"] for one in ("before", "after"))
    assert before is not None and after is not None and after < 0.6 * before


def test_without_known_stars_a_gradient_alone_is_left_out() -> None:
    result = made(frames())
    assert "only shifted" in result.used["gradient"] and result.measures["undetermined"] == 2
    assert result.measures["anchors"] == 0 and result.measures["held_reference_rms_after_mag"] != 0
    # The truth has no gradient.
    assert away(result) < 0.004 and not flags(result)
    assert "gradient" not in made(frames(turned=True)).used


def test_where_there_is_none_it_is_flagged_and_small(tmp_path: Path) -> None:
    for catalogue in (None, SKY.catalogue(tmp_path)):
        result = made(frames(0.0), catalogue)
        assert flags(result) == ["improvement_sigma"]
        assert away(result, 0.0) < 0.002


def test_a_row_a_term_and_none_of_the_detectors_offset() -> None:
    result = made(frames(), degree=2)
    assert result.table is not None
    orders = list(zip(result.table["X_ORDER"].tolist(), result.table["Y_ORDER"].tolist(), strict=True))
    assert orders == [(0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)]
    assert set(result.table["NX"]) == {SIZE}
    found = known(result)
    x, y = np.meshgrid(np.arange(1, SIZE + 1, 5), np.arange(1, SIZE + 1, 5))
    assert abs(found.mag_at(x, y).mean()) < 1e-4


def test_sources_of_images_on_a_grid_are_refused() -> None:
    lists, solutions = frames()
    on_grid = Table(lists[0].columns, {**lists[0].meta, "window": "grid TAN 150 2 0.5 10x10"})
    from awetools.core.meta import on_grid as is_on_grid

    assert is_on_grid(on_grid.meta)
    with pytest.raises(WrongKind, match="sky grid"):
        make_illumination([*lists, on_grid], solutions, params=IlluminationParams())


def test_frames_of_two_sizes_and_of_two_places_are_refused() -> None:
    lists, solutions = frames()
    other = Table(lists[0].columns, {**lists[0].meta, "nx": SIZE + 2})
    with pytest.raises(NoMatch, match="1002 x 1000"):
        make_illumination([other, *lists[1:]], solutions, params=IlluminationParams())
    far = system(ra=180.0)
    apart = [lists[0], seen(stars(ra=180.0), far, exposure="far", **WHERE)]
    with pytest.raises(NoSolution, match="share no star"):
        make_illumination(
            apart, [solutions[0], solution(far, exposure="far", **WHERE)], params=IlluminationParams()
        )


# A correction


@given(
    first=st.integers(0, 150),
    rows=st.integers(1, 150),
    degree=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_rows_of_it_are_the_same_bits_however_many_are_asked_for(
    first: int, rows: int, degree: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    found = Illumination((300, 37), random.normal(0, 0.01, (degree + 1, degree + 1)))
    whole = found.factors(0, 300)
    np.testing.assert_array_equal(found.factors(first, first + rows), whole[first : first + rows])
    x, y = np.meshgrid(np.arange(1.0, 38), np.arange(first + 1.0, first + rows + 1))
    np.testing.assert_allclose(whole[first : first + rows], found.factor_at(x, y), rtol=3e-7)


def test_beside_the_detector_it_is_that_of_the_edge() -> None:
    found = Illumination((50, 40), np.array([[0, 0.01], [0.02, 0]]))
    assert found.mag_at(-30, 20) == found.mag_at(0.5, 20) and found.mag_at(99, 99) == found.mag_at(40.5, 50.5)
    with pytest.raises(BadValue):
        Illumination((5, 5), np.array([[np.nan]]))


def test_pixels_are_multiplied_and_weights_divided_by_its_square() -> None:
    found = Illumination((200, 30), np.array([[0, 0.03], [0.02, 0]]))
    data, weight = np.full((200, 30), 100, np.float32), np.full((200, 30), 4, np.float32)
    frame = frame_of_arrays("f", system(), data, weight, sky=20.0, illumination=found)
    values, weights, _ = frame.rows(70, 180)
    factor = found.factors(70, 180)
    np.testing.assert_allclose(values, 80 * factor, rtol=1e-6)
    np.testing.assert_allclose(weights, 4 / factor**2, rtol=1e-6)
    assert (data == 100).all() and (weight == 4).all()


def test_the_nearest_in_nights_of_those_that_match_serves() -> None:
    result = made(frames())
    meta = frames(count=1)[0][0].meta
    march, may = product(result), product(made(frames(2 * AMPLITUDE_MAG)), night="2017-05-01")
    for night, wanted in (("2017-03-20", march), ("2017-04-20", may)):
        found = correction_of([may, march], {**meta, "night": night})
        expected = correction_of([wanted], meta)
        assert found is not None and expected is not None
        np.testing.assert_array_equal(found.coefficients_mag, expected.coefficients_mag)
    for other in ({"filter": "V"}, {"detector": "d9"}, {"binning": "2x2"}, {"instrument": "other"}):
        assert correction_of([march], {**meta, **other}) is None
    with pytest.raises(NoMatch, match="1000 x 1000"):
        correction_of([march], {**meta, "nx": 500})


# What takes it


def residuals(mag: np.ndarray, x: np.ndarray, y: np.ndarray, bright: np.ndarray) -> np.ndarray:
    """Means of magnitudes less true ones in cells of the detector."""
    cells = (x * 4 // SIZE).astype(int) * 4 + (y * 4 // SIZE).astype(int)
    return np.array([np.median(mag[bright & (cells == one)]) for one in range(16)])


def test_lists_and_zero_points_are_corrected(tmp_path: Path) -> None:
    catalogue = SKY.catalogue(tmp_path)
    given = frames()
    correction = product(made(given, catalogue))
    found = {}
    for name, one in (("without", None), ("with", correction)):
        zero = make_zeropoint(
            given[0][0], given[1][0], refcat=catalogue, illumination=one, params=ZeropointParams()
        )
        meta = {**given[0][0].meta, **zero.meta}
        listed = make_sourcelist(
            given[0][0], given[1][0], Table({}, meta), illumination=one, params=SourcelistParams()
        )
        assert listed.table is not None
        found[name] = (zero, listed.table)
    assert "ILLUMINATION_MAG" not in found["without"][1]
    x, y = (found["with"][1][f"{axis}_PX"] for axis in "XY")
    np.testing.assert_allclose(
        found["with"][1]["ILLUMINATION_MAG"], known(made(given, catalogue)).mag_at(x, y), atol=1e-6
    )
    truth = SKY.mag[_nearest(given[0][0], given[1][0])]
    bright = truth < 17
    before, after = (
        residuals(found[one][1]["MAG_AUTO"] - truth, x, y, bright) for one in ("without", "with")
    )
    assert np.ptp(before) > 0.035 and np.std(before) > 0.01 and np.std(after) < 0.004
    first, second = (found[one][0].measures for one in ("without", "with"))
    assert first["scatter_mag"] is not None and second["scatter_mag"] is not None
    assert second["scatter_mag"] < 0.6 * first["scatter_mag"]
    assert second["zeropoint_error_mag"] < first["zeropoint_error_mag"]  # type: ignore[operator]
    # Other magnitudes, another list.
    assert found["with"][1]["SLID"][0] != found["without"][1]["SLID"][0]


def _nearest(sources: Table, astrom: Table) -> np.ndarray:
    from awetools.core.sky.readwcs import read_wcs

    x, y = read_wcs(dict(astrom.meta["wcs"])).to_pixel(SKY.ra, SKY.dec)
    distance = np.hypot(
        x[None, :] - sources.columns["X_WIN_PX"][:, None], y[None, :] - sources.columns["Y_WIN_PX"][:, None]
    )
    return np.asarray(np.nanargmin(distance, axis=1))


def test_common_zero_points_are_corrected() -> None:
    given = frames()
    correction = product(made(given))
    plain, better = (
        make_gphot(*given, illumination=one, params=GphotParams()).measures for one in ((), (correction,))
    )
    assert better["scatter_mag"] < 0.7 * plain["scatter_mag"]  # type: ignore[operator]


def test_a_list_of_a_detector_without_one_stays_as_it_is() -> None:
    correction = product(made(frames()))
    other = Table(frames(count=1)[0][0].columns, {**frames(count=1)[0][0].meta, "detector": "d2"})
    assert corrected(other, correction) is other
    assert corrected(other, ()) is other and corrected(other, None) is other


@pytest.mark.parametrize("background", ["subtract", "leave"])
def test_a_frame_on_a_grid_is_corrected(background: str) -> None:
    correction = product(made(frames()))
    _, solutions = frames(count=1)
    random = np.random.default_rng(2)
    data = random.normal(50, 1, (SIZE, SIZE)).astype(np.float32)
    frame = Frame(data, np.ones_like(data), None, {**solutions[0].meta, "gain_e_adu": [1.5]})
    text = "TAN 150 2 0.5 400x400"
    results = [
        make_regrid(
            frame,
            solutions[0],
            None,
            one,
            params=RegridParams(grid=text, background=background, kernel="nearest"),
        )
        for one in (None, correction)
    ]
    ratio = np.asarray(results[0].planes["WEIGHT"]) / np.asarray(results[1].planes["WEIGHT"])
    x, y = np.meshgrid(np.arange(301, 701), np.arange(301, 701))
    expected = 10 ** (0.4 * too_faint(x.astype(float), y.astype(float)))
    # East is left, and the grid lies in the middle of the frame.
    assert np.sqrt(ratio)[200, 200] == pytest.approx(expected[200, 200], abs=0.006)
    pixels = [np.asarray(one.planes["SCI"])[5:-5, 5:-5] for one in results]
    np.testing.assert_allclose(pixels[1], pixels[0] * np.sqrt(ratio)[5:-5, 5:-5], rtol=2e-4, atol=2e-4)


# The programs


def one_of(store: Store, kind: str) -> str:
    return str(sorted(store.root.glob(f"{kind}/*/*.fits"))[0])


def planes_of(path: str | Path) -> dict[str, np.ndarray]:
    with open_fits(Path(path)) as fits:
        return {hdu.name: fits.image(hdu.index) for hdu in fits.hdus if hdu.is_image}


@pytest.fixture
def judged(sky_store: Store, run: InProcess) -> Store:
    """A store with an illumination correction that means nothing there, and that was judged good."""
    made = run("illumination", "-q", "--most-error-mag", "0.5", *run("query", "sources").lines)
    assert made.code == 0, made.err
    with open_fits(Path(made.lines[0])) as fits:
        assert np.ptp(fits.table(1)["VALUE_MAG"]) > 1e-3
    assert run("judge", "-q", made.lines[0], "good", "--reason", "a test").code == 0
    return sky_store


def inputs_of(path: str, role: str) -> list[dict[str, Any]]:
    record = json.loads(Path(f"{path}.json").read_text())
    return [one for one in record["recipe"]["inputs"] if one["role"] == role]


def test_one_product_serves_all_detectors_for_its_month(sky_store: Store, run: InProcess) -> None:
    (path,) = sky_store.root.glob("illumination/*/*.fits")
    record = json.loads(Path(f"{path}.json").read_text())
    assert "detector" not in record["meta"] and record["meta"]["filter"] == "R"
    start, end = (record["validity"][one][:10] for one in ("start", "end"))
    assert (np.datetime64(end) - np.datetime64(start)).astype(int) == 61
    with open_fits(path) as fits:
        assert set(fits.table(1)["DETECTOR"].tolist()) == {b"sim1", b"sim2"} or set(
            fits.table(1)["DETECTOR"].tolist()
        ) == {"sim1", "sim2"}


def test_a_flagged_one_is_not_used_and_a_named_one_is_refused(sky_store: Store, run: InProcess) -> None:
    frame, path = one_of(sky_store, "reduced"), one_of(sky_store, "illumination")
    assert run("regrid", "-q", "-o", "r.fits", frame).code == 0
    assert not inputs_of("r.fits", "illumination")
    refused = run("regrid", "-q", "--illumination", path, "-o", "r.fits", frame)
    assert refused.code == 5 and "flagged" in refused.err
    assert run("regrid", "-q", "--illumination", path, "--accept-flags", "-o", "s.fits", frame).code == 0
    assert len(inputs_of("s.fits", "illumination")) == 1


@pytest.mark.parametrize(
    ("command", "kind"),
    [("regrid", "reduced"), ("coadd", "reduced"), ("zeropoint", "sources"), ("gphot", "sources")],
)
def test_what_is_good_is_used_unasked_and_is_on_record(
    command: str, kind: str, judged: Store, run: InProcess
) -> None:
    given: Sequence[str] = run("query", kind).lines
    given = given if command in ("coadd", "gphot") else given[:1]
    more = ("--alone",) if command == "gphot" else ()
    for name, wish in (("with.fits", ()), ("without.fits", ("--no-illumination",))):
        ran = run(command, "-q", *more, *wish, "-o", name, *given)
        assert ran.code == 0, ran.err
    (used,) = inputs_of("with.fits", "illumination")
    assert used["question"]["match"]["filter"] == "R" and "detector" not in used["question"]["match"]
    assert not inputs_of("without.fits", "illumination")
    assert "illumination" in run("lineage", "with.fits").out
    assert run(command, "--check", *more, "-o", "with.fits", *given).code == 0
    assert run(command, "--check", *more, "-o", "without.fits", *given).code == 3


def test_the_pixel_story_tells_the_factor_and_makes_the_pixel_again(judged: Store, run: InProcess) -> None:
    frames_there = run("query", "reduced").lines
    for command, files in (("regrid", frames_there[:1]), ("coadd", frames_there)):
        for background in ("subtract", "leave"):
            ran = run(command, "-q", "--background", background, "-o", "made.fits", *files)
            assert ran.code == 0, ran.err
            weight = planes_of("made.fits")["WEIGHT"]
            y, x = (int(one[len(one) // 3]) for one in np.nonzero(weight > 0))
            ran = run("lineage", "--json", "--at", f"{x + 1},{y + 1}", "made.fits")
            line = json.loads(ran.lines[0])
            assert line["check"]["value"] == line["check"]["in_file"]
            parts = [one for one in line["parents"] if one["role"] == "reduced"]
            assert all(0.9 < one["placed"]["illumination"] < 1.1 for one in parts)
            assert any(abs(one["placed"]["illumination"] - 1) > 1e-5 for one in parts)
            assert "x illumination" in run("lineage", "--at", f"{x + 1},{y + 1}", "made.fits").out
            header, *rows = run("lineage", "--format", "tsv", "--at", f"{x + 1},{y + 1}", "made.fits").lines
            assert header.split("\t")[-1] == "illumination"
            assert all(len(one.split("\t")) == len(header.split("\t")) for one in rows)


def test_target_processing_takes_one_that_is_there_and_makes_none(judged: Store, run: InProcess) -> None:
    before = sorted(judged.root.glob("illumination/*/*.fits"))
    ran = run("make", "-q", "sourcelist")
    assert ran.code == 0, ran.err
    assert sorted(judged.root.glob("illumination/*/*.fits")) == before
    assert all(inputs_of(one, "illumination") for one in ran.lines)
    told = run("why", ran.lines[0])
    assert any("illumination" in line and "chosen" in line for line in told.lines)
    assert run("make", "-q", "sourcelist").code == 0
    # Nothing is out of date then.
    assert run("make", "--check", "sourcelist").code == 0


def test_what_it_is_made_with_is_out_of_date_when_it_is_judged_bad(judged: Store, run: InProcess) -> None:
    frame = one_of(judged, "reduced")
    assert run("regrid", "-q", "-o", "r.fits", frame).code == 0
    used = inputs_of("r.fits", "illumination")[0]["path"]
    assert run("judge", "-q", used, "bad", "--reason", "a test").code == 0
    ran = run("regrid", "--why", "-o", "r.fits", frame)
    assert "illumination" in ran.out + ran.err
    assert run("regrid", "--check", "-o", "r.fits", frame).code == 3


def test_it_is_made_again_to_the_bit(sky_store: Store, run: InProcess) -> None:
    sources = run("query", "sources").lines
    for name, order in (("a.fits", sources), ("b.fits", sources[::-1])):
        assert run("illumination", "-q", "-o", name, *order).code == 0
    assert Path("a.fits").read_bytes() == Path("b.fits").read_bytes()
    assert run("illumination", "--check", "-o", "a.fits", *sources).code == 0
