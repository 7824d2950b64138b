"""A product against its predecessor and against the running median of those before it.

Measures of a record never depend on other products; what does is computed here,
when somebody asks, and written nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .changes import compare_frames
from .errors import AweError, NoMatch, UnknownName, UsageError, WrongKind, nearest
from .frame import Frame, Table
from .kind import Kind, kind_named
from .products import ProductInput, load_product, open_product
from .quantity import LEAST_SERIES, Quantity, quantity
from .relatives import Relatives, relatives
from .store import Store

# Fields in which a product and the one that it is compared with should agree.
ALIKE = ("instrument", "detector", "filter", "binning")


@dataclass(frozen=True)
class Comparison:
    """Everything that was compared of one product; notes: in what it differs from the other one besides."""

    path: Path
    predecessor: Path | None
    nights: int
    quantities: tuple[Quantity, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


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
    Mixture if the shapes differ, WrongKind for a table against an image, or another unit.
    """
    kind = kind_named(kinds, product.kind)
    found = relatives(product, kind, stores, last)
    before = other
    if before is None and found.predecessor is not None:
        before = open_product(found.predecessor)
    if before is None and not found.series:
        raise NoMatch(
            f"{product.path}: no {kind.name} of {product.meta.get('detector')} before it to compare it with"
            f"{_passed_over(found)}",
            hint="--with FILE",
        )
    if before is not None:
        _refuse_other_kind(product, before, kinds)
    quantities = list(_measures(product, before, found.series))
    quantities += _contents(product, before, found.series, kind, pixels)
    return Comparison(
        product.path,
        None if before is None else before.path,
        len(found.series),
        tuple(quantities),
        found.left_out,
        () if before is None else tuple(_differences(product, before)),
    )


def _passed_over(found: Relatives) -> str:
    reasons = [f"{path}: {reason}" for path, reason in found.left_out]
    return f" (passed over: {'; '.join(reasons)})" if reasons else ""


def _refuse_other_kind(product: ProductInput, before: ProductInput, kinds: Sequence[Kind]) -> None:
    """Raise WrongKind for another kind whose numbers mean something else: a table, or pixels of another unit."""
    if before.kind == product.kind:
        return
    units = [kind_named(kinds, one.kind).unit for one in (product, before)]
    if units[0] != units[1] or (_is_table(product) and _is_table(before)):
        raise WrongKind(
            f"{product.path} is a {product.kind}, {before.path} a {before.kind}: their numbers are not the same",
            hint=f"--with a {product.kind}",
        )


def _differences(product: ProductInput, before: ProductInput) -> Iterator[str]:
    if before.kind != product.kind:
        yield f"a {product.kind} against a {before.kind}"
    for name in ALIKE:
        own, other = product.meta.get(name), before.meta.get(name)
        if own != other:
            yield f"its {name} is {own}, that of {before.path} is {other}"


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


# Measures


def _measures(
    product: ProductInput, before: ProductInput | None, series: Sequence[Mapping[str, Any]]
) -> Iterator[Quantity]:
    own = product.record["quality"]["measures"]
    others = before.record["quality"]["measures"] if before is not None else {}
    for name in dict.fromkeys([*own, *others]):
        yield quantity(name, others.get(name), own.get(name), [one["measures"].get(name) for one in series])


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
        yield quantity(name, there.get(name), here.get(name), [one.get(name) for one in others])


def numbers_of(table: Table) -> dict[str, float | None]:
    """The numbers of a table with a row an amplifier, as ``COLUMN[AMP]``; None for what is not finite.

    Columns of texts, and those that hold more than one number a row, are left out; of
    other tables (a source list) there are none.
    """
    names = [str(one).strip() for one in table.columns.get("AMP", ())]
    found: dict[str, float | None] = {}
    for column, values in table.columns.items():
        array = np.asarray(values)
        if not names or array.ndim != 1 or array.dtype.kind not in "iuf":
            continue
        for row, value in enumerate(array.tolist()):
            found[f"{column}[{names[row]}]"] = float(value) if math.isfinite(value) else None
    return found
