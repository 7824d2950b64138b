"""What publishing products one store up with all of their lineage means, and what speaks against it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..catalogues.refinput import place_of_content
from ..errors import (
    AweError,
    Integrity,
    NoRecord,
    Unavailable,
    Withheld,
    WouldOverwrite,
    WrongKind,
)
from ..files import Address, parse_address
from ..indexing.index import Index, absolute, open_index
from ..indexing.indexfile import may_write
from ..indexing.indexrows import relative
from ..journal import Event, events_on, nearest_words, newest_events, now, read_events, words
from ..kind import REFCAT, is_outside
from ..planning.plan import refuse_foreign
from ..products import file_sha256, state_of
from ..publish import kept_name, read_record_or_none
from ..quality import unfit_for_use
from ..record import Record, read_record, sidecar
from ..store import AWE, Store, store_of
from ..tracing.lineage import Node
from ..tracing.lookup import Lookup
from .embargo import embargo_event, embargoes
from .handoverstage import Step, reserved_bytes

Files = Literal["product", "calibrations", "all"]
FILES: tuple[Files, ...] = ("product", "calibrations", "all")
# What is said of an object goes with it; embargoes hold what is in the store of which they were said.
GOES_ALONG = ("verdict", "validity", "quality")
# Records go before the products that were made of them, and these before those that were asked for.
ANCESTOR, ASKED = 1, 2


@dataclass(frozen=True)
class Piece:
    """One object of a lineage that goes up: as a `product`, a `kept` record, a `raw` record or a `frame` with it.

    size: bytes of what is copied. target: the file's address in its new store.
    """

    node: Node
    what: str
    source: Path
    target: str
    size: int
    step: Step


@dataclass(frozen=True)
class Asked:
    """A product that a person asks to publish: where it is, where it will be, and whether it is there already."""

    node: Node
    holder: Store
    target: Path
    there: bool


@dataclass
class Publication:
    """All that is to be done for some products, and why it may not be."""

    store: Store
    asked: list[Asked] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    others: dict[str, list[Event]] = field(default_factory=dict)
    problems: list[AweError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """How much is copied."""
        return sum(one.size for one in self.pieces)


@dataclass(frozen=True)
class Wish:
    """How to publish: the files that go along, whether others' products are replaced, and the words that go on record.

    until: with `embargo`, the day until which the products are held in their new store;
    None takes that back.
    """

    files: Files = "product"
    force: bool = False
    embargo: bool = False
    until: str | None = None
    reason: str = ""
    who: str = ""


def plan(paths: Sequence[Path], stores: Sequence[Store], store: Store, wish: Wish) -> Publication:
    """What publishing products to a store means, and all that speaks against it; nothing is changed.

    What is wrong with a product as such goes to the problems too: nothing is
    published unless all can be.
    """
    found = Publication(store)
    holders = dict.fromkeys(one for one in map(store_of, paths) if one is not None)
    heard = list(dict.fromkeys([*stores, *holders]))
    below = heard[: heard.index(store)] if store in heard else heard
    nearer = [one for one in heard if one in below or (one in holders and one != store)]
    with Lookup(list(dict.fromkeys([*heard, store]))) as lookup, open_index(store) as index:
        planner = _Planner(found, lookup, index, heard, nearer, wish)
        for path in dict.fromkeys(paths):
            planner.name(path)
        planner.collect()
        planner.finish()
    if found.pieces or found.events:
        found.problems += _no_place(found, wish)
    return found


def _no_place(found: Publication, wish: Wish) -> Iterator[Unavailable]:
    store, root = found.store, shlex.quote(str(found.store.root))
    if not (may_write(store.awe) and may_write(store.root)):
        yield Unavailable(f"{store.root}: this user cannot write it", hint=f"ls -ld {root}")
    stat = os.statvfs(store.awe)
    free, needed = stat.f_bavail * stat.f_frsize, found.bytes + reserved_bytes(len(found.pieces))
    if needed > free:
        less = wish.files != "product"
        yield Unavailable(
            f"{store.root}: {needed} bytes are needed, and {free} are free there",
            hint="--files product copies the least" if less else f"df -h {root}",
        )


# Planning


class _Planner:
    """Goes over the lineages of products and collects what goes up with them."""

    def __init__(
        self,
        found: Publication,
        lookup: Lookup,
        index: Index,
        heard: Sequence[Store],
        nearer: Sequence[Store],
        wish: Wish,
    ) -> None:
        self._found = found
        self._store = found.store
        self._lookup = lookup
        self._index = index
        self._nearer = nearer
        self._wish = wish
        self._done: set[tuple[str, str]] = set()
        self._targets: dict[str, str] = {}
        self._taken: set[str] = set()
        self._frames: set[str] = set()
        self._identities: dict[str, None] = {}
        self._named: dict[Path, Node] = {}
        self._said = nearest_words(heard)
        self._said_above = words(self._store)
        self._embargoes = embargoes(one for one in heard if one != self._store)

    def name(self, path: Path) -> None:
        """Note that a product is asked for, or what is wrong with it."""
        try:
            (node, *_) = self._lookup.named(str(path))
            _check_asked(path, node)
        except AweError as error:
            self._found.problems.append(error)
            return
        self._judge_asked(path, node)
        self._named[path] = node

    def collect(self) -> None:
        """Take up all that was asked for, each product with its lineage before it."""
        asked = {node.id for node in self._named.values()}
        for path, node in self._named.items():
            try:
                self._collect(path, node, asked)
            except AweError as error:
                self._found.problems.append(error)

    def _collect(self, path: Path, node: Node, asked: Set[str]) -> None:
        for one in _ancestors_first(node, self._lookup):
            if one.identity in self._done:
                continue
            self._done.add(one.identity)
            self._identities[one.id] = None
            if one is not node:
                self._judge_ancestor(one, path)
            self._judge_embargo(one)
            self._take(one, one.id in asked)
        holder, there = store_of(path), self._there(node)
        assert holder is not None
        target = there or self._store.root / self._targets[node.id]
        self._found.asked.append(Asked(node, holder, target, there is not None))

    def finish(self) -> None:
        """The events of all that is taken up."""
        found, wish, when = self._found, self._wish, now()
        known = newest_events(read_events(self._store))
        found.events += list(self._words_that_go_along(known))
        for one in found.asked:
            for event in self._untold(one) if one.there else [self._publish_event(one, when)]:
                found.others.setdefault(str(one.holder.root), []).append(event)
                if not one.there:
                    found.events.append(event)
        for one in found.asked if wish.embargo else ():
            before = known.get(("embargo", one.node.id))
            if (before["until"] if before else None) != wish.until:
                found.events.append(embargo_event(one.node.id, wish.until, wish.reason, wish.who))

    def _publish_event(self, one: Asked, when: str) -> Event:
        return {
            "event": "publish",
            "identity": one.node.id,
            "from": str(one.holder.root),
            "to": str(self._store.root),
            "reason": self._wish.reason,
            "who": self._wish.who,
            "when": when,
        }

    def _untold(self, one: Asked) -> Iterator[Event]:
        """What was published from a store whose journal could not be written then."""
        told = events_on(one.holder, one.node.id)
        for event in events_on(self._store, one.node.id):
            if event["event"] == "publish" and event["from"] == str(one.holder.root) and event not in told:
                yield event

    def _words_that_go_along(self, known: Mapping[tuple[str, str], Event]) -> Iterator[Event]:
        """What is in force of the lineage, where the upper store does not say it yet."""
        for identity in self._identities:
            newest: dict[str, Event] = {}
            for store in self._nearer:
                for (sort, _), event in newest_events(events_on(store, identity)).items():
                    # What was taken back is no word, so that of the next store counts.
                    if sort in GOES_ALONG and (sort not in newest or _takes_back(newest[sort])):
                        newest[sort] = {"from": str(store.root), **event}
            for sort, event in newest.items():
                before = known.get((sort, identity))
                if before is None:
                    if not _takes_back(event):
                        yield event
                elif _less(before) != _less(event) and event["when"] >= before["when"]:
                    yield event

    # What speaks against it

    def _judge_asked(self, path: Path, node: Node) -> None:
        name, above = shlex.quote(str(path)), shlex.quote(str(self._store.root))
        if self._said_above.verdicts.get(node.id) == "bad":
            self._withhold(
                f"{path}: was judged bad in {self._store.root}",
                f"AWE_PATH={above} awe-judge --undo {name} --reason TEXT",
            )
            return
        verdict = self._said.verdicts.get(node.id)
        if verdict != "ready":
            said = "nobody judged it ready" if verdict is None else f"is judged {verdict}, not ready"
            self._withhold(f"{path}: {said}", f"awe-judge {name} ready --reason TEXT")

    def _judge_ancestor(self, node: Node, product: Path) -> None:
        record = _record_of(node)
        flags = 0
        if record is not None:
            flags = self._said.flags_of(node.id, record["quality"]["flags"], record["run"].get("end"))
        unfit = unfit_for_use(flags, self._said.verdicts.get(node.id))
        if not unfit and self._said_above.verdicts.get(node.id) == "bad":
            unfit = f"judged bad in {self._store.root}"
        if unfit:
            self._withhold(
                f"{node.path}: the {node.kind} is {unfit}, and an ancestor of {product}",
                f"awe-judge {shlex.quote(node.path)} good --reason TEXT",
            )

    def _judge_embargo(self, node: Node) -> None:
        embargo = self._embargoes.get(node.id)
        if embargo is not None:
            root, name = shlex.quote(str(embargo.store.root)), shlex.quote(node.path)
            self._withhold(
                f"{node.path}: is {embargo}", f"AWE_PATH={root} awe-publish --hold --embargo none {name}"
            )

    def _withhold(self, message: str, hint: str) -> None:
        self._found.problems.append(Withheld(message, hint=hint))

    # What goes up

    def _take(self, node: Node, is_asked: bool) -> None:
        if is_outside(node.kind):
            self._say_what_stays(node)
            return
        if _is_raw(node):
            self._take_raw(node)
            return
        if self._there(node) is not None:
            return
        as_file = is_asked or self._wish.files != "product"
        if as_file and node.state in ("present", "moved"):
            self._take_product(node, ASKED if is_asked else ANCESTOR)
        else:
            self._take_record(node)

    def _say_what_stays(self, node: Node) -> None:
        """A catalogue is no part of a lineage; it is said where those above have none of its content."""
        if node.kind == REFCAT and place_of_content(node.content, [self._store]) is None:
            self._found.notes.append(f"{node.path}: the reference catalogue stays where it is")

    def _there(self, node: Node) -> Path | None:
        """Where the upper store holds a product already."""
        for row in self._index.rows("recipe_key = ? AND content = ?", (node.id, node.content)):
            path = Path(absolute(self._store, row["address"]))
            record = read_record_or_none(path)
            if record is not None and state_of(path, record) == "whole":
                return path
        return None

    def _take_product(self, node: Node, stage: int) -> None:
        source = Path(os.path.abspath(node.path))
        record = read_record(sidecar(source))
        target = self._target_of(node, source)
        problem = self._in_the_way(node, self._store.root / target)
        if problem is not None:
            self._found.problems.append(problem)
        about = record["product"]
        text, digest = sidecar(source).read_bytes(), about["file_sha256"]
        step = Step("product", target, text, f"{target}.json", source, digest, stage)
        self._found.pieces.append(Piece(node, "product", source, target, about["bytes"], step))

    def _target_of(self, node: Node, source: Path) -> str:
        """The same place as in the store that it comes from; another name where two want one place."""
        holder = store_of(source)
        if holder is not None:
            target = relative(holder, source)
        else:
            target = os.path.join(node.kind, str(node.meta.get("night") or "undated"), source.name)
        if target in self._taken:
            stem, ending = os.path.splitext(target)
            target = f"{stem}-{node.id[:8]}{ending}"
        self._targets[node.id] = target
        self._taken.add(target)
        return target

    def _in_the_way(self, node: Node, target: Path) -> AweError | None:
        """Why a product cannot have its name in the upper store; None if it can."""
        if not os.path.lexists(target) and not os.path.lexists(sidecar(target)):
            return None
        if target.is_dir() or sidecar(target).is_dir():
            return WouldOverwrite(
                f"{target}: is a directory", hint=f"mv {shlex.quote(str(target))} ELSEWHERE"
            )
        if self._wish.force:
            return None
        try:
            refuse_foreign(target)
        except WouldOverwrite as error:
            return error
        known = read_record_or_none(target)
        if known is None or (known["recipe_key"], known["product"]["content"]) == node.identity:
            return None
        return WouldOverwrite(
            f"{target}: is another product (key {known['recipe_key'][:8]}, not {node.id[:8]})",
            hint="--force replaces it; its record is kept",
        )

    def _take_record(self, node: Node) -> None:
        if node.record_path is None:
            self._found.problems.append(
                NoRecord(
                    f"{node.path}: of this {node.kind} (key {node.id[:8]}) no record is kept, so the lineage is "
                    "not complete",
                    hint=f"awe-verify {shlex.quote(node.path)}, or make the product again",
                )
            )
            return
        text = node.record_path.read_bytes()
        name = kept_name(os.path.basename(node.path), text)
        target = relative(self._store, self._store.records_path / name)
        if not (self._store.root / target).exists():
            step = Step("kept", target, text, target)
            self._found.pieces.append(Piece(node, "kept", node.record_path, target, len(text), step))

    def _take_raw(self, node: Node) -> None:
        place = parse_address(node.path)
        if node.record_path is None:
            if os.path.exists(place.path):
                self._found.problems.append(
                    NoRecord(
                        f"{node.path}: a raw frame that no store has registered, so that its record cannot go along",
                        hint=f"awe-ingest {shlex.quote(str(place.path))}",
                    )
                )
            else:
                self._found.notes.append(f"{node.path}: is gone and was never registered: it has no record")
            return
        if self._wish.files == "all" and node.state in ("present", "moved"):
            self._take_frame(node, place)
        else:
            self._take_raw_record(node)

    def _take_raw_record(self, node: Node) -> None:
        assert node.record_path is not None
        text = node.record_path.read_bytes()
        target = os.path.join(AWE, "raw", *node.record_path.parts[-2:])
        if (self._store.root / target).exists() or self._is_known(node) or target in self._taken:
            return
        self._taken.add(target)
        step = Step("raw", target, text, target)
        self._found.pieces.append(Piece(node, "raw", node.record_path, target, len(text), step))

    def _is_known(self, node: Node) -> bool:
        """Whether the upper store has registered this frame, here or elsewhere."""
        rows = self._index.rows("content = ? AND kind LIKE 'raw%'", (node.content,))
        return any(os.path.exists(self._store.root / row["record_path"]) for row in rows)

    def _take_frame(self, node: Node, place: Address) -> None:
        """A copy of a raw frame below the upper store, registered there; the frame itself is not touched."""
        assert node.record_path is not None
        source = Path(os.path.realpath(place.path))
        rows = self._index.rows("content = ? AND kind LIKE 'raw%'", (node.content,))
        addresses = [parse_address(absolute(self._store, row["address"])).path for row in rows]
        if any(self._store.holds(one) and one.exists() for one in addresses):
            return
        if str(source) in self._frames:
            return
        digest = file_sha256(source)
        name = os.path.join("raw", str(node.meta.get("night") or "undated"), source.name)
        if name in self._taken or os.path.lexists(self._store.root / name):
            stem, dot, ending = source.name.partition(".")
            name = os.path.join(os.path.dirname(name), f"{stem}-{digest[:8]}{dot}{ending}")
        self._frames.add(str(source))
        self._taken.add(name)
        record_path = self._store.raw_record_path(str(self._store.root / name))
        size = source.stat().st_size
        step = Step(
            "raw", name, node.record_path.read_bytes(), relative(self._store, record_path), source, digest
        )
        self._found.pieces.append(Piece(node, "frame", source, name, size, step))


def _check_asked(path: Path, node: Node) -> None:
    """Raise WrongKind, Integrity for what is not a product that is whole, with its record beside it."""
    name = shlex.quote(str(path))
    if _is_raw(node):
        raise WrongKind(
            f"{path}: a raw frame; only products are published, raw frames go along with --files all",
            hint=f"awe-lineage --forward {name}",
        )
    if node.state != "present":
        raise Integrity(f"{path}: {node.state}: not as its record says", hint=f"awe-verify {name}")
    if node.record_path != sidecar(path):
        raise NoRecord(f"{path}: its record is not beside it", hint=f"awe-verify {name}")


def _is_raw(node: Node) -> bool:
    return node.id == node.content


def _record_of(node: Node) -> Record | None:
    return None if _is_raw(node) or node.record_path is None else read_record(node.record_path)


def _takes_back(event: Event) -> bool:
    return event.get("verdict") == "none" or event.get("by") == "default"


def _less(event: Event) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name != "from"}


def _ancestors_first(start: Node, lookup: Lookup) -> Iterator[Node]:
    """A product and all that it was made from, each once and behind its own inputs."""
    entered: set[tuple[str, str]] = set()
    waiting = [(start, False)]
    while waiting:
        node, is_next = waiting.pop()
        if is_next:
            yield node
        elif node.identity not in entered:
            entered.add(node.identity)
            waiting.append((node, True))
            waiting += [(one, False) for _, one in reversed(lookup.inputs(node))]
