"""An interrupted coadd, a full disk and a small memory as a person meets them: what is said, and what to do next."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from awetools.core import fitswrite, publish
from awetools.core import unfinished as unfinished_module
from awetools.core.coadd import scratch, strips
from awetools.core.errors import Unavailable
from awetools.core.partial import is_partial, partial_path
from awetools.core.store import Store
from tests.support import InProcess

ROWS = 20


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, sky_store: Store) -> None:
    monkeypatch.setattr(scratch, "KEPT_FROM", 0)
    monkeypatch.setattr(strips, "STRIP_ROWS", ROWS)
    monkeypatch.setattr(unfinished_module, "NOTE_S", 0.0)


def coadd(run: InProcess, name: str, *options: str):  # type: ignore[no-untyped-def]
    return run("coadd", "-o", name, *options, *run("query", "reduced").lines)


def stopped(monkeypatch: pytest.MonkeyPatch, error: BaseException, after: int = 3) -> pytest.MonkeyPatch:
    """Strips, of which those after some fail, whichever thread has them."""
    write = scratch.Scratch.write

    def failing(self: scratch.Scratch, rows: tuple[int, int], made: object) -> None:
        if rows[0] >= after * ROWS:
            raise error
        write(self, rows, made)  # type: ignore[arg-type]

    monkeypatch.setattr(scratch.Scratch, "write", failing)
    return monkeypatch


@pytest.mark.parametrize("options", [(), ("-j2",)])
def test_the_same_command_goes_on(run: InProcess, options: tuple[str, ...]) -> None:
    assert coadd(run, "whole.fits").code == 0
    with pytest.MonkeyPatch.context() as patch:
        ran = coadd(stopped(patch, KeyboardInterrupt()) and run, "deep.fits", *options)
    folder = partial_path(Path("deep.fits"))
    assert ran.code == 130
    assert re.search(
        rf"interrupted; \d+% of the work is kept in {folder} .*: the same command goes on", ran.err
    )
    assert not os.path.lexists("deep.fits")
    found = run("verify", ".")
    assert found.code == 0
    # One that was killed while it wrote the product left this.
    Path(".deep.fits.99999.part").write_bytes(bytes(5000))
    Path(".deep.fits.fits.99999.part").write_bytes(bytes(5000))
    assert re.search(r"\.deep\.fits\.partial\tleftover\t\d+% of a product", found.out)
    ran = coadd(run, "deep.fits", *options)
    assert ran.code == 0, ran.err
    assert "went on from row" in ran.err
    assert Path("deep.fits").read_bytes() == Path("whole.fits").read_bytes()
    assert not folder.exists()
    assert not os.path.lexists(".deep.fits.99999.part")
    # Of another product.
    os.remove(".deep.fits.fits.99999.part")
    assert run("verify", ".").out == ""


def test_what_nobody_goes_on_with_is_cleaned_away(run: InProcess) -> None:
    with pytest.MonkeyPatch.context() as patch:
        coadd(stopped(patch, KeyboardInterrupt()) and run, "deep.fits")
    folder = partial_path(Path("deep.fits"))
    assert is_partial(folder)
    ran = run("verify", "--clean", ".")
    assert ran.code == 0
    assert "removed" in ran.err
    assert not folder.exists()


def test_a_full_disk_says_what_is_needed_and_keeps_what_is_done(run: InProcess) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitswrite, "write_all", full)
        ran = coadd(run, "deep.fits")
    assert ran.code == 7
    assert re.search(
        r"deep\.fits: cannot be written: No space left .*; it takes .*B, .*B are free; 100% of", ran.err
    )
    assert "make room, then the same command again" in ran.err
    assert not [one.name for one in Path().iterdir() if "deep" in one.name and not is_partial(one)]
    with pytest.MonkeyPatch.context() as patch:
        # Nothing of it is made again.
        ran = coadd(stopped(patch, RuntimeError("a strip was made"), 0) and run, "deep.fits")
    assert ran.code == 0, ran.err
    assert not partial_path(Path("deep.fits")).exists()


def test_a_disk_that_is_full_when_the_product_is_in_place_leaves_nothing_else(run: InProcess) -> None:
    def full(*_: object) -> None:
        raise Unavailable("index.sqlite: database or disk is full")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publish, "_index", full)
        ran = coadd(run, "deep.fits")
    assert ran.code == 7
    assert "is kept" not in ran.err
    assert not partial_path(Path("deep.fits")).exists()
    assert run("verify", "deep.fits").code == 0


def test_too_little_memory_is_said_and_the_hint_is_right(run: InProcess) -> None:
    ran = coadd(run, "deep.fits", "--memory", "16M", "-j3")
    assert ran.code == 7
    assert re.search(r"one row of this coadd takes .* MB in each of 3 threads; 17 MB, the cap", ran.err)
    wanted = re.search(r"try: --memory (\d+M)", ran.err)
    assert wanted
    assert not os.path.lexists("deep.fits") and not partial_path(Path("deep.fits")).exists()
    ran = coadd(run, "deep.fits", "--memory", wanted[1], "-j3")
    assert ran.code == 0, ran.err
