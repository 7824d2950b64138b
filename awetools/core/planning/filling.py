"""What fills the roles of one product: what a rule chooses, a person names, or belongs to a frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..catalogues.refinput import NONE, RefcatInput, reference_of
from ..errors import Flagged, NoMatch, WrongKind
from ..foreignfiles import ForeignInput
from ..journal import Interval, Words, nearest_words, stores_heard
from ..kind import Kind, MetaByRole, Need, holding, kind_named, named, valid_at
from ..params import Resolved
from ..products import ProductInput, open_product
from ..quality import quality_in_force, unfit_for_use
from ..raws import RawInput
from ..store import Store
from ..workspace import Workspace
from .choose import choose, conditions_of, mismatch, nights_between, question_of

Source = RawInput | ProductInput


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


def of_catalogue(
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


def calibrations(
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
        # What is made on request alone is missed by nobody who did not ask for it, nor is what the frame says itself;
        # the record says it all the same.
        if not need.on_request and meta.get(need.own) is None:
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
