"""Cold pixels: those of a flat are found, amplifier edges and dust are not, and those of real flats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from awetools.core.fits import open_fits
from awetools.core.frame import Frame
from awetools.core.kinds.coldpix import ColdpixParams, make_coldpix
from awetools.core.pixels.mask import Bit
from awetools.core.store import init_store
from tests.support import awe, data_path

SHAPE = (256, 200)
SECTIONS = [
    {"amp": name, "hdu": 0, "data": box, "overscan": None, "target": box}
    for name, box in (("A", "[1:100,1:256]"), ("B", "[101:200,1:256]"))
]


def flat_of(data: np.ndarray, noise: float = 0.003, mask: np.ndarray | None = None) -> Frame:
    weight = np.full(data.shape, 1 / noise**2, np.float32)
    return Frame(data.astype(np.float32), weight, mask, {"sections": SECTIONS})


def response(seed: int = 2) -> np.ndarray:
    """Two amplifiers of different gain, with grain and vignetting."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    data = rng.normal(1, 0.01, SHAPE) - 2e-6 * ((x - 90) ** 2 + (y - 120) ** 2)
    data[:, 100:] *= 1.12
    return np.asarray(data)


def test_deviants_are_cold_and_the_edges_of_amplifiers_are_not() -> None:
    data = response()
    rng = np.random.default_rng(8)
    cold = rng.random(SHAPE) < 0.003
    data[cold] *= np.where(rng.random(cold.sum()) < 0.5, 0.85, 1.15)
    result = make_coldpix(flat_of(data), ColdpixParams())
    mask = result.planes["MASK"]
    assert mask.dtype == np.int16 and set(np.unique(mask)) == {0, Bit.COLD}
    found = mask != 0
    assert found[cold].mean() >= 0.98 and cold[found].mean() >= 0.98
    assert result.measures["cold_pixels"] == found.sum()
    assert result.measures["cold_fraction"] == pytest.approx(found.mean())
    assert result.measures["cold_columns"] == 0


def test_columns_are_masked_as_columns() -> None:
    data = response()
    rng = np.random.default_rng(4)
    # A blocked column whose pixels scatter across the limit, and one that only answers a little less.
    data[64:, 40] *= rng.normal(0.92, 0.03, 192)
    data[:, 150] *= 0.97
    result = make_coldpix(flat_of(data), ColdpixParams())
    mask = result.planes["MASK"]
    assert (mask[72:, 40] == Bit.COLD).all()
    assert np.count_nonzero(mask[:, 150]) <= 2
    assert result.measures["cold_columns"] == 1


def test_what_is_known_as_hot_or_has_no_value_is_left_alone() -> None:
    data = response()
    mask = np.zeros(SHAPE, np.int16)
    for row, bit in ((10, Bit.HOT), (20, Bit.COLD), (30, Bit.UNCALIBRATED), (40, 0)):
        data[row, 50] = 0.2
        mask[row, 50] = bit
    frame = flat_of(data, mask=mask)
    assert frame.weight is not None
    data[50, 50], frame.weight[60, 50] = 3.0, 0
    frame.data[50, 50] = 3.0
    frame.data[60, 50] = 0.1
    found = make_coldpix(frame, ColdpixParams()).planes["MASK"]
    assert np.argwhere(found).tolist() == [[40, 50], [50, 50]]


def test_a_noisy_flat_has_no_more_defects_than_its_noise_shows() -> None:
    rng = np.random.default_rng(6)
    data = response() + rng.normal(0, 0.03, SHAPE)
    data[100, 50] *= 0.5
    found = make_coldpix(flat_of(data, noise=0.03), ColdpixParams()).planes["MASK"]
    assert found[100, 50] == Bit.COLD and np.count_nonzero(found) <= 2


def test_a_dead_amplifier_is_all_cold_and_one_without_weight_is_not_searched() -> None:
    data = response()
    data[:, 100:] = 0
    result = make_coldpix(flat_of(data), ColdpixParams())
    mask = result.planes["MASK"]
    assert (mask[:, 100:] == Bit.COLD).all() and np.count_nonzero(mask[:, :100]) <= 1
    frame = flat_of(response())
    assert frame.weight is not None
    frame.weight[:, 100:] = 0
    assert np.count_nonzero(make_coldpix(frame, ColdpixParams()).planes["MASK"]) <= 1


def test_cold_pixels_of_a_simulated_flat(store: Any, night: Path) -> None:
    from astropy.io import fits

    awe("bias", "-q", stdin=awe("query", "raw_bias", "detector=sim1"))
    flat = awe("domeflat", "-q", stdin=awe("query", "raw_domeflat", "detector=sim1", "filter=R")).strip()
    path = awe("coldpix", "-q", flat).strip()
    found = fits.getdata(path) != 0
    truth = fits.getdata(night / "truth" / "pixmask_sim1.fits")
    assert found[truth & 2 != 0].mean() >= 0.98
    assert (truth[found] != 0).mean() >= 0.95


def test_known_bad_columns_of_real_flats(tmp_path: Path) -> None:
    folder = data_path("nickel-20170302")
    init_store(tmp_path)
    awe("ingest", "-q", folder, cwd=tmp_path)
    awe("bias", "-q", stdin=awe("query", "raw_bias", cwd=tmp_path), cwd=tmp_path)
    masks = {}
    for name in ("R", "V"):
        raw = awe("query", "raw_domeflat", f"filter={name}", cwd=tmp_path)
        flat = awe("domeflat", "-q", stdin=raw, cwd=tmp_path).strip()
        with open_fits(Path(tmp_path / awe("coldpix", "-q", flat, cwd=tmp_path).strip())) as fits:
            masks[name] = fits.image(0) != 0
    for mask in masks.values():
        # The data README: columns about 256 and 783-784 are bad, and the last of the image.
        assert mask[100:900, [783, 784, 1023]].all()
        assert mask[100:900, 256].mean() > 0.7
        assert mask[100:900, 10:250].mean() < 0.002
        assert mask.mean() < 0.02
    both = np.count_nonzero(masks["R"] & masks["V"])
    assert both > 0.85 * min(np.count_nonzero(mask) for mask in masks.values())
