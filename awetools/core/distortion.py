"""Distortions of a WCS in the terms that other programs read: SIP polynomials as TPV, exactly.

Source of the method: Shupe et al. 2012, Proc. SPIE 8451, 84511M. SIP distorts pixel
offsets before the matrix, TPV the intermediate world coordinates behind it, so the one is
the other with the matrix multiplied out; both are polynomials of the same degree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .errors import BadHeader
from .fitsheader import HeaderValue
from .wcscards import matrix

# TPV has terms up to this degree.
HIGHEST_DEGREE = 7
AS_IT_IS = "awe-export --for ds9 copies the coordinates as they are"
_SIP_TERM = re.compile(r"([AB])_(\d+)_(\d+)\Z")
_SIP_KEY = re.compile(r"(?:A|B|AP|BP)_(?:ORDER|DMAX|\d+_\d+)\Z")

# Powers of two variables to a coefficient.
Polynomial = dict[tuple[int, int], float]
Matrix = tuple[float, float, float, float]


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
    along_x, along_y = conjugated(*sip_offsets(wcs, HIGHEST_DEGREE), linear)
    made: dict[str, HeaderValue] = {key: value for key, value in wcs.items() if not _SIP_KEY.match(key)}
    made |= {f"CTYPE{axis}": _tpv_type(one) for axis, one in enumerate(types, 1)}
    return made | tpv_terms(along_x, along_y)


def tpv_terms(x: Polynomial, y: Polynomial) -> dict[str, HeaderValue]:
    """The PV cards of a map behind the matrix; raises BadHeader beyond degree 7."""
    degree = max((p + q for terms in (x, y) for (p, q), value in terms.items() if value), default=1)
    if degree > HIGHEST_DEGREE:
        raise BadHeader(f"a distortion of degree {degree}: TPV has no terms beyond {HIGHEST_DEGREE}")
    # The second axis has its own coordinate first.
    return {**_terms("PV1_", x), **_terms("PV2_", {(q, p): value for (p, q), value in y.items()})}


def _tpv_type(text: str) -> str:
    return f"{text[:5].ljust(5, '-')}TPV"


def sip_offsets(wcs: Mapping[str, HeaderValue], highest_degree: int) -> tuple[Polynomial, Polynomial]:
    """u + A(u, v) and v + B(u, v), of the pixel offsets u and v from CRPIX.

    Raises BadHeader for a term that is not 0 beyond the highest degree.
    """
    found: dict[str, Polynomial] = {"A": {(1, 0): 1.0}, "B": {(0, 1): 1.0}}
    for key, value in wcs.items():
        match = _SIP_TERM.match(key)
        if match is None or isinstance(value, str) or not value:
            continue
        powers = (int(match[2]), int(match[3]))
        if sum(powers) > highest_degree:
            raise BadHeader(
                f"{key} = {value}: terms beyond degree {highest_degree} cannot be told", hint=AS_IT_IS
            )
        terms = found[match[1]]
        terms[powers] = terms.get(powers, 0.0) + float(value)
    return found["A"], found["B"]


def conjugated(x: Polynomial, y: Polynomial, linear: Matrix) -> tuple[Polynomial, Polynomial]:
    """A map of the plane as it looks behind a matrix: the inverse matrix, the map, then the matrix.

    Of SIP (which acts on pixel offsets) it makes TPV (which acts behind the matrix); with
    the inverse matrix, SIP of TPV.
    """
    cd11, cd12, cd21, cd22 = linear
    (a, b, c, d) = inverse(linear)
    u: Polynomial = {(1, 0): a, (0, 1): b}
    v: Polynomial = {(1, 0): c, (0, 1): d}
    ahead = substituted(x, u, v), substituted(y, u, v)
    return (
        _sum(_scaled(ahead[0], cd11), _scaled(ahead[1], cd12)),
        _sum(_scaled(ahead[0], cd21), _scaled(ahead[1], cd22)),
    )


def inverse(linear: Matrix) -> Matrix:
    """The inverse of a matrix of two rows."""
    a, b, c, d = linear
    determinant = a * d - b * c
    return d / determinant, -b / determinant, -c / determinant, a / determinant


def substituted(terms: Polynomial, u: Polynomial, v: Polynomial) -> Polynomial:
    """A polynomial whose variables are polynomials themselves, multiplied out."""
    degree = max((max(powers) for powers in terms), default=0)
    u_powers, v_powers = _powers(u, degree), _powers(v, degree)
    made: Polynomial = {}
    for (p, q), value in terms.items():
        made = _sum(made, _scaled(_product(u_powers[p], v_powers[q]), value))
    return made


def _powers(base: Polynomial, highest: int) -> list[Polynomial]:
    made: list[Polynomial] = [{(0, 0): 1.0}]
    for _ in range(highest):
        made.append(_product(made[-1], base))
    return made


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
    found = {f"{prefix}{tpv_number(*powers)}": value for powers, value in sorted(terms.items()) if value}
    # Programs take a missing linear term for 1.
    return {f"{prefix}1": 0.0, **found}


def tpv_number(p: int, q: int) -> int:
    """The number of the TPV term x^p y^q; odd degrees are followed by a term of the radius."""
    degree = p + q
    before = sum(n + 1 + (n % 2) for n in range(degree))
    return before + q
