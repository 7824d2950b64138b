"""Finding and measuring sources beside SExtractor: time, what is found of the truth, how well, and true errors.

    sources.py [--seeds N] [--runs N] [--bench DIRECTORY]

Runs of 5 exposures x 2 chips of 2048 x 4096 by simulate_run.py of the shared bench (--bench, or
$AWETOOLS_BENCH), calibrated by the programs; both measure the same pixels with the same
weights. CPU is that of whole processes, a chip: ten chips, awe-sources -j2 (masks read, products with
their records), and one source-extractor after the other, with the settings of the shared bench
and with a filter and deblending as fine as ours. `found 22`: part of the sources brighter than 22
mag with one within 3 px; `true`: part of what was found with a source within 3 px. Scatter is
1.4826 MAD of stars of 16 to 19.5 mag without another source within 25 px. Pulls, (measured -
true) / error, of such stars without a flag, over all seeds, by magnitude: standard deviation within 5;
fluxes about the median part of the light in each frame and bin.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
from gastrom import BENCH, NETWORKS, ONE_THREAD, simulator
from measure import BIN, Cost, Table, best_cost, cache, cost, program, shell_environment, versions

from awetools.core.fits import open_fits

# Made anew if this changes.
VERSION = "1"
TIME_GOAL, PULL_GOAL = 0.9, 0.05
EDGE_PX, NEAR_PX, APART_PX = 15, 3.0, 25.0
BRIGHT_MAG, DEEP_MAG = (16.0, 19.5), 22.0
BINS_MAG = ((16, 17), (17, 18), (18, 19), (19, 20), (20, 21), (21, 22))
PULLS = ("x", "y", "AUTO", "aperture")
# CROWDED, BLENDED, SATURATED, EDGE, INCOMPLETE, NO_CENTROID, MASKED.
SPOILT = 127
PARAMETERS = (
    "NUMBER X_IMAGE Y_IMAGE XWIN_IMAGE YWIN_IMAGE ERRX2WIN_IMAGE ERRY2WIN_IMAGE ERRXYWIN_IMAGE FLUX_AUTO "
    "FLUXERR_AUTO MAG_AUTO MAGERR_AUTO KRON_RADIUS FLUX_PETRO FLUXERR_PETRO FLUX_ISO FLUXERR_ISO FLUX_APER(1) "
    "FLUXERR_APER(1) FLUX_RADIUS FWHM_IMAGE X2WIN_IMAGE Y2WIN_IMAGE XYWIN_IMAGE A_IMAGE B_IMAGE THETA_IMAGE "
    "ELLIPTICITY CLASS_STAR FLAGS"
)
SETTINGS = (
    "-CATALOG_TYPE FITS_1.0 -WEIGHT_TYPE MAP_WEIGHT -GAIN_KEY GAIN -SATUR_LEVEL 59000 -PIXEL_SCALE 0.24 "
    "-SEEING_FWHM 0.95 -PHOT_APERTURES 10 -DETECT_MINAREA 5 -BACK_SIZE 64 -VERBOSE_TYPE QUIET"
)
PYRAMID = "CONV NORM\n1 2 1\n2 4 2\n1 2 1\n"
PEERS = {
    "source-extractor": "-DETECT_THRESH 1.5 -ANALYSIS_THRESH 1.5 -FILTER_NAME pyramid.conv",
    "source-extractor, fine": "-DETECT_THRESH 1.0 -ANALYSIS_THRESH 1.0 -FILTER_NAME gauss.conv -DEBLEND_MINCONT 0.0005",
}


class List(NamedTuple):
    """What a program measured in a frame: 0-based pixels, ADU, their errors; which rows have no flag."""

    x: np.ndarray
    y: np.ndarray
    x_error: np.ndarray
    y_error: np.ndarray
    auto: np.ndarray
    auto_error: np.ndarray
    aperture: np.ndarray
    aperture_error: np.ndarray
    clean: np.ndarray


class Truth(NamedTuple):
    """True sources of a frame: 0-based pixels, ADU, magnitude, star or not, distance of the next one."""

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    mag: np.ndarray
    star: np.ndarray
    apart: np.ndarray
    inside: np.ndarray


# The input


def calibrated(seed: int, bench: Path) -> Path:
    """A run with a store in it, its frames reduced, and as SExtractor takes them; made, or kept from before."""
    place = cache() / f"sources-{VERSION}-{seed}"
    if (place / "done").exists():
        return place
    place.mkdir(parents=True, exist_ok=True)
    print(f"making seed {seed}", file=sys.stderr, flush=True)
    words: list[str | Path] = [
        sys.executable,
        bench / "simulate_run.py",
        "--out",
        place,
        "--seed",
        str(seed),
        "--jobs",
        "2",
    ]
    cost(words, place)
    store = place / "store"
    if not store.exists():
        cost([BIN / "awe-init", store], place)
    cost(
        [BIN / "awe-ingest", "-q", "--set", "site_longitude_deg=0", *sorted((place / "raw").glob("*.fits"))],
        store,
    )
    cost([BIN / "awe-make", "-q", "reduced"], store)
    (place / "done").touch()
    return place


def frames_of(place: Path) -> dict[str, Path]:
    """The reduced frames of a run by the name of the raw one."""
    found = {}
    for path in sorted((place / "store").rglob("*.fits")):
        record = path.with_name(path.name + ".json")
        if not record.exists():
            continue
        recipe = json.loads(record.read_text())["recipe"]
        if recipe["kind"] == "reduced":
            (raw,) = (one["path"] for one in recipe["inputs"] if one["kind"] == "raw_science")
            found[Path(raw).stem] = path
    return dict(sorted(found.items()))


def for_the_peer(frames: dict[str, Path], work: Path) -> None:
    """Image and weight of each frame as files of their own; the peer's settings."""
    from astropy.io import fits

    for name, path in frames.items():
        with open_fits(path) as product:
            for plane, ending in (("SCI", ""), ("WEIGHT", ".weight")):
                header = fits.Header({"GAIN": 2.0})
                fits.PrimaryHDU(product.image(product.hdu(plane).index), header).writeto(
                    work / f"{name}{ending}.fits"
                )
    (work / "columns").write_text("\n".join(PARAMETERS.split()))
    (work / "pyramid.conv").write_text(PYRAMID)
    profile = np.exp(-0.5 * np.add.outer(np.arange(-3, 4) ** 2, np.arange(-3, 4) ** 2))
    rows = "\n".join(" ".join(f"{one:.6f}" for one in row) for row in profile)
    (work / "gauss.conv").write_text(f"CONV NORM\n{rows}\n")


def peer_command(name: str, frames: dict[str, Path]) -> list[str] | None:
    """A shell that measures one frame after the other; None where there is no such program."""
    found = program("source-extractor", "sex")
    network = next((one for one in NETWORKS if os.path.exists(one)), None)
    if found is None or network is None:
        return None
    lines = [
        f"{shlex.quote(found)} {one}.fits -c none.sex {SETTINGS} {PEERS[name]} -PARAMETERS_NAME columns "
        f"-STARNNW_NAME {network} -WEIGHT_IMAGE {one}.weight.fits -CATALOG_NAME {one}.cat"
        for one in frames
    ]
    return ["sh", "-c", "set -e; : > none.sex; " + "; ".join(lines)]


# The lists


def own_list(path: Path) -> List:
    """A product of awe-sources."""
    with open_fits(path) as fits:
        rows = fits.table(fits.hdu("SOURCES").index)
    return List(
        rows["X_WIN_PX"] - 1,
        rows["Y_WIN_PX"] - 1,
        rows["X_WIN_ERROR_PX"],
        rows["Y_WIN_ERROR_PX"],
        rows["FLUX_AUTO_ADU"],
        rows["FLUX_AUTO_ERROR_ADU"],
        rows["FLUX_APERTURE_ADU"].reshape(len(rows["NUMBER"]), -1)[:, 0],
        rows["FLUX_APERTURE_ERROR_ADU"].reshape(len(rows["NUMBER"]), -1)[:, 0],
        rows["FLAGS"] & SPOILT == 0,
    )


def peer_list(path: Path) -> List:
    """A catalogue of SExtractor."""
    with open_fits(path) as fits:
        rows = fits.table(1)
    return List(
        rows["XWIN_IMAGE"] - 1,
        rows["YWIN_IMAGE"] - 1,
        np.sqrt(rows["ERRX2WIN_IMAGE"]),
        np.sqrt(rows["ERRY2WIN_IMAGE"]),
        rows["FLUX_AUTO"],
        rows["FLUXERR_AUTO"],
        rows["FLUX_APER"].reshape(len(rows["NUMBER"]), -1)[:, 0],
        rows["FLUXERR_APER"].reshape(len(rows["NUMBER"]), -1)[:, 0],
        rows["FLAGS"] == 0,
    )


def truth_of(place: Path, name: str, simulate: ModuleType) -> Truth:
    """The sources of a frame such as sci_r_01_c2."""
    from scipy.spatial import cKDTree

    manifest = json.loads((place / "run.json").read_text())
    run = {**manifest["arguments"], "plan": manifest["exposures"]}
    number, chip = int(name.split("_")[2]), int(name.rsplit("_c", 1)[1])
    exposure, (nx, ny) = run["plan"][number - 1], run["size"]
    sky = simulate.make_sky(run)
    x, y = (
        one - 1 for one in simulate.true_geometry(run, chip, exposure).sky_to_pixel(sky["RA"], sky["DEC"])
    )
    apart, _ = cKDTree(np.column_stack([x, y])).query(np.column_stack([x, y]), k=2)
    mag = sky["MAG"].astype(np.float64)
    rate = 10 ** (-0.4 * (mag + simulate.EXTINCTION * exposure["airmass"] - simulate.ZERO_POINT))
    flux = rate * run["exptime"] * exposure["transparency"] / simulate.GAIN
    inside = (x > EDGE_PX) & (y > EDGE_PX) & (x < nx - EDGE_PX) & (y < ny - EDGE_PX)
    return Truth(x, y, flux, mag, sky["TYPE"] == b"STAR", apart[:, 1], inside)


# The scores


class Scores:
    """What lists are worth, gathered over frames."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.counts = np.zeros(4)
        self.away: list[np.ndarray] = []
        self.magnitudes: list[np.ndarray] = []
        self.pulls: dict[tuple[int, int], dict[str, list[np.ndarray]]] = defaultdict(
            lambda: defaultdict(list)
        )

    def add(self, of: List, true: Truth, quality: bool) -> None:
        """One frame; quality: for more than the pulls."""
        from scipy.spatial import cKDTree

        here, there = np.column_stack([of.x, of.y]), np.column_stack([true.x, true.y])
        distance, row = cKDTree(here).query(there, distance_upper_bound=NEAR_PX)
        found = np.isfinite(distance)
        alone = found & true.inside & true.star & (true.apart > APART_PX)
        if quality:
            deep = true.inside & (true.mag < DEEP_MAG)
            away, near = cKDTree(there).query(here)
            middle = true.inside[near] | (away > NEAR_PX)
            self.counts += found[deep].sum(), deep.sum(), (away[middle] < NEAR_PX).sum(), middle.sum()
            bright = alone & (true.mag > BRIGHT_MAG[0]) & (true.mag < BRIGHT_MAG[1])
            i = row[bright]
            self.away += [of.x[i] - true.x[bright], of.y[i] - true.y[bright]]
            light = -2.5 * np.log10(of.auto[i] / true.flux[bright])
            self.magnitudes.append(light - np.median(light))
        alone[alone] &= of.clean[row[alone]]
        for low, high in BINS_MAG:
            use = alone & (true.mag >= low) & (true.mag < high)
            i, bins = row[use], self.pulls[low, high]
            bins["x"].append((of.x[i] - true.x[use]) / of.x_error[i])
            bins["y"].append((of.y[i] - true.y[use]) / of.y_error[i])
            for name, flux, error in (
                ("AUTO", of.auto, of.auto_error),
                ("aperture", of.aperture, of.aperture_error),
            ):
                part = np.median(flux[i] / true.flux[use]) if len(i) else 1.0
                bins[name].append((flux[i] - part * true.flux[use]) / error[i])

    def quality(self) -> tuple[float, float, int, float, float]:
        """Found to 22 mag, true, sources, scatter of positions (px) and of magnitudes of bright stars."""
        some, deep, true, every = self.counts
        return some / deep, true / every, int(every), scatter(self.away), scatter(self.magnitudes)

    def lines(self) -> list[str]:
        """The pulls, a line a bin."""
        lines = []
        for (low, high), bins in sorted(self.pulls.items()):
            texts = [f"{low} to {high} mag, {sum(map(len, bins['x'])):5d} stars:"]
            for name in PULLS:
                values = np.concatenate(bins[name])
                middle = np.abs(values - np.median(values)) < 5
                spread = float(np.std(values[middle]))
                own = spread / float(np.sqrt(2 * np.count_nonzero(middle)))
                mark = " " if abs(spread - 1) <= PULL_GOAL + own else "!"
                texts.append(f"{name} {spread:.2f} +- {own:.2f}{mark} ({np.count_nonzero(~middle)} out)")
            lines.append("  ".join(texts))
        return lines


def scatter(values: list[np.ndarray]) -> float:
    """1.4826 MAD of all values."""
    one = np.concatenate(values)
    return float(1.4826 * np.median(np.abs(one - np.median(one))))


def measure_own(store: Path, frames: dict[str, Path], runs: int) -> tuple[Cost, dict[str, Path]]:
    """What awe-sources takes for the frames of a run, and its products by the names of the frames."""
    import subprocess

    paths = list(frames.values())
    took = best_cost([BIN / "awe-sources", "-q", "-j2", *paths], store, runs, environment=ONE_THREAD)
    said = subprocess.run(
        [BIN / "awe-sources", "-q", "-u", *paths],
        cwd=store,
        env=shell_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    made = [store / one for one in said.stdout.split("\n") if one]
    return took, dict(zip(frames, made, strict=True))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs for the pulls; the first is timed")
    parser.add_argument("--runs", type=int, default=3, help="runs of each program, the least CPU counts")
    parser.add_argument("--bench", type=Path, default=BENCH, help="where simulate_run.py is")
    options = parser.parse_args()
    simulate = simulator(options.bench)
    print("\n".join(versions(["source-extractor"], ["sep"])))
    table = Table("found 22", "true", "sources", "scatter px", "scatter mag")
    scores: dict[str, Scores] = defaultdict(Scores)
    costs: dict[str, Cost] = {}
    for seed in range(1, options.seeds + 1):
        place = calibrated(seed, options.bench)
        frames, first = frames_of(place), seed == 1
        truths = {name: truth_of(place, name, simulate) for name in frames}
        took, products = measure_own(place / "store", frames, options.runs if first else 1)
        costs.setdefault("awe-sources -j2", took)
        for name, path in products.items():
            scores["awe-sources -j2"].add(own_list(path), truths[name], first)
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            for_the_peer(frames, work)
            for peer in PEERS:
                command = peer_command(peer, frames)
                if command is None:
                    continue
                took = best_cost(command, work, options.runs if first else 1, environment=ONE_THREAD)
                costs.setdefault(peer, took)
                for name in frames:
                    scores[peer].add(peer_list(work / f"{name}.cat"), truths[name], first)
    for name, took in costs.items():
        each = Cost(took.wall_s / len(frames), took.cpu_s / len(frames), took.peak_mb)
        table.row(name, each, *scores[name].quality())
    if len(costs) == 1:
        table.missing("source-extractor", "source-extractor")
    else:
        ratio = costs["awe-sources -j2"].cpu_s / costs["source-extractor"].cpu_s
        print(f"CPU, awe-sources / source-extractor: {ratio:.2f} (goal {TIME_GOAL})")
    for name in costs:
        print(f"pulls of {name} (goal 1.00 +- {PULL_GOAL}; ! where it is missed by more than its own error)")
        print("\n".join(scores[name].lines()))


if __name__ == "__main__":
    main()
