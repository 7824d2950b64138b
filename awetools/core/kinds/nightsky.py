"""The night sky as many science frames see it, their objects masked: what `nightflat` and `fringe` share.

Imported by recipes when they run, because it needs numpy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import TooFew
from ..frame import Frame, FrameSet
from ..pixels.objects import Cells, cells_of, find_objects
from ..pixels.planes import Plane, fit_plane
from ..pixels.smooth import block_statistics, fill_gaps, interpolate_blocks
from ..pixels.stats import clipped, row_medians
from ..sections import Amplifier
from .exposures import Exposures, Light, open_exposures, silent_of
from .flatfield import Calibrations, NightSkyParams, dead_in_most

# How far a frame may depart from a plane before its common shape is known.
FIRST_FLATNESS = 0.05
COMMON_PX = 64
AT_LEAST = 3
OUTLYING = 4.0
# With less sky than this nothing can be fitted.
MOST_MASKED = 0.95
# Cells below this part of a level that hardly any sky is below are no sky, but something without light.
HOLLOW_FRACTION, FAINT_PERCENTILE = 0.2, 25.0


@dataclass(frozen=True)
class Sky:
    """The frames that are used, each with its sky and its objects, and those that are not.

    masked_fraction: mean over the frames used; roughness: what of each frame's sky is
    neither common to all nor a plane, a fraction, in blocks of 64 pixels; dead: the
    amplifiers without sky in most frames, by name.
    """

    lights: list[Light]
    left_out: list[tuple[int, str]]
    masked_fraction: float
    roughness: list[float]
    dead: Sequence[str] = ()

    @property
    def used(self) -> dict[str, str]:
        """What is to be said of the amplifiers."""
        return {f"amplifier {name}": "shows no sky and is masked as not calibrated" for name in self.dead}


def sky_of(
    raw: FrameSet,
    calibrations: Calibrations,
    flat: Frame | None,
    params: NightSkyParams,
) -> tuple[Exposures, np.ndarray, Sky]:
    """Science frames with their calibrations, the flat (1 where it has no value) and the sky of each frame.

    Pixels that the flat does not know do not count, nor do those of an amplifier without
    sky in most frames; a frame in which another one has none is left out. Raises TooFew,
    as :func:`measure_sky`.
    """
    exposures = open_exposures(
        raw,
        calibrations.bias,
        calibrations.dark,
        calibrations.hotpix,
        calibrations.readnoise,
        calibrations.gain,
        params.overscan_mode,
    )
    response = np.ones(exposures.shape, np.float32)
    if flat is not None:
        known = flat.data > 0 if flat.weight is None else (flat.data > 0) & (flat.weight > 0)
        response = np.where(known, flat.data, response)
        exposures = replace(exposures, good=exposures.good & known)
    numbers = range(len(exposures))
    cells = read_cells(exposures, numbers, [response] * len(exposures))
    silent = [silent_amplifiers(one, exposures.amplifiers) for one in cells]
    dead = dead_in_most(silent)
    if dead:
        exposures = exposures.without(dead)
        cells = [_less(one, _touched(one, exposures.amplifiers, dead)) for one in cells]
    failed = [
        (number, f"amplifier {name} shows no sky")
        for number, names in enumerate(silent)
        for name in names[:1]
        if name not in dead
    ]
    return exposures, response, replace(measure_sky(exposures, cells, params, failed), dead=dead)


def read_cells(
    exposures: Exposures, numbers: Sequence[int], divisors: Sequence[float | np.ndarray]
) -> list[Cells]:
    """Exposures divided by a number or a flat (ny, nx) each, in cells; saturated pixels do not count."""
    found = []
    for number, divisor in zip(numbers, divisors, strict=True):
        image = exposures.rows(number, 0, exposures.shape[0])
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            image /= divisor
        found.append(cells_of(image, exposures.good & exposures.usable(number, 0, exposures.shape[0])))
    return found


def silent_amplifiers(cells: Cells, amplifiers: Sequence[Amplifier]) -> list[str]:
    """Names of the amplifiers without light or a pixel that counts, where others have it, in a frame in cells."""
    medians = {}
    for amp in amplifiers:
        own = _touched(cells, amplifiers, [amp.name]) & cells.known
        medians[amp.name] = float(np.median(cells.mean[own])) if own.any() else 0.0
    return silent_of(medians)


def _touched(cells: Cells, amplifiers: Sequence[Amplifier], names: Sequence[str]) -> np.ndarray:
    """True in the cells that the amplifiers of these names have a part of."""
    out = np.zeros(cells.mean.shape, dtype=bool)
    for amp in amplifiers:
        if amp.name in names:
            (y0, y1), (x0, x1) = (
                (low // cells.size, -(-high // cells.size))
                for low, high in ((amp.target.y0, amp.target.y1), (amp.target.x0, amp.target.x1))
            )
            out[y0:y1, x0:x1] = True
    return out


def _less(cells: Cells, without: np.ndarray) -> Cells:
    """The cells, some of them without a pixel."""
    return replace(cells, count=np.where(without, np.float32(0), cells.count))


def _hollow(cells: Cells) -> np.ndarray:
    """Cells far below the sky: blank values, or something without light that the flat does not know."""
    known = cells.known
    if not known.any():
        return np.zeros(known.shape, dtype=bool)
    level = float(np.percentile(cells.mean[known], FAINT_PERCENTILE))
    below: np.ndarray = known & (cells.mean < HOLLOW_FRACTION * max(level, 0.0))
    return below


def measure_sky(
    exposures: Exposures,
    cells: Sequence[Cells],
    params: NightSkyParams,
    failed: Sequence[tuple[int, str]] = (),
) -> Sky:
    """Sky and objects of every exposure, and which cannot be used.

    Objects are sought in each frame, then again after what all frames have in common was
    divided out; the planes are relative to that, and to their own mean: a gradient that
    one frame alone has (the Moon) is taken out, one that all have stays. What is far below
    the sky counts no more than objects do. failed: frames that are not used, and why.
    Raises TooFew.
    """
    hollow = [_hollow(one) for one in cells]
    cells = [_less(one, blank) if blank.any() else one for one, blank in zip(cells, hollow, strict=True)]
    objects = [find_objects(one, params.object_sigma, FIRST_FLATNESS) for one in cells]
    left_out = [*failed, *_covered(cells, objects, _others(range(len(cells)), failed), params)]
    kept = _others(range(len(cells)), left_out)
    _refuse_few(exposures, kept, left_out)
    common = _common(cells, objects, kept, [Plane(_level(cells[n], objects[n]), 0, 0) for n in kept])
    for _ in range(2):
        flat_cells = {number: cells[number].over(common) for number in kept}
        for number in kept:
            objects[number] = find_objects(
                flat_cells[number], params.object_sigma, params.min_contrast_fraction, known=objects[number]
            )
        fresh = _covered(cells, objects, kept, params)
        kept = _others(kept, fresh)
        planes = {number: plane_of(flat_cells[number], objects[number]) for number in kept}
        rough = {number: _roughness(flat_cells[number], objects[number], planes[number]) for number in kept}
        fresh += _outlying(rough, params.max_roughness_fraction)
        kept = _others(kept, fresh)
        left_out += fresh
        _refuse_few(exposures, kept, left_out)
        planes = _about_their_mean(planes, kept)
        common = _common(cells, objects, kept, [planes[number] for number in kept])
        if not fresh:
            break
    lights = [Light(n, planes[n], objects[n] | hollow[n], cells[n].size) for n in kept]
    masked = float(np.mean([_masked_fraction(cells[n], objects[n]) for n in kept]))
    return Sky(lights, sorted(left_out), masked, [rough[n] for n in kept])


def plane_of(cells: Cells, objects: np.ndarray, tilted: bool = True) -> Plane:
    """The plane through the cells of a frame that no object covers, from every second row and column of many."""
    step = 2 if min(cells.mean.shape) > 128 else 1
    some = (slice(None, None, step), slice(None, None, step))
    return fit_plane(
        cells.mean[some], (cells.known & ~objects)[some], weight=cells.count[some], tilted=tilted
    )


def relative_planes(planes: Sequence[Plane]) -> list[Plane]:
    """The planes with slopes about their mean, frames that are far off left out of it."""
    centre = [_centre([plane.slope_y for plane in planes]), _centre([plane.slope_x for plane in planes])]
    return [
        replace(plane, slope_y=plane.slope_y - centre[0], slope_x=plane.slope_x - centre[1])
        for plane in planes
    ]


def _about_their_mean(planes: dict[int, Plane], kept: Sequence[int]) -> dict[int, Plane]:
    return dict(zip(kept, relative_planes([planes[number] for number in kept]), strict=True))


def _centre(slopes: Sequence[float]) -> float:
    """Mean of what lies within five times the median distance from the median."""
    values = np.asarray(slopes)
    away = np.abs(values - np.median(values))
    return float(values[away <= 5 * np.median(away)].mean())


def _refuse_few(exposures: Exposures, kept: Sequence[int], left_out: Sequence[tuple[int, str]]) -> None:
    if len(kept) >= AT_LEAST:
        return
    reasons = "; ".join(f"{exposures.name(number)}: {reason}" for number, reason in left_out)
    raise TooFew(
        f"only {len(kept)} of {len(exposures)} frames show the sky, and {AT_LEAST} are needed: {reasons}",
        hint="add frames of emptier fields; awe-preview shows them",
    )


def _masked_fraction(cells: Cells, objects: np.ndarray) -> float:
    known = cells.known
    return int(np.count_nonzero(objects & known)) / max(int(np.count_nonzero(known)), 1)


def _level(cells: Cells, objects: np.ndarray) -> float:
    use = cells.known & ~objects
    return float(np.median(cells.mean[use])) if use.any() else 0.0


def _blocks(cells: Cells) -> int:
    return max(2, COMMON_PX // cells.size)


def _common(
    cells: Sequence[Cells], objects: Sequence[np.ndarray], kept: Sequence[int], planes: Sequence[Plane]
) -> np.ndarray:
    """What the frames have in common, one value a cell: the median of the frames in blocks, interpolated."""
    maps = []
    for number, plane in zip(kept, planes, strict=True):
        one = cells[number]
        shape = (one.mean.shape[0], one.mean.shape[1])
        blocks = block_statistics(one.mean / plane.rows(shape), one.known & ~objects[number], _blocks(one))
        maps.append(blocks.median)
    stack = np.stack([one.reshape(-1) for one in maps], axis=1)
    middle = row_medians(stack, ~np.isnan(stack)).reshape(blocks.median.shape).astype(np.float64)
    return interpolate_blocks(fill_gaps(middle), blocks, cells[kept[0]].mean.shape)


def _roughness(cells: Cells, objects: np.ndarray, plane: Plane) -> float:
    """Clipped scatter of the blocks of a frame about its plane, a fraction."""
    shape = (cells.mean.shape[0], cells.mean.shape[1])
    rest = cells.mean / plane.rows(shape) - 1
    medians = block_statistics(rest, cells.known & ~objects, _blocks(cells)).median
    return clipped(medians[~np.isnan(medians)]).stdev


def _others(numbers: Iterable[int], left_out: Sequence[tuple[int, str]]) -> list[int]:
    without = {number for number, _ in left_out}
    return [number for number in numbers if number not in without]


def _covered(
    cells: Sequence[Cells], objects: Sequence[np.ndarray], numbers: Iterable[int], params: NightSkyParams
) -> list[tuple[int, str]]:
    """The frames that objects cover, or that have no sky, and why they cannot be used."""
    found = []
    for number in numbers:
        part = _masked_fraction(cells[number], objects[number])
        level = _level(cells[number], objects[number])
        if part > min(params.max_masked_fraction, MOST_MASKED):
            found.append((number, f"objects cover {part:.2f} of it"))
        elif not cells[number].known.any():
            found.append((number, "no pixel of it counts: all masked, saturated or not finite"))
        elif not level > 0:
            found.append((number, f"its sky is {level:.3g} ADU"))
    return found


def _outlying(rough: dict[int, float], max_roughness_fraction: float) -> list[tuple[int, str]]:
    """The frames whose sky is not like that of the others."""
    limit = max(max_roughness_fraction, OUTLYING * float(np.median(list(rough.values())))) if rough else 0.0
    text = "its sky departs by {:.3f} from what the frames have in common, more than {:.3f}"
    return [(number, text.format(one, limit)) for number, one in rough.items() if not one <= limit]
