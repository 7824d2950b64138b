"""Frames of all shapes through the makers: multi-extension files, amplifiers, overscan modes; the Python face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import awetools
from awetools.core.frame import FrameSet, RawFrame, over_amplifiers, raw_frame
from awetools.core.products import open_product
from awetools.core.record import read_record
from awetools.core.sections import amplifiers_from_meta
from awetools.core.store import Store
from tests.support import InProcess, awe

MODES = ("none", "level", "rows", "rows-smooth")


def write_mosaic(path: Path, seed: int) -> None:
    """A multi-extension bias of two detectors at different levels."""
    from astropy.io import fits

    rng = np.random.default_rng(seed)
    primary = fits.PrimaryHDU()
    primary.header.update(
        {"INSTRUME": "mosaic", "IMAGETYP": "zero", "EXPTIME": 0.0, "DATE-OBS": f"2024-03-02T23:00:{seed:02d}"}
    )
    chips = [
        fits.ImageHDU(rng.normal(level, 5, (48, 64)).round().astype(np.uint16), name=name)
        for name, level in (("CCD1", 1000), ("CCD2", 2000))
    ]
    fits.HDUList([primary, *chips]).writeto(path)


def test_detectors_of_a_multi_extension_file(
    tmp_path: Path, run: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [f"night{n}.fits" for n in range(4)]
    for seed, name in enumerate(names):
        write_mosaic(Path(name), seed)
    ran = run("bias", "-q", "--out-dir", "out", *names)
    assert ran.code == 0, ran.err
    levels = {}
    for line in ran.lines:
        record = read_record(Path(line + ".json"))
        levels[record["meta"]["detector"]] = record["quality"]["measures"]["level_adu"]
        assert all("[" in one["path"] for one in record["recipe"]["inputs"])
    assert {name.lower(): round(level, -2) for name, level in levels.items()} == {"ccd1": 1000, "ccd2": 2000}
    ran = run("bias", "-q", "-o", "both.fits", *names)
    assert ran.code == 4 and "mixture" in ran.err and "detector" in ran.err
    second = next(name for name in levels if name.lower() == "ccd2")
    for address in (second, "2"):
        ran = run("bias", "-q", "-o", "one.fits", *(f"{name}[{address}]" for name in names))
        assert ran.code == 0, ran.err
        level = read_record(Path("one.fits.json"))["quality"]["measures"]["level_adu"]
        assert level == pytest.approx(levels[second])
    ran = run("ingest", "-q", *names)
    assert ran.code == 4 and "no-store" in ran.err


@pytest.mark.parametrize("mode", MODES)
def test_every_overscan_mode_reduces_and_matches_only_itself(store: Store, run: InProcess, mode: str) -> None:
    biases = awe("query", "raw_bias", "detector=sim1").split()
    assert run("bias", "-q", "--no-readnoise", "--overscan-mode", mode, "-o", "bias.fits", *biases).code == 0
    science = awe("query", "raw_science", "detector=sim1", "--limit", "1").strip()
    words = ("-q", "-o", "red.fits", "--bias", "bias.fits", "--no-flat", science)
    ran = run("reduce", "--overscan-mode", mode, *words)
    assert ran.code == 0, ran.err
    level = open_product(Path("red.fits")).record["quality"]["measures"]["sky_adu"]
    assert 100 < level < 1500, "bias and overscan are gone, in every mode"
    for other in set(MODES) - {mode}:
        ran = run("reduce", "--overscan-mode", other, "--force", *words)
        assert ran.code == 5 and "overscan_mode" in ran.err and repr(mode) in ran.err


def test_the_overscan_mode_is_part_of_the_key_and_the_default_is_the_cameras(
    store: Store, run: InProcess
) -> None:
    biases = awe("query", "raw_bias", "detector=sim1").split()
    for mode in ("auto", "rows-smooth", "level"):
        run("bias", "-q", "--no-readnoise", "--overscan-mode", mode, "-o", f"{mode}.fits", *biases)
    keys = {mode: open_product(Path(f"{mode}.fits")).key for mode in ("auto", "rows-smooth", "level")}
    assert keys["auto"] == keys["rows-smooth"] != keys["level"]
    parameters = open_product(Path("auto.fits")).record["recipe"]["parameters"]
    assert parameters["overscan_mode"] == {"value": "rows-smooth", "origin": "camera simulator"}


# The frames that recipes get


def assembled(targets: list[str]) -> np.ndarray:
    """A raw frame of two amplifiers, 4 x 3 each with one overscan column, put together by their targets."""
    raw = np.arange(32, dtype=np.float32).reshape(4, 8)
    sections = [
        {"amp": "A", "hdu": 0, "data": "[1:3,1:4]", "overscan": "[4:4,1:4]", "target": targets[0]},
        {"amp": "B", "hdu": 0, "data": "[6:8,1:4]", "overscan": "[5:5,1:4]", "target": targets[1]},
    ]
    frame = RawFrame.of_array(raw, {"sections": sections})
    whole = frame.rows(0, frame.shape[0])
    strips = np.concatenate([frame.rows(y, y + 1) for y in range(frame.shape[0])])
    assert np.array_equal(whole, strips), "rows do not depend on how many are read at once"
    for amp in frame.amplifiers:
        overscan = frame.overscan(amp)
        assert overscan is not None and overscan.shape == (4, 1)
    return whole


def test_amplifiers_side_by_side_and_mirrored() -> None:
    raw = np.arange(32).reshape(4, 8)
    plain = assembled(["[1:3,1:4]", "[4:6,1:4]"])
    assert np.array_equal(plain, np.hstack([raw[:, :3], raw[:, 5:]]))
    mirrored = assembled(["[1:3,1:4]", "[6:4,1:4]"])
    assert np.array_equal(mirrored, np.hstack([raw[:, :3], raw[:, 5:][:, ::-1]]))
    stacked = assembled(["[1:3,1:4]", "[1:3,8:5]"])
    assert np.array_equal(stacked, np.vstack([raw[:, :3], raw[:, 5:][::-1]]))


def test_a_frame_in_memory_reads_each_raw_pixel_once() -> None:
    sections = [
        {"amp": "A", "hdu": 1, "data": "[1:4,2:5]", "overscan": "[5:6,1:6]", "target": "[1:4,1:4]"},
        {"amp": "B", "hdu": 2, "data": "[1:4,1:4]", "target": "[8:5,4:1]"},
    ]
    images = {hdu: np.arange(36, dtype=np.uint16).reshape(6, 6) + 100 * hdu for hdu in (1, 2)}
    asked = []

    def read_rows(hdu: int, y0: int, y1: int) -> np.ndarray:
        asked.append((hdu, y0, y1))
        return images[hdu][y0:y1]

    frame = raw_frame({}, amplifiers_from_meta(sections), read_rows)
    held = frame.in_memory()
    assert sorted(asked) == [(1, 0, 5), (2, 0, 4)]
    asked.clear()
    rows, strips = held.rows(0, 4), held.overscans(held.amplifiers)
    assert not asked
    assert (rows == frame.rows(0, 4)).all()
    assert strips[1] is None and np.array_equal(strips[0], frame.overscan(frame.amplifiers[0]))


def test_a_value_an_amplifier_broadcasts_over_the_detector() -> None:
    sections = [
        {"amp": "A", "hdu": 0, "data": "[1:2,1:2]", "overscan": None, "target": "[1:2,1:2]"},
        {"amp": "B", "hdu": 0, "data": "[3:4,1:2]", "overscan": None, "target": "[1:2,3:4]"},
    ]
    frame = RawFrame.of_array(np.zeros((2, 4)), {"sections": sections})
    values = over_amplifiers(frame.amplifiers, [1.0, 2.0], frame.shape)
    assert values.tolist() == [[1, 1], [1, 1], [2, 2], [2, 2]]


def test_strips_stay_under_the_cap_and_cover_all_rows() -> None:
    frames = FrameSet.of_arrays([np.zeros((500, 40), np.float32)] * 7)
    for cap in (1 << 14, 1 << 20, 1 << 30):
        strips = list(FrameSet(frames.frames, cap).strips(bytes_a_pixel=12))
        assert [y for y0, y1 in strips for y in range(y0, y1)] == list(range(500))
        assert all((y1 - y0) * 40 * 7 * 12 <= cap or y1 - y0 <= 16 for y0, y1 in strips)


# The recipes as functions of arrays


def test_the_chain_from_arrays() -> None:
    rng = np.random.default_rng(2)
    shape, gain, read_noise = (200, 220), 2.0, 4.0
    meta = {"gain_e_adu": [gain], "saturation_adu": [60000.0], "filter": "R", "overscan_mode": "none"}
    pattern = rng.normal(300, 3, shape)
    truth = 1 + 0.05 * np.sin(np.arange(shape[1]) / 20) + rng.normal(0, 0.01, shape)

    def frame(light: float) -> np.ndarray:
        electrons = rng.poisson(light * gain * truth) if light else 0
        return (pattern + electrons / gain + rng.normal(0, read_noise, shape)).round().astype(np.uint16)

    biases = FrameSet.of_arrays([frame(0) for _ in range(9)], meta)
    noise = awetools.make_readnoise(biases, awetools.ReadnoiseParams())
    assert noise.table is not None
    assert noise.table["READ_NOISE_ADU"][0] == pytest.approx(read_noise, rel=0.01)
    bias = awetools.make_bias(biases, readnoise=awetools.Table(noise.table), params=awetools.BiasParams())
    assert np.std(bias.planes["SCI"] - pattern) == pytest.approx(read_noise / 3, rel=0.05)
    master = awetools.Frame(
        bias.planes["SCI"], bias.planes["WEIGHT"], None, {**meta, **bias.meta, **noise.meta}
    )
    domes = FrameSet.of_arrays([frame(20000) for _ in range(5)], meta)
    dome = awetools.make_domeflat(domes, bias=master, params=awetools.DomeflatParams())
    flat = awetools.make_flat(
        domeflat=awetools.Frame(dome.planes["SCI"], dome.planes["WEIGHT"], dome.planes["MASK"], meta),
        params=awetools.FlatParams(),
    )
    assert np.std(flat.planes["SCI"] / truth * truth.mean() - 1) < 0.003
    science = RawFrame.of_array(frame(500), {**meta, "exptime_s": 60.0})
    reduced = awetools.make_reduced(
        science,
        bias=master,
        flat=awetools.Frame(flat.planes["SCI"], flat.planes["WEIGHT"], flat.planes["MASK"], meta),
        params=awetools.ReducedParams(),
    )
    data, weight = reduced.planes["SCI"], reduced.planes["WEIGHT"]
    assert np.mean(data) == pytest.approx(500 * truth.mean(), rel=0.002)
    assert np.std((data - np.mean(data)) * np.sqrt(weight)) == pytest.approx(1, abs=0.02)


OPENS = """
import json, sys
from collections import Counter
opened = Counter()
sys.addaudithook(lambda event, about: opened.update([str(about[0])]) if event == "open" else None)
from awetools.commands.{module} import command
from awetools.commands.runner import run
code = run(command, {arguments!r}, "awe-{module}")
print(json.dumps([code, {{name: count for name, count in opened.items() if name.endswith((".fits", ".fz"))}}]))
"""


def opened(cwd: Path, module: str, *arguments: object) -> dict[str, int]:
    """How often each FITS file was opened for reading or writing by a command, told by the interpreter."""
    import json
    import os
    import subprocess
    import sys

    from tests.support import ROOT

    script = OPENS.format(module=module, arguments=[str(one) for one in arguments])
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    code, counts = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    return {name: count for name, count in counts.items() if not Path(name).name.startswith(".")}


def test_each_input_is_opened_once(reduced_store: Store, tmp_path: Path) -> None:
    biases = awe("query", "raw_bias", "detector=sim1").split()
    science = awe("query", "raw_science", "detector=sim1", "filter=R").split()
    calibrations = (
        awe("query", "bias", "detector=sim1").split()
        + awe("query", "flat", "detector=sim1", "filter=R").split()
    )
    counts = opened(reduced_store.root, "bias", "-q", "-o", tmp_path / "again.fits", *biases)
    assert {name: counts.get(name) for name in biases} == dict.fromkeys(biases, 1)
    counts = opened(reduced_store.root, "reduce", "-q", "--out-dir", "again", *science)
    assert {name: counts.get(name) for name in (*science, *calibrations)} == dict.fromkeys(
        (*science, *calibrations), 1
    )
    (tmp_path / "bare").mkdir()
    counts = opened(tmp_path / "bare", "bias", "-q", "-o", "bare.fits", *biases)
    assert {name: counts.get(name) for name in biases} == dict.fromkeys(biases, 1), "without a store too"
