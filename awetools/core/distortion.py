"""Distortions of a WCS in the terms that other programs read: SIP polynomials as TPV, exactly.

Source of the method: Shupe et al. 2012, Proc. SPIE 8451, 84511M. SIP distorts pixel
offsets before the matrix, TPV the intermediate world coordinates behind it, so the one is
the other with the matrix multiplied out; both are polynomials of the same degree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import comb
from typing import Any

from .camera_layout import matrix
from .errors import BadHeader
from .fitsheader import HeaderValue

# TPV has terms up to this degree.
HIGHEST_DEGREE = 7
AS_IT_IS = "awe-export --for ds9 copies the coordinates as they are"
_SIP_TERM = re.compile(r"([AB])_(\d+)_(\d+)\Z")
_SIP_KEY = re.compile(r"(?:A|B|AP|BP)_(?:ORDER|DMAX|\d+_\d+)\Z")

# Powers of two variables to a coefficient.
Polynomial = dict[tuple[int, int], float]


def has_sip(wcs: Mapping[str, Any]) -> bool:
    """Whether a WCS has SIP terms."""
    return any(_SIP_TERM.match(key) for key in wcs)


def sip_as_tpv(wcs: Mapping[str, HeaderValue]) -> dict[str, HeaderValue]:
    """The same WCS with its SIP terms as TPV; one without SIP as it is.

    wcs: cards of a TAN projection with A_p_q and B_p_q. The result has CTYPEs of TPV and
    PVi_m, with the linear part kept. Raises BadHeader where there is no matrix, where the
    projection is not TAN, or beyond degree 7, which TPV has not.
    """
    if not has_sip(wcs):
        return dict(wcs)
    linear = matrix(wcs)
    types = [str(wcs.get(f"CTYPE{axis}", "")) for axis in (1, 2)]
    if linear is None or not all("-TAN" in one for one in types):
        raise BadHeader(
            f"SIP terms on {' '.join(types)} cannot be written as TPV: only those of TAN can", hint=AS_IT_IS
        )
    first, second = _offsets(wcs)
    ahead = _substituted(first, linear), _substituted(second, linear)
    cd11, cd12, cd21, cd22 = linear
    along_x = _sum(_scaled(ahead[0], cd11), _scaled(ahead[1], cd12))
    along_y = _sum(_scaled(ahead[0], cd21), _scaled(ahead[1], cd22))
    made: dict[str, HeaderValue] = {key: value for key, value in wcs.items() if not _SIP_KEY.match(key)}
    made |= {f"CTYPE{axis}": _tpv_type(one) for axis, one in enumerate(types, 1)}
    made |= _terms("PV1_", along_x)
    # The second axis has its own coordinate first.
    made |= _terms("PV2_", {(q, p): value for (p, q), value in along_y.items()})
    return made


def _tpv_type(text: str) -> str:
    return f"{text[:5].ljust(5, '-')}TPV"


def _offsets(wcs: Mapping[str, HeaderValue]) -> tuple[Polynomial, Polynomial]:
    """u + A(u, v) and v + B(u, v), of the pixel offsets u and v from CRPIX."""
    found: dict[str, Polynomial] = {"A": {(1, 0): 1.0}, "B": {(0, 1): 1.0}}
    for key, value in wcs.items():
        match = _SIP_TERM.match(key)
        if match is None or isinstance(value, str) or not value:
            continue
        powers = (int(match[2]), int(match[3]))
        if sum(powers) > HIGHEST_DEGREE:
            raise BadHeader(
                f"{key} = {value}: TPV has no terms beyond degree {HIGHEST_DEGREE}", hint=AS_IT_IS
            )
        terms = found[match[1]]
        terms[powers] = terms.get(powers, 0.0) + float(value)
    return found["A"], found["B"]


def _substituted(terms: Polynomial, linear: tuple[float, float, float, float]) -> Polynomial:
    """A polynomial of u and v as one of the world coordinates that the linear part makes of them."""
    cd11, cd12, cd21, cd22 = linear
    determinant = cd11 * cd22 - cd12 * cd21
    u: Polynomial = {(1, 0): cd22 / determinant, (0, 1): -cd12 / determinant}
    v: Polynomial = {(1, 0): -cd21 / determinant, (0, 1): cd11 / determinant}
    made: Polynomial = {}
    for (p, q), value in terms.items():
        made = _sum(made, _scaled(_product(_power(u, p), _power(v, q)), value))
    return made


def _power(linear: Polynomial, n: int) -> Polynomial:
    """A sum of two terms to a power, by the binomial theorem."""
    a, b = linear[1, 0], linear[0, 1]
    return {(n - k, k): comb(n, k) * a ** (n - k) * b**k for k in range(n + 1)}


def _product(one: Polynomial, other: Polynomial) -> Polynomial:
    made: Polynomial = {}
    for (p, q), value in one.items():
        for (r, s), factor in other.items():
            made[p + r, q + s] = made.get((p + r, q + s), 0.0) + value * factor
    return made


def _scaled(terms: Polynomial, factor: float) -> Polynomial:
    return {powers: value * factor for powers, value in terms.items()}


def _sum(one: Polynomial, other: Polynomial) -> Polynomial:
    return {powers: one.get(powers, 0.0) + other.get(powers, 0.0) for powers in {**one, **other}}


def _terms(prefix: str, terms: Polynomial) -> dict[str, float]:
    """PV cards of a polynomial; those of the radius are 0 and left out."""
    found = {f"{prefix}{_number(*powers)}": value for powers, value in sorted(terms.items()) if value}
    # Programs take a missing linear term for 1.
    return {f"{prefix}1": 0.0, **found}


def _number(p: int, q: int) -> int:
    """The number of the TPV term x^p y^q; odd degrees are followed by a term of the radius."""
    degree = p + q
    before = sum(n + 1 + (n % 2) for n in range(degree))
    return before + q
