"""Bad input and bad luck for intervals, the journal, the timeline, `--as-of` and parameters."""

from __future__ import annotations

import json
import os
import time
import unicodedata
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from awetools.core.journal import append_events, append_verdict, events_on, read_events, validity_event
from awetools.core.kinds.bias import BIAS
from awetools.core.plots.timeline import draw_timeline
from awetools.core.record import read_record, sidecar
from awetools.core.store import Store, init_store
from awetools.core.timeline import Timeline, lane_of
from awetools.core.validity import as_of_moment, moment
from tests.support import InProcess, bias_frames, write_raw

SITE = {"site_longitude_deg": 170.0}


@pytest.fixture
def bias(tmp_path: Path, run: InProcess, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A master bias of the night of 2024-03-02 in a store, which is the working directory."""
    store = init_store(tmp_path / "store")
    monkeypatch.chdir(store.root)
    made = run("bias", "-q", *bias_frames(tmp_path / "raw"))
    assert made.code == 0, made.err
    return Path(made.lines[0])


def key_of(bias: Path) -> str:
    return str(read_record(sidecar(bias))["recipe_key"])


def science(directory: Path, night: str = "2024-03-02") -> Path:
    data = np.full((64, 96), 3000, np.uint16)
    cards = {"IMAGETYP": "object", "EXPTIME": 60.0, "DATE-OBS": f"{night}T23:30:00.000", "FILTER": "R"}
    return write_raw(directory / f"science-{night}.fits", data, cards)


# Times


@given(st.text(max_size=24) | st.from_regex(r"\d{1,5}-\d\d?-\d\d?(T\d\d:\d\d(Z|[+-]\d\d:\d\d)?)?"))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    from awetools.core.errors import BadValue

    for read in (as_of_moment, lambda one: moment(one, SITE), lambda one: moment(one, SITE, is_end=True)):
        try:
            found = read(text)
        except BadValue as error:
            assert "is not a" in error.message
            continue
        assert found is None or (len(found) == 23 and found[:4].isascii())


@pytest.mark.parametrize(
    "text",
    [
        "0000-01-01",
        "10000-01-01",
        "2024-02-30",
        "2024-03-02T23:59:60",
        "2024-3-2",
        "\u0662024-03-02",
        "\x1b[31m",
    ],
)
def test_a_bad_date_is_named(bias: Path, run: InProcess, text: str) -> None:
    for options in (
        ["--to", text, "--reason", "x"],
        ["--set", f"{text}..", "--reason", "x"],
        ["--as-of", text],
    ):
        ran = run("validity", *options, bias)
        assert ran.code == 2 and "bad-value" in ran.err and "2024-03-02T23:10" in ran.err
        assert "\x1b" not in ran.err
    for name in ("timeline", "why"):
        ran = run(name, "--as-of", text, *([bias] if name == "why" else []))
        assert ran.code == 2 and "bad-value" in ran.err
    ran = run("timeline", "--at", text)
    assert ran.code == 2 and "--at" in ran.err and "forever" not in ran.err


def test_as_of_before_it_was_made_says_so(bias: Path, run: InProcess) -> None:
    ran = run("validity", "--as-of", "2001-01-01", bias)
    assert ran.code == 0 and "was made later" in ran.err
    ran = run("timeline", "--as-of", "2001-01-01")
    assert ran.code == 5 and "no calibration as of 2001-01-01" in ran.err
    assert run("validity", "--as-of", "9999-12-31", bias).err == ""


# Reasons


@given(st.text(alphabet=st.characters(exclude_categories=()), min_size=1, max_size=40))
def test_any_reason_stays_one_line_and_itself(tmp_path_factory: pytest.TempPathFactory, reason: str) -> None:
    store = init_store(tmp_path_factory.mktemp("store"))
    append_events(store, [validity_event("a" * 64, (None, None), reason, "me"), {"event": "note"}])
    assert read_events(store)[0]["reason"] == reason
    assert [one["reason"] for one in events_on(store, "a" * 64)] == [reason]


def test_a_reason_cannot_steer_the_terminal_or_forge_a_line(bias: Path, run: InProcess) -> None:
    reason = 'bad\n{"event":"verdict"}\r\x1b[31m\t\u2028\u202e\x9b "quoted" \\ \x7f'
    assert run("validity", "-q", "--forever", "--reason", reason, bias).code == 0
    for options in ([], ["--history"]):
        lines = run("validity", *options, bias).out.split("\n")
        assert len(lines) == (3 if not options else 4)
        assert not any(
            unicodedata.category(char) in ("Cc", "Cf", "Zl")
            for line in lines
            for char in line
            if char != "\t"
        )
    assert json.loads(run("validity", "--json", bias).out)["why"] == reason


# The journal


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("garbage", "not JSON"),
        ('{"event":["list"],"identity":5}', "event.event"),
        ("{}", "event.event is missing"),
        (
            '{"event":"verdict","identity":"\\ud800","verdict":"bad","when":"2024-01-01T00:00:00.000+00:00"}',
            "event.identity",
        ),
        (
            '{"event":"verdict","identity":"KEY","verdict":"bad","when":"yesterday"}',
            "event.when is 'yesterday'",
        ),
        ('{"event":"verdict","identity":"KEY","verdict":"bad","when":"2024-01-01T00:00:00"}', "event.when"),
        (
            '{"event":"validity","identity":"KEY","by":"hand","start":"2020-01-01T00:00:00.000+02:00",'
            '"end":null,"when":"2024-01-01T00:00:00.000+00:00"}',
            "event.start",
        ),
    ],
)
def test_a_damaged_line_is_named_by_every_program(bias: Path, run: InProcess, line: str, said: str) -> None:
    Store(Path.cwd()).journal_path.write_text(line.replace("KEY", key_of(bias)) + "\n")
    for name, words in (("validity", [bias]), ("why", [bias]), ("timeline", []), ("make", ["bias", "-n"])):
        ran = run(name, *words)
        assert ran.code == 4 and "journal.jsonl: line 1: " in ran.err and said in ran.err, name


def test_what_a_newer_version_says_is_kept_and_passed_over(bias: Path, run: InProcess) -> None:
    store, key = Store(Path.cwd()), key_of(bias)
    newer = {"event": "limit", "identity": key, "what": [1], "when": "tomorrow"}
    append_events(store, [newer])
    assert run("validity", "-q", "--forever", "--reason", "x", bias).code == 0
    assert read_events(store)[0] == newer
    assert json.loads(run("validity", "--json", bias).out)["by"] == "hand"
    history = [json.loads(line)["event"] for line in run("validity", "--history", "--json", bias).lines]
    assert sorted(history) == ["limit", "made", "validity"]
    for name, words in (("timeline", []), ("make", ["bias", "-n"]), ("verify", [])):
        assert run(name, *words).code == 0, name


def test_half_a_letter_in_a_journal_stops_nothing(bias: Path, run: InProcess) -> None:
    event = validity_event(key_of(bias), (None, None), "\ud800", "\udcff")
    append_events(Store(Path.cwd()), [event])
    assert "hand" in run("query", "bias", "--get", "valid_by").out
    assert run("make", "bias", "-n").code == 0


def test_a_journal_changed_by_hand_is_read_again(bias: Path, run: InProcess) -> None:
    journal = Store(Path.cwd()).journal_path
    assert run("validity", "-q", "--set", "2024-03-02..2024-03-05", "--reason", "x", bias).code == 0
    assert "2024-03-06" in run("query", "bias", "--get", "valid_to").out
    text, before = journal.read_text(), journal.stat()
    journal.write_text(text.replace('"end": "2024-03-06', '"end": "2024-03-08'))
    os.utime(journal, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert journal.stat().st_size == before.st_size
    assert "2024-03-08" in run("query", "bias", "--get", "valid_to").out


def test_ten_thousand_events_take_no_time(bias: Path, run: InProcess) -> None:
    store, key = Store(Path.cwd()), key_of(bias)
    one = validity_event("b" * 64, (None, None), "shutter", "me")
    events = [{**one, "identity": f"{number % 3000:064x}"} for number in range(10_000)]
    append_events(store, [*events, {**one, "identity": key}])
    begin = time.process_time()
    for name, words in (
        ("validity", [bias]),
        ("validity", ["--history", bias]),
        ("validity", ["-q", "--forever", "--reason", "x", bias]),
        ("timeline", []),
        ("timeline", ["--as-of", "2100-01-01"]),
    ):
        assert run(name, *words).code == 0
    assert time.process_time() - begin < 5


# One answer everywhere


def made_of_all(run: InProcess, raw: Path) -> Path:
    """The bias that awe-make makes of all frames that are there."""
    assert run("ingest", "-q", *raw.glob("*.fits")).code == 0
    ran = run("make", "-q", "bias")
    assert ran.code == 0, ran.err
    return Path(ran.lines[0])


def assert_none_serves(run: InProcess, frame: Path) -> None:
    for name, words in (
        ("why", ["--role", "bias", frame]),
        ("reduce", ["-n", "--no-flat", frame]),
        ("make", ["reduced", "-n"]),
    ):
        ran = run(name, *words)
        assert ran.code == 5 and "no bias" in ran.err, (name, ran.err)


def test_an_interval_taken_away_counts_for_every_program(bias: Path, run: InProcess, tmp_path: Path) -> None:
    frame = science(tmp_path / "raw")
    made = made_of_all(run, tmp_path / "raw")
    assert run("validity", "-q", "--forever", "--reason", "of no use", bias, made).code == 0
    assert "no bias" not in run("make", "reduced", "-n").err
    assert run("validity", "-q", "--set", "..2024-02-01", "--reason", "warm", bias, made).code == 0
    assert_none_serves(run, frame)
    ran = run("make", "reduced", "-n")
    assert "set by hand" in ran.err and "awe-validity --history /" in ran.err
    assert run("validity", "-q", "--default", "--reason", "cold", bias, made).code == 0
    assert run("why", "--role", "bias", frame).code == 0
    assert "no bias" not in run("make", "reduced", "-n").err


def test_nights_of_the_settings_count_for_what_is_made_later(
    bias: Path, run: InProcess, tmp_path: Path
) -> None:
    frame = science(tmp_path / "raw", "2024-03-03")
    made = made_of_all(run, tmp_path / "raw")
    assert run("params", "-q", "--set", "bias.validity_nights=0..1").code == 0
    assert_none_serves(run, frame)
    made.unlink()
    sidecar(made).unlink()
    assert run("index", "-q", "--update").code == 0
    assert "no bias" not in run("make", "reduced", "-n").err


# The timeline


def row_of(number: int, start: str | None, end: str | None, verdict: str | None = None) -> dict[str, object]:
    return {
        **dict.fromkeys(BIAS.match),
        "address": f"bias{number}.fits",
        "kind": "bias",
        "recipe_key": f"{number:064x}",
        "night": "2024-03-02",
        "detector": "chip1",
        "instrument": "testcam",
        "meta": "{}",
        "made": f"2024-04-01T00:00:{number % 60:02d}.000+00:00",
        "sequence": number,
        "valid_from": start,
        "valid_to": end,
        "valid_by": "hand",
        "flags": 0,
        "verdict": verdict,
    }


def timeline_of_rows(rows: list[dict[str, object]]) -> Timeline:
    lane = lane_of(BIAS, [(0, row) for row in rows], lambda _rank, _row: Path(__file__))
    return Timeline((lane,), lane.about)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (None, None),
        ("0001-01-01T00:00:00.000", "9999-12-31T23:59:59.999"),
        ("2024-03-02T00:00:00.000", "9999-12-31T23:59:59.999"),
        ("2024-03-02T00:00:00.000", "2024-03-02T00:00:00.000"),
        ("2024-03-05T00:00:00.000", "2024-03-02T00:00:00.000"),
    ],
)
@pytest.mark.parametrize("at", [None, "0001-01-01T00:00:00.000", "9999-12-31T23:59:59.999"])
def test_any_interval_can_be_drawn(start: str | None, end: str | None, at: str | None) -> None:
    pytest.importorskip("matplotlib")
    picture = draw_timeline(
        timeline_of_rows([row_of(1, start, end), row_of(2, None, None, "bad")]), "svg", at=at
    )
    assert picture.startswith(b"<?xml")


def test_a_far_end_does_not_hide_the_others() -> None:
    rows = [row_of(1, "2024-03-02T00:00:00.000", "9999-12-31T00:00:00.000")]
    assert timeline_of_rows(rows).ends()[1] < "2025"
    only = timeline_of_rows([{**rows[0], "night": None, "valid_from": "0001-01-01T00:00:00.000"}])
    assert only.ends() == ("0001-01-01T00:00:00.000", "9999-12-31T00:00:00.000")


def test_a_thousand_bars_are_drawn_quickly() -> None:
    pytest.importorskip("matplotlib")
    days = [np.datetime64("2024-01-01", "ms") + np.timedelta64(12 + 24 * day, "h") for day in range(1000)]
    rows = [row_of(number, str(day), str(day + np.timedelta64(24, "h"))) for number, day in enumerate(days)]
    timeline = timeline_of_rows(rows)
    draw_timeline(timeline_of_rows(rows[:1]), "png")
    begin = time.process_time()
    draw_timeline(timeline, "png")
    assert time.process_time() - begin < 2


def test_a_picture_too_large_is_refused(bias: Path, run: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("awetools.core.plots.draw.MOST_PIXELS", 500)
    ran = run("timeline", "-o", "x.png")
    assert ran.code == 2 and "bad-value" in ran.err and "--dpi" in ran.err and not Path("x.png").exists()
    assert run("timeline", "-o", "x.svg").code == 0


def test_a_title_is_text(bias: Path, run: InProcess) -> None:
    pytest.importorskip("matplotlib")
    import xml.dom.minidom

    assert run("timeline", "-o", "x.svg", "--title", "$\\frac{1}{0}$ <b>&amp; ]]>\n\x01").code == 0
    assert "&lt;b&gt;" in Path("x.svg").read_text()
    xml.dom.minidom.parse("x.svg")


def test_an_empty_store_has_no_timeline(
    tmp_path: Path, run: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(init_store(tmp_path).root)
    for words in ([], ["--json"], ["-o", "x.png"]):
        ran = run("timeline", *words)
        assert ran.code == 5 and "no calibration" in ran.err and not Path("x.png").exists()


def test_a_calibration_judged_bad_is_shown_as_such(bias: Path, run: InProcess) -> None:
    append_verdict(Store(Path.cwd()), key_of(bias), "bad", "clouds \x1b[31m", "me")
    (line,) = run("timeline", "--json").lines
    assert json.loads(line)["state"] == "bad"


DAYS = st.none() | st.dates(date(2024, 1, 1), date(2024, 2, 9)).map(lambda day: f"{day}T12:00:00.000")


@given(st.lists(st.tuples(DAYS, DAYS), min_size=1, max_size=25))
def test_no_bar_covers_another(ends: list[tuple[str | None, str | None]]) -> None:
    rows = [
        row_of(number, *(one if None in one else sorted(one, key=str))) for number, one in enumerate(ends)
    ]
    bars = timeline_of_rows(rows).lanes[0].bars
    for number, bar in enumerate(bars):
        for other in bars[:number]:
            apart = (bar.interval.end or "~") <= (other.interval.start or "") or (
                other.interval.end or "~"
            ) <= (bar.interval.start or "")
            assert apart or bar.row != other.row
    assert {bar.row for bar in bars} == set(range(max(bar.row for bar in bars) + 1))


def test_ten_years_of_nights_are_laid_out_quickly() -> None:
    nights = [str(date(2014, 1, 1) + timedelta(days=day)) for day in range(3000)]
    rows = [
        {
            **row_of(number, f"{night}T12:00:00.000", f"{after}T12:00:00.000"),
            "night": night,
            "valid_by": "default",
        }
        for number, (night, after) in enumerate(zip(nights, nights[4:], strict=False))
    ]
    begin = time.process_time()
    assert len(timeline_of_rows(rows).lanes[0].bars) == len(rows)
    assert time.process_time() - begin < 2


# Parameters


@pytest.mark.parametrize(
    "word",
    [
        "bias.clip_sigma=nan",
        "bias.clip_sigma=1e400",
        "bias.validity_nights=\u0663..3",
        "bias.=3",
        ".=3",
        "=",
        "bias.limits.level_adu=nan..1",
    ],
)
def test_a_value_that_is_none_is_not_written(bias: Path, run: InProcess, word: str) -> None:
    ran = run("params", "--set", word)
    assert ran.code == 2 and not (Path.cwd() / ".awe" / "awe.toml").exists(), ran.err
