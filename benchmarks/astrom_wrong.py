"""How often the local solution finds what is not there: sources beside catalogues of other fields.

    astrom_wrong.py [--trials N] [--jobs N]

Every trial is a list of sources and a list of reference stars that have nothing to do with each other: at
random, in clusters, on grids, in a hot column, doubled, one list an image of the other with its rows shuffled,
few stars and many, and catalogues much larger than the image. The guess is a pointing, a
coordinate system or nothing. Any solution is a false one; none is to be seen.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import sys
import time
from collections import Counter
from typing import NamedTuple

import numpy as np

from awetools.core.errors import NoSolution
from awetools.core.sky.solve import Guess, Reference, Sources, solve
from awetools.core.sky.sphere import from_tangent
from awetools.core.sky.wcs import Wcs

SIZE, SCALE = 1000, 0.25
KINDS = ("random", "clusters", "grids", "hot column", "doubles", "shuffled", "few", "many", "wide")
# The slow ones less often.
ORDER = (*KINDS[:7], *KINDS[:7], *KINDS[7:])
NUMBERS = {"few": 8, "many": 300}
CHANCE = re.compile(r"10\^(-?[0-9.]+) images")


class Outcome(NamedTuple):
    """A trial: the chance of what was found (None: nothing was), and of the best map that was refused."""

    kind: str
    guess: str
    found: float | None
    best: float
    took_s: float


def lists(kind: str, rng: np.random.Generator) -> tuple[Sources, Reference]:
    """Sources and reference stars that have nothing to do with each other."""
    number = NUMBERS.get(kind, 40)
    x, y = rng.uniform(1, SIZE, (2, number))
    flux = rng.pareto(1.5, number) + 1
    side = (6.0 if kind == "wide" else 1.3) * SIZE * SCALE / 3600
    listed = round(number * (36 if kind == "wide" else 1))
    xi, eta = rng.uniform(-0.5, 0.5, (2, listed)) * side
    mag = 16 - rng.exponential(1.5, listed)
    if kind == "clusters":
        x, y = 500 + 80 * rng.standard_cauchy((2, number))
        inside = (x > 1) & (x < SIZE) & (y > 1) & (y < SIZE)
        x, y, flux = x[inside], y[inside], flux[inside]
        xi, eta = 0.08 * side * rng.standard_cauchy((2, listed))
        near = np.hypot(xi, eta) < side
        xi, eta, mag = xi[near], eta[near], mag[near]
    elif kind == "grids":
        steps = np.arange(7) * rng.uniform(100, 140)
        x, y = (one.ravel() + rng.normal(0, 0.1, 49) + 20 for one in np.meshgrid(steps, steps))
        flux = rng.pareto(1.5, 49)
    elif kind == "hot column":
        x[: number // 2] = rng.uniform(100, 900) + rng.normal(0, 0.05, number // 2)
    elif kind == "doubles":
        x, y, flux = (
            np.r_[x, x + rng.normal(0, 2, number)],
            np.r_[y, y + rng.normal(0, 2, number)],
            np.r_[flux, flux],
        )
        xi, eta, mag = np.r_[xi, xi + 1e-4], np.r_[eta, eta - 1e-4], np.r_[mag, mag]
    elif kind == "shuffled":
        xi, eta, mag = (x - 500) * -SCALE / 3600, rng.permutation(y - 500) * SCALE / 3600, -flux
    ra, dec = from_tangent(xi, eta, 150.0, 30.0)
    return Sources(x, y, flux), Reference(ra, dec, mag)


GUESSES = {
    "pointing": Guess(pointing_deg=(150.0, 30.0), scale_arcsec=(0.23, 0.27)),
    "wcs": Guess(wcs=Wcs((150.0, 30.0), (500.0, 500.0), (-SCALE / 3600, 0.0, 0.0, SCALE / 3600))),
    "blind": Guess(scale_arcsec=(0.2, 0.3)),
}


def trial(number: int) -> Outcome:
    """One of them, by its number."""
    kind = ORDER[number % len(ORDER)]
    guess = tuple(GUESSES)[number // len(ORDER) % len(GUESSES)]
    sources, reference = lists(kind, np.random.default_rng(number))
    begun = time.process_time()
    found, best = None, 9.0
    try:
        found = solve(sources, reference, GUESSES[guess], shape=(SIZE, SIZE)).measures["chance_log10"]
    except NoSolution as problem:
        said = CHANCE.search(str(problem))
        best = float(said[1]) if said else 9.0
    return Outcome(kind, guess, found, best, time.process_time() - begun)


def main() -> int:
    """Run the trials; exit code 1 if there is a false solution."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=10_000, help="how many (default %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first (default %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default %(default)s)")
    given = parser.parse_args()
    with multiprocessing.Pool(given.jobs) as pool:
        numbers = range(given.first, given.first + given.trials)
        outcomes = []
        for one in pool.imap_unordered(trial, numbers, 20):
            outcomes.append(one)
            if len(outcomes) % 500 == 0:
                wrong = sum(other.found is not None for other in outcomes)
                print(f"{len(outcomes)} trials, {wrong} false", file=sys.stderr, flush=True)
    print(f"{'':12s} {'trials':>7s} {'false':>6s} {'least log10 chance refused':>27s} {'CPU s each':>11s}")
    for kind in KINDS:
        some = [one for one in outcomes if one.kind == kind]
        wrong = sum(one.found is not None for one in some)
        least = min((one.best for one in some), default=9.0)
        took = sum(one.took_s for one in some) / max(1, len(some))
        print(f"{kind:12s} {len(some):7d} {wrong:6d} {least:27.2f} {took:11.3f}")
    wrong = [one for one in outcomes if one.found is not None]
    print(f"{len(outcomes)} trials, {len(wrong)} false solutions", *Counter(one[:2] for one in wrong).items())
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
