"""Zero points of frames and the bands of catalogues: truth that is known, the Sun, and real frames."""

from __future__ import annotations

import csv
import gzip
import math
import warnings
from dataclasses import dataclass

import numpy as np
import pytest

from awetools.core.errors import BadValue, Mixture, NoSolution, UnknownName
from awetools.core.photometry.bands import (
    Choice,
    band_of_filter,
    choose_band,
    family_of,
    reference_magnitudes,
)
from awetools.core.photometry.transformations import TRANSFORMATIONS
from awetools.core.photometry.zeropoint import ZeroPoint, aperture_correction, zero_point

from .support import data_path

GAIA = ("G", "BP", "RP")
TRUE_MAG = 25.3


@dataclass
class Seen:
    """Stars of a frame, of known zero point and colour term about colour 1."""

    flux: np.ndarray
    error: np.ndarray
    mag: np.ndarray
    colour: np.ndarray
    wrong: np.ndarray

    def solved(self, **how: object) -> ZeroPoint:
        reference_error = np.full(len(self.mag), 0.01)
        return zero_point(self.flux, self.error, 100.0, self.mag, reference_error, **how)  # type: ignore[arg-type]


def seen(seed: int, size: int, wrong: int = 0, scatter: float = 0.02, term: float = 0.0) -> Seen:
    """wrong: how many are brighter in the frame than they should be, by 0.1 mag and more."""
    random = np.random.default_rng(seed)
    mag, colour = random.uniform(14, 18, size), random.uniform(0.3, 1.8, size)
    flux = 100 * 10 ** (-0.4 * (mag - TRUE_MAG - term * (colour - 1)))
    error = np.sqrt(flux / 1.5 + 400)
    flux += random.normal(0, error)
    mag = mag + random.normal(0, math.hypot(0.01, scatter), size)
    out = np.arange(size) < wrong
    return Seen(flux, error, mag + np.where(out, 0.1 + random.exponential(0.5, size), 0), colour, out)


def test_the_zero_point_is_the_magnitude_of_one_adu_a_second() -> None:
    made = zero_point([300.0, 30.0, 3.0], [1e-3] * 3, 3.0, [20.0, 22.5, 25.0])
    assert made.zeropoint_mag == pytest.approx(25.0)
    assert made.scatter_mag == 0
    assert made.stars == 3


@pytest.mark.parametrize("size", [3, 6, 12, 40])
def test_errors_are_what_they_say(size: int) -> None:
    made = [seen(seed, size).solved() for seed in range(1000, 1300)]
    pulls = np.array([(one.zeropoint_mag - TRUE_MAG) / one.error_mag for one in made])
    # At few degrees of freedom the tails are those of Student's distribution: the middle is told.
    assert np.percentile(np.abs(pulls), 68.3) == pytest.approx(1.0, abs=0.15)
    assert abs(np.median(pulls)) < 0.2


def test_the_scatter_is_found_so_that_chi2_is_one() -> None:
    made = seen(1, 1000, scatter=0.03).solved()
    assert made.scatter_mag == pytest.approx(0.03, rel=0.08)
    assert made.chi2 > 2
    assert seen(1, 1000, scatter=0.0).solved().scatter_mag < 0.006


@pytest.mark.parametrize("size", [20, 60, 400])
def test_thirty_per_cent_of_wrong_stars_do_not_move_it(size: int) -> None:
    away, clipped = [], []
    for seed in range(30):
        stars = seen(seed, size, wrong=int(0.3 * size))
        made = stars.solved()
        away.append((made.zeropoint_mag - TRUE_MAG) / made.error_mag)
        clipped.append(float((~made.used & stars.wrong).sum()) / stars.wrong.sum())
    assert np.percentile(np.abs(away), 68.3) < 1.5
    assert max(map(abs, away)) < 6
    assert np.mean(clipped) > 0.9
    rough = np.mean(stars.mag + 2.5 * np.log10(stars.flux / 100)) - TRUE_MAG
    assert rough > 0.1


def test_few_stars_have_a_large_error() -> None:
    errors = [
        float(np.median([seen(seed, size).solved().error_mag for seed in range(40)]))
        for size in (1, 2, 3, 30)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.1
    assert seen(1, 1).solved().chi2 != seen(1, 1).solved().chi2


def test_a_colour_term_is_fitted_given_or_none() -> None:
    stars = seen(3, 300, term=0.08)
    fitted = stars.solved(colour=stars.colour, fit_colour=True, colour_reference_mag=1.0)
    assert fitted.colour_origin == "fitted"
    assert fitted.colour_coefficient == pytest.approx(0.08, abs=4 * (fitted.colour_coefficient_error or 0))
    assert fitted.zeropoint_mag == pytest.approx(TRUE_MAG, abs=4 * fitted.error_mag)
    given = stars.solved(colour=stars.colour, colour_term=0.08, colour_reference_mag=1.0)
    assert given.colour_origin == "given"
    assert given.zeropoint_mag == pytest.approx(TRUE_MAG, abs=4 * given.error_mag)
    without = stars.solved()
    assert without.colour_coefficient is None
    assert without.scatter_mag > fitted.scatter_mag
    few = stars.solved(colour=np.where(np.arange(300) < 8, stars.colour, np.nan), fit_colour=True)
    assert few.colour_origin == "none: 8 stars have a colour, 10 are needed"
    alike = stars.solved(colour=1 + 0.1 * stars.colour, fit_colour=True)
    assert alike.colour_origin.startswith("none: the colours span 0.1")
    assert alike.stars > 290


def test_the_colour_term_is_right_beside_wrong_stars() -> None:
    pulls = []
    for seed in range(60):
        stars = seen(seed, 80, wrong=20, term=-0.15)
        made = stars.solved(colour=stars.colour, fit_colour=True)
        assert made.colour_coefficient is not None and made.colour_coefficient_error is not None
        pulls.append((made.colour_coefficient + 0.15) / made.colour_coefficient_error)
    assert np.std(pulls) == pytest.approx(1.0, abs=0.35)


def test_the_reddest_quarter_wrong_does_not_make_a_colour_term() -> None:
    stars = seen(8, 80, scatter=0.01)
    red = stars.colour > np.percentile(stars.colour, 75)
    stars.mag[red] += 4
    made = stars.solved(colour=stars.colour, fit_colour=True, colour_reference_mag=1.0)
    assert made.used.tolist() == (~red).tolist()
    assert made.zeropoint_mag == pytest.approx(TRUE_MAG, abs=4 * made.error_mag)
    stars.mag[red] = 99.0
    assert stars.solved().left_out == {"without a reference magnitude": 20}


def test_extinction_leads_above_the_atmosphere() -> None:
    made = seen(1, 50).solved(airmass=1.5, extinction_mag=0.2)
    assert made.above_atmosphere_mag == pytest.approx(made.zeropoint_mag + 0.3)
    with pytest.raises(BadValue, match="airmass"):
        seen(1, 50).solved(extinction_mag=0.2)


def test_what_is_missing_is_said() -> None:
    stars = seen(1, 20)
    with pytest.raises(NoSolution, match="no star of the frame is matched"):
        zero_point([], [], 10.0, [], [])
    with pytest.raises(NoSolution, match="of 20 matched stars none is left: 20 saturated"):
        stars.solved(saturated=np.ones(20, bool))
    with pytest.raises(NoSolution, match="20 without a reference magnitude"):
        zero_point(stars.flux, stars.error, 10.0, np.full(20, np.nan))
    with pytest.raises(NoSolution, match="20 of a signal-to-noise below 1e"):
        stars.solved(least_signal_to_noise=1e6)
    with pytest.raises(BadValue, match="0 s"):
        zero_point([1.0], [1.0], 0.0, [20.0])
    with pytest.raises(Mixture):
        zero_point([1.0, 2.0], [1.0, 1.0], 1.0, [20.0, 20.0, 20.0])
    with pytest.raises(BadValue, match="no colours"):
        stars.solved(fit_colour=True)
    saturated = np.arange(20) < 5
    assert stars.solved(saturated=saturated).left_out == {"saturated": 5}


def test_apertures_are_made_total() -> None:
    random = np.random.default_rng(5)
    size, part = 200, np.array([0.6, 0.85, 0.97])
    true = random.uniform(1e4, 1e6, size)
    # Noise of rings, that add up.
    ring = np.diff([0, *part, 1])[None, :] * true[:, None]
    sigma = np.sqrt(ring + np.array([100, 300, 900, 1800])[None, :] * 4)
    flux = np.cumsum(ring + random.normal(0, sigma), axis=1)
    error = np.sqrt(np.cumsum(sigma**2, axis=1))
    flux[:30, 3] *= 1.3
    made = aperture_correction(flux[:, :3], error[:, :3], flux[:, 3], error[:, 3])
    truth = 2.5 * np.log10(part)
    assert (np.abs(made.correction_mag - truth) < 4 * made.error_mag).all()
    assert (np.abs(made.correction_mag - truth) < 0.01).all()
    # The faint ones do not tell the extra light from noise, the others do.
    assert (made.stars < 190).all()
    with pytest.raises(NoSolution, match="aperture 1"):
        aperture_correction(flux[:, :1], error[:, :1], flux[:, 3], error[:, 3], usable=np.zeros(size, bool))


# Bands


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("R", "Johnson-Cousins R"), ("Rc", "Johnson-Cousins R"), ("Bessell V", "Johnson-Cousins V"),
        ("V Bessell", "Johnson-Cousins V"), ("W-C-RC", "Johnson-Cousins R"), ("V#641", "Johnson-Cousins V"),
        ("Harris_B", "Johnson-Cousins B"), ("SDSS r", "SDSS r"), ("r'", "SDSS r"), ("rp", "SDSS r"),
        ("ip", "SDSS i"), ("g SDSS c0001", "SDSS g"), ("r.MP9601", "SDSS r"), ("zs", "PS1 z"), ("r_P1", "PS1 r"),
        ("r", "r"), ("Y", ""), ("Ks", "2MASS K"), ("2MASS J", "2MASS J"), ("RP", ""), ("G", ""), ("w", ""),
        ("Clear", ""), ("Halpha", ""), ("r b", ""), ("", ""),
    ],
)  # fmt: skip
def test_filters_by_their_names(name: str, said: str) -> None:
    found = band_of_filter(name)
    assert (str(found) if found else "") == said


UCAC4 = ("UCf", "UCa", "J", "H", "K", "B", "V", "g", "r", "i")


def test_catalogues_are_known_by_bands_and_layouts() -> None:
    assert family_of(GAIA, ["Gaia (VizieR)"], 2015.5) == "Gaia DR2"
    assert family_of(GAIA, ["Gaia archive"], 2016.0) == "Gaia DR3"
    assert family_of(GAIA, [], 2020.3) == ""
    assert family_of("grizy", ["PS1 (MAST)"]) == "PS1"
    assert family_of("ugriz", ["SDSS (CasJobs)"]) == "SDSS"
    assert family_of("griz", ["names as usual"]) == ""
    assert family_of(("VT",), ["names as usual"]) == "Tycho"
    assert family_of(("BT", "VT"), ["Tycho-2 (VizieR)"]) == "Tycho"
    assert family_of(UCAC4, ["UCAC4 (VizieR)"]) == "UCAC4"
    assert family_of("grizy", ["PS1 (MAST)", "SDSS (CasJobs)"]) == ""


def test_the_band_of_a_filter() -> None:
    def chosen(filter_name: str, bands: object, family: str, band: str = "") -> Choice:
        return choose_band(filter_name, list(bands), band=band, family=family)  # type: ignore[call-overload]

    assert chosen("R", GAIA, "Gaia DR2").text == (
        "Johnson-Cousins R (Vega) from Gaia DR2 G, BP-RP within -0.5 to 2.75: "
        "Evans et al. 2018, A&A 616, A4, table A.2"
    )
    assert chosen("rp", "grizy", "PS1").transformation is not None
    plain = chosen("r", "grizy", "PS1")
    assert (plain.column, plain.system, plain.scale, plain.colour) == ("r", "PS1", "AB", ("g", "r"))
    assert chosen("V", "UBVRI", "Landolt").column == "V"
    assert chosen("r", UCAC4, "UCAC4").text == "SDSS r (AB)"
    assert chosen("Ic", UCAC4, "UCAC4").transformation is not None
    assert chosen("V", ("BT", "VT"), "Tycho").scale == "Vega"
    assert chosen("zs", "ugriz", "SDSS").note == "zs is of PS1, the catalogue's z of SDSS"
    assert chosen("I", ("J", "H", "K", "I", "R1"), "PPMXL").note
    assert chosen("w", GAIA, "Gaia DR2", band="G").text == "Gaia DR2 G (Vega)"
    assert chosen("Clear", ("VT",), "Tycho", band="VT").column == "VT"
    assert chosen("r", "gri", "").scale == ""


def test_what_leads_to_no_band_is_said() -> None:
    with pytest.raises(
        NoSolution, match=r"filter 'Halpha'.* it is, is not known; the catalogue has G, BP, RP"
    ) as why:
        choose_band("Halpha", GAIA, family="Gaia DR2")
    assert 'band = "BAND"' in why.value.hint and "Johnson-Cousins V" in why.value.message
    with pytest.raises(
        NoSolution, match="no magnitudes for Johnson-Cousins B; it has G, BP, RP; transformed"
    ):
        choose_band("B", GAIA, family="Gaia DR3")
    with pytest.raises(NoSolution, match="which release of Gaia"):
        choose_band("V", GAIA)
    with pytest.raises(NoSolution, match="no magnitudes at all"):
        choose_band("V", [])
    with pytest.raises(UnknownName, match="nearest: VT"):
        choose_band("Clear", ["VT"], band="Vt1", family="Tycho")


def _stars(**columns: float) -> dict[str, np.ndarray]:
    return {f"mag_{band}": np.array([value]) for band, value in columns.items()}


# The absolute magnitudes of the Sun, about: Willmer 2018, ApJS 236, 47; Casagrande & VandenBerg 2018, MNRAS 479, L102.
SUN = {
    "Johnson-Cousins": {"B": 5.44, "V": 4.81, "R": 4.43, "I": 4.10},
    "SDSS": {"g": 5.11, "r": 4.65, "i": 4.53, "z": 4.50},
    "PS1": {"g": 5.03, "r": 4.64, "i": 4.52, "z": 4.51},
    "Gaia": {"G": 4.67, "BP": 4.98, "RP": 4.16},
}


@pytest.mark.parametrize(
    "one",
    [one for one in TRANSFORMATIONS if one.family.split()[0] in SUN],
    ids=lambda one: f"{one.family} {one.band}",
)
def test_the_sun_is_as_bright_as_it_is(one: object) -> None:
    choice = Choice(one.band, one.system, "", one.family, "", one)  # type: ignore[attr-defined]
    family = SUN[one.family.split()[0]]  # type: ignore[attr-defined]
    made = reference_magnitudes(choice, _stars(**family))
    assert made.mag[0] == pytest.approx(SUN[one.system][one.band], abs=0.045)  # type: ignore[attr-defined]


def test_two_releases_of_gaia_agree() -> None:
    colour = np.linspace(0.5, 2, 16)
    for band in "VRIgri":
        dr2, dr3 = (one for one in TRANSFORMATIONS if one.family.startswith("Gaia") and one.band == band)
        assert np.abs(dr2.value(colour) - dr3.value(colour)).max() < 0.03, band


def test_errors_go_through_a_transformation() -> None:
    stars = {**_stars(G=15.0, BP=15.6, RP=14.3), "mag_error_G": np.array([0.01]), "mag_error_BP": np.array([0.03]),
             "mag_error_RP": np.array([0.02])}  # fmt: skip
    choice = choose_band("R", GAIA, family="Gaia DR3")
    made = reference_magnitudes(choice, stars)
    square = 0.03167**2
    for band in GAIA:
        more = {**stars, f"mag_{band}": stars[f"mag_{band}"] + 1e-5}
        slope = (reference_magnitudes(choice, more).mag[0] - made.mag[0]) / 1e-5
        square += (slope * stars[f"mag_error_{band}"][0]) ** 2
    assert made.error_mag[0] == pytest.approx(math.sqrt(square), rel=1e-3)


def test_stars_that_are_not_to_be_trusted_have_no_magnitude() -> None:
    colours = np.array([0.5, 3.0, 0.8, 0.9, np.nan])
    stars = {
        "mag_G": np.full(5, 15.0), "mag_BP": 15 + colours, "mag_RP": np.full(5, 15.0),
        "flags": np.array([0, 0, 2, 1, 0], np.int16),
    }  # fmt: skip
    made = reference_magnitudes(choose_band("V", GAIA, family="Gaia DR2"), stars)
    assert np.isfinite(made.mag).tolist() == [True, False, False, True, False]
    assert (made.outside, made.flagged) == (1, 1)
    with pytest.raises(BadValue, match="mag_BP"):
        reference_magnitudes(choose_band("V", GAIA, family="Gaia DR2"), _stars(G=15.0))


# Real data


def test_real_stars_of_apass_obey_the_relations_of_the_sdss() -> None:
    with gzip.open(data_path("refcats/ucac4-299.59+35.20.csv.gz"), "rt") as lines:
        rows = list(csv.DictReader(one for one in lines if one.strip() and one[0] != "#"))
    names = {"B": "Bmag", "V": "Vmag", "g": "gmag", "r": "rmag", "i": "imag"}
    stars = {f"mag_{band}": np.array([_number(row[name]) for row in rows]) for band, name in names.items()}
    for one in TRANSFORMATIONS:
        if one.family == "SDSS" and one.band in "BV":
            made = reference_magnitudes(Choice(one.band, "", "", "", "", one), stars)
            away = made.mag - stars[f"mag_{one.band}"]
            assert np.isfinite(away).sum() > 400
            assert abs(np.nanmedian(away)) < 0.03


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def test_a_frame_of_lco_against_gaia() -> None:
    from astropy.io import fits

    from awetools.core.sky.sphere import separation_arcsec

    folder = data_path("refcats/lco-gaia-pair")
    with warnings.catch_warnings():
        # Its formats for display are not of the standard.
        warnings.simplefilter("ignore")
        sources = fits.getdata(folder / "lco-sextractor-ldac-219.83-09.77.fits.gz", 2)
        stars = fits.getdata(folder / "gaia-dr2-ldac.cat.gz", 2)
    ra, dec = (np.asarray(stars[name], float) for name in ("XWIN_WORLD", "YWIN_WORLD"))
    away = separation_arcsec(
        ra[:, None],
        dec[:, None],
        np.asarray(sources["ALPHA_J2000"], float)[None],
        np.asarray(sources["DELTA_J2000"], float)[None],
    )
    near = away.min(axis=1) < 1.0
    matched, gaia = sources[away.argmin(axis=1)[near]], stars[near]
    made = zero_point(
        matched["FLUX_AUTO"],
        matched["FLUXERR_AUTO"],
        115.0,
        gaia["MAG"],
        gaia["MAGERR"],
        saturated=(matched["FLAGS"] & 4) > 0,
    )
    # The filter is not that of Gaia: the colours of the stars are in the scatter.
    assert made.zeropoint_mag == pytest.approx(23.098, abs=0.02)
    assert made.error_mag < 0.007
    assert made.scatter_mag < 0.06
    assert made.stars > 90
    assert made.left_out == {"saturated": 1}
