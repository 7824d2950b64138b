"""Fringes of simulated nights: the pattern against truth, and how little of it is left in the frames."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from awetools.core.errors import TooFew
from awetools.core.fits import open_fits
from awetools.core.frame import Frame, FrameSet, RawFrame
from awetools.core.kinds.fringe import FringeParams, make_fringe
from awetools.core.pixels.fringe import fit_fringe
from awetools.core.pixels.objects import object_mask
from awetools.core.products import open_product
from awetools.core.simulate import NightSpec
from awetools.core.simulate.night import simulate_night
from awetools.core.store import init_store
from tests.support import awe
from tests.test_flats import NX, NY, SKYLIGHT, TRUTH, U, X, Y, exposure, meta, stars

PATTERN = np.sin(2 * np.pi * (X / 30 + 2 * np.sin(Y / 90.0)))
NIGHT = NightSpec(
    detectors=1,
    exposures=6,
    biases=4,
    flats=4,
    twilights=3,
    darks=0,
    shape=(896, 960),
    filters=("y",),
    seed=3,
)


def flat() -> Frame:
    return Frame(TRUTH.astype(np.float32), np.full((NY, NX), 1e6, np.float32), None, meta(0))


def skies(amplitudes: tuple[float, ...], level_adu: float = 4000.0, tilt: float = 0.0) -> list[RawFrame]:
    return [
        exposure(
            60 + n,
            level_adu * (1 + 0.2 * n),
            SKYLIGHT + one * PATTERN + tilt * n * U + stars(n, 10, 1.0),
        )
        for n, one in enumerate(amplitudes)
    ]


def made(frames: list[RawFrame]) -> tuple[np.ndarray, np.ndarray, dict[str, float | int | None]]:
    settings = FringeParams(overscan_mode="none", smooth_px=160)
    result = make_fringe(FrameSet(tuple(frames)), flat=flat(), params=settings)
    return result.planes["SCI"], result.planes["WEIGHT"], dict(result.measures)


def test_the_pattern_is_per_unit_of_sky_and_its_scale_differs_from_frame_to_frame() -> None:
    amplitudes = (0.02, 0.03, 0.025, 0.015, 0.03)
    frames = skies(amplitudes)
    pattern, weight, measures = made(frames)
    good = weight > 0
    mean = float((pattern * PATTERN)[good].sum() / np.square(PATTERN)[good].sum())
    assert mean == pytest.approx(np.mean(amplitudes), rel=0.15)
    left = pattern - mean * PATTERN
    assert left[good].std() < 0.1 * mean * PATTERN.std()
    assert measures["fringe_fraction"] == pytest.approx(mean * PATTERN.std(), rel=0.1)
    assert 0 < float(measures["left_fraction"] or 0) < 0.15 * float(measures["fringe_fraction"] or 0)
    for number, (frame, amplitude) in enumerate(zip(frames, amplitudes, strict=True)):
        image = (frame.rows(0, NY) / TRUTH).astype(np.float32)
        use = ~object_mask(image, None, flatness=0.05)
        sky = 4000.0 * (1 + 0.2 * number)
        fit = fit_fringe(image, pattern, use, 160)
        assert fit.scale == pytest.approx(sky * amplitude / mean, rel=0.06)


def test_moonlight_is_no_fringe() -> None:
    pattern, weight, _ = made(skies((0.02,) * 5, tilt=0.02))
    good = weight > 0
    assert (pattern - 0.02 * PATTERN)[good].std() < 0.12 * 0.02 * PATTERN.std()


def test_frames_without_fringes_have_hardly_a_pattern() -> None:
    _, _, measures = made(skies((0.0,) * 5))
    assert float(measures["fringe_fraction"] or 0) < 1e-3


def test_two_frames_that_show_the_sky_are_too_few() -> None:
    galaxy = 3 * np.exp(-(U * U) / 1.5)
    frames = [*skies((0.02, 0.02)), exposure(90, 4000, SKYLIGHT + galaxy)]
    with pytest.raises(TooFew, match="e090"):
        made(frames)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A night in y with everything up to its fringe frame; the night and its store."""
    night = tmp_path_factory.mktemp("fringes") / "night"
    simulate_night(night, NIGHT)
    root = tmp_path_factory.mktemp("fringestore")
    init_store(root)
    awe("ingest", "-q", night / "raw", cwd=root)
    for kind, source in (
        ("bias", "raw_bias"),
        ("hotpix", "bias"),
        ("domeflat", "raw_domeflat"),
        ("twiflat", "raw_twiflat"),
        ("flat", "domeflat"),
        ("fringe", "raw_science"),
    ):
        awe(kind, "-q", stdin=awe("query", source, cwd=root), cwd=root)
    return night, root


def image_of(path: Path, plane: str | int = 0) -> np.ndarray:
    with open_fits(path) as fits:
        return np.asarray(fits.image(plane))


def test_a_tenth_of_the_fringes_is_left_in_a_simulated_night(simulated: tuple[Path, Path]) -> None:
    night, root = simulated
    path = Path(awe("query", "fringe", cwd=root).strip())
    record = open_product(path).record
    assert record["quality"]["flags"] == 0
    pattern, weight = image_of(path, "SCI"), image_of(path, "WEIGHT")
    truth = image_of(night / "truth" / "fringe_y_sim1.fits")
    good = weight > 0
    exposures = json.loads((night / "run.json").read_text())["exposures"]
    amplitudes = [one["conditions"]["fringe_amplitude"] for one in exposures if one["obstype"] == "OBJECT"]
    scale = float((pattern * truth)[good].sum() / np.square(truth)[good].sum())
    assert scale == pytest.approx(np.mean(amplitudes), rel=0.15)
    left = pattern / scale - truth
    assert left[good].std() < 0.1 * truth[good].std(), left[good].std() / truth[good].std()
