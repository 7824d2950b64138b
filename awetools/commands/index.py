"""`awe-index`: the index of a store, looked at, checked and brought up to date."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import AweError, NoStore, NotUpToDate, UsageError
from . import options
from .messages import Messenger
from .runner import launch

if TYPE_CHECKING:
    from ..core.indexing.index import Changes
    from ..core.store import Store


@click.command(
    "index",
    short_help="Show, check, update or rebuild the index of a store.",
    context_settings=options.SETTINGS,
)
@click.option("--rebuild", is_flag=True, help="Make the index anew from the records.")
@click.option(
    "--check", is_flag=True, help="Print where the index differs from the records; exit 3 if it does."
)
@click.option(
    "--update", is_flag=True, help="Take over what was added, changed or removed in the store's files."
)
@click.option(
    "--follow", is_flag=True, help="Keep on updating until interrupted, and print each path that is added."
)
@click.option(
    "--interval",
    "interval_s",
    type=options.Finite(min=0.05),
    default=5.0,
    show_default=True,
    metavar="S",
    help="With --follow: seconds between two looks at the files.",
)
@options.path_option(
    "--merge", help="Take over the raw records and verdicts of another store.", metavar="STORE"
)
@options.json_output
@options.common
@click.pass_obj
def command(messenger: Messenger, /, as_json: bool, **given: Any) -> int:
    """Show, check, update or rebuild the index of the store here (the first of AWE_PATH, else found upward).

    The index is a cache of the records, which are the truth: it can be deleted
    at any time, also while programs run, and the next program makes it anew. It
    has to be updated only if records were added, changed or removed by other
    means than awetools, such as rsync or rm. Without an option, prints the path,
    version and size of the index and the number of objects of each kind.

    --check compares every record with the index and prints the differences.
    --update and --follow look at the times of the records and read only those
    that changed; they print the paths that were added or changed. --merge keeps
    this store's record of a frame that both stores know, and the newest of all
    verdicts.

    \b
    Examples:
      awe-index --update
      awe-index --follow --interval 2 | while read path; do echo "new: $path"; done
    """
    _one_of(given, ("rebuild", "check", "update", "follow", "merge"))
    store = _store_here()
    if given["rebuild"]:
        return _rebuild(store, messenger)
    if given["check"]:
        return _check(store, messenger, as_json)
    if given["update"]:
        return _update(store, messenger, as_json)
    if given["follow"]:
        return _follow(store, messenger, given["interval_s"], as_json)
    if given["merge"]:
        return _merge(store, given["merge"], messenger)
    return _summary(store, as_json)


def _one_of(given: dict[str, Any], names: Sequence[str]) -> None:
    asked = [f"--{name}" for name in names if given[name]]
    if len(asked) > 1:
        raise UsageError(f"{' and '.join(asked)} exclude each other")


def _store_here() -> Store:
    from ..core.store import search_path
    from ..core.workspace import working_directory

    stores = search_path(working_directory())
    if not stores:
        raise NoStore("there is no store here, and AWE_PATH names none", hint="awe-init, or AWE_PATH=DIR")
    return stores[0]


def _rebuild(store: Store, messenger: Messenger) -> int:
    from ..core.indexing.index import rebuild

    messenger.note(f"{store.index_path}: made anew, {rebuild(store)} objects")
    return 0


def _check(store: Store, messenger: Messenger, as_json: bool) -> int:
    from ..core.indexing.indexsync import check

    problems = check(store)
    for text in problems:
        options.print_line(json.dumps({"problem": text}) if as_json else text)
    if not problems:
        messenger.note(f"{store.index_path}: agrees with the records")
        return 0
    messenger.note(f"{store.index_path}: {len(problems)} differences from the records; awe-index --update")
    return NotUpToDate.exit_code


def _update(store: Store, messenger: Messenger, as_json: bool) -> int:
    from ..core.indexing.index import changes_of

    changes = changes_of(store)
    _print_changes(store, changes, messenger, as_json)
    messenger.note(f"{len(changes.put)} put, {len(changes.removed)} removed")
    return changes.unreadable[0].exit_code if changes.unreadable else 0


def _follow(store: Store, messenger: Messenger, interval_s: float, as_json: bool) -> int:
    from ..core.indexing.indexsync import follow

    named: set[str] = set()
    for changes in follow(store, interval_s):
        if isinstance(changes, AweError):
            # Busy or unavailable: the next look may find it well again.
            messenger.warning(f"{changes.slug}: {changes.message}")
            continue
        new = tuple(one for one in changes.unreadable if one.message not in named)
        named = {one.message for one in changes.unreadable}
        _print_changes(store, changes, messenger, as_json, new)
    return 0


def _print_changes(
    store: Store,
    changes: Changes,
    messenger: Messenger,
    as_json: bool,
    unreadable: Sequence[AweError] | None = None,
) -> None:
    for address in changes.put:
        path = os.path.join(store.root, address)
        options.print_line(json.dumps({"path": path}) if as_json else path)
    for address in changes.removed:
        messenger.note(f"removed {address}: its record is gone")
    for error in changes.unreadable if unreadable is None else unreadable:
        messenger.error(error)


def _merge(store: Store, directory: Path, messenger: Messenger) -> int:
    from ..core.indexing.indexsync import merge
    from ..core.store import AWE
    from ..core.store import Store as StoreClass

    if not (directory / AWE).is_dir():
        raise NoStore(f"{directory}: is not a store", hint=f"ls -a {directory}")
    other = StoreClass(directory.resolve())
    if other.root == store.root:
        raise UsageError(f"--merge {directory}: is this store itself")
    frames, events = merge(store, other)
    messenger.note(f"{frames} raw records and {events} verdicts taken over from {other.root}")
    return 0


def _summary(store: Store, as_json: bool) -> int:
    from ..core.indexing.indexsync import summary

    found = summary(store)
    about = {"path": str(found.path), "version": found.version, "bytes": found.bytes}
    if as_json:
        options.print_line(json.dumps({**about, "kinds": dict(found.kinds)}))
        return 0
    for name, value in {**about, **found.kinds}.items():
        options.print_line(f"{name}\t{value}")
    return 0


def main() -> None:
    """Run the program."""
    launch(command)
