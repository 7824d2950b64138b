"""The local solution finds what is there, whatever is wrong with the guess, and nothing where nothing is."""

from __future__ import annotations

import csv
import gzip
import math
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awetools.core.errors import BadValue, Mixture, NoSolution
from awetools.core.sky.solve import Guess, Reference, Solution, Sources, solve
from awetools.core.sky.sphere import from_tangent, separation_arcsec
from awetools.core.sky.wcs import Wcs
from tests.support import data_path

SIZE, SCALE = 1000, 0.25
SHAPE = (SIZE, SIZE)


@dataclass
class Sky:
    """A field with its truth: the middle of the image lies at ra, dec."""

    sources: Sources
    reference: Reference
    wcs: Wcs
    ra: float
    dec: float

    def guess(self, **more: object) -> Guess:
        scales = (0.9 * SCALE, 1.15 * SCALE)
        return Guess(**{"pointing_deg": (self.ra, self.dec), "scale_arcsec": scales, **more})  # type: ignore[arg-type]

    def error_px(self, solution: Solution) -> float:
        """The largest error of a solution over a grid of the image."""
        x, y = np.meshgrid(np.linspace(50, SIZE - 50, 7), np.linspace(50, SIZE - 50, 7))
        ra, dec = self.wcs.to_sky(x, y)
        again = solution.wcs.to_sky(x, y)
        return float(separation_arcsec(ra, dec, *again).max()) / SCALE


def field(
    stars: int = 60,
    *,
    seed: int = 1,
    ra: float = 150.0,
    dec: float = 2.0,
    turn_deg: float = 33.0,
    mirrored: bool = False,
    seen: float = 0.95,
    listed: float = 0.9,
    spurious: float = 0.3,
    deeper: float = 1.0,
    margin: float = 1.5,
) -> Sky:
    """Stars, seen and listed each by chance; spurious sources as a part of all; a catalogue deeper than the image."""
    rng = np.random.default_rng(seed)
    cosine, sine = math.cos(math.radians(turn_deg)), math.sin(math.radians(turn_deg))
    step = SCALE / 3600
    first = 1.0 if mirrored else -1.0
    wcs = Wcs(
        (ra, dec),
        (0.5 * (SIZE + 1), 0.5 * (SIZE + 1)),
        (first * cosine * step, -sine * step, first * sine * step, cosine * step),
    )
    number = round(stars * margin**2 * max(deeper, 1 / deeper))
    u, v = rng.uniform(-0.5, 0.5, (2, number)) * SIZE * margin
    mag = np.sort(20 - rng.exponential(1.5, number))
    all_ra, all_dec = wcs.to_sky(u + 0.5 * SIZE, v + 0.5 * SIZE)
    bright = np.arange(number) < stars * margin**2
    in_image = (
        (bright | (deeper < 1)) & (np.maximum(np.abs(u), np.abs(v)) < SIZE / 2) & (rng.random(number) < seen)
    )
    in_list = (bright | (deeper > 1)) & (rng.random(number) < listed)
    x = u[in_image] + 0.5 * SIZE + rng.normal(0, 0.1, in_image.sum())
    y = v[in_image] + 0.5 * SIZE + rng.normal(0, 0.1, in_image.sum())
    faint = round(len(x) * spurious / (1 - spurious))
    x, y = np.r_[x, rng.uniform(1, SIZE, faint)], np.r_[y, rng.uniform(1, SIZE, faint)]
    seen_mag = mag[in_image] + rng.normal(0, 0.2, in_image.sum())
    flux = 10 ** (-0.4 * np.r_[seen_mag, rng.choice(seen_mag, faint)])
    return Sky(Sources(x, y, flux), Reference(all_ra[in_list], all_dec[in_list], mag[in_list]), wcs, ra, dec)


@given(
    st.integers(0, 10**6),
    st.floats(0, 360),
    st.floats(-90, 90),
    st.floats(0, 360),
    st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_any_turn_parity_and_place(seed: int, ra: float, dec: float, turn: float, mirrored: bool) -> None:
    sky = field(seed=seed, ra=ra, dec=dec, turn_deg=turn, mirrored=mirrored)
    solution = solve(sky.sources, sky.reference, sky.guess(), shape=SHAPE)
    assert sky.error_px(solution) < 0.5
    assert solution.measures["parity"] == (1 if mirrored else -1)
    assert solution.measures["chance_log10"] < -6


@pytest.mark.parametrize(
    "wrong",
    [
        {"spurious": 0.8},
        {"deeper": 10.0},
        {"deeper": 0.1},
        {"stars": 2000, "seen": 0.8, "listed": 0.8},
        {"stars": 12, "spurious": 0.3},
        {"listed": 0.5, "seen": 0.6, "stars": 100},
    ],
    ids=lambda one: " ".join(f"{name} {value}" for name, value in one.items()),
)
@pytest.mark.parametrize("blind", [False, True])
def test_lists_that_differ(wrong: dict[str, float], blind: bool) -> None:
    sky = field(**wrong)  # type: ignore[arg-type]
    guess = Guess(scale_arcsec=(0.2, 0.3)) if blind else sky.guess()
    assert sky.error_px(solve(sky.sources, sky.reference, guess, shape=SHAPE)) < 0.6


@pytest.mark.parametrize("seed", range(4))
def test_eight_stars_in_common_of_forty(seed: int) -> None:
    rng = np.random.default_rng(seed)
    step = SCALE / 3600
    wcs = Wcs((150.0, 2.0), (500.0, 500.0), (-step, 0.0, 0.0, step))
    x, y, mag = rng.uniform(1, SIZE, 40), rng.uniform(1, SIZE, 40), rng.uniform(12, 18, 40)
    ra, dec = wcs.to_sky(
        np.r_[x[:8] + rng.normal(0, 0.1, 8), rng.uniform(-250, 1250, 32)],
        np.r_[y[:8] + rng.normal(0, 0.1, 8), rng.uniform(-250, 1250, 32)],
    )
    reference = Reference(ra, dec, np.r_[mag[:8], rng.uniform(12, 18, 32)])
    guess = Guess(pointing_deg=(150.0, 2.01), scale_arcsec=(0.23, 0.27))
    solution = solve(Sources(x, y, 10 ** (-0.4 * mag)), reference, guess, shape=SHAPE)
    assert set(range(8)) >= set(solution.sources.tolist())
    assert Sky(Sources([], []), reference, wcs, 150.0, 2.0).error_px(solution) < 1.0


def test_a_header_that_is_off_turned_and_scaled() -> None:
    sky = field()
    a, b, c, d = sky.wcs.matrix
    cosine, sine = 1.02 * math.cos(math.radians(3)), 1.02 * math.sin(math.radians(3))
    turned = a * cosine - b * sine, a * sine + b * cosine, c * cosine - d * sine, c * sine + d * cosine
    wrong = Wcs((sky.ra + 0.02, sky.dec - 0.02), sky.wcs.crpix, turned)
    solution = solve(sky.sources, sky.reference, Guess(wcs=wrong), shape=SHAPE)
    assert sky.error_px(solution) < 0.3
    assert len(solution.tried) == 1
    assert solution.measures["shift_arcsec"] == pytest.approx(math.hypot(72, 72), rel=0.02)


def test_a_header_that_lies_about_parity_turn_and_place() -> None:
    sky = field(mirrored=True, turn_deg=100)
    step = SCALE / 3600
    lies = Wcs((sky.ra + 1, sky.dec), sky.wcs.crpix, (-step, 0.0, 0.0, step))
    solution = solve(sky.sources, sky.reference, Guess(wcs=lies), shape=SHAPE)
    assert sky.error_px(solution) < 0.3
    assert solution.measures["shift_arcsec"] == pytest.approx(3600, rel=0.01)
    with pytest.raises(NoSolution, match="tried"):
        solve(sky.sources, sky.reference, Guess(wcs=lies, loosen=False), shape=SHAPE)


def test_proper_motions_lead_to_the_epoch() -> None:
    sky = field()
    rng = np.random.default_rng(4)
    ra, dec = np.asarray(sky.reference.ra_deg), np.asarray(sky.reference.dec_deg)
    pm_ra, pm_dec = rng.normal(0, 100, (2, len(ra)))
    earlier = Reference(
        ra - 16 * pm_ra / 3.6e6 / np.cos(np.radians(dec)),
        dec - 16 * pm_dec / 3.6e6,
        sky.reference.mag,
        epoch_yr=2000.0,
        pm_ra_mas_yr=pm_ra,
        pm_dec_mas_yr=pm_dec,
    )
    then = solve(sky.sources, earlier, sky.guess(), shape=SHAPE, epoch_yr=2016.0)
    same = solve(sky.sources, sky.reference, sky.guess(), shape=SHAPE)
    assert then.measures["rms_arcsec"] == pytest.approx(same.measures["rms_arcsec"], rel=0.01)
    assert solve(sky.sources, earlier, sky.guess(), shape=SHAPE).measures["rms_arcsec"] > 0.5


def test_unknown_epochs_and_motions_count_as_none() -> None:
    sky = field()
    number = np.asarray(sky.reference.ra_deg).size
    unknown = Reference(
        sky.reference.ra_deg,
        sky.reference.dec_deg,
        sky.reference.mag,
        epoch_yr=np.full(number, np.nan),
        pm_ra_mas_yr=np.full(number, np.nan),
        pm_dec_mas_yr=np.full(number, np.nan),
    )
    assert sky.error_px(solve(sky.sources, unknown, sky.guess(), shape=SHAPE, epoch_yr=2016.0)) < 0.3


@pytest.mark.parametrize("strength", [0.003, 0.02])
def test_a_distortion_is_fitted(strength: float) -> None:
    sky = field(400)
    x, y = np.asarray(sky.sources.x) - 500, np.asarray(sky.sources.y) - 500
    factor = 1 + strength * (x * x + y * y) / 500**2
    bent = Sources(x * factor + 500, y * factor + 500, sky.sources.flux)
    solution = solve(bent, sky.reference, sky.guess(), shape=SHAPE, degree=3)
    assert solution.measures["degree"] == 3
    assert solution.measures["rms_arcsec"] < 0.045
    assert solution.measures["n_ref"] > 200


def test_what_is_reported_is_what_remains() -> None:
    sky = field()
    solution = solve(sky.sources, sky.reference, sky.guess(), shape=SHAPE)
    x, y = np.asarray(sky.sources.x)[solution.sources], np.asarray(sky.sources.y)[solution.sources]
    ra, dec = solution.wcs.to_sky(x, y)
    star_ra = np.asarray(sky.reference.ra_deg)[solution.reference]
    star_dec = np.asarray(sky.reference.dec_deg)[solution.reference]
    assert np.allclose((star_dec - dec) * 3600, solution.ddec_arcsec, atol=1e-4)
    assert np.allclose((star_ra - ra) * np.cos(np.radians(dec)) * 3600, solution.dra_arcsec, atol=1e-4)
    assert len(set(solution.sources.tolist())) == len(solution.sources) == solution.measures["n_ref"]
    assert solution.measures["sig_dra_arcsec"] == pytest.approx(solution.dra_arcsec.std())


def test_errors_weigh_and_are_propagated() -> None:
    deviations = []
    for seed in range(30):
        sky = field(120, seed=seed, spurious=0.0)
        sources = Sources(sky.sources.x, sky.sources.y, sky.sources.flux, 0.1)
        solution = solve(sources, sky.reference, sky.guess(), shape=SHAPE, degree=1)
        assert 0.7 < solution.measures["chi2_reduced"] < 1.3
        dec, true_dec = (float(one.to_sky(500.0, 500.0)[1]) for one in (solution.wcs, sky.wcs))
        deviations.append((dec - true_dec) / float(solution.fit.errors(500.0, 500.0)))
    assert 0.7 < np.std(deviations) < 1.4


@pytest.mark.parametrize("twice", [0.0, 0.3])
def test_a_catalogue_with_every_star_twice(twice: float) -> None:
    sky = field()
    rng = np.random.default_rng(2)
    ra, dec, mag = (
        np.asarray(one) for one in (sky.reference.ra_deg, sky.reference.dec_deg, sky.reference.mag)
    )
    away = rng.normal(0, twice / 3600 + 1e-12, len(ra))
    doubled = Reference(np.r_[ra, ra + away], np.r_[dec, dec - away], np.r_[mag, mag])
    assert sky.error_px(solve(sky.sources, doubled, sky.guess(), shape=SHAPE)) < 0.5


def test_a_catalogue_of_half_the_field() -> None:
    sky = field(100)
    half = np.asarray(sky.reference.ra_deg) > sky.ra
    some = Reference(
        *(np.asarray(one)[half] for one in (sky.reference.ra_deg, sky.reference.dec_deg, sky.reference.mag))
    )
    assert sky.error_px(solve(sky.sources, some, sky.guess(), shape=SHAPE)) < 1.0


def grid(number: int, step: float) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.meshgrid(np.arange(number), np.arange(number))
    return (a.ravel() - 0.5 * (number - 1)) * step, (b.ravel() - 0.5 * (number - 1)) * step


def test_a_grid_fits_a_grid_in_many_ways_so_in_none() -> None:
    x, y = grid(8, 120.0)
    ra, dec = from_tangent(*grid(14, 120 * SCALE / 3600), 150.0, 2.0)
    with pytest.raises(NoSolution, match="two places"):
        solve(Sources(x + 500, y + 500), Reference(ra, dec), Guess(scale_arcsec=(0.24, 0.26)), shape=SHAPE)


def wrong_pair(kind: str, seed: int) -> tuple[Sources, Reference]:
    """Sources and reference stars that have nothing to do with each other."""
    rng = np.random.default_rng([seed, len(kind)])
    x, y = rng.uniform(1, SIZE, (2, 40))
    flux, mag = rng.pareto(1.5, 40), rng.uniform(10, 16, 40)
    side = 1.3 * SIZE * SCALE / 3600
    xi, eta = rng.uniform(-0.5, 0.5, (2, 40)) * side
    if kind == "grid of sources":
        x, y = grid(7, 130.0)
        x, y, flux = x + 500, y + 500, rng.pareto(1.5, len(x))
    elif kind == "grid of stars":
        xi, eta = grid(7, side / 7)
        mag = rng.uniform(10, 16, len(xi))
    elif kind == "hot column":
        x[:25] = rng.uniform(100, 900) + rng.normal(0, 0.05, 25)
    elif kind == "doubles":
        x, y, flux = np.r_[x, x + rng.normal(0, 2, 40)], np.r_[y, y + rng.normal(0, 2, 40)], np.r_[flux, flux]
        xi, eta = np.r_[xi, xi + 1e-4], np.r_[eta, eta - 1e-4]
        mag = np.r_[mag, mag]
    elif kind == "shuffled":
        xi, eta, mag = (x - 500) * -SCALE / 3600, rng.permutation(y - 500) * SCALE / 3600, -flux
    ra, dec = from_tangent(xi, eta, 150.0, 0.0)
    return Sources(x, y, flux), Reference(ra, dec, mag)


@pytest.mark.parametrize(
    "kind", ["random", "grid of sources", "grid of stars", "hot column", "doubles", "shuffled"]
)
def test_no_solution_where_there_is_none(kind: str) -> None:
    for seed in range(2):
        sources, reference = wrong_pair(kind, seed)
        with pytest.raises(NoSolution, match="tried: within"):
            solve(sources, reference, Guess(pointing_deg=(150, 0), scale_arcsec=(0.23, 0.27)), shape=SHAPE)


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        ([], [], "0 sources"),
        ([1.0, 2, 3], [5.0, 2, 9], "3 sources"),
        ([np.nan] * 9, [1.0] * 9, "0 sources"),
        ([5.0] * 30, [6.0] * 30, "no solution"),
        (list(range(30)), [6.0] * 30, "no solution"),
    ],
    ids=["none", "three", "nan", "one place", "one line"],
)
def test_sources_that_say_nothing(x: list[float], y: list[float], says: str) -> None:
    sky = field()
    with pytest.raises(NoSolution, match=says) as caught:
        solve(Sources(x, y), sky.reference, sky.guess(), shape=SHAPE)
    assert caught.value.hint


def test_a_catalogue_that_is_empty_or_elsewhere() -> None:
    sky = field()
    with pytest.raises(NoSolution, match="0 reference stars"):
        solve(sky.sources, Reference([], []), sky.guess(), shape=SHAPE)
    away = Reference(np.asarray(sky.reference.ra_deg) + 5, sky.reference.dec_deg, sky.reference.mag)
    with pytest.raises(NoSolution, match="fewer than 4 stars where the image is"):
        solve(sky.sources, away, sky.guess(loosen=False), shape=SHAPE)


def test_a_wrong_scale_is_no_solution_and_says_what_was_tried() -> None:
    sky = field()
    with pytest.raises(NoSolution, match=r"0\.5 to 0\.6 arcsec/pixel"):
        solve(sky.sources, sky.reference, sky.guess(scale_arcsec=(0.5, 0.6)), shape=SHAPE)


def test_a_guess_that_is_none_and_columns_that_do_not_fit() -> None:
    sky = field()
    with pytest.raises(BadValue):
        solve(sky.sources, sky.reference, Guess(pointing_deg=(1, 2)))
    with pytest.raises(Mixture):
        solve(Sources([1, 2, 3], [1, 2]), sky.reference, sky.guess())


def test_the_gaia_pair_is_solved_to_015_arcsec() -> None:
    from astropy.io import fits

    folder = data_path("refcats/lco-gaia-pair")
    with warnings.catch_warnings():
        # Its formats for display are not of the standard.
        warnings.simplefilter("ignore")
        seen = fits.getdata(folder / "lco-sextractor-ldac-219.83-09.77.fits.gz", 2)
        stars = fits.getdata(folder / "gaia-dr2-ldac.cat.gz", 2)
    sources = Sources(
        seen["XWIN_IMAGE"], seen["YWIN_IMAGE"], seen["FLUX_AUTO"], np.sqrt(seen["ERRX2WIN_IMAGE"])
    )
    reference = Reference(
        stars["XWIN_WORLD"], stars["YWIN_WORLD"], stars["MAG"], stars["ERRAWIN_WORLD"] * 3600, 2015.5
    )
    for guess in (
        Guess(pointing_deg=(219.83083, -9.76773), scale_arcsec=(0.45, 0.49)),
        Guess(scale_arcsec=(0.3, 0.7)),
    ):
        measures = solve(sources, reference, guess, shape=(2038, 2028)).measures
        assert measures["n_ref"] > 90
        assert measures["sig_dra_arcsec"] < 0.15
        assert measures["sig_ddec_arcsec"] < 0.15


@pytest.mark.parametrize("number", [0, 20, 35])
def test_frames_with_a_pointing_alone_against_tycho(number: int) -> None:
    import sep
    from astropy.io import fits

    frame = sorted(data_path("microobs-hatp32-20171220").glob("*.gz"))[number]
    with gzip.open(frame) as stream, fits.open(stream, ignore_missing_end=True) as opened:
        data = np.ascontiguousarray(opened[0].data, np.float32)
        pointing = float(opened[0].header["RA"]), float(opened[0].header["DEC"])
    sky = sep.Background(data, bw=32, bh=32)
    data -= sky.back()
    found = sep.extract(data, 5.0, err=sky.globalrms, minarea=4)
    x, y, _ = sep.winpos(data, found["x"], found["y"], np.full(len(found), 2.0))
    with open(data_path("refcats/tycho2-hatp32.csv"), newline="") as lines:
        rows = [[float(one) for one in row] for row in list(csv.reader(lines))[1:]]
    ra, dec, mag = np.array(rows).T
    solution = solve(
        Sources(x + 1, y + 1, found["flux"]),
        Reference(ra, dec, mag),
        Guess(pointing_deg=pointing, scale_arcsec=(5.0, 5.4)),
        shape=data.shape,
    )
    scale = solution.measures["pixel_scale_arcsec"]
    assert scale == pytest.approx(5.165, rel=1e-3)
    assert solution.measures["n_ref"] >= 25
    assert max(solution.measures["sig_dra_arcsec"], solution.measures["sig_ddec_arcsec"]) < 0.25 * scale
