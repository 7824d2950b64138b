"""`awe-node`: run nodes of a plan, one after the other; what every engine runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import UsageError, worst
from . import options
from .messages import Messenger
from .runner import launch

if TYPE_CHECKING:
    from ..core.engines.local import Event
    from ..core.engines.planfile import RunPlan


@click.command(
    "node",
    short_help="Run nodes of a plan, one after the other.",
    context_settings=options.SETTINGS,
)
@click.argument("plan", type=click.Path(readable=False, path_type=Path), metavar="PLAN")
@click.argument("nodes", nargs=-1, metavar="[ID...]")
@click.option("--status", is_flag=True, help="Print what became of the nodes (by default all), and run none.")
@click.option("--again", is_flag=True, help="Run nodes that are done, too.")
@click.option("-0", "--null", "null", is_flag=True, help="Names on standard input and output end in NUL.")
@options.json_output
@options.common
@click.pass_obj
def command(
    messenger: Messenger,
    /,
    plan: Path,
    nodes: Sequence[str],
    status: bool,
    again: bool,
    null: bool,
    as_json: bool,
) -> int:
    """Run the nodes ID... of the PLAN, a directory, one after the other, and print the paths of their products.

    A plan is a graph of command lines, as awe-make writes it: PLAN/plan.jsonl
    has one node a line, PLAN/run.json the directory and environment in which they
    run. What became of a node is written to PLAN/state/ID.json when it has ended,
    what it said to PLAN/log/ID.log. Neither a store nor its index is needed, so
    this is what a batch system runs on its machines.

    A node whose needs are not done is blocked (exit code 5). One that is done,
    with the same arguments and after the same runs of what it waits for, is not
    run again. While another process runs a node, this one waits, and then sees
    that it is done. After a failure the other nodes are run all the same; the exit
    code is the worst, where 6 stands for a code that is not one of ours, and 7 for
    a node that was killed or ran out of time. Nodes are run in an order in which
    they can be.

    --status prints a line for each node: its name, what became of it (done,
    failed, blocked, timeout, killed, running, or pending), the seconds it took,
    and its product. -0 is for names and paths that hold newlines.

    \b
    Examples:
      awe-make reduced --plan plan -n && awe-node plan bias-00001 reduced-00007
      awe-node plan --status | cut -f1 | awe-node plan
      awe-node plan --status | grep -v done
    """
    if status:
        if again:
            raise UsageError("--status runs nothing, so --again has no meaning with it")
        return _print_status(plan, nodes, null, as_json)
    names = list(dict.fromkeys(options.read_names(nodes, null)))
    return _run(plan, names, messenger, again, null, as_json)


def _run(
    path: Path, names: Sequence[str], messenger: Messenger, again: bool, null: bool, as_json: bool
) -> int:
    from ..core.engines.local import Slots, run
    from ..core.engines.planfile import read_plan
    from ..core.engines.states import exit_code_of
    from .warm import warm

    plan = read_plan(path, set(names))
    said = _Said(plan, messenger, null, as_json)
    states = run(plan, Slots(1), warm(), said.event, again=again)
    codes = [exit_code_of(state) for state in states.values()]
    failed = sum(1 for code in codes if code)
    if len(codes) > 1:
        messenger.note(f"{len(codes) - failed} done" + (f", {failed} failed" if failed else ""))
    return worst(codes)


class _Said:
    """What is said of the nodes while they run."""

    def __init__(self, plan: RunPlan, messenger: Messenger, null: bool, as_json: bool) -> None:
        self.plan, self.messenger, self.null, self.as_json = plan, messenger, null, as_json

    def event(self, event: Event) -> None:
        """Say what has happened."""
        from ..core.engines.local import Retrying, Started
        from ..core.engines.states import error_of

        if isinstance(event, Started):
            self.messenger.detail(f"{event.node.id}: started")
            return
        state = event.state
        if isinstance(event, Retrying):
            error = error_of(self.plan, state)
            self.messenger.warning(f"{error.message}; once more in {event.pause_s:g} s")
            return
        if state.status != "done":
            self.messenger.error(error_of(self.plan, state))
        elif event.skipped:
            self.messenger.note(f"{state.id}: was done before; --again runs it all the same")
        if state.flags:
            self.messenger.warning(f"{state.id}: flagged: {', '.join(state.flags)}")
        if self.as_json:
            options.print_line(json.dumps(vars(state)))
        elif state.product:
            options.print_line(str(Path(self.plan.root, state.product)), self.null)


def _print_status(path: Path, names: Sequence[str], null: bool, as_json: bool) -> int:
    from ..core.engines.attempts import running_nodes
    from ..core.engines.planfile import read_plan
    from ..core.engines.states import read_state

    plan = read_plan(path, set(names) if names else None)
    running = running_nodes(plan)
    for node in plan.nodes:
        state = read_state(plan, node.id)
        word = "running" if node.id in running else state.status if state else "pending"
        if as_json:
            about: dict[str, Any] = vars(state) if state else {"id": node.id}
            options.print_line(json.dumps({**about, "status": word}))
            continue
        seconds = f"{state.wall_s:.2f}" if state else "-"
        product = str(Path(plan.root, state.product)) if state and state.product else "-"
        options.print_line("\t".join([node.id, word, seconds, product]), null)
    return 0


def main() -> None:
    """Run the program."""
    launch(command)
