"""`awe-export`: copies of products as other programs want them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import AweError, UsageError, worst
from . import options
from .messages import Messenger
from .runner import launch

if TYPE_CHECKING:
    from ..core.export import Form
    from ..core.products import ProductInput

PROGRAMS = ("ds9", "sextractor", "swarp", "scamp", "psfex")


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
    cards GAIN, SATURATE, EXPTIME are those of the product; where its zero point
    is known, PHOT_C, MAGZERO and FLXSCALE give it. A distortion in SIP terms
    becomes TPV, which these programs read (DS9 reads both). With -v the command
    that reads the copies is said.

    A copy is no product: it has no record, but AWEKEY names the product that it
    is of. A copy that awetools wrote is replaced; what is not ours, or was edited,
    needs --force; a product is never replaced.

    \b
    Examples:
      awe-query reduced night=2017-03-02 | awe-export --for swarp --out-dir swarp
      awe-export --for ds9 reduced.fits -o look.fits
      awe-export --mef --out-dir mef reduced/*.fits
    """
    from ..core.export import Form

    listed = list(dict.fromkeys(options.read_names(names, null)))
    if bool(given["output"]) == bool(given["out_dir"]):
        raise UsageError("say where the copies go", hint="-o FILE, or --out-dir DIR")
    form = Form(given["program"], int(given["flag_bits"]), given["head"], given["force"])
    codes, products = _opened(listed, messenger)
    jobs_of = _groups(products, given)
    codes += _run(jobs_of, form, jobs, messenger, null, as_json)
    return worst(codes)


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


def _groups(products: Sequence[ProductInput], given: dict[str, Any]) -> list[tuple[Path, list[ProductInput]]]:
    """The target of each file that is to be written, with its products."""
    groups: dict[str, list[ProductInput]] = {}
    for one in products:
        exposure = str(one.meta.get("exposure") or one.path.stem)
        groups.setdefault(exposure if given["mef"] else str(one.path), []).append(one)
    if given["output"]:
        if len(groups) > 1:
            raise UsageError(f"-o names one file, but there are {len(groups)}", hint="--out-dir DIR")
        return [(given["output"], found) for found in groups.values()]
    found: dict[Path, list[ProductInput]] = {}
    for name, members in groups.items():
        target = given["out_dir"] / (f"{name}.fits" if given["mef"] else members[0].path.name)
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
    jobs: int,
    messenger: Messenger,
    null: bool,
    as_json: bool,
) -> list[int]:
    from ..core.export import command_of, export
    from ..core.parallel import run_forked
    from .progress import progress

    def work(number: int) -> list[Path]:
        target, members = groups[number]
        return export(members, target, form)

    codes = []
    with progress(len(groups), "awe-export", messenger) as step:
        for (target, members), result in zip(groups, run_forked(work, len(groups), jobs), strict=True):
            step()
            if isinstance(result, Exception):
                messenger.error(result, str(members[0].path))
                codes.append(result.exit_code if isinstance(result, AweError) else 1)
                continue
            codes.append(0)
            messenger.detail(command_of(form, result))
            _print(target, members, result, null, as_json)
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
