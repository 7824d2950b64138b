"""Arguments of a plan that are there only if others were made: the same in the engine, in a script, under make."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from awetools.core.engines.export import to_makefile, to_script
from awetools.core.engines.local import run
from awetools.core.engines.planfile import (
    Node,
    RunPlan,
    check_nodes,
    conditional,
    only_if,
    why_not,
    write_plan,
)
from awetools.core.engines.states import Blocked, NodeState, arguments_of
from awetools.core.errors import BadValue

FAILS = "echo 'awe-x: no-solution: too few\tstars in ID' >&2; exit 6"


def sh(name: str, text: str, **more: object) -> Node:
    return Node(name, ("sh", "-c", text.replace("ID", name)), **more)  # type: ignore[arg-type]


def many(*names: str, fixed: tuple[str, ...] = ()) -> Node:
    """A node of many that writes its arguments, a line each, into a file."""
    words = []
    for name in names:
        words += [f"--of=@{{{name}}}{only_if([name])}", f"--left-out={name} $1.fits: {why_not([name])}"]
        words.append(f"@{{{name}}}{only_if([name])}")
    return Node("many", ("./many", *words, *fixed), wants=names)


def plan_of(folder: Path, *nodes: Node) -> RunPlan:
    folder.mkdir(exist_ok=True)
    program = folder / "many"
    program.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\" > many.txt\necho many.txt\n")
    program.chmod(0o755)
    return RunPlan(folder / "plan", folder, {}, nodes)


def carried_out(how: str, plan: RunPlan) -> int:
    if how == "engine":
        write_plan(plan)
        return 0 if run(plan)["many"].status == "done" else 5
    text = to_script(plan) if how == "sh" else to_makefile(plan)
    (plan.root / "it").write_text(text)
    words = ["sh", "it"] if how == "sh" else ["make", "-k", "-f", "it"]
    return subprocess.run(words, cwd=plan.root, capture_output=True, check=False).returncode


@pytest.mark.parametrize("how", ["engine", "sh", "make"])
def test_what_failed_is_left_out_and_the_reason_takes_its_place(tmp_path: Path, how: str) -> None:
    if how == "make" and shutil.which("make") is None:
        pytest.skip("GNU make is not installed")
    plan = plan_of(
        tmp_path,
        sh("good-1", "echo 'a b.fits'"),
        sh("bad-2", FAILS),
        many("good-1", "bad-2", fixed=("one.fits",)),
    )
    code = carried_out(how, plan)
    assert (plan.root / "many.txt").exists(), how
    found = (plan.root / "many.txt").read_text().splitlines()
    reason = "bad: too few stars in bad-2" if how == "engine" else "it could not be made"
    wanted = ["--of=a b.fits", "a b.fits", f"--left-out=bad-2 $1.fits: {reason}", "one.fits"]
    assert sorted(found) == sorted(wanted)
    assert code in {"engine": (0,), "sh": (6,), "make": (2,)}[how]


@pytest.mark.parametrize("how", ["engine", "sh", "make"])
def test_where_nothing_is_left_nothing_is_run(tmp_path: Path, how: str) -> None:
    if how == "make" and shutil.which("make") is None:
        pytest.skip("GNU make is not installed")
    plan = plan_of(tmp_path, sh("bad-1", FAILS), sh("bad-2", FAILS), many("bad-1", "bad-2"))
    assert carried_out(how, plan) != 0
    assert not (plan.root / "many.txt").exists(), "it would have read its standard input"


def test_the_reason_is_that_of_what_failed_first() -> None:
    states = {
        "a-1": NodeState("a-1", "failed", code=6, error="awe-a: no-solution: no stars\ntry: more"),
        "b-2": NodeState("b-2", "blocked", error="it needs a-1, which has failed (6)"),
        "c-3": NodeState("c-3", "done", product="c.fits", flags=("seeing",)),
    }
    node = Node(
        "m",
        ("m", f"--left-out=x: {why_not(['b-2'])}", f"--left-out=y: {why_not(['c-3'])}", "z.fits"),
        wants=("b-2", "c-3"),
    )
    assert arguments_of(node, states)[1:] == (
        "--left-out=x: a: no stars",
        "--left-out=y: its c is flagged: seeing",
        "z.fits",
    )


@pytest.mark.parametrize("state", [None, NodeState("a-1", "timeout"), NodeState("a-1", "killed", signal=9)])
def test_what_may_still_be_made_is_waited_for(state: NodeState | None) -> None:
    node = Node("m", ("m", f"@{{a-1}}{only_if(['a-1'])}", "z.fits"), wants=("a-1",))
    with pytest.raises(Blocked):
        arguments_of(node, {"a-1": state} if state else {})


def test_a_condition_names_what_is_waited_for_and_a_name_that_may_fail_has_one() -> None:
    first = sh("a-1", "true")
    with pytest.raises(BadValue, match="neither needs nor wants"):
        check_nodes([first, Node("m", ("m", f"x{only_if(['a-1'])}"))])
    with pytest.raises(BadValue, match="must read --ROLE"):
        check_nodes([first, Node("m", ("m", "@{a-1}"), wants=("a-1",))])
    check_nodes([first, Node("m", ("m", f"@{{a-1}}{only_if(['a-1'])}"), wants=("a-1",))])


def test_other_words_are_no_conditions() -> None:
    for word in ("x", "@{a}", "@{?}", "@{?a b}", "x@{?a}y", "@{!a,}"):
        assert conditional(word) is None
    found = conditional("--at=\n@{!a,b-2}")
    assert found is not None and (found.text, found.ids, found.for_reason) == ("--at=\n", ("a", "b-2"), True)
