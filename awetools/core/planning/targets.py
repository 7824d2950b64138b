"""Which products are asked for: a kind with conditions, a product by its name, or raw frames to make a kind of."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import AweError, NoMatch, NoRecord, NoSuchFile, UnknownName, UsageError
from ..expressions.absent import absent
from ..expressions.expression import Node as Condition
from ..expressions.expression import parse_words
from ..files import parse_address
from ..gridstore import AUTO, PARAMETER, grid_meant, near_place
from ..indexing.stock import Item, Place
from ..kind import Kind, Need, kind_named
from ..products import is_product
from ..record import Record, read_record, sidecar
from ..store import Store
from .graph import Graph
from .nodes import ALIKE, Node, Omitted, identity_of, label, place_of, raw_kinds, share

# What a frame is known by, and where a parameter came from that a person gave.
FRAME, BY_HAND = ("instrument", "detector", "exposure"), "command line"
# How far from where its header says a frame may point.
POINTING_DEG = 0.25
# A word with one of these is a file, also if there is none of that name.
FILE_ENDINGS = (".fits", ".fit", ".fts", ".fits.fz", ".fits.gz", ".fit.gz", ".fts.gz")


def targets_of(graph: Graph, kind: Kind, words: Sequence[str], each: Sequence[str] = ()) -> list[Node]:
    """The nodes of a kind that meet all conditions, in the order of their exposures.

    A word that names a file stands for what is made of that raw frame, or for that
    product. each: fields, of each of whose values many frames make a product. Raises
    NoMatch (with the nearest value), UnknownName, UsageError.
    """
    files = [word for word in words if _is_file(word)]
    conditions = [word for word in words if word not in files]
    condition = parse_words(conditions)
    if not files:
        found = _that_meet(graph, kind, condition, each)
    else:
        found = _of_files(graph, kind, files, condition, each)
        if condition is not None and not _is_of_many_products(kind):
            meeting = set(_that_meet(graph, kind, condition, each))
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
    node = _of_record(graph, kind, record) if _is_of_many_products(kind) else None
    node = node or graph.nodes.at(kind, place_of(kind, get)).get(identity_of(kind, get))
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
        items = graph.stock.find([kind.name], condition)
        if _is_of_many_products(kind):
            found |= dict.fromkeys(_newest_of_many(graph, kind, items))
            continue
        for item in items:
            get = graph.stock.getter(item)
            node = graph.nodes.at(kind, place_of(kind, get)).get(identity_of(kind, get))
            if node is not None and node.given:
                found[node] = None
    return list(found)


def on_tiles(graph: Graph, found: Sequence[Node], tiles: Sequence[str]) -> list[Node]:
    """For each product of many, one on each of the tiles that its frames may touch, by where they point."""
    texts = [(name, grid_meant(name, graph.workspace.stores)[0]) for name in tiles]
    made: dict[Node, None] = {}
    for node in found:
        given = [one for one in node.given if isinstance(one, Node)]
        near: dict[str, None] = {}
        for ra, dec, reach_deg in {place for one in given if (place := _pointing(one))}:
            near |= dict.fromkeys(name for name, _ in near_place(texts, ra, dec, reach_deg))
        if not near:
            raise NoMatch(
                f"{label(node)}: no frame points to where one of the {len(tiles)} tiles is",
                hint="awe-grid which FILE, and then --grid NAME/TILE",
            )
        need = node.kind.need(node.role)
        for name in sorted(near):
            each = graph.nodes.node_of_products(
                node.kind, need, given, {**node.setting.asked, PARAMETER: name}
            )
            each.omitted = list(node.omitted)
            made[each] = None
    return list(made)


def _pointing(node: Node) -> tuple[float, float, float] | None:
    """Where a frame points, in coarse steps, and how far from there its pixels may be."""
    ra, dec, scale = (node.get(name) for name in ("ra_deg", "dec_deg", "pixel_scale_arcsec"))
    if ra is None or dec is None:
        return None
    half_deg = (scale or 0.0) * ((node.get("nx") or 0) + (node.get("ny") or 0)) / 7200
    return round(ra * 10) / 10, round(dec * 10) / 10, round(POINTING_DEG + half_deg, 1)


def _newest_of_many(graph: Graph, kind: Kind, items: Iterable[Item]) -> Iterator[Node]:
    """The nodes of products of many; not of one that another followed, asked for alike of most of its frames."""
    followers: list[tuple[str, set[Node]]] = []
    for item in sorted(items, key=lambda one: (-one.rank, one.sequence or 0), reverse=True):
        if item.is_removed or graph.stock.verdict(item) == "bad":
            continue
        try:
            node = _of_record(graph, kind, graph.stock.record(item))
        except NoRecord:
            continue
        if node is None:
            continue
        asked = repr(sorted(node.setting.asked.items()))
        frames = {one for one in node.given if isinstance(one, Node)}
        if not any(asked == other and share(frames, others) >= ALIKE for other, others in followers):
            yield node
        followers.append((asked, frames))


def _of_record(graph: Graph, kind: Kind, record: Record) -> Node | None:
    """The node of a product of many, of the frames that it was made of or would have been, asked for as it was.

    None where not all of them are registered here.
    """
    recipe = record["recipe"]
    given = [one for one in recipe["inputs"] if one["role"] == kind.primary.role]
    if any(one["kind"] not in kind.primary.kinds for one in given):
        # What is made of what only a person gives is taken as it is.
        return None
    inputs = [one["meta"] for one in given]
    wanted = {tuple(one.get(name) for name in FRAME) for one in inputs}
    frames = []
    for frame in graph.stock.find(list(raw_kinds(kind, graph.kinds)), None):
        get = graph.stock.getter(frame)
        if tuple(get(name) for name in FRAME) in wanted:
            frames.append(frame)
    left_out = [one for each in recipe.get("left_out", ()) for one in graph.stock.at(each["path"])]
    asked = {
        name: one["value"]
        for name, one in recipe["parameters"].items()
        if one["origin"] == BY_HAND or (name == PARAMETER and one["value"] != AUTO)
    }
    if PARAMETER in asked:
        asked[PARAMETER] = _named_again(str(asked[PARAMETER]), record["meta"], graph.workspace.stores)
    found = _of_many(graph, kind, kind.primary, list(dict.fromkeys([*frames, *left_out])), (), asked)
    whole = found and len(found[0].given) + len(found[0].omitted) >= len(wanted)
    return found[0] if len(found) == 1 and whole else None


def _named_again(text: str, meta: Mapping[str, Any], stores: Sequence[Store]) -> str:
    """The name of the grid that a product is on, where the name still means that grid; else the text of the grid."""
    name = "/".join(str(meta[one]) for one in ("grid", "tile") if meta.get(one))
    with suppress(AweError):
        if name and grid_meant(name, stores)[0] == text:
            return name
    return text


def _is_file(word: str) -> bool:
    if os.path.lexists(word):
        return True
    if any(sign in word for sign in "=<>'\" "):
        return False
    return os.path.isfile(parse_address(word).path) or word.lower().endswith(FILE_ENDINGS)


def _that_meet(graph: Graph, kind: Kind, condition: Condition | None, each: Sequence[str] = ()) -> list[Node]:
    try:
        frames = graph.stock.find(list(raw_kinds(kind, graph.kinds)), condition)
    except UnknownName as error:
        raise UnknownName(
            f"{error.message}; awe-make asks for what is known of raw frames",
            hint=f"awe-query {next(iter(raw_kinds(kind, graph.kinds)))} --fields",
        ) from None
    found = _made_of(graph, kind, frames, each)
    return found or [node for node in _that_exist(graph, kind, condition) if not node.given]


def _made_of(graph: Graph, kind: Kind, frames: Sequence[Item], each: Sequence[str] = ()) -> list[Node]:
    """The nodes of a kind that raw frames go into, as what the command is given."""
    need = kind.primary
    if need.kind.startswith("raw_") and not need.many:
        return _one_each(graph, kind, need, frames)
    if _is_of_many_products(kind):
        return _of_many(graph, kind, need, frames, each)
    wanted = {frame.address for frame in frames}
    places = _places(graph, kind, frames)
    nodes = [node for place in places for node in graph.nodes.at(kind, place).values()]
    return [node for node in nodes if any(frame.address in wanted for frame in _frames_of(node))]


def _of_many(
    graph: Graph,
    kind: Kind,
    need: Need,
    frames: Sequence[Item],
    each: Sequence[str],
    asked: Mapping[str, object] | None = None,
) -> list[Node]:
    """The nodes made of all products of these frames together: those that agree in the kind's keys make one."""
    names = dict.fromkeys((*kind.match, *kind.group, *each))
    groups: dict[str, list[Node]] = {}
    for node in _made_of(graph, kind_named(graph.kinds, need.kind), frames):
        groups.setdefault(repr([node.get(name) for name in names]), []).append(node)
    found = {key: graph.nodes.node_of_products(kind, need, group, asked) for key, group in groups.items()}
    for frame in frames:
        if graph.stock.verdict(frame) == "bad":
            get = graph.stock.getter(frame)
            made = found.get(repr([get(name) for name in names]))
            bad = Omitted(frame.address, "it was judged bad", by_design=True)
            if made is not None and bad not in made.omitted:
                made.omitted.append(bad)
    return list(found.values())


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


def _is_of_many_products(kind: Kind) -> bool:
    return kind.primary.many and not kind.primary.kind.startswith("raw_")


def _of_files(
    graph: Graph, kind: Kind, files: Sequence[str], condition: Condition | None, each: Sequence[str]
) -> list[Node]:
    found: dict[Node, None] = {}
    # Of many frames together one product is made, not one of each.
    together: dict[str, Item] = {}
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
        if nodes and _is_of_many_products(kind):
            together |= {frame.address: frame for frame in frames}
            continue
        if not nodes:
            raise NoMatch(
                f"{name}: is {frames[0].kind}, of which no {kind.name} is made", hint=f"awe-header {name}"
            )
        found |= dict.fromkeys(nodes)
    if together and condition is not None:
        meeting = {frame.address for frame in graph.stock.find(list(raw_kinds(kind, graph.kinds)), condition)}
        together = {address: frame for address, frame in together.items() if address in meeting}
    if together:
        found |= dict.fromkeys(_made_of(graph, kind, list(together.values()), each))
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
        given = kind.primary.kind
        imported = f"awe-query {given} | {kind.command}, for what was imported; " * bool(
            graph.stock.distinct([given], "kind")
        )
        return NoMatch(
            f"nothing to make {kind.name} of: no {' or '.join(kinds)} is registered",
            hint=f"{imported}awe-ingest FILES; awe-query raw --get path,frame_type --format table shows what is",
        )
    what = f" with {' '.join(words)}" if words else ""
    then = f" as of {graph.view.as_of[:16]}" if graph.view.as_of else ""
    missing = absent(condition, lambda name: graph.stock.distinct(there, name))
    return NoMatch(
        f"no frames{what} to make {kind.name} of{then}{missing}",
        hint=f"awe-query {there[0]} --get night,detector,filter,object --format table",
    )
