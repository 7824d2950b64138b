"""Why a pixel is masked: each bit followed up to the product that set it first, and the value that made it so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..masknames import MASK_NAMES, names_of
from ..maskreport import LEVELS, PARAMETERS
from ..pixels.stats import clipped
from .arithmetic import of_amplifier
from .gridded import GRIDDED
from .values import Branch, Made, OnGrid, Pixel, name_of
from .walk import Story

# What a pixel is compared with: that many pixels at least.
LEAST_AROUND = 20
# More than this part of a line around a pixel has the bit too: the line is bad, not the pixel.
LINE_FRACTION = 0.5
FILLED = "a defect was filled from the pixels around it"


@dataclass(frozen=True)
class Reason:
    """Why a pixel has a mask bit: the product that set it first, the products it came by, and a sentence.

    kind, path: of that product. via: the products between it and the one that was asked for.
    value: what made it so, where it is one number; sigma: how far that is off, in noises.
    """

    name: str
    bit: int
    kind: str
    path: str
    via: tuple[str, ...]
    detail: str
    value: float | None = None
    sigma: float | None = None


def reasons_of(story: Story) -> list[Reason]:
    """Each bit of the pixel, lowest first, with where it was set first; several where several products did."""
    mask = story.pixel.mask or 0
    found: list[Reason] = []
    for name in names_of(mask):
        found += _first_of(story, story.pixel, name)
    return found


def _first_of(story: Story, pixel: Pixel, name: str) -> list[Reason]:
    """Where a bit of a pixel was set first, each product once."""
    origins: dict[str, Reason] = {}
    for one in sorted(_origins(story, pixel, name, ()), key=lambda one: len(one.via)):
        origins.setdefault(one.path, one)
    return list(origins.values())


def _origins(story: Story, pixel: Pixel, name: str, via: tuple[str, ...]) -> Iterator[Reason]:
    """The pixels that had the bit first."""
    made = story.made.get(pixel.key)
    inner = (*via, pixel.node.path)
    above = [] if made is None else _above(made, name)
    for part, beside in above:
        for one in _origins(story, part, name, inner):
            yield _from_beside(one, part) if beside else one
    if above:
        return
    detail, value, sigma = _detail(story, pixel, made, name)
    unknown = [] if made is None else _unknown(made)
    said = "; ".join(one for one in (detail, *unknown) if one)
    yield Reason(name, MASK_NAMES[name], pixel.node.kind, pixel.node.path, via, said, value, sigma)


def _above(made: Made, name: str) -> list[tuple[Pixel, bool]]:
    """The pixels that may have brought a bit, and whether it is one beside that of the part."""
    if made.placed and name == "clipped":
        return []
    found = [one for branch in made.branches() if branch.word != "left out" for one in _pixels(branch)]
    return [(pixel, beside) for pixel, beside in found if (pixel.mask or 0) & MASK_NAMES[name]]


def _pixels(branch: Branch) -> Iterator[tuple[Pixel, bool]]:
    yield branch.pixel, False
    yield from ((one, True) for one in branch.beside)


def _from_beside(reason: Reason, pixel: Pixel) -> Reason:
    """The same for a bit that a pixel of the frame brought which is not the nearest one."""
    detail = f"its pixel {pixel.x},{pixel.y} beside" + (f"; {reason.detail}" if reason.detail else "")
    return replace(reason, detail=detail)


def _unknown(made: Made) -> list[str]:
    """Inputs that may have set a bit, but cannot be read."""
    return [
        f"{role} {name_of(part.node)} is {part.node.state}, and may have set it"
        for role, part in ((one.role, part) for one, part in made.parts)
        if part.value is None and part.node.state in ("deleted", "changed") and part.place is None and part.x
    ]


Detail = tuple[str, float | None, float | None]


def _detail(story: Story, pixel: Pixel, made: Made | None, name: str) -> Detail:
    """Why a product itself set a bit: the value that made it so, and the parameters that decided."""
    if made is None:
        return "why is not on record", None, None
    foreign = next(
        (part for one, part in made.parts if one.role == "mask" and part.node.kind == "foreign"), None
    )
    if foreign is not None:
        held = "" if foreign.value is None else f", which holds {foreign.value:g} there"
        return f"from the mask {name_of(foreign.node)}{held}", foreign.value, None
    text, value, sigma = _value(story, pixel, made, name)
    line = _line(pixel, MASK_NAMES[name])
    parameters = [
        f"{one} {made.parameter(one)}"
        for one in made.record["recipe"]["parameters"]
        if one.startswith(PARAMETERS.get(name, ()))
    ]
    return "; ".join(one for one in (text, line, ", ".join(parameters)) if one), value, sigma


def _value(story: Story, pixel: Pixel, made: Made, name: str) -> Detail:
    if made.placed or pixel.node.kind in GRIDDED:
        return _on_grid(pixel, made, name), None, None
    if name in ("hot", "cold") and made.part("master") is not None:
        return _departure(story, _part(made, "master"))
    if name == "cold" and made.part("flat") is not None:
        return _ratio(story, _part(made, "flat"))
    if name in LEVELS:
        return _level(made, name)
    if name in ("cosmic", "trail"):
        text, value, sigma = _departure(story, pixel)
        why = _below(pixel, made, sigma) if name == "cosmic" else ""
        return f"found in this frame: {text}{why}", value, sigma
    if name in ("outside", "uncalibrated"):
        return _nothing(story, pixel, made, name), None, None
    return "", None, None


def _on_grid(pixel: Pixel, made: Made, name: str) -> str:
    """Why a pixel on a grid has a bit that no nearest pixel of its frames has."""
    frames = [(name_of(one.pixel.node), one) for one in made.branches() if one.placed is not None]
    if name == "clipped":
        clipped = [(frame, one.placed) for frame, one in frames if one.word == "clipped"]
        return "; ".join(_off(frame, placed, pixel.value) for frame, placed in clipped if placed is not None)
    if name == "outside":
        return "no frame has a value there" if frames else "no frame is there"
    if name == "interpolated":
        return "; ".join([FILLED, *(f"pixel {text}" for text in _filled(frames))])
    return ""


def _filled(frames: Sequence[tuple[str, Branch]]) -> Iterator[str]:
    """The nearest pixels that had to be filled, in words."""
    for frame, one in frames:
        bits = (one.pixel.mask or 0) & ~MASK_NAMES["interpolated"]
        if bits and one.placed is not None and (one.placed.mask or 0) & MASK_NAMES["interpolated"]:
            yield f"{one.pixel.x},{one.pixel.y} of {frame} is {' '.join(names_of(bits))}"


def _off(frame: str, placed: OnGrid, value: float | None) -> str:
    """How far a clipped value is off what was kept, in its own noise."""
    if placed.value is None or value is None or not placed.weight:
        return f"{frame}, of a value that is not known"
    sigma = abs(placed.value - value) * placed.weight**0.5
    return f"{frame} has {placed.value:.6g}, {sigma:.3g} of its sigma from what was kept"


def reasons_of_frame(story: Story, branch: Branch) -> list[Reason]:
    """Why a frame has no value at a pixel of a grid: each bit of its mask there, and what set it first."""
    if branch.placed is None or branch.word != "masked":
        return []
    pixel, found = branch.pixel, []
    for name in names_of(branch.placed.mask or 0):
        if (pixel.mask or 0) & MASK_NAMES[name]:
            found += _first_of(story, pixel, name)
            continue
        near = [one for one in branch.beside if (one.mask or 0) & MASK_NAMES[name]]
        for one in near:
            found += [_from_beside(reason, one) for reason in _first_of(story, one, name)]
        if not near:
            text = FILLED if name == "interpolated" else ""
            found.append(Reason(name, MASK_NAMES[name], pixel.node.kind, pixel.node.path, (), text))
    return found


def _below(pixel: Pixel, made: Made, sigma: float | None) -> str:
    """Why a pixel is a cosmic ray that is less than the recipe's sigma above those around it."""
    limit = made.parameter("cosmic_sigma")
    if sigma is None or not isinstance(limit, int | float) or sigma >= limit:
        return ""
    mask = None if pixel.window is None else pixel.window.planes.get("MASK")
    if pixel.window is not None and mask is not None:
        column, row = pixel.window.at
        around = mask[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
        if int(((around & MASK_NAMES["cosmic"]) != 0).sum()) > 1:
            return "; below cosmic_sigma by itself: less is asked beside another pixel that is hit"
    return "; the recipe's sigma is not of the level, but of how sharp the pixel is"


def _part(made: Made, role: str) -> Pixel:
    part = made.part(role)
    assert part is not None
    return part


def _departure(story: Story, pixel: Pixel) -> Detail:
    """How far a pixel is off those around it, in its own noise."""
    said = f"{pixel.node.kind} {name_of(pixel.node)}"
    if pixel.value is None:
        return f"{said} is {pixel.node.state}: its value is not known", None, None
    text = f"{pixel.node.kind} pixel value {_number(pixel)}"
    disagree = ""
    if pixel.weight == 0 and pixel.mask is None:
        disagree = "; its weight is 0: " + ("the exposures disagree" if pixel.value else "it has no data")
    around = _around(story, pixel)
    noise = _noise(pixel, around)
    if around is None or not noise:
        return text + disagree, pixel.value, None
    sigma = (pixel.value - float(np.median(around))) / noise
    side = "above" if sigma >= 0 else "below"
    return f"{text}, {abs(sigma):.3g} sigma {side} the pixels around it{disagree}", pixel.value, sigma


def _ratio(story: Story, pixel: Pixel) -> Detail:
    """How a pixel of a flat compares with those around it."""
    if pixel.value is None:
        return (
            f"{pixel.node.kind} {name_of(pixel.node)} is {pixel.node.state}: its value is not known",
            None,
            None,
        )
    around = _around(story, pixel, radius=4)
    if around is None or not float(np.median(around)):
        return f"{pixel.node.kind} pixel value {_number(pixel)}", pixel.value, None
    ratio = pixel.value / float(np.median(around))
    noise = _noise(pixel, around)
    sigma = (pixel.value - float(np.median(around))) / noise if noise else None
    text = f"{pixel.node.kind} pixel value {_number(pixel)}, {ratio:.4g} of the median of the 9 x 9 pixels about it"
    return text, pixel.value, sigma


def _level(made: Made, name: str) -> Detail:
    """The counts of the raw pixel beside the level that decides."""
    raw = made.part("raw")
    if raw is None:
        return "", None, None
    if raw.value is None or raw.place is None:
        return f"raw {name_of(raw.node)} is {raw.node.state}: its counts are not known", None, None
    gain = made.part("gain")
    row = gain.row if gain is not None and gain.row else {}
    counts = f"raw value {raw.value:g} ADU"
    above_zero = float(row.get("NONLINEAR_ADU") or 0) if name == "nonlinear" else 0.0
    if above_zero and raw.net_adu is not None:
        return (
            f"{counts}, {raw.net_adu:.6g} above the overscan; linear to {above_zero:.6g} ADU",
            raw.value,
            None,
        )
    limit = of_amplifier(made.used("raw").get(LEVELS[name]), raw.place.number)
    if limit is None:
        return f"{counts}, no limit known", raw.value, None
    if raw.value >= limit:
        return f"{counts}, at or above the limit of {limit:g} ADU", raw.value, None
    beside = "beside a pixel above it, or a bleed" if name == "saturated" else "not by its own counts"
    return f"{counts}, below the limit of {limit:g} ADU: {beside}", raw.value, None


def _nothing(story: Story, pixel: Pixel, made: Made, name: str) -> str:
    """Why a pixel has no value or no calibration."""
    empty = [
        f"{one.role} {name_of(part.node)} has weight 0 there"
        for one, part in made.parts
        if one.role in ("bias", "dark", "flat", "domeflat", "twiflat", "nightflat", "master")
        and part.weight == 0
    ]
    if empty and name == "uncalibrated":
        return "; ".join(empty)
    low = made.parameter("min_response")
    fine = next(
        (part for one, part in made.parts if one.role.endswith("flat") and part.value is not None), None
    )
    if low is not None and fine is not None and fine.value is not None:
        return f"{fine.node.kind} pixel value {_number(fine)}: its response is below the least, or unknown"
    raw = made.part("raw") if made.pixel.node.kind == "reduced" else None
    if raw is not None and raw.value is not None and not np.isfinite(raw.value):
        return f"raw value {raw.value} is not a number"
    if name == "uncalibrated" and pixel.weight == 0 and raw is None:
        empty.append("weight 0: no exposure has a usable value there")
    notes = [text for role, text in _said(made) if role.startswith(("raw", "amplifier"))]
    if raw is not None and raw.window is not None and _is_constant(story, raw):
        notes.append(f"the counts around it are all {raw.value:g} ADU: the amplifier was not read out")
    if made.words and all(word != "kept" for word, _ in made.words):
        empty.append(f"its exposures: {', '.join(sorted({word for word, _ in made.words}))}")
    return "; ".join([*notes, *empty])


def _said(made: Made) -> list[tuple[str, str]]:
    """What the record says of what was taken instead of an input, or left out of one."""
    instead = made.record["recipe"].get("instead") or {}
    return [(str(role), str(text)) for role, text in instead.items()]


def _is_constant(story: Story, raw: Pixel) -> bool:
    around = _around(story, raw)
    return around is not None and bool((around == raw.value).all())


def _around(story: Story, pixel: Pixel, radius: int | None = None) -> npt.NDArray[Any] | None:
    """The good pixels around a pixel, of its own amplifier, without itself; None where they are too few."""
    window = pixel.window
    if window is None:
        return None
    values = window.planes[window.first]
    use = np.isfinite(values)
    if "MASK" in window.planes and window.first != "MASK":
        use &= window.planes["MASK"] == 0
    elif "WEIGHT" in window.planes:
        use &= window.planes["WEIGHT"] > 0
    use[window.at[1], window.at[0]] = False
    use &= _near(window.at, values.shape, radius) & _same_amplifier(story, pixel)
    return values[use] if np.count_nonzero(use) >= LEAST_AROUND else None


def _near(at: tuple[int, int], shape: tuple[int, ...], radius: int | None) -> npt.NDArray[np.bool_]:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    if radius is None:
        return np.ones(shape, np.bool_)
    near: npt.NDArray[np.bool_] = (abs(rows - at[1]) <= radius) & (abs(columns - at[0]) <= radius)
    return near


def _same_amplifier(story: Story, pixel: Pixel) -> npt.NDArray[np.bool_]:
    """True in the window where the pixel's own amplifier has read, as a raw frame at the same place tells."""
    window = pixel.window
    assert window is not None
    values = window.planes[window.first]
    inside = np.ones(values.shape, np.bool_)
    same = (one.pixel for one in story.entries if (one.pixel.x, one.pixel.y) == (pixel.x, pixel.y))
    box = next((one.box for one in same if one.box is not None), None)
    if box is None:
        return inside
    rows, columns = np.ogrid[: values.shape[0], : values.shape[1]]
    inside &= (rows + window.y0 >= box.y0) & (rows + window.y0 < box.y1)
    inside &= (columns + window.x0 >= box.x0) & (columns + window.x0 < box.x1)
    return inside


def _noise(pixel: Pixel, around: npt.NDArray[Any] | None) -> float | None:
    """The noise of a pixel: the scatter around it, or what the usual weight says if that is more."""
    if around is None or pixel.window is None:
        return None
    scatter = clipped(around.astype(np.float32)).stdev
    weights = pixel.window.planes.get("WEIGHT")
    known = None if weights is None else weights[weights > 0]
    model = 0.0 if known is None or not known.size else float(1 / np.sqrt(np.median(known)))
    return max(scatter, model) or None


def _line(pixel: Pixel, bit: int) -> str:
    """Whether most of the column or the row around a pixel has the bit as well."""
    window = pixel.window
    mask = None if window is None else window.planes.get("MASK")
    if window is None or mask is None or min(mask.shape) < 5:
        return ""
    marked = (mask & bit) != 0
    column, row = float(marked[:, window.at[0]].mean()), float(marked[window.at[1]].mean())
    if max(column, row) <= LINE_FRACTION or min(column, row) > LINE_FRACTION:
        return ""
    return "its column is masked around it" if column > row else "its row is masked around it"


def _number(pixel: Pixel) -> str:
    unit = {"adu": " ADU", "adu/s": " ADU/s"}.get(pixel.unit, f" {pixel.unit}" if pixel.unit else "")
    return f"{pixel.value:.6g}{unit}"
