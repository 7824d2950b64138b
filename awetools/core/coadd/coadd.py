"""The coadd of many frames on a grid: strip by strip, in threads, to planes on scratch disk."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from ..errors import BadHeader, BadValue, EmptyInput, Mixture
from ..pixels.coadd import Layer, Stacking, Strip, stack_layers
from ..pixels.spool import Spool
from ..sky.grid import Grid, Span
from ..unfinished import Unfinished
from .inputs import CoaddFrame
from .layers import NO_LEVEL, Level, Placed, Regridding, layers_of, place
from .light import Light, Limits, contradictions
from .matching import Differences, Form, Gauge, Matched, match
from .noise import noise_ratio
from .scaling import BlockPairs, Scale, match_scales
from .scratch import Scratch, check_room, digest_of, is_large
from .skytie import Cells
from .strips import check_memory, in_order, strips_of, threads_for

Matching = Literal["none", "constant", "plane"]
Scaling = Literal["given", "match"]

# Samples of the grid: rows of one, and where they are.
PROBE_ROWS, PROBE_EVERY, PROBES, SKY_PROBES = 16, 600, (8, 64), (20, 64)
# The same where scales come from the pixels.
SCALING_EVERY, SCALING_PROBES, MOST_BLOCKS = 100, (32, 64), 4000
# A scale from the pixels with a larger relative error is not believed.
MOST_SCALE_ERROR = 0.03
# A frame disagrees where this many times the usual part of its pixels is clipped.
UNUSUAL = 5


@dataclass(frozen=True)
class How:
    """How a coadd is made.

    ``matching``: backgrounds made equal where frames overlap, by one constant a frame or a
    plane; ``gauge``: see `matching.match`. ``scaling``: scales are taken as given, or are made such
    that frames agree where they overlap, see `scaling.match_scales`; a frame whose scale has a relative error of more
    than MOST_SCALE_ERROR then is left out. Left out are frames whose zero point is
    ``most_extinction_mag`` or more below the median of its camera (None: none is), and those of which
    more than ``most_disagreeing`` of the pixels, in a sample of the grid, are far from those of
    two or more others (0: none is), or whose stars are not those of the others there, by more than
    ``most_uneven_mag`` and ``most_shift_fraction`` (see `light.Limits`): a wrong coordinate system does that,
    a cloud, a background that was not subtracted. What follows does not change a bit of the result: ``memory_bytes``,
    the cap of the process, ``threads``, ``folder`` of the scratch disk, ``unfinished``, where the work of a large
    coadd is kept if it is interrupted.
    """

    stacking: Stacking = field(default_factory=Stacking)
    regridding: Regridding = field(default_factory=Regridding)
    matching: Matching = "none"
    gauge: Gauge = "mean"
    scaling: Scaling = "given"
    most_extinction_mag: float | None = 1.0
    most_disagreeing: float = 0.02
    most_uneven_mag: float | None = 0.3
    most_shift_fraction: float | None = 0.15
    memory_bytes: int = 1 << 30
    threads: int = 1
    folder: str | Path | None = None
    unfinished: Unfinished | None = None

    @property
    def limits(self) -> Limits:
        """What the stars of a frame may differ by."""
        given = self.most_extinction_mag, self.most_uneven_mag, self.most_shift_fraction
        return Limits(*(math.inf if one is None else one for one in given))

    def __post_init__(self) -> None:
        gauges = "mean", "faintest", "sky"
        if self.matching not in ("none", "constant", "plane") or self.gauge not in gauges:
            raise BadValue(
                f"backgrounds are matched by constant or plane, to mean, faintest or sky, not {self.matching}, "
                f"{self.gauge}"
            )
        if self.scaling not in ("given", "match"):
            raise BadValue(f"scales are given or from match, not {self.scaling}")
        if self.threads < 1 or not 0 <= self.most_disagreeing < 1:
            raise BadValue(
                f"{self.threads} threads, {self.most_disagreeing} of the pixels: not a way to make a coadd"
            )


@dataclass(frozen=True)
class FrameReport:
    """What became of a frame: why it was left out ('' if it was not), and how many of its values on the grid
    entered and were clipped; the level that was subtracted from it; the part that disagreed in the sample; what
    it was multiplied by, and the relative error of that where it is known."""

    name: str
    reason: str
    entered: int = 0
    clipped: int = 0
    level: Level = NO_LEVEL
    disagreeing: float = 0.0
    scale: float = 1.0
    scale_error: float | None = None


@dataclass(frozen=True, eq=False)
class Coadded:
    """A coadd: planes SCI, WEIGHT, COUNT and MASK; a table of what was clipped; a report of each frame.

    ``clipped``: columns X and Y (1-based pixels of the grid) and FRAME (number of the frame in the
    order given), sorted by Y, X, FRAME. With COUNT that is which frames entered each pixel, but for those that
    have no good value there: `members` finds all of a pixel again, and their values. ``noise_ratio``: see
    `noise.noise_ratio`.
    """

    grid: Grid
    planes: Mapping[str, Spool]
    clipped: Mapping[str, Spool]
    frames: tuple[FrameReport, ...]
    groups: tuple[tuple[int, ...], ...]
    strips: int
    noise_ratio: float


def coadd(frames: Sequence[CoaddFrame], grid: Grid, how: How | None = None) -> Coadded:
    """Many frames on one grid. Those that cannot be used are left out, with the reason.

    EmptyInput if no frame is left, Unavailable where the memory is too small for a strip of one row, or the
    scratch disk for the planes.
    """
    how = how or How()
    check_room(grid, how.folder, how.unfinished)
    prepared = prepare(frames, grid, how)
    scratch = _scratch(prepared, grid, len(frames), how)
    strips = list(strips_of(prepared.placed, grid, how, scratch.rows))

    def work(rows: Span) -> Strip:
        made = make_strip(prepared.placed, grid, len(frames), rows, how)
        scratch.write(rows, made)
        # The planes are on disk: only what was clipped waits for its turn.
        nothing = np.empty((0, 0))
        return Strip(nothing, nothing, nothing, nothing, made.clipped, made.tally)  # type: ignore[arg-type]

    with closing(in_order(work, strips, how.threads)) as found:
        for rows, made in zip(strips, found, strict=True):
            scratch.done(rows, made)
    reports = tuple(_final(one, scratch.tally[number]) for number, one in enumerate(prepared.reports))
    noise = noise_ratio(prepared.placed, how.regridding)
    return Coadded(grid, scratch.planes, scratch.clipped, reports, prepared.groups, len(strips), noise)


def _scratch(prepared: Prepared, grid: Grid, frames: int, how: How) -> Scratch:
    """Where the planes go: with what is kept of this coadd, if it is a large one."""
    made = Scratch(grid, frames, how.folder)
    areas = [(bottom - top) * one.width for one in prepared.placed for top, bottom in one.window[:1]]
    if how.unfinished is not None and is_large(areas):
        placed = [(one.number, one.window, one.level, one.frame.scale) for one in prepared.placed]
        same = how.stacking, how.regridding, how.matching, prepared.reports, placed
        if made.kept(
            how.unfinished,
            digest_of(grid.text(), *same),
            lambda rows: make_strip(prepared.placed, grid, frames, rows, how),
        ):
            return made
    made.on_disk()
    return made


def _final(report: FrameReport, tally: np.ndarray) -> FrameReport:
    if not report.reason and not tally.any():
        return replace(report, reason="none of its pixels on the grid has a weight")
    return replace(report, entered=int(tally[0]), clipped=int(tally[1]))


def make_strip(placed: Sequence[Placed], grid: Grid, frames: int, rows: Span, how: How) -> Strip:
    """Rows of the coadd."""
    halo = how.stacking.halo_px
    layers = _layers(placed, (rows[0] - halo, rows[1] + halo), how)
    return stack_layers(layers, rows, grid.shape[1], frames, how.stacking)


def _layers(placed: Sequence[Placed], rows: Span, how: How, columns: Span | None = None) -> list[Layer]:
    return [made for one in placed for made in layers_of(one, rows, how.regridding, columns)]


# Which frames enter


@dataclass(frozen=True, eq=False)
class Prepared:
    """Frames on the grid with their levels; a report of each frame; groups of frames that overlap."""

    placed: tuple[Placed, ...]
    reports: tuple[FrameReport, ...]
    groups: tuple[tuple[int, ...], ...] = ()


def prepare(frames: Sequence[CoaddFrame], grid: Grid, how: How) -> Prepared:
    """Put frames on the grid, match their backgrounds, leave out what does not belong.

    EmptyInput if nothing is left.
    """
    if not frames:
        raise EmptyInput("a coadd of no frames")
    reasons = _unfit(frames, how)
    remedies = {number: frames[number].remedy for number in reasons if frames[number].unfit}
    placed: list[Placed] = []
    for number, frame in enumerate(frames):
        if number in reasons:
            continue
        try:
            found = place(number, frame, grid, how.regridding)
        except BadHeader as error:
            reasons[number] = f"its coordinates cannot be used: {error}"
            continue
        except Mixture as error:
            reasons[number] = error.message
            continue
        if found is None:
            reasons[number] = "does not overlap the grid"
            remedies[number] = "awe-grid, a grid that fits them"
        else:
            placed.append(found)
    check_memory(placed, grid, how)
    scales = _scales(placed, grid, how, frames, reasons) if how.scaling == "match" else {}
    placed = [_rescaled(one, scales.get(one.number)) for one in placed if one.number not in reasons]
    matched, disagreeing = _sampled(placed, grid, frames, how, reasons)
    levels = matched.levels if matched else {}
    kept = tuple(
        replace(one, level=levels.get(one.number, NO_LEVEL)) for one in placed if one.number not in reasons
    )
    reports = tuple(
        FrameReport(
            one.name,
            reasons.get(number, ""),
            level=levels.get(number, NO_LEVEL),
            disagreeing=disagreeing.get(number, 0.0),
            scale=one.scale * (scales[number].factor if number in scales else 1),
            scale_error=scales[number].error if number in scales else one.scale_error,
        )
        for number, one in enumerate(frames)
    )
    if not kept:
        raise EmptyInput(
            f"none of {len(frames)} frames can be used: {frames[0].name} {reasons[0]}",
            hint=remedies.get(0, ""),
        )
    return Prepared(kept, reports, matched.groups if matched else ())


def _unfit(frames: Sequence[CoaddFrame], how: How) -> dict[int, str]:
    """Frames whose numbers do not go with those of the others, and why."""
    unit = Counter(one.unit for one in frames).most_common(1)[0][0]
    known: dict[str, list[float]] = {}
    for one in frames:
        if one.zeropoint_mag is not None:
            known.setdefault(one.camera, []).append(one.zeropoint_mag)
    whose = "all" if len(known) < 2 else "those of its camera"
    reasons: dict[int, str] = {}
    for number, one in enumerate(frames):
        if one.unfit:
            reasons[number] = one.unfit
        elif one.unit != unit:
            reasons[number] = f"its pixels are in {one.unit}, those of the others in {unit}"
        elif not (np.isfinite(one.scale) and one.scale > 0):
            reasons[number] = f"its flux scale is {one.scale}"
        elif one.zeropoint_mag is not None and how.most_extinction_mag is not None:
            faint = float(np.median(known[one.camera])) - one.zeropoint_mag
            if not faint <= how.most_extinction_mag:
                reasons[number] = (
                    f"its zero point, {one.zeropoint_mag:.3f}, is {faint:.2f} mag below the median of {whose}"
                )
    return reasons


def _rescaled(placed: Placed, scale: Scale | None) -> Placed:
    if scale is None:
        return placed
    return replace(placed, frame=replace(placed.frame, scale=placed.frame.scale * scale.factor))


def _scales(
    placed: Sequence[Placed], grid: Grid, how: How, frames: Sequence[CoaddFrame], reasons: dict[int, str]
) -> dict[int, Scale]:
    """The scales that the pixels of overlaps tell; frames whose scale they do not are added to the reasons."""
    if not placed:
        return {}
    probes, by_number = _probes(placed, grid, SCALING_EVERY, SCALING_PROBES), _by_number(placed)
    threads = threads_for(placed, grid, probes, how)
    plain = replace(how, regridding=replace(how.regridding, fill=False), threads=threads)

    def work(rows: Span) -> BlockPairs:
        made = BlockPairs(most=max(16, MOST_BLOCKS // len(placed)))
        made.add(_layers(placed, rows, plain), by_number)
        return made

    pairs = BlockPairs([table for one in in_order(work, probes, threads) for table in one.tables])
    errors = {one.number: frames[one.number].scale_error for one in placed}
    given = {number: error for number, error in errors.items() if error is not None}
    found = match_scales(pairs, errors, given)
    middle = 1.0 if given else float(np.median([one.factor for one in found.values()]))
    for number, one in found.items():
        faint = 2.5 * float(np.log10(one.factor / middle))
        if not one.tied:
            reasons[number] = "its scale is not known: it does not overlap the frames that have one"
        elif number not in given and one.error > MOST_SCALE_ERROR:
            reasons[number] = f"its scale is not known: from the overlaps it has an error of {one.error:.1%}"
        elif number not in given and how.most_extinction_mag is not None and faint > how.most_extinction_mag:
            reasons[number] = f"in the overlaps it is {faint:.2f} mag fainter than the others"
    return found


def _sampled(
    placed: Sequence[Placed], grid: Grid, frames: Sequence[CoaddFrame], how: How, reasons: dict[int, str]
) -> tuple[Matched | None, dict[int, float]]:
    """Match levels and judge frames in a sample of rows; those that disagree are added to the reasons."""
    judged = how.most_disagreeing > 0 and how.stacking.method == "clip" and len(placed) > 2
    if not placed or (how.matching == "none" and not judged):
        return None, {}
    probes = _probes(placed, grid)
    # What is sampled can do without the small defects.
    threads = threads_for(placed, grid, probes, how)
    how = replace(how, regridding=replace(how.regridding, fill=False), threads=threads)
    # The sky, of which there may be little, needs more of them.
    more = _probes(placed, grid, probes=SKY_PROBES) if how.gauge == "sky" else probes
    matched = _matched(placed, more, how) if how.matching != "none" else None
    if not judged:
        return matched, {}
    levels = matched.levels if matched else {}
    lowered = [replace(one, level=levels.get(one.number, NO_LEVEL)) for one in placed]
    disagreeing, light = _disagreeing(lowered, grid, len(frames), probes, how)
    usual = float(np.median(list(disagreeing.values()))) if disagreeing else 0.0
    wrong = {
        number: part
        for number, part in disagreeing.items()
        if part > max(how.most_disagreeing, UNUSUAL * usual)
    }
    for number, part in wrong.items():
        reasons[number] = (
            f"{part:.1%} of its pixels disagree with those of the others: its coordinates, zero point or sky"
        )
    for number, reason in contradictions(light, how.limits).items():
        wrong[number] = disagreeing[number]
        reasons.setdefault(number, reason)
    if wrong and how.matching != "none":
        rest = [one for one in placed if one.number not in wrong]
        matched = _matched(rest, more, how) if rest else None
    return matched, disagreeing


def _probes(
    placed: Sequence[Placed], grid: Grid, every: int = PROBE_EVERY, probes: tuple[int, int] = PROBES
) -> list[Span]:
    """Samples of rows, over what the frames cover."""
    first = min((one.window[0][0] for one in placed), default=0)
    last = max((one.window[0][1] for one in placed), default=grid.shape[0])
    count = min(max((last - first) // every, probes[0]), probes[1], max(1, (last - first) // PROBE_ROWS))
    middles = first + (last - first) * (2 * np.arange(count) + 1) // (2 * count)
    return [
        (max(0, int(one) - PROBE_ROWS // 2), min(grid.shape[0], int(one) + PROBE_ROWS // 2))
        for one in middles
    ]


def _matched(placed: Sequence[Placed], probes: Sequence[Span], how: How) -> Matched:
    plain = [replace(one, level=NO_LEVEL) for one in placed]
    by_number = _by_number(plain)

    def work(rows: Span) -> tuple[Differences, Cells]:
        made, cells, layers = Differences(), Cells(), _layers(plain, rows, how)
        made.add(layers, by_number)
        if how.gauge == "sky":
            cells.add(layers, by_number)
        return made, cells

    found, sky = Differences(), Cells()
    for one, cells in in_order(work, probes, how.threads):
        found.rows.extend(one.rows)
        sky.rows.extend(cells.rows)
    form: Form = "plane" if how.matching == "plane" else "constant"
    return match(found, (one.number for one in placed), form, how.gauge, sky)


def _by_number(placed: Sequence[Placed]) -> list[Placed]:
    """A list with each frame at its number; the places of others are filled with any."""
    made = [placed[0]] * (1 + max(one.number for one in placed))
    for one in placed:
        made[one.number] = one
    return made


def _disagreeing(
    placed: Sequence[Placed], grid: Grid, frames: int, probes: Sequence[Span], how: How
) -> tuple[dict[int, float], list[Light]]:
    """The part of each frame's values that is clipped where three or more are known; the light of its stars."""
    by_number = _by_number(placed)

    def work(rows: Span) -> tuple[np.ndarray, Light]:
        layers, light = _layers(placed, rows, how), Light()
        middle = stack_layers(layers, rows, grid.shape[1], frames, replace(how.stacking, method="median"))
        light.add(layers, by_number, middle.sci, middle.entered)
        made = stack_layers(layers, rows, grid.shape[1], frames, how.stacking)
        clipped = made.clipped[:, 0] - rows[0], made.clipped[:, 1]
        at_place = np.zeros(made.entered.shape, np.int16)
        np.add.at(at_place, clipped, 1)
        three = (made.entered + at_place)[clipped] >= 3
        found = np.bincount(made.clipped[three, 2], minlength=frames)
        return np.stack([found, made.tally.sum(axis=1)], axis=1), light

    total, lights = np.zeros((frames, 2)), []
    for one, light in in_order(work, probes, how.threads):
        total += one
        lights.append(light)
    parts = {one.number: float(total[one.number, 0] / max(1.0, total[one.number, 1])) for one in placed}
    return parts, lights


# One pixel


class Member(NamedTuple):
    """A frame at a pixel: whether its value entered, was clipped or has no weight there ('masked').

    ``value`` and ``weight`` are those on the grid, with the scale, less the level.
    """

    number: int
    state: Literal["entered", "clipped", "masked"]
    value: float
    weight: float
    mask: int


def members(placed: Sequence[Placed], grid: Grid, y: int, x: int, how: How) -> list[Member]:
    """The frames at a pixel of the grid (0-based), by making it again: exact, and nothing is kept for it.

    BadValue for a pixel that is not on the grid.
    """
    if not (0 <= y < grid.shape[0] and 0 <= x < grid.shape[1]):
        raise BadValue(f"pixel {x + 1}, {y + 1} is not on a grid of {grid.shape[1]} x {grid.shape[0]}")
    halo = how.stacking.halo_px
    left, right = max(0, x - halo), min(grid.shape[1], x + halo + 1)
    layers = _layers(placed, (y - halo, y + halo + 1), how, (left, right))
    moved = [one._replace(columns=(one.columns[0] - left, one.columns[1] - left)) for one in layers]
    frames = 1 + max((one.number for one in moved), default=0)
    made = stack_layers(moved, (y, y + 1), right - left, frames, how.stacking)
    clipped = {int(number) for _, column, number in made.clipped if column == x - left}
    found = []
    for one in moved:
        if not (one.rows[0] <= y < one.rows[1] and one.columns[0] <= x - left < one.columns[1]):
            continue
        at = y - one.rows[0], x - left - one.columns[0]
        value, weight, mask = float(one.data[at]), float(one.weight[at]), int(one.mask[at])
        if weight > 0:
            found.append(
                Member(one.number, "clipped" if one.number in clipped else "entered", value, weight, mask)
            )
        elif mask & ~32:
            found.append(Member(one.number, "masked", value, weight, mask))
    return found
