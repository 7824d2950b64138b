"""Cosmic rays of a single frame: a lazy L.A.Cosmic whose medians run only where its Laplacian stands out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import BadValue, Mixture
from .kernels import kernel

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

# The widest window around a pixel that is judged is 7 x 7; the frame is mirrored by this much.
MARGIN = 3
FREE, BAD, HIT = 0, 1, 2
# Neighbouring pixels support each other: two that touch need only this part of the limit each.
PAIR_FRACTION = 0.75
# Half the Laplacian of white noise of 1 sigma scatters by this: a pixel less the mean of four.
HALF_LAPLACIAN_SIGMA = math.sqrt(1.25)
# The rank among 49 pixels that stands for the level from which a peak or a slope rises.
LOW_RANK = 12
# Neighbours further below that level are holes, beside which any pixel would look like a peak.
HOLE_SIGMA = 2.0
# A peak is more than the noise of a faint star if it exceeds its structure by so much more than it must.
FIRM_SIGMA = 2.0
# A peak so many sigma above its surroundings is a star if so many of them are seen on all its sides. Where most
# bright peaks are, enough of them, and they agree about their contrast, twice that is asked of a ray.
BRIGHT_SIGMA, STAR_SIGMA = 50.0, 5.0
STAR_FACTOR, LEAST_STARS, LEAST_PART, MOST_SCATTER = 2.0, 20, 0.5, 2.0
STAR_SAMPLE = 1 << 13
# Beyond this no pixel is physical, and squares of float32 stay finite.
LARGEST_ADU = 1e15
LEAST_VARIANCE_ADU2 = 1e-12
CHUNK = 1 << 14
STRIP_ROWS = 64


@dataclass(frozen=True, eq=False)
class CosmicRays:
    """What was found: ``mask`` (ny, nx), True where a cosmic ray is; ``iterations`` that found something.

    ``contrast`` is the least contrast that was asked of a ray: ``objlim``, or more where
    the frame's own stars are that sharp.
    """

    mask: Bools
    iterations: int
    contrast: float


class _Limits(NamedTuple):
    """``seed``, ``pair`` and ``grow`` in sigma; ``contrast`` is half the Laplacian over the structure."""

    seed: float
    pair: float
    grow: float
    contrast: float


class _Noise(NamedTuple):
    """Each (1 or ny, nx): smooth sky (ADU), its variance a unit of level (ADU), read noise squared (ADU^2)."""

    background: Floats
    per_gain: Floats
    read_variance: Floats


class _Field(NamedTuple):
    """The frame less its background, mirrored by MARGIN; the state of its pixels; bytes that are 0 between uses."""

    work: Floats
    state: Bytes
    scratch: Bytes
    noise: _Noise


def find_cosmic_rays(
    image_adu: Array,
    *,
    background_adu: Array | float,
    gain_e_adu: Array | float,
    read_noise_adu: Array | float,
    bad: Bools | None = None,
    sigclip: float = 4.5,
    sigfrac: float = 0.45,
    objlim: float = 2.0,
    iterations: int = 8,
) -> CosmicRays:
    """Pixels hit by cosmic rays: sharper than the optics could make anything.

    ``image_adu`` (ny, nx), flat-fielded, sky included; ``background_adu`` its smooth sky,
    ``gain_e_adu`` and ``read_noise_adu`` numbers or arrays that broadcast to the frame
    (amplifiers differ). ``bad`` is True where a pixel is saturated, hot, dead or outside:
    it is never a cosmic ray, and is filled from its neighbours before anything is measured.
    What is not finite, or where gain or read noise make no sense, counts as bad.

    The method is van Dokkum's (2001, PASP 113, 1420). With L the Laplacian of the frame
    sampled twice as finely, negative values set to 0 and averaged back, and N the noise
    expected of the 5 x 5 median, the significance of a pixel is that of L/2 less its 5 x 5
    median, in units of its own scatter (1.118 N). It must be ``sigclip`` sigma, or 3/4 of
    that in two pixels that touch; and L/2 must be ``objlim`` times the fine structure.
    Medians are separable: of the medians of rows.

    Four things are not his. The fine structure is the smallest of the medians of three
    pixels in the four directions through the pixel, less the 13th lowest of the 7 x 7
    pixels around: a track disappears from the median across it, a star in none, and the
    slope of a bright star counts as structure, which a median of 7 x 7 does not see. Tracks
    grow, twice an iteration, by pixels that exceed the upper quartile of the untouched
    pixels around by ``sigfrac`` x ``sigclip`` sigma, not by their own Laplacian, which is
    small beside a brighter pixel. What was found stays only if it touches, over any number of
    other hits, a pixel whose L/2 exceeds ``objlim`` times the structure by 2 sigma: the noise
    of a faint star's flank alone does not do that. And medians are evaluated only where L
    passes the limit for the noise of the sky alone, from the second iteration on only near
    cleaned pixels.

    Found pixels are replaced by the median of what is left around them, and the search is
    repeated until it finds nothing, at most ``iterations`` times (2 to 5 are usual; a track two
    pixels wide is eaten from its ends). The time is that of one pass over the frame and
    grows in proportion to the pixels hit.

    ``objlim`` 2 spares stars of FWHM 2 pixels and more. Where the bright ones of the frame
    are sharper, it is raised to twice the upper quartile of what they have themselves:
    2.9 for 1.8 pixels, 4.8 for 1.5 (Moffat, beta 3.5).

    ``Mixture`` if shapes do not agree; ``BadValue`` for limits that are not positive, or if
    no pixel has a gain above 0, or none a read noise that is not negative.
    """
    _check(sigclip=sigclip, sigfrac=sigfrac, objlim=objlim, iterations=iterations)
    if image_adu.ndim != 2 or (bad is not None and bad.shape != image_adu.shape):
        shape = "none" if bad is None else bad.shape
        raise Mixture(f"cosmic rays need an image and bad pixels of one shape: {image_adu.shape} and {shape}")
    if not image_adu.size:
        return CosmicRays(np.zeros(image_adu.shape, np.bool_), 0, objlim)
    noise = _noise(image_adu.shape, background_adu, gain_e_adu, read_noise_adu)
    field = _prepare(image_adu, noise, bad)
    limits = _Limits(sigclip, PAIR_FRACTION * sigclip, sigfrac * sigclip, objlim)
    at = _standing_out(field, limits)
    limits = limits._replace(contrast=max(objlim, STAR_FACTOR * _sharpness(field, at)))
    done = 0
    every, firm = [], []
    while done < iterations:
        seeds, sure = _seeds(field, at, limits)
        if not seeds.size:
            break
        done += 1
        firm.append(sure)
        hits = _grow(field, seeds, limits)
        _clean(field, hits)
        every.append(hits)
        at = _free_around(field, hits, MARGIN)
    if done:
        _forget_alone(field, np.concatenate(every), np.concatenate(firm))
    inside = slice(MARGIN, -MARGIN)
    return CosmicRays(field.state[inside, inside] == HIT, done, limits.contrast)


def _check(**limits: float) -> None:
    for name, value in limits.items():
        if not value > 0 or not math.isfinite(value):
            raise BadValue(f"{name} = {value}: it must be a number above 0")


# The frame, so that every window is whole and every value finite


def _noise(
    shape: tuple[int, ...], background: Array | float, gain: Array | float, read_noise: Array | float
) -> _Noise:
    sky, gains, reads = (
        _rows_of(name, value, shape)
        for name, value in (("background", background), ("gain", gain), ("read noise", read_noise))
    )
    if not (gains > 0).any():
        raise BadValue(f"gain of {gains.max()} e/ADU: it must be above 0 somewhere")
    if not (reads >= 0).any():
        raise BadValue(f"read noise of {reads.max()} ADU: it must not be negative everywhere")
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return _Noise(sky, np.float32(1) / gains, np.where(reads >= 0, reads * reads, np.float32(np.nan)))


def _rows_of(name: str, value: Array | float, shape: tuple[int, ...]) -> Floats:
    """A number or array as float32 with all columns, and with one row or all."""
    array = np.asarray(value, np.float32)
    try:
        np.broadcast_to(array, shape)
    except ValueError:
        raise Mixture(f"a {name} of shape {array.shape} for an image of shape {shape}") from None
    rows = shape[0] if array.ndim == 2 and array.shape[0] > 1 else 1
    return np.ascontiguousarray(np.broadcast_to(array, (rows, shape[1])))


def _prepare(image: Array, noise: _Noise, bad: Bools | None) -> _Field:
    ny, nx = image.shape
    inside = slice(MARGIN, MARGIN + ny), slice(MARGIN, MARGIN + nx)
    state = np.full((ny + 2 * MARGIN, nx + 2 * MARGIN), BAD, np.uint8)
    work = np.zeros(state.shape, np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        np.subtract(image, noise.background, out=work[inside], casting="unsafe")
        good = np.abs(work[inside]) < LARGEST_ADU
    for part in (noise.per_gain, noise.read_variance):
        usable = (part >= 0) & (part < LARGEST_ADU)
        if not usable.all():
            good &= usable
    if bad is not None:
        good &= ~bad
    state[inside] = ~good
    if not good.all():
        _fill(work, state)
    _mirror(work)
    return _Field(work, state, np.zeros_like(state), noise)


def _fill(work: Floats, state: Bytes) -> None:
    """Give bad pixels within MARGIN of free ones the mean of their filled neighbours, others 0; in place."""
    known = state == FREE
    np.copyto(work, np.float32(0), where=~known)
    for _ in range(MARGIN):
        ring = _dilated(known) & ~known
        for edge in (ring, ring.T):
            edge[:MARGIN] = edge[-MARGIN:] = False
        at = np.flatnonzero(ring)
        # What is not known yet is 0 until the whole ring is filled.
        means = [
            _windows(work, part, 1).sum(axis=1) / _windows(known, part, 1).sum(axis=1, dtype=np.float32)
            for part in _chunks(at)
        ]
        if not means:
            return
        work.ravel()[at] = np.concatenate(means)
        known |= ring


def _dilated(mask: Bools) -> Bools:
    wide = mask.copy()
    wide[:, 1:] |= mask[:, :-1]
    wide[:, :-1] |= mask[:, 1:]
    grown = wide.copy()
    grown[1:] |= wide[:-1]
    grown[:-1] |= wide[1:]
    return grown


def _mirror(work: Floats) -> None:
    """Set the margin to the mirrored frame, its outermost pixels repeated.

    Mirrored about these pixels, a star whose centre is outside would have a sharp ridge at the edge.
    """
    for image in (work, work.T):
        length = image.shape[0] - 2 * MARGIN
        for k in range(MARGIN):
            away = k % (2 * length)
            inner = min(away, 2 * length - 1 - away)
            image[MARGIN - 1 - k] = image[MARGIN + inner]
            image[MARGIN + length + k] = image[MARGIN + length - 1 - inner]


# Detection


def _standing_out(field: _Field, limits: _Limits) -> Places:
    """Free pixels whose Laplacian is beyond the pair limit for the noise of the background alone."""
    factor = _laplacian_factor(limits.pair)
    compiled = kernel("cosmic")
    find = compiled.candidates if compiled else _candidates
    height, width = field.work.shape
    nx = width - 2 * MARGIN
    flags = np.zeros((height - 2 * MARGIN, nx), np.uint8)
    find(field.work, field.state, *field.noise, factor, flags)
    at = np.flatnonzero(flags.view(np.bool_)).astype(np.int64, copy=False)
    places: Places = (at // nx + MARGIN) * width + at % nx + MARGIN
    return places


def _sharpness(field: _Field, at: Places) -> float:
    """Half the Laplacian over the structure of stars among places: the upper quartile; 0 if that says nothing."""
    at = at[:: -(-len(at) // STAR_SAMPLE) or 1]
    alone = (_windows(field.state, at, 1) == FREE).all(axis=1)
    wide = _windows(field.work, at, MARGIN).reshape(-1, 7, 7)
    is_peak = alone & (wide[:, 3, 3] >= wide[:, 2:5, 2:5].max(axis=(1, 2)))
    at, wide = at[is_peak], wide[is_peak]
    variance, per_gain = _noise_at(field, at)
    noise = np.sqrt(variance + np.maximum(_row_median(wide[:, 1:6, 1:6]), np.float32(0)) * per_gain)
    low = np.partition(wide.reshape(-1, 49), LOW_RANK, axis=1)[:, LOW_RANK]
    structure = _narrowest(wide) - low
    is_bright = wide[:, 3, 3] - low > np.float32(BRIGHT_SIGMA) * noise
    is_star = is_bright & (structure > np.float32(STAR_SIGMA) * noise)
    number = np.count_nonzero(is_star)
    if number < LEAST_STARS or number < LEAST_PART * np.count_nonzero(is_bright):
        return 0.0
    laplacian = _laplacian(wide[is_star])
    ratio = np.float32(0.5) * (laplacian[:, 2, 2] - _row_median(laplacian)) / structure[is_star]
    middle, high = (float(one) for one in np.quantile(ratio, (0.5, 0.75)))
    return high if high <= MOST_SCATTER * middle else 0.0


def _laplacian_factor(sigma: float) -> float:
    """L^2 over the variance of a pixel where L/2 is ``sigma`` times its own scatter."""
    return float(np.float32((2 * HALF_LAPLACIAN_SIGMA * sigma) ** 2))


def _candidates(
    work: Floats,
    state: Bytes,
    background: Floats,
    per_gain: Floats,
    read_variance: Floats,
    factor: float,
    flags: Bytes,
) -> None:
    """Twin of the kernel's ``candidates``: flags 1 where a free pixel's L^2 > factor x variance."""
    for first in range(0, len(flags), STRIP_ROWS):
        last = min(first + STRIP_ROWS, len(flags))
        rows = slice(first, last)
        sky, slope, read = (
            one if len(one) == 1 else one[rows] for one in (background, per_gain, read_variance)
        )
        laplacian = _laplacian(work[first + 2 : last + 4, 2:-2])
        with np.errstate(invalid="ignore", over="ignore"):
            variance = read + np.maximum(sky, np.float32(0)) * slope
            above = laplacian * laplacian > np.float32(factor) * variance
        flags[rows] = above & (state[first + MARGIN : last + MARGIN, MARGIN:-MARGIN] == FREE)


def _laplacian(image: Floats) -> Floats:
    """L of all pixels but the outermost ones of the last two axes.

    Sampled twice as finely, each quarter of a pixel has two neighbours of its own value and
    two of adjoining pixels; only quarters that exceed these two on average count.
    """
    centre = image[..., 1:-1, 1:-1] * np.float32(2)
    up, down = image[..., 2:, 1:-1], image[..., :-2, 1:-1]
    left, right = image[..., 1:-1, :-2], image[..., 1:-1, 2:]
    zero = np.float32(0)
    total = np.maximum(centre - up - left, zero)
    total += np.maximum(centre - up - right, zero)
    total += np.maximum(centre - down - left, zero)
    total += np.maximum(centre - down - right, zero)
    total *= np.float32(0.25)
    result: Floats = total
    return result


def _seeds(field: _Field, at: Places, limits: _Limits) -> tuple[Places, Places]:
    """Those of the free pixels ``at`` that are cosmic rays by themselves, or with a neighbour; the firm of them."""
    significance, firm = np.zeros(len(at), np.float32), np.zeros(len(at), np.uint8)
    variance, per_gain = _noise_at(field, at)
    compiled = kernel("cosmic")
    judge = compiled.judge if compiled else _judge
    factor = _laplacian_factor(limits.pair)
    judge(field.work, at, variance, per_gain, factor, limits.contrast, significance, firm)
    passed = significance > np.float32(limits.pair)
    at, significance, firm = at[passed], significance[passed], firm[passed]
    marks = field.scratch
    marks.ravel()[at] = 1
    supported = np.concatenate(
        [
            ((_windows(marks, part, 1) > 0) | (_windows(field.state, part, 1) == HIT)).sum(axis=1) > 1
            for part in _chunks(at)
        ]
        or [np.zeros(0, np.bool_)]
    )
    marks.ravel()[at] = 0
    chosen = supported | (significance > np.float32(limits.seed))
    return at[chosen], at[chosen & (firm > 0)]


def _noise_at(field: _Field, at: Places) -> tuple[Floats, Floats]:
    """Variance of the background and its growth with level, at places of the mirrored frame."""
    width = field.work.shape[1]
    y, x = at // width - MARGIN, at % width - MARGIN
    sky, slope, read = (one[0, x] if len(one) == 1 else one[y, x] for one in field.noise)
    with np.errstate(over="ignore"):
        variance = read + np.maximum(sky, np.float32(0)) * slope
    return np.maximum(variance, np.float32(LEAST_VARIANCE_ADU2)), slope


def _judge(
    work: Floats,
    at: Places,
    variance: Floats,
    per_gain: Floats,
    factor: float,
    contrast: float,
    significance: Floats,
    firm: Bytes,
) -> None:
    """Twin of the kernel's ``judge``: sigma of each pixel sharper than its surroundings, else 0; whether by far."""
    for start in range(0, len(at), CHUNK):
        number = np.arange(start, min(start + CHUNK, len(at)))
        near = _windows(work, at[number], 1).reshape(-1, 3, 3)
        centre = _laplacian(near)[:, 0, 0]
        number = number[centre * centre > np.float32(factor) * variance[number]]
        wide = _windows(work, at[number], 3).reshape(-1, 7, 7)
        laplacian = _laplacian(wide)
        level = np.maximum(_row_median(wide[:, 1:6, 1:6]), np.float32(0))
        noise = np.sqrt(variance[number] + level * per_gain[number])
        low = np.partition(wide.reshape(-1, 49), LOW_RANK, axis=1)[:, LOW_RANK]
        floor = low - np.float32(HOLE_SIGMA) * noise
        filled = np.maximum(wide[:, 2:5, 2:5], floor[:, None, None])
        sharp = _laplacian(filled)[:, 0, 0] - _row_median(laplacian)
        sigma = sharp / (np.float32(2 * HALF_LAPLACIAN_SIGMA) * noise)
        excess = np.float32(0.5) * sharp - np.float32(contrast) * (_narrowest(wide) - low)
        keep = excess > 0
        significance[number[keep]] = sigma[keep]
        firm[number] = excess > np.float32(FIRM_SIGMA) * noise


def _row_median(windows: Floats) -> Floats:
    """Median of the medians of the rows of 5 x 5 windows (n, 5, 5)."""
    medians: Floats = np.sort(np.sort(windows, axis=2)[:, :, 2], axis=1)[:, 2]
    return medians


def _narrowest(wide: Floats) -> Floats:
    """The smallest of the medians of three pixels across the centres of 7 x 7 windows (n, 7, 7)."""
    centre = wide[:, 3, 3]
    medians = []
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        one, other = wide[:, 3 - dy, 3 - dx], wide[:, 3 + dy, 3 + dx]
        low, high = np.minimum(one, other), np.maximum(one, other)
        medians.append(np.maximum(low, np.minimum(high, centre)))
    smallest: Floats = np.minimum(np.minimum(medians[0], medians[1]), np.minimum(medians[2], medians[3]))
    return smallest


# Growth and cleaning


def _grow(field: _Field, seeds: Places, limits: _Limits) -> Places:
    """Mark the seeds as hit, and twice their neighbours that stand out of what is left; returns all of them."""
    state = field.state.ravel()
    state[seeds] = HIT
    hits = newest = seeds
    for _ in range(2):
        around = _free_around(field, newest, 1)
        chosen = [part[_exceeds(field, part, limits.grow)] for part in _chunks(around)]
        newest = np.concatenate(chosen) if chosen else around
        state[newest] = HIT
        hits = np.concatenate([hits, newest])
    return hits


def _exceeds(field: _Field, at: Places, sigma: float) -> Bools:
    """True where a pixel is ``sigma`` above the upper quartile of the free pixels around, 5 x 5."""
    free = _windows(field.state, at, 2) == FREE
    free[:, 12] = False
    median, quartile = _quartiles(_windows(field.work, at, 2), free)
    variance, per_gain = _noise_at(field, at)
    level = np.where(np.isfinite(median), np.maximum(median, np.float32(0)), np.float32(0))
    noise = np.sqrt(variance + level * per_gain)
    # Without any free pixel the quartile is infinite, and nothing exceeds it.
    exceeds: Bools = field.work.ravel()[at] - quartile > np.float32(sigma) * noise
    return exceeds


def _clean(field: _Field, hits: Places) -> None:
    """Replace hit pixels by the median of the free ones around, 3 x 3 if there are three, else 5 x 5, else 0."""
    inner = np.array([6, 7, 8, 11, 12, 13, 16, 17, 18])
    for part in _chunks(hits):
        free = _windows(field.state, part, 2) == FREE
        close = free[:, inner].sum(axis=1) >= 3
        free[close] &= np.isin(np.arange(25), inner)
        median, _ = _quartiles(_windows(field.work, part, 2), free)
        field.work.ravel()[part] = np.where(np.isfinite(median), median, 0)
    _mirror(field.work)


def _forget_alone(field: _Field, hits: Places, firm: Places) -> None:
    """Take back the hits that touch, over any number of others, no firm one."""
    hits = np.sort(hits)
    group = _groups(hits, field.work.shape[1])
    is_firm = np.zeros(len(hits), np.bool_)
    is_firm[group[np.searchsorted(hits, firm)]] = True
    field.state.ravel()[hits[~is_firm[group]]] = FREE


def _groups(at: Places, width: int) -> Places:
    """A number for each of the places, in order, the same for all that touch over any number of others."""
    links = []
    for step in (1, width - 1, width, width + 1):
        other = np.minimum(np.searchsorted(at, at + step), len(at) - 1)
        touch = np.flatnonzero(at[other] == at + step)
        links.append((touch, other[touch]))
    one, other = (np.concatenate(part) for part in zip(*links, strict=True))
    group = np.arange(len(at))
    while True:
        least = np.minimum(group[one], group[other])
        joined = group.copy()
        for end in (one, other):
            np.minimum.at(joined, group[end], least)
        joined = joined[joined]
        if np.array_equal(joined, group):
            return group
        group = joined


def _quartiles(values: Floats, use: Bools) -> tuple[Floats, Floats]:
    """Upper median and upper quartile of what is used of each row; infinite where nothing is."""
    ordered = np.sort(np.where(use, values, np.float32(np.inf)), axis=1)
    number, line = use.sum(axis=1), np.arange(len(values))
    return ordered[line, number // 2], ordered[line, 3 * number // 4]


def _free_around(field: _Field, at: Places, reach: int) -> Places:
    """Free pixels within ``reach`` rings of places, in their order on the frame."""
    marks = field.scratch.ravel()
    width = field.work.shape[1]
    for part in _chunks(at):
        for dy in range(-reach, reach + 1):
            for dx in range(-reach, reach + 1):
                marks[part + (dy * width + dx)] = 1
    around = np.flatnonzero(marks.view(np.bool_)).astype(np.int64, copy=False)
    marks[around] = 0
    free: Places = around[field.state.ravel()[around] == FREE]
    return free


def _windows(image: Array, at: Places, reach: int) -> Array:
    """The pixels within ``reach`` of flat places, (n, (2 reach + 1)^2)."""
    steps = np.arange(-reach, reach + 1)
    offsets = (steps[:, None] * image.shape[1] + steps).ravel()
    windows: Array = image.ravel()[at[:, None] + offsets]
    return windows


def _chunks(at: Places) -> Iterator[Places]:
    for start in range(0, len(at), CHUNK):
        yield at[start : start + CHUNK]
