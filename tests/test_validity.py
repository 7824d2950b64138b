"""Intervals of validity: the form of times, changes on record, whose word counts, defaults, bad input."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awetools.core.errors import BadSettings, BadValue
from awetools.core.indexing.inforce import rows_in_force
from awetools.core.journal import (
    Interval,
    append_after,
    append_events,
    append_verdict,
    read_events,
    validities,
    validity_event,
    words_of,
)
from awetools.core.kinds import KINDS
from awetools.core.kinds.bias import BIAS
from awetools.core.kinds.reduced import REDUCED
from awetools.core.planning.choose import candidates, question_of
from awetools.core.record import read_record, sidecar
from awetools.core.settings import check_settings, read_settings, resolve_validity
from awetools.core.store import Store, init_store
from awetools.core.validity import as_of_moment, moment
from tests.support import InProcess, awe, bias_frames, data_path

SITE = {"site_longitude_deg": -121.64}


@pytest.fixture
def bias(tmp_path: Path, run: InProcess, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A master bias of the night of 2024-03-02 in a store, which is the working directory."""
    init_store(tmp_path / "store")
    monkeypatch.chdir(tmp_path / "store")
    made = run("bias", "-q", *bias_frames(tmp_path / "raw"))
    assert made.code == 0, made.err
    return Path(made.lines[0])


def interval(run: InProcess, path: Path, *options: str) -> tuple[str | None, str | None, str]:
    (line,) = run("validity", "--json", *options, path).lines
    about = json.loads(line)
    return about["start"], about["end"], about["by"]


# Times


def test_a_date_is_a_night_from_local_noon_to_local_noon() -> None:
    assert moment("2017-03-02", SITE) == "2017-03-02T20:06:33.600"
    assert moment("2017-03-02", SITE, is_end=True) == "2017-03-03T20:06:33.600"
    assert moment("2017-03-02T03:04", SITE) == "2017-03-02T03:04:00.000"
    assert moment("2017-03-02 03:04:05.6Z", SITE) == "2017-03-02T03:04:05.600"
    assert moment("2017-03-02T03:04:05+02:00", SITE) == "2017-03-02T01:04:05.000"
    assert moment("", SITE) is None and moment("forever", SITE, is_end=True) is None


@pytest.mark.parametrize(
    "text",
    [
        "yesterday",
        "2017-02-30",
        "0000-01-01",
        "20170302",
        "2017-3-2",
        "2017-03-02T25:00",
        "10000-01-01",
        "2017-03",
        "\0",
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    for read in (lambda: moment(text, SITE), lambda: as_of_moment(text)):
        with pytest.raises(BadValue, match="2024-03-02"):
            read()


def test_the_last_day_of_the_calendar_has_no_end() -> None:
    with pytest.raises(BadValue):
        moment("9999-12-31", SITE, is_end=True)
    assert as_of_moment("9999-12-31") == "9999-12-31T23:59:59.999"


# Changes, on record


def test_changes_are_listed_in_force_and_on_record(bias: Path, run: InProcess) -> None:
    before = sidecar(bias).read_bytes()
    made = ("2024-03-02T12:00:00.000", "2024-03-03T12:00:00.000", "default")
    assert interval(run, bias) == made
    assert interval(run, bias, "--to", "2024-03-09", "--reason", "no biases") == (
        made[0],
        "2024-03-10T12:00:00.000",
        "hand",
    )
    assert interval(run, bias, "--from", "", "--reason", "earlier too")[:2] == (
        None,
        "2024-03-10T12:00:00.000",
    )
    assert interval(run, bias, "--nights", "1,forever", "--reason", "x")[:2] == (
        "2024-03-01T12:00:00.000",
        None,
    )
    assert interval(run, bias, "--set", "..2024-03-01T00:00", "--reason", "x")[:2] == (
        None,
        "2024-03-01T00:00:00.000",
    )
    assert interval(run, bias, "--forever", "--reason", "x") == (None, None, "hand")
    assert run("query", "bias", "valid_by=hand").lines == [str(bias)]
    assert interval(run, bias, "--default", "--reason", "enough") == made
    assert run("query", "bias", "valid_by=hand").code == 5
    assert interval(run, bias) == made
    lines = [json.loads(line) for line in run("validity", "--history", "--json", bias).lines]
    assert [one["event"] for one in lines] == ["made"] + ["validity"] * 6
    assert lines[1]["reason"] == "no biases" and lines[1]["who"]
    assert sidecar(bias).read_bytes() == before
    assert awe("verify").strip() == ""


def test_a_dry_run_changes_nothing(bias: Path, run: InProcess) -> None:
    ran = run("validity", "-n", "--forever", "--reason", "x", bias)
    assert "forever\tforever\thand" in ran.out and "nothing was" in ran.err
    assert interval(run, bias)[2] == "default"
    assert not (Path.cwd() / ".awe" / "journal.jsonl").exists() or read_events(Store(Path.cwd())) == []


def test_names_come_through_pipes(bias: Path) -> None:
    from tests.support import program

    listed = awe("query", "bias")
    ran = program("validity", "--forever", "--reason", "x", stdin=listed)
    assert ran.code == 0 and "\thand\t" in ran.out
    ran = program("validity", stdin="")
    assert ran.code == 4 and "empty-input" in ran.err


def test_what_was_in_force_at_an_instant(bias: Path, run: InProcess) -> None:
    key = read_record(sidecar(bias))["recipe_key"]
    for day, end in (("03-05", "2024-04-01T00:00:00.000"), ("03-07", "2024-05-01T00:00:00.000")):
        event = {**validity_event(key, (None, end), "", "me"), "when": f"2024-{day}T10:00:00.000+00:00"}
        append_events(Store(Path.cwd()), [event])
    ends = {
        day: interval(run, bias, "--as-of", f"2024-{day}")[1] for day in ("03-04", "03-05", "03-06", "03-07")
    }
    assert ends == {
        "03-04": "2024-03-03T12:00:00.000",
        "03-05": "2024-04-01T00:00:00.000",
        "03-06": "2024-04-01T00:00:00.000",
        "03-07": "2024-05-01T00:00:00.000",
    }


# Whose word counts


def test_a_word_goes_where_it_counts(
    bias: Path, run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public, mine = Store(Path.cwd()), init_store(tmp_path / "mine")
    monkeypatch.setenv("AWE_PATH", f"{mine.root}:{public.root}")
    assert run("validity", "-q", "--forever", "--reason", "x", bias).code == 0
    assert len(validities(public)) == 1 and not validities(mine)
    key = read_record(sidecar(bias))["recipe_key"]
    append_events(mine, [validity_event(key, (None, "2024-04-01T00:00:00.000"), "mine", "me")])
    assert interval(run, bias)[1] == "2024-04-01T00:00:00.000"
    assert interval(run, bias, "--to", "2024-04-09T00:00", "--reason", "x")[1] == "2024-04-09T00:00:00.000"
    assert len(read_events(public)) == 1 and len(read_events(mine)) == 2
    (row,) = (row for _, row in rows_in_force([mine, public], "kind = 'bias'"))
    assert row["valid_to"] == "2024-04-09T00:00:00.000"
    assert json.loads(run("query", "bias", "valid_by=hand", "--get", "valid_to", "--format", "json").out) == {
        "valid_to": "2024-04-09T00:00:00.000"
    }
    # Taken back, the word of the next store counts again.
    assert interval(run, bias, "--default", "--reason", "x") == (None, None, "hand")


@pytest.fixture
def closed(bias: Path) -> Iterator[Path]:
    folder = Path.cwd() / ".awe"
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_store_that_cannot_be_written(
    bias: Path, closed: Path, run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = run("validity", "--forever", "--reason", "x", bias)
    assert ran.code == 7 and "cannot write" in ran.err
    mine = init_store(tmp_path / "mine")
    monkeypatch.setenv("AWE_PATH", f"{mine.root}:{closed.parent}")
    assert interval(run, bias, "--forever", "--reason", "x")[2] == "hand"
    assert len(validities(mine)) == 1


def test_where_the_first_store_alone_can_be_written(
    bias: Path, run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public, mine = Store(Path.cwd()), init_store(tmp_path / "mine")
    may = lambda path: not path.is_relative_to(public.root)  # noqa: E731
    monkeypatch.setattr("awetools.core.validity.may_write", may)
    ran = run("validity", "--forever", "--reason", "x", bias)
    assert ran.code == 7 and "AWE_PATH" in ran.err and not validities(public)
    monkeypatch.setenv("AWE_PATH", f"{mine.root}:{public.root}")
    assert interval(run, bias, "--forever", "--reason", "x")[2] == "hand"
    assert len(validities(mine)) == 1 and not validities(public)


def _extend(root: str, key: str, count: int) -> None:
    for _ in range(count):
        append_after(Store(Path(root)), lambda events: [_one_more(events, key)])


def _one_more(events: list[dict[str, object]], key: str) -> dict[str, object]:
    now = words_of(events).validities.get(key, Interval(None, "0000"))
    return {**validity_event(key, (None, None), "", ""), "reason": str(int(now.reason or 0) + 1)}


def test_of_two_writers_neither_undoes_the_other(tmp_path: Path) -> None:
    store = init_store(tmp_path)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_extend, args=(str(tmp_path), "a" * 64, 25)) for _ in range(4)]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    assert validities(store)["a" * 64].reason == "100"


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from(("hand", "default")), st.integers(0, 9)), max_size=12
    )
)
def test_the_newest_word_counts(events: list[tuple[str, str, int]]) -> None:
    told = [
        {
            **validity_event(key, (None, f"2024-01-0{end}") if by == "hand" else None, "", ""),
            "when": str(number),
        }
        for number, (key, by, end) in enumerate(events)
    ]
    for as_of in (None, "00", "5"):
        found = words_of(told, as_of).validities
        for key in "ab":
            own = [
                one for one in told if one["identity"] == key and (as_of is None or one["when"][:2] <= as_of)
            ]
            if own and own[-1]["by"] == "hand":
                assert found[key].end == own[-1]["end"]
            else:
                assert key not in found


# Bad input


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--forever"], 2, "reason"),
        (["--forever", "--reason", " "], 2, "reason"),
        (["--reason", "x"], 2, "nothing is to be changed"),
        (["--forever", "--nights", "0,1", "--reason", "x"], 2, "exclude"),
        (["--set", "2024-03-05..2024-03-01", "--reason", "x"], 2, "an end comes after its start"),
        (["--from", "2024-04-01", "--reason", "x"], 2, "an end comes after its start"),
        (["--set", "2024-03-05", "--reason", "x"], 2, "START..END"),
        (["--set", "x..", "--reason", "x"], 2, "'x' is not a night"),
        (["--nights", "-1,2", "--reason", "x"], 2, "BEFORE,AFTER"),
        (["--nights", "1", "--reason", "x"], 2, "BEFORE,AFTER"),
        (["--nights", "1,99999999999999999999", "--reason", "x"], 2, "BEFORE,AFTER"),
        (["--nights", "\u0663,1", "--reason", "x"], 2, "BEFORE,AFTER"),
    ],
)
def test_what_makes_no_sense_is_refused(
    bias: Path, run: InProcess, options: list[str], code: int, said: str
) -> None:
    ran = run("validity", *options, bias)
    assert (ran.code, ran.out) == (code, "") and said in ran.err
    assert interval(run, bias)[2] == "default"


def test_only_calibrations_have_an_interval(reduced_store: Store, run: InProcess) -> None:
    raw = awe("query", "raw_bias", "--limit", "1").strip()
    reduced = awe("query", "reduced", "--limit", "1").strip()
    bias = awe("query", "bias", "--limit", "1").strip()
    ran = run("validity", raw, reduced, "nope.fits", bias)
    assert ran.code == 4 and len(ran.lines) == 2
    assert "is no product" in ran.err and "a reduced is not chosen" in ran.err and "no-such-file" in ran.err


@pytest.mark.parametrize(
    "reason", ["tab\tand\nline", "\x1b[31mred", "'; DROP TABLE objects; --", "na\udce9ve", "\u202ered"]
)
def test_a_hostile_reason_breaks_nothing(bias: Path, run: InProcess, reason: str) -> None:
    ran = run("validity", "--forever", "--reason", reason, bias)
    assert ran.code == 0, ran.err
    assert len(ran.lines) == 2 and "\x1b" not in ran.out
    assert [one["reason"] for one in read_events(Store(Path.cwd()))] == [reason.strip()]
    assert run("query", "bias", "valid_by=hand").lines == [str(bias)]


@pytest.mark.parametrize("change", [{"start": "noon"}, {"end": 5}, {"by": None}, {"identity": 1}])
def test_an_event_that_is_none_is_named(bias: Path, run: InProcess, change: dict[str, object]) -> None:
    journal = Path(".awe/journal.jsonl")
    journal.write_text(json.dumps({**validity_event("a" * 64, (None, None), "", "me"), **change}) + "\n\n")
    ran = run("validity", bias)
    assert ran.code == 4 and "line 1" in ran.err and str(journal) in ran.err


# Defaults


def test_settings_say_for_how_many_nights_a_product_serves(
    bias: Path, run: InProcess, tmp_path: Path
) -> None:
    Path(".awe/awe.toml").write_text(
        "[bias]\nvalidity_nights = [0, 30]\n[detector.chip1.bias]\nvalidity_nights = [2, 'forever']\n"
    )
    (path,) = run("bias", "-q", "--clip-sigma", "4", *sorted((tmp_path / "raw").glob("*"))).lines
    origin = f"{Path('.awe/awe.toml').resolve()} [detector.chip1]"
    assert read_record(sidecar(Path(path)))["validity"] == {
        "start": "2024-02-29T12:00:00.000",
        "end": None,
        "by": origin,
    }
    assert interval(run, Path(path)) == ("2024-02-29T12:00:00.000", None, origin)
    from jsonschema import Draft202012Validator

    from tests.support import ROOT

    schema = json.loads((ROOT / "docs" / "record.schema.json").read_text())
    assert list(Draft202012Validator(schema).iter_errors(read_record(sidecar(Path(path))))) == []


@pytest.mark.parametrize(
    "value", ["[1]", "[1, -1]", "3", "[0, 1.5]", "'always'", "[true, 1]", "[0, 999999]", "[0, '']"]
)
def test_nights_that_make_no_sense_are_refused(tmp_path: Path, value: str) -> None:
    path = tmp_path / "awe.toml"
    path.write_text(f"[bias]\nvalidity_nights = {value}\n")
    settings = read_settings(path)
    assert settings is not None
    with pytest.raises(BadSettings, match=re.escape("[before, after]")):
        check_settings(settings, KINDS)
    with pytest.raises(BadSettings, match=re.escape(str(path))):
        resolve_validity(BIAS, {}, {}, [settings])


def test_what_serves_nobody_has_no_nights(tmp_path: Path) -> None:
    path = tmp_path / "awe.toml"
    path.write_text("[reduced]\nvalidity_nights = [0, 1]\n")
    settings = read_settings(path)
    assert settings is not None
    with pytest.raises(BadSettings, match="no validity"):
        check_settings(settings, KINDS)
    assert resolve_validity(REDUCED, {}, {}, []) == (None, "default")


# Real data


def test_a_real_bias_is_set_for_another_night(
    tmp_path: Path, run: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = data_path("nickel-20170302")
    store = init_store(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run("ingest", "-q", folder / "bias", folder / "science").code == 0
    (bias,) = run("bias", "-q", *run("query", "raw_bias").lines).lines
    science = run("query", "raw_science", "--limit", "1").lines[0]
    (frame,) = [row for _, row in rows_in_force([store], "kind = 'raw_science'") if row["address"] in science]
    meta = {**json.loads(frame["meta"]), "night": "2017-03-09", "obs_start": "2017-03-10T05:00:00.000"}
    question = question_of(BIAS, meta)

    def reason() -> str:
        return candidates(BIAS, question, [store], meta)[0].reason

    assert reason().startswith("ended 2017-03-03T20")
    assert run("validity", "-q", "--to", "2017-03-08", "--reason", "x", bias).code == 0
    assert reason().startswith("ended 2017-03-09T20")
    assert run("validity", "-q", "--to", "2017-03-09", "--reason", "x", bias).code == 0
    assert reason() == ""
    append_verdict(store, read_record(sidecar(Path(bias)))["recipe_key"], "bad", "light", "me")
    assert reason() == "judged bad"
    shown = run("why", science, "--role", "bias")
    assert shown.code == 5 and "judged bad" in shown.out
