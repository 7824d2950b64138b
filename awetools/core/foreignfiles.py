"""Where images, planes and tables lie in a file that awetools did not make, and such a file as an input."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .camera import HduInfo, detectors, recognise
from .camera_imports import ImportRule, PlaneRule
from .errors import NoImage, NoSuchExtension, UsageError, WrongKind
from .files import Address, parse_address

if TYPE_CHECKING:
    from .camera import Cameras
    from .fits import FitsFile, Hdu
    from .frame import Frame, Table


@dataclass(frozen=True)
class ForeignInput:
    """One image or table of a file that awetools did not make."""

    address: Address
    hdu: int
    content: str
    meta: Mapping[str, Any] = field(default_factory=dict)
    is_table: bool = False

    @property
    def kind(self) -> str:
        """What the record calls it."""
        return "foreign"

    @property
    def key(self) -> None:
        """It has no recipe key."""
        return

    def load(self) -> Frame | Table:
        """The pixels in physical values, or the columns."""
        from .fits import open_fits
        from .frame import Frame, Table

        with open_fits(self.address.path) as fits:
            if self.is_table:
                return Table(fits.table(self.hdu), self.meta)
            return Frame(fits.image(self.hdu), meta=self.meta)


# What is in the file


def infos_of(fits: FitsFile) -> list[HduInfo]:
    """The units of an open file, as translation takes them."""
    return [
        HduInfo(hdu.index, hdu.name, hdu.header, hdu.shape if hdu.is_image else None) for hdu in fits.hdus
    ]


def rules_of(cameras: Cameras, name: str) -> list[ImportRule]:
    """How a camera's reduced frames are read: by its own table, then by the generic one."""
    found = list(cameras.get(name).imports)
    return found if name == "generic" else [*found, *cameras.get("generic").imports]


def images_of(
    fits: FitsFile, address: Address, cameras: Cameras, camera_name: str | None, beside: Sequence[str | None]
) -> list[Hdu]:
    """The images of a file that are frames; `beside` are the names of those that are planes of others.

    Raises NoImage, NoSuchExtension, and WrongKind where amplifiers make a detector: that is a raw frame.
    """
    if address.detector is not None:
        hdu = _hdu_called(fits, address.detector)
        if not hdu.is_image:
            raise NoImage(f"{address}: not an image")
        return [_flat(hdu)]
    if not any(hdu.is_image for hdu in fits.hdus):
        lists = any(hdu.is_table for hdu in fits.hdus)
        raise NoImage(
            f"{fits.path}: no HDU holds an image",
            hint=f"awe-import --as sources {fits.path}" if lists else "",
        )
    infos = infos_of(fits)
    camera = recognise(cameras, infos, str(fits.path), camera_name)
    found = detectors(camera, infos, str(fits.path))
    many = [one for one in found if len(one.hdus) > 1]
    if many:
        raise WrongKind(
            f"{fits.path}: detector {many[0].name} is read from {len(many[0].hdus)} amplifiers: a raw frame",
            hint=f"awe-reduce {fits.path}",
        )
    rules = [plane for rule in rules_of(cameras, camera.name) for plane in (*rule.weight, *rule.mask)]
    planes = {name.upper() for name in (*beside, *(one.extension for one in rules)) if name}
    hdus = [fits.hdus[one.hdus[0]] for one in found]
    frames = [hdu for hdu in hdus if hdu.name.upper() not in planes or not hdu.name] or hdus
    return [_flat(hdu) for hdu in frames]


def _hdu_called(fits: FitsFile, name: str) -> Hdu:
    return fits.hdu(int(name) if name.isdecimal() else name)


def _flat(hdu: Hdu) -> Hdu:
    """The unit, if it is one image; raises NoImage for a cube."""
    if len(hdu.shape) != 2:
        size = " x ".join(str(length) for length in reversed(hdu.shape))
        raise NoImage(
            f"{hdu.where}: not an image of 2 axes but a cube of {size} pixels",
            hint="each image of it as a file or an extension of its own",
        )
    return hdu


def tables_of(fits: FitsFile, address: Address) -> list[Hdu]:
    """The tables of a file that are source lists; raises NoImage, NoSuchExtension, UsageError for several."""
    if address.detector is not None:
        hdu = _hdu_called(fits, address.detector)
        if not hdu.is_table:
            raise NoImage(f"{address}: not a table")
        return [hdu]
    # The headers of the frames, which SExtractor keeps as a table of their own.
    tables = [hdu for hdu in fits.hdus if hdu.is_table and hdu.name != "LDAC_IMHEAD"]
    if not tables:
        image = any(hdu.is_image for hdu in fits.hdus)
        raise NoImage(
            f"{fits.path}: no binary table",
            hint=f"awe-import --as reduced {fits.path}" if image else as_fits_table(fits.path),
        )
    if len(tables) > 1 and not all(hdu.name == "LDAC_OBJECTS" for hdu in tables):
        names = ", ".join(f"[{hdu.name or hdu.index}]" for hdu in tables)
        raise UsageError(
            f"{fits.path}: {len(tables)} tables: {names}", hint=f"name one: {fits.path}[{tables[0].index}]"
        )
    return tables


def as_fits_table(path: Path) -> str:
    """The command that makes a binary table of a source list in another form."""
    code = f"from astropy.table import Table; Table.read({str(path)!r}).write({path.stem + '_table.fits'!r})"
    return f"python3 -c {shlex.quote(code)}"


def part_of(fits: FitsFile, hdu: Hdu) -> str:
    """How a unit of a file is called in an address: by its EXTNAME if no other has it, else by its number."""
    alike = [one for one in fits.hdus if one.name.upper() == hdu.name.upper()]
    return hdu.name if hdu.name and len(alike) == 1 else str(hdu.index)


def unused_images(fits: FitsFile, used: Iterable[int]) -> list[str]:
    """The images of a file that are among neither the frames nor their planes."""
    left = {hdu.index for hdu in fits.hdus if hdu.is_image} - set(used)
    return [part_of(fits, fits.hdus[index]) for index in sorted(left)]


def plane_of(
    role: str, fits: FitsFile, hdu: Hdu, rules: Sequence[PlaneRule], wanted: str | None
) -> ForeignInput | None:
    """The weight or mask of an image: the one named, else where the camera table has it; None if nowhere.

    Raises UsageError (the image itself is named), NoSuchExtension, NoImage, and what opening a file raises.
    """
    if wanted is None:
        return _plane_by_rules(fits, hdu, rules)
    plane = _plane_named(role, fits, hdu, wanted)
    if plane.hdu == hdu.index and plane.address.path.samefile(fits.path):
        raise UsageError(f"--{role} {wanted}: is the image itself", hint=f"--{role} none, if it has none")
    return plane


def _plane_by_rules(fits: FitsFile, hdu: Hdu, rules: Sequence[PlaneRule]) -> ForeignInput | None:
    from .fits import open_fits

    for rule in rules:
        if rule.extension:
            found = _extension(fits, hdu, rule.extension)
            if found is not None:
                return _foreign_plane(fits, found)
        sibling = rule.sibling(fits.path.name)
        if sibling is not None and fits.path.with_name(sibling).is_file():
            with open_fits(fits.path.with_name(sibling)) as other:
                return _foreign_plane(other, _same_image(other, hdu))
    return None


def _plane_named(role: str, fits: FitsFile, hdu: Hdu, wanted: str) -> ForeignInput:
    from .fits import open_fits

    address = parse_address(wanted)
    if address.path.is_file():
        with open_fits(address.path) as other:
            if address.detector is None:
                return _foreign_plane(other, _same_image(other, hdu))
            return _foreign_plane(other, _hdu_called(other, address.detector))
    found = fits.hdus[int(wanted)] if wanted.isdecimal() and int(wanted) < len(fits.hdus) else None
    found = found or _extension(fits, hdu, wanted)
    if found is None:
        names = ", ".join(one.name or str(one.index) for one in fits.hdus if one.is_image)
        raise NoSuchExtension(
            f"--{role} {wanted}: neither a file nor an extension of {fits.path} (its images: {names})"
        )
    return _foreign_plane(fits, found)


def _extension(fits: FitsFile, hdu: Hdu, name: str) -> Hdu | None:
    """The extension of that name; of several, the one that follows the image most closely."""
    named = [one for one in fits.hdus if name and one.is_image and one.name.upper() == name.upper()]
    after = [one for one in named if one.index > hdu.index]
    return after[0] if after else named[0] if named else None


def _same_image(other: FitsFile, hdu: Hdu) -> Hdu:
    """The image of another file that belongs to an image: of its name, else in its place, else the only one."""
    images = [one for one in other.hdus if one.is_image]
    if not images:
        raise NoImage(f"{other.path}: holds no image")
    named = [one for one in images if hdu.name and one.name == hdu.name]
    placed = [one for one in images if one.index == hdu.index]
    if named or placed:
        return (named or placed)[0]
    if len(images) > 1:
        raise NoSuchExtension(
            f"{other.path}: none of its {len(images)} images is called {hdu.name!r} or is HDU {hdu.index}",
            hint=f"name one: {other.path}[{images[0].index}]",
        )
    return images[0]


def _foreign_plane(fits: FitsFile, hdu: Hdu) -> ForeignInput:
    if not hdu.is_image:
        raise NoImage(f"{hdu.where}: not an image")
    several = sum(one.is_image for one in fits.hdus) > 1
    address = Address(fits.path, part_of(fits, hdu) if several else None)
    return ForeignInput(address, hdu.index, fits.content([hdu.index]))
