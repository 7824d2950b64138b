"""Where images, planes and tables lie in a file that awetools did not make, and such a file as an input."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .camera import HduInfo, detectors, recognise
from .camera_imports import ImportRule, PlaneRule
from .errors import BadHeader, NoImage, NoSuchExtension, UsageError, WrongKind
from .expressions.evaluation import number
from .files import Address, parse_address

if TYPE_CHECKING:
    from .camera import Cameras
    from .fits import Array, FitsFile, Hdu
    from .fitsheader import Header
    from .frame import Frame, Table


@dataclass(frozen=True)
class ForeignInput:
    """One image or table of a file that awetools did not make; `plane` is that of a cube, 0-based."""

    address: Address
    hdu: int
    content: str
    meta: Mapping[str, Any] = field(default_factory=dict)
    is_table: bool = False
    plane: int | None = None

    @property
    def kind(self) -> str:
        """What the record calls it."""
        return "foreign"

    @property
    def key(self) -> None:
        """It has no recipe key."""
        return

    def load(self) -> Frame | Table:
        """The pixels in physical values, also those that were packed as asinh magnitudes, or the columns."""
        from .fits import open_fits
        from .frame import Frame, Table

        with open_fits(self.address.path) as fits:
            if self.is_table:
                return Table(fits.table(self.hdu), self.meta)
            return Frame(_linear(fits, self.hdu, self.plane), meta=self.meta)


@dataclass(frozen=True)
class FoundPlane:
    """A weight or mask, its header, and the rule by which it was found (None: by its name)."""

    source: ForeignInput
    header: Header
    rule: PlaneRule | None = None


def _linear(fits: FitsFile, index: int, plane: int | None) -> Array:
    from .pixels.foreign import of_asinh

    pixels = fits.image(index) if plane is None else fits.plane(index, plane)
    softening, offset = (number(fits.hdus[index].header.get(key)) for key in ("BSOFTEN", "BOFFSET"))
    if softening is None or offset is None:
        return pixels
    if not softening > 0:
        raise BadHeader(f"{fits.hdus[index].where}: BSOFTEN is {softening}, which is not above 0")
    return of_asinh(pixels, float(softening), float(offset))


# What is in the file


def infos_of(fits: FitsFile) -> list[HduInfo]:
    """The units of an open file, as translation takes them."""
    # A cube is so many images of its last axes.
    return [
        HduInfo(hdu.index, hdu.name, hdu.header, hdu.shape[-2:] if hdu.is_image else None)
        for hdu in fits.hdus
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
        return [hdu]
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
    rules = rules_of(cameras, camera.name)
    planes = [plane for rule in rules for plane in (*rule.weight, *rule.mask)]
    other = {name.upper() for name in (*beside, *(name for rule in rules for name in rule.unused)) if name}
    hdus = [fits.hdus[one.hdus[0]] for one in found]
    return [
        hdu
        for hdu in hdus
        if hdu.name.upper() not in other and not any(one.is_extension(hdu.name, hdu.header) for one in planes)
    ] or hdus


def _hdu_called(fits: FitsFile, name: str) -> Hdu:
    unit, _ = unit_and_plane(name)
    return fits.hdu(int(unit) if unit.isdecimal() else unit)


def unit_and_plane(name: str) -> tuple[str, int | None]:
    """The unit that an address names, and the plane of a cube (0-based): ``[0,2]`` is the second of the primary."""
    unit, comma, plane = name.rpartition(",")
    return (unit, int(plane) - 1) if comma and plane.isdecimal() and int(plane) > 0 else (name, None)


def planes_of(hdu: Hdu, named: str | None, filters: Sequence[object]) -> list[int | None]:
    """The planes of an image that are frames: None for an image of 2 axes, else those that have a filter.

    named: the address of one, in its brackets. Raises NoImage for a cube of which nothing tells what its planes are.
    """
    if len(hdu.shape) == 2:
        return [None]
    wanted = unit_and_plane(named)[1] if named is not None else None
    if len(hdu.shape) == 3 and wanted is not None and wanted < hdu.shape[0]:
        return [wanted]
    if len(hdu.shape) == 3 and filters and all(filters):
        return list(range(hdu.shape[0]))
    size = " x ".join(str(length) for length in reversed(hdu.shape))
    raise NoImage(
        f"{hdu.where}: not an image of 2 axes but a cube of {size} pixels, and no card says what its planes are",
        hint=f"one after the other: awe-import --set filter=NAME '{fits_path(hdu)}[{hdu.index},1]'",
    )


def fits_path(hdu: Hdu) -> str:
    """The path of the file that a unit is in."""
    return hdu.where.removesuffix(f"[{hdu.index}]")


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


def unused_images(fits: FitsFile, used: Iterable[int], known: Sequence[str] = ()) -> list[str]:
    """The images of a file that are among neither the frames nor their planes, but for those `known` to be neither."""
    left = {hdu.index for hdu in fits.hdus if hdu.is_image and hdu.name not in known} - set(used)
    return [part_of(fits, fits.hdus[index]) for index in sorted(left)]


def plane_of(
    role: str, fits: FitsFile, hdu: Hdu, rules: Sequence[PlaneRule], wanted: str | None, number: int | None
) -> FoundPlane | None:
    """The weight or mask of an image: the one named, else where the camera table has it.

    number: the plane of a cube. None if it is nowhere. Raises UsageError (the image itself is named),
    NoSuchExtension, NoImage, and what opening a file raises.
    """
    if wanted is None:
        return _plane_by_rules(fits, hdu, rules, number)
    plane = _plane_named(role, fits, hdu, wanted, number)
    if plane.source.hdu == hdu.index and plane.source.address.path.samefile(fits.path):
        raise UsageError(f"--{role} {wanted}: is the image itself", hint=f"--{role} none, if it has none")
    # What the table says of a plane holds also where its name is typed.
    rule = next((one for one in rules if one.extension and one.extension.upper() == wanted.upper()), None)
    return replace(plane, rule=rule)


def _plane_by_rules(
    fits: FitsFile, hdu: Hdu, rules: Sequence[PlaneRule], number: int | None
) -> FoundPlane | None:
    from .fits import open_fits

    for rule in rules:
        found = _closest(
            hdu, [one for one in fits.hdus if one.is_image and rule.is_extension(one.name, one.header)]
        )
        if found is not None and found.index != hdu.index:
            return replace(_foreign_plane(fits, found, number), rule=rule)
        sibling = rule.sibling(fits.path.name)
        if sibling not in (None, fits.path.name) and fits.path.with_name(str(sibling)).is_file():
            with open_fits(fits.path.with_name(str(sibling))) as other:
                return replace(_foreign_plane(other, _same_image(other, hdu), number), rule=rule)
    return None


def _plane_named(role: str, fits: FitsFile, hdu: Hdu, wanted: str, number: int | None) -> FoundPlane:
    from .fits import open_fits

    address = parse_address(wanted)
    if address.path.is_file():
        with open_fits(address.path) as other:
            if address.detector is None:
                return _foreign_plane(other, _same_image(other, hdu), number)
            return _foreign_plane(other, _hdu_called(other, address.detector), number)
    found = fits.hdus[int(wanted)] if wanted.isdecimal() and int(wanted) < len(fits.hdus) else None
    found = found or _extension(fits, hdu, wanted)
    if found is None:
        names = ", ".join(one.name or str(one.index) for one in fits.hdus if one.is_image)
        raise NoSuchExtension(
            f"--{role} {wanted}: neither a file nor an extension of {fits.path} (its images: {names})"
        )
    return _foreign_plane(fits, found, number)


def _extension(fits: FitsFile, hdu: Hdu, name: str) -> Hdu | None:
    """The extension of that name; of several, the one that follows the image most closely."""
    return _closest(
        hdu, [one for one in fits.hdus if name and one.is_image and one.name.upper() == name.upper()]
    )


def _closest(hdu: Hdu, named: Sequence[Hdu]) -> Hdu | None:
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


def _foreign_plane(fits: FitsFile, hdu: Hdu, number: int | None) -> FoundPlane:
    """A plane of an image; of a cube, that of the image's own number."""
    if not hdu.is_image:
        raise NoImage(f"{hdu.where}: not an image")
    of_cube = number if len(hdu.shape) == 3 and number is not None and number < hdu.shape[0] else None
    several = sum(one.is_image for one in fits.hdus) > 1
    address = address_of(fits, hdu, of_cube, several)
    source = ForeignInput(address, hdu.index, fits.content([hdu.index]), plane=of_cube)
    return FoundPlane(source, hdu.header)


def address_of(fits: FitsFile, hdu: Hdu, number: int | None, several: bool) -> Address:
    """The address of an image, or of a plane of a cube; `several`: the name of the file alone does not tell it."""
    if number is not None:
        return Address(fits.path, f"{part_of(fits, hdu)},{number + 1}")
    return Address(fits.path, part_of(fits, hdu) if several else None)
