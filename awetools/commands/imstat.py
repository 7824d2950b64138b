"""`awe-imstat`: statistics of the pixels of raw frames and products."""

from __future__ import annotations

import json

import click

from ..core.errors import AweError, worst
from ..core.quality import IMSTAT
from . import options
from .messages import Messenger
from .runner import launch

COLUMNS = ("path", "plane", *IMSTAT)


@click.command(
    "imstat", short_help="Print statistics of the pixels of images.", context_settings=options.SETTINGS
)
@options.inputs()
@click.option("--region", metavar="[X1:X2,Y1:Y2]", help="Only this part, in FITS pixels.")
@click.option(
    "--plane", metavar="NAME", help="The plane of a product: SCI, WEIGHT, MASK. [default: the first]"
)
@click.option("--all-pixels", is_flag=True, help="Also the pixels whose weight is 0.")
@click.option("--overscan", is_flag=True, help="Subtract the overscan of raw frames first.")
@options.json_output
@options.common
@click.pass_obj
def command(
    messenger: Messenger,
    /,
    names: tuple[str, ...],
    null: bool,
    region: str | None,
    plane: str | None,
    all_pixels: bool,
    overscan: bool,
    as_json: bool,
) -> int:
    """Print one line of statistics for each image: of a raw frame its trimmed pixels, of a product the good ones.

    The clipped values leave out pixels further than 3 sigma from the median.
    TAB-separated with a header line, or --json.

    \b
    Example: awe-imstat reduced/*.fits --region [100:200,100:200]
    """
    from ..core.files import parse_address
    from ..core.images import load_images, region_of
    from ..core.pixels.stats import imstat
    from ..core.workspace import here

    workspace, codes = here(), []
    listed = options.read_names(names, null)
    if not as_json:
        options.print_line("\t".join(COLUMNS))
    for name in listed:
        try:
            for image in load_images(parse_address(name), workspace, plane, overscan):
                part = region_of(image, region)
                row = {
                    "path": part.name,
                    "plane": part.plane,
                    **imstat(part.data, None if all_pixels else part.good),
                }
                options.print_line(_line(row, as_json))
            codes.append(0)
        except AweError as error:
            messenger.error(error, name)
            codes.append(error.exit_code)
    return worst(codes)


def _line(row: dict[str, object], as_json: bool) -> str:
    if as_json:
        return json.dumps({key: None if value != value else value for key, value in row.items()})
    return "\t".join(
        f"{row[name]:.7g}" if isinstance(row[name], float) else str(row[name]) for name in COLUMNS
    )


def main() -> None:
    """Run the program."""
    launch(command)
