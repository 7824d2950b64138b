"""`awe-refcat import`: a reference catalogue made of tables or of a service, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import UsageError, WouldOverwrite
from . import options
from .messages import Messenger
from .refcatkept import about_of
from .refcatwords import cone_of, pairs, stores
from .tables import print_table

if TYPE_CHECKING:
    from ..core.catalogues.refimport import Told
    from ..core.catalogues.refstore import Shelf
    from ..core.sky.refcat import Catalogue


def import_tables(
    messenger: Messenger, words: Sequence[str], shelves: Sequence[Shelf], given: Mapping[str, Any]
) -> int:
    """Make the catalogue of the first word; the rest are its tables."""
    from ..core.catalogues.refstore import check_name

    if not words:
        raise UsageError("import what? a name, and tables", hint="awe-refcat import NAME FILE...")
    place = shelves[0].place(check_name(words[0]))
    if place.exists() or place.is_symlink():
        where = f" --dir {shelves[0].directory}" if shelves[0].store is None else ""
        raise WouldOverwrite(f"{place}: exists already", hint=f"awe-refcat remove {place.name}{where}")
    if not given["fetch"]:
        if given["cone"]:
            raise UsageError("--cone goes with --fetch", hint="awe-refcat cone NAME RA,DEC,RADIUS")
        tables = options.read_names(words[1:], given["null"])
        return _make(messenger, place, tables, _told(given), shelves, given)
    if len(words) > 1:
        raise UsageError(f"--fetch and {words[1]!r:.100}: from the service, or from files")
    if not given["cone"]:
        raise UsageError("--fetch what? say the cone", hint=f"--fetch {given['fetch']} --cone RA,DEC,RADIUS")
    return _fetch(messenger, place, shelves, given)


def _fetch(messenger: Messenger, place: Path, shelves: Sequence[Shelf], given: Mapping[str, Any]) -> int:
    from tempfile import TemporaryDirectory

    from ..core.catalogues.reffetch import fetch_cone

    ra, dec, radius = cone_of(given["cone"])
    told = _told(given, f"{given['fetch']} {ra!r},{dec!r},{radius!r}")
    with TemporaryDirectory(prefix="awe-refcat-") as folder:
        target = Path(folder, f"{place.name}.vot")
        fetch_cone(given["fetch"], ra, dec, radius, target)
        return _make(messenger, place, [str(target)], told, shelves, given)


def _told(given: Mapping[str, Any], origin: str = "") -> Told:
    from ..core.catalogues.refimport import Told

    return Told(
        columns=pairs(given["column"], "--column", "OURS=THEIRS"),
        units=pairs(given["unit"], "--unit", "OURS=UNIT"),
        epoch_yr=given["epoch"],
        equinox=given["equinox"],
        missing=given["missing"],
        skip_bad=given["skip_bad"],
        extension=given["extension"],
        origin=origin,
    )


def _make(
    messenger: Messenger,
    place: Path,
    tables: Sequence[str],
    told: Told,
    shelves: Sequence[Shelf],
    given: Mapping[str, Any],
) -> int:
    from ..core.catalogues.refimport import import_catalogue

    if given["dry_run"]:
        return _say_columns(messenger, place, tables, told, given["as_json"])
    doubles = 0.1 if given["duplicate_arcsec"] is None else given["duplicate_arcsec"]
    made = import_catalogue(place, tables, told, duplicate_arcsec=doubles)
    _say_sources(messenger, made)
    _say_stars(messenger, made)
    for other in shelves[1:]:
        if other.place(place.name).is_dir():
            _say_replaced(messenger, other.place(place.name), made)
            break
    if given["as_json"]:
        options.print_line(json.dumps(about_of(made.path, made, True)))
    else:
        options.print_line(str(made.path), given["null"])
    return 0


def _say_replaced(messenger: Messenger, other: Path, made: Catalogue) -> None:
    """What the name of a new catalogue stood for so far, and what that outdates."""
    from ..core.catalogues.refinput import content_at, in_words, made_with

    messenger.note(f"it comes before {other}, of the same name")
    count = made_with(other, stores())
    if count and content_at(other) != made.content:
        messenger.note(f"{in_words(count)}, made with that one, are outdated: awe-make makes them again")


def _say_columns(messenger: Messenger, place: Path, tables: Sequence[str], told: Told, as_json: bool) -> int:
    """Print what the columns of tables would be taken for."""
    from ..core.catalogues.refimport import understand

    rows = []
    for table, one in understand(tables, told):
        for name, column in sorted(one.fields.items()):
            rows.append([table.where, name, column.column, column.unit])
        messenger.note(f"{table.where}: {table.form}, {one.layout.name}")
        for text in one.left_out:
            messenger.note(f"{table.where}: left out: {text}")
    names = ("table", "column", "theirs", "unit")
    if as_json:
        for row in rows:
            options.print_line(json.dumps(dict(zip(names, row, strict=True))))
    else:
        print_table(names, rows)
    messenger.note(f"{place} would be made; nothing was")
    return 0


def _say_sources(messenger: Messenger, made: Catalogue) -> None:
    """What was read of each table, and what was not."""
    for source in made.header["sources"]:
        name = source["file"]
        messenger.note(f"{name}: {source['rows']} rows, {source['form']}, {source['layout']}")
        columns = ", ".join(f"{ours} = {one} [{unit}]" for ours, (one, unit) in source["columns"].items())
        messenger.detail(f"{name}: {columns}")
        for text in source["notes"]:
            messenger.note(f"{name}: {text}")
        left_out = source["without_position"] + source["bad"]
        if left_out:
            more = f", and {left_out - len(source['named'])} more" if left_out > len(source["named"]) else ""
            messenger.warning(
                f"{name}: left out {left_out} rows without a possible position: "
                f"{'; '.join(source['named'])}{more}"
            )


def _say_stars(messenger: Messenger, made: Catalogue) -> None:
    header = made.header
    if header["merged"]:
        messenger.note(f"{header['merged']} stars were listed more than once, and merged")
    if header["close"]:
        messenger.note(f"{header['close']} stars are flagged: another one is listed at their position")
    for text in header["doubles"]:
        messenger.detail(f"within {header['duplicate_arcsec']:g} arcsec: {text}")
    bands = ", ".join(made.bands) or "no magnitudes"
    files = f"{len(made.shards)} file{'s' if len(made.shards) > 1 else ''}"
    messenger.note(f"{made.name}: {made.rows} stars, {bands}, in {files}")
