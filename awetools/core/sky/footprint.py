"""Where an image lies on a grid of the sky, and the map of its places there."""

from __future__ import annotations

from typing import NamedTuple

from .grid import NOWHERE, Grid, Shape, Window, window_of
from .pixelmap import TOLERANCE_PX, PixelMap, pixel_map
from .wcs import Wcs


class Footprint(NamedTuple):
    """The window of the grid outside of which nothing is on the image; the map, and the pixel that it begins at."""

    window: Window
    origin: tuple[int, int]
    map: PixelMap


def footprint(grid: Grid, wcs: Wcs, shape: Shape, tolerance_px: float = TOLERANCE_PX) -> Footprint | None:
    """The part of a grid that an image of some coordinates and shape touches; None where it touches nothing."""
    window = window_of(grid, wcs, shape)
    if window == NOWHERE:
        return None
    part = grid.part(window)
    found = pixel_map(part.wcs, wcs, part.shape, shape, tolerance_px)
    (y0, y1), (x0, x1) = found.window
    if y0 >= y1 or x0 >= x1:
        return None
    (top, _), (left, _) = window
    return Footprint(((top + y0, top + y1), (left + x0, left + x1)), (top, left), found)
