"""The rows of several stores with what is in force: of each object the nearest store's word counts."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ..errors import NoRecord
from ..journal import Words, happened_by, nearest, nearest_words
from ..store import Store
from .handle import BATCH, Index
from .index import open_index
from .indexrows import Row


def rows_in_force(
    stores: Sequence[Store], where: str = "1", values: Sequence[object] = (), as_of: str | None = None
) -> list[tuple[int, Row]]:
    """The objects that a fragment of SQL selects, each with the place of its store in the search path.

    Verdict and interval are those in force: what the first store says that has a word on
    the object. as_of: an instant (UTC); rows are then as they stood, and what was made
    later is left out.
    """
    if len(stores) == 1 and as_of is None:
        with open_index(stores[0]) as index:
            return [(0, row) for row in index.rows(where, values)]
    with ExitStack() as stack:
        indexes = [stack.enter_context(open_index(store)) for store in stores]
        found = [
            (rank, row)
            for rank, index in enumerate(indexes)
            for row in index.rows(where, values, in_force=False)
        ]
        if as_of is not None:
            stood = ((rank, as_it_stood(stores[rank], row, as_of)) for rank, row in found)
            found = [(rank, row) for rank, row in stood if row is not None]
            said = nearest_words(stores, as_of)
        else:
            said = _nearest(indexes, list({identity_of(row) for _, row in found}))
    return [(rank, with_words(row, said)) for rank, row in found]


@contextmanager
def indexes_in_force(stores: Sequence[Store]) -> Iterator[list[Index]]:
    """The open indexes of several stores, in which the nearest store's words are those in force."""
    with ExitStack() as stack:
        indexes = [stack.enter_context(open_index(store)) for store in stores]
        if len(indexes) > 1:
            own = [index.words() for index in indexes]
            said = nearest(own)
            for index, one in zip(indexes, own, strict=True):
                if one != said:
                    index.hear(said)
        yield indexes


def identity_of(row: Mapping[str, Any]) -> str:
    """What a word names an object by."""
    return str(row["recipe_key"] or row["content"])


def with_words(row: Row, said: Words) -> Row:
    """A row with the verdict, interval and flags in force; its own are those of the record."""
    identity = identity_of(row)
    row["verdict"] = said.verdicts.get(identity)
    interval = said.validities.get(identity)
    if interval is not None:
        row["valid_from"], row["valid_to"], row["valid_by"] = interval.start, interval.end, "hand"
    row["flags"] = said.flags_of(identity, row["flags"], row["made"])
    return row


def as_it_stood(store: Store, row: Row, as_of: str) -> Row | None:
    """A row, less what people said, as it was at an instant (UTC); None if the product did not exist.

    A product that was made again since (the same key, the same bits) existed before: the
    record that was kept of it says since when, and its place in the order of making.
    """
    if happened_by(row["made"], as_of):
        return row
    stood: Row | None = None
    for record in _kept_records(store, row):
        made, validity = str(record["run"].get("end") or ""), record["validity"] or {}
        if happened_by(made, as_of) and (stood is None or made > stood["made"]):
            stood = {
                **row,
                "made": made,
                "sequence": record["run"].get("sequence"),
                "valid_from": validity.get("start"),
                "valid_to": validity.get("end"),
                "valid_by": validity.get("by"),
            }
    return stood


def _kept_records(store: Store, row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The records that were kept of a product before it was made again."""
    from ..record import read_record

    name = Path(str(row["address"])).name
    for path in store.records_path.glob(f"{glob.escape(name)}.*.json"):
        try:
            record = read_record(path)
        except NoRecord:
            continue
        if record["recipe_key"] == row["recipe_key"]:
            yield record


def _nearest(indexes: Sequence[Index], identities: Sequence[str]) -> Words:
    parts = [identities[first : first + BATCH] for first in range(0, len(identities), BATCH)]
    said = [index.words_on(part) for index in indexes for part in parts]
    return nearest(said)
