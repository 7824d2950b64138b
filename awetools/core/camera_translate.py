"""What a detector's headers mean, in our names and units, by the table of its camera."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from .camera_detectors import DetectorAddress, HduInfo, extension_cards
from .camera_layout import Image, Placed, celestial_wcs, place_amplifiers, trimmed_wcs
from .camera_rules import Cards, Found, fill, first_date, first_value, plain_text
from .camera_tables import RULE_FIELDS, Camera, safe_name
from .errors import BadHeader, BadValue, UnknownName, nearest
from .expressions.evaluation import holds, number
from .expressions.expression import Node, names
from .fitsheader import Header
from .meta import ALIASES, FIELDS, FRAME_TYPES, OVERSCAN_MODES, Field
from .sections import amplifiers_from_meta, amplifiers_to_meta, detector_shape
from .units import evening, iso_text, moment, to_j2000
from .wcscards import wcs_pixel_scale_arcsec

_FILE_NAMES = ("instrument", "detector", "exposure")
_DERIVED = {
    "nx": ("it follows from the sections", "--set sections=..."),
    "ny": ("it follows from the sections", "--set sections=..."),
    "holds_bias": ("it is said of master darks, by awe-dark", ""),
    "slid": ("it is the number of a source list, by awe-sourcelist", ""),
}
_ON_SKY = ("raw_science", "raw_twiflat", "raw_other")
_BY_NAME = {one.name: one for one in FIELDS}


@dataclass(frozen=True)
class Translation:
    """What a detector's header means.

    meta: the fields of `core.meta`; origins: field to (card, 'table' or 'override';
    the rule's text); type_trace: the type rules tried, with what they found;
    problems: contradictions and what could not be told.
    """

    meta: dict[str, Any]
    origins: dict[str, tuple[str, str]]
    type_trace: list[str]
    problems: list[str]


@dataclass
class _Draft:
    """A translation being made."""

    camera: Camera
    cards: Cards
    overrides: Mapping[str, Any]
    where: str
    meta: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, tuple[str, str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def put(self, name: str, value: Any, card: str, rule: str) -> None:
        """Set a field, unless it is overridden, and let rules ask for it."""
        if name in self.overrides:
            value = self.overrides[name]
            card, rule = "override", f"{name}={'' if value is None else plain_text(value)}"
        self.meta[name] = value
        self.cards.extra[f"meta.{name}"] = value
        if value is not None or card == "override":
            self.origins[name] = (card, rule)


def translate(
    camera: Camera,
    hdus: Sequence[HduInfo],
    detector: DetectorAddress,
    overrides: Mapping[str, str] | None = None,
    file: str = "",
) -> Translation:
    """What a detector's headers mean, in our names and units.

    Overrides win over the table. Raises BadValue and UnknownName for overrides that
    make no sense, BadHeader where sections do not fit the image.
    """
    where = file or "the frame"
    by_index = {hdu.index: hdu for hdu in hdus}
    parts = [by_index[index] for index in detector.hdus]
    cards = _detector_cards(parts, hdus[0].header, file)
    draft = _Draft(camera, cards, _typed_overrides(overrides or {}, camera), where)
    draft.put("camera", camera.name, "table", camera.source)
    for name, rules in camera.let.items():
        found = first_value(rules, cards)
        cards.extra[f"let.{name}"] = found.value if found else None
    for name in RULE_FIELDS:
        _put_field(draft, name)
    _put_temperature_match(draft)
    draft.put("detector", detector.name, *_detector_origin(camera, detector.name, cards))
    _put_times(draft, file)
    _put_pointing(draft)
    placed = _put_sections(draft, parts)
    _put_amplifier_values(draft, placed)
    trace = _put_type(draft)
    _put_wcs(draft, parts, hdus[0].header, placed)
    _run_checks(draft)
    meta = {one.name: draft.meta.get(one.name) for one in FIELDS}
    return Translation(meta, draft.origins, trace, list(dict.fromkeys(draft.problems)))


def _detector_cards(parts: Sequence[HduInfo], primary: Header, file: str) -> Cards:
    """Cards of a detector: of its extension, then the primary; of one made of many, the primary first."""
    cards = extension_cards(parts[0], primary, file)
    if len(parts) > 1:
        cards.headers = (primary, parts[0].header)
        cards.extra.pop("HDU", None)
    return cards


def _put_field(draft: _Draft, name: str) -> None:
    found = first_value(draft.camera.fields.get(name, ()), draft.cards)
    if found is None:
        default = draft.camera.name if name == "instrument" else "1x1" if name == "binning" else None
        draft.put(name, default, "table", "default")
        return
    value = _typed(_BY_NAME[name], found.value)
    if value is None and found.value is not None:
        draft.problems.append(f"{name}: cannot use {plain_text(found.value)[:60]!r} of {found.card}")
    draft.put(name, value, found.card, found.rule)


def _typed(one: Field, value: object) -> object:
    if one.type == "real":
        size = number(value)
        if size is None or not math.isfinite(size):
            return None
        # Some controllers report the set point as they measure it; calibrations match by it.
        return round(float(size), 1) if one.name == "temperature_set_c" else float(size)
    text = " ".join(plain_text(value).split())
    if one.name in _FILE_NAMES:
        return safe_name(text) or None
    if one.name == "binning":
        found = _BINNING.fullmatch(text.lower())
        return f"{int(found[1])}x{int(found[2])}" if found else None
    return text or None


_BINNING = re.compile(r"0*([1-9][0-9]{0,2})[x ,]0*([1-9][0-9]{0,2})")


def _detector_origin(camera: Camera, name: str, cards: Cards) -> tuple[str, str]:
    for rule in camera.detector_name:
        found = first_value([rule], cards)
        if found is not None and safe_name(plain_text(found.value)) == name:
            return found.card, found.rule
    return "table", "default"


def _put_temperature_match(draft: _Draft) -> None:
    """The temperature by which darks match: the set point, else the measured one to 1 C."""
    name = "temperature_set_c" if draft.meta["temperature_set_c"] is not None else "temperature_c"
    value = draft.meta[name]
    card, rule = draft.origins.get(name, ("table", "default"))
    draft.put("temperature_match_c", None if value is None else _match_degrees(name, value), card, rule)


def _match_degrees(name: str, value: float) -> float:
    # -0 and 0 are one temperature, but two texts.
    return value if name == "temperature_set_c" else float(round(value)) + 0.0


def _put_times(draft: _Draft, file: str) -> None:
    found, card, rule = _start(draft)
    draft.put("obs_start", iso_text(found) if found else None, card, rule)
    text = draft.meta["obs_start"]
    start = moment(text) if text else None
    _put_longitude(draft)
    _put_latitude(draft)
    _put_night(draft, start)
    if draft.meta["exposure"] is None or "exposure" in draft.overrides:
        name = start.strftime("%Y%m%dT%H%M%S") if start else safe_name(Path(file).name.split(".")[0]) or None
        draft.put(
            "exposure", name, card if start else "table", "start of the exposure" if start else "file name"
        )
    if start is None:
        draft.problems.append("the header does not say when the exposure started")
    else:
        _check_end(draft, start)


def _put_longitude(draft: _Draft) -> None:
    found = first_value(draft.camera.longitude, draft.cards)
    size = number(found.value) if found else None
    if found is None or size is None or not math.isfinite(size):
        draft.put("site_longitude_deg", None, "table", "default")
        return
    draft.put("site_longitude_deg", (float(size) + 180) % 360 - 180, found.card, found.rule)


def _put_latitude(draft: _Draft) -> None:
    found = first_value(draft.camera.latitude, draft.cards)
    size = number(found.value) if found else None
    if found is None or size is None or not math.isfinite(size):
        draft.put("site_latitude_deg", None, "table", "default")
    elif not -90 <= size <= 90:
        draft.problems.append(f"the site's latitude is {size:g} degrees; it is taken as not known")
        draft.put("site_latitude_deg", None, "table", "default")
    else:
        draft.put("site_latitude_deg", float(size), found.card, found.rule)


def _put_night(draft: _Draft, start: datetime | None) -> None:
    if start is None:
        draft.put("night", None, "table", "default")
        return
    east = draft.meta["site_longitude_deg"]
    cards = [draft.origins["obs_start"][0]]
    if east is None:
        if "night" not in draft.overrides:
            draft.problems.append(
                "the site's longitude is not known, so the night is from UTC noon to noon "
                "(awe-ingest --set site_longitude_deg=DEGREES)"
            )
    else:
        cards.append(draft.origins["site_longitude_deg"][0])
    draft.put("night", evening(start, east or 0.0), " ".join(cards), "local noon to noon")


def _start(draft: _Draft) -> tuple[datetime | None, str, str]:
    found = first_date(draft.camera.obs_start, draft.cards)
    if found is None:
        return None, "table", "default"
    seconds = draft.meta["exptime_s"]
    if found.at != "start" and seconds is None:
        draft.problems.append(f"{found.card} is the {found.at} of an exposure whose length is not known")
    back = {"start": 0.0, "mid": 0.5, "end": 1.0}[found.at] * (seconds or 0.0)
    return found.value - timedelta(seconds=back), found.card, found.rule


def _check_end(draft: _Draft, start: datetime) -> None:
    """Note an exposure time that start and end contradict; reading out and pauses may make the span longer."""
    found = first_date(draft.camera.obs_end, draft.cards)
    seconds = draft.meta["exptime_s"]
    if found is None or seconds is None:
        return
    span = (found.value - start).total_seconds()
    if span < seconds - 2 or span > 2 * seconds + 120:
        draft.problems.append(
            f"the exposure time is {seconds:g} s, but from start to end ({found.card}) are {span:g} s"
        )


def _put_pointing(draft: _Draft) -> None:
    ra, dec = draft.meta["ra_deg"], draft.meta["dec_deg"]
    if ra is not None:
        draft.put("ra_deg", ra % 360, *draft.origins["ra_deg"])
    if dec is not None and not -90 <= dec <= 90:
        draft.problems.append(f"the declination is {dec:g} degrees")
        draft.put("dec_deg", None, "table", "default")
    found = first_value(draft.camera.equinox, draft.cards)
    year = number(found.value) if found else None
    if year is None or not 1800 < year < 2100 or abs(year - 2000) < 0.5:
        return
    ra, dec = draft.meta["ra_deg"], draft.meta["dec_deg"]
    if ra is None or dec is None:
        return
    there = to_j2000(ra, dec, float(year))
    for name, value in zip(("ra_deg", "dec_deg"), there, strict=True):
        card, rule = draft.origins[name]
        draft.put(name, round(value, 6), card, f"{rule}, precessed from {year:g}")


def _put_sections(draft: _Draft, parts: Sequence[HduInfo]) -> list[Placed]:
    binning = (1, 1)
    if draft.meta["binning"]:
        across, along = draft.meta["binning"].split("x")
        binning = int(across), int(along)
    images = [_image(part, draft.cards, len(parts)) for part in parts]
    known_problems = len(draft.problems)
    if "sections" in draft.overrides:
        shapes = {image.hdu: image.shape for image in images}
        amps = amplifiers_from_meta(draft.overrides["sections"], shapes)
        by_hdu = {image.hdu: image.cards for image in images}
        placed = [Placed(one, one.name, by_hdu[one.hdu]) for one in amps]
    else:
        try:
            camera = draft.camera
            placed = place_amplifiers(
                camera.layouts, camera.trim, images, binning, camera.lenient, draft.problems
            )
        except BadHeader as error:
            raise BadHeader(f"{draft.where}: {error.message}", hint=error.hint) from None
    amplifiers = [one.amplifier for one in placed]
    ny, nx = detector_shape(amplifiers)
    sections = amplifiers_to_meta(amplifiers)
    if len(draft.problems) > known_problems:
        # Good enough to look at the frame, not to calibrate with: makers refuse it by this.
        sections[0]["doubt"] = draft.problems[known_problems]
    draft.put("sections", sections, "table", "layout")
    draft.put("nx", nx, "table", "sections")
    draft.put("ny", ny, "table", "sections")
    found = first_value(draft.camera.overscan_mode, draft.cards)
    mode = str(found.value) if found else "rows-smooth"
    if not any(one.overscan for one in amplifiers):
        mode = "none"
    draft.put("overscan_mode", mode, found.card if found else "table", found.rule if found else "default")
    return placed


def _image(part: HduInfo, cards: Cards, count: int) -> Image:
    assert part.shape is not None
    shape = (part.shape[-2], part.shape[-1])
    own = cards.over(part.header) if count > 1 else cards
    size = {"NAXIS1": shape[1], "NAXIS2": shape[0], "HDU": part.index, "AMPLIFIERS": count}
    own.extra = {**cards.extra, **size}
    return Image(part.index, shape, own)


def _put_amplifier_values(draft: _Draft, placed: Sequence[Placed]) -> None:
    gains = _values(draft, placed, "gain_e_adu")
    noises = _values(draft, placed, "read_noise_adu")
    electrons = _values(draft, placed, "read_noise_e")
    for place, (noise, gain) in enumerate(zip(electrons, _known_gains(draft, gains), strict=True)):
        if noises[place] is None and noise is not None and gain is not None:
            noises[place] = noise._replace(value=noise.value / gain, rule=f"{noise.rule}, / gain")
    for name, found in (
        ("gain_e_adu", gains),
        ("read_noise_adu", noises),
        ("saturation_adu", _values(draft, placed, "saturation_adu")),
        ("nonlinear_adu", _values(draft, placed, "nonlinear_adu")),
    ):
        _put_list(draft, name, found, len(placed))


def _values(draft: _Draft, placed: Sequence[Placed], name: str) -> list[Found | None]:
    found = [first_value(draft.camera.amplifier_rules(name, one.letter), one.cards) for one in placed]
    checked: list[Found | None] = []
    for one in found:
        size = number(one.value) if one else None
        good = size is not None and math.isfinite(size) and size > 0
        checked.append(one._replace(value=float(size)) if one and size is not None and good else None)
        if one is not None and size is not None and not good:
            draft.problems.append(f"{one.card} = {one.value} is no {name}; it is taken as not known")
    return checked


def _known_gains(draft: _Draft, gains: Sequence[Found | None]) -> list[float | None]:
    given = draft.overrides.get("gain_e_adu")
    if given is not None:
        values = given if isinstance(given, list) else [given] * len(gains)
        return list(values) if len(values) == len(gains) else [None] * len(gains)
    return [one.value if one else None for one in gains]


def _put_list(draft: _Draft, name: str, found: Sequence[Found | None], count: int) -> None:
    """A value an amplifier, or null: half a list would serve nobody."""
    given = draft.overrides.get(name)
    if given is not None:
        values = given if isinstance(given, list) else [given] * count
        if len(values) != count:
            raise BadValue(f"--set {name}: {len(values)} values, but the detector has {count} amplifiers")
        draft.meta[name] = values
        draft.cards.extra[f"meta.{name}"] = values
        draft.origins[name] = ("override", f"{name}={json.dumps(given)}")
        return
    known = [one for one in found if one is not None]
    if len(known) < len(found):
        if known:
            draft.problems.append(f"{name} is known for {len(known)} of {len(found)} amplifiers only")
        draft.put(name, None, "table", "default")
        return
    origin = known[0]
    draft.put(name, [one.value for one in known], origin.card, origin.rule)


def _put_type(draft: _Draft) -> list[str]:
    trace: list[str] = []
    if "frame_type" in draft.overrides:
        draft.put("frame_type", None, "", "")
        return [f"{draft.meta['frame_type']}: set by hand"]
    for rule in draft.camera.types:
        true = holds(rule.when, draft.cards.lookup)
        because = f" ({rule.because})" if true and rule.because else ""
        shown = _shown_names(rule.when, draft.cards.lookup)
        trace.append(f"{rule.frame_type} if {rule.text}: {'yes' if true else 'no'}{shown}{because}")
        if true:
            draft.put("frame_type", rule.frame_type, " ".join(sorted(names(rule.when))) or "table", rule.text)
            return trace
    trace.append(f"raw_other: no type rule of camera {draft.camera.name} holds")
    draft.problems.append(
        f"the frame's type cannot be told: no type rule of camera {draft.camera.name} holds"
    )
    draft.put("frame_type", "raw_other", "table", "no type rule holds")
    return trace


def _shown_names(node: Node, lookup: Callable[[str], object]) -> str:
    shown = [f"{name}={_short(lookup(name))}" for name in sorted(names(node))]
    return f" [{', '.join(shown)}]" if shown else ""


def _short(value: object) -> str:
    text = "null" if value is None else repr(value) if isinstance(value, str) else plain_text(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _put_wcs(draft: _Draft, parts: Sequence[HduInfo], primary: Header, placed: Sequence[Placed]) -> None:
    """The WCS of the trimmed detector; that of a primary above several amplifiers is of the assembled image."""
    assembled = draft.camera.wcs_frame == "assembled"
    headers = [parts[0].header] if parts[0].index == 0 else [parts[0].header, primary]
    if len(parts) > 1 and celestial_wcs([primary]) is not None:
        headers, assembled = [primary], True
    found = celestial_wcs(headers)
    if found is not None and draft.meta["pixel_scale_arcsec"] is None:
        scale = wcs_pixel_scale_arcsec(found)
        if scale is not None and 1e-4 < scale < 3600:
            draft.put("pixel_scale_arcsec", round(scale, 6), "CTYPE1", "WCS")
    if found is not None and not assembled:
        found = trimmed_wcs(found, placed[0].amplifier)
    if draft.meta["frame_type"] not in _ON_SKY:
        found = None
    draft.put("wcs", found, "CTYPE1", "WCS")


def _run_checks(draft: _Draft) -> None:
    for check in draft.camera.checks:
        if holds(check.when, draft.cards.lookup):
            draft.problems.append(fill(check.problem, draft.cards) or check.text)


# Overrides


def _typed_overrides(overrides: Mapping[str, str], camera: Camera) -> dict[str, Any]:
    """The --set words as values of their fields; raises UnknownName, BadValue."""
    made: dict[str, Any] = {}
    for word, text in overrides.items():
        name = ALIASES.get(word, word)
        if name not in _BY_NAME:
            known = [*(one.name for one in FIELDS), *ALIASES]
            raise UnknownName(f"--set {word}: no such field{nearest(word, known)}")
        made[name] = _override(_BY_NAME[name], str(text).strip(), camera)
    return made


def _override(one: Field, text: str, camera: Camera) -> Any:
    if one.name in _DERIVED:
        reason, hint = _DERIVED[one.name]
        raise BadValue(f"--set {one.name}: {reason}", hint=hint)
    if one.name == "camera" and text != camera.name:
        raise BadValue(f"--set camera={text}: the frame was read with the table of {camera.name}")
    if text in ("", "null") and one.name not in ("camera", "frame_type", "detector", "sections"):
        return None
    if one.type == "json":
        return _json_override(one, text)
    if one.type == "real":
        size = number(text)
        if size is None or not math.isfinite(size):
            raise BadValue(f"--set {one.name}={text}: a number is needed ({one.unit or 'no unit'})")
        if one.name == "site_latitude_deg" and not -90 <= size <= 90:
            raise BadValue(f"--set {one.name}={text}: a latitude is from -90 to 90")
        return float(size)
    return _text_override(one, text)


def _text_override(one: Field, text: str) -> str:
    allowed = {"frame_type": FRAME_TYPES, "overscan_mode": OVERSCAN_MODES}.get(one.name)
    if allowed is not None and text not in allowed:
        raise BadValue(
            f"--set {one.name}={text}: it is one of {' '.join(allowed)}{nearest(text, list(allowed))}"
        )
    if one.name in _FILE_NAMES and not text:
        raise BadValue(f"--set {one.name}=: a name is needed")
    if one.name in _FILE_NAMES and safe_name(text) != text:
        raise BadValue(
            f"--set {one.name}={text}: only letters, digits and . _ + - (as in {safe_name(text)!r})"
        )
    if one.name == "binning" and not re.fullmatch(r"[1-9][0-9]?x[1-9][0-9]?", text):
        raise BadValue(f"--set binning={text}: it is written as 2x2")
    if one.name == "night":
        day = moment(text)
        if day is None or len(text) != 10 or text != day.date().isoformat():
            raise BadValue(f"--set night={text}: it is written as 2017-03-02")
    if one.name == "obs_start":
        when = moment(text)
        if when is None:
            raise BadValue(f"--set obs_start={text}: it is written as 2017-03-03T02:10:29.470, UTC")
        return iso_text(when)
    return text


def _json_override(one: Field, text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise BadValue(f"--set {one.name}={text[:60]}: a number or JSON is needed") from None
    if one.name == "wcs":
        if not isinstance(value, dict):
            raise BadValue(f"--set wcs={text[:60]}: a JSON object of cards is needed")
        return value
    if one.name == "sections":
        amplifiers_from_meta(value)
        return value
    values = value if isinstance(value, list) else [value]
    if not values or not all(
        isinstance(size, int | float) and not isinstance(size, bool) and 0 < size < math.inf
        for size in values
    ):
        raise BadValue(f"--set {one.name}={text[:60]}: a number above 0, or a list with one an amplifier")
    return [float(size) for size in value] if isinstance(value, list) else float(value)
