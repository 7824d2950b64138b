"""The global solution against simulated mosaics: truth, held-out stars, bad frames, no reference, few stars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from awetools.core.errors import BadValue, EmptyInput, Mixture, NoSolution
from awetools.core.sky.adjust import Adjustment, Frame, adjust
from awetools.core.sky.adjuststart import started
from awetools.core.sky.fitwcs import fit_polynomial, wcs_of_fit
from awetools.core.sky.mosaic import lifted, lowered, rotation
from awetools.core.sky.readwcs import read_wcs
from awetools.core.sky.solve import Reference, Sources
from awetools.core.sky.sphere import angles, from_tangent, separation_arcsec, to_tangent, unit_vectors
from awetools.core.sky.starmatch import held_out, stars_of
from awetools.core.sky.wcs import Wcs
from awetools.core.sky.writewcs import wcs_as_cards

SHAPE, SCALE = (1000, 800), 0.3
STEP = SCALE / 3600
NOISE_ARCSEC, REFERENCE_ARCSEC = 0.01, 0.02


@dataclass
class Run:
    """Frames with local solutions, the reference, and the true coordinate systems by name."""

    frames: list[Frame]
    reference: Reference
    truth: dict[str, Wcs]

    def error_arcsec(self, systems: dict[str, Wcs]) -> float:
        """The rms of coordinate systems against the truth, over all frames."""
        x, y = np.meshgrid(np.linspace(20, SHAPE[1] - 20, 7), np.linspace(20, SHAPE[0] - 20, 7))
        squares = [
            separation_arcsec(*self.truth[name].to_sky(x, y), *wcs.to_sky(x, y)) ** 2
            for name, wcs in systems.items()
        ]
        return math.sqrt(float(np.mean(squares)))

    def local(self) -> float:
        return self.error_arcsec({one.name: one.wcs for one in self.frames})

    def final(self, made: Adjustment) -> float:
        return self.error_arcsec({one.name: one.wcs for one in made.frames})


def run(
    *,
    seed: int = 1,
    ra: float = 150.0,
    dec: float = 2.0,
    exposures: int = 5,
    detectors: int = 2,
    stars: int = 150,
    listed: int = 60,
    dither_arcsec: float = 40.0,
    local: bool = True,
    years: float = 0.0,
    zenith: tuple[float, float] | None = None,
) -> Run:
    """stars and listed (of the reference) a detector; local: solutions from its stars, else a pointing that is off."""
    rng = np.random.default_rng(seed)
    width = SHAPE[1] * 1.05
    half_x = (0.5 * detectors * width * SCALE + 2 * dither_arcsec) / 3600
    half_y = (0.5 * SHAPE[0] * SCALE + 2 * dither_arcsec) / 3600
    number = int(stars * 4 * half_x * half_y / (SHAPE[0] * SHAPE[1] * STEP**2))
    xi, eta = rng.uniform(-half_x, half_x, number), rng.uniform(-half_y, half_y, number)
    star_ra, star_dec = from_tangent(xi, eta, ra, dec)
    pm = rng.normal(0, 50.0 if years else 0.0, (2, number))
    known = rng.random(number) < listed / stars
    spread = rng.normal(0, REFERENCE_ARCSEC / 3600, (2, number))
    seen_ra, seen_dec = moved(star_ra, star_dec, *spread)
    reference = Reference(
        seen_ra[known],
        seen_dec[known],
        error_arcsec=REFERENCE_ARCSEC,
        epoch_yr=2000.0,
        pm_ra_mas_yr=pm[0, known],
        pm_dec_mas_yr=pm[1, known],
    )
    bends = rng.normal(0, 2e-3, (detectors, 2, 3))
    turns, offsets = rng.normal(0, 0.05, detectors), rng.normal(0, 3.0, (detectors, 2))
    frames, truth = [], {}
    for e in range(exposures):
        shift = rng.uniform(-dither_arcsec, dither_arcsec, 2) / 3600
        crval = tuple(float(one[0]) for one in from_tangent(shift[:1], shift[1:], ra, dec))
        turn = rng.normal(0, 0.02)
        epoch = 2000.0 + years * (1 + e / exposures)
        now_ra, now_dec = moved(star_ra, star_dec, *(pm * (epoch - 2000.0) / 3.6e6))
        if zenith is not None:
            up = np.broadcast_to(unit_vectors(*zenith), (number, 3))
            vectors = lifted(unit_vectors(now_ra, now_dec), up, 58.2)
            now_ra, now_dec = angles(*(vectors[:, k] for k in range(3)))
        for d in range(detectors):
            crpix = (
                0.5 * SHAPE[1] - (d - 0.5 * (detectors - 1)) * width + offsets[d, 0],
                0.5 * SHAPE[0] + offsets[d, 1],
            )
            wcs = true_wcs((crval[0], crval[1]), crpix, turn + turns[d], bends[d])
            x, y = wcs.to_pixel(now_ra, now_dec)
            inside = np.flatnonzero((x > 1) & (x < SHAPE[1]) & (y > 1) & (y < SHAPE[0]))
            x, y = (one[inside] + rng.normal(0, NOISE_ARCSEC / SCALE, len(inside)) for one in (x, y))
            name = f"e{e}d{d}"
            start = wcs
            if zenith is not None:
                start = refitted(wcs, zenith)
            truth[name] = start
            if local:
                use = known[inside]
                places = to_tangent(now_ra[inside[use]], now_dec[inside[use]], *crval)
                there = rng.normal(0, REFERENCE_ARCSEC / 3600, (2, use.sum()))
                if zenith is None:
                    places = (
                        to_tangent(seen_ra[inside[use]], seen_dec[inside[use]], *crval)
                        if not years
                        else places
                    )
                    fit = fit_polynomial(
                        3 if use.sum() > 25 else 1, x[use], y[use], *(places + there * (years > 0))
                    )
                    start = wcs_of_fit(fit, (crval[0], crval[1]))
            else:
                start = Wcs((crval[0] + 1e-4, crval[1]), crpix, (-STEP, 0.0, 0.0, STEP))
            frames.append(
                Frame(
                    name,
                    f"d{d}",
                    f"e{e}",
                    Sources(x, y, error_px=NOISE_ARCSEC / SCALE),
                    start,
                    SHAPE,
                    epoch_yr=epoch,
                    zenith_deg=zenith,
                    signal_to_noise=100.0,
                )
            )
    return Run(frames, reference, truth)


def moved(
    ra: np.ndarray, dec: np.ndarray, east: np.ndarray, north: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positions after small steps in degrees."""
    return ra + east / np.cos(np.radians(dec)), dec + north


def true_wcs(crval: tuple[float, float], crpix: tuple[float, float], turn: float, bend: np.ndarray) -> Wcs:
    cosine, sine = STEP * math.cos(math.radians(turn)), STEP * math.sin(math.radians(turn))
    cards: dict[str, object] = {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "CUNIT1": "deg", "CUNIT2": "deg"}
    cards |= {"CRVAL1": crval[0], "CRVAL2": crval[1], "CRPIX1": crpix[0], "CRPIX2": crpix[1]}
    cards |= {"CD1_1": -cosine, "CD1_2": sine, "CD2_1": sine, "CD2_2": cosine}
    for axis in (1, 2):
        cards |= {f"PV{axis}_1": 1.0, f"PV{axis}_7": 0.12, f"PV{axis}_9": 0.12}
        cards |= {f"PV{axis}_{4 + k}": float(bend[axis - 1, k]) for k in range(3)}
    return read_wcs(cards)  # type: ignore[arg-type]


def refitted(wcs: Wcs, zenith: tuple[float, float]) -> Wcs:
    """The coordinate system of what lies behind the refraction."""
    x, y = (one.ravel() for one in np.meshgrid(np.linspace(1, SHAPE[1], 9), np.linspace(1, SHAPE[0], 9)))
    up = np.broadcast_to(unit_vectors(*zenith), (len(x), 3))
    ra, dec = angles(*lowered(wcs.vectors(x, y), up, 58.2).T)
    middle = float(ra[40]), float(dec[40])
    return wcs_of_fit(fit_polynomial(3, x, y, *to_tangent(ra, dec, *middle)), middle)


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
