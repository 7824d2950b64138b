"""Flats and fringes: how right they are against simulated truth, and what they cost beside the peers.

    flats.py [--quick] [--shape NXxNY] [--frames N]

A simulated night of one detector in R, I and z: its lamp lights the detector unevenly (3%), its
twilight sky has small gradients, its night sky has gradients and fringes: 1% in I, 2% in z. Flatness is the
rms over blocks of 32 pixels of flat / truth; a second number has the plane taken off, since a
gradient that all skies share cannot be told from the response. The fringes left are the rms of
true pattern less pattern over that of the true one. Peers combine the same frames into a
median of normalised flats: Gnuastro (astarithmetic) and ccdproc.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measure
import numpy as np

from awetools.core.fits import open_fits
from awetools.core.pixels.planes import fit_plane
from awetools.core.pixels.smooth import block_statistics
from awetools.core.products import open_product

PLAIN, FRINGING, DETECTOR = "R", ("I", "z"), "sim1"
BLOCK_PX = 32

CCDPROC = """
import sys
import ccdproc, numpy as np
from astropy.nddata import CCDData
names, columns = sys.argv[2:], slice(32, -32)
frames = []
for name in names:
    one = CCDData.read(name, unit="adu")
    one = CCDData(one.data[:, columns].astype("float32"), unit="adu")
    frames.append(one.divide(np.median(one.data)))
ccdproc.combine(frames, method="median", dtype="float32").write(sys.argv[1], overwrite=True)
"""


def image(path: Path, plane: str | int = 0) -> Any:
    """The pixels of a plane of a file."""
    with open_fits(path) as fits:
        return fits.image(plane)


def flatness(path: Path, truth: Path, bad: Any) -> tuple[float, float]:
    """Rms of the blocks of flat / truth, and the same less a plane."""
    ratio = image(path, "SCI") / image(truth)
    use = (image(path, "WEIGHT") > 0) & (bad == 0)
    blocks = block_statistics(ratio, use, BLOCK_PX).median
    known = ~np.isnan(blocks)
    rest = blocks / fit_plane(blocks, known).rows((blocks.shape[0], blocks.shape[1]))
    return float(blocks[known].std() / blocks[known].mean()), float(rest[known].std())


def fringes_left(path: Path, truth: Path) -> float:
    """Rms of true pattern less pattern, over that of the true one, where frames show the sky."""
    pattern, true = image(path, "SCI"), image(truth)
    good = image(path, "WEIGHT") > 0
    scale = float((pattern * true)[good].sum()) / float(np.square(true)[good].sum())
    return float((pattern[good] / scale - true[good]).std() / true[good].std())


def store(night: Path, work: Path) -> None:
    """A store in `work` with the night's frames, its bias and hot pixels."""
    bias = [one["path"] for one in measure.raw_frames(night, "BIAS")]
    measure.cost([measure.BIN / "awe-init", "-q"], work)
    measure.cost([measure.BIN / "awe-ingest", "-q", "-j2", night / "raw"], work)
    measure.cost([measure.BIN / "awe-bias", "-q", "-o", "bias.fits", *bias], work)
    measure.cost([measure.BIN / "awe-hotpix", "-q", "-o", "hotpix.fits", "bias.fits"], work)


def make(
    table: measure.Table, program: str, out: str, inputs: Sequence[Path], work: Path, *more: str
) -> Path:
    """Run one of our programs as best of three, print its row, and return the product."""
    command = [measure.BIN / f"awe-{program}", "-q", "--force", "-o", out, *more, *inputs]
    took = measure.best_cost(command, work)
    table.row(f"awe-{program}, {len(inputs)} frames", took)
    return work / out


def fringe_of(table: measure.Table, night: Path, band: str, work: Path, *given: str) -> Path:
    """The fringe frame of a filter, with flats of its own."""
    lamps, skies, science = frames_of(night, band)
    dome = make(table, "domeflat", f"dome_{band}.fits", lamps, work, *given)
    make(table, "twiflat", f"twilight_{band}.fits", skies, work, *given)
    words = ("--twiflat", f"twilight_{band}.fits", "--no-nightflat")
    make(table, "flat", f"flat_{band}.fits", [dome], work, *words)
    return make(table, "fringe", f"fringe_{band}.fits", science, work, *given, "--flat", f"flat_{band}.fits")


def peers(table: measure.Table, flats: Sequence[Path], work: Path) -> None:
    """What the peers take for the median of the same flats, without bias and masks."""
    arithmetic = measure.program("astarithmetic")
    if arithmetic is None:
        table.missing("Gnuastro median", "Gnuastro")
    else:
        words: list[str | Path] = [arithmetic, "-g0", "-q", "--numthreads=1"]
        for path in flats:
            words += [path, path, "medianvalue", "/"]
        took = measure.best_cost([*words, str(len(flats)), "median", "-ognuastro.fits"], work)
        table.row(
            f"Gnuastro median, {len(flats)} flats", took, remark="overscan in it, no bias, mask or weight"
        )
    if measure.package("ccdproc") is None:
        table.missing("ccdproc.combine", "ccdproc")
        return
    command = [sys.executable, "-W", "ignore", "-c", CCDPROC, "ccdproc.fits", *flats]
    table.row(
        f"ccdproc median, {len(flats)} flats",
        measure.best_cost(command, work),
        remark="no bias, mask or weight",
    )


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small frames, to see that it runs")
    parser.add_argument("--shape", default="2048x4096", help="columns and rows of the detector")
    parser.add_argument("--frames", type=int, default=8, help="flats and science frames of each type")
    given = parser.parse_args()
    shape = "640x768" if given.quick else given.shape
    count = str(given.frames)
    night = measure.night(
        *(
            "--detectors",
            "1",
            "--shape",
            shape,
            "--filters",
            ",".join((PLAIN, *FRINGING)),
            "--biases",
            "6",
            "--darks",
            "0",
        ),
        *("--flats", count, "--twilights", count, "--exposures", count),
    )
    for line in measure.versions(["astarithmetic"], ["ccdproc"]):
        print(line)
    with tempfile.TemporaryDirectory(prefix="awe-bench-flats-") as folder:
        work = Path(folder)
        store(night, work)
        run(night, work)


def frames_of(night: Path, band: str) -> list[list[Path]]:
    """The dome flats, twilight flats and science frames of a filter."""
    return [
        [one["path"] for one in measure.raw_frames(night, name) if one["filter"] == band]
        for name in ("DOMEFLAT", "SKYFLAT", "OBJECT")
    ]


def run(night: Path, work: Path) -> None:
    """Make every flat of the night, then compare with truth."""
    table = measure.Table()
    given = ("--bias", "bias.fits", "--hotpix", "hotpix.fits")
    lamps, skies, science = frames_of(night, PLAIN)
    dome = make(table, "domeflat", "dome.fits", lamps, work, *given)
    twilight = make(table, "twiflat", "twilight.fits", skies, work, *given)
    nightly = make(table, "nightflat", "night.fits", science, work, *given, "--flat", "dome.fits")
    single = make(table, "flat", "single.fits", [dome], work, "--no-twiflat", "--no-nightflat")
    by_night = make(table, "flat", "by_night.fits", [dome], work, "--nightflat", "night.fits", "--no-twiflat")
    flat = make(table, "flat", "flat.fits", [dome], work, "--twiflat", "twilight.fits", "--no-nightflat")
    fringes = {band: fringe_of(table, night, band, work, *given) for band in FRINGING}
    peers(table, lamps, work)
    truth, bad = (
        night / "truth" / f"flat_adu_{PLAIN}_{DETECTOR}.fits",
        image(night / "truth" / f"pixmask_{DETECTOR}.fits"),
    )
    print(f"\n{'flat / truth, rms in blocks of 32 px':40s} {'as it is':>10s} {'no plane':>10s}   goal 0.001")
    for name, path in (
        ("twilight flat", twilight),
        ("night flat", nightly),
        ("master flat, dome alone", single),
        ("master flat, dome and night", by_night),
        ("master flat, dome and twilight", flat),
    ):
        whole, rest = flatness(path, truth, bad)
        print(f"{name:40s} {whole:10.5f} {rest:10.5f}")
    print()
    for band, fringe in fringes.items():
        rms = open_product(fringe).record["quality"]["measures"]["fringe_fraction"]
        left = fringes_left(fringe, night / "truth" / f"fringe_{band}_{DETECTOR}.fits")
        print(f"fringes in {band}: rms {rms:.4f} of the sky, left {left:.3f} of it (goal 0.1)")


if __name__ == "__main__":
    main()
