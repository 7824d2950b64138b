"""Master biases: ours beside SWarp, Gnuastro and ccdproc on the same frames in one run, and the true bias.

    bias.py [--quick] [--runs N]

Whole processes: the run with the least CPU seconds of three. `error` is the robust
scatter of the result about the simulator's true bias, ADU, with the median of each row
of each amplifier taken off first, because the peers do not subtract the overscan; ours
with the overscan as subtracted is in the remark. The floor is each frame read once and
hashed (SHA-256), in one Python process.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from measure import BIN, READ_AND_HASH, Cost, Table, best_cost, night, package, program, raw_frames, versions

from awetools.core.fits import open_fits

# Overscan columns at both ends of a simulated raw frame.
OVERSCAN_COLUMNS = 32

CCDPROC = """
import sys
import ccdproc
import numpy as np
from astropy.stats import mad_std
clip = dict(
    method="average", sigma_clip=True, sigma_clip_low_thresh=5, sigma_clip_high_thresh=5,
    sigma_clip_func=np.ma.median, sigma_clip_dev_func=mad_std,
) if sys.argv[1] == "sigma_clip" else dict(method="median")
ccdproc.combine(sys.argv[3:], unit="adu", dtype="float32", **clip).write(sys.argv[2], overwrite=True)
"""


def bias_command(output: str, frames: Sequence[Path], *words: str) -> list[str | Path]:
    """awe-bias over these frames."""
    return [BIN / "awe-bias", "-q", "--force", "-o", output, *words, *frames]


def peers(frames: Sequence[Path]) -> list[tuple[str, str, str | None, list[str | Path]]]:
    """Name, output, what is missing (or None) and command of each peer."""
    swarp, gnuastro = program("SWarp", "swarp"), program("astarithmetic")
    without = None if package("ccdproc") else "ccdproc"
    found: list[tuple[str, str, str | None, list[str | Path]]] = []
    for how in ("CLIPPED", "MEDIAN"):
        words = ["-COMBINE_TYPE", how, "-RESAMPLE", "N", "-SUBTRACT_BACK", "N", "-NTHREADS", "1"]
        words += ["-IMAGEOUT_NAME", "swarp.fits", "-WEIGHTOUT_NAME", "swarp.weight.fits"]
        words += ["-WRITE_XML", "N", "-VERBOSE_TYPE", "QUIET"]
        found.append(
            (f"SWarp {how}", "swarp.fits", None if swarp else "SWarp", [swarp or "", *frames, *words])
        )
    number = str(len(frames))
    for name, operators in (("median", [number, "median"]), ("sigclip", [number, "3", "5", "sigclip-mean"])):
        command = [gnuastro or "", *frames, *operators, "-g0", "-q", "-N1", "-o", "gnuastro.fits"]
        found.append((f"Gnuastro {name}", "gnuastro.fits", None if gnuastro else "Gnuastro", command))
    for how in ("sigma_clip", "median"):
        command = [sys.executable, "-c", CCDPROC, how, "ccdproc.fits", *frames]
        found.append((f"ccdproc {how}", "ccdproc.fits", without, command))
    return found


def image_of(path: Path) -> np.ndarray:
    """The first image of a file, trimmed if it has the overscan still."""
    with open_fits(path) as file:
        index = next(hdu.index for hdu in file.hdus if hdu.is_image)
        return file.image(index).astype(np.float64)


def scatter(away: np.ndarray) -> float:
    """Standard deviation of a Gaussian core, from its quartiles."""
    low, high = np.percentile(away, [25, 75])
    return float(high - low) / 1.349


def error_of(path: Path, truth: np.ndarray) -> float:
    """Scatter about the true bias, ADU, with the row medians of each amplifier taken off."""
    image = image_of(path)
    if image.shape[1] != truth.shape[1]:
        image = image[:, OVERSCAN_COLUMNS:-OVERSCAN_COLUMNS]
    away = image - truth
    half = away.shape[1] // 2
    for part in (away[:, :half], away[:, half:]):
        part -= np.median(part, axis=1)[:, None]
    return scatter(away)


def main() -> None:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small frames, to see that it runs")
    parser.add_argument("--runs", type=int, default=3, help="runs of each process (default 3)")
    given = parser.parse_args()
    shape, counts = ("256x512", (10, 20, 30)) if given.quick else ("2048x4096", (10, 20, 100))
    words = ["--detectors", "1", "--biases", str(counts[-1]), "--flats", "0", "--exposures", "0"]
    directory = night(*words, "--darks", "0", "--twilights", "0", "--shape", shape)
    frames = [Path(one["path"]) for one in raw_frames(directory, "BIAS")]
    truth = image_of(directory / "truth" / "bias_sim1.fits")
    print("\n".join(versions(["SWarp", "astarithmetic"], ["ccdproc", "astropy"])))
    with tempfile.TemporaryDirectory(prefix="awe-bench-bias-") as work:
        few(Path(work), frames[: counts[0]], truth, given.runs)
        many(Path(work), frames, counts[1:], truth, given.runs)


def few(work: Path, frames: Sequence[Path], truth: np.ndarray, runs: int) -> None:
    """Ten frames: ours and the peers."""
    print(f"\n{len(frames)} frames of {truth.shape[1]} x {truth.shape[0]}")
    table = Table("error ADU", "clipped is", "median is")
    floor = best_cost([sys.executable, "-c", READ_AND_HASH, *frames], work, runs)
    table.row("read and SHA-256", floor, None)
    ours: dict[str, Cost] = {}
    for how in ("clipped", "median"):
        ours[how] = best_cost(bias_command(f"{how}.fits", frames, "--combine", how), work, runs)
        whole = scatter(image_of(work / f"{how}.fits") - truth)
        remark = f"{whole:.3f} ADU with the overscan as subtracted"
        table.row(
            f"awe-bias --combine {how}", ours[how], error_of(work / f"{how}.fits", truth), remark=remark
        )
    goals = {"SWarp CLIPPED": "goal of clipped: 0.25", "Gnuastro median": "goal of median: 0.50"}
    goals["ccdproc sigma_clip"] = "goal of clipped: 0.10"
    for name, output, missing, command in peers(frames):
        if missing:
            table.missing(name, missing)
            continue
        took = best_cost(command, work, runs, before=partial((work / output).unlink, missing_ok=True))
        ratios = [f"{ours[how].cpu_s / took.cpu_s:.3f} of it" for how in ("clipped", "median")]
        table.row(name, took, error_of(work / output, truth), *ratios, remark=goals.get(name, ""))


def many(work: Path, frames: Sequence[Path], counts: Sequence[int], truth: np.ndarray, runs: int) -> None:
    """More frames: time a frame, against reading and hashing, and memory under two caps."""
    print(f"\nmore frames (goals: 4 x reading and hashing, a frame at {counts[-1]} 1.5 x one at {counts[0]})")
    table = Table("error ADU", "ms a frame", "x floor")
    for count in counts:
        some = frames[:count]
        floor = best_cost([sys.executable, "-c", READ_AND_HASH, *some], work, runs)
        table.row(f"read and SHA-256, {count} frames", floor, None, 1000 * floor.cpu_s / count, None)
        for how in ("clipped", "median"):
            took = best_cost(bias_command("many.fits", some, "--combine", how), work, runs)
            table.row(
                f"awe-bias --combine {how}, {count} frames",
                took,
                error_of(work / "many.fits", truth),
                1000 * took.cpu_s / count,
                took.cpu_s / floor.cpu_s,
            )
    took = best_cost(bias_command("small.fits", frames, "--combine", "median", "--memory", "128M"), work, 1)
    same = (work / "small.fits").read_bytes() == (work / "many.fits").read_bytes()
    remark = f"the same bits: {same}"
    table.row("the same with --memory 128M", took, None, 1000 * took.cpu_s / len(frames), None, remark=remark)


if __name__ == "__main__":
    main()
