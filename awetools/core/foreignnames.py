"""What the planes of other pipelines can be, by name; light, so that declarations need no camera tables."""

from __future__ import annotations

UNITS = ("adu", "adu/s", "e", "e/s", "nmgy")
WEIGHT_TYPES = ("weight", "variance", "rms", "relative", "none")
UNKNOWN = "unknown"
# That of coadds, in magnitudes of 1 ADU/s; all are scaled to it.
COADD_ZERO_POINT_MAG = 30.0
