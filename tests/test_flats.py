"""Flats against truth: what is wrong with the frames must not get into the flat, and must be said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from awetools.core.errors import BadHeader, BadPixels, TooFew, UsageError
from awetools.core.frame import Frame, FrameSet, RawFrame
from awetools.core.kind import Result
from awetools.core.kinds.domeflat import DomeflatParams, make_domeflat
from awetools.core.kinds.flat import FlatParams, make_flat
from awetools.core.kinds.nightflat import NightflatParams, make_nightflat
from awetools.core.kinds.twiflat import TwiflatParams, make_twiflat
from awetools.core.products import open_product
from awetools.core.store import Store
from tests.support import awe, program

NY, NX = 320, 384
Y, X = np.mgrid[:NY, :NX]
U, V = 2 * X / NX - 1, 2 * Y / NY - 1
GAIN, READ_NOISE_ADU, SATURATION_ADU = (1.8, 1.6), 4.0, 60000.0


def response() -> np.ndarray:
    """Single pixels, dust and vignetting of two amplifiers; mean 1."""
    rng = np.random.default_rng(11)
    image = 1 + 0.01 * rng.standard_normal((NY, NX)) - 0.08 * (U * U + V * V)
    image -= 0.06 * np.exp(-((X - 90) ** 2 + (Y - 200) ** 2) / 200)
    image[:, NX // 2 :] *= GAIN[0] / GAIN[1]
    image[40, 50] = 0.3
    flat: np.ndarray = image / image.mean()
    return flat


TRUTH = response()
SKYLIGHT = np.ones((NY, NX))
LAMPLIGHT = 1 + 0.03 * U - 0.02 * V + 0.015 * (U * U + V * V)


def meta(number: int, **more: Any) -> dict[str, Any]:
    half = NX // 2
    sections = [
        {"amp": name, "hdu": 0, "data": f"[{x0 + 1}:{x1},1:{NY}]", "target": f"[{x0 + 1}:{x1},1:{NY}]"}
        for name, x0, x1 in (("A", 0, half), ("B", half, NX))
    ]
    return {
        "exposure": f"e{number:03d}",
        "obs_start": f"2024-03-02T20:{number:02d}:00.000",
        "exptime_s": 60.0,
        "gain_e_adu": list(GAIN),
        "read_noise_adu": [READ_NOISE_ADU] * 2,
        "saturation_adu": [SATURATION_ADU] * 2,
        "sections": sections,
        **more,
    }


def exposure(number: int, level_adu: float, light: np.ndarray, **more: Any) -> RawFrame:
    """A raw frame: so much light of that shape through the response, with its noise."""
    rng = np.random.default_rng(1000 + number)
    expected = np.maximum(level_adu * light * TRUTH, 0)
    noise = np.hypot(np.sqrt(expected / 1.7), READ_NOISE_ADU)
    counts = np.clip(expected + noise * rng.standard_normal((NY, NX)), 0, SATURATION_ADU)
    return RawFrame.of_array(counts.round().astype(np.uint16), meta(number, **more))


def stars(number: int, count: int, peak: float) -> np.ndarray:
    """Stars at places of their own, relative to the light around."""
    rng = np.random.default_rng(number)
    light = np.zeros((NY, NX))
    for x, y in rng.uniform(0, 1, (count, 2)) * (NX, NY):
        light += peak * rng.uniform(0.2, 1) * np.exp(-((X - x) ** 2 + (Y - y) ** 2) / (2 * 2.0**2))
    return light


def trail(number: int, peak: float) -> np.ndarray:
    """A star drawn out over the whole frame, elsewhere in each exposure."""
    across = (X * np.cos(0.3 + number) + Y * np.sin(0.3 + number)) - 150 - 10 * number
    light: np.ndarray = peak * np.exp(-(across**2) / 8)
    return light


def frames(several: Sequence[RawFrame]) -> FrameSet:
    return FrameSet(tuple(several))


def frame_of(result: Result, **more: Any) -> Frame:
    planes = result.planes
    return Frame(planes["SCI"], planes["WEIGHT"], planes["MASK"], meta(0, **more))


def flatness(result: Result, light: np.ndarray | None = None, size: int = 32) -> float:
    """Rms of the blocks of flat / truth over the good pixels."""
    ratio = result.planes["SCI"] / (TRUTH * (1 if light is None else light))
    good = result.planes["WEIGHT"] > 0
    blocks = [
        np.median(ratio[y : y + size, x : x + size][good[y : y + size, x : x + size]])
        for y in range(0, NY, size)
        for x in range(0, NX, size)
        if good[y : y + size, x : x + size].sum() > size
    ]
    return float(np.std(blocks) / np.mean(blocks))


def dome(several: Sequence[RawFrame], **params: Any) -> Result:
    settings = DomeflatParams(overscan_mode="none", **params)
    return make_domeflat(frames(several), params=settings)


def twilight(several: Sequence[RawFrame], **params: Any) -> Result:
    settings = TwiflatParams(overscan_mode="none", **params)
    return make_twiflat(frames(several), params=settings)


def night(several: Sequence[RawFrame], flat: Frame | None, **params: Any) -> Result:
    settings = NightflatParams(overscan_mode="none", **params)
    return make_nightflat(frames(several), flat=flat, params=settings)


def lamps(count: int = 6, **more: Any) -> list[RawFrame]:
    return [exposure(n, 20000 + 1500 * n, LAMPLIGHT, **more) for n in range(count)]


def skies(count: int = 8, level_adu: float = 900.0) -> list[RawFrame]:
    return [exposure(40 + n, level_adu, SKYLIGHT + stars(n, 12, 2.0)) for n in range(count)]


@cache
def lamp_flat() -> Frame:
    return frame_of(dome(lamps()))


@cache
def night_flat() -> Frame:
    return frame_of(night(skies(), lamp_flat()))


# Dome


def test_a_lamp_that_drifts_does_no_harm() -> None:
    result = dome([exposure(n, 9000 * 1.3**n, LAMPLIGHT) for n in range(5)])
    assert result.measures["left_out"] == 0
    assert flatness(result, LAMPLIGHT) < 4e-4
    assert np.median(result.planes["SCI"]) == pytest.approx(1, abs=0.002)


def test_one_level_and_one_exposure_make_a_flat() -> None:
    for several in ([exposure(n, 20000, LAMPLIGHT) for n in range(4)], [exposure(1, 20000, LAMPLIGHT)]):
        assert flatness(dome(several), LAMPLIGHT) < 6e-4


def test_weights_are_the_inverse_variance() -> None:
    result = dome(lamps())
    error = result.planes["SCI"] / (TRUTH * LAMPLIGHT)
    pull = (error / np.median(error) - 1) * TRUTH * LAMPLIGHT * np.sqrt(result.planes["WEIGHT"])
    assert np.std(pull) == pytest.approx(1, abs=0.05)


def test_saturated_and_faint_flats_are_named_and_left_out() -> None:
    several = [*lamps(3), exposure(20, 3000, LAMPLIGHT), exposure(21, 58000, LAMPLIGHT)]
    result = dome(several)
    assert [one.number for one in result.left_out] == [3, 4]
    assert "below min_level_adu" in result.left_out[0].reason
    assert "of saturation" in result.left_out[1].reason
    with pytest.raises(TooFew, match="e021"):
        dome([several[4]])


def test_a_dead_amplifier_is_masked_and_named_and_the_rest_is_right() -> None:
    light = LAMPLIGHT.copy()
    light[:, NX // 2 :] = 0
    result = dome([exposure(n, 20000, light) for n in range(4)])
    assert result.measures["dead_amplifiers"] == 1
    assert "amplifier B" in result.used
    mask, weight = result.planes["MASK"], result.planes["WEIGHT"]
    assert (mask[:, NX // 2 :] == 512).all() and (weight[:, NX // 2 :] == 0).all()
    assert not mask[:, : NX // 2].any()
    assert flatness(result, LAMPLIGHT) < 5e-4
    flat = make_flat(domeflat=frame_of(result), params=FlatParams())
    assert "amplifier B" in flat.used
    assert flat.planes["SCI"][:, : NX // 2].mean() == pytest.approx(1, abs=1e-6)
    assert (flat.planes["MASK"][:, NX // 2 :] & 512).all()


def test_an_exposure_in_which_an_amplifier_failed_is_left_out() -> None:
    light = LAMPLIGHT.copy()
    light[:, : NX // 2] = 0
    result = dome([*lamps(4), exposure(30, 20000, light)])
    assert [(one.number, one.reason) for one in result.left_out] == [(4, "amplifier A has no signal")]
    assert result.measures["dead_amplifiers"] == 0
    assert flatness(result, LAMPLIGHT) < 5e-4


def changed(frame: RawFrame, columns: slice, value: int | None = None, highest: int = 65535) -> RawFrame:
    """The frame with some columns set to a value, or cut off at the highest."""
    counts = frame.rows(0, NY).copy()
    part = counts[:, columns]
    counts[:, columns] = np.minimum(part, highest) if value is None else value
    return RawFrame.of_array(counts, frame.meta)


LEFT, WHOLE = slice(0, NX // 2), slice(0, NX)


def test_flats_cut_off_at_a_level_nobody_told_of_are_left_out() -> None:
    unknown = {"saturation_adu": [None, None]}
    cut = [exposure(20, 36000, LAMPLIGHT, **unknown), exposure(21, 80000, LAMPLIGHT, **unknown)]
    several = [*lamps(4, **unknown), *(changed(one, WHOLE, highest=35000) for one in cut)]
    result = dome(several)
    assert [one.number for one in result.left_out] == [4, 5]
    assert "read 35000 ADU, its highest" in result.left_out[0].reason
    assert flatness(result, LAMPLIGHT) < 5e-4


def test_many_hot_pixels_at_the_highest_value_are_no_cut_off() -> None:
    hot = np.random.default_rng(3).random((NY, NX)) < 0.03
    several = [exposure(n, 36000, LAMPLIGHT, saturation_adu=[None, None]) for n in range(3)]
    counts = [np.where(hot, 65535, one.rows(0, NY)).astype(np.uint16) for one in several]
    result = dome([RawFrame.of_array(data, one.meta) for data, one in zip(counts, several, strict=True)])
    assert result.measures["frames"] == 3


def test_a_saturated_amplifier_does_not_hide_behind_the_other() -> None:
    bright = changed(exposure(20, 30000, LAMPLIGHT), LEFT, value=0)
    noise = np.random.default_rng(4).integers(0, 900, (NY, NX)).astype(np.uint16)
    counts = bright.rows(0, NY).copy()
    counts[:, LEFT] = 59000 + noise[:, LEFT]
    result = dome([*lamps(4), RawFrame.of_array(counts, bright.meta)])
    assert [one.number for one in result.left_out] == [4]
    assert "amplifier A reads 59" in result.left_out[0].reason


def test_an_amplifier_that_is_stuck_is_dead_however_high_it_reads() -> None:
    result = dome([changed(one, LEFT, value=59999) for one in lamps(4)])
    assert result.measures["dead_amplifiers"] == 1 and "amplifier A" in result.used
    assert (result.planes["WEIGHT"][:, LEFT] == 0).all()
    assert result.measures["level_max_adu"] < 30000
    once = dome([*lamps(4), changed(lamps(1)[0], LEFT, value=59999)])
    assert [one.reason for one in once.left_out] == ["amplifier A is constant at 59999 ADU"]
    with pytest.raises(TooFew, match="e000: amplifier A is constant at 30000 ADU"):
        dome([changed(one, WHOLE, value=30000) for one in lamps(2)])


def test_a_flat_without_a_pixel_that_counts_says_so() -> None:
    hot = Frame(np.ones((NY, NX), np.int16))
    settings = DomeflatParams(overscan_mode="none")
    with pytest.raises(TooFew, match="e000: no pixel of it counts"):
        make_domeflat(frames(lamps(2)), hotpix=hot, params=settings)
    with pytest.raises(TooFew, match="e040: no pixel of it counts"):
        make_nightflat(frames(skies(3)), hotpix=hot, params=NightflatParams(overscan_mode="none"))


@pytest.mark.parametrize("seconds", [None, 0.0, -3.0])
def test_a_dark_needs_the_time_of_the_exposure_unless_it_holds_its_bias(seconds: float | None) -> None:
    several, settings = frames(lamps(2, exptime_s=seconds)), DomeflatParams(overscan_mode="none")
    dark = Frame(np.zeros((NY, NX), np.float32), np.ones((NY, NX), np.float32))
    with pytest.raises(BadHeader, match=r"e000: the exposure time is .*, and a dark") as failed:
        make_domeflat(several, dark=dark, params=settings)
    assert "--no-dark" in failed.value.hint
    holding = Frame(dark.data, dark.weight, None, {"holds_bias": 1})
    assert make_domeflat(several, dark=holding, params=settings).measures["frames"] == 2


def test_a_dark_is_subtracted_by_its_time_or_with_its_bias() -> None:
    glow = 20.0 * np.exp(-Y / 60.0)
    raw = [exposure(n, 20000, LAMPLIGHT) for n in range(4)]
    counts = [one.rows(0, NY) + (60 * glow).round().astype(np.uint16) for one in raw]
    several = frames([RawFrame.of_array(data, meta(n)) for n, data in enumerate(counts)])
    settings = DomeflatParams(overscan_mode="none")
    rate = Frame(glow.astype(np.float32), np.ones((NY, NX), np.float32))
    whole = Frame((60 * glow).astype(np.float32), rate.weight, None, {"holds_bias": 1})
    for one in (rate, whole):
        bias = Frame(np.zeros((NY, NX), np.float32) if one is rate else np.full((NY, NX), 1e4, np.float32))
        result = make_domeflat(several, bias=bias, dark=one, params=settings)
        assert flatness(result, LAMPLIGHT) < 4e-4
    without = make_domeflat(several, params=settings)
    assert flatness(without, LAMPLIGHT) > 2e-3


# Twilight


@pytest.mark.parametrize("count", [2, 3, 6])
def test_stars_and_trails_do_not_survive(count: int) -> None:
    several = [exposure(n, 15000 + 1000 * n, SKYLIGHT + stars(n, 8, 1.0)) for n in range(count)]
    several[0] = exposure(0, 15000, SKYLIGHT + stars(0, 8, 1.0) + trail(0, 0.5))
    result = twilight(several)
    light = (stars(0, 8, 1.0) + trail(0, 0.5)) > 0.002
    ratio = result.planes["SCI"] / TRUTH
    good = result.planes["WEIGHT"] > 0
    left = np.mean(ratio[light & good]) / np.median(ratio[~light & good]) - 1
    assert abs(left) < (1e-3 if count > 2 else 3e-3)
    assert flatness(result) < (6e-4 if count > 2 else 1.5e-3)
    assert ("raw" in result.used) == (count < 3)


def test_a_single_twilight_flat_is_masked_where_stars_are() -> None:
    result = twilight([exposure(1, 20000, SKYLIGHT + stars(1, 8, 1.0))])
    bright = stars(1, 8, 1.0) > 0.05
    assert (result.planes["WEIGHT"][bright] == 0).mean() > 0.95
    assert (result.planes["MASK"][bright] & 512 > 0).mean() > 0.95
    assert "1 exposure" in result.used["raw"]


def test_gradients_that_differ_are_taken_out_and_their_mean_stays() -> None:
    tilts = (-0.02, 0.0, 0.05)
    several = [exposure(n, 20000, SKYLIGHT + tilt * U) for n, tilt in enumerate(tilts)]
    result = twilight(several)
    assert flatness(result, SKYLIGHT + np.mean(tilts) * U) < 5e-4
    assert result.measures["rejected_fraction"] < 1e-3


# Night


def test_the_night_sky_gives_the_illumination_that_the_lamp_lacks() -> None:
    lamp = lamp_flat()
    result = night(skies(), lamp)
    assert result.measures["frames"] == 8
    assert result.measures["gradient_fraction"] == pytest.approx(np.ptp(LAMPLIGHT), rel=0.4)
    assert flatness(result) < 3e-3
    flat = make_flat(domeflat=lamp, nightflat=frame_of(result), params=FlatParams(illumination_scale_px=96))
    assert flatness(flat) < 1.5e-3
    assert flatness(make_flat(domeflat=lamp, params=FlatParams())) > 0.015


def test_frames_that_show_no_sky_are_left_out_by_name() -> None:
    lamp = lamp_flat()
    galaxy = 3 * np.exp(-(U * U + V * V) / 1.5)
    dawn = 0.15 * np.cos(5 * np.hypot(U, V))
    several = [
        *skies(5),
        exposure(60, 900, SKYLIGHT + galaxy),
        exposure(61, 3000, SKYLIGHT + dawn),
    ]
    result = night(several, lamp)
    assert {one.number for one in result.left_out} == {5, 6}
    assert all("objects cover" in one.reason or "departs" in one.reason for one in result.left_out)
    assert flatness(make_flat(domeflat=lamp, nightflat=frame_of(result), params=FlatParams())) < 2e-3


def test_too_few_frames_that_show_the_sky() -> None:
    with pytest.raises(TooFew, match=r"only 0 of 3 .* e040: objects cover 0\.\d+ of it"):
        night(skies(3), frame_of(dome(lamps(2))), max_masked_fraction=0.01)


def test_skies_of_very_different_levels_and_moonlight() -> None:
    lamp = lamp_flat()
    levels = (150, 400, 900, 1500, 6000)
    several = [exposure(60 + n, level, SKYLIGHT + stars(n, 12, 2.0)) for n, level in enumerate(levels)]
    several.append(exposure(70, 2500, SKYLIGHT + 0.1 * U + stars(9, 12, 2.0)))
    result = night(several, lamp)
    assert result.measures["frames"] == 6
    assert result.measures["level_max_adu"] == pytest.approx(6000, rel=0.02)
    assert flatness(make_flat(domeflat=lamp, nightflat=frame_of(result), params=FlatParams())) < 3e-3


def test_an_amplifier_without_sky_is_masked_and_the_rest_is_right() -> None:
    dim = SKYLIGHT.copy()
    dim[:, NX // 2 :] = 0
    several = [exposure(40 + n, 900, (SKYLIGHT + stars(n, 12, 2.0)) * dim) for n in range(8)]
    result = night(several, lamp_flat())
    assert "amplifier B" in result.used
    assert (result.planes["WEIGHT"][:, NX // 2 :] == 0).all()
    assert (result.planes["MASK"][:, NX // 2 :] & 512).all()
    assert result.measures["level_max_adu"] == pytest.approx(900, rel=0.03)
    assert flatness(result) < 4e-3
    known = lamp_flat()
    assert known.weight is not None
    blind = Frame(known.data, np.where(dim > 0, known.weight, np.float32(0)), known.mask, known.meta)
    assert (night(several, blind).planes["WEIGHT"][:, NX // 2 :] == 0).all()


def test_a_frame_in_which_an_amplifier_failed_is_left_out() -> None:
    dim = SKYLIGHT.copy()
    dim[:, NX // 2 :] = 0
    result = night([*skies(4), exposure(60, 900, dim)], lamp_flat())
    assert [(one.number, one.reason) for one in result.left_out] == [(4, "amplifier B shows no sky")]
    assert not result.used


def test_blank_values_are_no_sky() -> None:
    box = (slice(80, 140), slice(60, 150))
    several = []
    for one in skies(6):
        counts = one.rows(0, NY).astype(np.float32)
        counts[box] = -32768
        several.append(RawFrame.of_array(counts, one.meta))
    result = night(several, lamp_flat())
    assert result.measures["frames"] == 6
    assert (result.planes["WEIGHT"][box] == 0).all()
    assert result.measures["level_min_adu"] == pytest.approx(900, rel=0.03)
    assert flatness(result) < 4e-3


def test_what_every_frame_covers_has_no_value() -> None:
    galaxy = 2 * np.exp(-((X - 100) ** 2 + (Y - 100) ** 2) / 300)
    several = [exposure(60 + n, 900, SKYLIGHT + galaxy + stars(n, 5, 2.0)) for n in range(4)]
    result = night(several, lamp_flat())
    assert (result.planes["WEIGHT"][galaxy > 0.5] == 0).all()
    assert (result.planes["MASK"][galaxy > 0.5] & 512).all()
    assert result.measures["uncovered_fraction"] > 0
    assert np.isfinite(result.planes["SCI"]).all()


# Master


def test_dome_and_twilight_together_are_better_than_each() -> None:
    lamp = lamp_flat()
    sky = frame_of(twilight([exposure(n, 18000, SKYLIGHT + stars(n, 8, 1.0)) for n in range(4)]))
    flat = make_flat(domeflat=lamp, twiflat=sky, params=FlatParams())
    assert flatness(flat) < 1e-3
    assert flat.measures["illumination_fraction"] == pytest.approx(np.ptp(LAMPLIGHT), rel=0.3)
    # No step at the border of the amplifiers, where the flat itself has one of 12%.
    ratio = flat.planes["SCI"] / TRUTH
    left, right = ratio[:, NX // 2 - 8 : NX // 2], ratio[:, NX // 2 : NX // 2 + 8]
    assert abs(left.mean() / right.mean() - 1) < 5e-4
    single = make_flat(twiflat=sky, params=FlatParams())
    noise = [np.std((one.planes["SCI"] / TRUTH)[100:140, 100:140]) for one in (flat, single)]
    assert noise[0] < noise[1]
    assert single.measures["illumination_fraction"] is None


def test_the_night_flat_goes_before_the_twilight_flat() -> None:
    lamp = lamp_flat()
    tilted = frame_of(twilight([exposure(n, 18000, SKYLIGHT + 0.05 * U) for n in range(3)]))
    nightly = night_flat()
    flat = make_flat(domeflat=lamp, twiflat=tilted, nightflat=nightly, params=FlatParams())
    assert flatness(flat) < 2e-3
    assert "night flat" in flat.used["twiflat"]


def test_any_one_alone_and_none() -> None:
    lamp = lamp_flat()
    nightly = night_flat()
    for given in ({"domeflat": lamp}, {"twiflat": lamp}, {"nightflat": nightly}):
        flat = make_flat(**given, params=FlatParams())
        good = flat.planes["WEIGHT"] > 0
        assert flat.planes["SCI"][good].mean() == pytest.approx(1, abs=1e-6)
    with pytest.raises(UsageError):
        make_flat(params=FlatParams())


def test_cold_pixels_are_passed_on_and_do_not_count() -> None:
    cold = np.zeros((NY, NX), np.int16)
    cold[40, 50] = 2
    cold[:, 77] = 1
    flat = make_flat(domeflat=lamp_flat(), coldpix=Frame(cold.astype(np.float32)), params=FlatParams())
    assert flat.planes["MASK"][40, 50] == 2 and flat.planes["WEIGHT"][40, 50] == 0
    assert not flat.planes["MASK"][:, 77].any()
    assert flat.measures["cold_pixels"] == 1
    assert flat.measures["min_response"] > 0.5


def test_flats_without_anything_are_refused() -> None:
    dark = Frame(np.zeros((NY, NX), np.float32), np.ones((NY, NX), np.float32), None, meta(0))
    nothing = Frame(np.ones((NY, NX), np.float32), np.zeros((NY, NX), np.float32), None, meta(0))
    for bad in (dark, nothing):
        with pytest.raises(BadPixels):
            make_flat(domeflat=bad, params=FlatParams())
        with pytest.raises(BadPixels):
            make_flat(domeflat=frame_of(dome(lamps(2))), twiflat=bad, params=FlatParams())


# Commands


def test_flats_of_two_filters_are_refused_under_one_name(store: Store) -> None:
    raw = awe("query", "raw_domeflat", "detector=sim1").split()
    ran = program("domeflat", "--no-bias", "-o", "flat.fits", *raw)
    assert ran.code == 4 and "mixture" in ran.err and "filter" in ran.err


def measures_of(path: str) -> Mapping[str, Any]:
    measures: Mapping[str, Any] = open_product(Path(path)).record["quality"]["measures"]
    return measures


def test_a_flat_begins_with_any_of_its_flats(reduced_store: Store) -> None:
    lamp = awe("query", "domeflat", "detector=sim1", "filter=R").strip()
    raw = awe("query", "raw_twiflat", "detector=sim1", "filter=R").split()
    (sky,) = awe("twiflat", "-q", "-o", "sky.fits", *raw).split()
    alone = awe("flat", "-q", "--no-domeflat", "--no-nightflat", "-o", "alone.fits", sky).strip()
    assert measures_of(alone)["illumination_fraction"] is None
    both = awe("flat", "-q", "--no-nightflat", "--twiflat", sky, "-o", "both.fits", lamp).strip()
    other = awe("flat", "-q", "--no-nightflat", "--domeflat", lamp, "-o", "other.fits", sky).strip()
    assert measures_of(both)["illumination_fraction"] is not None
    assert measures_of(both)["imstat.mean"] == measures_of(other)["imstat.mean"]
    used = open_product(Path(both)).record["recipe"]["inputs"]
    assert {one["role"] for one in used} >= {"domeflat", "twiflat"}
