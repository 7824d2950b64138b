"""The kinds of product, one file each; KINDS is all of them, in the order of a reduction."""

from __future__ import annotations

from ..kind import Kind
from .bias import BIAS
from .domeflat import DOMEFLAT
from .flat import FLAT
from .hotpix import HOTPIX
from .readnoise import READNOISE
from .reduced import REDUCED

KINDS: tuple[Kind, ...] = (READNOISE, BIAS, HOTPIX, DOMEFLAT, FLAT, REDUCED)
