"""Ask for products: survey what there is, write the plan of what is to be made, and remember how it went."""

from __future__ import annotations

import os
import shlex
import shutil
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from ..engines.planfile import Node as Order
from ..engines.planfile import RunPlan
from ..engines.states import NodeState, error_of, exit_code_of
from ..errors import (
    AweError,
    BadPixels,
    BadValue,
    NoMatch,
    NoStore,
    NoSuchFile,
    NotFits,
    OffGrid,
    Truncated,
    Unreadable,
    UsageError,
    worst,
)
from ..kind import REFCAT, Kind, kind_named, named
from ..parallel import run_forked
from ..store import store_of
from ..workspace import Workspace
from .failing import is_foreseen
from .graph import Graph, View
from .nodes import TO_MAKE, UP_TO_DATE, Node, distances
from .offgrid import is_without_pixels
from .onegrid import OneGrid, Together, on_one_grid
from .orders import LASTING, forget_failure, in_order, orders_of, read_failures, remember_failure
from .targets import on_tiles, outdated_targets, product_target, targets_of

# From so many targets on it pays to share them out among processes.
MANY = 2000
# Logs of runs that did not end well are kept so many days, and of the last runs for ever.
KEPT_DAYS, KEPT_RUNS = 14, 10
# What was registered could be read: that a file cannot be now is nothing that stays with what is made of it.
PASSING = (NoSuchFile, NotFits, Truncated, Unreadable)
SERIOUS = ("failed", "timeout", "killed")
# What is said of products of frames that are not on the sky grid that is asked for.
ELSEWHERE = "not on the grid"


@dataclass(frozen=True)
class Demand:
    """What was asked for: products of a kind with conditions, or what is outdated.

    kind: None for a product by its name, or with `outdated` for every kind. until: the
    chain is made only so far; each: fields, of each of whose values many frames make a product;
    tiles: the grids of a survey, for each of which they make one.
    """

    kind: Kind | None
    words: Sequence[str]
    outdated: bool = False
    until: Kind | None = None
    each: Sequence[str] = ()
    tiles: Sequence[str] = ()


@dataclass(frozen=True)
class Survey:
    """The targets with their states, and what is to be made for them, each after what it needs.

    grids: those on which several targets are together. unsolved: without these no such grid can be fitted yet.
    is_tiled: the targets are on tiles of a survey, of which some may have nothing.
    """

    graph: Graph
    targets: Sequence[Node]
    to_make: Sequence[Node]
    grids: Sequence[OneGrid] = ()
    unsolved: Sequence[Node] = ()
    is_tiled: bool = False

    @property
    def first(self) -> Survey | None:
        """The survey of the solutions that are to be made before a grid can be fitted around all; if there are such."""
        if not self.unsolved:
            return None
        return Survey(self.graph, self.unsolved, in_order(self.unsolved))

    @property
    def blocked(self) -> list[Node]:
        """The targets that cannot be made, or must not be used."""
        return [node for node in self.targets if node.state in ("blocked", "failed", "flagged")]

    @property
    def elsewhere(self) -> list[Node]:
        """The targets of which nothing is on the sky grid that is asked for."""
        return [node for node in self.targets if node.state == "elsewhere"]

    @property
    def is_lacking(self) -> bool:
        """Whether a target of many frames is to do without one that somebody may miss."""
        return any(not one.by_design for node in self.targets for one in node.omitted)


@dataclass(frozen=True)
class Campaign:
    """A survey with the plan of what is to be made.

    nodes: that of each order, by the order's id; needed: the orders that targets cannot do without;
    asked: those, and what is made of frames that were asked for and can be left out.
    """

    survey: Survey
    plan: RunPlan
    nodes: Mapping[str, Node]
    needed: frozenset[str]
    asked: frozenset[str]


@dataclass(frozen=True)
class Outcome:
    """What became of a campaign: how each node ended, how many came to what, and the logs if they are kept.

    went_without: something optional could not be made, so that another may take its place;
    failures: the exit code of what failed itself, and is not only blocked; frames: that of
    what failed of frames that are then left out.
    """

    by_node: Mapping[Node, NodeState]
    counts: Counter[str]
    exit_code: int
    directory: Path | None
    went_without: bool
    failures: int
    frames: int

    def is_blocked(self, targets: Sequence[Node]) -> bool:
        """Whether one of some targets was blocked."""
        found = (self.by_node.get(node) for node in targets)
        return any(state is not None and state.status == "blocked" for state in found)


def survey(
    demand: Demand, view: View, workspace: Workspace, kinds: Sequence[Kind], whole: bool = False
) -> Survey:
    """Find the targets and decide the state of each and of all that it needs.

    whole: what fresh targets hang on is wanted too. Raises NoStore, NoMatch,
    UnknownName, UsageError, BadValue.
    """
    if not workspace.stores:
        raise NoStore("there is no store here, and AWE_PATH names none", hint="awe-init, or AWE_PATH=DIR")
    check_kinds(kinds)
    graph, together = _decided(demand, view, workspace, kinds, whole or demand.until is not None)
    targets = together.targets
    if demand.outdated:
        targets = [node for node in targets if node.state not in UP_TO_DATE]
    if demand.tiles:
        # A tile near by that no frame touches was not asked for, nor one that none touches with a good pixel.
        targets = [node for node in targets if not _is_bare(graph, node)] or targets[:1]
    if demand.until is not None:
        targets, together = _until(graph, targets, demand.until), Together(targets)
    if view.as_of is None:
        graph.call_for(targets)
    is_tiled = bool(demand.tiles) and demand.until is None and len(targets) > 1
    return Survey(graph, targets, in_order(targets), together.grids, together.unsolved, is_tiled)


def _is_bare(graph: Graph, node: Node) -> bool:
    """Whether it is known that frames have nothing for a node on its grid."""
    is_tried = node.state == "failed" and is_without_pixels(graph.failures.get(node.key, ""))
    return node.state == "elsewhere" or is_tried


def _decided(
    demand: Demand, view: View, workspace: Workspace, kinds: Sequence[Kind], whole: bool
) -> tuple[Graph, Together]:
    graph = Graph(kinds, workspace, view, failures=read_failures(workspace.stores))
    if view.only:
        # What hangs on what is seen by looking at everything; then all but the kinds asked for is taken as it is.
        _, all_of_it = _decided(demand, replace(view, only=frozenset()), workspace, kinds, whole=True)
        below = [node for node in everything_below(all_of_it.targets) if node.kind.name in view.only]
        if not below:
            raise _no_such(all_of_it.targets, f"--only {', '.join(sorted(view.only))}")
        targets = [graph.nodes.same(node) for node in below]
    else:
        targets = _targets(graph, demand)
    graph.depths = distances(kinds, [node.kind for node in targets])
    processes = 1 if whole or len(targets) < MANY else len(os.sched_getaffinity(0))
    _decide(graph, targets, processes)
    if view.only or demand.kind is None or demand.outdated or demand.tiles:
        return graph, Together(targets)
    return graph, on_one_grid(graph, targets, demand.each)


def _decide(graph: Graph, targets: Sequence[Node], processes: int) -> None:
    """Decide targets; of many each process takes a share, and what is not simply fresh is looked at again here."""
    if processes > 1:
        each = -(-len(targets) // processes)
        shares = [targets[first : first + each] for first in range(0, len(targets), each)]
        # Each opens the indexes for itself.
        graph.stock.close()
        answers = run_forked(lambda number: _fresh_among(graph, shares[number]), len(shares), processes)
        for share, paths in zip(shares, answers, strict=True):
            for node, path in zip(share, paths, strict=True) if isinstance(paths, list) else ():
                if path:
                    node.state, node.path = "fresh", path
    for node in targets:
        graph.decide(node)


def _fresh_among(graph: Graph, nodes: Sequence[Node]) -> list[str]:
    """The path of the product of each node that is plainly fresh; else nothing."""
    return ["" if node.state else graph.path_if_fresh(node) for node in nodes]


def _targets(graph: Graph, demand: Demand) -> list[Node]:
    if demand.outdated:
        return outdated_targets(graph, [demand.kind] if demand.kind else graph.kinds, demand.words)
    if demand.kind is not None:
        found = targets_of(graph, demand.kind, demand.words, demand.each)
        return on_tiles(graph, found, demand.tiles) if demand.tiles else found
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
        # What only a person names is there already.
        for name in need.kinds if need.select != named() else ():
            if name != REFCAT and not name.startswith("raw_"):
                _refuse_circle(kind_named(kinds, name), kinds, [*path, kind.name], done)
    done.add(kind.name)


# Running


def campaign_of(
    found: Survey, argv: Sequence[str], timeout_s: float | None, directory: Path | None = None
) -> Campaign:
    """The plan of all that is to be made: run where the person is, with the stores that were read."""
    workspace = found.graph.workspace
    orders = orders_of(found.graph, found.to_make, timeout_s)
    plan = RunPlan(
        directory or _new_directory(workspace),
        workspace.start,
        {"AWE_PATH": _search_path(workspace)},
        tuple(orders),
        tuple(argv),
    )
    nodes = {order.id: node for order, node in zip(orders, found.to_make, strict=True)}
    targets = set(found.targets)
    needs = {order.id: order.needs for order in orders}
    asked = {order.id: order.before if nodes[order.id].is_of_products else order.needs for order in orders}
    return Campaign(
        found, plan, nodes, _needed(orders, nodes, targets, needs), _needed(orders, nodes, targets, asked)
    )


def _needed(
    orders: Sequence[Order],
    nodes: Mapping[str, Node],
    targets: Collection[Node],
    needs: Mapping[str, Sequence[str]],
) -> frozenset[str]:
    """The orders of some targets, and all that these have among their needs."""
    found = {order.id for order in orders if nodes[order.id] in targets}
    waiting = list(found)
    while waiting:
        more = [one for one in needs[waiting.pop()] if one not in found]
        found.update(more)
        waiting += more
    return frozenset(found)


def _search_path(workspace: Workspace) -> str:
    """The stores as a search path; empty where one cannot stand in it, which is then found from where nodes run."""
    roots = [str(store.root) for store in workspace.stores]
    apart = [root for root in roots if os.pathsep in root]
    if not apart:
        return os.pathsep.join(roots)
    if [store_of(workspace.start)] == list(workspace.stores):
        return ""
    raise BadValue(
        f"{apart[0]}: no search path can hold a store with {os.pathsep!r} in its name",
        hint=f"cd {shlex.quote(apart[0])}; AWE_PATH= awe-make ...",
    )


def _new_directory(workspace: Workspace) -> Path:
    _drop_old_runs(workspace.stores[0].awe / "runs")
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    return workspace.stores[0].awe / "runs" / f"{stamp}-{os.getpid()}"


def conclude(campaign: Campaign, states: Mapping[str, NodeState], keep: bool) -> Outcome:
    """Remember what failed for good, and drop the plan's directory if all went well."""
    found, nodes = campaign.survey, campaign.nodes
    store = found.graph.workspace.stores[0]
    errors = {
        name: error_of(campaign.plan, state)
        for name, state in states.items()
        if state.status == "failed" and state.code in LASTING
    }
    failed = {name: nodes[name] for name, error in errors.items() if not isinstance(error, PASSING)}
    # Of what is made of many the key depends on which of these failed.
    for is_of_many in (False, True):
        these = {name: node for name, node in failed.items() if node.is_of_products == is_of_many}
        for name, key in _keys_of(found, these):
            remember_failure(store, key, errors[name].message.removeprefix(f"{name}: "))
    if found.graph.view.retry:
        for state in states.values():
            if state.status == "done":
                forget_failure(store, state.recipe_key)
    directory: Path | None = campaign.plan.directory
    if not keep and all(state.status == "done" or has_nothing(campaign, state) for state in states.values()):
        _drop(campaign.plan.directory)
        directory = None
    by_node = {nodes[name]: state for name, state in states.items()}
    # What nothing asked for hangs on is gone without.
    away = frozenset(name for name, state in states.items() if has_nothing(campaign, state))
    codes = {
        name: exit_code_of(state)
        for name, state in states.items()
        if name in campaign.needed and name not in away
    }
    lost = [
        exit_code_of(state)
        for name, state in states.items()
        if name in campaign.asked - campaign.needed and state.status in SERIOUS
    ]
    nowhere = {nodes[name] for name in away}
    if all(node.state == "elsewhere" or node in nowhere for node in found.targets):
        codes[""] = OffGrid.exit_code
    went_without = any(name not in campaign.needed for name in failed)
    failures = worst([code for name, code in codes.items() if name and states[name].status in SERIOUS])
    words = Counter(ELSEWHERE if name in away else _word(state) for name, state in states.items())
    code = worst(list(codes.values()))
    return Outcome(by_node, words, code, directory, went_without, failures, worst(lost))


def _drop_old_runs(folder: Path) -> None:
    """Drop the plans, states and logs of runs that ended badly, but those of the last days and the last few."""
    with suppress(OSError):
        runs = sorted(folder.iterdir())
        for one in runs[:-KEPT_RUNS]:
            if time.time() - one.stat().st_mtime > KEPT_DAYS * 86400:
                shutil.rmtree(one, ignore_errors=True)


def _drop(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    with suppress(OSError):
        directory.parent.rmdir()


def has_nothing(campaign: Campaign, state: NodeState) -> bool:
    """Whether a node made nothing because its frames are not on the sky grid that is asked for.

    Of the tiles of a survey also where none of their pixels there is good.
    """
    if state.status != "failed":
        return False
    error = error_of(campaign.plan, state)
    if isinstance(error, BadPixels) and campaign.survey.is_tiled:
        return campaign.nodes[state.id].is_of_products and is_without_pixels(error.message)
    return isinstance(error, OffGrid)


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
        again = again or Graph(
            graph.kinds, graph.workspace, graph.view, failures=read_failures(graph.workspace.stores)
        )
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
    """How many nodes are in which state; `failing`: one that did not fail yet, but will."""
    return Counter(
        "to be made" if node.state in TO_MAKE else "failing" if is_foreseen(node) else node.state
        for node in targets
    )
