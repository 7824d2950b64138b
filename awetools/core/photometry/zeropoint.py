"""The zero point of one frame, from its stars and their reference magnitudes; aperture corrections."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..errors import BadValue, Mixture, NoSolution
from ..sky.polynomial import Doubles
from .robustfit import Fit, Mask, fit

# A magnitude's error of a relative error of the flux.
POGSON = 2.5 / math.log(10)
# A colour term is fitted where so many stars tell it and their colours, but for the outer tenths, span so much.
LEAST_COLOUR_STARS = 10
# What catalogues write for a magnitude that is not known, such as 99.
NO_MAGNITUDE = 50.0
LEAST_COLOUR_RANGE_MAG = 0.3


@dataclass(frozen=True, eq=False)
class ZeroPoint:
    """The zero point: a source of flux_adu in exptime_s has the magnitude

    mag = zeropoint_mag + colour_coefficient * (colour - colour_reference_mag) - 2.5 log10(flux_adu / exptime_s)

    so zeropoint_mag is that of 1 ADU/s as the frame sees it, through its airmass and clouds, at
    the reference colour (without a colour term: of the average star).

    error_mag: standard error; from few stars it is larger, by Student's factor. scatter_mag: of
    stars beyond their errors, fitted so that chi2 is 1; chi2: reduced, by the errors alone.
    rms_mag: of the stars used. colour_origin: given, fitted, or none and why.
    above_atmosphere_mag: the zero point at airmass 0, where the extinction is given.
    used, residual_mag (n,): of the stars as given; left_out: how many for each reason, besides
    those clipped.
    """

    zeropoint_mag: float
    error_mag: float
    stars: int
    clipped: int
    scatter_mag: float
    rms_mag: float
    chi2: float
    colour_coefficient: float | None
    colour_coefficient_error: float | None
    colour_reference_mag: float | None
    colour_origin: str
    above_atmosphere_mag: float | None
    used: Mask
    residual_mag: Doubles
    left_out: Mapping[str, int] = field(default_factory=dict)


def instrumental(
    flux_adu: npt.ArrayLike, flux_error_adu: npt.ArrayLike, exptime_s: float
) -> tuple[Doubles, Doubles]:
    """-2.5 log10(flux / exptime) and its error, (n,); nan where the flux is not above 0. Raises BadValue."""
    if not (math.isfinite(exptime_s) and exptime_s > 0):
        raise BadValue(f"an exposure of {exptime_s} s has no counts per second")
    flux, error = np.asarray(flux_adu, np.float64), np.asarray(flux_error_adu, np.float64)
    flux = np.where(flux > 0, flux, np.nan)
    return -2.5 * np.log10(flux / exptime_s), POGSON * error / flux


def zero_point(
    flux_adu: npt.ArrayLike,
    flux_error_adu: npt.ArrayLike,
    exptime_s: float,
    mag_ref: npt.ArrayLike,
    mag_ref_error: npt.ArrayLike | None = None,
    *,
    colour: npt.ArrayLike | None = None,
    colour_term: float | None = None,
    fit_colour: bool = False,
    colour_reference_mag: float | None = None,
    airmass: float | None = None,
    extinction_mag: float | None = None,
    saturated: npt.ArrayLike | None = None,
    usable: npt.ArrayLike | None = None,
    clip_sigma: float = 3.0,
    least_signal_to_noise: float = 10.0,
    aperture_correction_mag: float = 0.0,
) -> ZeroPoint:
    """The zero point of matched stars, (n,) each: what it means is said at `ZeroPoint`.

    Clipped and weighted, by the errors of both magnitudes and a scatter beyond them; from the
    median on, so that 30% of variables, galaxies and blends do not move it. mag_ref_error: nan
    or None counts as none, and shows as scatter. colour_term: a known one; fit_colour: fit it,
    where there are 10 stars over 0.3 mag. colour_reference_mag: the median colour if None; give one
    for frames that are compared. extinction_mag: at airmass 1. usable: which stars are good;
    saturated ones are left out and named. aperture_correction_mag: total less aperture
    magnitude, where flux_adu is an aperture's. Raises BadValue, Mixture (columns of
    unequal length), NoSolution (no star is left, with the reasons).
    """
    _check(clip_sigma, airmass, extinction_mag, colour, colour_term, fit_colour)
    mag, error = instrumental(flux_adu, flux_error_adu, exptime_s)
    columns = [mag, error, *(_column(one, len(mag)) for one in (mag_ref, mag_ref_error, colour))]
    mag, error, reference, reference_error, index = columns
    if len(error) != len(mag):
        raise Mixture(f"{len(mag)} fluxes and {len(error)} errors of fluxes")
    good, left_out = _good(mag, error, reference, saturated, usable, least_signal_to_noise)
    with_colour = good & np.isfinite(index)
    origin = _origin(index[with_colour], colour is not None, colour_term, fit_colour)
    if origin in ("given", "fitted"):
        left_out["without a colour"] = int((good & ~with_colour).sum())
        good = with_colour
    if not good.any():
        raise _nothing(left_out, len(mag))
    values = reference - mag - aperture_correction_mag
    told = np.isfinite(reference_error) & (reference_error > 0)
    variance = error**2 + np.where(told, reference_error, 0.0) ** 2
    middle = None
    if origin in ("given", "fitted"):
        middle = float(np.median(index[good])) if colour_reference_mag is None else colour_reference_mag
    design = np.ones((len(mag), 1))
    if middle is not None and colour_term is not None:
        values = values - colour_term * (index - middle)
    elif middle is not None:
        design = np.stack([np.ones(len(mag)), index - middle], axis=1)
    made = fit(design[good], values[good], variance[good], clip_sigma)
    return _result(made, good, left_out, origin, colour_term, middle, airmass, extinction_mag)


def _check(
    clip_sigma: float,
    airmass: float | None,
    extinction_mag: float | None,
    colour: npt.ArrayLike | None,
    colour_term: float | None,
    fit_colour: bool,
) -> None:
    if not clip_sigma >= 1.5:
        raise BadValue(f"clipping at {clip_sigma} sigma would take good stars: at least 1.5")
    if extinction_mag is not None and airmass is None:
        raise BadValue(f"an extinction of {extinction_mag} mag, but the airmass is not known")
    if colour is None and (colour_term is not None or fit_colour):
        raise BadValue("a colour term, but no colours of the stars", hint="a catalogue with two bands")
    if colour_term is not None and fit_colour:
        raise BadValue(f"a colour term of {colour_term} is given and to be fitted: one of both")


def _column(given: npt.ArrayLike | None, size: int) -> Doubles:
    column = np.full(size, np.nan) if given is None else np.asarray(given, np.float64)
    if column.ndim and column.shape != (size,):
        raise Mixture(f"columns of stars of {size} and {column.size} rows")
    return np.broadcast_to(column, (size,))


def _good(
    mag: Doubles,
    error: Doubles,
    reference: Doubles,
    saturated: npt.ArrayLike | None,
    usable: npt.ArrayLike | None,
    least_signal_to_noise: float,
) -> tuple[Mask, dict[str, int]]:
    """Which stars can be used, and how many cannot, each for the first reason that holds."""
    none = np.zeros(len(mag), np.bool_)
    blown = none if saturated is None else np.asarray(saturated, np.bool_)
    bad = none if usable is None else ~np.asarray(usable, np.bool_)
    with np.errstate(invalid="ignore"):
        reasons = {
            "without a reference magnitude": ~(np.abs(reference) < NO_MAGNITUDE),
            "saturated": blown,
            "not usable": bad,
            "without a flux and an error above 0": ~(np.isfinite(mag) & np.isfinite(error) & (error > 0)),
            f"of a signal-to-noise below {least_signal_to_noise:g}": ~(
                error <= POGSON / least_signal_to_noise
            ),
        }
    good = ~none
    counts = {}
    for reason, out in reasons.items():
        counts[reason] = int((good & out).sum())
        good = good & ~out
    return good, {reason: number for reason, number in counts.items() if number}


def _origin(colours: Doubles, have: bool, colour_term: float | None, fit_colour: bool) -> str:
    """Where the colour term is from, or why there is none."""
    if colour_term is not None:
        return "given"
    if not fit_colour:
        return "none: not asked for"
    if len(colours) < LEAST_COLOUR_STARS:
        return f"none: {len(colours)} stars have a colour, {LEAST_COLOUR_STARS} are needed"
    low, high = np.percentile(colours, [10, 90])
    if high - low < LEAST_COLOUR_RANGE_MAG:
        return f"none: the colours span {high - low:.2f} mag, {LEAST_COLOUR_RANGE_MAG} is needed"
    return "fitted"


def _nothing(left_out: Mapping[str, int], size: int) -> NoSolution:
    if not size:
        return NoSolution(
            "no zero point: no star of the frame is matched to the reference catalogue",
            hint="look at the astrom product: its stars and residuals",
        )
    reasons = ", ".join(f"{number} {reason}" for reason, number in left_out.items() if number)
    return NoSolution(f"no zero point: of {size} matched stars none is left: {reasons}")


def _result(
    made: Fit,
    good: Mask,
    left_out: Mapping[str, int],
    origin: str,
    colour_term: float | None,
    middle: float | None,
    airmass: float | None,
    extinction_mag: float | None,
) -> ZeroPoint:
    used, residual = np.zeros(len(good), np.bool_), np.full(len(good), np.nan)
    used[good], residual[good] = made.used, made.residual
    value = float(made.coefficients[0])
    fitted = len(made.coefficients) == 2
    above = None
    if airmass is not None and extinction_mag is not None:
        above = value + extinction_mag * airmass
    return ZeroPoint(
        zeropoint_mag=value,
        error_mag=made.error(),
        stars=int(used.sum()),
        clipped=int(good.sum() - used.sum()),
        scatter_mag=made.scatter,
        rms_mag=float(np.sqrt(np.mean(residual[used] ** 2))),
        chi2=made.chi2,
        colour_coefficient=float(made.coefficients[1]) if fitted else colour_term,
        colour_coefficient_error=made.error(1) if fitted else None,
        colour_reference_mag=middle,
        colour_origin=origin,
        above_atmosphere_mag=above,
        used=used,
        residual_mag=residual,
        left_out={reason: number for reason, number in left_out.items() if number},
    )


@dataclass(frozen=True, eq=False)
class ApertureCorrection:
    """Of each aperture, (k,): what is added to its magnitudes to make them total, the error, the scatter, stars."""

    correction_mag: Doubles
    error_mag: Doubles
    scatter_mag: Doubles
    stars: npt.NDArray[np.int64]


def aperture_correction(
    flux_aperture_adu: npt.ArrayLike,
    flux_aperture_error_adu: npt.ArrayLike,
    flux_total_adu: npt.ArrayLike,
    flux_total_error_adu: npt.ArrayLike,
    *,
    usable: npt.ArrayLike | None = None,
    least_signal_to_noise: float = 30.0,
    clip_sigma: float = 3.0,
) -> ApertureCorrection:
    """Total less aperture magnitude, from the curve of aperture fluxes (n, k) of stars and their totals (n,).

    The total is that of AUTO or of the widest aperture, and no more total than these are. The
    noise of an aperture is part of the total's, so that only the rest counts. Raises Mixture,
    NoSolution where an aperture has no usable star.
    """
    flux, error = (np.asarray(one, np.float64) for one in (flux_aperture_adu, flux_aperture_error_adu))
    total, total_error = (np.asarray(one, np.float64) for one in (flux_total_adu, flux_total_error_adu))
    if flux.ndim != 2 or error.shape != flux.shape or not len(flux) == len(total) == len(total_error):
        raise Mixture(f"aperture fluxes of shape {flux.shape}, errors {error.shape}, totals {total.shape}")
    allowed = np.ones(len(flux), np.bool_) if usable is None else np.asarray(usable, np.bool_)
    rows = []
    for k in range(flux.shape[1]):
        inner, outer = flux[:, k], total - flux[:, k]
        with np.errstate(invalid="ignore", divide="ignore"):
            bright = (total > least_signal_to_noise * total_error) & (
                inner > least_signal_to_noise * error[:, k]
            )
            good = allowed & bright & (total_error > 0) & (error[:, k] > 0)
            rest = np.abs(total_error**2 - error[:, k] ** 2)
            sigma = POGSON * np.sqrt(rest + (outer / inner * error[:, k]) ** 2) / total
            away = -2.5 * np.log10(total / inner)
        if not good.any():
            raise NoSolution(
                f"no correction of aperture {k + 1}: none of {len(flux)} stars is bright and usable"
            )
        made = fit(np.ones((int(good.sum()), 1)), away[good], sigma[good] ** 2, clip_sigma)
        rows.append((made.coefficients[0], made.error(), made.scatter, int(made.used.sum())))
    values, errors, scatters, stars = (np.array(one) for one in zip(*rows, strict=True))
    return ApertureCorrection(values, errors, scatters, stars.astype(np.int64))
