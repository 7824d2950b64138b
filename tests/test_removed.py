"""awe-make knows what was removed: its record counts as the product did, and pixels are made again for need."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from awetools.core.indexing.index import open_index, rebuild
from awetools.core.journal import append_events, append_verdict, quality_event
from awetools.core.kind import kind_named
from awetools.core.kinds import KINDS
from awetools.core.planning.campaign import Demand, Survey, everything_below, survey
from awetools.core.planning.graph import View
from awetools.core.planning.nodes import label
from awetools.core.planning.tree import lines_of
from awetools.core.record import read_record, sidecar
from awetools.core.rm import remove
from awetools.core.simulate import NightSpec
from awetools.core.store import Store, init_store
from awetools.core.workspace import here
from tests.support import InProcess, awe, program

SPEC = NightSpec(
    detectors=1,
    exposures=3,
    biases=4,
    flats=3,
    twilights=0,
    darks=0,
    shape=(96, 128),
    seed=11,
    filters=("R",),
)
INTERMEDIATE = ("bias", "domeflat", "flat")


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A night whose last science frame is not registered yet, and a store with all else reduced."""
    from awetools.core.simulate.night import simulate_night

    base = tmp_path_factory.mktemp("removed")
    simulate_night(base / "night", SPEC)
    root = init_store(base / "store").root
    (base / "late").mkdir()
    frames = sorted((base / "night" / "raw").rglob("*.fits"))
    awe("ingest", "-q", *frames, cwd=root)
    last = awe("query", "raw_science", cwd=root).splitlines()[-1]
    awe("ingest", "-q", "--forget", last, cwd=root)
    Path(last).rename(base / "late" / Path(last).name)
    ran = program("make", "-q", "reduced", cwd=root)
    assert ran.code == 0, ran.err
    return base


@pytest.fixture
def store(_made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store of its own with all that was made; the working directory."""
    root = tmp_path / "store"
    shutil.copytree(_made / "store", root, copy_function=shutil.copy2, symlinks=True)
    rebuild(Store(root.resolve()))
    monkeypatch.chdir(root)
    return Store(root.resolve())


@pytest.fixture
def late(_made: Path) -> Path:
    """The frame that was not registered."""
    (found,) = (_made / "late").iterdir()
    return found


def products(store: Store, *kinds: str) -> list[Path]:
    return sorted(one for kind in kinds for one in store.root.glob(f"{kind}/*/*.fits"))


def stamps(paths: Sequence[Path]) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def take_away(store: Store, *kinds: str) -> list[Path]:
    paths = products(store, *kinds)
    for path in paths:
        remove(path, [store], "test", "tester")
    return paths


def surveyed(kind: str = "reduced", **view: object) -> Survey:
    return survey(Demand(kind_named(KINDS, kind), ()), View(**view), here(), KINDS, whole=True)  # type: ignore[arg-type]


def states(found: Survey) -> dict[str, str]:
    return {label(node): node.state for node in everything_below(found.targets)}


# What is not needed is not made


def test_what_was_asked_for_is_up_to_date_without_its_intermediates(store: Store, run: InProcess) -> None:
    paths = run("make", "reduced").lines
    assert len(paths) == 2
    gone = take_away(store, *INTERMEDIATE, "readnoise", "gain")
    assert len(gone) == 5
    for again in (False, True):
        if again:
            rebuild(store)
        ran = run("make", "reduced")
        assert (ran.code, ran.lines) == (0, paths) and "2 up to date" in ran.err
        assert run("make", "-n", "reduced").out == ""
        assert run("make", "--check", "reduced").code == 0
        assert "nothing is out of date" in run("make", "-n", "--outdated").err
        assert (
            run("make", "-n", "--depth=1", "reduced").out
            == run("make", "-n", "--only=reduced", "reduced").out
            == ""
        )
        tree = [line for line in run("make", "--tree", "reduced").lines if "raw_" not in line]
        assert all("fresh" in line or "removed, record kept" in line for line in tree)
        assert any("bias" in line and "removed, record kept" in line for line in tree)
    assert not any(path.exists() for path in gone)


def test_the_same_at_an_instant_that_is_past(store: Store, run: InProcess) -> None:
    take_away(store, *INTERMEDIATE, "reduced")
    run_end = max(read_record(one)["run"]["end"] for one in store.records_path.glob("*.json"))
    assert set(states(surveyed(as_of=f"{run_end[:19]}.999")).values()) <= {"fresh", "removed"}
    assert run("make", "--check", "--as-of", "2199-01-01", "reduced").code == 0
    ran = run("make", "-n", "--as-of", "2199-01-01", "reduced")
    assert ran.code == 0 and "2 removed, record kept" in ran.err
    # Before any of it was made, there was nothing.
    assert "missing" in states(surveyed(as_of="2024-06-01T00:00:00")).values()


# What is needed is made again


def test_a_new_frame_has_made_again_what_it_needs_alone(store: Store, run: InProcess, late: Path) -> None:
    before = stamps(products(store, *INTERMEDIATE, "reduced", "readnoise", "gain"))
    gone = take_away(store, *INTERMEDIATE)
    assert run("ingest", "-q", late).code == 0
    why = run("make", "-n", "--why", "reduced").lines
    assert [line.partition("\t")[2].partition(":")[0] for line in why] == ["removed"] * 3 + ["missing"]
    ran = run("make", "reduced")
    assert ran.code == 0 and "4 made, 2 up to date" in ran.err, ran.err
    after = stamps(products(store, *INTERMEDIATE, "reduced", "readnoise", "gain"))
    assert {path: one[0] for path, one in after.items() if path in before} == {
        path: one[0] for path, one in before.items()
    }
    assert {path for path, one in before.items() if after[path] != one} <= set(gone)
    # Nothing follows from what was made again.
    assert "3 up to date" in run("make", "-n", "reduced").err
    assert run("make", "-n", "--outdated").out == ""
    assert set(states(surveyed()).values()) == {"fresh"}


def test_what_is_asked_for_itself_is_made(store: Store, run: InProcess) -> None:
    (flat,) = products(store, "flat")
    content = flat.read_bytes()
    take_away(store, "bias", "flat")
    found = surveyed("flat")
    assert [one.state for one in found.targets] == ["again"] and [one.kind.name for one in found.to_make] == [
        "flat"
    ]
    about = json.loads(run("make", "-n", "--json", "flat").out)
    assert about["state"] == "to be made again" and [one["reason"] for one in about["reasons"]] == ["removed"]
    assert run("make", "--check", "flat").code == 3
    assert run("make", flat).lines == [str(flat)]
    assert flat.read_bytes() == content and not products(store, "bias")


def test_changed_parameters_of_what_was_removed_have_it_made(store: Store, run: InProcess) -> None:
    take_away(store, *INTERMEDIATE)
    found = surveyed(sets={"bias": {"clip_sigma": 4.5}})
    made = {label(one).split()[0]: one.state for one in found.to_make}
    assert made["bias"] == made["reduced"] == "outdated" and made["flat"] == "outdated"


def test_raw_frames_that_are_gone_block_only_what_needs_the_pixels(
    _made: Path, store: Store, run: InProcess, late: Path
) -> None:
    take_away(store, "bias")
    (frame, *_) = [Path(one) for one in run("query", "raw_bias").lines]
    away = frame.rename(frame.with_suffix(".away"))
    try:
        ran = run("make", "reduced")
        assert ran.code == 0 and len(ran.lines) == 2
        assert run("ingest", "-q", late).code == 0
        ran = run("make", "reduced")
        assert ran.code == 5 and len(ran.lines) == 2
        assert "bias" in ran.err and "was removed, and cannot be made" in ran.err and str(frame) in ran.err
        assert run("make", "bias").code == 5
    finally:
        away.rename(frame)


def test_a_flagged_one_is_made_if_it_is_asked_for_and_one_judged_bad_is_not(
    store: Store, run: InProcess
) -> None:
    (bias,) = products(store, "bias")
    record = read_record(sidecar(bias))
    key = record["recipe_key"]
    append_events(store, [quality_event(key, record["run"]["end"], 1, [], "test", "tester")])
    assert [one.state for one in surveyed("bias").targets] == ["flagged"]
    take_away(store, "bias")
    assert run("make", "bias").lines == [str(bias)] and bias.exists()
    take_away(store, "bias")
    append_verdict(store, key, "bad", "stripes", "tester")
    ran = run("make", "bias")
    assert (ran.code, ran.out) == (5, "") and "judged bad" in ran.err


def test_python_has_it_made_again(store: Store) -> None:
    import awetools

    (bias,) = products(store, "bias")
    content = bias.read_bytes()
    take_away(store, "bias", "domeflat")
    frame = awetools.Reduced.select()[0]
    assert frame.uptodate() and frame.exists()
    assert awetools.Bias.get(night="2024-03-02").exists() and bias.read_bytes() == content


# It counts as its record says, and not otherwise


def test_what_was_judged_bad_is_not_used(store: Store, run: InProcess) -> None:
    (bias,) = products(store, "bias")
    key = read_record(sidecar(bias))["recipe_key"]
    append_verdict(store, key, "bad", "stripes", "tester")
    before = states(surveyed()), [label(one) for one in surveyed().to_make]
    take_away(store, "bias")
    assert (states(surveyed()), [label(one) for one in surveyed().to_make]) == before
    assert states(surveyed())[f"reduced {label(surveyed().targets[0]).split(' ', 1)[1]}"] != "fresh"


@settings(
    max_examples=12,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(chosen=st.sets(st.integers(0, 9)), other=st.booleans())
def test_removing_files_changes_no_choice(_two_versions: Store, chosen: set[int], other: bool) -> None:
    """Whatever is removed, also versions that another one eclipses: the same is outdated and the same is used."""
    view = {"sets": {"bias": {"clip_sigma": 4.5}}} if other else {}

    def seen() -> tuple[dict[str, str], dict[str, str]]:
        found = surveyed(**view)
        nodes = everything_below(found.targets)
        found.graph.stock.close()
        late = {label(one): one.state for one in found.to_make if one.state != "again"}
        return late, {label(one): one.item.content for one in nodes if one.item is not None}

    with tempfile.TemporaryDirectory() as directory:
        root = Path(shutil.copytree(_two_versions.root, Path(directory, "store"), copy_function=shutil.copy2))
        store = Store(root.resolve())
        rebuild(store)
        os.chdir(store.root)
        before = seen()
        paths = products(store, *INTERMEDIATE, "gain")
        for number in chosen & set(range(len(paths))):
            remove(paths[number], [store], "test", "tester")
        assert seen() == before
        os.chdir(_two_versions.root)


@pytest.fixture
def _two_versions(store: Store, run: InProcess) -> Store:
    """Each intermediate in two versions, of which the second was made with another parameter."""
    assert run("make", "-q", "reduced", "--set", "bias.clip_sigma=4.5").code == 0
    assert len(products(store, *INTERMEDIATE)) == 6
    return store


def test_an_interval_that_was_set_by_hand_stays_in_force(store: Store, run: InProcess, late: Path) -> None:
    (bias,) = products(store, "bias")
    content = bias.read_bytes()
    assert run("validity", "--from", "2024-01-01", "--to", "2025-01-01", "--reason", "test", bias).code == 0
    take_away(store, "bias")
    assert set(states(surveyed()).values()) <= {"fresh", "removed"}
    assert run("ingest", "-q", late).code == 0
    ran = run("make", "reduced")
    assert ran.code == 0 and len(ran.lines) == 3, ran.err
    assert bias.read_bytes() == content


def test_an_older_version_that_is_pinned_cannot_be_made_again(
    _two_versions: Store, run: InProcess, late: Path
) -> None:
    """Its parameters are no longer in force: it counts, and is never replaced by another one in silence."""
    store = _two_versions
    (pinned,) = [
        one
        for one in products(store, "bias")
        if read_record(sidecar(one))["recipe"]["parameters"]["clip_sigma"]["value"] == 4.5
    ]
    dates = ("--from", "2024-01-01", "--to", "2025-01-01", "--reason", "test")
    assert run("validity", *dates, pinned).code == 0 and run("make", "-q", "reduced").code == 0
    remove(pinned, [store], "test", "tester")
    nodes = everything_below(surveyed().targets)
    assert [one.item.address for one in nodes if one.state == "removed" and one.item] == [str(pinned)]
    assert {one.state for one in nodes} == {"fresh", "removed"}
    assert run("ingest", "-q", late).code == 0
    ran = run("make", "reduced")
    assert ran.code == 5 and len(ran.lines) == 2
    assert f"{pinned}: was removed" in ran.err and f"awe-lineage --script {pinned}" in ran.err


def test_a_program_alone_names_what_was_removed(store: Store, run: InProcess, late: Path) -> None:
    (bias,) = take_away(store, "bias")
    ran = run("reduce", "-u", late)
    assert ran.code == 5 and f"{bias} was removed" in ran.err
    (hint,) = [line for line in ran.err.splitlines() if "awe-make" in line]
    words = hint[hint.index("awe-make") + len("awe-") :].split()
    assert words[:2] == ["make", "bias"] and run(*words).code == 0 and bias.exists()
    assert run("reduce", "-u", late).code == 0


# Stores above


def test_records_alone_in_an_upper_store_are_enough(
    store: Store, run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upper = init_store(tmp_path / "up")
    paths = products(store, "reduced")
    for path in paths:
        append_verdict(store, read_record(sidecar(path))["recipe_key"], "ready", "fine", "tester")
    monkeypatch.setenv("AWE_PATH", f"{store.root}:{upper.root}")
    assert run("publish", "-q", *paths).code == 0
    assert run("make", "-n", "reduced").out == ""
    take_away(store, *INTERMEDIATE)
    assert run("make", "-n", "reduced").out == ""
    monkeypatch.setenv("AWE_PATH", str(upper.root))
    monkeypatch.chdir(upper.root)
    assert not products(upper, *INTERMEDIATE) and len(products(upper, "reduced")) == 2
    for again in (False, True):
        if again:
            rebuild(upper)
        ran = run("make", "reduced")
        assert (ran.code, len(ran.lines)) == (0, 2) and "2 up to date" in ran.err
    assert not products(upper, *INTERMEDIATE)
    found = surveyed()
    lines = [line.text for line in lines_of(found.graph, found.targets)]
    assert any("removed, record kept" in line for line in lines)


# The index of kept records


def known(store: Store) -> set[str]:
    with open_index(store) as index:
        if not index.refresh_kept():
            return set()
        return {Path(row[0]).name for row in index.select("SELECT record_path FROM kept")}


def test_the_index_follows_the_kept_records(store: Store) -> None:
    assert known(store) == set()
    take_away(store, "bias")
    first = known(store)
    assert len(first) == 1
    take_away(store, "flat")
    both = known(store)
    assert len(both) == 2 and both > first
    (store.records_path / "broken.fits.0123456789abcdef.json").write_text("{")
    assert known(store) == both
    with open_index(store) as index:
        index.writable = False
        (store.records_path / next(iter(first))).unlink()
        assert index.refresh_kept() and index.refresh_kept()
        assert len(list(index.select("SELECT * FROM kept"))) == 1
        assert all(index.select("SELECT setups.meta FROM kept JOIN setups ON setups.number = kept.setup"))
    assert known(store) == both - first
    rebuild(store)
    with open_index(store) as index:
        assert {Path(row[0]).name for row in index.select("SELECT record_path FROM kept")} == both - first


def test_what_did_not_change_is_not_listed_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    take_away(store, "bias")
    os.utime(store.records_path, (1, 1))
    assert len(known(store)) == 1
    monkeypatch.setattr(
        "awetools.core.indexing.handle.Index._kept_names", lambda self: pytest.fail("listed again")
    )
    assert len(known(store)) == 1
