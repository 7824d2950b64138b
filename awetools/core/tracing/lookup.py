"""Where the objects of a lineage are: found through records, indexes and the records that are kept.

The inputs of a product are followed through its sidecar; an input that is no
longer where it was is looked up in the indexes by recipe key and content, and its
record, if it was replaced or deleted, among the records that were kept.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..catalogues.refinput import content_at, named_catalogue, place_of_content
from ..errors import AweError, NoRecord, NoSuchExtension, NoSuchFile, Unreadable
from ..files import Address, Stamp, parse_address, stamp_of
from ..indexing.index import BATCH, Index, absolute, open_index
from ..indexing.kept import KEPT_BESIDE, removed_from, was_at
from ..kind import FOREIGN, REFCAT
from ..products import refuse_other_detectors, says_it_is_product, state_of
from ..record import Record, read_record, sidecar
from ..store import Store, raw_record_at, read_raw_record, store_of
from .lineage import Branches, Node, Reference, State

if TYPE_CHECKING:
    from ..fits import FitsFile, Hdu

STATES: Mapping[str, State] = {
    "whole": "present",
    "replaced": "present",
    "edited": "changed",
    "missing": "deleted",
}
# What is told of a product that the index knows.
MEMBERS = ("instrument", "detector", "filter", "night", "obs_start", "object", "exptime_s")
_HASH = re.compile(rb'"([0-9a-f]{64})"')


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
        self._kept: dict[Path, dict[str, Path]] = {}
        self._names: dict[Path, dict[str, list[Path]]] = {}
        self._uses: dict[str, list[Path]] | None = None

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
            return [self._product(record, path, sidecar(path), _state(path, record))]
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
        found = [(one, record) for one in self._kept_by_name(path) if (record := _readable(one)) is not None]
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
            record = _readable(sidecar(Path(other)))
            if record is not None:
                return [self._product(record, path, sidecar(Path(other)), _state(path, record))]
        record_path = self._kept_with(key, path)
        record = _readable(record_path) if record_path else None
        if record is None:
            raise NoRecord(
                f"{path}: its record is missing, and none with its key {key[:8]} is kept",
                hint=f"make the product again, or restore {sidecar(path)} from a copy",
            )
        return [self._product(record, path, record_path, _state(path, record))]

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
                self._resolved[name] = _resolve_foreign(wanted)
            elif wanted.kind == REFCAT:
                self._resolved[name] = self._resolve_refcat(wanted)
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
        return self._found(
            wanted, path, _state_without_record(path, wanted.content, there), there, sidecar(path)
        )

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
            # Nobody knows it by its name; but a copy of the same pixels may be registered.
            found = self._raw_elsewhere(wanted, "present", None)
            return found if found.record_path else replace(found, checked=False)
        if not _holds(record, address, wanted.content):
            return self._raw_elsewhere(wanted, "changed", record)
        return self._raw_with_record(wanted, wanted.path, "present", record)

    def _resolve_refcat(self, wanted: Reference) -> Node:
        """A reference catalogue: where it was, or where the stores have one of the same content."""
        path = Path(wanted.path)
        self._add_store_of(path)
        there = content_at(path)
        if there == wanted.content:
            return _raw_node(wanted, wanted.path, "present", None, wanted.meta)
        elsewhere = place_of_content(wanted.content, self._stores)
        if elsewhere is not None:
            return _raw_node(wanted, str(elsewhere), "moved", None, wanted.meta)
        state: State = "changed" if os.path.lexists(path) else "deleted"
        return _raw_node(wanted, wanted.path, state, None, wanted.meta)

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
            users = self._users_at(store, list(dict.fromkeys(one["address"] for one in uses)))
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

    def _users_at(self, store: Store, addresses: Sequence[str]) -> dict[str, Node]:
        """Products of an index, with what its columns hold of their meta."""
        index, found = self.index(store), {}
        sql = f"SELECT address, kind, recipe_key, content, bytes, {', '.join(MEMBERS)} FROM objects WHERE address IN "
        # The same inputs come again and again.
        inputs: dict[tuple[Any, ...], Reference] = {}
        for first in range(0, len(addresses), BATCH):
            part = addresses[first : first + BATCH]
            of_each: dict[str, list[Reference]] = {}
            for one in index.inputs_of(part) if self._parents else ():
                name = (one["role"], one["content"], one["recipe_key"])
                if name not in inputs:
                    inputs[name] = Reference(name[0], "", "", name[1], name[2])
                of_each.setdefault(one["child"], []).append(inputs[name])
            rows = index.select(f"{sql}({', '.join('?' * len(part))})", part)
            for address, kind, key, content, size, *meta in rows:
                path = absolute(store, address)
                found[address] = Node(
                    key,
                    content,
                    kind,
                    path,
                    _state_by_size(path, size),
                    Path(f"{path}.json") if os.path.exists(f"{path}.json") else None,
                    dict(zip(MEMBERS, meta, strict=True)),
                    tuple(of_each.get(address, ())),
                )
        return found

    def removed_users(self, identity: str, content: str | None = None) -> Branches:
        """The products made from it of which a record was kept, and that have no record in its place.

        content: only those that were made from this content of it.
        """
        found: dict[str, tuple[str, Node]] = {}
        for record_path in self._kept_uses().get(identity, ()):
            record = _readable(record_path)
            if record is None or record["recipe_key"] in found:
                continue
            roles = [
                str(one["role"])
                for one in _listed(record)
                if (one.get("recipe_key") or one["content"]) == identity and content in (None, one["content"])
            ]
            if roles and not any(True for _ in self._rows("recipe_key = ?", [record["recipe_key"]])):
                found[record["recipe_key"]] = (roles[0], self._removed(record, record_path))
        return list(found.values())

    def kept_uses(self, identities: Iterable[str]) -> list[str]:
        """Those of some identities that a kept record names as input."""
        uses = self._kept_uses()
        return [one for one in identities if one in uses] if uses else []

    def _removed(self, record: Record, record_path: Path) -> Node:
        """A product of which only the kept record is left."""
        path = was_at(record, record_path)
        return self._product(record, path, record_path, "changed" if os.path.lexists(path) else "deleted")

    def _kept_uses(self) -> Mapping[str, Sequence[Path]]:
        """The kept records of the stores by the hashes that their recipes name; each is looked through once."""
        if self._uses is None:
            self._uses = {}
            for path in (one for store in self._stores for one in sorted(store.records_path.glob("*.json"))):
                with suppress(OSError):
                    recipe = path.read_bytes().partition(b'\n "recipe_key"')[0]
                    for name in set(_HASH.findall(recipe)):
                        self._uses.setdefault(name.decode(), []).append(path)
        return self._uses

    # Indexes and kept records

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

    def _folders(self, path: Path) -> list[Path]:
        """Where the record of a product may have been kept."""
        folders = [path.parent / KEPT_BESIDE, *(store.records_path for store in self._stores)]
        return [one for one in folders if one.is_dir()]

    def _kept_by_name(self, path: Path) -> list[Path]:
        """The records that were kept of products of a file's name, in any folder."""
        found: list[Path] = []
        for folder in self._folders(path):
            if folder not in self._names:
                names: dict[str, list[Path]] = {}
                for one in sorted(folder.glob("*.json")):
                    names.setdefault(one.name.rsplit(".", 2)[0], []).append(one)
                self._names[folder] = names
            found += self._names[folder].get(path.name, [])
        return found

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
    places = [_joined(base, hint) for base in dict.fromkeys(bases)]
    there = (one for one in places[1:] if not _is_there(places[0]) and _is_there(one))
    return next(there, places[0])


# The same calibrations are inputs of thousands.
@lru_cache(maxsize=1 << 14)
def _joined(base: str, hint: str) -> str:
    return os.path.normpath(os.path.join(base, hint))


def _is_there(address: str) -> bool:
    return os.path.lexists(parse_address(address).path)


def _readable(path: Path) -> Record | None:
    """A record, or None if there is none that can be read."""
    try:
        return read_record(path)
    except NoRecord:
        return None


def _state_by_size(path: str, size: int) -> State:
    """The state of a product by a look at its size alone."""
    try:
        return "present" if os.stat(path).st_size == size else "changed"
    except OSError:
        return "deleted"


def _is_whole(path: Path, record: Record, content: str) -> bool:
    return bool(record["product"]["content"] == content) and _state(path, record) == "present"


def _state_without_record(path: Path, content: str, beside: Record | None) -> State:
    """The state of a product whose record is not beside it; where none is that can be read, its pixels tell."""
    if not os.path.lexists(path):
        return "deleted"
    if beside is None:
        from ..fits import open_fits

        with suppress(AweError), open_fits(path, spool=True) as fits:
            if fits.content() == content:
                return "present"
    return "changed"


def unreadable_record(node: Node) -> NoRecord | None:
    """Why the record beside a product cannot be read; None where there is none, or it can be."""
    path = sidecar(Path(node.path))
    if os.path.lexists(path):
        try:
            read_record(path)
        except NoRecord as error:
            return error
    return None


def _state(path: Path, record: Record) -> State:
    """The state of a product that lies beside its record."""
    try:
        return STATES[state_of(path, record)]
    except (KeyError, TypeError, Unreadable):
        return "changed"


def overrides_of(raw: Node) -> Mapping[str, str]:
    """What was set by hand of a raw frame, as its record says now. Raises NoRecord if it cannot be read."""
    record = raw_record_at(raw.record_path) if raw.record_path is not None else None
    return record["overrides"] if record is not None else {}


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
    from ..fits import open_fits

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
    from ..fits import open_fits

    try:
        with open_fits(address.path, spool=True) as fits:
            return fits.content(one["hdus"]) == content
    except AweError:
        return False
