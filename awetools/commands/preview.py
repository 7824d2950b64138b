"""`awe-preview`: a PNG of any image, to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import AweError, UsageError, worst
from . import options
from .messages import Messenger
from .runner import launch

if TYPE_CHECKING:
    import numpy as np

    from ..core.pictures.sheet import Box, Sheet

STRETCHES = ("asinh", "linear", "sqrt", "log")

# How much of an asinh or log picture the sky and faint things get: up to where its bend is at this.
SHARE_OF_FAINT = 10.0

# Kinds of products that lie on a grid of the sky.
ON_GRIDS = ("regrid", "coadd", "difference")

# Planes of which 0 is black.
FROM_NOTHING = ("COUNT", "WEIGHT")

# Mask bits over the image: what a person wants to tell apart at a glance.
COLOURS = {
    4: (255, 64, 64),
    1: (255, 200, 0),
    2: (0, 160, 255),
    8: (0, 255, 128),
    16: (255, 0, 255),
    512: (96, 96, 160),
    32: (128, 64, 0),
}


@click.command("preview", short_help="Make a PNG of an image.", context_settings=options.SETTINGS)
@options.inputs()
@options.path_option("-o", "--output", help="Write the PNG here (one input).")
@options.path_option(
    "--out-dir", metavar="DIR", help="Write the PNGs into this directory. [default: beside each file]"
)
@options.path_option(
    "--tiles",
    metavar="DIR",
    help="Write tiles of the image (one) and a page for zoom here: DIR/index.html, for any browser.",
)
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
    type=click.IntRange(16, 20000),
    default=1024,
    show_default=True,
    metavar="PX",
    help="Longest side of the PNG; the image is shrunk by a whole factor. Tiles are never shrunk.",
)
@click.option("--region", metavar="[X1:X2,Y1:Y2]", help="Only this part, in FITS pixels.")
@click.option(
    "--plane", metavar="NAME", help="The plane of a product: SCI, WEIGHT, MASK. [default: the first]"
)
@click.option(
    "--mask",
    "show_mask",
    is_flag=True,
    help="Masked pixels in colour: red saturated, yellow hot, blue cold, green cosmic ray, violet trail, "
    "slate no calibration, brown outside.",
)
@options.common
@click.pass_obj
def command(messenger: Messenger, /, names: tuple[str, ...], null: bool, **given: Any) -> int:
    """Make a PNG of each image, the first row at the bottom; prints the PNGs' paths.

    Raw frames are trimmed and less their overscan, so that amplifiers stand at
    one level. Raw frames get no PNG beside them: give -o or --out-dir.

    With --tiles the image, of any size, becomes tiles of 256 pixels at every scale,
    and a page that shows them with zoom and pan; it needs no server and no
    network. Where the image has coordinates it tells RA and Dec under the pointer.

    \b
    Examples:
      awe-preview --mask reduced/d1120.fits -o m51.png
      awe-preview --tiles m51 coadd.fits
    """
    from ..core.files import parse_address
    from ..core.workspace import here

    listed = options.read_names(names, null)
    if given["output"] and len(listed) > 1:
        raise UsageError(f"-o names one PNG, but there are {len(listed)} inputs", hint="--out-dir DIR")
    if given["output"] and given["output"].suffix.lower() != ".png":
        raise UsageError(f"-o {given['output']}: the picture is a PNG, so its name must end in .png")
    workspace, codes = here(), []
    if given["tiles"]:
        _check_tiles(listed, given)
        options.print_line(str(_tiles(parse_address(listed[0]), workspace, given)), null)
        return 0
    for name in listed:
        try:
            for path in previews(parse_address(name), workspace, given):
                options.print_line(str(path), null)
            codes.append(0)
        except AweError as error:
            messenger.error(error, name)
            codes.append(error.exit_code)
    return worst(codes)


def previews(address: Any, workspace: Any, given: dict[str, Any]) -> Any:
    """Write the PNGs of the images at an address, by the options of the program; yields their paths."""
    from ..core.images import load_images, region_of

    for image in load_images(address, workspace, given["plane"], overscan=True):
        part = region_of(image, given["region"])
        path = _target(part, address, given)
        _write(path, part, given)
        yield path


def _check_tiles(listed: list[str], given: dict[str, Any]) -> None:
    if given["output"] or given["out_dir"]:
        raise UsageError("--tiles says where the picture goes, -o and --out-dir do, too")
    if given["show_mask"]:
        raise UsageError("--mask is not shown in tiles", hint="--plane MASK shows where masked pixels are")
    if len(listed) > 1:
        raise UsageError(
            f"--tiles names one directory, but there are {len(listed)} inputs", hint="one by one"
        )


def _tiles(address: Any, workspace: Any, given: dict[str, Any]) -> Path:
    """Write the tiles of the one image at an address; returns the path of the page."""
    from ..core.pictures.pyramid import TILE_PX
    from ..core.pictures.sheet import box_of, sample, strips
    from ..core.pixels.stretch import to_bytes

    sheet = _sheet(address, workspace, given)
    try:
        box = box_of(sheet, given["region"])
        low, faint, high = limits(sample(sheet, box, 1), given, plane=given["plane"])
        softening = _softening(low, faint, high)
        return write_tiles(
            given["tiles"],
            sheet,
            box,
            strips([sheet], box, 1, TILE_PX),
            lambda part: to_bytes(part, low, high, given["stretch"], softening),
            Path(sheet.name).name,
        )
    finally:
        sheet.close()


def _sheet(address: Any, workspace: Any, given: dict[str, Any]) -> Sheet:
    """The one image at an address: a product is read as it is needed, a raw frame as a whole."""
    from ..core.images import load_images
    from ..core.pictures.sheet import Sheet, open_sheet
    from ..core.products import is_product

    if is_product(address.path):
        return open_sheet(address.path, workspace.stores, given["plane"])
    images = list(load_images(address, workspace, given["plane"], overscan=True))
    if len(images) > 1:
        raise UsageError(
            f"{address}: has {len(images)} detectors, and --tiles names one directory",
            hint=f"'{address.path}[DETECTOR]'",
        )
    ny, nx = images[0].data.shape
    return Sheet(images[0].name, (ny, nx), values=images[0].data, good=images[0].good)


def write_tiles(
    folder: Path,
    sheet: Sheet,
    box: Box,
    values: Iterable[np.ndarray],
    paint: Callable[[np.ndarray], np.ndarray],
    title: str,
) -> Path:
    """Write the tiles and the page of a part of an image, from strips of values; returns the path of the page."""
    from ..core.pictures.pyramid import PAGE, write_pyramid
    from ..core.pictures.skymap import sky_map

    x0, y0, x1, y1 = box
    about = {"title": title, "x0": x0, "y0": y0}
    about |= {"sky": None if sheet.wcs is None else sky_map(sheet.wcs, box)}
    write_pyramid(folder, (y1 - y0, x1 - x0), values, paint, about)
    return folder / PAGE


def _target(image: Any, address: Any, given: dict[str, Any]) -> Path:
    if given["output"]:
        return Path(given["output"])
    stem = Path(image.name.replace("[", "_").replace("]", "")).name.removesuffix(".fits")
    suffix = "" if image.plane in ("SCI", "RAW") or not given["plane"] else f"_{image.plane.lower()}"
    if given["out_dir"]:
        return Path(given["out_dir"]) / f"{stem}{suffix}.png"
    if image.plane == "RAW":
        raise UsageError(f"{address}: nothing is written beside a raw frame", hint="-o FILE or --out-dir DIR")
    return Path(address.path).with_name(f"{stem}{suffix}.png")


def _write(path: Path, image: Any, given: dict[str, Any]) -> None:
    from ..core.png import encode_png

    check_target(path)
    factor = -(-max(image.data.shape) // given["size"])
    pixels = grey(image, given, factor)
    if given["show_mask"] and image.mask is not None:
        pixels = _coloured(pixels, image.mask, factor)
    write_picture(path, encode_png(pixels[::-1]))


def check_target(path: Path) -> None:
    """Raise WouldOverwrite where a picture must not be written: a directory, or what is no PNG."""
    from ..core.errors import WouldOverwrite
    from ..core.files import refuse_others
    from ..core.png import SIGNATURE

    if path.is_dir():
        raise WouldOverwrite(f"{path}: is a directory", hint=f"--out-dir {path}")
    # A raw frame, for example, that was given twice.
    refuse_others(path, (SIGNATURE,), "a PNG", "-o FILE.png")


def write_picture(path: Path, content: bytes) -> None:
    """Write a picture whole, and the directories above it. Raises Unavailable."""
    from ..core.errors import Unavailable
    from ..core.files import write_whole

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"{path.parent}: {error.strerror}") from None
    write_whole(path, content)


def write_large(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a picture, piece by piece, that appears whole or not at all. Raises Unavailable."""
    import os
    from contextlib import suppress

    from ..core.errors import Unavailable
    from ..core.files import make_directory

    make_directory(path.parent)
    part = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with part.open("wb") as stream:
            stream.writelines(pieces)
        part.replace(path)
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def grey(image: Any, given: dict[str, Any], factor: int) -> np.ndarray:
    """The grey levels of an image, shrunk by a factor; its first row first. Raises BadPixels, UsageError."""
    import numpy as np

    from ..core.errors import BadPixels
    from ..core.pixels.stretch import shrink, to_bytes

    good = image.good
    small = shrink(_shown(image), factor)
    if not np.isfinite(image.data if good is None else image.data[good]).any():
        raise BadPixels(
            f"{image.name}: no good pixel to show", hint="awe-imstat --all-pixels shows what there is"
        )
    low, faint, high = limits(image.data, given, good, image.plane)
    return to_bytes(small, low, high, given["stretch"], _softening(low, faint, high))


def _shown(image: Any) -> np.ndarray:
    """The values of an image, not a number where it has none; what lies on a grid has no defects either."""
    import numpy as np

    from ..core.pixels.gaps import close_gaps, unknown
    from ..core.pixels.mask import Bit

    if image.good is None or image.data.dtype.kind != "f":
        return np.asarray(image.data)
    on_a_grid = getattr(image.source, "kind", None) in ON_GRIDS
    lost = unknown(image.data, image.good, image.mask, as_made=not on_a_grid)
    if not lost.any():
        return np.asarray(image.data)
    shown = np.where(lost, np.float32(np.nan), image.data)
    if on_a_grid:
        close_gaps(shown, None if image.mask is None else image.mask & Bit.OUTSIDE == 0)
    return shown


def _softening(low: float, faint: float, high: float) -> float | None:
    return SHARE_OF_FAINT * (high - low) / (faint - low) if faint > low else None


def limits(
    data: np.ndarray, given: dict[str, Any], good: np.ndarray | None = None, plane: str | None = None
) -> tuple[float, float, float]:
    """Black, the end of the sky and faint things, and white. Raises UsageError for --low above --high.

    A linear picture ends with the faint things; the others go on to the brightest
    that is more than a few pixels, so that galaxies keep their cores. Planes that count
    what there is begin with nothing.
    """
    import numpy as np

    from ..core.pixels.stretch import zscale

    low, faint = zscale(data, use=good)
    values = data if good is None else data[good]
    brightest = float(np.percentile(values[np.isfinite(values)][:: 1 + values.size // 300_000], 99.9))
    if plane in FROM_NOTHING:
        low, faint = 0.0, max(faint, brightest)
    if low == faint:
        # An image of one value, or a mask, has no range of its own.
        faint = low + max(1.0, abs(low) if data.dtype.kind == "f" else 1.0)
    high = faint if given["stretch"] == "linear" else max(faint, brightest)
    low = low if given["low"] is None else given["low"]
    high = high if given["high"] is None else given["high"]
    if not high > low:
        raise UsageError(f"--low {low:g} is not below --high {high:g}")
    return low, faint, high


def _coloured(pixels: np.ndarray, mask: np.ndarray, factor: int) -> np.ndarray:
    import numpy as np

    out = np.repeat(pixels[..., None], 3, axis=2)
    ny, nx = pixels.shape
    part = mask[: ny * factor, : nx * factor]
    part = np.pad(part, ((0, ny * factor - part.shape[0]), (0, nx * factor - part.shape[1])))
    small = np.bitwise_or.reduce(np.bitwise_or.reduce(part.reshape(ny, factor, nx, factor), axis=3), axis=1)
    for bit, colour in COLOURS.items():
        out[(small & bit) > 0] = colour
    return out


def main() -> None:
    """Run the program."""
    launch(command)
