"""What the embedded engine takes, beside GNU make and others on the same nodes: whole processes, ways taken in turn.

    engine.py [--quick] [--runs N]

Rows are the best wall time of several runs, taken in turn, so that what else the
machine does falls on all of them alike. Goals: 1,000 nodes of `sh -c 'touch f'` in at
most 1.5 times the wall time of `make -j2`; at most 10 ms a node for one of our own
programs, run warm; places in use for at least 90% of a run of uneven chains.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from measure import BIN, Command, Cost, Table, cost, program, versions
from skeleton import small_frames

from awetools.core.engines.planfile import Node, RunPlan, write_plan
from awetools.core.engines.states import read_state

# As awe-make does: the workers are forked from a process that has imported what they need.
RUN = """
import sys
from pathlib import Path
from awetools.commands import warm
from awetools.core.engines.local import Slots, run
from awetools.core.engines.planfile import read_plan
plan = read_plan(Path(sys.argv[1]))
if sys.argv[2] == "warm":
    warm.preload(node.argv for node in plan.nodes)
run(plan, Slots(2), warm.warm() if sys.argv[2] == "warm" else None)
"""


def engine(plan: Path, how: str = "spawn") -> Command:
    """The command that runs a plan, two nodes at a time."""
    return [sys.executable, "-c", RUN, plan, how]


def in_turn(ways: dict[str, tuple[Command, Callable[[], object]]], work: Path, runs: int) -> dict[str, Cost]:
    """The best cost of each way; each has a command, and what tidies up before it."""
    best: dict[str, Cost] = {}
    for _ in range(runs):
        for name, (command, tidy) in ways.items():
            tidy()
            took = cost(command, work)
            best[name] = min(best.get(name, took), took, key=lambda one: one.wall_s)
    return best


def touches(table: Table, work: Path, count: int, runs: int) -> None:
    """Goal: 1.5 times the wall time of make -j2."""
    out = work / "out"
    nodes = tuple(Node(f"n{number}", ("sh", "-c", f"touch f{number}")) for number in range(count))
    plan = RunPlan(work / "plan", out, {}, nodes)
    rules = "".join(f"f{number}:\n\t@sh -c 'touch f{number}'\n" for number in range(count))
    names = " ".join(f"f{number}" for number in range(count))
    (work / "Makefile").write_text(f"all: {names}\n{rules}")
    (work / "lines").write_text("".join(f"sh -c 'touch f{number}'\n" for number in range(count)))

    def tidy() -> None:
        for folder in (out, plan.directory):
            shutil.rmtree(folder, ignore_errors=True)
        out.mkdir()
        write_plan(plan)

    ways: dict[str, tuple[Command, Callable[[], object]]] = {"engine": (engine(plan.directory), tidy)}
    if program("make"):
        ways["make -j2"] = (["make", "-rsj2", "-f", work / "Makefile", "-C", out], tidy)
    if program("parallel"):
        ways["parallel -j2"] = (["sh", "-c", f"cd {out}; parallel -j2 <{work}/lines"], tidy)
    if program("xargs"):
        ways["xargs -P2"] = (
            ["sh", "-c", f"cd {out}; seq 0 {count - 1} | xargs -P2 -I@ sh -c 'touch f@'"],
            tidy,
        )
    found = in_turn(ways, work, runs)
    peer = found.get("make -j2")
    for name, took in found.items():
        ratio = took.wall_s / peer.wall_s if peer else None
        goal = "goal: 1.5 x make -j2" if name == "engine" else ""
        table.row(f"{name}, {count} x touch", took, 1000 * took.wall_s / count, ratio, remark=goal)
    again: dict[str, tuple[Command, Callable[[], object]]] = {
        name: (ways[name][0], lambda: None) for name in ways if name in ("engine", "make -j2")
    }
    tidy()
    cost(ways["engine"][0], work)
    for name, took in in_turn(again, work, runs).items():
        table.row(f"{name}, nothing to do", took, 1000 * took.wall_s / count)


def makers(table: Table, work: Path, count: int, runs: int) -> None:
    """Goal: 10 ms a node of one of our programs that finds its product up to date."""
    store = work / "store"
    small_frames(work / "raw", 4)
    cost([BIN / "awe-init", store], work)
    cost([BIN / "awe-ingest", "-q", work / "raw"], store)
    frames = sorted(str(path) for path in (work / "raw").iterdir())
    argv = ("awe-bias", "-u", "-q", "--json", "--no-readnoise", *frames)
    subprocess.run([BIN / "awe-bias", *argv[2:]], cwd=store, check=True, capture_output=True)
    for how, number in (("warm", count), ("spawn", max(4, count // 25))):
        plan = RunPlan(work / how, store, {}, tuple(Node(f"n{one}", argv) for one in range(number)))

        def tidy(plan: RunPlan = plan) -> None:
            shutil.rmtree(plan.directory, ignore_errors=True)
            write_plan(plan)

        took = in_turn({how: (engine(plan.directory, how), tidy)}, work, runs)[how]
        states = [read_state(plan, node.id) for node in plan.nodes]
        if any(state is None or state.action != "up-to-date" for state in states):
            raise SystemExit(f"{how}: not every node found its product up to date")
        waits = sorted(state.wall_s for state in states if state is not None)
        goal = f"a node itself {1000 * waits[len(waits) // 2]:.1f} ms (median)" + (
            "; goal: 10" if how == "warm" else ""
        )
        table.row(f"{how}, {number} x awe-bias -u", took, 1000 * took.wall_s / number, remark=goal)


def chains(table: Table, work: Path, count: int, runs: int) -> None:
    """Goal: both places in use for 90% of the time, with chains of uneven nodes that sleep."""
    rng = random.Random(1)
    nodes = []
    for number in range(count):
        seconds = rng.choice([0.02, 0.05, 0.1, 0.4])
        before = (f"n{number - 7}",) if number >= 7 and number % 3 else ()
        nodes.append(Node(f"n{number}", ("sleep", str(seconds)), needs=before, seconds=seconds))
    (work / "out").mkdir(exist_ok=True)
    plan = RunPlan(work / "chains", work / "out", {}, tuple(nodes))
    ideal = sum(node.seconds for node in nodes) / 2

    def tidy() -> None:
        shutil.rmtree(plan.directory, ignore_errors=True)
        write_plan(plan)

    took = in_turn({"chains": (engine(plan.directory), tidy)}, work, runs)["chains"]
    share = 100 * ideal / took.wall_s
    table.row(f"uneven chains, {count} nodes", took, None, remark=f"{share:.0f}% in use; goal: 90%")


def main() -> None:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--runs", type=int, default=3, help="runs of each row, of which the best counts")
    given = parser.parse_args()
    print("\n".join(versions(("make", "parallel", "xargs"))))
    table = Table("ms a node", "x make", name_width=32)
    for stage, count in ((touches, 1000), (makers, 200), (chains, 80)):
        with tempfile.TemporaryDirectory(prefix="awe-bench-engine-") as work:
            stage(table, Path(work), count // 10 if given.quick else count, given.runs)


if __name__ == "__main__":
    main()
