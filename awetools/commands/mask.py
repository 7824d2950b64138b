"""`awe-mask`: the mask of a product: counts, one pixel's bits and their origin, or a plane as an image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..core.errors import AweError, UsageError, worst
from ..core.masknames import MASK_NAMES
from . import options
from .messages import Messenger
from .runner import launch

COUNT_COLUMNS = ("path", "bit", "name", "pixels", "fraction")
AT_COLUMNS = ("path", "x", "y", "value", "weight", "bit", "name", "kind", "from", "detail")


@click.command(
    "mask",
    short_help="Say which pixels are masked, and where each bit came from.",
    context_settings=options.SETTINGS,
)
@options.inputs()
@click.option(
    "--at",
    "places",
    multiple=True,
    metavar="X,Y",
    help="The bits of this pixel (FITS pixels, from 1,1) and where each was set first; may be repeated.",
)
@click.option(
    "--plane",
    "planes",
    multiple=True,
    metavar="NAME",
    help="Write this bit as an image of 0 and 1; several are joined: " + ", ".join(MASK_NAMES) + ".",
)
@options.path_option("-o", "--output", help="Write the plane of the one FILE here.")
@options.path_option("--out-dir", metavar="DIR", help="Write each plane here, as FILE_NAME.fits.")
@click.option("--force", is_flag=True, help="Replace a file that awetools did not write, or that was edited.")
@options.json_output
@options.common
@click.pass_obj
def command(messenger: Messenger, /, names: tuple[str, ...], null: bool, as_json: bool, **given: Any) -> int:
    """Say how many pixels of each FILE have each mask bit; of one pixel, where its bits came from; or write a plane.

    With --at, a bit is followed up through the inputs of the product: a hot pixel
    to the product that found it, a pixel without calibration to the flat. A bit
    that none of the inputs has was set by the product itself; its parameters are
    printed, and for saturated the raw value beside the limit, if the raw frame is
    still there.

    \b
    Examples:
      awe-mask reduced/*.fits
      awe-mask --at 512,1024 reduced.fits
      awe-mask --plane cosmic --plane trail reduced.fits -o struck.fits
    """
    listed = options.read_names(names, null)
    pixels = [_pixel(text) for text in given["places"]]
    if pixels and given["planes"]:
        raise UsageError("--at and --plane exclude each other")
    if given["planes"]:
        work = _plane_writer(listed, given, null)
    elif given["output"] or given["out_dir"]:
        raise UsageError("-o and --out-dir are for --plane")
    else:
        work = _pixel_teller(pixels, as_json) if pixels else _counter(as_json)
    codes = []
    for name in listed:
        try:
            work(Path(name))
            codes.append(0)
        except AweError as error:
            messenger.error(error, name)
            codes.append(error.exit_code)
    return worst(codes)


def _pixel(text: str) -> tuple[int, int]:
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise UsageError(f"--at {text}: not X,Y in FITS pixels, as in 512,1024")
    return int(parts[0]), int(parts[1])


def _counter(as_json: bool) -> Any:
    from ..core.maskreport import counts, mask_of, masked_product

    if not as_json:
        options.print_line("\t".join(COUNT_COLUMNS))

    def work(path: Path) -> None:
        found = counts(mask_of(masked_product(path)))
        if as_json:
            bits = {
                one.name: {"bit": one.bit, "pixels": one.pixels, "fraction": one.fraction} for one in found
            }
            options.print_line(json.dumps({"path": str(path), "bits": bits}))
            return
        for one in found:
            options.print_line(f"{path}\t{one.bit}\t{one.name}\t{one.pixels}\t{one.fraction:.6g}")

    return work


def _pixel_teller(pixels: list[tuple[int, int]], as_json: bool) -> Any:
    from ..core.maskreport import masked_product, report_at
    from ..core.tracing.lookup import Lookup
    from ..core.workspace import here

    workspace = here()
    if not as_json:
        options.print_line("\t".join(AT_COLUMNS))

    def work(path: Path) -> None:
        product = masked_product(path)
        with Lookup(workspace.stores) as lookup:
            for x, y in pixels:
                report = report_at(product, x, y, lookup, workspace)
                if as_json:
                    options.print_line(json.dumps({"path": str(path), **_as_object(report)}))
                else:
                    _print_pixel(path, report)

    return work


def _as_object(report: Any) -> dict[str, Any]:
    return {
        "x": report.x,
        "y": report.y,
        "mask": report.mask,
        "value": report.value,
        "weight": report.weight,
        "bits": [
            {
                "bit": bit.bit,
                "name": bit.name,
                "from": [
                    {"kind": one.kind, "path": one.path, "via": list(one.via), "detail": one.detail}
                    for one in bit.origins
                ],
            }
            for bit in report.bits
        ],
    }


def _print_pixel(path: Path, report: Any) -> None:
    begin = [str(path), str(report.x), str(report.y), _number(report.value), _number(report.weight)]
    if not report.bits:
        options.print_line("\t".join([*begin, "0", "good", "", "", ""]))
    for bit in report.bits:
        for one in bit.origins:
            options.print_line(
                "\t".join([*begin, str(bit.bit), bit.name, one.kind, one.path, one.detail or "-"])
            )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.7g}"


def _plane_writer(listed: list[str], given: dict[str, Any], null: bool) -> Any:
    from ..core.copies import write_copy
    from ..core.fits import Plane
    from ..core.masknames import union_of
    from ..core.maskreport import mask_of, masked_product, plane

    chosen = list(dict.fromkeys(part.strip() for text in given["planes"] for part in text.split(",")))
    union_of(chosen, "--plane")
    if bool(given["output"]) == bool(given["out_dir"]):
        raise UsageError("--plane needs -o or --out-dir", hint=f"-o {chosen[0]}.fits")
    if given["output"] and len(listed) > 1:
        raise UsageError(f"-o names one image, but there are {len(listed)} inputs", hint="--out-dir DIR")

    def work(path: Path) -> None:
        product = masked_product(path)
        target = given["output"] or given["out_dir"] / f"{path.stem}_{'_'.join(chosen)}.fits"
        cards = [
            ("AWEKEY", product.key, ""),
            ("HISTORY", f"mask bits {' '.join(chosen)} of {path.name}", ""),
            *((key, value, "") for key, value in (product.meta.get("wcs") or {}).items()),
        ]
        image = Plane("", plane(mask_of(product), chosen))
        write_copy(target, [image], cards, "awe-mask", given["force"])
        options.print_line(str(target), null)

    return work


def main() -> None:
    """Run the program."""
    launch(command)
