"""Verifying: every kind of damage is named, nothing whole is, and --clean ends only what a crash interrupted."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from awetools.core import leftovers, verify
from awetools.core.errors import NoRecord
from awetools.core.indexing import indexsync
from awetools.core.indexing.index import forget, open_index, rebuild
from awetools.core.leftovers import clean
from awetools.core.products import open_product, staged
from awetools.core.record import read_record, sidecar, to_bytes
from awetools.core.store import Store, init_store, target_lock
from awetools.core.tracing.lineage import ancestors
from awetools.core.tracing.lookup import Lookup
from awetools.core.verify import PROBLEMS, Work, look
from tests.support import InProcess, bias_frames

DEAD = 4194305
"""A process id that cannot be: the kernel's are smaller."""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: InProcess) -> Store:
    """A store with four registered biases beside it, a bias and a hotpix; the working directory."""
    monkeypatch.setattr(indexsync, "SETTLE_S", 0.01)
    made = init_store(tmp_path / "store")
    frames = bias_frames(tmp_path / "raw")
    monkeypatch.chdir(made.root)
    assert run("ingest", "-q", *frames).code == 0
    assert run("bias", "-q", "-o", "bias.fits", *frames).code == 0
    assert run("hotpix", "-q", "-o", "deep/hotpix.fits", "bias.fits").code == 0
    return made


def found(run: InProcess, *arguments: object) -> tuple[int, list[tuple[str, str]]]:
    """The exit code, and (file name, problem) of every finding."""
    ran = run("verify", "--json", *arguments)
    lines = [json.loads(line) for line in ran.lines]
    return ran.code, [(Path(one["path"]).name, one["problem"]) for one in lines]


def edit(path: Path, where: int, data: bytes = b"\x01\x02") -> None:
    with path.open("r+b") as stream:
        stream.seek(where)
        stream.write(data)


def edit_record(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    record = json.loads(sidecar(path).read_text())
    change(record)
    sidecar(path).write_bytes(to_bytes(record))


def replaced_half_way(target: Path) -> Path:
    """The state between the two renames: the record is of a file that still has its staged name."""
    new = staged(target, read_record(sidecar(target))["product"]["file_sha256"])
    target.rename(new)
    target.write_bytes(b"the product that was there before")
    return new


# Nothing wrong


@pytest.mark.parametrize("options", [(), ("--quick",), ("-j2",), ("--clean",)])
def test_what_is_whole_has_no_finding(store: Store, run: InProcess, options: tuple[str, ...]) -> None:
    before = sorted((str(path), path.stat().st_mtime_ns) for path in store.root.rglob("*.fits*"))
    assert found(run, *options) == (0, [])
    assert sorted((str(path), path.stat().st_mtime_ns) for path in store.root.rglob("*.fits*")) == before
    assert "2 products, 4 raw files: all as recorded" in run("verify", *options).err


def test_a_touched_or_copied_product_is_whole(store: Store, run: InProcess, tmp_path: Path) -> None:
    os.utime("bias.fits")
    os.utime(tmp_path / "raw" / "bias0.fits")
    shutil.copy("bias.fits", tmp_path)
    shutil.copy("bias.fits.json", tmp_path)
    assert found(run, "--quick") == (0, [])
    assert found(run, tmp_path / "bias.fits") == (0, [])


# Products


def test_an_edited_pixel_is_found_whatever_the_time_says(store: Store, run: InProcess) -> None:
    stat = Path("bias.fits").stat()
    edit(Path("bias.fits"), stat.st_size // 2)
    os.utime("bias.fits", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert found(run) == (8, [("bias.fits", "edited")])
    assert "the pixels differ too" in run("verify").out
    assert found(run, "--quick") == (0, []), "this is what --quick trusts"
    os.utime("bias.fits")
    assert found(run, "--quick") == (8, [("bias.fits", "edited")])


def test_an_edited_header_says_that_the_pixels_are_the_same(store: Store, run: InProcess) -> None:
    data = Path("bias.fits").read_bytes()
    place = data.index(b"OBJECT") if b"OBJECT" in data else data.index(b"INSTRUME")
    edit(Path("bias.fits"), place + 11, b"X")
    ran = run("verify")
    assert ran.code == 8 and "the pixels are the same" in ran.out


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("parameter", lambda r: r["recipe"]["parameters"]["clip_sigma"].update(value=4.0), "key-differs"),
        ("input", lambda r: r["recipe"]["inputs"].pop(), "key-differs"),
        ("meta", lambda r: r["recipe"]["inputs"][0]["meta"].update(detector="x"), "key-differs"),
        ("revision", lambda r: r["recipe"].update(revision=99), "key-differs"),
        ("key", lambda r: r.update(recipe_key="0" * 64), "key-differs"),
        ("content", lambda r: r["product"].update(content="0" * 64), "content-differs"),
        ("sha", lambda r: r["product"].update(file_sha256="0" * 64), "edited"),
        ("block", lambda r: r.pop("quality"), "bad-record"),
        ("form", lambda r: r["product"].update(content="0"), "bad-record"),
        ("parts", lambda r: r["recipe"].update(parameters=[1]), "bad-record"),
        ("inputs", lambda r: r["recipe"].update(inputs=[{"content": "0" * 64}]), "bad-record"),
        ("time", lambda r: r["product"].pop("mtime_ns"), None),
    ],
)
def test_an_edited_record_is_found(
    store: Store, run: InProcess, name: str, change: Callable[[dict[str, Any]], object], expected: str | None
) -> None:
    edit_record(Path("bias.fits"), change)
    code, findings = found(run, "bias.fits")
    if expected is None:
        assert (code, findings) == (0, [])
        return
    assert set(findings) == {("bias.fits", expected)}
    assert code == PROBLEMS[expected][0]


def test_a_consistent_forgery_is_found_by_the_key_in_the_file(store: Store, run: InProcess) -> None:
    def forge(record: dict[str, Any]) -> None:
        record["recipe"]["parameters"]["clip_sigma"]["value"] = 4.0
        record["recipe_key"] = verify.key_of_parts(record)

    edit_record(Path("bias.fits"), forge)
    assert found(run, "bias.fits") == (8, [("bias.fits", "key-differs")])


PLACES = (
    ("recipe_key",),
    ("recipe",),
    ("recipe", "kind"),
    ("recipe", "revision"),
    ("recipe", "parameters"),
    ("recipe", "parameters", "clip_sigma"),
    ("recipe", "parameters", "clip_sigma", "value"),
    ("recipe", "inputs"),
    ("recipe", "inputs", 0),
    ("recipe", "inputs", 1, "role"),
    ("recipe", "inputs", 2, "content"),
    ("recipe", "inputs", 3, "meta"),
    ("recipe", "inputs", 0, "meta", "nx"),
    ("product",),
    ("product", "bytes"),
    ("product", "file_sha256"),
    ("product", "content"),
    ("record", "schema"),
    ("meta",),
    ("quality",),
    ("run",),
)
ANYTHING = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just([]) | st.just({"a": [1]})


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(PLACES), value=ANYTHING)
def test_a_record_changed_anywhere_is_found_and_breaks_nothing(
    store: Store, place: tuple[str | int, ...], value: object
) -> None:
    path = Path("bias.fits")
    whole = sidecar(path).read_bytes()
    record = json.loads(whole)
    inner = record
    for step in place[:-1]:
        inner = inner[step]
    before, inner[place[-1]] = inner[place[-1]], value
    try:
        sidecar(path).write_bytes(to_bytes(record))
        findings = verify.verify_product(path)
        # The blocks that nothing is hashed from must only be objects.
        harmless = before == value or (place[0] in ("meta", "quality", "run") and isinstance(value, dict))
        assert harmless or findings
        assert {one.problem for one in findings} <= {"bad-record", "key-differs", "content-differs", "edited"}
        rebuild(store)
        with Lookup([store]) as lookup:
            for name in ("bias.fits", "deep/hotpix.fits"):
                with suppress(NoRecord):
                    assert list(ancestors(lookup.named(name), lookup))
    finally:
        sidecar(path).write_bytes(whole)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"record": {"schema": 99}}'])
def test_a_malformed_record_is_named_and_stops_nothing(store: Store, run: InProcess, text: str) -> None:
    sidecar(Path("bias.fits")).write_text(text)
    Path("deep/hotpix.fits").unlink()
    code, findings = found(run)
    assert code == 4
    assert [one for one in findings if one[1] != "index-differs"] == [
        ("bias.fits", "bad-record"),
        ("hotpix.fits", "missing"),
    ]


def test_orphans_are_named(store: Store, run: InProcess) -> None:
    sidecar(Path("bias.fits")).unlink()
    Path("deep/hotpix.fits").unlink()
    shutil.copy(Path("../raw/bias0.fits"), "foreign.fits")
    Path("notes.fits").write_text("not FITS at all")
    code, findings = found(run)
    assert code == 4
    assert set(findings) == {
        ("bias.fits", "no-record"),
        ("bias.fits", "index-differs"),
        ("hotpix.fits", "missing"),
    }


def test_bad_checksums_and_structure_are_named(store: Store, run: InProcess) -> None:
    """A file that is as recorded, but was recorded broken."""

    def damage(path: Path, where: int, data: bytes) -> None:
        edit(path, where, data)
        from awetools.core.fits import open_fits
        from awetools.core.products import file_sha256

        with open_fits(path) as fits:
            content = fits.content()
        about = {"file_sha256": file_sha256(path), "content": content, "bytes": path.stat().st_size}
        edit_record(path, lambda r: r["product"].update(about))

    size = Path("bias.fits").stat().st_size
    damage(Path("bias.fits"), 5760, b"\x11")
    damage(Path("deep/hotpix.fits"), Path("deep/hotpix.fits").stat().st_size, b"rubbish")
    code, findings = found(run, "bias.fits", "deep")
    assert code == 8 and size > 5760
    assert set(findings) == {("bias.fits", "checksum"), ("hotpix.fits", "bad-fits")}


def test_a_truncated_product_is_named(store: Store, run: InProcess) -> None:
    os.truncate("bias.fits", 5000)
    assert found(run, "--quick") == (8, [("bias.fits", "edited")])
    assert "5000 bytes" in run("verify", "bias.fits").out


def test_the_worst_code_wins(store: Store, run: InProcess) -> None:
    Path("deep/hotpix.fits").unlink()
    edit(Path("bias.fits"), 4000)
    assert found(run)[0] == 8


# Raw frames


def test_an_edited_raw_frame_names_what_it_touches(store: Store, run: InProcess, tmp_path: Path) -> None:
    edit(tmp_path / "raw" / "bias1.fits", 2880 * 2 + 100)
    for options in ((), ("--quick",), ("-j2",)):
        ran = run("verify", *options)
        assert ran.code == 8
        (line,) = ran.lines
        assert re.fullmatch(r".*bias1\.fits\traw-edited\tchip1: content .{8}, .*; touches bias\.fits", line)
    assert found(run, tmp_path / "raw" / "bias1.fits") == (8, [("bias1.fits", "raw-edited")])
    assert found(run, tmp_path / "raw" / "bias2.fits") == (0, [])


def test_a_missing_raw_frame_until_it_is_registered_from_its_new_place(
    store: Store, run: InProcess, tmp_path: Path
) -> None:
    (tmp_path / "raw" / "bias1.fits").rename(tmp_path / "moved.fits")
    code, findings = found(run)
    assert (code, findings) == (4, [("bias1.fits", "raw-missing")])
    assert "touches bias.fits" in run("verify").out
    assert run("ingest", "-q", tmp_path / "moved.fits").code == 0
    assert found(run) == (0, [])


def test_a_raw_frame_that_is_gone_but_has_a_twin(store: Store, run: InProcess, tmp_path: Path) -> None:
    twin = tmp_path / "twin.fits"
    twin.write_bytes((tmp_path / "raw" / "bias1.fits").read_bytes())
    assert run("ingest", "-q", twin).code == 0
    (tmp_path / "raw" / "bias1.fits").unlink()
    assert found(run) == (0, [("bias1.fits", "raw-moved")])
    assert str(twin) in run("verify").out


def test_an_unreadable_raw_frame_or_record_is_named(store: Store, run: InProcess, tmp_path: Path) -> None:
    os.truncate(tmp_path / "raw" / "bias0.fits", 4000)
    (tmp_path / "raw" / "bias1.fits").write_bytes(b"")
    store.raw_record_path(str(tmp_path / "raw" / "bias2.fits")).write_text("{}")
    store.raw_record_path(str(tmp_path / "raw" / "bias3.fits")).write_text("{")
    code, findings = found(run)
    assert code == 4
    problems = sorted(problem for _, problem in findings if problem != "index-differs")
    assert problems == ["bad-fits", "bad-fits", "bad-record", "bad-record"]


def test_a_directory_stands_for_what_is_below_it(store: Store, run: InProcess, tmp_path: Path) -> None:
    edit(tmp_path / "raw" / "bias1.fits", 2880 * 2 + 100)
    edit(Path("bias.fits"), 4000)
    assert found(run, "deep") == (0, [])
    assert found(run, "deep", ".")[0] == 8
    # A frame is looked at where it lies only if it lies in a store's directory.
    assert found(run, "bias.fits", "bias.fits.json", Path("bias.fits").resolve().parent / "deep") == (
        8,
        [("bias.fits", "edited")],
    )


def test_frames_inside_the_store_belong_to_their_directory(store: Store, run: InProcess) -> None:
    frames = bias_frames(store.root / "incoming", level=1200)
    assert run("ingest", "-q", *frames).code == 0
    edit(frames[2], 2880 * 2 + 100)
    assert found(run, "incoming") == (8, [("bias2.fits", "raw-edited")])
    assert found(run, "deep") == (0, [])


@pytest.mark.parametrize(("name", "problem"), [("nowhere.fits", "missing"), ("../raw/new.fits", "no-record")])
def test_a_file_that_nobody_knows_is_named(store: Store, run: InProcess, name: str, problem: str) -> None:
    shutil.copy("../raw/bias0.fits", "../raw/new.fits")
    assert found(run, name) == (4, [(Path(name).name, problem)])


# Index


def test_the_index_is_compared(store: Store, run: InProcess) -> None:
    forget(store, ["bias.fits"])
    for options in ((), ("--quick",)):
        assert found(run, *options) == (4, [("bias.fits", "index-differs")])
    assert found(run, "deep") == (0, [])
    store.index_path.resolve().write_bytes(b"rubbish" * 1000)
    ran = run("verify")
    assert ran.code == 4 and "index.sqlite\tindex-differs" in ran.out


# What crashes leave


def test_an_interrupted_replacement_is_named_and_finished(store: Store, run: InProcess) -> None:
    new = replaced_half_way(Path("bias.fits"))
    forget(store, ["bias.fits"])
    assert ("bias.fits", "half-replaced") in found(run, "bias.fits")[1]
    ran = run("verify", "--clean")
    assert ran.code == 0 and ran.out == "" and f"finished {store.root / 'bias.fits'}" in ran.err
    assert not new.exists() and open_product(Path("bias.fits")).kind == "bias"
    with open_index(store) as index:
        assert [row["address"] for row in index.rows("kind = 'bias'")] == ["bias.fits"]


def test_a_staged_file_that_is_damaged_is_not_put_in_place(store: Store, run: InProcess) -> None:
    new = replaced_half_way(Path("bias.fits"))
    edit(new, 4000)
    code, findings = found(run, "--clean")
    assert code == 4 and ("bias.fits", "half-replaced") in findings
    assert new.exists() and Path("bias.fits").read_bytes().startswith(b"the product that was")


def leftovers_in(directory: Path) -> dict[str, Path]:
    names = {
        "staged": f".bias.fits.{'ab' * 4}.new",
        "staged digits": ".bias.fits.12345678.new",
        "staged first": f".other.fits.{'cd' * 4}.new",
        "part": f".bias.fits.{DEAD}.part",
        "lock": ".bias.fits.lock",
        "lock of nothing": ".deep.FIT.lock",
        "record": f".bias.fits.json.{DEAD}.new",
        "raw record": f".awe/raw/.0123.json.{DEAD}.new",
        "depfile": f".bias.d.{DEAD}.new",
        "index": ".awe/index-0123456789ab.sqlite",
    }
    paths = {what: directory / name for what, name in names.items()}
    for path in paths.values():
        path.write_bytes(b"half")
    return paths


def test_leftovers_are_named_and_removed(store: Store, run: InProcess) -> None:
    paths = leftovers_in(store.root)
    kept = [".hidden.fits", ".notes.new", ".bias.fits.swp", ".x.txt.77.new", "a.part", ".bias.fits.xyz.new"]
    for name in kept:
        Path(name).write_text("mine")
    everything = {path for path in store.root.rglob("*") if path not in paths.values()}
    code, findings = found(run)
    assert code == 0 and sorted(findings) == sorted((path.name, "leftover") for path in paths.values())
    ran = run("verify", "--clean")
    assert ran.code == 0 and ran.out == "" and ran.err.count("removed") == len(paths)
    assert set(store.root.rglob("*")) == everything
    assert found(run) == (0, [])


def test_what_a_living_program_needs_is_left_alone(store: Store, run: InProcess) -> None:
    mine = [Path(f".bias.fits.json.{os.getpid()}.new"), Path(f".x.fits.{os.getpid()}.part")]
    locked = [
        Path(".bias.fits.abababab.new"),
        Path(f".bias.fits.{DEAD}.part"),
        Path(".bias.fits.lock"),
    ]
    program = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); from pathlib import Path;"
        "from awetools.core.store import target_lock\n"
        "with target_lock(Path('bias.fits')): print('held', flush=True); time.sleep(60)"
    )
    for path in (*mine, *locked[:2]):
        path.write_bytes(b"half")
    with subprocess.Popen(
        [sys.executable, "-c", program, str(Path(verify.__file__).parents[2])], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        try:
            assert found(run, "--clean") == (0, [])
            assert all(path.exists() for path in (*mine, *locked))
            assert list(clean(locked)) == []
        finally:
            holder.kill()
    assert {path.name for path in mine} <= set(os.listdir())
    assert found(run, "--clean", "bias.fits") == (0, [])
    assert not any(path.exists() for path in locked), "the program died, so its files go"
    old = time.time() - leftovers.DEAD_AFTER_S - 1
    for path in mine:
        os.utime(path, (old, old))
    assert found(run, "--clean") == (0, []) and not any(path.exists() for path in mine)


def test_a_program_that_ended_and_was_not_yet_asked_for_is_dead(store: Store, run: InProcess) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        part = Path(f".x.fits.{child.pid}.part")
        part.write_bytes(b"half")
        assert found(run, "--clean") == (0, []) and not part.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_clean_says_when_it_may_not_write(store: Store, run: InProcess) -> None:
    leftovers_in(store.root)
    store.root.chmod(0o555)
    try:
        assert run("verify", "--clean").code == 7
    finally:
        store.root.chmod(0o755)


def test_a_product_that_is_being_replaced_is_waited_for(store: Store, run: InProcess) -> None:
    """Between the two renames of a living program there is no finding."""
    pid = os.fork()
    if not pid:
        with target_lock(Path("bias.fits")):
            new = replaced_half_way(Path("bias.fits"))
            time.sleep(0.6)
            new.replace("bias.fits")
        os._exit(0)
    time.sleep(0.3)
    assert found(run, "bias.fits") == (0, [])
    assert os.waitpid(pid, 0)[1] == 0


# The program


def test_nested_stores_are_left_out_and_named(store: Store, run: InProcess) -> None:
    inner = init_store(store.root / "inner")
    shutil.copy("bias.fits.json", inner.root)
    ran = run("verify")
    assert ran.code == 0 and f"left out {inner.root}" in ran.err
    assert found(run, "inner")[0] == 4


def test_names_come_from_standard_input_with_a_dash(
    store: Store, run: InProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "names").write_text('{"path": "bias.fits"}\nnowhere.fits\n')
    with (tmp_path / "names").open() as names:
        monkeypatch.setattr(sys, "stdin", names)
        assert found(run, "-") == (4, [("nowhere.fits", "missing")])


def test_without_a_store_names_are_needed(
    run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("verify").code == 4
    frames = bias_frames(tmp_path / "raw")
    assert run("bias", "-q", "-o", "out/bias.fits", *frames).code == 0
    assert found(run, ".") == (0, [])
    edit(tmp_path / "out" / "bias.fits", 4000)
    assert found(run, ".") == (8, [("bias.fits", "edited")])


def test_the_help_tells_every_problem_under_its_exit_code(run: InProcess) -> None:
    text = run("verify", "--help").out
    parts = re.split(r"exit code (\d)", text)
    told = {parts[n]: parts[n + 1] for n in range(1, len(parts), 2)}
    for problem, (code, _) in PROBLEMS.items():
        assert re.search(rf"\b{problem}\b", told[str(code) if code != 7 else "4"]), problem


def test_look_counts_each_file_once(store: Store) -> None:
    work = look([Path("bias.fits"), Path("bias.fits.json"), Path("bias.fits")], [store])
    assert work == Work(products=(Path("bias.fits"),))


def test_a_large_tree_costs_little_when_it_is_quick(store: Store, run: InProcess) -> None:
    record, data = Path("bias.fits.json").read_bytes(), Path("bias.fits").read_bytes()
    stat = Path("bias.fits").stat()
    Path("many").mkdir()
    for number in range(300):
        path = store.root / f"many/b{number}.fits"
        path.write_bytes(data)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        sidecar(path).write_bytes(record)
    start = time.process_time()
    assert found(run, "--quick", "many") == (0, [])
    assert time.process_time() - start < 2
