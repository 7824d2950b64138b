"""`awe-refcat list`, show, verify and remove: the reference catalogues that there are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import AweError, UsageError, worst
from . import options
from .listing import print_list
from .messages import Messenger
from .refcatwords import stores
from .tables import print_table

if TYPE_CHECKING:
    from ..core.catalogues.refstore import Shelf
    from ..core.sky.refcat import Catalogue

LIST_COLUMNS = ("name", "rows", "bands", "epochs_yr", "layout", "bytes", "content", "in_force", "path")


def about_of(place: Path, made: Catalogue, in_force: bool) -> dict[str, Any]:
    """What one line says of a catalogue."""
    return {
        "name": place.name,
        "rows": made.rows,
        "bands": list(made.bands),
        "epochs_yr": made.header["epochs_yr"],
        "layout": list(dict.fromkeys(str(one["layout"]) for one in made.header["sources"])),
        "bytes": sum(shard.bytes for shard in made.shards),
        "content": made.content,
        "in_force": in_force,
        "path": str(place),
    }


def list_all(
    messenger: Messenger, words: Sequence[str], shelves: Sequence[Shelf], given: Mapping[str, Any]
) -> int:
    """Print all catalogues, a line each."""
    from ..core.catalogues.refstore import catalogues
    from ..core.sky.refcat import open_catalogue

    if words:
        raise UsageError(f"list takes no {words[0]!r:.100}", hint=f"awe-refcat show {words[0]:.100}")

    def about(place: Path, in_force: bool) -> dict[str, Any]:
        return about_of(place, open_catalogue(place), in_force)

    things = (partial(about, *one) for one in catalogues(shelves))
    nothing = "there is no reference catalogue: awe-refcat import NAME FILE..."
    return print_list(messenger, things, LIST_COLUMNS, _text, given["as_json"], nothing)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ",".join(_text(one) for one in value)
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def show(
    messenger: Messenger, words: Sequence[str], shelves: Sequence[Shelf], given: Mapping[str, Any]
) -> int:
    """Print what is in a catalogue, from what, and what was left out."""
    from ..core.catalogues.refstore import opened

    if len(words) != 1:
        raise UsageError("show one catalogue", hint="awe-refcat list")
    made = opened(words[0], shelves)
    if given["as_json"]:
        options.print_line(json.dumps({"path": str(made.path), **made.header}))
    else:
        print_table(("what", "value"), [[name, _text(value)] for name, value in _facts(made)])
    return 0


def _facts(made: Catalogue) -> Iterator[tuple[str, object]]:
    header = made.header
    about = about_of(made.path, made, True)
    yield from ((name, about[name]) for name in ("name", "path", "rows", "bands", "epochs_yr"))
    for name in ("without_epoch", "without_motion", "fastest_mas_yr", "merged", "close", "duplicate_arcsec"):
        yield name, header[name]
    yield from (("double", text) for text in header["doubles"])
    yield from (("files", len(made.shards)), ("bytes", about["bytes"]), ("content", made.content))
    for source in header["sources"]:
        for name in ("file", "origin", "sha256", "form", "layout", "epoch_yr", "equinox", "rows"):
            if source.get(name) is not None:
                yield f"source {name}", source[name]
        for ours, (theirs, unit) in source["columns"].items():
            yield f"source column {ours}", f"{theirs} [{unit}]"
        yield "source rows left out", source["without_position"] + source["bad"]
        yield from (("source left out", text) for text in source["named"])
        yield from (("source note", text) for text in source["notes"])


def verify(
    messenger: Messenger, words: Sequence[str], shelves: Sequence[Shelf], given: Mapping[str, Any]
) -> int:
    """Compute all hashes again, and print a line per problem."""
    from ..core.catalogues.refshards import verify_catalogue
    from ..core.catalogues.refstore import catalogues, find
    from ..core.errors import Integrity
    from ..core.sky.refcat import open_catalogue

    codes, whole = [], 0
    found = [place for place, _ in catalogues(shelves)]
    for place in dict.fromkeys([find(name, shelves) for name in words] if words else found):
        try:
            problems = [("edited", text) for text in verify_catalogue(open_catalogue(place))]
            codes += [Integrity.exit_code] * len(problems)
        except AweError as error:
            problems = [(error.slug, error.message)]
            codes.append(error.exit_code)
        whole += not problems
        for problem, detail in problems:
            about = {"path": str(place), "problem": problem, "detail": detail}
            text = "\t".join(" ".join(one.split()) for one in about.values())
            options.print_line(json.dumps(about) if given["as_json"] else text)
    messenger.note(f"{whole} reference catalogues are as they were made, {len(codes)} problems")
    return worst(codes)


def remove_them(
    messenger: Messenger, words: Sequence[str], shelves: Sequence[Shelf], given: Mapping[str, Any]
) -> int:
    """Remove catalogues, less those that products were made with."""
    from ..core.catalogues.refinput import refuse_needed
    from ..core.catalogues.refstore import remove, to_remove

    if not words:
        raise UsageError("remove what?", hint="awe-refcat list")
    found = stores()
    codes = []
    for name in dict.fromkeys(words):
        try:
            place = to_remove(name, shelves)
            if not given["force"]:
                refuse_needed(place, found)
            size = None if given["dry_run"] else remove(place)
        except AweError as error:
            messenger.error(error)
            codes.append(error.exit_code)
            continue
        about = {"name": name, "path": str(place), "bytes": size}
        options.print_line(json.dumps(about) if given["as_json"] else str(place))
        if size is not None:
            messenger.detail(f"{place}: {size / 1e6:.3f} MB freed")
            _say_next(messenger, name, shelves)
    if given["dry_run"]:
        messenger.note("would be removed; nothing was")
    return worst(codes)


def _say_next(messenger: Messenger, name: str, shelves: Sequence[Shelf]) -> None:
    for other in shelves[1:]:
        if other.place(name).is_dir():
            messenger.note(f"{name} is now {other.place(name)}")
            return
