"""`awe NAME`, `python -m awetools NAME` and `awe-NAME` are the same program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from awetools.commands.tools import TOOLS
from tests.support import Ran

LAUNCH = "import sys; sys.argv[0] = {name!r}; from awetools.commands.{module} import main; main()"


def python(*arguments: str, cwd: Path) -> Ran:
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def awe(*arguments: str, cwd: Path) -> Ran:
    return python("-c", LAUNCH.format(name="awe", module="awe"), *arguments, cwd=cwd)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support import ROOT

    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.mark.parametrize(
    "arguments, code",
    [
        (["--help"], 0),
        (["--version"], 0),
        (["--no-such-option"], 2),
        (["absent.fits"], 4),
        ([], 4),
        (["--log-json", "absent.fits"], 4),
    ],
)
def test_three_ways_are_one_program(arguments: list[str], code: int, tmp_path: Path) -> None:
    by_name = python("-c", LAUNCH.format(name="awe-header", module="header"), *arguments, cwd=tmp_path)
    assert by_name.code == code
    assert awe("header", *arguments, cwd=tmp_path) == by_name
    assert python("-m", "awetools", "header", *arguments, cwd=tmp_path) == by_name


def test_help_lists_every_tool(tmp_path: Path) -> None:
    ran = awe("--help", cwd=tmp_path)
    assert ran.code == 0
    listed = [line.split()[0] for line in ran.lines if line.startswith("  ") and line.split()]
    assert [tool.name for tool in TOOLS] == [name for name in listed if name in {tool.name for tool in TOOLS}]


def test_help_of_a_tool(tmp_path: Path) -> None:
    assert awe("help", "bias", cwd=tmp_path) == awe("bias", "--help", cwd=tmp_path)
    assert awe("help", cwd=tmp_path).out == awe("--help", cwd=tmp_path).out


@pytest.mark.parametrize("arguments", [["bais"], ["awe-bias"], ["help", "bais"]])
def test_an_unknown_name_is_a_usage_error_that_names_the_nearest(
    arguments: list[str], tmp_path: Path
) -> None:
    ran = awe(*arguments, cwd=tmp_path)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("awe: usage: no program ")
    assert "(nearest: bias)" in ran.err


def test_no_name_is_a_usage_error(tmp_path: Path) -> None:
    ran = awe(cwd=tmp_path)
    assert (ran.code, ran.out) == (2, "")
    assert "awe --help" in ran.err


def test_only_the_named_tool_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['awe', 'init', '--help']\n"
        "from awetools.commands.awe import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "sys.stderr.write(' '.join(sys.modules))"
    )
    modules = set(python("-c", code, cwd=tmp_path).err.split())
    assert "awetools.commands.init" in modules
    others = {tool.module for tool in TOOLS if tool.name != "init"}
    assert not modules & others
    assert not modules & {"numpy", "awetools.core.kinds", "astropy", "scipy", "sqlite3"}


def test_version(tmp_path: Path) -> None:
    from awetools import __version__

    assert awe("--version", cwd=tmp_path) == Ran(0, f"awetools {__version__}\n", "")
