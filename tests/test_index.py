"""The index: nothing is lost and nothing fails, whoever writes, deletes, kills or corrupts."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from awetools.core.errors import IndexBusy, NoRecord, Unavailable
from awetools.core.indexing import catchup, indexrows, indexsync, remake
from awetools.core.indexing import index as index_module
from awetools.core.indexing.index import (
    Index,
    absolute,
    changes_of,
    forget,
    highest_sequence,
    in_current,
    open_index,
    product_row,
    put_records,
    raw_rows,
    rebuild,
    relative,
    update,
)
from awetools.core.indexing.indexfile import SCHEMA_VERSION
from awetools.core.indexing.indexsync import check, merge, summary
from awetools.core.indexing.reach import Reached, ancestors_of, descendants_of
from awetools.core.journal import append_verdict
from awetools.core.meta import FIELDS
from awetools.core.record import canonical, sidecar, to_bytes
from awetools.core.store import Store, init_store, write_raw_record
from tests.support import ROOT, InProcess

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store; the working directory."""
    made = init_store(tmp_path / "store")
    monkeypatch.chdir(made.root)
    return made


def sha(text: object) -> str:
    return hashlib.sha256(str(text).encode(errors="surrogateescape")).hexdigest()


def product_record(name: str, **meta: object) -> dict[str, Any]:
    """A record of a product that nothing but the index looks at."""
    return {
        "record": {"schema": 1, "type": "product"},
        "recipe": {
            "kind": "bias",
            "revision": 1,
            "parameters": {"clip_sigma": {"value": 3.0, "origin": "built-in"}},
            "inputs": [
                {"role": "raw", "kind": "raw_bias", "path": f"raw/{n}.fits", "content": sha(n), "meta": {}}
                for n in range(3)
            ],
        },
        "recipe_key": sha(f"key {name}"),
        "product": {
            "file": name,
            "bytes": 2880,
            "mtime_ns": 5,
            "file_sha256": sha(name),
            "content": sha(name),
        },
        "meta": {"instrument": "testcam", "detector": "chip1", "night": "2024-03-02", **meta},
        "validity": None,
        "quality": {"measures": {"level_adu": 1.5}, "limits": [], "flags": 0, "flag_names": []},
        "software": {},
        "run": {"sequence": 7, "end": "2024-03-03T10:00:00"},
    }


def write_product(store: Store, name: str, put: bool = True, **meta: object) -> Path:
    """The record of a product on disk and, as a maker does, in the index."""
    path = store.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    record = product_record(name, **meta)
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(to_bytes(record))
    new.replace(sidecar(path))
    if put:
        put_records(store, [product_row(store, path, record)])
    return path


def raw_record(path: str, detectors: Sequence[str] = ("chip1",)) -> dict[str, Any]:
    return {
        "record": {"schema": 1, "type": "raw"},
        "file": {"path": path, "bytes": 2880, "mtime_ns": 5, "inode": 6},
        "camera": "generic",
        "overrides": {},
        "registered": "2024-03-03T10:00:00",
        "problems": [],
        "detectors": [
            {
                "detector": one,
                "hdus": [n],
                "content": sha(f"{path} {one}"),
                "meta": {"frame_type": "raw_bias", "detector": one, "night": "2024-03-02"},
            }
            for n, one in enumerate(detectors)
        ],
    }


def addresses(store: Store) -> list[str]:
    with open_index(store) as index:
        return sorted(row["address"] for row in index.rows())


def started(task: Callable[..., None], *arguments: object) -> BaseProcess:
    process = FORK.Process(target=task, args=arguments)
    process.start()
    return process


def write_many(store: Store, writer: int, count: int) -> None:
    for number in range(count):
        write_product(store, f"bias/w{writer}/b{number}.fits")


def write_until(store: Store, writer: int, enough: Any) -> None:
    number = 0
    while not enough.is_set() or number < 10:
        write_product(store, f"bias/w{writer}/b{number}.fits")
        number += 1


def databases(store: Store) -> list[Path]:
    return [path for path in store.awe.iterdir() if "index" in path.name and path.suffix != ".lock"]


# Many at once


def test_64_writers_lose_nothing_and_see_no_error(store: Store) -> None:
    writers = [started(write_many, store, number, 20) for number in range(64)]
    for one in writers:
        one.join()
    assert [one.exitcode for one in writers] == [0] * 64
    assert len(addresses(store)) == 64 * 20
    assert check(store) == []


def test_a_reader_never_waits_for_writers(store: Store) -> None:
    """64 writers for three seconds; half a second is the longest that a look at the index may take."""
    enough = FORK.Event()
    waits = FORK.Queue()

    def look() -> None:
        longest = 0.0
        while not enough.is_set():
            start, no_core = time.monotonic(), without_a_core_s()
            addresses(store)
            longest = max(longest, time.monotonic() - start - (without_a_core_s() - no_core))
        waits.put(longest)

    open_index(store).close()
    writers = [started(write_until, store, number, enough) for number in range(64)]
    reader = started(look)
    time.sleep(3)
    enough.set()
    assert waits.get(timeout=60) < 0.5
    for process in (*writers, reader):
        process.join()
    assert [process.exitcode for process in (*writers, reader)] == [0] * 65
    assert len(addresses(store)) == sum(1 for _ in store.root.rglob("b*.fits.json"))


def without_a_core_s() -> float:
    """How long this process could have run, but others did."""
    try:
        return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


@pytest.mark.parametrize("what", ["index.sqlite", "index*"])
def test_an_index_deleted_while_programs_write_loses_nothing(store: Store, what: str) -> None:
    writers = [started(write_many, store, number, 40) for number in range(6)]
    deletions = 0
    while any(one.is_alive() for one in writers):
        for path in sorted(store.awe.glob(what), key=lambda one: one.name != "index.sqlite"):
            if path.suffix != ".lock":
                path.unlink(missing_ok=True)
        deletions += 1
        time.sleep(random.uniform(0.05, 0.2))
    assert [one.exitcode for one in writers] == [0] * 6
    assert deletions > 1
    assert len(addresses(store)) == 6 * 40
    assert check(store) == []


def test_a_rebuild_while_programs_write_loses_nothing(store: Store) -> None:
    enough = FORK.Event()
    writers = [started(write_until, store, number, enough) for number in range(6)]
    for _ in range(5):
        rebuild(store)
    enough.set()
    for one in writers:
        one.join()
    assert [one.exitcode for one in writers] == [0] * 6
    assert len(addresses(store)) == sum(1 for _ in store.root.rglob("b*.fits.json")) >= 6 * 10
    assert check(store) == []
    # Only the present one is left, with no log of another.
    assert {path.name.split(".sqlite")[0] for path in databases(store)} == {
        "index",
        store.index_path.resolve().stem,
    }


def test_updates_while_programs_replace_their_records_leave_the_newest(store: Store) -> None:
    def replace_often() -> None:
        for number in range(150):
            write_product(store, "bias.fits", object=f"version {number}")

    writer = started(replace_often)
    while writer.is_alive():
        update(store)
    assert writer.exitcode == 0
    assert check(store) == []
    with open_index(store) as index:
        assert [row["object"] for row in index.rows()] == ["version 149"]


def test_what_is_put_while_an_index_is_made_anew_is_taken_over(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("replaced.fits", "deleted.fits"):
        write_product(store, name)
    fill = remake.fill_database

    def fill_and_write(*arguments: Any) -> None:
        fill(*arguments)
        write_product(store, "replaced.fits", object="new")
        write_product(store, "added.fits")
        sidecar(store.root / "deleted.fits").unlink()
        forget(store, ["deleted.fits"])

    monkeypatch.setattr(remake, "fill_database", fill_and_write)
    assert rebuild(store) == 2
    with open_index(store) as index:
        found = {row["address"]: row["object"] for row in index.rows()}
    assert found == {"replaced.fits": "new", "added.fits": None}


def test_a_record_replaced_while_it_is_read_is_read_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = indexrows.read_record_once
    reads: list[str] = []

    def read_and_replace(path: str) -> dict[str, Any]:
        record = read(path)
        reads.append(path)
        if len(reads) == 1:
            write_product(store, "one.fits", put=False, object="new")
        return record

    write_product(store, "one.fits", object="old")
    monkeypatch.setattr(indexrows, "read_record_once", read_and_replace)
    rebuild(store)
    assert len(reads) == 2
    with open_index(store) as index:
        assert [row["object"] for row in index.rows()] == ["new"]


def test_an_update_does_not_undo_what_a_maker_put_meanwhile(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_of = catchup.rows_of

    def read_and_replace(*arguments: Any) -> Any:
        rows = rows_of(*arguments)
        write_product(store, "one.fits", object="newest")
        return rows

    write_product(store, "one.fits", object="old")
    write_product(store, "one.fits", put=False, object="new")
    monkeypatch.setattr(catchup, "rows_of", read_and_replace)
    assert update(store) == ([], [])
    with open_index(store) as index:
        assert [row["object"] for row in index.rows()] == ["newest"]


def test_what_was_done_to_a_replaced_index_is_done_again(store: Store) -> None:
    path = write_product(store, "one.fits")
    done = []

    def work(index: Index) -> str:
        index.put([product_row(store, path, product_record("one.fits", object=f"row {len(done)}"))])
        done.append(index.generation)
        if len(done) == 1:
            rebuild(store)
        return f"at try {len(done)}"

    assert in_current(store, work) == "at try 2"
    assert done[0] != done[1]
    with open_index(store) as index:
        assert [row["object"] for row in index.rows()] == ["row 1"]


def test_a_killed_writer_leaves_a_good_index(store: Store) -> None:
    random.seed(3)
    for number in range(12):
        writer = started(write_many, store, number, 1000)
        time.sleep(random.uniform(0.005, 0.06))
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        update(store)
        assert check(store) == []
    assert addresses(store)


def test_a_killed_rebuild_leaves_the_index_that_was(store: Store) -> None:
    write_many(store, 0, 40)
    before = addresses(store)
    for delay_ms in range(0, 30, 3):
        process = started(rebuild, store)
        time.sleep(delay_ms / 1000)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert addresses(store) == before
    rebuild(store)
    assert len({path.name.split(".sqlite")[0] for path in databases(store)}) == 2, (
        "something half-made was left"
    )


def test_readers_see_a_whole_index_while_it_is_replaced(store: Store) -> None:
    write_many(store, 0, 40)

    def read() -> None:
        for _ in range(150):
            assert len(addresses(store)) == 40

    readers = [started(read) for _ in range(3)]
    while any(one.is_alive() for one in readers):
        rebuild(store)
    assert [one.exitcode for one in readers] == [0] * 3


def test_a_locked_index_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_product(store, "one.fits")
    monkeypatch.setattr(index_module, "TIMEOUT_S", 0.1)
    blocker = sqlite3.connect(store.index_path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(IndexBusy, match=r"index\.sqlite"):
        put_records(store, [product_row(store, path, product_record("one.fits"))])
    assert addresses(store) == ["one.fits"], "readers do not wait"
    blocker.close()


# Damage and versions


def damaged(path: Path, how: str) -> None:
    size = path.stat().st_size
    with path.open("r+b") as stream:
        if how == "header":
            stream.write(b"not a database")
        elif how == "pages":
            stream.seek(4096)
            stream.write(b"\xa5" * (size - 4096))
        else:
            stream.truncate(size // 2 + 100)


@pytest.mark.parametrize("how", ["header", "pages", "truncated"])
def test_a_damaged_index_is_named_and_rebuilt(store: Store, run: InProcess, how: str) -> None:
    write_many(store, 0, 30)
    damaged(store.index_path.resolve(), how)
    ran = run("index")
    assert ran.code == 7
    assert "index.sqlite" in ran.err and "try: awe-index --rebuild" in ran.err
    with pytest.raises(Unavailable):
        addresses(store)
    ran = run("query", "bias", "--get", "path,exptime_s")
    assert ran.code == 7 and "try: awe-index --rebuild" in ran.err
    assert run("index", "--rebuild").code == 0
    assert len(addresses(store)) == 30 and check(store) == []


def test_an_empty_file_is_made_anew(store: Store) -> None:
    write_product(store, "one.fits")
    store.index_path.resolve().write_bytes(b"")
    assert addresses(store) == ["one.fits"]


def test_an_index_that_was_copied_as_a_plain_file_works(store: Store) -> None:
    write_product(store, "one.fits")
    data = store.index_path.resolve().read_bytes()
    for path in databases(store):
        path.unlink()
    store.index_path.write_bytes(data)
    write_product(store, "two.fits")
    assert addresses(store) == ["one.fits", "two.fits"]
    assert rebuild(store) == 2
    assert store.index_path.is_symlink() and check(store) == []


def set_version(store: Store, version: int) -> None:
    connection = sqlite3.connect(store.index_path)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.execute("DROP TABLE state")
    connection.commit()
    connection.close()


def test_an_older_version_is_rebuilt(store: Store) -> None:
    write_product(store, "one.fits")
    set_version(store, SCHEMA_VERSION - 1)
    assert addresses(store) == ["one.fits"]
    assert summary(store).version == SCHEMA_VERSION


def test_an_index_of_version_6_is_made_anew_without_a_word(store: Store, run: InProcess) -> None:
    write_product(store, "one.fits")
    (store.root / "one.fits").touch()
    rebuilt = store.index_path.resolve()
    rebuilt.unlink()
    connection = sqlite3.connect(rebuilt)
    connection.executescript(
        """
        CREATE TABLE objects (number INTEGER PRIMARY KEY, address TEXT UNIQUE, kind TEXT, meta TEXT);
        CREATE TABLE links (child TEXT, role TEXT, address TEXT, content TEXT, recipe_key TEXT);
        INSERT INTO objects VALUES (1, 'gone.fits', 'bias', '{}');
        INSERT INTO links VALUES ('gone.fits', 'raw', 'raw.fits', 'x', NULL);
        PRAGMA user_version = 6;
        """
    )
    connection.close()
    ran = run("query", "bias")
    assert (ran.code, ran.err, ran.lines) == (0, "", [str(store.root / "one.fits")])
    with open_index(store) as index:
        assert len(index.inputs_of(["one.fits"])) == 3
    assert not rebuilt.exists() and check(store) == []


def test_a_newer_version_is_refused_and_can_be_rebuilt(store: Store, run: InProcess) -> None:
    write_product(store, "one.fits")
    set_version(store, SCHEMA_VERSION + 1)
    ran = run("index")
    assert ran.code == 7 and f"version {SCHEMA_VERSION + 1}" in ran.err and "--rebuild" in ran.err
    assert run("index", "--rebuild").code == 0
    assert addresses(store) == ["one.fits"]


# Stores of others


def as_nobody(task: Callable[[], object]) -> None:
    """Do something as a user who owns nothing; what it asserts must hold."""

    def drop_and_do() -> None:
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        task()

    process = started(drop_and_do)
    process.join()
    assert process.exitcode == 0


@pytest.fixture
def closed_store(store: Store, tmp_path: Path) -> Any:
    """A store that nobody may write, with two products."""
    write_product(store, "one.fits")
    write_product(store, "two.fits")
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_mode & 0o005 != 0o005:
            path.chmod(0o755)
    for path in (store.awe, store.root):
        path.chmod(0o555)
    yield store
    for path in (store.awe, store.root):
        path.chmod(0o755)


def test_a_store_that_cannot_be_written_is_read(closed_store: Store) -> None:
    def read() -> None:
        assert addresses(closed_store) == ["one.fits", "two.fits"]
        assert check(closed_store, quick=True) == []
        with pytest.raises(Unavailable, match="cannot write"):
            forget(closed_store, ["one.fits"])

    as_nobody(read)
    # Also while its owner has it open, with rows that are only in the log.
    with open_index(closed_store) as index:
        index.put([product_row(closed_store, closed_store.root / "three.fits", product_record("three.fits"))])
        as_nobody(lambda: [addresses(closed_store).index("three.fits")])


@pytest.mark.parametrize("how", ["gone", "old"])
def test_a_closed_store_without_a_good_index_is_read_from_its_records(closed_store: Store, how: str) -> None:
    append_verdict(closed_store, product_record("one.fits")["recipe_key"], "bad", "stripes", "me")
    if how == "old":
        closed_store.awe.chmod(0o755)
        set_version(closed_store, SCHEMA_VERSION - 1)
        closed_store.awe.chmod(0o555)
    else:
        closed_store.awe.chmod(0o755)
        for path in databases(closed_store):
            path.unlink()
        closed_store.awe.chmod(0o555)

    def read() -> None:
        with open_index(closed_store) as index:
            assert {row["address"]: row["verdict"] for row in index.rows()} == {
                "one.fits": "bad",
                "two.fits": None,
            }

    as_nobody(read)


# Records and rows


def test_rows_say_what_the_record_says(store: Store) -> None:
    path = write_product(store, "bias/one.fits", exptime_s=0, filter="R")
    with open_index(store) as index:
        (row,) = index.rows("kind = ? AND night = ?", ("bias", "2024-03-02"))
        links = index.inputs_of([row["address"]])
    record = product_record("bias/one.fits")
    assert absolute(store, row["address"]) == str(path)
    assert (row["content"], row["recipe_key"]) == (record["product"]["content"], record["recipe_key"])
    assert (row["exptime_s"], row["filter"], row["sequence"]) == (0.0, "R", 7)
    assert [one["content"] for one in links] == [sha(n) for n in range(3)]
    assert highest_sequence(store) == 7


def test_the_meta_of_a_row_is_that_of_the_record(store: Store) -> None:
    odd: list[dict[str, Any]] = [
        {"exposure": "e1", "object": "caf\xe9", "airmass": 1, "ra_deg": -0.0, "temperature_c": -110.5},
        {"exposure": "7", "object": "\ud83d", "airmass": 1.0, "dec_deg": 1e-300, "temperature_c": None},
        {"object": os.fsdecode(b"caf\xe9"), "saturation_adu": [65000.0, 1], "gain_e_adu": [1, None], "nx": 3},
        {"wcs": {"CRPIX1": 1, "CD1_1": -1e-5}, "of_others": [1, {"two": "\u2028"}], "exptime_s": 2},
    ]
    for number, meta in enumerate(odd):
        write_product(store, f"{number}.fits", **meta)
    with open_index(store) as index:
        found = [json.loads(row["meta"]) for row in index.rows("1", (), "ORDER BY address")]
    for number, meta in enumerate(found):
        given = product_record("x", **odd[number])["meta"]
        assert canonical({name: meta[name] for name in given}) == canonical(given), "1 is not 1.0"
        assert all(meta[name] is None for name in meta.keys() - given.keys())
        assert meta.keys() >= {field.name for field in FIELDS}
    assert check(store) == []


@pytest.mark.parametrize("table", ["objects", "other"])
def test_every_field_can_be_asked_of_the_index(store: Store, table: str) -> None:
    meta = {field.name: {"text": field.name, "real": 1.5, "integer": 3}.get(field.type) for field in FIELDS}
    lists = {field.name: [{"of": field.name}] for field in FIELDS if field.type == "json"}
    night = {"night": "2024-03-02", "obs_start": "2024-03-03T01:00:00.000"}
    record = product_record("one.fits", **{**meta, **lists, **night})
    put_records(store, [product_row(store, store.root / "one.fits", record)])
    with open_index(store) as index:
        others = {"level_adu": 1.5, "path": str(store.root / "one.fits")}
        for name, value in {**meta, **lists, **night, **others}.items():
            sql, _ = index.column(name, ["level_adu"], table)
            ((found,),) = index.select(f"SELECT {sql} FROM objects AS {table}")
            assert (json.loads(found) if name in lists else found) == value


@pytest.mark.parametrize(
    ("condition", "index_name"),
    [
        ("night = '2024-03-02'", "objects_night"),
        ("night > '2024-03-02' AND night < '2024-03-09'", "objects_night"),
        ("night = '2024-03-02' AND detector = 'a' AND filter = 'R'", "objects_night"),
        ("detector = 'a' AND filter = 'R'", "objects_detector"),
        ("detector = 'a' AND filter = 'R' AND night > '2024-03-02'", "objects_detector"),
        ("dec_deg BETWEEN 2 AND 3", "objects_dec_deg"),
        ("recipe_key = 'x'", "objects_recipe_key"),
        ("instrument = 'i' AND detector = 'a'", "objects_"),
    ],
)
def test_a_question_of_a_kind_is_answered_by_the_index_that_leaves_least(
    store: Store, condition: str, index_name: str
) -> None:
    with open_index(store) as index:
        sql = f"EXPLAIN QUERY PLAN SELECT measures FROM objects WHERE kind = 'reduced' AND {condition}"
        plan = " ".join(str(row[3]) for row in index.select(sql))
    assert f"INDEX {index_name}" in plan, plan


# Links


def linked(name: str, key: str, inputs: Sequence[str], kind: str = "bias", **meta: object) -> dict[str, Any]:
    """A record with a key and inputs; those that begin with `raw` are raw frames."""
    record = product_record(name, **meta)
    record["recipe_key"], record["recipe"]["kind"] = sha(key), kind
    record["recipe"]["inputs"] = [
        {"role": "raw", "content": sha(one), "recipe_key": None, "meta": {}}
        if one.startswith("raw")
        else {"role": "before", "content": sha(f"pixels {one}"), "recipe_key": sha(one), "meta": {}}
        for one in inputs
    ]
    return record


def put_linked(store: Store, graph: Mapping[str, Sequence[str]]) -> None:
    rows = [
        product_row(store, store.root / f"{key}.fits", linked(f"{key}.fits", key.split("@")[0], inputs))
        for key, inputs in graph.items()
    ]
    put_records(store, rows)


def test_inputs_and_users_are_asked_for_many_at_a_time(store: Store) -> None:
    put_linked(store, {"a": ["raw1", "raw2"], "b": ["a", "raw1", "raw1"], "c": ["a", "b"]})
    with open_index(store) as index:
        inputs = index.inputs_of(["b.fits", "nowhere.fits", "a.fits"])
        assert {(one["child"], one["role"], one["recipe_key"], one["content"]) for one in inputs} == {
            ("a.fits", "raw", None, sha("raw1")),
            ("a.fits", "raw", None, sha("raw2")),
            ("b.fits", "raw", None, sha("raw1")),
            ("b.fits", "before", sha("a"), sha("pixels a")),
        }
        users = index.users_of([sha("a"), sha("raw1"), sha("nobody"), "'; DROP TABLE links"])
        assert {(one["identity"], one["content"], one["role"], one["address"]) for one in users} == {
            (sha("a"), sha("pixels a"), "before", "b.fits"),
            (sha("a"), sha("pixels a"), "before", "c.fits"),
            (sha("raw1"), sha("raw1"), "raw", "a.fits"),
            (sha("raw1"), sha("raw1"), "raw", "b.fits"),
        }
        assert len(index.inputs_of([f"{number}.fits" for number in range(2000)] + ["c.fits"])) == 2
    # An input of thousands stands once, and links go with their product.
    put_linked(store, {"c": ["raw1"]})
    forget(store, ["b.fits"])
    with open_index(store) as index:
        assert [one["address"] for one in index.users_of([sha("a")])] == []
        assert {one["address"] for one in index.users_of([sha("raw1")])} == {"a.fits", "c.fits"}
        assert next(index.select("SELECT count(*) FROM links")) == (3,)
        assert next(index.select("SELECT count(*) FROM inputs WHERE content = ?", [sha("raw1")])) == (1,)


def names(found: Sequence[Reached]) -> list[tuple[str, int]]:
    return sorted((one.address.removesuffix(".fits"), one.steps) for one in found)


def test_lineage_is_followed_by_the_shortest_way(store: Store) -> None:
    put_linked(store, {"a": ["raw1"], "b": ["a"], "c": ["b", "a", "lost"], "d": ["c"], "other": ["raw2"]})
    record = raw_record("/data/raw1.fits")
    record["detectors"][0]["content"] = sha("raw1")
    put_records(store, raw_rows(store, record, store.raw_record_path("/data/raw1.fits")))
    with open_index(store) as index:
        found = ancestors_of([index], [sha("d")])
        assert [one.steps for one in found] == [1, 2, 2, 2, 3]
        assert names(found) == [("", 2), ("/data/raw1", 3), ("a", 2), ("b", 2), ("c", 1)]
        assert [one for one in found if one.rank is None] == [Reached(sha("lost"), 2, None, "", "")]
        assert names(descendants_of([index], [sha("raw1")])) == [("a", 1), ("b", 2), ("c", 2), ("d", 3)]
        assert names(descendants_of([index], [sha("raw1")], depth=2)) == [("a", 1), ("b", 2), ("c", 2)]
        assert names(ancestors_of([index], [sha("d")], depth=1)) == [("c", 1)]
        assert (
            descendants_of([index], [sha("d"), sha("nobody")]) == [] == ancestors_of([index], [sha("raw1")])
        )
        assert descendants_of([index], []) == [] == ancestors_of([index], [])


def test_loops_end(store: Store) -> None:
    put_linked(store, {"itself": ["itself"], "a": ["c"], "b": ["a"], "c": ["b"], "d": ["c"]})
    with open_index(store) as index:
        assert names(ancestors_of([index], [sha("a")])) == [("b", 2), ("c", 1)]
        assert names(descendants_of([index], [sha("a")])) == [("b", 1), ("c", 2), ("d", 3)]
        assert ancestors_of([index], [sha("itself")]) == [] == descendants_of([index], [sha("itself")])


def test_copies_at_two_addresses_and_stores_are_both_found(store: Store, tmp_path: Path) -> None:
    other = init_store(tmp_path / "other")
    put_linked(store, {"a": ["raw1"], "a@copy": ["raw1"], "c": ["b"]})
    put_linked(other, {"a": ["raw1"], "b": ["a"]})
    with open_index(store) as near, open_index(other) as far:
        indexes = [near, far]
        found = descendants_of(indexes, [sha("raw1")])
        assert [(one.rank, one.address, one.steps) for one in found] == [
            (0, "a.fits", 1),
            (0, "a@copy.fits", 1),
            (1, "a.fits", 1),
            (1, "b.fits", 2),
            (0, "c.fits", 3),
        ]
        found = ancestors_of(indexes, [sha("c")])
        assert [(one.rank, one.address) for one in found if one.steps == 2] == [
            (0, "a.fits"),
            (0, "a@copy.fits"),
            (1, "a.fits"),
        ]
        assert {(one["child"]) for one in near.inputs_of(["a.fits", "a@copy.fits"])} == {
            "a.fits",
            "a@copy.fits",
        }


def test_a_thousand_steps_and_ten_thousand_users_are_quick(store: Store) -> None:
    """Some 0.1 s of a core each; the bound leaves room for a busy machine."""
    chain = {f"p{number}": [f"p{one}" for one in range(max(0, number - 8), number)] for number in range(1000)}
    put_linked(store, chain)
    put_linked(store, {f"u{number}": ["p999", "p0"] for number in range(10_000)})
    with open_index(store) as index:
        start = time.process_time()
        assert len(ancestors_of([index], [sha("p999")])) == 999
        assert len(descendants_of([index], [sha("p0")])) == 10_999
        assert time.process_time() - start < 1


def test_update_takes_over_what_was_added_changed_and_removed(store: Store) -> None:
    for name in ("same.fits", "changed.fits", "gone.fits"):
        write_product(store, name)
    write_product(store, "changed.fits", put=False, object="new")
    write_product(store, "added.fit", put=False)
    write_product(store, "deep/ADDED.FTS", put=False)
    sidecar(store.root / "gone.fits").unlink()
    write_raw_record(store, raw_record("/data/raw.fits", ("a", "b")))
    put, removed = update(store)
    assert sorted(put) == [
        "/data/raw.fits[a]",
        "/data/raw.fits[b]",
        "added.fit",
        "changed.fits",
        "deep/ADDED.FTS",
    ]
    assert removed == ["gone.fits"]
    assert update(store) == ([], []) and check(store) == []
    assert addresses(store) == sorted([*put, "same.fits"])


def test_update_reads_no_record_that_is_unchanged(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write_many(store, 0, 30)
    write_raw_record(store, raw_record("/data/raw.fits"))
    update(store)
    monkeypatch.setattr(indexrows, "read_record_once", lambda path: pytest.fail(f"{path} was read"))
    monkeypatch.setattr(indexrows, "read_raw", lambda path: pytest.fail(f"{path} was read"))
    assert update(store) == ([], [])
    assert check(store, quick=True) == []


def test_update_is_quick_and_flat_with_many_records(store: Store) -> None:
    """5000 records take some 0.1 s; the bound leaves room for a busy machine."""
    record = product_record("x.fits")
    for number in range(5000):
        folder = store.root / f"n{number % 40}"
        folder.mkdir(exist_ok=True)
        record["product"]["file"] = f"b{number}.fits"
        (folder / f"b{number}.fits.json").write_text(json.dumps(record))
    assert rebuild(store) == 5000
    start = time.process_time()
    assert update(store) == ([], [])
    assert time.process_time() - start < 1


def test_nested_stores_keep_their_products(store: Store) -> None:
    inner = init_store(store.root / "inner")
    write_product(inner, "one.fits")
    write_product(store, "two.fits")
    rebuild(store)
    assert (addresses(store), addresses(inner)) == (["two.fits"], ["one.fits"])


def test_a_record_behind_a_link_is_not_forgotten(store: Store, tmp_path: Path) -> None:
    (tmp_path / "disk2").mkdir()
    (store.root / "big").symlink_to(tmp_path / "disk2")
    write_product(store, "big/one.fits")
    assert update(store) == ([], []) and addresses(store) == ["big/one.fits"]
    # The store reached by another name holds the same addresses.
    (tmp_path / "link").symlink_to(store.root)
    assert relative(store, tmp_path / "link" / "one.fits") == "one.fits"
    sidecar(store.root / "big/one.fits").unlink()
    assert update(store) == ([], ["big/one.fits"])


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"record": {"schema": 1}}',
        json.dumps({**product_record("x"), "quality": {}}),
        json.dumps({**product_record("x"), "meta": {"detector": ["a"]}}),
        json.dumps({**product_record("x"), "meta": {"nx": 1 << 70}}),
        json.dumps({**product_record("x"), "run": 3}),
    ],
)
def test_a_record_that_cannot_be_used_is_named_and_stops_nothing(
    store: Store, run: InProcess, text: str
) -> None:
    write_product(store, "good.fits")
    Path("bad.fits.json").write_text(text)
    (store.awe / "raw" / "ab").mkdir()
    (store.awe / "raw" / "ab" / "cd.json").write_text(text)
    changes = changes_of(store)
    assert changes.put == () and len(changes.unreadable) == 2
    assert rebuild(store) == 1
    ran = run("index", "--update")
    assert ran.code == NoRecord.exit_code and "bad.fits.json" in ran.err and "cd.json" in ran.err
    assert addresses(store) == ["good.fits"]


def test_a_raw_file_that_lost_a_detector_loses_its_row(store: Store) -> None:
    for detectors in (("a", "b", "c"), ("a", "b")):
        record = raw_record("/data/raw.fits", detectors)
        write_raw_record(store, record)
        put_records(store, raw_rows(store, record, store.raw_record_path("/data/raw.fits")))
    assert addresses(store) == ["/data/raw.fits[a]", "/data/raw.fits[b]"]
    assert check(store) == []


def test_file_names_that_are_not_utf8_go_through(store: Store, run: InProcess) -> None:
    name = os.fsdecode(b"caf\xe9.fits")
    write_product(store, name)
    write_raw_record(store, raw_record(f"/data/{name}"))
    update(store)
    assert addresses(store) == sorted([name, f"/data/{name}"])
    with open_index(store) as index:
        assert [row["address"] for row in index.rows("address = ?", [name])] == [name]
        assert len(index.inputs_of([name])) == 3
    assert check(store) == []
    forget(store, [name])
    assert addresses(store) == [f"/data/{name}"]


def test_check_says_what_differs(store: Store, run: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexsync, "SETTLE_S", 0.01)
    for name in ("same.fits", "changed.fits", "gone.fits", "missing.fits"):
        write_product(store, name)
    assert run("index", "--check").code == 0
    write_product(store, "changed.fits", put=False, object="new")
    sidecar(store.root / "gone.fits").unlink()
    forget(store, ["missing.fits"])
    for quick in (False, True):
        problems = sorted(check(store, quick))
        assert [one.split(": ")[0] for one in problems] == ["changed.fits", "gone.fits", "missing.fits"]
    ran = run("index", "--check")
    assert ran.code == 3 and sorted(ran.lines) == problems
    assert run("index", "--update").lines == [
        str(store.root / one) for one in ("changed.fits", "missing.fits")
    ]
    assert run("index", "--check").code == 0


def test_a_verdict_appears_at_once(store: Store) -> None:
    write_product(store, "one.fits")
    identity = product_record("one.fits")["recipe_key"]
    for verdict, shown in (("bad", "bad"), ("good", "good"), ("none", None)):
        append_verdict(store, identity, verdict, "", "me")
        with open_index(store) as index:
            assert [row["verdict"] for row in index.rows()] == [shown]


# Merging


def test_merge_takes_over_frames_and_verdicts(store: Store, tmp_path: Path, run: InProcess) -> None:
    other = init_store(tmp_path / "other")
    for one, path in ((store, "/data/both.fits"), (other, "/data/both.fits"), (other, "/data/new.fits")):
        record = raw_record(path)
        record["overrides"] = {"filter": one.root.name}
        write_raw_record(one, record)
    append_verdict(other, sha("x"), "bad", "stripes", "you")
    (other.awe / "raw" / "00").mkdir()
    (other.awe / "raw" / "00" / "broken.json").write_text("{")
    with pytest.raises(NoRecord, match=r"broken\.json"):
        merge(store, other)
    assert addresses(store) == ["/data/both.fits", "/data/new.fits"]
    kept = json.loads(store.raw_record_path("/data/both.fits").read_text())
    assert kept["overrides"] == {"filter": "store"}
    (other.awe / "raw" / "00" / "broken.json").unlink()
    ran = run("index", "--merge", other.root)
    assert ran.code == 0 and "0 raw records and 0 verdicts" in ran.err, "a second merge brings nothing new"
    with open_index(store) as index:
        assert list(index.select("SELECT identity, verdict FROM verdicts")) == [(sha("x"), "bad")]


def test_an_older_verdict_of_another_store_does_not_win(store: Store, tmp_path: Path) -> None:
    other = init_store(tmp_path / "other")

    def judged(where: Store, verdict: str, when: str, identity: str) -> None:
        event = {"event": "verdict", "identity": identity, "verdict": verdict, "when": when}
        with where.journal_path.open("a") as stream:
            stream.write(json.dumps(event) + "\n")

    judged(store, "good", "2024-05-01T00:00:00+00:00", "older there")
    judged(other, "bad", "2024-01-01T00:00:00+00:00", "older there")
    judged(store, "good", "2024-05-01T00:00:00+00:00", "newer there")
    judged(other, "bad", "2024-06-01T00:00:00+00:00", "newer there")
    assert merge(store, other)[1] == 2
    with open_index(store) as index:
        found = dict(index.select("SELECT identity, verdict FROM verdicts"))
    assert found == {"older there": "good", "newer there": "bad"}
    # What is judged here afterwards counts, whatever the clocks say.
    judged(store, "good", "2023-01-01T00:00:00+00:00", "newer there")
    with open_index(store) as index:
        assert dict(index.select("SELECT identity, verdict FROM verdicts"))["newer there"] == "good"


@pytest.mark.parametrize("where", ["nowhere", "store"])
def test_merge_refuses_what_is_no_other_store(store: Store, run: InProcess, where: str) -> None:
    ran = run("index", "--merge", store.root.parent / where)
    assert ran.code == (4 if where == "nowhere" else 2) and where in ran.err


# The program


def test_the_summary_counts_kinds(store: Store, run: InProcess) -> None:
    write_product(store, "one.fits")
    write_raw_record(store, raw_record("/data/raw.fits", ("a", "b")))
    update(store)
    (line,) = run("index", "--json").lines
    found = json.loads(line)
    assert found["kinds"] == {"bias": 1, "raw_bias": 2}
    assert found["path"] == str(store.index_path) and found["version"] == SCHEMA_VERSION
    assert "raw_bias\t2" in run("index").lines


def test_options_that_exclude_each_other_and_no_store(
    store: Store, run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("index", "--check", "--rebuild").code == 2
    monkeypatch.chdir(tmp_path)
    ran = run("index")
    assert ran.code == 4 and "no-store" in ran.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_follow_prints_what_is_added_until_it_is_stopped(store: Store, number: int, code: int) -> None:
    open_index(store).close()
    process = subprocess.Popen(
        [sys.executable, "-m", "awetools", "index", "--follow", "--interval", "0.05"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=store.root,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )
    assert process.stdout is not None
    try:
        # Found on disk, found on disk, put by a maker, made again by it, and put into an index made anew.
        for name, put in (("one", False), ("two", False), ("three", True), ("three", True), ("four", False)):
            if name == "four":
                for path in databases(store):
                    path.unlink()
            write_product(store, f"{name}.fits", put)
            assert process.stdout.readline().strip() == str(store.root / f"{name}.fits")
        process.send_signal(number)
        _, errors = process.communicate(timeout=10)
    finally:
        process.kill()
    assert process.returncode == code and "Traceback" not in errors
    assert check(store) == []
