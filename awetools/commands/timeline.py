"""`awe-timeline`: which calibrations there are over time, which of them wins when, and which are eclipsed."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import NoMatch, NoStore, UnknownName, UsageError, nearest
from . import options
from .messages import Messenger
from .runner import launch
from .tables import print_table
from .types import ConditionType

if TYPE_CHECKING:
    from ..core.kind import Kind
    from ..core.timeline import Bar, Lane, Piece, Timeline

FORMATS = ("text", "tsv", "json")
COLUMNS = (
    "lane",
    "path",
    "night",
    "state",
    "valid_from",
    "valid_to",
    "valid_by",
    "made",
    "verdict",
    "flags",
    "frames",
    "wins",
)
# Letters of the drawn time, and its signs: it wins, it is valid and does not, it is valid but unfit.
DRAWN = 48
SIGNS = {
    "wins": "\N{FULL BLOCK}",
    "valid": "\N{LIGHT SHADE}",
    "unfit": "\N{MEDIUM SHADE}",
    "not": "\N{MIDDLE DOT}",
}
TYPED = {"wins": "#", "valid": "-", "unfit": "x", "not": "."}
UNFIT = ("flagged", "bad", "gone", "undated")


@click.command(
    "timeline",
    short_help="Draw when calibrations are valid, and which of them wins.",
    context_settings=options.SETTINGS,
)
@click.argument("words", nargs=-1, type=ConditionType(), metavar="[KIND]... [CONDITION]...")
@options.path_option("-o", "--output", help="Write the picture here; its name ends in .png or .svg.")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="Print as text for people, TAB-separated, or JSON. [default: text on a terminal, else tsv]",
)
@click.option(
    "--at", "moment", metavar="TIME", help="Print only what wins at a time (UTC), or at noon of a night."
)
@click.option(
    "--as-of",
    metavar="DATE",
    help="As things stood then: a time (UTC), or the end of a date.",
)
@click.option("--title", metavar="TEXT", help="Written above the picture.")
@click.option(
    "--dpi", type=click.IntRange(20, 1200), default=150, show_default=True, help="Pixels of the PNG an inch."
)
@options.json_output
@options.common
@click.pass_obj
def command(_messenger: Messenger, /, words: tuple[str, ...], **given: Any) -> int:
    """Show the calibrations of each KIND over time: valid when, made when, and where each of them wins.

    A lane is the calibrations of one kind that could serve the same frames: one a
    detector, filter, set-up. Without KIND all kinds are shown of which there are any.
    CONDITIONS are those of awe-query; one on the filter holds for flats and other
    kinds that have one.

    \b
    State of a calibration:
      used      it wins in all of its interval
      partly    in a part of it; another one eclipses it in the rest
      eclipsed  it wins nowhere
      flagged   a measure is outside its limits, and nobody judged it good
      bad       a person judged it bad
      gone      its file is gone
      undated   its night is not known

    With -o the picture is drawn: bars are intervals, dark where the calibration
    wins, one made later above those it overlaps, with a dark rim if set by hand;
    the points beside them are when it was made. Ticks below a lane are nights with
    science frames. Drawing needs matplotlib: pip install 'awetools[plot]'.

    With --at each line has lane, kind and path of the calibration that wins; exit code
    5 if there is a lane in which none does.

    \b
    Examples:
      awe-timeline bias flat detector=chip1 filter=R -o timeline.png
      awe-timeline bias --at 2024-03-02T23:10
    """
    from ..core.timeline import Asked, timeline_of
    from ..core.validity import as_of_moment
    from ..core.workspace import here

    form = _form(given)
    picture = _picture_form(given)
    stores = here().stores
    if not stores:
        raise NoStore("there is no store here, and AWE_PATH names none", hint="awe-init, or AWE_PATH=DIR")
    kinds, conditions = _parted(words)
    as_of = None if given["as_of"] is None else as_of_moment(given["as_of"])
    timeline = timeline_of(Asked(kinds, conditions, as_of), stores)
    moment = None if given["moment"] is None else _moment(given["moment"], timeline)
    if picture:
        from ..core.plots.timeline import draw_timeline
        from .plot import write_picture

        drawn = draw_timeline(timeline, picture, given["dpi"], given["title"] or "", moment)
        write_picture(given["output"], drawn)
    if moment is not None:
        return _print_winners(timeline, moment, form)
    if picture and given["form"] is None and not given["as_json"]:
        options.print_line(str(given["output"]))
    else:
        _print(timeline, form)
    return 0


def _form(given: dict[str, Any]) -> str:
    if given["as_json"]:
        return "json"
    return str(given["form"] or ("text" if sys.stdout.isatty() else "tsv"))


def _picture_form(given: dict[str, Any]) -> str:
    """png or svg, from the name of the output; empty without one. Raises UsageError."""
    if given["output"] is None:
        return ""
    from .plot import FORMATS as PICTURES

    form = str(given["output"].suffix.lower().removeprefix("."))
    if form not in PICTURES:
        raise UsageError(f"-o {given['output']}: the picture's name must end in .png or .svg")
    return form


def _parted(words: Sequence[str]) -> tuple[list[Kind], list[str]]:
    """The kinds that are named, in the order of a reduction (all without names), and the conditions."""
    from ..core.kinds import KINDS

    named, conditions = [], []
    names = [kind.name for kind in KINDS]
    for word in words:
        if word in names:
            named.append(word)
        elif word.replace("_", "").isalnum():
            raise UnknownName(f"no kind {word!r}{nearest(word, names)}; there are: {', '.join(names)}")
        else:
            conditions.append(word)
    without = [kind.name for kind in KINDS if kind.name in named and kind.validity is None]
    if without:
        raise UsageError(f"a {without[0]} is not chosen for others, so it has no validity to show")
    return [kind for kind in KINDS if kind.validity and (not named or kind.name in named)], conditions


def _moment(text: str, timeline: Timeline) -> str:
    """A time as typed; a date is noon of that night at the site of the calibrations."""
    from ..core.errors import BadValue
    from ..core.planning.choose import meta_of
    from ..core.validity import moment

    found = None
    with suppress(BadValue):
        found = moment(text, meta_of(timeline.lanes[0].bars[0].values))
    if found is None:
        raise BadValue(f"--at {text!r:.60} is not a night as 2024-03-02 or a time (UTC) as 2024-03-02T23:10")
    return found


def _print_winners(timeline: Timeline, moment: str, form: str) -> int:
    without, rows = [], []
    for lane in timeline.lanes:
        bar, name = lane.at(moment), _lane_name(timeline, lane)
        if bar is None:
            without.append(name)
        path = str(bar.path) if bar else None
        if form == "json":
            about = {"lane": name, "kind": lane.kind, "path": path, "at": moment}
            options.print_line(json.dumps(about | _about(lane)))
        rows.append([name, lane.kind, path or ""])
    if form != "json":
        print_table(("lane", "kind", "path"), rows)
    if without:
        raise NoMatch(
            f"nothing is valid at {moment} in {', '.join(without)}",
            hint=f"awe-timeline {timeline.lanes[0].kind}",
        )
    return 0


def _about(lane: Lane) -> dict[str, Any]:
    return {name: value for name, value in lane.about.items() if value is not None}


def _lane_name(timeline: Timeline, lane: Lane) -> str:
    from ..core.timeline import distinct

    return " ".join([lane.kind, *(str(value) for value in distinct(timeline, lane).values())])


def _print(timeline: Timeline, form: str) -> None:
    if form == "text":
        _print_text(timeline)
        return
    rows = []
    for lane in timeline.lanes:
        name = _lane_name(timeline, lane)
        for bar in lane.bars:
            if form == "json":
                options.print_line(json.dumps(_object(name, lane, bar)))
            else:
                rows.append(_row(name, bar))
    if form == "tsv":
        print_table(COLUMNS, rows)


def _object(name: str, lane: Lane, bar: Bar) -> dict[str, Any]:
    about = {
        "path": str(bar.path),
        "lane": name,
        "kind": lane.kind,
        "recipe_key": bar.values["recipe_key"],
        "night": bar.values["night"],
        "state": bar.state,
        "valid_from": bar.interval.start,
        "valid_to": bar.interval.end,
        "valid_by": bar.values["valid_by"],
        "made": bar.made,
        "verdict": bar.values["verdict"],
        "flags": bar.values["flags"],
        "frames": bar.frames,
        "wins": [[piece.start, piece.end] for piece in bar.wins],
    }
    return about | {name: value for name, value in _about(lane).items() if name not in about}


def _row(name: str, bar: Bar) -> list[str]:
    values = bar.values
    ends = [values["valid_from"], values["valid_to"], values["valid_by"]]
    return [
        name,
        str(bar.path),
        *("" if one is None else str(one) for one in (values["night"], bar.state, *ends)),
        bar.made,
        str(values["verdict"] or ""),
        str(values["flags"]),
        str(bar.frames),
        ",".join(f"{piece.start or ''}..{piece.end or ''}" for piece in bar.wins),
    ]


# Text for people


def _print_text(timeline: Timeline) -> None:
    from ..core.timeline import lane_words, title_of

    first, last = timeline.ends()
    signs = SIGNS if _has(SIGNS) else TYPED
    options.print_line(title_of(timeline))
    ruler = f"{first[:10]}{last[:10]:>{DRAWN - 10}}" if first else ""
    for lane in timeline.lanes:
        words = lane_words(timeline, lane)
        options.print_line("")
        names = [bar.path.name for bar in lane.bars]
        head = f"{lane.kind}{f' ({words})' if words else ''}"
        width = max(map(len, (head, *names)))
        options.print_line(f"{head:<{width}}  {ruler}")
        for bar, name in reversed(list(zip(lane.bars, names, strict=True))):
            hand = ", by hand" if bar.by_hand else ""
            served = f", {bar.frames} frames" if bar.frames else ""
            told = f"{bar.state}{hand}{served}"
            drawn = _drawn(bar, first, last, signs)
            wins = ", ".join(_stretch(piece) for piece in bar.wins) or "nowhere"
            options.print_line(f"{name:<{width}}  {drawn}  {told}; made {bar.made[:16]}; wins {wins}")
        lacking = [night for night in lane.nights if night.served < night.frames]
        if lacking:
            count = sum(night.frames - night.served for night in lacking)
            nights = ", ".join(night.night for night in lacking[:5])
            more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
            options.print_line(f"  without one: {count} science frames of {nights}{more}")
    about = (("wins", "wins"), ("valid", "valid, but eclipsed"), ("unfit", "valid, but flagged, bad or gone"))
    options.print_line("")
    options.print_line("   ".join(f"{signs[sign]} {text}" for sign, text in about))


def _has(signs: dict[str, str]) -> bool:
    """Whether the terminal has such letters."""
    try:
        "".join(signs.values()).encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _drawn(bar: Bar, first: str, last: str, signs: dict[str, str]) -> str:
    """The interval as a line of letters from the first to the last moment shown."""
    from datetime import datetime

    begin, end = datetime.fromisoformat(first), datetime.fromisoformat(last)
    step = (end - begin) / DRAWN
    letters = [signs["not"]] * DRAWN

    def mark(piece: Piece, sign: str) -> None:
        start = begin if piece.start is None else datetime.fromisoformat(piece.start)
        stop = end if piece.end is None else datetime.fromisoformat(piece.end)
        low = min(DRAWN - 1, max(0, int((start - begin) / step)))
        high = min(DRAWN, max(low + 1, -int(-((stop - begin) / step) // 1)))
        if start < end and stop > begin:
            letters[low:high] = sign * (high - low)

    if step:
        mark(bar.interval, signs["unfit" if bar.state in UNFIT else "valid"])
        for piece in bar.wins:
            mark(piece, signs["wins"])
    return "".join(letters)


def _stretch(piece: Piece) -> str:
    """A stretch of time, to the minute."""
    if piece.start is None and piece.end is None:
        return "forever"
    return f"{(piece.start or '')[:16]}..{(piece.end or '')[:16]}"


def main() -> None:
    """Run the program."""
    launch(command)
