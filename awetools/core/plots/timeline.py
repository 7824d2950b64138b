"""Draw the calibration timeline: a lane a kind, validity across, when it was made beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from ..timeline import EARLIEST, LATEST, Bar, Lane, Piece, Timeline, lane_words, title_of
from .draw import FRAME, GRID, INK, NOTE, picture, plain

# Told apart by people of any colour vision, also in grey (Okabe and Ito 2008); pale where it does not win.
USED, PALE, ECLIPSED, FLAGGED, BAD, NEED, LACK = (
    "#0072B2",
    "#b5d4e8",
    "#cfcfcf",
    "#E69F00",
    "#D55E00",
    "#4d4d4d",
    "#CC3366",
)
HATCHED = {"flagged": "////", "bad": "xxxx"}
FACES = {"flagged": "#fbe6bd", "bad": "#f7d3bf", "gone": "white", "undated": "white", "eclipsed": ECLIPSED}
EDGES = {"flagged": FLAGGED, "bad": BAD, "gone": FRAME, "undated": FRAME, "eclipsed": "#b0b0b0"}
DOTS = {"used": USED, "partly": USED, "eclipsed": "#9a9a9a", "flagged": FLAGGED, "bad": BAD}
BAND = "#f6f7f9"
# Heights in inches: of a row of bars, of the ticks of frames below, of what separates lanes.
ROW_IN, TICKS_IN, GAP_IN, BAR_PART = 0.2, 0.17, 0.2, 0.7
WIDTH_IN, HEAD_IN, FOOT_IN, LEAST_PLOT_IN, MOST_PLOT_IN = 11.0, 0.55, 1.05, 0.9, 60.0
LETTERS_IN_LABEL = 26
# Of the time shown.
LEAST_RIMMED = 0.006


@dataclass(frozen=True)
class _Place:
    """A lane on the page: where its ticks and its lowest row are, from the top, in inches."""

    lane: Lane
    top: float
    ticks: float
    bottom: float
    row_in: float


class _Look(NamedTuple):
    """How a box is drawn, as matplotlib names it."""

    facecolor: str
    edgecolor: str
    linewidth: float
    hatch: str | None
    zorder: int


def draw_timeline(
    timeline: Timeline, form: str, dpi: int = 150, title: str = "", at: str | None = None
) -> bytes:
    """The bytes of a picture of a timeline, ``png`` or ``svg``. Raises Unavailable without matplotlib.

    title: by default what all lanes share. at: a moment (UTC) to mark.
    """
    places = list(_places(timeline))
    height = max(LEAST_PLOT_IN, places[-1].bottom)
    size = (WIDTH_IN, HEAD_IN + height + FOOT_IN)
    return picture(size, lambda figure: _fill(figure, timeline, places, height, title, at), form, dpi)


def _places(timeline: Timeline) -> Iterator[_Place]:
    rows = sum(1 + max(bar.row for bar in lane.bars) for lane in timeline.lanes)
    lanes = len(timeline.lanes)
    row_in = min(ROW_IN, max(0.03, (MOST_PLOT_IN - lanes * (TICKS_IN + GAP_IN)) / rows))
    top = 0.0
    for lane in timeline.lanes:
        high = 1 + max(bar.row for bar in lane.bars)
        ticks = top + GAP_IN / 2 + max(high * row_in, 0.24)
        bottom = ticks + TICKS_IN + GAP_IN / 2
        yield _Place(lane, top, ticks, bottom, row_in)
        top = bottom


def _fill(
    figure: Any, timeline: Timeline, places: Sequence[_Place], height: float, title: str, at: str | None
) -> None:
    grid = figure.add_gridspec(1, 2, width_ratios=(4.2, 1.0))
    valid = figure.add_subplot(grid[0, 0])
    made = figure.add_subplot(grid[0, 1])
    first, last = _span(timeline, at)
    for axes in (valid, made):
        axes.set_ylim(height, 0)
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
        for number, place in enumerate(places):
            if number % 2 == 0:
                axes.axhspan(place.top, place.bottom, color=BAND, linewidth=0, zorder=0)
    valid.set_xlim(first, last)
    for place in places:
        _lane(valid, place, first, last)
        _made(made, place)
    if at is not None:
        valid.axvline(_time(at), color=INK, linewidth=0.9, linestyle=(0, (4, 2)), zorder=6)
    valid.set_yticks([place.top + GAP_IN / 2 + 0.1 for place in places], [""] * len(places))
    for place in places:
        _label(valid, timeline, place)
    made.set_yticks([])
    # On the left, since the year or the day of the dates is written on the right.
    valid.set_xlabel("valid for frames of (UTC)", loc="left")
    made.set_xlabel("made (UTC)", loc="left")
    _dates(valid, 9)
    _dates(made, 4)
    _made_limits(made, timeline)
    figure.suptitle(plain(title or title_of(timeline)), x=0.012, ha="left")
    _legend(figure, timeline)


def _label(axes: Any, timeline: Timeline, place: _Place) -> None:
    across = axes.get_yaxis_transform()
    y = place.top + GAP_IN / 2 + place.row_in / 2
    axes.text(-0.012, y, place.lane.kind, transform=across, ha="right", va="center", fontsize=10, color=INK)
    words = lane_words(timeline, place.lane)
    if words:
        short = (
            words
            if len(words) <= LETTERS_IN_LABEL
            else f"{words[: LETTERS_IN_LABEL - 1]}\N{HORIZONTAL ELLIPSIS}"
        )
        axes.text(
            -0.012, y + 0.155, plain(short), transform=across, ha="right", va="center", fontsize=8, color=NOTE
        )


def _lane(axes: Any, place: _Place, first: datetime, last: datetime) -> None:
    _bars(axes, place, first, last)
    most = max((night.frames for night in place.lane.nights), default=1)
    base = place.ticks + 0.03 + TICKS_IN
    for colour, served in ((NEED, True), (LACK, False)):
        nights = [one for one in place.lane.nights if (one.served == one.frames) == served]
        middles = [_time(one.start) + (_time(one.end) - _time(one.start)) / 2 for one in nights]
        tops = [base - TICKS_IN * (0.35 + 0.65 * (one.frames / most) ** 0.5) for one in nights]
        axes.vlines(middles, base, tops, color=colour, linewidth=1.1, zorder=3)


def _bars(axes: Any, place: _Place, first: datetime, last: datetime) -> None:
    """The bars of a lane: those that look alike at once, which is ten times as fast as one by one."""
    import matplotlib.dates
    from matplotlib.collections import PolyCollection

    dates: Any = matplotlib.dates
    boxes: dict[_Look, list[tuple[datetime, datetime, float]]] = {}
    open_ends: dict[str, list[tuple[datetime, float]]] = {}
    high = place.row_in * BAR_PART
    for bar in place.lane.bars:
        y = place.ticks - (bar.row + 1) * place.row_in + place.row_in * (1 - BAR_PART) / 2
        for look, start, end in _boxes(bar, first, last):
            if start < end:
                boxes.setdefault(look, []).append((start, end, y))
        for moment, at, mark in ((bar.interval.start, first, "<"), (bar.interval.end, last, ">")):
            if moment is None:
                open_ends.setdefault(mark, []).append((at, y + high / 2))
    for look, places in boxes.items():
        starts = dates.date2num([start for start, _, _ in places])
        ends = dates.date2num([end for _, end, _ in places])
        corners = [
            ((x0, y), (x0, y + high), (x1, y + high), (x1, y))
            for x0, x1, (_, _, y) in zip(starts, ends, places, strict=True)
        ]
        axes.add_collection(PolyCollection(corners, **look._asdict()), autolim=False)
    for mark, points in open_ends.items():
        axes.plot(*zip(*points, strict=True), mark, color=INK, markersize=5, clip_on=False, zorder=5)


def _boxes(bar: Bar, first: datetime, last: datetime) -> Iterator[tuple[_Look, datetime, datetime]]:
    """The boxes that a bar is drawn as: its interval, where it wins, and a rim if it was set by hand."""
    ends = _clipped(bar.interval, first, last)
    edge, hatch = EDGES.get(bar.state, "none"), HATCHED.get(bar.state)
    yield _Look(FACES.get(bar.state, PALE), edge, 0.7, hatch, 2), *ends
    for piece in bar.wins:
        inside = _clipped(piece, first, last)
        # Neighbours stay apart by their white rims; a night among years has none, so that it is seen.
        wide = (inside[1] - inside[0]) / (last - first) > LEAST_RIMMED
        yield _Look(USED, "white" if wide else USED, 0.6, None, 3), *inside
    if bar.by_hand:
        yield _Look("none", INK, 1.3, None, 4), *ends


def _made(axes: Any, place: _Place) -> None:
    looks: dict[tuple[str, str, str], list[Bar]] = {}
    for bar in place.lane.bars:
        colour = DOTS.get(bar.state, FRAME)
        face = colour if bar.state in ("used", "partly") else "white"
        if bar.made:
            looks.setdefault((colour, face, INK if bar.by_hand else colour), []).append(bar)
    for (colour, face, edge), bars in looks.items():
        axes.plot(
            [_time(bar.made) for bar in bars],
            [place.ticks - (bar.row + 0.5) * place.row_in for bar in bars],
            "o",
            color=colour,
            markerfacecolor=face,
            markeredgecolor=edge,
            markeredgewidth=1.1,
            markersize=4.5,
            zorder=3,
        )


def _made_limits(axes: Any, timeline: Timeline) -> None:
    moments = [_time(bar.made) for lane in timeline.lanes for bar in lane.bars if bar.made]
    if not moments:
        return
    low, high = min(moments), max(moments)
    margin = max((high - low) * 0.12, timedelta(minutes=1))
    axes.set_xlim(low - margin, high + margin)


def _legend(figure: Any, timeline: Timeline) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    bars = [bar for lane in timeline.lanes for bar in lane.bars]
    states = {bar.state for bar in bars}
    nights = [night for lane in timeline.lanes for night in lane.nights]
    handles: list[Any] = [Patch(facecolor=USED, label="used: it wins here")]
    if "partly" in states:
        handles.append(Patch(facecolor=PALE, label="eclipsed here, used elsewhere"))
    for state, text in (
        ("eclipsed", "eclipsed everywhere"),
        ("flagged", "flagged"),
        ("bad", "judged bad"),
        ("gone", "its file is gone"),
    ):
        if state in states:
            look: Any = {"facecolor": FACES[state], "edgecolor": EDGES[state], "hatch": HATCHED.get(state)}
            handles.append(Patch(label=text, **look))
    if any(bar.by_hand for bar in bars):
        handles.append(Patch(facecolor="white", edgecolor=INK, linewidth=1.3, label="interval set by hand"))
    for colour, there, text in (
        (NEED, any(one.served == one.frames for one in nights), "science frames that night"),
        (LACK, any(one.served < one.frames for one in nights), "some of them without"),
    ):
        if there:
            mark: Any = {
                "color": colour,
                "marker": "|",
                "linestyle": "none",
                "markersize": 9,
                "markeredgewidth": 1.4,
            }
            handles.append(Line2D([], [], label=text, **mark))
    figure.legend(
        handles=handles,
        loc="outside lower left",
        ncols=min(5, len(handles)),
        handlelength=1.8,
        columnspacing=1.8,
        fontsize=9,
    )


def _dates(axes: Any, most: int) -> None:
    import matplotlib.dates

    dates: Any = matplotlib.dates
    locator = dates.AutoDateLocator(minticks=2, maxticks=most)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    axes.grid(True, axis="x", color=GRID)


def _span(timeline: Timeline, at: str | None) -> tuple[datetime, datetime]:
    """The time that is shown: all that has an end, and a little more."""
    low, high = timeline.ends()
    moments = [_time(moment) for moment in (low, high, at) if moment]
    if not moments:
        return datetime(2000, 1, 1), datetime(2000, 1, 2)
    first, last = (min(max(one, _time(EARLIEST)), _time(LATEST)) for one in (min(moments), max(moments)))
    margin = max((last - first) * 0.015, timedelta(hours=3))
    return first - margin, last + margin


def _clipped(piece: Piece, first: datetime, last: datetime) -> tuple[datetime, datetime]:
    start = first if piece.start is None else max(first, _time(piece.start))
    return start, last if piece.end is None else min(last, _time(piece.end))


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=None)
