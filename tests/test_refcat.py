"""Reference catalogues on disk: shards, cones, epochs, doubles, hashes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awetools.core.catalogues import refshards
from awetools.core.catalogues.refshards import pairs_within, verify_catalogue, write_catalogue
from awetools.core.errors import (
    BadValue,
    Integrity,
    NoSuchFile,
    TooFew,
    UnknownName,
    Unreadable,
    WouldOverwrite,
)
from awetools.core.sky.refcat import (
    CLOSE,
    HEADER,
    MERGED,
    SHARD_ORDER,
    Catalogue,
    columns_for,
    is_catalogue,
    moved,
    open_catalogue,
    unit_of,
)
from awetools.core.sky.sphere import at_epoch, separation_arcsec
from tests.support import ROOT

Columns = dict[str, np.ndarray]


def sky(count: int, seed: int = 1) -> Columns:
    """Stars over all the sky, half of them crowded around RA 0, and some next to the poles."""
    rng = np.random.default_rng(seed)
    ra, dec = rng.uniform(0, 360, count), np.degrees(np.arcsin(rng.uniform(-1, 1, count)))
    crowd = count // 2
    ra[:crowd], dec[:crowd] = rng.normal(0, 2, crowd) % 360, rng.normal(12, 2, crowd)
    dec[-200:-100], dec[-100:] = rng.uniform(88, 90, 100), rng.uniform(-90, -88, 100)
    return {
        "ra_deg": ra,
        "dec_deg": dec,
        "ra_error_mas": np.full(count, 0.5),
        "epoch_yr": np.full(count, 2016.0),
        "pm_ra_mas_yr": rng.normal(0, 200, count),
        "pm_dec_mas_yr": rng.normal(0, 200, count),
        "pm_ra_error_mas_yr": np.full(count, 0.1),
        "pm_dec_error_mas_yr": np.full(count, 0.2),
        "mag_G": rng.uniform(8, 20, count),
        "flags": np.zeros(count, np.int16),
    }


def in_pieces(columns: Columns, length: int) -> Any:
    count = len(columns["ra_deg"])
    return (
        {name: values[at : at + length] for name, values in columns.items()} for at in range(0, count, length)
    )


@pytest.fixture(scope="module")
def stars() -> Columns:
    return sky(20_000)


@pytest.fixture(scope="module")
def catalogue(stars: Columns, tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(refshards, "SHARD_ROWS", 700)
        patch.setattr(refshards, "PIECE_ROWS", 1500)
        path = tmp_path_factory.mktemp("refcat") / "gaia"
        return write_catalogue(
            path, in_pieces(stars, 3333), ["G"], [{"file": "gaia.fits"}], duplicate_arcsec=0
        )


def expected(stars: Columns, ra: float, dec: float, radius: float) -> np.ndarray:
    return np.flatnonzero(separation_arcsec(stars["ra_deg"], stars["dec_deg"], ra, dec) <= radius * 3600)


CONES = st.tuples(
    st.one_of(st.floats(0, 360), st.sampled_from([0.0, 360.0, -1.0])),
    st.one_of(st.floats(-90, 90), st.sampled_from([-90.0, 90.0, 12.0, 89.5])),
    st.one_of(st.floats(0, 180), st.floats(0, 3)),
)


@given(CONES)
@settings(deadline=None, max_examples=100)
def test_a_cone_is_what_all_rows_give(stars: Columns, catalogue: Catalogue, cone: tuple[float, ...]) -> None:
    ra, dec, radius = cone
    found = catalogue.cone(ra, dec, radius)
    rows = expected(stars, ra, dec, radius)
    assert len(found["ra_deg"]) == len(rows)
    order = np.lexsort((found["dec_deg"], found["ra_deg"]))
    ours = rows[np.lexsort((stars["dec_deg"][rows], stars["ra_deg"][rows]))]
    np.testing.assert_array_equal(found["ra_deg"][order], stars["ra_deg"][ours])
    np.testing.assert_array_equal(found["mag_G"][order], stars["mag_G"][ours].astype("f4"))
    assert {name: values.dtype.str[1:] for name, values in found.items()} == columns_for(["G"])


def test_what_was_not_given_is_not_known(catalogue: Catalogue) -> None:
    found = catalogue.cone(0, 12, 1)
    assert np.isnan(found["parallax_mas"]).all() and np.isnan(found["mag_error_G"]).all()
    assert np.isfinite(found["ra_error_mas"]).all() and (found["flags"] == 0).all()


def test_the_whole_sky_in_pieces_is_everything_once(catalogue: Catalogue) -> None:
    pieces = list(catalogue.pieces(10, 10, 180, columns=["ra_deg"]))
    assert len(pieces) == len(catalogue.shards) > 20
    assert sum(len(piece["ra_deg"]) for piece in pieces) == catalogue.rows == 20_000
    assert max(len(piece["ra_deg"]) for piece in pieces) < 1500


def test_a_small_cone_reads_few_rows(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    whole = os.pread
    monkeypatch.setattr(os, "pread", lambda file, size, at: read.append(size) or whole(file, size, at))
    assert len(catalogue.cone(100, -40, 5)["ra_deg"]) > 0
    stored = np.dtype(list(columns_for(["G"]).items())).itemsize * catalogue.rows
    assert sum(read) < stored / 10


def test_only_bright_stars_and_some_columns(stars: Columns, catalogue: Catalogue) -> None:
    found = catalogue.cone(0, 12, 3, faintest={"G": 12.0}, columns=["dec_deg", "mag_G"])
    assert list(found) == ["dec_deg", "mag_G"]
    rows = expected(stars, 0, 12, 3)
    assert len(found["mag_G"]) == (stars["mag_G"][rows].astype("f4") <= 12).sum() > 0
    empty = catalogue.cone(0, 12, 3, faintest={"G": -5.0}, columns=["dec_deg"])
    assert list(empty) == ["dec_deg"] and empty["dec_deg"].dtype == np.float64 and not len(empty["dec_deg"])


def test_a_cone_of_another_epoch_has_the_stars_that_are_in_it_then(
    stars: Columns, catalogue: Catalogue
) -> None:
    ra, dec = at_epoch(
        stars["ra_deg"],
        stars["dec_deg"],
        stars["pm_ra_mas_yr"],
        stars["pm_dec_mas_yr"],
        np.full(20_000, 3000.0),
    )
    inside = separation_arcsec(ra, dec, 1, 12) <= 0.3 * 3600
    found = catalogue.cone(1, 12, 0.3, epoch_yr=5016.0)
    assert len(found["ra_deg"]) == inside.sum() > 20
    np.testing.assert_allclose(np.sort(found["dec_deg"]), np.sort(dec[inside]), atol=1e-5)
    np.testing.assert_array_equal(found["epoch_yr"], 5016.0)
    np.testing.assert_allclose(found["ra_error_mas"], np.hypot(0.5, 0.1 * 3000), rtol=1e-6)
    assert np.isnan(found["dec_error_mas"]).all()


def test_what_has_no_epoch_or_motion_stays() -> None:
    names = [name for name in columns_for([]) if name != "flags"]
    some = {name: np.array([1.0, 1.0, 1.0]) for name in names}
    some["epoch_yr"] = np.array([np.nan, 2000.0, 2000.0])
    some["pm_ra_mas_yr"] = np.array([5.0, np.nan, 3600.0])
    later = moved(some, 2010.0)
    assert later["ra_deg"][:2].tolist() == [1, 1] and later["ra_deg"][2] == pytest.approx(
        1 + 0.01 / np.cos(np.radians(1)), abs=1e-8
    )
    np.testing.assert_array_equal(later["epoch_yr"], [np.nan, 2000, 2010])
    np.testing.assert_allclose(later["ra_error_mas"], [1, 1, np.hypot(1, 10)], rtol=1e-6)
    with pytest.raises(BadValue):
        moved(some, np.nan)


def test_the_same_stars_give_the_same_bytes_however_they_come(stars: Columns, tmp_path: Path) -> None:
    one = write_catalogue(tmp_path / "one", in_pieces(stars, 20_000), ["G"], [])
    two = write_catalogue(tmp_path / "two", in_pieces(stars, 777), ["G"], [])
    assert one.content == two.content and one.shards == two.shards
    changed = {**stars, "mag_G": stars["mag_G"] + 0.5}
    assert write_catalogue(tmp_path / "three", [changed], ["G"], []).content != one.content


def test_shards_are_fits_tables_that_others_read(stars: Columns, catalogue: Catalogue) -> None:
    from astropy.io import fits
    from astropy_healpix import lonlat_to_healpix

    total = 0
    for shard in catalogue.shards[:5]:
        with fits.open(catalogue.path / shard.file, checksum=True) as file:
            table = file["STARS"].data
            assert [column.unit or "" for column in file["STARS"].columns] == [
                unit_of(n) for n in catalogue.columns
            ]
            pixels = lonlat_to_healpix(
                _deg(table["ra_deg"]), _deg(table["dec_deg"]), 2**SHARD_ORDER, order="nested"
            )
            assert (
                (pixels >= shard.first).all() and (pixels < shard.end).all() and (np.diff(pixels) >= 0).all()
            )
            total += len(table)
    assert total == sum(shard.rows for shard in catalogue.shards[:5]) > 0
    assert catalogue.shards[0].first == 0 and catalogue.shards[-1].end == 12 * 4**SHARD_ORDER


def _deg(values: np.ndarray) -> Any:
    import astropy.units as u

    return np.asarray(values, np.float64) * u.deg


# Doubles


def doubled(tmp_path: Path, arcsec: float = 0.1, **columns: list[float]) -> tuple[Catalogue, Columns]:
    made = write_catalogue(
        tmp_path / "made",
        [{k: np.array(v) for k, v in columns.items()}],
        ["V", "B"],
        [],
        duplicate_arcsec=arcsec,
    )
    return made, made.cone(0, 0, 180)


def test_a_star_listed_twice_is_merged_and_keeps_the_smaller_errors(tmp_path: Path) -> None:
    made, found = doubled(
        tmp_path,
        ra_deg=[359.99999, 359.99999 + 1e-5, 20],
        dec_deg=[45, 45, 45],
        ra_error_mas=[9, 3, 1],
        dec_error_mas=[9, 3, 1],
        mag_V=[12.01, np.nan, 12],
        mag_B=[13.0, 13.05, 14],
    )
    assert (made.rows, made.header["merged"], made.header["close"]) == (2, 1, 0)
    kept = found["flags"] == MERGED
    assert found["ra_error_mas"][kept] == 3 and found["mag_B"][kept] == np.float32(13.05)
    assert found["mag_V"][kept] == np.float32(12.01)
    assert "rows 2 and 1: merged" in made.header["doubles"][0]


def test_a_close_pair_of_other_magnitudes_is_flagged(tmp_path: Path) -> None:
    made, found = doubled(tmp_path, ra_deg=[10, 10, 11], dec_deg=[90 - 1e-5, 90, 0], mag_V=[10, 11, 12])
    assert (made.rows, made.header["merged"], made.header["close"]) == (3, 0, 2)
    assert sorted(found["flags"].tolist()) == [0, CLOSE, CLOSE]


def test_a_star_listed_a_thousand_times_is_one(tmp_path: Path) -> None:
    made, _ = doubled(tmp_path, ra_deg=[10.0] * 1000 + [11], dec_deg=[20.0] * 1001)
    assert (made.rows, made.header["merged"]) == (2, 999)


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=6)
def test_doubles_do_not_depend_on_the_shards(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ra, dec = rng.uniform(44.5, 45.5, 2500), rng.uniform(41.3, 42.3, 2500)
    angle, arcsec = rng.uniform(0, 2 * np.pi, 2500), 1.5
    reach = rng.uniform(0, 1.9, 2500) * arcsec / 3600
    columns = {
        "ra_deg": np.append(ra, ra + reach * np.sin(angle) / np.cos(np.radians(dec))),
        "dec_deg": np.append(dec, dec + reach * np.cos(angle)),
        "ra_error_mas": rng.uniform(1, 3, 5000),
        "dec_error_mas": rng.uniform(1, 3, 5000),
        "mag_V": np.tile(rng.uniform(10, 11, 2500), 2),
    }
    path = tmp_path_factory.mktemp("doubles")
    whole = write_catalogue(path / "whole", [columns], ["V"], [], duplicate_arcsec=arcsec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(refshards, "SHARD_ROWS", 250)
        parts = write_catalogue(path / "parts", [columns], ["V"], [], duplicate_arcsec=arcsec)
    assert len(whole.shards) == 1 and len(parts.shards) > 15
    assert parts.header["merged"] == whole.header["merged"] > 500
    one, two = whole.cone(45, 41.8, 5), parts.cone(45, 41.8, 5)
    for name, values in one.items():
        np.testing.assert_array_equal(values, two[name], name)


@given(st.integers(0, 10**6), st.floats(0.01, 2000), st.booleans())
@settings(deadline=None, max_examples=40)
def test_pairs_are_those_of_a_tree(seed: int, arcsec: float, at_pole: bool) -> None:
    from scipy.spatial import cKDTree

    rng = np.random.default_rng(seed)
    ra = rng.uniform(0, 360, 300) if at_pole else rng.uniform(-0.5, 0.5, 300)
    dec = 90 - rng.uniform(0, 0.5, 300) if at_pole else rng.uniform(-0.5, 0.5, 300)
    one, two = pairs_within(ra, dec, arcsec)
    ra, dec = np.radians(ra), np.radians(dec)
    tree = cKDTree(np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], 1))
    theirs = tree.query_pairs(2 * np.sin(np.radians(arcsec / 3600) / 2))
    assert {(min(p), max(p)) for p in zip(one.tolist(), two.tolist(), strict=True)} == theirs


# What goes wrong


def test_no_star_is_no_catalogue(tmp_path: Path) -> None:
    with pytest.raises(TooFew):
        write_catalogue(tmp_path / "none", [], ["V"], [])
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_where_the_stars_fail_midway(stars: Columns, tmp_path: Path) -> None:
    def broken() -> Any:
        yield stars
        raise Unreadable("row 7")

    with pytest.raises(Unreadable, match="row 7"):
        write_catalogue(tmp_path / "broken", broken(), ["G"], [])
    assert not list(tmp_path.iterdir())


def test_an_existing_catalogue_is_not_overwritten(stars: Columns, tmp_path: Path) -> None:
    made = write_catalogue(tmp_path / "one", [stars], ["G"], [])
    with pytest.raises(WouldOverwrite):
        write_catalogue(tmp_path / "one", [stars], ["G"], [])
    with pytest.raises(BadValue):
        write_catalogue(tmp_path / "two", [stars], ["G"], [], duplicate_arcsec=60)
    assert is_catalogue(made.path) and open_catalogue(made.path).content == made.content


def test_names_and_places_that_do_not_exist(catalogue: Catalogue, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="nearest: dec_deg"):
        catalogue.cone(0, 0, 1, columns=["dec_deq"])
    with pytest.raises(UnknownName, match="it has G"):
        catalogue.cone(0, 0, 1, faintest={"V": 10})
    with pytest.raises(BadValue):
        catalogue.cone(0, 95, 1)
    with pytest.raises(NoSuchFile):
        open_catalogue(tmp_path)


def test_edits_are_noticed(stars: Columns, tmp_path: Path) -> None:
    made = write_catalogue(tmp_path / "made", [stars], ["G"], [])
    assert verify_catalogue(made) == []
    shard = made.path / made.shards[0].file
    content = bytearray(shard.read_bytes())
    content[made.shards[0].stars_at + 100] ^= 1
    shard.write_bytes(content)
    assert "its hash is not that" in verify_catalogue(made)[0]
    shard.write_bytes(content[:-2880])
    with pytest.raises(Integrity, match="bytes"):
        made.cone(0, 12, 180)
    shard.unlink()
    with pytest.raises(Unreadable):
        made.cone(0, 12, 180)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"catalogue": 1}', '{"catalogue": 99}', "\x00"])
def test_headers_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / HEADER).write_text(text)
    with pytest.raises(Unreadable):
        open_catalogue(tmp_path)


def test_a_header_that_contradicts_itself_is_refused(stars: Columns, tmp_path: Path) -> None:
    made = write_catalogue(tmp_path / "made", [stars], ["G"], [])
    header = json.loads((made.path / HEADER).read_text())
    (made.path / HEADER).write_text(json.dumps({**header, "rows": 1}))
    with pytest.raises(Integrity):
        open_catalogue(made.path)


# How fast, and in how much memory

MAKE = """
import re, sys
import numpy as np
from awetools.core.catalogues.refshards import write_catalogue
def pieces(count):
    rng = np.random.default_rng(1)
    for _ in range(count // 100_000):
        yield {"ra_deg": rng.uniform(0, 360, 100_000), "dec_deg": rng.uniform(-60, 60, 100_000)}
write_catalogue(sys.argv[1], pieces(int(sys.argv[2])), ["G"], [])
# Not getrusage, whose peak begins with that of the program which started this one.
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def test_memory_does_not_grow_with_the_catalogue(tmp_path: Path) -> None:
    def peak_kb(count: int) -> int:
        command = [sys.executable, "-c", MAKE, str(tmp_path / str(count)), str(count)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True, timeout=120)
        return int(done.stdout)

    small, large = peak_kb(300_000), peak_kb(1_200_000)
    assert large < 1.15 * small < 500_000
    made = open_catalogue(tmp_path / "1200000")
    assert 20 <= len(made.shards) <= 26 and all(1e4 <= shard.rows <= 1e5 for shard in made.shards)
    best = min(_seconds(made) for _ in range(5))
    assert best < 0.1


def _seconds(made: Catalogue) -> float:
    start = time.process_time()
    assert len(made.cone(180, 20, 1)["ra_deg"]) > 50
    return time.process_time() - start
