"""The simulated camera SIMCAM: detectors side by side, each read by one or two amplifiers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .plan import stream
from .spec import OVERSCAN_COLUMNS, NightSpec

INSTRUMENT = "SIMCAM"
NOMINAL_READ_NOISE_E = 5.0
ADC_TOP_ADU = 65535
FULL_WELL_RANGE_E = (95e3, 130e3)
SATURATE_SAFETY = 0.98
NONLINEAR_FRACTION = 0.01

Card = tuple[str, str | int | float | bool, str]


@dataclass(frozen=True)
class Amplifier:
    """One amplifier; columns are 0-based and half open, in the raw frame unless they say otherwise.

    suffix ends its header cards; target are its columns in the trimmed detector;
    mirrored: it reads from right to left; nonlinearity: fraction of a signal of
    65,535 ADU that is lost.
    """

    suffix: str
    target: tuple[int, int]
    data: tuple[int, int]
    overscan: tuple[int, int]
    mirrored: bool
    gain_e_adu: float
    read_noise_e: float
    bias_level_adu: float
    nonlinearity: float = 0.0

    @property
    def read_noise_adu(self) -> float:
        """Read noise in ADU."""
        return self.read_noise_e / self.gain_e_adu

    @property
    def nonlinear_adu(self) -> float | None:
        """Level read, above the bias, that is 1% below what it should be; None if linear."""
        if not self.nonlinearity:
            return None
        return (1 - NONLINEAR_FRACTION) * NONLINEAR_FRACTION * ADC_TOP_ADU / self.nonlinearity

    def respond(self, signal_adu: np.ndarray) -> np.ndarray:
        """What is read of a signal above the bias, ADU: less by a part that grows with its square."""
        if not self.nonlinearity:
            return signal_adu
        # Beyond the parabola's top, which is above what the converter can say, it stays there.
        signal = np.minimum(signal_adu, np.float32(ADC_TOP_ADU / (2 * self.nonlinearity)))
        read: np.ndarray = signal - np.float32(self.nonlinearity / ADC_TOP_ADU) * signal * signal
        return read


@dataclass(frozen=True)
class Detector:
    """One detector: its place in the mosaic and its electronics.

    offset_px: columns from the optical axis to its centre; efficiency: its
    sensitivity relative to the zero point of the filter.
    """

    name: str
    index: int
    nx: int
    ny: int
    offset_px: float
    efficiency: float
    full_well_e: float
    amplifiers: tuple[Amplifier, ...]

    @property
    def raw_columns(self) -> int:
        """Columns of a raw frame."""
        return self.nx + OVERSCAN_COLUMNS * len(self.amplifiers)

    @property
    def data_start(self) -> int:
        """Columns of the raw frame in front of the first data column."""
        return min(amplifier.data[0] for amplifier in self.amplifiers)

    @property
    def saturate_adu(self) -> int:
        """Raw level, bias included, below which no pixel has lost charge or was clipped."""
        return int(SATURATE_SAFETY * min(self._top_adu(one) for one in self.amplifiers))

    def _top_adu(self, one: Amplifier) -> float:
        """What an amplifier reads of a full well, or the highest number there is."""
        signal = self.full_well_e / one.gain_e_adu
        if one.nonlinearity:
            signal = float(one.respond(np.asarray(signal, np.float64)))
        return min(signal + one.bias_level_adu, ADC_TOP_ADU)


def make_detector(spec: NightSpec, index: int) -> Detector:
    """The detector of that place, counted from 0 at the left."""
    nx, ny = spec.shape
    rng = stream(spec.seed, "detector", index)
    return Detector(
        name=spec.detector_names[index],
        index=index,
        nx=nx,
        ny=ny,
        offset_px=(index - (spec.detectors - 1) / 2) * (nx + spec.gap_px),
        efficiency=float(rng.uniform(0.95, 1.05)),
        full_well_e=round(float(rng.uniform(*FULL_WELL_RANGE_E)), -2),
        amplifiers=tuple(_amplifier(spec, index, number) for number in range(spec.amplifiers)),
    )


def _amplifier(spec: NightSpec, detector: int, number: int) -> Amplifier:
    """Overscan lies at the outer edge of each half, so that the data of both halves touch."""
    rng = stream(spec.seed, "amplifier", detector, number)
    width = spec.shape[0] // spec.amplifiers
    target = (number * width, (number + 1) * width)
    start = OVERSCAN_COLUMNS + target[0]
    right = number == 1
    overscan = (start + width, start + width + OVERSCAN_COLUMNS) if right else (0, OVERSCAN_COLUMNS)
    return Amplifier(
        suffix="" if spec.amplifiers == 1 else "AB"[number],
        target=target,
        data=(start, start + width),
        overscan=overscan,
        mirrored=right,
        gain_e_adu=round(spec.gain_e_adu * float(1 + rng.uniform(-0.015, 0.015)), 4),
        read_noise_e=round(NOMINAL_READ_NOISE_E * float(1 + rng.uniform(-0.12, 0.12)), 3),
        bias_level_adu=round(float(rng.uniform(1000, 1500)), 1),
        nonlinearity=round(spec.nonlinearity * float(1 + rng.uniform(-0.2, 0.2)), 6),
    )


def amplifier_cards(detector: Detector) -> list[Card]:
    """Header cards of the sections, gains and read noises of a detector."""
    cards: list[Card] = []
    for one in detector.amplifiers:
        which = f"amplifier {one.suffix}" if one.suffix else "the amplifier"
        for key, columns, what in (
            ("DATASEC", one.data, "light-sensitive columns"),
            ("BIASSEC", one.overscan, "overscan columns"),
            ("TRIMSEC", one.target, "place in the trimmed detector"),
        ):
            cards.append((key + one.suffix, _section(columns, detector.ny), f"{what} of {which}"))
        cards.append(("GAIN" + one.suffix, one.gain_e_adu, f"[e-/ADU] gain of {which}"))
        cards.append(("RDNOISE" + one.suffix, one.read_noise_e, f"[e-] read noise of {which}"))
    return cards


def _section(columns: tuple[int, int], ny: int) -> str:
    return f"[{columns[0] + 1}:{columns[1]},1:{ny}]"
