"""A product against its predecessor and against the running median of those before it.

Measures of a record never depend on other products; what does is computed here,
when somebody asks, and written nowhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import AweError, BadPixels, Mixture, NoMatch, UnknownName, UsageError, WrongKind, nearest
from .frame import Frame, Table
from .kind import SAME_PRODUCT, Kind, kind_named
from .products import ProductInput, load_product, open_product
from .store import Store

# A scatter of fewer values says little.
LEAST_SERIES = 5
MAD_PER_SIGMA = 1.482602218505602
# What makes the median absolute deviation of so few Gaussian values unbiased (Croux and Rousseeuw 1992).
SMALL_SAMPLE = {2: 1.196, 3: 1.495, 4: 1.363, 5: 1.206, 6: 1.200, 7: 1.140, 8: 1.129, 9: 1.107}
OUTLIER_SIGMA = 5.0
BLOCK_PX = 64


@dataclass(frozen=True)
class Quantity:
    """One number of a product, that of its predecessor, and the same number of the series before it.

    ``difference``: now less before; of two images, what was measured of the
    difference itself. ``scatter``: standard deviation of the series, None where it
    has fewer than 5 values. All in the unit that the name ends in.
    """

    name: str
    before: float | None = None
    now: float | None = None
    difference: float | None = None
    median: float | None = None
    scatter: float | None = None
    values: int = 0

    @property
    def deviation_sigma(self) -> float | None:
        """How far it is from the running median, in units of the scatter of the series; None if unknown."""
        if self.now is None or self.median is None or not self.scatter:
            return None
        return (self.now - self.median) / self.scatter


@dataclass(frozen=True)
class Relatives:
    """What a product is compared with: its predecessor, and rows of the index, the newest night first.

    ``left_out``: paths that would have been taken, each with the reason why not.
    """

    predecessor: Path | None
    series: tuple[Mapping[str, Any], ...]
    left_out: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Everything that was compared of one product."""

    path: Path
    predecessor: Path | None
    nights: int
    quantities: tuple[Quantity, ...]
    left_out: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Bound:
    """How much a quantity may change: against the predecessor, or (in_sigma) from the running median."""

    name: str
    value: float
    in_sigma: bool


def compare(
    product: ProductInput,
    stores: Sequence[Store],
    kinds: Sequence[Kind],
    other: ProductInput | None = None,
    last: int = 10,
    pixels: bool = True,
) -> Comparison:
    """A product against its predecessor and the running median of the ``last`` nights before its own.

    The predecessor is ``other``, else the version of the same product made before it,
    else that of the nearest night before, of the same kind, detector and filter. What
    was judged bad, or is flagged and was not judged good, is passed over. ``pixels``:
    also the images themselves. Raises NoMatch where there is nothing to compare with,
    Mixture if the shapes differ, WrongKind for a table against an image.
    """
    kind = kind_named(kinds, product.kind)
    found = relatives(product, kind, stores, last)
    before = other
    if before is None and found.predecessor is not None:
        before = open_product(found.predecessor)
    if before is None and not found.series:
        raise NoMatch(
            f"{product.path}: no {kind.name} of {product.meta.get('detector')} before it to compare it with",
            hint="--with FILE",
        )
    quantities = list(_measures(product, before, found.series))
    quantities += _contents(product, before, found.series, kind, pixels)
    return Comparison(
        product.path,
        None if before is None else before.path,
        len(found.series),
        tuple(quantities),
        found.left_out,
    )


def outside(comparison: Comparison, bounds: Sequence[Bound]) -> list[str]:
    """What is outside its bound, each in words; UnknownName for a bound on what is not compared."""
    known = {one.name: one for one in comparison.quantities}
    said: list[str] = []
    for bound in bounds:
        if bound.name not in known:
            raise UnknownName(
                f"{comparison.path}: {bound.name!r} is not among what is compared"
                f"{nearest(bound.name, list(known))}"
            )
        said += _outside(known[bound.name], bound)
    return said


def strict_bounds(comparison: Comparison, sigma: float) -> list[Bound]:
    """A bound for everything that has a series with scatter, but for the general image statistics."""
    return [
        Bound(one.name, sigma, True)
        for one in comparison.quantities
        if one.deviation_sigma is not None and not one.name.startswith("imstat.")
    ]


def parse_bound(text: str) -> Bound:
    """A bound from ``NAME=VALUE`` or ``NAME=VALUEsigma``; raises UsageError."""
    name, equals, value = text.rpartition("=")
    in_sigma = value.endswith("sigma")
    try:
        number = float(value.removesuffix("sigma"))
    except ValueError:
        number = math.nan
    if not (equals and name and number >= 0):
        raise UsageError(f"--limit {text}: must be NAME=VALUE or NAME=VALUEsigma, with VALUE at least 0")
    return Bound(name, number, in_sigma)


def _outside(one: Quantity, bound: Bound) -> Iterator[str]:
    value = one.deviation_sigma if bound.in_sigma else one.difference
    if value is None:
        yield f"{one.name} cannot be judged: {_missing(one, bound)}"
    elif abs(value) > bound.value and bound.in_sigma:
        yield (
            f"{one.name} is {one.now:.6g}, {value:+.3g} sigma from {one.median:.6g}, the median of "
            f"{one.values} (limit {bound.value:g})"
        )
    elif abs(value) > bound.value:
        what = "differs" if one.now is None else f"is {one.now:.6g}, differs"
        yield f"{one.name} {what} by {value:.4g} (limit {bound.value:g})"


def _missing(one: Quantity, bound: Bound) -> str:
    if bound.in_sigma and one.values < LEAST_SERIES:
        return f"the series has {one.values} values, fewer than {LEAST_SERIES}"
    return "the series does not scatter" if bound.in_sigma else "it was not measured in both"


# What to compare with


def relatives(product: ProductInput, kind: Kind, stores: Sequence[Store], last: int) -> Relatives:
    """The predecessor of a product, and the newest version of each of the ``last`` nights before its own.

    Of a kind that is no calibration the predecessor is an earlier version of the same
    exposure, and the series consists of exposures.
    """
    series_keys = ({*SAME_PRODUCT, *kind.match}) - {"night", "exposure", "overscan_mode"}
    own = _same_product(product.meta)
    versions: list[dict[str, Any]] = []
    earlier: list[dict[str, Any]] = []
    left_out: list[tuple[str, str]] = []
    for row in _rows(product, kind, stores):
        meta = row["meta"]
        if any(meta.get(name) != product.meta.get(name) for name in series_keys):
            continue
        of_it = _same_product(meta) == own
        before = _made_before(row, product) if of_it else _observed_before(meta, product.meta)
        if not before:
            continue
        if row["reason"]:
            left_out.append((row["path"], row["reason"]))
        else:
            (versions if of_it else earlier).append(row)
    nearest_first = _one_a_product(earlier)
    candidates = [max(versions, key=_order)] if versions else nearest_first[:1] if kind.validity else []
    return Relatives(
        Path(candidates[0]["path"]) if candidates else None,
        tuple(nearest_first[:last]),
        tuple(sorted(left_out)),
    )


def _rows(product: ProductInput, kind: Kind, stores: Sequence[Store]) -> Iterator[dict[str, Any]]:
    """The other products of a kind and detector in the stores, with paths, meta and the reason not to use them."""
    from .index import absolute, open_index

    itself = product.path.resolve()
    where = "kind = ? AND instrument IS ? AND detector IS ?"
    asked = (kind.name, product.meta.get("instrument"), product.meta.get("detector"))
    for store in stores:
        with open_index(store) as index:
            rows = list(index.rows(where, asked))
        for row in rows:
            path = Path(absolute(store, row["address"]))
            if path.resolve() == itself or row["recipe_key"] == product.key:
                continue
            yield row | {
                "path": str(path),
                "meta": json.loads(row["meta"]),
                "measures": json.loads(row["measures"]),
                "reason": _reason(row, path),
            }


def _reason(row: Mapping[str, Any], path: Path) -> str:
    if not path.exists():
        return "its file is gone"
    if row["verdict"] == "bad":
        return "judged bad"
    if row["flags"] and row["verdict"] not in ("good", "ready"):
        return "flagged, and nobody judged it good"
    return ""


def _same_product(meta: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(meta.get(name) for name in SAME_PRODUCT)


def _made_before(row: Mapping[str, Any], product: ProductInput) -> bool:
    run = product.record["run"]
    # A product outside of the stores has no place in their order: all that is there came before it.
    if run.get("sequence") is None or row["sequence"] is None:
        return True
    return (row["sequence"], str(row["made"])) < (run["sequence"], str(run.get("end")))


def _observed_before(meta: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    return str(meta.get("obs_start") or "") < str(own.get("obs_start") or "")


def _order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return (row["sequence"] or 0, str(row["made"]), row["path"])


def _one_a_product(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The version made last of each product, the one observed last first."""
    newest: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in sorted(rows, key=_order):
        newest[_same_product(row["meta"])] = row
    return sorted(newest.values(), key=lambda row: str(row["meta"].get("obs_start")), reverse=True)


# Measures


def _measures(
    product: ProductInput, before: ProductInput | None, series: Sequence[Mapping[str, Any]]
) -> Iterator[Quantity]:
    own = product.record["quality"]["measures"]
    others = before.record["quality"]["measures"] if before is not None else {}
    for name in dict.fromkeys([*own, *others]):
        yield _quantity(name, others.get(name), own.get(name), [one["measures"].get(name) for one in series])


def _quantity(
    name: str, before: float | None, now: float | None, series: Sequence[float | None] = ()
) -> Quantity:
    values = [float(one) for one in series if one is not None and math.isfinite(one)]
    difference = None if before is None or now is None else now - before
    median, scatter = running(values)
    return Quantity(name, before, now, difference, median, scatter, len(values))


def running(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Median and standard deviation of a short series; None for no value, the deviation for fewer than 5.

    The deviation is 1.4826 times the median absolute one, made unbiased for few
    values (Croux and Rousseeuw 1992, Computational Statistics 1, 411).
    """
    if not values:
        return None, None
    middle = float(np.median(values))
    if len(values) < LEAST_SERIES:
        return middle, None
    n = len(values)
    factor = SMALL_SAMPLE.get(n, n / (n - 0.8))
    return middle, factor * MAD_PER_SIGMA * float(np.median(np.abs(np.array(values) - middle)))


# Tables and images


def _contents(
    product: ProductInput,
    before: ProductInput | None,
    series: Sequence[Mapping[str, Any]],
    kind: Kind,
    pixels: bool,
) -> list[Quantity]:
    if _is_table(product):
        now = load_product(product)
        assert isinstance(now, Table)
        return list(_tables(now, before, _series_tables(series)))
    if before is None or not pixels:
        return []
    return list(compare_frames(_frame(product), _frame(before), kind.unit))


def _is_table(product: ProductInput) -> bool:
    from .fits import open_fits

    with open_fits(product.path) as fits:
        return not any(hdu.is_image for hdu in fits.hdus)


def _frame(product: ProductInput) -> Frame:
    loaded = load_product(product)
    if not isinstance(loaded, Frame):
        raise WrongKind(f"{product.path}: a {product.kind} is a table, and the other is an image")
    return loaded


def _series_tables(series: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, float | None]]:
    for row in series:
        try:
            loaded = load_product(open_product(Path(row["path"])))
        except AweError:
            # One that was edited or is being replaced says nothing about this one.
            continue
        if isinstance(loaded, Table):
            yield numbers_of(loaded)


def _tables(
    now: Table, before: ProductInput | None, series: Iterator[dict[str, float | None]]
) -> Iterator[Quantity]:
    there: Mapping[str, float | None] = {}
    if before is not None:
        loaded = load_product(before)
        if not isinstance(loaded, Table):
            raise WrongKind(f"{before.path}: a {before.kind} is an image, and the other is a table")
        there = numbers_of(loaded)
    here, others = numbers_of(now), list(series)
    for name in dict.fromkeys([*here, *there]):
        yield _quantity(name, there.get(name), here.get(name), [one.get(name) for one in others])


def numbers_of(table: Table) -> dict[str, float | None]:
    """The numbers of a table with a row an amplifier, as ``COLUMN[AMP]``; None for what is not finite.

    Columns of texts, and those that hold more than one number a row, are left out.
    """
    names = [str(one).strip() for one in table.columns.get("AMP", ())]
    found: dict[str, float | None] = {}
    for column, values in table.columns.items():
        array = np.asarray(values)
        if array.ndim != 1 or array.dtype.kind not in "iuf":
            continue
        for row, value in enumerate(array.tolist()):
            label = names[row] if row < len(names) else str(row + 1)
            found[f"{column}[{label}]"] = float(value) if math.isfinite(value) else None
    return found


def compare_frames(now: Frame, before: Frame, unit: str = "adu") -> Iterator[Quantity]:
    """What changed between two images (ny, nx) of one detector: levels and structure, or pixels of each bit.

    ``unit``: of the pixels, for the names of the quantities. Raises Mixture if the shapes differ.
    """
    if now.data.shape != before.data.shape:
        ours, theirs = ("{1} x {0}".format(*one.data.shape) for one in (now, before))
        raise Mixture(f"images of {ours} and {theirs} pixels cannot be compared")
    if now.mask is not None and before.mask is not None:
        yield from _masks(now.mask, before.mask)
    if now.data.dtype.kind in "iu":
        return
    change = change_of(now, before, unit)
    if not change.use.any():
        raise BadPixels("the two images have no good pixel in common", hint="awe-imstat shows their pixels")
    yield from _structure(change, _boxes(now))


def _masks(now: npt.NDArray[Any], before: npt.NDArray[Any]) -> Iterator[Quantity]:
    from .pixels.mask import Bit

    for bit in Bit:
        here, there = (now & int(bit)) != 0, (before & int(bit)) != 0
        counts = int(here.sum()), int(there.sum())
        if any(counts):
            name = f"mask.{str(bit.name).lower()}_pixels"
            yield Quantity(name, counts[1], counts[0], counts[0] - counts[1])
            yield Quantity(f"{name}.gained", difference=int((here & ~there).sum()))
            yield Quantity(f"{name}.lost", difference=int((there & ~here).sum()))


@dataclass(frozen=True)
class Change:
    """How one image differs from another (ny, nx): now - before, or now / before - 1 (relative).

    ``pull``: the same in units of its expected noise; None where the images have no
    weights. ``use``: pixels that are good in both. ``suffix``: the unit, as names end in it.
    """

    data: npt.NDArray[np.float32]
    use: npt.NDArray[np.bool_]
    pull: npt.NDArray[np.float32] | None
    relative: bool
    suffix: str


def change_of(now: Frame, before: Frame, unit: str) -> Change:
    """The difference of two images; the relative one of two that have no unit and a level of about 1 (flats)."""
    use = np.isfinite(now.data) & np.isfinite(before.data)
    for one in (now, before):
        if one.weight is not None:
            use &= one.weight > 0
    relative = not unit and all(_is_response(one.data[use]) for one in (now, before))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        change = now.data - before.data
        pull = None
        if now.weight is not None and before.weight is not None:
            pull = change / np.sqrt(1 / now.weight + 1 / before.weight)
        if relative:
            change = change / before.data
            use = use & np.isfinite(change)
    suffix = "_fraction" if relative else "".join(f"_{part}" for part in unit.split("/") if part)
    return Change(change.astype(np.float32), use, pull, relative, suffix)


def _is_response(values: npt.NDArray[Any]) -> bool:
    return bool(values.size) and 0.5 < float(np.median(values[::7])) < 2


def _structure(change: Change, boxes: Sequence[tuple[str, tuple[slice, slice]]]) -> Iterator[Quantity]:
    from .pixels.smooth import block_statistics
    from .pixels.stats import clipped

    def found(name: str, value: float, suffix: str = change.suffix) -> Quantity:
        return Quantity(f"difference.{name}{suffix}", difference=value if math.isfinite(value) else None)

    whole = clipped(change.data[change.use])
    yield found("median", whole.median)
    yield found("stdev", whole.stdev)
    if len(boxes) > 1:
        for name, box in boxes:
            part = clipped(change.data[box][change.use[box]])
            yield replace(found("median", part.median), name=f"difference.median{change.suffix}[{name}]")
    reach = OUTLIER_SIGMA * whole.stdev
    # A few hot pixels must not make their row or column a structure.
    kept = np.clip(change.data, np.float32(whole.median - reach), np.float32(whole.median + reach))
    for name, axis in (("row_structure", 1), ("column_structure", 0)):
        yield found(name, clipped(_means(kept, change.use, axis)).stdev)
    blocks = block_statistics(change.data, change.use, BLOCK_PX).median - whole.median
    if np.isfinite(blocks).any():
        yield found("block_stdev", float(np.nanstd(blocks)))
        yield found("block_min", float(np.nanmin(blocks)))
        yield found("block_max", float(np.nanmax(blocks)))
    outliers = np.abs(change.data[change.use] - np.float32(whole.median)) > reach
    yield found("outlier_fraction", float(outliers.mean()), "")
    if change.pull is not None:
        yield found("pull_stdev", clipped(change.pull[change.use]).stdev, "")


def _means(values: npt.NDArray[Any], use: npt.NDArray[np.bool_], axis: int) -> npt.NDArray[np.float64]:
    counts = use.sum(axis=axis)
    sums = np.where(use, values, 0).sum(axis=axis, dtype=np.float64)
    means: npt.NDArray[np.float64] = sums[counts > 0] / counts[counts > 0]
    return means


def _boxes(frame: Frame) -> list[tuple[str, tuple[slice, slice]]]:
    from .kinds.common import amplifiers_of

    return [
        (one.name, (slice(one.target.y0, one.target.y1), slice(one.target.x0, one.target.x1)))
        for one in amplifiers_of(frame)
    ]
