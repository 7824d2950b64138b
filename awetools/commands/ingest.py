"""`awe-ingest`: register raw frames in a store."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import click

from ..core.errors import AweError, NoStore, UsageError, worst
from . import options
from .messages import Messenger
from .runner import launch
from .types import FilterType


@click.command("ingest", short_help="Register raw frames in a store.", context_settings=options.SETTINGS)
@options.inputs("FILE|DIR...")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Set a meta field of these frames by hand; goes on record.",
)
@click.option("--type", "frame_type", metavar="TYPE", help="Set the frame type: raw_bias, raw_science, ...")
@click.option("--filter", "filter_name", type=FilterType(), metavar="NAME", help="Set the filter.")
@click.option(
    "--unset", multiple=True, metavar="FIELD", help="Take back what was set by hand; the header counts again."
)
@click.option(
    "--forget", is_flag=True, help="Take the registration of these files back; the files are not touched."
)
@click.option("--again", is_flag=True, help="Read every file again, also those that are unchanged.")
@click.option(
    "--wait",
    "wait_s",
    type=options.Finite(0),
    default=10.0,
    show_default=True,
    metavar="S",
    help="How long to wait for a file that is still being written.",
)
@options.processes
@options.json_output
@options.common
@click.pass_obj
def command(
    messenger: Messenger, /, names: tuple[str, ...], null: bool, jobs: int, as_json: bool, **given: Any
) -> int:
    """Register raw frames in the store here: translate the headers, check the file, hash the pixels.

    The frames are never copied, moved or changed, and nothing is written beside
    them: the record of each goes into the store. A directory stands for every
    FITS file below it. What is registered already and unchanged costs nothing.
    Frames that cannot be read, or whose type cannot be told, are named with the
    reason. Prints one path per registered frame (with -v also the unchanged ones).

    \b
    Example: awe-ingest -j2 raw/
    """
    from ..core.ingest import find_frames, forget_frames, ingest, repeated
    from ..core.workspace import here
    from .progress import progress

    workspace = here()
    if not workspace.stores:
        raise NoStore("there is no store here", hint="awe-init")
    store = workspace.stores[0]
    listed = options.read_names(names, null)
    # A frame that is to be forgotten may be gone, so its name is taken as it is.
    paths = list(dict.fromkeys(map(Path, listed) if given["forget"] else find_frames(listed)))
    problems: dict[str, list[str]] = {}
    codes, counts = [], Counter[str]()
    with progress(len(paths), "awe-ingest", messenger) as step:
        if given["forget"]:
            done = forget_frames(store, paths)
        else:
            done = ingest(paths, store, workspace, _overrides(given), jobs, given["wait_s"], given["again"])
        for one in done:
            step()
            counts[one.action] += 1
            if one.error is not None:
                messenger.error(one.error, str(one.path))
            codes.append(
                one.error.exit_code if isinstance(one.error, AweError) else int(one.error is not None)
            )
            for problem in one.problems:
                problems.setdefault(problem, []).append(str(one.path))
            _report(messenger, one, as_json, null)
    for problem, frames in problems.items():
        messenger.warning(
            f"{frames[0]}{f' and {len(frames) - 1} more' if len(frames) > 1 else ''}: {problem}"
        )
    for path, twin in repeated(store, paths):
        messenger.warning(f"{path}: the same pixels as {twin}")
    messenger.note(", ".join(f"{count} {action}" for action, count in counts.items()) or "nothing to do")
    return worst(codes)


def _report(messenger: Messenger, one: Any, as_json: bool, null: bool) -> None:
    for detector, kind in one.detectors:
        if kind == "raw_other":
            messenger.warning(
                f"{one.path}: type not recognised; see awe-header --explain-type, set it with --type"
            )
        messenger.detail(f"{one.path}: {kind} of {detector}")
    if as_json:
        detectors = [{"detector": detector, "kind": kind} for detector, kind in one.detectors]
        error = one.error.message if isinstance(one.error, AweError) else None
        options.print_line(
            json.dumps({"path": str(one.path), "action": one.action, "detectors": detectors, "error": error})
        )
    elif one.action in ("registered", "forgotten") or (one.action == "unchanged" and messenger.verbose):
        options.print_line(str(one.path), null)


def _overrides(given: dict[str, Any]) -> dict[str, str | None]:
    found: dict[str, str | None] = {name.strip(): None for name in given["unset"]}
    for text in given["settings"]:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"--set {text}: not FIELD=VALUE")
        found[name.strip()] = value.strip()
    if given["frame_type"]:
        found["frame_type"] = given["frame_type"]
    if given["filter_name"]:
        found["filter"] = given["filter_name"]
    return found


def main() -> None:
    """Run the program."""
    launch(command)
