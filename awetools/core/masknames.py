"""The short names of the mask bits, for command lines and tables; light, so that `--help` need not load numpy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from .errors import UnknownName, nearest

# The bits of `pixels.mask.Bit`, by the words that people type.
MASK_NAMES: Mapping[str, int] = MappingProxyType(
    {
        "hot": 1,
        "cold": 2,
        "saturated": 4,
        "cosmic": 8,
        "trail": 16,
        "outside": 32,
        "interpolated": 64,
        "user": 128,
        "nonlinear": 256,
        "uncalibrated": 512,
        "clipped": 1024,
    }
)


def bit_of(name: str, where: str = "") -> int:
    """The bit of a name; raises UnknownName with the nearest one. where: what to say first in the message."""
    if name not in MASK_NAMES:
        known = list(MASK_NAMES)
        said = f"{where}: " if where else ""
        raise UnknownName(
            f"{said}no mask bit {name!r}{nearest(name.lower(), known)}; there are: {', '.join(known)}"
        )
    return MASK_NAMES[name]


def names_of(value: int) -> list[str]:
    """The names of the bits that are set, lowest first."""
    return [name for name, bit in MASK_NAMES.items() if value & bit]


def union_of(names: Iterable[str], where: str = "") -> int:
    """The sum of the bits of these names; raises UnknownName."""
    union = 0
    for name in names:
        union |= bit_of(name, where)
    return union
