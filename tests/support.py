"""What several tests need: the real data's place, the programs, small FITS files made by hand."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("AWETOOLS_TEST_DATA", ROOT.parent / "shared" / "data"))
# Kinds that the small night has not enough stars for: they are in the store `sky_store`.
ON_SKY = {
    "gastrom",
    "astrom",
    "gphot",
    "zeropoint",
    "sourcelist",
    "regrid",
    "coadd",
    "difference",
    "illumination",
}


def data_path(name: str) -> Path:
    """A file or folder of the real test data; skips the test, naming it, where it is absent."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"real test data absent: {name} (looked in {DATA}; set AWETOOLS_TEST_DATA)")
    return path


@dataclass(frozen=True)
class Ran:
    """What a program printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """The lines of standard output."""
        return self.out.splitlines()


def program(
    name: str,
    *arguments: object,
    stdin: str | bytes | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
) -> Ran:
    """Run a program of the package as a process of its own, as a shell would."""
    command = [sys.executable, "-m", "awetools", name, *(str(one) for one in arguments)]
    data = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        command,
        input=data if data is not None else b"",
        capture_output=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        timeout=timeout,
        check=False,
    )
    return Ran(
        done.returncode, done.stdout.decode(errors="surrogateescape"), done.stderr.decode(errors="replace")
    )


def awe(name: str, *arguments: object, stdin: str | None = None, cwd: Path | None = None) -> str:
    """Run a program that must succeed; returns its standard output."""
    ran = program(name, *arguments, stdin=stdin, cwd=cwd)
    assert ran.code == 0, f"awe-{name} ended with {ran.code}:\n{ran.err}"
    return ran.out


def awe_here(name: str, *arguments: object, cwd: Path) -> list[str]:
    """Like `awe`, but in this process, which takes a tenth of the time; returns the lines of its output."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="surrogateescape", write_through=True)
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out):
        code = _run(name, arguments)
    assert code == 0, f"awe-{name} ended with {code}"
    return out.buffer.getvalue().decode(errors="surrogateescape").splitlines()


def _run(name: str, arguments: Sequence[object]) -> int:
    from awetools.commands.runner import run

    command = importlib.import_module(f"awetools.commands.{name}").command
    return run(command, [str(one) for one in arguments], f"awe-{name.rstrip('_')}")


@dataclass
class InProcess:
    """Runs commands in this process, which is faster than a process each."""

    capfd: pytest.CaptureFixture[str]

    def __call__(self, name: str, *arguments: object) -> Ran:
        self.capfd.readouterr()
        code = _run(name, arguments)
        out, err = self.capfd.readouterr()
        return Ran(code, out, err)


def write_raw(
    path: Path, data: np.ndarray, cards: Mapping[str, object] | None = None, checksum: bool = False
) -> Path:
    """A raw frame as a camera that follows the FITS standard writes it."""
    from astropy.io import fits

    header = fits.Header()
    defaults: dict[str, object] = {
        "INSTRUME": "testcam",
        "DETECTOR": "chip1",
        "IMAGETYP": "bias",
        "EXPTIME": 0.0,
        "DATE-OBS": "2024-03-02T23:10:00.000",
        "EGAIN": 1.5,
    }
    for key, value in {**defaults, **(cards or {})}.items():
        if value is not None:
            header[key] = value
    fits.PrimaryHDU(data, header).writeto(path, overwrite=True, checksum=checksum)
    return path


def bias_frames(
    directory: Path,
    count: int = 4,
    shape: Sequence[int] = (64, 96),
    level: float = 1000.0,
    noise: float = 5.0,
) -> list[Path]:
    """A few biases with different noise, as uint16 files."""
    rng = np.random.default_rng(7)
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        data = rng.normal(level, noise, tuple(shape)).round().astype(np.uint16)
        card = {"DATE-OBS": f"2024-03-02T23:1{number}:00.000"}
        paths.append(write_raw(directory / f"bias{number}.fits", data, card))
    return paths
