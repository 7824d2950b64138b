"""`awe-node`, and our own programs run warm: one after the other in one process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from awetools.commands import warm
from awetools.core.engines.export import to_makefile, to_script
from awetools.core.engines.local import Finished, Slots, run
from awetools.core.engines.planfile import Node, RunPlan, write_plan
from awetools.core.engines.states import NodeState
from awetools.core.products import open_product
from awetools.core.store import Store
from tests.support import ROOT, awe, program, write_raw

HOSTILE = "a b'c\"d$e\\é"


def sh(name: str, text: str, **more: Any) -> Node:
    return Node(name, ("sh", "-c", text), **more)


def plan_of(directory: Path, *nodes: Node, environment: dict[str, str] | None = None) -> Path:
    root = directory / "runs"
    root.mkdir(exist_ok=True)
    write_plan(RunPlan(directory / "plan", root, environment or {}, nodes))
    return directory / "plan"


# awe-node


def test_a_pack_goes_on_after_a_failure_and_ends_with_the_worst(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        Node("first", ("sh", "-c", ': > "$0"; echo "$0"', HOSTILE)),
        sh("bad", "echo oh dear >&2; exit 4"),
        sh("child", "true", needs=("bad",)),
        sh("second", "echo two; : > two", needs=("first",)),
    )
    ran = program("node", plan, "second", "child", "bad", "first", cwd=tmp_path)
    assert ran.code == 4
    assert ran.lines == [f"{tmp_path}/runs/{HOSTILE}", f"{tmp_path}/runs/two"]
    assert "bad: ended with 4: oh dear" in ran.err and "child: blocked: it needs bad" in ran.err
    assert "awe-node: 2 done, 2 failed" in ran.err
    status = program("node", plan, "--status").lines
    assert [line.split("\t")[:2] for line in status] == [
        ["first", "done"],
        ["bad", "failed"],
        ["child", "blocked"],
        ["second", "done"],
    ]
    assert status[0].endswith(HOSTILE) and status[1].endswith("\t-")
    assert [
        json.loads(line)["status"] for line in program("node", plan, "child", "--status", "--json").lines
    ] == ["blocked"]


def test_one_node_at_a_time_from_the_states_of_others(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, sh("a", "echo made"), Node("b", ("echo", "--x=@{a}"), needs=("a",)))
    ran = program("node", plan / "plan.jsonl", "b")
    assert ran.code == 5 and ran.out == "" and "b: blocked: it needs a, which has not run" in ran.err
    assert program("node", plan, "--status").lines[0] == "a\tpending\t-\t-"
    assert program("node", plan, "a").code == 0
    ran = program("node", plan, "b", "--json")
    state = json.loads(ran.out)
    assert ran.code == 0 and (state["status"], state["product"]) == ("done", "--x=made")


def test_names_come_through_pipes_and_done_nodes_are_left(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, sh("a", "echo x >> ran; echo ran"), sh("b", "true"))
    assert program("node", plan, stdin="a\nb\na\n").code == 0
    ran = program("node", plan, "a")
    assert ran.code == 0 and ran.lines == [f"{tmp_path}/runs/ran"] and "done before" in ran.err
    assert (tmp_path / "runs" / "ran").read_text() == "x\n"
    assert program("node", plan, "a", "--again").code == 0
    assert (tmp_path / "runs" / "ran").read_text() == "x\nx\n"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["plan", "biass"], 2, "no node 'biass' (nearest: bias)"),
        (["nothing", "bias"], 4, "nothing: no such plan"),
        (["plan"], 4, "empty-input"),
        ([], 2, "Missing argument 'PLAN'"),
        (["plan", ""], 2, "empty name"),
        (["plan", "--status", "--again"], 2, "--again"),
        (["plan/runs", "bias"], 4, "plan.jsonl"),
    ],
)
def test_bad_input(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    plan = plan_of(tmp_path, sh("bias", "true"))
    (plan / "runs").mkdir()
    ran = program("node", *arguments, cwd=tmp_path, stdin="")
    assert ran.code == code and words in ran.err and ran.out == "", ran.err


def test_a_plan_that_is_cut_short_is_refused_by_its_line(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, sh("a", "true"), sh("b", "true"))
    text = (plan / "plan.jsonl").read_text()
    (plan / "plan.jsonl").write_text(text[:-20])
    ran = program("node", plan, "--status")
    assert ran.code == 4 and "line 2: not JSON" in ran.err
    assert program("node", plan, "a").code == 0


def start_node(plan: Path, *names: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "awetools", "node", str(plan), *names],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def wait_for(path: Path) -> None:
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_two_copies_of_a_node_run_it_once(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, sh("a", "echo x >> ran; while test ! -e gate; do sleep 0.02; done; echo ran"))
    first = start_node(plan, "a")
    wait_for(tmp_path / "runs" / "ran")
    second = start_node(plan, "a")
    assert program("node", plan, "--status").lines[0].startswith("a\trunning\t")
    (tmp_path / "runs" / "gate").touch()
    for one in (first, second):
        out, err = one.communicate(timeout=20)
        assert one.returncode == 0, err
        assert out == f"{tmp_path}/runs/ran\n"
    assert (tmp_path / "runs" / "ran").read_text() == "x\n"


def test_terminated_it_records_nothing(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, sh("a", "touch begun; sleep 391.3"), sh("b", "true"))
    node = start_node(plan, "a", "b")
    wait_for(tmp_path / "runs" / "begun")
    node.send_signal(signal.SIGTERM)
    _, err = node.communicate(timeout=20)
    assert node.returncode == 143 and "terminated" in err
    assert not list((plan / "state").iterdir())


# Our programs, warm


@pytest.fixture
def one_process() -> Iterator[None]:
    """This process keeps what a worker keeps, and lets go of it afterwards."""
    warm.keep()
    yield
    warm._kept.clear()


def reducing(store: Store) -> list[Node]:
    """Nodes that make a bias, what follows from it, and frames reduced with it, from raw frames alone."""
    asked = {"raw_bias": [], "raw_domeflat": ["filter=R"], "raw_science": ["filter=R"]}
    raw = {
        kind: awe("query", kind, "detector=sim1", *conditions, cwd=store.root).split()
        for kind, conditions in asked.items()
    }
    flats, science = raw["raw_domeflat"], raw["raw_science"]
    without = ("--no-dark", "--no-fringe", "--no-gain", "--no-readnoise")
    return [
        Node(
            "bias-1",
            ("awe-bias", "-u", "--json", "--no-readnoise", *raw["raw_bias"]),
            inputs=tuple(raw["raw_bias"]),
        ),
        Node("hotpix-1", ("awe-hotpix", "-u", "--json", "@{bias-1}"), needs=("bias-1",)),
        Node("cold-1", ("awe-coldpix", "-u", "--json", "/no such file.fits")),
        Node(
            "dome-1",
            (
                "awe-domeflat",
                "-u",
                "--json",
                "--bias=@{bias-1}",
                "--hotpix=@{hotpix-1}",
                *without[:1],
                *without[2:],
                *flats,
            ),
            needs=("bias-1", "hotpix-1"),
            inputs=tuple(flats),
        ),
        Node(
            "flat-1",
            ("awe-flat", "-u", "--json", "--no-nightflat", "--no-twiflat", "--no-coldpix", "@{dome-1}"),
            needs=("dome-1",),
        ),
        *(
            Node(
                f"reduced-{i}",
                (
                    "awe-reduce",
                    "-u",
                    "--json",
                    "--bias=@{bias-1}",
                    "--flat=@{flat-1}",
                    "--hotpix=@{hotpix-1}",
                    "--coldpix=@{cold-1}",
                    *without,
                    one,
                ),
                needs=("bias-1", "flat-1"),
                wants=("hotpix-1", "cold-1"),
                inputs=(one,),
            )
            for i, one in enumerate(science[:2])
        ),
    ]


def keys_of(store: Store) -> dict[str, str]:
    """The name and content of every product of a store."""
    paths = [path for path in store.root.rglob("*.fits") if ".awe" not in path.parts]
    return {path.name: open_product(path).record["product"]["content"] for path in paths}


def run_plan(store: Store, directory: Path) -> tuple[RunPlan, dict[str, NodeState]]:
    plan = RunPlan(directory, store.root, {}, tuple(reducing(store)))
    write_plan(plan)
    warm.preload(node.argv for node in plan.nodes)
    return plan, run(plan, Slots(2), warm.warm())


def test_warm_nodes_make_what_programs_make(store: Store, tmp_path: Path) -> None:
    plan, states = run_plan(store, tmp_path / "plan")
    failed = {name: state.error for name, state in states.items() if state.status != "done"}
    assert list(failed) == ["cold-1"] and "no-such-file" in failed["cold-1"]
    state = states["reduced-0"]
    assert state.action == "made" and len(state.recipe_key) == 64 and state.flags == ()
    record = open_product(Path(state.product)).record
    assert record["recipe"]["without"] and "coldpix" in record["recipe"]["without"]
    assert record["run"]["argv"][:2] == ["awe-reduce", "-u"]
    assert {one["role"] for one in record["recipe"]["inputs"]} == {"raw", "bias", "flat", "hotpix"}
    made = keys_of(store)
    again = RunPlan(tmp_path / "again", store.root, {}, plan.nodes)
    write_plan(again)
    assert {one.action for one in run(again, Slots(2), warm.warm()).values()} == {"up-to-date", ""}
    for export in ("script", "make"):
        _remove_products(store)
        _run_export(plan, export, tmp_path)
        assert keys_of(store) == made, export


def _remove_products(store: Store) -> None:
    for path in store.root.rglob("*"):
        if ".awe" not in path.parts and path.is_file():
            path.unlink()


def _run_export(plan: RunPlan, export: str, directory: Path) -> None:
    programs = directory / "bin"
    programs.mkdir(exist_ok=True)
    for name in ("bias", "hotpix", "coldpix", "domeflat", "flat", "reduce"):
        path = programs / f"awe-{name}"
        path.write_text(f'#!/bin/sh\nexec {sys.executable} -m awetools {name} "$@"\n')
        path.chmod(0o755)
    text = to_script(plan) if export == "script" else to_makefile(plan)
    assert "--json" not in text
    path = directory / export
    path.write_text(text)
    command = ["sh", path] if export == "script" else ["make", "-s", "-k", "-j2", "-f", path]
    ran = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{programs}:{os.environ['PATH']}"},
        check=False,
    )
    assert ran.returncode == (4 if export == "script" else 2), ran.stderr
    assert "cold-1" in ran.stderr


def test_a_pack_of_our_programs_needs_no_index(store: Store, tmp_path: Path) -> None:
    plan = tmp_path / "plan"
    write_plan(RunPlan(plan, store.root, {}, tuple(reducing(store))))
    names = ("flat-1", "dome-1", "bias-1", "hotpix-1", "reduced-0", "cold-1")
    ran = program("node", plan, *names, cwd="/")  # type: ignore[arg-type]
    assert ran.code == 4 and len(ran.lines) == 5
    assert "awe-node: no-such-file: cold-1: /no such file.fits" in ran.err
    assert all(Path(line).is_file() for line in ran.lines)


def test_flags_of_a_product_stop_what_hangs_on_it(store: Store, tmp_path: Path) -> None:
    (store.awe / "awe.toml").write_text("[bias.limits]\nlevel_adu = [5, 6]\n")
    seen: list[Finished] = []
    plan = RunPlan(tmp_path / "plan", store.root, {}, tuple(reducing(store)))
    write_plan(plan)
    states = run(
        plan, Slots(2), warm.warm(), lambda event: isinstance(event, Finished) and seen.append(event)
    )
    assert states["bias-1"].flags == ("level_adu",) and states["hotpix-1"].status == "blocked"
    write_plan(again := RunPlan(tmp_path / "again", store.root, {}, plan.nodes))
    states = run(again, Slots(2), warm.warm())
    assert (states["bias-1"].action, states["bias-1"].flags) == ("up-to-date", ("level_adu",))


def test_kept_settings_are_read_again_when_their_files_change(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_process: None
) -> None:
    frames = awe("query", "raw_bias", "detector=sim1").split()
    settings = store.awe / "awe.toml"

    def sigma() -> object:
        assert (
            warm.run_program(["awe-bias", "-q", "-o", str(tmp_path / "b.fits"), "--no-readnoise", *frames])
            == 0
        )
        return open_product(tmp_path / "b.fits").record["recipe"]["parameters"]["clip_sigma"]["value"]

    first = sigma()
    assert warm.checked_workspace() is warm.checked_workspace()
    settings.write_text("[bias]\nclip_sigma = 4.5\n")
    assert first != 4.5 and sigma() == 4.5
    settings.write_text("[bias]\nclip_sigma = 5.5\n")
    assert sigma() == 5.5
    settings.write_text("[bias]\nclip_sgima = 5.5\n")
    assert warm.run_program(["awe-bias", "-q", *frames]) == 2
    settings.unlink()
    assert sigma() == first
    monkeypatch.chdir(tmp_path)
    (tmp_path / "awe.toml").write_text("[bias]\nclip_sigma = 6.5\n")
    assert sigma() == 6.5


def test_kept_calibrations_are_those_on_disk(store: Store, tmp_path: Path, one_process: None) -> None:
    raw = awe("query", "raw_science", "detector=sim1").split()[0]
    frames = awe("query", "raw_bias", "detector=sim1").split()
    bias = awe("bias", "-q", "-o", tmp_path / "bias.fits", *frames).strip()
    command = ["awe-reduce", "-q", f"--bias={bias}", "--no-flat", "--out-dir", str(tmp_path), "--force", raw]
    assert warm.run_program(command) == 0
    kept = warm.loader()
    assert kept.kept and warm.loader() is kept
    # Another bias under the same name: the frame is reduced with it.
    first = open_product(next(tmp_path.glob("sim_*.fits"))).content
    awe("bias", "-q", "--clip-sigma", "1.5", "-o", bias, "--force", *frames[:3])
    assert warm.run_program(command) == 0
    assert open_product(next(tmp_path.glob("sim_*.fits"))).content != first


def test_a_program_by_itself_keeps_nothing(store: Store) -> None:
    assert warm.checked_workspace() is not warm.checked_workspace()
    assert warm.loader() is not warm.loader()
    assert warm.takes(["awe-bias"]) and not warm.takes(["sh"]) and not warm.takes(["awe-nothing"])


def test_a_program_that_ends_in_its_own_way(tmp_path: Path, one_process: None) -> None:
    raw = write_raw(tmp_path / "a.fits", __import__("numpy").zeros((4, 4), "uint16"))
    nodes = (
        Node("usage", ("awe-bias", "--no-such")),
        Node("help", ("awe-bias", "--help")),
        Node("header", ("awe-header", str(raw))),
        Node("stdin", ("awe-imstat",)),
    )
    plan = RunPlan(tmp_path / "plan", tmp_path, {}, nodes)
    write_plan(plan)
    states = run(plan, Slots(1), warm.warm())
    assert [state.code for state in states.values()] == [2, 0, 0, 4]
    assert "Usage" in plan.log_path("help").read_text()
