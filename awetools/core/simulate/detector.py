"""The fixed maps of a detector: bias pattern, dark current, response, fringes, bad pixels.

Every map covers the trimmed detector, as float32 (ny, nx). A frame is made from
the files these maps are written to, so that the truth is the truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .camera import Detector
from .plan import stream
from .spec import NightSpec

HOT, COLD, SATURATED, COSMIC, TRAIL = 1, 2, 4, 8, 16

HOT_FRACTION, COLD_FRACTION = 2e-4, 1.5e-4
COLUMNS_PER_BAD_ONE = 700
HOT_BIAS_ADU, HOT_DARK_E_S = (30.0, 6000.0), (0.5, 300.0)
DARK_E_S, GLOW_E_S = 0.015, 0.08
DEEPEST_RESPONSE = 0.005
VIGNETTING = 0.14


@dataclass(frozen=True)
class Defects:
    """Where bad pixels lie: rows, columns of single ones; column, first row of bad columns."""

    hot: tuple[np.ndarray, np.ndarray]
    cold: tuple[np.ndarray, np.ndarray]
    hot_columns: tuple[tuple[int, int], ...]
    dead_columns: tuple[tuple[int, int], ...]


def mosaic_grid(spec: NightSpec, detector: Detector) -> tuple[np.ndarray, np.ndarray]:
    """X (1, nx) and Y (ny, 1) of the pixels, -1 to 1 across the mosaic's width and height, float32."""
    half_width, half_height = spec.half_size_px
    x = (np.arange(detector.nx) - (detector.nx - 1) / 2 + detector.offset_px) / half_width
    y = (np.arange(detector.ny) - (detector.ny - 1) / 2) / half_height
    return x[None, :].astype(np.float32), y[:, None].astype(np.float32)


def find_defects(spec: NightSpec, detector: Detector) -> Defects:
    """The places of all bad pixels and columns."""
    rng = stream(spec.seed, "defects", detector.index)
    nx, ny = detector.nx, detector.ny

    def pixels(fraction: float) -> tuple[np.ndarray, np.ndarray]:
        count = max(4, round(fraction * nx * ny))
        return rng.integers(0, ny, count), rng.integers(0, nx, count)

    def columns() -> tuple[tuple[int, int], ...]:
        count = max(1, nx // COLUMNS_PER_BAD_ONE)
        return tuple((int(rng.integers(0, nx)), int(rng.integers(0, ny * 3 // 4))) for _ in range(count))

    return Defects(pixels(HOT_FRACTION), pixels(COLD_FRACTION), columns(), columns())


def pixel_mask(detector: Detector, defects: Defects) -> np.ndarray:
    """Bits 1 (hot) and 2 (cold or dead), int16 (ny, nx)."""
    mask = np.zeros((detector.ny, detector.nx), np.int16)
    mask[defects.hot] |= HOT
    mask[defects.cold] |= COLD
    for column, row in defects.hot_columns:
        mask[row:, column] |= HOT
    for column, row in defects.dead_columns:
        mask[row:, column] |= COLD
    return mask


def bias_map(spec: NightSpec, detector: Detector, defects: Defects) -> np.ndarray:
    """What the data columns read above the overscan of their row, without light, ADU."""
    rng = stream(spec.seed, "bias", detector.index)
    image = np.empty((detector.ny, detector.nx), np.float32)
    up = np.linspace(-1, 1, detector.ny)
    for amplifier in detector.amplifiers:
        width = amplifier.target[1] - amplifier.target[0]
        along = np.arange(width)
        columns = rng.normal(0, 0.9, width) + rng.uniform(3, 6) * np.exp(-along / 15.0)
        columns += rng.normal(0, 1.2) * np.linspace(-1, 1, width)
        if amplifier.mirrored:
            columns = columns[::-1]
        rows = rng.normal(0, 0.3, detector.ny) + rng.normal(0, 1.2) * up
        rows += 0.4 * np.sin(2 * np.pi * (np.arange(detector.ny) / 37.0 + rng.random()))
        image[:, slice(*amplifier.target)] = rows[:, None] + columns[None, :]
    image[defects.hot] += _log_uniform(rng, HOT_BIAS_ADU, len(defects.hot[0]))
    for column, row in defects.hot_columns:
        image[row:, column] += rng.uniform(8, 60)
    return image


def dark_map(spec: NightSpec, detector: Detector, defects: Defects) -> np.ndarray:
    """Dark current, e-/s: a floor with structure, glow of the amplifiers' corners, hot pixels and columns."""
    rng = stream(spec.seed, "dark", detector.index)
    shape = (detector.ny, detector.nx)
    image = 1 + 0.25 * smooth_field(rng, shape)
    image += 0.15 * rng.standard_normal(shape, dtype=np.float32)
    np.maximum(image, 0.05, out=image)
    image *= np.float32(DARK_E_S)
    reach = 0.06 * max(shape)
    x, y = np.arange(detector.nx), np.arange(detector.ny)
    for amplifier in detector.amplifiers:
        across = (detector.nx - 1 - x) if amplifier.mirrored else x
        near_x, near_y = np.exp(-across / reach), np.exp(-y / reach)
        image += (GLOW_E_S * near_y)[:, None].astype(np.float32) * near_x[None, :].astype(np.float32)
    image[defects.hot] += _log_uniform(rng, HOT_DARK_E_S, len(defects.hot[0]))
    for column, row in defects.hot_columns:
        image[row:, column] += rng.uniform(0.3, 5)
    return image


def response_map(spec: NightSpec, detector: Detector, defects: Defects, name: str) -> np.ndarray:
    """Relative response in electrons in one filter; its mean over good pixels is 1.

    Pixel-to-pixel variation, dust on the window (the same in all filters) and on
    the filter, vignetting, smooth variations, cold pixels and dead columns.
    """
    shape = (detector.ny, detector.nx)
    common, own = (
        stream(spec.seed, "response", detector.index),
        stream(spec.seed, "response", detector.index, name),
    )
    image = common.standard_normal(shape, dtype=np.float32) * np.float32(0.0095)
    image += own.standard_normal(shape, dtype=np.float32) * np.float32(0.003)
    image += 1 + 0.012 * smooth_field(common, shape) + 0.006 * smooth_field(own, shape)
    image *= _vignetting(spec, detector, name)
    _add_dust(image, common, per_megapixel=4.0, radius=(8, 30), depth=(0.03, 0.10))
    _add_dust(image, own, per_megapixel=2.0, radius=(25, 70), depth=(0.01, 0.03))
    image /= image[pixel_mask(detector, defects) == 0].mean(dtype=np.float64)
    image[defects.cold] *= common.uniform(0.0, 0.85, len(defects.cold[0])).astype(np.float32)
    for column, row in defects.dead_columns:
        image[row:, column] *= common.uniform(0.0, 0.2)
    return np.asarray(np.maximum(image, np.float32(DEEPEST_RESPONSE)))


def flat_adu(detector: Detector, response: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, float]:
    """The flat a reduction in ADU measures, and the effective gain in e-/ADU after dividing by it.

    response / gain with a mean of 1 over good pixels; a pixel of response 1 that
    made n electrons then holds n / effective gain, whatever its amplifier.
    """
    flat = response.copy()
    for amplifier in detector.amplifiers:
        flat[:, slice(*amplifier.target)] /= np.float32(amplifier.gain_e_adu)
    mean = float(flat[mask == 0].mean(dtype=np.float64))
    flat /= np.float32(mean)
    return flat, 1 / mean


def scattered_map(spec: NightSpec, detector: Detector) -> np.ndarray:
    """What flats and skies are brighter by for scattered light, which stars have none of: 1 in the corners.

    It falls with the square of the distance from the optical axis.
    """
    x, y = mosaic_grid(spec, detector)
    half_width, half_height = spec.half_size_px
    r2 = ((x * half_width) ** 2 + (y * half_height) ** 2) / np.float32(spec.corner_px**2)
    light: np.ndarray = 1 + np.float32(spec.scattered_light) * (1 - r2)
    return light


def fringe_map(spec: NightSpec, detector: Detector, name: str) -> np.ndarray:
    """Fringes of the night sky, relative, mean 0 and amplitude 1: interference in an uneven layer."""
    shape = (detector.ny, detector.nx)
    thickness = stream(spec.seed, "thickness", detector.index)
    orders = 2 * np.pi * (3 + 2 * stream(spec.seed, "fringes", name).random())
    phase = smooth_field(thickness, shape, modes=6) * np.float32(orders)
    fringes = np.sin(phase)
    fringes -= fringes.mean(dtype=np.float64).astype(np.float32)
    return fringes


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], modes: int = 4) -> np.ndarray:
    """A smooth random field, float32, of mean near 0 and expected rms 1: low cosine modes.

    Summed mode by mode, not as a matrix product, whose last bits depend on threads.
    """
    order = np.arange(modes + 1)
    amplitude = rng.normal(0, 1, (modes + 1, modes + 1)) / (1 + order[:, None] + order[None, :])
    amplitude[0, 0] = 0.0
    norm = np.where(order == 0, 1.0, np.sqrt(0.5))
    expected = np.sqrt(
        (((norm[:, None] * norm[None, :]) / (1 + order[:, None] + order[None, :])) ** 2).sum() - 1
    )
    y, x = ((np.arange(side) + 0.5) / side for side in shape)
    field = np.zeros(shape, np.float32)
    for row in order:
        across = sum(amplitude[row, column] * np.cos(np.pi * column * x) for column in order) / expected
        field += np.cos(np.pi * row * y).astype(np.float32)[:, None] * across.astype(np.float32)[None, :]
    return field


def _vignetting(spec: NightSpec, detector: Detector, name: str) -> np.ndarray:
    """Light lost away from the optical axis: r^2 and r^4 terms, slightly different in each filter."""
    strength = VIGNETTING * (1 + stream(spec.seed, "vignetting", name).normal(0, 0.06))
    x, y = mosaic_grid(spec, detector)
    half_width, half_height = spec.half_size_px
    r2 = ((x * half_width) ** 2 + (y * half_height) ** 2) / np.float32(spec.corner_px**2)
    light: np.ndarray = 1 - np.float32(strength) * (np.float32(0.6) * r2 + np.float32(0.4) * r2 * r2)
    return light


def _add_dust(
    image: np.ndarray,
    rng: np.random.Generator,
    per_megapixel: float,
    radius: tuple[float, float],
    depth: tuple[float, float],
) -> None:
    """Shadows of dust out of focus: rings, in place."""
    ny, nx = image.shape
    for _ in range(max(2, round(per_megapixel * nx * ny / 1e6))):
        x, y = rng.uniform(0, nx), rng.uniform(0, ny)
        outer = min(rng.uniform(*radius), min(nx, ny) / 8)
        strength, inner = rng.uniform(*depth), outer * rng.uniform(0.3, 0.5)
        x0, x1 = max(0, int(x - outer - 6)), min(nx, int(x + outer + 7))
        y0, y1 = max(0, int(y - outer - 6)), min(ny, int(y + outer + 7))
        distance = np.hypot(np.arange(x0, x1)[None, :] - x, np.arange(y0, y1)[:, None] - y)
        shadow = _edge(outer - distance) - 0.7 * _edge(inner - distance)
        image[y0:y1, x0:x1] *= (1 - strength * shadow).astype(np.float32)


def _edge(depth_px: np.ndarray) -> np.ndarray:
    """0 outside, 1 inside, with an edge some pixels wide."""
    return np.asarray(0.5 * (1 + np.tanh(depth_px / 1.5)))


def _log_uniform(rng: np.random.Generator, bounds: tuple[float, float], count: int) -> np.ndarray:
    low, high = np.log(bounds)
    return np.exp(rng.uniform(low, high, count)).astype(np.float32)
