"""The weight of each pixel of a reduced frame: the inverse variance of its background."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import Mixture
from .kernels import kernel
from .stats import DIGITISATION_VARIANCE_ADU2

Value = float | npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

# Rows that stay in the processor's cache while the twin works on them.
BLOCK_ROWS = 64


def background_weight(
    sky_adu: Floats,
    *,
    gain_e_adu: Value,
    read_noise_adu: Value,
    flat: Floats | None = None,
    dark_adu_s: Floats | None = None,
    exptime_s: float = 0.0,
    bias_weight: Floats | None = None,
    dark_weight: Floats | None = None,
    flat_weight: Floats | None = None,
    bad: npt.NDArray[np.bool_] | None = None,
) -> Floats:
    """Inverse variance of the background of a flat-fielded frame, ADU^-2; 0 where it has none.

    ``sky_adu`` (ny, nx) is the smooth sky of the flat-fielded frame, the ``*_weight`` are
    the inverse variances of the master bias (ADU^-2), dark ((ADU/s)^-2) and flat, all
    (ny, nx); gain and read noise are numbers or arrays that broadcast, as they may differ
    from amplifier to amplifier:

        weight = flat^2 / variance
        level = sky flat                    ADU before the flat; below 0 it counts as 0
        variance = read_noise^2             read noise, digitisation removed
                 + 1/12                     rounding to whole ADU
                 + (level + dark exptime) / gain      shot noise
                 + 1 / bias_weight          noise of the master bias
                 + exptime^2 / dark_weight  noise of the master dark
                 + sky^2 / flat_weight      noise of the master flat

    ``sky_adu`` must be the smooth sky: with the sources' own photon noise in the weights
    coadded stars lose 0.8% of their flux (measured). ``bad`` is True where the weight is
    0; it is 0 as well where flat or variance are not finite or not above 0. A calibration
    of weight 0 adds no noise: its pixels are for masks to say. float32, each pixel by
    itself. Source: propagation of errors through (raw - bias - dark) / flat (e.g. Newberry
    1991, PASP 103, 122). ``Mixture`` if the shapes differ.
    """
    shape = sky_adu.shape
    # What is not there is a plane that changes nothing.
    planes = {
        "sky": _plane(sky_adu, shape),
        "flat": _plane(1.0 if flat is None else flat, shape),
        "gain": _plane(gain_e_adu, shape),
        "read_noise": _plane(read_noise_adu, shape),
        "dark": _plane(0.0 if dark_adu_s is None else dark_adu_s, shape),
        "bias_weight": _plane(0.0 if bias_weight is None else bias_weight, shape),
        "dark_weight": _plane(0.0 if dark_weight is None else dark_weight, shape),
        "flat_weight": _plane(0.0 if flat_weight is None else flat_weight, shape),
    }
    refused = np.zeros(shape, bool) if bad is None else np.ascontiguousarray(bad)
    if refused.shape != shape:
        raise Mixture(f"a mask of shape {refused.shape} for an image of {shape}")
    out = np.empty(shape, np.float32)
    compiled = kernel("weight")
    if compiled is not None:
        compiled.weight(out, refused, *planes.values(), exptime_s, DIGITISATION_VARIANCE_ADU2)
        return out
    for y0 in range(0, shape[0], BLOCK_ROWS):
        rows = slice(y0, y0 + BLOCK_ROWS)
        out[rows] = _weight(_rows(planes, rows), refused[rows], np.float32(exptime_s))
    return out


def _plane(value: Value, shape: tuple[int, ...]) -> Floats:
    """A contiguous float32 array of the shape, or of one row that stands for all."""
    array = np.asarray(value, np.float32)
    if array.ndim < 2:
        array = np.broadcast_to(array, (1, shape[1]))
    if array.shape[0] not in (1, shape[0]) or array.shape[1:] != shape[1:]:
        raise Mixture(f"a plane of shape {array.shape} for an image of {shape}")
    return np.ascontiguousarray(array)


def _rows(planes: Mapping[str, Floats], rows: slice) -> dict[str, Floats]:
    return {name: plane if len(plane) == 1 else plane[rows] for name, plane in planes.items()}


def _weight(planes: Mapping[str, Floats], bad: npt.NDArray[np.bool_], exptime_s: np.float32) -> Floats:
    """The kernel's numpy twin: the same operations in the same order."""
    flat, noise = planes["flat"], planes["read_noise"]
    with np.errstate(all="ignore"):
        level = np.maximum(planes["sky"] * flat, np.float32(0))
        sky = level / flat
        variance = (level + np.maximum(planes["dark"] * exptime_s, np.float32(0))) / planes["gain"]
        variance = variance + (noise * noise + np.float32(DIGITISATION_VARIANCE_ADU2))
        variance = variance + _reciprocal(planes["bias_weight"])
        variance = variance + _reciprocal(planes["dark_weight"]) * (exptime_s * exptime_s)
        variance = variance + sky * sky * _reciprocal(planes["flat_weight"])
        weight = flat * flat / variance
        usable = (flat > 0) & (variance > 0) & np.isfinite(weight) & ~bad
    result: Floats = np.where(usable, weight, np.float32(0))
    return result


def _reciprocal(weight: Floats) -> Floats:
    result: Floats = np.divide(np.float32(1), weight, out=np.zeros_like(weight), where=weight > 0)
    return result
