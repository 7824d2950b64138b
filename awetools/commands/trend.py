"""`awe-trend`: how a measure goes over many products, and which of them do not go with the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import NoMatch, NoStore, UsageError
from . import options
from .messages import Messenger
from .runner import launch
from .tables import print_table
from .types import ConditionType, KindType

if TYPE_CHECKING:
    from ..core.trend import Asked, Trend

FORMATS = ("png", "svg")
MARK = "outlier"
# The exit code of --check where something is no answer to wish for.
FOUND = 3


@click.command(
    "trend",
    short_help="Show how a measure goes over many products, and name outliers.",
    context_settings=options.SETTINGS,
)
@click.argument("kind", type=KindType(raw=True))
@click.argument("x")
@click.argument("y")
@click.argument("conditions", nargs=-1, type=ConditionType())
@click.option("--by", metavar="FIELD", help="A trend of its own for each value of this.")
@click.option(
    "--window",
    type=click.IntRange(2, 1000),
    default=10,
    show_default=True,
    metavar="N",
    help="The running median is that of the N neighbours nearest in X, the point itself left out.",
)
@click.option(
    "--sigma",
    "limit_sigma",
    type=options.Finite(0, min_open=True),
    default=5.0,
    show_default=True,
    metavar="S",
    help="What deviates by more is an outlier.",
)
@options.path_option(
    "-o", "--output", help="Draw it here; the name ends in .png or .svg. No table is printed."
)
@click.option("--check", is_flag=True, help="Exit code 3 if there are outliers.")
@options.json_output
@options.common
@click.pass_obj
def command(messenger: Messenger, /, kind: str, x: str, y: str, **given: Any) -> int:
    """List the products of KIND that meet all CONDITIONS, a line each: path, X, Y, deviation_sigma, outlier.

    X and Y are what awe-query --get takes; Y is a number, X a number, a date or a text.
    Of the versions of one product the one made last counts; those judged bad are left
    out. The deviation of Y is that from the running median of its neighbours, in
    robust standard deviations of the group (1.4826 times the median absolute
    deviation). Fewer than 5 products have none. Outliers are named.

    Drawing needs matplotlib: pip install 'awetools[plot]'.

    \b
    Examples:
      awe-trend bias obs_start level_adu --by detector
      awe-trend bias night level_adu detector=ccd50 -o bias.png --check
    """
    from ..core.kinds import KINDS
    from ..core.kinds.foreign import IMPORTS
    from ..core.trend import Asked, group_name, trend_of
    from ..core.workspace import here

    form = _form(given["output"])
    if given["output"] is not None and given["as_json"]:
        raise UsageError("-o draws and --json lists: they exclude each other")
    stores = here().stores
    if not stores:
        raise NoStore("there is no store here, and AWE_PATH names none", hint="awe-init, or AWE_PATH=DIR")
    asked = Asked(kind, x, y, given["by"], given["conditions"])
    trend = trend_of(asked, stores, (*KINDS, *IMPORTS), given["window"], given["limit_sigma"])
    for note in trend.notes:
        messenger.note(note)
    if not trend.points:
        raise NoMatch(
            " ".join([f"no {kind} with {x} and {y}", *given["conditions"]]),
            hint=f"awe-query {kind} --get path,{x},{y}",
        )
    if given["output"] is None:
        _print(trend, asked, given["as_json"])
    else:
        _draw(trend, asked, given["output"], form)
    for one in trend.outliers:
        where = f" ({asked.by} {group_name(one.by)})" if asked.by else ""
        messenger.warning(
            f"{one.path}{where}: {y} {one.y:.6g} is {one.deviation_sigma:+.1f} sigma from "
            f"{one.median:.6g}, the median of its neighbours"
        )
    if trend.outliers:
        messenger.note('awe-judge FILE bad --reason "TEXT" takes one out')
    return FOUND if given["check"] and trend.outliers else 0


def _form(path: Path | None) -> str:
    """png or svg, from the name of the output; raises UsageError."""
    form = "png" if path is None else path.suffix.lower().removeprefix(".")
    if form not in FORMATS:
        raise UsageError(f"-o {path}: the picture's name must end in .png or .svg")
    return form


def _print(trend: Trend, asked: Asked, as_json: bool) -> None:
    rows = []
    for one in trend.points:
        about: dict[str, Any] = {"path": one.path, asked.x: one.x, asked.y: one.y}
        about |= {asked.by: one.by} if asked.by else {}
        about |= {"deviation_sigma": one.deviation_sigma, "outlier": one.is_outlier}
        if as_json:
            options.print_line(json.dumps(about))
        else:
            rows.append({**about, "outlier": MARK if one.is_outlier else ""})
    if rows:
        print_table(tuple(rows[0]), [[_text(name, value) for name, value in row.items()] for row in rows])


def _text(name: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        # Not -0.00.
        return f"{round(value, 2) + 0.0:.2f}" if name == "deviation_sigma" else f"{value:.9g}"
    return str(value)


def _draw(trend: Trend, asked: Asked, path: Path, form: str) -> None:
    from ..core.plots.draw import draw
    from ..core.trend import plot_of
    from .plot import write_picture

    title = " ".join([asked.kind, *asked.conditions])
    write_picture(path, draw(plot_of(trend, asked, title), form))
    options.print_line(str(path))


def main() -> None:
    """Run the program."""
    launch(command)
