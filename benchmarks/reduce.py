"""Reducing science exposures: what a frame takes in a batch beside its floor and Gnuastro, and how true it is.

    reduce.py [--runs N]

A simulated detector of 2048 x 4096 pixels, two amplifiers, all calibrations made by the
programs. CPU is that of a whole process that reduces ten exposures, per exposure. The floor is what no
program can avoid: read the raw frame, write three planes (float32, float32, int16), SHA-256 of each
once. Gnuastro subtracts one overscan value and the bias and divides by the flat: no mask, no weight.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import BIN, Cost, Table, best_cost, night, program, raw_frames, shell_environment, versions

from awetools.core.fits import open_fits

NIGHT = (
    "--detectors",
    "1",
    "--shape",
    "2048x4096",
    "--filters",
    "R",
    "--exposures",
    "10",
    "--twilights",
    "7",
)
NIGHT = (*NIGHT, "--darks", "5", "--biases", "10", "--flats", "10")
# What of the simulator's truth spoils the light of a star.
FLAWS = 4 | 8 | 16
APERTURE_SEEING, ANNULUS_SEEING = 2.0, (3.0, 4.5)

FLOOR = """
import hashlib, sys
import numpy as np
planes = np.zeros((4096, 2048), ">f4"), np.zeros((4096, 2048), ">f4"), np.zeros((4096, 2048), ">i2")
for path in sys.argv[2:]:
    with open(path, "rb") as file:
        hashlib.sha256(file.read())
    with open(sys.argv[1], "wb") as file:
        for plane in planes:
            hashlib.sha256(plane)
            plane.tofile(file)
"""


def run(words: list[str | Path], cwd: Path, stdin: str | None = None) -> str:
    """Run a program that must succeed; its standard output."""
    done = subprocess.run(
        [str(BIN / str(words[0])), *map(str, words[1:])],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        env=shell_environment(),
    )
    if done.returncode:
        raise SystemExit(f"{words[0]} ended with {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def calibrated(store: Path, directory: Path) -> None:
    """Make a store of the night and all its calibrations."""
    run(["awe-init", store], store.parent)
    run(["awe-ingest", "-q", *sorted((directory / "raw").glob("*.fits"))], store)
    for name, raw in (
        ("readnoise", "raw_bias"),
        ("bias", "raw_bias"),
        ("gain", "raw_domeflat"),
        ("dark", "raw_dark"),
        ("hotpix", "dark"),
        ("domeflat", "raw_domeflat"),
        ("twiflat", "raw_twiflat"),
        ("coldpix", "domeflat"),
        ("flat", "domeflat"),
    ):
        run([f"awe-{name}", "-q"], store, run(["awe-query", raw], store))


def a_frame(took: Cost, frames: int) -> Cost:
    """The cost of one frame of a batch."""
    return Cost(took.wall_s / frames, took.cpu_s / frames, took.peak_mb)


def gnuastro(frame: Path, bias: Path, flat: Path) -> list[str] | None:
    """A shell that reduces one frame with Gnuastro as far as it goes."""
    programs = [program(name) for name in ("astcrop", "aststatistics", "astarithmetic")]
    if None in programs:
        return None
    crop, statistics, arithmetic = programs
    one = "-q -h0 --mode=img --section"
    script = (
        f"set -e; {crop} {one}=1:32,1:4096 {frame} -o over.fits; {crop} {one}=33:2080,1:4096 {frame} -o data.fits; "
        f"level=$({statistics} -q over.fits -h1 --median); "
        f"{arithmetic} -q -N1 data.fits -h1 float32 $level - {bias} -h0 - {flat} -h0 / -o reduced.fits"
    )
    return ["sh", "-c", f"rm -f over.fits data.fits reduced.fits; {script}"]


def image(path: Path, name: str | None = None) -> np.ndarray:
    with open_fits(path) as fits:
        hdu = fits.hdu(name).index if name else next(one.index for one in fits.hdus if one.is_image)
        return fits.image(hdu)


def stars_of(directory: Path, stem: str) -> tuple[np.ndarray, np.ndarray]:
    """0-based pixels of the simulated stars of a frame, by the true coordinates."""
    from astropy.io import fits
    from astropy.wcs import WCS

    header = fits.Header.fromstring((directory / "truth" / "wcs" / f"{stem}.head").read_text(), sep="\n")
    rows = fits.getdata(directory / "truth" / "catalog.fits")
    rows = rows[rows["TYPE"] == "STAR"]
    x, y = WCS(header).all_world2pix(rows["RA"], rows["DEC"], 0)
    return np.asarray(x), np.asarray(y)


def light_ratios(directory: Path, frame: dict[str, str], product: Path) -> tuple[np.ndarray, np.ndarray]:
    """Light of each clean star in the reduced frame over its true light, and the expected error of that."""
    stem = Path(frame["file"]).stem
    truth, flaws = (image(directory / "truth" / name / f"{stem}.fits") for name in ("science", "mask"))
    data, weight, mask = image(product), image(product, "WEIGHT"), image(product, "MASK")
    clean = (mask == 0) & (flaws & FLAWS == 0)
    scale_px = float(frame["seeing_arcsec"]) / 0.25
    radius, (inner, outer) = APERTURE_SEEING * scale_px, (one * scale_px for one in ANNULUS_SEEING)
    reach = int(np.ceil(outer))
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    ratios, errors = [], []
    for x, y in zip(*stars_of(directory, stem), strict=True):
        i, j = round(float(x)), round(float(y))
        if not (reach <= i < truth.shape[1] - reach and reach <= j < truth.shape[0] - reach):
            continue
        box = (slice(j - reach, j + reach + 1), slice(i - reach, i + reach + 1))
        away = np.hypot(dx + i - x, dy + j - y)
        inside, around = away < radius, (away > inner) & (away < outer) & clean[box]
        if not clean[box][inside].all() or np.count_nonzero(around) < 100:
            continue
        light = truth[box][inside].sum() - np.median(truth[box][around]) * inside.sum()
        # Of the difference, so that the median of the surroundings is that of noise alone.
        more = data[box] - truth[box]
        excess = more[inside].sum() - np.median(more[around]) * inside.sum()
        gain = float(frame["effective_gain_e_adu"])
        variance = (1 / weight[box][inside]).sum() * (1 + inside.sum() / around.sum()) + max(light, 0) / gain
        if light > 100 * np.sqrt(variance):
            ratios.append(1 + excess / light)
            errors.append(np.sqrt(variance) / light)
    return np.array(ratios), np.array(errors)


def photometry(directory: Path, frames: list[dict[str, str]], products: list[Path]) -> str:
    """How far the light of stars is off, in words."""
    found = [light_ratios(directory, one, path) for one, path in zip(frames, products, strict=True)]
    ratios, errors = (np.concatenate([one[k] for one in found]) for k in (0, 1))
    keep = abs(ratios - np.median(ratios)) < 5 * np.median(errors) + 0.02
    weights = 1 / errors[keep] ** 2
    bias = float(np.average(ratios[keep], weights=weights)) - 1
    pulls = (ratios[keep] - 1 - bias) / errors[keep]
    return (
        f"light of {keep.sum()} stars (signal/noise > 100), reduced / true - 1: {100 * bias:+.4f}% "
        f"+- {100 / np.sqrt(weights.sum()):.4f}%; scatter / expected {pulls.std():.2f}"
    )


def masks(directory: Path, frames: list[dict[str, str]], products: list[Path]) -> list[str]:
    """Recall and precision of each mask against the truth, over all frames."""
    names = {"saturated and bleeding": 4, "cosmic rays": 8, "trails": 16}
    counts = {name: np.zeros(3) for name in names}
    for frame, path in zip(frames, products, strict=True):
        truth = image(directory / "truth" / "mask" / f"{Path(frame['file']).stem}.fits")
        mask = image(path, "MASK")
        for name, bit in names.items():
            true, found = truth & bit != 0, mask & bit != 0
            counts[name] += (true & found).sum(), true.sum(), found.sum()
    return [
        f"{name}: {both / max(true, 1):.3f} of the truth found, {both / max(found, 1):.3f} of what was found is true"
        for name, (both, true, found) in counts.items()
    ]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3, help="runs of each, the least CPU counts")
    runs = parser.parse_args().runs
    print("\n".join(versions(["astarithmetic"], ["awetools", "numpy"])))
    directory = night(*NIGHT)
    frames = raw_frames(directory, "OBJECT")
    paths = [one["path"] for one in frames]
    with tempfile.TemporaryDirectory() as work:
        store = Path(work) / "store"
        calibrated(store, directory)
        out = Path(work) / "reduced"
        table = Table()
        floor = best_cost([sys.executable, "-c", FLOOR, f"{work}/floor", *paths], Path(work), runs)
        start = best_cost([sys.executable, "-c", "import numpy"], Path(work), runs)
        floor = Cost(floor.wall_s - start.wall_s, floor.cpu_s - start.cpu_s, floor.peak_mb)
        table.row("floor: read, write, SHA-256", a_frame(floor, len(paths)))
        for name, options in (
            ("awe-reduce, no cosmic rays, no trails", ["--no-cosmic-rays", "--no-trails"]),
            ("awe-reduce, no cosmic rays", ["--no-cosmic-rays"]),
            ("awe-reduce, all masks", []),
        ):
            command = [BIN / "awe-reduce", "-q", *options, "--out-dir", out, *paths]
            table.row(name, a_frame(best_cost(command, store, runs), len(paths)))
        bias, flat = (Path(run(["awe-query", kind], store).split()[0]) for kind in ("bias", "flat"))
        peer = gnuastro(paths[0], bias, flat)
        if peer:
            table.row("Gnuastro, one process a step", best_cost(peer, Path(work), runs))
        else:
            table.missing("Gnuastro", "astarithmetic")
        products = [out / one.name for one in paths]
        print(photometry(directory, frames, products))
        print("\n".join(masks(directory, frames, products)))


if __name__ == "__main__":
    main()
