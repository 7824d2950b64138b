"""Which mask bits are set in a product, and where each of them came from: followed up through its inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import AweError, NoImage, NoRecord, UsageError, WrongKind
from .files import parse_address
from .masknames import MASK_NAMES, names_of, union_of
from .products import ProductInput, is_product, open_product
from .raws import RawInput, open_raw, raw_frame_of, stat_of
from .tracing.lookup import Lookup
from .tracing.references import references
from .workspace import Workspace

if TYPE_CHECKING:
    import numpy as np

    from .fits import FitsFile

# The bits that a raw level decides, and the meta field of the level.
LEVELS: Mapping[str, str] = {"saturated": "saturation_adu", "nonlinear": "nonlinear_adu"}
# The parameters that decide a bit, by how their names begin.
PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "hot": ("threshold_", "column_", "hot_", "warm_"),
    "cold": ("threshold_", "column_", "cold_", "low_", "high_", "min_", "max_", "deviation_"),
    "saturated": ("saturation_", "bleed_", "bloom_"),
    "cosmic": ("cosmic_", "cosmics"),
    "trail": ("trail_", "trails"),
    "interpolated": ("interpolate_", "interpolation_"),
    "nonlinear": ("nonlinear_", "linearity_"),
    "uncalibrated": ("low_", "high_", "min_", "level_"),
    "clipped": ("clip_",),
}


@dataclass(frozen=True)
class Count:
    """How many pixels of a product have a bit."""

    name: str
    bit: int
    pixels: int
    fraction: float


@dataclass(frozen=True)
class Origin:
    """Where a bit of a pixel was set first.

    kind, path: of the product (or foreign file) that set it. via: the products between it and the
    one that was asked for, nearest to the latter first. detail: why, as far as records and files tell.
    """

    kind: str
    path: str
    via: tuple[str, ...] = ()
    detail: str = ""


@dataclass(frozen=True)
class BitAt:
    """A bit that a pixel has, and its origins."""

    name: str
    bit: int
    origins: tuple[Origin, ...]


@dataclass(frozen=True)
class PixelReport:
    """What is known of one pixel (FITS pixels, from 1); value and weight are None where there is no such plane."""

    x: int
    y: int
    mask: int
    value: float | None
    weight: float | None
    bits: tuple[BitAt, ...]


def masked_product(path: Path) -> ProductInput:
    """The product at a path, if it has a mask; raises WrongKind, NoImage, and what opening a product raises."""
    stat_of(path)
    if not is_product(path):
        raise WrongKind(
            f"{path}: is no product of awetools: a mask belongs to a product",
            hint="awe-reduce, or awe-import",
        )
    product = open_product(path)
    with _opened(product.path) as fits:
        _mask_hdu(fits, product)
    return product


def mask_of(product: ProductInput) -> np.ndarray:
    """The mask plane of a product, int16 (ny, nx)."""
    import numpy as np

    with _opened(product.path) as fits:
        return fits.image(_mask_hdu(fits, product)).astype(np.int16)


def counts(mask: np.ndarray) -> list[Count]:
    """How many pixels have each bit of `masknames`, in their order, and as a fraction of all."""
    import numpy as np

    found = []
    for name, bit in MASK_NAMES.items():
        pixels = int(np.count_nonzero(mask & np.int16(bit)))
        found.append(Count(name, bit, pixels, pixels / mask.size))
    return found


def plane(mask: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """1 where any of the named bits is set, else 0: uint8 (ny, nx). Raises UnknownName."""
    import numpy as np

    chosen: np.ndarray = ((mask & np.int16(union_of(names, "--plane"))) != 0).astype(np.uint8)
    return chosen


def report_at(product: ProductInput, x: int, y: int, lookup: Lookup, workspace: Workspace) -> PixelReport:
    """What the mask says of a pixel (FITS pixels, from 1), and where each bit came from.

    Raises UsageError for a pixel outside the image.
    """
    with _opened(product.path) as fits:
        shape = fits.hdu(_mask_hdu(fits, product)).shape
        if not (1 <= x <= shape[1] and 1 <= y <= shape[0]):
            raise UsageError(f"{product.path}: --at {x},{y}: it has {shape[1]} x {shape[0]} pixels, from 1,1")
        value = _pixel(fits, _named(fits, "SCI"), x, y)
        weight = _pixel(fits, _named(fits, "WEIGHT"), x, y)
        mask = int(_pixel(fits, _mask_hdu(fits, product), x, y) or 0)
    bits = tuple(
        BitAt(name, MASK_NAMES[name], _without_repeats(_origins(product, name, x, y, lookup, workspace, ())))
        for name in names_of(mask)
    )
    return PixelReport(x, y, mask, value, weight, bits)


def _origins(
    product: ProductInput,
    name: str,
    x: int,
    y: int,
    lookup: Lookup,
    workspace: Workspace,
    via: tuple[str, ...],
) -> Iterator[Origin]:
    """The products that set a bit first, or the product itself where none of its inputs has it there."""
    missing: list[str] = []
    found = False
    here = (*via, str(product.path))
    for reference in references(product.record, product.path.parent):
        if reference.key is None:
            continue
        node = lookup.resolve(reference)
        upper = _product_at(node.path) if node.state in ("present", "moved") else None
        if upper is None:
            missing.append(f"{reference.role} {reference.path} is {node.state}")
            continue
        if _bits_at(upper, x, y) & MASK_NAMES[name]:
            found = True
            yield from _origins(upper, name, x, y, lookup, workspace, here)
    if not found:
        reasons = [_own_reason(product, name, x, y, workspace), *missing]
        yield Origin(product.kind, str(product.path), via, "; ".join(one for one in reasons if one))


def _without_repeats(found: Iterator[Origin]) -> tuple[Origin, ...]:
    """One origin a product, that of the shortest way to it."""
    by_path: dict[str, Origin] = {}
    for one in sorted(found, key=lambda one: len(one.via)):
        by_path.setdefault(one.path, one)
    return tuple(by_path.values())


def _product_at(path: str) -> ProductInput | None:
    try:
        return open_product(Path(path))
    except AweError:
        return None


def _bits_at(product: ProductInput, x: int, y: int) -> int:
    """The mask of a pixel; 0 for products without a mask, or of another shape."""
    with _opened(product.path) as fits:
        try:
            index = _mask_hdu(fits, product)
        except NoImage:
            return 0
        ny, nx = fits.hdu(index).shape
        return int(_pixel(fits, index, x, y) or 0) if x <= nx and y <= ny else 0


def _own_reason(product: ProductInput, name: str, x: int, y: int, workspace: Workspace) -> str:
    """Why a product itself set a bit: its parameters, and the pixel of its own input where that tells."""
    foreign = [one for one in product.record["recipe"]["inputs"] if one.get("kind") == "foreign"]
    if foreign:
        masks = [str(one["path"]) for one in foreign if one["role"] == "mask"]
        return f"from the mask {masks[0]}" if masks else "from the imported planes"
    parts = []
    if name in LEVELS:
        parts.append(_level_text(product, LEVELS[name], x, y, workspace))
    parameters = {
        one: about["value"]
        for one, about in product.record["recipe"]["parameters"].items()
        if one.startswith(PARAMETERS.get(name, ()))
    }
    parts.append(", ".join(f"{one} {value}" for one, value in parameters.items()))
    return "; ".join(part for part in parts if part)


def _level_text(product: ProductInput, field: str, x: int, y: int, workspace: Workspace) -> str:
    """The raw value of a pixel beside the level of its amplifier, where the raw frame is still there."""
    raws = [one for one in product.record["recipe"]["inputs"] if one.get("kind") == "raw_science"]
    if not raws:
        return ""
    path = references(product.record, product.path.parent)
    place = next(one.path for one in path if one.content == raws[0]["content"])
    try:
        found = open_raw(parse_address(place), workspace)
    except (AweError, NoRecord):
        return f"the raw frame {place} is gone"
    frame = next((one for one in found if one.content == raws[0]["content"]), None)
    if frame is None:
        return f"the raw frame {place} is another one now"
    return _raw_value_text(frame, raws[0]["meta"].get(field) or [], x, y)


def _raw_value_text(raw: RawInput, limits: Sequence[Any], x: int, y: int) -> str:
    with raw.open() as fits:
        frame = raw_frame_of(raw, fits)
        value = float(frame.rows(y - 1, y)[0, x - 1])
        place = next(
            (
                number
                for number, amp in enumerate(frame.amplifiers)
                if amp.target.x0 < x <= amp.target.x1 and amp.target.y0 < y <= amp.target.y1
            ),
            None,
        )
    limit = limits[place] if place is not None and place < len(limits) else None
    if limit is None:
        return f"raw value {value:g} ADU, no limit known"
    if value >= limit:
        return f"raw value {value:g} ADU, at or above the limit of {limit:g} ADU"
    return f"raw value {value:g} ADU, below the limit of {limit:g} ADU: beside a pixel above it, or a bleed"


def _opened(path: Path) -> FitsFile:
    from .fits import open_fits

    return open_fits(path)


def _named(fits: FitsFile, name: str) -> int | None:
    return next((hdu.index for hdu in fits.hdus if hdu.is_image and hdu.name == name), None)


def _mask_hdu(fits: FitsFile, product: ProductInput) -> int:
    index = _named(fits, "MASK")
    if index is None:
        raise NoImage(f"{product.path}: a {product.kind} has no mask", hint="awe-imstat shows what it has")
    return index


def _pixel(fits: FitsFile, index: int | None, x: int, y: int) -> float | None:
    return None if index is None else float(fits.rows(index, y - 1, y, x - 1, x)[0, 0])
