"""How one image differs from another: levels, structure of rows, columns and blocks, pixels of each mask bit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import BadPixels, Mixture
from .frame import Frame
from .quantity import Quantity

OUTLIER_SIGMA = 5.0
BLOCK_PX = 64


def compare_frames(now: Frame, before: Frame, unit: str = "adu") -> Iterator[Quantity]:
    """What changed between two images (ny, nx) of one detector: levels and structure, or pixels of each bit.

    ``unit``: of the pixels, for the names of the quantities. Raises Mixture if the shapes differ.
    """
    if now.data.shape != before.data.shape:
        ours, theirs = ("{1} x {0}".format(*one.data.shape) for one in (now, before))
        raise Mixture(f"images of {ours} and {theirs} pixels cannot be compared")
    if now.mask is not None and before.mask is not None:
        yield from _masks(now.mask, before.mask)
    if now.data.dtype.kind in "iu":
        return
    change = change_of(now, before, unit)
    if not change.use.any():
        raise BadPixels("the two images have no good pixel in common", hint="awe-imstat shows their pixels")
    yield from _structure(change, _boxes(now))


def _masks(now: npt.NDArray[Any], before: npt.NDArray[Any]) -> Iterator[Quantity]:
    from .pixels.mask import Bit

    for bit in Bit:
        here, there = (now & int(bit)) != 0, (before & int(bit)) != 0
        counts = int(here.sum()), int(there.sum())
        if any(counts):
            name = f"mask.{str(bit.name).lower()}_pixels"
            yield Quantity(name, counts[1], counts[0], counts[0] - counts[1])
            yield Quantity(f"{name}.gained", difference=int((here & ~there).sum()))
            yield Quantity(f"{name}.lost", difference=int((there & ~here).sum()))


@dataclass(frozen=True)
class Change:
    """How one image differs from another (ny, nx): now - before, or now / before - 1 (relative).

    ``pull``: the same in units of its expected noise; None where the images have no
    weights. ``use``: pixels that are good in both. ``suffix``: the unit, as names end in it.
    """

    data: npt.NDArray[np.float32]
    use: npt.NDArray[np.bool_]
    pull: npt.NDArray[np.float32] | None
    relative: bool
    suffix: str


def change_of(now: Frame, before: Frame, unit: str) -> Change:
    """The difference of two images; the relative one of two that have no unit and a level of about 1 (flats)."""
    use = np.isfinite(now.data) & np.isfinite(before.data)
    for one in (now, before):
        if one.weight is not None:
            use &= one.weight > 0
    relative = not unit and all(_is_response(one.data[use]) for one in (now, before))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        change = now.data - before.data
        pull = None
        if now.weight is not None and before.weight is not None:
            pull = change / np.sqrt(1 / now.weight + 1 / before.weight)
        if relative:
            change = change / before.data
            use = use & np.isfinite(change)
    suffix = "_fraction" if relative else "".join(f"_{part}" for part in unit.split("/") if part)
    return Change(change.astype(np.float32), use, pull, relative, suffix)


def _is_response(values: npt.NDArray[Any]) -> bool:
    return bool(values.size) and 0.5 < float(np.median(values[::7])) < 2


def _structure(change: Change, boxes: Sequence[tuple[str, tuple[slice, slice]]]) -> Iterator[Quantity]:
    from .pixels.smooth import block_statistics
    from .pixels.stats import clipped

    def found(name: str, value: float, suffix: str = change.suffix) -> Quantity:
        return Quantity(f"difference.{name}{suffix}", difference=value if math.isfinite(value) else None)

    whole = clipped(change.data[change.use])
    yield found("median", whole.median)
    yield found("stdev", whole.stdev)
    if len(boxes) > 1:
        for name, box in boxes:
            part = clipped(change.data[box][change.use[box]])
            yield replace(found("median", part.median), name=f"difference.median{change.suffix}[{name}]")
    reach = OUTLIER_SIGMA * whole.stdev
    # A few hot pixels must not make their row or column a structure.
    kept = np.clip(change.data, np.float32(whole.median - reach), np.float32(whole.median + reach))
    for name, axis in (("row_structure", 1), ("column_structure", 0)):
        yield found(name, clipped(_means(kept, change.use, axis)).stdev)
    blocks = block_statistics(change.data, change.use, BLOCK_PX).median - whole.median
    if np.isfinite(blocks).any():
        yield found("block_stdev", float(np.nanstd(blocks)))
        yield found("block_min", float(np.nanmin(blocks)))
        yield found("block_max", float(np.nanmax(blocks)))
    outliers = np.abs(change.data[change.use] - np.float32(whole.median)) > reach
    yield found("outlier_fraction", float(outliers.mean()), "")
    if change.pull is not None:
        yield found("pull_stdev", clipped(change.pull[change.use]).stdev, "")


def _means(values: npt.NDArray[Any], use: npt.NDArray[np.bool_], axis: int) -> npt.NDArray[np.float64]:
    counts = use.sum(axis=axis)
    sums = np.where(use, values, 0).sum(axis=axis, dtype=np.float64)
    means: npt.NDArray[np.float64] = sums[counts > 0] / counts[counts > 0]
    return means


def _boxes(frame: Frame) -> list[tuple[str, tuple[slice, slice]]]:
    from .kinds.common import amplifiers_of

    return [
        (one.name, (slice(one.target.y0, one.target.y1), slice(one.target.x0, one.target.x1)))
        for one in amplifiers_of(frame)
    ]
