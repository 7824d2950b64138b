"""Bad input to solutions on the sky: each attack that once went wrong, and what must come of it now."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from awetools.core.errors import AweError, Integrity
from awetools.core.products import open_product
from awetools.core.sky.known import stars_beside
from awetools.core.sky.readwcs import read_wcs
from awetools.core.sky.refcat import open_catalogue
from awetools.core.store import Store, init_store
from tests.support import InProcess, Ran

RA, DEC, NX, NY, SCALE_ARCSEC = 150.0, 2.0, 1000, 800, 0.3
CATALOGUE = Path(".awe/refcats/truth")
SHARD = CATALOGUE / "10-00000000.fits"
ERROR_PX = 0.03


def system(ra: float = RA, dec: float = DEC) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [ra, dec], [(NX + 1) / 2, (NY + 1) / 2]
    wcs.wcs.cd = np.diag([-1, 1]) * SCALE_ARCSEC / 3600
    return wcs


def sky(number: int = 300) -> np.ndarray:
    """RA, Dec and magnitudes of stars about the field."""
    rng = np.random.default_rng(1)
    ra, dec = (middle + rng.uniform(-0.1, 0.1, number) for middle in (RA, DEC))
    return np.stack([ra, dec, rng.uniform(10, 18, number)])


def listed(path: Path, minute: int = 0, off_deg: float = 0.0, seed: int = 2, **columns: Any) -> str:
    """A table as SExtractor writes it, of a field that the header has off in right ascension."""
    rng = np.random.default_rng(seed)
    step = 0.002 * minute
    x, y = system(RA + step).all_world2pix(*sky()[:2], 1)
    inside = (x > 1) & (x < NX) & (y > 1) & (y < NY)
    x, y = (one[inside] + rng.normal(0, ERROR_PX, inside.sum()) for one in (x, y))
    flux = 10 ** (-0.4 * (sky()[2, inside] - 25))
    table: dict[str, Any] = {"X_IMAGE": x, "Y_IMAGE": y, "FLUX_AUTO": flux, "FLUXERR_AUTO": 0.01 * flux}
    table |= {f"ERR{axis}2WIN_IMAGE": np.full(len(x), ERROR_PX**2) for axis in "XY"}
    table |= {name: change(table[name].copy()) for name, change in columns.items()}
    primary = fits.PrimaryHDU()
    primary.header.update(system(RA + step + off_deg, DEC).to_header())
    about = {"INSTRUME": "TESTCAM", "FILTER": "R", "EXPTIME": 60.0, "OBJECT": "X"}
    primary.header.update({**about, "DATE-OBS": f"2020-01-01T03:{minute:02d}:00"})
    hdu = fits.BinTableHDU.from_columns([fits.Column(name, "D", array=one) for name, one in table.items()])
    hdu.name = "SOURCES"
    fits.HDUList([primary, hdu]).writeto(path)
    return f"{path}[SOURCES]"


@pytest.fixture
def field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: InProcess) -> list[str]:
    """Source lists without the size of their image, 11 arcsec off, and the catalogue `truth`; the store is here."""
    monkeypatch.chdir(init_store(tmp_path / "store").root)
    rows = [f"{ra:.9f},{dec:.9f},{mag:.3f}" for ra, dec, mag in sky().T]
    (tmp_path / "truth.csv").write_text("\n".join(["ra,dec,Vmag", *rows, ""]))
    assert run("refcat", "import", "-q", "truth", tmp_path / "truth.csv", "--epoch", "2020").code == 0
    return [imported(run, listed(tmp_path / f"f{k}.fits", k, 0.003, seed=k)) for k in range(3)]


def imported(run: InProcess, address: str) -> str:
    ran = run("import_", "-q", "--as", "sources", address)
    assert ran.code == 0, ran.err
    return ran.lines[0]


def refused(ran: Ran, code: int, slug: str, *said: str) -> None:
    assert ran.code == code, ran.err
    assert f": {slug}: " in ran.err
    for text in said:
        assert text in ran.err
    assert "bug" not in ran.err
    assert not ran.lines


def off_arcsec(path: str) -> float:
    """How far the solution of the first frame is from the truth in its middle."""
    wcs = read_wcs(open_product(Path(path)).record["meta"]["wcs"])
    ra, dec = wcs.to_sky((NX + 1) / 2, (NY + 1) / 2)
    return float(np.hypot((ra - RA) * np.cos(np.radians(DEC)), dec - DEC) * 3600)


# Source lists


@pytest.mark.parametrize("degree", [3, 7])
def test_lists_without_the_size_of_their_image(field: list[str], run: InProcess, degree: int) -> None:
    ran = run("gastrom", "-q", "--degree", degree, *field)
    assert ran.code == 0, ran.err
    assert len(ran.lines) == 4
    assert off_arcsec(ran.lines[1]) < 0.05


def test_two_lists_of_one_frame_are_both_named(field: list[str], run: InProcess, tmp_path: Path) -> None:
    again = imported(run, listed(tmp_path / "again.fits", 0, 0.003, seed=9))
    refused(run("gastrom", *field, again), 4, "mixture", field[0], again, "awe-query")


def test_a_position_beyond_any_image_does_no_harm(field: list[str], run: InProcess, tmp_path: Path) -> None:
    def far(x: np.ndarray) -> np.ndarray:
        x[3] = 9e8
        return x

    source = imported(run, listed(tmp_path / "far.fits", 0, 0.003, X_IMAGE=far))
    ran = run("astrom", "-q", source)
    assert ran.code == 0, ran.err
    assert off_arcsec(ran.lines[0]) < 0.05


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_a_list_without_fluxes_says_so(
    field: list[str], run: InProcess, tmp_path: Path, value: float
) -> None:
    def same(flux: np.ndarray) -> np.ndarray:
        return np.full_like(flux, value)

    source = imported(run, listed(tmp_path / "same.fits", FLUX_AUTO=same))
    refused(run("astrom", source), 6, "no-solution", "0 sources with a position and a flux", "FLUX_AUTO")


# Catalogues


def damaged(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("command", ["astrom", "gastrom"])
def test_a_catalogue_that_was_edited_is_not_used(field: list[str], run: InProcess, command: str) -> None:
    shard = open_catalogue(CATALOGUE).shards[0]
    damaged(SHARD, shard.stars_at + 5)
    refused(run(command, *field), 8, "integrity", str(SHARD), "awe-refcat verify")
    damaged(SHARD, shard.stars_at + 5)
    header = CATALOGUE / "catalogue.json"
    kept = header.read_text()
    header.write_text(json.dumps({**json.loads(kept), "content": "0" * 64}))
    refused(run(command, *field), 8, "integrity", "hash of all content")
    header.write_text(kept)
    SHARD.unlink()
    refused(run(command, *field), 4, "unreadable", str(SHARD))


def test_a_damaged_index_of_a_shard_is_an_error(field: list[str]) -> None:
    whole = SHARD.read_bytes()
    catalogue = open_catalogue(CATALOGUE)
    shard = catalogue.shards[0]
    stars = catalogue.cone(RA, DEC, 0.1)
    rng = np.random.default_rng(3)
    refusals = 0
    for at in rng.integers(shard.index_at, shard.index_at + 16 * shard.cells, 60):
        damaged(SHARD, int(at))
        try:
            catalogue.cone(RA, DEC, 0.1)
        except AweError:
            refusals += 1
        with pytest.raises(Integrity):
            replace(catalogue, checked=True).cone(RA, DEC, 0.1)
        SHARD.write_bytes(whole)
    assert refusals > 10
    again = replace(catalogue, checked=True).cone(RA, DEC, 0.1)
    np.testing.assert_array_equal(again["ra_deg"], stars["ra_deg"])


def test_the_same_stars_under_two_names_are_one_catalogue(field: list[str], run: InProcess) -> None:
    shutil.copytree(CATALOGUE, CATALOGUE.with_name("twin"))
    ran = run("astrom", "-q", field[0])
    assert ran.code == 0, ran.err


# Solutions


def test_a_solution_that_is_not_tied_to_the_catalogue_says_so(field: list[str], run: InProcess) -> None:
    assert run("gastrom", "--alone", "-q", "--refcat", "none", *field).code == 0
    ran = run("astrom", field[0])
    assert ran.code == 0, ran.err
    assert "stars of truth are where the global solution has a source" in ran.err
    assert "positions are relative" in ran.err
    assert off_arcsec(ran.lines[0]) == pytest.approx(0.003 * 3600, abs=1), "as the headers have them"
    assert run("gastrom", "--alone", "-q", *field).code == 0
    tied = run("astrom", field[0])
    assert tied.code == 0 and "relative" not in tied.err
    assert off_arcsec(tied.lines[0]) < 0.05


def test_stars_are_sought_within_a_pixel_where_pixels_are_large(field: list[str]) -> None:
    size_arcsec = 20.0
    step = size_arcsec / 3600
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": RA, "CRVAL2": DEC, "CRPIX1": 20.5}
    wcs = read_wcs({**cards, "CRPIX2": 20.5, "CD1_1": -step, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": step})
    ra, dec, _ = sky()
    x, y = wcs.to_pixel(ra, dec)
    alone = np.flatnonzero([np.sort(np.hypot(x - a, y - b))[1] > 2 for a, b in zip(x, y, strict=True)])
    assert len(alone) > 5
    moved = x[alone] + 0.4
    _, star = stars_beside(wcs, moved, y[alone], (40, 40), open_catalogue(CATALOGUE), None)
    assert (star >= 0).mean() > 0.9


# Pictures


def test_pictures_refuse_what_does_not_belong(sky_store: Store, run: InProcess, tmp_path: Path) -> None:
    image, source = run("query", "reduced").lines[0], run("query", "sources").lines[0]
    out = tmp_path / "a.png"
    ran = run("show", image, "--at-sky", "10,80", "-o", out)
    refused(ran, 2, "usage", "--at-sky 10,80 is not in the image")
    refused(run("show", image, "--astrom", source, "-o", out), 4, "wrong-kind", "RA_REF_DEG")
    refused(run("show", image, "--refcat", tmp_path / "none", "-o", out), 4, "no-such-file", "none")
    assert not out.exists()
    ran = run("show", image, "--refcat", sky_store.refcats_path / "truth", "-o", out)
    assert ran.code == 0, ran.err


# Solutions that are gone


def test_a_solution_that_was_removed_by_hand_is_said_and_forgotten(field: list[str], run: InProcess) -> None:
    path = Path(run("gastrom", "--alone", "-q", *field).lines[0])
    path.unlink()
    path.with_name(f"{path.name}.json").unlink()
    refused(run("astrom", field[0]), 4, "no-record", path.name, "awe-index --update")
    assert run("index", "--update", "-q").code == 0
    ran = run("astrom", "-q", field[0])
    assert ran.code == 0, ran.err
    assert off_arcsec(ran.lines[0]) < 0.05
