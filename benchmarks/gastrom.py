"""The global solution beside SCAMP: residuals against the truth and what it takes; one run.

    gastrom.py [--quick] [--seeds N] [--bench DIRECTORY]

Runs are made by simulate_run.py of the shared bench (beside this repository, or --bench, or
AWETOOLS_BENCH), reduced with the true bias and flat, and measured by source-extractor:
what it writes is the input of both. Kept under AWETOOLS_BENCH_CACHE. Residuals are at the
true places of all stars brighter than 21 mag, of both axes together, as the shared bench has
them. Times are of whole processes, of one thread: reading LDAC catalogues, matching,
solving, writing a header for each frame.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from measure import Cost, Table, best_cost, cache, cost, program, versions

BENCH = Path(os.environ.get("AWETOOLS_BENCH") or Path(__file__).parents[2] / "shared" / "bench")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
# Made anew if this or the simulator changes.
VERSION = "1"
FAINTEST = 21.0
TIME_GOAL, RESIDUAL_GOAL, HELD_GOAL_ARCSEC = 0.5, 1.05, 0.010
PARAMETERS = (
    "NUMBER XWIN_IMAGE YWIN_IMAGE ERRAWIN_IMAGE ERRBWIN_IMAGE ERRTHETAWIN_IMAGE FLUX_AUTO FLUXERR_AUTO "
    "MAG_AUTO MAGERR_AUTO FLUX_RADIUS FWHM_IMAGE ELONGATION ELLIPTICITY FLAGS"
)
NETWORKS = ("/usr/share/source-extractor/default.nnw", "/usr/share/sextractor/default.nnw")
SCAMP = [
    *("-ASTREF_CATALOG", "FILE", "-CHECKPLOT_TYPE", "NONE", "-CHECKPLOT_DEV", "NULL", "-WRITE_XML", "N"),
    *("-PROJECTION_TYPE", "TPV", "-DISTORT_DEGREES", "3", "-ASTRINSTRU_KEY", "FILTER,CHIP"),
    *("-VERBOSE_TYPE", "QUIET", "-MATCH_RESOL", "2", "-SOLVE_PHOTOM", "N", "-NTHREADS", "1"),
]
# The pointings are good to some arcsec: where reference stars are few, SCAMP must be told.
NEAR = [
    *("-POSITION_MAXERR", "0.25", "-POSANGLE_MAXERR", "0.5", "-PIXSCALE_MAXERR", "1.01"),
    *("-CROSSID_RADIUS", "3"),
]
SETTINGS = {
    "SCAMP": [],
    "SCAMP, near": NEAR,
    "SCAMP, near, STABILITY EXPOSURE": [*NEAR, "-STABILITY_TYPE", "EXPOSURE"],
}


class Job(NamedTuple):
    """A run: so many exposures of so many chips, and reference stars a chip at most (0: all)."""

    seed: int
    exposures: int
    chips: int
    size: str
    listed: int = 0


# The input


def simulator(bench: Path) -> ModuleType:
    """simulate_run.py of the shared bench."""
    path = bench / "simulate_run.py"
    if not path.exists():
        raise SystemExit(f"{path} is not there: give --bench, or set AWETOOLS_BENCH")
    spec = importlib.util.spec_from_file_location("simulate_run", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def catalogues(job: Job, bench: Path) -> Path:
    """The folder of a run: cat/*.cat of source-extractor, ref/ and truth/; made, or kept from before."""
    key = json.dumps([VERSION, *job]).encode() + (bench / "simulate_run.py").read_bytes()
    place = cache() / f"gastrom-{hashlib.sha256(key).hexdigest()[:16]}"
    if place.exists():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    print(f"making {job}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as work:
        made = Path(work) / "run"
        words = ["--out", made, "--seed", job.seed, "--exposures", job.exposures, "--chips", job.chips]
        words += ["--size", job.size, "--biases", "0", "--flats", "0", "--jobs", "2"]
        cost([sys.executable, bench / "simulate_run.py", *(str(one) for one in words)], Path(work))
        (made / "cat").mkdir()
        for path in sorted((made / "raw").glob("sci_*.fits")):
            measured(made, path)
            path.unlink()
        for path in (made / "truth").glob("*_*.fits*"):
            path.unlink()
        if job.listed:
            thinned(made, job, simulator(bench))
        os.replace(made, place)
    return place


def measured(run: Path, path: Path) -> None:
    """Reduce a frame with the truth, and measure it with source-extractor."""
    import numpy as np
    from astropy.io import fits

    chip = path.stem.rsplit("_c", 1)[1]
    raw, header = fits.getdata(path).astype("f4"), fits.getheader(path)
    columns = {
        key: slice(
            *(
                int(one) - step
                for one, step in zip(header[key][1:].split(",")[0].split(":"), (1, 0), strict=True)
            )
        )
        for key in ("DATASEC", "BIASSEC")
    }
    response = fits.getdata(run / "truth" / f"response_c{chip}.fits")
    image = raw[:, columns["DATASEC"]] - np.median(raw[:, columns["BIASSEC"]], axis=1)[:, None]
    bad = (image > 58000) | (fits.getdata(run / "truth" / f"pixmask_c{chip}.fits.fz") > 0)
    bad |= fits.getdata(run / "truth" / f"cosmic_{path.stem}.fits.fz") > 0
    image = (image - fits.getdata(run / "truth" / f"bias_c{chip}.fits")) / response
    sky = float(np.median(image[::8, ::8]))
    variance = (
        np.maximum(image, sky) / header["GAIN"] + (header["RDNOISE"] / header["GAIN"]) ** 2
    ) / response
    header["CRPIX1"] -= columns["DATASEC"].start
    for key in ("DATASEC", "TRIMSEC", "BIASSEC", "BZERO", "BSCALE", "EXTNAME"):
        header.remove(key, ignore_missing=True)
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        fits.PrimaryHDU(image.astype("f4"), header).writeto(here / "image.fits")
        fits.PrimaryHDU(np.where(bad, 0, 1 / variance).astype("f4")).writeto(here / "weight.fits")
        (here / "sex.param").write_text("\n".join(PARAMETERS.split()) + "\n")
        (here / "sex.conv").write_text("CONV NORM\n1 2 1\n2 4 2\n1 2 1\n")
        (here / "sex.conf").write_text("")
        extractor = program("source-extractor", "sex")
        network = next((one for one in NETWORKS if Path(one).exists()), "default.nnw")
        words = "-CATALOG_TYPE FITS_LDAC -WEIGHT_TYPE MAP_WEIGHT -WEIGHT_IMAGE weight.fits -GAIN_KEY GAIN "
        words += (
            "-SATUR_KEY SATURATE -PIXEL_SCALE 0.24 -SEEING_FWHM 0.95 -DETECT_MINAREA 5 -DETECT_THRESH 1.5 "
        )
        words += "-ANALYSIS_THRESH 1.5 -BACK_SIZE 64 -VERBOSE_TYPE QUIET -PARAMETERS_NAME sex.param "
        words += f"-FILTER_NAME sex.conv -STARNNW_NAME {network} -NTHREADS 1"
        command = [str(extractor), "image.fits", "-c", "sex.conf", *words.split()]
        command += ["-CATALOG_NAME", str(run / "cat" / f"{path.stem}.cat")]
        subprocess.run(command, cwd=here, check=True, stdin=subprocess.DEVNULL)


def thinned(run: Path, job: Job, simulate: ModuleType) -> None:
    """Leave so many reference stars that no frame has more than asked for, in both forms of the catalogue."""
    import numpy as np
    from astropy.io import fits

    plain = fits.getdata(run / "ref" / "reference.fits")
    arguments = json.loads((run / "run.json").read_text())["arguments"] | {"seed": job.seed}
    plan = simulate.plan_exposures(arguments)
    nx, ny = arguments["size"]
    inside = []
    for exposure in plan:
        for chip in range(1, job.chips + 1):
            x, y = simulate.true_geometry(arguments, chip, exposure).sky_to_pixel(plain["RA"], plain["DEC"])
            inside.append((x > 1) & (x < nx) & (y > 1) & (y < ny))
    counts, kept = np.zeros(len(inside), int), np.zeros(len(plain), bool)
    within = np.array(inside)
    for star in np.random.default_rng(job.seed).permutation(len(plain)):
        if (counts[within[:, star]] < job.listed).all():
            kept[star] = True
            counts += within[:, star]
    with (
        fits.open(run / "ref" / "reference.fits") as one,
        fits.open(run / "ref" / "reference_ldac.cat") as two,
    ):
        one[1].data, two[2].data = one[1].data[kept], two[2].data[kept]
        one.writeto(run / "ref" / "thin.fits")
        two.writeto(run / "ref" / "thin_ldac.cat")
    for name in ("reference.fits", "reference_ldac.cat"):
        os.replace(run / "ref" / name.replace("reference", "thin"), run / "ref" / name)


# What is measured


def solve_here(run: Path, out: Path, degree: int = 3) -> None:
    """What the measured process does: the frames' own solutions, then the global one, and its headers."""
    import time

    import numpy as np

    from awetools.core.fits import open_fits
    from awetools.core.fitsheader import format_card, header_from_text, wcs_cards
    from awetools.core.sky.adjust import Frame, adjust
    from awetools.core.sky.readwcs import read_wcs
    from awetools.core.sky.solve import Guess, Reference, Sources, solve
    from awetools.core.sky.writewcs import wcs_as_cards

    with open_fits(run / "ref" / "reference.fits") as fits:
        listed = fits.table(1)
    reference = Reference(
        listed["RA"],
        listed["DEC"],
        listed["MAG"],
        error_arcsec=listed["RA_ERROR"] / 1e3,
        epoch_yr=listed["REF_EPOCH"],
    )
    size = json.loads((run / "run.json").read_text())["arguments"]["size"]
    frames, begun = [], time.process_time()
    spent = 0.0
    for path in sorted((run / "cat").glob("*.cat")):
        with open_fits(path) as fits:
            header = header_from_text("\n".join(fits.table(1)["Field Header Card"].ravel().tolist()))
            rows = fits.table(2)
        ratio = rows["FLUX_AUTO"] / np.maximum(rows["FLUXERR_AUTO"], 1e-30)
        good = (rows["FLAGS"] < 4) & (ratio > 5)
        error = np.sqrt(0.5 * (rows["ERRAWIN_IMAGE"] ** 2.0 + rows["ERRBWIN_IMAGE"] ** 2.0))
        sources = Sources(
            *(column[good] for column in (rows["XWIN_IMAGE"], rows["YWIN_IMAGE"], rows["FLUX_AUTO"], error))
        )
        wcs = read_wcs(wcs_cards(header))
        shape = (size[1], size[0])
        before = time.process_time()
        local = solve(sources, reference, Guess(wcs=wcs, position_arcsec=120.0, turn_deg=3.0), shape=shape)
        spent += time.process_time() - before
        exposure, chip = path.stem.rsplit("_c", 1)
        frames.append(
            Frame(path.stem, chip, exposure, sources, local.wcs, shape, signal_to_noise=ratio[good])
        )
    before = time.process_time()
    made = adjust(frames, reference, degree=degree)
    took = {"all": before - begun, "solve": spent, "adjust": time.process_time() - before}
    out.mkdir(exist_ok=True)
    for name, systems in (("global", made.frames), ("local", frames)):
        (out / name).mkdir(exist_ok=True)
        for one in systems:
            cards = wcs_as_cards(one.wcs, "TPV") | {"RADESYS": "ICRS", "EQUINOX": 2000.0}
            text = "\n".join(format_card(k, v).decode().rstrip() for k, v in cards.items())
            (out / name / f"{one.name}.head").write_text(text + "\nEND\n")
    told = {"measures": dict(made.measures), "left_out": dict(made.left_out), "took": took}
    (out / "told.json").write_text(json.dumps(told))


def scamp(run: Path, out: Path, options: Sequence[str], runs: int) -> Cost:
    """What SCAMP takes on a run; its headers lie in a folder afterwards."""
    out.mkdir(exist_ok=True)
    names = []
    for path in sorted((run / "cat").glob("*.cat")):
        link = out / path.name
        link.unlink(missing_ok=True)
        link.symlink_to(path)
        names.append(path.name)
    reference = ["-ASTREFCAT_NAME", str(run / "ref" / "reference_ldac.cat")]
    command = [program("scamp") or "scamp", *names, *SCAMP, *reference, *options]
    return best_cost(command, out, runs=runs, environment=ONE_THREAD)


def residuals(run: Path, heads: Path, simulate: ModuleType) -> tuple[float, float]:
    """The rms and the largest error of solutions at the true stars, arcsec."""
    import numpy as np
    from astropy.io import fits
    from astropy.wcs import WCS

    manifest = json.loads((run / "run.json").read_text())
    arguments = manifest["arguments"]
    nx, ny = arguments["size"]
    stars = fits.getdata(run / "truth" / "catalog.fits")
    stars = stars[(stars["TYPE"] == "STAR") & (stars["MAG"] < FAINTEST)]
    every = []
    for exposure in manifest["exposures"]:
        for chip in range(1, arguments["chips"] + 1):
            name = f"sci_r_{exposure['number']:02d}_c{chip}"
            x, y = simulate.true_geometry(arguments, chip, exposure).sky_to_pixel(stars["RA"], stars["DEC"])
            ok = (x > 1) & (x < nx) & (y > 1) & (y < ny)
            text = [
                line
                for line in (heads / f"{name}.head").read_text(errors="replace").splitlines()
                if not line.startswith(("HISTORY", "COMMENT"))
            ]
            wcs = WCS(fits.Header.fromstring("\n".join(text), sep="\n"))
            ra, dec = wcs.wcs_pix2world(x[ok], y[ok], 1)
            away = (ra - stars["RA"][ok]) * np.cos(np.radians(dec)), dec - stars["DEC"][ok]
            every.append(np.hypot(*away) * 3600)
    found = np.concatenate(every)
    return float(np.sqrt((found**2).mean())), float(found.max())


class Told(NamedTuple):
    """What one run gave: costs and residuals by name, measures of ours."""

    costs: dict[str, Cost]
    rms: dict[str, tuple[float, float]]
    ours: dict[str, Any]


def measure(job: Job, bench: Path, runs: int, work: Path) -> Told:
    """Solve a run with ours and with SCAMP."""
    run, simulate = catalogues(job, bench), simulator(bench)
    out = work / "ours"
    command = [sys.executable, __file__, "--solve", str(run), str(out)]
    costs = {"awetools": best_cost(command, work, runs=runs, environment=ONE_THREAD)}
    rms = {
        "awetools": residuals(run, out / "global", simulate),
        "frame by frame": residuals(run, out / "local", simulate),
    }
    if program("scamp"):
        for name, options in SETTINGS.items():
            costs[name] = scamp(run, work / "scamp", options, runs)
            rms[name] = residuals(run, work / "scamp", simulate)
    return Told(costs, rms, json.loads((out / "told.json").read_text()))


def report(title: str, told: Sequence[Told]) -> None:
    """Means over runs, and the ratios that are the goals."""
    print(f"\n{title}, mean of {len(told)}")
    table = Table("rms mas", "max mas", name_width=30)

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    for name in told[0].rms:
        took = None
        if name in told[0].costs:
            took = Cost(*(mean([one.costs[name][k] for one in told]) for k in range(3)))
        table.row(name, took, *(1e3 * mean([one.rms[name][k] for one in told]) for k in range(2)))
    took = {k: mean([one.ours["took"][k] for one in told]) for k in told[0].ours["took"]}
    print(f"of ours, CPU s in process: frame by frame {took['solve']:.3f}, global {took['adjust']:.3f}")
    held = mean([one.ours["measures"]["internal_bright_rms_arcsec_held"] for one in told])
    print(f"held-out internal rms of S/N > 50: {1e3 * held:.2f} mas (goal {1e3 * HELD_GOAL_ARCSEC:.0f})")
    left = [name for one in told for name in one.ours["left_out"]]
    print(f"left out: {', '.join(left) or 'none'}")
    peers = [name for name in told[0].costs if name != "awetools"]
    if peers:
        best = min(peers, key=lambda name: mean([one.rms[name][0] for one in told]))
        cpu, rms = (
            mean([get(one, "awetools") for one in told]) / mean([get(one, best) for one in told])
            for get in (lambda one, name: one.costs[name].cpu_s, lambda one, name: one.rms[name][0])
        )
        print(f"beside {best}: time {cpu:.2f} (goal {TIME_GOAL}), residual {rms:.3f} (goal {RESIDUAL_GOAL})")


def main() -> None:
    """Make the runs, measure, print two tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small runs, to see that it works")
    parser.add_argument("--seeds", type=int, default=10, help="how many runs of 5 x 2 (default %(default)s)")
    parser.add_argument(
        "--runs", type=int, default=3, help="times are the best of so many (default %(default)s)"
    )
    parser.add_argument("--only", choices=("few", "many"), help="5 x 2 or 40 x 8 alone")
    parser.add_argument("--bench", type=Path, default=BENCH, help="where simulate_run.py is")
    parser.add_argument("--solve", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.solve:
        solve_here(given.solve[0], given.solve[1])
        return
    print("\n".join(versions(("source-extractor", "scamp"), ("scipy", "astropy"))))
    size = "512x1024" if given.quick else "2048x4096"
    with tempfile.TemporaryDirectory() as work:
        if given.only != "many":
            seeds = range(1, (2 if given.quick else given.seeds) + 1)
            told = [measure(Job(k, 5, 2, size), given.bench, given.runs, Path(work)) for k in seeds]
            report("5 exposures x 2 chips", told)
        if given.only != "few":
            job = Job(1, 10, 4, "512x1024", 15) if given.quick else Job(1, 40, 8, "1024x2048", 30)
            told = [measure(job, given.bench, 1, Path(work))]
            report(
                f"{job.exposures} exposures x {job.chips} chips, {job.listed} reference stars a chip", told
            )


if __name__ == "__main__":
    main()
