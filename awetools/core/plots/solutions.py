"""The numbers of the plot of a global astrometric solution: its frames on the sky, and which of them fit badly."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import TooFew, WrongKind
from .amplifiers import Measured
from .figure import Curve, Panel, Plot

Doubles = npt.NDArray[np.float64]

MARK = "RMS_ARCSEC"
NEEDED = ("DETECTOR", "EXPOSURE", "RA_DEG", "DEC_DEG", "WCS", MARK)
# A frame is odd whose rms is so many scatters of all above their median.
ODD_SIGMA = 5.0
# More detectors than that cannot be told apart by colour.
MOST_DETECTORS = 7
# Their colours: black, and one that the first detectors have not.
ODD, PLAIN = 4, 6


def frames(tables: Sequence[Measured]) -> Plot:
    """Footprints of the frames of a global solution (degrees about their middle), and their rms and stars.

    Frames whose rms stands out are drawn apart and named. The lower panels are against
    the exposure in the order of their names, a curve a detector where these are few.
    Raises WrongKind for a table without frames, TooFew for one of no rows.
    """
    one = tables[0]
    if len(tables) > 1:
        raise WrongKind(f"{tables[1].name}: a plot shows one global solution", hint="a plot for each")
    missing = [name for name in NEEDED if name not in one.table.columns]
    if missing:
        raise WrongKind(f"{one.name}: the table has no {', '.join(missing)}", hint="awe-gastrom makes one")
    columns = one.table.columns
    if not len(columns[MARK]):
        raise TooFew(f"{one.name}: the solution has no frame")
    rms = np.asarray(columns[MARK], np.float64)
    odd = odd_ones(rms)
    exposures = columns["EXPOSURE"].astype(str)
    _, number = np.unique(exposures, return_inverse=True)
    panels = [_sky(columns, odd)]
    for name, label in ((MARK, "rms (arcsec)"), ("SHIFT_ARCSEC", "shift (arcsec)"), ("N_STARS", "stars")):
        if name in columns:
            panels.append(_by_exposure(columns, number + 1, np.asarray(columns[name], np.float64), label))
    return Plot(panels, "Frames of the solution", heights=(2.2, *(0.7 for _ in panels[1:])))


def odd_ones(rms: Doubles) -> npt.NDArray[np.bool_]:
    """Which frames fit much worse than most: by the median and the median deviation, or without an rms."""
    known = np.isfinite(rms)
    if not known.any():
        return ~known
    middle = float(np.median(rms[known]))
    # A tenth of the median is no oddity, however alike the others are.
    scatter = max(1.4826 * float(np.median(np.abs(rms[known] - middle))), 0.1 * middle / ODD_SIGMA)
    return ~known | (rms > middle + ODD_SIGMA * scatter)


def _sky(columns: Any, odd: npt.NDArray[np.bool_]) -> Panel:
    ra0, dec0 = _middle(columns)
    curves: list[Curve] = []
    for chosen, colour, label in ((~odd, PLAIN, "frames"), (odd, ODD, "large rms")):
        if chosen.any():
            outlines = [_outline(columns, int(row), ra0, dec0) for row in np.flatnonzero(chosen)]
            xi, eta = np.concatenate(outlines, axis=1)
            curves.append(Curve(label, xi, eta, "line", colour))
    names = [f"{columns['EXPOSURE'][row]} {columns['DETECTOR'][row]}" for row in np.flatnonzero(odd)[:3]]
    more = f" and {int(odd.sum()) - 3} more" if odd.sum() > 3 else ""
    every = np.concatenate([curve.x for curve in curves])
    low, high = float(np.nanmin(every)), float(np.nanmax(every))
    margin = 0.05 * (high - low) or 0.01
    return Panel(
        "degrees to the east",
        "degrees to the north",
        f"{len(odd)} frames about {ra0:.4f}, {dec0:+.4f}"
        + (f"\nlarge rms: {', '.join(names)}{more}" if names else ""),
        curves,
        x_limits=(high + margin, low - margin),
        equal=True,
    )


def _middle(columns: Any) -> tuple[float, float]:
    from ..sky.sphere import angles, unit_vectors

    x, y, z = unit_vectors(columns["RA_DEG"], columns["DEC_DEG"]).mean(axis=0)
    ra, dec = angles(*(np.array([one]) for one in (x, y, z)))
    return float(ra[0]), float(dec[0])


def _outline(columns: Any, row: int, ra0: float, dec0: float) -> Doubles:
    """The edge of a frame in the tangent plane, closed, with a nan behind it; its size follows from its middle."""
    from ..sky.readwcs import read_wcs
    from ..sky.sphere import to_tangent

    wcs = read_wcs(json.loads(str(columns["WCS"].astype(str)[row])))
    middle = wcs.to_pixel(float(columns["RA_DEG"][row]), float(columns["DEC_DEG"][row]))
    nx, ny = (2 * float(one) - 1 for one in middle)
    x = np.array([0.5, nx + 0.5, nx + 0.5, 0.5, 0.5])
    y = np.array([0.5, 0.5, ny + 0.5, ny + 0.5, 0.5])
    xi, eta = to_tangent(*wcs.to_sky(x, y), ra0, dec0)
    return np.stack([np.append(xi, math.nan), np.append(eta, math.nan)])


def _by_exposure(columns: Any, number: npt.NDArray[np.int64], values: Doubles, label: str) -> Panel:
    detectors = columns["DETECTOR"].astype(str)
    names = list(dict.fromkeys(sorted(detectors)))
    known = np.isfinite(values)
    if len(names) > MOST_DETECTORS:
        curves = [Curve("", number[known], values[known], "points")]
    else:
        curves = [
            Curve(f"detector {name}", number[mine], values[mine], "points", place)
            for place, name in enumerate(names)
            if (mine := known & (detectors == name)).any()
        ]
    return Panel("exposure", label, "", curves, levels=(0.0,))
