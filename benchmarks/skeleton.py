"""What the skeleton takes: starting, registering, stacking, many writers; whole processes, one run.

    skeleton.py [--quick] [--only NAME,...]

Every row is measured from outside, as a shell would: wall and CPU seconds of the
whole process with its children, and the peak memory of the largest process. Start-up
rows are the median of nine runs and are compared with `python -c "import click"`.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measure import BIN, Cost, cost, median_cost, shell_environment

from awetools.core.fits import Plane, write_fits


def row(name: str, one: Cost, remark: str = "") -> None:
    """Print a row of the table."""
    print(f"{name:44s} {one.wall_s:8.3f} {one.cpu_s:8.3f} {one.peak_mb:8.0f}   {remark}", flush=True)


def listed(*words: str, cwd: Path) -> str:
    """What a query prints."""
    done = subprocess.run([BIN / "awe-query", *words], cwd=cwd, capture_output=True, text=True, check=True)
    return done.stdout


def start_up(work: Path, quick: bool) -> None:
    """Goal: --help and a query of a small index within 3 times `import click`."""
    cost([BIN / "awe-init", "."], work)
    raw = work / "few"
    small_frames(raw, 20)
    cost([BIN / "awe-ingest", "-q", raw], work)
    base = median_cost([sys.executable, "-c", "import click"], work)
    row('python -c "import click"', base)
    for words in (("awe-bias", "--help"), ("awe-query", "raw_bias"), ("awe-lineage", "--help")):
        one = median_cost([BIN / words[0], *words[1:]], work)
        row(" ".join(words), one, f"{one.wall_s / base.wall_s:.2f} x import click (goal: 3)")


def small_frames(directory: Path, count: int) -> None:
    """So many small raw biases."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(count)
    for number in range(count):
        data = rng.integers(900, 1100, (32, 32)).astype(np.uint16)
        seconds = 60.0 * number
        day, rest = divmod(seconds, 86400)
        hour, rest = divmod(rest, 3600)
        cards = [
            ("INSTRUME", "benchcam", ""),
            ("IMAGETYP", "bias", ""),
            ("EXPTIME", 0.0, ""),
            ("SITELONG", 10.0, ""),
            ("DATE-OBS", f"2024-03-{1 + int(day):02d}T{int(hour):02d}:{int(rest // 60):02d}:01", ""),
        ]
        write_fits(directory / f"frame{number:05d}.fits", [Plane(name="", data=data)], cards)


def ingest(work: Path, quick: bool) -> None:
    """Goal: 10,000 frames again in 5 s when nothing changed."""
    count = 1000 if quick else 10000
    small_frames(work / "many", count)
    cost([BIN / "awe-init", "."], work)
    row(f"awe-ingest -j2, {count} frames", cost([BIN / "awe-ingest", "-q", "-j2", "many"], work))
    row("the same again, nothing changed", cost([BIN / "awe-ingest", "-q", "-j2", "many"], work), "goal: 5 s")


def stacks(work: Path, quick: bool) -> None:
    """Goal: memory under the cap for 100 frames of 2048 x 4096; the same bits for any cap."""
    shape, counts = ("512x1024", (10, 30)) if quick else ("2048x4096", (10, 20, 100))
    words = ["--detectors", "1", "--biases", str(counts[-1]), "--flats", "0", "--exposures", "0"]
    words += ["--darks", "0", "--twilights", "0", "--shape", shape, "-j2", "-q"]
    row(f"awe-simulate, {counts[-1]} biases {shape}", cost([BIN / "awe-simulate", "night", *words], work))
    frames = sorted((work / "night" / "raw").iterdir())
    for count in counts:
        one = cost([BIN / "awe-bias", "-q", "-o", f"bias{count}.fits", *frames[:count]], work)
        row(
            f"awe-bias, {count} frames {shape}",
            one,
            f"{1000 * one.cpu_s / count:.0f} ms a frame; cap 1024 MB",
        )
    one = cost([BIN / "awe-bias", "-q", "--memory", "128M", "-o", "small.fits", *frames], work)
    same = (work / "small.fits").read_bytes() == (work / f"bias{counts[-1]}.fits").read_bytes()
    row("the same with --memory 128M", one, f"the same bits: {same}")


def writers(work: Path, quick: bool) -> None:
    """Goal: 64 tools that write the index at once lose no row and give no error."""
    count = 16 if quick else 64
    cost([BIN / "awe-init", "."], work)
    small_frames(work / "frames", 4)
    start = time.monotonic()
    running = [
        subprocess.Popen(
            [BIN / "awe-bias", "-q", "-o", f"bias{number}.fits", *sorted((work / "frames").iterdir())],
            cwd=work,
            stdout=subprocess.DEVNULL,
            env=shell_environment(),
        )
        for number in range(count)
    ]
    failed = sum(1 for one in running if one.wait())
    wall = time.monotonic() - start
    rows = len(listed("bias", cwd=work).splitlines())
    row(
        f"{count} x awe-bias at once", Cost(wall, float("nan"), float("nan")), f"{rows} rows, {failed} errors"
    )


STAGES: dict[str, Callable[[Path, bool], None]] = {
    "start": start_up,
    "ingest": ingest,
    "stacks": stacks,
    "writers": writers,
}


def main() -> None:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--only", default=",".join(STAGES), help="stages: " + ", ".join(STAGES))
    given = parser.parse_args()
    print(
        f"Python {platform.python_version()}, numpy {np.__version__}, {os.cpu_count()} cores, {platform.machine()}"
    )
    print(f"{'':44s} {'wall s':>8s} {'cpu s':>8s} {'peak MB':>8s}")
    for name in given.only.split(","):
        work = Path(tempfile.mkdtemp(prefix=f"awe-bench-{name}-"))
        try:
            STAGES[name](work, given.quick)
        finally:
            shutil.rmtree(work)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"largest process of all: {peak:.0f} MB")


if __name__ == "__main__":
    main()
