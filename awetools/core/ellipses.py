"""The ellipses of sources as they are drawn and handed on: that of the Kron aperture, that of an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Columns = Mapping[str, npt.NDArray[Any]]

# What the aperture is where the record does not say: the defaults of the kind `sources`.
KRON_FACTOR, KRON_LEAST = 2.5, 3.5
# Of tables without a shape.
PLAIN_RADIUS_PX, PLAIN_RADIUS_ARCSEC = 5.0, 2.0
# How many sigma wide the ellipses of lists on the sky are.
SIGMAS = 3.0


class Ellipses(NamedTuple):
    """Semi-axes in pixels, and the angle of the longer one from x towards y in degrees; see `sky_ellipses`."""

    a_px: Doubles
    b_px: Doubles
    theta_deg: Doubles


def kron_ellipses(columns: Columns, parameters: Mapping[str, Any]) -> Ellipses:
    """The Kron apertures of sources, by their columns and the parameters in the record.

    Circles of 5 pixels where the table has no shapes, or a source has none.
    """
    size = len(next(iter(columns.values())))

    def column(name: str, default: float) -> Doubles:
        return np.asarray(columns.get(name, np.full(size, default)), np.float64)

    a, b, theta = column("A_PX", np.nan), column("B_PX", np.nan), column("THETA_DEG", 0.0)
    factor, least = (
        float(parameters.get(name, usual))
        for name, usual in (("kron_factor", KRON_FACTOR), ("kron_least", KRON_LEAST))
    )
    radius = np.maximum(factor * np.nan_to_num(column("KRON_RADIUS", 0.0)), least)
    known = np.isfinite(a) & np.isfinite(b) & (a > 0)
    return Ellipses(
        np.where(known, radius * a, PLAIN_RADIUS_PX),
        np.where(known, radius * b, PLAIN_RADIUS_PX),
        np.nan_to_num(theta),
    )


def sky_ellipses(columns: Columns) -> Ellipses:
    """The ellipses of 3 sigma of sources on the sky: semi-axes in arcsec, the angle from north through east."""
    a, b, theta = (
        np.asarray(columns[name], np.float64) for name in ("A_ARCSEC", "B_ARCSEC", "THETA_SKY_DEG")
    )
    known = np.isfinite(a) & np.isfinite(b)
    return Ellipses(
        np.where(known, SIGMAS * a, PLAIN_RADIUS_ARCSEC),
        np.where(known, SIGMAS * b, PLAIN_RADIUS_ARCSEC),
        np.nan_to_num(theta),
    )


def error_ellipses(x_error: Doubles, y_error: Doubles, covariance: Doubles) -> Ellipses:
    """The ellipses of 1 sigma of positions, from the errors of x and y and their covariance."""
    x2, y2 = np.square(x_error), np.square(y_error)
    middle, half = (x2 + y2) / 2, (x2 - y2) / 2
    reach = np.hypot(half, covariance)
    theta = 0.5 * np.degrees(np.arctan2(covariance, half))
    return Ellipses(np.sqrt(middle + reach), np.sqrt(np.maximum(middle - reach, 0.0)), theta)
