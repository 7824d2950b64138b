"""What flats have wrong for stars, found from stars at many places: truth that is known, and what cannot be known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from awetools.core.errors import BadValue, EmptyInput, NoSolution
from awetools.core.photometry.framestars import Anchors
from awetools.core.photometry.illumination import Fitted, PlacedStars, fit_illumination
from awetools.core.pixels.illumination import Illumination

# Between the middles of detectors, in halves of their size.
APART = 2.1
ERROR_MAG = 0.005


def too_faint(u: np.ndarray, v: np.ndarray, number: int, amplitude: float, many: int = 2) -> np.ndarray:
    """Light that is scattered into the middle of the mosaic, and a gradient over it."""
    half = (many - 1) * APART / 2
    across = (u + APART * number - half) / (half + 1)
    return np.asarray(amplitude * (0.6 - across**2 - v**2) + 0.3 * amplitude * across)


def field(
    amplitude: float = 0.03,
    seed: int = 1,
    many: int = 2,
    exposures: int = 6,
    stars: int = 1200,
    turned: bool = False,
    wrong: float = 0.02,
    colour: float = 0.0,
    dither: float = 0.3,
) -> tuple[list[PlacedStars], Anchors]:
    """Dithered exposures of a mosaic with its stars, half of which a catalogue has, and some of which vary."""
    random = np.random.default_rng(seed)
    half = (many - 1) * APART / 2
    x, y = random.uniform(-half - 2, half + 2, stars), random.uniform(-2, 2, stars)
    mag, index = random.uniform(15, 18, stars), random.normal(0.5, 0.4, stars)
    frames = []
    for exposure in range(exposures):
        east, north = x - random.uniform(-dither, dither), y - random.uniform(-dither, dither)
        angle = np.radians(90.0 * exposure if turned else 0.0)
        east, north = (
            east * np.cos(angle) + north * np.sin(angle),
            north * np.cos(angle) - east * np.sin(angle),
        )
        zero = random.normal(25, 0.1)
        for number in range(many):
            u, v = east + half - APART * number, north
            on = np.flatnonzero((np.abs(u) < 1) & (np.abs(v) < 1))
            seen = mag[on] - zero - 0.02 * number + too_faint(u[on], v[on], number, amplitude, many)
            seen += colour * (index[on] - 0.5) + random.normal(0, np.hypot(ERROR_MAG, 0.005), len(on))
            seen += np.where(random.random(len(on)) < wrong, random.normal(0, 0.5, len(on)), 0)
            error = np.full(len(on), ERROR_MAG)
            frames.append(PlacedStars(f"d{number}", f"e{exposure}", on, u[on], v[on], seen, error))
    known = np.flatnonzero(random.random(stars) < 0.5)
    reference = mag[known] + random.normal(0, 0.01, len(known))
    return frames, Anchors(known, reference, np.full(len(known), 0.01), index[known])


def away(found: Fitted, amplitude: float, without_gradient: bool = False) -> float:
    """The rms over the detectors of what is found less the truth, mag."""
    places = np.arange(1, 42)
    u, v = np.meshgrid((places - 21) / 20.5, (places - 21) / 20.5)
    squares = []
    for number, one in enumerate(found.detectors):
        made = Illumination((41, 41), one.coefficients_mag).mag_at(places[None, :], places[:, None])
        assert abs(made.mean()) < 1e-4
        rest = made - too_faint(u, v, number, amplitude, len(found.detectors))
        rest -= rest.mean()
        if without_gradient:
            rest -= (rest * u).sum() / (u * u).sum() * u + (rest * v).sum() / (v * v).sum() * v
        squares.append(np.mean(rest**2))
    return float(np.sqrt(np.mean(squares)))


def test_with_known_stars_all_is_found() -> None:
    found = fit_illumination(*field())
    assert away(found, 0.03) < 0.002
    assert found.gradient_known and not found.undetermined
    before, after = found.held_rms_mag
    # The scatter of a star is 7 mmag, the catalogue's 10.
    assert after < 0.0075 < before and found.improvement_sigma > 10
    assert found.held_reference_rms_mag[1] == pytest.approx(0.0105, abs=0.001)
    assert found.clipped_fraction == pytest.approx(0.02, abs=0.01)
    assert [one.offset_mag for one in found.detectors] == pytest.approx([-0.006, 0.006], abs=0.005)


def test_a_gradient_is_not_known_where_frames_are_only_shifted() -> None:
    """It could as well be one of the stars' magnitudes, with zero points that go with the shifts."""
    frames, _ = field()
    found = fit_illumination(frames)
    assert not found.gradient_known and found.undetermined == 2
    assert away(found, 0.03) > 0.002
    assert away(found, 0.03, without_gradient=True) < 0.002
    common = sum(one.coefficients_mag[1, 0] for one in found.detectors)
    assert abs(common) < 0.0005


def test_turned_frames_tell_it() -> None:
    frames, _ = field(many=1, turned=True)
    found = fit_illumination(frames)
    assert found.gradient_known and not found.undetermined
    assert away(found, 0.03) < 0.001


def test_a_gradient_that_tells_its_error() -> None:
    pulls = []
    for seed in range(6):
        found = fit_illumination(*field(seed=seed, stars=500))
        true = [0.3 * 0.03 / 2.05 / np.sqrt(3), 0.0]
        for one in found.detectors:
            # Along y there is none, whatever the detector.
            pulls.append((one.coefficients_mag[0, 1] - true[1]) / one.errors_mag[0, 1])
    assert 0.6 < np.std(pulls) < 1.5


def test_where_there_is_none_none_is_found() -> None:
    for anchors in (True, False):
        frames, known = field(amplitude=0.0, seed=4)
        found = fit_illumination(frames, known if anchors else None)
        assert away(found, 0.0) < 0.002
        assert found.improvement_sigma < 2
        assert found.held_rms_mag[1] > 0.998 * found.held_rms_mag[0]


def test_too_few_stars_make_nothing_better() -> None:
    found = fit_illumination(*field(amplitude=0.003, stars=100, exposures=3))
    assert found.improvement_sigma < 2


def test_colours_of_known_stars_do_not_disturb() -> None:
    found = fit_illumination(*field(colour=0.1))
    assert found.colour_coefficient == pytest.approx(-0.1, abs=0.003)
    assert away(found, 0.03) < 0.002
    plain = fit_illumination(*field(colour=0.1), fit_colour=False)
    assert plain.colour_coefficient is None
    assert plain.held_reference_rms_mag[1] > 3 * found.held_reference_rms_mag[1]


def test_a_fifth_of_wrong_magnitudes_does_no_harm() -> None:
    assert away(fit_illumination(*field(wrong=0.2)), 0.03) < 0.002


def test_what_is_not_known_to_within_the_limit_is_left_out() -> None:
    frames, known = field(stars=300)
    assert fit_illumination(frames, known, most_error_mag=1e-4).undetermined == 18
    made = fit_illumination(frames, known, most_error_mag=1e-4)
    assert all(not one.coefficients_mag.any() for one in made.detectors)
    assert fit_illumination(frames, known, most_error_mag=0.1).undetermined == 0


@pytest.mark.parametrize("degree", [1, 2, 4])
def test_degrees(degree: int) -> None:
    found = fit_illumination(*field(), degree=degree)
    assert [one.coefficients_mag.shape for one in found.detectors] == [(degree + 1,) * 2] * 2
    assert (away(found, 0.03) < 0.003) == (degree > 1)


def test_stars_twice_in_a_frame_and_nan_are_not_used() -> None:
    frames, known = field(stars=500)
    first: Any = frames[0]
    size = len(np.asarray(first.star))
    spoilt = PlacedStars(
        first.detector,
        first.exposure,
        np.concatenate([first.star, first.star]),
        *(np.concatenate([one, one]) for one in (first.u, first.v, first.mag + 5, first.error_mag)),
    )
    empty = PlacedStars("d0", "e9", [], [], [], [], [])
    blind = PlacedStars("d1", "e9", first.star, first.u, first.v, np.full(size, np.nan), first.error_mag)
    found = fit_illumination([spoilt, *frames[1:], empty, blind], known)
    assert found.frames == 14 and away(found, 0.03) < 0.003


def test_refusals() -> None:
    frames, known = field(stars=200)
    with pytest.raises(EmptyInput):
        fit_illumination([])
    with pytest.raises(NoSolution, match="share no star"):
        fit_illumination(frames[:1])
    for wrong in ({"degree": 0}, {"folds": 1}, {"clip_sigma": 1.0}, {"most_error_mag": 0.0}):
        with pytest.raises(BadValue):
            fit_illumination(frames, known, **wrong)  # type: ignore[arg-type]
