"""What a plot is: panels of curves or maps, with all their numbers and words, and nothing of their looks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..errors import BadValue

ELECTRONS = "e\N{SUPERSCRIPT MINUS}"
# Ends of names, longest first, as a reader writes the unit.
UNITS = (
    ("_e_adu", f"{ELECTRONS}/ADU"),
    ("_adu_s", "ADU/s"),
    ("_e_s", f"{ELECTRONS}/s"),
    ("_adu2", "ADU\N{SUPERSCRIPT TWO}"),
    ("_adu", "ADU"),
    ("_arcsec", "arcsec"),
    ("_sigma", "\N{GREEK SMALL LETTER SIGMA}"),
    ("_mag", "mag"),
    ("_deg", "deg"),
    ("_px", "px"),
    ("_e", ELECTRONS),
    ("_s", "s"),
    ("_c", "\N{DEGREE SIGN}C"),
)

Style = Literal["points", "cloud", "line", "steps", "model", "left-out", "arrows"]


@dataclass(frozen=True)
class Curve:
    """Points of one thing; a label of its own name in the legend (empty: none).

    x: (n,) numbers, dates (datetime64) or texts. y, error: (n,) numbers. style:
    `points`, `line`, `steps` (a histogram: y between neighbouring x), `model` (what is
    fitted or expected), `left-out` (points that were not used), `cloud` (small points behind
    the others) or `arrows` (from x and y to the heads). colour: number of its colour; curves
    that belong together have one. heads: (n, 2) x and y where arrows end.
    """

    label: str
    x: npt.NDArray[Any]
    y: npt.NDArray[Any]
    style: Style = "points"
    colour: int = 0
    error: npt.NDArray[Any] | None = None
    heads: npt.NDArray[Any] | None = None


@dataclass(frozen=True)
class Map:
    """A picture (ny, nx) of blocks of pixels, its limits, and pixels shown over it in a colour.

    extent: x0, x1, y0, y1 of the picture in FITS pixels. diverging: values about 0, else
    grey levels. overlays: label, where (ny, nx), and the number of their colour.
    """

    values: npt.NDArray[Any]
    low: float
    high: float
    extent: tuple[float, float, float, float]
    label: str
    diverging: bool = True
    overlays: Sequence[tuple[str, npt.NDArray[np.bool_], int]] = ()


@dataclass(frozen=True)
class Panel:
    """One pair of axes. note: what to know about it. marks: x, levels: y, where a thin line is drawn across.

    equal: a unit of x is as long as one of y. wide: the panel is as wide as the page.
    """

    x_label: str
    y_label: str
    title: str = ""
    curves: Sequence[Curve] = ()
    map: Map | None = None
    note: str = ""
    marks: Sequence[float] = ()
    levels: Sequence[float] = ()
    log_x: bool = False
    log_y: bool = False
    x_limits: tuple[float, float] | None = None
    y_limits: tuple[float, float] | None = None
    equal: bool = False
    wide: bool = False


@dataclass(frozen=True)
class Plot:
    """Panels, row by row, in so many columns. heights: of the rows, relative."""

    panels: Sequence[Panel]
    title: str = ""
    columns: int = 1
    heights: Sequence[float] = ()


def logged(plot: Plot, log: str) -> Plot:
    """A plot with logarithmic axes (``x``, ``y`` or both) where a panel has numbers above 0 on them.

    A note tells how many points are not. Raises BadValue for an axis that no panel has.
    """
    panels = [_logged(panel, log) for panel in plot.panels]
    for name in log:
        if not any(panel.log_x if name == "x" else panel.log_y for panel in panels):
            raise BadValue(f"--log {name}: the plot has no axis {name} with numbers above 0")
    return replace(plot, panels=panels)


def _logged(panel: Panel, log: str) -> Panel:
    if panel.map is not None or not log:
        return panel
    log_x = panel.log_x or ("x" in log and any(_above_0(curve.x).any() for curve in panel.curves))
    log_y = panel.log_y or ("y" in log and any(_above_0(curve.y).any() for curve in panel.curves))
    points = [curve for curve in panel.curves if curve.style == "points"]
    lost = sum(
        int(np.count_nonzero((log_x & ~_above_0(curve.x)) | (log_y & ~_above_0(curve.y)))) for curve in points
    )
    note = f"{lost} points not above 0" if lost else ""
    return replace(panel, log_x=log_x, log_y=log_y, note="; ".join(filter(None, (panel.note, note))))


def _above_0(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which values have a logarithm; dates and texts have none."""
    if values.dtype.kind not in "iuf":
        return np.zeros(values.shape, np.bool_)
    above: npt.NDArray[np.bool_] = values > 0
    return above


def label_of(name: str) -> str:
    """A measure or field as a label with its unit: `read_noise_adu` is `read noise (ADU)`."""
    lowered = name.lower()
    for end, unit in UNITS:
        if lowered.endswith(end):
            return f"{_words(name[: -len(end)])} ({unit})"
    return _words(name)


def unit_label(unit: str) -> str:
    """The unit of a product's pixels as a reader writes it; empty for none."""
    wanted = "".join(f"_{part}" for part in unit.lower().split("/") if part)
    return next((shown for end, shown in UNITS if end == wanted), unit)


def with_unit(text: str, unit: str) -> str:
    """A label and the unit of pixels in brackets, if there is one."""
    shown = unit_label(unit)
    return f"{text} ({shown})" if shown else text


def numbers_of(plot: Plot) -> Iterator[tuple[str, str, object, float, float | None]]:
    """Every number of a plot: panel, curve, x, y and error; of maps: the column and row, and the value."""
    for number, panel in enumerate(plot.panels, 1):
        name = panel.title or panel.y_label or str(number)
        for curve in panel.curves:
            errors = [None] * len(curve.y) if curve.error is None else curve.error.tolist()
            places = curve.x.astype(str if curve.x.dtype.kind == "M" else object)
            # The edges of a histogram are one more than its values.
            for x, y, error in zip(places, curve.y, errors, strict=False):
                yield name, curve.label, x, float(y), error
        if panel.map is not None:
            for row, values in enumerate(panel.map.values, 1):
                for column, value in enumerate(values, 1):
                    yield name, f"row {row}", column, float(value), None


def _words(name: str) -> str:
    return name.replace("imstat.", "").replace("_", " ").strip() or name
