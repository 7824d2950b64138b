"""The journal of a store: human verdicts, appended and never edited.

One JSON object a line. A verdict names a product by its recipe key, or a raw
frame by its content, so that it survives moving and renaming. The newest counts.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from .errors import BadValue, NoRecord, Unavailable
from .shape import faults
from .store import Store

VERDICTS = ("good", "bad", "ready", "none")
_VERDICT = {"identity": str, "verdict": str, "when": str}


def append_verdict(store: Store, identity: str, verdict: str, reason: str, who: str) -> dict[str, Any]:
    """Append a verdict; `none` takes the one before it back. Returns the event."""
    if verdict not in VERDICTS:
        raise BadValue(f"verdict {verdict!r}: must be one of {', '.join(VERDICTS)}")
    event = {
        "event": "verdict",
        "identity": identity,
        "verdict": verdict,
        "reason": reason,
        "who": who,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    append_events(store, [event])
    return event


def append_events(store: Store, events: Sequence[Mapping[str, Any]]) -> None:
    """Append events, durably and whole. Raises Unavailable."""
    lines = "".join(json.dumps(event, ensure_ascii=True) + "\n" for event in events).encode()
    try:
        descriptor = os.open(store.journal_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        raise Unavailable(f"{store.journal_path}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        _drop_torn_line(store)
        os.write(descriptor, lines)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
    event = json.loads(line)
    shape = _VERDICT if isinstance(event, dict) and event.get("event") == "verdict" else {}
    problem = next(faults(event, shape, "the event"), "")
    if problem:
        raise ValueError(problem)
    return dict(event)


def verdicts(store: Store) -> dict[str, str]:
    """The verdict in force for every product or raw frame that was judged."""
    newest: dict[str, Mapping[str, Any]] = {}
    for one in read_events(store):
        if one.get("event") != "verdict":
            continue
        known = newest.get(one["identity"])
        # One that was merged from another store was appended late, but given when it says.
        if known is None or "from" not in one or one["when"] >= known["when"]:
            newest[one["identity"]] = one
    return {identity: one["verdict"] for identity, one in newest.items() if one["verdict"] != "none"}
