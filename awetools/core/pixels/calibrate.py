"""Rows of an exposure free of bias, dark and the detector's response, with the mask of what that cannot mend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import Mixture
from .kernels import kernel
from .mask import Bit

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Masks = npt.NDArray[np.int16]

# As many as an exposure has: those of bias and dark, of flat, hot and cold pixels.
WEIGHTS, MASKS = 2, 3


def calibrate(
    data: Floats,
    mask: Masks,
    *,
    bias: Floats | None = None,
    dark: Floats | None = None,
    dark_factor: float = 1.0,
    nonlinear_adu: Floats | None = None,
    flat: Floats | None = None,
    weights: Sequence[Floats | None] = (),
    masks: Sequence[Masks | None] = (),
) -> None:
    """Subtract the bias and the dark, divide by the flat, and mark in the mask what is not to be used; in place.

    ``data`` (ny, nx) float32, ADU, contiguous, becomes (data - bias - dark dark_factor) / flat.
    ``nonlinear_adu`` (ny or 1, nx): from there on, before the flat, a pixel is nonlinear.
    ``weights`` (two at most): inverse variances of bias and dark; where one is not above 0, the
    pixel is not calibrated. ``masks`` (three at most) are added. What is not finite in the
    end is outside, and 0. ``Mixture`` if the shapes differ.
    """
    # What is not there is a plane that changes nothing.
    values = ((bias, 0.0), (dark, 0.0), (nonlinear_adu, np.nan), (flat, 1.0))
    planes = [_plane(plane, nothing, np.float32, data.shape) for plane, nothing in values]
    known = [_plane(one, 1, np.float32, data.shape) for one in _filled(weights, WEIGHTS)]
    added = [_plane(one, 0, np.int16, data.shape) for one in _filled(masks, MASKS)]
    factor = np.float32(dark_factor)
    compiled = kernel("calibrate")
    if compiled is not None:
        bits = (int(Bit.NONLINEAR), int(Bit.UNCALIBRATED), int(Bit.OUTSIDE))
        compiled.calibrate((data, mask, *planes, *known, *added), factor, *bits)
        return
    zero, current, limit, response = planes
    # What leaves the range of the numbers is masked like all that is not finite.
    with np.errstate(all="ignore"):
        data -= zero
        data -= current * factor
        mask[data >= limit] |= Bit.NONLINEAR
        data /= response
    for weight in known:
        mask[np.broadcast_to(weight <= 0, data.shape)] |= Bit.UNCALIBRATED
    for one in added:
        mask |= one
    lost = ~np.isfinite(data)
    mask[lost] |= Bit.OUTSIDE
    data[lost] = 0


def mark_reaching(
    data: Floats, mask: Masks, levels_adu: Floats, y0: int, columns: tuple[int, int], bit: Bit
) -> bool:
    """Mark the pixels that are at or above the level of their row, in place; whether there is any.

    ``data`` (ny, nx) float32, ADU, and ``mask`` (ny, nx), both contiguous; ``levels_adu``
    (rows,) float32, of the rows from ``y0`` on, for the half-open range of ``columns``.
    """
    x0, x1 = columns
    compiled = kernel("calibrate")
    if compiled is not None:
        levels = np.ascontiguousarray(levels_adu)
        return bool(compiled.mark(data, mask, levels, y0, x0, x1, int(bit)))
    box = (slice(y0, y0 + len(levels_adu)), slice(x0, x1))
    with np.errstate(invalid="ignore"):
        found = data[box] >= levels_adu[:, None]
    mask[box][found] |= bit
    return bool(found.any())


def _filled(planes: Sequence[Array | None], number: int) -> list[Array | None]:
    return [*planes, *[None] * (number - len(planes))]


def _plane(plane: Array | None, nothing: float, kind: type, shape: tuple[int, ...]) -> Array:
    """A contiguous plane of the shape, or of one row that stands for all."""
    if plane is None:
        return np.full((1, *shape[1:]), nothing, kind)
    if plane.shape not in (shape, (1, *shape[1:])):
        raise Mixture(f"a plane of shape {plane.shape} for an image of {shape}")
    return np.ascontiguousarray(plane, kind)
