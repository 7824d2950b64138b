"""Where images are in the pixels of a system, also where its plane has edges that they cross."""

from __future__ import annotations

import numpy as np

from .polynomial import Doubles, Pair
from .projection import Sheets
from .wcs import Wcs

Shape = tuple[int, int]
Reach = tuple[float, float]

# Points along each side of an image, and each way within it, that tell where it is.
POINTS = 33


def points(shape: Shape, count: int = POINTS) -> Pair:
    """1-based places over an image, its outer edges included, (count, count)."""
    x, y = np.meshgrid(*(np.linspace(0.5, length + 0.5, count) for length in (shape[1], shape[0])))
    return x, y


def bulge(found: Doubles) -> float:
    """How far a smooth line may be from straight ones between its points."""
    bends = [np.abs(np.diff(found, 2, axis=axis)).max(initial=0.0) for axis in (0, 1)]
    return 0.25 * float(max(bends))


def parts_of(of: Wcs, wcs: Wcs, shape: Shape) -> list[tuple[Reach, Reach]] | None:
    """The least and greatest y and x, in pixels of a system, of each part into which its edges cut an image.

    From points over the image and beyond it by one; a part is taken larger by the distance of two
    points, as it may reach so far beyond them. None where a point is nowhere.
    """
    x, y = np.meshgrid(*(_beyond(length) for length in (shape[1], shape[0])))
    ra, dec = wcs.to_sky(x, y)
    found = of.to_pixel(ra, dec)[::-1]
    if not all(np.isfinite(one).all() for one in found):
        return None
    sheets = of.sheets(ra, dec)
    if int(sheets.max()) - int(sheets.min()) <= 1:
        inner = [one[1:-1, 1:-1] for one in found]
        down, along = (_reach(one, bulge(one)) for one in inner)
        return [(down, along)]
    apart = [max(_apart(one, sheets), 1.0) for one in found]
    made = []
    for sheet in np.unique(sheets):
        down, along = (_reach(one[sheets == sheet], by) for one, by in zip(found, apart, strict=True))
        made.append((down, along))
    return made


def _reach(found: Doubles, beyond: float) -> Reach:
    return float(found.min()) - beyond, float(found.max()) + beyond


def _beyond(length: int) -> Doubles:
    """As one axis of `points`, and one point more at either end."""
    step = length / (POINTS - 1)
    return np.linspace(0.5 - step, length + 0.5 + step, POINTS + 2)


def _apart(found: Doubles, sheets: Sheets) -> float:
    """The greatest difference of two points that are beside each other in one part."""
    most = 0.0
    for axis in (0, 1):
        same = np.diff(sheets, axis=axis) == 0
        most = max(most, float(np.abs(np.diff(found, axis=axis)).max(where=same, initial=0.0)))
    return most
