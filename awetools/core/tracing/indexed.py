"""Products as an index knows them: nodes of a lineage without a look into their records."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..indexing.handle import BATCH, Index
from ..indexing.index import absolute
from .lineage import Node, Reference
from .states import state_by_size

# What is told of a product that the index knows.
MEMBERS = ("instrument", "detector", "filter", "night", "obs_start", "object", "exptime_s")


def products_at(index: Index, addresses: Sequence[str], parents: bool) -> dict[str, Node]:
    """Products of an index, with what its columns hold of their meta."""
    found = {}
    sql = f"SELECT address, kind, recipe_key, content, bytes, {', '.join(MEMBERS)} FROM objects WHERE address IN "
    # The same inputs come again and again.
    inputs: dict[tuple[Any, ...], Reference] = {}
    for first in range(0, len(addresses), BATCH):
        part = addresses[first : first + BATCH]
        of_each: dict[str, list[Reference]] = {}
        for one in index.inputs_of(part) if parents else ():
            name = (one["role"], one["content"], one["recipe_key"])
            if name not in inputs:
                inputs[name] = Reference(name[0], "", "", name[1], name[2])
            of_each.setdefault(one["child"], []).append(inputs[name])
        rows = index.select(f"{sql}({', '.join('?' * len(part))})", part)
        for address, kind, key, content, size, *meta in rows:
            path = absolute(index.store, address)
            found[address] = Node(
                key,
                content,
                kind,
                path,
                state_by_size(path, size),
                Path(f"{path}.json") if os.path.exists(f"{path}.json") else None,
                dict(zip(MEMBERS, meta, strict=True)),
                tuple(of_each.get(address, ())),
            )
    return found
