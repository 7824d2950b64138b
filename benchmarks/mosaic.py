"""A mosaic of 20,000 x 20,000 pixels from 200 frames under 512 MiB beside SWarp: time, memory, stars; one run.

    mosaic.py [--frames N] [--side PIXELS] [--memory MIB] [--method clip|mean] [--keep DIRECTORY]

The frames (2048 x 4096 pixels, 16 bits) show one sky of stars through coordinates of their own: turned by up to
half a degree, distorted by 3 px in the corners (TPV), with noise, and bad columns of weight 0. They
cover the mosaic four times over, in dithers. Ours reads the frames and writes the image with WEIGHT, COUNT, MASK and
the table of what was clipped; SWarp resamples (LANCZOS3) and combines, with MEM_MAX and COMBINE_BUFSIZE
such that it keeps to the same memory. Both have one thread. Stars: scatter of windowed places about the truth, and
median and scatter of fluxes over the true ones. What is made lies under AWETOOLS_BENCH_CACHE and is removed
(about 30 GB for 200 frames, most of them SWarp's).
"""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from coadd import SETTINGS
from gastrom import ONE_THREAD
from measure import Cost, Table, cache, cost, package, program, versions

from awetools.core.coadd.coadd import How, coadd
from awetools.core.coadd.inputs import frame_of_fits
from awetools.core.fits import Plane, open_fits, write_fits
from awetools.core.fitsheader import format_card, wcs_cards
from awetools.core.memory import keep_freed_memory
from awetools.core.pixels.coadd import Stacking
from awetools.core.sky.grid import Grid
from awetools.core.sky.readwcs import read_wcs
from awetools.core.sky.wcs import Wcs
from awetools.core.sky.writewcs import wcs_as_cards

SHAPE, SCALE_DEG, CENTRE_DEG = (4096, 2048), 0.24 / 3600, (150.0, 20.0)
DITHERS, OFFSET_PX, TURN_DEG, DISTORTION = 4, 60, 0.5, 0.05
SKY, NOISE, SIGMA_PX, STAR_EVERY_PX = 500.0, 20.0, 1.7, 170
FLUXES = (2e4, 4e5)
HALF, APERTURE_PX = 12, 9.0
BAD_COLUMNS = (700, 1433)
COMBINE = {"clip": "CLIPPED", "mean": "WEIGHTED"}


class Sky(NamedTuple):
    """Stars of the mosaic: degrees and ADU."""

    ra: np.ndarray
    dec: np.ndarray
    flux: np.ndarray


def grid_of(side: int) -> Grid:
    """The grid of the mosaic."""
    middle = (side + 1) / 2
    return Grid(Wcs(CENTRE_DEG, (middle, middle), (-SCALE_DEG, 0.0, 0.0, SCALE_DEG)), (side, side))


def sky_of(grid: Grid) -> Sky:
    """A star in each cell, somewhere: none has a neighbour within 50 pixels."""
    rng = np.random.default_rng(1)
    cells = np.arange(-2, grid.shape[0] // STAR_EVERY_PX + 2)
    y, x = ((one + 0.5) * STAR_EVERY_PX for one in np.meshgrid(cells, cells, indexing="ij"))
    x, y = (one.ravel() + rng.uniform(-60, 60, one.size) for one in (x, y))
    low, high = np.log(FLUXES)
    return Sky(*grid.wcs.to_sky(x, y), np.exp(rng.uniform(low, high, x.size)))


def pointings(number: int, grid: Grid) -> Iterator[dict[str, Any]]:
    """The cards of each frame's coordinates."""
    rng = np.random.default_rng(2)
    (ny, nx), side = SHAPE, grid.shape[0]
    tiles = max(1, number // DITHERS)
    across = max(1, round(math.sqrt(tiles * ny / nx)))
    down = max(1, tiles // across)
    for i in range(number):
        tile = i % tiles
        places = ((tile % across) + 0.5) * side / across, ((tile // across) % down + 0.5) * side / down
        x, y = (one + shift for one, shift in zip(places, rng.uniform(-OFFSET_PX, OFFSET_PX, 2), strict=True))
        ra, dec = (float(one) for one in grid.wcs.to_sky(x, y))
        turn = math.radians(rng.uniform(-TURN_DEG, TURN_DEG))
        matrix = -math.cos(turn), math.sin(turn), math.sin(turn), math.cos(turn)
        cd = {f"CD{1 + k // 2}_{1 + k % 2}": SCALE_DEG * one for k, one in enumerate(matrix)}
        # Degrees of the plane times 1 + DISTORTION r^2.
        pv = {
            f"PV{axis}_{term}": value
            for axis in (1, 2)
            for term, value in ((1, 1.0), (7, DISTORTION), (9, DISTORTION))
        }
        yield {
            "CTYPE1": "RA---TPV",
            "CTYPE2": "DEC--TPV",
            "CUNIT1": "deg",
            "CUNIT2": "deg",
            "CRVAL1": ra,
            "CRVAL2": dec,
            "CRPIX1": (nx + 1) / 2,
            "CRPIX2": (ny + 1) / 2,
            "RADESYS": "ICRS",
            "EQUINOX": 2000.0,
            **cd,
            **pv,
        }


def make_frames(folder: Path, number: int, grid: Grid, sky: Sky) -> None:
    """Write frame000.fits ... and one weight under the names of all."""
    weight = np.full(SHAPE, NOISE**-2, np.float32)
    weight[:, list(BAD_COLUMNS)] = 0
    write_fits(folder / "weight.fits", [Plane("", weight)], [])
    for i, cards in enumerate(pointings(number, grid)):
        image = frame_image(i, read_wcs(cards), sky)
        write_fits(folder / f"frame{i:03d}.fits", [Plane("", image)], [(k, v, "") for k, v in cards.items()])
        (folder / f"frame{i:03d}.weight.fits").symlink_to(folder / "weight.fits")
        print(f"\r{i + 1} frames", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


def frame_image(number: int, wcs: Wcs, sky: Sky) -> np.ndarray:
    """Noise and Gaussian stars, integrated over pixels, as 16-bit numbers."""
    from scipy.special import erf

    ny, nx = SHAPE
    image = np.random.default_rng((3, number)).standard_normal(SHAPE, np.float32)
    image *= np.float32(NOISE)
    image += np.float32(SKY)
    x, y = (one - 1 for one in wcs.to_pixel(sky.ra, sky.dec))
    inside = np.flatnonzero((x > HALF) & (y > HALF) & (x < nx - HALF - 1) & (y < ny - HALF - 1))
    edges = np.arange(-HALF, HALF + 2) - 0.5
    for k in inside:
        i, j = round(float(x[k])), round(float(y[k]))
        profile = [
            0.5 * np.diff(erf((edges - (float(at) - whole)) / (math.sqrt(2) * SIGMA_PX)))
            for at, whole in ((x[k], i), (y[k], j))
        ]
        part = np.s_[j - HALF : j + HALF + 1, i - HALF : i + HALF + 1]
        image[part] += (sky.flux[k] * np.outer(profile[1], profile[0])).astype(np.float32)
    image[:, list(BAD_COLUMNS)] = 0
    return np.clip(np.rint(image), -32768, 32767).astype(np.int16)


def coadd_here(folder: Path, out: Path, side: int, method: str, memory_mib: int) -> None:
    """What the measured process does."""
    keep_freed_memory()
    with contextlib.ExitStack() as stack:
        frames = []
        for path in sorted(folder.glob("frame???.fits")):
            image = stack.enter_context(open_fits(path))
            weight = stack.enter_context(open_fits(path.with_suffix(".weight.fits")))
            wcs = read_wcs(wcs_cards(image.hdus[0].header))
            frames.append(frame_of_fits(path.stem, image, wcs, weight, sky=SKY))
        how = How(Stacking(method), memory_bytes=memory_mib << 20, folder=out.parent)  # type: ignore[arg-type]
        made = coadd(frames, grid_of(side), how)
        planes = [Plane(name, plane) for name, plane in made.planes.items()]
        write_fits(out, [*planes, Plane("CLIPPED", table=made.clipped)], [])


def swarp(folder: Path, out: Path, grid: Grid, method: str, memory_mib: int) -> Cost:
    """SWarp, in memory as large."""
    cards: dict[str, Any] = {"NAXIS": 2, "NAXIS1": grid.shape[1], "NAXIS2": grid.shape[0]}
    cards |= wcs_as_cards(grid.wcs) | {"RADESYS": "ICRS", "EQUINOX": 2000.0}
    text = "\n".join(format_card(k, v).decode().rstrip() for k, v in cards.items()) + "\nEND\n"
    out.with_suffix(".head").write_text(text)
    names = out.parent / "frames.list"
    names.write_text("\n".join(str(one) for one in sorted(folder.glob("frame???.fits"))) + "\n")
    words = f"-MEM_MAX {memory_mib // 2} -COMBINE_BUFSIZE {memory_mib // 4} -VMEM_MAX 32000 -VMEM_DIR {out.parent}"
    words += (
        f" -RESAMPLE_DIR {out.parent} -WEIGHT_SUFFIX .weight.fits -FSCALASTRO_TYPE FIXED -BACK_TYPE MANUAL"
    )
    words += f" -IMAGEOUT_NAME {out} -WEIGHTOUT_NAME {out.with_suffix('.weight.fits')}"
    words += f" -COMBINE_TYPE {COMBINE[method]} {SETTINGS.replace('-SUBTRACT_BACK N', '-SUBTRACT_BACK Y')}"
    words += f" -BACK_DEFAULT {SKY}"
    return cost(
        [str(program("SWarp", "swarp")), f"@{names}", *words.split()], out.parent, environment=ONE_THREAD
    )


def judged(path: Path, grid: Grid, sky: Sky) -> tuple[float, float, float]:
    """Scatter of places in pixels; median and scatter of fluxes over the true ones."""
    import sep

    x, y = (one - 1 for one in grid.wcs.to_pixel(sky.ra, sky.dec))
    side, edge = grid.shape[0], 40
    away, ratio = [], []
    with open_fits(path) as fits:
        for first in range(0, side, 1000):
            begin, end = max(0, first - edge), min(side, first + 1000 + edge)
            here = (y >= first) & (y < first + 1000) & (y > edge) & (y < side - edge)
            here &= (x > edge) & (x < side - edge) & (sky.flux > math.sqrt(FLUXES[0] * FLUXES[1]))
            if not here.any():
                continue
            rows = np.ascontiguousarray(fits.rows(0, begin, end), np.float32)
            at = x[here], y[here] - begin
            flux, _, _ = sep.sum_circle(rows, *at, APERTURE_PX, bkgann=(14, 20), subpix=0)
            wx, wy, _ = sep.winpos(rows, *at, np.full(len(flux), SIGMA_PX))
            away += [wx - at[0], wy - at[1]]
            ratio.append(flux / sky.flux[here])
    shifts, ratios = np.concatenate(away), np.concatenate(ratio)
    return spread(shifts), float(np.median(ratios)), spread(ratios)


def spread(values: np.ndarray) -> float:
    """1.4826 times the median distance from the median."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def main() -> None:
    """Make the frames, measure, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--side", type=int, default=20_000, help="pixels of the mosaic each way")
    parser.add_argument("--memory", type=int, default=512, help="cap of the memory in MiB")
    parser.add_argument("--method", choices=list(COMBINE), default="clip")
    parser.add_argument("--no-swarp", action="store_true", help="ours alone")
    parser.add_argument("--coadd", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.coadd:
        folder, out = (Path(one) for one in given.coadd)
        return coadd_here(folder, out, given.side, given.method, given.memory)
    if package("sep") is None:
        raise SystemExit("sep is not installed: it measures the stars")
    print("\n".join(versions(["SWarp"], ["sep"])), flush=True)
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache()) as work:
        return report(Path(work), given)


def report(work: Path, given: argparse.Namespace) -> None:
    """Both mosaics, one after the other: they do not lie on disk at once."""
    grid = grid_of(given.side)
    sky = sky_of(grid)
    (work / "frames").mkdir()
    make_frames(work / "frames", given.frames, grid, sky)
    table = Table("places px", "flux", "flux rms", name_width=34)
    name = f"{given.side} x {given.side}, {given.frames} frames"
    found: list[Cost] = []
    for who in ("awetools", "SWarp"):
        if who == "SWarp" and (given.no_swarp or program("SWarp", "swarp") is None):
            table.missing("SWarp", "SWarp")
            break
        place = work / who
        place.mkdir()
        out = place / "mosaic.fits"
        if who == "SWarp":
            took = swarp(work / "frames", out, grid, given.method, given.memory)
        else:
            words = ["--side", given.side, "--method", given.method, "--memory", given.memory]
            command = [sys.executable, __file__, "--coadd", work / "frames", out, *map(str, words)]
            took = cost(command, work, environment=ONE_THREAD)
        found.append(took)
        table.row(f"{name}: {who} {given.method}", took, *(f"{one:.5f}" for one in judged(out, grid, sky)))
        for path in place.iterdir():
            path.unlink()
    if len(found) == 2:
        print(
            f"CPU {found[0].cpu_s / found[1].cpu_s:.3f} of SWarp's; {found[0].peak_mb:.0f} MB (cap {given.memory} MiB)"
        )


if __name__ == "__main__":
    main()
