"""Products made again from raw frames alone in a directory of their own, and how they compare with those recorded."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engines.processes import kill_group
from ..errors import AweError, Integrity, Unavailable
from ..files import write_whole
from ..products import load_product, open_product
from ..record import read_record, sidecar
from .diffcauses import software_differences
from .replay import Product, Replay
from .replaytext import to_script

if TYPE_CHECKING:
    import numpy as np

SCRIPT, STORE = "make-again.sh", "again"
# The exit code of a script that made everything, if with other pixels.
OTHER_PIXELS = 3


@dataclass(frozen=True)
class Deviation:
    """How far the values of one plane (or all numbers of a table) are from those before.

    max_abs, rms: in the plane's unit. fraction: of the values that differ at all.
    rms_sigma: rms in units of the plane's own scatter; None where it has none.
    """

    plane: str
    max_abs: float
    rms: float
    fraction: float
    rms_sigma: float | None


@dataclass(frozen=True)
class Again:
    """A product that was made again.

    software: packages of which the version is another one, with both versions.
    deviations: where the bits differ and the product from before is still there.
    """

    product: Product
    path: Path
    same_bits: bool
    same_recipe: bool
    software: tuple[str, ...]
    deviations: tuple[Deviation, ...] = ()
    problem: str = ""

    def is_within(self, tolerance: float) -> bool:
        """Whether bits are the same, or other software came within a tolerance of the scatter and of the pixels."""
        if self.same_bits:
            return True
        if self.problem or not self.software:
            return False
        return all(_within(one, tolerance) for one in self.deviations)


def _within(one: Deviation, tolerance: float) -> bool:
    # Masks and tables have no scatter to compare with: of those the values that differ count.
    return (one.fraction if one.rms_sigma is None else one.rms_sigma) <= tolerance


def rerun(replay: Replay, directory: Path) -> list[Again]:
    """Make the products of a replay again below a directory, and compare each target.

    Raises Unavailable where the programs are not found or one of them fails, with what it said.
    """
    script = directory / SCRIPT
    write_whole(script, to_script(replay).encode(errors="surrogateescape"))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    if shutil.which("awe-ingest", path=path) is None:
        raise Unavailable("awe-ingest: not found in PATH, and a script runs the programs by their names")
    code, said = _carried_out(["/bin/sh", str(script), str(directory / STORE)], path)
    if code not in (0, OTHER_PIXELS):
        failure = Integrity if code == Integrity.exit_code else Unavailable
        raise failure(f"{script}: ended with {code}: {_first_error(said)}", hint="--keep ANOTHER keeps it")
    return [_again(one, directory / STORE / one.file) for one in replay.targets]


def _carried_out(command: Sequence[str], path: str) -> tuple[int, str]:
    """The exit code of a command and what it said; if this process is stopped, so is all that the command began."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "PATH": path},
        process_group=0,
    ) as process:
        try:
            said = process.communicate()[1]
        except BaseException:
            kill_group(process.pid, signal.SIGTERM)
            # Until the last of them has let go of standard error, nothing that they write can be removed.
            process.communicate()
            raise
    return process.returncode, said.decode(errors="replace")


def _first_error(said: str) -> str:
    """The first message that is no warning, and how many lines follow."""
    lines = [line for line in said.splitlines() if line and ": warning: " not in line]
    if not lines:
        return "it said nothing"
    return lines[0] if len(lines) == 1 else f"{lines[0]} (and {len(lines) - 1} more lines)"


def _again(product: Product, path: Path) -> Again:
    record, before = read_record(sidecar(path)), product.record
    software = tuple(f"{name} was {was}, is {now}" for name, was, now in software_differences(before, record))
    same_bits = record["product"]["content"] == before["product"]["content"]
    same_recipe = record["recipe_key"] == before["recipe_key"]
    if same_bits:
        return Again(product, path, same_bits, same_recipe, software)
    try:
        deviations = tuple(_deviations(path, Path(product.node.path)))
    except AweError as error:
        return Again(product, path, same_bits, same_recipe, software, problem=error.message)
    return Again(product, path, same_bits, same_recipe, software, deviations)


def _deviations(now: Path, before: Path) -> list[Deviation]:
    from ..frame import Frame, Table

    here, there = (load_product(open_product(one)) for one in (now, before))
    if isinstance(here, Frame) and isinstance(there, Frame):
        planes = [
            ("SCI", here.data, there.data),
            ("WEIGHT", here.weight, there.weight),
            ("MASK", here.mask, there.mask),
        ]
        return [
            _deviation(name, one, two) for name, one, two in planes if one is not None and two is not None
        ]
    assert isinstance(here, Table) and isinstance(there, Table)
    return [
        _deviation(name, values, there.columns[name], scatters=False)
        for name, values in here.columns.items()
        if name in there.columns and values.dtype.kind in "iuf"
    ]


def _deviation(name: str, now: np.ndarray, before: np.ndarray, scatters: bool = True) -> Deviation:
    """How far one array is from another of its shape; what is not finite in both counts as equal."""
    import numpy as np

    from ..pixels.stats import clipped

    if now.shape != before.shape:
        return Deviation(name, float("inf"), float("inf"), 1.0, None)
    equal = (now == before) | (np.isnan(now) & np.isnan(before))
    difference = np.where(equal, 0.0, now.astype(np.float64) - before.astype(np.float64))
    rms = float(np.sqrt(np.mean(np.square(difference)))) if difference.size else 0.0
    scatter = (
        float(clipped(before.astype(np.float32)).stdev) if scatters and before.dtype.kind == "f" else 0.0
    )
    return Deviation(
        plane=name,
        max_abs=float(np.abs(difference).max(initial=0.0)),
        rms=rms,
        fraction=float(1 - equal.mean()) if equal.size else 0.0,
        rms_sigma=rms / scatter if scatter > 0 else None,
    )


def as_object(one: Again, tolerance: float) -> dict[str, Any]:
    """What became of a product, for JSON; a number that is not finite is None."""
    import math

    def plain(value: float | None) -> float | None:
        return value if value is not None and math.isfinite(value) else None

    return {
        "path": one.product.node.path,
        "again": str(one.path),
        "same_bits": one.same_bits,
        "same_recipe": one.same_recipe,
        "within": one.is_within(tolerance),
        "software": list(one.software),
        "deviations": [
            {name: plain(value) if isinstance(value, float) else value for name, value in vars(each).items()}
            for each in one.deviations
        ],
        "problem": one.problem or None,
    }


def in_words(names: Sequence[Deviation]) -> str:
    """The deviations on one line."""
    return "; ".join(
        f"{one.plane}: max {one.max_abs:.3g}, rms {one.rms:.3g}"
        + (f" ({one.rms_sigma:.3g} of the scatter)" if one.rms_sigma is not None else "")
        + f", {one.fraction:.3%} of the values differ"
        for one in names
    )
