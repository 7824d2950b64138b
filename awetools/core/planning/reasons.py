"""Why a product must be made, by name.

missing, removed, edited, parameters, recipe, inputs, members, better, upstream, remake.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..indexing.stock import Item
from .differences import Part, Reason, recipe_differences, role_differences
from .graph import Graph
from .nodes import PENDING, Node, label
from .plan import key_meta

# So many products upstream are named as those where it begins.
MOST_BEGINNINGS = 3


def reasons_of(graph: Graph, node: Node) -> list[Reason]:
    """The reasons of a node that is to be made; none for another. Reads the record of the version that it follows."""
    if node.state == "missing":
        return [Reason("missing", f"{label(node)} does not exist")]
    if node.state == "again" and node.item is not None:
        return [Reason("removed", f"{node.item.address} was removed, its record is kept")]
    if node.state != "outdated" or node.item is None:
        return []
    if node.edited:
        return [Reason("edited", f"{node.item.address} is not what its record says")]
    return _differences(graph, node, node.item) or [Reason("remake", "it was asked to be made again")]


def own_reasons(graph: Graph, node: Node) -> list[str]:
    """The reasons of a node in words, but for what upstream is to be made."""
    return [f"{one.name}: {one.detail}" for one in reasons_of(graph, node) if one.name != "upstream"]


def upstream_roles(node: Node) -> list[str]:
    """The roles of a node whose inputs are to be made."""
    return list(dict.fromkeys(role for role, one in node.needs() if one.state in PENDING))


@dataclass
class Teller:
    """Tells reasons in one line: those of a node itself, and the products upstream where it begins."""

    graph: Graph

    def __post_init__(self) -> None:
        self._own: dict[Node, list[str]] = {}

    def why(self, node: Node) -> str:
        """Why a node is to be made; empty for one that is not."""
        parts = list(self._of(node))
        if node.state == "outdated" and (roles := upstream_roles(node)):
            parts.append(f"upstream: {', '.join(roles)}, {self._beginnings(node)}")
        return "; ".join(parts)

    def _beginnings(self, node: Node) -> str:
        alike: dict[str, list[str]] = {}
        for one in _pending_below(node):
            if own := self._of(one):
                alike.setdefault("; ".join(own), []).append(label(one))
        begins = [f"{' and '.join(_few(names))} ({why})" for why, names in alike.items()]
        return f"because of {', '.join(_few(begins))}"

    def _of(self, node: Node) -> list[str]:
        if node not in self._own:
            self._own[node] = ["missing"] if node.state == "missing" else own_reasons(self.graph, node)
        return self._own[node]


def _few(texts: Sequence[str]) -> list[str]:
    more = len(texts) - MOST_BEGINNINGS
    return [*texts[:MOST_BEGINNINGS], *([f"{more} more"] if more > 0 else [])]


def _pending_below(node: Node) -> list[Node]:
    """What is to be made before a node, each after what it needs."""
    found: dict[Node, None] = {}
    seen: set[Node] = set()

    def visit(above: Node) -> None:
        for _, one in above.needs():
            if one.state in PENDING and one not in seen:
                seen.add(one)
                visit(one)
                found[one] = None

    visit(node)
    return list(found)


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
    for role, catalogue in node.setting.catalogues.items():
        yield Part(role, catalogue.content, {}, catalogue.name, chosen=True)


def _part(graph: Graph, node: Node, role: str, one: Item | Node, chosen: bool) -> Iterator[Part]:
    item = one if isinstance(one, Item) else one.item if one.state not in PENDING else None
    if item is None:
        return
    changes = {} if chosen else node.setting.changes
    meta = key_meta(node.kind, {**graph.stock.meta(item), **changes})
    yield Part(role, item.content, meta, os.path.basename(item.address), chosen)
