"""The coadd of 5 exposures of 2 chips beside SWarp: time, memory, places and fluxes of stars, outliers.

    coadd.py [--run DIRECTORY] [--runs N]

The run is that of the bench (simulate_run.py), prepared by its peers.py: reduced frames with
their true TPV coordinates, and a TAN grid of 4612 x 4512 pixels. Weights are made constant (bad
pixels 0), as the background's are; `clean` has the cosmic rays of the truth masked, `hit` has
not. Those of drizzle (square kernel) and reproject_and_coadd (bilinear) are weighted means, run once (minutes).
Times are of whole processes of one thread that read the frames and write the image and
its planes. Outliers: pixels of cosmic rays 10 sigma or more above the sky where 3 frames overlap, and
how many of them changed the coadd by less than 4 sigma. Stars: scatter of windowed places about
the truth; flux in 9 pixels of the coadd over the weighted mean of that in the frames.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from gastrom import BENCH, ONE_THREAD
from measure import Cost, Table, best_cost, cache, package, program, versions

TIME_GOAL, MEMORY_GOAL_MB, OUTLIER_GOAL, SCATTER_GOAL_PX, FLUX_GOAL = 0.2, 600, 0.99, 0.0034, 3e-4
METHODS = {"mean": "WEIGHTED", "clip": "CLIPPED"}
SETTINGS = "-WEIGHT_TYPE MAP_WEIGHT -RESCALE_WEIGHTS N -RESAMPLING_TYPE LANCZOS3 -SUBTRACT_BACK N -NTHREADS 1"
SETTINGS += " -WRITE_XML N -VERBOSE_TYPE QUIET"


def prepared(run: Path | None, bench: Path) -> Path:
    """The run with its reduced frames; made, if there is none."""
    run = run or cache() / "coadd-run"
    if not (run / "run.json").exists():
        command = [sys.executable, bench / "simulate_run.py", "--out", run]
        subprocess.run(command, check=True)
    if not (run / "peers" / "red" / "done").exists():
        subprocess.run([sys.executable, bench / "peers.py", run, "--stages", ""], check=True)
    return run


def names_of(run: Path) -> list[str]:
    """The reduced frames, without endings."""
    found = sorted((run / "peers" / "red").glob("true_sci_*.fits"))
    return [one.stem for one in found if not one.stem.endswith(".weight")]


def make_inputs(run: Path, work: Path) -> None:
    """Folders `clean` and `hit` with the frames and their weights."""
    import numpy as np
    from astropy.io import fits

    red = run / "peers" / "red"
    for folder in ("clean", "hit"):
        (work / folder).mkdir()
    for name in names_of(run):
        image = red / f"{name}.fits"
        weight = fits.getdata(red / f"{name}.weight.fits")
        bad = fits.getdata(red / f"bad_{name[-2:]}.fits") > 0
        hit = fits.getdata(run / "truth" / f"cosmic_{name[5:]}.fits.fz") > 0
        usual = np.median(weight[weight > 0][::97])
        for folder, wrong in (("clean", bad | hit | (weight == 0)), ("hit", bad)):
            (work / folder / image.name).symlink_to(image.resolve())
            made = np.where(wrong, 0, usual).astype(np.float32)
            fits.PrimaryHDU(made, fits.getheader(image)).writeto(work / folder / f"{name}.weight.fits")


def target(run: Path) -> tuple[Any, list[str]]:
    """The grid, and its cards as SWarp takes them."""
    from awetools.core.fitsheader import header_from_text, wcs_cards
    from awetools.core.sky.grid import grid_of_cards

    text = (run / "peers" / "red" / "target.hdr").read_text()
    header = header_from_text(text)
    size = {key: header[key] for key in ("NAXIS1", "NAXIS2")}
    lines = [one for one in text.splitlines() if not one.startswith(("SIMPLE", "BITPIX"))]
    return grid_of_cards({**wcs_cards(header), **size}), lines


def coadd_here(run: Path, folder: Path, out: Path, method: str) -> None:
    """What the measured process does."""
    from awetools.core.coadd.coadd import How, coadd
    from awetools.core.coadd.inputs import frame_of_fits
    from awetools.core.fits import Plane, open_fits, write_fits
    from awetools.core.fitsheader import wcs_cards
    from awetools.core.memory import keep_freed_memory
    from awetools.core.pixels.coadd import Stacking
    from awetools.core.sky.readwcs import read_wcs

    keep_freed_memory()
    grid, _ = target(run)
    frames = []
    for name in names_of(run):
        image, weight = open_fits(folder / f"{name}.fits"), open_fits(folder / f"{name}.weight.fits")
        frames.append(frame_of_fits(name, image, read_wcs(wcs_cards(image.hdus[0].header)), weight))
    made = coadd(frames, grid, How(Stacking(method)))  # type: ignore[arg-type]
    planes = [Plane(name, plane) for name, plane in made.planes.items()]
    write_fits(out, [*planes, Plane("CLIPPED", table=made.clipped)], [])


def peer_here(run: Path, folder: Path, out: Path, package_name: str) -> None:
    """What the measured process of a Python peer does: weighted means by drizzle, or by reproject_and_coadd."""
    import numpy as np
    from astropy.io import fits
    from astropy.wcs import WCS

    target_header = fits.Header.fromstring("\n".join(target(run)[1]), sep="\n")
    grid, shape = WCS(target_header), (target_header["NAXIS2"], target_header["NAXIS1"])
    grid.pixel_shape = shape[::-1]
    paths = [folder / f"{name}.fits" for name in names_of(run)]
    weights = [path.with_suffix(".weight.fits") for path in paths]
    if package_name == "drizzle":
        from drizzle.resample import Drizzle
        from drizzle.utils import calc_pixmap

        made = Drizzle(kernel="square", out_shape=shape, fillval="0", disable_ctx=True)
        for path, weight in zip(paths, weights, strict=True):
            image, system = fits.getdata(path).astype("f4"), WCS(fits.getheader(path))
            system.pixel_shape = image.shape[::-1]
            own = fits.getdata(weight).astype("f4")
            pixmap = calc_pixmap(system, grid)
            made.add_image(image, exptime=1.0, pixmap=pixmap, weight_map=own, in_units="cps")
        result = np.asarray(made.out_img)
    else:
        from reproject import reproject_interp
        from reproject.mosaicking import reproject_and_coadd

        images = [(fits.getdata(path), WCS(fits.getheader(path))) for path in paths]
        result, _ = reproject_and_coadd(
            images,
            grid,
            shape_out=shape,
            input_weights=[fits.getdata(one) for one in weights],
            reproject_function=reproject_interp,
            combine_function="mean",
            roundtrip_coords=False,
        )
    fits.PrimaryHDU(np.nan_to_num(result).astype("f4")).writeto(out, overwrite=True)


def told(run: Path, work: Path, results: dict[str, Path], clean: dict[str, Path]) -> dict[str, list[float]]:
    """By name: outliers that are gone, scatter of places, flux over that of the frames and its scatter."""
    import numpy as np
    from astropy.io import fits

    from awetools.core.fits import open_fits
    from awetools.core.fitsheader import wcs_cards
    from awetools.core.sky.readwcs import read_wcs

    grid, _ = target(run)
    systems = {}
    for name in names_of(run):
        with open_fits(work / "hit" / f"{name}.fits") as file:
            systems[name] = read_wcs(wcs_cards(file.hdus[0].header))
    with open_fits(work / "clean-mean.fits") as file:
        weight, count = file.image("WEIGHT"), file.image("COUNT")
    reference = {name: fits.getdata(path) for name, path in clean.items()}
    images = {name: fits.getdata(path) for name, path in results.items()}
    gone: dict[str, list[Any]] = {name: [] for name in results}
    for name, wcs in systems.items():
        data, own = (fits.getdata(work / "hit" / f"{name}{end}.fits") for end in ("", ".weight"))
        hit = fits.getdata(run / "truth" / f"cosmic_{name[5:]}.fits.fz") == 1
        y, x = np.nonzero(hit & (own > 0))
        gx, gy = (np.rint(one).astype(int) - 1 for one in grid.wcs.to_pixel(*wcs.to_sky(x + 1, y + 1)))
        on = (gx >= 0) & (gy >= 0) & (gx < grid.shape[1]) & (gy < grid.shape[0])
        y, x, gy, gx = y[on], x[on], gy[on], gx[on]
        high = data[y, x] - reference["mean"][gy, gx] > 10 / np.sqrt(own[y, x])
        use = high & (count[gy, gx] >= 2)
        at = gy[use], gx[use]
        for one, image in images.items():
            away = np.abs(image[at] - reference[one][at])
            gone[one].append(away < 4 / np.sqrt(weight[at]))
    stars = Stars(run, work, systems)
    return {name: [float(np.concatenate(gone[name]).mean()), *stars.judged(images[name])] for name in results}


class Stars:
    """Lonely stars of the run, with their fluxes in the frames."""

    def __init__(self, run: Path, work: Path, systems: dict[str, Any]) -> None:
        import numpy as np
        import sep
        from astropy.io import fits
        from scipy.spatial import cKDTree

        grid, _ = target(run)
        listed = fits.getdata(run / "truth" / "catalog.fits")
        x, y = (one - 1 for one in grid.wcs.to_pixel(listed["RA"], listed["DEC"]))
        near, _ = cKDTree(np.column_stack([x, y])[listed["MAG"] < 22]).query(np.column_stack([x, y]), k=2)
        use = (listed["TYPE"] == "STAR") & (listed["MAG"] > 16.3) & (listed["MAG"] < 19) & (near[:, 1] > 30)
        total, weights = np.zeros(len(listed)), np.zeros(len(listed))
        for name, wcs in systems.items():
            data, weight = (fits.getdata(work / "clean" / f"{name}{end}.fits") for end in ("", ".weight"))
            px, py = (one - 1 for one in wcs.to_pixel(listed["RA"], listed["DEC"]))
            ny, nx = data.shape
            near_edge = (px < 30) | (py < 30) | (px > nx - 31) | (py > ny - 31)
            beyond = (px < -30) | (py < -30) | (px > nx + 29) | (py > ny + 29)
            # A star of which a frame sees a part, or with a bad pixel, does not tell the flux.
            use &= ~near_edge | beyond
            inner = np.flatnonzero(use & ~near_edge)
            clean = [
                (weight[int(b) - 14 : int(b) + 16, int(a) - 14 : int(a) + 16] > 0).all()
                for a, b in zip(px[inner], py[inner], strict=True)
            ]
            use[inner[~np.array(clean, bool)]] = False
            inner = inner[np.array(clean, bool)]
            flux, _, _ = sep.sum_circle(
                np.ascontiguousarray(data, np.float32), px[inner], py[inner], 9.0, bkgann=(14, 20), subpix=0
            )
            usual = float(weight.max())
            total[inner] += usual * flux
            weights[inner] += usual
        use &= weights > 0
        self.x, self.y, self.flux = x[use], y[use], total[use] / weights[use]

    def judged(self, image: Any) -> tuple[float, float, float]:
        """Scatter of places in pixels; median and scatter of flux ratios."""
        import numpy as np
        import sep

        image = np.ascontiguousarray(image, np.float32)
        flux, _, _ = sep.sum_circle(image, self.x, self.y, 9.0, bkgann=(14, 20), subpix=0)
        wx, wy, _ = sep.winpos(image, self.x, self.y, np.full(len(self.x), 1.8))
        away, ratio = np.concatenate([wx - self.x, wy - self.y]), flux / self.flux

        def spread(values: Any) -> float:
            return float(1.4826 * np.median(np.abs(values - np.median(values))))

        return spread(away), float(np.median(ratio)), spread(ratio)


def main() -> None:
    """Make the inputs, measure, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, help="a run that is there (default: one is made, and kept)")
    parser.add_argument(
        "--runs", type=int, default=3, help="times are the best of so many (default %(default)s)"
    )
    parser.add_argument("--bench", type=Path, default=BENCH, help="where simulate_run.py is")
    parser.add_argument("--no-slow", action="store_true", help="without drizzle and reproject")
    parser.add_argument("--coadd", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--peer", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peer:
        peer_here(*(Path(one) for one in given.peer[:3]), given.peer[3])
        return
    if given.coadd:
        coadd_here(*(Path(one) for one in given.coadd[:3]), given.coadd[3])
        return
    run = prepared(given.run, given.bench).absolute()
    print("\n".join(versions(["SWarp"], ["sep", "astropy", "drizzle", "reproject"])))
    if package("sep") is None:
        raise SystemExit("sep is not installed: it measures the stars")
    with tempfile.TemporaryDirectory() as folder:
        report(run, Path(folder), given.runs, [] if given.no_slow else ["drizzle", "reproject"])


def report(run: Path, work: Path, runs: int, slow: list[str]) -> None:
    """Coadds of ours and of SWarp, and what they are like."""
    make_inputs(run, work)
    _, lines = target(run)
    costs: dict[str, Cost] = {}
    results, clean = {}, {}
    peer = program("SWarp", "swarp")
    for folder in ("clean", "hit"):
        for method, combine in METHODS.items():
            out = work / f"{folder}-{method}.fits"
            command = [sys.executable, __file__, "--coadd", run, work / folder, out, method]

            def tidy(out: Path = out) -> None:
                out.unlink(missing_ok=True)

            took = best_cost(command, work, runs if folder == "hit" else 1, tidy, ONE_THREAD)
            _kept(costs, results, clean, method, folder, out, took)
            if peer is None:
                continue
            out = work / f"swarp-{folder}-{method}.fits"
            out.with_suffix(".head").write_text("\n".join(lines) + "\n")
            inputs = [work / folder / f"{name}.fits" for name in names_of(run)]
            names = ["-IMAGEOUT_NAME", out, "-WEIGHTOUT_NAME", out.with_suffix(".weight.fits")]
            command = [peer, *inputs, *names, "-COMBINE_TYPE", combine, *SETTINGS.split()]
            took = best_cost(command, work, runs if folder == "hit" else 1, environment=ONE_THREAD)
            _kept(costs, results, clean, f"{method} of SWarp", folder, out, took)
    for name in slow:
        if package(name) is None:
            continue
        # They reject nothing: what is clean and what is hit take the same.
        for folder in ("clean", "hit"):
            out = work / f"{name}-{folder}.fits"
            command = [sys.executable, __file__, "--peer", run, work / folder, out, name]
            took = best_cost(command, work, 1, environment=ONE_THREAD)
            _kept(costs, results, clean, f"mean of {name}", folder, out, took)
    judged = told(run, work, results, clean)
    table = Table("outliers", "places px", "flux", "flux rms", name_width=16)
    for name, values in judged.items():
        table.row(name, costs[name], *(f"{one:.4f}" for one in values))
    for method in METHODS:
        mine, theirs = costs[method], costs.get(f"{method} of SWarp")
        ratio = f"CPU {mine.cpu_s / theirs.cpu_s:.2f} of SWarp's (goal {TIME_GOAL}), " if theirs else ""
        print(f"{method}: {ratio}{mine.peak_mb:.0f} MB (goal {MEMORY_GOAL_MB})")
    goals = f"outliers {OUTLIER_GOAL}, places {SCATTER_GOAL_PX} px, flux 1 +- {FLUX_GOAL}"
    print(f"goals: {goals}")


def _kept(
    costs: dict[str, Cost],
    results: dict[str, Path],
    clean: dict[str, Path],
    name: str,
    folder: str,
    out: Path,
    took: Cost,
) -> None:
    if folder == "hit":
        costs[name], results[name] = took, out
    else:
        clean[name] = out


if __name__ == "__main__":
    main()
