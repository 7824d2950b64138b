"""Frames that do not belong into a global solution: planted ones are named, the right one; the rest is as good."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from awetools.core.errors import NoSolution
from awetools.core.sky.adjust import Frame, adjust
from awetools.core.sky.solve import Reference, Sources
from tests.sky_frames import SHAPE, Run, run


def with_sources(frame: Frame, x: np.ndarray, y: np.ndarray) -> Frame:
    return replace(frame, sources=replace(frame.sources, x=x, y=y))


def scrambled(frame: Frame) -> Frame:
    x, y = np.random.default_rng(0).uniform(1, (SHAPE[1], SHAPE[0]), (len(frame.sources.x), 2)).T
    return with_sources(frame, x, y)


def shifted(frame: Frame) -> Frame:
    return with_sources(frame, np.asarray(frame.sources.x) + 1.5, np.asarray(frame.sources.y) - 1.2)


def far_shifted(frame: Frame) -> Frame:
    return with_sources(frame, np.asarray(frame.sources.x) + 40, np.asarray(frame.sources.y))


def rotated(frame: Frame) -> Frame:
    z = np.asarray(frame.sources.x) - 400 + 1j * (np.asarray(frame.sources.y) - 500)
    z *= np.exp(1j * math.radians(0.2))
    return with_sources(frame, z.real + 400, z.imag + 500)


def misplaced(frame: Frame) -> Frame:
    crpix = frame.wcs.crpix[0] + 40, frame.wcs.crpix[1] + 40
    return replace(frame, wcs=replace(frame.wcs, crpix=crpix))


def other_field(frame: Frame) -> Frame:
    other = run(seed=77, exposures=1, detectors=1).frames[0]
    return with_sources(frame, np.asarray(other.sources.x), np.asarray(other.sources.y))


def hardly_any(frame: Frame) -> Frame:
    return with_sources(frame, np.array([10.0, 11.0, 12.0]), np.array([5.0, 5.0, 5.0]))


PLANTED = (scrambled, shifted, far_shifted, rotated, misplaced, other_field, hardly_any)


def planted(sky: Run, name: str, change: Callable[[Frame], Frame]) -> list[Frame]:
    return [change(one) if one.name == name else one for one in sky.frames]


@pytest.mark.parametrize("reference", [True, False], ids=["reference", "relative"])
@pytest.mark.parametrize("name", ["e0d0", "e3d1"])
@pytest.mark.parametrize("change", PLANTED)
def test_one_of_ten(change: Callable[[Frame], Frame], name: str, reference: bool) -> None:
    sky = run(seed=2, exposures=5, stars=100)
    frames = planted(sky, name, change)
    frames = [one if one.name == name else replace(one, sources=replace(one.sources)) for one in frames]
    listed = sky.reference if reference else None
    made = adjust(frames, listed)
    assert list(made.left_out) == [name]
    good = adjust([one for one in sky.frames if one.name != name], listed)
    assert sky.final(made) == pytest.approx(sky.final(good), rel=0.05)


@pytest.mark.parametrize("change", PLANTED)
def test_one_of_a_hundred(change: Callable[[Frame], Frame]) -> None:
    sky = run(seed=3, exposures=50, stars=40, listed=15)
    made = adjust(planted(sky, "e31d1", change), sky.reference)
    assert list(made.left_out) == ["e31d1"]


def test_several_at_once() -> None:
    sky = run(seed=4, exposures=12, detectors=3, stars=80, listed=30)
    changes = {"e1d0": scrambled, "e4d2": shifted, "e4d1": other_field, "e7d1": misplaced, "e9d0": rotated}
    frames = [changes.get(one.name, lambda f: f)(one) for one in sky.frames]
    assert set(adjust(frames, sky.reference).left_out) == set(changes)


def test_all_good_ones_stay() -> None:
    for seed in range(5):
        sky = run(seed=seed, exposures=4, stars=40, listed=15)
        assert not adjust(sky.frames, sky.reference).left_out
        assert not adjust(sky.frames).left_out


def test_a_frame_of_other_stars_stays_if_some_are_common() -> None:
    sky = run(seed=1, exposures=5, stars=100)
    one = sky.frames[3]
    rng = np.random.default_rng(5)
    x, y = rng.uniform(1, (SHAPE[1], SHAPE[0]), (80, 2)).T
    few = slice(0, None, 5)
    other = with_sources(
        one, np.r_[np.asarray(one.sources.x)[few], x], np.r_[np.asarray(one.sources.y)[few], y]
    )
    made = adjust([*sky.frames[:3], other, *sky.frames[4:]], sky.reference)
    assert not made.left_out
    assert sky.final(made) < 0.012


# Bad luck


def test_a_frame_without_stars_is_left_out() -> None:
    sky = run(seed=1)
    nothing = replace(sky.frames[3], sources=Sources(np.empty(0), np.empty(0)), signal_to_noise=None)
    made = adjust([*sky.frames[:3], nothing, *sky.frames[4:]], sky.reference)
    assert made.left_out == {"e1d1": "it has no sources that a fit can rest on"}


def test_a_frame_given_twice_counts_once() -> None:
    sky = run(seed=1)
    again = [replace(one, name=f"{one.name}x", exposure="copy") for one in sky.frames if one.exposure == "e2"]
    made = adjust([*sky.frames, *again], sky.reference)
    assert set(made.left_out) == {"e2d0x", "e2d1x"}
    assert made.left_out["e2d0x"] == "its sources are those of e2d0, to the last bit"


def test_the_catalogue_of_another_field_is_refused() -> None:
    sky, other = run(seed=1), run(seed=9)
    for listed in (run(seed=9, ra=20.0).reference, other.reference):
        with pytest.raises(NoSolution, match="the reference catalogue has"):
            adjust(sky.frames, listed)


def test_stars_listed_twice_count_once() -> None:
    sky = run(seed=1)
    twice = Reference(
        np.r_[sky.reference.ra_deg, sky.reference.ra_deg],
        np.r_[sky.reference.dec_deg, sky.reference.dec_deg],
        error_arcsec=0.02,
    )
    one, two = adjust(sky.frames, replace(sky.reference, epoch_yr=None)), adjust(sky.frames, twice)
    assert two.measures["reference_stars"] == one.measures["reference_stars"]
    assert sky.final(two) == pytest.approx(sky.final(one), rel=0.05)


def test_reference_stars_that_are_wrong_have_no_say() -> None:
    for seed in range(3):
        sky = run(seed=seed)
        wrong = np.asarray(sky.reference.ra_deg).copy()
        wrong[::8] += 0.8 / 3600
        made, good = (
            adjust(sky.frames, replace(sky.reference, ra_deg=wrong)),
            adjust(sky.frames, sky.reference),
        )
        assert sky.final(made) < 1.5 * sky.final(good)
        assert made.measures["external_rms_arcsec"] == pytest.approx(0.02, rel=0.3)


def test_unknown_epochs_and_motions() -> None:
    sky = run(seed=1)
    frames = [replace(one, epoch_yr=math.nan) for one in sky.frames]
    some = np.where(np.arange(len(sky.reference.ra_deg)) % 2, np.nan, 0.0)
    made = adjust(frames, replace(sky.reference, pm_ra_mas_yr=some, pm_dec_mas_yr=some, epoch_yr=some))
    assert sky.final(made) < 0.008


def of_coarse_pixels(frame: Frame, times: float, rng: np.random.Generator) -> Frame:
    """The same frame seen by an instrument with larger pixels, as well measured in its own pixels."""
    x, y = (
        (np.asarray(one) - 0.5) / times + 0.5 + rng.normal(0, 0.03, len(frame.sources.x))
        for one in (frame.sources.x, frame.sources.y)
    )
    a, b, c, d = (times * one for one in frame.wcs.matrix)
    crpix = (frame.wcs.crpix[0] - 0.5) / times + 0.5, (frame.wcs.crpix[1] - 0.5) / times + 0.5
    return replace(
        frame,
        name=f"coarse {frame.name}",
        detector="coarse",
        exposure=f"coarse {frame.exposure}",
        sources=replace(frame.sources, x=x, y=y, error_px=np.full(len(x), 0.03)),
        wcs=replace(frame.wcs, crpix=crpix, matrix=(a, b, c, d)),
        shape=(round(SHAPE[0] / times), round(SHAPE[1] / times)),
    )


def test_an_instrument_of_coarse_pixels_is_not_bad_for_that() -> None:
    rng = np.random.default_rng(3)
    sky = run(seed=6, exposures=5, detectors=1)
    elsewhere = run(seed=8, ra=77.0, exposures=3, detectors=1)
    coarse = [of_coarse_pixels(one, 20, rng) for one in elsewhere.frames]
    found = adjust([*sky.frames, *coarse])
    assert not found.left_out and len(found.frames) == len(sky.frames) + len(coarse)
