"""`awe-lineage --diff`: why two products differ, down to the first causes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..core.errors import UsageError
from . import options
from .messages import CONTROLS, Messenger

if TYPE_CHECKING:
    from ..core.tracing.diff import Explanation
    from ..core.tracing.lineage import Node
    from ..core.tracing.lookup import Lookup


def show(names: Sequence[str], messenger: Messenger, given: Mapping[str, Any]) -> int:
    """Print why the two named products differ; returns the exit code."""
    from ..core.files import parse_address
    from ..core.journal import stores_heard
    from ..core.store import search_path
    from ..core.tracing.diff import explain
    from ..core.tracing.lookup import Lookup
    from ..core.workspace import working_directory

    if len(names) != 2:
        raise UsageError(f"--diff compares two products, not {len(names)}", hint="awe-lineage --diff A B")
    stores = search_path(working_directory())
    for name in names:
        stores = stores_heard(parse_address(name).path, stores)
    with Lookup(stores) as lookup:
        one, other = (_product(name, lookup) for name in names)
        found = explain(one, other, lookup, stores)
    if given["as_json"]:
        options.print_line(json.dumps(_object(found)))
    elif not (given["check"] and messenger.quiet):
        for line in _lines(found, names):
            options.print_line(line.translate(CONTROLS))
    return 0 if found.same or not given["check"] else 3


def _product(name: str, lookup: Lookup) -> Node:
    from ..core.errors import WrongKind

    nodes = lookup.named(name)
    if len(nodes) > 1 or nodes[0].id == nodes[0].content:
        raise WrongKind(f"{name}: is a {nodes[0].kind}; --diff compares products", hint=f"awe-header {name}")
    return nodes[0]


def _lines(found: Explanation, names: Sequence[str]) -> list[str]:
    from ..core.tracing.diff import sentence

    both = " and ".join(names)
    begin = f"{both} have the same bits, but other recipes" if found.same_bits else f"{both} differ"
    lines = [f"{begin}, {sentence(cause)}" for cause in found.causes]
    if not lines:
        lines = [f"{both} are the same: one recipe, the same bits"]
    return [*lines, *(f"besides: {text}" for text in found.besides)]


def _object(found: Explanation) -> dict[str, Any]:
    from ..core.tracing.diff import sentence

    causes = [
        {
            "cause": cause.name,
            "text": cause.text,
            "sentence": sentence(cause),
            "one": cause.one,
            "other": cause.other,
            "chain": [vars(step) for step in cause.chain],
        }
        for cause in found.causes
    ]
    return {
        "one": found.one.path,
        "other": found.other.path,
        "same": found.same,
        "same_recipe": found.same_recipe,
        "same_bits": found.same_bits,
        "causes": causes,
        "besides": list(found.besides),
    }
