"""Draw the calibration timeline: a lane a kind, validity across, when it was made beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ..timeline import Bar, Lane, Piece, Timeline, lane_words, title_of
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
    valid.set_xlabel("valid for frames of (UTC)")
    made.set_xlabel("made (UTC)")
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
    for bar in place.lane.bars:
        y = place.ticks - (bar.row + 1) * place.row_in + place.row_in * (1 - BAR_PART) / 2
        _bar(axes, bar, y, place.row_in * BAR_PART, first, last)
    most = max((night.frames for night in place.lane.nights), default=1)
    base = place.ticks + 0.03 + TICKS_IN
    for colour, served in ((NEED, True), (LACK, False)):
        nights = [one for one in place.lane.nights if (one.served == one.frames) == served]
        middles = [_time(one.start) + (_time(one.end) - _time(one.start)) / 2 for one in nights]
        tops = [base - TICKS_IN * (0.35 + 0.65 * (one.frames / most) ** 0.5) for one in nights]
        axes.vlines(middles, base, tops, color=colour, linewidth=1.1, zorder=3)


def _bar(axes: Any, bar: Bar, y: float, high: float, first: datetime, last: datetime) -> None:
    ends = _clipped(bar.interval, first, last)
    face = FACES.get(bar.state, PALE)
    edge = EDGES.get(bar.state, "none")
    _box(
        axes,
        ends,
        y,
        high,
        facecolor=face,
        edgecolor=edge,
        linewidth=0.7,
        hatch=HATCHED.get(bar.state),
        zorder=2,
    )
    for piece in bar.wins:
        inside = _clipped(piece, first, last)
        # Neighbours stay apart by their white rims; a night among years has none, so that it is seen.
        wide = (inside[1] - inside[0]) / (last - first) > LEAST_RIMMED
        _box(
            axes,
            inside,
            y,
            high,
            facecolor=USED,
            edgecolor="white" if wide else USED,
            linewidth=0.6,
            zorder=3,
        )
    if bar.by_hand:
        _box(axes, ends, y, high, facecolor="none", edgecolor=INK, linewidth=1.3, zorder=4)
    middle = y + high / 2
    for end, at, mark in ((bar.interval.start, first, "<"), (bar.interval.end, last, ">")):
        if end is None:
            axes.plot([at], [middle], mark, color=INK, markersize=5, clip_on=False, zorder=5)


def _box(axes: Any, ends: tuple[datetime, datetime], y: float, high: float, **look: Any) -> None:
    import matplotlib.dates
    from matplotlib.patches import Rectangle

    dates: Any = matplotlib.dates
    if ends[0] < ends[1]:
        x0, x1 = dates.date2num(ends[0]), dates.date2num(ends[1])
        axes.add_patch(Rectangle((x0, y), x1 - x0, high, **look))


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
    moments = [moment for moment in (low, high, at) if moment]
    if not moments:
        return datetime(2000, 1, 1), datetime(2000, 1, 2)
    first, last = _time(min(moments)), _time(max(moments))
    margin = max((last - first) * 0.015, timedelta(hours=3))
    return first - margin, last + margin


def _clipped(piece: Piece, first: datetime, last: datetime) -> tuple[datetime, datetime]:
    start = first if piece.start is None else max(first, _time(piece.start))
    return start, last if piece.end is None else min(last, _time(piece.end))


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=None)
