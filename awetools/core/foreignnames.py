"""What the planes of other pipelines can be, by name; light, so that declarations need no camera tables."""

from __future__ import annotations

# A flux is a value of which one has the zero point, whatever the exposure time.
UNITS = ("adu", "adu/s", "e", "e/s", "nmgy", "flux")
WEIGHT_TYPES = ("weight", "variance", "rms", "relative", "none")
UNKNOWN = "unknown"
# That of coadds, in magnitudes of 1 ADU/s; all are scaled to it.
COADD_ZERO_POINT_MAG = 30.0
