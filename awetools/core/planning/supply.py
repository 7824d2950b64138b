"""Which calibrations a product gets, whether they exist or are yet to be made: the rule of `choose`, over nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import NoMatch
from ..indexing.stock import Item, Place
from ..kind import REFCAT, Kind, Need, holding, kind_named, named, needed_last, of_frame, valid_at
from ..settings import resolve_validity
from .choose import Candidate, candidate_of, day_number, only_validity, order, question_of
from .demands import does_without
from .failing import is_foreseen
from .filling import not_named, serves_holder
from .nodes import PENDING, SERVING, Filled, Node, Nodes, Standing, Supply, Way, label, place_of, raw_kinds
from .plan import validity_of

# What is yet to be made comes after all that was made.
NEWEST = 1 << 62
FOREVER = 1 << 30


class _Span:
    """The time about an instant in which every choice is the same, and how far outside its validity one may be."""

    def __init__(self, at: str, nearest_nights: int) -> None:
        self.at, self.start, self.end = at, "", "~"
        self.nearest_nights = nearest_nights

    def note(self, *instants: str) -> None:
        for one in instants:
            if one and one <= self.at:
                self.start = max(self.start, one)
            elif one:
                self.end = min(self.end, one)


@dataclass(frozen=True)
class _Nights:
    """The nodes of a kind at a place by their night; pinned: those whose interval a person set.

    reach: how many nights away one can serve at most.
    """

    by_night: Mapping[int | None, Sequence[Node]]
    by_exposure: Mapping[object, Sequence[Node]]
    pinned: Sequence[Node]
    reach: int

    def nearest(self, night: object) -> Iterator[Sequence[Node]]:
        """Those whose interval a person set; then the nodes within reach of a night, those equally far together."""
        yield self.pinned
        day = day_number(night)
        if day is None:
            yield self.by_night.get(None, ())
            return
        for distance in self._distances(day):
            sides = (day - distance, day + distance) if distance else (day,)
            yield [node for side in sides for node in self.by_night.get(side, ())]

    def _distances(self, day: int) -> Iterable[int]:
        if self.reach <= len(self.by_night):
            return range(self.reach + 1)
        away = {abs(one - day) for one in self.by_night if one is not None}
        return sorted(one for one in away if one <= self.reach)

    def of(self, exposure: object) -> Iterator[Sequence[Node]]:
        """The nodes of an exposure."""
        yield self.by_exposure.get(exposure, ())

    def all(self) -> Iterator[Node]:
        """Every node."""
        yield from self.pinned
        for nodes in self.by_night.values():
            yield from nodes


@dataclass
class Supplier:
    """Chooses the calibrations of nodes.

    decide: gives a node its state; nearest_nights: how far from its validity a
    calibration may be used; without: roles, or KIND.ROLE, that stay empty by request.
    """

    nodes: Nodes
    decide: Callable[[Node], Node]
    nearest_nights: int = 0
    without: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self._nights: dict[tuple[str, Place, bool], _Nights] = {}

    def supply_of(
        self, node: Node, allowed_nights: int = 0, allowed_without: frozenset[str] = frozenset()
    ) -> Supply:
        """The calibrations of a node; the same for all nodes of a setting between two ends of intervals.

        allowed_nights: how far from its validity one was used for this product before;
        allowed_without: the roles without which it was made before, and may be where there is none.
        """
        at = str(node.obs_start or "")
        allowed = max(self.nearest_nights, allowed_nights), allowed_without
        for before, start, end, supply in node.setting.supplies:
            if start <= at < end and before == allowed:
                return supply
        span = _Span(at, allowed[0])
        supply = self._supplied(node, span, allowed_without)
        node.setting.supplies.insert(0, (allowed, span.start, span.end, supply))
        return supply

    def of_each(self, need: Need, node: Node, given: Node) -> tuple[Filled | NoMatch | str, list[Node]]:
        """What fills a role for one of many products that a node is given, and what would and cannot."""
        unusable: list[Node] = []
        found = self._choice(
            need, given.meta(), _Span(str(given.obs_start or ""), self.nearest_nights), unusable
        )
        return found, unusable

    def is_unwanted(self, kind: Kind, need: Need) -> bool:
        """Whether a role stays empty by request."""
        return not self.without.isdisjoint((need.role, f"{kind.name}.{need.role}"))

    def _supplied(self, node: Node, span: _Span, allowed_without: frozenset[str]) -> Supply:
        kind, meta = node.kind, node.meta()
        setting = node.setting
        roles: dict[str, Mapping[str, Any]] = {node.role: meta, **{role: {} for role in setting.catalogues}}
        filled: list[Filled] = []
        without: dict[str, str] = {}
        ways: dict[str, Way] = {}
        missing: list[NoMatch] = []
        culprits: dict[Node, None] = {}
        for need in needed_last(
            need for need in kind.needs if need.role not in (node.role, *setting.catalogues)
        ):
            reason = need.not_asked(setting.params.values) or (need.unless(roles) if need.unless else "")
            if need.optional_with:
                need = replace(need, optional=need.is_optional(roles))
            unusable: list[Node] = []
            found: Filled | list[Filled] | NoMatch | str
            if self.is_unwanted(kind, need):
                found = ""
            elif need.kind == REFCAT:
                lacking = setting.lacking[need.role]
                found = lacking.message if need.optional else lacking
            elif reason:
                found = reason if need.is_told else ""
            elif need.select == holding():
                found = self._that_holds(need, node) or (
                    "" if need.on_request else f"no {need.kind} was made with it"
                )
            elif need.select == named():
                # That nobody named one is nothing to be told of, unless there must be one.
                found = "" if need.optional else not_named(need)
            elif need.many and need.select == valid_at():
                found = self._of_any(need, node, span, unusable)
            elif need.many:
                asked = need.with_params(setting.params.values)
                found = self._of_each(asked, node, span, unusable)
            else:
                found = self._choice(need, meta, span, unusable)
            if isinstance(found, Filled):
                found = [found]
            if isinstance(found, list):
                filled += found
                roles[need.role] = self._meta_of(found[0].node)
            elif isinstance(found, NoMatch) and need.role in allowed_without and not need.optional:
                without[need.role] = f"as it was made before: {found.message}"
            elif isinstance(found, NoMatch):
                stuck = [one.culprit for one in unusable if one.culprit]
                # The cause of several is told once.
                if not stuck or any(one not in culprits for one in stuck):
                    missing.append(_or_without(found, kind, need))
                culprits.update(dict.fromkeys(stuck))
            else:
                without[need.role] = found
                if found and unusable and (error := unusable[0].error):
                    ways[need.role] = Way(unusable[0].kind, error.hint, error.message)
        pending = any(one.node.state in PENDING for one in filled)
        return Supply(tuple(filled), without, tuple(missing), pending, tuple(culprits), ways)

    def _of_each(
        self, need: Need, node: Node, span: _Span, unusable: list[Node]
    ) -> list[Filled] | NoMatch | str:
        """What belongs to each of the products that a node is given; of all of them, or the first reason why not.

        Where some may lack it: of those that have it, if there is one.
        """
        found = []
        reason: NoMatch | str = ""
        for given in node.given:
            assert isinstance(given, Node)
            one = self._choice(need, given.meta(), span, unusable)
            if isinstance(one, Filled):
                found.append(replace(one, frame=given))
            elif not need.some:
                return one
            else:
                reason = reason or one
        return found or reason

    def _of_any(
        self, need: Need, node: Node, span: _Span, unusable: list[Node]
    ) -> list[Filled] | NoMatch | str:
        """The calibrations of the products that a node is given, each once; without any, the first reason why."""
        found: dict[Node, Filled] = {}
        reason: NoMatch | str = ""
        for given in node.given:
            one = self._choice(need, given.meta(), span, unusable) if isinstance(given, Node) else ""
            if isinstance(one, Filled):
                found.setdefault(one.node, one)
            elif isinstance(one, NoMatch):
                return one
            else:
                reason = reason or one
        return list(found.values()) or reason

    def _choice(
        self, need: Need, meta: Mapping[str, Any], span: _Span, unusable: list[Node]
    ) -> Filled | NoMatch | str:
        """The calibration that wins for a frame; without one NoMatch, or in words why an optional one is not used.

        Those that would serve and cannot go to `unusable`.
        """
        misses: list[NoMatch] = []
        for name in need.kinds:
            kind = kind_named(self.nodes.kinds, name)
            nights = self._nights_of(kind, place_of(kind, meta.get), need.on_request)
            its_own = need.select == of_frame()
            for nodes in nights.of(meta["exposure"]) if its_own else nights.nearest(meta.get("night")):
                if best := self._best(kind, meta, nodes, span, unusable):
                    return Filled(need, best)
            if span.nearest_nights or not need.optional:
                ranked = sorted(self._ranked(kind, meta, nights.all(), span), key=_by_order)
                if near := self._nearest(need, ranked, span.nearest_nights):
                    return near
                misses.append(self._miss(kind, meta, ranked, unusable))
        if need.optional:
            # What a person has to see to is no reason to make a lesser product in silence.
            stuck = next((one for one in unusable if one.culprit), None)
            if stuck is not None and stuck.error is not None:
                return NoMatch(f"{label(stuck)} {why_not(stuck)}", hint=stuck.error.hint)
            if meta.get(need.own) is not None:
                return ""
            return "; ".join(dict.fromkeys(map(_cause_of, unusable)))
        hints = dict.fromkeys(one.hint for one in misses)
        return NoMatch("; ".join(one.message for one in misses), hint="; ".join(hints))

    def _that_holds(self, need: Need, node: Node) -> Filled | None:
        """The product with the node's one input among its own, if the input is there as it will be."""
        given = node.given[0]
        source = (
            given.item if isinstance(given, Node) and self.decide(given).state in SERVING - PENDING else None
        )
        serves = serves_holder(need, self.nodes.kinds, {**node.meta(), **node.setting.own})
        item = self.nodes.stock.holding(need.kinds, source.content, serves) if source else None
        if item is None:
            return None
        kind = kind_named(self.nodes.kinds, item.kind)
        return Filled(need, self.decide(self.nodes.as_it_is(kind, item)))

    def _nights_of(self, kind: Kind, place: Place, existing_only: bool) -> _Nights:
        """The nodes that a calibration is chosen among."""
        known = self._nights.get((kind.name, place, existing_only))
        if known is not None:
            return known
        nodes: list[Node] = []
        if not existing_only or self.nodes.stock.items(kind.name, place):
            nodes = list(self.nodes.at(kind, place).values())
        if existing_only:
            nodes = [node for node in nodes if not node.given or self.nodes.versions(node)]
        by_night: dict[int | None, list[Node]] = {}
        by_exposure: dict[object, list[Node]] = {}
        for node in nodes:
            by_exposure.setdefault(node.get("exposure"), []).append(node)
            by_night.setdefault(day_number(node.get("night")), []).append(node)
        reach = max((self._reach(node) for node in nodes), default=0)
        found = self._nights[kind.name, place, existing_only] = _Nights(
            by_night, by_exposure, self.nodes.pinned(kind, place), reach
        )
        return found

    def _reach(self, node: Node) -> int:
        """How many nights before or after its own a calibration can serve at most."""
        row, night = self._standing(node).row, day_number(node.get("night"))
        if not row["valid_by"]:
            return 0
        if not row["valid_from"] or not row["valid_to"] or night is None:
            return FOREVER
        ends = [day_number(row[name][:10]) for name in ("valid_from", "valid_to")]
        return max(abs(end - night) for end in ends if end is not None) + 1

    def _best(
        self, kind: Kind, meta: Mapping[str, Any], nodes: Sequence[Node], span: _Span, unusable: list[Node]
    ) -> Node | None:
        """The best of some nodes that serves a frame and has, or can have, a product; the others go to `unusable`."""
        serving = [one for one in self._ranked(kind, meta, nodes, span) if not one[0].reason]
        if len(serving) > 1:
            serving.sort(key=_by_order)
        for _, node in serving:
            if self.decide(node).state in SERVING:
                return node.stand_in or node
            unusable.append(node)
        return None

    def _nearest(
        self, need: Need, ranked: Sequence[tuple[Candidate, Node]], nearest_nights: int
    ) -> Filled | None:
        """The nearest of the calibrations that serve but for their validity, within the nights allowed."""
        late = [one for one in ranked if only_validity(one[0])]
        for candidate, node in sorted(late, key=lambda one: one[0].outside_nights):
            if candidate.outside_nights > nearest_nights:
                return None
            if self.decide(node).state in SERVING:
                return Filled(need, node.stand_in or node, candidate.outside_nights)
        return None

    def _ranked(
        self, kind: Kind, meta: Mapping[str, Any], nodes: Iterable[Node], span: _Span
    ) -> list[tuple[Candidate, Node]]:
        """What nodes are to a frame, by meta and interval; their states are looked at later, if they may win."""
        question = question_of(kind, meta)
        found = []
        for node in nodes:
            row, name, rank = self._standing(node)
            if kind.foretell and node.given:
                row = {**row, **self._meta_of(self.decide(node))}
            span.note(row["valid_from"] or "", row["valid_to"] or "")
            found.append((candidate_of(kind, row, question, meta, name, rank), node))
        return found

    def _standing(self, node: Node) -> Standing:
        if node.standing is None:
            node.standing = self._standing_of(node)
        return node.standing

    def _standing_of(self, node: Node) -> Standing:
        """A node as a row of the index: of what is taken as it is, its own; else that of the newest product."""
        item = None if node.given else node.item
        meta = node.setting.meta
        row = {**meta, "meta": meta, "verdict": None, "flags": 0, "sequence": NEWEST}
        validity = self._validity(node) or {}
        there = self._there_with_another(node, validity)
        if there is not None:
            row |= {name: getattr(there, name) for name in ("valid_from", "valid_to", "valid_by")}
        elif item is None:
            row |= {
                f"valid_{end}": validity.get(name)
                for end, name in (("from", "start"), ("to", "end"), ("by", "by"))
            }
        else:
            row |= {
                name: getattr(item, name)
                for name in ("valid_from", "valid_to", "valid_by", "flags", "sequence")
            }
            row["verdict"] = self.nodes.stock.verdict(item)
        return Standing(row, Path(label(node)), item.rank if item else 0)

    def _there_with_another(self, node: Node, validity: Mapping[str, Any]) -> Item | None:
        """The product that a node stands for, if it is there as it would be made, but with another interval."""
        ends = (validity.get("start"), validity.get("end"))
        if not node.given or all((one.valid_from, one.valid_to) == ends for one in self.nodes.versions(node)):
            return None
        return None if self.decide(node).state in PENDING else node.item

    def _validity(self, node: Node) -> Mapping[str, Any] | None:
        """The interval that a product to be made will have."""
        workspace, meta = self.nodes.workspace, node.setting.meta
        validity, by = resolve_validity(node.kind, meta, workspace.camera_settings(meta), workspace.settings)
        return validity_of(node.kind, meta, validity, by)

    def _meta_of(self, node: Node) -> Mapping[str, Any]:
        """The meta of a node that was decided: of a product that is there its own, else what can be foretold."""
        if node.item is not None and node.state not in PENDING:
            return self.nodes.stock.meta(node.item)
        foretell = node.kind.foretell
        if foretell is None:
            return node.meta()
        roles = [filled.need.role for filled in node.supply.filled] if node.supply else []
        return {**node.meta(), **foretell(node.setting.meta, roles)}

    def _miss(
        self,
        kind: Kind,
        meta: Mapping[str, Any],
        ranked: Sequence[tuple[Candidate, Node]],
        unusable: Sequence[Node],
    ) -> NoMatch:
        """Why there is no calibration of a kind for a frame: what is nearest, and which raw frames there are not."""
        what = f"no {kind.name} for {meta.get('detector')} and the night {meta.get('night')}"
        raw = next(iter(raw_kinds(kind, self.nodes.kinds)))
        if unusable:
            return _because_of(unusable[0], what)
        if not ranked:
            return NoMatch(
                f"{what}, and no {raw} of its detector is registered",
                hint=f"awe-ingest FILES, then awe-query {raw}",
            )
        near, node = ranked[0]
        if not only_validity(near):
            return NoMatch(f"{what} (nearest: {label(node)}, {near.reason})", hint=f"awe-query {raw}")
        if near.by_hand and node.item is not None:
            name = node.item.address
            return NoMatch(
                f"{what} (nearest: {name}, {near.reason}, set by hand)", hint=f"awe-validity --history {name}"
            )
        away = f"{near.outside_nights} night{'s' if near.outside_nights > 1 else ''} away"
        return NoMatch(
            f"{what}: there is no {raw} of it (nearest: {label(node)}, {away})",
            hint=f"--allow-nearest {near.outside_nights}, or awe-ingest the {raw} of {meta.get('night')}",
        )


def why_not(node: Node) -> str:
    """What is the matter with a node that has no product to be used: what can be said of its name."""
    if node.error is None:
        return f"is {node.state}"
    if is_foreseen(node):
        return f"will fail: {node.error.message}"
    if node.state == "failed":
        return node.error.message.removeprefix("it ")
    return f"is {node.state}: {node.error.message}"


def _cause_of(node: Node) -> str:
    """Why an optional calibration cannot be had, in words; what there is not for any frame is said of none."""
    if node.state == "blocked" and isinstance(node.error, NoMatch):
        return node.error.message
    return f"{label(node)} {why_not(node)}"


def _because_of(node: Node, what: str) -> NoMatch:
    """The cause where a node cannot be used: what keeps a blocked one from being made says it all."""
    hint = node.error.hint if node.error else ""
    if node.state == "blocked" and isinstance(node.error, NoMatch):
        return NoMatch(node.error.message, hint=hint)
    return NoMatch(f"{what}: {label(node)} {why_not(node)}", hint=hint)


def _or_without(error: NoMatch, kind: Kind, need: Need) -> NoMatch:
    """The error with the way out, where a product can be made without the calibration that there is none of."""
    if need.select != valid_at() or not does_without(kind, need):
        return error
    return NoMatch(error.message, hint=f"{error.hint}; or --no-{need.role}, which goes on record")


def _by_order(one: tuple[Candidate, Node]) -> tuple[Any, ...]:
    return order(one[0])
