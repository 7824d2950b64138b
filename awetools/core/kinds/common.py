"""What several recipes share: overscan and trimming, amplifier values, noise from pairs.

Imported by recipes when they run, because it needs numpy; see `declare` for what declarations share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import BadHeader, BadPixels
from ..frame import Frame, FrameSet, RawFrame, Table, over_amplifiers
from ..pixels.overscan import less_levels, overscan_rows
from ..pixels.stats import pair_noise
from ..sections import Amplifier, Section, amplifiers_from_meta

DIGITISATION_VARIANCE_ADU2 = 1 / 12
READ_NOISE_HINT = (
    "--readnoise FILE, --bias FILE, awe-ingest --set read_noise_adu=VALUE FILE, "
    "or a camera table (then awe-ingest again)"
)

# No detector has more; beyond it single precision ends.
LARGEST_GAIN_E_ADU = 1e6


@dataclass(frozen=True)
class Trimmed:
    """A raw frame less its overscan, trimmed and assembled, read in rows.

    levels: one array an amplifier, the overscan of each of its rows in target
    order, ADU. level_adu, slope_adu, noise_adu: means over the amplifiers; slope
    from the first row to the last.
    """

    frame: RawFrame
    levels: tuple[np.ndarray, ...]
    level_adu: float
    slope_adu: float
    noise_adu: float

    def rows(self, y0: int, y1: int, out: np.ndarray | None = None) -> np.ndarray:
        """Rows of the trimmed detector, float32 ADU; written to `out` (float32, contiguous) where given."""
        width = self.frame.shape[1]
        result = np.empty((y1 - y0, width), np.float32) if out is None else out
        for number, ys, xs, raw in self.frame.raw_rows(y0, y1):
            amp = self.frame.amplifiers[number]
            first = y0 + ys.start - amp.target.y0
            levels = self.levels[number][first : first + ys.stop - ys.start]
            turned = (amp.target.flip_x, amp.target.flip_y)
            less_levels(raw, (amp.data.x0, amp.data.x1), turned, levels, result, (ys.start, xs.start))
        return result

    def image(self) -> np.ndarray:
        """The whole trimmed detector, float32 ADU."""
        return self.rows(0, self.frame.shape[0])


def trim(frame: RawFrame, mode: str) -> Trimmed:
    """Measure the overscan of every amplifier by a mode (pixels.overscan) and return the trimmed frame."""
    levels, found = [], []
    amplifiers = frame.amplifiers
    strips = [None] * len(amplifiers) if mode == "none" else frame.overscans(amplifiers)
    for amp, strip in zip(amplifiers, strips, strict=True):
        rows = amp.target.y1 - amp.target.y0
        if strip is None:
            levels.append(np.zeros(rows, dtype=np.float32))
            continue
        # An overscan that does not run beside the rows of the data gives one level only.
        overscan = overscan_rows(strip, mode if len(strip) == rows else "level")
        same = len(overscan.rows) == rows
        levels.append(overscan.rows if same else np.full(rows, overscan.level_adu, dtype=np.float32))
        found.append(overscan)
    if not found:
        return Trimmed(frame, tuple(levels), 0.0, 0.0, 0.0)
    return Trimmed(
        frame,
        tuple(levels),
        float(np.mean([one.level_adu for one in found])),
        float(np.mean([one.slope_adu_per_row * len(one.rows) for one in found])),
        float(np.mean([one.noise_adu for one in found])),
    )


def holds_bias(dark: Frame | None) -> bool:
    """Whether a dark was made without a bias, and so has it in it."""
    return dark is not None and bool(dark.meta.get("holds_bias"))


def less_bias_and_dark(
    data: np.ndarray, rows: slice, bias: Frame | None, dark: Frame | None, exptime_s: float
) -> None:
    """Subtract bias and dark current from these rows of a trimmed exposure, float32 ADU, in place."""
    with np.errstate(over="ignore", invalid="ignore"):
        if bias is not None and not holds_bias(dark):
            data -= bias.data[rows]
        if dark is not None:
            data -= dark.data[rows] * np.float32(1.0 if holds_bias(dark) else exptime_s)


def in_time_order(frames: FrameSet) -> list[RawFrame]:
    """The frames by their start, so that a pair is two neighbours in time."""
    return sorted(frames, key=lambda frame: str(frame.meta.get("obs_start")))


def noise_of_pairs(trimmed: Sequence[Trimmed], amplifiers: Sequence[Amplifier], rows: int) -> np.ndarray:
    """Noise of one frame in every pair of neighbours and every amplifier: (pairs, amplifiers), ADU.

    rows: how many rows of each amplifier are used, spread evenly over it in
    blocks of 16; 0 for all. Raises BadPixels where two frames are identical.
    """
    pairs = [(trimmed[n], trimmed[n + 1]) for n in range(0, len(trimmed) - 1, 2)]
    if len(trimmed) % 2:
        pairs.append((trimmed[-1], trimmed[0]))
    out = np.zeros((len(pairs), len(amplifiers)))
    for number, (one, other) in enumerate(pairs):
        for column, (a, b) in enumerate(zip(_samples(one, rows), _samples(other, rows), strict=True)):
            out[number, column] = pair_noise(a, b)
            if not out[number, column] > 0:
                raise BadPixels(
                    f"amplifier {amplifiers[column].name}: two frames are constant or identical "
                    f"({one.frame.meta.get('exposure')}, {other.frame.meta.get('exposure')})",
                    hint="awe-imstat shows their pixels",
                )
    return out


def _samples(trimmed: Trimmed, rows: int) -> list[np.ndarray]:
    """Rows of each amplifier, spread evenly in blocks of 16 (0: all); those that amplifiers share are read once."""
    read: dict[tuple[int, int], np.ndarray] = {}
    for amp in trimmed.frame.amplifiers:
        y0, y1 = amp.target.y0, amp.target.y1
        if (y0, y1) in read:
            continue
        if not rows or rows >= y1 - y0:
            read[y0, y1] = trimmed.rows(y0, y1)
            continue
        starts = np.linspace(0, y1 - y0 - 16, rows // 16).astype(int) + y0
        read[y0, y1] = np.concatenate([trimmed.rows(y, y + 16) for y in starts.tolist()])
    targets = [amp.target for amp in trimmed.frame.amplifiers]
    return [read[one.y0, one.y1][:, one.x0 : one.x1] for one in targets]


def read_noise_of(
    readnoise: Table | None, others: Sequence[Mapping[str, Any]], amplifiers: Sequence[Amplifier]
) -> list[float] | None:
    """Read noise of each amplifier, ADU: from a readnoise product, else the first meta that has it, else None."""
    if readnoise is not None:
        return _of_amplifiers(readnoise, "readnoise", "READ_NOISE_ADU", amplifiers)
    for meta in others:
        values = meta.get("read_noise_adu")
        if values and len(values) == len(amplifiers) and all(value for value in values):
            return [float(value) for value in values]
    return None


def gain_of(gain: Table | None, meta: Mapping[str, Any], amplifiers: Sequence[Amplifier]) -> list[float]:
    """Gain of each amplifier, e/ADU: from a gain product, else the meta (header or camera table).

    Raises BadHeader where neither gives it, or the product has other amplifiers.
    """
    if gain is not None:
        return _of_amplifiers(gain, "gain", "GAIN_E_ADU", amplifiers)
    values = meta.get("gain_e_adu")
    if not values or len(values) != len(amplifiers) or not all(values):
        raise BadHeader(
            f"{meta.get('exposure')}: the gain of {meta.get('detector')} is not known",
            hint="awe-ingest --set gain_e_adu=VALUE FILE (and read_noise_adu, if that is not known either), "
            "or a camera table (then awe-ingest again)",
        )
    if max(values) > LARGEST_GAIN_E_ADU:
        raise BadHeader(
            f"{meta.get('exposure')}: the gain of {meta.get('detector')} cannot be {max(values):g} e/ADU",
            hint="awe-ingest --set gain_e_adu=VALUE FILE",
        )
    return [float(value) for value in values]


def nonlinear_of(gain: Table | None, amplifiers: Sequence[Amplifier]) -> list[float]:
    """Level above zero at which each amplifier is off by 1%, ADU; infinite where it is not known to be."""
    if gain is None:
        return [float("inf")] * len(amplifiers)
    values = _of_amplifiers(gain, "gain", "NONLINEAR_ADU", amplifiers)
    return [value if value > 0 else float("inf") for value in values]


def _of_amplifiers(table: Table, kind: str, column: str, amplifiers: Sequence[Amplifier]) -> list[float]:
    """A column of a table of numbers that has a row an amplifier; BadHeader if they are not those of the frame."""
    names = [str(name) for name in table.columns["AMP"]]
    wanted = [amp.name for amp in amplifiers]
    if names != wanted:
        raise BadHeader(f"the {kind} product has amplifiers {names}, the frame {wanted}")
    return [float(value) for value in table.columns[column]]


def saturation_of(meta: Mapping[str, Any], amplifiers: Sequence[Amplifier]) -> list[float]:
    """Saturation of each amplifier, ADU in the raw frame; infinite where it is not known."""
    return raw_levels_of(meta, "saturation_adu", amplifiers)


def raw_levels_of(meta: Mapping[str, Any], name: str, amplifiers: Sequence[Amplifier]) -> list[float]:
    """A level of each amplifier, ADU in the raw frame, from a field of the meta; infinite where it is not known."""
    values = meta.get(name)
    if not values or len(values) != len(amplifiers):
        return [float("inf")] * len(amplifiers)
    return [float(value) if value else float("inf") for value in values]


def amplifier_map(
    amplifiers: Sequence[Amplifier],
    values: Sequence[float],
    shape: tuple[int, int],
    y0: int = 0,
    y1: int | None = None,
) -> np.ndarray:
    """A value an amplifier over rows y0 to y1 of the detector, as it broadcasts."""
    whole = over_amplifiers(amplifiers, values, shape)
    return whole if whole.shape[0] == 1 else whole[y0:y1]


def amplifiers_of(frame: Frame) -> tuple[Amplifier, ...]:
    """The amplifiers of a trimmed frame; one that covers it all where its meta does not say."""
    sections = frame.meta.get("sections")
    if sections:
        return amplifiers_from_meta(sections)
    ny, nx = frame.data.shape
    whole = Section(0, nx, 0, ny, False, False)
    return (Amplifier("A", 0, whole, None, whole),)


def gradient_of(smooth: np.ndarray) -> float:
    """Range of a smoothed flat, 1st to 99th percentile, in the unit of the flat."""
    # Neighbouring pixels of a smooth image say the same.
    low, high = np.percentile(smooth[::4, ::4], [1, 99])
    return float(high - low)
