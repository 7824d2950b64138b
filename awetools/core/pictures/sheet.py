"""An image of any size, of which pictures are made: rows are read as they are needed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import BadHeader, BadPixels, NoImage, NoSuchExtension
from ..export import flux_cards
from ..fits import FitsFile, open_fits
from ..fitsheader import HeaderValue, wcs_cards
from ..pixels.gaps import HALO_PX, close_gaps, unknown
from ..pixels.mask import Bit
from ..pixels.stats import clipped
from ..pixels.stretch import shrink
from ..products import is_product, open_product
from ..sections import parse_section
from ..store import Store
from .coordinates import cards_of, system_of

if TYPE_CHECKING:
    from ..sky.wcs import Wcs

Floats = npt.NDArray[np.float32]
# x0, y0, x1, y1, counted from 0, half open.
Box = tuple[int, int, int, int]

STRIP_PIXELS = 1 << 22
# Of a pixel of the picture, the part that makes it saturated.
HALF = 0.5
# Rows of the picture, evenly spaced, that tell its levels, and as many values of them.
SAMPLE_ROWS, SAMPLE_VALUES = 96, 1 << 18
# Beyond what resampling correlates.
APART_PX = 5
# A part of a Gaussian's values lies so far below its middle.
DARKEST, DARKEST_SIGMA = 0.1, 1.2816


@dataclass
class Sheet:
    """An image (ny, nx), in a file or in memory, its coordinates and its zero point (of 1 unit of its pixels)."""

    name: str
    shape: tuple[int, int]
    wcs: Wcs | None = None
    zero_point_mag: float | None = None
    fits: FitsFile | None = None
    plane: int = 0
    weight: int | None = None
    mask: int | None = None
    values: npt.NDArray[Any] | None = None
    good: npt.NDArray[np.bool_] | None = None

    @property
    def whole(self) -> Box:
        """All of it, as a box."""
        return 0, 0, self.shape[1], self.shape[0]

    def rows(self, y0: int, y1: int, x0: int, x1: int, only_good: bool = False) -> Floats:
        """Values (y1 - y0, x1 - x0), not a number where there are none.

        Narrow gaps are closed, as in a picture. What is saturated is infinite: brighter than is known. With
        `only_good` what is not good is not a number.
        """
        if only_good:
            found, good, _ = self._planes(y0, y1, x0, x1)
            found[~good] = np.nan
            return found
        (ny, nx), halo = self.shape, HALO_PX
        bottom, left = max(0, y0 - halo), max(0, x0 - halo)
        found, good, mask = self._planes(bottom, min(ny, y1 + halo), left, min(nx, x1 + halo))
        lost = unknown(found, good, mask) | np.isinf(found)
        if lost.any():
            found[lost] = np.nan
            close_gaps(found, None if mask is None else mask & Bit.OUTSIDE == 0)
        if mask is not None:
            found[~good & (mask & Bit.SATURATED > 0)] = np.inf
        return found[y0 - bottom : y1 - bottom, x0 - left : x1 - left]

    def _planes(
        self, y0: int, y1: int, x0: int, x1: int
    ) -> tuple[Floats, npt.NDArray[np.bool_], npt.NDArray[Any] | None]:
        """Values, arrays of their own, which are good, and the mask if there is one."""
        box = slice(y0, y1), slice(x0, x1)
        if self.fits is None:
            assert self.values is not None
            found = self.values[box].astype(np.float32)
            return found, np.ones(found.shape, np.bool_) if self.good is None else self.good[box], None
        found = self.fits.rows(self.plane, y0, y1, x0, x1).astype(np.float32)
        mask = None if self.mask is None else self.fits.rows(self.mask, y0, y1, x0, x1)
        if self.weight is None:
            return found, np.ones(found.shape, np.bool_), mask
        return found, self.fits.rows(self.weight, y0, y1, x0, x1) > 0, mask

    def close(self) -> None:
        """Close its file, if it has one."""
        if self.fits is not None:
            self.fits.close()


def open_sheet(path: Path, stores: Sequence[Store] = (), plane: str | None = None) -> Sheet:
    """The image of a product, or of any FITS file that has one, such as a cut-out; to be closed.

    Raises NoImage, NoSuchExtension, and as opening it does; a coordinate system that cannot be read is none.
    """
    product = open_product(path) if is_product(path) else None
    fits = open_fits(path, spool=True)
    try:
        images = [hdu for hdu in fits.hdus if hdu.is_image and len(hdu.shape) == 2]
        if not images:
            raise NoImage(f"{path}: holds no image")
        chosen = images[0] if plane is None else next((hdu for hdu in images if hdu.name == plane), None)
        if chosen is None:
            names = ", ".join(hdu.name for hdu in images)
            raise NoSuchExtension(f"{path}: no plane {plane!r}; there are: {names}")
        others = {hdu.name: hdu.index for hdu in images if hdu.shape == chosen.shape}
        weight, mask = (others.get(name) if chosen is images[0] else None for name in ("WEIGHT", "MASK"))
        if product is not None:
            cards = cards_of(product, stores)
            flux = {key: value for key, value, _ in flux_cards(product)}
        else:
            cards, flux = wcs_cards(chosen.header), dict(chosen.header)
        zero_point = flux.get("MAGZERO")
        return Sheet(
            str(path),
            (chosen.shape[0], chosen.shape[1]),
            _system(cards, str(path)),
            float(zero_point) if isinstance(zero_point, int | float) else None,
            fits,
            chosen.index,
            weight,
            mask,
        )
    except BaseException:
        fits.close()
        raise


def _system(cards: Mapping[str, HeaderValue], name: str) -> Wcs | None:
    try:
        return system_of(cards, name) if cards else None
    except BadHeader:
        return None


def box_of(sheet: Sheet, region: str | None) -> Box:
    """The part that a FITS section such as [101:200,1:50] names; all of it for None. Raises NoImage."""
    if region is None:
        return sheet.whole
    ny, nx = sheet.shape
    part = parse_section(region, (nx, ny))
    if not (0 <= part.x0 < part.x1 <= nx and 0 <= part.y0 < part.y1 <= ny):
        raise NoImage(f"{sheet.name}: region {region} is not inside the image of {nx} x {ny} pixels")
    return part.x0, part.y0, part.x1, part.y1


def shrunk(sheet: Sheet, box: Box, factor: int, row0: int, row1: int, only_good: bool = False) -> Floats:
    """Rows of the picture of a part, made smaller by a whole factor; the first row is the bottom."""
    x0, y0, x1, y1 = box
    part = sheet.rows(y0 + row0 * factor, min(y0 + row1 * factor, y1), x0, x1, only_good)
    if factor == 1:
        return part
    made, saturated = shrink(part, factor), np.isposinf(part)
    if saturated.any():
        made[shrink(saturated, factor) >= HALF] = np.inf
    return made


def rows_of_picture(box: Box, factor: int) -> int:
    """How many rows the picture of a part has."""
    return -(-(box[3] - box[1]) // factor)


def strips(sheets: Sequence[Sheet], box: Box, factor: int, rows: int = 0) -> Iterator[npt.NDArray[Any]]:
    """The picture of a part from its top down: (rows, nx) of one sheet, (rows, nx, n) of several.

    rows: of the picture in a strip; 0: as many as the memory of a strip holds.
    """
    height, width = rows_of_picture(box, factor), -(-(box[2] - box[0]) // factor)
    step = rows or max(1, STRIP_PIXELS // ((box[2] - box[0]) * factor * len(sheets)))
    for end in range(height, 0, -step):
        start = max(0, end - step)
        if len(sheets) == 1:
            yield shrunk(sheets[0], box, factor, start, end)[::-1]
            continue
        made = np.empty((end - start, width, len(sheets)), np.float32)
        for number, one in enumerate(sheets):
            made[..., number] = shrunk(one, box, factor, start, end)[::-1]
        yield made


def sample(sheet: Sheet, box: Box, factor: int) -> Floats:
    """Values of the picture, evenly spaced rows of what is good. Raises BadPixels where nothing is."""
    values = sampled_rows(sheet, box, factor)
    values = values[np.isfinite(values)]
    return values[:: 1 + values.size // SAMPLE_VALUES]


def sampled_rows(sheet: Sheet, box: Box, factor: int) -> Floats:
    """Rows of the picture, evenly spaced; not a number where nothing is good. Raises BadPixels if that is all."""
    height = rows_of_picture(box, factor)
    chosen = np.unique(np.linspace(0, height - 1, min(height, SAMPLE_ROWS)).astype(int)).tolist()
    rows = [shrunk(sheet, box, factor, row, row + 1, only_good=True) for row in chosen]
    found = np.concatenate(rows)
    if not np.isfinite(found).any():
        raise BadPixels(f"{sheet.name}: no good pixel to show")
    return found


def level_and_noise(sheet: Sheet, box: Box, factor: int) -> tuple[float, float]:
    """The background of the picture and its noise, also where an object fills all of it.

    The noise is that of second differences of pixels a few apart, which a smooth object changes little; the
    background is that of which the darkest tenth is as far below as this noise says, and no more than the
    clipped median.
    Raises BadPixels where nothing is good.
    """
    rows = sampled_rows(sheet, box, factor)
    all_of_it = clipped(rows)
    lag = APART_PX
    if rows.shape[1] <= 2 * lag:
        return all_of_it.median, all_of_it.stdev
    bends = rows[:, 2 * lag :] - 2 * rows[:, lag : rows.shape[1] - lag] + rows[:, : rows.shape[1] - 2 * lag]
    noise = clipped(bends).stdev / math.sqrt(6)
    if not noise > 0:
        return all_of_it.median, all_of_it.stdev
    darkest = float(np.nanpercentile(rows, 100 * DARKEST))
    return min(all_of_it.median, darkest + DARKEST_SIGMA * noise), noise
