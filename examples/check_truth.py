"""Compare the products of a simulated night with its truth; exits 1 if one is off.

    check_truth.py DIRECTORY        a directory that awe-simulate filled and that was reduced as a store

Prints a line a product: what was measured, what is expected.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from awetools.core.kinds import KINDS
from awetools.core.products import ProductInput, open_product
from awetools.core.questions.query import Question, ask
from awetools.core.store import Store

HOT, COSMIC, TRAIL = 1, 8, 16


def products(store: Store, kind: str) -> list[ProductInput]:
    rows = ask(Question(kind, None, ("path",)), [store], KINDS)
    return [open_product(Path(row["path"])) for row in rows]


def image(path: Path, name: str | None = None) -> np.ndarray:
    with fits.open(path, memmap=False) as hdus:
        return np.asarray(hdus[name or 0].data)


def line(product: ProductInput, what: str, value: float, low: float, high: float) -> bool:
    ok = low <= value <= high
    names = (product.meta.get(name) for name in ("detector", "filter", "exposure"))
    where = " ".join([product.kind, *(str(name) for name in names if name)])
    print(f"{'ok ' if ok else 'OFF'} {where:32s} {what:44s} {value:9.4f}   ({low:g} to {high:g})")
    return ok


def width(values: np.ndarray) -> float:
    """Width of a distribution of mostly Gaussian values: half the 16 to 84 per cent range."""
    low, high = np.percentile(values, [15.865, 84.135])
    return float(high - low) / 2


def detector_truth(root: Path, name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads((root / "run.json").read_text())["camera"]["detectors"]
    return next(one for one in found if one["name"] == name)


def check_readnoise(root: Path, product: ProductInput) -> bool:
    amplifiers = detector_truth(root, product.meta["detector"])["amplifiers"]
    truth = np.array([one["read_noise_adu"] for one in amplifiers])
    with fits.open(product.path) as hdus:
        ratio = np.asarray(hdus[1].data["READ_NOISE_ADU"]) / truth
    return line(product, "read noise / truth, worst amplifier", ratio[np.argmax(abs(ratio - 1))], 0.99, 1.01)


def check_gain(root: Path, product: ProductInput) -> bool:
    amplifiers = detector_truth(root, product.meta["detector"])["amplifiers"]
    truth = np.array([one["gain_e_adu"] for one in amplifiers])
    with fits.open(product.path) as hdus:
        ratio = np.asarray(hdus[1].data["GAIN_E_ADU"]) / truth
        error = np.asarray(hdus[1].data["GAIN_ERROR_E_ADU"]) / truth
    worst = int(np.argmax(abs(ratio - 1)))
    # A small detector has few pixels: its gain is as good as its error says.
    allowed = max(0.01, 3 * float(error[worst]))
    return line(product, "gain / truth, worst amplifier", ratio[worst], 1 - allowed, 1 + allowed)


def check_bias(root: Path, product: ProductInput) -> bool:
    truth = image(root / "truth" / f"bias_{product.meta['detector']}.fits")
    found, weight = image(product.path), image(product.path, "WEIGHT")
    good = (weight > 0) & (image(root / "truth" / f"pixmask_{product.meta['detector']}.fits") == 0)
    residual = np.where(good, found - truth, np.nan)
    residual -= np.nanmedian(residual)
    noise = float(np.sqrt(np.mean(1 / weight[good])))
    rows = float(np.nanstd(np.nanmean(residual, axis=1))) / (noise / np.sqrt(residual.shape[1]))
    columns = float(np.nanstd(np.nanmean(residual, axis=0))) / (noise / np.sqrt(residual.shape[0]))
    return line(product, "rms of row means / expected noise", rows, 0.8, 1.1) & line(
        product, "rms of column means / expected noise", columns, 0.8, 1.1
    )


def found_and_true(mask: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Which part of the truth a mask has, and which part of the mask is true."""
    both = np.count_nonzero(mask & truth)
    return both / max(np.count_nonzero(truth), 1), both / max(np.count_nonzero(mask), 1)


def check_hotpix(root: Path, product: ProductInput) -> bool:
    name = product.meta["detector"]
    truth = image(root / "truth" / f"pixmask_{name}.fits") & HOT != 0
    _, true = found_and_true(image(product.path) & HOT != 0, truth)
    return line(product, "hot pixels: part of those masked that is true", true, 0.95, 1)


def check_flat(root: Path, product: ProductInput) -> bool:
    name = f"flat_adu_{product.meta['filter']}_{product.meta['detector']}.fits"
    truth, found, mask = image(root / "truth" / name), image(product.path), image(product.path, "MASK")
    good = (
        (mask == 0)
        & (truth > 0.3)
        & (image(root / "truth" / f"pixmask_{product.meta['detector']}.fits") == 0)
    )
    ratio = np.where(good, found / np.where(truth > 0, truth, 1), np.nan)
    ratio /= light(root, product, ratio.shape)
    ratio /= np.nanmean(ratio)
    ny, nx = (32 * (size // 32) for size in ratio.shape)
    blocks = np.nanmean(ratio[:ny, :nx].reshape(ny // 32, 32, nx // 32, 32), axis=(1, 3))
    return line(product, "flat / truth at 32 px, gradient out, rms %", 100 * float(np.nanstd(blocks)), 0, 0.1)


def light(root: Path, product: ProductInput, shape: tuple[int, int]) -> np.ndarray:
    """The light that a flat takes for even, as it was injected: that of the twilight, else of the dome's lamp."""
    run = json.loads((root / "run.json").read_text())
    twilights = [one for one in run["exposures"] if one["obstype"] == "SKYFLAT"]
    wanted = ("SKYFLAT" if twilights else "DOMEFLAT", product.meta["filter"])
    lamps = [one["lamp"] for one in run["exposures"] if (one["obstype"], one["filter"]) == wanted]
    levels = np.array([one["level_adu"] for one in lamps])
    gx, gy, bowl = np.average([[*one["gradient"], one["bowl"]] for one in lamps], axis=0, weights=levels)
    detectors = run["camera"]["detectors"]
    ny, nx = shape
    left = min(one["offset_px"] for one in detectors) - nx / 2
    right = max(one["offset_px"] for one in detectors) + nx / 2
    offset = detector_truth(root, product.meta["detector"])["offset_px"]
    x = (np.arange(nx) + 0.5 - nx / 2 + offset) / ((right - left) / 2)
    y = (np.arange(ny)[:, None] + 0.5 - ny / 2) / (ny / 2)
    return np.asarray(1 + gx * x + gy * y + bowl * (x * x + y * y))


def check_reduced(root: Path, product: ProductInput) -> bool:
    stem = next(Path(one["path"]).stem for one in product.record["recipe"]["inputs"] if one["role"] == "raw")
    truth = image(root / "truth" / "science" / f"{stem}.fits")
    flaws = image(root / "truth" / "mask" / f"{stem}.fits") | image(
        root / "truth" / f"pixmask_{product.meta['detector']}.fits"
    )
    found, weight, mask = image(product.path), image(product.path, "WEIGHT"), image(product.path, "MASK")
    even = light(root, product, truth.shape)
    even /= even.mean()
    found, weight = found * even, weight / even**2
    sky = float(np.median(truth))
    good = (weight > 0) & (mask == 0) & (flaws == 0) & (truth < 1.01 * sky + 1)
    residual = (found - truth)[good]
    pulls = (residual - np.median(residual)) * np.sqrt(weight[good])
    cosmic, trail = (
        found_and_true(mask & bit != 0, (flaws & bit != 0) & (mask & ~bit == 0)) for bit in (COSMIC, TRAIL)
    )
    ok = line(product, "width of the pulls on sky, gradient of the flats out", width(pulls), 0.98, 1.02)
    # The truth is every pixel above 2 sigma, and a small frame has few rays.
    ok &= line(product, "cosmic rays: part of the truth that is masked", cosmic[0], 0.7, 1)
    if (flaws & TRAIL).any():
        ok &= line(product, "trail: part of the truth that is masked", trail[0], 0.95, 1)
        ok &= line(product, "trail: part of the mask that is true", trail[1], 0.9, 1)
    return ok


def check_sourcelist(root: Path, product: ProductInput) -> bool:
    """Stars of the list beside the true ones, which are those of the night's epoch."""
    with fits.open(product.path) as hdus, fits.open(root / "truth" / "catalog.fits") as true:
        found, stars = hdus[1].data, true[1].data[np.char.strip(true[1].data["TYPE"].astype(str)) == "STAR"]
    bright = (stars["MAG_R"] > 16) & (stars["MAG_R"] < 20)
    stars = stars[bright]
    dec = stars["DEC"][:, None]
    dra = (found["RA_DEG"] - stars["RA"][:, None]) * np.cos(np.radians(dec)) * 3600
    ddec = (found["DEC_DEG"] - dec) * 3600
    distance = np.hypot(dra, ddec)
    star, source = np.nonzero((distance < 0.5) & (found["FLAGS"] == 0))
    away = distance[star, source]
    magnitude = stars[f"MAG_{product.meta['filter']}"][star]
    differs = found["MAG_AUTO"][source] - magnitude
    ok = line(
        product, "stars: rms distance from the truth, arcsec", float(np.sqrt(np.mean(away**2))), 0, 0.06
    )
    ok &= line(product, "stars: median magnitude less the true one", float(np.median(differs)), -0.03, 0.03)
    return ok & line(product, "stars: width of the magnitude differences", width(differs), 0, 0.05)


def main(directory: str) -> int:
    root = Path(directory).resolve()
    store = Store(root)
    checks: dict[str, Any] = {
        "readnoise": check_readnoise,
        "gain": check_gain,
        "bias": check_bias,
        "hotpix": check_hotpix,
        "flat": check_flat,
        "reduced": check_reduced,
        "sourcelist": check_sourcelist,
    }
    results = [check(root, one) for kind, check in checks.items() for one in products(store, kind)]
    print(f"{sum(results)} of {len(results)} agree")
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
