"""The numbers of the plots of images: overscan, profiles, residual maps, histograms, masks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..changes import Change, change_of
from ..errors import BadPixels, NoImage, UsageError, WrongKind
from ..frame import Frame, RawFrame
from ..kinds.common import amplifiers_of
from ..pixels.stats import clipped, row_medians
from .figure import Curve, Map, Panel, Plot, label_of, with_unit

# Longest side of the picture of a mask, alone and over its image: a single bad pixel still shows.
MASK_PX, OVERLAY_PX = 256, 400
# Pixels this far from the mean of their line (in sigma of all) are left out of its mean.
LINE_SIGMA = 4.0
# A profile shows this range of its values, and so much around it (of the range).
SHOWN_PERCENT, AROUND = (0.5, 99.5), 0.35
BINS = 120
HISTOGRAM_SIGMA = 7.0
SKY_MESH_PX = 64
# The smooth version of a flat is that of windows of so many blocks: structure of a block's size is left.
SMOOTH_BLOCKS = 4
LEAST_BLOCK_PX = 4
PULL_LABEL = "(SCI \N{MINUS SIGN} sky) \N{MULTIPLICATION SIGN} \N{SQUARE ROOT}WEIGHT"
PER_CENT = 100.0


@dataclass(frozen=True)
class Shown:
    """A frame to be plotted: the name of its file, its label in a legend with others, and the unit of its pixels.

    The unit is ``adu``, another, or nothing.
    """

    name: str
    label: str
    frame: Frame
    unit: str = "adu"

    @property
    def use(self) -> npt.NDArray[np.bool_]:
        """True where a pixel is good: finite, and of a weight that is not 0."""
        finite: npt.NDArray[np.bool_] = np.isfinite(self.frame.data)
        return finite if self.frame.weight is None else finite & (self.frame.weight > 0)


def overscan(frames: Sequence[tuple[str, RawFrame]], mode: str | None = None) -> Plot:
    """The level of each row in the overscan, and what is subtracted: a panel an amplifier, ADU.

    ``mode``: of pixels.overscan, by default that of the frame (``rows-smooth`` where it
    says none). Raises NoImage for a frame without overscan.
    """
    from ..pixels.overscan import overscan_rows

    panels: dict[str, list[Curve]] = {}
    many = len(frames) > 1
    for number, (label, frame) in enumerate(frames):
        how = mode or str(frame.meta.get("overscan_mode") or "none")
        how = "rows-smooth" if how == "none" else how
        strips = [(amp, frame.overscan(amp)) for amp in frame.amplifiers]
        if all(strip is None for _, strip in strips):
            raise NoImage(
                f"{label or frame.meta.get('exposure')}: the frame has no overscan",
                hint="awe-plot --what histogram",
            )
        for amp, strip in strips:
            if strip is None:
                continue
            rows = amp.target.y0 + 1 + np.arange(len(strip))
            means = overscan_rows(strip, "rows").rows
            model = overscan_rows(strip, how).rows
            curves = panels.setdefault(f"amplifier {amp.name}", [])
            curves.append(Curve(label if many else "mean of a row", rows, means, "points", number))
            own = number if many else 1
            curves.append(Curve("" if many else f"subtracted ({how})", rows, model, "line", own))
    height = max(float(curve.x[-1]) for curves in panels.values() for curve in curves)
    listed = [
        Panel(label_of("row_px"), "overscan (ADU)", name, curves, x_limits=(0.5, height + 0.5))
        for name, curves in panels.items()
    ]
    return Plot(listed, "Overscan", 1 if len(listed) <= 4 else 3)


def profile(shown: Iterable[Shown]) -> Plot:
    """The clipped mean of the good pixels of each column, and of each row; in the unit of the pixels.

    Dotted lines are edges of amplifiers. What lies far outside of the range of all
    others is beyond the frame, and counted in a note. Raises WrongKind for a mask.
    """
    across: list[Curve] = []
    along: list[Curve] = []
    unit, marks = "", ([0.0], [0.0])
    for number, one in enumerate(_images(shown, "profile")):
        data, use = one.frame.data.astype(np.float32), one.use
        if not use.any():
            raise BadPixels(f"{one.name}: no good pixel to show")
        for curves, turned in ((across, True), (along, False)):
            means = _line_means(data.T, use.T) if turned else _line_means(data, use)
            at = 1 + np.arange(len(means))
            curves.append(Curve(one.label, at, means, "line", number))
        unit, marks = one.unit, _edges(one.frame)
    return Plot(
        [
            _profile_panel("column", unit, across, marks[0]),
            _profile_panel("row", unit, along, marks[1]),
        ],
        "Profiles along the rows and columns",
    )


def _profile_panel(name: str, unit: str, curves: Sequence[Curve], marks: Sequence[float]) -> Panel:
    values = np.concatenate([curve.y[np.isfinite(curve.y)] for curve in curves])
    low, high = np.percentile(values, SHOWN_PERCENT)
    around = AROUND * (high - low)
    low, high = max(low - around, values.min() - around / 5), min(high + around, values.max() + around / 5)
    beyond = int(((values < low) | (values > high)).sum()) if high > low else 0
    return Panel(
        label_of(f"{name}_px"),
        with_unit(f"mean of the {name}", unit),
        curves=curves,
        note=_beyond(beyond, name, values),
        marks=marks,
        x_limits=(0.5, max(len(curve.y) for curve in curves) + 0.5),
        y_limits=(float(low), float(high)) if beyond else None,
    )


def _beyond(count: int, name: str, values: npt.NDArray[Any]) -> str:
    if not count:
        return ""
    many = "s" if count > 1 else ""
    return f"{count} {name}{many} beyond the frame (values from {values.min():.5g} to {values.max():.5g})"


def _line_means(data: npt.NDArray[np.float32], use: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Mean of the good pixels of each row that are not far from its median; nan where none is good."""
    medians = row_medians(data, use)
    with np.errstate(invalid="ignore"):
        away = data - medians[:, None]
        # Medians of whole numbers stick to them; the mean does not.
        kept = use & (np.abs(away) <= LINE_SIGMA * max(clipped(away[use]).stdev, 1e-30))
        counts = kept.sum(axis=1)
        sums = np.where(kept, away, 0).sum(axis=1, dtype=np.float64)
        means: npt.NDArray[np.float64] = medians + sums / np.where(counts > 0, counts, np.nan)
    return means


def histogram(shown: Iterable[Shown], pulls: bool = False) -> Plot:
    """How many pixels have which value, with the Gaussian of the clipped median and scatter.

    ``pulls``: of (SCI - smooth sky) sqrt(WEIGHT) instead, with the Gaussian of unit
    scatter, which they have where the weights are right. Fractions of the good pixels
    in each bin. Raises WrongKind for a mask.
    """
    curves = []
    groups = [_pulls(one) if pulls else _values(one) for one in _images(shown, "histogram")]
    low = min(one.middle - HISTOGRAM_SIGMA * one.scatter for one in groups)
    high = max(one.middle + HISTOGRAM_SIGMA * one.scatter for one in groups)
    edges = _edges_of_bins(low, high, all(_whole(one.values) for one in groups))
    for number, (label, _, values, middle, scatter) in enumerate(groups):
        counts = np.histogram(values, edges)[0] / values.size
        name = f"{label}: {_told(middle, scatter, pulls)}".removeprefix(": ")
        curves.append(Curve(name, edges, np.where(counts > 0, counts, np.nan), "steps", number))
        if not pulls:
            curves.append(_gaussian("", edges, middle, scatter, number))
    if pulls:
        curves.append(_gaussian("Gaussian of scatter 1", edges, 0.0, 1.0, 6))
    least = 0.4 / max(one.values.size for one in groups)
    x_label = PULL_LABEL if pulls else with_unit("pixel value", groups[0].unit)
    return Plot(
        [
            Panel(
                x_label,
                "fraction of pixels",
                "",
                curves,
                log_y=True,
                x_limits=(float(edges[0]), float(edges[-1])),
                y_limits=(least, 2.0 * max(float(np.nanmax(curve.y)) for curve in curves)),
            )
        ],
        "Pixels in units of their noise" if pulls else "Histogram of the good pixels",
        heights=(1.35,),
    )


def residual(changes: Iterable[tuple[str, Change]], block: int = 64) -> Plot:
    """Maps of differences, in medians of blocks of about ``block`` pixels less the median, which the title gives.

    Limits are those of zscale, made symmetric. Relative differences are in per cent.
    """
    panels = [_residual_panel(label, change, block) for label, change in changes]
    return Plot(panels, "Residuals", min(len(panels), 3))


def from_predecessor(shown: Shown, before: Shown) -> Change:
    """How a product differs from another one; raises WrongKind for a mask, UsageError for two units."""
    now, then = _images([shown, before], "residual")
    return change_of(now.frame, then.frame, now.unit)


def from_smooth(shown: Shown, block: int = 64) -> Change:
    """How an image differs from its own smooth version, of windows of 4 blocks; relative where it has no unit."""
    from ..pixels.smooth import lowpass

    (shown,) = _images([shown], "residual")
    use = shown.use
    if not use.any():
        raise BadPixels(f"{shown.name}: no good pixel to show")
    data = shown.frame.data
    smooth = lowpass(data, use, max(8, min(SMOOTH_BLOCKS * block, min(data.shape) // 2)))
    return change_of(Frame(data, shown.frame.weight), Frame(smooth), shown.unit)


def mask_overlay(shown: Iterable[Shown]) -> Plot:
    """The pixels of each mask bit, over the image in grey; the legend counts them. Raises NoImage without a mask."""
    panels = [_mask_panel(one) for one in shown]
    return Plot(panels, "Masked pixels", min(len(panels), 3))


# Residual maps


def _residual_panel(label: str, change: Change, block: int) -> Panel:
    from ..pixels.smooth import block_statistics
    from ..pixels.stretch import zscale

    if not change.use.any():
        raise BadPixels(f"{label}: no pixel is good in both")
    ny, nx = change.data.shape
    block = max(LEAST_BLOCK_PX, min(block, min(ny, nx) // 16))
    scale = PER_CENT if change.relative else 1.0
    whole = clipped(change.data[change.use])
    blocks = (block_statistics(change.data, change.use, block).median - whole.median) * scale
    known = blocks[np.isfinite(blocks)]
    if not known.size:
        raise BadPixels(
            f"{label or 'the image'}: no block of {block} pixels has enough that are good in both"
        )
    limits = zscale(known)
    high = max(abs(limits[0]), abs(limits[1]), float(np.abs(known).mean())) or 1.0
    unit = "%" if change.relative else "/".join(part for part in change.suffix.split("_") if part)
    extent = (0.5, nx + 0.5, 0.5, ny + 0.5)
    after = _unit_after(unit)
    level = f"{whole.median * scale:+.3g}".replace("-", "\N{MINUS SIGN}")
    said = f"{label}\nlevel {level}{after}, rms of the blocks {known.std():.2g}{after}".strip()
    shown = Map(blocks, -high, high, extent, with_unit(f"difference of {block} px blocks", unit))
    return Panel(label_of("x_px"), label_of("y_px"), said, map=shown)


def _unit_after(unit: str) -> str:
    from .figure import unit_label

    return f" {unit_label(unit)}" if unit else ""


# Masks


def _mask_panel(one: Shown) -> Panel:
    from ..pixels.mask import Bit
    from ..pixels.stretch import shrink, zscale

    mask = one.frame.mask if one.frame.mask is not None else one.frame.data
    if mask.dtype.kind not in "iu":
        raise NoImage(f"{one.name}: it has no mask")
    ny, nx = mask.shape
    alone = one.frame.data.dtype.kind in "iu"
    factor = -(-max(ny, nx) // (MASK_PX if alone else OVERLAY_PX))
    overlays, counts = [], []
    for number, bit in enumerate(Bit):
        found = (mask & int(bit)) != 0
        if found.any():
            name = str(bit.name).lower()
            overlays.append((name, _any_in_blocks(found, factor), number))
            counts.append(f"{name} {int(found.sum()):,}")
    # The largest first, so that it hides none of the small ones.
    overlays.sort(key=lambda one: -int(one[1].sum()))
    if alone:
        picture = np.ones((-(-ny // factor), -(-nx // factor)), np.float32)
        low, high = 0.0, 1.0
    else:
        picture = shrink(one.frame.data, factor)
        low, high = zscale(picture)
    extent = (0.5, 0.5 + picture.shape[1] * factor, 0.5, 0.5 + picture.shape[0] * factor)
    shown = Map(picture, low, high, extent, "", False, overlays)
    title = f"{one.label}\n{_wrapped(counts)} px" if counts else f"{one.label}\nno masked pixel"
    return Panel(label_of("x_px"), label_of("y_px"), title.strip(), map=shown)


def _wrapped(texts: Sequence[str], each: int = 3) -> str:
    return ",\n".join(", ".join(texts[n : n + each]) for n in range(0, len(texts), each))


def _any_in_blocks(where: npt.NDArray[np.bool_], factor: int) -> npt.NDArray[np.bool_]:
    rows = np.arange(0, where.shape[0], factor)
    columns = np.arange(0, where.shape[1], factor)
    found: npt.NDArray[np.bool_] = np.logical_or.reduceat(
        np.logical_or.reduceat(where, rows, axis=0), columns, axis=1
    )
    return found


# Histograms


class _Group(NamedTuple):
    """Values to be counted, and the Gaussian that they may follow."""

    label: str
    unit: str
    values: npt.NDArray[Any]
    middle: float
    scatter: float


def _values(one: Shown) -> _Group:
    values = one.frame.data[one.use]
    return _Group(one.label, one.unit, values, *_middle(one, values))


def _pulls(one: Shown) -> _Group:
    from ..pixels.smooth import background

    frame, use = one.frame, one.use
    if frame.weight is None:
        raise NoImage(f"{one.name}: it has no weights", hint="awe-plot --what histogram")
    if not use.any():
        raise BadPixels(f"{one.name}: no good pixel to show")
    sky = background(frame.data, use, min(SKY_MESH_PX, min(frame.data.shape)))
    values = (frame.data - sky)[use] * np.sqrt(frame.weight[use])
    middle, scatter = _middle(one, values)
    return _Group(one.label, "", values, middle, max(scatter, 1.0))


def _middle(one: Shown, values: npt.NDArray[Any]) -> tuple[float, float]:
    if not values.size:
        raise BadPixels(f"{one.name}: no good pixel to show")
    found = clipped(values)
    return found.median, found.stdev or max(abs(found.median), 1.0) * 0.01


def _told(middle: float, scatter: float, pulls: bool) -> str:
    return f"scatter {scatter:.3f}" if pulls else f"median {middle:.5g}, scatter {scatter:.3g}"


def _whole(data: npt.NDArray[Any]) -> bool:
    some = data.ravel()[:: data.size // 4096 + 1]
    return bool((some == np.rint(some)).all())


def _edges_of_bins(low: float, high: float, whole: bool) -> npt.NDArray[np.float64]:
    if not whole:
        return np.linspace(low, high, BINS + 1)
    # Bins of a whole number of counts, or the histogram has teeth.
    step = max(1, math.ceil((high - low) / BINS))
    return np.arange(math.floor(low) - 0.5, high + step, step)


def _gaussian(
    label: str, edges: npt.NDArray[np.float64], middle: float, scatter: float, colour: int
) -> Curve:
    x = np.linspace(edges[0], edges[-1], 401)
    step = float(edges[1] - edges[0])
    y = step / (scatter * math.sqrt(2 * math.pi)) * np.exp(-0.5 * ((x - middle) / scatter) ** 2)
    return Curve(label, x, y, "model", colour)


# Frames


def _images(shown: Iterable[Shown], what: str) -> Iterator[Shown]:
    """The frames one after the other, so that memory holds one; raises WrongKind, UsageError for two units."""
    unit, name = "", ""
    for one in shown:
        if one.frame.data.dtype.kind in "iu" and one.frame.mask is not None:
            raise WrongKind(f"{one.name}: a mask has no {what}", hint="awe-plot --what mask")
        unit, name = (unit, name) if name else (one.unit, one.name)
        if one.unit != unit:
            raise UsageError(
                f"{name} is in {unit or 'no unit'}, {one.name} in {one.unit or 'no unit'}",
                hint="a plot for each",
            )
        yield one


def _edges(frame: Frame) -> tuple[list[float], list[float]]:
    """Where amplifiers meet inside of a detector: between which columns, and rows (FITS pixels)."""
    targets = [amp.target for amp in amplifiers_of(frame)]
    columns = sorted({one.x0 for one in targets if one.x0 > 0})
    rows = sorted({one.y0 for one in targets if one.y0 > 0})
    return [x + 0.5 for x in columns], [y + 0.5 for y in rows]
