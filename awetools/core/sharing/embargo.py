"""Embargoes: until when what is in a store may not go on to another, as the journals say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime

from ..errors import BadValue
from ..journal import Event, append_after, newest_events, now, read_events
from ..store import Store

# Takes an embargo back.
NO_DATE = "none"


@dataclass(frozen=True)
class Embargo:
    """Until when an object may not leave a store: the first day (UTC) on which it may, and who said so."""

    until: str
    who: str
    when: str
    reason: str
    store: Store

    def __str__(self) -> str:
        why = f": {self.reason}" if self.reason else ""
        return f"under embargo until {self.until} (set by {self.who}, {self.when[:16]}, in {self.store.root}{why})"


def until_of(text: str) -> str | None:
    """The day that a text names, YYYY-MM-DD; None for `none`. Raises BadValue, also for a day that has come."""
    if text == NO_DATE:
        return None
    day = ""
    with suppress(ValueError):
        day = date.fromisoformat(text).isoformat()
    if day != text:
        raise BadValue(f"--embargo {text!r:.60}: must be a date as 2027-03-02, or {NO_DATE}")
    if day <= today():
        raise BadValue(
            f"--embargo {text}: that day has come (today is {today()} UTC), so nothing would be held",
            hint=f"--embargo {NO_DATE} takes an embargo back",
        )
    return day


def today() -> str:
    """The day that it is, UTC."""
    return datetime.now(UTC).date().isoformat()


def embargoes(stores: Iterable[Store]) -> dict[str, Embargo]:
    """The embargo in force of each identity: the latest of what the stores say.

    Within a journal the newest event counts, by its place and not by the clock of who wrote it.
    """
    found: dict[str, Embargo] = {}
    for store in stores:
        for identity, until, event in _in_journal(store):
            known = found.get(identity)
            if until > max(today(), known.until if known else ""):
                who, when, reason = (str(event.get(name) or "") for name in ("who", "when", "reason"))
                found[identity] = Embargo(until, who, when, reason, store)
    return found


def _in_journal(store: Store) -> list[tuple[str, str, Event]]:
    newest = newest_events(read_events(store))
    return [
        (identity, str(event["until"]), event)
        for (sort, identity), event in newest.items()
        if sort == "embargo" and event["until"] is not None
    ]


def embargo_event(identity: str, until: str | None, reason: str, who: str) -> dict[str, str | None]:
    """The event that sets an embargo, or that takes one back (None)."""
    return {
        "event": "embargo",
        "identity": identity,
        "until": until,
        "reason": reason,
        "who": who,
        "when": now(),
    }


def hold(
    store: Store, identities: Sequence[str], until: str | None, reason: str, who: str, dry_run: bool = False
) -> list[str]:
    """Set or take back the embargo of objects in a store's journal; returns those that it changes."""
    changed: list[str] = []

    def decide(events: Sequence[Event]) -> list[Event]:
        newest = newest_events(events)
        for identity in dict.fromkeys(identities):
            before = newest.get(("embargo", identity))
            if (before["until"] if before else None) != until:
                changed.append(identity)
        return [embargo_event(identity, until, reason, who) for identity in changed]

    if dry_run:
        decide(read_events(store))
    else:
        append_after(store, decide)
    return changed
