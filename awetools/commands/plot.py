"""`awe-plot`: what a product or raw frame measured, or any columns of numbers, as a PNG or SVG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import UsageError
from . import options
from .messages import Messenger
from .runner import launch

if TYPE_CHECKING:
    from ..core.plots.figure import Plot

WHATS = (
    "photon-transfer",
    "linearity",
    "amplifiers",
    "astrometry",
    "frames",
    "overscan",
    "profile",
    "histogram",
    "pulls",
    "mask",
    "residual",
    "measures",
    "columns",
)
FORMATS = ("png", "svg")
SVG_BEGINS = (b"<?xml", b"<svg")


@click.command("plot", short_help="Plot what was measured, as PNG or SVG.", context_settings=options.SETTINGS)
@options.inputs()
@options.path_option("-o", "--output", help="Write the picture here; its name ends in .png or .svg.")
@click.option(
    "--what",
    type=click.Choice(WHATS),
    metavar="WHAT",
    help=f"What to plot: {', '.join(WHATS)}. [default: what fits the input]",
)
@options.path_option(
    "--with", "other", help="residual: against this product. [default: the predecessor, else --smooth]"
)
@click.option("--smooth", is_flag=True, help="residual: against the image's own smooth version.")
@click.option(
    "--block",
    type=click.IntRange(1, 4096),
    default=64,
    show_default=True,
    metavar="PX",
    help="residual: side of the blocks; no larger than 1/16 of the image, but at least 4.",
)
@click.option(
    "--scatter", is_flag=True, help="columns: a point a row, the first against the others; as --what columns."
)
@click.option("--x", metavar="NAME", help="columns: the x axis. [default: the first column]")
@click.option(
    "--y", metavar="NAME,...", help="columns, measures: what to plot. [default: all that are numbers]"
)
@click.option("--by", metavar="NAME", help="columns: a curve for each value of this column.")
@click.option("--log", type=click.Choice(("x", "y", "xy")), default=None, help="Axes that are logarithmic.")
@click.option("--title", metavar="TEXT", help="Written above. [default: what the inputs have in common]")
@click.option(
    "--dpi",
    type=click.IntRange(20, 1200),
    default=150,
    show_default=True,
    help="Pixels of the PNG an inch; most plots are 7.6 inches wide.",
)
@click.option(
    "--numbers", is_flag=True, help="Print the numbers behind the plot, TAB-separated; -o is not needed."
)
@options.common
@click.pass_obj
def command(messenger: Messenger, /, names: tuple[str, ...], null: bool, **given: Any) -> int:
    """Plot FILEs, several in one picture, or columns of numbers from standard input; prints the picture's path.

    \b
      photon-transfer  variance against level of each amplifier (a gain)
      linearity        deviation from linear against level (a gain)
      amplifiers       every number of each amplifier (a table)
      astrometry       five panels of the residuals of its stars (an astrom)
      frames           frames on the sky, their rms and stars (a gastrom)
      overscan         level of each row, and what is subtracted (a raw frame)
      profile          medians of the columns and of the rows (an image)
      histogram        pixel values, with their Gaussian (an image)
      pulls            (SCI - sky) sqrt(WEIGHT), with the unit Gaussian (reduced)
      mask             pixels of each mask bit over the image (with a mask)
      residual         map of differences from another product in blocks (an image)
      measures         measures of products against night or time (products)
      columns          columns of numbers from standard input

    Standard input is columns of numbers where it is TAB-separated with a header
    line, as awe-query --get prints it, or JSON lines without a path (with --scatter
    also CSV); else it is names of files (--what columns, --x and --y make it columns too). The column x
    may hold numbers, dates or texts; a column of texts that repeat makes the curves.

    Drawing needs matplotlib: pip install 'awetools[plot]'.

    \b
    Examples:
      awe-plot -o profile.png bias/2024-03-0*/*.fits
      awe-query bias --get night,detector,level_adu | awe-plot -o trend.svg
      awe-query reduced --get imstat.stdev,flat.imstat.stdev | awe-plot --scatter -o x.png
    """
    if given["scatter"] and given["what"] not in (None, "columns"):
        raise UsageError(f"--scatter plots columns, --what {given['what']} does not")
    if given["scatter"]:
        given["what"] = "columns"
    listed, text = _read(names, null, given)
    form = _form(given)
    plot = _columns(messenger, text, given) if text is not None else _files(messenger, listed, given)
    if given["title"] is not None:
        from dataclasses import replace

        plot = replace(plot, title=given["title"])
    if given["numbers"]:
        _print_numbers(plot)
    if given["output"] is not None:
        from ..core.plots.draw import draw

        write_picture(given["output"], draw(plot, form, given["dpi"]))
        if not given["numbers"]:
            options.print_line(str(given["output"]))
    return 0


def _form(given: dict[str, Any]) -> str:
    """png or svg, from the name of the output; raises UsageError."""
    path: Path | None = given["output"]
    if path is None:
        if given["numbers"]:
            return "png"
        raise UsageError("where should the picture go?", hint="-o FILE.png, -o FILE.svg, or --numbers")
    form = path.suffix.lower().removeprefix(".")
    if form not in FORMATS:
        raise UsageError(f"-o {path}: the picture's name must end in .png or .svg")
    return form


def _read(names: tuple[str, ...], null: bool, given: dict[str, Any]) -> tuple[list[str], str | None]:
    """The names of files, or the text of columns of numbers."""
    asked = (
        given["what"] == "columns" or bool(given["x"] or given["by"]) or (given["y"] and not given["what"])
    )
    if names and "-" not in names:
        if asked:
            raise UsageError(
                "--scatter, --what columns, --x and --by take their numbers from standard input, not FILE"
            )
        return options.read_names(names, null), None
    if names:
        return options.read_names(names, null), None
    data = options.read_input()
    first = data.lstrip().partition(b"\n")[0]
    if given["what"] in (None, "columns") and (asked or _is_columns(first)):
        return [], data.decode(errors="surrogateescape")
    return options.names_in(data, null), None


def _is_columns(first: bytes) -> bool:
    import json

    if not first.startswith(b"{"):
        return b"\t" in first
    try:
        return "path" not in json.loads(first)
    except (ValueError, TypeError, RecursionError):
        return False


def _split(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _columns(messenger: Messenger, text: str, given: dict[str, Any]) -> Plot:
    from ..core.plots.columns import columns_plot, rows_from_text

    rows = rows_from_text(text)
    plot = columns_plot(rows, given["x"], _split(given["y"]), given["by"], given["log"] or "")
    for panel in plot.panels:
        left_out = len(rows) - sum(len(curve.y) for curve in panel.curves)
        if left_out:
            messenger.note(f"{panel.y_label}: {left_out} of {len(rows)} rows have no number to plot")
    return plot


def _files(messenger: Messenger, names: list[str], given: dict[str, Any]) -> Plot:
    from ..core.kinds import KINDS
    from ..core.kinds.foreign import IMPORTS
    from ..core.plots.inputs import Choice, plot_files
    from ..core.workspace import here

    choice = Choice(given["other"], given["smooth"], given["block"], _split(given["y"]), given["log"] or "")
    plot, notes = plot_files(given["what"], names, here(), (*KINDS, *IMPORTS), choice)
    for note in notes:
        messenger.note(note)
    return plot


def _print_numbers(plot: Plot) -> None:
    from ..core.plots.figure import numbers_of

    options.print_line("panel\tcurve\tx\ty\terror")
    for panel, curve, x, y, error in numbers_of(plot):
        shown = f"{x:.9g}" if isinstance(x, float) else str(x)
        last = "" if error is None else f"{error:.9g}"
        options.print_line("\t".join([panel.replace("\n", " "), curve, shown, f"{y:.9g}", last]))


def write_picture(path: Path, data: bytes) -> None:
    """Write a picture whole, over nothing but a picture. Raises WouldOverwrite, Unavailable."""
    from ..core.files import make_directory, refuse_others, write_whole
    from ..core.png import SIGNATURE

    refuse_others(path, SVG_BEGINS if path.suffix.lower() == ".svg" else (SIGNATURE,), "a picture")
    make_directory(path.parent)
    write_whole(path, data)


def main() -> None:
    """Run the program."""
    launch(command)
