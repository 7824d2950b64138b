"""Everything that was made from a bad frame or product: listed, and judged bad with it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple
from uuid import uuid4

from ..errors import AweError
from ..indexing.index import Index
from ..indexing.reach import Reached, descendants_of
from ..journal import Event, append_after, events_on, newest_events, read_events, verdict_event
from ..judge import UNDO, Failure, Judged, Subject, judge, judged_by, subject_in, subject_of
from ..store import Store
from .lineage import Node
from .lookup import Lookup


class Touched(NamedTuple):
    """A product that was made from what is asked about, at one place; steps by the shortest way.

    state: `present`; `deleted` for one whose file is gone, removed by awe-rm or otherwise.
    store: whose index or kept record knows it.
    """

    identity: str
    kind: str
    path: str
    steps: int
    state: str
    store: Store | None


def impact(starts: Iterable[str], lookup: Lookup) -> list[Touched]:
    """All products that were made from these identities, nearest first, also those of which only a record was kept.

    They are known by their recipe, whichever software made them. A product at two
    addresses is two.
    """
    indexes = [lookup.index(store) for store in lookup.stores]
    asked = list(dict.fromkeys(starts))
    reached = descendants_of(indexes, asked)
    if lookup.kept_uses({*asked, *(one.identity for one in reached)}):
        return _by_levels(asked, indexes, lookup)
    return _touched(reached, lookup)


def _by_levels(level: list[str], indexes: Sequence[Index], lookup: Lookup) -> list[Touched]:
    """The same where products are gone that others were made through: step by step."""
    seen = set(level)
    found: list[Touched] = []
    steps = 0
    while level:
        steps += 1
        reached = [one for one in descendants_of(indexes, level, depth=1) if one.identity not in seen]
        below = dict.fromkeys(one.identity for one in reached)
        found += _touched([one._replace(steps=steps) for one in reached], lookup)
        for node in _removed(level, lookup):
            if node.id not in seen and node.id not in below:
                found.append(Touched(node.id, node.kind, node.path, steps, "deleted", _keeper(node, lookup)))
                below[node.id] = None
        seen.update(below)
        level = list(below)
    return found


def _touched(reached: Iterable[Reached], lookup: Lookup) -> list[Touched]:
    """What an index knows, with whether its file is there; each folder is listed once."""
    roots = [os.path.join(store.root, "") for store in lookup.stores]
    there: dict[str, frozenset[str]] = {}
    found = []
    for identity, steps, rank, address, kind in reached:
        if rank is None:
            continue
        path = address if address.startswith("/") else roots[rank] + address
        folder, _, name = path.rpartition("/")
        if folder not in there:
            there[folder] = _names_in(folder)
        state = "present" if name in there[folder] else "deleted"
        found.append(Touched(identity, kind, path, steps, state, lookup.stores[rank]))
    return found


def _names_in(folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except OSError:
        return frozenset()


def _removed(identities: Iterable[str], lookup: Lookup) -> Iterator[Node]:
    for identity in lookup.kept_uses(identities):
        for _, node in lookup.removed_users(identity):
            yield node


def _keeper(node: Node, lookup: Lookup) -> Store | None:
    """The store that keeps the record of a removed product."""
    folder = node.record_path.parent if node.record_path else None
    return next((store for store in lookup.stores if store.records_path == folder), None)


def invalidate(
    starts: Sequence[Node],
    touched: Sequence[Touched],
    lookup: Lookup,
    reason: str,
    who: str,
    dry_run: bool = False,
) -> Iterator[Judged | Failure]:
    """Judge all of these bad, each once, with one append a journal; what cannot be judged is a Failure.

    The verdicts are one act, which `take_back` takes back as one.
    """
    subjects, act = _subjects(starts, touched, lookup), uuid4().hex[:16]
    asked = {node.id for node in starts}
    parts = {one: {"act": act, "start": True} if one in asked else {"act": act} for one in subjects}
    return judge(list(subjects.values()), "bad", reason, who, dry_run, parts)


def _subjects(starts: Sequence[Node], touched: Sequence[Touched], lookup: Lookup) -> dict[str, Subject]:
    """Each of these once, by its identity."""
    subjects = {node.id: subject_of(node, lookup.stores) for node in reversed(starts)}
    for one in touched:
        if one.identity not in subjects:
            subjects[one.identity] = subject_in(one.store, one.path, one.identity, one.kind, lookup.stores)
    return subjects


# Taking it back


def take_back(
    starts: Sequence[Node],
    touched: Sequence[Touched],
    lookup: Lookup,
    reason: str,
    who: str,
    dry_run: bool = False,
) -> Iterator[Judged | Failure]:
    """Take back what the last `invalidate` of each of these said, and nothing else, with one append a journal.

    What was judged otherwise since stays so. What was judged before, or by another
    `invalidate` that also touched it, is in force again.
    """
    subjects = _subjects(starts, touched, lookup)
    for act in dict.fromkeys(act for node in starts if (act := _last_act(node.id, lookup.stores))):
        for store in lookup.stores:
            try:
                events = read_events(store)
                if not any(_act_of(one) == act for one in events):
                    continue
                new: Sequence[Event] = (
                    _undoing(events, act, (reason, who))
                    if dry_run
                    else append_after(store, partial(_undoing, act=act, said=(reason, who)))
                )
            except AweError as error:
                yield Failure(subjects[starts[0].id], error)
                continue
            for event in new:
                name = event["identity"]
                one = subjects.get(name) or subject_in(store, name, name, "", lookup.stores)
                yield replace(judged_by(one, event, store, changed=True), verdict=_in_force(event))


def _last_act(identity: str, stores: Sequence[Store]) -> str | None:
    """The last act that started at an object and was not taken back."""
    undone = {name for store in stores for name in _undone(read_events(store))}
    found = [
        (str(one["when"]), act)
        for store in stores
        for one in events_on(store, identity)
        if one.get("start") and (act := _act_of(one)) and act not in undone
    ]
    return max(found)[1] if found else None


def _undoing(events: Sequence[Event], act: str, said: tuple[str, str]) -> list[Event]:
    """The events that take an act back, from a journal as it stands; that of its start marks it as taken back.

    What such an event puts in force again keeps its own act, so that this can be taken back too.
    """
    undone = _undone(events)
    if act in undone:
        return []
    before = newest_events(one for one in events if _act_of(one) not in undone)
    after = newest_events(one for one in events if _act_of(one) not in {*undone, act})
    new: dict[str, Event] = {}
    for one in events:
        name = ("verdict", str(one.get("identity")))
        if _act_of(one) != act or (_act_of(before[name]) != act and not one.get("start")):
            continue
        again = after.get(name)
        part = {"undoes": act, **({"act": own} if again and (own := _act_of(again)) else {})}
        reason, who = said
        if again and again["verdict"] != UNDO:
            reason = f"{again.get('reason')} (as {again.get('who')} judged on {again['when'][:10]}; {reason})"
        verdict = UNDO if again is None else str(again["verdict"])
        new.setdefault(name[1], verdict_event(name[1], verdict, reason, who, part))
    return list(new.values())


def _undone(events: Sequence[Event]) -> set[str]:
    return {str(one["undoes"]) for one in events if "undoes" in one}


def _act_of(event: Event) -> str | None:
    return str(event["act"]) if event.get("event") == "verdict" and "act" in event else None


def _in_force(event: Event) -> str | None:
    return None if event["verdict"] == UNDO else str(event["verdict"])
