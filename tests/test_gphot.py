"""The kind `gphot`: frames tied by their stars, absolute where some are known, and what does not fit is named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from awetools.core.errors import BadHeader, Mixture, NoMatch, NoSolution
from awetools.core.frame import Table
from awetools.core.kind import Result
from awetools.core.kinds.gphot import GPHOT, GphotParams, frame_of, make_gphot
from awetools.core.products import open_product
from awetools.core.sky.refcat import Catalogue
from awetools.core.store import Store
from tests.photometry_frames import SATURATED, SKY, changed, seen, solution, stars, system
from tests.support import InProcess, awe_here

ZERO = (25.0, 24.8, 25.1, 24.9)
STEP_DEG = 0.04


def frames(zero: Sequence[float] = ZERO, scatter: float = 0.01) -> tuple[list[Table], list[Table]]:
    """The lists and solutions of exposures that are moved along, and turned, of these zero points."""
    lists, solutions = [], []
    for k, zeropoint_mag in enumerate(zero):
        wcs = system(30.0 * k, ra=150.0 + STEP_DEG * (k % 2))
        lists.append(seen(SKY, wcs, zeropoint_mag, 10 + k, scatter, exposure=f"e{k}"))
        solutions.append(solution(wcs, exposure=f"e{k}"))
    return lists, solutions


def made(given: tuple[list[Table], list[Table]], catalogue: Catalogue | None = None, **params: Any) -> Result:
    return make_gphot(*given, catalogue, params=GphotParams(**params))


def column(result: Result, name: str) -> np.ndarray:
    assert result.table is not None
    return np.asarray(result.table[name])


def by_exposure(result: Result, name: str = "ZEROPOINT_MAG") -> dict[str, float]:
    return dict(zip(column(result, "EXPOSURE").tolist(), column(result, name).tolist(), strict=True))


# The recipe


def test_relative_zero_points_differ_as_they_should() -> None:
    result = made(frames())
    found = np.array([by_exposure(result)[f"e{k}"] for k in range(4)])
    np.testing.assert_allclose(found, np.array(ZERO) - np.mean(ZERO), atol=0.005)
    assert np.mean(found) == pytest.approx(0, abs=1e-9)
    assert not column(result, "ABSOLUTE").any() and set(column(result, "BAND")) == {""}
    assert result.measures["frames"] == 4 and result.measures["groups"] == 1
    assert set(result.measures) == {one.name for one in GPHOT.measures}
    assert result.measures["scatter_mag"] == pytest.approx(0.01, rel=0.3)
    rms, held = result.measures["rms_mag"], result.measures["held_rms_mag"]
    assert rms is not None and held is not None and 0.5 * rms < held < 3 * rms


def test_known_stars_make_them_magnitudes(tmp_path: Path) -> None:
    result = made(frames(), SKY.catalogue(tmp_path))
    for k, true in enumerate(ZERO):
        error = by_exposure(result, "ERROR_MAG")[f"e{k}"]
        assert abs(by_exposure(result)[f"e{k}"] - true) < 4 * error < 0.03
    assert column(result, "ABSOLUTE").all() and set(column(result, "BAND")) == {"Johnson-Cousins R (Vega)"}
    assert result.used == {"band": "Johnson-Cousins R (Vega)"}
    zero = frame_of(Table(dict(result.table or {})), {**frames()[0][1].meta})
    assert zero.zeropoint_mag == by_exposure(result)["e1"]


def test_errors_are_true(tmp_path: Path) -> None:
    catalogue = SKY.catalogue(tmp_path)
    pulls = []
    for seed in range(12):
        lists, solutions = frames()
        systems = [system(30.0 * k, ra=150.0 + STEP_DEG * (k % 2)) for k in range(4)]
        lists = [
            seen(SKY, wcs, zero, 1000 * seed + k, 0.01, exposure=f"e{k}")
            for k, (wcs, zero) in enumerate(zip(systems, ZERO, strict=True))
        ]
        result = made((lists, solutions), catalogue)
        for k, true in enumerate(ZERO):
            away = by_exposure(result)[f"e{k}"] - true
            pulls.append(away / by_exposure(result, "ERROR_MAG")[f"e{k}"])
    # The catalogue's magnitudes are true here, and their errors of 10 mmag are in those of the zero points.
    assert 0.3 < np.std(pulls) < 1.3


def test_a_catalogue_without_errors_is_not_believed_to_the_last_digit(tmp_path: Path) -> None:
    """Else the frames would follow wrong stars, and the errors would be those of the frames' scatter alone."""
    pulls = []
    for seed in range(10):
        random = np.random.default_rng(seed)
        wrong = SKY.mag + random.normal(0, 0.2, len(SKY.mag))
        known = {"mag_R": np.where(random.random(len(wrong)) < 0.3, wrong, np.nan)}
        catalogue = SKY.catalogue(tmp_path, mag_error_R=np.full(len(wrong), np.nan), **known)
        result = made(frames(), catalogue)
        found = by_exposure(result)
        assert found["e0"] - found["e1"] == pytest.approx(0.2, abs=0.01)
        pulls.append((found["e0"] - 25.0) / by_exposure(result, "ERROR_MAG")["e0"])
        assert result.measures["anchor_scatter_mag"] == pytest.approx(0.2, rel=0.4)
    assert 0.5 < np.sqrt(np.mean(np.square(pulls))) < 1.7


@settings(max_examples=10)
@given(order=st.permutations(range(4)))
def test_the_order_of_frames_does_not_matter(order: list[int]) -> None:
    lists, solutions = frames()
    turned = made(([lists[k] for k in order], solutions[::-1]))
    plain = made((lists, solutions))
    for exposure, value in by_exposure(plain).items():
        assert by_exposure(turned)[exposure] == pytest.approx(value, abs=2e-4)


def test_a_clouded_frame_is_named_and_harms_nobody() -> None:
    clear = by_exposure(made(frames()))
    result = made(frames((25.0, 24.8, 23.6, 24.9)))
    found = by_exposure(result)
    assert found["e0"] - found["e1"] == pytest.approx(clear["e0"] - clear["e1"], abs=0.003)
    assert found["e0"] - found["e2"] == pytest.approx(1.4, abs=0.01)
    (why,) = (text for name, text in result.used.items() if "e2" in name)
    assert "mag fainter than the median: clouds?" in why


def test_a_detector_that_sees_less_is_no_cloud() -> None:
    lists, solutions = [], []
    for k in range(7):
        for detector, zero in (("d1", 25.0), ("d2", 24.2)):
            wcs = system(10.0 * k)
            about = {"exposure": f"{detector}{k}", "detector": detector}
            cloud = 0.4 if (k, detector) == (3, "d1") else 0.0
            lists.append(seen(SKY, wcs, zero - cloud, 20 + k, 0.01, **about))
            solutions.append(solution(wcs, **about))
    result = made((lists, solutions))
    doubtful = [name for name in result.used if name.startswith("doubtful")]
    assert doubtful == ["doubtful cam d1 d13"]
    assert by_exposure(result, "BELOW_MEDIAN_MAG")["d13"] == pytest.approx(0.4, abs=0.02)


def test_a_frame_apart_is_a_group_of_its_own() -> None:
    lists, solutions = frames()
    away, wcs = stars(seed=8, ra=160.0), system(ra=160.0)
    for k, exposure in enumerate(("f0", "f1")):
        lists.append(seen(away, wcs, 25.0 - k, k, exposure=exposure))
        solutions.append(solution(wcs, exposure=exposure))
    result = made((lists, solutions))
    assert result.measures["groups"] == 2
    assert "6 of 6 frames, in 2 groups that share no star" in result.used["relative"]
    group = by_exposure(result, "GROUP")
    assert group["f0"] == group["f1"] != group["e0"] == group["e3"]
    assert by_exposure(result)["f0"] == pytest.approx(0.5, abs=0.01)


def test_frames_without_reference_stars_are_said_to_be_relative(tmp_path: Path) -> None:
    far = stars(seed=4, ra=20.0).catalogue(tmp_path)
    result = made(frames(), far)
    assert not column(result, "ABSOLUTE").any()
    assert result.used["relative"].startswith("no star with a reference magnitude: 4 of 4 frames")


def test_a_frame_of_saturated_stars_alone_is_left_out_and_named() -> None:
    lists, solutions = frames()
    lists[2] = changed(lists[2], FLAGS=np.full_like(lists[2].columns["FLAGS"], SATURATED))
    result = made((lists, solutions))
    assert set(by_exposure(result)) == {"e0", "e1", "e3"}
    (left,) = result.left_out
    assert left.number == 2 and "star" in left.reason


def test_what_cannot_be_tied_says_why(tmp_path: Path) -> None:
    lists, solutions = frames()
    with pytest.raises(NoMatch, match="d1 in e1: there is no astrometric solution"):
        made((lists, [solutions[0], *solutions[2:]]))
    with pytest.raises(BadHeader, match="d1 in e0: the astrometric solution has no WCS"):
        made((lists, [Table({}, {**solutions[0].meta, "wcs": None}), *solutions[1:]]))
    with pytest.raises(Mixture, match="two frames have the name cam d1 e0"):
        made(([*lists, lists[0]], solutions))
    with pytest.raises(BadHeader, match="e1: the exposure time is None"):
        made(([lists[0], Table(lists[1].columns, {**lists[1].meta, "exptime_s": None})], solutions))
    with pytest.raises(NoSolution, match="share no star"):
        made(([lists[0]], solutions[:1]))
    nothing = [changed(one, FLUX_AUTO_ADU=np.full(len(one.columns["FLAGS"]), np.nan)) for one in lists]
    with pytest.raises(NoSolution, match="share no star"):
        made((nothing, solutions))
    clear = [Table(one.columns, {**one.meta, "filter": "Clear"}) for one in lists]
    with pytest.raises(NoSolution, match="filter 'Clear'"):
        made((clear, solutions), SKY.catalogue(tmp_path))
    assert made((clear, solutions), SKY.catalogue(tmp_path), band="R").measures["anchors"]


# The program, on a simulated night


def test_frames_get_their_zero_points_out_of_it(sky_store: Store, run: InProcess) -> None:
    sources = awe_here("query", "sources", cwd=sky_store.root)
    alone = run("gphot", "-q", "--alone", "--json", "--match-arcsec", "0.8", *sources)
    assert alone.code == 0, alone.err
    (line,) = (json.loads(one) for one in alone.lines)
    rows = {
        (row["DETECTOR"], row["EXPOSURE"]): float(row["ZEROPOINT_MAG"])
        for row in fits.getdata(line["path"], 1)
    }
    assert len(rows) == len(sources) == 4
    both = run("gphot", "-q", "--match-arcsec", "0.8", "-u", *sources)
    assert both.code == 0, both.err
    # -u leaves what is up to date, so all lines are zero points.
    zeropoints = [path for path in both.lines if open_product(Path(path)).kind == "zeropoint"]
    assert len(zeropoints) == 4
    for path in zeropoints:
        record = open_product(Path(path)).record
        meta = record["meta"]
        assert meta["zeropoint_mag"] == pytest.approx(rows[meta["detector"], meta["exposure"]], abs=1e-6)
        assert line["path"].endswith(
            next(Path(one["path"]).name for one in record["recipe"]["inputs"] if one["role"] == "gphot")
        )
    asked = run("query", "zeropoint", "gphot.rms_mag < 1", "--get", "path,gphot.rms_mag")
    assert asked.code == 0 and zeropoints[0] in asked.out


def test_filters_do_not_mix_and_solutions_are_needed(sky_store: Store, run: InProcess) -> None:
    sources = awe_here("query", "sources", cwd=sky_store.root)
    ran = run("gphot", "--alone", "--no-astrom", *sources)
    assert ran.code == 5 and "there is no astrometric solution" in ran.err and "sim1 in" in ran.err
    twice = run("gphot", "--alone", "-o", "twice.fits", *sources, sources[0])
    assert twice.code == 0 and "left out" in twice.err
    assert open_product(Path("twice.fits")).record["quality"]["measures"]["frames"] == 4
    relative = run("gphot", "--alone", "--refcat", "none", "-o", "relative.fits", *sources)
    assert relative.code == 0, relative.err
    assert not fits.getdata("relative.fits", 1)["ABSOLUTE"].any()
    zero = run("zeropoint", "--gphot", "relative.fits", "-o", "zero.fits", sources[0])
    assert zero.code == 0 and "magnitudes are relative" in zero.err
    assert run("gphot", "--clip-sigma", "1.6", *sources).code == 2
