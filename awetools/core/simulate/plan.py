"""When each exposure of the night is taken, and under which conditions.

Everything random is drawn from a stream with a name, so that an exposure is the
same however many others are made, in whatever order, in however many processes.
"""

from __future__ import annotations

import datetime
import hashlib
import math
from dataclasses import dataclass, replace

import numpy as np

from ..errors import BadValue
from .spec import FILTERS, NightSpec

SITE_LONGITUDE_DEG, SITE_LATITUDE_DEG = -70.4, -24.6
FIELD_DEC_DEG = -15.0
READOUT_S = 20.0
POINTING_RMS_ARCSEC = 3.0
TRAIL_EVERY, TRAIL_FIRST = 3, 2
LAMP_ADU_S, TWILIGHT_ADU_S = 2000.0, 9000.0
TWILIGHT_FADE_S, TWILIGHT_TARGET_ADU, TWILIGHT_LONGEST_S = 220.0, 22e3, 120.0

UNSCHEDULED = datetime.datetime.min

# Hours UTC after the evening date's midnight: the afternoon (biases, then dome flats),
# evening twilight, the science part, the morning (darks). Local noon is at 16.69.
AFTERNOON, TWILIGHT, SCIENCE, MORNING = (17.0, 22.75), (22.75, 25.5), (25.5, 32.5), (34.0, 40.6)
TRANSIT = 28.25


@dataclass(frozen=True)
class Lamp:
    """Light of a flat field over the mosaic: level_adu * (1 + gx X + gy Y + bowl (X^2 + Y^2)).

    X and Y run from -1 to 1 across the mosaic's width and height. A twilight
    flat also has some stars.
    """

    level_adu: float
    gradient: tuple[float, float]
    bowl: float
    stars: int = 0


@dataclass(frozen=True)
class Trail:
    """A satellite trail through two points of the mosaic (X, Y as in Lamp); peak in e-/pixel."""

    start: tuple[float, float]
    end: tuple[float, float]
    peak_e: float
    fwhm_arcsec: float


@dataclass(frozen=True)
class Conditions:
    """Sky, atmosphere and pointing of one science exposure.

    Pointings are (RA, Dec) of the optical axis in degrees; the pointing error is
    in arcsec on the sky, east and north.
    """

    nominal_deg: tuple[float, float]
    pointing_error_arcsec: tuple[float, float]
    rotation_deg: float
    airmass: float
    seeing_arcsec: float
    ellipticity: tuple[float, float]
    transparency: float
    sky_mag_arcsec2: float
    sky_gradient: tuple[float, float]
    fringe_amplitude: float
    trail: Trail | None

    @property
    def true_deg(self) -> tuple[float, float]:
        """Where the telescope really pointed."""
        ra, dec = self.nominal_deg
        east, north = self.pointing_error_arcsec
        true_dec = dec + north / 3600
        return (ra + east / 3600 / math.cos(math.radians(dec))) % 360.0, true_dec


@dataclass(frozen=True)
class Exposure:
    """One exposure of all detectors; `index` counts from 1 within its type and filter."""

    number: int
    obstype: str
    filter: str
    index: int
    start: datetime.datetime
    exptime_s: float
    lamp: Lamp | None = None
    conditions: Conditions | None = None

    def stem(self, detector: str) -> str:
        """File name of one detector's frame, without its suffix."""
        return f"sim_{self.number:04d}_{detector}"


def stream(seed: int, *name: object) -> np.random.Generator:
    """The random stream of that seed and name; streams of different names are independent."""
    digest = hashlib.sha256("/".join(map(str, (seed, *name))).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def plan_night(spec: NightSpec) -> tuple[Exposure, ...]:
    """All exposures of the night in the order of their start. Raises BadValue if it is too short."""
    afternoon = [_shot("BIAS", "", n, 0.0) for n in _upto(spec.biases)]
    for name in spec.filters:
        afternoon += [_dome_flat(spec, name, n) for n in _upto(spec.flats)]
    twilight = [shot for name in spec.filters for shot in _twilight_flats(spec, name)]
    science = [
        _shot("OBJECT", name, n, spec.exptime_s) for n in _upto(spec.exposures) for name in spec.filters
    ]
    morning = [_shot("DARK", "", n, spec.dark_exptime_s) for n in _upto(spec.darks)]

    timed: list[Exposure] = []
    for shots, hours, part in (
        (afternoon, AFTERNOON, "afternoon (biases, flats)"),
        (twilight, TWILIGHT, "twilight (twilights)"),
        (science, SCIENCE, "night (exposures)"),
        (morning, MORNING, "morning (darks)"),
    ):
        timed += _timed(spec, shots, hours, part, first=len(timed) + 1)
    return tuple(
        replace(shot, conditions=_conditions(spec, shot)) if shot.obstype == "OBJECT" else shot
        for shot in timed
    )


def field_centre_deg(spec: NightSpec) -> tuple[float, float]:
    """RA and Dec of the field: one that crosses the meridian some hours after science frames begin."""
    transit = _midnight(spec) + datetime.timedelta(hours=TRANSIT)
    return round(sidereal_deg(transit), 4), FIELD_DEC_DEG


def sidereal_deg(time: datetime.datetime) -> float:
    """Local sidereal time in degrees (mean, to 0.1 s; Astronomical Almanac, section B)."""
    days = (time - datetime.datetime(2000, 1, 1, 12)).total_seconds() / 86400
    return (280.46061837 + 360.98564736629 * days + SITE_LONGITUDE_DEG) % 360.0


def dither_step_px(spec: NightSpec) -> float:
    """Size of the dither pattern: enough to fill the gaps between detectors."""
    return 1.2 * spec.gap_px


def decimal_year(spec: NightSpec) -> float:
    """The night as a year with a fraction, for proper motions."""
    date = datetime.date.fromisoformat(spec.night)
    first = datetime.date(date.year, 1, 1)
    return date.year + (date - first).days / (datetime.date(date.year + 1, 1, 1) - first).days


def _upto(count: int) -> range:
    return range(1, count + 1)


def _midnight(spec: NightSpec) -> datetime.datetime:
    return datetime.datetime.combine(datetime.date.fromisoformat(spec.night), datetime.time())


def _shot(obstype: str, name: str, index: int, exptime_s: float) -> Exposure:
    return Exposure(0, obstype, name, index, UNSCHEDULED, exptime_s)


def _dome_flat(spec: NightSpec, name: str, index: int) -> Exposure:
    """Two flats of the same exposure time, then the next level: pairs for the photon transfer."""
    common, own = stream(spec.seed, "dome", name), stream(spec.seed, "dome", name, index)
    fraction = _van_der_corput((index + 1) // 2)
    wanted_adu = spec.flat_low_adu + (spec.flat_high_adu - spec.flat_low_adu) * fraction
    exptime_s = round(wanted_adu / LAMP_ADU_S, 1)
    tilt = common.normal(0, 0.015, 2) + own.normal(0, 0.001, 2)
    lamp = Lamp(
        level_adu=LAMP_ADU_S * exptime_s * (1 + own.normal(0, 0.002)) * (1 + spec.lamp_drift * (index - 1)),
        gradient=(float(tilt[0]), float(tilt[1])),
        bowl=float(common.normal(-0.01, 0.002)),
    )
    return Exposure(0, "DOMEFLAT", name, index, UNSCHEDULED, exptime_s, lamp=lamp)


def _van_der_corput(number: int) -> float:
    """The number's bits mirrored at the point: fills 0 to 1 evenly, however many are taken."""
    value, weight = 0.0, 0.5
    while number:
        value += weight * (number & 1)
        number, weight = number >> 1, weight / 2
    return value


def _twilight_flats(spec: NightSpec, name: str) -> list[Exposure]:
    """Flats of a sky that fades exponentially, with exposure times chosen by an observer who guesses."""
    shots, since_s = [], 0.0
    for index in _upto(spec.twilights):
        own = stream(spec.seed, "twilight", name, index)
        rate = TWILIGHT_ADU_S * math.exp(-since_s / TWILIGHT_FADE_S)
        guess = TWILIGHT_TARGET_ADU * math.exp(own.normal(0, 0.2))
        exptime_s = float(min(TWILIGHT_LONGEST_S, max(2.0, round(guess / rate))))
        # The mean of an exponential over the exposure.
        fading = TWILIGHT_FADE_S * (1 - math.exp(-exptime_s / TWILIGHT_FADE_S))
        tilt = own.normal(0, 0.004, 2)
        lamp = Lamp(rate * fading, (float(tilt[0]), float(tilt[1])), 0.0, stars=int(own.integers(4, 12)))
        shots.append(Exposure(0, "SKYFLAT", name, index, UNSCHEDULED, exptime_s, lamp=lamp))
        since_s += exptime_s + READOUT_S
    return shots


def _timed(
    spec: NightSpec, shots: list[Exposure], hours: tuple[float, float], part: str, first: int
) -> list[Exposure]:
    """The exposures one after the other from the start of their part of the night."""
    timed, since_s = [], 0.0
    for number, shot in enumerate(shots, first):
        start = _midnight(spec) + datetime.timedelta(hours=hours[0], seconds=since_s)
        timed.append(replace(shot, number=number, start=start))
        since_s += shot.exptime_s + READOUT_S
    available_s = (hours[1] - hours[0]) * 3600
    if since_s > available_s:
        raise BadValue(
            f"{len(shots)} exposures of the {part} take {since_s:.0f} s, readouts included; "
            f"must be at most {available_s:.0f} s"
        )
    return timed


def _conditions(spec: NightSpec, shot: Exposure) -> Conditions:
    rng = stream(spec.seed, "conditions", shot.filter, shot.index)
    nominal = _dithered(spec, shot.index)
    middle = shot.start + datetime.timedelta(seconds=shot.exptime_s / 2)
    error, shape, tilt = (
        rng.normal(0, POINTING_RMS_ARCSEC, 2),
        rng.normal(0, 0.02, 2),
        rng.normal(0, 0.012, 2),
    )
    band = FILTERS[shot.filter]
    return Conditions(
        nominal_deg=nominal,
        pointing_error_arcsec=(float(error[0]), float(error[1])),
        rotation_deg=float(rng.normal(0, 0.01)),
        airmass=_airmass(nominal, middle),
        seeing_arcsec=spec.seeing_arcsec * math.exp(rng.normal(0, 0.08)),
        ellipticity=(float(shape[0]), float(shape[1])),
        transparency=float(rng.uniform(0.9, 1.0)),
        sky_mag_arcsec2=band.sky_mag_arcsec2 + float(rng.normal(0, 0.1)),
        sky_gradient=(float(tilt[0]), float(tilt[1])),
        fringe_amplitude=band.fringes * float(rng.uniform(0.7, 1.3)),
        trail=_trail(rng) if shot.index % TRAIL_EVERY == TRAIL_FIRST else None,
    )


def _dithered(spec: NightSpec, index: int) -> tuple[float, float]:
    """Rings of five pointings, each ring turned, so that none is repeated; RA, Dec in degrees."""
    ra, dec = field_centre_deg(spec)
    ring, place = divmod(index - 1, 5)
    radius = 1.0 if place else min(1, ring) * 0.4
    angle = math.radians(72 * place + 31 * ring + 20)
    step_deg = dither_step_px(spec) * spec.pixel_scale_arcsec / 3600
    east, north = radius * step_deg * math.cos(angle), radius * step_deg * math.sin(angle)
    return round((ra + east / math.cos(math.radians(dec))) % 360.0, 6), round(dec + north, 6)


def _airmass(pointing_deg: tuple[float, float], time: datetime.datetime) -> float:
    """Secant of the zenith distance."""
    hour_angle = math.radians(sidereal_deg(time) - pointing_deg[0])
    dec, latitude = math.radians(pointing_deg[1]), math.radians(SITE_LATITUDE_DEG)
    sine = math.sin(latitude) * math.sin(dec) + math.cos(latitude) * math.cos(dec) * math.cos(hour_angle)
    return round(1 / sine, 4)


def _trail(rng: np.random.Generator) -> Trail:
    """A line from the left half of the mosaic to the right half."""
    x, y = rng.uniform(0.3, 0.9, 2), rng.uniform(-0.8, 0.8, 2)
    return Trail(
        start=(-float(x[0]), float(y[0])),
        end=(float(x[1]), float(y[1])),
        peak_e=float(10 ** rng.uniform(2.5, 3.5)),
        fwhm_arcsec=float(rng.uniform(0.8, 2.0)),
    )
