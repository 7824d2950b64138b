"""Bad input: each gets a clear error in the contract's words, and nothing is written."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from awetools.core.store import Store, init_store
from tests.support import InProcess, Ran, bias_frames, program, write_raw


@pytest.fixture
def frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Four good biases; the working directory holds no store."""
    monkeypatch.chdir(tmp_path)
    return bias_frames(tmp_path / "raw")


def nothing_written(directory: Path) -> bool:
    return not [
        path for path in directory.rglob("*") if path.suffix in (".fits", ".json") and "raw" not in path.parts
    ]


def test_no_such_file(frames: list[Path], run: InProcess, tmp_path: Path) -> None:
    _refused(run("bias", "-o", "b.fits", *frames, "absent.fits"), 4, "no-such-file", "absent.fits")
    assert nothing_written(tmp_path)


def test_a_directory(frames: list[Path], run: InProcess, tmp_path: Path) -> None:
    _refused(run("bias", "-o", "b.fits", tmp_path / "raw"), 4, "no-such-file", "raw")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("SIMPLE is what this is not\n" * 200)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5000])


def half_a_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def torn_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(path.read_bytes())[:-500])


def no_image(path: Path) -> None:
    from astropy.io import fits

    fits.PrimaryHDU().writeto(path, overwrite=True)


@pytest.mark.parametrize(
    ("spoil", "slug"),
    [
        (empty, "not-fits"),
        (text, "not-fits"),
        (truncated, "truncated"),
        (half_a_header, "truncated"),
        (torn_gzip, "truncated"),
        (no_image, "no-image"),
    ],
)
def test_files_that_are_no_frames(
    frames: list[Path], run: InProcess, tmp_path: Path, spoil: Callable[[Path], None], slug: str
) -> None:
    spoil(frames[1])
    for ran in (run("bias", "-o", "b.fits", *frames), run("header", frames[1]), run("imstat", frames[1])):
        _refused(ran, 4, slug, frames[1].name)
    assert nothing_written(tmp_path)


def test_a_wrong_checksum(frames: list[Path], run: InProcess, tmp_path: Path) -> None:
    init_store(tmp_path)
    path = write_raw(
        tmp_path / "raw" / "sum.fits", np.arange(6400, dtype=np.int16).reshape(64, 100), checksum=True
    )
    data = bytearray(path.read_bytes())
    data[-3000] ^= 1
    path.write_bytes(bytes(data))
    _refused(run("ingest", path), 8, "bad-checksum", "sum.fits")
    assert run("query", "raw").code == 5


def test_extension_out_of_range(frames: list[Path], run: InProcess) -> None:
    _refused(run("header", f"{frames[0]}[7]"), 4, "no-such-extension", "7")
    _refused(run("bias", "-o", "b.fits", f"{frames[0]}[CCD9]", *frames[1:]), 4, "no-such-extension", "CCD9")


@pytest.mark.parametrize(
    ("cards", "said"),
    [
        ({"DETECTOR": "chip2"}, "detector"),
        ({"CCDSUM": "2 2"}, "binning"),
        ({"INSTRUME": "othercam"}, "instrument"),
    ],
)
def test_a_mixture_is_refused_by_name(
    frames: list[Path], run: InProcess, cards: dict[str, str], said: str
) -> None:
    odd = write_raw(frames[0].parent / "odd.fits", np.full((64, 96), 1000, np.uint16), cards)
    _refused(run("bias", "-o", "b.fits", *frames, odd), 4, "mixture", "odd.fits", said)


def test_mixed_shapes(frames: list[Path], run: InProcess) -> None:
    odd = write_raw(frames[0].parent / "odd.fits", np.full((64, 98), 1000, np.uint16))
    _refused(run("bias", "-o", "b.fits", *frames, odd), 4, "mixture", "odd.fits", "96", "98")


def test_mixed_filters(frames: list[Path], run: InProcess, tmp_path: Path) -> None:
    run("bias", "-q", "-o", "bias.fits", *frames)
    rng = np.random.default_rng(3)
    flats = []
    for name in ("R", "R", "V"):
        data = rng.normal(21000, 120, (64, 96)).astype(np.uint16)
        cards = {"IMAGETYP": "dome flat", "FILTER": name, "EXPTIME": 3.0}
        flats.append(write_raw(tmp_path / "raw" / f"flat{len(flats)}.fits", data, cards))
    _refused(
        run("domeflat", "-o", "d.fits", "--bias", "bias.fits", *flats), 4, "mixture", "flat2.fits", "filter"
    )


def test_too_few(frames: list[Path], run: InProcess) -> None:
    _refused(run("bias", "-o", "b.fits", *frames[:2]), 4, "too-few", "2")


def test_a_wrong_kind(frames: list[Path], run: InProcess) -> None:
    _refused(
        run("domeflat", "-o", "d.fits", "--no-bias", *frames), 4, "wrong-kind", "raw_bias", "raw_domeflat"
    )
    run("bias", "-q", "-o", "bias.fits", *frames)
    _refused(run("flat", "-o", "f.fits", "bias.fits"), 4, "wrong-kind", "bias")


def test_identical_and_saturated_frames(frames: list[Path], run: InProcess, tmp_path: Path) -> None:
    for level in (1000, 65535):
        same = [
            write_raw(
                tmp_path / "raw" / f"same{n}.fits",
                np.full((64, 96), level, np.uint16),
                {"DATE-OBS": f"2024-03-02T22:0{n}:00", "NOTE": n},
            )
            for n in range(4)
        ]
        ran = run("bias", "-o", "b.fits", *same)
        assert ran.code == 4, ran.err
    assert nothing_written(tmp_path)


def science(path: Path, data: np.ndarray, **cards: object) -> Path:
    about = {"IMAGETYP": "object", "EXPTIME": 30.0, "FILTER": "R", "RDNOISE": 7.5, **cards}
    return write_raw(path, data, about)


def test_science_frames_that_are_all_bad(
    run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    nan = science(tmp_path / "raw" / "nan.fits", np.full((64, 96), np.nan, np.float32))
    full = science(tmp_path / "raw" / "full.fits", np.full((64, 96), 65535, np.uint16), SATURATE=60000.0)
    for path in (nan, full):
        ran = run("reduce", "-o", "r.fits", "--no-bias", "--no-flat", path)
        _refused(ran, 4, "bad-pixels")
    assert nothing_written(tmp_path)


def test_some_pixels_not_finite_are_masked_and_counted(
    run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from astropy.io import fits

    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    data = np.random.default_rng(1).normal(300, 9, (64, 96)).astype(np.float32)
    data[3, 4], data[5, 6], data[7, 8] = np.nan, np.inf, -np.inf
    path = science(tmp_path / "raw" / "some.fits", data)
    ran = run("reduce", "-o", "r.fits", "--no-bias", "--no-flat", path)
    assert ran.code == 0, ran.err
    with fits.open("r.fits") as hdus:
        assert np.isfinite(hdus[0].data).all()
        for y, x in ((3, 4), (7, 8)):
            assert hdus["MASK"].data[y, x] & 32 and hdus["WEIGHT"].data[y, x] == 0
        assert hdus["WEIGHT"].data[5, 6] == 0 and hdus["MASK"].data[5, 6]


@pytest.mark.parametrize("exptime", [0.0, None])
def test_no_exposure_time(
    run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exptime: float | None
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    data = np.random.default_rng(1).normal(300, 9, (64, 96)).astype(np.uint16)
    path = science(tmp_path / "raw" / "s.fits", data, EXPTIME=exptime)
    ran = run("reduce", "-o", "r.fits", "--no-bias", "--no-flat", path)
    assert ran.code == 4 and ("bad-header" in ran.err or "wrong-kind" in ran.err)


def test_no_gain(run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    data = np.random.default_rng(1).normal(300, 9, (64, 96)).astype(np.uint16)
    path = science(tmp_path / "raw" / "s.fits", data, EGAIN=None, GAIN=2)
    _refused(run("reduce", "-o", "r.fits", "--no-bias", "--no-flat", path), 4, "bad-header", "gain", "--set")


def test_an_unknown_camera_override(frames: list[Path], run: InProcess, tmp_path: Path) -> None:
    init_store(tmp_path)
    _refused(run("ingest", "--set", "camera=nickle", frames[0]), 2, "unknown-name", "nickel")
    _refused(run("ingest", "--set", "filtre=R", frames[0]), 2, "unknown-name", "filter")


def test_malformed_and_non_ascii_cards(frames: list[Path], run: InProcess) -> None:
    data = bytearray(frames[0].read_bytes())
    end = data.index(b"END" + b" " * 77)
    data[end : end + 160] = b"OBSERVER= 'Ren\xe9e'".ljust(80) + b"END".ljust(80)
    frames[0].write_bytes(bytes(data))
    ran = run("bias", "-o", "b.fits", *frames)
    assert ran.code == 0, ran.err


def test_packed_and_gzipped_frames_are_read_as_any_other(frames: list[Path], run: InProcess) -> None:
    from astropy.io import fits

    from awetools.core.record import read_record

    run("bias", "-q", "-o", "plain.fits", *frames)
    frames[0].with_suffix(".fits.gz").write_bytes(gzip.compress(frames[0].read_bytes()))
    with fits.open(frames[1]) as hdus:
        packed = fits.CompImageHDU(hdus[0].data, hdus[0].header, compression_type="RICE_1")
        packed.writeto(frames[1].with_suffix(".fits.fz"))
    mixed = [frames[0].with_suffix(".fits.gz"), frames[1].with_suffix(".fits.fz"), *frames[2:]]
    assert run("bias", "-q", "-o", "mixed.fits", *mixed).code == 0
    assert Path("plain.fits").read_bytes() == Path("mixed.fits").read_bytes()
    keys = [read_record(Path(name))["recipe_key"] for name in ("plain.fits.json", "mixed.fits.json")]
    assert keys[0] == keys[1]


@pytest.mark.parametrize(
    "name",
    [
        "two words.fits",
        "quo'te\".fits",
        "-dash.fits",
        "new\nline.fits",
        "dollar$#:.fits",
        "bracket[1].fits",
        "\udcff.fits",
    ],
)
def test_odd_names(frames: list[Path], tmp_path: Path, name: str) -> None:
    odd = frames[0].with_name(name)
    try:
        frames[0].rename(odd)
    except OSError:
        pytest.skip("the file system does not take this name")
    listed = b"\0".join(os.fsencode(path) for path in [odd, *frames[1:]])
    ran = program("bias", "-q", "-0", "-o", f"out {name}", stdin=listed, cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert (tmp_path / f"out {name}").exists()
    ran = program("imstat", "--", odd.name, cwd=odd.parent)
    assert ran.code == 0, ran.err


def test_empty_standard_input_is_an_error(frames: list[Path]) -> None:
    for name in ("bias", "imstat", "header"):
        _refused(program(name, stdin=""), 4, "empty-input")


def test_bias_of_another_overscan_mode_or_binning(frames: list[Path], run: InProcess, tmp_path: Path) -> None:
    run("bias", "-q", "-o", "bias.fits", *frames)
    data = np.random.default_rng(1).normal(1300, 9, (64, 96)).astype(np.uint16)
    other = science(tmp_path / "raw" / "s.fits", data, CCDSUM="2 2")
    ran = run("reduce", "-o", "r.fits", "--bias", "bias.fits", "--no-flat", other)
    _refused(ran, 5, "no-match", "bias.fits", "binning", "2x2")


def test_a_contradicting_header_is_named(frames: list[Path], run: InProcess, tmp_path: Path) -> None:
    path = write_raw(
        tmp_path / "raw" / "odd.fits",
        np.full((64, 96), 1000, np.uint16),
        {"DATASEC": "[1:200,1:64]", "BIASSEC": "[201:232,1:64]"},
    )
    assert "not inside the image" in run("header", path).err
    _refused(run("bias", "-o", "b.fits", *frames, path), 4, "odd.fits", "not inside the image")


def test_one_bad_frame_does_not_stop_the_others(
    run: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    rng = np.random.default_rng(1)
    paths = [
        science(tmp_path / "raw" / f"s{n}.fits", rng.normal(300, 9, (64, 96)).astype(np.uint16))
        for n in range(4)
    ]
    truncated(paths[1])
    for processes in (1, 2):
        ran = run("reduce", "-j", processes, "--no-bias", "--no-flat", "--out-dir", f"out{processes}", *paths)
        assert ran.code == 4 and "s1.fits" in ran.err and "1 of 4 failed" in ran.err
        assert [Path(line).name for line in ran.lines] == ["s0.fits", "s2.fits", "s3.fits"]


def _refused(ran: Ran, code: int, *said: str) -> None:
    assert ran.code == code, f"exit {ran.code}, not {code}: {ran.err}"
    for one in said:
        assert one in ran.err, f"{one!r} not in: {ran.err}"
    assert "Traceback" not in ran.err and "bug" not in ran.err.split(":")[1:2]


def test_the_header_of_a_product_is_not_that_of_a_raw_frame(shared_store: Store, run: InProcess) -> None:
    product = next((shared_store.root / "bias").rglob("*.fits"))
    ran = run("header", product)
    assert ran.code == 4
    assert "made by awetools, no raw frame" in ran.err and "awe-lineage" in ran.err
