"""What was made with parameters given by hand and is chosen by others from now on, as the newest."""

from __future__ import annotations

from collections.abc import Iterable

from ..kind import Kind, holding, of_frame, valid_at
from ..settings import resolve_params
from .graph import Graph
from .nodes import Node


def eclipsing_kinds(graph: Graph, made: Iterable[Node]) -> list[str]:
    """The kinds of which something was made that programs choose, and that the settings alone would make otherwise."""
    return list(
        dict.fromkeys(
            node.kind.name
            for node in made
            if node.kind.name in graph.view.sets
            and _is_chosen(node.kind, graph.kinds)
            and _is_experiment(graph, node)
        )
    )


def _is_chosen(kind: Kind, kinds: Iterable[Kind]) -> bool:
    """Whether what uses products of a kind chooses them itself, unasked."""
    return any(
        kind.name in need.kinds and need.select in (valid_at(), of_frame(), holding()) and not need.asked_by
        for user in kinds
        for need in user.needs
        if need not in user.leads
    )


def _is_experiment(graph: Graph, node: Node) -> bool:
    workspace, meta = graph.workspace, node.setting.meta
    usual = resolve_params(node.kind, meta, workspace.camera_settings(meta), workspace.settings, {}).values
    given = graph.view.sets[node.kind.name]
    return any(getattr(usual, name) != value for name, value in given.items())
