"""The numpy twins of the kernel `resample`: the same operations in the same order, so the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]

LANES = 8
BAD, MARKED = 1, 2
# Entries of the gains for 1 of area.
GAIN_STEPS = 16


def footprints(
    image: Array,
    weight: Array | None,
    mask: Array | None,
    zero: int,
    taps: int,
    padded: Array,
    near_by: Array,
) -> None:
    """Fill the state of each pixel, padded by rows above and below, and that of the footprint around it.

    A pixel is BAD, or MARKED by a bit of the mask, or both, or 0; a footprint is what any
    of its pixels is, and all of it where a kernel's reading would leave the image.
    """
    ny, nx = image.shape
    before = taps // 2 - 1
    padded[:] = BAD | MARKED
    state = padded[before : before + ny]
    bad = ~np.isfinite(image)
    if weight is not None:
        bad |= ~((weight > 0) & np.isfinite(weight))
    if mask is not None:
        bad |= (mask & zero) != 0
    state[:] = bad * BAD
    if mask is not None:
        state[:] |= ((mask != 0) * MARKED).astype(np.uint8)
    column = np.bitwise_or.reduce([padded[j : j + ny] for j in range(taps)], axis=0)
    near_by[:] = BAD | MARKED
    width = nx - LANES + 1
    if width > 0:
        parts = [column[:, i : i + width] for i in range(taps)]
        near_by[:, before : before + width] = np.bitwise_or.reduce(parts, axis=0)


class _Neighbours:
    """The pixels around places, bad beyond the image."""

    def __init__(self, given: tuple[Any, ...], x: Array, y: Array, outside: int) -> None:
        self.image, self.weight, self.mask, self.state = given[:4]
        self.x, self.y, self.outside = x, y, np.int16(outside)

    def at(self, j: Any, i: Any) -> tuple[Array, Array, Array]:
        """Values, whether they are bad, and bits."""
        ny, nx = self.image.shape
        y, x = self.y + j, self.x + i
        inside = (y >= 0) & (y < ny) & (x >= 0) & (x < nx)
        y, x = np.where(inside, y, 0), np.where(inside, x, 0)
        bits = np.int16(0) if self.mask is None else self.mask[y, x]
        bad = ~inside | (self.state[y, x] & BAD != 0)
        return self.image[y, x], bad, np.where(inside, bits, self.outside)

    def weight_at(self, j: int, i: int, bad: Array) -> Array:
        """Weights, 0 of bad pixels; these alone may be beyond the image."""
        if self.weight is None:
            return np.where(bad, np.float32(0), np.float32(1))
        own = self.weight[np.where(bad, 0, self.y + j), np.where(bad, 0, self.x + i)]
        return np.where(bad, np.float32(0), own)


def interpolated(given: tuple[Any, ...], taps: int, min_good: float, min_share: float, outside: int) -> None:
    """Fill value, weight, bits and spread, the last four of the arrays of the kernel's call."""
    near_by, table, near, x, y, value, weight, bits, spread = given[4:]
    ny, nx = given[0].shape
    value[:], weight[:], bits[:] = 0, 0, outside
    if spread is not None:
        spread[:] = 0
    with np.errstate(all="ignore"):
        inside = (x >= -0.5) & (x < nx - 0.5) & (y >= -0.5) & (y < ny - 0.5)
        px, py = x[inside], y[inside]
        ix, iy = np.floor(px).astype(np.int64), np.floor(py).astype(np.int64)
        steps = len(table) - 1
        fx = ((px - ix) * steps + 0.5).astype(np.int64)
        fy = ((py - iy) * steps + 0.5).astype(np.int64)
        unclean = (ix < 0) | (iy < 0)
        unclean |= near_by[np.maximum(iy, 0), np.maximum(ix, 0)] & BAD != 0
        around = np.flatnonzero(inside.reshape(-1))
        for which, work in ((~unclean, _clean), (unclean, _of_good)):
            here = _Neighbours(given, ix[which], iy[which], outside)
            kernels = table[fx[which]], table[fy[which]], near[fx[which]], near[fy[which]]
            found = work(here, *kernels, taps, np.float32(min_good), np.float32(min_share))
            for plane, own in zip((value, weight, bits, spread), found, strict=True):
                if plane is not None:
                    plane.reshape(-1)[around[which]] = own


def _clean(
    here: _Neighbours, kx: Array, ky: Array, sx: Array, sy: Array, taps: int, _: Any, min_share: Any
) -> tuple[Array, ...]:
    zero = np.zeros(len(here.x), np.float32)
    lanes = [zero] * LANES
    before = taps // 2 - 1
    for j in range(taps):
        for i in range(taps):
            lanes[i] = lanes[i] + ky[:, j] * here.at(j - before, i - before)[0]
    last = [lanes[i] * kx[:, i] if i < taps else zero for i in range(LANES)]
    value = ((last[0] + last[4]) + (last[2] + last[6])) + ((last[1] + last[5]) + (last[3] + last[7]))
    bits, _bad = _near_bits(here, sx, sy, min_share)
    weight = zero + np.float32(1) if here.weight is None else _near_weight(here, sx, sy)
    return value, weight, bits, _squares(ky, taps) * _squares(kx, taps)


def _squares(k: Array, taps: int) -> Array:
    total = np.zeros(len(k), np.float32)
    for i in range(taps):
        total = total + k[:, i] * k[:, i]
    return total


def _near_weight(here: _Neighbours, sx: Array, sy: Array) -> Array:
    total = np.zeros(len(here.x), np.float32)
    for j, i in ((0, 0), (0, 1), (1, 0), (1, 1)):
        bad = here.at(j, i)[1]
        total = total + sy[:, j] * sx[:, i] * here.weight_at(j, i, bad)
    return total


def _near_bits(here: _Neighbours, sx: Array, sy: Array, min_share: Any) -> tuple[Array, Array]:
    bits = np.zeros(len(here.x), np.int16)
    any_bad = np.zeros(len(here.x), np.bool_)
    for j, i in ((0, 0), (0, 1), (1, 0), (1, 1)):
        _, bad, own = here.at(j, i)
        matters = sy[:, j] * sx[:, i] >= min_share
        bits |= np.where(matters, own, np.int16(0))
        any_bad |= matters & bad
    return bits, any_bad


def _of_good(
    here: _Neighbours, kx: Array, ky: Array, sx: Array, sy: Array, taps: int, min_good: Any, min_share: Any
) -> tuple[Array, ...]:
    total, sums, kept, size, square, squares = (np.zeros(len(here.x), np.float32) for _ in range(6))
    lost = np.zeros(len(here.x), np.int16)
    before = taps // 2 - 1
    for j in range(taps):
        for i in range(taps):
            own, bad, bits = here.at(j - before, i - before)
            k = ky[:, j] * kx[:, i]
            size += np.abs(k)
            squares += k * k
            lost |= np.where(bad, bits, np.int16(0))
            total = np.where(bad, total, total + k * own)
            sums = np.where(bad, sums, sums + k)
            kept = np.where(bad, kept, kept + np.abs(k))
            square = np.where(bad, square, square + k * k)
    bits, near_bad = _near_bits(here, sx, sy, min_share)
    good = ~near_bad & (kept >= min_good * size) & (sums >= np.float32(0.5))
    loss = squares * (sums * sums) / square
    weight = _near_weight(here, sx, sy) * np.where(loss < 1, loss, np.float32(1))
    nearest, _, _ = here.at((sy[:, 1] >= sy[:, 0]).astype(np.int64), (sx[:, 1] >= sx[:, 0]).astype(np.int64))
    nearest = np.where(_beyond(here, sx, sy) | ~np.isfinite(nearest), np.float32(0), nearest)
    none = np.float32(0)
    return (
        np.where(good, total / sums, nearest),
        np.where(good, weight, none),
        np.where(good, bits, bits | lost),
        np.where(good, squares, none),
    )


def _beyond(here: _Neighbours, sx: Array, sy: Array) -> Array:
    ny, nx = here.image.shape
    y, x = here.y + (sy[:, 1] >= sy[:, 0]), here.x + (sx[:, 1] >= sx[:, 0])
    beyond: Array = (y < 0) | (y >= ny) | (x < 0) | (x >= nx)
    return beyond


# Areas


def overlapped(given: tuple[Any, ...], min_good: float, min_share: float, outside: int) -> None:
    """As `interpolated`, for means over the overlap of quadrilaterals with pixels."""
    x, y, value, weight, bits, spread = given[7:]
    corners = [(slice(None, -1), slice(None, -1)), (slice(None, -1), slice(1, None))]
    corners += [(slice(1, None), slice(1, None)), (slice(1, None), slice(None, -1))]
    xs, ys = ([plane[corner].reshape(-1) for corner in corners] for plane in (x, y))
    value[:], weight[:], bits[:] = 0, 0, outside
    if spread is not None:
        spread[:] = 0
    ny, nx = given[0].shape
    with np.errstate(all="ignore"):
        area = 0.5 * np.abs((xs[2] - xs[0]) * (ys[3] - ys[1]) - (xs[3] - xs[1]) * (ys[2] - ys[0]))
        x0, x1, y0, y1 = np.fmin.reduce(xs), np.fmax.reduce(xs), np.fmin.reduce(ys), np.fmax.reduce(ys)
        use = np.flatnonzero((x1 > 0) & (y1 > 0) & (x0 < nx) & (y0 < ny) & (area > 0))
        if not len(use):
            return
        first = [np.maximum(low[use], 0).astype(np.int64) for low in (y0, x0)]
        last = [np.minimum(high[use], n - 1).astype(np.int64) for high, n in ((y1, ny), (x1, nx))]
        found = _mean(
            given,
            ([one[use] for one in xs], [one[use] for one in ys]),
            area[use],
            first,
            last,
            min_good,
            min_share,
        )
        touched = found[4] > 0
        lost = np.where(found[4] < np.float32(min_good) * area[use], np.int16(outside), np.int16(0))
        found[2][...] |= np.where(found[5], np.int16(0), lost)
        for plane, own in zip((value, weight, bits, spread), found[:4], strict=True):
            if plane is not None:
                plane.reshape(-1)[use[touched]] = own[touched]


def _mean(
    given: tuple[Any, ...],
    corners: tuple[list[Array], list[Array]],
    area: Array,
    first: list[Array],
    last: list[Array],
    min_good: float,
    min_share: float,
) -> tuple[Array, ...]:
    """Value, weight, bits, spread, the area that is on the image, and whether enough of it is good."""
    image, weights, mask, state = given[:4]
    total, kept, square, weight, every, whole = (np.zeros(len(area)) for _ in range(6))
    bits, lost = (np.zeros(len(area), np.int16) for _ in range(2))
    for j in range(int((last[0] - first[0]).max()) + 1):
        for i in range(int((last[1] - first[1]).max()) + 1):
            y, x = first[0] + j, first[1] + i
            here = np.flatnonzero((y <= last[0]) & (x <= last[1]))
            y, x = y[here], x[here]
            xs, ys = ([one[here] for one in axis] for axis in corners)
            part = _overlap(xs, ys, x, y)
            own, value = np.int16(0) if mask is None else mask[y, x], image[y, x].astype(np.float64)
            good = state[y, x] & BAD == 0
            bits[here] |= np.where(part >= np.float32(min_share) * area[here], own, np.int16(0))
            lost[here] |= np.where(~good & (part > 0), own, np.int16(0))
            whole[here] += part
            every[here] += np.where(np.isfinite(value), part * value, 0.0)
            here, part, value, y, x = here[good], part[good], value[good], y[good], x[good]
            total[here] += part * value
            kept[here] += part
            square[here] += part * part
            weight[here] += part * (1.0 if weights is None else weights[y, x].astype(np.float64))
    enough = (kept >= np.float32(min_good) * area) & (kept > 0)
    none = np.float32(0)
    return (
        np.where(enough, total / kept, every / whole).astype(np.float32),
        np.where(enough, (weight / area).astype(np.float32), none),
        np.where(enough, bits, bits | lost),
        np.where(enough, (square / (kept * area)).astype(np.float32), none),
        whole,
        enough,
    )


def _overlap(xs: list[Array], ys: list[Array], x: Array, y: Array) -> Doubles:
    total = np.zeros(len(x))
    for i in range(4):
        after = (i + 1) & 3
        total = total + _below_edge(xs[i] - x, ys[i] - y, xs[after] - x, ys[after] - y)
    return np.abs(total)


def _below_edge(x1: Array, y1: Array, x2: Array, y2: Array) -> Doubles:
    """What lies between an edge and the lower side of the unit square, signed."""
    a, b = np.clip(x1, 0, 1), np.clip(x2, 0, 1)
    slope = (y2 - y1) / (x2 - x1)
    ya, yb = y1 + (a - x1) * slope, y1 + (b - x1) * slope
    rise = yb - ya
    height = np.where(
        np.abs(rise) > 1e-6, (_integral(yb) - _integral(ya)) / rise, np.clip(0.5 * (ya + yb), 0, 1)
    )
    return np.where(a == b, 0.0, (b - a) * height)


def _integral(value: Array) -> Doubles:
    inner = np.clip(value, 0, 1)
    made: Doubles = inner * inner * 0.5 + np.where(value > 1, value - 1, 0.0)
    return made


# Units


def _between(gains: Array, area: Array) -> Array:
    """Entries of a table whose first is that of area 1."""
    last = len(gains) - 1
    place = (np.maximum(area, np.float32(1)) - np.float32(1)) * np.float32(GAIN_STEPS)
    inner = place < last
    i = np.where(inner, place, 0).astype(np.int64)
    below = gains[i]
    found: Array = below + (place - i.astype(np.float32)) * (gains[np.minimum(i + 1, last)] - below)
    return np.where(inner, found, gains[last])


def finish(
    area: Doubles,
    value: Array,
    weight: Array,
    spread: Array | None,
    areas: Array | None,
    gains: Array | None,
    scale: float,
    flux: bool,
) -> None:
    """Apply scale and areas to values and weights, in place; sum(k^2) becomes a variance."""
    one = np.float32(1)
    with np.errstate(all="ignore"):
        own = area.astype(np.float32)
        own[~np.isfinite(own)] = 0
        factor = np.float32(scale) * own if flux else np.full_like(own, scale)
        square = factor * factor
        value *= factor
        if spread is not None:
            spread *= np.where(weight > 0, square / weight, np.float32(0))
        if areas is not None:
            areas[...] = own
        shared = own if gains is None else np.where(own < one, own, _between(gains, own))
        weight[...] = np.where((weight > 0) & (shared > 0), weight * shared / square, np.float32(0))
