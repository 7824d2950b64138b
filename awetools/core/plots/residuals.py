"""The numbers of the five panels that show an astrometric solution: where, and how, it misses its stars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import TooFew, WrongKind
from ..frame import Table
from .amplifiers import Measured
from .figure import Curve, Panel, Plot, label_of

Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

NEEDED = ("X_PX", "Y_PX", "DRA_ARCSEC", "DDEC_ARCSEC")
MARK = "DRA_ARCSEC"
AXES = (("dRA cos Dec", 0), ("dDec", 1))
AXIS_LABEL = "residual (arcsec)"
# Beyond so many stars an arrow is the mean of a cell of about so many; at most so many cells along a side.
MOST_ARROWS, IN_CELL, MOST_CELLS = 250, 8, 24
# The long arrows (this per cent of all are shorter) have this part of the longer side.
LONG_PER_CENT, LONG_PART = 90, 0.09
# Bins of equal numbers of stars in which means are shown.
MOST_BINS, LEAST_BINS, LEAST_IN_BIN = 12, 3, 5
# Axes of residuals reach so far beyond the largest that was used; against x and y, where means of bins
# are to be seen, so many times their scatter, and so many times the largest mean.
AROUND, NEAR_SCATTER, NEAR_MEAN = 1.1, 3.5, 2.5
STARS, KEY = 6, 3


class _Stars(NamedTuple):
    """Matched stars of one solution or several: pixels, residuals (arcsec and pixels), and which were used."""

    x: Doubles
    y: Doubles
    residual: Doubles
    residual_px: Doubles
    sigma: Doubles
    mag: Doubles
    flux: Doubles
    used: Bools


def astrometry(tables: Sequence[Measured]) -> Plot:
    """Measured less catalogue positions of the stars of solutions, arcsec, in five panels.

    Arrows over the detector (in pixel directions where the solution is known, else with
    east left and north up; means of cells where stars are many); one axis against the
    other with the ellipses of 1 and 3 rms; both axes against x, y and magnitude with
    means of bins and, against magnitude, the errors that were expected. Stars that were
    clipped are grey crosses, at the edge where they lie beyond it. Raises WrongKind for
    a table without residuals, TooFew where no star was used.
    """
    stars = _joined([_stars_of(one) for one in tables])
    if not stars.used.any():
        raise TooFew(f"{tables[0].name}: no star was used in the solution")
    limit = AROUND * float(np.abs(stars.residual[stars.used]).max()) or 1.0
    x_size, y_size = (_size(tables, name, values) for name, values in (("nx", stars.x), ("ny", stars.y)))
    panels = [
        _arrows_panel(stars, x_size, y_size),
        _scatter_panel(stars, limit),
        _against_pixel(stars, stars.x, "x_px", limit, x_size),
        _against_pixel(stars, stars.y, "y_px", limit, y_size),
        _against_magnitude(stars, limit),
    ]
    return Plot(panels, "Measured \N{MINUS SIGN} catalogue positions", 2, heights=(2.0, 1.15, 1.25))


# Input


def _stars_of(one: Measured) -> _Stars:
    columns = one.table.columns
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        raise WrongKind(f"{one.name}: the table has no {', '.join(missing)}", hint="awe-astrom makes one")

    def column(name: str, default: float = math.nan) -> Doubles:
        return np.asarray(columns.get(name, np.full(len(columns[MARK]), default)), np.float64)

    x, y = column("X_PX"), column("Y_PX")
    residual = np.column_stack([column("DRA_ARCSEC"), column("DDEC_ARCSEC")])
    known = np.isfinite(residual).all(axis=1) & np.isfinite(x) & np.isfinite(y)
    used = (column("USED", 1.0) > 0) & known
    rest = column("SIGMA_ARCSEC"), column("MAG_REF"), column("FLUX_AUTO_ADU"), used
    stars = _Stars(x, y, residual, _in_pixels(one.table, x, y, residual), *rest)
    return _Stars._make(values[known] for values in stars)


def _in_pixels(table: Table, x: Doubles, y: Doubles, residual: Doubles) -> Doubles:
    """Residuals as pixels along x and y; of unknown scale, with east left, where there is no solution."""
    cards = table.meta.get("wcs")
    if not cards or not len(x):
        return residual * (-1.0, 1.0)
    from ..sky.readwcs import read_wcs

    jacobian = read_wcs(cards).jacobian(x, y) * 3600
    finite = np.isfinite(jacobian).all(axis=(1, 2))
    made = np.full(residual.shape, np.nan)
    made[finite] = np.linalg.solve(jacobian[finite], residual[finite][..., None])[..., 0]
    return made


def _joined(parts: Sequence[_Stars]) -> _Stars:
    return _Stars._make(np.concatenate(values) for values in zip(*parts, strict=True))


def _size(tables: Sequence[Measured], name: str, values: Doubles) -> float:
    """The largest side of the detectors, or what the stars span where it is not known."""
    sides = [float(one.table.meta.get(name) or 0) for one in tables]
    return max(*sides, float(values.max()))


# Panels


def _arrows_panel(stars: _Stars, nx: float, ny: float) -> Panel:
    one = _Stars._make(values[stars.used] for values in stars)
    cells = len(one.x) > MOST_ARROWS
    size = max(math.sqrt(nx * ny * IN_CELL / len(one.x)), max(nx, ny) / MOST_CELLS)
    if cells:
        one = _cell_means(one, size)
    x, y, shift, arcsec = one.x, one.y, one.residual_px, one.residual
    length, side = np.hypot(*shift.T), max(nx, ny)
    known = np.isfinite(length)
    typical = float(np.percentile(length[known], LONG_PER_CENT)) if known.any() else 0.0
    factor = LONG_PART * side / typical if typical > 0 else 1.0
    heads = np.column_stack([x, y]) + factor * np.nan_to_num(shift)
    curves = [Curve("", x, y, "arrows", STARS, heads=heads)]
    curves += _key(length, np.hypot(*arcsec.T), factor, side, ny)
    clipped = ~stars.used
    if clipped.any():
        curves.append(Curve("clipped", stars.x[clipped], stars.y[clipped], "left-out"))
    what = f"\nmeans of cells of {size:.0f} px" if cells else ""
    return Panel(
        label_of("x_px"),
        label_of("y_px"),
        f"{int(stars.used.sum())} stars, {int(clipped.sum())} clipped{what}",
        curves,
        x_limits=(0.5, nx + 0.5),
        y_limits=(0.5, ny + 0.5 + 0.09 * side),
        equal=True,
    )


def _key(length_px: Doubles, length_arcsec: Doubles, factor: float, side: float, ny: float) -> list[Curve]:
    """An arrow of a round length above the frame; its label is that length."""
    known = (length_px > 0) & np.isfinite(length_px)
    if not known.any():
        return []
    px_an_arcsec = float(np.median(length_px[known] / length_arcsec[known]))
    wanted = 0.15 * side / (factor * px_an_arcsec)
    decade = 10.0 ** math.floor(math.log10(wanted))
    round_arcsec = max(one * decade for one in (1, 2, 5) if one * decade <= wanted)
    at = np.array([[0.03 * side, ny + 0.05 * side]])
    heads = at + (round_arcsec * px_an_arcsec * factor, 0.0)
    return [Curve(f"arrow of {round_arcsec:g} arcsec", at[:, 0], at[:, 1], "arrows", KEY, heads=heads)]


def _cell_means(stars: _Stars, size: float) -> _Stars:
    """Means of the stars of each cell, weighted by their errors where these are known."""
    cell = np.floor(stars.x / size) + 1e6 * np.floor(stars.y / size)
    _, which = np.unique(cell, return_inverse=True)
    weight = _weights(stars.sigma)
    sums = np.bincount(which, weight)

    def mean(values: npt.NDArray[Any]) -> Doubles:
        if values.ndim == 2:
            return np.column_stack([mean(one) for one in values.T])
        return np.asarray(np.bincount(which, weight * values) / sums, np.float64)

    made = [mean(values) for values in stars[:-1]]
    return _Stars._make([*made, np.ones(len(sums), np.bool_)])


def _weights(sigma: Doubles) -> Doubles:
    """Inverse squares of errors; equal ones where not all are known."""
    known = np.isfinite(sigma) & (sigma > 0)
    return np.asarray(sigma, np.float64) ** -2.0 if known.all() else np.ones(len(sigma))


def _scatter_panel(stars: _Stars, limit: float) -> Panel:
    used = stars.residual[stars.used]
    mean, covariance = used.mean(axis=0), np.cov(used.T) if len(used) > 1 else np.zeros((2, 2))
    curves = [Curve("", used[:, 0], used[:, 1], "cloud", STARS)]
    curves += [_ellipse(mean, covariance, times, "1 and 3 rms" if times == 1 else "") for times in (1, 3)]
    clipped = np.clip(stars.residual[~stars.used], -limit, limit)
    if len(clipped):
        curves.append(Curve("clipped", clipped[:, 0], clipped[:, 1], "left-out"))
    rms = np.sqrt(np.square(used).mean(axis=0))
    beyond = int((np.abs(stars.residual).max(axis=1) > limit).sum())
    said = f", {beyond} beyond the frame" if beyond else ""
    return Panel(
        f"{AXES[0][0]} (arcsec)",
        f"{AXES[1][0]} (arcsec)",
        f"rms {_pair(rms, rms)} arcsec\nmean {_pair(mean, rms)}{said}",
        curves,
        marks=(0.0,),
        levels=(0.0,),
        x_limits=(-limit, limit),
        y_limits=(-limit, limit),
        equal=True,
    )


def _pair(values: Doubles, rms: Doubles) -> str:
    """The numbers of the two axes, to two digits of their rms."""
    least = float(np.min(rms))
    digits = max(0, 1 - math.floor(math.log10(least))) if least > 0 else 2
    return ", ".join(f"{one:.{min(digits, 9)}f}" for one in values).replace("-", "\N{MINUS SIGN}")


def _ellipse(mean: Doubles, covariance: Doubles, times: float, label: str) -> Curve:
    values, directions = np.linalg.eigh(covariance)
    angle = np.linspace(0, 2 * math.pi, 121)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    points = mean[:, None] + times * directions @ (np.sqrt(np.maximum(values, 0))[:, None] * circle)
    return Curve(label, points[0], points[1], "model", KEY)


def _against_pixel(stars: _Stars, at: Doubles, name: str, limit: float, size: float) -> Panel:
    """Both axes against x or y, so near that the means of bins are seen."""
    from ..pixels.stats import clipped

    means = [_bins(at[stars.used], stars, axis) for axis in (0, 1)]
    largest = max((float(np.abs(one.y).max()) for some in means for one in some), default=limit)
    scatter = clipped(stars.residual[stars.used]).stdev
    near = min(limit, max(NEAR_SCATTER * scatter, NEAR_MEAN * largest)) or limit
    return _against(stars, at, label_of(name), near, (0.5, size + 0.5))


def _against(
    stars: _Stars, at: Doubles, label: str, limit: float, limits: tuple[float, float] | None
) -> Panel:
    """Both axes against something, with the means of bins and their errors."""
    curves: list[Curve] = []
    known, clipped = stars.used & np.isfinite(at), ~stars.used & np.isfinite(at)
    for name, axis in AXES:
        curves.append(Curve(name, at[known], stars.residual[known, axis], "cloud", axis))
    if clipped.any():
        values = np.clip(stars.residual[clipped], -limit, limit)
        curves += [Curve("clipped", at[clipped], values[:, axis], "left-out") for axis in (0, 1)]
    for _, axis in AXES:
        curves += _bins(at[stars.used], stars, axis)
    beyond = int((np.abs(stars.residual[known]).max(axis=1) > limit).sum())
    note = f"{beyond} star{'s' if beyond > 1 else ''} beyond the frame" if beyond else ""
    return Panel(
        label, AXIS_LABEL, "", curves, note=note, levels=(0.0,), x_limits=limits, y_limits=(-limit, limit)
    )


def _bins(at: Doubles, stars: _Stars, axis: int) -> list[Curve]:
    """Weighted means of bins of equal numbers of used stars, with errors; nothing where stars are few."""
    values, weight = stars.residual[stars.used, axis], _weights(stars.sigma[stars.used])
    finite = np.isfinite(at)
    at, values, weight = at[finite], values[finite], weight[finite]
    count = min(MOST_BINS, len(at) // LEAST_IN_BIN)
    if count < LEAST_BINS:
        return []
    groups = np.array_split(np.argsort(at, kind="stable"), count)
    places = np.array([at[one].mean() for one in groups])
    means = np.array([np.average(values[one], weights=weight[one]) for one in groups])
    errors = np.array(
        [_error(values[one] - mean, weight[one]) for one, mean in zip(groups, means, strict=True)]
    )
    return [Curve("means of bins" if axis == 0 else "", places, means, "points", axis, errors)]


def _error(away: Doubles, weight: Doubles) -> float:
    """The error of a weighted mean, from the scatter about it."""
    part = weight / weight.sum()
    return math.sqrt(float((part * part * away * away).sum()) * len(away) / (len(away) - 1))


def _against_magnitude(stars: _Stars, limit: float) -> Panel:
    mag, label = stars.mag, "magnitude of the catalogue"
    if np.isfinite(mag).sum() < 0.5 * len(mag):
        with np.errstate(invalid="ignore", divide="ignore"):
            mag = np.where(stars.flux > 0, -2.5 * np.log10(stars.flux), np.nan)
        label = "instrumental magnitude"
    panel = _against(stars, mag, label, limit, None)
    known = stars.used & np.isfinite(mag) & np.isfinite(stars.sigma)
    expected = _expected(mag[known], stars.sigma[known])
    return Panel(
        panel.x_label,
        panel.y_label,
        curves=[*panel.curves, *expected],
        note="" if np.isfinite(mag).any() else "no magnitudes",
        levels=panel.levels,
        y_limits=panel.y_limits,
        wide=True,
    )


def _expected(mag: Doubles, sigma: Doubles) -> list[Curve]:
    """The median error that was expected of an axis, above and below, over bins of magnitude."""
    count = min(MOST_BINS, len(mag) // LEAST_IN_BIN)
    if count < LEAST_BINS:
        return []
    groups = np.array_split(np.argsort(mag, kind="stable"), count)
    places = np.array([np.median(mag[one]) for one in groups])
    middle = np.array([np.median(sigma[one]) for one in groups])
    return [
        Curve(label, places, sign * middle, "model", KEY) for sign, label in ((1, "expected error"), (-1, ""))
    ]
