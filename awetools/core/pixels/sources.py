"""Sources of an image and what is measured of each: positions, shapes, fluxes, errors, and flags that say why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntFlag
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import BadValue, Mixture
from .sourcefind import MERGED, OVERFLOW, TRUNCATED, Search, extract
from .sourceseeing import USUAL_FWHM_PX, first_seeing, places_of, width_of
from .sourcesky import Ready, make_ready
from .sourcestamp import (
    FWHM_SIGMA,
    LARGEST_PX,
    LIMITED,
    NO_CENTROID,
    NO_HALF,
    NO_KRON,
    NO_PETRO,
    PETRO_CUT,
    Field,
    Measuring,
    measure_places,
)
from .sourcestars import Stars, point_like

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

_CROWDED_PART = 0.1
# Cells of the frame to count sources in: so many a side at most, with so many sources each at least.
_MOST_CELLS, _IN_A_CELL = 8, 40


class Flag(IntFlag):
    """Why a measurement of a source may be off."""

    CROWDED = 1
    BLENDED = 2
    SATURATED = 4
    EDGE = 8
    INCOMPLETE = 16
    NO_CENTROID = 32
    MASKED = 64
    NO_KRON = 128
    NO_PETROSIAN = 256
    NO_HALF_LIGHT = 512
    LIMITED = 1024
    SHARP = 2048
    NOT_DEBLENDED = 4096


FLAG_NAMES: Mapping[Flag, str] = MappingProxyType(
    {
        Flag.CROWDED: "more than a tenth of the aperture belongs to neighbours",
        Flag.BLENDED: "was separated from a neighbour",
        Flag.SATURATED: "saturated pixels within",
        Flag.EDGE: "touches the edge of the image",
        Flag.INCOMPLETE: "pixels of the aperture are missing",
        Flag.NO_CENTROID: "no windowed centroid: the isophotal one stands",
        Flag.MASKED: "masked pixels within",
        Flag.NO_KRON: "no Kron radius: the least one stands",
        Flag.NO_PETROSIAN: "no Petrosian radius: the least one stands, or it reaches too far",
        Flag.NO_HALF_LIGHT: "no half-light radius: the flux is not above 0",
        Flag.LIMITED: "larger than what is measured",
        Flag.SHARP: "narrower than a star",
        Flag.NOT_DEBLENDED: "too many parts to separate",
    }
)


@dataclass(frozen=True)
class SourceSettings:
    """How sources are sought and measured.

    ``threshold_sigma`` counts in the noise of the *filtered* image; the filter is a Gaussian of
    ``filter_fwhm`` times the seeing. ``seeing_px`` 0: measured first. ``noise_factor``
    multiplies the background's noise in all errors (correlated noise); 0: as measured in
    the filtered image. ``recentre_sigma``: how far a given place may move, in sigma of its window.
    """

    threshold_sigma: float = 4.0
    minimum_area_px: int = 4
    filter_fwhm: float = 0.6
    deblend_levels: int = 32
    deblend_contrast: float = 0.0005
    mesh_px: int = 64
    seeing_px: float = 0.0
    apertures_px: tuple[float, ...] = (5.0,)
    kron_factor: float = 2.5
    kron_least: float = 3.5
    petrosian_factor: float = 2.0
    petrosian_level: float = 0.2
    noise_factor: float = 1.0
    recentre_sigma: float = 0.0

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if not value >= least:
                raise BadValue(f"{name} {value}: it must be {least} at least")
        if not self.threshold_sigma > 0:
            raise BadValue(f"threshold_sigma {self.threshold_sigma}: it must be more than 0")
        for radius in self.apertures_px:
            if not 0 < radius <= LARGEST_PX - 2:
                raise BadValue(
                    f"an aperture of radius {radius} pixels: it must be above 0, {LARGEST_PX - 2} at most"
                )


_LEAST = MappingProxyType(
    {"minimum_area_px": 1, "filter_fwhm": 0, "deblend_levels": 1, "deblend_contrast": 0}
    | {"mesh_px": 2, "seeing_px": 0, "kron_factor": 0.1, "kron_least": 0.5, "petrosian_factor": 0.1}
    | {"petrosian_level": 0.01, "noise_factor": 0, "recentre_sigma": 0}
)


class Plane(NamedTuple):
    """An image to detect on: values, weight and mask as of :func:`find_sources`."""

    data: Array
    weight: Array | None = None
    mask: Array | None = None


class Sources(NamedTuple):
    """Columns, one row a source; numbers about the frame; the map of which pixel is whose.

    ``segmentation`` (ny, nx) int32 holds the row of a source plus 1, 0 for sky (None for forced
    photometry without one).
    """

    columns: dict[str, Array]
    measures: dict[str, float]
    segmentation: npt.NDArray[np.int32] | None


def find_sources(
    data: Array,
    weight: Array | None = None,
    mask: Array | None = None,
    gain_e_adu: float = 0.0,
    settings: SourceSettings | None = None,
    detect: Plane | None = None,
) -> Sources:
    """Find the sources of an image (ny, nx) in ADU and measure them.

    ``weight`` is the inverse variance of the *background* (ADU^-2, 0 where masked; None:
    measured), ``mask`` of :class:`~.mask.Bit`; ``gain_e_adu`` 0 is without photon noise of
    the sources. With ``detect`` sources are sought on that image, of the same shape, and
    measured on this one. First the seeing is measured on bright sources, then the image
    is filtered to match it and extracted by sep. Columns carry their units in
    their names (radii of Kron and Petrosian count in isophotal axes);
    positions are 0-based pixels. No source at all gives columns of no rows. ``BadPixels`` where
    no pixel can be used; ``Mixture`` if the shapes differ.

    Sources: Bertin and Arnouts 1996 (A&AS 117, 393) and Barbary 2016 (JOSS 1, 58) for extraction
    and AUTO fluxes; Kron 1980 (ApJS 43, 305); Petrosian 1976 (ApJ 209, L1). The windowed centre
    is where the Gaussian-weighted first moments vanish, found by Newton's method; its
    errors and those of second moments follow from the same equations by
    propagation of each pixel's noise.
    """
    settings = settings or SourceSettings()
    ready = make_ready(data, weight, mask, settings.mesh_px)
    sought = ready
    if detect is not None:
        if detect.data.shape != data.shape:
            raise Mixture(f"detection on an image of shape {detect.data.shape}, measurement on {data.shape}")
        sought = make_ready(detect.data, detect.weight, detect.mask, settings.mesh_px)
    seeing = settings.seeing_px or first_seeing(sought, _search(settings), settings.apertures_px)
    objects, segments, ratio, edges = extract(sought, seeing or USUAL_FWHM_PX, _search(settings))
    if detect is not None:
        # The noise of this image is not in the ellipses.
        edges = np.full(len(objects), -1.0)
        seeing = settings.seeing_px or first_seeing(ready, _search(settings), settings.apertures_px)
    how = _measuring(ready, seeing, gain_e_adu, settings, ratio)
    how = replace(how, filter_px=settings.filter_fwhm * (seeing or USUAL_FWHM_PX) / FWHM_SIGMA)
    shape = np.column_stack([objects[name] for name in ("cxx", "cyy", "cxy")]).astype(np.float64)
    place = places_of(objects["x"], objects["y"], objects["a"], shape, how, settings.apertures_px, edges)
    names = np.arange(1, len(objects) + 1, dtype=np.int32)
    lost = np.zeros(len(objects), np.bool_)
    if detect is not None:
        # The centre is that of the image of detection: noise must not draw apertures away.
        there = Field(sought.image, sought.weight, sought.flags, segments)
        raw = measure_places(there, place, names, np.empty(0), how)
        place[:, 0], place[:, 1], lost = raw["x"], raw["y"], raw["found"].astype(np.int32) & NO_CENTROID > 0
        how = replace(how, walk_sigma=0.0)
    columns, stars = _columns(ready, data, segments, place, names, how, settings, seeing)
    if detect is not None:
        columns["x_px"], columns["y_px"] = objects["x"], objects["y"]
        columns["flags"] &= ~int(Flag.NO_CENTROID)
        columns["flags"][lost] |= int(Flag.NO_CENTROID)
    columns["a_px"], columns["b_px"] = objects["a"], objects["b"]
    columns["theta_deg"] = np.degrees(objects["theta"])
    columns["flags"] |= _extraction_flags(objects)
    return Sources(columns, _measures(columns, ready, seeing, ratio, stars), segments)


def measure_at(
    data: Array,
    x: Array,
    y: Array,
    weight: Array | None = None,
    mask: Array | None = None,
    gain_e_adu: float = 0.0,
    settings: SourceSettings | None = None,
    segmentation: npt.NDArray[np.int32] | None = None,
) -> Sources:
    """Measure an image at given places (0-based pixels): forced photometry.

    Columns and arguments as of :func:`find_sources`. The ellipse of AUTO and Petrosian
    fluxes is a circle of the seeing's sigma; apertures lie about the windowed centre only
    where ``segmentation`` names the place's source (the one whose pixel it lies on), else
    about the place itself: without it the centre is sought no farther than
    ``recentre_sigma`` says, and neighbours are not masked. Places outside the image, or
    not finite, give nan and ``INCOMPLETE``.
    """
    settings = settings or SourceSettings()
    x, y = (np.atleast_1d(np.asarray(one, np.float64)) for one in (x, y))
    if x.shape != y.shape or x.ndim != 1:
        raise Mixture(f"{x.shape} positions in x and {y.shape} in y")
    ready = make_ready(data, weight, mask, settings.mesh_px)
    if segmentation is not None and segmentation.shape != data.shape:
        raise Mixture(f"a segmentation map of shape {segmentation.shape} for an image of {data.shape}")
    seeing = settings.seeing_px or first_seeing(ready, _search(settings), settings.apertures_px)
    how = _measuring(ready, seeing, gain_e_adu, settings, 1.0)
    ny, nx = data.shape
    inside = (x >= -0.5) & (y >= -0.5) & (x < nx - 0.5) & (y < ny - 0.5)
    at_x, at_y = np.where(inside, x, 0.0), np.where(inside, y, 0.0)
    if segmentation is None:
        segments = np.zeros(data.shape, np.int32)
        how = replace(how, walk_sigma=settings.recentre_sigma)
    else:
        segments = np.ascontiguousarray(segmentation, np.int32)
    names = segments[np.floor(at_y + 0.5).astype(np.int64), np.floor(at_x + 0.5).astype(np.int64)]
    shape = np.tile([how.sigma_px**-2, how.sigma_px**-2, 0.0], (len(x), 1))
    place = places_of(at_x, at_y, np.full(len(x), how.sigma_px), shape, how, settings.apertures_px)
    columns, stars = _columns(ready, data, segments, place, names, how, settings, seeing)
    columns["a_px"] = columns["b_px"] = np.full(len(x), how.sigma_px)
    columns["theta_deg"] = np.zeros(len(x))
    columns["x_px"], columns["y_px"] = x, y
    for name, values in columns.items():
        if values.dtype.kind == "f" and name not in ("x_px", "y_px"):
            values[~inside] = np.nan
    if segmentation is None and not settings.recentre_sigma:
        columns["flags"] &= ~int(Flag.NO_CENTROID)
    columns["flags"][~inside] = int(Flag.INCOMPLETE)
    return Sources(columns, _measures(columns, ready, seeing, 1.0, stars), segmentation)


def sextractor_flags(flags: Array) -> npt.NDArray[np.int16]:
    """The first five flags, which mean in LDAC catalogues what SExtractor's FLAGS do."""
    low = flags & int(Flag.CROWDED | Flag.BLENDED | Flag.SATURATED | Flag.EDGE | Flag.INCOMPLETE)
    return np.asarray(low, np.int16)


def _measuring(ready: Ready, seeing: float, gain: float, settings: SourceSettings, ratio: float) -> Measuring:
    if not gain >= 0:
        raise BadValue(f"a gain of {gain} e/ADU: it must be 0 (unknown) or more")
    return Measuring(
        sigma_px=max((seeing or USUAL_FWHM_PX) / FWHM_SIGMA, 0.5),
        gain_e_adu=gain,
        noise_factor=settings.noise_factor or ratio,
        fallback_adu2=ready.noise_adu**2,
        kron_factor=settings.kron_factor,
        kron_least=settings.kron_least,
        petrosian_factor=settings.petrosian_factor,
        petrosian_level=settings.petrosian_level,
    )


def _search(settings: SourceSettings) -> Search:
    return Search(
        settings.threshold_sigma,
        settings.minimum_area_px,
        settings.filter_fwhm,
        settings.deblend_levels,
        settings.deblend_contrast,
    )


def _columns(
    ready: Ready,
    data: Array,
    segments: npt.NDArray[np.int32],
    place: Doubles,
    names: npt.NDArray[np.int32],
    how: Measuring,
    settings: SourceSettings,
    seeing: float,
) -> tuple[dict[str, Array], Stars]:
    field = Field(ready.image, ready.weight, ready.flags, segments)
    raw = measure_places(field, place, names, np.array(settings.apertures_px, np.float64), how)
    columns: dict[str, Array] = {"number": np.arange(1, len(place) + 1, dtype=np.int32)}
    columns |= {"x_px": place[:, 0].copy(), "y_px": place[:, 1].copy()}
    columns |= _positions(raw) | _shapes(raw, how)
    columns |= _fluxes(raw, place, how, settings, ready.level_error_adu * how.noise_factor)
    columns |= _pixels(ready, data, place)
    columns["flags"] = _flags(raw)
    isolated = columns["flags"] & int(~(Flag.NO_PETROSIAN | Flag.NO_KRON)) == 0
    stars = point_like(
        raw, columns["x_win_px"], columns["y_win_px"], columns["fwhm_px"], isolated, how.sigma_px
    )
    columns |= {"spread": stars.spread, "spread_error": stars.error, "star": stars.star}
    if not seeing:
        # Without the width of a star nothing can be told from one, or not.
        columns |= {name: np.full(len(place), np.nan) for name in ("spread", "spread_error", "star")}
        return columns, stars
    columns["flags"][stars.spread < -4 * stars.error] |= int(Flag.SHARP)
    return columns, stars


def _positions(raw: Mapping[str, Doubles]) -> dict[str, Array]:
    with np.errstate(all="ignore"):
        q = raw["sigma"] ** -2
        jx, jy, jxy = raw["m"] - q * raw["mxx"], raw["m"] - q * raw["myy"], q * raw["mxy"]
        det = jx * jy - jxy * jxy
        # Without a centre: the errors of a Gaussian source in its own window.
        firm = (jx > 0) & (jy > 0) & (det > 0.02 * raw["m"] ** 2)
        ixx, iyy = (np.where(firm, one / det, 2 / np.abs(raw["m"])) for one in (jy, jx))
        ixy = np.where(firm, jxy / det, 0.0)
        exx, exy, eyy = raw["exx"], raw["exy"], raw["eyy"]
        vx = ixx * ixx * exx + 2 * ixx * ixy * exy + ixy * ixy * eyy
        vy = ixy * ixy * exx + 2 * ixy * iyy * exy + iyy * iyy * eyy
        vxy = ixx * ixy * exx + (ixx * iyy + ixy * ixy) * exy + ixy * iyy * eyy
    return {
        "x_win_px": raw["x"].copy(),
        "y_win_px": raw["y"].copy(),
        "x_win_error_px": np.sqrt(np.maximum(vx, 0)),
        "y_win_error_px": np.sqrt(np.maximum(vy, 0)),
        "xy_win_covariance_px2": vxy,
    }


def _shapes(raw: Mapping[str, Doubles], how: Measuring) -> dict[str, Array]:
    """Second moments of the Gaussian that has the windowed ones; nan where the window is too small for it.

    M windowed and V without window: V^-1 = M^-1 - 1 / s^2; errors with A = V M^-1, to first order.
    """
    with np.errstate(all="ignore"):
        m = np.where(raw["m"] > 0, raw["m"], np.nan)
        xx, yy, xy = raw["mxx"] / m, raw["myy"] / m, raw["mxy"] / m
        q, det = raw["sigma"] ** -2, xx * yy - xy * xy
        pxx, pyy, pxy = yy / det - q, xx / det - q, -xy / det
        rest = pxx * pyy - pxy * pxy
        known = (det > 0) & (pxx > 0) & (pyy > 0) & (rest > 0)
        vxx, vyy, vxy = (np.where(known, one / rest, np.nan) for one in (pyy, pxx, -pxy))
        ax, ay = (vxx * yy - vxy * xy) / det, (vyy * xx - vxy * xy) / det
        errors = [
            factor * np.sqrt(np.maximum(fourth - 2 * value * second + value * value * raw["e"], 0)) / m
            for factor, value, second, fourth in (
                (ax * ax, xx, raw["exx"], raw["ex4"]),
                (ay * ay, yy, raw["eyy"], raw["ey4"]),
                (ax * ay, xy, raw["exy"], raw["ex2y2"]),
            )
        ]
        mean, half = 0.5 * (vxx + vyy), np.hypot(0.5 * (vxx - vyy), vxy)
        long, short = np.sqrt(mean + half), np.sqrt(np.maximum(mean - half, 0))
        ellipticity = 1 - short / long
    return {
        "x2_win_px2": vxx,
        "y2_win_px2": vyy,
        "xy_win_px2": vxy,
        **dict(zip(("x2_win_error_px2", "y2_win_error_px2", "xy_win_error_px2"), errors, strict=True)),
        "a_win_px": long,
        "b_win_px": short,
        "theta_win_deg": np.degrees(0.5 * np.arctan2(2 * vxy, vxx - vyy)),
        "ellipticity": ellipticity,
        "fwhm_px": width_of(raw, how),
        "half_light_radius_px": np.where(raw["half"] > 0, raw["half"], np.nan),
    }


def _fluxes(
    raw: Mapping[str, Doubles], place: Doubles, how: Measuring, settings: SourceSettings, sky_error: float
) -> dict[str, Array]:
    """Fluxes with their errors: those of the pixels, and that of the sky, which all pixels of an aperture share."""
    columns: dict[str, Array] = {
        "kron_radius": np.where(raw["kron"] > 0, raw["kron"], np.nan),
        "petrosian_radius": np.where(raw["petro"] > 0, raw["petro"], np.nan),
        "area_px": raw["own_area"].astype(np.int32),
    }
    petrosian = np.maximum(how.petrosian_factor * raw["petro"], how.kron_least)
    ellipse = np.pi / np.sqrt(place[:, 3] * place[:, 4] - 0.25 * place[:, 5] ** 2)
    for name, ours, area in (
        ("auto", "auto", raw["auto_area"]),
        ("petrosian", "petro", petrosian**2 * ellipse),
        ("isophotal", "own", raw["own_area"]),
        ("aperture", "aperture", np.pi * np.square(settings.apertures_px)),
    ):
        columns[f"flux_{name}_adu"] = raw[f"{ours}_flux"].copy()
        variance = raw[f"{ours}_variance"] + (area * sky_error) ** 2
        columns[f"flux_{name}_error_adu"] = np.sqrt(np.maximum(variance, 0))
    return columns


def _pixels(ready: Ready, data: Array, place: Doubles) -> dict[str, Array]:
    """The brightest of the nine pixels about each place, and the sky there."""
    ny, nx = ready.image.shape
    y, x = (np.floor(place[:, axis] + 0.5).astype(np.int64) for axis in (1, 0))
    y, x = np.clip(y, 0, ny - 1), np.clip(x, 0, nx - 1)
    around = [
        ready.image[np.clip(y + j, 0, ny - 1), np.clip(x + i, 0, nx - 1)]
        for j in (-1, 0, 1)
        for i in (-1, 0, 1)
    ]
    with np.errstate(all="ignore"):
        sky = data[y, x].astype(np.float64) - ready.image[y, x]
    return {
        "peak_adu": np.max(around, axis=0).astype(np.float64) if len(place) else np.empty(0),
        "background_adu": np.where(np.isfinite(sky), sky, ready.level_adu),
    }


def _flags(raw: Mapping[str, Doubles]) -> npt.NDArray[np.int32]:
    found = raw["found"].astype(np.int32)
    rules = {
        Flag.CROWDED: raw["auto_neighbour"] > _CROWDED_PART * raw["auto_whole"],
        Flag.SATURATED: raw["burnt"] > 0,
        Flag.EDGE: raw["auto_outside"] > 0,
        Flag.INCOMPLETE: (raw["auto_missing"] > 0) | (raw["aperture_missing"] > 0).any(axis=1),
        Flag.NO_CENTROID: found & NO_CENTROID,
        Flag.MASKED: raw["core_refused"] > 0,
        Flag.NO_KRON: found & NO_KRON,
        Flag.NO_PETROSIAN: found & (NO_PETRO | PETRO_CUT),
        Flag.NO_HALF_LIGHT: found & NO_HALF,
        Flag.LIMITED: found & LIMITED,
    }
    flags = np.zeros(len(found), np.int32)
    for flag, true in rules.items():
        flags[true.astype(np.bool_)] |= int(flag)
    return flags


def _extraction_flags(objects: Array) -> npt.NDArray[np.int32]:
    flags = np.zeros(len(objects), np.int32)
    for bit, flag in ((MERGED, Flag.BLENDED), (TRUNCATED, Flag.EDGE), (OVERFLOW, Flag.NOT_DEBLENDED)):
        flags[(objects["flag"] & bit) != 0] |= int(flag)
    return flags


def _measures(
    columns: Mapping[str, Array], ready: Ready, seeing: float, ratio: float, stars: Stars
) -> dict[str, float]:
    """Numbers about the frame; nan where no star tells the seeing."""
    chosen = stars.chosen
    some = int(np.count_nonzero(chosen))

    def middle(name: str) -> float:
        return float(np.nanmedian(columns[name][chosen])) if some else float("nan")

    low, high = _densities(columns["x_px"], columns["y_px"], ready.image.shape)
    return {
        "sources": float(len(columns["flags"])),
        "stars": float(some),
        "saturated_sources": float(np.count_nonzero(columns["flags"] & int(Flag.SATURATED))),
        "seeing_px": middle("fwhm_px") if some else (seeing or float("nan")),
        "ellipticity": middle("ellipticity"),
        "sky_adu": ready.level_adu,
        "sky_noise_adu": ready.noise_adu,
        "noise_ratio": ratio,
        "density_low": low,
        "density_high": high,
    }


def _densities(x: Doubles, y: Doubles, shape: tuple[int, ...]) -> tuple[float, float]:
    """The least and the largest number of sources in a cell over the mean; nan with too few for two cells a side."""
    cells = min(_MOST_CELLS, int(np.sqrt(len(x) / _IN_A_CELL)))
    if cells < 2:
        return float("nan"), float("nan")
    edges = [np.linspace(-0.5, length - 0.5, cells + 1) for length in shape]
    number, *_ = np.histogram2d(y, x, edges)
    mean = float(np.mean(number))
    return (float(number.min()) / mean, float(number.max()) / mean) if mean else (float("nan"), float("nan"))
