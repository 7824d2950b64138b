"""`awe-refcat`: local reference catalogues of stars: imported, listed, asked for the stars of a cone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from ..core.errors import AweError, BadValue, NoMatch, UsageError, WouldOverwrite, worst
from . import options
from .answers import FORMATS, Output, print_answer, refuse_same_names
from .messages import Messenger
from .runner import launch
from .tables import print_table

if TYPE_CHECKING:
    from ..core.catalogues.refimport import Told
    from ..core.catalogues.refstore import Shelf
    from ..core.questions.querytables import Column
    from ..core.sky.refcat import Catalogue, Stars
    from ..core.store import Store

ACTIONS = ("import", "list", "show", "cone", "verify", "remove")
# Which options go with which action, besides those of all.
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "import": (
        *("column", "unit", "epoch", "equinox", "missing", "skip_bad", "extension", "duplicate_arcsec"),
        *("fetch", "cone", "null", "dry_run", "as_json"),
    ),
    "list": ("as_json",),
    "show": ("as_json",),
    "cone": ("epoch", "faintest", "columns", "form", "output", "as_json"),
    "verify": ("as_json",),
    "remove": ("force", "dry_run", "as_json"),
}
SPELLED = {"null": "-0", "dry_run": "-n", "as_json": "--json", "columns": "--get", "form": "--format"}
CONE_FORMATS = tuple(form for form in FORMATS if form != "paths")
LIST_COLUMNS = ("name", "rows", "bands", "epochs_yr", "layout", "bytes", "content", "in_force", "path")
HELPS = {
    "ra_deg": "Right ascension, ICRS.",
    "dec_deg": "Declination, ICRS.",
    "ra_error_mas": "Standard error of RA times cos(Dec).",
    "dec_error_mas": "Standard error of Dec.",
    "epoch_yr": "Julian year of the position.",
    "pm_ra_mas_yr": "Proper motion in RA times cos(Dec).",
    "pm_dec_mas_yr": "Proper motion in Dec.",
}
_RADIUS = re.compile(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*(deg|arcmin|arcsec)?\s*", re.IGNORECASE)
_PER_DEG = {"": 1, "deg": 1, "arcmin": 60, "arcsec": 3600}


class _Word(click.ParamType[str]):
    """The name of a catalogue, a file to import, or a cone."""

    name = "word"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """The names of catalogues, and files after the name of one to be."""
        action, before = ctx.params.get("action"), ctx.params.get("words") or ()
        if action == "import":
            return [CompletionItem[str](incomplete, type="file")] if before else []
        if before and action == "cone":
            return []
        from ..core.catalogues.refstore import catalogues

        try:
            names = {place.name for place, _ in catalogues(_shelves(ctx.params))}
        except AweError:
            return []
        return [CompletionItem[str](one) for one in sorted(names) if one.startswith(incomplete)]


@click.command(
    "refcat",
    short_help="Import reference catalogues of stars, and ask them for cones.",
    context_settings=options.SETTINGS,
)
@click.argument("action", type=click.Choice(ACTIONS), metavar="[import|list|show|cone|verify|remove]")
@click.argument("words", nargs=-1, type=_Word(), metavar="[NAME] [FILE...|RA,DEC,RADIUS]")
@options.path_option(
    "--dir", "directory", metavar="DIR", help="The catalogues are in DIR, rather than in the stores."
)
@click.option(
    "--column",
    multiple=True,
    metavar="OURS=THEIRS",
    help="import: which column of the tables is ours, as ra_deg=RAmean or mag_V=Vjohnson.",
)
@click.option(
    "--unit",
    multiple=True,
    metavar="OURS=UNIT",
    help="import: the unit of our column in the tables, as ra_deg=hour or pm_ra_mas_yr=arcsec/yr.",
)
@click.option(
    "--epoch",
    type=options.Finite(),
    metavar="YEAR",
    help="import: of the positions, where the tables do not say it; cone: move the stars to it.",
)
@click.option(
    "--equinox", type=options.Finite(), metavar="YEAR", help="import: of RA and Dec, if not that of the ICRS."
)
@click.option(
    "--missing",
    multiple=True,
    type=options.Finite(),
    metavar="NUMBER",
    help="import: one more number that stands for 'not known'.",
)
@click.option("--skip-bad", is_flag=True, help="import: leave out rows with impossible positions.")
@click.option("--extension", metavar="NAME|N", help="import: which table, in files that hold several.")
@click.option(
    "--duplicate-arcsec",
    type=options.Finite(0),
    metavar="ARCSEC",
    help="import: stars nearer to each other, with the same magnitudes, are one. [default: 0.1]",
)
@click.option("--fetch", metavar="URL", help="import: from this Simple Cone Search service; needs pyvo.")
@click.option("--cone", metavar="RA,DEC,RADIUS", help="import: what --fetch asks for.")
@click.option(
    "--faintest",
    multiple=True,
    metavar="BAND=MAG",
    help="cone: only stars known to be at least as bright.",
)
@click.option("--get", "columns", metavar="NAME,...", help="cone: the columns to print. [default: all]")
@click.option(
    "--format",
    "form",
    type=click.Choice(CONE_FORMATS),
    help="cone: how to print. [default: table or tsv; with -o the end of its name says it]",
)
@options.path_option("-o", "--output", help="cone: write the stars here: .csv .tsv .json .vot .fits")
@click.option("--force", is_flag=True, help="remove: also what products were made with.")
@click.option("-n", "--dry-run", is_flag=True, help="import, remove: say what would be done, and do nothing.")
@click.option("-0", "--null", "null", is_flag=True, help="import: names on standard input end in NUL.")
@options.json_output
@options.common
@click.pass_obj
def command(
    messenger: Messenger, /, action: str, words: tuple[str, ...], directory: Path | None, **given: Any
) -> int:
    """Keep reference catalogues of stars in a store, by NAME, and ask them for the stars of a cone.

    A catalogue holds positions with errors, epoch, proper motions, parallaxes and
    magnitudes, sorted by place on the sky, so that a cone is read out of any number
    of stars in no time. It lies in .awe/refcats/NAME of the first store of AWE_PATH;
    those of all stores are read, and of one name the nearest counts.

    \b
      import NAME FILE...        make one of tables: FITS, LDAC, VOTable, CSV, TSV, ECSV
                                 or text, gzip or not; without FILE, or with `-`, names
                                 are read from standard input. file.fits[2] names one of
                                 several tables. Prints where the catalogue lies.
      list                       all that there are
      show NAME                  what is in it, from what, and what was left out
      cone NAME RA,DEC,RADIUS    the stars in it; RA and Dec in degrees, or as 13:29:53
                                 and 47:11:43 (RA in hours); RADIUS in degrees, or as
                                 10arcmin. No star is exit code 5.
      verify [NAME...]           compute all hashes again: a line per problem
      remove NAME...             remove it, of the first store; not while products of
                                 the stores were made with it and no other is the same

    The columns of Gaia, PS1, 2MASS, Tycho-2, SDSS, UCAC4, PPMXL and Landolt are known,
    and names as are usual; --column and --unit name others. -n says what would be
    taken for what. Our columns: ra_deg, dec_deg, ra_error_mas, dec_error_mas, epoch_yr,
    pm_ra_mas_yr, pm_dec_mas_yr, pm_ra_error_mas_yr, pm_dec_error_mas_yr, parallax_mas,
    parallax_error_mas, flags, and mag_BAND, mag_error_BAND for each band.

    --fetch needs pyvo, pip install 'awetools[vo]'; all else needs no network.

    \b
    Examples:
      awe-refcat import gaia gaia-*.fits.gz
      awe-refcat import std landolt.dat --equinox 2000 --epoch 1990
      awe-refcat import mine t.csv --column ra_deg=alpha --unit ra_deg=hour
      awe-refcat cone gaia 202.47,47.2,10arcmin --epoch 2017.2 --faintest G=18
      awe-refcat cone gaia 13:29:53,47:11:43,0.2 -o m51.vot
    """
    _check_options(action, given)
    return _ACTIONS[action](messenger, words, _shelves({"directory": directory}), given)


def _check_options(action: str, given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if value in (None, False, ()) or name in OPTIONS[action]:
            continue
        spelled = SPELLED.get(name, f"--{name.replace('_', '-')}")
        others = " and ".join(one for one in ACTIONS if name in OPTIONS[one])
        raise UsageError(f"{spelled} goes with {others}, not with {action}", hint="awe-refcat --help")


def _shelves(given: Mapping[str, Any]) -> list[Shelf]:
    from ..core.catalogues.refstore import shelves_of

    directory = given.get("directory")
    return shelves_of([] if directory else _stores(), directory)


# import


def _import(
    messenger: Messenger, words: Sequence[str], shelves: Sequence[Shelf], given: Mapping[str, Any]
) -> int:
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

    ra, dec, radius = _cone_of(given["cone"])
    told = _told(given, f"{given['fetch']} {ra!r},{dec!r},{radius!r}")
    with TemporaryDirectory(prefix="awe-refcat-") as folder:
        target = Path(folder, f"{place.name}.vot")
        fetch_cone(given["fetch"], ra, dec, radius, target)
        return _make(messenger, place, [str(target)], told, shelves, given)


def _told(given: Mapping[str, Any], origin: str = "") -> Told:
    from ..core.catalogues.refimport import Told

    return Told(
        columns=_pairs(given["column"], "--column", "OURS=THEIRS"),
        units=_pairs(given["unit"], "--unit", "OURS=UNIT"),
        epoch_yr=given["epoch"],
        equinox=given["equinox"],
        missing=given["missing"],
        skip_bad=given["skip_bad"],
        extension=given["extension"],
        origin=origin,
    )


def _pairs(texts: Sequence[str], option: str, form: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = (one.strip() for one in text.partition("="))
        if not (name and equals and value):
            raise UsageError(f"{option} {text!r:.100}: is not {form}")
        if name in found:
            raise UsageError(f"{option}: {name} is said twice: {found[name]!r:.50} and {value!r:.50}")
        found[name] = value
    return found


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
        options.print_line(json.dumps(_about(made.path, made, True)))
    else:
        options.print_line(str(made.path), given["null"])
    return 0


def _say_replaced(messenger: Messenger, other: Path, made: Catalogue) -> None:
    """What the name of a new catalogue stood for so far, and what that outdates."""
    from ..core.catalogues.refinput import content_at, in_words, made_with

    messenger.note(f"it comes before {other}, of the same name")
    count = made_with(other, _stores())
    if count and content_at(other) != made.content:
        messenger.note(f"{in_words(count)}, made with that one, are outdated: awe-make makes them again")


def _stores() -> Sequence[Store]:
    from ..core.store import search_path
    from ..core.workspace import working_directory

    return search_path(working_directory())


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


# list, show


def _about(place: Path, made: Catalogue, in_force: bool) -> dict[str, Any]:
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


def _list(
    messenger: Messenger, words: Sequence[str], shelves: Sequence[Shelf], given: Mapping[str, Any]
) -> int:
    from ..core.catalogues.refstore import catalogues
    from ..core.sky.refcat import open_catalogue

    if words:
        raise UsageError(f"list takes no {words[0]!r:.100}", hint=f"awe-refcat show {words[0]:.100}")
    rows, codes = [], []
    for place, in_force in catalogues(shelves):
        try:
            about = _about(place, open_catalogue(place), in_force)
        except AweError as error:
            messenger.error(error)
            codes.append(error.exit_code)
            continue
        if given["as_json"]:
            options.print_line(json.dumps(about))
        rows.append([_text(about[name]) for name in LIST_COLUMNS])
    if rows and not given["as_json"]:
        print_table(LIST_COLUMNS, rows)
    if not rows and not codes:
        messenger.note("there is no reference catalogue: awe-refcat import NAME FILE...")
    return worst(codes)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ",".join(_text(one) for one in value)
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _show(
    messenger: Messenger, words: Sequence[str], shelves: Sequence[Shelf], given: Mapping[str, Any]
) -> int:
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
    about = _about(made.path, made, True)
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


# cone


def _cone_of(text: str) -> tuple[float, float, float]:
    """RA, Dec and radius in degrees; raises UsageError."""
    from ..core.expressions.skyregion import Region
    from ..core.units import angle_deg

    parts = text.split(",")
    if len(parts) != 3:
        raise UsageError(f"{text!r:.100} is not RA,DEC,RADIUS", hint="awe-refcat cone NAME 202.47,47.2,0.2")
    ra, dec = angle_deg(parts[0], "ra"), angle_deg(parts[1])
    found = _RADIUS.fullmatch(parts[2])
    try:
        radius = float(found[1]) / _PER_DEG[(found[2] or "").lower()] if found else None
    except ValueError:
        radius = None
    for value, part, what in ((ra, parts[0], "RA"), (dec, parts[1], "Dec"), (radius, parts[2], "radius")):
        if value is None:
            raise UsageError(
                f"{text!r:.100}: {part.strip()!r:.50} is no {what}",
                hint="degrees, or 13:29:53,47:11:43,10arcmin",
            )
    assert ra is not None and dec is not None and radius is not None
    _, cone_dec, cone_radius = Region.of("cone", (ra, dec, radius)).numbers
    return ra % 360, cone_dec, cone_radius


def _cone(
    messenger: Messenger, words: Sequence[str], shelves: Sequence[Shelf], given: Mapping[str, Any]
) -> int:
    from ..core.catalogues.refstore import opened

    if len(words) != 2:
        raise UsageError(
            "a cone is of one catalogue and one place", hint="awe-refcat cone NAME 202.47,47.2,0.2"
        )
    ra, dec, radius = _cone_of(words[1])
    output = Output.of("json" if given["as_json"] else given["form"], given["output"], True)
    if output.form == "paths":
        raise UsageError("stars have no paths", hint="--format tsv, or -o NAME.tsv")
    faintest = {band: _magnitude(band, text) for band, text in _faintest(given["faintest"]).items()}
    made = opened(words[0], shelves)
    names = [one.strip() for one in (given["columns"] or "").split(",") if one.strip()] or list(made.columns)
    refuse_same_names(names, output)
    # Refuses what is not there before anything is printed.
    pieces = made.pieces(ra, dec, radius, epoch_yr=given["epoch"], faintest=faintest, columns=names)
    if not print_answer(_rows(pieces, names), _columns(made, names), output):
        limits = "".join(f", {band} <= {limit:g}" for band, limit in faintest.items())
        raise NoMatch(
            f"{made.path}: no star within {radius:g} deg of {ra:.6f} {dec:+.6f}{limits}",
            hint=f"awe-refcat show {made.path.name}",
        )
    if given["epoch"] is not None:
        _say_still(messenger, made, given["epoch"])
    return 0


def _say_still(messenger: Messenger, made: Catalogue, epoch_yr: float) -> None:
    """How many stars have no motion that is known, and so are where their own epoch saw them."""
    still = max(made.header["without_epoch"], made.header["without_motion"])
    if still:
        messenger.note(
            f"{made.name}: {still} of its {made.rows} stars have no epoch or no proper motion: "
            f"such stars are not moved to {epoch_yr:g}, and keep their own epoch_yr"
        )


def _faintest(texts: Sequence[str]) -> dict[str, str]:
    return _pairs(texts, "--faintest", "BAND=MAG")


def _magnitude(band: str, text: str) -> float:
    try:
        limit = float(text)
    except ValueError:
        limit = float("nan")
    if limit != limit:
        raise BadValue(f"--faintest {band}={text:.50}: no magnitude", hint=f"--faintest {band}=18")
    return limit


def _columns(made: Catalogue, names: Sequence[str]) -> list[Column]:
    from ..core.questions.querytables import Column
    from ..core.sky.refcat import FLAGS, unit_of

    bits = "; ".join(f"{bit}: {text}" for bit, text in FLAGS.items())
    return [
        Column(
            name,
            "integer" if made.columns[name].startswith("i") else "real",
            unit_of(name),
            bits if name == "flags" else HELPS.get(name, ""),
        )
        for name in names
        if name in made.columns
    ]


def _rows(pieces: Iterator[Stars], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row a star; a number in few bits in its own shortest digits, None where it is not known."""
    for piece in pieces:
        lists = []
        for name in names:
            values = piece[name]
            if values.dtype == "f4":
                values = values.astype(str).astype("f8")
            lists.append([None if value != value else value for value in values.tolist()])
        yield from (dict(zip(names, row, strict=True)) for row in zip(*lists, strict=True))


# verify, remove


def _verify(
    messenger: Messenger, words: Sequence[str], shelves: Sequence[Shelf], given: Mapping[str, Any]
) -> int:
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


def _remove(
    messenger: Messenger, words: Sequence[str], shelves: Sequence[Shelf], given: Mapping[str, Any]
) -> int:
    from ..core.catalogues.refinput import refuse_needed
    from ..core.catalogues.refstore import remove, to_remove

    if not words:
        raise UsageError("remove what?", hint="awe-refcat list")
    stores = _stores()
    codes = []
    for name in dict.fromkeys(words):
        try:
            place = to_remove(name, shelves)
            if not given["force"]:
                refuse_needed(place, stores)
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


_ACTIONS: Mapping[str, Callable[[Messenger, Sequence[str], Sequence[Shelf], Mapping[str, Any]], int]] = {
    "import": _import,
    "list": _list,
    "show": _show,
    "cone": _cone,
    "verify": _verify,
    "remove": _remove,
}


def main() -> None:
    """Run the program."""
    launch(command)
