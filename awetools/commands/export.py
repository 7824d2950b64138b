"""`awe-export`: copies of products as other programs want them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import AweError, UsageError, worst
from . import options
from .messages import Messenger
from .runner import launch

if TYPE_CHECKING:
    from ..core.export import Form, Solved
    from ..core.exporttables import TableForm
    from ..core.products import ProductInput
    from ..core.store import Store

PROGRAMS = ("ds9", "sextractor", "swarp", "scamp", "psfex")
TABLES = ("ldac", "votable", "csv", "ecsv", "regions", "head")


@click.command(
    "export",
    short_help="Copy products for DS9, SExtractor, SWarp, SCAMP and PSFEx.",
    context_settings=options.SETTINGS,
)
@options.inputs()
@click.option(
    "--for",
    "program",
    type=click.Choice(PROGRAMS),
    default="sextractor",
    show_default=True,
    help="The program that reads the copies.",
)
@click.option(
    "--to",
    type=click.Choice(TABLES),
    metavar="FORM",
    help=f"Form of a table: {', '.join(TABLES)}. [default: by the end of -o, as .csv .vot .reg; else "
    "ldac for scamp and psfex, regions for ds9, head for swarp]",
)
@click.option(
    "--vignet",
    type=click.IntRange(0, 501),
    metavar="PX",
    help="ldac: stamps of the image, so many pixels a side. [default: 35 for psfex, else none]",
)
@click.option("--sky", is_flag=True, help="regions: in coordinates of the sky, not in pixels.")
@options.path_option("-o", "--output", help="Write the image of the one product here; its planes beside it.")
@options.path_option("--out-dir", metavar="DIR", help="Write the copies here, named as their products.")
@click.option(
    "--mef",
    is_flag=True,
    help="The detectors of one exposure become extensions of one file, EXPOSURE.fits.",
)
@click.option(
    "--flag-bits",
    type=click.Choice(["16", "32"]),
    default="16",
    show_default=True,
    help="Integers of the flag image.",
)
@click.option("--head", is_flag=True, help="Also a .head file with the coordinates and the flux scale.")
@click.option(
    "--as-reduced", is_flag=True, help="Coordinates and flux scale as the reduced frame itself has them."
)
@click.option("--force", is_flag=True, help="Replace a file that awetools did not write, or that was edited.")
@options.processes
@options.json_output
@options.common
@click.pass_obj
def command(
    messenger: Messenger, /, names: tuple[str, ...], null: bool, jobs: int, as_json: bool, **given: Any
) -> int:
    """Copy each product as another program wants it; prints the paths of the images.

    x.fits is the image, x.weight.fits its weights (inverse variance, MAP_WEIGHT)
    and x.flag.fits its mask (FLAG_IMAGE); for DS9 all are planes of one file. The
    cards GAIN, SATURATE, EXPTIME are those of the product. A reduced frame gets the
    coordinates of the newest astrom of its exposure and detector, and PHOT_C, MAGZERO
    and FLXSCALE of the newest zeropoint, if it is absolute; a note names them. A
    distortion in SIP terms becomes TPV, which these programs read (DS9 reads both).
    With -v the command that reads the copies is said.

    A table becomes ldac (SExtractor's names, for SCAMP and PSFEx), votable, csv,
    ecsv, or regions for DS9; head is the coordinate system alone, which SWarp reads
    beside the image. What SExtractor has no number for is 0 there, SNR_WIN is that of
    FLUX_AUTO, and FLAGS are its five lowest bits.

    A copy is no product: it has no record, but AWEKEY names the product that it
    is of. A copy that awetools wrote is replaced; what is not ours, or was edited,
    needs --force; a product is never replaced.

    \b
    Examples:
      awe-query reduced night=2017-03-02 | awe-export --for swarp --out-dir swarp
      awe-export --for ds9 reduced.fits -o look.fits
      awe-export --mef --out-dir mef reduced/*.fits
      awe-export --for psfex sources.fits -o stars.ldac
      awe-export --to head astrom.fits -o reduced.head
    """
    from ..core.export import Form

    listed = list(dict.fromkeys(options.read_names(names, null)))
    if bool(given["output"]) == bool(given["out_dir"]):
        raise UsageError("say where the copies go", hint="-o FILE, or --out-dir DIR")
    form = Form(given["program"], int(given["flag_bits"]), given["head"], given["force"])
    codes, products = _opened(listed, messenger)
    forms = {one.path: _form_of(one, given) for one in products}
    groups = _groups(products, forms, given)
    solved = {} if given["as_reduced"] else _solved(products, forms, messenger)
    codes += _run(groups, form, forms, solved, jobs, messenger, null, as_json)
    return worst(codes)


def _form_of(product: ProductInput, given: dict[str, Any]) -> TableForm | None:
    """The form in which a product is exported as a table; None for an image."""
    from ..core.exporttables import USUAL_STAMP_PX, TableForm, default_form, form_of_name, is_table

    to = given["to"]
    if to is None and is_table(product):
        to = form_of_name(given["output"]) or default_form(given["program"])
    if to is None:
        return None
    stamp_px = given["vignet"]
    if stamp_px is None:
        stamp_px = USUAL_STAMP_PX if given["program"] == "psfex" else 0
    return TableForm(to, stamp_px if to == "ldac" else 0, given["sky"], given["force"])


def _opened(listed: Sequence[str], messenger: Messenger) -> tuple[list[int], list[ProductInput]]:
    from ..core.export import open_exported

    codes, products = [], []
    for name in listed:
        try:
            products.append(open_exported(Path(name)))
        except AweError as error:
            messenger.error(error, name)
            codes.append(error.exit_code)
    return codes, products


def _solved(
    products: Sequence[ProductInput], forms: Mapping[Path, TableForm | None], messenger: Messenger
) -> dict[Path, Solved]:
    """Solution and zero point of each image that has them; they are named."""
    from ..core.export import solved_of
    from ..core.workspace import here

    stores, found = here().stores, {}
    for one in products:
        if forms[one.path] is None:
            found[one.path] = solved = solved_of(one, _stores_of(one, stores))
            used = [str(two.path) for two in (solved.astrom, solved.zeropoint) if two is not None]
            if used:
                messenger.note(f"{one.path}: with {', '.join(used)}")
    return found


def _stores_of(product: ProductInput, stores: Sequence[Store]) -> list[Store]:
    """The stores that are read, and that in which a product lies."""
    from ..core.store import store_of

    own = store_of(product.path)
    return list(dict.fromkeys([*stores, *([own] if own else [])]))


def _groups(
    products: Sequence[ProductInput], forms: Mapping[Path, TableForm | None], given: dict[str, Any]
) -> list[tuple[Path, list[ProductInput]]]:
    """The target of each file that is to be written, with its products."""
    from ..core.exporttables import table_target

    groups: dict[str, list[ProductInput]] = {}
    for one in products:
        exposure = str(one.meta.get("exposure") or one.path.stem)
        together = f"{exposure} {forms[one.path] is None}" if given["mef"] else str(one.path)
        groups.setdefault(together, []).append(one)
    if given["output"]:
        if len(groups) > 1:
            raise UsageError(f"-o names one file, but there are {len(groups)}", hint="--out-dir DIR")
        return [(given["output"], found) for found in groups.values()]
    found: dict[Path, list[ProductInput]] = {}
    for members in groups.values():
        exposure = members[0].meta.get("exposure") or members[0].path.stem
        target = given["out_dir"] / (f"{exposure}.fits" if given["mef"] else members[0].path.name)
        form = forms[members[0].path]
        if form is not None:
            target = table_target(target, form.to)
        if target in found:
            raise UsageError(
                f"{found[target][0].path} and {members[0].path} would both become {target}",
                hint="one --out-dir for each",
            )
        found[target] = members
    return list(found.items())


def _run(
    groups: Sequence[tuple[Path, list[ProductInput]]],
    form: Form,
    forms: Mapping[Path, TableForm | None],
    solved: Mapping[Path, Solved],
    jobs: int,
    messenger: Messenger,
    null: bool,
    as_json: bool,
) -> list[int]:
    from ..core.export import commands_of, export
    from ..core.exporttables import commands_of_tables, export_tables
    from ..core.parallel import run_forked
    from ..core.workspace import here
    from .progress import progress

    stores = here().stores

    def work(number: int) -> list[Path]:
        target, members = groups[number]
        table = forms[members[0].path]
        if table is not None:
            return export_tables(members, target, table, stores)
        return export(members, target, form, solved)

    codes = []
    images: list[list[Path]] = []
    tables: list[Path] = []
    with progress(len(groups), "awe-export", messenger) as step:
        results = run_forked(work, len(groups), jobs)
        for (target, members), result in zip(groups, results, strict=True):
            step()
            if isinstance(result, Exception):
                messenger.error(result, str(members[0].path))
                codes.append(result.exit_code if isinstance(result, AweError) else 1)
                continue
            codes.append(0)
            if forms[members[0].path] is None:
                images.append(result)
            else:
                tables.append(target)
            _print(target, members, result, null, as_json)
    for said in (*commands_of(form, images), *commands_of_tables(form.program, tables)):
        messenger.detail(said)
    return codes


def _print(
    target: Path, members: Sequence[ProductInput], written: Sequence[Path], null: bool, as_json: bool
) -> None:
    if not as_json:
        options.print_line(str(target), null)
        return
    about = {
        "path": str(target),
        "files": [str(one) for one in written],
        "of": [str(one.path) for one in members],
    }
    options.print_line(json.dumps(about))


def main() -> None:
    """Run the program."""
    launch(command)
