"""Where the objects of a lineage are: found through records, indexes and the records that are kept.

The inputs of a product are followed through its sidecar; an input that is no
longer where it was is looked up in the indexes by recipe key and content, and its
record, if it was replaced or deleted, among the records that were kept.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..catalogues.refinput import content_at, named_catalogue, place_of_content
from ..errors import NoRecord, NoSuchExtension, NoSuchFile
from ..files import Address, parse_address
from ..indexing.handle import Index
from ..indexing.index import absolute, open_index
from ..indexing.kept import removed_from, was_at
from ..kind import FOREIGN, REFCAT
from ..products import refuse_other_detectors, says_it_is_product
from ..record import Record, read_record, sidecar
from ..store import Store, read_raw_record, store_of
from .indexed import products_at
from .keptrecords import KeptRecords
from .lineage import Branches, Node, Reference, State
from .references import listed, references
from .states import (
    detector_in,
    holds,
    is_whole,
    raw_node,
    readable,
    resolve_foreign,
    state_beside,
    state_without_record,
)


class Lookup:
    """Finds nodes on the search path; keeps the indexes open, and what it found."""

    def __init__(self, stores: Sequence[Store], parents: bool = True) -> None:
        """parents: whether products that an index finds come with their inputs, which takes time for thousands."""
        self._parents = parents
        self._stores = list(stores)
        self._indexes: dict[Store, Index] = {}
        self._resolved: dict[tuple[str, str, str], Node] = {}
        self._inputs: dict[tuple[str, str], Branches] = {}
        self._users: dict[tuple[str, str], Branches] = {}
        self._seen: set[str] = set()
        self._kept = KeptRecords(self._stores)

    def __enter__(self) -> Lookup:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the indexes."""
        for index in self._indexes.values():
            index.close()
        self._indexes.clear()

    @property
    def stores(self) -> Sequence[Store]:
        """The stores that are looked at: those of the search path, and those that hold what was named."""
        return self._stores

    # What a person names

    def named(self, text: str) -> list[Node]:
        """The nodes at an address: a product, also a deleted one, the detectors of a raw frame, or a catalogue.

        A catalogue may be named by its name, too, where no file has it. Raises NoSuchFile, NoRecord,
        and what reading a raw frame raises.
        """
        catalogue = self._catalogue(text)
        if catalogue is not None:
            return [catalogue]
        address = parse_address(text)
        self._add_store_of(address.path)
        path = address.path
        if os.path.lexists(sidecar(path)):
            record = read_record(sidecar(path))
            refuse_other_detectors(address, record)
            return [self._product(record, path, sidecar(path), state_beside(path, record))]
        if not os.path.lexists(path):
            return self._deleted(address)
        return self._without_record(path) or self._raw_frames(address)

    def _catalogue(self, text: str) -> Node | None:
        """The reference catalogue of a directory or, in the stores, of a name."""
        place = named_catalogue(text, self._stores)
        content = content_at(place) if place else None
        if place is None or content is None:
            return None
        self._add_store_of(place)
        return Node(content, content, REFCAT, str(place), "present", None, {})

    def _add_store_of(self, path: Path) -> None:
        folder = os.path.dirname(path)
        if folder in self._seen:
            return
        self._seen.add(folder)
        store = store_of(path)
        if store is not None and store not in self._stores:
            self._stores.append(store)

    def _deleted(self, address: Address) -> list[Node]:
        path = address.path
        found = [(one, record) for one in self._kept.by_name(path) if (record := readable(one)) is not None]
        if found:
            whole = Path(os.path.abspath(path))
            record_path, record = max(
                found, key=lambda one: (removed_from(one[1], one[0]) == whole, str(one[1]["run"].get("end")))
            )
            refuse_other_detectors(address, record)
            return [self._product(record, path, record_path, "deleted")]
        raw = self._raw_record(path)
        if raw is None:
            raise NoSuchFile(f"{path}: no such file, and no record of one is kept")
        many = len(raw["detectors"]) > 1
        names = [str(one["detector"]) for one in raw["detectors"]]
        if address.detector not in (None, *names):
            raise NoSuchExtension(
                f"{path}: no detector {address.detector!r}; its record has: {', '.join(names)}"
            )
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
        if not says_it_is_product(path):
            return []
        from ..fits import open_fits

        with open_fits(path) as fits:
            key = str(fits.hdus[0].header.get("AWEKEY"))
        # The file that a link leads to lies beside its record.
        for other in (os.path.realpath(path), *self._rows("recipe_key = ?", [key])):
            record = readable(sidecar(Path(other)))
            if record is not None:
                return [self._product(record, path, sidecar(Path(other)), state_beside(path, record))]
        record_path = self._kept.with_key(key, path)
        record = readable(record_path) if record_path else None
        if record is None:
            raise NoRecord(
                f"{path}: its record is missing, and none with its key {key[:8]} is kept",
                hint=f"make the product again, or restore {sidecar(path)} from a copy",
            )
        return [self._product(record, path, record_path, state_beside(path, record))]

    def _raw_frames(self, address: Address) -> list[Node]:
        from ..raws import open_raw
        from ..workspace import here

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
            # The record may be that of a file to which a link leads.
            inputs=references(record, path.parent, (record_path or path).parent),
        )

    # What a record names

    def inputs(self, node: Node) -> Branches:
        """The inputs of a node, with their roles."""
        if node.identity not in self._inputs:
            self._inputs[node.identity] = [(one.role, self.resolve(one)) for one in node.inputs]
        return self._inputs[node.identity]

    def resolve(self, wanted: Reference) -> Node:
        """The node that an input was: where it is now, or what is known of it."""
        name = (wanted.id, wanted.content, wanted.path)
        if name not in self._resolved:
            if wanted.kind == FOREIGN:
                self._resolved[name] = resolve_foreign(wanted)
            elif wanted.kind == REFCAT:
                self._resolved[name] = self._resolve_refcat(wanted)
            else:
                is_raw = wanted.key is None
                self._resolved[name] = self._resolve_raw(wanted) if is_raw else self._resolve_product(wanted)
        return self._resolved[name]

    def _resolve_product(self, wanted: Reference) -> Node:
        path = Path(wanted.path)
        self._add_store_of(path)
        there = readable(sidecar(path))
        if there is not None and there["product"]["content"] == wanted.content:
            state = state_beside(path, there)
            return self._found(wanted, path, state, there, sidecar(path))
        # The product itself, wherever it is; else one whose pixels are the same.
        for where, values in (
            ("recipe_key = ? AND content = ?", [wanted.key, wanted.content]),
            ("content = ?", [wanted.content]),
        ):
            for address in self._rows(where, values):
                record = readable(sidecar(Path(address)))
                if record is not None and is_whole(Path(address), record, wanted.content):
                    return self._found(wanted, Path(address), "moved", record, sidecar(Path(address)))
        return self._found(
            wanted, path, state_without_record(path, wanted.content, there), there, sidecar(path)
        )

    def _found(
        self, wanted: Reference, path: Path, state: State, record: Record | None, record_path: Path | None
    ) -> Node:
        """A product, by the record at hand if it is its own, else by a kept one of the same key.

        A record of the same key has the same inputs; one of another key has not,
        even where the pixels are the same.
        """
        if record is None or record["recipe_key"] != wanted.key:
            record_path = self._kept.with_key(wanted.id, path)
            record = readable(record_path) if record_path else None
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
            # Nobody knows it by its name; but a copy of the same pixels may be registered.
            found = self._raw_elsewhere(wanted, "present", None)
            return found if found.record_path else replace(found, checked=False)
        if not holds(record, address, wanted.content):
            return self._raw_elsewhere(wanted, "changed", record)
        return self._raw_with_record(wanted, wanted.path, "present", record)

    def _resolve_refcat(self, wanted: Reference) -> Node:
        """A reference catalogue: where it was, or where the stores have one of the same content."""
        path = Path(wanted.path)
        self._add_store_of(path)
        there = content_at(path)
        if there == wanted.content:
            return raw_node(wanted, wanted.path, "present", None, wanted.meta)
        elsewhere = place_of_content(wanted.content, self._stores)
        if elsewhere is not None:
            return raw_node(wanted, str(elsewhere), "moved", None, wanted.meta)
        state: State = "changed" if os.path.lexists(path) else "deleted"
        return raw_node(wanted, wanted.path, state, None, wanted.meta)

    def _raw_elsewhere(self, wanted: Reference, state: State, record: Mapping[str, Any] | None) -> Node:
        for address in self._rows("content = ? AND kind LIKE 'raw%'", [wanted.content]):
            place = parse_address(address)
            there = self._raw_record(place.path)
            if there and os.path.exists(place.path) and holds(there, place, wanted.content):
                return self._raw_with_record(wanted, address, "moved", there)
        if record is None or detector_in(record, wanted.content) is None:
            return raw_node(wanted, wanted.path, state, None, wanted.meta)
        return self._raw_with_record(wanted, wanted.path, state, record)

    def _raw_with_record(self, wanted: Reference, path: str, state: State, record: Mapping[str, Any]) -> Node:
        one = detector_in(record, wanted.content) or {}
        record_path = self._raw_record_path(Path(record["file"]["path"]))
        return raw_node(wanted, path, state, record_path, one.get("meta", wanted.meta))

    # What was made from it

    def users(self, node: Node) -> Branches:
        """The products that list this very content of it among their inputs, with its role there.

        Those whose file and record are in place are known by the index, with what it
        knows of their meta; then those of which only a record was kept.
        """
        if node.identity not in self._users:
            self.find_users([node])
        return self._users[node.identity]

    def find_users(self, nodes: Sequence[Node]) -> None:
        """Find what was made from many nodes at once: a question to each index, whatever their number."""
        wanted = {node.identity: node for node in nodes if node.identity not in self._users}
        if not wanted:
            return
        found: dict[tuple[str, str], dict[str, tuple[str, Node]]] = {identity: {} for identity in wanted}
        for store in self._stores:
            uses = [
                one
                for one in self.index(store).users_of([name for name, _ in wanted])
                if (one["identity"], one["content"]) in found
            ]
            users = products_at(
                self.index(store), list(dict.fromkeys(one["address"] for one in uses)), self._parents
            )
            for one in uses:
                node = users.get(one["address"])
                if node is not None:
                    found[one["identity"], one["content"]].setdefault(node.path, (one["role"], node))
        kept = set(self.kept_uses(name for name, _ in wanted))
        for identity, known in found.items():
            if identity[0] in kept:
                there = {node.id for _, node in known.values()}
                removed = self.removed_users(identity[0], identity[1])
                known.update((node.path, (role, node)) for role, node in removed if node.id not in there)
            self._users[identity] = [known[path] for path in sorted(known)]

    def removed_users(self, identity: str, content: str | None = None) -> Branches:
        """The products made from it of which a record was kept, and that have no record in its place.

        content: only those that were made from this content of it.
        """
        found: dict[str, tuple[str, Node]] = {}
        for record_path in self._kept.uses().get(identity, ()):
            record = readable(record_path)
            if record is None or record["recipe_key"] in found:
                continue
            roles = [
                str(one["role"])
                for one in listed(record)
                if (one.get("recipe_key") or one["content"]) == identity and content in (None, one["content"])
            ]
            if roles and not any(True for _ in self._rows("recipe_key = ?", [record["recipe_key"]])):
                found[record["recipe_key"]] = (roles[0], self._removed(record, record_path))
        return list(found.values())

    def kept_uses(self, identities: Iterable[str]) -> list[str]:
        """Those of some identities that a kept record names as input."""
        uses = self._kept.uses()
        return [one for one in identities if one in uses] if uses else []

    def _removed(self, record: Record, record_path: Path) -> Node:
        """A product of which only the kept record is left."""
        path = was_at(record, record_path)
        return self._product(record, path, record_path, "changed" if os.path.lexists(path) else "deleted")

    # Indexes

    def index(self, store: Store) -> Index:
        """The open index of a store."""
        if store not in self._indexes:
            self._indexes[store] = open_index(store)
        return self._indexes[store]

    def _rows(self, where: str, values: Sequence[object]) -> Iterator[str]:
        """The paths of what an index selects, store by store, the latest first."""
        for store in self._stores:
            for row in list(self.index(store).rows(where, values, "ORDER BY number DESC")):
                yield absolute(store, row["address"])
