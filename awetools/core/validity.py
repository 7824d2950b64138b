"""The interval in which a calibration serves: what it was made with, and what people set since, on record.

What people set is appended to a journal and never edits the record of the product.
It is that of the store which holds the product if this user may write there, else
the first of the search path; of what several journals say the first store's counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from .errors import AweError, BadHeader, BadValue, NoRecord, NoStore, Unavailable, WrongKind
from .indexing.indexfile import may_write
from .journal import (
    Event,
    Interval,
    append_after,
    events_on,
    read_events,
    stores_heard,
    validity_event,
    words,
    words_of,
)
from .kind import Kind, Validity, kind_named
from .planning.plan import noon_of, validity_of
from .products import is_product
from .raws import stat_of
from .record import Record, read_record, sidecar
from .store import Store, store_of

Ends = tuple[str | None, str | None]
# The things that people say of an object, by their names in `Words`.
Word = Literal["verdicts", "validities", "qualities"]

_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)?")
HOW_TO_WRITE = "a night as 2024-03-02 or a time (UTC) as 2024-03-02T23:10; leave it empty for forever"


@dataclass(frozen=True)
class Calibration:
    """A product whose interval is asked about, and the stores whose words on it count, nearest first."""

    path: Path
    record: Record
    kind: Kind
    holder: Store | None
    stores: tuple[Store, ...]

    @property
    def key(self) -> str:
        """What a word names it by."""
        return str(self.record["recipe_key"])

    @property
    def made_with(self) -> Interval:
        """The interval in its record."""
        validity, run = self.record["validity"] or {}, self.record["run"]
        return Interval(
            validity.get("start"), validity.get("end"), str(run.get("user") or ""), str(run.get("end") or "")
        )

    @property
    def made_by(self) -> str:
        """Where the interval in its record is from: default, or a settings file; empty for no interval."""
        return str((self.record["validity"] or {}).get("by") or "")


@dataclass(frozen=True)
class Standing:
    """The interval in force of a calibration; `by` is hand, default, or the settings file that says it.

    store: whose journal has the word; None for what the record says. changed: whether a
    change made it what it is.
    """

    path: Path
    interval: Interval
    by: str
    store: Store | None
    changed: bool = False


@dataclass(frozen=True)
class Change:
    """What is asked for: ends as typed (None leaves one as it is, empty is forever), nights, or the default."""

    start: str | None = None
    end: str | None = None
    nights: Validity | None = None
    default: bool = False


@dataclass(frozen=True)
class Failure:
    """A calibration whose interval could not be changed."""

    path: Path
    error: AweError


def calibration_at(path: Path, stores: Sequence[Store], kinds: Sequence[Kind]) -> Calibration:
    """A product that has an interval. Raises NoSuchFile, NoRecord, WrongKind for what has none."""
    stat_of(path)
    if not is_product(path):
        raise NoRecord(
            f"{path}: has no record beside it, so it is no product",
            hint="awe-query bias lists those of a kind",
        )
    record = read_record(sidecar(path))
    kind = kind_named(kinds, record["recipe"]["kind"])
    if kind.validity is None:
        raise WrongKind(
            f"{path}: a {kind.name} is not chosen for others, so it has no interval of validity",
            hint="calibrations have one: awe-query bias",
        )
    return Calibration(path, record, kind, store_of(path), tuple(stores_heard(path, stores)))


def standing(one: Calibration, as_of: str | None = None) -> Standing:
    """The interval in force of a calibration, now or at an instant (UTC)."""
    for store in one.stores:
        said = words(store, as_of).validities.get(one.key)
        if said is not None:
            return Standing(one.path, said, "hand", store)
    return Standing(one.path, one.made_with, one.made_by, None)


def history(one: Calibration) -> list[tuple[str, Event, Store | None]]:
    """All that was said of a calibration, oldest first: when, the event, and whose journal has it.

    The first is the interval that it was made with.
    """
    made = one.made_with
    first = {"event": "made", "start": made.start, "end": made.end, "by": one.made_by, "who": made.who}
    return [(made.when, first, None), *said_of(one.key, one.stores)]


def said_of(identity: str, stores: Sequence[Store]) -> list[tuple[str, Event, Store | None]]:
    """All that the journals of stores say of an object, oldest first: when, the event, and whose journal has it."""
    found: list[tuple[str, Event, Store | None]] = []
    for store in stores:
        found += [(str(event.get("when") or ""), event, store) for event in events_on(store, identity)]
    return sorted(found, key=lambda line: line[0])


def change_all(
    asked: Sequence[Calibration], change: Change, reason: str, who: str, dry_run: bool = False
) -> Iterator[Standing | Failure]:
    """Change the intervals of calibrations, on record; in the order of the stores they are written to.

    Raises nothing for one of them: what could not be changed is a Failure.
    """
    groups: dict[Store, list[Calibration]] = {}
    for one in asked:
        try:
            store = journal_for(str(one.path), one.key, one.stores, one.holder, "validities")
            groups.setdefault(store, []).append(one)
        except AweError as error:
            yield Failure(one.path, error)
    for store, group in groups.items():
        found: list[Standing | Failure] = []

        def decide(
            events: Sequence[Event],
            store: Store = store,
            group: Sequence[Calibration] = group,
            found: list[Standing | Failure] = found,
        ) -> list[Event]:
            return _decided(events, store, group, change, (reason, who), found)

        try:
            if dry_run:
                decide(read_events(store))
            else:
                append_after(store, decide)
            yield from found
        except AweError as error:
            yield from (Failure(one.path, error) for one in group)


def journal_for(name: str, identity: str, stores: Sequence[Store], holder: Store | None, word: Word) -> Store:
    """The store whose journal a word on an object goes to, so that it counts.

    The store that holds it, or a nearer one that has such a word on it already; if this user
    may not write there, the first store of the search path. stores: whose words on it
    count, nearest first. Raises Unavailable, NoStore.
    """
    if not stores:
        raise NoStore(f"{name}: no store holds it, so there is no journal", hint="awe-init, or AWE_PATH=DIR")
    said = (one for one in stores if one == holder or identity in getattr(words(one), word))
    wanted = next(said, stores[0])
    # A store behind the one that has a word on it would not be heard.
    heard = stores[: stores.index(wanted) + 1]
    for store in (wanted, *heard):
        if may_write(store.journal_path if store.journal_path.exists() else store.awe):
            return store
    raise Unavailable(
        f"{wanted.journal_path}: this user cannot write it",
        hint="a store of your own that comes first: awe-init DIR; AWE_PATH=DIR:...",
    )


def changed_ends(one: Calibration, now: Ends, change: Change) -> Ends | None:
    """The interval that a change gives; None takes back what was set. Raises BadValue."""
    if change.default:
        return None
    if change.nights is not None:
        made = validity_of(one.kind, one.record["meta"], change.nights)
        if made is None:
            raise BadValue(f"{one.path}: its night is not known, so nights cannot be counted from it")
        return made["start"], made["end"]
    meta = one.record["meta"]
    start = now[0] if change.start is None else moment(change.start, meta)
    end = now[1] if change.end is None else moment(change.end, meta, is_end=True)
    if start is not None and end is not None and start >= end:
        raise BadValue(
            f"{one.path}: the interval would start {start} and end {end}: an end comes after its start"
        )
    return start, end


def moment(text: str, meta: Mapping[str, Any], is_end: bool = False) -> str | None:
    """A time as typed, as UTC with milliseconds; None for an empty text, which is forever.

    A date is a night at the site of `meta`: it begins at local noon of that day, and as
    an end it is the noon at which it is over, as default intervals have it. Raises BadValue.
    """
    text = text.strip()
    if not text or text == "forever":
        return None
    with suppress(ValueError, OverflowError, BadHeader):
        if _DATE.fullmatch(text):
            return noon_of({**meta, "night": datetime.fromisoformat(text).date().isoformat()}, int(is_end))
        if _TIME.fullmatch(text):
            return _utc(datetime.fromisoformat(text)).isoformat(timespec="milliseconds")
    raise BadValue(f"{text!r:.60} is not {HOW_TO_WRITE}")


def as_of_moment(text: str) -> str:
    """An instant as typed, as UTC with milliseconds; a date is the end of that day. Raises BadValue."""
    text = text.strip()
    with suppress(ValueError, OverflowError):
        if _DATE.fullmatch(text):
            return f"{datetime.fromisoformat(text).date().isoformat()}T23:59:59.999"
        if _TIME.fullmatch(text):
            return _utc(datetime.fromisoformat(text)).isoformat(timespec="milliseconds")
    raise BadValue(f"{text!r:.60} is not a date as 2024-03-02 or a time (UTC) as 2024-03-02T23:10")


def _utc(when: datetime) -> datetime:
    return when.astimezone(UTC).replace(tzinfo=None) if when.tzinfo else when


def _decided(
    events: Sequence[Event],
    store: Store,
    group: Sequence[Calibration],
    change: Change,
    said: tuple[str, str],
    found: list[Standing | Failure],
) -> list[Event]:
    """The events of a change, from a journal as it stands; what comes of each calibration goes to `found`."""
    known = words_of(events).validities
    new: dict[str, Event] = {}
    for one in group:
        before = known.get(one.key)
        current = before or standing(one).interval
        try:
            ends = changed_ends(one, (current.start, current.end), change)
        except AweError as error:
            found.append(Failure(one.path, error))
            continue
        if ends is None and before is None:
            found.append(Standing(one.path, one.made_with, one.made_by, None))
            continue
        event = new.setdefault(one.key, validity_event(one.key, ends, *said))
        found.append(_after(one, store, ends, event))
    return list(new.values())


def _after(one: Calibration, store: Store, ends: Ends | None, event: Event) -> Standing:
    """What is in force after an event of a store's journal."""
    if ends is not None:
        about = {name: str(event[name]) for name in ("who", "when", "reason")}
        return Standing(one.path, Interval(*ends, **about), "hand", store, changed=True)
    others = replace(one, stores=tuple(other for other in one.stores if other != store))
    return replace(standing(others), changed=True)
