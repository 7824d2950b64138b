"""Which pixel of a file shows a place in the sky, by its own coordinate system."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..errors import BadHeader, UsageError
from ..tracing.lineage import Node
from ..units import angle_deg

if TYPE_CHECKING:
    from astropy.wcs import WCS


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

    Raises BadHeader without coordinates, or where they lead nowhere; UsageError outside of the frame.
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
            wcs = WCS(Header(dict(cards)))
            x, y = (float(one) for one in wcs.all_world2pix(ra_deg, dec_deg, 1))
        except Exception as error:
            # What the library raises for a broken system is of many classes, not all of them public.
            last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise BadHeader(f"{node.path}: its coordinate system does not say it: {last}") from None
    # Not finite on the other side of the sky.
    seen = math.isfinite(x) and math.isfinite(y)
    nx, ny = node.meta.get("nx"), node.meta.get("ny")
    if nx and ny and not (seen and 0.5 <= x < nx + 0.5 and 0.5 <= y < ny + 0.5):
        raise _outside(node, wcs, ra_deg, dec_deg, (nx, ny))
    if not seen:
        raise UsageError(f"{node.path}: {ra_deg:g},{dec_deg:g} is on the other side of the sky")
    return math.floor(x + 0.5), math.floor(y + 0.5)


def _outside(node: Node, wcs: WCS, ra_deg: float, dec_deg: float, size: tuple[int, int]) -> UsageError:
    """What is to be said of a place beside the frame: where the frame is, and how large."""
    from astropy.wcs.utils import proj_plane_pixel_scales

    ra, dec = (float(one) for one in wcs.all_pix2world((size[0] + 1) / 2, (size[1] + 1) / 2, 1))
    sides = (60 * scale * count for scale, count in zip(proj_plane_pixel_scales(wcs), size, strict=True))
    return UsageError(
        f"{node.path}: it has no pixel at {ra_deg:.7g},{dec_deg:.7g}: the frame is "
        f"{' x '.join(f'{one:.3g}' for one in sides)} arcmin around {ra:.7g},{dec:.7g}",
        hint=f'awe-query {node.kind} "cone({ra_deg:.7g}, {dec_deg:.7g}, 0.1)" finds frames that point there',
    )
