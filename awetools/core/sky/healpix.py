"""HEALPix in the nested order: a position's pixel on the sphere, and the pixels that a cone touches.

Source: Gorski et al. 2005, ApJ 622, 759, sections 5.1 to 5.3.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ..errors import BadValue

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# The finest pixels (0.4 mas) that 63 bits can count.
FINEST = 29
BASE_PIXELS = 12
# What one level of a cone's search may hold before its pixels are taken as they are.
MOST_AT_ONCE = 4096
# Longest way in pixel coordinates of one radian on the sphere, over the side of a face (2.1 at most).
STRETCH = 2.2
# Row and diagonal of the southern corner of each base pixel.
_ROW = np.array([2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4])
_DIAGONAL = np.array([1, 3, 5, 7, 0, 2, 4, 6, 1, 3, 5, 7])
_SPREAD = (
    (16, 0x0000FFFF0000FFFF), (8, 0x00FF00FF00FF00FF), (4, 0x0F0F0F0F0F0F0F0F),
    (2, 0x3333333333333333), (1, 0x5555555555555555),
)  # fmt: skip


def pixels_of(order: int, ra_deg: npt.ArrayLike, dec_deg: npt.ArrayLike) -> Integers:
    """The nested pixel (12 x 4^order of them) of each position in degrees, of any RA, exact at the poles.

    Raises BadValue for an order outside 0 to 29; a declination outside -90 to 90 has no defined pixel.
    """
    side = _side(order)
    down, up, polar, quarter, north = _coordinates(order, ra_deg, dec_deg)
    jp, jm = np.floor(down).astype(np.int64), np.floor(up).astype(np.int64)
    # Between the polar caps: diagonals that fall and rise, whose faces tell the base pixel.
    fall, rise = jp >> order, jm >> order
    face = np.where(fall == rise, fall & 3 | 4, np.where(fall < rise, fall & 3, (rise & 3) + 8))
    x, y = jm & (side - 1), side - 1 - (jp & (side - 1))
    # In the caps both are counted from the pole.
    jp, jm = np.minimum(jp, side - 1), np.minimum(jm, side - 1)
    face = np.where(polar, np.where(north, quarter, quarter + 8), face)
    x = np.where(polar, np.where(north, side - 1 - jm, jp), x)
    y = np.where(polar, np.where(north, side - 1 - jp, jm), y)
    return np.asarray((face << (2 * order)) + _spread(x) + (_spread(y) << 1), np.int64)


def near_border(
    order: int, ra_deg: npt.ArrayLike, dec_deg: npt.ArrayLike, arcsec: float
) -> npt.NDArray[np.bool_]:
    """Whether a position may lie within this angle of the border of its pixel; never false where it does."""
    reach = STRETCH * _side(order) * math.radians(arcsec / 3600)
    down, up, *_ = _coordinates(order, ra_deg, dec_deg)
    return np.asarray((np.abs(down - np.rint(down)) <= reach) | (np.abs(up - np.rint(up)) <= reach))


def centres_of(order: int, pixels: npt.ArrayLike) -> tuple[Doubles, Doubles]:
    """RA and Dec in degrees of the centres of nested pixels."""
    vectors = _centre_vectors(order, np.asarray(pixels, np.int64))
    ra = np.degrees(np.arctan2(vectors[..., 1], vectors[..., 0])) % 360
    across = np.hypot(vectors[..., 0], vectors[..., 1])
    return ra, np.degrees(np.arctan2(vectors[..., 2], across))


def largest_radius_deg(order: int) -> float:
    """The largest distance of a corner of a pixel from its centre, over all pixels of the order.

    It is that of the pixels that touch the corner of a polar cap (at z = 2/3, RA 45).
    """
    side = _side(order)
    z1, phi = 2 / 3, math.pi / (4 * side)
    z2 = 1 - (1 - 1 / side) ** 2 / 3
    across1, across2 = math.sqrt(1 - z1 * z1), math.sqrt(1 - z2 * z2)
    chord = math.dist((across1 * math.cos(phi), across1 * math.sin(phi), z1), (across2, 0, z2))
    return math.degrees(2 * math.asin(chord / 2))


def cone_ranges(order: int, ra_deg: float, dec_deg: float, radius_deg: float) -> tuple[Integers, Integers]:
    """Ranges (first, one past the last) of nested pixels that together hold all of a cone, in rising order.

    Every pixel that the cone touches is among them, and few others: those less than about
    a pixel away, or, where the cone is so wide that its rim has thousands of pixels,
    those of a coarser order. Raises BadValue for a position or radius that cannot be.
    """
    _check_cone(ra_deg, dec_deg, radius_deg)
    ra, dec, radius = math.radians(ra_deg), math.radians(dec_deg), math.radians(radius_deg)
    centre = np.array([math.cos(dec) * math.cos(ra), math.cos(dec) * math.sin(ra), math.sin(dec)])
    pixels = np.arange(BASE_PIXELS)
    firsts, lengths = [], []
    for level in range(order + 1):
        chords = np.linalg.norm(_centre_vectors(level, pixels) - centre, axis=-1)
        away = 2 * np.arcsin(np.minimum(chords / 2, 1))
        # The last term: rounding, and the orders whose pixels are smaller than it.
        reach = math.radians(largest_radius_deg(level)) + 1e-14
        inside = away + reach <= radius
        rim = pixels[(away <= radius + reach) & ~inside]
        last = level == order or 4 * len(rim) > MOST_AT_ONCE
        taken = np.concatenate([pixels[inside], rim]) if last else pixels[inside]
        size = 1 << (2 * (order - level))
        firsts.append(taken * size)
        lengths.append(np.full(len(taken), size))
        if last:
            break
        pixels = (4 * rim[:, None] + np.arange(4)).ravel()
    return joined(np.concatenate(firsts), np.concatenate(lengths))


def cone_pixels(order: int, ra_deg: float, dec_deg: float, radius_deg: float) -> Integers:
    """The pixels of `cone_ranges`, one by one, in rising order."""
    firsts, ends = cone_ranges(order, ra_deg, dec_deg, radius_deg)
    return np.concatenate(
        [np.arange(a, b) for a, b in zip(firsts, ends, strict=True)] or [np.empty(0, np.int64)]
    )


def joined(firsts: Integers, lengths: Integers, gap: int = 0) -> tuple[Integers, Integers]:
    """Ranges as first and one past the last, in rising order, as one where at most `gap` lies between them.

    firsts, lengths: ranges that do not overlap, in any order.
    """
    places = np.argsort(firsts)
    firsts = firsts[places]
    ends = firsts + lengths[places]
    starts = np.ones(len(firsts), bool)
    starts[1:] = firsts[1:] - ends[:-1] > gap
    # Where one begins, the one before it ends.
    closes = np.roll(starts, -1)
    return firsts[starts], ends[closes]


def _check_cone(ra_deg: float, dec_deg: float, radius_deg: float) -> None:
    if not (math.isfinite(ra_deg) and -90 <= dec_deg <= 90):
        raise BadValue(f"no position on the sky: RA {ra_deg}, Dec {dec_deg} degrees")
    if not 0 <= radius_deg <= 180:
        raise BadValue(f"the radius of a cone is from 0 to 180 degrees, not {radius_deg}")


def _side(order: int) -> int:
    if not 0 <= order <= FINEST:
        raise BadValue(f"the order of HEALPix pixels is from 0 to {FINEST}, not {order}")
    return 1 << order


_Coordinates = tuple[Doubles, Doubles, npt.NDArray[np.bool_], Integers, npt.NDArray[np.bool_]]


def _coordinates(order: int, ra_deg: npt.ArrayLike, dec_deg: npt.ArrayLike) -> _Coordinates:
    """Along the two diagonals in pixels; whether in a polar cap; the quarter of RA; whether in the north.

    Pixel borders lie where either coordinate is whole.
    """
    side = _side(order)
    ra, dec = np.asarray(ra_deg, np.float64), np.asarray(dec_deg, np.float64)
    turn = (ra % 360) / 90
    # A tiny negative angle has the rest 360.
    turn = np.where(turn >= 4, 0.0, turn)
    z = np.sin(np.radians(dec))
    from_pole = np.radians(90 - np.abs(dec))
    # sqrt(3 (1 - |z|)), without the loss of digits next to the pole.
    height = side * np.sin(from_pole) * np.sqrt(3 / (1 + np.abs(z)))
    polar = np.abs(z) > 2 / 3
    quarter = np.minimum(turn.astype(np.int64), 3)
    part = turn - quarter
    middle, tilt = side * (0.5 + turn), side * 0.75 * z
    down = np.where(polar, part * height, middle - tilt)
    up = np.where(polar, (1 - part) * height, middle + tilt)
    return down, up, polar, quarter, z > 0


def _centre_vectors(order: int, pixels: Integers) -> Doubles:
    """Unit vectors (..., 3) of the centres of nested pixels."""
    side = _side(order)
    face, inside = pixels >> (2 * order), pixels & ((1 << (2 * order)) - 1)
    x, y = _gathered(inside), _gathered(inside >> 1)
    row = _ROW[face] * side - x - y - 1
    # Rings are counted from the nearer pole; between the caps they hold `side` pixels a quarter.
    ring = np.minimum(np.minimum(row, 4 * side - row), side)
    cap = ring * ring / (3.0 * side * side)
    z = np.where(row < side, 1 - cap, np.where(row > 3 * side, cap - 1, (2 * side - row) * 2 / (3.0 * side)))
    across = np.where(ring < side, np.sqrt(cap * (2 - cap)), np.sqrt(1 - z * z))
    phi = (_DIAGONAL[face] * ring + x - y) * (math.pi / 4) / ring
    return np.stack([across * np.cos(phi), across * np.sin(phi), z], axis=-1)


def _spread(numbers: Integers) -> Integers:
    """The bits of numbers below 2^32 at the even places."""
    for shift, mask in _SPREAD:
        numbers = (numbers | numbers << shift) & mask
    return numbers


def _gathered(numbers: Integers) -> Integers:
    """The bits at even places, side by side; the inverse of `_spread`."""
    numbers = numbers & _SPREAD[-1][1]
    for (shift, _), (_, mask) in zip(
        reversed(_SPREAD), [*reversed(_SPREAD[:-1]), (0, 0xFFFFFFFF)], strict=True
    ):
        numbers = (numbers | numbers >> shift) & mask
    return numbers
