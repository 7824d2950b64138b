"""What lies at and around one pixel of a file: of a product its planes or its table, of a raw frame the counts.

Only the rows around the pixel are read, and of a raw frame the overscan of the
pixel's amplifier besides, for its level needs all rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import AweError, NoImage, NoSuchFile, UsageError
from ..files import parse_address
from ..fits import open_fits
from ..foreignfiles import unit_and_plane
from ..frame import raw_frame
from ..kinds.common import trim
from ..raws import RawInput, open_raw
from ..sections import Amplifier, Section, detector_shape
from ..workspace import Workspace
from .places import RawPlace, amplifiers_of_raw, raw_place

if TYPE_CHECKING:
    from ..fits import FitsFile, Hdu

Plane = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Window:
    """The planes of an image around a pixel.

    x0, y0: column and row (from 0) of the first pixel. shape: (ny, nx) of the whole
    image. planes: name to array, all of one shape; first: the name of the one that is the
    image. at: column and row of the pixel in the planes.
    """

    x0: int
    y0: int
    shape: tuple[int, int]
    planes: Mapping[str, Plane]
    first: str
    unit: str
    at: tuple[int, int]

    def value(self, name: str | None = None) -> Any:
        """The pixel in a plane, by default the image; None if there is no such plane."""
        plane = self.planes.get(self.first if name is None else name)
        return None if plane is None else plane[self.at[1], self.at[0]]


@dataclass(frozen=True, eq=False)
class RawWindow:
    """The counts of a raw frame around a pixel, in the trimmed, assembled detector.

    window: plane RAW (the file's own numbers) and NET (less the overscan, float32 ADU; nan
    beside the pixel's amplifier). overscan_adu: the level of the pixel's row, None
    where it could not be measured, for the reason in `problem`.
    """

    window: Window
    place: RawPlace
    box: Section
    overscan_adu: np.float32 | None
    problem: str = ""


def read_product(path: Path, x: int, y: int, radius: int) -> Window | dict[str, list[Any]]:
    """The planes of a product around a pixel (FITS pixels), or the columns of one that is a table.

    Raises UsageError for a pixel outside.
    """
    with open_fits(path) as fits:
        images = {hdu.name or "SCI": hdu for hdu in fits.hdus if hdu.is_image}
        if images:
            return _window(fits, images, x, y, radius)
        table = next(hdu.index for hdu in fits.hdus if hdu.is_table)
        return {name: column.tolist() for name, column in fits.table(table).items()}


def read_foreign(address: str, content: str, x: int, y: int, radius: int) -> Window:
    """The image of another pipeline at an address around a pixel.

    Of several that may be meant the one of this content is taken, for which they are read whole. Raises
    NoImage where there is none.
    """
    named = parse_address(address)
    unit, number = unit_and_plane(named.detector or "")
    with open_fits(named.path) as fits:
        images = [hdu for hdu in fits.hdus if hdu.is_image]
        if unit:
            images = [hdu for hdu in images if unit in (hdu.name, str(hdu.index))]
        if len(images) > 1:
            images = [hdu for hdu in images if fits.content([hdu.index]) == content]
        if not images:
            raise NoImage(f"{address}: no such image is there")
        if len(images[0].shape) == 3:
            return _window_of_plane(fits, images[0], number or 0, x, y, radius)
        return _window(fits, {"SCI": images[0]}, x, y, radius)


def _window_of_plane(fits: FitsFile, cube: Hdu, number: int, x: int, y: int, radius: int) -> Window:
    """One plane (0-based) of a cube around a pixel."""
    shape = (cube.shape[1], cube.shape[2])
    x0, x1, y0, y1 = _around(str(fits.path), shape, x, y, radius)
    pixels = fits.plane(cube.index, number, y0, y1)[:, x0:x1]
    unit = str(cube.header.get("BUNIT") or "")
    return Window(x0, y0, shape, {"SCI": pixels}, "SCI", unit, (x - 1 - x0, y - 1 - y0))


def _window(fits: FitsFile, images: Mapping[str, Hdu], x: int, y: int, radius: int) -> Window:
    """The first of the images around a pixel, with those of its shape."""
    first = next(iter(images))
    ny, nx = images[first].shape
    x0, x1, y0, y1 = _around(str(fits.path), (ny, nx), x, y, radius)
    planes = {
        name: fits.rows(hdu.index, y0, y1, x0, x1) for name, hdu in images.items() if hdu.shape == (ny, nx)
    }
    unit = str(images[first].header.get("BUNIT") or "")
    return Window(x0, y0, (ny, nx), planes, first, unit, (x - 1 - x0, y - 1 - y0))


def read_raw(
    address: str,
    content: str,
    meta: Mapping[str, Any],
    mode: str,
    workspace: Workspace,
    x: int,
    y: int,
    radius: int,
) -> RawWindow:
    """The counts of a raw detector around a pixel of it, trimmed (FITS pixels).

    content: that of the frame that is meant. meta: as the product used it. mode: how its overscan was measured. Raises
    NoSuchFile where another frame lies there, UsageError for a pixel outside, and what opening raises.
    """
    raw = _frame_with(address, content, workspace)
    amplifiers = amplifiers_of_raw(meta, raw.meta)
    shape = detector_shape(amplifiers)
    x0, x1, y0, y1 = _around(address, shape, x, y, radius)
    place = raw_place(amplifiers, x, y)
    assert place is not None
    amp = amplifiers[place.number]
    with raw.open() as fits:
        counts = raw_frame(meta, amplifiers, fits.rows).rows(y0, y1)[:, x0:x1]
        levels, problem = _levels(fits, amp, meta, mode)
    net = np.full(counts.shape, np.nan, np.float32)
    if levels is not None:
        ys = slice(max(y0, amp.target.y0), min(y1, amp.target.y1))
        xs = slice(max(x0, amp.target.x0), min(x1, amp.target.x1))
        part = (slice(ys.start - y0, ys.stop - y0), slice(xs.start - x0, xs.stop - x0))
        with np.errstate(over="ignore"):
            net[part] = counts[part].astype(np.float32)
        net[part] -= levels[ys.start - amp.target.y0 : ys.stop - amp.target.y0, None]
    planes = {"RAW": counts, "NET": net}
    window = Window(x0, y0, shape, planes, "RAW", "adu", (x - 1 - x0, y - 1 - y0))
    level = None if levels is None else levels[y - 1 - amp.target.y0]
    return RawWindow(window, place, amp.target, level, problem)


def _levels(
    fits: FitsFile, amp: Amplifier, meta: Mapping[str, Any], mode: str
) -> tuple[npt.NDArray[np.float32] | None, str]:
    """The overscan of each row of an amplifier as recipes subtract it, ADU; else why it is not known."""
    frame = raw_frame(meta, (amp,), fits.rows)
    try:
        return trim(replace(frame, shape=(amp.target.y1, amp.target.x1)), mode).levels[0], ""
    except AweError as error:
        return None, error.message


def _frame_with(address: str, content: str, workspace: Workspace) -> RawInput:
    found = open_raw(parse_address(address), workspace)
    wanted = next((one for one in found if one.content == content), None)
    for one in found:
        if one.fits is not None and (wanted is None or one.fits is not wanted.fits):
            one.fits.close()
    if wanted is None:
        raise NoSuchFile(f"{address}: another frame lies there now")
    return wanted


def _around(path: str, shape: Sequence[int], x: int, y: int, radius: int) -> tuple[int, int, int, int]:
    """First and last (half open) column and row, from 0, of what is within the radius of a pixel."""
    ny, nx = shape
    if not (1 <= x <= nx and 1 <= y <= ny):
        raise no_pixel(path, shape, x, y)
    return max(0, x - 1 - radius), min(nx, x + radius), max(0, y - 1 - radius), min(ny, y + radius)


def no_pixel(path: str, shape: Sequence[int], x: int, y: int) -> UsageError:
    """What is to be said of a pixel that an image of this shape (ny, nx) does not have."""
    return UsageError(f"{path}: it has no pixel {x},{y}: {shape[1]} x {shape[0]} pixels, from 1,1")
