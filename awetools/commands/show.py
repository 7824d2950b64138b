"""`awe-show`: sources, reference stars and matched pairs over an image, as a PNG."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import AweError, BadHeader, UsageError, worst
from . import options
from .messages import Messenger
from .preview import STRETCHES
from .runner import launch

if TYPE_CHECKING:
    from ..core.images import Image
    from ..core.products import ProductInput
    from ..core.show import Drawn, View
    from ..core.sky.wcs import Wcs
    from ..core.store import Store
    from ..core.workspace import Workspace

NONE = "none"
USUAL_BOX_PX = 200
# A small part of an image is made larger by a whole factor, this at most.
MOST_LARGER = 16


@click.command(
    "show", short_help="Draw sources and reference stars over an image.", context_settings=options.SETTINGS
)
@options.inputs()
@options.path_option("-o", "--output", help="Write the PNG here (one image).")
@options.path_option("--out-dir", metavar="DIR", help="Write the PNGs into this directory.")
@click.option(
    "--sources",
    metavar="FILE",
    help="The sources; none: not drawn. [default: the newest of the same exposure and detector]",
)
@click.option(
    "--astrom",
    metavar="FILE",
    help="The solution, whose stars are marked; none: not used. [default: as for --sources]",
)
@click.option("--refcat", metavar="NAME", help="Mark the stars of this reference catalogue, at the epoch.")
@click.option("--at", metavar="X,Y", help="Only the part about this pixel (FITS pixels, from 1,1).")
@click.option(
    "--at-sky", metavar="RA,DEC", help="The same about this place, in degrees or as 13:29:52.7,+47:11:43."
)
@click.option(
    "--box",
    type=click.IntRange(8, 100_000),
    default=USUAL_BOX_PX,
    show_default=True,
    metavar="N",
    help="With --at and --at-sky: N x N pixels.",
)
@click.option("--label", is_flag=True, help="Write the numbers of sources and the magnitudes of stars.")
@click.option(
    "--stretch",
    type=click.Choice(STRETCHES),
    default="asinh",
    show_default=True,
    help="How brightness grows with the pixel value.",
)
@click.option("--low", type=float, help="Value that is black. [default: from the pixels]")
@click.option("--high", type=float, help="Value that is white. [default: from the pixels]")
@click.option(
    "--size",
    type=click.IntRange(64, 20000),
    default=1024,
    show_default=True,
    metavar="PX",
    help="Longest side of the PNG, about.",
)
@options.json_output
@options.common
@click.pass_obj
def command(messenger: Messenger, /, names: tuple[str, ...], null: bool, as_json: bool, **given: Any) -> int:
    """Draw what was found over each image, the first row at the bottom; prints the PNGs' paths.

    Sources are the ellipses of their Kron apertures: green, red if saturated, blue
    if cut by the edge or masked pixels, yellow if crowded or blended, orange for
    other flags. Reference stars are light blue crosses. The stars of a solution have
    white squares, magenta where they were clipped, and a line to where the catalogue
    has them. Where the image has coordinates there is a compass and a bar of length.

    \b
    Examples:
      awe-show reduced.fits -o look.png
      awe-show --refcat gaia --at 812,1033 --box 100 --label reduced.fits -o star.png
    """
    from ..core.files import parse_address
    from ..core.workspace import here

    listed = options.read_names(names, null)
    _check(listed, given)
    workspace, codes = here(), []
    for name in listed:
        try:
            for path, image, drawn in _pictures(parse_address(name), workspace, given):
                _say(messenger, path, image, drawn, null, as_json)
            codes.append(0)
        except AweError as error:
            messenger.error(error, name)
            codes.append(error.exit_code)
    return worst(codes)


def _check(listed: Sequence[str], given: dict[str, Any]) -> None:
    if bool(given["output"]) == bool(given["out_dir"]):
        raise UsageError("say where the picture goes", hint="-o FILE.png, or --out-dir DIR")
    if given["output"] and len(listed) > 1:
        raise UsageError(f"-o names one PNG, but there are {len(listed)} inputs", hint="--out-dir DIR")
    if given["output"] and given["output"].suffix.lower() != ".png":
        raise UsageError(f"-o {given['output']}: the picture is a PNG, so its name must end in .png")
    if given["at"] and given["at_sky"]:
        raise UsageError("--at and --at-sky both say where")
    for name in ("sources", "astrom"):
        if given[name] not in (None, NONE) and len(listed) > 1:
            raise UsageError(f"--{name} names one file, but there are {len(listed)} images")


def _pictures(
    address: Any, workspace: Workspace, given: dict[str, Any]
) -> Iterator[tuple[Path, Image, Drawn]]:
    from ..core.batch import open_sources
    from ..core.images import load_images
    from .preview import check_target, write_picture

    if given["output"] and len(open_sources(address, workspace)) > 1:
        raise UsageError(
            f"{address}: has several detectors, and -o names one PNG", hint=f"'{address.path}[DETECTOR]'"
        )
    for image in load_images(address, workspace, None, overscan=True):
        path = given["output"] or Path(given["out_dir"]) / _file_name(image)
        check_target(path)
        content, drawn = _drawn(image, workspace, given)
        write_picture(path, content)
        yield path, image, drawn


def _file_name(image: Image) -> str:
    stem = Path(image.name.replace("[", "_").replace("]", "")).name
    for ending in (".gz", ".fz", ".fits", ".fit", ".fts"):
        stem = stem.removesuffix(ending)
    return f"{stem}.png"


def _drawn(image: Image, workspace: Workspace, given: dict[str, Any]) -> tuple[bytes, Drawn]:
    """The PNG of an image with all its layers, and what was drawn."""
    from ..core import show
    from ..core.png import encode_png

    assert image.source is not None
    drawn = show.Drawn()
    sources = _belonging(image, "sources", workspace, given, drawn)
    astrom = _belonging(image, "astrom", workspace, given, drawn)
    wcs = _coordinates(image, astrom, drawn)
    picture, view = _background(image, wcs, given)
    if sources is not None:
        columns = show.table_of(sources, ("X_PX", "Y_PX"), "positions in pixels")
        shown = show.draw_sources(picture, view, columns, show.parameters_of(sources), given["label"])
        drawn.counts["sources"] = shown
        if given["label"] and shown > show.MOST_LABELS:
            drawn.notes.append(
                f"{show.MOST_LABELS} of {shown} sources have labels: --at and --box show fewer"
            )
    if astrom is not None:
        columns = show.table_of(astrom, ("X_PX", "Y_PX", "RA_REF_DEG", "DEC_REF_DEG"), "matched stars")
        drawn.counts["matched"] = show.draw_pairs(picture, view, columns, wcs)
    if given["refcat"]:
        _reference(picture, view, image, wcs, workspace, given, drawn)
    if wcs is not None:
        show.draw_compass(picture, view, wcs)
    return encode_png(picture), drawn


def _coordinates(image: Image, astrom: ProductInput | None, drawn: Drawn) -> Wcs | None:
    """The coordinate system of the solution, else the image's own; a broken one is told, and not used."""
    from ..core.show import wcs_of

    for product in (astrom, image.source):
        if product is None:
            continue
        try:
            wcs = wcs_of(product.meta, str(product.address))
        except BadHeader as error:
            drawn.notes.append(error.message)
            continue
        if wcs is not None:
            return wcs
    return None


def _belonging(
    image: Image, kind: str, workspace: Workspace, given: dict[str, Any], drawn: Drawn
) -> ProductInput | None:
    """The sources or the solution to draw: the named one, else the newest there is."""
    from ..core.relatives import product_named
    from ..core.show import newest_of

    if given[kind] == NONE:
        return None
    assert image.source is not None
    if given[kind] is not None:
        found: ProductInput | None = product_named(given[kind], workspace)
    else:
        found = newest_of(image.source, kind, _stores(image, workspace))
    if found is not None:
        drawn.files[kind] = str(found.path)
    return found


def _stores(image: Image, workspace: Workspace) -> list[Store]:
    """The stores that are read, and that in which the image lies."""
    from ..core.store import store_of

    assert image.source is not None
    own = store_of(image.source.address.path)
    return list(dict.fromkeys([*workspace.stores, *([own] if own else [])]))


def _background(image: Image, wcs: Wcs | None, given: dict[str, Any]) -> tuple[Any, View]:
    """The image, or the part about a place, as a picture that can be drawn on, and where its pixels lie."""
    import numpy as np

    from ..core.canvas import coloured
    from ..core.images import region_of
    from ..core.sections import parse_section
    from ..core.show import View, cut_at
    from .preview import grey

    ny, nx = image.data.shape
    x0, y0, place = 0, 0, _place(image, wcs, given)
    if place is not None:
        section = cut_at(*place, given["box"], (nx, ny))
        part = parse_section(section, (nx, ny))
        x0, y0, image = part.x0, part.y0, region_of(image, section)
    longest = max(image.data.shape)
    factor = -(-longest // given["size"])
    larger = min(MOST_LARGER, max(1, given["size"] // longest))
    pixels = grey(image, given, factor)[::-1]
    picture = np.ascontiguousarray(coloured(pixels.repeat(larger, axis=0).repeat(larger, axis=1)))
    # Blocks at the upper edge may reach beyond the image.
    return picture, View(x0, y0, len(pixels) * factor, larger / factor)


def _place(image: Image, wcs: Wcs | None, given: dict[str, Any]) -> tuple[float, float] | None:
    """The FITS pixel that --at or --at-sky names; None for the whole image."""
    from ..core.pixelstory.sky import sky_of

    if given["at"]:
        try:
            x, y = (float(one) for one in given["at"].split(","))
        except ValueError:
            raise UsageError(f"--at {given['at']}: not X,Y in pixels", hint="--at-sky RA,DEC") from None
        return x, y
    if not given["at_sky"]:
        return None
    if wcs is None:
        raise BadHeader(f"{image.name}: it has no coordinate system (WCS)", hint="--at X,Y")
    px, py = (float(one) for one in wcs.to_pixel(*sky_of(given["at_sky"])))
    ny, nx = image.data.shape
    if not (0.5 <= px < nx + 0.5 and 0.5 <= py < ny + 0.5):
        raise UsageError(f"{image.name}: --at-sky {given['at_sky']} is not in the image")
    return px, py


def _reference(
    picture: Any,
    view: View,
    image: Image,
    wcs: Wcs | None,
    workspace: Workspace,
    given: dict[str, Any],
    drawn: Drawn,
) -> None:
    from ..core.catalogues.refstore import opened, shelves_of
    from ..core.show import draw_reference
    from ..core.sky.local import epoch_of
    from ..core.sky.refcat import open_catalogue

    if wcs is None:
        raise BadHeader(
            f"{image.name}: it has no coordinate system (WCS), so no reference star has a place in it",
            hint="--astrom FILE; awe-astrom makes one",
        )
    assert image.source is not None
    name = given["refcat"]
    catalogue = open_catalogue(name) if "/" in name else opened(name, shelves_of(workspace.stores))
    drawn.files["refcat"] = str(catalogue.path)
    ny, nx = image.data.shape
    epoch_yr = epoch_of(image.source.meta)
    draw_reference(picture, view, catalogue, wcs, (nx, ny), epoch_yr, given["label"], drawn)


def _say(messenger: Messenger, path: Path, image: Image, drawn: Drawn, null: bool, as_json: bool) -> None:
    for role, name in drawn.files.items():
        role_counts = {"astrom": "matched", "refcat": "reference"}
        messenger.note(f"{image.name}: {drawn.counts.get(role_counts.get(role, role), 0)} of {role} {name}")
    for note in drawn.notes:
        messenger.note(f"{image.name}: {note}")
    if not drawn.files:
        messenger.note(f"{image.name}: no sources and no solution of it were found: the image alone")
    if not as_json:
        options.print_line(str(path), null)
        return
    about = {"path": str(path), "image": image.name, "files": drawn.files, "counts": drawn.counts}
    options.print_line(json.dumps(about))


def main() -> None:
    """Run the program."""
    launch(command)
