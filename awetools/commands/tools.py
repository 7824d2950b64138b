"""The list of all programs: one exists only by being listed here."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from keyword import iskeyword
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click


@dataclass(frozen=True)
class Tool:
    """A program `awe-NAME`, and the module that holds its `command` and its `main`."""

    name: str
    module: str

    @property
    def program(self) -> str:
        """The name of the executable."""
        return f"awe-{self.name}"


def _tools(*names: str) -> tuple[Tool, ...]:
    # The module of a name that Python keeps for itself ends in an underscore.
    modules = (f"{name}_" if iskeyword(name) else name for name in names)
    return tuple(
        Tool(name, f"awetools.commands.{module}") for name, module in zip(names, modules, strict=True)
    )


# In the order in which a night's work meets them.
GROUPS: tuple[tuple[str, tuple[Tool, ...]], ...] = (
    ("Begin", _tools("simulate", "init", "ingest", "header", "params", "refcat", "grid")),
    (
        "Make products",
        _tools(
            "readnoise",
            "bias",
            "gain",
            "dark",
            "hotpix",
            "domeflat",
            "twiflat",
            "coldpix",
            "nightflat",
            "flat",
            "fringe",
            "reduce",
            "sources",
            "astrom",
            "gastrom",
            "illumination",
            "zeropoint",
            "gphot",
            "sourcelist",
            "regrid",
            "coadd",
            "diff",
        ),
    ),
    ("Ask for products", _tools("make", "node")),
    (
        "Look",
        _tools(
            "imstat",
            "mask",
            "preview",
            "show",
            "cutout",
            "colour",
            "plot",
            "compare",
            "query",
            "sql",
            "trend",
            "shell",
        ),
    ),
    (
        "Trace and keep",
        _tools(
            "lineage", "why", "judge", "validity", "timeline", "index", "verify", "rm", "import", "export"
        ),
    ),
    ("Share", _tools("publish", "context")),
)
TOOLS: tuple[Tool, ...] = tuple(tool for _, tools in GROUPS for tool in tools)


def tool_named(name: str) -> Tool | None:
    """The tool of a name (without `awe-`); None if there is none."""
    return next((tool for tool in TOOLS if tool.name == name), None)


def command_of(tool: Tool) -> click.Command:
    """The click command of a tool; imports its module."""
    command: click.Command = importlib.import_module(tool.module).command
    return command
