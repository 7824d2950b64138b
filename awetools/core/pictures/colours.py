"""Three images on one grid as one colour picture: are they on one grid, how bright is what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import BadHeader, NoMatch, UsageError
from ..pixels.colour import Mix, Three
from .sheet import Box, Sheet, level_and_noise

# Pixels that grids may differ by, and points along a side at which they are compared.
SAME_PX, POINTS = 0.1, 5
USUAL_Q = 8.0
# Of the noisiest band's noise: how far the sky is above black, and what the stretch is. With the usual q
# the sky is then at 0.11 of white, and white is 1900 times the noise.
PEDESTAL_NOISE, STRETCH_NOISE = 1.2, 10.0
ZERO_POINTS, NOISE = "zeropoints", "noise"


@dataclass(frozen=True)
class Wish:
    """What a person says of the colours; None: from the images. scale: numbers, ZERO_POINTS or NOISE."""

    scale: Three | str = ZERO_POINTS
    background: Three | None = None
    stretch: float | None = None
    q: float = USUAL_Q


def check_one_grid(sheets: Sequence[Sheet]) -> None:
    """Raise NoMatch, naming what differs, unless all images have the same pixels of the sky.

    Where none has coordinates, their shapes must do. Raises BadHeader where only some have.
    """
    first = sheets[0]
    for other in sheets[1:]:
        what = _difference(first, other)
        if what:
            raise NoMatch(
                f"{other.name} is not on the grid of {first.name}: {what}",
                hint="make them on one: awe-grid make NAME, then awe-coadd or awe-regrid --grid NAME of each",
            )


def _difference(first: Sheet, other: Sheet) -> str:
    if first.shape != other.shape:
        (ny, nx), (my, mx) = first.shape, other.shape
        return f"it has {mx} x {my} pixels, not {nx} x {ny}"
    if (first.wcs is None) != (other.wcs is None):
        name = (first if first.wcs is None else other).name
        raise BadHeader(f"{name}: it has no coordinate system (WCS), but the other image has one")
    if first.wcs is None or other.wcs is None:
        return ""
    ny, nx = first.shape
    x, y = np.meshgrid(np.linspace(1, nx, POINTS), np.linspace(1, ny, POINTS))
    there_x, there_y = other.wcs.to_pixel(*first.wcs.to_sky(x, y))
    shift_x, shift_y = there_x - x, there_y - y
    known = np.isfinite(shift_x) & np.isfinite(shift_y)
    if not known.any():
        return "it shows another part of the sky"
    most = float(np.hypot(shift_x[known], shift_y[known]).max())
    if most <= SAME_PX:
        return ""
    scales = [one.wcs.pixel_scale_arcsec for one in (first, other) if one.wcs is not None]
    if abs(scales[1] / scales[0] - 1) > 1e-3:
        return f"its pixels are of {scales[1]:.4g} arcsec, not {scales[0]:.4g}"
    turn = (other.wcs.position_angle_deg - first.wcs.position_angle_deg + 180) % 360 - 180
    if abs(turn) > 0.1 or other.wcs.parity != first.wcs.parity:
        mirrored = " and mirrored" if other.wcs.parity != first.wcs.parity else ""
        return f"it is turned by {turn:.1f} deg{mirrored}"
    return f"the same place is up to {most:.3g} pixels away"


def mix_of(sheets: Sequence[Sheet], box: Box, factor: int, wish: Wish) -> tuple[Mix, str]:
    """How three images become colours at the size of the picture, and where the scales come from.

    Scales bring fluxes to one zero point, so that an object of equal magnitudes is grey; where an
    image has none they make the noise equal, and so do they for NOISE.
    """
    measured = [level_and_noise(one, box, factor) for one in sheets]
    noise = np.array([max(one[1], 1e-30) for one in measured])
    background = wish.background or _three([one[0] for one in measured])
    scale, said = _scale(sheets, wish, noise)
    largest_noise = float((noise * scale).max())
    # An image without noise has a stretch all the same.
    stretch = wish.stretch or max(STRETCH_NOISE * largest_noise, 1e-12)
    return Mix(background, scale, stretch, wish.q, PEDESTAL_NOISE * largest_noise), said


def _scale(sheets: Sequence[Sheet], wish: Wish, noise: np.ndarray) -> tuple[Three, str]:
    if not isinstance(wish.scale, str):
        return wish.scale, "as given"
    if wish.scale not in (ZERO_POINTS, NOISE):
        raise UsageError(f"scale {wish.scale!r}: neither {ZERO_POINTS} nor {NOISE}")
    missing = [one.name for one in sheets if one.zero_point_mag is None]
    if wish.scale == ZERO_POINTS and not missing:
        zero_points = np.array([one.zero_point_mag for one in sheets], np.float64)
        return _three(10 ** (-0.4 * (zero_points - zero_points[1]))), "by zero points"
    why = f", as {missing[0]} has no zero point" if missing and wish.scale == ZERO_POINTS else ""
    return _three(noise[1] / noise), f"by equal noise{why}"


def _three(values: Sequence[float] | np.ndarray) -> Three:
    red, green, blue = (float(one) for one in values)
    return red, green, blue
