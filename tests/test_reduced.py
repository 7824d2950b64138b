"""Reduced frames: each calibration does what it should to the pixels, and each mask bit comes from its cause."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from awetools.core.errors import BadHeader, BadPixels
from awetools.core.frame import Frame, RawFrame, Table
from awetools.core.kinds.reduced import REDUCED, ReducedParams, make_reduced
from awetools.core.pixels.mask import Bit

Floats = npt.NDArray[np.float32]

NY, NX = 200, 160
SKY, PEDESTAL, READ_NOISE, GAIN, EXPTIME = 400.0, 1000.0, 4.0, 2.0, 60.0
META: dict[str, Any] = {
    "exposure": "e1",
    "exptime_s": EXPTIME,
    "gain_e_adu": [GAIN],
    "read_noise_adu": [READ_NOISE],
    "saturation_adu": [60000.0],
    "overscan_mode": "none",
}
PARAMS = ReducedParams(overscan_mode="none")


def counts(seed: int = 1, sky: Floats | float = SKY) -> npt.NDArray[Any]:
    rng = np.random.default_rng(seed)
    light = rng.poisson(np.broadcast_to(np.asarray(sky) * GAIN, (NY, NX))) / GAIN
    return np.rint(PEDESTAL + light + rng.normal(0, READ_NOISE, (NY, NX)))


def raw(image: npt.NDArray[Any], **meta: Any) -> RawFrame:
    return RawFrame.of_array(image.astype(np.uint16), {**META, **meta})


def bias() -> Frame:
    return Frame(np.full((NY, NX), PEDESTAL, np.float32), np.full((NY, NX), 10, np.float32))


def gain_table(nonlinear_adu: float) -> Table:
    return Table(
        {
            "AMP": np.array(["A"]),
            "GAIN_E_ADU": np.array([GAIN]),
            "NONLINEAR_ADU": np.array([nonlinear_adu]),
        }
    )


def test_the_noise_is_that_of_the_weight_and_a_clean_frame_has_no_mask() -> None:
    result = make_reduced(raw(counts()), bias=bias(), params=PARAMS)
    data, weight, mask = (result.planes[name] for name in ("SCI", "WEIGHT", "MASK"))
    assert np.std((data - SKY) * np.sqrt(weight)) == pytest.approx(1, abs=0.02)
    assert np.count_nonzero(mask) <= 2
    assert result.measures["trails"] == 0 and result.measures["sky_adu"] == pytest.approx(SKY, rel=0.005)


def test_a_dark_is_scaled_by_the_time_and_adds_its_noise() -> None:
    rate = np.linspace(0, 3, NX, dtype=np.float32) * np.ones((NY, 1), np.float32)
    dark = Frame(rate, np.full((NY, NX), 4e4, np.float32))
    image = counts(sky=SKY + rate * EXPTIME)
    result = make_reduced(raw(image), bias=bias(), dark=dark, params=PARAMS)
    columns = result.planes["SCI"].mean(axis=0)
    assert abs(np.polyfit(np.arange(NX), columns, 1)[0]) * NX < 1.5
    weight = result.planes["WEIGHT"]
    expected = READ_NOISE**2 + 1 / 12 + (SKY + rate[0, -1] * EXPTIME) / GAIN + 1 / 10 + EXPTIME**2 / 4e4
    assert 1 / np.median(weight[:, -1]) == pytest.approx(expected, rel=0.02)


def test_a_dark_that_holds_its_bias_is_subtracted_as_it_is_and_needs_none() -> None:
    dark = Frame(np.full((NY, NX), PEDESTAL + 7, np.float32), None, None, {"holds_bias": 1})
    image = counts(sky=SKY + 7)
    alone = make_reduced(raw(image), dark=dark, params=PARAMS).planes["SCI"]
    both = make_reduced(raw(image), bias=bias(), dark=dark, params=PARAMS).planes["SCI"]
    assert alone.mean() == pytest.approx(SKY, abs=0.5)
    assert (alone == both).all()
    need = REDUCED.need("bias")
    assert need.unless is not None and need.unless({"dark": dark.meta}) and not need.unless({"dark": {}})


def test_nonlinear_levels_come_from_the_gain_and_from_the_camera() -> None:
    image = counts()
    image[50, 60], image[80, 90] = PEDESTAL + 30000, PEDESTAL + 45000
    table = gain_table(40000.0)
    mask = make_reduced(raw(image), bias=bias(), gain=table, params=PARAMS).planes["MASK"]
    assert np.argwhere(mask & Bit.NONLINEAR).tolist() == [[80, 90]]
    mask = make_reduced(raw(image, nonlinear_adu=[20000.0]), bias=bias(), params=PARAMS).planes["MASK"]
    assert np.argwhere(mask & Bit.NONLINEAR).tolist() == [[50, 60], [80, 90]]
    never = make_reduced(raw(image), bias=bias(), gain=gain_table(0.0), params=PARAMS).planes["MASK"]
    assert not (never & Bit.NONLINEAR).any()


def test_defects_and_what_is_not_calibrated_have_no_weight() -> None:
    hot, cold = np.zeros((NY, NX), np.int16), np.zeros((NY, NX), np.int16)
    hot[3, 4], cold[5, 6] = Bit.HOT, Bit.COLD
    master, flat = bias(), Frame(np.ones((NY, NX), np.float32), np.ones((NY, NX), np.float32))
    assert master.weight is not None
    master.weight[7, 8] = 0
    flat = Frame(
        flat.data, flat.weight, np.where(np.arange(NX) == 9, Bit.UNCALIBRATED, 0) * np.ones((NY, 1), int)
    )
    flat = Frame(flat.data, flat.weight, np.asarray(flat.mask).astype(np.int16))
    result = make_reduced(
        raw(counts()), bias=master, flat=flat, hotpix=Frame(hot), coldpix=Frame(cold), params=PARAMS
    )
    mask, weight = result.planes["MASK"], result.planes["WEIGHT"]
    assert mask[3, 4] & Bit.HOT and mask[5, 6] & Bit.COLD and mask[7, 8] & Bit.UNCALIBRATED
    assert (mask[:, 9] & Bit.UNCALIBRATED).all()
    assert (weight[mask != 0] == 0).all() and (weight[mask == 0] > 0).all()


def test_cosmic_rays_bleeding_and_a_trail_are_found_and_can_be_left_alone() -> None:
    image = counts(sky=SKY)
    image[20, 30:34] += 800
    image[60:90, 100] = 65000
    y, x = np.mgrid[:NY, :NX]
    image += 60 * np.exp(-0.5 * ((y - 0.8 * x - 60) / 1.5) ** 2)
    params = ReducedParams(overscan_mode="none")
    frame = RawFrame.of_array(np.clip(image, 0, 65535).astype(np.uint16), META)
    result = make_reduced(frame, bias=bias(), params=params)
    mask = result.planes["MASK"]
    assert (mask[20, 30:34] & Bit.COSMIC).all()
    assert (mask[59:91, 100] & Bit.SATURATED).all() and not (mask[75, 95] & Bit.SATURATED)
    off = ReducedParams(overscan_mode="none", cosmic_rays=False, trails=False)
    without = make_reduced(frame, bias=bias(), params=off)
    assert not (without.planes["MASK"] & (Bit.COSMIC | Bit.TRAIL)).any()
    assert without.measures["trails"] is None and without.measures["cosmic_pixels"] is None


def test_fringes_are_scaled_to_the_frame_and_subtracted() -> None:
    y, x = np.mgrid[:NY, :NX]
    pattern = (0.05 * np.sin(x / 6 + y / 17)).astype(np.float32)
    image = counts(sky=(SKY * (1 + 0.6 * pattern)).astype(np.float32))
    fringe = Frame(pattern, np.ones((NY, NX), np.float32))
    result = make_reduced(raw(image), bias=bias(), fringe=fringe, params=PARAMS)
    left = np.vdot(result.planes["SCI"] - SKY, pattern) / np.vdot(pattern, pattern)
    assert abs(left) < 0.1 * 0.6 * SKY
    assert result.measures["fringe_adu"] == pytest.approx(0.6 * SKY * pattern.std(), rel=0.1)


def test_an_amplifier_that_was_not_read_out_is_masked_and_named() -> None:
    sections = [
        {"amp": name, "hdu": 0, "data": data, "overscan": None, "target": data}
        for name, data in (("A", f"[1:{NX // 2},1:{NY}]"), ("B", f"[{NX // 2 + 1}:{NX},1:{NY}]"))
    ]
    image = counts()
    image[:, NX // 2 :] = 0
    two = {"sections": sections, "gain_e_adu": [GAIN] * 2, "read_noise_adu": [READ_NOISE] * 2}
    result = make_reduced(raw(image, **two, saturation_adu=[60000.0] * 2), bias=bias(), params=PARAMS)
    mask = result.planes["MASK"]
    assert (mask[:, NX // 2 :] & Bit.OUTSIDE).all() and not (mask[:, : NX // 2] & Bit.OUTSIDE).any()
    assert "amplifier B" in result.used["raw"]
    assert result.measures["sky_adu"] == pytest.approx(SKY, rel=0.02)


def test_frames_of_which_nothing_can_be_made() -> None:
    with pytest.raises(BadPixels, match="e1"):
        make_reduced(raw(np.full((NY, NX), 65535)), bias=bias(), params=PARAMS)
    for exptime_s in (None, 0.0, -3.0):
        with pytest.raises(BadHeader, match="exposure time"):
            make_reduced(raw(counts(), exptime_s=exptime_s), bias=bias(), params=PARAMS)


def test_it_is_said_where_stars_are_too_sharp_for_the_contrast_that_was_given() -> None:
    rng = np.random.default_rng(5)
    light = np.full((NY, NX), SKY)
    y, x = np.mgrid[:NY, :NX]
    for _ in range(40):
        centre = rng.uniform(8, NY - 8), rng.uniform(8, NX - 8)
        light += rng.uniform(2e3, 2e4) * np.exp(-0.5 * ((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / 0.6**2)
    sharp = make_reduced(raw(counts(sky=light)), bias=bias(), params=PARAMS)
    assert sharp.used["cosmic_contrast"].startswith("raised from 2 to ")
    assert "cosmic_contrast" not in make_reduced(raw(counts()), bias=bias(), params=PARAMS).used
