"""The arithmetic of one pixel done again from its parts: of a reduced frame, and of a stack with its rejections.

The parts are combined by the pixel functions of the recipes, so that the result is
that of the recipe to the last bit where nothing else than the pixel takes part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..pixels.calibrate import calibrate
from ..pixels.stack import clipped_mean, median
from ..pixels.stats import DIGITISATION_VARIANCE_ADU2

Floats = npt.NDArray[np.float32]

# Of the largest of the parts: two roundings to single precision.
ROUNDING = 2.0**-22
# A value this close to the limit may have been on the other side of it.
NEAR_LIMIT = 1e-3


@dataclass(frozen=True)
class Check:
    """A value made of its parts again, beside that in the file.

    text: the arithmetic in numbers. value, in_file: None where one is not known.
    rounding: how far they may be from each other. problem: why it was not done, or what
    it leaves open.
    """

    text: str
    value: float | None = None
    in_file: float | None = None
    rounding: float = 0.0
    problem: str = ""

    @property
    def agrees(self) -> bool | None:
        """Whether the two are the same but for rounding; None where one is not known."""
        if self.value is None or self.in_file is None:
            return None
        return abs(self.value - self.in_file) <= self.rounding


@dataclass(frozen=True)
class Exposure:
    """One exposure of a stack at the pixel.

    net_adu: less overscan, bias and dark current. usable: below saturation. light: what it is divided by.
    """

    net_adu: float
    usable: bool = True
    light: float = 1.0


@dataclass(frozen=True)
class Part:
    """What a calibration has at the pixel, in single precision."""

    name: str
    value: float


def reduced_check(
    raw_adu: float,
    overscan_adu: float,
    bias: Part | None,
    dark: Part | None,
    dark_factor: float,
    flat: Part | None,
    in_file: float | None,
) -> Check:
    """(raw - overscan - bias - dark factor) / flat as `reduced` does it; what is not finite is 0."""
    with np.errstate(over="ignore", invalid="ignore"):
        data = np.array([[raw_adu]], np.float64).astype(np.float32)
        data -= np.float32(overscan_adu)
    calibrate(
        data,
        np.zeros((1, 1), np.int16),
        bias=_plane(bias),
        dark=_plane(dark),
        dark_factor=dark_factor,
        flat=_plane(flat),
    )
    terms = [f"{raw_adu:g} [raw] - {overscan_adu:.9g} [overscan]"]
    if bias is not None:
        terms.append(f"{bias.value:.9g} [{bias.name}]")
    if dark is not None:
        factor = "" if dark_factor == 1 else f" x {dark_factor:g} s"
        terms.append(f"{dark.value:.9g}{factor} [{dark.name}]")
    text = " - ".join(terms)
    if flat is not None:
        text = f"({text}) / {flat.value:.9g} [{flat.name}]"
    sizes = [abs(raw_adu), abs(overscan_adu), abs(float(data[0, 0])), 1.0]
    largest = max(one for one in sizes if math.isfinite(one))
    scale = 1.0 if flat is None or not flat.value else max(1.0, 1 / abs(flat.value))
    return Check(text, float(data[0, 0]), in_file, ROUNDING * largest * scale)


def _plane(part: Part | None) -> Floats | None:
    return None if part is None else np.array([[part.value]], np.float32)


def clip_words(
    exposures: Sequence[Exposure], noise_adu: float, gain_e_adu: float | None, clip_sigma: float, scaled: bool
) -> tuple[list[str], float | None]:
    """What the clip of `pixels.stack.clipped_mean` does with each exposure, and the mean of those it keeps.

    scaled: the values are divided by their light, and weighted by their inverse variance as
    flats are. The words: kept, rejected, saturated, near the limit (either may be), and
    all disagree. None for the mean where no exposure is usable.
    """
    with np.errstate(over="ignore"):
        values = np.array([one.net_adu / one.light for one in exposures]).astype(np.float32)
    use = np.isfinite(values) & np.array([one.usable for one in exposures])
    stack = values[:, None, None]
    lights = [one.light for one in exposures] if scaled else None
    found = clipped_mean(
        stack,
        np.array([[noise_adu]], np.float32),
        clip_sigma,
        None if use.all() else use[:, None, None],
        gain=None if gain_e_adu is None else np.array([[gain_e_adu]], np.float32),
        weights=None if lights is None else _weights(lights, noise_adu, gain_e_adu or 1.0),
        scales=lights,
    )
    if not use.any():
        return ["saturated" if not one.usable else "not finite" for one in exposures], None
    centre = float(median(np.ascontiguousarray(stack[use]))[0, 0])
    # As the docstring of clipped_mean says.
    reach = clip_sigma * math.sqrt(1 + math.pi / (2 * len(exposures)))
    words = []
    for one, value, usable in zip(exposures, values.tolist(), use.tolist(), strict=True):
        scale = one.light if scaled else 1.0
        variance = (noise_adu**2 + DIGITISATION_VARIANCE_ADU2) / scale**2
        variance += 0.0 if gain_e_adu is None else max(centre, 0.0) / (gain_e_adu * scale)
        over = abs(value - centre) / (reach * math.sqrt(variance))
        words.append(_word(one, usable, over))
    if not int(found.count[0, 0]):
        words = ["all disagree" if word != "saturated" else word for word in words]
    return words, float(found.mean[0, 0])


def _weights(lights: Sequence[float], noise_adu: float, gain_e_adu: float) -> list[float]:
    """Inverse variances of exposures at their level, as `kinds.exposures.combine` weighs them."""
    return [one**2 / (noise_adu**2 + DIGITISATION_VARIANCE_ADU2 + one / gain_e_adu) for one in lights]


def _word(one: Exposure, usable: bool, over: float) -> str:
    if not usable:
        return "saturated" if not one.usable else "not finite"
    if abs(over - 1) <= NEAR_LIMIT:
        return "near the limit"
    return "kept" if over < 1 else "rejected"


def local_light(net_adu: Floats, response: npt.NDArray[Any], good: npt.NDArray[Any]) -> float | None:
    """How much light an exposure has around a pixel: the median of its counts over the flat's response.

    All (ny, nx) of one place; None where fewer than 20 pixels tell.
    """
    use = good & np.isfinite(net_adu) & (response > 0)
    if np.count_nonzero(use) < 20:
        return None
    light = float(np.median(net_adu[use] / response[use]))
    return light if light > 0 else None


def of_amplifier(values: Any, number: int) -> float | None:
    """The value of an amplifier in a field of the meta that has one each; None if it is not known."""
    if not isinstance(values, list) or number >= len(values) or not values[number]:
        return None
    return float(values[number])


def noise_and_gain(
    rows: Mapping[str, Mapping[str, Any]], metas: Sequence[Mapping[str, Any]], number: int
) -> tuple[float | None, float | None]:
    """Read noise (ADU) and gain (e/ADU) of an amplifier as recipes choose them.

    rows: the amplifier's row of the tables, by role. metas: where else they may be
    said, the first that does counts; the last is that of the raw frames, which alone has the gain.
    """
    noise = rows.get("readnoise", {}).get("READ_NOISE_ADU")
    for meta in metas:
        noise = of_amplifier(meta.get("read_noise_adu"), number) if noise is None else noise
    gain = rows.get("gain", {}).get("GAIN_E_ADU")
    if gain is None and metas:
        gain = of_amplifier(metas[-1].get("gain_e_adu"), number)
    return noise, gain
