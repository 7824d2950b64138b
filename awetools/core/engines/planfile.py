"""A plan on disk: a directory with one node a line, which any engine can run without index or store.

`PLANDIR/plan.jsonl` has the nodes and `PLANDIR/run.json` where and with what
environment they run; what became of a node is in `state/ID.json` (states.py),
what it said in `log/ID.log`.

An argument `@{ID}`, or `--role=@{ID}`, stands for the path that node ID prints:
the name of a product holds its key, which is only known when it is made.

An argument that ends in `@{?ID,ID}` is there only if all of these nodes were made
and can be used; one that ends in `@{!ID,ID}` only if one was not, of which the reason
takes its place. So a product of many frames is made without those that failed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import BadValue, NoSuchFile, Unavailable, UnknownName, Unreadable, nearest
from ..files import write_whole
from ..shape import NUMBER, Each, Maybe, faults

SCHEMA_VERSION = 1
PLAN_NAME, RUN_NAME = "plan.jsonl", "run.json"
ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
REFERENCE = re.compile(
    r"(?P<option>--[A-Za-z0-9][A-Za-z0-9_-]*=)?@\{(?P<id>[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})\}"
)
_CONDITION = re.compile(
    r"(?s)(?P<text>.*)@\{(?P<sign>[?!])(?P<ids>[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}(?:,[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})*)\}"
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LINE_ID = re.compile(rb'\s*\{\s*"id"\s*:\s*"([A-Za-z0-9_.-]*)"\s*,')
_NODE = {
    "id": str,
    "argv": [str],
    "inputs?": [str],
    "outputs?": [str],
    "needs?": [str],
    "wants?": [str],
    "cpus?": int,
    "memory_mb?": int,
    "seconds?": NUMBER,
    "retries?": int,
    "timeout_s?": Maybe(NUMBER),
}
_TYPES: dict[str, tuple[type, ...]] = {
    "id": (str,),
    **dict.fromkeys(("argv", "inputs", "outputs", "needs", "wants"), (list,)),
    **dict.fromkeys(("cpus", "memory_mb", "retries"), (int,)),
    "seconds": (int, float),
    "timeout_s": (int, float, type(None)),
}
_RUN = {"schema": int, "root": str, "environment?": Each(str), "argv?": [str]}


@dataclass(frozen=True)
class Node:
    """One command line of a plan.

    `needs` must be done before it; `wants` are waited for and may fail. `cpus`
    and `memory_mb` are reserved for it, `seconds` is what it is expected to take.
    """

    id: str
    argv: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()
    cpus: int = 1
    memory_mb: int = 0
    seconds: float = 0.0
    retries: int = 0
    timeout_s: float | None = None

    @property
    def before(self) -> tuple[str, ...]:
        """The nodes that it waits for."""
        return (*self.needs, *self.wants)


@dataclass(frozen=True)
class RunPlan:
    """Nodes, the directory of their plan, and the working directory and environment that they run in."""

    directory: Path
    root: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    nodes: tuple[Node, ...] = ()
    argv: tuple[str, ...] = ()

    def state_path(self, node: str) -> Path:
        """Where it is written what became of a node."""
        return Path(f"{self.directory}/state/{node}.json")

    def log_path(self, node: str) -> Path:
        """Where it is written what a node said."""
        return Path(f"{self.directory}/log/{node}.log")

    @property
    def lock_path(self) -> Path:
        """The file on which a running node holds a lock, a byte each."""
        return self.directory / "lock"


@dataclass(frozen=True)
class Conditional:
    """An argument that is there only on a condition: that nodes were made, or (for their reason) that one was not."""

    text: str
    ids: tuple[str, ...]
    for_reason: bool

    @property
    def is_name(self) -> bool:
        """Whether it names what a command is given, rather than an option."""
        return not self.text.startswith("-")


def conditional(argument: str) -> Conditional | None:
    """The condition of an argument; None for one that is always there."""
    match = _CONDITION.fullmatch(argument) if "@{" in argument else None
    return match and Conditional(match["text"], tuple(match["ids"].split(",")), match["sign"] == "!")


def only_if(ids: Iterable[str]) -> str:
    """The end of an argument that is there only if these nodes were made."""
    return f"@{{?{','.join(ids)}}}"


def why_not(ids: Iterable[str]) -> str:
    """The end of an argument that is there only if one of these nodes was not made, and then says why."""
    return f"@{{!{','.join(ids)}}}"


def write_plan(plan: RunPlan) -> None:
    """Check a plan and write its directory; states and logs that are there stay.

    Raises what `check_nodes` raises, and Unavailable.
    """
    check_nodes(plan.nodes)
    _check_environment(plan.environment, str(plan.directory))
    run = {
        "schema": SCHEMA_VERSION,
        "root": str(plan.root.absolute()),
        "environment": dict(plan.environment),
        "argv": list(plan.argv),
    }
    try:
        for name in ("state", "log"):
            (plan.directory / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"{error.filename}: {error.strerror}") from None
    write_whole(plan.directory / PLAN_NAME, lines_of(plan.nodes).encode())
    write_whole(plan.directory / RUN_NAME, (json.dumps(run, indent=1) + "\n").encode())


def lines_of(nodes: Iterable[Node]) -> str:
    """The nodes as JSON, one a line."""
    return "".join(json.dumps(vars(node), separators=(",", ":")) + "\n" for node in nodes)


def read_plan(path: Path, only: Collection[str] | None = None) -> RunPlan:
    """Read the plan of a directory, or of its plan.jsonl.

    only: the nodes wanted; the others are passed over, which is quick in a large plan,
    and what hangs together is then not checked. Raises NoSuchFile, Unreadable
    (naming the line), UnknownName for a node that is not in it, and what
    `check_nodes` raises.
    """
    directory = path if path.is_dir() else path.parent
    lines = _read(path / PLAN_NAME if path.is_dir() else path).split(b"\n")
    run = _read_run(directory / RUN_NAME)
    nodes = tuple(_nodes(lines, path, only))
    if only is None:
        check_nodes(nodes, str(path))
    else:
        _check_ids(nodes, str(path))
        _refuse_absent(only, lines, nodes, path)
    return RunPlan(
        directory.absolute(), Path(run["root"]), run.get("environment", {}), nodes, tuple(run.get("argv", ()))
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise NoSuchFile(f"{path}: no such plan") from None
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from None


def _read_run(path: Path) -> dict[str, Any]:
    run = _json(_read(path), _RUN, str(path))
    if run["schema"] != SCHEMA_VERSION:
        raise Unreadable(
            f"{path}: schema version {run['schema']}; this awetools reads version {SCHEMA_VERSION}",
            hint="run the plan with the awetools that wrote it",
        )
    _check_environment(run.get("environment", {}), str(path))
    return run


def _json(text: bytes, shape: Mapping[str, Any], where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{where}: not JSON ({error})") from None
    problem = next(faults(value, shape, ""), "")
    if problem:
        raise Unreadable(f"{where}: {problem}")
    return dict(value)


def _nodes(lines: Sequence[bytes], path: Path, only: Collection[str] | None) -> Iterator[Node]:
    wanted = None if only is None else {name.encode() for name in only}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if wanted is not None and (match := _LINE_ID.match(line)) and match[1] not in wanted:
            continue
        node = _node(line, f"{path}: line {number}")
        if only is None or node.id in only:
            yield node


def _node(line: bytes, where: str) -> Node:
    value = _quick(line)
    if value is None:
        value = _json(line, _NODE, where)
    names = [name for name in value if f"{name}?" not in _NODE and name not in _NODE]
    if names:
        known = [name.removesuffix("?") for name in _NODE]
        raise Unreadable(f"{where}: a node has no {names[0]!r}{nearest(names[0], known)}")
    fields: dict[str, Any] = {
        name: tuple(one) if isinstance(one, list) else one for name, one in value.items()
    }
    return Node(**fields)


def _quick(line: bytes) -> dict[str, Any] | None:
    """The object of a line that is all right as it stands; None for any other, which is then looked at closely."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not {"id", "argv"} <= value.keys():
        return None
    for name, one in value.items():
        if type(one) not in _TYPES.get(name, ()):
            return None
        if type(one) is list and not all(type(text) is str for text in one):
            return None
    return value


def _refuse_absent(only: Collection[str], lines: Sequence[bytes], nodes: Sequence[Node], path: Path) -> None:
    there = {node.id for node in nodes}
    absent = [name for name in only if name not in there]
    if absent:
        names = [match[1].decode() for line in lines if (match := _LINE_ID.match(line))]
        raise UnknownName(f"{path}: has no node {absent[0]!r}{nearest(absent[0], names[:1000])}")


# Checks


def check_nodes(nodes: Sequence[Node], where: str = "the plan") -> None:
    """Refuse what cannot be run: an id twice, a need that is not there, a cycle, an output of two nodes.

    where: what the message names. Raises BadValue or UnknownName.
    """
    _check_ids(nodes, where)
    known = {node.id for node in nodes}
    makers: dict[str, str] = {}
    for node in nodes:
        for name in node.before:
            if name not in known:
                raise UnknownName(
                    f"{where}: node {node.id} needs {name!r}, which is not in it{nearest(name, sorted(known)[:1000])}"
                )
        for output in node.outputs:
            other = makers.setdefault(output, node.id)
            if other != node.id:
                raise BadValue(f"{where}: nodes {other} and {node.id} would both write {output}")
    _refuse_cycle(nodes, where)


def _check_ids(nodes: Sequence[Node], where: str) -> None:
    seen = set()
    for node in nodes:
        if not ID.fullmatch(node.id):
            raise BadValue(
                f"{where}: node id {node.id!r} is not 1 to 64 letters, digits, '_', '-', '.', "
                "of which the first is a letter, digit or '_'"
            )
        if node.id in seen:
            raise BadValue(f"{where}: there are two nodes {node.id}")
        seen.add(node.id)
        _check_node(node, f"{where}: node {node.id}")


def _check_node(node: Node, where: str) -> None:
    if not node.argv or not node.argv[0]:
        raise BadValue(f"{where}: argv names no program")
    if any("\0" in one for one in (*node.argv, *node.outputs, *node.inputs)):
        raise BadValue(f"{where}: an argument or file name holds a NUL character")
    low = {"cpus": 1, "memory_mb": 0, "seconds": 0, "retries": 0}
    for name, bound in low.items():
        if not bound <= getattr(node, name) < float("inf"):
            raise BadValue(f"{where}: {name} = {getattr(node, name)} is below {bound} or not finite")
    if node.timeout_s is not None and not 0 < node.timeout_s < float("inf"):
        raise BadValue(f"{where}: timeout_s = {node.timeout_s} is not above 0 and finite")
    both = set(node.needs) & set(node.wants)
    if both:
        raise BadValue(f"{where}: both needs and wants {min(both)}")
    for argument in node.argv:
        _check_reference(node, argument, where)


def _check_reference(node: Node, argument: str, where: str) -> None:
    condition = conditional(argument)
    for one in condition.ids if condition else ():
        if one not in node.before:
            raise BadValue(f"{where}: {argument} is of a node that it neither needs nor wants")
    match = REFERENCE.fullmatch(condition.text if condition else argument)
    if match is None or match["id"] in node.needs:
        return
    if match["id"] not in node.wants:
        raise BadValue(f"{where}: {argument} is of a node that it neither needs nor wants")
    if match["option"] is None and not (condition and match["id"] in condition.ids):
        raise BadValue(f"{where}: {argument} is of a node that may fail, so it must read --ROLE={argument}")


def _check_environment(environment: Mapping[str, str], where: str) -> None:
    for name, value in environment.items():
        if not _VARIABLE.fullmatch(name) or "\0" in value:
            raise BadValue(f"{where}: environment: {name!r} = {value!r} cannot be set")


def _refuse_cycle(nodes: Sequence[Node], where: str) -> None:
    ordered = {node.id for node in in_order(nodes)}
    if len(ordered) < len(nodes):
        cycle = _cycle_among({node.id: node for node in nodes if node.id not in ordered})
        shown = cycle if len(cycle) <= 10 else [*cycle[:8], "...", cycle[-1]]
        raise BadValue(f"{where}: a cycle of nodes that wait for each other: {' -> '.join(shown)}")


def _cycle_among(nodes: Mapping[str, Node]) -> list[str]:
    """One cycle among nodes that each wait for another of them; it begins and ends with the same node."""
    path: dict[str, None] = {}
    name = next(iter(nodes))
    while name not in path:
        path[name] = None
        name = next(one for one in nodes[name].before if one in nodes)
    names = list(path)
    return [*names[names.index(name) :], name]


def in_order(nodes: Sequence[Node]) -> list[Node]:
    """The nodes, each after those that it waits for; without those of a cycle and what hangs on it."""
    known = {node.id: node for node in nodes}
    left = {node.id: len(set(node.before)) for node in nodes}
    after = followers(nodes)
    ready = [node for node in nodes if not left[node.id]]
    for node in ready:
        for name in after.get(node.id, ()):
            left[name] -= 1
            if not left[name]:
                ready.append(known[name])
    return ready


def followers(nodes: Iterable[Node]) -> dict[str, list[str]]:
    """For each node that others wait for, those others."""
    found: dict[str, list[str]] = {}
    for node in nodes:
        for name in dict.fromkeys(node.before):
            found.setdefault(name, []).append(node.id)
    return found
