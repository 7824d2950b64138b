"""Whether the stars of a frame are where and as bright as those of the others: clouds, zero points, coordinates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..pixels.coadd import Layer
from .layers import Placed, unit_places
from .shifts import shifted

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

# Columns of a block, larger than the seeing; what part of it must be good; its light over the noise of that.
BLOCK_PX, LEAST_GOOD, LEAST_SIGNAL = 16, 0.8, 20
# Columns of a table.
COLUMNS = 9
# So many blocks tell something of a frame, or of a half of it.
LEAST_BLOCKS = 8
# A correlation with the others that is less is not that of one star with itself: 0.6 is left where the seeing is
# three times as large, 0.5 where it is shifted by 0.7 of the seeing.
LEAST_CORRELATION = 0.5
# A shift or a difference is believed beyond so many errors; a shift is in parts of the seeing, or of so many pixels.
BELIEVED_SIGMA, LEAST_SEEING_PX = 5.0, 2.0
# Shifts of blocks up to so much of the seeing are fitted by a line, without outliers.
MOST_SHIFT, CLIP_SIGMA, ROUNDS = 1.5, 4.0, 5
# Where shifts are looked at: u and v.
WITHIN = (
    ("", 0.0, 0.0),
    (" in its left half", -0.5, 0.0),
    (" in its right half", 0.5, 0.0),
    (" in its lower half", 0.0, -0.5),
    (" in its upper half", 0.0, 0.5),
)


@dataclass(frozen=True)
class Limits:
    """What stars of a frame may differ by from those of the others.

    ``extinction_mag``: fainter or brighter, in the frame or a half of it. ``uneven_mag``: in one half than in the
    other. ``shift_fraction``: how far they are from where the others have them, in parts of their FWHM.
    """

    extinction_mag: float = math.inf
    uneven_mag: float = math.inf
    shift_fraction: float = math.inf


@dataclass
class Light:
    """Blocks with stars in them. Columns: frame; u and v of the block in it; ratio; correlation; those of `Shifted`.

    ``ratio``: light of the frame over that of the median of all, both above the middle value of the block.
    ``correlation``: of the pixels of both. Ratio and shift of the last are those of a fit to the median.
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
        made = np.empty((len(own), COLUMNS))
        made[:, 0] = layer.number
        starts = (np.flatnonzero(bright) + first) * BLOCK_PX
        u, v = unit_places(placed.window, layer.rows)
        made[:, 1] = u[starts + BLOCK_PX // 2 - placed.window[1][0]]
        made[:, 2] = v.mean()
        with np.errstate(divide="ignore", invalid="ignore"):
            made[:, 3] = np.where(usual > 0, own / usual, np.nan)
            made[:, 4] = np.where(scale > 0, np.nansum(values * seen, axis=1) / scale, np.nan)
        shape = len(use), layer.rows[1] - layer.rows[0], BLOCK_PX
        own_light = np.where(use, _blocks(layer.data[:, across])[bright], 0.0)
        found = shifted(*(one.reshape(shape) for one in (own_light, others[bright], use)))
        made[:, 5:] = np.stack(found, axis=1)
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


def contradictions(found: Sequence[Light], limits: Limits) -> Mapping[int, str]:
    """Frames whose stars are not those of the others, and why, by number."""
    tables = [table for one in found for table in one.tables]
    table = np.concatenate(tables) if tables else np.empty((0, COLUMNS))
    seeing = table[np.isfinite(table[:, 8]), 8]
    seeing_px = max(LEAST_SEEING_PX, float(np.median(seeing))) if len(seeing) else LEAST_SEEING_PX
    reasons: dict[int, str] = {}
    for number in np.unique(table[:, 0]):
        own = table[table[:, 0] == number]
        reason = _contradiction(own, limits, seeing_px)
        if reason:
            reasons[int(number)] = reason
    return reasons


def _contradiction(own: Doubles, limits: Limits, seeing_px: float) -> str:
    if len(own) < LEAST_BLOCKS:
        return ""
    alike = np.nan_to_num(own[:, 4], nan=0.0)
    if float(np.median(alike)) < LEAST_CORRELATION:
        return (
            "its stars are not where those of the others are: its coordinates"
            f" (a correlation of {np.median(alike):.2f} in {len(own)} places)"
        )
    halves = {"": np.ones(len(own), bool)} | {
        f" in its {name} half": side
        for name, side in (
            ("left", own[:, 1] < 0),
            ("right", own[:, 1] > 0),
            ("lower", own[:, 2] < 0),
            ("upper", own[:, 2] > 0),
        )
    }
    return (
        _shift(own, limits.shift_fraction, seeing_px)
        or _extinction(own, halves, limits.extinction_mag)
        or _unevenness(own, halves, limits.uneven_mag)
    )


def _extinction(own: Doubles, halves: Mapping[str, Flags], most_mag: float) -> str:
    for where, side in halves.items():
        ratio = np.nan_to_num(own[side, 3], nan=0.0)
        if len(ratio) < LEAST_BLOCKS:
            continue
        fainter = -2.5 * float(np.log10(max(float(np.median(ratio)), 1e-4)))
        if abs(fainter) > most_mag:
            word = "fainter" if fainter > 0 else "brighter"
            return f"its stars are {abs(fainter):.2f} mag {word} than in the others{where}: a cloud, or its zero point"
    return ""


def _shift(own: Doubles, most: float, seeing_px: float) -> str:
    x, y = own[:, 6], own[:, 7]
    # What is farther is no star of both: such frames are told by the correlation.
    near = np.hypot(np.nan_to_num(x, nan=math.inf), y) < MOST_SHIFT * seeing_px
    if np.count_nonzero(near) < LEAST_BLOCKS:
        return ""
    linear = np.count_nonzero(near) >= 2 * LEAST_BLOCKS
    design = np.stack([np.ones(len(own)), own[:, 1], own[:, 2]], axis=1)[near, : 3 if linear else 1]
    (x_terms, x_cover), (y_terms, y_cover) = _line(design, x[near]), _line(design, y[near])
    for where, u, v in WITHIN if linear else WITHIN[:1]:
        at = np.array([1.0, u, v])[: design.shape[1]]
        found = np.array([(at * x_terms).sum(), (at * y_terms).sum()])
        spread = np.array([(at * (cover * at).sum(axis=1)).sum() for cover in (x_cover, y_cover)])
        away = float(np.hypot(*found))
        error = float(np.sqrt((found * found * spread).sum())) / max(away, 1e-9)
        if away > max(most * seeing_px, BELIEVED_SIGMA * error):
            return (
                f"its stars are {away:.2f} pixels from where the others have them{where},"
                f" {away / seeing_px:.2f} of the seeing: its coordinates"
            )
    return ""


def _line(design: Doubles, values: Doubles) -> tuple[Doubles, Doubles]:
    """Terms of a fit without outliers, and their covariance."""
    use = np.ones(len(values), bool)
    for _ in range(ROUNDS):
        part = design[use]
        inverse = np.linalg.inv(
            (part[:, :, None] * part[:, None, :]).sum(axis=0) + 1e-9 * np.eye(design.shape[1])
        )
        terms = (inverse * (part * values[use, None]).sum(axis=0)).sum(axis=1)
        away = np.abs(values - (design * terms).sum(axis=1))
        freedom = max(1, len(part) - design.shape[1])
        scatter = float(np.median(away[use])) / 0.6745 * math.sqrt(len(part) / freedom)
        use = away <= CLIP_SIGMA * max(scatter, 1e-9)
    return terms, inverse * scatter**2 * 1.2533**2


def _unevenness(own: Doubles, halves: Mapping[str, Flags], most_mag: float) -> str:
    with np.errstate(divide="ignore", invalid="ignore"):
        fainter = -2.5 * np.log10(own[:, 5])
    sides = list(halves.items())[1:]
    for (_, one), (where, other) in (sides[:2], sides[2:]):
        (here, here_error), (there, there_error) = _middle(fainter[one]), _middle(fainter[other])
        away = abs(there - here)
        if away > max(most_mag, BELIEVED_SIGMA * math.hypot(here_error, there_error)):
            more = "fainter" if there > here else "brighter"
            return f"its stars are {away:.2f} mag {more}{where} than in the other: a cloud, or its flat"
    return ""


def _middle(values: Doubles) -> tuple[float, float]:
    """The median of what is known and its error, from the scatter; infinite for too few."""
    known = values[np.isfinite(values)]
    if len(known) < LEAST_BLOCKS:
        return 0.0, math.inf
    middle = float(np.median(known))
    scatter = float(np.median(np.abs(known - middle))) / 0.6745
    return middle, 1.2533 * scatter / math.sqrt(len(known))
