"""`awe-lineage` itself: ancestors or descendants as tree, table, JSON, picture or graph."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import AweError, UsageError, worst
from ..core.kind import is_outside
from . import options
from .messages import Messenger
from .tables import print_table

if TYPE_CHECKING:
    from ..core.tracing.lineage import Line, Node
    from ..core.tracing.lineagefold import Fold
    from ..core.tracing.lineagegraph import Graph
    from ..core.tracing.lookup import Lookup

# Branch, last branch, and what stands below each, as in tree(1).
DRAWN = ("\u251c\u2500\u2500 ", "\u2514\u2500\u2500 ", "\u2502   ", "    ")
TYPED = ("|-- ", "`-- ", "|   ", "    ")
COLUMNS = ("steps", "role", "kind", "path", "detector", "filter", "night", "id", "state")
ENDINGS = {".dot": "dot", ".gv": "dot", ".svg": "svg", ".json": "prov"}
# How the files begin that may be replaced.
BEGINS = {"dot": (b"digraph",), "svg": (b"<svg", b"<?xml"), "prov": (b'{\n "prefix"', b'{"prefix"')}


def show(names: Sequence[str], messenger: Messenger, given: Mapping[str, Any]) -> int:
    """Print what is above or below the named files; returns the exit code."""
    form = _form(given)
    # Only JSON says of each descendant what else it was made from.
    with lookup_here(parents=form == "json") as lookup:
        starts, codes = named(names, lookup, messenger)
        lines = _walk(starts, lookup, given["forward"], given["depth"])
        if form in BEGINS:
            if starts:
                _give(_as_text(lines, form, given["forward"]), form, given["output"])
        elif form in ("table", "tsv"):
            _print_rows(lines, form)
        else:
            for text in _objects(lines) if form == "json" else _tree(lines, roles=not given["forward"]):
                options.print_line(text)
    return worst(codes)


def lookup_here(parents: bool = True) -> Lookup:
    """What finds objects on the search path of the working directory."""
    from ..core.store import search_path
    from ..core.tracing.lookup import Lookup
    from ..core.workspace import working_directory

    return Lookup(search_path(working_directory()), parents)


def named(names: Sequence[str], lookup: Lookup, messenger: Messenger) -> tuple[list[Node], list[int]]:
    """The objects of these names, and the exit codes of what is none."""
    found: list[Node] = []
    codes = []
    for name in names:
        try:
            found += lookup.named(name)
        except AweError as error:
            messenger.error(error, name)
            codes.append(error.exit_code)
    return found, codes


def _form(given: Mapping[str, Any]) -> str:
    """How to print; raises UsageError where options contradict each other."""
    output: Path | None = given["output"]
    forms = {"json": given["as_json"], "tree": given["tree"], given["form"]: given["form"] is not None}
    asked = [name for name, value in forms.items() if value]
    if len(asked) > 1:
        raise UsageError(f"{_asked(asked[0], given)} and {_asked(asked[1], given)} exclude each other")
    if asked == ["paths"]:
        raise UsageError("--format paths goes with --impact", hint="awe-lineage --impact FILE")
    if output is None:
        return asked[0] if asked else "tree"
    form = asked[0] if asked else ENDINGS.get(output.suffix.lower(), "")
    if form not in BEGINS:
        endings = "its name must end in .dot, .gv, .svg or .json (PROV)"
        why = endings if not form else f"--format {form} is printed; send it to a file with >"
        raise UsageError(f"-o {output}: {why}")
    return form


def _asked(form: str, given: Mapping[str, Any]) -> str:
    return f"--format {form}" if given["form"] == form else f"--{form}"


def _walk(starts: list[Node], lookup: Lookup, forward: bool, depth: int | None) -> Iterator[Line]:
    from ..core.tracing.lineage import ancestors, descendants

    return (descendants if forward else ancestors)(starts, lookup, depth)


def _as_text(lines: Iterable[Line], form: str, forward: bool) -> str:
    from ..core.tracing.lineagegraph import graph_of, to_dot
    from ..core.tracing.lineagesvg import to_svg
    from ..core.tracing.provenance import to_prov

    write: Callable[[Graph], str] = {"dot": to_dot, "svg": to_svg, "prov": to_prov}[form]
    return write(graph_of(lines, forward))


def _give(text: str, form: str, output: Path | None) -> None:
    """Write a document to its file, over nothing but one of the same form, or print it."""
    if output is None:
        options.print_line(text.removesuffix("\n"))
        return
    from ..core.files import make_directory, refuse_others, write_whole

    refuse_others(output, BEGINS[form], f"such a file ({form})")
    make_directory(output.parent)
    write_whole(output, text.encode())
    options.print_line(str(output))


def _print_rows(lines: Iterable[Line], form: str) -> None:
    rows = []
    for line in lines:
        if not line.repeated:
            node = line.node
            about = (str(node.meta.get(name) or "") for name in COLUMNS[4:7])
            digits = node.id if form == "tsv" else node.id[:8]
            rows.append([str(line.steps), line.role, node.kind, node.path, *about, digits, _state(node)])
    if rows:
        print_table(COLUMNS, rows, aligned=form == "table")


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
    from ..core.tracing.lineagefold import Fold, folded

    branch, last, below, empty = DRAWN if draws_lines() else TYPED
    for line in folded(lines):
        begin = "".join(empty if one else below for one in line.lasts[:-1])
        begin += (last if line.lasts[-1] else branch) if line.lasts else ""
        text = _fold_text(line, roles) if isinstance(line, Fold) else _text(line, roles)
        yield begin + " ".join(text.splitlines())


def draws_lines() -> bool:
    """Whether standard output can show the lines of a tree."""
    try:
        "".join(DRAWN).encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _fold_text(fold: Fold, roles: bool) -> str:
    first, last = (os.path.basename(node.path) for node in (fold.nodes[0], fold.nodes[-1]))
    kind = f"{fold.nodes[0].kind}{_role(fold.role, fold.nodes[0], roles)}"
    return f"{len(fold.nodes)} more {kind} like the last: {first} to {last}  ({fold.lines} lines: --format table)"


def _role(role: str, node: Node, roles: bool) -> str:
    return f" (as {role})" if roles and role not in ("", node.kind, "raw") else ""


def _text(line: Line, roles: bool) -> str:
    node = line.node
    role = _role(line.role, node, roles)
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
        lacks = "not registered" if not node.checked else "no record" if node.lacks_record else ""
        return f"present, {lacks}" if lacks else "present"
    # Nothing outside has a record.
    if is_outside(node.kind):
        return node.state
    return f"{node.state}, {'record only' if node.record_path else 'no record'}"
