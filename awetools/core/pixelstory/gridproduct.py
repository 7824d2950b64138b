"""What the file of a product on a grid says of itself: its grid, its kernel, its tables of frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import BadHeader
from ..fits import open_fits
from ..sky.grid import Grid, grid_of_cards
from ..tracing.lineage import Node
from .values import THERE


def grid_of_product(node: Node) -> Grid:
    """The grid of a product's pixels, as its record says it."""
    cards = node.meta.get("wcs")
    if not cards:
        raise BadHeader(f"{node.path}: its record has no coordinate system")
    return grid_of_cards({"NAXIS1": node.meta.get("nx"), "NAXIS2": node.meta.get("ny"), **cards})


@dataclass(frozen=True, eq=False)
class ProductTables:
    """What the file of a product says of itself: kernel, rows of FRAMES, and frames clipped at the pixel."""

    kernel: str = ""
    rows: Sequence[Mapping[str, Any]] = ()
    clipped: frozenset[int] = frozenset()


def tables_of(node: Node, x: int, y: int) -> ProductTables | None:
    """The tables of a product; None where its file is gone."""
    if node.state not in THERE:
        return None
    with open_fits(node.path) as fits:
        kernel = str(fits.hdus[0].header.get("KERNEL") or "")
        tables = {hdu.name: hdu.index for hdu in fits.hdus if hdu.is_table}
        if "FRAMES" not in tables:
            return ProductTables(kernel)
        columns = {name: column.tolist() for name, column in fits.table(tables["FRAMES"]).items()}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        clipped = fits.table(tables["CLIPPED"]) if "CLIPPED" in tables else {}
    if not clipped:
        return ProductTables(kernel, rows)
    here = (clipped["Y"] == y) & (clipped["X"] == x)
    return ProductTables(kernel, rows, frozenset(clipped["FRAME"][here].tolist()))
