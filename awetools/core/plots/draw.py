"""Draw a plot into a PNG or SVG file; matplotlib is imported late, and its looks are set here alone.

No display is needed, no settings of the person take part, and nothing of the time or
the machine goes into the file: the same plot gives the same bytes.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from textwrap import wrap
from typing import Any

import numpy as np

from ..errors import BadValue, Unavailable
from .figure import Curve, Map, Panel, Plot

# Told apart by people of any colour vision, also in grey (Okabe and Ito 2008).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
OVERLAYS = (
    "#E69F00",
    "#56B4E9",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#8C510A",
    "#F0E442",
    "#000000",
    "#0072B2",
    "#6A51A3",
    "#B2DF8A",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, NOTE, FRAME, GRID = "#262626", "#666666", "#8c8c8c", "#e4e4e4"
PANEL_WIDTH_IN, PANEL_HEIGHT_IN, MAP_IN = 7.6, 2.9, 4.6
# Of panels in several columns, and what of the height belongs to labels.
SMALL_WIDTH_IN, SMALL_HEIGHT_IN, MARGIN_IN = 3.8, 2.05, 0.5
# How far curves stand apart on an axis of texts, of the distance of two texts.
APART = 0.6
# Beyond so many the points of a curve are a cloud: small and faint.
MANY_POINTS = 200
# Letters of a legend that fit in an inch, and those that a mark takes.
LETTERS_AN_INCH, MARK_LETTERS, LEGEND_COLUMNS = 13, 7, 4
TITLE_LETTERS_AN_INCH = 10.5
STEPS = [1, 2, 5, 10]
# On a side of a PNG.
MOST_PIXELS = 30_000

STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": FRAME,
    "axes.formatter.useoffset": False,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 10,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.titlesize": 11.5,
    "figure.titleweight": "bold",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "image.interpolation": "nearest",
    "legend.fontsize": 9,
    "legend.frameon": False,
    "path.simplify": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "awetools",
    "text.color": INK,
    "xtick.color": FRAME,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.color": FRAME,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 9,
}


def draw(plot: Plot, form: str, dpi: int = 150) -> bytes:
    """The bytes of a picture of a plot, ``png`` or ``svg``. Raises Unavailable without matplotlib."""
    return picture(_size(plot), lambda figure: _fill(figure, plot), form, dpi)


def picture(size_in: tuple[float, float], fill: Callable[[Any], None], form: str, dpi: int = 150) -> bytes:
    """The bytes of a picture of a size in inches, whose figure is filled by a function.

    Raises Unavailable without matplotlib, BadValue for more pixels than a PNG should have.
    """
    import io

    if form == "png" and max(size_in) * dpi > MOST_PIXELS:
        raise BadValue(
            f"{size_in[0]:.0f} x {size_in[1]:.0f} inches at {dpi} pixels an inch: a side has more than {MOST_PIXELS}",
            hint=f"--dpi {int(MOST_PIXELS / max(size_in))}, or a name that ends in .svg",
        )
    with _matplotlib():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=size_in, dpi=dpi, layout="constrained")
        FigureCanvasAgg(figure)
        fill(figure)
        out = io.BytesIO()
        # Without these the file would hold the date, or the version of the library.
        nothing = {"Date": None, "Creator": None} if form == "svg" else {"Software": None}
        figure.savefig(out, format=form, metadata=nothing, facecolor="white")
    return out.getvalue()


@contextmanager
def _matplotlib() -> Iterator[None]:
    """matplotlib in our style; a settings directory that cannot be written is no reason to speak."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        try:
            import matplotlib
        except ImportError:
            raise Unavailable(
                "matplotlib, which draws the plots, is not installed", hint="pip install 'awetools[plot]'"
            ) from None
        with matplotlib.rc_context(), warnings.catch_warnings():
            # A letter that the font has not is shown as a box, and that is all.
            warnings.filterwarnings("ignore", "Glyph .* missing from")
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(STYLE)
            yield
    finally:
        logger.setLevel(level)


def plain(text: str) -> str:
    """A text as it stands: names of files and objects are no formulae, and a picture holds no control characters."""
    shown = "".join(one if one.isprintable() or one == "\n" else "\N{REPLACEMENT CHARACTER}" for one in text)
    return shown.replace("$", r"\$")


def _size(plot: Plot) -> tuple[float, float]:
    rows = -(-len(plot.panels) // plot.columns)
    heights = plot.heights or [1.0] * rows
    if any(panel.map is not None for panel in plot.panels):
        return plot.columns * (MAP_IN + 1.2), rows * MAP_IN + 0.9
    width = PANEL_WIDTH_IN if plot.columns == 1 else SMALL_WIDTH_IN * plot.columns
    labels = _labels(plot.panels)
    legend = 0.22 * -(-len(labels) // _legend_columns(labels, width))
    if plot.columns > 1:
        small = SMALL_HEIGHT_IN * (sum(plot.heights) or rows)
        return width, small + MARGIN_IN + legend
    return width, PANEL_HEIGHT_IN * sum(heights) + MARGIN_IN * (1.8 if rows == 1 else 1) + legend


def _fill(figure: Any, plot: Plot) -> None:
    rows = -(-len(plot.panels) // plot.columns)
    grid = figure.add_gridspec(rows, plot.columns, height_ratios=plot.heights or None)
    handles: dict[str, Any] = {}
    above: dict[int, Any] = {}
    for number, panel in enumerate(plot.panels):
        column = number % plot.columns
        shared = above.get(column) if _shares(plot, number) else None
        place = slice(None) if panel.wide else column
        axes = figure.add_subplot(grid[number // plot.columns, place], sharex=shared)
        above[column] = axes
        _panel(figure, axes, panel, handles)
        if _shares(plot, number + plot.columns) and number + plot.columns < len(plot.panels):
            axes.tick_params(labelbottom=False)
            axes.set_xlabel("")
    if plot.title:
        letters = int(figure.get_figwidth() * TITLE_LETTERS_AN_INCH)
        lines = (wrap(line, letters) for line in plot.title.split("\n"))
        figure.suptitle(plain("\n".join("\n".join(one) for one in lines)), x=0.012, ha="left")
    if handles:
        # Across the page under all panels: it hides no point.
        figure.legend(
            list(handles.values()),
            [plain(label) for label in handles],
            loc="outside lower center",
            ncols=_legend_columns(list(handles), figure.get_figwidth()),
            handlelength=1.6,
            columnspacing=1.8,
        )


def _legend_columns(labels: Sequence[str], width_in: float) -> int:
    longest = max((len(label) for label in labels), default=0) + MARK_LETTERS
    return max(1, min(LEGEND_COLUMNS, len(labels), int(width_in * LETTERS_AN_INCH / longest)))


def _shares(plot: Plot, number: int) -> bool:
    """Whether a panel has the x axis of the one above it."""
    before = number - plot.columns
    if before < 0 or number >= len(plot.panels):
        return False
    one, other = plot.panels[before], plot.panels[number]
    same = (one.x_label, one.x_limits, one.log_x) == (other.x_label, other.x_limits, other.log_x)
    whole = all(panel.map is None and not panel.equal and not panel.wide for panel in (one, other))
    return same and whole


def _labels(panels: Sequence[Panel]) -> list[str]:
    return list(dict.fromkeys(curve.label for panel in panels for curve in panel.curves if curve.label))


def _panel(figure: Any, axes: Any, panel: Panel, handles: dict[str, Any]) -> None:
    if panel.map is not None:
        _map(figure, axes, panel.map, handles)
    for level in panel.levels:
        axes.axhline(level, color=FRAME, linewidth=0.8, zorder=1.5)
    for mark in panel.marks:
        axes.axvline(mark, color=FRAME, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1.5)
    texts = _texts(panel)
    for number, curve in enumerate(panel.curves):
        apart = APART * ((number + 0.5) / len(panel.curves) - 0.5)
        handle = _curve(axes, _on_texts(curve, texts, apart) if texts else curve)
        if curve.label:
            handles.setdefault(curve.label, handle)
    if panel.log_x:
        axes.set_xscale("log")
    if panel.log_y:
        axes.set_yscale("log")
    if panel.x_limits is not None:
        axes.set_xlim(_limits(panel.x_limits, panel.log_x))
    if panel.y_limits is not None:
        axes.set_ylim(_limits(panel.y_limits, panel.log_y))
    if panel.equal:
        axes.set_aspect("equal", adjustable="box")
    axes.set_xlabel(plain(panel.x_label))
    axes.set_ylabel(plain(panel.y_label))
    if panel.title:
        axes.set_title(plain(panel.title))
    if panel.note:
        axes.set_title(panel.note, loc="right", fontsize=8.5, color=NOTE)
    _ticks(axes, panel, texts)


def _limits(limits: tuple[float, float], log: bool) -> tuple[float | None, float | None]:
    """The limits of an axis; a logarithmic one begins where its numbers do if it cannot at its limit."""
    low, high = limits
    return (None, high if high > 0 else None) if log and low <= 0 else (low, high)


def _texts(panel: Panel) -> list[str]:
    """The texts of an axis of texts, in the order in which they come; empty for numbers and dates."""
    if not panel.curves or any(curve.x.dtype.kind not in "OU" for curve in panel.curves):
        return []
    return list(dict.fromkeys(str(x) for curve in panel.curves for x in curve.x))


def _on_texts(curve: Curve, texts: Sequence[str], apart: float) -> Curve:
    return replace(curve, x=np.array([texts.index(str(x)) + apart for x in curve.x], np.float64))


def _curve(axes: Any, curve: Curve) -> Any:
    colour = COLOURS[curve.colour % len(COLOURS)]
    if curve.style == "steps":
        return axes.stairs(curve.y, curve.x, color=colour, linewidth=1.3, baseline=None)
    if curve.style == "line":
        return axes.plot(curve.x, curve.y, color=colour, linewidth=0.9)[0]
    if curve.style == "model":
        return axes.plot(curve.x, curve.y, color=colour, linewidth=1.6, linestyle=(0, (5, 2)), zorder=3)[0]
    if curve.style == "left-out":
        return axes.plot(curve.x, curve.y, "x", color=FRAME, markersize=6, markeredgewidth=1.2)[0]
    if curve.style == "arrows":
        return _arrows(axes, curve, colour)
    if curve.style == "cloud":
        few = len(curve.y) <= MANY_POINTS
        axes.plot(curve.x, curve.y, ".", color=colour, markersize=5 if few else 2.6, alpha=0.4, zorder=2)
        return axes.plot([], [], ".", color=colour, markersize=6)[0]
    if curve.x.dtype.kind == "M":
        axes.plot(curve.x, curve.y, color=colour, linewidth=0.8, alpha=0.4)
    if len(curve.y) > MANY_POINTS:
        axes.plot(curve.x, curve.y, ".", color=colour, markersize=2.2, alpha=0.35, rasterized=True)
        return axes.plot([], [], ".", color=colour, markersize=6)[0]
    # The eighth curve has the first colour again, but not the first marker.
    marker = MARKERS[(curve.colour + curve.colour // len(COLOURS)) % len(MARKERS)]
    look = {"color": colour, "markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.6}
    if curve.error is None:
        return axes.plot(curve.x, curve.y, marker, **look)[0]
    return axes.errorbar(curve.x, curve.y, curve.error, fmt=marker, elinewidth=0.9, capsize=0, **look)


def _arrows(axes: Any, curve: Curve, colour: str) -> Any:
    from matplotlib.lines import Line2D

    assert curve.heads is not None
    across, up = curve.heads[:, 0] - curve.x, curve.heads[:, 1] - curve.y
    form: Any = {"angles": "xy", "scale_units": "xy", "scale": 1, "units": "inches", "width": 0.014}
    axes.quiver(curve.x, curve.y, across, up, color=colour, zorder=3, **form)
    return Line2D([], [], color=colour, linewidth=1.5)


def _map(figure: Any, axes: Any, one: Map, handles: dict[str, Any]) -> None:
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    palette = "RdBu_r" if one.diverging else "gray"
    shown = axes.imshow(
        one.values, origin="lower", extent=one.extent, vmin=one.low, vmax=one.high, cmap=palette
    )
    axes.set_facecolor("#d9d9d9")
    axes.grid(False)
    for label, where, number in one.overlays:
        colour = OVERLAYS[number % len(OVERLAYS)]
        layer = np.zeros((*where.shape, 4))
        layer[where] = (*to_rgb(colour), 1.0)
        axes.imshow(layer, origin="lower", extent=one.extent)
        handles.setdefault(label, Patch(color=colour, label=label))
    if one.label:
        beside = axes.inset_axes((1.03, 0.0, 0.035, 1.0))
        bar = figure.colorbar(shown, cax=beside, extend=_extended(one), extendfrac=0.03)
        bar.outline.set_visible(False)
        bar.set_label(plain(one.label))


def _extended(one: Map) -> str:
    """At which ends of the colours there are values beyond."""
    below, above = bool(np.nanmin(one.values) < one.low), bool(np.nanmax(one.values) > one.high)
    return {(True, True): "both", (True, False): "min", (False, True): "max"}.get((below, above), "neither")


def _ticks(axes: Any, panel: Panel, texts: Sequence[str]) -> None:
    import matplotlib.dates
    from matplotlib.ticker import MaxNLocator

    dates: Any = matplotlib.dates

    kinds = {curve.x.dtype.kind for curve in panel.curves}
    if kinds == {"M"}:
        locator = dates.AutoDateLocator(minticks=3, maxticks=8)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    elif kinds == {"i"} and not panel.log_x:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=STEPS))
    if texts:
        axes.set_xticks(range(len(texts)), [plain(text) for text in texts])
        axes.set_xlim(-0.6, len(texts) - 0.4)
        axes.grid(False, axis="x")
        if max(len(text) for text in texts) * len(texts) > 90:
            axes.tick_params(axis="x", rotation=35)
    values = [curve.y for curve in panel.curves if curve.style == "points"]
    if values and not panel.log_y and all((one == np.rint(one)).all() for one in values):
        low, high = min(one.min() for one in values), max(one.max() for one in values)
        if low == high:
            axes.set_ylim(low - 1, high + 1)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=STEPS))
