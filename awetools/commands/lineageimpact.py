"""`awe-lineage --impact` and `--invalidate`: what a bad frame touched, and judging it all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..core.errors import UsageError, worst
from . import options
from .lineageviews import lookup_here, named
from .messages import Failures, Messenger
from .tables import print_table

if TYPE_CHECKING:
    from ..core.judge import Failure, Judged
    from ..core.tracing.impact import Touched
    from ..core.tracing.lineage import Node
    from ..core.tracing.lookup import Lookup

COLUMNS = ("steps", "kind", "path", "id", "state")
FORMS = ("paths", "table", "tsv", "json")


def show(names: Sequence[str], messenger: Messenger, given: Mapping[str, Any]) -> int:
    """List what was made from the named files, and judge it bad where that is asked; returns the exit code."""
    form = _form(given)
    reason = (given["reason"] or "").strip()
    if given["invalidate"] and not reason:
        raise UsageError("--invalidate needs its reason, which goes on record", hint='--reason "TEXT"')
    from ..core.tracing.impact import impact

    with lookup_here() as lookup:
        starts, codes = named(names, lookup, messenger)
        touched = impact([node.id for node in starts], lookup)
        if given["undo"]:
            return worst([*codes, *_take_back(starts, touched, lookup, reason, messenger, given)])
        _print(touched, form, given["null"])
        _count(touched, bool(starts), messenger)
        if given["invalidate"] and starts:
            codes += _invalidate(starts, touched, lookup, reason, messenger, given["dry_run"])
    return worst(codes)


def _form(given: Mapping[str, Any]) -> str:
    form: str | None = given["form"]
    if given["as_json"]:
        if form not in (None, "json"):
            raise UsageError(f"--json and --format {form} exclude each other")
        return "json"
    if form is not None and form not in FORMS:
        raise UsageError(f"--impact is printed as {', '.join(FORMS)}, not as {form}")
    return form or "paths"


@options.to_output()
def _print(touched: Sequence[Touched], form: str, null: bool) -> None:
    if form in ("table", "tsv"):
        digits = None if form == "tsv" else 8
        rows = [[str(one.steps), one.kind, one.path, one.identity[:digits], one.state] for one in touched]
        if rows:
            print_table(COLUMNS, rows, aligned=form == "table")
        return
    import sys

    for one in touched:
        if form == "paths":
            sys.stdout.write(f"{one.path}{chr(0) if null else chr(10)}")
            continue
        about = {
            "path": one.path,
            "kind": one.kind,
            "id": one.identity,
            "steps": one.steps,
            "state": one.state,
        }
        sys.stdout.write(json.dumps(about) + "\n")


def _count(touched: Sequence[Touched], any_start: bool, messenger: Messenger) -> None:
    kinds = Counter(kind for _, kind in dict.fromkeys((one.identity, one.kind) for one in touched))
    gone = sum(one.state != "present" for one in touched)
    if kinds:
        texts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        messenger.note(f"touched: {texts}{f'; {gone} of these gone' if gone else ''}")
    elif any_start:
        messenger.note("nothing was made from it, as far as the indexes know")


def _invalidate(
    starts: Sequence[Node],
    touched: Sequence[Touched],
    lookup: Lookup,
    reason: str,
    messenger: Messenger,
    dry_run: bool,
) -> list[int]:
    from ..core.journal import user_name
    from ..core.tracing.impact import invalidate

    done, codes = _done(invalidate(starts, touched, lookup, reason, user_name(), dry_run), messenger)
    _say(done, "would be judged bad; nothing was" if dry_run else "judged bad", messenger)
    if done and not dry_run:
        messenger.note(
            "awe-lineage --impact FILE lists them; awe-lineage --invalidate --undo --reason TEXT FILE takes it back"
        )
    return codes


def _take_back(
    starts: Sequence[Node],
    touched: Sequence[Touched],
    lookup: Lookup,
    reason: str,
    messenger: Messenger,
    given: Mapping[str, Any],
) -> list[int]:
    """Take back what --invalidate said, and print what of it was made from the named files."""
    from ..core.journal import user_name
    from ..core.tracing.impact import take_back

    dry_run = given["dry_run"]
    done, codes = _done(take_back(starts, touched, lookup, reason, user_name(), dry_run), messenger)
    back = {one.subject.identity for one in done}
    _print([one for one in touched if one.identity in back], _form(given), given["null"])
    _say(done, "would be taken back; nothing was" if dry_run else "taken back", messenger)
    if done and (others := len({one.identity for one in touched} - back)):
        messenger.note(f"{others} others that it touched are as they were: judged since, or not by it")
    kept = Counter(one.verdict for one in done if one.verdict is not None)
    for verdict, count in kept.items():
        messenger.note(f"{count} of these {verdict}, as judged otherwise: awe-judge --history says by whom")
    if starts and not done and not codes:
        messenger.note("no --invalidate of it is in force here, so there is none to take back")
    return codes


def _done(found: Iterable[Judged | Failure], messenger: Messenger) -> tuple[list[Judged], list[int]]:
    """What was judged; and the exit codes of what could not be."""
    from ..core.judge import Failure

    done, failures = [], Failures(messenger)
    for one in found:
        if isinstance(one, Failure):
            failures.add(one.error, one.subject.name)
        else:
            done.append(one)
    failures.say_rest()
    return done, failures.codes


def _say(done: Sequence[Judged], told: str, messenger: Messenger) -> None:
    journals = Counter(str(one.store.journal_path) for one in done if one.store is not None)
    for journal, count in journals.items():
        messenger.note(f"{count} {told}, in {journal}")
