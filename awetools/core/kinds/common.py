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
from ..pixels.overscan import overscan_rows
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

    def rows(self, y0: int, y1: int) -> np.ndarray:
        """Rows of the trimmed detector, float32 ADU."""
        # What is beyond single precision becomes infinite, and is treated like all that is not finite.
        with np.errstate(over="ignore"):
            out = self.frame.rows(y0, y1).astype(np.float32)
        for amp, levels in zip(self.frame.amplifiers, self.levels, strict=True):
            low, high = max(y0, amp.target.y0), min(y1, amp.target.y1)
            if low < high:
                part = out[low - y0 : high - y0, amp.target.x0 : amp.target.x1]
                part -= levels[low - amp.target.y0 : high - amp.target.y0, None]
        return out

    def image(self) -> np.ndarray:
        """The whole trimmed detector, float32 ADU."""
        return self.rows(0, self.frame.shape[0])


def trim(frame: RawFrame, mode: str) -> Trimmed:
    """Measure the overscan of every amplifier by a mode (pixels.overscan) and return the trimmed frame."""
    levels, found = [], []
    for amp in frame.amplifiers:
        rows = amp.target.y1 - amp.target.y0
        strip = None if mode == "none" else frame.overscan(amp)
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
        for column, amp in enumerate(amplifiers):
            a, b = _sample(one, amp, rows), _sample(other, amp, rows)
            use = np.isfinite(a) & np.isfinite(b)
            out[number, column] = pair_noise(a, b, use) if use.any() else 0.0
            if out[number, column] <= 0:
                raise BadPixels(
                    f"amplifier {amp.name}: two frames are constant or identical "
                    f"({one.frame.meta.get('exposure')}, {other.frame.meta.get('exposure')})",
                    hint="awe-imstat shows their pixels",
                )
    return out


def _sample(trimmed: Trimmed, amp: Amplifier, rows: int) -> np.ndarray:
    height = amp.target.y1 - amp.target.y0
    columns = slice(amp.target.x0, amp.target.x1)
    if not rows or rows >= height:
        return trimmed.rows(amp.target.y0, amp.target.y1)[:, columns]
    starts = np.linspace(0, height - 16, rows // 16).astype(int) + amp.target.y0
    return np.concatenate([trimmed.rows(y, y + 16)[:, columns] for y in starts])


def read_noise_of(
    readnoise: Table | None, others: Sequence[Mapping[str, Any]], amplifiers: Sequence[Amplifier]
) -> list[float] | None:
    """Read noise of each amplifier, ADU: from a readnoise product, else the first meta that has it, else None."""
    if readnoise is not None:
        names = [str(name) for name in readnoise.columns["AMP"]]
        wanted = [amp.name for amp in amplifiers]
        if names != wanted:
            raise BadHeader(f"the readnoise product has amplifiers {names}, the frame {wanted}")
        return [float(value) for value in readnoise.columns["READ_NOISE_ADU"]]
    for meta in others:
        values = meta.get("read_noise_adu")
        if values and len(values) == len(amplifiers) and all(value for value in values):
            return [float(value) for value in values]
    return None


def gain_of(meta: Mapping[str, Any], amplifiers: Sequence[Amplifier]) -> list[float]:
    """Gain of each amplifier, e/ADU; raises BadHeader where neither header nor camera table gives it."""
    values = meta.get("gain_e_adu")
    if not values or len(values) != len(amplifiers) or not all(values):
        raise BadHeader(
            f"{meta.get('exposure')}: the gain of {meta.get('detector')} is not known",
            hint="awe-ingest --set gain_e_adu=VALUE FILE, or a camera table (then awe-ingest again)",
        )
    if max(values) > LARGEST_GAIN_E_ADU:
        raise BadHeader(
            f"{meta.get('exposure')}: the gain of {meta.get('detector')} cannot be {max(values):g} e/ADU",
            hint="awe-ingest --set gain_e_adu=VALUE FILE",
        )
    return [float(value) for value in values]


def saturation_of(meta: Mapping[str, Any], amplifiers: Sequence[Amplifier]) -> list[float]:
    """Saturation of each amplifier, ADU in the raw frame; infinite where it is not known."""
    values = meta.get("saturation_adu")
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
