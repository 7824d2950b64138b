"""The script that makes a product again from raw frames alone: bit by bit, whatever was in force or is gone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from awetools.commands.tools import TOOLS
from awetools.core.kinds import KINDS
from awetools.core.record import read_record, sidecar
from awetools.core.store import Store, init_store, search_path
from awetools.core.tracing.lookup import Lookup
from awetools.core.tracing.replay import Replay, replay_of
from awetools.core.tracing.replaytext import to_makefile, to_script
from awetools.core.tracing.rerun import Again, Deviation
from awetools.core.workspace import here
from tests.support import ROOT, InProcess, Ran, awe_here, bias_frames, data_path, write_raw

Write = Callable[..., Path]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with every program of this package."""
    directory = tmp_path_factory.mktemp("programs")
    for tool in TOOLS:
        path = directory / tool.program
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m awetools {tool.name} "$@"\n')
        path.chmod(0o755)
    return directory


@pytest.fixture
def execute(programs: Path) -> Callable[..., Ran]:
    """Runs a command as somebody would who has other settings, in a directory below a project's file."""

    def done(*words: object, cwd: Path) -> Ran:
        cwd.mkdir(parents=True, exist_ok=True)
        (cwd.parent / "awe.toml").write_text("[bias]\nclip_sigma = 9.0\n[reduced]\nsky_mesh = 32\n")
        home = cwd.parent / "home"
        (home / "awetools").mkdir(parents=True, exist_ok=True)
        (home / "awetools" / "awe.toml").write_text("[bias.limits]\nlevel_adu = [1, 2]\n")
        environment = {
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "XDG_CONFIG_HOME": str(home),
            "AWE_BIAS_COMBINE": "median",
            "AWE_PATH": "/no/such/store",
        }
        ran = subprocess.run(
            [str(one) for one in words], cwd=cwd, env=environment, capture_output=True, text=True, check=False
        )
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    return done


def contents(product: Path | str) -> str:
    return str(read_record(sidecar(Path(product)))["product"]["content"])


def replay(*products: str) -> Replay:
    stores = search_path(Path.cwd())
    with Lookup(stores) as lookup:
        nodes = [node for one in products for node in lookup.named(one)]
        return replay_of(nodes, lookup, here(stores=stores), KINDS)


@pytest.fixture
def frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: InProcess) -> list[Path]:
    """Four registered biases with awkward names; the working directory is their store."""
    store = init_store(tmp_path / 'it\'s a "store" $HOME')
    raw = bias_frames(tmp_path / "raw $(x) 'y' #")
    monkeypatch.chdir(store.root)
    assert run("ingest", "-q", *raw).code == 0
    return raw


def again(run: InProcess, execute: Callable[..., Ran], tmp_path: Path, *products: str) -> Ran:
    """Write the script and run it in an empty directory; every target must have the bits that it had."""
    script = tmp_path / "again.sh"
    ran = run("lineage", "--script", "-o", script, *products)
    assert (ran.code, ran.lines) == (0, [str(script)]), ran.err
    before = [contents(one) for one in products if sidecar(Path(one)).exists()]
    done = execute(script, cwd=tmp_path / "elsewhere" / "empty")
    assert done.code == 0, done.err
    if before:
        assert [contents(one) for one in done.lines] == before
    return done


# Bit by bit

MAKERS = (
    ("readnoise", "raw_bias"),
    ("bias", "raw_bias"),
    ("hotpix", "bias"),
    ("gain", "raw_domeflat"),
    ("domeflat", "raw_domeflat"),
    ("coldpix", "domeflat"),
    ("flat", "domeflat"),
    ("reduce", "raw_science"),
)


def test_a_frame_of_m51(run: InProcess, execute: Callable[..., Ran], tmp_path: Path) -> None:
    """Of frames that are plain, gzipped and tile-compressed, with all calibrations there are."""
    night = data_path("nickel-20170302")
    store = tmp_path / "store"
    init_store(store)
    biases = sorted((night / "bias").glob("d*"))[:4]
    flats = [one for one in sorted((night / "flat").iterdir()) if "d1010" <= one.name < "d1014"]
    assert {one.suffix for one in (*biases, *flats)} == {".fits", ".fz", ".gz"}
    awe_here("ingest", "-q", *biases, *flats, night / "science" / "d1120.fits.gz", cwd=store)
    for kind, source in MAKERS:
        made = awe_here(kind, "-q", *awe_here("query", source, cwd=store), cwd=store)
    (product,) = made
    assert read_record(sidecar(Path(product)))["meta"]["object"].startswith("M51")
    before = contents(product)
    done = again(run, execute, tmp_path, product)
    (now,) = map(Path, done.lines)
    assert contents(now) == before
    record, old = (read_record(sidecar(Path(one))) for one in (now, product))
    assert record["recipe_key"] == old["recipe_key"]
    assert record["meta"] == old["meta"]
    assert now.read_bytes() == Path(product).read_bytes()
    kinds = {one.parent.parent.name for one in now.parent.parent.parent.rglob("*.fits")}
    assert {"bias", "flat", "hotpix", "coldpix", "gain", "readnoise", "domeflat"} <= kinds


def test_products_of_a_whole_night(
    reduced_store: Store, run: InProcess, execute: Callable[..., Ran], tmp_path: Path
) -> None:
    """Two frames share what they share, and nothing that lies between is needed any more."""
    first, second = run("query", "reduced").lines[:2]
    before = [contents(one) for one in (first, second)]
    found = replay(first, second)
    assert len({one.file for one in found.products}) == len(found.products)
    for path in reduced_store.root.rglob("*.fits"):
        path.unlink()
    assert [contents(one) for one in again(run, execute, tmp_path, first, second).lines] == before


def test_with_parameters_and_a_leave(
    frames: list[Path], run: InProcess, execute: Callable[..., Ran], tmp_path: Path
) -> None:
    """Of the command line and of settings, an input that is flagged, and one that was left out on purpose."""
    (Path(".awe") / "awe.toml").write_text(
        "[hotpix]\nthreshold_sigma = 6.5\n[bias.limits]\nlevel_adu = [1, 2]\n"
    )
    assert run("bias", "-q", "-o", "b.fits", "--clip-sigma", 4.5, "--no-readnoise", *frames).code == 0
    assert read_record(Path("b.fits.json"))["quality"]["flags"]
    assert run("hotpix", "-q", "-o", "h.fits", "--accept-flags", "b.fits").code in (0, 5)
    run("judge", "-q", "b.fits", "good", "--reason", "as it should be")
    if not Path("h.fits").exists():
        assert run("hotpix", "-q", "-o", "h.fits", "b.fits").code == 0
    done = again(run, execute, tmp_path, "h.fits")
    record = read_record(sidecar(Path(done.lines[0])))
    assert record["recipe_key"] == read_record(Path("h.fits.json"))["recipe_key"]
    parameter = record["recipe"]["parameters"]["threshold_sigma"]
    assert parameter == {"value": 6.5, "origin": "command line"}


def test_with_what_was_set_by_hand_and_corrected_since(
    frames: list[Path], run: InProcess, execute: Callable[..., Ran], tmp_path: Path
) -> None:
    assert run("ingest", "-q", "--set", "saturation_adu=51000", *frames).code == 0
    assert run("bias", "-q", "-o", "b.fits", *frames).code == 0
    key = read_record(Path("b.fits.json"))["recipe_key"]
    # The product goes on meaning what it meant when the frames are corrected again.
    corrected = ("--set", "saturation_adu=62000", "--set", 'object=O\'Neil "x"')
    assert run("ingest", "-q", *corrected, *frames).code == 0
    done = again(run, execute, tmp_path, "b.fits")
    assert read_record(sidecar(Path(done.lines[0])))["recipe_key"] == key
    raw = next(one for one in replay("b.fits").raws)
    assert dict(raw.settings) == {"saturation_adu": "[51000.0]", "object": 'O\'Neil "x"'}


def test_with_an_interval_by_hand(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: InProcess,
    execute: Callable[..., Ran],
) -> None:
    """A calibration of another night serves, because somebody said so; so it does in the new store."""
    store = init_store(tmp_path / "store")
    monkeypatch.chdir(store.root)
    earlier = bias_frames(tmp_path / "raw")
    data = [np.random.default_rng(n).normal(1000, 6, (64, 96)).round().astype(np.uint16) for n in range(4)]
    later = [
        write_raw(tmp_path / "raw" / f"later{n}.fits", one, {"DATE-OBS": f"2024-03-07T23:1{n}:00.000"})
        for n, one in enumerate(data)
    ]
    assert run("ingest", "-q", *earlier, *later).code == 0
    assert run("readnoise", "-q", "-o", "r.fits", *earlier).code == 0
    change = ("--to", "2024-03-08", "--reason", "no bias'es taken")
    assert run("validity", "-q", *change, "r.fits").code == 0
    assert run("bias", "-q", "-o", "b.fits", *later).code == 0
    record = read_record(Path("b.fits.json"))
    assert [one["role"] for one in record["recipe"]["inputs"]].count("readnoise") == 1
    done = again(run, execute, tmp_path, "b.fits")
    made = read_record(sidecar(Path(done.lines[0])))
    assert made["meta"] == record["meta"]
    (readnoise,) = (one for one in replay("b.fits").products if one.node.kind == "readnoise")
    assert readnoise.interval is not None and readnoise.interval.reason == "no bias'es taken"


def test_detectors_of_one_file_with_a_camera_of_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: InProcess, execute: Callable[..., Ran]
) -> None:
    """The saturation of each detector is that of the store's own camera table, which goes with the script."""
    from astropy.io import fits

    store = init_store(tmp_path / "store")
    monkeypatch.chdir(store.root)
    (store.cameras_path / "mosaic.toml").write_text(
        'name = "mosaic"\nextends = "generic"\nrecognise = "INSTRUME == \'mosaic\'"\n'
        "[amplifier]\nsaturation_adu = [{ value = 41000, when = \"EXTNAME == 'CCD2'\" }, { value = 52000 }]\n"
    )
    names = []
    for number in range(4):
        rng = np.random.default_rng(number)
        primary = fits.PrimaryHDU()
        primary.header.update(
            {
                "INSTRUME": "mosaic",
                "IMAGETYP": "zero",
                "EXPTIME": 0.0,
                "DATE-OBS": f"2024-03-02T23:00:0{number}",
            }
        )
        chips = [
            fits.ImageHDU(rng.normal(level, 5, (48, 64)).round().astype(np.uint16), name=name)
            for name, level in (("CCD1", 1000), ("CCD2", 2000))
        ]
        path = tmp_path / f"night{number}.fits"
        fits.HDUList([primary, *chips]).writeto(path)
        names.append(path)
    ran = run("ingest", "-q", *names)
    assert ran.code == 0, ran.err
    made = run("bias", "-q", *names)
    assert made.code == 0, made.err
    one, two = made.lines
    found = replay(one, two)
    assert found.tables and all(len(raw.contents) == 2 for raw in found.raws)
    assert all(len(raw.contents) == 1 for raw in replay(two).raws)
    done = again(run, execute, tmp_path, one, two)
    for before, now in zip((one, two), done.lines, strict=True):
        records = [read_record(sidecar(Path(path))) for path in (before, now)]
        assert records[0]["recipe_key"] == records[1]["recipe_key"]


@pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")
def test_a_makefile(frames: list[Path], run: InProcess, execute: Callable[..., Ran], tmp_path: Path) -> None:
    assert run("bias", "-q", "-o", "b.fits", *frames).code == 0
    assert run("hotpix", "-q", "-o", "h.fits", "b.fits").code == 0
    ran = run("lineage", "--makefile", "-o", tmp_path / "again.mk", "h.fits")
    assert ran.code == 0, ran.err
    directory = tmp_path / "elsewhere" / "empty"
    done = execute("make", "-s", "-j2", "-f", tmp_path / "again.mk", cwd=directory)
    assert done.code == 0, done.err
    assert [contents(one) for one in done.lines] == [contents("h.fits")]
    # Nothing is left to do, and what is lost is made again.
    made = Path(done.lines[0])
    before = made.stat().st_mtime_ns
    assert execute("make", "-s", "-f", tmp_path / "again.mk", cwd=directory).code == 0
    assert made.stat().st_mtime_ns == before
    made.unlink()
    assert execute("make", "-s", "-f", tmp_path / "again.mk", cwd=directory).code == 0
    assert made.exists()


def test_a_makefile_of_very_many_frames_has_no_line_that_is_too_long(
    frames: list[Path], run: InProcess
) -> None:
    from dataclasses import replace

    assert run("bias", "-q", "-o", "b.fits", *frames).code == 0
    found = replay("b.fits")
    (bias,) = (one for one in found.products if one.node.kind == "bias")
    names = tuple(f"/data/{number:05d} {'x' * 60}'.fits" for number in range(5000))
    argv = (*(one for one in bias.argv if not os.path.isabs(one)), *names)
    raws = tuple(replace(found.raws[0], path=name) for name in names)
    text = to_makefile(replace(found, raws=raws, products=(replace(bias, argv=argv),)))
    commands = text.replace("\\\n", " ").splitlines()
    assert max(map(len, commands)) < 100_000
    assert any(line.startswith("\t@awe-bias") and " - < .awe/names" in line for line in commands)
    with_line_end = replace(found, raws=(replace(found.raws[0], path="/data/a\nb.fits"),))
    assert "'/data/a\nb.fits'" in to_script(with_line_end)
    with pytest.raises(Exception, match="newline"):
        to_makefile(with_line_end)


# What is gone or changed


def test_raw_frames_that_are_gone_or_changed_are_all_named(frames: list[Path], run: InProcess) -> None:
    assert run("bias", "-q", "-o", "b.fits", *frames).code == 0
    frames[0].unlink()
    frames[1].write_bytes(frames[2].read_bytes())
    ran = run("lineage", "--script", "b.fits")
    assert (ran.code, ran.out) == (4, "")
    assert f"{frames[0]}: gone" in ran.err
    assert f"{frames[1]}: holds other pixels now" in ran.err
    assert str(frames[3]) not in ran.err


def test_a_frame_that_changes_after_the_script_was_written(
    frames: list[Path], run: InProcess, execute: Callable[..., Ran], tmp_path: Path
) -> None:
    assert run("bias", "-q", "-o", "b.fits", *frames).code == 0
    assert run("lineage", "--script", "-o", tmp_path / "again.sh", "b.fits").code == 0
    write_raw(frames[2], np.full((64, 96), 1000, np.uint16))
    directory = tmp_path / "elsewhere" / "empty"
    done = execute("sh", tmp_path / "again.sh", cwd=directory)
    assert (done.code, done.out) == (8, "")
    assert "no such pixels any more" in done.err and frames[2].name in done.err
    assert not list(directory.glob("bias*")), "nothing is made of other frames"
    done = execute("sh", tmp_path / "again.sh", cwd=directory)
    assert done.code == 2
    assert "an empty directory is needed" in done.err


def test_moved_and_packed_frames_are_found(
    frames: list[Path], run: InProcess, execute: Callable[..., Ran], tmp_path: Path
) -> None:
    import gzip

    assert run("bias", "-q", "-o", "b.fits", *frames).code == 0
    moved = tmp_path / "archive" / "one.fits.gz"
    moved.parent.mkdir()
    moved.write_bytes(gzip.compress(frames[0].read_bytes()))
    frames[0].unlink()
    assert run("ingest", "-q", moved).code == 0
    assert str(moved) in [one.path for one in replay("b.fits").raws]
    again(run, execute, tmp_path, "b.fits")


def test_without_a_record_it_is_not_known(frames: list[Path], run: InProcess) -> None:
    assert run("bias", "-q", "-o", "b.fits", *frames).code == 0
    assert run("hotpix", "-q", "-o", "h.fits", "b.fits").code == 0
    Path("b.fits").unlink()
    Path("b.fits.json").unlink()
    ran = run("lineage", "--script", "h.fits")
    assert ran.code == 4
    assert "b.fits: no record of this bias" in ran.err


def test_a_frame_that_was_corrected_between_two_products(frames: list[Path], run: InProcess) -> None:
    for number in (1, 2):
        assert run("ingest", "-q", "--set", f"saturation_adu=5{number}000", *frames).code == 0
        assert run("bias", "-q", "-o", f"{number}.fits", *frames).code == 0
    assert run("lineage", "--script", "1.fits").code == 0
    ran = run("lineage", "--script", "1.fits", "2.fits")
    assert ran.code == 2
    assert "saturation_adu was corrected between two of the products, from [51000.0] to [52000.0]" in ran.err


def test_what_no_script_makes(frames: list[Path], run: InProcess, tmp_path: Path) -> None:
    write_raw(
        Path("foreign.fits"),
        np.random.default_rng(1).normal(7, 1, (64, 80)).astype(np.float32),
        {"IMAGETYP": "object", "EXPTIME": 3.0},
    )
    ran = run(
        "import_", "-q", "--as", "reduced", "--unit", "adu", "--processed", "-o", "i.fits", "foreign.fits"
    )
    assert ran.code == 0, ran.err
    ran = run("lineage", "--script", "i.fits")
    assert ran.code == 2 and "i.fits: was imported" in ran.err
    ran = run("lineage", "--script", frames[0])
    assert ran.code == 2 and "nothing makes it" in ran.err


def test_nothing_that_a_record_says_is_run(
    frames: list[Path], run: InProcess, execute: Callable[..., Ran], tmp_path: Path
) -> None:
    assert run("ingest", "-q", "--set", "object='; touch evil; echo $(touch evil)", *frames).code == 0
    assert run("bias", "-q", "-o", "b.fits", *frames).code == 0
    software = {**read_record(Path("b.fits.json"))["software"], "numpy": "1\ntouch evil\n"}
    with_record("b.fits", software=software)
    for option in ("--script", "--makefile"):
        lines = run("lineage", option, "b.fits").lines
        assert not [one for one in lines if one.strip().startswith("touch evil")]
    done = again(run, execute, tmp_path, "b.fits")
    assert not list(Path(done.lines[0]).parent.parent.parent.glob("evil"))
    recipe = read_record(Path("b.fits.json"))["recipe"]
    with_record("b.fits", recipe={**recipe, "kind": "../$(touch evil)"})
    assert run("lineage", "--script", "b.fits").code == 4


def test_an_imported_calibration_is_copied(
    frames: list[Path], run: InProcess, execute: Callable[..., Ran], tmp_path: Path
) -> None:
    """What another pipeline made cannot be made again, so it is taken as it is; the script says so."""
    assert run("bias", "-q", "-o", "b.fits", *frames).code == 0
    assert run("hotpix", "-q", "-o", "h.fits", "b.fits").code == 0
    recipe = read_record(Path("b.fits.json"))["recipe"]
    inputs = [{**one, "role": "foreign", "kind": "foreign"} for one in recipe["inputs"][:1]]
    with_record("b.fits", recipe={**recipe, "inputs": inputs})
    ran = run("lineage", "--script", "h.fits")
    assert "b.fits: was imported; it is copied as it is" in ran.err
    assert "awe-ingest" not in ran.out and "cp -p" in ran.out
    again(run, execute, tmp_path, "h.fits")
    Path("b.fits").unlink()
    assert "b.fits: imported, and deleted" in run("lineage", "--script", "h.fits").err


def test_options_that_do_not_go_together(frames: list[Path], run: InProcess, tmp_path: Path) -> None:
    assert run("bias", "-q", "-o", "b.fits", *frames).code == 0
    for words in (
        ("--script", "--rerun"),
        ("--script", "--json"),
        ("--script", "--keep", "d"),
        ("--rerun", "-o", "x.sh"),
        ("--rerun", "--forward"),
        ("--script", "--diff"),
        ("--keep", "d"),
    ):
        assert run("lineage", *words, "b.fits").code == 2, words
    Path("mine.sh").write_text("echo mine\n")
    ran = run("lineage", "--script", "-o", "mine.sh", "b.fits")
    assert ran.code == 2 and "is not such a script" in ran.err
    assert Path("mine.sh").read_text() == "echo mine\n"
    for _ in range(2):
        assert run("lineage", "--script", "-o", "ours.sh", "b.fits").code == 0
    assert run("lineage", "--script", "b.fits").out.encode() == Path("ours.sh").read_bytes()


# Made again and compared


@pytest.fixture
def rerun(run: InProcess, programs: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def done(*arguments: object) -> Ran:
        return run("lineage", "--rerun", *arguments)

    return done


def with_record(path: str, **changes: Any) -> None:
    """Change the record of a product as if it had been made otherwise."""
    from awetools.core.record import to_bytes

    record = read_record(sidecar(Path(path)))
    sidecar(Path(path)).write_bytes(to_bytes({**record, **changes}))


def test_rerun(frames: list[Path], run: InProcess, rerun: Callable[..., Ran], tmp_path: Path) -> None:
    from astropy.io import fits

    from awetools.core.fits import open_fits
    from awetools.core.products import file_sha256

    assert run("bias", "-q", "-o", "b.fits", *frames).code == 0
    ran = rerun("--keep", tmp_path / "kept", "b.fits")
    assert (ran.code, ran.out) == (0, "b.fits\tthe same bits\n")
    assert (tmp_path / "kept" / "make-again.sh").exists()
    assert rerun("--keep", tmp_path / "kept", "b.fits").code == 2
    # What other software made a little otherwise.
    with fits.open("b.fits", mode="update") as hdus:
        hdus[0].data[7, 9] += 0.25
    with open_fits(Path("b.fits")) as file:
        content = file.content()
    stat, record = Path("b.fits").stat(), read_record(Path("b.fits.json"))
    product = {
        **record["product"],
        "content": content,
        "file_sha256": file_sha256(Path("b.fits")),
        "bytes": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
    }
    with_record("b.fits", product=product)
    ran = rerun("b.fits")
    assert ran.code == 3 and "max 0.25" in ran.out, "the same software must not differ"
    with_record("b.fits", software={**record["software"], "numpy": "1.26.0"})
    ran = rerun("--json", "--tolerance", 0.01, "b.fits")
    found = json.loads(ran.out)
    assert not found["same_bits"] and found["software"][0].startswith("numpy was 1.26.0, is ")
    (sci,) = (one for one in found["deviations"] if one["plane"] == "SCI")
    assert sci["max_abs"] == pytest.approx(0.25, rel=1e-4)
    assert sci["rms"] == pytest.approx(0.25 / np.sqrt(64 * 96), rel=1e-4)
    assert sci["fraction"] == pytest.approx(1 / (64 * 96))
    assert (ran.code, found["within"]) == (0, True)


def test_rerun_that_is_stopped_leaves_nothing_behind(
    frames: list[Path], run: InProcess, programs: Path, tmp_path: Path
) -> None:
    """Also what the script had begun is stopped, and its directory is gone."""
    assert run("bias", "-q", "-o", "b.fits", *frames).code == 0
    folder, stubs, begun = tmp_path / "temporary", tmp_path / "stubs", tmp_path / "begun"
    folder.mkdir()
    stubs.mkdir()
    # A program that says that it began, and goes on for long.
    stub = stubs / "awe-init"
    stub.write_text(f"#!/bin/sh\ntrap 'rm {begun}; exit' TERM\n: > {begun}\nsleep 30 &\nwait\n")
    stub.chmod(0o755)
    code = (
        "import sys; sys.executable = '/none/python'; from awetools.commands.lineage import main; "
        "sys.argv[0] = 'awe-lineage'; main()"
    )
    path = os.pathsep.join([str(stubs), str(programs), os.environ["PATH"]])
    process = subprocess.Popen(
        [sys.executable, "-c", code, "--rerun", "b.fits"],
        env={**os.environ, "PATH": path, "TMPDIR": str(folder), "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    for _ in range(300):
        if begun.exists():
            break
        time.sleep(0.1)
    assert any(folder.iterdir())
    process.terminate()
    assert process.wait(20) == 143
    assert not list(folder.iterdir()) and not begun.exists()


def test_rerun_says_what_went_wrong_first(
    frames: list[Path], run: InProcess, rerun: Callable[..., Ran], tmp_path: Path
) -> None:
    assert run("bias", "-q", "-o", "b.fits", *frames).code == 0
    assert rerun("--tolerance", "nan", "b.fits").code == 2
    stub = tmp_path / "stubs" / "awe-init"
    stub.parent.mkdir()
    stub.write_text(
        "#!/bin/sh\nprintf '%s\\n' 'a: warning: dull' 'a: unavailable: full' 'try: x' >&2\nexit 7\n"
    )
    stub.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(stub.parent / "python"))
        ran = rerun("b.fits")
    assert ran.code == 7 and "ended with 7: a: unavailable: full (and 1 more lines)" in ran.err


def test_a_record_of_a_newer_version_is_called_that(frames: list[Path], run: InProcess) -> None:
    """Not that it is gone, nor that its product changed."""
    assert run("bias", "-q", "-o", "b.fits", *frames).code == 0
    assert run("hotpix", "-q", "-o", "h.fits", "b.fits").code == 0
    assert run("bias", "-q", "-o", "c.fits", "--clip-sigma", 4, *frames).code == 0
    assert run("hotpix", "-q", "-o", "i.fits", "c.fits").code == 0
    with_record("b.fits", record={"schema": 99, "type": "product"})
    newer = "schema version 99: made by a newer awetools"
    ran = run("lineage", "--script", "h.fits")
    assert ran.code == 4 and newer in ran.err and "upgrade awetools" in ran.err
    assert (
        f"because {Path.cwd() / 'b.fits.json'}: {newer}" in run("lineage", "--diff", "h.fits", "i.fits").out
    )
    ran = run("lineage", "--at", "3,3", "h.fits")
    (line,) = (one for one in ran.lines if "bias b.fits" in one)
    assert newer in line and "value not known" not in line and "changed" not in line
    assert "present, no record" in run("lineage", "h.fits").out


def test_a_link_to_a_product_has_its_lineage(frames: list[Path], run: InProcess, tmp_path: Path) -> None:
    assert run("bias", "-q", "-o", "b.fits", *frames).code == 0
    link = tmp_path / "links" / "b.fits"
    link.parent.mkdir()
    link.symlink_to(Path("b.fits").absolute())
    os.chdir(link.parent)
    assert run("lineage", "--script", "b.fits").code == 0
    assert run("lineage", "--at", "3,3", "b.fits").lines[1].endswith("the same")
    for name in (".", "..", "/"):
        ran = run("lineage", "--at", "3,3", name)
        assert ran.code == 4 and "no-such-file" in ran.err


@pytest.mark.parametrize(
    ("software", "rms_sigma", "fraction", "within"),
    [
        (("numpy was 1, is 2",), 0.0009, 1.0, True),
        (("numpy was 1, is 2",), 0.0011, 1.0, False),
        (("numpy was 1, is 2",), None, 0.0009, True),
        (("numpy was 1, is 2",), None, 0.0011, False),
        (("numpy was 1, is 2",), float("nan"), 1.0, False),
        ((), 0.0001, 0.0001, False),
    ],
)
def test_only_other_software_may_differ_and_only_so_much(
    software: tuple[str, ...], rms_sigma: float | None, fraction: float, within: bool
) -> None:
    product: Any = None
    found = Deviation("SCI", 0.1, 0.1, fraction, rms_sigma)
    again = Again(
        product, Path("b.fits"), same_bits=False, same_recipe=True, software=software, deviations=(found,)
    )
    assert again.is_within(1e-3) is within
