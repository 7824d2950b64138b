"""Everything that entered one pixel of a product, down to the raw frames: values, weights, bits, arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import AweError, Integrity, NoImage, NoRecord
from ..record import Record, read_record
from ..sections import detector_shape
from ..tracing.lineage import Node, Reference
from ..tracing.states import unreadable_record
from ..workspace import Workspace
from .gridded import GRIDDED, gridded
from .gridframes import FRAMES, SOLUTIONS
from .parts import worked_out
from .places import RawPlace, amplifiers_of_raw, entered, raw_place
from .reading import RawWindow, Window, no_pixel, read_foreign, read_product, read_raw
from .values import THERE, Branch, Made, OnGrid, Pixel

if TYPE_CHECKING:
    from ..sections import Amplifier
    from ..tracing.lookup import Lookup

# So many pixels on each side tell what is usual around a pixel.
RADIUS_PX = 15


@dataclass(frozen=True, eq=False)
class Entry:
    """A pixel where the walk met it: `role`, `steps`, `lasts` and `repeated` as in `lineage.Line`.

    word: what became of it in the product above it: kept, rejected, ...; by: how that is known.
    placed: how it came onto the grid of that product.
    """

    pixel: Pixel
    role: str
    steps: int
    lasts: tuple[bool, ...]
    repeated: bool
    word: str = ""
    by: str = ""
    placed: OnGrid | None = None


@dataclass(frozen=True, eq=False)
class Story:
    """What is known of one pixel: the entries, the start first, and what was made of what."""

    entries: tuple[Entry, ...]
    made: Mapping[tuple[Any, ...], Made] = field(default_factory=dict)

    @property
    def pixel(self) -> Pixel:
        """The pixel that was asked for."""
        return self.entries[0].pixel


def story_of(
    node: Node, x: int, y: int, lookup: Lookup, workspace: Workspace, radius: int = RADIUS_PX
) -> Story:
    """Follow a pixel (FITS pixels, from 1) of a product or a raw detector down to the raw frames.

    Each file is opened once, and `radius` pixels around the pixel are kept. Raises UsageError for
    a pixel outside, NoImage for a product that is a table, Integrity for a product that
    is not the file of its record.
    """
    if node.state == "changed":
        raise Integrity(
            f"{node.path}: not the file that its record describes", hint=f"awe-verify {node.path}"
        )
    walk = _Walk(lookup, workspace, max(radius, RADIUS_PX))
    start = walk.start(node, x, y)
    if start.row is not None:
        raise NoImage(
            f"{node.path}: a {node.kind} is a table of numbers, a row an amplifier, and has no pixels",
            hint="awe-lineage --at X,Y PRODUCT, where PRODUCT used it, shows the row of the pixel's amplifier",
        )
    walk.visit(start)
    return Story(tuple(walk.entries), walk.made)


class _Walk:
    """Reads each pixel once, and remembers what was made of what."""

    def __init__(self, lookup: Lookup, workspace: Workspace, radius: int) -> None:
        self.entries: list[Entry] = []
        self.made: dict[tuple[Any, ...], Made] = {}
        self._lookup, self._workspace, self._radius = lookup, workspace, radius
        self._pixels: dict[tuple[Any, ...], Pixel] = {}
        self._seen: set[tuple[Any, ...]] = set()
        self._met: set[tuple[str, str]] = set()

    def start(self, node: Node, x: int, y: int) -> Pixel:
        """The pixel that was asked for; raises UsageError if there is none such, and what reading raises."""
        nx, ny = node.meta.get("nx"), node.meta.get("ny")
        if node.state not in THERE and nx and ny and not (1 <= x <= nx and 1 <= y <= ny):
            raise no_pixel(node.path, (ny, nx), x, y)
        return self._read(node, None, x, y, str(node.meta.get("overscan_mode") or "none"))

    def visit(
        self,
        pixel: Pixel,
        above: Branch | None = None,
        steps: int = 0,
        lasts: tuple[bool, ...] = (),
        ends: bool = False,
    ) -> None:
        """Note a pixel, and then what entered it, unless the story ends there. above: as what it entered."""
        # What entered as a whole is followed no further where it was met before, as a whole or by a pixel.
        repeated = pixel.key in self._seen or (pixel.x is None and pixel.node.identity in self._met)
        role, word = ("", ("", "", None)) if above is None else (above.reference.role, above[2:5])
        self.entries.append(Entry(pixel, role, steps, lasts, repeated, *word))
        if repeated:
            return
        if ends:
            self._seen.add(pixel.key)
            return
        self._seen.add(pixel.key)
        self._met.add(pixel.node.identity)
        made = self._made(pixel)
        if made is None:
            return
        self.made[pixel.key] = made
        for number, branch in enumerate(made.branches()):
            last = number == len(made.parts) - 1
            self.visit(branch.pixel, branch, steps + 1, (*lasts, last), branch.reference.role in made.ends)

    def pixel(
        self, node: Node, reference: Reference | None, x: float | None, y: float | None, mode: str
    ) -> Pixel:
        """A pixel of a file; read when it is met first."""
        # Only what is left of a raw pixel depends on how the overscan was measured.
        key = (*node.identity, x, y, mode if node.kind.startswith("raw") else "")
        if key not in self._pixels:
            try:
                self._pixels[key] = self._read(node, reference, x, y, mode)
            except AweError as error:
                notes = (*_state_notes(node), error.message)
                self._pixels[key] = Pixel(node, x, y, place=_place(node, reference, x, y), notes=notes)
        return self._pixels[key]

    def _made(self, pixel: Pixel) -> Made | None:
        """What a pixel of a product was made of; None for raw frames and where the record is gone."""
        node = pixel.node
        record = _record_of(node)
        if record is None or not node.inputs:
            return None
        # What was imported has no frames.
        if pixel.x is not None and node.kind in GRIDDED and any(one.role == FRAMES for one in node.inputs):
            return self._gridded(pixel, record)
        mode = _mode(record, node)
        sources = entered(node.kind, record, node.inputs, pixel.x, pixel.y)
        pixels = [
            self.pixel(self._lookup.resolve(one.reference), one.reference, one.x, one.y, mode)
            for one in sources
        ]
        pixels = [_with_row(one, pixels) for one in pixels]
        parts = tuple((one.reference, part) for one, part in zip(sources, pixels, strict=True))
        return worked_out(Made(pixel, record, parts))

    def _gridded(self, pixel: Pixel, record: Record) -> Made:
        """What a pixel on a grid of the sky was made of."""
        found = gridded(pixel, record, self._lookup.resolve)
        parts = tuple(
            (one.reference, self.pixel(one.node, one.reference, one.x, one.y, "none")) for one in found.parts
        )
        besides = tuple(
            tuple(self.pixel(one.node, one.reference, x, y, "none") for x, y, _ in one.beside)
            for one in found.parts
        )
        for one in (beside for some in besides for beside in some):
            self._follow(one)
        return Made(
            pixel,
            record,
            parts,
            found.check,
            tuple((one.word, one.by) for one in found.parts if one.reference.role == FRAMES),
            FRAMES,
            tuple(one.placed for one in found.parts),
            besides,
            (*SOLUTIONS, "coadd"),
            found.notes,
        )

    def _follow(self, pixel: Pixel) -> None:
        """Work out what a pixel was made of without a note of it: it brought a bit, and no value by itself."""
        made = None if pixel.key in self.made else self._made(pixel)
        if made is not None:
            self.made[pixel.key] = made
            for _, part in made.parts:
                self._follow(part)

    def _read(
        self, node: Node, reference: Reference | None, x: float | None, y: float | None, mode: str
    ) -> Pixel:
        bare = Pixel(node, x, y, notes=_state_notes(node))
        is_raw = node.id == node.content and node.kind.startswith("raw")
        if x is None or y is None:
            return bare
        if is_raw:
            return self._read_raw(bare, reference, round(x), round(y), mode)
        if node.state not in THERE:
            return bare
        return self._read_product(bare, round(x), round(y))

    def _read_product(self, bare: Pixel, x: int, y: int) -> Pixel:
        node = bare.node
        if node.kind == "foreign":
            window = read_foreign(node.path, node.content, x, y, self._radius)
            return replace(bare, value=float(window.value()), unit=window.unit, window=window)
        found = read_product(Path(node.path), x, y, self._radius)
        if not isinstance(found, Window):
            return replace(bare, row=found)
        mask, weight = found.value("MASK"), found.value("WEIGHT")
        return replace(
            bare,
            value=float(found.value()),
            unit=found.unit,
            weight=None if weight is None else float(weight),
            mask=None if mask is None else int(mask),
            window=found,
        )

    def _read_raw(self, bare: Pixel, reference: Reference | None, x: int, y: int, mode: str) -> Pixel:
        node = bare.node
        meta, amplifiers = _as_used(node, reference)
        place = raw_place(amplifiers, x, y)
        if place is None:
            raise no_pixel(node.path, detector_shape(amplifiers), x, y)
        placed = replace(bare, place=place, box=amplifiers[place.number].target)
        if node.state not in THERE:
            return placed
        found = read_raw(node.path, node.content, meta, mode, self._workspace, x, y, self._radius)
        return _raw_pixel(placed, found)


def _as_used(node: Node, reference: Reference | None) -> tuple[Mapping[str, Any], tuple[Amplifier, ...]]:
    """The meta of a raw frame and its amplifiers, as the product above it used them."""
    used = {} if reference is None else reference.meta
    meta = {**node.meta, **{name: value for name, value in used.items() if value is not None}}
    return meta, amplifiers_of_raw(used, node.meta)


def _place(node: Node, reference: Reference | None, x: float | None, y: float | None) -> RawPlace | None:
    """Where a pixel lies in a raw file that cannot be read, if that is known."""
    if x is None or y is None or not node.kind.startswith("raw"):
        return None
    try:
        return raw_place(_as_used(node, reference)[1], round(x), round(y))
    except AweError:
        return None


def _raw_pixel(placed: Pixel, found: RawWindow) -> Pixel:
    notes = (f"overscan: {found.problem}",) if found.problem else ()
    level = found.overscan_adu
    return replace(
        placed,
        place=found.place,
        value=float(found.window.value()),
        unit="adu",
        overscan_adu=None if level is None else float(level),
        net_adu=None if level is None else float(found.window.value("NET")),
        window=found.window,
        notes=(*placed.notes, *notes),
    )


def _record_of(node: Node) -> Record | None:
    if node.record_path is None or node.kind.startswith("raw"):
        return None
    try:
        return read_record(node.record_path)
    except NoRecord:
        return None


def _mode(record: Record, node: Node) -> str:
    """How the overscan of what a product was made of was measured."""
    found = record["recipe"].get("parameters", {}).get("overscan_mode")
    mode = found.get("value") if isinstance(found, dict) else None
    return str(node.meta.get("overscan_mode") or "none") if mode in (None, "auto") else str(mode)


def _state_notes(node: Node) -> tuple[str, ...]:
    notes = []
    if node.state not in THERE:
        what = "another file lies there now" if node.state == "changed" else "the file is gone"
        notes.append(f"{what}: its values are not known")
    if node.lacks_record:
        broken = unreadable_record(node)
        why = "no record of it is kept" if broken is None else broken.message
        notes.append(f"{why}: what it was made of is not known")
    return tuple(notes)


def _with_row(part: Pixel, siblings: Sequence[Pixel]) -> Pixel:
    """Of a table the row of the pixel's amplifier, which the raw frames beside it tell."""
    if part.row is None or not isinstance(part.row.get("AMP"), list):
        return part
    names = [str(name) for name in part.row["AMP"]]
    place = next((one.place for one in siblings if one.place is not None), None)
    wanted = place.amplifier if place else names[0] if len(names) == 1 else None
    if wanted not in names:
        told = f"its amplifiers are {', '.join(names)}; that of the pixel is not known"
        return replace(part, row=None, notes=(*part.notes, told))
    number = names.index(str(wanted))
    row = {name: column[number] for name, column in part.row.items() if not isinstance(column[number], list)}
    return replace(part, row=row)
