"""The local solution of a frame from its source table, its meta and a catalogue: starts, choice of stars, bad luck."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from awetools.core.camera_layout import celestial_wcs
from awetools.core.catalogues.refshards import write_catalogue
from awetools.core.errors import BadValue, NoSolution, UnknownName
from awetools.core.fitsheader import header_from_text
from awetools.core.sky import localstart
from awetools.core.sky.local import LocalSettings, LocalSolution, chosen_sources, epoch_of, local_solution
from awetools.core.sky.readwcs import read_wcs
from awetools.core.sky.refcat import Catalogue
from awetools.core.sky.sphere import from_tangent, separation_arcsec
from awetools.core.sky.wcs import Wcs
from awetools.core.sky.writewcs import wcs_as_cards
from awetools.core.units import to_j2000
from tests.support import data_path

SIZE, SCALE = 1000, 0.5
SATURATED = 4


def system(
    ra: float = 150.0, dec: float = 2.0, turn_deg: float = 0.0, scale: float = SCALE, mirrored: bool = False
) -> Wcs:
    angle, step, side = math.radians(turn_deg), scale / 3600, 1.0 if mirrored else -1.0
    matrix = side * math.cos(angle), -math.sin(angle), side * math.sin(angle), math.cos(angle)
    middle = 0.5 * (SIZE + 1)
    return Wcs((ra, dec), (middle, middle), tuple(step * one for one in matrix))  # type: ignore[arg-type]


@dataclass
class Night:
    """A field: the true system, its source table, its catalogue's columns, and the meta of a header that is right."""

    wcs: Wcs
    columns: dict[str, np.ndarray]
    stars: dict[str, np.ndarray]
    folder: Path

    def meta(self, wcs: Wcs | None = None, **fields: Any) -> dict[str, Any]:
        return {
            "wcs": wcs_as_cards(wcs) if wcs is not None else None,
            "ra_deg": self.wcs.crval_deg[0],
            "dec_deg": self.wcs.crval_deg[1],
            "pixel_scale_arcsec": SCALE,
            "nx": SIZE,
            "ny": SIZE,
            "obs_start": "2017-03-02T03:00:00.000",
            "exptime_s": 60.0,
            **fields,
        }

    def catalogue(self, **columns: np.ndarray) -> Catalogue:
        path = self.folder / f"stars{len(list(self.folder.iterdir()))}"
        return write_catalogue(path, [{**self.stars, **columns}], ["G"], [], duplicate_arcsec=0)

    def solve(self, meta: Mapping[str, Any], **settings: Any) -> LocalSolution:
        return local_solution(self.columns, meta, self.catalogue(), LocalSettings(**settings))

    def error_px(self, found: LocalSolution) -> float:
        x, y = np.meshgrid(np.linspace(1, SIZE, 3), np.linspace(1, SIZE, 3))
        away = separation_arcsec(*self.wcs.to_sky(x, y), *read_wcs(found.cards).to_sky(x, y))
        return float(away.max()) / SCALE


def table(x: np.ndarray, y: np.ndarray, flux: np.ndarray, error_px: float = 0.05) -> dict[str, np.ndarray]:
    number = len(x)
    return {
        "X_WIN_PX": x,
        "Y_WIN_PX": y,
        "X_WIN_ERROR_PX": np.full(number, error_px, np.float32),
        "Y_WIN_ERROR_PX": np.full(number, error_px, np.float32),
        "FLUX_AUTO_ADU": flux,
        "FLUX_AUTO_ERROR_ADU": flux / 50,
        "FWHM_PX": np.full(number, 3.0, np.float32),
        "FLAGS": np.zeros(number, np.int32),
        "STAR": np.ones(number, np.float32),
    }


def night(
    folder: Path, wcs: Wcs | None = None, stars: int = 60, radius_deg: float = 0.4, seed: int = 3
) -> Night:
    """stars: in the image; the catalogue is a circle about it."""
    rng = np.random.default_rng(seed)
    wcs = wcs or system()
    side = 2 * radius_deg
    number = round(stars * (side * 3600 / SCALE / SIZE) ** 2)
    ra, dec = from_tangent(*rng.uniform(-radius_deg, radius_deg, (2, number)), *wcs.crval_deg)
    mag = 18 - rng.exponential(1.5, number)
    x, y = wcs.to_pixel(ra, dec)
    inside = np.isfinite(x) & (x > 1) & (x < SIZE) & (y > 1) & (y < SIZE) & (rng.random(number) < 0.9)
    count = int(inside.sum())
    x, y = (one[inside] + rng.normal(0, 0.05, count) for one in (x, y))
    flux = 10 ** (-0.4 * (mag[inside] - 25 + rng.normal(0, 0.1, count)))
    extra = count // 3
    x, y = np.r_[x, rng.uniform(1, SIZE, extra)], np.r_[y, rng.uniform(1, SIZE, extra)]
    flux = np.r_[flux, np.full(extra, flux.min())]
    listed = {"ra_deg": ra, "dec_deg": dec, "mag_G": mag, "epoch_yr": np.full(number, 2016.0)}
    return Night(wcs, table(x, y, flux), listed, folder)


# Where it begins


def test_a_header_that_is_off_turned_and_scaled(tmp_path: Path) -> None:
    field = night(tmp_path)
    lies = system(150.02, 2.026, turn_deg=3, scale=1.02 * SCALE)
    found = field.solve(field.meta(lies))
    assert field.error_px(found) < 0.2
    assert found.used_words["start"] == "the header's WCS"
    assert found.used_words["band"] == "G"
    ra, dec = found.wcs.to_sky(found.x_px, found.y_px)
    assert np.allclose((dec - found.dec_ref_deg) * 3600, found.ddec_arcsec, atol=1e-4)
    away = (ra - found.ra_ref_deg) * np.cos(np.radians(dec)) * 3600
    assert np.allclose(away, found.dra_arcsec, atol=1e-4)
    assert int(found.used.sum()) == found.measures["n_ref"]
    assert found.measures["n_clipped"] == int((~found.used).sum())
    assert len(set(found.row.tolist())) == len(found.row)
    assert np.isfinite(found.sigma_arcsec).tolist() == found.used.tolist()


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("ra", "dec"), [(0.01, 10.0), (359.99, -30.0), (30.0, 89.9), (200.0, -89.95)])
def test_a_pointing_alone_anywhere_on_the_sky(tmp_path: Path, ra: float, dec: float, mirrored: bool) -> None:
    field = night(tmp_path, system(ra, dec, turn_deg=77, mirrored=mirrored))
    found = field.solve(field.meta())
    assert field.error_px(found) < 0.2
    assert found.measures["parity"] == (1 if mirrored else -1)


def test_a_scale_within_a_factor_and_none_at_all(tmp_path: Path) -> None:
    field = night(tmp_path)
    assert field.error_px(field.solve(field.meta(pixel_scale_arcsec=SCALE * 1.19))) < 0.2
    unknown = field.meta(pixel_scale_arcsec=None)
    assert field.error_px(field.solve(unknown, scale_low_arcsec=0.4, scale_high_arcsec=0.6)) < 0.2
    with pytest.raises(NoSolution, match="scale is not known") as caught:
        field.solve(unknown)
    assert "scale_low_arcsec" in caught.value.hint


def test_a_scale_of_the_user_stands_above_that_of_the_header(tmp_path: Path) -> None:
    field = night(tmp_path)
    found = field.solve(field.meta(system(scale=3 * SCALE)), scale_low_arcsec=0.45, scale_high_arcsec=0.55)
    assert field.error_px(found) < 0.2


@pytest.mark.parametrize("lie", ["wcs", "both"])
def test_a_header_that_lies_by_a_degree(tmp_path: Path, lie: str) -> None:
    field = night(tmp_path, radius_deg=1.2, stars=25)
    wrong = system(150.0, 3.0)
    meta = field.meta(wrong) | ({"dec_deg": 3.0} if lie == "both" else {})
    found = field.solve(meta)
    assert field.error_px(found) < 0.2
    if lie == "both":
        assert "farther" in found.used_words["start"]
        with pytest.raises(NoSolution, match="from the header's WCS"):
            field.solve(meta, widest_deg=0.0)


def test_blind_and_where_that_is_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    field = night(tmp_path, system(150.3, 2.4, turn_deg=200), radius_deg=1.0, stars=40)
    nowhere = field.meta(ra_deg=None, dec_deg=None)
    found = field.solve(nowhere, scale_low_arcsec=0.4, scale_high_arcsec=0.6)
    assert field.error_px(found) < 0.2
    assert found.used_words["start"] == "blind"
    monkeypatch.setattr(localstart, "BLIND_STARS", 1000)
    with pytest.raises(NoSolution, match="not searched as a whole") as caught:
        field.solve(nowhere)
    assert "centre" in caught.value.hint


def test_a_catalogue_of_all_the_sky_is_not_searched_blindly(tmp_path: Path) -> None:
    field = night(tmp_path)
    rng = np.random.default_rng(1)
    number = len(field.stars["mag_G"])
    wide = field.catalogue(ra_deg=rng.uniform(0, 360, number), dec_deg=rng.uniform(-80, 80, number))
    with pytest.raises(NoSolution, match="wider than"):
        local_solution(field.columns, field.meta(), wide, LocalSettings(header="none"))


def test_a_header_of_1950(tmp_path: Path) -> None:
    old = 150.0, 2.0
    now = to_j2000(*old, 1950.0)
    field = night(tmp_path, system(*now))
    wcs = replace(system(*old), radesys="FK4", equinox=1950.0)
    found = field.solve(field.meta(wcs, ra_deg=None, dec_deg=None), widest_deg=0.0)
    assert field.error_px(found) < 0.2
    assert found.used_words["start"] == "the header's WCS"


def test_a_pointing_of_the_user_and_settings_that_make_no_sense(tmp_path: Path) -> None:
    field = night(tmp_path)
    found = field.solve(field.meta(system(20, 20), ra_deg=20.0), ra_deg=150.0, dec_deg=2.0)
    assert field.error_px(found) < 0.2
    for wrong in (
        {"ra_deg": 3.0},
        {"scale_low_arcsec": 2.0, "scale_high_arcsec": 1.0},
        {"header": "some"},
    ):
        with pytest.raises(BadValue):
            field.solve(field.meta(), **wrong)
    with pytest.raises(UnknownName, match="no band 'V'"):
        field.solve(field.meta(), band="V")


def test_a_plate_of_the_digitized_sky_survey_is_a_start(tmp_path: Path) -> None:
    from astropy.io import fits

    header = fits.getheader(data_path("single-frames/dss-poss1-wcstest.fits.gz"))
    text = [str(card) for card in header.cards]
    both = celestial_wcs([header_from_text("\n".join(text))])
    plain = [one for one in text if not one.startswith(("CTYPE", "CRVAL", "CRPIX", "CDELT", "CD"))]
    plate = celestial_wcs([header_from_text("\n".join(plain))])
    assert both is not None and plate is not None
    assert (both["CTYPE1"], plate["CTYPE1"]) == ("RA---TAN", "RA---TPV")
    x, y = np.meshgrid(np.linspace(1, 353, 9), np.linspace(1, 353, 9))
    away = separation_arcsec(*read_wcs(both).to_sky(x, y), *read_wcs(plate).to_sky(x, y))
    assert np.sqrt((away**2).mean()) < 0.5


# Which stars


def test_what_the_fit_rests_on(tmp_path: Path) -> None:
    field = night(tmp_path)
    bright = np.argsort(-field.columns["FLUX_AUTO_ADU"])
    field.columns["FLAGS"][bright[:6]] = SATURATED
    field.columns["STAR"][bright[6:12]] = 0
    field.columns["FLUX_AUTO_ERROR_ADU"][bright[12:18]] *= 20
    for axis in "XY":
        field.columns[f"{axis}_WIN_PX"][bright[:18]] += 0.7
    found = field.solve(field.meta())
    assert field.error_px(found) < 0.2
    assert not set(found.row.tolist()) & set(bright[:18].tolist())


def test_all_saturated_is_solved_by_what_there_is(tmp_path: Path) -> None:
    field = night(tmp_path)
    field.columns["FLAGS"][:] = SATURATED
    assert not chosen_sources(field.columns).good.any()  # type: ignore[union-attr]
    assert field.error_px(field.solve(field.meta())) < 0.5


def test_motions_bring_stars_to_the_epoch(tmp_path: Path) -> None:
    field = night(tmp_path)
    number, rng = len(field.stars["mag_G"]), np.random.default_rng(4)
    years = 2017.167 - 2000.0
    pm = rng.normal(0, 150, (2, number))
    moved = {
        "ra_deg": field.stars["ra_deg"] - years * pm[0] / 3.6e6 / np.cos(np.radians(field.stars["dec_deg"])),
        "dec_deg": field.stars["dec_deg"] - years * pm[1] / 3.6e6,
        "pm_ra_mas_yr": pm[0],
        "pm_dec_mas_yr": pm[1],
        "epoch_yr": np.full(number, 2000.0),
    }
    found = local_solution(field.columns, field.meta(), field.catalogue(**moved))
    assert found.measures["sig_dra_arcsec"] < 0.04
    assert "epoch" not in found.used_words
    late = local_solution(field.columns, field.meta(obs_start=None), field.catalogue(**moved))
    assert late.measures["rms_arcsec"] > 1
    assert "not known" in late.used_words["epoch"]


def test_the_epoch_is_that_of_the_middle_of_the_exposure() -> None:
    assert epoch_of({"obs_start": "2000-01-01T11:00:00", "exptime_s": 7200.0}) == 2000.0
    assert epoch_of({"obs_start": "2016-01-01T12:00:00.000"}) == pytest.approx(2016.0, abs=0.002)
    assert epoch_of({}) is None and epoch_of({"obs_start": "yesterday"}) is None


@pytest.mark.parametrize("what", ["no epoch", "doubled", "no magnitudes"])
def test_a_catalogue_that_is_not_as_it_should_be(tmp_path: Path, what: str) -> None:
    field = night(tmp_path)
    number = len(field.stars["mag_G"])
    if what == "no epoch":
        field.stars["epoch_yr"] = np.full(number, np.nan)
    elif what == "doubled":
        field.stars = {name: np.r_[one, one] for name, one in field.stars.items()}
    else:
        field.stars["mag_G"] = np.full(number, np.nan)
    found = field.solve(field.meta(system(150.02, 2.02)))
    assert field.error_px(found) < 0.2
    if what == "no epoch":
        assert "all reference stars stay" in found.used_words["epoch"]


def test_trailed_stars(tmp_path: Path) -> None:
    field = night(tmp_path)
    rng = np.random.default_rng(2)
    field.columns["X_WIN_PX"] += rng.normal(0, 1.5, len(field.columns["FLAGS"]))
    field.columns["FWHM_PX"][:] = 12
    assert field.error_px(field.solve(field.meta())) < 4.0


# No solution


def cut(field: Night, number: int) -> None:
    field.columns = {name: one[:number] for name, one in field.columns.items()}


def giant(field: Night) -> None:
    """One galaxy, and the pieces of it that were taken for sources."""
    rng = np.random.default_rng(6)
    x, y = 500 + rng.normal(0, 40, (2, 50))
    field.columns = table(x, y, rng.pareto(1.5, 50) + 1)
    field.columns["STAR"][:] = 0


def elsewhere(field: Night) -> None:
    field.stars["ra_deg"] = field.stars["ra_deg"] + 40


def other_field(field: Night) -> None:
    rng = np.random.default_rng(8)
    number = len(field.stars["mag_G"])
    ra, dec = from_tangent(*rng.uniform(-0.4, 0.4, (2, number)), 150.0, 2.0)
    field.stars |= {"ra_deg": ra, "dec_deg": dec}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda field: cut(field, 0), "0 sources"),
        (lambda field: cut(field, 3), "3 sources"),
        (giant, "no solution for 50 sources"),
        (elsewhere, "0 reference stars"),
        (other_field, "no solution"),
    ],
    ids=["none", "three", "galaxy", "no stars there", "another field"],
)
def test_no_solution_says_why_and_what_would_help(tmp_path: Path, spoil: Any, says: str) -> None:
    field = night(tmp_path)
    spoil(field)
    with pytest.raises(NoSolution, match=says) as caught:
        field.solve(field.meta(system()), widest_deg=0.0)
    assert caught.value.hint and caught.value.exit_code == 6


def test_a_field_far_from_its_header_is_found_and_the_shift_said(tmp_path: Path) -> None:
    field = night(tmp_path, radius_deg=0.2)
    found = field.solve(field.meta(system(190.0, 2.0), ra_deg=190.0))
    assert field.error_px(found) < 0.2
    assert found.measures["shift_arcsec"] == pytest.approx(40 * 3600, rel=0.01)


def test_a_catalogue_that_is_too_shallow_is_named_as_the_reason(tmp_path: Path) -> None:
    field = night(tmp_path)
    bright = np.argsort(field.stars["mag_G"])[:60]
    field.stars = {name: one[bright] for name, one in field.stars.items()}
    with pytest.raises(NoSolution, match=r"about [0-9.]+ stars of the catalogue are in an image") as caught:
        field.solve(field.meta(system()), widest_deg=0.0)
    assert "deeper" in caught.value.hint


def test_a_scale_that_is_wrong_is_refused(tmp_path: Path) -> None:
    field = night(tmp_path, radius_deg=0.2)
    with pytest.raises(NoSolution, match="arcsec/pixel"):
        field.solve(field.meta(pixel_scale_arcsec=2 * SCALE))


def test_a_parity_that_is_wrong_is_righted(tmp_path: Path) -> None:
    field = night(tmp_path, system(mirrored=True))
    found = field.solve(field.meta(system()))
    assert field.error_px(found) < 0.2
    assert found.measures["parity"] == 1
    assert field.error_px(field.solve(field.meta(), parity=1)) < 0.2
    with pytest.raises(NoSolution, match="parity -1"):
        field.solve(field.meta(), parity=-1, widest_deg=0.0)
