"""`awe-validity`: when calibrations serve, and changing it on record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import AweError, UsageError, worst
from . import options
from .messages import Messenger
from .runner import launch
from .tables import print_table

if TYPE_CHECKING:
    from ..core.kind import Validity
    from ..core.store import Store
    from ..core.validity import Calibration, Change, Standing

COLUMNS = ("path", "start", "end", "by", "who", "when", "why")
HISTORY = ("path", "when", "who", "event", "value", "why", "journal")
FOREVER = "forever"


@click.command(
    "validity",
    short_help="List or change when calibrations serve, on record.",
    context_settings=options.SETTINGS,
)
@options.inputs()
@click.option(
    "--set", "ends", metavar="START..END", help="Serve from START to END; an empty side is forever."
)
@click.option("--from", "start", metavar="START", help="Serve from START; the end stays as it is.")
@click.option("--to", "end", metavar="END", help="Serve to END; the start stays as it is.")
@click.option("--forever", is_flag=True, help="Serve at any time.")
@click.option(
    "--nights",
    metavar="BEFORE,AFTER",
    help="Serve its own night and so many before and after; either may be forever.",
)
@click.option(
    "--default", "as_made", is_flag=True, help="Take back what was set: the interval is as it was made."
)
@click.option("--reason", metavar="TEXT", help="Why; goes on record, and a change needs it.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be set, and set nothing.")
@click.option(
    "--history",
    is_flag=True,
    help="List all that was said of FILE: intervals and verdicts, by whom, when and why.",
)
@click.option(
    "--as-of", metavar="DATE", help="The interval that was in force then: a time (UTC), or the end of a date."
)
@options.json_output
@options.common
@click.pass_obj
def command(messenger: Messenger, /, names: tuple[str, ...], null: bool, **given: Any) -> int:
    """List the interval in which each FILE serves: start, end, set by default or by hand, who, when and why.

    FILE is a calibration; its interval is a default when it is made (for how many
    nights: validity_nights of its kind in a settings file, else the kind's own). An
    interval set by hand wins over default ones, whatever their nights; awe-make
    takes such a calibration as it is, and says so where another would be made.
    The interval is appended to the journal of the store that holds FILE, or of
    the first store if FILE's cannot be written, and never edits its record.

    START and END are nights (2024-03-02) or times, UTC (2024-03-02T23:10). A night
    begins at local noon: from 2024-03-02 to 2024-03-04 are the nights of the
    2nd, 3rd and 4th. An interval holds its start and not its end. An end of
    a changed interval that is not named stays as it is.

    \b
    Examples:
      awe-validity bias/2024-03-02/*.fits
      awe-query bias night=2024-03-02 | awe-validity --nights 0,7 --reason "shutter stuck"
      awe-validity --to 2024-03-04 --reason "warmed up on the 5th" bias.fits
    """
    change = _change(given)
    if change is not None and not (given["reason"] or "").strip():
        raise UsageError("a change needs its reason, which goes on record", hint='--reason "TEXT"')
    if change is None and (given["dry_run"] or given["reason"] is not None):
        raise UsageError(
            "nothing is to be changed", hint="--set START..END, --to END, --nights BEFORE,AFTER, ..."
        )
    if given["as_of"] is not None and (change is not None or given["history"]):
        raise UsageError("--as-of asks what was in force; it goes with neither a change nor --history")
    found, codes = _calibrations(options.read_names(names, null), messenger)
    if change is not None:
        return worst([*codes, *_change_all(found, change, messenger, given)])
    if given["history"]:
        from ..core.validity import history

        print_history([(str(one.path), history(one)) for one in found], given["as_json"])
    else:
        from ..core.journal import happened_by
        from ..core.validity import as_of_moment, standing

        as_of = None if given["as_of"] is None else as_of_moment(given["as_of"])
        for one in found:
            if as_of is not None and not happened_by(one.made_with.when, as_of):
                messenger.note(f"{one.path}: was made later, {one.made_with.when}")
        _print([standing(one, as_of) for one in found], given["as_json"])
    return worst(codes)


def _change(given: dict[str, Any]) -> Change | None:
    """What is to be changed; None for nothing. Raises UsageError where options exclude each other."""
    from ..core.validity import Change

    asked = [
        name
        for name, value in (
            ("--set", given["ends"] is not None),
            ("--from or --to", given["start"] is not None or given["end"] is not None),
            ("--forever", given["forever"]),
            ("--nights", given["nights"] is not None),
            ("--default", given["as_made"]),
            ("--history", given["history"]),
        )
        if value
    ]
    if len(asked) > 1:
        raise UsageError(f"{' and '.join(asked[:2])} exclude each other")
    if given["forever"]:
        return Change("", "")
    if given["ends"] is not None:
        start, dots, end = given["ends"].partition("..")
        if not dots:
            raise UsageError(
                f"--set {given['ends']}: an interval is written START..END; an empty side is forever"
            )
        return Change(start, end)
    if given["nights"] is not None:
        return Change(nights=_nights(given["nights"]))
    if given["as_made"]:
        return Change(default=True)
    return None if not asked or given["history"] else Change(given["start"], given["end"])


def _nights(text: str) -> Validity:
    from ..core.kind import Validity
    from ..core.settings import MOST_NIGHTS

    sides = [side.strip() for side in text.split(",")]
    fits = len(sides) == 2 and all(
        side == FOREVER or (side.isascii() and side.isdigit() and len(side) < 9 and int(side) <= MOST_NIGHTS)
        for side in sides
    )
    if not fits:
        raise UsageError(
            f"--nights {text}: must be BEFORE,AFTER, each a number of nights up to {MOST_NIGHTS} or {FOREVER}"
        )
    before, after = (None if side == FOREVER else int(side) for side in sides)
    return Validity(before, after)


def _calibrations(names: Sequence[str], messenger: Messenger) -> tuple[list[Calibration], list[int]]:
    """The calibrations, and the exit codes of what is none."""
    from ..core.kinds import KINDS
    from ..core.kinds.foreign import IMPORTS
    from ..core.validity import calibration_at
    from ..core.workspace import here

    stores = here().stores
    found, codes = [], []
    for name in dict.fromkeys(names):
        try:
            found.append(calibration_at(Path(name), stores, (*KINDS, *IMPORTS)))
        except AweError as error:
            messenger.error(error, name)
            codes.append(error.exit_code)
    return found, codes


def _change_all(
    found: Sequence[Calibration], change: Change, messenger: Messenger, given: dict[str, Any]
) -> list[int]:
    from ..core.journal import user_name
    from ..core.validity import Failure, change_all

    changed, codes = [], []
    for one in change_all(found, change, given["reason"].strip(), user_name(), given["dry_run"]):
        if isinstance(one, Failure):
            messenger.error(one.error, str(one.path))
            codes.append(one.error.exit_code)
            continue
        changed.append(one)
        if not one.changed:
            messenger.note(f"{one.path}: nothing was set by hand, so there is nothing to take back")
        elif given["dry_run"]:
            messenger.note(f"{one.path}: would be set; nothing was")
    _print(changed, given["as_json"])
    return codes


def _print(found: Sequence[Standing], as_json: bool) -> None:
    rows = []
    for one in found:
        about = {
            "path": str(one.path),
            "start": one.interval.start,
            "end": one.interval.end,
            "by": one.by or None,
            "who": one.interval.who,
            "when": one.interval.when,
            "why": one.interval.reason,
        }
        if as_json:
            about["journal"] = str(one.store.journal_path) if one.store else None
            options.print_line(json.dumps(about))
        elif not one.by:
            rows.append(
                [str(one.path), "never", "never", "no night", *(str(about[name]) for name in COLUMNS[4:])]
            )
        else:
            rows.append([FOREVER if about[name] is None else str(about[name]) for name in COLUMNS])
    if rows:
        print_table(COLUMNS, rows)


def print_history(
    found: Sequence[tuple[str, Sequence[tuple[str, Any, Store | None]]]], as_json: bool
) -> None:
    """Print what was said of objects: of each its name, and when, the event, and whose journal has it."""
    rows = []
    for name, lines in found:
        for when, event, store in lines:
            journal = str(store.journal_path) if store else None
            if as_json:
                known = {"path": name, "when": when, "journal": journal}
                about = {key: value for key, value in event.items() if key not in ("identity", *known)}
                options.print_line(json.dumps({"path": name, **about, "when": when, "journal": journal}))
                continue
            told = (str(event.get("event")), _value(event), str(event.get("reason") or ""))
            rows.append([name, when, str(event.get("who") or ""), *told, journal or ""])
    if rows:
        print_table(HISTORY, rows)


def _value(event: Any) -> str:
    """What an event says, in a word or an interval; nothing for one of a newer version."""
    what = event.get("event")
    if what not in ("verdict", "quality", "embargo", "publish", "validity", "made"):
        return ""
    if what == "verdict":
        return str(event.get("verdict"))
    if what == "quality":
        outside = [str(one["measure"]) for one in event["limits"] if not one["ok"]]
        return f"flagged: {','.join(outside)}" if outside else "no flags"
    if what == "embargo":
        return str(event.get("until") or "lifted")
    if what == "publish":
        return str(event.get("to"))
    if what == "validity" and event.get("by") == "default":
        return "as made"
    ends = [FOREVER if event.get(name) is None else str(event[name]) for name in ("start", "end")]
    return FOREVER if ends == [FOREVER, FOREVER] else "..".join(ends)


def main() -> None:
    """Run the program."""
    launch(command)
