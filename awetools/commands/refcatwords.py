"""The words of `awe-refcat`: pairs NAME=VALUE, cones and magnitudes; and the stores they are said of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..core.errors import BadValue, UsageError

if TYPE_CHECKING:
    from ..core.store import Store

_RADIUS = re.compile(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*(deg|arcmin|arcsec)?\s*", re.IGNORECASE)
_PER_DEG = {"": 1, "deg": 1, "arcmin": 60, "arcsec": 3600}


def stores() -> Sequence[Store]:
    """The stores of AWE_PATH, the nearest first."""
    from ..core.store import search_path
    from ..core.workspace import working_directory

    return search_path(working_directory())


def pairs(texts: Sequence[str], option: str, form: str) -> dict[str, str]:
    """What an option says by name; raises UsageError for a name that is said twice."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = (one.strip() for one in text.partition("="))
        if not (name and equals and value):
            raise UsageError(f"{option} {text!r:.100}: is not {form}")
        if name in found:
            raise UsageError(f"{option}: {name} is said twice: {found[name]!r:.50} and {value!r:.50}")
        found[name] = value
    return found


def cone_of(text: str) -> tuple[float, float, float]:
    """RA, Dec and radius in degrees; raises UsageError."""
    from ..core.expressions.skyregion import Region
    from ..core.units import angle_deg

    parts = text.split(",")
    if len(parts) != 3:
        raise UsageError(f"{text!r:.100} is not RA,DEC,RADIUS", hint="awe-refcat cone NAME 202.47,47.2,0.2")
    ra, dec = angle_deg(parts[0], "ra"), angle_deg(parts[1])
    found = _RADIUS.fullmatch(parts[2])
    try:
        radius = float(found[1]) / _PER_DEG[(found[2] or "").lower()] if found else None
    except ValueError:
        radius = None
    for value, part, what in ((ra, parts[0], "RA"), (dec, parts[1], "Dec"), (radius, parts[2], "radius")):
        if value is None:
            raise UsageError(
                f"{text!r:.100}: {part.strip()!r:.50} is no {what}",
                hint="degrees, or 13:29:53,47:11:43,10arcmin",
            )
    assert ra is not None and dec is not None and radius is not None
    _, cone_dec, cone_radius = Region.of("cone", (ra, dec, radius)).numbers
    return ra % 360, cone_dec, cone_radius


def magnitude(band: str, text: str) -> float:
    """The limit of a band; raises BadValue."""
    try:
        limit = float(text)
    except ValueError:
        limit = float("nan")
    if limit != limit:
        raise BadValue(f"--faintest {band}={text:.50}: no magnitude", hint=f"--faintest {band}=18")
    return limit
