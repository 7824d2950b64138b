"""`awe-import`: reduced frames, coadds and source lists of other pipelines as products."""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Any

import click

from ..core.errors import AweError, UsageError, worst
from ..core.foreignnames import UNITS, WEIGHT_TYPES
from . import options
from .messages import Messenger
from .runner import launch

KINDS = ("reduced", "coadd", "sources")
WORDS = {"made": "{} imported", "up-to-date": "{} up to date", "would-make": "would import {}"}


@click.command(
    "import",
    short_help="Make products of what other pipelines reduced.",
    context_settings=options.SETTINGS,
)
@options.inputs()
@click.option("--as", "kind", type=click.Choice(KINDS), required=True, help="What the files are.")
@options.path_option("-o", "--output", help="Write the one product here.")
@options.path_option("--out-dir", metavar="DIR", help="Write each product here, named as its file.")
@click.option(
    "--unit",
    type=click.Choice(UNITS),
    help="Unit of the pixels. [default: as the camera table or BUNIT says]",
)
@click.option(
    "--weight",
    metavar="FILE|EXT",
    help="The weight plane: a file, file.fits[EXT], or an extension of each file; none: there is none. "
    "[default: where the camera table has it]",
)
@click.option(
    "--weight-type",
    type=click.Choice(WEIGHT_TYPES),
    help="What it is: inverse variance (weight), variance, rms, weights of unknown scale (relative). "
    "[default: as the camera table says]",
)
@click.option(
    "--mask",
    metavar="FILE|EXT",
    help="The quality mask, as for --weight. [default: where the camera table has it]",
)
@click.option(
    "--mask-bits",
    metavar="BIT:NAME,...",
    help="What its bits mean: 1:hot,2:saturated. Bits that are not named are taken as user; good is no bit.",
)
@click.option(
    "--mask-codes",
    metavar="CODE:NAME,...",
    help="What its values mean, where a pixel has one code: 1:hot,5:cosmic.",
)
@click.option(
    "--zero-point",
    type=float,
    metavar="MAG",
    help="Magnitude of one unit a second; of one unit, where pixels are a flux. "
    "[default: as the camera table says]",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Correct what the header says, as in awe-ingest(1); may be repeated.",
)
@click.option(
    "--processed", is_flag=True, help="Take a frame that looks raw: whole numbers, or with an overscan."
)
@click.option("-u", "--update", is_flag=True, help="Do nothing where the product is up to date (by content).")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be made, and make nothing.")
@click.option("--why", is_flag=True, help="Say what would be made and why, and make nothing.")
@click.option("--check", is_flag=True, help="Exit 3 if a product is missing or out of date; make nothing.")
@click.option("--force", is_flag=True, help="Replace a file that awetools did not write, or that was edited.")
@click.option("--strict", is_flag=True, help="Write nothing if a measure is outside its limits (exit 3).")
@options.path_option("--depfile", help="Write the Make rule of the product here.")
@options.processes
@options.json_output
@options.common
@click.pass_obj
def command(messenger: Messenger, /, names: tuple[str, ...], null: bool, **given: Any) -> int:
    """Make products, with a record, of frames, coadds and source lists that other pipelines made.

    The images of each file become one product each: SCI in ADU (counts/s times
    the exposure time; electrons stay electrons, at a gain of 1 e/ADU; a coadd
    is in ADU/s, at a zero point of 30 mag where its own is known), WEIGHT as
    inverse variance, MASK in the bits of awe(1). A flux (nmgy, Jy, or --unit
    flux) is at a zero point of 30 mag too. Where the planes lie, what their
    numbers mean, unit and zero point are told by the cards of some 25
    pipelines and surveys that are known (docs/imports.rst), by the camera table
    ([[import]]) or by options. Weights are compared with the noise of the
    background: inverse variances that cannot be are refused, relative ones are
    scaled to it, and without a plane the noise gives one weight.

    A source list is a binary table; its columns are kept behind X_PX, Y_PX or
    RA_DEG, DEC_DEG. The record names the files by the hash of their content, so
    that an import that is repeated with -u does nothing.

    \b
    Examples:
      awe-import --as reduced c4d_170316_062107_ooi_z_ls9.N2.fits
      awe-import --as reduced --unit flux --zero-point 30 stack.fits
      awe-import --as reduced --unit e/s --weight WHT --mask DQ --mask-bits 1:hot,4:saturated *.fits
      awe-import --as sources field.cat.fits[LDAC_OBJECTS] -o sources.fits
    """
    listed = list(dict.fromkeys(options.read_names(names, null)))
    if given["output"] and given["out_dir"]:
        raise UsageError("-o and --out-dir exclude each other")
    if given["depfile"] and not given["output"]:
        raise UsageError("--depfile needs -o: a rule has one target")
    return _report(_request(listed, given), messenger, null, given)


def _request(listed: list[str], given: dict[str, Any]) -> Any:
    from ..core.build import How
    from ..core.foreign import Given
    from ..core.importing import ImportRequest
    from ..core.kinds.foreign import IMPORTS
    from ..core.workspace import here

    parameters = {
        name: given[name]
        for name in ("unit", "weight_type", "mask_bits", "mask_codes")
        if given[name] is not None
    }
    if given["zero_point"] is not None:
        parameters["zero_point_mag"] = f"{given['zero_point']:g}"
    kind = next(one for one in IMPORTS if one.name == given["kind"])
    if kind.name == "sources" and (parameters or given["weight"] or given["mask"]):
        raise UsageError("a source list has no unit, weight or mask", hint="awe-import --as sources FILE")
    modes = [name for name in ("check", "why", "dry_run") if given[name]]
    return ImportRequest(
        kind=kind,
        addresses=listed,
        workspace=here(),
        given=Given(given["weight"], given["mask"], parameters, _overrides(given), given["processed"]),
        output=given["output"],
        out_dir=given["out_dir"],
        mode=modes[0].replace("_", "-") if modes else "make",  # type: ignore[arg-type]
        update=given["update"],
        how=How(
            strict=given["strict"],
            force=given["force"],
            depfile=given["depfile"],
            argv=("awe-import", *sys.argv[1:]),
        ),
        processes=given["jobs"],
    )


def _overrides(given: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given["settings"]:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"--set {text}: not FIELD=VALUE")
        found[name.strip()] = value.strip()
    return found


def _report(request: Any, messenger: Messenger, null: bool, given: dict[str, Any]) -> int:
    from ..core.batch import Failure
    from ..core.importing import run_imports
    from .progress import progress

    codes, actions = [], Counter[str]()
    with progress(len(request.addresses), "awe-import", messenger) as step:
        for outcome in run_imports(request):
            step()
            if isinstance(outcome, Failure):
                messenger.error(outcome.error, outcome.about)
                codes.append(outcome.error.exit_code if isinstance(outcome.error, AweError) else 1)
                continue
            for text in outcome.warnings:
                messenger.warning(text)
            for text in outcome.notes:
                messenger.note(text)
            codes.append(0)
            actions[outcome.action] += 1
            _print(outcome, null, given)
    failed = sum(1 for code in codes if code)
    if len(codes) > 1 or actions["up-to-date"] or actions["would-make"]:
        counts = [WORDS[action].format(count) for action, count in actions.items()]
        messenger.note(", ".join([*counts, *([f"{failed} of {len(codes)} failed"] if failed else [])]))
    return worst(codes)


def _print(outcome: Any, null: bool, given: dict[str, Any]) -> None:
    reasons = [{"reason": one.name, "detail": one.detail} for one in outcome.reasons]
    if given["as_json"]:
        about = {"path": str(outcome.target), "action": outcome.action, "reasons": reasons}
        if outcome.record:
            quality = outcome.record["quality"]
            about |= {"recipe_key": outcome.record["recipe_key"], "flags": quality["flag_names"]}
        options.print_line(json.dumps(about))
    elif given["why"]:
        why = "; ".join(f"{one.name}: {one.detail}" for one in outcome.reasons) or "up to date"
        options.print_line(f"{outcome.target}\t{why}")
    elif not given["check"]:
        options.print_line(str(outcome.target), null)


def main() -> None:
    """Run the program."""
    launch(command)
