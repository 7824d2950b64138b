"""Which calibration serves a frame, and why each other one does not.

A calibration serves a frame if its match keys agree, nobody judged it bad, its
flags are clean or somebody judged it good, and its validity holds the frame's
start. Among those that serve, in this order: an interval set by hand before a
default one; the nearest in nights; one of the frame's own filter, where the kind does
not match filters; the first store of the search path; the one made last, which
eclipses the others.

The rule stands here once: `candidate_of` and `order` work on rows in memory, of
products that exist and of products yet to be made alike.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import NoMatch
from ..kind import Kind
from ..quality import unfit_for_use
from ..store import Store

SERVES = ""
# Farther than any night, for what has none.
NO_NIGHT = 1 << 20


@dataclass(frozen=True, slots=True)
class Candidate:
    """A calibration that was looked at; `reason` says why it does not serve, empty if it does.

    row: that of the index, with the verdict and interval in force.
    """

    path: Path
    kind: str
    row: Mapping[str, Any]
    valid_from: str
    valid_to: str
    by_hand: bool
    sequence: int
    store_rank: int
    reason: str
    nights_away: int
    other_filter: bool = False

    @property
    def outside_nights(self) -> int:
        """How many nights away it is where its interval does not hold the frame's start; 0 where it does."""
        return max(1, self.nights_away) if only_validity(self) else 0

    @property
    def meta(self) -> Mapping[str, Any]:
        """The meta of the calibration."""
        return meta_of(self.row)


def question_of(kind: Kind, meta: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked of a calibration kind for a frame; it goes on record."""
    return {
        "kind": kind.name,
        "at": meta.get("obs_start"),
        "night": meta.get("night"),
        "match": {name: meta.get(name) for name in matched(kind)},
    }


def matched(kind: Kind) -> Sequence[str]:
    """In what a product serves a frame: its match keys, and the exposure if it belongs to one."""
    return (*kind.match, "exposure") if "exposure" in kind.group else kind.match


def candidate_of(
    kind: Kind,
    row: Mapping[str, Any],
    question: Mapping[str, Any],
    meta: Mapping[str, Any],
    path: Path,
    rank: int = 0,
) -> Candidate:
    """What a calibration is to a frame, from memory alone: nothing is read.

    row: as the index gives it, with the verdict and interval in force; `meta` in it may
    be text or already parsed, and is read only where a column does not answer. meta:
    that of the frame, which some kinds look at beyond their match keys. rank: place of
    the store in the search path.
    """
    return Candidate(
        path=path,
        kind=kind.name,
        row=row,
        valid_from=row["valid_from"] or "",
        valid_to=row["valid_to"] or "",
        by_hand=row["valid_by"] == "hand",
        sequence=row["sequence"] or 0,
        store_rank=rank,
        reason=_unfit(kind, row, question, meta) or _outside(kind, row, question["at"]),
        nights_away=nights_between(_field(row, "night"), question["night"]),
        other_filter=_field(row, "filter") not in (None, meta.get("filter")),
    )


def order(one: Candidate) -> tuple[Any, ...]:
    """The place of a candidate in the order of choice: the least wins, if it serves.

    Of those that do not serve, first those that only their interval keeps from it, the
    nearest in nights before the others.
    """
    serves = one.reason == SERVES
    return (
        not serves,
        not serves and not only_validity(one),
        serves and not one.by_hand,
        one.nights_away,
        one.other_filter,
        one.store_rank,
        -one.sequence,
        str(one.path),
    )


def only_validity(one: Candidate) -> bool:
    """Whether a candidate fits in all but its interval."""
    return one.reason.startswith(("ended", "starts"))


def lost_to(winner: Candidate, one: Candidate) -> str:
    """Why a candidate lost to the one that was chosen, in words."""
    name = winner.path.name
    if one.reason != SERVES:
        return one.reason
    if one.kind != winner.kind:
        return f"eclipsed by {name}: a {winner.kind} comes before a {one.kind}"
    if one.by_hand != winner.by_hand:
        return f"default interval; {name} was set by hand"
    if one.nights_away != winner.nights_away:
        return f"eclipsed by {name}, farther: {_nights(one)}, not {_nights(winner, '')}"
    if one.other_filter != winner.other_filter:
        return f"eclipsed by {name}, of the frame's own filter"
    if one.store_rank != winner.store_rank:
        return f"eclipsed by {name}, of a store that comes first"
    if one.sequence != winner.sequence:
        return f"eclipsed by {name}, made later"
    return f"eclipsed by {name}, whose name comes first"


def candidates(
    kind: Kind,
    question: Mapping[str, Any],
    stores: Sequence[Store],
    meta: Mapping[str, Any],
    as_of: str | None = None,
) -> list[Candidate]:
    """Every calibration of a kind for the frame's instrument and detector: those that serve first, best first.

    meta: that of the frame, which some kinds look at beyond their match keys. as_of: an
    instant (UTC); what was made later is not there, and verdicts and intervals are as
    they stood.
    """
    found = (_there(one) for one in _looked_at(kind, question, stores, meta, as_of))
    return sorted(found, key=order)


def choose(
    kind: Kind,
    question: Mapping[str, Any],
    stores: Sequence[Store],
    meta: Mapping[str, Any],
    as_of: str | None = None,
    nearest_nights: int = 0,
) -> Candidate:
    """The calibration that wins; raises NoMatch, naming the nearest one and why it does not serve.

    nearest_nights: where none is valid, the nearest is taken that only its interval keeps
    from serving, if it is no more nights away.
    """
    looked_at = sorted(_looked_at(kind, question, stores, meta, as_of), key=order)
    for one in looked_at:
        if one.reason != SERVES:
            break
        if one.path.exists():
            return one
    for one in looked_at:
        if only_validity(one) and one.outside_nights <= nearest_nights and one.path.exists():
            return one
    removed = _removed(kind, question, stores, meta, nearest_nights)
    if removed is not None:
        raise _is_removed(kind, question, removed)
    raise no_match(kind, question, bool(stores), sorted(map(_there, looked_at), key=order))


def _removed(
    kind: Kind,
    question: Mapping[str, Any],
    stores: Sequence[Store],
    meta: Mapping[str, Any],
    nearest_nights: int,
) -> Candidate | None:
    """The calibration that would win if those that were removed were still there."""
    from ..indexing.stock import Stock

    match = question["match"]
    stock = Stock(stores)
    try:
        items = stock.items(kind.name, (match["instrument"], match.get("detector"), None)) if stores else []
        rows = [
            (one.rank, {**one._asdict(), "meta": stock.meta(one), "verdict": stock.verdict(one)})
            for one in items
            if one.is_removed
        ]
    finally:
        stock.close()
    found = [candidate_of(kind, row, question, meta, Path(row["address"]), rank) for rank, row in rows]
    for one in sorted(found, key=order):
        if one.reason == SERVES or (only_validity(one) and one.outside_nights <= nearest_nights):
            return one
    return None


def _is_removed(kind: Kind, question: Mapping[str, Any], one: Candidate) -> NoMatch:
    match, taken = question["match"], _field(one.row, "night")
    night = [f"night={taken}"] if taken else []
    return NoMatch(
        f"no {kind.name} for {_whose(match)} valid at {question['at']}: {one.path} was removed, "
        "only its record is kept",
        hint=f"awe-make {kind.name} {' '.join([*night, conditions_of(kind, match)])}",
    )


def no_match(
    kind: Kind, question: Mapping[str, Any], there_are_stores: bool, found: Sequence[Candidate]
) -> NoMatch:
    """The error where none serves, naming the nearest of the candidates, in their order."""
    match = question["match"]
    what = f"no {kind.name} for {_whose(match)} valid at {question['at']}"
    hint = f"awe-query {kind.name} {conditions_of(kind, match)}"
    if "exposure" in match:
        what, hint = f"no {kind.name} of {match['exposure']} and {match['detector']}", kind.command
        found = [one for one in found if _field(one.row, "exposure") == match["exposure"]]
    near = f" (nearest: {found[0].path.name}, {found[0].reason})" if found else ""
    return NoMatch(
        f"{what}{near}" if there_are_stores else f"{what}: there is no store to look in",
        hint=hint,
    )


def _whose(match: Mapping[str, Any]) -> Any:
    """The detector that a calibration is asked for, or the instrument where one serves all its detectors."""
    return match.get("detector") or match["instrument"]


def mismatch(kind: Kind, wanted: Mapping[str, Any], meta: Mapping[str, Any]) -> str:
    """The first thing in which a calibration does not serve what is wanted, in words; empty if none."""
    for name in matched(kind):
        if wanted.get(name) != meta.get(name):
            return difference(name, meta.get(name), wanted.get(name))
    return kind.serves(meta, wanted) if kind.serves else ""


def difference(name: str, value: object, wanted: object) -> str:
    """`filter is 'V', not 'R'`; what is not known is said in words."""
    said = "not known" if value is None else repr(value)
    return f"{name} is {said}, not {'unknown' if wanted is None else repr(wanted)}"


def conditions_of(kind: Kind, meta: Mapping[str, Any]) -> str:
    """The words of a query for the calibrations of a frame's detector, and filter where the kind has one."""
    names = ("detector", "filter") if "filter" in kind.match else ("detector",)
    return " ".join(f"{name}={shlex.quote(str(meta[name]))}" for name in names if meta.get(name) is not None)


def meta_of(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The meta of a row of the index."""
    meta = row["meta"]
    found: Mapping[str, Any] = json.loads(meta) if isinstance(meta, str) else meta
    return found


def nights_between(one: object, other: object) -> int:
    """How many nights lie between two, YYYY-MM-DD; more than any number where one is not known."""
    first, last = day_number(one), day_number(other)
    return NO_NIGHT if first is None or last is None else abs(first - last)


@lru_cache(maxsize=4096)
def day_number(night: object) -> int | None:
    """The number of a night, YYYY-MM-DD, in the calendar; None if it is none."""
    try:
        return date.fromisoformat(str(night)).toordinal()
    except ValueError:
        return None


def _looked_at(
    kind: Kind,
    question: Mapping[str, Any],
    stores: Sequence[Store],
    meta: Mapping[str, Any],
    as_of: str | None,
) -> list[Candidate]:
    from ..indexing.index import absolute
    from ..indexing.inforce import rows_in_force

    match = question["match"]
    where = "kind = ? AND instrument IS ? AND detector IS ?"
    values = (kind.name, match["instrument"], match.get("detector"))
    return [
        candidate_of(kind, row, question, meta, Path(absolute(stores[rank], row["address"])), rank)
        for rank, row in rows_in_force(stores, where, values, as_of)
    ]


def _there(one: Candidate) -> Candidate:
    """A candidate, which does not serve if its file is gone."""
    if one.reason == SERVES and not one.path.exists():
        return replace(one, reason="its file is gone")
    return one


def _unfit(kind: Kind, row: Mapping[str, Any], question: Mapping[str, Any], meta: Mapping[str, Any]) -> str:
    """Why a calibration serves no such frame at any time; empty if it does."""
    for name, wanted in question["match"].items():
        value = _field(row, name)
        if value != wanted:
            return difference(name, value, wanted)
    other = kind.serves(meta_of(row), meta) if kind.serves else ""
    return other or unfit_for_use(row["flags"], row["verdict"])


def _outside(kind: Kind, row: Mapping[str, Any], at: str | None) -> str:
    """How the interval of a calibration misses an instant; what belongs to one exposure has none."""
    if kind.validity is None and not row["valid_by"]:
        return SERVES
    if at is None:
        return "the frame has no start time"
    if not row["valid_by"]:
        return "its night is not known, so it has no interval"
    if row["valid_to"] and at >= row["valid_to"]:
        return f"ended {row['valid_to']}"
    if row["valid_from"] and at < row["valid_from"]:
        return f"starts {row['valid_from']}"
    return SERVES


def _field(row: Mapping[str, Any], name: str) -> Any:
    return row[name] if name in row else meta_of(row).get(name)


def _nights(one: Candidate, unit: str = " nights") -> str:
    if one.nights_away >= NO_NIGHT:
        return f"unknown{unit}"
    return f"{one.nights_away}{' night' if unit and one.nights_away == 1 else unit}"
