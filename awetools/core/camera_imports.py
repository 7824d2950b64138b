"""What a camera table says of frames that another pipeline reduced: planes, their bits and units."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .camera_rules import Cards, Rule, check_keys, compile_condition, compile_rules
from .errors import BadSettings, UnknownName
from .expressions.evaluation import holds, number
from .expressions.expression import Node
from .fitsheader import Header
from .foreignnames import WEIGHT_TYPES
from .masknames import bit_of

ZERO_POINT_OF = ("second", "exposure")
# Masks are read as signed numbers of 64 bits.
HIGHEST_NUMBER = 1 << 63
IMPORT_KEYS = (
    "title",
    "when",
    "unit",
    "filter",
    "plane_filter",
    "gain_e_adu",
    "zero_point_mag",
    "zero_point_of",
    "weight",
    "weight_type",
    "mask",
    "mask_bits",
    "mask_codes",
    "mask_planes",
    "unused",
    "stack",
)
# Cards that hold zero points in one pipeline or another; of one second or of the exposure is theirs to know.
ZERO_POINT_CARDS = (
    "MAGZERO",
    "MAGZP",
    "MAGZPT",
    "MAG_ZP",
    "MAG0",
    "PHOTZP",
    "PHOTZPT",
    "PHOT_C",
    "PHOTZERO",
    "IMAGEZPT",
    "ZPAPPROX",
    "ZEROPT",
    "ZEROPNT",
    "ZEROPOIN",
    "ZPT",
    "ZPMAG",
    "ZP",
    "ABMAGZP",
    "ABZP",
    "L1ZP",
    "FLUXMAG0",
    "PHOTFLAM",
)
PLANE_KEYS = ("extension", "match", "take", "when", "type")


@dataclass(frozen=True)
class PlaneRule:
    """Where a weight or a mask lies: an extension, by name or its own cards, or a file beside the image.

    weight_type: what such a weight is, where that is not what the [[import]] says.
    """

    extension: str = ""
    when: Node | None = None
    match: re.Pattern[str] | None = None
    take: str = ""
    weight_type: str = ""

    def sibling(self, file_name: str) -> str | None:
        """The name of the file beside the image; None if the pattern does not fit its name."""
        if self.match is None or not self.match.search(file_name):
            return None
        return self.match.sub(self.take, file_name, count=1)

    def is_extension(self, name: str, header: Header) -> bool:
        """Whether an extension of this name and header is such a plane."""
        if self.when is not None:
            return holds(self.when, Cards([header]).lookup)
        return bool(name) and self.extension.upper() == name.upper()


@dataclass(frozen=True)
class ImportRule:
    """How the frames of one pipeline are read; `mask_bits` and `mask_codes` are texts such as ``1:hot,2:saturated``.

    plane_filter: the card with the filter of a plane of a cube, as ``BAND{plane}`` (counted from 0). mask_planes:
    what bits mean that cards of the mask name, by the names behind ``prefix``; those that it has not are good.
    unused: extensions that are neither images nor planes of them. stack: dates are not of one exposure, so that
    an image goes by the name of its file.
    """

    title: str
    when: Node | None
    unit: tuple[Rule, ...] = ()
    filter: tuple[Rule, ...] = ()
    plane_filter: str = ""
    gain_e_adu: tuple[Rule, ...] = ()
    zero_point_mag: tuple[Rule, ...] = ()
    zero_point_of: str = "second"
    weight: tuple[PlaneRule, ...] = ()
    weight_type: str = ""
    mask: tuple[PlaneRule, ...] = ()
    mask_bits: str = ""
    mask_codes: str = ""
    mask_planes: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    stack: bool = False

    def bits_of(self, header: Header) -> str:
        """What the bits of a mask mean: as the rule says, or as the cards of the mask name them."""
        prefix = self.mask_planes.get("prefix")
        if prefix is None:
            return self.mask_bits
        named = {key[len(prefix) :]: value for key, value in header.items() if key.startswith(prefix)}
        bits = [
            (1 << bit, self.mask_planes.get(name, "good"))
            for name, bit in named.items()
            if isinstance(bit, int) and 0 <= bit < 63
        ]
        return ",".join(f"{value}:{meaning}" for value, meaning in sorted(bits))


def compile_import(raw: Any, where: str) -> ImportRule:
    """An [[import]] of a table; raises BadSettings, naming place and key."""
    if not isinstance(raw, dict):
        raise BadSettings(f"{where}: a table is needed, not {raw!r}")
    check_keys(raw, IMPORT_KEYS, where)
    return ImportRule(
        title=str(raw.get("title", "")),
        when=compile_condition(raw["when"], f"{where}: when") if "when" in raw else None,
        unit=compile_rules(raw.get("unit", []), f"{where}: unit"),
        filter=compile_rules(raw.get("filter", []), f"{where}: filter"),
        plane_filter=_text(raw, "plane_filter", where),
        gain_e_adu=compile_rules(raw.get("gain_e_adu", []), f"{where}: gain_e_adu"),
        zero_point_mag=compile_rules(raw.get("zero_point_mag", []), f"{where}: zero_point_mag"),
        zero_point_of=_word(raw, "zero_point_of", "second", ZERO_POINT_OF, where),
        weight=_planes(raw.get("weight", []), f"{where}: weight"),
        weight_type=_word(raw, "weight_type", "", ("", *WEIGHT_TYPES), where),
        mask=_planes(raw.get("mask", []), f"{where}: mask"),
        mask_bits=_pairs(raw.get("mask_bits", {}), f"{where}: mask_bits", bits=True),
        mask_codes=_pairs(raw.get("mask_codes", {}), f"{where}: mask_codes", bits=False),
        mask_planes=_meanings(raw.get("mask_planes", {}), f"{where}: mask_planes"),
        unused=_names(raw.get("unused", []), f"{where}: unused"),
        stack=bool(raw.get("stack", False)),
    )


def chosen_import(rules: Sequence[ImportRule], cards: Cards) -> ImportRule | None:
    """The first rule whose condition holds for a frame; None if none does."""
    return next((one for one in rules if one.when is None or holds(one.when, cards.lookup)), None)


def like_zero_points(cards: Cards) -> str:
    """The cards that look like zero points, as text."""
    found = {name: number(cards.lookup(name)) for name in ZERO_POINT_CARDS}
    return ", ".join(f"{name} = {value:g}" for name, value in found.items() if value is not None)


def mapping_of(text: str, where: str, bits: bool) -> dict[int, int]:
    """The foreign number to our bits that a text such as ``1:hot,2:saturated,8:hot+cold`` says.

    bits: the foreign numbers are powers of two. Raises BadSettings.
    """
    found: dict[int, int] = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        number, colon, names = part.partition(":")
        if not colon or not number.strip().isdecimal():
            raise BadSettings(f"{where}: {part!r} is not NUMBER:NAME, as in 1:hot,2:saturated")
        value = int(number)
        if value >= HIGHEST_NUMBER:
            raise BadSettings(f"{where}: {value} is more than a mask of 64 bits holds")
        if value in found:
            raise BadSettings(f"{where}: {value} is there twice; one number with two names is 1:hot+cold")
        if bits and (value < 1 or value & (value - 1)):
            raise BadSettings(f"{where}: {value} is not one bit (1, 2, 4, ...); for codes see mask_codes")
        found[value] = 0
        for name in names.split("+"):
            if name.strip() not in ("", "good"):
                found[value] |= _known_bit(name.strip(), where)
    return found


def _known_bit(name: str, where: str) -> int:
    try:
        return bit_of(name, where)
    except UnknownName as error:
        raise BadSettings(error.message) from None


def _word(raw: Mapping[str, Any], key: str, default: str, known: Sequence[str], where: str) -> str:
    value = raw.get(key, default)
    if value not in known:
        raise BadSettings(f"{where}: {key}: {value!r} is none of {' '.join(one for one in known if one)}")
    return str(value)


def _planes(raw: Any, where: str) -> tuple[PlaneRule, ...]:
    items = raw if isinstance(raw, list) else [raw]
    return tuple(_plane(item, where) for item in items)


def _plane(raw: Any, where: str) -> PlaneRule:
    if isinstance(raw, str):
        return PlaneRule(extension=raw)
    forms = [keys for keys in (("extension",), ("when",), ("match", "take")) if _has(raw, keys)]
    if len(forms) != 1:
        raise BadSettings(
            f"{where}: an EXTNAME, or a table with one of extension, when, match and take is needed, not {raw!r}"
        )
    check_keys(raw, PLANE_KEYS, where)
    kind = _word(raw, "type", "", ("", *WEIGHT_TYPES), where)
    if "extension" in raw:
        return PlaneRule(extension=raw["extension"], weight_type=kind)
    if "when" in raw:
        return PlaneRule(when=compile_condition(raw["when"], f"{where}: when"), weight_type=kind)
    try:
        return PlaneRule(match=re.compile(raw["match"]), take=raw["take"], weight_type=kind)
    except re.error as error:
        raise BadSettings(f"{where}: not a regular expression: {raw['match']!r} ({error})") from None


def _has(raw: Any, keys: Sequence[str]) -> bool:
    return isinstance(raw, dict) and all(isinstance(raw.get(key), str) for key in keys)


def _text(raw: Mapping[str, Any], key: str, where: str) -> str:
    value = raw.get(key, "")
    if not isinstance(value, str):
        raise BadSettings(f"{where}: {key}: text is needed, not {value!r}")
    return value


def _names(raw: Any, where: str) -> tuple[str, ...]:
    items = raw if isinstance(raw, list) else [raw]
    if not all(isinstance(item, str) for item in items):
        raise BadSettings(f"{where}: a list of EXTNAMEs is needed, not {raw!r}")
    return tuple(items)


def _meanings(raw: Any, where: str) -> Mapping[str, str]:
    if not isinstance(raw, dict) or not all(isinstance(one, str) for one in raw.values()):
        raise BadSettings(
            f'{where}: a table such as {{ prefix = "MP_", SAT = "saturated" }} is needed, not {raw!r}'
        )
    if raw and "prefix" not in raw:
        raise BadSettings(f"{where}: prefix is needed, that of the cards that name the bits")
    mapping_of(
        ",".join(f"{1 << n}:{raw[key]}" for n, key in enumerate(raw) if key != "prefix"), where, bits=True
    )
    return dict(raw)


def _pairs(raw: Any, where: str, bits: bool) -> str:
    if not isinstance(raw, dict) or not all(isinstance(one, str) for one in raw.values()):
        raise BadSettings(f'{where}: a table such as {{ "1" = "hot" }} is needed, not {raw!r}')
    text = ",".join(f"{number}:{names}" for number, names in raw.items())
    mapping_of(text, where, bits)
    return text
