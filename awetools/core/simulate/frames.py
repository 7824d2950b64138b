"""One raw frame of one detector with its truth, and the maps that its detector's frames share."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from . import detector as maps
from .camera import INSTRUMENT, Card, Detector, amplifier_cards, make_detector
from .output import read_card, read_map, write_head, write_image
from .plan import (
    SITE_LATITUDE_DEG,
    SITE_LONGITUDE_DEG,
    Conditions,
    Exposure,
    stream,
)
from .readout import FrameName, collect, read_out, trimmed
from .render import catalogue_sources, lamp_light, science_light, sky_level_e
from .sky import make_catalogue, nominal_wcs, true_wcs
from .spec import FILTERS, NightSpec

OBJECT_NAMES = {
    "BIAS": "BIAS",
    "DARK": "DARK",
    "DOMEFLAT": "DOME",
    "SKYFLAT": "TWILIGHT",
    "OBJECT": "SIMFIELD",
}
EPOCH_MJD = datetime.datetime(1858, 11, 17)


@dataclass(frozen=True)
class Made:
    """What was made: its line of frames.csv (none for the maps), and the bytes written."""

    row: dict[str, Any] | None
    bytes_written: int


@dataclass
class _Light:
    """What a frame's light adds to its files and its line of frames.csv."""

    electrons: np.ndarray | None = None
    trail: np.ndarray | None = None
    level_adu: float = 0.0
    zero_point_mag: float | None = None
    effective_gain_e_adu: float | None = None


def map_path(directory: Path, what: str, detector: Detector) -> Path:
    """Where a truth map of a detector lies; what: bias, dark, pixmask, flat_<filter>, ..."""
    return directory / "truth" / f"{what}_{detector.name}.fits"


def make_maps(directory: Path, spec: NightSpec, index: int) -> Made:
    """Write the truth maps of one detector."""
    detector = make_detector(spec, index)
    defects = maps.find_defects(spec, detector)
    mask = maps.pixel_mask(detector, defects)

    def write(what: str, image: np.ndarray, unit: str, *cards: Card) -> int:
        base: list[Card] = [("INSTRUME", INSTRUMENT, ""), ("DETECTOR", detector.name, "")]
        if unit:
            base.append(("BUNIT", unit, ""))
        return write_image(map_path(directory, what, detector), image, [*base, *cards])

    written = write("pixmask", mask, "")
    written += write("bias", maps.bias_map(spec, detector, defects), "adu")
    written += write("dark", maps.dark_map(spec, detector, defects), "electron/s")
    if spec.scattered_light:
        scattered = maps.scattered_map(spec, detector)
        written += write("scattered", scattered / scattered.mean(dtype=np.float64).astype(np.float32), "")
    for name in spec.filters:
        response = maps.response_map(spec, detector, defects, name)
        flat, gain = maps.flat_adu(detector, response, mask)
        written += write(f"flat_{name}", response, "")
        written += write(
            f"flat_adu_{name}", flat, "", ("EFFGAIN", gain, "[e-/ADU] after dividing by this flat")
        )
        if FILTERS[name].fringes:
            written += write(f"fringe_{name}", maps.fringe_map(spec, detector, name), "")
    return Made(None, written)


def make_frame(directory: Path, spec: NightSpec, index: int, shot: Exposure) -> Made:
    """Write one raw frame and its truth; the maps of its detector must be there."""
    detector = make_detector(spec, index)
    name = FrameName(shot.obstype, shot.filter, shot.index, index)
    stem = shot.stem(detector.name)
    light, written = _light(directory, spec, detector, shot, stem)
    electrons, mask = None, None
    if shot.obstype != "BIAS":
        expected = read_map(map_path(directory, "dark", detector)) * np.float32(shot.exptime_s)
        if light.electrons is not None:
            light.electrons *= read_map(map_path(directory, f"flat_{shot.filter}", detector))
            expected += light.electrons
        electrons, mask = collect(spec, detector, name, expected, shot.exptime_s, light.trail)
    raw = read_out(spec, detector, name, read_map(map_path(directory, "bias", detector)), electrons)
    path = directory / "raw" / f"{stem}.fits"
    written += write_image(path, raw, frame_cards(spec, detector, shot))
    counts = {"saturated_px": 0, "cosmic_px": 0, "trail_px": 0}
    if mask is not None:
        mask[trimmed(detector, raw) >= detector.saturate_adu] |= maps.SATURATED
        bits = zip(counts, (maps.SATURATED, maps.COSMIC, maps.TRAIL), strict=True)
        counts = {key: int(np.count_nonzero(mask & bit)) for key, bit in bits}
    if mask is not None and shot.obstype in ("OBJECT", "DARK"):
        written += write_image(directory / "truth" / "mask" / f"{stem}.fits", mask)
    return Made(_row(detector, shot, f"raw/{path.name}", light) | counts, written)


def frame_cards(spec: NightSpec, detector: Detector, shot: Exposure) -> list[Card]:
    """The header of a raw frame."""
    when = shot.start.isoformat(timespec="milliseconds")
    temperature = -110 + stream(spec.seed, "temperature", shot.obstype, shot.filter, shot.index).normal(
        0, 0.05
    )
    cards: list[Card] = [
        ("TELESCOP", "SIM-2M", "simulated"),
        ("INSTRUME", INSTRUMENT, ""),
        ("DETECTOR", detector.name, ""),
        ("OBSTYPE", shot.obstype, ""),
        ("OBJECT", OBJECT_NAMES[shot.obstype], ""),
        ("EXPTIME", shot.exptime_s, "[s]"),
        ("DATE-OBS", when, "UTC, start of the exposure"),
        ("MJD-OBS", round((shot.start - EPOCH_MJD).total_seconds() / 86400, 8), "UTC, start of the exposure"),
        ("EXPNUM", shot.number, "number of the exposure in the night"),
        ("CCDSUM", "1 1", "binning"),
        ("READMODE", "normal", ""),
        ("GAINSET", "high", "setting of the controller"),
        ("DETTEMP", round(float(temperature), 2), "[C]"),
        ("SATURATE", detector.saturate_adu, "[adu] raw level, bias included"),
        ("PIXSCALE", spec.pixel_scale_arcsec, "[arcsec]"),
        ("SITELONG", SITE_LONGITUDE_DEG, "[deg] east positive"),
        ("SITELAT", SITE_LATITUDE_DEG, "[deg]"),
        ("BUNIT", "adu", ""),
    ]
    if shot.filter:
        cards.append(("FILTER", shot.filter, ""))
    if shot.conditions:
        ra, dec = shot.conditions.nominal_deg
        cards += [("RA", ra, "[deg] wanted pointing"), ("DEC", dec, "[deg] wanted pointing")]
        cards.append(("AIRMASS", shot.conditions.airmass, "middle of the exposure"))
    cards += amplifier_cards(detector)
    if shot.conditions:
        cards += nominal_wcs(spec, detector, shot.conditions.nominal_deg).cards(detector.data_start)
    return cards


def _light(
    directory: Path, spec: NightSpec, detector: Detector, shot: Exposure, stem: str
) -> tuple[_Light, int]:
    """The light of a frame where the response is 1; a science frame's truth is written here."""
    if not shot.filter:
        dark = 0.0
        if shot.obstype == "DARK":
            dark = float(np.median(read_map(map_path(directory, "dark", detector)))) * shot.exptime_s
        return _Light(level_adu=dark / spec.gain_e_adu), 0
    gain = read_card(map_path(directory, f"flat_adu_{shot.filter}", detector), "EFFGAIN")
    if shot.conditions is None:
        electrons = lamp_light(spec, detector, shot)
        level = float(electrons.mean(dtype=np.float64)) / gain
        return _Light(electrons, level_adu=level, effective_gain_e_adu=gain), 0
    return _science_light(directory, spec, detector, shot, shot.conditions, stem, gain)


def _science_light(
    directory: Path,
    spec: NightSpec,
    detector: Detector,
    shot: Exposure,
    conditions: Conditions,
    stem: str,
    gain: float,
) -> tuple[_Light, int]:
    wcs = true_wcs(spec, detector, conditions)
    sources = catalogue_sources(spec, detector, shot, conditions, wcs, _catalogue(spec))
    fringes = None
    if FILTERS[shot.filter].fringes:
        fringes = read_map(map_path(directory, f"fringe_{shot.filter}", detector))
    electrons, trail = science_light(spec, detector, shot, conditions, sources, fringes)
    truth: list[Card] = [
        ("BUNIT", "adu", ""),
        ("EFFGAIN", gain, "[e-/ADU]"),
        ("EXPTIME", shot.exptime_s, "[s]"),
    ]
    written = write_image(
        directory / "truth" / "science" / f"{stem}.fits", electrons / np.float32(gain), truth
    )
    written += write_head(directory / "truth" / "wcs" / f"{stem}.head", wcs.cards())
    band = FILTERS[shot.filter]
    zero_point = band.zero_point_mag - band.extinction_mag * conditions.airmass
    zero_point += 2.5 * math.log10(conditions.transparency * detector.efficiency / gain)
    level = sky_level_e(spec, detector, shot, conditions) / gain
    return _Light(electrons, trail, level, zero_point, gain), written


def _row(detector: Detector, shot: Exposure, file: str, light: _Light) -> dict[str, Any]:
    """A line of frames.csv."""
    conditions = shot.conditions
    return {
        "file": file,
        "number": shot.number,
        "detector": detector.name,
        "obstype": shot.obstype,
        "filter": shot.filter,
        "index": shot.index,
        "exptime_s": shot.exptime_s,
        "start_utc": shot.start.isoformat(timespec="milliseconds"),
        "level_adu": round(light.level_adu, 3),
        "effective_gain_e_adu": _rounded(light.effective_gain_e_adu, 5),
        "zero_point_mag": _rounded(light.zero_point_mag, 5),
        "airmass": conditions.airmass if conditions else "",
        "seeing_arcsec": round(conditions.seeing_arcsec, 4) if conditions else "",
    }


def _rounded(value: float | None, digits: int) -> float | str:
    return "" if value is None else round(value, digits)


@lru_cache(maxsize=1)
def _catalogue(spec: NightSpec) -> np.ndarray:
    return make_catalogue(spec)
