"""From nodes to command lines: what is to be run, in which order, and what it will take."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..engines.planfile import Node as Order
from ..engines.planfile import only_if, why_not
from ..errors import AweError, Unavailable
from ..files import parse_address, write_whole
from ..gridstore import file_meant
from ..kind import REFCAT, Kind
from ..params import params_of
from ..store import Store, default_path
from .graph import Graph
from .nodes import TO_MAKE, Filled, Node, address_of

# Exit codes of failures that the same inputs and parameters would bring again.
LASTING = frozenset({3, 4, 6})
# Where nothing like it was made before: start, then reading, computing and writing, by the input's size.
FIRST_SECONDS, SECONDS_A_GB = 0.25, 30.0
FIRST_MB, MB_A_FRAME = 150, 12.0
STRIPS_MB = 1024
# No product took more.
MOST_SECONDS, MOST_MB = 1e7, 1e8


def in_order(targets: Iterable[Node]) -> list[Node]:
    """The nodes that have to be made for some targets, each after what it needs."""
    found: dict[Node, None] = {}
    seen: set[int] = set()
    waiting = [(node, False) for node in reversed(list(targets))]
    while waiting:
        node, needs_done = waiting.pop()
        if needs_done:
            found[node] = None
        elif id(node) not in seen and node.state in TO_MAKE:
            seen.add(id(node))
            waiting.append((node, True))
            waiting += [(one, False) for _, one in node.needs()]
    return list(found)


def orders_of(
    graph: Graph, nodes: Sequence[Node], timeout_s: float | None = None, retries: int = 1
) -> list[Order]:
    """The command lines that make nodes, given in the order of their needs."""
    ids = {id(node): f"{node.kind.name}-{number:05d}" for number, node in enumerate(nodes, 1)}
    expected = _Expected(graph)
    return [_order(graph, node, ids, expected, timeout_s, retries) for node in nodes]


def _order(
    graph: Graph,
    node: Node,
    ids: Mapping[int, str],
    expected: _Expected,
    timeout_s: float | None,
    retries: int,
) -> Order:
    optional = {filled.need.role for filled in _filled(node) if filled.need.optional}
    if _may_lack(graph, node):
        optional |= {role for _, role, _ in each_with(node)}
    waits: dict[bool, list[str]] = {True: [], False: []}
    inputs = [one.address for one in node.raws]
    for role, one in node.needs():
        if id(one) in ids:
            waits[role in optional].append(ids[id(one)])
        elif one.item is not None:
            inputs.append(one.item.address)
    inputs += [str(one.watched) for one in node.setting.catalogues.values()]
    if grid := file_meant(node.setting.params, graph.workspace.stores):
        inputs.append(str(grid))
    seconds, memory_mb = expected.of(node)
    return Order(
        id=ids[id(node)],
        argv=tuple(_argv(graph, node, ids)),
        inputs=tuple(str(parse_address(one).path) for one in inputs),
        # A name that holds a key is known when its inputs are; else the node says it when it has run.
        outputs=(_output(graph, node),) if _is_certain(node) else (),
        needs=tuple(dict.fromkeys(waits[False])),
        wants=tuple(dict.fromkeys(waits[True])),
        memory_mb=memory_mb,
        seconds=seconds,
        retries=retries,
        timeout_s=timeout_s,
    )


def _is_certain(node: Node) -> bool:
    """Whether the key is known: what is made again could come out otherwise, by other software."""
    return bool(node.key) and all(one.state != "again" for _, one in node.needs())


def _argv(graph: Graph, node: Node, ids: Mapping[int, str]) -> Iterator[str]:
    kind = node.kind
    yield kind.command
    yield "--json"
    yield "--chosen"
    # Of a node whose inputs are yet to be made it is not known whether its product was edited.
    if graph.view.force:
        yield "--force"
    if kind.shared_by:
        yield "--alone"
    # What is asked to be made again is made although it is up to date.
    if not node.edited and kind.name not in graph.view.remake:
        yield "--update"
    yield from _parameters(kind, node.setting.asked)
    filled: dict[str, list[Filled]] = {}
    for each in _filled(node):
        filled.setdefault(each.need.role, []).append(each)
    farthest = max((one.nights_away for one in _filled(node)), default=0)
    if farthest:
        yield f"--allow-nearest={farthest}"
    only = _conditions(graph, node, ids)
    for need in kind.needs:
        if need.role == node.role or need.kind == REFCAT:
            continue
        option = need.role.replace("_", "-")
        if need.role not in filled:
            yield f"--no-{option}"
        for one in filled.get(need.role, ()):
            yield f"--{option}={_name(one.node, ids)}{only.get((need.role, one.node), '')}"
    for omitted in node.omitted:
        yield f"--left-out={omitted.address}: {' '.join(omitted.reason.split())}"
    yield from _reasons(graph, node, ids)
    for given in node.given:
        if isinstance(given, Node):
            yield f"{_name(given, ids)}{only.get((node.role, given), '')}"
        else:
            yield given.address


# Of a product of many what is yet to be made may fail: the frame is then left out, with all that belongs to it.


def _may_lack(graph: Graph, node: Node) -> bool:
    return node.is_of_products and not graph.view.complete


def each_with(node: Node) -> Iterator[tuple[Node, str, Node]]:
    """Each of the products that a node is given, with the nodes that belong to it and their roles; itself first."""
    each: dict[Node, list[Filled]] = {}
    for filled in _filled(node):
        if filled.frame is not None:
            each.setdefault(filled.frame, []).append(filled)
    for one in node.given:
        if isinstance(one, Node):
            yield one, node.role, one
            yield from ((one, filled.need.role, filled.node) for filled in each.get(one, ()))


def spared(node: Node) -> set[str]:
    """The roles that may be empty for some of the products that a node is given: these are not left out for it."""
    return {filled.need.role for filled in _filled(node) if filled.need.some}


def _awaited(graph: Graph, node: Node, ids: Mapping[int, str]) -> dict[Node, list[str]]:
    """The orders that each of the products that a node is given waits for, in itself or in what belongs to it."""
    found: dict[Node, list[str]] = {}
    for frame, role, one in each_with(node) if _may_lack(graph, node) else ():
        if id(one) in ids and role not in spared(node):
            found.setdefault(frame, []).append(ids[id(one)])
    return found


def _conditions(graph: Graph, node: Node, ids: Mapping[int, str]) -> dict[tuple[str, Node], str]:
    """By role and node what says of an argument that it is there only if all of its frame was made."""
    awaited = _awaited(graph, node, ids)
    found = {}
    for frame, role, one in each_with(node) if _may_lack(graph, node) else ():
        names = list(awaited.get(frame, ()))
        if role in spared(node) and id(one) in ids:
            names.append(ids[id(one)])
        if names:
            found[role, one] = only_if(names)
    return found


def _reasons(graph: Graph, node: Node, ids: Mapping[int, str]) -> Iterator[str]:
    for frame, names in _awaited(graph, node, ids).items():
        yield f"--left-out={address_of(frame)}: {why_not(names)}"


def _name(node: Node, ids: Mapping[int, str]) -> str:
    """How a command line names a product: its path, or that which the node will print."""
    if id(node) in ids:
        return f"@{{{ids[id(node)]}}}"
    assert node.item is not None
    return node.item.address


def _parameters(kind: Kind, given: Mapping[str, object]) -> Iterator[str]:
    for one in params_of(kind.params):
        if one.name not in given:
            continue
        if one.type is bool:
            yield one.option if given[one.name] else f"--no-{one.option.removeprefix('--')}"
        else:
            yield f"{one.option}={given[one.name]}"


def _filled(node: Node) -> Sequence[Filled]:
    return node.supply.filled if node.supply else ()


def _output(graph: Graph, node: Node) -> str:
    """Where a product will be: with a star for the key where that is known only when it is made."""
    one_frame = not node.kind.primary.many
    path = default_path(graph.workspace.stores[0], node.kind.name, node.named(), node.key or "*", one_frame)
    return str(path)


def output_of(graph: Graph, node: Node) -> str:
    """The path of a node's product: where it is, or where it will be."""
    if node.state not in TO_MAKE and node.item is not None:
        return node.item.address
    return _output(graph, node)


class _Expected:
    """What nodes will take: as the last product of the kind did, else from the size of the input."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.known: dict[str, tuple[float, int] | None] = {}

    def of(self, node: Node) -> tuple[float, int]:
        """Seconds and megabytes."""
        if node.kind.name not in self.known:
            self.known[node.kind.name] = self._last(node)
        last = self.known[node.kind.name]
        sizes = [one.bytes for one in node.raws] or [one.item.bytes for _, one in node.needs() if one.item]
        if last is not None:
            each_s, memory_mb = last
            return round(each_s * max(1, len(node.given)), 3), memory_mb
        largest_mb, total_mb = max(sizes, default=0) / 1e6, sum(sizes) / 1e6
        expected_mb = FIRST_MB + MB_A_FRAME * largest_mb + min(total_mb, STRIPS_MB) * node.kind.primary.many
        return round(FIRST_SECONDS + SECONDS_A_GB * total_mb / 1e3, 3), int(expected_mb)

    def _last(self, node: Node) -> tuple[float, int] | None:
        with suppress(AweError, KeyError, TypeError, OverflowError):
            versions = self.graph.nodes.versions(node) or self.graph.nodes.newest(node)
            if versions:
                record = self.graph.stock.record(versions[-1])
                given = [one for one in record["recipe"]["inputs"] if one["role"] == node.role]
                run = record["run"]
                seconds, memory_mb = run["wall_s"] / max(1, len(given)), run["peak_memory_bytes"] / 1e6
                # A record may say anything.
                if 0 <= seconds < MOST_SECONDS and 0 <= memory_mb < MOST_MB:
                    return seconds, int(memory_mb)
        return None


# What failed before


def read_failures(stores: Sequence[Store]) -> dict[str, str]:
    """Recipe keys that this version of awetools failed to make, with the reason."""
    from ... import __version__

    found: dict[str, str] = {}
    for store in stores[:1]:
        with suppress(OSError):
            for path in sorted(filter(Path.is_file, _folder(store).glob("*.json"))):
                with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
                    failure: dict[str, Any] = json.loads(path.read_bytes())
                    if failure["awetools"] == __version__:
                        found[str(failure["recipe_key"])] = str(failure["error"])
    return found


def remember_failure(store: Store, key: str, error: str) -> None:
    """Note that a product could not be made, so that asking again does not try in vain. Raises Unavailable."""
    from ... import __version__

    try:
        _folder(store).mkdir(exist_ok=True)
    except OSError as error_:
        raise Unavailable(f"{_folder(store)}: {error_.strerror}") from None
    about = {"recipe_key": key, "error": error, "awetools": __version__}
    write_whole(_folder(store) / f"{key}.json", (json.dumps(about) + "\n").encode())


def forget_failure(store: Store, key: str) -> None:
    """Take a note of a failure back."""
    with suppress(OSError):
        (_folder(store) / f"{key}.json").unlink(missing_ok=True)


def _folder(store: Store) -> Path:
    return store.awe / "failed"
