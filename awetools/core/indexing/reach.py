"""All that products were made from, and all that was made from them, by the indexes alone: thousands at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from .handle import USED, Index

# So many are asked for at once, that memory stays small.
CHUNK = 50_000

# Products by their numbers: a product that uses eight of a level is read once.
_USERS = f"""WITH {USED} SELECT DISTINCT links.child FROM used
    CROSS JOIN links ON links.input = used.number"""
_USERS_OF_PRODUCTS = """SELECT DISTINCT links.child FROM json_each(?1) AS wanted
    CROSS JOIN inputs ON inputs.recipe_key = wanted.value CROSS JOIN links ON links.input = inputs.number"""
_NUMBERED = """SELECT objects.recipe_key, objects.address, objects.kind FROM json_each(?1) AS wanted
    CROSS JOIN objects ON objects.number = wanted.value"""
_INPUTS = """SELECT DISTINCT coalesce(inputs.recipe_key, inputs.content) FROM json_each(?1) AS wanted
    CROSS JOIN objects ON objects.recipe_key = wanted.value
    CROSS JOIN links ON links.child = objects.number CROSS JOIN inputs ON inputs.number = links.input"""
_OBJECTS = """SELECT objects.recipe_key, objects.address, objects.kind FROM json_each(?1) AS wanted
    CROSS JOIN objects ON objects.recipe_key = wanted.value
    UNION ALL SELECT objects.content, objects.address, objects.kind FROM json_each(?1) AS wanted
    CROSS JOIN objects ON objects.content = wanted.value AND objects.recipe_key IS NULL"""


class Reached(NamedTuple):
    """One object, by the shortest way there.

    identity: the recipe key; of a raw frame the content. rank: the place of its index
    among those that were given; None, with an empty address and kind, where none knows it.
    """

    identity: str
    steps: int
    rank: int | None
    address: str
    kind: str


def ancestors_of(
    indexes: Sequence[Index], identities: Iterable[str], depth: int | None = None
) -> list[Reached]:
    """What some objects were made from, nearest first, without themselves; copies and unknown ones included.

    depth: so many steps at most; None is without end, which loops do not prevent.
    """
    level = list(dict.fromkeys(identities))
    seen = set(level)
    found: list[Reached] = []
    steps = 0
    while level and steps != depth:
        steps += 1
        inputs = dict.fromkeys(row[0] for index in indexes for row in _asked(index, _INPUTS, level))
        level = [identity for identity in inputs if identity not in seen]
        seen.update(level)
        found += _placed(indexes, level, steps)
    return found


def descendants_of(
    indexes: Sequence[Index], identities: Iterable[str], depth: int | None = None
) -> list[Reached]:
    """What was made from some objects, nearest first, without themselves; a product at two addresses is two.

    depth: so many steps at most; None is without end, which loops do not prevent.
    """
    level = list(dict.fromkeys(identities))
    steps_to = dict.fromkeys(level, 0)
    seen: list[set[int]] = [set() for _ in indexes]
    found: list[Reached] = []
    steps = 0
    while level and steps != depth:
        steps += 1
        used, level = level, []
        for rank, index in enumerate(indexes):
            # Only what was asked for can be raw.
            users = _asked(index, _USERS if steps == 1 else _USERS_OF_PRODUCTS, used)
            numbers = {row[0] for row in users} - seen[rank]
            seen[rank] |= numbers
            for identity, address, kind in _asked(index, _NUMBERED, sorted(numbers)):
                if identity not in steps_to:
                    steps_to[identity] = steps
                    level.append(identity)
                if steps_to[identity]:
                    found.append(Reached(identity, steps_to[identity], rank, address, kind))
    return found


def _placed(indexes: Sequence[Index], identities: Sequence[str], steps: int) -> list[Reached]:
    """Where these are; in the order of the indexes, at last those that none knows."""
    found = [
        Reached(identity, steps, rank, address, kind)
        for rank, index in enumerate(indexes)
        for identity, address, kind in _asked(index, _OBJECTS, identities)
    ]
    known = {one.identity for one in found}
    return found + [Reached(one, steps, None, "", "") for one in identities if one not in known]


def _asked(index: Index, sql: str, wanted: Sequence[str] | Sequence[int]) -> Iterator[tuple[Any, ...]]:
    waiting = iter(wanted)
    while part := list(islice(waiting, CHUNK)):
        yield from index.bulk(sql, [json.dumps(part)])
