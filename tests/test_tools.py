"""The list of tools, setup.cfg, the files, the manual pages and the reference must say the same."""

from __future__ import annotations

import ast
import configparser
import importlib.util
from pathlib import Path
from types import ModuleType

import click
import pytest

from awetools.commands.tools import TOOLS, Tool, command_of, tool_named
from awetools.core.kinds import KINDS
from tests.support import ROOT

COMMANDS = ROOT / "awetools" / "commands"
each_tool = pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)


def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_program(path: Path) -> bool:
    """Whether a module defines what a program has: a `command` and a `main`."""
    defined: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign):
            defined |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {"command", "main"} <= defined


def test_names_and_modules_are_unique() -> None:
    assert len({tool.name for tool in TOOLS}) == len(TOOLS)
    assert len({tool.module for tool in TOOLS}) == len(TOOLS)


def test_every_program_file_is_a_tool() -> None:
    files = {path.stem for path in COMMANDS.glob("*.py") if is_program(path)}
    listed = {tool.module.rpartition(".")[2] for tool in TOOLS}
    assert files == {*listed, "awe"}


def test_setup_installs_every_tool() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = setup["options.entry_points"]["console_scripts"].strip().splitlines()
    scripts = dict(line.replace(" ", "").split("=") for line in lines)
    assert scripts == {"awe": "awetools.commands.awe:main"} | {
        tool.program: f"{tool.module}:main" for tool in TOOLS
    }


def test_every_tool_has_a_manual_page() -> None:
    assert {path.stem for path in (ROOT / "man").glob("*.1")} == {"awe", *(tool.program for tool in TOOLS)}


def test_every_tool_and_kind_is_in_the_reference() -> None:
    pages = {name.removesuffix(".rst") for name in generate().reference()}
    programs = {"awe", *(tool.program for tool in TOOLS)}
    assert pages == {"index", "errors", "meta", *programs, *(f"kind-{kind.name}" for kind in KINDS)}


def test_every_kind_has_its_tool() -> None:
    assert {kind.command for kind in KINDS} <= {tool.program for tool in TOOLS}


@each_tool
def test_a_tool_says_what_it_is(tool: Tool) -> None:
    command = command_of(tool)
    assert command.name == tool.name
    assert command.short_help and command.short_help.endswith(".") and len(command.short_help) <= 80
    assert command.help


@each_tool
def test_a_tool_has_the_common_options(tool: Tool) -> None:
    command = command_of(tool)
    with click.Context(command, info_name=tool.program, **command.context_settings) as context:
        names = {name for one in command.get_params(context) for name in one.opts}
    assert {"-h", "--help", "-q", "-v", "--log-json", "--version"} <= names


@each_tool
def test_every_option_has_help(tool: Tool) -> None:
    silent = [one.opts for one in command_of(tool).params if isinstance(one, click.Option) and not one.help]
    assert not silent


def test_an_unknown_tool_is_none() -> None:
    assert tool_named("nosuch") is None
