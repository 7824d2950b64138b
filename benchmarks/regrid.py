"""Regridding beside SWarp, reproject and drizzle: what it takes, and what it does to stars; one run.

    regrid.py [--bench DIRECTORY] [--runs N] [--quick]

Frames are made by simulate_run.py of the shared bench (beside this repository, or --bench, or
AWETOOLS_BENCH), reduced with the true bias and flat, with the true TPV solution, and put on a
TAN grid of 0.24 arcsec; kept under AWETOOLS_BENCH_CACHE. All get values and weights. Processes
read frames and write what they make; `batch` is one process for ten frames. `shift` is the rms
of the windowed centroids after minus before, through the true solutions, `flux` the median
ratio of aperture fluxes, less the change of the pixels' area, `rms` its scatter. SWarp: no
background subtracted, no combination, one thread. The other peers are measured without reading
and writing, and with their pixel maps. `products`: awe-regrid of ten exposures of a simulated night, from the store
to products with their records (coordinates, background and seeing measured there too), and SWarp on what awe-export
makes of the same frames.
What each kernel does to stars without noise: sampling.py.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gastrom import BENCH, ONE_THREAD
from measure import BIN, Cost, Table, best_cost, cache, cost, night, package, program, raw_frames, versions
from reduce import NIGHT, calibrated, run

from awetools.core.fits import open_fits
from awetools.core.fitsheader import format_card, wcs_cards
from awetools.core.fitswrite import Plane, write_fits
from awetools.core.pixels.fillsmall import fill_small
from awetools.core.pixels.resample import TAPS, resample
from awetools.core.sky.pixelmap import pixel_map
from awetools.core.sky.readwcs import read_wcs
from awetools.core.sky.wcs import Wcs
from awetools.core.sky.writewcs import wcs_as_cards

# Frames made anew if this or the simulator changes.
VERSION = "1"
SCALE_DEG = 0.24 / 3600
BATCH = 10
TIME_GOAL, SHIFT_GOAL = 0.25, 0.1
APERTURE_PX, SIGMA_PX = 9.0, 1.8
KERNELS = tuple(name for name in TAPS if name != "nearest")
OPTIONS = (
    "-COMBINE N -WEIGHT_TYPE MAP_WEIGHT -WEIGHT_SUFFIX .weight.fits -RESCALE_WEIGHTS N -SUBTRACT_BACK N "
    "-FSCALASTRO_TYPE NONE -NTHREADS 1 -WRITE_XML N -VERBOSE_TYPE QUIET -DELETE_TMPFILES N"
)
SWARP = OPTIONS.split()


class Grid(NamedTuple):
    """A TAN grid that holds one frame."""

    wcs: Wcs
    shape: tuple[int, int]


# The input


def frames(bench: Path, quick: bool) -> Path:
    """A folder with frame.fits, frame.weight.fits and catalog.fits; made, or kept from before."""
    size = "1024x1024" if quick else "2048x4096"
    key = f"{VERSION} {size}".encode() + (bench / "simulate_run.py").read_bytes()
    place = cache() / f"regrid-{hashlib.sha256(key).hexdigest()[:16]}"
    if place.exists():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as work:
        run = Path(work) / "run"
        words = f"--out {run} --chips 1 --exposures 1 --biases 0 --flats 0 --jobs 1 --size {size}"
        cost([sys.executable, bench / "simulate_run.py", *words.split()], Path(work))
        made = Path(work) / "made"
        made.mkdir()
        reduce_one(run, made)
        os.replace(run / "truth" / "catalog.fits", made / "catalog.fits")
        os.replace(made, place)
    return place


def reduce_one(run: Path, to: Path) -> None:
    """Reduce the frame with the truth; its weight is that of the background."""
    from astropy.io import fits

    path = next((run / "raw").glob("sci_*.fits"))
    raw, header = fits.getdata(path).astype("f4"), fits.getheader(path)
    data, bias = (
        slice(
            *(
                int(one) - step
                for one, step in zip(header[key][1:].split(",")[0].split(":"), (1, 0), strict=True)
            )
        )
        for key in ("DATASEC", "BIASSEC")
    )
    truth = run / "truth"
    response = fits.getdata(truth / "response_c1.fits")
    image = raw[:, data] - np.median(raw[:, bias], axis=1)[:, None]
    bad = (image > 58000) | (fits.getdata(truth / "pixmask_c1.fits.fz") > 0)
    bad |= fits.getdata(truth / f"cosmic_{path.stem}.fits.fz") > 0
    image = (image - fits.getdata(truth / "bias_c1.fits")) / response
    sky, gain = float(np.median(image[::8, ::8])), header["GAIN"]
    weight = response**2 / (sky * response / gain + (header["RDNOISE"] / gain) ** 2)
    text = (truth / "wcs" / f"{path.stem}.head").read_text()
    cards = fits.Header.fromstring(text, sep="\n")
    fits.PrimaryHDU(image.astype("f4"), cards).writeto(to / "frame.fits")
    fits.PrimaryHDU(np.where(bad, 0, weight).astype("f4"), cards).writeto(to / "frame.weight.fits")


def read(path: Path) -> tuple[np.ndarray, Wcs]:
    """Image and coordinate system of a file."""
    with open_fits(path) as fits:
        return np.asarray(fits.image(0), np.float32), read_wcs(wcs_cards(fits.hdus[0].header))


def grid_of(wcs: Wcs, shape: tuple[int, ...]) -> Grid:
    """A grid around a frame, its reference point off the frame's middle, as in a mosaic."""
    ra, dec = wcs.to_sky(shape[1] / 2, shape[0] / 2)
    rough = Wcs((float(ra) + 0.05, float(dec) + 0.03), (0.0, 0.0), (-SCALE_DEG, 0.0, 0.0, SCALE_DEG))
    edge_x = np.r_[
        np.linspace(0, shape[1], 50), np.linspace(0, shape[1], 50), np.zeros(50), np.full(50, shape[1])
    ]
    edge_y = np.r_[
        np.zeros(50), np.full(50, shape[0]), np.linspace(0, shape[0], 50), np.linspace(0, shape[0], 50)
    ]
    x, y = rough.to_pixel(*wcs.to_sky(edge_x + 0.5, edge_y + 0.5))
    x0, y0 = np.floor(x.min()) - 3, np.floor(y.min()) - 3
    size = int(np.ceil(y.max()) + 3 - y0), int(np.ceil(x.max()) + 3 - x0)
    return Grid(Wcs(rough.crval_deg, (-x0, -y0), rough.matrix), size)


# What is measured


def regrid_here(out: Path, kernel_name: str, paths: list[Path]) -> None:
    """What the measured process does: frames to regridded frames, with weight and mask."""
    for path in paths:
        image, wcs = read(path)
        weight, _ = read(path.with_suffix(".weight.fits"))
        grid = grid_of(wcs, image.shape)
        mask = np.zeros(image.shape, np.int16)
        filled = fill_small(image, weight == 0, weight=weight, mask=mask, copy=False)
        places = pixel_map(grid.wcs, wcs, grid.shape, image.shape)
        made = resample(filled.data, places, weight=filled.weight, mask=filled.mask, kernel_name=kernel_name)
        cards = [(key, value, "") for key, value in wcs_as_cards(grid.wcs, "TPV").items()]
        planes = [Plane("SCI", made.data), Plane("WEIGHT", made.weight), Plane("MASK", made.mask)]
        product = out / f"{path.stem}.regrid.fits"
        product.unlink(missing_ok=True)
        write_fits(product, planes, cards)


def links(folder: Path, work: Path, number: int) -> list[Path]:
    """The frame under so many names."""
    made = []
    for i in range(number):
        for suffix in (".fits", ".weight.fits"):
            link = work / f"frame{i}{suffix}"
            link.unlink(missing_ok=True)
            link.symlink_to(folder / f"frame{suffix}")
        made.append(work / f"frame{i}.fits")
    return made


def swarp_head(grid: Grid) -> str:
    """The grid, as SWarp takes it."""
    cards: dict[str, Any] = {"NAXIS": 2, "NAXIS1": grid.shape[1], "NAXIS2": grid.shape[0]}
    cards |= wcs_as_cards(grid.wcs, "TPV") | {"RADESYS": "ICRS", "EQUINOX": 2000.0}
    return "\n".join(format_card(k, v).decode().rstrip() for k, v in cards.items()) + "\nEND\n"


def swarp(work: Path, grid: Grid, names: list[Path], kernel_name: str, runs: int) -> Cost:
    """What SWarp takes; frame0.resamp.fits lies in the folder afterwards."""
    (work / "sw.head").write_text(swarp_head(grid))
    command = [str(program("SWarp", "swarp")), *(one.name for one in names), *SWARP]
    command += [
        "-IMAGEOUT_NAME",
        "sw.fits",
        "-WEIGHTOUT_NAME",
        "sw.weight.fits",
        "-RESAMPLING_TYPE",
        kernel_name,
    ]
    return best_cost(command, work, runs=runs, environment=ONE_THREAD)


class Stars(NamedTuple):
    """Stars away from others and from bad pixels: measured x, y and flux on the frame (0-based), and there in truth."""

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    ra: np.ndarray
    dec: np.ndarray


def aperture(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fluxes less the ring around, and windowed places."""
    import sep

    plane = np.ascontiguousarray(image, np.float32)
    flux, _, _ = sep.sum_circle(plane, x, y, APERTURE_PX, subpix=0, bkgann=(14, 20))
    wx, wy, _ = sep.winpos(plane, x, y, np.full(len(x), SIGMA_PX))
    return flux, wx, wy


def stars_of(folder: Path, image: np.ndarray, weight: np.ndarray, wcs: Wcs) -> Stars:
    """What the shared bench measures: stars of 16.3 to 19 mag, 30 pixels from anything brighter than 22."""
    from scipy.spatial import cKDTree

    with open_fits(folder / "catalog.fits") as fits:
        rows = fits.table(1)
    x, y = (one - 1 for one in wcs.to_pixel(rows["RA"], rows["DEC"]))
    places = np.column_stack([x, y])
    near, _ = cKDTree(places[rows["MAG"] < 22]).query(places, k=2)
    kind = np.char.strip(np.asarray(rows["TYPE"], str))
    ok = (kind == "STAR") & (rows["MAG"] > 16.3) & (rows["MAG"] < 19) & (near[:, 1] > 30)
    ok &= (x > 40) & (x < image.shape[1] - 40) & (y > 40) & (y < image.shape[0] - 40)
    for i in np.flatnonzero(ok):
        stamp = np.s_[int(y[i]) - 14 : int(y[i]) + 16, int(x[i]) - 14 : int(x[i]) + 16]
        ok[i] = (weight[stamp] > 0).all()
    flux, wx, wy = aperture(image, x[ok], y[ok])
    return Stars(wx, wy, flux, *wcs.to_sky(wx + 1, wy + 1))


def fidelity(image: np.ndarray, grid: Grid, stars: Stars, wcs: Wcs) -> tuple[float, str, float]:
    """rms of the shifts (px), median and scatter of the flux ratios."""
    x, y = (one - 1 for one in grid.wcs.to_pixel(stars.ra, stars.dec))
    flux, wx, wy = aperture(np.where(np.isfinite(image), image, 0), x, y)
    area = wcs.pixel_area_arcsec2(stars.x + 1, stars.y + 1) / grid.wcs.pixel_area_arcsec2(x + 1, y + 1)
    ratio = flux / stars.flux / area
    return robust(np.concatenate([wx - x, wy - y])), f"{np.median(ratio):.5f}", robust(ratio)


def robust(values: np.ndarray) -> float:
    """The scatter about the median, of the shared bench."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def in_process(work: Callable[[], np.ndarray], runs: int) -> tuple[Cost, np.ndarray]:
    """The least CPU of several runs, and the last result."""
    costs = []
    for _ in range(runs):
        wall, cpu = time.monotonic(), time.process_time()
        made = work()
        costs.append(Cost(time.monotonic() - wall, time.process_time() - cpu, float("nan")))
    return min(costs, key=lambda one: one.cpu_s), made


def own_rows(table: Table, folder: Path, runs: int) -> None:
    """Ours, without reading and writing: the map, and each kernel."""
    image, wcs = read(folder / "frame.fits")
    weight, _ = read(folder / "frame.weight.fits")
    grid, stars = grid_of(wcs, image.shape), stars_of(folder, image, weight, wcs)
    print(f"{len(stars.x)} stars, grid {grid.shape[1]} x {grid.shape[0]}")
    mask = np.where(weight > 0, 0, 1).astype(np.int16)
    took, _ = in_process(lambda: fill_small(image, weight == 0, weight=weight, mask=mask).data, runs)
    table.row("fill_small", took)
    places = pixel_map(grid.wcs, wcs, grid.shape, image.shape)
    took, _ = in_process(lambda: np.array(pixel_map(grid.wcs, wcs, grid.shape, image.shape).error_px), runs)
    table.row("pixel map", took, remark=f"step {places.step_px} px, error {places.error_px:.1e} px")
    filled = fill_small(image, weight == 0, weight=weight, mask=mask)
    for name in KERNELS:

        def work(name: str = name) -> np.ndarray:
            given = {"weight": filled.weight, "mask": filled.mask}
            return resample(filled.data, places, kernel_name=name, **given).data  # type: ignore[arg-type]

        took, made = in_process(work, runs)
        table.row(name, took, *fidelity(made, grid, stars, wcs))


def peer_rows(table: Table, folder: Path) -> None:
    """reproject and drizzle."""
    image, wcs = read(folder / "frame.fits")
    weight, _ = read(folder / "frame.weight.fits")
    grid, stars = grid_of(wcs, image.shape), stars_of(folder, image, weight, wcs)
    for name, work in (
        reproject_cases(folder, image, grid) | drizzle_case(folder, image, weight, grid)
    ).items():
        took, made = in_process(work, 1)
        table.row(name, took, *fidelity(made, grid, stars, wcs))
    for name in ("reproject", "drizzle"):
        if package(name) is None:
            table.missing(name, name)


def systems(folder: Path, grid: Grid) -> tuple[Any, Any]:
    """Those of the frame and the grid, by astropy."""
    from astropy.io import fits
    from astropy.wcs import WCS

    return WCS(fits.getheader(folder / "frame.fits")), WCS(fits.Header.fromstring(swarp_head(grid), sep="\n"))


def reproject_cases(folder: Path, image: np.ndarray, grid: Grid) -> dict[str, Callable[[], np.ndarray]]:
    if package("reproject") is None:
        return {}
    import reproject

    source, target = systems(folder, grid)

    def case(function: str, **options: Any) -> Callable[[], np.ndarray]:
        call = getattr(reproject, function)
        return lambda: call((image, source), target, shape_out=grid.shape, roundtrip_coords=False, **options)[
            0
        ]

    return {
        "reproject_interp bilinear": case("reproject_interp", order="bilinear"),
        "reproject_interp bicubic": case("reproject_interp", order="bicubic"),
        "reproject_adaptive": case("reproject_adaptive"),
    }


def drizzle_case(
    folder: Path, image: np.ndarray, weight: np.ndarray, grid: Grid
) -> dict[str, Callable[[], np.ndarray]]:
    if package("drizzle") is None:
        return {}
    from drizzle.resample import Drizzle
    from drizzle.utils import calc_pixmap

    source, target = systems(folder, grid)
    source.pixel_shape, target.pixel_shape = image.shape[::-1], grid.shape[::-1]

    def work() -> np.ndarray:
        made = Drizzle(kernel="square", out_shape=grid.shape, fillval="0")
        good = (weight > 0).astype("f4")
        pixmap = calc_pixmap(source, target)
        made.add_image(image, exptime=1.0, pixmap=pixmap, weight_map=good, in_units="cps")
        return np.asarray(made.out_img)

    return {"drizzle square, pixfrac 1": work}


def process_rows(table: Table, folder: Path, work: Path, runs: int) -> None:
    """Whole processes: one frame, and a batch; ours and SWarp's."""
    image, wcs = read(folder / "frame.fits")
    weight, _ = read(folder / "frame.weight.fits")
    grid, stars = grid_of(wcs, image.shape), stars_of(folder, image, weight, wcs)
    names = links(folder, work, BATCH)
    found: dict[tuple[str, int], tuple[Cost, float]] = {}
    for number in (1, BATCH):
        for name in ("lagrange6", "lagrange8", "lanczos3"):
            command = [sys.executable, __file__, "--regrid", str(work), name, *map(str, names[:number])]
            took = best_cost(command, work, runs=runs if number == 1 else 1, environment=ONE_THREAD)
            with open_fits(work / "frame0.regrid.fits") as fits:
                shown = fidelity(np.asarray(fits.image(0)), grid, stars, wcs)
            found[name, number] = took, shown[0]
            table.row(f"process, {number} frame(s): {name}", took, *shown)
        if program("SWarp", "swarp") is None:
            table.missing("SWarp", "SWarp")
            continue
        for name in ("LANCZOS3", "BILINEAR"):
            took = swarp(work, grid, names[:number], name, runs if number == 1 else 1)
            made, system = read(work / "frame0.resamp.fits")
            shown = fidelity(made, Grid(system, made.shape), stars, wcs)
            found[name, number] = took, shown[0]
            table.row(f"process, {number} frame(s): SWarp {name}", took, *shown)
    if ("LANCZOS3", BATCH) in found:
        goals(found)


def goals(found: dict[tuple[str, int], tuple[Cost, float]]) -> None:
    """The ratios that are the goals."""
    for name in ("lagrange6", "lagrange8"):
        for number in (1, BATCH):
            ours, peer = found[name, number], found["LANCZOS3", number]
            print(
                f"{name}, {number} frame(s): {ours[0].cpu_s / peer[0].cpu_s:.3f} of SWarp's CPU (goal {TIME_GOAL}),"
                f" {ours[1] / peer[1]:.3f} of its shift (goal {SHIFT_GOAL})"
            )


# Whole products


def product_rows(table: Table, work: Path, runs: int) -> None:
    """awe-regrid of ten frames of a store beside SWarp on the same, in turns."""
    directory = night(*NIGHT)
    store, swarped = work / "store", work / "swarped"
    swarped.mkdir()
    calibrated(store, directory)
    run(["awe-refcat", "import", "reference", directory / "reference.fits"], store)
    raws = [one["path"] for one in raw_frames(directory, "OBJECT")][:BATCH]
    cost([BIN / "awe-make", "-q", "-j2", "zeropoint", *raws], store)
    reduced = run(["awe-query", "reduced"], store)
    run(["awe-grid", "make", "field", "--fit"], store, reduced)
    run(["awe-export", "-q", "--for", "swarp", "--out-dir", swarped], store, reduced)
    images = sorted(one.name for one in swarped.glob("*.fits") if one.name.count(".") == 1)
    ours = [BIN / "awe-regrid", "-q", "--grid", "field", *reduced.split()]
    theirs = [str(program("SWarp", "swarp")), *images, *SWARP, "-RESAMPLING_TYPE", "LANCZOS3"]
    found: dict[str, list[Cost]] = {"awe-regrid": [], "SWarp LANCZOS3": []}
    for _ in range(runs):
        found["awe-regrid"].append(cost(ours, store, environment=ONE_THREAD))
        if program("SWarp", "swarp"):
            found["SWarp LANCZOS3"].append(cost(theirs, swarped, environment=ONE_THREAD))
    least = {name: min(costs, key=lambda one: one.cpu_s) for name, costs in found.items() if costs}
    for name, took in least.items():
        table.row(f"products, {BATCH} frames: {name}", took)
    if len(least) == 2:
        ratio = least["awe-regrid"].cpu_s / least["SWarp LANCZOS3"].cpu_s
        print(f"products, {BATCH} frames: {ratio:.3f} of SWarp's CPU (goal {TIME_GOAL})")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bench", type=Path, default=BENCH, help="folder of simulate_run.py")
    parser.add_argument("--runs", type=int, default=3, help="runs of each; the one with the least CPU counts")
    parser.add_argument("--quick", action="store_true", help="a small frame, without the slow peers")
    parser.add_argument("--regrid", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.regrid:
        out, kernel_name, *paths = options.regrid
        regrid_here(Path(out), kernel_name, [Path(one) for one in paths])
        return
    for line in versions(("SWarp",), ("sep", "reproject", "drizzle")):
        print(line)
    folder = frames(options.bench, options.quick)
    table = Table("shift px", "flux", "rms", name_width=40)
    own_rows(table, folder, options.runs)
    with tempfile.TemporaryDirectory() as work:
        process_rows(table, folder, Path(work), options.runs)
    if not options.quick:
        with tempfile.TemporaryDirectory() as work:
            product_rows(table, Path(work), options.runs)
    if not options.quick:
        peer_rows(table, folder)


if __name__ == "__main__":
    main()
