"""`awe-lineage --at`: everything that entered one pixel, as sentences and a tree, a table or JSON, with cut-outs."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import AweError, UsageError, worst
from ..core.masknames import names_of
from . import options
from .lineageviews import DRAWN, TYPED, draws_lines, lookup_here
from .messages import CONTROLS, Messenger
from .tables import ONE_LINE, print_table

if TYPE_CHECKING:
    from ..core.pixelstory.reasons import Reason
    from ..core.pixelstory.values import Branch, Made, OnGrid, Pixel
    from ..core.pixelstory.walk import Entry, Story
    from ..core.tracing.lineage import Node
    from ..core.tracing.lookup import Lookup

FORMS = ("tree", "table", "tsv", "json")
COLUMNS = (
    "at",
    "steps",
    "role",
    "kind",
    "path",
    "state",
    "x",
    "y",
    "value",
    "unit",
    "weight",
    "mask",
    "hdu",
    "amplifier",
    "raw_x",
    "raw_y",
    "overscan_adu",
    "net_adu",
    "row",
    "entered",
    "by",
    "notes",
    "frame_x",
    "frame_y",
    "grid_value",
    "grid_weight",
    "grid_mask",
    "sky",
    "scale",
    "area",
    "level",
    "illumination",
)
BOX_COLUMNS = ("at", "steps", "role", "kind", "path", "x", "y", "value", "weight", "mask")

# Of a node: which pixel is asked for.
Place = Callable[["Node"], tuple[int, int]]


def show(names: Sequence[str], messenger: Messenger, given: Mapping[str, Any]) -> int:
    """Tell everything about the pixels of the named files; returns the exit code."""
    from ..core.workspace import here

    form, box = _form(given), given["box"]
    if box is not None and box % 2 == 0:
        raise UsageError(f"--box {box}: the pixel is in the middle of an odd number of pixels")
    places = _places(given)
    codes: list[int] = []
    rows: list[list[str]] = []
    with lookup_here() as lookup:
        workspace = here()
        for name in names:
            for place in places:
                try:
                    story = _story(name, place, lookup, workspace, box)
                    if given["cutouts"] is not None:
                        _cut_out(story, given["cutouts"], messenger)
                except AweError as error:
                    messenger.error(error, name)
                    codes.append(error.exit_code)
                    continue
                if form in ("table", "tsv"):
                    rows += _box_rows(story, box) if box else _rows(story)
                    continue
                for text in _objects(story, box) if form == "json" else _sentences(story, box):
                    options.print_line(text)
    if rows:
        print_table(BOX_COLUMNS if box else COLUMNS, rows, aligned=form == "table")
    return worst(codes)


def _form(given: Mapping[str, Any]) -> str:
    forms = {"json": given["as_json"], "tree": given["tree"], str(given["form"]): given["form"] is not None}
    asked = [name for name, value in forms.items() if value]
    if len(asked) > 1:
        raise UsageError(f"{asked[0]} and {asked[1]} exclude each other")
    if asked and asked[0] not in FORMS:
        raise UsageError(f"--format {asked[0]} does not go with --at; these do: {', '.join(FORMS)}")
    return asked[0] if asked else "tree"


def _places(given: Mapping[str, Any]) -> list[Place]:
    """What was asked for by --at and --at-sky, in this order."""
    from ..core.pixelstory.sky import pixel_of_sky, sky_of

    places: list[Place] = []
    for text in given["at"]:
        pixel = _pixel(text)
        places.append(lambda _node, pixel=pixel: pixel)  # type: ignore[misc]
    for text in given["at_sky"]:
        sky = sky_of(text)
        places.append(lambda node, sky=sky: pixel_of_sky(node, *sky))  # type: ignore[misc]
    return places


def _pixel(text: str) -> tuple[int, int]:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise UsageError(f"--at {text}: not X,Y in FITS pixels, whole numbers from 1, as in 512,1024")
    return int(parts[0]), int(parts[1])


def _story(name: str, place: Place, lookup: Lookup, workspace: Any, box: int | None) -> Story:
    from ..core.pixelstory.walk import RADIUS_PX, story_of

    found = lookup.named(name)
    if len(found) != 1:
        raise UsageError(f"{name}: {len(found)} detectors", hint=f"awe-lineage --at X,Y '{found[0].path}'")
    return story_of(found[0], *place(found[0]), lookup, workspace, max(RADIUS_PX, (box or 1) // 2))


# As sentences and a tree


def _sentences(story: Story, box: int | None) -> Iterator[str]:
    from ..core.pixelstory.reasons import reasons_of

    pixel = story.pixel
    masked = "" if pixel.mask is None else ", masked" if pixel.mask else ", not masked"
    yield _line(f"{pixel.node.path} at {pixel.x},{pixel.y}: {_value(pixel)}{_weight(pixel)}{masked}")
    made = story.made.get(pixel.key)
    if made is not None and made.check is not None:
        yield _line(f"  {_check_text(made)}")
    reasons = reasons_of(story)
    for reason in reasons:
        yield _line(f"  MASK: {_reason_text(reason, pixel)}")
    yield from _masked_frames(story, made, {(one.name, one.path) for one in reasons})
    branch, last, below, empty = DRAWN if draws_lines() else TYPED
    for entry in story.entries:
        begin = "".join(empty if one else below for one in entry.lasts[:-1])
        begin += (last if entry.lasts[-1] else branch) if entry.lasts else ""
        yield begin + _line(_entry_text(entry, story))
    if box:
        for entry in story.entries:
            if not entry.repeated and entry.pixel.window is not None:
                yield from _box_text(entry.pixel, box)


def _line(text: str) -> str:
    return " ".join(text.splitlines()).translate(CONTROLS)


def _check_text(made: Made) -> str:
    check = made.check
    assert check is not None
    if check.value is not None and check.in_file is None:
        return f"{check.text} = {_number(check.value)}; the file is gone"
    if check.value is None or check.in_file is None:
        shown = " = ".join(one for one in (check.text, _number(check.in_file)) if one)
        return ": ".join(one for one in (shown, check.problem) if one)
    difference = check.value - check.in_file
    if check.agrees:
        same = (
            "the same"
            if difference == 0
            else f"they agree to {abs(difference):.2g} ({check.rounding:.2g} allowed)"
        )
    else:
        same = f"they DIFFER by {difference:.6g} ({check.rounding:.2g} is allowed for rounding)"
    return f"{check.text} = {_number(check.value)}; in the file {_number(check.in_file)}: {same}"


def _reason_text(reason: Reason, pixel: Pixel) -> str:
    name = os.path.basename(reason.path)
    where = "set here" if reason.path == pixel.node.path else f"from {reason.kind} {name}"
    return f"{reason.name} ({where}{': ' if reason.detail else ''}{reason.detail})"


def _masked_frames(story: Story, made: Made | None, said: Container[tuple[str, str]]) -> Iterator[str]:
    """Why frames have no value at a pixel of a grid, less what is said: bits and what set them."""
    from ..core.pixelstory.reasons import reasons_of_frame

    for one in made.branches() if made is not None else ():
        for reason in reasons_of_frame(story, one):
            if (reason.name, reason.path) in said:
                continue
            name = os.path.basename(one.pixel.node.path)
            yield _line(f"  NOT USED: {name}: {_reason_text(reason, one.pixel)}")


def _weight(pixel: Pixel) -> str:
    weight = "" if pixel.weight is None else f", weight {pixel.weight:.6g}"
    count = _count(pixel)
    return weight if count is None else f"{weight}, {count} frame{'' if count == 1 else 's'}"


def _count(pixel: Pixel) -> int | None:
    """How many frames entered a pixel of a coadd."""
    found = None if pixel.window is None else pixel.window.value("COUNT")
    return None if found is None else int(found)


def _entry_text(entry: Entry, story: Story) -> str:
    pixel, node = entry.pixel, entry.pixel.node
    role = f" (as {entry.role})" if entry.role not in ("", node.kind, "raw") else ""
    parts = [f"{node.kind} {os.path.basename(node.path)}{role}", _held(pixel)]
    if entry.word:
        parts.append(f"{entry.word} ({entry.by})" if entry.by and entry.word in SAID_WHY else entry.word)
    if entry.placed is not None:
        parts.append(_placed_text(entry.placed, pixel))
    if entry.repeated:
        return "  ".join((*(part for part in parts if part), "(see above)"))
    made = story.made.get(pixel.key)
    if made is not None and made.check is not None and entry.steps:
        parts.append(f"[{_check_text(made)}]")
    if node.state != "present":
        parts.append(f"moved to {node.path}" if node.state == "moved" else node.state)
    notes = (*pixel.notes, *(made.notes if made is not None else ()))
    parts += [f"({note})" for note in notes]
    return "  ".join(part for part in parts if part)


# What is told of an exposure together with how that is known; the others are the rule.
SAID_WHY = ("left out", "not known", "no value")


def _placed_text(placed: OnGrid, pixel: Pixel) -> str:
    """Where in its frame a pixel of a grid lies, and what the frame has there."""
    where = f"at {placed.x:.3f},{placed.y:.3f}"
    if placed.scale is None:
        return where
    how = f"(values - sky {placed.sky:.6g})" if placed.sky else "values"
    how += "" if placed.factor is None else f" x illumination {placed.factor:.6g}"
    how += f" x scale {placed.scale:.6g}"
    how += "" if placed.area is None else f" x pixel area {placed.area:.6g}"
    how += f" - level {placed.level:.6g}" if placed.level else ""
    if placed.value is None or placed.weight is None:
        return f"{where}: {how}"
    nearest = placed.nearest(pixel.value)
    alone = "" if nearest is None else f"; its nearest pixel alone gives {nearest:.6g}"
    bits = f", mask {' '.join(names_of(placed.mask))}" if placed.mask else ""
    of = f"{placed.kernel} of {how}{alone}" if placed.kernel else how
    return f"with {_number(placed.value)}, weight {placed.weight:.6g}{bits} {where}: {of}"


def _held(pixel: Pixel) -> str:
    """What a pixel holds, in a few words."""
    if pixel.x is None:
        return "as a whole"
    if pixel.row is not None:
        return "amplifier " + ", ".join(_of_row(name, value) for name, value in pixel.row.items())
    if pixel.place is not None:
        return _raw_text(pixel)
    bits = f", mask {' '.join(names_of(pixel.mask))}" if pixel.mask else ""
    if pixel.window is not None and pixel.window.first == "MASK":
        return f"mask {' '.join(names_of(pixel.mask))}" if pixel.mask else "no bit"
    return f"{_value(pixel)}{_weight(pixel)}{bits}"


def _of_row(name: str, value: Any) -> str:
    return (
        str(value)
        if name == "AMP"
        else f"{name} {value:.6g}"
        if isinstance(value, float)
        else f"{name} {value}"
    )


def _raw_text(pixel: Pixel) -> str:
    place = pixel.place
    assert place is not None
    hdu = "" if place.hdu is None else f" of HDU {place.hdu}"
    text = f"{_value(pixel)} at {place.x},{place.y}{hdu}, amplifier {place.amplifier}"
    if pixel.overscan_adu is None or pixel.net_adu is None:
        return text
    return f"{text}, overscan {pixel.overscan_adu:.6g}, net {pixel.net_adu:.6g}"


def _value(pixel: Pixel) -> str:
    return "value not known" if pixel.value is None else f"{_number(pixel.value)} {pixel.unit}".rstrip()


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.7g}"


def _box_text(pixel: Pixel, box: int) -> Iterator[str]:
    window = pixel.window
    assert window is not None
    ys, xs = _box_of(pixel, box)
    values = window.planes[window.first][ys, xs]
    yield ""
    columns = [str(window.x0 + column + 1) for column in range(xs.start, xs.stop)]
    name = f"{pixel.node.kind} {os.path.basename(pixel.node.path)} {window.first}"
    yield _line(f"{name}, columns {columns[0]} to {columns[-1]}, the last row at the top")
    texts = [[f"{value:.6g}" for value in row] for row in values.tolist()]
    width = max(len(text) for row in [columns, *texts] for text in row)
    yield " ".join(("y \\ x".rjust(8), *(column.rjust(width) for column in columns)))
    for number in range(len(texts) - 1, -1, -1):
        row = str(window.y0 + ys.start + number + 1).rjust(8)
        yield " ".join((row, *(text.rjust(width) for text in texts[number])))


def _box_of(pixel: Pixel, box: int) -> tuple[slice, slice]:
    """Rows and columns of the window that a box of so many pixels takes, as far as there are any."""
    window = pixel.window
    assert window is not None
    ny, nx = window.planes[window.first].shape
    half, (column, row) = box // 2, window.at
    return slice(max(0, row - half), min(ny, row + half + 1)), slice(
        max(0, column - half), min(nx, column + half + 1)
    )


# As a table


def _rows(story: Story) -> Iterator[list[str]]:
    at = f"{story.pixel.x},{story.pixel.y}"
    for entry in story.entries:
        pixel, place = entry.pixel, entry.pixel.place
        row = "" if pixel.row is None else json.dumps(dict(pixel.row))
        raw = (None, None, None, None) if place is None else (place.hdu, place.amplifier, place.x, place.y)
        made = story.made.get(pixel.key)
        notes = (*pixel.notes, *(made.notes if made is not None else ()))
        cells = (
            at,
            entry.steps,
            entry.role,
            pixel.node.kind,
            pixel.node.path,
            pixel.node.state,
            pixel.x,
            pixel.y,
            pixel.value,
            pixel.unit,
            pixel.weight,
            None if pixel.mask is None else ",".join(names_of(pixel.mask)),
            *raw,
            pixel.overscan_adu,
            pixel.net_adu,
            row,
            entry.word,
            entry.by,
            "; ".join(notes),
            *_placed_cells(entry.placed),
        )
        yield [_cell(one) for one in cells]


def _placed_cells(placed: OnGrid | None) -> tuple[object, ...]:
    if placed is None:
        return (None,) * 10
    mask = None if placed.mask is None else ",".join(names_of(placed.mask))
    values = (placed.x, placed.y, placed.value, placed.weight, mask)
    return (*values, placed.sky, placed.scale, placed.area, placed.level, placed.factor)


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.9g}" if isinstance(value, float) else str(value)


def _box_rows(story: Story, box: int) -> Iterator[list[str]]:
    at = f"{story.pixel.x},{story.pixel.y}"
    for entry in story.entries:
        pixel, window = entry.pixel, entry.pixel.window
        if entry.repeated or window is None:
            continue
        about = (at, entry.steps, entry.role, pixel.node.kind, pixel.node.path)
        ys, xs = _box_of(pixel, box)
        for y in range(ys.start, ys.stop):
            for x in range(xs.start, xs.stop):
                held = [window.planes.get(name) for name in (window.first, "WEIGHT", "MASK")]
                value, weight, mask = (None if plane is None else plane[y, x].item() for plane in held)
                bits = None if mask is None else ",".join(names_of(int(mask)))
                cells = (*about, window.x0 + x + 1, window.y0 + y + 1, value, weight, bits)
                yield [_cell(one) for one in cells]


# As JSON


def _objects(story: Story, box: int | None) -> Iterator[str]:
    """A line a pixel, each once; the first is the one that was asked for, with the reasons of its bits."""
    from ..core.pixelstory.reasons import reasons_of

    at = [story.pixel.x, story.pixel.y]
    for entry in story.entries:
        if entry.repeated:
            continue
        about = {"at": at, **_about(entry.pixel), "role": entry.role or None, "steps": entry.steps}
        made = story.made.get(entry.pixel.key)
        about |= {"check": None, "parents": []} if made is None else _about_made(made, story)
        about["notes"] += [] if made is None else list(made.notes)
        if not entry.steps:
            about["masked"] = [_about_reason(one) for one in reasons_of(story)]
        if box and entry.pixel.window is not None:
            about["box"] = _about_box(entry.pixel, box)
        yield json.dumps(about)


def _about(pixel: Pixel) -> dict[str, Any]:
    node, place = pixel.node, pixel.place
    return {
        "id": node.id,
        "content": node.content,
        "kind": node.kind,
        "path": node.path,
        "state": node.state,
        "x": pixel.x,
        "y": pixel.y,
        "value": _finite(pixel.value),
        "unit": pixel.unit,
        "weight": _finite(pixel.weight),
        "count": _count(pixel),
        "mask": None if pixel.mask is None else names_of(pixel.mask),
        "raw": None
        if place is None
        else {"hdu": place.hdu, "amplifier": place.amplifier, "x": place.x, "y": place.y},
        "overscan_adu": _finite(pixel.overscan_adu),
        "net_adu": _finite(pixel.net_adu),
        "row": None if pixel.row is None else {name: _finite(value) for name, value in pixel.row.items()},
        "notes": list(pixel.notes),
    }


def _about_made(made: Made, story: Story) -> dict[str, Any]:
    parents = [_about_parent(one, story) for one in made.branches()]
    check = made.check
    if check is None:
        return {"check": None, "parents": parents}
    told = {
        "text": check.text,
        "value": _finite(check.value),
        "in_file": _finite(check.in_file),
        "rounding": check.rounding,
        "agrees": check.agrees,
        "problem": check.problem or None,
    }
    return {"check": told, "parents": parents}


def _about_parent(branch: Branch, story: Story) -> dict[str, Any]:
    from ..core.pixelstory.reasons import reasons_of_frame

    part = branch.pixel
    return {
        "id": part.node.id,
        "role": branch.reference.role,
        "x": part.x,
        "y": part.y,
        "entered": branch.word or None,
        "by": branch.by or None,
        "placed": None if branch.placed is None else _about_placed(branch.placed, part),
        "masked": [_about_reason(one) for one in reasons_of_frame(story, branch)],
    }


def _about_placed(placed: OnGrid, pixel: Pixel) -> dict[str, Any]:
    return {
        "x": placed.x,
        "y": placed.y,
        "value": _finite(placed.value),
        "weight": _finite(placed.weight),
        "mask": None if placed.mask is None else names_of(placed.mask),
        "kernel": placed.kernel or None,
        "sky": _finite(placed.sky),
        "scale": placed.scale,
        "area": _finite(placed.area),
        "level": placed.level,
        "illumination": placed.factor,
        "nearest": _finite(placed.nearest(pixel.value)),
        "beside": [{"x": x, "y": y, "mask": names_of(bits)} for x, y, bits in placed.beside],
    }


def _about_reason(reason: Reason) -> dict[str, Any]:
    return {
        "name": reason.name,
        "bit": reason.bit,
        "kind": reason.kind,
        "path": reason.path,
        "via": list(reason.via),
        "detail": reason.detail,
        "value": _finite(reason.value),
        "sigma": _finite(reason.sigma),
    }


def _about_box(pixel: Pixel, box: int) -> dict[str, Any]:
    window = pixel.window
    assert window is not None
    ys, xs = _box_of(pixel, box)
    planes = {
        name: [[_finite(value) for value in row] for row in plane[ys, xs].tolist()]
        for name, plane in window.planes.items()
    }
    return {"x": window.x0 + xs.start + 1, "y": window.y0 + ys.start + 1, "planes": planes}


def _finite(value: Any) -> Any:
    """A value as JSON can say it: what is not a number is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


# Cut-outs


def _cut_out(story: Story, directory: Path, messenger: Messenger) -> None:
    """Write a picture of each pixel's surroundings, over nothing but pictures."""
    from ..core.files import make_directory, refuse_others, write_whole
    from ..core.pixelstory.cutouts import cutout
    from ..core.png import SIGNATURE, encode_png

    make_directory(directory)
    start = story.pixel
    shown = [one.pixel for one in story.entries if not one.repeated and one.pixel.window is not None]
    for number, pixel in enumerate(shown):
        assert pixel.window is not None
        name = f"{_stem(start)}_{start.x}_{start.y}_{number:02d}_{pixel.node.kind}_{_stem(pixel)}.png"
        refuse_others(directory / name, (SIGNATURE,), "a PNG", "--cutouts DIR")
        write_whole(directory / name, encode_png(cutout(pixel.window)), durable=False)
    messenger.note(f"{len(shown)} cut-outs in {directory}")


def _stem(pixel: Pixel) -> str:
    name = os.path.basename(pixel.node.path).replace("[", "_").replace("]", "").translate(ONE_LINE)
    return name.split(".fit", 1)[0].split(".FIT", 1)[0][:80]
