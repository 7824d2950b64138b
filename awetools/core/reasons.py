"""Why a product must be made, by name: missing, edited, parameters, recipe, inputs, members, better, upstream."""

from __future__ import annotations

import os
from collections.abc import Iterator

from .graph import Graph
from .nodes import PENDING, Node, label
from .plan import Part, Reason, key_meta, recipe_differences, role_differences
from .stock import Item


def reasons_of(graph: Graph, node: Node) -> list[Reason]:
    """The reasons of a node that is to be made; none for another. Reads the record of the version that it follows."""
    if node.state == "missing":
        return [Reason("missing", f"{label(node)} does not exist")]
    if node.state != "outdated" or node.item is None:
        return []
    if node.edited:
        return [Reason("edited", f"{node.item.address} is not what its record says")]
    return _differences(graph, node, node.item) or [Reason("remake", "it was asked to be made again")]


def _differences(graph: Graph, node: Node, before: Item) -> list[Reason]:
    if before.recipe_key == node.key:
        return []
    record = graph.stock.record(before)
    roles = {one["role"] for one in record["recipe"]["inputs"]}
    pending = {role: one for role, one in node.needs() if one.state in PENDING}
    found = list(recipe_differences(node.kind, node.setting.params.as_dict(), record))
    for role, one in pending.items():
        found.append(
            Reason("upstream", f"{role}: {label(one)} is to be made{' again' if role in roles else ''}")
        )
    needs = [need for need in node.kind.needs if need.role not in pending]
    return [*found, *role_differences(needs, list(_parts(graph, node)), record)]


def _parts(graph: Graph, node: Node) -> Iterator[Part]:
    """What is known of the inputs: of those yet to be made nothing is."""
    for one in node.given:
        yield from _part(graph, node, node.role, one, chosen=False)
    for filled in node.supply.filled if node.supply else ():
        yield from _part(graph, node, filled.need.role, filled.node, chosen=True)


def _part(graph: Graph, node: Node, role: str, one: Item | Node, chosen: bool) -> Iterator[Part]:
    item = one if isinstance(one, Item) else one.item if one.state not in PENDING else None
    if item is None:
        return
    changes = {} if chosen else node.setting.changes
    meta = key_meta(node.kind, {**graph.stock.meta(item), **changes})
    yield Part(role, item.content, meta, os.path.basename(item.address), chosen)
