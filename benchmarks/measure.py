"""What the benchmarks share: the cost of a process, a table, versions, simulated nights that are kept.

Costs are those of whole processes, taken from outside as a shell would: wall and CPU
seconds (user + system) with all children, and the peak memory of the largest process.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import awetools.core.simulate

BIN = Path(sys.executable).parent
# Where simulated nights are kept between runs.
CACHE = "AWETOOLS_BENCH_CACHE"

# The floor under every stage: each file read once, and its SHA-256.
READ_AND_HASH = (
    "import hashlib, sys\n"
    "for path in sys.argv[1:]:\n"
    "    with open(path, 'rb') as file:\n"
    "        print(hashlib.sha256(file.read()).hexdigest())\n"
)

# A process starts with the memory of the one that forks it on its account: so a small one forks it.
_LAUNCHER = """
import os, sys, time
start = time.monotonic()
number = os.fork()
if not number:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        os.execvp(sys.argv[1], sys.argv[1:])
    except OSError as error:
        os.write(2, f"{sys.argv[1]}: {error.strerror}".encode())
    os._exit(127)
_, status, usage = os.wait4(number, 0)
wall = time.monotonic() - start
print(os.waitstatus_to_exitcode(status), wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
"""

Command = Sequence[str | Path]


class Cost(NamedTuple):
    """Wall and CPU seconds and peak memory of one process and its children."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def cost(
    command: Command, cwd: Path, stdin: str | None = None, environment: Mapping[str, str] | None = None
) -> Cost:
    """Run a command that must succeed, and say what it took; SystemExit with its messages if it fails."""
    with tempfile.TemporaryFile() as messages, tempfile.TemporaryFile() as given:
        given.write((stdin or "").encode())
        given.seek(0)
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _LAUNCHER, *(str(one) for one in command)],
            cwd=cwd,
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=messages,
            env={**shell_environment(), **(environment or {})},
            text=True,
            check=True,
        )
        code, wall, cpu, peak = (float(word) for word in done.stdout.split())
        if code:
            messages.seek(0)
            text = messages.read().decode(errors="replace")[-2000:]
            raise SystemExit(f"{command[0]} ended with {code:.0f}\n{text}")
    return Cost(wall, cpu, peak)


def best_cost(
    command: Command,
    cwd: Path,
    runs: int = 3,
    before: Callable[[], object] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Cost:
    """The run with the least CPU seconds of several; `before` is called before each, to tidy up."""
    costs = []
    for _ in range(runs):
        if before is not None:
            before()
        costs.append(cost(command, cwd, environment=environment))
    return min(costs, key=lambda one: one.cpu_s)


def median_cost(command: Command, cwd: Path, runs: int = 9) -> Cost:
    """The medians over several runs, after a warm-up."""
    cost(command, cwd)
    costs = [cost(command, cwd) for _ in range(runs)]
    return Cost(*(statistics.median(values) for values in zip(*costs, strict=True)))


def shell_environment() -> dict[str, str]:
    """The environment of a measured process: this Python's programs first, compiled modules kept."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


# Peers


def program(*names: str) -> str | None:
    """The first of these programs that is installed, or None."""
    path = shell_environment()["PATH"]
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


def package(name: str) -> str | None:
    """The version of an installed Python package, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions(programs: Sequence[str] = (), packages: Sequence[str] = ()) -> list[str]:
    """Lines that say on what and with what a benchmark ran; what is not installed is named too."""
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {_processor()}"
    own = ", ".join(f"{name} {package(name)}" for name in ("awetools", "numpy"))
    peers = [f"{name} {_program_version(name)}" for name in programs]
    peers += [f"{name} {package(name) or 'not installed'}" for name in packages]
    return [
        f"Python {platform.python_version()}, {own}; {machine}",
        *(["peers: " + ", ".join(peers)] if peers else []),
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def _program_version(name: str) -> str:
    found = program(name)
    if found is None:
        return "not installed"
    done = subprocess.run([found, "--version"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    words = (done.stdout or done.stderr).split("\n", 1)[0].split()
    return next((word for word in words if word[:1].isdigit()), "of unknown version")


# The table


class Table:
    """Rows on standard output: a name, what it took, further columns of the benchmark's own."""

    def __init__(self, *columns: str, name_width: int = 40) -> None:
        """columns: headings of the further values; a value is shown as wide as its heading, 10 at least."""
        self.columns, self.name_width = columns, name_width
        heads = [f"{'':{name_width}s}", f"{'wall s':>8s}", f"{'cpu s':>8s}", f"{'peak MB':>8s}"]
        print(" ".join([*heads, *(f"{one:>{self._width(one)}s}" for one in columns)]), flush=True)

    def row(self, name: str, took: Cost | None, *values: float | str | None, remark: str = "") -> None:
        """Print a row; numbers with 4 significant digits, None as a dash."""
        costs = took or (None, None, None)
        cells = [f"{name:{self.name_width}s}"]
        for value, form in zip(costs, ("8.3f", "8.3f", "8.0f"), strict=True):
            cells.append(f"{'-':>8s}" if value is None else f"{value:{form}}")
        for heading, one in zip(self.columns, values, strict=False):
            cells.append(f"{_text(one):>{self._width(heading)}s}")
        print(" ".join(cells) + (f"   {remark}" if remark else ""), flush=True)

    def missing(self, name: str, what: str) -> None:
        """Print the row of a peer that is not installed."""
        print(f"{name:{self.name_width}s} skipped: {what} is not installed", flush=True)

    @staticmethod
    def _width(heading: str) -> int:
        return max(10, len(heading))


def _text(value: float | str | None) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.4g}"


# Simulated nights


def night(*words: str, jobs: int = 2) -> Path:
    """The directory of a simulated night, made by awe-simulate with these options or kept from before.

    Kept under $AWETOOLS_BENCH_CACHE (else the user's cache directory), by options and
    simulator: a changed simulator makes the night anew.
    """
    folder = cache()
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / hashlib.sha256("\0".join([*words, _simulator()]).encode()).hexdigest()[:16]
    if (place / "run.json").exists():
        return place
    with tempfile.TemporaryDirectory(dir=folder) as work:
        print(f"awe-simulate {' '.join(words)}", file=sys.stderr, flush=True)
        cost([BIN / "awe-simulate", f"{work}/night", *words, f"-j{jobs}", "-q"], Path(work))
        shutil.rmtree(place, ignore_errors=True)
        os.replace(f"{work}/night", place)
    return place


def cache() -> Path:
    """Where what a benchmark makes is kept for the next run."""
    given = os.environ.get(CACHE)
    if given:
        return Path(given).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "awetools" / "benchmarks"


def _simulator() -> str:
    folder = Path(awetools.core.simulate.__path__[0])
    texts = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))
    return hashlib.sha256(texts).hexdigest()


def raw_frames(directory: Path, *types: str) -> list[dict[str, Any]]:
    """The frames of a simulated night of these types (BIAS, DOMEFLAT, ...; none: all), as frames.csv has them.

    Each is a dict of texts, with `path` the raw file.
    """
    import csv

    with (directory / "frames.csv").open(newline="") as file:
        rows = [dict(one) for one in csv.DictReader(file)]
    for one in rows:
        one["path"] = directory / "raw" / Path(one["file"]).name
    return [one for one in rows if not types or one["obstype"] in types]
