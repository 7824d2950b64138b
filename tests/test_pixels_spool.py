"""Planes on scratch disk: the same file and measures as from memory, nothing left behind, a full disk said."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awetools.core import fitswrite
from awetools.core.errors import Unavailable
from awetools.core.fits import open_fits
from awetools.core.fitswrite import Plane, write_fits
from awetools.core.pixels.spool import Spool, unavailable
from awetools.core.pixels.spoolstats import count_above_zero, spool_finite, spool_imstat
from awetools.core.pixels.stats import imstat


def spooled(values: np.ndarray, step: int = 7, folder: Path | None = None) -> Spool:
    """The values in a spool, written in strips from the last to the first."""
    made = Spool(values.shape, values.dtype, folder)
    for first in reversed(range(0, len(values), step)):
        made.write(first, values[first : first + step])
    return made


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(0, 30), st.integers(0, 9)),
    st.sampled_from(["f4", "f8", "i2", "u2", "i4", "i8", "u1", "i1"]),
    st.integers(0, 30),
    st.integers(0, 30),
    st.integers(1, 11),
)
def test_what_was_written_is_read(shape: tuple[int, int], kind: str, y0: int, y1: int, step: int) -> None:
    values = np.arange(shape[0] * shape[1]).astype(kind).reshape(shape)
    with spooled(values, step) as spool:
        assert (spool.shape, spool.dtype, len(spool)) == (shape, values.dtype, shape[0])
        assert (spool.ndim, spool.itemsize, spool.size) == (2, values.itemsize, values.size)
        found = spool[y0:y1]
        assert found.dtype == values.dtype
        assert np.array_equal(found, values[y0:y1])
        assert np.array_equal(spool[:], values)


def test_rows_that_were_not_written_are_zero_and_append_makes_it_longer() -> None:
    with Spool((3, 2), np.float32) as spool:
        assert not spool[:].any()
    with Spool((0,), np.int32) as column:
        column.append(np.arange(5, dtype=np.int32))
        column.append(np.empty(0, np.int32))
        column.append(np.array([7], np.int32))
        assert column[:].tolist() == [0, 1, 2, 3, 4, 7]


def test_rows_that_do_not_belong_are_refused() -> None:
    with Spool((3, 2), np.float32) as spool:
        for first, rows in ((2, np.zeros((2, 2))), (-1, np.zeros((1, 2))), (0, np.zeros((1, 3)))):
            with pytest.raises(ValueError, match="spool"):
                spool.write(first, rows)
        with pytest.raises(ValueError, match="one after the other"):
            spool[::2]
        with pytest.raises(TypeError, match="in strips"):
            np.asarray(spool)


def test_nothing_is_left_and_several_processes_write(tmp_path: Path) -> None:
    spool = Spool((2, 4), np.int16, tmp_path)
    child = os.fork()
    if not child:
        spool.write(1, np.full((1, 4), 9, np.int16))
        os._exit(0)
    os.waitpid(child, 0)
    assert spool[1:2].tolist() == [[9] * 4]
    assert not list(tmp_path.iterdir())
    spool.close()


def test_no_room_is_said_before_the_work(tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    child = os.fork()
    if not child:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
        try:
            Spool((2000, 2000), np.float32, tmp_path)
        except Unavailable as error:
            os._exit(0 if "16.0 MB" in str(error) and str(tmp_path) in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with pytest.raises(Unavailable, match="absent"):
        Spool((2, 2), np.float32, tmp_path / "absent")


def test_a_file_of_ones_own_stays_and_is_taken_up_again(tmp_path: Path) -> None:
    path, values = tmp_path / "SCI", np.arange(12, dtype=np.float32).reshape(4, 3)
    with Spool((4, 3), np.float32, path=path) as spool:
        spool.write(0, values)
        spool.sync()
    with Spool((4, 3), np.float32, path=path, keep=True) as spool:
        assert np.array_equal(spool[:], values)
        spool.cut(2)
        assert (len(spool), path.stat().st_size) == (2, 24)
        spool.append(values[:1])
        assert spool[2:3].tolist() == [[0, 1, 2]]
        with pytest.raises(ValueError, match="less than 9 rows"):
            spool.cut(9)
    with Spool((4, 3), np.float32, path=path) as spool:
        assert not spool[:].any()


def test_a_large_file_is_not_begun_where_there_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.zeros((5000, 4000), np.float32)
    monkeypatch.setattr(fitswrite, "free_bytes", lambda _: 79_000_000)
    monkeypatch.setattr(fitswrite, "write_all", lambda *_: pytest.fail("it was begun"))
    with pytest.raises(
        Unavailable, match=r"deep\.fits: .*No space.*takes 80\.0 MB, 79\.0 MB are free"
    ) as caught:
        write_fits(tmp_path / ".part", [Plane("SCI", image)], [], called="deep.fits")
    assert str(tmp_path) in caught.value.hint and "same command" in caught.value.hint
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kernels", ["", "numpy"])
@pytest.mark.parametrize(
    ("shape", "kind"), [((301, 333), "f4"), ((77, 5), "i2"), ((40, 3), "u2"), ((9, 4), "f8")]
)
def test_the_file_has_the_bytes_of_an_array(
    tmp_path: Path, shape: tuple[int, int], kind: str, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWETOOLS_KERNELS", kernels)
    values = (np.random.default_rng(1).normal(100, 30, shape)).astype(kind)
    column = np.arange(90000, dtype=np.int32)
    written = []
    for name, data, numbers in (("a", values, column), ("s", spooled(values), spooled(column, 10000))):
        planes = [Plane("SCI", data), Plane("COPY", data), Plane("T", table={"N": numbers, "M": column})]
        written.append(write_fits(tmp_path / name, planes, [("OBJECT", "x", "")]))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "s").read_bytes()
    assert written[0].content == written[1].content
    with open_fits(tmp_path / "s") as fits:
        assert not fits.verify_checksums()
        assert np.array_equal(fits.image(0), values)


def test_measures_of_a_spool_are_those_of_an_array() -> None:
    rng = np.random.default_rng(2)
    image = rng.normal(1000, 5, (1700, 2600)).astype(np.float32)
    weight = (rng.random(image.shape) > 0.1).astype(np.float32)
    image[weight == 0] = 1e6
    for plane in (None, weight):
        exact = imstat(image, None if plane is None else plane > 0)
        found = spool_imstat(spooled(image, 100), None if plane is None else spooled(plane, 100))
        assert found.keys() == exact.keys()
        for name in ("mean", "stdev", "min", "max", "pixels"):
            assert found[name] == pytest.approx(exact[name], rel=1e-9), name
        for name in ("median", "clipped_mean", "clipped_median", "clipped_stdev"):
            assert found[name] == pytest.approx(exact[name], abs=0.02), name
    assert count_above_zero(spooled(weight, 100)) == int((weight > 0).sum())
    small = spooled(image[:50])
    assert spool_imstat(small) == pytest.approx(imstat(image[:50]))
    assert spool_imstat(spooled(image[:5]), np.zeros((5, 2600)))["pixels"] == 0


def test_what_is_not_finite_is_found() -> None:
    values = np.zeros((3000, 700), np.float32)
    assert spool_finite(spooled(values, 500))
    values[-1, -1] = np.nan
    assert not spool_finite(spooled(values, 500))


@pytest.mark.parametrize(
    ("code", "said", "hint"),
    [
        (errno.EROFS, "cannot be written: Read-only", "--out-dir"),
        (errno.ENOSPC, "2.0 MB: No space", "make room"),
    ],
)
def test_a_disk_that_cannot_be_written_is_not_a_full_one(
    code: int, said: str, hint: str, tmp_path: Path
) -> None:
    found = unavailable(tmp_path, 2_000_000, OSError(code, os.strerror(code)))
    assert said in found.message and hint in found.hint
    assert ("make room" in found.hint) == (code == errno.ENOSPC)
