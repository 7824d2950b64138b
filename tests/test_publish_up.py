"""Publishing one store up: the whole lineage or nothing, whoever dies, races, judges or holds."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from awetools.core.errors import Integrity, Unavailable
from awetools.core.files import make_directory, open_shared
from awetools.core.indexing.index import open_index, rebuild
from awetools.core.indexing.indexsync import check
from awetools.core.journal import append_events, append_verdict, read_events, verdicts
from awetools.core.leftovers import clean
from awetools.core.products import open_product
from awetools.core.record import read_record, sidecar
from awetools.core.sharing import handover
from awetools.core.sharing.embargo import embargoes
from awetools.core.sharing.publication import Wish
from awetools.core.sharing.upward import publish_all
from awetools.core.store import Store, init_store
from awetools.core.tracing.lineage import ancestors
from awetools.core.tracing.lookup import Lookup
from tests import test_publish
from tests.support import InProcess, Ran, awe, bias_frames
from tests.test_publish import killed_at

LATER = (datetime.now(UTC).date() + timedelta(days=400)).isoformat()
SOONER = (datetime.now(UTC).date() + timedelta(days=30)).isoformat()


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private store with a bias of four frames and the map made of it, and an empty one above."""
    root = tmp_path_factory.mktemp("stores")
    store = init_store(root / "own")
    frames = bias_frames(root / "raw")
    awe("ingest", "-q", *frames, cwd=store.root)
    awe("make", "-q", "hotpix", cwd=store.root)
    init_store(root / "up")
    return root


@pytest.fixture
def stores(_made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Store]:
    """Two stores on AWE_PATH, the first with a bias and a map; in the first."""
    for name in ("own", "up"):
        shutil.copytree(_made / name, tmp_path / name, copy_function=shutil.copy2)
    found = [Store((tmp_path / name).resolve()) for name in ("own", "up")]
    for one in found:
        rebuild(one)
    monkeypatch.setenv("AWE_PATH", ":".join(str(one.root) for one in found))
    monkeypatch.chdir(found[0].root)
    return found


def the(kind: str, store: Store) -> Path:
    (found,) = store.root.glob(f"{kind}/*/*.fits")
    return found


def judge(store: Store, path: Path, verdict: str) -> str:
    record = read_record(sidecar(path))
    append_verdict(store, record["recipe_key"], verdict, "test", "tester")
    return str(record["recipe_key"])


def lineage(path: Path, *stores: Store) -> list[tuple[str, str, bool]]:
    with Lookup(stores) as lookup:
        nodes = [line.node for line in ancestors(lookup.named(str(path)), lookup)]
    return sorted({(one.kind, one.id, one.record_path is not None) for one in nodes})


def files_of(store: Store) -> list[str]:
    """All files of a store but locks, sequence, journal and index."""
    passing = ("index", "sequence", "journal", "publish.lock", ".index")
    found = [one for one in store.root.rglob("*") if one.is_file()]
    return sorted(str(one.relative_to(store.root)) for one in found if not one.name.startswith(passing))


def published(store: Store) -> Path:
    return the("hotpix", store)


def assert_whole(store: Store) -> None:
    """The map, and of all that it was made of a record, in this store alone."""
    known = lineage(published(store), store)
    assert [kind for kind, _, _ in known] == ["bias", "hotpix", *["raw_bias"] * 4, "readnoise"]
    assert all(has_record for _, _, has_record in known), known


# What goes along


@pytest.mark.parametrize("files", ["product", "calibrations", "all"])
def test_the_lineage_is_whole_in_the_upper_store_alone(
    stores: list[Store], run: InProcess, monkeypatch: pytest.MonkeyPatch, files: str
) -> None:
    own, up = stores
    product = the("hotpix", own)
    judge(own, product, "ready")
    ran = run("publish", "--files", files, product)
    assert ran.code == 0, ran.err
    assert ran.lines == [str(published(up))]
    assert published(up).read_bytes() == product.read_bytes()
    monkeypatch.setenv("AWE_PATH", str(up.root))
    known = lineage(published(up), up)
    assert known == lineage(product, own)
    assert [kind for kind, _, _ in known] == ["bias", "hotpix", *["raw_bias"] * 4, "readnoise"]
    assert bool(list(up.root.glob("bias/*/*.fits"))) == (files != "product")
    assert len(list(up.root.glob("raw/*/*.fits"))) == (4 if files == "all" else 0)
    monkeypatch.chdir(up.root)
    ran = run("verify")
    assert ran.code == 0 and ran.out == "", ran.out
    assert check(up) == []
    with open_index(up) as index:
        kinds = dict(index.select("SELECT kind, count(*) FROM objects GROUP BY kind"))
    others = {"bias": 1, "readnoise": 1} if files != "product" else {}
    assert kinds == {"raw_bias": 4, "hotpix": 1} | others
    rebuild(up)
    assert check(up) == []


@pytest.mark.parametrize("files", ["product", "calibrations", "all"])
def test_awe_make_in_the_upper_store_comes_to_the_same_product(
    stores: list[Store], run: InProcess, monkeypatch: pytest.MonkeyPatch, files: str
) -> None:
    own, up = stores
    judge(own, the("hotpix", own), "ready")
    assert run("publish", "-q", "--files", files, the("hotpix", own)).code == 0
    before = published(up).read_bytes()
    monkeypatch.setenv("AWE_PATH", str(up.root))
    monkeypatch.chdir(up.root)
    ran = run("make", "-n", "hotpix")
    assert ran.code == 0 and "1 up to date" in ran.err, ran.err
    # What only its record is there of is made again when it is asked for.
    ran = run("make", "-q", "bias")
    assert ran.code == 0, ran.err
    assert published(up).read_bytes() == before
    assert the("bias", up).read_bytes() == the("bias", own).read_bytes()


def test_again_there_is_nothing_to_do_but_what_is_asked_for_more(stores: list[Store], run: InProcess) -> None:
    own, up = stores
    product = the("hotpix", own)
    judge(own, product, "ready")
    assert run("publish", "-q", product).code == 0
    before, said = files_of(up), read_events(up)
    ran = run("publish", "--json", product)
    assert ran.code == 0 and "already" in ran.err
    assert json.loads(ran.out)["state"] == "there"
    assert (files_of(up), read_events(up)) == (before, said)
    assert run("publish", "-q", "--files", "calibrations", product).code == 0
    assert the("bias", up).exists() and len(read_events(up)) == len(said)


def test_what_is_listed_beforehand_is_what_is_copied(stores: list[Store], run: InProcess) -> None:
    own, up = stores
    product = the("hotpix", own)
    judge(own, product, "ready")
    before = files_of(up)
    ran = run("publish", "-n", "--json", "--files", "calibrations", product)
    listed = [json.loads(line) for line in ran.lines]
    assert ran.code == 0 and files_of(up) == before and not read_events(up)
    assert [one["what"] for one in listed] == [*["raw"] * 4, *["product"] * 3]
    assert run("publish", "-q", "--files", "calibrations", product).code == 0
    sizes = {one["path"]: one["bytes"] for one in listed}
    assert {path: Path(path).stat().st_size for path in sizes} == sizes


def test_words_go_along_and_both_journals_know(stores: list[Store], run: InProcess) -> None:
    own, up = stores
    bias, product = the("bias", own), the("hotpix", own)
    judged = judge(own, bias, "good"), judge(own, product, "ready")
    assert run("validity", "-q", "--forever", "--reason", "stable", bias).code == 0
    assert run("publish", "-q", product).code == 0
    assert verdicts(up) == {judged[0]: "good", judged[1]: "ready"}
    events = [one for one in read_events(up) if one["event"] != "publish"]
    assert {one["from"] for one in events} == {str(own.root)}
    assert {one["event"] for one in events} == {"verdict", "validity"}
    for store in stores:
        (event,) = [one for one in read_events(store) if one["event"] == "publish"]
        assert (event["identity"], event["from"], event["to"]) == (judged[1], str(own.root), str(up.root))


def test_a_verdict_that_was_taken_back_is_none(
    stores: list[Store], run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, up = stores
    private = init_store(tmp_path / "private")
    monkeypatch.setenv("AWE_PATH", ":".join(str(one.root) for one in (private, own, up)))
    product = the("hotpix", own)
    key = judge(own, product, "ready")
    judge(private, product, "bad")
    assert run("publish", product).code == 5
    judge(private, product, "none")
    assert run("publish", "-q", product).code == 0
    assert verdicts(up) == {key: "ready"}


def test_a_deleted_ancestor_goes_along_as_its_record(
    stores: list[Store], run: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, up = stores
    bias, product = the("bias", own), the("hotpix", own)
    judge(own, product, "ready")
    shutil.move(sidecar(bias), own.records_path / f"{bias.name}.0123456789abcdef.json")
    bias.unlink()
    rebuild(own)
    assert run("publish", "-q", "--files", "calibrations", product).code == 0
    assert_whole(up)
    # Without a record of it the lineage is not whole.
    next(own.records_path.glob("*.json")).unlink()
    monkeypatch.setenv("AWE_PATH", str(own.root))
    ran = run("publish", "--to", init_store(own.root.parent / "other").root, product)
    assert ran.code == 4 and "no record is kept" in ran.err and bias.name in ran.err
    assert not list((own.root.parent / "other").glob("hotpix/*"))


# What is refused


@pytest.mark.parametrize("verdict", [None, "good", "bad"])
def test_only_what_is_ready_goes(stores: list[Store], run: InProcess, verdict: str | None) -> None:
    own, up = stores
    product = the("hotpix", own)
    if verdict:
        judge(own, product, verdict)
    ran = run("publish", product)
    assert ran.code == 5 and "withheld" in ran.err and f"awe-judge {product} ready" in ran.err
    assert files_of(up) == [] and not read_events(up)


def test_all_that_speaks_against_it_is_named_and_nothing_goes(stores: list[Store], run: InProcess) -> None:
    own, up = stores
    bias, product = the("bias", own), the("hotpix", own)
    judge(own, product, "ready")
    judge(own, bias, "bad")
    raw = next(one[1] for one in lineage(product, own) if one[0] == "raw_bias")
    append_verdict(own, raw, "bad", "clouds", "tester")
    ran = run("publish", product, bias)
    assert ran.code == 5
    assert ran.err.count("withheld") == 3
    assert f"{bias}: the bias is judged bad" in ran.err and "raw_bias is judged bad" in ran.err
    assert f"{bias}: is judged bad, not ready" in ran.err
    assert files_of(up) == []


def test_a_flagged_ancestor_must_be_judged_good(stores: list[Store], run: InProcess) -> None:
    own, up = stores
    bias, product = the("bias", own), the("hotpix", own)
    judge(own, product, "ready")
    record = json.loads(sidecar(bias).read_text())
    record["quality"]["flags"] = 1
    sidecar(bias).write_text(json.dumps(record))
    ran = run("publish", product)
    assert ran.code == 5 and "flagged, and nobody judged it good" in ran.err
    judge(own, bias, "good")
    assert run("publish", "-q", product).code == 0 and published(up).exists()


def test_what_the_upper_store_calls_bad_stays_out(stores: list[Store], run: InProcess) -> None:
    own, up = stores
    product = the("hotpix", own)
    judge(own, product, "ready")
    judge(up, the("bias", own), "bad")
    ran = run("publish", product)
    assert ran.code == 5 and "the bias is judged bad" in ran.err
    judge(own, the("bias", own), "good")
    ran = run("publish", product)
    assert ran.code == 5 and f"judged bad in {up.root}" in ran.err and files_of(up) == []


def test_another_product_of_that_name_is_not_replaced_unasked(stores: list[Store], run: InProcess) -> None:
    own, up = stores
    product = the("hotpix", own)
    judge(own, product, "ready")
    target = up.root / product.relative_to(own.root)
    target.parent.mkdir(parents=True)
    target.write_bytes(b"precious")
    ran = run("publish", product)
    assert ran.code == 2 and str(target) in ran.err and target.read_bytes() == b"precious"
    target.unlink()
    shutil.copy2(the("bias", own), target)
    other = json.loads(sidecar(the("bias", own)).read_text())
    sidecar(target).write_text(json.dumps(other))
    ran = run("publish", product)
    assert ran.code == 2 and "another product" in ran.err and "--force" in ran.err
    assert run("publish", "-q", "--force", product).code == 0
    assert target.read_bytes() == product.read_bytes()
    kept = [json.loads(one.read_text()) for one in up.records_path.glob(f"{target.name}.*")]
    assert other in kept


def test_where_there_is_no_store_above(stores: list[Store], run: InProcess, monkeypatch: Any) -> None:
    own, up = stores
    product = the("hotpix", own)
    judge(own, product, "ready")
    ran = run("publish", "--to", own.root, product)
    assert ran.code == 2 and "is the store that holds" in ran.err
    ran = run("publish", "--to", own.root.parent, product)
    assert ran.code == 4 and "not a store" in ran.err
    assert run("publish", "-q", product).code == 0
    ran = run("publish", published(up))
    assert ran.code == 4 and "the last one of AWE_PATH" in ran.err and "--to STORE" in ran.err
    ran = run("publish", "--to", own.root, published(up))
    assert ran.code == 2 and "upward" in ran.err
    monkeypatch.setenv("AWE_PATH", str(up.root))
    ran = run("publish", product)
    assert ran.code == 4 and "not in AWE_PATH" in ran.err
    ran = run("publish", "no-such.fits")
    assert ran.code == 4 and "no such file" in ran.err


# Embargo


def test_an_embargo_holds_a_product_and_all_that_is_made_from_it(stores: list[Store], run: InProcess) -> None:
    own, up = stores
    bias, product = the("bias", own), the("hotpix", own)
    judge(own, product, "ready")
    ran = run("publish", "--hold", "--embargo", LATER, "--reason", "proprietary", bias)
    assert ran.code == 0 and LATER in ran.err
    ran = run("publish", product)
    assert ran.code == 5 and f"under embargo until {LATER}" in ran.err and "proprietary" in ran.err
    assert "--hold --embargo none" in ran.err and files_of(up) == []
    # Another day replaces it, and none takes it back.
    assert run("publish", "-q", "--hold", "--embargo", SOONER, bias).code == 0
    assert f"until {SOONER}" in run("publish", product).err
    assert run("publish", "-q", "--hold", "--embargo", "none", bias).code == 0
    assert run("publish", "-q", product).code == 0


def test_an_embargo_on_a_raw_frame(stores: list[Store], run: InProcess, _made: Path) -> None:
    own, _ = stores
    product = the("hotpix", own)
    judge(own, product, "ready")
    frame = _made / "raw" / "bias2.fits"
    assert run("publish", "-q", "--hold", "--embargo", LATER, frame).code == 0
    ran = run("publish", product)
    assert ran.code == 5 and "bias2.fits" in ran.err


def test_published_under_embargo_it_goes_no_further(
    stores: list[Store], run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, up = stores
    top = init_store(tmp_path / "top")
    monkeypatch.setenv("AWE_PATH", ":".join(str(one.root) for one in (own, up, top)))
    product = the("hotpix", own)
    key = judge(own, product, "ready")
    assert run("publish", "-q", "--embargo", LATER, product).code == 0
    assert embargoes([up])[key].until == LATER and not embargoes([own])
    ran = run("publish", published(up))
    assert ran.code == 5 and f"in {up.root}" in ran.err and files_of(top) == []
    # It came in, and may come in again with more.
    assert run("publish", "-q", "--files", "calibrations", product).code == 0
    assert run("publish", "-q", "--embargo", "none", product).code == 0
    assert run("publish", "-q", published(up)).code == 0
    assert published(top).read_bytes() == product.read_bytes()


def test_the_latest_embargo_of_all_stores_counts(
    stores: list[Store], run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, up = stores
    top = init_store(tmp_path / "top")
    monkeypatch.setenv("AWE_PATH", ":".join(str(one.root) for one in (own, up, top)))
    product = the("hotpix", own)
    key = judge(own, product, "ready")
    for store, until in ((own, SOONER), (top, LATER)):
        event = {"event": "embargo", "identity": key, "until": until, "when": "2030-01-01T00:00:00.000+00:00"}
        append_events(store, [event])
    assert f"until {LATER}" in run("publish", product).err


def test_a_journal_is_honoured_in_its_order_not_by_clocks(stores: list[Store], run: InProcess) -> None:
    own, _ = stores
    product = the("hotpix", own)
    key = judge(own, product, "ready")
    for when, until in (("2999", LATER), ("2000", None)):
        event = {
            "event": "embargo",
            "identity": key,
            "until": until,
            "when": f"{when}-01-01T00:00:00.000+00:00",
        }
        append_events(own, [event])
    assert run("publish", "-q", product).code == 0


@pytest.mark.parametrize("date", ["tomorrow", "2020-01-01", "2999-13-01", "29990101", "", "'; DROP"])
def test_a_date_that_is_none(stores: list[Store], run: InProcess, date: str) -> None:
    ran = run("publish", "--embargo", date, the("hotpix", stores[0]))
    assert ran.code == 2 and "--embargo" in ran.err


# Bad luck


def test_killed_at_any_step_nothing_or_all_is_there(
    stores: list[Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, up = stores
    product = the("hotpix", own)
    key = judge(own, product, "ready")
    monkeypatch.setattr(test_publish, "STEPS", (*test_publish.STEPS, "link", "rename", "mkdir", "rmdir"))
    empty = tmp_path / "empty"
    shutil.copytree(up.root, empty, symlinks=True)
    seen, step = set(), 1
    wish = Wish("calibrations", who="tester")
    while killed_at(step, lambda: publish_all([product], stores, up, wish)):
        left = [handover.is_committed(one) for one in handover.waiting(up)]
        there = (up.root / product.relative_to(own.root)).exists()
        if there:
            assert_whole(up)
        seen.add((there, *left))
        if step % 2:
            list(clean(handover.waiting(up)))
            assert published(up).exists() if True in left or there else not list(up.root.glob("*/*/*.fits"))
            assert not handover.waiting(up)
        publish_all([product], stores, up, wish)
        assert_whole(up)
        assert open_product(published(up)).key == key and open_product(the("bias", up)).kind == "bias"
        assert published(up).read_bytes() == product.read_bytes()
        for store in stores:
            assert sum(one["event"] == "publish" for one in read_events(store)) >= 1
        assert sum(one["event"] == "publish" for one in read_events(up)) == 1
        assert handover.waiting(up) == [] and not list(up.root.rglob(".*.new"))
        assert check(up) == [], step
        shutil.rmtree(up.root)
        shutil.copytree(empty, up.root, symlinks=True)
        step += 7
    assert {(False,), (False, False), (False, True), (True, True)} <= seen
    assert step > 100


@pytest.mark.parametrize("at", [1, 3, 6])
def test_a_full_disk_leaves_nothing(
    stores: list[Store], run: InProcess, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    own, up = stores
    product = the("hotpix", own)
    judge(own, product, "ready")
    real, calls = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        ran = run("publish", "--files", "calibrations", product)
    assert ran.code == 7 and "No space left" in ran.err and str(up.root) in ran.err
    assert files_of(up) == [] and not read_events(up) and handover.waiting(up) == []
    assert run("publish", "-q", product).code == 0


def test_what_does_not_fit_is_said_beforehand(
    stores: list[Store], run: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, up = stores
    judge(own, the("hotpix", own), "ready")
    stat = os.statvfs(up.root)

    class Full:
        f_bavail, f_frsize, f_flag = 1, 512, stat.f_flag

    monkeypatch.setattr(os, "statvfs", lambda _: Full)
    ran = run("publish", the("hotpix", own))
    assert ran.code == 7 and "512 are free" in ran.err and files_of(up) == []


def test_a_file_that_changed_is_not_published(stores: list[Store]) -> None:
    own, up = stores
    product = the("hotpix", own)
    judge(own, product, "ready")
    stat = product.stat()
    with product.open("r+b") as stream:
        stream.seek(3000)
        stream.write(b"edit")
    os.utime(product, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(Integrity, match="nothing was published"):
        publish_all([product], stores, up, Wish())
    assert files_of(up) == []


def test_a_store_that_cannot_be_written_is_named(stores: list[Store], monkeypatch: Any) -> None:
    own, up = stores
    product = the("hotpix", own)
    judge(own, product, "ready")

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(Unavailable, match=r"up: this user cannot write it: .*Read-only"):
        publish_all([product], stores, up, Wish())


def _in_processes(work: Callable[[], object], count: int) -> list[int | None]:
    context = multiprocessing.get_context("fork")
    found = [context.Process(target=work) for _ in range(count)]
    for one in found:
        one.start()
    for one in found:
        one.join()
    return [one.exitcode for one in found]


def test_many_publishers_at_once_publish_once(stores: list[Store]) -> None:
    own, up = stores
    product = the("hotpix", own)
    judge(own, product, "ready")
    codes = _in_processes(lambda: publish_all([product], stores, up, Wish("calibrations")), 6)
    assert codes == [0] * 6
    assert sum(one["event"] == "publish" for one in read_events(up)) == 1
    assert check(up) == []
    assert_whole(up)


def test_a_reader_sees_the_product_only_with_its_lineage(stores: list[Store]) -> None:
    own, up = stores
    product = the("hotpix", own)
    judge(own, product, "ready")
    target = up.root / product.relative_to(own.root)
    context = multiprocessing.get_context("fork")
    writer = context.Process(target=lambda: publish_all([product], stores, up, Wish("calibrations")))
    writer.start()
    looks = 0
    while writer.is_alive() or not looks:
        if target.exists():
            assert_whole(up)
            looks += 1
    writer.join()
    assert writer.exitcode == 0 and looks


STEP = {"what": "product", "target": "a.fits", "record_target": "a.fits.json", "copied": True, "stage": 1}
DAMAGED = {
    "cut": "{",
    "no object": "[]",
    "deep": "[" * 100_000,
    "empty": "{}",
    "outside": {"steps": [{**STEP, "target": "../a.fits"}], "events": [], "others": {}},
    "unknown": {"steps": [{**STEP, "what": "planet"}], "events": [], "others": {}},
    "bad event": {"steps": [], "events": [{"event": "verdict"}], "others": {}},
    "bad word": {"steps": [], "events": [], "others": {"/": [{"event": "publish", "identity": 1}]}},
    "no file": {"steps": [STEP], "events": [], "others": {}},
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_handover_is_named_and_can_be_set_aside(
    stores: list[Store], run: InProcess, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    own, up = stores
    product = the("hotpix", own)
    judge(own, product, "ready")
    broken = up.awe / "publish" / "0123456789abcdef"
    broken.mkdir(parents=True)
    manifest = DAMAGED[what]
    (broken / "manifest.json").write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))
    shutil.copy2(sidecar(product), broken / "0.json")
    ran: Ran = run("publish", product)
    assert ran.code == 4 and str(broken) in ran.err and f"awe-verify --clean {up.root}" in ran.err
    assert not up.journal_path.exists() and files_of(up)[0].startswith(".awe/publish")
    monkeypatch.setenv("AWE_PATH", str(up.root))
    assert f"set aside, being damaged: {broken}.damaged" in run("verify", "--clean").err
    monkeypatch.setenv("AWE_PATH", f"{own.root}:{up.root}")
    assert run("publish", "-q", product).code == 0
    assert_whole(up)


def after_commit(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> None:
    """Do something right after a handover was committed, once."""
    rename = Path.rename

    def renamed(self: Path, target: Path) -> Path:
        found = rename(self, target)
        if self.parent.name == "publish" and self.name.endswith(".part"):
            work()
        return found

    monkeypatch.setattr(Path, "rename", renamed)


@pytest.mark.parametrize("which", ["product", "frame"])
def test_what_comes_to_a_name_after_the_commit_is_not_replaced(
    stores: list[Store], run: InProcess, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    own, up = stores
    product = the("hotpix", own)
    judge(own, product, "ready")
    listed = [json.loads(line) for line in run("publish", "-n", "--json", "--files", "all", product).lines]
    target = Path(next(one["path"] for one in listed if one["what"] == which))

    def come() -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"precious")

    with monkeypatch.context() as patch:
        after_commit(patch, come)
        ran = run("publish", "--files", "all", product)
    assert ran.code == 2 and f"{target}: is in the way" in ran.err and f"mv {target} ELSEWHERE" in ran.err
    # Nor does anyone later.
    assert run("publish", product).code == 2 and target.read_bytes() == b"precious"
    target.unlink()
    ran = run("publish", "--files", "all", product)
    assert ran.code == 0 and "an interrupted publication left" in ran.err and "already" in ran.err
    assert_whole(up)
    assert target.read_bytes() != b"precious" and check(up) == []


def test_a_lower_journal_that_cannot_be_written_is_named_and_told_later(
    stores: list[Store], run: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, up = stores
    product = the("hotpix", own)
    key = judge(own, product, "ready")
    real = os.open

    def closed(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if path == own.journal_path and flags & (os.O_WRONLY | os.O_RDWR):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, flags, *more, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", closed)
        for _ in range(2):
            ran = run("publish", product)
            assert ran.code == 0 and f"{own.journal_path}: this user cannot write it" in ran.err
    assert not [one for one in read_events(own) if one["event"] == "publish"]
    for _ in range(2):
        assert "cannot write" not in run("publish", product).err
        (event,) = [one for one in read_events(own) if one["event"] == "publish"]
        assert (event["identity"], event["to"]) == (key, str(up.root))
    assert run("judge", "-q", "--undo", "--reason", "no", product).code == 0
    monkeypatch.setenv("AWE_PATH", str(own.root))
    assert "was published" in run("rm", product).err


def test_room_is_held_for_what_comes_after_the_commit(
    stores: list[Store], run: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, up = stores
    judge(own, the("hotpix", own), "ready")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        ran = run("publish", the("hotpix", own))
    assert ran.code == 7 and "nothing was published" in ran.err
    assert files_of(up) == [] and handover.waiting(up) == [] and not up.journal_path.exists()


def test_what_was_begun_and_is_not_finished_says_so(
    stores: list[Store], run: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, up = stores
    judge(own, the("hotpix", own), "ready")

    def fail(*_: object) -> None:
        raise Unavailable("the index: disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(handover, "put_records", fail)
        ran = run("publish", the("hotpix", own))
    assert ran.code == 7 and "is full: a publication to" in ran.err and "is not finished" in ran.err
    assert f"awe-verify --clean {up.root}" in ran.err
    assert len(list(clean(handover.waiting(up)))) == 1
    assert_whole(up)


def test_a_dry_run_says_what_would_keep_it_from_its_place(
    stores: list[Store], run: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, up = stores
    judge(own, the("hotpix", own), "ready")
    monkeypatch.setattr("awetools.core.sharing.publication.may_write", lambda path: path != up.root)
    ran = run("publish", "-n", the("hotpix", own))
    assert ran.code == 7 and f"{up.root}: this user cannot write it" in ran.err
    assert ran.err.count("nothing was published") == 1


def test_an_embargo_lies_where_the_product_lies(
    stores: list[Store], run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _made: Path
) -> None:
    own, up = stores
    private = init_store(tmp_path / "private")
    bias, frame = the("bias", own), _made / "raw" / "bias2.fits"
    judge(own, the("hotpix", own), "ready")
    monkeypatch.setenv("AWE_PATH", f"{private.root}:{own.root}")
    assert run("publish", "-q", "--hold", "--embargo", LATER, bias, frame).code == 0
    assert len(embargoes([own])) == 2 and not embargoes([private])
    # So that whoever publishes from there is held.
    monkeypatch.setenv("AWE_PATH", f"{own.root}:{up.root}")
    assert run("publish", the("hotpix", own)).err.count("withheld") == 2
    event = {
        "event": "embargo",
        "identity": the_key(bias),
        "until": LATER,
        "when": "2030-01-01T00:00:00.000+00:00",
    }
    append_events(up, [event])
    assert run("publish", "-q", "--hold", "--embargo", "none", bias, frame).code == 0
    assert not embargoes([own, up])
    said = read_events(own)
    assert "under no embargo" in run("publish", "--hold", "--embargo", "none", bias).err
    assert read_events(own) == said


def the_key(path: Path) -> str:
    return str(read_record(sidecar(path))["recipe_key"])


def test_a_word_on_what_was_published_goes_to_the_store_of_the_file(
    stores: list[Store], run: InProcess
) -> None:
    own, up = stores
    product = the("hotpix", own)
    key = judge(own, product, "ready")
    assert run("publish", "-q", product).code == 0
    assert run("judge", "-q", "--undo", "--reason", "no", product).code == 0
    assert run("judge", "-q", "bad", "--reason", "no", product).code == 0
    assert verdicts(own) == {key: "bad"} and verdicts(up) == {key: "ready"}


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_store_of_a_group_stays_one(stores: list[Store], run: InProcess, umask: int) -> None:
    own, up = stores
    judge(own, the("hotpix", own), "ready")
    for path in (up.root, *(one for one in up.root.rglob("*") if one.is_dir())):
        path.chmod(0o770)
    before = os.umask(umask)
    try:
        assert run("publish", "-q", "--files", "all", the("hotpix", own)).code == 0
    finally:
        os.umask(before)
    shared = [one for one in up.root.rglob("*") if one.is_dir()]
    assert [one for one in shared if one.stat().st_mode & 0o070 != 0o070] == []
    for name in ("journal.jsonl", "sequence", "publish.lock"):
        assert (up.awe / name).stat().st_mode & 0o067 == 0o060 | (0o004 & ~umask)


def test_in_a_directory_of_everyone_each_has_things_of_his_own(tmp_path: Path) -> None:
    for mode, found in ((0o1777, 0o755), (0o755, 0o755), (0o777, 0o777), (0o775, 0o775)):
        folder = tmp_path / f"{mode:o}"
        folder.mkdir()
        folder.chmod(mode)
        before = os.umask(0o022)
        try:
            make_directory(folder / "a" / "b")
            os.close(open_shared(folder / "file", os.O_RDWR))
        finally:
            os.umask(before)
        assert {(folder / name).stat().st_mode & 0o7777 for name in ("a", "a/b")} == {found}
        assert (folder / "file").stat().st_mode & 0o7777 == found & 0o666
