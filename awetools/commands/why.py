"""`awe-why`: which calibration serves a frame, and why each other one does not."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import AweError, NoMatch, NoStore, worst
from . import options
from .messages import Messenger
from .runner import launch
from .tables import print_table

if TYPE_CHECKING:
    from ..core.planning.whys import Answer, Line

# The first three are what programs have read since the first version.
COLUMNS = (
    "frame",
    "calibration",
    "verdict",
    "role",
    "kind",
    "used",
    "valid_from",
    "valid_to",
    "valid_by",
    "nights_away",
    "made",
)
SHOWN = ("role", "kind", "used", "calibration", "verdict", "valid_from", "valid_to", "valid_by", "made")


@click.command(
    "why",
    short_help="Say which calibration serves a frame, and why not the others.",
    context_settings=options.SETTINGS,
)
@options.inputs("FRAME|PRODUCT...")
@click.option(
    "--role", metavar="ROLE", help="This role alone: bias, flat, hotpix, ... [default: all that are chosen]"
)
@click.option(
    "--as-of",
    metavar="DATE",
    help="The answer of that day, by what was made, judged and set until then: a time (UTC), or the end of a date.",
)
@options.json_output
@options.common
@click.pass_obj
def command(
    messenger: Messenger,
    /,
    names: tuple[str, ...],
    null: bool,
    role: str | None,
    as_of: str | None,
    as_json: bool,
) -> int:
    """For each FRAME print every candidate for its calibrations, in the order of choice: the first one serves, if any.

    Roles are those of what is made of the frame: of a science frame, the reduced
    one, whose flat is the master flat. Where several kinds fill a role they come in
    the order of preference. A line has the calibration and `chosen`; or by which
    other one it is eclipsed, and in what that is better; or why it does not serve.
    It must fit the frame, be neither judged bad nor flagged, and be valid at the
    frame's start. Of those an interval set by hand comes first, then the nearest in
    nights, then the first store, then the one made last.

    Of a PRODUCT the roles are its own, and the lines say what it was made with
    (used: yes) beside what would be chosen for it now.

    Exit code 5 if nothing serves a FRAME in a role that what is made of it needs, or
    in the ROLE that was asked for.

    \b
    Examples:
      awe-why raw/d1030.fits --role bias
      awe-why reduced.fits --as-of 2024-03-09
    """
    from ..core.batch import open_sources
    from ..core.files import parse_address
    from ..core.kinds import KINDS
    from ..core.planning.whys import answers
    from ..core.validity import as_of_moment
    from ..core.workspace import here

    workspace = here()
    if not workspace.stores:
        raise NoStore("there is no store here, and AWE_PATH names none", hint="awe-init, or AWE_PATH=DIR")
    instant = None if as_of is None else as_of_moment(as_of)
    unserved: dict[str, list[str]] = {}
    rows: list[dict[str, Any]] = []
    codes = []
    for name in options.read_names(names, null):
        try:
            sources = open_sources(parse_address(name), workspace)
            found = [
                (str(source.address), answers(source, role, workspace, KINDS, instant)) for source in sources
            ]
        except AweError as error:
            messenger.error(error, name)
            codes.append(error.exit_code)
            continue
        for frame, given in found:
            for answer in given:
                rows += _rows(frame, answer)
                if answer.missing or (role and not any(line.used or _serves(line) for line in answer.lines)):
                    unserved.setdefault(answer.role, []).append(frame)
    _print(rows, as_json)
    for missing, frames in unserved.items():
        more = f" and {len(frames) - 1} more" if len(frames) > 1 else ""
        then = f" as of {instant[:16]}" if instant else ""
        messenger.error(NoMatch(f"no {missing} serves {frames[0]}{more}{then}", hint=_lists(missing)))
        codes.append(NoMatch.exit_code)
    return worst(codes)


def _serves(line: Line) -> bool:
    from ..core.planning.whys import CHOSEN, NOT_NEEDED

    return line.verdict in (CHOSEN, NOT_NEEDED)


def _lists(role: str) -> str:
    """The command that lists what can fill a role."""
    from ..core.kind import REFCAT
    from ..core.kinds import KINDS

    kind = next(need.kind for kind in reversed(KINDS) for need in kind.chosen if need.role == role)
    return "awe-refcat list" if kind == REFCAT else f"awe-query {kind}"


def _rows(frame: str, answer: Answer) -> list[dict[str, Any]]:
    from ..core.planning.whys import shown_path

    rows = []
    for line in answer.lines:
        one, path = line.candidate, shown_path(line)
        rows.append(
            {
                "frame": frame,
                "role": line.role,
                "kind": line.kind,
                "path": str(path) if path else None,
                "verdict": line.verdict,
                "reason": line.reason,
                "used": line.used,
                "valid_from": one.valid_from or None if one else None,
                "valid_to": one.valid_to or None if one else None,
                "valid_by": one.row["valid_by"] if one else None,
                "by_hand": one.by_hand if one else None,
                "nights_away": one.nights_away if one else None,
                "made": one.row["made"] if one else None,
            }
        )
    return rows


def _print(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        for row in rows:
            options.print_line(json.dumps(row))
        return
    if not sys.stdout.isatty():
        if rows:
            print_table(COLUMNS, [[_text(row, name) for name in COLUMNS] for row in rows])
        return
    for frame in dict.fromkeys(row["frame"] for row in rows):
        options.print_line(frame)
        print_table(SHOWN, [[_short(row, name) for name in SHOWN] for row in rows if row["frame"] == frame])


def _text(row: dict[str, Any], name: str) -> str:
    if name == "calibration":
        return str(row["path"] or "")
    if name == "verdict":
        return str(row["reason"] or row["verdict"])
    if name == "used":
        return "yes" if row["used"] else ""
    return "" if row[name] is None else str(row[name])


def _short(row: dict[str, Any], name: str) -> str:
    """A cell for a person: paths from here, times to the minute, open ends in a word."""
    import os

    text = _text(row, name)
    if name == "calibration" and text:
        return os.path.relpath(text) if len(os.path.relpath(text)) < len(text) else text
    if name in ("valid_from", "valid_to"):
        return text[:16] or ("forever" if row["valid_by"] else "")
    return text[:16] if name == "made" else text


def main() -> None:
    """Run the program."""
    launch(command)
