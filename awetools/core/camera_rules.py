"""The rules of camera tables: how a value is read from header cards, as TOML declares it.

A rule is a card's name, a number, a list of rules of which the first that gives a
value wins, or a table with one source (card, value, expression, template, join) and
what is done with it. The manual page "How to add a camera" explains every key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from .errors import BadSettings, UsageError, nearest
from .expressions.evaluation import evaluate, fits, holds, number
from .expressions.expression import Arithmetic, Name, Node, names, parse, walk
from .fitsheader import Header
from .units import angle_deg, from_mjd, has_clock, moment, to_utc

SOURCES = ("card", "value", "expression", "template", "join")
VALUE_KEYS = (
    *SOURCES,
    "when",
    "comment",
    "ignore",
    "between",
    "part",
    "match",
    "take",
    "map",
    "otherwise",
    "ignore_case",
    "factor",
    "offset",
    "form",
    "lower",
    "upper",
    "separator",
    "idle",
    "all_idle",
)
DATE_KEYS = ("card", "when", "comment", "ignore", "time", "time_unit", "form", "zone_hours", "scale", "at")

# What cameras write where they mean "no value"; blank text means it too.
ABSENT = frozenset(
    ("unknown", "n/a", "undefined", "undef", "null", "nan", "notset", "not set", "notyetset", "unspecified")
)

_ANGLE_FORMS = ("degrees", "hours", "ra")
# The flux of a source of magnitude 0, as the magnitude of a flux of 1.
_FLUX_FORM = "flux_of_mag_0"
_DATE_FORMS = ("date", "mjd", "jd", "seconds")
_AT = ("start", "mid", "end")
_BRACES = re.compile(r"\{([^{}]*)\}")


class Found(NamedTuple):
    """A value, the card it came from ('table' for a constant) and the rule's text."""

    value: Any
    card: str
    rule: str


class Cards:
    """What rules can ask about one detector: header cards, pseudo-cards, `let.` and `meta.` values."""

    def __init__(self, headers: Sequence[Header], extra: Mapping[str, object] | None = None) -> None:
        self.headers = tuple(headers)
        self.extra = dict(extra or {})

    def over(self, *headers: Header) -> Cards:
        """These cards with other headers asked first; the `let.` and `meta.` values are shared."""
        other = Cards((*headers, *(one for one in self.headers if one not in headers)))
        other.extra = self.extra
        return other

    def card(self, name: str) -> tuple[object, str]:
        """The value and comment of a card, from the first header that gives it a value, else (None, '')."""
        for header in self.headers:
            value = header.get(name)
            if value is not None and not (isinstance(value, str) and not value.strip()):
                return value, _comment(header, name)
        return self.extra.get(name), ""

    def lookup(self, name: str) -> object:
        """The value of a name in an expression; blank text is null."""
        if name in self.extra:
            return self.extra[name]
        for header in self.headers:
            value = header.get(name)
            if value is not None and not (isinstance(value, str) and not value.strip()):
                return value
        return None


def _comment(header: Header, name: str) -> str:
    key = name.upper()
    return next((card.comment for card in header.cards if card.key == key), "")


@dataclass(frozen=True)
class Rule:
    """One compiled rule; see the manual page for its keys."""

    text: str
    cards: tuple[str, ...] = ()
    constant: object = None
    expression: Node | None = None
    template: tuple[str | Node, ...] = ()
    join: tuple[tuple[Rule, ...], ...] = ()
    when: Node | None = None
    comment: re.Pattern[str] | None = None
    ignore: tuple[str, ...] = ()
    between: tuple[float, float] | None = None
    from_comment: bool = False
    match: re.Pattern[str] | None = None
    take: str = ""
    mapping: Mapping[str, object] = field(default_factory=dict)
    otherwise: object = None
    ignore_case: bool = False
    factor: float = 1.0
    offset: float = 0.0
    form: str = ""
    case: str = ""
    separator: str = ""
    idle: tuple[str, ...] = ()
    all_idle: str = ""


@dataclass(frozen=True)
class DateRule:
    """One compiled rule for a date; see the manual page for its keys."""

    text: str
    cards: tuple[str, ...]
    when: Node | None
    comment: re.Pattern[str] | None
    ignore: tuple[str, ...]
    time: tuple[str, ...]
    time_unit: str
    form: str
    zone_hours: float
    scale: str | tuple[Rule, ...]
    at: str


# TOML to rules


def check_keys(raw: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Raise BadSettings, naming the nearest key, where a table has a key that is not known."""
    for key in raw:
        if key not in known:
            raise BadSettings(f"{where}: unknown key {key!r}{nearest(key, list(known))}")


def compile_condition(text: object, where: str) -> Node:
    """The tree of an expression in a table; raises BadSettings, naming the place."""
    if isinstance(text, bool):
        text = "true" if text else "false"
    if not isinstance(text, str):
        raise BadSettings(f"{where}: an expression in quotes is needed, not {text!r}")
    try:
        node = parse(text)
    except UsageError as error:
        raise BadSettings(f"{where}: {error.message}") from None
    for one in walk(node):
        if isinstance(one, Arithmetic) and isinstance(one.left, Name) and isinstance(one.right, Name):
            card = f"{one.left.name}{one.operator}{one.right.name}"
            if one.operator == "-" and card in text:
                raise BadSettings(f'{where}: {card} reads as a difference; a card is written "{card}"')
    return node


def compile_rules(raw: object, where: str, form: str = "") -> tuple[Rule, ...]:
    """The rules that a TOML value declares, in order; raises BadSettings, naming place and key."""
    if isinstance(raw, list):
        return tuple(rule for item in raw for rule in compile_rules(item, where, form))
    if isinstance(raw, str):
        return (Rule(raw, cards=(raw,), form=form),)
    if isinstance(raw, bool | int | float):
        return (Rule(str(raw), constant=raw),)
    if isinstance(raw, dict):
        return (_rule(raw, where, form),)
    raise BadSettings(f"{where}: a card, a number or a table is needed, not {raw!r}")


def _rule(raw: Mapping[str, Any], where: str, form: str) -> Rule:
    check_keys(raw, VALUE_KEYS, where)
    sources = [key for key in SOURCES if key in raw]
    if len(sources) != 1:
        raise BadSettings(f"{where}: a rule needs exactly one of {', '.join(SOURCES)}; it has {sources}")
    low_high = raw.get("between")
    if low_high is not None:
        low_high = tuple(_numbers(low_high, 2, f"{where}: between"))
    if raw.get("part", "comment") != "comment":
        raise BadSettings(f"{where}: part can only be 'comment', not {raw['part']!r}")
    return Rule(
        text=rule_text(raw),
        cards=_texts(raw.get("card", []), f"{where}: card"),
        constant=raw.get("value"),
        expression=compile_condition(raw["expression"], where) if "expression" in raw else None,
        template=template_parts(raw["template"], where) if "template" in raw else (),
        join=tuple(compile_rules(part, f"{where}: join") for part in _list(raw.get("join", []), where)),
        when=compile_condition(raw["when"], f"{where}: when") if "when" in raw else None,
        comment=_pattern(raw.get("comment"), f"{where}: comment"),
        ignore=_texts(raw.get("ignore", []), f"{where}: ignore"),
        between=low_high,
        from_comment="part" in raw,
        match=_pattern(raw.get("match"), f"{where}: match"),
        take=_text(raw.get("take", ""), f"{where}: take"),
        mapping=_mapping(raw.get("map", {}), where),
        otherwise=raw.get("otherwise"),
        ignore_case=bool(raw.get("ignore_case", False)),
        factor=_number(raw.get("factor", 1), f"{where}: factor"),
        offset=_number(raw.get("offset", 0), f"{where}: offset"),
        form=_one_of(raw.get("form", form), ("", *_ANGLE_FORMS, _FLUX_FORM), f"{where}: form"),
        case="lower" if raw.get("lower") else "upper" if raw.get("upper") else "",
        separator=_text(raw.get("separator", "+"), f"{where}: separator"),
        idle=_texts(raw.get("idle", []), f"{where}: idle"),
        all_idle=_text(raw.get("all_idle", ""), f"{where}: all_idle"),
    )


def compile_dates(raw: object, where: str) -> tuple[DateRule, ...]:
    """The rules of a date that a TOML value declares; raises BadSettings, naming place and key."""
    if isinstance(raw, list):
        return tuple(rule for item in raw for rule in compile_dates(item, where))
    if isinstance(raw, str):
        raw = {"card": raw}
    if not isinstance(raw, dict):
        raise BadSettings(f"{where}: a card or a table is needed, not {raw!r}")
    check_keys(raw, DATE_KEYS, where)
    if "card" not in raw:
        raise BadSettings(f"{where}: a date needs a card")
    scale = raw.get("scale", "UTC")
    known = isinstance(scale, str) and to_utc(datetime(2000, 1, 1), scale) is not None
    return (
        DateRule(
            text=rule_text(raw),
            cards=_texts(raw["card"], f"{where}: card"),
            when=compile_condition(raw["when"], f"{where}: when") if "when" in raw else None,
            comment=_pattern(raw.get("comment"), f"{where}: comment"),
            ignore=_texts(raw.get("ignore", []), f"{where}: ignore"),
            time=_texts(raw.get("time", []), f"{where}: time"),
            time_unit=_one_of(raw.get("time_unit", "hours"), ("hours", "seconds"), f"{where}: time_unit"),
            form=_one_of(raw.get("form", "date"), _DATE_FORMS, f"{where}: form"),
            zone_hours=_number(raw.get("zone_hours", 0), f"{where}: zone_hours"),
            scale=scale if known else compile_rules(scale, f"{where}: scale"),
            at=_one_of(raw.get("at", "start"), _AT, f"{where}: at"),
        ),
    )


def rule_text(raw: object) -> str:
    """A rule as one line, for origins and traces."""
    if isinstance(raw, Mapping):
        text = ", ".join(f"{key} = {rule_text(value)}" for key, value in raw.items())
        text = f"{{{text}}}"
    elif isinstance(raw, list):
        text = f"[{', '.join(rule_text(item) for item in raw)}]"
    else:
        text = str(raw) if isinstance(raw, str) else repr(raw)
    return text if len(text) <= 160 else text[:157] + "..."


def _list(raw: object, where: str) -> list[Any]:
    if not isinstance(raw, list):
        raise BadSettings(f"{where}: a list is needed, not {raw!r}")
    return raw


def _texts(raw: object, where: str) -> tuple[str, ...]:
    items = raw if isinstance(raw, list) else [raw]
    if not all(isinstance(item, str) for item in items):
        raise BadSettings(f"{where}: text or a list of texts is needed, not {raw!r}")
    return tuple(items)


def _text(raw: object, where: str) -> str:
    if not isinstance(raw, str):
        raise BadSettings(f"{where}: text is needed, not {raw!r}")
    return raw


def _number(raw: object, where: str) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise BadSettings(f"{where}: a number is needed, not {raw!r}")
    return float(raw)


def _numbers(raw: object, count: int, where: str) -> list[float]:
    if not isinstance(raw, list) or len(raw) != count:
        raise BadSettings(f"{where}: {count} numbers in brackets are needed, not {raw!r}")
    return [_number(item, where) for item in raw]


def _one_of(raw: object, known: Sequence[str], where: str) -> str:
    if raw not in known:
        allowed = " ".join(repr(one) for one in known if one)
        raise BadSettings(f"{where}: {raw!r} is none of {allowed}")
    return str(raw)


def _pattern(raw: object, where: str) -> re.Pattern[str] | None:
    if raw is None:
        return None
    try:
        return re.compile(_text(raw, where))
    except re.error as error:
        raise BadSettings(f"{where}: not a regular expression: {raw!r} ({error})") from None


def _mapping(raw: object, where: str) -> dict[str, object]:
    if not isinstance(raw, dict):
        raise BadSettings(f"{where}: map must be a table, not {raw!r}")
    return dict(raw)


def template_parts(raw: object, where: str) -> tuple[str | Node, ...]:
    """A template as texts and the expressions in its braces; raises BadSettings, naming the place."""
    text = _text(raw, f"{where}: template")
    parts: list[str | Node] = []
    at = 0
    for found in _BRACES.finditer(text):
        parts += [text[at : found.start()], compile_condition(found[1], f"{where}: template")]
        at = found.end()
    return tuple(part for part in (*parts, text[at:]) if part != "")


# Rules to values


def first_value(rules: Sequence[Rule], cards: Cards) -> Found | None:
    """The value of the first rule that gives one."""
    for rule in rules:
        found = value_of(rule, cards)
        if found is not None:
            return found
    return None


def value_of(rule: Rule, cards: Cards) -> Found | None:
    """The value that a rule gives, or None."""
    if rule.when is not None and not holds(rule.when, cards.lookup):
        return None
    for value, comment, card in _sources(rule, cards):
        made = _transformed(rule, value, comment)
        if made is not None:
            return Found(made, card, rule.text)
    return None


def _sources(rule: Rule, cards: Cards) -> Iterator[tuple[object, str, str]]:
    for name in rule.cards:
        value, comment = cards.card(name)
        if not is_absent(value, rule.ignore):
            yield value, comment, name
    if rule.constant is not None:
        yield rule.constant, "", "table"
    if rule.expression is not None:
        yield evaluate(rule.expression, cards.lookup), "", _named(rule.expression)
    if rule.template:
        yield fill(rule.template, cards), "", _named(*rule.template)
    if rule.join:
        yield _joined(rule, cards)


def _named(*parts: str | Node) -> str:
    """The cards that expressions ask for, as an origin."""
    found = set[str]().union(*(names(part) for part in parts if not isinstance(part, str)))
    return " ".join(sorted(found)) or "table"


def is_absent(value: object, ignore: Sequence[str] = ()) -> bool:
    """Whether a card's value means that there is none."""
    if value is None:
        return True
    text = plain_text(value).strip()
    return not text or text.lower() in ABSENT or any(fits(text, pattern) for pattern in ignore)


def plain_text(value: object) -> str:
    """A value as people write it: whole numbers without a point, booleans as T and F."""
    if isinstance(value, bool):
        return "T" if value else "F"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def fill(template: Sequence[str | Node], cards: Cards) -> str | None:
    """The text of a template; None if one of its expressions has no value."""
    parts: list[str] = []
    for part in template:
        value = part if isinstance(part, str) else evaluate(part, cards.lookup)
        if is_absent(value) and not isinstance(part, str):
            return None
        parts.append(plain_text(value).strip() if not isinstance(part, str) else part)
    return "".join(parts)


def _joined(rule: Rule, cards: Cards) -> tuple[str | None, str, str]:
    found = [one for one in (first_value(rules, cards) for rules in rule.join) if one is not None]
    texts = [plain_text(one.value).strip() for one in found]
    busy = [text for text in texts if not any(fits(text.lower(), idle.lower()) for idle in rule.idle)]
    origin = " ".join(one.card for one in found)
    if busy:
        return rule.separator.join(dict.fromkeys(busy)), "", origin
    return (rule.all_idle or None if texts else None), "", origin


def _transformed(rule: Rule, value: object, comment: str) -> object:
    if rule.comment is not None and not rule.comment.search(comment):
        return None
    if rule.from_comment:
        value = comment
    if rule.between is not None:
        size = number(value)
        if size is None or not rule.between[0] <= size <= rule.between[1]:
            return None
    if rule.match is not None:
        value = _matched(rule.match, rule.take, plain_text(value))
    if rule.mapping or rule.otherwise is not None:
        value = _mapped(rule, value)
    if rule.form == _FLUX_FORM:
        value = _mag_of_flux(value)
    elif rule.form:
        value = angle_deg(value, rule.form)
    if rule.factor != 1 or rule.offset != 0:
        size = number(value)
        value = None if size is None else size * rule.factor + rule.offset
    if rule.case and isinstance(value, str):
        value = value.lower() if rule.case == "lower" else value.upper()
    return None if value is None or value == "" else value


def _mag_of_flux(value: object) -> float | None:
    size = number(value)
    return 2.5 * math.log10(size) if size is not None and 0 < size < math.inf else None


def _matched(pattern: re.Pattern[str], take: str, text: str) -> str | None:
    found = pattern.search(text)
    if not found:
        return None
    if take:
        return found.expand(take)
    return found.group(1) if pattern.groups else found.group()


def _mapped(rule: Rule, value: object) -> object:
    if value is None:
        return None
    text = plain_text(value).strip()
    if rule.ignore_case:
        text = text.lower()
    for pattern, result in rule.mapping.items():
        if fits(text, pattern.lower() if rule.ignore_case else pattern):
            return result
    return value if rule.otherwise is None else rule.otherwise


class FoundDate(NamedTuple):
    """A moment in UTC, naive; which part of the exposure it is; card and rule as in Found."""

    value: datetime
    at: str
    card: str
    rule: str


def first_date(rules: Sequence[DateRule], cards: Cards) -> FoundDate | None:
    """The moment that the first rule with one gives."""
    for rule in rules:
        if rule.when is not None and not holds(rule.when, cards.lookup):
            continue
        for name in rule.cards:
            value, comment = cards.card(name)
            if is_absent(value, rule.ignore) or (rule.comment and not rule.comment.search(comment)):
                continue
            read = _read_date(rule, value, cards)
            if read is not None:
                return FoundDate(read[0], rule.at, " ".join((name, *read[1])), rule.text)
    return None


def _read_date(rule: DateRule, value: object, cards: Cards) -> tuple[datetime, tuple[str, ...]] | None:
    when, clock_card = _date_and_clock(rule, value, cards)
    if when is None:
        return None
    if when.tzinfo is not None:
        return when.replace(tzinfo=None), clock_card
    scale = rule.scale
    if not isinstance(scale, str):
        found = first_value(scale, cards)
        scale = plain_text(found.value) if found else "UTC"
    utc = to_utc(when, scale)
    return ((utc or when) - timedelta(hours=rule.zone_hours), clock_card)


def _date_and_clock(rule: DateRule, value: object, cards: Cards) -> tuple[datetime | None, tuple[str, ...]]:
    if rule.form != "date":
        return from_mjd(value, rule.form), ()
    if has_clock(value) or not rule.time:
        return moment(value), ()
    for name in rule.time:
        clock, _ = cards.card(name)
        if is_absent(clock):
            continue
        when = moment(value, clock, rule.time_unit)
        if when is not None:
            return when, (name,)
    return None, ()
