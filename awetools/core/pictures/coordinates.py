"""Which coordinate system an image has now: that of its newest solution, or its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import BadHeader
from ..fitsheader import HeaderValue
from ..sky.readwcs import read_wcs
from ..store import Store, store_of

if TYPE_CHECKING:
    from ..products import ProductInput
    from ..sky.wcs import Wcs


def cards_of(product: ProductInput, stores: Sequence[Store]) -> Mapping[str, HeaderValue]:
    """The cards of a product's coordinate system; {} if there is none.

    Of a reduced frame those of the newest solution of its exposure and detector (awe-astrom), as awe-show
    finds it: none has its own. stores: where to look, besides the one that the product lies in.
    """
    from ..show import newest_of

    if product.kind == "reduced":
        own = store_of(product.path)
        there = list(dict.fromkeys([*stores, *([own] if own else [])]))
        solution = newest_of(product, "astrom", there)
        if solution is not None and solution.meta.get("wcs"):
            found: Mapping[str, HeaderValue] = solution.meta["wcs"]
            return found
    return product.meta.get("wcs") or {}


def system_of(cards: Mapping[str, HeaderValue], name: str) -> Wcs:
    """The coordinate system of cards. Raises BadHeader, with the name of the image, where there is none."""
    if not cards:
        raise BadHeader(f"{name}: it has no coordinate system (WCS)", hint="awe-astrom makes one")
    try:
        return read_wcs(cards)
    except BadHeader as error:
        raise BadHeader(f"{name}: {error.message}", hint=error.hint) from None


def shifted(cards: Mapping[str, HeaderValue], x0: int, y0: int) -> dict[str, HeaderValue]:
    """The cards for the part of an image that begins with another pixel (counted from 0)."""
    moved = dict(cards)
    for key, by in (("CRPIX1", -x0), ("CRPIX2", -y0), ("CNPIX1", x0), ("CNPIX2", y0)):
        value = moved.get(key)
        if isinstance(value, int | float):
            moved[key] = value + by
    return moved
