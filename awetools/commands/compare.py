"""`awe-compare`: a product against its predecessor and against the running median of those before it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import AweError, OutsideLimits, worst
from . import options
from .messages import Messenger
from .runner import launch

if TYPE_CHECKING:
    from ..core.compare import Bound, Comparison
    from ..core.quantity import Quantity

COLUMNS = ("quantity", "before", "now", "difference", "median", "scatter", "values", "deviation_sigma")


@click.command(
    "compare",
    short_help="Compare products with their predecessors and running medians.",
    context_settings=options.SETTINGS,
)
@options.inputs()
@options.path_option("--with", "other", help="Compare with this product. [default: the predecessor]")
@click.option(
    "--last",
    type=click.IntRange(0, 10000),
    default=10,
    show_default=True,
    metavar="N",
    help="The running median is of the last N nights before the product's own.",
)
@click.option("--no-pixels", is_flag=True, help="Compare the measures only, not the images.")
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="NAME=VALUE",
    help="Exit code 3 if NAME differs by more than VALUE from the predecessor; with VALUEsigma, from the "
    "running median in units of the scatter.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Exit code 3 if anything but imstat.* is further than --sigma from its running median.",
)
@click.option(
    "--sigma",
    type=options.Finite(0, min_open=True),
    default=5.0,
    show_default=True,
    help="What --strict allows, in units of the scatter.",
)
@options.json_output
@options.common
@click.pass_obj
def command(messenger: Messenger, /, names: tuple[str, ...], null: bool, **given: Any) -> int:
    """Compare each FILE, a product, with its predecessor and with the running median of those before it.

    The predecessor is the version of the same product that was made before it,
    else the product of the nearest night before, of the same kind, detector,
    readout and filter. It and the running median come from the stores here; what
    was judged bad, or is flagged and was not judged good, is passed over.
    Nothing is written into a record.

    Compared are all measures; of images also the difference (of flats: relative)
    of the pixels that are good in both: level, scatter, levels of the amplifiers,
    structure of rows and columns, medians of 64-pixel blocks less the level, the
    fraction of outliers and the scatter in units of the expected noise; of masks
    the pixels gained and lost by each bit; of tables every number of every
    amplifier. `scatter` is the standard deviation of the series by its median
    absolute deviation; fewer than 5 values have none.

    A table on a terminal, else TAB-separated with a header line, or --json.

    \b
    Examples:
      awe-compare bias/2024-03-02/*.fits
      awe-query flat night=2024-03-02 | awe-compare --strict --limit difference.block_max_fraction=0.01
    """
    from ..core.compare import compare, parse_bound
    from ..core.kinds import KINDS
    from ..core.kinds.foreign import IMPORTS
    from ..core.relatives import product_named
    from ..core.workspace import here

    bounds = [parse_bound(text) for text in given["limits"]]
    workspace, codes = here(), []
    listed = options.read_names(names, null)
    other = None if given["other"] is None else product_named(str(given["other"]), workspace)
    printer = _Printer(given["as_json"])
    for name in listed:
        try:
            found = compare(
                product_named(name, workspace),
                workspace.stores,
                (*KINDS, *IMPORTS),
                other,
                given["last"],
                not given["no_pixels"],
            )
            for path, reason in found.left_out:
                messenger.detail(f"{name}: passed over {path}: {reason}")
            for text in found.notes:
                messenger.note(f"{name}: {text}")
            printer.show(found)
            codes.append(_judge(messenger, name, found, bounds, given))
        except AweError as error:
            messenger.error(error, name)
            codes.append(error.exit_code)
    return worst(codes)


def _judge(
    messenger: Messenger, name: str, found: Comparison, bounds: Sequence[Bound], given: dict[str, Any]
) -> int:
    from ..core.compare import outside, strict_bounds

    wanted = [*bounds, *(strict_bounds(found, given["sigma"]) if given["strict"] else ())]
    said = outside(found, wanted)
    for text in dict.fromkeys(said):
        messenger.error(OutsideLimits(text), name)
    return OutsideLimits.exit_code if said else 0


class _Printer:
    """Prints comparisons: objects, TAB-separated lines under one header, or for people a table each."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.table = not as_json and sys.stdout.isatty()
        self.begun = False

    def show(self, found: Comparison) -> None:
        """Print one comparison."""
        if self.as_json:
            for one in found.quantities:
                options.print_line(json.dumps(_object(found, one)))
        elif self.table:
            self._show_table(found)
        else:
            if not self.begun:
                options.print_line("\t".join(("path", *COLUMNS)))
            for one in found.quantities:
                options.print_line("\t".join([str(found.path), *_texts(one)]))
        self.begun = True

    def _show_table(self, found: Comparison) -> None:
        rows = [list(COLUMNS), *(_texts(one) for one in found.quantities)]
        widths = [max(len(row[n]) for row in rows) for n in range(len(COLUMNS))]
        nights = f"{found.nights} night{'s' if found.nights != 1 else ''} before it"
        with_what = f"{_short(found.predecessor)}, {nights}" if found.predecessor else nights
        lines = [""] if self.begun else []
        lines.append(f"{found.path} against {with_what}")
        for row in rows:
            cells = (text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))
            lines.append("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
        options.print_line("\n".join(lines))


def _short(path: Path) -> str:
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else str(path)


def _object(found: Comparison, one: Quantity) -> dict[str, object]:
    return {
        "path": str(found.path),
        "predecessor": None if found.predecessor is None else str(found.predecessor),
        "quantity": one.name,
        **{name: getattr(one, name) for name in COLUMNS[1:]},
    }


def _texts(one: Quantity) -> list[str]:
    values = (one.before, one.now, one.difference, one.median, one.scatter)
    sigma = one.deviation_sigma
    return [
        one.name,
        *("" if value is None else f"{value:.6g}" for value in values),
        str(one.values),
        "" if sigma is None else f"{sigma:+.2f}",
    ]


def main() -> None:
    """Run the program."""
    launch(command)
