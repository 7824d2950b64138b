"""Three bands to one colour picture: brightness compressed, the ratio of the bands kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BadValue

Three = tuple[float, float, float]


@dataclass(frozen=True)
class Mix:
    """How three bands become colours.

    ``background`` in the unit of each band is subtracted, what is left is multiplied by ``scale``, and
    ``pedestal``, in the common unit, is added, so that an empty sky is grey and its noise is seen. The
    mean I of the three is shown as asinh(q I / stretch) / q: linear up to about ``stretch`` / q, and white
    at stretch sinh(q) / q.
    """

    background: Three
    scale: Three
    stretch: float
    q: float
    pedestal: float = 0.0

    def __post_init__(self) -> None:
        numbers = (*self.background, *self.scale, self.stretch, self.q, self.pedestal)
        if not (np.isfinite(numbers).all() and self.stretch > 0 and self.q > 0 and min(self.scale) > 0):
            raise BadValue(
                f"scale {self.scale}, stretch {self.stretch:g}, q {self.q:g}: these must be more than 0"
            )


def lupton(bands: npt.NDArray[Any], mix: Mix) -> npt.NDArray[np.uint8]:
    """Colours (ny, nx, 3), uint8, of the values of three bands (ny, nx, 3): red, green, blue.

    A pixel where a band is not a number is black; one where a band is infinite (saturated) is white.
    Where a colour would be brighter than white, all three are divided alike: its hue stays. Method:
    Lupton and others 2004, PASP 116, 133.
    """
    # Values beyond what float32 holds are not lit.
    with np.errstate(over="ignore", invalid="ignore"):
        # Band by band: sums along an axis of three cost ten times as much.
        given = zip(mix.background, mix.scale, strict=True)
        red, green, blue = (
            (np.asarray(bands[..., band], np.float32) - np.float32(at)) * np.float32(by)
            + np.float32(mix.pedestal)
            for band, (at, by) in enumerate(given)
        )
        mean = mean_of_all = (red + green + blue) / np.float32(3)
        lit = (mean > 0) & np.isfinite(mean)
        mean = np.where(lit, mean, np.float32(1))
        factor = np.arcsinh(np.float32(mix.q / mix.stretch) * mean) / (np.float32(mix.q) * mean)
        # The brightest colour is white at most; what is not a number is not lit.
        brightest = np.maximum(np.maximum(red, green), blue) * factor
        factor *= np.float32(255) / np.maximum(brightest, 1)
        factor[~lit] = 0
        made = np.empty(bands.shape, np.uint8)
        for band, values in enumerate((red, green, blue)):
            made[..., band] = np.rint(np.maximum(np.where(lit, values, 0) * factor, 0))
        # Nobody knows its hue, and a band that is not saturated there would give it a wrong one.
        saturated = np.isposinf(mean_of_all)
        if saturated.any():
            saturated[saturated] = np.isposinf(bands[saturated]).any(axis=-1)
            made[saturated] = 255
    return made
