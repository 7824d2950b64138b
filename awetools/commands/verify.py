"""`awe-verify`: whether products and raw frames are what their records say."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import NoStore, NoSuchFile, UsageError, worst
from . import options
from .messages import Failures, Messenger
from .runner import launch

if TYPE_CHECKING:
    from ..core.store import Store
    from ..core.verify import Finding, Work


@click.command(
    "verify",
    short_help="Check products and raw frames against their records.",
    context_settings=options.SETTINGS,
)
@options.inputs("FILE|DIR...")
@click.option("--quick", is_flag=True, help="Trust size and time where they are those of the record.")
@click.option(
    "--clean",
    "cleaning",
    is_flag=True,
    help="First finish interrupted replacements and remove what dead programs left.",
)
@click.option(
    "--quality",
    is_flag=True,
    help="Apply the limits now in force to what products measured, and put on record what changes.",
)
@click.option("-n", "--dry-run", is_flag=True, help="--quality: say what would change, and change nothing.")
@options.processes
@options.json_output
@options.common
@click.pass_obj
def command(
    messenger: Messenger, /, names: tuple[str, ...], null: bool, jobs: int, as_json: bool, **given: Any
) -> int:
    """Check products and raw frames against their records, and say what crashes left behind.

    Without FILE or DIR, the store here is checked, with the raw frames that are
    registered in it and its index; with `-`, names are read from standard input.
    A directory stands for all below it. Each file is read, and its hashes, FITS
    checksums and recipe key are computed again. Prints a line per finding: path,
    problem and detail, with TABs between. Nothing is changed, except by --clean,
    which never removes a product, a record or a raw frame.

    With --quality no hash is looked at. The limits of camera and settings files are
    applied to the measures in the records; what they flag, or no longer flag, is
    appended to the journal of the store and counts from then on, in awe-query as in the
    choice of calibrations, until the product is made again. Records stay as they are.

    \b
    Problems with exit code 8 (a hash differs):
      edited           the file is not the one that its record describes
      content-differs  the pixels are not those that the record describes
      checksum         a FITS checksum does not match
      key-differs      the recipe key is not that of the record's own parts
      raw-edited       the pixels of a raw frame are not those registered
    With exit code 4 (missing, unreadable or malformed; 7 for unavailable):
      missing, no-record, bad-record, bad-fits, half-replaced, raw-missing,
      index-differs, unavailable
    With exit code 0 (nothing is wrong with the data):
      raw-moved        the same pixels are registered elsewhere
      leftover         a file of a program that died
      flags-changed    the limits now in force give other flags (--quality)

    \b
    Examples:
      awe-verify -j4
      awe-verify --quick --clean reduced/
      awe-query flat night=2017-03-02 | awe-verify -
      awe-verify --quality -n
    """
    from ..core.store import search_path
    from ..core.verify import look
    from ..core.workspace import working_directory

    if given["dry_run"] and not given["quality"]:
        raise UsageError("nothing is changed without --quality: -n has nothing to leave out")
    if given["quality"] and (given["quick"] or given["cleaning"]):
        raise UsageError("--quality looks at records alone: it goes with neither --quick nor --clean")
    stores = search_path(working_directory())
    paths = _paths(names, null, stores)
    work = look(paths, stores)
    if given["quality"]:
        return _requalify(work, messenger, given["dry_run"], as_json)
    if given["cleaning"]:
        _clean(work, messenger)
        work = look(paths, stores)
    for nested in work.nested:
        messenger.note(f"left out {nested}: a store of its own")
    findings = _findings(work, messenger, given["quick"], jobs, as_json)
    _count(work, findings, messenger)
    return worst([one.exit_code for one in findings])


def _paths(names: tuple[str, ...], null: bool, stores: list[Store]) -> list[Path]:
    if names:
        return [Path(name) for name in options.read_names(names, null)]
    if not stores:
        raise NoStore("there is no store here: name files or directories", hint="awe-verify DIR")
    return [stores[0].root]


def _requalify(work: Work, messenger: Messenger, dry_run: bool, as_json: bool) -> int:
    """Apply the limits in force to the measures of the products; the exit code."""
    from ..core.journal import user_name
    from ..core.kinds import KINDS
    from ..core.kinds.foreign import IMPORTS
    from ..core.requality import Failure, apply_limits
    from ..core.verify import Finding
    from ..core.workspace import here
    from .progress import progress

    # A limit that is wrong fails every product of its kind.
    changed, failures = 0, Failures(messenger)
    with progress(len(work.products), "awe-verify", messenger) as step:
        for one in apply_limits(work.products, here(), (*KINDS, *IMPORTS), user_name(), dry_run):
            step()
            if isinstance(one, Failure):
                failures.add(one.error, str(one.path))
            elif one is not None:
                changed += 1
                _print(Finding(str(one.path), "flags-changed", one.text), as_json)
    failures.say_rest()
    for path in work.others:
        if os.path.lexists(path):
            messenger.note(f"left out {path}: not a product")
        else:
            failures.add(NoSuchFile(f"{path}: no such file"), str(path))
    now = "would be" if dry_run else "are"
    messenger.note(
        f"{len(work.products)} products, {changed} of which {now} flagged otherwise by the limits in force"
    )
    if changed and not dry_run:
        messenger.note(
            "awe-judge --queue lists what waits for a verdict, awe-make --outdated -n what follows"
        )
    return worst(failures.codes)


def _clean(work: Work, messenger: Messenger) -> None:
    from ..core.leftovers import clean

    for done in clean(work.leftovers):
        messenger.note(f"{done.what} {done.path}")


def _findings(work: Work, messenger: Messenger, quick: bool, jobs: int, as_json: bool) -> list[Finding]:
    from ..core.verify import verify
    from .progress import progress

    found = []
    with progress(len(work), "awe-verify", messenger) as step:
        for findings in verify(work, quick, jobs):
            step()
            found += findings
            for one in findings:
                _print(one, as_json)
    return found


def _print(one: Finding, as_json: bool) -> None:
    if as_json:
        about = {"path": one.path, "problem": one.problem, "detail": one.detail, "fixable": one.fixable}
        options.print_line(json.dumps(about))
    else:
        options.print_line(
            "\t".join(" ".join(text.split("\n")) for text in (one.path, one.problem, one.detail))
        )


def _count(work: Work, findings: list[Finding], messenger: Messenger) -> None:
    counts = Counter(one.problem for one in findings)
    texts = [f"{len(work.products)} products", f"{len(work.raws)} raw files"]
    texts += [f"{count} {problem}" for problem, count in counts.items()]
    messenger.note(", ".join(texts) if counts else f"{', '.join(texts)}: all as recorded")
    if any(one.fixable for one in findings):
        messenger.note("awe-verify --clean finishes and removes what was interrupted")


def main() -> None:
    """Run the program."""
    launch(command)
