"""The kind `sourcelist`: positions, angles and magnitudes on the sky, and names that stay the same for good."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from awetools.core.errors import BadHeader, NoMatch
from awetools.core.frame import Table
from awetools.core.indexing.index import rebuild
from awetools.core.kind import Result
from awetools.core.kinds.sourcelist import SLID_BITS, SOURCELIST, SourcelistParams, make_sourcelist
from awetools.core.products import open_product
from awetools.core.sky.wcs import Wcs
from awetools.core.store import Store, init_store
from tests.photometry_frames import (
    META,
    SCALE,
    SIZE,
    SKY,
    changed,
    listed,
    seen,
    solution,
    system,
)
from tests.support import InProcess, awe_here, data_path, program

Columns = dict[str, np.ndarray]


def zeropoint(mag: float = 25.0, band: str | None = "R") -> Table:
    return Table({}, {**META, "zeropoint_mag": mag, "zeropoint_band": band})


def made(sources: Table, wcs: Wcs | None = None, zero: Table | None = None) -> Result:
    return make_sourcelist(sources, solution(wcs or system()), zero, params=SourcelistParams())


def table_of(result: Result) -> Columns:
    assert result.table is not None
    return dict(result.table)


def grid(number: int = 5) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.meshgrid(*(np.linspace(20.5, SIZE - 20.5, number),) * 2)
    return x.ravel(), y.ravel()


def plain(**meta: Any) -> Table:
    x, y = grid()
    return listed(x, y, np.full(len(x), 1000.0), np.full(len(x), 10.0), **meta)


# Positions, errors, lengths, angles


@settings(max_examples=40)
@given(
    turn=st.floats(0, 360),
    ra=st.sampled_from([0.0, 0.001, 120.0, 359.999]),
    dec=st.sampled_from([-89.95, -60.0, 0.0, 45.0, 89.95]),
    theta=st.floats(-90, 90),
    mirrored=st.booleans(),
)
def test_angles_are_from_north_through_east(
    turn: float, ra: float, dec: float, theta: float, mirrored: bool
) -> None:
    wcs = system(turn, ra, dec, mirrored)
    sources = plain()
    thetas = np.full(len(sources.columns["FLAGS"]), theta, np.float32)
    table = table_of(made(changed(sources, THETA_WIN_DEG=thetas), wcs))
    x, y = sources.columns["X_WIN_PX"], sources.columns["Y_WIN_PX"]
    along = np.radians(theta)
    here, there = (
        SkyCoord(*wcs.to_sky(x + k * np.cos(along), y + k * np.sin(along)), unit="deg") for k in (0.0, 1.0)
    )
    angle = here.position_angle(there).deg
    away = (table["THETA_SKY_DEG"] - angle + 90) % 180 - 90
    assert np.abs(away).max() < 0.6 and np.median(np.abs(away)) < 0.3
    np.testing.assert_allclose(table["A_ARCSEC"], 2 * here.separation(there).arcsec, rtol=1e-3)
    np.testing.assert_allclose(table["FWHM_ARCSEC"], 3 * SCALE, rtol=1e-3)


@settings(max_examples=20)
@given(turn=st.floats(0, 360), dec=st.sampled_from([-70.0, 0.0, 30.0, 89.9]))
def test_errors_are_those_of_the_pixels_on_the_sky(turn: float, dec: float) -> None:
    wcs, sources = system(turn, dec=dec), plain()
    table = table_of(made(sources, wcs))
    ellipse = np.array([[0.04**2, 0.0004], [0.0004, 0.03**2]])
    determinant = SCALE**4 * np.linalg.det(ellipse)
    east, north = (table[f"{axis}_ERROR_ARCSEC"].astype(float) for axis in ("RA", "DEC"))
    both = table["RA_DEC_COVARIANCE_ARCSEC2"].astype(float)
    np.testing.assert_allclose(east**2 + north**2, SCALE**2 * np.trace(ellipse), rtol=2e-3)
    np.testing.assert_allclose(east**2 * north**2 - both**2, determinant, rtol=5e-3)


def test_positions_scatter_as_their_errors_say() -> None:
    random = np.random.default_rng(2)
    x, y = random.uniform(1, SIZE, (2, 4000))
    wcs = system(35.0, dec=60.0)
    covariance = [[0.04**2, 0.0004], [0.0004, 0.03**2]]
    dx, dy = random.multivariate_normal([0, 0], covariance, len(x)).T
    table = table_of(made(listed(x + dx, y + dy, np.ones(len(x)), np.ones(len(x))), wcs))
    true, found = (
        SkyCoord(*wcs.to_sky(x, y), unit="deg"),
        SkyCoord(table["RA_DEG"], table["DEC_DEG"], unit="deg"),
    )
    off = [one.to(units.arcsec).value for one in true.spherical_offsets_to(found)]
    pulls = [one / table[f"{axis}_ERROR_ARCSEC"] for one, axis in zip(off, ("RA", "DEC"), strict=True)]
    assert np.std(pulls, axis=1) == pytest.approx(1.0, abs=0.05)
    assert np.mean(off[0] * off[1]) == pytest.approx(np.mean(table["RA_DEC_COVARIANCE_ARCSEC2"]), rel=0.2)


# Magnitudes


def test_magnitudes_are_those_of_the_stars() -> None:
    sources = seen(SKY, system(), 24.6)
    table = table_of(made(sources, zero=zeropoint(24.6)))
    place, away, _ = SkyCoord(table["RA_DEG"], table["DEC_DEG"], unit="deg").match_to_catalog_sky(
        SkyCoord(SKY.ra, SKY.dec, unit="deg")
    )
    assert away.arcsec.max() < 0.2
    pulls = (table["MAG_AUTO"] - SKY.mag[place]) / table["MAG_AUTO_ERROR"]
    assert abs(np.mean(pulls)) < 0.4 and np.std(pulls) == pytest.approx(1, abs=0.2)
    assert table["MAG_APERTURE"].shape == (len(place), 1)
    np.testing.assert_allclose(
        table["MAG_APERTURE"][:, 0] - table["MAG_AUTO"], -2.5 * np.log10(0.9), atol=1e-4
    )


def test_what_has_no_magnitude_has_none() -> None:
    sources = plain()
    flux = sources.columns["FLUX_AUTO_ADU"].copy()
    flux[:2] = 0.0, -5.0
    table = table_of(made(changed(sources, FLUX_AUTO_ADU=flux), zero=zeropoint()))
    assert np.isnan(table["MAG_AUTO"][:2]).all() and np.isfinite(table["MAG_AUTO"][2:]).all()
    assert np.isfinite(table["MAG_PETROSIAN"]).all()
    result = made(sources)
    assert np.isnan(table_of(result)["MAG_AUTO"]).all()
    assert np.isfinite(table_of(result)["MAG_AUTO_ERROR"]).all()
    assert result.measures["depth_mag"] is None and result.meta["zeropoint_mag"] is None
    assert result.used == {"zeropoint": "there is none: magnitudes are nan"}
    relative = made(sources, zero=zeropoint(0.1, None))
    assert "relative" in relative.used["band"] and relative.meta["zeropoint_band"] is None
    assert made(sources, zero=zeropoint()).used == {}


def test_what_is_missing_is_named() -> None:
    with pytest.raises(BadHeader, match="e1: the exposure time is None"):
        made(plain(exptime_s=None))
    with pytest.raises(NoMatch, match="d1 in e1: there is no astrometric solution"):
        make_sourcelist(plain(), None, params=SourcelistParams())
    with pytest.raises(BadHeader, match="d1 in e1: the astrometric solution has no WCS"):
        make_sourcelist(plain(), Table({}, META), params=SourcelistParams())


def test_what_is_said_of_the_list() -> None:
    result = made(seen(SKY, system(), 24.6), zero=zeropoint(24.6))
    table = table_of(result)
    assert set(result.measures) == {one.name for one in SOURCELIST.measures}
    assert result.measures["sources"] == result.measures["stars"] == len(table["SID"])
    assert result.measures["fwhm_arcsec"] == pytest.approx(3 * SCALE, rel=1e-3)
    assert set(result.units) <= set(table)
    assert result.units["RA_DEC_COVARIANCE_ARCSEC2"] == "arcsec2" and result.units["MAG_AUTO_ERROR"] == "mag"


# Names


def test_a_list_has_one_name_on_any_machine_and_no_other_has_it() -> None:
    sources, zero = plain(), zeropoint()
    slid = made(sources, zero=zero).meta["slid"]
    assert 0 < slid < 2**SLID_BITS and set(table_of(made(sources, zero=zero))["SLID"]) == {slid}
    swapped = {
        name: column.astype(column.dtype.newbyteorder(">")) for name, column in sources.columns.items()
    }
    assert made(Table(swapped, sources.meta), zero=zero).meta["slid"] == slid
    shuffled = dict(sorted(sources.meta.items(), key=lambda one: one[0][::-1]))
    assert made(Table(sources.columns, shuffled), zero=zero).meta["slid"] == slid
    moved = changed(sources, X_WIN_PX=sources.columns["X_WIN_PX"] + 1e-9)
    others = [
        made(sources, zero=zeropoint(25.000001)),
        made(sources),
        made(sources, system(1e-6), zero=zero),
        made(moved, zero=zero),
        *(
            made(plain(**{name: "other"}), zero=zero)
            for name in ("instrument", "detector", "exposure", "filter")
        ),
    ]
    assert len({slid, *(one.meta["slid"] for one in others)}) == 1 + len(others)


def test_numbers_are_those_of_the_sources() -> None:
    sources = plain()
    numbers = np.arange(len(sources.columns["FLAGS"]), 0, -1)
    table = table_of(made(changed(sources, NUMBER=numbers)))
    assert table["SID"].tolist() == numbers.tolist()


def test_an_empty_list_stays_one() -> None:
    sources = plain()
    nothing = Table({name: column[:0] for name, column in sources.columns.items()}, sources.meta)
    result = made(nothing, zero=zeropoint())
    assert result.measures["sources"] == 0 and result.measures["fwhm_arcsec"] is None
    assert all(len(column) == 0 for column in table_of(result).values())


# The program, on a simulated night


def test_a_list_keeps_its_name_in_another_store(sky_store: Store, tmp_path: Path, run: InProcess) -> None:
    """The name does not depend on where things lie, in which order they are made, or by which process."""
    names = {}
    for path in awe_here("query", "sourcelist", cwd=sky_store.root):
        meta = open_product(Path(path)).record["meta"]
        names[meta["detector"], meta["exposure"]] = meta["slid"]
    assert len(set(names.values())) == len(names) == 4
    other = tmp_path / "elsewhere" / "other"
    shutil.copytree(sky_store.root, other, copy_function=shutil.copy2)
    for path in (other / "sourcelist").rglob("*.fits*"):
        path.unlink()
    rebuild(Store(other.resolve()))
    sources = awe_here("query", "sources", cwd=other)[::-1]
    ran = program("sourcelist", "-q", "-j2", *sources, cwd=other)
    assert ran.code == 0, ran.err
    for path in ran.lines:
        meta = open_product(Path(path)).record["meta"]
        assert names[meta["detector"], meta["exposure"]] == meta["slid"]
        rows = fits.getdata(path, 1)
        assert set(rows["SLID"]) == {meta["slid"]} and fits.getheader(path, 1)["TTYPE1"] == "SLID"


def test_names_are_exact_in_every_form(sky_store: Store, run: InProcess) -> None:
    path = awe_here("query", "sourcelist", cwd=sky_store.root)[0]
    slid = open_product(Path(path)).record["meta"]["slid"]
    for form, ending in (("csv", "csv"), ("votable", "vot")):
        assert run("export", "-q", "--to", form, path, "-o", f"list.{ending}").code == 0
        assert str(slid) in Path(f"list.{ending}").read_text()
    asked = run("query", "sourcelist", f"slid={slid}", "--json", "--get", "path,slid")
    assert asked.code == 0, asked.err
    assert [json.loads(line)["slid"] for line in asked.lines] == [slid]
    assert int(float(str(slid))) == slid
    assert run("query", "sourcelist", f"slid={slid + 1}").code == 5


def test_what_a_list_is_made_of_can_be_asked(sky_store: Store, run: InProcess) -> None:
    path = awe_here("query", "sourcelist", cwd=sky_store.root)[0]
    tree = run("lineage", path)
    assert tree.code == 0
    assert all(
        kind in tree.out for kind in ("sources", "astrom", "zeropoint", "gphot", "gastrom", "raw_science")
    )
    fields = "path,zeropoint_mag,zeropoint_band,zeropoint.gphot.rms_mag,astrom.gastrom.internal_rms_arcsec"
    asked = run("query", "sourcelist", "zeropoint.gphot.rms_mag < 1", "--json", "--get", fields)
    assert asked.code == 0, asked.err
    assert len(asked.lines) == 4 and json.loads(asked.lines[0])["zeropoint.gphot.rms_mag"] > 0


def test_without_a_zero_point_and_again(sky_store: Store, run: InProcess) -> None:
    sources = awe_here("query", "sources", cwd=sky_store.root)
    again = run("sourcelist", "-u", "--json", *sources)
    assert [json.loads(line)["action"] for line in again.lines] == ["up-to-date"] * 4
    without = run("sourcelist", "--no-zeropoint", "-o", "none.fits", sources[0])
    assert without.code == 0 and "magnitudes are nan" in without.err
    assert np.isnan(fits.getdata("none.fits", 1)["MAG_AUTO"]).all()
    ran = run("sourcelist", "--no-astrom", "-o", "header.fits", sources[0])
    assert ran.code == 0 and "the header's WCS is taken as it is" in ran.err
    assert "astrom" in open_product(Path("header.fits")).record["recipe"]["without"]


def test_lists_are_true_to_the_sky(sky_store: Store, sky_night: Path) -> None:
    truth = fits.getdata(sky_night / "truth" / "catalog.fits", 1)
    truth = truth[truth["TYPE"] == "STAR"]
    places = SkyCoord(truth["RA"], truth["DEC"], unit="deg")
    pulls, off = [], []
    for path in awe_here("query", "sourcelist", cwd=sky_store.root):
        rows = fits.getdata(path, 1)
        rows = rows[(rows["FLAGS"] == 0) & (rows["STAR"] > 0.5) & (rows["MAG_AUTO_ERROR"] < 0.1)]
        here = SkyCoord(rows["RA_DEG"], rows["DEC_DEG"], unit="deg")
        place, away, _ = here.match_to_catalog_sky(places)
        near = away.arcsec < 0.5
        east, north = (one.to(units.arcsec).value[near] for one in places[place].spherical_offsets_to(here))
        pulls += [*(east / rows["RA_ERROR_ARCSEC"][near]), *(north / rows["DEC_ERROR_ARCSEC"][near])]
        off += list((rows["MAG_AUTO"] - truth["MAG_R"][place])[near])
        assert near.mean() > 0.9
    # The field is full of neighbours, and the solution has errors too.
    assert len(off) > 50 and 0.7 < 1.4826 * np.median(np.abs(pulls)) < 1.6
    assert abs(np.median(off)) < 0.03


def test_it_is_made_for_the_asking(source_store: Store, sky_night: Path, run: InProcess) -> None:
    assert run("refcat", "import", "-q", "truth", sky_night / "reference.fits").code == 0
    ran = run("make", "-q", "sourcelist", "detector=sim1")
    assert ran.code == 0, ran.err
    records = [
        open_product(Path(path)).record for path in awe_here("query", "sourcelist", cwd=source_store.root)
    ]
    assert len(records) == 2
    for record in records:
        assert record["meta"]["zeropoint_mag"] > 20
        assert {one["role"] for one in record["recipe"]["inputs"]} == {"sources", "astrom", "zeropoint"}


def test_an_imported_list_without_a_solution_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: InProcess
) -> None:
    store = init_store(tmp_path / "store")
    monkeypatch.chdir(store.root)
    rows = {"X_IMAGE": np.arange(1.0, 9), "Y_IMAGE": np.arange(1.0, 9), "FLUX_AUTO": np.ones(8)}
    columns = [fits.Column(name, "D", array=column) for name, column in rows.items()]
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)]).writeto("t.fits")
    imported = run("import_", "-q", "--as", "sources", "t.fits")
    assert imported.code == 0, imported.err
    ran = run("sourcelist", *imported.lines)
    assert ran.code == 5 and "astrom" in ran.err


def test_a_list_of_another_program_becomes_one_on_the_sky(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: InProcess
) -> None:
    """Las Cumbres' own list of a frame without a filter, solved to Gaia and put into its magnitudes."""
    pair = data_path("refcats/lco-gaia-pair")
    store = init_store(tmp_path / "store")
    monkeypatch.chdir(store.root)
    (table,) = pair.glob("lco-sextractor*")
    (source,) = run("import_", "-q", "--as", "sources", f"{table}[LDAC_OBJECTS]").lines
    assert run("refcat", "import", "-q", "gaia", pair / "gaia-dr2-ldac.cat.gz").code == 0
    assert run("astrom", "-q", source).code == 0
    refused = run("zeropoint", source)
    assert refused.code == 6 and "filter 'w': which band it is" in refused.err and "--band" in refused.err
    zero = run("zeropoint", "-q", "--band", "MAG", source)
    assert zero.code == 0, zero.err
    record = open_product(Path(zero.lines[0])).record
    measures = record["quality"]["measures"]
    assert record["meta"]["zeropoint_mag"] == pytest.approx(23.096, abs=0.02)
    assert measures["stars"] >= 80 and measures["scatter_mag"] < 0.06
    listed_there = run("sourcelist", "-q", source)
    assert listed_there.code == 0, listed_there.err
    rows = fits.getdata(listed_there.lines[0], 1)
    with warnings.catch_warnings():
        # Its formats for display are not of the standard.
        warnings.simplefilter("ignore")
        theirs = fits.getdata(pair / "gaia-dr2-ldac.cat.gz", 2)
    here = SkyCoord(rows["RA_DEG"], rows["DEC_DEG"], unit="deg")
    there = SkyCoord(theirs["XWIN_WORLD"], theirs["YWIN_WORLD"], unit="deg")
    place, away, _ = there.match_to_catalog_sky(here)
    near = away.arcsec < 1
    assert near.sum() > 100 and np.median(away.arcsec[near]) < 0.2
    assert abs(np.nanmedian(rows["MAG_AUTO"][place[near]] - theirs["MAG"][near])) < 0.02
