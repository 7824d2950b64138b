"""From Python, what awe-make does: survey what there is, make what is missing or out of date, raise what fails."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import AweError, NoMatch, Unavailable, UsageError
from ..core.kind import Kind, kind_named
from ..core.planning.campaign import Demand, Outcome, Survey, campaign_of, conclude, survey
from ..core.planning.graph import View
from ..core.planning.nodes import TO_MAKE, Node, label
from ..core.workspace import Workspace, here

if TYPE_CHECKING:
    from ..core.engines.states import NodeState
    from ..core.planning.campaign import Campaign

LOGGER = logging.getLogger("awetools")
Tell = Callable[[str], object]

# Products are made by a process of their own, so that nothing of this one is forked or has its signals taken.
_RUN = (
    "import sys; sys.path.append(sys.argv.pop(1)); from awetools.commands.node import main; "
    "sys.argv[0] = 'awe-node'; main()"
)
_LEVELS = {"error": logging.ERROR, "warning": logging.WARNING, "note": logging.INFO, "detail": logging.DEBUG}
_ORDER = re.compile(r"\b[a-z_]+-[0-9]{5,}\b")
# So many candidates are named where several products meet the conditions.
NAMED = 3


@dataclass(frozen=True)
class Wanted:
    """What was asked for: the one product of a kind that meets all words (as of awe-make), or that at a path."""

    kind: Kind
    words: tuple[str, ...]
    by_path: bool = False
    parameters: Mapping[str, object] = field(default_factory=dict)

    def absent(self) -> AweError:
        """The error of who wants something of a product that is not there."""
        asked = ", ".join(self.words)
        return NoMatch(f"{self.kind.name} ({asked}): does not exist yet", hint=".make() makes it")


@dataclass(frozen=True)
class State:
    """Whether a product is there and up to date, its path if it is there, and else why not."""

    is_fresh: bool
    path: str
    why: str


def wanted_at(path: str, kind: str) -> Wanted:
    """The product at a path; raises UsageError for what awetools does not make itself."""
    return Wanted(_made_here(kind), (path,), by_path=True)


def _made_here(name: str) -> Kind:
    from ..core import kinds

    if name not in [kind.name for kind in kinds.KINDS]:
        raise UsageError(f"{name}: is not made by awetools", hint="awe-ingest or awe-import registers it")
    return kind_named(kinds.KINDS, name)


def state_of_wanted(wanted: Wanted) -> State:
    """How what was asked for stands now."""
    found = _surveyed(wanted)
    return _state(found, _only(found, wanted))


def state_of_path(path: str, kind: str) -> State:
    """How a product stands now; a raw frame is up to date if it is as it was registered."""
    if kind.startswith("raw"):
        return _state_of_raw(path)
    return state_of_wanted(wanted_at(path, kind))


def _state_of_raw(path: str) -> State:
    from ..core.files import parse_address
    from ..core.raws import open_raw

    try:
        for one in open_raw(parse_address(path), here()):
            if one.fits is not None:
                one.fits.close()
    except AweError as error:
        return State(False, path, error.message)
    return State(True, path, "")


def _state(found: Survey, node: Node) -> State:
    from ..core.planning.reasons import Teller

    path = _path_of(node) if node.state not in TO_MAKE else ""
    if node.state == "fresh":
        return State(True, path, "")
    if node.error is not None:
        return State(False, path, f"{node.state}: {node.error.message}")
    return State(False, path, Teller(found.graph).why(node) or node.state)


def made(wanted: Wanted, tell: Tell | None = None) -> Any:
    """The object, made if it is missing or out of date. Raises what keeps it from being made."""
    found = _surveyed(wanted)
    node = _only(found, wanted)
    path = _path_of(node)
    _say_omitted(node, tell)
    if node.state in TO_MAKE:
        path = _make(found, node, wanted, tell)
    elif node.error is not None and node.state != "flagged":
        raise _named(node, node.error)
    elif node.error is not None:
        _say(logging.WARNING, node.error.message, tell)
    return object_at(path, wanted)


def _path_of(node: Node) -> str:
    return node.path or (node.item.address if node.item is not None and not node.item.is_removed else "")


def there(wanted: Wanted) -> Any:
    """The object as it is there now, made or not."""
    from .objects import Object

    found = _surveyed(wanted)
    node = _only(found, wanted)
    path = _path_of(node)
    return object_at(path, wanted) if path and node.state != "missing" else Object(None, 0, None, wanted)


def object_at(path: str, wanted: Wanted) -> Any:
    """The object of a product, by its record; wanted: what it was asked for by."""
    from ..core.record import read_record, sidecar
    from .answers import of_identities
    from .objects import Object

    record = read_record(sidecar(Path(path)))
    answer = of_identities(wanted.kind.name, [record["recipe_key"]], here().stores)
    if not answer.rows:
        raise Unavailable(f"{path}: is not in the index of its store", hint="awe-index --update")
    return Object(answer, 0, None, wanted)


def _surveyed(wanted: Wanted) -> Survey:
    from ..core import kinds
    from ..core.paramsets import parse_sets
    from ..core.settings import check_in_force

    workspace = here()
    check_in_force(workspace.settings, workspace.cameras, kinds.KINDS)
    texts = [f"{wanted.kind.name}.{name}={value}" for name, value in wanted.parameters.items()]
    view = View(sets=parse_sets(texts, kinds.KINDS))
    return _survey(wanted, view, workspace)


def _survey(wanted: Wanted, view: View, workspace: Workspace) -> Survey:
    from ..core import kinds

    demand = Demand(None if wanted.by_path else wanted.kind, wanted.words)
    return survey(demand, view, workspace, kinds.KINDS)


def _only(found: Survey, wanted: Wanted) -> Node:
    """The one product that was asked for; raises UsageError where there are several."""
    if len(found.targets) == 1:
        return found.targets[0]
    names = ", ".join(label(node) for node in found.targets[:NAMED])
    raise UsageError(
        f"{len(found.targets)} {wanted.kind.name} meet {' and '.join(wanted.words) or 'no condition'}: {names}"
        + (", ..." if len(found.targets) > NAMED else ""),
        hint=f"narrow it down, such as detector=..., night=...; {wanted.kind.class_name}.select(...) has several",
    )


def _make(found: Survey, node: Node, wanted: Wanted, tell: Tell | None) -> str:
    """Make one target and what it needs; returns its path."""
    outcome, state = _carried_out(found, node, tell)
    if outcome.went_without:
        # In the place of an optional calibration that could not be made, the next best may serve.
        found = _survey(wanted, replace(found.graph.view, retry=False), found.graph.workspace)
        node = _only(found, wanted)
        if node.state not in TO_MAKE:
            return _path_of(node)
        outcome, state = _carried_out(found, node, tell)
    return str(Path(found.graph.workspace.start, state.product))


def _say_omitted(node: Node, tell: Tell | None) -> None:
    """Name the frames that a product of many is made without."""
    for one in node.omitted:
        _say(logging.WARNING, f"{label(node)}: left out {one.address}: {one.reason}", tell)


def _carried_out(found: Survey, node: Node, tell: Tell | None) -> tuple[Outcome, NodeState]:
    from ..core.engines.states import error_of

    campaign = campaign_of(found, ("awetools.get", *sys.argv[:1]), None)
    states = _run(campaign, tell)
    errors = {
        name: error_of(campaign.plan, state) for name, state in states.items() if state.status != "done"
    }
    outcome = conclude(campaign, states, keep=False)
    state = outcome.by_node[node]
    if state.status != "done":
        raise _first_cause(campaign, node, errors)
    return outcome, state


def _first_cause(campaign: Campaign, node: Node, errors: Mapping[str, AweError]) -> AweError:
    """What failed first of what the target cannot do without."""
    for order in campaign.plan.nodes:
        if order.id in errors and order.id in campaign.needed:
            cause = campaign.nodes[order.id]
            return _named(cause, errors[order.id], order.id)
    return _named(node, next(iter(errors.values())))


def _named(node: Node, error: AweError, order: str = "") -> AweError:
    message = error.message.removeprefix(f"{order}: ")
    name = label(node)
    return type(error)(message if message.startswith(name) else f"{name}: {message}", hint=error.hint)


def _run(campaign: Campaign, tell: Tell | None) -> dict[str, NodeState]:
    """Run a plan with awe-node, passing on what it says; returns the state of each order."""
    from ..core.engines.planfile import write_plan
    from ..core.engines.states import read_state

    plan = campaign.plan
    write_plan(plan)
    campaign.survey.graph.stock.close()
    _say(logging.INFO, f"making {', '.join(label(node) for node in campaign.nodes.values())}", tell)
    names = {order: label(node) for order, node in campaign.nodes.items()}
    root = str(Path(__file__).resolve().parents[2])
    arguments = [sys.executable, "-P", "-c", _RUN, root, "--log-json", str(plan.directory)]
    with subprocess.Popen(
        [*arguments, *(order.id for order in plan.nodes)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                _pass_on(line, names, tell)
        except BaseException:
            process.terminate()
            raise
    states = {order.id: read_state(plan, order.id) for order in plan.nodes}
    lost = [name for name, state in states.items() if state is None]
    if lost:
        raise Unavailable(
            f"{plan.directory}: awe-node ended with {process.returncode} before {lost[0]} was done",
            hint="ask again: what was made stays made",
        )
    return {name: state for name, state in states.items() if state is not None}


def _pass_on(line: str, names: Mapping[str, str], tell: Tell | None) -> None:
    """A message of awe-node, which knows orders by their numbers; its errors are raised when all is done."""
    with suppress(ValueError, KeyError, TypeError):
        about = json.loads(line)
        level = _LEVELS.get(about.get("level"), logging.INFO)
        message = _ORDER.sub(lambda found: names.get(found[0], found[0]), str(about["message"]))
        _say(min(level, logging.WARNING), message, tell)


def _say(level: int, message: str, tell: Tell | None) -> None:
    if tell is not None:
        tell(message)
    else:
        LOGGER.log(level, "%s", message)
