"""How a measure goes with time, temperature or anything else, and which products do not go with the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import WrongKind
from .kind import Kind
from .plots.columns import FARTHEST, Value, axis
from .plots.figure import Curve, Panel, Plot, label_of
from .questions.query import ask, question_from_words
from .store import Store

Doubles = npt.NDArray[np.float64]

# Standard deviations of a normal distribution in its median and in its mean absolute deviation.
MAD_SIGMA, MEAN_DEVIATION_SIGMA = 1.4826, 1.2533
# What the last digit of float32 pixels makes of a level, relative; and of whole numbers.
FLOOR, WHOLE_FLOOR = 1e-6, 0.5
# With fewer points nothing is said of any of them.
FEWEST = 5
# So many groups are named in a note.
SHOWN = 3


@dataclass(frozen=True)
class Point:
    """A product in a trend; deviation_sigma is None where too few are there to tell, or it has no y.

    median: the running median of its neighbours in y.
    """

    path: str
    x: Value
    y: float
    by: Value | None
    median: float | None = None
    deviation_sigma: float | None = None
    is_outlier: bool = False


@dataclass(frozen=True)
class Trend:
    """The points, those of one group together and in the order of x; notes: what was left out, and why."""

    points: tuple[Point, ...]
    notes: tuple[str, ...]

    @property
    def outliers(self) -> list[Point]:
        """The points that do not go with the others."""
        return [one for one in self.points if one.is_outlier]


@dataclass(frozen=True)
class Asked:
    """What goes with what: of a kind, the columns y against x, and the column whose values are groups."""

    kind: str
    x: str
    y: str
    by: str | None = None
    conditions: Sequence[str] = ()


def trend_of(
    asked: Asked, stores: Sequence[Store], kinds: Sequence[Kind], window: int = 10, limit_sigma: float = 5.0
) -> Trend:
    """The products of a kind, each with its deviation from the running median of its neighbours.

    Of the versions of a product the one made last; those judged bad are left out.
    window: how many neighbours; limit_sigma: what is farther is an outlier. Raises
    UnknownName, WrongKind for a y that is no number.
    """
    columns = list(dict.fromkeys(["path", "recipe_key", "content", "verdict", asked.x, asked.y]))
    columns += [asked.by] if asked.by and asked.by not in columns else []
    question = question_from_words(asked.kind, asked.conditions, columns, (), None, newest=True)
    gone: list[str] = []
    rows: dict[str, dict[str, Any]] = {}
    for row in ask(question, stores, kinds, gone):
        # A product can lie in two stores.
        rows.setdefault(str(row["recipe_key"] or row["content"] + row["path"]), row)
    bad = [row for row in rows.values() if row["verdict"] == "bad"]
    good = [row for row in rows.values() if row["verdict"] != "bad"]
    points = [point for row in good if (point := _point(row, asked)) is not None]
    groups: dict[Value | None, list[Point]] = {}
    for one in points:
        groups.setdefault(one.by, []).append(one)
    judged: list[Point] = []
    notes = _notes(gone, [row["path"] for row in bad], len(good) - len(points), asked)
    names = sorted(groups, key=lambda one: (isinstance(one, str), one or 0))
    for name in names:
        judged += _judged(groups[name], window, limit_sigma)
    few = [name for name in names if len(groups[name]) < FEWEST]
    return Trend(tuple(judged), (*notes, *_few(few, groups, asked)))


def _few(
    names: Sequence[Value | None], groups: Mapping[Value | None, Sequence[Point]], asked: Asked
) -> list[str]:
    """Which groups are too small, in one note."""
    if not names:
        return []
    tell = f"it takes {FEWEST} points to tell which are outliers"
    if not asked.by:
        return [f"{tell}, and there are {len(groups[names[0]])}"]
    shown = [f"{asked.by} {group_name(name)} has {len(groups[name])}" for name in names[:SHOWN]]
    more = f" and {len(names) - SHOWN} more have fewer" if len(names) > SHOWN else ""
    return [f"{tell}: {', '.join(shown)}{more}"]


def group_name(name: Value | None) -> str:
    """The value of a group, as a text."""
    return f"{name:.9g}" if isinstance(name, float) else str(name or "")


def _notes(gone: Sequence[str], bad: Sequence[str], without: int, asked: Asked) -> list[str]:
    notes = []
    if bad:
        notes.append(f"left out {bad[0]}{_more(bad)}: judged bad")
    if gone:
        notes.append(f"left out {gone[0]}{_more(gone)}: the file is gone; awe-verify names all")
    if without:
        notes.append(f"left out {without} without {asked.x} or {asked.y}")
    return notes


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _point(row: dict[str, Any], asked: Asked) -> Point | None:
    """A row as a point; None where x or y has no value."""
    x, y = row[asked.x], row[asked.y]
    if y is not None and (isinstance(y, bool) or not isinstance(y, int | float)):
        raise WrongKind(
            f"{row['path']}: {asked.y} is {y!r:.60}, not a number", hint=f"awe-query {asked.kind} --fields"
        )
    if x is None or y is None or not abs(y) <= FARTHEST:
        return None
    place: Value = x if isinstance(x, str) else str(x)
    if isinstance(x, int | float) and not isinstance(x, bool):
        if not abs(x) <= FARTHEST:
            return None
        place = float(x)
    return Point(row["path"], place, float(y), _group_of(row, asked))


def _group_of(row: dict[str, Any], asked: Asked) -> Value | None:
    value = None if asked.by is None else row[asked.by]
    if asked.by is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    return "unknown" if value is None else str(value)


def _judged(points: Sequence[Point], window: int, limit_sigma: float) -> list[Point]:
    """The points of a group in the order of x, each with its deviation."""
    places = axis([one.x for one in points])
    order = np.argsort(places, kind="stable")
    ordered = [points[number] for number in order]
    if len(ordered) < FEWEST:
        return ordered
    values = np.array([one.y for one in ordered])
    medians = running_median(distances(places[order]), values, window)
    deviations = deviations_sigma(values, medians)
    return [
        Point(
            one.path,
            one.x,
            one.y,
            one.by,
            float(median),
            float(deviation),
            bool(abs(deviation) > limit_sigma),
        )
        for one, median, deviation in zip(ordered, medians, deviations, strict=True)
    ]


def distances(places: npt.NDArray[Any]) -> Doubles:
    """Sorted places (n,) as numbers that can be subtracted: dates in ms, texts by their rank."""
    if places.dtype.kind == "M":
        return np.asarray((places - places[0]) / np.timedelta64(1, "ms"), np.float64)
    if places.dtype.kind == "O":
        return np.asarray(np.unique(places.astype(str), return_inverse=True)[1], np.float64)
    return np.asarray(places, np.float64)


def running_median(x: Doubles, y: Doubles, window: int) -> Doubles:
    """The median of the nearest neighbours in x of each point (n,), itself left out; x is sorted.

    window: how many neighbours, fewer where there are no more. The nearest, not those
    before and after, so that a point beside a gap is compared with its own side of it.
    """
    count = len(x)
    take = min(window, count - 1)
    places = np.arange(count)
    # The neighbours and the point itself are a stretch of the sorted points; of equally near ones, the most central.
    shifts = np.array(sorted(range(take + 1), key=lambda shift: abs(shift - take / 2)))
    starts = places[:, None] - shifts
    inside = (starts >= 0) & (starts + take < count)
    clipped = np.clip(starts, 0, count - 1 - take)
    reach = np.maximum(x[:, None] - x[clipped], x[clipped + take] - x[:, None])
    best = clipped[places, np.where(inside, reach, np.inf).argmin(axis=1)]
    stretch = best[:, None] + np.arange(take + 1)
    others = stretch[stretch != places[:, None]].reshape(count, take)
    return np.asarray(np.median(y[others], axis=1), np.float64)


def deviations_sigma(values: Doubles, medians: Doubles) -> Doubles:
    """How far values (n,) are from their running medians, in robust standard deviations of all of them.

    That is 1.4826 times the median absolute deviation; where more than half do not
    deviate at all, 1.2533 times the mean one (Iglewicz and Hoaglin 1993, How to Detect and
    Handle Outliers) of the other values, so that one among a few equal ones stands out; at
    least the rounding of float32, and half a unit of whole numbers.
    """
    residuals = values - medians
    apart = np.abs(residuals)
    floor = WHOLE_FLOOR if np.all(values == np.round(values)) else FLOOR * float(np.abs(values).mean())
    spread = np.full(len(values), MAD_SIGMA * np.median(apart))
    if spread[0] <= floor:
        spread = MEAN_DEVIATION_SIGMA * (apart.sum() - apart) / max(1, len(values) - 1)
    spread = np.maximum(spread, floor)
    return np.asarray(
        np.divide(residuals, spread, out=np.zeros_like(residuals), where=spread > 0), np.float64
    )


def plot_of(trend: Trend, asked: Asked, title: str = "") -> Plot:
    """The points of each group with their running median as a line, and the outliers marked."""
    curves: list[Curve] = []
    every = [one.x for one in trend.points]
    groups = dict.fromkeys(one.by for one in trend.points)
    for number, name in enumerate(groups):
        group = [one for one in trend.points if one.by == name]
        curves.append(_curve(group_name(name), [one for one in group if not one.is_outlier], every, number))
        if len(group) >= FEWEST:
            medians = np.array([np.nan if one.median is None else one.median for one in group])
            curves.append(Curve("", axis([one.x for one in group], every), medians, "model", number))
    for number, name in enumerate(groups):
        outliers = [one for one in trend.outliers if one.by == name]
        if outliers:
            label = "outlier" if not any(curve.style == "left-out" for curve in curves) else ""
            curves.append(_curve(label, outliers, every, number, left_out=True))
    panel = Panel(label_of(asked.x), label_of(asked.y), "", [one for one in curves if one.y.size])
    return Plot([panel], title, heights=(1.25,))


def _curve(
    label: str, points: Sequence[Point], every: Sequence[Value], colour: int, left_out: bool = False
) -> Curve:
    places = axis([one.x for one in points], every)
    style = "left-out" if left_out else "points"
    return Curve(label, places, np.array([one.y for one in points]), style, colour)  # type: ignore[arg-type]
