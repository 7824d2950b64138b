"""Gain and linearity: from flats of all kinds, good and bad, by the recipe and by the program."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from awetools.core.errors import BadHeader, BadPixels, NoMatch, TooFew
from awetools.core.fits import open_fits
from awetools.core.frame import Frame, FrameSet, RawFrame, Table
from awetools.core.kind import Result
from awetools.core.kinds.common import gain_of, nonlinear_of
from awetools.core.kinds.gain import GAIN, GainParams, make_gain
from awetools.core.products import load_product, open_product
from awetools.core.sections import amplifiers_from_meta
from awetools.core.simulate import NightSpec
from awetools.core.simulate.night import simulate_night
from awetools.core.store import init_store
from tests.support import awe, data_path, program, write_raw

NY, NX = 256, 384
GAINS = (1.6, 2.1)
READ_NOISE_ADU = 3.0
BIAS_ADU = 500.0
SECTIONS = [
    {"amp": name, "hdu": 0, "data": f"[{x0}:{x1},1:{NY}]", "overscan": None, "target": f"[{x0}:{x1},1:{NY}]"}
    for name, x0, x1 in (("A", 1, NX // 2), ("B", NX // 2 + 1, NX))
]
PARAMS = GainParams(overscan_mode="none")
NOISE = Table({"AMP": np.array(["A", "B"]), "READ_NOISE_ADU": np.array([READ_NOISE_ADU, READ_NOISE_ADU])}, {})


def flat(number: int, electrons: float, exptime_s: float = 5.0, **meta: Any) -> RawFrame:
    """One exposure of a lamp: two amplifiers, vignetting, responses of pixels."""
    rng = np.random.default_rng(100 + number)
    y, x = np.mgrid[:NY, :NX] / NX
    light = (1 - 0.2 * (x - 0.5) ** 2 - 0.1 * y) * (
        1 + 0.01 * np.random.default_rng(1).standard_normal((NY, NX))
    )
    gain = np.where(np.arange(NX) < NX // 2, *GAINS)
    noise = rng.normal(BIAS_ADU, READ_NOISE_ADU, (NY, NX))
    counts = np.rint(rng.poisson(electrons * light) / gain + noise).clip(0, 65535)
    known = {
        "exposure": f"e{number:02d}",
        "filter": "R",
        "exptime_s": exptime_s,
        "obs_start": f"2024-03-02T20:{number:02d}:00.000",
        "frame_type": "raw_domeflat",
        "sections": SECTIONS,
        "saturation_adu": [60000.0, 60000.0],
        "gain_e_adu": [2.0, 2.0],
        "overscan_mode": "none",
    }
    return RawFrame.of_array(counts.astype(np.uint16), {**known, **meta})


def ramp(levels_e: Sequence[float], **meta: Any) -> list[RawFrame]:
    """Pairs of flats whose exposure time follows the level."""
    return [
        flat(2 * place + twin, level, level / 6000, **meta)
        for place, level in enumerate(levels_e)
        for twin in (0, 1)
    ]


def changed(frame: RawFrame, columns: slice, value: int) -> RawFrame:
    """The frame with some columns set to a value."""
    data = frame.rows(0, NY).copy()
    data[:, columns] = value
    return RawFrame.of_array(data, frame.meta)


def noise_only(frame: RawFrame, columns: slice) -> RawFrame:
    """The frame with some columns at the bias level, with read noise."""
    data = frame.rows(0, NY).copy()
    noise = np.random.default_rng(5).normal(BIAS_ADU, READ_NOISE_ADU, data[:, columns].shape)
    data[:, columns] = np.rint(noise)
    return RawFrame.of_array(data, frame.meta)


def measured(frames: Sequence[RawFrame], params: GainParams = PARAMS, **more: Any) -> Result:
    bias = Frame(np.full((NY, NX), np.float32(BIAS_ADU)), None, None, {})
    given = {"bias": bias, "readnoise": NOISE, **more}
    return make_gain(FrameSet(tuple(frames)), **given, params=params)


def column(result: Result, name: str) -> np.ndarray:
    assert result.table is not None
    return result.table[name]


def check_gains(result: Result, sigma: float = 4.0) -> None:
    gains, errors = column(result, "GAIN_E_ADU"), column(result, "GAIN_ERROR_E_ADU")
    assert (np.abs(gains - GAINS) < sigma * errors).all()


MIXED = (40000, 12000, 60000, 25000, 8000, 50000)


# Good input


def test_levels_give_the_gain_and_its_error() -> None:
    result = measured(ramp(MIXED))
    check_gains(result)
    assert (column(result, "GAIN_ERROR_E_ADU") < 0.02 * np.array(GAINS)).all()
    assert column(result, "PAIRS").tolist() == [6, 6]
    assert column(result, "READ_NOISE_E") == pytest.approx(READ_NOISE_ADU * column(result, "GAIN_E_ADU"))
    assert result.measures["pairs"] == 6 and result.measures["frames"] == 12
    assert result.measures["left_out"] == 0 and result.measures["dead_amplifiers"] == 0
    assert set(result.measures) == {one.name for one in GAIN.measures}
    assert result.meta["gain_e_adu"] == pytest.approx(column(result, "GAIN_E_ADU"), abs=1e-4)


def test_the_points_lie_on_the_fit() -> None:
    result = measured(ramp(MIXED))
    away = column(result, "PAIR_VARIANCE_ADU2") - column(result, "PAIR_FIT_ADU2")
    assert (np.abs(away) < 5 * column(result, "PAIR_ERROR_ADU2")).all()
    assert column(result, "PAIR_USED").all()
    assert column(result, "FLAT_LEVEL_ADU").shape == (2, 12)


def test_a_linear_detector_under_a_stable_lamp() -> None:
    result = measured(ramp(MIXED))
    assert "linearity" not in result.used
    assert column(result, "LINEARITY_EXPOSURES").tolist() == [12, 12]
    assert (np.abs(column(result, "NONLINEARITY_FRACTION")) < 0.005).all()
    assert column(result, "NONLINEAR_ADU").tolist() == [0, 0]
    assert result.measures["nonlinear_adu"] is None
    assert result.measures["lamp_scatter_fraction"] < 0.001


def test_one_level_gives_the_gain_with_a_larger_error_and_no_linearity() -> None:
    result = measured([flat(number, 30000) for number in range(4)])
    check_gains(result)
    many = measured(ramp(MIXED))
    assert (column(result, "GAIN_ERROR_E_ADU") > column(many, "GAIN_ERROR_E_ADU")).all()
    assert "different exposure times" in result.used["linearity"]
    assert result.measures["nonlinearity_fraction"] is None
    assert column(result, "LINEARITY_EXPOSURES").tolist() == [0, 0]


def test_filters_are_paired_apart_and_an_odd_one_with_its_neighbour() -> None:
    frames = [flat(n, 30000) for n in range(3)] + [flat(3 + n, 31000, filter="V") for n in range(2)]
    result = measured(frames)
    assert result.measures["pairs"] == 3 and result.measures["frames"] == 5
    check_gains(result)


def test_levels_that_come_in_turn_are_paired_by_level() -> None:
    frames = [flat(n, (15000, 40000)[n % 2], (2.5, 7.0)[n % 2]) for n in range(4)]
    result = measured(frames)
    assert result.measures["pairs"] == 2 and result.measures["left_out"] == 0


def test_twilight_flats_serve_but_not_for_linearity() -> None:
    frames = [flat(n, 30000 * (1 + 0.01 * n), 2.0 + n, frame_type="raw_twiflat") for n in range(4)]
    result = measured(frames)
    check_gains(result)
    assert "twilight" in result.used["linearity"]
    mixed = measured([*frames, *(flat(4 + n, 30000) for n in range(2))])
    assert mixed.measures["pairs"] == 3
    lone = measured([*frames, flat(4, 30000)])
    assert [one.number for one in lone.left_out] == [4]


def test_the_order_of_the_files_does_not_matter() -> None:
    frames = ramp(MIXED)
    one, other = measured(frames), measured(frames[::-1])
    assert one.measures == other.measures


def test_read_noise_from_the_bias() -> None:
    meta = {"read_noise_adu": [READ_NOISE_ADU, READ_NOISE_ADU]}
    bias = Frame(np.full((NY, NX), np.float32(BIAS_ADU)), None, None, meta)
    result = measured(ramp(MIXED), bias=bias, readnoise=None)
    check_gains(result)
    assert result.used["readnoise"] == "taken from the bias"


def test_pixels_without_bias_do_not_count() -> None:
    frames = ramp(MIXED)
    rng = np.random.default_rng(8)
    spoilt = []
    for frame in frames:
        data = frame.rows(0, NY).astype(np.float64)
        data[:, 40:70] += rng.normal(0, 900, (NY, 30))
        spoilt.append(RawFrame.of_array(data.clip(0, 65535).astype(np.uint16), frame.meta))
    weight = np.ones((NY, NX), dtype=np.float32)
    weight[:, 40:70] = 0
    bias = Frame(np.full((NY, NX), np.float32(BIAS_ADU)), weight, None, {})
    assert measured(spoilt, bias=bias).measures["gain_e_adu"] == pytest.approx(1.85, rel=0.02)


# Bad input


def test_flats_that_differ_make_no_pair_and_are_named() -> None:
    frames = [flat(0, 20000), flat(1, 22000), flat(2, 40000), flat(3, 40300)]
    result = measured(frames)
    assert [one.number for one in result.left_out] == [0, 1]
    assert "within 4.0% of its level" in result.left_out[0].reason and "e01" in result.left_out[0].reason
    assert result.measures["pairs"] == 1
    with pytest.raises(TooFew, match=r"e00: .*nearest: e01.*; e01: "):
        measured(frames[:2])
    assert measured(frames[:2], replace(PARAMS, pair_fraction=0.2)).measures["pairs"] == 1


def test_flats_of_two_filters_only_make_no_pair() -> None:
    with pytest.raises(TooFew, match="no other flat in V"):
        measured([flat(0, 30000), flat(1, 30000, filter="V")])


def test_saturated_and_faint_flats_are_left_out_and_named() -> None:
    frames = [*ramp((20000, 30000)), flat(8, 100000), flat(9, 101000), flat(10, 300), flat(11, 300)]
    result = measured(frames)
    check_gains(result)
    reasons = {one.number: one.reason for one in result.left_out}
    assert sorted(reasons) == [4, 5, 6, 7]
    assert "above 0.8 of saturation, 60000" in reasons[4] and "below min_level_adu" in reasons[6]


def test_flats_cut_off_at_a_level_nobody_told_of_are_left_out() -> None:
    unknown = {"saturation_adu": [None, None]}
    frames = ramp((20000, 30000), **unknown)
    cut = [flat(8, 60000, **unknown), flat(9, 60000, **unknown)]
    for top, said in ((37000, "read 37000 ADU, its highest"), (20000, "constant at 20000 ADU")):
        clipped = [RawFrame.of_array(np.minimum(one.rows(0, NY), top), one.meta) for one in cut]
        result = measured([*frames, *clipped])
        check_gains(result)
        assert [one.number for one in result.left_out] == [4, 5]
        assert said in result.left_out[0].reason


def test_flats_that_are_constant_say_so() -> None:
    with pytest.raises(TooFew, match="e00: amplifier A is constant at 60000 ADU"):
        measured([changed(one, slice(0, NX), value=60000) for one in ramp((20000,))])


def test_the_brightest_of_a_few_pixels_is_no_cut_off() -> None:
    about = {"sections": None, "saturation_adu": [60000.0], "gain_e_adu": [2.0], "read_noise_adu": [3.0]}
    few = [RawFrame.of_array(one.rows(0, NY)[:5, :7], {**one.meta, **about}) for one in ramp((20000, 40000))]
    bias = Frame(np.full((5, 7), np.float32(BIAS_ADU)))
    result = measured(few, replace(PARAMS, pair_fraction=0.2), bias=bias, readnoise=None)
    assert result.measures["frames"] == 4


@pytest.mark.parametrize("seconds", [0.0, -3.0])
def test_exposure_times_that_cannot_be_say_nothing_of_linearity(seconds: float) -> None:
    result = measured([flat(n, 20000 + 20000 * (n // 2), seconds) for n in range(4)])
    assert result.used["linearity"] == "not measured: the exposure times are not all known"


def test_a_lamp_that_drifts_does_not_touch_the_gain_but_linearity_is_not_measured() -> None:
    frames = [
        flat(2 * place + twin, level * (1 + 0.012 * (2 * place + twin)), level / 6000)
        for place, level in enumerate((15000, 25000, 40000, 50000))
        for twin in (0, 1)
    ]
    result = measured(frames)
    check_gains(result)
    assert "the lamp was not stable" in result.used["linearity"]
    assert result.measures["nonlinearity_fraction"] is None
    assert result.measures["lamp_scatter_fraction"] > 0.005


def test_a_nonlinear_detector_is_told() -> None:
    frames = []
    for frame in ramp(MIXED):
        signal = frame.rows(0, NY) - BIAS_ADU
        data = np.rint(BIAS_ADU + signal - 0.06 * signal**2 / 60000).clip(0, 65535)
        frames.append(RawFrame.of_array(data.astype(np.uint16), frame.meta))
    result = measured(frames)
    check_gains(result)
    assert column(result, "NONLINEARITY_FRACTION") == pytest.approx(
        -0.06 * np.array([35000, 26500]) / 60000, abs=0.008
    )
    assert column(result, "NONLINEAR_ADU") == pytest.approx([9900, 9900], rel=0.2)
    assert result.measures["change_fraction"] < -0.05


def test_an_amplifier_without_light_leaves_the_others_measured() -> None:
    dead = slice(NX // 2, NX)
    frames = [changed(frame, dead, value=int(BIAS_ADU)) for frame in ramp(MIXED)]
    result = measured(frames)
    assert column(result, "GAIN_E_ADU")[0] == pytest.approx(GAINS[0], rel=0.02)
    assert column(result, "GAIN_E_ADU")[1] == 2.0, "the documented gain"
    assert column(result, "PAIRS").tolist() == [6, 0]
    assert result.measures["dead_amplifiers"] == 1
    assert result.measures["gain_e_adu"] == pytest.approx(GAINS[0], rel=0.02)
    assert "no light" in result.used["amplifier B"]
    for name, values in (result.table or {}).items():
        if values.dtype.kind == "f":
            assert np.isfinite(values).all(), name
    stuck = measured([changed(frame, dead, value=50000) for frame in ramp(MIXED)])
    assert column(stuck, "PAIRS").tolist() == [6, 0]
    noisy = measured([noise_only(frame, dead) for frame in ramp(MIXED)])
    assert column(noisy, "PAIRS").tolist() == [6, 0]


def test_identical_frames_are_named() -> None:
    one = flat(0, 30000)
    twin = RawFrame.of_array(one.rows(0, NY), {**one.meta, "exposure": "copy"})
    with pytest.raises(BadPixels, match=r"e00 and copy: .*read noise"):
        measured([one, twin])
    result = measured([one, twin, flat(2, 40000), flat(3, 40000)])
    assert [one.number for one in result.left_out] == [0, 1]
    assert "with copy" in result.left_out[0].reason
    assert result.measures["pairs"] == 1


def test_all_pixels_masked() -> None:
    nothing = Frame(np.zeros((NY, NX), np.float32), np.zeros((NY, NX), np.float32))
    for low in (500.0, 0.0):
        with pytest.raises(TooFew, match="no two flats make a pair"):
            measured(ramp((20000,)), replace(PARAMS, min_level_adu=low), bias=nothing)


def test_an_amplifier_that_lost_its_light_on_the_way_has_no_linearity() -> None:
    frames = ramp(MIXED)
    frames[-1] = changed(frames[-1], slice(NX // 2, NX), value=0)
    noise = np.random.default_rng(6).integers(0, 2, (NY, NX))
    frames[-1] = RawFrame.of_array((frames[-1].rows(0, NY) + noise).astype(np.uint16), frames[-1].meta)
    result = measured(frames)
    check_gains(result)
    assert column(result, "LINEARITY_EXPOSURES").tolist() == [12, 0]


def test_without_bias_or_overscan_the_zero_is_not_known() -> None:
    with pytest.raises(NoMatch, match="neither a bias nor an overscan"):
        measured(ramp(MIXED), bias=None)


def test_the_read_noise_must_be_known() -> None:
    with pytest.raises(BadHeader, match="read noise"):
        measured(ramp(MIXED), readnoise=None)


# What other kinds take from the product


def gain_table(names: Sequence[str] = ("A", "B")) -> Table:
    return Table(
        {
            "AMP": np.array(names),
            "GAIN_E_ADU": np.array([1.6, 2.1]),
            "NONLINEAR_ADU": np.array([30000.0, 0.0]),
        }
    )


def test_gain_of_prefers_the_product() -> None:
    amplifiers = amplifiers_from_meta(SECTIONS)
    meta: Mapping[str, Any] = {"gain_e_adu": [1.0, 1.0], "exposure": "e", "detector": "d"}
    assert gain_of(gain_table(), meta, amplifiers) == [1.6, 2.1]
    assert gain_of(None, meta, amplifiers) == [1.0, 1.0]
    with pytest.raises(BadHeader, match="amplifiers"):
        gain_of(gain_table(["A", "C"]), meta, amplifiers)
    with pytest.raises(BadHeader, match="gain of d is not known"):
        gain_of(None, {**meta, "gain_e_adu": [1.0, None]}, amplifiers)


def test_nonlinear_of_is_infinite_where_it_is_not_known() -> None:
    amplifiers = amplifiers_from_meta(SECTIONS)
    assert nonlinear_of(gain_table(), amplifiers) == [30000.0, np.inf]
    assert nonlinear_of(None, amplifiers) == [np.inf, np.inf]


# Through the programs


def made(root: Path, source: str = "raw_domeflat", *arguments: object) -> tuple[Table, dict[str, Any]]:
    """The gain product of a store's raw frames, made by the programs."""
    for kind in ("readnoise", "bias"):
        if not program("query", kind, cwd=root).out:
            awe(kind, "-q", stdin=awe("query", "raw_bias", cwd=root), cwd=root)
    frames = awe("query", *source.split(), cwd=root)
    product = open_product(root / awe("gain", "-q", *arguments, stdin=frames, cwd=root).strip())
    table = load_product(product)
    assert isinstance(table, Table)
    return table, dict(product.record)


NIGHT = NightSpec(
    detectors=1, shape=(512, 768), biases=4, flats=16, twilights=0, darks=0, exposures=0,
    flat_low_adu=1500, flat_high_adu=45000, nonlinearity=0.05, brighter_fatter=0.1, seed=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("gain") / "night"
    simulate_night(directory, NIGHT, processes=2)
    init_store(directory / "store")
    awe("ingest", "-q", directory / "raw", cwd=directory / "store")
    return directory


def test_a_simulated_night_with_nonlinearity_and_brighter_fatter(simulated: Path) -> None:
    table, record = made(simulated / "store")
    truth = json.loads((simulated / "run.json").read_text())["camera"]["detectors"][0]["amplifiers"]
    for row, amp in enumerate(truth):
        gain, error = (float(table.columns[name][row]) for name in ("GAIN_E_ADU", "GAIN_ERROR_E_ADU"))
        assert abs(gain - amp["gain_e_adu"]) < 4 * error and error < 0.015 * gain
        top = table.columns["FLAT_LEVEL_ADU"][row].max()
        assert table.columns["NONLINEARITY_FRACTION"][row] == pytest.approx(
            -amp["nonlinearity"] * top / 65535,
            abs=4 * float(table.columns["NONLINEARITY_ERROR_FRACTION"][row]),
        )
        assert table.columns["NONLINEAR_ADU"][row] == pytest.approx(amp["nonlinear_adu"], rel=0.5)
    assert record["quality"]["flags"] == 0
    assert record["meta"]["gain_e_adu"] == pytest.approx(table.columns["GAIN_E_ADU"].tolist(), abs=1e-4)
    assert "filter" not in record["meta"]
    start, end = record["validity"]["start"], record["validity"]["end"]
    assert start < "2024-02-03" and end > "2024-03-30"


def test_the_table_is_read_by_others(simulated: Path) -> None:
    made(simulated / "store")
    path = awe("query", "gain", cwd=simulated / "store").split()[0]
    with fits.open(path) as hdus:
        table = hdus[1].data
        assert hdus[1].name == "GAIN" and list(table["AMP"]) == ["A", "B"]
        assert table["PAIR_LEVEL_ADU"].shape == (2, 8)
    with open_fits(Path(path)) as ours:
        assert ours.table(1)["PAIR_USED"].shape == (2, 8)


def test_a_gain_serves_the_flats_of_the_month(simulated: Path) -> None:
    made(simulated / "store")
    frames = awe("query", "raw_domeflat", cwd=simulated / "store")
    awe("domeflat", "-q", "-o", "flat.fits", stdin=frames, cwd=simulated / "store")
    record = open_product(simulated / "store" / "flat.fits").record
    assert "gain" in {one["role"] for one in record["recipe"]["inputs"]}


def test_frames_without_overscan_need_a_bias(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    paths = [
        write_raw(
            tmp_path / f"flat{n}.fits",
            (rng.poisson(30000, (64, 96)) / 1.5 + 500).astype(np.uint16),
            {"IMAGETYP": "flat", "EXPTIME": 3.0, "FILTER": "R", "DATE-OBS": f"2024-03-02T23:1{n}:00"},
        )
        for n in range(2)
    ]
    ran = program("gain", "--no-bias", "--no-readnoise", "-o", "g.fits", *paths, cwd=tmp_path)
    assert ran.code in (4, 5), ran.err
    assert "read noise" in ran.err or "neither a bias" in ran.err
    assert not (tmp_path / "g.fits").exists()


# Real frames


def real(tmp_path: Path, name: str) -> Path:
    init_store(tmp_path)
    awe("ingest", "-q", "-j2", data_path(name), cwd=tmp_path)
    return tmp_path


def test_stl1001(tmp_path: Path) -> None:
    root = real(tmp_path, "stl1001-calib-20170908")
    table, record = made(root)
    assert 1.8 < float(table.columns["GAIN_E_ADU"][0]) < 2.1
    assert record["quality"]["measures"]["pairs"] == 2
    assert "different exposure times" in record["recipe"]["instead"]["linearity"]
