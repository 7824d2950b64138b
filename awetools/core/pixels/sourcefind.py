"""Where an image has sources: what is above a threshold, parts told apart, and what is only a wing joined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import BadPixels
from .sourcesky import Ready, scatter
from .sourcestamp import FWHM_SIGMA, blurred

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Names = npt.NDArray[np.int32]
Numbers = npt.NDArray[np.int64]

# Flags of an object.
MERGED, TRUNCATED, OVERFLOW = 1, 2, 4
# Extraction holds as many pixels above the threshold, and parts of an object; more where these are too few.
_HELD_PIXELS, _HELD_PARTS, _MOST_PARTS = 300_000, 1024, 1 << 16
# Pixels up to so much of the threshold tell how steep a source is there.
_EDGE = 1.4
# The slope of a wing; it counts as far as it is so much of the threshold.
_WING_BETA, _LEAST_WING = 2.5, 0.02
# Objects whose neighbours are looked up together.
_AT_A_TIME = 4096


@dataclass(frozen=True)
class Search:
    """How sources are sought; see SourceSettings. clean: what is only a wing of another joins it.

    noise_step: every so many-th pixel each way tells the noise.
    """

    threshold_sigma: float
    minimum_area_px: int
    filter_fwhm: float
    levels: int
    contrast: float
    clean: bool = True
    noise_step: int = 1


class Found(NamedTuple):
    """Objects of sep, and the map of which pixel is whose (the object's row plus 1; 0: sky).

    ``ratio``: the filtered image's noise over that of white noise. ``edges``: by how many pixels
    each object grows where the threshold falls by a factor e.
    """

    objects: Array
    segments: Names
    ratio: float
    edges: Doubles


def extract(ready: Ready, fwhm_px: float, search: Search) -> Found:
    """Find the sources of a frame whose stars are so wide; raises BadPixels where sep cannot."""
    weights = _filter(search.filter_fwhm * fwhm_px / FWHM_SIGMA)
    smooth = blurred(ready.image, ready.weight, ready.flags, weights, ready.noise_adu**-2)
    white = float(weights[0] ** 2 + 2 * np.sum(weights[1:].astype(np.float64) ** 2))
    step = search.noise_step
    measured = scatter(smooth[::step, ::step], ready.flags[::step, ::step])
    # Without any scatter the noise is what the weights say.
    ratio = measured / white if measured > 0 else 1.0
    threshold = search.threshold_sigma * white * ratio
    objects, segments = _sep(smooth, threshold, search)
    names = np.arange(len(objects) + 1, dtype=np.int32)
    if search.clean and len(objects) > 1:
        objects, names = _cleaned(objects, threshold)
    return Found(objects, segments, ratio, _settle(smooth, segments, names, len(objects), threshold))


def _filter(sigma_px: float) -> Floats:
    """The middle of a normalised Gaussian and what follows it on one side."""
    if sigma_px < 0.2:
        return np.ones(1, np.float32)
    places = np.arange(int(np.ceil(3 * sigma_px)) + 1)
    weights = np.exp(-0.5 * (places / sigma_px) ** 2)
    result: Floats = (weights / (weights[0] + 2 * weights[1:].sum())).astype(np.float32)
    return result


def _sep(smooth: Floats, threshold: float, search: Search) -> tuple[Array, Names]:
    import sep

    held, parts, contrast = max(_HELD_PIXELS, smooth.size // 16), _HELD_PARTS, search.contrast
    while True:
        sep.set_extract_pixstack(held)
        sep.set_sub_object_limit(parts)
        try:
            objects, segments = sep.extract(
                smooth,
                threshold,
                minarea=search.minimum_area_px,
                filter_kernel=None,
                deblend_nthresh=search.levels,
                deblend_cont=contrast,
                clean=False,
                segmentation_map=True,
            )
        except Exception as problem:
            text = str(problem)
            if "pixel buffer" in text and held < 2 * smooth.size:
                held *= 4
            elif "deblend" in text and parts < _MOST_PARTS:
                parts *= 8
            elif "deblend" in text and contrast < 1:
                contrast = 1.0
            else:
                raise BadPixels(f"sep cannot extract sources: {text}") from problem
            continue
        if contrast != search.contrast:
            objects["flag"] |= OVERFLOW
        return objects, segments


def _settle(smooth: Floats, segments: Names, names: Names, objects: int, threshold: float) -> Doubles:
    """Give the pixels of the map, in place, the new names of their objects; returns the objects' edges."""
    at = np.flatnonzero(segments)
    pixels = segments.reshape(-1)
    own = names[pixels[at]]
    if len(names) > objects + 1:
        pixels[at] = own
    near = own[smooth.reshape(-1)[at] < _EDGE * threshold]
    result: Doubles = np.bincount(near, minlength=objects + 1)[1:] / np.log(_EDGE)
    return result


# What is only a wing


def _cleaned(objects: Array, threshold: float) -> tuple[Array, Names]:
    """The objects that stand without their neighbours, and the new name of each old one (0 stays 0).

    The light of a brighter object at a fainter one is extrapolated from its isophote, as a
    Moffat profile with the same peak; where the mean of the fainter is not above the threshold
    without it, it joins the one that gives most (the idea: Bertin and Arnouts 1996, A&AS 117, 393).
    A wing ends soon beyond its isophote, so the time is linear in the objects.
    """
    peak, area = objects["cpeak"].astype(np.float64) / threshold, objects["npix"].astype(np.float64)
    own = objects["cflux"] / area / threshold
    shape = np.column_stack([objects[name] for name in ("cxx", "cyy", "cxy")]).astype(np.float64)
    det = shape[:, 0] * shape[:, 1] - 0.25 * shape[:, 2] ** 2
    with np.errstate(all="ignore"):
        # Squared radii in units of the ellipse: of the isophote, and of the end of the wing.
        steep = np.maximum(peak, 1.001) ** (1 / _WING_BETA) - 1
        steep *= np.pi / (area * np.sqrt(det))
        end2 = ((np.maximum(peak, 1.001) / _LEAST_WING) ** (1 / _WING_BETA) - 1) / steep
        reach = np.sqrt(end2 * np.maximum(shape[:, 0], shape[:, 1]) / det)
    usable = np.isfinite(reach) & (reach > 0)
    x, y = objects["x"], objects["y"]
    bright, faint = _pairs(x, y, np.where(usable, reach, 0.0), np.flatnonzero(usable))
    brighter = objects["cflux"][bright] > objects["cflux"][faint]
    bright, faint = bright[brighter], faint[brighter]
    dx, dy = x[faint] - x[bright], y[faint] - y[bright]
    rho2 = shape[bright, 0] * dx * dx + shape[bright, 1] * dy * dy + shape[bright, 2] * dx * dy
    wing = peak[bright] * (1 + steep[bright] * np.maximum(rho2, 0)) ** -_WING_BETA
    only = own[faint] - wing <= 1
    host = np.arange(len(objects))
    order = np.argsort(wing[only], kind="stable")
    host[faint[only][order]] = bright[only][order]
    # A host may have joined another one itself; hosts are brighter, so that ends.
    while not np.array_equal(host, host[host]):
        host = host[host]
    kept = host == np.arange(len(host))
    number = np.cumsum(kept)
    names = np.concatenate([[0], number[host]]).astype(np.int32)
    return objects[kept], names


def _pairs(x: Doubles, y: Doubles, reach: Doubles, centres: Numbers) -> tuple[Numbers, Numbers]:
    """Pairs (centre, other) not farther apart than the centre's reach along each axis, from grids of cells.

    Centres are taken in classes of like reach, each with cells that wide.
    """
    found = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    classes = np.ceil(np.log2(np.maximum(reach[centres], 1.0))).astype(np.int64)
    for level in np.unique(classes):
        mine = centres[classes == level]
        row, column = (np.floor((one - one.min()) / 2.0**level).astype(np.int64) + 1 for one in (y, x))
        width = int(column.max()) + 2
        cell = row * width + column
        order = np.argsort(cell, kind="stable")
        for first in range(0, len(mine), _AT_A_TIME):
            some = mine[first : first + _AT_A_TIME]
            for step in (-width, 0, width):
                one, other = _in_cells(some, cell[some] + step, cell[order], order)
                near = (np.abs(x[one] - x[other]) <= reach[one]) & (np.abs(y[one] - y[other]) <= reach[one])
                near &= one != other
                found.append((one[near], other[near]))
    ones, others = (np.concatenate([pair[k] for pair in found]) for k in (0, 1))
    return ones, others


def _in_cells(some: Numbers, middle: Numbers, ordered: Numbers, order: Numbers) -> tuple[Numbers, Numbers]:
    """Each of some objects with all that lie in a cell or in those left and right of it."""
    first = np.searchsorted(ordered, middle - 1, "left")
    number = np.searchsorted(ordered, middle + 1, "right") - first
    one = np.repeat(some, number)
    within = np.arange(len(one)) - np.repeat(np.cumsum(number) - number, number)
    return one, order[np.repeat(first, number) + within]
