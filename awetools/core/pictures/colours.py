"""Three images on one grid as one colour picture: are they on one grid, how bright is what."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import BadHeader, BadPixels, NoMatch, UsageError
from ..pixels.colour import Mix, Three
from .sheet import Box, Sheet, level_and_noise, sampled_rows

Doubles = npt.NDArray[np.float64]

# Pixels that grids may differ by, and points along a side at which they are compared.
SAME_PX, POINTS = 0.1, 5
USUAL_Q = 8.0
# Of the noisiest band's noise: how far the sky is above black, and what the stretch is. With the usual q
# the sky is then at 0.11 of white, and white is 1900 times the noise.
PEDESTAL_NOISE, STRETCH_NOISE = 1.2, 10.0
ZERO_POINTS, NOISE, SOURCES = "zeropoints", "noise", "sources"
# Sources have values so many times the noise in each image; so many of these tell how bright they are.
SOURCE_NOISE, LEAST_VALUES = 5.0, 50


@dataclass(frozen=True)
class Wish:
    """What a person says of the colours; None: from the images. scale: numbers, ZERO_POINTS, NOISE or SOURCES."""

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
                hint=_on_one_grid(sheets),
            )


def _on_one_grid(sheets: Sequence[Sheet]) -> str:
    """The command that makes images of several filters on one grid."""
    objects = {str(one.fits.hdus[0].header.get("OBJECT") or "") if one.fits else "" for one in sheets}
    name = objects.pop() if len(objects) == 1 else ""
    what = f"\"object='{name}'\"" if re.fullmatch(r"[\w .+-]+", name) else "CONDITION"
    return (
        f"awe-make coadd {what}: all filters in one go are on one grid; or "
        "awe-grid make NAME --fit FILE..., and --grid NAME for awe-make coadd, awe-coadd or awe-regrid"
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

    Scales bring fluxes to one zero point, so that an object of equal magnitudes is grey; where an image has none,
    and for SOURCES, they make the typical source grey. Where there are too few (BadPixels for SOURCES), and for
    NOISE, they make the noise equal.
    """
    measured = [level_and_noise(one, box, factor) for one in sheets]
    noise = np.array([max(one[1], 1e-30) for one in measured])
    background = wish.background or _three([one[0] for one in measured])
    scale, said = _scale(sheets, wish, noise, lambda: _typical(sheets, box, factor, background, noise))
    largest_noise = float((noise * scale).max())
    # An image without noise has a stretch all the same.
    stretch = wish.stretch or max(STRETCH_NOISE * largest_noise, 1e-12)
    return Mix(background, scale, stretch, wish.q, PEDESTAL_NOISE * largest_noise), said


def _scale(
    sheets: Sequence[Sheet], wish: Wish, noise: Doubles, typical: Callable[[], Three | None]
) -> tuple[Three, str]:
    if not isinstance(wish.scale, str):
        return wish.scale, "as given"
    if wish.scale not in (ZERO_POINTS, NOISE, SOURCES):
        raise UsageError(f"scale {wish.scale!r}: not one of {ZERO_POINTS}, {NOISE}, {SOURCES}")
    missing = [one.name for one in sheets if one.zero_point_mag is None]
    if wish.scale == ZERO_POINTS and not missing:
        zero_points = np.array([one.zero_point_mag for one in sheets], np.float64)
        return _three(10 ** (-0.4 * (zero_points - zero_points[1]))), "by zero points"
    why = f", as {missing[0]} has no zero point" if wish.scale == ZERO_POINTS else ""
    found = None if wish.scale == NOISE else typical()
    if found is not None:
        return found, f"by the typical source{why}"
    if wish.scale == SOURCES:
        raise BadPixels(
            f"{sheets[0].name}: too few pixels of sources to tell what is grey", hint=f"--scale {NOISE}"
        )
    return _three(noise[1] / noise), f"by equal noise{why}"


def _typical(
    sheets: Sequence[Sheet], box: Box, factor: int, background: Three, noise: Doubles
) -> Three | None:
    """Scales with which half of the pixels of sources are redder than grey, and half are bluer; None for few."""
    levels = np.array(background)[:, None, None]
    values = np.stack([sampled_rows(one, box, factor) for one in sheets]) - levels
    bright = (values > SOURCE_NOISE * noise[:, None, None]).all(axis=0)
    if np.count_nonzero(bright) < LEAST_VALUES:
        return None
    red, green, blue = values[:, bright]
    return float(np.median(green / red)), 1.0, float(np.median(green / blue))


def _three(values: Sequence[float] | np.ndarray) -> Three:
    red, green, blue = (float(one) for one in values)
    return red, green, blue
