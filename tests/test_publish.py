"""Publishing: whole or not at all, whatever happens; records kept; foreign files left alone."""

from __future__ import annotations

import errno
import json
import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from awetools.core.fits import open_fits
from awetools.core.indexing.index import open_index
from awetools.core.products import open_product, state_of
from awetools.core.record import read_record, sidecar
from awetools.core.store import Store, init_store
from tests.support import InProcess, bias_frames, program, write_raw

STEPS = ("fsync", "replace", "unlink", "write", "open", "utime")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store with two sets of biases beside it: b0 to b3 and c0 to c3."""
    store = init_store(tmp_path / "store")
    bias_frames(tmp_path / "b")
    bias_frames(tmp_path / "c", level=1200)
    monkeypatch.chdir(store.root)
    return store


def biases(folder: str) -> list[Path]:
    return sorted(Path("..", folder).glob("*.fits"))


def killed_at(step: int, task: Callable[[], Any]) -> bool:
    """Run a task in a child that kills itself (-9) at its n-th call that touches files; whether it got there."""
    pid = os.fork()
    if not pid:
        try:
            _arm(step)
            task()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def _arm(step: int) -> None:
    calls = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **named)

        return call

    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))


def test_killed_at_every_step_the_old_or_the_new_product_is_whole(work: Store, run: InProcess) -> None:
    target = Path("bias.fits")
    assert run("bias", "-q", "-o", target, *biases("b")).code == 0
    old = open_product(target).content
    assert run("bias", "-q", "-o", "new.fits", *biases("c")).code == 0
    new = open_product(Path("new.fits")).content
    states, step = set(), 1
    while killed_at(step, lambda: run("bias", "-q", "-o", target, *biases("c"))):
        record = read_record(sidecar(target))
        state = state_of(target, record)
        states.add(state)
        assert state in ("whole", "replaced")
        if state == "whole":
            assert open_product(target).content in (old, new)
        # Whatever was left, the next run finishes the work, and the old one again puts it back.
        assert run("bias", "-q", "-o", target, *biases("c")).code == 0
        assert open_product(target).content == new
        assert run("bias", "-q", "-o", target, *biases("b")).code == 0
        assert open_product(target).content == old
        step += 1
    assert states == {"whole", "replaced"}, "the kills did not reach the moment between the two renames"
    assert step > 10
    assert run("verify", "--clean").code == 0
    assert not list(Path().glob(".bias*")), "something half-written was left"


def test_a_reader_between_the_renames_says_being_replaced(work: Store, run: InProcess) -> None:
    run("bias", "-q", "-o", "bias.fits", *biases("b"))
    step = 1
    while killed_at(step, lambda: run("bias", "-q", "-o", "bias.fits", *biases("c"))):
        if state_of(Path("bias.fits"), read_record(Path("bias.fits.json"))) == "replaced":
            break
        run("bias", "-q", "-o", "bias.fits", *biases("b"))
        step += 1
    ran = run("hotpix", "-o", "hot.fits", "bias.fits")
    assert ran.code == 7 and "being-written" in ran.err and "awe-verify --clean" in ran.err
    assert run("verify", "--clean").code == 0
    assert run("hotpix", "-o", "hot.fits", "bias.fits").code == 0


def test_a_replaced_record_is_kept(work: Store, run: InProcess) -> None:
    run("bias", "-q", "-o", "bias.fits", *biases("b"))
    before = json.loads(Path("bias.fits.json").read_text())
    run("bias", "-q", "-o", "bias.fits", *biases("c"))
    kept = [json.loads(path.read_text()) for path in work.records_path.glob("bias.fits.*.json")]
    assert before in kept


def test_without_a_store_records_are_kept_beside_the_product(
    tmp_path: Path, run: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    frames = bias_frames(tmp_path / "b")
    for sigma in (3, 4):
        assert run("bias", "-q", "-o", "bias.fits", "--clip-sigma", sigma, *frames).code == 0
    assert len(list(Path(".awe-records").glob("bias.fits.*.json"))) == 1


@pytest.mark.parametrize("how", ["foreign", "edited", "directory"])
def test_what_is_not_ours_needs_force(work: Store, run: InProcess, how: str) -> None:
    target = Path("bias.fits")
    if how == "directory":
        target.mkdir()
    elif how == "foreign":
        target.write_bytes(b"precious")
    else:
        run("bias", "-q", "-o", target, *biases("b"))
        with target.open("r+b") as stream:
            stream.seek(2880)
            stream.write(b"edit")
    before = target.read_bytes() if target.is_file() else None
    ran = run("bias", "-o", target, *biases("c"))
    assert ran.code == 2 and "would-overwrite" in ran.err and "bias.fits" in ran.err
    if before is not None:
        assert target.read_bytes() == before
        assert run("bias", "-q", "--force", "-o", target, *biases("c")).code == 0
        assert open_product(target).kind == "bias"


def test_an_input_is_never_the_output(work: Store, run: InProcess) -> None:
    first = biases("b")[0]
    before = first.read_bytes()
    ran = run("bias", "--force", "-o", first, *biases("b"))
    assert ran.code == 2 and first.read_bytes() == before


def test_two_makers_of_one_file_leave_one_whole_product(work: Store, run: InProcess) -> None:
    import multiprocessing

    context = multiprocessing.get_context("fork")
    makers = [
        context.Process(target=program, args=("bias", "-q", "-o", "bias.fits", *biases(folder)))
        for folder in ("b", "c", "b", "c")
    ]
    for one in makers:
        one.start()
    for one in makers:
        one.join()
    assert [one.exitcode for one in makers] == [0] * 4
    product = open_product(Path("bias.fits"))
    with open_fits(product.path) as fits:
        assert fits.content([hdu.index for hdu in fits.hdus]) == product.content
    assert not list(Path().glob(".bias*"))
    index = open_index(work)
    (row,) = index.rows("kind = 'bias'")
    index.close()
    assert row["content"] == product.content


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_disk_is_named_and_leaves_nothing(
    work: Store, run: InProcess, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    run("bias", "-q", "-o", "bias.fits", *biases("b"))
    before = Path("bias.fits").read_bytes()

    def full(_descriptor: int, data: Any) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        ran = run("bias", "-q", "-o", "bias.fits", *biases("c"))
    assert ran.code == 7 and os.strerror(number) in ran.err and "bias.fits" in ran.err
    assert Path("bias.fits").read_bytes() == before
    assert sorted(path.name for path in Path().glob("*bias*")) == ["bias.fits", "bias.fits.json"]
    assert not list(Path().glob(".bias*"))


def test_a_directory_that_cannot_be_written_is_named(work: Store, run: InProcess, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    # Root may write everywhere but there.
    directory = Path("/proc/self") if os.geteuid() == 0 else closed
    ran = run("bias", "-o", directory / "bias.fits", *biases("b"))
    assert ran.code == 7 and "unavailable" in ran.err and str(directory) in ran.err


def test_the_index_deleted_between_two_runs_is_made_again(work: Store, run: InProcess) -> None:
    run("bias", "-q", "-o", "one.fits", *biases("b"))
    for path in work.awe.glob("index.sqlite*"):
        path.unlink()
    run("bias", "-q", "-o", "two.fits", *biases("c"))
    assert sorted(run("query", "bias").lines) == [str(work.root / name) for name in ("one.fits", "two.fits")]


def test_a_locked_index_is_named(work: Store, run: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    from awetools.core.indexing import index

    monkeypatch.setattr(index, "TIMEOUT_S", 0.1)
    blocker = sqlite3.connect(work.index_path, isolation_level=None) if work.index_path.exists() else None
    if blocker is None:
        open_index(work).close()
        blocker = sqlite3.connect(work.index_path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    try:
        ran = run("bias", "-q", "-o", "bias.fits", *biases("b"))
    finally:
        blocker.close()
    assert ran.code == 7 and "index-busy" in ran.err
    assert open_product(Path("bias.fits")).kind == "bias", "the product itself is whole"


def test_the_bits_do_not_depend_on_order_cap_or_processes(work: Store, run: InProcess) -> None:
    frames = biases("b")
    run("bias", "-q", "-o", "one.fits", *frames)
    run("bias", "-q", "-o", "two.fits", "--memory", "16M", *reversed(frames))
    run("bias", "-q", "-j2", "--out-dir", "out", *frames)
    (three,) = Path("out").glob("*.fits")
    assert Path("one.fits").read_bytes() == Path("two.fits").read_bytes() == three.read_bytes()


def test_repeated_pixels_are_used_once_and_named(work: Store, run: InProcess, tmp_path: Path) -> None:
    frames = biases("b")
    again = tmp_path / "again.fits"
    again.write_bytes(frames[0].read_bytes())
    ran = run("bias", "-o", "bias.fits", *frames, again)
    assert ran.code == 0 and "again.fits" in ran.err and "same pixels" in ran.err
    assert read_record(Path("bias.fits.json"))["quality"]["measures"]["frames"] == 4


def test_no_host_user_or_time_is_in_the_fits(work: Store, run: InProcess) -> None:
    run("bias", "-q", "-o", "bias.fits", *biases("b"))
    record = read_record(Path("bias.fits.json"))
    with open_fits("bias.fits") as fits:
        text = " ".join(card.raw for hdu in fits.hdus for card in hdu.header.cards)
    assert str(work.root) not in text
    assert record["run"]["host"] not in text or len(record["run"]["host"]) < 4
    assert record["run"]["start"][:10] not in text


def test_a_raw_frame_is_never_touched(work: Store, run: InProcess, tmp_path: Path) -> None:
    data = np.full((32, 32), 1000, np.uint16)
    data[::3] += 7
    path = write_raw(tmp_path / "raw" / "one.fits" if (tmp_path / "raw").mkdir() is None else tmp_path, data)
    before = (path.stat(), sorted(path.parent.iterdir()))
    assert run("ingest", path).code == 0
    assert (path.stat().st_mtime_ns, sorted(path.parent.iterdir())) == (before[0].st_mtime_ns, before[1])


def test_a_product_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from awetools.core import products
    from awetools.core.errors import Unreadable

    path = tmp_path / "bias.fits"
    path.write_bytes(b"x")
    about = {"bytes": 1, "mtime_ns": 0, "file_sha256": "0" * 64}

    def refused(_path: Path) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(products, "file_sha256", refused)
    with pytest.raises(Unreadable, match=r"bias\.fits: Permission denied"):
        products.state_of(path, {"product": about})


def test_a_program_can_leave_the_index_to_others(
    work: Store, run: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWE_INDEX", "no")
    made = run("bias", "-q", *biases("b"))
    assert made.code == 0 and run("bias", "-q", "-u", *biases("b")).code == 0
    monkeypatch.delenv("AWE_INDEX")
    assert run("query", "bias").code == 5
    assert run("index", "-q", "--update").code == 0
    assert run("query", "bias").out == made.out
