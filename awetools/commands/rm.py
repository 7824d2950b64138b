"""`awe-rm`: free the bytes of products, and keep their records."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import AweError, NoMatch, NoStore, Protected, UsageError, worst
from . import options
from .messages import Messenger
from .runner import launch
from .types import KindType

if TYPE_CHECKING:
    from ..core.rm import Removed
    from ..core.store import Store


@click.command(
    "rm",
    short_help="Remove products and keep their records, so that lineage stays whole.",
    context_settings=options.SETTINGS,
)
@options.inputs("PRODUCT...")
@click.option(
    "--superseded",
    type=KindType(),
    metavar="KIND",
    help="Remove the versions of KIND that no newest product needs; arguments are then conditions.",
)
@click.option("--reason", metavar="TEXT", default="", help="Why; goes on record.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@options.json_output
@options.common
@click.pass_obj
def command(messenger: Messenger, /, names: tuple[str, ...], null: bool, **given: Any) -> int:
    """Remove each PRODUCT: its file and the record beside it; the record is kept in the store.

    So the bytes are free, awe-lineage still shows all that it was made from and all
    that was made from it, and awe-make makes it again. Prints the paths of what was
    removed, and says how many bytes were freed.

    Refused, and left as it is (exit code 2): a product that was published or is judged
    ready, one that was edited since it was made, a raw frame, and any file that
    awetools did not write; one that is being written is refused with exit code 7.

    With --superseded KIND, those versions are removed that a later one eclipses (of
    the same detector, set-up, filter, night and exposure; neither judged bad nor
    flagged) and from which no newest product of any kind was made. Versions whose
    interval was set by hand stay.

    \b
    Examples:
      awe-rm reduced/2017-03-02/loral_R_d1030-666d8088.fits
      awe-query reduced night=2017-03-02 | awe-rm --reason "disk is full"
      awe-rm -n --superseded flat filter=R
    """
    from ..core.journal import user_name
    from ..core.rm import remove
    from ..core.workspace import here

    stores = here().stores
    who, codes, freed, count = user_name(), [], 0, 0
    for path in _wanted(names, null, stores, given["superseded"], messenger):
        try:
            removed = remove(path, stores, given["reason"].strip(), who, given["dry_run"])
        except AweError as error:
            if given["superseded"] and isinstance(error, Protected):
                messenger.note(f"left out {error.message}")
                continue
            messenger.error(error)
            codes.append(error.exit_code)
            continue
        if removed.before:
            messenger.note(f"{path}: was removed before; its record is {removed.record_path}")
            continue
        count, freed = count + 1, freed + removed.bytes
        _print(removed, null, given)
    if count:
        messenger.note(_summary(count, freed, given["dry_run"]))
    return worst(codes)


def _wanted(
    names: Sequence[str], null: bool, stores: Sequence[Store], kind: str | None, messenger: Messenger
) -> Iterator[Path]:
    """What is to be removed; raises NoMatch where no product at all answers the conditions."""
    if kind is None:
        for name in dict.fromkeys(options.read_names(names, null)):
            yield Path(name)
        return
    from ..core.rm import superseded

    if not stores:
        raise NoStore("there is no store here, and AWE_PATH names none", hint="awe-init, or AWE_PATH=DIR")
    if any("/" in name and Path(name).exists() for name in names):
        raise UsageError(f"--superseded {kind}: takes conditions, not files", hint="awe-rm PRODUCT...")
    found = superseded(kind, stores)
    if names:
        chosen = _answers(kind, names, stores)
        if not chosen:
            raise NoMatch(f"no {kind} with {' '.join(names)}", hint=f"awe-query {kind}")
        found = [path for path in found if str(path) in chosen]
    if not found:
        messenger.note(f"no {kind} is superseded{' with ' if names else ''}{' '.join(names)}")
    yield from found


def _answers(kind: str, conditions: Sequence[str], stores: Sequence[Store]) -> set[str]:
    from ..core.kinds import KINDS
    from ..core.kinds.foreign import IMPORTS
    from ..core.questions.query import ask, question_from_words

    question = question_from_words(kind, conditions, ["path"], [], None)
    return {str(row["path"]) for row in ask(question, stores, (*KINDS, *IMPORTS))}


def _print(removed: Removed, null: bool, given: dict[str, Any]) -> None:
    if not given["as_json"]:
        options.print_line(str(removed.path), null)
        return
    about = {
        "path": str(removed.path),
        "kind": removed.kind,
        "recipe_key": removed.key,
        "bytes": removed.bytes,
        "record": None if given["dry_run"] else str(removed.record_path),
    }
    options.print_line(json.dumps(about))


def _summary(count: int, freed: int, dry_run: bool) -> str:
    products = f"{count} product{'s' if count > 1 else ''}"
    if dry_run:
        return f"{products}, {freed / 1e6:.3f} MB, would be removed; nothing was"
    return f"{products} removed, {freed / 1e6:.3f} MB freed; the records are kept"


def main() -> None:
    """Run the program."""
    launch(command)
