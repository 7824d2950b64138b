"""What fills a role without a comparison: the catalogue that a parameter means, the product that holds a frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..catalogues.refinput import AUTO, all_catalogues, far_from, is_bad
from ..errors import AweError
from ..indexing.stock import Stock
from ..kind import REFCAT, Kind, Need, holding
from ..settings import resolve_params
from ..workspace import Workspace
from .filling import serves_holder, with_catalogues


@dataclass(frozen=True)
class Looked:
    """One that was looked at: its content and place, both empty where there is none; why it serves, or does not."""

    content: str
    path: str
    serves: bool
    reason: str


def looked_at(
    kind: Kind, need: Need, meta: Mapping[str, Any], content: str, workspace: Workspace, kinds: Sequence[Kind]
) -> list[Looked]:
    """What was looked at for a role, that which serves first; content: of the kind's one input."""
    if need.kind == REFCAT:
        return sorted(_catalogues(kind, need, meta, workspace), key=lambda one: not one.serves)
    if need.select == holding():
        return [_holder(need, meta, content, workspace, kinds)]
    return [Looked("", "", False, "it is used only where it is named")]


def _catalogues(kind: Kind, need: Need, meta: Mapping[str, Any], workspace: Workspace) -> Iterator[Looked]:
    params = resolve_params(kind, meta, workspace.camera_settings(meta), workspace.settings, {})
    value = getattr(params.values, need.role)
    try:
        resolved, found, missing = with_catalogues(kind, params, meta, workspace.stores)
    except AweError as error:
        yield Looked("", "", False, error.message)
        return
    chosen = found.get(need.role)
    if chosen is None:
        yield Looked("", "", False, missing[need.role].message)
    else:
        why = f"{need.role} = {value}" if value != AUTO else str(resolved.origins[need.role])
        yield Looked(chosen.content, str(chosen.path), True, why)
    for one in all_catalogues(workspace.stores):
        if chosen is None or one.content != chosen.content:
            why = far_from(one, meta) if value == AUTO else f"{need.role} = {value}"
            why = "judged bad" if is_bad(one, workspace.stores) else why
            yield Looked(one.content, str(one.path), False, why or "another one serves")


def _holder(
    need: Need, meta: Mapping[str, Any], content: str, workspace: Workspace, kinds: Sequence[Kind]
) -> Looked:
    stock = Stock(workspace.stores)
    try:
        item = stock.holding(need.kinds, content, serves_holder(need, kinds, meta))
    finally:
        stock.close()
    if item is None:
        return Looked("", "", False, f"no {need.kind} that may be used was made with it")
    return Looked(item.content, str(item.address), True, "the newest that was made with it")
