"""Where a map between two systems jumps or has no place: at the edges of maps of all of the sky."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .outlines import points
from .polynomial import Doubles, Pair
from .sphere import ARCSEC_PER_DEG, unit_vectors
from .wcs import Wcs

Shape = tuple[int, int]
Bools = npt.NDArray[np.bool_]

# Nodes whose places and areas count in a cell: four, and two beyond on each side.
STENCIL = 8
# Neighbouring pixels are never so many times as far from each other as any two where the map is known to be good.
UNUSUAL = 4.0


def torn(output: Wcs, input_: Wcs, input_shape: Shape, xs: Doubles, ys: Doubles) -> tuple[Bools, Bools]:
    """Cells in which the map may jump, and those that are near the image on the sky; nodes at 0-based xs and ys.

    The map may jump where the nodes that count in a cell are in different parts of a plane.
    """
    sky = output.to_sky(*np.meshgrid(xs + 1, ys + 1))
    made: Bools = np.zeros((len(ys) - STENCIL + 1, len(xs) - STENCIL + 1), np.bool_)
    for system in (output, input_):
        if system.projection.smooth:
            continue
        sheets = system.sheets(*sky).astype(np.int16)
        least, most = sheets, sheets
        for axis in (0, 1):
            windows = [np.lib.stride_tricks.sliding_window_view(one, STENCIL, axis) for one in (least, most)]
            least, most = windows[0].min(axis=-1), windows[1].max(axis=-1)
        made |= most - least > 1
    step_deg = (xs[1] - xs[0]) * output.pixel_scale_arcsec / ARCSEC_PER_DEG
    return made, _near(sky, input_, input_shape, step_deg)


def _near(sky: Pair, input_: Wcs, input_shape: Shape, step_deg: float) -> Bools:
    """Cells some corner of which is no further from the image than twice the size of the cell."""
    inner = slice(STENCIL // 2 - 1, 1 - STENCIL // 2)
    nodes = unit_vectors(*(one[inner, inner] for one in sky))
    image = unit_vectors(*(one.ravel() for one in input_.to_sky(*points(input_shape))))
    image = image[np.isfinite(image[:, 0])]
    middle = image.sum(axis=0) if len(image) else np.zeros(3)
    length = float(np.sqrt((middle * middle).sum()))
    if length < 0.5 * len(image) or not len(image):
        return np.ones((nodes.shape[0] - 1, nodes.shape[1] - 1), np.bool_)
    middle /= length
    radius = float(_angle_deg(((image - middle) ** 2).sum(axis=-1)).max())
    away = _angle_deg(((nodes - middle) ** 2).sum(axis=-1))
    along, down = (_angle_deg((np.diff(nodes, axis=axis) ** 2).sum(axis=-1)) for axis in (1, 0))
    size = np.fmax(np.fmax(along[:-1], along[1:]), np.fmax(down[:, :-1], down[:, 1:]))
    least = np.fmin(np.fmin(away[:-1, :-1], away[:-1, 1:]), np.fmin(away[1:, :-1], away[1:, 1:]))
    return np.asarray(least <= radius + 2 * np.fmax(size, 2 * step_deg), np.bool_)


def _angle_deg(squares: Doubles) -> Doubles:
    """The angle between unit vectors, from the square of their difference."""
    return np.asarray(np.degrees(2 * np.arcsin(np.minimum(1.0, 0.5 * np.sqrt(squares)))), np.float64)


def seeds(
    output: Wcs, input_: Wcs, input_shape: Shape, origin: tuple[int, int], step: int, shape: Shape
) -> Bools:
    """Cells with some point of the image, of points all over it."""
    found = output.to_pixel(*input_.to_sky(*points(input_shape)))[::-1]
    # A pixel reaches half a pixel to each side of its middle.
    cells = [np.floor((one - 0.5 - begin) / step) for one, begin in zip(found, origin, strict=True)]
    inside = np.ones(cells[0].shape, np.bool_)
    for one, count in zip(cells, shape, strict=True):
        inside &= (one >= 0) & (one < count)
    made: Bools = np.zeros(shape, np.bool_)
    made[cells[0][inside].astype(np.intp), cells[1][inside].astype(np.intp)] = True
    return made


def apart(x: Doubles, y: Doubles, good: Bools, margin: int, step: int) -> float:
    """More than neighbouring pixels are apart in the image, from the nodes of good cells; inf without one."""
    if not good.any():
        return float(np.inf)
    most = 0.0
    for plane in (x, y):
        inner = plane[margin:-margin, margin:-margin]
        for axis in (0, 1):
            difference = np.abs(np.diff(inner, axis=axis))
            edges = difference[:, :-1] if axis == 0 else difference[:-1]
            most = max(most, float(edges[good].max(initial=0.0)))
    return UNUSUAL * most / step + 1


def jumps(x: Doubles, y: Doubles, limit: float) -> Bools:
    """Corners from which a neighbour is further than it can be."""
    made: Bools = np.zeros(x.shape, np.bool_)
    with np.errstate(invalid="ignore"):
        for plane in (x, y):
            along, down = (np.abs(np.diff(plane, axis=axis)) > limit for axis in (1, 0))
            made[:, 1:] |= along
            made[:, :-1] |= along
            made[1:] |= down
            made[:-1] |= down
    return made


def shortest(after: Pair, middle: Pair, before: Pair) -> Pair:
    """The differences across a pixel; where it is cut, twice those of the half that is not."""
    ways = [
        [one - other for one, other in zip(after, before, strict=True)],
        [2 * (one - other) for one, other in zip(after, middle, strict=True)],
        [2 * (one - other) for one, other in zip(middle, before, strict=True)],
    ]
    whole, ahead, behind = (np.hypot(*one) for one in ways)
    half = np.fmin(ahead, behind)
    with np.errstate(invalid="ignore"):
        cut = ~(whole <= 2 * half)
        first = cut & ~(ahead > behind) & np.isfinite(ahead)
    second = cut & ~first
    made = [np.where(first, b, np.where(second, c, a)) for a, b, c in zip(*ways, strict=True)]
    return made[0], made[1]
