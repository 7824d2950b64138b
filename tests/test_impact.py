"""What a bad frame touched: all of it, each once, across stores and removals; and judging it at once."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from awetools.core.indexing.index import update
from awetools.core.journal import read_events, verdicts
from awetools.core.record import read_record, sidecar
from awetools.core.store import Store, init_store
from awetools.core.tracing.impact import impact
from awetools.core.tracing.lookup import Lookup
from tests.support import InProcess
from tests.test_lineage import write_graph


def key_of(path: str | Path) -> str:
    return str(read_record(sidecar(Path(path)))["recipe_key"])


def touched(store: Store, *numbers: int) -> dict[str, int]:
    """The steps to everything that was made from products of a graph, by file name."""
    with Lookup([store]) as lookup:
        starts = [node.id for n in numbers for node in lookup.named(str(store.root / f"{n}.fits"))]
        found = impact(starts, lookup)
    assert len({one.path for one in found}) == len(found)
    return {Path(one.path).name: one.steps for one in found}


# The list


def test_it_is_what_the_lineage_reaches(reduced_store: Store, run: InProcess) -> None:
    (bias, *_) = run("query", "bias").lines
    forward = [json.loads(line) for line in run("lineage", "--forward", "--json", bias).lines]
    found = [json.loads(line) for line in run("lineage", "--impact", "--json", bias).lines]
    expected = {(one["path"], one["kind"], one["id"], one["steps"]) for one in forward if one["steps"]}
    assert {(one["path"], one["kind"], one["id"], one["steps"]) for one in found} == expected
    ran = run("lineage", "--impact", bias)
    reduced = sum(one["kind"] == "reduced" for one in found)
    assert len(ran.lines) == len(found) and f"{reduced} reduced" in ran.err
    table = run("lineage", "--impact", "--format", "tsv", bias).lines
    assert table[0] == "steps\tkind\tpath\tid\tstate" and len(table) == len(found) + 1


def test_steps_are_the_shortest_and_circles_end(tmp_path: Path) -> None:
    store = init_store(tmp_path / "store")
    write_graph(store, {0: [5], 1: [0], 2: [1, 0], 3: [2], 4: [4], 5: [3]})
    assert touched(store, 0) == {"1.fits": 1, "2.fits": 1, "3.fits": 2, "5.fits": 3}
    assert touched(store, 0, 2) == {"1.fits": 1, "3.fits": 1, "5.fits": 2}
    assert touched(store, 4) == {}


def test_a_product_at_two_places_is_two(made: Store, run: InProcess, tmp_path: Path) -> None:
    shutil.copy2("deep/hotpix.fits", "copy.fits")
    shutil.copy2("deep/hotpix.fits.json", "copy.fits.json")
    update(made)
    ran = run("lineage", "--impact", "bias.fits")
    assert set(ran.lines) == {str(made.root / "copy.fits"), str(made.root / "deep" / "hotpix.fits")}
    assert "touched: 1 hotpix" in ran.err


def test_other_stores_are_seen(
    made: Store, run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = init_store(tmp_path / "private")
    monkeypatch.setenv("AWE_PATH", f"{private.root}:{made.root}")
    monkeypatch.chdir(private.root)
    mine = ("hotpix", "-q", "--threshold-sigma", "9", "-o", "mine.fits")
    assert run(*mine, made.root / "bias.fits").code == 0
    found = run("lineage", "--impact", tmp_path / "raw" / "bias0.fits").lines
    assert {Path(one).name for one in found} == {"bias.fits", "hotpix.fits", "mine.fits"}


def test_nothing_touched_is_an_answer(made: Store, run: InProcess) -> None:
    ran = run("lineage", "--impact", "deep/hotpix.fits")
    assert (ran.code, ran.out) == (0, "") and "nothing was made from it" in ran.err
    assert run("lineage", "--impact", "nowhere.fits").code == 4


def test_thousands_take_no_time(tmp_path: Path) -> None:
    store = init_store(tmp_path / "store")
    write_graph(store, {0: [], **{n: [0] for n in range(1, 2000)}})
    with Lookup([store]) as lookup:
        starts = [node.id for node in lookup.named(str(store.root / "0.fits"))]
        begin = time.process_time()
        assert len(impact(starts, lookup)) == 1999
        assert time.process_time() - begin < 0.5


# The verdict


def test_all_of_it_is_judged_bad_and_it_can_be_undone(made: Store, run: InProcess, tmp_path: Path) -> None:
    raw = tmp_path / "raw" / "bias0.fits"
    key = key_of("bias.fits")
    assert run("rm", "-q", "bias.fits").code == 0
    ran = run("lineage", "--invalidate", "-n", "--reason", "light leak", raw)
    assert ran.code == 0 and len(ran.lines) == 2 and "3 would be judged bad" in ran.err
    assert read_events(made) == []
    ran = run("lineage", "--invalidate", "--reason", "light leak; 'x'", raw)
    assert ran.code == 0 and f"3 judged bad, in {made.journal_path}" in ran.err
    events = read_events(made)
    assert len(events) == 3 and {one["reason"] for one in events} == {"light leak; 'x'"}
    (content,) = {one["identity"] for one in events} - {key, key_of("deep/hotpix.fits")}
    assert verdicts(made) == dict.fromkeys((key, key_of("deep/hotpix.fits"), content), "bad")
    listed = run("lineage", "--impact", raw).lines
    assert run("judge", "--undo", "--reason", "no leak", raw, "deep/hotpix.fits").code == 0
    assert verdicts(made) == {key: "bad"}, "what is removed keeps its verdict until it is there again"
    assert listed[-1].endswith("hotpix.fits")


def standing_of(run: InProcess, name: str | Path) -> tuple[str | None, str]:
    (about,) = (json.loads(line) for line in run("judge", "--json", name).lines)
    return about["verdict"], about["why"]


def test_all_that_an_invalidate_said_is_taken_back_and_nothing_else(
    made: Store, run: InProcess, tmp_path: Path
) -> None:
    first, second = (tmp_path / "raw" / f"bias{n}.fits" for n in (0, 1))
    hotpix = "deep/hotpix.fits"
    run("judge", hotpix, "bad", "--reason", "before")
    assert run("lineage", "--invalidate", "--reason", "one", first).code == 0
    assert run("lineage", "--invalidate", "--reason", "two", second).code == 0
    asked = ("lineage", "--invalidate", "--undo", "--reason", "no leak")
    ran = run(*asked, "-n", second)
    assert "3 would be taken back" in ran.err and standing_of(run, second) == ("bad", "two")
    # What the first said is hidden behind the second; it does not come back after.
    ran = run(*asked, first)
    assert ran.code == 0 and "1 taken back" in ran.err and "2 others" in ran.err and not ran.out
    assert standing_of(run, first)[0] is None and standing_of(run, "bias.fits") == ("bad", "two")
    ran = run(*asked, second)
    assert sorted(ran.lines) == [str(made.root / "bias.fits"), str(made.root / hotpix)]
    assert "1 of these bad" in ran.err
    assert standing_of(run, "bias.fits")[0] is None and standing_of(run, second)[0] is None
    verdict, why = standing_of(run, hotpix)
    assert verdict == "bad" and why.startswith("before (as ") and why.endswith("; no leak)")
    ran = run(*asked, first, second)
    assert ran.code == 0 and "none to take back" in ran.err


def test_what_was_judged_since_stays_when_an_invalidate_is_taken_back(
    made: Store, run: InProcess, tmp_path: Path
) -> None:
    raw = tmp_path / "raw" / "bias0.fits"
    run("lineage", "--invalidate", "--reason", "one", raw)
    run("lineage", "--invalidate", "--reason", "two", raw)
    run("judge", "deep/hotpix.fits", "good", "--reason", "looked")
    asked = ("lineage", "--invalidate", "--undo", "--reason", "no", raw)
    assert "2 of these bad" in run(*asked).err
    assert standing_of(run, "bias.fits")[1].startswith("one (as ")
    assert run(*asked).code == 0
    assert standing_of(run, "bias.fits")[0] is None and standing_of(run, raw)[0] is None
    assert standing_of(run, "deep/hotpix.fits") == ("good", "looked")
    # The bias was touched by it, but it did not start there.
    run("lineage", "--invalidate", "--reason", "three", raw)
    assert "none to take back" in run(*asked[:-1], "bias.fits").err
    assert standing_of(run, "bias.fits") == ("bad", "three")


def test_a_journal_of_others_is_not_taken_back(
    made: Store, run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "raw" / "bias0.fits"
    run("lineage", "--invalidate", "--reason", "one", raw)
    with made.journal_path.open("a") as stream:
        stream.write('{"event": "later", "act": ["x"], "undoes": {}, "start": true}\n')
    from awetools.core.errors import Unavailable
    from awetools.core.tracing import impact as module

    def refuse(*_: object) -> None:
        raise Unavailable(f"{made.journal_path}: Permission denied")

    monkeypatch.setattr(module, "append_after", refuse)
    ran = run("lineage", "--invalidate", "--undo", "--reason", "no", raw)
    assert ran.code == 7 and "Permission denied" in ran.err and standing_of(run, raw)[0] == "bad"
    assert run("lineage", "--undo", "--reason", "x", raw).code == 2
    assert run("lineage", "--invalidate", "--undo", raw).code == 2
