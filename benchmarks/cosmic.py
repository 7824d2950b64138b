"""Cosmic rays: what is found of the truth, what else is masked, and what it takes, beside astroscrappy; one run.

    cosmic.py [--frames N] [--shape NXxNY] [--runs N]

Simulated frames with stars of 3.3 and 2.5 pixels FWHM (0.7 and 0.53 arcsec on 0.21 arcsec
pixels), reduced with their true bias and flat; bad and saturated pixels are given to all. A true
pixel holds more than 100 e- of a cosmic ray: `complete` is the part of them that was found,
`tracks` the part of tracks of which anything was, `pure` the part of what was found that is
true. `false` are found pixels without any charge of a ray in them or beside them, `cores` the
stars of which a pixel within one of the centre was masked though no ray hit it. `search s` is
the CPU of the search alone, the other costs are of a process that reads the frame and writes
the mask. astroscrappy runs with its defaults, on one thread.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from measure import Cost, Table, cost, night, package, raw_frames, versions

from awetools.core.fits import open_fits
from awetools.core.pixels.saturate import saturated
from awetools.core.pixels.smooth import background
from awetools.core.simulate.readout import FrameName, cosmic_rays

TRUE_E = 100.0
FAINTEST_MAG = 24.0
SCALE_ARCSEC = 0.21
SEEINGS_ARCSEC = (0.7, 0.525)

# Every search is a process of its own; it gets a file of arrays and leaves the mask and its own CPU seconds.
OURS = """
import json, sys, time
import numpy as np
from awetools.core.pixels.cosmic import find_cosmic_rays
frame = np.load(sys.argv[1])
image, sky, bad, gain, noise = (frame[name] for name in ("image", "sky", "bad", "gain", "noise"))
start = time.process_time()
found = find_cosmic_rays(image, background_adu=sky, gain_e_adu=gain, read_noise_adu=noise, bad=bad).mask
took = time.process_time() - start
np.save(sys.argv[2], found)
json.dump(took, open(sys.argv[3], "w"))
"""
PEER = """
import json, sys, time
import numpy as np
from astroscrappy import detect_cosmics
frame = np.load(sys.argv[1])
image, bad, gain, noise = (frame[name] for name in ("image", "bad", "gain", "noise"))
start = time.process_time()
found, _ = detect_cosmics(image, inmask=bad, gain=float(gain), readnoise=float(gain * noise), satlevel=1e9)
took = time.process_time() - start
np.save(sys.argv[2], found)
json.dump(took, open(sys.argv[3], "w"))
"""


class Scene(NamedTuple):
    """A reduced frame and its truth: charge of rays (e-), its scatter (e-), the stars' centres (x, y)."""

    image: np.ndarray
    sky: np.ndarray
    bad: np.ndarray
    gain: float
    noise: float
    rays_e: np.ndarray
    sigma_e: np.ndarray
    stars: np.ndarray


def pixels(path: Path) -> np.ndarray:
    """The image of a file."""
    with open_fits(path) as fits:
        return np.asarray(fits.image(next(one.index for one in fits.hdus if one.is_image)))


def scene(directory: Path, row: dict[str, Any]) -> Scene:
    """A simulated science frame, reduced as well as can be."""
    truth, path, detector = directory / "truth", row["path"], row["detector"]
    with open_fits(path) as fits:
        header = fits.hdus[0].header
    raw = pixels(path).astype(np.float32)
    flat = pixels(truth / f"flat_adu_{row['filter']}_{detector}.fits")
    data, trimmed = levelled(raw, flat.shape[1])
    image = (data - pixels(truth / f"bias_{detector}.fits")) / flat
    bad = saturated(trimmed, float(header["SATURATE"])) | (pixels(truth / f"pixmask_{detector}.fits") != 0)
    sky, gain = background(image, ~bad), float(row["effective_gain_e_adu"])
    noise = float(np.mean([float(header[f"RDNOISE{one}"]) / float(header[f"GAIN{one}"]) for one in "AB"]))
    run = json.loads((directory / "run.json").read_text())["parameters"]
    name = FrameName("OBJECT", row["filter"], int(row["index"]), int(detector[3:]) - 1)
    rays = cosmic_rays(name.stream(run["seed"], "cosmics"), image.shape, float(row["exptime_s"]))
    marked = pixels(truth / "mask" / path.name) & 8 != 0
    if not (rays[marked] > 0).all():
        raise SystemExit(f"{path}: the simulator's cosmic rays are not those of its mask")
    sigma = np.sqrt(np.maximum(sky, 0) * gain + (noise * gain) ** 2)
    return Scene(
        image, sky, bad, gain, noise, rays, sigma, stars_of(truth, path.stem, row["filter"], image.shape)
    )


def levelled(raw: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The two amplifiers' data less the median of the overscan of each row, and as they were."""
    over, half = (raw.shape[1] - width) // 2, width // 2
    data = raw[:, over:-over]
    levels = np.repeat(
        [np.median(raw[:, :over], axis=1), np.median(raw[:, -over:], axis=1)], [half, width - half], axis=0
    )
    return data - levels.T.astype(np.float32), data


def stars_of(truth: Path, stem: str, band: str, shape: tuple[int, ...]) -> np.ndarray:
    """Rounded centres (x, y) of the stars inside the frame."""
    from astropy.io import fits
    from astropy.wcs import WCS

    stars = fits.getdata(truth / "catalog.fits")
    stars = stars[(stars["TYPE"] == "STAR") & (stars[f"MAG_{band}"] < FAINTEST_MAG)]
    header = fits.Header.fromstring((truth / "wcs" / f"{stem}.head").read_text(), sep="\n")
    centres = np.transpose(WCS(header).all_world2pix(stars["RA"], stars["DEC"], 0))
    last = np.array(shape[::-1]) - 3
    inside: np.ndarray = centres[((centres > 2) & (centres < last)).all(axis=1)]
    return np.rint(inside).astype(int)


def scores(found: np.ndarray, of: Scene) -> tuple[float | str, ...]:
    """Complete, tracks, pure, false, cores."""
    from scipy.ndimage import binary_dilation, label

    ring = np.ones((3, 3))
    true = (of.rays_e > TRUE_E) & ~of.bad
    found = found & ~of.bad
    tracks, number = label(true, ring)
    hit = np.unique(tracks[found & true]).size
    false = found & ~binary_dilation(of.rays_e > 0.5 * of.sigma_e, ring)
    untouched = ~binary_dilation((of.rays_e > 0.3 * of.sigma_e) | of.bad, ring)
    masked = binary_dilation(found, ring)
    x, y = of.stars.T
    alone = untouched[y, x]
    cores = f"{int(masked[y, x][alone].sum())}/{int(alone.sum())}"
    return float(found[true].mean()), hit / number, float(true[found].mean()), int(false.sum()), cores


def search(script: str, work: Path, runs: int, environment: dict[str, str]) -> tuple[Cost, np.ndarray, float]:
    """The least cost of several runs, the mask, and the CPU seconds of the search alone."""
    best: tuple[Cost, float] | None = None
    for _ in range(runs):
        command = [sys.executable, "-c", script, work / "frame.npz", work / "mask.npy", work / "took.json"]
        took = cost(command, work, environment=environment)
        alone = float(json.loads((work / "took.json").read_text()))
        if best is None or alone < best[1]:
            best = took, alone
    assert best is not None
    return best[0], np.load(work / "mask.npy"), best[1]


def compare(table: Table, label: str, of: Scene, work: Path, runs: int) -> None:
    """Print the rows of one frame."""
    arrays = {"image": of.image, "sky": of.sky, "bad": of.bad, "gain": of.gain, "noise": of.noise}
    np.savez(work / "frame.npz", **arrays)
    searches = [
        ("awetools", OURS, runs, {}),
        ("awetools, numpy only", OURS, runs, {"AWETOOLS_KERNELS": "numpy"}),
    ]
    if package("astroscrappy"):
        searches.append(("astroscrappy, default", PEER, 1, {"OMP_NUM_THREADS": "1"}))
    for name, script, times, environment in searches:
        took, mask, alone = search(script, work, times, environment)
        table.row(f"{label}: {name}", took, alone, *scores(mask, of))
    if not package("astroscrappy"):
        table.missing(f"{label}: astroscrappy", "astroscrappy")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=1, help="frames of each seeing")
    parser.add_argument("--shape", default="2048x4096", help="columns x rows of a frame")
    parser.add_argument("--runs", type=int, default=3, help="runs of ours; the one with the least CPU counts")
    options = parser.parse_args()
    for line in versions(packages=("astroscrappy",)):
        print(line)
    table = Table("search s", "complete", "tracks", "pure", "false", "cores", name_width=42)
    words = ["--detectors", "1", "--biases", "0", "--flats", "0", "--twilights", "0", "--darks", "0"]
    words += ["--shape", options.shape, "--exposures", str(options.frames), "--stars-per-arcmin2", "40"]
    words += ["--pixel-scale", str(SCALE_ARCSEC)]
    for seeing in SEEINGS_ARCSEC:
        directory = night(*words, "--seeing", str(seeing))
        for row in raw_frames(directory, "OBJECT"):
            label = f"{float(row['seeing_arcsec']) / SCALE_ARCSEC:.1f} px, frame {row['index']}"
            with tempfile.TemporaryDirectory() as place:
                compare(table, label, scene(directory, row), Path(place), options.runs)


if __name__ == "__main__":
    main()
