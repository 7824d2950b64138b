"""The simulated sky: one catalogue for all frames, and the true geometry that puts it on detectors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .camera import Card, Detector
from .plan import POINTING_RMS_ARCSEC, Conditions, decimal_year, dither_step_px, field_centre_deg, stream
from .spec import FILTERS, NightSpec

FAINTEST_MAG, REFERENCE_FAINTEST_MAG = 24.5, 21.0
STAR_MAG, GALAXY_MAG = (13.0, FAINTEST_MAG), (16.5, FAINTEST_MAG)
STAR_SLOPE, GALAXY_SLOPE = 0.20, 0.35
REFERENCE_EPOCH_YR = 2016.0
REFERENCE_FRACTION = 0.9
REFERENCE_ERROR_MAS, REFERENCE_PM_ERROR_MAS_YR, REFERENCE_MAG_ERROR = 20.0, 0.2, 0.01
PROPER_MOTION_MAS_YR = 4.0
CORNER_DISTORTION = 0.005
V_NM, R_NM = FILTERS["V"].wavelength_nm, FILTERS["R"].wavelength_nm

Array = np.ndarray


@dataclass(frozen=True)
class Tpv:
    """A TAN or TPV world coordinate system of a trimmed detector, pixels 1-based as in FITS.

    pv1 and pv2 hold the polynomial terms other than the linear one by their
    number, 4 to 10; without any it is TAN. Terms: Calabretta, Valdes,
    Greisen & Allen 2004 (ADASS XIII), the registered TPV convention.
    """

    crval_deg: tuple[float, float]
    crpix: tuple[float, float]
    cd_deg: tuple[tuple[float, float], tuple[float, float]]
    pv1: Mapping[int, float]
    pv2: Mapping[int, float]

    def to_pixels(self, ra_deg: Array, dec_deg: Array) -> tuple[Array, Array]:
        """Pixel coordinates of sky positions, by Newton's method, to 1e-9 pixel."""
        xi, eta = gnomonic(ra_deg, dec_deg, self.crval_deg)
        u, v = xi.copy(), eta.copy()
        for _ in range(6):
            f, f_u, f_v = _polynomial(self.pv1, u, v)
            g, g_v, g_u = _polynomial(self.pv2, v, u)
            determinant = f_u * g_v - f_v * g_u
            du = ((xi - f) * g_v - (eta - g) * f_v) / determinant
            dv = ((eta - g) * f_u - (xi - f) * g_u) / determinant
            u, v = u + du, v + dv
        (a, b), (c, d) = self.cd_deg
        scale = a * d - b * c
        return (d * u - b * v) / scale + self.crpix[0], (a * v - c * u) / scale + self.crpix[1]

    def to_sky(self, x: Array, y: Array) -> tuple[Array, Array]:
        """RA and Dec in degrees of pixel coordinates."""
        dx, dy = np.asarray(x) - self.crpix[0], np.asarray(y) - self.crpix[1]
        (a, b), (c, d) = self.cd_deg
        u, v = a * dx + b * dy, c * dx + d * dy
        return from_gnomonic(_polynomial(self.pv1, u, v)[0], _polynomial(self.pv2, v, u)[0], self.crval_deg)

    def cards(self, shift_px: int = 0) -> list[Card]:
        """Header cards; shift_px columns lie in front of the trimmed detector."""
        kind = "TPV" if self.pv1 or self.pv2 else "TAN"
        cards: list[Card] = [
            ("CTYPE1", f"RA---{kind}", ""),
            ("CTYPE2", f"DEC--{kind}", ""),
            ("CUNIT1", "deg", ""),
            ("CUNIT2", "deg", ""),
            ("CRVAL1", self.crval_deg[0], ""),
            ("CRVAL2", self.crval_deg[1], ""),
            ("CRPIX1", self.crpix[0] + shift_px, ""),
            ("CRPIX2", self.crpix[1], ""),
        ]
        cards += [(f"CD{i + 1}_{j + 1}", self.cd_deg[i][j], "") for i in (0, 1) for j in (0, 1)]
        if kind == "TPV":
            for axis, terms in ((1, self.pv1), (2, self.pv2)):
                cards += [
                    (f"PV{axis}_{term}", value, "") for term, value in sorted({1: 1.0, **terms}.items())
                ]
        return cards + [("RADESYS", "ICRS", ""), ("EQUINOX", 2000.0, "")]


def gnomonic(ra_deg: Array, dec_deg: Array, centre_deg: tuple[float, float]) -> tuple[Array, Array]:
    """Tangent-plane coordinates (degrees, east and north) about a centre."""
    alpha, delta = np.radians(np.asarray(ra_deg) - centre_deg[0]), np.radians(dec_deg)
    sin0, cos0 = math.sin(math.radians(centre_deg[1])), math.cos(math.radians(centre_deg[1]))
    depth = sin0 * np.sin(delta) + cos0 * np.cos(delta) * np.cos(alpha)
    east = np.cos(delta) * np.sin(alpha) / depth
    north = (cos0 * np.sin(delta) - sin0 * np.cos(delta) * np.cos(alpha)) / depth
    return np.degrees(east), np.degrees(north)


def from_gnomonic(east_deg: Array, north_deg: Array, centre_deg: tuple[float, float]) -> tuple[Array, Array]:
    """RA and Dec in degrees of tangent-plane coordinates."""
    east, north = np.radians(east_deg), np.radians(north_deg)
    sin0, cos0 = math.sin(math.radians(centre_deg[1])), math.cos(math.radians(centre_deg[1]))
    depth = cos0 - north * sin0
    ra = centre_deg[0] + np.degrees(np.arctan2(east, depth))
    return ra % 360.0, np.degrees(np.arctan2(sin0 + north * cos0, np.hypot(east, depth)))


def nominal_wcs(spec: NightSpec, detector: Detector, pointing_deg: tuple[float, float]) -> Tpv:
    """What the raw header says: a perfectly aligned mosaic without distortion, north up, east left."""
    scale = spec.pixel_scale_arcsec / 3600
    crpix = ((detector.nx + 1) / 2 - detector.offset_px, (detector.ny + 1) / 2)
    return Tpv(pointing_deg, crpix, ((-scale, 0.0), (0.0, scale)), {}, {})


def true_wcs(spec: NightSpec, detector: Detector, conditions: Conditions) -> Tpv:
    """The nominal one with pointing error, rotation, alignment of the detector and cubic distortion.

    The distortion is that of an optic centred on the mosaic: 0.5% of the radius at
    the mosaic's corner; each detector adds small quadratic terms of its own.
    """
    nominal = nominal_wcs(spec, detector, conditions.true_deg)
    rng = stream(spec.seed, "alignment", detector.index)
    angle = math.radians(rng.normal(0, 0.05) + conditions.rotation_deg)
    scale = 1 + rng.normal(0, 2e-4)
    shift = rng.normal(0, 2.0, 2)
    corner_deg = spec.corner_px * spec.pixel_scale_arcsec / 3600
    quadratic = rng.normal(0, 0.3 * spec.pixel_scale_arcsec / 3600 / corner_deg**2, 6).tolist()
    cubic = CORNER_DISTORTION / corner_deg**2
    (a, b), (c, d) = nominal.cd_deg
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    return Tpv(
        crval_deg=nominal.crval_deg,
        crpix=(nominal.crpix[0] + float(shift[0]), nominal.crpix[1] + float(shift[1])),
        cd_deg=((cos * a - sin * c, cos * b - sin * d), (sin * a + cos * c, sin * b + cos * d)),
        pv1=dict(zip((4, 5, 6), quadratic[:3], strict=True)) | {7: cubic, 9: cubic},
        pv2=dict(zip((4, 5, 6), quadratic[3:], strict=True)) | {7: cubic, 9: cubic},
    )


def make_catalogue(spec: NightSpec) -> Array:
    """Every source of the field and a margin around it, as a structured array.

    Positions are of the night's epoch (degrees), MAG_<filter> above the
    atmosphere; R_HALF is the half-light radius of a galaxy's disc along its major
    axis (arcsec), R_BULGE that of its bulge, PA_DEG runs from north through east.
    """
    half_width, half_height = _field_half_deg(spec)
    area_arcmin2 = 4 * half_width * half_height * 3600
    rng = stream(spec.seed, "catalogue")
    stars = round(spec.stars_per_arcmin2 * area_arcmin2)
    count = stars + round(spec.galaxies_per_arcmin2 * area_arcmin2)
    galaxy = np.arange(count) >= stars
    catalogue = np.zeros(count, dtype=_catalogue_type(spec))
    catalogue["ID"] = np.arange(1, count + 1)
    catalogue["TYPE"] = np.where(galaxy, b"GALAXY", b"STAR")
    catalogue["RA"], catalogue["DEC"] = from_gnomonic(
        rng.uniform(-half_width, half_width, count),
        rng.uniform(-half_height, half_height, count),
        field_centre_deg(spec),
    )
    red_mag = np.concatenate(
        [
            _magnitudes(rng, stars, STAR_MAG, STAR_SLOPE),
            _magnitudes(rng, count - stars, GALAXY_MAG, GALAXY_SLOPE),
        ]
    )
    _fill_colours(spec, rng, catalogue, red_mag)
    _fill_shapes(rng, catalogue, red_mag)
    # A Laplace deviate: most stars are slow, a few are fast.
    motion = rng.laplace(0, PROPER_MOTION_MAS_YR / math.sqrt(2), (2, count))
    catalogue["PMRA"], catalogue["PMDEC"] = np.where(galaxy, 0.0, motion)
    return catalogue


def make_reference(spec: NightSpec, catalogue: Array) -> Array:
    """A Gaia-like reference catalogue: most stars to a limit, with errors, at its own epoch."""
    rng = stream(spec.seed, "reference")
    magnitude = catalogue["MAG_" + spec.filters[0]]
    chosen = (catalogue["TYPE"] == b"STAR") & (magnitude < REFERENCE_FAINTEST_MAG)
    stars = catalogue[chosen & (rng.random(len(catalogue)) < REFERENCE_FRACTION)]
    count = len(stars)
    years = decimal_year(spec) - REFERENCE_EPOCH_YR
    measured = [("ID", "i4")] + [(name, "f8") for name in ("RA", "DEC")]
    measured += [
        (name, "f4") for name in ("RA_ERROR", "DEC_ERROR", "PMRA", "PMDEC", "PMRA_ERROR", "PMDEC_ERROR")
    ]
    measured += [(kind + name, "f4") for name in spec.filters for kind in ("MAG_", "MAGERR_")] + [
        ("REF_EPOCH", "f8")
    ]
    reference = np.zeros(count, dtype=measured)
    reference["ID"], reference["REF_EPOCH"] = stars["ID"], REFERENCE_EPOCH_YR
    reference["RA_ERROR"] = reference["DEC_ERROR"] = REFERENCE_ERROR_MAS
    reference["PMRA_ERROR"] = reference["PMDEC_ERROR"] = REFERENCE_PM_ERROR_MAS_YR
    back_east = rng.normal(0, REFERENCE_ERROR_MAS, count) - stars["PMRA"] * years
    back_north = rng.normal(0, REFERENCE_ERROR_MAS, count) - stars["PMDEC"] * years
    reference["DEC"] = stars["DEC"] + back_north / 3.6e6
    reference["RA"] = (stars["RA"] + back_east / 3.6e6 / np.cos(np.radians(stars["DEC"]))) % 360.0
    for name in ("PMRA", "PMDEC"):
        reference[name] = stars[name] + rng.normal(0, REFERENCE_PM_ERROR_MAS_YR, count)
    for name in spec.filters:
        reference["MAG_" + name] = stars["MAG_" + name] + rng.normal(0, REFERENCE_MAG_ERROR, count)
        reference["MAGERR_" + name] = REFERENCE_MAG_ERROR
    return reference


def units_of(table: Array) -> dict[str, str]:
    """The unit of each column of a catalogue or reference that has one."""
    fixed = dict.fromkeys(("RA", "DEC", "PA_DEG"), "deg") | dict.fromkeys(("R_HALF", "R_BULGE"), "arcsec")
    fixed |= dict.fromkeys(("RA_ERROR", "DEC_ERROR"), "mas") | {"COLOUR": "mag", "REF_EPOCH": "yr"}
    fixed |= dict.fromkeys(("PMRA", "PMDEC", "PMRA_ERROR", "PMDEC_ERROR"), "mas/yr")
    names = table.dtype.names or ()
    return {name: fixed.get(name, "mag") for name in names if name in fixed or name.startswith("MAG")}


def _field_half_deg(spec: NightSpec) -> tuple[float, float]:
    """Half the field, wide enough for every dither, pointing error and stamp."""
    scale = spec.pixel_scale_arcsec
    margin = (
        1.5 * dither_step_px(spec) * scale + 5 * POINTING_RMS_ARCSEC + 40 * scale + 10 * spec.seeing_arcsec
    )
    margin += 2 * CORNER_DISTORTION * spec.corner_px * scale
    width, height = ((side * scale + margin) / 3600 for side in spec.half_size_px)
    return width, height


def _catalogue_type(spec: NightSpec) -> list[tuple[str, str]]:
    kinds = [("ID", "i4"), ("TYPE", "S6"), ("RA", "f8"), ("DEC", "f8"), ("PMRA", "f4"), ("PMDEC", "f4")]
    kinds += [("MAG_" + name, "f4") for name in spec.filters] + [("COLOUR", "f4")]
    return kinds + [(name, "f4") for name in ("R_HALF", "AXIS_RATIO", "PA_DEG", "BULGE", "R_BULGE")]


def _magnitudes(rng: np.random.Generator, count: int, limits: tuple[float, float], slope: float) -> Array:
    """Magnitudes whose counts grow as 10^(slope mag) between the limits."""
    low, high = (10 ** (slope * (limit - limits[1])) for limit in limits)
    return np.asarray(limits[1] + np.log10(rng.uniform(low, high, count)) / slope)


def _fill_colours(spec: NightSpec, rng: np.random.Generator, catalogue: Array, red_mag: Array) -> None:
    """V - R of each source, and a spectrum that is a straight line in magnitude over 1 / wavelength."""
    count = len(catalogue)
    late = rng.random(count) < 0.6
    star = np.where(late, rng.normal(0.90, 0.15, count), rng.normal(0.38, 0.12, count))
    colour = np.where(catalogue["TYPE"] == b"STAR", star, rng.normal(0.55, 0.20, count))
    catalogue["COLOUR"] = colour
    for name in spec.filters:
        lever = (1 / FILTERS[name].wavelength_nm - 1 / R_NM) / (1 / V_NM - 1 / R_NM)
        catalogue["MAG_" + name] = red_mag + colour * lever


def _fill_shapes(rng: np.random.Generator, catalogue: Array, red_mag: Array) -> None:
    galaxy, count = catalogue["TYPE"] == b"GALAXY", len(catalogue)
    half_arcsec = np.clip(0.45 * 10 ** (-0.11 * (red_mag - 22) + rng.normal(0, 0.15, count)), 0.1, 6.0)
    catalogue["R_HALF"] = np.where(galaxy, half_arcsec, 0)
    catalogue["AXIS_RATIO"] = np.where(galaxy, rng.uniform(0.25, 1.0, count), 1)
    catalogue["PA_DEG"] = np.where(galaxy, rng.uniform(0, 180, count), 0)
    catalogue["BULGE"] = np.where(galaxy, rng.beta(0.8, 1.8, count), 0)
    catalogue["R_BULGE"] = np.where(galaxy, half_arcsec * rng.uniform(0.25, 0.6, count), 0)


def _polynomial(terms: Mapping[int, float], u: Array, v: Array) -> tuple[Array, Array, Array]:
    """A TPV polynomial to the third order of its own axis u and the other, v, and its derivatives to both."""
    uu, uv, vv, uuu, uuv, uvv, vvv = (terms.get(term, 0.0) for term in range(4, 11))
    value = u * (1 + uu * u + uv * v + uuu * u * u + uuv * u * v + uvv * v * v) + v * v * (vv + vvv * v)
    to_u = 1 + 2 * uu * u + uv * v + 3 * uuu * u * u + 2 * uuv * u * v + uvv * v * v
    to_v = uv * u + 2 * vv * v + uuv * u * u + 2 * uvv * u * v + 3 * vvv * v * v
    return value, to_u, to_v
