"""`awe-publish`: products, with all of their lineage, one store up."""

from __future__ import annotations

import json
import os
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
    from ..core.sharing.publication import Publication, Wish
    from ..core.store import Store

COLUMNS = ("what", "kind", "bytes", "path", "from")
FILES = ("product", "calibrations", "all")


@click.command(
    "publish",
    short_help="Publish products with their lineage one store up.",
    context_settings=options.SETTINGS,
)
@options.inputs()
@options.path_option(
    "--to", metavar="STORE", help="Publish to this store. [default: the next of AWE_PATH after FILE's]"
)
@click.option(
    "--files",
    type=click.Choice(FILES),
    default="product",
    show_default=True,
    help="The files that go along: FILE alone, every product that it was made from, or copies of the raw frames too.",
)
@click.option(
    "--embargo",
    metavar="DATE",
    help="Hold FILE in its new store: before DATE (UTC) it goes no further. `none` takes that back.",
)
@click.option(
    "--hold",
    is_flag=True,
    help="Publish nothing: set --embargo on FILE, also a raw frame, in the store that holds it.",
)
@click.option("--reason", metavar="TEXT", help="Why; goes on record.")
@click.option("--force", is_flag=True, help="Replace another product of the same name, whose record is kept.")
@click.option("-n", "--dry-run", is_flag=True, help="List what would be copied, and copy nothing.")
@options.json_output
@options.common
@click.pass_obj
def command(messenger: Messenger, /, names: tuple[str, ...], null: bool, **given: Any) -> int:
    """Publish each FILE, a product, with its whole lineage: from the store that holds it to the next of AWE_PATH.

    The records of all that FILE was made from go along, always, and what is said of
    it: verdicts and intervals. Files are copied to the same place as in their own
    store, bit by bit; raw frames are never moved. All or nothing: whatever happens,
    the upper store is as it was, or all of FILE... is there; what was interrupted is
    completed by the next awe-publish or by awe-verify --clean. Prints the
    path of each product in the upper store.

    Published is only what was judged ready. Refused (5) is a FILE of which an ancestor
    was judged bad, is flagged and was not judged good, or is under embargo. The
    nearest store's verdict counts, but what the upper store itself calls bad stays
    out. An embargo holds what is in the store in which it was set, and everything
    made from it; that of any store counts but the one to which FILE goes.

    \b
    Examples:
      awe-judge reduced.fits ready --reason "checked" && awe-publish reduced.fits
      awe-query reduced verdict=ready | awe-publish --files calibrations -n
      awe-publish --hold --embargo 2027-03-02 --reason "proprietary" raw/*.fits
    """
    from ..core.journal import user_name
    from ..core.sharing.embargo import until_of
    from ..core.sharing.publication import Wish
    from ..core.store import search_path
    from ..core.workspace import working_directory

    embargo = given["embargo"]
    if given["hold"] and embargo is None:
        raise UsageError("--hold sets an embargo", hint="--hold --embargo DATE, or --embargo none")
    if given["hold"] and (given["to"] is not None or given["force"]):
        raise UsageError("--hold publishes nothing: it goes with neither --to nor --force")
    until = None if embargo is None else until_of(embargo)
    reason = (given["reason"] or "").strip()
    wish = Wish(given["files"], given["force"], embargo is not None, until, reason, user_name())
    listed = options.read_names(names, null)
    stores = search_path(working_directory())
    if given["hold"]:
        return _hold(listed, stores, wish, messenger, given, null)
    return _publish([Path(name) for name in listed], stores, wish, messenger, given, null)


def _publish(
    paths: Sequence[Path],
    stores: Sequence[Store],
    wish: Wish,
    messenger: Messenger,
    given: dict[str, Any],
    null: bool,
) -> int:
    from ..core.sharing.publication import plan
    from ..core.sharing.upward import publish_all
    from .progress import progress

    store = _destination(paths, stores, given["to"], messenger)
    if isinstance(store, int):
        return store
    if given["dry_run"]:
        found = plan(paths, stores, store, wish)
        code = _complain(found, messenger)
        _print_plan(found, given["as_json"])
        if not code:
            messenger.note(f"{_counted(found)}; nothing was published")
        return code
    with progress(None, "awe-publish", messenger) as step:
        found, finished, done = publish_all(paths, stores, store, wish, step)
    for path in finished.files:
        messenger.note(f"put in place what an interrupted publication left: {path}")
    for path in dict.fromkeys([*finished.untold, *done.untold]):
        messenger.warning(
            f"{path}: this user cannot write it, so awe-rm does not learn there what is published: "
            "its owner runs the same awe-publish again"
        )
    for text in found.notes:
        messenger.note(text)
    code = _complain(found, messenger)
    if not code:
        _print_done(found, wish, messenger, given["as_json"], null)
    return code


def _destination(
    paths: Sequence[Path], stores: Sequence[Store], to: Path | None, messenger: Messenger
) -> Store | int:
    """The one store to which all go; the exit code where there is none for some."""
    from ..core.raws import stat_of
    from ..core.sharing.upward import destination

    found: dict[Store, Path] = {}
    codes = []
    for path in paths:
        try:
            stat_of(path)
            found.setdefault(destination(path, stores, to)[1], path)
        except AweError as error:
            messenger.error(error, str(path))
            codes.append(error.exit_code)
    if codes:
        messenger.note(f"nothing was published: {len(codes)} of {len(paths)} cannot be")
        return worst(codes)
    if len(found) > 1:
        one, other = list(found.items())[:2]
        raise UsageError(
            f"{one[1]} would go to {one[0].root}, but {other[1]} to {other[0].root}: all or nothing is for one store",
            hint="one run for each, or --to STORE",
        )
    return next(iter(found))


def _complain(found: Publication, messenger: Messenger) -> int:
    for error in found.problems:
        messenger.error(error)
    if found.problems:
        count = len(found.problems)
        messenger.note(f"nothing was published: {count} reason{'s' * (count > 1)} against it")
    return worst([error.exit_code for error in found.problems])


def _counted(found: Publication) -> str:
    names = {"product": "product", "kept": "record", "raw": "raw record", "frame": "raw frame"}
    counts = [(sum(one.what == what for one in found.pieces), name) for what, name in names.items()]
    parts = [f"{count} {name}{'s' * (count > 1)}" for count, name in counts if count]
    return f"{', '.join(parts) or 'no file'} to {found.store.root}, {found.bytes} bytes"


def _print_plan(found: Publication, as_json: bool) -> None:
    rows = []
    for one in found.pieces:
        about = {
            "what": one.what,
            "kind": one.node.kind,
            "bytes": one.size,
            "path": str(found.store.root / one.target),
            "from": str(one.source),
        }
        if as_json:
            options.print_line(json.dumps({**about, "identity": one.node.id}))
        rows.append([str(value) for value in about.values()])
    if rows and not as_json:
        print_table(COLUMNS, rows)


def _print_done(found: Publication, wish: Wish, messenger: Messenger, as_json: bool, null: bool) -> None:
    for one in found.asked:
        if one.there:
            messenger.note(f"{one.node.path}: is in {found.store.root} already")
        if as_json:
            about = {"path": str(one.target), "from": os.path.abspath(one.node.path), "identity": one.node.id}
            state = "there" if one.there else "published"
            embargo = {"embargo": wish.until} if wish.embargo else {}
            options.print_line(
                json.dumps({**about, "store": str(found.store.root), "state": state, **embargo})
            )
        else:
            options.print_line(str(one.target), null)
    if found.pieces:
        messenger.note(_counted(found))


def _hold(
    names: Sequence[str],
    stores: Sequence[Store],
    wish: Wish,
    messenger: Messenger,
    given: dict[str, Any],
    null: bool,
) -> int:
    from ..core.sharing.upward import hold_all

    for node, changed, embargo in hold_all(names, stores, wish, given["dry_run"]):
        if given["as_json"]:
            about = {"path": node.path, "identity": node.id, "changed": changed}
            options.print_line(
                json.dumps(
                    {
                        **about,
                        "embargo": embargo.until if embargo else None,
                        "store": str(embargo.store.root) if embargo else None,
                    }
                )
            )
        else:
            options.print_line(node.path, null)
        if given["dry_run"]:
            messenger.note(
                f"{node.path}: {'would be changed' if changed else 'is so already'}; nothing was set"
            )
        else:
            messenger.note(f"{node.path}: {f'is {embargo}' if embargo else 'is under no embargo'}")
    return 0


def main() -> None:
    """Run the program."""
    launch(command)
