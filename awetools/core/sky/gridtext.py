"""A sky grid as a short text that says all of it: what parameters hold, what records keep, what people type."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import BadHeader, BadValue
from ..units import angle_deg
from .projections import read_word, word_of

if TYPE_CHECKING:
    from .grid import Grid, Window
    from .projection import Projection
    from .wcs import Wcs

EXAMPLE = "TAN 202.469600 47.195200 0.25 4096x4096 2048.5,2048.5 0"
FORM = "PROJECTION RA DEC SCALE COLUMNSxROWS X,Y ROTATION"
ARCSEC_PER_DEG = 3600.0
ROUNDING = 1e-12
# Of degrees: microarcseconds, and what hours, minutes and seconds give is what degrees do.
DECIMALS = 9
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_SIZE = re.compile(r"([0-9]{1,9})(?:[xX]([0-9]{1,9}))?")


@dataclass(frozen=True)
class GridText:
    """What the text of a grid says, ICRS.

    projection: its code and, behind a colon, its parameters, as `projections.read_word` reads them. ra_deg,
    dec_deg: the reference point, which is at pixel crpix (1-based, of any part of it); scale_arcsec: of a
    pixel in the plane, and there on the sky (some projections of all of the sky have other scales even
    there); columns, rows; rotation_deg: the direction of +y from north through east. East is 90 degrees from
    north to the left, as on the sky.
    """

    projection: str
    ra_deg: float
    dec_deg: float
    scale_arcsec: float
    columns: int
    rows: int
    crpix: tuple[float, float]
    rotation_deg: float = 0.0

    def __str__(self) -> str:
        """The canonical text: `parse_grid` gives the same value again."""
        x, y = (_shortest(one) for one in self.crpix)
        place = f"{_degrees(self.ra_deg)} {_degrees(self.dec_deg)}"
        size = f"{self.columns}x{self.rows}"
        return f"{self.projection} {place} {_shortest(self.scale_arcsec)} {size} {x},{y} {_shortest(self.rotation_deg)}"

    def grid(self) -> Grid:
        """The grid. Raises BadValue for what no grid can be."""
        from .grid import Grid
        from .projection import Projection
        from .wcs import Wcs

        step, angle = self.scale_arcsec / ARCSEC_PER_DEG, math.radians(self.rotation_deg % 360)
        sine, cosine = (0.0 if abs(one) < ROUNDING else one for one in (math.sin(angle), math.cos(angle)))
        matrix = -step * cosine, step * sine, step * sine, step * cosine
        try:
            projection = Projection(*read_word(self.projection))
            pole = _pole(projection, self.dec_deg)
            wcs = Wcs((self.ra_deg, self.dec_deg), self.crpix, matrix, projection, lonpole_deg=pole)
        except BadHeader as error:
            raise BadValue(f"the grid {self}: {error.message}") from None
        return Grid(wcs, (self.rows, self.columns))


def _pole(projection: Projection, dec_deg: float) -> float:
    """The native longitude of the celestial pole with which north is up."""
    return 180.0 if projection.zenithal or dec_deg < projection.native_dec_deg else 0.0


def parse_grid(text: str) -> GridText:
    """What a text of a grid says. RA and Dec in degrees, or as 13:29:53 (RA in hours); at the end X,Y and
    ROTATION may be left out: the middle, 0. Raises BadValue, saying which word is wrong.
    """
    words = text.split()
    if not 5 <= len(words) <= 7:
        raise _wrong(text, f"it has {len(words)} words")
    try:
        projection = word_of(*read_word(words[0]))
    except BadValue as error:
        raise BadValue(f"the grid {text!r:.120}: {error.message}", hint=error.hint) from None
    ra, dec = angle_deg(words[1], "ra"), angle_deg(words[2])
    scale = _number(words[3])
    if ra is None or dec is None or not abs(dec) <= 90 or not math.isfinite(ra):
        raise _wrong(text, f"{words[1]} {words[2]} is no place on the sky")
    if scale is None or not 1e-4 <= scale <= 36_000:
        raise _wrong(text, f"{words[3]!r:.30} is no scale in arcsec")
    columns, rows = size_of(words[4], text)
    middle = 0.5 * (columns + 1), 0.5 * (rows + 1)
    crpix = _pair(words[5], text) if len(words) > 5 else middle
    rotation = _number(words[6]) if len(words) > 6 else 0.0
    if rotation is None:
        raise _wrong(text, f"{words[6]!r:.30} is no rotation in degrees")
    ra, dec = round(ra % 360, DECIMALS) % 360, round(dec, DECIMALS)
    made = GridText(projection, ra, dec, scale, columns, rows, crpix, rotation % 360)
    made.grid()
    return made


def text_of_grid(grid: Grid) -> GridText:
    """The text of a grid that has one: ICRS, square pixels, sky as it is seen, no distortion. Raises BadValue."""
    wcs = grid.wcs
    a, b, c, d = wcs.matrix
    step = math.hypot(b, d)
    same = abs(a + d) <= 1e-9 * step and abs(b - c) <= 1e-9 * step
    turned = wcs.lonpole_deg != _pole(wcs.projection, wcs.crval_deg[1]) or wcs.latpole_deg != 90
    if not same or turned or wcs.distortion is not None:
        raise BadValue(
            f"a grid around RA {wcs.crval_deg[0]:.4f} Dec {wcs.crval_deg[1]:.4f} that no text can say"
        )
    refuse_other_sky(wcs)
    scale = float(f"{step * ARCSEC_PER_DEG:.12g}")
    rotation = float(f"{math.degrees(math.atan2(b, d)) % 360:.10g}") % 360
    rows, columns = grid.shape
    ra, dec = wcs.crval_deg
    projection = word_of(wcs.projection.code, wcs.projection.parameters)
    return GridText(projection, ra, dec, scale, columns, rows, wcs.crpix, rotation)


def part_of(text: GridText, window: Window) -> GridText:
    """These rows and columns of a grid."""
    from dataclasses import replace

    (y0, y1), (x0, x1) = window
    crpix = text.crpix[0] - x0, text.crpix[1] - y0
    return replace(text, columns=x1 - x0, rows=y1 - y0, crpix=crpix)


def fitted(
    frames: list[tuple[Wcs, tuple[int, int]]],
    scale_arcsec: float | None = None,
    projection: str = "TAN",
    margin_px: int = 0,
) -> GridText:
    """The grid around frames, north up; the scale, if it is the frames' own, to four digits. As `grid.fit_grid`."""
    from statistics import median

    from .grid import fit_grid

    for wcs, _ in frames:
        refuse_other_sky(wcs)
    if scale_arcsec is None and frames:
        scale_arcsec = float(f"{median(wcs.pixel_scale_arcsec for wcs, _ in frames):.4g}")
    grid = fit_grid(frames, scale_arcsec, projection, margin_px)
    return text_of_grid(grid)


def refuse_other_sky(wcs: Wcs) -> None:
    """Raise BadHeader for coordinates that are not those of grids: of another equinox, galactic and so on."""
    old = wcs.equinox is not None and abs(wcs.equinox - 2000) > 0.01 and wcs.radesys != "ICRS"
    if old or wcs.radesys.upper() not in ("ICRS", "FK5", ""):
        of = f" of equinox {wcs.equinox:g}" if wcs.equinox else ""
        raise BadHeader(
            f"its coordinates are {wcs.radesys}{of}, and grids are ICRS: nothing is converted",
            hint="awe-astrom finds them anew",
        )


def size_of(word: str, text: str = "") -> tuple[int, int]:
    """Columns and rows of 4096x2048, or of 4096 for a square. Raises BadValue."""
    found = _SIZE.fullmatch(word.strip())
    if not found or not int(found[1]) or not int(found[2] or 1):
        raise _wrong(text or word, f"{word!r:.30} is no size in pixels")
    return int(found[1]), int(found[2] or found[1])


def _pair(word: str, text: str) -> tuple[float, float]:
    numbers = [_number(one) for one in word.split(",")]
    if len(numbers) != 2 or numbers[0] is None or numbers[1] is None:
        raise _wrong(text, f"{word!r:.30} is no pixel")
    return numbers[0], numbers[1]


def _number(word: str) -> float | None:
    if not _NUMBER.fullmatch(word.strip()):
        return None
    number = float(word)
    return number if math.isfinite(number) else None


def _wrong(text: str, why: str) -> BadValue:
    return BadValue(f"the grid {text!r:.120}: {why}: not {FORM}", hint=f"for example '{EXAMPLE}'")


def _degrees(value: float) -> str:
    """Six decimals, or as many as it takes."""
    text = f"{value:.6f}"
    return text if float(text) == value else _shortest(value)


def _shortest(value: float) -> str:
    text = repr(value + 0.0)
    return text.removesuffix(".0")
