"""Ancestors and descendants of products, from the records alone.

The inputs of a product are followed through its sidecar; an input that is no
longer where it was is looked up in the indexes by recipe key and content, and its
record, if it was replaced or deleted, among the records that were kept.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .errors import AweError, NoRecord, NoSuchFile, Unreadable
from .files import Address, Stamp, parse_address, stamp_of
from .index import Index, Row, absolute, open_index
from .products import state_of
from .record import Record, read_record, sidecar
from .store import Store, read_raw_record, store_of

if TYPE_CHECKING:
    from .fits import FitsFile, Hdu

State = Literal["present", "moved", "changed", "deleted"]
STATES: Mapping[str, State] = {
    "whole": "present",
    "replaced": "present",
    "edited": "changed",
    "missing": "deleted",
}
KEPT_BESIDE = ".awe-records"


@dataclass(frozen=True)
class Reference:
    """What a record says of one input; `path` is absolute, and where it was at the time."""

    role: str
    kind: str
    path: str
    content: str
    key: str | None
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The recipe key; of a raw frame the content."""
        return self.key or self.content


@dataclass(frozen=True)
class Node:
    """A product or a detector of a raw frame.

    path: where it is, or was last. state: `present`; `moved` (found elsewhere);
    `changed` (something else lies there now); `deleted`. record_path: the record
    that was read, None if there is none. checked: False for a raw frame that is
    not registered, of which only the name is known to exist.
    """

    id: str
    content: str
    kind: str
    path: str
    state: State
    record_path: Path | None
    meta: Mapping[str, Any]
    inputs: tuple[Reference, ...] = ()
    checked: bool = True

    @property
    def identity(self) -> tuple[str, str]:
        """What tells it from other nodes: a recipe made again by other software may have other pixels."""
        return self.id, self.content


@dataclass(frozen=True)
class Line:
    """A node where a walk met it.

    role: the role that it plays in the node above it or, among descendants, that
    which the node above plays in it; empty for what was asked for. steps: how far
    it is from there. lasts: of each level above it and its own, whether the branch
    is the last one. repeated: met before, and not followed again. more: inputs (or
    products) that were not followed because of the depth.
    """

    node: Node
    role: str
    steps: int
    lasts: tuple[bool, ...]
    repeated: bool
    more: int = 0


Branches = list[tuple[str, Node]]


def ancestors(starts: Sequence[Node], lookup: Lookup, depth: int | None = None) -> Iterator[Line]:
    """What the starts were made from, up to so many steps by the shortest way, each node followed once."""
    return _walk(starts, lookup.inputs, depth)


def descendants(starts: Sequence[Node], lookup: Lookup, depth: int | None = None) -> Iterator[Line]:
    """What was made from the starts, by the indexes; steps as for ancestors."""
    return _walk(starts, lookup.users, depth)


def _walk(starts: Sequence[Node], branches: Callable[[Node], Branches], depth: int | None) -> Iterator[Line]:
    steps = _steps(starts, branches, depth)
    seen: set[tuple[str, str]] = set()
    waiting: list[tuple[str, Node, tuple[bool, ...]]] = [("", node, ()) for node in reversed(starts)]
    while waiting:
        role, node, lasts = waiting.pop()
        far = steps[node.identity]
        if node.identity in seen:
            yield Line(node, role, far, lasts, repeated=True)
            continue
        seen.add(node.identity)
        below = branches(node)
        if depth is not None and far >= depth:
            yield Line(node, role, far, lasts, repeated=False, more=len(below))
            continue
        yield Line(node, role, far, lasts, repeated=False)
        last = len(below) - 1
        waiting += [(*below[n], (*lasts, n == last)) for n in range(last, -1, -1)]


def _steps(
    starts: Sequence[Node], branches: Callable[[Node], Branches], depth: int | None
) -> dict[tuple[str, str], int]:
    """How many steps each node is away, by the shortest way.

    So the depth cuts off the same nodes, whichever way the walk comes to them first.
    """
    steps = {node.identity: 0 for node in starts}
    level, far = list(starts), 0
    while level and (depth is None or far < depth):
        far += 1
        below = {node.identity: node for one in level for _, node in branches(one)}
        level = [node for identity, node in below.items() if identity not in steps]
        steps.update((node.identity, far) for node in level)
    return steps


class Lookup:
    """Finds nodes on the search path; keeps the indexes open, and what it found."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self._stores = list(stores)
        self._indexes: dict[Store, Index] = {}
        self._resolved: dict[tuple[str, str, str], Node] = {}
        self._users: dict[str, Branches] = {}
        self._kept: dict[Path, dict[str, Path]] = {}

    def __enter__(self) -> Lookup:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the indexes."""
        for index in self._indexes.values():
            index.close()
        self._indexes.clear()

    # What a person names

    def named(self, text: str) -> list[Node]:
        """The nodes at an address: a product, also a deleted one, or the detectors of a raw frame.

        Raises NoSuchFile, NoRecord, and what reading a raw frame raises.
        """
        address = parse_address(text)
        self._add_store_of(address.path)
        path = address.path
        if os.path.lexists(sidecar(path)):
            record = read_record(sidecar(path))
            return [self._product(record, path, sidecar(path), _state(path, record))]
        if not os.path.lexists(path):
            return self._deleted(address)
        return self._without_record(path) or self._raw_frames(address)

    def _add_store_of(self, path: Path) -> None:
        store = store_of(path)
        if store is not None and store not in self._stores:
            self._stores.append(store)

    def _deleted(self, address: Address) -> list[Node]:
        path = address.path
        found = [(one, record) for one in self._kept_by_name(path) if (record := _readable(one)) is not None]
        if found:
            record_path, record = max(found, key=lambda one: str(one[1]["run"].get("end")))
            return [self._product(record, path, record_path, "deleted")]
        raw = self._raw_record(path)
        if raw is None:
            raise NoSuchFile(f"{path}: no such file, and no record of one is kept")
        many = len(raw["detectors"]) > 1
        return [
            self.resolve(
                Reference(
                    "",
                    str(one["meta"]["frame_type"]),
                    f"{path}[{one['detector']}]" if many else str(path),
                    one["content"],
                    None,
                    one["meta"],
                )
            )
            for one in raw["detectors"]
            if address.detector in (None, str(one["detector"]))
        ]

    def _without_record(self, path: Path) -> list[Node]:
        """The product that a file says it is, if its record lies elsewhere; nothing if it is no product."""
        with suppress(OSError), path.open("rb") as stream:
            if b"AWEKIND =" not in stream.read(20 * 2880):
                return []
        from .fits import open_fits

        with open_fits(path) as fits:
            key = str(fits.hdus[0].header.get("AWEKEY"))
        for other in self._rows("recipe_key = ?", [key]):
            record = _readable(sidecar(Path(other)))
            if record is not None:
                return [self._product(record, path, sidecar(Path(other)), _state(path, record))]
        record_path = self._kept_with(key, path)
        record = _readable(record_path) if record_path else None
        if record is None:
            raise NoRecord(f"{path}: its record is missing, and none with its key {key[:8]} is kept")
        return [self._product(record, path, record_path, _state(path, record))]

    def _raw_frames(self, address: Address) -> list[Node]:
        from .raws import open_raw
        from .workspace import here

        found = open_raw(address, here(stores=self._stores))
        nodes = []
        for one in found:
            if one.fits is not None:
                one.fits.close()
            path = Address(address.path, str(one.meta["detector"]) if len(found) > 1 else address.detector)
            record_path = self._raw_record_path(address.path)
            nodes.append(
                Node(one.content, one.content, one.kind, str(path), "present", record_path, one.meta)
            )
        return nodes

    def _raw_record(self, path: Path) -> Mapping[str, Any] | None:
        """The record of a raw frame; None if there is none that can be read."""
        try:
            return read_raw_record(self._stores, os.path.realpath(path))
        except NoRecord:
            return None

    def _raw_record_path(self, path: Path) -> Path | None:
        paths = [store.raw_record_path(os.path.realpath(path)) for store in self._stores]
        return next((one for one in paths if one.exists()), None)

    def _product(self, record: Record, path: Path, record_path: Path | None, state: State) -> Node:
        return Node(
            id=record["recipe_key"],
            content=record["product"]["content"],
            kind=str(record["recipe"].get("kind")),
            path=str(path),
            state=state,
            record_path=record_path,
            meta=record["meta"],
            inputs=references(record, path.parent),
        )

    # What a record names

    def inputs(self, node: Node) -> Branches:
        """The inputs of a node, with their roles."""
        return [(one.role, self.resolve(one)) for one in node.inputs]

    def resolve(self, wanted: Reference) -> Node:
        """The node that an input was: where it is now, or what is known of it."""
        name = (wanted.id, wanted.content, wanted.path)
        if name not in self._resolved:
            if wanted.kind == "foreign":
                self._resolved[name] = _resolve_foreign(wanted)
            else:
                is_raw = wanted.key is None
                self._resolved[name] = self._resolve_raw(wanted) if is_raw else self._resolve_product(wanted)
        return self._resolved[name]

    def _resolve_product(self, wanted: Reference) -> Node:
        path = Path(wanted.path)
        self._add_store_of(path)
        there = _readable(sidecar(path))
        if there is not None and there["product"]["content"] == wanted.content:
            state = _state(path, there)
            return self._found(wanted, path, state, there, sidecar(path))
        # The product itself, wherever it is; else one whose pixels are the same.
        for where, values in (
            ("recipe_key = ? AND content = ?", [wanted.key, wanted.content]),
            ("content = ?", [wanted.content]),
        ):
            for address in self._rows(where, values):
                record = _readable(sidecar(Path(address)))
                if record is not None and _is_whole(Path(address), record, wanted.content):
                    return self._found(wanted, Path(address), "moved", record, sidecar(Path(address)))
        state = "changed" if os.path.lexists(path) else "deleted"
        return self._found(wanted, path, state, there, sidecar(path))

    def _found(
        self, wanted: Reference, path: Path, state: State, record: Record | None, record_path: Path | None
    ) -> Node:
        """A product, by the record at hand if it is its own, else by a kept one of the same key.

        A record of the same key has the same inputs; one of another key has not,
        even where the pixels are the same.
        """
        if record is None or record["recipe_key"] != wanted.key:
            record_path = self._kept_with(wanted.id, path)
            record = _readable(record_path) if record_path else None
        return Node(
            id=wanted.id,
            content=wanted.content,
            kind=wanted.kind,
            path=str(path),
            state=state,
            record_path=record_path if record else None,
            meta=record["meta"] if record else wanted.meta,
            inputs=references(record, Path(wanted.path).parent, path.parent) if record else (),
        )

    def _resolve_raw(self, wanted: Reference) -> Node:
        address = parse_address(wanted.path)
        record = self._raw_record(address.path)
        if not os.path.exists(address.path):
            return self._raw_elsewhere(wanted, "deleted", record)
        if record is None:
            return _raw_node(wanted, wanted.path, "present", None, wanted.meta, checked=False)
        if not _holds(record, address, wanted.content):
            return self._raw_elsewhere(wanted, "changed", record)
        return self._raw_with_record(wanted, wanted.path, "present", record)

    def _raw_elsewhere(self, wanted: Reference, state: State, record: Mapping[str, Any] | None) -> Node:
        for address in self._rows("content = ? AND kind LIKE 'raw%'", [wanted.content]):
            place = parse_address(address)
            there = self._raw_record(place.path)
            if there and os.path.exists(place.path) and _holds(there, place, wanted.content):
                return self._raw_with_record(wanted, address, "moved", there)
        if record is None or _detector(record, wanted.content) is None:
            return _raw_node(wanted, wanted.path, state, None, wanted.meta)
        return self._raw_with_record(wanted, wanted.path, state, record)

    def _raw_with_record(self, wanted: Reference, path: str, state: State, record: Mapping[str, Any]) -> Node:
        one = _detector(record, wanted.content) or {}
        record_path = self._raw_record_path(Path(record["file"]["path"]))
        return _raw_node(wanted, path, state, record_path, one.get("meta", wanted.meta))

    # What was made from it

    def users(self, node: Node) -> Branches:
        """The products that list this content among their inputs, with its role there."""
        if node.content not in self._users:
            self._users[node.content] = self._find_users(node.content)
        return self._users[node.content]

    def _find_users(self, content: str) -> Branches:
        found: dict[str, tuple[str, Node]] = {}
        for store in self._stores:
            index = self._index(store)
            for link in index.links("content = ?", [content]):
                child = absolute(store, link["child"])
                if child not in found:
                    for row in index.rows("address = ?", [link["child"]]):
                        found[child] = (link["role"], self._user(store, index, row))
        return [found[child] for child in sorted(found)]

    def _user(self, store: Store, index: Index, row: Row) -> Node:
        path = Path(absolute(store, row["address"]))
        try:
            state: State = "present" if path.stat().st_size == row["bytes"] else "changed"
        except OSError:
            state = "deleted"
        inputs = tuple(
            Reference(one["role"], "", str(one["address"]), one["content"], one["recipe_key"])
            for one in index.links("child = ?", [row["address"]])
        )
        record_path = sidecar(path) if sidecar(path).exists() else None
        meta = json.loads(row["meta"])
        return Node(
            row["recipe_key"], row["content"], row["kind"], str(path), state, record_path, meta, inputs
        )

    # Indexes and kept records

    def _index(self, store: Store) -> Index:
        if store not in self._indexes:
            self._indexes[store] = open_index(store)
        return self._indexes[store]

    def _rows(self, where: str, values: Sequence[object]) -> Iterator[str]:
        """The paths of what an index selects, store by store, the latest first."""
        for store in self._stores:
            for row in list(self._index(store).rows(where, values, "ORDER BY number DESC")):
                yield absolute(store, row["address"])

    def _folders(self, path: Path) -> list[Path]:
        """Where the record of a product may have been kept."""
        folders = [path.parent / KEPT_BESIDE, *(store.records_path for store in self._stores)]
        return [one for one in folders if one.is_dir()]

    def _kept_by_name(self, path: Path) -> list[Path]:
        pattern = f"{glob.escape(path.name)}.*.json"
        return [one for folder in self._folders(path) for one in sorted(folder.glob(pattern))]

    def _kept_with(self, key: str, path: Path) -> Path | None:
        """The kept record of a recipe key; those of the file's own name are looked at first."""
        for one in self._kept_by_name(path):
            record = _readable(one)
            if record is not None and record["recipe_key"] == key:
                return one
        found = (self._kept_in(folder).get(key) for folder in self._folders(path))
        return next((one for one in found if one), None)

    def _kept_in(self, folder: Path) -> dict[str, Path]:
        if folder not in self._kept:
            records = ((one, _readable(one)) for one in sorted(folder.glob("*.json")))
            self._kept[folder] = {record["recipe_key"]: one for one, record in records if record}
        return self._kept[folder]


def references(record: Record, *directories: Path) -> tuple[Reference, ...]:
    """The inputs of a product, in the order of their roles and then of their paths.

    directories: where the product was made and where it is; the first from which
    an input's relative path leads to a file counts.
    """
    bases = [os.path.realpath(one) for one in directories]
    found = [
        Reference(
            role=str(one.get("role")),
            kind=str(one.get("kind") or ("raw_other" if one.get("recipe_key") is None else "?")),
            path=_place(str(one.get("path") or "?"), bases),
            content=one["content"],
            key=one.get("recipe_key"),
            meta=one["meta"] if isinstance(one.get("meta"), dict) else {},
        )
        for one in _listed(record)
    ]
    roles = list(dict.fromkeys(one.role for one in found))
    return tuple(sorted(found, key=lambda one: (roles.index(one.role), one.path)))


def _listed(record: Record) -> list[dict[str, Any]]:
    inputs = record["recipe"].get("inputs")
    return inputs if isinstance(inputs, list) else []


def _place(hint: str, bases: Sequence[str]) -> str:
    places = [os.path.normpath(os.path.join(base, hint)) for base in dict.fromkeys(bases)]
    there = (one for one in places[1:] if not _is_there(places[0]) and _is_there(one))
    return next(there, places[0])


def _is_there(address: str) -> bool:
    return os.path.lexists(parse_address(address).path)


def _readable(path: Path) -> Record | None:
    """A record, or None if there is none that can be read."""
    try:
        return read_record(path)
    except NoRecord:
        return None


def _is_whole(path: Path, record: Record, content: str) -> bool:
    return bool(record["product"]["content"] == content) and _state(path, record) == "present"


def _state(path: Path, record: Record) -> State:
    """The state of a product that lies beside its record."""
    try:
        return STATES[state_of(path, record)]
    except (KeyError, TypeError, Unreadable):
        return "changed"


def _raw_node(
    wanted: Reference,
    path: str,
    state: State,
    record_path: Path | None,
    meta: Mapping[str, Any],
    checked: bool = True,
) -> Node:
    return Node(wanted.content, wanted.content, wanted.kind, path, state, record_path, meta, checked=checked)


def _resolve_foreign(wanted: Reference) -> Node:
    """A file of another pipeline, which no store knows: it is read to tell whether it is still the same."""
    from .fits import open_fits

    state: State = "changed"
    address = parse_address(wanted.path)
    if not os.path.exists(address.path):
        state = "deleted"
    else:
        with suppress(AweError), open_fits(address.path, spool=True) as fits:
            if any(fits.content([hdu.index]) == wanted.content for hdu in _foreign_units(fits, address)):
                state = "present"
    return _raw_node(wanted, wanted.path, state, None, wanted.meta)


def _foreign_units(fits: FitsFile, address: Address) -> list[Hdu]:
    """The images and tables that an address may mean."""
    named = [one for one in fits.hdus if address.detector in (one.name, str(one.index))]
    return named or [one for one in fits.hdus if one.is_image or one.is_table]


def _detector(record: Mapping[str, Any], content: str) -> Mapping[str, Any] | None:
    """What a raw record says of the detector of that content."""
    return next((one for one in record["detectors"] if one["content"] == content), None)


def _holds(record: Mapping[str, Any], address: Address, content: str) -> bool:
    """Whether the file of a raw record holds that content now; it is read only if its stamp changed."""
    one = _detector(record, content)
    if one is None or address.detector not in (None, str(one["detector"]), str(one["hdus"][0])):
        return False
    stamp = Stamp(*(record["file"][name] for name in ("bytes", "mtime_ns", "inode")))
    with suppress(OSError):
        if stamp_of(address.path.stat()) == stamp:
            return True
    from .fits import open_fits

    try:
        with open_fits(address.path, spool=True) as fits:
            return fits.content(one["hdus"]) == content
    except AweError:
        return False
