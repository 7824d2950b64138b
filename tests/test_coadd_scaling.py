"""Scales from overlaps: those of a galaxy that fills the field, whatever the seeing, the sky and its gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from awetools.core.coadd.coadd import Coadded, How, coadd, prepare
from awetools.core.coadd.inputs import CoaddFrame, flux_scale, frame_of_arrays
from awetools.core.coadd.scaling import BlockPairs, match_scales
from awetools.core.errors import BadValue, EmptyInput, NoMatch
from awetools.core.frame import FrameRows, ImageSet, Table
from awetools.core.kinds.coadd import CoaddParams, make_coadd
from awetools.core.kinds.coaddscale import edges_of, scale_error
from awetools.core.pixels.coadd import Stacking
from awetools.core.pixels.mask import Bit
from awetools.core.sky.grid import Grid
from awetools.core.sky.wcs import Wcs
from awetools.core.sky.writewcs import wcs_as_cards

STEP = 0.37 / 3600
SIZE, SIDE, NOISE = 700, 360, 8.0
# Where frames begin on the whole of the sky, x and y.
PLACES = ((170, 170), (230, 160), (150, 240), (60, 200), (210, 90), (290, 280))


def wcs_at(x: int, y: int) -> Wcs:
    return Wcs((180.0, 0.0), (SIZE / 2 + 0.5 - x, SIZE / 2 + 0.5 - y), (-STEP, 0.0, 0.0, STEP))


GRID = Grid(wcs_at(0, 0), (SIZE, SIZE))


def galaxy(peak: float) -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    radius, angle = np.hypot(x, 1.3 * y), np.arctan2(y, x)
    made: np.ndarray = (
        peak * np.exp(-((radius / 130) ** 0.8)) * (1 + 0.3 * np.sin(2 * angle + 4 * np.log(radius + 30)))
    )
    return made


def stars(fwhm: float, number: int = 60) -> np.ndarray:
    rng, made = np.random.default_rng(5), np.zeros((SIZE, SIZE))
    sigma, reach = fwhm / 2.3548, 16
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    profile = np.exp(-(x**2 + y**2) / (2 * sigma**2)) / (2 * math.pi * sigma**2)
    for cx, cy, flux in zip(
        *rng.integers(20, SIZE - 20, (2, number)), 10 ** rng.uniform(3, 5.5, number), strict=True
    ):
        made[cy - reach : cy + reach + 1, cx - reach : cx + reach + 1] += flux * profile
    return made


def exposures(
    seed: int = 1,
    count: int = 6,
    peak: float = 2000.0,
    gradient: float = 0.0,
    fwhm: Sequence[float] = (3.5, 4.2, 6.0, 5.0, 3.8, 4.6),
    starry: bool = True,
) -> tuple[list[CoaddFrame], np.ndarray]:
    """Frames of one galaxy with scales (by which they are to be multiplied), skies and seeings of their own."""
    rng, light = np.random.default_rng(seed), galaxy(peak)
    scales = rng.uniform(0.7, 1.3, count)
    ramp = np.linspace(-1, 1, SIDE)
    frames = []
    for number, (scale, (x, y)) in enumerate(zip(scales, PLACES, strict=False)):
        all_of_it = light + stars(fwhm[number]) if starry else light
        seen = all_of_it[y : y + SIDE, x : x + SIDE] / scale
        tilt = rng.uniform(-gradient, gradient, 2)
        sky = rng.uniform(100, 400) + tilt[0] * ramp + tilt[1] * ramp[:, None]
        noise = rng.normal(0, np.sqrt(NOISE**2 + np.maximum(seen, 0) / 1.7))
        weight = np.full((SIDE, SIDE), NOISE**-2, np.float32)
        mask = np.zeros((SIDE, SIDE), np.int16)
        bad = rng.random((SIDE, SIDE)) < 0.002
        data = (seen + sky + noise).astype(np.float32)
        data[bad], weight[bad], mask[bad] = 60000, 0, 1
        frames.append(frame_of_arrays(f"frame{number}", wcs_at(x, y), data, weight, mask))
    return frames, scales


def how(matching: str = "constant", **more: Any) -> How:
    return How(Stacking("mean"), matching=matching, scaling="match", most_disagreeing=0, **more)  # type: ignore[arg-type]


def away_from_truth(made: Sequence[Any], scales: np.ndarray) -> np.ndarray:
    """Logarithms of found over true scales, less their mean, which is the gauge's."""
    ratio: np.ndarray = np.log([one.scale for one in made]) - np.log(scales)
    return ratio - ratio.mean()


def steps(made: Coadded, frames: Sequence[CoaddFrame], scales: np.ndarray, wide: int = 12) -> np.ndarray:
    """What the coadd less the truth changes by across the edges of frames, in units of the noise."""
    unit = np.exp(np.mean(np.log([one.scale for one in made.frames]) - np.log(scales)))
    away, count = made.planes["SCI"][:] / unit - galaxy(2000.0), made.planes["COUNT"][:]
    found = []
    for (x, y), _ in zip(PLACES, frames, strict=False):
        for turned, at, along in ((False, y, x), (False, y + SIDE, x), (True, x, y), (True, x + SIDE, y)):
            part = slice(along, along + SIDE)
            a, n = (plane.T if turned else plane for plane in (away, count))
            below, above = (slice(at - 4 - wide, at - 4), slice(at + 4, at + 4 + wide))
            both = (n[below, part] > 0).all(axis=0) & (n[above, part] > 0).all(axis=0)
            if both.sum() > 150:
                step = np.median(a[above, part][:, both], axis=0) - np.median(a[below, part][:, both], axis=0)
                found.append(step.mean() / NOISE)
    return np.array(found)


@pytest.mark.parametrize("gradient", [0.0, 15.0])
def test_scales_of_a_galaxy_that_fills_the_field(gradient: float) -> None:
    frames, scales = exposures(gradient=gradient)
    made = prepare(frames, GRID, how())
    assert not [one.reason for one in made.reports if one.reason]
    away = away_from_truth(made.reports, scales)
    assert np.abs(away).max() < 0.003
    # The errors are those that there are.
    errors = np.array([one.scale_error for one in made.reports])
    assert (errors < 0.003).all() and np.sqrt(np.mean((away / errors) ** 2)) < 3
    assert np.mean([math.log(one.scale) for one in made.reports]) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("matching", "gradient"), [("constant", 0.0), ("plane", 0.0), ("plane", 10.0)])
def test_there_is_no_seam(matching: str, gradient: float) -> None:
    frames, scales = exposures(gradient=gradient, starry=False)
    found = steps(coadd(frames, GRID, how(matching)), frames, scales)
    # The noise of one of them is 0.04.
    assert len(found) >= 12 and np.sqrt(np.mean(found**2)) < 0.065
    given = [replace(one, scale=1.0) for one in frames]
    plain = coadd(given, GRID, replace(how(matching), scaling="given"))
    assert np.sqrt(np.mean(steps(plain, frames, scales) ** 2)) > 0.5


def test_noise_does_not_flatten_the_relation() -> None:
    """Blocks whose light is no more than their noise: an ordinary fit of one to the other finds half the slope."""
    rng, blocks = np.random.default_rng(2), 60_000
    light = rng.normal(0, 1, blocks)
    table = np.zeros((blocks, 11))
    table[:, 1] = 1
    table[:, 2:6] = rng.uniform(-1, 1, (blocks, 4))
    table[:, 6] = light + rng.normal(0, 1, blocks)
    table[:, 7] = (light + 5) / 0.8 + rng.normal(0, 0.5, blocks)
    table[:, 8], table[:, 9] = 1.0, 0.25
    table[:, 10] = np.arange(blocks)
    flat = np.polyfit(table[:, 6], table[:, 7], 1)[0]
    assert flat < 0.7
    found = match_scales(BlockPairs([table]), [0, 1], {0: 0.01})
    assert found[1].factor / found[0].factor == pytest.approx(0.8, abs=0.02)
    assert 0.002 < found[1].error < 0.02


def test_known_scales_are_kept_within_their_errors() -> None:
    frames, scales = exposures()
    # All but one are known, the first one badly: 5% off.
    known = [replace(one, scale=scale, scale_error=0.005) for one, scale in zip(frames, scales, strict=True)]
    known[0] = replace(known[0], scale=scales[0] * 1.05, scale_error=0.05)
    known[3] = replace(known[3], scale=1.0, scale_error=None)
    found = prepare(known, GRID, how()).reports
    away = np.log([one.scale for one in found]) - np.log(scales)
    assert np.abs(away).max() < 0.005
    # A scale that is known needs no overlap; one that is not does.
    apart = [
        replace(one, wcs=wcs_at(*place)) for one, place in zip(frames[:2], ((0, 0), (340, 340)), strict=True)
    ]
    apart[0] = replace(apart[0], scale=1.7, scale_error=0.01)
    found = prepare(apart, GRID, how()).reports
    assert (found[0].reason, found[0].scale) == ("", pytest.approx(1.7))
    assert found[1].reason == "its scale is not known: it does not overlap the frames that have one"


def test_a_scale_that_pixels_do_not_determine_is_not_believed() -> None:
    frames, _ = exposures(peak=2.0, starry=False)
    with pytest.raises(EmptyInput, match=r"scale is not known: from the overlaps it has an error of \d+"):
        prepare(frames, GRID, how())
    known = [replace(one, scale_error=0.02) for one in frames[:3]] + frames[3:]
    reports = prepare(known, GRID, how()).reports
    assert [bool(one.reason) for one in reports] == [False] * 3 + [True] * 3
    bright, _ = exposures()
    cloudy = replace(bright[2], read=lambda first, last: _dimmed(bright[2], first, last))
    found = prepare([*bright[:2], cloudy, *bright[3:]], GRID, how()).reports
    assert "mag fainter than the others" in found[2].reason
    assert not [one for one in found if one.reason and one.name != "frame2"]


def _dimmed(frame: CoaddFrame, first: int, last: int) -> Any:
    data, weight, mask = frame.read(first, last)
    return np.where(data < 50000, 0.1 * data, data).astype(np.float32), weight, mask


# The kind


def as_products(frames: Sequence[CoaddFrame]) -> tuple[ImageSet, list[Table]]:
    rows, solved = [], []
    for one in frames:
        meta = {
            "instrument": "cam",
            "detector": "ccd",
            "exposure": one.name,
            "exptime_s": 10.0,
            "gain_e_adu": [1.7],
        }
        rows.append(FrameRows(meta, one.shape, one.read, "adu"))
        solved.append(Table({}, meta | {"wcs": wcs_as_cards(one.wcs, shape=one.shape)}))
    return ImageSet(tuple(rows), 1 << 30, 1, None), solved


def zero_point(frame: CoaddFrame, mag: float, band: str | None = "R") -> Table:
    meta = {"instrument": "cam", "detector": "ccd", "exposure": frame.name}
    columns = {
        "USED": np.ones(25, np.uint8),
        "MAG_ERROR": np.full(25, 0.1),
        "RESIDUAL_MAG": np.full(25, 0.05),
    }
    return Table(columns, meta | {"zeropoint_mag": mag, "zeropoint_band": band})


def mags_of(scales: np.ndarray) -> list[float]:
    return [float(25.0 - 2.5 * math.log10(scale)) for scale in scales]


def test_frames_without_a_zero_point_enter_when_it_is_asked_for() -> None:
    frames, scales = exposures()
    reduced, solved = as_products(frames)
    mags = mags_of(scales)
    zeros = [zero_point(one, mag) for one, mag in zip(frames[:4], mags[:4], strict=True)]
    with pytest.raises(NoMatch, match="2 of 6 frames have no zero point: cam ccd frame4") as caught:
        make_coadd(reduced, solved, zeros, params=CoaddParams(background="match"))
    assert "--flux-scale match" in caught.value.hint
    made = make_coadd(reduced, solved, zeros, params=CoaddParams(background="match", flux_scale="match"))
    assert made.measures["frames"] == 6 and made.meta["zeropoint_mag"] == 30.0
    table = made.tables["FRAMES"]
    expected = [flux_scale(mag, 10.0) for mag in mags]
    assert table["SCALE"] == pytest.approx(expected, rel=0.02)
    away = np.log(table["SCALE"] / expected)
    assert np.abs(away - away.mean()).max() < 0.003
    assert (table["SCALE_ERROR"] < 0.02).all()
    assert "found for 2 without one: cam ccd frame4, cam ccd frame5" in made.used["flux_scale"]
    plain = make_coadd(reduced, solved, params=CoaddParams(background="match", flux_scale="match"))
    assert "as there is no zero point" in plain.used["flux_scale"] and plain.meta["zeropoint_mag"] is None
    # Relative ones do not count where others are magnitudes.
    mixed = [*zeros, zero_point(frames[4], 3.0, None)]
    both = make_coadd(reduced, solved, mixed, params=CoaddParams(background="match", flux_scale="match"))
    assert both.tables["FRAMES"]["SCALE"].tolist() == table["SCALE"].tolist()


def test_the_error_of_a_scale_is_that_of_its_stars() -> None:
    frame = exposures(count=1)[0][0]
    assert scale_error(None, None) is None
    assert scale_error(25.0, None) == pytest.approx(0.0092, rel=0.01)
    assert scale_error(25.0, zero_point(frame, 25.0)) == pytest.approx(0.02 * 0.921, rel=0.01)


def test_edges_that_are_not_used() -> None:
    frames, _ = exposures(count=1)
    data, weight, _ = frames[0].read(0, SIDE)
    edged = replace(frames[0], edges_px=(2, 30, 0, 5))
    whole = edged.rows(0, SIDE)
    used = whole[1] > 0
    assert not used[:, :2].any() and not used[:, -30:].any() and not used[-5:].any()
    assert np.array_equal(whole[1][:-5, 2:-30], weight[:-5, 2:-30])
    assert whole[2] is not None and (whole[2][-5:] & 32).all() and not (whole[2][:-5, 2:-30] & 32).any()
    part = edged.rows(SIDE - 9, SIDE - 3)
    for one, other in zip(part, whole, strict=True):
        assert np.array_equal(one, other[SIDE - 9 : SIDE - 3])
    assert np.array_equal(whole[0], data)
    count = coadd([edged], GRID).planes["COUNT"][:]
    (x, y), rows = PLACES[0], np.flatnonzero(count.any(axis=1))
    columns = np.flatnonzero(count.any(axis=0))
    assert (columns[0], columns[-1]) == (x + 2, x + SIDE - 31)
    assert (rows[0], rows[-1]) == (y, y + SIDE - 6)


def test_bad_columns_of_edges_do_not_show_beside_the_frame() -> None:
    frames, _ = exposures(count=1)
    data, weight, _ = frames[0].read(0, SIDE)
    mask = np.zeros(data.shape, np.int16)
    mask[:, -10:-4] = Bit.HOT
    one = frame_of_arrays("hot", frames[0].wcs, data, weight * (mask == 0), mask, edges_px=(0, 30, 0, 0))
    made = coadd([one], GRID).planes
    outside = made["COUNT"][:] == 0
    assert not made["SCI"][:][outside].any()
    assert (made["MASK"][:][outside] == Bit.OUTSIDE).all()


def test_edges_are_one_number_or_four() -> None:
    assert edges_of("3") == (3, 3, 3, 3)
    assert edges_of("0, 26,0,1") == (0, 26, 0, 1)
    for wrong in ("", "1,2", "a", "-1", "1,2,3,4,5", "1.5"):
        with pytest.raises(BadValue, match="edges_px"):
            edges_of(wrong)
