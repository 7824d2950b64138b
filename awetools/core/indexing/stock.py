"""What the stores hold, read from their indexes in bulk: the planner looks at thousands of objects at once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import NoRecord, Unavailable
from ..expressions.expression import Node as Condition
from ..expressions.sqlexpression import to_sql
from ..journal import Words, happened_by, nearest_words
from ..meta import VARYING
from ..quality import unfit_for_use
from ..record import Record, read_record, sidecar
from ..store import Store
from .handle import Index
from .indexrows import KEPT, SURVEYED, setup_number, setup_text
from .inforce import as_it_stood, indexes_in_force


class Item(NamedTuple):
    """One object of an index: a detector of a raw frame, or a product; of its meta only what varies in a set-up.

    setup: the number under which the index holds the rest. rank: that of its store.
    """

    address: str
    kind: str
    content: str
    recipe_key: str | None
    bytes: int
    mtime_ns: int
    inode: int | None
    record_path: str
    record_mtime_ns: int
    sequence: int
    made: str
    valid_from: str | None
    valid_to: str | None
    valid_by: str
    flags: int
    setup: int
    exposure: Any
    object: Any
    airmass: Any
    ra_deg: Any
    dec_deg: Any
    obs_start: Any
    temperature_c: Any
    rank: int

    @property
    def identity(self) -> str:
        """What a verdict names it by."""
        return self.recipe_key or self.content

    @property
    def is_removed(self) -> bool:
        """Whether only a kept record is left of it; the address is where it was."""
        return (self.record_path or "").startswith(KEPT)


_COLUMNS = ("CASE substr(address, 1, 1) WHEN '/' THEN address ELSE ? || address END", *SURVEYED[1:], "?")
Getter = Callable[[str], Any]

# Instrument, detector and night; a night of None stands for all.
Place = tuple[Any, Any, str | None]


@dataclass
class Stock:
    """The objects of several stores, each kind and detector read once, when it is first asked for.

    as_of: an instant (UTC); what was made later is not there, and what was judged
    later was not judged.
    """

    stores: Sequence[Store]
    as_of: str | None = None
    _open: ExitStack = field(default_factory=ExitStack)
    _indexes: Sequence[Index] | None = None
    _keeping: Sequence[int] = ()
    _items: dict[tuple[str, Place], list[Item]] = field(default_factory=dict)
    _setups: dict[int, dict[str, Any]] = field(default_factory=dict)
    _said: Words | None = None
    _recorded_flags: dict[tuple[int, str], int] = field(default_factory=dict)

    def close(self) -> None:
        """Close the indexes."""
        self._open.close()
        self._indexes = None

    def items(self, kind: str, place: Place) -> list[Item]:
        """All objects of a kind at a place, those of the first store first, oldest first.

        Products of which only a kept record is left are among them.
        """
        found = self._items.get((kind, place))
        if found is None:
            where = "kind = ? AND instrument IS ? AND detector IS ?"
            values: list[object] = [kind, *place[:2]]
            if place[2] is not None:
                where, values = f"{where} AND night IS ?", [*values, place[2]]
            there = self._select(where, values, "ORDER BY sequence")
            removed = [] if kind.startswith("raw_") else self._removed(where, values, there)
            found = self._items[kind, place] = sorted(there + removed, key=_in_order) if removed else there
        return found

    def find(self, kinds: Sequence[str], condition: Condition | None) -> list[Item]:
        """The objects of some kinds that meet a condition; raises UnknownName for a field that is none."""
        where = f"kind IN ({', '.join('?' * len(kinds))})"
        if condition is None:
            return self._select(where, list(kinds))
        # What a path is, each store says by its own root.
        asked = [to_sql(condition, self._meta_column(rank)) for rank in range(len(self.stores))]
        return self._select_each([(f"{where} AND ({sql})", [*kinds, *values]) for sql, values in asked])

    def holding(
        self, kinds: Sequence[str], content: str, serves: Callable[[Mapping[str, Any]], bool] | None = None
    ) -> Item | None:
        """The newest product of some kinds, of the nearest store, with an input of that content, that may be used.

        One that left the input out does not hold it. serves: whether one of that meta will do.
        """
        where = (
            f"kind IN ({', '.join('?' * len(kinds))}) AND number IN (SELECT child FROM links "
            "JOIN inputs ON inputs.number = links.input WHERE inputs.content = ?)"
        )
        found = self._select(where, [*kinds, content])
        fit = [one for one in found if not unfit_for_use(one.flags, self.verdict(one))]
        fit.sort(key=lambda one: (one.rank, -(one.sequence or 0)))
        holders = (one for one in fit if content not in _left_out(one.address, one.record_mtime_ns))
        return next((one for one in holders if serves is None or serves(_recorded_meta(one.address))), None)

    def _meta_column(self, rank: int) -> Callable[[str], tuple[str, str]]:
        return lambda name: self._index(rank).column(name, [])

    def at(self, real_path: str) -> list[Item]:
        """The raw frames of a file, one a detector."""
        # All that begin with the path and a bracket lie between these two.
        where = "kind LIKE 'raw%' AND (address = ? OR address >= ? AND address < ?)"
        return self._select(where, [real_path, f"{real_path}[", f"{real_path}\\"])

    def distinct(self, kinds: Sequence[str], name: str) -> list[Any]:
        """The values that a field has among the objects of some kinds."""
        where = f"kind IN ({', '.join('?' * len(kinds))})"
        found: dict[Any, None] = {}
        for rank in range(len(self.stores)):
            index = self._index(rank)
            column = index.column(name, [])[0]
            found.update(
                (row[0], None)
                for row in index.select(f"SELECT DISTINCT {column} FROM objects WHERE {where}", kinds)
            )
        return [value for value in found if value is not None]

    def verdict(self, item: Item) -> str | None:
        """What was judged of an object, by the nearest store that has a word on it."""
        said = self._said or self._words()
        return said.verdicts.get(item.identity) if said.verdicts else None

    def recorded_flags(self, item: Item) -> int:
        """The flags that a product's record has, whatever limits were applied again since."""
        return self._recorded_flags.get((item.rank, item.address), item.flags)

    def meta(self, item: Item) -> dict[str, Any]:
        """The meta of an object, less the cards of its celestial coordinates."""
        return {**self.setup(item), **{name: getattr(item, name) for name in VARYING}}

    def getter(self, item: Item) -> Getter:
        """A function that gives the meta of an object by name."""
        setup = self.setup(item)
        return lambda name: getattr(item, name) if name in VARYING else setup.get(name)

    def setup(self, item: Item) -> Mapping[str, Any]:
        """What of an object's meta is the same for all that was taken as it was."""
        found = self._setups.get(item.setup)
        if found is None:
            rows = self._index(item.rank).select("SELECT meta FROM setups WHERE number = ?", (item.setup,))
            found = self._setups[item.setup] = self._read_setup(next(rows, None), item.rank)
        return found

    def _read_setup(self, row: tuple[Any, ...] | None, rank: int) -> dict[str, Any]:
        try:
            value = json.loads(row[0]) if row else None
        except (ValueError, TypeError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise Unavailable(f"{self.stores[rank].index_path}: is damaged", hint="awe-index --rebuild")
        return value

    def changed(self, item: Item, content: str, meta: Mapping[str, Any]) -> Item:
        """A raw frame as it is now, other than the index has it."""
        text = setup_text(meta)
        number = setup_number(text)
        self._setups[number] = json.loads(text)
        varying: dict[str, Any] = {name: meta.get(name) for name in VARYING}
        return item._replace(content=content, setup=number, **varying)

    def record(self, item: Item) -> Record:
        """The record of a product; raises NoRecord."""
        from ..record import read_record

        return read_record(self.stores[item.rank].root / item.record_path)

    def _index(self, rank: int) -> Index:
        if self._indexes is None:
            self._indexes = self._open.enter_context(indexes_in_force(self.stores))
            self._keeping = [number for number, one in enumerate(self._indexes) if one.refresh_kept()]
        return self._indexes[rank]

    def _words(self) -> Words:
        """The verdicts and intervals in force."""
        if self._said is None:
            self._said = (
                self._index(0).words() if self.as_of is None else nearest_words(self.stores, self.as_of)
            )
        return self._said

    def _select(self, where: str, values: Sequence[object], order: str = "") -> list[Item]:
        return self._select_each([(f"{where} {order}", values)] * len(self.stores))

    def _select_each(self, asked: Sequence[tuple[str, Sequence[object]]]) -> list[Item]:
        """What meets a condition of each store."""
        found = [self._read(rank, "objects", *one) for rank, one in enumerate(asked)]
        items = self._as_seen([one for items in found for one in items])
        return items if len(self.stores) == 1 else _without_copies(items)

    def _removed(self, where: str, values: Sequence[object], there: Sequence[Item]) -> list[Item]:
        """The products that are nowhere any more, by their kept records: of each store the newest of a key."""
        kept: list[Item] = []
        for rank in self._keeping:
            kept += self._read(rank, "kept", f"{where} ORDER BY sequence, made", values)
        known = {one.recipe_key for one in there}
        newest = {(one.rank, one.recipe_key): one for one in kept if one.recipe_key not in known}
        return self._as_seen(list(newest.values()))

    def _read(self, rank: int, table: str, where: str, values: Sequence[object]) -> list[Item]:
        sql = f"SELECT {', '.join(_COLUMNS)} FROM {table} WHERE {where}"
        root = os.path.join(self.stores[rank].root, "")
        return list(map(Item._make, self._index(rank).bulk(sql, [root, rank, *values])))

    def _as_seen(self, items: list[Item]) -> list[Item]:
        """Objects with what is in force, those that were there at the instant that is asked about."""
        if self.as_of is not None:
            items = [one for one in map(self._as_it_stood, items) if one is not None]
        if self._words().validities or self._words().qualities:
            items = [self._in_force(one) for one in items]
        return items

    def _in_force(self, item: Item) -> Item:
        flags = self._words().flags_of(item.identity, item.flags, item.made)
        if flags != item.flags:
            self._recorded_flags[item.rank, item.address] = item.flags
            item = item._replace(flags=flags)
        interval = self._words().validities.get(item.identity)
        if interval is None:
            return item
        return item._replace(valid_from=interval.start, valid_to=interval.end, valid_by="hand")

    def _as_it_stood(self, item: Item) -> Item | None:
        """An object as it was at the instant that is asked about; None if it was not there."""
        assert self.as_of is not None
        if item.recipe_key is None:
            return item if happened_by(item.obs_start, self.as_of) else None
        row = as_it_stood(self.stores[item.rank], item._asdict(), self.as_of)
        return None if row is None else Item(**row)


# The frames of a night ask the same few products.
@lru_cache(maxsize=64)
def _left_out(address: str, _mtime_ns: int) -> frozenset[str]:
    """The contents that a product's recipe did not use."""
    try:
        recipe = read_record(sidecar(Path(address)))["recipe"]
    except NoRecord:
        return frozenset()
    return frozenset(one.get("content", "") for one in recipe.get("left_out", ()))


def _recorded_meta(address: str) -> Mapping[str, Any]:
    """All of the meta of a product, of which an item has only what set-ups share."""
    try:
        meta: Mapping[str, Any] = read_record(sidecar(Path(address)))["meta"]
    except NoRecord:
        return {}
    return meta


def _in_order(item: Item) -> tuple[int, int]:
    """The place of a product among those of several stores: the first store first, oldest first."""
    return item.rank, item.sequence or 0


def _without_copies(items: Sequence[Item]) -> list[Item]:
    """The objects less raw frames that a store nearer by has registered too."""
    return list({one.address: one for one in reversed(items)}.values())[::-1]
