"""The kind `zeropoint`: the truth within its errors, the band it is in, and a reason where there is none."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from awetools.core.errors import AweError, BadHeader, BadValue, NoMatch, NoSolution, UnknownName
from awetools.core.frame import Table
from awetools.core.kind import Result
from awetools.core.kinds.gphot import GphotParams, make_gphot
from awetools.core.kinds.zeropoint import SATURATED as SATURATED_BIT
from awetools.core.kinds.zeropoint import SPOILED, ZEROPOINT, ZeropointParams, make_zeropoint
from awetools.core.pixels.sources import Flag
from awetools.core.products import open_product
from awetools.core.sky.refcat import Catalogue
from awetools.core.store import Store
from tests.photometry_frames import EXPTIME_S, SATURATED, SKY, changed, seen, solution, stars, system
from tests.support import InProcess, awe_here

WCS = system()
ASTROM = solution(WCS)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    return SKY.catalogue(tmp_path_factory.mktemp("refcat"))


def made(sources: Table, catalogue: Catalogue | None, gphot: Table | None = None, **params: Any) -> Result:
    return make_zeropoint(sources, ASTROM, gphot, catalogue, params=ZeropointParams(**params))


def table_of(result: Result) -> dict[str, np.ndarray]:
    assert result.table is not None
    return dict(result.table)


def common(*lists: Table, catalogue: Catalogue | None = None) -> Table:
    """A common solution of lists that have the coordinate system of all."""
    astroms = [solution(WCS, **{name: one.meta[name] for name in ("detector", "exposure")}) for one in lists]
    return Table(table_of(make_gphot(lists, astroms, catalogue, params=GphotParams())), {})


# The recipe


def test_the_zero_point_is_true_within_its_error(catalogue: Catalogue) -> None:
    pulls = []
    for seed in range(30):
        result = made(seen(SKY, WCS, 24.7, seed, flat_error=0.02), catalogue)
        error = result.measures["zeropoint_error_mag"]
        assert error is not None
        pulls.append((result.meta["zeropoint_mag"] - 24.7) / error)
    assert abs(np.mean(pulls)) < 0.7 and 0.7 < np.std(pulls) < 1.4


def test_the_table_has_the_stars_and_the_product_its_band(catalogue: Catalogue) -> None:
    sources = seen(SKY, WCS, 24.7, flat_error=0.02)
    result = made(sources, catalogue)
    table = table_of(result)
    assert set(result.measures) == {one.name for one in ZEROPOINT.measures}
    assert result.meta["zeropoint_band"] == "Johnson-Cousins R (Vega)" == result.used["band"]
    rows = np.searchsorted(sources.columns["NUMBER"], table["NUMBER"])
    np.testing.assert_array_equal(table["X_PX"], sources.columns["X_WIN_PX"][rows])
    flux = sources.columns["FLUX_AUTO_ADU"][rows]
    expected = result.meta["zeropoint_mag"] - 2.5 * np.log10(flux / EXPTIME_S)
    np.testing.assert_allclose(table["MAG"], expected, atol=2e-6)
    used = table["USED"] == 1
    np.testing.assert_allclose(
        table["RESIDUAL_MAG"][used], (table["MAG_REF"] - table["MAG"])[used], atol=1e-5
    )
    assert used.sum() == result.measures["stars"]
    assert result.measures["rms_mag"] == pytest.approx(np.std(table["RESIDUAL_MAG"][used]), rel=0.05)
    assert result.measures["aperture_correction_mag"] == pytest.approx(2.5 * np.log10(0.9), abs=1e-3)


@settings(max_examples=25)
@given(factor=st.floats(1e-6, 1e6), exptime_s=st.floats(1e-3, 1e5))
def test_counts_in_other_units_shift_it_and_nothing_else(
    factor: float, exptime_s: float, catalogue: Catalogue
) -> None:
    plain = made(seen(SKY, WCS), catalogue)
    sources = seen(SKY, WCS)
    scaled = {
        name: column * factor if name.startswith("FLUX_") else column
        for name, column in sources.columns.items()
    }
    result = made(Table(scaled, {**sources.meta, "exptime_s": exptime_s}), catalogue)
    shift = 2.5 * np.log10(factor * EXPTIME_S / exptime_s)
    assert result.meta["zeropoint_mag"] == pytest.approx(plain.meta["zeropoint_mag"] + shift, abs=3e-6)
    assert result.measures["stars"] == plain.measures["stars"]
    assert result.measures["depth_mag"] == pytest.approx(plain.measures["depth_mag"], abs=1e-5)


def test_saturated_and_spoiled_stars_and_galaxies_do_not_count(catalogue: Catalogue) -> None:
    sources = seen(SKY, WCS)
    bright = np.argsort(-sources.columns["FLUX_AUTO_ADU"])
    flux, flags = sources.columns["FLUX_AUTO_ADU"].copy(), sources.columns["FLAGS"].copy()
    looks = sources.columns["STAR"].copy()
    flux[bright[:30]] *= 0.5
    flags[bright[:10]], flags[bright[10:20]], looks[bright[20:30]] = SATURATED, Flag.BLENDED, 0.0
    result = made(changed(sources, FLUX_AUTO_ADU=flux, FLAGS=flags, STAR=looks), catalogue)
    assert result.meta["zeropoint_mag"] == pytest.approx(25.0, abs=0.01)
    plain = made(sources, catalogue).measures["unusable"]
    assert plain is not None and result.measures["unusable"] == plain + 30


def test_the_bits_are_those_of_the_sources() -> None:
    spoiled = (
        Flag.CROWDED | Flag.BLENDED | Flag.SATURATED | Flag.EDGE | Flag.INCOMPLETE | Flag.MASKED | Flag.SHARP
    )
    assert spoiled == SPOILED and Flag.SATURATED == SATURATED_BIT


def test_one_star_is_enough_and_says_that_it_is_one(catalogue: Catalogue) -> None:
    sources = seen(SKY, WCS, 24.7)
    star = [int(np.argmax(sources.columns["FLUX_AUTO_ADU"]))]
    one = Table({name: column[star] for name, column in sources.columns.items()}, sources.meta)
    result = made(one, catalogue)
    error = result.measures["zeropoint_error_mag"]
    assert result.measures["stars"] == 1 and error is not None and error >= 0.1
    assert abs(result.meta["zeropoint_mag"] - 24.7) < 0.1


@pytest.mark.parametrize(
    ("columns", "meta", "error", "says"),
    [
        ({}, {"exptime_s": None}, BadHeader, "e1: the exposure time is None"),
        ({}, {"exptime_s": 0.0}, BadHeader, "the exposure time is 0"),
        ({}, {"filter": "Clear"}, NoSolution, "filter 'Clear': which band"),
        ({}, {"filter": "V"}, NoSolution, "no magnitudes for Johnson-Cousins V; it has R"),
        ({"FLAGS": SATURATED}, {}, NoSolution, "saturated"),
        ({"FLUX_AUTO_ADU": np.nan}, {}, NoSolution, "without a flux"),
        ({"STAR": 0.0}, {}, NoSolution, "not usable"),
        ({"FLUX_AUTO_ERROR_ADU": 1e9}, {}, NoSolution, "signal-to-noise"),
    ],
)
def test_what_has_no_zero_point_says_why(
    catalogue: Catalogue,
    columns: dict[str, float],
    meta: dict[str, Any],
    error: type[AweError],
    says: str,
) -> None:
    sources = seen(SKY, WCS)
    columns_of_all = {name: np.full_like(sources.columns[name], value) for name, value in columns.items()}
    bad = Table({**sources.columns, **columns_of_all}, {**sources.meta, **meta})
    with pytest.raises(error, match=says):
        made(bad, catalogue)


def test_catalogues_that_do_not_help(tmp_path: Path, catalogue: Catalogue) -> None:
    sources = seen(SKY, WCS)
    with pytest.raises(NoSolution, match="no magnitudes at all"):
        made(sources, SKY.catalogue(tmp_path, bands=()))
    far = stars(seed=9, ra=30.0).catalogue(tmp_path)
    with pytest.raises(NoSolution, match="no star of the frame is matched"):
        made(sources, far)
    with pytest.raises(NoMatch, match="no catalogue, and no common solution"):
        made(sources, None)
    with pytest.raises(UnknownName, match="no band 'Q'"):
        made(sources, catalogue, band="Q")
    with pytest.raises(NoMatch, match="d1 in e1: there is no astrometric solution"):
        make_zeropoint(sources, None, None, catalogue, params=ZeropointParams())


def test_what_is_asked_for_is_done_or_refused(tmp_path: Path, catalogue: Catalogue) -> None:
    sources = seen(SKY, WCS)
    with pytest.raises(BadValue, match="has no colours"):
        made(sources, catalogue, colour="fit")
    with pytest.raises(BadValue, match="colour = none"):
        made(sources, catalogue, colour_term=0.1)
    above = made(sources, catalogue, extinction_mag=0.1)
    assert above.measures["above_atmosphere_mag"] == pytest.approx(above.meta["zeropoint_mag"] + 0.12)
    coloured = SKY.catalogue(tmp_path, ("R", "V"), mag_V=SKY.mag + np.linspace(0.2, 1.2, len(SKY.mag)))
    term = made(sources, coloured, colour="fit").measures
    error = term["colour_coefficient_error"]
    assert error is not None and abs(term["colour_coefficient"] or 9) < 4 * error < 0.1
    given = made(sources, coloured, colour="given", colour_term=0.3).measures
    assert given["colour_coefficient"] == 0.3 and (given["rms_mag"] or 0) > 0.05


def test_the_zero_point_of_a_common_solution(catalogue: Catalogue) -> None:
    first = seen(SKY, WCS, 24.7)
    second = seen(SKY, WCS, 24.5, seed=2, exposure="e2")
    solved = common(first, second, catalogue=catalogue)
    result = made(second, None, solved, extinction_mag=0.1)
    assert result.meta["zeropoint_mag"] == pytest.approx(24.5, abs=0.01)
    assert result.meta["zeropoint_band"] == "Johnson-Cousins R (Vega)"
    above = result.measures["above_atmosphere_mag"]
    assert above == pytest.approx(result.meta["zeropoint_mag"] + 0.12)
    assert set(result.measures) == {one.name for one in ZEROPOINT.measures}
    for asked in ({"band": "V"}, {"colour": "fit"}):
        with pytest.raises(BadValue, match="common solution"):
            made(second, None, solved, **asked)
    third = seen(SKY, WCS, 24.5, exposure="e3")
    with pytest.raises(NoMatch, match="no frame of d1 in e3"):
        made(third, None, solved)


def test_a_relative_zero_point_says_that_it_is_one() -> None:
    first, second = seen(SKY, WCS, 24.7), seen(SKY, WCS, 24.5, seed=2, exposure="e2")
    flags = first.columns["FLAGS"].copy()
    flags[:5] = SATURATED
    first = changed(first, FLAGS=flags)
    result = made(first, None, common(first, second))
    assert result.meta["zeropoint_mag"] == pytest.approx(0.1, abs=0.01)
    assert result.meta["zeropoint_band"] is None and "relative" in result.used["band"]
    assert not set(range(1, 6)) & set(table_of(result)["NUMBER"].tolist())


# The program, on a simulated night


def test_zero_points_of_a_night_are_true(sky_store: Store, sky_night: Path, run: InProcess) -> None:
    with (sky_night / "frames.csv").open() as lines:
        truth = {
            (row["detector"], row["start_utc"]): float(row["zero_point_mag"])
            for row in csv.DictReader(lines)
            if row["zero_point_mag"]
        }
    sources = awe_here("query", "sources", cwd=sky_store.root)
    off: dict[str, list[float]] = {}
    errors: dict[str, list[float]] = {}
    for choice in ((), ("--no-gphot",)):
        ran = run("zeropoint", "-q", *choice, *sources)
        assert ran.code == 0, ran.err
        for path in ran.lines:
            record = open_product(Path(path)).record
            meta, measures = record["meta"], record["quality"]["measures"]
            away = meta["zeropoint_mag"] - truth[meta["detector"], meta["obs_start"]]
            off.setdefault(f"{meta['detector']} {choice}", []).append(away)
            # The light outside the Kron aperture.
            assert -0.06 < away < 0.0
            errors.setdefault(f"{meta['detector']} {choice}", []).append(measures["zeropoint_error_mag"])
            assert fits.getheader(path)["PHOT_C"] == pytest.approx(meta["zeropoint_mag"], abs=1e-5)
    for name, values in off.items():
        assert np.ptp(values) < 3 * np.linalg.norm(errors[name]) < 0.1


def test_what_is_made_is_not_made_again(sky_store: Store, run: InProcess) -> None:
    sources = awe_here("query", "sources", cwd=sky_store.root)
    first = run("zeropoint", "--json", "--no-gphot", *sources)
    assert first.code == 0, first.err
    assert [json.loads(line)["action"] for line in first.lines] == ["made"] * len(sources)
    again = run("zeropoint", "--json", "-u", "--no-gphot", *sources)
    assert [json.loads(line)["action"] for line in again.lines] == ["up-to-date"] * len(sources)
    assert run("zeropoint", "--check", "--no-gphot", *sources).code == 0
    path = json.loads(first.lines[0])["path"]
    tree = run("lineage", path)
    assert tree.code == 0 and "refcat" in tree.out and "gphot" not in tree.out
    asked = run(
        "query", "zeropoint", "rms_mag < 1", "not gphot", "--get", "path,zeropoint_mag,zeropoint_band"
    )
    assert asked.code == 0, asked.err
    assert len(asked.lines) >= len(sources) and "Johnson-Cousins R (Vega)" in asked.lines[-1]


def test_a_frame_of_no_known_filter_asks_for_a_band(sky_store: Store, run: InProcess) -> None:
    source = awe_here("query", "sources", cwd=sky_store.root)[0]
    ran = run("zeropoint", "--no-gphot", "--band", "I", source)
    assert ran.code == 6 and "it has R" in ran.err and "--band" in ran.err
    ran = run("zeropoint", "--no-gphot", "--no-astrom", source)
    assert ran.code == 5 and "no astrometric solution" in ran.err
