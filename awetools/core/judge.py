"""Judging products and raw frames: a person's word on them, appended to the journal of a store, never an edit.

`judge(subjects, verdict, reason, who)` judges any number at once with one append a
journal, as `awe-judge` and `awe-lineage --invalidate` do; what cannot be judged is a
Failure, and the others are judged all the same. `subjects_at` gives the subjects of a
file name. Who knows identities without files makes a `Subject` of each: its name, the
recipe key (of a raw frame the content), the kind, the store that holds it, and the
stores whose words on it count, `stores_heard(path, stores)` of `core.journal`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import AweError, BadValue, NoRecord, Unavailable, WrongKind
from .files import parse_address
from .journal import (
    VERDICTS,
    Event,
    append_after,
    nearest_words,
    read_events,
    stores_heard,
    verdict_event,
    verdict_on,
    words_of,
)
from .products import is_product, refuse_other_detectors
from .quality import quality_in_force, share_of_limits
from .record import Record, read_record, sidecar
from .store import Store, store_of
from .validity import journal_for, said_of

if TYPE_CHECKING:
    from .kind import Kind
    from .tracing.impact import Touched
    from .tracing.lineage import Node
    from .workspace import Workspace

# What takes a verdict back.
UNDO = "none"
# What the verdict on an identity is a part of, as `verdict_event` has it.
Parts = Mapping[str, Event]


@dataclass(frozen=True)
class Subject:
    """What is judged: a product, or a detector of a raw frame, by its identity.

    stores: those whose words on it count, nearest first.
    """

    name: str
    identity: str
    kind: str
    holder: Store | None
    stores: tuple[Store, ...]

    @property
    def is_raw(self) -> bool:
        """Whether it is a raw frame."""
        return self.kind.startswith("raw_")


@dataclass(frozen=True)
class Judged:
    """The verdict in force of a subject; `verdict` is None for none, `store` the one whose journal has it.

    changed: whether judging it made it what it is.
    """

    subject: Subject
    verdict: str | None
    who: str = ""
    when: str = ""
    reason: str = ""
    store: Store | None = None
    changed: bool = False


@dataclass(frozen=True)
class Failure:
    """A subject that could not be judged."""

    subject: Subject
    error: AweError


@dataclass(frozen=True)
class Waiting:
    """A product that nobody judged, and its measure nearest to a limit, or farthest outside.

    margin: in the unit of the measure, negative outside; share: the same as a share of
    the distance of the limits, or of the only one; None where it was not measured.
    """

    path: str
    kind: str
    measure: str
    value: float | None
    low: float | None
    high: float | None
    margin: float | None
    share: float | None
    flags: tuple[str, ...]

    @property
    def urgency(self) -> tuple[float, str]:
        """Its place in the queue: what has no value comes first, then what is farthest outside."""
        return (float("-inf") if self.share is None else self.share, self.path)


def subjects_at(name: str, workspace: Workspace) -> list[Subject]:
    """What a file name stands for: a product, or the detectors of a raw frame, which need not be registered.

    What is gone, removed by awe-rm or otherwise, is known by the record that was kept.
    Raises NoSuchFile, NoRecord, NoSuchExtension, and what reading a raw frame raises.
    """
    address = parse_address(name)
    if is_product(address.path):
        # Its state does not matter, so that no file is read.
        record = read_record(sidecar(address.path))
        refuse_other_detectors(address, record)
        stores = tuple(stores_heard(address.path, workspace.stores))
        about = str(record["recipe_key"]), str(record["recipe"]["kind"]), store_of(address.path)
        return [Subject(str(address.path), *about, stores)]
    from .tracing.lookup import Lookup

    with Lookup(workspace.stores, parents=False) as lookup:
        return [subject_of(node, workspace.stores) for node in lookup.named(name)]


def subject_of(node: Node, stores: Sequence[Store]) -> Subject:
    """What is judged of a node of a lineage; stores: the search path, and what else is known."""
    holder = store_of(Path(os.path.realpath(node.record_path))) if node.record_path else None
    return subject_in(holder, node.path, node.id, node.kind, stores)


def subject_in(holder: Store | None, name: str, identity: str, kind: str, stores: Sequence[Store]) -> Subject:
    """A subject that a store holds, whose words on it count after those of the others."""
    heard = (*stores, *([holder] if holder is not None and holder not in stores else []))
    return Subject(name, identity, kind, holder, heard)


def standing(subject: Subject) -> Judged:
    """The verdict in force of a subject: that of the nearest store which has one."""
    for store in subject.stores:
        event = verdict_on(store, subject.identity)
        if event is not None:
            return judged_by(subject, event, store)
    return Judged(subject, None)


def history(subject: Subject) -> list[tuple[str, Event, Store | None]]:
    """All that was said of a subject, oldest first: when, the event, and whose journal has it."""
    return said_of(subject.identity, subject.stores)


def judge(
    subjects: Sequence[Subject],
    verdict: str,
    reason: str,
    who: str,
    dry_run: bool = False,
    parts: Parts | None = None,
) -> Iterator[Judged | Failure]:
    """Judge subjects good, bad or ready, or take back the verdict in force (`none`), with one append a journal.

    parts: of each identity what its verdict is a part of. The verdicts go to the journals
    as `journal_for` says. Raises BadValue for another verdict; what cannot be judged is a
    Failure.
    """
    if verdict not in VERDICTS:
        raise BadValue(f"verdict {verdict!r}: must be one of {', '.join(VERDICTS)}")
    groups: dict[Store, list[Subject]] = {}
    for one in subjects:
        try:
            groups.setdefault(_journal_of(one, verdict), []).append(one)
        except AweError as error:
            yield Failure(one, error)
    for store, group in groups.items():
        yield from _judge_in(store, group, verdict, (reason, who), dry_run, parts or {})


def _journal_of(subject: Subject, verdict: str) -> Store:
    if verdict == "ready" and subject.is_raw:
        raise WrongKind(
            f"{subject.name}: a raw frame is not published, so it is not ready", hint="awe-judge FILE good"
        )
    store = journal_for(subject.name, subject.identity, subject.stores, subject.holder, "verdicts")
    before = standing(subject).store
    if verdict == UNDO and before is not None and before != store:
        # To take a word back in another journal would leave it in force.
        raise Unavailable(
            f"{before.journal_path}: has the verdict, and this user cannot write it",
            hint='awe-judge FILE good --reason "TEXT" says otherwise in your own store',
        )
    return store


def _judge_in(
    store: Store,
    group: Sequence[Subject],
    verdict: str,
    said: tuple[str, str],
    dry_run: bool,
    parts: Parts,
) -> Iterator[Judged | Failure]:
    """Judge what goes to one journal, all or none of it."""
    found: list[Judged | Failure] = []

    def decide(events: Sequence[Event]) -> list[Event]:
        known = words_of(events).verdicts
        new: dict[str, Event] = {}
        for one in group:
            if verdict == UNDO and one.identity not in known:
                found.append(standing(one))
                continue
            event = new.setdefault(
                one.identity, verdict_event(one.identity, verdict, *said, parts.get(one.identity))
            )
            found.append(_after(one, event, store))
        return list(new.values())

    try:
        if dry_run:
            decide(read_events(store))
        else:
            append_after(store, decide)
        yield from found
    except AweError as error:
        yield from (Failure(one, error) for one in group)


def _after(subject: Subject, event: Event, store: Store) -> Judged:
    """What is in force after an event of a store's journal."""
    if event["verdict"] != UNDO:
        return judged_by(subject, event, store, changed=True)
    for other in subject.stores[subject.stores.index(store) + 1 :]:
        behind = verdict_on(other, subject.identity)
        if behind is not None:
            return judged_by(subject, behind, other, changed=True)
    return Judged(subject, None, changed=True)


def judged_by(subject: Subject, event: Event, store: Store, changed: bool = False) -> Judged:
    """A subject by the event of its verdict in a store's journal."""
    about = {name: str(event.get(name) or "") for name in ("verdict", "who", "when", "reason")}
    return Judged(subject, **about, store=store, changed=changed)


# What follows, and what waits


def touched(subjects: Sequence[Subject]) -> list[Touched]:
    """The products that were made from any of these, at any depth, also through what was removed."""
    from .tracing.impact import impact
    from .tracing.lookup import Lookup

    stores = list(dict.fromkeys(store for one in subjects for store in one.stores))
    with Lookup(stores, parents=False) as lookup:
        return impact([one.identity for one in subjects], lookup)


def waiting(
    kind: str | None,
    conditions: Sequence[str],
    stores: Sequence[Store],
    kinds: Sequence[Kind],
    problems: list[AweError],
) -> list[Waiting]:
    """The products that nobody judged and that have a limit or a flag, the most urgent first.

    kind: None for all. Of the versions of one product, the one made last. Records that
    cannot be read are appended to `problems`. Raises UnknownName for a kind or field.
    """
    from .questions.query import ask, question_from_words

    said = nearest_words(stores)
    found: dict[str, Waiting] = {}
    for name in dict.fromkeys(one.name for one in kinds) if kind is None else (kind,):
        columns = ("path", "recipe_key", "verdict")
        question = question_from_words(name, conditions, columns, (), None, newest=True)
        for row in ask(question, stores, kinds):
            if row["verdict"] is not None or row["recipe_key"] in found:
                continue
            try:
                record = read_record(sidecar(Path(row["path"])))
            except NoRecord as error:
                problems.append(error)
                continue
            one = _waiting(row["path"], record, quality_in_force(record, said))
            if one is not None:
                found[row["recipe_key"]] = one
    return sorted(found.values(), key=lambda one: one.urgency)


def _waiting(path: str, record: Record, quality: Mapping[str, Any]) -> Waiting | None:
    kind, flags = str(record["recipe"]["kind"]), tuple(quality.get("flag_names", ()))
    found = [
        Waiting(
            path, kind, one["measure"], one["value"], one["low"], one["high"], one["margin"], share, flags
        )
        for one in quality.get("limits", ())
        if (share := share_of_limits(one)) is not None or not one["ok"]
    ]
    if not found:
        return Waiting(path, kind, "", None, None, None, None, None, flags) if flags else None
    return min(found, key=lambda one: one.urgency)
