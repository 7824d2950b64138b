"""`awe-query`: ask the index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..core.errors import NoMatch, NoStore, UsageError
from . import options
from .answers import FORMATS, Output, print_answer, refuse_same_names
from .messages import Messenger
from .runner import launch
from .types import ConditionType, KindType

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..core.kind import Kind
    from ..core.questions.querytables import Column
    from ..core.store import Store

# So much of the conditions is said again where nothing meets them.
MOST_SHOWN = 300


@click.command(
    "query",
    short_help="List products and raw frames that meet conditions.",
    context_settings=options.SETTINGS,
)
@click.argument("kind", type=KindType(raw=True))
@click.argument("conditions", nargs=-1, type=ConditionType())
@click.option(
    "--get",
    "columns",
    metavar="NAME,...",
    help="The attributes to print: fields of the meta, measures, path, flags, ..., also along links; "
    "'*' is all of KIND, without links.",
)
@click.option("--order", metavar="NAME[:desc],...", default="", help="Sort by these. [default: obs_start]")
@click.option(
    "--group",
    metavar="NAME,...",
    default="",
    help="One line for each value of these; --get count, min(NAME), max(), mean(), median().",
)
@click.option("--limit", type=int, metavar="N", help="Print at most N.")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="How to print. [default: paths; table or tsv with --get; with -o the end of its name says it]",
)
@options.path_option("-o", "--output", help="Write the answer here: .csv .tsv .json .vot .fits, ...")
@click.option("--csv", "as_csv", is_flag=True, help="The same as --format csv.")
@click.option(
    "--newest",
    is_flag=True,
    help="Of the versions of one product only the one made last.",
)
@click.option("--fields", is_flag=True, help="List what can be asked of KIND, with units, and stop.")
@click.option("--count", is_flag=True, help="Print only how many there are.")
@click.option("-0", "--null", "null", is_flag=True, help="Paths end in NUL.")
@options.json_output
@options.common
@click.pass_obj
def command(messenger: Messenger, /, kind: str, conditions: tuple[str, ...], **given: Any) -> int:
    """List the objects of KIND that meet all CONDITIONS.

    KIND is a kind of product (bias, flat, reduced, ...), a type of raw frame
    (raw_bias, raw_science, ...) or raw for all of these. A condition is a word
    such as night=2017-03-02 or filter=R, or an expression such as
    "filter='R' and exptime_s > 10 and object like 'M51*'". Nothing found is
    exit code 5.

    A name leads along links, to any depth: flat.imstat.stdev is a measure of the
    flat that a reduced frame was made with, flat.twiflat.raw.obs_start goes on to
    raw frames, and <-reduced.sky_adu leads to the reduced frames that were made
    from an object; a link alone (<-reduced) asks whether there is one. --fields
    lists the links. Where a name leads to many values, a condition holds if any of
    them makes it hold (with not: if none does), and --get gives all, joined by
    commas; in JSON they are a list. A condition on what is not there is not met,
    nor is its opposite.

    Also: 0.5 < sky_rms_adu < 9, in ('R', 'V'), between ... and ..., is null,
    cone(ra_deg, dec_deg, radius_deg) and polygon(ra1, dec1, ra2, dec2, ...).
    Dates are texts that begin alike: obs_start > 2017-03-02.

    \b
    Examples:
      awe-query raw_bias night=2017-03-02 | awe-bias -o bias.fits
      awe-query reduced "sky_adu > 100" --get path,filter,sky_adu,flat.imstat.stdev
      awe-query bias "not <-reduced"
      awe-query reduced "cone(202.47, 47.2, 0.2)" -o m51.vot
      awe-query reduced --group night,filter --get 'night,filter,count,median(sky_adu)'
    """
    from ..core.kinds import KINDS
    from ..core.kinds.foreign import IMPORTS
    from ..core.questions.query import DEFAULT_COLUMNS, ask, fields_of, links_of, question_from_words
    from ..core.workspace import here

    kinds = (*KINDS, *IMPORTS)
    if given["fields"]:
        for row in (*fields_of(kind, kinds), *links_of(kind, kinds)):
            options.print_line("\t".join(row))
        return 0
    stores = here().stores
    if not stores:
        raise NoStore("there is no store here, and AWE_PATH names none", hint="awe-init, or AWE_PATH=DIR")
    if given["group"]:
        return _groups(kind, conditions, given, stores, kinds)
    output = _output(given)
    every = [name for name, *_ in fields_of(kind, kinds)]
    columns = [name for one in _split(given["columns"]) for name in (every if one == "*" else [one])]
    columns = columns or (["path"] if output.form == "paths" else list(DEFAULT_COLUMNS))
    refuse_same_names(columns, output)
    question = question_from_words(
        kind, conditions, columns, _split(given["order"]), given["limit"], given["newest"]
    )
    gone: list[str] = []
    rows = ask(question, stores, kinds, gone)
    if given["count"]:
        options.print_line(str(sum(1 for _ in rows)))
        return 0
    printed = print_answer(rows, _columns(kind, columns, kinds), output)
    if gone:
        messenger.note(f"left out {gone[0]}{_more(gone)}: the file is gone; awe-verify names all")
    if not printed:
        raise _nothing(kind, conditions, stores)
    return 0


def _nothing(kind: str, conditions: Sequence[str], stores: Sequence[Store]) -> NoMatch:
    asked = " ".join(conditions)
    shown = asked if len(asked) <= MOST_SHOWN else f"{asked[:MOST_SHOWN]}..."
    return NoMatch(
        f"no {kind}{' with ' if conditions else ''}{shown}{_not_there(kind, conditions, stores)}",
        hint=_what_helps(kind, bool(conditions)),
    )


def _not_there(kind: str, conditions: Sequence[str], stores: Sequence[Store]) -> str:
    """Which value of a field is not there at all, with the nearest, or with those that are."""
    from contextlib import closing

    from ..core.expressions.absent import absent
    from ..core.expressions.expression import parse_words
    from ..core.indexing.indexrows import META_COLUMNS
    from ..core.indexing.stock import Stock
    from ..core.meta import ALIASES, FRAME_TYPES

    with closing(Stock(tuple(stores))) as stock:

        def values_of(name: str) -> Sequence[object]:
            is_text = META_COLUMNS.get(ALIASES.get(name, name)) == "TEXT"
            return stock.distinct(FRAME_TYPES if kind == "raw" else [kind], name) if is_text else []

        return absent(parse_words(conditions), values_of)


def _what_helps(kind: str, narrowed: bool) -> str:
    """What to try after a question without an answer: the same without conditions, else what makes the kind."""
    from ..core.kinds import KINDS

    if narrowed:
        return f"awe-query {kind} --get night,detector,filter,object --format table"
    if kind == "raw":
        return "awe-ingest DIRECTORY"
    if kind.startswith("raw_"):
        return "awe-query raw --get path,frame_type,object --format table; awe-ingest --help"
    makers = [one.command for one in KINDS if one.name == kind]
    return f"{makers[0]} --help says how one is made" if makers else "awe-import --help"


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _output(given: dict[str, Any]) -> Output:
    form = "json" if given["as_json"] else "csv" if given["as_csv"] else given["form"]
    return Output.of(form, given["output"], bool(given["columns"] or given["group"]), given["null"])


def _split(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _columns(kind: str, names: Sequence[str], kinds: Sequence[Kind]) -> list[Column]:
    """The columns with units and sentences, which FITS and VOTable keep."""
    from ..core.questions.query import described

    return [described(kind, name, kinds) for name in names]


def _groups(
    kind: str,
    conditions: tuple[str, ...],
    given: dict[str, Any],
    stores: Sequence[Store],
    kinds: Sequence[Kind],
) -> int:
    """Print one line a group."""
    from ..core.questions.query import ask, question_from_words
    from ..core.questions.querygroups import grouped, names_of, ordered, terms_of

    output = _output(given)
    group = _split(given["group"])
    shown = _split(given["columns"]) or [*group, "count"]
    refuse_same_names(shown, output)
    order = [_direction(one) for one in _split(given["order"])]
    terms = terms_of(shown, group)
    # What is only sorted by is made too.
    hidden = terms_of([name for name, _ in order if name not in shown], group)
    names = names_of([*terms, *hidden], group)
    question = question_from_words(kind, conditions, names, (), None, given["newest"])
    if given["limit"] is not None and given["limit"] < 1:
        raise UsageError(f"--limit {given['limit']}: must be at least 1")
    rows = ordered(grouped(ask(question, stores, kinds), group, [*terms, *hidden]), order)
    if given["count"]:
        options.print_line(str(len(rows)))
        return 0
    if not print_answer(_shown(rows[: given["limit"]], shown), _group_columns(kind, terms, kinds), output):
        raise _nothing(kind, conditions, stores)
    return 0


def _shown(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    return ({name: row[name] for name in names} for row in rows)


def _group_columns(kind: str, terms: Sequence[Any], kinds: Sequence[Kind]) -> list[Column]:
    from ..core.questions.query import described
    from ..core.questions.querytables import Column

    columns = []
    for term in terms:
        if term.function == "count":
            columns.append(Column("count", "integer", "", "Number of objects of the group."))
            continue
        column = described(kind, term.name, kinds)
        told = f"{term.function.capitalize()} of: {column.help}" if term.function else column.help
        columns.append(Column(term.text, column.type, column.unit, told))
    return columns


def _direction(text: str) -> tuple[str, bool]:
    name, _, direction = text.partition(":")
    if direction not in ("", "asc", "desc"):
        raise UsageError(f"--order {text}: ends in :asc or :desc, not :{direction}")
    return name, direction == "desc"


def main() -> None:
    """Run the program."""
    launch(command)
