"""Whether the index of a store says what its records say; and taking over another store's frames and verdicts."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from .errors import AweError, NoRecord
from .index import Index, is_gone, new_or_changed, not_seen, open_index, update
from .indexrows import read_raw, record_files, rows_of
from .store import Store, raw_record_files, write_raw_record

# A record is on disk a moment before its row is in the index.
SETTLE_S = 1.0

# What of a row must be as in the record; times may differ.
COMPARED = (
    "kind",
    "content",
    "recipe_key",
    "bytes",
    "sequence",
    "valid_from",
    "valid_to",
    "valid_by",
    "flags",
    "meta",
    "measures",
)


def check(store: Store, quick: bool = False) -> list[str]:
    """Where the index differs from the records; an empty list if nowhere.

    quick: a record whose time is the one in the index is not read. What differs
    is looked at again a moment later, since a program may be about to index it.
    """
    with open_index(store) as index:
        suspects = [path for chunk in new_or_changed(index) for path, _ in chunk]
        if not quick:
            suspects = [path for path, _ in record_files(store)]
        suspects = [path for path in suspects if _problems(index, path)]
        suspects += [path for path in not_seen(index) if is_gone(store, path)]
        if suspects:
            time.sleep(SETTLE_S)
        return [problem for path in suspects for problem in _problems(index, path)]


def _problems(index: Index, record_path: str) -> list[str]:
    """How the rows of one record differ from it."""
    sql = f"SELECT address, {', '.join(COMPARED)} FROM objects WHERE record_path = ?"
    known = {row[0]: row[1:] for row in index.select(sql, [record_path])}
    wrong = "its record is gone"
    try:
        rows = rows_of(index.store, record_path, 0)
    except NoRecord:
        rows = []
        if not is_gone(index.store, record_path):
            wrong = "its record cannot be read"
    problems = []
    for row, links in rows:
        found = known.pop(row["address"], None)
        if found is None:
            problems.append(f"{row['address']}: has a record but is not in the index")
        elif (
            found != tuple(row[name] for name in COMPARED)
            or index.links("child = ?", [row["address"]]) != links
        ):
            problems.append(f"{row['address']}: the index differs from the record")
    return problems + [f"{address}: is in the index, but {wrong}" for address in known]


def merge(store: Store, other: Store) -> tuple[int, int]:
    """Take over another store's raw records and verdicts, and index the products that lie in this one.

    Returns the numbers of raw records and of verdict events taken over. A frame
    that both know keeps this store's record. Raises NoRecord, after all that can
    be read was taken over, if some cannot.
    """
    taken, failed = 0, []
    for path, _ in raw_record_files(other):
        try:
            raw = read_raw(path)
            if not store.raw_record_path(raw["file"]["path"]).exists():
                write_raw_record(store, raw)
                taken += 1
        except (NoRecord, KeyError, TypeError) as error:
            failed.append(error.message if isinstance(error, AweError) else f"{path}: malformed")
    events = _merge_journal(store, other)
    update(store)
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise NoRecord(f"{failed[0]}{more}", hint=f"awe-verify {other.root}")
    return taken, events


def _merge_journal(store: Store, other: Store) -> int:
    from .journal import append_events, read_events

    def text(event: Mapping[str, Any]) -> str:
        return json.dumps({name: value for name, value in event.items() if name != "from"}, sort_keys=True)

    known = {text(event) for event in read_events(store)}
    new = [event for event in read_events(other) if text(event) not in known]
    append_events(store, [{"from": str(other.root), **event} for event in new])
    return len(new)
