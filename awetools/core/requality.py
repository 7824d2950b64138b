"""Limits that were changed, applied again to what products measured, without making them again.

The record of a product stays as it is. Where its flags come out otherwise, that is
appended to a journal, as verdicts are, and counts until it is made again or the limits
are applied once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import AweError, NoRecord
from .journal import Event, append_after, quality_event, read_events, stores_heard, words, words_of
from .kind import Kind, kind_named
from .quality import judge, quality_in_force
from .record import Record, read_record, sidecar
from .settings import resolve_limits
from .store import Store, store_of
from .validity import journal_for
from .workspace import Workspace

REASON = "the limits now in force"


@dataclass(frozen=True)
class Requalified:
    """A product whose flags are others by the limits now in force: quality blocks before and after."""

    path: Path
    key: str
    made: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]

    @property
    def text(self) -> str:
        """What changed, in words."""
        was, now = set(self.before.get("flag_names", ())), set(self.after["flag_names"])
        limits = {one["measure"]: one for one in (*self.before.get("limits", ()), *self.after["limits"])}
        said = [f"now flagged: {_outside(limits[name])}" for name in sorted(now - was)]
        said += [f"no longer flagged: {name}{_inside(limits.get(name))}" for name in sorted(was - now)]
        return "; ".join(said) or "the bits of its flags are others"


@dataclass(frozen=True)
class Failure:
    """A product to which the limits could not be applied."""

    path: Path
    error: AweError


def apply_limits(
    products: Sequence[Path], workspace: Workspace, kinds: Sequence[Kind], who: str, dry_run: bool = False
) -> Iterator[Requalified | Failure | None]:
    """Judge the measures in the records of products by the limits of settings and camera now in force.

    Yields one for each product, None where its flags are as they should be; then a Failure
    for each whose journal could not be written. The journals are written at the end, one
    append each, to the stores that `journal_for` names.
    """
    groups: dict[Store, list[Requalified]] = {}
    for path in products:
        try:
            found = requalified(path, workspace, kinds)
            if found is not None:
                stores = stores_heard(path, workspace.stores)
                store = journal_for(str(path), found.key, stores, store_of(path), "qualities")
                groups.setdefault(store, []).append(found)
        except AweError as error:
            yield Failure(path, error)
        else:
            yield found
    for store, group in groups.items():
        try:
            if dry_run:
                read_events(store)
            else:
                append_after(store, lambda events, group=group: _events(events, group, who))  # type: ignore[misc]
        except AweError as error:
            yield from (Failure(one.path, error) for one in group)


def requalified(path: Path, workspace: Workspace, kinds: Sequence[Kind]) -> Requalified | None:
    """What the limits now in force change in a product; None if nothing. Raises NoRecord, UnknownName, BadSettings."""
    record = read_record(sidecar(path))
    try:
        kind, meta = _kind_of(record, kinds), record["meta"]
        limits = resolve_limits(kind, meta, workspace.camera_settings(meta), workspace.settings)
        after = judge(kind, record["quality"]["measures"], limits)
        before = _in_force(record, stores_heard(path, workspace.stores))
        made = str(record["run"].get("end") or "")
    except (KeyError, TypeError, AttributeError) as error:
        raise NoRecord(f"{sidecar(path)}: malformed: {type(error).__name__} {error}") from None
    if after["flags"] == before["flags"]:
        return None
    return Requalified(path, str(record["recipe_key"]), made, before, after)


def _kind_of(record: Record, kinds: Sequence[Kind]) -> Kind:
    """The kind of a product; of those of one name, the one that takes what the product was made of."""
    name = record["recipe"]["kind"]
    roles = {one["role"] for one in record["recipe"]["inputs"]}
    named = [kind for kind in kinds if kind.name == name]
    fitting = (kind for kind in named if any(lead.role in roles for lead in kind.leads))
    return next(fitting, None) or kind_named(kinds, name)


def _in_force(record: Record, stores: Sequence[Store]) -> dict[str, Any]:
    key = str(record["recipe_key"])
    said = next((found for store in stores if key in (found := words(store)).qualities), None)
    return dict(record["quality"]) if said is None else quality_in_force(record, said)


def _events(events: Sequence[Event], group: Sequence[Requalified], who: str) -> list[Event]:
    """The events of a journal, less what another program said of the same limits a moment before."""
    known = words_of(events)
    new: dict[str, Event] = {}
    for one in group:
        said = known.quality_of(one.key, one.made)
        if one.key not in new and (said is None or said.flags != one.after["flags"]):
            new[one.key] = quality_event(
                one.key, one.made, one.after["flags"], one.after["limits"], REASON, who
            )
    return list(new.values())


def _outside(limit: Mapping[str, Any]) -> str:
    value = "not measured" if limit["value"] is None else f"{limit['value']:.6g}"
    return f"{limit['measure']} {value}, limits {_bounds(limit)}"


def _inside(limit: Mapping[str, Any] | None) -> str:
    if limit is None or not limit["ok"]:
        return ", which has no limits any more"
    return f" {limit['value']:.6g}, limits {_bounds(limit)}"


def _bounds(limit: Mapping[str, Any]) -> str:
    if limit["low"] is None and limit["high"] is None:
        return "none"
    return "..".join("" if limit[end] is None else f"{limit[end]:.6g}" for end in ("low", "high"))
