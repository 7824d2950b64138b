"""The journal of a store: what people said of its objects, appended and never edited.

One JSON object a line: a verdict, the interval in which a calibration serves, or the
flags that a product has under limits that were changed since.
It names a product by its recipe key, or a raw frame by its content, so that it
survives moving and renaming. The newest counts.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from .errors import BadValue, NoRecord, Unavailable
from .files import open_shared
from .shape import NUMBER, Maybe, Written, faults
from .store import Store, store_of

VERDICTS = ("good", "bad", "ready", "none")
_TEXT = Written(lambda text: text.encode().decode(), "a text in UTF-8")
_END = Maybe(
    Written(
        lambda text: datetime.fromisoformat(text).replace(tzinfo=None).isoformat(timespec="milliseconds"),
        "a time (UTC) as 2024-03-02T23:10:00.000",
    )
)
_WHEN = Written(
    lambda text: text if datetime.fromisoformat(text).utcoffset() == timedelta(0) else "",
    "a time (UTC) as 2024-03-02T23:10:00.000+00:00",
)
_DAY = Written(lambda text: date.fromisoformat(text).isoformat(), "a date as 2024-03-02")
_JUDGED = {
    "measure": str,
    "value": Maybe(NUMBER),
    "low": Maybe(NUMBER),
    "high": Maybe(NUMBER),
    "margin": Maybe(NUMBER),
    "ok": bool,
}
_SHAPES: Mapping[str, Mapping[str, Any]] = {
    "verdict": {"identity": _TEXT, "verdict": _TEXT, "when": _WHEN},
    "validity": {"identity": _TEXT, "by": _TEXT, "start": _END, "end": _END, "when": _WHEN},
    "quality": {"identity": _TEXT, "made": _TEXT, "flags": int, "limits": [_JUDGED], "when": _WHEN},
    "embargo": {"identity": _TEXT, "until": Maybe(_DAY), "when": _WHEN},
    "publish": {"identity": _TEXT, "from": str, "to": str, "when": _WHEN},
}

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Interval:
    """An interval that somebody set, from start (included) to end (excluded), UTC; None is forever."""

    start: str | None
    end: str | None
    who: str = ""
    when: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Quality:
    """The flags of a product under limits that were applied again; limits: as in a record's quality.

    made: when the product was made that they were applied to.
    """

    flags: int
    made: str
    limits: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Words:
    """What is in force of what people said: verdict, interval set by hand and changed flags of each identity."""

    verdicts: Mapping[str, str]
    validities: Mapping[str, Interval]
    qualities: Mapping[str, Quality] = field(default_factory=dict)

    def quality_of(self, identity: str, made: object) -> Quality | None:
        """What limits that were changed since say of a product; None where what its record says counts.

        made: when it was made. One that was made again later was judged by the newer limits;
        the clocks of those who judge take no part in it.
        """
        found = self.qualities.get(identity)
        return found if found is not None and found.made >= str(made or "") else None

    def flags_of(self, identity: str, recorded: int, made: object) -> int:
        """The flags in force of a product, from those of its record."""
        found = self.quality_of(identity, made)
        return recorded if found is None else found.flags


NOTHING = Words({}, {})


def append_verdict(store: Store, identity: str, verdict: str, reason: str, who: str) -> dict[str, Any]:
    """Append a verdict; `none` takes the one before it back. Returns the event."""
    event = verdict_event(identity, verdict, reason, who)
    append_events(store, [event])
    return event


def verdict_event(
    identity: str, verdict: str, reason: str, who: str, part: Event | None = None
) -> dict[str, Any]:
    """The event of a verdict; `none` takes the one before it back. Raises BadValue.

    part: what it is a part of. `act` names all verdicts that were given as one, `start`
    those on what was named, from which the others follow; `undoes` the act that it takes back.
    """
    if verdict not in VERDICTS:
        raise BadValue(f"verdict {verdict!r}: must be one of {', '.join(VERDICTS)}")
    return {
        "event": "verdict",
        "identity": identity,
        "verdict": verdict,
        "reason": reason,
        "who": who,
        "when": now(),
        **(part or {}),
    }


def validity_event(
    identity: str, interval: tuple[str | None, str | None] | None, reason: str, who: str
) -> dict[str, Any]:
    """The event that sets the interval of a calibration, or that takes back what was set (None)."""
    start, end = interval or (None, None)
    return {
        "event": "validity",
        "identity": identity,
        "by": "default" if interval is None else "hand",
        "start": start,
        "end": end,
        "reason": reason,
        "who": who,
        "when": now(),
    }


def quality_event(
    identity: str, made: str, flags: int, limits: Sequence[Mapping[str, Any]], reason: str, who: str
) -> dict[str, Any]:
    """The event that says the flags, under the limits now in force, of a product that was made then."""
    return {
        "event": "quality",
        "identity": identity,
        "made": made,
        "flags": flags,
        "limits": list(limits),
        "reason": reason,
        "who": who,
        "when": now(),
    }


def now() -> str:
    """The time that goes on record, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def user_name() -> str:
    """Who runs this program: the name that goes on record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def append_events(store: Store, events: Sequence[Event]) -> None:
    """Append events, durably and whole. Raises Unavailable."""
    append_after(store, lambda _: events)


def append_after(store: Store, decide: Callable[[list[dict[str, Any]]], Sequence[Event]]) -> Sequence[Event]:
    """Append the events that follow from those so far, while no other program can append. Raises Unavailable.

    So that of two people who each move one end of an interval neither undoes what the other did.
    """
    try:
        descriptor = open_shared(store.journal_path, os.O_WRONLY | os.O_APPEND)
    except OSError as error:
        raise Unavailable(f"{store.journal_path}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        _drop_torn_line(store)
        events = decide(read_events(store))
        _write(descriptor, "".join(json.dumps(event, ensure_ascii=True) + "\n" for event in events).encode())
        os.fsync(descriptor)
    except OSError as error:
        raise Unavailable(f"{store.journal_path}: {error.strerror}") from None
    finally:
        os.close(descriptor)
    return events


def _write(descriptor: int, lines: bytes) -> None:
    while lines:
        lines = lines[os.write(descriptor, lines) :]


def _drop_torn_line(store: Store) -> None:
    # A line without its end was never acknowledged: the writer died in the middle of it.
    with store.journal_path.open("r+b") as stream:
        text = stream.read()
        if text and not text.endswith(b"\n"):
            stream.truncate(text.rfind(b"\n") + 1)


def read_events(store: Store) -> list[dict[str, Any]]:
    """All events of a store's journal, oldest first; a line cut short by a crash at the end is skipped."""
    try:
        lines = store.journal_path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Unavailable(f"{store.journal_path}: {error.strerror}") from None
    events = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            events.append(_event(line))
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                continue
            raise NoRecord(
                f"{store.journal_path}: line {number}: {error}",
                hint=f"take the line out by hand: sed -n {number}p {shlex.quote(str(store.journal_path))}",
            ) from None
    return events


def _event(line: bytes) -> dict[str, Any]:
    """The event of a line; raises ValueError for what is not JSON, or not an event."""
    try:
        event = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos}") from None
    problem = fault_of(event)
    if problem:
        raise ValueError(problem)
    return dict(event)


def fault_of(event: Any) -> str:
    """What is wrong with an event, in words; nothing if a journal can have it."""
    kind = event.get("event") if isinstance(event, dict) else None
    # What a newer version says is kept, and passed over.
    shape = _SHAPES.get(kind, {}) if isinstance(kind, str) else {}
    problem = next(faults(event, {"event": str, **shape}, "the event"), "")
    if not problem and isinstance(event, dict) and kind == "quality" and not 0 <= event["flags"] < 1 << 63:
        problem = f"the event.flags is {event['flags']!r:.60}, not bits of measures"
    return problem


def words(store: Store, as_of: str | None = None) -> Words:
    """What is in force of what a store's journal says, or what was at an instant (UTC, ISO 8601)."""
    return _words_at(store, as_of, _stamp(store))


def events_on(store: Store, identity: str) -> Sequence[Event]:
    """All that a store's journal says of one object, oldest first."""
    return _events_by_identity(store, _stamp(store)).get(identity, ())


def _stamp(store: Store) -> tuple[int, int, int] | None:
    """What changes with a journal; None where there is none."""
    try:
        stat = store.journal_path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


# A journal is asked about every calibration that a person names, and read once.
@lru_cache(maxsize=16)
def _words_at(store: Store, as_of: str | None, _: tuple[int, int, int] | None) -> Words:
    return words_of(read_events(store), as_of)


@lru_cache(maxsize=16)
def _events_by_identity(store: Store, _: tuple[int, int, int] | None) -> Mapping[str, Sequence[Event]]:
    found: dict[str, list[Event]] = {}
    for event in read_events(store):
        found.setdefault(str(event.get("identity")), []).append(event)
    return found


def words_of(events: Iterable[Event], as_of: str | None = None) -> Words:
    """What is in force after events, oldest first, or what was at an instant."""
    newest = newest_events(events, as_of)
    verdicts = {
        identity: str(one["verdict"])
        for (event, identity), one in newest.items()
        if event == "verdict" and one["verdict"] != "none"
    }
    validities = {
        identity: _interval(one)
        for (event, identity), one in newest.items()
        if event == "validity" and one["by"] == "hand"
    }
    qualities = {
        identity: Quality(one["flags"], one["made"], one["limits"])
        for (event, identity), one in newest.items()
        if event == "quality"
    }
    return Words(verdicts, validities, qualities)


def verdict_on(store: Store, identity: str) -> Event | None:
    """The event of the verdict in force of one object by a store's journal: who, when and why besides what."""
    found = newest_events(events_on(store, identity)).get(("verdict", identity))
    return None if found is None or found["verdict"] == "none" else found


def newest_events(events: Iterable[Event], as_of: str | None = None) -> dict[tuple[str, str], Event]:
    """The event that counts of each sort and identity, of events oldest first, or of those until an instant."""
    newest: dict[tuple[str, str], Event] = {}
    for one in events:
        if one.get("event") not in _SHAPES or (as_of is not None and not happened_by(one["when"], as_of)):
            continue
        name = (str(one["event"]), str(one["identity"]))
        known = newest.get(name)
        # One that was merged from another store was appended late, but given when it says.
        if known is None or "from" not in one or one["when"] >= known["when"]:
            newest[name] = one
    return newest


def verdicts(store: Store, as_of: str | None = None) -> dict[str, str]:
    """The verdict in force for every product or raw frame that was judged, now or at an instant."""
    return dict(words(store, as_of).verdicts)


def validities(store: Store, as_of: str | None = None) -> dict[str, Interval]:
    """The interval in force for every calibration whose interval was set by hand, now or at an instant."""
    return dict(words(store, as_of).validities)


def nearest_words(stores: Iterable[Store], as_of: str | None = None) -> Words:
    """What is in force over several stores: of each identity, what the first one says that has a word on it."""
    return nearest([words(store, as_of) for store in stores])


def nearest(said: Sequence[Words]) -> Words:
    """Of each identity what the first says that has a word on it."""
    found = NOTHING
    for one in reversed(said):
        found = Words(
            {**found.verdicts, **one.verdicts},
            {**found.validities, **one.validities},
            {**found.qualities, **one.qualities},
        )
    return found


def stores_heard(path: Path, stores: Sequence[Store]) -> list[Store]:
    """The stores whose words on a product count, nearest first: the search path, then the one that holds it."""
    holder = store_of(path)
    return [*stores, *([holder] if holder is not None and holder not in stores else [])]


def happened_by(when: object, as_of: str) -> bool:
    """Whether something that happened at a time (UTC) had happened by an instant; an instant may be a date."""
    return str(when or "")[: len(as_of)] <= as_of


def _interval(event: Event) -> Interval:
    about = {name: str(event.get(name) or "") for name in ("who", "when", "reason")}
    return Interval(event["start"], event["end"], **about)
