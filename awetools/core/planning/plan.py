"""What one product will be made of, its key, and whether the one that exists is up to date.

One decision function with named reasons serves doing, -n, --why and --check alike.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ..errors import BadHeader, Mixture, NoMatch, NoRecord, TooFew, WouldOverwrite, WrongKind
from ..gridstore import PARAMETER, file_meant, with_grid
from ..kind import (
    REFCAT,
    SAME_PRODUCT,
    Kind,
    Limit,
    Need,
    Validity,
    holding,
    needed_last,
)
from ..params import Resolved
from ..products import ProductInput, state_of
from ..raws import RawInput
from ..record import Record, read_record, recipe_key, sidecar
from ..settings import resolve_limits, resolve_params, resolve_validity
from ..store import Store, store_of
from ..workspace import Workspace
from .differences import Part, Reason, differences
from .filling import Input, Source, Wish, calibrations, of_catalogue, with_catalogues
from .offgrid import leave_out_elsewhere

# What belongs to one exposure and means nothing for a stack of many.
PER_EXPOSURE = ("exposure", "object", "airmass", "ra_deg", "dec_deg", "wcs", "frame_type")


@dataclass(frozen=True)
class Plan:
    """All that decides what a product will be, before a pixel is read.

    omitted: frames that were given and lack something that they need, and what. grid_file: that
    of the grid that was named.
    """

    kind: Kind
    lead: str
    inputs: tuple[Input, ...]
    without: tuple[str, ...]
    params: Resolved
    limits: tuple[Limit, ...]
    meta: Mapping[str, Any]
    key: str
    notes: tuple[str, ...] = ()
    validity: Validity | None = None
    validity_by: str = "default"
    omitted: tuple[tuple[Input, str], ...] = ()
    grid_file: Path | None = None

    def of_role(self, role: str) -> list[Input]:
        """The inputs of a role, in the order of their content."""
        return [one for one in self.inputs if one.role == role]

    @property
    def given(self) -> list[Input]:
        """The inputs that the command was given, in the order of their content."""
        return self.of_role(self.lead)


def group_inputs(kind: Kind, found: Sequence[Source]) -> list[list[Source]]:
    """The inputs, one list a product: those that agree in the kind's match and group keys."""
    names = [*kind.match, *kind.group]
    groups: dict[str, list[Source]] = {}
    for one in found:
        groups.setdefault(repr([one.meta.get(name) for name in names]), []).append(one)
    return list(groups.values())


def refuse_mixture(kind: Kind, groups: Sequence[Sequence[Source]]) -> None:
    """Raise Mixture if there is more than one group, naming two inputs and what differs."""
    if len(groups) < 2:
        return
    one, other = groups[0][0], groups[1][0]
    for name in (*kind.match, *kind.group):
        here, there = one.meta.get(name), other.meta.get(name)
        if here != there:
            raise Mixture(
                f"{other.address}: {name} is {there!r}, but {one.address} has {here!r}: "
                f"they do not belong in one {kind.name}",
                hint="--out-dir DIR makes one product of each group",
            )


def make_plan(
    kind: Kind, primary: Sequence[Source], wish: Wish, workspace: Workspace, kinds: Sequence[Kind]
) -> Plan:
    """Resolve parameters and calibrations for one product, and compute its key.

    Raises TooFew, WrongKind, NoMatch, Flagged.
    """
    lead = _check_primary(kind, primary)
    first = min(primary, key=lambda one: str(one.meta.get("obs_start")))
    params = resolve_params(
        kind, first.meta, workspace.camera_settings(first.meta), workspace.settings, wish.parameters or {}
    )
    params, changes = with_overscan_mode(params, first.meta)
    params, references, missing = with_catalogues(kind, params, first.meta, workspace.stores)
    params, on_grid = with_grid(kind, params, workspace.stores)
    inputs = [Input(lead.role, one, {**one.meta, **changes}) for one in primary]
    meta = product_meta(kind, [one.meta for one in inputs])
    notes: list[str] = []
    omitted: list[tuple[Input, str]] = []
    without = []
    for need in needed_last(need for need in kind.needs if need is not lead):
        roles = {one.role: one.meta for one in inputs}
        if need.kind == REFCAT:
            found = of_catalogue(need, roles, references, missing, notes)
        elif reason := need.not_asked(params.values) or (need.unless(roles) if need.unless else ""):
            if need.is_told:
                notes.append(f"without {need.role}: {reason}")
            found = []
        else:
            try:
                asked = meta | on_grid if need.select == holding() else meta
                need = need.with_params(params.values)
                found = calibrations(need, roles, inputs, asked, wish, workspace, kinds, notes, omitted)
            except NoMatch as error:
                missing[need.role] = error
                continue
        if not found:
            without.append(need.role)
        inputs += found
    if missing:
        # All that is missing at once, so that nobody learns of one after the other.
        errors = missing.values()
        raise NoMatch("; ".join(one.message for one in errors), hint="; ".join(one.hint for one in errors))
    omitted += leave_out_elsewhere(kind, lead.role, params, inputs)
    if omitted:
        meta = product_meta(kind, [one.meta for one in inputs if one.role == lead.role])
    meta |= _lesser_level(inputs) | on_grid
    inputs.sort(key=lambda one: (_role_number(kind, one.role), one.source.content))
    limits = resolve_limits(kind, first.meta, workspace.camera_settings(first.meta), workspace.settings)
    validity = resolve_validity(kind, meta, workspace.camera_settings(first.meta), workspace.settings)
    key = recipe_key(kind.name, kind.revision, params.as_dict(), [key_part(kind, one) for one in inputs])
    return Plan(
        kind,
        lead.role,
        tuple(inputs),
        tuple(without),
        params,
        tuple(limits),
        meta,
        key,
        tuple(notes),
        *validity,
        tuple(omitted),
        file_meant(params, workspace.stores),
    )


def _lesser_level(inputs: Iterable[Input]) -> dict[str, Any]:
    """What the meta says of a product where it or its calibrations used one outside its validity."""
    farthest = max(max(one.nights_away, one.meta.get("calibration_nights_away") or 0) for one in inputs)
    return {"calibration_nights_away": farthest} if farthest else {}


def key_part(kind: Kind, one: Input) -> dict[str, Any]:
    """What of an input enters the key: role, content, and the meta fields that the kind matches or reads."""
    meta = {} if one.source.kind == REFCAT else key_meta(kind, one.meta)
    return {"role": one.role, "content": one.source.content, "meta": meta}


def key_meta(kind: Kind, meta: Mapping[str, Any]) -> dict[str, Any]:
    """The meta fields of an input that enter the key of what is made of it."""
    found: dict[str, Any] = {name: meta.get(name) for name in dict.fromkeys([*kind.match, *kind.reads])}
    if found.get("sections"):
        # Packing a frame moves its image to another HDU; that is where it lies, not what it is.
        found["sections"] = [{**section, "hdu": None} for section in found["sections"]]
    return found


def decide(plan: Plan, target: Path, before: Record | None = None) -> list[Reason]:
    """Why the product at a path must be made; an empty list if it is up to date.

    Reads the record, and the file only if its size or time changed. before: the
    record of the product that a missing one is to follow, if there is one; the
    reasons are then how the two differ.
    """
    if not os.path.lexists(target) or not sidecar(target).exists():
        if before is not None and before["recipe_key"] != plan.key:
            return _differences(plan, before)
        return [Reason("missing", f"{target} does not exist")]
    try:
        record = read_record(sidecar(target))
    except NoRecord as error:
        return [Reason("edited", error.message)]
    state = state_of(target, record)
    if state != "whole":
        return [Reason("edited", f"{target} is not what its record says")]
    if record["recipe_key"] == plan.key:
        return []
    return _differences(plan, record)


def _differences(plan: Plan, record: Record) -> list[Reason]:
    parts = [
        Part(
            one.role,
            one.source.content,
            key_part(plan.kind, one)["meta"],
            os.path.basename(str(one.source.address)),
            one.question is not None,
        )
        for one in plan.inputs
    ]
    return differences(plan.kind, plan.params.as_dict(), parts, record)


def predecessor(store: Store, plan: Plan) -> Record | None:
    """The record of the version of the same product that was made last."""
    from ..indexing.index import absolute, open_index

    where = " AND ".join(["kind = ?", *(f"{name} IS ?" for name in SAME_PRODUCT)])
    values = [plan.kind.name, *(plan.meta.get(name) for name in SAME_PRODUCT)]
    with open_index(store) as index:
        for row in index.rows(where, values, "ORDER BY sequence DESC LIMIT 1"):
            with suppress(NoRecord):
                return read_record(sidecar(Path(absolute(store, row["address"]))))
    return None


def refuse_foreign(target: Path) -> None:
    """Raise WouldOverwrite if a path holds something that awetools did not write, or that was edited since."""
    if not os.path.lexists(target):
        return
    if target.is_dir():
        raise WouldOverwrite(f"{target}: is a directory", hint=f"--out-dir {target}")
    if not sidecar(target).exists():
        raise WouldOverwrite(f"{target}: exists, and awetools did not write it", hint="--force replaces it")
    try:
        state = state_of(target, read_record(sidecar(target)))
    except NoRecord as error:
        raise WouldOverwrite(error.message, hint="--force replaces the product") from None
    if state == "edited":
        raise WouldOverwrite(f"{target}: was edited since awetools wrote it", hint="--force replaces it")


def validity_of(
    kind: Kind, meta: Mapping[str, Any], validity: Validity | None = None, by: str = "default"
) -> dict[str, Any] | None:
    """The validity that a calibration is made with: whole nights, local noon to local noon, as UTC.

    validity: by default the kind's; by: where it is said. A side without end is None.
    """
    validity = validity or kind.validity
    if validity is None:
        return None
    before, after = validity.nights_before, validity.nights_after
    if not meta.get("night") and (before is not None or after is not None):
        return None
    return {
        "start": None if before is None else noon_of(meta, -before),
        "end": None if after is None else noon_of(meta, 1 + after),
        "by": by,
    }


def noon_of(meta: Mapping[str, Any], nights: int = 0) -> str:
    """Local mean noon, as UTC, on the day of an object's night, or so many days later. Raises BadHeader."""
    night, longitude_deg = meta.get("night"), float(meta.get("site_longitude_deg") or 0.0)
    try:
        noon = datetime.fromisoformat(f"{night}T12:00:00") - timedelta(hours=longitude_deg / 15)
        return (noon + timedelta(days=nights)).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError):
        raise BadHeader(
            f"night {night!r} at longitude {longitude_deg:g} deg gives no time of validity",
            hint="awe-ingest --set night=YYYY-MM-DD --set site_longitude_deg=DEGREES FILE",
        ) from None


def _way_to(kind: Kind, one: Source) -> str:
    """The command that leads from an input of another kind to what is needed."""
    if isinstance(one, RawInput) and kind.primary.kind.startswith("raw_"):
        return f"awe-header --explain-type {one.address}"
    if isinstance(one, ProductInput) and "reduced" in kind.primary.takes:
        imported = [ref for ref in one.record["recipe"]["inputs"] if ref["role"] == "foreign"]
        if imported:
            return f"awe-import --as reduced {shlex.quote(imported[0]['path'])}"
    return f"awe-query {kind.primary.kind}"


def _check_primary(kind: Kind, primary: Sequence[Source]) -> Need:
    """The need that the given inputs fill."""
    need = kind.lead_of(primary[0].kind) or kind.primary
    for one in primary:
        if one.kind not in need.takes:
            wanted = " or ".join(name for lead in kind.leads for name in lead.takes)
            raise WrongKind(
                f"{one.address}: is {one.kind}, but {kind.command} needs {wanted}",
                hint=_way_to(kind, one),
            )
    if (other := next((one for one in primary if one.kind != primary[0].kind), None)) and need.only_given:
        raise Mixture(
            f"{other.address}: is {other.kind}, but {primary[0].address} is {primary[0].kind}: "
            f"a {kind.name} is made of the one or of the other",
            hint=f"awe-query {primary[0].kind}, or awe-query {other.kind}",
        )
    for one in primary:
        doubts = [section["doubt"] for section in one.meta.get("sections") or [] if section.get("doubt")]
        if doubts:
            raise BadHeader(
                f"{one.address}: {doubts[0]}",
                hint="awe-ingest --set sections=JSON says where the data lie; or a camera table of its own",
            )
    if len(primary) < need.at_least:
        names = ", ".join(str(one.address) for one in primary)
        raise TooFew(
            f"{kind.name} needs at least {need.at_least} {need.kind} frames of one group, not {len(primary)}: {names}",
            hint=f"awe-query {need.kind}",
        )
    return need


def with_overscan_mode(params: Resolved, meta: Mapping[str, Any]) -> tuple[Resolved, dict[str, str]]:
    """`auto` becomes what the camera says; frames without an overscan have none to subtract."""

    if "overscan_mode" not in params.origins:
        return params, {}
    mode, origin = params.values.overscan_mode, params.origins["overscan_mode"]
    if mode == "auto":
        mode, origin = meta.get("overscan_mode") or "none", f"camera {meta.get('camera')}"
    if not any(one.get("overscan") for one in meta.get("sections") or []):
        mode, origin = "none", "the frames have no overscan"
    values = replace(params.values, overscan_mode=mode)
    return Resolved(values, {**params.origins, "overscan_mode": origin}), {"overscan_mode": mode}


def _role_number(kind: Kind, role: str) -> int:
    return [need.role for need in kind.needs].index(role)


def product_meta(kind: Kind, metas: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a product inherits from its primary inputs: what they share, and the earliest start."""
    first = metas[0]
    meta = {name: first[name] for name in first if all(one.get(name) == first[name] for one in metas)}
    meta["obs_start"] = min((one["obs_start"] for one in metas if one.get("obs_start")), default=None)
    temperatures = [one["temperature_c"] for one in metas if one.get("temperature_c") is not None]
    if temperatures:
        meta["temperature_c"] = round(sum(temperatures) / len(temperatures), 3)
    if kind.primary.many:
        for name in PER_EXPOSURE:
            # An image of the sky is of the object that all its frames are of.
            if name != "object" or not hasattr(kind.params, PARAMETER):
                meta.pop(name, None)
        if "filter" not in kind.match:
            meta.pop("filter", None)
        if kind.validity is not None:
            _as_calibration(kind, meta, metas)
    meta.pop("frame_type", None)
    if meta.get("sections"):
        meta["sections"] = [_trimmed(one) for one in meta["sections"]]
    return meta


def _as_calibration(kind: Kind, meta: dict[str, Any], metas: Sequence[Mapping[str, Any]]) -> None:
    """What tells when and where a calibration of many frames serves: the middle one of their nights, in place."""
    if "detector" not in kind.match:
        meta.pop("detector", None)
    known = sorted(str(one["night"]) for one in metas if one.get("night"))
    if known and not meta.get("night"):
        meta["night"] = known[(len(known) - 1) // 2]


def _trimmed(section: Mapping[str, Any]) -> dict[str, Any]:
    from ..sections import parse_section, section_text

    target = parse_section(section["target"])
    plain = section_text(replace(target, flip_x=False, flip_y=False))
    return {"amp": section["amp"], "hdu": 0, "data": plain, "overscan": None, "target": plain}


def target_of(
    plan: Plan, output: Path | None, out_dir: Path | None, workspace: Workspace, name: Callable[[Plan], str]
) -> tuple[Path, Store | None]:
    """Where a product goes, and the store that it belongs to: the one given, else the first store's pattern."""
    from ..store import default_path

    if output is not None:
        return output, store_of(output)
    if out_dir is not None:
        path = out_dir / name(plan)
        return path, store_of(path)
    if not workspace.stores:
        from ..errors import UsageError

        raise UsageError(
            "there is no store here: say where the product goes", hint="-o FILE, --out-dir DIR, or awe-init"
        )
    store = workspace.stores[0]
    one_frame = not plan.kind.primary.many
    return default_path(store, plan.kind.name, plan.meta, plan.key, one_frame), store
