"""Whether the stars of a frame are where and as bright as those of the others: clouds, zero points, coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..pixels.coadd import Layer
from .layers import Placed, unit_places

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

# Columns of a block, larger than the seeing; what part of it must be good; its light over the noise of that.
BLOCK_PX, LEAST_GOOD, LEAST_SIGNAL = 16, 0.8, 20
# So many blocks tell something of a frame, or of a half of it.
LEAST_BLOCKS = 8
# A correlation with the others that is less is not that of one star with itself: 0.6 is left where the seeing is
# three times as large, 0.5 where it is shifted by 0.7 of the seeing.
LEAST_CORRELATION = 0.5


@dataclass
class Light:
    """Blocks with stars in them. Columns: frame; u and v of the block in it; ratio; correlation.

    ``ratio``: light of the frame over that of the median of all, both above the middle value of the block.
    ``correlation``: of the pixels of both.
    """

    tables: list[Doubles] = field(default_factory=list)

    def add(
        self, layers: Sequence[Layer], placed: Sequence[Placed], centre: Floats, known: npt.NDArray[Any]
    ) -> None:
        """Take those of some rows. centre: the median there; known: how many values it is of (3 at least count)."""
        height, width = centre.shape[0], centre.shape[1] // BLOCK_PX * BLOCK_PX
        rows = max((one.rows for one in layers), default=(0, 0), key=lambda span: span[1] - span[0])
        if not width or rows[1] - rows[0] != height:
            return
        middle = _blocks(centre[:, :width])
        light = _above(np.where(_blocks(known[:, :width]) >= 3, middle, np.nan))
        for one in layers:
            if one.rows == rows:
                self._take(one, placed[one.number], light)

    def _take(self, layer: Layer, placed: Placed, light: tuple[Doubles, Doubles, Doubles]) -> None:
        first, last = -(-layer.columns[0] // BLOCK_PX), min(layer.columns[1] // BLOCK_PX, len(light[0]))
        if first >= last:
            return
        across = slice(first * BLOCK_PX - layer.columns[0], last * BLOCK_PX - layer.columns[0])
        weight = _blocks(layer.weight[:, across])
        others, spread, total = (one[first:last] for one in light)
        good = (weight > 0) & np.isfinite(others)
        count = np.count_nonzero(good, axis=1)
        noise = 1 / np.sqrt(np.maximum(np.where(good, weight, 0).sum(axis=1) / np.maximum(count, 1), 1e-30))
        size = good.shape[1]
        bright = (count >= LEAST_GOOD * size) & (
            total > LEAST_SIGNAL * np.sqrt(size) * np.maximum(noise, spread)
        )
        if not bright.any():
            return
        use = good[bright]
        values, _, own = _above(np.where(use, _blocks(layer.data[:, across])[bright], np.nan))
        seen, _, usual = _above(np.where(use, others[bright], np.nan))
        # What noise adds to the square of a frame is taken off.
        squares = np.nansum(values**2, axis=1) - count[bright] * noise[bright] ** 2
        scale = np.sqrt(np.maximum(squares, 0) * np.nansum(seen**2, axis=1))
        made = np.empty((len(own), 5))
        made[:, 0] = layer.number
        starts = (np.flatnonzero(bright) + first) * BLOCK_PX
        u, v = unit_places(placed.window, layer.rows)
        made[:, 1] = u[starts + BLOCK_PX // 2 - placed.window[1][0]]
        made[:, 2] = v.mean()
        with np.errstate(divide="ignore", invalid="ignore"):
            made[:, 3] = np.where(usual > 0, own / usual, np.nan)
            made[:, 4] = np.where(scale > 0, np.nansum(values * seen, axis=1) / scale, np.nan)
        self.tables.append(made)


def _blocks(plane: npt.NDArray[np.float32]) -> Doubles:
    rows, columns = plane.shape
    parts = plane.reshape(rows, columns // BLOCK_PX, BLOCK_PX)
    return np.ascontiguousarray(parts.transpose(1, 0, 2), np.float64).reshape(columns // BLOCK_PX, -1)


def _above(blocks: Doubles) -> tuple[Doubles, Doubles, Doubles]:
    """Blocks less their middle value, the scatter of each and its sum; nan where none is known."""
    made = np.full(blocks.shape, np.nan)
    spread, total = np.full(len(blocks), np.inf), np.zeros(len(blocks))
    some = np.flatnonzero(np.isfinite(blocks).any(axis=1))
    if len(some):
        made[some] = blocks[some] - np.nanmedian(blocks[some], axis=1)[:, None]
        spread[some] = np.nanmedian(np.abs(made[some]), axis=1) / 0.6745
        total[some] = np.nansum(made[some], axis=1)
    return made, spread, total


def contradictions(found: Sequence[Light], most_mag: float | None) -> Mapping[int, str]:
    """Frames whose stars are not those of the others, and why, by number.

    most_mag: by how much stars of a frame, or of a half of it, may be fainter or brighter than in the others.
    """
    tables = [table for one in found for table in one.tables]
    table = np.concatenate(tables) if tables else np.empty((0, 5))
    reasons: dict[int, str] = {}
    for number in np.unique(table[:, 0]):
        own = table[table[:, 0] == number]
        reason = _contradiction(own, most_mag)
        if reason:
            reasons[int(number)] = reason
    return reasons


def _contradiction(own: Doubles, most_mag: float | None) -> str:
    if len(own) < LEAST_BLOCKS:
        return ""
    alike = np.nan_to_num(own[:, 4], nan=0.0)
    if float(np.median(alike)) < LEAST_CORRELATION:
        return (
            "its stars are not where those of the others are: its coordinates"
            f" (a correlation of {np.median(alike):.2f} in {len(own)} places)"
        )
    if most_mag is None:
        return ""
    halves = {"": np.ones(len(own), bool)} | {
        f" in its {name} half": side
        for name, side in (
            ("left", own[:, 1] < 0),
            ("right", own[:, 1] > 0),
            ("lower", own[:, 2] < 0),
            ("upper", own[:, 2] > 0),
        )
    }
    for where, side in halves.items():
        ratio = np.nan_to_num(own[side, 3], nan=0.0)
        if len(ratio) < LEAST_BLOCKS:
            continue
        fainter = -2.5 * float(np.log10(max(float(np.median(ratio)), 1e-4)))
        if abs(fainter) > most_mag:
            word = "fainter" if fainter > 0 else "brighter"
            return f"its stars are {abs(fainter):.2f} mag {word} than in the others{where}: a cloud, or its zero point"
    return ""
