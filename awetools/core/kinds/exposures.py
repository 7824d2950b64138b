"""What recipes of light share: exposures of one detector, corrected as they are read, and their stack.

Imported by recipes when they run, because it needs numpy; see `flatfield` for what declarations share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import BadHeader
from ..frame import Frame, FrameSet, RawFrame, Table
from ..kind import LeftOut
from ..pixels.objects import cells_of, spread
from ..pixels.planes import Plane
from ..pixels.smooth import lowpass
from ..pixels.stack import clipped_mean
from ..pixels.stats import clipped
from ..sections import Amplifier
from .common import (
    DIGITISATION_VARIANCE_ADU2,
    READ_NOISE_HINT,
    Trimmed,
    amplifier_map,
    gain_of,
    holds_bias,
    in_time_order,
    less_bias_and_dark,
    read_noise_of,
    saturation_of,
    trim,
)

# An amplifier below this fraction of the others' level has no signal.
DEAD_FRACTION = 0.05
SAMPLE_STEP = 4
# Raw counts are looked at in so many rows of every so many: an eighth of the pixels.
SAMPLE_ROWS, SAMPLE_EVERY = 16, 128
# If such a part of the pixels of an amplifier, and so many, have its highest value, that is where it was cut
# off, unless that is so many times their scatter above the others: then they are hot.
PILED_FRACTION, LEAST_PILED, HOT_SCATTERS = 0.01, 16, 6.0
# No converter ends below this; where there is no light, few values are all there are.
LEAST_CUT_ADU = 200.0
CONSTANT = "constant at"


@dataclass(frozen=True)
class Exposures:
    """Raw exposures of one detector in time order, and what is subtracted from them.

    read_noise_adu, gain_e_adu, saturation_adu: a value an amplifier. good (ny, nx) is
    True where the calibrations know the pixel. places: where each exposure stands in
    the set that the recipe was given.
    """

    raw: FrameSet
    trimmed: tuple[Trimmed, ...]
    bias: Frame | None
    dark: Frame | None
    read_noise_adu: list[float]
    gain_e_adu: list[float]
    saturation_adu: list[float]
    good: np.ndarray
    places: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.trimmed)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the trimmed detector."""
        return self.raw.shape

    @property
    def amplifiers(self) -> tuple[Amplifier, ...]:
        """The amplifiers, the same for all exposures."""
        return self.raw.amplifiers

    def name(self, number: int) -> str:
        """What an exposure is called in messages."""
        return str(self.trimmed[number].frame.meta.get("exposure"))

    def rows(self, number: int, y0: int, y1: int) -> np.ndarray:
        """Rows of an exposure less overscan, bias and dark current, float32 ADU."""
        one = self.trimmed[number]
        data = one.rows(y0, y1)
        exptime_s = _exptime_s(one) if self.dark is not None and not holds_bias(self.dark) else 0.0
        less_bias_and_dark(data, slice(y0, y1), self.bias, self.dark, exptime_s)
        return data

    def usable(self, number: int, y0: int, y1: int) -> np.ndarray:
        """True where the raw counts of an exposure are below saturation."""
        limit = amplifier_map(self.amplifiers, self.saturation_adu, self.shape, y0, y1)
        with np.errstate(invalid="ignore"):
            below: np.ndarray = self.trimmed[number].frame.rows(y0, y1) < limit
        return below

    def without(self, amplifiers: Sequence[str]) -> Exposures:
        """The exposures with these amplifiers' pixels not good."""
        return replace(self, good=self.good & ~amplifier_pixels(self.amplifiers, amplifiers, self.shape))

    def left_out(self, reasons: Sequence[tuple[int, str]]) -> list[LeftOut]:
        """Exposures that were not used, by their place among the recipe's inputs."""
        return [LeftOut(self.places[number], reason) for number, reason in reasons]


@dataclass(frozen=True)
class Level:
    """Level of an exposure over the amplifiers that have a signal, ADU, and what is wrong with amplifiers.

    silent: name to why an amplifier has no signal. cut: name to how its counts are
    cut off, in words.
    """

    adu: float
    silent: Mapping[str, str]
    cut: Mapping[str, str]


@dataclass(frozen=True)
class Light:
    """How one exposure enters a stack: its number, the light it is divided by, where its objects are (cells)."""

    number: int
    plane: Plane
    objects: np.ndarray | None = None
    cell_px: int = 1


@dataclass(frozen=True)
class Stacked:
    """Mean of normalised exposures (ny, nx), its inverse variance (0: no value), values rejected and used."""

    data: np.ndarray
    weight: np.ndarray
    rejected: int
    used: int

    @property
    def rejected_fraction(self) -> float:
        """Fraction of the values that the clip rejected."""
        return self.rejected / max(self.used, 1)


def open_exposures(
    raw: FrameSet,
    bias: Frame | None,
    dark: Frame | None,
    hotpix: Frame | None,
    readnoise: Table | None,
    gain: Table | None,
    overscan_mode: str,
) -> Exposures:
    """The exposures of a set with their calibrations; raises BadHeader where noise, gain or time are not known."""
    frames = in_time_order(raw)
    noise = read_noise_of(readnoise, [bias.meta if bias else {}, frames[0].meta], raw.amplifiers)
    if noise is None:
        raise BadHeader("the read noise is not known", hint=READ_NOISE_HINT)
    good = np.ones(raw.shape, dtype=bool)
    for frame in (bias, dark):
        if frame is not None and frame.weight is not None:
            good &= frame.weight > 0
    if hotpix is not None:
        good &= hotpix.data == 0
    places = {id(frame): place for place, frame in enumerate(raw.frames)}
    return Exposures(
        raw=raw,
        trimmed=tuple(trim(frame, overscan_mode) for frame in frames),
        bias=bias,
        dark=dark,
        read_noise_adu=noise,
        gain_e_adu=gain_of(gain, frames[0].meta, raw.amplifiers),
        saturation_adu=saturation_of(frames[0].meta, raw.amplifiers),
        good=good,
        places=tuple(places[id(frame)] for frame in frames),
    )


def level_of(exposures: Exposures, number: int, max_level_fraction: float) -> Level:
    """Clipped median of an exposure over the amplifiers that have a signal.

    An amplifier that is constant, while others are not, has none.
    """
    image = exposures.rows(number, 0, exposures.shape[0])
    use = exposures.good & np.isfinite(image)
    cut = _cut_off_amplifiers(exposures, number, max_level_fraction)
    silent = {name: reason for name, reason in cut.items() if CONSTANT in reason}
    if len(silent) == len(exposures.amplifiers):
        return Level(clipped(image[use]).median, {}, cut)
    rest = [amp for amp in exposures.amplifiers if amp.name not in silent]
    silent |= {name: f"amplifier {name} has no signal" for name in _dead_amplifiers(image, use, rest)}
    if silent:
        use &= ~amplifier_pixels(exposures.amplifiers, list(silent), exposures.shape)
    cut = {name: reason for name, reason in cut.items() if name not in silent}
    return Level(clipped(image[use]).median, silent, cut)


def silent_of(medians: Mapping[str, float]) -> list[str]:
    """Of amplifiers with these levels, the names of those without a signal, where others have one."""
    brightest = max(medians.values(), default=0.0)
    if brightest <= 0:
        return []
    return [name for name, median in medians.items() if not median > DEAD_FRACTION * brightest]


def sampled_rows(frame: RawFrame) -> list[tuple[int, int]]:
    """Bands of rows that stand for a frame."""
    ny = frame.shape[0]
    every = SAMPLE_EVERY if ny >= 4 * SAMPLE_EVERY else SAMPLE_ROWS
    return [(y0, min(y0 + SAMPLE_ROWS, ny)) for y0 in range(0, ny, every)]


def cut_off(name: str, counts: np.ndarray, saturation_adu: float, fraction: float) -> str:
    """How the raw counts of an amplifier are too high or constant, in words; empty if they are not."""
    if not counts.size:
        return ""
    level, top = float(np.median(counts)), float(counts.max())
    if float(counts.min()) == top:
        return f"amplifier {name} is {CONSTANT} {top:.0f} ADU"
    if level > fraction * saturation_adu:
        return (
            f"saturated: amplifier {name} reads {level:.0f} ADU, "
            f"above {fraction:g} of saturation, {saturation_adu:.0f}"
        )
    piled = int(np.count_nonzero(counts == top))
    if top < LEAST_CUT_ADU or piled <= max(PILED_FRACTION * counts.size, LEAST_PILED):
        return ""
    low, high = np.percentile(counts, [16, 84])
    if top - level <= HOT_SCATTERS * (high - low) / 2:
        part = piled / counts.size
        return f"saturated: {part:.0%} of the pixels of amplifier {name} read {top:.0f} ADU, its highest"
    return ""


def constant_level(frame: RawFrame) -> float | None:
    """The value that all raw counts of a frame have, ADU; None if they differ, or there is one pixel only."""
    first, pixels = math.nan, 0
    for band in sampled_rows(frame):
        part = frame.rows(*band)
        first = first if pixels else float(part.flat[0])
        # The first rows settle it for all but a constant frame.
        if not (part == first).all():
            return None
        pixels += part.size
    return first if pixels > 1 else None


def constant_amplifiers(frame: RawFrame) -> list[str]:
    """Names of the amplifiers whose raw counts are all the same: they were not read out."""
    found = []
    bands = [(y0, frame.rows(y0, y1)) for y0, y1 in sampled_rows(frame)]
    for amp in frame.amplifiers:
        columns = slice(amp.target.x0, amp.target.x1)
        parts = [rows[max(amp.target.y0 - y0, 0) : max(amp.target.y1 - y0, 0), columns] for y0, rows in bands]
        counts = np.concatenate([part.ravel() for part in parts])
        if counts.size > 1 and counts.min() == counts.max():
            found.append(amp.name)
    return found


def combine(exposures: Exposures, lights: Sequence[Light], clip_sigma: float) -> Stacked:
    """Weighted clipped mean of exposures divided by their light.

    Pixels off the median by clip_sigma of the noise model (read noise and signal /
    gain), saturated ones and those of objects are left out; the weights are the inverse variances
    of the exposures at their level. Weight 0 where no exposure has a value or all disagree.
    """
    raw, count = exposures.raw, len(lights)
    data = np.zeros(raw.shape, dtype=np.float32)
    weight = np.zeros(raw.shape, dtype=np.float32)
    levels = [light.plane.level for light in lights]
    typical_noise = float(np.mean(np.square(exposures.read_noise_adu))) + DIGITISATION_VARIANCE_ADU2
    typical_gain = float(np.mean(exposures.gain_e_adu))
    weights = [level**2 / (typical_noise + level / typical_gain) for level in levels]
    rejected = used = 0
    for y0, y1 in raw.strips(bytes_a_pixel=20, fixed_bytes=data.nbytes * 4):
        stack = np.empty((count, y1 - y0, raw.shape[1]), dtype=np.float32)
        use = np.empty(stack.shape, dtype=bool)
        for place, light in enumerate(lights):
            stack[place] = exposures.rows(light.number, y0, y1)
            stack[place] /= _light_rows(light.plane, raw.shape, y0, y1)
            use[place] = exposures.usable(light.number, y0, y1)
            if light.objects is not None:
                use[place] &= ~spread(light.objects, light.cell_px, raw.shape, y0, y1)
        use &= np.isfinite(stack)
        noise = amplifier_map(raw.amplifiers, exposures.read_noise_adu, raw.shape, y0, y1)
        gain = amplifier_map(raw.amplifiers, exposures.gain_e_adu, raw.shape, y0, y1)
        combined = clipped_mean(
            stack,
            noise,
            clip_sigma,
            None if use.all() else use,
            gain=gain,
            weights=weights,
            scales=levels,
        )
        data[y0:y1] = combined.mean
        weight[y0:y1] = _inverse_variance(combined.mean, combined.count, use, levels, noise, gain)
        rejected += combined.rejected
        used += combined.rejected + int(combined.count.sum(dtype=np.int64))
    return Stacked(data, weight, rejected, used)


def smooth_range(image: np.ndarray, use: np.ndarray, size_px: int) -> float:
    """Range of an image smoothed over so many pixels, 1st to 99th percentile; nan where nothing counts."""
    if not use.any():
        return float("nan")
    cells = cells_of(image, use)
    smooth = lowpass(cells.mean, cells.count > 0, max(1, size_px // cells.size))
    low, high = np.percentile(smooth, [1, 99])
    return float(high - low)


def amplifier_pixels(
    amplifiers: Sequence[Amplifier], names: Sequence[str], shape: tuple[int, int]
) -> np.ndarray:
    """True in the amplifiers of these names (ny, nx)."""
    out = np.zeros(shape, dtype=bool)
    for amp in amplifiers:
        if amp.name in names:
            out[amp.target.y0 : amp.target.y1, amp.target.x0 : amp.target.x1] = True
    return out


def _cut_off_amplifiers(exposures: Exposures, number: int, fraction: float) -> dict[str, str]:
    """The amplifiers whose raw counts are cut off in an exposure, by name, and how."""
    frame = exposures.trimmed[number].frame
    bands = sampled_rows(frame)
    lines = np.concatenate([np.arange(*band) for band in bands])
    counts, good = np.concatenate([frame.rows(*band) for band in bands]), exposures.good[lines]
    good &= np.isfinite(counts)
    found = {}
    for amp, saturation in zip(exposures.amplifiers, exposures.saturation_adu, strict=True):
        own = (lines >= amp.target.y0) & (lines < amp.target.y1)
        columns = slice(amp.target.x0, amp.target.x1)
        reason = cut_off(amp.name, counts[own, columns][good[own, columns]], saturation, fraction)
        if reason:
            found[amp.name] = reason
    return found


def _exptime_s(one: Trimmed) -> float:
    seconds = one.frame.meta.get("exptime_s")
    if not seconds or not seconds > 0:
        raise BadHeader(
            f"{one.frame.meta.get('exposure')}: the exposure time is {seconds!r}, and a dark is to be subtracted",
            hint="awe-ingest --set exptime_s=SECONDS FILE, or --no-dark",
        )
    return float(seconds)


def _dead_amplifiers(image: np.ndarray, use: np.ndarray, amplifiers: Sequence[Amplifier]) -> list[str]:
    """Names of the amplifiers without signal, where others have one."""
    medians = {}
    for amp in amplifiers:
        box = (
            slice(amp.target.y0, amp.target.y1, SAMPLE_STEP),
            slice(amp.target.x0, amp.target.x1, SAMPLE_STEP),
        )
        values = image[box][use[box]]
        medians[amp.name] = float(np.median(values)) if values.size else 0.0
    return silent_of(medians)


def _light_rows(plane: Plane, shape: tuple[int, int], y0: int, y1: int) -> np.ndarray | np.float32:
    if plane.slope_x == 0 and plane.slope_y == 0:
        return np.float32(plane.level)
    return plane.rows(shape, y0, y1)


def _inverse_variance(
    mean: np.ndarray,
    count: np.ndarray,
    use: np.ndarray,
    levels: Sequence[float],
    noise_adu: np.ndarray,
    gain_e_adu: np.ndarray,
) -> np.ndarray:
    """Inverse variance of the stack's pixels by the noise model, 0 where nothing was kept."""
    signal = np.maximum(mean, 0) / gain_e_adu
    total = np.zeros(mean.shape, dtype=np.float32)
    for level, keep in zip(levels, use, strict=True):
        one = np.float32(level**2) / (
            noise_adu**2 + np.float32(DIGITISATION_VARIANCE_ADU2) + signal * np.float32(level)
        )
        total += one if keep.all() else np.where(keep, one, np.float32(0))
    allowed = use.sum(axis=0, dtype=np.int16)
    # What the clip rejected counts like the mean of the others.
    part = np.divide(count, allowed, out=np.zeros(mean.shape, np.float32), where=allowed > 0)
    inverse: np.ndarray = np.where(count > 0, total * part, np.float32(0)).astype(np.float32)
    return inverse
