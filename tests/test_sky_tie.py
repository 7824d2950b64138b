"""Frames tied to each other without a reference: starts that are far off, few stars in common, other fields."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from awetools.core.sky.adjust import Frame, adjust
from awetools.core.sky.local import LocalSettings
from awetools.core.sky.solve import Sources
from awetools.core.sky.sphere import angles, separation_arcsec
from awetools.core.sky.tie import tied, tied_lists
from awetools.core.sky.wcs import Wcs
from awetools.core.sky.writewcs import wcs_as_cards
from tests.sky_frames import SHAPE, Run, run


def wrong(wcs: Wcs, seed: int, arcsec: float = 120.0, turn_deg: float = 3.0, scale: float = 0.02) -> Wcs:
    """A plain coordinate system that is off by about as much."""
    rng = np.random.default_rng(seed)
    turn, factor = math.radians(rng.choice([-1, 1]) * turn_deg), 1 + rng.choice([-1, 1]) * scale
    cosine, sine = factor * math.cos(turn), factor * math.sin(turn)
    a, b, c, d = wcs.matrix
    matrix = (cosine * a - sine * c, cosine * b - sine * d, sine * a + cosine * c, sine * b + cosine * d)
    way = rng.uniform(0, 2 * math.pi)
    ra, dec = wcs.crval_deg
    ra += arcsec / 3600 * math.cos(way) / math.cos(math.radians(dec))
    return Wcs((ra, dec + arcsec / 3600 * math.sin(way)), wcs.crpix, matrix)


def lost(sky: Run, *, by_exposure: bool = True) -> list[Frame]:
    """Frames of a run with fluxes, and coordinate systems that are wrong."""
    made = []
    for k, one in enumerate(sky.frames):
        seed = int(one.exposure[1:]) if by_exposure else k
        flux = np.linspace(1000.0, 10.0, np.size(one.sources.x))
        made.append(
            replace(one, wcs=wrong(sky.truth[one.name], seed), sources=replace(one.sources, flux=flux))
        )
    return made


def apart_arcsec(sky: Run, systems: dict[str, Wcs]) -> float:
    """The rms of coordinate systems against the truth, once they are turned and scaled as a whole to fit it."""
    x, y = (one.ravel() for one in np.meshgrid(np.linspace(20, 780, 5), np.linspace(20, 980, 5)))
    now = np.concatenate([wcs.vectors(x, y) for wcs in systems.values()])
    true = np.concatenate([sky.truth[name].vectors(x, y) for name in systems])
    now, true = (
        angles_about(one, np.asarray(true.mean(axis=0)) / np.linalg.norm(true.mean(axis=0)))
        for one in (now, true)
    )
    design = np.stack([now, np.ones(len(now))], axis=1)
    fit = np.linalg.lstsq(design, true, rcond=None)[0]
    return float(np.sqrt((np.abs(design @ fit - true) ** 2).mean())) * 206265


def angles_about(vectors: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Points of the tangent plane at a unit vector, complex."""
    east = np.cross([0.0, 0.0, 1.0], middle)
    east /= np.linalg.norm(east)
    depth = vectors @ middle
    return np.asarray((vectors @ east + 1j * (vectors @ np.cross(middle, east))) / depth)


@pytest.mark.parametrize("by_exposure", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_brought_together(seed: int, by_exposure: bool) -> None:
    sky = run(seed=seed, exposures=6, dither_arcsec=60)
    found = tied(lost(sky, by_exposure=by_exposure))
    assert not found.left_out
    assert set(found.groups) == {0}
    assert apart_arcsec(sky, {one.name: one.wcs for one in found.frames}) < 1.0
    made = adjust(found.frames)
    assert not made.left_out
    assert apart_arcsec(sky, {one.name: one.wcs for one in made.frames}) < 0.05
    assert made.measures["internal_rms_arcsec_held"] < 0.013


def test_without_it_they_are_not() -> None:
    sky = run(seed=1, exposures=6, dither_arcsec=60)
    assert len(adjust_or_none(lost(sky))) < len(sky.frames)


def adjust_or_none(frames: list[Frame]) -> tuple[object, ...]:
    from awetools.core.errors import NoSolution

    try:
        return adjust(frames).frames
    except NoSolution:
        return ()


def test_the_mean_of_the_starts_is_kept() -> None:
    sky = run(seed=2, exposures=8, dither_arcsec=60)
    frames = lost(sky)
    x, y = 0.5 * (1 + SHAPE[1]), 0.5 * (1 + SHAPE[0])
    before = np.mean([one.wcs.vectors(x, y) for one in frames], axis=0)
    found = tied(frames)
    after = np.mean([one.wcs.vectors(x, y) for one in found.frames], axis=0)
    assert np.linalg.norm(before - after) * 206265 < 3.0
    turns = [np.mean([np.array(one.wcs.matrix) for one in some], axis=0) for some in (frames, found.frames)]
    assert turns[0] == pytest.approx(turns[1], abs=5e-3 * abs(turns[0]).max())
    scales = [[one.wcs.pixel_scale_arcsec for one in some] for some in (frames, found.frames)]
    assert np.mean(scales[0]) == pytest.approx(np.mean(scales[1]), rel=2e-3)


def test_good_ones_stay() -> None:
    sky = run(seed=3, exposures=5, dither_arcsec=60)
    frames = [
        replace(one, wcs=sky.truth[one.name]) if one.exposure in ("e0", "e1") else one for one in lost(sky)
    ]
    found = tied(frames, good=("e0d0", "e0d1", "e1d0", "e1d1"))
    assert not found.left_out
    systems = {one.name: one.wcs for one in found.frames}
    assert systems["e1d0"] == sky.truth["e1d0"]
    assert sky.error_arcsec(systems) < 1.0


def test_few_common_stars_shift_only() -> None:
    sky = run(seed=4, exposures=5, detectors=1, dither_arcsec=60)
    frames = [replace(one, wcs=wrong(sky.truth[one.name], 3)) for one in lost(sky)]
    last = frames[4]
    others = np.concatenate(
        [np.stack(sky.truth[f.name].to_sky(f.sources.x, f.sources.y)) for f in frames[:4]], 1
    )
    ra, dec = sky.truth[last.name].to_sky(np.asarray(last.sources.x), np.asarray(last.sources.y))
    near = separation_arcsec(ra[:, None], dec[:, None], others[0][None, :], others[1][None, :]).min(axis=1)
    common = np.flatnonzero(near < 0.2)[[3, 30, 60, 90, 110]]
    some = Sources(*(np.asarray(c)[common] for c in (last.sources.x, last.sources.y, last.sources.flux)))
    frames[4] = replace(last, sources=some)
    found = tied(frames, position_arcsec=150.0)
    assert not found.left_out
    assert found.stars[last.name] <= 5
    assert apart_arcsec(sky, {one.name: one.wcs for one in found.frames}) < 1.5


def test_another_field_is_a_group_of_its_own_or_left_out() -> None:
    sky, other = run(seed=1, dither_arcsec=60), run(seed=2, ra=20.0, dither_arcsec=60)
    far = [replace(one, name=f"x{one.name}", exposure=f"x{one.exposure}") for one in lost(other)]
    both = tied([*lost(sky), *far])
    assert not both.left_out
    assert len(set(both.groups)) == 2
    one = tied([*lost(sky), *far[:2]])
    assert set(one.left_out) == {far[0].name, far[1].name}
    assert "stars in common" in one.left_out[far[0].name]


def test_what_does_not_belong_is_left_out() -> None:
    sky = run(seed=1, dither_arcsec=60)
    frames = lost(sky)
    rng = np.random.default_rng(1)
    x, y = rng.uniform(1, (SHAPE[1], SHAPE[0]), (100, 2)).T
    noise = replace(frames[4], exposure="noise", name="noise", sources=Sources(x, y, 1000 - np.arange(100.0)))
    nothing = replace(noise, exposure="empty", name="empty", sources=Sources(np.empty(0), np.empty(0)))
    three = replace(noise, exposure="three", name="three", sources=Sources(x[:3], y[:3]))
    found = tied([*frames, noise, nothing, three])
    assert set(found.left_out) == {"noise", "empty", "three"}
    assert found.left_out["empty"] == (
        "it has no sources that a fit can rest on, or its coordinate system has no sky"
    )
    assert [one.name for one in found.frames] == [one.name for one in frames]


@pytest.mark.parametrize(("ra", "dec"), [(0.0, 0.0), (12.0, 89.0)])
def test_anywhere_on_the_sky(ra: float, dec: float) -> None:
    sky = run(seed=5, ra=ra, dec=dec, exposures=4, dither_arcsec=60)
    found = tied(lost(sky))
    assert not found.left_out
    assert apart_arcsec(sky, {one.name: one.wcs for one in found.frames}) < 1.0


def test_several_instruments_together() -> None:
    sky = run(seed=6, exposures=4, detectors=1, dither_arcsec=60)
    fine = []
    for one in lost(sky):
        x, y = (2 * np.asarray(c) - 0.5 for c in (one.sources.x, one.sources.y))
        a, b, c, d = one.wcs.matrix
        wcs = Wcs(
            one.wcs.crval_deg,
            (2 * one.wcs.crpix[0] - 0.5, 2 * one.wcs.crpix[1] - 0.5),
            (a / 2, b / 2, c / 2, d / 2),
        )
        sources = replace(one.sources, x=x + 0.02, y=y, error_px=np.full(len(x), 0.07))
        shape = (2 * SHAPE[0], 2 * SHAPE[1])
        fine.append(
            replace(
                one,
                name=f"f{one.name}",
                detector="fine",
                exposure=f"f{one.exposure}",
                sources=sources,
                wcs=wcs,
                shape=shape,
            )
        )
    found = tied([*lost(sky), *fine])
    assert not found.left_out
    made = adjust(found.frames)
    assert not made.left_out
    scale = {one.name: one.measures["pixel_scale_arcsec"] for one in made.frames}
    assert scale["fe1d0"] == pytest.approx(scale["e1d0"] / 2, rel=1e-4)


def test_source_tables() -> None:
    sky = run(seed=7, exposures=4, detectors=1, dither_arcsec=60)
    lists = []
    for one in lost(sky):
        size = np.size(one.sources.x)
        flux = np.asarray(one.sources.flux)
        columns = {
            "X_WIN_PX": np.asarray(one.sources.x),
            "Y_WIN_PX": np.asarray(one.sources.y),
            "X_WIN_ERROR_PX": np.full(size, 0.03),
            "Y_WIN_ERROR_PX": np.full(size, 0.03),
            "FLUX_AUTO_ADU": flux,
            "FLUX_AUTO_ERROR_ADU": flux / 50,
            "FLAGS": np.zeros(size, np.int32),
            "FWHM_PX": np.full(size, 3.0),
            "STAR": np.ones(size),
        }
        meta = {"instrument": "I", "detector": "D", "exposure": one.exposure, "nx": SHAPE[1], "ny": SHAPE[0]}
        lists.append((columns, {**meta, "wcs": wcs_as_cards(one.wcs)}))
    lists.append((lists[0][0], {"exposure": "x", "nx": 5, "ny": 5}))
    found, reasons = tied_lists(lists, LocalSettings())
    assert set(found) == {0, 1, 2, 3}
    assert "pixel scale" in reasons[4]
    names = {f"e{k}d0": wcs for k, wcs in found.items()}
    assert apart_arcsec(sky, names) < 1.0
    middle = angles(*(np.asarray(c) for c in found[0].vectors(400.0, 500.0).ravel()))
    assert np.isfinite(middle).all()
