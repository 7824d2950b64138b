"""The catalogue of meta fields: what a frame's header is translated into, in our names and units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FRAME_TYPES = (
    "raw_bias",
    "raw_dark",
    "raw_domeflat",
    "raw_twiflat",
    "raw_science",
    "raw_other",
)
OVERSCAN_MODES = ("none", "level", "rows", "rows-smooth")

# What differs between the frames of one set-up: which exposure it is, not how it was taken.
VARYING = ("exposure", "object", "airmass", "ra_deg", "dec_deg", "obs_start", "temperature_c")

# What `window` begins with in products whose pixels are those of a sky grid: the text of the grid follows.
ON_GRID = "grid "

# The only second names that fields have.
ALIASES = {"chip": "detector", "date": "night"}


@dataclass(frozen=True)
class Field:
    """One meta field: name, type ('text', 'real', 'integer' or 'json'), unit and a sentence."""

    name: str
    type: str
    unit: str
    help: str


FIELDS: tuple[Field, ...] = (
    Field("camera", "text", "", "Camera table that translated the header."),
    Field("instrument", "text", "", "Instrument, as the camera table names it; safe in file names."),
    Field("detector", "text", "", "Detector (chip) of the instrument; safe in file names."),
    Field("frame_type", "text", "", "Type of the frame: " + " ".join(FRAME_TYPES) + "."),
    Field("exposure", "text", "", "Exposure, the same for all its detectors; safe in file names."),
    Field("object", "text", "", "Name of the target, as the observer wrote it."),
    Field("filter", "text", "", "Filter, as the camera table names it."),
    Field("night", "text", "", "Date of the evening, YYYY-MM-DD: local mean noon to noon at the site."),
    Field("obs_start", "text", "UTC", "Start of the exposure, ISO 8601 with milliseconds, no zone letter."),
    Field("exptime_s", "real", "s", "Exposure time."),
    Field("site_longitude_deg", "real", "deg", "Longitude of the site, east positive."),
    Field("site_latitude_deg", "real", "deg", "Latitude of the site, north positive."),
    Field("airmass", "real", "", "Airmass, at the start or the mean as the header gives it."),
    Field("ra_deg", "real", "deg", "Right ascension of the pointing."),
    Field("dec_deg", "real", "deg", "Declination of the pointing."),
    Field("pixel_scale_arcsec", "real", "arcsec", "Nominal size of a pixel on the sky, as binned."),
    Field("binning", "text", "", "Binning, columns x rows, such as 2x2."),
    Field("readout", "text", "", "Readout mode or speed."),
    Field("gain_setting", "text", "", "Gain setting of the controller; not a gain."),
    Field(
        "window",
        "text",
        "",
        "Part of the detector that was read out; or the sky grid that the pixels are of.",
    ),
    Field(
        "grid", "text", "", "Name of the sky grid that the pixels are of, where a name was given; else null."
    ),
    Field("tile", "text", "", "Tile of that grid; null where it has none."),
    Field("overscan_mode", "text", "", "How overscan is subtracted: " + " ".join(OVERSCAN_MODES) + "."),
    Field("temperature_c", "real", "C", "Temperature of the detector."),
    Field("temperature_set_c", "real", "C", "Set point of the detector's temperature."),
    Field("temperature_match_c", "real", "C", "Temperature by which darks match: set point, else to 1 C."),
    Field("nx", "integer", "px", "Columns of the trimmed, assembled detector."),
    Field("ny", "integer", "px", "Rows of the trimmed, assembled detector."),
    Field("sections", "json", "", "One item an amplifier: amp, hdu, data, overscan, target."),
    Field("gain_e_adu", "json", "e/ADU", "Gain of each amplifier, or null."),
    Field("read_noise_adu", "json", "ADU", "Read noise of each amplifier, or null."),
    Field("saturation_adu", "json", "ADU", "Saturation level of each amplifier, or null."),
    Field("nonlinear_adu", "json", "ADU", "Raw level from which each amplifier is nonlinear, or null."),
    Field(
        "holds_bias", "integer", "", "1 for a dark that holds the bias, being made without one; else null."
    ),
    Field(
        "calibration_nights_away",
        "integer",
        "",
        "How many nights away a calibration lies that was used outside its validity; null if all were valid.",
    ),
    Field("zeropoint_mag", "real", "mag", "Magnitude of a source of 1 ADU/s, where it is known; else null."),
    Field("zeropoint_band", "text", "", "Band of these magnitudes; null where they are relative, or none."),
    Field(
        "gridded",
        "json",
        "",
        "Of an image on a sky grid: background (subtract, match, leave); of a single frame there also its exptime_s, "
        "zeropoint_mag and noise_ratio, and nx, ny of the image. Else null.",
    ),
    Field("slid", "integer", "", "Number of a source list, which no other list has; else null."),
    Field("wcs", "json", "", "Cards of the celestial WCS of the trimmed image, or null."),
)


def on_grid(meta: Mapping[str, Any]) -> bool:
    """Whether a product's pixels are those of a sky grid rather than a detector's."""
    return str(meta.get("window") or "").startswith(ON_GRID)
