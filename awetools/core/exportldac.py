"""Source lists as FITS LDAC, which SCAMP and PSFEx read: our columns under the names of SExtractor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .distortion import sip_as_tpv
from .ellipses import Columns, Doubles, error_ellipses
from .errors import BadHeader, WrongKind
from .fitsheader import CARD_BYTES, COMMENTARY, format_card, wcs_cards
from .frame import Frame
from .products import ProductInput

if TYPE_CHECKING:
    from .fits import CardTuple, Plane

# A pixel of a stamp that is not there, or is not to be used: the value of SExtractor and PSFEx.
NO_PIXEL = -1e30
# SExtractor's name, ours, and the unit.
SAME = (
    ("NUMBER", "NUMBER", ""),
    ("X_IMAGE", "X_PX", "pixel"),
    ("Y_IMAGE", "Y_PX", "pixel"),
    ("XWIN_IMAGE", "X_WIN_PX", "pixel"),
    ("YWIN_IMAGE", "Y_WIN_PX", "pixel"),
    ("A_IMAGE", "A_PX", "pixel"),
    ("B_IMAGE", "B_PX", "pixel"),
    ("THETA_IMAGE", "THETA_DEG", "deg"),
    ("AWIN_IMAGE", "A_WIN_PX", "pixel"),
    ("BWIN_IMAGE", "B_WIN_PX", "pixel"),
    ("THETAWIN_IMAGE", "THETA_WIN_DEG", "deg"),
    ("FWHM_IMAGE", "FWHM_PX", "pixel"),
    ("FLUX_RADIUS", "HALF_LIGHT_RADIUS_PX", "pixel"),
    ("KRON_RADIUS", "KRON_RADIUS", ""),
    ("PETRO_RADIUS", "PETROSIAN_RADIUS", ""),
    ("FLUX_AUTO", "FLUX_AUTO_ADU", "count"),
    ("FLUXERR_AUTO", "FLUX_AUTO_ERROR_ADU", "count"),
    ("FLUX_PETRO", "FLUX_PETROSIAN_ADU", "count"),
    ("FLUXERR_PETRO", "FLUX_PETROSIAN_ERROR_ADU", "count"),
    ("FLUX_ISO", "FLUX_ISOPHOTAL_ADU", "count"),
    ("FLUXERR_ISO", "FLUX_ISOPHOTAL_ERROR_ADU", "count"),
    ("FLUX_APER", "FLUX_APERTURE_ADU", "count"),
    ("FLUXERR_APER", "FLUX_APERTURE_ERROR_ADU", "count"),
    ("BACKGROUND", "BACKGROUND_ADU", "count"),
    ("CLASS_STAR", "STAR", ""),
    ("X_WORLD", "RA_DEG", "deg"),
    ("Y_WORLD", "DEC_DEG", "deg"),
    ("MAG_AUTO", "MAG_AUTO", "mag"),
    ("MAGERR_AUTO", "MAG_AUTO_ERROR", "mag"),
)
ERRORS = ("X_WIN_ERROR_PX", "Y_WIN_ERROR_PX", "XY_WIN_COVARIANCE_PX2")
SKY_ERRORS = ("RA_ERROR_ARCSEC", "DEC_ERROR_ARCSEC", "RA_DEC_COVARIANCE_ARCSEC2")
# SExtractor's names, the columns of ours that they need, how they are made, and the unit.
Made = tuple[tuple[str, ...], tuple[str, ...], Callable[..., Sequence[npt.NDArray[Any]]], str]
MADE: tuple[Made, ...] = (
    (("ERRAWIN_IMAGE", "ERRBWIN_IMAGE"), ERRORS, lambda *errors: error_ellipses(*errors)[:2], "pixel"),
    (("ERRTHETAWIN_IMAGE",), ERRORS, lambda *errors: error_ellipses(*errors)[2:], "deg"),
    (("ERRA_WORLD", "ERRB_WORLD"), SKY_ERRORS, lambda *errors: _degrees(error_ellipses(*errors)[:2]), "deg"),
    # That of the axis from the east, as SCAMP has it.
    (("ERRTHETA_WORLD",), SKY_ERRORS, lambda *errors: error_ellipses(*errors)[2:], "deg"),
    (("ELONGATION",), ("A_PX", "B_PX"), lambda a, b: [_ratio(a, b)], ""),
    (("SNR_WIN",), ("FLUX_AUTO_ADU", "FLUX_AUTO_ERROR_ADU"), lambda flux, error: [_ratio(flux, error)], ""),
    (("FLAGS",), ("FLAGS",), lambda flags: [_low_flags(flags)], ""),
)
PIXELS, SKY = ("X_PX", "Y_PX"), ("RA_DEG", "DEC_DEG")


def ldac_units(product: ProductInput, columns: Columns, stamps: Frame | None, stamp_px: int) -> list[Plane]:
    """The two tables of a source list: LDAC_IMHEAD with the header of its image, LDAC_OBJECTS with the sources.

    A list on the sky has X_WORLD, Y_WORLD and magnitudes, so that SCAMP takes it as a
    reference catalogue. stamps: the image, where each source gets a stamp VIGNET of so
    many pixels a side, less its sky; what is masked or outside is -1e30. Raises WrongKind
    for a table without positions, BadHeader for a WCS that TPV cannot say.
    """
    from .fits import Plane

    if not any(all(name in columns for name in names) for names in (PIXELS, SKY)):
        raise WrongKind(
            f"{product.path}: a table without {', '.join(PIXELS)} or {', '.join(SKY)} cannot be LDAC",
            hint="--to csv or votable",
        )
    table, units = ldac_columns(columns)
    if stamps is not None and stamp_px and PIXELS[0] in columns:
        table["VIGNET"], units["VIGNET"] = vignets(stamps, columns, stamp_px), "count"
    header = {"Field Header Card": np.array([_header_lines(product)], f"S{CARD_BYTES}")}
    return [Plane("LDAC_IMHEAD", table=header), Plane("LDAC_OBJECTS", table=table, units=units)]


def ldac_columns(columns: Columns) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Columns under SExtractor's names, with their units; what could not be measured is 0, as there."""
    table: dict[str, npt.NDArray[Any]] = {}
    units: dict[str, str] = {}
    for name, own, unit in SAME:
        if own in columns:
            table[name], units[name] = _finite(columns[own]), unit
    for names, needs, make, unit in MADE:
        if all(need in columns for need in needs):
            given = [np.asarray(columns[need]) for need in needs]
            for name, values in zip(names, make(*given), strict=True):
                table[name], units[name] = _finite(_single(values)), unit
    return table, units


def vignets(image: Frame, columns: Columns, size: int) -> npt.NDArray[np.float32]:
    """Stamps (n, size, size) about the pixels that hold the isophotal centres, less the sky of each source."""
    half = size // 2
    data = np.asarray(image.data, np.float32)
    bad = ~np.isfinite(data) if image.weight is None else ~np.isfinite(data) | (image.weight <= 0)
    whole = np.pad(np.where(bad, np.float32(NO_PIXEL), data), half, constant_values=NO_PIXEL)
    sky = np.nan_to_num(columns.get("BACKGROUND_ADU", np.zeros(len(columns["X_PX"]))))
    # PSFEx takes the pixel that holds x, by rounding, as the middle.
    x, y = (np.floor(np.nan_to_num(columns[name]) - 0.5).astype(np.int64) for name in PIXELS)
    stamps = np.full((len(x), size, size), NO_PIXEL, np.float32)
    inside = (x >= 0) & (y >= 0) & (x < data.shape[1]) & (y < data.shape[0])
    for row in np.flatnonzero(inside):
        part = whole[y[row] : y[row] + size, x[row] : x[row] + size]
        stamps[row] = np.where(part > NO_PIXEL, part - np.float32(sky[row]), np.float32(NO_PIXEL))
    return stamps


def _header_lines(product: ProductInput) -> list[str]:
    """The header of the image that the sources are of, each card of 80 characters, as the record knows it."""
    return [card.ljust(CARD_BYTES)[:CARD_BYTES] for card in (*_card_lines(image_cards(product)), "END")]


def image_cards(product: ProductInput) -> list[CardTuple]:
    """The cards of the image of a table: its size, coordinates and exposure, and what SExtractor says of noise."""
    from .fits import open_fits

    meta = product.meta
    with open_fits(product.path) as fits:
        header = fits.hdus[0].header
    size: list[CardTuple] = [
        (f"NAXIS{axis}", int(meta[name]), "") for axis, name in ((1, "nx"), (2, "ny")) if meta.get(name)
    ]
    begin: list[CardTuple] = [("SIMPLE", True, ""), ("BITPIX", -32, ""), ("NAXIS", 2, "")]
    own = {*wcs_cards(header), *NOT_OF_IMAGES}
    rest: list[CardTuple] = [
        (card.key, card.value, card.comment)
        for card in header.cards
        if card.key not in own and card.key not in COMMENTARY and not card.key.startswith("NAXIS")
    ]
    return [*begin, *size, *rest, *solution_cards(product), *_noise_cards(product)]


NOT_OF_IMAGES = ("SIMPLE", "BITPIX", "EXTEND", "DATASUM", "CHECKSUM", "AWEKIND", "AWEREV", "EXTNAME")


def solution_cards(product: ProductInput) -> list[CardTuple]:
    """The coordinate system of a product in the terms that SCAMP and SWarp read; none where it has none."""
    wcs: Mapping[str, Any] = product.meta.get("wcs") or {}
    return [(key, value, "") for key, value in sip_as_tpv(wcs).items()]


def head_lines(product: ProductInput, calibrated: ProductInput) -> list[str]:
    """A `.head` file: the coordinate system of a product, and the flux scale of another, where it is known.

    Raises BadHeader where there is no coordinate system.
    """
    from .export import flux_cards

    cards = solution_cards(product)
    if not cards:
        raise BadHeader(
            f"{product.path}: it has no coordinate system (WCS), so there is no .head to write",
            hint="awe-astrom finds one",
        )
    return [*(line.rstrip() for line in _card_lines([*cards, *flux_cards(calibrated)])), "END"]


def _card_lines(cards: Sequence[CardTuple]) -> list[str]:
    lines = []
    for card in cards:
        text = format_card(*card).decode("ascii")
        lines += [text[at : at + CARD_BYTES] for at in range(0, len(text), CARD_BYTES)]
    return lines


def _noise_cards(product: ProductInput) -> list[CardTuple]:
    """Sky, noise, gain and saturation under the names in which PSFEx and SCAMP look for them."""
    measures = product.record["quality"]["measures"]
    given = {
        "SEXBKGND": measures.get("sky_adu"),
        "SEXBKDEV": measures.get("sky_noise_adu"),
        "SEXGAIN": _first(product.meta.get("gain_e_adu")),
        "SEXSATLV": _first(product.meta.get("saturation_adu")),
    }
    return [(key, float(value), "") for key, value in given.items() if value is not None]


def _first(values: Any) -> Any:
    return values[0] if values else None


def _finite(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if values.dtype.kind != "f":
        return values
    return np.asarray(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0), values.dtype)


def _single(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values.astype(np.float32) if values.dtype.kind == "f" else values


def _degrees(arcsec: Sequence[Doubles]) -> list[Doubles]:
    return [one / 3600 for one in arcsec]


def _ratio(above: Doubles, below: Doubles) -> Doubles:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(above, np.float64) / np.asarray(below, np.float64)


def _low_flags(flags: npt.NDArray[Any]) -> npt.NDArray[np.int16]:
    from .pixels.sources import sextractor_flags

    return sextractor_flags(flags)
