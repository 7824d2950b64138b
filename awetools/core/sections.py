"""Where an amplifier's data and overscan lie in the raw image, and where the data go in the detector.

Section text is that of the IRAF/NOAO cards: '[x1:x2,y1:y2]', 1-based, both ends
included, reversed limits meaning a mirrored axis. In Python sections are 0-based
and half open.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .errors import BadHeader

_AXIS = re.compile(r"\s*(?:(-?)\s*\*|([0-9]+)\s*(?::\s*([0-9]+)\s*)?)\s*")
_LONGEST_TEXT = 200


@dataclass(frozen=True)
class Section:
    """A rectangle of pixels, 0-based, half open; a flip says that the axis runs backwards."""

    x0: int
    x1: int
    y0: int
    y1: int
    flip_x: bool = False
    flip_y: bool = False

    @property
    def width(self) -> int:
        """Columns."""
        return self.x1 - self.x0

    @property
    def height(self) -> int:
        """Rows."""
        return self.y1 - self.y0

    def overlaps(self, other: Section) -> bool:
        """Whether the two share a pixel."""
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1

    def inside(self, nx: int, ny: int) -> bool:
        """Whether all of it lies in an image of nx columns and ny rows."""
        return 0 <= self.x0 < self.x1 <= nx and 0 <= self.y0 < self.y1 <= ny

    def moved(self, dx: int, dy: int) -> Section:
        """The section, dx columns and dy rows further."""
        return replace(self, x0=self.x0 + dx, x1=self.x1 + dx, y0=self.y0 + dy, y1=self.y1 + dy)


@dataclass(frozen=True)
class Amplifier:
    """One amplifier of a detector.

    `hdu` is the number of the HDU that holds its pixels, `data` and `overscan` lie
    in that raw image and run forward, `target` is where the data land in the
    trimmed, assembled detector; a flipped target means that the data are mirrored.
    """

    name: str
    hdu: int
    data: Section
    overscan: Section | None
    target: Section


def parse_section(text: object, size: tuple[int, int] | None = None) -> Section:
    """A section from its FITS text; `*` needs the image's size (nx, ny). Raises BadHeader."""
    if not isinstance(text, str) or len(text) > _LONGEST_TEXT:
        raise BadHeader(f"a section must be text such as '[1:1024,1:1024]', not {str(text)[:60]!r}")
    inner = text.strip()
    if not (inner.startswith("[") and inner.endswith("]") and inner.count(",") == 1):
        raise BadHeader(f"not a section: {text!r} (expected '[x1:x2,y1:y2]')")
    columns, rows = inner[1:-1].split(",")
    x0, x1, flip_x = _axis(columns, size[0] if size else None, text)
    y0, y1, flip_y = _axis(rows, size[1] if size else None, text)
    return Section(x0, x1, y0, y1, flip_x, flip_y)


def _axis(part: str, length: int | None, text: str) -> tuple[int, int, bool]:
    found = _AXIS.fullmatch(part)
    if not found:
        raise BadHeader(f"not a section: {text!r} (cannot read {part.strip()!r})")
    minus, first, last = found.groups()
    if first is None:
        if length is None:
            raise BadHeader(f"section {text!r} says '*', but the size of the image is not known")
        return 0, length, bool(minus)
    low, high = int(first), int(last if last is not None else first)
    if low < 1 or high < 1:
        raise BadHeader(f"section {text!r} has a limit below 1")
    return min(low, high) - 1, max(low, high), high < low


def section_text(section: Section) -> str:
    """The FITS text of a section; `parse_section` reads it back."""
    columns = f"{section.x1}:{section.x0 + 1}" if section.flip_x else f"{section.x0 + 1}:{section.x1}"
    rows = f"{section.y1}:{section.y0 + 1}" if section.flip_y else f"{section.y0 + 1}:{section.y1}"
    return f"[{columns},{rows}]"


def amplifiers_from_meta(
    sections: Sequence[Mapping[str, Any]], shapes: Mapping[int, tuple[int, int]] | None = None
) -> tuple[Amplifier, ...]:
    """The amplifiers of a record's `sections`, checked.

    `shapes` (HDU number to (ny, nx) of its raw image), where given, are what data
    and overscan must lie in. Raises BadHeader, naming the values that disagree.
    """
    if not isinstance(sections, Sequence) or isinstance(sections, str) or not sections:
        raise BadHeader(f"sections must be a list with one item an amplifier, not {sections!r}")
    amplifiers = tuple(_amplifier(item) for item in sections)
    check_amplifiers(amplifiers, shapes)
    return amplifiers


def _amplifier(item: Mapping[str, Any]) -> Amplifier:
    try:
        name, hdu = str(item["amp"]), int(item["hdu"])
        data, target = parse_section(item["data"]), parse_section(item["target"])
        over = item.get("overscan")
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BadHeader(f"an item of sections needs amp, hdu, data and target: {item!r}") from None
    return amplifier(name, hdu, data, parse_section(over) if over else None, target)


def amplifier(name: str, hdu: int, data: Section, overscan: Section | None, target: Section) -> Amplifier:
    """An amplifier with its data section turned forward: flips of the data are flips of the target."""
    turned = replace(target, flip_x=target.flip_x != data.flip_x, flip_y=target.flip_y != data.flip_y)
    forward = replace(data, flip_x=False, flip_y=False)
    over = replace(overscan, flip_x=False, flip_y=False) if overscan else None
    return Amplifier(name, hdu, forward, over, turned)


def amplifiers_to_meta(amplifiers: Iterable[Amplifier]) -> list[dict[str, Any]]:
    """The record's `sections` of these amplifiers."""
    return [
        {
            "amp": one.name,
            "hdu": one.hdu,
            "data": section_text(one.data),
            "overscan": section_text(one.overscan) if one.overscan else None,
            "target": section_text(one.target),
        }
        for one in amplifiers
    ]


def detector_shape(amplifiers: Sequence[Amplifier]) -> tuple[int, int]:
    """(ny, nx) of the trimmed, assembled detector."""
    return max(one.target.y1 for one in amplifiers), max(one.target.x1 for one in amplifiers)


def check_amplifiers(
    amplifiers: Sequence[Amplifier], shapes: Mapping[int, tuple[int, int]] | None = None
) -> None:
    """Raise BadHeader unless the targets tile the detector and the sections fit their images."""
    for one in amplifiers:
        _check_sizes(one)
        if shapes is not None:
            _check_inside(one, shapes)
    names = [one.name for one in amplifiers]
    if len(set(names)) < len(names):
        raise BadHeader(f"two amplifiers have one name: {' '.join(names)}")
    _check_tiling(amplifiers)


def _check_sizes(one: Amplifier) -> None:
    if (one.data.width, one.data.height) != (one.target.width, one.target.height):
        raise BadHeader(
            f"amplifier {one.name}: data section {section_text(one.data)} and target "
            f"{section_text(one.target)} differ in size"
        )
    if one.overscan is not None and one.overscan.overlaps(one.data):
        raise BadHeader(
            f"amplifier {one.name}: overscan {section_text(one.overscan)} overlaps the data "
            f"{section_text(one.data)}"
        )


def _check_inside(one: Amplifier, shapes: Mapping[int, tuple[int, int]]) -> None:
    if one.hdu not in shapes:
        raise BadHeader(f"amplifier {one.name}: the file has no image in HDU {one.hdu}")
    ny, nx = shapes[one.hdu]
    for role, section in (("data section", one.data), ("overscan", one.overscan)):
        if section is not None and not section.inside(nx, ny):
            raise BadHeader(
                f"amplifier {one.name}: {role} {section_text(section)} is not inside the image of "
                f"{nx} x {ny} pixels in HDU {one.hdu}"
            )


def _check_tiling(amplifiers: Sequence[Amplifier]) -> None:
    ny, nx = detector_shape(amplifiers)
    for number, one in enumerate(amplifiers):
        for other in amplifiers[:number]:
            if one.target.overlaps(other.target):
                raise BadHeader(
                    f"amplifiers {other.name} and {one.name} overlap in the detector: "
                    f"{section_text(other.target)} and {section_text(one.target)}"
                )
    covered = sum(one.target.width * one.target.height for one in amplifiers)
    if covered != nx * ny:
        targets = " ".join(section_text(one.target) for one in amplifiers)
        raise BadHeader(f"the amplifiers leave a gap in the detector of {nx} x {ny} pixels: {targets}")


def packed_targets(data: Sequence[Section]) -> list[Section]:
    """Where data sections of one image land when what lies between them is cut out, order kept."""
    columns = _packed([(one.x0, one.x1) for one in data])
    rows = _packed([(one.y0, one.y1) for one in data])
    return [
        Section(columns[one.x0, one.x1][0], columns[one.x0, one.x1][1], *rows[one.y0, one.y1]) for one in data
    ]


def _packed(spans: Iterable[tuple[int, int]]) -> dict[tuple[int, int], tuple[int, int]]:
    placed: dict[tuple[int, int], tuple[int, int]] = {}
    end = 0
    for low, high in sorted(set(spans)):
        placed[low, high] = (end, end + high - low)
        end += high - low
    return placed


def placed_targets(targets: Sequence[Section], binning: tuple[int, int]) -> list[Section]:
    """Targets given in unbinned pixels of the chip as binned pixels of the window that they cover."""
    binned = [_binned(one, binning) for one in targets]
    left = min(one.x0 for one in binned)
    bottom = min(one.y0 for one in binned)
    return [one.moved(-left, -bottom) for one in binned]


def _binned(section: Section, binning: tuple[int, int]) -> Section:
    across, along = binning
    return replace(
        section,
        x0=section.x0 // across,
        x1=section.x0 // across + -(-section.width // across),
        y0=section.y0 // along,
        y1=section.y0 // along + -(-section.height // along),
    )


def trimmed(
    amplifiers: Sequence[Amplifier], left: int = 0, right: int = 0, bottom: int = 0, top: int = 0
) -> tuple[Amplifier, ...]:
    """The amplifiers with edges of the assembled detector cut off, in pixels. Raises BadHeader."""
    ny, nx = detector_shape(amplifiers)
    keep = Section(left, nx - right, bottom, ny - top)
    if min(left, right, bottom, top) < 0 or keep.width < 1 or keep.height < 1:
        raise BadHeader(
            f"trimming left {left}, right {right}, bottom {bottom}, top {top} leaves nothing of "
            f"{nx} x {ny} pixels"
        )
    cut = [_cut(one, keep) for one in amplifiers]
    return tuple(one for one in cut if one is not None)


def _cut(one: Amplifier, keep: Section) -> Amplifier | None:
    target = one.target
    if not target.overlaps(keep):
        return None
    low_x, high_x = max(keep.x0 - target.x0, 0), max(target.x1 - keep.x1, 0)
    low_y, high_y = max(keep.y0 - target.y0, 0), max(target.y1 - keep.y1, 0)
    inner = replace(
        target, x0=target.x0 + low_x, x1=target.x1 - high_x, y0=target.y0 + low_y, y1=target.y1 - high_y
    )
    if target.flip_x:
        low_x, high_x = high_x, low_x
    if target.flip_y:
        low_y, high_y = high_y, low_y
    old = one.data
    data = Section(old.x0 + low_x, old.x1 - high_x, old.y0 + low_y, old.y1 - high_y)
    return replace(one, data=data, target=inner.moved(-keep.x0, -keep.y0))
