"""World coordinates against astropy: every convention, random systems, the headers of the real data."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awetools.core.camera_layout import celestial_wcs
from awetools.core.errors import AweError, BadHeader
from awetools.core.fitsheader import Header, header_from_text
from awetools.core.sky.polynomial import Distortion, Polynomial
from awetools.core.sky.projection import Projection
from awetools.core.sky.readwcs import read_plate, read_wcs
from awetools.core.sky.sphere import separation_arcsec
from awetools.core.sky.wcs import Wcs
from awetools.core.sky.writewcs import INVERSE_PX, wcs_as_cards
from awetools.core.wcscards import matrix, wcs_pixel_scale_arcsec

from .support import data_path

SIZE = 1000
BASE: dict[str, Any] = {
    "CTYPE1": "RA---TAN",
    "CTYPE2": "DEC--TAN",
    "CRVAL1": 150.0,
    "CRVAL2": 30.0,
    "CRPIX1": 480.0,
    "CRPIX2": 520.5,
    "CD1_1": -1e-3,
    "CD1_2": 1e-4,
    "CD2_1": 2e-5,
    "CD2_2": 1.1e-3,
}
DEG, PX = 1e-9, 1e-6


def kind(code: str, **more: Any) -> dict[str, Any]:
    return {**BASE, "CTYPE1": f"RA---{code}", "CTYPE2": f"DEC--{code}", **more}


def without_cd(**more: Any) -> dict[str, Any]:
    return {key: value for key, value in BASE.items() if not key.startswith("CD")} | more


def pixels(nx: int = SIZE, ny: int = SIZE, steps: int = 15) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.meshgrid(np.linspace(0.5, nx + 0.5, steps), np.linspace(0.5, ny + 0.5, steps))
    return x, y


def by_astropy(cards: Mapping[str, Any], x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """RA and Dec, by WCSLIB and astropy's SIP."""
    import logging

    from astropy.io import fits
    from astropy.wcs import WCS

    header = fits.Header()
    logging.getLogger("astropy").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for key, value in cards.items():
            if value is not None and len(key) <= 8 and key not in ("", "COMMENT", "HISTORY"):
                header[key] = value
        found = WCS(header)
        made = found.all_pix2world(x, y, 1)
    return made[found.wcs.lng], made[found.wcs.lat]


def check(cards: Mapping[str, Any], nx: int = SIZE, ny: int = SIZE) -> Wcs:
    """Compare with astropy in both directions."""
    x, y = pixels(nx, ny)
    wcs = read_wcs(cards)
    ra, dec = wcs.to_sky(x, y)
    expected = by_astropy(cards, x, y)
    assert (np.isfinite(ra) == np.isfinite(expected[0])).all()
    assert np.nanmax(separation_arcsec(ra, dec, *expected)) / 3600 <= DEG
    seen = np.isfinite(ra)
    assert (ra[seen] >= 0).all() and (ra[seen] < 360).all()
    back = wcs.to_pixel(*expected)
    assert np.abs(back[0] - x)[seen].max() <= PX and np.abs(back[1] - y)[seen].max() <= PX
    return wcs


SYSTEMS = {
    **{code: kind(code) for code in ("TAN", "SIN", "STG", "ARC", "ZEA", "CAR")},
    **{
        f"{code} turned": kind(code, LONPOLE=33.0, CRVAL2=-20.0)
        for code in ("TAN", "SIN", "STG", "ARC", "ZEA")
    },
    **{
        f"{code} wide": kind(code, CD1_1=0.08, CD2_2=0.08)
        for code in ("TAN", "SIN", "STG", "ARC", "ZEA", "CAR")
    },
    **{f"{code} at the pole": kind(code, CRVAL2=90.0) for code in ("TAN", "ARC", "SIN")},
    **{f"{code} at the south pole": kind(code, CRVAL2=-90.0) for code in ("TAN", "STG", "ZEA")},
    "pole turned": kind("TAN", CRVAL2=90.0, LONPOLE=180.0),
    "pole in the image": kind("TAN", CRVAL2=89.9, CRVAL1=0.0),
    "RA 0": kind("TAN", CRVAL1=0.0, CRVAL2=0.0),
    "RA below 0": kind("TAN", CRVAL1=-10.0),
    "CAR LATPOLE": kind("CAR", CRVAL2=20.0, LATPOLE=-90.0),
    "CAR LONPOLE": kind("CAR", CRVAL2=20.0, LONPOLE=20.0),
    "oblique SIN": kind("SIN", PV2_1=-0.1, PV2_2=0.3, CD1_1=0.05, CD2_2=0.05),
    "NCP": kind("NCP"),
    "ZPN": kind("ZPN", PV2_1=1.0, PV2_3=42.0),
    "ZPN that ends": kind("ZPN", PV2_1=1.0, PV2_3=-50.0, CD1_1=0.02),
    "ZPN of many": kind("ZPN", PV2_0=0.001, PV2_1=0.98, PV2_2=0.01, PV2_3=220.0, PV2_5=1e3),
    "SCAMP's old TAN": kind("TAN", PV1_1=1.0, PV1_5=0.01, PV1_0=0.02, PV2_1=1.0),
    "LONPOLE by PV": kind("TAN", PV1_3=170.0),
    "TPV turned": kind("TPV", PV1_1=1.0, PV2_1=0.99, PV1_4=0.02, PV2_3=0.01, LONPOLE=170.0),
    "SIP without suffix": kind("TAN", A_ORDER=2, B_ORDER=2, A_2_0=1e-5, B_1_1=2e-5, A_0_2=3e-6),
    "SIP of low terms": kind("TAN-SIP", A_ORDER=3, B_ORDER=3, A_2_1=1e-8, B_1_2=2e-8, A_0_0=3.0, A_1_0=0.01),
    "SIP of STG": kind("STG-SIP", A_ORDER=2, B_ORDER=2, A_2_0=1e-6, B_1_1=2e-6),
    "SIP and PV": kind("TAN-SIP", A_ORDER=2, B_ORDER=2, A_2_0=1e-6, PV1_1=1.0, PV1_5=0.1, PV2_1=1.0),
    "axes swapped": {**BASE, "CTYPE1": "DEC--TAN", "CTYPE2": "RA---TAN", "CRVAL1": 30.0, "CRVAL2": 150.0},
    "arcsec": kind("TAN", CUNIT1="arcsec", CUNIT2="arcsec", CD1_1=-3.6, CD2_2=3.6),
    "PC": without_cd(PC1_1=0.9, PC1_2=0.1, PC2_1=-0.1, PC2_2=0.9, CDELT1=-1e-3, CDELT2=1e-3),
    "PC alone": without_cd(PC1_1=-1e-3, PC2_2=1e-3),
    "CROTA": without_cd(CDELT1=-1e-3, CDELT2=1.1e-3, CROTA2=20.0),
    "whole numbers": kind("TAN", CRVAL1=150, CRVAL2=30),
    "of a table": without_cd(CDELT1=-1e-3, CDELT2=1.1e-3, CROTA2=20.0, PCOUNT=0),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_convention_is_read_as_astropy_reads_it(name: str) -> None:
    check(SYSTEMS[name])


# Degree of each term of TPV: those with powers of x and y, then the power of the radius after the odd ones.
DEGREES = [n for n in range(8) for _ in range(n + 1 + n % 2)]
FINITE = {"allow_nan": False, "allow_infinity": False}


@st.composite
def systems(draw: st.DrawFn) -> dict[str, Any]:
    scale = draw(st.floats(1e-5, 5e-4))
    angle = draw(st.floats(0, 2 * math.pi))
    flip = draw(st.sampled_from([-1, 1]))
    cards = {
        **BASE,
        "CRVAL1": draw(st.floats(0, 360, **FINITE)),
        "CRVAL2": draw(st.floats(-90, 90, **FINITE)),
        "CRPIX1": draw(st.floats(-2000, 3000)),
        "CRPIX2": draw(st.floats(-2000, 3000)),
        "CD1_1": flip * scale * math.cos(angle),
        "CD1_2": -scale * math.sin(angle),
        "CD2_1": flip * scale * math.sin(angle),
        "CD2_2": scale * math.cos(angle),
    }
    reach = 4000 * scale
    form = draw(st.sampled_from(["TAN", "SIP", "TPV", "ZPN", "SIN", "STG", "ARC", "ZEA"]))
    cards |= {"CTYPE1": f"RA---{form}", "CTYPE2": f"DEC--{form}"}
    small = st.floats(-1, 1).map(lambda one: round(one, 3))
    if form == "TPV":
        cards |= {"PV1_1": 1.0, "PV2_1": 1.0}
        for axis in (1, 2):
            for number in draw(st.sets(st.integers(2, 39), max_size=12)):
                degree = DEGREES[number]
                cards[f"PV{axis}_{number}"] = draw(small) * 1e-3 / max(reach, 1.0) ** degree
    if form == "SIP":
        cards |= {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 4, "B_ORDER": 4}
        for letter in "AB":
            for p, q in ((2, 0), (1, 1), (0, 2), (3, 0), (2, 1), (1, 2), (0, 3), (4, 0), (2, 2)):
                cards[f"{letter}_{p}_{q}"] = draw(small) * 4.0 / 4000 ** (p + q)
    if form == "ZPN":
        cards |= {"PV2_1": 1 + 0.01 * draw(small), "PV2_3": 3 * draw(small), "PV2_5": 3 * draw(small)}
    return cards


@settings(deadline=None, max_examples=150)
@given(systems())
def test_random_systems_are_read_as_astropy_reads_them(cards: dict[str, Any]) -> None:
    wcs = check(cards)
    again = read_wcs(wcs_as_cards(wcs))
    assert again == wcs
    assert hash(again) == hash(wcs)


def test_all_forty_terms_of_tpv() -> None:
    rng = np.random.default_rng(1)
    terms = {f"PV{axis}_{m}": float(rng.normal(0, 1e-2)) for axis in (1, 2) for m in range(40)}
    wcs = check(kind("TPV", **(terms | {"PV1_1": 1.01, "PV2_1": 0.99})))
    assert wcs.distortion is not None and wcs.distortion.degree == 7
    assert read_wcs(wcs_as_cards(wcs)) == wcs


# Real headers

WITHOUT_SYSTEM = ("PIXEL", "DETECTOR", "TNX", "CTYPE '' ''", "neither a CD matrix", "is missing")


def dumps() -> list[Path]:
    folder = data_path("headers")
    return sorted(one for one in folder.iterdir() if one.suffix in (".hdr", ".head", ".txt", ".json"))


def test_real_headers_agree_with_astropy() -> None:
    read, refused = 0, []
    for path in dumps():
        if path.suffix == ".json":
            cards = json.loads(path.read_text())
        else:
            cards = dict(header_from_text(path.read_text(errors="replace")))
        if not isinstance(cards, dict) or "CTYPE1" not in cards:
            continue
        # WCSLIB is handed the two axes of the sky only.
        cards = {
            key: value
            for key, value in cards.items()
            if not (
                key[:2] in ("CT", "CR", "CD", "CU", "PC")
                and key.rstrip("0123456789_")[-1:]
                and key[-1:] in "34"
            )
            and key not in ("NAXIS", "WCSAXES", "NAXIS3", "NAXIS4")
        }
        try:
            read_wcs(cards)
        except BadHeader as error:
            assert any(one in error.message for one in WITHOUT_SYSTEM), (path.name, error.message)
            refused.append(path.name)
            continue
        check(cards, int(cards.get("NAXIS1") or 2048), int(cards.get("NAXIS2") or 2048))
        read += 1
    assert read >= 20, refused


@pytest.mark.parametrize(
    "pattern",
    [
        "single-frames/*lco*.fits*",
        "single-frames/alfosc*.fz",
        "single-frames/isaac*.gz",
        "single-frames/dfosc*.fz",
        "legacysurvey-cutouts/field*/*oi_*.fits",
        "legacysurvey-cutouts/field*/deep2?_ra352_?-ccd?.fits",
    ],
)
def test_real_frames_agree_with_astropy(pattern: str) -> None:
    from astropy.io import fits

    folder, _, rest = pattern.partition("/")
    found = sorted(data_path(folder).glob(rest))
    assert found
    for path in found:
        with fits.open(path) as hdus, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = next(one.header for one in hdus if "CTYPE1" in one.header and one.header["NAXIS"] == 2)
            check(dict(header), header["NAXIS1"], header["NAXIS2"])


def test_a_system_kept_as_meta_keeps_it_is_the_same() -> None:
    path = data_path("headers/ztf-sciimg.hdr")
    header = header_from_text(path.read_text())
    kept = celestial_wcs([header])
    assert kept is not None
    assert read_wcs(kept) == read_wcs(header)


@pytest.mark.parametrize("name", ["dss-poss1-wcstest", "dss-ukst-test1"])
def test_plates_of_the_digitized_sky_survey(name: str) -> None:
    from astropy.io import fits

    header = dict(fits.getheader(data_path(f"single-frames/{name}.fits.gz")))
    nx, ny = header["NAXIS1"], header["NAXIS2"]
    x, y = pixels(nx, ny)
    plate = read_plate(header)
    ra, dec = plate.to_sky(x, y)
    # WCSLIB takes the plate solution as well, wherever there is one.
    assert separation_arcsec(ra, dec, *by_astropy(header, x, y)).max() < 1e-6
    # The header's own TAN has no shear: it is off where the plate has one, in two corners.
    away = separation_arcsec(ra, dec, *read_wcs(header).to_sky(x, y))
    assert np.sqrt((away**2).mean()) < 0.5 and away.max() < 0.7
    back = plate.to_pixel(ra, dec)
    assert np.abs(back[0] - x).max() < PX and np.abs(back[1] - y).max() < PX
    for form in ("TPV", "SIP"):
        again = read_wcs(wcs_as_cards(plate, form, (ny, nx)))
        assert separation_arcsec(ra, dec, *again.to_sky(x, y)).max() < 1e-6
    alone = {
        key: value for key, value in header.items() if key[:5] not in ("CTYPE", "CRVAL", "CRPIX", "CDELT")
    }
    assert read_wcs(alone) == plate


def test_a_plate_south_of_the_equator() -> None:
    cards = {
        "PLTRAH": 1,
        "PLTRAM": 0,
        "PLTRAS": 0.0,
        "PLTDECSN": "-",
        "PLTDECD": 0,
        "PLTDECM": 30,
        "PLTDECS": 0.0,
    }
    cards |= {"XPIXELSZ": 25.0, "YPIXELSZ": 25.0, "PPO3": 25e3, "PPO6": 25e3, "CNPIX1": 0, "CNPIX2": 0}
    wcs = read_plate({**cards, "AMDX1": 67.2, "AMDY1": 67.2})
    assert wcs.crval_deg == (15.0, -0.5)
    assert np.allclose(wcs.to_sky(1000.5, 1000.5), (15.0, -0.5), atol=1e-12)
    with pytest.raises(BadHeader, match="AMDX1"):
        read_plate({**cards, "AMDX1": 0.0, "AMDY1": 67.2})
    with pytest.raises(BadHeader, match="PPO3"):
        read_plate({"PLTRAH": 1})


# What is refused


@pytest.mark.parametrize(
    ("cards", "said"),
    [
        (kind("XYZ"), "RA---XYZ"),
        (kind("COE"), "needs PV2_1"),
        (kind("COE", PV2_1=0.0), "cannot be"),
        (kind("CEA", PV2_4=1.0), "no parameter PV2_4"),
        (kind("AIT", PV1_2=80.0), "PV1_2"),
        (kind("TNX"), "RA---TNX"),
        ({**BASE, "CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"}, "GLON-TAN"),
        ({**BASE, "CTYPE2": "DEC--SIN"}, "DEC--SIN"),
        ({}, "CTYPE"),
        (kind("ZPN"), "PV2_1"),
        (kind("TPV", PV1_45=0.1), "PV1_45"),
        (kind("TAN", CRVAL1="150"), "CRVAL1"),
        (kind("TAN", CRVAL2=95.0), "declination 95"),
        (kind("TAN", CRVAL1=float("nan")), "finite"),
        (kind("TAN", CRPIX1=None), "CRPIX1"),
        (kind("TAN", CUNIT1="pixel"), "CUNIT1"),
        (kind("TAN", CD1_1=0.0, CD1_2=0.0), "CD matrix"),
        (kind("TAN", PV1_1=0.0, PV1_2=80.0), "PV1_2"),
        (kind("CAR", LONPOLE=140.0), "LONPOLE"),
        (kind("CAR", CRVAL2=90.0, LONPOLE=180.0), "declination 90"),
        (kind("TAN-SIP", A_ORDER=10, A_10_0=1e-9), "A_10_0"),
        (without_cd(), "CDELT"),
        (kind("NCP", CRVAL2=0.0), "NCP"),
    ],
)
def test_what_cannot_be_read_is_said(cards: dict[str, Any], said: str) -> None:
    with pytest.raises(BadHeader, match=said):
        read_wcs(cards)


def test_a_linear_term_of_tpv_that_is_missing_is_1() -> None:
    bare = read_wcs(kind("TPV"))
    assert np.allclose(bare.to_sky(1.0, 2.0), read_wcs(BASE).to_sky(1.0, 2.0), atol=1e-12, rtol=0)


def test_the_system_of_ra_and_dec_is_carried() -> None:
    assert (read_wcs(BASE).radesys, read_wcs(BASE).equinox) == ("ICRS", None)
    assert read_wcs({**BASE, "EQUINOX": 1950}).radesys == "FK4"
    assert read_wcs({**BASE, "EPOCH": 2000.0}).radesys == "FK5"
    assert read_wcs({**BASE, "RADECSYS": "fk5 ", "EQUINOX": 2000.0}).radesys == "FK5"
    assert wcs_as_cards(read_wcs({**BASE, "EQUINOX": 1950}))["EQUINOX"] == 1950.0


# The inverse


def test_what_is_behind_is_not_shown() -> None:
    x, y = read_wcs(BASE).to_pixel([330.0, 150.0, 60.0], [-30.0, 30.0, 0.0])
    assert np.isnan(x).tolist() == [True, False, True] and np.isnan(y).tolist() == [True, False, True]
    assert np.isnan(read_wcs(BASE).to_pixel(np.nan, 30.0)).all()
    for name in ("SIN", "oblique SIN"):
        assert np.isnan(read_wcs(SYSTEMS[name]).to_pixel(330.0, -20.0)).all()


def test_stars_far_outside_do_not_come_back_through_a_fold() -> None:
    # Here the radius u - 1e-7 u^3 has its greatest value at 1826 pixels, and comes back to 0 at 3162.
    cards = kind("TAN-SIP", A_ORDER=3, B_ORDER=3, A_3_0=-1e-7, A_1_2=-1e-7, B_0_3=-1e-7, B_2_1=-1e-7)
    wcs = read_wcs(cards)
    rng = np.random.default_rng(3)
    ra, dec = replace(wcs, distortion=None).to_sky(*rng.uniform(-40000, 40000, (2, 20000)))
    x, y = wcs.to_pixel(ra, dec)
    found = np.isfinite(x)
    again = wcs.to_sky(x[found], y[found])
    assert separation_arcsec(*again, ra[found], dec[found]).max() < 1e-6
    assert np.hypot(x[found] - 480, y[found] - 520.5).max() < 1830
    inside = np.hypot(*(np.array(pixels()) - np.array([480, 520.5])[:, None, None])) < 1700
    back = wcs.to_pixel(*wcs.to_sky(*pixels()))
    assert np.isfinite(back[0][inside]).all()


def test_shapes_and_empty_columns() -> None:
    wcs = read_wcs(BASE)
    assert [one.shape for one in wcs.to_sky(1.0, 2.0)] == [(), ()]
    assert [one.shape for one in wcs.to_sky(np.ones((3, 1)), np.ones(4))] == [(3, 4), (3, 4)]
    assert [one.shape for one in wcs.to_pixel([], [])] == [(0,), (0,)]
    whole = wcs.to_sky(np.arange(30000) / 30, 5.0)
    assert whole[0][29999] == wcs.to_sky(29999 / 30, 5.0)[0]


def test_planes_go_both_ways() -> None:
    wcs = read_wcs(SYSTEMS["TPV turned"])
    x, y = pixels()
    back = wcs.from_plane(*wcs.to_plane(x, y))
    assert np.allclose(back[0], x, atol=PX, rtol=0) and np.allclose(back[1], y, atol=PX, rtol=0)


# What it is like


@given(
    st.floats(0, 359.9),
    st.floats(-89, 89),
    st.sampled_from([-1, 1]),
    st.floats(0, 359.9),
    st.floats(-180, 180),
)
def test_scale_parity_and_angle(turn: float, dec: float, parity: int, ra: float, lonpole: float) -> None:
    scale, angle = 1e-4, math.radians(turn)
    # +y points to the angle, +x is 90 degrees to its right as the sky is seen: west of north.
    made = Wcs(
        (ra, dec),
        (10.0, 20.0),
        (
            parity * scale * math.cos(angle),
            scale * math.sin(angle),
            -parity * scale * math.sin(angle),
            scale * math.cos(angle),
        ),
        lonpole_deg=180 + lonpole,
    )
    assert made.pixel_scale_arcsec == pytest.approx(0.36)
    assert made.parity == parity
    assert abs((made.position_angle_deg - turn - lonpole + 180) % 360 - 180) < 1e-6
    local = made.jacobian(10.0, 20.0)
    assert np.linalg.det(local) == pytest.approx(parity * scale * scale, rel=1e-6)
    assert (
        math.degrees(math.atan2(local[0, 1], local[1, 1])) % 360
        == pytest.approx(made.position_angle_deg, abs=1e-5)
        or abs(made.position_angle_deg - 360) < 1e-4
        or made.position_angle_deg < 1e-4
    )


def test_scale_counts_all_linear_parts() -> None:
    assert read_wcs(kind("TPV", PV1_1=2.0, PV2_1=1.0)).pixel_scale_arcsec == pytest.approx(
        math.sqrt(2) * read_wcs(BASE).pixel_scale_arcsec
    )
    shown = read_wcs(kind("ZPN", PV2_1=2.0, PV2_3=1.0))
    assert shown.pixel_scale_arcsec == pytest.approx(read_wcs(BASE).pixel_scale_arcsec / 2)
    assert read_wcs(BASE).pixel_scale_arcsec == pytest.approx(wcs_pixel_scale_arcsec(BASE))


def test_areas_of_pixels_are_those_of_the_sphere() -> None:
    # The area of a pixel of TAN goes as the cube of the cosine of its distance, that of ZEA nowhere.
    wide = {"CD1_1": -0.05, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.05}
    plain = read_wcs(kind("TAN", **wide))
    away = math.atan(math.radians(0.05 * 400))
    assert plain.pixel_area_arcsec2(480.0, 920.5) == pytest.approx(180**2 * math.cos(away) ** 3, rel=1e-5)
    equal = read_wcs(kind("ZEA", **wide)).pixel_area_arcsec2(*pixels())
    assert np.allclose(equal, 180**2, rtol=1e-6)


# Cards of it


def test_one_form_of_distortion_is_the_other() -> None:
    x, y = pixels()
    for name in ("SIP without suffix", "SIP of low terms", "SCAMP's old TAN"):
        wcs = read_wcs(SYSTEMS[name])
        sky = wcs.to_sky(x, y)
        for form in ("SIP", "TPV"):
            cards = wcs_as_cards(wcs, form, (SIZE, SIZE))
            assert str(cards["CTYPE1"]).endswith(form)
            assert separation_arcsec(*sky, *by_astropy(cards, x, y)).max() < 1e-6
            assert read_wcs(wcs_as_cards(read_wcs(cards), form)) == read_wcs(cards)


@pytest.mark.parametrize("strength", [1e-6, 3e-5, 1e-4])
def test_the_inverse_of_sip_is_written_where_it_is_good(strength: float) -> None:
    from astropy.io import fits
    from astropy.wcs import WCS

    wcs = read_wcs(kind("TAN-SIP", A_ORDER=2, B_ORDER=2, A_2_0=strength, B_1_1=strength, A_0_2=-strength))
    cards = wcs_as_cards(wcs, "SIP", (SIZE, SIZE))
    assert "AP_ORDER" in cards
    x, y = pixels()
    found = WCS(fits.Header({key: cards[key] for key in cards if key not in ("RADESYS",)}))
    offsets = found.sip.pix2foc(np.column_stack([x.ravel(), y.ravel()]), 1)
    back = found.sip.foc2pix(offsets, 1)
    assert np.hypot(back[:, 0] - x.ravel(), back[:, 1] - y.ravel()).max() <= INVERSE_PX


def test_an_inverse_of_sip_that_is_not_good_is_left_out() -> None:
    folded = read_wcs(kind("TAN-SIP", A_ORDER=2, B_ORDER=2, A_2_0=1.2e-3))
    cards = wcs_as_cards(folded, "SIP", (SIZE, SIZE))
    assert "A_2_0" in cards and not any(key.startswith(("AP_", "BP_")) for key in cards)


def test_what_a_form_cannot_say_is_refused() -> None:
    with pytest.raises(BadHeader, match="STG"):
        wcs_as_cards(read_wcs(SYSTEMS["SIP of STG"]), "TPV")
    with pytest.raises(BadHeader, match="powers of r"):
        wcs_as_cards(read_wcs(SYSTEMS["TPV turned"]), "SIP")
    with pytest.raises(BadHeader, match="TNX"):
        wcs_as_cards(read_wcs(SYSTEMS["SCAMP's old TAN"]), "TNX")
    high = Distortion(Polynomial.of({(1, 0): 1.0, (8, 0): 1e-20}), Polynomial.of({(0, 1): 1.0}), before=True)
    with pytest.raises(BadHeader, match="degree 8"):
        wcs_as_cards(replace(read_wcs(BASE), distortion=high), "TPV")
    highest = Distortion(
        Polynomial.of({(1, 0): 1.0, (10, 0): 1e-20}), Polynomial.of({(0, 1): 1.0}), before=True
    )
    with pytest.raises(BadHeader, match="degree 10"):
        wcs_as_cards(replace(read_wcs(BASE), distortion=highest), "SIP")


def test_cards_of_every_system_are_read_back_equal() -> None:
    for name, cards in SYSTEMS.items():
        wcs = read_wcs(cards)
        if name != "SIP of low terms":
            assert read_wcs(wcs_as_cards(wcs)) == wcs, name
        # Through the text of a header too.
        written = Header.from_pairs(wcs_as_cards(wcs).items())
        assert read_wcs(written) == read_wcs(wcs_as_cards(wcs)), name


# The linear part


def test_the_linear_part_of_other_cards() -> None:
    assert matrix({"PC1_1": 1.0, "PC2_2": 2.0}) == (1.0, 0.0, 0.0, 2.0)
    assert matrix({"CDELT1": -1.0, "CDELT2": 1.0, "PCOUNT": 0.0}) == (-1.0, 0.0, 0.0, 1.0)
    assert matrix({"CDELT1": -1.0}) is None
    assert matrix({"CD1_1": 1.0}) is None


def test_errors_are_deliberate() -> None:
    assert issubclass(BadHeader, AweError)
    assert Projection("TAN").zenithal and not Projection("CAR").zenithal


@pytest.mark.parametrize(
    "name", ["TAN", "SIN", "ZPN that ends", "ARC", "CAR", "TPV turned", "SIP of low terms"]
)
def test_nonsense_is_nan_without_a_warning(name: str) -> None:
    # Warnings are errors in these tests.
    wcs = read_wcs(SYSTEMS[name])
    bad = np.array([np.nan, np.inf, -np.inf, 1e300])
    for one, other in (wcs.to_sky(bad, 1.0), wcs.to_pixel(bad[:3], 1.0), wcs.to_pixel(150.0, bad[:3])):
        assert np.isnan(one[:3]).all() and np.isnan(other[:3]).all()


@given(st.floats(-3, 3), st.floats(-3, 3))
def test_slopes_are_those_of_the_values(u: float, v: float) -> None:
    one = Polynomial.of({(0, 0): 1.0, (2, 1): 0.3, (0, 3): -0.2, (4, 0): 0.01}, {1: 0.5, 3: 0.1, 5: 0.01})
    h = 1e-5
    at = np.array([u, u + h, u - h, u, u]), np.array([v, v, v, v + h, v - h])
    value = one.value(*at)
    to_u, to_v = one.slopes(*at)
    # Nearer to the centre the radial terms bend too much for differences.
    if math.hypot(u, v) > 0.05:
        assert (value[1] - value[2]) / (2 * h) == pytest.approx(to_u[0], abs=1e-6)
        assert (value[3] - value[4]) / (2 * h) == pytest.approx(to_v[0], abs=1e-6)
    exact = (
        1
        + 0.3 * u * u * v
        - 0.2 * v**3
        + 0.01 * u**4
        + sum(c * math.hypot(u, v) ** n for n, c in ((1, 0.5), (3, 0.1), (5, 0.01)))
    )
    assert value[0] == pytest.approx(exact, rel=1e-12)
    assert one.slopes(np.zeros(1), np.zeros(1))[0][0] == 0
