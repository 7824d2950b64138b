"""A lineage as a graph: its objects once, what was used by what, and as a text in the DOT language."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..kind import is_outside
from .lineage import Line, Node

Identity = tuple[str, str]
# So many objects that are alike are drawn as one box.
ALIKE = 4


@dataclass(frozen=True)
class Edge:
    """A product was made from an input, in a role."""

    product: Identity
    role: str
    input: Identity


@dataclass(frozen=True)
class Graph:
    """The objects of a lineage, each once, as they were met; edges only among these."""

    nodes: dict[Identity, Node]
    edges: tuple[Edge, ...]


@dataclass(frozen=True)
class Box:
    """Objects that are drawn as one: of one kind and state, with the same links in the same roles."""

    nodes: tuple[Node, ...]


def graph_of(lines: Iterable[Line], forward: bool = False) -> Graph:
    """The graph of a walk; forward: the walk was one to descendants."""
    nodes: dict[Identity, Node] = {}
    edges: dict[Edge, None] = {}
    above: list[Identity] = []
    for line in lines:
        identity = line.node.identity
        nodes.setdefault(identity, line.node)
        level = len(line.lasts)
        del above[level:]
        if above:
            ends = (identity, line.role, above[-1]) if forward else (above[-1], line.role, identity)
            edges[Edge(*ends)] = None
        above.append(identity)
    return Graph(nodes, tuple(edges))


def boxes_of(graph: Graph) -> tuple[list[Box], list[tuple[int, str, int]]]:
    """What is drawn: boxes, and edges between them as number of the product's box, role, number of the input's."""
    links: dict[Identity, list[tuple[str, str, Identity]]] = {one: [] for one in graph.nodes}
    for edge in graph.edges:
        links[edge.product].append(("in", edge.role, edge.input))
        links[edge.input].append(("out", edge.role, edge.product))
    groups: dict[object, list[Node]] = {}
    for identity, node in graph.nodes.items():
        groups.setdefault((node.kind, node.state, frozenset(links[identity])), []).append(node)
    boxes = [
        Box(tuple(some))
        for nodes in groups.values()
        for some in _parted(nodes, bool(links[nodes[0].identity]))
    ]
    place = {node.identity: number for number, box in enumerate(boxes) for node in box.nodes}
    drawn = dict.fromkeys((place[one.product], one.role, place[one.input]) for one in graph.edges)
    return boxes, list(drawn)


def _parted(nodes: Sequence[Node], linked: bool) -> Iterator[Sequence[Node]]:
    if linked and len(nodes) >= ALIKE:
        yield nodes
    else:
        yield from ([node] for node in nodes)


def texts_of(box: Box) -> list[str]:
    """The lines of a box: kind, name, what it is of, and the key or the state where it is not as recorded."""
    first, count = box.nodes[0], len(box.nodes)
    if count > 1:
        names = sorted(os.path.basename(node.path) for node in box.nodes)
        return [f"{count} {first.kind}", names[0], f"\u2026 {names[-1]}", *_state_of(first)]
    about = "/".join(
        str(first.meta[name]) for name in ("detector", "filter", "night") if first.meta.get(name)
    )
    texts = [first.kind, os.path.basename(first.path), about, f"{first.id[:8]}"]
    return [text for text in texts if text] + _state_of(first)


def _state_of(node: Node) -> list[str]:
    if node.state == "present":
        return ["no record"] if node.lacks_record else []
    return [node.state if node.record_path or is_outside(node.kind) else f"{node.state}, no record"]


def to_dot(graph: Graph) -> str:
    """The graph in the DOT language, every object on its own; arrows lead from inputs to products."""
    numbers = {identity: f"n{number}" for number, identity in enumerate(graph.nodes)}
    lines = [
        "digraph lineage {",
        "  rankdir=LR;",
        '  node [shape=box, style="rounded,filled", fillcolor=white, fontname="Helvetica", fontsize=10];',
        '  edge [fontname="Helvetica", fontsize=9, color="#8c8c8c"];',
    ]
    for identity, node in graph.nodes.items():
        style = "" if node.state == "present" else ', style="rounded,dashed"'
        label = "\\n".join(_quoted(text) for text in texts_of(Box((node,))))
        about = f'label="{label}", tooltip="{_quoted(node.path)}", fillcolor="{colour_of(node.kind)}"'
        lines.append(f"  {numbers[identity]} [{about}{style}];")
    for edge in graph.edges:
        label = (
            f' [label="{_quoted(edge.role)}"]' if role_says_more(edge.role, graph.nodes[edge.input]) else ""
        )
        lines.append(f"  {numbers[edge.input]} -> {numbers[edge.product]}{label};")
    return "\n".join([*lines, "}"]) + "\n"


def role_says_more(role: str, node: Node) -> bool:
    """Whether the role that an input plays says more than its kind does."""
    return role not in ("", "raw", node.kind)


def colour_of(kind: str) -> str:
    """The light colour of a kind: raw frames, calibrations, and what is made of the sky."""
    if kind.startswith("raw") or is_outside(kind):
        return "#ececec"
    return "#fdf0cf" if kind == "reduced" else "#dcebf7"


def plain(text: str) -> str:
    """A text as it can stand in a picture: one line, no controls, no halves of letters."""
    return "".join(char if char.isprintable() else " " if char in "\t\r\n" else "\ufffd" for char in text)


def _quoted(text: str) -> str:
    """A text between the quotes of DOT, in which a backslash begins an escape."""
    return plain(text).replace("\\", "\\\\").replace('"', '\\"')
