"""From expected electrons to a raw frame: photon noise, cosmic rays, bleeding, amplifiers, digits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .camera import ADC_TOP_ADU, Detector
from .detector import COSMIC, SATURATED, TRAIL
from .plan import stream
from .spec import NightSpec

NORMAL_FROM_E = 1000.0
COSMIC_RATE = 1.5e-7
"""Cosmic rays a pixel and second."""
SHARED_AT_E = 50e3
"""Electrons a pixel at which the brighter-fatter effect is given."""
MARKED_SIGMA = 2.0
"""A pixel is marked as hit by a cosmic ray or trail when that is this many times its own noise."""


@dataclass(frozen=True)
class FrameName:
    """What names a frame's random streams: type, filter, number within both, detector."""

    obstype: str
    filter: str
    index: int
    detector: int

    def stream(self, seed: int, purpose: str) -> np.random.Generator:
        """The frame's own stream for one purpose."""
        return stream(seed, purpose, self.obstype, self.filter, self.index, self.detector)


def poisson(rng: np.random.Generator, expected: np.ndarray) -> np.ndarray:
    """Poisson deviates, float32.

    Above 1000 a normal deviate with the Cornish-Fisher term (z^2 - 1) / 6, which
    has the right mean, variance and skewness to the order that matters.
    """
    many = expected > NORMAL_FROM_E
    if not many.all():
        counts = rng.poisson(np.where(many, 0, expected)).astype(np.float32)
        if many.any():
            counts[many] = _nearly_poisson(rng, expected[many])
        return counts
    return _nearly_poisson(rng, expected)


def _nearly_poisson(rng: np.random.Generator, expected: np.ndarray) -> np.ndarray:
    z = rng.standard_normal(expected.shape, dtype=np.float32)
    counts: np.ndarray = np.sqrt(expected)
    counts *= z
    counts += expected
    z *= z
    z -= 1
    z *= np.float32(1 / 6)
    counts += z
    return counts


def collect(
    spec: NightSpec,
    detector: Detector,
    name: FrameName,
    expected: np.ndarray,
    exptime_s: float,
    trail: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Electrons in the pixels when the shutter closes, and what happened to them.

    expected: electrons by light and dark current, (ny, nx) float32. The mask
    (int16) has the bits saturated (full wells and what they bled into), cosmic, trail.
    """
    electrons = poisson(name.stream(spec.seed, "photons"), expected)
    cosmics = cosmic_rays(name.stream(spec.seed, "cosmics"), expected.shape, exptime_s)
    read_noise_e = max(one.read_noise_e for one in detector.amplifiers)
    threshold = np.float32(MARKED_SIGMA) * np.sqrt(expected + np.float32(read_noise_e**2))
    mask = np.where(cosmics > threshold, np.int16(COSMIC), np.int16(0))
    if trail is not None:
        mask |= np.where(trail > threshold, np.int16(TRAIL), np.int16(0))
    if spec.brighter_fatter:
        repel(electrons, spec.brighter_fatter, detector.full_well_e)
    electrons += cosmics
    mask[bleed(electrons, detector.full_well_e)] |= SATURATED
    return electrons, mask


def repel(electrons: np.ndarray, strength: float, full_well_e: float) -> None:
    """Move charge from fuller pixels to the four around them, in place (the brighter-fatter effect).

    strength: the fraction of the variance of a flat of 50,000 e- that neighbours
    then share. The collected charge Q shifts a pixel's edges by an amount that
    grows with the difference of charges, and what crosses a shifted edge grows
    with their mean, so c (Q^2 - Q'^2) crosses. Source: Antilogus et al. (2014,
    JINST 9, C03048), nearest neighbours only, all at the end of the exposure.
    """
    square = np.minimum(electrons, np.float32(full_well_e))
    square *= square
    # A flat of mean m then has the variance m (1 - 16 c m + ...).
    square *= np.float32(strength / (16 * SHARED_AT_E))
    down = np.diff(square, axis=0)
    electrons[:-1] += down
    electrons[1:] -= down
    right = np.diff(square, axis=1)
    electrons[:, :-1] += right
    electrons[:, 1:] -= right


def cosmic_rays(rng: np.random.Generator, shape: tuple[int, ...], exptime_s: float) -> np.ndarray:
    """Electrons left by cosmic rays: straight tracks of muons and, one in five, curly electrons."""
    ny, nx = shape
    layer = np.zeros((ny, nx), np.float32)
    for _ in range(rng.poisson(COSMIC_RATE * nx * ny * exptime_s)):
        curly = rng.random() < 0.2
        length = 5 + rng.exponential(25) if curly else 1 + rng.exponential(7)
        charge = (500 if curly else 1000) * math.exp(rng.normal(0, 0.45))
        steps = int(length / 0.05)
        bends = rng.normal(0, 0.05, steps) if curly else np.zeros(steps)
        angle = rng.uniform(0, 2 * np.pi) + np.cumsum(bends)
        spread = rng.normal(0, 0.2, (2, steps))
        x = rng.uniform(0, nx) + np.cumsum(np.cos(angle)) * 0.05 + spread[0]
        y = rng.uniform(0, ny) + np.cumsum(np.sin(angle)) * 0.05 + spread[1]
        inside = (x >= 0) & (x < nx) & (y >= 0) & (y < ny)
        np.add.at(layer, (y[inside].astype(int), x[inside].astype(int)), np.float32(charge * 0.05))
    return layer


def bleed(electrons: np.ndarray, full_well_e: float) -> np.ndarray:
    """Spill what is above full well along the columns, half each way, in place; which pixels it touched.

    Charge that reaches the first or last row is lost.
    """
    touched = np.zeros(electrons.shape, bool)
    for column in np.flatnonzero((electrons > full_well_e).any(axis=0)):
        charge = electrons[:, column].astype(np.float64)
        full = charge > full_well_e
        edges = np.flatnonzero(np.diff(full.astype(np.int8), prepend=0, append=0))
        for first, last in edges.reshape(-1, 2):
            excess = charge[first:last].sum() - full_well_e * (last - first)
            charge[first:last] = full_well_e
            touched[first:last, column] = True
            _pour(charge[last:], touched[last:, column], excess / 2, full_well_e)
            _pour(charge[:first][::-1], touched[:first, column][::-1], excess / 2, full_well_e)
        electrons[:, column] = charge
    return touched


def _pour(charge: np.ndarray, touched: np.ndarray, excess: float, full_well_e: float) -> None:
    """Fill pixels, in their order, up to full well; both arrays in place.

    Pixels that are over-full themselves spill later, in their own turn.
    """
    room = np.maximum(full_well_e - charge, 0)
    before = np.cumsum(room) - room
    taken = np.clip(excess - before, 0, room)
    charge += taken
    touched |= taken > 0


def read_out(
    spec: NightSpec, detector: Detector, name: FrameName, bias: np.ndarray, electrons: np.ndarray | None
) -> np.ndarray:
    """The raw frame (ny, raw columns) as uint16.

    Every amplifier adds its level, an offset of the frame and a drift along the
    rows, in data and overscan; the bias pattern is in the data only.
    """
    drifts = name.stream(spec.seed, "drift")
    frame = name.stream(spec.seed, "read noise").standard_normal(
        (detector.ny, detector.raw_columns), dtype=np.float32
    )
    for amplifier in detector.amplifiers:
        drift = amplifier.bias_level_adu + _drift_adu(drifts, detector.ny)
        data, overscan, target = (
            slice(*one) for one in (amplifier.data, amplifier.overscan, amplifier.target)
        )
        for columns in (data, overscan):
            frame[:, columns] *= np.float32(amplifier.read_noise_adu)
            frame[:, columns] += drift.astype(np.float32)[:, None]
        frame[:, data] += bias[:, target]
        if electrons is not None:
            frame[:, data] += amplifier.respond(electrons[:, target] * np.float32(1 / amplifier.gain_e_adu))
    np.rint(frame, out=frame)
    np.clip(frame, 0, ADC_TOP_ADU, out=frame)
    return frame.astype(np.uint16)


def trimmed(detector: Detector, raw: np.ndarray) -> np.ndarray:
    """The data sections of a raw frame, put together."""
    out = np.empty((detector.ny, detector.nx), raw.dtype)
    for amplifier in detector.amplifiers:
        out[:, slice(*amplifier.target)] = raw[:, slice(*amplifier.data)]
    return out


def _drift_adu(rng: np.random.Generator, ny: int) -> np.ndarray:
    """Offset of a frame and amplifier, and its smooth change while the rows are read."""
    up = np.arange(ny) / ny
    settling = rng.normal(3.0, 0.3) * np.exp(-up / 0.05)
    wave = rng.normal(0, 0.8) * np.sin(2 * np.pi * (up + rng.random()))
    return np.asarray(rng.normal(0, 3.0) + settling + wave + rng.normal(0, 1.0) * (up - 0.5))
