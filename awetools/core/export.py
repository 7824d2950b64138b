"""Copies of products in the forms that DS9, SExtractor, SWarp, SCAMP and PSFEx read."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .copies import check_name, refuse_others, write_copy, write_text_copy
from .distortion import sip_as_tpv
from .errors import Mixture, NoImage, UsageError, WrongKind
from .fitsheader import COMMENTARY, HeaderValue, format_card, wcs_cards
from .foreignnames import COADD_ZERO_POINT_MAG
from .products import ProductInput, is_product, open_product
from .raws import stat_of

if TYPE_CHECKING:
    import numpy as np

    from .fits import CardTuple, Plane
    from .store import Store

# What says that a file is a product, with a record beside it: a copy has none.
OF_PRODUCTS = ("AWEKIND", "AWEKEY", "AWEREV", "DATASUM", "CHECKSUM")
MAKER = "awe-export"


@dataclass(frozen=True)
class Form:
    """How copies are written.

    program: ds9, sextractor, swarp, scamp or psfex. DS9 gets one file with all planes; the others an image with
    `.weight.fits` and `.flag.fits` beside it. flag_bits: 16 or 32. head: also a `.head` file.
    """

    program: str = "sextractor"
    flag_bits: int = 16
    head: bool = False
    force: bool = False


@dataclass(frozen=True)
class Solved:
    """What was found out about a reduced frame after it was made: where it is on the sky, and its zero point."""

    astrom: ProductInput | None = None
    zeropoint: ProductInput | None = None


@dataclass(frozen=True)
class _Source:
    """A product that is exported: its planes by name, and the cards of its image."""

    product: ProductInput
    planes: Mapping[str, np.ndarray]
    cards: Sequence[CardTuple]
    wcs: Mapping[str, HeaderValue]


def open_exported(path: Path) -> ProductInput:
    """The product at a path; raises WrongKind for what is none, and what opening a product raises."""
    stat_of(path)
    if not is_product(path):
        raise WrongKind(
            f"{path}: is no product of awetools, so there is no record to export",
            hint=f"awe-import --as reduced {path}; a raw frame is read by those programs as it is",
        )
    return open_product(path)


def solved_of(product: ProductInput, stores: Sequence[Store]) -> Solved:
    """The newest solution and absolute zero point of a reduced frame; of other products nothing."""
    from .show import newest_of

    if product.kind != "reduced":
        return Solved()
    astrom, zeropoint = (newest_of(product, kind, stores) for kind in ("astrom", "zeropoint"))
    absolute = zeropoint is not None and zeropoint.meta.get("zeropoint_band") is not None
    return Solved(astrom, zeropoint if absolute else None)


def export(
    products: Sequence[ProductInput], target: Path, form: Form, solved: Mapping[Path, Solved] | None = None
) -> list[Path]:
    """Write the copies of one product, or of the detectors of one exposure as extensions; returns their paths.

    solved: by the path of a product, whose coordinates and flux scale count in place of its own.
    Raises NoImage (a table, or no image of the sky), Mixture (other exposures, or other planes, in
    one file), WouldOverwrite, BadHeader (a distortion that TPV cannot say).
    """
    refuse_others(target, form.force)
    check_name(target)
    _refuse_mixture(products)
    sources = [_loaded(one, form, (solved or {}).get(one.path, Solved())) for one in products]
    _refuse_other_planes(sources)
    wanted = _files(target, form, sources)
    for path in wanted:
        refuse_others(path, form.force)
    if form.program == "ds9":
        _write(
            target, [plane for one in sources for plane in _all_planes(one, len(sources) > 1)], sources, form
        )
    else:
        _write_parts(wanted, sources, form)
    if form.head:
        write_text_copy(wanted[-1], [line for one in sources for line in _head_lines(one)], MAKER, form.force)
    return wanted


def commands_of(form: Form, written: Sequence[Sequence[Path]]) -> list[str]:
    """The commands, as a shell takes them, with which the program reads the images that were written.

    SWarp takes all at once: one command, or one more for images without weights.
    """
    if form.program != "swarp":
        return [_command_of(form, paths) for paths in written]
    found = []
    for has_weight in (True, False):
        some = [paths for paths in written if (_beside(paths, "weight") is not None) == has_weight]
        images = " ".join(shlex.quote(str(paths[0])) for paths in some)
        weights = shlex.quote(",".join(str(_beside(paths, "weight")) for paths in some))
        weighted = f" -WEIGHT_TYPE MAP_WEIGHT -WEIGHT_IMAGE {weights}" if has_weight else ""
        found += [f"SWarp {images}{weighted}"] if some else []
    return found


def _beside(paths: Sequence[Path], ending: str) -> Path | None:
    return next((one for one in paths[1:] if one.name.endswith(f".{ending}.fits")), None)


def _command_of(form: Form, paths: Sequence[Path]) -> str:
    image = shlex.quote(str(paths[0]))
    weight, flag = (
        None if (found := _beside(paths, ending)) is None else shlex.quote(str(found))
        for ending in ("weight", "flag")
    )
    if form.program == "ds9":
        return f"ds9 -multiframe {image}"
    weighted = f" -WEIGHT_TYPE MAP_WEIGHT -WEIGHT_IMAGE {weight}" if weight else ""
    flagged = f" -FLAG_IMAGE {flag}" if flag else ""
    catalogue = " -CATALOG_TYPE FITS_LDAC" if form.program in ("scamp", "psfex") else ""
    return f"source-extractor {image}{weighted}{flagged}{catalogue}"


def _files(target: Path, form: Form, sources: Sequence[_Source]) -> list[Path]:
    paths = [target]
    stem = target.with_suffix("")
    if form.program != "ds9":
        paths += [
            stem.with_name(f"{stem.name}.{ending}.fits")
            for ending, name in (("weight", "WEIGHT"), ("flag", "MASK"))
            if name in sources[0].planes
        ]
    return [*paths, stem.with_name(f"{stem.name}.head")] if form.head else paths


def _refuse_mixture(products: Sequence[ProductInput]) -> None:
    first = products[0]
    for other in products[1:]:
        for name in ("exposure", "instrument", "filter"):
            if other.meta.get(name) != first.meta.get(name):
                raise Mixture(
                    f"{other.path}: {name} is {other.meta.get(name)!r}, but {first.path} has "
                    f"{first.meta.get(name)!r}: they do not belong in one file",
                    hint="without --mef each product becomes a file of its own",
                )
    seen: dict[str, Path] = {}
    for one in products:
        detector = str(one.meta.get("detector"))
        if detector in seen:
            raise Mixture(f"detector {detector} is given more than once: {seen[detector]}, {one.path}")
        seen[detector] = one.path


def _refuse_other_planes(sources: Sequence[_Source]) -> None:
    first = sources[0]
    for other in sources[1:]:
        if set(other.planes) != set(first.planes):
            raise Mixture(
                f"{other.product.path} has the planes {', '.join(other.planes)}, but {first.product.path} has "
                f"{', '.join(first.planes)}: they do not go into one set of files",
                hint="without --mef each product becomes a file of its own",
            )


def _loaded(product: ProductInput, form: Form, solved: Solved) -> _Source:
    from .fits import open_fits

    with open_fits(product.path) as fits:
        images = {hdu.name or "SCI": hdu.index for hdu in fits.hdus if hdu.is_image}
        if not images:
            raise NoImage(
                f"{product.path}: a {product.kind} is a table, not an image",
                hint="--to csv, ecsv, votable, ldac, regions or head",
            )
        if form.program != "ds9" and "SCI" not in images:
            raise NoImage(
                f"{product.path}: a {product.kind} has no image of the sky, only {', '.join(images)}",
                hint="--for ds9 shows any image",
            )
        planes = {name: fits.image(index) for name, index in images.items()}
        header = fits.hdus[0].header
    if len(planes) > 1 and {one.shape for one in planes.values()} != {planes[next(iter(planes))].shape}:
        raise UsageError(f"{product.path}: its planes have several shapes")
    wcs: Mapping[str, HeaderValue] = (solved.astrom or product).meta.get("wcs") or {}
    if form.program != "ds9":
        wcs = sip_as_tpv(wcs)
    known = {*wcs_cards(header), *OF_PRODUCTS, "EXTNAME"}
    cards: list[CardTuple] = [
        (card.key, card.value, card.comment)
        for card in header.cards
        if card.key not in known and card.key not in COMMENTARY
    ]
    return _Source(product, planes, [*cards, *_own_cards(product, solved)], wcs)


def _own_cards(product: ProductInput, solved: Solved) -> list[CardTuple]:
    """What a copy says beyond the header of its product: flux scale and where it comes from."""
    cards: list[CardTuple] = [
        ("AWEFROM", product.kind, "kind of product that this is a copy of"),
        ("AWEKEY", product.key, ""),
    ]
    told = [f"{MAKER} of {product.kind} {product.path.name}, key {product.key}"]
    told += [
        f"{what} of {one.kind} {one.path.name}, key {one.key}"
        for what, one in (("coordinates", solved.astrom), ("flux scale", solved.zeropoint))
        if one is not None
    ]
    return [*cards, *flux_cards(solved.zeropoint or product), *(("HISTORY", one, "") for one in told)]


def flux_cards(product: ProductInput) -> list[CardTuple]:
    """The flux scale of a product; nothing where its zero point is not known, or relative."""
    zero_point = product.meta.get("zeropoint_mag")
    if zero_point is None or product.meta.get("zeropoint_band") is None:
        return []
    of_pixel = zero_point + _exposure_mag(product)
    # SWarp scales a frame by the last card to a zero point of its user's choice: that of coadds.
    scale = float(f"{10 ** (-0.4 * (of_pixel - COADD_ZERO_POINT_MAG)):.9g}")
    return [
        ("PHOT_C", round(float(zero_point), 5), "[mag] zero point of 1 unit/s"),
        ("MAGZERO", round(float(of_pixel), 5), "[mag] zero point of 1 unit of these pixels"),
        ("FLXSCALE", scale, "to 30 mag per unit"),
    ]


def _exposure_mag(product: ProductInput) -> float:
    """By how much the zero point of counts of the whole exposure is above that of counts a second."""
    seconds = product.meta.get("exptime_s")
    per_second = product.kind == "coadd"
    return 0.0 if per_second or not seconds else 2.5 * math.log10(float(seconds))


# Writing


def _write_parts(paths: Sequence[Path], sources: Sequence[_Source], form: Form) -> None:
    _write(paths[0], [_plane(one, "SCI", one.planes["SCI"], one.cards) for one in sources], sources, form)
    for path in paths[1:]:
        if path.name.endswith(".weight.fits"):
            planes = [_plane(one, "WEIGHT", one.planes["WEIGHT"], ()) for one in sources]
            _write(path, planes, sources, form)
        elif path.name.endswith(".flag.fits"):
            _write(path, [_plane(one, "MASK", _flags(one, form), ()) for one in sources], sources, form)


def _write(path: Path, planes: Sequence[Plane], sources: Sequence[_Source], form: Form) -> None:
    from .fits import Plane

    history: list[CardTuple] = [card for one in sources for card in one.cards if card[0] == "HISTORY"]
    if len(sources) == 1:
        first, *others = planes
        key: list[CardTuple] = [card for card in sources[0].cards if card[0] in ("AWEKEY", "AWEFROM")]
        extra = [card for card in (*key, *history) if card not in first.cards]
        cards = [*first.cards, *extra]
        write_copy(path, [Plane(first.name, first.data), *others], cards, MAKER, form.force)
        return
    write_copy(path, [Plane(""), *planes], [*_shared(sources), *history], MAKER, form.force)


def _shared(sources: Sequence[_Source]) -> list[CardTuple]:
    """The cards that all detectors have alike, for the empty primary of a multi-extension file."""
    first, *others = (list(one.cards) for one in sources)
    return [card for card in first if card[0] != "HISTORY" and all(card in cards for cards in others)]


def _all_planes(source: _Source, several: bool) -> list[Plane]:
    """SCI first, the other planes after it, each with the coordinates; of several detectors named after them."""
    names = sorted(source.planes, key=lambda name: name != "SCI")
    begin = f"{source.product.meta.get('detector')}_" if several else ""
    return [
        _plane(source, name, source.planes[name], source.cards if place == 0 else (), named=f"{begin}{name}")
        for place, name in enumerate(names)
    ]


def _plane(
    source: _Source, name: str, data: np.ndarray, cards: Sequence[CardTuple], named: str | None = None
) -> Plane:
    from .fits import Plane

    wcs: list[CardTuple] = [(key, value, "") for key, value in source.wcs.items()]
    detector = str(source.product.meta.get("detector") or name)
    own = [card for card in cards if card[0] != "HISTORY"]
    return Plane(named or detector, data, cards=[*own, *wcs, *_bit_cards(source, name)])


def _bit_cards(source: _Source, name: str) -> list[CardTuple]:
    from .pixels.mask import BIT_NAMES

    if name != "MASK":
        return []
    return [
        (f"MBIT{bit.bit_length() - 1:02d}", text, f"mask bit {int(bit)}") for bit, text in BIT_NAMES.items()
    ]


def _flags(source: _Source, form: Form) -> np.ndarray:
    import numpy as np

    return source.planes["MASK"].astype(np.int32 if form.flag_bits == 32 else np.int16)


def _head_lines(source: _Source) -> list[str]:
    """The cards of one detector as SCAMP and SWarp read them from a `.head` file."""
    wanted = ("GAIN", "SATURATE", "EXPTIME", "PHOT_C", "MAGZERO", "FLXSCALE", "FILTER", "DATE-OBS", "MJD-OBS")
    cards = [(key, value, "") for key, value in source.wcs.items()]
    cards += [card for card in source.cards if card[0] in wanted]
    lines = [format_card(*card).decode("ascii").rstrip() for card in cards]
    return [*lines, "END"]
