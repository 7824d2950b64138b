"""A reference catalogue of ten million stars: its import, and cones out of it.

    refcat.py [--rows N]

The stars cover a cap of the sky of 1000 square degrees, as many as Gaia has there to 19 mag. What is measured is one
process that imports them, and cones within one process: their time, and how much memory they add.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import BIN, Cost, Table, cost, versions

from awetools.core.fits import Plane, write_fits
from awetools.core.sky.refcat import Catalogue, open_catalogue

CAP_DEG2 = 1000.0
CONES = 20


def stars(rows: int) -> dict[str, np.ndarray]:
    """A cap about the north pole, evenly filled, with motions and magnitudes, under Gaia's names."""
    rng = np.random.default_rng(1)
    sine = 1 - rng.uniform(0, CAP_DEG2 / (2 * np.pi * np.degrees(1) ** 2), rows)
    return {
        "ra": rng.uniform(0, 360, rows),
        "dec": np.degrees(np.arcsin(sine)),
        "ra_error": np.full(rows, 0.1, np.float32),
        "dec_error": np.full(rows, 0.1, np.float32),
        "ref_epoch": np.full(rows, 2016.0),
        "pmra": rng.normal(0, 5, rows).astype(np.float32),
        "pmdec": rng.normal(0, 5, rows).astype(np.float32),
        "phot_g_mean_mag": (19 - rng.exponential(1.5, rows)).astype(np.float32),
    }


def main() -> None:
    """Import, then read cones, and print what they took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000_000)
    rows = parser.parse_args().rows
    print(*versions(packages=["numpy"]), sep="\n")
    table = Table("stars", "largest ms", name_width=44)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        # In a process of its own, so that its memory is not on this one's account.
        making = multiprocessing.Process(target=_write, args=(place / "stars.fits", rows))
        making.start()
        making.join()
        command = [BIN / "awe-refcat", "import", "--dir", place / "cats", "big", place / "stars.fits"]
        table.row("import", cost(command, place), float(rows))
        catalogue = open_catalogue(place / "cats" / "big")
        for radius_deg in (0.1, 0.5, 2.0):
            _cones(table, catalogue, radius_deg)


def _write(path: Path, rows: int) -> None:
    write_fits(path, [Plane("EMPTY"), Plane("STARS", table=stars(rows))], [])


def _cones(table: Table, catalogue: Catalogue, radius_deg: float) -> None:
    rng = np.random.default_rng(2)
    walls, seconds, found = [], [], 0
    for ra, dec in zip(rng.uniform(0, 360, CONES), rng.uniform(75, 88, CONES), strict=True):
        wall, begun = time.monotonic(), time.process_time()
        found = len(catalogue.cone(ra, dec, radius_deg, epoch_yr=2026.5)["ra_deg"])
        seconds.append(time.process_time() - begun)
        walls.append(time.monotonic() - wall)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    took = Cost(statistics.median(walls), statistics.median(seconds), peak_mb)
    table.row(f"cone of {radius_deg:g} deg, median of {CONES}", took, float(found), 1000 * max(walls))


if __name__ == "__main__":
    main()
