"""Darks, hot pixels and cold pixels: what the masks find of the truth, and what they take; one run.

    defects.py [--runs N]

A simulated detector of 2048 x 4096 pixels. Hot pixels have log-uniform amplitudes; those
above 6 sigma of the master must be found. Cold pixels are those of the truth and more put into
the flat, 8% to 90% off, darker and brighter. Recall is of single pixels (columns are found
anyway); precision is of all that is masked. Peers are a clip of the whole image at 5 sigma of its
scatter, as most scripts do, and ccdproc's ccdmask.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import BIN, Table, best_cost, night, package, raw_frames, versions

from awetools.core.fits import Plane, open_fits, write_fits

SHAPE = ("--detectors", "1", "--shape", "2048x4096", "--filters", "R")
SHORT = (*SHAPE, "--exposures", "0", "--twilights", "0", "--darks", "5", "--dark-exptime-s", "12")
LONG = (*SHAPE, "--exposures", "0", "--twilights", "0", "--flats", "0", "--biases", "0", "--darks", "3")
HOT, COLD = 1, 2

# The whole image has one level and one scatter: what a script of a few lines does.
CLIP = """
import sys
import numpy as np
from astropy.io import fits
from astropy.stats import sigma_clipped_stats
data = fits.getdata(sys.argv[1]).astype(np.float32)
_, median, scatter = sigma_clipped_stats(data, sigma=3)
fits.writeto(sys.argv[2], (data > median + 5 * scatter).astype(np.uint8), overwrite=True)
"""
COMBINE = """
import sys
import astropy.units as u
from ccdproc import CCDData, Combiner, subtract_bias
bias = CCDData.read(sys.argv[1], unit="adu")
frames = [CCDData.read(one, unit="adu") for one in sys.argv[3:]]
stack = Combiner([one[:, 32:-32] for one in frames])
stack.sigma_clipping()
subtract_bias(stack.average_combine(), bias).write(sys.argv[2], overwrite=True)
"""
CCDMASK = """
import sys
import numpy as np
from astropy.io import fits
from ccdproc import ccdmask
data = fits.getdata(sys.argv[1]).astype(np.float64)
fits.writeto(sys.argv[2], ccdmask(data, findbadcolumns=True).astype(np.uint8), overwrite=True)
"""


def image(path: Path, name: str | None = None) -> np.ndarray:
    """An image of a file: the first, or the one of this name."""
    with open_fits(path) as fits:
        return fits.image(next(one.index for one in fits.hdus if one.is_image and name in (None, one.name)))


def score(found: np.ndarray, wanted: np.ndarray, allowed: np.ndarray) -> tuple[float, float]:
    """Recall of what is wanted, and the part of what was found that is allowed."""
    return float(found[wanted].mean()), float(allowed[found].mean())


def hot_truth(directory: Path, dark: Path) -> tuple[np.ndarray, np.ndarray]:
    """Single hot pixels above 6 sigma of the master, and all hot pixels."""
    rate, mask = (image(directory / "truth" / f"{name}_sim1.fits") for name in ("dark", "pixmask"))
    hot = mask & HOT != 0
    gain = float(raw_gain(directory))
    floor = float(np.median(rate))
    weight = image(dark, "WEIGHT")
    sigma = 1 / np.sqrt(np.median(weight[weight > 0]))
    columns = hot.sum(axis=0) > 100
    return hot & ~columns & ((rate - floor) / gain > 6 * sigma), hot


def raw_gain(directory: Path) -> float:
    """The gain of the first amplifier, e/ADU; the other is within 3%."""
    with open_fits(raw_frames(directory, "DARK")[0]["path"]) as fits:
        return float(fits.hdus[0].header["GAINA"])


def with_more_cold(flat: Path, made: Path) -> np.ndarray:
    """Put 2000 cold and bright pixels into a copy of a flat; where they are."""
    data, weight = image(flat, "SCI").copy(), image(flat, "WEIGHT")
    rng = np.random.default_rng(7)
    y, x = (rng.integers(0, side, 2000) for side in data.shape)
    off = np.exp(rng.uniform(np.log(0.08), np.log(0.9), 2000)) * rng.choice([-1, -1, 1], 2000)
    data[y, x] *= (1 + off).astype(np.float32)
    write_fits(made, [Plane("SCI", data), Plane("WEIGHT", weight)], [])
    placed = np.zeros(data.shape, bool)
    placed[y, x] = True
    return placed


def awe(name: str, *words: str | Path) -> list[str | Path]:
    """The command line of a maker."""
    return [BIN / f"awe-{name}", "-q", "--force", *words]


def darks(table: Table, work: Path, runs: int) -> None:
    """Master darks and the hot pixels of them, against the truth."""
    for label, words in (("5 of 12 s", SHORT), ("3 of 300 s", LONG)):
        directory = night(*words)
        raws = [one["path"] for one in raw_frames(directory, "DARK")]
        dark, hot = work / "dark.fits", work / "hot.fits"
        took = best_cost(awe("dark", "-o", dark, "--bias", work / "bias.fits", *raws), work, runs)
        weight = image(dark, "WEIGHT")
        truth = image(directory / "truth" / "dark_sim1.fits") / raw_gain(directory)
        good = (weight > 0) & (image(directory / "truth" / "pixmask_sim1.fits") == 0)
        pull = ((image(dark, "SCI") - truth) * np.sqrt(weight))[good]
        remark = (
            f"error {pull.mean():+.3f} +- {pull.std():.3f} sigma; {np.mean(np.abs(pull) > 6):.1e} beyond 6"
        )
        table.row(f"awe-dark, {label}", took, None, None, remark=remark)
        wanted, allowed = hot_truth(directory, dark)
        took = best_cost(awe("hotpix", "-o", hot, dark), work, runs)
        found = image(hot) & HOT != 0
        table.row(f"awe-hotpix, dark {label}", took, *score(found, wanted, allowed))
        took = best_cost([sys.executable, "-c", CLIP, dark, hot], work, runs)
        table.row(f"median + 5 sigma, dark {label}", took, *score(image(hot) != 0, wanted, allowed))
        if package("ccdproc") is None:
            table.missing("ccdproc Combiner", "ccdproc")
            continue
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            COMBINE,
            work / "bias.fits",
            work / "peer.fits",
            *raws,
        ]
        table.row(f"ccdproc Combiner, sigma clip, {label}", best_cost(command, work, 1), None, None)
    took = best_cost(awe("hotpix", "-o", work / "hot.fits", work / "bias.fits"), work, runs)
    found = image(work / "hot.fits") & HOT != 0
    table.row("awe-hotpix, bias", took, *score(found, wanted, allowed))


def flats(table: Table, work: Path, runs: int) -> None:
    """Cold pixels of a flat against the truth."""
    directory = night(*SHORT)
    raws = [one["path"] for one in raw_frames(directory, "DOMEFLAT")]
    flat, cold = work / "flat.fits", work / "cold.fits"
    subprocess.run(
        awe("domeflat", "-o", flat, "--bias", work / "bias.fits", *raws),
        cwd=work,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    mask = image(directory / "truth" / "pixmask_sim1.fits")
    columns = (mask & COLD != 0).sum(axis=0) > 100
    wanted = (mask & COLD != 0) & ~columns
    took = best_cost(awe("coldpix", "-o", cold, flat), work, runs)
    table.row("awe-coldpix", took, *score(image(cold) != 0, wanted, mask != 0))
    placed = with_more_cold(flat, work / "more.fits")
    found = cold_of(work / "more.fits")
    table.row("cold pixels 8% to 90% off", None, *score(found, placed & (mask == 0), placed | (mask != 0)))
    if package("ccdproc") is None:
        table.missing("ccdproc ccdmask", "ccdproc")
        return
    command = [sys.executable, "-W", "ignore", "-c", CCDMASK, work / "more.fits", cold]
    took = best_cost(command, work, 1)
    score_of_peer = score(image(cold) != 0, placed & (mask == 0), placed | (mask != 0))
    table.row("ccdproc ccdmask, the same", took, *score_of_peer)


def cold_of(flat: Path) -> np.ndarray:
    """The recipe on a flat that is no product, amplifier by amplifier."""
    from awetools.core.frame import Frame
    from awetools.core.kinds.coldpix import ColdpixParams, make_coldpix

    data, weight = image(flat, "SCI"), image(flat, "WEIGHT")
    half = data.shape[1] // 2
    boxes = (slice(0, half), slice(half, None))
    masks = [
        make_coldpix(Frame(data[:, box], weight[:, box]), ColdpixParams()).planes["MASK"] for box in boxes
    ]
    found: np.ndarray = np.hstack(masks) != 0
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3, help="runs of each command; the best one counts")
    runs = parser.parse_args().runs
    for line in versions(packages=("astropy", "ccdproc")):
        print(line)
    table = Table("recall", "precision", name_width=44)
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        biases = [one["path"] for one in raw_frames(night(*SHORT), "BIAS")]
        subprocess.run(
            awe("bias", "-o", work / "bias.fits", *biases), cwd=work, check=True, stdout=subprocess.DEVNULL
        )
        darks(table, work, runs)
        flats(table, work, runs)


if __name__ == "__main__":
    main()
