"""Regridded frames as inputs of a coadd: taken as they are, and those that do not go with the others left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import Mixture, NoMatch
from ..kind import MetaByRole
from ..meta import ON_GRID, on_grid

if TYPE_CHECKING:
    from ..coadd.inputs import CoaddFrame
    from ..frame import FrameRows
    from ..sky.grid import Grid
    from .coadd import CoaddParams

AUTO = f"{ON_GRID}auto"
SUBTRACT, LEAVE, MATCH = "subtract", "leave", "match"
SAID = {SUBTRACT: "subtracted", LEAVE: "left", MATCH: "matched", None: "what it is, nobody says"}


def of_grid(inputs: MetaByRole) -> str:
    """Why frames need no solution, if so (`Need.unless`)."""
    return "the frames are on a sky grid already" if on_grid(inputs.get("reduced", {})) else ""


def are_gridded(reduced: Sequence[FrameRows]) -> bool:
    """Whether the frames are on a grid already. Raises Mixture where only some are."""
    found = [on_grid(one.meta) for one in reduced]
    if any(found) and not all(found):
        raise Mixture(f"{sum(found)} of {len(found)} frames are on a sky grid, and the others are not")
    return all(found)


def before(meta: Mapping[str, Any], name: str) -> Any:
    """What a regridded frame was before; None where its record does not say it."""
    return (meta.get("gridded") or {}).get(name)


def as_they_are(
    frames: Sequence[CoaddFrame], reduced: Sequence[FrameRows], params: CoaddParams
) -> list[CoaddFrame]:
    """The frames, of which no pixel is interpolated again; those whose pixels mean something else are unfit."""
    from ..sky.readwcs import read_wcs

    reasons = _odd([_zero_point(one.meta) for one in reduced], _zero_point_words)
    backgrounds = [treated(one.meta, params) for one in reduced]
    for number, words in _odd(backgrounds, _background_words).items():
        reasons.setdefault(number, words)
    return [
        replace(
            frame,
            # Several may be of one frame, on grids of their own.
            wcs=frame.wcs if frame.unfit else read_wcs(dict(one.meta["wcs"])),
            gridded=True,
            noise_ratio=before(one.meta, "noise_ratio") or 1.0,
            zeropoint_mag=before(one.meta, "zeropoint_mag"),
            unfit=frame.unfit or reasons.get(number, ""),
        )
        for number, (frame, one) in enumerate(zip(frames, reduced, strict=True))
    ]


def of_grid_once(frames: Sequence[CoaddFrame], grid: Grid) -> list[CoaddFrame]:
    """The frames; those that are not on whole pixels of the grid, and what is of one frame once more, are unfit.

    Raises NoMatch where none is left.
    """
    from ..sky.grid import whole_pixels

    made: list[CoaddFrame] = []
    names: set[str] = set()
    for frame in frames:
        why = frame.unfit
        try:
            whole_pixels(grid, frame.wcs, frame.shape)
        except Mixture as error:
            why = why or error.message
        if not why and frame.name in names:
            why = "it is of a frame that another one is of too"
        if not why:
            names.add(frame.name)
        made.append(replace(frame, unfit=why))
    if not names:
        raise NoMatch(
            f"none of {len(made)} regridded frames can be used: {made[0].name}: {made[0].unfit}",
            hint="--grid auto takes the grid that they are on; awe-regrid puts reduced frames on another",
        )
    return made


def _odd(values: Sequence[Hashable], words: Any) -> dict[int, str]:
    """The numbers of those that differ from most, in words."""
    usual = Counter(values).most_common(1)[0][0]
    return {number: words(one, usual) for number, one in enumerate(values) if one != usual}


def _zero_point(meta: Mapping[str, Any]) -> tuple[float | None, str | None]:
    return meta.get("zeropoint_mag"), meta.get("zeropoint_band")


def _zero_point_words(one: tuple[float | None, str | None], usual: tuple[float | None, str | None]) -> str:
    def said(zero: tuple[float | None, str | None]) -> str:
        return "no zero point" if zero[0] is None else f"the zero point {zero[0]:g} mag in {zero[1]}"

    return f"its pixels have {said(one)}, those of the others {said(usual)}"


def treated(meta: Mapping[str, Any], params: CoaddParams) -> str | None:
    """What has become of the background of a frame when it enters."""
    background: str | None = before(meta, "background")
    if background == LEAVE and params.background != LEAVE:
        return SUBTRACT if params.background == SUBTRACT else MATCH
    return background


def _background_words(one: str | None, usual: str | None) -> str:
    return f"its background is {SAID.get(one, one)}, that of the others {SAID.get(usual, usual)}"


def sky_of(meta: Mapping[str, Any], background: str) -> str:
    """What is to be subtracted from a frame: `subtract` a smooth sky, `match` its median, or `leave` it."""
    # What was subtracted when the frame was put on the grid is not there any more.
    if before(meta, "background") != LEAVE or background == LEAVE:
        return LEAVE
    return SUBTRACT if background == SUBTRACT else MATCH


def shared_grid(frames: Sequence[CoaddFrame], reduced: Sequence[FrameRows]) -> tuple[Grid, str]:
    """The grid that most of the frames are on, and its text ('' where they do not say it).

    That which their records name, else what holds those that have whole pixels of each other's grid.
    """
    from ..sky.grid import grid_of_cards
    from ..sky.gridtext import parse_grid

    fit = [number for number, one in enumerate(frames) if not one.unfit]
    texts = Counter(window for number in fit if (window := str(reduced[number].meta["window"])) != AUTO)
    if texts:
        text = texts.most_common(1)[0][0].removeprefix(ON_GRID)
        return parse_grid(text).grid(), text
    grids = [
        grid_of_cards({**one.meta["wcs"], "NAXIS1": one.shape[1], "NAXIS2": one.shape[0]})
        for one in (reduced[number] for number in fit)
    ]
    return _holding_most(grids), ""


def _holding_most(grids: Sequence[Grid]) -> Grid:
    """What just holds those grids that have whole pixels of the one with which most have."""
    from ..sky.grid import whole_pixels

    best: list[tuple[tuple[int, int], Grid]] = []
    first = grids[0]
    for origin in grids:
        if any(origin is one for _, one in best):
            continue
        found = []
        for one in grids:
            try:
                found.append((whole_pixels(origin, one.wcs, one.shape), one))
            except Mixture:
                continue
        if len(found) > len(best):
            best, first = found, origin
    spans = [
        (
            min(offset[axis] for offset, _ in best),
            max(offset[axis] + one.shape[axis] for offset, one in best),
        )
        for axis in (0, 1)
    ]
    return first.part((spans[0], spans[1]))
