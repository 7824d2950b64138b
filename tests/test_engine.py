"""Plans, the engine that runs them, and what is exported of them: real processes, killed and interrupted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awetools.core.engines.export import to_json_lines, to_makefile, to_script
from awetools.core.engines.local import Event, Finished, Retrying, Slots, Started, Warm, run
from awetools.core.engines.planfile import Node, RunPlan, check_nodes, in_order, read_plan, write_plan
from awetools.core.engines.ready import Ready, way_lengths
from awetools.core.engines.states import (
    NodeState,
    arguments_of,
    error_of,
    exit_code_of,
    product_of,
    read_state,
)
from awetools.core.errors import AweError, BadValue, NoSuchFile, Unavailable, UnknownName, Unreadable
from awetools.core.memory import resident_bytes
from tests.support import ROOT

HOSTILE = "a b'c\"d$e#f%g\\h*i?j[k]l~m&n|o;p<q>r(s)t{u}v!w`x,y=z:é"


def sh(name: str, text: str, **more: Any) -> Node:
    return Node(name, ("sh", "-c", text), **more)


def plan_of(directory: Path, *nodes: Node, environment: dict[str, str] | None = None) -> RunPlan:
    root = directory / "work"
    root.mkdir(exist_ok=True)
    plan = RunPlan(directory / "plan", root, environment or {}, nodes)
    write_plan(plan)
    return plan


def statuses(states: dict[str, NodeState]) -> dict[str, str]:
    return {name: state.status for name, state in states.items()}


def alive(words: str) -> bool:
    """Whether a process runs whose command line holds these words."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if words.encode() in (entry / "cmdline").read_bytes() and "Z" not in state_letter(entry):
                    return True
            except OSError:
                continue
    return False


def state_letter(entry: Path) -> str:
    return (entry / "stat").read_text().rpartition(")")[2].split()[0]


def wait_for(condition: Any, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


# Plans on disk


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    nodes = (
        Node("a.1", ("sh", "-c", "true", HOSTILE, "\udcff\n"), inputs=("/x y",), outputs=("o",), seconds=1.5),
        Node("b-2", ("x", "@{a.1}"), needs=("a.1",), cpus=2, memory_mb=30, retries=3, timeout_s=2),
        Node("c", ("x", "--flat=@{b-2}"), wants=("b-2",)),
    )
    plan = plan_of(tmp_path, *nodes, environment={"X": HOSTILE})
    for path in (plan.directory, plan.directory / "plan.jsonl"):
        again = read_plan(path)
        assert (again.nodes, again.root, again.environment) == (nodes, plan.root, {"X": HOSTILE})
    assert read_plan(plan.directory, {"b-2"}).nodes == nodes[1:2]
    assert to_json_lines(plan) == (plan.directory / "plan.jsonl").read_text()


@pytest.mark.parametrize(
    ("nodes", "error", "words"),
    [
        ([sh("a", "x"), sh("a", "y")], BadValue, "two nodes a"),
        ([sh("a", "x", needs=("bias1",)), sh("bias-1", "y")], UnknownName, "nearest: bias-1"),
        (
            [
                sh("a", "x", needs=("c",)),
                sh("b", "x", wants=("a",)),
                sh("c", "x", needs=("b",)),
                sh("d", "x"),
            ],
            BadValue,
            "-> ",
        ),
        ([sh("a", "x", needs=("a",))], BadValue, "a -> a"),
        ([sh("a", "x", outputs=("f",)), sh("b", "x", outputs=("f",))], BadValue, "nodes a and b"),
        ([sh("a b", "x")], BadValue, "'a b'"),
        ([sh("-a", "x")], BadValue, "'-a'"),
        ([sh("x" * 65, "x")], BadValue, "64"),
        ([Node("a", ())], BadValue, "no program"),
        ([sh("a", "x\0")], BadValue, "NUL"),
        ([sh("a", "x", cpus=0)], BadValue, "cpus = 0"),
        ([sh("a", "x", seconds=float("nan"))], BadValue, "seconds"),
        ([sh("a", "x", timeout_s=0)], BadValue, "timeout_s"),
        ([sh("a", "x"), Node("b", ("x", "@{a}"))], BadValue, "neither needs nor wants"),
        ([sh("a", "x"), Node("b", ("x", "@{a}"), wants=("a",))], BadValue, "--ROLE"),
        ([sh("a", "x"), sh("b", "x", needs=("a",), wants=("a",))], BadValue, "both"),
    ],
)
def test_what_cannot_be_run_is_refused(
    tmp_path: Path, nodes: list[Node], error: type[AweError], words: str
) -> None:
    with pytest.raises(error, match="the plan") as caught:
        write_plan(RunPlan(tmp_path / "plan", tmp_path, {}, tuple(nodes)))
    assert words in caught.value.message
    assert not (tmp_path / "plan" / "plan.jsonl").exists()


def test_a_cycle_is_named_in_full(tmp_path: Path) -> None:
    nodes = [sh(f"n{i}", "x", needs=(f"n{(i + 1) % 4}",)) for i in range(4)] + [sh("z", "x", needs=("n1",))]
    with pytest.raises(BadValue) as caught:
        check_nodes(nodes)
    names = caught.value.message.rpartition(": ")[2].split(" -> ")
    assert len(names) == 5 and names[0] == names[-1] and set(names) == {"n0", "n1", "n2", "n3"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"id": "b", "argv": ["x"]', "line 2: not JSON"),
        ("[1]", "line 2"),
        ('{"id": "b"}', "line 2: argv is missing"),
        ('{"id": "b", "argv": "x"}', "line 2: argv is not a list"),
        ('{"id": "b", "argv": ["x"], "cpu": 1}', "line 2: a node has no 'cpu' (nearest: cpus)"),
        ('{"id": "b", "argv": ["x"], "cpus": true}', "line 2: cpus"),
        ('{"id": "b", "argv": [1]}', "line 2: argv[0]"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, words: str) -> None:
    plan = plan_of(tmp_path, sh("a", "true"))
    with (plan.directory / "plan.jsonl").open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(Unreadable) as caught:
        read_plan(plan.directory)
    assert words in caught.value.message


def test_plans_that_are_absent_or_newer(tmp_path: Path) -> None:
    with pytest.raises(NoSuchFile):
        read_plan(tmp_path / "nothing")
    plan = plan_of(tmp_path, sh("a", "true"))
    (plan.directory / "run.json").write_text('{"schema": 2, "root": "/"}')
    with pytest.raises(Unreadable, match="schema version 2"):
        read_plan(plan.directory)


@st.composite
def graphs(draw: st.DrawFn) -> list[Node]:
    count = draw(st.integers(1, 12))
    nodes = []
    for i in range(count):
        before = draw(st.sets(st.integers(0, count - 1), max_size=3)) if i else set()
        names = tuple(f"n{j}" for j in sorted(before) if j < i)
        cpus, memory_mb = draw(st.integers(1, 4)), draw(st.integers(0, 300))
        cut = draw(st.integers(0, len(names)))
        nodes.append(
            Node(
                f"n{i}",
                ("x",),
                needs=names[:cut],
                wants=names[cut:],
                cpus=cpus,
                memory_mb=memory_mb,
                seconds=draw(st.floats(0, 9)),
            )
        )
    return draw(st.permutations(nodes))


@given(graphs())
def test_the_order_is_one_in_which_they_can_run_and_long_ways_are_long(nodes: list[Node]) -> None:
    seen: set[str] = set()
    length = way_lengths(nodes)
    for node in in_order(nodes):
        assert set(node.before) <= seen
        seen.add(node.id)
        assert all(length[one] > length[node.id] for one in node.before)
    assert len(seen) == len(nodes)


@given(graphs(), st.integers(1, 3), st.integers(1, 200))
def test_tokens_are_never_overdrawn_and_all_nodes_get_their_turn(
    nodes: list[Node], cpus: int, memory_mb: int
) -> None:
    slots = Slots(cpus, memory_mb)
    ready = Ready(slots, nodes)
    for node in nodes:
        ready.push(node)
    running: list[Node] = []
    ended = 0
    while ended < len(nodes):
        while (node := ready.take()) is not None:
            running.append(node)
        assert running
        large = [one for one in running if one.cpus > cpus or one.memory_mb > memory_mb]
        assert len(running) == 1 if large else sum(one.memory_mb for one in running) <= memory_mb
        assert large or sum(one.cpus for one in running) <= cpus
        ready.give_back(running.pop(0))
        ended += 1


def test_a_large_node_is_not_passed_for_ever() -> None:
    large, small = Node("large", ("x",), cpus=2, seconds=99), [Node(f"s{i}", ("x",)) for i in range(200)]
    ready = Ready(Slots(2), [large, *small])
    for node in small[:2]:
        ready.push(node)
    running = [ready.take(), ready.take()]
    for node in (large, *small[2:]):
        ready.push(node)
    started = 0
    while large not in running:
        first = running.pop(0)
        assert first is not None
        ready.give_back(first)
        while (node := ready.take()) is not None:
            running.append(node)
            started += 1
        assert started < 60


# Running


def test_products_go_where_they_are_asked_for(tmp_path: Path) -> None:
    text = 'echo noise; printf "%s\\n" "$1"'
    plan = plan_of(
        tmp_path,
        Node("a", ("sh", "-c", text, "sh", HOSTILE)),
        sh("bad", "echo never; exit 3"),
        sh("silent", "true"),
        Node("json", ("echo", json.dumps({"path": "p q", "action": "made", "recipe_key": "k", "flags": []}))),
        Node("flagged", ("echo", json.dumps({"path": "f", "flags": ["sky_adu"]}))),
        Node(
            "c",
            (
                "printf",
                "%s\\n",
                "@{a}",
                "--x=@{json}",
                "--b=@{bad}",
                "--s-t=@{silent}",
                "--f=@{flagged}",
                "end",
            ),
            needs=("a",),
            wants=("json", "bad", "silent", "flagged"),
        ),
        sh("d", "true", needs=("flagged",)),
        sh("e", "true", needs=("d",)),
        sh("g", "true", needs=("silent",)),
        Node("h", ("echo", "@{silent}"), needs=("silent",)),
    )
    states = run(plan, Slots(2))
    assert states["a"].product == HOSTILE
    assert (states["json"].product, states["json"].action, states["json"].recipe_key) == ("p q", "made", "k")
    assert states["flagged"].flags == ("sky_adu",) and states["flagged"].status == "done"
    log = plan.log_path("c").read_text().splitlines()
    assert log[1:] == [HOSTILE, "--x=p q", "--no-b", "--no-s-t", "--no-f", "end"]
    assert states["d"].status == "blocked" and "flagged: sky_adu" in states["d"].error
    assert states["e"].status == "blocked" and "needs d, which is blocked" in states["e"].error
    assert states["g"].status == "done"
    assert states["h"].status == "blocked" and "printed no path" in states["h"].error
    for name, state in states.items():
        assert read_state(plan, name) == state


def test_a_failure_stops_what_hangs_on_it_and_nothing_else(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        sh("bad", "echo one >&2; echo two >&2; exit 4"),
        sh("child", "true", needs=("bad",)),
        sh("grandchild", "true", needs=("child",)),
        sh("sibling", "sleep 0.05"),
        sh("nephew", "true", needs=("sibling",), wants=("bad", "child")),
        Node("absent", ("no-such-program-here",)),
        sh("liar", "true", outputs=("promised",)),
    )
    seen: list[Event] = []
    states = run(plan, Slots(2), on_event=seen.append)
    assert statuses(states) == {
        "bad": "failed",
        "child": "blocked",
        "grandchild": "blocked",
        "sibling": "done",
        "nephew": "done",
        "absent": "failed",
        "liar": "failed",
    }
    assert states["bad"].code == 4 and states["bad"].error == "one\ntwo"
    assert states["absent"].code == 127 and "no-such-program-here" in states["absent"].error
    assert "promised" in states["liar"].error
    assert "needs bad, which has failed (4)" in error_of(plan, states["child"]).message
    codes = {name: exit_code_of(state) for name, state in states.items()}
    assert codes == {"bad": 4, "child": 5, "grandchild": 5, "sibling": 0, "nephew": 0, "absent": 7, "liar": 6}
    assert [one.node.id for one in seen if isinstance(one, Finished)].count("bad") == 1
    assert {one.node.id for one in seen if isinstance(one, Started)} == {"bad", "sibling", "nephew", "liar"}


def test_fail_fast_starts_nothing_more(tmp_path: Path) -> None:
    nodes = [sh("bad", "exit 4", seconds=9), *(sh(f"n{i}", f"touch n{i}") for i in range(20))]
    states = run(plan_of(tmp_path, *nodes), Slots(1), fail_fast=True)
    assert states["bad"].status == "failed"
    assert {state.status for name, state in states.items() if name != "bad"} == {"blocked"}
    assert not list((tmp_path / "work").iterdir())


def test_the_environment_and_directory_of_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWE_BIAS_CLIP_SIGMA", "3")
    monkeypatch.chdir("/")
    node = sh("a", 'pwd; printf "%s %s\\n" "$X" "$AWE_BIAS_CLIP_SIGMA"; cat; trap - PIPE')
    plan = plan_of(tmp_path, node, environment={"X": HOSTILE, "AWE_BIAS_CLIP_SIGMA": "4"})
    run(plan, Slots(1))
    assert plan.log_path("a").read_text().splitlines()[1:] == [str(plan.root), f"{HOSTILE} 4"]
    assert Path.cwd() == Path("/")


def held_mb() -> int:
    """What the process of the tests holds, which is that of its forked children at first."""
    return resident_bytes() >> 20


def test_what_a_node_took_is_on_record(tmp_path: Path) -> None:
    text = f'{sys.executable} -c "b = bytearray(120 << 20); s = sum(range(3000000))"; sleep 0.1'
    state = run(plan_of(tmp_path, sh("a", text)), Slots(1))["a"]
    assert 0.1 < state.wall_s < 30 and 0.02 < state.cpu_s < 30
    assert 100 < state.peak_memory_mb < 400 + held_mb()
    assert state.start < state.end and state.attempts == 1 and state.host


def test_retries_only_where_they_may_help(tmp_path: Path) -> None:
    text = 'echo x >> "$0"; test $(wc -l < "$0") -ge 3 || exit 7'
    plan = plan_of(
        tmp_path,
        Node("seven", ("sh", "-c", text, "s"), retries=3),
        sh("killed", "echo x >> k; kill -9 $$", retries=1),
        sh("four", "echo x >> four; exit 4", retries=3),
        sh("bug", "echo x >> bug; exit 1", retries=3),
    )
    seen: list[Event] = []
    states = run(plan, Slots(4), on_event=seen.append)
    assert statuses(states) == {"seven": "done", "killed": "killed", "four": "failed", "bug": "failed"}
    assert [states[name].attempts for name in ("seven", "killed", "four", "bug")] == [3, 2, 1, 1]
    assert states["killed"].signal == signal.SIGKILL
    pauses = [one.pause_s for one in seen if isinstance(one, Retrying) and one.node.id == "seven"]
    assert pauses == [0.5, 1.0]
    assert (tmp_path / "work" / "k").read_text().count("x") == 2


def test_a_node_out_of_time_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        sh("slow", "sleep 31.7 & sleep 31.7; true", timeout_s=0.3),
        sh("deaf", "trap '' TERM; while :; do sleep 0.05; done; : 31.8", timeout_s=0.3),
        sh("well", "sleep 0.1", timeout_s=30),
    )
    start = time.monotonic()
    states = run(plan, Slots(3))
    assert statuses(states) == {"slow": "timeout", "deaf": "timeout", "well": "done"}
    assert time.monotonic() - start < 10
    assert exit_code_of(states["deaf"]) == 7 and not alive("31.7") and not alive("31.8")


def test_strays_of_a_node_are_ended_with_it(tmp_path: Path) -> None:
    states = run(plan_of(tmp_path, sh("a", "sleep 32.3 & sleep 32.3 & echo done")), Slots(1))
    assert states["a"].product == "done" and states["a"].wall_s < 5 and not alive("32.3")


def test_tokens_hold_nodes_apart(tmp_path: Path) -> None:
    text = "test ! -e busy || exit 4; touch busy; sleep 0.05; rm busy"
    nodes = [sh(f"m{i}", text, memory_mb=60) for i in range(4)]
    states = run(
        plan_of(tmp_path, *nodes, sh("huge", text, memory_mb=900), sh("wide", text, cpus=99)), Slots(4, 100)
    )
    assert set(statuses(states).values()) == {"done"}


def test_two_cores_are_used_at_a_time(tmp_path: Path) -> None:
    text = 'touch "$0"; while test ! -e "$1"; do sleep 0.01; done'
    nodes = (Node("a", ("sh", "-c", text, "a", "b")), Node("b", ("sh", "-c", text, "b", "a")))
    assert set(statuses(run(plan_of(tmp_path, *nodes), Slots(2))).values()) == {"done"}


def test_done_nodes_are_not_run_again(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        sh("a", "echo x >> ran; touch made; echo made"),
        sh("b", "echo x >> ran-b", needs=("a",), outputs=("ran-b",)),
    )
    runs = tmp_path / "work" / "ran"
    run(plan, Slots(1))
    seen: list[Event] = []
    run(plan, Slots(1), on_event=seen.append)
    assert [one.skipped for one in seen if isinstance(one, Finished)] == [True, True]
    run(plan, Slots(1), again=True)
    assert runs.read_text() == "x\nx\n"
    (tmp_path / "work" / "made").unlink()
    # What hangs on a node that ran again runs again too.
    run(plan, Slots(1))
    assert runs.read_text() == "x\n" * 3 and (tmp_path / "work" / "ran-b").read_text() == "x\n" * 3
    plan.state_path("a").write_text("{")
    run(plan, Slots(1))
    assert runs.read_text() == "x\n" * 4
    other = RunPlan(plan.directory, plan.root, {}, (sh("a", "echo x >> ran; echo made # changed"),))
    run(other, Slots(1))
    assert runs.read_text() == "x\n" * 5


def test_a_plan_that_cannot_be_written_to(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, sh("a", "true"))
    shutil.rmtree(plan.directory / "log")
    with pytest.raises(Unavailable, match=r"a\.log"):
        run(plan, Slots(1))
    with pytest.raises(Unavailable, match="gone"):
        run(RunPlan(plan.directory, tmp_path / "gone", {}, plan.nodes), Slots(1))


def test_what_is_said_of_an_event_may_fail(tmp_path: Path) -> None:
    def fail(event: Event) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run(plan_of(tmp_path, sh("a", "sleep 33.1")), Slots(1), on_event=fail)
    assert not alive("33.1")


def test_it_runs_in_a_thread_too(tmp_path: Path) -> None:
    import threading

    plan = plan_of(tmp_path, *(sh(f"n{i}", "true") for i in range(5)))
    states: dict[str, NodeState] = {}
    thread = threading.Thread(target=lambda: states.update(run(plan, Slots(2))))
    thread.start()
    thread.join(30)
    assert len(states) == 5


# Warm workers


def warm_run(argv: Sequence[str]) -> int:
    """What the workers of these tests do with a command line that begins with `warm`."""
    words = list(argv[1:])
    if words[0] == "say":
        os.write(1, (words[1] + "\n").encode())
        os.write(2, b"said\n")
    elif words[0] == "pid":
        os.write(1, f"{os.getpid()} {os.getcwd()} {os.environ.get('X')}\n".encode())
    elif words[0] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif words[0] == "sleep":
        time.sleep(float(words[1]))
    elif words[0] == "stray":
        subprocess.Popen(["sleep", words[1]])
    elif words[0] == "raise":
        raise ValueError("what a bug says")
    elif words[0] == "memory":
        globals()["kept"] = bytearray(int(words[1]) << 20)
    return int(words[-1]) if words[0] == "exit" else 0


WARM = Warm(lambda argv: argv[0] == "warm", warm_run)


def test_warm_workers_are_kept_and_isolated(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        *(Node(f"p{i}", ("warm", "pid")) for i in range(6)),
        Node("said", ("warm", "say", HOSTILE), needs=tuple(f"p{i}" for i in range(6))),
        Node("died", ("warm", "die"), needs=("said",)),
        Node("code", ("warm", "exit", "4"), needs=("said",)),
        Node("bug", ("warm", "raise"), needs=("said",)),
        Node("after", ("warm", "pid"), wants=("died", "code", "bug")),
        Node("long", ("warm", "say", "x" * 1_000_000)),
        sh("spawned", "echo s"),
        environment={"X": "y"},
    )
    states = run(plan, Slots(1), WARM)
    products = {states[f"p{i}"].product for i in range(6)}
    assert len(products) == 1
    assert products.pop() == f"{states['p0'].product.split()[0]} {plan.root} y" != str(os.getpid())
    assert states["said"].product == HOSTILE and states["long"].product == "x" * 1_000_000
    assert states["died"].status == "killed" and states["code"].code == 4
    assert states["bug"].code == 1 and "what a bug says" in states["bug"].error
    assert states["after"].status == "done" and states["after"].product != states["p0"].product
    assert states["spawned"].product == "s"
    assert "said" in plan.log_path("said").read_text()


def test_a_worker_killed_while_it_is_idle_is_replaced(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        Node("first", ("warm", "pid")),
        Node("killer", ("sh", "-c", "set -- $1; kill -9 $1; sleep 0.1", "sh", "@{first}"), needs=("first",)),
        Node("second", ("warm", "pid"), needs=("killer",)),
    )
    states = run(plan, Slots(1), WARM)
    assert set(statuses(states).values()) == {"done"}
    assert states["first"].product != states["second"].product


def test_warm_nodes_run_out_of_time_and_leave_no_strays(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        Node("slow", ("warm", "sleep", "60"), timeout_s=0.2),
        Node("stray", ("warm", "stray", "34.1")),
    )
    start = time.monotonic()
    assert statuses(run(plan, Slots(1), WARM)) == {"slow": "timeout", "stray": "done"}
    assert time.monotonic() - start < 10 and not alive("34.1")


def test_a_worker_that_has_grown_is_replaced(tmp_path: Path) -> None:
    held = held_mb()
    plan = plan_of(
        tmp_path,
        Node("a", ("warm", "pid")),
        Node("b", ("warm", "memory", f"{400 + held}"), needs=("a",)),
        Node("c", ("warm", "pid"), needs=("b",)),
        Node("d", ("warm", "pid"), needs=("c",)),
    )
    states = run(plan, Slots(1, 390 + held), WARM)
    assert states["b"].peak_memory_mb > 400 + held > states["d"].peak_memory_mb
    assert states["a"].product != states["c"].product == states["d"].product


# Ends


ENGINE = """
    import os, signal, sys, time
    from pathlib import Path
    from awetools.core.engines.local import Slots, Started, Warm, run
    from awetools.core.engines.planfile import read_plan

    def said(event):
        if isinstance(event, Started):
            print("started", event.node.id, flush=True)

    def sleep(argv):
        import subprocess
        subprocess.run(["sleep", argv[1]])
        return 0

    # Ignored, if the tests were started with nohup.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    warm = Warm(lambda argv: argv[0] == "warm", sleep)
    try:
        run(read_plan(Path(sys.argv[1])), Slots(3), warm, said)
    except KeyboardInterrupt:
        sys.exit(130)
"""


def start_engine(plan: RunPlan, count: int) -> subprocess.Popen[str]:
    """Start an engine as a process of its own, and wait until so many nodes run."""
    engine = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(ENGINE), str(plan.directory)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    assert engine.stdout is not None
    for _ in range(count):
        assert engine.stdout.readline().startswith("started")
    return engine


def end_of(engine: subprocess.Popen[str]) -> int:
    """The exit code of an engine."""
    engine.communicate(timeout=30)
    return engine.returncode


def sleepers(tmp_path: Path, seconds: str) -> RunPlan:
    return plan_of(
        tmp_path,
        sh("plain", f"sleep {seconds} & sleep {seconds}; echo"),
        Node("warm", ("warm", seconds)),
        sh("hidden", f"setsid sleep {seconds}; echo"),
        sh("after", "true", needs=("plain",)),
        sh("done", "true", seconds=9),
    )


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -15), (signal.SIGHUP, -1)]
)
def test_a_signal_ends_every_process_and_records_nothing_done(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    seconds = f"3{5 + number}.6"
    plan = sleepers(tmp_path, seconds)
    engine = start_engine(plan, 4)
    wait_for(lambda: alive(seconds))
    engine.send_signal(number)
    assert end_of(engine) == code
    wait_for(lambda: not alive(seconds))
    assert [path.name for path in (plan.directory / "state").iterdir()] == ["done.json"]


def test_an_engine_killed_leaves_no_process(tmp_path: Path) -> None:
    plan = sleepers(tmp_path, "377.9")
    engine = start_engine(plan, 4)
    wait_for(lambda: alive("377.9"))
    engine.kill()
    end_of(engine)
    wait_for(lambda: not alive("377.9"))
    wait_for(lambda: not alive(str(plan.directory)))
    assert [path.name for path in (plan.directory / "state").iterdir()] == ["done.json"]


def test_a_run_killed_is_finished_by_asking_again(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    text = f'echo x >> "$0"; test "$0" != n2 || test -e {gate} || sleep 378.1; echo "$0"'
    nodes = [Node(f"n{i}", ("sh", "-c", text, f"n{i}"), needs=(f"n{i - 1}",) if i else ()) for i in range(4)]
    plan = plan_of(tmp_path, *nodes)
    engine = start_engine(plan, 3)
    wait_for(lambda: (plan.root / "n2").exists() and (plan.root / "n2").read_text())
    engine.kill()
    end_of(engine)
    gate.touch()
    assert set(statuses(run(plan, Slots(2))).values()) == {"done"}
    counts = [(plan.root / f"n{i}").read_text().count("x") for i in range(4)]
    assert counts == [1, 1, 2, 1]


def test_two_engines_run_each_node_once(tmp_path: Path) -> None:
    nodes = [Node(f"n{i}", ("sh", "-c", 'echo x >> "$0"; sleep 0.2; echo "$0"', f"n{i}")) for i in range(12)]
    plan = plan_of(tmp_path, *nodes)
    engines = [start_engine(plan, 0) for _ in range(2)]
    for engine in engines:
        assert end_of(engine) == 0
    assert [(plan.root / f"n{i}").read_text() for i in range(12)] == ["x\n"] * 12


# Words


def test_errors_of_our_programs_are_said_as_they_said_them(tmp_path: Path) -> None:
    text = (
        "echo 'awe-bias: note' >&2; echo 'awe-bias: too-few: 1 frame' >&2; echo 'try: awe-query' >&2; exit 4"
    )
    plan = plan_of(tmp_path, sh("a", text), sh("b", "echo oh >&2; exit 9"))
    states = run(plan, Slots(1))
    error = error_of(plan, states["a"])
    assert (error.slug, error.message, error.hint) == ("too-few", "a: 1 frame", "awe-query")
    other = error_of(plan, states["b"])
    assert other.exit_code == 6 and other.message == "b: ended with 9: oh" and "b.log" in other.hint


@pytest.mark.parametrize(
    ("output", "product"),
    [
        (b"", None),
        (b"\n \n", None),
        (b"a\nb c\n\n", "b c"),
        (b'{"path": 3}', '{"path": 3}'),
        (b"{oops", "{oops"),
        (b'x\n{"path": "p"}\n', "p"),
        (b"caf\xe9", "caf\udce9"),
        (b"[" * 5000, "[" * 5000),
        (b'{"path":' + b"[" * 100_000, '{"path":' + "[" * 100_000),
    ],
)
def test_the_last_line_is_the_product(output: bytes, product: str | None) -> None:
    assert product_of(output).get("product") == product


@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_arguments_that_are_no_references_are_left_alone(words: list[str]) -> None:
    node = Node("a", ("x", *words))
    try:
        check_nodes([node])
    except BadValue:
        return
    assert arguments_of(node, {}) == node.argv


# Export


def copies(tmp_path: Path) -> RunPlan:
    """A plan whose nodes write files with hostile names, and of which two fail."""
    source = tmp_path / f"in {HOSTILE.replace('/', '')}.raw"
    source.write_text("raw")
    make = 'cat "$@" > "$0"; echo noise; printf "%s\\n" "$0"'
    join = 'out=$0; for one; do case $one in --no-*) echo "$one";; --*) cat "${one#*=}";; *) cat "$one";; esac; done'
    join += ' > "$out"; echo "$V" >> "$out"; printf "%s\\n" "$out"'
    return plan_of(
        tmp_path,
        Node("bias.1", ("sh", "-c", make, HOSTILE, str(source)), inputs=(str(source),)),
        Node("hot-1", ("sh", "-c", "exit 4")),
        Node("cold_1", ("sh", "-c", make, "cold", "@{bias.1}"), needs=("bias.1",)),
        Node(
            "red",
            ("sh", "-c", join, "red 1.fits", "@{bias.1}", "--hot=@{hot-1}", "--cold=@{cold_1}"),
            needs=("bias.1",),
            wants=("hot-1", "cold_1"),
        ),
        Node("late", ("sh", "-c", make, "late", "@{hot-1}"), needs=("hot-1",)),
        Node("last", ("sh", "-c", join, "last", "--x=@{red}"), needs=("red",)),
        Node("5", ("sh", "-c", make, "five", "@{last}"), needs=("last",)),
        environment={"V": "  " + HOSTILE + "\\"},
    )


def contents(root: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in root.iterdir()}


def test_make_and_the_shell_do_as_the_engine_does(tmp_path: Path) -> None:
    plan = copies(tmp_path)
    states = run(plan, Slots(2))
    assert statuses(states) == {
        "bias.1": "done",
        "hot-1": "failed",
        "cold_1": "done",
        "red": "done",
        "late": "blocked",
        "last": "done",
        "5": "done",
    }
    wanted = contents(plan.root)
    assert "--no-hot" in wanted["red 1.fits"] and HOSTILE in wanted
    shells = [name for name in ("sh", "bash", "dash", "busybox") if shutil.which(name)]
    (tmp_path / "run.sh").write_text(to_script(plan))
    for shell in shells:
        shutil.rmtree(plan.root)
        plan.root.mkdir()
        words = [shell, "sh"] if shell == "busybox" else [shell]
        ran = subprocess.run(
            [*words, tmp_path / "run.sh"], capture_output=True, text=True, cwd="/", check=False
        )
        assert contents(plan.root) == wanted, shell
        assert ran.returncode == 4 and "hot-1: failed (4)" in ran.stderr and "late: blocked" in ran.stderr
    if shutil.which("make"):
        _compare_make(tmp_path, plan, wanted)


def _compare_make(tmp_path: Path, plan: RunPlan, wanted: dict[str, str]) -> None:
    paths = tmp_path / "the paths"
    (tmp_path / "Makefile").write_text(to_makefile(plan, paths))
    command = ["make", "-f", tmp_path / "Makefile", "-k", "-j2"]
    shutil.rmtree(plan.root)
    plan.root.mkdir()
    ran = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    assert contents(plan.root) == wanted, ran.stderr
    assert ran.returncode == 2 and "hot-1 was not made" in ran.stderr
    assert (paths / "5.path").read_text().splitlines()[-1] == "five"
    # Again: only what failed, and what hangs on it, which no raw frame of its own is newer than.
    before = {path.name: path.stat().st_mtime_ns for path in plan.root.iterdir()}
    subprocess.run(command, capture_output=True, cwd="/", check=False)
    after = {path.name: path.stat().st_mtime_ns for path in plan.root.iterdir()}
    assert {name for name in after if after[name] != before[name]} == {"red 1.fits", "last", "five"}


@pytest.mark.parametrize("character", [*" !\"#$%&'()*+,-.:<>?@[]^_`{}~é", "\t", ";", "|", "=", "\\"])
def test_make_sees_that_an_input_of_any_name_is_newer(tmp_path: Path, character: str) -> None:
    if not shutil.which("make"):
        pytest.skip("GNU make is not installed")
    source = tmp_path / f"a{character}b"
    source.write_text("x")
    node = Node("n", ("sh", "-c", 'echo x >> ran; cat "$0"', str(source)), inputs=(str(source),))
    plan = plan_of(tmp_path, node)
    (tmp_path / "Makefile").write_text(to_makefile(plan))
    command = ["make", "-s", "-f", tmp_path / "Makefile"]
    for _ in range(2):
        subprocess.run(command, check=True, capture_output=True)
    assert (plan.root / "ran").read_text() == "x\n"
    if character in ";|=\\":
        assert "Not watched" in (tmp_path / "Makefile").read_text()
        return
    os.utime(source, (time.time() + 9, time.time() + 9))
    subprocess.run(command, check=True, capture_output=True)
    assert (plan.root / "ran").read_text() == "x\nx\n"


def test_what_a_text_cannot_hold_is_refused(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, sh("a", "echo\necho"))
    for export in (to_script, to_makefile):
        with pytest.raises(BadValue, match="node a"):
            export(plan)
    with pytest.raises(BadValue, match="directory"):
        to_makefile(plan_of(tmp_path, sh("a", "true")), tmp_path / "a;b")


def test_the_script_keeps_clear_of_names_of_the_shell(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        *(sh(name, "echo made") for name in ("PATH", "IFS", "if", "worst", "HOME1", "a.b1", "a-b1", "a_b1")),
    )
    (tmp_path / "run.sh").write_text(to_script(plan))
    ran = subprocess.run(["sh", tmp_path / "run.sh"], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
