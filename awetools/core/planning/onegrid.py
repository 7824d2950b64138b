"""One grid for what one request makes of one field: the coadds of its filters, as a colour picture needs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import AweError
from ..gridstore import AUTO, PARAMETER
from .graph import Graph
from .nodes import SERVING, TO_MAKE, Node
from .offgrid import SOLUTION
from .targets import BY_HAND

if TYPE_CHECKING:
    from ..sky.wcs import Wcs

    Placed = tuple[Wcs, tuple[int, int]]


@dataclass(frozen=True)
class OneGrid:
    """Products on a grid that was fitted around the frames of all of them; text: the grid."""

    text: str
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class Together:
    """The targets, those that overlap on one grid; and the solutions without which a grid cannot be fitted yet."""

    targets: list[Node]
    grids: tuple[OneGrid, ...] = ()
    unsolved: tuple[Node, ...] = ()


def on_one_grid(graph: Graph, targets: Sequence[Node], each: Sequence[str]) -> Together:
    """Put targets whose grid is to fit their frames on one grid, where they overlap.

    each: fields of whose values each is to have products of its own: these share nothing. The grid depends on where
    the frames of the request are, and on nothing else: asked again, it is the same. A person who says `auto` gets a
    grid a product.
    """
    groups: dict[str, list[Node]] = {}
    for node in targets:
        if _fits_its_frames(node):
            # What a product of many has not of its own, all of its frames have alike.
            first = next(one for one in node.given if isinstance(one, Node))
            groups.setdefault(repr([node.kind.name, *map(first.get, each)]), []).append(node)
    moved: dict[Node, Node] = {}
    grids: list[OneGrid] = []
    unsolved: dict[Node, None] = {}
    for group in (one for one in groups.values() if len(one) > 1):
        waiting = [one for node in group for _, one in _solutions(graph, node) if one.state in TO_MAKE]
        unsolved |= dict.fromkeys(waiting)
        for text, some in _overlapping(graph, group) if not waiting else ():
            nodes = tuple(_on(graph, node, text) for node in some)
            moved |= dict(zip(some, nodes, strict=True))
            grids.append(OneGrid(text, nodes))
    return Together([moved.get(node, node) for node in targets], tuple(grids), tuple(unsolved))


def _fits_its_frames(node: Node) -> bool:
    """Whether the grid of a product is to be that around its frames, and nobody said that it be so."""
    params = node.setting.params
    return (
        params.origins.get(PARAMETER, BY_HAND) != BY_HAND
        and getattr(params.values, PARAMETER) == AUTO
        and node.is_of_products
        and node.state in SERVING | {"flagged", "failed"}
        and _is_solved(node)
    )


def _is_solved(node: Node) -> bool:
    return any(one.need.kind == SOLUTION for one in (node.supply.filled if node.supply else ()))


def _solutions(graph: Graph, node: Node) -> Iterator[tuple[Node, Node]]:
    """The frames of a product with the solution of each; also of those that lack something else.

    What fails of these later must not move the grid.
    """
    for one in node.supply.filled if node.supply else ():
        if one.need.kind == SOLUTION and one.frame is not None:
            yield one.frame, one.node
    for frame in node.lacking:
        if (solution := graph.leaver.solution_of(node, frame)) is not None:
            yield frame, solution


def _overlapping(graph: Graph, group: Sequence[Node]) -> Iterator[tuple[str, list[Node]]]:
    """Those of some products that overlap, and the grid around their frames; none where no grid can hold them."""
    from ..sky.grid import NOWHERE, window_of
    from ..sky.gridtext import fitted, parse_grid

    parts: list[tuple[list[Node], list[Placed]]] = []
    for node in group:
        nodes, frames = [node], list(_placed(graph, node))
        with suppress(AweError):
            grid = fitted(frames).grid()
            touching = [one for one in parts if any(window_of(grid, *frame) != NOWHERE for frame in one[1])]
            parts = [one for one in parts if one not in touching]
            for other_nodes, other_frames in reversed(touching):
                nodes, frames = other_nodes + nodes, other_frames + frames
            parts.append((nodes, frames))
    for nodes, frames in parts:
        if len(nodes) > 1:
            with suppress(AweError):
                yield str(parse_grid(str(fitted(frames)))), nodes


def _placed(graph: Graph, node: Node) -> Iterator[Placed]:
    """Where the frames of a product are, and their shapes."""
    from ..sky.readwcs import read_wcs

    for frame, solution in _solutions(graph, node):
        shape = frame.get("ny"), frame.get("nx")
        if solution.item is None or not all(shape):
            continue
        # Coordinates that cannot be read are for the recipe to complain of.
        with suppress(AweError):
            yield read_wcs(dict(graph.stock.record(solution.item)["meta"].get("wcs") or {})), shape


def _on(graph: Graph, node: Node, text: str) -> Node:
    """The node of the same product on a grid, decided."""
    need = node.kind.need(node.role)
    given = [one for one in node.given if isinstance(one, Node)]
    made = graph.nodes.node_of_products(node.kind, need, given, {**node.setting.asked, PARAMETER: text})
    made.omitted = made.omitted or list(node.omitted)
    return graph.decide(made)
