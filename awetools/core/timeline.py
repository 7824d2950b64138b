"""The calibration timeline: lane by lane, when each calibration is valid and where in it it wins.

A lane holds the calibrations of one kind that could serve the same frames. Where
each of them wins is found by the rule of `choose` itself, between all moments at
which its answer can change: ends of intervals, and the noons between nights that
are nearer to one calibration and nights that are nearer to another.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from .errors import NoMatch, UnknownName, nearest
from .expressions.expression import Node, names, parse_words
from .indexing.index import absolute
from .indexing.inforce import rows_in_force
from .indexing.querynames import QUERY_COLUMNS
from .kind import Kind
from .meta import ALIASES, FIELDS
from .planning.choose import Candidate, candidate_of, day_number, meta_of, order
from .planning.plan import noon_of
from .quality import measure_names, unfit_for_use
from .store import Store
from .units import evening

State = Literal["used", "partly", "eclipsed", "flagged", "bad", "gone", "undated"]

# Fields that frames take from elsewhere than calibrations do, and so are not asked of them here.
NOT_OF_FRAMES = ("overscan_mode",)
# Of a lane, in which the order of the rows is that of making.
MOST_ROWS = 8
# Kinds that a message names one by one.
MOST_NAMED = 3
MILLISECOND = timedelta(milliseconds=1)
EARLIEST, LATEST = "1850-01-01", "2200-01-01"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Piece:
    """A stretch of time, UTC, from start (included) to end (excluded); None is without end."""

    start: str | None
    end: str | None


@dataclass(frozen=True)
class Bar:
    """A calibration in its lane. wins: where it is chosen. row: of the lane, so that none covers another.

    state: used (wins in all of its interval), partly, eclipsed (wins nowhere), flagged,
    bad (judged so), gone (its file is), undated (its night is not known).
    """

    path: Path
    store_rank: int
    values: Row
    interval: Piece
    by_hand: bool
    made: str
    state: State
    wins: tuple[Piece, ...]
    row: int
    frames: int = 0


@dataclass(frozen=True)
class Night:
    """The science frames of a night that a lane is for, and for how many of them a calibration wins."""

    night: str
    start: str
    end: str
    frames: int
    served: int


@dataclass(frozen=True)
class Lane:
    """Calibrations of one kind for the same frames, those made first first."""

    kind: str
    about: Mapping[str, Any]
    bars: tuple[Bar, ...]
    nights: tuple[Night, ...]
    winners: tuple[tuple[Piece, int], ...]

    def at(self, moment: str) -> Bar | None:
        """The calibration that wins at a moment (UTC)."""
        for piece, number in self.winners:
            if (piece.start is None or piece.start <= moment) and (piece.end is None or moment < piece.end):
                return self.bars[number]
        return None


@dataclass(frozen=True)
class Timeline:
    """Lanes, in the order of a reduction. about: what all lanes share."""

    lanes: tuple[Lane, ...]
    about: Mapping[str, Any]
    as_of: str | None = None

    def ends(self) -> tuple[str, str]:
        """The first and last moment of all that has one: intervals, nights of calibrations and of frames.

        Ends in a far century are as good as none, and would hide all the others.
        """
        moments = [
            moment
            for lane in self.lanes
            for bar in lane.bars
            for moment in (bar.interval.start, bar.interval.end, *_own_night(bar.values))
            if moment
        ]
        moments += [moment for lane in self.lanes for one in lane.nights for moment in (one.start, one.end)]
        moments = [moment for moment in moments if EARLIEST < moment < LATEST] or moments
        return (min(moments), max(moments)) if moments else ("", "")


@dataclass(frozen=True)
class Asked:
    """Which calibrations: of which kinds, under which conditions (words), and as of when."""

    kinds: Sequence[Kind]
    conditions: Sequence[str] = ()
    as_of: str | None = None


def timeline_of(asked: Asked, stores: Sequence[Store]) -> Timeline:
    """The timeline of the calibrations that meet conditions. Raises UnknownName, NoMatch.

    A condition on the filter holds for kinds that have one only, and conditions on
    what a person or program found of a calibration (its flags, its measures) hold for
    calibrations only, not for the science frames that are counted.
    """
    conditions = [node for word in asked.conditions for node in [parse_words([word])] if node is not None]
    _check_names(conditions, asked.kinds)
    where = f"kind IN ({', '.join('?' * len(asked.kinds))})"
    found = rows_in_force(stores, where, [kind.name for kind in asked.kinds], asked.as_of)
    frames = _frames(stores, conditions)
    lanes: list[Lane] = []
    for kind in asked.kinds:
        wanted = [node for node in conditions if "filter" in kind.match or "filter" not in names(node)]
        rows = [one for one in found if one[1]["kind"] == kind.name and _meets(stores, one, wanted)]
        lanes += _lanes_of(kind, rows, frames, stores)
    if not lanes:
        few = len(asked.kinds) <= MOST_NAMED
        raise NoMatch(
            f"no {' or '.join(kind.name for kind in asked.kinds) if few else 'calibration'}"
            f"{' with ' if asked.conditions else ''}{' '.join(asked.conditions)}"
            f"{f' as of {asked.as_of[:16]}' if asked.as_of else ''}",
            hint=f"awe-query {asked.kinds[0].name} --get night,detector,filter --format table",
        )
    return Timeline(tuple(lanes), _shared(lanes), asked.as_of)


def lane_of(
    kind: Kind, rows: Sequence[tuple[int, Row]], place: Callable[[int, Row], Path], frames: Sequence[Row] = ()
) -> Lane:
    """The lane of calibrations that could serve the same frames, each with the place of its store.

    place: where the file of a row is. frames: rows of the science frames that are counted.
    """
    ordered = sorted(rows, key=lambda one: (str(one[1]["made"]), one[1]["sequence"] or 0))
    paths = [place(rank, row) for rank, row in ordered]
    there = [path.exists() for path in paths]
    wanted = meta_of(ordered[0][1])
    question = {"match": {name: ordered[0][1].get(name) for name in kind.match}, "at": None, "night": None}

    def looked_at(number: int, moment: str, night: str) -> Candidate:
        rank, row = ordered[number]
        asked = {**question, "at": moment, "night": night}
        return candidate_of(kind, row, asked, wanted, paths[number], rank)

    fit = [number for number, (_, row) in enumerate(ordered) if there[number] and _fits(row)]
    winners = _winners([(number, ordered[number][1]) for number in fit], looked_at)
    bars = tuple(
        _bar(rank, row, path, exists, [piece for piece, winner in winners if winner == number])
        for number, ((rank, row), path, exists) in enumerate(zip(ordered, paths, there, strict=True))
    )
    lane = Lane(kind.name, _about(kind, ordered[0][1]), _stacked(bars), (), tuple(winners))
    return _with_frames(lane, kind, wanted, frames)


# Rows and frames


def _check_names(conditions: Iterable[Node], kinds: Sequence[Kind]) -> None:
    known = [*QUERY_COLUMNS, *(field.name for field in FIELDS), *ALIASES]
    known += [name for kind in kinds for name in measure_names(kind)]
    for node in conditions:
        for name in names(node):
            if name not in known:
                raise UnknownName(
                    f"no field {name!r}{nearest(name, known)}", hint=f"awe-query {kinds[0].name} --fields"
                )


def _meets(stores: Sequence[Store], found: tuple[int, Row], conditions: Sequence[Node]) -> bool:
    from .expressions.evaluation import holds

    rank, row = found

    def lookup(name: str) -> object:
        name = ALIASES.get(name, name)
        if name in ("path", "filename"):
            path = absolute(stores[rank], row["address"])
            return path if name == "path" else os.path.basename(path)
        if name in row:
            return row[name]
        measures = json.loads(row["measures"])
        return measures[name] if name in measures else meta_of(row).get(name)

    return all(holds(node, lookup) for node in conditions)


def _frames(stores: Sequence[Store], conditions: Sequence[Node]) -> list[Row]:
    """The science frames of all stores, each once, that meet what conditions say of frames."""
    fields = {field.name for field in FIELDS} | set(ALIASES)
    wanted = [node for node in conditions if names(node) <= fields]
    found = {one[1]["address"]: one for one in rows_in_force(stores, "kind = 'raw_science'")}
    usable = (one for one in found.values() if one[1]["verdict"] != "bad")
    return [one[1] for one in usable if _meets(stores, one, wanted)]


def _lanes_of(
    kind: Kind, rows: Sequence[tuple[int, Row]], frames: Sequence[Row], stores: Sequence[Store]
) -> Iterator[Lane]:
    groups: dict[str, list[list[tuple[int, Row]]]] = {}
    for one in rows:
        alike = groups.setdefault(repr([one[1].get(name) for name in _fields_of(kind)]), [])
        lane = next((lane for lane in alike if _serve_each_other(kind, lane[0][1], one[1])), None)
        if lane is None:
            alike.append([one])
        else:
            lane.append(one)
    lanes = [lane for alike in groups.values() for lane in alike]
    for lane in sorted(lanes, key=lambda lane: [str(lane[0][1].get(name) or "") for name in _SORTED]):
        needing = [row for row in frames if _needs(row, kind, lane[0][1])]
        yield lane_of(kind, lane, lambda rank, row: Path(absolute(stores[rank], row["address"])), needing)


def _fields_of(kind: Kind) -> Sequence[str]:
    """What the calibrations of a lane agree in: what they match, and a filter that the choice prefers."""
    return [*kind.match, *(name for name in kind.group if name == "filter" and name not in kind.match)]


_SORTED = ("instrument", "detector", "filter", "binning", "temperature_set_c")


def _serve_each_other(kind: Kind, one: Row, other: Row) -> bool:
    if kind.serves is None:
        return True
    first, second = meta_of(one), meta_of(other)
    return not kind.serves(first, second) and not kind.serves(second, first)


def _needs(frame: Row, kind: Kind, one: Row) -> bool:
    """Whether a science frame takes calibrations such as this one."""
    fields = [name for name in _fields_of(kind) if name not in NOT_OF_FRAMES]
    if any(frame.get(name) != one.get(name) for name in fields):
        return False
    return kind.serves is None or not kind.serves(meta_of(one), meta_of(frame))


def _about(kind: Kind, row: Row) -> dict[str, Any]:
    about = {name: row.get(name) for name in ("instrument", *_fields_of(kind))}
    if kind.serves is not None and meta_of(row).get("holds_bias"):
        about["exptime_s"] = row.get("exptime_s")
    return about


def _shared(lanes: Sequence[Lane]) -> dict[str, Any]:
    """What all lanes have in common."""
    return {
        name: value
        for name, value in lanes[0].about.items()
        if all(lane.about.get(name) == value for lane in lanes if name in lane.about or name != "filter")
    }


def distinct(timeline: Timeline, lane: Lane) -> dict[str, Any]:
    """What tells a lane from the others of its kind, and its filter."""
    others = [one for one in timeline.lanes if one.kind == lane.kind]
    return {
        name: value
        for name, value in lane.about.items()
        if value is not None
        and (name == "filter" or any(one.about.get(name) != value for one in others))
        and (name != "instrument" or name not in timeline.about)
    }


def title_of(timeline: Timeline) -> str:
    """What all lanes share, in words."""
    names = ("instrument", "detector", "filter", "binning", "readout")
    shared = [str(timeline.about[name]) for name in names if timeline.about.get(name) is not None]
    as_of = f", as of {timeline.as_of[:16]}" if timeline.as_of else ""
    return f"Calibrations{': ' if shared else ''}{', '.join(shared)}{as_of}"


def lane_words(timeline: Timeline, lane: Lane) -> str:
    """What tells a lane from the others of its kind, in words: its filter, and in what they differ."""
    about = distinct(timeline, lane)
    units = {
        "temperature_set_c": " \N{DEGREE SIGN}C",
        "temperature_match_c": " \N{DEGREE SIGN}C",
        "exptime_s": " s",
    }
    return ", ".join(
        f"{value:g}{units.get(name, '')}" if isinstance(value, float) else f"{value}{units.get(name, '')}"
        for name, value in about.items()
        if not (name == "temperature_match_c" and "temperature_set_c" in about)
    )


def _with_frames(lane: Lane, kind: Kind, wanted: Mapping[str, Any], frames: Sequence[Row]) -> Lane:
    counts: Counter[str] = Counter()
    served: Counter[str] = Counter()
    uses: Counter[int] = Counter()
    longitude_deg = wanted.get("site_longitude_deg")
    starts = [piece.start or "" for piece, _ in lane.winners]
    for row in frames:
        night, at = row.get("night"), row.get("obs_start")
        if not night or not at:
            continue
        counts[night] += 1
        place = bisect_right(starts, at) - 1
        if place >= 0 and (lane.winners[place][0].end is None or at < str(lane.winners[place][0].end)):
            served[night] += 1
            uses[lane.winners[place][1]] += 1
    nights = []
    for night in sorted(counts):
        about = {"night": night, "site_longitude_deg": longitude_deg}
        nights.append(Night(night, noon_of(about), noon_of(about, 1), counts[night], served[night]))
    bars = tuple(replace(bar, frames=uses[number]) for number, bar in enumerate(lane.bars))
    return replace(lane, bars=bars, nights=tuple(nights))


# Bars


def _bar(rank: int, row: Row, path: Path, exists: bool, wins: Sequence[Piece]) -> Bar:
    interval = Piece(row["valid_from"] or None, row["valid_to"] or None)
    merged = tuple(_merged(wins))
    return Bar(
        path,
        rank,
        row,
        interval,
        row["valid_by"] == "hand",
        str(row["made"] or ""),
        _state(row, exists, interval, merged),
        merged,
        0,
    )


def _fits(row: Row) -> bool:
    """Whether a calibration serves at any time: nothing but its interval may keep it from that."""
    return bool(row["valid_by"]) and not unfit_for_use(row["flags"], row["verdict"])


def _state(row: Row, exists: bool, interval: Piece, wins: tuple[Piece, ...]) -> State:
    if not exists:
        return "gone"
    if row["verdict"] == "bad":
        return "bad"
    if unfit_for_use(row["flags"], row["verdict"]):
        return "flagged"
    if not row["valid_by"]:
        return "undated"
    if not wins:
        return "eclipsed"
    return "used" if wins == (interval,) else "partly"


def _merged(pieces: Iterable[Piece]) -> Iterator[Piece]:
    last: Piece | None = None
    for piece in pieces:
        if last is not None and last.end == piece.start and piece.start is not None:
            last = Piece(last.start, piece.end)
            continue
        if last is not None:
            yield last
        last = piece
    if last is not None:
        yield last


def _stacked(bars: Sequence[Bar]) -> tuple[Bar, ...]:
    """The bars with their rows: one made later lies above those it overlaps, so that it is seen to eclipse them.

    Where that would take too many rows, it lies in the lowest row that has room.
    """
    numbers = _row_numbers(bars, lowest=False) or _row_numbers(bars, lowest=True)
    return tuple(replace(bar, row=number) for bar, number in zip(bars, numbers, strict=True))


def _row_numbers(bars: Sequence[Bar], lowest: bool) -> list[int]:
    """The row of each bar; empty if there would be too many of them and a bar need not lie in the lowest."""
    rows: list[list[tuple[str, str]]] = []
    numbers = []
    for bar in bars:
        start = bar.interval.start or ""
        span = (start, max(start, bar.interval.end or "~"))
        full = [number for number, row in enumerate(rows) if not _has_room(row, span)]
        number = full[-1] + 1 if full else 0
        if lowest:
            number = next(number for number, other in enumerate([*full, -1]) if number != other)
        if number == len(rows):
            rows.append([])
        if len(rows) > MOST_ROWS and not lowest:
            return []
        insort(rows[number], span)
        numbers.append(number)
    return numbers


def _has_room(row: Sequence[tuple[str, str]], span: tuple[str, str]) -> bool:
    """Whether a span of time overlaps none of a row, which are in order."""
    place = bisect_right(row, (span[0], "\x7f"))
    before = place == 0 or row[place - 1][1] <= span[0]
    return before and (place == len(row) or span[1] <= row[place][0])


def _own_night(row: Row) -> tuple[str, ...]:
    night = row.get("night")
    return (noon_of(row), noon_of(row, 1)) if night else ()


# Who wins when


def _winners(
    rows: Sequence[tuple[int, Row]], looked_at: Callable[[int, str, str], Candidate]
) -> list[tuple[Piece, int]]:
    """Pieces of time with the number of the row that is chosen in them; times at which none serves are left out."""
    if not rows:
        return []
    longitude_deg = float(rows[0][1].get("site_longitude_deg") or 0.0)
    found: list[tuple[Piece, int]] = []
    for piece, active in _stretches(rows):
        near = _Nearest(active)
        for part in _cut(piece, near.breaks(longitude_deg)):
            moment = _within(part)
            night = evening(datetime.fromisoformat(moment), longitude_deg)
            looked = [
                (order(one), number)
                for number in near.rows(night)
                for one in [looked_at(number, moment, night)]
            ]
            serving = [one for one in looked if not one[0][0]]
            if not serving:
                continue
            winner = min(serving)[1]
            if found and found[-1][1] == winner and found[-1][0].end == part.start and part.start is not None:
                found[-1] = (Piece(found[-1][0].start, part.end), winner)
            else:
                found.append((part, winner))
    return found


def _stretches(rows: Sequence[tuple[int, Row]]) -> Iterator[tuple[Piece, list[tuple[int, Row]]]]:
    """Stretches of time between ends of intervals, each with the rows whose interval holds it."""
    changes: dict[str, tuple[list[int], list[int]]] = {}
    of_number = dict(rows)
    active: dict[int, None] = {}
    for number, row in rows:
        start, end = row["valid_from"] or None, row["valid_to"] or None
        if start is not None and end is not None and start >= end:
            continue
        if start is None:
            active[number] = None
        else:
            changes.setdefault(start, ([], []))[0].append(number)
        if end is not None:
            changes.setdefault(end, ([], []))[1].append(number)
    moments: list[str | None] = [None, *sorted(changes), None]
    for start, end in pairwise(moments):
        if start is not None:
            begin, over = changes[start]
            active.update(dict.fromkeys(begin))
            for number in over:
                active.pop(number, None)
        if active:
            yield Piece(start, end), [(number, of_number[number]) for number in active]


class _Nearest:
    """Rows by their nights: which can be the nearest to a night, and where that changes.

    Those set by hand and the others are looked at apart, since the rule puts the first
    before the second.
    """

    def __init__(self, rows: Sequence[tuple[int, Row]]) -> None:
        self.nights: dict[bool, dict[int, list[int]]] = {True: {}, False: {}}
        self.undated: list[int] = []
        for number, row in rows:
            day = day_number(row.get("night"))
            if day is None:
                self.undated.append(number)
            else:
                self.nights[row["valid_by"] == "hand"].setdefault(day, []).append(number)
        self.days = {by_hand: sorted(of_day) for by_hand, of_day in self.nights.items()}

    def breaks(self, longitude_deg: float) -> list[str]:
        """The noons between two nights of frames for which different nights of rows are nearest."""
        found = set()
        for days in self.days.values():
            for one, other in pairwise(days):
                found |= {(one + other + 1) // 2, (one + other) // 2 + 1}
        return sorted(noon_of(_about_night(day, longitude_deg)) for day in found)

    def rows(self, night: str) -> list[int]:
        """The rows that can be nearest to a night."""
        day = day_number(night)
        found = list(self.undated)
        for by_hand, days in self.days.items():
            place = bisect_right(days, day or 0)
            for near in days[max(0, place - 1) : place + 1]:
                found += self.nights[by_hand][near]
        return found


def _about_night(day: int, longitude_deg: float) -> dict[str, Any]:
    return {"night": date.fromordinal(day).isoformat(), "site_longitude_deg": longitude_deg}


def _cut(piece: Piece, moments: Sequence[str]) -> Iterator[Piece]:
    """A piece of time, cut at the moments that lie inside it."""
    start = piece.start
    for moment in moments:
        if (start is None or moment > start) and (piece.end is None or moment < piece.end):
            yield Piece(start, moment)
            start = moment
    yield Piece(start, piece.end)


def _within(piece: Piece) -> str:
    """A moment of a piece of time."""
    if piece.start is not None:
        return piece.start
    if piece.end is not None:
        return (datetime.fromisoformat(piece.end) - MILLISECOND).isoformat(timespec="milliseconds")
    return "2000-01-01T12:00:00.000"
