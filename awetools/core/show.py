"""What is drawn over an image: its sources, reference stars, matched pairs, a compass and a bar of the scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .canvas import (
    Colour,
    Picture,
    draw_crosses,
    draw_ellipses,
    draw_lines,
    draw_text,
    text_width,
)
from .ellipses import kron_ellipses
from .errors import BadHeader, NoRecord, UsageError, WrongKind
from .meta import on_grid
from .planning.filling import Source
from .products import ProductInput, load_product, open_product
from .quality import unfit_for_use
from .store import Store

if TYPE_CHECKING:
    from .sky.refcat import Catalogue
    from .sky.wcs import Wcs

Doubles = npt.NDArray[np.float64]
Columns = Mapping[str, npt.NDArray[Any]]

GREEN: Colour = (64, 255, 96)
# Of sources: the first of these flags that a source has tells its colour.
BY_FLAG: tuple[tuple[int, Colour], ...] = (
    (4, (255, 64, 64)),
    (8 | 16 | 64, (80, 160, 255)),
    (1 | 2 | 4096, (255, 220, 0)),
    (~0, (255, 140, 0)),
)
REFERENCE: Colour = (0, 230, 255)
MATCHED: Colour = (255, 255, 255)
CLIPPED: Colour = (255, 64, 255)
LETTERS: Colour = (255, 255, 255)
SHADE: Colour = (0, 0, 0)
# Of a dense catalogue the brightest are shown.
MOST_REFERENCE = 3000
# Sizes in parts of the picture's longer side.
ARM_PART, COMPASS_PART, BAR_PART, MARGIN_PART = 0.009, 0.06, 0.2, 0.03
# Labels of more things than that hide the image.
MOST_LABELS = 2000


@dataclass(frozen=True)
class View:
    """Where pixels of a trimmed image lie in the picture: the first pixel shown (0-based), its rows, and the scale.

    scale: pixels of the picture a pixel of the image.
    """

    x0: int
    y0: int
    rows: int
    scale: float

    def place(self, x: Doubles, y: Doubles) -> tuple[Doubles, Doubles]:
        """FITS pixels as places in the picture, right and down from its upper left corner."""
        right = (np.asarray(x, np.float64) - 0.5 - self.x0) * self.scale
        up = (np.asarray(y, np.float64) - 0.5 - self.y0) * self.scale
        return right, self.rows * self.scale - up


@dataclass
class Drawn:
    """What was drawn, for those who ask: files by role, and how many of each thing are in the picture."""

    files: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def newest_of(source: Source, kind: str, stores: Sequence[Store]) -> ProductInput | None:
    """The product of a kind that belongs to an image: made of it, else of its exposure and detector; the newest.

    Those that are flagged or judged bad are passed over. None where there is none.
    """
    from .indexing.index import absolute
    from .indexing.inforce import rows_in_force

    where = "kind = ? AND instrument IS ? AND detector IS ? AND exposure IS ?"
    meta = source.meta
    asked = (kind, *(meta.get(name) for name in ("instrument", "detector", "exposure")))
    found = [
        (Path(absolute(stores[rank], row["address"])), row)
        for rank, row in rows_in_force(stores, where, asked)
        if not unfit_for_use(row["flags"], row["verdict"])
    ]
    there = [(path, row) for path, row in found if path.exists()]
    if not there:
        return None
    own = [one for one in there if _is_made_of(one[0], source)]
    # Without an exposure, a coadd for example, or on a sky grid only what was made of it belongs to it.
    if not own and (not meta.get("exposure") or on_grid(meta)):
        return None
    path, _ = max(own or there, key=lambda one: (one[1]["sequence"] or 0, str(one[1]["made"])))
    return open_product(path)


def _is_made_of(path: Path, source: Source) -> bool:
    from .record import read_record, sidecar

    try:
        inputs = read_record(sidecar(path))["recipe"]["inputs"]
    except NoRecord:
        return False
    return any(one["content"] == source.content for one in inputs)


def table_of(product: ProductInput, needed: Sequence[str], what: str) -> Columns:
    """The columns of a product's table; raises WrongKind where it has not those that are needed."""
    from .frame import Table

    table = load_product(product)
    columns = table.columns if isinstance(table, Table) else {}
    missing = [name for name in needed if name not in columns]
    if missing:
        raise WrongKind(f"{product.path}: a {product.kind} without {', '.join(missing)}: no {what}")
    return columns


def parameters_of(product: ProductInput) -> dict[str, Any]:
    """The parameters that a product was made with, as its record has them."""
    listed = product.record["recipe"]["parameters"]
    return {name: one["value"] if isinstance(one, dict) else one for name, one in listed.items()}


def wcs_of(meta: Mapping[str, Any], name: str) -> Wcs | None:
    """The coordinate system that a record's meta holds; None where there is none, or none that can be read."""
    from .sky.readwcs import read_wcs

    cards = meta.get("wcs")
    try:
        return read_wcs(cards) if cards else None
    except BadHeader as error:
        raise BadHeader(f"{name}: {error.message}", hint=error.hint) from None


def cut_at(x: float, y: float, box: int, size: tuple[int, int]) -> str:
    """The FITS section of a square of so many pixels about a place, inside an image (nx, ny). Raises UsageError."""
    parts = []
    for value, length, name in ((x, size[0], "x"), (y, size[1], "y")):
        if not 0.5 <= value < length + 0.5:
            raise UsageError(f"{name} = {value:g} is outside of the image of {size[0]} x {size[1]} pixels")
        first = max(1, math.floor(value + 0.5) - box // 2)
        parts.append(f"{first}:{min(length, first + box - 1)}")
    return f"[{','.join(parts)}]"


# Layers


def draw_sources(
    picture: Picture, view: View, columns: Columns, parameters: Mapping[str, Any], label: bool
) -> int:
    """The Kron ellipses of sources, coloured by flag; returns how many are in the picture."""
    x, y = view.place(columns["X_PX"], columns["Y_PX"])
    found = kron_ellipses(columns, parameters)
    colours = flag_colours(np.asarray(columns.get("FLAGS", np.zeros(len(x), np.int64))))
    width = line_width(picture)
    a, b = (np.maximum(one * view.scale, 2.0) for one in (found.a_px, found.b_px))
    draw_ellipses(picture, x, y, a, b, found.theta_deg, colours, width)
    inside = _inside(picture, x, y)
    numbers = columns.get("NUMBER")
    if label and numbers is not None:
        _labels(picture, x, y, [str(one) for one in numbers], colours, inside, a)
    return int(inside.sum())


def flag_colours(flags: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """A colour a source, (n, 3): green without flags; see BY_FLAG."""
    colours = np.tile(np.array(GREEN, np.uint8), (len(flags), 1))
    for bits, colour in reversed(BY_FLAG):
        colours[(flags & bits) != 0] = colour
    return colours


def draw_reference(
    picture: Picture,
    view: View,
    catalogue: Catalogue,
    wcs: Wcs,
    size: tuple[int, int],
    epoch_yr: float | None,
    label: bool,
    drawn: Drawn,
) -> None:
    """Crosses at the stars of a catalogue, at the epoch of the image; the brightest where they are many."""
    nx, ny = size
    ra, dec = wcs.to_sky((nx + 1) / 2, (ny + 1) / 2)
    if not np.isfinite(ra):
        raise BadHeader("the coordinate system (WCS) does not say where the image is")
    corners = wcs.to_sky(np.array([0.5, nx + 0.5, 0.5, nx + 0.5]), np.array([0.5, 0.5, ny + 0.5, ny + 0.5]))
    from .sky.sphere import separation_arcsec

    away = separation_arcsec(ra, dec, *corners) / 3600
    radius = float(np.nanmax(away)) if np.isfinite(away).any() else 1.0
    stars = catalogue.cone(float(ra), float(dec), min(radius * 1.05, 90.0), epoch_yr=epoch_yr)
    x, y = view.place(*wcs.to_pixel(stars["ra_deg"], stars["dec_deg"]))
    inside = _inside(picture, x, y)
    mag = _first_magnitude(stars, catalogue.bands)
    chosen = np.flatnonzero(inside)
    chosen = chosen[np.argsort(np.nan_to_num(mag[chosen], nan=99.0), kind="stable")][:MOST_REFERENCE]
    if len(chosen) < inside.sum():
        drawn.notes.append(f"the {len(chosen)} brightest of {int(inside.sum())} reference stars are shown")
    arm = max(4.0, ARM_PART * max(picture.shape[:2]))
    draw_crosses(picture, x[chosen], y[chosen], arm, REFERENCE, line_width(picture))
    drawn.counts["reference"] = len(chosen)
    if label:
        texts = [f"{one:.1f}" if np.isfinite(one) else "" for one in mag]
        shown = np.zeros(len(x), np.bool_)
        shown[chosen] = True
        colours = np.tile(np.array(REFERENCE, np.uint8), (len(x), 1))
        _labels(picture, x, y, texts, colours, shown, np.full(len(x), arm), below=True)


def _first_magnitude(stars: Mapping[str, npt.NDArray[Any]], bands: Sequence[str]) -> Doubles:
    if not bands:
        return np.full(len(stars["ra_deg"]), np.nan)
    return np.asarray(stars[f"mag_{bands[0]}"], np.float64)


def draw_pairs(picture: Picture, view: View, columns: Columns, wcs: Wcs | None) -> int:
    """Squares about the stars of a solution, a line to where the catalogue has them; magenta where clipped."""
    x, y = view.place(columns["X_PX"], columns["Y_PX"])
    used = np.asarray(columns.get("USED", np.ones(len(x)))) > 0
    colours = np.where(used[:, None], np.array(MATCHED, np.uint8), np.array(CLIPPED, np.uint8))
    half = max(4.0, 1.2 * ARM_PART * max(picture.shape[:2]))
    width = line_width(picture)
    corners = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    for (ax, ay), (bx, by) in zip(corners, (*corners[1:], corners[0]), strict=True):
        ends = (x + ax * half, y + ay * half, x + bx * half, y + by * half)
        draw_lines(picture, *ends, colours, width)
    if wcs is not None and "RA_REF_DEG" in columns:
        there = view.place(*wcs.to_pixel(columns["RA_REF_DEG"], columns["DEC_REF_DEG"]))
        draw_lines(picture, x, y, *there, colours, width)
    return int(_inside(picture, x, y).sum())


def draw_compass(picture: Picture, view: View, wcs: Wcs) -> None:
    """Arrows to the north and east at the lower left, and a bar of a round length at the lower right."""
    ny, nx = picture.shape[:2]
    side, width = max(nx, ny), line_width(picture) + 1
    middle_x = view.x0 + 0.5 + nx / 2 / view.scale
    middle_y = view.y0 + 0.5 + ny / 2 / view.scale
    jacobian = wcs.jacobian(middle_x, middle_y) * 3600
    if not np.isfinite(jacobian).all():
        return
    margin, length = MARGIN_PART * side, COMPASS_PART * side
    at = np.array([margin + 1.6 * length, ny - margin - 1.6 * length])
    letter = letter_size(picture)
    for direction, name in ((np.array([0.0, 1.0]), "N"), (np.array([1.0, 0.0]), "E")):
        step = np.linalg.solve(jacobian, direction)
        step = step / np.hypot(*step) * (1.0, -1.0)
        tip = at + length * step
        _line(picture, at, tip, width)
        for turn in (0.4, -0.4):
            back = -0.28 * length * step
            cosine, sine = math.cos(turn), math.sin(turn)
            barb = np.array([back[0] * cosine - back[1] * sine, back[0] * sine + back[1] * cosine])
            _line(picture, tip, tip + barb, width)
        centre = at + 1.35 * length * step
        left = centre[0] - text_width(name, letter) / 2
        _shaded_text(picture, left, centre[1] - 2.5 * letter, name, letter)
    scale_arcsec = math.sqrt(abs(float(np.linalg.det(jacobian))))
    bar, text = round_length(BAR_PART * side * scale_arcsec / view.scale)
    pixels = bar / scale_arcsec * view.scale
    right, low = nx - margin, ny - margin
    _line(picture, np.array([right - pixels, low]), np.array([right, low]), width + 1)
    place = right - pixels / 2 - text_width(text, letter) / 2
    _shaded_text(picture, place, low - 7 * letter - width, text, letter)


def round_length(most_arcsec: float) -> tuple[float, str]:
    """The longest round length up to a length, arcsec, and its name in seconds, minutes or degrees of arc."""
    units = ((3600.0, "deg"), (60.0, "'"), (1.0, '"'))
    unit, sign = next((one for one in units if most_arcsec >= one[0]), units[-1])
    decade = 10.0 ** math.floor(math.log10(most_arcsec / unit))
    rounds = [one * decade for one in (1.0, 2.0, 3.0, 5.0) if one * decade * unit <= most_arcsec]
    value = rounds[-1]
    return value * unit, f"{value:g}{sign}"


def line_width(picture: Picture) -> int:
    """How broad lines are: more on large pictures."""
    return max(1, round(float(max(picture.shape[:2])) / 1200))


def letter_size(picture: Picture) -> int:
    """How large the squares of letters are."""
    return max(2, round(float(max(picture.shape[:2])) / 450))


def _line(picture: Picture, start: Doubles, end: Doubles, width: int) -> None:
    x0, y0, x1, y1 = (np.array([one], np.float64) for one in (*start, *end))
    draw_lines(picture, x0, y0, x1, y1, SHADE, width + 2)
    draw_lines(picture, x0, y0, x1, y1, LETTERS, width)


def _shaded_text(picture: Picture, x: float, y: float, text: str, size: int) -> None:
    for right, down in ((1, 1), (-1, -1), (1, -1), (-1, 1)):
        draw_text(picture, x + right, y + down, text, SHADE, size)
    draw_text(picture, x, y, text, LETTERS, size)


def _labels(
    picture: Picture,
    x: Doubles,
    y: Doubles,
    texts: Sequence[str],
    colours: npt.NDArray[Any],
    shown: npt.NDArray[np.bool_],
    beside: Doubles,
    below: bool = False,
) -> None:
    """Texts at the upper or lower right of things; the first ones where they are many."""
    size = letter_size(picture)
    down = 0.75 * beside if below else -0.75 * beside - 5 * size
    for row in np.flatnonzero(shown)[:MOST_LABELS]:
        red, green, blue = (int(one) for one in colours[row])
        at = x[row] + 0.75 * beside[row] + 2, y[row] + down[row]
        draw_text(picture, *at, texts[row], (red, green, blue), size)


def _inside(picture: Picture, x: Doubles, y: Doubles) -> npt.NDArray[np.bool_]:
    ny, nx = picture.shape[:2]
    with np.errstate(invalid="ignore"):
        inside: npt.NDArray[np.bool_] = (x >= 0) & (y >= 0) & (x < nx) & (y < ny)
    return inside
