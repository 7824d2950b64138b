"""Parts of images about positions on the sky: whole pixels as they are, all planes, the coordinates moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..copies import write_copy
from ..errors import NoImage
from ..export import OF_PRODUCTS, flux_cards, open_exported
from ..fits import CardTuple, FitsFile, Plane, open_fits
from ..fitsheader import COMMENTARY, HeaderValue, wcs_cards
from ..pixels.mask import Bit
from ..products import ProductInput
from ..sky.sphere import separation_arcsec
from ..sky.wcs import Wcs
from ..store import Store
from .coordinates import cards_of, shifted, system_of
from .positions import Positions

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]

MAKER = "awe-cutout"
# Rows that are read together, of all planes.
READ_AT_ONCE_BYTES = 1 << 26
# Points along an image that tell how far it reaches.
ALONG = 9


@dataclass(frozen=True)
class Cuttable:
    """An image that parts can be cut out of: its product, planes (names and HDUs), shape, coordinates and cards."""

    product: ProductInput
    planes: Mapping[str, int]
    shape: tuple[int, int]
    wcs: Wcs
    wcs_cards: Mapping[str, HeaderValue]
    cards: Mapping[str, Sequence[CardTuple]]

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.product.path


@dataclass(frozen=True)
class Cut:
    """A part of an image about position number `position`: its planes, and its first pixel (counted from 0)."""

    position: int
    x0: int
    y0: int
    planes: Mapping[str, Array]

    @property
    def section(self) -> str:
        """Which pixels of the image it has, as a FITS section; beyond it where the part was padded."""
        ny, nx = next(iter(self.planes.values())).shape
        return f"[{self.x0 + 1}:{self.x0 + nx},{self.y0 + 1}:{self.y0 + ny}]"


def open_cuttable(path: Path, stores: Sequence[Store] = ()) -> Cuttable:
    """A product as an image to cut; raises WrongKind, NoImage, BadHeader (no coordinates), as opening it does.

    Planes of another shape than the first, and tables, are not cut.
    """
    product = open_exported(path)
    with open_fits(path) as fits:
        images = [hdu for hdu in fits.hdus if hdu.is_image and len(hdu.shape) == 2]
        if not images:
            raise NoImage(f"{path}: a {product.kind} is a table, not an image")
        shape = images[0].shape[0], images[0].shape[1]
        same = {hdu.name or f"HDU{hdu.index}": hdu for hdu in images if hdu.shape == shape}
        cards = {name: _kept_cards(hdu.header) for name, hdu in same.items()}
    coordinates = cards_of(product, stores)
    planes = {name: hdu.index for name, hdu in same.items()}
    return Cuttable(product, planes, shape, system_of(coordinates, str(path)), coordinates, cards)


def _kept_cards(header: Any) -> list[CardTuple]:
    left_out = {*wcs_cards(header), *OF_PRODUCTS, *COMMENTARY, "EXTNAME"}
    return [(card.key, card.value, card.comment) for card in header.cards if card.key not in left_out]


def boxes_on(image: Cuttable, positions: Positions) -> tuple[Ints, Ints]:
    """Which positions have pixels in an image, and x0, y0, x1, y1 of each (n, 4), half open, counted from 0.

    The square of so many whole pixels whose middle is nearest to the position; it may reach beyond
    the image. A size on the sky becomes pixels by the scale at the position. Sorted by rows.
    """
    near = _near(image, positions)
    x, y = image.wcs.to_pixel(positions.ra_deg[near], positions.dec_deg[near])
    known = np.isfinite(x) & np.isfinite(y) & (np.abs(x) < 1e9) & (np.abs(y) < 1e9)
    near, x, y = near[known], x[known], y[known]
    scale_arcsec = np.sqrt(image.wcs.pixel_area_arcsec2(x, y))
    with np.errstate(invalid="ignore", divide="ignore"):
        side = np.where(
            np.isfinite(positions.size_px[near]),
            positions.size_px[near],
            positions.size_arcsec[near] / scale_arcsec,
        )
    usable = np.isfinite(side) & (side < 1e9)
    near, x, y = near[usable], x[usable], y[usable]
    count = np.maximum(np.rint(side[usable]), 1).astype(np.int64)
    x0, y0 = (np.floor(one - count / 2).astype(np.int64) for one in (x, y))
    boxes = np.stack([x0, y0, x0 + count, y0 + count], axis=1)
    ny, nx = image.shape
    inside = (boxes[:, 0] < nx) & (boxes[:, 1] < ny) & (boxes[:, 2] > 0) & (boxes[:, 3] > 0)
    order = np.lexsort((boxes[:, 0], boxes[:, 1]))
    order = order[inside[order]]
    return near[order], boxes[order]


def _near(image: Cuttable, positions: Positions) -> Ints:
    """The positions that may be in an image: a distortion leads places far away anywhere."""
    ny, nx = image.shape
    ra, dec = image.wcs.to_sky((nx + 1) / 2, (ny + 1) / 2)
    x, y = np.meshgrid(np.linspace(0.5, nx + 0.5, ALONG), np.linspace(0.5, ny + 0.5, ALONG))
    edge_ra, edge_dec = image.wcs.to_sky(x, y)
    if not (np.isfinite(ra) and np.isfinite(edge_ra).all()):
        # A part of it is not on the sky, as of an image of all of it.
        return np.arange(len(positions.names), dtype=np.int64)
    radius = 1.1 * float(separation_arcsec(ra, dec, edge_ra, edge_dec).max())
    sizes = np.where(
        np.isfinite(positions.size_px),
        positions.size_px * image.wcs.pixel_scale_arcsec,
        positions.size_arcsec,
    )
    away = separation_arcsec(ra, dec, positions.ra_deg, positions.dec_deg)
    return np.asarray(np.flatnonzero(away <= radius + sizes), np.int64)


def cuts(image: Cuttable, which: Ints, boxes: Ints, pad: bool = False) -> Iterator[Cut]:
    """The parts of an image in boxes of `boxes_on`, which the file is read for once, by its rows.

    Without `pad` they end at the edge; with it they have the whole size, and beyond the edge 0, in
    the mask `outside`. A part where no pixel has a weight is left out.
    """
    with open_fits(image.path, spool=True) as fits:
        for rows in _together(image, boxes):
            yield from _cut_together(fits, image, which[rows], boxes[rows], pad)


def _together(image: Cuttable, boxes: Ints) -> Iterator[slice]:
    """Boxes, sorted by their first rows, whose rows are read at once."""
    ny, nx = image.shape
    most = max(1, READ_AT_ONCE_BYTES // (nx * 4 * len(image.planes)))
    start = 0
    while start < len(boxes):
        first, last = max(int(boxes[start, 1]), 0), min(int(boxes[start, 3]), ny)
        end = start + 1
        while end < len(boxes):
            bottom, top = int(boxes[end, 1]), min(int(boxes[end, 3]), ny)
            if bottom > last or max(last, top) - first > most:
                break
            last = max(last, top)
            end += 1
        yield slice(start, end)
        start = end


def _cut_together(fits: FitsFile, image: Cuttable, which: Ints, boxes: Ints, pad: bool) -> Iterator[Cut]:
    ny, nx = image.shape
    left, bottom = (max(int(boxes[:, axis].min()), 0) for axis in (0, 1))
    right, top = min(int(boxes[:, 2].max()), nx), min(int(boxes[:, 3].max()), ny)
    read = {name: fits.rows(index, bottom, top, left, right) for name, index in image.planes.items()}
    for position, (x0, y0, x1, y1) in zip(which.tolist(), boxes.tolist(), strict=True):
        ys, xs = (
            slice(max(y0, 0) - bottom, min(y1, ny) - bottom),
            slice(max(x0, 0) - left, min(x1, nx) - left),
        )
        planes = {name: values[ys, xs] for name, values in read.items()}
        if "WEIGHT" in planes and not (planes["WEIGHT"] > 0).any():
            continue
        if pad and (x0 < 0 or y0 < 0 or x1 > nx or y1 > ny):
            at = max(0, -y0), max(0, -x0)
            planes = {name: _padded(name, one, (y1 - y0, x1 - x0), at) for name, one in planes.items()}
            yield Cut(position, x0, y0, planes)
        else:
            yield Cut(position, max(x0, 0), max(y0, 0), planes)


def _padded(name: str, values: Array, shape: tuple[int, int], at: tuple[int, int]) -> Array:
    made = np.full(shape, int(Bit.OUTSIDE) if name == "MASK" else 0, values.dtype)
    made[at[0] : at[0] + values.shape[0], at[1] : at[1] + values.shape[1]] = values
    return made


def write_cut(image: Cuttable, cut: Cut, target: Path, name: str, force: bool = False) -> None:
    """Write a part as a copy: each plane has the coordinates; AWEKEY and AWECUT say which pixels of what it is.

    Raises WouldOverwrite, UsageError, Unavailable.
    """
    wcs: list[CardTuple] = [
        (key, value, "") for key, value in shifted(image.wcs_cards, cut.x0, cut.y0).items()
    ]
    (first, data), *others = cut.planes.items()
    of: list[CardTuple] = [
        ("AWEFROM", image.product.kind, "kind of product that this is a part of"),
        ("AWEKEY", image.product.key, ""),
        ("AWECUT", cut.section, "its pixels"),
        ("AWEPOS", name, "position that this part is about"),
        ("HISTORY", f"{MAKER} of {image.product.kind} {image.path.name}, key {image.product.key}", ""),
    ]
    planes = [Plane(key, np.ascontiguousarray(one), cards=[*image.cards[key], *wcs]) for key, one in others]
    cards = [*image.cards[first], *flux_cards(image.product), *wcs, *of]
    write_copy(target, [Plane(first, np.ascontiguousarray(data)), *planes], cards, MAKER, force)
