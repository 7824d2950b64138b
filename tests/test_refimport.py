"""Tables of stars in every form and by every name, imported as reference catalogues."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awetools.core.catalogues import reftables
from awetools.core.catalogues.refimport import Told, import_catalogue
from awetools.core.catalogues.reftables import open_table
from awetools.core.errors import (
    BadValue,
    EmptyInput,
    NoImage,
    NoSuchFile,
    Truncated,
    UnknownName,
    Unreadable,
)
from awetools.core.sky.refcat import SUSPECT, Catalogue, Stars
from awetools.core.sky.sphere import separation_arcsec
from tests.support import data_path


def imported(tmp_path: Path, *tables: Path, told: Told | None = None) -> tuple[Catalogue, Stars]:
    made = import_catalogue(tmp_path / "made", tables, told)
    found = made.cone(0, 0, 180)
    order = np.argsort(found["ra_deg"], kind="stable")
    return made, {name: values[order] for name, values in found.items()}


def text(tmp_path: Path, content: str, name: str = "table.csv") -> Path:
    path = tmp_path / name
    path.write_text(content)
    return path


def one_star(tmp_path: Path, content: str, told: Told | None = None) -> dict[str, float]:
    """The only star of a table, what is known of it."""
    _, found = imported(tmp_path, text(tmp_path, content), told=told)
    assert len(found["ra_deg"]) == 1
    return {name: float(values[0]) for name, values in found.items() if np.isfinite(values[0])}


# Real catalogues

TYCHO = ["dfosc", "egeria", "hatp32", "kalliope", "lco-0m4", "lco-sinistro", "m51", "ngc2500", "ngc3486"]


@pytest.mark.parametrize("field", [*TYCHO, "virgo-cutouts"])
def test_tycho_extracts(tmp_path: Path, field: str) -> None:
    path = data_path(f"refcats/tycho2-{field}.csv")
    made, found = imported(tmp_path, path)
    rows = np.genfromtxt(path, delimiter=",", names=True)
    rows = rows[np.argsort(rows["ra"], kind="stable")]
    np.testing.assert_array_equal(found["ra_deg"], rows["ra"])
    np.testing.assert_array_equal(found["mag_VT"], rows["VT"].astype("f4"))
    assert "no epoch" in made.header["sources"][0]["notes"][0]
    assert np.isnan(found["epoch_yr"]).all() and made.header["without_epoch"] == made.rows


def test_the_gaia_pair(tmp_path: Path) -> None:
    made, found = imported(tmp_path, data_path("refcats/lco-gaia-pair/gaia-dr2-ldac.cat.gz"))
    source = made.header["sources"][0]
    assert (made.rows, source["form"], source["notes"]) == (249, "LDAC", [])
    np.testing.assert_array_equal(found["epoch_yr"], 2015.5)
    at = np.argmin(np.abs(found["ra_deg"] - 219.7937658))
    assert found["ra_error_mas"][at] == pytest.approx(1.5881944e-06 * 3.6e6)
    assert found["mag_MAG"][at] == np.float32(17.8346)


@pytest.mark.parametrize(
    ("name", "rows", "band"),
    [
        ("lco-gaia-pair/lco-sextractor-ldac-219.83-09.77.fits.gz", 974, "ISOCOR"),
        ("lco-sources-157.24+36.52.fits.gz", 319, "APER"),
        ("lco-sources-86.73-27.70.fits.gz", 360, "APER"),
    ],
)
def test_source_lists_of_sextractor(tmp_path: Path, name: str, rows: int, band: str) -> None:
    made, found = imported(tmp_path, data_path(f"refcats/{name}"))
    assert made.rows == rows and made.bands == (band,)
    assert 0.5 < np.nanmedian(found["ra_error_mas"]) < 300


def test_ppmxl(tmp_path: Path) -> None:
    made, found = imported(tmp_path, data_path("refcats/ppmxl-299.59+35.20.csv.gz"))
    assert made.rows == 737 and made.bands == ("J", "H", "K", "B1", "B2", "R1", "R2", "I")
    at = np.argmin(separation_arcsec(found["ra_deg"], found["dec_deg"], 299.846478, 34.964010))
    assert (found["pm_ra_mas_yr"][at], found["pm_dec_mas_yr"][at]) == (np.float32(7.4), np.float32(-11.0))
    # Grown from the mean epoch, 1990.98.
    assert found["ra_error_mas"][at] == pytest.approx(np.hypot(63, 3.6 * 9.02), rel=1e-5)
    assert found["epoch_yr"][at] == 2000 and found["mag_error_H"][at] == np.float32(0.033)
    assert np.isnan(found["mag_B1"]).any()


def test_ucac4(tmp_path: Path) -> None:
    made, found = imported(tmp_path, data_path("refcats/ucac4-299.59+35.20.csv.gz"))
    assert made.rows == 1607
    at = np.argmin(separation_arcsec(found["ra_deg"], found["dec_deg"], 299.3025448, 34.9979392))
    assert found["mag_B"][at] == np.float32(13.364) and found["mag_error_B"][at] == np.float32(0.01)
    assert found["mag_error_J"][at] == np.float32(0.02) and found["mag_UCa"][at] == np.float32(12.626)
    assert np.isnan(found["mag_V"]).sum() > 500


def test_gaia_rows_of_the_cutouts(tmp_path: Path) -> None:
    from astropy.table import Table

    paths = sorted(data_path("legacysurvey-cutouts").glob("*/chunk-*.fits"))
    made, found = imported(tmp_path, *paths)
    tables = [Table.read(path, hdu=1) for path in paths]
    rows = np.concatenate([np.asarray(table["ra"]) for table in tables])
    assert made.rows + made.header["merged"] == len(rows) > 1000
    assert made.header["merged"] == len(rows) - len(np.unique(rows))
    np.testing.assert_array_equal(found["ra_deg"], np.unique(rows))
    np.testing.assert_array_equal(found["epoch_yr"], 2015.5)
    row = tables[0][0]
    at = np.flatnonzero(found["ra_deg"] == row["ra"])[0]
    assert found["pm_ra_mas_yr"][at] == row["pmra"] and found["parallax_mas"][at] == row["parallax"]
    assert found["mag_error_BP"][at] == pytest.approx(
        1.085736 / row["phot_bp_mean_flux_over_error"], rel=1e-5
    )
    assert [source["rows"] for source in made.header["sources"]] == [len(table) for table in tables]


def test_tycho_of_astrometry_net(tmp_path: Path) -> None:
    path = data_path("legacysurvey-cutouts/field-177.36+59.43/tycho2.kd.fits")
    made, _ = imported(tmp_path, path)
    # Its own mean position of the year 2000 is where the motion leads.
    star = made.cone(177.64504278, 58.53568278, 0.001, epoch_yr=2000.0)
    assert separation_arcsec(star["ra_deg"], star["dec_deg"], 177.64511732, 58.53544134)[0] < 0.02
    assert np.isnan(star["mag_Hp"][0]) and star["ra_error_mas"][0] == pytest.approx(
        np.hypot(25.8, 3.2 * 8.22), rel=1e-3
    )


def test_landolt_of_both_equinoxes(tmp_path: Path) -> None:
    new, found = imported(tmp_path, data_path("refcats/iraf-nlandolt.dat"), told=Told(equinox=2000))
    assert new.rows == 526 and new.bands == ("V", "B", "U", "R", "I")
    star = found["mag_V"] == np.float32(14.651)
    assert found["ra_deg"][star][0] == pytest.approx((30 / 60 + 9 / 3600) * 15)
    assert found["mag_U"][star][0] == pytest.approx(14.651 + 0.793 + 0.380, abs=1e-5)
    assert found["mag_I"][star][0] == pytest.approx(14.651 - 0.841, abs=1e-5)
    old = import_catalogue(tmp_path / "old", [data_path("refcats/iraf-landolt.dat")], Told(equinox=1985))
    again = old.cone(0, 0, 180)
    away = separation_arcsec(
        again["ra_deg"][:, None], again["dec_deg"][:, None], found["ra_deg"], found["dec_deg"]
    )
    partner = away.argmin(axis=1)
    same = (np.abs(again["mag_V"] - found["mag_V"][partner]) < 0.03) & (away.min(axis=1) < 120)
    assert same.sum() > 70 and np.median(away.min(axis=1)[same]) < 3
    with pytest.raises(BadValue, match="equinox"):
        import_catalogue(tmp_path / "untold", [data_path("refcats/iraf-landolt.dat")])


@pytest.mark.parametrize("name", ["iraf-porter.dat", "iraf-odewahn.dat"])
def test_tables_without_positions_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Unreadable, match="no column of positions"):
        imported(tmp_path, data_path(f"refcats/{name}"))


# Every form holds the same stars

STARS = {"RA": [10.5, 359.25, 0.125], "DEC": [-90.0, 20.5, 41.0], "Vmag": [12.5, np.nan, 14.0]}
FORMS: dict[str, dict[str, Any]] = {
    "fits": {},
    "fits.gz": {"format": "fits"},
    "vot": {"format": "votable"},
    "binary.vot": {"format": "votable", "tabledata_format": "binary2"},
    "vot.gz": {"format": "votable"},
    "ecsv": {"format": "ascii.ecsv"},
    "comma.ecsv": {"format": "ascii.ecsv", "delimiter": ","},
    "csv": {"format": "ascii.csv"},
    "tsv": {"format": "ascii.tab"},
    "dat": {"format": "ascii.commented_header"},
    "txt": {"format": "ascii.basic", "delimiter": "|"},
}


@pytest.mark.parametrize("ending", FORMS)
def test_forms(tmp_path: Path, ending: str) -> None:
    import astropy.units as u
    from astropy.table import Table

    table = Table(STARS, units={"RA": u.deg, "DEC": u.deg, "Vmag": u.mag})
    plain = tmp_path / f"t.{ending.removesuffix('.gz')}"
    table.write(plain, **({"format": "fits"} if ending == "fits" else FORMS[ending]))
    if ending.endswith(".gz"):
        plain = plain.rename(tmp_path / "plain")
        (tmp_path / f"t.{ending}").write_bytes(gzip.compress(plain.read_bytes()))
    made, found = imported(tmp_path, tmp_path / f"t.{ending}")
    assert found["ra_deg"].tolist() == [0.125, 10.5, 359.25]
    assert found["dec_deg"].tolist() == [41.0, -90.0, 20.5]
    np.testing.assert_array_equal(found["mag_V"], [14, 12.5, np.nan])
    assert made.bands == ("V",)


def test_an_ldac_with_its_header_before_it(tmp_path: Path) -> None:
    from astropy.io import fits

    head = fits.BinTableHDU(
        np.array([("SIMPLE  =   T",)], dtype=[("Field Header Card", "S80")]), name="LDAC_IMHEAD"
    )
    rows = np.array([(10.0, -5.0, 1e-5, 15.0, 2017.5)], dtype=[
        ("X_WORLD", "f8"), ("Y_WORLD", "f8"), ("ERRA_WORLD", "f4"), ("MAG", "f4"), ("OBSDATE", "f8"),
    ])  # fmt: skip
    fits.HDUList([fits.PrimaryHDU(), head, fits.BinTableHDU(rows, name="LDAC_OBJECTS")]).writeto(
        tmp_path / "a.cat"
    )
    made, found = imported(tmp_path, tmp_path / "a.cat")
    assert made.header["sources"][0]["form"] == "LDAC"
    assert (found["epoch_yr"][0], found["mag_MAG"][0]) == (2017.5, 15)
    assert found["ra_error_mas"][0] == pytest.approx(36)


def test_a_head_of_sextractor(tmp_path: Path) -> None:
    lines = ["#   1 NUMBER  Running number", "#   2 ALPHA_J2000  Right ascension  [deg]",
             "#   3 DELTA_J2000  Declination  [deg]", "#   4 MAG_AUTO  Kron magnitude  [mag]",
             "   1  10.5  -20.5  17.5"]  # fmt: skip
    star = one_star(tmp_path, "\n".join(lines) + "\n")
    assert (star["ra_deg"], star["dec_deg"], star["mag_AUTO"]) == (10.5, -20.5, 17.5)


def test_vizier_s_lines_of_units_and_dashes(tmp_path: Path) -> None:
    lines = ["#RESOURCE=yCat_1246", "RAJ2000\tDEJ2000\tpmRA\te_pmRA\tVmag", 'deg\tdeg\tarcsec/yr\tmas/yr\tmag',
             "-------\t-------\t-----\t----\t----", "001.5\t-02.5\t0.250\t3\t 9.9"]  # fmt: skip
    star = one_star(tmp_path, "\n".join(lines) + "\n")
    assert star["pm_ra_mas_yr"] == 250 and star["pm_ra_error_mas_yr"] == 3
    assert star["ra_deg"] == 1.5 and star["mag_V"] == np.float32(9.9)


def test_small_pieces_are_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from astropy.table import Table

    monkeypatch.setattr(reftables, "PIECE_ROWS", 7)
    monkeypatch.setattr(reftables, "TEXT_ROWS", 7)
    rng = np.random.default_rng(2)
    table = Table({"ra": rng.uniform(0, 360, 50), "dec": rng.uniform(-90, 90, 50)})
    table.write(tmp_path / "a.csv")
    table.write(tmp_path / "a.fits")
    for number, name in enumerate(("a.csv", "a.fits")):
        made = import_catalogue(tmp_path / str(number), [tmp_path / name])
        assert made.rows == 50
        np.testing.assert_array_equal(np.sort(made.cone(0, 0, 180)["ra_deg"]), np.sort(table["ra"]))


# Column sets

KNOWN = {
    "Gaia DR3 (VizieR)": (
        "RA_ICRS,DE_ICRS,Source,e_RA_ICRS,e_DE_ICRS,Plx,pmRA,pmDE,RUWE,Gmag,e_Gmag\n10,20,1,0.5,0.25,3,100,-50,1,15,0.01\n",
        {"epoch_yr": 2016, "ra_error_mas": 0.5, "pm_dec_mas_yr": -50, "parallax_mas": 3, "mag_G": 15},
    ),
    "PS1 (MAST)": (
        "objID,raMean,decMean,raMeanErr,decMeanErr,epochMean,gMeanPSFMag,gMeanPSFMagErr,rMeanPSFMag,rMeanPSFMagErr\n"
        "1,10,20,0.010,0.020,56202.5,18.5,0.02,-999,-999\n",
        {"ra_error_mas": 10, "dec_error_mas": 20, "epoch_yr": 2012.752909, "mag_g": 18.5, "mag_error_g": 0.02},
    ),
    "PS1 (VizieR)": (
        "RAJ2000,DEJ2000,e_RAJ2000,e_DEJ2000,Epoch,gmag,e_gmag,zmag,ymag\n10,20,0.01,0.02,56202.5,18.5,0.02,17,16\n",
        {"ra_error_mas": 10, "epoch_yr": 2012.752909, "mag_y": 16},
    ),
    "2MASS (IRSA)": (
        "ra,dec,err_maj,j_m,j_msigcom,h_m,k_m,jdate\n10,20,0.08,12,0.02,11.5,null,2451100.5\n",
        {"ra_error_mas": 80, "epoch_yr": 1998.783025, "mag_J": 12, "mag_error_J": 0.02, "mag_H": 11.5},
    ),
    "2MASS (VizieR)": (
        "RAJ2000;DEJ2000;errMaj;2MASS;Jmag;e_Jmag;Hmag;Kmag;JD\n10;20;0.08;a;12;0.02;11.5;11;2451100.5\n",
        {"ra_error_mas": 80, "epoch_yr": 1998.783025, "mag_K": 11},
    ),
    "Tycho-2 (VizieR)": (
        "TYC1,RAmdeg,DEmdeg,pmRA,pmDE,e_RAmdeg,e_pmRA,EpRAm,BTmag,VTmag\n1,10,20,5,6,20,2,1990,9.5,9\n",
        {"epoch_yr": 2000, "ra_error_mas": np.hypot(20, 20), "mag_VT": 9},
    ),
    "SDSS (psfMag)": (
        "ra,dec,raErr,decErr,mjd,psfMag_u,psfMag_r,psfMagErr_r\n10,20,0.05,0.04,53000,20,18,0.01\n",
        {"ra_error_mas": 50, "epoch_yr": 2003.984942, "mag_u": 20, "mag_error_r": 0.01},
    ),
    "SDSS (CasJobs)": (
        "objid,ra,dec,u,g,r,i,z,err_u\n1,10,20,20,19,18,17.5,17,0.1\n",
        {"mag_i": 17.5, "mag_error_u": 0.1},
    ),
    "Landolt (VizieR)": (
        "Name,RAJ2000,DEJ2000,Vmag,B-V,U-B,V-R,V-I,e_Vmag,e_B-V\n"
        "A,00 40 00,+20 00 00,10,0.5,0.25,0.3,0.6,0.003,0.004\n",
        {"mag_B": 10.5, "mag_U": 10.75, "mag_R": 9.7, "mag_I": 9.4, "mag_error_B": 0.005},
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", KNOWN)
def test_known_sets_of_columns(tmp_path: Path, layout: str) -> None:
    content, expected = KNOWN[layout]
    made, found = imported(tmp_path, text(tmp_path, content))
    assert made.header["sources"][0]["layout"] == layout
    assert (found["ra_deg"][0], found["dec_deg"][0]) == pytest.approx((10, 20))
    for name, value in expected.items():
        assert found[name][0] == pytest.approx(value, rel=5e-6), name
    if layout == "PS1 (MAST)":
        assert np.isnan(found["mag_r"][0]) and np.isnan(found["mag_error_r"][0])


def test_columns_and_units_named_by_a_person(tmp_path: Path) -> None:
    told = Told(
        columns={"ra_deg": "alfa", "dec_deg": "delt", "mag_V": "helder", "pm_ra_mas_yr": "mu"},
        units={"ra_deg": "hours", "pm_ra_mas_yr": "deg/yr"},
        epoch_yr=1987.5,
    )
    star = one_star(tmp_path, "alfa,delt,helder,mu\n1.5,10,12,1e-5\n", told)
    assert star["ra_deg"] == 22.5 and star["epoch_yr"] == 1987.5
    assert (star["mag_V"], star["pm_ra_mas_yr"]) == (12, 36)


def test_a_motion_without_a_unit_is_not_guessed(tmp_path: Path) -> None:
    made, found = imported(tmp_path, text(tmp_path, "ra,dec,pmra,pmdec\n1,2,3,4\n"))
    assert np.isnan(found["pm_ra_mas_yr"]).all()
    assert any("pmra: its unit is not told" in note for note in made.header["sources"][0]["notes"])


def test_a_column_has_one_name(tmp_path: Path) -> None:
    table = text(tmp_path, "X_WORLD,Y_WORLD,MAG\n1,2,3\n")
    made, _ = imported(tmp_path, table, told=Told(columns={"mag_G": "MAG"}))
    assert made.bands == ("G",)


def test_right_ascensions_that_may_be_hours_are_noted(tmp_path: Path) -> None:
    made, _ = imported(tmp_path, text(tmp_path, "ra,dec\n1,2\n23,2\n"))
    assert any("not hours" in note for note in made.header["sources"][0]["notes"])
    told = import_catalogue(tmp_path / "told", [tmp_path / "table.csv"], Told(units={"ra_deg": "deg"}))
    assert not any("hours" in note for note in told.header["sources"][0]["notes"])


def test_flags_of_the_catalogue(tmp_path: Path) -> None:
    content = "ra,dec,phot_g_mean_mag,duplicated_source\n1,2,3,True\n2,2,3,False\n"
    _, found = imported(tmp_path, text(tmp_path, content))
    assert found["flags"].tolist() == [SUSPECT, 0]


def test_names_that_do_not_exist(tmp_path: Path) -> None:
    table = text(tmp_path, "ra,dec\n1,2\n")
    with pytest.raises(UnknownName, match="nearest: ra_deg"):
        imported(tmp_path, table, told=Told(columns={"ra_degg": "ra"}))
    with pytest.raises(UnknownName, match="no column 'rra'"):
        imported(tmp_path, table, told=Told(columns={"ra_deg": "rra"}))
    with pytest.raises(BadValue, match="furlong"):
        imported(tmp_path, table, told=Told(units={"ra_deg": "furlong"}))


# Positions


@pytest.mark.parametrize(
    ("ra", "dec", "expected"),
    [
        ("12:34:56.7", "-00:30:00", (188.73625, -0.5)),
        ("12 34 56.7", "+05 30 00.0", (188.73625, 5.5)),
        ("12h34m56.7s", "-5d30m00s", (188.73625, -5.5)),
        ("-1.5", "2", (358.5, 2)),
        ("360", "90", (0, 90)),
    ],
)
def test_positions(tmp_path: Path, ra: str, dec: str, expected: Sequence[float]) -> None:
    star = one_star(tmp_path, f"ra,dec\n{ra},{dec}\n")
    assert (star["ra_deg"], star["dec_deg"]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("row", ["400,10", "10,91", "-181,0", "inf,0", "10,-90.0001"])
def test_impossible_positions_are_refused_by_row(tmp_path: Path, row: str) -> None:
    table = text(tmp_path, f"ra,dec\n1,2\n2,2\n{row}\n3,3\n")
    with pytest.raises(Unreadable, match="row 3: RA"):
        imported(tmp_path, table)
    made, _ = imported(tmp_path, table, told=Told(skip_bad=True))
    source = made.header["sources"][0]
    assert made.rows == 3 and source["bad"] == 1 and source["named"][0].startswith("row 3")


def test_words_for_positions_are_refused_by_row(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="row 2: '12:99:00' is no RA"):
        imported(tmp_path, text(tmp_path, "ra,dec\n12:00:00,2\n12:99:00,2\n"))


def test_rows_without_a_position_are_counted(tmp_path: Path) -> None:
    made, _ = imported(tmp_path, text(tmp_path, "ra,dec,Vmag\n1,2,3\n,,5\n4,,6\n-999,-999,1\n"))
    source = made.header["sources"][0]
    assert (made.rows, source["rows"], source["without_position"]) == (1, 4, 3)
    assert source["named"] == ["row 2: no position", "row 3: no position", "row 4: no position"]


@given(st.sampled_from(["", "NaN", "nan", "-999", "99", "99.99", "-99.9", "null", "---", "9999", " "]))
@settings(deadline=None)
def test_missing_values(tmp_path_factory: pytest.TempPathFactory, missing: str) -> None:
    tmp_path = tmp_path_factory.mktemp("missing")
    star = one_star(tmp_path, f"ra,dec,Vmag,e_Vmag,Bmag\n1,2,{missing},{missing},12.5\n")
    assert "mag_V" not in star and "mag_error_V" not in star and star["mag_B"] == 12.5


def test_a_missing_value_that_a_person_names(tmp_path: Path) -> None:
    star = one_star(tmp_path, "ra,dec,Vmag\n1,2,25\n", Told(missing=(25.0,)))
    assert "mag_V" not in star


def test_equinoxes(tmp_path: Path) -> None:
    # The pole star by the Bright Star Catalogue, B1950 and J2000.
    table = text(tmp_path, "ra,dec\n01:48:48.8,+89:01:43\n")
    star = one_star(tmp_path, table.read_text(), Told(equinox=1950))
    assert separation_arcsec(star["ra_deg"], star["dec_deg"], 37.9529, 89.2642) < 5
    with pytest.raises(BadValue, match="proper motions"):
        content = "ra,dec,pm_ra_mas_yr,pm_dec_mas_yr\n1,2,3,4\n"
        import_catalogue(tmp_path / "x", [text(tmp_path, content)], Told(equinox=1950))


# What cannot be read


@pytest.mark.parametrize(
    ("content", "error", "match"),
    [
        ("", Unreadable, "empty"),
        ("# only\n# comments\n", Unreadable, "only comments"),
        ("ra,dec\n1,2\n1\n", Unreadable, "row 2 has 1 fields, not 2"),
        ("ra,dec\n1,2\n1,2,3\n", Unreadable, "row 2 has 3 fields"),
        ("x,y\n1,2\n", Unreadable, "no column of positions"),
        ("<VOTABLE version='1.4'><oops", Unreadable, "VOTable"),
        ("<?xml version='1.0'?><VOTABLE version='1.3'></VOTABLE>", Unreadable, "no table"),
        ("# %ECSV 1.0\n# ---\n# oops: [\nra dec\n1 2\n", Unreadable, "ECSV"),
        ("ra,dec\n1,\0\n", Unreadable, "neither FITS nor VOTable nor text"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, content: str, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        imported(tmp_path, text(tmp_path, content))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table.csv"]


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(NoSuchFile):
        open_table(tmp_path / "absent.csv")
    with pytest.raises(NoSuchFile, match="directory"):
        open_table(tmp_path)
    with pytest.raises(EmptyInput):
        import_catalogue(tmp_path / "made", [])
    whole = gzip.compress(b"ra,dec\n" + b"1.23456,2\n3.21,4.5\n" * 5000)
    (tmp_path / "cut.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Truncated):
        imported(tmp_path, tmp_path / "cut.csv.gz")


def test_fits_without_a_table_or_with_two(tmp_path: Path) -> None:
    from astropy.io import fits

    fits.PrimaryHDU(np.zeros((3, 3), "f4")).writeto(tmp_path / "image.fits")
    with pytest.raises(NoImage):
        open_table(tmp_path / "image.fits")
    rows = np.array([(1.0, 2.0)], dtype=[("ra", "f8"), ("dec", "f8")])
    two = [fits.PrimaryHDU(), fits.BinTableHDU(rows, name="A"), fits.BinTableHDU(rows, name="B")]
    fits.HDUList(two).writeto(tmp_path / "two.fits")
    with pytest.raises(NoImage, match="2 tables"):
        open_table(tmp_path / "two.fits")
    made, _ = imported(tmp_path, tmp_path / "two.fits", told=Told(extension="B"))
    assert made.rows == 1
