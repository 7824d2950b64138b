"""`awe-lineage`: what a product was made from, what was made from it, and what follows from that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import click

from ..core.errors import UsageError
from . import options
from .messages import Messenger
from .runner import launch

FORMATS = ("tree", "paths", "table", "tsv", "json", "dot", "svg", "prov")


@dataclass(frozen=True)
class Mode:
    """What the program can be asked to do: the options that ask for it, and those that go with it.

    module: of this package; its function `show(names, messenger, given)` does it and
    returns the exit code.
    """

    module: str
    asked_by: tuple[str, ...]
    takes: tuple[str, ...]


MODES = (
    Mode("lineagediff", ("diff",), ("check",)),
    Mode("lineagescript", ("script", "makefile", "rerun"), ("output", "keep", "tolerance")),
    Mode("lineageimpact", ("invalidate",), ("impact", "form", "undo", "reason", "dry_run")),
    Mode("lineageimpact", ("impact",), ("form",)),
    Mode("lineageat", ("at", "at_sky"), ("tree", "form", "box", "cutouts")),
    Mode("lineageviews", (), ("tree", "form", "output", "forward", "depth")),
)


@click.command(
    "lineage",
    short_help="Show what products were made from, or what was made from them.",
    context_settings=options.SETTINGS,
)
@options.inputs()
@click.option("--tree", is_flag=True, help="Print a tree, a line a node. [default]")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="How to print. [default: tree, or by the name of -o; with --impact, paths]",
)
@options.json_output
@options.path_option(
    "-o",
    "--output",
    help="Write to FILE: the script, or a graph whose name ends in .dot, .gv, .svg or .json (PROV).",
)
@click.option("--forward", is_flag=True, help="Show what was made from FILE, to any depth, by the indexes.")
@click.option(
    "--depth", type=click.IntRange(0), metavar="N", help="Go no further than N steps, by the shortest way."
)
@click.option(
    "--impact", is_flag=True, help="List all that a bad FILE touched, each once, also what is removed."
)
@click.option("--invalidate", is_flag=True, help="Judge FILE and all that it touched bad, on record.")
@click.option("--undo", is_flag=True, help="With --invalidate: take back what the last one of FILE said.")
@click.option("--reason", metavar="TEXT", help="Why; goes on record, and --invalidate needs it.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what --invalidate would judge, and judge nothing.")
@click.option("--diff", is_flag=True, help="Say why two products differ, down to the first causes.")
@click.option("--check", is_flag=True, help="With --diff: exit 3 if they differ.")
@click.option("--script", is_flag=True, help="Write the shell script that makes FILE again from raw frames.")
@click.option("--makefile", is_flag=True, help="The same as a Makefile for GNU make.")
@click.option(
    "--rerun", is_flag=True, help="Run that script elsewhere, compare the bits; exit 3 if they differ."
)
@options.path_option("--keep", metavar="DIR", help="Where --rerun works, an empty directory, which is kept.")
@click.option(
    "--tolerance",
    type=options.Finite(0),
    metavar="X",
    help="What --rerun allows other software: rms in units of the scatter, fraction of other values of masks "
    "and tables. [default: 0.001]",
)
@click.option(
    "--at",
    multiple=True,
    metavar="X,Y",
    help="Tell everything that entered this pixel (FITS pixels, from 1,1); may be repeated.",
)
@click.option(
    "--at-sky",
    multiple=True,
    metavar="RA,DEC",
    help="The same for the pixel at this place, in degrees or as 13:29:52.7,+47:11:43.",
)
@click.option(
    "--box", type=click.IntRange(1, 101), metavar="N", help="With --at: the N x N pixels around it, too."
)
@options.path_option(
    "--cutouts", metavar="DIR", help="With --at: write a PNG of the 31 x 31 pixels around it in each file."
)
@options.common
@click.pass_obj
def command(messenger: Messenger, /, names: tuple[str, ...], null: bool, **given: Any) -> int:
    """Show the ancestors of each FILE: a product, a raw frame, or file.fits[DETECTOR] for one detector.

    A line of the tree has kind and name, detector/filter/night, the first 8
    digits of the recipe key (of a raw frame, of the content), and the state:

    \b
      present   it is where the record says (not registered: a raw frame of
                which no store has a record, so only the name was looked at)
      moved     it was found elsewhere, through the index
      changed   something else lies there now
      deleted   it is gone; its ancestors are known if its record was kept

    All is read from the records, also those that are kept of replaced and deleted
    products. A node is followed once; where it comes again it is marked (see
    above). Of more than 20 branches in a row that are alike the tree has three, and
    a line for the rest. A deleted product can be named too.

    With --json, each node is one line: id (the recipe key, or the content of a
    raw frame), content, kind, path, state, checked, record, role (in what is
    above it; with --forward, that of what is above in it), steps from FILE,
    detector, filter, night, and parents: the inputs, as id and role. The formats
    table and tsv have the same in columns, less some; dot and svg are graphs from
    raw frames to products (in the picture, four and more that are alike are one
    box); prov is W3C PROV-JSON.

    --impact prints the path of all that was made from FILE, each once, and counts
    it by kind; --invalidate does so and judges FILE and all of it bad, for a
    reason. --invalidate --undo takes all that back, and nothing else: what was
    judged before is in force again, what was judged since stays so.

    --diff A B says why two products differ: along the inputs that differ, down to the
    first causes (parameters, frames, corrected meta, other calibrations, revisions,
    software, edits). It reads records only, so that files may be deleted.

    --script and --makefile write what makes FILE again, bit by bit, from raw frames alone
    in an empty directory: every parameter and input in so many words, so that nobody's
    settings take part; the raw frames are checked first. --rerun does it in a temporary
    directory and compares; other software may differ within --tolerance.

    --at and --at-sky follow one pixel of FILE down to the raw frames: its value,
    weight and bits in each file, the raw pixel it was (HDU, amplifier), the overscan
    subtracted there, the row of its amplifier in tables, what a stack kept or rejected,
    why it is masked, and the arithmetic done again from the parts. Of a coadd or a regridded
    frame: which frames are there, the place of the pixel in each, what each has there, scaled and
    less its sky, whether it entered, was clipped or is masked, and by what; then on, by the
    nearest pixel of each frame. What is not known is said. Of a raw frame, X,Y are pixels of
    the trimmed detector.

    \b
    Examples:
      awe-lineage reduced.fits
      awe-lineage --diff --check reduced.fits old/reduced.fits
      awe-lineage --script -o again.sh reduced.fits && sh again.sh empty-directory
      awe-lineage --at 512,1024 --cutouts cuts reduced.fits
      awe-lineage reduced.fits -o reduced.svg
      awe-lineage --forward bias.fits --json | awe-verify -
      awe-lineage --invalidate --reason "light leak" raw/d1001.fits
    """
    mode = _mode(given)
    listed = options.read_names(names, null)
    code: int = import_module(f".{mode.module}", __package__).show(listed, messenger, {**given, "null": null})
    return code


def _mode(given: Mapping[str, Any]) -> Mode:
    """What is asked for; raises UsageError for options that do not go together."""
    asked = [mode for mode in MODES if any(_is_given(given[name]) for name in mode.asked_by)]
    # What one of them takes does not ask for another.
    asked = [mode for mode in asked if not (len(asked) > 1 and set(mode.asked_by) <= set(asked[0].takes))]
    if len(asked) > 1:
        first, second = (_option(next(n for n in one.asked_by if _is_given(given[n]))) for one in asked[:2])
        raise UsageError(f"{first} and {second} exclude each other")
    mode = asked[0] if asked else MODES[-1]
    fits = ("as_json", *mode.asked_by, *mode.takes)
    stray = next((name for name in given if name not in fits and _is_given(given[name])), None)
    if stray is None:
        return mode
    if not asked:
        needed = next(_option(one.asked_by[0]) for one in MODES if stray in one.takes)
        raise UsageError(f"{_option(stray)} goes with {needed}")
    asked_by = next(_option(name) for name in mode.asked_by if _is_given(given[name]))
    raise UsageError(f"{_option(stray)} does not go with {asked_by}")


def _is_given(value: object) -> bool:
    return value is not None and value is not False and value != ()


def _option(name: str) -> str:
    """An option as it is typed."""
    found = next(one for one in command.params if one.name == name)
    return max(found.opts, key=len)


def main() -> None:
    """Run the program."""
    launch(command)
