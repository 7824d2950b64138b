"""`awe-make`: ask for products; what they need is made on the way."""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import NoMatch, NotUpToDate, worst
from . import options
from .messages import Messenger
from .runner import launch
from .types import ConditionType, KindType

if TYPE_CHECKING:
    from ..core.engines.local import Event
    from ..core.engines.planfile import RunPlan
    from ..core.engines.states import NodeState
    from ..core.kind import Kind
    from ..core.planning.campaign import Campaign, Demand, Outcome, Survey
    from ..core.planning.graph import View
    from ..core.workspace import Workspace

EXPORTS = ("json", "make", "sh")


class _Make(click.Command):
    """The command, with --no-ROLE for --without ROLE."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse what the kinds' own programs have as flags."""
        if any(one.startswith("--no-") for one in args):
            from ..core.kinds import KINDS
            from ..core.planning.demands import roles_without

            roles = {f"--no-{role.replace('_', '-')}": f"--without={role}" for role in roles_without(KINDS)}
            end = args.index("--") if "--" in args else len(args)
            args = [*(roles.get(one, one) for one in args[:end]), *args[end:]]
        return super().parse_args(ctx, args)


@click.command(
    "make",
    cls=_Make,
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
    "--as-of",
    metavar="DATE",
    help="The answer of that day: products, verdicts and validity as they stood; makes nothing.",
)
@click.option(
    "--allow-nearest",
    type=click.IntRange(0),
    default=0,
    metavar="DAYS",
    help="Where no calibration is valid, use the nearest within so many nights; goes on record.",
)
@click.option(
    "--without",
    multiple=True,
    metavar="[KIND.]ROLE",
    help="Leave a role empty (bias, flat, reduced.dark), for one or all kinds; may be repeated, and goes on record. "
    "--no-ROLE, as the kinds' own programs have it, says the same.",
)
@click.option(
    "--grid",
    metavar="GRID",
    help="The sky grid of what is asked for: a named one (awe-grid), NAME/TILE, its text, or auto: around the frames "
    "of each product; a coadd on the NAME of a survey's grid is made of each tile that frames touch.",
)
@click.option(
    "--each",
    multiple=True,
    metavar="FIELD",
    help="Of many frames make a product for each value of this field (object, night); may be repeated.",
)
@click.option(
    "--complete",
    is_flag=True,
    help="Make a product of many frames of all of them (on a named grid: all that touch it), or not at all; by default "
    "what cannot be had is left out.",
)
@click.option("--force", is_flag=True, help="Make again a product that was edited.")
@click.option("--retry", is_flag=True, help="Try again what failed before.")
@click.option("--fail-fast", is_flag=True, help="Start nothing more after a failure.")
@click.option(
    "--timeout",
    type=options.Finite(0, min_open=True),
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
    "--plan",
    metavar="DIR",
    help="Write the plan here, and keep it with the states and logs; with -n or --export awe-node runs it.",
)
@click.option("-0", "--null", "null", is_flag=True, help="Names on standard input and output end in NUL.")
@options.processes
@options.json_output
@options.common
@click.pass_obj
def command(messenger: Messenger, /, what: str | None, words: tuple[str, ...], **given: Any) -> int:
    """Find the products of KIND that meet all CONDITIONS, and make those that are missing or out of date.

    The chain goes backward to the raw frames: each calibration is made first if it
    is missing or out of date, once, however many products need it. What does not
    hang on a failure goes on; asking again resumes. A product of many frames (coadd,
    gastrom, gphot) is made of those that can be had: the others are named with the
    reason, which goes on record, and the exit code is that of the failure, or 5.
    Coadds of several filters that overlap are on one grid, around the frames of all,
    unless --grid or a setting says another. A CONDITION is one of
    awe-query(1), on what is known of raw frames; a FILE is a raw frame to make
    KIND of, or in the place of KIND a product that is to be up to date; - stands
    for the names of FILEs on standard input.

    Standard output has the path of every product that was asked for and is there.
    --tree, --why, -n and --check give the answers of one decision; its reasons are
    missing, edited, parameters, recipe, inputs, members, better and upstream.

    What was made --without a role stays so where there is nothing for it: the next
    time it need not be said again.

    \b
    Examples:
      awe-make hotpix night=2003-02-14 detector=A5382
      awe-make reduced "object like 'M51*' and filter='R'" -j 2
      awe-make reduced night=2017-03-02 --tree
      awe-query raw_science object=M51 | awe-make reduced -
      awe-make coadd night=2017-03-02 --each object --no-bias --no-flat
      awe-make --outdated -n
    """
    from ..core.kinds import KINDS
    from ..core.planning.campaign import refuse_nothing, survey
    from .makesays import say_elsewhere, say_one_grid, say_overruling, say_unusable, warn_of_frames
    from .warm import checked_workspace

    # What is said wrongly is said before anything is looked at.
    memory_mb = options.parse_bytes(given["memory"]) >> 20 if given["memory"] else 0
    # A survey makes millions of small objects and drops none.
    gc.disable()
    workspace = checked_workspace()
    demand, view = _asked(*_named(what, words, given["null"]), given, workspace)
    refuse_nothing(demand)
    found = survey(demand, view, workspace, KINDS, whole=given["tree"])
    warn_of_frames(found, messenger)
    say_unusable(found, messenger)
    say_overruling(found, messenger)
    given["away"] = say_elsewhere(found, messenger)
    is_made = not any(given[one] for one in ("tree", "export", "check", "why", "dry_run"))
    say_one_grid(found, messenger, is_made)
    if given["tree"]:
        return _print_tree(found, messenger, given)
    if given["export"]:
        return _export(found, messenger, given)
    if given["check"] or given["why"] or given["dry_run"]:
        return _answer(found, messenger, given)

    def again() -> Survey:
        return survey(demand, replace(view, remake=frozenset(), retry=False), workspace, KINDS)

    given, code = {**given, "memory_mb": memory_mb}, 0
    if view.as_of is None and (first := found.first) is not None:
        code = _solved_first(first, messenger, given)
        if code and given["fail_fast"]:
            return code
        done = {node.kind.name for node in first.to_make}
        found = survey(demand, replace(view, remake=view.remake - done), workspace, KINDS)
        say_unusable(found, messenger)
        say_one_grid(found, messenger, is_made)
    return worst([code, _make(found, again, messenger, given)])


def _asked(
    what: str | None, words: tuple[str, ...], given: dict[str, Any], workspace: Workspace
) -> tuple[Demand, View]:
    """What the command line asks for, and how the graph is to be seen."""
    from ..core.kind import kind_named
    from ..core.kinds import KINDS
    from ..core.planning.campaign import Demand
    from ..core.planning.demands import check_fields, check_without, on_grid_asked, tiles_asked
    from ..core.planning.graph import View
    from ..core.validity import as_of_moment

    is_kind = what in {kind.name for kind in KINDS}
    if what is not None and not is_kind and (given["outdated"] or _is_product(what)):
        words, what = (what, *words), None
    kind = kind_named(KINDS, what) if what is not None else None
    until = kind_named(KINDS, given["until"]) if given["until"] else None
    sets = _sets(workspace, given["params_set"], given["sets"], kind)
    tiles = tiles_asked(kind, given["grid"], workspace.stores) if given["grid"] else ()
    if given["grid"] is not None and not tiles:
        sets = on_grid_asked(sets, kind, given["grid"])
    view = View(
        sets=sets,
        depth=given["depth"],
        only=frozenset(given["only"]),
        remake=frozenset(given["remake"]),
        force=given["force"],
        retry=given["retry"],
        nearest_nights=given["allow_nearest"],
        as_of=None if given["as_of"] is None else as_of_moment(given["as_of"]),
        complete=given["complete"],
        without=check_without(given["without"], KINDS),
    )
    return Demand(kind, words, given["outdated"], until, check_fields(given["each"], kind), tiles), view


def _named(what: str | None, words: tuple[str, ...], null: bool) -> tuple[str | None, tuple[str, ...]]:
    """The words of the command line, with the names on standard input in the place of `-`."""
    if "-" not in (what, *words):
        return what, words
    first, *others = options.read_names([*([what] if what else []), *words], null)
    return first, tuple(others)


def _is_product(text: str) -> bool:
    return text.lower().endswith((".fits", ".fit", ".fts")) or "/" in text


def _sets(
    workspace: Workspace, name: str | None, texts: Sequence[str], asked: Kind | None
) -> dict[str, dict[str, Any]]:
    """Kind to parameter to value: a saved set, and over it what the command line sets.

    asked: what is to be made, which is meant first where a name says no kind.
    """
    from ..core.kinds import KINDS
    from ..core.paramsets import load_set, parse_sets

    saved = load_set(workspace, name, KINDS) if name else {}
    found = {kind: dict(values) for kind, values in saved.items()}
    for kind, values in parse_sets(texts, sorted(KINDS, key=lambda one: one is not asked)).items():
        found.setdefault(kind, {}).update(values)
    return found


# Answers


def _answer(found: Survey, messenger: Messenger, given: dict[str, Any]) -> int:
    """What would be made: a line a node; the counts go to standard error."""
    from ..core.planning.orders import output_of
    from ..core.planning.reasons import Teller
    from ..core.planning.tree import as_objects
    from .makesays import say_blocked, say_left_out, summary

    graph = found.graph
    if given["check"]:
        return _check(found, messenger, given)
    teller = Teller(graph)
    for node in found.to_make:
        if given["as_json"]:
            options.print_line(json.dumps(next(as_objects(graph, [node]))))
        elif given["why"]:
            options.print_line(f"{output_of(graph, node)}\t{teller.why(node)}")
        else:
            options.print_line(output_of(graph, node), given["null"])
    if given["plan"] is not None and given["dry_run"]:
        _plan(found, given)
    messenger.note(summary(found))
    return worst([say_blocked(found, messenger), say_left_out(found, None, messenger), given["away"]])


def _check(found: Survey, messenger: Messenger, given: dict[str, Any]) -> int:
    from ..core.planning.nodes import UP_TO_DATE, label
    from ..core.planning.reasons import Teller
    from .makesays import say_blocked, say_left_out

    say_left_out(found, None, messenger)
    late = [node for node in found.targets if node.state not in UP_TO_DATE and node.state != "elsewhere"]
    if not late:
        return int(given["away"])
    reasons = Teller(found.graph).why(late[0]) or late[0].state
    more = f", and {len(late) - 1} more of {len(found.targets)}" if len(late) > 1 else ""
    messenger.error(NotUpToDate(f"{label(late[0])}: {reasons}{more}"))
    return worst([NotUpToDate.exit_code, say_blocked(found, messenger)])


def _print_tree(found: Survey, messenger: Messenger, given: dict[str, Any]) -> int:
    from ..core.planning.campaign import everything_below
    from ..core.planning.tree import as_objects, lines_of
    from .makesays import summary

    if given["as_json"]:
        for about in as_objects(found.graph, everything_below(found.targets)):
            options.print_line(json.dumps(about))
        return 0
    for line in lines_of(found.graph, found.targets, given["depth"]):
        options.print_line(line.branches + line.text.replace("\n", " "))
    messenger.note(summary(found))
    return 0


# Making


def _export(found: Survey, messenger: Messenger, given: dict[str, Any]) -> int:
    from ..core.engines.export import to_json_lines, to_makefile, to_script
    from .makesays import say_blocked, say_left_out, summary

    plan = _plan(found, given)
    write = {"json": to_json_lines, "make": to_makefile, "sh": to_script}[given["export"]]
    with options.to_output():
        sys.stdout.write(write(plan))
        sys.stdout.flush()
    messenger.note(summary(found))
    return worst([say_blocked(found, messenger), say_left_out(found, None, messenger), given["away"]])


def _plan(found: Survey, given: dict[str, Any]) -> RunPlan:
    """The plan of what is to be made, written where the person wants it."""
    from ..core.engines.planfile import write_plan
    from ..core.planning.campaign import campaign_of

    plan = campaign_of(found, ("awe-make", *sys.argv[1:]), given["timeout"], given["plan"]).plan
    if given["plan"] is not None:
        write_plan(plan)
    return plan


def _make(found: Survey, again: Callable[[], Survey], messenger: Messenger, given: dict[str, Any]) -> int:
    """Make what is to be made; again: the survey once more, when something was made. Returns the exit code."""
    from .makesays import print_targets, say_blocked, say_left_out, say_outcome, say_unusable, summary

    code = worst([say_blocked(found, messenger), given["away"]])
    if not found.to_make:
        print_targets(found, None, given["as_json"], given["null"])
        code = worst([code, say_left_out(found, None, messenger)])
        if len(found.targets) != 1 or code:
            messenger.note(summary(found))
        return code
    if found.graph.view.as_of is not None:
        print_targets(found, None, given["as_json"], given["null"])
        raise NoMatch(
            f"{summary(found)}: at {found.graph.view.as_of} it was not there, or not up to date",
            hint="--why says why; without --as-of it is made now",
        )
    began = time.monotonic()
    outcome = _carried_out(found, messenger, given, given["plan"])
    frames, first = outcome.frames, outcome
    if outcome.went_without and not given["fail_fast"]:
        # In the place of an optional calibration that could not be made, the next best may serve.
        second = again()
        if second.to_make:
            # What failed stays failed; what was blocked by it may be made now.
            say_unusable(second, messenger)
            found, outcome = second, _carried_out(second, messenger, given, None)
            code, frames = worst([code, first.failures]), worst([frames, outcome.frames])
        if not (second.is_lacking or second.blocked):
            # What no frame has, all do without.
            frames = 0
        if found is not second and first.is_blocked(found.targets) and not second.blocked:
            say_unusable(second, messenger, second.targets)
            print_targets(second, None, given["as_json"], given["null"])
            messenger.note(summary(second))
            return worst([code, first.failures, frames, say_left_out(second, None, messenger)])
    print_targets(found, outcome, given["as_json"], given["null"])
    left_out = say_left_out(found, outcome, messenger)
    say_outcome(found, outcome, time.monotonic() - began, messenger, None if outcome is first else first)
    return worst([code, outcome.exit_code, frames, left_out])


def _solved_first(found: Survey, messenger: Messenger, given: dict[str, Any]) -> int:
    """Make the solutions around which a grid is to be fitted; returns the exit code."""
    from .makesays import say_outcome

    began = time.monotonic()
    outcome = _carried_out(found, messenger, given, None)
    say_outcome(found, outcome, time.monotonic() - began, messenger)
    return outcome.exit_code


def _carried_out(
    found: Survey, messenger: Messenger, given: dict[str, Any], directory: Path | None
) -> Outcome:
    from ..core.planning.campaign import campaign_of, conclude

    campaign = campaign_of(found, ("awe-make", *sys.argv[1:]), given["timeout"], directory)
    states = _run(campaign, messenger, given)
    return conclude(campaign, states, keep=directory is not None)


def _run(campaign: Campaign, messenger: Messenger, given: dict[str, Any]) -> dict[str, NodeState]:
    from ..core.engines.local import Finished, run, slots_of_machine
    from ..core.engines.planfile import write_plan
    from ..core.engines.ready import Slots
    from .makesays import Causes, say_finished, say_start
    from .progress import progress
    from .warm import preload, warm

    slots = slots_of_machine(given["jobs"])
    if given["memory_mb"]:
        slots = Slots(slots.cpus, given["memory_mb"])
    plan = campaign.plan
    write_plan(plan)
    # Workers are forked from here: what they must not share is closed, what they can share is made ready.
    campaign.survey.graph.stock.close()
    say_start(campaign, slots.cpus, messenger)
    preload(order.argv for order in plan.nodes)
    gc.freeze()
    gc.enable()
    ended, causes = 0, Causes(messenger)
    with progress(len(plan.nodes), "awe-make", messenger) as step:

        def on_event(event: Event) -> None:
            nonlocal ended
            if isinstance(event, Finished):
                ended += 1
                step()
                say_finished(campaign, event, causes)

        try:
            return run(plan, slots, warm(), on_event, fail_fast=given["fail_fast"])
        except BaseException:
            messenger.note(f"{ended} of {len(plan.nodes)} were done; asking again goes on with the others")
            raise
        finally:
            causes.say_rest()


def main() -> None:
    """Run the program."""
    launch(command)
