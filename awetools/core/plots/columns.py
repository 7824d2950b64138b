"""Plots of columns of numbers: of what `awe-query` prints, and of the measures of products."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import EmptyInput, TooFew, UnknownName, UsageError, nearest
from .figure import Curve, Panel, Plot, label_of, logged

Value = float | str | None
Rows = Sequence[Mapping[str, Value]]

# More curves than that cannot be told apart; then a column of texts is passed over.
MOST_GROUPS = 12
# A column whose texts are dates is an axis of time.
LEAST_DATE = len("2024-03-02")
# Dates beyond these are texts, and numbers beyond this, or not finite, have no place in a plot.
FIRST_DATE, LAST_DATE = np.datetime64("1000-01-01"), np.datetime64("9000-01-01")
FARTHEST = 1e100


def rows_from_text(text: str) -> list[dict[str, Value]]:
    """Rows of numbers and texts: TAB-separated or CSV with a header line, or a JSON object a line.

    Empty cells and null are None. Raises UsageError for a line that does not fit, EmptyInput.
    """
    lines = [line.removesuffix("\r") for line in text.split("\n") if line.strip()]
    if not lines:
        raise EmptyInput("standard input was empty: the command before this one failed or found nothing")
    if lines[0].lstrip().startswith("{"):
        return [_object(line) for line in lines]
    names, *table = _cells(lines)
    if len(set(names)) < len(names):
        raise UsageError(f"standard input: two columns have one name: {', '.join(names)}")
    rows = []
    for number, cells in enumerate(table, 2):
        if len(cells) != len(names):
            raise UsageError(
                f"standard input: line {number} has {len(cells)} columns, the header {len(names)}"
            )
        rows.append({name: _cell(cell) for name, cell in zip(names, cells, strict=True)})
    return rows


def _cells(lines: Sequence[str]) -> list[list[str]]:
    if "\t" not in lines[0] and "," in lines[0]:
        import csv

        return list(csv.reader(lines))
    return [line.split("\t") for line in lines]


def columns_plot(
    rows: Rows,
    x: str | None = None,
    y: Sequence[str] = (),
    by: str | None = None,
    log: str = "",
) -> Plot:
    """Columns against one of them: a panel a column, a curve a group.

    ``x``: by default the first column (with a single column the number of the row);
    dates are an axis of time. ``y``: by default every other column of numbers. ``by``:
    the column whose values are groups, by default the first column of a few texts that
    repeat. ``log``: axes that are logarithmic, of ``x`` and ``y``. Rows without a value,
    or with one beyond 1e100, are left out of its panel. Raises UnknownName, TooFew, BadValue (nothing for a logarithm).
    """
    if not rows:
        raise TooFew("there is a header but no row")
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in (*(one for one in (x, by) if one), *y):
        if name not in names:
            raise UnknownName(f"no column {name!r}{nearest(name, names)}; there are: {', '.join(names)}")
    wanted = list(y)
    if x is None:
        left = [name for name in names if name not in y and name != by]
        x = left[0] if len(names) > 1 and left else None
    if not wanted:
        wanted = [name for name in names if name not in (x, by) and _is_number(rows, name)]
    if not wanted:
        raise TooFew(f"no column of numbers to plot against {x or 'the row'}; there are: {', '.join(names)}")
    by = by or _grouping(rows, [name for name in names if name != x and name not in wanted])
    panels = [_panel(rows, x, name, by) for name in wanted]
    if not any(panel.curves for panel in panels):
        raise TooFew(f"no row has {x or 'a number'} and {' or '.join(wanted)}")
    columns = 1 if len(panels) <= 3 else 3
    return logged(Plot(panels, columns=columns, heights=(1.25,) if len(panels) == 1 else ()), log)


def _panel(rows: Rows, x: str | None, y: str, by: str | None) -> Panel:
    groups: dict[str, list[tuple[Value, float]]] = {}
    for number, row in enumerate(rows, 1):
        value, at = row.get(y), float(number) if x is None else row.get(x)
        if isinstance(value, float) and at is not None and _has_place(value) and _has_place(at):
            groups.setdefault(_text(row.get(by)) if by else "", []).append((at, value))
    every = [at for points in groups.values() for at, _ in points]
    curves = []
    for number, (label, points) in enumerate(sorted(groups.items()) if by else groups.items()):
        places = axis([one for one, _ in points], every)
        values = np.array([one for _, one in points])
        if places.dtype.kind in "Mf":
            order = np.argsort(places, kind="stable")
            places, values = places[order], values[order]
        curves.append(Curve(label, places, values, "points", number))
    return Panel(
        "row" if x is None else label_of(x),
        label_of(y),
        "",
        curves,
    )


def _has_place(value: Value) -> bool:
    """Whether an axis can show a value: any text, and numbers that are not beyond all bounds."""
    return not isinstance(value, float) or abs(value) <= FARTHEST


def axis(values: Sequence[Value], every: Sequence[Value] | None = None) -> npt.NDArray[Any]:
    """The values of an axis as numbers, dates (datetime64) or texts, whichever fits all of them."""
    every = values if every is None else every
    if all(isinstance(one, float) for one in every):
        return np.array(values, np.float64)
    texts = [_text(one) for one in values]
    try:
        if all(len(_text(one)) >= LEAST_DATE for one in every):
            dates = np.array([_text(one) for one in every], "datetime64[ms]")
            if dates.min() > FIRST_DATE and dates.max() < LAST_DATE:
                return np.array(texts, "datetime64[ms]")
    except ValueError:
        pass
    return np.array(texts, object)


def _grouping(rows: Rows, names: Sequence[str]) -> str | None:
    for name in names:
        values = {_text(row.get(name)) for row in rows if isinstance(row.get(name), str)}
        if 1 < len(values) <= MOST_GROUPS and len(values) < len(rows):
            return name
    return None


def _is_number(rows: Rows, name: str) -> bool:
    values = [row.get(name) for row in rows]
    return any(isinstance(one, float) for one in values) and not any(isinstance(one, str) for one in values)


def _object(line: str) -> dict[str, Value]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UsageError(f"standard input: not a JSON object: {line[:80]}")
    return {str(name): _value(value) for name, value in found.items()}


def _value(value: object) -> Value:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return float(value) if abs(value) <= FARTHEST else math.inf
    return json.dumps(value)


def _cell(text: str) -> Value:
    if not text.strip():
        return None
    try:
        return float(text)
    except ValueError:
        return text


def _text(value: Value) -> str:
    return "unknown" if value is None else f"{value:g}" if isinstance(value, float) else value
