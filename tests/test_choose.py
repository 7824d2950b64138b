"""Choosing calibrations: the full rule, one clause at a time, and every loser with its reason."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from awetools.core.errors import NoMatch
from awetools.core.indexing.index import put_records
from awetools.core.journal import append_events, append_verdict, validity_event
from awetools.core.kinds.bias import BIAS
from awetools.core.planning.choose import SERVES, candidates, choose, lost_to, question_of
from awetools.core.record import read_record, sidecar
from awetools.core.store import Store, init_store
from tests.support import InProcess, awe, bias_frames, write_raw

META = {
    "camera": "generic",
    "instrument": "testcam",
    "detector": "chip1",
    "nx": 96,
    "ny": 64,
    "overscan_mode": "none",
    "binning": "1x1",
    "night": "2024-03-02",
    "obs_start": "2024-03-03T03:14:00.000",
}


def add(store: Store, name: str, sequence: int = 1, **changes: object) -> str:
    """Put a bias into the index as if it had been made; returns its key."""
    from awetools.core.indexing.indexrows import COLUMNS, META_COLUMNS

    meta = {**META, **{key: value for key, value in changes.items() if key in META}}
    row = dict.fromkeys(COLUMNS)
    row |= {key: meta.get(key) for key in META_COLUMNS if key in meta}
    row |= {
        "address": name,
        "kind": "bias",
        "sequence": sequence,
        "recipe_key": f"{name:0>64}",
        "content": f"{name:f>64}",
        "valid_from": "2024-03-02T12:00:00.000",
        "valid_to": "2024-03-03T12:00:00.000",
        "valid_by": "default",
        "flags": 0,
        "meta": json.dumps(meta),
        "measures": "{}",
        "setup": "{}",
    }
    row |= {key: value for key, value in changes.items() if key in COLUMNS and key not in META}
    (store.root / name).touch()
    put_records(store, [(row, [])])
    return str(row["recipe_key"])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return init_store(tmp_path)


def chosen(store: Store, **changes: object) -> str:
    return choose(BIAS, question_of(BIAS, {**META, **changes}), [store], {**META, **changes}).path.name


def reasons(store: Store) -> dict[str, str]:
    return {one.path.name: one.reason for one in candidates(BIAS, question_of(BIAS, META), [store], META)}


def test_the_one_made_last_eclipses_the_others(store: Store) -> None:
    add(store, "old", sequence=1)
    add(store, "new", sequence=2)
    assert chosen(store) == "new"
    assert list(reasons(store)) == ["new", "old"]


def test_the_nearest_in_nights_comes_before_the_newest(store: Store) -> None:
    wide = {"valid_from": "2024-02-01T12:00:00.000", "valid_to": "2024-04-01T12:00:00.000"}
    add(store, "near", sequence=1, night="2024-03-01", **wide)
    add(store, "far", sequence=9, night="2024-02-20", **wide)
    assert chosen(store) == "near"


def test_an_interval_set_by_hand_comes_before_a_default_one(store: Store) -> None:
    add(store, "default", sequence=9)
    add(store, "hand", sequence=1, night="2024-01-01", valid_by="hand")
    assert chosen(store) == "hand"


def test_a_flagged_one_needs_a_good_verdict_and_a_bad_one_never_serves(store: Store) -> None:
    clean, flagged = add(store, "clean", sequence=1), add(store, "flagged", sequence=2, flags=4)
    assert chosen(store) == "clean"
    assert "flagged" in reasons(store)["flagged"]
    append_verdict(store, flagged, "good", "looked at it", "me")
    assert chosen(store) == "flagged"
    append_verdict(store, flagged, "bad", "looked again", "me")
    assert chosen(store) == "clean"
    assert reasons(store)["flagged"] == "judged bad"
    append_verdict(store, flagged, "none", "undo", "me")
    append_verdict(store, clean, "bad", "", "me")
    with pytest.raises(NoMatch):
        chosen(store)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"binning": "2x2"}, "binning is '2x2', not '1x1'"),
        ({"overscan_mode": "rows"}, "overscan_mode is 'rows', not 'none'"),
        ({"valid_to": "2024-03-03T03:00:00.000"}, "ended 2024-03-03T03:00:00.000"),
        ({"valid_from": "2024-03-03T04:00:00.000"}, "starts 2024-03-03T04:00:00.000"),
    ],
)
def test_what_does_not_serve_is_named_with_its_reason(
    store: Store, changes: dict[str, object], said: str
) -> None:
    add(store, "odd.fits", **changes)
    assert reasons(store) == {"odd.fits": said}
    with pytest.raises(NoMatch) as caught:
        chosen(store)
    assert "odd.fits" in caught.value.message and said in caught.value.message
    assert "awe-query bias detector=chip1" in caught.value.hint


def test_the_end_of_an_interval_is_not_in_it(store: Store) -> None:
    add(store, "one")
    assert chosen(store, obs_start="2024-03-03T11:59:59.999") == "one"
    with pytest.raises(NoMatch):
        chosen(store, obs_start="2024-03-03T12:00:00.000")


def test_the_private_store_comes_first(tmp_path: Path) -> None:
    private, public = init_store(tmp_path / "mine"), init_store(tmp_path / "all")
    add(private, "mine", sequence=1)
    add(public, "theirs", sequence=99)
    found = candidates(BIAS, question_of(BIAS, META), [private, public], META)
    assert [one.path.name for one in found] == ["mine", "theirs"]
    assert all(one.reason == SERVES for one in found)


def test_why_prints_every_candidate_and_the_choice(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = InProcess(capfd)
    init_store(tmp_path)
    monkeypatch.chdir(tmp_path)
    frames = bias_frames(tmp_path / "raw")
    for sigma in ("3", "4"):
        assert run("bias", "-q", "--clip-sigma", sigma, *frames).code == 0
    data = np.random.default_rng(1).normal(1300, 9, (64, 96)).astype(np.uint16)
    about = {"IMAGETYP": "object", "EXPTIME": 30.0, "FILTER": "R", "DATE-OBS": "2024-03-02T23:30:00.000"}
    science = write_raw(tmp_path / "raw" / "s.fits", data, about)
    ran = run("why", "--role", "bias", science)
    assert ran.code == 0, ran.err
    verdicts = [line.split("\t")[2] for line in ran.lines[1:]]
    assert verdicts[0] == "chosen" and verdicts[1].startswith("eclipsed by ") and "made later" in verdicts[1]
    late = write_raw(tmp_path / "raw" / "t.fits", data, {**about, "DATE-OBS": "2024-03-09T23:30:00.000"})
    ran = run("why", "--role", "bias", late)
    assert ran.code == 5 and "ended" in ran.out
    assert run("why", "--role", "bais", late).code == 2


def test_why_asks_for_what_a_reduced_frame_takes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A night flat has the role flat too, and fills it with a dome flat.
    run = InProcess(capfd)
    init_store(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run("bias", "-q", *bias_frames(tmp_path / "raw")).code == 0
    rng = np.random.default_rng(2)
    night = {"FILTER": "R", "DATE-OBS": "2024-03-02T23:30:00.000"}
    for number in range(3):
        data = rng.normal(21000, 100, (64, 96)).astype(np.uint16)
        lamp = {**night, "IMAGETYP": "dome flat", "EXPTIME": 5.0}
        write_raw(tmp_path / "raw" / f"f{number}.fits", data, lamp)
    lamps = sorted(str(path) for path in (tmp_path / "raw").glob("f*.fits"))
    science = write_raw(
        tmp_path / "raw" / "s.fits",
        rng.normal(1300, 9, (64, 96)).astype(np.uint16),
        {**night, "IMAGETYP": "object", "EXPTIME": 30.0},
    )
    made = run("domeflat", "-q", *lamps)
    assert made.code == 0, made.err
    ran = run("why", "--role", "flat", science)
    assert (
        ran.code == 5 and "there is no flat of this detector" in ran.out and "try: awe-query flat" in ran.err
    )
    flat = run("flat", "-q", *made.lines)
    assert flat.code == 0, flat.err
    ran = run("why", "--role", "flat", science)
    assert [line.split("\t")[1:3] for line in ran.lines[1:]] == [[flat.lines[0], "chosen"]]


def test_why_says_what_eclipses_what(store: Store) -> None:
    wide = {"valid_from": "2024-02-01T12:00:00.000", "valid_to": "2024-04-01T12:00:00.000"}
    add(store, "hand", 1, night="2024-02-01", valid_by="hand", **wide)
    add(store, "new", 3)
    add(store, "old", 2)
    add(store, "far", 9, night="2024-02-28", **wide)
    found = candidates(BIAS, question_of(BIAS, META), [store], META)
    assert [one.path.name for one in found] == ["hand", "new", "old", "far"]
    assert lost_to(found[0], found[1]) == "default interval; hand was set by hand"
    assert lost_to(found[1], found[2]) == "eclipsed by new, made later"
    assert lost_to(found[1], found[3]) == "eclipsed by new, farther: 3 nights, not 0"


def test_what_only_its_interval_excludes_is_the_nearest(store: Store) -> None:
    over = {"valid_to": "2024-03-02T13:00:00.000"}
    bad = add(store, "bad", 3, **over)
    append_verdict(store, bad, "bad", "", "me")
    add(store, "flagged", 2, flags=1, **over)
    add(store, "far", 1, night="2024-02-25", **over)
    with pytest.raises(NoMatch, match=r"nearest: far, ended 2024-03-02T13"):
        chosen(store)


def test_without_a_night_there_is_no_interval_until_somebody_sets_one(store: Store) -> None:
    key = add(store, "one", valid_from=None, valid_to=None, valid_by=None, night=None)
    assert reasons(store) == {"one": "its night is not known, so it has no interval"}
    append_events(store, [validity_event(key, (None, None), "it is of that night", "me")])
    assert chosen(store) == "one"


def test_the_nearest_word_counts(tmp_path: Path) -> None:
    mine, theirs = init_store(tmp_path / "mine"), init_store(tmp_path / "all")
    key = add(theirs, "one")
    stores = [mine, theirs]

    def reason() -> str:
        (found,) = candidates(BIAS, question_of(BIAS, META), stores, META)
        return found.reason

    append_verdict(theirs, key, "bad", "", "them")
    assert reason() == "judged bad"
    append_verdict(mine, key, "good", "", "me")
    assert reason() == SERVES
    append_events(theirs, [validity_event(key, (None, "2024-03-02T00:00:00.000"), "", "them")])
    assert reason() == "ended 2024-03-02T00:00:00.000"
    append_events(mine, [validity_event(key, (None, None), "", "me")])
    assert reason() == SERVES
    append_events(mine, [validity_event(key, None, "", "me")])
    append_verdict(mine, key, "none", "", "me")
    assert reason() == "judged bad"


def test_as_of_a_day_what_came_later_is_not_there(store: Store) -> None:
    old = add(store, "old", 1, made="2024-03-04T10:00:00.000+00:00")
    add(store, "new", 2, made="2024-05-01T10:00:00.000+00:00")
    events = [
        {"event": "verdict", "identity": old, "verdict": "bad", "when": "2024-04-01T00:00:00+00:00"},
        {
            **validity_event(old, (None, "2024-03-02T00:00:00.000"), "", "me"),
            "when": "2024-06-01T00:00:00+00:00",
        },
    ]
    append_events(store, events)

    def at(moment: str | None) -> list[tuple[str, str]]:
        found = candidates(BIAS, question_of(BIAS, META), [store], META, moment)
        return [(one.path.name, one.reason) for one in found]

    assert at("2024-03-01T00:00:00.000") == []
    assert at("2024-03-10T00:00:00.000") == [("old", SERVES)]
    assert at("2024-04-02T00:00:00.000") == [("old", "judged bad")]
    assert at("2024-05-02T00:00:00.000") == [("new", SERVES), ("old", "judged bad")]
    assert at(None)[0] == ("new", SERVES)


def test_a_product_made_again_was_there_before(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = InProcess(capfd)
    store = init_store(tmp_path)
    monkeypatch.chdir(tmp_path)
    frames = bias_frames(tmp_path / "raw")
    (path,) = run("bias", "-q", *frames).lines
    before = read_record(sidecar(Path(path)))["run"]["end"][:23]
    assert run("bias", "-q", *frames).lines == [path]
    record = read_record(sidecar(Path(path)))
    assert record["run"]["end"][:23] > before
    question = question_of(BIAS, record["meta"])
    (found,) = candidates(BIAS, question, [store], record["meta"], before)
    assert (found.reason, found.sequence) == (SERVES, record["run"]["sequence"] - 1)
    assert candidates(BIAS, question, [store], record["meta"], "2000-01-01T00:00:00.000") == []


def test_why_of_a_product_says_what_it_was_made_with(
    reduced_store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    run = InProcess(capfd)
    reduced = awe("query", "reduced", "filter=R", "--limit", "1").strip()
    rows = [json.loads(line) for line in run("why", "--json", reduced).lines]
    used = {row["role"]: row for row in rows if row["used"] and row["verdict"] == "chosen"}
    inputs = read_record(sidecar(Path(reduced)))["recipe"]["inputs"]
    assert set(used) == {one["role"] for one in inputs if not one["kind"].startswith("raw")}
    bias = used["bias"]["path"]
    detector = read_record(sidecar(Path(bias)))["meta"]["detector"]
    frames = awe("query", "raw_bias", f"detector={detector}").split()
    assert run("bias", "-q", "--clip-sigma", "4", *frames).code == 0
    rows = [json.loads(line) for line in run("why", "--json", reduced, "--role", "bias").lines]
    assert [(row["verdict"], row["used"]) for row in rows] == [("chosen", False), ("eclipsed", True)]
    Path(bias).unlink()
    sidecar(Path(bias)).unlink()
    awe("index", "--update")
    ran = run("why", reduced, "--role", "bias")
    assert ran.code == 0 and "it was used, and is gone" in ran.out


def test_why_of_a_frame_tells_every_role(reduced_store: Store, capfd: pytest.CaptureFixture[str]) -> None:
    run = InProcess(capfd)
    science = awe("query", "raw_science", "filter=R", "--limit", "1").strip()
    ran = run("why", science)
    assert ran.code == 0, ran.err
    lines = [line.split("\t") for line in ran.lines]
    assert lines[0][:4] == ["frame", "calibration", "verdict", "role"]
    assert {"bias", "flat", "hotpix", "gain"} <= {line[3] for line in lines[1:]}
    assert run("why", science, "--as-of", "2001-01-01").code == 5
    assert run("why", science, "--as-of", "yesterday").code == 2
