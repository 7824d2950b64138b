"""Verdicts on record, what waits for one, and limits that are applied again: whose word counts, and bad input."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from awetools.core import judge as judging
from awetools.core.errors import NoRecord, UnknownName
from awetools.core.indexing.inforce import rows_in_force
from awetools.core.indexing.stock import Stock
from awetools.core.journal import (
    append_events,
    append_verdict,
    nearest_words,
    quality_event,
    read_events,
    verdicts,
)
from awetools.core.judge import Failure, Subject, judge, standing, subjects_at, waiting
from awetools.core.kinds import KINDS
from awetools.core.kinds.bias import BIAS
from awetools.core.kinds.foreign import IMPORTS
from awetools.core.planning.choose import candidates, question_of
from awetools.core.quality import share_of_limits
from awetools.core.record import read_record, sidecar
from awetools.core.requality import _kind_of, requalified
from awetools.core.store import Store, init_store
from awetools.core.workspace import here
from tests.support import InProcess, bias_frames, write_raw

TIGHT = '[bias.limits]\nlevel_adu = [2000, ""]\n'


@pytest.fixture
def bias(tmp_path: Path, run: InProcess, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A master bias at a level of 1000 ADU in a store, which is the working directory."""
    init_store(tmp_path / "store")
    monkeypatch.chdir(tmp_path / "store")
    made = run("bias", "-q", *bias_frames(tmp_path / "raw"))
    assert made.code == 0, made.err
    return Path(made.lines[0])


def store_here() -> Store:
    return Store(Path.cwd())


def reason_not_chosen() -> str:
    """Why the bias here does not serve a frame of its own; empty if it does."""
    (row,) = [row for _, row in rows_in_force(here().stores, "kind = 'bias'")]
    meta = json.loads(row["meta"])
    return candidates(BIAS, question_of(BIAS, meta), here().stores, meta)[0].reason


# Verdicts


def test_a_verdict_is_the_first_or_the_last_word_and_edits_nothing(bias: Path, run: InProcess) -> None:
    before = bias.read_bytes(), sidecar(bias).read_bytes()
    assert run("judge", bias).lines[1].split("\t")[:2] == [str(bias), "none"]
    for number, words in enumerate([("bad", bias), (bias, "good"), (bias, "ready")], 1):
        ran = run("judge", *words, "--reason", "looked at")
        assert ran.code == 0, ran.err
        assert len(read_events(store_here())) == number
    (about,) = (json.loads(line) for line in run("judge", "--json", bias).lines)
    assert (about["verdict"], about["why"], about["kind"]) == ("ready", "looked at", "bias")
    assert about["who"] and about["when"] and about["journal"] == str(store_here().journal_path)
    assert (bias.read_bytes(), sidecar(bias).read_bytes()) == before
    assert run("query", "bias", "verdict=ready").lines == [str(bias)]
    assert [line.split("\t")[4] for line in run("judge", "--history", bias).lines[1:]] == [
        "bad",
        "good",
        "ready",
    ]


def test_a_dry_run_and_what_is_wrong_judge_nothing(bias: Path, run: InProcess) -> None:
    for words, said in (
        ((bias, "bad"), "needs its reason"),
        ((bias, "bad", "--reason", "  "), "needs its reason"),
        (("good", bias, "bad", "--reason", "x"), "both verdicts"),
        ((bias, "bad", "--undo", "--reason", "x"), "exclude each other"),
        ((bias, "--reason", "x"), "which verdict"),
        ((bias, "-n"), "which verdict"),
        (("baad", bias, "--reason", "x"), "'baad' (nearest: bad); the verdicts are: good, bad, ready"),
        ((bias, "redy"), "'redy' (nearest: ready)"),
        ((bias, "bad", "--reason", "x", "--history"), "exclude each other"),
        ((bias, "--limit", "3"), "only --queue takes"),
        (("--queue", "--reason", "x"), "exclude each other"),
    ):
        ran = run("judge", *words)
        assert ran.code == 2 and said in ran.err and not ran.out, (words, ran.err)
    ran = run("judge", bias, "bad", "--reason", "x", "-n")
    assert ran.code == 0 and "nothing was" in ran.err and "\tbad\t" in ran.out
    assert not store_here().journal_path.exists()


def test_a_verdict_is_taken_back(bias: Path, run: InProcess) -> None:
    ran = run("judge", bias, "--undo", "--reason", "x")
    assert ran.code == 0 and "none to take back" in ran.err and not read_events(store_here())
    run("judge", bias, "bad", "--reason", "leak")
    assert reason_not_chosen() == "judged bad"
    ran = run("judge", bias, "--undo", "--reason", "no leak")
    assert ran.lines[1].split("\t")[1] == "none" and reason_not_chosen() == ""
    assert [event["reason"] for event in read_events(store_here())] == ["leak", "no leak"]


def test_good_lets_a_flagged_product_be_chosen_and_bad_never(bias: Path, run: InProcess) -> None:
    Path("awe.toml").write_text(TIGHT)
    run("verify", "--quality")
    assert reason_not_chosen().startswith("flagged")
    run("judge", bias, "good", "--reason", "the level is new")
    assert reason_not_chosen() == ""
    run("judge", bias, "bad", "--reason", "it is not")
    assert reason_not_chosen() == "judged bad"


def test_one_that_cannot_be_judged_does_not_stop_the_others(
    bias: Path, run: InProcess, tmp_path: Path
) -> None:
    raw = tmp_path / "raw" / "bias0.fits"
    ran = run("judge", "ready", raw, bias, "gone.fits", "--reason", "x")
    assert ran.code == 4 and "wrong-kind" in ran.err and "gone.fits" in ran.err
    assert [line.split("\t")[0] for line in ran.lines[1:]] == [str(bias)]


def test_a_raw_frame_is_known_by_its_pixels(bias: Path, run: InProcess, tmp_path: Path) -> None:
    raw = tmp_path / "raw" / "bias0.fits"
    ran = run("judge", raw, "bad", "--reason", "a flash")
    assert ran.code == 0, ran.err
    assert "1 product was made from" in ran.err and "awe-make --outdated -n" in ran.err
    moved = raw.rename(tmp_path / "elsewhere.fits")
    assert json.loads(run("judge", "--json", moved).out)["verdict"] == "bad"
    other = write_raw(tmp_path / "other.fits", np.full((64, 96), 7, np.uint16))
    assert json.loads(run("judge", "--json", other).out)["verdict"] is None


def test_without_a_store_there_is_no_journal(
    run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    raw = write_raw(tmp_path / "raw.fits", np.full((64, 96), 7, np.uint16))
    ran = run("judge", raw, "bad", "--reason", "x")
    assert ran.code == 4 and "no-store" in ran.err and "awe-init" in ran.err


@pytest.mark.parametrize(
    "reason",
    [
        '"; DROP TABLE verdicts; --',
        "$(reboot) `x` 'y'",
        "a\nb\tc\x1b[31m",
        "Ωmega \U0001f30c",
        "\udcff",
        "x" * 9000,
    ],
)
def test_any_text_can_be_a_reason(bias: Path, run: InProcess, reason: str) -> None:
    ran = run("judge", bias, "bad", "--reason", reason)
    assert ran.code == 0, ran.err
    (event,) = read_events(store_here())
    assert event["reason"] == reason.strip()
    for options in ([], ["--history"]):
        ran = run("judge", bias, *options)
        assert ran.code == 0 and len(ran.lines) == 2 and "\x1b" not in ran.out
    assert json.loads(run("judge", bias, "--json").out)["why"] == reason.strip()


def test_the_nearest_store_counts_and_a_word_is_taken_back_where_it_is(
    bias: Path, run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public, private = store_here(), init_store(tmp_path / "private")
    run("judge", bias, "bad", "--reason", "public")
    monkeypatch.setenv("AWE_PATH", f"{private.root}:{public.root}")
    (subject,) = subjects_at(str(bias), here())
    assert standing(subject).store == public
    append_verdict(private, subject.identity, "good", "private", "me")
    assert standing(subject).verdict == "good"
    (undone,) = judge([subject], "none", "x", "me")
    assert not isinstance(undone, Failure)
    assert (undone.verdict, undone.store, undone.changed) == ("bad", public, True)
    # Public cannot be written: a word of one's own is possible, taking back that of others is not.
    monkeypatch.setattr("awetools.core.validity.may_write", lambda path: path.is_relative_to(private.root))
    (failed,) = judge([subject], "none", "x", "me")
    assert isinstance(failed, Failure) and "this user cannot write it" in failed.error.message
    (judged,) = judge([subject], "good", "x", "me")
    assert not isinstance(judged, Failure) and judged.store == private
    assert verdicts(public)[subject.identity] == "bad"
    assert run("query", "bias", "--get", "verdict").lines[-1] == "good"


def test_many_are_judged_with_one_append(bias: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    appends = []
    real = judging.append_after
    monkeypatch.setattr(judging, "append_after", lambda *given: appends.append(1) or real(*given))
    store = store_here()
    subjects = [Subject(f"{n}.fits", f"key{n % 400}", "reduced", store, (store,)) for n in range(500)]
    found = list(judge(subjects, "bad", "all of it", "me"))
    assert len(found) == 500 and len(appends) == 1
    # The same product twice is judged once.
    assert len(read_events(store)) == 400


def test_what_a_verdict_touches_is_counted(reduced_store: Store, run: InProcess) -> None:
    (line, *_) = run("query", "bias").lines
    ran = run("judge", line, "bad", "--reason", "x", "-v")
    assert ran.code == 0
    records = {path: read_record(path) for path in Path.cwd().glob("*/*/*.fits.json")}
    keys = {read_record(sidecar(Path(line)))["recipe_key"]}
    users: set[Path] = set()
    while True:
        more = {
            path
            for path, record in records.items()
            if keys & {one.get("recipe_key") for one in record["recipe"]["inputs"]}
        }
        if more == users:
            break
        users, keys = more, keys | {records[path]["recipe_key"] for path in more}
    assert len(users) > 5 and f"{len(users)} products were made from" in ran.err
    assert all(str(path).removesuffix(".json") in ran.err for path in users)


def test_what_is_made_through_a_removed_product_is_counted(
    bias: Path, run: InProcess, tmp_path: Path
) -> None:
    made = run("hotpix", "-q", bias)
    assert made.code == 0 and run("rm", "-q", bias).code == 0
    ran = run("judge", "-v", tmp_path / "raw" / "bias0.fits", "bad", "--reason", "x")
    assert "2 products were made from" in ran.err and made.lines[0] in ran.err, ran.err


def test_names_come_from_standard_input(bias: Path, tmp_path: Path) -> None:
    from tests.support import program

    ran = program("judge", "bad", "--reason", "x", stdin=f'{{"path": "{bias}"}}\n')
    assert ran.code == 0 and ran.lines[1].startswith(f"{bias}\tbad\t"), ran.err


def test_what_is_removed_moved_or_linked_can_be_judged(bias: Path, run: InProcess, tmp_path: Path) -> None:
    link = tmp_path / "link.fits"
    link.symlink_to(bias)
    assert run("judge", link, "bad", "--reason", "leak").code == 0
    assert run("rm", "-q", bias).code == 0
    ran = run("judge", "--json", bias)
    assert json.loads(ran.out)["verdict"] == "bad", ran.err
    assert run("judge", bias, "--undo", "--reason", "no leak").code == 0
    assert json.loads(run("judge", "--json", bias).out)["verdict"] is None
    assert len(run("judge", "--history", bias).lines) == 3


def test_names_of_no_product_are_told(bias: Path, run: InProcess) -> None:
    for name, code, said in (
        (".", 4, "no-such-file"),
        ("/", 4, "no-such-file"),
        (f"{bias}[nonsense]", 4, "is of detector chip1, not 'nonsense'"),
        ("gone.fits", 4, "no record of one is kept"),
    ):
        for asked in (("judge", name), ("lineage", name), ("lineage", "--impact", name)):
            ran = run(*asked)
            assert (ran.code, ran.out) == (code, "") and said in ran.err, (asked, ran.err)
    assert run("judge", f"{bias}[chip1]").lines[1].split("\t")[0] == str(bias)


def test_a_raw_frame_that_is_gone_has_its_detectors(bias: Path, run: InProcess, tmp_path: Path) -> None:
    raw = tmp_path / "raw" / "bias0.fits"
    assert run("ingest", "-q", raw).code == 0
    raw.unlink()
    assert run("judge", f"{raw}[chip1]", "bad", "--reason", "gone").code == 0
    ran = run("judge", f"{raw}[zz]")
    assert ran.code == 4 and "no detector 'zz'; its record has: chip1" in ran.err


def test_the_history_has_all_events(bias: Path, run: InProcess) -> None:
    (subject,) = subjects_at(str(bias), here())
    said = {"identity": subject.identity, "when": "2020-01-01T00:00:00.000+00:00", "who": "me"}
    append_events(
        store_here(),
        [
            {**said, "event": "later", "path": "elsewhere", "journal": 7},
            {**said, "event": "embargo", "until": "2027-01-01"},
            {**said, "event": "embargo", "until": None},
            {**said, "event": "publish", "from": "/a", "to": "/b"},
            {**said, "event": "validity", "by": "hand", "start": None, "end": None},
            {**said, "event": "validity", "by": "default", "start": None, "end": None},
        ],
    )
    lines = [line.split("\t") for line in run("judge", "--history", bias).lines[1:]]
    assert [line[4] for line in lines] == ["", "2027-01-01", "lifted", "/b", "forever", "as made"]
    first, *_ = (json.loads(line) for line in run("judge", "--history", "--json", bias).lines)
    assert first["path"] == str(bias) and first["journal"] == str(store_here().journal_path)


# The queue


def test_the_queue_is_in_order_of_margin_and_forgets_what_was_judged(
    reduced_store: Store, run: InProcess, tmp_path: Path
) -> None:
    biases = run("query", "bias").lines
    levels = [float(one) for one in run("query", "bias", "--get", "level_adu").lines[1:]]
    assert len(biases) == 2
    # One is outside its limits, the other inside by a tenth of them.
    low = max(levels) + 1
    Path("awe.toml").write_text(
        f'[bias.limits]\nlevel_adu = [{low}, ""]\n[detector.sim2.bias.limits]\nlevel_adu = [{levels[1] / 1.1}, ""]\n'
    )
    assert run("verify", "--quality").code == 0
    found = waiting(None, (), here().stores, (*KINDS, *IMPORTS), [])
    assert [one.urgency for one in found] == sorted(one.urgency for one in found)
    assert found[0].measure == "level_adu" and found[0].flags == ("level_adu",) and found[0].margin < 0  # type: ignore[operator]
    assert not any(one.flags for one in found[1:])
    ran = run("judge", "--queue", "bias", "--previews", tmp_path / "look", "--json")
    first, *_ = (json.loads(line) for line in ran.lines)
    assert first["path"] == found[0].path and Path(first["preview"]).read_bytes()[1:4] == b"PNG"
    run("judge", found[0].path, "good", "--reason", "x")
    assert found[0].path not in run("judge", "--queue", "--limit", 99).out
    assert run("judge", "--queue", "detector=sim2", "--json").lines
    assert len(run("judge", "--queue", "--limit", 1).lines) == 2


def test_what_cannot_be_asked_of_the_queue(bias: Path, run: InProcess) -> None:
    ran = run("judge", "--queue", "bais")
    assert ran.code == 2 and "nearest: bias" in ran.err
    ran = run("judge", "--queue", "bias", "levl_adu > 3")
    assert ran.code == 2 and "nearest: level_adu" in ran.err
    with pytest.raises(UnknownName):
        waiting("nothing", (), here().stores, KINDS, [])
    sidecar(bias).write_text("{")
    problems: list[object] = []
    assert waiting("bias", (), here().stores, KINDS, problems) == []  # type: ignore[arg-type]
    assert len(problems) == 1


def test_previews_that_have_no_place_are_an_error(bias: Path, run: InProcess) -> None:
    ran = run("judge", "--queue", "--previews", bias)
    assert ran.code == 7 and ran.out == "" and str(bias) in ran.err


def test_only_the_newest_version_waits(bias: Path, run: InProcess, tmp_path: Path) -> None:
    made = run("bias", "-q", "--clip-sigma", "4", *sorted((tmp_path / "raw").iterdir()))
    assert made.code == 0 and made.lines != [str(bias)], made.err
    waits = [one.path for one in waiting("bias", (), here().stores, KINDS, [])]
    assert waits == made.lines


@pytest.mark.parametrize(
    ("low", "high", "value", "share"),
    [
        (0.0, 10.0, 9.0, 0.1),
        (None, 10.0, 12.0, -0.2),
        (-5.0, None, -4.0, 0.2),
        (0.0, None, 3.0, 1.0),
        (0.0, 0.0, 0.0, 0.0),
        (4.0, 4.0, 5.0, -0.2),
        (None, None, 5.0, None),
        (1.0, 2.0, None, None),
    ],
)
def test_margins_of_different_units_compare(
    low: float | None, high: float | None, value: float | None, share: float | None
) -> None:
    from awetools.core.kind import Limit
    from awetools.core.quality import judge as judged

    (one,) = judged(BIAS, {"level_adu": value}, [Limit("level_adu", low, high)])["limits"]
    assert share_of_limits(one) == (None if share is None else pytest.approx(share))


# Limits applied again


def test_changed_limits_change_flags_and_not_records(bias: Path, run: InProcess) -> None:
    before = bias.read_bytes(), sidecar(bias).read_bytes()
    assert run("verify", "--quality").out == ""
    Path("awe.toml").write_text(TIGHT)
    ran = run("verify", "--quality", "-n", "--json")
    (about,) = (json.loads(line) for line in ran.lines)
    assert about["problem"] == "flags-changed" and "limits 2000.." in about["detail"]
    assert not store_here().journal_path.exists()
    assert run("verify", "--quality").code == 0
    assert run("verify", "--quality").out == "", "a second time changes nothing"
    assert run("query", "bias", "--get", "flags,flag_names").lines[1].split("\t") == ["1", "level_adu"]
    assert run("query", "bias", "flags>0").lines == [str(bias)]
    (item,) = Stock(here().stores).find(["bias"], None)
    assert item.flags == 1 and reason_not_chosen().startswith("flagged")
    assert [row["flags"] for _, row in rows_in_force(here().stores, as_of="2999-01-01")] == [1]
    assert [row["flags"] for _, row in rows_in_force(here().stores, as_of=item.made)] == [0]
    assert run("index", "--check").code == 0
    run("index", "--rebuild")
    assert run("query", "bias", "flags>0").lines == [str(bias)]
    Path("awe.toml").unlink()
    assert "no longer flagged" in run("verify", "--quality").out
    assert run("query", "bias", "flags=0").lines == [str(bias)] and reason_not_chosen() == ""
    assert (bias.read_bytes(), sidecar(bias).read_bytes()) == before
    values = [line.split("\t")[4] for line in run("judge", "--history", bias).lines[1:]]
    assert values == ["flagged: level_adu", "no flags"]


def test_a_product_that_is_made_again_is_as_its_record_says(
    bias: Path, run: InProcess, tmp_path: Path
) -> None:
    Path("awe.toml").write_text(TIGHT)
    run("verify", "--quality")
    Path("awe.toml").unlink()
    bias.unlink()
    sidecar(bias).unlink()
    ran = run("bias", "-q", *sorted((tmp_path / "raw").iterdir()))
    assert ran.code == 0 and ran.lines == [str(bias)], ran.err
    assert run("query", "bias", "--get", "flags").lines[1:] == ["0"] and reason_not_chosen() == ""
    assert run("verify", "--quality").out == ""


def test_a_named_calibration_is_refused_by_the_flags_in_force(reduced_store: Store, run: InProcess) -> None:
    detector = json.loads(run("query", "bias", "--json", "--get", "path,detector").lines[0])
    raw = run("query", "raw_science", f"detector={detector['detector']}", "--limit", 1).lines[0]
    asked = ("-n", raw, "--bias", detector["path"], "-o", "new.fits")
    assert run("reduce", *asked).code == 0
    Path("awe.toml").write_text('[bias.limits]\nlevel_adu = [1e6, ""]\n')
    run("verify", "--quality", detector["path"])
    ran = run("reduce", *asked)
    assert ran.code == 5 and "is flagged (level_adu)" in ran.err
    assert run("reduce", *asked, "--accept-flags").code == 0


def test_the_planner_does_not_take_other_flags_for_an_edit(reduced_store: Store, run: InProcess) -> None:
    Path("awe.toml").write_text('[bias.limits]\nlevel_adu = [1e6, ""]\n')
    run("verify", "--quality")
    for line in run("query", "bias").lines:
        run("judge", line, "good", "--reason", "x")
        # The file is read again, where only times tell.
        os.utime(line)
    ran = run("make", "--outdated", "-n")
    assert "edited" not in ran.err and ran.code == 0, ran.err


def test_quality_of_what_is_wrong(bias: Path, run: InProcess) -> None:
    assert run("verify", "-n").code == 2
    assert run("verify", "--quality", "--quick").code == 2
    Path("awe.toml").write_text('[bias.limits]\nlevl_adu = [2000, ""]\n')
    ran = run("verify", "--quality")
    assert ran.code == 2 and "nearest: level_adu" in ran.err and ran.out == ""
    Path("awe.toml").unlink()
    sidecar(bias).write_text("{")
    ran = run("verify", "--quality", bias)
    assert ran.code == 4 and "no-record" in ran.err


def test_what_fails_all_is_said_once_and_what_is_missing_is_an_error(
    reduced_store: Store, run: InProcess
) -> None:
    Path("awe.toml").write_text("[reduced.limits]\nsky_rms_adu = [10, 1]\n")
    ran = run("verify", "--quality")
    count = len(run("query", "reduced").lines)
    assert (
        ran.code == 2 and ran.err.count("bad-settings") == 1 and f"the same for {count - 1} more" in ran.err
    )
    Path("awe.toml").unlink()
    ran = run("verify", "--quality", "gone.fits")
    assert ran.code == 4 and "no-such-file" in ran.err


def test_a_limit_that_is_no_more_is_said(bias: Path, run: InProcess) -> None:
    for limits, said in ((TIGHT, "limits 2000.."), ('[bias.limits]\nlevel_adu = ["", ""]\n', "limits none")):
        Path("awe.toml").write_text(limits)
        assert said in run("verify", "--quality").out


def test_a_journal_with_impossible_flags_is_named(bias: Path) -> None:
    store = store_here()
    for flags in (1 << 63, -1, "1", True):
        store.journal_path.write_text("")
        append_events(
            store, [{**quality_event("x", "", 1, [], "", "me"), "flags": flags}, {"event": "later"}]
        )
        with pytest.raises(NoRecord, match="line 1"):
            read_events(store)


def test_the_first_store_with_a_word_on_the_flags_counts(tmp_path: Path) -> None:
    first, second = init_store(tmp_path / "a"), init_store(tmp_path / "b")
    then, later = "2024-03-02T23:10:00.000+00:00", "2024-03-03T23:10:00.000+00:00"
    append_events(second, [quality_event(name, then, 3, [], "", "me") for name in "xy"])
    append_events(first, [quality_event("x", then, 0, [], "", "me")])
    said = nearest_words([first, second])
    assert [said.flags_of(name, 1, then) for name in "xyz"] == [0, 3, 1]
    assert said.flags_of("y", 1, later) == 1


def test_limits_are_applied_by_who_has_a_slow_clock(
    bias: Path, run: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("awe.toml").write_text(TIGHT)
    monkeypatch.setattr("awetools.core.journal.now", lambda: "2001-01-01T00:00:00.000+00:00")
    assert run("verify", "--quality").out
    assert run("verify", "--quality").out == "" and len(read_events(store_here())) == 1
    assert run("query", "bias", "flags>0").lines == [str(bias)]


def test_imports_are_judged_by_their_own_measures(bias: Path) -> None:
    record = read_record(sidecar(bias))
    for kinds in ((*KINDS, *IMPORTS), (*IMPORTS, *KINDS)):
        for kind in (one for one in kinds if one.name == "reduced"):
            role = kind.leads[0].role
            like = {**record, "recipe": {"kind": "reduced", "inputs": [{"role": role}]}}
            assert _kind_of(like, kinds) is kind
    assert requalified(bias, here(), KINDS) is None
