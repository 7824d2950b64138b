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

from awetools.core.products import ProductInput, open_product
from awetools.core.query import Question, ask
from awetools.core.kinds import KINDS
from awetools.core.store import Store

BAD_TRUTH = 4 | 8 | 16


def products(store: Store, kind: str) -> list[ProductInput]:
    rows = ask(Question(kind, None, ("path",)), [store], KINDS)
    return [open_product(Path(row["path"])) for row in rows]


def image(path: Path, name: str | None = None) -> np.ndarray:
    with fits.open(path, memmap=False) as hdus:
        return np.asarray(hdus[name or 0].data)


def line(product: ProductInput, what: str, value: float, low: float, high: float) -> bool:
    ok = low <= value <= high
    where = f"{product.kind} {product.meta['detector']} {product.meta.get('filter') or ''} {product.meta.get('exposure') or ''}"
    print(f"{'ok ' if ok else 'OFF'} {where.strip():32s} {what:44s} {value:9.4f}   ({low:g} to {high:g})")
    return ok


def width(values: np.ndarray) -> float:
    """Width of a distribution of mostly Gaussian values: half the 16 to 84 per cent range."""
    low, high = np.percentile(values, [15.865, 84.135])
    return float(high - low) / 2


def check_readnoise(root: Path, product: ProductInput) -> bool:
    amplifiers = json.loads((root / "run.json").read_text())["detectors"][product.meta["detector"]]["amplifiers"]
    truth = np.array([one["read_noise_e"] / one["gain_e_adu"] for one in amplifiers])
    with fits.open(product.path) as hdus:
        found = np.asarray(hdus[1].data["READ_NOISE_ADU"])
    return line(product, "read noise / truth, worst amplifier", float((found / truth)[np.argmax(abs(found / truth - 1))]), 0.99, 1.01)


def check_bias(root: Path, product: ProductInput) -> bool:
    truth = image(root / "truth" / f"bias_{product.meta['detector']}.fits")
    found, weight = image(product.path), image(product.path, "WEIGHT")
    good = (weight > 0) & (image(root / "truth" / f"pixmask_{product.meta['detector']}.fits") == 0)
    residual = np.where(good, found - truth, np.nan)
    residual -= np.nanmedian(residual)
    noise = float(np.sqrt(np.median(1 / weight[good])))
    rows = float(np.nanstd(np.nanmean(residual, axis=1))) / (noise / np.sqrt(residual.shape[1]))
    columns = float(np.nanstd(np.nanmean(residual, axis=0))) / (noise / np.sqrt(residual.shape[0]))
    return line(product, "rms of row means / expected noise", rows, 0.8, 1.1) & line(
        product, "rms of column means / expected noise", columns, 0.8, 1.1
    )


def check_flat(root: Path, product: ProductInput) -> bool:
    name = f"flat_adu_{product.meta['filter']}_{product.meta['detector']}.fits"
    truth, found, mask = image(root / "truth" / name), image(product.path), image(product.path, "MASK")
    good = (mask == 0) & (truth > 0.3) & (image(root / "truth" / f"pixmask_{product.meta['detector']}.fits") == 0)
    ratio = np.where(good, found / np.where(truth > 0, truth, 1), np.nan)
    ratio /= plane(ratio)
    ny, nx = (32 * (size // 32) for size in ratio.shape)
    blocks = np.nanmean(ratio[:ny, :nx].reshape(ny // 32, 32, nx // 32, 32), axis=(1, 3))
    return line(product, "flat / truth at 32 px, gradient out, rms %", 100 * float(np.nanstd(blocks)), 0, 0.1)


def plane(ratio: np.ndarray) -> np.ndarray:
    """The lamp's gradient: a second-degree surface fitted to a ratio image."""
    y, x = (axis / max(ratio.shape) for axis in np.indices(ratio.shape, dtype=np.float32))
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    use = np.isfinite(ratio)
    thin = np.zeros_like(use)
    thin[::7, ::7] = True
    solution = np.linalg.lstsq(terms[use & thin].astype(float), ratio[use & thin].astype(float), rcond=None)[0]
    return np.asarray(terms @ solution)


def check_reduced(root: Path, product: ProductInput) -> bool:
    stem = f"sim_{int(product.meta['exposure'].rpartition('_')[2]):04d}_{product.meta['detector']}"
    truth = image(root / "truth" / "science" / f"{stem}.fits")
    flaws = image(root / "truth" / "mask" / f"{stem}.fits") | image(root / "truth" / f"pixmask_{product.meta['detector']}.fits")
    found, weight, mask = image(product.path), image(product.path, "WEIGHT"), image(product.path, "MASK")
    sky = float(np.median(truth))
    good = (weight > 0) & (mask == 0) & (flaws == 0) & (truth < 1.01 * sky + 1)
    residual = (found - truth)[good]
    pulls = (residual - np.median(residual)) * np.sqrt(weight[good])
    return line(product, "width of the pulls on sky", width(pulls), 0.98, 1.02)


def main(directory: str) -> int:
    root = Path(directory).resolve()
    store = Store(root)
    checks: dict[str, Any] = {
        "readnoise": check_readnoise,
        "bias": check_bias,
        "flat": check_flat,
        "reduced": check_reduced,
    }
    results = [check(root, one) for kind, check in checks.items() for one in products(store, kind)]
    print(f"{sum(results)} of {len(results)} agree")
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
