"""What can be asked of a simulated night, and whether it makes sense; light, so that --help starts fast.

No numpy here: the command reads the settings' help from these classes.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..errors import BadValue, nearest
from ..params import convert, param, params_of

GAP_FRACTION = 0.05
"""Gap between neighbouring detectors, as a fraction of a detector's width."""

OVERSCAN_COLUMNS = 32
"""Overscan columns of each amplifier."""

ORIGIN = "simulated night"
SEEING_RANGE_PX = (1.2, 40.0)
LARGEST_RADIUS_DEG = 5.0
SMALLEST_SIDE_PX, LARGEST_SIDE_PX = 64, 32768


@dataclass(frozen=True)
class Band:
    """One filter of the simulated camera: throughput, sky and atmosphere.

    zero_point_mag: magnitude of 1 e-/s above the atmosphere; sky in mag per
    square arcsec; extinction in mag per airmass; fringes: amplitude relative
    to the sky, 0 where the detector does not fringe.
    """

    zero_point_mag: float
    sky_mag_arcsec2: float
    extinction_mag: float
    wavelength_nm: float
    fringes: float = 0.0


FILTERS: dict[str, Band] = {
    "U": Band(24.6, 21.9, 0.48, 365.0),
    "B": Band(26.0, 22.5, 0.22, 440.0),
    "V": Band(26.1, 21.6, 0.13, 550.0),
    "R": Band(26.2, 20.9, 0.09, 650.0),
    "I": Band(25.6, 19.8, 0.06, 790.0, 0.010),
    "u": Band(24.8, 22.3, 0.48, 355.0),
    "g": Band(26.3, 21.9, 0.17, 475.0),
    "r": Band(26.2, 21.0, 0.10, 625.0),
    "i": Band(25.9, 20.1, 0.07, 770.0, 0.006),
    "z": Band(25.2, 19.2, 0.05, 900.0, 0.020),
    "y": Band(24.3, 18.0, 0.05, 1000.0, 0.030),
}
"""Every filter that the simulated camera has."""


def _listed(default: tuple[int, int] | tuple[str, ...], help: str, unit: str = "") -> Any:
    """A setting of several values, with the same metadata as `param` gives a scalar."""
    about = {"help": help, "unit": unit, "low": None, "high": None, "choices": ()}
    return dataclasses.field(default=default, metadata=about)


@dataclass(frozen=True)
class NightSpec:
    """One simulated night: how many frames of which size, of what camera and sky.

    Help, unit, default and range of every field are its metadata (read them with
    `awetools.core.params.params_of`). Raises BadValue, naming field, value and range.
    """

    detectors: int = param(2, "Detectors of the mosaic, side by side.", low=1, high=64)
    exposures: int = param(5, "Science exposures in each filter.", low=0)
    biases: int = param(10, "Bias exposures.", low=0)
    flats: int = param(10, "Dome flats in each filter; they come in pairs of one level.", low=0)
    twilights: int = param(3, "Twilight flats in each filter.", low=0)
    darks: int = param(3, "Dark exposures, taken in the morning.", low=0)
    shape: tuple[int, int] = _listed((1024, 2048), "Columns and rows of one trimmed detector.", "px")
    filters: tuple[str, ...] = _listed(("R",), "Filters used in the night: any of " + " ".join(FILTERS) + ".")
    seeing_arcsec: float = param(
        0.9, "Median seeing (FWHM); every exposure's own scatters by 8%.", unit="arcsec", low=0.05, high=60
    )
    pixel_scale_arcsec: float = param(0.25, "Size of a pixel on the sky.", unit="arcsec", low=0.01, high=60)
    seed: int = param(1, "Number that every random stream starts from.", low=0)
    amplifiers: int = param(
        2, "Amplifiers of a detector: 1, or 2 that read its left and right half.", low=1, high=2
    )
    exptime_s: float = param(120.0, "Exposure time of the science frames.", unit="s", low=1, high=3600)
    dark_exptime_s: float = param(300.0, "Exposure time of the darks.", unit="s", low=1, high=7200)
    stars_per_arcmin2: float = param(
        15.0, "Stars brighter than R = 24.5 a square arcminute.", unit="arcmin^-2", low=0, high=2000
    )
    galaxies_per_arcmin2: float = param(
        25.0, "Galaxies brighter than R = 24.5 a square arcminute.", unit="arcmin^-2", low=0, high=2000
    )
    night: str = param("2024-03-02", "Date of the evening, as YYYY-MM-DD.")
    gain_e_adu: float = param(
        1.8, "Gain of the amplifiers; each one's own is within 1.5%.", unit="e/ADU", low=0.1, high=20
    )
    flat_low_adu: float = param(10e3, "Lowest level of the dome flats.", unit="ADU", low=200, high=65535)
    flat_high_adu: float = param(36e3, "Highest level of the dome flats.", unit="ADU", low=200, high=65535)
    lamp_drift: float = param(
        0.0, "Fraction by which the lamp brightens from one dome flat to the next.", low=-0.05, high=0.05
    )
    nonlinearity: float = param(
        0.0, "Fraction of a signal of 65,535 ADU that is lost; half as much at half of it.", low=0, high=0.2
    )
    brighter_fatter: float = param(
        0.0, "Fraction of the variance of a flat of 50,000 e- that neighbours share.", low=0, high=0.3
    )
    scattered_light: float = param(
        0.0,
        "By what fraction scattered light makes flats and skies brighter in the middle of the mosaic.",
        low=0,
        high=0.3,
    )

    def __post_init__(self) -> None:
        for one in params_of(NightSpec):
            if one.name in ("shape", "filters"):
                continue
            value = convert(one, getattr(self, one.name), ORIGIN)
            object.__setattr__(self, one.name, value)
        object.__setattr__(self, "shape", _checked_shape(self.shape, self.amplifiers))
        object.__setattr__(self, "filters", _checked_filters(self.filters))
        _check_date(self.night)
        _check_seeing(self.seeing_arcsec, self.pixel_scale_arcsec)
        _check_field(self)
        _check_flats(self)

    @property
    def gap_px(self) -> int:
        """Columns of sky lost between neighbouring detectors."""
        return max(8, round(GAP_FRACTION * self.shape[0]))

    @property
    def half_size_px(self) -> tuple[float, float]:
        """Half the width and half the height of the mosaic."""
        nx, ny = self.shape
        return (self.detectors * nx + (self.detectors - 1) * self.gap_px) / 2, ny / 2

    @property
    def corner_px(self) -> float:
        """Distance from the optical axis to the mosaic's corner."""
        return math.hypot(*self.half_size_px)

    @property
    def detector_names(self) -> tuple[str, ...]:
        """Names of the detectors, from left to right."""
        return tuple(f"sim{index + 1}" for index in range(self.detectors))


def _checked_shape(shape: object, amplifiers: int) -> tuple[int, int]:
    wanted = f"must be two whole numbers, {SMALLEST_SIDE_PX} to {LARGEST_SIDE_PX}"
    if not isinstance(shape, Iterable) or isinstance(shape, str):
        raise BadValue(f"shape = {shape!r} ({ORIGIN}): {wanted}")
    sides = tuple(shape)
    good = len(sides) == 2 and all(
        isinstance(side, int) and not isinstance(side, bool) and SMALLEST_SIDE_PX <= side <= LARGEST_SIDE_PX
        for side in sides
    )
    if not good:
        raise BadValue(f"shape = {sides!r} ({ORIGIN}): {wanted}")
    if sides[0] % amplifiers:
        raise BadValue(
            f"shape = {sides!r} ({ORIGIN}): {amplifiers} amplifiers need an even number of columns"
        )
    return sides[0], sides[1]


def _checked_filters(filters: object) -> tuple[str, ...]:
    if not isinstance(filters, Iterable) or isinstance(filters, str):
        raise BadValue(f"filters = {filters!r} ({ORIGIN}): must be a list of filters: {' '.join(FILTERS)}")
    names = tuple(filters)
    if not names:
        raise BadValue(f"filters = () ({ORIGIN}): must hold at least one of {' '.join(FILTERS)}")
    for name in names:
        if name not in FILTERS:
            near = nearest(str(name), list(FILTERS))
            raise BadValue(f"filters = {name!r} ({ORIGIN}): must be one of {' '.join(FILTERS)}{near}")
    if len(set(names)) != len(names):
        raise BadValue(f"filters = {names!r} ({ORIGIN}): each filter only once")
    return names


def _check_date(night: str) -> None:
    try:
        date = datetime.date.fromisoformat(night)
    except ValueError:
        raise BadValue(f"night = {night!r} ({ORIGIN}): must be a date, YYYY-MM-DD") from None
    if not 1950 <= date.year <= 2100 or night != date.isoformat():
        raise BadValue(f"night = {night!r} ({ORIGIN}): must be a date, YYYY-MM-DD, 1950 to 2100")


def _check_seeing(seeing_arcsec: float, pixel_scale_arcsec: float) -> None:
    low, high = SEEING_RANGE_PX
    low_arcsec, high_arcsec = low * pixel_scale_arcsec, high * pixel_scale_arcsec
    if not low_arcsec <= seeing_arcsec <= high_arcsec:
        raise BadValue(
            f"seeing_arcsec = {seeing_arcsec:g} ({ORIGIN}): must be {low_arcsec:g} to {high_arcsec:g}, "
            f"{low:g} to {high:g} pixels of {pixel_scale_arcsec:g} arcsec"
        )


def _check_flats(spec: NightSpec) -> None:
    if spec.flat_low_adu > spec.flat_high_adu:
        raise BadValue(
            f"flat_low_adu = {spec.flat_low_adu:g} ({ORIGIN}): "
            f"must be at most flat_high_adu = {spec.flat_high_adu:g}"
        )


def _check_field(spec: NightSpec) -> None:
    radius_deg = spec.corner_px * spec.pixel_scale_arcsec / 3600
    if radius_deg > LARGEST_RADIUS_DEG:
        raise BadValue(
            f"pixel_scale_arcsec = {spec.pixel_scale_arcsec:g} ({ORIGIN}): the mosaic's corner would be "
            f"{radius_deg:.1f} deg from its centre; must be at most {LARGEST_RADIUS_DEG:g} deg"
        )
