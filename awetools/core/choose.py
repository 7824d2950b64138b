"""Which calibration serves a frame, and why each other one does not.

A calibration serves a frame if its match keys agree, its validity holds the
frame's start, nobody judged it bad, and its flags are clean or somebody judged it
good. Among those that serve, in this order: an interval set by hand before a
default one; the nearest in nights; the one made last, which eclipses the others.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from .errors import NoMatch
from .kind import Kind
from .store import Store

SERVES = ""


@dataclass(frozen=True)
class Candidate:
    """A calibration that was looked at; `reason` says why it does not serve, empty if it does."""

    path: Path
    meta: Mapping[str, Any]
    valid_from: str
    valid_to: str
    by_hand: bool
    sequence: int
    store_rank: int
    reason: str
    nights_away: int


def question_of(kind: Kind, meta: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked of a calibration kind for a frame; it goes on record."""
    return {
        "kind": kind.name,
        "at": meta.get("obs_start"),
        "night": meta.get("night"),
        "match": {name: meta.get(name) for name in kind.match},
    }


def candidates(
    kind: Kind, question: Mapping[str, Any], stores: Sequence[Store], meta: Mapping[str, Any]
) -> list[Candidate]:
    """Every calibration of a kind for the frame's instrument and detector: those that serve first, best first.

    meta: that of the frame, which some kinds look at beyond their match keys.
    """
    from .index import absolute, open_index

    found = []
    for rank, store in enumerate(stores):
        index = open_index(store)
        try:
            match = question["match"]
            where = "kind = ? AND instrument IS ? AND detector IS ?"
            rows = list(index.rows(where, (kind.name, match["instrument"], match["detector"])))
        finally:
            index.close()
        found += [
            _candidate(kind, row, question, meta, Path(absolute(store, row["address"])), rank) for row in rows
        ]
    return sorted(found, key=_order)


def choose(
    kind: Kind, question: Mapping[str, Any], stores: Sequence[Store], meta: Mapping[str, Any]
) -> Candidate:
    """The calibration that wins; raises NoMatch, naming the nearest one and why it does not serve."""
    found = candidates(kind, question, stores, meta)
    if found and found[0].reason == SERVES:
        return found[0]
    match = question["match"]
    what = f"no {kind.name} for {match['detector']} valid at {question['at']}"
    near = f" (nearest: {found[0].path.name}, {found[0].reason})" if found else ""
    raise NoMatch(
        f"{what}{near}" if stores else f"{what}: there is no store to look in",
        hint=f"awe-query {kind.name} {conditions_of(kind, match)}",
    )


def mismatch(kind: Kind, wanted: Mapping[str, Any], meta: Mapping[str, Any]) -> str:
    """The first thing in which a calibration does not serve what is wanted, in words; empty if none."""
    for name in kind.match:
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


def _candidate(
    kind: Kind,
    row: Mapping[str, Any],
    question: Mapping[str, Any],
    wanted: Mapping[str, Any],
    path: Path,
    rank: int,
) -> Candidate:
    meta = json.loads(row["meta"])
    reason = _reason(row, meta, question) or (kind.serves(meta, wanted) if kind.serves else "")
    return Candidate(
        path=path,
        meta=meta,
        valid_from=row["valid_from"] or "",
        valid_to=row["valid_to"] or "",
        by_hand=row["valid_by"] == "hand",
        sequence=row["sequence"] or 0,
        store_rank=rank,
        reason=reason or ("" if path.exists() else "its file is gone"),
        nights_away=_nights_between(meta.get("night"), question.get("night")),
    )


def _reason(row: Mapping[str, Any], meta: Mapping[str, Any], question: Mapping[str, Any]) -> str:
    for name, wanted in question["match"].items():
        if meta.get(name) != wanted:
            return difference(name, meta.get(name), wanted)
    at = question["at"]
    if at is None:
        return "the frame has no start time"
    if row["valid_to"] and at >= row["valid_to"]:
        return f"ended {row['valid_to']}"
    if row["valid_from"] and at < row["valid_from"]:
        return f"starts {row['valid_from']}"
    if row["verdict"] == "bad":
        return "judged bad"
    if row["flags"] and row["verdict"] not in ("good", "ready"):
        return "flagged, and nobody judged it good"
    return SERVES


def _order(one: Candidate) -> tuple[object, ...]:
    return (
        one.reason != SERVES,
        one.reason != SERVES and not _only_validity(one.reason),
        not one.by_hand,
        one.nights_away,
        one.store_rank,
        -one.sequence,
        str(one.path),
    )


def _only_validity(reason: str) -> bool:
    return reason.startswith(("ended", "starts"))


def _nights_between(one: object, other: object) -> int:
    try:
        return abs((date.fromisoformat(str(one)) - date.fromisoformat(str(other))).days)
    except ValueError:
        return 1 << 20
