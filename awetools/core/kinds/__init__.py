"""The kinds of product, one file each; KINDS is all of them, in the order of a reduction."""

from __future__ import annotations

from ..kind import Kind
from .astrom import ASTROM
from .bias import BIAS
from .coadd import COADD
from .coldpix import COLDPIX
from .dark import DARK
from .difference import DIFFERENCE
from .domeflat import DOMEFLAT
from .flat import FLAT
from .fringe import FRINGE
from .gain import GAIN
from .gastrom import GASTROM
from .gphot import GPHOT
from .hotpix import HOTPIX
from .illumination import ILLUMINATION
from .nightflat import NIGHTFLAT
from .readnoise import READNOISE
from .reduced import REDUCED
from .regrid import REGRID
from .sourcelist import SOURCELIST
from .sources import SOURCES
from .twiflat import TWIFLAT
from .zeropoint import ZEROPOINT

KINDS: tuple[Kind, ...] = (
    READNOISE,
    BIAS,
    GAIN,
    DARK,
    HOTPIX,
    DOMEFLAT,
    TWIFLAT,
    COLDPIX,
    NIGHTFLAT,
    FLAT,
    FRINGE,
    REDUCED,
    SOURCES,
    GASTROM,
    ASTROM,
    ILLUMINATION,
    GPHOT,
    ZEROPOINT,
    SOURCELIST,
    REGRID,
    COADD,
    DIFFERENCE,
)
