"""`awe-refcat`: local reference catalogues of stars: imported, listed, asked for the stars of a cone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from ..core.errors import AweError, UsageError
from . import options
from .answers import FORMATS
from .messages import Messenger
from .refcatwords import stores
from .runner import launch

if TYPE_CHECKING:
    from ..core.catalogues.refstore import Shelf

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
    from . import refcatcone, refcatimport, refcatkept

    _check_options(action, given)
    act = {
        "import": refcatimport.import_tables,
        "list": refcatkept.list_all,
        "show": refcatkept.show,
        "cone": refcatcone.print_cone,
        "verify": refcatkept.verify,
        "remove": refcatkept.remove_them,
    }[action]
    return act(messenger, words, _shelves({"directory": directory}), given)


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
    return shelves_of([] if directory else stores(), directory)


def main() -> None:
    """Run the program."""
    launch(command)
