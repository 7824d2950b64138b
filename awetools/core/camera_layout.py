"""What a camera table says of a detector's amplifiers: sections, gain, noise, saturation, and the WCS."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .camera_rules import (
    Cards,
    Rule,
    check_keys,
    compile_condition,
    compile_rules,
    first_value,
    is_absent,
    plain_text,
)
from .errors import BadHeader, BadSettings
from .expressions.evaluation import evaluate, holds, number
from .expressions.expression import Node
from .fitsheader import Header, HeaderValue, wcs_cards
from .sections import (
    Amplifier,
    Section,
    amplifier,
    check_amplifiers,
    packed_targets,
    parse_section,
    placed_targets,
    trimmed,
)
from .wcscards import matrix

LAYOUT_KEYS = ("when", "amps", "data", "overscan", "target", "target_unbinned", "amp")
AMPLIFIER_KEYS = ("gain_e_adu", "read_noise_adu", "read_noise_e", "saturation_adu", "nonlinear_adu")
TRIM_KEYS = ("left", "right", "bottom", "top")
WCS_KEYS = ("frame",)

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NO_SECTION = "[0:0,0:0]"


@dataclass(frozen=True)
class SectionRule:
    """Where a section comes from: a card, section text, or expressions for its four limits."""

    card: str = ""
    text: str = ""
    limits: tuple[Node, ...] = ()


@dataclass(frozen=True)
class Layout:
    """How amplifiers lie in an image; compiled for one amplifier at a time, as card names hold its letter."""

    raw: Mapping[str, Any]
    where: str
    when: Node | None
    amps: tuple[str, ...]
    unbinned: bool

    def sections(self, role: str, amp: str) -> tuple[SectionRule, ...]:
        """The rules of a section ('data', 'overscan', 'target') for an amplifier."""
        raw = named(self.raw.get(role, []), amp)
        return compile_sections(raw, f"{self.where} {role}")

    def amp_name(self, amp: str) -> tuple[Rule, ...]:
        """The rules of the amplifier's name, where its letter does not name it."""
        return compile_rules(named(self.raw.get("amp", []), amp), f"{self.where} amp")


def named(raw: Any, amp: str) -> Any:
    """A TOML value with {amp} replaced by an amplifier's letter."""
    if isinstance(raw, str):
        return raw.replace("{amp}", amp)
    if isinstance(raw, list):
        return [named(item, amp) for item in raw]
    if isinstance(raw, dict):
        return {key: named(value, amp) for key, value in raw.items()}
    return raw


def compile_layout(raw: Any, where: str) -> Layout:
    """A layout of a table; raises BadSettings, naming the place."""
    if not isinstance(raw, dict):
        raise BadSettings(f"{where}: a table is needed, not {raw!r}")
    check_keys(raw, LAYOUT_KEYS, where)
    if "data" not in raw:
        raise BadSettings(f"{where}: a layout needs data")
    amps = raw.get("amps", [""])
    if not isinstance(amps, list) or not amps or not all(isinstance(amp, str) for amp in amps):
        raise BadSettings(f"{where}: amps must be a list of letters, not {amps!r}")
    layout = Layout(
        raw=raw,
        where=where,
        when=compile_condition(raw["when"], f"{where}: when") if "when" in raw else None,
        amps=tuple(amps),
        unbinned=bool(raw.get("target_unbinned", False)),
    )
    for role in ("data", "overscan", "target"):
        layout.sections(role, amps[0])
    layout.amp_name(amps[0])
    return layout


def compile_sections(raw: Any, where: str) -> tuple[SectionRule, ...]:
    """The section rules of a TOML value, in order; raises BadSettings, naming the place."""
    if isinstance(raw, list):
        return tuple(rule for item in raw for rule in compile_sections(item, where))
    if isinstance(raw, str):
        return (SectionRule(text=raw) if raw.startswith("[") else SectionRule(card=raw),)
    if not isinstance(raw, dict):
        raise BadSettings(f"{where}: a card, a section or a table with x and y is needed, not {raw!r}")
    check_keys(raw, ("x", "y"), where)
    limits = [*_pair(raw.get("x"), f"{where}: x"), *_pair(raw.get("y"), f"{where}: y")]
    return (SectionRule(limits=tuple(limits)),)


def _pair(raw: Any, where: str) -> list[Node]:
    if not isinstance(raw, list) or len(raw) != 2:
        raise BadSettings(f"{where}: two limits are needed, numbers or expressions, not {raw!r}")
    return [compile_condition(str(one) if isinstance(one, int) else one, where) for one in raw]


# Sections


@dataclass(frozen=True)
class Image:
    """One image HDU of a detector: its number, shape (ny, nx) and cards."""

    hdu: int
    shape: tuple[int, int]
    cards: Cards


@dataclass(frozen=True)
class Placed:
    """An amplifier with what its own values are asked of: the letter of its cards, and the cards."""

    amplifier: Amplifier
    letter: str
    cards: Cards


def place_amplifiers(
    layouts: Sequence[Layout],
    trim: Mapping[str, Node],
    images: Sequence[Image],
    binning: tuple[int, int],
    lenient: bool,
    problems: list[str],
) -> list[Placed]:
    """The amplifiers of a detector, by the first layout that serves; the whole image if none does.

    A lenient table notes sections that make no sense in `problems` and goes on to
    its next layout; else they raise BadHeader.
    """
    for layout in layouts:
        try:
            placed = _placed(layout, images, binning)
            if placed:
                return _trim(placed, trim, images[0].cards)
        except BadHeader as error:
            if not lenient:
                raise
            problems.append(error.message)
    if len(images) > 1:
        raise BadHeader(
            f"no layout of the camera table places the {len(images)} amplifiers of the detector in HDUs "
            + " ".join(str(image.hdu) for image in images)
        )
    return _trim([_whole(images[0])], trim, images[0].cards)


def _whole(image: Image) -> Placed:
    ny, nx = image.shape
    whole = Section(0, nx, 0, ny)
    return Placed(Amplifier("A", image.hdu, whole, None, whole), "", image.cards)


@dataclass(frozen=True)
class _Raw:
    letter: str
    name: str
    image: Image
    data: Section
    overscan: Section | None
    target: Section | None


def _placed(layout: Layout, images: Sequence[Image], binning: tuple[int, int]) -> list[Placed]:
    found: list[_Raw] = []
    for image in images:
        if layout.when is not None and not holds(layout.when, image.cards.lookup):
            return []
        here = [one for one in (_one_raw(layout, image, amp) for amp in layout.amps) if one]
        if not here:
            return []
        found += here
    targets = _targets(layout, found, len(images), binning)
    names = _names(found)
    made = [
        amplifier(name, one.image.hdu, one.data, one.overscan, target)
        for name, one, target in zip(names, found, targets, strict=True)
    ]
    check_amplifiers(made, {image.hdu: image.shape for image in images})
    return [Placed(amp, one.letter, one.image.cards) for amp, one in zip(made, found, strict=True)]


def _one_raw(layout: Layout, image: Image, amp: str) -> _Raw | None:
    data = _section(layout.sections("data", amp), image)
    if data is None:
        return None
    overscan = _section(layout.sections("overscan", amp), image)
    target = _section(layout.sections("target", amp), image)
    name = first_value(layout.amp_name(amp), image.cards)
    return _Raw(
        letter=amp,
        name=plain_text(name.value) if name else amp,
        image=image,
        data=data,
        overscan=_beside(overscan, data),
        target=target,
    )


def _section(rules: Sequence[SectionRule], image: Image) -> Section | None:
    ny, nx = image.shape
    for rule in rules:
        if rule.limits:
            section = _computed(rule.limits, image.cards)
        elif rule.text:
            section = parse_section(rule.text, (nx, ny))
        else:
            section = _from_card(rule.card, image.cards, (nx, ny))
        if section is not None:
            return section
    return None


def _from_card(name: str, cards: Cards, size: tuple[int, int]) -> Section | None:
    value, _ = cards.card(name)
    if is_absent(value) or plain_text(value).replace(" ", "") == _NO_SECTION:
        return None
    try:
        return parse_section(value, size)
    except BadHeader as error:
        raise BadHeader(f"card {name}: {error.message}") from None


def _computed(limits: Sequence[Node], cards: Cards) -> Section | None:
    numbers = [number(evaluate(limit, cards.lookup)) for limit in limits]
    if any(one is None or not math.isfinite(one) for one in numbers):
        return None
    x1, x2, y1, y2 = (int(one) for one in numbers if one is not None)
    if x1 < 1 or y1 < 1 or x2 < x1 or y2 < y1:
        return None
    return Section(x1 - 1, x2, y1 - 1, y2)


def _beside(overscan: Section | None, data: Section) -> Section | None:
    """The overscan columns on the rows of the data; rows of overscan above the data are not used."""
    if overscan is None or (overscan.x0 < data.x1 and data.x0 < overscan.x1):
        return None
    return Section(overscan.x0, overscan.x1, data.y0, data.y1)


def _targets(layout: Layout, found: Sequence[_Raw], images: int, binning: tuple[int, int]) -> list[Section]:
    known = [one.target for one in found if one.target is not None]
    if len(known) == len(found):
        return placed_targets(known, binning if layout.unbinned else (1, 1))
    if images > 1 or known:
        missing = " ".join(str(one.image.hdu) for one in found if one.target is None)
        raise BadHeader(f"the header does not say where the amplifiers of HDU {missing} lie in the detector")
    return packed_targets([one.data for one in found])


def _names(found: Sequence[_Raw]) -> list[str]:
    names = [one.name for one in found]
    if all(names) and len(set(names)) == len(names):
        return names
    if len(found) <= len(_LETTERS):
        return list(_LETTERS[: len(found)])
    return [str(place + 1) for place in range(len(found))]


def _trim(placed: Sequence[Placed], trim: Mapping[str, Node], cards: Cards) -> list[Placed]:
    if not trim:
        return list(placed)
    edges = {}
    for edge, node in trim.items():
        size = number(evaluate(node, cards.lookup))
        if size is None:
            raise BadHeader(f"how much to trim at the {edge} cannot be told from the header")
        edges[edge] = int(size)
    kept = {one.name: one for one in trimmed([one.amplifier for one in placed], **edges)}
    return [replace(one, amplifier=kept[one.amplifier.name]) for one in placed if one.amplifier.name in kept]


# World coordinates

_CELESTIAL = ("RA--", "DEC-", "GLON", "GLAT", "ELON", "ELAT")


def celestial_wcs(headers: Sequence[Header]) -> dict[str, HeaderValue] | None:
    """The celestial WCS of two axes that headers give together, the first one before the others; or None.

    Of the plate solution of the Digitized Sky Survey, where nothing else is given, the same as TPV.
    """
    cards: dict[str, HeaderValue] = {}
    for header in headers:
        cards = wcs_cards(header) | cards
        if "CTYPE1" in cards:
            break
    types = [str(cards.get(f"CTYPE{axis}", "")).upper() for axis in (1, 2)]
    if not any(types):
        return _of_plate(headers)
    if not all(kind.startswith(_CELESTIAL) for kind in types):
        return None
    kept: dict[str, HeaderValue] = {
        key: value for key, value in cards.items() if _of_two_axes(key) and value is not None
    }
    needed = [kept.get(key) for key in ("CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2")]
    if not all(isinstance(value, float) for value in needed) or matrix(kept) is None:
        return None
    if "RADECSYS" in kept:
        kept.setdefault("RADESYS", kept.pop("RADECSYS"))
        kept.pop("RADECSYS", None)
    kept.pop("WCSAXES", None)
    return kept


def _of_plate(headers: Sequence[Header]) -> dict[str, HeaderValue] | None:
    plates = [dict(header.items()) for header in headers if "PLTRAH" in header and "AMDX1" in header]
    if not plates:
        return None
    # Needs numpy: no other header waits for it.
    from .sky.readwcs import is_plate, read_plate
    from .sky.writewcs import wcs_as_cards

    try:
        return wcs_as_cards(read_plate(plates[0])) if is_plate(plates[0]) else None
    except BadHeader:
        return None


def _of_two_axes(key: str) -> bool:
    if key[:2] in ("CD", "PC") and "_" in key:
        return key[2:] in ("1_1", "1_2", "2_1", "2_2")
    if key.startswith(("PV", "PS")) and "_" in key:
        return key[2] in "12" and key[3] == "_"
    if key.startswith(("CTYPE", "CUNIT", "CRVAL", "CRPIX", "CDELT", "CROTA")):
        return key[5:] in ("1", "2")
    return True


def trimmed_wcs(cards: Mapping[str, HeaderValue], one: Amplifier) -> dict[str, HeaderValue]:
    """A WCS of the raw image as that of the trimmed detector, by one amplifier's place in both.

    A mirrored amplifier mirrors the reference pixel, the matrix and the SIP terms;
    TPV and other terms of the projection act behind the matrix and stay.
    """
    made = dict(cards)
    sign = (-1 if one.target.flip_x else 1, -1 if one.target.flip_y else 1)
    shift = (
        one.target.x1 + one.data.x0 + 1 if one.target.flip_x else one.target.x0 - one.data.x0,
        one.target.y1 + one.data.y0 + 1 if one.target.flip_y else one.target.y0 - one.data.y0,
    )
    for axis in (0, 1):
        reference = made[f"CRPIX{axis + 1}"]
        assert isinstance(reference, float)
        made[f"CRPIX{axis + 1}"] = sign[axis] * reference + shift[axis]
    if sign == (1, 1):
        return made
    found = matrix(made)
    assert found is not None
    for key in [key for key in made if key[:2] in ("CD", "PC") or key.startswith("CROTA")]:
        del made[key]
    made |= {
        "CD1_1": found[0] * sign[0],
        "CD1_2": found[1] * sign[1],
        "CD2_1": found[2] * sign[0],
        "CD2_2": found[3] * sign[1],
    }
    polynomial = [key for key in made if key.startswith(("A_", "B_", "AP_", "BP_"))]
    return made | {key: _mirrored(key, made[key], sign) for key in polynomial}


def _mirrored(key: str, value: HeaderValue, sign: tuple[int, int]) -> HeaderValue:
    """A SIP coefficient of mirrored axes; A_ and AP_ give the first axis, B_ and BP_ the second."""
    parts = key.split("_")
    if len(parts) != 3 or not isinstance(value, float):
        return value
    own = sign[0] if key[0] == "A" else sign[1]
    return float(value * own * sign[0] ** int(parts[1]) * sign[1] ** int(parts[2]))
