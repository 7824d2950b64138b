"""`awe-lineage --script`, `--makefile` and `--rerun`: products made again from raw frames alone."""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import Unavailable, UsageError, WouldOverwrite, worst
from . import options
from .messages import Messenger
from .tables import ONE_LINE

if TYPE_CHECKING:
    from ..core.tracing.replay import Replay
    from ..core.tracing.rerun import Again


def show(names: Sequence[str], messenger: Messenger, given: Mapping[str, Any]) -> int:
    """Write the script that makes the named products again, or run it; returns the exit code."""
    if given["script"] + given["makefile"] + given["rerun"] > 1:
        raise UsageError("--script, --makefile and --rerun exclude each other")
    for name in ("keep", "tolerance"):
        if given[name] is not None and not given["rerun"]:
            raise UsageError(f"--{name} goes with --rerun")
    if given["tolerance"] is not None and math.isnan(given["tolerance"]):
        raise UsageError("--tolerance nan: not a number")
    if given["rerun"] and given["output"] is not None:
        raise UsageError("-o does not go with --rerun", hint="--keep DIR")
    if given["as_json"] and not given["rerun"]:
        raise UsageError("--json does not go with a script", hint="--rerun --json")
    replay = _replay(names)
    for note in replay.notes:
        messenger.note(note)
    if given["rerun"]:
        return _rerun(replay, messenger, given)
    from ..core.tracing.replaytext import MAKE_MARK, SCRIPT_MARK, to_makefile, to_script

    text = to_makefile(replay) if given["makefile"] else to_script(replay)
    begins = "".join(text.partition(MAKE_MARK if given["makefile"] else SCRIPT_MARK)[:2])
    _give(text, given["output"], begins, bool(given["script"]))
    return 0


def _replay(names: Sequence[str]) -> Replay:
    from ..core.files import parse_address
    from ..core.journal import stores_heard
    from ..core.kinds import KINDS
    from ..core.store import search_path
    from ..core.tracing.lookup import Lookup
    from ..core.tracing.replay import replay_of
    from ..core.workspace import here, working_directory

    stores = search_path(working_directory())
    for name in names:
        stores = stores_heard(parse_address(name).path, stores)
    with Lookup(stores) as lookup:
        targets = [node for name in names for node in lookup.named(name)]
        return replay_of(targets, lookup, here(stores=stores), KINDS)


def _give(text: str, output: Path | None, begins: str, runs: bool) -> None:
    """Print a script, or write it into a file; what is there is replaced only if it is such a script."""
    data = text.encode(errors="surrogateescape")
    if output is None:
        with options.to_output():
            sys.stdout.buffer.write(data)
            sys.stdout.flush()
        return
    from ..core.files import make_directory, refuse_others, write_whole

    refuse_others(output, (begins.encode(),), "such a script")
    make_directory(output.parent)
    write_whole(output, data)
    if runs:
        try:
            output.chmod(output.stat().st_mode | (output.stat().st_mode & 0o444) >> 2)
        except OSError as error:
            raise Unavailable(f"{output}: {error.strerror}") from None
    options.print_line(str(output))


def _rerun(replay: Replay, messenger: Messenger, given: Mapping[str, Any]) -> int:
    from ..core.tracing.rerun import rerun

    tolerance = 1e-3 if given["tolerance"] is None else given["tolerance"]
    with ExitStack() as stack:
        directory = given["keep"]
        if directory is None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="awe-rerun-")))
        else:
            _make_empty(directory)
        done = rerun(replay, directory.absolute())
        return worst([_report(one, tolerance, messenger, given) for one in done])


def _make_empty(directory: Path) -> None:
    from ..core.files import make_directory

    make_directory(directory)
    try:
        if any(directory.iterdir()):
            raise WouldOverwrite(f"--keep {directory}: is not empty", hint="--keep ANOTHER")
    except OSError as error:
        raise Unavailable(f"--keep {directory}: {error.strerror}") from None


def _report(one: Again, tolerance: float, messenger: Messenger, given: Mapping[str, Any]) -> int:
    from ..core.tracing.rerun import as_object, in_words

    within = one.is_within(tolerance)
    if given["as_json"]:
        options.print_line(json.dumps(as_object(one, tolerance)))
    else:
        name = one.product.node.path
        words = (
            "the same bits" if one.same_bits else in_words(one.deviations) or f"other bits ({one.problem})"
        )
        options.print_line(f"{name.translate(ONE_LINE)}\t{words.translate(ONE_LINE)}")
        for text in one.software:
            messenger.note(f"{name}: {text}")
    return 0 if within else 3
