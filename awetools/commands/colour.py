"""`awe-colour`: three images on one grid as a colour picture."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import UsageError
from . import options
from .messages import Messenger
from .runner import launch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..core.pictures.colours import Wish
    from ..core.pictures.sheet import Box, Sheet
    from ..core.pixels.colour import Mix

ZERO_POINTS, NOISE, SOURCES = "zeropoints", "noise", "sources"


@click.command(
    "colour", short_help="Make a colour picture of three images.", context_settings=options.SETTINGS
)
@options.inputs("RED GREEN BLUE")
@options.path_option("-o", "--output", help="Write the PNG here.")
@options.path_option("--tiles", metavar="DIR", help="Write tiles for zoom and a page here: DIR/index.html.")
@click.option(
    "--scale",
    default=ZERO_POINTS,
    show_default=True,
    metavar="R,G,B",
    help="Factors of the three; zeropoints: to one zero point; noise: to equal noise; sources: such that the "
    "typical source is grey.",
)
@click.option(
    "--background",
    metavar="R,G,B",
    help="Levels to subtract, in the unit of each image. [default: from the darker pixels]",
)
@click.option(
    "--stretch",
    type=options.Finite(min=0, min_open=True),
    metavar="FLUX",
    help="Up to about FLUX / q brightness is linear, in the unit of GREEN. [default: from the noise]",
)
@click.option(
    "--q",
    type=options.Finite(min=0.01, max=50),
    default=8.0,
    show_default=True,
    help="How much bright things are compressed.",
)
@click.option(
    "--size",
    type=click.IntRange(16, 100_000),
    default=2048,
    show_default=True,
    metavar="PX",
    help="With -o: longest side of the PNG; the images are shrunk by a whole factor.",
)
@click.option(
    "--at-sky",
    metavar="RA,DEC",
    help="Only the part about this place, in degrees or as 13:29:52.7,+47:11:43.",
)
@click.option(
    "--box",
    type=click.IntRange(8, 1_000_000),
    default=1000,
    show_default=True,
    metavar="N",
    help="With --at-sky: N x N pixels.",
)
@click.option("--region", metavar="[X1:X2,Y1:Y2]", help="Only this part, in FITS pixels.")
@options.json_output
@options.common
@click.pass_obj
def command(messenger: Messenger, /, names: tuple[str, ...], null: bool, as_json: bool, **given: Any) -> int:
    """Make a colour picture of three images on one grid, red first; prints its path.

    Brightness is compressed by an inverse hyperbolic sine and the ratio of the three
    is kept (Lupton and others 2004), so that bright stars and the cores of galaxies
    have a colour, too. An object of equal magnitudes in all three is grey; of images
    without a zero point, and with --scale sources, the typical source is. What is
    saturated is white, what no image knows black; narrow gaps are closed. With -v the numbers are said, to give them
    again for another field. Images on other grids are refused (5): awe-make coadd of all
    filters in one go makes them on one, and so does one --grid. Cut-outs and other FITS images are taken as well.

    \b
    Examples:
      awe-colour I.fits R.fits V.fits -o m51.png
      awe-colour I.fits R.fits V.fits --at-sky 202.4696,47.1952 --box 600 --q 12 -o core.png
      awe-colour I.fits R.fits V.fits --tiles m51
    """
    from ..core.pictures.colours import check_one_grid, mix_of
    from ..core.pictures.sheet import open_sheet
    from ..core.workspace import here

    listed = options.read_names(names, null)
    wish = _check(listed, given)
    stores = here().stores
    with contextlib.ExitStack() as closing:
        sheets: list[Sheet] = []
        for name in listed:
            sheets.append(open_sheet(Path(name), stores))
            closing.callback(sheets[-1].close)
        check_one_grid(sheets)
        box = _box(sheets[0], given)
        factor = 1 if given["tiles"] else -(-max(box[2] - box[0], box[3] - box[1]) // given["size"])
        mix, said = mix_of(sheets, box, factor, wish)
        path = _write(sheets, box, factor, mix, given)
    messenger.detail(_numbers(mix, said))
    if wish.scale == ZERO_POINTS and said != "by zero points":
        messenger.note(f"colours {said}")
    about = {
        "path": str(path),
        "of": listed,
        "scale": mix.scale,
        "background": mix.background,
        "stretch": mix.stretch,
        "q": mix.q,
        "scaled": said,
    }
    options.print_line(json.dumps(about) if as_json else str(path), null)
    return 0


def _check(listed: Sequence[str], given: dict[str, Any]) -> Wish:
    from ..core.pictures.colours import Wish

    if len(listed) != 3:
        raise UsageError(
            f"a colour picture is made of three images, red, green and blue: there are {len(listed)}",
            hint="awe-colour I.fits R.fits V.fits -o picture.png",
        )
    if bool(given["output"]) == bool(given["tiles"]):
        raise UsageError("say where the picture goes", hint="-o FILE.png, or --tiles DIR")
    if given["output"] and given["output"].suffix.lower() != ".png":
        raise UsageError(f"-o {given['output']}: the picture is a PNG, so its name must end in .png")
    if given["at_sky"] and given["region"]:
        raise UsageError("--at-sky and --region both say where")
    scale = given["scale"]
    return Wish(
        scale if scale in (ZERO_POINTS, NOISE, SOURCES) else _three("--scale", scale, 0),
        _three("--background", given["background"]) if given["background"] is not None else None,
        given["stretch"],
        given["q"],
    )


def _three(option: str, text: str, above: float = -math.inf) -> tuple[float, float, float]:
    try:
        red, green, blue = (float(one) for one in text.split(","))
    except ValueError:
        raise UsageError(f"{option} {text}: not three numbers R,G,B") from None
    if not all(math.isfinite(one) and one > above for one in (red, green, blue)):
        raise UsageError(f"{option} {text}: not three numbers{' above 0' if above == 0 else ''}")
    return red, green, blue


def _box(sheet: Sheet, given: dict[str, Any]) -> Box:
    from ..core.errors import BadHeader
    from ..core.pictures.sheet import box_of
    from ..core.pixelstory.sky import sky_of
    from ..core.show import cut_at

    if not given["at_sky"]:
        return box_of(sheet, given["region"])
    if sheet.wcs is None:
        raise BadHeader(f"{sheet.name}: it has no coordinate system (WCS)", hint="--region [X1:X2,Y1:Y2]")
    x, y = (float(one) for one in sheet.wcs.to_pixel(*sky_of(given["at_sky"])))
    if not math.isfinite(x + y):
        raise UsageError(f"{sheet.name}: --at-sky {given['at_sky']} is not in it")
    ny, nx = sheet.shape
    return box_of(sheet, cut_at(x, y, given["box"], (nx, ny)))


def _write(sheets: Sequence[Sheet], box: Box, factor: int, mix: Mix, given: dict[str, Any]) -> Path:
    from ..core.pictures.pyramid import TILE_PX
    from ..core.pictures.sheet import rows_of_picture, strips
    from ..core.pixels.colour import lupton

    if given["tiles"]:
        from .preview import write_tiles

        title = " ".join(Path(one.name).name for one in sheets)
        return write_tiles(
            given["tiles"],
            sheets[0],
            box,
            strips(sheets, box, 1, TILE_PX),
            lambda part: lupton(part, mix),
            title,
        )
    from ..core.png import png_pieces
    from .preview import check_target, write_large

    def painted() -> Iterator[Any]:
        for strip in strips(sheets, box, factor):
            yield lupton(strip, mix)

    path = Path(given["output"])
    check_target(path)
    shape = rows_of_picture(box, factor), -(-(box[2] - box[0]) // factor), 3
    write_large(path, png_pieces(shape, painted()))
    return path


def _numbers(mix: Mix, said: str) -> str:
    def three(values: Sequence[float]) -> str:
        return ",".join(f"{one:.5g}" for one in values)

    return (
        f"--scale {three(mix.scale)} ({said}) --background {three(mix.background)} "
        f"--stretch {mix.stretch:.5g} --q {mix.q:g}"
    )


def main() -> None:
    """Run the program."""
    launch(command)
