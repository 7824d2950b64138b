"""What one product will be made of, its key, and whether the one that exists is up to date.

One decision function with named reasons serves doing, -n, --why and --check alike.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ..catalogues.refinput import NONE, RefcatInput, reference_of
from ..errors import BadHeader, Flagged, Mixture, NoMatch, NoRecord, TooFew, WouldOverwrite, WrongKind
from ..foreignfiles import ForeignInput
from ..gridstore import with_grid
from ..journal import Interval, Words, nearest_words, stores_heard
from ..kind import (
    REFCAT,
    SAME_PRODUCT,
    Kind,
    Limit,
    MetaByRole,
    Need,
    Validity,
    holding,
    kind_named,
    named,
    needed_last,
    valid_at,
)
from ..params import Resolved
from ..products import ProductInput, open_product, state_of
from ..quality import quality_in_force, unfit_for_use
from ..raws import RawInput
from ..record import Record, read_record, recipe_key, sidecar
from ..settings import resolve_limits, resolve_params, resolve_validity
from ..store import Store, store_of
from ..workspace import Workspace
from .choose import choose, conditions_of, mismatch, nights_between, question_of
from .offgrid import leave_out_elsewhere

Source = RawInput | ProductInput

# What belongs to one exposure and means nothing for a stack of many.
PER_EXPOSURE = ("exposure", "object", "airmass", "ra_deg", "dec_deg", "wcs", "frame_type")


@dataclass(frozen=True)
class Input:
    """One input in its role; `question` is what was asked if it was chosen, None if it was named.

    nights_away: how far a calibration is used outside its validity; 0 within it.
    """

    role: str
    source: Source | ForeignInput | RefcatInput
    meta: Mapping[str, Any]
    question: Mapping[str, Any] | None = None
    accepted_flags: int = 0
    nights_away: int = 0


@dataclass(frozen=True)
class Plan:
    """All that decides what a product will be, before a pixel is read.

    omitted: frames that were given and lack something that they need, and what.
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

    def of_role(self, role: str) -> list[Input]:
        """The inputs of a role, in the order of their content."""
        return [one for one in self.inputs if one.role == role]

    @property
    def given(self) -> list[Input]:
        """The inputs that the command was given, in the order of their content."""
        return self.of_role(self.lead)


@dataclass(frozen=True)
class Reason:
    """Why a product must be made: a name that programs know, and the detail for people."""

    name: str
    detail: str


@dataclass(frozen=True)
class Part:
    """What of an input decides the key of a product: its role and content, the meta that is read, and its name."""

    role: str
    content: str
    meta: Mapping[str, Any]
    name: str
    chosen: bool


@dataclass(frozen=True)
class Wish:
    """What the person asked for besides the primary inputs.

    chosen: the calibrations named are those that the rule chose; nearest_nights: how far
    from its validity one may be taken where none is valid.
    """

    named: Mapping[str, Sequence[ProductInput]]
    without: frozenset[str] = frozenset()
    parameters: Mapping[str, object] | None = None
    accept_flags: bool = False
    chosen: bool = False
    nearest_nights: int = 0


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
            found = _of_catalogue(need, roles, references, missing, notes)
        elif reason := need.not_asked(params.values) or (need.unless(roles) if need.unless else ""):
            notes.append(f"without {need.role}: {reason}")
            found = []
        else:
            try:
                asked = meta | on_grid if need.select == holding() else meta
                need = need.with_params(params.values)
                found = _calibrations(need, roles, inputs, asked, wish, workspace, kinds, notes, omitted)
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


def with_catalogues(
    kind: Kind, params: Resolved, meta: Mapping[str, Any], stores: Sequence[Store]
) -> tuple[Resolved, dict[str, RefcatInput], dict[str, NoMatch]]:
    """The parameters with the names of the catalogues that they mean, these by role, and why others are not there.

    Raises UsageError where several serve, and as `reference_of` for one that is named and not there.
    """
    found: dict[str, RefcatInput] = {}
    missing: dict[str, NoMatch] = {}
    for role in (need.role for need in kind.catalogues):
        value = getattr(params.values, role)
        name, origin = NONE, params.origins[role]
        try:
            if value == NONE:
                raise NoMatch(f"{role} = {NONE}, by request", hint=f"--{role} NAME")
            found[role], why = reference_of(value, meta, stores)
            name, origin = found[role].name, why or origin
        except NoMatch as error:
            missing[role] = error
            if value != NONE:
                origin = error.message
        values = replace(params.values, **{role: name})
        params = Resolved(values, {**params.origins, role: origin})
    return params, found, missing


def _of_catalogue(
    need: Need,
    roles: MetaByRole,
    references: Mapping[str, RefcatInput],
    missing: dict[str, NoMatch],
    notes: list[str],
) -> list[Input]:
    """The catalogue of a role; without one, where it is optional, it is missing no more."""
    if need.role in references:
        return [Input(need.role, references[need.role], {})]
    if need.is_optional(roles):
        notes.append(f"without {need.role}: {missing.pop(need.role).message}")
    return []


def _calibrations(
    need: Need,
    roles: MetaByRole,
    inputs: list[Input],
    meta: Mapping[str, Any],
    wish: Wish,
    workspace: Workspace,
    kinds: Sequence[Kind],
    notes: list[str],
    omitted: list[tuple[Input, str]],
) -> list[Input]:
    """What fills a role, chosen or named; where it takes many, what belongs to each of the frames given.

    Of many frames those that lack what they need are taken out of the inputs and put to `omitted`.
    """
    if need.role in wish.without:
        return []
    if need.select == named() and not wish.named.get(need.role):
        if not need.optional:
            raise not_named(need)
        return []
    if need.select == holding() and not wish.named.get(need.role):
        found = _that_holds(need, inputs[0].source, workspace.stores, kinds, meta)
        way_out = f"--no-{need.role} goes without"
        notes += [f"{need.role}: taken out of {one.source.address} ({way_out})" for one in found]
        return found
    need = replace(need, optional=need.is_optional(roles))
    if not need.many:
        chosen = _calibration(need, meta, wish, workspace, kinds, notes)
        return [] if chosen is None else [chosen]
    if need.select == valid_at():
        return _of_any(
            need, [one.meta for one in inputs if one.role == inputs[0].role], wish, workspace, kinds, notes
        )
    found, lonely = [], {}
    for frame in [one for one in inputs if one.role == inputs[0].role]:
        try:
            chosen = _calibration(need, frame.meta, wish, workspace, kinds, notes)
        except NoMatch as error:
            lonely[id(frame)] = error
            continue
        found += [] if chosen is None else [chosen]
    if lonely and not found:
        raise next(iter(lonely.values()))
    if need.some:
        return found
    omitted += [(one, lonely[id(one)].message) for one in inputs if id(one) in lonely]
    inputs[:] = [one for one in inputs if id(one) not in lonely]
    return found


def not_named(need: Need) -> NoMatch:
    """That a role is empty which only a person can fill."""
    return NoMatch(f"no {need.role} is named, and none is chosen", hint=f"--{need.role} FILE")


def _of_any(
    need: Need,
    metas: Sequence[Mapping[str, Any]],
    wish: Wish,
    workspace: Workspace,
    kinds: Sequence[Kind],
    notes: list[str],
) -> list[Input]:
    """The calibrations of many frames, each once; those of frames that have none are not missed."""
    found: dict[str, Input] = {}
    without: list[str] = []
    for meta in metas:
        nearest = sorted(
            wish.named.get(need.role, ()),
            key=lambda one: nights_between(one.meta.get("night"), meta.get("night")),
        )
        own = replace(wish, named={**wish.named, need.role: nearest})
        chosen = _calibration(need, meta, own, workspace, kinds, without)
        if chosen is not None:
            found.setdefault(chosen.source.content, chosen)
    notes += without[:1]
    return list(found.values())


def serves_holder(
    need: Need, kinds: Sequence[Kind], meta: Mapping[str, Any]
) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a product of some meta, which holds a frame, serves what is made of it."""
    serves = kind_named(kinds, need.kind).serves
    return lambda own: serves is None or not serves(own, meta)


def _that_holds(
    need: Need,
    source: Source | ForeignInput | RefcatInput,
    stores: Sequence[Store],
    kinds: Sequence[Kind],
    meta: Mapping[str, Any],
) -> list[Input]:
    """The newest product that was made with an input and may be used, if there is one."""
    from ..indexing.stock import Stock

    stock = Stock(stores)
    try:
        item = stock.holding(need.kinds, source.content, serves_holder(need, kinds, meta))
    finally:
        stock.close()
    if item is None:
        return []
    product = open_product(Path(item.address))
    return [Input(need.role, product, product.meta, {"kind": item.kind, "holding": source.content})]


def _calibration(
    need: Need,
    meta: Mapping[str, Any],
    wish: Wish,
    workspace: Workspace,
    kinds: Sequence[Kind],
    notes: list[str],
) -> Input | None:
    if wish.named.get(need.role):
        return _named(need, kinds, meta, wish, workspace.stores, notes)
    misses = []
    for name in need.kinds:
        kind = kind_named(kinds, name)
        question = question_of(kind, meta)
        try:
            chosen = choose(kind, question, workspace.stores, meta, nearest_nights=wish.nearest_nights)
        except NoMatch as error:
            misses.append(error)
            continue
        product = open_product(chosen.path)
        nights_away = chosen.outside_nights
        if nights_away:
            notes.append(f"{need.role}: {product.path} is used {nights_away} nights away: {chosen.reason}")
        return Input(need.role, product, product.meta, question, 0, nights_away)
    message = "; ".join(error.message for error in misses)
    if need.optional:
        notes.append(f"without {need.role}: {message}")
        return None
    raise NoMatch(message, hint=f"--{need.role} FILE, --no-{need.role}, or: {misses[0].hint}")


def _named(
    need: Need,
    kinds: Sequence[Kind],
    meta: Mapping[str, Any],
    wish: Wish,
    stores: Sequence[Store],
    notes: list[str],
) -> Input:
    """The one of the named calibrations that matches the frame."""
    wrong = []
    for product in wish.named[need.role]:
        if product.kind not in need.kinds:
            wanted = " or ".join(need.kinds)
            raise WrongKind(f"{product.path}: is {product.kind}, but --{need.role} needs {wanted}")
        kind = kind_named(kinds, product.kind)
        # What only a person can name is not a calibration: the recipe says what it must agree in.
        differs = "" if need.select == named() else mismatch(kind, meta, product.meta)
        if not differs:
            said = nearest_words(stores_heard(product.path, stores))
            outside = _outside_validity(product, said.validities.get(product.key), meta)
            nights_away = (
                max(1, nights_between(product.meta.get("night"), meta.get("night"))) if outside else 0
            )
            if outside and nights_away > wish.nearest_nights:
                notes.append(f"{need.role}: {product.path} was named, although it {outside}")
            question = question_of(kind, meta) if wish.chosen and need.select != named() else None
            flags = _accepted_flags(product, said, wish.accept_flags)
            return Input(need.role, product, product.meta, question, flags, nights_away)
        wrong.append(f"{product.path}: {differs}")
    raise NoMatch(
        f"--{need.role} does not match {meta.get('exposure') or meta.get('night')}: {'; '.join(wrong)}",
        hint=f"awe-query {need.kind} {conditions_of(kind_named(kinds, need.kind), meta)}",
    )


def _outside_validity(product: ProductInput, by_hand: Interval | None, meta: Mapping[str, Any]) -> str:
    """How a calibration's interval misses the frame's start, in words; empty if it holds it."""
    validity, at = product.record["validity"] or {}, str(meta.get("obs_start") or "")
    start, end = (by_hand.start, by_hand.end) if by_hand else (validity.get("start"), validity.get("end"))
    if at and end and at >= end:
        return f"ended {end}"
    if at and start and at < start:
        return f"starts {start}"
    return ""


def _accepted_flags(product: ProductInput, said: Words, accept: bool) -> int:
    verdict = said.verdicts.get(product.key)
    if verdict == "bad":
        raise Flagged(f"{product.path}: was judged bad", hint=f"awe-query {product.kind}")
    quality = quality_in_force(product.record, said)
    flags = int(quality["flags"])
    if not unfit_for_use(flags, verdict):
        return 0
    if not accept:
        names = ", ".join(quality.get("flag_names", ()))
        raise Flagged(
            f"{product.path}: is flagged ({names})", hint="--accept-flags uses it all the same, on record"
        )
    return flags


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


def differences(
    kind: Kind, parameters: Mapping[str, object], parts: Sequence[Part], record: Record
) -> list[Reason]:
    """Why the key of a product to be made is not that of a record, by name; there is always at least one reason."""
    reasons = [*recipe_differences(kind, parameters, record), *role_differences(kind.needs, parts, record)]
    return reasons or [Reason("recipe", "the record's key is not that of its own parts")]


def recipe_differences(kind: Kind, parameters: Mapping[str, object], record: Record) -> Iterable[Reason]:
    """In what revision and parameters differ from those of a record."""
    recipe = record["recipe"]
    if recipe["revision"] != kind.revision:
        yield Reason("recipe", f"revision {recipe['revision']}, now {kind.revision}")
    before = recipe["parameters"]
    for name in sorted(set(before) | set(parameters)):
        value = before[name]["value"] if name in before else None
        if value != parameters.get(name):
            yield Reason("parameters", f"{name} was {value!r}, is {parameters.get(name)!r}")


def role_differences(needs: Iterable[Need], parts: Sequence[Part], record: Record) -> Iterable[Reason]:
    """In what the inputs of some roles differ from those of a record."""
    for need in needs:
        old = [one for one in record["recipe"]["inputs"] if one["role"] == need.role]
        yield from _role_difference(need, [part for part in parts if part.role == need.role], old)


def _role_difference(
    need: Need, now: Sequence[Part], before: Sequence[Mapping[str, Any]]
) -> Iterable[Reason]:
    old = {one["content"] for one in before}
    new = {one.content for one in now}
    if old == new:
        yield from _meta_difference(now, before)
        return
    old_names = {os.path.basename(one["path"]) for one in before}
    new_names = {one.name for one in now}
    chosen = any(one.chosen for one in now) and not need.many
    if old_names == new_names:
        yield Reason("inputs", f"{need.role}: the content of {_few(new_names)} changed")
    elif need.many:
        gone, more = sorted(old_names - new_names), sorted(new_names - old_names)
        texts = [f"{word} {_few(names)}" for word, names in (("new:", more), ("gone:", gone)) if names]
        yield Reason("members", f"{need.role}: {', '.join(texts)}")
    else:
        yield Reason(
            "better" if chosen else "inputs", f"{need.role}: was {_few(old_names)}, is {_few(new_names)}"
        )


def _meta_difference(now: Sequence[Part], before: Sequence[Mapping[str, Any]]) -> Iterable[Reason]:
    known = {one["content"]: one["meta"] for one in before}
    for one in now:
        for name, value in one.meta.items():
            if known[one.content].get(name) != value:
                was = known[one.content].get(name)
                yield Reason("inputs", f"{one.name}: {name} was {was!r}, is {value!r}")


def _few(names: Iterable[str]) -> str:
    names = sorted(names)
    return (
        ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "none"
    )


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
