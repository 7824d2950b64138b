"""`awe-make`: ask for products; what they need is made on the way."""

from __future__ import annotations

import gc
import json
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import SEVERITY, NotUpToDate, worst
from . import options
from .messages import Messenger
from .runner import launch
from .types import ConditionType, KindType

if TYPE_CHECKING:
    from ..core.campaign import Demand, Outcome, Survey
    from ..core.engines.local import Event
    from ..core.engines.planfile import RunPlan
    from ..core.graph import View
    from ..core.nodes import Node
    from ..core.workspace import Workspace

EXPORTS = ("json", "make", "sh")


@click.command(
    "make",
    short_help="Make products, and all that they need, if they are not up to date.",
    context_settings=options.SETTINGS,
)
@click.argument("what", metavar="[KIND|FILE]", required=False)
@click.argument("words", metavar="[CONDITION|FILE]...", nargs=-1, type=ConditionType())
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be made, and make nothing.")
@click.option("--why", is_flag=True, help="Say what would be made and why, and make nothing.")
@click.option("--check", is_flag=True, help="Exit 3 if a target is not up to date; make nothing.")
@click.option("--tree", is_flag=True, help="Print the tree of needs, each with its state, and make nothing.")
@click.option(
    "--outdated", is_flag=True, help="Make again what exists and is out of date, of KIND or of all kinds."
)
@click.option(
    "--depth",
    type=click.IntRange(0),
    metavar="N",
    help="Check only so many steps down; what exists below is taken as it is.",
)
@click.option(
    "--only",
    "only",
    multiple=True,
    type=KindType(),
    metavar="KIND",
    help="Check and make only this kind; may be repeated.",
)
@click.option("--until", type=KindType(), metavar="KIND", help="Make the chain only up to this kind.")
@click.option(
    "--remake",
    multiple=True,
    type=KindType(),
    metavar="KIND",
    help="Make this kind again although it is up to date; may be repeated.",
)
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KIND.PARAM=VALUE",
    help="Set a parameter of any kind on the way; may be repeated.",
)
@click.option("--params-set", metavar="NAME", help="Use a saved set of parameters (awe-params --save).")
@click.option(
    "--as-of", metavar="DATE", help="The answer of that day: products, verdicts and validity as they stood."
)
@click.option(
    "--allow-nearest",
    type=click.IntRange(0),
    default=0,
    metavar="DAYS",
    help="Where no calibration is valid, use the nearest within so many nights; goes on record.",
)
@click.option("--force", is_flag=True, help="Make again a product that was edited.")
@click.option("--retry", is_flag=True, help="Try again what failed before.")
@click.option("--fail-fast", is_flag=True, help="Start nothing more after a failure.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="End a product's making that takes longer.",
)
@click.option(
    "--memory",
    metavar="BYTES",
    help="Memory that may be used at a time, for example 8G. [default: nine tenths of what is free]",
)
@click.option(
    "--export",
    type=click.Choice(EXPORTS),
    help="Print the plan as JSON lines, a Makefile or a shell script, and make nothing.",
)
@options.path_option(
    "--plan", metavar="DIR", help="Write the plan here, and keep it with the states and logs."
)
@click.option("-0", "--null", "null", is_flag=True, help="Paths end in NUL.")
@options.processes
@options.json_output
@options.common
@click.pass_obj
def command(messenger: Messenger, /, what: str | None, words: tuple[str, ...], **given: Any) -> int:
    """Find the products of KIND that meet all CONDITIONS, and make those that are missing or out of date.

    The chain goes backward to the raw frames: each calibration is made first if it
    is missing or out of date, once, however many products need it. What does not
    hang on a failure goes on; asking again resumes. A CONDITION is one of
    awe-query(1), on what is known of raw frames; a FILE is a raw frame to make
    KIND of, or in the place of KIND a product that is to be up to date.

    Standard output has the path of every product that was asked for and is there.
    --tree, --why, -n and --check give the answers of one decision; its reasons are
    missing, edited, parameters, recipe, inputs, members, better and upstream.

    \b
    Examples:
      awe-make hotpix night=2003-02-14 detector=A5382
      awe-make reduced "object like 'M51*' and filter='R'" -j 2
      awe-make reduced night=2017-03-02 --tree
      awe-make --outdated -n
    """
    from ..core.campaign import refuse_nothing, survey

    if messenger.verbose < 2:
        # A survey makes millions of small objects and drops none.
        gc.disable()
    demand, view, workspace = _asked(what, words, given)
    refuse_nothing(demand)
    from ..core.kinds import KINDS

    found = survey(demand, view, workspace, KINDS)
    _warn_of_frames(found, messenger)
    _say_unusable(found, messenger)
    if given["tree"]:
        return _print_tree(found, messenger, given)
    if given["export"]:
        return _export(found, messenger, given)
    if given["check"] or given["why"] or given["dry_run"]:
        return _answer(found, messenger, given)
    return _make(found, messenger, given)


def _asked(what: str | None, words: tuple[str, ...], given: dict[str, Any]) -> tuple[Demand, View, Workspace]:
    from ..core.campaign import Demand
    from ..core.graph import View
    from ..core.kind import kind_named
    from ..core.kinds import KINDS
    from ..core.paramsets import load_set, parse_sets
    from ..core.validity import as_of_moment
    from .warm import checked_workspace

    workspace = checked_workspace()
    sets = {
        kind: dict(values)
        for kind, values in (
            load_set(workspace, given["params_set"], KINDS) if given["params_set"] else {}
        ).items()
    }
    for kind, values in parse_sets(given["sets"], KINDS).items():
        sets.setdefault(kind, {}).update(values)
    view = View(
        sets=sets,
        depth=given["depth"],
        only=frozenset(given["only"]),
        remake=frozenset(given["remake"]),
        force=given["force"],
        retry=given["retry"],
        nearest_nights=given["allow_nearest"],
        as_of=None if given["as_of"] is None else as_of_moment(given["as_of"]),
    )
    until = kind_named(KINDS, given["until"]) if given["until"] else None
    names = {kind.name for kind in KINDS}
    if what is not None and what not in names and _is_product(what):
        return Demand(None, (what, *words), given["outdated"], until), view, workspace
    if what is not None and given["outdated"] and what not in names:
        return Demand(None, (what, *words), True, until), view, workspace
    return Demand(kind_named(KINDS, what) if what else None, words, given["outdated"], until), view, workspace


def _is_product(text: str) -> bool:
    return text.lower().endswith((".fits", ".fit", ".fts")) or "/" in text


# Answers


def _answer(found: Survey, messenger: Messenger, given: dict[str, Any]) -> int:
    """What would be made: a line a node; the counts go to standard error."""
    from ..core.orders import output_of
    from ..core.reasons import reasons_of
    from ..core.tree import as_objects

    graph = found.graph
    if given["check"]:
        return _check(found, messenger)
    for node in found.to_make:
        if given["as_json"]:
            options.print_line(json.dumps(next(as_objects(graph, [node]))))
        elif given["why"]:
            why = "; ".join(f"{one.name}: {one.detail}" for one in reasons_of(graph, node))
            options.print_line(f"{output_of(graph, node)}\t{why}")
        else:
            options.print_line(output_of(graph, node), given["null"])
    messenger.note(_summary(found))
    return _say_blocked(found, messenger)


def _check(found: Survey, messenger: Messenger) -> int:
    from ..core.nodes import label
    from ..core.reasons import reasons_of

    late = [node for node in found.targets if node.state not in ("fresh", "unchecked")]
    if not late:
        return 0
    graph = found.graph
    reasons = "; ".join(f"{one.name}: {one.detail}" for one in reasons_of(graph, late[0])) or late[0].state
    more = f", and {len(late) - 1} more of {len(found.targets)}" if len(late) > 1 else ""
    messenger.error(NotUpToDate(f"{label(late[0])}: {reasons}{more}"))
    return worst([NotUpToDate.exit_code, _say_blocked(found, messenger)])


def _print_tree(found: Survey, messenger: Messenger, given: dict[str, Any]) -> int:
    from ..core.campaign import everything_below
    from ..core.tree import as_objects, lines_of

    if given["as_json"]:
        for about in as_objects(found.graph, everything_below(found.targets)):
            options.print_line(json.dumps(about))
        return 0
    for line in lines_of(found.graph, found.targets, given["depth"]):
        options.print_line(line.branches + line.text.replace("\n", " "))
    messenger.note(_summary(found))
    return 0


def _summary(found: Survey) -> str:
    from ..core.campaign import states_of

    kinds = Counter(node.kind.name for node in found.to_make)
    making = ", ".join(f"{count} {name}" for name, count in kinds.items())
    states = states_of(found.targets)
    parts = [f"would make {len(found.to_make)}{f' ({making})' if making else ''}"]
    parts += [f"{states[name]} {word}" for name, word in STATE_WORDS.items() if states[name]]
    return ", ".join(parts)


STATE_WORDS = {
    "fresh": "up to date",
    "unchecked": "not checked",
    "flagged": "flagged",
    "failed": "failed before",
    "blocked": "blocked",
}


def _say_blocked(found: Survey, messenger: Messenger) -> int:
    """Say once for each reason what cannot be made; returns the exit code."""
    from ..core.nodes import label

    causes: dict[tuple[str, str], list[Node]] = {}
    for node in found.blocked:
        if node.error is not None:
            causes.setdefault((node.error.message, node.error.hint), []).append(node)
    for (message, hint), nodes in causes.items():
        first = label(nodes[0])
        more = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
        error = nodes[0].error
        assert error is not None
        messenger.error(type(error)(f"{first}{more}: {nodes[0].state}: {message}", hint=hint))
    return worst([_code(node) for node in found.blocked])


def _code(node: Node) -> int:
    # A product that is there and flagged was still asked for and exists: it is who uses it that fails.
    if node.state == "flagged":
        return 0
    return 5


def _warn_of_frames(found: Survey, messenger: Messenger) -> None:
    """Name the raw frames that are gone or changed since they were registered, with what they touch."""
    graph = found.graph
    for address, nodes in graph.gone.items():
        messenger.warning(f"{address}: the file is gone; it went into {_touched(graph, nodes)}")
    for address, nodes in graph.changed.items():
        messenger.warning(
            f"{address}: was changed since it was registered; it goes into {_touched(graph, nodes)}"
        )


def _touched(graph: Any, nodes: list[Node]) -> str:
    from ..core.nodes import label

    names = [label(node) for node in dict.fromkeys(nodes)]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _say_unusable(found: Survey, messenger: Messenger) -> None:
    """Say once of each optional calibration that is there, or could be, why it is not used."""
    reasons = Counter(
        f"without {role}: {reason}"
        for node in found.to_make
        if node.supply
        for role, reason in node.supply.without.items()
        if reason
    )
    for text, count in reasons.items():
        messenger.note(f"{text}{f' ({count} products)' if count > 1 else ''}")


# Making


def _export(found: Survey, messenger: Messenger, given: dict[str, Any]) -> int:
    from ..core.campaign import plan_of
    from ..core.engines.export import to_json_lines, to_makefile, to_script

    plan = plan_of(found, ("awe-make", *sys.argv[1:]), given["timeout"], given["plan"])
    write = {"json": to_json_lines, "make": to_makefile, "sh": to_script}[given["export"]]
    with options.to_output():
        sys.stdout.write(write(plan))
        sys.stdout.flush()
    messenger.note(_summary(found))
    return _say_blocked(found, messenger)


def _make(found: Survey, messenger: Messenger, given: dict[str, Any]) -> int:
    from ..core.campaign import conclude, plan_of

    code = _say_blocked(found, messenger)
    if not found.to_make:
        _print_targets(found, None, given)
        if len(found.targets) > 1 or code:
            messenger.note(_summary(found).replace("would make 0, ", ""))
        return code
    plan = plan_of(found, ("awe-make", *sys.argv[1:]), given["timeout"], given["plan"])
    began = time.monotonic()
    states = _run(plan, found, messenger, given)
    outcome = conclude(found, plan, states, keep=given["plan"] is not None)
    _print_targets(found, outcome, given)
    _say_summary(found, outcome, time.monotonic() - began, messenger)
    codes = [code]
    for state in outcome.states.values():
        if state.status == "blocked":
            codes.append(5)
        elif state.status != "done":
            codes.append(state.code if state.code in SEVERITY else 7)
    return worst(codes)


def _run(plan: RunPlan, found: Survey, messenger: Messenger, given: dict[str, Any]) -> dict[str, Any]:
    from ..core.campaign import orders_by_node
    from ..core.engines.local import Finished, run, slots_of_machine
    from ..core.engines.planfile import write_plan
    from ..core.engines.ready import Slots
    from ..core.nodes import label
    from .progress import progress
    from .warm import preload, warm

    slots = slots_of_machine(given["jobs"])
    if given["memory"]:
        slots = Slots(slots.cpus, options.parse_bytes(given["memory"]) >> 20)
    write_plan(plan)
    found.graph.stock.close()
    nodes = orders_by_node(found, plan.nodes)
    seconds = sum(order.seconds for order in plan.nodes) / slots.cpus
    if len(plan.nodes) > 1:
        kinds = Counter(node.kind.name for node in found.to_make)
        making = ", ".join(f"{count} {name}" for name, count in kinds.items())
        messenger.note(f"making {len(plan.nodes)} ({making}), about {_duration(seconds)}")
    preload(order.argv for order in plan.nodes)
    gc.freeze()
    gc.enable()
    with progress(len(plan.nodes), "awe-make", messenger) as step:

        def said(event: Event) -> None:
            if isinstance(event, Finished):
                step()
                _say_finished(plan, label(nodes[event.node.id]), event, messenger)

        return run(plan, slots, warm(), said, fail_fast=given["fail_fast"])


def _say_finished(plan: RunPlan, label: str, event: Any, messenger: Messenger) -> None:
    """Say at once what failed, and what a node warned of."""
    state = event.state
    if state.status == "done":
        for line in _log_lines(plan, event.node.id):
            _, found, text = line.partition(": warning: ")
            if found:
                messenger.warning(text)
            elif line:
                messenger.detail(f"{label}: {line.partition(': ')[2] or line}")
        return
    if state.status == "blocked":
        messenger.detail(f"{label}: blocked: {state.error}")
        return
    text = " ".join(state.error.split("\n")).strip() or state.status
    messenger.failure(f"{label}: {state.status}: {text}")


def _log_lines(plan: RunPlan, name: str) -> list[str]:
    try:
        return plan.log_path(name).read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []


def _print_targets(found: Survey, outcome: Outcome | None, given: dict[str, Any]) -> None:
    """The path of each target that is there."""
    from ..core.nodes import label

    made = {node: outcome.states[name] for name, node in outcome.nodes.items()} if outcome else {}
    for node in found.targets:
        state = made.get(node)
        path = (
            state.product
            if state
            else node.item.address
            if node.item and node.state in ("fresh", "unchecked", "flagged")
            else ""
        )
        if state and state.status != "done":
            path = ""
        if given["as_json"]:
            action = (state.action if state.status == "done" else state.status) if state else _action(node)
            about = {"path": path or None, "action": action, "label": label(node)}
            options.print_line(json.dumps(about))
        elif path:
            options.print_line(path, given["null"])


def _action(node: Node) -> str:
    return "up-to-date" if node.state == "fresh" else node.state


def _say_summary(found: Survey, outcome: Outcome, seconds: float, messenger: Messenger) -> None:
    fresh = sum(1 for node in found.targets if node.state == "fresh")
    counts = outcome.counts + Counter({"up to date": fresh} if fresh else {})
    parts = [f"{counts[word]} {word}" for word in ("made", "up to date", "failed", "blocked") if counts[word]]
    messenger.note(f"{', '.join(parts)} in {_duration(seconds)}")
    blocked = Counter(
        outcome.nodes[name].kind.name for name, state in outcome.states.items() if state.status == "blocked"
    )
    if blocked:
        messenger.note(
            f"not made, as they hang on what failed: {', '.join(f'{n} {kind}' for kind, n in blocked.items())}"
        )
    if outcome.directory is not None:
        messenger.note(f"plan, states and logs are in {outcome.directory}")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def main() -> None:
    """Run the program."""
    launch(command)
