"""Published relations between photometric systems, each with its paper, scatter and range: the one place for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..sky.polynomial import Doubles

JOHNSON, SDSS, PS1, TWO_MASS, TYCHO = "Johnson-Cousins", "SDSS", "PS1", "2MASS", "Tycho"
# Systems whose magnitudes are AB; those of all others count from Vega.
AB_SYSTEMS = (SDSS, PS1)


@dataclass(frozen=True)
class Transformation:
    """A magnitude from others: magnitude `base` plus a polynomial of a colour, coefficients by rising power.

    family: the catalogue it is made for; low and high: the colours for which it is used;
    scatter_mag: of a star about it, as its source states.
    """

    family: str
    system: str
    band: str
    base: str
    colour: tuple[str, str]
    coefficients: tuple[float, ...]
    low: float
    high: float
    scatter_mag: float
    source: str

    def value(self, colour: Doubles) -> Doubles:
        """What is added to the base, at a colour."""
        return np.asarray(np.polynomial.polynomial.polyval(colour, self.coefficients), np.float64)

    def slope(self, colour: Doubles) -> Doubles:
        """Its derivative by the colour."""
        slope = np.polynomial.polynomial.polyder(self.coefficients)
        return np.asarray(np.polynomial.polynomial.polyval(colour, slope), np.float64)


def _gaia(
    release: str, source: str, rows: dict[str, tuple[str, tuple[float, ...], float, float, float]]
) -> list[Transformation]:
    """Relations of Gaia, which are published as G minus the other magnitude."""
    return [
        Transformation(
            f"Gaia {release}", system, band, "G", ("BP", "RP"), tuple(-one for one in published),
            low, high, scatter, source,
        )
        for band, (system, published, low, high, scatter) in rows.items()
    ]  # fmt: skip


# Ranges as published; where beyond some colour giants alone follow, up to there.
_DR2 = _gaia(
    "DR2",
    "Evans et al. 2018, A&A 616, A4, table A.2",
    {
        "V": (JOHNSON, (-0.01760, -0.006860, -0.1732), -0.5, 2.75, 0.045858),
        "R": (JOHNSON, (-0.003226, 0.3833, -0.1345), -0.5, 2.75, 0.04840),
        "I": (JOHNSON, (0.02085, 0.7419, -0.09631), -0.5, 2.75, 0.04956),
        "g": (SDSS, (0.13518, -0.46245, -0.25171, 0.021349), -0.5, 2.0, 0.16497),
        "r": (SDSS, (-0.12879, 0.24662, -0.027464, -0.049465), 0.2, 2.7, 0.066739),
        "i": (SDSS, (-0.29676, 0.64728, -0.10141), 0.0, 4.5, 0.098957),
    },
)
_DR3 = _gaia(
    "DR3",
    "Riello et al. 2021, A&A 649, A3, tables C.1 and C.2",
    {
        "V": (JOHNSON, (-0.02704, 0.01424, -0.2156, 0.01426), -0.5, 5.0, 0.03017),
        "R": (JOHNSON, (-0.02275, 0.3961, -0.1243, -0.01396, 0.003775), 0.0, 4.0, 0.03167),
        "I": (JOHNSON, (0.01753, 0.76, -0.0991), -0.5, 4.5, 0.03765),
        "g": (SDSS, (0.2199, -0.6365, -0.1548, 0.0064), 0.3, 3.0, 0.0745),
        "r": (SDSS, (-0.09837, 0.08592, 0.1907, -0.1701, 0.02263), 0.0, 2.0, 0.03776),
        "i": (SDSS, (-0.293, 0.6404, -0.09609, -0.002104), 0.5, 2.0, 0.04092),
    },
)
_TONRY = "Tonry et al. 2012, ApJ 750, 99, table 6"
# This range, and that of the next, is ours: beyond it, dwarfs of class M leave relations that hold for others.
_PS1 = [
    Transformation(PS1, system, band, base, ("g", "r"), coefficients, -0.5, 1.5, scatter, _TONRY)
    for system, band, base, coefficients, scatter in (
        (SDSS, "g", "g", (0.013, 0.145, 0.019), 0.008),
        (SDSS, "r", "r", (-0.001, 0.004, 0.007), 0.004),
        (SDSS, "i", "i", (-0.005, 0.011, 0.010), 0.004),
        (SDSS, "z", "z", (0.013, -0.039, -0.012), 0.010),
        (JOHNSON, "B", "g", (0.212, 0.556, 0.034), 0.032),
        (JOHNSON, "V", "r", (0.005, 0.462, 0.013), 0.012),
        (JOHNSON, "R", "r", (-0.137, -0.108, -0.029), 0.015),
        (JOHNSON, "I", "i", (-0.366, -0.136, -0.018), 0.017),
    )
]
_LUPTON = "Lupton 2005, in sdss.org/dr12/algorithms/sdssubvritransform"
_SDSS = [
    Transformation(SDSS, JOHNSON, band, base, colour, coefficients, low, high, scatter, _LUPTON)
    for band, base, colour, coefficients, low, high, scatter in (
        ("B", "g", ("g", "r"), (0.2271, 0.3130), -0.5, 1.5, 0.0107),
        ("V", "g", ("g", "r"), (-0.0038, -0.5784), -0.5, 1.5, 0.0054),
        ("R", "r", ("r", "i"), (-0.1439, -0.2936), -0.5, 1.5, 0.0072),
        ("I", "r", ("r", "i"), (-0.3820, -1.2444), -0.5, 1.5, 0.0078),
    )
]
_ESA = "ESA 1997, The Hipparcos and Tycho Catalogues, SP-1200, vol. 1, section 1.3"
_TYCHO = [
    Transformation(TYCHO, JOHNSON, "V", "VT", ("BT", "VT"), (0.0, -0.090), -0.2, 1.8, 0.015, _ESA),
    Transformation(TYCHO, JOHNSON, "B", "VT", ("BT", "VT"), (0.0, 0.760), -0.2, 1.8, 0.05, _ESA),
]
# UCAC4 carries B, V, g, r, i of APASS: the last three are of the SDSS.
_UCAC4 = [
    Transformation(
        "UCAC4", one.system, one.band, one.base, one.colour, one.coefficients, one.low, one.high,
        one.scatter_mag, one.source,
    )
    for one in _SDSS if one.band in "RI"
]  # fmt: skip

TRANSFORMATIONS: tuple[Transformation, ...] = (*_DR2, *_DR3, *_PS1, *_SDSS, *_TYCHO, *_UCAC4)


def _system(name: str, *bands: str) -> dict[str, str]:
    return dict.fromkeys(bands, name)


# Which system the bands of a catalogue are of, as core.catalogues.reflayouts names them.
FAMILIES: dict[str, dict[str, str]] = {
    "Gaia DR2": _system("Gaia DR2", "G", "BP", "RP"),
    "Gaia DR3": _system("Gaia DR3", "G", "BP", "RP"),
    PS1: _system(PS1, *"grizy"),
    SDSS: _system(SDSS, *"ugriz"),
    TWO_MASS: _system(TWO_MASS, *"JHK"),
    TYCHO: _system(TYCHO, "BT", "VT") | _system("Hipparcos", "Hp"),
    "UCAC4": _system(JOHNSON, "B", "V") | _system(SDSS, *"gri") | _system(TWO_MASS, *"JHK")
    | _system("UCAC", "UCf", "UCa"),
    "PPMXL": _system(TWO_MASS, *"JHK") | _system("plates", "B1", "B2", "R1", "R2", "I"),
    "Landolt": _system(JOHNSON, *"UBVRI"),
}  # fmt: skip

# Colours for a colour term, by band: the first that a catalogue has.
COLOURS: dict[str, tuple[tuple[str, str], ...]] = {
    "U": (("U", "B"), ("B", "V")),
    "B": (("B", "V"), ("g", "r"), ("BT", "VT")),
    "V": (("B", "V"), ("V", "R"), ("V", "I"), ("g", "r"), ("BT", "VT")),
    "R": (("V", "R"), ("V", "I"), ("g", "r"), ("r", "i"), ("B", "V")),
    "I": (("V", "I"), ("R", "I"), ("r", "i"), ("g", "r")),
    "u": (("u", "g"), ("g", "r")),
    "g": (("g", "r"), ("g", "i"), ("B", "V")),
    "r": (("g", "r"), ("r", "i"), ("g", "i"), ("B", "V")),
    "i": (("r", "i"), ("i", "z"), ("g", "i")),
    "z": (("i", "z"), ("r", "z"), ("z", "y")),
    "y": (("z", "y"), ("i", "y")),
    "J": (("J", "K"), ("J", "H")),
    "H": (("J", "H"), ("H", "K")),
    "K": (("J", "K"), ("H", "K")),
    "BT": (("BT", "VT"),),
    "VT": (("BT", "VT"),),
}
ANY_COLOUR = (("BP", "RP"), ("g", "r"), ("B", "V"), ("BT", "VT"), ("g", "i"), ("V", "R"), ("J", "K"))
