"""The nodes of the graph of needs: every product that the raw frames of the stores could make.

A node is one product to be: a kind, and the raw frames or nodes that its command
would be given. What is there and was not made of frames known here is a node too,
with nothing given.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..catalogues.refinput import RefcatInput
from ..errors import AweError, NoMatch, NoRecord
from ..gridstore import PARAMETER, with_grid
from ..indexing.stock import Item, Place, Stock
from ..kind import REFCAT, SAME_PRODUCT, Kind, Need, kind_named, named
from ..meta import VARYING, on_grid
from ..params import Resolved
from ..record import canonical
from ..settings import resolve_params
from ..workspace import Workspace
from .filling import with_catalogues
from .plan import product_meta, with_overscan_mode

# A node in one of these states is yet to be made, and what it will hold is not known.
PENDING = frozenset({"missing", "outdated"})
# Of a product that was removed and is made again it is: it will be as its kept record says.
TO_MAKE = PENDING | {"again"}
# A node in one of these states has a product that others can be made with, or will have one.
SERVING = TO_MAKE | {"fresh", "unchecked", "removed"}
UP_TO_DATE = SERVING - TO_MAKE
# A product of many frames follows one that shares this part of the frames of both; of so many of them.
ALIKE, MOST_LOOKED_AT = 0.5, 200


@dataclass(frozen=True, eq=False)
class Setting:
    """What the nodes of one set-up share: kind, place, parameters, and the meta of the product.

    one_frame: each node is made of one raw frame, of which it has what differs.
    changes: what the parameters change in the meta of the frames. supplies: those made so
    far, each with the start and end of the time in which it is the same. catalogues: by
    role; lacking: why those of other roles are not there. own: what the product has in place
    of its frames' meta: its sky grid. asked: the parameters that a person gave.
    """

    kind: Kind
    place: Place
    one_frame: bool
    params: Resolved
    params_text: str
    meta: Mapping[str, Any]
    changes: Mapping[str, Any] = field(default_factory=dict)
    supplies: list[tuple[tuple[int, frozenset[str]], str, str, Supply]] = field(default_factory=list)
    catalogues: Mapping[str, RefcatInput] = field(default_factory=dict)
    lacking: Mapping[str, NoMatch] = field(default_factory=dict)
    own: Mapping[str, Any] = field(default_factory=dict)
    asked: Mapping[str, object] = field(default_factory=dict)


class Omitted(NamedTuple):
    """A frame that a product of many is made without: the raw frame, or the product that stands for it, and why.

    by_design: nobody wants it otherwise: it was judged bad, or is elsewhere on the sky. role: of what it lacks,
    if it is that.
    """

    address: str
    reason: str
    by_design: bool = False
    role: str = ""


@dataclass(slots=True, eq=False)
class Node:
    """One product to be, or (with nothing given) one that exists and whose frames are not known here.

    item: the version that exists: the fresh one, or the one that a new one would follow.
    path: that of a fresh product which another process found, in the place of the item.
    instead: what the same product could be made of besides, in order of preference.
    culprit: of one that is blocked, the node that a person has to see to first.
    lost: why a product that was removed cannot be made again, if it cannot. stand_in: of one
    that is taken as it is and was removed, the node that makes it again. omitted: of a product
    of many others, the frames that it is made without; lacking: those of them that have all but what another role
    needs than that of their solution.
    """

    setting: Setting
    given: tuple[Item | Node, ...]
    role: str
    item: Item | None = None
    state: str = ""
    key: str = ""
    error: AweError | None = None
    supply: Supply | None = None
    edited: bool = False
    path: str = ""
    culprit: Node | None = None
    lost: AweError | None = None
    stand_in: Node | None = None
    instead: list[Node] = field(default_factory=list)
    omitted: list[Omitted] = field(default_factory=list)
    lacking: tuple[Node, ...] = ()
    standing: Standing | None = None

    @property
    def kind(self) -> Kind:
        """The kind of the product."""
        return self.setting.kind

    @property
    def obs_start(self) -> Any:
        """The start of the (first) exposure."""
        return self.get("obs_start")

    @property
    def is_of_products(self) -> bool:
        """Whether it is made of many products, of which some may be missing."""
        return self.kind.primary.many and any(isinstance(one, Node) for one in self.given)

    @property
    def raws(self) -> Sequence[Item]:
        """The raw frames that it is given itself."""
        return [one for one in self.given if isinstance(one, Item)]

    def get(self, name: str) -> Any:
        """A meta field of the product."""
        if name in self.setting.own:
            return self.setting.own[name]
        if name in VARYING and self.setting.one_frame:
            return getattr(self.given[0], name)
        return self.setting.meta.get(name)

    def meta(self) -> dict[str, Any]:
        """The meta of the product, as far as it is known before it is made."""
        own = {name: self.get(name) for name in VARYING} if self.setting.one_frame else {}
        return {**self.setting.meta, **own}

    def named(self) -> dict[str, Any]:
        """The same with its sky grid: what the name of its file is made of."""
        found = {**self.meta(), **self.setting.own}
        if self.is_of_products and found.get("object"):
            # Of what is there its record says it, whatever is said of the raw frame since.
            given = [one for one in self.given if isinstance(one, Node)]
            there = [one for one in given if one.item is not None and one.state not in TO_MAKE]
            objects = {one.item.object for one in there if one.item is not None}
            objects |= {one.get("object") for one in given if one not in there}
            found["object"] = objects.pop() if len(objects) == 1 else None
        return found

    def needs(self) -> Iterator[tuple[str, Node]]:
        """The nodes that it hangs on, with their roles."""
        for one in self.given:
            if isinstance(one, Node):
                yield self.role, one
        for filled in self.supply.filled if self.supply else ():
            yield filled.need.role, filled.node


class Standing(NamedTuple):
    """How a node stands in the choice of calibrations: as a row of the index, its name, and the rank of its store."""

    row: Mapping[str, Any]
    name: Path
    rank: int


@dataclass(frozen=True)
class Filled:
    """A calibration that was chosen: nights_away is above 0 only if it is used outside its validity.

    frame: which of the products that a node is given it belongs to, where it belongs to one.
    """

    need: Need
    node: Node
    nights_away: int = 0
    frame: Node | None = None


class Way(NamedTuple):
    """The hint that leads on from what failed, the kind whose it is, as its options are meant, and the cause."""

    kind: Kind
    hint: str
    cause: str


@dataclass(frozen=True)
class Supply:
    """The calibrations of a node: those chosen, the roles that stay empty and why, and what is missing.

    pending: one of them is yet to be made. culprits: what a person has to see to before
    all can be. ways: for an empty role, what may fill it. texts: what of them enters the key,
    kept for the next node.
    """

    filled: tuple[Filled, ...]
    without: Mapping[str, str]
    missing: tuple[NoMatch, ...]
    pending: bool
    culprits: tuple[Node, ...] = ()
    ways: Mapping[str, Way] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)


@dataclass
class Nodes:
    """The nodes of some stores, made when they are first asked for.

    sets: kind to parameter to value, over all settings.
    """

    kinds: Sequence[Kind]
    workspace: Workspace
    stock: Stock
    sets: Mapping[str, Mapping[str, object]]

    def __post_init__(self) -> None:
        self._at: dict[tuple[str, Place], dict[tuple[Any, ...], Node]] = {}
        self._of_these: dict[tuple[str, str | tuple[str, ...]], Node] = {}
        self._pinned: dict[tuple[str, Place], list[Node]] = {}
        self._alike: dict[int, list[Item]] = {}
        self._versions: dict[tuple[str, Place], dict[Any, list[Item]]] = {}
        self._by_key: dict[tuple[str, Place], dict[str | None, Item]] = {}
        self._settings: dict[tuple[Any, ...], Setting] = {}

    def at(self, kind: Kind, place: Place) -> dict[tuple[Any, ...], Node]:
        """Every product of a kind that could be made of the frames of a detector, or is there, by its identity."""
        known = self._at.get((kind.name, place))
        if known is None:
            known = self._at[kind.name, place] = {}
            for node in self._could_be(kind, place):
                first = known.setdefault(identity_of(kind, node.get), node)
                if first is not node:
                    first.instead.append(node)
            for item in self.stock.items(kind.name, place):
                if self.stock.verdict(item) != "bad":
                    identity = identity_of(kind, self.stock.getter(item))
                    there = known.get(identity)
                    if there is None or not there.given:
                        known[identity] = self.as_it_is(kind, item)
        return known

    def same(self, node: Node) -> Node:
        """The node here that stands for the same product as one of other nodes; that itself where there is none."""
        if node.is_of_products:
            given = [self.same(one) for one in node.given if isinstance(one, Node)]
            made = self.node_of_products(node.kind, node.kind.need(node.role), given, node.setting.asked)
            made.omitted = made.omitted or list(node.omitted)
            return made
        return self.at(node.kind, node.setting.place).get(identity_of(node.kind, node.get), node)

    def pinned(self, kind: Kind, place: Place) -> list[Node]:
        """The products whose validity a person set: they are taken as they are."""
        found = self._pinned.get((kind.name, place))
        if found is None:
            items = [one for one in self.stock.items(kind.name, place) if one.valid_by == "hand"]
            found = self._pinned[kind.name, place] = [self.as_it_is(kind, one) for one in items]
        return found

    def all_pinned(self) -> Iterator[Node]:
        """Those of every kind and place that was looked at."""
        for nodes in self._pinned.values():
            yield from nodes

    def node_of_frames(self, kind: Kind, need: Need, frames: Sequence[Item]) -> Node:
        """The node whose command would be given these raw frames."""
        name = (kind.name, frames[0].content if len(frames) == 1 else tuple(one.content for one in frames))
        node = self._of_these.get(name)
        if node is None:
            node = self._of_these[name] = Node(self._setting_of(kind, frames), tuple(frames), need.role)
        return node

    def node_of_products(
        self, kind: Kind, need: Need, given: Sequence[Node], asked: Mapping[str, object] | None = None
    ) -> Node:
        """The node whose command would be given these products, of many to be or to exist.

        asked: parameters of this product, over all settings but those of `sets`.
        """
        asked = {**(asked or {}), **self.sets.get(kind.name, {})}
        name = (kind.name, (*sorted(str(id(one)) for one in given), repr(sorted(asked.items()))))
        node = self._of_these.get(name)
        if node is None:
            metas = [one.meta() for one in given]
            first = min(metas, key=lambda one: str(one.get("obs_start")))
            setting = self._resolved(kind, product_meta(kind, metas), first, asked=asked)
            node = self._of_these[name] = Node(setting, tuple(given), need.role)
        return node

    def _could_be(self, kind: Kind, place: Place) -> Iterator[Node]:
        for need in kind.leads:
            for name in need.kinds:
                if name.startswith("raw_"):
                    yield from self._of_frames(kind, need, self.stock.items(name, place))
                else:
                    yield from self._of_products(kind, need, kind_named(self.kinds, name), place)

    def _of_frames(self, kind: Kind, need: Need, items: Sequence[Item]) -> Iterator[Node]:
        frames = [one for one in items if self.stock.verdict(one) != "bad"]
        if not need.many:
            yield from (self.node_of_frames(kind, need, [one]) for one in frames)
            return
        groups: dict[str, dict[str, Item]] = {}
        for one in frames:
            groups.setdefault(self._group_of(kind, one), {}).setdefault(one.content, one)
        for group in groups.values():
            yield self.node_of_frames(kind, need, sorted(group.values(), key=lambda one: one.content))

    def _group_of(self, kind: Kind, item: Item) -> str:
        get = self.stock.getter(item)
        return repr([get(name) for name in (*kind.match, *kind.group)])

    def _of_products(self, kind: Kind, need: Need, made_of: Kind, place: Place) -> Iterator[Node]:
        # Which of many products go together a person says, on the command line.
        if need.many:
            return
        if need.on_request and not self.stock.items(made_of.name, place):
            return
        for node in self.at(made_of, place).values():
            if need.on_request and node.given and not self.versions(node):
                continue
            # What was measured on a sky grid a person named: nothing else is made of it unasked.
            if not node.given and on_grid(node.setting.meta):
                continue
            setting = self._resolved(kind, product_meta(kind, [node.meta()]), node.meta())
            yield Node(setting, (node,), need.role)

    def as_it_is(self, kind: Kind, item: Item) -> Node:
        """The node of a product that is taken as it is."""
        meta = self.stock.meta(item)
        return Node(
            Setting(kind, place_of(kind, self.stock.getter(item)), False, Resolved(None, {}), "", meta),
            (),
            "",
            item,
        )

    def _setting_of(self, kind: Kind, frames: Sequence[Item]) -> Setting:
        if kind.primary.many:
            metas = [self.stock.meta(one) for one in frames]
            first = min(metas, key=lambda one: str(one.get("obs_start")))
            return self._resolved(kind, None, first, metas)
        name = (kind.name, frames[0].setup)
        setting = self._settings.get(name)
        if setting is None:
            meta = self.stock.meta(frames[0])
            setting = self._settings[name] = self._resolved(kind, None, meta, [meta])
        return setting

    def _resolved(
        self,
        kind: Kind,
        meta: Mapping[str, Any] | None,
        first: Mapping[str, Any],
        metas: Sequence[Mapping[str, Any]] = (),
        asked: Mapping[str, object] | None = None,
    ) -> Setting:
        """The parameters in force for the first of the inputs, and the product's meta where it is not given."""
        workspace = self.workspace
        given = self.sets.get(kind.name, {}) if asked is None else asked
        params = resolve_params(kind, first, workspace.camera_settings(first), workspace.settings, given)
        params, changes = with_overscan_mode(params, first)
        params, catalogues, lacking = with_catalogues(kind, params, first, workspace.stores)
        params, own = with_grid(kind, params, workspace.stores)
        if meta is None:
            meta = product_meta(kind, [{**one, **changes} for one in metas])
        one_frame = not kind.primary.many and bool(metas)
        text = canonical(params.as_dict())
        place = place_of(kind, meta.get)
        return Setting(
            kind, place, one_frame, params, text, meta, changes, [], catalogues, lacking, own, given
        )

    def versions(self, node: Node) -> list[Item]:
        """The versions of a node's product that exist, oldest first."""
        if node.is_of_products:
            return self._of_the_same_frames(node)
        name = (node.kind.name, node.setting.place)
        found = self._versions.get(name)
        if found is None:
            found = self._versions[name] = {}
            for item in self.newest(node):
                get = self.stock.getter(item)
                found.setdefault(tuple(get(one) for one in SAME_PRODUCT), []).append(item)
        return found.get(tuple(node.get(one) for one in SAME_PRODUCT), [])

    def _of_the_same_frames(self, node: Node) -> list[Item]:
        """Of a product of many, on its grid, those that share most of their frames with it; the most alike last."""
        known = self._alike.get(id(node))
        if known is None:
            mine = {_frame_of(one.get) for one in node.given if isinstance(one, Node)}
            grid, found = node.setting.own.get("window"), []
            for number, item in enumerate(self.newest(node)[-MOST_LOOKED_AT:]):
                get = self.stock.getter(item)
                if any(get(name) != node.get(name) for name in node.kind.match) or grid not in (
                    None,
                    get("window"),
                ):
                    continue
                theirs = self._frames_in(item, node.kind)
                if share(mine, theirs) >= ALIKE:
                    found.append((share(mine, theirs), number, item))
            known = self._alike[id(node)] = [item for _, _, item in sorted(found, key=lambda one: one[:2])]
        return known

    def _frames_in(self, item: Item, kind: Kind) -> set[tuple[Any, ...]]:
        try:
            inputs = self.stock.record(item)["recipe"]["inputs"]
        except NoRecord:
            return set()
        return {_frame_of(one["meta"].get) for one in inputs if one["role"] == kind.primary.role}

    def newest(self, node: Node) -> list[Item]:
        """All products of a node's kind and place, oldest first."""
        return self.stock.items(node.kind.name, node.setting.place)

    def with_key(self, node: Node) -> Item | None:
        """The product that a node's key names; of copies that of the nearest store."""
        name = (node.kind.name, node.setting.place)
        found = self._by_key.get(name)
        if found is None:
            found = self._by_key[name] = {one.recipe_key: one for one in reversed(self.newest(node))}
        return found.get(node.key)


def share(some: Collection[object], others: Collection[object]) -> float:
    """The part of the frames of two products that both have."""
    mine, theirs = set(some), set(others)
    return len(mine & theirs) / max(1, len(mine | theirs))


def _frame_of(get: Callable[[str], Any]) -> tuple[Any, ...]:
    return get("instrument"), get("detector"), get("exposure")


def place_of(kind: Kind, get: Callable[[str], Any]) -> Place:
    """Where the products of a kind are looked for: a detector; for what has no validity, one night of it.

    A calibration that serves all detectors of an instrument is at none of them.
    """
    if kind.validity is not None and "detector" not in kind.match:
        return get("instrument"), None, None
    return get("instrument"), get("detector"), get("night") if kind.validity is None else None


def identity_of(kind: Kind, get: Callable[[str], Any]) -> tuple[Any, ...]:
    """What tells one product of a kind from another, whichever version of it."""
    names = dict.fromkeys([*kind.match, *kind.group, *SAME_PRODUCT])
    return tuple(get(name) for name in names if name != "overscan_mode")


def label(node: Node) -> str:
    """A node in a few words: kind, night, detector, temperature and filter where they match, exposure."""
    parts = [node.kind.name, *(node.get(name) for name in ("night", "detector"))]
    degrees = node.get("temperature_match_c") if "temperature_match_c" in node.kind.match else None
    parts.append(None if degrees is None else f"{degrees:g} C")
    if "filter" in (*node.kind.match, *node.kind.group):
        parts.append(node.get("filter"))
    if not node.kind.primary.many:
        parts.append(node.get("exposure"))
    # Of several grids in one call; a text would be too long.
    if " " not in (grid := str(node.setting.asked.get(PARAMETER, ""))):
        parts.append(grid)
    return " ".join(str(part) for part in parts if part)


def address_of(node: Node) -> str:
    """What a person knows a node by: its raw frame, else its product."""
    while node.given and isinstance(node.given[0], Node):
        node = node.given[0]
    first = node.given[0] if node.given else node.item
    return first.address if isinstance(first, Item) else label(node)


def distances(kinds: Sequence[Kind], targets: Iterable[Kind]) -> dict[str, int]:
    """How many steps each kind is away from the kinds of some targets along the needs, at least."""
    found = {kind.name: 0 for kind in targets}
    waiting = list(found)
    for name in waiting:
        for needed in _needed(kind_named(kinds, name)):
            if needed not in found:
                found[needed] = found[name] + 1
                waiting.append(needed)
    return found


def _needed(kind: Kind) -> Iterable[str]:
    names = (name for need in kind.needs if need.select != named() for name in need.kinds)
    return (name for name in names if name != REFCAT and not name.startswith("raw_"))


def raw_kinds(kind: Kind, kinds: Sequence[Kind]) -> Iterator[str]:
    """The types of raw frames that a kind is made of in the end, along what its command is given."""
    for need in kind.leads:
        for name in need.kinds:
            if name.startswith("raw_"):
                yield name
            else:
                yield from raw_kinds(kind_named(kinds, name), kinds)
