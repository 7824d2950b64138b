"""Any file as one image to look at or measure: a raw frame (trimmed), or a plane of a product."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from .batch import open_sources
from .errors import NoImage, NoSuchExtension
from .files import Address
from .fits import open_fits
from .kinds.common import trim
from .planning.filling import Source
from .products import ProductInput, load_product
from .raws import RawInput, raw_frame_of
from .sections import parse_section
from .workspace import Workspace


@dataclass(frozen=True)
class Image:
    """An image (ny, nx), which of its pixels are good (None: all), its mask if it has one, and what it was read of."""

    name: str
    plane: str
    data: np.ndarray
    good: np.ndarray | None
    mask: np.ndarray | None = None
    source: Source | None = None


def load_images(address: Address, workspace: Workspace, plane: str | None, overscan: bool) -> Iterator[Image]:
    """The images at an address: each detector of a raw frame, trimmed; the plane of a product, or its first.

    overscan: subtract the overscan of raw frames, so that amplifiers stand at
    one level. Raises NoImage, NoSuchExtension.
    """
    for source in open_sources(address, workspace):
        if isinstance(source, RawInput):
            if plane is not None:
                raise NoSuchExtension(f"{source.address}: a raw frame has no plane {plane!r}")
            yield replace(_raw_image(source, overscan), source=source)
        else:
            yield replace(_product_image(source, plane), source=source)


def region_of(image: Image, region: str | None) -> Image:
    """The part of an image that a FITS section such as [101:200,1:50] names; all of it for None."""
    if region is None:
        return image
    ny, nx = image.data.shape
    part = parse_section(region, (nx, ny))
    if not (0 <= part.x0 < part.x1 <= nx and 0 <= part.y0 < part.y1 <= ny):
        raise NoImage(f"{image.name}: region {region} is not inside the image of {nx} x {ny} pixels")
    box = (slice(part.y0, part.y1), slice(part.x0, part.x1))
    good = None if image.good is None else image.good[box]
    mask = None if image.mask is None else image.mask[box]
    return replace(image, data=image.data[box], good=good, mask=mask)


def _raw_image(raw: RawInput, overscan: bool) -> Image:
    with raw.open() as fits:
        frame = raw_frame_of(raw, fits)
        mode = str(raw.meta.get("overscan_mode") or "none") if overscan else "none"
        data = trim(frame, mode).image()
    finite = np.isfinite(data)
    return Image(str(raw.address), "RAW", data, None if finite.all() else finite)


def _product_image(product: ProductInput, plane: str | None) -> Image:
    with open_fits(product.path) as fits:
        named = {hdu.name: hdu.index for hdu in fits.hdus if hdu.is_image}
        if plane is not None and plane not in named:
            raise NoSuchExtension(f"{product.path}: no plane {plane!r}; there are: {', '.join(named)}")
        first = next(iter(named), None)
        if plane not in (None, first):
            return Image(str(product.path), plane, fits.image(named[plane]), None)
    if first is None:
        raise NoImage(f"{product.path}: is a table ({product.kind}), not an image", hint="awe-query reduced")
    frame = load_product(product)
    weight, mask = getattr(frame, "weight", None), getattr(frame, "mask", None)
    return Image(str(product.path), first, frame.data, None if weight is None else weight > 0, mask)  # type: ignore[union-attr]
