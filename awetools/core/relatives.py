"""What a product is compared with: its predecessor, and the products of the nights before its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .batch import open_sources
from .errors import WrongKind
from .files import parse_address
from .kind import SAME_PRODUCT, Kind
from .products import ProductInput
from .quality import unfit_for_use
from .store import Store
from .workspace import Workspace


@dataclass(frozen=True)
class Relatives:
    """What a product is compared with: its predecessor, and rows of the index, the newest night first.

    ``left_out``: paths that would have been taken, each with the reason why not.
    """

    predecessor: Path | None
    series: tuple[Mapping[str, Any], ...]
    left_out: tuple[tuple[str, str], ...] = ()


def product_named(name: str, workspace: Workspace) -> ProductInput:
    """The product that a name stands for; raises WrongKind for a raw frame, and what opening it raises."""
    source = open_sources(parse_address(name), workspace)[0]
    if not isinstance(source, ProductInput):
        raise WrongKind(f"{name}: a raw frame; products are compared", hint=f"awe-imstat {name}")
    return source


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
    from .indexing.index import absolute
    from .indexing.inforce import rows_in_force

    itself = product.path.resolve()
    where = "kind = ? AND instrument IS ? AND detector IS ?"
    asked = (kind.name, product.meta.get("instrument"), product.meta.get("detector"))
    for rank, row in rows_in_force(stores, where, asked):
        path = Path(absolute(stores[rank], row["address"]))
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
    return unfit_for_use(row["flags"], row["verdict"])


def _same_product(meta: Mapping[str, Any]) -> tuple[Any, ...]:
    # Where no exposure tells it, images of two objects are no versions of each other.
    of = None if meta.get("exposure") else meta.get("object")
    return of, *(meta.get(name) for name in SAME_PRODUCT)


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
