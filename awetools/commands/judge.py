"""`awe-judge`: what people think of products and raw frames, on record, and what waits for a verdict."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import AweError, NoImage, NoStore, UnknownName, UsageError, nearest, worst
from . import options
from .messages import Failures, Messenger
from .runner import launch
from .tables import print_table

if TYPE_CHECKING:
    from ..core.judge import Judged, Subject, Waiting

WORDS = ("good", "bad", "ready")
COLUMNS = ("path", "verdict", "who", "when", "why")
QUEUE = ("path", "kind", "measure", "value", "low", "high", "margin", "margin_fraction", "flags")
# How many products inside their limits the queue shows.
NEAREST = 20
# The options of awe-preview that are not asked for here.
AS_PREVIEW = {
    "output": None,
    "stretch": "asinh",
    "low": None,
    "high": None,
    "size": 1024,
    "region": None,
    "plane": None,
    "show_mask": False,
}


@click.command(
    "judge",
    short_help="Judge products and raw frames good, bad or ready, on record.",
    context_settings=options.SETTINGS,
)
@options.inputs("good|bad|ready] [FILE...")
@click.option("--reason", metavar="TEXT", help="Why; goes on record, and a verdict needs it.")
@click.option("--undo", is_flag=True, help="Take back the verdict in force; needs --reason too.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be judged, and judge nothing.")
@click.option("--history", is_flag=True, help="List all that was said of FILE, by whom, when and why.")
@click.option(
    "--queue",
    is_flag=True,
    help="List the products that wait for a verdict; the words are [KIND] [CONDITION...].",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="N",
    help=f"--queue: at most N. [default: all that are flagged, and {NEAREST} others]",
)
@options.path_option("--previews", metavar="DIR", help="--queue: write a PNG of each into this directory.")
@options.json_output
@options.common
@click.pass_obj
def command(messenger: Messenger, /, names: tuple[str, ...], null: bool, **given: Any) -> int:
    """Judge each FILE; without a verdict, list the one in force: verdict, who, when, why.

    \b
      good   it may be used, although it is flagged
      bad    it is not used, whatever its flags
      ready  it is good, and may be published

    The verdict is the first or the last word (a file called good is ./good).
    FILE is a product, or a raw frame (night.fits[CCD5] for one detector). Verdicts
    are appended to the journal of the store that holds FILE, or of the first store
    if FILE's cannot be written, and never edit its record; they follow a file
    that is moved or renamed. How many products were made from FILE is said
    (with -v, which).

    --queue lists the products that nobody judged: those that are flagged, and
    those nearest to a limit, sorted by margin_fraction, which is the margin (negative
    outside) as a share of the distance of the limits, or of the only limit.

    \b
    Examples:
      awe-judge bias.fits bad --reason "light leak"
      awe-query reduced night=2017-03-02 | awe-judge ready --reason "looked at all"
      awe-judge --queue flat filter=R --previews look/
    """
    if given["queue"]:
        _refuse("--queue", given, ("reason", "undo", "dry_run", "history"))
        return _queue(names, null, messenger, given)
    _refuse("only --queue takes", given, ("limit", "previews"), sep=" ")
    verdict, files = _verdict_of(names)
    if given["undo"] and verdict is not None:
        raise UsageError(f"--undo takes a verdict back, {verdict} gives one: they exclude each other")
    verdict = "none" if given["undo"] else verdict
    if verdict is not None:
        _refuse("a verdict and", given, ("history",), sep=" ")
        if not (given["reason"] or "").strip():
            raise UsageError("a verdict needs its reason, which goes on record", hint='--reason "TEXT"')
    elif given["dry_run"] or given["reason"] is not None:
        raise UsageError(
            "which verdict?", hint=f'awe-judge FILE {"|".join(WORDS)} --reason "TEXT", or --undo'
        )
    subjects, codes = _subjects(options.read_names(files, null), messenger)
    if verdict is not None:
        return worst([*codes, *_judge_all(subjects, verdict, messenger, given)])
    _print_standing(subjects, given)
    return worst(codes)


def _refuse(what: str, given: dict[str, Any], names: Sequence[str], sep: str = " and ") -> None:
    """Raise UsageError for the first of some options that is given beside what excludes it."""
    stray = next((name for name in names if given[name] not in (None, False)), None)
    if stray is not None:
        option = f"--{stray.replace('_', '-')}"
        raise UsageError(f"{what}{sep}{option}" + (" exclude each other" if "only" not in what else ""))


def _verdict_of(names: Sequence[str]) -> tuple[str | None, list[str]]:
    """The verdict among the words, the first or the last, and the other words."""
    files = list(names)
    ends = [place for place in dict.fromkeys((0, len(files) - 1)) if files and files[place] in WORDS]
    if len(ends) > 1:
        raise UsageError(
            f"{files[0]} and {files[-1]} are both verdicts", hint=f"a file of that name is ./{files[-1]}"
        )
    if ends:
        return files.pop(ends[0]), files
    for word in (files[0], files[-1]) if files else ():
        if re.fullmatch("[A-Za-z]+", word) and not os.path.lexists(word):
            raise UnknownName(
                f"no verdict, nor file, {word!r}{nearest(word, list(WORDS))}; the verdicts are: {', '.join(WORDS)}"
            )
    return None, files


def _subjects(names: Sequence[str], messenger: Messenger) -> tuple[list[Subject], list[int]]:
    """What the names stand for, and the exit codes of those that stand for nothing."""
    from ..core.judge import subjects_at
    from ..core.workspace import here

    workspace = here()
    found, codes = [], []
    for name in dict.fromkeys(names):
        try:
            found += subjects_at(name, workspace)
        except AweError as error:
            messenger.error(error, name)
            codes.append(error.exit_code)
    return found, codes


def _judge_all(
    subjects: Sequence[Subject], verdict: str, messenger: Messenger, given: dict[str, Any]
) -> list[int]:
    from ..core.journal import user_name
    from ..core.judge import Failure, judge

    done: list[Judged] = []
    failures = Failures(messenger)
    for one in judge(subjects, verdict, given["reason"].strip(), user_name(), given["dry_run"]):
        if isinstance(one, Failure):
            failures.add(one.error, one.subject.name)
            continue
        done.append(one)
        if not one.changed:
            messenger.note(f"{one.subject.name}: no verdict is in force here, so there is none to take back")
        elif given["dry_run"]:
            messenger.note(f"{one.subject.name}: would be judged; nothing was")
    failures.say_rest()
    _print(done, given["as_json"])
    _say_touched([one.subject for one in done if one.changed], messenger)
    return failures.codes


def _say_touched(subjects: Sequence[Subject], messenger: Messenger) -> None:
    """How many products hang on what was judged, and what to do about them."""
    from ..core.judge import touched

    if not subjects:
        return
    what = subjects[0].name if len(subjects) == 1 else f"these {len(subjects)}"
    try:
        found = touched(subjects)
    except AweError as error:
        # The verdict is on record, whether or not an index can be read.
        messenger.warning(f"what hangs on {what} is not known: {error.message}")
        return
    if not found:
        messenger.note(f"no product was made from {what}")
        return
    for one in found:
        messenger.detail(f"{one.kind} {one.path}")
    count = len({one.identity for one in found})
    word = "product was" if count == 1 else "products were"
    messenger.note(f"{count} {word} made from {what}: awe-make --outdated -n says what to make again")


def _print_standing(subjects: Sequence[Subject], given: dict[str, Any]) -> None:
    from ..core.judge import history, standing

    if not given["history"]:
        _print([standing(one) for one in subjects], given["as_json"])
        return
    from .validity import print_history

    print_history([(one.name, history(one)) for one in subjects], given["as_json"])


def _print(found: Sequence[Judged], as_json: bool) -> None:
    rows = []
    for one in found:
        about = {
            "path": one.subject.name,
            "verdict": one.verdict,
            "who": one.who,
            "when": one.when,
            "why": one.reason,
        }
        if as_json:
            journal = str(one.store.journal_path) if one.store else None
            options.print_line(json.dumps({**about, "kind": one.subject.kind, "journal": journal}))
        else:
            rows.append([str(about[name] or ("none" if name == "verdict" else "")) for name in COLUMNS])
    if rows:
        print_table(COLUMNS, rows)


# The queue


def _queue(names: Sequence[str], null: bool, messenger: Messenger, given: dict[str, Any]) -> int:
    from ..core.files import make_directory
    from ..core.judge import waiting
    from ..core.kinds import KINDS
    from ..core.kinds.foreign import IMPORTS
    from ..core.workspace import here
    from .types import KindType

    if null:
        raise UsageError("--queue reads no names, so there is nothing for -0 to end")
    # A word that is no condition can only be the kind.
    kind = KindType().convert(names[0], None, None) if names and re.fullmatch(r"\w+", names[0]) else None
    workspace = here()
    if not workspace.stores:
        raise NoStore("there is no store here, and AWE_PATH names none", hint="awe-init, or AWE_PATH=DIR")
    problems: list[AweError] = []
    conditions = names if kind is None else names[1:]
    found = waiting(kind, conditions, workspace.stores, (*KINDS, *IMPORTS), problems)
    for problem in problems:
        messenger.error(problem)
    if given["previews"] is not None:
        make_directory(given["previews"])
    flagged = sum(1 for one in found if one.flags)
    shown = found[: given["limit"] or flagged + NEAREST]
    previews = [_preview(one, workspace, messenger, given["previews"]) for one in shown]
    _print_queue(shown, previews, given)
    left = len(found) - len(shown)
    messenger.note(
        f"{flagged} flagged and not judged, {len(found) - flagged} others have limits"
        + (f"; {left} not shown: --limit {len(found)}" if left else "")
    )
    return worst([problem.exit_code for problem in problems])


def _preview(one: Waiting, workspace: Any, messenger: Messenger, directory: Path | None) -> str | None:
    """The PNG of a product, where previews are asked for and there is an image."""
    from ..core.files import parse_address
    from .preview import previews

    if directory is None:
        return None
    try:
        found = list(previews(parse_address(one.path), workspace, {**AS_PREVIEW, "out_dir": directory}))
    except NoImage:
        messenger.detail(f"{one.path}: a table has no preview")
        return None
    except AweError as error:
        messenger.warning(f"{one.path}: no preview: {error.message}")
        return None
    return str(found[0])


def _print_queue(shown: Sequence[Waiting], previews: Sequence[str | None], given: dict[str, Any]) -> None:
    columns = (*QUEUE, "preview") if given["previews"] else QUEUE
    rows = []
    for one, preview in zip(shown, previews, strict=True):
        about = {
            **{name: getattr(one, name) for name in QUEUE if name not in ("margin_fraction", "flags")},
            "margin_fraction": one.share,
            "flags": list(one.flags),
            **({"preview": preview} if given["previews"] else {}),
        }
        if given["as_json"]:
            options.print_line(json.dumps(about))
        else:
            rows.append([_text(about[name]) for name in columns])
    if rows:
        print_table(columns, rows)


def _text(value: object) -> str:
    if isinstance(value, list):
        return ",".join(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)


def main() -> None:
    """Run the program."""
    launch(command)
