"""The simulated night: its noise, geometry and truth are what they are said to be, and its bytes repeat."""

from __future__ import annotations

import csv
import datetime
import hashlib
import json
import math
import multiprocessing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import Angle
from astropy.io import fits
from astropy.time import Time
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from awetools.core.errors import BadValue, WouldOverwrite
from awetools.core.simulate import MODEL, NightSpec
from awetools.core.simulate.camera import make_detector
from awetools.core.simulate.night import Summary, simulate_night
from awetools.core.simulate.plan import (
    SITE_LATITUDE_DEG,
    SITE_LONGITUDE_DEG,
    plan_night,
    sidereal_deg,
    stream,
)
from awetools.core.simulate.readout import bleed, cosmic_rays, poisson, repel
from awetools.core.simulate.render import Psf, Sources, draw, point_sources

SPEC = NightSpec(
    shape=(512, 512), biases=6, flats=8, twilights=2, darks=2, exposures=2, filters=("R", "I"),
    stars_per_arcmin2=40, seed=7,
)  # fmt: skip
TINY = NightSpec(shape=(96, 64), biases=2, flats=2, twilights=1, darks=1, exposures=2, stars_per_arcmin2=200)


@dataclass(frozen=True)
class Night:
    """A simulated night on disk, with its CSV and JSON read."""

    directory: Path
    summary: Summary
    rows: list[dict[str, str]]
    run: dict[str, Any]

    def of(self, obstype: str, detector: str = "sim1", name: str | None = None) -> list[dict[str, str]]:
        """The rows of one type of frame."""
        return [
            row
            for row in self.rows
            if row["obstype"] == obstype and row["detector"] == detector and name in (None, row["filter"])
        ]

    def raw(self, row: dict[str, str]) -> np.ndarray:
        """The pixels of a raw frame."""
        return np.asarray(fits.getdata(self.directory / row["file"]), float)

    def truth(self, name: str) -> np.ndarray:
        """A truth image."""
        return np.asarray(fits.getdata(self.directory / "truth" / f"{name}.fits"), float)

    def exposure(self, row: dict[str, str]) -> dict[str, Any]:
        """What run.json says of the row's exposure."""
        return next(one for one in self.run["exposures"] if one["number"] == int(row["number"]))

    def detector(self, name: str) -> dict[str, Any]:
        """What run.json says of a detector."""
        return next(one for one in self.run["camera"]["detectors"] if one["name"] == name)


def stem(row: dict[str, str]) -> str:
    return Path(row["file"]).stem


def load(directory: Path, summary: Summary) -> Night:
    with (directory / "frames.csv").open(newline="") as stream_in:
        rows = list(csv.DictReader(stream_in))
    return Night(directory, summary, rows, json.loads((directory / "run.json").read_text()))


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    directory = tmp_path_factory.mktemp("simulated") / "night"
    return load(directory, simulate_night(directory, SPEC, processes=2))


def section(text: str) -> tuple[slice, slice]:
    """An IRAF section, as (rows, columns)."""
    columns, rows = (part.split(":") for part in text.strip("[]").split(","))
    return slice(int(rows[0]) - 1, int(rows[1])), slice(int(columns[0]) - 1, int(columns[1]))


def reduced_by_header(night: Night, row: dict[str, str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(raw - overscan) put together by the sections of the header, and maps of gain and read noise (ADU).

    The overscan is fitted with the functions that the drift is made of, so that it adds next to no noise.
    """
    raw, header = night.raw(row), fits.getheader(night.directory / row["file"])
    up = np.arange(raw.shape[0]) / raw.shape[0]
    terms = [np.ones_like(up), up, np.exp(-up / 0.05), np.sin(2 * np.pi * up), np.cos(2 * np.pi * up)]
    basis = np.stack(terms, axis=1)
    nx = sum(section(header["DATASEC" + suffix])[1].stop - section(header["DATASEC" + suffix])[1].start
             for suffix in "AB")  # fmt: skip
    data, gain, noise = (np.empty((raw.shape[0], nx)) for _ in range(3))
    for suffix in "AB":
        place = section(header["TRIMSEC" + suffix])
        rows = raw[section(header["BIASSEC" + suffix])].mean(axis=1)
        level = basis @ np.linalg.lstsq(basis, rows, rcond=None)[0]
        data[place] = raw[section(header["DATASEC" + suffix])] - level[:, None]
        gain[place] = header["GAIN" + suffix]
        noise[place] = header["RDNOISE" + suffix] / header["GAIN" + suffix]
    return data, gain, noise


def mosaic(night: Night, detector: str) -> tuple[np.ndarray, np.ndarray]:
    """X and Y of the pixels, -1 to 1 over the mosaic."""
    one, gap = night.detector(detector), night.run["camera"]["gap_px"]
    count = len(night.run["camera"]["detectors"])
    half = (count * one["nx"] + (count - 1) * gap) / 2
    x = (one["index"] * (one["nx"] + gap) + np.arange(one["nx"]) + 0.5 - half) / half
    y = (np.arange(one["ny"]) + 0.5) / (one["ny"] / 2) - 1
    return x[None, :], y[:, None]


def pull(residual: np.ndarray, variance: np.ndarray, good: np.ndarray) -> tuple[float, float]:
    """Mean and width of residual / sigma over good pixels."""
    values = (residual / np.sqrt(variance))[good]
    return float(values.mean()), float(values.std())


# What is written


def test_files_and_counts(night: Night) -> None:
    assert night.summary.counts == {"BIAS": 12, "DOMEFLAT": 32, "SKYFLAT": 8, "OBJECT": 8, "DARK": 4}
    assert [path.relative_to(night.directory).as_posix() for path in night.summary.raw] == [
        row["file"] for row in night.rows
    ]
    assert all(path.is_file() for path in night.summary.raw)
    files = [path for path in night.directory.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) == night.summary.bytes_written
    assert not [path for path in files if path.name.startswith(".")]
    for row in night.of("OBJECT") + night.of("OBJECT", "sim2"):
        for place in (f"science/{stem(row)}.fits", f"mask/{stem(row)}.fits", f"wcs/{stem(row)}.head"):
            assert (night.directory / "truth" / place).is_file()
    assert night.run["parameters"]["seed"] == 7
    assert "GAINA" in MODEL and "flat_adu" in MODEL


def test_raw_header(night: Night) -> None:
    row = night.of("OBJECT", "sim2")[0]
    header = fits.getheader(night.directory / row["file"])
    assert (header["INSTRUME"], header["DETECTOR"], header["OBSTYPE"]) == ("SIMCAM", "sim2", "OBJECT")
    assert (header["BITPIX"], header["BZERO"], header["NAXIS1"], header["NAXIS2"]) == (16, 32768, 576, 512)
    assert header["DATASECA"] == "[33:288,1:512]" and header["DATASECB"] == "[289:544,1:512]"
    assert header["BIASSECA"] == "[1:32,1:512]" and header["BIASSECB"] == "[545:576,1:512]"
    assert header["TRIMSECA"] == "[1:256,1:512]" and header["TRIMSECB"] == "[257:512,1:512]"
    assert header["FILTER"] == row["filter"] and header["EXPNUM"] == int(row["number"])
    gains = [header["GAINA"], header["GAINB"]]
    assert max(gains) / min(gains) < 1.03 and header["RDNOISEA"] != header["RDNOISEB"]
    assert "FILTER" not in fits.getheader(night.directory / night.of("BIAS")[0]["file"])


def test_one_amplifier(tmp_path: Path) -> None:
    spec = replace(TINY, amplifiers=1, detectors=1, shape=(97, 64))
    summary = simulate_night(tmp_path, spec)
    header = fits.getheader(summary.raw[0])
    assert (header["DATASEC"], header["BIASSEC"], header["TRIMSEC"]) == (
        "[33:129,1:64]", "[1:32,1:64]", "[1:97,1:64]",
    )  # fmt: skip
    assert "GAINA" not in header and header["GAIN"] > 0 and header["RDNOISE"] > 0


def test_every_exposure_belongs_to_the_evening(night: Night) -> None:
    for row in night.rows:
        start = datetime.datetime.fromisoformat(row["start_utc"])
        local = start + datetime.timedelta(hours=SITE_LONGITUDE_DEG / 15)
        assert (local - datetime.timedelta(hours=12)).date().isoformat() == SPEC.night
    starts = [row["start_utc"] for row in night.rows if row["detector"] == "sim1"]
    assert starts == sorted(starts)


def test_airmass_and_sidereal_time_agree_with_astropy(night: Night) -> None:
    row = night.of("OBJECT")[0]
    exposure = night.exposure(row)
    middle = datetime.datetime.fromisoformat(exposure["start"]) + datetime.timedelta(seconds=60)
    theirs = Time(middle, scale="ut1").sidereal_time("mean", Angle(SITE_LONGITUDE_DEG, units.deg))
    assert sidereal_deg(middle) == pytest.approx(theirs.deg, abs=0.01)
    ra, dec = exposure["conditions"]["nominal_deg"]
    hour_angle = math.radians(theirs.deg - ra)
    latitude, dec = math.radians(SITE_LATITUDE_DEG), math.radians(dec)
    sine = math.sin(latitude) * math.sin(dec) + math.cos(latitude) * math.cos(dec) * math.cos(hour_angle)
    assert float(row["airmass"]) == pytest.approx(1 / sine, abs=1e-3)
    assert 1 <= float(row["airmass"]) < 1.5


# Noise


@pytest.mark.parametrize("detector", ["sim1", "sim2"])
def test_bias_pairs_show_the_read_noise(night: Night, detector: str) -> None:
    frames = [night.raw(row) for row in night.of("BIAS", detector)]
    for amplifier in night.detector(detector)["amplifiers"]:
        columns = slice(*amplifier["data"])
        variances = []
        for one, other in zip(frames[::2], frames[1::2], strict=True):
            difference = (one - other)[:, columns]
            difference -= difference.mean(axis=1, keepdims=True)
            width = difference.shape[1]
            variances.append(difference.var() * width / (width - 1) / 2 - 1 / 12)
        assert math.sqrt(np.mean(variances)) == pytest.approx(amplifier["read_noise_adu"], rel=0.01)


@pytest.mark.parametrize("detector", ["sim1", "sim2"])
def test_photon_transfer_gives_the_gain(night: Night, detector: str) -> None:
    rows = night.of("DOMEFLAT", detector, "R")
    good = night.truth(f"pixmask_{detector}") == 0
    levels = [float(row["level_adu"]) for row in rows]
    assert min(levels) > 9e3 and max(levels) < 38e3 and max(levels) / min(levels) > 1.5
    frames = [reduced_by_header(night, row)[0] for row in rows]
    for amplifier in night.detector(detector)["amplifiers"]:
        columns = slice(*amplifier["target"])
        chosen = good[:, columns]
        gains = []
        for one, other in zip(frames[::2], frames[1::2], strict=True):
            a, b = one[:, columns][chosen], other[:, columns][chosen]
            b = b * (a.mean() / b.mean())
            difference = a - b
            kept = np.abs(difference) < 5 * difference.std()
            variance = difference[kept].var() / 2 - amplifier["read_noise_adu"] ** 2 - 1 / 12
            gains.append(a.mean() / variance)
        assert np.mean(gains) == pytest.approx(amplifier["gain_e_adu"], rel=0.01)


@given(st.floats(0.5, 1e5))
@settings(max_examples=25, deadline=None)
def test_poisson_has_its_moments(expected: float) -> None:
    count = 40000
    values = poisson(stream(1, "test", expected), np.full(count, expected, np.float32)).astype(float)
    assert values.mean() == pytest.approx(expected, abs=5 * math.sqrt(expected / count))
    error = math.sqrt((2 + 1 / expected) / count)
    assert values.var() / expected == pytest.approx(1, abs=5 * error)
    skewness = ((values - values.mean()) ** 3).mean() / values.std() ** 3
    assert skewness == pytest.approx(expected**-0.5, abs=max(0.07, 0.15 * expected**-0.5))


def test_streams_of_frames_are_independent(night: Night) -> None:
    rows = night.of("BIAS")[:3] + night.of("BIAS", "sim2")[:2] + night.of("DARK")[:1]
    noise = []
    for row in rows:
        data, _, _ = reduced_by_header(night, row)
        data -= night.truth(f"bias_{row['detector']}")
        bad = night.truth(f"pixmask_{row['detector']}") > 0
        flat = np.clip(np.where(bad, 0, data), -15, 15).ravel()
        noise.append(flat - flat.mean())
    correlation = np.corrcoef(noise)
    apart = correlation[~np.eye(len(rows), dtype=bool)]
    # Darks have structure; biases have noise only.
    assert np.abs(apart).max() < 5 / math.sqrt(noise[0].size)


def test_overscan_drifts_along_the_rows_and_between_frames(night: Night) -> None:
    levels = []
    for row in night.of("BIAS"):
        for amplifier in night.detector("sim1")["amplifiers"]:
            strip = night.raw(row)[:, slice(*amplifier["overscan"])]
            assert strip[:5].mean() - strip[60:120].mean() > 1.0
            levels.append(strip[300:].mean() - amplifier["bias_level_adu"])
    assert 1.0 < np.std(levels) < 8.0


# Truth


@pytest.mark.parametrize("detector", ["sim1", "sim2"])
def test_science_frames_reduce_to_the_truth(night: Night, detector: str) -> None:
    for row in night.of("OBJECT", detector):
        data, gain, read_noise = reduced_by_header(night, row)
        response, flat = (night.truth(f"{kind}_{row['filter']}_{detector}") for kind in ("flat", "flat_adu"))
        dark_e = night.truth(f"dark_{detector}") * float(row["exptime_s"])
        truth = night.truth(f"science/{stem(row)}")
        reduced = (data - night.truth(f"bias_{detector}") - dark_e / gain) / flat
        light_e = truth * float(row["effective_gain_e_adu"]) * response
        variance = ((light_e + dark_e) / gain**2 + read_noise**2 + 1 / 12) / flat**2
        # Trails are light, so they belong to the truth; what else is masked does not.
        good = (night.truth(f"mask/{stem(row)}").astype(int) & ~16) == 0
        good &= night.truth(f"pixmask_{detector}") == 0
        assert good.mean() > 0.98
        mean, width = pull(reduced - truth, variance, good)
        assert abs(mean) < 0.02
        assert width == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("obstype", "name"), [("DOMEFLAT", "R"), ("DOMEFLAT", "I"), ("SKYFLAT", "I")])
def test_flats_show_the_response_times_the_lamp(night: Night, obstype: str, name: str) -> None:
    for detector in ("sim1", "sim2"):
        row = night.of(obstype, detector, name)[1]
        lamp = night.exposure(row)["lamp"]
        x, y = mosaic(night, detector)
        shape = 1 + lamp["gradient"][0] * x + lamp["gradient"][1] * y + lamp["bowl"] * (x * x + y * y)
        light = float(row["level_adu"]) * shape / shape.mean()
        data, gain, read_noise = reduced_by_header(night, row)
        data -= night.truth(f"bias_{detector}")
        flat = night.truth(f"flat_adu_{name}_{detector}")
        if obstype == "SKYFLAT":
            # The stars make the mean level uncertain: take the median's.
            light *= np.median(data / (flat * light))
        residual = data - light * flat
        variance = np.maximum(light * flat, 1) / gain + read_noise**2 + 1 / 12
        good = (night.truth(f"pixmask_{detector}") == 0) & (np.abs(residual) < 6 * np.sqrt(variance))
        assert good.mean() > 0.97
        mean, width = pull(residual, variance, good)
        assert abs(mean) < 0.05
        assert width == pytest.approx(1, abs=0.02)


def test_darks_show_the_dark_current_and_biases_the_bias(night: Night) -> None:
    row = night.of("DARK")[0]
    data, gain, read_noise = reduced_by_header(night, row)
    dark_e = night.truth("dark_sim1") * float(row["exptime_s"])
    good = night.truth(f"mask/{stem(row)}") == 0
    variance = dark_e / gain**2 + read_noise**2 + 1 / 12
    mean, width = pull(data - night.truth("bias_sim1") - dark_e / gain, variance, good)
    assert abs(mean) < 0.02
    assert width == pytest.approx(1, abs=0.01)
    hot = (night.truth("pixmask_sim1").astype(int) & 1) > 0
    assert (night.truth("dark_sim1")[hot] > 0.3).all()
    assert (night.truth("bias_sim1")[hot] > 2).all()


def test_flat_maps(night: Night) -> None:
    for detector in ("sim1", "sim2"):
        good = night.truth(f"pixmask_{detector}") == 0
        cold = (night.truth(f"pixmask_{detector}").astype(int) & 2) > 0
        amplifiers = night.detector(detector)["amplifiers"]
        for name in SPEC.filters:
            response, flat = (night.truth(f"{kind}_{name}_{detector}") for kind in ("flat", "flat_adu"))
            assert response[good].mean() == pytest.approx(1, abs=1e-5)
            assert flat[good].mean() == pytest.approx(1, abs=1e-5)
            assert (response[cold] < 0.9).all() and (flat > 0).all()
            ratio = flat / response
            means = [ratio[:, slice(*amplifier["target"])].mean() for amplifier in amplifiers]
            gains = [amplifier["gain_e_adu"] for amplifier in amplifiers]
            assert means[0] / means[1] == pytest.approx(gains[1] / gains[0], rel=1e-6)
        between = night.truth(f"flat_R_{detector}") / night.truth(f"flat_I_{detector}")
        assert 0.002 < between[good].std() < 0.05


def test_saturated_pixels_are_marked(night: Night) -> None:
    marked = 0
    for detector in ("sim1", "sim2"):
        for row in night.of("OBJECT", detector):
            header = fits.getheader(night.directory / row["file"])
            raw, mask = night.raw(row), night.truth(f"mask/{stem(row)}").astype(int)
            high = np.zeros(mask.shape, bool)
            for suffix in "AB":
                data = raw[section(header["DATASEC" + suffix])]
                high[section(header["TRIMSEC" + suffix])] = data >= header["SATURATE"]
            assert (mask[high] & 4).all()
            assert int(row["saturated_px"]) == np.count_nonzero(mask & 4)
            marked += int(high.sum())
    assert marked > 50


def test_cosmic_rays_and_trails_are_marked(night: Night) -> None:
    for detector in ("sim1", "sim2"):
        rows = night.of("OBJECT", detector)
        assert sum(int(row["cosmic_px"]) for row in rows) > 20
        for row in rows:
            has_trail = night.exposure(row)["conditions"]["trail"] is not None
            assert has_trail == (night.exposure(row)["index"] == 2)
            assert (int(row["trail_px"]) > 0) == has_trail
    row = night.of("DARK")[0]
    data, gain, read_noise = reduced_by_header(night, row)
    excess = data - night.truth("bias_sim1") - night.truth("dark_sim1") * float(row["exptime_s"]) / gain
    hit = (night.truth(f"mask/{stem(row)}").astype(int) & 8) > 0
    hit &= night.truth("pixmask_sim1") == 0
    assert hit.sum() > 20 and np.median(excess[hit]) > 5 * read_noise.mean()


# Sky


def centroid(image: np.ndarray, x: float, y: float) -> tuple[float, float]:
    """Windowed centroid near a 0-based position: Gaussian weight, fixed-point iteration."""
    x0, y0 = round(x), round(y)
    part = image[y0 - 10 : y0 + 11, x0 - 10 : x0 + 11]
    gy, gx = np.mgrid[y0 - 10 : y0 + 11, x0 - 10 : x0 + 11]
    for _ in range(40):
        weight = part * np.exp(-((gx - x) ** 2 + (gy - y) ** 2) / (2 * 2.0**2))
        x += 2 * ((gx - x) * weight).sum() / weight.sum()
        y += 2 * ((gy - y) * weight).sum() / weight.sum()
    return x, y


@pytest.mark.parametrize("detector", ["sim1", "sim2"])
def test_head_puts_stars_where_they_are(night: Night, detector: str) -> None:
    row = night.of("OBJECT", detector, "R")[0]
    head = (night.directory / "truth" / "wcs" / f"{stem(row)}.head").read_text()
    wcs = WCS(fits.Header.fromstring(head, sep="\n"))
    catalogue = fits.getdata(night.directory / "truth" / "catalog.fits", 1)
    x, y = wcs.all_world2pix(catalogue["RA"], catalogue["DEC"], 0)
    magnitude = catalogue["MAG_R"]
    light = night.truth(f"science/{stem(row)}")
    found = 0
    inside = (x > 15) & (x < 497) & (y > 15) & (y < 497)
    for index in np.flatnonzero(inside & (magnitude < 20.5) & (catalogue["TYPE"] == "STAR")):
        distance = np.hypot(x - x[index], y - y[index])
        near = (distance < 25) & (distance > 0)
        if (magnitude[near] < magnitude[index] + 4).any():
            continue
        stamp = light[int(y[index]) - 12 : int(y[index]) + 13, int(x[index]) - 12 : int(x[index]) + 13]
        cx, cy = centroid(light - np.median(stamp), float(x[index]), float(y[index]))
        assert math.hypot(cx - x[index], cy - y[index]) < 0.05
        found += 1
    assert found >= 3


def test_distortion_grows_with_the_square_of_the_radius(night: Night) -> None:
    row = night.of("OBJECT", "sim1", "R")[0]
    head = fits.Header.fromstring(
        (night.directory / "truth" / "wcs" / f"{stem(row)}.head").read_text(), sep="\n"
    )
    plane = head.copy()
    for key in [key for key in head if key.startswith("PV")]:
        del plane[key]
    plane["CTYPE1"], plane["CTYPE2"] = "RA---TAN", "DEC--TAN"
    axis = np.array([head["CRPIX1"] - 1, head["CRPIX2"] - 1])
    points = stream(1, "points").uniform(-0.6, 0.6, (20, 2)) * SPEC.corner_px

    def moved(offset: np.ndarray) -> np.ndarray:
        sky = WCS(head).all_pix2world(axis + offset, 0)
        return np.asarray(WCS(plane).all_world2pix(sky, 0) - axis - offset)

    # The detector's own quadratic terms are the same at opposite points, the optic's cubic ones opposite.
    cubic = (moved(points) - moved(-points)) / 2
    radius2 = (points**2).sum(axis=1, keepdims=True) / SPEC.corner_px**2
    assert cubic == pytest.approx(0.005 * radius2 * points, rel=2e-3, abs=1e-4)
    assert 0.001 < np.abs(moved(points) + moved(-points)).max() < 2


def test_raw_wcs_is_nominal_and_shifted_by_the_overscan(night: Night) -> None:
    row = night.of("OBJECT", "sim2", "R")[0]
    header = fits.getheader(night.directory / row["file"])
    nominal = WCS(header)
    head = (night.directory / "truth" / "wcs" / f"{stem(row)}.head").read_text()
    true = WCS(fits.Header.fromstring(head, sep="\n"))
    conditions = night.exposure(row)["conditions"]
    assert [header["CRVAL1"], header["CRVAL2"]] == [header["RA"], header["DEC"]] == conditions["nominal_deg"]
    corners = np.array([[0.0, 0.0], [511.0, 0.0], [0.0, 511.0], [511.0, 511.0]])
    apart = nominal.pixel_to_world(corners[:, 0] + 32, corners[:, 1]).separation(
        true.pixel_to_world(corners[:, 0], corners[:, 1])
    )
    error = math.hypot(*conditions["pointing_error_arcsec"])
    assert np.abs(apart.arcsec - error).max() < 4.0
    assert apart.arcsec.std() > 0.01


def test_zero_point_gives_catalogue_magnitudes(night: Night) -> None:
    row = night.of("OBJECT", "sim1", "I")[0]
    head = (night.directory / "truth" / "wcs" / f"{stem(row)}.head").read_text()
    catalogue = fits.getdata(night.directory / "truth" / "catalog.fits", 1)
    x, y = WCS(fits.Header.fromstring(head, sep="\n")).all_world2pix(catalogue["RA"], catalogue["DEC"], 0)
    light = night.truth(f"science/{stem(row)}")
    gy, gx = np.mgrid[0:512, 0:512]
    inside = (x > 30) & (x < 482) & (y > 30) & (y < 482)
    differences = []
    for index in np.flatnonzero(inside & (catalogue["MAG_I"] < 18.5) & (catalogue["TYPE"] == "STAR")):
        radius = np.hypot(gx - x[index], gy - y[index])
        ring = np.median(light[(radius > 20) & (radius < 28)])
        flux = (light - ring)[radius < 16].sum() / float(row["exptime_s"])
        magnitude = float(row["zero_point_mag"]) - 2.5 * math.log10(flux)
        differences.append(magnitude - catalogue["MAG_I"][index])
    assert len(differences) >= 3
    assert abs(np.median(differences)) < 0.02
    colours = catalogue["MAG_R"] - catalogue["MAG_I"]
    assert colours.std() > 0.1


def test_reference_has_its_errors(night: Night) -> None:
    reference = fits.getdata(night.directory / "reference.fits", 1)
    catalogue = fits.getdata(night.directory / "truth" / "catalog.fits", 1)
    true = catalogue[reference["ID"] - 1]
    assert (true["TYPE"] == "STAR").all() and len(reference) > 30
    years = night.run["sky"]["epoch_yr"] - reference["REF_EPOCH"]
    east = (reference["RA"] - true["RA"]) * np.cos(np.radians(true["DEC"])) * 3.6e6
    north = (reference["DEC"] - true["DEC"]) * 3.6e6
    east, north = east + reference["PMRA"] * years, north + reference["PMDEC"] * years
    expected = math.hypot(20, 0.2 * years[0])
    tolerance = 5 / math.sqrt(2 * 2 * len(reference))
    assert np.std([east, north]) / expected == pytest.approx(1, abs=tolerance)
    assert np.std(reference["MAG_R"] - true["MAG_R"]) == pytest.approx(0.01, rel=2 * tolerance)


# Drawing and charge


@given(
    fwhm=st.floats(1.2, 6.0),
    x=st.floats(19.0, 22.0),
    y=st.floats(19.0, 22.0),
    e1=st.floats(-0.1, 0.1),
    e2=st.floats(-0.1, 0.1),
)
@settings(max_examples=15, deadline=None)
def test_drawn_stars_are_moffat_profiles_over_square_pixels(
    fwhm: float, x: float, y: float, e1: float, e2: float
) -> None:
    image = np.zeros((41, 41))
    draw(image, point_sources(np.array([x]), np.array([y]), np.array([1e5])), Psf(fwhm, (e1, e2)))
    nodes, weights = np.polynomial.legendre.leggauss(9)
    sub = (np.arange(41)[:, None] + nodes[None, :] / 2).ravel()
    dx, dy = sub[None, :] - x, sub[:, None] - y
    # The transform's argument is sheared by A, so the profile's is by its inverse.
    area = 1 - e1 * e1 - e2 * e2
    rx, ry = (((1 - e1) * dx - e2 * dy) / area**0.5, ((1 + e1) * dy - e2 * dx) / area**0.5)
    alpha = fwhm / (2 * math.sqrt(2 ** (1 / 3.5) - 1))
    profile = 2.5 / (math.pi * alpha**2) * (1 + (rx**2 + ry**2) / alpha**2) ** -3.5
    expected = 1e5 / 4 * np.einsum("ajbk,j,k->ab", profile.reshape(41, 9, 41, 9), weights, weights)
    assert np.abs(image - expected).max() < 3e-4 * expected.max()
    assert image.sum() == pytest.approx(expected.sum(), rel=1e-3)


@pytest.mark.parametrize(("bulge", "radius"), [(0.0, 30.0), (1.0, 20.0)])
def test_drawn_galaxies_hold_half_their_light_within_the_half_light_radius(
    bulge: float, radius: float
) -> None:
    one, image = np.ones(1), np.zeros((801, 801))
    galaxy = Sources(
        400 * one, 400 * one, 1e6 * one, 30 * one, 20 * one, bulge * one, 0.5 * one, 0 * one, one
    )  # fmt: skip
    draw(image, galaxy, Psf(1.2))
    gy, gx = np.mgrid[0:801, 0:801] - 400.0
    assert image.sum() == pytest.approx(1e6, rel=1e-3)
    assert image[np.hypot(gx / 0.5, gy) < radius].sum() == pytest.approx(5e5, rel=0.01)
    assert (image * gy**2).sum() / (image * gx**2).sum() == pytest.approx(4, rel=0.05)


@given(st.lists(st.tuples(st.integers(0, 99), st.floats(0, 600)), max_size=12))
@settings(deadline=None)
def test_bleeding_keeps_charge_and_full_wells(peaks: list[tuple[int, float]]) -> None:
    charge = np.full((300, 3), 10, np.float32)
    for row, value in peaks:
        charge[100 + row, 1] += np.float32(value)
    before = charge.copy()
    touched = bleed(charge, 100.0)
    assert charge.max() <= 100
    assert charge.sum(dtype=float) == pytest.approx(before.sum(dtype=float), rel=1e-6)
    assert (charge[~touched] == before[~touched]).all()
    assert touched[before > 100].all()


def test_bleeding_at_the_edge_loses_charge() -> None:
    charge = np.zeros((10, 1), np.float32)
    charge[1] = 2000
    touched = bleed(charge, 100.0)
    assert touched.all() and (charge == 100).all()


def test_cosmic_rays_grow_with_time() -> None:
    few, many = (cosmic_rays(stream(1, "rays", time), (500, 500), time) for time in (100.0, 3000.0))
    assert 0 < np.count_nonzero(few) < np.count_nonzero(many) / 5
    assert not cosmic_rays(stream(1, "rays"), (100, 100), 0.0).any()


# Repeatability


def digests(directory: Path) -> dict[str, str]:
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_same_bytes_whatever_the_processes(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    simulate_night(tmp_path / "one", TINY, progress=lambda done, total: calls.append((done, total)))
    simulate_night(tmp_path / "three", TINY, processes=3)
    assert digests(tmp_path / "one") == digests(tmp_path / "three")
    total = TINY.detectors * (2 + 2 + 1 + 2 + 1)
    assert calls == [(done, total) for done in range(1, total + 1)]
    simulate_night(tmp_path / "other", replace(TINY, seed=2))
    same = digests(tmp_path / "one").items() & digests(tmp_path / "other").items()
    assert not [name for name, _ in same if name.startswith("raw/")]


def test_frames_do_not_depend_on_how_many_others_there_are(tmp_path: Path) -> None:
    few = load(tmp_path / "few", simulate_night(tmp_path / "few", TINY))
    more_spec = replace(TINY, biases=4, flats=3, twilights=2, darks=2, exposures=3)
    more = load(tmp_path / "more", simulate_night(tmp_path / "more", more_spec))
    named = {(row["obstype"], row["filter"], row["index"], row["detector"]): row for row in more.rows}
    for row in few.rows:
        twin = named[row["obstype"], row["filter"], row["index"], row["detector"]]
        assert (few.raw(row) == more.raw(twin)).all()


def test_an_interrupt_leaves_no_half_files_and_no_processes(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate_night(tmp_path / "night", TINY, processes=2, progress=interrupt)
    assert not multiprocessing.active_children()
    assert not list((tmp_path / "night").rglob(".*"))
    assert not (tmp_path / "night" / "run.json").exists()


def test_existing_directory_is_refused(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("precious")
    with pytest.raises(WouldOverwrite, match="not an empty directory"):
        simulate_night(tmp_path, TINY)
    with pytest.raises(WouldOverwrite):
        simulate_night(mine, TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_night_of_nothing_but_truth(tmp_path: Path) -> None:
    spec = NightSpec(
        shape=(64, 64), biases=0, flats=0, twilights=0, darks=0, exposures=0, stars_per_arcmin2=0,
        galaxies_per_arcmin2=0,
    )  # fmt: skip
    summary = simulate_night(tmp_path / "new" / "night", spec, processes=2)
    assert summary.raw == () and summary.sources == 0
    assert (summary.directory / "truth" / "bias_sim2.fits").is_file()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"detectors": 0}, "detectors = 0 .*1 to 64"),
        ({"biases": -1}, "biases = -1 .*at least 0"),
        ({"exposures": 2.5}, "exposures = 2.5 .*not a whole number"),
        ({"shape": (32, 64)}, "shape = \\(32, 64\\) .*64 to 32768"),
        ({"shape": (65, 64)}, "even number of columns"),
        ({"shape": "64x64"}, "two whole numbers"),
        ({"filters": ("Q",)}, "filters = 'Q' .*one of U B V R I"),
        ({"filters": ()}, "at least one"),
        ({"filters": ("R", "R")}, "only once"),
        ({"seeing_arcsec": 0.2}, "seeing_arcsec = 0.2 .*0.3 to 10"),
        ({"pixel_scale_arcsec": 30.0, "seeing_arcsec": 60.0}, "pixel_scale_arcsec = 30 .*at most 5 deg"),
        ({"night": "2024-02-30"}, "night = '2024-02-30'.*YYYY-MM-DD"),
        ({"seed": -3}, "seed = -3 .*at least 0"),
        ({"exptime_s": float("nan")}, "exptime_s"),
        ({"amplifiers": 4}, "amplifiers = 4 .*1 to 2"),
    ],
)
def test_bad_values_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(BadValue, match=message):
        NightSpec(**wrong)


def test_a_night_has_an_end(tmp_path: Path) -> None:
    with pytest.raises(BadValue, match=r"400 exposures of the night .*at most 25200 s"):
        simulate_night(tmp_path / "long", NightSpec(exposures=400))
    assert not (tmp_path / "long").exists()
    with pytest.raises(BadValue, match="processes = 0"):
        simulate_night(tmp_path / "none", TINY, processes=0)


def test_dithers_never_repeat() -> None:
    shots = plan_night(NightSpec(exposures=30, biases=0, flats=0, twilights=0, darks=0))
    pointings = [shot.conditions.nominal_deg for shot in shots if shot.conditions]
    assert len(set(pointings)) == 30


# Nonlinearity, brighter-fatter effect, levels and lamp of the flats


def test_an_amplifier_loses_a_part_of_a_strong_signal_and_the_truth_says_where(tmp_path: Path) -> None:
    spec = replace(TINY, nonlinearity=0.05, biases=0, twilights=0, darks=0, exposures=0)
    straight = load(tmp_path / "a", simulate_night(tmp_path / "a", replace(spec, nonlinearity=0.0)))
    bent = load(tmp_path / "b", simulate_night(tmp_path / "b", spec))
    row = bent.of("DOMEFLAT")[0]
    true, read, bias = straight.raw(row), bent.raw(row), bent.truth("bias_sim1")
    for amplifier in bent.detector("sim1")["amplifiers"]:
        data, target = (slice(*amplifier[name]) for name in ("data", "target"))
        assert 0.8 * 0.05 <= amplifier["nonlinearity"] <= 1.2 * 0.05
        level = amplifier["bias_level_adu"]
        signal = true[:, data] - level - bias[:, target]
        lost = true[:, data] - read[:, data]
        assert np.abs(lost - amplifier["nonlinearity"] * signal**2 / 65535).max() < 12
        assert lost.mean() > 100
        at = amplifier["nonlinear_adu"] / 0.99
        assert amplifier["nonlinearity"] * at / 65535 == pytest.approx(0.01)
    for amplifier in straight.detector("sim1")["amplifiers"]:
        assert amplifier["nonlinearity"] == 0 and amplifier["nonlinear_adu"] is None


def test_a_nonlinear_amplifier_saturates_lower_and_never_turns_back() -> None:
    spec = replace(TINY, nonlinearity=0.2, gain_e_adu=0.5)
    detector = make_detector(spec, 0)
    assert detector.saturate_adu <= make_detector(replace(spec, nonlinearity=0.0), 0).saturate_adu
    signal = np.linspace(0, 400e3, 1000, dtype=np.float32)
    for amplifier in detector.amplifiers:
        read = amplifier.respond(signal)
        assert (np.diff(read) >= 0).all() and read.max() > 65535


@pytest.mark.parametrize("strength", [0.1, 0.25])
def test_fuller_pixels_share_their_charge(strength: float) -> None:
    mean = 50e3
    before = np.random.default_rng(1).normal(mean, math.sqrt(mean), (512, 512)).astype(np.float32)
    after = before.copy()
    repel(after, strength, full_well_e=1e5)
    assert after.sum(dtype=np.float64) == pytest.approx(before.sum(dtype=np.float64), rel=1e-6)
    # The first order in the strength, and the second of the same diffusion.
    expected = 1 - strength + 20 * (strength / 8) ** 2
    assert after.var() / before.var() == pytest.approx(expected, abs=0.012)
    inner = after - after.mean()
    across = 2 * (inner[:, 1:] * inner[:, :-1]).mean() + 2 * (inner[1:] * inner[:-1]).mean()
    assert (inner.var() + across) / before.var() == pytest.approx(1, abs=0.04)


def test_a_saturated_core_is_not_pushed_apart() -> None:
    image = np.zeros((5, 5), np.float32)
    image[2, 2] = 1e7
    repel(image, 0.3, full_well_e=1e5)
    assert image[2, 2] > 0.99e7 and (image >= 0).all()


def test_levels_drift_and_gain_of_flats() -> None:
    spec = replace(TINY, flats=8, flat_low_adu=1000.0, flat_high_adu=20000.0)
    lamps = [shot.lamp.level_adu for shot in plan_night(spec) if shot.lamp and shot.obstype == "DOMEFLAT"]
    assert min(lamps) < 4000 and 10000 < max(lamps) < 20000
    drifting = [
        shot.lamp.level_adu
        for shot in plan_night(replace(spec, lamp_drift=0.01))
        if shot.lamp and shot.obstype == "DOMEFLAT"
    ]
    assert np.array(drifting) / lamps == pytest.approx(1 + 0.01 * np.arange(8))
    gains = [one.gain_e_adu for one in make_detector(replace(TINY, gain_e_adu=4.0), 0).amplifiers]
    assert all(3.94 <= gain <= 4.06 for gain in gains)
    with pytest.raises(BadValue, match="flat_high_adu = 900"):
        replace(TINY, flat_low_adu=1000.0, flat_high_adu=900.0)


def test_scattered_light_is_in_flats_and_skies_and_its_truth_on_disk(tmp_path: Path) -> None:
    night = NightSpec(
        exposures=1,
        biases=1,
        flats=2,
        twilights=1,
        darks=0,
        shape=(96, 96),
        amplifiers=1,
        stars_per_arcmin2=0,
        galaxies_per_arcmin2=0,
    )
    light = {}
    for fraction in (0.0, 0.1):
        directory = tmp_path / f"night{fraction}"
        simulate_night(directory, replace(night, scattered_light=fraction))
        flat, sky = (sorted(directory.glob(one)) for one in ("raw/*2_sim1.fits", "truth/science/*sim1.fits"))
        light[fraction] = [np.asarray(fits.getdata(one[0]), np.float64) for one in (flat, sky)]
    assert not (tmp_path / "night0.0" / "truth" / "scattered_sim1.fits").exists()
    truth = np.asarray(fits.getdata(tmp_path / "night0.1" / "truth" / "scattered_sim1.fits"), np.float64)
    assert truth.mean() == pytest.approx(1, abs=1e-6) and np.ptp(truth) > 0.06
    ratio = light[0.1][1] / light[0.0][1]
    np.testing.assert_allclose(ratio / ratio.mean(), truth, rtol=2e-5)
    # Of noisy flats: the slope along the truth.
    flats = (light[0.1][0] / light[0.0][0])[:, -96:]
    assert np.polyfit(truth.ravel(), (flats / flats.mean()).ravel(), 1)[0] == pytest.approx(1, abs=0.1)
