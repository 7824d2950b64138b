"""The local solution beside SCAMP, with headers that are off: time, residuals against the truth, part solved.

    astrom.py [--quick] [--seeds N] [--bench DIRECTORY]

Runs of 5 exposures x 2 chips as in gastrom.py, measured by source-extractor: what it writes is
the input of both. The header in each catalogue is made worse: pointing off by 2
arcmin, turned by 3 degrees, scale off by 2%, directions and signs by the seed. Times are of whole
processes, of one thread: reading LDAC catalogues, solving, writing a header for each
frame. Residuals are at the true places of all stars brighter than 21 mag, of both axes
together. awetools: the functions in one process; awe-astrom: the program, with -j1, on the same
lists imported into a store, its products with their records. A frame counts as solved if its rms
there is below a pixel.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from gastrom import BENCH, FAINTEST, ONE_THREAD, SCAMP, Job, catalogues, simulator
from measure import BIN, Cost, Table, best_cost, cost, program, versions

OFF_ARCSEC, TURN_DEG, SCALE = 120.0, 3.0, 0.02
SOLVED_ARCSEC = 0.24
TIME_GOAL, RESIDUAL_GOAL = 0.4, 1.1
SETTINGS = ["-STABILITY_TYPE", "EXPOSURE", "-POSITION_MAXERR", "3", "-POSANGLE_MAXERR", "5"]
KEYS = ("CRVAL1", "CRVAL2", "CD1_1", "CD1_2", "CD2_1", "CD2_2")


def altered(run: Path, work: Path, seed: int) -> list[Path]:
    """Copies of a run's catalogues with headers that are off."""
    import numpy as np

    rng = np.random.default_rng(seed)
    made = []
    for path in sorted((run / "cat").glob("*.cat")):
        direction, turn, scale = rng.uniform(0, 2 * math.pi), *rng.choice([-1.0, 1.0], 2)
        turn, scale = math.radians(turn * TURN_DEG), 1 + scale * SCALE
        content = bytearray(path.read_bytes())
        spots = {key: content.index(f"{key:8s}= ".encode()) for key in KEYS}
        values = {key: float(content[at + 10 : at + 80].split(b"/")[0]) for key, at in spots.items()}
        rate = math.cos(math.radians(values["CRVAL2"]))
        values["CRVAL1"] += OFF_ARCSEC / 3600 * math.cos(direction) / rate
        values["CRVAL2"] += OFF_ARCSEC / 3600 * math.sin(direction)
        cosine, sine = scale * math.cos(turn), scale * math.sin(turn)
        for j in (1, 2):
            first, second = values[f"CD1_{j}"], values[f"CD2_{j}"]
            values[f"CD1_{j}"] = cosine * first - sine * second
            values[f"CD2_{j}"] = sine * first + cosine * second
        for key, at in spots.items():
            content[at : at + 80] = f"{key:8s}= {values[key]:20.13G}".ljust(80).encode()
        place = work / path.name
        place.write_bytes(content)
        made.append(place)
    return made


def solve_here(run: Path, work: Path) -> None:
    """What the measured process does: solve each catalogue of a folder, write its header."""
    import time

    import numpy as np

    from awetools.core.errors import NoSolution
    from awetools.core.fits import open_fits
    from awetools.core.fitsheader import format_card, header_from_text, wcs_cards
    from awetools.core.sky.readwcs import read_wcs
    from awetools.core.sky.solve import Guess, Reference, Sources, solve
    from awetools.core.sky.writewcs import wcs_as_cards

    with open_fits(run / "ref" / "reference.fits") as fits:
        listed = fits.table(1)
    reference = Reference(
        listed["RA"], listed["DEC"], listed["MAG"], listed["RA_ERROR"] / 1e3, listed["REF_EPOCH"]
    )
    nx, ny = json.loads((run / "run.json").read_text())["arguments"]["size"]
    spent = 0.0
    for path in sorted(work.glob("*.cat")):
        with open_fits(path) as fits:
            header = header_from_text("\n".join(fits.table(1)["Field Header Card"].ravel().tolist()))
            rows = fits.table(2)
        ratio = rows["FLUX_AUTO"] / np.maximum(rows["FLUXERR_AUTO"], 1e-30)
        error = np.sqrt(0.5 * (rows["ERRAWIN_IMAGE"] ** 2.0 + rows["ERRBWIN_IMAGE"] ** 2.0))
        sources = Sources(
            rows["XWIN_IMAGE"],
            rows["YWIN_IMAGE"],
            rows["FLUX_AUTO"],
            error,
            (rows["FLAGS"] < 4) & (ratio > 10),
        )
        guess = Guess(wcs=read_wcs(wcs_cards(header)))
        before = time.process_time()
        try:
            made = solve(sources, reference, guess, shape=(ny, nx))
        except NoSolution:
            continue
        finally:
            spent += time.process_time() - before
        cards = wcs_as_cards(made.wcs, "TPV") | {"RADESYS": "ICRS", "EQUINOX": 2000.0}
        text = "\n".join(format_card(k, v).decode().rstrip() for k, v in cards.items())
        path.with_suffix(".head").write_text(text + "\nEND\n")
    (work / "took.json").write_text(json.dumps(spent))


def in_a_store(run: Path, work: Path) -> list[Path | str]:
    """The command that solves the catalogues of a folder as products of a store, which is made for it."""
    store = work / "store"
    store.mkdir()
    bare = {"AWE_PATH": "", **ONE_THREAD}
    cost([BIN / "awe-init", "."], store, environment=bare)
    cost([BIN / "awe-refcat", "import", "ref", run / "ref" / "reference.fits"], store, environment=bare)
    for path in sorted(work.glob("*.cat")):
        chip = path.stem.rsplit("_", 1)[1]
        words = ["--as", "sources", "--set", f"detector={chip}", f"{path}[LDAC_OBJECTS]"]
        cost([BIN / "awe-import", *words], store, environment=bare)
    return [BIN / "awe-astrom", "-j1", "-q", "--force", *sorted((store / "sources").rglob("*.fits"))]


def headers_of(store: Path, work: Path) -> None:
    """Headers of the products of a store, by the names of the catalogues."""
    from astropy.io import fits

    begun = {
        path.read_bytes().split(b"DATE-OBS= '")[1][:19].decode(): path.stem[:-3]
        for path in work.glob("*.cat")
    }
    for path in (store / "astrom").rglob("*.fits"):
        header = fits.getheader(path)
        del header["NAXIS"]
        name = f"{begun[header['DATE-OBS'][:19]]}_{header['DETECTOR']}.head"
        (work / name).write_text(header.tostring(sep="\n") + "\n")


def residuals(run: Path, heads: Path, simulate: ModuleType) -> list[float]:
    """The rms of each frame at the true stars, arcsec; infinite where there is no header."""
    import numpy as np
    from astropy.io import fits
    from astropy.wcs import WCS

    manifest = json.loads((run / "run.json").read_text())
    arguments = manifest["arguments"]
    nx, ny = arguments["size"]
    stars = fits.getdata(run / "truth" / "catalog.fits")
    stars = stars[(stars["TYPE"] == "STAR") & (stars["MAG"] < FAINTEST)]
    found = []
    for exposure in manifest["exposures"]:
        for chip in range(1, arguments["chips"] + 1):
            head = heads / f"sci_r_{exposure['number']:02d}_c{chip}.head"
            if not head.exists():
                found.append(math.inf)
                continue
            x, y = simulate.true_geometry(arguments, chip, exposure).sky_to_pixel(stars["RA"], stars["DEC"])
            ok = (x > 1) & (x < nx) & (y > 1) & (y < ny)
            lines = head.read_text(errors="replace").splitlines()
            text = [line for line in lines if not line.startswith(("HISTORY", "COMMENT"))]
            wcs = WCS(fits.Header.fromstring("\n".join(text), sep="\n"))
            ra, dec = wcs.all_pix2world(x[ok], y[ok], 1)
            away = (ra - stars["RA"][ok]) * np.cos(np.radians(dec)), dec - stars["DEC"][ok]
            found.append(3600 * float(np.sqrt((away[0] ** 2 + away[1] ** 2).mean())))
    return found


class Told(NamedTuple):
    """What one run gave: costs and residuals of frames by name, CPU seconds of ours in the process."""

    costs: dict[str, Cost]
    rms: dict[str, list[float]]
    took_s: float


def measure(seed: int, size: str, bench: Path, runs: int, folder: Path) -> Told:
    """Solve a run with ours and with SCAMP."""
    run, simulate = catalogues(Job(seed, 5, 2, size), bench), simulator(bench)
    work = folder / f"{seed}"
    work.mkdir()
    names = altered(run, work, seed)

    def tidy() -> None:
        for one in work.glob("*.head"):
            one.unlink()

    command = [sys.executable, __file__, "--solve", str(run), str(work)]
    costs = {"awetools": best_cost(command, work, runs=runs, before=tidy, environment=ONE_THREAD)}
    rms = {"awetools": residuals(run, work, simulate)}
    tidy()
    command, store = in_a_store(run, work), work / "store"
    costs["awe-astrom"] = best_cost(
        command,
        store,
        runs=runs,
        before=lambda: shutil.rmtree(store / "astrom", True),
        environment=ONE_THREAD,
    )
    headers_of(store, work)
    rms["awe-astrom"] = residuals(run, work, simulate)
    if peer := program("scamp"):
        reference = ["-ASTREFCAT_NAME", str(run / "ref" / "reference_ldac.cat")]
        command = [peer, *(one.name for one in names), *SCAMP, *reference, *SETTINGS]
        costs["SCAMP"] = best_cost(command, work, runs=runs, before=tidy, environment=ONE_THREAD)
        rms["SCAMP"] = residuals(run, work, simulate)
    return Told(costs, rms, json.loads((work / "took.json").read_text()))


def report(told: Sequence[Told]) -> None:
    """Means over runs, and the ratios that are the goals."""
    print(f"\n5 exposures x 2 chips, mean of {len(told)}")
    table = Table("rms mas", "worst mas", "solved", name_width=12)
    figures = {}
    for name in told[0].costs:
        costs = Cost(*(sum(one.costs[name][k] for one in told) / len(told) for k in range(3)))
        every = [one for run in told for one in run.rms[name]]
        solved = [one for one in every if one < SOLVED_ARCSEC]
        rms = math.sqrt(sum(one**2 for one in solved) / max(1, len(solved)))
        table.row(name, costs, 1e3 * rms, 1e3 * max(solved, default=math.nan), f"{len(solved)}/{len(every)}")
        figures[name] = costs.cpu_s, rms
    print(f"of ours, CPU s in functions: {sum(one.took_s for one in told) / len(told):.3f}")
    if "SCAMP" in figures:
        for name in ("awetools", "awe-astrom"):
            time, rms = (figures[name][k] / figures["SCAMP"][k] for k in (0, 1))
            print(
                f"{name} beside SCAMP: time {time:.2f} (goal {TIME_GOAL}), residual {rms:.3f} (goal {RESIDUAL_GOAL})"
            )


def main() -> None:
    """Make the runs, measure, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small runs, to see that it works")
    parser.add_argument("--seeds", type=int, default=3, help="how many runs (default %(default)s)")
    parser.add_argument(
        "--runs", type=int, default=3, help="times are the best of so many (default %(default)s)"
    )
    parser.add_argument("--bench", type=Path, default=BENCH, help="where simulate_run.py is")
    parser.add_argument("--solve", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.solve:
        solve_here(*given.solve)
        return
    print("\n".join(versions(("source-extractor", "scamp"), ("astropy",))))
    size = "512x1024" if given.quick else "2048x4096"
    with tempfile.TemporaryDirectory() as work:
        seeds = range(1, given.seeds + 1)
        report([measure(seed, size, given.bench, given.runs, Path(work)) for seed in seeds])


if __name__ == "__main__":
    main()
