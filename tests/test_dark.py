"""Master darks: the dark current put in comes out, cosmic rays and light do not, temperatures never mix."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from awetools.core.errors import AweError, BadHeader, BadPixels, Mixture, TooFew
from awetools.core.frame import Frame, FrameSet, RawFrame, Table
from awetools.core.kind import Result
from awetools.core.kinds.dark import DARK, DarkParams, make_dark, serves_frame
from awetools.core.kinds.hotpix import HotpixParams, make_hotpix
from awetools.core.pixels.mask import Bit
from awetools.core.store import init_store
from tests.support import awe, data_path, program, write_raw

SHAPE = (192, 160)
GAIN, READ_NOISE, BIAS = 2.0, 3.0, 1000.0
PARAMS = DarkParams(overscan_mode="none")
META: dict[str, Any] = {"read_noise_adu": [READ_NOISE], "gain_e_adu": [GAIN], "saturation_adu": [60000.0]}


def dark_rate(seed: int = 1) -> np.ndarray:
    """Dark current, ADU/s: a floor, a glow in a corner, and one hot pixel in 200."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    rate = 0.05 + 0.2 * np.exp(-(x + y) / 150)
    hot = rng.random(SHAPE) < 0.005
    rate[hot] += np.exp(rng.uniform(np.log(0.5), np.log(100), hot.sum()))
    return np.asarray(rate)


def exposures(
    times: Sequence[float], rate: np.ndarray, meta: Mapping[str, Any] = META, cosmic_fraction: float = 0.0
) -> FrameSet:
    """Raw darks of these times, with photon-like noise of the dark current, read noise and cosmic rays."""
    frames = []
    for number, seconds in enumerate(times):
        rng = np.random.default_rng(100 + number)
        electrons = rng.poisson(rate * GAIN * seconds) + 0.0
        electrons += np.where(rng.random(SHAPE) < cosmic_fraction, rng.uniform(30, 3000, SHAPE), 0)
        counts = np.rint(BIAS + electrons / GAIN + rng.normal(0, READ_NOISE, SHAPE))
        about = {
            "exposure": f"d{number}",
            "obs_start": f"2024-03-02T0{number}:00:00.000",
            "exptime_s": seconds,
        }
        frames.append(RawFrame.of_array(np.clip(counts, 0, 65535).astype(np.uint16), {**meta, **about}))
    return FrameSet(tuple(frames))


def master_bias() -> Frame:
    rng = np.random.default_rng(9)
    noise = READ_NOISE / np.sqrt(10)
    data = (BIAS + rng.normal(0, noise, SHAPE)).astype(np.float32)
    return Frame(data, np.full(SHAPE, 1 / noise**2, np.float32), None, {"read_noise_adu": [READ_NOISE]})


def pull(result: Result, true: np.ndarray) -> np.ndarray:
    """Error of the product in units of its own sigma, where it has a weight."""
    weight = result.planes["WEIGHT"]
    return np.asarray(((result.planes["SCI"] - true) * np.sqrt(weight))[weight > 0])


@pytest.mark.parametrize("times", [[300.0] * 3, [300.0] * 8, [10.0, 60.0, 60.0, 300.0, 300.0]])
def test_the_dark_current_comes_out_with_its_noise(times: list[float]) -> None:
    rate = dark_rate()
    result = make_dark(exposures(times, rate), bias=master_bias(), params=PARAMS)
    errors = pull(result, rate)
    assert abs(errors.mean()) < 0.05
    assert 0.9 < errors.std() < 1.15
    assert result.unit is None and "holds_bias" not in result.meta
    measures = result.measures
    assert measures["dark_current_adu_s"] == pytest.approx(np.median(rate), rel=0.05)
    assert measures["dark_current_e_s"] == pytest.approx(GAIN * np.median(rate), rel=0.05)
    assert measures["glow_adu_s"] == pytest.approx(0.1, abs=0.05)
    assert 0.004 < float(measures["warm_fraction"] or 0) < 0.007
    assert (measures["exptime_min_s"], measures["exptime_max_s"]) == (min(times), max(times))
    assert (measures["frames"], measures["left_out"]) == (len(times), 0)


def test_cosmic_rays_go_even_with_three_exposures() -> None:
    rate = np.full(SHAPE, 0.05)
    result = make_dark(exposures([600.0] * 3, rate, cosmic_fraction=0.01), bias=master_bias(), params=PARAMS)
    # Where two of three were hit nothing helps: 0.03% of the pixels.
    errors = pull(result, rate)
    assert (np.abs(errors) > 5).sum() <= 3 * 3e-4 * errors.size
    assert float(result.measures["rejected_fraction"] or 0) > 0.008


def test_cosmic_rays_of_a_long_exposure_go_among_short_ones() -> None:
    rate = np.full(SHAPE, 0.05)
    frames = exposures([60.0, 60.0, 300.0], rate, cosmic_fraction=0.005)
    result = make_dark(frames, bias=master_bias(), params=PARAMS)
    off = np.abs(result.planes["SCI"] - rate)
    # The short exposures tell what is above some 4 of their sigma (0.06 ADU/s) from dark current.
    assert (off > 0.4).sum() <= 1e-4 * off.size
    assert (result.planes["WEIGHT"] > 0).all()


def test_a_gain_and_a_read_noise_that_are_given_are_used() -> None:
    frames = exposures([300.0] * 4, np.full(SHAPE, 0.05), {"saturation_adu": [60000.0]})
    bias = replace(master_bias(), meta={})
    with pytest.raises(BadHeader, match="gain"):
        make_dark(frames, bias=bias, params=PARAMS)
    gain = Table({"AMP": np.array(["A"]), "GAIN_E_ADU": np.array([GAIN])})
    noise = Table({"AMP": np.array(["A"]), "READ_NOISE_ADU": np.array([READ_NOISE])})
    result = make_dark(frames, bias=bias, readnoise=noise, gain=gain, params=PARAMS)
    assert result.measures["read_noise_adu"] == READ_NOISE and result.used == {}
    # The shot noise of 15 ADU of dark current is in the noise of pairs.
    for given in (bias, None):
        result = make_dark(frames, bias=given, gain=gain, params=PARAMS)
        both = np.sqrt(READ_NOISE**2 + 15 / GAIN)
        assert result.measures["read_noise_adu"] == pytest.approx(both, rel=0.03)
        assert "pairs" in result.used["readnoise"]
    with pytest.raises(BadHeader, match="no two darks have one time"):
        times = [10.0, 60.0, 300.0]
        make_dark(exposures(times, dark_rate(), {"gain_e_adu": [GAIN]}), bias=bias, params=PARAMS)


def test_without_a_bias_it_is_kept_and_times_must_agree() -> None:
    rate = dark_rate()
    result = make_dark(exposures([120.0] * 4, rate), params=PARAMS)
    errors = pull(result, BIAS + 120 * rate)
    assert abs(errors.mean()) < 0.05 and 0.9 < errors.std() < 1.1
    assert result.unit == "adu" and result.meta == {"holds_bias": 1, "exptime_s": 120.0}
    assert result.measures["dark_current_e_s"] is None
    with pytest.raises(Mixture, match=r"d2: exptime_s is 60, but d0 has 120.*without a bias"):
        make_dark(exposures([120.0, 120.0, 60.0], rate), params=PARAMS)


def test_what_holds_its_bias_serves_equal_times_only() -> None:
    holding = {"holds_bias": 1, "exptime_s": 120.0}
    assert serves_frame(holding, {"exptime_s": 120.0}) == ""
    assert serves_frame(holding, {"exptime_s": 120.05}) == ""
    assert "120 s only, not 60 s" in serves_frame(holding, {"exptime_s": 60.0})
    assert "not those of unknown or differing times" in serves_frame(holding, {})
    assert "unknown" in serves_frame(holding, {})
    assert serves_frame({"exptime_s": 120.0}, {"exptime_s": 60.0}) == ""


@pytest.mark.parametrize("seconds", [None, 0.0, -3.0])
def test_a_dark_without_exposure_time_is_named(seconds: Any) -> None:
    frames = exposures([60.0] * 3, dark_rate())
    nameless = RawFrame.of_array(
        np.zeros(SHAPE, np.uint16),
        {**META, "exposure": "d9", "obs_start": "2024-03-02T09", "exptime_s": seconds},
    )
    with pytest.raises(BadHeader, match="d9: the exposure time of a dark") as failed:
        make_dark(FrameSet((*frames.frames, nameless)), bias=master_bias(), params=PARAMS)
    assert "awe-ingest --set exptime_s=SECONDS" in failed.value.hint


def test_saturated_hot_pixels_come_from_the_short_exposures_or_are_masked() -> None:
    rate = np.full(SHAPE, 0.05)
    rate[20, 30], rate[40, 50] = 1000.0, 20000.0
    result = make_dark(exposures([10.0, 10.0, 300.0, 300.0], rate), bias=master_bias(), params=PARAMS)
    data, weight = result.planes["SCI"], result.planes["WEIGHT"]
    assert data[20, 30] == pytest.approx(1000, rel=0.02) and weight[20, 30] > 0
    assert data[40, 50] > 5000 and weight[40, 50] == 0
    assert result.measures["unstable_pixels"] == 1
    mask = make_hotpix(Frame(data, weight), HotpixParams()).planes["MASK"]
    assert mask[20, 30] == mask[40, 50] == Bit.HOT


def test_light_in_a_dark_leaves_it_out_by_name() -> None:
    rate = dark_rate()
    frames = list(exposures([300.0] * 4, rate).frames)
    lit = frames[1].rows(0, SHAPE[0]) + np.uint16(400)
    frames[1] = RawFrame.of_array(lit, frames[1].meta)
    for bias in (master_bias(), None):
        result = make_dark(FrameSet(tuple(frames)), bias=bias, params=PARAMS)
        (left,) = result.left_out
        assert left.number == 1 and "ADU" in left.reason
        assert (result.measures["frames"], result.measures["left_out"]) == (3, 1)
    for number in (0, 2):
        brighter = frames[number].rows(0, SHAPE[0]) + np.uint16(3000 * (number + 1))
        frames[number] = RawFrame.of_array(brighter, frames[number].meta)
    with pytest.raises(TooFew, match="do not agree: d"):
        make_dark(FrameSet(tuple(frames)), bias=master_bias(), params=PARAMS)


def test_saturated_darks_are_refused() -> None:
    frames = tuple(
        RawFrame.of_array(np.full(SHAPE, 65535, np.uint16), {**META, "exptime_s": 60.0, "exposure": f"s{n}"})
        for n in range(3)
    )
    with pytest.raises(BadPixels):
        make_dark(FrameSet(frames), bias=master_bias(), params=PARAMS)


@pytest.mark.parametrize("value", [int(BIAS), 65535])
def test_a_constant_dark_is_left_out_by_name(value: int) -> None:
    frames = list(exposures([60.0] * 4, dark_rate()).frames)
    whole = make_dark(FrameSet(tuple(frames[::3])), bias=master_bias(), params=PARAMS)
    for number in (1, 2):
        frames[number] = RawFrame.of_array(np.full(SHAPE, value, np.uint16), frames[number].meta)
    for bias in (master_bias(), None):
        result = make_dark(FrameSet(tuple(frames)), bias=bias, params=PARAMS)
        assert [one.number for one in result.left_out] == [1, 2]
        assert result.left_out[0].reason == f"all its pixels read {value} ADU"
        assert (result.measures["frames"], result.measures["left_out"]) == (2, 2)
        if bias is not None:
            np.testing.assert_array_equal(result.planes["SCI"], whole.planes["SCI"])
    frames[3] = frames[2]
    with pytest.raises(TooFew, match=f"all darks but one are constant: d1: all its pixels read {value}"):
        make_dark(FrameSet(tuple(frames)), bias=master_bias(), params=PARAMS)


def test_a_pixel_without_bias_has_no_weight() -> None:
    bias = master_bias()
    assert bias.weight is not None
    bias.weight[5, 6] = 0
    result = make_dark(exposures([300.0] * 3, dark_rate()), bias=bias, params=PARAMS)
    assert result.planes["WEIGHT"][5, 6] == 0
    assert np.count_nonzero(result.planes["WEIGHT"] == 0) == 1


@pytest.mark.parametrize("memory", [1 << 20, 1 << 26])
def test_the_bits_do_not_depend_on_the_memory_or_the_order(memory: int) -> None:
    frames = exposures([60.0, 300.0, 300.0, 10.0], dark_rate())
    first = make_dark(frames, bias=master_bias(), params=PARAMS)
    turned = FrameSet(tuple(reversed(frames.frames)), memory)
    second = make_dark(turned, bias=master_bias(), params=PARAMS)
    for name in ("SCI", "WEIGHT"):
        np.testing.assert_array_equal(first.planes[name], second.planes[name])


def test_offsets_of_the_bias_are_measured_where_the_times_differ() -> None:
    bias = master_bias()
    low = Frame(bias.data - np.float32(2), bias.weight, None, bias.meta)
    rate = np.full(SHAPE, 0.2)
    times = [10.0, 60.0, 60.0, 300.0, 300.0]
    result = make_dark(exposures(times, rate), bias=low, params=PARAMS)
    assert result.measures["offset_adu"] == pytest.approx(2, abs=0.3)
    assert make_dark(exposures([60.0] * 3, rate), bias=low, params=PARAMS).measures["offset_adu"] is None


def test_low_pixels_of_a_dark_are_cold_and_amplifier_edges_are_not() -> None:
    rng = np.random.default_rng(3)
    data = rng.normal(0.1, 0.01, SHAPE).astype(np.float32)
    data[:, 80:] += 0.5
    data[30, 40] -= 0.2
    data[50, 60] += 0.2
    sections = [
        {"amp": name, "hdu": 0, "data": box, "overscan": None, "target": box}
        for name, box in (("A", "[1:80,1:192]"), ("B", "[81:160,1:192]"))
    ]
    weight = np.full(SHAPE, 1e4, np.float32)
    weight[70, 80] = 0
    result = make_hotpix(Frame(data, weight, None, {"sections": sections}), HotpixParams())
    assert np.argwhere(result.planes["MASK"] == Bit.COLD).tolist() == [[30, 40]]
    assert np.argwhere(result.planes["MASK"] == Bit.HOT).tolist() == [[50, 60], [70, 80]]
    assert result.measures["hot_pixels"] == 2 and result.measures["cold_pixels"] == 1


def test_an_amplifier_without_good_pixels_is_hot() -> None:
    data = np.random.default_rng(3).normal(0.1, 0.01, SHAPE).astype(np.float32)
    weight = np.full(SHAPE, 1e4, np.float32)
    weight[:, 80:] = 0
    sections = [
        {"amp": name, "hdu": 0, "data": box, "overscan": None, "target": box}
        for name, box in (("A", "[1:80,1:192]"), ("B", "[81:160,1:192]"))
    ]
    mask = make_hotpix(Frame(data, weight, None, {"sections": sections}), HotpixParams()).planes["MASK"]
    assert (mask[:, 80:] == Bit.HOT).all() and np.count_nonzero(mask[:, :80]) == 0


# Through the commands


def dark_files(
    directory: Path, times: Sequence[float], cards: Mapping[str, object], name: str, kind: str = "dark"
) -> list[Path]:
    directory.mkdir(exist_ok=True)
    paths = []
    for number, seconds in enumerate(times):
        rng = np.random.default_rng([number, *name.encode()])
        counts = np.rint(rng.normal(BIAS + 0.1 * seconds, READ_NOISE, (64, 64))).astype(np.uint16)
        start = f"2024-03-02T2{number}:10:00.000"
        given = {"IMAGETYP": kind, "EXPTIME": seconds, "DATE-OBS": start, "RDNOISE": 4.5, **cards}
        paths.append(write_raw(directory / f"{name}{number}.fits", counts, given))
    return paths


def test_darks_match_by_set_point_or_by_the_degree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init_store(tmp_path / "store")
    monkeypatch.chdir(tmp_path / "store")
    warm = dark_files(tmp_path / "raw", [60.0] * 3, {"CCD-TEMP": -5.2}, "warm")
    warmer = dark_files(tmp_path / "raw", [60.0] * 3, {"CCD-TEMP": -4.9}, "warmer")
    cold = dark_files(tmp_path / "raw", [60.0] * 3, {"CCD-TEMP": -9.8}, "cold")
    awe("ingest", "-q", *warm, *warmer, *cold)
    ran = program("dark", "-o", "d.fits", *warm, *cold)
    assert ran.code == 4 and "mixture" in ran.err and "temperature_match_c" in ran.err
    assert "warm" in ran.err and "cold" in ran.err
    made = awe("dark", "-q", "-o", "warm.fits", *warm, *warmer).strip()
    record = json.loads(Path(made + ".json").read_text())
    assert record["meta"]["temperature_match_c"] == -5 and record["quality"]["measures"]["frames"] == 6
    assert record["meta"]["holds_bias"] == 1
    from astropy.io import fits

    with fits.open(made) as hdus:
        assert [hdus["SCI"].header["BUNIT"], hdus["WEIGHT"].header["BUNIT"]] == ["adu", "adu-2"]


def test_a_set_point_wins_over_the_temperature_and_a_person_over_both(tmp_path: Path) -> None:
    init_store(tmp_path)
    cards = {"CCD-TEMP": -5.6, "SET-TEMP": -5.0}
    (path,) = dark_files(tmp_path / "raw", [60.0], cards, "dark")

    def degrees() -> float:
        shown = awe("query", "raw_dark", "--get", "temperature_match_c", "--json", cwd=tmp_path)
        return float(json.loads(shown)["temperature_match_c"])

    awe("ingest", "-q", path, cwd=tmp_path)
    assert degrees() == -5
    awe("ingest", "-q", "--set", "temperature_match_c=-7", path, cwd=tmp_path)
    assert degrees() == -7
    ran = program("ingest", "--set", "holds_bias=1", path, cwd=tmp_path)
    assert ran.code == 2 and "it is said of master darks" in ran.err


def test_a_night_of_the_simulator_gives_darks_in_adu_a_second(store: Any, night: Path) -> None:
    from astropy.io import fits

    awe("bias", "-q", stdin=awe("query", "raw_bias", "detector=sim1"))
    path = awe("dark", "-q", stdin=awe("query", "raw_dark", "detector=sim1")).strip()
    truth = fits.getdata(night / "truth" / "dark_sim1.fits")
    with fits.open(path) as hdus:
        assert [hdus["SCI"].header["BUNIT"], hdus["WEIGHT"].header["BUNIT"]] == ["adu/s", "s2/adu2"]
        data, weight = np.array(hdus["SCI"].data), np.array(hdus["WEIGHT"].data)
    mask = fits.getdata(night / "truth" / "pixmask_sim1.fits")
    use = (mask == 0) & (weight > 0)
    errors = ((data - truth / 1.8) * np.sqrt(weight))[use]
    assert abs(errors.mean()) < 0.2 and errors.std() < 1.3
    hot = awe("hotpix", "-q", path).strip()
    record = json.loads(Path(hot + ".json").read_text())
    assert [one["role"] for one in record["recipe"]["inputs"]] == ["master"]
    found = fits.getdata(hot) & 1 != 0
    true = (mask & 1 != 0) & (truth * 300 / 1.8 > 12)
    assert found[true].mean() >= 0.98 and true[found].mean() >= 0.95


# Real darks


@pytest.fixture(scope="module")
def sbig(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SBIG calibrations of two temperatures, with a bias of each."""
    folder = data_path("stl1001-calib-20170908")
    root = tmp_path_factory.mktemp("sbig")
    init_store(root)
    awe("ingest", "-q", folder, cwd=root)
    awe("bias", "-q", stdin=awe("query", "raw_bias", cwd=root), cwd=root)
    return root


def test_real_darks_of_two_temperatures_never_mix(sbig: Path) -> None:
    folder = data_path("stl1001-calib-20170908/dark")
    ran = program("dark", "-o", "mixed.fits", *sorted(folder.glob("*300s*")), *folder.glob("*60s*"), cwd=sbig)
    assert ran.code == 4 and "mixture" in ran.err
    assert (
        "Neg10" in ran.err and "temperature_set_c is" in ran.err and "-10.0" in ran.err and "-5.0" in ran.err
    )
    assert not (sbig / "mixed.fits").exists()


def test_a_real_dark_scales_with_time_and_serves_its_temperature(sbig: Path) -> None:
    folder = data_path("stl1001-calib-20170908/dark")
    path = Path(awe("dark", "-q", *sorted(folder.glob("*Neg5*")), cwd=sbig).strip())
    measures = json.loads(Path(f"{path}.json").read_text())["quality"]["measures"]
    # 0.349 ADU/s by a line through the levels of 10 to 300 s; 2.06 e/ADU by the header.
    assert measures["dark_current_adu_s"] == pytest.approx(0.36, abs=0.02)
    assert measures["dark_current_e_s"] == pytest.approx(0.74, abs=0.04)
    assert abs(measures["offset_adu"]) < 2.5
    assert measures["frames"] == 9 and measures["left_out"] == 0
    from awetools.core.fits import open_fits

    with open_fits(path) as fits:
        data = fits.image(0)
    hot = (data > 5) & (data < 50)
    for seconds in (10, 300):
        (frame,) = folder.glob(f"darks-expos{seconds}s-Neg5*")
        (bias,) = awe("query", "bias", "temperature_set_c=-5", cwd=sbig).split()
        with open_fits(frame) as raw, open_fits(Path(bias)) as master:
            rate = (raw.image(next(h.index for h in raw.hdus if h.is_image)) - master.image(0)) / seconds
        assert np.median(rate[hot] / data[hot]) == pytest.approx(1, abs=0.03)
    (cold,) = folder.glob("*30s-Neg10*")
    ran = program("why", "--role", "dark", cold, cwd=sbig)
    assert "temperature_set_c is -5.0, not -10.0" in ran.out + ran.err


def test_real_hot_pixels_are_the_same_in_two_masters(sbig: Path) -> None:
    folder = data_path("stl1001-calib-20170908/dark")
    from awetools.core.fits import open_fits

    masks = []
    for name, pattern in (("one", "*-expos1-*"), ("two", "*s-Neg5*")):
        awe("dark", "-q", "-o", f"{name}.fits", *sorted(folder.glob(pattern)), cwd=sbig)
        awe("hotpix", "-q", "-o", f"hot-{name}.fits", f"{name}.fits", cwd=sbig)
        with open_fits(sbig / f"hot-{name}.fits") as fits:
            masks.append(fits.image(0) != 0)
    assert 0.01 < masks[0].mean() < 0.03
    assert (masks[0] & masks[1]).sum() > 0.9 * min(masks[0].sum(), masks[1].sum())


def test_the_declaration_says_whom_it_serves() -> None:
    assert DARK.serves is serves_frame and DARK.unit == "adu/s"
    assert "temperature_match_c" in DARK.match
    assert issubclass(Mixture, AweError)
