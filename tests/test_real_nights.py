"""Real nights through the commands of the README: what they must measure, and nothing flagged."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from awetools.core.fits import open_fits
from awetools.core.products import open_product
from awetools.core.store import init_store
from tests.support import awe, data_path, program, write_raw

TYPES = {"bias": "raw_bias", "dark": "raw_dark", "flat": "raw_domeflat", "science": "raw_science"}


def store_with(directory: Path, folder: Path) -> Path:
    init_store(directory)
    awe("ingest", "-q", "-j2", folder, cwd=directory)
    return directory


def truth_of(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "frames.csv").open() as stream:
        return {row["file"]: row for row in csv.DictReader(stream)}


def rows_of(root: Path, kind: str, *columns: str) -> list[dict[str, object]]:
    return [
        json.loads(line)
        for line in awe("query", kind, "--get", ",".join(columns), "--json", cwd=root).splitlines()
    ]


@pytest.fixture(scope="module")
def nickel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Nickel night, reduced as the README says."""
    root = store_with(tmp_path_factory.mktemp("nickel"), data_path("nickel-20170302"))
    for maker, source in (
        ("readnoise", "raw_bias"),
        ("bias", "raw_bias"),
        ("gain", "raw_domeflat"),
        ("hotpix", "bias"),
        ("domeflat", "raw_domeflat"),
        ("flat", "domeflat"),
        ("reduce", "raw_science"),
    ):
        awe(maker, "-q", "-j2", stdin=awe("query", source, cwd=root), cwd=root)
    return root


def test_every_nickel_frame_is_typed_and_filtered_as_it_truly_is(nickel: Path) -> None:
    folder = data_path("nickel-20170302")
    truth = truth_of(folder)
    rows = rows_of(nickel, "raw", "path", "frame_type", "filter", "night", "exptime_s", "obs_start")
    assert len(rows) == len(truth) == 56
    for row in rows:
        true = truth[str(Path(str(row["path"])).relative_to(folder.resolve()))]
        assert row["frame_type"] == TYPES[true["true_type"]]
        assert row["filter"] == true["FILTNAM"]
        assert row["exptime_s"] == float(true["EXPTIME"])
        assert row["night"] == "2017-03-02"
        assert str(row["obs_start"]).startswith(true["DATE_BEG"])


def test_everything_of_the_nickel_night_is_made_and_nothing_flagged(nickel: Path) -> None:
    counts = {
        kind: len(rows_of(nickel, kind, "path"))
        for kind in ("readnoise", "bias", "hotpix", "flat", "reduced")
    }
    assert counts == {"readnoise": 1, "bias": 1, "hotpix": 1, "flat": 4, "reduced": 28}
    assert {row["filter"] for row in rows_of(nickel, "flat", "filter")} == set("BVRI")
    for kind in ("readnoise", "bias", "hotpix", "domeflat", "flat", "reduced"):
        assert all(row["flags"] == 0 for row in rows_of(nickel, kind, "flags"))


def test_nickel_read_noise(nickel: Path) -> None:
    (path,) = awe("query", "readnoise", cwd=nickel).split()
    record = open_product(Path(path)).record
    assert record["quality"]["measures"]["read_noise_adu"] == pytest.approx(5.55, abs=0.10)


def test_nickel_gain(nickel: Path, tmp_path: Path) -> None:
    (path,) = awe("query", "gain", cwd=nickel).split()
    measures = open_product(Path(path)).record["quality"]["measures"]
    assert measures["gain_e_adu"] == pytest.approx(1.77, abs=0.02)
    assert measures["gain_error_e_adu"] < 0.01 and measures["pairs"] == 11
    flats = awe("query", "raw_domeflat", "filter=R,V,I", cwd=nickel)
    awe("gain", "-q", "-o", tmp_path / "three.fits", stdin=flats, cwd=nickel)
    record = open_product(tmp_path / "three.fits").record
    assert record["quality"]["measures"]["gain_e_adu"] == pytest.approx(1.77, abs=0.03)
    assert "different exposure times" in record["recipe"]["instead"]["linearity"]


def test_nickel_sky_is_flat(nickel: Path) -> None:
    """Kalliope and Egeria in R: objects masked, blocks of 64 pixels, outside the documented bad areas."""
    paths = awe("query", "reduced", "filter=R", "object=Kalliope,Egeria", cwd=nickel).split()
    assert len(paths) == 10
    for path in paths:
        assert sky_roughness(Path(path)) <= 0.018


def test_nickel_sky_is_flatter_with_a_night_flat_from_the_other_field(nickel: Path, tmp_path: Path) -> None:
    """The dome flat leaves 1.4 to 1.8%; the goal is 1.3% for all ten."""
    lamp = awe("query", "domeflat", "filter=R", cwd=nickel).split()[-1]
    for field, other in (("Kalliope", "Egeria"), ("Egeria", "Kalliope")):
        sky, flat = tmp_path / f"night_{other}.fits", tmp_path / f"flat_{other}.fits"
        frames = awe("query", "raw_science", "filter=R", f"object={other}", cwd=nickel)
        awe("nightflat", "-q", "--flat", lamp, "-o", sky, stdin=frames, cwd=nickel)
        assert open_product(sky).record["quality"]["flags"] == 0
        awe("flat", "-q", "--nightflat", sky, "-o", flat, lamp, cwd=nickel)
        frames = awe("query", "raw_science", "filter=R", f"object={field}", cwd=nickel)
        reduced = awe("reduce", "-q", "--flat", flat, "--out-dir", tmp_path, stdin=frames, cwd=nickel).split()
        assert len(reduced) == 5
        assert max(sky_roughness(Path(path)) for path in reduced) <= 0.013


def test_nickel_galaxies_that_fill_the_field_and_dawn_are_left_out(nickel: Path, tmp_path: Path) -> None:
    frames = awe("query", "raw_science", "filter=R", cwd=nickel)
    awe("nightflat", "-q", "-o", tmp_path / "night.fits", stdin=frames, cwd=nickel)
    record = open_product(tmp_path / "night.fits").record
    names = {Path(one["path"]).name[:5] for one in record["recipe"]["left_out"]}
    assert names == {"d1103", "d1120", "d1123", "d1126"}
    assert record["quality"]["measures"]["frames"] == 17


def sky_roughness(path: Path) -> float:
    """Rms of the sky in blocks of 64 pixels, relative to the sky."""
    import sep
    from scipy.ndimage import binary_dilation

    with open_fits(path) as fits:
        data, weight = fits.image("SCI"), fits.image("WEIGHT")
    bad = weight == 0
    background = sep.Background(data, mask=bad, bw=64, bh=64)
    _, objects = sep.extract(
        data - background, 1.5, err=background.globalrms, mask=bad, segmentation_map=True
    )
    good = ~bad & ~binary_dilation(objects > 0, iterations=5)
    good[:, -30:] = False
    good[:, 253:259] = good[:, 781:786] = False
    corners = {(0, 0), (0, 960), (960, 0), (960, 960)}
    blocks = [
        (data[y : y + 64, x : x + 64], good[y : y + 64, x : x + 64])
        for y in range(0, 1024, 64)
        for x in range(0, 1024, 64)
        if (y, x) not in corners
    ]
    levels = np.array([np.median(block[use]) for block, use in blocks if use.sum() > 500])
    assert len(levels) > 240
    return float(levels.std() / np.median(levels))


def test_nickel_up_to_date_and_a_new_frame_changes_only_what_it_touches(nickel: Path) -> None:
    science = awe("query", "raw_science", cwd=nickel)
    ran = program("reduce", "-u", "--why", stdin=science, cwd=nickel)
    assert ran.code == 0 and all(line.endswith("\tup to date") for line in ran.lines), ran.out
    biases = awe("query", "raw_bias", cwd=nickel).split()
    ran = program("bias", "-o", "nine.fits", *biases[:9], cwd=nickel)
    assert ran.code == 0
    ran = program("bias", "--why", "-o", "nine.fits", *biases, cwd=nickel)
    assert "members" in ran.out and "d1009" in ran.out


def test_a_bias_that_is_binned_otherwise_is_refused_by_name(nickel: Path, tmp_path: Path) -> None:
    odd = write_raw(
        tmp_path / "binned.fits",
        np.full((2048, 2112), 1000, np.uint16),
        {
            "INSTRUME": "Nickel Direct Camera",
            "VERSION": "nickel_direct",
            "OBSTYPE": "DARK",
            "DATE-BEG": "2017-03-03T02:20:00.0",
            "COVER": 64,
            "ROVER": 0,
            "CDELT1U": -1,
            "CDELT2U": -1,
            "READ-SPD": 80,
            "GAIN": 1,
            "GEOMCODE": 0,
            "OBSNUM": 900,
            "EGAIN": None,
            "DETECTOR": None,
            "IMAGETYP": None,
        },
    )
    biases = awe("query", "raw_bias", cwd=nickel).split()
    ran = program("bias", "-o", tmp_path / "bias.fits", *biases, odd, cwd=nickel)
    assert ran.code == 4 and "mixture" in ran.err and "binned.fits" in ran.err and "binning" in ran.err
    assert not (tmp_path / "bias.fits").exists()


def test_stl1001_has_a_bias_for_each_temperature(tmp_path: Path) -> None:
    folder = data_path("stl1001-calib-20170908")
    root = store_with(tmp_path, folder)
    truth = truth_of(folder)
    rows = rows_of(root, "raw", "path", "frame_type", "exptime_s")
    assert len(rows) == 23
    for row in rows:
        true = truth[str(Path(str(row["path"])).relative_to(folder.resolve()))]
        assert row["frame_type"] == TYPES[true["true_type"]], row
        assert row["exptime_s"] == float(true["EXPTIME"])
    awe("bias", "-q", stdin=awe("query", "raw_bias", cwd=root), cwd=root)
    made = rows_of(root, "bias", "temperature_set_c", "frames", "flags", "level_adu")
    assert {(row["temperature_set_c"], row["frames"], row["flags"]) for row in made} == {
        (-5.0, 5, 0),
        (-10.0, 3, 0),
    }
    mixed = awe("query", "raw_bias", cwd=root).split()
    ran = program("bias", "-o", "mixed.fits", *mixed, cwd=root)
    assert ran.code == 4 and "temperature_set_c" in ran.err


def test_sinistro_amplifiers_are_assembled_the_right_way_round(tmp_path: Path) -> None:
    raw = data_path("single-frames/lco-sinistro-raw-mef-20211007.fits.gz")
    awe("reduce", "-q", "--no-bias", "--no-flat", "-o", "red.fits", raw, cwd=tmp_path)
    with open_fits(tmp_path / "red.fits") as fits:
        image = fits.image("SCI")
    assert image.shape == (1024, 1024)
    # Light goes on across the borders of the amplifiers: the lines beside each border are alike, and
    # would not be if a quadrant were mirrored or stood elsewhere.
    right, mirrored, elsewhere = [], [], []
    for lines in (np.clip(image, 0, 400), np.clip(image.T, 0, 400)):
        for half in (slice(0, 512), slice(512, 1024)):
            below, above, far = (lines[start : start + 3, half].mean(axis=0) for start in (509, 512, 1021))
            right.append(np.corrcoef(below, above)[0, 1])
            mirrored.append(np.corrcoef(below, above[::-1])[0, 1])
            elsewhere.append(np.corrcoef(below, far)[0, 1])
    assert sum(right) > 3 * max(sum(mirrored), sum(elsewhere)), (right, mirrored, elsewhere)
    assert all(one > other for one, other in zip(right, mirrored, strict=True))
    levels = [np.median(image[y : y + 512, x : x + 512]) for y in (0, 512) for x in (0, 512)]
    assert np.ptp(levels) < 0.04 * np.mean(levels)
