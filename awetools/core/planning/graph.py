"""The graph of needs, and the one decision on each node: is its product there, up to date, or to be made?

The decision reads the index, looks at the size and time of each file, and opens
nothing that is as it was.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import AweError, Flagged, NoMatch, NoRecord, NoSuchFile, OffGrid, TooFew, WouldOverwrite
from ..files import parse_address
from ..indexing.stock import Item, Place, Stock
from ..kind import Kind
from ..meta import VARYING
from ..products import state_of
from ..quality import unfit_for_use
from ..record import canonical, input_text, key_of_texts, read_record, sidecar
from ..store import default_path
from ..workspace import Workspace
from .failing import less_own_name, will_fail
from .leaving import Leaver
from .nodes import PENDING, SERVING, TO_MAKE, Node, Nodes, Supply, label
from .offgrid import HINT
from .plan import key_meta, refuse_foreign
from .supply import Supplier, why_not

UNCHANGED, GONE, EDITED = "whole", "gone", "edited"


@dataclass(frozen=True)
class View:
    """How the graph is to be seen.

    sets: kind to parameter to value; depth: how many steps from the target are
    checked; only: kinds that are checked (empty: all); remake: kinds that are made
    again although they are fresh; force: an edited product is made again; retry:
    what failed before is tried again; nearest_nights: how far from its validity a
    calibration may be used; as_of: an instant, UTC; complete: a product of many is made of
    all frames that may be on its grid or not at all; without: roles, or KIND.ROLE, that stay empty.
    """

    sets: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    depth: int | None = None
    only: frozenset[str] = frozenset()
    remake: frozenset[str] = frozenset()
    force: bool = False
    retry: bool = False
    nearest_nights: int = 0
    as_of: str | None = None
    complete: bool = False
    without: frozenset[str] = frozenset()


@dataclass
class Graph:
    """The nodes of the stores of a workspace, each decided when it is first asked for.

    depths: how many steps each kind is away from the targets. failures: recipe keys that
    could not be made, and why. gone, changed: raw frames whose file is not as it was
    registered, and the nodes that they go into. broken: why what is there in place of
    some that are gone cannot be read.
    """

    kinds: Sequence[Kind]
    workspace: Workspace
    view: View
    depths: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    gone: dict[str, list[Node]] = field(default_factory=dict)
    changed: dict[str, list[Node]] = field(default_factory=dict)
    broken: dict[str, AweError] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stock = Stock(self.workspace.stores, self.view.as_of)
        self.nodes = Nodes(self.kinds, self.workspace, self.stock, self.view.sets)
        self._supplier = Supplier(self.nodes, self.decide, self.view.nearest_nights, self.view.without)
        self.leaver = Leaver(self, self._supplier)
        self._texts: dict[tuple[Any, ...], str] = {}
        self._varying: dict[str, list[str]] = {}
        self._now: dict[str, Item] = {}
        self._copies: dict[tuple[str, Place], dict[str, list[Item]]] = {}

    def decide(self, node: Node) -> Node:
        """The node and its state: fresh, missing, outdated, removed, flagged, failed, blocked, elsewhere, unchecked."""
        if not node.state:
            # Of kinds whose needs run in no circle none comes back here before it is decided.
            node.state = "blocked"
            node.state = self._state_of(node)
            node.culprit = _culprit_of(node) if node.state == "blocked" else None
        return node

    def call_for(self, targets: Iterable[Node]) -> None:
        """Note which products that were removed are to be made again: targets, and what others are made with."""
        waiting: list[Node] = []

        def call(node: Node) -> None:
            if node.state == "removed":
                node.state, node.error = ("again", None) if node.lost is None else ("blocked", node.lost)
                node.culprit = _culprit_of(node) if node.state == "blocked" else None
                waiting.append(node)

        # Of very many targets most are fresh.
        for node in [one for one in targets if one.state != "fresh"]:
            self._ask_for_flagged(node)
            call(node)
            waiting.append(node)
        seen: set[Node] = set()
        while waiting:
            node = waiting.pop()
            if node in seen or node.state not in TO_MAKE:
                continue
            seen.add(node)
            for _, one in node.needs():
                call(one)
                waiting.append(one)

    def overruling(self) -> Iterator[Node]:
        """The products that are taken as they are, for their interval was set by hand, where another would be made."""
        for node in self.nodes.all_pinned():
            same = self.nodes.same(node)
            if node.item is None or not same.given or not self._is_checked(node.kind):
                continue
            state = self.decide(same).state
            if state in TO_MAKE or (state in SERVING and same.key != node.item.recipe_key):
                yield node

    def _ask_for_flagged(self, node: Node) -> None:
        """A flagged product that was removed and is asked for itself is made too, but not one that was judged bad."""
        item = node.item
        if node.state != "flagged" or item is None or not item.is_removed:
            return
        if self.stock.verdict(item) != "bad":
            node.error = self._lost_unchecked(node, item) if node.given else self._lost_as_it_is(node, item)
        node.state, node.lost, node.error = "removed", node.error, None

    def path_if_fresh(self, node: Node) -> str:
        """The path of the product of a node of one frame, where the decision is plainly `fresh`; else empty.

        The short way for very many nodes: wherever anything is out of the ordinary, `decide` is to be asked.
        """
        setting, frame, view = node.setting, node.given[0], self.view
        if (
            not setting.one_frame
            or not isinstance(frame, Item)
            or view.only
            or view.remake
            or view.depth is not None
        ):
            return ""
        node.supply = supply = self._supplier.supply_of(node)
        if supply.missing or supply.pending:
            return ""
        node.key = self._key_of(node)
        item = self.nodes.with_key(node)
        if item is None or item.flags or self.stock.verdict(item) is not None:
            return ""
        try:
            raw, product, record = (
                os.stat(frame.address),
                os.stat(item.address),
                os.stat(f"{item.address}.json"),
            )
        except OSError:
            return ""
        now = (
            raw.st_size,
            raw.st_mtime_ns,
            raw.st_ino,
            product.st_size,
            product.st_mtime_ns,
            record.st_mtime_ns,
        )
        then = (frame.bytes, frame.mtime_ns, frame.inode, item.bytes, item.mtime_ns, item.record_mtime_ns)
        return item.address if now == then else ""

    def _state_of(self, node: Node) -> str:
        if not node.given:
            return self._state_of_product(node, "unchecked")
        if not self._is_checked(node.kind):
            for item in reversed(self.nodes.versions(node)):
                node.item = item
                state = self._state_of_product(node, "unchecked")
                if state == "removed":
                    node.lost = self._lost_unchecked(node, item)
                if state in ("unchecked", "removed"):
                    return state
            node.item, node.error = None, None
        if node.is_of_products:
            self.leaver.leave_out(node)
            if node.error is not None:
                return "elsewhere"
        self._take_what_serves(node)
        if node.error is None:
            node.supply = self._supplied(node)
            node.error = _all_missing(node.supply)
        if node.error is None and (reason := self.leaver.off_grid(node)):
            node.error = OffGrid(f"{label(node)}: {reason}", hint=HINT)
            return "elsewhere"
        return "blocked" if node.error else self._compared(node)

    def _take_what_serves(self, node: Node) -> None:
        """Look at what the command would be given; if it cannot make the product, at what it could be given instead."""
        self._look_at_frames(node)
        node.error = self._problem_of_given(node)
        for other in node.instead if node.error else ():
            self._look_at_frames(other)
            if self._problem_of_given(other) is None:
                node.setting, node.given, node.role, node.error = other.setting, other.given, other.role, None
                return

    def _supplied(self, node: Node) -> Supply:
        """The calibrations of a node; what was allowed for a product once stays allowed for it."""
        supply = self._supplier.supply_of(node)
        versions = self.nodes.versions(node) if supply.missing else []
        if not versions:
            return supply
        allowed = self.stock.setup(versions[-1]).get("calibration_nights_away") or 0
        without = self._went_without(versions[-1])
        return self._supplier.supply_of(node, allowed, without) if allowed or without else supply

    def _went_without(self, item: Item) -> frozenset[str]:
        """The roles that a product was made without."""
        try:
            return frozenset(self.stock.record(item)["recipe"].get("without", ()))
        except NoRecord:
            return frozenset()

    def _look_at_frames(self, node: Node) -> None:
        for number, one in enumerate(node.given):
            now = self._as_it_is_now(one, node) if isinstance(one, Item) else one
            if now is not one:
                node.given = (*node.given[:number], now, *node.given[number + 1 :])

    def _is_checked(self, kind: Kind) -> bool:
        depth, only = self.view.depth, self.view.only
        if only and kind.name not in only:
            return False
        return depth is None or self.depths.get(kind.name, 0) <= depth

    def _problem_of_given(self, node: Node) -> AweError | None:
        """Why what the command would be given cannot make a product."""
        need, only = node.kind.need(node.role), self.view.only
        if len(node.given) < need.at_least:
            names = ", ".join(os.path.basename(one.address) for one in node.raws)
            return TooFew(
                f"{label(node)} needs at least {need.at_least} {need.kind}, not {len(node.given)}: {names}",
                hint=f"awe-query {need.kind} night={node.get('night')}",
            )
        for one in node.given:
            if isinstance(one, Node) and self.decide(one).state not in SERVING:
                return NoMatch(f"{label(one)} {why_not(one)}", hint=one.error.hint if one.error else "")
        if only and node.kind.name not in only:
            return NoMatch(f"{label(node)} does not exist, and only {', '.join(sorted(only))} is to be made")
        return None

    def _compared(self, node: Node) -> str:
        """The state of a node whose needs can all be filled: by its key, if they are there."""
        lost = None
        if not _is_pending(node):
            node.key = self._key_of(node)
            lost = node.item = self.nodes.with_key(node)
            if node.item is not None:
                state = self._state_of_product(node, "fresh")
                if state in ("fresh", "removed") and node.kind.name in self.view.remake:
                    state = "outdated"
                if state == "removed":
                    node.lost = self._lost(node)
                    return state
                if state != GONE:
                    if state == "outdated":
                        node.error = self._gone_of(node) or _lost_below(node)
                    return "blocked" if state == "outdated" and node.error else state
            node.error = self._failed_before(node)
        node.error = node.error or will_fail(node)
        if node.error is not None:
            return "failed"
        versions = [one for one in self.nodes.versions(node) if one is not lost]
        node.item = versions[-1] if versions else None
        node.error = self._gone_of(node) or _lost_below(node) or self._in_the_way(node)
        if node.error is not None:
            return "blocked"
        return "outdated" if node.item is not None else "missing"

    def _failed_before(self, node: Node) -> AweError | None:
        if node.key not in self.failures or self.view.retry:
            return None
        return NoMatch(
            f"it failed before: {less_own_name(node, self.failures[node.key])}",
            hint="--retry tries again; a changed parameter, input or version does so by itself",
        )

    def _lost(self, node: Node) -> AweError | None:
        """Why a product that was removed cannot be made again by its node."""
        gone = self._gone_of(node) or _lost_below(node)
        return gone or self._in_the_way(node) or self._failed_before(node)

    def _lost_unchecked(self, node: Node, item: Item) -> AweError | None:
        """The same of one whose needs were not looked at: it must come out as it was."""
        self._take_what_serves(node)
        error, node.error = node.error, None
        if error is None:
            node.supply = self._supplied(node)
            error = _all_missing(node.supply)
        if error is not None:
            return error
        node.key = "" if _is_pending(node) else self._key_of(node)
        if node.key != item.recipe_key:
            return NoMatch(
                f"{item.address}: was removed, and would not be made as it was",
                hint="awe-make without --depth",
            )
        return self._lost(node)

    def _lost_as_it_is(self, node: Node, item: Item) -> AweError | None:
        """The same of one that is taken as it is: a node that makes the same product can stand in for it."""
        same = self.nodes.same(node)
        if same.given and self.decide(same).state == "removed" and same.key == item.recipe_key:
            node.stand_in = same
            return same.lost
        return NoSuchFile(
            f"{item.address}: was removed, and cannot be made again of what is registered and in force here",
            hint=f"awe-lineage --script {shlex.quote(item.address)}",
        )

    def _gone_of(self, node: Node) -> AweError | None:
        gone = [one.address for one in node.raws if one.address in self.gone]
        if not gone:
            return None
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        if broken := self.broken.get(gone[0]):
            return type(broken)(f"{broken.message}{more}", hint=broken.hint)
        return NoSuchFile(
            f"{gone[0]}{more}: registered, but the file is gone",
            hint="awe-ingest where it is now, or awe-ingest --forget, which takes its registration back",
        )

    def _in_the_way(self, node: Node) -> AweError | None:
        """Why a product cannot have its name: a file that is nobody's, or that is not what its record says."""
        if not node.key or self.view.force:
            return None
        one_frame = not node.kind.primary.many
        path = default_path(self.workspace.stores[0], node.kind.name, node.named(), node.key, one_frame)
        if not os.path.lexists(path):
            return None
        try:
            refuse_foreign(path)
        except WouldOverwrite as error:
            return error
        return None

    # What is there

    def _state_of_product(self, node: Node, state: str) -> str:
        """The state of a node whose product is there, if its file is whole and nobody thinks ill of it."""
        item = node.item
        assert item is not None
        if item.is_removed:
            node.error = self._problem_of_product(item, UNCHANGED)
            if node.error is not None:
                return "flagged"
            node.lost = None if node.given else self._lost_as_it_is(node, item)
            return "removed"
        file_state = self._state_of_file(item)
        if file_state == EDITED and self.view.force and node.given:
            node.edited = True
            return "outdated"
        if file_state == GONE and node.given:
            return GONE
        node.error = self._problem_of_product(item, file_state)
        if node.error is None:
            return state
        return "flagged" if isinstance(node.error, Flagged) else "blocked"

    def _problem_of_product(self, item: Item, file_state: str) -> AweError | None:
        if file_state == EDITED:
            return WouldOverwrite(
                f"{item.address}: was edited since awetools wrote it", hint="--force makes it again"
            )
        if file_state == GONE:
            return NoSuchFile(
                f"{item.address}: the file is gone, and what it was made of is not registered here",
                hint="awe-index --update, or awe-ingest the frames that awe-lineage names",
            )
        verdict = self.stock.verdict(item)
        if verdict == "bad":
            return Flagged(f"{item.address}: was judged bad", hint=f"awe-query {item.kind}")
        if unfit := unfit_for_use(item.flags, verdict):
            return Flagged(
                f"{item.address}: is {unfit}",
                hint=f"awe-query {item.kind} path={item.address} --get flag_names",
            )
        return None

    def _state_of_file(self, item: Item) -> str:
        """Whether a product is whole, gone or edited, by sizes and times; it is read only where they differ."""
        try:
            stat, record = os.stat(item.address), os.stat(f"{item.address}.json")
        except OSError:
            # A file without its record is nobody's: it is not replaced unasked.
            return EDITED if os.path.lexists(item.address) else GONE
        now = (stat.st_size, stat.st_mtime_ns, record.st_mtime_ns)
        if now == (item.bytes, item.mtime_ns, item.record_mtime_ns):
            return UNCHANGED
        return _read_state(Path(item.address), item._replace(flags=self.stock.recorded_flags(item)))

    def _as_it_is_now(self, item: Item, node: Node) -> Item:
        """A raw frame whose file may be gone, or changed since it was registered."""
        known = self._now.get(item.address)
        if known is None:
            known = self._now[item.address] = self._looked_at(item)
        if known is item and item.address not in self.gone:
            return item
        if item.address in self.gone:
            self.gone[item.address].append(node)
        elif known.content != item.content:
            self.changed.setdefault(item.address, []).append(node)
        return known

    def _looked_at(self, item: Item) -> Item:
        address = item.address
        path = address if address[-1:] != "]" else parse_address(address).path
        try:
            stat = os.stat(path)
        except OSError:
            if copy := self._copy_of(item):
                return copy
            self.gone[address] = []
            return item
        if (stat.st_size, stat.st_mtime_ns, stat.st_ino) == (item.bytes, item.mtime_ns, item.inode):
            return item
        try:
            return self._read_again(item)
        except AweError as error:
            self.gone[address], self.broken[address] = [], error
            return item

    def _copy_of(self, item: Item) -> Item | None:
        """The same frame where it was registered once more, if it is there as it was."""
        setup = self.stock.setup(item)
        place = (setup["instrument"], setup["detector"], None)
        copies = self._copies.get((item.kind, place))
        if copies is None:
            copies = self._copies[item.kind, place] = {}
            for one in self.stock.items(item.kind, place):
                copies.setdefault(one.content, []).append(one)
        for one in copies[item.content]:
            with suppress(OSError):
                stat = os.stat(one.address)
                there = (stat.st_size, stat.st_mtime_ns, stat.st_ino) == (one.bytes, one.mtime_ns, one.inode)
                if there and all(getattr(one, name) == getattr(item, name) for name in ("setup", *VARYING)):
                    return one
        return None

    def _read_again(self, item: Item) -> Item:
        from ..raws import open_raw

        for one in open_raw(parse_address(item.address), self.workspace):
            if one.fits is not None:
                one.fits.close()
            if one.content != item.content:
                return self.stock.changed(item, one.content, one.meta)
        return item

    # Keys

    def _key_of(self, node: Node) -> str:
        setting, kind, supply = node.setting, node.kind, node.supply
        assert supply is not None
        if not supply.texts:
            supply.texts.extend(self._input_text(kind, one.need.role, one.node, {}) for one in supply.filled)
            supply.texts.extend(
                input_text(role, one.content, "{}") for role, one in setting.catalogues.items()
            )
        changes = setting.changes
        texts = [self._input_text(kind, node.role, one, changes) for one in node.given]
        return key_of_texts(kind.name, kind.revision, setting.params_text, [*texts, *supply.texts])

    def _input_text(self, kind: Kind, role: str, one: Item | Node, changes: Mapping[str, Any]) -> str:
        item = one if isinstance(one, Item) else one.item
        assert item is not None
        return input_text(role, item.content, self._meta_text(kind, item, changes))

    def _meta_text(self, kind: Kind, item: Item, changes: Mapping[str, Any]) -> str:
        """The canonical JSON of what of an input's meta enters the key; the same for thousands of frames."""
        varying = self._varying.get(kind.name)
        if varying is None:
            varying = self._varying[kind.name] = [
                name for name in VARYING if name in (*kind.match, *kind.reads)
            ]
        read = tuple([getattr(item, name) for name in varying]) if varying else ()
        known = (kind.name, changes.get("overscan_mode"), item.setup, read)
        text = self._texts.get(known)
        if text is None:
            text = self._texts[known] = canonical(key_meta(kind, {**self.stock.meta(item), **changes}))
        return text


def _culprit_of(node: Node) -> Node | None:
    """What a person has to see to before a blocked node can be made; None if frames were never taken, or are bad."""
    if not isinstance(node.error, (Flagged, NoMatch, TooFew)):
        return node
    below = [one.culprit for one in node.given if isinstance(one, Node)]
    return next((one for one in (*below, *(node.supply.culprits if node.supply else ())) if one), None)


def _is_pending(node: Node) -> bool:
    """Whether something that a node is made of is yet to be made, so that its key is not known."""
    if node.supply is not None and node.supply.pending:
        return True
    # Raw frames, which most nodes are given alone, are there.
    return not node.setting.one_frame and any(
        isinstance(one, Node) and one.state in PENDING for one in node.given
    )


def _lost_below(node: Node) -> AweError | None:
    """Why something that a node is made of, and that was removed, cannot be made again."""
    for _, one in node.needs():
        if one.state == "removed" and one.lost is not None:
            why = one.lost.message.removeprefix(label(one)).lstrip(": ")
            return type(one.lost)(f"{label(one)} was removed, and cannot be made: {why}", hint=one.lost.hint)
    return None


def _all_missing(supply: Supply) -> NoMatch | None:
    """All that is missing at once, so that nobody learns of one after the other."""
    if not supply.missing:
        return None
    messages = dict.fromkeys(one.message for one in supply.missing)
    hints = dict.fromkeys(one.hint for one in supply.missing)
    # What one lacks may be that for which another cannot be made, and is said once.
    first = [one for one in messages if not any(other != one and other in one for other in messages)]
    return NoMatch("; ".join(first), hint="; ".join(hints))


def _read_state(path: Path, item: Item) -> str:
    from ..verify import key_of_parts

    try:
        record = read_record(sidecar(path))
    except NoRecord:
        return EDITED
    if record["recipe_key"] != item.recipe_key or key_of_parts(record) != item.recipe_key:
        return EDITED
    if record["quality"]["flags"] != item.flags:
        return EDITED
    state = state_of(path, record)
    return {"missing": GONE, "edited": EDITED}.get(state, UNCHANGED)
