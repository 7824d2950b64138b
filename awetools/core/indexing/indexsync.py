"""The index of a store looked at, checked against the records, followed, and merged with another store's."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import AweError, IndexBusy, NoRecord, Unavailable
from ..store import Store, raw_record_files, write_raw_record
from .catchup import Changes, catch_up, is_gone, new_or_changed, not_seen
from .generations import Generation
from .handle import Index
from .index import in_current, open_index, update
from .indexfile import SCHEMA_VERSION
from .indexrows import Row, meta_text, read_raw, record_files, rows_of

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


@dataclass(frozen=True)
class Summary:
    """What an index holds."""

    path: Path
    version: int
    bytes: int
    kinds: Mapping[str, int]


def summary(store: Store) -> Summary:
    """The number of objects of each kind, and where they are counted."""
    with open_index(store) as index:
        kinds = dict(index.select("SELECT kind, count(*) FROM objects GROUP BY kind ORDER BY kind"))
        pages = next(index.select("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"))
        return Summary(store.index_path, SCHEMA_VERSION, int(pages[0]), kinds)


def check(store: Store, quick: bool = False) -> list[str]:
    """Where the index differs from the records, in words; an empty list if nowhere."""
    return [f"{address}: {text}" for address, text in differences(store, quick)]


def differences(store: Store, quick: bool = False) -> list[tuple[str, str]]:
    """Addresses whose rows differ from the records, and how.

    quick: a record whose time is the one in the index is not read. What differs
    is looked at again a moment later, since a program may be about to index it.
    """
    with open_index(store) as index:
        suspects = [path for chunk in new_or_changed(index) for path, _ in chunk]
        files = suspects if quick else (path for path, _ in record_files(store))
        suspects = [path for path in files if _differences(index, path)]
        suspects += [path for path in not_seen(index) if is_gone(store, path)]
        if suspects:
            time.sleep(SETTLE_S)
        return [one for path in suspects for one in _differences(index, path)]


def _differences(index: Index, record_path: str) -> list[tuple[str, str]]:
    """How the rows of one record differ from it."""
    rows_known = index.rows("record_path = ?", [record_path], in_force=False)
    known = {row["address"]: row for row in rows_known}
    wrong = "its record is gone"
    try:
        rows = rows_of(index.store, record_path, 0)
    except NoRecord:
        rows = []
        if not is_gone(index.store, record_path):
            wrong = "its record cannot be read"
    found = []
    for row, links in rows:
        address, row["meta"] = row["address"], meta_text(row, row["setup"])
        indexed = known.pop(address, None)
        if indexed is None:
            found.append((address, "has a record but is not in the index"))
        elif _compared(indexed) != _compared(row) or _linked(index.inputs_of([address])) != _linked(links):
            found.append((address, "the index differs from the record"))
    return found + [(address, f"is in the index, but {wrong}") for address in known]


def _compared(row: Row) -> list[object]:
    return [row[name] for name in COMPARED]


def _linked(links: Sequence[Row]) -> set[tuple[object, ...]]:
    return {(one["role"], one["recipe_key"], one["content"]) for one in links}


def follow(store: Store, interval_s: float) -> Iterator[Changes | AweError]:
    """Take over the changes of the store's files every so many seconds, without end.

    From the second look on, what other programs put is among the changes. An
    error that a retry may cure is yielded in their place.
    """
    mark: _Mark | None = None

    def look(index: Index) -> tuple[Changes, _Mark]:
        changes = catch_up(index)
        return replace(changes, put=_put_since(index, mark)) if mark else changes, _mark(index)

    while True:
        try:
            changes, mark = in_current(store, look)
            yield changes
        except (IndexBusy, Unavailable) as error:
            yield error
        time.sleep(interval_s)


@dataclass(frozen=True)
class _Mark:
    """How far an index was looked at."""

    generation: Generation | None
    number: int
    newest_ns: int


def _mark(index: Index) -> _Mark:
    number, newest_ns = next(index.select("SELECT max(number), max(record_mtime_ns) FROM objects"))
    return _Mark(index.generation, number or 0, newest_ns or 0)


def _put_since(index: Index, mark: _Mark) -> tuple[str, ...]:
    # In an index that was made anew all rows are; there the times of the records tell.
    same = index.generation == mark.generation
    where, value = ("number > ?", mark.number) if same else ("record_mtime_ns > ?", mark.newest_ns)
    return tuple(
        row[0] for row in index.select(f"SELECT address FROM objects WHERE {where} ORDER BY number", [value])
    )


def merge(store: Store, other: Store) -> tuple[int, int]:
    """Take over another store's raw records and verdicts, and index the products that lie in this one.

    Returns the numbers of raw records and of verdict events taken over. A frame
    that both know keeps this store's record. Raises NoRecord, after all that can
    be read was taken over, if some cannot.
    """
    taken, failed = 0, []
    for path, _ in raw_record_files(other):
        try:
            raw = read_raw(Path(path))
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
    from ..journal import append_events, read_events

    def text(event: Mapping[str, Any]) -> str:
        return json.dumps({name: value for name, value in event.items() if name != "from"}, sort_keys=True)

    known = {text(event) for event in read_events(store)}
    new = [event for event in read_events(other) if text(event) not in known]
    append_events(store, [{"from": str(other.root), **event} for event in new])
    return len(new)
