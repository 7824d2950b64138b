"""Coordinate systems from header cards, in each of the conventions that headers use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..distortion import Matrix, has_sip, sip_offsets, tpv_number
from ..errors import BadHeader, BadValue
from ..wcscards import matrix
from .polynomial import Distortion, Polynomial
from .projection import Projection
from .projections import CODES, OWN, PROJECTIONS, parameters_of
from .wcs import Wcs

HIGHEST_SIP_DEGREE, HIGHEST_TPV_DEGREE = 9, 7
ZPN_PARAMETERS = 30
HINT = "awe-export --for ds9 copies the coordinates as they are"

_UNITS_DEG = {"": 1.0, "DEG": 1.0, "DEGREE": 1.0, "DEGREES": 1.0, "ARCMIN": 1 / 60, "ARCSEC": 1 / 3600}
_POWERS = {
    tpv_number(p, degree - p): (p, degree - p)
    for degree in range(HIGHEST_TPV_DEGREE + 1)
    for p in range(degree + 1)
}
# The number that follows those of an odd degree is a power of the radius.
_RADIAL = {tpv_number(0, n) + 1: n for n in range(1, HIGHEST_TPV_DEGREE + 1, 2)}
_PLATE_KEYS = (
    "PLTRAH",
    "PLTDECD",
    "XPIXELSZ",
    "YPIXELSZ",
    "PPO3",
    "PPO6",
    "CNPIX1",
    "CNPIX2",
    "AMDX1",
    "AMDY1",
)
# The terms of the plate solution by their number: powers of the coefficient's own axis and the other one.
_PLATE_TERMS: dict[int, Mapping[tuple[int, int], float]] = {
    1: {(1, 0): 1.0},
    2: {(0, 1): 1.0},
    3: {(0, 0): 1.0},
    4: {(2, 0): 1.0},
    5: {(1, 1): 1.0},
    6: {(0, 2): 1.0},
    7: {(2, 0): 1.0, (0, 2): 1.0},
    8: {(3, 0): 1.0},
    9: {(2, 1): 1.0},
    10: {(1, 2): 1.0},
    11: {(0, 3): 1.0},
    12: {(3, 0): 1.0, (1, 2): 1.0},
    13: {(5, 0): 1.0, (3, 2): 2.0, (1, 4): 1.0},
}

Cards = Mapping[str, Any]


def read_wcs(cards: Cards) -> Wcs:
    """The coordinate system that cards give: of a file's header, or as `meta["wcs"]` keeps them.

    Any projection of RA and Dec, and NCP, with CD, PC and CDELT or CROTA2; SIP; TPV, and TAN with
    PV terms on the second axis or beyond 4, as old SCAMPs wrote it; where there is no CTYPE, the plate
    keywords of the Digitized Sky Survey. A missing linear term of TPV is 1, as its registration says. SIP
    terms count with or without the suffix of CTYPE; where there are PV terms as well, the suffix decides.
    Raises BadHeader, naming CTYPE, for all else.
    """
    given = {str(key).upper(): _canonical(value) for key, value in cards.items()}
    types = [str(given.get(f"CTYPE{axis}", "") or "").upper().rstrip() for axis in (1, 2)]
    if not any(types) and is_plate(given):
        return read_plate(given)
    lon, lat = _axes(types)
    code = types[lon][5:8]
    linear = _matrix(given, types, lon)
    reference = [_number(given, f"CRVAL{axis}") for axis in (1, 2)]
    units = [_unit_deg(given, axis) for axis in (1, 2)]
    crval = reference[lon] * units[lon], reference[lat] * units[lat]
    rows = [[one * units[axis] for one in linear[2 * axis : 2 * axis + 2]] for axis in (0, 1)]
    distortion, code, parameters = _distortion(given, types, code, lon + 1, lat + 1)
    if code == "NCP":
        code, parameters = "SIN", (0.0, 0.0, _slant_of_ncp(crval[1]))
    projection = Projection(code, parameters)
    lonpole, latpole = _poles(given, projection, lon + 1, lat + 1, crval[1])
    radesys, equinox = _system(given)
    return Wcs(
        crval_deg=crval,
        crpix=(_number(given, "CRPIX1"), _number(given, "CRPIX2")),
        matrix=(rows[lon][0], rows[lon][1], rows[lat][0], rows[lat][1]),
        projection=projection,
        distortion=distortion,
        lonpole_deg=lonpole,
        latpole_deg=latpole,
        radesys=radesys,
        equinox=equinox,
    )


def _canonical(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def _number(cards: Cards, key: str, default: float | None = None) -> float:
    value = cards.get(key)
    if isinstance(value, float):
        return value
    if default is not None and value is None:
        return default
    what = "is missing" if value is None else f"= {value!r} is not a number"
    raise BadHeader(f"{key} {what}: the coordinate system (WCS) is incomplete")


def _axes(types: list[str]) -> tuple[int, int]:
    """Which axis is RA and which Dec, 0 or 1."""
    for lon, lat in ((0, 1), (1, 0)):
        if types[lon].startswith("RA--") and types[lat].startswith("DEC-"):
            if types[lon][5:8] != types[lat][5:8]:
                break
            if types[lon][5:8] in (*CODES, "TPV", "NCP"):
                return lon, lat
    said = " ".join(repr(one) for one in types)
    raise BadHeader(f"CTYPE {said}: not a coordinate system (WCS) that can be read", hint=HINT)


def _matrix(cards: Cards, types: list[str], lon: int) -> Matrix:
    linear = matrix(cards)
    turned = any(cards.get(f"CROTA{axis}") for axis in (1, 2))
    if lon == 1 and turned and not any(key[:2] in ("CD", "PC") and "_" in key for key in cards):
        raise BadHeader(f"CTYPE {' '.join(types)} with CROTA: the sense of the rotation cannot be told")
    if linear is None:
        raise BadHeader(f"CTYPE {' '.join(types)}: neither a CD matrix nor CDELT that makes sense is given")
    return linear


def _unit_deg(cards: Cards, axis: int) -> float:
    unit = str(cards.get(f"CUNIT{axis}") or "").strip().upper()
    if unit not in _UNITS_DEG:
        raise BadHeader(f"CUNIT{axis} = {unit!r}: coordinates in degrees were expected")
    return _UNITS_DEG[unit]


def _system(cards: Cards) -> tuple[str, float | None]:
    """RADESYS and the equinox, by the rules of paper II, section 3.1, where they are missing."""
    named = cards.get("RADESYS") or cards.get("RADECSYS")
    year = cards.get("EQUINOX", cards.get("EPOCH"))
    equinox = year if isinstance(year, float) and year > 0 else None
    if isinstance(named, str) and named.strip():
        return named.strip().upper(), equinox
    if equinox is None:
        return "ICRS", None
    return ("FK4" if equinox < 1984 else "FK5"), equinox


# Distortion and projection


def _distortion(
    cards: Cards, types: list[str], code: str, lon: int, lat: int
) -> tuple[Distortion | None, str, tuple[float, ...]]:
    """The distortion, the projection behind it and its parameters; axes from 1."""
    terms = {axis: _parameters(cards, axis) for axis in (lon, lat)}
    sip = has_sip(cards)
    suffix = any(one.endswith("-SIP") for one in types)
    if sip and (suffix or code != "TAN" or not _is_tpv(terms[lon], terms[lat])):
        x, y = sip_offsets(cards, HIGHEST_SIP_DEGREE)
        made = Distortion(Polynomial.of(x), Polynomial.of(y), before=True)
        return made, code, () if code == "TAN" else _projection(code, terms[lat])
    if code == "TPV" or (code == "TAN" and not suffix and _is_tpv(terms[lon], terms[lat])):
        return _tpv(terms[lon], terms[lat], lon, lat), "TAN", ()
    return None, code, () if code == "TAN" else _projection(code, terms[lat])


def _parameters(cards: Cards, axis: int) -> dict[int, float]:
    prefix = f"PV{axis}_"
    return {
        int(key[4:]): value
        for key, value in cards.items()
        if key.startswith(prefix) and key[4:].isdecimal() and isinstance(value, float)
    }


def _is_tpv(lon: Mapping[int, float], lat: Mapping[int, float]) -> bool:
    """Whether the parameters of TAN are a polynomial: it has none on its second axis, and 4 on the first."""
    return bool(lat) or any(number > 4 for number in lon)


def _tpv(first: Mapping[int, float], second: Mapping[int, float], lon: int, lat: int) -> Distortion:
    # The second axis has its own coordinate first.
    x = _tpv_polynomial(first, f"PV{lon}_", swapped=False)
    y = _tpv_polynomial(second, f"PV{lat}_", swapped=True)
    return Distortion(x, y, before=False)


def _tpv_polynomial(terms: Mapping[int, float], prefix: str, swapped: bool) -> Polynomial:
    powers: dict[tuple[int, int], float] = {}
    radial: dict[int, float] = {}
    for number, value in {1: 1.0, **terms}.items():
        if number in _RADIAL:
            radial[_RADIAL[number]] = value
        elif number in _POWERS:
            p, q = _POWERS[number]
            powers[(q, p) if swapped else (p, q)] = value
        elif value:
            raise BadHeader(f"{prefix}{number} = {value:g}: TPV has terms from 0 to {max(_RADIAL)}")
    return Polynomial.of(powers, radial)


def _projection(code: str, terms: Mapping[int, float]) -> tuple[float, ...]:
    if code in PROJECTIONS and code not in OWN:
        try:
            return parameters_of(code, {number: value for number, value in terms.items() if number})
        except BadValue as error:
            raise BadHeader(f"CTYPE {code}: {error.message}") from None
    if code not in ("ZPN", "SIN"):
        return ()
    last = max((number for number, value in terms.items() if value), default=-1)
    if code == "ZPN" and not 1 <= last < ZPN_PARAMETERS:
        raise BadHeader(f"CTYPE ZPN with terms up to PV2_{last}: it needs some of PV2_1 to PV2_29")
    return tuple(terms.get(number, 0.0) for number in range(last + 1))


def _slant_of_ncp(dec_deg: float) -> float:
    """The old projection of east-west arrays, as SIN: paper II, section 6.1.3."""
    if dec_deg == 0:
        raise BadHeader("CTYPE NCP at declination 0, where this projection has no scale")
    return 1 / math.tan(math.radians(dec_deg))


def _poles(cards: Cards, projection: Projection, lon: int, lat: int, dec_deg: float) -> tuple[float, float]:
    """LONPOLE and LATPOLE, which PVi_3 and PVi_4 of the longitude override where they are not terms of TPV."""
    code, native = projection.code, projection.native_dec_deg
    own = (
        {}
        if code == "TAN" and _is_tpv(_parameters(cards, lon), _parameters(cards, lat))
        else _parameters(cards, lon)
    )
    if own.get(0) or own.get(1) or own.get(2, native) != native:
        raise BadHeader(
            f"CTYPE {code} with a reference point of its own (PV{lon}_1, PV{lon}_2) cannot be read", hint=HINT
        )
    usual = 0.0 if dec_deg >= native else 180.0
    return own.get(3, _number(cards, "LONPOLE", usual)), own.get(4, _number(cards, "LATPOLE", 90.0))


# Photographic plates


def is_plate(cards: Cards) -> bool:
    """Whether cards hold the plate solution of the Digitized Sky Survey."""
    return all(key in cards for key in _PLATE_KEYS)


def read_plate(cards: Cards) -> Wcs:
    """The plate solution of the Digitized Sky Survey: a polynomial of plate coordinates, tangent at the plate's centre.

    It is good to some 0.5 arcsec. As a distortion behind the matrix it is written as TPV.
    Source: STScI, GetImage documentation of the Digitized Sky Survey (1994); its terms 14
    to 20, of magnitude and colour, do not count. Raises BadHeader where a keyword is missing.
    """
    given = {str(key).upper(): _canonical(value) for key, value in cards.items()}
    if not is_plate(given):
        missing = " ".join(key for key in _PLATE_KEYS if key not in given)
        raise BadHeader(f"not a plate solution of the Digitized Sky Survey: {missing} missing")
    x_mm, y_mm = (_number(given, f"{axis}PIXELSZ") / 1000 for axis in "XY")
    scale = abs(_number(given, "AMDX1")) / 3600
    if not (scale and x_mm and y_mm):
        raise BadHeader("AMDX1, XPIXELSZ or YPIXELSZ of the plate solution is 0")
    # The pixel of plate coordinates (0, 0).
    crpix = tuple(
        _number(given, f"PPO{ppo}") / 1000 / size - _number(given, f"CNPIX{axis}") + 0.5
        for ppo, axis, size in ((3, 1, x_mm), (6, 2, y_mm))
    )
    x = _plate_terms(given, "AMDX", scale)
    y = {(q, p): value for (p, q), value in _plate_terms(given, "AMDY", scale).items()}
    ra = 15 * (
        _number(given, "PLTRAH") + _number(given, "PLTRAM", 0) / 60 + _number(given, "PLTRAS", 0) / 3600
    )
    dec = sum(_number(given, f"PLTDEC{part}", 0) / by for part, by in (("D", 1), ("M", 60), ("S", 3600)))
    sign = -1 if str(given.get("PLTDECSN", "+")).strip() == "-" else 1
    return Wcs(
        crval_deg=(ra, sign * dec),
        crpix=(crpix[0], crpix[1]),
        matrix=(-x_mm * scale, 0.0, 0.0, y_mm * scale),
        distortion=Distortion(Polynomial.of(x), Polynomial.of(y), before=False),
        radesys="FK5",
        equinox=2000.0,
    )


def _plate_terms(cards: Cards, prefix: str, scale: float) -> dict[tuple[int, int], float]:
    """Coefficients in degrees, of plate coordinates that are scaled to degrees too."""
    made: dict[tuple[int, int], float] = {}
    for number, parts in _PLATE_TERMS.items():
        value = _number(cards, f"{prefix}{number}", 0) / 3600
        for (p, q), factor in parts.items():
            made[p, q] = made.get((p, q), 0.0) + value * factor / scale ** (p + q)
    return made
