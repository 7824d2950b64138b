"""`awe-sql`: read-only SQL on views of the index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click

from ..core.errors import NoMatch, NoStore
from . import options
from .answers import FORMATS, Output, print_answer, refuse_same_names
from .messages import Messenger
from .runner import launch


@click.command(
    "sql",
    short_help="Ask the index in SQL, read-only.",
    context_settings=options.SETTINGS,
)
@click.argument("statement", required=False, metavar="SELECT")
@click.option(
    "--timeout",
    type=options.Finite(0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Give up after so long.",
)
@click.option("--views", is_flag=True, help="List the views with their columns, and stop.")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="How to print. [default: table on a terminal, else tsv; with -o the end of its name says it]",
)
@options.path_option("-o", "--output", help="Write the answer here: .csv .tsv .json .vot .fits, ...")
@options.json_output
@options.common
@click.pass_obj
def command(messenger: Messenger, /, statement: str | None, **given: Any) -> int:
    """Answer one SELECT of SQLite's SQL, from the command line or (-) from standard input.

    It is asked on views: products, raws, measures, inputs and verdicts, of all
    stores on AWE_PATH together; --views says what is in them. Nothing can be changed
    by it. Rows come as they are found: `| head` ends it at once. No row is exit
    code 5.

    \b
    Examples:
      awe-sql "SELECT night, count(*) AS frames FROM raws GROUP BY night"
      awe-sql "SELECT path, value FROM measures WHERE name = 'sky_adu' AND value > 100" -o sky.vot
    """
    if given["views"]:
        _list_views()
        return 0
    text = _statement(statement)
    from ..core.questions.querytables import Column
    from ..core.questions.sqlviews import run_sql
    from ..core.workspace import here

    stores = here().stores
    if not stores:
        raise NoStore("there is no store here, and AWE_PATH names none", hint="awe-init, or AWE_PATH=DIR")
    form = "json" if given["as_json"] else given["form"]
    output = Output.of(form, given["output"], columns=True)
    names, rows = run_sql(text, stores, given["timeout"])
    refuse_same_names(names, output, "SELECT ... AS NAME")
    if not print_answer(_dictionaries(names, rows), [Column(name) for name in names], output):
        raise NoMatch("no row", hint="awe-sql --views lists what there is")
    return 0


def _statement(given: str | None) -> str:
    if given is not None and given != "-":
        return given
    return options.read_input(terminal=given == "-").decode(errors="surrogateescape")


def _dictionaries(names: Sequence[str], rows: Iterator[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield {name: _plain(value) for name, value in zip(names, row, strict=True)}


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


def _list_views() -> None:
    from ..core.questions.sqlviews import views
    from .tables import print_table

    rows = [
        (view.name, name, unit or kind, told) for view in views() for name, kind, unit, told in view.columns
    ]
    print_table(("view", "column", "unit", "help"), rows)


def main() -> None:
    """Run the program."""
    launch(command)
