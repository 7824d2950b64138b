"""awe-astrom on real frames, and on what cannot be solved: it says why, and never that it could."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning

from awetools.core.products import open_product
from awetools.core.store import Store, init_store
from tests.support import InProcess, awe_here, data_path

SETTINGS = ("--set", "gain_e_adu=2", "--set", "read_noise_adu=3", "--set", "saturation_adu=4095")
WITHOUT = tuple(f"--no-{one}" for one in ("bias", "dark", "flat", "hotpix", "coldpix", "fringe"))


@pytest.fixture(scope="module")
def hatp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the source lists of two frames of HAT-P-32 whose headers have a pointing alone."""
    frames = sorted(data_path("microobs-hatp32-20171220").glob("*.gz"))[::20]
    root = tmp_path_factory.mktemp("hatp32") / "store"
    init_store(root)
    awe_here("ingest", "-q", *SETTINGS, *frames, cwd=root)
    awe_here("reduce", "-q", *WITHOUT, *frames, cwd=root)
    awe_here("sources", "-q", *awe_here("query", "reduced", cwd=root), cwd=root)
    catalogue = data_path("refcats/tycho2-hatp32.csv")
    awe_here("refcat", "import", "-q", "tycho2", catalogue, "--epoch", "2000", cwd=root)
    return root


def wcs_of(path: str | Path) -> WCS:
    """The coordinate system of a solution, as astropy reads it."""
    with warnings.catch_warnings():
        # The file has no image.
        warnings.simplefilter("ignore", FITSFixedWarning)
        return WCS(fits.getheader(path))


def sources_of(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(root)
    return awe_here("query", "sources", cwd=root)


def test_frames_are_solved_from_their_pointing(
    hatp32: Path, monkeypatch: pytest.MonkeyPatch, run: InProcess
) -> None:
    sources = sources_of(hatp32, monkeypatch)
    ran = run("astrom", "-q", *sources)
    assert ran.code == 0, ran.err
    assert len(ran.lines) == 2
    for path in ran.lines:
        record = open_product(Path(path)).record
        measures = record["quality"]["measures"]
        assert record["quality"]["flags"] == 0
        assert measures["n_ref"] >= 20
        for name in ("sig_dra_arcsec", "sig_ddec_arcsec"):
            assert measures[name] <= 0.25 * measures["fitted_scale_arcsec"]
        rows = fits.getdata(path, "ASTROM")
        ra, dec = wcs_of(path).all_pix2world(rows["X_PX"], rows["Y_PX"], 1)
        used = rows["USED"] == 1
        assert used.sum() == measures["n_ref"] and (~used).sum() <= measures["n_clipped"]
        np.testing.assert_allclose(ra, rows["RA_DEG"], atol=1e-6)
        np.testing.assert_allclose(dec, rows["DEC_DEG"], atol=1e-6)
        # Residuals are on the tangent plane, whose north turns over a field so wide.
        off = 3600 * (dec - rows["DEC_REF_DEG"])
        np.testing.assert_allclose(off[used], rows["DDEC_ARCSEC"][used], atol=0.02)
        assert abs(np.median(off[used])) < 0.1 * measures["fitted_scale_arcsec"]


@pytest.mark.parametrize("centre", ["31.8,47.3", "02:07:12,+47:18:00"])
def test_a_pointing_that_is_given_counts(
    hatp32: Path, monkeypatch: pytest.MonkeyPatch, run: InProcess, centre: str
) -> None:
    source = sources_of(hatp32, monkeypatch)[0]
    ran = run("astrom", "-q", "--centre", centre, "-o", "given.fits", "--force", source)
    assert ran.code == 0, ran.err
    shift = open_product(Path("given.fits")).record["quality"]["measures"]["shift_arcsec"]
    assert 500 < shift < 5000, "the frame is not where it was said to be"
    bad = run("astrom", "--centre", "31.8", source)
    assert bad.code == 2 and "not RA,Dec" in bad.err


def test_another_fields_stars_are_no_solution(
    hatp32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: InProcess
) -> None:
    source = sources_of(hatp32, monkeypatch)[0]
    rng = np.random.default_rng(11)
    table = tmp_path / "other.csv"
    places = zip(31.0 + 1.6 * (rng.random(400) - 0.5), 46.7 + 1.1 * (rng.random(400) - 0.5), strict=True)
    table.write_text("\n".join(["ra,dec", *(f"{ra:.6f},{dec:.6f}" for ra, dec in places), ""]))
    run("refcat", "import", "-q", "--dir", tmp_path, "other", table, "--epoch", "2000")
    before = set(Path("astrom").rglob("*")) if Path("astrom").exists() else set()
    ran = run("astrom", "--refcat", tmp_path / "other", source)
    assert ran.code == 6
    assert "no solution for" in ran.err and "tried: " in ran.err and "catalogue other" in ran.err
    assert before == (set(Path("astrom").rglob("*")) if Path("astrom").exists() else set())


def test_three_stars_are_too_few(
    source_store: Store, sky_night: Path, tmp_path: Path, run: InProcess
) -> None:
    # A threshold that three stars of the field pass.
    run("refcat", "import", "-q", "truth", sky_night / "reference.fits")
    reduced = run("query", "reduced").lines[0]
    for threshold in (100, 300, 1000, 3000, 10000):
        listed = run(
            "sources", "-q", "--threshold-sigma", threshold, "-o", tmp_path / f"{threshold}.fits", reduced
        )
        if listed.code == 0:
            count = open_product(tmp_path / f"{threshold}.fits").record["quality"]["measures"]["sources"]
            if count <= 3:
                break
    else:
        pytest.fail("no threshold leaves three stars")
    ran = run("astrom", tmp_path / f"{threshold}.fits")
    assert ran.code == 6
    assert "no solution" in ran.err and "try: " in ran.err


# The catalogue is that of the field, so it is sought all over it at last.
@pytest.mark.parametrize("off_deg", [0.03, 1.0, 40.0])
def test_a_pointing_that_lies(
    source_store: Store, sky_night: Path, tmp_path: Path, run: InProcess, off_deg: float
) -> None:
    run("refcat", "import", "-q", "truth", sky_night / "reference.fits")
    source = Path(run("query", "sources").lines[0])
    record = open_product(source).record
    ra, dec = record["meta"]["ra_deg"], record["meta"]["dec_deg"]
    centre = f"{ra},{dec + off_deg}"
    ran = run("astrom", "-q", "--header", "pointing", "--centre", centre, "-o", tmp_path / "a.fits", source)
    assert ran.code == 0, ran.err
    right = run("astrom", "-q", "-o", tmp_path / "b.fits", source)
    assert right.code == 0, right.err
    ours, theirs = (wcs_of(tmp_path / f"{name}.fits") for name in "ab")
    here, there = (one.all_pix2world([[128, 128]], 1)[0] for one in (ours, theirs))
    assert np.abs(here - there).max() * 3600 < 0.1


def test_a_list_of_another_program_is_solved_to_gaia(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: InProcess
) -> None:
    pair = data_path("refcats/lco-gaia-pair")
    store = init_store(tmp_path / "store")
    monkeypatch.chdir(store.root)
    (table,) = pair.glob("lco-sextractor*")
    imported = run("import_", "-q", "--as", "sources", f"{table}[LDAC_OBJECTS]")
    assert imported.code == 0, imported.err
    assert run("refcat", "import", "-q", "gaia", pair / "gaia-dr2-ldac.cat.gz").code == 0
    ran = run("astrom", "-q", *imported.lines)
    assert ran.code == 0, ran.err
    measures = open_product(Path(ran.lines[0])).record["quality"]["measures"]
    assert measures["n_ref"] >= 80
    assert max(measures["sig_dra_arcsec"], measures["sig_ddec_arcsec"]) <= 0.15
