"""Which pixels of its inputs entered a pixel of a product: one function a kind, by default the same place.

Kinds on a grid of the sky are not here: where their pixels are in a frame is told by coordinates
(`gridded`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import BadHeader
from ..kinds.difference import shift_of
from ..record import Record
from ..sections import Amplifier, amplifiers_from_meta
from ..tracing.lineage import Reference


@dataclass(frozen=True)
class Entered:
    """Where an input entered a pixel, in the input's own pixels (FITS, from 1).

    x, y are None where no pixel of the input entered by itself: a table was made of
    whole amplifiers.
    """

    reference: Reference
    x: float | None
    y: float | None


@dataclass(frozen=True)
class RawPlace:
    """A pixel in the raw file: amplifier, its number, HDU (None: not known), and FITS pixels of that HDU's image."""

    amplifier: str
    number: int
    hdu: int | None
    x: int
    y: int


Source = Callable[[Record, Sequence[Reference], float, float], Iterator[Entered]]


def same_place(_record: Record, inputs: Sequence[Reference], x: float, y: float) -> Iterator[Entered]:
    """Each input at the pixel of the product itself: nothing was moved."""
    return (Entered(one, x, y) for one in inputs)


def whole_amplifier(_record: Record, inputs: Sequence[Reference], _x: float, _y: float) -> Iterator[Entered]:
    """Each input, but no pixel of it by itself."""
    return (Entered(one, None, None) for one in inputs)


def beside(record: Record, inputs: Sequence[Reference], x: float, y: float) -> Iterator[Entered]:
    """The pixel of an image, and that of its reference, which covers another part of the same grid."""
    shift_x, shift_y = shift_of(record["quality"]["measures"])
    for one in inputs:
        moved = one.role == "reference"
        yield Entered(one, x - shift_x if moved else x, y - shift_y if moved else y)


SOURCES: Mapping[str, Source] = {
    "readnoise": whole_amplifier,
    "gain": whole_amplifier,
    "difference": beside,
}


def entered(
    kind: str, record: Record, inputs: Sequence[Reference], x: float | None, y: float | None
) -> list[Entered]:
    """What entered a pixel of a product of this kind, in the order of the inputs."""
    if x is None or y is None:
        return list(whole_amplifier(record, inputs, 0, 0))
    return list(SOURCES.get(kind, same_place)(record, inputs, x, y))


def amplifiers_of_raw(used: Mapping[str, Any], known: Mapping[str, Any]) -> tuple[Amplifier, ...]:
    """The amplifiers of a raw frame as a product used them, with the HDUs that its file has now.

    used: the meta in the product's record, whose sections do not say the HDU (packing
    moves it). known: the meta of the frame itself. HDU -1: not known. Raises
    BadHeader for sections that do not fit together.
    """
    sections = used.get("sections") or known.get("sections")
    if not sections:
        raise BadHeader("where its amplifiers lie is not known: neither record says it")
    hdus = {one.get("amp"): one.get("hdu") for one in known.get("sections") or ()}
    filled = [dict(one) | {"hdu": _hdu(one, hdus)} for one in sections]
    return amplifiers_from_meta(filled)


def _hdu(one: Mapping[str, Any], hdus: Mapping[Any, Any]) -> int:
    found = hdus.get(one.get("amp"))
    found = one.get("hdu") if found is None else found
    return -1 if found is None else int(found)


def amplifier_at(amplifiers: Sequence[Amplifier], x: int, y: int) -> int | None:
    """The number of the amplifier that read a pixel of the trimmed detector (FITS pixels); None beside all."""
    for number, amp in enumerate(amplifiers):
        if amp.target.x0 < x <= amp.target.x1 and amp.target.y0 < y <= amp.target.y1:
            return number
    return None


def raw_place(amplifiers: Sequence[Amplifier], x: int, y: int) -> RawPlace | None:
    """Where a pixel of the trimmed, assembled detector (FITS pixels) lies in the raw file; None if it is in none."""
    number = amplifier_at(amplifiers, x, y)
    if number is None:
        return None
    amp = amplifiers[number]
    across, up = x - 1 - amp.target.x0, y - 1 - amp.target.y0
    column = amp.data.x1 - 1 - across if amp.target.flip_x else amp.data.x0 + across
    row = amp.data.y1 - 1 - up if amp.target.flip_y else amp.data.y0 + up
    return RawPlace(amp.name, number, amp.hdu if amp.hdu >= 0 else None, column + 1, row + 1)
