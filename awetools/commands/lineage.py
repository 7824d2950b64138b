"""`awe-lineage`: what a product was made from, and what was made from it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from ..core.errors import AweError, worst
from . import options
from .messages import Messenger
from .runner import launch

if TYPE_CHECKING:
    from ..core.lineage import Line, Lookup, Node

# Branch, last branch, and what stands below each, as in tree(1).
DRAWN = ("\u251c\u2500\u2500 ", "\u2514\u2500\u2500 ", "\u2502   ", "    ")
TYPED = ("|-- ", "`-- ", "|   ", "    ")


@click.command(
    "lineage",
    short_help="Show what products were made from, or what was made from them.",
    context_settings=options.SETTINGS,
)
@options.inputs()
@click.option("--tree", is_flag=True, help="Print a tree, a line a node. [default]")
@options.json_output
@click.option("--forward", is_flag=True, help="Show what was made from FILE, to any depth, by the indexes.")
@click.option(
    "--depth", type=click.IntRange(0), metavar="N", help="Go no further than N steps, by the shortest way."
)
@options.common
@click.pass_obj
def command(
    messenger: Messenger,
    /,
    names: tuple[str, ...],
    null: bool,
    tree: bool,
    as_json: bool,
    forward: bool,
    depth: int | None,
) -> int:
    """Show the ancestors of each FILE: a product, a raw frame, or file.fits[DETECTOR] for one detector.

    A line of the tree has kind and name, detector/filter/night, the first 8
    digits of the recipe key (of a raw frame, of the content), and the state:

    \b
      present   it is where the record says (not registered: a raw frame of
                which no store has a record, so only the name was looked at)
      moved     it was found elsewhere, through the index
      changed   something else lies there now
      deleted   it is gone; its ancestors are known if its record was kept

    All is read from the records, also those that are kept of replaced and deleted
    products. A node is followed once; where it comes again it is marked (see
    above). A deleted product can be named too.

    With --json, each node is one line: id (the recipe key, or the content of a
    raw frame), content, kind, path, state, checked, record, role (in what is
    above it; with --forward, that of what is above in it), steps from FILE,
    detector, filter, night, and parents: the inputs, as id and role.

    \b
    Examples:
      awe-lineage reduced.fits
      awe-lineage --forward bias.fits --json | awe-verify -
    """
    from ..core.lineage import Lookup
    from ..core.store import search_path
    from ..core.workspace import working_directory

    if tree and as_json:
        raise click.UsageError("--tree and --json exclude each other")
    starts: list[Node] = []
    codes = []
    with Lookup(search_path(working_directory())) as lookup:
        for name in options.read_names(names, null):
            try:
                starts += lookup.named(name)
            except AweError as error:
                messenger.error(error, name)
                codes.append(error.exit_code)
        lines = _walk(starts, lookup, forward, depth)
        for text in _objects(lines) if as_json else _tree(lines, roles=not forward):
            options.print_line(text)
    return worst(codes)


def _walk(starts: list[Node], lookup: Lookup, forward: bool, depth: int | None) -> Iterator[Line]:
    from ..core.lineage import ancestors, descendants

    return (descendants if forward else ancestors)(starts, lookup, depth)


def _objects(lines: Iterable[Line]) -> Iterator[str]:
    for line in lines:
        if line.repeated:
            continue
        node = line.node
        about = {
            "id": node.id,
            "content": node.content,
            "kind": node.kind,
            "path": node.path,
            "state": node.state,
            "checked": node.checked,
            "record": str(node.record_path) if node.record_path else None,
            "role": line.role or None,
            "steps": line.steps,
            **{name: node.meta.get(name) for name in ("detector", "filter", "night")},
            "parents": [{"id": one.id, "role": one.role} for one in node.inputs],
        }
        yield json.dumps(about)


def _tree(lines: Iterable[Line], roles: bool) -> Iterator[str]:
    branch, last, below, empty = DRAWN if _draws_lines() else TYPED
    for line in lines:
        begin = "".join(empty if one else below for one in line.lasts[:-1])
        begin += (last if line.lasts[-1] else branch) if line.lasts else ""
        yield begin + " ".join(_text(line, roles).splitlines())


def _draws_lines() -> bool:
    try:
        "".join(DRAWN).encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _text(line: Line, roles: bool) -> str:
    node = line.node
    role = f" (as {line.role})" if roles and line.role not in ("", node.kind, "raw") else ""
    about = "/".join(str(node.meta[name]) for name in ("detector", "filter", "night") if node.meta.get(name))
    parts = [f"{node.kind} {os.path.basename(node.path)}{role}", about, node.id[:8], _state(node)]
    if line.repeated:
        parts[-1] = "(see above)"
    elif line.more:
        parts.append(f"({line.more} not followed)")
    return "  ".join(part for part in parts if part)


def _state(node: Node) -> str:
    if node.state == "moved":
        return f"moved to {node.path}"
    if node.state == "present":
        return "present" if node.checked else "present, not registered"
    return f"{node.state}, {'record only' if node.record_path else 'no record'}"


def main() -> None:
    """Run the program."""
    launch(command)
