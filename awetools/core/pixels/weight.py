"""The weight of each pixel of a reduced frame: the inverse variance of its background."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .stats import DIGITISATION_VARIANCE_ADU2

Value = float | npt.NDArray[Any]


def background_weight(
    sky_adu: Value,
    flat: Value,
    *,
    gain_e_adu: Value,
    read_noise_adu: Value,
    dark_adu: Value = 0.0,
    bias_variance_adu2: Value = 0.0,
    dark_variance_adu2: Value = 0.0,
    flat_variance: Value = 0.0,
    bad: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.float32]:
    """Inverse variance of the background of a flat-fielded frame, ADU^-2; 0 where it has none.

    Everything is a number or an array that broadcasts to the frame (ny, nx); gain and
    read noise may differ from amplifier to amplifier. All levels in ADU *before* the flat:

        weight = flat^2 / variance
        variance = read_noise^2             read noise, digitisation removed
                 + 1/12                     rounding to whole ADU
                 + (dark + sky) / gain      shot noise; levels below 0 count as 0
                 + bias_variance            noise of the master bias
                 + dark_variance            noise of the master dark, scaled to the exposure
                 + (sky / flat)^2 flat_variance     noise of the (dimensionless) master flat

    ``sky_adu`` must be the smooth sky: with the sources' own photon noise in the weights
    coadded stars lose 0.8% of their flux (measured). ``bad`` is True where the weight is
    0; it is 0 as well where flat or variance are not finite or not above 0. float32,
    each pixel by itself. Source: propagation of errors through
    (raw - bias - dark) / flat (e.g. Newberry 1991, PASP 103, 122).
    """
    sky, flat_field, gain, read_noise, dark, from_bias, from_dark, from_flat = (
        np.asarray(value, np.float32)
        for value in (
            sky_adu,
            flat,
            gain_e_adu,
            read_noise_adu,
            dark_adu,
            bias_variance_adu2,
            dark_variance_adu2,
            flat_variance,
        )
    )
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        level = np.maximum(sky, 0)
        variance = (level + np.maximum(dark, 0)) / gain
        variance = variance + (read_noise * read_noise + np.float32(DIGITISATION_VARIANCE_ADU2))
        variance = variance + from_bias
        variance = variance + from_dark
        if from_flat.any():
            variance = variance + np.square(level / flat_field) * from_flat
        weight = np.square(flat_field) / variance
        usable = (flat_field > 0) & (variance > 0) & np.isfinite(weight)
    if bad is not None:
        usable = usable & ~bad
    result: npt.NDArray[np.float32] = np.where(usable, weight, np.float32(0))
    return result
