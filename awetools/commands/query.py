"""`awe-query`: ask the index."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable
from typing import Any

import click

from ..core.errors import NoMatch, NoStore
from . import options
from .messages import Messenger
from .runner import launch
from .types import ConditionType, KindType

FORMATS = ("paths", "table", "tsv", "csv", "json")


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
    help="The attributes to print: fields of the meta, measures, path, flags, ...",
)
@click.option("--order", metavar="NAME[:desc],...", default="", help="Sort by these. [default: obs_start]")
@click.option("--limit", type=int, metavar="N", help="Print at most N.")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="How to print. [default: paths; table or tsv with --get]",
)
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

    \b
    Examples:
      awe-query raw_bias night=2017-03-02 | awe-bias -o bias.fits
      awe-query reduced "sky_adu > 100" --get path,filter,sky_adu,imstat.stdev
    """
    from ..core.kinds import KINDS
    from ..core.kinds.foreign import IMPORTS
    from ..core.query import DEFAULT_COLUMNS, ask, fields_of, question_from_words
    from ..core.workspace import here

    if given["fields"]:
        for row in fields_of(kind, (*KINDS, *IMPORTS)):
            options.print_line("\t".join(row))
        return 0
    stores = here().stores
    if not stores:
        raise NoStore("there is no store here, and AWE_PATH names none", hint="awe-init, or AWE_PATH=DIR")
    form = _format(given)
    columns = _split(given["columns"]) or (["path"] if form == "paths" else list(DEFAULT_COLUMNS))
    question = question_from_words(
        kind, conditions, columns, _split(given["order"]), given["limit"], given["newest"]
    )
    gone: list[str] = []
    rows = ask(question, stores, (*KINDS, *IMPORTS), gone)
    if given["count"]:
        options.print_line(str(sum(1 for _ in rows)))
        return 0
    printed = _print(rows, columns, form, given["null"])
    if gone:
        messenger.note(f"left out {gone[0]}{_more(gone)}: the file is gone; awe-verify names all")
    if not printed:
        raise NoMatch(
            f"no {kind}{' with ' if conditions else ''}{' '.join(conditions)}",
            hint=_what_helps(kind, bool(conditions)),
        )
    return 0


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


def _format(given: dict[str, Any]) -> str:
    if given["as_json"]:
        return "json"
    if given["as_csv"]:
        return "csv"
    if given["form"]:
        return str(given["form"])
    if given["columns"]:
        return "table" if sys.stdout.isatty() else "tsv"
    return "paths"


def _split(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


@options.to_output()
def _print(rows: Iterable[dict[str, Any]], columns: list[str], form: str, null: bool) -> int:
    """Print the rows; returns how many there were."""
    count = 0
    if form == "table":
        listed = list(rows)
        _print_table(listed, columns)
        return len(listed)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for row in rows:
        if not count and form in ("tsv", "csv"):
            _header(columns, form, writer)
        count += 1
        if form == "paths":
            end = "\0" if null else "\n"
            sys.stdout.write("\t".join(_text(row[name]) for name in columns) + end)
        elif form == "json":
            sys.stdout.write(json.dumps(row) + "\n")
        elif form == "csv":
            writer.writerow([_text(row[name]) for name in columns])
        else:
            sys.stdout.write("\t".join(_one_line(_text(row[name])) for name in columns) + "\n")
    return count


def _header(columns: list[str], form: str, writer: Any) -> None:
    if form == "csv":
        writer.writerow(columns)
    else:
        sys.stdout.write("\t".join(columns) + "\n")


def _print_table(rows: list[dict[str, Any]], columns: list[str]) -> None:
    texts = [[_one_line(_text(row[name])) for name in columns] for row in rows]
    widths = [max(len(one[n]) for one in [columns, *texts]) for n in range(len(columns))]
    for line in [columns, *texts] if texts else []:
        sys.stdout.write(
            "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() + "\n"
        )


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.9g}"
    return value if isinstance(value, str) else json.dumps(value)


def _one_line(text: str) -> str:
    return text.replace("\t", " ").replace("\n", " ")


def main() -> None:
    """Run the program."""
    launch(command)
