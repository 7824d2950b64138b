"""Which camera took a file, and which of its HDUs make a detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .camera_rules import Cards, first_value, plain_text
from .camera_tables import Camera, Cameras, safe_name
from .errors import NoImage, UnknownCamera
from .expressions.evaluation import holds
from .fitsheader import Header


@dataclass(frozen=True)
class HduInfo:
    """What translation needs of an HDU: number, EXTNAME, header, and shape in numpy order (None: no image)."""

    index: int
    name: str
    header: Header
    shape: tuple[int, ...] | None


class DetectorAddress(NamedTuple):
    """A detector in a file: its name and the numbers of the HDUs that it consists of."""

    name: str
    hdus: tuple[int, ...]


def recognise(cameras: Cameras, hdus: Sequence[HduInfo], file: str = "", name: str | None = None) -> Camera:
    """The first camera, by falling priority, whose condition holds on the primary or first image header.

    `name` chooses one instead (an override). Raises UnknownCamera where none fits, UnknownName.
    """
    if name is not None:
        return cameras.get(name)
    where = file or "the file"
    if not hdus:
        raise UnknownCamera(f"{where}: no header")
    primary = hdus[0].header
    asked = [Cards([primary], _pseudo_cards(primary, file))]
    image = next((hdu for hdu in hdus if is_image(hdu) and hdu.index != hdus[0].index), None)
    if image is not None:
        asked.append(Cards([image.header, primary], _pseudo_cards(primary, file)))
    for camera in cameras.in_order:
        if any(holds(camera.recognise, cards.lookup) for cards in asked):
            return camera
    about = primary.get("INSTRUME") or primary.get("TELESCOP") or "no INSTRUME card"
    raise UnknownCamera(
        f"{where}: no camera table recognises it ({about})", hint="awe-ingest --set camera=NAME"
    )


def is_image(hdu: HduInfo) -> bool:
    """Whether an HDU holds an image of at least two axes with pixels."""
    return hdu.shape is not None and len(hdu.shape) >= 2 and 0 not in hdu.shape


def _pseudo_cards(primary: Header, file: str) -> dict[str, object]:
    """FILENAME: the name that the header keeps, so that a renamed frame stays what it is, else the file's."""
    if primary.get("FILENAME") or not file:
        return {}
    return {"FILENAME": Path(file).name}


def detectors(camera: Camera, hdus: Sequence[HduInfo], file: str = "") -> list[DetectorAddress]:
    """The detectors of a file. Raises NoImage where it holds no image."""
    images = [hdu for hdu in hdus if is_image(hdu)]
    if not images:
        raise NoImage(f"{file or 'the file'}: no HDU holds an image")
    primary = hdus[0].header
    if camera.skip is not None:
        skip = camera.skip
        kept = [hdu for hdu in images if not holds(skip, extension_cards(hdu, primary, file).lookup)]
        images = kept or images
    groups = _groups(camera, images, primary, file)
    labels = _detector_names(camera, groups, primary, file)
    return [
        DetectorAddress(label, tuple(hdu.index for hdu in group))
        for label, group in zip(labels, groups, strict=True)
    ]


def extension_cards(hdu: HduInfo, primary: Header, file: str) -> Cards:
    headers = [hdu.header] if hdu.index == 0 else [hdu.header, primary]
    extra = _pseudo_cards(primary, file) | {"HDU": hdu.index}
    if hdu.shape is not None:
        extra |= {"NAXIS1": hdu.shape[-1], "NAXIS2": hdu.shape[-2]}
    return Cards(headers, extra)


def _groups(camera: Camera, images: Sequence[HduInfo], primary: Header, file: str) -> list[list[HduInfo]]:
    groups: dict[str, list[HduInfo]] = {}
    for hdu in images:
        found = first_value(camera.detector_group, extension_cards(hdu, primary, file))
        label = f"={plain_text(found.value)}" if found else str(hdu.index)
        groups.setdefault(label, []).append(hdu)
    return list(groups.values())


def _detector_names(
    camera: Camera, groups: Sequence[Sequence[HduInfo]], primary: Header, file: str
) -> list[str]:
    """One name a detector, by the first rule that gives each a different one."""
    asked = [
        extension_cards(group[0], primary, file)
        if len(group) == 1
        else Cards([primary, group[0].header], _pseudo_cards(primary, file))
        for group in groups
    ]
    for rule in camera.detector_name:
        found = [first_value([rule], cards) for cards in asked]
        labels = [safe_name(plain_text(one.value)) for one in found if one is not None]
        if len(labels) == len(groups) == len(set(labels)) and all(labels):
            return labels
    if len(groups) == 1:
        return ["ccd"]
    return [f"hdu{group[0].index}" for group in groups]
