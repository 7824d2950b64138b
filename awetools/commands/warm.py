"""Our programs run in process, one after the other: nothing is started, imported or read twice.

What engines hand to their workers. Between the programs of one process the
workspace (stores, settings, camera tables) is kept while its files do not
change, and so are the calibrations loaded last; a program run by itself gets
both fresh.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from .tools import Tool, command_of, tool_named

if TYPE_CHECKING:
    from ..core.build import Loader
    from ..core.engines.workers import Warm
    from ..core.workspace import Workspace

# What of this process is kept between programs; empty in a program that runs by itself.
_kept: dict[str, Any] = {}

# What makers import on their way, other than what is theirs alone.
_SHARED = (
    "numpy",
    "awetools.core.batch",
    "awetools.core.camera",
    "awetools.core.fits",
    "awetools.core.kinds",
    "awetools.core.pixels.mask",
    "awetools.core.pixels.stats",
    "awetools.core.workspace",
)


def warm() -> Warm:
    """What an engine needs to run our programs in process."""
    from ..core.engines.workers import Warm

    return Warm(takes, run_program, _begin)


def takes(argv: Sequence[str]) -> bool:
    """Whether a command line is of one of our programs."""
    return _tool(argv[0]) is not None


@cache
def _tool(name: str) -> Tool | None:
    return tool_named(name.removeprefix("awe-")) if name.startswith("awe-") else None


def preload(command_lines: Iterable[Sequence[str]]) -> None:
    """Import, before workers are forked, what these programs need."""
    import importlib

    tools = {tool for tool in map(_tool, {argv[0] for argv in command_lines}) if tool is not None}
    if not tools:
        return
    for tool in tools:
        command_of(tool)
    for name in _SHARED:
        importlib.import_module(name)


def keep() -> None:
    """From now on, keep the workspace and what was loaded between the programs of this process."""
    _kept.setdefault("loader", None)


def _begin() -> None:
    """Begin to be a worker: this process's own streams, whatever those of the one that forked it were."""
    keep()
    # Those of before are not let go of: they would still write what they hold.
    _kept["streams"] = (sys.stdin, sys.stdout, sys.stderr)
    sys.stdin, sys.stdout, sys.stderr = _stream(0, "r"), _stream(1, "w"), _stream(2, "w")


def _stream(number: int, mode: Literal["r", "w"]) -> TextIO:
    return open(number, mode, buffering=1, encoding="utf-8", errors="surrogateescape", closefd=False)


def run_program(argv: Sequence[str]) -> int:
    """Run one of our programs in this process; returns its exit code."""
    from .runner import run

    tool = _tool(argv[0])
    assert tool is not None
    arguments, sys.argv = sys.argv, list(argv)
    try:
        return run(command_of(tool), argv[1:], tool.program)
    finally:
        sys.argv = arguments


def loader() -> Loader:
    """What loads products: in a worker with those that earlier programs loaded."""
    from ..core.build import Loader

    if "loader" not in _kept:
        return Loader()
    if _kept["loader"] is None:
        _kept["loader"] = Loader()
    found: Loader = _kept["loader"]
    return found


def checked_workspace() -> Workspace:
    """The workspace of the working directory, its settings checked; raises what `check_in_force` raises."""
    from ..core.kinds import KINDS
    from ..core.settings import check_in_force
    from ..core.workspace import here

    fresh = here()
    # Of a workspace whose settings and tables are those of before, what was read of them is kept.
    stamp = _stamp(fresh) if "loader" in _kept else None
    if stamp is not None and _kept.get("stamp") == stamp:
        known: Workspace = _kept["workspace"]
        return known
    check_in_force(fresh.settings, fresh.cameras, KINDS)
    if stamp is not None:
        _kept.update(stamp=stamp, workspace=fresh)
    return fresh


def _stamp(workspace: Workspace) -> list[object]:
    """What tells that a workspace is another than before, without reading its files."""
    from ..core.settings import FILE_NAME, home_directory, project_file

    roots = [home_directory(), *(store.awe for store in workspace.stores)]
    project = project_file(workspace.start)
    files = [*(str(root / FILE_NAME) for root in roots), *([str(project)] if project else [])]
    for root in roots:
        files += _tables_in(root / "cameras")
    return [workspace, *((path, *_look(path)) for path in files)]


def _tables_in(folder: Path) -> list[str]:
    try:
        return [str(folder), *sorted(f"{folder}/{name}" for name in os.listdir(folder))]
    except OSError:
        return [str(folder)]


def _look(path: str) -> tuple[int, ...]:
    try:
        stat = os.stat(path)
    except OSError:
        return ()
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino, stat.st_mode)
