"""FITS header cards: read leniently as cameras write them, written strictly; what a header says of its data.

Needs neither numpy nor astropy, so that a header can be asked without their start-up time.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import NamedTuple

from .errors import BadHeader

HeaderValue = str | int | float | bool | None

CARD_BYTES = 80
BLOCK_BYTES = 2880
COMMENTARY = ("COMMENT", "HISTORY", "")

_NAME = re.compile(r"[A-Z0-9_-]{1,8}\Z")
_VALUE_AND_COMMENT = (
    r" *(?:'(?P<text>[^']*(?:''[^']*)*)'|(?P<logical>[TF])|(?P<integer>[+-]?\d+)"
    r"|(?P<real>[+-]?(?:\d+\.?\d*|\.\d+)(?:[EeDd][+-]?\d+)?))? *(?:/(?P<comment>.*))?\Z"
)
_VALUE = re.compile(_VALUE_AND_COMMENT, re.DOTALL)
_CARD = re.compile(r"(?=.{8}= )([A-Z0-9_-]+) *=" + _VALUE_AND_COMMENT, re.DOTALL)
_HIERARCH = re.compile(r"HIERARCH +([^=]*[^= ]) *=(.*)\Z", re.DOTALL | re.IGNORECASE)
_MISPLACED = re.compile(r" *([\w.-]+) *=(.*)\Z", re.DOTALL)
# Blanks may stand after the sign and around the exponent's letter in numbers that are not in fixed columns.
_SPACED_NUMBER = re.compile(r"([+-]? *(?:\d+\.?\d*|\.\d+)(?: *[EeDd] *[+-]? *\d+)?) *(?:/(.*))?\Z", re.DOTALL)
_COMPLEX = re.compile(r"(\( *[-+.\dEeDd]+ *, *[-+.\dEeDd]+ *\)) *(?:/(.*))?\Z", re.DOTALL)
_SLOPPY_TEXT = re.compile(r"'(.*?)'? *(?:(?<=[' ])/(.*))?\Z", re.DOTALL)
_NOT_A_NUMBER = re.compile(r"[+-]?(?:nan|inf|infinity)\Z", re.IGNORECASE)
_UNPRINTABLE = re.compile(r"[^ -~]")


class Card(NamedTuple):
    """One keyword with its value and comment; `raw` is what stood in the file ('' if it was not read)."""

    key: str
    value: HeaderValue
    comment: str = ""
    raw: str = ""


class Header(Mapping[str, HeaderValue]):
    """The cards of one header-data unit, in order; of a repeated keyword the first card answers.

    Keys are looked up without regard to case. `problems` says which cards broke the standard and how.
    """

    __slots__ = ("_cards", "_problems", "_values")

    def __init__(self, cards: Iterable[Card] = (), problems: Iterable[str] = ()) -> None:
        self._cards = tuple(cards)
        self._problems = tuple(problems)
        self._values: dict[str, HeaderValue] = {}
        for card in self._cards:
            self._values.setdefault(card.key, card.value)

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[str, HeaderValue]]) -> Header:
        """A header of keys and values that did not come from a FITS file."""
        return cls(
            Card(_clean_key(key), value.rstrip() if isinstance(value, str) else value) for key, value in pairs
        )

    @property
    def cards(self) -> tuple[Card, ...]:
        return self._cards

    @property
    def problems(self) -> tuple[str, ...]:
        return self._problems

    def __getitem__(self, key: str) -> HeaderValue:
        return self._values[key.upper()]

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key.upper() in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Header({len(self._cards)} cards, {len(self._problems)} problems)"


# Reading


def parse_header(block: bytes) -> Header:
    """The header in 80-byte cards, up to its END card or the end of the block.

    Never raises: a malformed card keeps what can be told of its value, else None, and is named in `problems`.
    Source: FITS standard 4.0, chapter 4, with the HIERARCH and CONTINUE conventions.
    """
    return _from_images(block.decode("latin-1"))


def header_from_text(text: str) -> Header:
    """The header in a text file (a dump, a ``.head`` file): a card a line, or 80 columns a card.

    Lines that begin with ``#`` are passed over; only the cards up to the first END are read.
    """
    if "\n" not in text:
        return _from_images(text)
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    return _from_images("".join(_padded(line) for line in lines if line and not line.startswith("#")))


def _padded(line: str) -> str:
    return line.ljust(-(-len(line) // CARD_BYTES) * CARD_BYTES)


def _from_images(text: str) -> Header:
    cards: list[Card] = []
    problems: list[str] = []
    printable = text.isascii() and text.isprintable()
    for start in range(0, len(text), CARD_BYTES):
        raw = text[start : start + CARD_BYTES]
        key = raw[:8].rstrip(" \0")
        if key == "END" and raw[8:9] != "=":
            break
        if not printable and _UNPRINTABLE.search(raw):
            problems.append(_complaint(len(cards), raw, "characters that are not printable ASCII"))
        if key == "CONTINUE" and cards and _is_open(cards[-1]):
            card, problem = _continued(cards.pop(), raw)
        else:
            card, problem = _card(key, raw)
        if problem:
            problems.append(_complaint(len(cards), raw, problem))
        cards.append(card)
    return Header(cards, problems)


def _complaint(number: int, raw: str, problem: str) -> str:
    return f"card {number + 1}: {problem}: {raw.rstrip()!a}"


def _card(key: str, raw: str) -> tuple[Card, str]:
    if key in COMMENTARY:
        return Card(key, raw[8:].rstrip(), "", raw), ""
    match = _CARD.match(raw)
    if match is None:
        return _odd_card(raw)
    name, text, logical, integer, real, comment = match.groups()
    value, problem = _typed(text, logical, integer, real)
    return Card(name, value, comment.strip() if comment else "", raw), problem


def _typed(
    text: str | None, logical: str | None, integer: str | None, real: str | None
) -> tuple[HeaderValue, str]:
    if text is not None:
        return (text.replace("''", "'") if "'" in text else text).rstrip(), ""
    if integer is not None:
        return int(integer), ""
    if real is not None:
        return _float(real)
    return (logical == "T" if logical else None), ""


def _float(digits: str) -> tuple[float | None, str]:
    value = float(digits.upper().replace("D", "E"))
    return (value, "") if math.isfinite(value) else (None, "the number is too large")


def _odd_card(raw: str) -> tuple[Card, str]:
    """A card that is HIERARCH, free-format beyond the standard, or broken."""
    image = raw.replace("\0", " ").ljust(CARD_BYTES)
    key = image[:8].strip().upper()
    if key in COMMENTARY:
        return Card(key, image[8:].rstrip(), "", raw), "a lower-case keyword" if key else ""
    if hierarch := _HIERARCH.match(image):
        value, comment, problem = _value(hierarch[2])
        return Card(_clean_key(hierarch[1]), value, comment, raw), problem
    if image[8] == "=":
        value, comment, problem = _value(image[9:])
        return Card(key, value, comment, raw), problem or _name_problem(image)
    if misplaced := _MISPLACED.match(image):
        value, comment, problem = _value(misplaced[2])
        return Card(misplaced[1].upper(), value, comment, raw), problem or "the '=' is not in column 9"
    text = image[8:].rstrip()
    if text.lstrip().startswith("/"):
        return Card(key, None, text.lstrip()[1:].strip(), raw), "no '=' after the keyword"
    return Card(key, text, "", raw), "no '=' after the keyword"


def _name_problem(image: str) -> str:
    if not _NAME.match(image[:8].rstrip()):
        return "the keyword is not of capitals, digits, '-' and '_'"
    return "" if image[9] == " " else "no blank after the '='"


def _value(field: str) -> tuple[HeaderValue, str, str]:
    """The value, the comment and the problem of what follows the '='."""
    match = _VALUE.match(field)
    if match:
        value, problem = _typed(match["text"], match["logical"], match["integer"], match["real"])
        return value, (match["comment"] or "").strip(), problem
    field = field.strip()
    if match := _SPACED_NUMBER.match(field):
        digits = match[1].replace(" ", "")
        whole = digits.lstrip("+-").isdigit()
        value, problem = (int(digits), "") if whole else _float(digits)
        return value, (match[2] or "").strip(), problem
    if match := _COMPLEX.match(field):
        return match[1], (match[2] or "").strip(), ""
    if match := _SLOPPY_TEXT.match(field):
        return match[1].rstrip(), (match[2] or "").strip(), "the quotes do not enclose the text"
    text, _, comment = field.partition("/")
    text = text.strip()
    if _NOT_A_NUMBER.match(text):
        return None, comment.strip(), "not a number"
    return text, comment.strip(), "neither a number nor a quoted text"


def _is_open(card: Card) -> bool:
    return isinstance(card.value, str) and card.value.endswith("&") and card.key not in COMMENTARY


def _continued(card: Card, raw: str) -> tuple[Card, str]:
    """A text whose '&' says that it goes on, with what its CONTINUE card adds."""
    more, comment, problem = _value(raw[8:])
    if not isinstance(more, str) or not isinstance(card.value, str):
        return Card(card.key, card.value, card.comment, card.raw + raw), problem or "CONTINUE without a text"
    comment = " ".join(filter(None, (card.comment, comment)))
    return Card(card.key, card.value[:-1] + more, comment, card.raw + raw), problem


def _clean_key(key: str) -> str:
    return " ".join(key.upper().split())


# Writing


def format_card(key: str, value: HeaderValue, comment: str = "") -> bytes:
    """One card of 80 bytes, or several for a long text (CONTINUE) or commentary.

    Floats round-trip exactly; one that is not finite is written as undefined, since FITS has no such
    value. Keys beyond eight characters of the standard become HIERARCH. Characters outside ASCII become
    '?'. A comment is cut where the card is full. Raises ValueError where the key leaves the value no room.
    """
    name = _ascii(_clean_key(key)).removeprefix("HIERARCH ")
    if name in COMMENTARY:
        return _commentary(name, "" if value is None else str(value))
    if name in ("END", "CONTINUE") or "=" in name:
        raise ValueError(f"{key!r} cannot be the keyword of a value")
    start = f"{name:8}= " if _NAME.match(name) else f"HIERARCH {name} = "
    if isinstance(value, str):
        return _text_card(start, _ascii(value), _ascii(comment))
    image = f"{start}{_literal(value):>20}"
    if len(image) > CARD_BYTES:
        raise ValueError(f"the keyword {key!r} leaves no room for its value {value!r}")
    return _with_comment(image, _ascii(comment))


def header_bytes(cards: Iterable[tuple[str, HeaderValue, str]]) -> bytes:
    """The cards with END after them, filled with blanks to a multiple of 2880 bytes."""
    block = b"".join(format_card(*card) for card in cards) + b"END".ljust(CARD_BYTES)
    return block.ljust(-(-len(block) // BLOCK_BYTES) * BLOCK_BYTES)


def _ascii(text: str) -> str:
    return _UNPRINTABLE.sub("?", text)


def _literal(value: int | float | bool | None) -> str:
    plain = getattr(value, "item", lambda: value)()  # numpy's scalars
    if plain is None:
        return ""
    if isinstance(plain, bool):
        return "T" if plain else "F"
    if isinstance(plain, int):
        return str(plain)
    if not isinstance(plain, float):
        raise TypeError(f"a header cannot hold {plain!r} of type {type(plain).__name__}")
    if not math.isfinite(plain):
        return ""
    digits = repr(plain).upper()
    return digits if "." in digits else digits.replace("E", ".0E")


def _with_comment(image: str, comment: str) -> bytes:
    full = f"{image} / {comment}" if comment and len(image) < CARD_BYTES - 3 else image
    return full[:CARD_BYTES].ljust(CARD_BYTES).encode("ascii")


def _commentary(name: str, text: str) -> bytes:
    width = CARD_BYTES - 8
    text = _ascii(text)
    pieces = [text[start : start + width] for start in range(0, len(text), width)] or [""]
    return b"".join(f"{name:8}{piece}".ljust(CARD_BYTES).encode("ascii") for piece in pieces)


def _text_card(start: str, text: str, comment: str) -> bytes:
    quoted = text.replace("'", "''")
    if len(start) + len(quoted) + 2 <= CARD_BYTES:
        padded = f"'{quoted:8}'" if len(start) == 10 and text else f"'{quoted}'"
        return _with_comment(f"{start}{padded:20}"[:CARD_BYTES], comment)
    room = CARD_BYTES - 3 - len(start)
    if room < 2:
        raise ValueError(f"the keyword in {start!r} leaves no room for its text")
    pieces = _pieces(text, room, CARD_BYTES - 3 - 10)
    images = [
        f"{start if number == 0 else 'CONTINUE  '}'{piece}{'&' if number < len(pieces) - 1 else ''}'"
        for number, piece in enumerate(pieces)
    ]
    return b"".join(_with_comment(image, "") for image in images[:-1]) + _with_comment(images[-1], comment)


def _pieces(text: str, first_room: int, room: int) -> list[str]:
    """The text cut so that each piece, its quotes doubled, fits; a doubled quote is never cut apart."""
    pieces = [""]
    for letter in text.replace("'", "\0"):
        doubled = "''" if letter == "\0" else letter
        if len(pieces[-1]) + len(doubled) > (first_room if len(pieces) == 1 else room):
            pieces.append("")
        pieces[-1] += doubled
    return pieces


# What a header says of its data


def number_of(header: Header, key: str, default: float, where: str) -> int | float:
    """The number of this card, the default where it is absent. Raises BadHeader where it is not a number."""
    value = header.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadHeader(f"{where}: {key} is {value!r}, not a number")
    return value


def count_of(header: Header, key: str, default: int | None, where: str) -> int:
    """The whole number, 0 or more, of this card. Raises BadHeader where it is not one, or None and absent."""
    value = header.get(key, default)
    if value is None and key not in header:
        raise BadHeader(f"{where}: the header has no {key}")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value) or value < 0:
        raise BadHeader(f"{where}: {key} is {value!r}, not a count")
    return int(value)


def axes_of(header: Header, prefix: str, where: str) -> tuple[int, ...]:
    """The lengths of the axes in numpy order, slowest first; prefix Z for those of a compressed image."""
    axes = count_of(header, f"{prefix}NAXIS", None, where)
    if axes > 999:
        raise BadHeader(f"{where}: {prefix}NAXIS is {axes}; FITS allows 999")
    return tuple(count_of(header, f"{prefix}NAXIS{axis}", None, where) for axis in range(axes, 0, -1))


def bitpix_of(header: Header, prefix: str, where: str) -> int:
    """The stored type: 8, 16, 32, 64, -32 or -64. Raises BadHeader for any other."""
    value = header.get(f"{prefix}BITPIX")
    if isinstance(value, bool) or value not in (8, 16, 32, 64, -32, -64):
        raise BadHeader(f"{where}: {prefix}BITPIX is {value!r}, not one of 8, 16, 32, 64, -32, -64")
    return int(value)


def stored_bytes(header: Header, where: str) -> int:
    """Length of the data unit without its filling. Source: FITS standard 4.0, equations 1, 2 and 4."""
    axes = axes_of(header, "", where)
    groups = axes[-1:] == (0,) and header.get("GROUPS") is True
    elements = prod(axes[:-1] if groups else axes) if axes else 0
    if axes and (groups or "XTENSION" in header):
        elements += count_of(header, "PCOUNT", 0, where)
        elements *= count_of(header, "GCOUNT", 1, where)
    length = elements * abs(bitpix_of(header, "", where)) // 8
    if length >= 2**63:
        raise BadHeader(f"{where}: {shape_text(axes)} are more bytes than any file can hold")
    return length


def shape_text(axes: Sequence[int]) -> str:
    """Axes in numpy order as people read them, ``1056 x 1024``, however many and long they are."""
    shown = [str(axis) if axis < 10**20 else f"{float(axis):.3g}" for axis in reversed(axes[-6:])]
    return " x ".join(shown) + (" x ..." if len(axes) > 6 else "")


_TABLE_KEY = re.compile(
    r"(?:TFIELDS|THEAP|PCOUNT|GCOUNT|CHECKSUM|DATASUM|XTENSION|BITPIX|NAXIS\d*"
    r"|T(?:TYPE|FORM|UNIT|NULL|SCAL|ZERO|DISP|DIM|BCOL|DMIN|DMAX|LMIN|LMAX)\d+)\Z"
)
PACKING_KEY = re.compile(
    r"Z(?:IMAGE|CMPTYPE|BITPIX|NAXIS\d*|TILE\d+|NAME\d+|VAL\d+|MASKCMP|QUANTIZ|DITHER0|SIMPLE|TENSION"
    r"|EXTEND|BLOCKED|PCOUNT|GCOUNT|HECKSUM|DATASUM|BLANK|SCALE|ZERO)\Z"
)
_RENAMED = {"ZPCOUNT": "PCOUNT", "ZGCOUNT": "GCOUNT", "ZHECKSUM": "CHECKSUM", "ZDATASUM": "DATASUM"}
_STRUCTURE_KEY = re.compile(r"(?:BITPIX|NAXIS\d*|TFIELDS)\Z")
_SCALE_KEY = re.compile(r"(?:BSCALE|BZERO|BLANK|BSOFTEN|BOFFSET|T(?:TYPE|FORM|UNIT|SCAL|ZERO)\d+)\Z")
_WCS_KEY = re.compile(
    r"(?:WCSAXES|(?:CTYPE|CUNIT|CRVAL|CRPIX|CDELT|CROTA)\d+|(?:CD|PC|PV|PS)\d+_\d+"
    r"|(?:A|B|AP|BP)_(?:ORDER|\d+_\d+)|LONPOLE|LATPOLE|RADESYS|RADECSYS|EQUINOX|EPOCH)\Z"
)
_DRAFT_KEY = re.compile(r"PC00(\d)00(\d)")


def is_packed_image(header: Header) -> bool:
    """Whether the table of this header is a tile-compressed image."""
    return header.get("ZIMAGE") is True and header.get("XTENSION") == "BINTABLE"


def unpacked_header(header: Header) -> Header:
    """The header of the image that a tile-compressed table holds.

    Source: FITS standard 4.0, section 10.1; an integer image's ZBLANK serves where BLANK is missing.
    """
    cards = [Card("XTENSION", "IMAGE")]
    cards += [
        card._replace(key=card.key[1:])
        for card in header.cards
        if re.match(r"Z(?:BITPIX|NAXIS\d*)\Z", card.key)
    ]
    for card in header.cards:
        if card.key in _RENAMED:
            cards.append(card._replace(key=_RENAMED[card.key]))
        elif not (_TABLE_KEY.match(card.key) or PACKING_KEY.match(card.key) or _is_packers_name(card)):
            cards.append(card)
    bitpix = header.get("ZBITPIX")
    if "BLANK" not in header and "ZBLANK" in header and isinstance(bitpix, int) and bitpix > 0:
        cards += [card._replace(key="BLANK") for card in header.cards if card.key == "ZBLANK"]
    return Header(cards, header.problems)


def _is_packers_name(card: Card) -> bool:
    return card.key == "EXTNAME" and card.value == "COMPRESSED_IMAGE"


def wcs_cards(header: Header) -> dict[str, HeaderValue]:
    """The cards of the primary world coordinate system: numbers as floats, texts stripped of blanks."""
    found = {key: _canonical(value) for key, value in header.items() if _WCS_KEY.match(key)}
    for key, value in header.items():
        # How the draft of the standard wrote PC1_2.
        if key.startswith("PC00") and (draft := _DRAFT_KEY.fullmatch(key)):
            found.setdefault(f"PC{draft[1]}_{draft[2]}", _canonical(value))
    return found


def carries_wcs(header: Header) -> bool:
    """Whether this header gives its own image a coordinate system, not just an equinox."""
    return any(key.startswith(("CTYPE", "CRVAL")) and _WCS_KEY.match(key) for key in header)


def content_of(parts: Sequence[tuple[Header, str]]) -> str:
    """The content hash, a hex SHA-256, of headers and the hex SHA-256 of their data units ('' for no data).

    The data unit is that of the unpacked image: the stored big-endian bytes without the filling of the
    last block. Of the cards, those enter that give the data their meaning: shape, type, scale, columns and
    the coordinate system. So packing, renaming and any other card change nothing. A header without data is
    there for its coordinate system alone, and leaves no trace where it has none (the empty primary that
    packers add).
    """
    items = [_content_item(header, digest) for header, digest in parts]
    known = [item for item in items if item["data"] or item["cards"]]
    canonical = json.dumps(known, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _content_item(header: Header, digest: str) -> dict[str, object]:
    cards = wcs_cards(header)
    if not digest:
        return {"cards": cards, "data": ""}
    cards |= {"BSCALE": 1.0, "BZERO": 0.0}
    for key, value in header.items():
        if _STRUCTURE_KEY.match(key):
            cards[key] = int(value) if isinstance(value, (int, float)) else value
        elif _SCALE_KEY.match(key):
            cards[key] = _canonical(value)
    return {"cards": cards, "data": digest}


def _canonical(value: HeaderValue) -> HeaderValue:
    if isinstance(value, str):
        return value.strip()
    if value is None or isinstance(value, bool):
        return value
    return float(value)
