"""Which frames have no part in a product on a sky grid: those that, where they are solved, touch no pixel of it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..errors import AweError, OffGrid
from ..gridstore import AUTO, PARAMETER
from ..kind import NO_GOOD_PIXEL, Kind
from ..params import Resolved
from ..sky.gridtext import parse_grid

if TYPE_CHECKING:
    from .filling import Input

# What has the coordinates of a frame.
SOLUTION = "astrom"
# How reasons begin: that of a frame, and that of one without a good pixel there, which the coadd gives.
NOT_ON, NO_WEIGHT = "it is not on the grid", "none of its pixels on the grid"
HINT = "awe-grid which FILE says which named grids hold it"


def grid_asked(kind: Kind, params: Resolved) -> str:
    """The text of the grid on which a product of frames with solutions is to be; empty where it fits them."""
    if PARAMETER not in params.origins or not any(need.kind == SOLUTION for need in kind.needs):
        return ""
    text = str(getattr(params.values, PARAMETER))
    return "" if text == AUTO else text


def elsewhere(text: str, cards: Mapping[str, Any] | None, meta: Mapping[str, Any]) -> str:
    """Why a frame has no part in a product on a grid: it touches no pixel of it; empty if it may."""
    shape = meta.get("ny"), meta.get("nx")
    if not text or not cards or not all(shape):
        return ""
    from ..sky.grid import NOWHERE, window_of
    from ..sky.readwcs import read_wcs

    # Coordinates that cannot be read are for the recipe to complain of.
    with suppress(AweError):
        if window_of(parse_grid(text).grid(), read_wcs(dict(cards)), shape) == NOWHERE:  # type: ignore[arg-type]
            return not_on(text)
    return ""


def not_on(text: str) -> str:
    """That a frame is not on a grid, in words."""
    return f"{NOT_ON} {text}"


def is_elsewhere(reason: str) -> bool:
    """Whether a reason for which a frame was left out is that the grid has nothing of it."""
    return reason.startswith((NOT_ON, NO_WEIGHT))


def is_without_pixels(reason: str) -> bool:
    """Whether a product failed as its frames touch the grid, but with no good pixel."""
    return reason.splitlines()[0].endswith(f": {NO_GOOD_PIXEL}") if reason else False


def leave_out_elsewhere(
    kind: Kind, lead: str, params: Resolved, inputs: list[Input]
) -> list[tuple[Input, str]]:
    """Of many frames take out of the inputs those that are elsewhere, with what belongs to them; returned with why.

    Raises OffGrid where all are.
    """
    text = grid_asked(kind, params) if kind.primary.many else ""
    solved = {_frame_of(one): one.meta for one in inputs if one.source.kind == SOLUTION}
    if not text or not solved:
        return []
    away = {}
    for one in inputs:
        cards = solved.get(_frame_of(one), {}).get("wcs")
        if one.role == lead and (reason := elsewhere(text, cards, one.meta)):
            away[_frame_of(one)] = one, reason
    if len(away) == len(solved):
        one, reason = next(iter(away.values()))
        more = f", nor is any of {len(away) - 1} more" if len(away) > 1 else ""
        raise OffGrid(f"{one.source.address}: {reason}{more}", hint=HINT)
    inputs[:] = [one for one in inputs if _frame_of(one) not in away]
    return list(away.values())


def _frame_of(one: Input) -> tuple[Any, ...]:
    return tuple(one.meta.get(name) for name in ("instrument", "detector", "exposure"))
