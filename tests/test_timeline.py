"""The calibration timeline: where each calibration wins, against the rule itself; states; the picture; the text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awetools.core.errors import NoMatch, UnknownName
from awetools.core.journal import append_events, append_verdict, validity_event
from awetools.core.kinds.bias import BIAS
from awetools.core.kinds.flat import FLAT
from awetools.core.planning.choose import candidate_of, order
from awetools.core.record import read_record, sidecar
from awetools.core.store import Store, init_store
from awetools.core.timeline import Asked, Lane, Timeline, lane_of, timeline_of
from awetools.core.units import evening
from tests.support import InProcess, awe, data_path
from tests.test_choose import add

LONGITUDE_DEG = -70.4
FIRST = date(2024, 3, 1)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(tmp_path)
    return init_store(tmp_path)


def row(
    number: int, night: int | None, start: int | None, hours: int | None, hand: bool, **more: Any
) -> dict[str, Any]:
    """A row of the index: its night, and the start and length of its interval in hours."""
    origin = datetime(2024, 3, 1, 16, 41)
    begin = None if start is None else origin + timedelta(hours=start)
    end = None if hours is None else (begin or origin) + timedelta(hours=hours)
    meta = {"detector": "a", "site_longitude_deg": LONGITUDE_DEG}
    about = {
        "address": f"{number:03d}.fits",
        "sequence": more.pop("sequence", number),
        "night": None if night is None else (FIRST + timedelta(days=night)).isoformat(),
        "made": f"2024-05-01T00:{number:02d}:00.000+00:00",
        "valid_from": begin and begin.isoformat(timespec="milliseconds"),
        "valid_to": end and end.isoformat(timespec="milliseconds"),
        "valid_by": "hand" if hand else "default",
        "verdict": None,
        "flags": 0,
        "meta": json.dumps(meta),
    }
    return {**dict.fromkeys(BIAS.match), **meta, **about, **more}


ROWS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(0, 14)),
        st.one_of(st.none(), st.integers(-30, 300)),
        st.one_of(st.none(), st.integers(1, 200)),
        st.booleans(),
        st.integers(0, 3),
        st.sampled_from([None, "good", "bad"]),
        st.integers(0, 1),
        st.integers(0, 1),
    ),
    min_size=1,
    max_size=8,
)


def rows_of(drawn: list[Any]) -> list[tuple[int, dict[str, Any]]]:
    return [
        (rank, row(number, night, start, hours, hand, sequence=sequence, verdict=verdict, flags=flags))
        for number, (night, start, hours, hand, sequence, verdict, flags, rank) in enumerate(drawn)
    ]


def lane(rows: list[tuple[int, dict[str, Any]]]) -> Lane:
    # Any file that is there will do: whether it is, is all that is looked at.
    return lane_of(BIAS, rows, lambda rank, one: Path(__file__))


def by_rule(rows: list[tuple[int, dict[str, Any]]], moment: str) -> str | None:
    """What the rule chooses for a frame that starts at a moment."""
    night = evening(datetime.fromisoformat(moment), LONGITUDE_DEG)
    question = {"match": {name: rows[0][1].get(name) for name in BIAS.match}, "at": moment, "night": night}
    found = [candidate_of(BIAS, one, question, {}, Path(one["address"]), rank) for rank, one in rows]
    best = min(found, key=order)
    return None if best.reason else str(best.path)


@given(ROWS, st.lists(st.integers(-100 * 60, 600 * 60), min_size=1, max_size=8))
def test_what_wins_is_what_the_rule_chooses(drawn: list[Any], minutes: list[int]) -> None:
    rows = rows_of(drawn)
    found = lane(rows)
    moments = [datetime(2024, 3, 1, 16, 41) + timedelta(minutes=number) for number in minutes]
    texts = [moment.isoformat(timespec="milliseconds") for moment in moments]
    texts += [text for _, one in rows for text in (one["valid_from"], one["valid_to"]) if text]
    for text in texts:
        bar = found.at(text)
        assert (bar and bar.values["address"]) == by_rule(rows, text)
        holding = [
            one.values["address"]
            for one in found.bars
            for piece in one.wins
            if (piece.start or "") <= text < (piece.end or "9999")
        ]
        assert holding == ([bar.values["address"]] if bar else [])


@given(ROWS, st.integers(0, 7), st.integers(0, 400), st.integers(0, 600 * 60))
def test_a_longer_interval_never_leaves_a_frame_without(
    drawn: list[Any], number: int, hours: int, minutes: int
) -> None:
    rows = rows_of(drawn)
    moment = (datetime(2024, 3, 1) + timedelta(minutes=minutes)).isoformat(timespec="milliseconds")
    before = by_rule(rows, moment)
    one = rows[number % len(rows)][1]
    if one["valid_to"]:
        end = datetime.fromisoformat(one["valid_to"]) + timedelta(hours=hours)
        one["valid_to"] = end.isoformat(timespec="milliseconds")
    if hours % 2:
        one["valid_from"] = None
    assert before is None or by_rule(rows, moment) is not None


@given(ROWS)
def test_bars_of_a_row_do_not_overlap_and_states_follow_from_wins(drawn: list[Any]) -> None:
    found = lane(rows_of(drawn))
    for number, one in enumerate(found.bars):
        for other in found.bars[:number]:
            apart = (one.interval.end or "9") <= (other.interval.start or "") or (
                other.interval.end or "9"
            ) <= (one.interval.start or "")
            assert one.row != other.row or apart
        assert bool(one.wins) == (one.state in ("used", "partly"))
        if one.state == "used":
            assert one.wins == (one.interval,)


def test_many_that_overlap_take_few_rows() -> None:
    rows = [(0, row(number, number, 24 * number, 24 * 5, False)) for number in range(40)]
    assert 1 + max(bar.row for bar in lane(rows).bars) == 5


def states(timeline: Timeline) -> Mapping[str, str]:
    return {bar.path.name: bar.state for one in timeline.lanes for bar in one.bars}


def test_each_state(store: Store) -> None:
    made = {"made": "2024-03-04T10:00:00.000+00:00"}
    far = {"valid_from": "2024-03-01T12:00:00.000", "valid_to": "2024-03-04T12:00:00.000"}
    bad = add(store, "bad", 9, **made)
    add(store, "flagged", 8, flags=1, **made)
    add(store, "new", 3, **made)
    add(store, "old", 2, **made)
    add(store, "partly", 1, **far, **made)
    add(store, "gone", 7, **made)
    add(store, "undated", 6, valid_by=None, valid_from=None, valid_to=None, **made)
    (store.root / "gone").unlink()
    append_verdict(store, bad, "bad", "", "me")
    found = timeline_of(Asked([BIAS]), [store])
    assert states(found) == {
        "bad": "bad",
        "flagged": "flagged",
        "new": "used",
        "old": "eclipsed",
        "partly": "partly",
        "gone": "gone",
        "undated": "undated",
    }
    assert states(timeline_of(Asked([BIAS], ["flags=1"]), [store])) == {"flagged": "flagged"}
    assert states(timeline_of(Asked([BIAS], (), "2024-03-05T00:00:00.000"), [store]))["bad"] == "used"
    with pytest.raises(NoMatch):
        timeline_of(Asked([BIAS], (), "2024-03-01T00:00:00.000"), [store])
    with pytest.raises(NoMatch):
        timeline_of(Asked([FLAT]), [store])
    with pytest.raises(UnknownName, match="nearest: night"):
        timeline_of(Asked([BIAS], ["nihgt=3"]), [store])


# The program


def test_lines_for_programs_and_people(reduced_store: Store, run: InProcess) -> None:
    lines = [
        json.loads(line)
        for line in run("timeline", "bias", "flat", "detector=sim1", "filter=R", "--json").lines
    ]
    assert {one["kind"] for one in lines} == {"bias", "flat"}
    assert all(one["state"] == "used" and one["detector"] == "sim1" for one in lines)
    science = len(awe("query", "raw_science", "detector=sim1", "filter=R").split())
    assert {one["frames"] for one in lines} == {science}
    table = run("timeline", "bias", "--format", "tsv").lines
    assert table[0].startswith("lane\tpath\t") and len(table) == 3
    text = run("timeline", "bias", "detector=sim1", "--format", "text").out
    assert "wins 2024-03-02T" in text and "used" in text and "\N{FULL BLOCK}" in text
    bias = lines[0]["path"]
    assert run("validity", "-q", "--set", "2024-03-05..2024-03-06", "--reason", "x", bias).code == 0
    text = run("timeline", "bias", "detector=sim1", "--format", "text").out
    assert "by hand" in text and "science frames of 2024-03-02" in text
    ran = run("timeline", "bias", "--at", "2024-03-02T23:50")
    assert ran.code == 5 and len(ran.lines) == 3 and ran.lines[1].endswith("\t")
    (line,) = run("timeline", "bias", "detector=sim1", "--at", "2024-03-05", "--json").lines
    assert json.loads(line)["path"] == bias


def test_what_makes_no_sense_is_refused(reduced_store: Store, run: InProcess) -> None:
    for words, said in (
        (["baias"], "nearest: bias"),
        (["reduced"], "not chosen for others"),
        (["bias", "--at", "noon"], "not a night"),
        (["bias", "--at", ""], "--at"),
        (["bias", "--as-of", "2024"], "not a date"),
        (["bias", "-o", "x.pdf"], "png or .svg"),
        (["bias", "night="], ""),
        (["bias", "detector = "], ""),
    ):
        ran = run("timeline", *words)
        assert ran.code in (2, 5) and said in ran.err and not ran.out, (words, ran)
    Path("mine.png").write_text("my notes")
    ran = run("timeline", "bias", "-o", "mine.png")
    assert ran.code == 2 and Path("mine.png").read_text() == "my notes"


def test_the_picture_is_drawn_and_the_same_again(store: Store, run: InProcess) -> None:
    pytest.importorskip("matplotlib")
    made = {"made": "2024-03-04T10:00:00.000+00:00"}
    key = add(store, "hand", 1, **made)
    bad = add(store, "bad", 2, **made)
    add(store, "$x^2$", 3, flags=1, detector="$\\hostile{", **made)
    append_verdict(store, bad, "bad", "", "me")
    append_events(store, [validity_event(key, (None, None), "", "me")])
    pictures = []
    for name in ("one.png", "two.png", "one.svg"):
        ran = run("timeline", "-o", name, "--at", "2024-03-02")
        assert ran.code == 5 and "hostile" in ran.err, ran.err
        pictures.append(Path(name).read_bytes())
    assert pictures[0] == pictures[1] and pictures[0].startswith(b"\x89PNG") and b"<svg" in pictures[2]
    for text in (b"judged bad", b"interval set by hand", b"flagged", b"made (UTC)"):
        assert text in pictures[2]
    ran = run("timeline", "-o", "three.png")
    assert (ran.code, ran.lines) == (0, ["three.png"])


def test_a_real_detector(tmp_path: Path, run: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = data_path("stl1001-calib-20170908")
    init_store(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run("ingest", "-q", folder).code == 0
    assert run("bias", "-q", *run("query", "raw_bias").lines).code == 0
    biases = run("query", "bias").lines
    lines = [json.loads(line) for line in run("timeline", "bias", "--json").lines]
    # One lane a temperature: they serve different frames.
    assert len({one["lane"] for one in lines}) == len(biases) == len(lines)
    for one in lines:
        validity = read_record(sidecar(Path(one["path"])))["validity"]
        assert one["wins"] == [[validity["start"], validity["end"]]]
