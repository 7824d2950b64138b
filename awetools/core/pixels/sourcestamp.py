"""Measures of each source on a stamp around it: the compiled loop, and its readable numpy twin."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .kernels import kernel

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Names = npt.NDArray[np.int32]

# What is known of a pixel of the image.
BAD, SATURATED = 1, 2
# States of a stamp's pixel: the low two bits say why it was replaced.
_NEIGHBOUR, _REFUSED, _OUTSIDE, _WHY = 1, 2, 3, 3
_MISSING, _BURNT, _OWN = 4, 8, 16

_RINGS, _RING_STEPS, _KRON_REACH = 100, 10.0, 6.0
_PETRO_MULTIPLES = range(2, 17)
_TABLE_STEPS, _TABLE_END = 64.0, 40.0
_REACH_SIGMA, _MOST_STEPS, _CLOSE2, _FIRM = 4.0, 20, 1e-8, 0.02
_WIDE, _CORE, _INNER, _INNER_LEAST = 1.7, 3.0, 0.6, 0.8
_HALF_STEPS, _HALF_CLOSE = 30, 1e-3
_RING_LOW, _RING_HIGH, _ROOT_TWO_PI = 8.5, 11.5, 2.5066282746310002
# Half of the full width of a Gaussian, in sigma, twice.
FWHM_SIGMA = 2.3548200450309493

# Bits of the column `found`.
NO_CENTROID, LIMITED, NO_HALF, NO_KRON, NO_PETRO, PETRO_CUT = 1, 2, 4, 8, 16, 32

# Columns of a result; three follow for each aperture: flux, variance, pixels missing.
COLUMNS = (
    *("found", "x", "y", "kron", "petro", "half", "sigma"),
    *("own_flux", "own_variance", "auto_flux", "auto_variance", "petro_flux", "petro_variance"),
    *("own_area", "auto_area", "burnt", "core_refused", "core_whole"),
    *("auto_neighbour", "auto_outside", "auto_missing", "auto_whole"),
    *("m", "mx", "my", "mxx", "mxy", "myy"),
    *("e", "ex", "ey", "exx", "exy", "eyy", "ex4", "ex2y2", "ey4"),
    *("inner", "inner_xx", "inner_yy"),
    *("narrow", "wide", "narrow_variance", "both_variance", "wide_variance"),
)
_TABLE: Doubles = np.exp(-np.arange(int(_TABLE_STEPS * _TABLE_END) + 2) / _TABLE_STEPS)
# Pixels from the centre to the edge of the largest stamp.
LARGEST_PX = 1023
SMALLEST_PX = 8


@dataclass(frozen=True)
class Measuring:
    """How sources are measured; radii of ellipses are in units of the isophotal axes a and b.

    ``sigma_px`` is that of a star; a windowed centre may walk ``walk_sigma`` of its window.
    Variance of a pixel: ``noise_factor``^2 / weight + value / gain; ``gain_e_adu`` 0 is without
    photon noise; ``fallback_adu2`` is the background's variance where a weight is 0.
    ``filter_px`` is the sigma of the filter that the isophotes were found with.
    """

    sigma_px: float
    gain_e_adu: float = 0.0
    noise_factor: float = 1.0
    fallback_adu2: float = 0.0
    kron_factor: float = 2.5
    kron_least: float = 3.5
    petrosian_factor: float = 2.0
    petrosian_level: float = 0.2
    walk_sigma: float = 1.5
    filter_px: float = 1.0

    def row(self) -> Doubles:
        """The numbers as the kernel takes them."""
        inverse = 1.0 / self.gain_e_adu if self.gain_e_adu > 0 else 0.0
        own = (self.kron_factor, self.kron_least, self.petrosian_factor, self.petrosian_level)
        # Pixels are no less than that wide themselves.
        edge = max(self.filter_px, 0.5)
        return np.array(
            [inverse, self.noise_factor**2, self.fallback_adu2, *own, self.sigma_px, self.walk_sigma, edge]
        )


class Field(NamedTuple):
    """An image less its background, its weights, what is bad or saturated, and the segmentation map."""

    image: Floats
    weight: Floats
    flags: Bytes
    segments: Names


def measure_places(
    field: Field, place: Doubles, names: Names, radii_px: Doubles, how: Measuring
) -> dict[str, Doubles]:
    """Raw sums of each source, by :data:`COLUMNS` and ``aperture_flux``, ``..._variance``, ``..._missing``.

    ``place`` (n, 7): x, y (0-based pixels), radius of the stamp (whole pixels, 8 to 1023), the
    ellipse cxx, cyy, cxy (pixels^-2) whose radius 1 is the isophotal one, and by how many
    pixels the isophote's area grows where its level falls by a factor e (less than 0: the ellipse
    is given, so the pixels' noise is not in it). ``names`` (n): the
    number of each source in the segmentation map, 0 for a place that has none.
    Pixels of neighbours, bad ones and those outside are replaced by their mirror image
    about the source (Bertin and Arnouts 1996, A&AS 117, 393); where that is none either,
    they are counted as missing.
    """
    columns = len(COLUMNS) + 3 * len(radii_px)
    out = np.zeros((len(place), columns))
    compiled = kernel("sources")
    place = np.ascontiguousarray(place, np.float64)
    if compiled is not None:
        compiled.measure(out, place, names, *field, np.ascontiguousarray(radii_px), how.row(), _TABLE)
    else:
        with np.errstate(all="ignore"):
            for number, (one, name) in enumerate(zip(place, names, strict=True)):
                out[number] = _measure_one(field, one, int(name), radii_px, how)
    # Zero has one sign.
    out += 0.0
    result = {name: out[:, number] for number, name in enumerate(COLUMNS)}
    rest = out[:, len(COLUMNS) :].reshape(len(place), len(radii_px), 3)
    for number, name in enumerate(("flux", "variance", "missing")):
        result[f"aperture_{name}"] = rest[:, :, number]
    return result


def blurred(image: Floats, weight: Floats, flags: Bytes, weights: Floats, usual: float) -> Floats:
    """An image convolved along both axes, in units of the noise of its pixels, 1 / sqrt(weight).

    Bad pixels and those outside count as 0, and come out as 0; others without weight have the
    ``usual`` one. ``weights`` are the middle of a symmetric kernel and what follows it on one side.
    """
    out = np.empty(image.shape, np.float32)
    compiled = kernel("sources")
    if compiled is not None:
        compiled.blur(out, image, weight, flags, weights, usual)
        return out
    reach = len(weights) - 1
    rows = np.where(flags & BAD, np.float32(0), image)
    for axis in (1, 0):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (reach, reach)
        padded, length = np.pad(rows, pad), image.shape[axis]
        rows = _shifted(padded, reach, length, axis) * weights[0]
        for k in range(1, reach + 1):
            both = _shifted(padded, reach - k, length, axis) + _shifted(padded, reach + k, length, axis)
            rows += both * weights[k]
    known = np.sqrt(np.where(weight > 0, weight, np.float32(usual)))
    out[:] = np.where(flags & BAD, np.float32(0), rows * known)
    return out


def _shifted(padded: Floats, start: int, length: int, axis: int) -> Floats:
    return padded[start : start + length] if axis == 0 else padded[:, start : start + length]


def inner_sigma(how: Measuring) -> float:
    """The window within a star, in pixels: there a Gaussian and a Moffat profile of one width differ least."""
    return max(_INNER * how.sigma_px, _INNER_LEAST)


def decay(t: Doubles) -> Doubles:
    """exp(-t) to 1e-11 for t >= 0, with the same bits wherever it is computed."""
    near = t < _TABLE_END
    safe = np.where(near, t, 0.0)
    k = (safe * _TABLE_STEPS).astype(np.int64)
    d = safe - k.astype(np.float64) / _TABLE_STEPS
    value = _TABLE[k] * (1.0 - d * (1.0 - d * (0.5 - d * (1.0 / 6.0 - d * (1.0 / 24.0)))))
    return np.where(near, value, 0.0)


class _Stamp(NamedTuple):
    value: Floats
    noise: Floats
    state: Bytes
    r: int
    x: float
    y: float

    @property
    def width(self) -> int:
        return 2 * self.r + 1


class _Light(NamedTuple):
    flux: float
    variance: float
    area: float
    whole: float
    neighbour: float
    refused: float
    outside: float
    missing: float
    burnt: float


class _Moments(NamedTuple):
    m: float
    x: float
    y: float
    xx: float
    xy: float
    yy: float
    x4: float
    x2y2: float
    y4: float


def _state_at(field: Field, y: Array, x: Array, name: int) -> Array:
    ny, nx = field.image.shape
    inside = (y >= 0) & (x >= 0) & (y < ny) & (x < nx)
    at = np.clip(y, 0, ny - 1), np.clip(x, 0, nx - 1)
    segment = field.segments[at]
    state = np.where((segment == 0) | (segment == name), 0, _NEIGHBOUR)
    state = np.where(field.flags[at] & BAD, _REFUSED, state)
    return np.where(inside, state, _OUTSIDE)


def _fill(field: Field, x: float, y: float, r: int, name: int, how: Measuring) -> _Stamp:
    x0, y0 = math.floor(x + 0.5) - r, math.floor(y + 0.5) - r
    py, px = np.mgrid[y0 : y0 + 2 * r + 1, x0 : x0 + 2 * r + 1]
    mirror_y, mirror_x = math.floor(2.0 * y + 0.5) - py, math.floor(2.0 * x + 0.5) - px
    state = _state_at(field, py, px, name)
    replaced = state > 0
    missing = replaced & (_state_at(field, mirror_y, mirror_x, name) > 0)
    ny, nx = field.image.shape
    at = (
        np.clip(np.where(replaced, mirror_y, py), 0, ny - 1),
        np.clip(np.where(replaced, mirror_x, px), 0, nx - 1),
    )
    burnt = np.where(field.flags[at] & SATURATED, _BURNT, 0)
    own = np.where((field.segments[at] == name) & (name != 0), _OWN, 0)
    state = np.where(replaced, state, burnt | own)
    value, weight = field.image[at], field.weight[at].astype(np.float64)
    variance = np.where(weight > 0, 1.0 / weight, how.fallback_adu2)
    settings = how.row()
    noise = (settings[1] * variance + value.astype(np.float64) * settings[0]).astype(np.float32)
    zero = np.float32(0)
    return _Stamp(
        np.where(missing, zero, value),
        np.where(missing, zero, noise),
        np.where(missing, state | _MISSING, state).astype(np.uint8),
        r,
        x - x0,
        y - y0,
    )


def _total(values: Array) -> float:
    """The sum in the order of the values, from 0."""
    return float(np.add.accumulate(values.ravel(), dtype=np.float64)[-1]) if values.size else 0.0


def _light(stamp: _Stamp, window: tuple[slice, slice], cover: Doubles, least: float) -> _Light:
    use = cover > least
    part = cover[use]
    state = stamp.state[window][use]
    value, noise = stamp.value[window][use].astype(np.float64), stamp.noise[window][use].astype(np.float64)
    why = state & _WHY
    return _Light(
        _total(part * value),
        _total(part * part * noise),
        _total(part),
        float(len(part)),
        *(float(np.count_nonzero(why == one)) for one in (_NEIGHBOUR, _REFUSED, _OUTSIDE)),
        *(float(np.count_nonzero(state & one)) for one in (_MISSING, _BURNT)),
    )


def _span(stamp: _Stamp, centre: float, length: float) -> tuple[slice, bool]:
    first, last, end = np.floor(centre - length + 0.5), np.floor(centre + length + 0.5), stamp.width - 1.0
    low, high = int(max(first, 0.0)), int(min(last, end))
    return slice(low, max(high + 1, low)), bool(first < 0.0 or last > end)


def _covered(shape: Doubles, k: float, dx: Doubles, dy: Doubles, rho: Doubles) -> Doubles:
    """How far each pixel reaches into an ellipse of radius k: its edge is a straight line there."""
    gx, gy = 2.0 * shape[0] * dx + shape[2] * dy, 2.0 * shape[1] * dy + shape[2] * dx
    steep = gx * gx + gy * gy
    return np.where(steep > 0, np.minimum(0.5 + (k - rho) * 2.0 * rho / np.sqrt(steep), 1.0), 1.0)


def _ellipse(stamp: _Stamp, shape: Doubles, k: float) -> tuple[_Light, bool]:
    cxx, cyy, cxy = (float(one) for one in shape)
    det = cxx * cyy - 0.25 * cxy * cxy
    columns, cut_x = _span(stamp, stamp.x, k * math.sqrt(cyy / det) + 0.5)
    rows, cut_y = _span(stamp, stamp.y, k * math.sqrt(cxx / det) + 0.5)
    dx = np.arange(columns.start, columns.stop, dtype=np.float64)[None, :] - stamp.x
    dy = np.arange(rows.start, rows.stop, dtype=np.float64)[:, None] - stamp.y
    rho = np.sqrt(cxx * dx * dx + cyy * dy * dy + cxy * dx * dy)
    return _light(stamp, (rows, columns), _covered(shape, k, dx, dy, rho), 0.0), cut_x or cut_y


def _arc(r: float, t: Doubles) -> Doubles:
    angle = np.array([math.asin(one) for one in np.maximum(np.minimum(t / r, 1.0), -1.0)], np.float64)
    return 0.5 * (t * np.sqrt(np.maximum(r * r - t * t, 0.0)) + r * r * angle)


def _circle(stamp: _Stamp, cx: float, cy: float, r: float) -> tuple[_Light, bool]:
    columns, cut_x = _span(stamp, cx, r)
    rows, cut_y = _span(stamp, cy, r)
    x = np.arange(columns.start, columns.stop + 1, dtype=np.float64) - 0.5 - cx
    y = np.arange(rows.start, rows.stop + 1, dtype=np.float64) - 0.5 - cy
    high = np.minimum(np.abs(y), r)
    across = np.sqrt(r * r - high * high)
    under, under_across = _arc(r, np.minimum(np.abs(x), r)), _arc(r, across)
    x, y = x[None, :], y[:, None]
    area = across[:, None] * high[:, None] + under[None, :] - under_across[:, None]
    corner = np.where(x * x + y * y <= r * r, x * y, np.where((x < 0) != (y < 0), -area, area))
    cover = corner[1:, 1:] - corner[1:, :-1] - corner[:-1, 1:] + corner[:-1, :-1]
    return _light(stamp, (rows, columns), cover, 1e-9), cut_x or cut_y


def _half_light(stamp: _Stamp, flux: float) -> float:
    goal, most = 0.5 * flux, stamp.r - 1.0
    low, low_flux, high = 0.0, 0.0, 1.0
    if not flux > 0:
        return -1.0

    def within(r: float) -> float:
        return _circle(stamp, stamp.x, stamp.y, r)[0].flux

    while True:
        high = min(high, most)
        high_flux = within(high)
        if high_flux >= goal:
            break
        if high >= most:
            return -1.0
        low, low_flux = high, high_flux
        high *= 1.5
    for step in range(_HALF_STEPS):
        if not high - low > _HALF_CLOSE:
            break
        part = (goal - low_flux) / (high_flux - low_flux)
        trial = math.sqrt(low * low + part * (high * high - low * low))
        trial = 0.5 * (low + high) if step % 3 == 2 else trial
        found = within(trial)
        if abs(found - goal) < 1e-4 * flux:
            return trial
        if found < goal:
            low, low_flux = trial, found
        else:
            high, high_flux = trial, found
    return 0.5 * (low + high)


def _window(stamp: _Stamp, plane: Floats, cx: float, cy: float, k: float, half: int) -> _Moments:
    span = slice(stamp.r - half, stamp.r + half + 1)
    places = np.arange(span.start, span.stop, dtype=np.float64)
    dx, dy = places - cx, (places - cy)[:, None]
    values, row_weight, weight = plane[span, span].astype(np.float64), decay(k * dy * dy), decay(k * dx * dx)
    first = (row_weight * values) * dy
    fourth = (row_weight * dy * dy * dy * dy) * values
    c0, c1, c2, c4 = (
        np.add.accumulate(one, axis=0)[-1] for one in (row_weight * values, first, first * dy, fourth)
    )
    zero, one, two = weight * c0, weight * c1, weight * c2
    return _Moments(
        _total(zero),
        _total(dx * zero),
        _total(one),
        _total(dx * dx * zero),
        _total(dx * one),
        _total(two),
        _total(dx * dx * dx * dx * zero),
        _total(dx * dx * two),
        _total(weight * c4),
    )


def _reach(stamp: _Stamp, sigma: float) -> int:
    return int(min(math.ceil(_REACH_SIGMA * sigma) + 1.0, stamp.r))


def _find_centre(stamp: _Stamp, sigma: float, limit: float) -> tuple[bool, float, float]:
    """Steps of Newton towards the place about which the windowed first moments vanish."""
    q, x, y = 1.0 / (sigma * sigma), stamp.x, stamp.y
    half, lost = _reach(stamp, sigma), (False, stamp.x, stamp.y)
    for _ in range(_MOST_STEPS):
        m = _window(stamp, stamp.value, x, y, 0.5 * q, half)
        if not m.m > 0:
            return lost
        jx, jy, jxy = m.m - q * m.xx, m.m - q * m.yy, q * m.xy
        det = jx * jy - jxy * jxy
        firm = jx > 0 and jy > 0 and det > _FIRM * m.m * m.m
        dx = (jy * m.x + jxy * m.y) / det if firm else 2.0 * m.x / m.m
        dy = (jx * m.y + jxy * m.x) / det if firm else 2.0 * m.y / m.m
        dx, dy = max(min(dx, 0.5 * sigma), -0.5 * sigma), max(min(dy, 0.5 * sigma), -0.5 * sigma)
        x, y = x + dx, y + dy
        away_x, away_y = x - stamp.x, y - stamp.y
        if not away_x * away_x + away_y * away_y <= limit * limit:
            return lost
        if dx * dx + dy * dy < _CLOSE2:
            return True, x, y
    return lost


class _Profile(NamedTuple):
    """Light within each ring; Kron's radius, the light it is the moment of, Petrosian's radius (-1: none)."""

    light: Doubles
    kron: float
    within: float
    petro: float


def _profile(stamp: _Stamp, shape: Doubles, level: float) -> _Profile:
    """The growth of the light along ellipses, and Kron and Petrosian radii in units of these."""
    dx = np.arange(stamp.width, dtype=np.float64)[None, :] - stamp.x
    dy = np.arange(stamp.width, dtype=np.float64)[:, None] - stamp.y
    rho2 = shape[0] * dx * dx + shape[1] * dy * dy + shape[2] * dx * dy
    use = (rho2 < (_RINGS / _RING_STEPS) ** 2) & ((stamp.state & _MISSING) == 0)
    rho, value = np.sqrt(rho2[use]), stamp.value[use].astype(np.float64)
    ring = np.minimum(rho * _RING_STEPS, _RINGS - 1.0).astype(np.int64)
    light = np.add.accumulate(np.bincount(ring, value, _RINGS))
    pixels = np.add.accumulate(np.bincount(ring, minlength=_RINGS).astype(np.float64))
    near = rho <= _KRON_REACH
    first, total = _total((rho * value)[near]), _total(value[near])
    kron = first / total if total > 0 and first > 0 else -1.0
    return _Profile(light, kron, total, _petrosian(light, pixels, level))


def _petrosian(light: Doubles, pixels: Doubles, level: float) -> float:
    before = 1.0
    for m in _PETRO_MULTIPLES:
        number, within = float(pixels[6 * m - 1] - pixels[4 * m - 1]), float(light[5 * m - 1])
        if not number > 0 or not within > 0:
            continue
        part = float(light[6 * m - 1] - light[4 * m - 1]) / number / (within / float(pixels[5 * m - 1]))
        if part < level:
            share = (before - level) / (before - part) if before > part else 1.0
            return 0.5 * (m - 1.0 + max(min(share, 1.0), 0.0))
        before = part
    return -1.0


def _own_variance(
    stamp: _Stamp, shape: Doubles, k: float, profile: _Profile, own: _Light, edge: float, how: Measuring
) -> float:
    """Variance of the light F in an ellipse of radius R, which the same pixels tell.

    To first order a pixel's noise n adds c n + (dF/dlnR) u n: c is its part within the ellipse,
    u how ln R answers to it. With Kron's radius, sum(rho v) / sum(v), u is (rho / kron - 1) /
    sum(v). With the least radius R is a multiple of the isophotal axes, the second moments X of
    the light M within the isophote: d ln sqrt(ab) = tr(X^-1 dX) / 4, so u is (rho^2 - 2) / 4 M
    there. The isophote moves too: where the light is more by n than its level t the area grows by
    n |dA/dt|, and that area holds t |dA/dt| = `edge` of light, at the isophote's rho.
    """
    first = min(math.floor(_RING_LOW * k + 0.5), _RINGS - 1)
    last = min(math.floor(_RING_HIGH * k + 0.5), _RINGS)
    by_kron = how.kron_factor * profile.kron > how.kron_least
    scale, slope = profile.within if by_kron else 4.0 * own.flux, 0.0
    if first >= 1 and last > first and scale > 0:
        growth = float(profile.light[last - 1]) - float(profile.light[first - 1])
        slope = growth * 0.5 * (last + first) / (last - first)
    cxx, cyy, cxy = (float(one) for one in shape)
    area, width = math.sqrt(cxx * cyy - 0.25 * cxy * cxy), float(how.row()[9])
    limit2 = own.whole / math.pi * area
    limit, narrow, height = math.sqrt(limit2), 0.5 / (width * width * area), 0.0
    if limit > 0:
        height = (limit2 - 2.0) * edge / (2.0 * math.pi * limit / math.sqrt(area) * _ROOT_TWO_PI * width)
    dx = np.arange(stamp.width, dtype=np.float64)[None, :] - stamp.x
    dy = np.arange(stamp.width, dtype=np.float64)[:, None] - stamp.y
    rho2 = cxx * dx * dx + cyy * dy * dy + cxy * dx * dy
    rho = np.sqrt(rho2)
    if by_kron:
        grows = np.where(rho <= _KRON_REACH, rho / profile.kron - 1.0, 0.0)
    else:
        away = rho - limit
        grows = np.where(stamp.state & _OWN, rho2 - 2.0, 0.0) + height * decay(narrow * away * away)
    part = np.maximum(_covered(shape, k, dx, dy, rho), 0.0)
    part = part + (slope * grows / scale if slope != 0 else 0.0)
    return _total(part * part * stamp.noise.astype(np.float64))


def _measure_one(field: Field, place: Doubles, name: int, radii: Doubles, how: Measuring) -> list[float]:
    """The kernel's numpy twin: the same operations in the same order."""
    shape, x, y, edge = place[3:6], float(place[0]), float(place[1]), float(place[6])
    stamp = _fill(field, x, y, int(place[2]), name, how)
    everywhere = (slice(None), slice(None))
    own = _light(stamp, everywhere, ((stamp.state & _OWN) > 0).astype(np.float64), 0.0)
    core, cut = _ellipse(stamp, shape, _CORE)
    profile = _profile(stamp, shape, how.petrosian_level)
    kron, petro = profile.kron, profile.petro
    kron_k = max(how.kron_factor * kron, how.kron_least)
    automatic, cut_auto = _ellipse(stamp, shape, kron_k)
    if edge >= 0:
        variance = _own_variance(stamp, shape, kron_k, profile, own, edge, how)
        automatic = automatic._replace(variance=variance)
    petrosian, cut_petro = _ellipse(stamp, shape, max(how.petrosian_factor * petro, how.kron_least))
    half = _half_light(stamp, automatic.flux)

    sigma = 2.0 * half / FWHM_SIGMA if half > 0 else how.sigma_px
    sigma = min(max(sigma, 0.7 * how.sigma_px), max((stamp.r - 1.0) / _REACH_SIGMA, 0.5))
    q, reach = 1.0 / (sigma * sigma), _reach(stamp, sigma)
    centred, cx, cy = _find_centre(stamp, sigma, how.walk_sigma * sigma)
    m = _window(stamp, stamp.value, cx, cy, 0.5 * q, reach)
    e = _window(stamp, stamp.noise, cx, cy, q, reach)

    inner = inner_sigma(how)
    middle = _window(stamp, stamp.value, cx, cy, 0.5 / (inner * inner), _reach(stamp, inner))
    narrow = 0.5 / (how.sigma_px * how.sigma_px)
    wide, far = narrow / (_WIDE * _WIDE), _reach(stamp, _WIDE * how.sigma_px)
    light = [_window(stamp, stamp.value, cx, cy, k, far).m for k in (narrow, wide)]
    error = [_window(stamp, stamp.noise, cx, cy, k, far).m for k in (2.0 * narrow, narrow + wide, 2.0 * wide)]

    apertures = []
    for radius in radii:
        one, cut_one = _circle(stamp, cx, cy, float(radius))
        apertures += [one.flux, one.variance, one.missing]
        cut = cut or cut_one
    found = 0 if centred else NO_CENTROID
    found |= (LIMITED if cut or cut_auto else 0) | (PETRO_CUT if cut_petro else 0)
    for value, missed in ((half, NO_HALF), (kron, NO_KRON), (petro, NO_PETRO)):
        found |= 0 if value > 0 else missed
    return [
        *(float(found), x + (cx - stamp.x), y + (cy - stamp.y), kron, petro, half, sigma),
        *(own.flux, own.variance, automatic.flux, automatic.variance, petrosian.flux, petrosian.variance),
        *(own.area, automatic.area, own.burnt + core.burnt, core.refused, core.whole),
        *(automatic.neighbour, automatic.outside, automatic.missing, automatic.whole),
        *m[:6],
        *e,
        *(middle.m, middle.xx, middle.yy),
        *light,
        *error,
        *apertures,
    ]
