"""Reading products: the record, whether the file is what the record says, the pixels."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import BeingWritten, Integrity, NoSuchExtension, Unreadable
from .files import Address
from .record import Record, read_record, sidecar

if TYPE_CHECKING:
    from .frame import Frame, Table


@dataclass(frozen=True)
class ProductInput:
    """A product as an input: its path and its record, whose content was checked against the file."""

    path: Path
    record: Record

    @property
    def address(self) -> Address:
        """The path, as an address."""
        return Address(self.path)

    @property
    def kind(self) -> str:
        """bias, flat, ..."""
        return str(self.record["recipe"]["kind"])

    @property
    def meta(self) -> Mapping[str, Any]:
        """The meta block of the record."""
        meta: Mapping[str, Any] = self.record["meta"]
        return meta

    @property
    def content(self) -> str:
        """The content hash of the pixels."""
        return str(self.record["product"]["content"])

    @property
    def key(self) -> str:
        """The recipe key."""
        return str(self.record["recipe_key"])


def is_product(path: Path) -> bool:
    """Whether a record lies beside a file."""
    return os.path.lexists(sidecar(path))


def says_it_is_product(path: Path) -> bool:
    """Whether the primary header of a file says that awetools made it."""
    try:
        with path.open("rb") as stream:
            begin = stream.read(20 * 2880)
    except OSError:
        return False
    return begin.startswith(b"SIMPLE") and b"AWEKIND =" in begin


def refuse_other_detectors(address: Address, record: Record) -> None:
    """Raise NoSuchExtension where an address names another detector than that of the product there."""
    own = record["meta"].get("detector")
    if address.detector not in (None, str(own)):
        raise NoSuchExtension(
            f"{address.path}: is of detector {own}, not {address.detector!r}",
            hint=shlex.quote(str(address.path)),
        )


def open_product(path: Path) -> ProductInput:
    """A product whose file is what its record says.

    The file is read and hashed only if its size or time are not those of the
    record. Raises NoRecord, BeingWritten, Integrity (the file was edited).
    """
    record = read_record(sidecar(path))
    state = state_of(path, record)
    # Between the look at the record and the look at the file both may have been replaced.
    while state != "whole" and (newer := read_record(sidecar(path))) != record:
        record, state = newer, state_of(path, newer)
    if state == "replaced":
        raise BeingWritten(
            f"{path}: is being replaced by another program", hint=f"awe-verify --clean {path.parent}"
        )
    if state != "whole":
        raise Integrity(
            f"{path}: {state}: not the file that its record describes "
            f"(sha256 {record['product']['file_sha256'][:8]})",
            hint=f"awe-verify {path}",
        )
    return ProductInput(path, record)


def state_of(path: Path, record: Record) -> str:
    """'whole', 'missing', 'edited', or 'replaced' (a replacement stopped half-way or is under way).

    Raises Unreadable where the file has to be hashed and cannot be read.
    """
    about = record["product"]
    try:
        stat = path.stat()
    except OSError:
        stat = None
    if stat is not None and stat.st_size == about["bytes"]:
        if stat.st_mtime_ns == about.get("mtime_ns"):
            return "whole"
        try:
            digest = file_sha256(path)
        except OSError as error:
            raise Unreadable(f"{path}: {error.strerror}", hint=f"ls -l {shlex.quote(str(path))}") from error
        if digest == about["file_sha256"]:
            return "whole"
    if staged(path, about["file_sha256"]).exists():
        return "replaced"
    return "missing" if stat is None else "edited"


def staged(path: Path, digest: str) -> Path:
    """The name under which the next version of a product waits to be renamed into place."""
    return path.with_name(f".{path.name}.{digest[:8]}.new")


def file_sha256(path: Path) -> str:
    """SHA-256 of the bytes of a file."""
    import hashlib

    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def load_table(product: ProductInput, name: str) -> Table:
    """One table of a product, by its name. Raises NoSuchExtension."""
    from .fits import open_fits
    from .frame import Table

    with open_fits(product.path) as fits:
        for hdu in fits.hdus:
            if hdu.is_table and hdu.name == name:
                return Table(fits.table(hdu.index), product.meta)
    raise NoSuchExtension(f"{product.path}: has no table {name}", hint=shlex.quote(str(product.path)))


def load_product(product: ProductInput) -> Frame | Table:
    """The pixels (or the table) of a product."""
    from .fits import open_fits
    from .frame import Frame, Table

    with open_fits(product.path) as fits:
        images = {hdu.name: hdu.index for hdu in fits.hdus if hdu.is_image}
        if not images:
            tables = [hdu.index for hdu in fits.hdus if hdu.is_table]
            return Table(fits.table(tables[0]), product.meta)
        first = next(iter(images.values()))
        return Frame(
            data=fits.image(first),
            weight=fits.image(images["WEIGHT"]) if "WEIGHT" in images else None,
            mask=fits.image(images["MASK"]) if "MASK" in images else None,
            meta=product.meta,
            unit=str(fits.hdu(first).header.get("BUNIT") or "adu").strip().lower(),
        )
