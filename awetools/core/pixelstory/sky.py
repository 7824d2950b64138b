"""Which pixel of a file shows a place in the sky, by its own coordinate system."""

from __future__ import annotations

import math

from ..errors import BadHeader, UsageError
from ..tracing.lineage import Node
from ..units import angle_deg


def sky_of(text: str) -> tuple[float, float]:
    """RA,DEC in degrees, or as 13:29:52.7,+47:11:43 (hours and degrees). Raises UsageError."""
    parts = text.split(",")
    if len(parts) == 2:
        ra_deg, dec_deg = angle_deg(parts[0], "ra"), angle_deg(parts[1])
        if ra_deg is not None and dec_deg is not None and 0 <= ra_deg <= 360 and abs(dec_deg) <= 90:
            return ra_deg, dec_deg
    raise UsageError(
        f"--at-sky {text}: not RA,DEC in degrees, or as 13:29:52.7,+47:11:43",
        hint="awe-lineage --at-sky 202.4696,47.1952 FILE",
    )


def pixel_of_sky(node: Node, ra_deg: float, dec_deg: float) -> tuple[int, int]:
    """The FITS pixel of a product that a place lies in, in the system of its coordinates.

    Raises BadHeader without coordinates, or where they lead nowhere. The pixel may be outside.
    """
    cards = node.meta.get("wcs")
    if not cards:
        raise BadHeader(
            f"{node.path}: it has no coordinate system (WCS): where {ra_deg:g},{dec_deg:g} lies is not known",
            hint=f"awe-lineage --at X,Y {node.path}",
        )
    # Late: only who asks for the sky pays for it.
    import warnings

    from astropy.io.fits import Header
    from astropy.wcs import WCS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            x, y = (float(one) for one in WCS(Header(dict(cards))).all_world2pix(ra_deg, dec_deg, 1))
        except Exception as error:
            # What the library raises for a broken system is of many classes, not all of them public.
            last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise BadHeader(f"{node.path}: its coordinate system does not say it: {last}") from None
    if not (math.isfinite(x) and math.isfinite(y)):
        raise UsageError(f"{node.path}: {ra_deg:g},{dec_deg:g} is on the other side of the sky")
    return math.floor(x + 0.5), math.floor(y + 0.5)
