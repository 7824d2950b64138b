"""Angles, dates and times as headers write them, turned into degrees and UTC.

All functions answer None for what they cannot read: a camera table then tries the
next card. Nothing here knows about cameras.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

_MJD_ZERO = datetime(1858, 11, 17)
_JD_OF_MJD_ZERO = 2400000.5
_FIRST_YEAR, _LAST_YEAR = 1840, 2400

_SEXAGESIMAL = re.compile(
    r"([NSEW]?)\s*([+-]?)\s*(\d{1,3})\s*[:hd°\s]\s*(\d{1,2}(?:\.\d*)?)\s*"
    r"(?:[:m'\s]\s*(\d{1,2}(?:\.\d*)?)\s*[s\"]?)?\s*([NSEW]?)",
    re.ASCII,
)
_DECIMAL = re.compile(r"([NSEW]?)\s*([+-]?\s*(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([NSEW]?)", re.ASCII)
_ISO = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})(?:(?:T|\s+)(.+))?", re.ASCII)
_COMPACT = re.compile(r"(\d{4})(\d{2})(\d{2})(?:T(.+))?", re.ASCII)
_SLASHED = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{2})(?:(?:T|\s+)(.+))?", re.ASCII)
_CLOCK = re.compile(
    r"(\d{1,2})[:h](\d{1,2})(?:[:m](\d{1,2}(?:\.\d*)?)s?)?\s*(?:(Z|UTC?)|([+-])(\d{2}):?(\d{2}))?", re.ASCII
)


def angle_deg(value: object, form: str = "degrees") -> float | None:
    """An angle in degrees from a number or from text such as '-5:10:09.4'.

    form: 'degrees'; 'hours' (number or text is in hours); 'ra' (text with colons is
    in hours, a number in degrees). A letter W or S beside it makes it negative.
    """
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return _finite(value * 15 if form == "hours" else float(value))
    text = str(value).strip()
    decimal = _DECIMAL.fullmatch(text)
    if decimal:
        size = float(decimal[2].replace(" ", ""))
        return _finite(_signed(size, decimal[1] + decimal[3]) * (15 if form == "hours" else 1))
    parts = _SEXAGESIMAL.fullmatch(text)
    if not parts:
        return None
    before, sign, whole, minutes, seconds, after = parts.groups()
    if float(minutes) >= 60 or float(seconds or 0) > 60:
        return None
    size = int(whole) + float(minutes) / 60 + float(seconds or 0) / 3600
    size = _signed(-size if sign == "-" else size, before + after)
    return size * 15 if form in ("hours", "ra") else size


def _signed(size: float, letters: str) -> float:
    return -abs(size) if letters in ("W", "S") else size


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def moment(date: object, clock: object = None, clock_unit: str = "hours") -> datetime | None:
    """A date, with its time of day from its own text or from a second card; naive, or with the text's zone.

    date: '2017-03-03T02:10:29.47', '2017-03-03', '2017/03/03', '20170303', '03/03/17'
    (day/month/year of the 1900s, as FITS defines it), each with an offset or Z if
    there is one. clock: '02:10:29.47' or a number of `clock_unit` ('hours' or 'seconds').
    """
    if isinstance(date, bool) or date is None:
        return None
    text = str(date).strip()
    for pattern, order in ((_ISO, (1, 3, 4, 5)), (_COMPACT, (1, 2, 3, 4)), (_SLASHED, (3, 2, 1, 4))):
        found = pattern.fullmatch(text)
        if found:
            year, month, day, rest = (found.group(number) for number in order)
            century = 1900 if pattern is _SLASHED else 0
            return _moment((int(year) + century, int(month), int(day)), rest or clock, clock_unit)
    return None


def _moment(day: tuple[int, int, int], clock: object, unit: str) -> datetime | None:
    try:
        midnight = datetime(*day)
    except ValueError:
        return None
    if not _FIRST_YEAR <= midnight.year <= _LAST_YEAR:
        return None
    if clock is None:
        return midnight
    if isinstance(clock, int | float) and not isinstance(clock, bool):
        seconds = float(clock) * (3600 if unit == "hours" else 1)
        return midnight + timedelta(seconds=seconds) if 0 <= seconds < 86401 else None
    found = _CLOCK.fullmatch(str(clock).strip())
    if not found:
        return None
    hours, minutes, seconds_text, zulu, sign, zone_hours, zone_minutes = found.groups()
    seconds = float(seconds_text or 0)
    if int(hours) > 24 or int(minutes) > 59 or seconds >= 61:
        return None
    when = midnight + timedelta(hours=int(hours), minutes=int(minutes), seconds=seconds)
    if zulu:
        return when.replace(tzinfo=UTC)
    if not sign:
        return when
    offset = timedelta(hours=int(zone_hours), minutes=int(zone_minutes))
    return (when - offset if sign == "+" else when + offset).replace(tzinfo=UTC)


def has_clock(date: object) -> bool:
    """Whether a date's text carries its time of day."""
    return isinstance(date, str) and ":" in date


def from_mjd(value: object, form: str = "mjd") -> datetime | None:
    """The moment of a Modified Julian Date ('mjd'), Julian Date ('jd') or seconds since MJD 0 ('seconds')."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    days = number - _JD_OF_MJD_ZERO if form == "jd" else number / 86400 if form == "seconds" else number
    if not 0 < days < 190_000:
        return None
    whole, part = divmod(days, 1)
    return _MJD_ZERO + timedelta(days=whole, milliseconds=round(part * 86400e3, 2))


# The first day on which TAI - UTC had this many seconds (IERS Bulletin C).
_LEAPS = (
    ((1972, 1), 10), ((1972, 7), 11), ((1973, 1), 12), ((1974, 1), 13), ((1975, 1), 14), ((1976, 1), 15),
    ((1977, 1), 16), ((1978, 1), 17), ((1979, 1), 18), ((1980, 1), 19), ((1981, 7), 20), ((1982, 7), 21),
    ((1983, 7), 22), ((1985, 7), 23), ((1988, 1), 24), ((1990, 1), 25), ((1991, 1), 26), ((1992, 7), 27),
    ((1993, 7), 28), ((1994, 7), 29), ((1996, 1), 30), ((1997, 7), 31), ((1999, 1), 32), ((2006, 1), 33),
    ((2009, 1), 34), ((2012, 7), 35), ((2015, 7), 36), ((2017, 1), 37),
)  # fmt: skip


def to_utc(when: datetime, scale: str) -> datetime | None:
    """A moment of a time scale (UTC, UT1, GMT, TAI, TT, TDB, GPS) as UTC; None for a scale not known."""
    scale = scale.strip().upper()
    if scale.startswith("UT") or scale in ("GMT", ""):
        return when
    ahead = {"TAI": 0.0, "TT": 32.184, "TDT": 32.184, "TDB": 32.184, "ET": 32.184, "GPS": -19.0}.get(scale)
    if ahead is None:
        return None
    atomic = when - timedelta(seconds=ahead)
    leaps = [seconds for (year, month), seconds in _LEAPS if atomic >= datetime(year, month, 1)]
    return atomic - timedelta(seconds=leaps[-1] if leaps else 0)


def iso_text(when: datetime) -> str:
    """ISO 8601 with milliseconds and no zone letter: '2017-03-03T02:10:29.470'."""
    rounded = when + timedelta(microseconds=500)
    return rounded.replace(tzinfo=None, microsecond=rounded.microsecond // 1000 * 1000).isoformat(
        timespec="milliseconds"
    )


def evening(when: datetime, longitude_deg: float) -> str:
    """The date of the evening, YYYY-MM-DD: local mean noon to noon at a longitude, east positive."""
    east = (longitude_deg + 180) % 360 - 180
    try:
        return (when + timedelta(hours=east / 15 - 12)).date().isoformat()
    except OverflowError:
        # On the first day or the last that can be written.
        return when.date().isoformat()


def to_j2000(ra_deg: float, dec_deg: float, equinox: float) -> tuple[float, float]:
    """A position of the mean equator and equinox of a year, precessed to J2000.

    Good to some arcseconds, as a rough pointing needs (B1950 is taken as Julian).
    Source: IAU 1976 precession, Lieske et al. 1977, A&A 58, 1.
    """
    t = (equinox - 2000) / 100
    zeta = math.radians((2306.2181 * t + 0.30188 * t**2 + 0.017998 * t**3) / 3600)
    z = math.radians((2306.2181 * t + 1.09468 * t**2 + 0.018203 * t**3) / 3600)
    theta = math.radians((2004.3109 * t - 0.42665 * t**2 - 0.041833 * t**3) / 3600)
    # The angles lead from J2000 to the year; the way back swaps and negates them.
    ra, dec = math.radians(ra_deg) - z, math.radians(dec_deg)
    a = math.cos(dec) * math.sin(ra)
    b = math.cos(theta) * math.cos(dec) * math.cos(ra) + math.sin(theta) * math.sin(dec)
    c = -math.sin(theta) * math.cos(dec) * math.cos(ra) + math.cos(theta) * math.sin(dec)
    return math.degrees(math.atan2(a, b) - zeta) % 360, math.degrees(math.asin(max(-1.0, min(1.0, c))))
