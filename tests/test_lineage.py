"""Lineage: every ancestor is found, wherever it went, and told from what only looks like it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from awetools.core.indexing.index import rebuild, update
from awetools.core.record import read_record, sidecar, to_bytes
from awetools.core.store import Store, init_store, search_path, write_raw_record
from awetools.core.tracing.lineage import Line, ancestors, descendants
from awetools.core.tracing.lookup import Lookup
from tests.support import ROOT, InProcess, bias_frames, write_raw


def nodes(run: InProcess, *arguments: object) -> dict[str, dict[str, Any]]:
    """The nodes that the program prints, by file name."""
    ran = run("lineage", "--json", *arguments)
    assert ran.code == 0, ran.err
    found = [json.loads(line) for line in ran.lines]
    assert len({one["id"] for one in found}) == len(found), "each node is printed once"
    return {Path(one["path"]).name: one for one in found}


def states(run: InProcess, *arguments: object) -> dict[str, str]:
    return {name: one["state"] for name, one in nodes(run, *arguments).items()}


RAWS = [f"bias{number}.fits" for number in range(4)]


# A whole night


def test_all_ancestors_of_a_reduced_frame(reduced_store: Store, run: InProcess) -> None:
    (first, *_) = run("query", "reduced").lines
    found = nodes(run, first)
    kinds = [one["kind"] for one in found.values()]
    assert set(kinds) == {
        "reduced",
        "raw_science",
        "bias",
        "raw_bias",
        "readnoise",
        "hotpix",
        "dark",
        "raw_dark",
        "gain",
        "coldpix",
        "flat",
        "domeflat",
        "raw_domeflat",
    }
    # The gain is made of the flats of both filters.
    assert kinds.count("raw_bias") == 4 and kinds.count("raw_domeflat") == 8
    assert kinds.count("raw_science") == 1
    assert {one["state"] for one in found.values()} == {"present"}
    assert all(Path(one["path"]).exists() and Path(one["record"]).exists() for one in found.values())
    # Every parent that is named is there, and the steps fit.
    by_id = {one["id"]: one for one in found.values()}
    for one in found.values():
        assert all(by_id[parent["id"]]["steps"] <= one["steps"] + 1 for parent in one["parents"])


def test_forward_finds_what_lists_it_as_ancestor(reduced_store: Store, run: InProcess) -> None:
    reduced = run("query", "reduced").lines
    (bias, *_) = run("query", "bias").lines
    forward = {one["path"] for one in nodes(run, "--forward", bias).values()}
    backward = {path for path in reduced if bias in {one["path"] for one in nodes(run, path).values()}}
    assert backward and backward == {path for path in forward if path in reduced}
    raw = nodes(run, bias)
    first = next(one["path"] for one in raw.values() if one["kind"] == "raw_bias")
    assert forward < {one["path"] for one in nodes(run, "--forward", first).values()}


def test_the_tree_has_a_line_a_node_and_marks_repetitions(reduced_store: Store, run: InProcess) -> None:
    (first, *_) = run("query", "reduced").lines
    ran = run("lineage", first)
    found = nodes(run, first)
    once = [line for line in ran.lines if not line.endswith("(see above)")]
    assert len(once) == len(found) < len(ran.lines)
    record = read_record(sidecar(Path(first)))
    meta = record["meta"]
    assert ran.lines[0] == (
        f"reduced {Path(first).name}  {meta['detector']}/{meta['filter']}/{meta['night']}  "
        f"{record['recipe_key'][:8]}  present"
    )
    assert ran.lines[1].startswith("├── ") and ran.lines[-1].startswith("└── ")


def test_the_tree_is_ascii_where_the_terminal_is(
    made: Store, run: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("awetools.commands.lineageviews.draws_lines", lambda: False)
    lines = run("lineage", "deep/hotpix.fits").lines
    assert lines[1].startswith("`-- bias bias.fits") and lines[2].startswith("    |-- raw_bias")


# Where an input went


def test_an_input_that_moved_is_found_by_its_key(made: Store, run: InProcess) -> None:
    Path("elsewhere").mkdir()
    for name in ("bias.fits", "bias.fits.json"):
        Path(name).rename(Path("elsewhere", name))
    update(made)
    found = nodes(run, "deep/hotpix.fits")
    assert found["bias.fits"]["state"] == "moved"
    assert found["bias.fits"]["path"] == str(made.root / "elsewhere" / "bias.fits")
    assert [found[name]["state"] for name in RAWS] == ["present"] * 4
    assert f"moved to {made.root / 'elsewhere' / 'bias.fits'}" in run("lineage", "deep/hotpix.fits").out


def test_a_store_that_moved_as_a_whole_is_as_it_was(
    made: Store, run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(made.root, tmp_path / "copy", symlinks=True)
    shutil.rmtree(made.root)
    monkeypatch.chdir(tmp_path / "copy")
    assert set(states(run, "deep/hotpix.fits").values()) == {"present"}


def test_an_input_that_was_replaced_is_followed_by_its_kept_record(
    made: Store, run: InProcess, tmp_path: Path
) -> None:
    others = bias_frames(tmp_path / "new", level=1200)
    before = read_record(sidecar(Path("bias.fits")))
    assert run("bias", "-q", "-o", "bias.fits", *others).code == 0
    found = nodes(run, "deep/hotpix.fits")
    assert found["bias.fits"]["state"] == "changed"
    assert found["bias.fits"]["id"] == before["recipe_key"]
    assert Path(found["bias.fits"]["record"]).parent == made.records_path
    assert {Path(found[name]["path"]).parent for name in RAWS} == {tmp_path / "raw"}
    assert "changed, record only" in run("lineage", "deep/hotpix.fits").out


def test_an_input_that_was_deleted_is_followed_by_its_kept_record(made: Store, run: InProcess) -> None:
    sidecar(Path("bias.fits")).rename(made.records_path / "anything.json")
    Path("bias.fits").unlink()
    assert states(run, "deep/hotpix.fits") == {
        "hotpix.fits": "present",
        "bias.fits": "deleted",
        **dict.fromkeys(RAWS, "present"),
    }
    assert "deleted, record only" in run("lineage", "deep/hotpix.fits").out


def test_an_input_without_any_record_ends_its_branch(made: Store, run: InProcess) -> None:
    sidecar(Path("bias.fits")).unlink()
    assert states(run, "deep/hotpix.fits") == {"hotpix.fits": "present", "bias.fits": "present"}
    assert "present, no record" in run("lineage", "deep/hotpix.fits").out
    with Path("bias.fits").open("r+b") as stream:
        stream.seek(-4000, os.SEEK_END)
        stream.write(b"\x01\x02")
    assert states(run, "deep/hotpix.fits")["bias.fits"] == "changed"
    Path("bias.fits").unlink()
    found = nodes(run, "deep/hotpix.fits")["bias.fits"]
    assert (found["state"], found["record"], found["detector"]) == ("deleted", None, "chip1")


def test_a_missing_or_edited_file_is_told_from_its_record(made: Store, run: InProcess) -> None:
    with Path("bias.fits").open("r+b") as stream:
        stream.seek(4000)
        stream.write(b"\x01\x02")
    assert states(run, "deep/hotpix.fits")["bias.fits"] == "changed"
    Path("bias.fits").unlink()
    assert states(run, "deep/hotpix.fits")["bias.fits"] == "deleted"
    assert len(nodes(run, "deep/hotpix.fits")) == 6, "the sidecar still tells the ancestors"


def test_a_remade_product_of_the_same_recipe_keeps_its_ancestors(made: Store, run: InProcess) -> None:
    """Other software: the same key, other pixels."""
    record = json.loads(sidecar(Path("bias.fits")).read_text())
    record["product"]["content"] = "0" * 64
    sidecar(Path("bias.fits")).write_bytes(to_bytes(record))
    update(made)
    found = nodes(run, "deep/hotpix.fits")
    assert found["bias.fits"]["state"] == "changed" and len(found) == 6


def test_raw_frames_that_moved_were_edited_or_are_gone(made: Store, run: InProcess, tmp_path: Path) -> None:
    moved, touched, edited, gone = (tmp_path / "raw" / name for name in RAWS)
    moved.rename(tmp_path / "moved.fits")
    assert run("ingest", "-q", tmp_path / "moved.fits").code == 0
    os.utime(touched)
    with edited.open("r+b") as stream:
        stream.seek(2880 * 2 + 99)
        stream.write(b"\x05\x06")
    gone.unlink()
    assert states(run, "bias.fits") == {
        "bias.fits": "present",
        "moved.fits": "moved",
        "bias1.fits": "present",
        "bias2.fits": "changed",
        "bias3.fits": "deleted",
    }
    assert "deleted, record only" in run("lineage", "bias.fits").out


def test_frames_that_are_not_registered_are_not_called_checked(
    run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    frames = bias_frames(tmp_path / "raw")
    assert run("bias", "-q", "-o", "bias.fits", *frames).code == 0
    assert run("bias", "-q", "-o", "bias.fits", "--clip-sigma", "4", *frames).code == 0
    assert run("hotpix", "-q", "-o", "hot.fits", "bias.fits").code == 0
    found = nodes(run, "hot.fits")
    assert [found[name]["checked"] for name in RAWS] == [False] * 4
    assert "present, not registered" in run("lineage", "hot.fits").out
    # Without a store, kept records lie beside the product.
    assert run("bias", "-q", "-o", "bias.fits", *frames[:3]).code == 0
    assert states(run, "hot.fits")["bias.fits"] == "changed"
    assert len(nodes(run, "hot.fits")) == 6


def test_inputs_are_found_along_the_search_path(
    made: Store, run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = init_store(tmp_path / "private")
    monkeypatch.chdir(private.root)
    monkeypatch.setenv("AWE_PATH", f"{private.root}:{made.root}")
    mine = ("hotpix", "-q", "--threshold-sigma", "9", "-o", "mine.fits")
    assert run(*mine, made.root / "bias.fits").code == 0
    for name in ("bias.fits", "bias.fits.json"):
        (made.root / name).rename(made.root / f"new-{name}")
    update(made)
    assert states(run, "mine.fits")["new-bias.fits"] == "moved"
    forward = nodes(run, "--forward", made.root / "new-bias.fits")
    assert set(forward) == {"new-bias.fits", "mine.fits", "hotpix.fits"}
    assert [one["id"] for one in forward["mine.fits"]["parents"]] == [forward["new-bias.fits"]["id"]]


# What can be named


def test_raw_frames_and_detectors_can_be_named(
    run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = init_store(tmp_path / "store")
    monkeypatch.chdir(store.root)
    path = write_raw(tmp_path / "raw.fits", np.arange(4096, dtype=np.uint16).reshape(64, 64))
    unregistered = nodes(run, path)["raw.fits"]
    assert run("ingest", "-q", path).code == 0
    registered = nodes(run, path)["raw.fits"]
    assert (unregistered["record"], unregistered["id"]) == (None, registered["id"])
    assert registered["kind"] == "raw_bias" and registered["parents"] == []
    two = {
        "record": {"schema": 1, "type": "raw"},
        "file": {"path": str(tmp_path / "two.fits"), "bytes": 1, "mtime_ns": 2, "inode": 3},
        "camera": "generic",
        "overrides": {},
        "registered": "",
        "problems": [],
        "detectors": [
            {
                "detector": name,
                "hdus": [n],
                "content": sha(name),
                "meta": {"frame_type": "raw_bias", "detector": name},
            }
            for n, name in enumerate("ab")
        ],
    }
    write_raw_record(store, two)
    update(store)
    assert states(run, "../two.fits") == {"two.fits[a]": "deleted", "two.fits[b]": "deleted"}
    assert states(run, "../two.fits[b]") == {"two.fits[b]": "deleted"}
    stat = (tmp_path / "two.fits").write_bytes(b"x") and (tmp_path / "two.fits").stat()
    two["file"] = {
        "path": str(tmp_path / "two.fits"),
        "bytes": 1,
        "mtime_ns": stat.st_mtime_ns,
        "inode": stat.st_ino,
    }
    write_raw_record(store, two)
    assert states(run, "../two.fits[b]") == {"two.fits[b]": "present"}
    ran = run("lineage", "../two.fits[c]")
    assert ran.code == 4 and "no-such-extension" in ran.err


def test_a_deleted_product_can_be_named(made: Store, run: InProcess) -> None:
    record = sidecar(Path("bias.fits"))
    record.rename(made.records_path / "bias.fits.0123456789abcdef.json")
    Path("bias.fits").unlink()
    found = nodes(run, "bias.fits")
    assert found["bias.fits"]["state"] == "deleted" and len(found) == 5


@pytest.mark.parametrize("where", ["kept", "moved"])
def test_a_product_whose_record_is_elsewhere_is_known_by_its_key(
    made: Store, run: InProcess, where: str
) -> None:
    if where == "kept":
        sidecar(Path("bias.fits")).rename(made.records_path / "other.json")
    else:
        Path("copy").mkdir()
        shutil.copy2("bias.fits", "copy/bias.fits")
        sidecar(Path("bias.fits")).rename("copy/bias.fits.json")
        update(made)
    found = nodes(run, "bias.fits")
    assert found["bias.fits"]["state"] == "present" and len(found) == 5
    (made.records_path / "other.json").unlink(missing_ok=True)
    shutil.rmtree("copy", ignore_errors=True)
    update(made)
    ran = run("lineage", "bias.fits")
    assert ran.code == 4 and "no-record" in ran.err and found["bias.fits"]["id"][:8] in ran.err


def test_what_cannot_be_found_does_not_stop_the_others(made: Store, run: InProcess) -> None:
    ran = run("lineage", "nowhere.fits", "bias.fits")
    assert ran.code == 4 and "no-such-file" in ran.err and "bias bias.fits" in ran.out
    sidecar(Path("bias.fits")).write_text("{")
    ran = run("lineage", "bias.fits", "deep/hotpix.fits")
    assert ran.code == 4 and "no-record" in ran.err and "hotpix" in ran.out


def test_malformed_raw_records_do_not_matter(made: Store, run: InProcess, tmp_path: Path) -> None:
    made.raw_record_path(str(tmp_path / "raw" / "bias0.fits")).write_text("{}")
    made.raw_record_path(str(tmp_path / "raw" / "bias1.fits")).write_text("{")
    made.raw_record_path(str(tmp_path / "raw" / "bias2.fits")).write_text('{"detectors": [1], "file": 3}')
    found = nodes(run, "bias.fits")
    assert [found[name]["checked"] for name in RAWS] == [False, False, False, True]


# Graphs of any shape, by hand


def sha(text: object) -> str:
    return hashlib.sha256(str(text).encode()).hexdigest()


def write_graph(store: Store, edges: dict[int, list[int]]) -> None:
    """Products n.fits, each made from those named; they may even go round in a circle."""
    for number, below in edges.items():
        path = store.root / f"{number}.fits"
        path.write_bytes(b"x")
        stat = path.stat()
        inputs = [
            {
                "role": "in",
                "kind": "k",
                "path": f"{n}.fits",
                "content": sha(n),
                "recipe_key": sha(f"key {n}"),
                "meta": {},
            }
            for n in below
        ]
        record = {
            "record": {"schema": 1, "type": "product"},
            "recipe": {"kind": "k", "revision": 1, "parameters": {}, "inputs": inputs},
            "recipe_key": sha(f"key {number}"),
            "product": {
                "file": path.name,
                "bytes": 1,
                "mtime_ns": stat.st_mtime_ns,
                "file_sha256": sha("x"),
                "content": sha(number),
            },
            "meta": {},
            "validity": None,
            "quality": {"measures": {}, "flags": 0, "flag_names": []},
            "software": {},
            "run": {},
        }
        sidecar(path).write_bytes(to_bytes(record))
    rebuild(store)


def walked(store: Store, start: int, forward: bool = False, depth: int | None = None) -> list[Line]:
    with Lookup([store]) as lookup:
        found = lookup.named(str(store.root / f"{start}.fits"))
        return list((descendants if forward else ancestors)(found, lookup, depth))


def names(lines: list[Line]) -> set[int]:
    return {int(Path(line.node.path).stem) for line in lines}


def within(edges: dict[int, list[int]], start: int, depth: int | None) -> set[int]:
    """The nodes within so many steps, the plain way."""
    reached, level = {start}, {start}
    while level and depth != 0:
        level = {below for one in level for below in edges[one]} - reached
        reached |= level
        depth = None if depth is None else depth - 1
    return reached


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_walk_reaches_what_is_within_its_depth_once(tmp_path: Path, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 7))
    inputs = st.lists(st.integers(0, count - 1), unique=True, max_size=4)
    edges = {number: data.draw(inputs) for number in range(count)}
    depth = data.draw(st.none() | st.integers(0, 4))
    store = init_store(tmp_path / sha((edges, depth))[:12])
    write_graph(store, edges)
    back = {number: [one for one in edges if number in edges[one]] for number in edges}
    for forward, graph in ((False, edges), (True, back)):
        lines = walked(store, 0, forward, depth)
        assert names(lines) == within(graph, 0, depth)
        once = [line for line in lines if not line.repeated]
        assert len(once) == len(names(lines))
        for line in once:
            number = int(Path(line.node.path).stem)
            expected = next(n for n in range(count + 1) if number in within(graph, 0, n))
            assert line.steps == expected
            cut = depth is not None and line.steps >= depth
            assert line.more == (len(graph[number]) if cut else 0)


def test_a_circle_and_a_long_chain_end(tmp_path: Path) -> None:
    store = init_store(tmp_path / "store")
    count = 1500
    write_graph(store, {n: [n + 1] if n + 1 < count else [0] for n in range(count)})
    start = time.process_time()
    lines = walked(store, 0)
    assert len(lines) == count + 1 and lines[-1].repeated
    assert len(walked(store, 700, forward=True)) == count + 1
    assert time.process_time() - start < 20


# The program


def test_depth_says_what_it_did_not_follow(made: Store, run: InProcess) -> None:
    assert set(nodes(run, "--depth", 0, "deep/hotpix.fits")) == {"hotpix.fits"}
    ran = run("lineage", "--depth", 1, "deep/hotpix.fits")
    assert len(ran.lines) == 2 and ran.lines[1].endswith("(4 not followed)")


def test_usage(made: Store, run: InProcess) -> None:
    assert run("lineage", "--tree", "--json", "bias.fits").code == 2
    assert run("lineage", "--depth", "-1", "bias.fits").code == 2
    assert run("lineage", "--tree", "bias.fits").lines == run("lineage", "bias.fits").lines


def test_several_files_share_what_was_shown(made: Store, run: InProcess) -> None:
    lines = run("lineage", "bias.fits", "deep/hotpix.fits").lines
    assert len(lines) == 5 + 2 and lines[-1].endswith("(see above)")
    assert lines[5].startswith("hotpix")


def test_the_output_is_input_of_the_next_program(made: Store, run: InProcess) -> None:
    ran = run("lineage", "--json", "deep/hotpix.fits")
    done = subprocess.run(
        [sys.executable, "-m", "awetools", "verify", "-"],
        input=ran.out.encode(),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0 and b"2 products, 4 raw files" in done.stderr


def test_it_answers_without_loading_what_reads_pixels(made: Store) -> None:
    script = (
        "import sys\n"
        "from awetools.commands.runner import run\n"
        "from awetools.commands.lineage import command\n"
        "code = run(command, ['-q', 'deep/hotpix.fits'], 'awe-lineage')\n"
        "heavy = [one for one in ('astropy', 'scipy', 'numpy.linalg') if one in sys.modules]\n"
        "print(heavy, file=sys.stderr) if heavy else None\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=made.root,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 6


def test_search_path_stores_are_enough(made: Store) -> None:
    with Lookup(search_path(Path.cwd())) as lookup:
        (node,) = lookup.named("bias.fits")
        assert [role for role, _ in lookup.inputs(node)] == ["raw"] * 4
        assert [user.kind for _, user in lookup.users(node)] == ["hotpix"]
