"""`awe-cutout`: parts of images about positions on the sky."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import AweError, NoMatch, UsageError, worst
from . import options
from .messages import Messenger
from .preview import STRETCHES
from .runner import launch

if TYPE_CHECKING:
    import numpy as np

    from ..core.pictures.cutouts import Cut, Cuttable
    from ..core.pictures.positions import Positions
    from ..core.store import Store

USUAL_SIZE = "1"
# Positions that no file has: so many are named, with -v all.
NAMED = 20
# Cut-outs that one process writes before it takes others.
AT_ONCE = 256
ENDINGS = (".gz", ".fz", ".fits", ".fit", ".fts")

Work = tuple["Cuttable", "np.ndarray", "np.ndarray"]


@dataclass(frozen=True)
class _Done:
    """What became of positions, by number: the file of one and what is told of it, or why there is none."""

    positions: Sequence[int]
    path: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)
    error: AweError | None = None


@click.command(
    "cutout", short_help="Cut parts about positions out of images.", context_settings=options.SETTINGS
)
@options.inputs()
@click.option(
    "--at-sky",
    multiple=True,
    metavar="RA,DEC",
    help="The position, in degrees or as 13:29:52.7,+47:11:43; may be repeated.",
)
@click.option(
    "--positions",
    "table",
    metavar="TABLE",
    help="Positions from a table (FITS, VOTable, ECSV, CSV, text): columns ra, dec and, if there are, name, size.",
)
@click.option(
    "--size",
    metavar="SIZE",
    help=f"Side of the square: 2 (arcmin), 30arcsec, 0.1deg or 200px. [default: {USUAL_SIZE}]",
)
@options.path_option("-o", "--output", help="Write the one cut-out here.")
@options.path_option("--out-dir", metavar="DIR", help="Write each here, as IMAGE_NAME.fits.")
@click.option(
    "--pad", is_flag=True, help="Always the whole size: beyond the image 0, weight 0, mask outside."
)
@click.option("--png", is_flag=True, help="Pictures to look at instead of FITS.")
@click.option(
    "--stretch",
    type=click.Choice(STRETCHES),
    default="asinh",
    show_default=True,
    help="With --png: how brightness grows with the pixel value.",
)
@click.option("--low", type=float, help="With --png: value that is black. [default: from the pixels]")
@click.option("--high", type=float, help="With --png: value that is white. [default: from the pixels]")
@click.option("--force", is_flag=True, help="Replace a file that awetools did not write, or that was edited.")
@options.processes
@options.json_output
@options.common
@click.pass_obj
def command(
    messenger: Messenger, /, names: tuple[str, ...], null: bool, jobs: int, as_json: bool, **given: Any
) -> int:
    """Cut the part about each position out of each image that has it; prints the paths.

    Whole pixels as they are, all planes, with the coordinates moved; nothing is
    resampled. A cut-out ends at the edge of the image, unless --pad. Of a reduced
    frame the coordinates are those of its newest solution (awe-astrom). Positions
    that no image has are named; if there is none that one has, the exit status is 5.

    A cut-out is a copy for eyes and other programs, no product: it has no record,
    but AWEKEY names the product that it is of, and AWECUT the pixels.

    \b
    Examples:
      awe-cutout coadd.fits --at-sky 202.4696,47.1952 --size 5 -o m51.fits
      awe-query coadd filter=R | awe-cutout --positions galaxies.csv --size 30arcsec --out-dir stamps
    """
    from ..core.workspace import here

    listed = options.read_names(names, null)
    _check(given)
    positions, stores = _positions(given), here().stores
    _say_nowhere(given["table"], positions, messenger)
    codes, images = _opened(listed, stores, messenger)
    work = _work(images, positions, given, jobs)
    _refuse_same_names(work, positions, given)
    found: set[int] = set()
    for done in _results(work, positions, given, jobs, messenger):
        found.update(done.positions)
        if done.error is not None:
            messenger.error(done.error)
            codes.append(done.error.exit_code)
            continue
        options.print_line(json.dumps({"path": done.path, **done.about}) if as_json else done.path, null)
    _say_missing(images, positions, found, messenger, bool(codes))
    return worst(codes)


def _check(given: dict[str, Any]) -> None:
    if bool(given["at_sky"]) == bool(given["table"]):
        raise UsageError("say where: --at-sky, or --positions TABLE", hint="--at-sky 202.4696,47.1952")
    if bool(given["output"]) == bool(given["out_dir"]):
        raise UsageError("say where the cut-outs go", hint="-o FILE, or --out-dir DIR")
    if given["png"] and given["output"] and given["output"].suffix.lower() != ".png":
        raise UsageError(f"-o {given['output']}: the picture is a PNG, so its name must end in .png")


def _positions(given: dict[str, Any]) -> Positions:
    from ..core.pictures.positions import read_positions, size_of, typed
    from ..core.pixelstory.sky import sky_of

    if given["table"]:
        return read_positions(given["table"], size_of(given["size"]) if given["size"] else None)
    return typed([sky_of(one) for one in given["at_sky"]], size_of(given["size"] or USUAL_SIZE))


def _opened(
    listed: Sequence[str], stores: Sequence[Store], messenger: Messenger
) -> tuple[list[int], list[Cuttable]]:
    from ..core.pictures.cutouts import open_cuttable

    codes, images = [], []
    for path in dict.fromkeys(Path(name) for name in listed):
        try:
            images.append(open_cuttable(path, stores))
        except AweError as error:
            messenger.error(error, str(path))
            codes.append(error.exit_code)
    return codes, images


def _work(images: Sequence[Cuttable], positions: Positions, given: dict[str, Any], jobs: int) -> list[Work]:
    """Images with the positions that each has: all of one image at once, unless several processes share it."""
    from ..core.pictures.cutouts import boxes_on

    work: list[Work] = []
    for image in images:
        which, boxes = boxes_on(image, positions)
        step = AT_ONCE if jobs > 1 else max(1, len(which))
        work += [(image, which[at : at + step], boxes[at : at + step]) for at in range(0, len(which), step)]
    if given["output"] and sum(len(which) for _, which, _ in work) > 1:
        raise UsageError("-o names one cut-out, but there are more", hint="--out-dir DIR")
    return work


def _target(image: Cuttable, name: str, given: dict[str, Any]) -> Path:
    if given["output"]:
        return Path(given["output"])
    stem = image.path.name
    for ending in ENDINGS:
        stem = stem.removesuffix(ending)
    return Path(given["out_dir"]) / f"{stem}_{name}.{'png' if given['png'] else 'fits'}"


def _refuse_same_names(work: Sequence[Work], positions: Positions, given: dict[str, Any]) -> None:
    taken: dict[Path, Path] = {}
    for image, which, _ in work:
        for position in which.tolist():
            target = _target(image, positions.names[position], given)
            other = taken.setdefault(target, image.path)
            if other != image.path:
                raise UsageError(
                    f"{other} and {image.path} would both become {target}", hint="one --out-dir for each"
                )


def _results(
    work: Sequence[Work], positions: Positions, given: dict[str, Any], jobs: int, messenger: Messenger
) -> Iterator[_Done]:
    """What was written, as it is written; in one process nothing waits for the rest of an image."""
    from ..core.parallel import run_forked
    from .progress import progress

    with progress(sum(len(which) for _, which, _ in work), "awe-cutout", messenger) as step:
        if jobs == 1:
            for one in work:
                for result in _cut_all(one, positions, given):
                    step()
                    yield result
            return
        pieces = run_forked(lambda number: list(_cut_all(work[number], positions, given)), len(work), jobs)
        for number, piece in enumerate(pieces):
            if isinstance(piece, AweError):
                yield _Done(work[number][1].tolist(), error=piece)
            elif isinstance(piece, Exception):
                raise piece
            else:
                for _ in work[number][1]:
                    step()
                yield from piece


def _cut_all(work: Work, positions: Positions, given: dict[str, Any]) -> Iterator[_Done]:
    from ..core.pictures.cutouts import cuts

    image, which, boxes = work
    try:
        for cut in cuts(image, which, boxes, given["pad"]):
            name = positions.names[cut.position]
            target = _target(image, name, given)
            try:
                _write(image, cut, target, name, given)
            except AweError as error:
                yield _Done([cut.position], error=error)
                continue
            about = {
                "of": str(image.path),
                "name": name,
                "ra_deg": float(positions.ra_deg[cut.position]),
                "dec_deg": float(positions.dec_deg[cut.position]),
                "section": cut.section,
            }
            yield _Done([cut.position], str(target), about)
    except AweError as error:
        yield _Done(which.tolist(), error=error)


def _write(image: Cuttable, cut: Cut, target: Path, name: str, given: dict[str, Any]) -> None:
    from ..core.pictures.cutouts import write_cut

    if not given["png"]:
        write_cut(image, cut, target, name, given["force"])
        return
    from ..core.images import Image
    from ..core.png import encode_png
    from .preview import check_target, grey, write_picture

    check_target(target)
    plane, data = next(iter(cut.planes.items()))
    weight = cut.planes.get("WEIGHT")
    good = None if weight is None else weight > 0
    part = Image(f"{image.path}{cut.section}", plane, data, good, cut.planes.get("MASK"), image.product)
    write_picture(target, encode_png(grey(part, given, 1)[::-1]))


def _say_nowhere(table: str, positions: Positions, messenger: Messenger) -> None:
    lost = positions.nowhere
    if lost:
        listed = ", ".join(lost if messenger.verbose else lost[:NAMED])
        more = f" and {len(lost) - NAMED} more" * (len(lost) > NAMED and not messenger.verbose)
        messenger.warning(f"{table}: no position on the sky, or no size a cut-out can have: {listed}{more}")


def _say_missing(
    images: Sequence[Cuttable], positions: Positions, found: set[int], messenger: Messenger, failed: bool
) -> None:
    """Name the positions of which nothing was cut. Raises NoMatch if that is all of them, and nothing failed."""
    missing = [name for place, name in enumerate(positions.names) if place not in found]
    if not missing or not images:
        return
    shown = missing if messenger.verbose else missing[:NAMED]
    listed = ", ".join(shown) + (f" and {len(missing) - len(shown)} more" * (len(shown) < len(missing)))
    where = f"the {len(images)} images" if len(images) > 1 else str(images[0].path)
    text = f"outside of {where}, or without a good pixel there: {listed}"
    if not found and not failed:
        raise NoMatch(text, hint="awe-query coadd 'cone(RA, DEC, DEG)' finds images about a place")
    messenger.warning(text)


def main() -> None:
    """Run the program."""
    launch(command)
