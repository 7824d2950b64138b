"""How much of trails and bleeding the masks find, and how much else, against the truth of simulated frames.

    masks.py [--quick]

Frames are simulated with stars, galaxies and a trail in every third one; each is reduced
with the true bias and flat, so that only the masks are measured. More trails are drawn
into frames without one: any angle, 3 to 200 sigma high, 3 to 20 pixels wide. The truth is
every pixel whose trail is above 2 sigma of its noise, or that is saturated or was bled
into. CPU seconds are those of the functions, in this process, the best of three.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from astropy.io import fits
from measure import night, raw_frames, versions

from awetools.core.pixels.saturate import saturated
from awetools.core.pixels.smooth import background
from awetools.core.pixels.stats import clipped
from awetools.core.pixels.trails import find_trails

SATURATED, TRAIL = 4, 16
RECALL_GOAL, PRECISION_GOAL = 0.95, 0.9
SEED = 20261120


class Scene(NamedTuple):
    """One simulated frame: raw counts, their saturation level, sky-subtracted image over its noise, truth."""

    name: str
    counts: np.ndarray
    level_adu: float
    residual_sigma: np.ndarray
    good: np.ndarray
    truth: np.ndarray


class Score:
    """Pixels found, true, and both, summed over frames."""

    def __init__(self) -> None:
        self.both = self.true = self.found = 0
        self.cpu_s: list[float] = []

    def add(self, found: np.ndarray, truth: np.ndarray, cpu_s: float) -> None:
        """Count a frame."""
        self.both += int(np.count_nonzero(found & truth))
        self.true += int(np.count_nonzero(truth))
        self.found += int(np.count_nonzero(found))
        self.cpu_s.append(cpu_s)

    def row(self, name: str) -> None:
        """Print what was found of how much."""
        recall = self.both / self.true if self.true else float("nan")
        precision = self.both / self.found if self.found else float("nan")
        cpu = float(np.median(self.cpu_s)) if self.cpu_s else float("nan")
        print(
            f"{name:44s} {len(self.cpu_s):7d} {self.true:10d} {recall:8.4f} {precision:10.4f} {cpu:8.3f}",
            flush=True,
        )


def scenes(directory: Path) -> Iterator[Scene]:
    """The science frames of a night, reduced with the truth."""
    truth = directory / "truth"
    for row in raw_frames(directory, "OBJECT"):
        stem, detector = Path(row["path"]).stem, row["detector"]
        raw, header = fits.getdata(row["path"]).astype(np.float32), fits.getheader(row["path"])
        mask = fits.getdata(truth / "mask" / f"{stem}.fits")
        counts, image = np.empty(mask.shape, np.float32), np.empty(mask.shape, np.float32)
        for name in "AB":
            data, overscan, target = (
                _section(header[key + name]) for key in ("DATASEC", "BIASSEC", "TRIMSEC")
            )
            counts[target] = raw[data]
            image[target] = raw[data] - np.median(raw[overscan], axis=1)[:, None]
        image -= fits.getdata(truth / f"bias_{detector}.fits")
        image /= fits.getdata(truth / f"flat_adu_{row['filter']}_{detector}.fits")
        level = float(header["SATURATE"])
        good = (fits.getdata(truth / f"pixmask_{detector}.fits") == 0) & ~saturated(counts, level)
        image -= background(image, good)
        image /= np.float32(clipped(image[good]).stdev)
        yield Scene(stem, counts, level, image, good, mask)


def _section(text: str) -> tuple[slice, slice]:
    x, y = (
        slice(int(low) - 1, int(high))
        for low, high in (part.split(":") for part in text.strip("[]").split(","))
    )
    return y, x


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What a function returns, and its CPU seconds, the best of three."""
    taken = []
    for _ in range(3):
        start = time.process_time()
        result = work()
        taken.append(time.process_time() - start)
    return result, min(taken)


def drawn_trail(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A straight trail of a Gaussian profile, in units of the sky noise."""
    ny, nx = shape
    angle, peak = rng.uniform(0, np.pi), np.exp(rng.uniform(np.log(3), np.log(200)))
    sigma = np.exp(rng.uniform(np.log(3), np.log(20))) / 2.3548
    x0, y0 = rng.uniform(0.2, 0.8, 2) * (nx, ny)
    y, x = np.ogrid[:ny, :nx]
    across = np.float32(np.cos(angle)) * (y - y0) - np.float32(np.sin(angle)) * (x - x0)
    return np.asarray(peak * np.exp(-0.5 * (across / sigma) ** 2), np.float32)


def measure(directories: list[Path], drawn: int) -> None:
    """Measure all frames, and print the table."""
    rng = np.random.default_rng(SEED)
    bleeding, tails, simulated, free, added = (Score() for _ in range(5))
    false_trails = 0
    for directory in directories:
        for scene in scenes(directory):
            truth = (scene.truth & SATURATED) > 0
            bleeding.add(*_masked(lambda s=scene: saturated(s.counts, s.level_adu), truth))
            tails.add(*_masked(lambda s=scene: saturated(s.counts, s.level_adu, _sigma_at(s)), truth))
            truth = (scene.truth & TRAIL) > 0
            found, cpu = timed(lambda s=scene: find_trails(s.residual_sigma, s.good))
            if truth.any():
                simulated.add(found.mask, truth, cpu)
                continue
            free.add(found.mask, truth, cpu)
            false_trails += len(found.lines)
            for _ in range(drawn):
                light = drawn_trail(rng, scene.residual_sigma.shape)
                with_trail = scene.residual_sigma + light
                found, cpu = timed(lambda s=scene, image=with_trail: find_trails(image, s.good))
                added.add(found.mask & scene.good, (light > 2) & scene.good, cpu)
    print(f"{'':44s} {'frames':>7s} {'true px':>10s} {'recall':>8s} {'precision':>10s} {'cpu s':>8s}")
    bleeding.row("saturated and bled into, by counts")
    tails.row("saturated and bled into, with tails")
    simulated.row("trails of the simulated night")
    added.row("trails drawn, 3 to 200 sigma")
    free.row(f"frames without a trail: {false_trails} found")
    print(f"goal: recall {RECALL_GOAL}, precision {PRECISION_GOAL}, no trail where there is none")


def _sigma_at(of: Scene) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """What `saturated` asks for: the scene's light in units of its noise, at rows and columns."""
    return lambda rows, columns: of.residual_sigma[rows, columns]


def _masked(work: Callable[[], np.ndarray], truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    found, cpu_s = timed(work)
    return found, truth, cpu_s


def main() -> None:
    """Simulate, measure, print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small frames, to see that it runs")
    quick = parser.parse_args().quick
    shape, exposures = ("512x1024", "3") if quick else ("2048x4096", "6")
    words = ["--detectors", "1", "--exposures", exposures, "--biases", "1", "--flats", "2"]
    words += ["--twilights", "0", "--darks", "0", "--shape", shape]
    print("\n".join(versions()))
    measure([night(*words, "--seed", str(seed)) for seed in ((1,) if quick else (1, 2))], 1 if quick else 2)


if __name__ == "__main__":
    main()
