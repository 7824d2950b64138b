"""How wide the stars of a frame are: a first look at bright sources, before any other is sought."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BadPixels
from .sourcefind import Search, extract
from .sourcesky import Ready, make_ready
from .sourcestamp import FWHM_SIGMA, LARGEST_PX, SMALLEST_PX, Field, Measuring, inner_sigma, measure_places
from .sourcestars import typical_width

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]

# A star where none tells: so wide, full width at half maximum in pixels.
USUAL_FWHM_PX = 3.0
# The first look: a narrow filter, bright sources, strips until there are enough.
_FILTER_PX, _SIGMA, _ENOUGH, _STRIPS = 1.0, 15.0, 80, (2, 1, 3, 0, 4)
_BRIGHTEST = 400
# Stamps reach so many isophotal axes.
_STAMP_AXES = 8.0
# A quick look: pieces of so many rows and columns, from the middle outwards, so many at most; every so many-th
# pixel tells the noise; so many stars are enough, blocks of the sky so large.
_QUICK_SHAPE, _QUICK_PIECES, _QUICK_STEP, _QUICK_ENOUGH, _QUICK_MESH = (256, 1024), 8, 4, 25, 64
_QUICK_LOOK = Search(_SIGMA, 4, 1.0, 1, 1.0, clean=False, noise_step=_QUICK_STEP)


def first_seeing(ready: Ready, search: Search, apertures_px: tuple[float, ...] = ()) -> float:
    """Full width at half maximum of the bright stars in pixels; 0 where there are too few."""
    ny = ready.image.shape[0]
    size = -(-ny // len(_STRIPS))
    look = replace(search, threshold_sigma=_SIGMA, contrast=1.0, filter_fwhm=1.0, clean=False)
    widths: list[Doubles] = []
    for strip in _STRIPS:
        rows = slice(strip * size, min((strip + 1) * size, ny))
        if rows.start >= ny:
            continue
        part = ready._replace(
            image=ready.image[rows],
            weight=ready.weight[rows],
            flags=ready.flags[rows],
        )
        widths.append(_widths(part, look, apertures_px))
        if sum(map(len, widths)) >= _ENOUGH:
            break
    return typical_width(np.concatenate(widths) if widths else np.empty(0))


def star_width(data: Array, weight: Array | None = None, mask: Array | None = None) -> float:
    """Full width at half maximum of the bright stars in the middle of a frame (pixels); 0 where too few tell it.

    ``data`` (ny, nx), ``weight`` and ``mask`` as of :func:`~.sources.find_sources`, which measures the same
    with more stars: here 25 are enough, good to a percent, and nothing else is measured.
    """
    widths: list[Doubles] = []
    for piece in _pieces(data.shape):
        planes = [None if one is None else np.ascontiguousarray(one[piece]) for one in (data, weight, mask)]
        with suppress(BadPixels):
            part = make_ready(planes[0], planes[1], planes[2], _QUICK_MESH)  # type: ignore[arg-type]
            widths.append(_widths(part, _QUICK_LOOK, ()))
        if sum(map(len, widths)) >= _QUICK_ENOUGH:
            break
    return typical_width(np.concatenate(widths) if widths else np.empty(0))


def _pieces(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Pieces of the middle columns, of the rows from the middle outwards."""
    (ny, nx), (rows, columns) = shape, _QUICK_SHAPE
    count = max(1, ny // rows)
    size = -(-ny // count)
    left = max(0, (nx - columns) // 2)
    order = sorted(range(count), key=lambda one: abs(one - (count - 1) / 2))
    for one in order[:_QUICK_PIECES]:
        yield slice(one * size, min((one + 1) * size, ny)), slice(left, min(left + columns, nx))


def _widths(part: Ready, look: Search, apertures_px: tuple[float, ...]) -> Doubles:
    """Full widths of the bright round sources of a part of a frame."""
    objects, segments, *_ = extract(part, _FILTER_PX * FWHM_SIGMA, look)
    good = (objects["flag"] == 0) & (objects["b"] > 0.6 * objects["a"])
    number = np.flatnonzero(good)
    number = number[np.argsort(-objects["cflux"][number], kind="stable")][:_BRIGHTEST]
    if not number.size:
        return np.empty(0)
    some = objects[number]
    shape = np.column_stack([some[name] for name in ("cxx", "cyy", "cxy")]).astype(np.float64)
    how = _guessed(part, USUAL_FWHM_PX)
    place = places_of(some["x"], some["y"], some["a"], shape, how, apertures_px)
    field = Field(part.image, part.weight, part.flags, segments)
    width = _clean_widths(field, place, (number + 1).astype(np.int32), how)
    # Once more, in windows that fit.
    typical = typical_width(width)
    if typical > 0:
        width = _clean_widths(field, place, (number + 1).astype(np.int32), _guessed(part, typical))
    return width


def _guessed(ready: Ready, fwhm_px: float) -> Measuring:
    return Measuring(max(fwhm_px / FWHM_SIGMA, 0.5), fallback_adu2=ready.noise_adu**2)


def _clean_widths(field: Field, place: Doubles, names: npt.NDArray[np.int32], how: Measuring) -> Doubles:
    """Full widths at half maximum of the sources of a first look that nothing disturbs."""
    raw = measure_places(field, place, names, np.empty(0), how)
    clean = (raw["found"] == 0) & (raw["burnt"] == 0) & (raw["core_refused"] == 0)
    clean &= raw["auto_neighbour"] + raw["auto_missing"] == 0
    width = width_of(raw, how)
    result: Doubles = width[clean & np.isfinite(width)]
    return result


def places_of(
    x: Array,
    y: Array,
    a: Array,
    shape: Doubles,
    how: Measuring,
    apertures_px: tuple[float, ...] = (),
    edges: Doubles | float = -1.0,
) -> Doubles:
    """Places as `measure_places` takes them, with stamps that hold the apertures."""
    least = max((SMALLEST_PX, *(one + 3 for one in apertures_px), np.ceil(8 * how.sigma_px) + 2))
    reach = np.clip(np.ceil(_STAMP_AXES * np.asarray(a, np.float64)) + 2, min(least, LARGEST_PX), LARGEST_PX)
    return np.column_stack([x, y, reach, shape, np.broadcast_to(edges, len(x))]).astype(np.float64)


def width_of(raw: Mapping[str, Doubles], how: Measuring) -> Doubles:
    """Full width at half maximum of each source in pixels, from second moments within a narrow window.

    A Gaussian of variance v in a window of variance s^2 has second moments v s^2 / (v + s^2); the
    pixel's own variance, 1/12, is taken off. With a window of 0.6 of a star's sigma a Moffat
    profile (beta 3.5) comes out 3% too wide. A source too wide for that window is
    measured in that of its own half-light radius, one too wide for that too by twice that radius.
    """
    with np.errstate(all="ignore"):
        inner = 0.5 * (raw["inner_xx"] + raw["inner_yy"]) / raw["inner"]
        outer = 0.5 * (raw["mxx"] + raw["myy"]) / raw["m"]
        width = np.where(raw["half"] > 0, 2 * raw["half"], np.nan)
        for second, light, window in (
            (outer, raw["m"], raw["sigma"] ** 2),
            (inner, raw["inner"], np.float64(inner_sigma(how) ** 2)),
        ):
            variance = second * window / (window - second) - 1 / 12
            use = (second < 0.8 * window) & (variance > 0) & (light > 0)
            width = np.where(use, FWHM_SIGMA * np.sqrt(np.where(use, variance, 1)), width)
    return width
