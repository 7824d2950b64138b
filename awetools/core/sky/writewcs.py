"""Coordinate systems as header cards: TAN, SIP with its inverse, TPV."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..distortion import Polynomial as Terms
from ..distortion import conjugated, inverse, substituted, tpv_number, tpv_terms
from ..errors import BadHeader, TooFew
from ..fitsheader import HeaderValue
from .leastsquares import design_matrix, least_squares, powers_of
from .polynomial import Distortion, Doubles, Polynomial
from .projections import PROJECTIONS
from .readwcs import HIGHEST_SIP_DEGREE
from .wcs import Wcs, product

FORMS = ("SIP", "TPV")
# The inverse in AP and BP is good to this, or it is not written.
INVERSE_PX = 1e-3
GRID = 24
_IDENTITY_X, _IDENTITY_Y = {(1, 0): 1.0}, {(0, 1): 1.0}


def wcs_as_cards(wcs: Wcs, form: str = "", shape: tuple[int, int] | None = None) -> dict[str, HeaderValue]:
    """The cards of a coordinate system; numbers as floats.

    form: 'SIP' or 'TPV' for the distortion, '' for the one that it has. One becomes the
    other exactly, by multiplying out. shape: (ny, nx) of the image, for the inverse
    polynomials AP and BP of SIP, good to 0.001 pixel over the image: where none of degree
    9 is, they are left out, and programs invert SIP themselves. Raises BadHeader where
    the form cannot say it: TPV of other projections than TAN or beyond degree 7, SIP
    beyond degree 9, odd powers of r as SIP.
    """
    if wcs.distortion is None:
        return _linear_cards(wcs, wcs.projection.code)
    if not form:
        form = "SIP" if wcs.distortion.before else "TPV"
    if form == "SIP":
        return _sip_cards(wcs, shape)
    if form != "TPV":
        raise BadHeader(f"a distortion is written as {' or '.join(FORMS)}, not as {form}")
    return _tpv_cards(wcs)


def _linear_cards(wcs: Wcs, kind: str) -> dict[str, HeaderValue]:
    made: dict[str, HeaderValue] = {
        "CTYPE1": f"RA---{kind}",
        "CTYPE2": f"DEC--{kind}",
        "CUNIT1": "deg",
        "CUNIT2": "deg",
    }
    for axis in (0, 1):
        made[f"CRVAL{axis + 1}"] = float(wcs.crval_deg[axis])
        made[f"CRPIX{axis + 1}"] = float(wcs.crpix[axis])
    for place, value in enumerate(wcs.matrix):
        made[f"CD{place // 2 + 1}_{place % 2 + 1}"] = float(value)
    usual = PROJECTIONS[wcs.projection.code].parameters
    made |= {
        f"PV2_{number}": value
        for number, value in enumerate(wcs.projection.parameters)
        if value or usual.get(number)
    }
    if wcs.lonpole_deg != (0.0 if wcs.crval_deg[1] >= wcs.projection.native_dec_deg else 180.0):
        made["LONPOLE"] = wcs.lonpole_deg
    if wcs.latpole_deg != 90.0:
        made["LATPOLE"] = wcs.latpole_deg
    made["RADESYS"] = wcs.radesys
    if wcs.equinox is not None:
        made["EQUINOX"] = wcs.equinox
    return made


def _tpv_cards(wcs: Wcs) -> dict[str, HeaderValue]:
    distortion = wcs.distortion
    assert distortion is not None
    if wcs.projection.code != "TAN":
        raise BadHeader(
            f"a distortion of {wcs.projection.code} cannot be written as TPV: only that of TAN can"
        )
    x, y = _terms(distortion.x), _terms(distortion.y)
    if distortion.before:
        _refuse_radius(distortion, "before the matrix cannot be written")
        x, y = conjugated(x, y, wcs.matrix)
    made = _linear_cards(wcs, "TPV") | tpv_terms(x, y)
    for prefix, polynomial in (("PV1_", distortion.x), ("PV2_", distortion.y)):
        made |= {f"{prefix}{tpv_number(0, n) + 1}": value for n, value in polynomial.radial}
    return made


def _terms(polynomial: Polynomial) -> Terms:
    return dict(polynomial.coefficients)


def _refuse_radius(distortion: Distortion, why: str) -> None:
    if distortion.x.radial or distortion.y.radial:
        raise BadHeader(f"a distortion with odd powers of r {why}")


# SIP


def _sip_cards(wcs: Wcs, shape: tuple[int, int] | None) -> dict[str, HeaderValue]:
    wcs = as_sip(wcs)
    distortion = wcs.distortion
    assert distortion is not None
    if distortion.degree > HIGHEST_SIP_DEGREE:
        raise BadHeader(
            f"a distortion of degree {distortion.degree}: SIP has none beyond {HIGHEST_SIP_DEGREE}"
        )
    made = _linear_cards(wcs, f"{wcs.projection.code}-SIP")
    order = float(max(distortion.degree, 2))
    for letter, polynomial, own in (("A", distortion.x, (1, 0)), ("B", distortion.y, (0, 1))):
        made[f"{letter}_ORDER"] = order
        made |= {f"{letter}_{p}_{q}": value for p, q, value in polynomial.terms if (p, q) != own}
    return made if shape is None else made | _inverse_cards(distortion, wcs.crpix, shape)


def as_sip(wcs: Wcs) -> Wcs:
    """The same system with its distortion before the matrix, without terms below the second degree.

    The reference pixel moves to where the distortion has none, the matrix takes the linear
    terms. Raises BadHeader for odd powers of r, or where there is no such pixel.
    """
    distortion = wcs.distortion
    if distortion is None:
        return wcs
    _refuse_radius(distortion, "cannot be written as SIP")
    x, y = _terms(distortion.x), _terms(distortion.y)
    if not distortion.before:
        x, y = conjugated(x, y, inverse(wcs.matrix))
    if _is_plain(x, y):
        plain = Distortion(Polynomial.of(x), Polynomial.of(y), before=True)
        return replace(wcs, distortion=plain)
    x, y, offset = centred(x, y)
    linear = x.get((1, 0), 0.0), x.get((0, 1), 0.0), y.get((1, 0), 0.0), y.get((0, 1), 0.0)
    return replace(
        wcs,
        crpix=(wcs.crpix[0] + offset[0], wcs.crpix[1] + offset[1]),
        matrix=product(wcs.matrix, linear),
        distortion=without_linear(x, y),
    )


def _is_plain(x: Terms, y: Terms) -> bool:
    """Whether there are no terms below the second degree but those of the identity."""
    low = [{powers: value for powers, value in one.items() if sum(powers) < 2 and value} for one in (x, y)]
    return low == [_IDENTITY_X, _IDENTITY_Y]


def centred(x: Terms, y: Terms) -> tuple[Terms, Terms, tuple[float, float]]:
    """A map about the place that goes to (0, 0), and that place. Raises BadHeader where there is none."""
    if not x.get((0, 0)) and not y.get((0, 0)):
        return x, y, (0.0, 0.0)
    whole = Distortion(Polynomial.of(x), Polynomial.of(y), before=True)
    root_u, root_v = (float(one[0]) for one in whole.undo(np.zeros(1), np.zeros(1), 1e-9))
    if not np.isfinite(root_u + root_v):
        raise BadHeader("a distortion that leads no pixel to the reference point: written as TPV only")
    u: Terms = {(1, 0): 1.0, (0, 0): root_u}
    v: Terms = {(0, 1): 1.0, (0, 0): root_v}
    moved = [substituted(one, u, v) for one in (x, y)]
    # What is left there is rounding.
    for one in moved:
        one.pop((0, 0), None)
    return moved[0], moved[1], (root_u, root_v)


def without_linear(x: Terms, y: Terms) -> Distortion:
    """The distortion before the matrix that is left when the matrix takes the linear terms."""
    linear = x.get((1, 0), 0.0), x.get((0, 1), 0.0), y.get((1, 0), 0.0), y.get((0, 1), 0.0)
    a, b, c, d = inverse(linear)
    powers = {one for one in {**x, **y} if sum(one) > 1}
    own_x = {one: a * x.get(one, 0.0) + b * y.get(one, 0.0) for one in powers}
    own_y = {one: c * x.get(one, 0.0) + d * y.get(one, 0.0) for one in powers}
    return Distortion(Polynomial.of(_IDENTITY_X | own_x), Polynomial.of(_IDENTITY_Y | own_y), before=True)


def _inverse_cards(
    distortion: Distortion, crpix: tuple[float, float], shape: tuple[int, int]
) -> dict[str, HeaderValue]:
    """AP and BP, of the lowest degree that is good enough; {} if none is."""
    u, v = _grid(crpix, shape, GRID)
    x, y = distortion.apply(u, v)
    test_u, test_v = _grid(crpix, shape, 2 * GRID - 1)
    test_x, test_y = distortion.apply(test_u, test_v)
    # About the middle of the image, as the reference pixel may be far off it.
    middle = 0.5 * float(x.min() + x.max()), 0.5 * float(y.min() + y.max())
    scale = max(0.5 * float(max(np.ptp(x), np.ptp(y))), 1.0)
    for degree in range(max(distortion.degree, 2), HIGHEST_SIP_DEGREE + 1):
        design = design_matrix(degree, (x - middle[0]) / scale, (y - middle[1]) / scale)
        try:
            found, _ = least_squares(design, np.stack([u - x, v - y], axis=1))
        except TooFew:
            return {}
        tested = design_matrix(degree, (test_x - middle[0]) / scale, (test_y - middle[1]) / scale) @ found.T
        missed = np.hypot(test_x + tested[:, 0] - test_u, test_y + tested[:, 1] - test_v)
        if missed.max() <= INVERSE_PX:
            return _inverse_terms(found, middle, scale, degree)
    return {}


def _inverse_terms(
    found: Doubles, middle: tuple[float, float], scale: float, degree: int
) -> dict[str, HeaderValue]:
    """The cards of inverse polynomials about another place than the reference pixel, multiplied out."""
    u: Terms = {(1, 0): 1 / scale, (0, 0): -middle[0] / scale}
    v: Terms = {(0, 1): 1 / scale, (0, 0): -middle[1] / scale}
    made: dict[str, HeaderValue] = {"AP_ORDER": float(degree), "BP_ORDER": float(degree)}
    for letter, row in zip(("AP", "BP"), found.tolist(), strict=True):
        moved = substituted(dict(zip(powers_of(degree), row, strict=True)), u, v)
        made |= {f"{letter}_{p}_{q}": value for (p, q), value in sorted(moved.items()) if value}
    return made


def _grid(crpix: tuple[float, float], shape: tuple[int, int], steps: int) -> tuple[Doubles, Doubles]:
    """Offsets from the reference pixel, from edge to edge of the image."""
    ny, nx = shape
    x, y = np.meshgrid(np.linspace(0.5, nx + 0.5, steps), np.linspace(0.5, ny + 0.5, steps))
    return x.ravel() - crpix[0], y.ravel() - crpix[1]
