"""The projections that there are: their codes, parameters and native places, and how a word says all of it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from ..errors import BadValue

Parameters = tuple[float, ...]
POLE, EQUATOR, STANDARD = "pole", "equator", "standard parallel"
MUST = None


class About(NamedTuple):
    """A projection: its name, where its reference point is on the native sphere, and its parameters.

    ``parameters``: PV2_n by n, with what is meant where it is not given; MUST (None): nothing is.
    """

    name: str
    native: str
    parameters: Mapping[int, float | None] = MappingProxyType({})


_CONIC = MappingProxyType({1: MUST, 2: 0.0})
# Source: Calabretta and Greisen 2002, A&A 395, 1077; Calabretta and Roukema 2007, MNRAS 381, 865 (HPX);
# Calabretta and Lowe 2013, PASA 30, e050 (XPH).
PROJECTIONS: Mapping[str, About] = MappingProxyType(
    {
        "TAN": About("gnomonic", POLE),
        "SIN": About("orthographic, or slant", POLE, {1: 0.0, 2: 0.0}),
        "STG": About("stereographic", POLE),
        "ARC": About("zenithal equidistant", POLE),
        "ZEA": About("zenithal equal area", POLE),
        "ZPN": About("zenithal polynomial", POLE, {0: 0.0, 1: MUST} | dict.fromkeys(range(2, 30), 0.0)),
        "AZP": About("zenithal perspective", POLE, {1: 0.0, 2: 0.0}),
        "SZP": About("slant zenithal perspective", POLE, {1: 0.0, 2: 0.0, 3: 90.0}),
        "AIR": About("Airy's", POLE, {1: 90.0}),
        "XPH": About("HEALPix around the pole", POLE),
        "CAR": About("plate carree", EQUATOR),
        "CEA": About("cylindrical equal area", EQUATOR, {1: 1.0}),
        "CYP": About("cylindrical perspective", EQUATOR, {1: 1.0, 2: 1.0}),
        "MER": About("Mercator's", EQUATOR),
        "SFL": About("Sanson-Flamsteed", EQUATOR),
        "PAR": About("parabolic", EQUATOR),
        "MOL": About("Mollweide's", EQUATOR),
        "AIT": About("Hammer-Aitoff", EQUATOR),
        "COP": About("conic perspective", STANDARD, _CONIC),
        "COE": About("conic equal area", STANDARD, _CONIC),
        "COD": About("conic equidistant", STANDARD, _CONIC),
        "COO": About("conic orthomorphic", STANDARD, _CONIC),
        "BON": About("Bonne's", EQUATOR, {1: MUST}),
        "PCO": About("polyconic", EQUATOR),
        "TSC": About("tangential spherical cube", EQUATOR),
        "CSC": About("COBE's quadrilateralized spherical cube", EQUATOR),
        "QSC": About("quadrilateralized spherical cube", EQUATOR),
        "HPX": About("HEALPix", EQUATOR, {1: 4.0, 2: 3.0}),
    }
)
CODES = tuple(PROJECTIONS)
# Those that are computed here; the others go through astropy.
OWN = ("TAN", "SIN", "STG", "ARC", "ZEA", "ZPN", "CAR")
CONES = tuple(code for code, one in PROJECTIONS.items() if one.native == STANDARD)
# Those that must be told a parallel.
PARALLEL = (*CONES, "BON")

_TERM = re.compile(r"(?:PV2_)?([0-9]{1,2})=([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)")


def native_dec_deg(code: str, parameters: Parameters) -> float:
    """The native latitude of the reference point."""
    native = PROJECTIONS[code].native
    if native == POLE:
        return 90.0
    return parameters[1] if native == STANDARD else 0.0


def parameters_of(code: str, given: Mapping[int, float]) -> Parameters:
    """PV2_0, PV2_1, ... as they are kept: without those at the end that are as if not given.

    Raises BadValue for those that are missing or that the projection does not have.
    """
    known = PROJECTIONS[code].parameters
    strange = [number for number, value in given.items() if number not in known and value]
    if strange:
        has = ", ".join(f"PV2_{number}" for number in list(known)[:3]) or "none"
        raise BadValue(f"projection {code} has no parameter PV2_{strange[0]}; it has {has}")
    missing = [number for number, usual in known.items() if usual is MUST and not _said(given, number)]
    if missing:
        raise BadValue(
            f"projection {code} ({PROJECTIONS[code].name}) needs PV2_{missing[0]}",
            hint=f"{code}:PV2_{missing[0]}={'1' if code == 'ZPN' else '45'}",
        )
    made = {number: given.get(number, usual) for number, usual in known.items()}
    own = [number for number, value in made.items() if value != known[number]]
    return tuple(float(made.get(number) or 0.0) for number in range(max(own) + 1)) if own else ()


def _said(given: Mapping[int, float], number: int) -> bool:
    return math.isfinite(given.get(number, math.nan))


def with_usual(code: str, parameters: Parameters) -> dict[int, float]:
    """All parameters of a projection by number, those that are as if not given too."""
    known = PROJECTIONS[code].parameters
    return {
        number: parameters[number] if number < len(parameters) else float(usual or 0.0)
        for number, usual in known.items()
    }


# Words


def read_word(word: str, fill: Mapping[str, float] | None = None) -> tuple[str, Parameters]:
    """Code and parameters of a word such as AIT or COE:PV2_1=45,PV2_2=25.

    fill: PV2_1 for projections (by code) that must have one. Raises BadValue, with what there is.
    """
    code, _, rest = word.partition(":")
    code = code.strip().upper()
    if code not in PROJECTIONS:
        raise BadValue(
            f"there is no projection {word!r:.40}; there are: {' '.join(CODES)}",
            hint="parameters stand behind a colon: COE:PV2_1=45",
        )
    given: dict[int, float] = {}
    for term in rest.split(",") if rest else ():
        found = _TERM.fullmatch(term.strip().upper())
        if not found or int(found[1]) in given or not math.isfinite(float(found[2])):
            raise BadValue(
                f"{term!r:.40} is no parameter of projection {code}", hint=f"{code}:PV2_1=45,PV2_2=0"
            )
        given[int(found[1])] = float(found[2])
    if fill and code in fill and 1 not in given:
        given[1] = fill[code]
    return code, parameters_of(code, given)


def word_of(code: str, parameters: Parameters) -> str:
    """The word that `read_word` reads: parameters that are as if not given are left out."""
    known = PROJECTIONS[code].parameters
    said = [
        f"PV2_{number}={_shortest(value)}"
        for number, value in enumerate(parameters)
        if number in known and value != known[number]
    ]
    return f"{code}:{','.join(said)}" if said else code


def _shortest(value: float) -> str:
    return repr(value + 0.0).removesuffix(".0")
