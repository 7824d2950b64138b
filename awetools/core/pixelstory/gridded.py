"""Pixels on a grid of the sky: which frames are there, where in each, what entered, and the value made again."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..errors import AweError
from ..record import Record
from .coadded import coadded
from .gridframes import Gridded, Part, Resolve
from .gridvalues import not_done
from .regridded import regridded
from .values import Pixel

GRIDDED: Mapping[str, Callable[[Pixel, Record, Resolve], Gridded]] = {"coadd": coadded, "regrid": regridded}


def gridded(pixel: Pixel, record: Record, resolve: Resolve) -> Gridded:
    """What a pixel of a coadd or a regridded frame was made of."""
    try:
        return GRIDDED[pixel.node.kind](pixel, record, resolve)
    except AweError as error:
        parts = tuple(Part(one, resolve(one)) for one in pixel.node.inputs)
        return Gridded(parts, not_done(error.message))
