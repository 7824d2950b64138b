"""Which products are asked for: a kind with conditions, a product by its name, or raw frames to make a kind of."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..errors import AweError, NoMatch, NoSuchFile, UnknownName, UsageError
from ..expressions.absent import absent
from ..expressions.expression import Node as Condition
from ..expressions.expression import parse_words
from ..files import parse_address
from ..indexing.stock import Item, Place
from ..kind import Kind, Need, kind_named
from ..products import is_product
from ..record import Record, read_record, sidecar
from .graph import Graph
from .nodes import Node, identity_of, place_of, raw_kinds

# A word with one of these is a file, also if there is none of that name.
FILE_ENDINGS = (".fits", ".fit", ".fts", ".fits.fz", ".fits.gz", ".fit.gz", ".fts.gz")


def targets_of(graph: Graph, kind: Kind, words: Sequence[str]) -> list[Node]:
    """The nodes of a kind that meet all conditions, in the order of their exposures.

    A word that names a file stands for what is made of that raw frame, or for that
    product. Raises NoMatch (with the nearest value), UnknownName, UsageError.
    """
    files = [word for word in words if _is_file(word)]
    conditions = [word for word in words if word not in files]
    condition = parse_words(conditions)
    if not files:
        found = _that_meet(graph, kind, condition)
    else:
        found = _of_files(graph, kind, files)
        if condition is not None:
            meeting = set(_that_meet(graph, kind, condition))
            found = [node for node in found if node in meeting]
    if not found:
        raise _nothing_to_make_of(graph, kind, words, condition)
    return sorted(found, key=_place_in_time)


def _place_in_time(node: Node) -> tuple[str, str]:
    first = node.given[0] if node.given else None
    return node.obs_start or "", first.address if isinstance(first, Item) else ""


def product_target(graph: Graph, path: Path) -> Node:
    """The node of a product that exists, or existed, at a path; raises NoMatch."""
    record = _record_at(graph, path)
    if record is None and (frames := graph.stock.at(os.path.realpath(path))):
        raise UsageError(
            f"{path}: is {frames[0].kind}, a raw frame: say what is to be made of it",
            hint=f"awe-make KIND {path}",
        )
    if record is None:
        raise NoMatch(
            f"{path}: nothing is known of such a product",
            hint="awe-make KIND CONDITIONS; awe-query KIND lists what there is",
        )
    kind = kind_named(graph.kinds, record["recipe"]["kind"])
    get = record["meta"].get
    node = graph.nodes.at(kind, place_of(kind, get)).get(identity_of(kind, get))
    if node is None:
        raise NoMatch(
            f"{path}: the frames that it was made of are not registered here",
            hint=f"awe-lineage {path} names them; awe-ingest registers them",
        )
    return node


def outdated_targets(graph: Graph, kinds: Iterable[Kind], words: Sequence[str]) -> list[Node]:
    """Of each kind the nodes of which a version exists, and that meet all conditions."""
    condition = parse_words(words)
    found: dict[Node, None] = {}
    for kind in kinds:
        for item in graph.stock.find([kind.name], condition):
            get = graph.stock.getter(item)
            node = graph.nodes.at(kind, place_of(kind, get)).get(identity_of(kind, get))
            if node is not None and node.given:
                found[node] = None
    return list(found)


def _is_file(word: str) -> bool:
    if os.path.lexists(word):
        return True
    if any(sign in word for sign in "=<>'\" "):
        return False
    return os.path.isfile(parse_address(word).path) or word.lower().endswith(FILE_ENDINGS)


def _that_meet(graph: Graph, kind: Kind, condition: Condition | None) -> list[Node]:
    try:
        frames = graph.stock.find(list(raw_kinds(kind, graph.kinds)), condition)
    except UnknownName as error:
        raise UnknownName(
            f"{error.message}; awe-make asks for what is known of raw frames",
            hint=f"awe-query {next(iter(raw_kinds(kind, graph.kinds)))} --fields",
        ) from None
    found = _made_of(graph, kind, frames)
    return found or [node for node in _that_exist(graph, kind, condition) if not node.given]


def _made_of(graph: Graph, kind: Kind, frames: Sequence[Item]) -> list[Node]:
    """The nodes of a kind that raw frames go into, as what the command is given."""
    need = kind.primary
    if need.kind.startswith("raw_") and not need.many:
        return _one_each(graph, kind, need, frames)
    if need.many and not need.kind.startswith("raw_"):
        return _of_many(graph, kind, need, frames)
    wanted = {frame.address for frame in frames}
    places = _places(graph, kind, frames)
    nodes = [node for place in places for node in graph.nodes.at(kind, place).values()]
    return [node for node in nodes if any(frame.address in wanted for frame in _frames_of(node))]


def _of_many(graph: Graph, kind: Kind, need: Need, frames: Sequence[Item]) -> list[Node]:
    """The nodes made of all products of these frames together: those that agree in the kind's keys make one."""
    groups: dict[str, list[Node]] = {}
    for node in _made_of(graph, kind_named(graph.kinds, need.kind), frames):
        key = repr([node.get(name) for name in (*kind.match, *kind.group)])
        groups.setdefault(key, []).append(node)
    return [graph.nodes.node_of_products(kind, need, group) for group in groups.values()]


def _one_each(graph: Graph, kind: Kind, need: Need, frames: Sequence[Item]) -> list[Node]:
    good = {frame.content: frame for frame in reversed(frames) if graph.stock.verdict(frame) != "bad"}
    return [graph.nodes.node_of_frames(kind, need, [frame]) for frame in reversed(good.values())]


def _that_exist(graph: Graph, kind: Kind, condition: Condition | None) -> Iterator[Node]:
    places = _places(graph, kind, graph.stock.find([kind.name], condition))
    for place in places:
        yield from graph.nodes.at(kind, place).values()


def _places(graph: Graph, kind: Kind, items: Sequence[Item]) -> Iterable[Place]:
    return dict.fromkeys(place_of(kind, graph.stock.getter(item)) for item in items)


def _frames_of(node: Node) -> Iterator[Item]:
    for one in node.given:
        if isinstance(one, Node):
            yield from _frames_of(one)
        else:
            yield one


def _of_files(graph: Graph, kind: Kind, files: Sequence[str]) -> list[Node]:
    found: dict[Node, None] = {}
    for name in files:
        address = parse_address(name)
        if is_product(address.path):
            node = product_target(graph, address.path)
            if node.kind is not kind:
                raise UsageError(f"{name}: is a {node.kind.name}, not a {kind.name}", hint=f"awe-make {name}")
            found[node] = None
            continue
        real = os.path.realpath(address.path)
        frames = graph.stock.at(real)
        if address.detector is not None:
            frames = [frame for frame in frames if graph.stock.setup(frame)["detector"] == address.detector]
        if not frames and not os.path.lexists(address.path):
            raise NoSuchFile(f"{name}: there is no such file")
        if not frames:
            raise NoMatch(f"{name}: is not registered", hint=f"awe-ingest {name}")
        nodes = _made_of(graph, kind, frames)
        if not nodes:
            raise NoMatch(
                f"{name}: is {frames[0].kind}, of which no {kind.name} is made", hint=f"awe-header {name}"
            )
        found |= dict.fromkeys(nodes)
    return list(found)


def _record_at(graph: Graph, path: Path) -> Record | None:
    """The record beside a path, else one that was kept of a product of that name."""
    try:
        return read_record(sidecar(path))
    except AweError:
        pass
    for store in graph.workspace.stores:
        kept = sorted(
            store.records_path.glob(f"{_glob_name(path.name)}.*.json"), key=lambda one: one.stat().st_mtime_ns
        )
        for one in reversed(kept):
            try:
                return read_record(one)
            except AweError:
                continue
    return None


def _glob_name(name: str) -> str:
    import glob

    return glob.escape(name)


def _nothing_to_make_of(
    graph: Graph, kind: Kind, words: Sequence[str], condition: Condition | None
) -> NoMatch:
    """What to say where no raw frame meets the conditions: the value that is nearest, or those that there are."""
    kinds = list(dict.fromkeys(raw_kinds(kind, graph.kinds)))
    there = [name for name in kinds if graph.stock.distinct([name], "kind")]
    if not there:
        return NoMatch(
            f"nothing to make {kind.name} of: no {' or '.join(kinds)} is registered",
            hint="awe-ingest FILES; awe-query raw --get path,frame_type --format table shows what is",
        )
    what = f" with {' '.join(words)}" if words else ""
    then = f" as of {graph.view.as_of[:16]}" if graph.view.as_of else ""
    missing = absent(condition, lambda name: graph.stock.distinct(there, name))
    return NoMatch(
        f"no frames{what} to make {kind.name} of{then}{missing}",
        hint=f"awe-query {there[0]} --get night,detector,filter,object --format table",
    )
