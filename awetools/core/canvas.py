"""Marks on a picture without a plotting library: ellipses, crosses, lines and a few letters, in numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]
Colour = tuple[int, int, int]

# An ellipse is drawn by so many points a pixel of its circumference, at least and at most so many.
POINTS_PX, FEWEST, MOST = 1.5, 16, 8192
# Ellipses that are drawn at a time.
BLOCK_POINTS = 1 << 20
# Parts of a cross: from this part of its arm to the end, so that what it marks is seen.
GAP = 0.4

# Letters of 5 rows of points, the upper one first; most are 3 points wide.
GLYPHS = {
    "0": "111 101 101 101 111",
    "1": "010 110 010 010 111",
    "2": "111 001 111 100 111",
    "3": "111 001 111 001 111",
    "4": "101 101 111 001 001",
    "5": "111 100 111 001 111",
    "6": "111 100 111 101 111",
    "7": "111 001 001 010 010",
    "8": "111 101 111 101 111",
    "9": "111 101 111 001 111",
    ".": "000 000 000 000 010",
    "-": "000 000 111 000 000",
    "'": "010 010 000 000 000",
    '"': "101 101 000 000 000",
    "d": "001 001 011 101 011",
    "e": "011 101 110 100 011",
    "g": "011 101 011 001 110",
    "p": "110 101 110 100 100",
    "x": "101 101 010 101 101",
    "E": "111 100 110 100 111",
    "N": "10001 11001 10101 10011 10001",
}
BLANK = "000 000 000 000 000"


def coloured(grey: Picture) -> Picture:
    """A grey picture (ny, nx) as one of colours (ny, nx, 3) that can be drawn on."""
    return np.repeat(grey[..., None], 3, axis=2)


def paint(picture: Picture, x: Doubles, y: Doubles, colour: Any, width: int = 1) -> None:
    """Points of a picture, x to the right and y down from its corner, whole squares of so many pixels.

    colour: one, or one a point (n, 3). What is outside or not finite is not drawn.
    """
    ny, nx = picture.shape[:2]
    finite = np.isfinite(x) & np.isfinite(y)
    finite &= (np.abs(np.where(finite, x, 0)) < 1e9) & (np.abs(np.where(finite, y, 0)) < 1e9)
    column, row = (np.floor(one[finite]).astype(np.int64) for one in (x, y))
    shade = np.broadcast_to(np.asarray(colour, np.uint8), (len(x), 3))[finite]
    first = -((width - 1) // 2)
    for down in range(first, first + width):
        for right in range(first, first + width):
            i, j = row + down, column + right
            inside = (i >= 0) & (i < ny) & (j >= 0) & (j < nx)
            picture[i[inside], j[inside]] = shade[inside]


def draw_ellipses(
    picture: Picture,
    x: Doubles,
    y: Doubles,
    a: Doubles,
    b: Doubles,
    theta_deg: Doubles,
    colours: npt.NDArray[Any],
    width: int = 1,
) -> None:
    """Ellipses (n) of semi-axes in pixels, the longer one turned from x towards *up*; colours (n, 3)."""
    known = np.isfinite(np.stack([x, y, a, b, theta_deg])).all(axis=0)
    x, y, a, b, theta_deg, colours = (one[known] for one in (x, y, a, b, theta_deg, colours))
    longest = np.minimum(np.maximum(np.abs(a), np.abs(b)), MOST)
    wanted = np.clip(POINTS_PX * 2 * math.pi * longest, FEWEST, MOST)
    # A few numbers of points, so that many ellipses are drawn at once.
    counts = 2 ** np.ceil(np.log2(wanted)).astype(np.int64)
    for count in np.unique(counts):
        chosen = np.flatnonzero(counts == count)
        angle = np.linspace(0, 2 * math.pi, int(count), endpoint=False)
        step = max(1, BLOCK_POINTS // int(count))
        for first in range(0, len(chosen), step):
            some = chosen[first : first + step]
            turn = np.radians(theta_deg[some])[:, None]
            along, across = a[some, None] * np.cos(angle), b[some, None] * np.sin(angle)
            right = along * np.cos(turn) - across * np.sin(turn)
            up = along * np.sin(turn) + across * np.cos(turn)
            shades = np.repeat(colours[some], int(count), axis=0)
            paint(picture, (x[some, None] + right).ravel(), (y[some, None] - up).ravel(), shades, width)


def draw_crosses(picture: Picture, x: Doubles, y: Doubles, arm: float, colour: Any, width: int = 1) -> None:
    """Crosses with an open middle, whose arms have a length in pixels."""
    steps = np.arange(math.ceil(GAP * arm), math.floor(arm) + 1, dtype=np.float64)
    for right, down in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        px, py = x[:, None] + right * steps, y[:, None] + down * steps
        paint(picture, px.ravel(), py.ravel(), colour, width)


def draw_lines(
    picture: Picture, x0: Doubles, y0: Doubles, x1: Doubles, y1: Doubles, colours: Any, width: int = 1
) -> None:
    """Straight lines (n) between points; colours: one, or one a line. Those that are nowhere near are left out."""
    reach = 4.0 * max(picture.shape[:2])
    shades = np.broadcast_to(np.asarray(colours, np.uint8), (len(x0), 3))
    ends = np.stack([x0, y0, x1, y1])
    near = np.isfinite(ends).all(axis=0) & (np.abs(np.nan_to_num(ends)) < reach).all(axis=0)
    for row in np.flatnonzero(near):
        count = int(max(abs(x1[row] - x0[row]), abs(y1[row] - y0[row]))) + 2
        x, y = np.linspace(x0[row], x1[row], count), np.linspace(y0[row], y1[row], count)
        paint(picture, x, y, shades[row], width)


def draw_text(picture: Picture, x: float, y: float, text: str, colour: Colour, size: int = 2) -> None:
    """Text whose upper left corner is at a point; a point of a letter is a square of so many pixels.

    What stands in GLYPHS has a form; other letters are blanks.
    """
    square = np.arange(size, dtype=np.float64)
    for letter in text:
        rows = GLYPHS.get(letter, BLANK).split()
        for i, row in enumerate(rows):
            for j in (place for place, one in enumerate(row) if one == "1"):
                px, py = np.meshgrid(x + size * j + square, y + size * i + square)
                paint(picture, px.ravel(), py.ravel(), colour)
        x += size * (len(rows[0]) + 1)


def text_width(text: str, size: int = 2) -> int:
    """The width of a text in pixels."""
    points = sum(GLYPHS.get(letter, BLANK).index(" ") + 1 for letter in text)
    return size * max(0, points - 1)
