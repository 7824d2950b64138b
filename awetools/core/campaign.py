"""Ask for products: survey what there is, write the plan of what is to be made, and remember how it went."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from .engines.planfile import Node as Order
from .engines.planfile import RunPlan
from .engines.states import NodeState, exit_code_of
from .errors import AweError, BadValue, NoMatch, NoStore, UsageError, worst
from .graph import Graph, View
from .kind import Kind, kind_named
from .lookout import look_at
from .nodes import PENDING, Node, distances
from .orders import LASTING, forget_failure, in_order, orders_of, read_failures, remember_failure
from .targets import outdated_targets, product_target, targets_of
from .workspace import Workspace

# From so many targets on it pays to look at files in a process of its own.
MANY = 2000
SERIOUS = ("failed", "timeout", "killed")


@dataclass(frozen=True)
class Demand:
    """What was asked for: products of a kind with conditions, or what is outdated.

    kind: None for a product by its name, or with `outdated` for every kind. until: the
    chain is made only so far.
    """

    kind: Kind | None
    words: Sequence[str]
    outdated: bool = False
    until: Kind | None = None


@dataclass(frozen=True)
class Survey:
    """The targets with their states, and what is to be made for them, each after what it needs."""

    graph: Graph
    targets: Sequence[Node]
    to_make: Sequence[Node]

    @property
    def blocked(self) -> list[Node]:
        """The targets that cannot be made, or must not be used."""
        return [node for node in self.targets if node.state in ("blocked", "failed", "flagged")]


@dataclass(frozen=True)
class Campaign:
    """A survey with the plan of what is to be made.

    nodes: that of each order, by the order's id; needed: the orders that targets cannot do without.
    """

    survey: Survey
    plan: RunPlan
    nodes: Mapping[str, Node]
    needed: frozenset[str]


@dataclass(frozen=True)
class Outcome:
    """What became of a campaign: how each node ended, how many came to what, and the logs if they are kept."""

    by_node: Mapping[Node, NodeState]
    counts: Counter[str]
    exit_code: int
    directory: Path | None


def survey(demand: Demand, view: View, workspace: Workspace, kinds: Sequence[Kind]) -> Survey:
    """Find the targets and decide the state of each and of all that it needs.

    Raises NoStore, NoMatch, UnknownName, UsageError, BadValue.
    """
    if not workspace.stores:
        raise NoStore("there is no store here, and AWE_PATH names none", hint="awe-init, or AWE_PATH=DIR")
    check_kinds(kinds)
    graph, targets = _decided(demand, view, workspace, kinds)
    if demand.outdated:
        targets = [node for node in targets if node.state not in ("fresh", "unchecked")]
    if demand.until is not None:
        targets = _until(graph, targets, demand.until)
    return Survey(graph, targets, in_order(targets))


def _decided(
    demand: Demand, view: View, workspace: Workspace, kinds: Sequence[Kind]
) -> tuple[Graph, list[Node]]:
    failures = read_failures(workspace.stores)
    if view.only:
        # What hangs on what is seen by looking at everything; then all but the kinds asked for is taken as it is.
        _, targets = _decided(demand, replace(view, only=frozenset()), workspace, kinds)
        below = [node for node in everything_below(targets) if node.kind.name in view.only]
        if not below:
            raise _no_such(targets, f"--only {', '.join(sorted(view.only))}")
        graph = Graph(kinds, workspace, view, failures=failures)
        targets = [graph.nodes.same(node) for node in below]
    else:
        graph = Graph(kinds, workspace, view, failures=failures)
        targets = _targets(graph, demand)
    graph.depths = distances(kinds, [node.kind for node in targets])
    if len(targets) >= MANY:
        return _decided_by_two(graph, targets)
    for node in targets:
        graph.decide(node)
    return graph, targets


def _decided_by_two(graph: Graph, targets: Sequence[Node]) -> tuple[Graph, list[Node]]:
    """Decide many targets while another process looks at all files; where some changed, once more with care."""
    names = {raw for kind in graph.kinds if kind.name in graph.depths for raw in _raw_needs(kind)}
    lookout = look_at(graph.workspace.stores, [*graph.depths, *sorted(names)])
    # All files are taken to be as they were until it is known which are not.
    graph.suspects = frozenset()
    for node in targets:
        graph.decide(node)
    suspects = lookout.suspects()
    if suspects is not None and not suspects:
        return graph, list(targets)
    again = replace(graph, gone={}, changed={}, suspects=suspects)
    return again, [again.decide(again.nodes.again(node)) for node in targets]


def _raw_needs(kind: Kind) -> Iterator[str]:
    return (name for need in kind.needs for name in need.kinds if name.startswith("raw_"))


def _targets(graph: Graph, demand: Demand) -> list[Node]:
    if demand.outdated:
        return outdated_targets(graph, [demand.kind] if demand.kind else graph.kinds, demand.words)
    if demand.kind is not None:
        return targets_of(graph, demand.kind, demand.words)
    return list(dict.fromkeys(product_target(graph, Path(word)) for word in demand.words))


def _until(graph: Graph, targets: Sequence[Node], kind: Kind) -> list[Node]:
    """The nodes of a kind that some targets hang on."""
    found = [node for node in everything_below(targets) if node.kind.name == kind.name]
    if not found:
        raise _no_such(targets, f"--until {kind.name}")
    return found


def _no_such(targets: Sequence[Node], option: str) -> NoMatch:
    names = ", ".join(dict.fromkeys(node.kind.name for node in targets)) or "nothing"
    return NoMatch(f"{option}: no such kind is among what {names} needs", hint="--tree shows what is")


def everything_below(targets: Sequence[Node]) -> list[Node]:
    """Some nodes and all that they hang on, each once."""
    found: dict[Node, None] = {}
    waiting = list(reversed(targets))
    while waiting:
        node = waiting.pop()
        if node not in found:
            found[node] = None
            waiting += [one for _, one in node.needs()]
    return list(found)


def check_kinds(kinds: Sequence[Kind]) -> None:
    """Raise BadValue where two kinds claim one name, or the needs of kinds run in a circle."""
    for field_name in ("name", "command", "class_name"):
        counts = Counter(getattr(kind, field_name) for kind in kinds)
        twice = [value for value, count in counts.items() if count > 1]
        if twice:
            raise BadValue(f"two kinds claim the {field_name.replace('_', ' ')} {twice[0]!r}")
    done: set[str] = set()
    for kind in kinds:
        _refuse_circle(kind, kinds, [], done)


def _refuse_circle(kind: Kind, kinds: Sequence[Kind], path: list[str], done: set[str]) -> None:
    if kind.name in path:
        raise BadValue(
            f"the needs of kinds run in a circle: {' -> '.join([*path[path.index(kind.name) :], kind.name])}"
        )
    if kind.name in done:
        return
    for need in kind.needs:
        for name in need.kinds:
            if not name.startswith("raw_"):
                _refuse_circle(kind_named(kinds, name), kinds, [*path, kind.name], done)
    done.add(kind.name)


# Running


def campaign_of(
    found: Survey, argv: Sequence[str], timeout_s: float | None, directory: Path | None = None
) -> Campaign:
    """The plan of all that is to be made: run where the person is, with the stores that were read."""
    workspace = found.graph.workspace
    orders = orders_of(found.graph, found.to_make, timeout_s)
    stores = os.pathsep.join(str(store.root) for store in workspace.stores)
    plan = RunPlan(
        directory or _new_directory(workspace),
        workspace.start,
        {"AWE_PATH": stores},
        tuple(orders),
        tuple(argv),
    )
    nodes = {order.id: node for order, node in zip(orders, found.to_make, strict=True)}
    return Campaign(found, plan, nodes, _needed(orders, nodes, set(found.targets)))


def _needed(orders: Sequence[Order], nodes: Mapping[str, Node], targets: Collection[Node]) -> frozenset[str]:
    """The orders of some targets, and all that these cannot do without."""
    needs = {order.id: order.needs for order in orders}
    found = {order.id for order in orders if nodes[order.id] in targets}
    waiting = list(found)
    while waiting:
        more = [one for one in needs[waiting.pop()] if one not in found]
        found.update(more)
        waiting += more
    return frozenset(found)


def _new_directory(workspace: Workspace) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    return workspace.stores[0].awe / "runs" / f"{stamp}-{os.getpid()}"


def conclude(campaign: Campaign, states: Mapping[str, NodeState], keep: bool) -> Outcome:
    """Remember what failed for good, and drop the plan's directory if all went well."""
    found, nodes = campaign.survey, campaign.nodes
    store = found.graph.workspace.stores[0]
    failed = {
        name: state for name, state in states.items() if state.status == "failed" and state.code in LASTING
    }
    for name, key in _keys_of(found, {name: nodes[name] for name in failed}):
        remember_failure(store, key, failed[name].error.strip())
    if found.graph.view.retry:
        for state in states.values():
            if state.status == "done":
                forget_failure(store, state.recipe_key)
    directory: Path | None = campaign.plan.directory
    if not keep and all(state.status == "done" for state in states.values()):
        _drop(campaign.plan.directory)
        directory = None
    by_node = {nodes[name]: state for name, state in states.items()}
    # What nothing asked for hangs on is gone without.
    code = worst([exit_code_of(state) for name, state in states.items() if name in campaign.needed])
    return Outcome(by_node, Counter(_word(state) for state in states.values()), code, directory)


def _drop(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    with suppress(OSError):
        directory.parent.rmdir()


def _word(state: NodeState) -> str:
    if state.status != "done":
        return "failed" if state.status in SERIOUS else state.status
    return "up to date" if state.action == "up-to-date" else "made"


def _keys_of(found: Survey, failed: Mapping[str, Node]) -> Iterator[tuple[str, str]]:
    """The keys of nodes that failed: of those whose inputs were made meanwhile, found by looking again."""
    again: Graph | None = None
    for name, node in failed.items():
        if node.key:
            yield name, node.key
            continue
        graph = found.graph
        again = again or Graph(graph.kinds, graph.workspace, graph.view)
        with suppress(AweError):
            same = again.nodes.same(node)
            if same is not node and again.decide(same).key:
                yield name, same.key


def refuse_nothing(demand: Demand) -> None:
    """Raise UsageError where nothing at all was asked for."""
    if demand.kind is None and not demand.words and not demand.outdated:
        raise UsageError(
            "say what is to be made: a KIND with conditions, or a product's file name",
            hint="awe-make reduced night=2017-03-02, or awe-make --outdated",
        )


def states_of(targets: Sequence[Node]) -> Counter[str]:
    """How many nodes are in which state."""
    return Counter("to be made" if node.state in PENDING else node.state for node in targets)
