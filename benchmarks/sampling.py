"""What each kernel of a regrid does to stars without noise, by how wide they are sampled.

    sampling.py

Moffat profiles by FWHM, turned by 1.3 degrees, for pixels as large and 1.08 times as large: `shift` is the rms
of the windowed centroids after minus before, `flux` the scatter of aperture fluxes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from awetools.core.pixels.resample import TAPS, resample

APERTURE_PX = 9.0
KERNELS = tuple(name for name in TAPS if name != "nearest")


class Turned:
    """A turn and a scale, without a sky."""

    def __init__(self, side: int, ratio: float) -> None:
        angle = np.radians(1.3)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        self.matrix, middle = ratio * turn, np.full(2, side / 2)
        self.offset = middle - self.matrix @ middle
        self.shape, self.window = (side, side), ((0, side), (0, side))

    def at(self, rows: Any, columns: Any, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Places of the middles."""
        y, x = np.mgrid[rows[0] : rows[1], columns[0] : columns[1]] + shift
        (a, b), (c, d) = self.matrix
        return a * x + b * y + self.offset[0], c * x + d * y + self.offset[1]

    def corners(self, rows: Any, columns: Any) -> tuple[np.ndarray, np.ndarray]:
        """Places of the corners."""
        return self.at((rows[0], rows[1] + 1), (columns[0], columns[1] + 1), -0.5)

    def areas(self, rows: Any, columns: Any) -> np.ndarray:
        """The same everywhere."""
        return np.full((rows[1] - rows[0], columns[1] - columns[0]), abs(np.linalg.det(self.matrix)))


def star_field(fwhm_px: float, number: int = 20, cell: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """An image of number^2 Moffat stars (beta 3.5), integrated over pixels, and their places (2, n)."""
    rng = np.random.default_rng(1)
    width, beta, half, parts = 0.5 * fwhm_px / np.sqrt(2 ** (1 / 3.5) - 1), 3.5, cell // 2 - 1, 9
    image = np.zeros((number * cell, number * cell), np.float32)
    fine = (np.arange((2 * half + 1) * parts) - (2 * half + 1) * parts // 2) / parts
    places = []
    for j in range(number):
        for i in range(number):
            off = rng.random(2) - 0.5
            x, y = i * cell + cell // 2, j * cell + cell // 2
            profile = (1 + ((fine - off[0]) ** 2 + (fine[:, None] - off[1]) ** 2) / width**2) ** -beta
            binned = profile.reshape(2 * half + 1, parts, 2 * half + 1, parts).mean((1, 3))
            image[y - half : y + half + 1, x - half : x + half + 1] = 1e4 * binned
            places.append((x + off[0], y + off[1]))
    return image, np.transpose(places)


def main(ratios: tuple[float, ...] = (1.0, 1.08)) -> None:
    """Print the table: FWHM by kernel."""
    import sep

    print(
        f"{'FWHM px':>8s} {'ratio':>6s} "
        + " ".join(f"{name:>18s}" for name in KERNELS)
        + "   (shift px, flux rms)"
    )
    for fwhm in (1.8, 2.0, 2.25, 2.5, 2.75, 3.0, 3.5, 3.9, 5.0):
        image, (x, y) = star_field(fwhm)
        for ratio in ratios:
            turned = Turned(len(image), ratio)
            there = np.linalg.solve(turned.matrix, np.stack([x, y]) - turned.offset[:, None])
            side = len(image)
            ok = (
                (there > 40) & (there < side - 40) & (np.stack([x, y]) > 40) & (np.stack([x, y]) < side - 40)
            ).all(0)
            sigma = np.full(ok.sum(), fwhm / 2.355)
            before = sep.winpos(image.astype(float), x[ok], y[ok], sigma)[:2]
            true = np.linalg.solve(turned.matrix, np.stack(before) - turned.offset[:, None])
            own = sep.sum_circle(image, x[ok], y[ok], APERTURE_PX, subpix=0)[0]
            cells = []
            for name in KERNELS:
                made = resample(image, turned, kernel_name=name, conserve="flux").data
                places = there[:, ok]
                after = sep.winpos(made.astype(float), *places, sigma / ratio)[:2]
                flux = sep.sum_circle(made, *places, APERTURE_PX / ratio, subpix=0)[0] / own
                cells.append(f"{np.std(np.stack(after) - true):9.5f} {np.std(flux):8.5f}")
            print(f"{fwhm:8.2f} {ratio:6.2f} " + " ".join(cells), flush=True)


if __name__ == "__main__":
    main()
