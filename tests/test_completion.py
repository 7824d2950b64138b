"""Completion, as the shells ask for it; bash for real."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from awetools.commands.completion import SHELLS, complete, script
from awetools.commands.runner import completion_variable
from awetools.commands.tools import TOOLS
from awetools.commands.types import CameraType, ConditionType, FilterType, KindType, values_in_stores
from awetools.core.errors import UnknownName
from awetools.core.kinds import KINDS
from awetools.core.store import Store
from tests.support import ROOT


@click.command("typed")
@click.argument("kind", type=KindType(raw=True))
@click.argument("conditions", nargs=-1, type=ConditionType())
@click.option("--camera", type=CameraType())
@click.option("--filter", type=FilterType())
def typed(kind: str, conditions: tuple[str, ...], camera: str, filter: str) -> None:
    """A command with every type."""


def ask(command: click.Command, shell: str, *words: str) -> list[str]:
    """What a shell would offer for the last of the words."""
    asked: ShellComplete = SHELLS[shell](command, {}, words[0], completion_variable(words[0]))
    found = asked.get_completions(list(words[1:-1]), words[-1])
    return [item.value for item in found]


def environment(program: str, shell: str, words: list[str]) -> dict[str, str]:
    """What a shell sets when it asks; fish gives the incomplete word itself, the others its number."""
    current = words[-1] if shell == "fish" else str(len(words) - 1)
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        completion_variable(program): f"{shell}_complete",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": current,
    }


def program_answers(
    module: str, program: str, shell: str, words: list[str]
) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.argv = [{program!r}]; from awetools.commands.{module} import main\n"
    code += "try: main()\nfinally: sys.stderr.write(' '.join(sys.modules))"
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment(program, shell, words),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "shell, answer",
    [
        ("bash", "plain,--explain-type"),
        ("zsh", "plain\n--explain-type\n"),
        ("fish", "plain,--explain-type\t"),
    ],
)
def test_options_in_each_shell(shell: str, answer: str) -> None:
    done = program_answers("header", "awe-header", shell, ["awe-header", "--expl"])
    assert done.returncode == 0
    assert done.stdout.startswith(answer)


@pytest.mark.parametrize("shell", SHELLS)
def test_awe_completes_names_and_then_as_the_tool_does(shell: str) -> None:
    names = program_answers("awe", "awe", shell, ["awe", "he"])
    assert "header" in names.stdout and "help" in names.stdout
    inner = program_answers("awe", "awe", shell, ["awe", "header", "--expl"])
    assert "--explain-type" in inner.stdout


@pytest.mark.parametrize(
    "module, program, words", [("query", "awe-query", ["--fo"]), ("init", "awe-init", ["-"])]
)
def test_completion_loads_nothing_slow(module: str, program: str, words: list[str]) -> None:
    done = program_answers(module, program, "bash", [program, *words])
    assert done.stdout
    assert not set(done.stderr.split()) & {
        "numpy",
        "astropy",
        "scipy",
        "matplotlib",
        "tqdm",
        "awetools.core.fits",
    }


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_completion_never_loads_astropy_or_scipy(tool: object) -> None:
    name, module = tool.name, tool.module.rpartition(".")[2]  # type: ignore[attr-defined]
    done = program_answers(module, f"awe-{name}", "bash", [f"awe-{name}", "--"])
    assert "plain,--help" in done.stdout
    assert not set(done.stderr.split()) & {"astropy", "scipy", "matplotlib", "tqdm", "reproject", "sep"}


def test_files_are_left_to_the_shell() -> None:
    done = program_answers("header", "awe-header", "bash", ["awe-header", "fra"])
    assert done.stdout == "file,fra\n"


def test_kinds_cameras_and_values_of_options() -> None:
    assert ask(typed, "zsh", "typed", "bi") == ["bias"]
    assert set(ask(typed, "zsh", "typed", "")) >= {*(kind.name for kind in KINDS), "raw", "raw_bias"}
    assert ask(typed, "zsh", "typed", "--camera", "nick") == ["nickel"]
    assert ask(typed, "zsh", "typed", "bias", "fil") == ["filter=", "filename="]


def test_filters_come_from_the_store(store: Store) -> None:
    assert ask(typed, "fish", "typed", "--filter", "") == ["R", "V"]
    assert ask(typed, "zsh", "typed", "bias", "filter=") == ["filter=R", "filter=V"]
    assert ask(typed, "zsh", "typed", "bias", "chip=sim") == ["chip=sim1", "chip=sim2"]


def test_a_missing_or_broken_index_offers_nothing_and_is_not_rebuilt(store: Store) -> None:
    store.index_path.write_bytes(b"not a database")
    assert values_in_stores("filter") == []
    store.index_path.unlink()
    assert values_in_stores("filter") == []
    assert not store.index_path.exists()


def test_no_store_offers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert values_in_stores("filter") == []
    monkeypatch.setenv("AWE_PATH", "/no/such/store")
    assert values_in_stores("filter") == []
    assert values_in_stores("exptime_s") == []


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"no kind 'bais' \(nearest: bias\)"):
        KindType().convert("bais", None, None)
    with pytest.raises(UnknownName, match="no kind 'raw_bias'"):
        KindType().convert("raw_bias", None, None)
    assert KindType(raw=True).convert("raw_bias", None, None) == "raw_bias"
    with pytest.raises(UnknownName, match="no camera 'nosuchcam'"):
        CameraType().convert("nosuchcam", None, None)


def test_a_wrong_question_is_answered_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    assert complete(typed, "typed", "tcsh_complete") == 2
    assert complete(typed, "typed", "bash_source") == 2
    # The variables that bash sets are absent.
    assert complete(typed, "typed", "bash_complete") == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_names_every_program(shell: str) -> None:
    text = script(shell)
    for name in ("awe", *(tool.program for tool in TOOLS)):
        assert f"{completion_variable(name)}={shell}_complete" in text


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Path]:
    """A directory with `awe`, `awe-header` and `typed` as executables."""
    for name, line in (
        ("awe", "from awetools.commands.awe import main; main()"),
        ("awe-header", "from awetools.commands.header import main; main()"),
        (
            "awe-typed",
            "from awetools.commands.runner import launch; from tests.test_completion import typed; "
            "launch(typed)",
        ),
    ):
        path = tmp_path / name
        path.write_text(f"#!{sys.executable}\nimport sys; sys.path.insert(0, {str(ROOT)!r}); {line}\n")
        path.chmod(0o755)
    yield tmp_path


BASH = """
source <(awe completion bash)
awe_typed=${_AWE_TYPED_SCRIPT:-}
eval "${awe_typed}"
complete -p awe awe-header >/dev/null || exit 1
compopt() { :; }
offer() {
  COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMPREPLY=()
  local function=_${1//-/_}_completion
  "$function" "$1"
  echo "${COMPREPLY[*]}"
}
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this machine")
@pytest.mark.parametrize(
    "words, answer",
    [
        ("awe head", "header"),
        ("awe header --expl", "--explain-type"),
        ("awe-header --expl", "--explain-type"),
        ("awe completion z", "zsh"),
        ("awe-typed bi", "bias"),
        ("awe-typed bias filter = R", "R"),
        ("awe-typed bias filter =", "R V"),
        ("awe-typed --filter = R", "R"),
    ],
)
def test_bash_completes(words: str, answer: str, programs: Path, store: Store) -> None:
    own = SHELLS["bash"](typed, {}, "awe-typed", completion_variable("awe-typed"))
    done = subprocess.run(
        ["bash", "--norc", "-c", f"{BASH}\noffer {words}"],
        env={
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "_AWE_TYPED_SCRIPT": own.source_template % own.source_vars(),
        },
        cwd=store.root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == (answer, "")
