"""Gain and linearity: how far from the truth of simulated detectors, and what they take; one run.

    gain.py [--runs N] [--quick]

Each night is one simulated detector of 2048 x 4096 pixels with two amplifiers; the gain of
every amplifier must be within 1% of the truth. No peer measures gains, so the comparison is
what a script of a few lines does with the first two flats: mean level over half the variance of
their difference less the read noise, in the central 500 x 500 pixels of an amplifier.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from measure import BIN, Table, best_cost, night, raw_frames, versions

from awetools.core.fits import open_fits
from awetools.core.products import load_product, open_product

DETECTOR = ("--detectors", "1", "--shape", "2048x4096", "--biases", "5")
ONLY_FLATS = (*DETECTOR, "--twilights", "0", "--darks", "0", "--exposures", "0")
NIGHTS: dict[str, tuple[str, ...]] = {
    "10 flats": ("--flats", "10"),
    "5 flats": ("--flats", "5"),
    "brighter-fatter": ("--flats", "10", "--brighter-fatter", "0.15"),
    "both, 5 flats": ("--flats", "5", "--brighter-fatter", "0.1", "--nonlinearity", "0.03"),
    "both, wide": (
        *("--flats", "16", "--brighter-fatter", "0.1", "--nonlinearity", "0.05"),
        *("--flat-low-adu", "1000", "--flat-high-adu", "50000"),
    ),
    "0.5 e/ADU": ("--flats", "8", "--gain-e-adu", "0.5"),
    "5 e/ADU": ("--flats", "8", "--gain-e-adu", "5", "--flat-low-adu", "3000", "--flat-high-adu", "14000"),
}
QUICK = ("10 flats", "both, 5 flats")
HALF_PX = 250


def awe(*words: str | Path, cwd: Path, given: str = "") -> str:
    """What one of our programs prints."""
    command = [str(BIN / words[0]), *(str(one) for one in words[1:])]
    done = subprocess.run(command, cwd=cwd, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{words[0]} ended with {done.returncode}\n{done.stderr}")
    return done.stdout


def store_of(directory: Path, work: Path) -> Path:
    """A store with the raw frames of a night, their read noise and bias."""
    work.mkdir()
    awe("awe-init", ".", cwd=work)
    awe("awe-ingest", "-q", directory / "raw", cwd=work)
    biases = awe("awe-query", "raw_bias", cwd=work)
    for program in ("awe-readnoise", "awe-bias"):
        awe(program, "-q", cwd=work, given=biases)
    return work


def textbook(directory: Path, amplifiers: list[dict[str, Any]]) -> float:
    """The largest relative error of the gain from the first two flats, as a simple script has it."""
    paths = [one["path"] for one in raw_frames(directory, "DOMEFLAT")][:2]
    images = []
    for path in paths:
        with open_fits(path) as fits:
            images.append(fits.image(0).astype(np.float64))
    worst = 0.0
    for amplifier in amplifiers:
        x = sum(amplifier["data"]) // 2
        y = images[0].shape[0] // 2
        box = (slice(y - HALF_PX, y + HALF_PX), slice(x - HALF_PX, x + HALF_PX))
        zero = [image[:, slice(*amplifier["overscan"])].mean() for image in images]
        one, other = (image[box] - level for image, level in zip(images, zero, strict=True))
        variance = (one - other * one.mean() / other.mean()).var() / 2 - amplifier["read_noise_adu"] ** 2
        gain = 0.5 * (one.mean() + other.mean()) / variance
        worst = max(worst, abs(gain / amplifier["gain_e_adu"] - 1))
    return worst


def run(name: str, words: tuple[str, ...], work: Path, runs: int, table: Table) -> None:
    """One night: what the gain takes, and how far it is from the truth."""
    directory = night(*ONLY_FLATS, *words)
    truth = json.loads((directory / "run.json").read_text())["camera"]["detectors"][0]["amplifiers"]
    store = store_of(directory, work)
    flats = [str(one["path"]) for one in raw_frames(directory, "DOMEFLAT")]
    took = best_cost([BIN / "awe-gain", "-q", "-o", "gain.fits", *flats], store, runs)
    found = load_product(open_product(store / "gain.fits")).columns  # type: ignore[union-attr]
    true = np.array([one["gain_e_adu"] for one in truth])
    error = np.abs(found["GAIN_E_ADU"] / true - 1).max()
    said = (found["GAIN_ERROR_E_ADU"] / true).max()
    measured = found["LINEARITY_EXPOSURES"] > 0
    nonlinear: float | None = None
    if measured.all():
        top = found["FLAT_LEVEL_ADU"].max(axis=1)
        # What is read is 1 - c s / 65535 of the signal s, so little less that the level read serves.
        expected = [-one["nonlinearity"] * level / 65535 for one, level in zip(truth, top, strict=True)]
        nonlinear = float(100 * np.abs(found["NONLINEARITY_FRACTION"] - expected).max())
    script = 100 * textbook(directory, truth)
    remark = "" if error < 0.01 else "MISSED"
    table.row(name, took, 100 * float(error), 100 * float(said), nonlinear, script, remark=remark)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3, help="runs of each, of which the cheapest counts")
    parser.add_argument("--quick", action="store_true", help="two nights only")
    options = parser.parse_args()
    print("\n".join(versions()))
    print("gain: goal within 1% of the truth; linearity: '-' where the lamp (0.2%) does not allow it")
    table = Table("gain off %", "its error %", "nonlinearity off %", "two flats, script %", name_width=20)
    with tempfile.TemporaryDirectory() as work:
        for number, (name, words) in enumerate(NIGHTS.items()):
            if not options.quick or name in QUICK:
                run(name, words, Path(work) / str(number), options.runs, table)


if __name__ == "__main__":
    main()
