"""The tree of needs as people and programs read it: a line a node, with its state and what it is made of."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .graph import Graph
from .nodes import TO_MAKE, Node, label
from .orders import output_of
from .reasons import own_reasons, reasons_of, upstream_roles

WORDS = {
    "unchecked": "not checked",
    "missing": "to be made",
    "removed": "removed, record kept",
    "again": "to be made again",
    "elsewhere": "not on the grid",
}


@dataclass(frozen=True)
class Line:
    """One line of a tree; `text` is without the branches, node None for raw frames."""

    branches: str
    text: str
    node: Node | None = None


def lines_of(graph: Graph, targets: Sequence[Node], depth: int | None = None) -> Iterator[Line]:
    """The trees of some targets, each subtree once; depth: how many steps are shown."""
    seen: set[Node] = set()
    for target in targets:
        yield from _lines(graph, target, "", "", "", depth, seen)


def _lines(
    graph: Graph, node: Node, first: str, rest: str, role: str, depth: int | None, seen: set[Node]
) -> Iterator[Line]:
    named = f"{role}: " if role and role != node.kind.name else ""
    below = list(node.needs())
    frames = _frames_text(node)
    repeated = node in seen and bool(below or frames)
    state = f"{WORDS.get(node.state, node.state)}  (above)" if repeated else state_text(graph, node)
    yield Line(first, f"{named}{label(node)}  {state}", node)
    if repeated or depth == 0:
        return
    seen.add(node)
    texts = [*([frames] if frames else []), *_omitted_texts(node)]
    count = len(below) + len(texts)
    for number, text in enumerate(texts, 1):
        yield Line(rest + _branch(number == count), text)
    for number, (inner, one) in enumerate(below, 1 + len(texts)):
        last = number == count
        more = rest + ("   " if last else "|  ")
        yield from _lines(
            graph, one, rest + _branch(last), more, inner, None if depth is None else depth - 1, seen
        )


def _branch(last: bool) -> str:
    return "`- " if last else "|- "


def _frames_text(node: Node) -> str:
    raws = node.raws
    if not raws:
        return ""
    if len(raws) == 1:
        return f"{raws[0].kind} {os.path.basename(raws[0].address)}"
    names = sorted(os.path.basename(one.address) for one in raws)
    counts = Counter(one.kind for one in raws)
    return f"{', '.join(f'{count} {kind}' for kind, count in counts.items())}: {names[0]} ... {names[-1]}"


def _omitted_texts(node: Node) -> list[str]:
    return [f"left out {os.path.basename(one.address)}: {one.reason}" for one in node.omitted]


def state_text(graph: Graph, node: Node) -> str:
    """A node's state in words, with the path of what is there and the reasons for what is not."""
    word = WORDS.get(node.state, node.state)
    if node.state in TO_MAKE:
        if node.state == "missing":
            return word
        roles = upstream_roles(node)
        why = [*own_reasons(graph, node), *([f"upstream: {', '.join(roles)}"] if roles else [])]
        return f"{word} ({'; '.join(why)})" if why else word
    if node.error is not None:
        return f"{word}: {node.error.message.removeprefix(label(node)).lstrip(': ')}"
    if node.item is None:
        return word
    by_hand = " (its interval was set by hand)" if node.item.valid_by == "hand" and not node.given else ""
    return f"{word}{by_hand}  {node.item.address}"


def as_objects(graph: Graph, nodes: Sequence[Node]) -> Iterator[dict[str, Any]]:
    """Nodes as JSON objects: label, kind, state, path, reasons, needs."""
    for node in nodes:
        about: dict[str, Any] = {
            "label": label(node),
            "kind": node.kind.name,
            "state": WORDS.get(node.state, node.state),
            "path": output_of(graph, node),
            "reasons": [{"reason": one.name, "detail": one.detail} for one in reasons_of(graph, node)],
            "needs": [{"role": role, "label": label(one)} for role, one in node.needs()],
            "raw": [one.address for one in node.raws],
        }
        if node.omitted:
            about["left_out"] = [{"path": one.address, "reason": one.reason} for one in node.omitted]
        if node.error is not None:
            about |= {"error": node.error.slug, "message": node.error.message, "try": node.error.hint}
        yield about
