"""What a camera table says of frames that another pipeline reduced: planes, their bits and units."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .camera_rules import Cards, Rule, check_keys, compile_condition, compile_rules
from .errors import BadSettings, UnknownName
from .expressions.evaluation import holds
from .expressions.expression import Node
from .foreignnames import WEIGHT_TYPES
from .masknames import bit_of

ZERO_POINT_OF = ("second", "exposure")
# Masks are read as signed numbers of 64 bits.
HIGHEST_NUMBER = 1 << 63
IMPORT_KEYS = (
    "title",
    "when",
    "unit",
    "gain_e_adu",
    "zero_point_mag",
    "zero_point_of",
    "weight",
    "weight_type",
    "mask",
    "mask_bits",
    "mask_codes",
)


@dataclass(frozen=True)
class PlaneRule:
    """Where a weight or a mask lies: an extension of the file, or a file beside it, by a pattern of its name."""

    extension: str = ""
    match: re.Pattern[str] | None = None
    take: str = ""

    def sibling(self, file_name: str) -> str | None:
        """The name of the file beside the image; None if the pattern does not fit its name."""
        if self.match is None or not self.match.search(file_name):
            return None
        return self.match.sub(self.take, file_name, count=1)


@dataclass(frozen=True)
class ImportRule:
    """How the frames of one pipeline are read; `mask_bits` and `mask_codes` are texts such as ``1:hot,2:saturated``."""

    title: str
    when: Node | None
    unit: tuple[Rule, ...] = ()
    gain_e_adu: tuple[Rule, ...] = ()
    zero_point_mag: tuple[Rule, ...] = ()
    zero_point_of: str = "second"
    weight: tuple[PlaneRule, ...] = ()
    weight_type: str = ""
    mask: tuple[PlaneRule, ...] = ()
    mask_bits: str = ""
    mask_codes: str = ""


def compile_import(raw: Any, where: str) -> ImportRule:
    """An [[import]] of a table; raises BadSettings, naming place and key."""
    if not isinstance(raw, dict):
        raise BadSettings(f"{where}: a table is needed, not {raw!r}")
    check_keys(raw, IMPORT_KEYS, where)
    return ImportRule(
        title=str(raw.get("title", "")),
        when=compile_condition(raw["when"], f"{where}: when") if "when" in raw else None,
        unit=compile_rules(raw.get("unit", []), f"{where}: unit"),
        gain_e_adu=compile_rules(raw.get("gain_e_adu", []), f"{where}: gain_e_adu"),
        zero_point_mag=compile_rules(raw.get("zero_point_mag", []), f"{where}: zero_point_mag"),
        zero_point_of=_word(raw, "zero_point_of", "second", ZERO_POINT_OF, where),
        weight=_planes(raw.get("weight", []), f"{where}: weight"),
        weight_type=_word(raw, "weight_type", "", ("", *WEIGHT_TYPES), where),
        mask=_planes(raw.get("mask", []), f"{where}: mask"),
        mask_bits=_pairs(raw.get("mask_bits", {}), f"{where}: mask_bits", bits=True),
        mask_codes=_pairs(raw.get("mask_codes", {}), f"{where}: mask_codes", bits=False),
    )


def chosen_import(rules: Sequence[ImportRule], cards: Cards) -> ImportRule | None:
    """The first rule whose condition holds for a frame; None if none does."""
    return next((one for one in rules if one.when is None or holds(one.when, cards.lookup)), None)


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
    if not isinstance(raw, dict) or not all(isinstance(raw.get(key), str) for key in ("match", "take")):
        raise BadSettings(f"{where}: an EXTNAME, or a table with match and take, is needed, not {raw!r}")
    check_keys(raw, ("match", "take"), where)
    try:
        return PlaneRule(match=re.compile(raw["match"]), take=raw["take"])
    except re.error as error:
        raise BadSettings(f"{where}: not a regular expression: {raw['match']!r} ({error})") from None


def _pairs(raw: Any, where: str, bits: bool) -> str:
    if not isinstance(raw, dict) or not all(isinstance(one, str) for one in raw.values()):
        raise BadSettings(f'{where}: a table such as {{ "1" = "hot" }} is needed, not {raw!r}')
    text = ",".join(f"{number}:{names}" for number, names in raw.items())
    mapping_of(text, where, bits)
    return text
