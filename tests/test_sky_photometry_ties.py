"""Frames tied to each other by the stars they share: truth that is known."""

from __future__ import annotations

import numpy as np
import pytest

from awetools.core.errors import BadValue, EmptyInput, Mixture, NoSolution
from awetools.core.photometry import normal
from awetools.core.photometry.framestars import Anchors, FrameStars
from awetools.core.photometry.overlaps import Tied, tie

from .support import data_path

SCATTER_MAG = 0.005


def mosaic(
    seed: int, nx: int = 5, ny: int = 4, wrong: float = 0.05, first: int = 0, density: float = 50
) -> tuple[list[FrameStars], np.ndarray, np.ndarray]:
    """Frames that overlap by 40%, their zero points, the magnitudes of the stars by number less `first`."""
    random = np.random.default_rng(seed)
    step = 0.6
    size = int(density * (nx * step + 1) * (ny * step + 1))
    x, y = random.uniform(0, nx * step + 1, size), random.uniform(0, ny * step + 1, size)
    mag = random.uniform(15, 19, size)
    sigma = 0.003 + 0.0005 * 10 ** (0.32 * (mag - 15))
    frames, zero = [], random.normal(25, 0.05, nx * ny)
    for k in range(nx * ny):
        left, low = (k // ny) * step, (k % ny) * step
        inside = np.flatnonzero((x > left) & (x < left + 1) & (y > low) & (y < low + 1))
        seen = mag[inside] - zero[k] + random.normal(0, np.hypot(sigma[inside], SCATTER_MAG))
        seen += np.where(random.random(len(inside)) < wrong, random.normal(0, 0.5, len(inside)), 0)
        frames.append(FrameStars(f"f{first}-{k}", inside + first, seen, sigma[inside]))
    return frames, zero, mag


def fainter(frame: FrameStars, by: float | np.ndarray) -> FrameStars:
    return FrameStars(frame.name, frame.star, np.asarray(frame.mag) + by, frame.error_mag)


def of(made: Tied, name: str) -> np.ndarray:
    return np.array([getattr(one, name) for one in made.frames])


def test_relative_zero_points_have_errors_that_are_true() -> None:
    pulls = []
    for seed in range(15):
        frames, zero, _ = mosaic(seed)
        made = tie(frames)
        assert made.groups == (tuple(one.name for one in frames),)
        assert abs(of(made, "zeropoint_mag").sum()) < 1e-9
        assert not of(made, "absolute").any()
        pulls.append((of(made, "zeropoint_mag") - (zero - zero.mean())) / of(made, "error_mag"))
    assert np.std(pulls) == pytest.approx(1.0, abs=0.12)
    assert of(made, "error_mag").max() < 0.006


def test_the_scatter_and_the_held_out_residuals_are_found() -> None:
    frames, _, _ = mosaic(3, nx=8, ny=8)
    measures = tie(frames).measures
    assert measures["scatter_mag"] == pytest.approx(SCATTER_MAG, rel=0.2)
    assert measures["held_stars"] > 30
    assert measures["held_rms_mag"] < 1.5 * measures["rms_mag"]
    assert measures["held_pull"] == pytest.approx(1.0, abs=0.2)
    assert 0.03 < measures["clipped_fraction"] < 0.1


def test_known_stars_make_it_absolute() -> None:
    away = []
    for seed in range(10):
        frames, zero, mag = mosaic(seed)
        random = np.random.default_rng(seed)
        some = random.choice(len(mag), 80, replace=False)
        known = mag[some] + random.normal(0, 0.02, 80)
        # A tenth is wrong by half a magnitude; errors say less than the scatter.
        known[:8] += 0.5
        made = tie(frames, Anchors(some, known, np.full(80, 0.01)))
        assert of(made, "absolute").all()
        assert made.measures["anchor_scatter_mag"] == pytest.approx(0.0173, abs=0.012)
        away.append((of(made, "zeropoint_mag") - zero).mean())
    assert of(made, "error_mag").min() > 0.0015
    assert np.sqrt(np.mean(np.square(away))) < 0.006


def test_a_cloud_is_found_and_harms_nobody() -> None:
    frames, _, _ = mosaic(4)
    clear = tie(frames)
    assert clear.doubtful == {}
    made = tie([fainter(one, 0.8) if k == 7 else one for k, one in enumerate(frames)])
    assert list(made.doubtful) == ["f0-7"]
    assert "mag fainter than the median" in made.doubtful["f0-7"]
    change = of(made, "zeropoint_mag") - of(clear, "zeropoint_mag")
    assert change[7] - np.delete(change, 7).mean() == pytest.approx(-0.8, abs=0.01)
    assert np.ptp(np.delete(change, 7)) < 0.003


def test_a_frame_through_uneven_clouds_has_its_own_scatter() -> None:
    frames, zero, _ = mosaic(5, density=80)
    random = np.random.default_rng(1)
    frames[9] = fainter(frames[9], random.normal(0, 0.06, len(np.asarray(frames[9].star))))
    made = tie(frames)
    assert made.frames[9].scatter_mag == pytest.approx(0.06, rel=0.4)
    assert "scatter" in made.doubtful["f0-9"]
    away = of(made, "zeropoint_mag") - (zero - zero.mean())
    assert np.abs(np.delete(away, 9)).max() < 0.01
    assert made.frames[9].error_mag > 1.5 * np.median(of(made, "error_mag"))


def test_a_frame_of_which_nothing_fits_is_named() -> None:
    frames, zero, _ = mosaic(5, density=80)
    random = np.random.default_rng(1)
    frames[9] = fainter(frames[9], random.normal(0, 1.0, len(np.asarray(frames[9].star))))
    made = tie(frames)
    assert list(made.doubtful) == ["f0-9"]
    away = of(made, "zeropoint_mag") - (zero - zero.mean())
    assert np.abs(np.delete(away, 9)).max() < 0.015 + abs(away[9]) / 20
    assert abs(away[9]) < 5 * made.frames[9].error_mag
    assert made.frames[9].error_mag > 0.05


def test_groups_that_share_no_star_are_named() -> None:
    one, zero, mag = mosaic(6, nx=3, ny=2)
    other, second, _ = mosaic(7, nx=2, ny=2, first=100_000)
    lone = FrameStars("lone", [900_000, 900_001], [-8.0, -9.0], [0.01, 0.01])
    made = tie([*one, lone, *other], Anchors(np.arange(len(mag)), mag, np.full(len(mag), 0.005)))
    names = [tuple(frame.name for frame in some) for some in (one, [lone], other)]
    assert sorted(made.groups) == sorted(names)
    assert of(made, "absolute").tolist() == [True] * 6 + [False] * 5
    assert np.abs(of(made, "zeropoint_mag")[:6] - zero).max() < 0.01
    assert np.abs(of(made, "zeropoint_mag")[7:] - (second - second.mean())).max() < 0.02
    assert abs(of(made, "zeropoint_mag")[7:].sum()) < 1e-9
    assert np.isnan(made.frames[6].error_mag)
    assert made.doubtful["lone"] == "shares no star with any other frame"


def test_frames_that_one_star_alone_joins_stay_joined() -> None:
    # Held out, it leaves two groups, each with its own level; that must not clip it.
    frames = [FrameStars(f"f{k}", [k, k + 1], [k / 10, (k + 1) / 10 + 0.1], [0.01, 0.01]) for k in range(40)]
    made = tie(frames)
    assert len(made.groups) == 1
    assert made.measures["clipped_fraction"] == 0
    assert np.diff(of(made, "zeropoint_mag")) == pytest.approx(np.full(39, 0.1))


def test_few_stars_have_large_errors() -> None:
    two = [FrameStars(name, [1], [mag], [0.001]) for name, mag in (("a", -8.0), ("b", -7.9))]
    made = tie(two)
    assert of(made, "zeropoint_mag") == pytest.approx([0.05, -0.05])
    assert of(made, "error_mag").min() > 0.05
    assert made.doubtful["a"] == "1 stars alone tie it"


def test_wrong_stars_by_the_dozen() -> None:
    frames, zero, _ = mosaic(8, wrong=0.25, density=80)
    made = tie(frames)
    away = (of(made, "zeropoint_mag") - (zero - zero.mean())) / of(made, "error_mag")
    assert np.sqrt(np.mean(away**2)) < 2
    assert np.abs(of(made, "zeropoint_mag") - (zero - zero.mean())).max() < 0.015


def test_a_star_twice_in_a_frame_is_not_used_there() -> None:
    frames, _, _ = mosaic(9)
    star, mag, error = (np.asarray(one) for one in (frames[0].star, frames[0].mag, frames[0].error_mag))
    twice = FrameStars(
        frames[0].name, np.r_[star, star[:9]], np.r_[mag, mag[:9] + 1], np.r_[error, error[:9]]
    )
    less = FrameStars(frames[0].name, star[9:], mag[9:], error[9:])
    assert tie([twice, *frames[1:]]).frames == tie([less, *frames[1:]]).frames


def test_the_order_of_frames_and_stars_does_not_matter() -> None:
    frames, _, _ = mosaic(10)
    turned = [
        FrameStars(
            one.name, np.asarray(one.star)[::-1], np.asarray(one.mag)[::-1], np.asarray(one.error_mag)[::-1]
        )
        for one in frames[::-1]
    ]
    a, b = tie(frames), tie(turned)
    assert of(a, "zeropoint_mag") == pytest.approx(of(b, "zeropoint_mag")[::-1], abs=1e-9)
    assert of(a, "error_mag") == pytest.approx(of(b, "error_mag")[::-1], rel=1e-6)


def test_large_groups_and_dense_ones_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, _, mag = mosaic(11)
    anchors = Anchors(np.arange(50), mag[:50], np.full(50, 0.01))
    for known in (None, anchors):
        exact = tie(frames, known)
        with monkeypatch.context() as patch:
            patch.setattr(normal, "MOST_EXACT", 1)
            drawn = tie(frames, known)
        assert of(drawn, "zeropoint_mag") == pytest.approx(of(exact, "zeropoint_mag"), abs=1e-9)
        assert of(drawn, "error_mag") == pytest.approx(of(exact, "error_mag"), rel=0.15)
        with monkeypatch.context() as patch:
            patch.setattr(normal, "MOST_PAIRS", 0)
            iterated = tie(frames, known)
        assert of(iterated, "zeropoint_mag") == pytest.approx(of(exact, "zeropoint_mag"), abs=1e-6)


def test_many_exposures_of_one_field(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(12)
    mag, zero = random.uniform(15, 18, 150), random.normal(25, 0.1, 40)
    frames = [
        FrameStars(f"f{k}", np.arange(150), mag - one + random.normal(0, 0.01, 150), np.full(150, 0.01))
        for k, one in enumerate(zero)
    ]
    exact = tie(frames)
    monkeypatch.setattr(normal, "MOST_PAIRS", 0)
    made = tie(frames)
    assert of(made, "zeropoint_mag") == pytest.approx(zero - zero.mean(), abs=0.004)
    assert of(made, "error_mag") == pytest.approx(of(exact, "error_mag"), rel=0.1)


def test_what_cannot_be_tied_is_said() -> None:
    frames, _, _ = mosaic(13, nx=2, ny=1)
    with pytest.raises(EmptyInput):
        tie([])
    with pytest.raises(Mixture, match="name f0-0"):
        tie([frames[0], frames[0]])
    with pytest.raises(Mixture, match="f0-0: columns of stars of 2, 1 and 1"):
        tie([FrameStars("f0-0", [1, 2], [1.0], [0.1])])
    with pytest.raises(NoSolution, match="the 2 frames share no star"):
        tie([frames[0], FrameStars("other", [10**6], [-8.0], [0.01])])
    with pytest.raises(BadValue):
        tie(frames, hold_out=1)
    with pytest.raises(BadValue):
        tie(frames, clip_sigma=1)


@pytest.mark.parametrize("band", "grz")
def test_real_exposures_of_decam_agree_with_the_survey(band: str) -> None:
    from astropy.io import fits

    from awetools.core.photometry.zeropoint import instrumental
    from awetools.core.pixels.sources import SourceSettings, find_sources
    from awetools.core.sky.readwcs import read_wcs
    from awetools.core.sky.starmatch import stars_of

    folder = data_path("legacysurvey-cutouts/virgo-186.74+25.46")
    truth = {
        (int(one["expnum"]), one["ccdname"].strip()): float(one["ccdzpt"])
        for one in fits.getdata(folder / "survey-ccds-1.fits.gz", 1)
    }
    names, seen, zero = [], [], []
    for path in sorted(folder.glob(f"*ooi_{band}_ls9*")):
        with fits.open(path) as image:
            exposure, header = image[0].header, image[1].header
            data = np.asarray(image[1].data, np.float32)
        weight = np.asarray(fits.getdata(str(path).replace("_ooi_", "_oow_"), 1), np.float32)
        mask = np.where(fits.getdata(str(path).replace("_ooi_", "_ood_"), 1) > 0, 128, 0).astype(np.int16)
        made = find_sources(data, weight, mask, 4.0, SourceSettings(apertures_px=(14.0,))).columns
        size = len(made["x_px"])
        flux, error = (made[f"flux_aperture_{end}"].reshape(size, -1)[:, 0] for end in ("adu", "error_adu"))
        good = ((made["flags"] & (1 | 2 | 4 | 8 | 16 | 64)) == 0) & (flux > 10 * error)
        vectors = read_wcs(header).vectors(made["x_px"][good] + 1, made["y_px"][good] + 1)
        seen.append((vectors, *instrumental(flux[good], error[good], exposure["EXPTIME"])))
        names.append(path.name)
        zero.append(truth[int(exposure["EXPNUM"]), header["EXTNAME"].strip()])
    number = np.repeat(np.arange(len(seen)), [len(one[1]) for one in seen])
    star = stars_of(np.concatenate([one[0] for one in seen]), number, 1.0)
    frames = []
    for k, (name, (_, mag, error)) in enumerate(zip(names, seen, strict=True)):
        one = star[number == k]
        frames.append(FrameStars(name, one[one >= 0], mag[one >= 0], error[one >= 0]))
    tied = tie(frames)
    # A handful of stars in a minute of arc, without an aperture correction.
    assert of(tied, "zeropoint_mag") == pytest.approx(np.array(zero) - np.mean(zero), abs=0.035)
