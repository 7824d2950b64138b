"""Outliers on stars are left out, with the tracks they leave; sharper stars and noise are not."""

from __future__ import annotations

import numpy as np
import pytest

from awetools.core.pixels.coadd import Layer, Stacking, Strip, stack_layers
from awetools.core.pixels.kernels import SWITCH

SIDE, NOISE = 41, 10.0


def stacked(values: np.ndarray, **options) -> Strip:
    """The stack of (n, ny, nx) values of the same noise."""
    n, ny, nx = values.shape
    weight, mask = np.full((ny, nx), NOISE**-2, np.float32), np.zeros((ny, nx), np.int16)
    layers = [
        Layer(i, (0, ny), (0, nx), one.astype(np.float32), weight, mask) for i, one in enumerate(values)
    ]
    return stack_layers(layers, (0, ny), nx, n, Stacking(**options))


def star(fwhm_px: float, flux: float, x: float = 20.3, y: float = 19.6) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    r2 = (columns - x) ** 2 + (rows - y) ** 2
    core = (1 + 4 * (2 ** (1 / 3.5) - 1) * r2 / fwhm_px**2) ** -3.5
    return flux * core / core.sum()


def left_out(found: Strip) -> set[tuple[int, ...]]:
    return {tuple(one) for one in found.clipped.tolist()}


@pytest.mark.parametrize("widths", [(4, 4, 4), (4, 4.3, 4, 4.2, 4.1), (3, 4.1, 4.1, 4.1)])
@pytest.mark.parametrize(("dy", "dx"), [(0, 2), (2, -1), (-2, 1)])
def test_a_ray_on_a_star_is_left_out_though_the_star_is_brighter(widths, dy, dx) -> None:
    values = np.stack([star(one, 2e5) for one in widths])
    values += np.random.default_rng(5).normal(0, NOISE, values.shape)
    where = 20 + dy, 20 + dx
    values[1][where] += 0.4 * values[1].max()
    assert (*where, 1) in left_out(stacked(values))


@pytest.mark.parametrize("frames", [3, 4, 5])
@pytest.mark.parametrize("flux", [2e4, 1e5, 1e6])
def test_a_frame_sharper_by_two_fifths_loses_no_light_of_its_stars(frames, flux) -> None:
    rng = np.random.default_rng(6)
    lost = []
    for _ in range(12):
        x, y = rng.uniform(19.5, 20.5, 2)
        values = np.stack([star(one, flux, x, y) for one in (3.0, *(frames - 1) * [4.2])])
        values += rng.normal(0, NOISE, values.shape)
        core = np.s_[16:25, 16:25]
        kept, mean = stacked(values).sci[core], stacked(values, method="mean").sci[core]
        lost.append(1 - float(kept.sum() / mean.sum()))
    assert abs(np.mean(lost)) < 0.002


def test_what_an_outlier_leaves_beside_it_is_left_out_and_elsewhere_kept() -> None:
    values = np.zeros((4, 30, 30))
    values[2, 10, 10:13] = 20 * NOISE
    values[2, 10, 13] = values[2, 11, 9] = values[2, 20, 20] = 3 * NOISE
    values[2, 9, 11] = 1.5 * NOISE
    values[1, 11, 11] = 3 * NOISE
    track = {(10, 10, 2), (10, 11, 2), (10, 12, 2), (10, 13, 2), (11, 9, 2)}
    assert left_out(stacked(values)) == track


def test_a_dark_pixel_grows_as_well_as_a_bright_one() -> None:
    values = np.zeros((3, 20, 20))
    values[0, 10, 10], values[0, 10, 11], values[0, 10, 12] = -30 * NOISE, -3 * NOISE, -3 * NOISE
    assert left_out(stacked(values)) == {(10, 10, 0), (10, 11, 0)}


@pytest.mark.parametrize("frames", [2, 3, 4, 5, 8])
def test_noise_is_kept(frames) -> None:
    values = np.random.default_rng(7).normal(100, NOISE, (frames, 300, 300))
    found = stacked(values)
    assert len(found.clipped) < 3e-4 * values.size


@pytest.mark.parametrize("share", [0.0, 1e-2, 1.0])
def test_values_far_too_large_are_judged_alike_without_the_kernel(share, monkeypatch) -> None:
    rng = np.random.default_rng(8)
    values = np.stack([star(one, 1e5) for one in (3, 4, 4, 5)]) + rng.normal(0, NOISE, (4, SIDE, SIDE))
    odd = rng.choice([3e38, -3e38, 1e30, 1e-40, 0.0, -0.0], values.shape)
    values = np.where(rng.random(values.shape) < share, odd, values)
    compiled = stacked(values)
    monkeypatch.setenv(SWITCH, "numpy")
    twin = stacked(values)
    for one, other in zip(compiled, twin, strict=True):
        assert np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
