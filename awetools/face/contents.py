"""The pixels, header and table of a file, as astronomers' packages have them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import NoImage
from ..core.files import parse_address
from ..core.products import is_product, open_product

if TYPE_CHECKING:
    import numpy as np
    from astropy.io.fits import Header
    from astropy.table import Table


def pixels(path: str) -> np.ndarray:
    """The image of a product, or of a raw frame (trimmed, as it was read out). Raises NoImage, Integrity."""
    from ..core.images import load_images
    from ..core.workspace import here

    address = parse_address(path)
    if is_product(address.path):
        return _images(address.path, None)
    return next(load_images(address, here(), None, overscan=False)).data


def plane(path: str, name: str) -> np.ndarray | None:
    """A plane of a product, or None where it has none (a raw frame has none)."""
    file = parse_address(path).path
    return _images(file, name) if is_product(file) else None


def _images(path: Path, name: str | None) -> np.ndarray:
    from ..core.fits import open_fits

    open_product(path)
    with open_fits(path) as fits:
        images = {hdu.name: hdu.index for hdu in fits.hdus if hdu.is_image}
        if name is None and not images:
            raise NoImage(f"{path}: is a table, not an image", hint=".table")
        if name is not None and name not in images:
            return None  # type: ignore[return-value]
        return fits.image(next(iter(images.values())) if name is None else images[name])


def header(path: str) -> Header:
    """The header of the image of a product (of a table, its own), or of a raw frame."""
    from astropy.io import fits

    return fits.getheader(*_unit(path))


def _unit(path: str) -> tuple[str, int]:
    """The file, and the number of the header that says most of it."""
    from ..core.fits import open_fits
    from ..core.raws import open_raw
    from ..core.workspace import here

    address = parse_address(path)
    if not is_product(address.path):
        found = next(iter(open_raw(address, here())))
        if found.fits is not None:
            found.fits.close()
        return str(address.path), found.hdus[0]
    with open_fits(address.path) as opened:
        return str(address.path), next((hdu.index for hdu in opened.hdus if hdu.is_image), 0)


def table(path: str) -> Table:
    """The first table of a product, with units. Raises NoImage, Integrity."""
    from astropy.table import Table
    from astropy.units import Unit

    from ..core.fits import open_fits

    file = parse_address(path).path
    if is_product(file):
        open_product(file)
    with open_fits(file) as opened:
        numbers = [hdu.index for hdu in opened.hdus if hdu.is_table]
    if not numbers:
        raise NoImage(f"{path}: is an image, not a table", hint=".data")
    found = Table.read(file, hdu=numbers[0], format="fits", unit_parse_strict="silent")
    for column in found.itercols():
        if column.unit is not None:
            # FITS does not know the electron, astropy does.
            column.unit = Unit(str(column.unit), parse_strict="silent")
    return found
