"""Which frames a product of many is made without, each by name: one that cannot be had does not hold up the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import NoRecord, OffGrid
from ..indexing.stock import Item
from ..kind import Need, of_frame
from .nodes import PENDING, SERVING, Filled, Node, Omitted, address_of
from .offgrid import HINT, SOLUTION, elsewhere, grid_asked, is_elsewhere, not_on
from .supply import Supplier

if TYPE_CHECKING:
    from .graph import Graph


@dataclass
class Leaver:
    """Finds what a node is made without."""

    graph: Graph
    supplier: Supplier

    def leave_out(self, node: Node) -> None:
        """Take out of what a node of many products is given that which cannot be had, or lacks what each needs.

        Where it is to be complete, only what is elsewhere: all frames are those that touch its grid.
        """
        reasons: dict[Node, Omitted] = {}
        given = [one for one in node.given if isinstance(one, Node)]
        is_complete = self.graph.view.complete
        for one in given:
            if self.graph.decide(one).state not in SERVING and not is_complete:
                reasons[one] = self._omitted(one, one)
        for need in node.kind.needs:
            is_each = need.many and need.role != node.role and need.select == of_frame()
            is_each = is_each and (need.kind == SOLUTION or not is_complete)
            if is_each and not self.supplier.is_unwanted(node.kind, need):
                kept = [one for one in given if one not in reasons]
                reasons |= self._lacking(need, node, kept)
        if is_complete:
            reasons = {one: omitted for one, omitted in reasons.items() if is_elsewhere(omitted.reason)}
        if not reasons:
            return
        if len(reasons) == len(given):
            # Where nothing is left the reasons are said as of any node that cannot be made.
            self._refuse_all(node, [reasons[one] for one in given])
            return
        node.omitted += [reasons[one] for one in given if one in reasons]
        node.lacking = tuple(
            one for one in given if one in reasons and reasons[one].role not in ("", SOLUTION)
        )
        node.given = tuple(one for one in given if one not in reasons)
        same = self.graph.nodes.node_of_products(
            node.kind,
            node.kind.need(node.role),
            [one for one in given if one not in reasons],
            node.setting.asked,
        )
        node.setting = same.setting

    def _refuse_all(self, node: Node, omitted: Sequence[Omitted]) -> None:
        text = grid_asked(node.kind, node.setting.params)
        if text and all(one.reason == not_on(text) for one in omitted):
            more = f", nor is any of {len(omitted) - 1} more" if len(omitted) > 1 else ""
            node.error = OffGrid(f"{omitted[0].address}: {not_on(text)}{more}", hint=HINT)

    def solution_of(self, node: Node, frame: Node) -> Node | None:
        """The solution of one of the frames of a node of many, if there is one."""
        need = next((one for one in node.kind.needs if one.kind == SOLUTION), None)
        found = None if need is None else self.supplier.of_each(need, node, frame)[0]
        return found.node if isinstance(found, Filled) else None

    def off_grid(self, node: Node) -> str:
        """Why a node of one frame has nothing to hold: the frame is solved, and not on the grid that is asked for."""
        text = grid_asked(node.kind, node.setting.params)
        if not text or node.kind.primary.many:
            return ""
        filled = node.supply.filled if node.supply else ()
        solved = next((one.node for one in filled if one.need.kind == SOLUTION), None)
        return self._elsewhere(text, solved, node.meta()) if solved else ""

    def _lacking(self, need: Need, node: Node, kept: Sequence[Node]) -> dict[Node, Omitted]:
        """The frames for which a role cannot be filled; none, if it can be for none and need not be."""
        if need.with_params(node.setting.params.values).some:
            return {}
        text = grid_asked(node.kind, node.setting.params) if need.kind == SOLUTION else ""
        lacking: dict[Node, Omitted] = {}
        for one in kept:
            found, unusable = self.supplier.of_each(need, node, one)
            if not isinstance(found, Filled):
                cause = next(iter(unusable), None)
                why = found if isinstance(found, str) else found.message
                omitted = (
                    self._omitted(one, cause)
                    if cause
                    else Omitted(address_of(one), why or f"there is no {need.kind} of it")
                )
                lacking[one] = omitted._replace(role=need.role)
            elif text and (reason := self._elsewhere(text, found.node, one.meta())):
                lacking[one] = Omitted(address_of(one), reason, True)
        return {} if need.optional and len(lacking) == len(kept) else lacking

    def _elsewhere(self, text: str, solved: Node, meta: Mapping[str, Any]) -> str:
        if solved.item is None or solved.state in PENDING:
            return ""
        try:
            cards = self.graph.stock.record(solved.item)["meta"].get("wcs")
        except NoRecord:
            return ""
        return elsewhere(text, cards, meta)

    def _omitted(self, frame: Node, cause: Node) -> Omitted:
        """A frame that is left out for the state of a node: its own, or of what it needs."""
        while cause.state == "blocked":
            below = [one for one in cause.given if isinstance(one, Node) and one.state not in SERVING]
            if not below:
                break
            cause = below[0]
        item = cause.item
        judged = isinstance(item, Item) and self.graph.stock.verdict(item) == "bad"
        why = cause.error.message if cause.error else f"{cause.kind.name} is {cause.state}"
        if item is not None and cause is not frame and why.startswith(f"{item.address}: "):
            # One reason for all frames of which it is so.
            why = f"its {cause.kind.name} {why.removeprefix(f'{item.address}: ')}"
        if cause.state == "failed":
            why = f"{cause.kind.name}: {self.graph.failures.get(cause.key, why)}"
        return Omitted(address_of(frame), why, cause.state == "flagged" and judged)
