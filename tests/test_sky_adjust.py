"""The global solution against simulated mosaics: truth, held-out stars, no reference, few stars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from awetools.core.errors import BadValue, EmptyInput, Mixture, NoSolution
from awetools.core.sky.adjust import Frame, adjust
from awetools.core.sky.adjuststart import started
from awetools.core.sky.mosaic import rotation
from awetools.core.sky.readwcs import read_wcs
from awetools.core.sky.solve import Sources
from awetools.core.sky.sphere import separation_arcsec, unit_vectors
from awetools.core.sky.starmatch import held_out, stars_of
from awetools.core.sky.writewcs import wcs_as_cards
from tests.sky_frames import NOISE_ARCSEC, REFERENCE_ARCSEC, run


@pytest.mark.parametrize("seed", range(6))
def test_better_than_frame_by_frame(seed: int) -> None:
    sky = run(seed=seed)
    made = adjust(sky.frames, sky.reference)
    assert not made.left_out
    assert sky.final(made) < 0.5 * sky.local()
    assert sky.final(made) < 0.008
    assert made.measures["internal_rms_arcsec"] == pytest.approx(NOISE_ARCSEC, rel=0.1)
    assert made.measures["internal_rms_arcsec_held"] == pytest.approx(NOISE_ARCSEC, rel=0.25)
    assert made.measures["external_rms_arcsec"] == pytest.approx(REFERENCE_ARCSEC, rel=0.2)
    assert 0.03 < made.measures["held_stars"] / made.measures["stars"] < 0.2


@pytest.mark.parametrize(("ra", "dec"), [(0.0, 0.0), (359.99, -30.0), (12.0, 88.0), (200.0, -89.0)])
def test_anywhere_on_the_sky(ra: float, dec: float) -> None:
    sky = run(ra=ra, dec=dec)
    assert sky.final(adjust(sky.frames, sky.reference)) < 0.011


def test_many_detectors_and_few_reference_stars() -> None:
    sky = run(seed=3, exposures=12, detectors=6, stars=80, listed=16)
    made = adjust(sky.frames, sky.reference)
    assert not made.left_out
    assert sky.final(made) < 0.1 * sky.local()
    assert made.measures["internal_bright_rms_arcsec_held"] < 0.0115


def test_without_reference_frames_are_tied_to_each_other() -> None:
    sky = run(seed=5, exposures=6)
    made = adjust(sky.frames)
    assert made.measures["internal_rms_arcsec_held"] < 1.3 * NOISE_ARCSEC
    assert math.isnan(made.measures["external_rms_arcsec"])


def test_without_reference_place_and_scale_of_all_stay() -> None:
    sky = run(seed=5, exposures=6)
    made = adjust(sky.frames)
    assert sky.final(made) < 0.6 * sky.local()
    for after in made.frames:
        areas_arcsec2 = [float(w.pixel_area_arcsec2(400, 500)) for w in (sky.truth[after.name], after.wcs)]
        assert areas_arcsec2[1] == pytest.approx(areas_arcsec2[0], rel=1.5e-4)
        assert after.measures["shift_arcsec"] < 0.05


def test_a_bad_frame_is_named_and_left_out() -> None:
    sky = run(seed=2, exposures=8)
    good = adjust([one for one in sky.frames if one.name != "e3d1"], sky.reference)
    x, y = np.random.default_rng(0).uniform(1, 800, (2, 150))
    bad = {
        "its own coordinate system": replace(
            sky.frames[7],
            wcs=replace(sky.frames[7].wcs, crpix=tuple(c + 40 for c in sky.frames[7].wcs.crpix)),
        ),
        "none of its 3 sources": replace(sky.frames[7], sources=Sources(x[:3] * 0 + 1, y[:3] * 0 + 1)),
        "of all frames": replace(
            sky.frames[7],
            sources=Sources(
                *(
                    np.asarray(c) + s
                    for c, s in zip(
                        (sky.frames[7].sources.x, sky.frames[7].sources.y), (1.5, -1.2), strict=True
                    )
                )
            ),
        ),
    }
    for reason, frame in bad.items():
        frames = [*sky.frames[:7], frame, *sky.frames[8:]]
        made = adjust(frames, sky.reference)
        assert list(made.left_out) == ["e3d1"], reason
        assert sky.final(made) == pytest.approx(sky.final(good), rel=0.05), reason


def test_few_common_stars_only_shift() -> None:
    sky = run(seed=4, exposures=5, detectors=1)
    few = sky.frames[4]
    third = np.flatnonzero(np.arange(np.asarray(few.sources.x).size) < 4)
    frame = replace(few, sources=Sources(np.asarray(few.sources.x)[third], np.asarray(few.sources.y)[third]))
    made = adjust([*sky.frames[:4], frame])
    last = made.frames[4]
    assert last.measures["stars"] <= 4
    assert last.wcs.position_angle_deg == pytest.approx(few.wcs.position_angle_deg, abs=0.02)


def test_proper_motions_lead_to_the_epoch() -> None:
    sky = run(seed=6, years=10.0)
    assert sky.final(adjust(sky.frames, sky.reference)) < 0.03
    still = replace(sky.reference, pm_ra_mas_yr=None, pm_dec_mas_yr=None)
    assert adjust(sky.frames, still).measures["external_rms_arcsec"] > 0.3


def test_differential_refraction() -> None:
    sky = run(seed=7, zenith=(150.0, 62.0), local=True, exposures=4, detectors=4)
    assert sky.final(adjust(sky.frames, sky.reference)) < 0.011


def test_written_as_tpv() -> None:
    sky = run()
    one = adjust(sky.frames, sky.reference).frames[0]
    again = read_wcs(wcs_as_cards(one.wcs, "TPV"))
    x, y = np.array([1.0, 400.0, 800.0]), np.array([1.0, 900.0, 1000.0])
    assert separation_arcsec(*again.to_sky(x, y), *one.wcs.to_sky(x, y)).max() < 1e-6
    assert np.allclose(one.wcs.to_pixel(*one.wcs.to_sky(x, y)), (x, y), atol=1e-6)


def test_same_input_same_result() -> None:
    sky = run()
    one, two = adjust(sky.frames, sky.reference), adjust(sky.frames, sky.reference)
    assert [frame.wcs for frame in one.frames] == [frame.wcs for frame in two.frames]
    assert one.measures == two.measures


def test_what_cannot_be_adjusted() -> None:
    sky = run()
    with pytest.raises(EmptyInput):
        adjust([])
    with pytest.raises(BadValue, match="degree 9"):
        adjust(sky.frames, degree=9)
    with pytest.raises(BadValue, match="held out"):
        adjust(sky.frames, hold_out=1)
    with pytest.raises(Mixture, match="e0d0 and again"):
        adjust([*sky.frames, replace(sky.frames[0], name="again")])
    with pytest.raises(Mixture, match="name e0d0"):
        adjust([*sky.frames, sky.frames[0]])
    with pytest.raises(Mixture, match="shapes"):
        adjust([replace(sky.frames[0], shape=(5, 5)), *sky.frames[1:]])
    empty = [replace(one, sources=Sources(np.empty(0), np.empty(0))) for one in sky.frames]
    for frames in (sky.frames[:1], empty):
        with pytest.raises(NoSolution, match="left out"):
            adjust(frames)


# The parts


def test_stars_of_exposures_and_blends() -> None:
    ra, dec = np.array([10.0, 10.0, 10.0, 40.0, 40.0, 40.0]), np.array([5.0, 5.0, 6.0, 7.0, 7.0, 7.0])
    star = stars_of(unit_vectors(ra, dec), np.array([0, 1, 1, 0, 0, 1]), 1.0)
    assert star[0] == star[1] != star[2]
    assert (star[3:] == -1).all()


def test_held_out_is_one_in_ten_and_the_same_each_time() -> None:
    rng = np.random.default_rng(1)
    vectors = unit_vectors(rng.uniform(0, 360, 20000), rng.uniform(-90, 90, 20000))
    held = held_out(vectors, 10)
    assert held.mean() == pytest.approx(0.1, abs=0.01)
    assert (held_out(vectors[::-1], 10)[::-1] == held).all()


def test_rotation_is_found() -> None:
    rng = np.random.default_rng(2)
    frame = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    frame *= np.sign(np.linalg.det(frame))
    plane = rng.normal(0, 0.01, 20) + 1j * rng.normal(0, 0.01, 20)
    vectors = np.stack([plane.real, plane.imag, np.ones(20)], axis=1) @ frame
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert np.allclose(rotation(plane, vectors), frame, atol=1e-9)


def test_a_start_from_separate_groups() -> None:
    one, two = run(seed=1), run(seed=2, ra=20.0)
    other = [
        replace(f, name=f"x{f.name}", detector=f"x{f.detector}", exposure=f"x{f.exposure}")
        for f in two.frames
    ]
    frames: Sequence[Frame] = [*one.frames, *other]
    start = started(frames, 3)
    assert start.apart_arcsec.max() < 2
    assert len(start.model.frames) == 10
