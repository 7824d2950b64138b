"""A frame on a grid as it is in a coadd: at the scale, less the sky and the level that overlaps gave it there."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import BadValue, Mixture, NoMatch

if TYPE_CHECKING:
    import numpy as np

    from ..coadd.layers import Level
    from ..frame import Table
    from ..sky.grid import Grid
    from ..sky.wcs import Wcs

IDENTITY = ("instrument", "detector", "exposure")
MATCH_FIRST = "awe-coadd --background match, with this frame among others that overlap it"
MATCHED = ("match", "match-plane")


@dataclass(frozen=True, eq=False)
class InCoadd:
    """What a coadd says of a frame: the grid, what it was multiplied by, what was subtracted before and after.

    zeropoint_mag, zeropoint_band: of the pixels of the coadd, where they are known.
    """

    grid: Grid
    scale: float
    sky_adu: float
    level: Level
    zeropoint_mag: float | None
    zeropoint_band: str | None

    @property
    def grid_text(self) -> str:
        """The text of the grid; `auto` where none says it."""
        from ..sky.gridtext import text_of_grid

        with suppress(BadValue):
            return str(text_of_grid(self.grid))
        return "auto"

    def level_of(self, part: Grid, wcs: Wcs, shape: tuple[int, int]) -> np.ndarray:
        """The level on a part of the sky (float32) of a frame with these coordinates. NoMatch for another grid."""
        import numpy as np

        from ..sky.footprint import footprint
        from ..sky.grid import whole_pixels

        try:
            top, left = whole_pixels(self.grid, part.wcs, part.shape)
        except Mixture as error:
            raise NoMatch(
                f"the grid is not that of the coadd in which the background was matched: {error.message}",
                hint=f"--grid '{self.grid_text}'",
            ) from None
        if not (self.level.along_x or self.level.along_y):
            return np.full((1, 1), self.level.constant, np.float32)
        # The plane is that of the frame's whole window, of which the grid may have a part.
        whole = footprint(self.grid, wcs, shape)
        assert whole is not None
        spans = (top, top + part.shape[0]), (left, left + part.shape[1])
        return self.level.values(whole.window, *spans).astype(np.float32)


def in_coadd(coadd: Table | None, meta: Mapping[str, Any]) -> InCoadd:
    """What the table FRAMES of a coadd, whose backgrounds were matched, says of a frame of this meta.

    Raises NoMatch where there is no such coadd, or the frame did not enter it.
    """
    import numpy as np

    from ..coadd.layers import Level
    from ..sky.grid import grid_of_cards

    name = f"{meta.get('detector')} in {meta.get('exposure')}"
    if coadd is None:
        text = f"{name}: there is no coadd with it, on the same grid, in which backgrounds were matched"
        raise NoMatch(text, hint=MATCH_FIRST)
    if reason := not_matched(coadd.meta):
        raise NoMatch(f"{name}: the coadd does not serve: {reason}", hint=MATCH_FIRST)
    columns = coadd.columns
    here = np.ones(len(columns["SCALE"]), np.bool_)
    for one in IDENTITY:
        here &= np.char.strip(np.asarray(columns[one.upper()]).astype(str)) == str(meta.get(one))
    rows = np.flatnonzero(here)
    if len(rows) != 1:
        raise NoMatch(f"{name}: is not among the frames of the coadd", hint=MATCH_FIRST)
    row = {key: column[rows[0]] for key, column in columns.items()}
    if why := str(row["REASON"]).strip():
        raise NoMatch(f"{name}: the coadd was made without it: {why}", hint="--background subtract, or leave")
    level = Level(*(float(row.get(key, 0.0)) for key in ("LEVEL", "LEVEL_X", "LEVEL_Y")))
    size = {"NAXIS1": coadd.meta["nx"], "NAXIS2": coadd.meta["ny"]}
    return InCoadd(
        grid_of_cards({**coadd.meta["wcs"], **size}),
        float(row["SCALE"]),
        float(row["SKY_ADU"]),
        level,
        coadd.meta.get("zeropoint_mag"),
        coadd.meta.get("zeropoint_band"),
    )


def not_matched(meta: Mapping[str, Any]) -> str:
    """Why the backgrounds of frames are not to be had from a coadd of this meta, if so."""
    background = (meta.get("gridded") or {}).get("background")
    return "" if background in MATCHED else f"its background is {background or 'not known'}, not matched"


def serves(coadd: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """Why a coadd of some meta does not serve a frame that goes onto a grid, if so (`Kind.serves`)."""
    from ..gridstore import AUTO
    from ..meta import ON_GRID
    from ..sky.grid import grid_of_cards, whole_pixels
    from ..sky.gridtext import parse_grid

    if reason := not_matched(coadd):
        return reason
    text = str(asked.get("window") or "")
    if not text.startswith(ON_GRID) or text == f"{ON_GRID}{AUTO}":
        return ""
    size = {"NAXIS1": coadd.get("nx"), "NAXIS2": coadd.get("ny")}
    grid = parse_grid(text.removeprefix(ON_GRID)).grid()
    try:
        whole_pixels(grid_of_cards({**(coadd.get("wcs") or {}), **size}), grid.wcs, grid.shape)
    except Mixture as error:
        return error.message
    return ""


def of_coadd(inputs: Mapping[str, Mapping[str, Any]]) -> str:
    """Why a frame on a grid needs no zero point besides, if so (`Need.unless`)."""
    return "the coadd says what the frame was multiplied by" if "coadd" in inputs else ""
